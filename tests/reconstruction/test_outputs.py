"""What a run hands out: types, orders, OME-Zarr, labels; crashes at the very end; the run's own check of itself."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import signal
import sys
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from PIL import Image
from plain_mrc import new_mrc
from tiny_series import ANGLES, SHAPE, bead_images, made, noise, refused, run, voxels, write_model, write_series

import cryolithe
from cryolithe.formats import RunningStatistics, VolumeWriter, read_mrc
from cryolithe.formats.volumes import ome_zarr
from cryolithe.reconstruction.evidence import selfcheck
from cryolithe.reconstruction.output import converting, outputs

FBP = ("--method", "fbp", "--thickness", 24)


def beads(shape=SHAPE, count=40):
    """Images of many beads with a little noise: enough detail to tell where a volume lies."""
    random = np.random.default_rng(3)
    places = random.uniform(-1, 1, (count, 3)) * (shape[1] / 2 - 4, shape[0] / 2 - 3, 8)
    images = sum(
        bead_images(shape, place) * weight for place, weight in zip(places, 1 + random.random(count), strict=True)
    )
    return (images + 0.05 * random.standard_normal(images.shape)).astype(np.float32)


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path, beads())


def record(path):
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


# Types and orders


def gold(folder):
    """Noise with one bead that a volume has far beyond ten deviations."""
    images = np.random.default_rng(0).standard_normal((len(ANGLES), 40, 36)).astype(np.float32)
    images[:, 19:22, 17:20] -= 60
    return write_series(folder, images)


@pytest.mark.parametrize("kind", ["mrc", "ome-zarr", "xzy", "halves", "library"])
def test_voxels_that_bytes_cut_off_are_told(kind, tmp_path):
    stack, angles = gold(tmp_path)
    words = {"mrc": (), "ome-zarr": ("--format", "ome-zarr"), "xzy": ("--orientation", "xzy")}
    target = tmp_path / ("v.zarr" if kind == "ome-zarr" else "v.mrc")
    if kind == "library":
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = cryolithe.fbp(read_mrc(stack).data, ANGLES, thickness=8, dtype="int8")
        told, scaling = "\n".join(f"Warning: {one.message}" for one in caught), found.record["volume"]["scaling"]
    elif kind == "halves":
        odd = tmp_path / "odd.mrc"
        images = read_mrc(stack).data
        with new_mrc(odd, images + np.random.default_rng(1).standard_normal(images.shape).astype(np.float32)):
            pass
        result = made("--even", stack, "--odd", odd, angles, *FBP, "--dtype", "int8", "-o", target)
        told, scaling = result.stderr, record(target)["volume"]["scaling"]
        assert "voxels of v.mrc (" in told
    else:
        result = made(stack, angles, *FBP, "--dtype", "int8", "-o", target, *words[kind])
        told, scaling = result.stderr, record(target)["volume"]["scaling"]
        assert any("cut off at the limits of int8" in one for one in record(target)["warnings"])
    low, high = scaling["limits"]
    assert scaling["cut_voxels"] > 8
    assert f"Warning: {scaling['cut_voxels']} voxels of " in told
    assert f"densities of {low:.4g} and {high:.4g}" in told
    assert low == pytest.approx(scaling["offset"] - 127 * scaling["step"])


def test_noise_is_not_cut_off(tmp_path):
    images = np.random.default_rng(0).standard_normal((len(ANGLES), 40, 36)).astype(np.float32)
    assert "cut off" not in made(*write_series(tmp_path, images), *FBP, "--dtype", "int8").stderr
    assert record(tmp_path / "ts_rec.mrc")["volume"]["scaling"]["cut_voxels"] == 0


def test_bytes_are_scaled_as_the_record_says(series, tmp_path):
    made(*series, *FBP, "-o", tmp_path / "f.mrc")
    made(*series, *FBP, "-o", tmp_path / "b.mrc", "--dtype", "int8")
    exact, stored = voxels(tmp_path / "f.mrc"), voxels(tmp_path / "b.mrc")
    assert stored.dtype == np.int8
    scaling = record(tmp_path / "b.mrc")["volume"]["scaling"]
    density = scaling["offset"] + scaling["step"] * stored.astype(np.float64)
    inside = np.abs(stored) < 127
    assert np.abs(density - exact)[inside].max() <= 0.501 * scaling["step"]
    assert inside.mean() > 0.99
    assert (np.abs(exact - scaling["offset"])[~inside] > 126 * scaling["step"]).all()
    assert scaling["cut_voxels"] == (np.abs(exact - scaling["offset"]) > 127.5 * scaling["step"]).sum()
    with mrcfile.open(tmp_path / "b.mrc") as file:
        assert file.header.mode == 0
        assert float(file.header.dmean) == pytest.approx(stored.mean(dtype=float), abs=1e-4)
        assert file.get_labels()[-1].startswith("CryoLithe int8: density = ")


def test_imods_order_becomes_ours_by_a_rotation(series, tmp_path):
    made(*series, *FBP, "-o", tmp_path / "ours.mrc")
    made(*series, *FBP, "-o", tmp_path / "imod.mrc", "--orientation", "xzy")
    ours, imod = voxels(tmp_path / "ours.mrc"), voxels(tmp_path / "imod.mrc")
    assert imod.shape == (SHAPE[0], 24, SHAPE[1])
    # trimvol -rx turns by -90 degrees about x: (z, y) -> (y, -z).
    assert (np.rot90(imod, axes=(0, 1)) == ours).all()
    with mrcfile.open(tmp_path / "imod.mrc") as file:
        assert file.voxel_size.tolist() == (5, 5, 5)
        assert int(file.header.mz) == SHAPE[0]


def test_labels_of_the_stack_are_kept_and_ours_is_the_last(series, tmp_path):
    stack, angles = series
    with mrcfile.open(stack, mode="r+") as file:
        for number in range(9):
            file.add_label(f"label {number}")
    before = read_mrc(stack).labels
    assert len(before) == 10
    made(stack, angles, *FBP)
    labels = read_mrc(tmp_path / "ts_rec.mrc").labels
    assert labels[:9] == before[1:]
    assert labels[9].startswith("CryoLithe ")


@pytest.mark.slow
def test_preview(series, tmp_path):
    made(*series, *FBP, "--preview", "--orientation", "xzy")
    assert (tmp_path / "ts_rec.png").read_bytes().startswith(b"\x89PNG")


def test_the_drawing_of_others_is_not_drawn_over(series, tmp_path):
    theirs = tmp_path / "ts_rec.png"
    theirs.write_bytes(b"\x89PNG of a figure")
    refused(tmp_path, (*series, *FBP, "--preview"), "exists and is no preview of ours", "leave out --preview")
    assert theirs.read_bytes() == b"\x89PNG of a figure"
    made(*series, *FBP)
    assert theirs.read_bytes() == b"\x89PNG of a figure"
    made(*series, *FBP, "--preview", "--overwrite")
    assert theirs.read_bytes() != b"\x89PNG of a figure"


@pytest.mark.slow
def test_a_preview_does_not_outlive_its_volume(series, tmp_path):
    preview, model = tmp_path / "ts_rec.png", write_model(tmp_path / "tiny.safetensors")
    network = ("--model", model, "--precision", "fp32", "--contrast", "dark")
    made(*series, *network, "--thickness", 24, "--preview")
    made(*series, *FBP, "--overwrite")
    assert not preview.exists()
    made(*series, *network, "--thickness", 24, "--preview", "--overwrite")
    made(*series, *network, "--thickness", 16, "--overwrite")
    assert not preview.exists()
    made(*series, *FBP, "--overwrite", "--preview")
    assert preview.exists()
    # A crash between volume and record is mended by the next run, which takes the old preview away, too.
    drawn = preview.read_bytes()
    partial = tmp_path / "ts_rec.mrc.partial"
    real = outputs._place_beside
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(outputs, "_place_beside", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert run(*series, *FBP, "--filter", "hann", "--overwrite").exit_code == 130
    assert preview.read_bytes() == drawn
    assert partial.exists()
    assert outputs._place_beside is real
    made(*series, *FBP, "--filter", "hann", "--overwrite")
    assert not preview.exists()


@pytest.mark.slow
def test_what_belongs_to_a_volume_does_not_lie_beside_an_average_nor_the_other_way_round(series, tmp_path):
    stack, angles = series
    noise = np.random.default_rng(1).standard_normal((2, *beads().shape)).astype(np.float32) * beads().std()
    halves = [write_series(tmp_path, beads() + noise[n], name=f"ts_{name}")[0] for n, name in enumerate(("EVN", "ODD"))]
    model, output = write_model(tmp_path / "tiny.safetensors"), tmp_path / "ts_rec.mrc"
    network = ("--model", model, "--precision", "fp32", "--contrast", "dark", "--thickness", 24, "--confidence")
    average = ("--even", halves[0], "--odd", halves[1], angles, *FBP, "-o", output, "--overwrite")
    beside = {f"ts_rec_{kind}.mrc" for kind in ("confidence", "error", "unsupported")} | {"ts_rec.png"}
    of_average = {"ts_rec_confidence.mrc", "ts_rec_fsc.png"}

    def there():
        return {path.name for path in tmp_path.glob("ts_rec*")} & (beside | of_average)

    made(stack, angles, *network, "--preview")
    assert there() == beside
    made(*average)
    assert there() == of_average
    made(stack, angles, *FBP, "--overwrite")
    assert there() == set()


def test_a_drawing_of_somebody_else_stays(series, tmp_path):
    made(*series, *FBP)
    Image.new("L", (8, 8)).save(tmp_path / "ts_rec.png")
    drawn = (tmp_path / "ts_rec.png").read_bytes()
    made(*series, *FBP, "--overwrite")
    (tmp_path / "ts_rec.png").write_bytes(drawn[:20])
    made(*series, *FBP, "--overwrite")
    assert (tmp_path / "ts_rec.png").read_bytes() == drawn[:20]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_ome_zarr(dtype, series, tmp_path):
    zarr = pytest.importorskip("zarr")
    models = pytest.importorskip("ome_zarr_models.v04.multiscales")
    stack, angles = write_series(tmp_path, beads((45, 131)), name="wide")
    made(stack, angles, *FBP, "-o", tmp_path / "v.mrc", "--dtype", dtype)
    made(stack, angles, *FBP, "--dtype", dtype, "--format", "ome-zarr", "--preview")
    path = tmp_path / "wide_rec.zarr"
    group = zarr.open_group(str(path), mode="r")
    (given,) = group.attrs["multiscales"]
    multiscale = models.Multiscale.model_validate(given)  # the specification as another project's models
    assert [axis.unit for axis in multiscale.axes] == ["angstrom"] * 3
    expected = voxels(tmp_path / "v.mrc")
    assert (group["0"][:] == expected).all()
    assert group["0"].dtype == expected.dtype
    assert group["1"].shape == (12, 22, 65)
    block = expected[4:6, 10:12, 100:102].astype(np.float32).mean()
    assert float(group["1"][2, 5, 50]) == pytest.approx(
        float(block), abs=0.5 if dtype == "int8" else 2e-3 * float(abs(expected).max())
    )
    scales = [d.coordinateTransformations[0].scale for d in multiscale.datasets]
    assert scales == [[5.0] * 3, [10.0] * 3, [20.0] * 3]
    # The first voxel of a level is the middle of those that it was made of.
    assert multiscale.datasets[1].coordinateTransformations[1].translation == [2.5] * 3
    assert "exists" in run(stack, angles, *FBP, "--dtype", dtype, "--format", "ome-zarr").stderr
    made(stack, angles, *FBP, "--dtype", dtype, "--format", "ome-zarr", "--overwrite")
    assert (zarr.open_group(str(path), mode="r")["0"][:] == expected).all()


# Crashes at the end


class PowerLoss(BaseException):
    """Nothing can be done after it."""


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("step", range(1, 5))
def test_a_crash_at_any_step_of_the_end_loses_nothing(step, overwrite, series, tmp_path, monkeypatch):
    """`sync` is called between all steps that change names; the power goes off at each of them in turn."""
    output = tmp_path / "v.mrc"
    made(*series, *FBP, "-o", output)
    expected = output.read_bytes()
    flags = ("--overwrite",) if overwrite else ()
    if overwrite:
        made(*series, *FBP, "--filter", "ramp", "-o", output, "--overwrite")
        assert output.read_bytes() != expected
    else:
        output.unlink(), output.with_suffix(".json").unlink()
    calls = []

    def power_loss(path):
        calls.append(path)
        if len(calls) == step:
            raise PowerLoss

    with monkeypatch.context() as patch:
        patch.setattr(outputs, "sync", power_loss)
        with pytest.raises(PowerLoss):
            run(*series, *FBP, "-o", output, *flags)
    if output.exists() and output.with_suffix(".json").exists():
        assert record(output)["settings"]["filter"] == ("cosine" if output.read_bytes() == expected else "ramp")
    made(*series, *FBP, "-o", output, *flags)
    assert output.read_bytes() == expected
    assert record(output)["settings"]["filter"] == "cosine"
    assert {path.name for path in tmp_path.iterdir()} == {"ts.mrc", "ts.tlt", "v.mrc", "v.json"}


def test_a_foreign_record_is_not_replaced_even_with_overwrite(series, tmp_path):
    other = tmp_path / "v.json"
    other.write_text('{"precious": true}')
    result = run(*series, *FBP, "-o", tmp_path / "v.mrc", "--overwrite")
    assert result.exit_code == 2
    assert "no record of v.mrc" in result.stderr
    assert other.read_text() == '{"precious": true}'


def test_links_are_not_followed(series, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("keep me")
    (tmp_path / "v.mrc.partial").symlink_to(elsewhere)
    result = run(*series, *FBP, "-o", tmp_path / "v.mrc")
    assert result.exit_code == 2
    assert "is a link" in result.stderr
    assert [path.name for path in elsewhere.iterdir()] == ["precious"]
    (tmp_path / "w.mrc").symlink_to(elsewhere / "missing")
    assert "exists" in run(*series, *FBP, "-o", tmp_path / "w.mrc").stderr
    made(*series, *FBP, "-o", tmp_path / "w.mrc", "--overwrite")
    assert not (tmp_path / "w.mrc").is_symlink()
    assert not (elsewhere / "missing").exists()


def test_input_that_changes_during_the_run_is_refused(series, tmp_path, monkeypatch):
    stack, angles = series
    write_rows = VolumeWriter.write_rows

    def touch(self, y0, slab):
        write_rows(self, y0, slab)
        os.utime(stack, ns=(1, 1))

    monkeypatch.setattr(VolumeWriter, "write_rows", touch)
    result = run(stack, angles, *FBP)
    assert result.exit_code == 2
    assert "changed while the run read it" in result.stderr
    assert not (tmp_path / "ts_rec.mrc").exists()


# The check of itself


def scaled(slab, factor):
    width = slab.shape[2]
    wanted = (np.arange(width) - (width - 1) / 2) / factor + (width - 1) / 2
    flat = slab.reshape(-1, width)
    return np.array([np.interp(wanted, np.arange(width), row) for row in flat], dtype=np.float32).reshape(slab.shape)


FAULTS = {
    "shifted": lambda slab: np.roll(slab, 2, axis=2),
    "shifted against": lambda slab: np.roll(slab, -1, axis=0),
    "mirrored along z": lambda slab: slab[::-1],
    "mirrored along x": lambda slab: slab[:, :, ::-1],
    "opposite contrast": lambda slab: -slab,
    "scale differs": lambda slab: scaled(slab, 1.06),
    "does not fit": lambda slab: np.random.default_rng(0).standard_normal(slab.shape).astype(np.float32),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_each_run_checks_itself(fault, tmp_path, monkeypatch):
    stack, angles = write_series(tmp_path, beads((64, 96), 120), angles=tuple(range(-50, 51, 10)))
    if fault:
        write_rows = VolumeWriter.write_rows
        monkeypatch.setattr(
            VolumeWriter, "write_rows", lambda self, y0, slab: write_rows(self, y0, FAULTS[fault](slab))
        )
    result = made(stack, angles, *FBP)
    warnings = record(tmp_path / "ts_rec.mrc")["warnings"]
    if fault is None:
        assert warnings == []
        assert "Warning" not in result.stderr
        check = record(tmp_path / "ts_rec.mrc")["self_check"]
        assert check["correlation"] > 0.8
        assert max(map(abs, check["shift_zyx_px"])) < 0.1
        assert check["scale_zyx"][2] == pytest.approx(1, abs=0.01)
    else:
        assert fault in " ".join(warnings)
        assert f"Warning: {warnings[0]}" in result.stderr


def test_a_peak_at_the_end_of_the_reach_tells_a_shift_only_where_no_shift_fits_much_worse():
    """The blocks of a real needle, the same everywhere along y, and one that was moved."""
    along_z = torch.tensor([0.2, 0.9, 1.0, 0.9, 0.2])[None, :, None]
    for profile, shift in (
        ((0.519, 0.533, 0.542, 0.550, 0.557, 0.562, 0.568), math.nan),
        ((0.01, 0.02, 0.05, 0.10, 0.20, 0.40, 0.60), 3),
    ):
        peak = selfcheck._highest(torch.tensor(profile)[:, None, None] * along_z, (2, 0))
        assert peak.shift_zyx_px == pytest.approx((0, shift, 0), nan_ok=True)


def mapped_bytes(name):
    """Of files of this name, as Linux counts them in this process."""
    maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.M)
    return sum(1024 * int(re.search(r"^Rss:\s+(\d+)", part, re.M).group(1)) for part in maps if name in part)


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux does")
@pytest.mark.parametrize("words", [("--dtype", "int8"), ("--format", "ome-zarr")])
def test_a_volume_that_is_converted_is_never_all_mapped(words, tmp_path, monkeypatch):
    stack, angles = write_series(tmp_path, noise((64, 480)))
    seen, blocks, add = [], itertools.count(), RunningStatistics.add

    def counted(self, block):
        add(self, block)
        if next(blocks) % 8 == 0:  # to count takes longer than to convert
            seen.append(mapped_bytes("volume.mrc"))

    monkeypatch.setattr(RunningStatistics, "add", counted)
    monkeypatch.setattr(converting, "_BLOCK_VOXELS", 1 << 16)
    monkeypatch.setattr(ome_zarr, "CHUNK_PX", 16)
    output = tmp_path / ("v.zarr" if "ome-zarr" in words else "v.mrc")
    made(stack, angles, "--method", "fbp", "--thickness", 128, *words, "-o", output)
    assert len(seen) > 1
    assert 0 < max(seen) < 4 * 128 * 64 * 480 / 2
