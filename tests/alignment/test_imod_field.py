"""Which field IMOD's aligned images cover: newstack's own size where none is given, and what tilt.com says of it."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
from beads import ANGLES, DEPTH, PIXEL, assert_beads, bead_images, some_shifts, write_angles, write_stack
from tiny_series import made, refused

from cryolithe.formats.alignment.imod import read_newst_com

AXIS = 84.0
RAW = (64, 80)  # pixels (y, x) of a raw image
FBP = ("--method", "fbp")
TURN = np.deg2rad(-AXIS)
MATRIX = np.array([[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]])


@pytest.fixture
def project(tmp_path):
    """A raw stack whose axis is nearer to the horizontal, its transforms and its angles."""
    shifts = some_shifts(2.0)
    write_stack(tmp_path / "ts.st", bead_images(axis_deg=AXIS, shifts=shifts, shape=RAW))
    rows = np.hstack([np.broadcast_to(MATRIX.ravel(), (len(shifts), 4)), -shifts @ MATRIX.T])
    (tmp_path / "ts.xf").write_text("".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in rows))
    write_angles(tmp_path / "ts.tlt")
    return tmp_path


def newst(folder, *lines):
    path = folder / "newst.com"
    path.write_text("\n".join(("$newstack -StandardInput", "InputFile ts.st", *lines, "")))
    return path


def tilt(folder, *lines):
    path = folder / "tilt.com"
    path.write_text("\n".join(("$tilt -StandardInput", "TILTFILE ts.tlt", f"THICKNESS {DEPTH}", *lines, "")))
    return path


def words(folder, *more):
    return [folder / "ts.st", *more, "-o", folder / "v.mrc", *FBP]


def shape_of(path):
    with mrcfile.open(path) as file:
        return file.data.shape


def said(result):
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("size", [(), ("SizeToOutputInXandY /",)])
def test_aligned_images_without_a_size_are_as_large_as_raw_ones(size, project):
    """As newstack makes them, however far they are turned, so that SLICE and WIDTH leave nothing out."""
    commands = (
        newst(project, "TransformFile ts.xf", *size),
        tilt(project, "FULLIMAGE 80 64", "SLICE 0 63", "WIDTH 80"),
    )
    result = made(*words(project, "--newst-com", commands[0], "--tilt-com", commands[1]))
    assert shape_of(project / "v.mrc") == (DEPTH, *RAW)
    assert_beads(project / "v.mrc")
    assert "not applied" not in said(result)
    assert "newst.com gives no SizeToOutputInXandY: as IMOD's, aligned images keep the size" in said(result)


def test_tilt_com_tells_the_turned_field_where_newst_com_tells_none(project):
    """As AreTomo writes its command files."""
    commands = newst(project, "TransformFile ts.xf"), tilt(project, "FULLIMAGE 64 80", "SUBSETSTART 0 0")
    result = made(*words(project, "--newst-com", commands[0], "--tilt-com", commands[1]))
    assert shape_of(project / "v.mrc") == (DEPTH, *RAW[::-1])
    assert_beads(project / "v.mrc")
    assert "SizeToOutputInXandY" not in said(result)


def test_slices_and_columns_are_counted_in_the_images_that_newstack_makes(project):
    commands = (newst(project, "TransformFile ts.xf"), tilt(project, "FULLIMAGE 80 64", "SLICE 10 53", "WIDTH 60"))
    result = made(*words(project, "--newst-com", commands[0], "--tilt-com", commands[1]))
    assert shape_of(project / "v.mrc") == (DEPTH, *RAW)
    assert "IMOD's volume begins at row 10 and column 10 of it" in said(result)


@pytest.mark.parametrize(
    ("lines", "raw", "shape"),
    [
        ((), (90, 161), (90, 161)),
        (("BinByFactor 2",), (90, 160), (92, 160)),  # 46 and 80: even stays even
        (("BinByFactor 2",), (91, 161), (91, 162)),  # 45 and 81: odd stays odd
        (("BinByFactor 2", "AllowOddEvenChange"), (90, 161), (90, 161)),
        (("BinByFactor 4", "AllowOddEvenChange"), (99, 98), (100, 104)),
        (("BinByFactor 4", "AllowOddEvenChange"), (97, 96), (97, 96)),  # 24 and 24
        (("BinByFactor 4",), (97, 96), (100, 96)),
        (("BinByFactor 4",), (99, 98), (100, 104)),  # 25 and 26: all pixels are in it
        (("BinByFactor 2", "AntialiasFilter -1"), (90, 161), (90, 161)),
        (("BinByFactor 2", "AntialiasFilter 0"), (90, 160), (92, 160)),
        (("ShrinkByFactor 2",), (90, 161), (90, 161)),
        (("BinByFactor 2", "SizeToOutputInXandY 30,40"), (90, 161), (80, 60)),
    ],
)
def test_the_size_of_what_newstack_bins(lines, raw, shape, tmp_path):
    """By newstack's source: plain binning keeps what is even even, an antialiased reduction has the whole bins."""
    assert read_newst_com(newst(tmp_path, *lines)).aligned_shape(raw) == shape


def test_the_full_image_may_be_that_of_the_aligned_images(project):
    """IMOD's tilt asks for a field in whose middle its images lie, of raw ones or not."""
    size, full = "SizeToOutputInXandY 72,72", tilt(project, "FULLIMAGE 72 72", "SUBSETSTART 0 0")
    command = newst(project, "TransformFile ts.xf", size)
    made(*words(project, "--newst-com", command, "--tilt-com", full))
    assert shape_of(project / "v.mrc") == (DEPTH, 72, 72)
    assert_beads(project / "v.mrc")


@pytest.mark.parametrize("size", [(160, 128), (128, 160), (40, 32)])
def test_a_full_image_of_other_pixels_is_none(size, project):
    """As of the stack that was binned, or of its binned copy."""
    x, y = size
    command = newst(project, "TransformFile ts.xf", f"SizeToOutputInXandY {x},{y}")
    arguments = words(project, "--newst-com", command, "--tilt-com", tilt(project, f"FULLIMAGE {x} {y}"))
    refused(project, arguments, f"is for images of {x} x {y} pixels but those of the stack are 80 x 64")


@pytest.mark.parametrize(
    ("lines", "shape"),
    [(("FULLIMAGE 80 64", "SUBSETSTART 0 0"), RAW), (("FULLIMAGE 80 64", "SUBSETSTART 8 -8"), RAW[::-1])],
)
def test_transforms_alone_have_the_size_that_tilt_com_tells(lines, shape, project):
    result = made(*words(project, "--xf", project / "ts.xf", "--tilt-com", tilt(project, *lines)))
    assert shape_of(project / "v.mrc") == (DEPTH, *shape)
    assert_beads(project / "v.mrc")
    assert "no file tells the size" not in said(result)


def test_what_is_taken_where_nothing_tells_the_size_is_told(project):
    arguments = words(project, project / "ts.tlt", "--xf", project / "ts.xf", "--thickness", DEPTH)
    assert "no file tells the size of the aligned ones: 64 x 80 is taken" in said(made(*arguments))
    assert shape_of(project / "v.mrc") == (DEPTH, *RAW[::-1])
    assert_beads(project / "v.mrc")


def test_lengths_are_those_of_unbinned_images_also_without_transforms(tmp_path):
    """A newst.com that bins alone makes the binned images that tilt.com is for."""
    images = bead_images(shape=(32, 40)).repeat(2, 1).repeat(2, 2)
    write_stack(tmp_path / "ts.st", images, PIXEL / 2)
    write_angles(tmp_path / "ts.tlt")
    commands = (newst(tmp_path, "BinByFactor 2"), tilt(tmp_path, "IMAGEBINNED 2", "FULLIMAGE 80 64"))
    made(*words(tmp_path, "--newst-com", commands[0], "--tilt-com", commands[1]))
    assert shape_of(tmp_path / "v.mrc") == (DEPTH // 2, 32, 40)


@pytest.mark.parametrize("given", [False, True])
def test_angles_of_the_aligned_stack_do_not_contradict_themselves(given, project):
    """Where newst.com turns the order of images round, the file of the aligned stack's angles is not the raw one's."""
    write_angles(project / "ts.tlt", ANGLES[::-1])
    command = newst(project, "TransformFile ts.xf", f"SectionsToRead {len(ANGLES) - 1}-0")
    more = [project / "ts.tlt"] if given else []
    result = made(*words(project, *more, "--newst-com", command, "--tilt-com", tilt(project)))
    assert_beads(project / "v.mrc")
    assert "contradict" not in said(result)


def test_angles_that_contradict_those_of_tilt_com_are_told_by_its_name(project):
    write_angles(project / "ts.rawtlt", [-angle for angle in ANGLES])
    command = newst(project, "TransformFile ts.xf")
    result = made(*words(project, "--newst-com", command, "--tilt-com", tilt(project)))
    assert "Warning: the angles by tilt.com and ts.rawtlt contradict each other" in said(result)
