"""A stack of all frames shares the noise of its halves, whatever was done to it; other stacks share none."""

from __future__ import annotations

import numpy as np
import pytest
from beads import ANGLES, SHAPE, bead_images
from scipy.ndimage import gaussian_filter

from cryolithe.evaluation.half_whole import WholeDoubts, all_frames, doubts_of_whole

LARGE = (128, 160)
N, NOTHING = len(ANGLES), WholeDoubts()


def frames(seed=0, noise=3.0, odd=1.0, shape=SHAPE):
    """A half, and all frames: so many deviations of noise in each half, and so many frames more in the other."""
    random, images = np.random.default_rng(seed), bead_images(shape=shape)
    halves = [images + noise * images.std() * random.standard_normal(images.shape) for _ in "eo"]
    return halves[0].astype(np.float32), (halves[0] + odd * halves[1]).astype(np.float32)


def doubts(half, whole, left_out=()):
    return doubts_of_whole(half, all_frames(whole, left_out))


def each(change, stack):
    return np.stack([change(image) for image in stack])


def transferred(image, flipped):
    """An image by a contrast transfer function, or by its signs."""
    y, x = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None]
    wave = np.cos(np.pi / 2 * (y**2 + x**2) / 0.15**2)
    return np.fft.irfft2(np.fft.rfft2(image) * (np.sign(wave) if flipped else wave), s=image.shape)


def with_hot_pixels(stack):
    found, random = stack.copy(), np.random.default_rng(5)
    for image in found:
        image[random.integers(image.shape[0], size=9), random.integers(image.shape[1], size=9)] += 500 * stack.std()
    return found


def another(whole):
    shape = whole.shape[1:]
    return frames(7, shape=shape)[1] - 2 * bead_images(shape=shape)


def bordered(stack):
    found = stack + 50 * stack.std()
    found[:, :9] = found[:, :, -7:] = 0
    return found


RIGHT = {
    "a sum": lambda whole: whole,
    "a mean of other units": lambda whole: 0.01 * whole - 300,
    "whole numbers": lambda whole: np.rint(20 * whole / whole.std()).astype(np.int16),
    "weighted by dose": lambda whole: each(lambda image: gaussian_filter(image, 1.5), whole),
    "without gradients": lambda whole: whole - each(lambda image: gaussian_filter(image, 5), whole),
    "phases flipped": lambda whole: each(lambda image: transferred(image, True), whole),
    "corrected by a filter": lambda whole: each(lambda image: transferred(image, False), whole),
    "scaled image by image": lambda whole: each(lambda image: (image - image.mean()) / image.std(), whole),
    "a border": bordered,
    "X-rays": with_hot_pixels,
    "a blank image": lambda whole: np.where(np.arange(N)[:, None, None] == 3, 0, whole),
}
WRONG = {
    "another": (another, "do not show the same: "),
    "another with the same border": (lambda whole: bordered(another(whole)), "do not show the same: "),
    "inverted": (lambda whole: -whole, "are of opposite contrast"),
    "inverted and filtered": (lambda whole: -each(lambda image: gaussian_filter(image, 1), whole), "are of opposite"),
    "mirrored": (lambda whole: whole[:, :, ::-1], "do not show the same (one mirrored along x would)"),
    "reversed": (lambda whole: whole[::-1], "have their images in different orders: image 1 of the first"),
}


@pytest.mark.parametrize("noise", [0.2, 3.0, 100.0])
@pytest.mark.parametrize("name", RIGHT)
def test_whatever_was_done_to_all_frames_they_are_those_of_their_halves(name, noise):
    for odd in (0.8, 1.0, 1.6):
        half, whole = frames(noise=noise, odd=odd)
        assert doubts(half, RIGHT[name](whole)) == NOTHING


def counted(size, dose, tilts=5):
    """A half, and all frames, in counts: so many in a pixel of the half."""
    random = np.random.default_rng(size)
    specimen = 1 + 0.1 * gaussian_filter(random.standard_normal((tilts, size, size)), (0, 3, 3)) * 10
    halves = [random.poisson(dose * np.clip(specimen, 0.1, None)).astype(np.float32) for _ in "eo"]
    return halves[0], halves[0] + halves[1]


@pytest.mark.parametrize("size", [96, 200, 250, 300, 400])
def test_sparse_counts_are_those_of_their_halves(size):
    for dose in (0.06, 0.12, 0.25, 0.33):
        assert doubts(*counted(size, dose)) == NOTHING
    half, whole = counted(size, 4.0)
    half[2], whole[2] = 123.456, 2 * 123.456  # blank to rounding
    half[3, :, : int(0.6 * size)] = whole[3, :, : int(0.6 * size)] = 0
    assert doubts(half, whole) == NOTHING


@pytest.mark.parametrize("size", [48, 64, 256])
def test_of_what_a_filter_took_away_nothing_is_asked(size):
    half, whole = counted(size, 4.0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    for most in (0.25, 0.15):
        cut = np.fft.irfft2(np.where(frequency > most, 0, np.fft.rfft2(whole)), s=whole.shape[1:])
        assert doubts(half, cut.astype(np.float32)) == NOTHING


@pytest.mark.parametrize("correct", [np.sign, np.array, lambda ctf: ctf / (ctf**2 + 0.1)])
@pytest.mark.parametrize("size", [20, 24, 48, 64])
def test_small_images_corrected_for_a_transfer_function_are_not_surely_others(size, correct):
    half, whole = counted(size, 4.0)
    squared = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size)[None] ** 2
    for defocus in (3, 10, 40, 100, 208, 304, 400):
        ctf = np.sin(np.pi * defocus * squared + 0.07)
        found = doubts(half, np.fft.irfft2(np.fft.rfft2(whole) * correct(ctf), s=(size, size)))
        assert not found.other
        assert not found.doubtful or defocus > size or size < 48


@pytest.mark.parametrize("name", ["another", "another with the same border"])
def test_small_images_of_others_are_doubts(name):
    half, whole = frames()
    found = doubts(bordered(half) if "border" in name else half, WRONG[name][0](whole))
    assert not found.other
    assert found.doubtful.startswith(WRONG[name][1])


@pytest.mark.parametrize("noise", [3.0, 100.0])
@pytest.mark.parametrize("name", WRONG)
def test_what_is_surely_of_others_is_told(name, noise):
    half, whole = frames(noise=noise, shape=LARGE if "another" in name else SHAPE)
    change, said = WRONG[name]
    if "border" in name:
        half = bordered(half)
    found = doubts(half, change(whole))
    assert found.other.startswith(said)
    assert not found.doubtful


def test_single_images_and_shifts_are_doubts():
    half, whole = frames()
    one = whole.copy()
    one[4] = frames(7)[1][4] - 2 * bead_images()[4]
    found = doubts(half, one)
    assert found.doubtful.startswith("do not show the same in image 5: ")
    assert not found.other
    assert doubts(half, one, {5}) == NOTHING
    one[[2, 9]] = whole[[9, 2]]
    assert "image 3 of the first is like image 10 of the second" in doubts(half, one).doubtful
    for by in (1, 6):
        assert f"shifted against each other by {by}.0 px along x" in doubts(half, np.roll(whole, by, 2)).doubtful


def test_what_is_too_small_or_blank_tells_nothing():
    half, whole = frames()
    assert doubts(half[:, :8, :8], -whole[:, :8, :8]) == NOTHING
    assert doubts(0 * half, whole) == NOTHING
    assert doubts(half, -whole, set(range(1, N + 1))) == NOTHING
