"""Images that are in another order than their angles are told of, right ones never."""

import numpy as np
import pytest
from scipy.ndimage import shift
from shared_data import SHARED, needs_shared
from tiny_series import made, write_series

import cryolithe
from cryolithe.formats import read_mrc
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.evidence.angle_order import common_orders, order_warnings
from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
from cryolithe.tilts import TiltSeries


def simulated(seed, snr_db):
    series = cryolithe.simulate(seed=seed, snr_db=snr_db, shape=(32, 64, 64))
    return series.tilts, np.array(series.angles_deg)


def warned(images, angles):
    series = TiltSeries(images, TiltGeometry(tuple(map(float, angles)), images.shape[1:]))
    return order_warnings(prepare_stack(series, Preparation(), None), range(1, 1 + len(images)))


def schemes(angles):
    """Orders in which a series may be taken, by its sorted numbers."""
    middle, number = int(np.argmin(np.abs(angles))), len(angles)
    up, down = list(range(middle + 1, number)), list(range(middle - 1, -1, -1))
    hagen, branches = [middle, up.pop(0)], [down, up]
    while up or down:
        taken, branches = branches[0], branches[::-1]
        hagen += [taken.pop(0) for _ in taken[:2]]
    return {
        "sorted": np.arange(number),
        "dose-symmetric": np.argsort(np.abs(angles), kind="stable"),
        "pairs": np.array(hagen),
        "from the middle": np.r_[middle:number, middle - 1 : -1 : -1],
    }


@pytest.mark.slow
@pytest.mark.parametrize("snr_db", [-20, -10, 0])
@pytest.mark.parametrize("seed", range(8))
def test_right_angles_never_warn_and_those_of_another_order_do(seed, snr_db):
    images, angles = simulated(seed, snr_db)
    shuffled = np.random.default_rng(seed).permutation(41)
    orders = schemes(angles)
    for order in (*orders.values(), np.arange(40, -1, -1), shuffled):
        assert not warned(images[order], angles[order])
    # Of dose-symmetric angles, noise of -10 dB hides what is told by some hundredths of a correlation.
    for order in [shuffled] * (snr_db >= -10) + [orders["dose-symmetric"], orders["pairs"]] * (snr_db >= 0):
        (line,) = warned(images, angles[order])
        assert "another order than the angles" in line
        assert "of a stack sorted by angle" in line


def test_a_stack_in_order_of_acquisition_beside_sorted_angles_is_told_with_its_order():
    images, angles = simulated(3, -5)
    for name, told in (
        ("dose-symmetric", "in dose-symmetric order, in groups of 1"),
        ("pairs", "in dose-symmetric order, in groups of 2, the first of 1"),
    ):
        (line,) = warned(images[schemes(angles)[name]], angles)
        assert f"those of a stack {told} (" in line


@pytest.mark.parametrize("seed", range(3))
def test_an_order_of_its_own_beside_sorted_angles_is_told(seed):
    """No common order suits: each image is more like one at a far angle than like its neighbours."""
    images, angles = simulated(seed, 0)
    (line,) = warned(images[np.random.default_rng(seed).permutation(41)], angles)
    assert "each is less like those at neighbouring angles" in line


def test_orders_hold_each_angle_once():
    angles = np.arange(-57.0, 62, 3)
    for name, order in common_orders(angles):
        assert np.array_equal(np.sort(order), angles), name


@pytest.mark.parametrize("seed", range(4))
def test_a_thin_specimen_in_dose_symmetric_order_is_not_taken_for_sorted(seed):
    """Its images are alike at θ and -θ, both stretched alike. Angles of that order beside a sorted stack are told."""
    series = cryolithe.simulate(seed=seed, snr_db=0, shape=(16, 96, 96))
    images, angles = series.tilts, np.array(series.angles_deg)
    order = schemes(angles)["dose-symmetric"]
    assert not warned(images[order], angles[order])
    assert "of a stack sorted by angle" in warned(images, angles[order])[0]


def test_what_is_the_same_at_both_signs_is_no_other_order():
    images, angles = simulated(0, 0)
    order = schemes(angles)["dose-symmetric"]
    rng = np.random.default_rng(5)
    for share in (0.5, 0.8, 1.0):
        both = images + share * images[::-1] + rng.normal(0, 5, images.shape).astype(np.float32)
        assert not warned(both[order], angles[order]), share


def test_noise_says_nothing():
    for seed in range(8):
        rng = np.random.default_rng(seed)
        images = rng.standard_normal((21, 64, 64)).astype(np.float32)
        assert not warned(images, rng.permutation(np.linspace(-60, 60, 21)))
        small = rng.standard_normal((61, 16, 16)).astype(np.float32) + 0.7 * rng.standard_normal((16, 16))
        assert not warned(small.astype(np.float32), np.linspace(-60, 60, 61))


@needs_shared
@pytest.mark.parametrize("number", range(6))
def test_real_ribosomes_are_in_their_order(number):
    path = SHARED / "real" / f"ribosome{number}.mrc"
    images, angles = np.array(read_mrc(path).data, np.float32), np.loadtxt(path.with_suffix(".tlt"))
    shuffled = np.random.default_rng(number).permutation(len(angles))
    for order in (*schemes(angles).values(), shuffled):
        assert not warned(images[order], angles[order])
    for order in (schemes(angles)["dose-symmetric"], shuffled):
        assert "of a stack sorted by angle" in warned(images, angles[order])[0]


@needs_shared
def test_the_real_needle_is_in_its_order():
    """All its images are alike by 0.99."""
    path = SHARED / "needle" / "needle_ali.mrc"
    images = np.array(read_mrc(path).data, np.float32)[:, ::2, ::2]
    angles = np.array(path.with_suffix(".tlt").read_text().split(), float)
    for order in schemes(angles).values():
        assert not warned(images[order], angles[order])
    assert warned(images, np.random.default_rng(0).permutation(angles))
    assert "in dose-symmetric order" in warned(images[schemes(angles)["dose-symmetric"]], angles)[0]


def test_through_the_command(tmp_path):
    images, angles = simulated(0, -5)
    fbp = ("--method", "fbp", "--thickness", 32, "--overwrite")
    assert "another order" not in made(*write_series(tmp_path, images, angles), *fbp).stderr
    shuffled = np.random.default_rng(0).permutation(angles)
    lines = made(*write_series(tmp_path, images, shuffled), *fbp).stderr.splitlines()
    (line,) = [line for line in lines if "another order" in line]
    assert line.startswith("Warning: the images are in another order than the angles")


@pytest.mark.parametrize("seed", range(2))
def test_images_that_are_not_aligned_are_in_their_order_all_the_same(seed):
    """Their neighbours are alike once they are moved; those of another order are not."""
    series = cryolithe.simulate(seed=seed, snr_db=0, shape=(40, 128, 128))
    rng, angles = np.random.default_rng(seed), np.array(series.angles_deg)
    images = np.stack([shift(image, rng.normal(0, 5, 2), order=1, mode="wrap") for image in series.tilts])
    images = images.astype(np.float32)
    assert not warned(images, angles)
    assert "another order" in warned(images[rng.permutation(41)], angles)[0]


@pytest.mark.parametrize("snr_db", [-5, 5])
@pytest.mark.parametrize("turned", [(7,), (1, 2, 3), (41,), (5, 20, 21)])
def test_images_of_opposite_contrast_are_named(snr_db, turned):
    images, angles = simulated(1, snr_db)
    images = images.copy()
    for number in turned:
        images[number - 1] *= -1
    (line,) = warned(images, angles)
    assert f"image{'s' if len(turned) > 1 else ''} {', '.join(map(str, turned))}" in line
    assert "opposite contrast" in line
    order = schemes(angles)["dose-symmetric"]
    assert "opposite contrast" in warned(images[order], angles[order])[0]


def test_images_of_opposite_contrast_are_counted_as_exclude_counts(tmp_path):
    images, angles = simulated(1, 5)
    images = images.copy()
    images[19] *= -1
    words = (*write_series(tmp_path, images, angles), "--method", "fbp", "--thickness", 32, "--overwrite", "--exclude")
    assert "image 20 is of opposite contrast" in " ".join(made(*words, "1-5,9").stderr.split())
    assert "opposite contrast" not in made(*words, "1-5,9,20").stderr


def test_noise_and_unaligned_images_are_not_of_opposite_contrast():
    rng = np.random.default_rng(0)
    for seed in range(6):
        images, angles = simulated(seed, (-10, 0, 10)[seed % 3])
        moved = np.stack([shift(image, rng.normal(0, 2, 2), order=1, mode="wrap") for image in images])
        for some in (images, moved, rng.standard_normal(images.shape)):
            assert not any("opposite" in line for line in warned(some.astype(np.float32), angles))


def test_a_grating_that_is_not_aligned_is_not_of_opposite_contrast():
    rng, x = np.random.default_rng(0), np.arange(96)
    for period in (12, 18, 30):
        waves = [np.sin(2 * np.pi * (x + rng.uniform(0, period)) / period) * np.ones((96, 1)) for _ in range(41)]
        images = np.stack(waves) + rng.standard_normal((41, 96, 96))
        assert not any("opposite" in line for line in warned(images.astype(np.float32), np.arange(-60, 61, 3.0)))
