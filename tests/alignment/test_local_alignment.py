"""Local alignments of other programs, through the real command: what they bent comes out straight."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from bent_projects import (
    AXIS_DEG,
    DARK,
    PIXEL,
    VOLUME,
    N,
    aretomo_place,
    errors,
    imod_place,
    make_bent,
    relion_place,
    straight_place,
    warp_place,
    write_aretomo,
    write_imod,
    write_relion,
    write_warp,
)
from command import call, good
from plain_mrc import new_mrc
from projects import turn
from tiny_series import made, refused, run, voxels, write_model

FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", VOLUME[0])
STRAIGHT_PX, BENT_PX = 0.2, 0.7
NO_LOCAL = "--no-local-alignment"


def aretomo(folder, scale=1):
    project = make_bent(folder, aretomo_place, scale)
    return project, ("--aln", write_aretomo(project))


def relion(kind):
    def write(folder, scale=1):
        project = make_bent(folder, relion_place(kind), scale)
        return project, ("--star", write_relion(project, kind))

    return write


def warp(moves, warps):
    def write(folder, scale=1):
        project = make_bent(folder, warp_place(moves, warps), scale)
        return project, ("--warp", write_warp(project, moves, warps))

    return write


def imod(folder, scale=1):
    project = make_bent(folder, imod_place, scale)
    newst, tilt = write_imod(project)
    return project, ("--newst-com", newst, "--tilt-com", tilt)


PROJECTS = {
    "AreTomo": aretomo,
    "RELION linear": relion("linear"),
    "RELION spline": relion("spline"),
    "RELION Fourier": relion("Fourier"),
    "Warp movement": warp(True, False),
    "Warp volume": warp(False, True),
    "Warp both": warp(True, True),
    "IMOD": imod,
}
FILES = {"AreTomo": "ts.aln", "RELION": "ts.star", "Warp": "ts.xml", "IMOD": "tslocal.xf"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The projects, each made once; a test that changes files makes its own."""
    made_so_far = {}

    def get(program):
        if program not in made_so_far:
            made_so_far[program] = PROJECTS[program](tmp_path_factory.mktemp("bent") / "raw")
        return made_so_far[program]

    return get


def off_px(volume):
    return np.abs(errors(volume)).max()


def local_record(path):
    return json.loads(path.with_suffix(".json").read_text())["geometry"]["local_alignment"]


@pytest.mark.slow
@pytest.mark.parametrize("program", PROJECTS)
def test_what_was_bent_comes_out_straight(program, written, tmp_path):
    project, flags = written(program)
    result = made(project.stack, *flags, "-o", tmp_path / "v.mrc", *FBP)
    assert off_px(voxels(tmp_path / "v.mrc")) < STRAIGHT_PX
    name = FILES[program.split()[0]]
    used = local_record(tmp_path / "v.mrc")
    assert used["file"] == name
    assert len(used["sections"]) == N - len(DARK)
    assert 2 < used["largest_shift_px"] < 10
    assert f"local shifts of up to {used['largest_shift_px']:.2f} pixels undone ({name})" in result.stderr
    assert "not applied" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("program", PROJECTS)
def test_without_the_local_part_it_is_off(program, written, tmp_path):
    project, flags = written(program)
    result = made(project.stack, *flags, "-o", tmp_path / "w.mrc", *FBP, NO_LOCAL)
    assert off_px(voxels(tmp_path / "w.mrc")) > BENT_PX
    assert local_record(tmp_path / "w.mrc") is None
    assert "are left out (--no-local-alignment)" in result.stderr


# What does not change


def empty(program, project, gain):
    """The same files with fields times ``gain``, or (None) without any."""
    if program == "AreTomo":
        aln = write_aretomo(project, None if gain is None else np.zeros((N, 16, 2)))
        if gain is None:
            aln.write_text(
                aln.read_text().partition("# Local Alignment")[0].replace("NumPatches = 17", "NumPatches = 0")
            )
        return "--aln", aln
    if program == "RELION":
        star = write_relion(project, "spline", gain or 0.0, told=gain is not None)
        if gain is None:
            table = star.with_name("ts.star")
            lines = [line for line in table.read_text().splitlines() if "Deformation" not in line]
            table.write_text("\n".join(line.partition(" [")[0] for line in lines) + "\n")
        return "--star", star
    if program == "Warp":
        return "--warp", write_warp(project, gain is not None, gain is not None, gain or 0.0)
    newst, tilt = write_imod(project, gain=gain or 0.0)
    if gain is None:
        tilt.write_text(tilt.read_text().replace("LOCALFILE tslocal.xf\n", ""))
    return "--newst-com", newst, "--tilt-com", tilt


@pytest.mark.slow
@pytest.mark.parametrize("program", FILES)
def test_a_field_of_zeros_changes_no_byte(program, tmp_path):
    project = make_bent(tmp_path / "raw", straight_place)
    for name, gain in (("none", None), ("zero", 0.0)):
        made(project.stack, *empty(program, project, gain), "-o", tmp_path / f"{name}.mrc", *FBP)
    np.testing.assert_array_equal(voxels(tmp_path / "none.mrc"), voxels(tmp_path / "zero.mrc"))
    assert local_record(tmp_path / "zero.mrc") is None


@pytest.mark.slow
def test_a_constant_field_is_a_global_shift(tmp_path):
    """Patches that all move alike, and images that move by as much."""
    project = make_bent(tmp_path / "raw", straight_place)
    step, zeros = np.array([1.25, -0.75]), np.zeros((N, 16, 2))
    made(project.stack, "--aln", write_aretomo(project, zeros + step), "-o", tmp_path / "a.mrc", *FBP)
    moved = replace(project, shifts=project.shifts + step)
    made(project.stack, "--aln", write_aretomo(moved, zeros), "-o", tmp_path / "b.mrc", *FBP)
    a, b = (voxels(tmp_path / f"{name}.mrc") for name in "ab")
    assert np.abs(a - b).max() < 1e-3 * np.abs(a).max()


@pytest.mark.slow
@pytest.mark.parametrize("program", ["AreTomo", "RELION linear", "Warp both", "IMOD"])
def test_binning_keeps_it_straight(program, tmp_path):
    """A stack twice as fine, binned by 2: the field's lengths are pixels of the fine one, or Å."""
    project, flags = PROJECTS[program](tmp_path / "raw", 2)
    made(project.stack, *flags, "-o", tmp_path / "v.mrc", *FBP, "--bin", 2)
    assert off_px(voxels(tmp_path / "v.mrc")) < STRAIGHT_PX


@pytest.mark.slow
@pytest.mark.parametrize("lines", [(), ("IMAGEBINNED 2", "LOCALSCALE 1.0"), ("IMAGEBINNED 2", "LOCALSCALE 0.5")])
def test_lengths_of_imod_are_scaled(lines, tmp_path):
    """By pixel sizes, of a stack finer than the one that was aligned; by LOCALSCALE, to pixels of the aligned stack."""
    pixel = PIXEL if lines[-1:] == ("LOCALSCALE 1.0",) else PIXEL / 2
    project = make_bent(tmp_path / "raw", imod_place, 2 if lines else 4)
    newst, tilt = write_imod(project, lines, pixel)
    newst.write_text(f"{newst.read_text()}BinByFactor {project.scale}\n")
    made(project.stack, "--newst-com", newst, "--tilt-com", tilt, "-o", tmp_path / "v.mrc", *FBP)
    assert off_px(voxels(tmp_path / "v.mrc")) < STRAIGHT_PX


@pytest.mark.slow
def test_a_stack_coarser_than_the_one_that_relion_aligned(tmp_path):
    """A deformation's lengths are pixels that RELION aligned; where N // 2 of coarser ones lies is another matter."""
    fine = make_bent(tmp_path / "fine", relion_place("linear"), 2)
    star = write_relion(fine, "linear")
    coarse = make_bent(tmp_path / "coarse", relion_place("linear"))
    made(coarse.stack, "--star", star, "-o", tmp_path / "v.mrc", *FBP)
    off = errors(voxels(tmp_path / "v.mrc"))
    assert np.abs(off - off.mean(0)).max() < STRAIGHT_PX


# Every method, halves, hands


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sirt", "network"])
@pytest.mark.parametrize("program", ["AreTomo", "IMOD"])
def test_other_methods_see_the_same(program, method, written, tmp_path):
    """The volume of bent images is that of straight ones, whatever makes it."""
    project, flags = written(program)
    straight = make_bent(tmp_path / "straight", straight_place)
    how = ["--method", method, *FBP[2:]]
    how += ["--iterations", 8] if method == "sirt" else ["--model", write_model(tmp_path / "m.safetensors")]
    made(project.stack, *flags, "-o", tmp_path / "v.mrc", *how)
    made(project.stack, *flags, "-o", tmp_path / "w.mrc", *how, NO_LOCAL)
    made(straight.stack, "--aln", write_aretomo(straight, np.zeros((N, 16, 2))), "-o", tmp_path / "s.mrc", *how)
    bent, off, wanted = (voxels(tmp_path / f"{name}.mrc").ravel() for name in "vws")
    assert np.corrcoef(bent, wanted)[0, 1] > 0.97
    assert np.corrcoef(off, wanted)[0, 1] < 0.93


@pytest.mark.slow
def test_slabs_of_any_height_give_the_same(written, monkeypatch, tmp_path):
    """Also where shifts change by depth, band by band of rows."""
    project, flags = written("IMOD")
    model = ("--method", "network", *FBP[2:], "--model", write_model(tmp_path / "m.safetensors"))
    model += ("--wedge-trust", "none", "--fbp-share", 0)
    for rows in (128, 20):
        monkeypatch.setattr("cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS", rows)
        for name, how in (("f", FBP), ("n", model)):
            made(project.stack, *flags, "-o", tmp_path / f"{name}{rows}.mrc", *how)
    for name in "fn":
        a, b = (voxels(tmp_path / f"{name}{rows}.mrc") for rows in (128, 20))
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())


@pytest.mark.slow
def test_both_halves_are_straight(written, tmp_path):
    project, flags = written("AreTomo")
    other = tmp_path / "odd.mrc"
    images = voxels(project.stack)
    noise = np.random.default_rng(1).standard_normal(images.shape) * 0.05 * images.std()
    with new_mrc(other, (images + noise).astype(np.float32)) as file:
        file.set_image_stack()
        file.voxel_size = PIXEL
    made("--even", project.stack, "--odd", other, *flags, "-o", tmp_path / "v.mrc", *FBP)
    for name in ("v_EVN", "v_ODD", "v"):
        assert off_px(voxels(tmp_path / f"{name}.mrc")) < STRAIGHT_PX


@pytest.mark.slow
def test_z_may_run_the_other_way(written, tmp_path):
    project, flags = written("IMOD")
    made(project.stack, *flags, "-o", tmp_path / "v.mrc", *FBP, "--flip-z")
    assert off_px(voxels(tmp_path / "v.mrc")[::-1]) < STRAIGHT_PX


@pytest.mark.slow
def test_areas_are_counted_in_the_volume_that_is_tilted_about_x(tmp_path):
    project = make_bent(tmp_path / "raw", partial(imod_place, x_tilt_deg=-6.0))
    newst, tilt = write_imod(project, ("XAXISTILT 6.0",))
    made(project.stack, "--newst-com", newst, "--tilt-com", tilt, "-o", tmp_path / "v.mrc", *FBP)
    assert off_px(voxels(tmp_path / "v.mrc")) < STRAIGHT_PX


@pytest.mark.slow
def test_a_specimen_that_warp_levels_is_warped_before(tmp_path):
    project = make_bent(tmp_path / "raw", warp_place(True, True, x_tilt_deg=-9.0))
    xml = write_warp(project, True, True)
    xml.write_text(xml.read_text().replace("<TiltSeries ", '<TiltSeries LevelAngleX="-9" '))
    made(project.stack, "--warp", xml, "-o", tmp_path / "v.mrc", *FBP)
    assert off_px(voxels(tmp_path / "v.mrc")) < STRAIGHT_PX


@pytest.mark.slow
def test_an_aligned_stack_is_bent_back_too(tmp_path):
    """tilt.com of an aligned stack: no transform, the local part alone."""

    def place(number, point, shift):
        return turn(-AXIS_DEG) @ imod_place(number, point, np.zeros(2))

    project = make_bent(tmp_path / "raw", place)
    tilt = write_imod(project)[1]
    made(project.stack, "--tilt-com", tilt, "-o", tmp_path / "v.mrc", *FBP)
    assert off_px(voxels(tmp_path / "v.mrc")) < STRAIGHT_PX


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1])
def test_rows_of_aretomo_name_their_images(order, tmp_path):
    """Local rows count the rows of the global part, in whatever order these stand."""
    project = make_bent(tmp_path / "raw", aretomo_place)
    made(project.stack, "--aln", write_aretomo(project, order=order), "-o", tmp_path / "v.mrc", *FBP)
    assert off_px(voxels(tmp_path / "v.mrc")) < STRAIGHT_PX


# What cannot be read


def damage(program, project):
    """Files with a local part that cannot be read, and what is told of it."""
    if program == "AreTomo":
        aln = write_aretomo(project)
        aln.write_text(aln.read_text().rstrip().rpartition("\n")[0] + "\n 3 4 nan 1.0 1.0 1.0 1.0\n")
        return ("--aln", aln), "local (patch) shifts in ts.aln are not applied: line"
    if program == "RELION":
        return ("--star", write_relion(project, "spline", told=False)), "missing; give the table that lists the series"
    if program == "Warp":
        xml = write_warp(project, False, True, attributes=False)
        return ("--warp", xml), "GridVolumeWarp needs VolumeDimensionsAngstrom"
    newst, tilt = write_imod(project)
    local = project.folder / "tslocal.xf"
    local.write_text("\n".join(local.read_text().splitlines()[:-3]))
    told = "local alignments in tslocal.xf are not applied: expected 8 numbers"
    return ("--newst-com", newst, "--tilt-com", tilt), told


@pytest.mark.parametrize("program", FILES)
def test_what_cannot_be_read_is_told_and_left(program, tmp_path):
    project = make_bent(tmp_path / "raw", straight_place)
    flags, told = damage(program, project)
    result = made(project.stack, *flags, "-o", tmp_path / "v.mrc", *FBP)
    assert told in result.stderr
    assert "as bad" not in result.stderr
    assert off_px(voxels(tmp_path / "v.mrc")) < STRAIGHT_PX
    assert local_record(tmp_path / "v.mrc") is None


@pytest.mark.parametrize("rows", [None, 0, 17, 17 * (N - len(DARK)) - 1, -0.5], ids=str)
@pytest.mark.parametrize("old", [False, True])
def test_an_aln_of_which_patches_are_missing_is_refused(rows, old, tmp_path):
    """Cut at any line, or (a half) within the last one; None for before the local part's own title."""
    project = make_bent(tmp_path / "raw", straight_place)
    aln = write_aretomo(project)
    if old:
        first, _, _, *more = aln.read_text().splitlines(keepends=True)
        aln.write_text("".join([first, f"# {N} 17\n", *more]))
    head, title, local = aln.read_text().partition("# Local Alignment\n")
    lines, wanted = local.splitlines(keepends=True), 17 * (N - len(DARK))
    kept = [] if rows is None else lines[:rows] if rows != -0.5 else [*lines[:-1], lines[-1][:-6]]
    aln.write_text(head + (title if rows is not None else "") + "".join(kept))
    missing = 1 if rows == -0.5 else wanted - len(kept)
    arguments = (project.stack, "--aln", aln, "-o", tmp_path / "v.mrc", *FBP)
    refused(tmp_path, arguments, "tells of 17 patches", f"{missing} are missing; copy the file again")
    told = (f"# {N} 17", f"# {N} 0") if old else ("NumPatches = 17", "NumPatches = 0")
    aln.write_text(head.replace(*told))
    assert "patches" not in made(*arguments).stderr


def test_shifts_out_of_the_image_are_refused(tmp_path):
    project = make_bent(tmp_path / "raw", straight_place)
    aln = write_aretomo(project, np.full((N, 16, 2), 70.0))
    arguments = (project.stack, "--aln", aln, "-o", tmp_path / "v.mrc", *FBP)
    refused(tmp_path, arguments, "ts.aln moves parts of images by up to 99 pixels", "--no-local-alignment")
    made(*arguments, NO_LOCAL)


def test_local_shifts_that_no_series_has_are_warned_of(tmp_path):
    """Those of a file in other pixels; and where no patch is trusted that is told."""
    project = make_bent(tmp_path / "raw", straight_place)
    aln = write_aretomo(project, np.full((N, 16, 2), 14.0))
    arguments = (project.stack, "--aln", aln, "--overwrite", "-o", tmp_path / "v.mrc", *FBP)
    warned = "Warning: ts.aln moves parts of images by up to 20 pixels of"
    assert warned in made(*arguments).stderr
    assert "moves parts" not in made(*arguments, NO_LOCAL).stderr
    text = aln.read_text()
    start = text.index("# Local Alignment")
    bad = [line if line.startswith("#") else line.rpartition(" ")[0] + " 0.0" for line in text[start:].splitlines()]
    aln.write_text(text[:start] + "\n".join(bad) + "\n")
    assert "ts.aln marks all of its" in made(*arguments).stderr


# Records, sessions, resuming


@pytest.mark.parametrize("program", PROJECTS)
def test_info_tells_how_large_local_shifts_are(program, tmp_path):
    """As large as the reconstruction finds them: in pixels, or in Å where the file alone does not tell pixels."""
    project, words = PROJECTS[program](tmp_path / "raw")
    if program == "IMOD":
        tilt = words[-1]
        tilt.write_text(tilt.read_text() + "FULLIMAGE 132 120\n")
    made(project.stack, *words, *FBP, "-o", tmp_path / "out.mrc")
    wanted = json.loads((tmp_path / "out.json").read_text())["geometry"]["local_alignment"]["largest_shift_px"]
    result = good("info", words[-1], "--json")
    (answer,) = json.loads(result.stdout)
    told = answer["local_shifts"]
    if "RELION" in program:
        (alone,) = json.loads(call("info", project.folder / "ts.star", "--json").stdout)
        told = told["ts.star"]
        assert alone["local_shifts"] == told
    assert told["images"] == N - len(DARK)
    largest = told["largest_px"] if "Warp" not in program else told["largest_angstrom"] / PIXEL
    assert largest == pytest.approx(wanted, rel=0.15)
    assert "up to" in call("info", words[-1]).stdout


def test_info_tells_what_it_lacks_for_the_size_of_local_shifts(tmp_path):
    project = make_bent(tmp_path / "raw", straight_place)
    table = write_relion(project, "spline", told=False).with_name("ts.star")
    _, tilt = write_imod(project)
    areas = call("info", project.folder / "tslocal.xf")
    assert "4 x 3" in areas.output
    for path, words in ((table, "needs the table that lists the series"), (tilt, "angles and distortion apart")):
        told = good("info", path)
        assert words in " ".join(told.output.split())
    write_relion(project, "spline")
    project.stack.unlink()
    assert "spline, 4 x 3; how large" in call("info", table).output
    (project.folder / "tslocal.xf").write_text("nothing of this kind\n")
    told = good("info", tilt)
    assert "cannot be read, or holds none" in told.output


@pytest.mark.slow
def test_a_row_of_a_list_can_leave_the_local_part_out(tmp_path):
    project = make_bent(tmp_path / "raw", aretomo_place)
    write_aretomo(project)
    (project.folder / "list.csv").write_text("tilts,aln,local_alignment\nts.mrc,ts.aln,false\n")
    made("--list", project.folder / "list.csv", "-o", tmp_path / "out", *FBP)
    assert off_px(voxels(tmp_path / "out" / "ts_rec.mrc")) > BENT_PX


@pytest.mark.parametrize("change", ["file", "flag"])
def test_an_unfinished_run_with_another_field_is_not_taken_up(change, tmp_path, monkeypatch):
    project = make_bent(tmp_path / "raw", straight_place)
    newst, tilt = write_imod(project)
    arguments = [project.stack, "--newst-com", newst, "--tilt-com", tilt, "-o", tmp_path / "v.mrc", *FBP]
    with monkeypatch.context() as patch:

        def stop(*_, **__):
            raise KeyboardInterrupt

        patch.setattr("cryolithe.formats.VolumeWriter.write_rows", stop)
        run(*arguments)
    assert (tmp_path / "v.mrc.partial").is_dir()
    if change == "file":
        write_imod(project, gain=0.5)
        refused(tmp_path, arguments, "holds an unfinished run with another ", "LOCALFILE file")
    else:
        arguments.append(NO_LOCAL)
        refused(tmp_path, arguments, "holds an unfinished run with another local-alignment")
