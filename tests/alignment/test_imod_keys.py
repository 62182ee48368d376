"""Every key of IMOD's newstack and tilt, as command files spell them: applied, harmless, told, or refused by name."""

from __future__ import annotations

import dataclasses
import json
import math

import mrcfile
import numpy as np
import pytest
from beads import (
    ANGLES,
    BEADS,
    DEPTH,
    PIXEL,
    SHAPE,
    SIGMA,
    assert_beads,
    bead_images,
    some_shifts,
    write_angles,
    write_stack,
)
from hypothesis import given
from hypothesis import strategies as st
from tiny_series import made, refused, run

from cryolithe.errors import CryoLitheError, FileFormatError, InputError
from cryolithe.formats.alignment.imod import NewstCommand, TiltCommand, read_newst_com, read_tilt_com
from cryolithe.formats.alignment.imod_command import parse_list, runs_of
from cryolithe.formats.alignment.imod_keys import NEWSTACK, TILT, find_keys

N = len(ANGLES)
AXIS_DEG = 3.0
FBP = ("--method", "fbp")
TILT_LINES = ("TILTFILE ts.tlt", f"THICKNESS {DEPTH}")


def mirrored_where(images, wrong):
    """Images of another specimen in the sections that must not be used."""
    images = images.copy()
    images[list(wrong)] = images[list(wrong)][:, ::-1, ::-1]
    return images


def aligned(folder, wrong=(), shape=SHAPE, count=N):
    """An aligned stack and its angles."""
    images = mirrored_where(bead_images(shape=shape), wrong)
    write_angles(folder / "ts.tlt", ANGLES[:count])
    return write_stack(folder / "ts_ali.mrc", images)


def raw(folder, wrong=(), lines=range(N)):
    """A raw stack, its transforms (of all images) and the angles of some of them."""
    shifts = some_shifts()
    write_stack(folder / "ts.st", mirrored_where(bead_images(axis_deg=AXIS_DEG, shifts=shifts), wrong))
    c, s = math.cos(math.radians(AXIS_DEG)), math.sin(math.radians(AXIS_DEG))
    matrix = np.array([[c, s], [-s, c]])
    rows = [(*matrix.ravel(), *(-matrix @ shift)) for shift in shifts]
    (folder / "ts.xf").write_text("".join(" ".join(f"{value:.7f}" for value in row) + "\n" for row in rows))
    write_angles(folder / "ts.tlt", [ANGLES[line] for line in lines])
    return folder / "ts.st"


def com(folder, program, lines, first=None):
    path = folder / ("newst.com" if program == "newstack" else "tilt.com")
    path.write_text("\n".join([first or f"${program} -StandardInput", *lines, "$if (-e ./savework) ./savework"]) + "\n")
    return path


def tilt_com(folder, *lines, first=None):
    return com(folder, "tilt", (*TILT_LINES, *lines), first)


def newst_com(folder, *lines, first=None):
    return com(folder, "newstack", ("InputFile ts.st", "OutputFile ts_ali.mrc", "TransformFile ts.xf", *lines), first)


def left_out(output):
    return [
        section - 1 for section in json.loads(output.with_suffix(".json").read_text())["geometry"]["excluded_sections"]
    ]


# Keys that are applied


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "taken"),
    [
        (["SectionsToRead 2-29"], range(2, 30)),
        (["SectionsToRead\t2 - 29"], range(2, 30)),
        (["SectionsToRead 29-2"], range(29, 1, -1)),
        (["sections 2-15", "SECS 16 - 29"], range(2, 30)),
        (["SectionsToRead 3-30", "NumberedFromOne"], range(2, 30)),
        (["ExcludeSections 30,0, 1"], range(2, 30)),
        (["ExcludeSections = 31,1-2", "NumberedFromOne 1"], range(2, 30)),
        (["SectionsToRead /", "exclude 4-9", "exclude 1-0,30"], range(2, 30)),
        (["SkipSectionIncrement 2"], range(0, 31, 2)),
        (["SectionsToRead 1-30", "skip 2", "ExcludeSections 3-5"], [1, *range(7, 31, 2)]),
    ],
)
def test_sections_that_newstack_takes(lines, taken, tmp_path):
    """What it leaves out shows another specimen; the angles are those of the aligned stack, in its order."""
    others = [section for section in range(N) if section not in taken]
    stack = raw(tmp_path, others, taken)
    made(
        stack,
        "--newst-com",
        newst_com(tmp_path, *lines),
        "--tilt-com",
        tilt_com(tmp_path),
        "-o",
        tmp_path / "v.mrc",
        *FBP,
    )
    assert_beads(tmp_path / "v.mrc")
    assert left_out(tmp_path / "v.mrc") == others


def test_angles_of_all_raw_images_go_with_some_sections(tmp_path):
    stack = raw(tmp_path, (0, 1, 30))
    newst = newst_com(tmp_path, "SectionsToRead 2-29")
    made(stack, tmp_path / "ts.tlt", "--newst-com", newst, "--thickness", DEPTH, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")


@pytest.mark.slow
@pytest.mark.parametrize("line", ["EXCLUDELIST2 1,3-4", "EXCLUDE 4-3 , 1", "INCLUDE 5-28,2"])
def test_views_are_those_of_the_aligned_stack(line, tmp_path):
    """View 1 of a stack made of sections 2 to 29 is section 2."""
    wrong = (0, 1, 2, 4, 5, 30)
    stack = raw(tmp_path, wrong, range(2, 30))
    arguments = ("--newst-com", newst_com(tmp_path, "SectionsToRead 2-29"), "--tilt-com", tilt_com(tmp_path, line))
    made(stack, *arguments, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")
    assert left_out(tmp_path / "v.mrc") == list(wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "EXCLUDELIST 3-1,7",
        "EXCLUDELIST2 1 - 3, 7",
        "EXCLUDE 7 3 2 1",
        "excludelist2 = 1-3 7  # bad ones",
        "INCLUDE 31-8,6-4",
        "INCLUDE 4-6\nINCLUDE 8-31",
    ],
)
def test_lists_of_views_as_imod_reads_them(line, tmp_path):
    stack = aligned(tmp_path, (0, 1, 2, 6))
    result = made(stack, "--tilt-com", tilt_com(tmp_path, line), "-o", tmp_path / "v.mrc", *FBP)
    assert "left out: 1, 2, 3, 7 of 31" in result.stderr
    assert_beads(tmp_path / "v.mrc")


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [
        ["FULLIMAGE 60 44", "SUBSETSTART -2 -2"],
        ["FULLIMAGE 60,44", "SUBSETSTART -2,-2"],
        ["FULLIMAGE 70 56", "SUBSETSTART 3 4"],
        ["FULLIMAGE 61 45", "SUBSETSTART -1 -1"],
        ["FULLIMAGE 64 48"],
        ["FULLIMAGE 120 88", "SUBSETSTART -4 -4", "IMAGEBINNED 2", "THICKNESS 80"],
        ["FULLIMAGE 129 97", "SUBSETSTART 0 0", "IMAGEBINNED 2", "THICKNESS 80"],
    ],
)
def test_the_aligned_size_is_fullimage_less_twice_subsetstart(lines, tmp_path):
    stack = aligned(tmp_path)
    made(stack, "--tilt-com", tilt_com(tmp_path, *lines), "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")


@pytest.mark.parametrize(
    "lines",
    [
        ["FULLIMAGE 70 56", "SUBSETSTART 0 4"],
        ["FULLIMAGE 70 56", "SUBSETSTART -3 -4"],
        ["FULLIMAGE 60 44", "SUBSETSTART 2 2"],
        ["FULLIMAGE 60 44"],
        ["FULLIMAGE 48 64"],
        ["FULLIMAGE 64 48", "IMAGEBINNED 2"],
    ],
)
def test_a_stack_that_is_not_the_middle_of_the_full_image_is_refused(lines, tmp_path):
    stack = aligned(tmp_path)
    arguments = [stack, "--tilt-com", tilt_com(tmp_path, *lines), "-o", tmp_path / "v.mrc", *FBP]
    refused(tmp_path, arguments, "FULLIMAGE - 2 SUBSETSTART is", "64 x 48")


def fine_beads(folder):
    """The series twice as fine, in a raw stack."""
    rows, columns = np.mgrid[: 2 * SHAPE[0], : 2 * SHAPE[1]]
    images = 0.01 * np.random.default_rng(1).standard_normal((N, *rows.shape))
    for number, angle in enumerate(np.deg2rad(ANGLES)):
        for x, y, z in BEADS:
            u = 2 * (x * math.cos(angle) + z * math.sin(angle)) + SHAPE[1] - 0.5
            images[number] -= np.exp(-((columns - u) ** 2 + (rows - 2 * y - SHAPE[0] + 0.5) ** 2) / (8 * SIGMA**2))
    (folder / "ts.xf").write_text("1 0 0 1 0 0\n" * N)
    write_angles(folder / "ts.tlt")
    return write_stack(folder / "ts.st", images.astype(np.float32), PIXEL / 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [["ShrinkByFactor 2"], ["shrink 2.0", "AntialiasFilter 5"], ["BinByFactor 2"], ["BinByFactor 2", "antialias -1"]],
)
def test_what_newstack_shrinks_is_shrunk(lines, tmp_path):
    stack = fine_beads(tmp_path)
    newst = newst_com(tmp_path, *lines, f"SizeToOutputInXandY {SHAPE[1]},{SHAPE[0]}")
    made(stack, tmp_path / "ts.tlt", "--newst-com", newst, "--thickness", DEPTH, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")
    with mrcfile.open(tmp_path / "v.mrc") as file:
        assert file.data.shape == (DEPTH, *SHAPE)
        assert float(file.voxel_size.x) == PIXEL


@pytest.mark.slow
@pytest.mark.parametrize("binned", ["1.0", "2", "4"])
def test_the_binning_of_the_camera_does_not_scale_transforms(binned, tmp_path):
    stack = raw(tmp_path)
    newst = newst_com(tmp_path, f"ImagesAreBinned {binned}", "ModeToOutput")
    made(stack, "--newst-com", newst, "--tilt-com", tilt_com(tmp_path), "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")


def test_angles_in_tilt_com(tmp_path):
    stack = aligned(tmp_path)
    (tmp_path / "ts.tlt").unlink()
    halves = [ANGLES[:20], ANGLES[20:]]
    lines = [f"ANGLES {', '.join(f'{angle:g}' for angle in half)}" for half in halves]
    tilt = com(tmp_path, "tilt", [f"THICKNESS {DEPTH}", *lines])
    made(stack, "--tilt-com", tilt, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")
    com(tmp_path, "tilt", [f"THICKNESS {DEPTH}", lines[0]])
    refused(tmp_path, [stack, "--tilt-com", tilt, "-o", tmp_path / "w.mrc", *FBP], "ANGLES of tilt.com holds 20 angles")
    tilt_com(tmp_path, *lines)
    refused(tmp_path, [stack, "--tilt-com", tilt, "-o", tmp_path / "w.mrc", *FBP], "both ANGLES and TILTFILE")


@pytest.mark.slow
@pytest.mark.parametrize("per_line", [31, 8, 2])
def test_many_angles_in_a_line(per_line, tmp_path):
    """As tilt reads its TILTFILE."""
    stack = aligned(tmp_path)
    lines = [ANGLES[first : first + per_line] for first in range(0, N, per_line)]
    (tmp_path / "ts.tlt").write_text("".join(" ".join(f"{angle:.1f}" for angle in line) + "\n" for line in lines))
    made(stack, "--tilt-com", tilt_com(tmp_path), "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")


def test_tilts_about_x_that_differ_are_refused_however_they_are_written(tmp_path):
    stack = aligned(tmp_path)
    arguments = [stack, "--tilt-com", tilt_com(tmp_path, "XTILTFILE ts.xtilt"), "-o", tmp_path / "v.mrc", *FBP]
    for text in ("0\n" * 30 + "3\n", "0 " * 30 + "3"):
        (tmp_path / "ts.xtilt").write_text(text)
        refused(tmp_path, arguments, "ts.xtilt: the X-axis tilts of single views differ (0° to 3°)")
    (tmp_path / "ts.xtilt").write_text("0.0 " * N)
    made(*arguments)
    assert_beads(tmp_path / "v.mrc")


# How command files are written

SPELLINGS = {
    "lower case": ["tiltfile ts.tlt", "thickness 40", "exclude 1-3,7"],
    "abbreviated": ["TILTF ts.tlt", "Thick 40", "Excl 1-3,7"],
    "equals": ["TILTFILE=ts.tlt", "THICKNESS = 40", "EXCLUDELIST2 =3-1,7"],
    "tabs and comments": ["TILTFILE\tts.tlt  # angles", "# THICKNESS 10", "  THICKNESS\t40", "\tEXCLUDELIST2\t3-1,7#"],
    "oldest": ["ts_ali.mrc", "ts.rec", "TILTFILE ts.tlt", "THICKNESS 40", "EXCLUDE 1-3,7", "DONE", "THICKNESS 4"],
    "end": ["TILTFILE ts.tlt", "THICKNESS 40", "EXCLUDELIST 1-3,7", "EndInput", "anything 3"],
    "the last counts": ["THICKNESS 10", "TILTFILE ts.tlt", "THICKNESS 40", "EXCLUDELIST2 7", "EXCLUDELIST2 3-1"],
    "switches": [
        "TILTFILE ts.tlt",
        "THICKNESS 40",
        "EXCLUDELIST2 3-1,7",
        "PARALLEL 0",
        "RotateBy90 0",
        "PERPENDICULAR",
    ],
}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_the_same_command(spelling, ends, tmp_path):
    path = tmp_path / "tilt.com"
    first = "$tilt" if spelling == "oldest" else "$tilt -StandardInput"
    path.write_text(
        ends.join(["# a comment", "$setenv X 1", first, *SPELLINGS[spelling], "$if (-e x) y", "Z 1"]), newline=""
    )
    read = read_tilt_com(path)
    assert (read.angles, read.thickness_px, read.excluded) == (tmp_path / "ts.tlt", 40, {1, 2, 3, 7})
    assert read.notes == ()


@pytest.mark.parametrize(
    "first",
    [
        "$newstack -xform ts.xf -bin 2 -size 32,24 -secs 2-29 ts.st ts_ali.mrc",
        "$newstack -input ts.st -output ts_ali.mrc -TransformFile ts.xf -BinByFactor 2 -size '32 24' -sec 2-29 -linear",
        "$/usr/local/IMOD/bin/newst -x ts.xf -bi 2 -si 32,24 -secs 2-29 ts.st ts_ali.mrc",
        "$newstack -StandardInput\nInputFile ts.st\nTransformFile ts.xf\nBinByFactor 2\nsize 32,24\nsecs 2-29",
        "$tilt -StandardInput\nTHICKNESS 4\n$newstack -St\nxform ts.xf\nbin 2\nSize 32 24\nSections 2-29\n$tilt",
    ],
)
def test_options_on_the_line_of_the_command(first, tmp_path):
    path = tmp_path / "newst.com"
    path.write_text(first + "\n")
    read = read_newst_com(path)
    assert read.input_name in ("", "ts.st")
    assert read.output_name in ("", "ts_ali.mrc")
    names = {"input_name": read.input_name, "output_name": read.output_name}
    assert read == NewstCommand(tmp_path / "ts.xf", 2, (32, 24), tuple(range(2, 30)), **names)


def test_both_commands_may_stand_in_one_file(tmp_path):
    stack = raw(tmp_path)
    both = tmp_path / "both.com"
    both.write_text(newst_com(tmp_path).read_text() + tilt_com(tmp_path).read_text())
    made(stack, "--newst-com", both, "--tilt-com", both, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")


@pytest.mark.parametrize(
    ("program", "content", "why"),
    [
        (
            "tilt",
            "$tilt -St\nTHICKNESSS 40\n",
            "'THICKNESSS' is no key of tilt that is known here (is THICKNESS meant?)",
        ),
        ("tilt", "$tilt -St\nEXCLUDLIST 3\n", "(is EXCLUDELIST2 meant?)"),
        ("tilt", "$tilt -St\nFrobnicate 3\n", "'Frobnicate' is no key of tilt that is known here; correct"),
        ("tilt", "$tilt -St\nLOCAL a\n", "'LOCAL' may stand for LOCALFILE or LOCALSCALE"),
        ("tilt", "$tilt -St\nTHICKNESS 40\n$tilt -St\nTHICKNESS 20\n", "2 commands $tilt (lines 1, 3); expected one"),
        ("tilt", "$tilt -St\nSUBSETSTART -2 -2\n", "SUBSETSTART without FULLIMAGE"),
        ("tilt", "$tilt -St\nEXCLUDELIST2\n", "found ''; it is empty"),
        ("tilt", "$tilt -St\nINCLUDE ,\n", "found ','; it is empty"),
        ("tilt", "$tilt -St\nEXCLUDELIST2 3-\n", "a range has no end"),
        ("tilt", "$tilt -St\nEXCLUDELIST2 1;2\n", "';' is no part of a list"),
        ("tilt", "$tilt -St\nINCLUDE 1-3\nEXCLUDE 4\n", "both INCLUDE and EXCLUDE"),
        ("tilt", "$tilt -St\nANGLES 1 two\n", "expected numbers after ANGLES, found '1 two'"),
        ("tilt", "$tilt -St\nTHICKNESS\n", "expected 1 number after THICKNESS, found ''"),
        ("newstack", "$newstack -St\nInputFile a.st\nInputFile b.st\n", "newstack joins 2 stacks (InputFile)"),
        ("newstack", "$newstack a.st b.st c.ali\n", "newstack joins 2 stacks (InputFile)"),
        ("newstack", "$newstack -St\nOutputFile a\nOutputFile b\n", "newstack writes 2 stacks (OutputFile)"),
        ("newstack", "$newstack -St\nOffsetsInXandY 0,0\nOffsetsInXandY 3,0\n", "OffsetsInXandY other than 0"),
        ("newstack", "$newstack -St\nShrinkByFactor 1.5\n", "ShrinkByFactor 1.5 cannot be applied here, only whole"),
        ("newstack", "$newstack -St\nBinByFactor 0\n", "expected a whole BinByFactor of 1 or more, found '0'"),
        ("newstack", "$newstack -xform\n", "expected a value after -xform"),
        ("newstack", "$newstack -St\nSectionsToRead 1-x\n", "expected sections such as 1,4-7 after SectionsToRead"),
    ],
)
def test_what_is_refused_in_words(program, content, why, tmp_path):
    path = tmp_path / "x.com"
    path.write_text(content)
    with pytest.raises(CryoLitheError) as caught:
        (read_tilt_com if program == "tilt" else read_newst_com)(path)
    assert why in str(caught.value)


# Every key of both programs


def read_with(folder, program, line):
    path = folder / "x.com"
    lines = ("THICKNESS 40",) if program == "tilt" else ("TransformFile ts.xf", "BinByFactor 2")
    path.write_text("\n".join([f"${program} -StandardInput", *lines, line]) + "\n")
    return (read_tilt_com if program == "tilt" else read_newst_com)(path)


KEYS = [("tilt", key) for key in TILT] + [("newstack", key) for key in NEWSTACK]


def keys_of(fate):
    return pytest.mark.parametrize(
        ("program", "key"), [pytest.param(p, k, id=f"{p}-{k.name}") for p, k in KEYS if k.fate == fate]
    )


@keys_of("refused")
def test_keys_that_are_refused_by_name(program, key, tmp_path):
    line = key.name if key.flag else f"{key.name} 3"
    with pytest.raises(InputError, match=f"{key.name} cannot be applied here; .+"):
        read_with(tmp_path, program, line)
    for value in key.neutral:
        assert read_with(tmp_path, program, f"{key.name} {value:g}") == read_with(tmp_path, program, "# nothing")


def test_a_project_with_z_factors_is_told_what_works_without_them(tmp_path):
    """An aligned stack does not help: its tilt.com names them, too."""
    path = tmp_path / "tilt.com"
    path.write_text("$tilt -StandardInput\nInputProjections a.ali\nTHICKNESS 84\nZFACTORFILE a.zfac\n")
    with pytest.raises(InputError, match="or the aligned stack, with the angle file and no"):
        read_tilt_com(path)


@keys_of("ignored")
def test_keys_that_are_named_in_a_note(program, key, tmp_path):
    plain = read_with(tmp_path, program, "")
    read = read_with(tmp_path, program, key.name if key.flag else f"{key.name} 3")
    assert key.name in read.notes[0]
    assert dataclasses.replace(read, notes=()) == plain
    for value in key.neutral:
        assert read_with(tmp_path, program, f"{key.name} {value:g}") == plain


@keys_of("harmless")
def test_keys_that_change_nothing(program, key, tmp_path):
    for line in (key.name, f"{key.name} 2", f"{key.name} some text"):
        assert read_with(tmp_path, program, line) == read_with(tmp_path, program, "")


@keys_of("used")
def test_keys_that_are_read(program, key, tmp_path):
    """A value changes what is read, or is refused for its form."""
    plain = read_with(tmp_path, program, "")
    found = []
    for value in ("5", "5 6", "1.5", "-3 -3"):
        try:
            found.append(read_with(tmp_path, program, f"{key.name} {value}") != plain)
        except CryoLitheError:
            found.append(True)
    if key.name not in ("InputFile", "OutputFile", "NumberedFromOne"):  # looked at where there are several, or sections
        assert any(found)


@pytest.mark.parametrize(("program", "key"), [pytest.param(p, k, id=f"{p}-{k.name}") for p, k in KEYS])
def test_keys_and_their_short_names_are_unique(program, key):
    keys = TILT if program == "tilt" else NEWSTACK
    for word in filter(None, (key.name, key.name.upper(), key.short)):
        assert find_keys(word, keys) == [key]


# Lists


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1-5,7,9,11,15-20", [1, 2, 3, 4, 5, 7, 9, 11, *range(15, 21)]),
        ("10-5", [10, 9, 8, 7, 6, 5]),
        ("-3 - -1", [-3, -2, -1]),
        ("-3--1", [-3, -2, -1]),
        ("-3, -1,1", [-3, -1, 1]),
        ("3 1 2", [3, 1, 2]),
        ("4-4", [4]),
        ("1-3-5", [1, 2, 3, 4, 5]),
        ("1 -3", [1, 2, 3]),
        (" 2,\t3 ,", [2, 3]),
        ("007", [7]),
    ],
)
def test_lists_of_numbers(text, numbers):
    assert parse_list(text) == numbers


@pytest.mark.parametrize(
    ("numbers", "runs"), [([], []), ([4], ["4"]), ([1, 2, 3, 7, 9, 10], ["1-3", "7", "9-10"]), ([0, 2], ["0", "2"])]
)
def test_runs_of_numbers_are_read_back(numbers, runs):
    assert runs_of(numbers) == runs
    assert not numbers or parse_list(",".join(runs)) == numbers


@pytest.mark.parametrize("text", ["", " ", ",", "-", "3-", "1,-", "a", "1;2", "1..3", "/", "1-x", "1234567", "²"])
def test_what_is_no_list(text):
    with pytest.raises(ValueError, match=r"number of an image|no part of a list|no end|empty"):
        parse_list(text)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.sampled_from(["-", " - ", "- ", " -"]))))
def test_ranges_either_way_and_blanks(ranges):
    text = ", ".join(f"{first}{dash}{last}" for first, last, dash in ranges)
    numbers = [n for a, b, _ in ranges for n in range(a, b + (1 if b >= a else -1), 1 if b >= a else -1)]
    if not ranges:
        with pytest.raises(ValueError, match="empty"):
            parse_list(text)
    else:
        assert parse_list(text) == numbers


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["SectionsToRead 2-31"], "section 31, but the stack holds sections 0 to 30"),
        (["SectionsToRead 0-3", "NumberedFromOne"], "section -1"),
        (["SectionsToRead 1-5,3"], "names a section twice"),
        (["ExcludeSections 0-30"], "leave no image"),
        (["SectionsToRead 1-20"], "of which newst.com takes 20, but"),
    ],
)
def test_sections_that_are_not_there(lines, why, tmp_path):
    stack = raw(tmp_path, lines=range(2, 30))
    arguments = [stack, "--newst-com", newst_com(tmp_path, *lines), "--tilt-com", tilt_com(tmp_path)]
    refused(tmp_path, [*arguments, "-o", tmp_path / "v.mrc", *FBP], why)


# Flags beat files


@pytest.mark.slow
@pytest.mark.parametrize("value", ["-1", "0", "0.2", "nan", "automatic", "", "1 2 3", "1e999"])
def test_a_thickness_beats_a_useless_one(value, tmp_path):
    stack = aligned(tmp_path)
    tilt = com(tmp_path, "tilt", ["TILTFILE ts.tlt", f"THICKNESS {value}"])
    made(stack, "--tilt-com", tilt, "--thickness", DEPTH, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")
    refused(tmp_path, [stack, "--tilt-com", tilt, "-o", tmp_path / "w.mrc", *FBP], "THICKNESS")


@pytest.mark.slow
@pytest.mark.parametrize("line", ["TILTFILE nowhere.tlt", "ANGLES none", "TILTFILE ts.xf", "ANGLES 1 2\nTILTFILE a"])
def test_angles_beat_those_of_tilt_com(line, tmp_path):
    stack = aligned(tmp_path)
    tilt = com(tmp_path, "tilt", [f"THICKNESS {DEPTH}", line])
    made(stack, tmp_path / "ts.tlt", "--tilt-com", tilt, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "flags"),
    [
        (["TransformFile nowhere.xf"], ["--xf", "ts.xf"]),
        (["TransformFile ts.xf", "BinByFactor 0"], ["--bin", 1]),
        (["TransformFile ts.xf", "BinByFactor -1"], ["--bin", 1]),
        (["TransformFile nowhere.xf", "BinByFactor auto"], ["--bin", 1, "--xf", "ts.xf"]),
    ],
)
def test_flags_beat_newst_com(lines, flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stack = raw(tmp_path)
    newst = com(tmp_path, "newstack", ["InputFile ts.st", *lines])
    flags = (*flags, "--thickness", DEPTH)
    made(stack, "ts.tlt", "--newst-com", newst, *flags, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")


def test_a_bin_beats_a_binning_that_cannot_be_done(tmp_path):
    stack = raw(tmp_path)
    tilt = com(tmp_path, "tilt", ["TILTFILE ts.tlt", "THICKNESS 60", "IMAGEBINNED 1.5"])
    arguments = [stack, "--xf", tmp_path / "ts.xf", "--tilt-com", tilt, "-o", tmp_path / "v.mrc", *FBP]
    refused(tmp_path, arguments, "expected a whole IMAGEBINNED")
    made(*arguments, "--bin", 1, "--thickness", DEPTH)
    assert_beads(tmp_path / "v.mrc")


@pytest.mark.slow
@pytest.mark.parametrize("thickness", ["-1", "0"])
def test_the_files_that_aretomo_writes(thickness, tmp_path):
    """It writes its global transforms as LOCALFILE, and -1 for a thickness that it chose itself."""
    stack = raw(tmp_path)
    (tmp_path / "ts.xtilt").write_text("0\n" * N)
    lines = ("IMAGEBINNED 1", "FalloffIsTrueSigma 1", "RADIAL 0.35 0.035", "XAXISTILT 0.0", "SCALE 0.0 250.0", "Mode 2")
    lines += ("PERPENDICULAR", "FULLIMAGE 64 48", "SUBSETSTART 0 0", "AdjustOrigin", "LOCALFILE ts.xf", "OFFSET 0.0")
    lines += ("ActionIfGPUFails 1,2", "XTILTFILE ts.xtilt", "SHIFT 0.0 0.0", f"THICKNESS {thickness}")
    newst = newst_com(
        tmp_path, "TaperAtFill     1,0", "AdjustOrigin", "OffsetsInXandY  0.0,0.0", "#GradientFile x", "BinByFactor 1"
    )
    flags = ("--newst-com", newst, "--tilt-com", tilt_com(tmp_path, *lines), "--thickness", DEPTH)
    result = made(stack, *flags, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")
    assert "local alignments" not in result.output
    (tmp_path / "ts.xf").rename(tmp_path / "other.xf")
    com(tmp_path, "newstack", ["TransformFile other.xf"])
    (tmp_path / "ts.xf").write_text("3 3 20 20 10 10 1 1.0 0\n" + "0.1 " * N + "\n")  # of local alignments
    assert "the local alignments in ts.xf" in made(stack, *flags, "-o", tmp_path / "w.mrc", *FBP).stderr


# What is said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["SLICE 10 39", "WIDTH 50"], "SLICE 10 39 and WIDTH 50 not applied: the whole field is reconstructed; IMOD's "
         "volume begins at row 10 and column 7 of it"),
        (["SLICE 0 39"], "SLICE 0 39 not applied"),
        (["SLICE 0 47 2"], None),
        (["WIDTH 64", "SLICE 0 47"], None),
        (["SLICE -1 -1", "TOTALSLICES 0 47"], None),
        (["SLICE 4 5", "TOTALSLICES 8 40"], "SLICE 8 40 not applied"),
        (["SLICE 20 79", "WIDTH 100", "IMAGEBINNED 2", "THICKNESS 80"], "row 10 and column 7 of it"),
        (["LOCALFILE tslocal.xf"], "LOCALFILE: the local alignments in tslocal.xf are not applied"),
        (["LOG 0.0", "DENSWEIGHT 2"], "tilt.com: LOG, DENSWEIGHT are not applied"),
    ],
)  # fmt: skip
def test_what_is_not_applied_is_said(lines, told, tmp_path):
    stack = aligned(tmp_path)
    result = made(stack, "--tilt-com", tilt_com(tmp_path, *lines), "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")
    if told is None:
        assert "not applied" not in result.output
    else:
        assert told in result.stderr
        assert any(told in note for note in json.loads((tmp_path / "v.json").read_text())["geometry"]["stack_notes"])


def test_a_refused_key_ends_the_command_in_one_line(tmp_path):
    stack = raw(tmp_path)
    for line in ("ReorderByTiltAngle 1", "UseTransformLines 0-30", "DistortionField a.idf"):
        newst = newst_com(tmp_path, line)
        arguments = [stack, tmp_path / "ts.tlt", "--newst-com", newst, "-o", tmp_path / "v.mrc", *FBP]
        refused(tmp_path, arguments, f"{line.split()[0]} cannot be applied here")


def test_defaults_of_both_commands(tmp_path):
    empty = tmp_path / "x.com"
    empty.write_text("$newstack -StandardInput\n$tilt -StandardInput\n")
    assert read_newst_com(empty) == NewstCommand(None, 1, None)
    assert read_tilt_com(empty) == TiltCommand(None, (), None, None, 1.0, None, None, (0.0, 0.0), 0.0, (0.0, 0.0), 0.0)
    with pytest.raises(FileFormatError, match="holds no command"):
        read_tilt_com(raw(tmp_path).with_name("ts.xf"))


# Halves and formats


@pytest.mark.slow
def test_the_half_that_is_blank_is_named(tmp_path):
    write_angles(tmp_path / "ts.tlt")
    even = write_stack(tmp_path / "ts_EVN.mrc", bead_images())
    odd = write_stack(tmp_path / "ts_ODD.mrc", np.zeros((N, *SHAPE), np.float32))
    result = run("--even", even, "--odd", odd, tmp_path / "ts.tlt", *FBP)
    assert result.exit_code == 2
    assert f"{odd}: all {N} images are blank" in result.stderr
    some = bead_images()
    some[4] = 3
    write_stack(odd, some)
    result = run("--even", even, "--odd", odd, tmp_path / "ts.tlt", *FBP)
    assert f"{odd}: tilt 5 of {N} is constant" in result.stderr


@pytest.mark.parametrize(
    ("mode", "bytes_per_px", "why"),
    [
        (16, 3, "RGB colours of three bytes (MRC mode 16)"),
        (3, 4, "complex 16-bit integers (MRC mode 3)"),
        (4, 8, "give the images themselves"),
        (101, 0.5, "4-bit integers (MRC mode 101)"),
        (7, 4, "32-bit integers (MRC mode 7)"),
        (9, 4, "MRC mode 9, which is not known here"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_modes_that_hold_no_images(mode, bytes_per_px, why, order, tmp_path):
    write_angles(tmp_path / "ts.tlt")
    stack = write_stack(tmp_path / "ts.mrc", bead_images())
    header = bytearray(stack.read_bytes()[:1024])
    words = np.frombuffer(header[:208], "<i4").copy()
    words[3] = mode
    header[:208] = words.astype(f"{order}i4").tobytes()
    header[212:216] = b"\x44\x44\x00\x00" if order == "<" else b"\x11\x11\x00\x00"
    stack.write_bytes(bytes(header) + bytes(int(N * SHAPE[0] * SHAPE[1] * bytes_per_px)))
    line = refused(tmp_path, [stack, tmp_path / "ts.tlt", "-o", tmp_path / "v.mrc", *FBP], why, "ts.mrc")
    assert "damaged" not in line
