"""What contradicts an alignment is told: angles of the other sign, other axes, shifts and sizes that cannot be.

Each of these made a mirrored or smeared volume without a word.
"""

from __future__ import annotations

import numpy as np
import pytest
from projects import ANGLES, AXIS_DEG, PIXEL, SHAPE, make_project, write_aretomo, write_imod, write_relion, write_warp
from tiny_series import made, refused

FBP = ("--method", "fbp", "--thickness", 16)
N = len(ANGLES)


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "p", dark=())


def alone(project):
    """The stack without angles beside it."""
    project.tlt.unlink()


def told(project, *words):
    return made(project.stack, *words, *FBP, "-o", project.folder / "v.mrc", "--overwrite").stderr


def turned_table(project):
    """RELION's table with the angles that the microscope had, and those of the alignment with the other sign."""
    listing, table = write_relion(project, dark=())
    lines = table.read_text().splitlines()
    lines.insert(lines.index("_rlnTomoYShiftAngst #6") + 1, "_rlnTomoNominalStageTiltAngle #7")
    for number, line in enumerate(lines):
        words = line.split()
        if "@" in line:
            lines[number] = " ".join((*words[:2], f"{-float(words[2]):g}", *words[3:], words[2]))
    table.write_text("\n".join(lines) + "\n")
    return listing, table


def test_relions_angles_of_the_other_sign_than_the_microscopes(project):
    _, table = turned_table(project)
    said = "Warning: rlnTomoYTilt and rlnTomoNominalStageTiltAngle of ts.star have opposite signs"
    for words in ((project.tlt, "--star", table), ("--star", table)):
        found = told(project, *words)
        assert said in found
        assert "the angles by ts.star and ts.tlt contradict each other: their angles have opposite signs" in found
    alone(project)
    assert said in told(project, "--star", table)


def test_one_of_relions_angles_that_is_far_from_its_nominal_one(project):
    _, table = turned_table(project)
    rows = table.read_text().splitlines()
    for number, line in enumerate(rows):
        words = line.split()
        if "@" in line:
            tilt = float(words[6]) + (30 if words[0].startswith("000005@") else 1)
            rows[number] = " ".join((*words[:2], f"{tilt:g}", *words[3:]))
    table.write_text("\n".join(rows) + "\n")
    alone(project)
    assert "Warning: rlnTomoYTilt of row 5 of ts.star is -3°, rlnTomoNominalStageTiltAngle -33°: 1 of 20" in told(
        project, "--star", table
    )
    table.write_text(table.read_text().replace(" -3 ", " -32 "))
    assert "Warning" not in told(project, "--star", table)


def test_rows_that_name_their_images_may_be_of_another_order_than_angles_beside(project):
    _, table = write_relion(project, dark=())
    assert "contradict" not in told(project, "--star", table)
    project.tlt.write_text("".join(f"{angle:g}\n" for angle in sorted(ANGLES, key=abs)))
    assert "the angles by ts.star and ts.tlt contradict each other: their angles are in another order" in told(
        project, "--star", table
    )


def test_aretomos_angles_of_the_other_sign(project):
    path = write_aretomo(project, dark=())
    assert "contradict" not in told(project, "--aln", path)
    rows = [line.split() for line in path.read_text().splitlines()]
    turned = [" ".join(row if row[0] == "#" else (*row[:-1], f"{-float(row[-1]):g}")) for row in rows]
    path.write_text("\n".join(turned) + "\n")
    assert "Warning: the angles by ts.aln and ts.tlt contradict each other: their angles have opposite signs" in told(
        project, "--aln", path
    )


def test_warps_angles_may_have_either_sign(project):
    path = write_warp(project, dark=())
    project.tlt.write_text("".join(f"{-angle:g}\n" for angle in ANGLES))
    assert "contradict" not in told(project, "--warp", path)


def changed(project, old, new, count=-1):
    path = write_warp(project, dark=())
    path.write_text(path.read_text(encoding="utf-16").replace(old, new, count), encoding="utf-16")
    return path


def test_images_whose_axis_is_turned_against_the_others(project):
    axis = f"{AXIS_DEG}\n"
    found = told(project, "--warp", changed(project, axis, f"{AXIS_DEG - 180}\n", 2))
    said = "Warning: ts.xml turns the tilt axis of image 1 of the stack to -96°, those of the others to 84°: 2 of 20"
    assert said in found
    assert "Warning" not in told(project, "--warp", changed(project, axis, f"{AXIS_DEG + 3}\n", 2))


@pytest.mark.parametrize(("name", "what"), [("AxisAngle", "AxisAngle"), ("AxisOffsetX", "AxisOffsetX")])
def test_what_an_aligned_series_of_warp_has_is_not_taken_for_0(name, what, project):
    path = changed(project, f"{name}>", "Other>")
    refused(project.folder, (project.stack, "--warp", path, *FBP), f"ts.xml has no <{what}>")


def test_a_series_of_warp_without_shifts_and_its_magnification_are_told(project):
    path = write_warp(project, dark=())
    text = path.read_text(encoding="utf-16").replace("AxisOffset", "Other")
    text = text.replace("<TiltSeries ", '<TiltSeries MagnificationCorrection="1.05, 0, 0, 0.95" ')
    path.write_text(text, encoding="utf-16")
    found = told(project, "--warp", path)
    assert "ts.xml holds no shifts (AxisOffsetX, AxisOffsetY)" in found
    assert "the MagnificationCorrection of ts.xml (1.05, 0, 0, 0.95) is not applied" in found
    path.write_text(text.replace("1.05, 0, 0, 0.95", "1.02, 0.98, 30"), encoding="utf-16")
    assert "Magnification" in told(project, "--warp", path)
    for none in ("1, 0, 0, 1", "1, 1, 30", ""):
        path.write_text(text.replace("1.05, 0, 0, 0.95", none), encoding="utf-16")
        assert "Magnification" not in told(project, "--warp", path)


@pytest.mark.parametrize(("gain", "said"), [(1.0, False), (1.01, False), (1.15, True), (0.1, True)])
def test_warps_extent_of_images_tells_a_wrong_pixel_size(gain, said, project):
    height, width = SHAPE
    extent = f'ImageDimensionsAngstrom="{width * PIXEL}, {height * PIXEL}"'
    found = told(
        project, "--warp", changed(project, "<TiltSeries ", f"<TiltSeries {extent} "), "--pixel-size", gain * PIXEL
    )
    assert ("Warning: ts.xml is for images of 320 x 280 Å, but those of the stack are" in found) is said
    turned = f'ImageDimensionsAngstrom="{height * PIXEL}, {width * PIXEL}"'
    assert "is for images of" not in told(project, "--warp", changed(project, "<TiltSeries ", f"<TiltSeries {turned} "))


def test_shifts_that_no_series_has_tell_a_wrong_pixel_size(project):
    _, table = write_relion(project, dark=())
    copy = project.folder / "alone.star"  # no list beside it tells the pixel size
    copy.write_text(table.read_text())
    assert "Warning" not in told(project, "--star", copy)
    largest = np.abs(project.shifts).max() * PIXEL
    assert f"pixels of {min(SHAPE)}, at 0.3 Å a pixel: is it of another series, or the pixel size wrong" in told(
        project, "--star", copy, "--pixel-size", 0.3
    )
    assert largest / 0.3 > 0.4 * min(SHAPE)


@pytest.mark.parametrize(("axis_deg", "said"), [(AXIS_DEG, False), (AXIS_DEG - 180, False), (-5.5, True)])
def test_an_axis_that_is_not_the_microscopes_is_told(axis_deg, said, project):
    mdoc = project.folder / "ts.mrc.mdoc"
    images = "".join(f"[ZValue = {n}]\nTiltAngle = {angle}\n" for n, angle in enumerate(ANGLES))
    mdoc.write_text(f"[T = Tilt axis angle = {axis_deg}, binning = 1]\n{images}")
    for words in (("--aln", write_aretomo(project, dark=())), (project.tlt, "--xf", write_imod(project, dark=())[0])):
        found = told(project, *words)
        assert ("the tilt axis lies at 84° by" in found) is said
        assert ("at -5.5° by ts.mrc.mdoc" in found) is said


def test_a_doubt_about_the_angles_that_are_given_hides_no_other(project):
    """ANGLES against a file beside the stack, and shifts that no series has: both are told, each of them once."""
    (xf, *_), other = write_imod(project, dark=()), project.folder / "ts.rawtlt"
    other.write_text("".join(f"{-angle:g}\n" for angle in ANGLES))
    rows = [line.split() for line in xf.read_text().splitlines()]
    xf.write_text("\n".join(" ".join((*row[:4], "60", row[5])) for row in rows) + "\n")
    found = told(project, project.tlt, "--xf", xf)
    assert "Warning: ts.xf shifts image" in found
    assert found.count("contradict each other: their angles have opposite signs") == 1


def mdoc_of(project, angles, frames=False):
    """An .mdoc of images, or of frames of which a stack is made afterwards, in the order of recording."""
    each = "SubFramePath = D:\\frames\\f.tif\n" if frames else ""
    images = "".join(f"[ZValue = {n}]\nTiltAngle = {angle}\n{each}" for n, angle in enumerate(angles))
    (project.folder / "ts.mrc.mdoc").write_text(f"ImageFile = ts.mrc\n\n{images}")


RECORDED = sorted(ANGLES, key=abs)


@pytest.mark.parametrize("write", [write_aretomo, write_imod], ids=["aln", "tilt.com"])
def test_the_mdoc_of_a_stack_without_frames_has_its_order(write, project):
    """Images that were recorded into the stack itself lie there in the order of its .mdoc."""
    found = write(project, dark=())
    words = ("--aln", found) if write is write_aretomo else ("--xf", found[0], "--tilt-com", found[2])
    project.tlt.rename(project.tlt.with_name("other.tlt"))
    if write is write_imod:
        found[2].write_text(found[2].read_text().replace("ts.tlt", "other.tlt"))
    mdoc_of(project, ANGLES)
    assert "Warning" not in told(project, *words)
    mdoc_of(project, RECORDED)
    assert "ts.mrc.mdoc contradict each other: their angles are in another order" in told(project, *words)


def test_an_mdoc_of_frames_may_be_in_another_order_than_the_sorted_stack(project):
    path = write_aretomo(project, dark=())
    alone(project)
    note = "ts.mrc.mdoc is in another order than ts.aln: right where ts.mrc was put into the order of ts.aln"
    mdoc_of(project, RECORDED, frames=True)
    found = told(project, "--aln", path)
    assert note in found
    assert "contradict" not in found
    mdoc_of(project, ANGLES, frames=True)
    assert note not in told(project, "--aln", path)
    mdoc_of(project, [-angle for angle in ANGLES], frames=True)
    assert "opposite signs" in told(project, "--aln", path)


def test_given_angles_are_compared_with_those_that_tilt_com_names(project):
    """ANGLES is taken in place of TILTFILE: with another sign or order the volume is wrong."""
    xf, _, tilt = write_imod(project, dark=())
    named = project.tlt.rename(project.tlt.with_name("named.tlt"))
    tilt.write_text(tilt.read_text().replace("ts.tlt", named.name))
    given = project.folder / "given.txt"
    for angles, said in (
        ([-angle for angle in ANGLES], "Warning: given.txt and named.tlt, which tilt.com names, contradict each other"),
        (RECORDED, "Warning: given.txt and named.tlt, which tilt.com names, contradict each other"),
        ([angle + 0.7 for angle in ANGLES], "given.txt is taken in place of named.tlt of tilt.com, from which it diff"),
        (ANGLES, None),
    ):
        given.write_text("".join(f"{angle:g}\n" for angle in angles))
        found = told(project, given, "--xf", xf, "--tilt-com", tilt)
        assert said in found if said else "named.tlt" not in found
    assert "taken in place" not in told(project, named, "--xf", xf, "--tilt-com", tilt)
    named.unlink()  # what is not needed need not be there
    assert "named.tlt" not in told(project, given, "--xf", xf, "--tilt-com", tilt)


def test_angles_beside_an_mdoc_of_frames_are_those_of_the_sorted_stack(project):
    """As AreTomo3 leaves them: the stack and its table are sorted, the .mdoc is in the order of recording."""
    mdoc_of(project, RECORDED, frames=True)
    found = told(project, project.tlt)
    assert "ts.mrc.mdoc is in another order than ts.tlt: right where ts.mrc was put into the order of ts.tlt" in found
    assert "contradict" not in found
    mdoc_of(project, RECORDED)
    assert "Warning: ts.tlt and ts.mrc.mdoc contradict each other" in told(project, project.tlt)
