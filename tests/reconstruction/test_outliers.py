"""Images out of scale and hot pixels are told of; ordinary series are not."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import rotate
from tiny_series import ANGLES, made, noise, write_model, write_series

import cryolithe
from cryolithe.formats import read_tilt_series
from cryolithe.reconstruction.images.defects import defect_level, defect_limits, spread_of, without_defects
from cryolithe.reconstruction.images.outliers import looks_of, outlier_notes

NEEDLE = Path(__file__).parents[2] / "examples" / "needle"
FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", 8)


def told(result, word):
    return [line for line in result.stderr.splitlines() if word in line]


def notes_of(images, angles):
    looks = [looks_of(image) for image in images]
    return outlier_notes(looks, angles, range(1, len(looks) + 1), False)


@pytest.mark.parametrize(("factor", "times"), [(10, "10"), (100, "100"), (0.1, "0.1")])
@pytest.mark.parametrize("number", [0, 6, 10])
def test_an_image_out_of_scale_is_named(factor, times, number, tmp_path):
    images = noise() * np.cos(np.deg2rad(ANGLES)).astype(np.float32)[:, None, None]
    images[number] *= factor
    stack, angles = write_series(tmp_path, images)
    (line,) = told(made(stack, angles, *FBP), "neighbouring tilts")
    assert line.startswith(f"Warning: the standard deviation of image {number + 1} (")
    assert float(line.split("(")[1].split(" times")[0]) == pytest.approx(float(times), rel=0.4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cryolithe.fbp(images, ANGLES, 5, thickness=8)
    assert any(f"image {number + 1} (" in str(one.message) for one in caught)


DENSE = np.arange(-60, 61, 4.0)
RUNS = [
    range(28, 32),
    range(29, 32),
    range(25, 29),
    range(25, 28),
    range(13, 19),
    (25, 26),
    range(1, 5),
    (20, 21, 23, 24),
]


def of_trend(angles, fall=1.0, seed=0):
    """Images whose deviation falls by e to that times what 1 / cos grows."""
    rng = np.random.default_rng(seed)
    levels = np.exp(-fall * (1 / np.cos(np.deg2rad(angles)) - 1)) * np.exp(rng.normal(0, 0.1, len(angles)))
    return (rng.standard_normal((len(angles), 24, 24)) * levels[:, None, None]).astype(np.float32)


@pytest.mark.parametrize("fall", [0.0, 1.2])
@pytest.mark.parametrize("factor", [8, 0.1])
@pytest.mark.parametrize("odd", RUNS, ids=str)
def test_a_run_of_images_out_of_scale_is_named_and_no_other(odd, factor, fall):
    images = of_trend(DENSE, fall)
    images[np.array(odd) - 1] *= factor
    order = np.random.default_rng(1).permutation(len(DENSE))
    for picked in (np.arange(len(DENSE)), order):
        looks = [looks_of(images[index]) for index in picked]
        (line,) = outlier_notes(looks, DENSE[picked], (picked + 1).tolist(), False)
        told = line.partition(" image")[2].partition(" is not")[0].lstrip("s ").split(", ")
        assert [int(one.split()[0]) for one in told] == list(odd)
        for one in told:
            assert float(one.split("(")[1].split()[0]) == pytest.approx(factor, rel=0.7)


def test_a_run_out_of_scale_is_named_by_the_command(tmp_path):
    images = noise()
    images[-3:] *= 8
    (line,) = told(made(*write_series(tmp_path, images), *FBP), "neighbouring tilts")
    assert [f" {number} (" in line for number in range(1, 12)] == [number > 8 for number in range(1, 12)]


@pytest.mark.parametrize("number", [3, 15, 24])
@pytest.mark.parametrize("factor", [3.2, 1 / 3.2])
def test_an_image_between_others_is_named_from_a_factor_of_less(number, factor, tmp_path):
    """It is out of scale with those on either side; at the end of a series that may be a trend."""
    images = of_trend(DENSE, 0.2)
    images[number] *= factor
    (line,) = told(made(*write_series(tmp_path, images, DENSE), *FBP), "neighbouring tilts")
    assert line.startswith(f"Warning: the standard deviation of image {number + 1} (")
    images[number] *= 0.5 if factor > 1 else 2
    assert not told(made(*write_series(tmp_path, images, DENSE, "less"), *FBP), "neighbouring tilts")


@pytest.mark.parametrize("rising", [lambda cos: cos**-1.5, lambda cos: 1 / cos, lambda cos: 1 + 4 * (1 - cos)])
def test_deviations_that_rise_with_tilt_are_ordinary(rising):
    for step_deg in (2, 3, 5):
        angles = np.arange(-60.0, 61, step_deg)
        levels = rising(np.cos(np.deg2rad(angles))).astype(np.float32)
        assert notes_of(of_trend(angles, 0.0) * levels[:, None, None], angles) == ()


@pytest.mark.parametrize("mean", [0.03, 0.3, 3.0])
def test_the_largest_of_many_counts_is_no_defect_and_a_hot_pixel_is(mean):
    """Among a million counts of 0.3 there are some of 6 and more, 11 standard deviations out."""
    rng = np.random.default_rng(2)
    images = rng.poisson(mean, (6, 512, 512)).astype(np.float32)
    assert [looks_of(image).defects for image in images] == [0] * len(images)
    rare = images[0].copy()
    rare[5, 5] = {0.03: 4, 0.3: 7, 3.0: 15}[mean]
    assert looks_of(rare).defects == 0
    rare[5, 5] = 60
    assert looks_of(rare).defects == 1
    assert looks_of(rare - 1).defects >= 1  # no counts
    dead = rng.poisson(400, (256, 256)).astype(np.float32)
    dead[5, 5] = 0
    assert looks_of(dead).defects == 1


@pytest.mark.parametrize(
    "angles",
    [
        DENSE,
        np.arange(-21, 61, 3.0),
        np.linspace(-60, 60, 9),
        np.linspace(-60, 60, 6),
        np.concatenate([DENSE, [60.0, 60.0, 60.0]]),
    ],
    ids=["whole", "half", "nine", "six", "retakes"],
)
@pytest.mark.parametrize("fall", [0.0, 0.6, 1.2])
def test_trends_over_the_tilts_are_ordinary(angles, fall):
    """Of up to 3.3 times, and on top of them images that lose up to a third by the dose, or one in three out of two."""
    images = of_trend(angles, fall)
    doses = np.argsort(np.argsort(np.abs(angles), kind="stable")) / len(angles)
    assert notes_of(images, angles) == ()
    assert notes_of(images * (1 - 0.2 * doses)[:, None, None].astype(np.float32), angles) == ()
    images[::3] *= 1.5
    assert notes_of(images, angles) == ()


def test_an_image_given_twice_is_named(tmp_path):
    images = noise()
    images[4], images[9], images[7] = images[3], images[3], images[6]
    (line,) = told(made(*write_series(tmp_path, images), *FBP), "pixel by pixel")
    assert line.startswith("Warning: images are the same, pixel by pixel (4 = 5 = 10; 7 = 8)")


def test_hot_pixels_are_counted_and_what_becomes_of_them_is_told(tmp_path):
    images, rng = noise(), np.random.default_rng(1)
    for image in images[:4]:
        image.ravel()[rng.choice(image.size, 1)] = 60
    stack, angles = write_series(tmp_path, images)
    plain = made(stack, angles, *FBP)
    (line,) = told(plain, "defects")
    assert line.startswith("Note on ts.mrc: 4 pixels of 4 images can only be defects")
    assert line.endswith("left as they are; --method network clips them, or erase them before")
    assert not told(plain, "neighbouring tilts")
    model = write_model(tmp_path / "m.safetensors")
    network = made(stack, angles, "--model", model, "--thickness", 8, "--contrast", "bright", "--overwrite")
    (line,) = told(network, "defects")
    assert line.endswith("so far from the rest are they: clipped")


@pytest.mark.parametrize("snr_db", [-15, 0, 30])
def test_simulated_series_are_ordinary(snr_db):
    series = cryolithe.simulate(seed=2, snr_db=snr_db, shape=(32, 64, 64))
    assert notes_of(series.tilts, series.angles_deg) == ()


def test_a_series_of_a_few_images_has_no_neighbours_to_compare_with():
    images = noise()[:4]
    images[0] *= 100
    assert notes_of(images, ANGLES[:4]) == ()


def test_gold_is_no_defect():
    """Beads fill more than a few pixels of most images; each of its own number in an image is no other scale."""
    rng, rows = np.random.default_rng(5), np.mgrid[:64, :64]
    images = rng.standard_normal((21, 64, 64)).astype(np.float32)
    for image in images:
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(8, 56, 2)
            image[(rows[0] - y) ** 2 + (rows[1] - x) ** 2 < 12] = -40
    assert notes_of(images, np.linspace(-60, 60, 21)) == ()


def spot(width, centre, size=128):
    """Height 1 in its middle, ``width`` pixels wide at half of it."""
    y, x = np.mgrid[:size, :size]
    return np.exp(-4 * np.log(2) * ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / width**2).astype(np.float32)


@pytest.mark.parametrize("height", [-14, 14, 60])
@pytest.mark.parametrize("off", [0.0, 0.5])
def test_one_small_bead_is_no_defect_and_a_defect_beside_it_is(height, off):
    """It fills too few pixels to be told by their number, but is smooth, as no hot pixel is."""
    image = np.random.default_rng(3).standard_normal((128, 128)).astype(np.float32)
    bead = image + height * spot(3.8, (60 + off, 70 + off))
    assert looks_of(bead).defects == 0
    assert np.array_equal(np.clip(bead, *defect_limits(bead)), bead)
    assert np.array_equal(without_defects(bead), bead)
    assert defect_level(1.0, [spread_of(one).tail for one in (bead, bead, image)]) > np.abs(bead).max()
    bead[10, 10] = 6 * height
    assert looks_of(bead).defects == 1


@pytest.mark.parametrize("height", [-30, 60])
def test_a_defect_as_high_as_a_bead_is_one(height):
    image = np.random.default_rng(3).standard_normal((400, 400)).astype(np.float32)
    image += height * spot(3.8, (60.5, 70), 400)
    bead = image.copy()
    image[10, 10] = height
    clipped = without_defects(image)
    assert looks_of(image).defects == 1
    assert abs(clipped[10, 10]) < 13
    assert np.array_equal(np.delete(clipped, 10, 0), np.delete(bead, 10, 0))


@pytest.mark.parametrize("width", [3, 4, 6])
def test_a_block_of_hot_pixels_does_not_hide_others(width):
    image = np.random.default_rng(0).normal(100, 10, (400, 400)).astype(np.float32)
    image[5 : 5 + width, 5 : 5 + width] = 60000
    image[150, 150], image[200, 100] = 50000, -400
    clipped = without_defects(image)
    assert looks_of(image).defects >= 2
    assert clipped[150, 150] < 250
    assert clipped[200, 100] > -50
    assert np.array_equal(np.delete(clipped[20:], (130, 180), 0), np.delete(image[20:], (130, 180), 0))


@pytest.mark.parametrize("height", [-40, 5000])
def test_beads_with_sharp_edges_are_no_defects(height):
    """All of each, to its last pixel, in an image that they hardly fill."""
    image = np.random.default_rng(3).standard_normal((400, 400)).astype(np.float32)
    rows = np.mgrid[:400, :400]
    for radius, y, x in ((2.3, 50, 60), (3.4, 200, 300), (5.2, 310, 120)):
        image[(rows[0] - y) ** 2 + (rows[1] - x) ** 2 < radius**2] += height
    image += height * spot(2.9, (350, 350), 400) + height * spot(3.8, (100.5, 200.3), 400)
    assert looks_of(image).defects == 0


@pytest.mark.parametrize("kind", ["pixel", "two", "four", "binned", "turned", "column", "corner"])
def test_defects_are_few_pixels_or_sharp(kind):
    """As they are recorded, and as binning in Fourier space and interpolation spread them."""
    image = np.random.default_rng(3).standard_normal((256, 256)).astype(np.float32)
    places = {"two": np.s_[50:52, 60], "four": np.s_[50:52, 60:62], "corner": np.s_[0, 0], "column": np.s_[40:46, 60]}
    defect = np.zeros_like(image)
    defect[places.get(kind, np.s_[50, 60])] = 200
    if kind == "turned":
        defect = rotate(defect, 7.0, reshape=False, order=1)
    if kind == "binned":
        fine = np.zeros((512, 512), np.float32)
        fine[101, 121] = 800
        spectrum = np.fft.fftshift(np.fft.fft2(fine))[128:384, 128:384]
        defect = (np.fft.ifft2(np.fft.ifftshift(spectrum)).real / 4).astype(np.float32)
    assert looks_of(image + defect).defects >= 1
    low, high = defect_limits(image + defect)
    assert -15 < low < high < 15  # where 12 standard deviations are the least


def test_the_example_is_ordinary():
    series = read_tilt_series(NEEDLE / "needle.mrc", NEEDLE / "needle.tlt")
    images = [series.image(number).astype(np.float32) for number in range(series.geometry.tilts)]
    assert notes_of(images, series.geometry.angles_deg) == ()
