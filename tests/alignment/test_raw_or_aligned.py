"""Whether a stack is raw or aligned is decided in one place: what contradicts itself is refused, the rest is said."""

from __future__ import annotations

import pytest
from beads import ANGLES, DEPTH, assert_beads, bead_images, write_angles, write_stack
from tiny_series import made, refused, run

from cryolithe.formats.alignment.stack_state import is_aligned_name, series_name, stack_state
from cryolithe.formats.reading import Reading

FBP = ("--method", "fbp", "--thickness", DEPTH)


def titled(axis):
    sections = "".join(f"[ZValue = {n}]\nTiltAngle = {angle}\n\n" for n, angle in enumerate(ANGLES))
    return f"ImageFile = ts.mrc\n\n[T = Tilt axis angle = {axis}, binning = 1\n]\n\n{sections}"


@pytest.mark.parametrize(
    ("name", "aligned", "series"),
    [
        ("ts_ali.mrc", True, "ts"),
        ("ts.ali", True, "ts"),
        ("ts_aligned.mrc", True, "ts"),
        ("ts_Aligned.mrc", True, "ts"),
        ("ts_aligned.st", True, "ts"),
        ("ts_ali_EVN.mrc", True, "ts_ali_EVN"),
        ("ts_aligned_10.00Apx.mrc", True, "ts"),
        ("ts_ali_bin4.mrc", True, "ts"),
        ("ts_bin4.mrc", False, "ts_bin4"),
        ("ts_ali.mrc.gz", True, "ts_ali.mrc"),
        ("ts.mrc", False, "ts"),
        ("ts.st", False, "ts"),
        ("kali.mrc", False, "kali"),
        ("ts_preali.mrc", False, "ts_preali"),
        ("realigned.mrc", False, "realigned"),
        ("ts_ali_2.mrc", False, "ts_ali_2"),
    ],
)
def test_names_of_aligned_stacks(name, aligned, series, tmp_path):
    assert is_aligned_name(tmp_path / name) == aligned
    assert series_name(tmp_path / name) == series


@pytest.mark.parametrize(
    ("name", "beside", "aligned"),
    [
        ("ts.mrc", {}, None),
        ("ts.st", {}, None),
        ("ts.st", {"ts.rawtlt": "0\n"}, False),
        ("ts.mrc", {"ts.rawtlt": "0\n"}, None),
        ("ts.st", {"other.rawtlt": "0\n"}, None),
        ("ts.mrc", {"ts.mrc.mdoc": titled(84.8)}, False),
        ("ts.mrc", {"ts.mdoc": titled(-95.2)}, False),
        ("ts_EVN.mrc", {"ts.mrc.mdoc": titled(84.8)}, False),
        ("ts.mrc", {"ts.mrc.mdoc": titled(0.4)}, None),
        ("ts.mrc", {"ts.mrc.mdoc": titled(-179.8)}, None),
        ("ts.mrc", {"ts.mrc.mdoc": titled(180)}, None),
        ("ts.mrc", {"ts.mrc.mdoc": titled(90)}, False),
        ("ts_ali.mrc", {"ts.mrc.mdoc": titled(84.8)}, True),
        ("ts_ali.st", {"ts_ali.rawtlt": "0\n"}, True),
        ("ts.mrc", {"ts.mrc.mdoc": "\x00"}, None),
        ("ts_preali.mrc", {}, False),
        ("ts.preali", {}, False),
        ("ts_preali_ali.mrc", {}, True),
    ],
)
def test_what_a_stack_s_files_tell(name, beside, aligned, tmp_path):
    for file, text in beside.items():
        (tmp_path / file).write_text(text)
    assert stack_state(tmp_path / name, None, Reading()).aligned is aligned


# What contradicts itself

IDENTITY = "1 0 0 1 0 0\n" * len(ANGLES)
ALIGNMENTS = {
    "--xf": ("ts.xf", IDENTITY),
    "--newst-com": ("newst.com", "$newstack -StandardInput\nTransformFile ts.xf\n"),
    "--aln": ("ts.aln", "# AreTomo Alignment\n"),
    "--star": ("ts.star", "data_ts\n\nloop_\n_rlnTomoYTilt\n0\n"),
    "--warp": ("ts.xml", "<TiltSeries/>\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize("option", ALIGNMENTS)
@pytest.mark.parametrize("name", ["ts_aligned.mrc", "ts.ali", "ts_ali_ODD.mrc"])
def test_an_aligned_stack_is_not_aligned_again(name, option, tmp_path):
    stack = write_stack(tmp_path / name, bead_images())
    file, text = ALIGNMENTS[option]
    (tmp_path / file).write_text(text)
    (tmp_path / "ts.xf").write_text(IDENTITY)
    arguments = [stack, write_angles(tmp_path / "ts.tlt"), option, tmp_path / file, "-o", tmp_path / "v.mrc", *FBP]
    refused(tmp_path, arguments, f"the name of {name} says that it is aligned already", "would align it twice")


def test_nor_from_a_list(tmp_path):
    write_stack(tmp_path / "ts_aligned.mrc", bead_images())
    write_angles(tmp_path / "ts.tlt")
    (tmp_path / "ts.xf").write_text(IDENTITY)
    (tmp_path / "list.csv").write_text("tilts,angles,xf\nts_aligned.mrc,ts.tlt,ts.xf\n")
    result = run(tmp_path / "list.csv", *FBP)
    assert result.exit_code == 1
    assert "would align it twice" in result.stdout
    assert not (tmp_path / "ts_aligned_rec.mrc").exists()


@pytest.mark.parametrize(("axis", "allowed"), [(84.8, False), (-30, False), (90, True), (-90.5, True), (1.5, True)])
def test_an_aligned_stack_is_not_turned_by_a_raw_one_s_axis(axis, allowed, tmp_path):
    stack = write_stack(tmp_path / "ts_ali.mrc", bead_images(axis_deg=axis))
    output = ("-o", tmp_path / "v.mrc", *FBP)
    arguments = [stack, write_angles(tmp_path / "ts.tlt"), "--tilt-axis", axis, *output]
    if allowed:
        made(*arguments)
        assert_beads(tmp_path / "v.mrc")
    else:
        refused(tmp_path, arguments, "is aligned already", "would turn it again")


# What is assumed

TAKEN = "it is taken as aligned, its tilt axis along y (--tilt-axis 0), but"


def told(result):
    return " ".join(result.stderr.split())


def test_what_nothing_tells_is_said_in_the_line_on_geometry(tmp_path):
    stack, angles = write_stack(tmp_path / "ts.mrc", bead_images()), write_angles(tmp_path / "ts.tlt")
    result = made(stack, angles, "-o", tmp_path / "v.mrc", *FBP)
    assert "images taken as aligned, tilt axis along y" in told(result)
    assert TAKEN not in told(result)
    assert_beads(tmp_path / "v.mrc")
    turned = made(stack, angles, "--tilt-axis", 5, "-o", tmp_path / "w.mrc", *FBP)
    assert "taken as aligned" not in told(turned)
    assert "images turned by -5°, so that the tilt axis lies along y" in told(turned)


@pytest.mark.parametrize("given", ["ts.tlt", "ts.mrc.mdoc", "elsewhere/any.mdoc"])
def test_an_mdoc_s_axis_is_told_and_not_applied(given, tmp_path):
    stack = write_stack(tmp_path / "ts.mrc", bead_images())
    (tmp_path / "elsewhere").mkdir()
    write_angles(tmp_path / "ts.tlt")
    (tmp_path / ("elsewhere/any.mdoc" if given.startswith("else") else "ts.mrc.mdoc")).write_text(titled(84.8))
    result = made(stack, tmp_path / given, "-o", tmp_path / "v.mrc", *FBP)
    assert f"{TAKEN} " in told(result)
    assert ".mdoc says that the tilt axis lies at 84.8° from y: if it is raw" in told(result)
    assert "or --tilt-axis 84.8" in told(result)
    assert_beads(tmp_path / "v.mrc")


@pytest.mark.parametrize("axis_deg", [84.8, -95.2])
def test_the_axis_that_is_named_is_the_one_to_give(axis_deg, tmp_path):
    stack = write_stack(tmp_path / "ts.mrc", bead_images(axis_deg=axis_deg))
    (tmp_path / "ts.mrc.mdoc").write_text(titled(axis_deg))
    result = made(stack, tmp_path / "ts.mrc.mdoc", "--tilt-axis", axis_deg, "-o", tmp_path / "v.mrc", *FBP)
    assert "says that the tilt axis" not in told(result)
    assert_beads(tmp_path / "v.mrc")


def test_another_axis_than_the_mdoc_s_is_told(tmp_path):
    stack = write_stack(tmp_path / "ts.mrc", bead_images(axis_deg=30))
    (tmp_path / "ts.mrc.mdoc").write_text(titled(84.8))
    result = made(stack, tmp_path / "ts.mrc.mdoc", "--tilt-axis", 30, "-o", tmp_path / "v.mrc", *FBP)
    assert "lies at 84.8° from y, but --tilt-axis is 30, which is taken" in told(result)
    assert_beads(tmp_path / "v.mrc")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["file", "folder", "list"])
def test_a_raw_stack_by_its_name_is_told(how, tmp_path):
    data = tmp_path / "data"
    stack = write_stack(data / "ts.st", bead_images())
    angles = write_angles(data / "ts.rawtlt")
    (data / "list.csv").write_text("tilts,angles\nts.st,ts.rawtlt\n")
    arguments = {"file": [stack, angles], "folder": [data], "list": [data / "list.csv"]}[how]
    output = tmp_path / "ts_rec.mrc" if how == "file" else tmp_path
    result = made(*arguments, "-o", output, *FBP)
    assert f"{TAKEN} a .st beside ts.rawtlt is how a raw stack is called: if it is raw, give its alignment" in told(
        result
    )
    assert_beads(tmp_path / "ts_rec.mrc")


def test_an_alignment_ends_the_question(tmp_path):
    stack = write_stack(tmp_path / "ts.st", bead_images())
    (tmp_path / "ts.xf").write_text(IDENTITY)
    (tmp_path / "ts.mrc.mdoc").write_text(titled(84.8))
    result = made(
        stack, write_angles(tmp_path / "ts.rawtlt"), "--xf", tmp_path / "ts.xf", "-o", tmp_path / "v.mrc", *FBP
    )
    assert TAKEN not in told(result)
    assert_beads(tmp_path / "v.mrc")


# What lies beside a stack that is in register


@pytest.mark.parametrize(("name", "options"), [("ts.ali", ()), ("ts_ali.mrc", ()), ("ts.st", ("--xf",))])
def test_a_tilt_com_of_the_stack_that_is_not_given_is_told(name, options, tmp_path):
    """It may exclude views that hold nothing, which would be used without a word."""
    stack, angles = write_stack(tmp_path / name, bead_images()), write_angles(tmp_path / "ts.tlt")
    (tmp_path / "ts.xf").write_text(IDENTITY)
    tilt = tmp_path / "tilt.com"
    arguments = [stack, angles, *(word for flag in options for word in (flag, tmp_path / "ts.xf")), *FBP]
    told = f"{tilt} is of {name} and is not used: it may leave out images"
    tilt.write_text("$tilt -StandardInput\nInputProjections ts.ali\nTILTFILE ts.tlt\nEXCLUDELIST2 1,2\n")
    assert told in made(*arguments, "-o", tmp_path / "v.mrc").stderr
    given = made(*arguments, "--tilt-com", tilt, "-o", tmp_path / "given.mrc").stderr
    assert "left out: 1, 2 of 31" in given
    assert "is not used" not in given
    tilt.write_text(tilt.read_text().replace("ts.ali", "other.ali"))  # its angles are the series' own
    assert told in made(*arguments, "-o", tmp_path / "renamed.mrc").stderr
    tilt.write_text(tilt.read_text().replace("ts.tlt", "other.tlt"))
    assert "is not used" not in made(*arguments, "-o", tmp_path / "other.mrc").stderr


def test_a_command_file_of_another_series_is_told(tmp_path):
    """Folders have a tilt.com of each series: one with the wrong views left out gives a wrong volume in silence."""
    stack, angles = write_stack(tmp_path / "ts_01_ali.mrc", bead_images()), write_angles(tmp_path / "ts.tlt")
    tilt, newst, transforms = (tmp_path / name for name in ("tilt.com", "newst.com", "ts.xf"))
    transforms.write_text(IDENTITY)
    for number, (name, said) in enumerate(
        (
            ("ts_02_ali.mrc", True),
            ("../ts_02/ts_02_3dfind_ali.mrc", True),
            ("ts_01_ali.mrc", False),
            ("ts_01.ali", False),
            ("ts_01_erase_ali.mrc", False),
            ("aligned.mrc", False),
        )
    ):
        tilt.write_text(f"$tilt -StandardInput\nInputProjections {name}\nTILTFILE ts.tlt\n")
        told = made(stack, angles, *FBP, "--tilt-com", tilt, "-o", tmp_path / f"v{number}.mrc").stderr
        assert (f"tilt.com is of {name}; ts_01_ali.mrc is taken for it" in told) is said
    newst.write_text("$newstack -StandardInput\nInputFile ts_02.st\nTransformFile ts.xf\n")
    raw = stack.rename(tmp_path / "ts_01.st")
    told = made(raw, angles, *FBP, "--newst-com", newst, "-o", tmp_path / "raw.mrc").stderr
    assert "newst.com is of ts_02.st; ts_01.st is taken for it" in told
