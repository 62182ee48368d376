"""Gaps, tiles, grey levels, and the two steps that make a plane."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cryolithe.arrays.folding import reflected
from cryolithe.denoising.guard import examine, spectra
from cryolithe.denoising.output import as_type
from cryolithe.denoising.samba.gaps import gaps_of, neighbours, training_gap, training_pairs
from cryolithe.denoising.samba.inference import Inference
from cryolithe.denoising.samba.low import KeptLow, crossover_per_px, sigma_px
from cryolithe.denoising.samba.tiles import Blend, tiles
from cryolithe.denoising.scale import LIMIT, survey
from cryolithe.errors import InputError
from cryolithe.metrics import fourier_shell_correlation
from cryolithe.optimise.distributed import Place

PLACE = Place(torch.device("cpu"))


class Mean(nn.Module):
    """A network that only averages: everything it makes is known in closed form."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, first, second):
        self.calls += first.shape[0]
        return (first + second) / 2


def planes_of(volume, network=None, largest=3, **options):
    usable = np.ptp(volume, axis=(1, 2)) > 0
    inference = Inference(network or Mean(), PLACE, usable, largest, **options)
    return np.stack(list(inference.planes(lambda z: volume[z], 0, len(volume))))


def test_gaps_follow_the_voxel_size_and_the_thickness():
    assert [training_gap(size) for size in (15.72, 7.86, 2.62)] == [3, 6, 10]
    assert gaps_of(None, 7.86, 400) == (6, 12)
    assert gaps_of(None, 7.86, 21) == (5, 10)
    assert gaps_of(5, 7.86, 400) == (3, 5)
    assert gaps_of(None, None, 400) == (3, 6)
    assert gaps_of(20, None, 3) == (1, 1)


def test_triplets_are_all_there_are():
    usable = np.ones(9, dtype=bool)
    usable[4] = False
    wanted = {
        (z, gap) for gap in (1, 2, 3) for z in range(9)
        if z - gap >= 0 and z + gap < 9 and usable[[z - gap, z, z + gap]].all()
    }  # fmt: skip
    assert {tuple(row) for row in training_pairs(usable, 3).tolist()} == wanted


def test_every_plane_with_content_has_neighbours_and_no_pair_leaves_the_volume():
    usable = np.ones(20, dtype=bool)
    usable[[0, 7]] = False
    for z in range(20):
        pairs = neighbours(z, usable, 6)
        assert bool(pairs) == usable[z]
        assert all(usable[a] and usable[b] for a, b in pairs)
        # Pairs lie symmetrically about the plane or are mirrored.
        assert all(a + b == 2 * z or a == b for a, b in pairs)
    assert neighbours(10, np.ones(21, dtype=bool), 4) == [(9, 11), (8, 12), (7, 13), (6, 14)]
    assert neighbours(0, np.ones(21, dtype=bool), 4) == [(1, 1), (2, 2), (3, 3)]


def test_one_step_back_one_step_forward():
    volume = np.random.default_rng(0).standard_normal((14, 4, 6)).astype(np.float32)
    found = planes_of(volume, largest=3)
    for z in range(3, 11):  # half of the plane itself, a quarter of each neighbour, mean over the gaps
        wanted = np.mean([volume[z] / 2 + (volume[z - g] + volume[z + g]) / 4 for g in (1, 2, 3)], axis=0)
        np.testing.assert_allclose(found[z], wanted, atol=1e-6)
    np.testing.assert_allclose(found[0], np.mean([volume[0] / 2 + volume[g] / 2 for g in (1, 2, 3)], axis=0), atol=1e-6)


def test_each_interpolation_is_made_once():
    network = Mean()
    volume = np.random.default_rng(0).standard_normal((40, 2, 2)).astype(np.float32)
    planes_of(volume, network, largest=4)
    assert network.calls <= 2 * 4 * 40


def test_where_a_run_starts_does_not_matter():
    volume = np.random.default_rng(1).standard_normal((16, 3, 3)).astype(np.float32)
    whole = planes_of(volume, largest=4)
    inference = Inference(Mean(), PLACE, np.ones(16, dtype=bool), 4, batch=3)
    part = np.stack(list(inference.planes(lambda z: volume[z], 9, 16)))
    np.testing.assert_array_equal(part, whole[9:])


def test_running_means_are_the_smaller_gaps():
    volume = np.random.default_rng(1).standard_normal((16, 3, 3)).astype(np.float32)
    inference = Inference(Mean(), PLACE, np.ones(16, dtype=bool), 4)
    found = inference.running_means(lambda z: volume[z], 8, [1, 3, 4])
    for gap, plane in zip((1, 3, 4), found, strict=True):
        np.testing.assert_allclose(plane, planes_of(volume, largest=gap)[8], atol=1e-6)


class Uneven(nn.Module):
    """A network that is not symmetric: it adds a ramp along x and along y."""

    def forward(self, first, second):
        height, width = first.shape[2:]
        ramp = torch.linspace(-1, 1, width) + torch.linspace(-1, 1, height)[:, None]
        return (first + second) / 2 + ramp


def test_flips_cancel_what_depends_on_direction():
    volume = np.random.default_rng(2).standard_normal((8, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(planes_of(volume, Uneven(), augment=True), planes_of(volume), atol=1e-5)
    assert np.abs(planes_of(volume, Uneven()) - planes_of(volume)).max() > 1


def test_plane_averaging_modulates_and_two_steps_do_not():
    """Figure S2 for a network that only averages: direct interpolation has negative transfer, two steps have none."""
    rng = np.random.default_rng(3)
    volume = rng.standard_normal((96, 6, 6)).astype(np.float32)
    inference = Inference(Mean(), PLACE, np.ones(96, dtype=bool), 3)
    inner = range(16, 80)
    direct = np.stack([inference.direct(lambda z: volume[z], z) for z in inner])
    samba = planes_of(volume, largest=3)[16:80]

    def transfer(after):
        a, b = (np.fft.rfft(v, axis=0) for v in (volume[16:80], after))
        return (b * a.conj()).real.sum(axis=(1, 2)) / (np.abs(a) ** 2).sum(axis=(1, 2))

    assert transfer(direct).min() < -0.2
    assert transfer(samba).min() > 0.2


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 150), st.integers(5, 150), st.sampled_from([64, 96]), st.sampled_from([8, 16, 32]))
def test_tiles_put_together_are_the_plane(height, width, crop, overlap):
    if crop < 2 * overlap:
        return
    plane = np.random.default_rng(0).standard_normal((height, width)).astype(np.float32)
    parts = tiles((height, width), crop, overlap, 16)
    assert all(span.length % 16 == 0 and span.length <= crop for tile in parts for span in tile)
    pieces = [plane[np.ix_(y.indices(), x.indices())] for y, x in parts]
    np.testing.assert_allclose(Blend(parts, overlap)(iter(pieces)), plane, atol=1e-5)


def test_a_blend_has_no_step_at_seams():
    """Tiles that disagree by a constant are joined by a passage, not by a step."""
    parts = tiles((64, 96), 64, 32, 16)
    assert len(parts) == 2
    pieces = [np.full((64, 64), float(n), np.float32) for n in range(2)]
    plane = Blend(parts, 32)(iter(pieces))
    assert np.abs(np.diff(plane, axis=1)).max() < 0.1


def test_reflection_repeats_no_edge():
    assert reflected(np.arange(-3, 8), 5).tolist() == [3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]
    assert reflected(np.arange(-2, 3), 1).tolist() == [0] * 5


def test_grey_levels_do_not_mind_hot_voxels_and_gold():
    rng = np.random.default_rng(0)
    volume = (100 + 3 * rng.standard_normal((6, 64, 64))).astype(np.float32)
    plain = survey(lambda z: volume[z], 6, False, "v").scale
    spoilt = volume.copy()
    spoilt[2, 5, 5], spoilt[3, 9, 9] = 1e9, -1e7
    spoilt[4, 20:30, 20:30] = -200  # a bead
    scale = survey(lambda z: spoilt[z], 6, False, "v").scale
    assert scale.centre == pytest.approx(plain.centre, abs=0.1)
    assert scale.unit == pytest.approx(plain.unit, rel=0.02)
    assert scale.unit == pytest.approx(15, rel=0.03)
    assert np.abs(scale.apply(spoilt[2])).max() == LIMIT
    np.testing.assert_allclose(scale.undo(scale.apply(volume[0])), volume[0], atol=1e-3)


def test_nan_and_constant_planes_are_found():
    volume = np.random.default_rng(0).standard_normal((6, 8, 8)).astype(np.float32)
    volume[3], volume[4, 1, 1] = 7, np.nan
    with pytest.raises(InputError, match=r"1 voxels in plane 5 .*--fix-nonfinite"):
        survey(lambda z: volume[z], 6, False, "v")
    found = survey(lambda z: volume[z], 6, True, "v")
    assert found.usable.tolist() == [True, True, True, False, True, True]
    assert found.repaired == 1
    assert np.isfinite(found.scale.apply(volume[4])).all()
    with pytest.raises(InputError, match="constant"):
        survey(lambda z: np.ones((4, 4)), 3, False, "v")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float16, np.float32])
def test_values_fit_their_type(dtype):
    values = np.array([-1e12, -200.4, -0.6, 0.4, 1.6, 70000.2, 1e12], np.float32)
    stored = as_type(values, np.dtype(dtype))
    assert stored.dtype == dtype
    assert np.isfinite(stored.astype(np.float64)).all()
    assert (np.diff(stored.astype(np.float64)) >= 0).all()
    assert stored[4] == (2 if np.dtype(dtype).kind in "ui" else pytest.approx(1.6, rel=1e-3))


def smooth_volume():
    rng = np.random.default_rng(0)
    f = [np.fft.fftfreq(32)[:, None, None], np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32)]
    shape = 1 / (1 + (np.sqrt(f[0] ** 2 + f[1] ** 2 + f[2] ** 2) / 0.08) ** 4)
    return np.fft.ifftn(np.fft.fftn(rng.standard_normal((32, 32, 32))) * shape).real, rng


def test_the_guard_is_content_with_a_volume_that_did_not_change():
    volume, rng = smooth_volume()
    noisy = volume + 0.3 * volume.std() * rng.standard_normal(volume.shape)
    found = examine(noisy, noisy)
    assert found.warnings == ()
    np.testing.assert_allclose(found.spectra.shell_transfer[1:], 1, atol=1e-6)
    assert examine(noisy, 0.98 * noisy).warnings == ()


def test_the_guard_sees_lost_signal_and_new_energy():
    volume, rng = smooth_volume()
    flat = volume - volume.mean(axis=0)  # what is alike in all planes ...
    assert any("signal may have been lost" in text for text in examine(volume, flat * 0.2).warnings)
    # ... and energy where the input has next to none.
    loud = volume + 0.5 * volume.std() * rng.standard_normal(volume.shape)
    assert any("energy appeared" in text for text in examine(volume, loud).warnings)
    assert not any("energy" in text for text in examine(loud, volume).warnings)


@pytest.mark.parametrize(("sigma_px", "warned"), [(0.0, False), (0.6, False), (2.0, True), (3.0, True)])
def test_the_guard_warns_by_the_curves_that_it_draws(sigma_px, warned):
    # Structure and noise that neighbouring planes share, as in a tomogram: the planes cannot tell them apart.
    rng = np.random.default_rng(1)
    volume = scipy.ndimage.gaussian_filter(rng.standard_normal((48, 48, 48)), (3.0, 0.0, 0.0))
    found = examine(volume, scipy.ndimage.gaussian_filter(volume, (0.0, sigma_px, sigma_px)))
    said = [text for text in found.warnings if "neighbouring planes" in text or "signal may have been lost" in text]
    assert bool(said) == warned, found.warnings
    # What is said follows from what the picture shows.
    shells = (found.spectra.shell_per_px > 0) & (found.spectra.shell_per_px < 0.5) & (found.coherence >= 0.5)
    kept = (found.spectra.shell_transfer[shells] / found.coherence[shells]).mean()
    assert found.kept == pytest.approx(kept)
    assert warned == (kept < 1 / 3 or bool((found.spectra.shell_transfer < found.warned_below).any()))


def test_the_guard_uses_halves():
    volume, rng = smooth_volume()
    a, b = (volume + volume.std() * rng.standard_normal(volume.shape) for _ in range(2))
    found = examine((a + b) / 2, volume, (a, b, volume, volume))
    assert found.coherence_from == "even and odd halves"
    assert found.fsc_halves is not None
    raw, new = found.fsc_halves
    assert raw[8] < 0.9
    np.testing.assert_allclose(new[1:], 1)


def test_low_frequencies_are_the_input_s_and_high_ones_the_output_s():
    volume, rng = smooth_volume()
    clean = (volume / volume.std()).astype(np.float32)
    noisy = clean + 0.5 * rng.standard_normal(clean.shape).astype(np.float32)
    dull = (0.7 * clean).astype(np.float32)  # a method that takes noise away, and some of everything with it
    found = crossover_per_px(noisy, dull)
    curve = fourier_shell_correlation(noisy, dull)
    assert np.interp(found, curve.frequency_per_px[1:], curve.total[1:]) == pytest.approx(0.95, abs=0.01)
    assert crossover_per_px(clean, clean) == curve.frequency_per_px[-1]
    assert crossover_per_px(clean, -clean) == 0
    assert sigma_px(0.0) is None
    sigma = sigma_px(0.1)
    assert math.exp(-2 * (math.pi * 0.1 * sigma) ** 2) == pytest.approx(0.5)
    usable = np.ones(32, bool)
    usable[[0, 20]] = False
    low = KeptLow(noisy.__getitem__, dull.__getitem__, usable, sigma)
    made = {z: low.plane(z) for z in range(32) if usable[z]}
    # The same by a library, far from the ends and from planes that take no part.
    wanted = dull + scipy.ndimage.gaussian_filter(noisy - dull, sigma, mode="nearest", truncate=4.0)
    for z in (9, 10, 11):
        np.testing.assert_allclose(made[z], wanted[z], atol=1e-4)
    before, after = (np.fft.rfftn(np.stack([made[z] - v[z] for z in made])) for v in (noisy, dull))
    assert np.abs(before[0, 0, 0]) < 0.02 * np.abs(after[0, 0, 0])  # the mean is the input's
    constant = KeptLow(lambda z: np.full((4, 5), 3.0, np.float32), lambda z: np.zeros((4, 5), np.float32), usable, 3.0)
    for z in (1, 2, 19, 31):
        np.testing.assert_allclose(constant.plane(z), 3.0, rtol=1e-6)


def test_what_the_guard_sees_does_not_depend_on_the_axis_that_the_transform_halves():
    before, after = np.random.default_rng(0).standard_normal((2, 12, 16, 16)).astype(np.float32)
    one, other = spectra(before, after), spectra(before.transpose(0, 2, 1), after.transpose(0, 2, 1))
    for name in ("before", "after", "transfer", "shell_ratio", "shell_transfer"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-4, nan_ok=True), name
