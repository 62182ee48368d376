"""Borders of one value: found where an alignment filled them in, not in what the specimen shows, and replaced."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from beads import ANGLES, DEPTH, SHAPE, assert_beads, bead_errors, bead_images, write_angles, write_stack
from scipy.ndimage import affine_transform, binary_dilation, gaussian_filter
from tiny_series import made, voxels, write_model

from cryolithe.artefacts.borders import find_border, find_wide_border, is_mostly_border, without_border
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.images.preparation import Preparation, check_images, stack_statistics
from cryolithe.tilts import TiltSeries

LARGE = (150, 180)


def specimen(seed=0, shape=LARGE, mean=1000.0):
    """Something like a cryo image: noise, ice of uneven thickness, some dark beads."""
    rng = np.random.default_rng(seed)
    uneven = gaussian_filter(rng.standard_normal(shape), 6)
    image = mean + 8 * uneven / uneven.std() + 6 * rng.standard_normal(shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for y, x in rng.uniform(0, shape, (6, 2)):
        image -= 60 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)
    return image


def filled_in(image, value, turn_deg=0.0, shift=(0.0, 0.0), order=3):
    """The image turned and shifted by splines as an alignment does it, and which pixels are filled in."""
    angle = np.deg2rad(turn_deg)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (np.array(image.shape) - 1) / 2
    start = middle - matrix @ (middle + shift)
    there = affine_transform(np.ones_like(image), matrix, start, order=1, cval=0.0)
    return affine_transform(image, matrix, start, order=order, cval=value), there == 0


MOVES = {
    "right": (0, (0, 7)),
    "corner": (0, (-4, 5)),
    "part of a pixel": (0, (0.4, 2.6)),
    "turned a little": (1, (0, 0)),
    "turned": (10, (4, 1)),
    "turned far": (45, (0, 0)),
    "axis": (84, (0, 0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "int16"])
@pytest.mark.parametrize("value", ["zero", "mean", "min", "zero above all"])
@pytest.mark.parametrize("move", MOVES)
def test_borders_are_found(move, value, kind):
    image = specimen(mean=-1000 if value == "zero above all" else 1000)
    fill = {"mean": round(image.mean(), 1), "min": image.min()}.get(value, 0.0)
    if kind == "int16":
        image, fill = np.round(image), round(fill)
    turn, shift = MOVES[move]
    moved, outside = filled_in(image, fill, turn, shift)
    moved = moved.astype(kind).astype(np.float32)
    border = find_border(moved)
    assert border is not None
    columns = np.arange(LARGE[1])
    kept = (columns >= border.first[:, None]) & (columns <= border.last[:, None])
    assert not (kept & outside).any()
    assert (~kept & ~outside).sum() < 4 * (LARGE[0] + LARGE[1])  # of the data, only what was mixed with the fill
    assert border.share == pytest.approx(1 - kept.mean())
    mended = without_border(moved)
    np.testing.assert_array_equal(mended[kept], moved[kept])
    # What stands in the border is as bright as the data next to it.
    beside = kept & binary_dilation(~kept, iterations=12)
    assert abs(mended[~kept].mean() - moved[beside].mean()) < 5
    assert mended[~kept].std() < moved[beside].std()


def test_the_border_takes_the_level_of_the_data_beside_it():
    """Level and gradient along the border stay, the less the further the data are."""
    rows = np.mgrid[: LARGE[0], : LARGE[1]][0]
    image = (1000 + rows + np.random.default_rng(0).standard_normal(LARGE)).astype(np.float32)
    image[:, -60:] = 0
    mended = without_border(image)
    np.testing.assert_allclose(mended[20:-20, -62], 1000 + rows[20:-20, 0], atol=8)
    assert abs(mended - 1000 - rows).max() < 60
    np.testing.assert_allclose(mended[20:-20, -20], 1000 + rows[20:-20, 0], atol=30)


def test_a_bright_specimen_does_not_shine_into_the_border():
    """A needle fills a third of the image; beside the border is its vacuum."""
    image = 200 + 3 * np.random.default_rng(0).standard_normal(LARGE)
    image[30:, 60:100] = 5000
    moved, outside = filled_in(image, 2.0, 4, (3, 40))
    mended = without_border(moved.astype(np.float32))
    assert outside.mean() > 0.2
    assert abs(mended[:, :40] - 200).max() < 100


def test_two_borders_one_within_the_other():
    """Zeros of motion correction at two sides, then the fill of an alignment around them."""
    image = specimen(3)
    image[:, :6] = 0
    image[:5] = 0
    moved, _ = filled_in(image, 990.0, 4, (0, 5), order=1)
    border = find_border(moved.astype(np.float32))
    there = np.pad(np.ones((LARGE[0] - 5, LARGE[1] - 6)), ((5, 0), (6, 0)))
    data, _ = filled_in(there, 0.0, 4, (0, 5), order=1)
    columns = np.arange(LARGE[1])
    kept = (columns >= border.first[:, None]) & (columns <= border.last[:, None])
    assert (data[kept] > 0.9).mean() > 0.999
    assert kept.sum() > 0.9 * (data > 0.9).sum()


# What is no border


def discs(image, value, places, radius):
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    for y, x in places:
        image[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = value
    return image


def needle(scale, noisy):
    """A round needle in an empty vacuum, tapered."""
    rows, columns = np.mgrid[: LARGE[0], : LARGE[1]]
    radius = 60 * (1 - 0.3 * rows / LARGE[0])
    thickness = 2 * np.sqrt(np.clip(radius**2 - (columns - 90) ** 2, 0, None)) * scale
    return np.random.default_rng(1).poisson(thickness) if noisy else thickness


def uneven_vacuum(value):
    image = specimen(5)
    edge = 50 + 40 * gaussian_filter(np.random.default_rng(2).standard_normal(LARGE[0]), 5)
    image[np.arange(LARGE[1]) < edge[:, None]] = value
    return image


def straight_vacuum(value, noise):
    image = specimen(6)
    image[:, :40] = value + noise * np.random.default_rng(3).standard_normal((LARGE[0], 40))
    return image


CONTENT = {
    "plain": specimen,
    "integers": lambda: np.round(specimen()),
    "few levels": lambda: np.round(specimen() / 16),
    "cut below": lambda: specimen().clip(1000, None),
    "cut above": lambda: specimen().clip(None, 1000),
    "dark gold at the sides": lambda: discs(specimen(), 0, [(0, 30), (149, 90), (70, 0), (40, 179)], 14),
    "dark gold in corners": lambda: discs(specimen(), 0, [(0, 0), (149, 179)], 25),
    "bright gold in corners": lambda: discs(specimen(), 3000, [(0, 0), (149, 0), (0, 179), (149, 179)], 40),
    "a hole of the carbon": lambda: discs(specimen(), 0, [(75, -10)], 60),
    "an uneven edge, dark": lambda: uneven_vacuum(0),
    "an uneven edge, bright": lambda: uneven_vacuum(1300),
    "saturated vacuum": lambda: straight_vacuum(1500, 0),
    "vacuum with little noise": lambda: straight_vacuum(1200, 0.5),
    "needle": lambda: needle(1.0, False),
    "counts of a needle": lambda: needle(1.0, True),
    "few counts of a needle": lambda: needle(0.1, True),
    "a label in the corner": lambda: np.where(np.mgrid[:150, :180].max(0) < 25, 0, specimen()),
    "a column of dead pixels inside": lambda: np.where(np.arange(180) == 50, 0, specimen()),
    "beads without noise": lambda: bead_images(shape=LARGE)[3].round(1),
    "round field": lambda: discs(np.zeros(LARGE), 1, [(75, 90)], 88),
    "noisy round field": lambda: np.where(discs(np.zeros(LARGE), 1, [(75, 90)], 88) == 1, specimen(), 0),
    "one value": lambda: np.full(LARGE, 3.0),
    "two halves": lambda: np.where(np.arange(180) < 90, 0.0, 1.0) * np.ones(LARGE),
}


@pytest.mark.parametrize("content", CONTENT)
def test_what_the_specimen_shows_is_no_border(content):
    image = np.asarray(CONTENT[content](), np.float32)
    assert find_border(image) is None
    assert without_border(image) is image


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("per_px", [0.02, 0.1, 0.3, 1.0, 4.0])
def test_counts_of_few_levels_are_no_border(per_px, seed):
    for shape in (SHAPE, LARGE):
        assert find_border(np.random.default_rng(seed).poisson(per_px, shape).astype(np.float32)) is None


@pytest.mark.parametrize("per_px", [0.5, 1.0, 4.0])
def test_counts_with_a_border_of_zeros_have_one(per_px):
    image = np.random.default_rng(0).poisson(per_px, LARGE).astype(np.float32)
    image[:, :12] = 0
    border = find_border(image)
    assert 12 <= border.first.min() <= border.first.max() <= 16
    assert border.share < 0.085


@pytest.mark.parametrize("axis", [0, 1])
def test_a_turned_image_has_the_same_border(axis):
    moved, _ = filled_in(specimen(8), 0.0, 5, (3, 0))
    image = np.ascontiguousarray(moved.astype(np.float32))
    share = find_border(image).share
    assert find_border(np.ascontiguousarray(np.flip(image, axis))).share == pytest.approx(share)
    assert find_border(np.ascontiguousarray(image.T)).share == pytest.approx(share, abs=0.01)


# Through the command


def bordered(value, seed=0, level=1000.0):
    """The five beads, with 2 to 10 columns of one value at a side of each image."""
    rng = np.random.default_rng(seed)
    images = level + 100 * bead_images() + 3 * rng.standard_normal((len(ANGLES), *SHAPE))
    clean = images.copy()
    for number, image in enumerate(images):
        columns = int(rng.integers(2, 11))
        image[:, slice(0, columns) if number % 2 else slice(-columns, None)] = value
    return images.astype(np.float32), clean.astype(np.float32)


@pytest.fixture
def series(tmp_path):
    write_angles(tmp_path / "ts.tlt")
    return tmp_path


def reconstruct(folder, images, name, *flags):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # mrcfile's, about NaN
        stack = write_stack(folder / f"{name}.mrc", images)
    return made(stack, folder / "ts.tlt", "--thickness", DEPTH, "-o", folder / f"{name}_v.mrc", *flags)


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 990.0, 900.0, -5000.0])
@pytest.mark.parametrize("method", ["fbp", "sirt"])
def test_beads_stand_out_as_without_borders(method, value, series):
    images, clean = bordered(value)
    flags = ("--method", method, *(("--iterations", 10) if method == "sirt" else ()))
    result = reconstruct(series, images, "a", *flags)
    assert "31 of 31 images have a border of one value (up to" in result.stderr
    assert "border" in json.loads((series / "a_v.json").read_text())["geometry"]["stack_notes"][-1]
    assert_beads(series / "a_v.mrc")
    assert "border" not in reconstruct(series, clean, "b", *flags).output
    _, signal = bead_errors(voxels(series / "a_v.mrc"))
    _, best = bead_errors(voxels(series / "b_v.mrc"))
    assert signal > 0.8 * best


@pytest.mark.parametrize("method", ["fbp", "sirt"])
@pytest.mark.parametrize("value", [0.0, 990.0])
def test_borders_too_wide_to_be_replaced_are_named(value, method, series):
    """One among narrow ones, at a side or at both, and all of a stack; not what the limit leaves replaced."""
    images, clean = bordered(value)
    width = SHAPE[1]
    images[[24, 27]] = clean[[24, 27]]
    images[24, :, : int(0.44 * width)] = value
    images[27, :, : int(0.3 * width)] = images[27, :, int(0.72 * width) :] = value
    flags = ("--method", method, *(("--iterations", 3) if method == "sirt" else ()))
    result = reconstruct(series, images, "one", *flags)
    assert "31 of 31 images" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "left as it is" in line]
    told = [one.rstrip("%)").split(" (") for one in line.partition("images ")[2].partition(" have")[0].split(", ")]
    assert [int(number) for number, _ in told] == [25, 28]
    assert [float(share) for _, share in told] == pytest.approx([47, 64], abs=3)
    assert line.startswith("Warning: ")
    assert "neighbouring tilts" not in result.stderr
    assert line in "Warning: " + "\nWarning: ".join(json.loads((series / "one_v.json").read_text())["warnings"])
    clean[:, :, : int(0.44 * width)] = value
    assert "(31 of 31) have a border of one value that is left" in reconstruct(series, clean, "all", *flags).stderr


@pytest.mark.parametrize("content", [name for name in CONTENT if name != "two halves"])
def test_what_the_specimen_shows_is_no_wide_border(content):
    assert find_wide_border(np.asarray(CONTENT[content](), np.float32)) is None


@pytest.mark.parametrize("share", [0.5, 0.7])
@pytest.mark.parametrize("noisy", [False, True])
def test_a_thin_needle_in_an_empty_vacuum_has_no_border(share, noisy):
    """However much of the image is empty; nor has a specimen that ends unevenly."""
    columns = np.arange(LARGE[1]) - 90
    thickness = 2 * np.sqrt(np.clip(((1 - share) * 90) ** 2 - columns**2, 0, None)) * np.ones((LARGE[0], 1))
    image = np.random.default_rng(1).poisson(thickness / 4) if noisy else thickness
    assert find_wide_border(image.astype(np.float32)) is None
    uneven = specimen(5)
    edge = share * 180 + 20 * gaussian_filter(np.random.default_rng(2).standard_normal(LARGE[0]), 5)
    uneven[np.arange(LARGE[1]) < edge[:, None]] = 0
    assert find_wide_border(uneven.astype(np.float32)) is None


@pytest.mark.slow
def test_a_network_sees_no_border(series):
    model = write_model(series / "tiny.safetensors")
    images, clean = bordered(0.0)
    for name, stack in (("a", images), ("b", clean)):
        reconstruct(series, stack, name, "--model", model, "--precision", "fp32")
    a, b = (voxels(series / f"{name}_v.mrc") for name in "ab")
    inside = np.s_[10:-10, :, 14:-14]
    assert np.corrcoef(a[inside].ravel(), b[inside].ravel())[0, 1] > 0.97
    assert a.std() < 1.5 * b.std()


@pytest.mark.slow
def test_both_halves_are_mended(series):
    for name, seed in (("EVN", 1), ("ODD", 2)):
        write_stack(series / f"ts_{name}.mrc", bordered(0.0, seed)[0])
    halves = ("--even", series / "ts_EVN.mrc", "--odd", series / "ts_ODD.mrc")
    result = made(*halves, series / "ts.tlt", "--thickness", DEPTH, "--method", "fbp")
    assert result.stderr.count("images have a border of one value") == 2
    for name in ("_EVN", "_ODD", ""):
        assert_beads(series / f"ts_rec{name}.mrc")


def test_low_slabs_give_the_same_bytes(series):
    images, _ = bordered(0.0)
    reconstruct(series, images, "a", "--method", "fbp")
    reconstruct(series, images, "b", "--method", "fbp", "--max-memory", 0.801)
    np.testing.assert_array_equal(voxels(series / "a_v.mrc"), voxels(series / "b_v.mrc"))


def test_borders_of_nan_are_mended_too(series):
    images, _ = bordered(np.nan)
    result = reconstruct(series, images, "a", "--method", "fbp", "--fix-nonfinite")
    assert "31 of 31 images have a border of one value" in result.stderr
    assert_beads(series / "a_v.mrc")


def test_statistics_of_a_stack_leave_borders_out():
    images, clean = bordered(0.0)
    series = TiltSeries(images, TiltGeometry(ANGLES, SHAPE))
    mean, spread = stack_statistics(series)
    assert mean == pytest.approx(clean.mean(), abs=1)
    assert spread == pytest.approx(clean.std(), rel=0.2)
    assert "31 of 31" in check_images(series, Preparation(), "ts.mrc")[0]
    assert check_images(TiltSeries(clean, series.geometry), Preparation(), "ts.mrc") == ()


@pytest.mark.parametrize("electrons", [0.1, 0.3, 2.0])
def test_images_of_few_counts_are_no_border(electrons):
    counts = np.random.default_rng(3).poisson(electrons, (128, 128)).astype(np.int16)
    assert not is_mostly_border(counts)
    counts[:, :64] = 0
    assert is_mostly_border(counts)
