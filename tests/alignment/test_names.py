"""Which series of a table a file belongs to: the very name, or the name and what programs add; never a prefix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from beads import ANGLES, DEPTH, PIXEL, assert_beads, bead_images, some_shifts, write_stack
from command import call
from tiny_series import made, refused

from cryolithe.cli.halves import default_output
from cryolithe.curation.candidates import _tomograms
from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.particles.star import Particle, read_positions, write_particles
from cryolithe.formats.series_names import (
    half_of,
    is_other_half,
    matching_name,
    possible_names,
    tells_series,
    without_half,
)
from cryolithe.formats.star_tables import read_star

FBP = ("--method", "fbp", "--thickness", DEPTH)
RIGHT_DEG, WRONG_DEG = 84.4, 25.0


# Names alone


@pytest.mark.parametrize(
    ("file_name", "names", "chosen"),
    [
        ("TS_01.mrc", ["TS_01", "TS_02"], "TS_01"),
        ("00255.mrc", ["00254", "00255"], "00255"),
        ("255.mrc", ["00254", "00255"], None),
        ("Position_1_2.mrc", ["Position_1", "Position_2"], None),
        ("Position_1_2.mrc", ["Position_1", "Position_1_2"], "Position_1_2"),
        ("TS_11.mrc", ["TS_1"], None),
        ("TS_1.mrc", ["TS_11", "TS_1"], "TS_1"),
        ("TS_01_st.mrc", ["TS_01"], "TS_01"),
        ("TS_01.st", ["TS_01"], "TS_01"),
        ("TS_01_ali.mrc", ["TS_01"], "TS_01"),
        ("TS_01.ali", ["TS_01"], "TS_01"),
        ("TS_01_aligned.mrc", ["TS_01"], "TS_01"),
        ("TS_01_rec.mrc", ["TS_01", "TS_01_2"], "TS_01"),
        ("TS_01_full_rec.mrc", ["TS_01"], "TS_01"),
        ("TS_01_EVN.mrc", ["TS_01"], "TS_01"),
        ("TS_01_EVN_Vol.mrc", ["TS_01"], "TS_01"),
        ("TS_01_rec_ODD.mrc", ["TS_01"], "TS_01"),
        ("TS_01_10.00Apx.mrc", ["TS_01"], "TS_01"),
        ("TS_01_10.00Apx.mrc", ["TS_01.tomostar", "TS_02.tomostar"], "TS_01.tomostar"),
        ("rec_TS_01.mrc", ["TS_01"], "TS_01"),
        ("rec_TS_01_half1.mrc", ["TS_01"], "TS_01"),
        ("TS_01_rec_samba.mrc", ["TS_01"], "TS_01"),
        ("TS_01_bin4.mrc.gz", ["TS_01"], "TS_01"),
        ("TS_01_rec.zarr", ["TS_01"], "TS_01"),
        ("TS_01_ali.mrc", ["TS_01", "TS_01_ali"], "TS_01_ali"),
        ("TS_01_new.mrc", ["TS_01"], None),
        ("ts_01.mrc", ["TS_01"], None),
        ("a.b.mrc", ["a", "a.b"], "a.b"),
    ],
)
def test_a_name_is_matched_whole(file_name, names, chosen):
    assert matching_name(names, file_name) == chosen


@pytest.mark.parametrize(
    ("name", "tells"),
    [("rec.mrc", False), ("fbp_denoised.mrc", False), ("tomogram.mrc", False), ("TS_1.mrc", True), ("x.mrc", True)],
)
def test_some_names_say_only_what_a_file_is(name, tells):
    assert tells_series(name) == tells


WORDS = [("EVN", "ODD"), ("even", "odd"), ("half1", "half2"), ("half_1", "half_2"), ("half-1", "half-2")]


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[0])
@pytest.mark.parametrize("form", ["rec_TS_01_{}", "TS_01-{}", "TS_01_{}_Vol", "TS_01_rec_{}"])
def test_one_rule_tells_the_names_of_halves(words, form):
    """For series, folders of volumes, candidates, angles beside them, outputs, and halves that were held out."""
    names = [form.format(word) for word in words]
    halves = [half_of(name) for name in names]
    assert [half.first for half in halves] == [True, False]
    assert halves[0].other == halves[1]
    (whole,) = {without_half(name) for name in names}
    assert half_of(whole) is None
    for name in names:
        assert "TS_01" in possible_names(f"{name}.mrc")
        assert default_output(Path(f"{name}.mrc.gz")) == Path(f"{whole}_rec.mrc")
    assert is_other_half(*(f"{name}.mrc" for name in names))
    assert not is_other_half(f"{names[0]}.mrc", f"{names[0]}.mrc")
    (found,) = _tomograms([Path(f"{name}.mrc") for name in names])
    assert (found.name, found.remark) == (whole, None)


@pytest.mark.parametrize("name", ["seven", "event_1", "TS_eve", "half", "ts_half_3", "oddity", "ts_half1a", "ts_2"])
def test_other_names_say_nothing_of_halves(name):
    assert half_of(name) is None
    assert without_half(name) == name


def test_of_several_words_for_halves_the_last_one_counts():
    assert without_half("odd_grid_EVN_Vol") == "odd_grid_Vol"
    assert half_of("odd_grid_EVN_Vol").first


# A stack and the table of its series, through the command


def series_block(name, axis_deg):
    columns = ["rlnMicrographName", "rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst"]
    lines = [f"data_{name}", "", "loop_", *(f"_{column}" for column in [*columns, "rlnTomoYShiftAngst"])]
    shifts = some_shifts() * PIXEL
    lines += [
        f"m/f{n}.mrc 0.0 {ANGLES[n]} {axis_deg} {shifts[n][0]:.4f} {shifts[n][1]:.4f}" for n in range(len(ANGLES))
    ]
    return "\n".join(lines) + "\n\n"


def listing(folder, names, right, quote=""):
    """A table of series; that with the name ``right`` has the right tilt axis."""
    (folder / "tilt_series").mkdir(exist_ok=True)
    rows = []
    for number, name in enumerate(names):
        file = f"tilt_series/s{number}.star"
        (folder / file).write_text(series_block(name, RIGHT_DEG if name == right else WRONG_DEG))
        rows.append(f"{quote}{name}{quote} 300.0 {PIXEL} {file}")
    columns = ("rlnTomoName", "rlnVoltage", "rlnTomoTiltSeriesPixelSize", "rlnTomoTiltSeriesStarFile")
    head = ["data_global", "", "loop_", *(f"_{column} #{i}" for i, column in enumerate(columns, 1))]
    path = folder / "all.star"
    path.write_text("\n".join([*head, *rows, ""]))
    return path


def stack_named(folder, name):
    return write_stack(folder / name, bead_images(axis_deg=RIGHT_DEG, shifts=some_shifts(), centre="relion"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stack", "names", "right", "quote"),
    [
        ("00255.mrc", ["00254", "00255", "255"], "00255", ""),
        ("1e3.mrc", ["1000", "1e3"], "1e3", ""),
        ("nan.mrc", ["TS_1", "nan"], "nan", ""),
        ("TS_1.mrc", ["TS_10", "TS_1", "TS_11"], "TS_1", ""),
        ("Position_1_2.mrc", ["Position_1", "Position_1_2", "Position_2"], "Position_1_2", ""),
        ("TS_1_st.mrc", ["TS_2", "TS_1"], "TS_1", ""),
        ("TS_1_EVN.mrc", ["TS_2", "TS_1"], "TS_1", '"'),
        ("TS_1_10.00Apx.st", ["TS_2.tomostar", "TS_1.tomostar"], "TS_1.tomostar", ""),
        ("a b.mrc", ["a", "a b"], "a b", '"'),
        ("it's.mrc", ["it", "it's"], "it's", ""),
        ("[1].mrc", ["[2]", "[1]"], "[1]", ""),
        ("tilts.mrc", ["TS_1"], "TS_1", ""),
    ],
)
def test_the_right_series_is_taken_and_told(stack, names, right, quote, tmp_path):
    path = listing(tmp_path, names, right, quote)
    result = made(stack_named(tmp_path, stack), "--star", path, "-o", tmp_path / "v.mrc", *FBP)
    assert f"series {right} of all.star is taken" in " ".join(result.stderr.split())
    assert_beads(tmp_path / "v.mrc", "relion")


@pytest.mark.parametrize(
    ("stack", "names", "why"),
    [
        ("Position_1_2.mrc", ["Position_1", "Position_2"], "expected Position_1_2"),
        ("TS_11.mrc", ["TS_1"], "expected TS_11"),
        ("TS_1_new.mrc", ["TS_1", "TS_2"], "expected TS_1_new"),
        ("255.mrc", ["00254", "00255"], "expected 255"),
        ("tilts.mrc", ["TS_1", "TS_2"], "none of which the name tilts.mrc tells"),
        ("TS_1.mrc", ["TS_1", "TS_1"], "lists the series TS_1 2 times"),
    ],
)
def test_a_stack_of_no_series_is_refused(stack, names, why, tmp_path):
    path = listing(tmp_path, names, names[0])
    refused(tmp_path, [stack_named(tmp_path, stack), "--star", path, "-o", tmp_path / "v.mrc", *FBP], why)


def test_the_series_of_one_file_are_told_apart_by_their_blocks(tmp_path):
    path = tmp_path / "series.star"
    path.write_text(series_block("TS_2", WRONG_DEG) + series_block("TS_1", RIGHT_DEG))
    result = made(stack_named(tmp_path, "TS_1.mrc"), "--star", path, "-o", tmp_path / "v.mrc", *FBP)
    assert "series TS_1 of series.star is taken" in result.stderr
    assert_beads(tmp_path / "v.mrc", "relion")
    other = [stack_named(tmp_path, "TS_3.mrc"), "--star", path, "-o", tmp_path / "w.mrc", *FBP]
    refused(tmp_path, other, "lists 2 series (TS_2, TS_1), none of which the name TS_3.mrc tells")


def test_a_list_of_one_series_may_be_names_and_values(tmp_path):
    listing(tmp_path, ["00255"], "00255")
    path = tmp_path / "one.star"
    pairs = f"_rlnTomoName 00255\n_rlnTomoTiltSeriesPixelSize {PIXEL}\n_rlnTomoTiltSeriesStarFile tilt_series/s0.star\n"
    path.write_text(f"data_global\n\n{pairs}")
    made(stack_named(tmp_path, "00255.mrc"), "--star", path, "-o", tmp_path / "v.mrc", *FBP)
    assert_beads(tmp_path / "v.mrc", "relion")


def test_a_table_of_another_stack_is_told(tmp_path):
    path = tmp_path / "s.star"
    text = series_block("TS_1", RIGHT_DEG)
    for n in range(len(ANGLES)):
        text = text.replace(f"m/f{n}.mrc", f"{n + 1:06d}@stacks/TS_1.mrc")
    path.write_text(text)
    note = "s.star is of the images of stacks/TS_1.mrc; TS_2.mrc is taken for them"
    right = made(stack_named(tmp_path, "TS_1.mrc"), "--star", path, "-o", tmp_path / "v.mrc", *FBP)
    other = made(stack_named(tmp_path, "TS_2.mrc"), "--star", path, "-o", tmp_path / "w.mrc", *FBP)
    assert [note in " ".join(result.stderr.split()) for result in (right, other)] == [False, True]


def test_what_is_taken_is_told_by_a_dry_run_too(tmp_path):
    path = listing(tmp_path, ["TS_1", "TS_2"], "TS_1")
    result = made(stack_named(tmp_path, "TS_1.mrc"), "--star", path, "--dry-run", *FBP)
    assert "series TS_1 of all.star is taken" in result.stderr


@pytest.mark.slow
def test_a_session_keeps_the_names_of_its_series(tmp_path):
    """The same reader for --star and for a whole table: series of one file, one called like a number."""
    (tmp_path / "m").mkdir()
    images = bead_images(axis_deg=RIGHT_DEG, shifts=some_shifts(), centre="relion")
    for n, image in enumerate(images):
        write_stack(tmp_path / "m" / f"f{n}.mrc", image[None])
    listing(tmp_path, ["00255", "00256"], "00255")
    made(tmp_path / "all.star", *FBP, "-o", tmp_path)
    assert_beads(tmp_path / "rec_00255.mrc", "relion")
    assert (tmp_path / "rec_00256.mrc").is_file()
    with pytest.raises(AssertionError):
        assert_beads(tmp_path / "rec_00256.mrc", "relion")


# STAR files as they are


def test_values_of_a_star_file_are_text(tmp_path):
    path = tmp_path / "t.star"
    path.write_text(
        "# version 50001\n\ndata_\n\nloop_\n_rlnA #1\n_rlnB #2\n_rlnC #3\n00255 [1,0,1] 'two words'\n1e3 $x None\n"
        '\ndata_\n_rlnD 007\n_rlnE "[a b]"\n\ndata_empty\nloop_\n_rlnF\n'
    )
    first, second, third = read_star(path, 10_000)
    assert [first.text(name) for name in first.names] == [["00255", "1e3"], ["[1,0,1]", "$x"], ["two words", "None"]]
    assert (second.value("rlnD", 0), second.value("rlnE", 0)) == ("007", "[a b]")
    assert (third.block, third.names, len(third)) == ("empty", ("rlnF",), 0)
    assert first.numbers("rlnA").tolist() == [255, 1000]
    with pytest.raises(FileFormatError, match="rlnC holds what is no number"):
        first.numbers("rlnC")
    with pytest.raises(FileFormatError, match="has no column rlnX; found rlnA, rlnB, rlnC"):
        first.text("rlnX")


# Particles


def particles_of(folder, names):
    """One particle for each name, at (its number, 2, 3) in a volume of 10 Å voxels."""
    path = folder / "particles.star"
    write_particles(path, [Particle(n, "a", 1, (i, 2.0, 3.0), (0, 0, 0)) for i, n in enumerate(names)], (8, 8, 8), 10.0)
    return path


@pytest.mark.parametrize(
    ("volume", "names", "row"),
    [
        ("TS_1_rec.mrc", ["TS_11", "TS_1"], 1),
        ("rec_00255.mrc", ["00254", "00255"], 1),
        ("TS_1_10.00Apx.mrc", ["TS_1.tomostar", "TS_2.tomostar"], 0),
        ("Position_1_2_rec.mrc", ["Position_1", "Position_1_2"], 1),
        ("fbp.mrc", ["TS_1"], 0),
    ],
)
def test_the_particles_of_a_volume(volume, names, row, tmp_path):
    found = read_positions(particles_of(tmp_path, names), (8, 8, 8), 10.0, volume)
    np.testing.assert_allclose(found.position_px, [[row, 2, 3]], atol=1e-3)
    assert found.tomogram == names[row]


@pytest.mark.parametrize(
    ("volume", "names", "why"),
    [
        ("Position_1_2_rec.mrc", ["Position_1"], "particles of Position_1, but no particles of Position_1_2_rec"),
        ("Position_1_2_rec.mrc", ["Position_1", "Position_2"], "particles of 2 tomograms"),
        ("TS_11_rec.mrc", ["TS_1"], "no particles of TS_11"),
        ("255_rec.mrc", ["00255"], "particles of 00255"),
        ("fbp.mrc", ["TS_1", "TS_2"], "particles of 2 tomograms"),
    ],
)
def test_particles_of_another_tomogram_are_refused(volume, names, why, tmp_path):
    with pytest.raises(InputError, match=why):
        read_positions(particles_of(tmp_path, names), (8, 8, 8), 10.0, volume)


@pytest.mark.slow
def test_evaluate_refuses_particles_of_another_tomogram(tmp_path):
    write_stack(tmp_path / "Position_1_2_rec.mrc", np.random.default_rng(0).standard_normal((16, 24, 24), np.float32))
    arguments = ["evaluate", tmp_path / "Position_1_2_rec.mrc", "--particles", particles_of(tmp_path, ["Position_1"])]
    result = call(*arguments, "-o", tmp_path / "page")
    assert result.exit_code == 2, result.output
    last = result.stderr.splitlines()[-1]
    assert "holds particles of Position_1, but no particles of Position_1_2" in last
    assert not (tmp_path / "page").exists()


def test_relion_s_lists_of_frames_do_not_stop_the_reader(tmp_path):
    path = tmp_path / "p.star"
    columns = "rlnTomoName", "rlnTomoVisibleFrames", *(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ")
    head = "".join(f"_{name} #{i}\n" for i, name in enumerate(columns, 1))
    path.write_text(f"data_optics\n\nloop_\n_rlnOpticsGroup #1\n1\n\ndata_particles\n\nloop_\n{head}"
                    "00255 [1,1,0] 10 0 -20\n00256 [1,1,1] 0 0 0\n")  # fmt: skip
    found = read_positions(path, (8, 8, 8), 10.0, "00255_rec.mrc")
    assert found.position_px.tolist() == [[2, 4, 5]]
