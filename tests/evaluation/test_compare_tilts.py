"""`cryolithe compare` without halves of the frames: tables of all images tell each half of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import call, good
from projects import ANGLES as ALL_ANGLES
from projects import DARK, VOLUME, make_project, write_aretomo, write_imod
from test_ctf_files import CTFFIND, columns
from test_known_command import DOSES, mdoc
from test_session import project as relion_of_single_images
from tiny_series import ANGLES, made, noise, voxels, write_series

ROWS = [(2.0 + 0.1 * n, 1.9 + 0.1 * n, 20.0) for n in range(len(ANGLES))]
PARTS = {"half1": range(0, len(ANGLES), 2), "half2": range(1, len(ANGLES), 2), "whole": range(len(ANGLES))}
FBP = ("--thickness", 16, "--device", "cpu", "--defocus-hand", 1)


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path)


def compare(series, *words):
    page = series[0].with_name("page.html")
    fixed = ("--methods", "fbp", "--thickness", 16, "--device", "cpu", "-o", page)
    return call("compare", *series, *fixed, *words)


def records(folder):
    """What the volumes' records say was done to their images, by part."""
    work = folder / "page.work" / "fbp"
    return {part: json.loads((work / f"{part}.json").read_text())["method"]["corrections"] for part in PARTS}


def views(path):
    """A file of IMOD, version 2: a row for each view."""
    both = zip(ANGLES, ROWS, strict=True)
    rows = [f"{n} {n} {angle} {angle} {1000 * u:g}" for n, (angle, (u, _, _)) in enumerate(both, 1)]
    path.write_text("\n".join([f"{rows[0]} 2", *rows[1:]]) + "\n")
    return path


def test_a_table_by_rows_tells_each_half_its_own_images(series, tmp_path):
    table = tmp_path / "ctffind.txt"
    table.write_text(columns(CTFFIND, rows=ROWS))
    result = compare(series, "--ctf", "flip", "--ctf-file", table, "--defocus-hand", 1)
    assert result.exit_code == 0, result.output
    assert "CTF: phases flipped in strips along the tilt axis, defocus 1.95 to 2.95 µm (ctffind.txt)" in result.stderr
    for part, found in records(tmp_path).items():
        assert [image["u_um"] for image in found["ctf"]["images"]] == [ROWS[n][0] for n in PARTS[part]]
    # The same as of a stack that was split by hand, with a table that was split by hand.
    half, angles = write_series(tmp_path, noise()[1::2], ANGLES[1::2], "half")
    table.with_name("half.txt").write_text(columns(CTFFIND, rows=ROWS[1::2]))
    with_table = ("--ctf", "flip", "--ctf-file", table.with_name("half.txt"))
    made(half, angles, "--method", "fbp", *FBP, *with_table, "-o", tmp_path / "by_hand.mrc")
    assert np.array_equal(voxels(tmp_path / "by_hand.mrc"), voxels(tmp_path / "page.work" / "fbp" / "half2.mrc"))
    assert str(table) in json.loads((tmp_path / "page.json").read_text())["inputs"]["ctf"]["path"]
    # What is kept is not taken for what another table would give.
    table.write_text(columns(CTFFIND, rows=ROWS[::-1]))
    again = compare(series, "--ctf", "flip", "--ctf-file", table, "--defocus-hand", 1, "--overwrite")
    assert "made before" not in again.stderr
    assert records(tmp_path)["half1"]["ctf"]["images"][0]["u_um"] == ROWS[-1][0]


def test_views_of_imod_are_those_of_the_stack(series, tmp_path):
    result = compare(series, "--ctf", "flip", "--ctf-file", views(tmp_path / "ts.defocus"))
    assert result.exit_code == 0, result.output
    for part, found in records(tmp_path).items():
        assert [image["u_um"] for image in found["ctf"]["images"]] == pytest.approx([ROWS[n][0] for n in PARTS[part]])
    # One hand for all: halves alone might be corrected with different ones.
    assert len({found["ctf"]["hand_by_images"]["images"] for found in records(tmp_path).values()}) == 1


@pytest.mark.parametrize("named", [True, False])
def test_doses_are_those_of_the_images_whether_their_file_is_named_or_lies_beside(series, tmp_path, named):
    path = mdoc(tmp_path, DOSES, "ts.mrc.mdoc")
    result = compare(series, "--dose-weight", *(("--dose", path) if named else ()))
    assert result.exit_code == 0, result.output
    assert "Dose weighting: images after 0 to 30 e/Å²" in result.stderr
    for part, found in records(tmp_path).items():
        assert found["dose_weight"]["exposures"] == [DOSES[n] for n in PARTS[part]]


def test_halves_are_told_as_parts_of_the_stack(series, tmp_path):
    assert compare(series).exit_code == 0
    work = tmp_path / "page.work"
    assert not list(work.glob("tilts_*"))
    geometry = json.loads((work / "fbp" / "half2.json").read_text())["geometry"]
    assert geometry["part"] == geometry["sections"] == [n + 1 for n in PARTS["half2"]]
    assert "part" not in json.loads((work / "fbp" / "whole.json").read_text())["geometry"]
    assert "fbp: made before" in compare(series, "--overwrite").stderr.lower()


def aretomo_words(project, dark):
    return [project.stack, "--aln", write_aretomo(project, dark=dark)]


def imod_words(project, dark):
    _, newst, tilt = write_imod(project, dark=dark)
    return [project.stack, "--newst-com", newst, "--tilt-com", tilt]


@pytest.mark.slow
@pytest.mark.parametrize("words", [aretomo_words, imod_words])
def test_tilts_of_a_raw_stack_are_split_as_if_its_alignment_left_the_others_out(words, tmp_path):
    project = make_project(tmp_path / "raw")
    depth = ("--thickness", VOLUME[0], "--device", "cpu", "--contrast", "bright")
    page = ("-o", tmp_path / "page.html", "--methods", "fbp")
    result = good("compare", *words(project, DARK), *depth, *page)
    assert "The halves are odd and even tilts" in result.stderr
    work = tmp_path / "page.work" / "fbp"
    used = [section for section in np.argsort(ALL_ANGLES, kind="stable").tolist() if section not in DARK]
    for name, half in (("half1", used[::2]), ("half2", used[1::2]), ("whole", used)):
        geometry = json.loads((work / f"{name}.json").read_text())["geometry"]
        assert geometry["sections"] == sorted(section + 1 for section in half)
        others = tuple(section for section in range(len(ALL_ANGLES)) if section not in half)
        by_hand = tmp_path / f"{name}.mrc"
        made(*words(project, others), "--method", "fbp", *depth, "-o", by_hand)
        np.testing.assert_array_equal(voxels(by_hand), voxels(work / f"{name}.mrc"))


def test_a_table_of_single_images_is_split_as_their_stack_is(tmp_path):
    """Bytes of halves and of the whole are those of the stack with the same table as its alignment."""
    relion_of_single_images(tmp_path)
    table, pages = tmp_path / "Tilts" / "TS_3.star", {}
    for name, words in {"table": (table,), "stack": (table.with_suffix(".mrc"), "--star", table)}.items():
        page = tmp_path / f"{name}.html"
        flags = ("--methods", "fbp", "--thickness", 16, "--pixel-size", 5, "--device", "cpu", "-o", page)
        good("compare", *words, *flags)
        pages[name] = page.with_suffix(".work") / "fbp"
    for part in PARTS:
        assert np.array_equal(voxels(pages["table"] / f"{part}.mrc"), voxels(pages["stack"] / f"{part}.mrc"))
