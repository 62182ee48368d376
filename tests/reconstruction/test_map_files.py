"""What is told of the maps of ``--confidence`` and of their unit is true of the files, whatever was done to these."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from tiny_series import ANGLES, bead_images, made, noise, voxels, write_model, write_series

from cryolithe.formats import VolumeWriter, read_mrc
from cryolithe.formats.volumes.ome_zarr import read_ome_zarr
from cryolithe.reconstruction.jobs.job import MAP_KINDS, map_paths
from cryolithe.reconstruction.jobs.untilted import depth_before, planes_kept
from cryolithe.reconstruction.output import outputs
from cryolithe.reconstruction.output.turned import tilt_volume

SHAPE = (16, 40, 48)  # (z, y, x)


@pytest.fixture
def series(tmp_path):
    """Gold, so that bytes cut it off; commands of IMOD with and without a tilt about x; a model."""
    images = sum(bead_images(SHAPE[1:], place) for place in ((5, -4, 2), (-9, 10, -4), (14, 3, 0)))
    stack, angles = write_series(tmp_path, -(60 * images + noise()))
    for tilt in (0, 8):
        (tmp_path / f"t{tilt}.com").write_text(
            f"$tilt -StandardInput\nInputProjections {stack}\nOutputFile r.rec\nTILTFILE {angles}\n"
            f"THICKNESS {SHAPE[0]}\nXAXISTILT {tilt}\nMODE 2\n$if (-e ./savework) ./savework\n"
        )
    return stack, write_model(tmp_path / "tiny.safetensors")


def values(path):
    """Of a file of any format, float64."""
    found = read_ome_zarr(path)[...] if path.suffix == ".zarr" else voxels(path)
    return np.asarray(found, dtype=np.float64)


def means_told(text):
    """Of the three maps, by the last line that is printed."""
    found = re.search(r"truth, ([\d.]+)\).*error, ([\d.]+) deviations.*hold, (\d+)%\)", text.splitlines()[-1])
    return float(found[1]), float(found[2]), int(found[3]) / 100


@pytest.fixture
def as_made(monkeypatch, tmp_path):
    """The maps as they were made, turned about x where the volume was, in densities; and the volume's deviation."""
    seen = {}

    def finish_maps(run, folder, maps, deviation, watcher, real=outputs.finish_maps):
        seen["deviation"] = maps.deviation
        for kind in MAP_KINDS:
            upright = np.array(read_mrc(folder.path / f"{kind}.mrc").data)
            if run.x_tilt_deg:
                shape = (run.depth, *upright.shape[1:])
                with VolumeWriter.create(tmp_path / "expected.mrc", shape, None, "float32") as writer:
                    tilt_volume(upright, writer, run.x_tilt_deg)
                upright = voxels(tmp_path / "expected.mrc")
            seen[kind] = upright * (maps.deviation if kind == "error" else 1.0)
        return real(run, folder, maps, deviation, watcher)

    monkeypatch.setattr(outputs, "finish_maps", finish_maps)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tilt", "words"),
    [
        (0, ()),
        (8, ()),
        (0, ("--flip-z",)),
        (8, ("--flip-z", "--orientation", "xzy")),
        (8, ("--thickness", 10)),
        (8, ("--thickness", 8, "--bin", 2)),
        (0, ("--dtype", "int8")),
        (8, ("--dtype", "int8", "--orientation", "xzy")),
        (8, ("--format", "ome-zarr")),
    ],
    ids=lambda given: given if isinstance(given, int) else " ".join(map(str, given)) or "plain",
)
def test_means_and_unit_that_are_told_are_those_of_the_files(series, as_made, tmp_path, tilt, words):
    if "ome-zarr" in words:
        pytest.importorskip("zarr")
    stack, model = series
    output = tmp_path / ("v.zarr" if "ome-zarr" in words else "v.mrc")
    plain = ("--model", model, "--precision", "fp32", "--contrast", "dark", "--confidence")
    printed = made(stack, "--tilt-com", tmp_path / f"t{tilt}.com", *plain, *words, "-o", output).stdout
    record = json.loads(output.with_suffix(".json").read_text())
    told, step = record["confidence"], record["volume"].get("scaling", {}).get("step", 1.0)
    deviation = values(output).std() * step
    assert told["deviation"] == pytest.approx(deviation, rel=1e-5)
    if tilt:  # or else nothing would be tested
        assert abs(as_made["deviation"] / deviation - 1) > 0.01
    maps = {kind: values(path) for kind, path in map_paths(output).items()}
    for kind, rounding, shown in zip(MAP_KINDS, (0.005, 0.005, 0.005), means_told(printed), strict=True):
        assert told["maps"][kind]["mean"] == pytest.approx(maps[kind].mean(), abs=1e-6)
        assert shown == pytest.approx(maps[kind].mean(), abs=rounding + 1e-6)
        assert maps[kind].min() >= 0
        assert kind == "error" or maps[kind].max() <= 1
        upright = maps[kind].transpose(1, 0, 2)[::-1] if "xzy" in words else maps[kind]
        # In densities the error is what it was when it was made: only its unit is another.
        expected = as_made[kind] / (deviation if kind == "error" else 1.0)
        assert np.allclose(upright, expected.clip(0, None if kind == "error" else 1), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--flip-z", "--dtype", "int8")], ids=["plain", "flipped bytes"])
def test_the_agreement_of_halves_that_is_told_is_that_of_the_file(series, tmp_path, words):
    stack, model = series
    halves = []
    for number, name in enumerate(("ts_EVN", "ts_ODD")):
        random = np.random.default_rng(number).standard_normal((len(ANGLES), *SHAPE[1:])).astype(np.float32)
        halves.append(write_series(tmp_path, voxels(stack) + 0.5 * random, name=name)[0])
    given = ("--even", halves[0], "--odd", halves[1], "--tilt-com", tmp_path / "t8.com", "--model", model)
    made(*given, *words, "-o", tmp_path / "v.mrc")
    told = json.loads((tmp_path / "v.json").read_text())["confidence"]
    assert told["mean"] == pytest.approx(values(tmp_path / "v_confidence.mrc").mean(), abs=1e-6)


@pytest.mark.parametrize("tilt", [0.0, 8.0, -11.0])
@pytest.mark.parametrize("shape", [(16, 40, 3), (9, 61, 2)])
def test_planes_kept_are_those_that_a_turned_volume_is_read_from(tmp_path, shape, tilt):
    depth = depth_before(shape, tilt)
    before = (depth, *shape[1:])
    for row in range(4, shape[1] - 4, 7):
        marked = np.zeros(before, np.float32)
        marked[planes_kept(before, shape[0], tilt, row), row] = 1
        if not tilt:
            assert marked[:, row].all()
            continue
        with VolumeWriter.create(tmp_path / "v.mrc", shape, None, "float32") as writer:
            tilt_volume(marked, writer, tilt)
        # All of a line through the depth that lies in the turned volume, and hardly anything beyond its faces.
        seen, whole = voxels(tmp_path / "v.mrc").sum(), np.zeros(before, np.float32)
        whole[:, row] = 1
        with VolumeWriter.create(tmp_path / "v.mrc", shape, None, "float32") as writer:
            tilt_volume(whole, writer, tilt)
        every = voxels(tmp_path / "v.mrc").sum()
        assert seen == pytest.approx(every, rel=0.1)
        assert seen == pytest.approx(marked.sum(), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("tilt", [0, 8])
def test_a_constant_volume_has_no_unit_but_its_densities(series, tmp_path, tilt):
    silent = write_model(tmp_path / "silent.safetensors", gain=0.0)
    words = ("--model", silent, "--fbp-share", 0, "--contrast", "dark", "--confidence", "-o", tmp_path / "v.mrc")
    made(series[0], "--tilt-com", tmp_path / f"t{tilt}.com", *words)
    told = json.loads((tmp_path / "v.json").read_text())["confidence"]
    assert np.ptp(voxels(tmp_path / "v.mrc")) == 0
    assert told["deviation"] == 1
    for kind in MAP_KINDS:
        found = values(tmp_path / f"v_{kind}.mrc")
        assert np.isfinite(found).all()
        assert told["maps"][kind]["mean"] == pytest.approx(found.mean(), abs=1e-6)
