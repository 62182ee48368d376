"""Images that hold noise alone are told of, whatever its colour; those of a specimen never, however faint."""

import numpy as np
import pytest
from pages import ROOT
from scipy.ndimage import gaussian_filter
from shared_data import SHARED, needs_shared
from tiny_series import made, write_model, write_series

import cryolithe
from cryolithe.formats import read_angles_deg, read_mrc
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.evidence.common_lines import coarse_images
from cryolithe.reconstruction.evidence.noise_alone import deviations, noise_warnings
from cryolithe.reconstruction.evidence.strayed_images import Series
from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
from cryolithe.tilts import TiltSeries

ANGLES = np.arange(-60, 61, 3.0)
TOLD = "nothing in common that is told from noise"
COLOURS = [(0, 0, 0), (0, 0.6, 0.6), (0, 2, 2), (0, 0, 4), (0, 4, 0)]


def prepared(images, angles):
    geometry = TiltGeometry(tuple(map(float, angles)), images.shape[1:])
    return prepare_stack(TiltSeries(np.ascontiguousarray(images, dtype=np.float32), geometry), Preparation(), None)


def is_told(images, angles=ANGLES, depth=32):
    stack = prepared(images, angles)
    return bool(noise_warnings(stack, *coarse_images(stack), depth))


def white(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.slow
@pytest.mark.parametrize("sigmas", COLOURS)
def test_of_noise_of_any_colour_each_statistic_is_a_normal_deviate(sigmas):
    angles = np.linspace(-60, 60, 15)
    found = []
    for seed in range(16):
        images, factor = coarse_images(prepared(gaussian_filter(white((15, 48, 64), seed), sigmas), angles))
        found.append(tuple(deviations(Series(images, angles, 24 // factor))))
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
    # Of 16 normal deviates the mean is within 3 / sqrt(16), the deviation within 0.5 and 1.6 all but always.
    assert np.all(np.abs(mean) < 0.75)
    assert np.all((spread > 0.5) & (spread < 1.6))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["network", "fbp"])
@pytest.mark.parametrize("sigmas", [(0, 0.6, 0.6), (0, 2, 2)])
def test_a_run_of_noise_alone_warns_and_one_of_a_faint_specimen_does_not(method, sigmas, tmp_path):
    chosen = ("--model", write_model(tmp_path / "tiny.safetensors")) if method == "network" else ("--method", method)
    faint = cryolithe.simulate(seed=3, snr_db=-15, shape=(32, 64, 64)).tilts
    noise = 1000 + 50 * gaussian_filter(white((41, 64, 64), 5), sigmas)
    for name, images, told in (("noise", noise, 1), ("faint", faint, 0)):
        files = write_series(tmp_path, images.astype(np.float32), ANGLES, name)
        lines = made(*files, *chosen, "--contrast", "dark", "--thickness", 32).stderr.splitlines()
        assert sum(line.startswith("Warning: ") and TOLD in line for line in lines) == told


@pytest.mark.slow
@pytest.mark.parametrize("snr_db", [-10, -15])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_faint_specimen_is_no_noise_aligned_or_not_and_about_any_axis(seed, snr_db):
    images = cryolithe.simulate(seed=seed, snr_db=snr_db, shape=(32, 96, 96)).tilts
    assert not is_told(images)
    assert not is_told(-images[::-1], ANGLES[::-1])
    assert not is_told(images.transpose(0, 2, 1))
    if snr_db == -10:
        moves = np.random.default_rng(seed).integers(-9, 10, (len(images), 2))
        assert not is_told(np.stack([np.roll(image, move, (0, 1)) for image, move in zip(images, moves, strict=True)]))


@pytest.mark.slow
def test_noise_that_varies_across_images_and_counts_is_told():
    for seed in range(3):
        assert is_told(white((41, 64, 96), seed) * np.linspace(1, 3, 96))
        assert is_told(np.random.default_rng(seed).poisson(3.0, (41, 80, 64)))


@pytest.mark.slow
def test_a_faint_lattice_that_coarse_pixels_do_not_show_is_no_noise():
    y, x = np.mgrid[:300, :300]
    lattice = np.sin(2 * np.pi * y / 3) * np.ones_like(x)  # along the axis, where no tilt changes it
    images = white((15, 300, 300), 0) + 0.3 * lattice
    angles = np.linspace(-60, 60, 15)
    assert is_told(images - 0.3 * lattice, angles)
    assert not is_told(images, angles)


def test_a_pattern_of_the_detector_is_no_noise():
    assert not is_told(white((41, 64, 64), 1) + 0.3 * white((64, 64), 2))


def test_few_or_small_images_tell_nothing():
    assert not is_told(white((9, 64, 64), 0), np.linspace(-60, 60, 9))
    assert not is_told(white((41, 40, 64), 0))


def test_the_real_needle_is_no_noise():
    folder = ROOT / "examples" / "needle"
    images = read_mrc(folder / "needle.mrc").data
    assert not is_told(images, read_angles_deg(folder / "needle.tlt"), 64)


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize("number", range(6))
def test_real_ribosomes_are_no_noise_even_with_as_much_noise_again(number):
    images = np.asarray(read_mrc(SHARED / "real" / f"ribosome{number}.mrc").data, dtype=np.float32)
    angles = read_angles_deg(SHARED / "real" / f"ribosome{number}.tlt")
    assert not is_told(images, angles, 64)
    assert not is_told(images + images.std() * white(images.shape, number), angles, 64)
