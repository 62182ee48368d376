"""Defocus files of each program: what they say, for which images, and what is refused."""

from __future__ import annotations

import math

import pytest

from cryolithe.errors import InputError
from cryolithe.formats.image_rows import SeriesImages
from cryolithe.formats.microscope.ctf_checks import check_ctf
from cryolithe.formats.microscope.ctf_files import ctf_file_of, read_ctf
from cryolithe.formats.reading import Reading
from cryolithe.optics.ctf import Microscope

ANGLES = (-40.0, -20.0, 0.0, 20.0, 40.0)
SERIES = SeriesImages("ts.mrc", 5, (0, 1, 2, 3, 4), ANGLES)
CTFFIND = """# Output from CTFFind version 4.1.14, run on 2024-01-01 00:00:00
# Input file: ts.mrc ; Number of micrographs: 5
# Pixel size: 2.000 Angstroms ; acceleration voltage: 200.0 keV ; spherical aberration: 2.26 mm ; amplitude contrast: 0.10
# Box size: 512 pixels ; min. res.: 30.0 Angstroms ; max. res.: 5.0 Angstroms ; min. def.: 5000.0 um; max. def. 50000.0 um
# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of astigmatism; #5 - additional phase shift [radians]; #6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF rings were fit successfully
"""  # noqa: E501
ARETOMO = (
    "# Columns: #1 micrograph number; #2 - defocus 1 [A]; #3 - defocus 2; #4 - azimuth of astigmatism; "
    "#5 - additional phase shift [radian]; #6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF rings "
    "were fit successfully; #8 - dfHand\n"
)
WANTED = tuple((3.0 + 0.1 * n, 2.8 + 0.1 * n, 10.0 * n) for n in range(5))


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def columns(head, more="", shift=0.0, rows=WANTED):
    lines = [
        f"{n} {u * 1e4:.2f} {v * 1e4:.2f} {angle:.2f} {shift:.4f} 0.1 6.0{more}"
        for n, (u, v, angle) in enumerate(rows, 1)
    ]
    return head + "\n".join(lines) + "\n"


def found(path, series=SERIES):
    return read_ctf(path, series, Reading())


def values(ctf):
    return [(image.u_um, image.v_um, image.angle_deg) for image in ctf.images]


def same(ctf, wanted=WANTED):
    """Whether defoci agree as functions of direction: 10° is 190°, and may be told by the other axis."""
    assert len(ctf.images) == len(wanted)
    for image, (u, v, angle) in zip(ctf.images, wanted, strict=True):
        for direction in range(0, 180, 20):
            here, there = (
                (a + b) / 2 + (a - b) / 2 * math.cos(2 * math.radians(direction - c))
                for a, b, c in ((image.u_um, image.v_um, image.angle_deg), (u, v, angle))
            )
            assert here == pytest.approx(there, abs=2e-5)
    return True


def relion(folder, order=range(5), hand=-1):
    rows = "\n".join(
        f"{n + 1:06d}@ts.mrc {ANGLES[n] + 0.2:.2f} {WANTED[n][0] * 1e4:.1f} {WANTED[n][1] * 1e4:.1f} {WANTED[n][2]:.1f}"
        for n in order
    )
    names = ("rlnMicrographName", "rlnTomoYTilt", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    head = "\n".join(f"_{name} #{n}" for n, name in enumerate(names, 1))
    write(folder, "ts.star", f"data_ts\nloop_\n{head}\n{rows}\n")
    return write(
        folder,
        "tilt_series.star",
        "data_global\nloop_\n_rlnTomoName #1\n_rlnVoltage #2\n_rlnSphericalAberration #3\n_rlnAmplitudeContrast #4\n"
        f"_rlnTomoHand #5\n_rlnTomoTiltSeriesStarFile #6\nts 200.0 1.4 0.1 {hand} ts.star\n",
    )


def warp(folder):
    def grid(name, numbers):
        nodes = "".join(f'<Node X="0" Y="0" Z="{z}" Value="{value}" />' for z, value in enumerate(numbers))
        return f'<{name} Width="1" Height="1" Depth="5">{nodes}</{name}>'

    params = {"Voltage": 200, "Cs": 1.4, "Amplitude": 0.1, "Defocus": 9, "PhaseShift": 0.25, "PixelSize": 2}
    told = "".join(f'<Param Name="{name}" Value="{value}" />' for name, value in params.items())
    text = "\n".join(str(-angle) for angle in ANGLES)
    return write(
        folder,
        "ts.xml",
        f'<TiltSeries AreAnglesInverted="True"><Angles>{text}</Angles><CTF>{told}</CTF>'
        + grid("GridCTF", [(u + v) / 2 for u, v, _ in WANTED])
        + grid("GridCTFDefocusDelta", [u - v for u, v, _ in WANTED])
        + grid("GridCTFDefocusAngle", [angle for _, _, angle in WANTED])
        + "</TiltSeries>",
    )


def test_ctffind_tells_the_microscope_too(tmp_path):
    ctf = found(write(tmp_path, "ts.txt", columns(CTFFIND, shift=math.pi / 2)))
    assert same(ctf)
    assert ctf.notes == ("the 5 rows of ts.txt are taken in the order of the stack's images",)
    assert ctf.microscope == Microscope(200.0, 2.26, 0.1)
    assert ctf.hand is None
    assert [image.phase_shift_deg for image in ctf.images] == pytest.approx([90.0] * 5, abs=0.01)
    spaced = columns(CTFFIND, shift=math.pi / 2).replace("acceleration voltage", "acceleration\t voltage")
    assert found(write(tmp_path, "spaced.txt", spaced)).microscope == ctf.microscope
    assert same(found(write(tmp_path, "five.txt", columns(CTFFIND, " 85.0 12.0 1500.0"))))


@pytest.mark.parametrize("told", [1, -1])
def test_aretomo_tells_the_hand(tmp_path, told):
    ctf = found(write(tmp_path, "ts_CTF.txt", columns(ARETOMO, f" {told}")))
    assert same(ctf)
    assert ctf.hand == -told
    assert ctf.microscope == Microscope()


def test_rows_are_those_of_the_stack_or_of_the_images_that_are_used(tmp_path):
    path = write(tmp_path, "ts_CTF.txt", columns(ARETOMO))
    some = SeriesImages("ts.mrc", 5, (1, 2, 4), (-20.0, 0.0, 40.0))
    assert same(found(path, some), [WANTED[n] for n in (1, 2, 4)])
    used = SeriesImages("ts.mrc", 7, (0, 1, 3, 4, 6), ANGLES)
    ctf = found(path, used)
    assert same(ctf)
    assert "taken for the images that are used" in ctf.notes[0]
    with pytest.raises(InputError, match="holds 5 rows but the stack holds 7 images, of which 4 are used"):
        found(path, SeriesImages("ts.mrc", 7, (0, 1, 3, 4), ANGLES[:4]))


def test_aretomos_rows_are_in_the_order_of_tilt_angles(tmp_path):
    order = (2, 3, 1, 4, 0)
    acquired = SeriesImages("ts.mrc", 5, (0, 1, 2, 3, 4), tuple(ANGLES[n] for n in order))
    ctf = found(write(tmp_path, "ts_CTF.txt", columns(ARETOMO, " 1")), acquired)
    assert same(ctf, [WANTED[n] for n in order])
    assert "in the order of tilt angles" in ctf.notes[0]
    assert same(found(write(tmp_path, "of_stack.txt", columns(CTFFIND)), acquired))
    with pytest.raises(InputError, match="5 rows in the order of tilt angles"):
        found(tmp_path / "ts_CTF.txt", SeriesImages("ts.mrc", 5, (0, 1, 2, 3), acquired.angles_deg[:4]))


def test_imod_version_2_has_ranges_that_are_interpolated(tmp_path):
    text = "1 3 -40.0 0.0 3000.0 2\n3 5 0.0 40.0 3400.0\n"
    ctf = found(write(tmp_path, "ts.defocus", text))
    assert [image.defocus_um for image in ctf.images] == pytest.approx([3.0, 3.0, 3.2, 3.4, 3.4])
    assert all(image.u_um == image.v_um for image in ctf.images)
    # Before version 2 views may be counted from 0.
    old = found(write(tmp_path, "old.defocus", "0 2 -40.0 0.0 3000.0\n2 4 0.0 40.0 3400.0\n"))
    assert values(old) == values(ctf)
    one = found(write(tmp_path, "one.defocus", "1 5 -40 40 2500 2\n"))
    assert [image.defocus_um for image in one.images] == [2.5] * 5


def imod_3(flags, sign=1.0):
    rows = [f"{flags} 0 0. 0. 0. 3"]
    for n, (u, v, angle) in enumerate(WANTED):
        row = [n + 1, n + 1, sign * ANGLES[n], sign * ANGLES[n], u * 1e3]
        row += [v * 1e3, math.radians(angle) if flags & 2 else angle] if flags & 1 else []
        row += [math.radians(60.0) if flags & 8 else 60.0] if flags & 4 else []
        row += [0.02] if flags & 32 else []
        rows.append(" ".join(f"{value:.6g}" for value in row))
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("flags", [0, 1, 3, 4, 12, 5, 7, 15, 17, 37, 63])
def test_imod_version_3_says_by_flags_what_its_columns_are(tmp_path, flags):
    ctf = found(write(tmp_path, "ts.defocus", imod_3(flags, -1.0 if flags & 16 else 1.0)))
    wanted = WANTED if flags & 1 else [(u, u, 0.0) for u, _, _ in WANTED]
    assert same(ctf, wanted)
    assert [i.phase_shift_deg for i in ctf.images] == pytest.approx([60.0 if flags & 4 else 0.0] * 5, abs=1e-3)


def test_the_smaller_defocus_may_come_first(tmp_path):
    """The direction is that of the first value, whichever is the larger."""
    swapped = "1 0 0. 0. 0. 3\n" + "\n".join(
        f"{n} {n} {ANGLES[n - 1]} {ANGLES[n - 1]} {v * 1e3} {u * 1e3} {angle - 90}"
        for n, (u, v, angle) in enumerate(WANTED, 1)
    )
    assert same(found(write(tmp_path, "ts.defocus", swapped)))


def test_aretomo_writes_imods_file_with_another_ending(tmp_path):
    assert same(found(write(tmp_path, "ts_CTF_Imod.txt", imod_3(1))))


@pytest.mark.parametrize("order", [range(5), (2, 3, 1, 4, 0)])
def test_relion_is_matched_by_angles(tmp_path, order):
    listing = relion(tmp_path, order)
    ctf = found(listing)
    assert same(ctf)
    assert ctf.microscope == Microscope(200.0, 1.4, 0.1)
    assert ctf.hand == 1
    assert found(relion(tmp_path, order, hand=1)).hand == -1
    assert same(found(tmp_path / "ts.star"))
    # The list beside it names this very table.
    assert found(tmp_path / "ts.star").microscope == Microscope(200.0, 1.4, 0.1)
    assert found(tmp_path / "ts.star").hand == -1
    assert same(found(listing, SeriesImages("ts.mrc", 4, (0, 1, 2, 3), ANGLES[1:])), WANTED[1:])
    listing.unlink()
    assert found(tmp_path / "ts.star").microscope == Microscope()


def test_a_voltage_that_cannot_be_read_is_no_missing_one(tmp_path):
    """What is not told is taken as 300 kV."""
    listing = relion(tmp_path)
    listing.write_text(listing.read_text().replace("200.0", "200,0"))
    with pytest.raises(InputError, match=f"{listing}: expected a number for rlnVoltage, found '200,0'"):
        found(listing)
    listing.write_text(listing.read_text().replace("200,0", "None"))
    assert found(listing).microscope == Microscope(None, 1.4, 0.1)


def test_warp_has_grids_over_the_images(tmp_path):
    ctf = found(warp(tmp_path))
    assert same(ctf)
    assert ctf.microscope == Microscope(200.0, 1.4, 0.1)
    assert [image.phase_shift_deg for image in ctf.images] == [45.0] * 5


@pytest.mark.parametrize("word", ["inf", "-nan", "Infinity"])
def test_scores_that_are_no_numbers_are_no_matter(tmp_path, word):
    """CTFFIND writes inf where no ring fits, at high tilts mostly."""
    text = columns(ARETOMO)
    ctf = found(write(tmp_path, "a.txt", text.replace(" 6.0", f" {word}")))
    assert text.count(" 6.0") >= 5
    assert same(ctf)


def test_a_defocus_that_no_series_has_is_warned_of(tmp_path):
    def notes(scale):
        rows = [(u * scale, v * scale, angle) for u, v, angle in WANTED]
        return check_ctf(found(write(tmp_path, "a.txt", columns(ARETOMO, rows=rows))), tmp_path / "a.txt", range(1, 6))

    assert not notes(1)
    for scale in (10, 0.1):
        (note,) = [note for note in notes(scale) if "another unit" in note]
        assert note.startswith("Warning: a.txt tells a defocus of ")


OTHER = SeriesImages("ts.mrc", 5, (0, 1, 2, 3, 4), tuple(-2 * angle for angle in ANGLES))


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.txt", "", "is empty"),
        ("a.txt", ARETOMO, "holds no row"),
        ("a.txt", columns(ARETOMO).replace("\n3 ", "\n4 ", 1), "numbered 1 to 5"),
        ("a.txt", columns(ARETOMO, rows=WANTED[:4]), "holds 4 rows but the stack holds 5 images"),
        ("a.txt", columns(ARETOMO).replace("6.0", ""), "at least 7 finite numbers"),
        ("a.txt", "one two three four five\n", "at least 5 finite numbers"),
        ("a.txt", columns(ARETOMO, rows=[(3e4, 3e4, 0.0)] * 5), "in another unit"),
        ("a.defocus", "1 6 -40 40 3000 2\n", "tells of view 6, but the stack holds 5"),
        ("a.defocus", "1 1 30 30 3000 2\n2 2 10 10 3000\n3 3 -10 -10 3000\n", "in the same order"),
        ("a.defocus", "1 0 0 0 0 3\n1 1 -40 -40 3000\n", "expected 7 numbers in each row by its flags 1"),
        ("a.defocus", "1 0 0 0 0 4\n1 1 -40 -40 3000\n", "of version 4"),
        ("a.defocus", "1 0 0 0 0 3\n", "no row of defocus"),
        ("a.defocus", "1 1 -40 -40 3000 2900 20\n", "no version"),
        ("a.defocus", "1.5 2 -40 -20 3000 2\n", "whole number"),
        ("a.defocus", "1 1 -40 -40 nan 2\n", "at least 5 finite numbers"),
        ("a.xml", "<TiltSeries><Angles>1\n2</Angles></TiltSeries>", "tells no defocus"),
        ("a.star", "data_ts\nloop_\n_rlnTomoYTilt #1\n1.0\n2.0\n", "tells no defocus"),
        ("a.star", "data_\nloop_\n_rlnDefocusU #1\n1e4\n2e4\n", "the defocus of 2 images but no tilt angle"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, name, text, line):
    with pytest.raises(InputError, match=line):
        found(write(tmp_path, name, text))


@pytest.mark.parametrize("made", [relion, warp])
def test_tables_of_other_angles_are_refused(tmp_path, made):
    with pytest.raises(InputError, match="tells the defocus of 5 images"):
        found(made(tmp_path), OTHER)


def test_a_grid_that_is_not_over_the_images_is_refused(tmp_path):
    path = warp(tmp_path)
    path.write_text(path.read_text().replace('Z="4"', 'Z="3"'))
    with pytest.raises(InputError, match="expected one node of <GridCTF> for each of 5 images"):
        found(path)


def test_the_only_file_beside_the_stack_is_taken(tmp_path):
    stack = tmp_path / "ts.mrc"
    with pytest.raises(InputError, match=r"the defocus of ts\.mrc is not known"):
        ctf_file_of(stack, {}, Reading())
    one = write(tmp_path, "ts_CTF.txt", columns(ARETOMO))
    assert ctf_file_of(stack, {}, Reading()) == one
    write(tmp_path, "ts.defocus", imod_3(0))
    with pytest.raises(InputError, match=r"ts_CTF\.txt, ts\.defocus beside ts.mrc may all tell its defocus"):
        ctf_file_of(stack, {}, Reading())
    assert ctf_file_of(stack, {"star": relion(tmp_path)}, Reading()).name == "tilt_series.star"
