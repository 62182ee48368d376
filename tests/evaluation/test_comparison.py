"""Comparing methods by halves: laws of the scores, and what is said of them."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
from half_volumes import noise

from cryolithe.arrays.spectra import half_spectrum, spectrum_planes
from cryolithe.comparison.advice import advice, half_db, is_leak
from cryolithe.comparison.gaussian import best_sigma_px, shell_gaussian
from cryolithe.comparison.score import compare, gaussian_alike_px, shared_frequency_per_px
from cryolithe.comparison.value import Candidate, Setting, Target, Truth
from cryolithe.errors import InputError
from cryolithe.fidelity import Region
from cryolithe.geometry import is_measured
from cryolithe.metrics import fourier_shell_correlation

SHAPE = (28, 48, 40)
RANGE = (-60.0, 50.0)
SETTING = Setting(RANGE, "frames", 10.0)


def measured_only(volume, tilt_range=RANGE):
    """What images of a tilt range hold of a volume."""
    spectrum = scipy.fft.rfftn(volume)
    kz, kx = scipy.fft.fftfreq(volume.shape[0])[:, None, None], scipy.fft.rfftfreq(volume.shape[2])
    return scipy.fft.irfftn(spectrum * is_measured(kx, kz, tilt_range), s=volume.shape).astype(np.float32)


@pytest.fixture(scope="module")
def truth():
    # Its spectrum falls slowly, so that in many shells signal and noise are alike.
    return 2 * measured_only(shell_gaussian(noise(SHAPE, 3), 0.6))


@pytest.fixture(scope="module")
def raw(truth):
    halves = [measured_only(truth + 1.5 * noise(SHAPE, seed)) for seed in (5, 6)]
    return Candidate("fbp", "FBP", "raw", halves[0], halves[1], (halves[0] + halves[1]) / 2)


def made(raw, change, name="other", kind="denoiser"):
    return Candidate(name, name, kind, *(change(v) for v in (raw.first, raw.second, raw.whole)))


def test_the_raw_halves_have_the_fsc_of_halves(raw):
    found = compare([raw], SETTING)
    told = fourier_shell_correlation(raw.first, raw.second, tilt_range_deg=RANGE).measured
    np.testing.assert_allclose(found.raw.fsc[1:], told[1:], atol=1e-6)
    assert np.isnan(found.raw.fsc[0])


def test_a_method_that_does_nothing_gains_nothing(raw):
    found = compare([raw, made(raw, lambda v: 3 * v + 7)], SETTING)
    same = found.methods[1]
    np.testing.assert_allclose(same.fsc, found.raw.fsc, atol=1e-5)
    assert same.gain is None
    assert same.worst_change == pytest.approx(0, abs=1e-5)
    assert same.smoothing_px == pytest.approx(0, abs=0.01)
    assert half_db(same) == pytest.approx(half_db(found.raw), abs=1e-4)
    assert same.wedge_share == pytest.approx(found.raw.wedge_share, abs=1e-4)
    assert not is_leak(found, same)
    assert any("other adds nothing, in any shell" in one.text for one in advice(found))


def test_the_signal_itself_reaches_the_ceiling_and_is_no_leak(raw, truth):
    found = compare([raw, Candidate("best", "best", "denoiser", truth, truth, truth)], SETTING)
    best = found.methods[1]
    assert best.half.mean == pytest.approx(best.half.ceiling, rel=0.1)
    low = slice(1, 4)  # where there is signal
    np.testing.assert_allclose(best.fsc[low], found.ceiling[low], atol=0.1)
    assert not is_leak(found, best)
    assert best.gain is not None
    assert best.gain.most > 0.1
    text = " ".join(one.text for one in advice(found))
    assert "best: what it adds from" in text
    assert "To look and to annotate: best" in text


def test_a_denoised_half_that_has_seen_the_other_is_a_leak(raw):
    both = shell_gaussian(raw.whole, 0.7)
    found = compare([raw, Candidate("cheat", "cheat", "denoiser", both, both, both)], SETTING)
    assert is_leak(found, found.methods[1])
    first = advice(found)[0]
    assert first.level == "warning"
    assert first.text.startswith("cheat: leak")
    assert not any("cheat" in one.text for one in advice(found) if one.level == "use")


def test_with_halves_of_tilts_a_filled_gap_is_not_called_a_leak(raw):
    """Neither by the half SNR nor by single shells; that it is above the ceiling is told all the same."""
    both = shell_gaussian(raw.whole, 0.7)
    found = compare([raw, Candidate("filled", "filled", "network", both, both, both)], SETTING)
    some = found.methods[1]
    assert some.leak_shells
    for one in (some, replace(some, leak_shells=())):
        assert is_leak(found, one)
        tilts = replace(found, split="tilts", shared_per_px=0.5, methods=(found.raw, one))
        assert not is_leak(tilts, one)
        told = [a for a in advice(tilts) if a.text.startswith("filled: its halves correlate")]
        assert [a.level for a in told] == ["know"]
        assert not any(": leak" in a.text for a in advice(tilts))


@pytest.mark.parametrize("split", ["frames", "tilts", "volumes"])
def test_numbers_that_are_told_are_above_the_ceiling_that_is_told(raw, split):
    """Also where a method is above it in some shells alone, and below over all."""
    both = shell_gaussian(raw.whole, 0.7)
    found = compare([raw, Candidate("cheat", "cheat", "denoiser", both, both, both)], SETTING)
    low = replace(found.methods[1].half, denoised=(0.5 * found.raw.half.ceiling,) * 2)
    for one in (found.methods[1], replace(found.methods[1], half=low)):
        told = replace(found, split=split, shared_per_px=0.5, methods=(found.raw, one))
        (text,) = [a.text for a in advice(told) if "above the ceiling" in a.text and a.text.startswith("cheat")]
        reached, could = re.search(
            r"\((?:FSC )?([\d.]+)(?: at [^;]+)?; the signal itself could reach ([\d.]+)", text
        ).groups()
        assert float(reached) > float(could)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_a_gaussian_raises_no_shell_and_is_known_by_its_width(raw, sigma):
    found = compare([raw, made(raw, lambda v: shell_gaussian(v, sigma), "gaussian", "linear")], SETTING)
    smooth = found.methods[1]
    kept = np.exp(-2 * (math.pi * sigma * found.frequency_per_px) ** 2) > 1e-5
    assert np.nanmax((smooth.fsc - found.raw.fsc)[kept]) < 1e-3
    assert np.nanmin((smooth.fsc - found.raw.fsc)[kept]) > -1e-3
    assert smooth.gain is None
    assert smooth.smoothing_px == pytest.approx(sigma, rel=0.05)


def test_sharpening_is_no_smoothing():
    frequency = np.linspace(0, 0.5, 20)
    power = np.ones(20)
    assert gaussian_alike_px(power * np.exp(frequency), power, frequency) == 0
    assert gaussian_alike_px(power, power, frequency) == 0


def test_the_width_that_the_halves_choose_is_the_best_of_all(raw):
    sigma = best_sigma_px(raw.first, raw.second)
    found = {
        s: np.corrcoef(shell_gaussian(raw.first, s).ravel(), raw.second.ravel())[0, 1] for s in (0.0, 0.5, 1.0, 3.0)
    }
    best = np.corrcoef(shell_gaussian(raw.first, sigma).ravel(), raw.second.ravel())[0, 1]
    assert best >= max(found.values()) - 1e-6
    assert sigma > 0
    np.testing.assert_array_equal(shell_gaussian(raw.first, 0.0), raw.first)
    assert shell_gaussian(raw.first, 1.5).mean() == pytest.approx(raw.first.mean(), abs=1e-5)


@pytest.mark.parametrize("reach", [(-60.0, 60.0), (-43.0, 44.0), (-70.0, 40.0)])
def test_wedge_energy_of_what_has_no_directions_and_of_an_empty_wedge(reach):
    shape = (48, 48, 48)
    grain = noise(shape, 1)
    setting = Setting(reach, "frames")
    empty = [measured_only(v, reach) for v in (noise(shape, 2), noise(shape, 3))]
    raw = Candidate("fbp", "FBP", "raw", *empty, empty[0] + empty[1])
    found = compare([raw, Candidate("even", "even", "network", grain, grain, shell_gaussian(grain, 1.0))], setting)
    share = 1 - (reach[1] - reach[0]) / 180
    assert found.isotropic_wedge_share == pytest.approx(share)
    assert found.methods[1].wedge_share == pytest.approx(share, abs=0.03)
    assert found.raw.wedge_share < 0.1 * share


def test_half_snr_is_that_of_signal_and_noise():
    level = 1.5
    shape = (32, 48, 48)
    field = noise(shape, 9)  # white: signal and noise have one spectrum, so that all shells and the corners agree
    halves = [field + level * noise(shape, n) for n in (10, 11)]
    found = compare([Candidate("fbp", "FBP", "raw", *halves, halves[0])], Setting((-90.0, 90.0), "volumes"))
    assert found.raw.half.raw == pytest.approx(1 / (1 + level**2), abs=0.02)
    assert half_db(found.raw) == pytest.approx(10 * math.log10(1 / level**2), abs=0.3)


def test_tilts_share_frequencies_up_to_where_their_planes_part(raw):
    assert shared_frequency_per_px(3.0, 100) == pytest.approx(1 / (100 * math.radians(3)))
    assert shared_frequency_per_px(1.0, 4) == 0.5
    found = compare([raw], replace(SETTING, split="tilts", shared_per_px=0.2))
    beyond = found.frequency_per_px > 0.2
    assert np.isnan(found.raw.fsc[beyond]).all()
    assert np.isfinite(found.raw.fsc[1:][~beyond[1:]]).all()
    text = " ".join(one.text for one in advice(found) if one.level == "warning")
    assert "along the tilt axis" in text
    assert "50 Å" in text


def test_halves_that_have_nothing_in_common_are_warned_of():
    halves = [noise(SHAPE, n) for n in (21, 22)]
    found = compare([Candidate("fbp", "FBP", "raw", *halves, halves[0])], SETTING)
    assert any("do not correlate" in one.text for one in advice(found) if one.level == "warning")
    with pytest.raises(InputError, match="share no shell"):
        compare([Candidate("fbp", "FBP", "raw", *halves, halves[0])], replace(SETTING, shared_per_px=0.001))


def test_the_truth_judges_whatever_its_polarity(raw, truth):
    labels = (truth > 0.7).astype(np.int16)
    found = {}
    for sign in (1, -1):
        known = Truth(sign * truth, labels, {"blobs": Region((1,))})
        score = (
            compare([raw, made(raw, lambda v: shell_gaussian(v, 1.0))], replace(SETTING, truth=known)).methods[1].truth
        )
        found[sign] = (score.measured_mean, score.fidelity["blobs"])
        assert score.sign == sign
        assert score.fidelity["blobs"] > 0.3
    assert found[1] == pytest.approx(found[-1], abs=1e-5)


def test_templates_are_found_in_what_holds_them(raw):
    rng = np.random.default_rng(0)
    axis = np.arange(11) - 5.0
    blob = np.exp(-(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) / 8).astype(np.float32)
    places = np.array([(14, 10, 10), (14, 36, 10), (14, 10, 30), (14, 36, 30)])
    volume = 0.02 * rng.standard_normal(SHAPE).astype(np.float32)
    for z, y, x in places:
        volume[z - 5 : z + 6, y - 5 : y + 6, x - 5 : x + 6] += blob
    for dark in (False, True):
        shown = -volume if dark else volume
        halves = [shown + 0.1 * noise(SHAPE, n) for n in (31, 32)]
        target = Target(blob, 1.0, places.astype(float), 80.0, dark)
        same = Candidate("fbp", "FBP", "raw", *halves, shown)
        found = compare([same], replace(SETTING, target=target, tilt_range_deg=(-90.0, 90.0)))
        assert found.raw.matching.known == 4
        assert found.raw.matching.pr_auc > 0.95
        assert any(one.text.startswith("Match templates in the FBP: PR-AUC") for one in advice(found))


def test_what_does_not_fit_is_refused(raw):
    small = raw.first[:, :40]
    for bad in (replace(raw, second=small), replace(raw, whole=small), replace(raw, whole=np.zeros(SHAPE, np.float32))):
        with pytest.raises(InputError):
            compare([bad], SETTING)
    with pytest.raises(InputError, match=r"other: the first half has the shape"):
        compare([raw, Candidate("o", "other", "linear", small, small, small)], SETTING)
    with pytest.raises(InputError, match="nothing to compare"):
        compare([], SETTING)
    with pytest.raises(InputError, match="truth has the shape"):
        compare([raw], replace(SETTING, truth=Truth(small)))


def test_the_filter_has_one_factor_for_each_shell():
    volume = noise((12, 15, 18), 4)
    before, after = half_spectrum(volume), half_spectrum(shell_gaussian(volume, 1.2))
    for plane in spectrum_planes(volume.shape):
        for shell in range(1, 6):
            inside = (plane.shell == shell) & (plane.times > 0)
            if inside.any():
                ratio = np.abs(after[plane.index][inside]) / np.abs(before[plane.index][inside])
                assert np.ptp(ratio) < 1e-3 * ratio.mean()


def test_what_was_warned_of_when_a_volume_was_made_stands_first(raw):
    found = compare([raw, replace(made(raw, lambda v: v), warnings=("hardly trained, only 5 steps",))], SETTING)
    first = advice(found)[0]
    assert (first.level, first.text) == ("warning", "other: hardly trained, only 5 steps.")
    assert all("hardly trained" not in one.text for one in advice(compare([raw], SETTING)))
