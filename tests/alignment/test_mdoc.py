"""SerialEM's .mdoc: only its images, their angles and the tilt axis of its title matter."""

from __future__ import annotations

import json
from pathlib import Path

import mdocfile
import mrcfile
import pytest
from beads import ANGLES, DEPTH, assert_beads, bead_images, write_stack
from tiny_series import made, refused, run

from cryolithe.errors import InputError
from cryolithe.formats import read_angles_deg
from cryolithe.formats.reading import Reading
from cryolithe.formats.stacks.mdoc import MdocImage, is_tilt_series_mdoc, write_mdoc
from cryolithe.formats.stacks.mdoc_text import read_mdoc_text

FBP = ("--method", "fbp", "--thickness", DEPTH)
TITLES = "[T = SerialEM: somewhere    01-Jan-20  12:00:00    ]\n\n[T =     Tilt axis angle = 84.8, binning = 1]\n"
THREE = (-3.5, 0.0, 4.25)


def mdoc(angles=ANGLES, titles="", section="TiltAngle = {}", head="PixelSpacing = 10\nImageFile = ts.mrc\n"):
    """The text of an .mdoc; ``{}`` in a section stands for the angle."""
    parts = [f"[ZValue = {n}]\n{section.format(angle)}\n" for n, angle in enumerate(angles)]
    return "\n".join([head, titles, *parts])


def angles_of(folder, content):
    path = folder / "ts.mrc.mdoc"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_angles_deg(path)


READABLE = {
    "plain": mdoc(THREE),
    "titles over two lines": mdoc(THREE, "[T = SerialEM: somewhere   15-May-24\n    ]\n\n[T = Tilt axis angle = 8\n]"),
    "a title that does not end": mdoc(THREE, "[T = SerialEM: somewhere\n"),
    "an = in a value": mdoc(THREE, head="ImageFile = ts_dose=3.mrc\n"),
    "an = in a path": mdoc(THREE, section="TiltAngle = {}\nSubFramePath = D:\\a=b\\c = d.tif"),
    "an entry without value": mdoc(THREE, section="TiltAngle = {}\nSubFramePath =\nDateTime"),
    "no head": mdoc(THREE, head=""),
    "entries of other kinds": mdoc(THREE, section="ExposureDose = many\nTiltAngle = {}\nStagePosition = nowhere"),
    "old line ends": mdoc(THREE, TITLES).replace("\n", "\r\n"),
    "a byte order mark": b"\xef\xbb\xbf" + mdoc(THREE, TITLES).encode(),
    "latin-1 in a path": mdoc(THREE, section="TiltAngle = {}\nSubFramePath = D:\\J\u00fcrgen\\f.tif").encode("latin-1"),
    "latin-1 in a title": mdoc(THREE, "[T = J\u00fcrgen, 20 \u00b0C]\n").encode("latin-1"),
    "no blanks": mdoc(THREE).replace(" = ", "="),
    "more blanks": mdoc(THREE).replace("[ZValue = ", "  [ ZValue  =  ").replace("]", " ] ").replace("Tilt", "\tTilt"),
    "small letters": mdoc(THREE).replace("ZValue", "zvalue").replace("TiltAngle", "tiltangle"),
    "tilt angle last": mdoc(THREE, section="DateTime = 01-Jan-20  12:00:00\nNumSubFrames = 8\nTiltAngle = {}"),
    "other sections behind": mdoc(THREE) + "\n[MontSection = 0]\nTiltAngle = 77\n\n[FrameSet = 0]\nTiltAngle = 66\n",
    "a text after the title": mdoc(THREE, "[T = a]\nTiltAngle = 55\n"),
    "pieces of one each": mdoc(THREE, section="TiltAngle = {0}\nPieceCoordinates = 0 0 {0}"),
    "pieces without places": mdoc(THREE, section="TiltAngle = {0}\nPieceCoordinates = 0 0 0"),
    "exponents": mdoc(("-35e-1", "0e0", "425e-2")),
    "the same angle twice": mdoc(THREE, section="TiltAngle = {0}\nTiltAngle = {0}"),
    "no section ends": mdoc(THREE).replace("]", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", READABLE)
def test_what_does_not_matter_cannot_make_it_fail(case, tmp_path):
    assert angles_of(tmp_path, READABLE[case]) == THREE


def test_images_are_in_the_order_of_their_numbers(tmp_path):
    parts = mdoc(THREE, head="").split("\n\n")
    shuffled = "\n\n".join(reversed([part for part in parts if part.strip()]))
    assert angles_of(tmp_path, shuffled) == THREE


def test_sections_that_were_taken_out_leave_the_others_in_their_order(tmp_path):
    parts = mdoc((*THREE, 9), head="").split("\n\n")
    kept = [part for part in parts if part.strip() and "ZValue = 1]" not in part]
    assert angles_of(tmp_path, "\n\n".join(reversed(kept))) == (THREE[0], THREE[2], 9)


UNREADABLE = {
    "no image": ("PixelSpacing = 10\n", "describes no image"),
    "an image twice": (mdoc(THREE).replace("ZValue = 1", "ZValue = 2"), r"\[ZValue = 2\] is there twice"),
    "no number of an image": (mdoc(THREE).replace("ZValue = 1", "ZValue = one"), r"line 8: expected \[ZValue = N\]"),
    "no angle": (mdoc(THREE).replace("TiltAngle = 0.0", "DateTime = now"), "image 2 has no TiltAngle"),
    "two angles": (mdoc(THREE, section="TiltAngle = {}\nTiltAngle = 9"), "a second TiltAngle for image 0"),
    "a comma": (mdoc(("-3,5", "0,0", "4,2")), "line 6: expected a TiltAngle in degrees, found '-3,5'"),
    "not a number": (mdoc(("nan", 0, 3)), "found 'nan'"),
    "an underscore": (mdoc(("1_0", 0, 3)), "found '1_0'"),
    "beyond 90": (mdoc((-120, 0, 3)), "-120"),
    "frames": ("[FrameSet = 0]\nTiltAngle = 3\n", r"its 1 sections \[FrameSet = ...\] are of the frames"),
    "binary": (b"\x00\x01[ZValue = 0]\n", "found binary data"),
    "a montage": (
        mdoc((-3.5, 0, 0, 4), section="TiltAngle = {0}\nPieceCoordinates = {0} 0 1"),
        "4 of 4 images are pieces of a montage",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_matters_makes_it_fail_in_one_line(case, tmp_path):
    content, why = UNREADABLE[case]
    with pytest.raises(InputError, match=why):
        angles_of(tmp_path, content)


def test_the_package_mdocfile_reads_the_same(tmp_path):
    images = [MdocImage(angle, 3.0, 3.0 * n, -2.5, n) for n, angle in enumerate(ANGLES)]
    path = tmp_path / "ts.mdoc"
    write_mdoc(path, "ts.mrc", images, 10.0, (48, 64), 300.0)
    assert list(read_angles_deg(path)) == mdocfile.read(path)["TiltAngle"].astype(float).tolist()


@pytest.mark.parametrize(
    ("title", "axis_deg"),
    [
        (TITLES, 84.8),
        ("[T =     Tilt axis angle = -95.2, binning = 1  spot = 7\n]\n", -95.2),
        ("[T = SerialEM: x]\n[T = tilt axis angle=0]\n", 0.0),
        # Tomography 5 counts from x, clockwise.
        ("[T = TiltAxisAngle = 178.5  Binning = 1  SpotSize = 6]\n", 91.5),
        ("[T = Tomography: somewhere]\n\n[T =   TiltAxisAngle = -173.94  Binning = 1]\n", 83.94),
        ("[T = Tilt axis angle = unknown]\n", None),
        ("", None),
    ],
)
def test_the_axis_is_that_of_a_title(title, axis_deg, tmp_path):
    (tmp_path / "a.mdoc").write_text(mdoc(THREE, title))
    assert read_mdoc_text(tmp_path / "a.mdoc").axis_deg == axis_deg


def test_images_of_tomography_5_tell_the_axis_and_those_of_serialem_do_not(tmp_path):
    turned = mdoc(THREE, "[T = {} = -173.9]\n").replace("[ZValue = 0]", "[ZValue = 0]\nRotationAngle = 83.85")
    (tmp_path / "a.mdoc").write_text(turned.format("TiltAxisAngle"))
    (tmp_path / "b.mdoc").write_text(turned.format("Tilt axis angle"))
    assert [read_mdoc_text(tmp_path / name).axis_deg for name in ("a.mdoc", "b.mdoc")] == [83.85, -173.9]


@pytest.mark.parametrize(
    ("angles", "series"), [(ANGLES, True), ((0.0,), False), ((0.0, 0.01, 0.02, 0.01), False), (("x", 1, 2), False)]
)
def test_maps_are_no_tilt_series(angles, series, tmp_path):
    (tmp_path / "a.mdoc").write_text(mdoc(angles))
    assert is_tilt_series_mdoc(tmp_path / "a.mdoc", Reading()) == series


# Through the command


def stack_with(folder, text, name="ts.mrc", mdoc_name="ts.mrc.mdoc", axis_deg=0.0):
    folder.mkdir(exist_ok=True)
    (folder / mdoc_name).write_bytes(text.encode("latin-1"))
    return write_stack(folder / name, bead_images(axis_deg=axis_deg)), folder / mdoc_name


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        mdoc(titles="[T = SerialEM: somewhere    15-May-24\n    ]\n"),
        mdoc(section="TiltAngle = {}\nSubFramePath = D:\\J\u00fcrgen\\f=1.tif"),
    ],
    ids=["broken title", "latin-1"],
)
def test_its_angles_put_the_beads_in_place(text, tmp_path):
    stack, angles = stack_with(tmp_path, text)
    result = made(stack, angles, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")
    assert "the angles are taken from ts.mrc.mdoc in the order of its ZValue" in " ".join(result.stderr.split())


def test_the_mdoc_of_another_stack_is_told(tmp_path):
    stack, angles = stack_with(tmp_path, mdoc(head="ImageFile = X:\\data\\TS_7.mrc\n"))
    result = made(stack, angles, "-o", tmp_path / "v.mrc", *FBP)
    assert "in the order of its ZValue, which is the .mdoc of TS_7.mrc" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("name", "angles", "told"),
    [
        ("ts.mdoc", sorted(ANGLES, key=abs), True),
        ("ts.mrc.mdoc", sorted(ANGLES, key=abs), False),
        ("ts.mdoc", ANGLES, False),
        ("ts.mdoc", ANGLES[::-1], False),
    ],
)
def test_the_order_of_acquisition_is_told_where_images_may_be_sorted(name, angles, told, tmp_path):
    stack, own = stack_with(tmp_path, mdoc(angles))
    result = made(stack, own.rename(tmp_path / name), "-o", tmp_path / "v.mrc", *FBP)
    line = "(not sorted: if the images of ts.mrc are, give their angles in their order)"
    assert (line in " ".join(result.stderr.split())) == told


def test_an_mdoc_of_other_images_is_refused(tmp_path):
    stack, angles = stack_with(tmp_path, mdoc(ANGLES[:-1]))
    refused(tmp_path, [stack, angles, "-o", tmp_path / "v.mrc", *FBP], "holds 31 images but", "holds 30 angles")


# Session folders


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ts.mrc.mdoc", "ts.mdoc", "ts.st.mdoc"])
def test_a_folder_as_the_microscope_leaves_it(name, tmp_path):
    stack_with(tmp_path / "data", mdoc(), mdoc_name=name)
    result = made(tmp_path / "data", "-o", tmp_path, *FBP)
    assert f"the angles are taken from {name}" in " ".join(result.stderr.split())
    assert_beads(tmp_path / "ts_rec.mrc")


def test_angle_files_of_a_folder_come_before_its_mdoc(tmp_path):
    stack_with(tmp_path / "data", mdoc(ANGLES[::-1]))
    Path(tmp_path / "data" / "ts.rawtlt").write_text("".join(f"{angle}\n" for angle in ANGLES))
    made(tmp_path / "data", "-o", tmp_path, *FBP)
    assert_beads(tmp_path / "ts_rec.mrc")


def test_an_aligned_stack_takes_the_mdoc_of_its_raw_one(tmp_path):
    stack_with(tmp_path / "data", mdoc(titles=TITLES), name="ts_aligned.mrc")
    result = made(tmp_path / "data", "-o", tmp_path, *FBP)
    assert "84.8" not in result.stderr
    assert_beads(tmp_path / "ts_aligned_rec.mrc")


def test_maps_in_a_folder_are_left_out(tmp_path):
    stack_with(tmp_path / "data", mdoc())
    stack_with(tmp_path / "data", mdoc((0.0, 0.0, 0.1)), name="map.mrc", mdoc_name="map.mrc.mdoc")
    result = made(tmp_path / "data", "-o", tmp_path, *FBP)
    assert "Left out, no angle file beside it: map.mrc" in result.stderr
    (tmp_path / "data" / "ts.mrc").unlink()
    assert "no .mdoc of a tilt series" in run(tmp_path / "data", "-o", tmp_path, *FBP).stderr


# Sections that were taken out


TAKEN_OUT = (3, 9)
KEPT = [n for n in range(len(ANGLES)) if n not in TAKEN_OUT]
# SerialEM's order of acquisition.
ACQUIRED = sorted(ANGLES, key=lambda angle: (abs(angle), angle))


def with_gaps(folder, images, titles=""):
    """A stack with the .mdoc of an acquisition in which sections were taken out; dose of image n before it: 3 n."""
    stack = write_stack(folder / "ts.mrc", images)
    sections = [f"[ZValue = {n}]\nTiltAngle = {ACQUIRED[n]}\nPriorRecordDose = {3 * n}\n" for n in KEPT]
    (folder / "ts.mrc.mdoc").write_text("\n".join(["Voltage = 300\nImageFile = ts.mrc\n", *sections]))
    return stack, folder / "ts.mrc.mdoc"


@pytest.mark.parametrize("whole", [True, False])
def test_sections_that_were_taken_out_of_an_mdoc_and_perhaps_of_its_stack(whole, tmp_path):
    images = bead_images(ACQUIRED)
    stack, text = with_gaps(tmp_path, images if whole else images[KEPT])
    result = made(stack, text, *FBP, "--dose-weight")
    assert_beads(tmp_path / "ts_rec.mrc")
    told = " ".join(result.stderr.split())
    assert ("left out: 4, 10 of 31, of which ts.mrc.mdoc tells nothing" in told) is whole
    assert ("ts.mrc.mdoc has no ZValue 3, 9: its other sections are taken for the 29 images" in told) is not whole
    record = json.loads((tmp_path / "ts_rec.json").read_text())
    assert record["method"]["corrections"]["dose_weight"]["exposures"] == [3.0 * n for n in KEPT]


def test_an_mdoc_without_gaps_is_of_as_many_images(tmp_path):
    stack = write_stack(tmp_path / "ts.mrc", bead_images(ANGLES[2:]))
    (tmp_path / "a.mdoc").write_text(mdoc())
    refused(tmp_path, [stack, tmp_path / "a.mdoc", *FBP], "29 images", "31 angles", "take their sections out of a copy")
    (tmp_path / "a.mdoc").write_text(mdoc(ANGLES[4:]))
    line = refused(tmp_path, [stack, tmp_path / "a.mdoc", *FBP], "29 images", "27 angles")
    assert "it must hold all 29, also those of images that --exclude leaves out" in line


# The pixel size


SIZED = "PixelSpacing = 5.4\nImageFile = ts.mrc\nImageSize = {} {}\n"


@pytest.mark.parametrize(
    ("header", "size", "taken", "told"),
    [
        (
            0,
            (64, 48),
            5.4,
            "Note on ts.mrc: a pixel size of 5.4 Å is taken from ts.mrc.mdoc; the header of ts.mrc has no",
        ),
        (1, (64, 48), 5.4, "5.4 Å is taken from ts.mrc.mdoc; the header of ts.mrc has the placeholder of 1 Å"),
        (1, (48, 64), 5.4, "5.4 Å is taken from ts.mrc.mdoc; the header of ts.mrc has the placeholder of 1 Å"),
        (0, (256, 192), 0, "tells 5.4 Å for images of 256 x 192, but these are of 64 x 48; give --pixel-size"),
        (1, (256, 192), 1, "often a placeholder"),
        (5.2, (64, 48), 5.2, None),
        (21.6, (256, 192), 21.6, None),
        (10, (118, 89), 10, None),
        (2.7, (64, 48), 2.7, "Note on ts.mrc: the header of ts.mrc tells a pixel size of 2.7 Å, which is taken"),
        (4, (64, 48), 4, "Warning: the header of ts.mrc tells a pixel size of 4 Å, which is taken"),
    ],
)
def test_the_pixel_size_of_an_mdoc(header, size, taken, told, tmp_path):
    stack = write_stack(tmp_path / "ts.mrc", bead_images(), header)
    (tmp_path / "ts.mrc.mdoc").write_text(mdoc(head=SIZED.format(*size)))
    result = made(stack, tmp_path / "ts.mrc.mdoc", *FBP)
    text = " ".join(result.stderr.split())
    with mrcfile.open(tmp_path / "ts_rec.mrc") as file:
        assert float(file.voxel_size.x) == pytest.approx(taken)
    assert ("pixel size" in text) if told else ("pixel size" not in text)
    assert not told or told in text
    assert ("placeholder; check" in text) is (taken == 1)


def test_the_pixel_size_of_an_mdoc_beside_the_stack_is_offered(tmp_path):
    stack = write_stack(tmp_path / "ts.mrc", bead_images(), 0)
    (tmp_path / "ts.tlt").write_text("".join(f"{angle}\n" for angle in ANGLES))
    (tmp_path / "ts.mrc.mdoc").write_text(mdoc(head=SIZED.format(64, 48)))
    result = made(stack, tmp_path / "ts.tlt", *FBP)
    assert "ts.mrc.mdoc beside it tells 5.4 Å; if that is right, give --pixel-size 5.4" in " ".join(
        result.stderr.split()
    )
    (tmp_path / "ts.mrc.mdoc").write_text(mdoc(head=SIZED.format(64, 48).replace("ts.mrc", "other.mrc")))
    assert "5.4" not in made(stack, tmp_path / "ts.tlt", *FBP, "--overwrite").stderr
