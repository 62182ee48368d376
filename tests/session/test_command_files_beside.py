"""IMOD's command files in a folder: of the series of which they name a file, and told where they are of none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import good
from projects import ANGLES, VOLUME, make_project, write_imod
from tiny_series import made, voxels

from cryolithe.formats.series.session_folder import read_session_folder

FBP = ("--method", "fbp", "--contrast", "bright")
DRY = (*FBP, "--thickness", VOLUME[0], "--dry-run")
# Sections as a raw stack is sorted by newst.com; the angles are those of the sorted one.
SORTING = (*range(1, len(ANGLES), 2), *range(0, len(ANGLES), 2))


def project(folder, tilt_lines=(), newst_lines=()):
    """All that etomo has of a series, with what only its tilt.com tells."""
    made_of = make_project(folder)
    lines = (f"THICKNESS {VOLUME[0]}", "OFFSET 4", *tilt_lines)
    return made_of, *write_imod(made_of, lines, newst_lines)


def words(text):
    return " ".join(text.split())


def as_given_to_the_command(folder, stack, *files):
    """The volume of a session is that of the command with these files, and they are all named."""
    said = made(folder, *FBP).stderr
    made(stack, *files, *FBP, "-o", folder.parent / "given.mrc")
    np.testing.assert_array_equal(voxels(stack.with_name(f"{stack.stem}_rec.mrc")), voxels(folder.parent / "given.mrc"))
    assert "is not used" not in said
    return said


@pytest.mark.parametrize(
    ("written", "taken", "angles"),
    [
        *((name, name, "ts.tlt") for name in ("ts_ali_dw.mrc", "ts_dw_ali.mrc", "ts_ali_mtf.mrc", "TS_ali.mrc")),
        ("ts_aligned_b1.mrc", "ts_aligned_b1.mrc", "fine.tlt"),  # what newst.com writes
        ("other_ali.mrc", "/data/elsewhere/other_ali.mrc", "fine.tlt"),
        ("ts_ali.mrc", "renamed.mrc", "ts.tlt"),
    ],
)
def test_tilt_com_is_of_the_series_of_which_it_names_a_file(written, taken, angles, tmp_path):
    made_of, _, newst, tilt = project(
        tmp_path / "ts", (f"InputProjections {taken}",), ("InputFile ts.mrc", f"OutputFile {written}")
    )
    (made_of.folder / angles).write_bytes(made_of.tlt.read_bytes())
    tilt.write_text(tilt.read_text().replace("TILTFILE ts.tlt", f"TILTFILE {angles}"))
    said = as_given_to_the_command(made_of.folder, made_of.stack, "--newst-com", newst, "--tilt-com", tilt)
    assert ("ts.mrc is taken for it" in said) is (taken == "renamed.mrc")


@pytest.mark.parametrize(
    ("source", "transforms"),
    [
        *((f"ts{end}.mrc", "ts.xf") for end in ("_fixed", "_dc", "_sorted", "_raw")),
        ("TS.mrc", "fine.xf"),
        ("Position_3.mrc", "ts.xf"),
        ("Position_3.mrc", "fine.xf"),  # what it writes is what the tilt.com of ts.tlt takes in
    ],
)
def test_newst_com_is_of_the_series_of_which_it_names_a_file(source, transforms, tmp_path):
    """With the order of its images, which nothing else tells."""
    order = f"SectionsToRead {','.join(map(str, SORTING))}"
    made_of, xf, newst, tilt = project(
        tmp_path / "ts", ("InputProjections p_ali.mrc",), (f"InputFile {source}", "OutputFile p_ali.mrc", order)
    )
    made_of.tlt.write_text("".join(f"{ANGLES[section]:.2f}\n" for section in SORTING))
    newst.write_text(newst.read_text().replace("TransformFile ts.xf", f"TransformFile {transforms}"))
    xf.rename(made_of.folder / transforms)
    as_given_to_the_command(made_of.folder, made_of.stack, "--newst-com", newst, "--tilt-com", tilt)


def test_an_aligned_stack_has_the_tilt_com_of_its_angles(tmp_path):
    made_of, xf, newst, tilt = project(tmp_path / "ts", ("InputProjections ts_ali_dw.mrc",))
    ali = made_of.stack.rename(made_of.folder / "ts_ali.mrc")
    for path in (xf, newst):
        path.unlink()
    as_given_to_the_command(made_of.folder, ali, "--tilt-com", tilt)


def test_the_stack_that_newst_com_writes_may_lie_there(tmp_path):
    """It is called as a stack of another series, and so is none that tells against the tilt.com."""
    made_of, *_ = project(
        tmp_path / "ts", ("InputProjections ts_ali_dw.mrc",), ("InputFile ts.mrc", "OutputFile ts_ali_dw.mrc")
    )
    (made_of.folder / "ts_ali_dw.mrc").write_bytes(made_of.stack.read_bytes())
    entries = {entry.tilts.name: entry for entry in read_session_folder(made_of.folder).entries}
    assert set(entries["ts.mrc"].settings) == {"newst_com", "tilt_com"}


def of_another(folder):
    """A series with the command files of another."""
    made_of, _, newst, tilt = project(
        folder, ("InputProjections foo_ali.mrc",), ("InputFile foo.mrc", "OutputFile foo_ali.mrc")
    )
    for path in (newst, tilt):
        path.write_text(path.read_text().replace("ts.", "foo."))
    return made_of


def test_command_files_of_another_series_stay_out_and_are_told(tmp_path):
    made_of = of_another(tmp_path / "ts")
    (entry,) = read_session_folder(made_of.folder).entries
    assert set(entry.settings) == {"xf"}
    lines = made(made_of.folder, *DRY).stderr.splitlines()
    listed = json.loads(good("info", made_of.folder, "--json").stdout)[0]["notes"]
    for name, named in (("newst.com", "foo.mrc, foo_ali.mrc, foo.xf"), ("tilt.com", "foo_ali.mrc, foo.tlt")):
        told = f"{name} is not used: it names {named}, and no file of a stack here"
        assert [told in line for line in lines].count(True) == 1
        assert [told in line for line in listed].count(True) == 1
        assert told in words(good("info", made_of.folder).stdout)
    assert "ts: tilt.com is not used" in made(tmp_path, *DRY).stderr


def test_a_tilt_com_that_cannot_be_read_is_told(tmp_path):
    made_of, _, newst, tilt = project(tmp_path / "ts")
    newst.unlink()
    tilt.write_text(f"{tilt.read_text()}OFFSET 1 2\n")
    assert "tilt.com is not used: " in made(made_of.folder, *DRY).stderr
    assert "OFFSET moves the tilt axis by 2 pixels" in good("info", made_of.folder).stdout


def two(folder, tilt_text, newst_text):
    """Two series, each with angles and transforms, and one pair of command files."""
    for name in ("a", "b"):
        made_of = make_project(folder)
        xf, *_ = write_imod(made_of)
        for path in (made_of.stack, made_of.tlt, xf):
            path.rename(folder / path.name.replace("ts", name))
    (folder / "newst.com").write_text(f"$newstack -StandardInput\n{newst_text}")
    (folder / "tilt.com").write_text(f"$tilt -StandardInput\n{tilt_text}")
    found = read_session_folder(folder)
    return [sorted(entry.settings) for entry in found.entries], " ".join(found.passed_over)


BOTH, NONE = ["newst_com", "tilt_com"], ["xf"]


@pytest.mark.parametrize(
    ("newst", "tilt", "taken", "told"),
    [
        ("InputFile a.mrc\nTransformFile a.xf\n", "InputProjections a_ali.mrc\nTILTFILE a.tlt\n", [BOTH, NONE], []),
        ("InputFile p.mrc\nTransformFile b.xf\n", "InputProjections p_ali.mrc\nTILTFILE b.tlt\n", [NONE, BOTH], []),
        (
            "InputFile p.mrc\nTransformFile p.xf\n",
            "InputProjections p_ali.mrc\nTILTFILE p.tlt\n",
            [NONE, NONE],
            ["newst.com is not used: it names p.mrc, p.xf, and no", "tilt.com is not used: it names p_ali.mrc, p.tlt"],
        ),
        (
            "InputFile p.mrc\nTransformFile a.xf\nOutputFile b.mrc\n",
            "XTILTFILE a.tlt\nTILTFILE b.tlt\n",
            [NONE, NONE],
            ["newst.com is not used: it names files of several", "tilt.com is not used: it names files of several"],
        ),
        ("TransformFile p.xf\n", "ANGLES 1 2\n", [NONE, NONE], ["tilt.com is not used: it names no file of a stack"]),
    ],
)
def test_between_several_series_nothing_is_guessed(newst, tilt, taken, told, tmp_path):
    found, lines = two(tmp_path / "both", tilt, newst)
    assert found == taken
    assert bool(lines) == bool(told)
    for line in told:
        assert line in lines


def test_the_dry_run_of_a_folder_tells_what_that_of_one_series_does(tmp_path):
    """Of a raw stack as Warp names it, whose alignment lies elsewhere, and of one that AreTomo aligned for IMOD."""
    warp, aretomo = make_project(tmp_path / "tiltstack"), make_project(tmp_path / "aretomo")
    stack = warp.stack.rename(warp.folder / "ts.st")
    rawtlt = warp.tlt.rename(warp.folder / "ts.rawtlt")
    (aretomo.folder / "ts_Imod").mkdir()
    tlt = aretomo.tlt.rename(aretomo.folder / "ts_Imod" / "ts_st.tlt")
    xf = write_imod(aretomo)[0].rename(aretomo.folder / "ts_Imod" / "ts_st.xf")
    for name in ("newst.com", "tilt.com"):
        (aretomo.folder / name).unlink()
    for path, angles, why in ((stack, rawtlt, "is how a raw stack is called"), (aretomo.stack, tlt, f"{xf} beside")):
        notes = [
            line.partition(": ")[2]
            for line in made(path, angles, *DRY).stderr.splitlines()
            if line.startswith("Note on ")
        ]
        assert why in " ".join(notes)
        folder = made(path.parent, *DRY).stderr.splitlines()
        listed = json.loads(good("info", path.parent, "--json").stdout)[0]["notes"]
        for note in notes:
            assert f"Note on {path}: {note}" in folder
            assert f"Note on {path}: {note}" in listed
    made(aretomo.stack, tlt, "--xf", xf, *DRY)
