"""Images that are in another order than their angles are told of, right ones never."""

import numpy as np
import pytest
from tiny_series import made, write_series

import cryolithe
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.angle_order import order_warnings
from cryolithe.reconstruction.preparation import Preparation, prepare_stack
from cryolithe.tilts import TiltSeries


def simulated(seed, snr_db):
    series = cryolithe.simulate(seed=seed, snr_db=snr_db, shape=(32, 64, 64))
    return series.tilts, np.array(series.angles_deg)


def warned(images, angles):
    series = TiltSeries(images, TiltGeometry(tuple(map(float, angles)), images.shape[1:]))
    return order_warnings(prepare_stack(series, Preparation(), None))


@pytest.mark.slow
@pytest.mark.parametrize("snr_db", [-20, -10, 0])
@pytest.mark.parametrize("seed", range(20))
def test_right_angles_never_warn_and_shuffled_ones_do(seed, snr_db):
    images, angles = simulated(seed, snr_db)
    rng = np.random.default_rng(seed)
    dose_symmetric = np.argsort(np.abs(angles), kind="stable")
    two_branches = np.r_[20:41, 19:-1:-1]
    for order in (range(41), range(40, -1, -1), dose_symmetric, two_branches, rng.permutation(41)):
        assert not warned(images[order], angles[order])
    if snr_db >= -10:
        (line,) = warned(images, rng.permutation(angles))
        assert "another order than the angles" in line
    if snr_db >= 0:
        for order in (dose_symmetric, rng.permutation(41)):
            (line,) = warned(images[order], angles)
            assert "another order than the angles" in line


def test_noise_says_nothing():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        images = rng.standard_normal((21, 64, 64)).astype(np.float32)
        assert not warned(images, rng.permutation(np.linspace(-60, 60, 21)))
        small = rng.standard_normal((61, 16, 16)).astype(np.float32) + 0.7 * rng.standard_normal((16, 16))
        assert not warned(small.astype(np.float32), np.linspace(-60, 60, 61))


def test_through_the_command(tmp_path):
    images, angles = simulated(0, -5)
    fbp = ("--method", "fbp", "--thickness", 32, "--overwrite")
    assert "another order" not in made(*write_series(tmp_path, images, angles), *fbp).stderr
    shuffled = np.random.default_rng(0).permutation(angles)
    lines = made(*write_series(tmp_path, images, shuffled), *fbp).stderr.splitlines()
    (line,) = [line for line in lines if "another order" in line]
    assert line.startswith("Warning: the images are in another order than the angles")


def test_the_order_of_acquisition_beside_sorted_angles_is_told(tmp_path):
    images, angles = simulated(1, 0)
    images = images[np.argsort(np.abs(angles), kind="stable")]
    lines = made(*write_series(tmp_path, images, angles), "--method", "fbp", "--thickness", 32).stderr.splitlines()
    (line,) = [line for line in lines if "another order" in line]
    assert line.startswith("Warning: the images are in another order than the angles: each is less like those at")
