"""Raw stacks with the alignment files of other programs, through the real command: matter lands in the same voxels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from projects import (
    ANGLES,
    BEADS,
    DARK,
    PIXEL,
    SHAPE,
    VOLUME,
    bead_places,
    make_project,
    write_aretomo,
    write_imod,
    write_relion,
    write_warp,
)
from tiny_series import ANGLES as TINY_ANGLES
from tiny_series import made, noise, run, voxels, write_series

from cryolithe.cli import halves
from cryolithe.evaluation import halves as evaluated

TRUTH = np.array([bead[:3] for bead in BEADS])
FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", VOLUME[0])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project") / "raw")


@pytest.fixture(scope="module")
def imod_volume(project, tmp_path_factory):
    """The series as an IMOD project."""
    _, newst, tilt = write_imod(project)
    output = tmp_path_factory.mktemp("imod") / "v.mrc"
    made(project.stack, "--newst-com", newst, "--tilt-com", tilt, "-o", output, *FBP)
    return voxels(output)


def test_an_imod_project_puts_beads_where_they_are(imod_volume):
    assert imod_volume.shape == VOLUME
    np.testing.assert_allclose(bead_places(imod_volume), TRUTH, atol=0.1)


def same(a, b):
    """The same volume: places within 0.1 px, and values as well as files with few digits allow."""
    np.testing.assert_allclose(bead_places(a), bead_places(b), atol=0.1)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999


@pytest.mark.parametrize(("first", "order", "with_angles"), [(1, 1, False), (0, -1, False), (1, -1, True)])
def test_an_aretomo_project_gives_the_same(first, order, with_angles, project, imod_volume, tmp_path):
    aln = write_aretomo(project, first, order)
    angles = [project.tlt] if with_angles else []
    made(project.stack, *angles, "--aln", aln, "-o", tmp_path / "v.mrc", *FBP)
    same(voxels(tmp_path / "v.mrc"), imod_volume)


@pytest.mark.parametrize("listed", [False, True])
def test_a_relion_project_gives_the_same(listed, project, imod_volume, tmp_path):
    listing, table = write_relion(project)
    thickness = () if listed else ("--thickness", VOLUME[0])  # the listing holds it
    star = listing if listed else table
    made(project.stack, "--star", star, "-o", tmp_path / "v.mrc", *FBP[:4], *thickness)
    same(voxels(tmp_path / "v.mrc"), imod_volume)


def test_a_warp_series_gives_the_same(project, imod_volume, tmp_path):
    made(project.stack, "--warp", write_warp(project), "-o", tmp_path / "v.mrc", *FBP)
    same(voxels(tmp_path / "v.mrc"), imod_volume)


def test_what_was_used_is_told_and_recorded(project, tmp_path):
    aln = write_aretomo(project)
    result = made(project.stack, "--aln", aln, "-o", tmp_path / "v.mrc", *FBP)
    assert "left out: 1, 12 of 20" in result.stderr
    record = json.loads((tmp_path / "v.json").read_text())
    assert record["geometry"]["excluded_sections"] == [section + 1 for section in DARK]
    for name in ("transforms", "tilt_angles_deg", "sections"):
        assert len(record["geometry"][name]) == len(ANGLES) - len(DARK)
    assert set(record["inputs"]) == {"tilts", "aln"}


# What else tilt.com and the options say


def test_identity_transforms_change_no_byte(tmp_path):
    stack, angles = write_series(tmp_path)
    xf = tmp_path / "other.xf"
    xf.write_text("1 0 0 1 0 0\n" * len(TINY_ANGLES))
    made(stack, angles, "-o", tmp_path / "a.mrc", "--method", "fbp", "--bin", 2)
    made(stack, angles, "--xf", xf, "-o", tmp_path / "b.mrc", "--method", "fbp", "--bin", 2)
    np.testing.assert_array_equal(voxels(tmp_path / "a.mrc"), voxels(tmp_path / "b.mrc"))


def test_binning_shift_thickness_and_offset_of_an_imod_project(imod_volume, tmp_path):
    """A stack twice as fine, whose project bins it by 2, thins it and moves what is in it."""
    fine = make_project(tmp_path / "fine", scale=2)
    size = f"SizeToOutputInXandY {VOLUME[2]},{VOLUME[1]}"
    lines = ("IMAGEBINNED 2", "THICKNESS 60", "FULLIMAGE 140 160", "SHIFT 6.0 4.0", "OFFSET 10")
    _, newst, tilt = write_imod(fine, lines, ("BinByFactor 2", size))
    fine.tlt.write_text("".join(f"{angle - 10:.2f}\n" for angle in ANGLES))
    made(fine.stack, "--newst-com", newst, "--tilt-com", tilt, "-o", tmp_path / "v.mrc", *FBP[:4])
    volume = voxels(tmp_path / "v.mrc")
    assert volume.shape == (30, *VOLUME[1:])
    # Unbinned pixels: 6 to the right; 4 up in IMOD's depth, which is down in z.
    moved = np.zeros((VOLUME[0], *VOLUME[1:]), np.float32)
    moved[1:31] = volume
    moved = np.roll(moved, (2, 0, -3), (0, 1, 2))
    np.testing.assert_allclose(bead_places(moved)[:2], TRUTH[:2], atol=0.1)
    record = json.loads((tmp_path / "v.json").read_text())
    assert record["geometry"]["bin"] == 2
    assert record["volume"]["voxel_size_angstrom"] == PIXEL


@pytest.mark.parametrize("orientation", ["xyz", "xzy"])
def test_a_volume_tilted_about_x_is_made_flat(orientation, tmp_path):
    """IMOD's XAXISTILT is positive for matter that rises in its depth, our -z, with the slices, our y."""
    tilted = make_project(tmp_path / "raw", x_tilt_deg=-8.0)
    _, newst, tilt = write_imod(tilted, ("XAXISTILT 8.0",))
    output = tmp_path / "v.mrc"
    orient = ("--orientation", orientation)
    result = made(tilted.stack, "--newst-com", newst, "--tilt-com", tilt, "-o", output, *FBP, *orient)
    assert "turned by -8° about x" in result.stderr
    volume = voxels(output)
    if orientation == "xzy":
        assert volume.shape == (VOLUME[1], VOLUME[0], VOLUME[2])
        volume = volume.transpose(1, 0, 2)[::-1]
    assert volume.shape == VOLUME
    np.testing.assert_allclose(bead_places(volume), TRUTH, atol=0.15)


@pytest.mark.parametrize("depth_px", [-6, 0, 6])
def test_a_shift_in_depth_is_one_of_the_volume_that_was_made_flat(depth_px, tmp_path):
    """IMOD shifts the specimen in the slices that it writes; up in its depth is down in z."""
    tilted = make_project(tmp_path / "raw", x_tilt_deg=-8.0)
    _, newst, tilt = write_imod(tilted, ("XAXISTILT 8.0", f"SHIFT 0.0 {depth_px}"))
    output = tmp_path / "v.mrc"
    made(tilted.stack, "--newst-com", newst, "--tilt-com", tilt, "-o", output, *FBP[:4], "--thickness", VOLUME[0] + 16)
    moved = np.roll(voxels(output), depth_px, 0)[8:-8]
    np.testing.assert_allclose(bead_places(moved), TRUTH, atol=0.15)


def test_the_defocus_that_a_tilt_about_x_changes_is_said_to_be_left_out(project, tmp_path):
    _, newst, tilt = write_imod(project, ("XAXISTILT 8.0",))
    views = [f"{n} {n} {a:g} {a:g} 3000{' 2' * (n == 1)}" for n, a in enumerate(ANGLES, start=1)]
    (tmp_path / "v.defocus").write_text("\n".join(views) + "\n")
    words = ("--newst-com", newst, "--tilt-com", tilt, "-o", tmp_path / "v.mrc", *FBP, "--dry-run")
    ctf = ("--ctf", "flip", "--ctf-file", tmp_path / "v.defocus")
    half_um = VOLUME[1] / 2 * PIXEL * 1e-4 * np.sin(np.deg2rad(8))
    said = made(project.stack, *words, *ctf).stderr
    assert f"by the X-axis tilt of -8° the defocus changes along the tilt axis, too, by {half_um:.2g} µm" in said
    assert "X-axis tilt of" not in made(project.stack, *words).stderr
    _, newst, tilt = write_imod(project)
    assert "along the tilt axis, too" not in made(project.stack, *words, *ctf).stderr


def test_a_series_that_warp_levelled_is_made_flat(tmp_path):
    """LevelAngleY is added to Warp's angles; LevelAngleX turns the specimen about x before."""
    tilted = make_project(tmp_path / "raw", x_tilt_deg=-8.0)
    xml = write_warp(tilted, level_deg=(-8.0, 5.5))
    tilted.tlt.write_text("".join(f"{angle + 5.5}\n" for angle in ANGLES))  # as recorded
    result = made(tilted.stack, "--warp", xml, "-o", tmp_path / "v.mrc", *FBP)
    assert "turned by -8° about x" in result.stderr
    np.testing.assert_allclose(bead_places(voxels(tmp_path / "v.mrc")), TRUTH, atol=0.15)


@pytest.mark.parametrize("centre", ["imod", "relion"])
def test_a_tilt_axis_goes_with_tilt_com_and_with_a_centre(centre, tmp_path):
    """The same turn by either way of preparing images; odd sizes have one middle."""
    images = noise((41, 49))
    stack, angles = write_series(tmp_path, images)
    tilt = tmp_path / "t.com"
    tilt.write_text("$tilt -StandardInput\nTHICKNESS 15\n")
    flags = ("--method", "fbp", "--tilt-axis", 7)
    made(stack, angles, "-o", tmp_path / "a.mrc", *flags, "--thickness", 15)
    made(stack, angles, "-o", tmp_path / "b.mrc", *flags, "--tilt-com", tilt, "--centre", centre)
    a, b = (voxels(tmp_path / f"{name}.mrc") for name in "ab")
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9  # splines of order 3 and 5 on white noise


@pytest.mark.slow
def test_hand_and_mirror(project, imod_volume, tmp_path):
    aln = write_aretomo(project)
    for name, flags in {"a": ("--handedness", "aretomo"), "b": ("--flip-z",), "c": ("--handedness", "warp")}.items():
        made(project.stack, "--aln", aln, "-o", tmp_path / f"{name}.mrc", *FBP, *flags)
        same(voxels(tmp_path / f"{name}.mrc")[::-1], imod_volume)
    made(project.stack, "--aln", aln, "-o", tmp_path / "d.mrc", *FBP, "--handedness", "aretomo", "--flip-z")
    same(voxels(tmp_path / "d.mrc"), imod_volume)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_centre_of_relion_lies_half_a_voxel_further(mirror, tmp_path):
    """An aligned stack: voxel N // 2 is seen at pixel N // 2 in every image."""
    shape = (48, 40)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.exp(-((rows - 24) ** 2 + (columns - 20) ** 2) / 8).astype(np.float32)
    stack, angles = write_series(tmp_path, np.array([image] * len(TINY_ANGLES)))
    flags = (*FBP[:4], "--thickness", 20, *(("--flip-z",) if mirror else ()))
    made(stack, angles, "-o", tmp_path / "v.mrc", *flags, "--centre", "relion")
    volume = voxels(tmp_path / "v.mrc").clip(min=0) ** 2
    grid = np.indices(volume.shape).reshape(3, -1)
    np.testing.assert_allclose((grid * volume.ravel()).sum(1) / volume.sum(), (10, 24, 20), atol=0.1)


def test_files_beside_the_stack_are_offered_and_not_used(project, tmp_path):
    xf, *_ = write_imod(project)
    result = made(project.stack, project.tlt, "-o", tmp_path / "v.mrc", *FBP)
    assert f"--xf {xf}" in result.stderr
    assert json.loads((tmp_path / "v.json").read_text())["geometry"]["transforms"] is None


@pytest.mark.slow
def test_a_changed_alignment_is_another_run(project, tmp_path):
    aln = write_aretomo(project)
    listing = tmp_path / "list.csv"
    listing.write_text(f"tilts,aln,output,method\n{project.stack},{aln},{tmp_path / 'v.mrc'},fbp\n")
    made("--list", listing)
    assert "already done" in made("--list", listing).output
    aln.write_text(aln.read_text() + "\n")
    assert "v.mrc exists" in run("--list", listing).output


# Halves


@pytest.mark.slow
def test_halves_give_two_volumes_their_average_and_where_they_agree(tmp_path):
    images = noise()
    even, angles = write_series(tmp_path, images, name="ts_EVN")
    odd, _ = write_series(tmp_path, images + np.roll(noise(), 7, axis=2), name="ts_ODD")
    result = made("--even", even, "--odd", odd, angles, "--method", "fbp", "--thickness", 12)
    assert "average of the halves" in result.stdout
    a, b, mean, map_ = (voxels(tmp_path / f"ts_rec{name}.mrc") for name in ("_EVN", "_ODD", "", "_confidence"))
    np.testing.assert_allclose(mean, (a + b) / 2, atol=1e-6)
    assert map_.shape == a.shape
    assert 0.1 < map_.mean() < 0.95
    record = json.loads((tmp_path / "ts_rec.json").read_text())
    assert record["confidence"]["mean"] == pytest.approx(map_.mean(), abs=1e-5)
    assert len(record["halves"]) == 2
    assert (tmp_path / "ts_rec_fsc.png").stat().st_size > 1000
    assert "ts_rec.mrc exists" in run("--even", even, "--odd", odd, angles, "--method", "fbp").output


def two_halves(folder):
    images = noise()
    even, angles = write_series(folder, images, name="ts_EVN")
    odd, _ = write_series(folder, 3 + 0.5 * images + np.roll(noise(), 7, axis=2), name="ts_ODD")
    return ["--even", even, "--odd", odd, angles, "--method", "fbp", "--thickness", 12]


def decoded(folder, name):
    scaling = json.loads((folder / f"{name}.json").read_text())["volume"]["scaling"]
    return scaling["offset"] + scaling["step"] * voxels(folder / f"{name}.mrc").astype(float), scaling["step"]


@pytest.mark.slow
def test_halves_of_8_bits_are_averaged_as_densities(tmp_path):
    """Each half has a scale of its own, and so has their average."""
    made(*two_halves(tmp_path), "-o", tmp_path / "whole.mrc")
    made(*two_halves(tmp_path), "--dtype", "int8", "-o", tmp_path / "small.mrc")
    assert voxels(tmp_path / "small.mrc").dtype == np.int8
    (a, step_a), (b, step_b), (mean, step) = (decoded(tmp_path, f"small{half}") for half in ("_EVN", "_ODD", ""))
    assert step_a != pytest.approx(step_b, rel=0.01)
    np.testing.assert_allclose(mean, (a + b) / 2, atol=0.51 * step)
    np.testing.assert_allclose(mean, voxels(tmp_path / "whole.mrc"), atol=0.6 * step + (step_a + step_b) / 4)
    records = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "small")]
    for found, expected in zip(*(record["fsc"]["total"][1:] for record in records[::-1]), strict=True):
        assert found == pytest.approx(expected, abs=0.01)
    assert records[1]["confidence"]["mean"] == pytest.approx(records[0]["confidence"]["mean"], abs=0.01)
    for half in ("_EVN", "_ODD"):  # a copy without its record: its label tells the scale, too
        path = tmp_path / f"small{half}.mrc"
        told = evaluated.open_half(path)
        path.with_suffix(".json").unlink()
        found = evaluated.open_half(path)
        assert (found.offset, found.step) == pytest.approx((told.offset, told.step), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_comparing_halves_in_little_memory_changes_nothing(dtype, tmp_path, monkeypatch):
    """The spectra lie in a file, the map is made of blocks."""
    made(*two_halves(tmp_path), "--dtype", dtype, "-o", tmp_path / "a.mrc")
    budgets, blocks = [], []
    compare, slabs = halves.reconstruct_halves, evaluated.agreement_slabs

    def little(*arguments):
        budgets.append(arguments[-1])
        compare(*arguments[:-1], 30_000)

    def count(*arguments):
        for one in slabs(*arguments):
            blocks.append(one[1].shape)
            yield one

    monkeypatch.setattr(halves, "reconstruct_halves", little)
    monkeypatch.setattr(evaluated, "agreement_slabs", count)
    made(*two_halves(tmp_path), "--dtype", dtype, "--max-memory", 1.5, "-o", tmp_path / "b.mrc")
    assert budgets == [1.5e9]
    assert len(blocks) > 2
    for name in ("", "_confidence"):
        assert (tmp_path / f"a{name}.mrc").read_bytes() == (tmp_path / f"b{name}.mrc").read_bytes()
    records = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("a", "b")]
    assert records[0]["fsc"] == records[1]["fsc"]
    assert {**records[0]["confidence"], "path": ""} == {**records[1]["confidence"], "path": ""}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("tmp", "."))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--even", "ts.mrc", "ts.tlt"), "--even needs --odd too"),
        (("--even", "ts.mrc", "--odd", "ts.mrc", "ts.tlt"), "are the same images"),
        (("--even", "ts.mrc", "--odd", "small.mrc", "ts.tlt"), "give the halves of one series"),
        (("--even", "ts.mrc", "--odd", "small.mrc", "ts.mrc", "ts.tlt"), "give ANGLES alone"),
    ],
)
def test_halves_that_are_none(flags, why, tmp_path, monkeypatch):
    write_series(tmp_path)
    write_series(tmp_path, noise((30, SHAPE[1])), name="small")
    monkeypatch.chdir(tmp_path)
    result = run(*flags)
    assert result.exit_code == 2
    assert why in result.output
    assert not list(tmp_path.glob("*_rec*"))


def test_a_bad_half_is_found_before_the_other_is_worked_on(tmp_path):
    even, angles = write_series(tmp_path, name="a")
    bad = noise()
    bad[2, 3, 4] = np.nan
    odd, _ = write_series(tmp_path, bad, name="b")
    result = run("--even", even, "--odd", odd, angles, "--method", "fbp")
    assert result.exit_code == 2
    assert "1 NaN or Inf pixels in tilt 3" in result.output
    assert not list(tmp_path.glob("*_rec*"))
