"""The precision that a GPU's networks are computed in by default, on a CPU: what leaves its range is made again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_series import SHAPE, made, noise, run, voxels, write_model, write_series

from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.reconstruction.slabwise.slab_folder import SlabFolder

# Of a network whose values overflow float16, but not float32.
LARGE = 300.0
OVERFLOW = "Values beyond the range of fp16: slabs with such values are made again in fp32."


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """What ``--precision auto`` is there, and slabs of 8 rows."""
    monkeypatch.setattr(
        "cryolithe.reconstruction.slabwise.precisions.network_precision",
        lambda name, device: {"auto": torch.float16, "fp16": torch.float16}.get(name, torch.float32),
    )
    monkeypatch.setattr("cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS", 8)


def write_two_signed(path, gain=1.0):
    """A tiny network in which no unit is seen with one sign only, as in larger ones."""
    network = load_model(str(write_model(path, gain))).network
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() == 2 and len(weight) > 1:
                weight[0], weight[1] = weight[0].abs(), -weight[1].abs()
    save_network(path, network, {})
    return path


def reconstructed(folder, name, *flags, gain=1.0, images=None):
    """Standard error, voxels and the record of how it was computed."""
    model = write_two_signed(folder / f"{gain:g}.safetensors", gain)
    words = (*write_series(folder, images), "-o", folder / name, "--model", model, "--thickness", 12)
    result = made(*words, "--device", "cpu", *flags)
    record = json.loads((folder / name).with_suffix(".json").read_text())
    return result.stderr, voxels(folder / name), record["compute"]


def test_a_network_within_the_range_is_computed_in_float16_alone(as_on_a_gpu, tmp_path):
    told, found, compute = reconstructed(tmp_path, "half.mrc")
    assert OVERFLOW not in told
    assert compute["precision"] == "fp16"
    assert compute["made_again"] is None
    _, exact, compute = reconstructed(tmp_path, "single.mrc", "--precision", "fp32")
    assert compute["precision"] == "fp32"
    assert 0 < np.abs(found - exact).max() < 2e-3 * np.abs(exact).max()


def test_slabs_that_overflow_are_made_again_in_float32(as_on_a_gpu, tmp_path):
    told, found, compute = reconstructed(tmp_path, "half.mrc", gain=LARGE)
    assert told.count(OVERFLOW) <= 2  # once while its volume is compared with the back-projection, once in the slabs
    assert OVERFLOW in told
    assert compute["precision"] == "fp16"
    rows = [[start, start + 8] for start in range(0, SHAPE[0], 8)]
    assert compute["made_again"] == {"precision": "fp32", "rows": rows}
    _, exact, _ = reconstructed(tmp_path, "single.mrc", "--precision", "fp32", gain=LARGE)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())


def test_only_those_that_overflow_are_and_an_interrupted_run_gives_the_same_bytes(as_on_a_gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    images = noise()
    images[:, 30:] *= 1e3  # the last rows are far stronger than the others, and than their own standard deviation
    flags, gain = ("--fbp-share", 0), 9.0
    _, _, compute = reconstructed(tmp_path, "whole.mrc", *flags, gain=gain, images=images)
    rows = compute["made_again"]["rows"]
    assert [0, 8] not in rows
    assert [32, 40] in rows
    done = SlabFolder.done

    def interrupt(self, slab):
        done(self, slab)
        if slab.precision == "fp32":
            raise KeyboardInterrupt

    words = (tmp_path / "ts.mrc", tmp_path / "ts.tlt", "-o", tmp_path / "again.mrc", "--thickness", 12, *flags,
             "--model", tmp_path / f"{gain:g}.safetensors", "--device", "cpu")  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(SlabFolder, "done", interrupt)
        assert run(*words).exit_code == 130
    made(*words)
    assert (tmp_path / "again.mrc").read_bytes() == (tmp_path / "whole.mrc").read_bytes()
    assert json.loads((tmp_path / "again.json").read_text())["compute"]["made_again"]["rows"] == rows


def test_float16_that_was_asked_for_is_not_replaced(as_on_a_gpu, tmp_path):
    write_two_signed(tmp_path / "m.safetensors", LARGE)
    words = (*write_series(tmp_path), "-o", tmp_path / "v.mrc", "--model", tmp_path / "m.safetensors")
    result = run(*words, "--thickness", 12, "--precision", "fp16", "--device", "cpu", "--fbp-share", 0)
    assert result.exit_code == 2
    assert "not finite" in result.stderr
    assert "try --precision fp32" in result.stderr


def test_a_network_that_would_hide_an_overflow_is_computed_in_a_wider_range(as_on_a_gpu, tmp_path):
    write_model(tmp_path / "m.safetensors")
    network = load_model(str(tmp_path / "m.safetensors")).network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(-parameter.abs())
    save_network(tmp_path / "m.safetensors", network, {})
    words = (*write_series(tmp_path), "-o", tmp_path / "v.mrc", "--model", tmp_path / "m.safetensors")
    made(*words, "--thickness", 12, "--device", "cpu")
    assert json.loads((tmp_path / "v.json").read_text())["compute"]["precision"] in ("fp32", "bf16")
