"""Augmentation: each change by itself, and that flips keep images and targets together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from test_training import small_config

from cryolithe.artefacts import noise_colour
from cryolithe.geometry import TiltGeometry
from cryolithe.network import Head, build_network
from cryolithe.projector import make_projector
from cryolithe.simulation import Specimen
from cryolithe.training import augment
from cryolithe.training.dataset import draw_run, gather
from cryolithe.training.sections import AugmentSettings, LossSettings
from cryolithe.training.series import make_series

torch.set_num_threads(1)
ANGLES = (-50.0, -20.0, 5.0, 30.0, 60.0)


def blob(shape=(12, 16, 20), seed=0):
    rng = np.random.default_rng(seed)
    volume = rng.standard_normal(shape).astype(np.float32)
    return volume[:, :, ::-1].copy() * np.hanning(shape[2]).astype(np.float32)


@pytest.mark.parametrize("flips", [(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)])
def test_a_flipped_specimen_gives_the_images_under_flipped_angles(flips):
    volume = torch.from_numpy(blob())
    axes = [axis for axis in range(3) if flips[axis]]

    def images(values, angles):
        geometry = TiltGeometry(angles, (16, 20))
        return make_projector(geometry, (12, 20)).forward(values.contiguous())

    expected = images(volume, ANGLES).flip([axis for axis in (1, 2) if flips[axis]])
    found = images(volume.flip(axes), augment.flipped_angles_deg(ANGLES, bool(flips[0]), bool(flips[2])))
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("wavelet", ["haar", "bior3.1", "bior1.3"])
@pytest.mark.parametrize("levels", [0, 1, 2])
@pytest.mark.parametrize("flips", [(True, False, False), (False, True, True), (True, True, True)])
def test_outputs_flip_as_the_volume_does(levels, flips, wavelet):
    head = Head(levels, wavelet)
    volume = torch.from_numpy(blob((8, 12, 16)))
    axes = [axis for axis in range(3) if flips[axis]]
    expected = head.targets(volume.flip(axes).contiguous())
    found = head.flip(head.targets(volume).flip(axes), flips)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_flipped_run_is_a_run_of_the_flipped_series(levels):
    """Drawn with flips from a series = drawn without from the series of the flipped specimen."""
    shape = (16, 24, 16)
    config = small_config(levels, snr_db=(200.0, 200.0), fewest_tilts=9, blocks=3)
    density = blob(shape)
    network = config.network_config()
    plain = make_series(Specimen(density, 10.0), ANGLES, network.head)
    turned = make_series(
        Specimen(np.ascontiguousarray(density[::-1, ::-1, ::-1]), 10.0),
        augment.flipped_angles_deg(ANGLES, True, True),
        network.head,
    )
    flipping = config.model_copy(update={"augment": AugmentSettings(flip_chance=1.0)})
    found = draw_run(plain, flipping, network, np.random.default_rng(3))
    expected = draw_run(turned, config, network, np.random.default_rng(3))
    for name in ("rows", "columns", "angles_rad", "targets"):
        a, b = getattr(found, name), getattr(expected, name)
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max())), name


def test_tilts_are_dropped_half_of_the_time_and_never_below_the_least():
    rng = np.random.default_rng(0)
    counts = [len(augment.drop_tilts(41, 16, 30, 0.5, rng)) for _ in range(800)]
    assert min(counts) == 16
    assert max(counts) == 41
    assert np.mean([count == 41 for count in counts]) == pytest.approx(0.5 + 0.5 / 26, abs=0.05)
    assert len(augment.drop_tilts(10, 16, 30, 1.0, rng)) == 10


def test_a_range_is_cut_at_its_ends_only():
    rng = np.random.default_rng(1)
    angles = np.array([0.0, 3, -3, 6, -6, 9, -9, 12, -12, 15, -15, 18])
    sizes = set()
    for _ in range(100):
        keep = augment.cut_range(angles, 8, rng)
        kept = angles[keep]
        assert (np.diff(keep) > 0).all()
        assert set(kept) == {a for a in angles if kept.min() <= a <= kept.max()}
        sizes.add(len(keep))
    assert sizes == {8, 9, 10, 11, 12}


def test_halves_are_chosen_or_swapped_tilt_by_tilt():
    even, odd = torch.zeros(30, 2, 3), torch.ones(30, 2, 3)
    rng = np.random.default_rng(2)
    whole = {float(augment.mix_halves(even, odd, False, rng).mean()) for _ in range(20)}
    assert whole == {0.0, 1.0}
    mixed = augment.mix_halves(even, odd, True, rng)
    assert set(mixed.mean((1, 2)).tolist()) == {0.0, 1.0}


def test_rows_shift_by_interpolation():
    rows = torch.arange(20.0)[None, :, None].repeat(2, 1, 3)
    shifted = augment.shift_rows(rows, np.array([0.25, -1.5], np.float32), 3)
    assert torch.allclose(shifted[0, :, 0], torch.arange(3.0, 17.0) - 0.25)
    assert torch.allclose(shifted[1, :, 0], torch.arange(3.0, 17.0) + 1.5)
    assert np.abs(augment.draw_shifts(1000, 0.5, np.random.default_rng(0))).max() <= 1.5


def test_a_blur_keeps_the_mean_and_has_a_gaussians_spectrum():
    constant = torch.full((2, 9, 12), 3.0)
    torch.testing.assert_close(augment.blurred_rows(constant, 0.7), constant[:, : 9 - 2 * augment.BLUR_HALO])
    waves = torch.cos(2 * torch.pi * 0.25 * torch.arange(400.0)).expand(1, 5, 400)
    for sigma_px in (0.6, 0.9):
        seen = augment.blurred_rows(waves, sigma_px)[0, 0, 10:-10]
        # exp(-2 π² σ² k²) of a Gaussian; its samples at whole pixels differ where it is narrow
        assert float((seen @ waves[0, 0, 10:-10]) / waves[0, 0, 10:-10].square().sum()) == pytest.approx(
            float(np.exp(-2 * (np.pi * sigma_px * 0.25) ** 2)), abs=0.05
        )


@pytest.mark.parametrize("noiseless", [True, False])
def test_a_blur_colours_noise_and_leaves_its_variance(noiseless):
    series = make_series(Specimen(blob((12, 48, 64)), 10.0), ANGLES, Head(levels=1))
    if not noiseless:
        noise = np.random.default_rng(3).standard_normal((len(ANGLES), 48, 64)).astype(np.float32)
        series = dataclasses.replace(series, images=torch.from_numpy(noise), noiseless=False)
    change = AugmentSettings(blur_px=1.0, blur_chance=1.0, drop_chance=0)
    config = small_config(augment=change, snr_db=(-40.0, -40.0), blocks=20)
    network = build_network(config.network_config()).config
    correlations = []
    for seed in range(8):
        rows = draw_run(series, config, network, np.random.default_rng(seed)).rows
        assert float(rows.square().mean()) == pytest.approx(1, abs=0.1)
        correlations.append(float((rows[:, :, 1:] * rows[:, :, :-1]).mean()))
    # White noise is what the narrowest blurs leave; the widest take neighbours to exp(-1/4).
    assert min(correlations) < 0.2
    assert 0.5 < max(correlations) < 0.8


def test_coloured_noise_has_the_spectrum_that_it_was_given():
    rng = np.random.default_rng(5)
    power = noise_colour.draw_colour(4.0, rng)
    white = torch.from_numpy(rng.standard_normal((400, 48 + 2 * augment.COLOUR_HALO, 64)).astype(np.float32))
    noise = augment.coloured(white, power)
    assert noise.shape == (400, 48, 64)
    assert float(noise.square().mean()) == pytest.approx(1, abs=0.02)
    window = np.hanning(48)[:, None] * np.hanning(64)[None]
    measured = (np.abs(np.fft.fft2(noise.numpy() * window)) ** 2).mean(axis=0)
    radius = np.hypot(np.fft.fftfreq(48)[:, None], np.fft.fftfreq(64)[None])
    wanted = np.exp(np.interp(radius, noise_colour.COLOUR_KNOTS, np.log(power)))
    inner = (radius > 0.05) & (np.abs(radius - 0.06) > 0.03) & (np.abs(radius - 0.125) > 0.03)
    ratio_db = 10 * np.log10(measured[inner] / wanted[inner])
    assert ratio_db.std() < 0.5  # the window smooths a little
    # Rows at both ends of a run know nothing of each other.
    ends = np.mean(noise[:, 0].numpy() * noise[:, -1].numpy())
    assert abs(ends) < 4 / np.sqrt(noise[:, 0].numel() / 4)


def test_colour_replaces_white_noise_of_plain_series_and_of_extra_noise():
    series = make_series(Specimen(blob((12, 48, 64)), 10.0), ANGLES, Head(levels=1))
    noisy = dataclasses.replace(series, images=torch.zeros_like(series.images), noiseless=False)
    change = AugmentSettings(colour_db=6.0, colour_chance=1.0, extra_noise_db=(-40.0, -40.0), drop_chance=0)
    config = small_config(augment=change, snr_db=(-40.0, -40.0), blocks=20)
    network = build_network(config.network_config()).config
    for one in (series, noisy):
        neighbours = []
        for seed in range(8):
            rows = draw_run(one, config, network, np.random.default_rng(seed)).rows
            assert float(rows.square().mean()) == pytest.approx(1, abs=0.15)
            neighbours.append(float((rows[:, :, 1:] * rows[:, :, :-1]).mean()))
        assert max(neighbours) > 0.2
        assert min(neighbours) < 0.1


def test_gain_changes_images_but_not_their_sign():
    rows = torch.ones(200, 1, 11)
    changed = augment.jitter_gain(rows, 0.1, 0.05, np.random.default_rng(0))
    middle = changed[:, 0, 5]
    assert float(middle.log().std()) == pytest.approx(0.1, rel=0.2)
    slope = (changed[:, 0, -1] - changed[:, 0, 0]) / (2 * middle)
    assert float(slope.std()) == pytest.approx(0.05, rel=0.2)
    assert torch.equal(augment.jitter_gain(rows, 0.0, 0.0, np.random.default_rng(0)), rows)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_rescaling_keeps_images_the_projections_of_the_volume(factor):
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (20, 40, 40)), indexing="ij")
    volume = np.exp(-((z - 2) ** 2 + (y + 4) ** 2 + (x - 5) ** 2) / 18).astype(np.float32)
    angles = (-40.0, 0.0, 30.0)
    images = make_projector(TiltGeometry(angles, (40, 40)), (20, 40)).forward(torch.from_numpy(volume)).numpy()
    small, grown = augment.rescaled(images, volume, factor)
    size = round(40 * factor)
    assert grown.shape == (round(20 * factor), size, size)
    geometry = TiltGeometry(angles, (size, size))
    again = make_projector(geometry, (grown.shape[0], size)).forward(torch.from_numpy(grown)).numpy()
    assert np.corrcoef(again.ravel(), small.ravel())[0, 1] > 0.995
    assert np.polyfit(small.ravel(), again.ravel(), 1)[0] == pytest.approx(factor, rel=0.05)  # a longer way through


@pytest.mark.parametrize("shape", [(20, 40, 40), (15, 41, 30)])
def test_what_a_coarser_grid_cannot_hold_is_gone_and_the_rest_is_kept(shape):
    """The finest pattern would come back as a coarse one that is not there."""
    places = np.indices(shape)
    fine = np.where(places.sum(axis=0) % 2, 1.0, -1.0).astype(np.float32)
    slow = np.cos(2 * np.pi * places[2] / 16).astype(np.float32)
    for made in augment.rescaled(fine, fine, 0.6):
        assert made.std() < 0.05
    for made in augment.rescaled(slow, slow, 0.6):
        assert made.std() > 0.8 * slow.std()


def test_misalignment_moves_points_and_rows():
    config = small_config(0, snr_db=(200.0, 200.0), fewest_tilts=9)
    series = make_series(Specimen(blob((16, 24, 16)), 10.0), ANGLES, Head(0))
    still = draw_run(series, config, config.network_config(), np.random.default_rng(3))
    shaken = config.model_copy(update={"augment": AugmentSettings(shift_px=0.5)})
    moved = draw_run(series, shaken, config.network_config(), np.random.default_rng(3))
    assert still.rows.shape == moved.rows.shape
    shift = moved.columns - still.columns
    assert 0 < float(shift.abs().max()) <= 1.5
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-4)  # one for each image


@pytest.mark.parametrize("levels", [0, 1])
def test_a_cube_is_contiguous_and_becomes_voxels(levels):
    from cryolithe.training.losses import cube_voxels

    config = small_config(levels, fewest_tilts=9, loss=LossSettings(fsc=1.0, cube=(6, 7, 8)))
    volume = blob((16, 24, 20))
    head = config.network_config().head
    series = make_series(Specimen(volume, 10.0), ANGLES, head)
    series = dataclasses.replace(series, target_std=1.0)
    run = draw_run(series, config, config.network_config(), np.random.default_rng(0))
    assert run.cube == (6, 7, 8)
    found = cube_voxels(run.targets, run.cube, head).numpy()
    assert found.shape == tuple(head.stride * (n - 2 * head.margin) for n in run.cube)
    windows = np.lib.stride_tricks.sliding_window_view(volume, found.shape)
    assert np.abs(windows - found).max((-3, -2, -1)).min() < 1e-4
    network = build_network(config.network_config())
    batch = gather(run, network.config, torch.device("cpu"))
    out = network(batch.windows, batch.visible, network.tilt_context(batch.angles_rad))
    assert out.shape == run.targets.shape
