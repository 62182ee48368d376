"""Lists of images that belong to a stack: each row reaches its own image, or the list is refused."""

from __future__ import annotations

import pytest
from beads import (
    ANGLES,
    DEPTH,
    PIXEL,
    SHAPE,
    assert_beads,
    bead_images,
    dark,
    some_shifts,
    write_angles,
    write_stack,
)
from tiny_series import made, refused

from cryolithe.formats.alignment.aretomo import read_aln

FBP = ("--method", "fbp", "--thickness", DEPTH)
COUNT = len(ANGLES)
AXIS_DEG = 84.4
OFFSET_DEG = 12.3
ALL = tuple(range(COUNT))


def write_aln(folder, darks=(), numbering="full", first=0, offset=0.0, order=ALL):
    """An .aln whose rows number the whole stack, or what is left without its dark images.

    Args:
        folder: where it goes.
        darks: places in the stack of the dark images.
        numbering: ``full`` or ``rest``.
        first: number of the first section.
        offset: the tilt offset that the program found.
        order: which image, counted by rising angle, is at each place of the stack.
    """
    shifts, recorded = some_shifts(), [ANGLES[n] - offset for n in order]
    rest = [place for place in ALL if place not in darks]
    lines = ["# AreTomo Alignment / Priims bprmMn", f"# RawSize = {SHAPE[1]} {SHAPE[0]} {COUNT}", "# NumPatches = 0"]
    for place in darks:
        lines.append(f"# DarkFrame = {order[place]:5d} {place + first:4d} {recorded[place]:8.2f}")
    lines += [f"# AlphaOffset = {offset:8.2f}", "# BetaOffset = 0.00"] if offset else []
    for number, place in enumerate(rest):
        section = (place if numbering == "full" else number) + first
        x, y = shifts[order[place]]
        lines.append(f"{section} {AXIS_DEG} 1.0 {x:.3f} {y:.3f} 1 1 1 0 {ANGLES[order[place]]:.2f}")
    path = folder / "ts.aln"
    path.write_text("\n".join(lines) + "\n")
    return path


def raw_stack(folder, darks=(), order=ALL):
    images = bead_images(axis_deg=AXIS_DEG, shifts=some_shifts())[list(order)]
    return write_stack(folder / "ts.mrc", dark(images, darks) if darks else images)


def recorded_angles(folder, offset=0.0, order=ALL, name="given.tlt"):
    return write_angles(folder / name, [ANGLES[n] - offset for n in order])


DARKS = {
    "none": (),
    "at the beginning": tuple(range(7)),
    "at the end": (28, 29, 30),
    "at both ends": (0, 1, 29, 30),
    "the first": (0,),
    "within": (3, 4, 10),
}
DOSE_SYMMETRIC = tuple(sorted(ALL, key=lambda n: (abs(ANGLES[n]), ANGLES[n])))


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("numbering", ["full", "rest"])
@pytest.mark.parametrize("darks", DARKS.values(), ids=DARKS)
def test_rows_reach_their_images(darks, numbering, first, tmp_path):
    offset = OFFSET_DEG if first == 0 else 0.0
    aln = write_aln(tmp_path, darks, numbering, first, offset)
    result = made(raw_stack(tmp_path, darks), "--aln", aln, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")
    left_out = f"left out: {', '.join(str(place + 1) for place in darks)} of {COUNT}"
    assert (left_out in " ".join(result.stderr.split())) == bool(darks)
    if numbering == "rest" and darks in (DARKS["at the beginning"], DARKS["within"]):
        assert f"count the series without its {len(darks)} dark images" in " ".join(result.stderr.split())


@pytest.mark.slow
@pytest.mark.parametrize("numbering", ["full", "rest"])
@pytest.mark.parametrize("offset", [0.0, OFFSET_DEG])
def test_given_angles_decide_in_a_stack_that_is_not_sorted(numbering, offset, tmp_path):
    darks = (2, 17)
    aln = write_aln(tmp_path, darks, numbering, 1, offset, DOSE_SYMMETRIC)
    stack = raw_stack(tmp_path, darks, DOSE_SYMMETRIC)
    made(stack, recorded_angles(tmp_path, offset, DOSE_SYMMETRIC), "--aln", aln, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")


@pytest.mark.parametrize("darks", [DARKS["at the beginning"], DARKS["within"]])
@pytest.mark.parametrize("offset", [3.0, -4.0])
def test_angles_of_dark_images_may_hold_the_offset(offset, darks, tmp_path):
    """AreTomo3 adds the tilt offset to them since 2.0.10; the files beside the stack tell what was recorded."""
    aln = write_aln(tmp_path, darks, "full", 1, offset)
    for place in darks:
        told = ANGLES[place] - offset
        line = f"# DarkFrame = {place:5d} {place + 1:4d} "
        changed(aln, f"{line}{told:8.2f}", f"{line}{told + offset:8.2f}")
    recorded_angles(tmp_path, offset, name="ts_TLT.txt")
    made(raw_stack(tmp_path, darks), "--aln", aln, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")
    left_out = dict(read_aln(aln)[0].left_out_deg)
    assert left_out == pytest.approx({place: ANGLES[place] for place in darks})


def test_angles_beside_the_stack_decide_what_the_file_leaves_open(tmp_path):
    darks = (2, 17)
    aln = write_aln(tmp_path, darks, "rest", 0, 0.0, DOSE_SYMMETRIC)
    stack = raw_stack(tmp_path, darks, DOSE_SYMMETRIC)
    output = ("-o", tmp_path / "v.mrc", *FBP)
    refused(tmp_path, [stack, "--aln", aln, *output], "dark sections are not together the 31 images", "give ANGLES")
    recorded_angles(tmp_path, 0.0, DOSE_SYMMETRIC, "ts.rawtlt")
    made(stack, "--aln", aln, *output)
    assert_beads(tmp_path / "v.mrc")


def test_places_among_sorted_images_prove_nothing_in_another_order(tmp_path):
    """The dark images are the two highest tilts, recorded last but two: their sorted places look like the rest."""
    order = (*range(27), 29, 30, 27, 28)
    aln = write_aln(tmp_path, (27, 28), "rest", 0, 0.0, order)
    stack = raw_stack(tmp_path, (27, 28), order)
    refused(tmp_path, [stack, "--aln", aln, "-o", tmp_path / "v.mrc", *FBP], "dark")
    made(stack, recorded_angles(tmp_path, 0.0, order), "--aln", aln, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc")


def changed(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(("given", "right"), [(4.0, True), (0.0, False)])
def test_an_offset_of_one_step_proves_nothing(given, right, tmp_path):
    """Dark images at both ends whose lines say nothing: 1 to 29 of 31 fit either base, refined angles either image."""
    aln = write_aln(tmp_path, (0, 30), "full", 0, 4.0)
    for place in (0, 30):
        changed(aln, f"# DarkFrame = {place:5d} {place:4d}", "# DarkFrame = 5 5")
    stack = raw_stack(tmp_path, (0, 30))
    arguments = [stack, recorded_angles(tmp_path, given), "--aln", aln, "-o", tmp_path / "v.mrc", *FBP]
    if right:
        made(*arguments)
        assert_beads(tmp_path / "v.mrc")
    else:
        refused(tmp_path, arguments, "the aligned and the dark sections are not together", "; align anew")


WRONG = {
    # 30 of the rows number the rest, one does not.
    "a gap in the rest": (lambda f: changed(write_aln(f, (0, 1, 2), "rest"), "\n27 84.4", "\n28 84.4"), "dark"),
    "a dark image twice": (
        lambda f: changed(write_aln(f, (0, 1), "rest"), "# DarkFrame =     1    1", "# DarkFrame =     1    0"), "dark"
    ),
    "a dark image that is not there": (
        lambda f: changed(write_aln(f, (0, 1), "rest"), "# DarkFrame =     1    1", "# DarkFrame =    40   40"), "dark"
    ),
    "angles that are not sorted": (
        lambda f: changed(write_aln(f, (3, 4), "rest"), "     4    4   -44.00", "     4    4    44.00"),
        "dark",
    ),
    "an offset that is not told": (
        lambda f: changed(write_aln(f, (29, 30, 0), "rest", 0, OFFSET_DEG), "# AlphaOffset", "# Other"), "dark"
    ),
    "a row missing": (lambda f: changed(write_aln(f, (0,)), "\n5 84.4", "\n# 84.4"), "1 are missing"),
    "a section twice": (lambda f: changed(write_aln(f, (0,)), "\n5 84.4", "\n6 84.4"), "section 6 is there twice"),
    "more than the stack": (lambda f: changed(write_aln(f), "\n30 84.4", "\n35 84.4"), "do not fit a stack of 31"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_lists_that_are_not_the_stack_are_refused(case, tmp_path):
    write, why = WRONG[case]
    stack, aln = raw_stack(tmp_path), write(tmp_path)
    refused(tmp_path, [stack, "--aln", aln, "-o", tmp_path / "v.mrc", *FBP], why)


@pytest.mark.parametrize(
    ("told", "given", "right"),
    [
        (OFFSET_DEG, OFFSET_DEG, True),  # the angles as recorded
        (OFFSET_DEG, 0.0, True),  # the refined ones
        (OFFSET_DEG, 8.0, False),  # two images further
        (OFFSET_DEG, OFFSET_DEG + 4, False),  # one image further
        (0.0, 1.5, True),  # less than half a step
        (0.0, 4.0, False),
        (0.0, -28.0, False),
    ],
)
def test_a_constant_difference_must_be_explained(told, given, right, tmp_path):
    stack, aln = raw_stack(tmp_path, (30,)), write_aln(tmp_path, (30,), "full", 1, told)
    arguments = [stack, recorded_angles(tmp_path, given), "--aln", aln, "-o", tmp_path / "v.mrc", *FBP]
    if right:
        made(*arguments)
        assert_beads(tmp_path / "v.mrc")
    else:
        refused(tmp_path, arguments, "off ANGLES", "leave ANGLES out")


# Tables whose rows have no numbers: RELION's and Warp's


def relion_table(folder, order=ALL, nominal=True, refined=0.0, parts=False):
    """A series' table with its rows in some order; RELION counts from N // 2 and in Å."""
    shifts = some_shifts() * PIXEL
    columns = ["rlnMicrographName", "rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst"]
    columns += ["rlnTomoYShiftAngst", *(["rlnTomoNominalStageTiltAngle"] if nominal else [])]
    lines = ["data_TS_1", "", "loop_", *(f"_{name}" for name in columns)]
    for n in order:
        x, y = shifts[n]
        name = f"{n + 1}@TS_1.mrc" if parts else f"MotionCorr/f{n}.mrc"
        row = f"{name} 0.0 {ANGLES[n] + refined:.2f} {AXIS_DEG} {x:.4f} {y:.4f}"
        lines.append(f"{row} {ANGLES[n]:.2f}" if nominal else row)
    path = folder / "table.star"
    path.write_text("\n".join(lines) + "\n")
    return path


def warp_file(folder, order=ALL, unused=(), inverted=True):
    shifts = some_shifts() * PIXEL
    sign = -1 if inverted else 1

    def text(values):
        return "\n".join(str(value) for value in values)

    content = (
        f"<Angles>{text(sign * ANGLES[n] for n in order)}</Angles><UseTilt>{text(n not in unused for n in order)}"
        f"</UseTilt><AxisAngle>{text([AXIS_DEG] * len(order))}</AxisAngle>"
        f"<AxisOffsetX>{text(shifts[n][0] for n in order)}</AxisOffsetX>"
        f"<AxisOffsetY>{text(shifts[n][1] for n in order)}</AxisOffsetY>"
    )
    path = folder / "ts.xml"
    path.write_text(f"<TiltSeries>{content}</TiltSeries>")
    return path


def relion_stack(folder, order=ALL):
    images = bead_images(axis_deg=AXIS_DEG, shifts=some_shifts(), centre="relion")
    return write_stack(folder / "TS_1.mrc", images[list(order)])


def beside(name, order=ALL):
    """A file of angles of that name beside the stack."""

    def write(folder):
        if name.endswith(".mdoc"):
            text = "".join(f"[ZValue = {z}]\nTiltAngle = {ANGLES[n]}\n\n" for z, n in enumerate(order))
            (folder / name).write_text(text)
            return []
        path = write_angles(folder / name, [ANGLES[n] for n in order])
        return [path] if name == "given.tlt" else []

    return write


KNOWN = [beside(name) for name in ("TS_1.tlt", "TS_1.rawtlt", "TS_1_TLT.txt", "TS_1.mrc.mdoc", "given.tlt")]
TABLES = {"RELION": ("--star", relion_table), "Warp": ("--warp", warp_file)}


@pytest.mark.slow
@pytest.mark.parametrize("program", TABLES)
@pytest.mark.parametrize("known", KNOWN, ids=["tlt", "rawtlt", "TLT.txt", "mdoc", "ANGLES"])
def test_rows_in_another_order_are_refused(known, program, tmp_path):
    option, write = TABLES[program]
    stack, angles = relion_stack(tmp_path), known(tmp_path)
    arguments = [stack, *angles, option, write(tmp_path, DOSE_SYMMETRIC), "-o", tmp_path / "v.mrc", *FBP]
    refused(tmp_path, arguments, "in another order than the images")
    write(tmp_path)
    assert "the order of the rows of" in made(*arguments).stderr
    assert_beads(tmp_path / "v.mrc", "relion")


@pytest.mark.parametrize("program", TABLES)
def test_an_order_that_nothing_tells_is_said(program, tmp_path):
    option, write = TABLES[program]
    stack = relion_stack(tmp_path, DOSE_SYMMETRIC)
    result = made(stack, option, write(tmp_path, DOSE_SYMMETRIC), "-o", tmp_path / "v.mrc", *FBP)
    assert "are taken in the order of the images; give ANGLES" in " ".join(result.stderr.split())
    assert_beads(tmp_path / "v.mrc", "relion")


def test_given_angles_go_before_what_lies_beside_the_stack(tmp_path):
    """The .tlt beside it was sorted by some program; the stack was not."""
    stack, table = relion_stack(tmp_path, DOSE_SYMMETRIC), relion_table(tmp_path, DOSE_SYMMETRIC)
    beside("TS_1.tlt")(tmp_path)
    output = ("-o", tmp_path / "v.mrc", *FBP)
    refused(tmp_path, [stack, "--star", table, *output], "or the right angles of the stack as ANGLES")
    made(stack, *beside("given.tlt", DOSE_SYMMETRIC)(tmp_path), "--star", table, *output)
    assert_beads(tmp_path / "v.mrc", "relion")


def test_halves_have_the_angles_of_their_series(tmp_path):
    stack = relion_stack(tmp_path).rename(tmp_path / "TS_1_EVN.mrc")
    beside("TS_1.rawtlt")(tmp_path)
    arguments = [stack, "--star", relion_table(tmp_path, DOSE_SYMMETRIC), "-o", tmp_path / "v.mrc", *FBP]
    refused(tmp_path, arguments, "in another order than the images", "TS_1.rawtlt")


def test_a_table_that_numbers_its_images_needs_no_order(tmp_path):
    stack, table = relion_stack(tmp_path), relion_table(tmp_path, DOSE_SYMMETRIC, parts=True)
    result = made(stack, "--star", table, "-o", tmp_path / "v.mrc", *FBP)
    assert "order of the" not in result.stderr
    assert_beads(tmp_path / "v.mrc", "relion")
    back = write_angles(tmp_path / "back.tlt", ANGLES[::-1])
    refused(tmp_path, [stack, back, "--star", table, "-o", tmp_path / "w.mrc", *FBP], "in another order")


@pytest.mark.parametrize(
    ("nominal", "refined", "right"), [(True, 12.3, True), (False, 1.0, True), (False, 12.3, False)]
)
def test_refined_angles_are_compared_with_recorded_ones(nominal, refined, right, tmp_path):
    """A large offset of the refined angles is explained by the nominal ones alone."""
    stack, table = relion_stack(tmp_path), relion_table(tmp_path, nominal=nominal, refined=refined)
    arguments = [stack, write_angles(tmp_path / "given.tlt"), "--star", table, "-o", tmp_path / "v.mrc", *FBP]
    if right:
        assert "agrees with given.tlt" in made(*arguments).stderr
    else:
        refused(tmp_path, arguments, "in another order than the images, or of another series")


@pytest.mark.slow
@pytest.mark.parametrize("inverted", [True, False])
@pytest.mark.parametrize("unused", [(0, 1, 14, 30), (15,), (29, 30)])
def test_a_stack_of_the_used_images_alone(unused, inverted, tmp_path):
    kept = [n for n in ALL if n not in unused]
    stack = relion_stack(tmp_path, kept)
    flip = () if inverted else ("--handedness", "warp")
    angles = write_angles(tmp_path / "given.tlt", [ANGLES[n] for n in kept])
    for more, output in (((), "v.mrc"), ((angles,), "w.mrc")):
        warp = warp_file(tmp_path, unused=unused, inverted=inverted)
        result = made(stack, *more, "--warp", warp, *flip, "-o", tmp_path / output, *FBP)
        assert f"the stack holds the {len(kept)} used ones of the {COUNT} images" in " ".join(result.stderr.split())
        if inverted:
            assert_beads(tmp_path / output, "relion")


def test_other_numbers_of_images_are_no_stack_of_warp(tmp_path):
    stack = write_stack(tmp_path / "TS_1.mrc", bead_images()[:28])
    arguments = [stack, "--warp", warp_file(tmp_path, unused=(0, 30)), "-o", tmp_path / "v.mrc", *FBP]
    refused(tmp_path, arguments, "holds 31 images but the stack holds 28 (29 are used)")


def test_the_unused_images_of_a_whole_stack_are_left_out(tmp_path):
    images = dark(bead_images(axis_deg=AXIS_DEG, shifts=some_shifts(), centre="relion"), (0, 15))
    stack = write_stack(tmp_path / "TS_1.mrc", images)
    result = made(stack, "--warp", warp_file(tmp_path, unused=(0, 15)), "-o", tmp_path / "v.mrc", *FBP)
    assert "left out: 1, 16 of 31" in result.stderr
    assert_beads(tmp_path / "v.mrc", "relion")


def test_the_beads_see_a_wrong_order(tmp_path):
    """What these tests stand on: rows that reach other images destroy the beads."""
    stack, aln = raw_stack(tmp_path), write_aln(tmp_path)
    rows = aln.read_text()
    for n in range(COUNT):
        rows = rows.replace(f"\n{n} {AXIS_DEG}", f"\nx{(n + 1) % COUNT} {AXIS_DEG}")
    aln.write_text(rows.replace("\nx", "\n"))
    made(stack, "--aln", aln, "-o", tmp_path / "v.mrc", *FBP)
    with pytest.raises(AssertionError):
        assert_beads(tmp_path / "v.mrc")


def listed_table(folder, pixel=PIXEL):
    """A series' table as RELION's jobs have it: listed in the folder above, which alone tells the pixel size."""
    (folder / "tilt_series").mkdir()
    table = relion_table(folder).rename(folder / "tilt_series" / "TS_1.star")
    columns = ("rlnTomoName", "rlnTomoTiltSeriesPixelSize", "rlnTomoTiltSeriesStarFile")
    head = "\n".join(["data_global", "", "loop_", *(f"_{name}" for name in columns)])
    (folder / "tomograms.star").write_text(f"{head}\nTS_1 {pixel} tilt_series/TS_1.star\n")
    return table


@pytest.mark.parametrize("given", ["tilt_series/TS_1.star", "tomograms.star"])
def test_a_table_has_the_pixel_size_of_the_one_that_lists_it(given, tmp_path):
    """Its shifts are in Å: without a pixel size nothing can be done, with a wrong one the volume is wrong."""
    listed_table(tmp_path)
    images = bead_images(axis_deg=AXIS_DEG, shifts=some_shifts(), centre="relion")
    stack = write_stack(tmp_path / "TS_1.mrc", images, pixel_size=0)
    made(stack, "--star", tmp_path / given, *FBP, "-o", tmp_path / "v.mrc")
    assert_beads(tmp_path / "v.mrc", "relion")
    stack = write_stack(tmp_path / "TS_1.mrc", images, pixel_size=1)
    refused(tmp_path, (stack, "--star", tmp_path / given, *FBP), "or a whole number of times as large", "--pixel-size")


def test_a_table_that_lists_it_says_nothing_of_a_resampled_stack(tmp_path):
    """Warp and AreTomo write images of any pixel size; shifts are in Å."""
    table = listed_table(tmp_path, pixel=1.35)
    stack = write_stack(tmp_path / "TS_1.mrc", bead_images(axis_deg=AXIS_DEG, shifts=some_shifts(), centre="relion"))
    made(stack, "--star", table, *FBP, "-o", tmp_path / "v.mrc")
    assert_beads(tmp_path / "v.mrc", "relion")
