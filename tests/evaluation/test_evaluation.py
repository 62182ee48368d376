"""Laws, closed forms and independent implementations for the scores of `cryolithe evaluate`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.feature import match_template
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cryolithe.arrays.spectra import half_spectrum
from cryolithe.errors import FileFormatError, InputError
from cryolithe.evaluation import similarity as similarity_module
from cryolithe.evaluation.heldout import Choice
from cryolithe.evaluation.local import agreement_map, agreement_slabs, summarise
from cryolithe.evaluation.matching import ball_mask, correlate, even_rotations, find_template, rotated_templates
from cryolithe.evaluation.picking import (
    match,
    pick_blobs,
    picking_score,
    precision_recall,
    spaced_maxima,
    unbinned,
)
from cryolithe.evaluation.reprojection import reproject
from cryolithe.evaluation.similarity import half_snr, pair_moments, region_snr, similarity
from cryolithe.evaluation.spectral import cone_correlation, cone_directions, ring_correlation
from cryolithe.evaluation.wedge import wedge_energy
from cryolithe.formats.particles.star import Particle, read_positions, write_particles
from cryolithe.geometry import TiltGeometry, is_measured
from cryolithe.metrics import fourier_shell_correlation, scaled_snr_db
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.tilts import TiltSeries

SHAPE = (36, 40, 44)


def noise(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def grids(shape):
    return np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")


def filtered(volume, keep):
    return np.fft.ifftn(np.fft.fftn(volume) * keep).real.astype(np.float32)


# --- Fourier space


def cone_fsc(a, b):
    return cone_correlation(half_spectrum(a), half_spectrum(b), a.shape)


@pytest.mark.parametrize("shape", [(16, 18, 21), (15, 15, 15)])
def test_cones_agree_with_a_loop_over_the_full_spectrum(shape):
    a, b = noise(shape, 1), noise(shape, 2) + noise(shape, 1)
    found = cone_fsc(a, b)
    fa, fb = np.fft.fftn(a - a.mean()), np.fft.fftn(b - b.mean())
    kz, ky, kx = grids(shape)
    radius = np.sqrt(kz**2 + ky**2 + kx**2)
    _, _, vectors = cone_directions()
    for number in (0, 5, 11, 12):
        dz, dy, dx = vectors[number]
        inside = np.abs(kz * dz + ky * dy + kx * dx) >= math.cos(math.radians(20)) * radius
        # A Nyquist coefficient has no sign, and so no side: not the last shell.
        for shell in range(1, min(shape) // 2):
            keep = inside & (np.floor(radius * min(shape) + 0.5) == shell)
            if keep.sum() < 6:
                assert np.isnan(found.values[number, shell])
                continue
            x, y = fa[keep], fb[keep]
            expected = (x * y.conj()).sum().real / math.sqrt((abs(x) ** 2).sum() * (abs(y) ** 2).sum())
            assert found.values[number, shell] == pytest.approx(expected, abs=1e-4)


def test_a_known_filter_and_white_noise_give_the_closed_form_in_cones_and_shells():
    """b = h * a + n: FSC = h / sqrt(h² + σ²), whatever the sign-free filter h of the radius is."""
    a = noise((48, 48, 48), 1)
    radius = np.sqrt(sum(f**2 for f in grids(a.shape)))
    b = filtered(a, np.exp(-((radius / 0.3) ** 2))) + 0.5 * noise(a.shape, 2)
    cones = cone_fsc(a, b)
    h = np.exp(-((cones.frequency_per_px / 0.3) ** 2))
    expected = h / np.sqrt(h**2 + 0.25)
    assert fourier_shell_correlation(a, b).total[4:] == pytest.approx(expected[4:], abs=0.04)
    difference = np.nanmean(cones.values[:, 6:], axis=0) - expected[6:]
    assert np.abs(difference).max() < 0.1  # a cone holds one in sixteen coefficients
    assert abs(difference.mean()) < 0.015


def test_shells_agree_with_another_library():
    fsc = pytest.importorskip("torch_fourier_shell_correlation").fourier_shell_correlation
    a = gaussian_filter(noise((40, 40, 40), 1), 0.8)
    b = a + 0.15 * noise(a.shape, 2)
    other = fsc(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    ours = fourier_shell_correlation(a, b).total
    # It shares coefficients between neighbouring shells, where ours go to the nearest.
    assert ours[3:-1] == pytest.approx(other[3:-1], abs=0.03)


def test_rings_agree_with_another_library_and_the_closed_form():
    frc = pytest.importorskip("torch_fourier_shell_correlation").fourier_ring_correlation
    a = noise((128, 128), 1)
    radius = np.hypot(*grids(a.shape))
    b = filtered(a, np.exp(-((radius / 0.3) ** 2))) + 0.5 * noise(a.shape, 2)
    frequency, ours = ring_correlation(a, b)
    h = np.exp(-((frequency / 0.3) ** 2))
    assert ours[8:] == pytest.approx((h / np.sqrt(h**2 + 0.25))[8:], abs=0.15)
    other = frc(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert np.mean(np.abs(ours[4:-1] - other[4:-1])) < 0.03
    _, itself = ring_correlation(a, -2 * a + 5)
    assert itself[1:] == pytest.approx(-1, abs=1e-5)


def test_only_directions_inside_the_tilt_range_agree():
    a, other = noise((48, 48, 48), 1), noise((48, 48, 48), 2)
    kz, _, kx = grids(a.shape)
    keep = is_measured(kx, kz, (-20, 60))
    cones = cone_fsc(a, filtered(a, keep) + filtered(other, ~keep))
    mean = dict(zip(cones.names, np.nanmean(cones.values[:, 3:-1], axis=1), strict=True))
    assert mean["x"] > 0.97
    assert mean["+30°"] > 0.97  # an image at +30° lies inside -20..60°, one at -45° does not
    assert abs(mean["-60°"]) < 0.15
    assert abs(mean["z"]) < 0.2


def test_wedge_energy_of_white_noise_filled_and_emptied():
    white = noise((64, 64, 64), 3)
    full = wedge_energy(white, (-60, 60))
    assert full.fill == pytest.approx(1, abs=0.03)
    assert full.share == pytest.approx(1 / 3, abs=0.02)  # 60° of 180°
    assert full.streak_index < 0.1
    kz, _, kx = grids(white.shape)
    empty = wedge_energy(filtered(white, is_measured(kx, kz, (-60, 60))), (-60, 60))
    assert empty.fill < 0.05  # what the tapered ends let leak
    half = wedge_energy(filtered(white, np.where(is_measured(kx, kz, (-60, 60)), 1, np.sqrt(0.5))), (-60, 60))
    assert half.fill == pytest.approx(0.5, abs=0.05)


def test_streak_index_of_an_empty_wedge_has_a_closed_form():
    white = noise((96, 96, 96), 4)
    kz, _, kx = grids(white.shape)
    reach = 62.5 if len(wedge_energy(white, (-60, 60)).angle_deg) == 36 else 56.25  # borders of bins of 5° or 7.5°
    found = wedge_energy(filtered(white, is_measured(kx, kz, (-reach, reach))), (-reach, reach))
    bins = len(found.angle_deg)
    assert found.streak_index == pytest.approx(180 / (2 * reach) * math.sqrt(2 / bins), rel=0.12)


# --- real space


def test_similarity_is_that_of_other_implementations():
    a = gaussian_filter(noise(seed=1), 1.5) * 7 + 3
    b = -2 * a + 0.8 * noise(seed=2) + 100
    b = -b
    found = similarity(a, b)
    assert found.correlation == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert found.snr_db == pytest.approx(scaled_snr_db(a, b))
    x, y = ((v - v.mean(dtype=np.float64)) / v.std(dtype=np.float64) for v in (a, b))
    assert found.psnr_db == pytest.approx(peak_signal_noise_ratio(x, y, data_range=np.ptp(x)), abs=1e-4)
    assert found.ssim == pytest.approx(structural_similarity(x, y, data_range=np.ptp(x)), abs=1e-5)
    assert similarity(a, 3 * a - 2).ssim == pytest.approx(1, abs=1e-5)


def test_ssim_does_not_depend_on_the_slabs(monkeypatch):
    a, b = noise(seed=1), noise(seed=1) + noise(seed=2)
    whole = similarity(a, b).ssim
    monkeypatch.setattr(similarity_module, "SSIM_SLAB_PX", 5)
    assert similarity(a, b).ssim == pytest.approx(whole, abs=1e-6)
    inside = np.zeros(SHAPE, dtype=bool)
    inside[10:20, 12:30, 9:21] = True
    x, y = ((v - v[inside].mean()) / v[inside].std() for v in (a, b))
    _, values = structural_similarity(x, y, data_range=np.ptp(x[inside]), full=True)
    assert similarity(a, b, inside).ssim == pytest.approx(values[inside].mean(), abs=1e-5)


@pytest.mark.parametrize("snr", [0.1, 1.0, 10.0])
def test_snr_from_synthetic_halves(snr):
    signal = math.sqrt(snr) * noise((64, 64, 64), 1)
    found = half_snr(signal + noise(signal.shape, 2), signal + noise(signal.shape, 3))
    tolerance = 0.4 if snr < 1 else 0.15  # three standard errors: 1 / 512 of a correlation of 0.09
    assert found.half_db == pytest.approx(10 * math.log10(snr), abs=tolerance)
    assert found.whole_db == pytest.approx(10 * math.log10(2 * snr), abs=tolerance)
    assert math.isnan(half_snr(signal, -signal).half_db)


def test_moments_of_a_constant_volume_are_refused():
    with pytest.raises(InputError, match="second volume is constant in the 63360 voxels"):
        pair_moments(noise(), np.ones(SHAPE, dtype=np.float32))


def test_region_snr_of_balls_of_known_contrast():
    volume = 0.5 * noise((60, 60, 60), 5)
    z, y, x = np.ogrid[:60, :60, :60]
    positions = np.array([[15.0, 15, 15], [15, 44, 30], [44, 30, 44]])
    for p in positions:
        volume[(z - p[0]) ** 2 + (y - p[1]) ** 2 + (x - p[2]) ** 2 <= 25] -= 2
    found = region_snr(volume, positions, 10.0)
    assert found is not None
    assert found.pairs == 3
    assert found.snr_db == pytest.approx(10 * math.log10(2**2 / 0.5**2), abs=0.5)
    assert region_snr(volume, positions, 50.0) is None
    crowd = np.stack(np.meshgrid(*[np.arange(0, 60, 5.0)] * 3), axis=-1).reshape(-1, 3)
    assert region_snr(volume, crowd, 10.0) is None


def test_local_agreement_in_the_limits_and_across_slabs():
    a, b = noise((150, 20, 24), 1), noise((150, 20, 24), 2)
    assert agreement_map(a, 2 * a + 1, 2.5) == pytest.approx(1, abs=1e-3)
    assert agreement_map(a, -a, 2.5) == pytest.approx(-1, abs=1e-3)
    assert abs(agreement_map(a, b, 2.5).mean()) < 0.02
    c = b.copy()
    c[:75] = a[:75]
    found = agreement_map(a, c, 2.5)
    assert found[:60] == pytest.approx(1, abs=1e-3)
    assert abs(found[90:].mean()) < 0.05
    x, y = (v.astype(np.float64) for v in (a, c))

    def mean(v):
        return gaussian_filter(v, 2.5, truncate=3.0)

    whole = (mean(x * y) - mean(x) * mean(y)) / np.sqrt((mean(x * x) - mean(x) ** 2) * (mean(y * y) - mean(y) ** 2))
    assert found == pytest.approx(whole, abs=1e-3)
    assert summarise(found, 2.5).share_above["0.8"] == pytest.approx(0.5, abs=0.05)


# --- reprojection


def held_out(*numbers):
    return Choice(numbers, "held out", "for a test")


def test_the_right_volume_predicts_a_held_out_image_and_a_mirrored_one_does_not():
    density = gaussian_filter(noise((24, 48, 48), 6), 1.5)
    # Fading, for an abrupt edge beside a vacuum without noise is that of a border that an alignment filled in.
    density *= np.clip((20 - np.abs(np.arange(48) - 23.5)) / 8, 0, 1).astype(np.float32)
    angles = tuple(float(a) for a in np.arange(-60, 61, 6))
    geometry = TiltGeometry(angles, (48, 48))
    projector = make_projector(geometry, (24, 48))
    images = projector.forward(torch.from_numpy(density)).numpy()
    series = TiltSeries(images, geometry, 10.0)
    exact, pictures = reproject(density, series, held_out(0, 3, 10))
    assert exact.correlation == pytest.approx(1, abs=1e-4)
    assert exact.ring_correlation[2:] == pytest.approx(1, abs=1e-3)
    assert [p.angle_deg for p in pictures] == [0.0, -60.0]
    kept = [n for n in range(21) if n not in (3, 17)]
    rows = torch.from_numpy(images[kept] - images[kept].mean(axis=(1, 2), keepdims=True))
    volume = fbp(make_projector(geometry.select(kept), (24, 48)), rows).numpy()
    found = reproject(volume, series, held_out(3, 17))[0].mean_correlation
    mirrored = reproject(volume[::-1].copy(), series, held_out(3, 17))[0].mean_correlation
    assert found > 0.75
    assert mirrored < found - 0.3
    binned = TiltSeries(np.repeat(np.repeat(images, 2, axis=1), 2, axis=2), TiltGeometry(angles, (96, 96)), 5.0)
    assert reproject(density, binned, held_out(3, 10))[0].binning == 2
    with pytest.raises(InputError, match=r"the images have 48 rows \(y\) but the volume has 40"):
        reproject(density[:, :40], series, held_out(3))


# --- particles


def blobs(shape, positions, sigma):
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    out = np.zeros(shape, dtype=np.float32)
    for p in positions:
        out += np.exp(-((z - p[0]) ** 2 + (y - p[1]) ** 2 + (x - p[2]) ** 2) / (2 * sigma**2)).astype(np.float32)
    return out


@pytest.mark.parametrize("diameter", [10.0, 28.0])  # the larger one is picked in a binned volume
def test_blobs_are_picked_where_they_are(diameter):
    rng = np.random.default_rng(7)
    wanted = np.array([[20.0, 20, 20], [20, 70, 30], [60, 30, 72], [66, 75, 70]]) + rng.uniform(-1, 1, (4, 3))
    volume = blobs((90, 96, 98), wanted, diameter / 4) + 0.02 * noise((90, 96, 98), 8)
    picks, scores = pick_blobs(volume, diameter, most=4)
    assert (np.diff(scores) <= 0).all()
    hits = match(picks, wanted, diameter / 10 + 1)
    assert hits.all()
    score = picking_score(hits, 5, 280.0)
    assert (score.precision, score.recall, score.f1) == (1.0, 0.8, pytest.approx(8 / 9))
    assert score.tolerance_angstrom == 80  # 8 nm for a ribosome of 28 nm


def test_maxima_keep_their_distance_and_order():
    volume = np.zeros((20, 20, 20))
    volume[5, 5, 5], volume[5, 5, 9], volume[15, 15, 15] = 3, 2, 1
    positions, values = spaced_maxima(volume, 5.0, 10)
    assert values.tolist() == [3, 1]
    assert positions.tolist() == [[5, 5, 5], [15, 15, 15]]
    assert unbinned(np.array([0.0]), 4).tolist() == [1.5]


def test_each_known_position_is_found_once():
    known = np.array([[0.0, 0, 0], [10, 0, 0]])
    found = np.array([[1.0, 0, 0], [0.5, 0, 0], [10, 0, 1], [30, 0, 0]])
    assert match(found, known, 2.0).tolist() == [True, False, True, False]
    assert match(np.zeros((0, 3)), known, 2.0).tolist() == []
    empty = picking_score(np.zeros(0, dtype=bool), 2, 280.0)
    assert (empty.precision, empty.recall, empty.f1) == (0.0, 0.0, 0.0)


def test_area_under_the_precision_recall_curve():
    assert precision_recall(np.ones(5, dtype=bool), 5)[2] == pytest.approx(1)
    assert precision_recall(np.ones(5, dtype=bool), 10)[2] == pytest.approx(0.5)
    precision, recall, area = precision_recall(np.array([True, False, True]), 2)
    assert precision.tolist() == [1, 0.5, pytest.approx(2 / 3)]
    assert recall.tolist() == [0.5, 0.5, 1]
    assert area == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_correlation_with_a_template_is_that_of_scikit_image():
    volume, template = noise((24, 26, 28), 9), noise((7, 7, 7), 10)
    ours = correlate(volume, iter([template]), np.ones((7, 7, 7), dtype=np.float32))
    other = match_template(volume, template)  # only where the template fits
    assert ours[3:-3, 3:-3, 3:-3] == pytest.approx(other, abs=1e-3)


def test_rotations_are_spread_evenly():
    matrices = even_rotations(400).as_matrix()
    assert np.abs(matrices.mean(axis=0)).max() < 0.02  # no direction is favoured
    first = next(rotated_templates(blobs((15, 15, 15), [(7, 7, 7)], 2.0), 1.0, 12.0, None, 1))
    assert first.shape == (15, 15, 15)
    assert np.unravel_index(first.argmax(), first.shape) == (7, 7, 7)
    assert ball_mask(15, 10.0).sum() == pytest.approx(4 / 3 * math.pi * 6**3, rel=0.05)


def test_a_template_is_found_among_others(monkeypatch):
    monkeypatch.setattr("cryolithe.evaluation.matching.ROTATIONS", 60)
    bar = blobs((15, 15, 15), [(7, 7, 3), (7, 7, 7), (7, 7, 11)], 1.5)
    wanted = np.array([[12.0, 12, 12], [30, 34, 14]])
    volume = 0.2 * noise((44, 48, 48), 11) + blobs((44, 48, 48), [(14, 36, 36), (32, 12, 36)], 2.5)
    for z, y, x in wanted.astype(int):
        volume[z - 7 : z + 8, y - 7 : y + 8, x - 7 : x + 8] += bar.transpose(1, 2, 0)
    peaks, scores, factor, tried = find_template(volume, bar, 13.0, 1.0, (-60, 60), 10)
    assert (factor, tried) == (1, 60)
    hits = match(peaks, wanted, 3.0)
    assert hits[:2].all()
    assert 0.4 < scores[0] <= 1


def test_positions_survive_a_star_file(tmp_path):
    made = [Particle("TS_1", "a", 1, (3.0, 4.5, 6.0), (0, 0, 0)), Particle("TS_10", "b", 2, (9.0, 8.0, 7.0), (0, 0, 0))]
    path = tmp_path / "p.star"
    write_particles(path, made, SHAPE, 10.0)
    found = read_positions(path, SHAPE, 10.0, "TS_10_rec.mrc")
    assert found.position_px == pytest.approx(np.array([[9.0, 8.0, 7.0]]), abs=1e-3)
    assert found.kinds == ("b",)
    with pytest.raises(InputError, match=r"particles of 2 tomograms \(TS_1, TS_10\)"):
        read_positions(path, SHAPE, 10.0, "other.mrc")
    with pytest.raises(InputError, match="no voxel size"):
        read_positions(path, SHAPE, None, "TS_1.mrc")
    path.write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n1 2 3\n4 5 6\n")
    assert read_positions(path, SHAPE, None, "x.mrc").position_px.tolist() == [[3, 2, 1], [6, 5, 4]]
    path.write_text("data_\n\nloop_\n_rlnMicrographName #1\na\nb\n")
    with pytest.raises(FileFormatError, match="holds no particle positions"):
        read_positions(path, SHAPE, None, "x.mrc")


@pytest.mark.parametrize("size", [1, 2, 5, 6, 1000, 1001])
@pytest.mark.parametrize("kind", ["noise", "steps", "constant", "ends"])
def test_the_median_of_a_map_that_is_read_in_sections(size, kind):
    rng = np.random.default_rng(size)
    values = {
        "noise": rng.uniform(-1, 1, size),
        "steps": rng.integers(-2, 3, size) / 2,
        "constant": np.full(size, 0.3),
        "ends": np.where(np.arange(size) % 2, 1.0, -1.0),
    }[kind].astype(np.float32)
    found = summarise(values.reshape(size, 1, 1), 4.0)
    assert found.median == float(np.median(values))
    assert found.mean == pytest.approx(values.mean(dtype=np.float64), abs=1e-12)
    assert found.share_above == {"0.5": float((values > 0.5).mean()), "0.8": float((values > 0.8).mean())}


@pytest.mark.parametrize("shape", [(9, 20, 12), (70, 8, 9), (5, 33, 6)])
@pytest.mark.parametrize("memory_bytes", [1, 40_000, 400_000, None])
def test_the_agreement_map_does_not_depend_on_its_blocks(shape, memory_bytes):
    rng = np.random.default_rng(2)
    a = rng.standard_normal(shape).astype(np.float32)
    b = (a + rng.standard_normal(shape)).astype(np.float32)
    whole = agreement_map(a, b, 0.9)
    parts = list(agreement_slabs(a, b, 0.9, memory_bytes))
    assert np.array_equal(np.concatenate([slab for _, slab in parts]), whole)
    assert [start for start, _ in parts] == list(np.cumsum([0, *(len(slab) for _, slab in parts[:-1])]))


def test_spectra_in_a_file_are_those_in_memory(tmp_path):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 10, 12, 14)).astype(np.float32)
    in_file = fourier_shell_correlation(a, b, scratch=tmp_path)
    assert np.array_equal(in_file.total, fourier_shell_correlation(a, b).total, equal_nan=True)
    assert list(tmp_path.iterdir()) == []
