"""The unpaired baseline obeys its laws, goes on where it stopped, and its benchmark runs."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from baselines import dual  # noqa: E402
from run_all import problems  # noqa: E402

from cryolithe.errors import SettingsError  # noqa: E402
from cryolithe.optimise.distributed import Place  # noqa: E402

torch.set_num_threads(1)
TINY = dual.DualSettings(filters=2, code=4, batch=2)
PLACE = Place(torch.device("cpu"))


def patches(number, seed):
    values = np.random.default_rng(seed).standard_normal((number, *(dual.EDGE,) * 3)).astype(np.float32)
    return torch.from_numpy(values)


def steps(state, number, monkeypatch):
    """Train by a clock on which a step takes a second."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(dual.time, "perf_counter", lambda: float(next(ticks)))
    dual.train(state, (patches(3, 1), patches(3, 2)), TINY, state.seconds + number)


def test_a_shuffled_mask_holds_the_same_values_elsewhere():
    mask = torch.arange(2.0 * 64).view(2, 1, 4, 4, 4)
    made = dual.shuffled(mask, torch.Generator().manual_seed(0))
    assert made.shape == mask.shape
    assert not torch.equal(made, mask)
    for one, other in zip(made, mask, strict=True):
        assert torch.equal(one.flatten().sort().values, other.flatten())


def test_a_perfect_cycle_has_a_finite_loss_and_gradient():
    given = patches(2, 3)[:, None]
    made = given.clone().requires_grad_()
    loss = dual.reconstruction_loss(made, given)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2 * math.log(dual.SMALLEST), rel=0.01)
    assert torch.isfinite(made.grad).all()
    assert float(dual.reconstruction_loss(patches(2, 4)[:, None], given)) == pytest.approx(math.log(2), abs=0.05)


def test_the_divergence_of_codes_is_that_of_normal_distributions():
    codes = torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0))
    spread = 1 + dual.SHRINKAGE
    least = 0.5 * 3 * (1 / spread - 1 + math.log(spread))
    assert float(dual.code_loss(codes)) == pytest.approx(least, abs=0.01)
    moved = least + 0.5 * 3 * 2.0**2 / spread
    assert float(dual.code_loss(codes + 2.0)) == pytest.approx(moved, rel=0.02)
    assert torch.isfinite(dual.code_loss(codes[:2]))  # fewer than numbers in a code


def test_both_parts_of_a_discriminator_count_alike():
    logits = torch.zeros(2, 1), torch.zeros(3, 1)
    assert float(dual.adversarial_loss(logits, True)) == pytest.approx(math.log(2))
    sure = torch.full((2, 1), 30.0), torch.full((9, 1), -30.0)
    assert float(dual.adversarial_loss(sure, True)) == pytest.approx(15, rel=1e-3)
    assert float(dual.adversarial_loss(sure, False)) == pytest.approx(15, rel=1e-3)


@pytest.mark.slow
def test_tiles_add_up_to_the_volume():
    """A denoiser that changes nothing leaves every voxel, in volumes that tiles do not divide."""
    network = dual.Dual(TINY)
    torch.nn.init.zeros_(network.denoiser.last.weight)
    volume = np.random.default_rng(0).standard_normal((33, 40, 50)).astype(np.float32) * 3 + 1
    np.testing.assert_allclose(dual.denoise(network, volume), dual.standardised(volume), atol=1e-5)


def test_patches_are_cut_without_overlap():
    volume = np.random.default_rng(0).standard_normal((32, 70, 64)).astype(np.float32)
    cut = dual.patches_of([volume, volume])
    assert cut.shape == (8, 32, 32, 32)
    np.testing.assert_allclose(cut[1], dual.standardised(volume)[:, :32, 32:], rtol=1e-6)
    with pytest.raises(ValueError, match="no patch of 32"):
        dual.patches_of([volume[:20]])


@pytest.mark.slow
def test_a_training_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    whole, first, second = (dual.new_state(TINY, PLACE) for _ in range(3))
    before = [p.clone() for p in whole.network.parameters()]
    steps(whole, 3, monkeypatch)
    moved = [bool((a != b).any()) for a, b in zip(before, whole.network.parameters(), strict=True)]
    assert np.mean(moved) > 0.9  # all six, but for biases before a norm
    steps(first, 2, monkeypatch)
    path = tmp_path / "state.safetensors"
    dual.save(path, first, TINY, "data")
    dual.resume(path, second, TINY, "data")
    assert (second.step, second.seconds) == (2, 2.0)
    steps(second, 1, monkeypatch)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    with pytest.raises(SettingsError, match="'data' was data, now other"):
        dual.resume(path, second, TINY, "other")
    with pytest.raises(SettingsError, match="other settings"):
        dual.resume(path, second, dataclasses.replace(TINY, seed=1), "data")


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    output = tmp_path / "dual.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "dual.py"), "--quick", "--output", str(output)],
        check=False, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(output.read_text())
    assert problems(result) == []
    scores = result["scores"]
    assert scores["DUAL"].keys() == scores["FBP"].keys() >= {"ssim", "psnr_db", "f1", "drawn_into_ice"}
    smooth, grey = (next(v for k, v in scores.items() if word in k) for word in ("Gaussian", "grey levels"))
    assert grey["ssim"] > smooth["ssim"]  # by another histogram alone
