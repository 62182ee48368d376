"""Scores of what a user gets beside the network alone, and the worst shell against filtered back-projection."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from command import call
from tiny_series import CONFIG

import cryolithe
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.network import build_network
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.reconstruction.slabwise.methods import NetworkMethod
from cryolithe.reconstruction.slabwise.mixing import (
    Reader,
    choose_parts,
    curve_of_volumes,
    finished_method,
    measure_curve,
)
from cryolithe.reconstruction.slabwise.networks import fbp_share
from cryolithe.sampling import reflected_rows
from cryolithe.simulation.shipped_molecules import procedural_1
from cryolithe.training import scoring
from cryolithe.training.scoring import (
    Score,
    WorstShell,
    benchmark,
    finished_array,
    mix_array,
    reconstruct_array,
    score_volume,
    truth_fsc,
    worst_of,
    worst_shell,
)

ANGLES = tuple(float(a) for a in np.arange(-60.0, 61.0, 6.0))
TILTS = (-60.0, 60.0)
SMALL = (24, 48, 48)


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def images(height, width, seed=0):
    found = noise((len(ANGLES), height, width), seed)
    return found - found.mean(axis=(1, 2), keepdims=True)


def tiny_network():
    """Never trained; with this seed it has something in common with what it is shown."""
    torch.manual_seed(3)
    return build_network(CONFIG)


@pytest.fixture
def small_specimens(monkeypatch):
    monkeypatch.setattr(scoring, "BENCHMARK_RECIPE", replace(scoring.BENCHMARK_RECIPE, shape=SMALL))


# The volume that is scored


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(12, 24, 30), (13, 31, 41), (20, 70, 48)])
def test_what_is_scored_is_what_the_program_makes_slab_by_slab(shape):
    network, rows = tiny_network(), 7 * images(*shape[1:])
    geometry, grid = TiltGeometry(ANGLES, shape[1:]), VolumeGrid(shape)
    method = NetworkMethod(network, geometry, grid)

    def read(first, stop):
        return torch.from_numpy(rows[:, reflected_rows(first, stop - first, shape[1])])

    parts = choose_parts(grid, method.row_multiple)
    curve = measure_curve(partial(NetworkMethod, network, geometry), 0.4, geometry, parts, Reader(read, grid.shape[1]))
    fused = finished_method(method, curve, geometry, grid)
    whole = shape[1] + -shape[1] % fused.row_multiple
    expected = fused(read(-fused.halo_px, whole + fused.halo_px))[:, : shape[1]].numpy()
    found = mix_array(reconstruct_array(network, rows, ANGLES, shape[0]), rows, ANGLES, 0.4, method.row_multiple)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_what_is_scored_is_what_a_user_gets():
    """By the library's own call, which standardises images itself, with left-out tilts and a share of FBP."""
    series = cryolithe.simulate(shape=(24, 64, 64), seed=3)
    angles = tuple(float(angle) for angle in series.angles_deg)
    rows = np.asarray(series.tilts, np.float32)
    rows = rows - rows.mean(axis=(1, 2), keepdims=True)
    model = load_model("fast")
    alone = reconstruct_array(model.network, -rows, angles, 24)
    kept = alone.copy()
    found = finished_array(model.network, alone, -rows, angles, fbp_share(model, None))
    np.testing.assert_array_equal(alone, kept)
    told = {"thickness": 24, "contrast": "dark", "precision": "fp32", "device": "cpu"}
    made = -np.asarray(cryolithe.reconstruct(rows, angles, model="fast", **told))
    assert np.corrcoef(found.ravel(), made.ravel())[0, 1] > 0.999
    whole = -np.asarray(cryolithe.reconstruct(rows, angles, model="fast", wedge_trust="full", **told))
    assert np.corrcoef(found.ravel(), whole.ravel())[0, 1] < 0.999


def test_mixing_leaves_its_input_and_grows_with_the_share():
    alone, rows = noise(SMALL, 1), images(*SMALL[1:])
    kept = alone.copy()
    mixed = {share: mix_array(alone, rows, ANGLES, share) for share in (0.0, 0.2, 0.6)}
    np.testing.assert_array_equal(alone, kept)
    np.testing.assert_array_equal(mixed[0.0], alone)
    np.testing.assert_allclose(mixed[0.6] - alone, 3 * (mixed[0.2] - alone), atol=1e-5)
    assert np.abs(mixed[0.2] - alone).max() > 0.01


def test_the_amplitude_of_whole_volumes_does_not_depend_on_what_lies_outside_the_parts():
    shape = (32, 400, 300)
    geometry, parts = TiltGeometry(ANGLES, shape[1:]), choose_parts(VolumeGrid(shape), 2)
    depth, rows, columns = parts.grid.shape
    assert columns < 300
    assert rows * len(parts.starts) < 400
    ours, back = (torch.from_numpy(noise(shape, seed)) for seed in (1, 2))
    curve = curve_of_volumes(ours + 0.5 * back, back, 0.3, geometry, parts)
    assert curve.share == 0.3
    np.testing.assert_allclose(curve.amplitude[6:], 0.5, atol=0.1)
    outside = torch.full(shape, 100.0)
    left = (300 - columns) // 2
    for start in parts.starts:
        outside[:depth, start : start + rows, left : left + columns] = 0
    assert curve_of_volumes(ours + 0.5 * back + outside, back, 0.3, geometry, parts) == curve


# The worst shell


def test_the_worst_shell_is_where_an_estimate_was_spoilt():
    """A ring of frequencies of a perfect estimate is replaced by noise: that ring is found and its loss is right."""
    truth = noise((32, 32, 32))
    back = truth + noise(truth.shape, 1)
    waves, others = np.fft.rfftn(truth), np.fft.rfftn(noise(truth.shape, 2))
    z, y, x = np.fft.fftfreq(32)[:, None, None], np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32)
    ring = np.rint(32 * np.sqrt(z**2 + y**2 + x**2)) == 9
    spoilt = np.fft.irfftn(np.where(ring, others, waves), truth.shape, axes=(0, 1, 2)).astype(np.float32)
    plain = truth_fsc(truth, back, TILTS)
    found = worst_shell(truth_fsc(truth, spoilt, TILTS), plain)
    assert found.frequency_per_px == pytest.approx(9 / 32)
    assert found.difference == pytest.approx(-np.sqrt(0.5), abs=0.15)
    assert worst_shell(plain, plain).difference == 0
    assert worst_shell(truth_fsc(truth, truth, TILTS), plain).difference > 0
    assert worst_of([WorstShell(0.1, 0.2), found, WorstShell(-0.1, 0.3)]) == found


def test_mean_and_nyquist_and_the_missing_wedge_are_not_compared():
    truth = noise((32, 32, 32))
    waves, others = np.fft.rfftn(truth), np.fft.rfftn(noise(truth.shape, 2))
    z, y, x = np.fft.fftfreq(32)[:, None, None], np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32)
    shell = np.rint(32 * np.sqrt(z**2 + y**2 + x**2))
    missing = np.degrees(np.arctan2(np.abs(z), np.abs(x))) + 0 * y > 61
    for lost in (shell == 0, shell == 16, missing):
        spoilt = np.fft.irfftn(np.where(lost, others, waves), truth.shape, axes=(0, 1, 2)).astype(np.float32)
        found = worst_shell(truth_fsc(truth, spoilt, TILTS), truth_fsc(truth, truth, TILTS))
        assert found.difference == pytest.approx(0, abs=1e-6)


def test_a_score_compares_with_the_back_projection_only_if_it_has_it():
    truth = noise(SMALL)
    estimate = truth + noise(SMALL, 1)
    assert score_volume(truth, estimate).worst_shell is None
    compared = score_volume(truth, estimate, TILTS, truth_fsc(truth, truth, TILTS))
    assert compared.worst_shell is not None
    assert compared.worst_shell.difference < -0.1
    assert score_volume(truth, estimate) == replace(compared, worst_shell=None)


# The benchmark and its command


@pytest.mark.slow
def test_the_network_is_scored_with_its_share_and_alone(small_specimens):
    network = tiny_network()
    zero, some, more = (dict(benchmark(network, (), (0.0,), 1, share=share))[0.0] for share in (0.0, 0.3, 0.6))
    assert list(some) == ["fbp", "sirt", "network", "network alone"]
    assert zero["network alone"] == some["network alone"] == more["network alone"]
    # Left-out tilts confirm nothing of such weights, which tells in the missing wedge; the measured region stays.
    assert zero["network"].fsc_measured == pytest.approx(zero["network alone"].fsc_measured, abs=0.01)
    # The back-projection is better than weights that were never trained, so more of it helps.
    measured = [found["network"].fsc_measured for found in (zero, some, more)]
    assert measured[0] < measured[1] < measured[2] < some["fbp"].fsc_measured
    assert some["fbp"].worst_shell is None
    assert zero["network"].worst_shell.difference < more["network"].worst_shell.difference


@pytest.mark.slow
def test_numbers_are_means_and_the_shell_is_the_worst_of_all_specimens(small_specimens):
    network = tiny_network()
    both = dict(benchmark(network, (), (0.0,), 2))[0.0]
    first = dict(benchmark(network, (), (0.0,), 1))[0.0]
    assert all(both[name].worst_shell.difference <= first[name].worst_shell.difference for name in list(both)[1:])
    scores = [Score(1.0, 0.5, 0.1, WorstShell(-0.1, 0.2)), Score(3.0, 0.7, 0.3, WorstShell(-0.3, 0.4))]
    assert scoring._mean(scores) == Score(2.0, pytest.approx(0.6), pytest.approx(0.2), WorstShell(-0.3, 0.4))


def scored(tmp_path, card):
    save_network(tmp_path / "net.safetensors", tiny_network(), card)
    path = tmp_path / "scores.json"
    words = ["score", tmp_path / "net.safetensors", "--specimens", 1, "--snr", "0", "--precision", "fp32"]
    return call(*words, "--json", path, "--overwrite"), path


@pytest.mark.slow
@pytest.mark.parametrize(("card", "share"), [({}, 0.3), ({"fbp_share": 0.5}, 0.5), ({"fbp_share": 0}, 0)])
def test_the_command_scores_what_a_user_gets_with_the_models_own_share(tmp_path, small_specimens, card, share):
    result, path = scored(tmp_path, card)
    assert result.exit_code == 0, result.output
    assert f"{share:.0%} FBP where the tilts measured" in result.output
    found = json.loads(path.read_text())
    assert found["fbp_share"] == share
    expected = dict(benchmark(tiny_network(), procedural_1(), (0.0,), 1, share=share))[0.0]
    for name, score in found["scores"]["0 dB"].items():
        assert score["snr_db"] == pytest.approx(expected[name].snr_db, abs=1e-4)
        line = next(line for line in result.output.splitlines() if line.split("dB ")[-1].startswith(f"{name}  "))
        assert f" {score['fsc_measured']:.3f} " in line
        assert ("worst_shell" in score) == (name != "fbp")
        shell = score.get("worst_shell")
        assert line.endswith(f"{shell['difference']:+.3f} at {shell['frequency_per_px']:.3f}" if shell else "-")


def test_a_card_with_a_share_that_is_none_is_refused(tmp_path):
    result, path = scored(tmp_path, {"fbp_share": "much"})
    assert result.exit_code == 2
    assert "fbp_share: 'much'" in result.output
    assert not path.exists()


def score(*words):
    return call("score", "fast", "--specimens", "1", *words)


@pytest.mark.parametrize("level", ["nan", "inf", "-inf", "1e5", "-100.5", "0,nan"])
def test_noise_that_is_none_is_refused(level):
    result = score(f"--snr={level}")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert result.stderr.startswith("Error: --snr must lie within ±100 dB, got ")


@pytest.mark.slow
def test_any_noise_within_the_range_is_scored(small_specimens):
    levels = (-100.0, -90.0, 100.0)
    found = dict(benchmark(tiny_network(), (), levels, 1))
    assert all(np.isfinite(found[level]["fbp"].snr_db) for level in levels)
    assert found[-100.0]["fbp"].snr_db < 1 < 4 < found[100.0]["fbp"].snr_db


def test_scores_that_cannot_be_written_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "benchmark", lambda *of, **more: pytest.fail("something was scored"))
    (tmp_path / "folder.json").mkdir()
    for name, line in (
        ("none/s.json", "none does not exist; make it first"),
        ("folder.json", "folder.json is a folder; give the name of a file with --json"),
        ("s.txt", "expected a name ending in .json for the scores"),
    ):
        for words in ((), ("--overwrite",)):
            result = score("--json", tmp_path / name, *words)
            assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
            assert line in result.stderr
