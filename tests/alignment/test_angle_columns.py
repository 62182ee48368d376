"""Angle files of several columns: a first column that counts the images is no angle."""

from __future__ import annotations

import numpy as np
import pytest
from beads import ANGLES, DEPTH, assert_beads, bead_images, write_stack
from tiny_series import made, refused

from cryolithe.errors import FileFormatError
from cryolithe.formats import read_angles_deg
from cryolithe.formats.stacks.angles import read_angles_of

N = len(ANGLES)
DOSES = [3.0 * (n + 1) for n in range(N)]
SYMMETRIC = sorted(range(N), key=lambda n: (abs(ANGLES[n]), ANGLES[n]))  # which image was taken first, second, ...
TAKEN = [SYMMETRIC.index(n) for n in range(N)]


def text(*columns, join=" "):
    return "".join(join.join(f"{value:g}" if not isinstance(value, str) else value for value in row) + "\n"
                   for row in zip(*columns, strict=True))  # fmt: skip


COUNTED = {
    "from 1, doses": text(range(1, N + 1), DOSES),
    "from 0, doses": text(range(N), DOSES),
    "angles behind": text(range(1, N + 1), ANGLES),
    "angles and doses behind": text(range(N), ANGLES, DOSES),
    "doses and angles behind": text(range(N), DOSES, ANGLES),
    "commas": text(range(1, N + 1), ANGLES, join=","),
    "commas and doses": text(range(1, N + 1), DOSES, join=", "),
    "semicolons": text(range(N), DOSES, join=";"),
    "tabs": text(range(1, N + 1), DOSES, join="\t"),
    "points": text([f"{n}.00" for n in range(1, N + 1)], DOSES),
    "zeros": text([f"{n:03d}" for n in range(1, N + 1)], ANGLES),
    "the order of acquisition": text([n + 1 for n in TAKEN], ANGLES),
    "that order from 0": text(TAKEN, DOSES),
    "backwards": text(range(N, 0, -1), ANGLES),
    "a comment first": "# index dose\n" + text(range(1, N + 1), DOSES),
    "names of files": text(range(1, N + 1), [f"f{n}.tif" for n in range(N)]),
    "three images": text((1, 2, 3), (-20, 0, 20)),
    "one digit with commas": text(range(1, 10), range(9), join=","),
}
ANGLES_FIRST = {
    "an index behind": (text(ANGLES, range(1, N + 1)), ANGLES),
    "AreTomo's three columns": (text(ANGLES, [n + 1 for n in TAKEN], DOSES), ANGLES),
    "one column that counts": (text(range(N)), tuple(map(float, range(N)))),
    "whole degrees": (text(range(-15, 16), DOSES), tuple(map(float, range(-15, 16)))),
    "degrees from 1 with a gap": (text([*range(1, N), N + 1], DOSES), (*map(float, range(1, N)), float(N + 1))),
    "two images": (text((0, 1), (3, 6)), (0.0, 1.0)),
}


@pytest.mark.parametrize("case", COUNTED)
def test_a_counting_column_is_no_angle(case, tmp_path):
    path = tmp_path / "ts.txt"
    path.write_text(COUNTED[case])
    with pytest.raises(FileFormatError, match="the first column counts the images"):
        read_angles_deg(path)


@pytest.mark.parametrize("case", ANGLES_FIRST)
def test_other_columns_do_no_harm(case, tmp_path):
    path = tmp_path / "ts.txt"
    content, angles = ANGLES_FIRST[case]
    path.write_text(content)
    assert read_angles_deg(path) == angles


def test_the_column_that_looks_like_angles_is_named(tmp_path):
    path = tmp_path / "ts.txt"
    path.write_text(text(range(N), DOSES, ANGLES))
    with pytest.raises(FileFormatError, match=r"column 3 looks like them \(-60, -56, ...\)"):
        read_angles_deg(path)


@pytest.mark.slow
def test_through_the_command(tmp_path):
    stack, path = write_stack(tmp_path / "ts.mrc", bead_images()), tmp_path / "ts.txt"
    flags = ("--method", "fbp", "--thickness", DEPTH, "-o", tmp_path / "v.mrc")
    path.write_text(COUNTED["from 1, doses"])
    refused(tmp_path, [stack, path, *flags], "ts.txt: the first column counts the images (1, 2, ...) and is no angle")
    path.write_text(ANGLES_FIRST["AreTomo's three columns"][0])
    made(stack, path, *flags)
    assert_beads(tmp_path / "v.mrc")


@pytest.mark.parametrize("step", [2.5, 2, 60.0 / N, 3.1, 40])
def test_a_first_column_that_is_never_below_0_beside_a_tilt_scheme_is_no_angle(step, tmp_path):
    first = [step * n for n in range(N)]
    path = tmp_path / "ts.tlt"
    path.write_text(text(first, ANGLES))
    with pytest.raises(FileFormatError, match=r"column 2 \(-60, -56, ...\) looks like tilt angles"):
        read_angles_deg(path)
    path.write_text(text(first, DOSES, ANGLES))
    with pytest.raises(FileFormatError, match=r"column 3 \(-60, -56, ...\) looks like"):
        read_angles_deg(path)
    path.write_text(text(ANGLES, first))
    assert read_angles_deg(path) == pytest.approx(ANGLES)


def test_a_series_to_one_side_may_have_shifts_behind_its_angles(tmp_path):
    path = tmp_path / "ts.tlt"
    one_side = [2.0 * n for n in range(N)]
    path.write_text(text(one_side, np.random.default_rng(1).uniform(-15, 15, N).round(2)))
    assert read_angles_deg(path) == pytest.approx(one_side)


@pytest.mark.parametrize("join", [" ", "\t", ", ", ";"])
def test_angles_may_all_stand_in_one_line(join, tmp_path):
    stack, angles = write_stack(tmp_path / "ts.mrc", bead_images()), tmp_path / "ts.tlt"
    angles.write_text("# the whole series\n" + join.join(f"{angle:g}" for angle in ANGLES) + "\n\n")
    made(stack, angles, "--method", "fbp", "--thickness", DEPTH)
    assert_beads(tmp_path / "ts_rec.mrc")
    angles.write_text(join.join(f"{angle:g}" for angle in ANGLES[1:]))
    few = "it must hold all 31, also those of images that --exclude leaves out"
    refused(tmp_path, [stack, angles, "--exclude", "1", "--method", "fbp"], "31 images", "1 angles", few)


def test_columns_of_a_single_image_are_no_angles(tmp_path):
    angles = tmp_path / "ts.tlt"
    angles.write_text("-20 1 3.5\n")
    assert read_angles_deg(angles) == (-20.0,)
    assert read_angles_of(angles, 1) == (-20.0,)
    assert read_angles_of(angles, 4) == (-20.0,)
