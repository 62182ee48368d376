"""Transforms of IMOD are for one stack, raw or prealigned, binned or not: another one is refused, or told."""

from __future__ import annotations

import numpy as np
import pytest
from beads import DEPTH, PIXEL, assert_beads, bead_images, some_shifts, write_angles, write_stack
from tiny_series import made, refused

AXIS = 84.0
FBP = ("--method", "fbp", "--thickness", DEPTH)
TURN = np.deg2rad(-AXIS)
MATRIX = np.array([[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]])
SHAPE = (64, 64)


def write_xf(path, shifts, matrix=MATRIX):
    rows = np.hstack([np.broadcast_to(matrix.ravel(), (len(shifts), 4)), shifts])
    path.write_text("".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in rows))
    return path


def write_newst(path, *lines):
    path.write_text("\n".join(("$newstack -StandardInput", *lines, "")))
    return path


@pytest.fixture
def etomo(tmp_path):
    """A folder with ts.st, ts_preali.mrc, and their transforms: the .xf is the .prexg, then the .tltxf."""
    moved, coarse = some_shifts(), some_shifts(2.0)[::-1]
    write_stack(tmp_path / "ts.st", bead_images(axis_deg=AXIS, shifts=moved, shape=SHAPE))
    write_stack(tmp_path / "ts_preali.mrc", bead_images(axis_deg=AXIS, shifts=moved + coarse, shape=SHAPE))
    write_xf(tmp_path / "ts.prexg", coarse, np.eye(2))
    write_xf(tmp_path / "ts.tltxf", -(moved + coarse) @ MATRIX.T)
    write_xf(tmp_path / "ts.xf", -moved @ MATRIX.T)
    write_angles(tmp_path / "ts.tlt")
    return tmp_path


def words(folder, stack, *more):
    return [folder / stack, folder / "ts.tlt", *more, "-o", folder / "v.mrc", *FBP]


def told(result):
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(("stack", "transforms"), [("ts.st", "ts.xf"), ("ts_preali.mrc", "ts.tltxf")])
def test_each_stack_has_its_transforms(stack, transforms, etomo):
    """ts.xf is for the raw stack, ts.tltxf for the prealigned one."""
    result = made(*words(etomo, stack, "--xf", etomo / transforms))
    assert "Warning" not in result.stderr
    assert_beads(etomo / "v.mrc")
    newst = write_newst(
        etomo / "newst.com", f"InputFile {stack}", f"TransformFile {transforms}", "OutputFile ts_ali.mrc"
    )
    assert "Warning" not in made(*words(etomo, stack, "--newst-com", newst, "--overwrite")).stderr
    assert_beads(etomo / "v.mrc")


@pytest.mark.parametrize("name", ["ts_preali.mrc", "ts.preali"])
def test_a_stack_is_not_prealigned_twice(name, etomo):
    (etomo / "ts_preali.mrc").rename(etomo / name)
    newst = write_newst(etomo / "newst.com", "InputFile ts.st", "TransformFile ts.xf")
    for option, file in (("--xf", etomo / "ts.xf"), ("--newst-com", newst)):
        refused(etomo, words(etomo, name, option, file), "it is prealigned", "give the raw stack (ts.st)")


def test_a_prealigned_stack_is_not_taken_as_aligned_in_silence(etomo):
    said = told(made(*words(etomo, "ts_preali.mrc")))
    assert "Warning: the name of ts_preali.mrc says that it is prealigned" in said
    assert "ts.xf is there and is not used" not in said
    said = told(made(*words(etomo, "ts_preali.mrc", "--tilt-axis", AXIS, "--overwrite")))
    assert "prealigned" not in said


def test_the_transforms_of_the_prealigned_stack_are_doubted_for_another(etomo):
    said = told(made(*words(etomo, "ts.st", "--xf", etomo / "ts.tltxf")))
    assert "Warning: ts.tltxf is of the prealigned stack, and ts.st is taken for it" in said


def test_the_prealignment_alone_is_no_alignment(etomo):
    refused(etomo, words(etomo, "ts.st", "--xf", etomo / "ts.prexg"), "the prealignment alone", "give the .xf")
    for lines in (
        ("InputFile ts.st", "OutputFile ts_preali.mrc", "TransformFile ts.xf"),
        ("InputFile ts.st", "OutputFile ts.preali", "TransformFile ts.prexg"),
        ("InputFile ts.st", "OutputFile coarse.mrc", "TransformFile ts.prexg"),
    ):
        command = write_newst(etomo / "prenewst.com", *lines)
        refused(etomo, words(etomo, "ts.st", "--newst-com", command), "that is prenewst.com", "give newst.com")


# Binned copies


@pytest.fixture
def copies(tmp_path):
    """ts_bin2.st, whose alignment is in pixels of ts.st; that is twice as large."""
    shifts = some_shifts()
    images = bead_images(axis_deg=AXIS, shifts=shifts, shape=SHAPE)
    write_stack(tmp_path / "ts_bin2.st", images)
    write_stack(tmp_path / "ts.st", images.repeat(2, 1).repeat(2, 2), PIXEL / 2)
    write_xf(tmp_path / "ts.xf", -2 * shifts @ MATRIX.T)
    write_xf(tmp_path / "ts_bin2.xf", -shifts @ MATRIX.T)
    write_angles(tmp_path / "ts.tlt")
    return tmp_path


def test_shifts_of_larger_or_smaller_pixels_are_refused(copies):
    large = "ts_bin2.st is binned by 2 against the stack of ts.xf (ts.st, 128 x 128)"
    refused(copies, words(copies, "ts_bin2.st", "--xf", copies / "ts.xf"), large, "give that stack with --bin 2")
    small = "ts_bin2.xf is of a stack that is binned by 2 against ts.st (ts_bin2.st, 64 x 64)"
    refused(copies, words(copies, "ts.st", "--xf", copies / "ts_bin2.xf"), small)
    (copies / "ts_bin2.st").rename(copies / "small.st")
    refused(copies, words(copies, "small.st", "--xf", copies / "ts.xf"), "small.st is binned by 2 against")


def test_names_tell_where_the_other_stack_is_away(copies):
    (copies / "ts.st").unlink()
    said = made(*words(copies, "ts_bin2.st", "--xf", copies / "ts.xf")).stderr
    assert "Warning: ts_bin2.st is binned by 2 against the stack of ts.xf (if their names are right)" in said
    assert "--bin 2" in said


def test_transforms_of_these_pixels_are_taken(copies):
    made(*words(copies, "ts_bin2.st", "--xf", copies / "ts_bin2.xf"))
    assert_beads(copies / "v.mrc")
    made(*words(copies, "ts.st", "--xf", copies / "ts.xf", "--bin", 2, "--overwrite"))
    assert_beads(copies / "v.mrc")


def test_names_that_tell_nothing_are_no_reason(copies):
    """A stack of the microscope has the name of IMOD's .st; the transforms of a binned stack may be called anyhow."""
    (copies / "ts.st").rename(copies / "ts.mrc")
    (copies / "ts_bin2.st").rename(copies / "ts.st")
    transforms = (copies / "ts_bin2.xf").read_bytes()
    for name in ("ts.xf", "final.xf"):
        (copies / name).write_bytes(transforms)
        made(*words(copies, "ts.st", "--xf", copies / name, "--overwrite"))
        assert_beads(copies / "v.mrc")


def test_newst_com_of_another_stack(copies):
    lines = ("InputFile ts.st", "TransformFile final.xf", "SizeToOutputInXandY 64,64", "BinByFactor 2")
    newst = write_newst(copies / "newst.com", *lines)
    (copies / "ts.xf").rename(copies / "final.xf")
    refused(copies, words(copies, "ts_bin2.st", "--newst-com", newst), "is of ts.st", "128 x 128", "have 64 x 64")
    (copies / "ts.st").unlink()
    said = told(made(*words(copies, "ts_bin2.st", "--newst-com", newst)))
    assert "Warning: newst.com makes images that cover 128 x 128 pixels, but those of ts_bin2.st have 64 x 64" in said


def test_newst_com_may_name_a_binned_stack_with_other_transforms(copies):
    """It says itself what they are for."""
    write_xf(copies / "ts.xf", -some_shifts() @ MATRIX.T)
    newst = write_newst(copies / "newst.com", "InputFile ts_bin2.st", "TransformFile ts.xf", "SizeToOutput 64,64")
    made(*words(copies, "ts_bin2.st", "--newst-com", newst))
    assert_beads(copies / "v.mrc")
