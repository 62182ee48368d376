"""The quality benchmarks: their baselines obey what they claim, and their commands run and give sane numbers."""

from __future__ import annotations

import itertools
import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from shared_data import SHARED, needs_shared

from cryolithe.geometry import TiltGeometry
from cryolithe.metrics import scaled_snr_db
from cryolithe.network.checkpoint import load_model
from cryolithe.projector import make_projector
from cryolithe.projector.classical import sirt
from cryolithe.reconstruction.slabwise.networks import FBP_SHARE

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import fusion  # noqa: E402
import run_all  # noqa: E402
from baselines import classical, n2n, topaz  # noqa: E402
from parts.measures import better_than, mean_of, spread_cell  # noqa: E402
from parts.scenes import UNSEEN, merged, placed_molecules  # noqa: E402
from real import drawn_into_vacuum  # noqa: E402
from tables import losses_section  # noqa: E402


def phantom(side: int, seed: int = 3) -> np.ndarray:
    """Some smooth blobs in an empty box, float32."""
    rng = np.random.default_rng(seed)
    grid = np.indices((side, side, side))
    made = np.zeros((side, side, side), dtype=np.float32)
    for place in rng.uniform(0.2, 0.8, size=(12, 3)) * side:
        away = sum((g - p) ** 2 for g, p in zip(grid, place, strict=True))
        made += np.exp(-away / 8).astype(np.float32)
    return made


def noisy_halves(truth: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return tuple(truth + sigma * rng.standard_normal(truth.shape).astype(np.float32) for _ in range(2))


def run(script: str, *words: str | Path, cwd: Path = ROOT) -> str:
    """A benchmark as a user calls it."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *map(str, words)],
        check=False, cwd=cwd, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_noise2noise_improves_a_noisy_phantom_and_repeats():
    truth = phantom(20)
    even, odd = noisy_halves(truth, 1.0)
    made = n2n.noise2noise(even, odd, n2n.N2nSettings(steps=40, minutes=5, width=4, patch=16, seed=1))
    assert made.steps == 40
    assert made.volume.shape == truth.shape
    assert scaled_snr_db(truth, made.volume) > scaled_snr_db(truth, 0.5 * (even + odd)) + 1.5
    short = n2n.N2nSettings(steps=2, minutes=5, width=4, patch=16, seed=1)
    twice = [n2n.noise2noise(even, odd, short).volume for _ in range(2)]
    assert np.allclose(*twice, atol=1e-4)


def test_noise2noise_stops_when_the_time_is_up(monkeypatch):
    even, odd = noisy_halves(phantom(16), 1.0)
    monkeypatch.setattr(n2n, "time", SimpleNamespace(perf_counter=itertools.count().__next__))  # a second each look
    made = n2n.noise2noise(even, odd, n2n.N2nSettings(steps=10_000, minutes=0.1, width=4, patch=16))
    assert made.steps == 5
    assert np.isfinite(made.volume).all()


def test_gaussian_is_chosen_without_the_truth_nearly_as_well_as_with_it():
    truth, chosen = phantom(24), []
    for noise in (0.01, 0.3, 1.0):
        even, odd = noisy_halves(truth, noise)
        whole = 0.5 * (even + odd)
        blind, best = classical.gaussian(whole, even, odd), classical.oracle_gaussian(whole, truth)
        scores = [scaled_snr_db(truth, made.volume) for made in (blind, best)]
        assert scores[1] - 0.3 <= scores[0] <= scores[1] + 1e-6
        # The oracle's score is what it says: the SNR of the volume that it returns.
        all_of_them = [scaled_snr_db(truth, classical._filtered(whole, {s: 0.0}).volume) for s in best.scores]
        assert scores[1] == pytest.approx(max(all_of_them), abs=1e-6)
        chosen.append(blind.value)
    assert chosen[0] < chosen[1] <= chosen[2]


def test_snapshots_are_sirt_and_noise_stops_it_earlier():
    truth = torch.from_numpy(phantom(16))
    projector = make_projector(TiltGeometry(tuple(np.arange(-60.0, 61.0, 6.0)), (16, 16)), (16, 16))
    clean = projector.forward(truth)
    for number, volume in classical.snapshots(projector, clean):
        if number == 10:
            assert torch.allclose(volume, sirt(projector, clean, 10), atol=1e-5)
            break
    rng = torch.Generator().manual_seed(5)
    chosen = []
    for noise in (0.02, 3.0):
        halves = [clean + noise * torch.randn(clean.shape, generator=rng) for _ in range(2)]
        best, errors = classical.choose_iterations(*(classical.Half(projector, half) for half in halves))
        assert errors[best] == min(errors.values())
        chosen.append(best)
    assert chosen[0] > chosen[1]


def test_wide_volumes_spare_sirt_the_ends():
    """A field full of matter that goes on beyond it: what lies outside must not end up at the edges."""
    rng = np.random.default_rng(2)
    world = torch.from_numpy(rng.standard_normal((12, 8, 120)).astype(np.float32))
    angles = tuple(np.arange(-60.0, 61.0, 4.0))
    images = make_projector(TiltGeometry(angles, (8, 120)), (12, 120)).forward(world)[:, :, 40:80].contiguous()
    truth = world[:, :, 40:80].numpy()
    narrow = sirt(make_projector(TiltGeometry(angles, (8, 40)), (12, 40)), images, 10).numpy()
    wide = classical.middle(sirt(classical.wide_projector(angles, (8, 40), 12), images, 10), 40)
    assert wide.shape == truth.shape
    assert scaled_snr_db(truth, wide) > scaled_snr_db(truth, narrow) + 0.1


@pytest.fixture
def fake_topaz(tmp_path):
    """A Python that stands in for Topaz: it says a version, and denoises by checking and copying its input."""
    path = tmp_path / "python"
    path.write_text(
        f"#!{sys.executable}\n"
        "import sys, pathlib, numpy as np, mrcfile\n"
        "words = sys.argv[1:]\n"
        "if words[0] == '-c': print('9.9'); raise SystemExit\n"
        "source, out = pathlib.Path(words[-1]), pathlib.Path(words[words.index('--output') + 1])\n"
        "data = mrcfile.read(source)\n"
        "assert min(data.shape) >= 32 and data.dtype == np.float32, data.shape\n"
        f"np.save({str(tmp_path / 'seen.npy')!r}, data)\n"
        "out.mkdir(); mrcfile.write(out / source.name, data)\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_topaz_sees_standardised_dark_volumes_and_ours_come_back(fake_topaz):
    found = topaz.find_topaz(fake_topaz)
    assert found.version == "9.9"
    volume = 5 + 3 * phantom(20)
    for dark in (True, False):
        assert np.allclose(found.denoise(volume, 10.0, dark), volume, atol=1e-4)
        seen = np.load(fake_topaz.with_name("seen.npy"))[:20, :20, :20]
        assert abs(seen.mean()) < 1e-4
        assert seen.std() == pytest.approx(1, abs=1e-4)
        sign = -1 if dark else 1
        assert np.corrcoef(seen.ravel(), volume.ravel())[0, 1] == pytest.approx(sign, abs=1e-5)


def test_without_topaz_it_says_so(tmp_path):
    with pytest.raises(RuntimeError, match="expected the Python that has Topaz"):
        topaz.find_topaz(tmp_path / "nowhere")
    with pytest.raises(RuntimeError, match="ended with exit code 1"):
        topaz.find_topaz(Path(sys.executable))


def test_losses_are_found_and_compared_the_right_way():
    means = {
        "truth": {"wedge_fill": 0.9, "streak_index": 0.2},
        "FBP": {"snr_db": 2.0, "resolution_angstrom": 40.0, "wedge_fill": 0.1, "streak_index": 0.5, "ssim": None},
        "CryoLithe": {"snr_db": 1.0, "resolution_angstrom": 50.0, "wedge_fill": 1.2, "streak_index": 0.6, "ssim": 0.1},
    }
    found = better_than(means, "CryoLithe", ["FBP"], "here")
    assert [one["measure"] for one in found] == ["SNR dB", "resolution Å", "streaks"]
    assert found[0] == {"where": "here", "measure": "SNR dB", "baseline": "FBP", "value": 2.0, "model": 1.0}
    assert not better_than(means, "FBP", [], "here")
    assert spread_cell([1.0, 2.0]) == "1.50 ± 0.71"
    assert mean_of([], "snr_db") is None
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}) == {"a": {"b": 1, "c": 3}}


def test_the_best_mix_is_the_least_squares_fit_and_never_below_either():
    rng = np.random.default_rng(4)
    truth, back, ours = rng.standard_normal((3, 3, 500))
    back, ours = 0.4 * truth + back, 0.7 * truth - 0.5 * back + ours

    def correlations(a, b):
        return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))

    f, n, r = correlations(truth, back), correlations(truth, ours), correlations(back, ours)
    found = fusion.best_mix(f, n, r)
    for shell in range(3):
        sources = np.stack([back[shell], ours[shell]], axis=1)
        fitted = sources @ np.linalg.lstsq(sources, truth[shell], rcond=None)[0]
        assert found[shell] == pytest.approx(correlations(truth[shell : shell + 1], fitted[None])[0])
        for gain in (0.1, 0.5, 2.0):
            assert correlations(truth, back + gain * ours)[shell] <= found[shell] + 1e-12
    assert (found >= np.maximum(f, n)).all()
    assert np.allclose(fusion.best_mix(f, f, np.ones(3)), f)  # nothing to choose between


@pytest.mark.slow
def test_kinds_of_series_for_the_share_are_drawn_from_their_number_alone():
    made = {kind.title: kind for kind in fusion.kinds(32, placed_molecules(None))}
    assert len(made) == 12
    for title in ("filaments and microtubules, ±60°, -3 dB", "white noise, +8 dB", "lamella"):
        series, again, other = (made[title].draw(number) for number in (102, 102, 103))
        assert np.array_equal(series.images, again.images)
        assert not np.array_equal(series.truth, other.truth)
        assert series.truth.shape == series.labels.shape == (16, 32, 32)
        assert len(series.angles_deg) == len(series.images)
        assert abs(series.images.mean()) < 0.05 * series.images.std()


def test_only_molecules_that_no_training_saw_are_placed(tmp_path):
    def library(*names):
        with h5py.File(tmp_path / "library.h5", "w") as file:
            for name in names:
                file[name] = phantom(12)
                file[name].attrs["voxel_size_angstrom"] = 10.0
        return tmp_path / "library.h5"

    assert [m.name for m in placed_molecules(library(UNSEEN[0], "seen", UNSEEN[2]))] == [UNSEEN[0], UNSEEN[2]]
    with pytest.raises(SystemExit, match=r"library\.h5 has none of the molecules that were held out .* 1bxn"):
        placed_molecules(library("seen"))
    assert {m.name.split("_")[0] for m in placed_molecules(None)} == {"procedural"}


@pytest.mark.slow
def test_shares_are_compared_and_their_numbers_are_sane(tmp_path):
    output = tmp_path / "fusion.json"
    said = run("fusion.py", "--quick", "--only", "bilayers only, ±60°", "--models", "fast", "--output", output)
    result = json.loads(output.read_text())
    assert run_all.problems(result) == []
    assert result["shares"] == list(fusion.SHARES)
    (one,) = result["series"]["bilayers only, ±60°, -3 dB"]["CryoLithe fast"]
    mixed = ["network alone", "15% FBP", "30% FBP", "45% FBP"]
    assert list(one["shells"]) == mixed
    assert list(one["curves"]) == ["FBP", *mixed, "best mix"]
    for name in ("FBP", "network alone"):
        pairs = zip(one["curves"]["best mix"], one["curves"][name], strict=True)
        assert all(best >= value - 1e-4 for best, value in pairs)
    for name in mixed:
        differences = [a - b for a, b in zip(one["curves"][name], one["curves"]["FBP"], strict=True)]
        assert one["shells"][name]["difference"] == pytest.approx(min(differences), abs=2e-4)
        assert one["measured"][name] == pytest.approx(np.mean(one["curves"][name]), abs=1e-3)
        assert one["fidelity"][name].keys() == one["fidelity"]["FBP"].keys() >= {"membranes"}
    assert "CryoLithe fast: worst shell against FBP" in said
    assert f"{one['shells']['30% FBP']['difference']:+.3f} at" in said


@pytest.mark.slow
def test_kinds_of_which_there_are_none_are_refused():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "fusion.py"), "--quick", "--only", "nothing"],
        check=False, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "no kind of series has 'nothing' in its title: expected a part of one of bilayers only" in done.stderr


def numbers_in(value: object) -> list[float]:
    if isinstance(value, dict):
        return [n for below in value.values() for n in numbers_in(below)]
    if isinstance(value, list):
        return [n for below in value for n in numbers_in(below)]
    return [float(value)] if isinstance(value, int | float) else []


@pytest.mark.slow
@needs_shared
def test_quality_runs_and_its_numbers_are_sane(tmp_path):
    output = tmp_path / "quality.json"
    library = SHARED / "molecules" / "molecules_10A.h5"
    scene = "isolated proteins, +0 dB"
    words = ["--quick", "--side", "40", "--only", scene, "--molecules", library, "--output", output, "--models", "fast"]
    said = run("quality.py", *words)
    result = json.loads(output.read_text())
    runs = result["runs"][scene]
    ours = ("CryoLithe fast", "CryoLithe fast, network alone")
    assert {"truth", "FBP", "SIRT", "FBP + Gaussian", "Noise2Noise U-Net", *ours} <= set(runs)
    mixed, alone = (runs[method][0] for method in ours)
    assert mixed["fbp_share"] == load_model("fast").card.get("fbp_share", FBP_SHARE)
    assert (mixed["snr_db"] != alone["snr_db"]) == (mixed["fbp_share"] > 0)
    assert all(math.isfinite(number) for number in numbers_in(runs))
    score = {method: values[0] for method, values in runs.items()}
    for method, values in score.items():
        if method != "truth":
            assert all(-1 <= values[name] <= 1 for name in ("fsc_measured", "fsc_missing", "ssim"))
            assert values["snr_db"] >= 0
        assert 0 <= values["picking_f1"] <= 1
    assert score["FBP + Gaussian (oracle)"]["snr_db"] >= score["FBP + Gaussian"]["snr_db"] - 1e-6
    assert score["SIRT (oracle)"]["snr_db"] >= score["SIRT"]["snr_db"] - 1e-6
    assert score["FBP + Gaussian"]["snr_db"] > score["FBP"]["snr_db"]
    # Each loss is one, and those that the SNR shows are there.
    lost = {one["baseline"] for one in result["losses"]["found"] if one["measure"] == "SNR dB"}
    our_snr_db = score["CryoLithe fast"]["snr_db"]
    others = {m: values for m, values in score.items() if not m.startswith(("truth", "CryoLithe"))}
    assert lost == {m for m, values in others.items() if values["snr_db"] > our_snr_db}
    assert "One factor at a time" in said
    for table in result["fidelity"][scene]:
        for label, bands in table["FBP + Gaussian (oracle)"].items():
            assert all(bands[band] >= table["FBP"][label][band] - 1e-6 for band in bands)
    for name in result["figures"]:
        assert 5_000 < (tmp_path / name).stat().st_size < 600_000
    shown = losses_section([result])
    assert shown[0] == "### Where FBP wins"
    assert sum(line.startswith(f"| {scene}") for line in shown) == len(
        {o["measure"] for o in result["losses"]["found"]}
    )
    assert result["commit"]
    assert result["device"]["cpu"]


def test_a_patch_in_the_vacuum_is_seen_and_a_step_along_the_axis_is_none():
    z, y, x = np.mgrid[:48, :40, :48].astype(np.float32)
    # A needle whose shank is faint, in a vacuum whose level changes along the axis, as in the real images.
    needle = np.where(np.hypot(z - 24, x - 24) < 5, np.where(y < 20, 1.0, 0.2), 0.0) + np.where(y < 20, 0.0, 0.05)
    needle = needle.astype(np.float32)
    clean = drawn_into_vacuum(needle, needle)
    assert clean["brightest"] < 1
    patch = 0.1 * np.exp(-((z - 10) ** 2 + (y - 30) ** 2 + (x - 10) ** 2) / 32).astype(np.float32)
    seen = drawn_into_vacuum(needle + patch, needle)
    assert 5 < seen["brightest"] < 11
    assert seen["vacuum"] > clean["vacuum"]
    # Gain and offset of the volume are no matter.
    assert drawn_into_vacuum(7 * (needle + patch) - 3, needle)["brightest"] == pytest.approx(
        seen["brightest"], rel=1e-3
    )


@pytest.mark.slow
def test_real_runs_and_its_numbers_are_sane(tmp_path):
    output = tmp_path / "real.json"
    run("real.py", "--quick", "--models", "fast", "--output", output)
    found = json.loads(output.read_text())["volumes"]
    cuts = [f"{method}, {cut}" for cut in ("all", "±60°") for method in ("FBP", "SIRT", "CryoLithe fast")]
    assert set(cuts) | {"FBP + Gaussian, ±60°", "Noise2Noise U-Net, ±60°"} == set(found)
    for label, values in found.items():
        assert -1 <= values["correlation_beyond"] <= 1
        assert values["held_out"] == label.endswith("±60°")
        assert values["halves_measured"] is None or -1 <= values["halves_measured"] <= 1
    # What 77 tilts show of a round needle, and what a missing wedge does to it.
    assert found["FBP, all"]["depth_over_width"] == pytest.approx(1, abs=0.1)
    assert found["FBP, ±60°"]["depth_over_width"] > found["FBP, all"]["depth_over_width"] + 0.05
    assert found["FBP, all"]["correlation_beyond"] > found["FBP, ±60°"]["correlation_beyond"]
    # ... and how much more it draws beside the needle.
    assert found["FBP, ±60°"]["vacuum"] > found["FBP, all"]["vacuum"] > 0
    assert all((tmp_path / name).stat().st_size < 600_000 for name in ("real.png", "needle.quick.png"))
