"""Files of other programs beside Warp's angles, which its tools turn round or not: each image gets its own values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_ctf_files import ARETOMO
from tiny_series import made, refused, write_series

from cryolithe.formats.alignment.same_images import same_images
from cryolithe.formats.angle_signs import turns_back
from cryolithe.formats.image_rows import FileRows, Others
from cryolithe.formats.stacks.mdoc import MdocImage, write_mdoc

FBP = ("--method", "fbp", "--thickness", 12, "--device", "cpu")
# As they were taken: one side after the other.
TAKEN = (0, 10, 20, 30, 40, 50, -10, -20, -30, -40, -50)
N = len(TAKEN)
DOSES, DEFOCI = [3.0 * n for n in range(N)], [2.0 + 0.2 * n for n in range(N)]
SUPPOSED, TURNED = "is supposed", "with the other sign"


def orders(angles=TAKEN):
    return range(N), np.argsort(angles).tolist(), np.argsort(angles)[::-1].tolist()


def stack(folder, order, angles=TAKEN):
    """A stack with the images in an order, and the microscope's angles of it."""
    return write_series(folder, angles=[angles[n] for n in order])


def warp(folder, sign, order, angles=TAKEN, doses=True):
    """Warp's .xml with the microscope's angles times a sign, in the order of the stack."""
    lists = {"Angles": [sign * angles[n] for n in order], "UseTilt": ["True"] * N}
    lists |= {name: [0] * N for name in ("AxisAngle", "AxisOffsetX", "AxisOffsetY")}
    lists |= {"Dose": [DOSES[n] for n in order]} if doses else {}
    body = "".join(f"<{name}>" + "\n".join(map(str, column)) + f"</{name}>" for name, column in lists.items())
    nodes = "".join(f'<Node X="0" Y="0" Z="{z}" Value="{DEFOCI[n]}" />' for z, n in enumerate(order))
    grid = f'<GridCTF Width="1" Height="1" Depth="{N}">{nodes}</GridCTF>'
    size = 'ImageDimensionsAngstrom="240, 200" VolumeDimensionsAngstrom="240, 200, 60"'
    path = folder / "of_warp.xml"
    path.write_text(f"<TiltSeries {size}>{body}<CTF><Param Name='Defocus' Value='2' /></CTF>{grid}</TiltSeries>")
    return path


def mdoc(folder, order, angles=TAKEN, name="other.mdoc"):
    images = [MdocImage(angles[n], 3.0, DOSES[n], -2.5, n) for n in order]
    write_mdoc(folder / name, "frames.mrc", images, 5.0, (40, 48), 300.0, overwrite=True)
    return "--dose-weight", "--dose", folder / name


def star(folder, order, angles=TAKEN, image="frames/{}.mrc"):
    columns = ("MicrographName", "TomoNominalStageTiltAngle", "DefocusU", "DefocusV", "MicrographPreExposure")
    lines = ["data_ts", "", "loop_", *(f"_rln{column} #{n}" for n, column in enumerate(columns, start=1))]
    lines += [f"{image.format(n)} {angles[n]} {DEFOCI[n] * 1e4} {DEFOCI[n] * 1e4} {DOSES[n]}" for n in order]
    path = folder / "of_relion.star"
    path.write_text("\n".join(lines) + "\n")
    return "--dose-weight", "--dose", path, "--ctf", "flip", "--ctf-file", path


def views(folder, order, angles=TAKEN):
    rows = [f"{k} {k} {angles[n]} {angles[n]} {DEFOCI[n] * 1e3}{' 2' * (k == 1)}" for k, n in enumerate(order, start=1)]
    (folder / "of_imod.defocus").write_text("\n".join(rows) + "\n")
    return "--ctf", "flip", "--ctf-file", folder / "of_imod.defocus"


def aretomo(folder, order, angles=TAKEN):
    """Always in the order of tilt angles."""
    rows = [f"{k} {DEFOCI[n] * 1e4} {DEFOCI[n] * 1e4} 0 0 0.1 6.0 1" for k, n in enumerate(orders(angles)[1], start=1)]
    (folder / "of_aretomo.txt").write_text(ARETOMO + "\n".join(rows) + "\n")
    return "--ctf", "flip", "--ctf-file", folder / "of_aretomo.txt"


def told(folder, *words):
    """What was said, and of which images the values are that each image got."""
    output = folder / "out.mrc"
    said = made(folder / "ts.mrc", *words, *FBP, "-o", output, "--overwrite").stderr
    got = json.loads(output.with_suffix(".json").read_text())["method"]["corrections"]
    found = []
    if "ctf" in got:
        found.append([round((image["u_um"] - DEFOCI[0]) / 0.2) for image in got["ctf"]["images"]])
    if "dose_weight" in got:
        found.append([round(dose / 3) for dose in got["dose_weight"]["exposures"]])
    assert found
    assert all(rows == found[0] for rows in found)
    return said, found[0]


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("table", [mdoc, star, views])
def test_the_order_of_the_stack_tells_the_sign(table, sign, tmp_path):
    order = orders()[0]
    stack(tmp_path, order)
    said, got = told(tmp_path, "--warp", warp(tmp_path, sign, order, doses=False), *table(tmp_path, order))
    assert got == list(order)
    assert SUPPOSED not in said
    assert (TURNED in said) == (sign > 0)


@pytest.mark.parametrize("sign", [-1, 1])
def test_values_by_warp_for_the_alignment_of_another_program(sign, tmp_path):
    order = orders()[0]
    _, angles = stack(tmp_path, order)
    path = warp(tmp_path, sign, order)
    said, got = told(tmp_path, angles, "--ctf", "flip", "--ctf-file", path, "--dose-weight", "--dose", path)
    assert got == list(order)
    assert SUPPOSED not in said
    assert (TURNED in said) == (sign > 0)
    said, got = told(tmp_path, "--warp", path, "--ctf", "flip", "--dose-weight")
    assert got == list(order)
    assert "--dont_invert" not in said


@pytest.mark.parametrize("table", [mdoc, star, views])
def test_the_range_tells_the_sign_of_a_sorted_stack(table, tmp_path):
    angles = tuple(angle + 9 if angle > 0 else angle for angle in TAKEN)
    for order in orders(angles)[1:]:
        stack(tmp_path, order, angles)
        for sign in (-1, 1):
            path = warp(tmp_path, sign, order, angles, doses=False)
            said, got = told(tmp_path, "--warp", path, *table(tmp_path, order, angles))
            assert got == list(order)
            assert SUPPOSED not in said


def test_a_level_angle_is_not_taken_for_the_other_sign(tmp_path):
    """One image more on one side, and a specimen tilted by as much: the negatives are the microscope's angles again."""
    angles = tuple(float(angle) for angle in range(-45, 66, 11))
    order = orders(angles)[1]
    stack(tmp_path, order, angles)
    path = warp(tmp_path, -1, order, angles, doses=False)
    path.write_text(path.read_text().replace("<TiltSeries ", '<TiltSeries LevelAngleY="20" '))
    said, got = told(tmp_path, "--warp", path, *mdoc(tmp_path, order, angles))
    assert got == list(order)
    assert SUPPOSED in said


@pytest.mark.parametrize("table", [mdoc, star, views, aretomo])
def test_where_nothing_tells_the_sign_warps_usual_one_is_supposed_and_said(table, tmp_path):
    """Warp sorts a stack by its own angles, so that its order says nothing."""
    for order in orders()[1:]:
        stack(tmp_path, order)
        path = warp(tmp_path, -1, order, doses=False)
        said, got = told(tmp_path, "--warp", path, *table(tmp_path, orders()[1]))
        assert got == list(order)
        assert SUPPOSED in said
        assert "Warning" not in said.partition(SUPPOSED)[0].splitlines()[-1]


def test_no_sign_is_supposed_where_both_give_the_same(tmp_path):
    order = orders()[1]
    angles = (0, 10, -10, 20, -20, 30, -30, 40, -40, 50, -50)
    order = orders(angles)[1]
    stack(tmp_path, order, angles)
    path = warp(tmp_path, -1, order, angles, doses=False)
    (tmp_path / "all.txt").write_text(ARETOMO + "".join(f"{k} 25000 25000 0 0 0.1 6.0 1\n" for k in range(1, N + 1)))
    words = ("--ctf", "flip", "--ctf-file", tmp_path / "all.txt", "-o", tmp_path / "out.mrc", "--dry-run")
    assert "--dont_invert" not in made(tmp_path / "ts.mrc", "--warp", path, *FBP, *words).stderr


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_mdoc_beside_an_unsorted_stack_tells_the_sign_for_tables_that_have_no_angles(sign, tmp_path):
    order = orders()[0]
    stack(tmp_path, order)
    path = warp(tmp_path, sign, order)
    words = ("--warp", path, *aretomo(tmp_path, order))
    said, got = told(tmp_path, *words)
    assert SUPPOSED in said
    assert (got == list(order)) == (sign < 0)
    mdoc(tmp_path, order, name="ts.mrc.mdoc")
    said, got = told(tmp_path, *words)
    assert got == list(order)
    assert SUPPOSED not in said
    assert ("hand of the defocus gradient by of_aretomo.txt is that of its own angles" in said) == (sign > 0)


def test_images_that_a_table_names_tell_the_sign(tmp_path):
    for order in orders()[1:]:
        rows = FileRows(tuple(float(TAKEN[n]) for n in order), tuple(order), named=True)
        for sign in (-1, 1):
            angles = [-sign * float(angle) for angle in TAKEN]
            found = same_images(angles, rows, Others(used=tuple(range(N)), sections=N, stage_sign=0))
            assert [order[row] for row in found.rows] == list(range(N))
            assert not found.mirrored


def test_files_that_tell_other_doses_name_an_image(tmp_path):
    order = orders()[1]
    stack(tmp_path, order)
    words = ("--warp", warp(tmp_path, 1, order), *mdoc(tmp_path, order), *FBP, "-o", tmp_path / "out.mrc")
    said = ("other.mdoc says 15 e/Å² before image 1, ", "of_warp.xml says 30; ", "if it was made with --dont_invert")
    refused(tmp_path, (tmp_path / "ts.mrc", *words), *said)


def test_a_sorted_stack_turns_nowhere():
    assert not turns_back([-60.0, -3.0, -3.1, 0.0, 60.0])
    assert not turns_back([60.0, 3.0, -60.0])
    assert turns_back([0.0, 3.0, -3.0])
