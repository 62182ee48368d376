"""What images at neighbouring tilts tell of the noise of a single stack, aligned or not, in whatever order."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import call, good
from scipy.ndimage import gaussian_filter

import cryolithe
from cryolithe.artefacts.fixed_pattern import shared_pattern
from cryolithe.denoising.images.amplitudes import mix_of_images, mix_of_neighbours
from cryolithe.denoising.images.neighbours import find_triples
from cryolithe.formats import read_mrc, write_stack

SHAPE = (32, 96, 96)


@pytest.fixture(scope="module")
def clean():
    images = cryolithe.simulate(seed=5, snr_db=60, shape=SHAPE).tilts
    return images - images.mean(axis=(1, 2), keepdims=True)


def noisy(clean, snr_db, smoothed_px=0.0, seed=0):
    noise = np.random.default_rng(seed).standard_normal(clean.shape)
    noise = gaussian_filter(noise, (0, smoothed_px, smoothed_px)) if smoothed_px else noise
    return (clean + noise / noise.std() * clean.std() * 10 ** (-snr_db / 20)).astype(np.float32)


def test_neighbours_are_found_in_any_order_and_wherever_images_lie(clean):
    rng = np.random.default_rng(2)
    order, moves = rng.permutation(len(clean)), rng.integers(-9, 10, (len(clean), 2))
    images = noisy(clean, -5)
    stack = np.stack([np.roll(images[place], moves[place], (0, 1)) for place in order])
    found = find_triples(len(stack), lambda number: stack[number], 12)
    assert len(found) >= 8
    right = 0
    for triple in found:
        first, *sides = (int(order[number]) for number in triple.numbers)
        boxes = triple.boxes(SHAPE[1:])
        assert len({(y.stop - y.start, x.stop - x.start) for y, x in boxes}) == 1
        assert all(0 <= part.start < part.stop <= 96 for box in boxes for part in box)
        move_px = np.array(triple.moves_px[1]) - (moves[sides[0]] - moves[first])
        right += abs(sides[0] - first) <= 3 and np.abs(move_px).max() <= 2
    # This specimen is so thin that images at θ and -θ are alike, too.
    assert right >= 0.75 * len(found)


def test_noise_has_no_neighbours():
    stack = np.random.default_rng(0).standard_normal((21, 96, 96)).astype(np.float32)
    assert len(find_triples(21, lambda number: stack[number], 12)) <= 1
    assert not find_triples(2, lambda number: stack[number], 12)
    assert not find_triples(21, lambda number: stack[number, :32], 12)


@pytest.mark.parametrize(("snr_db", "smoothed_px"), [(-8, 0.0), (-8, 0.7), (0, 0.7), (0, 1.5)])
def test_contrast_is_right_whatever_the_noise(clean, snr_db, smoothed_px):
    """The slope of the truth on the result is 1, where a supposed noise makes it less, and no Gaussian is better."""
    stack = noisy(clean, snr_db, smoothed_px)

    def denoise(image):
        return np.float32(0.3) * gaussian_filter(image, 1.0)

    def parts():
        for triple in find_triples(len(stack), lambda number: stack[number], 12):
            boxes = triple.boxes(SHAPE[1:])
            images = [stack[number][box] for number, box in zip(triple.numbers, boxes, strict=True)]
            yield denoise(stack[triple.numbers[0]])[boxes[0]], *images

    def scores(mix):
        made = np.stack([mix.apply(denoise(image), image) for image in stack])
        return (made * clean).sum() / (made * made).sum(), np.corrcoef(made.ravel(), clean.ravel())[0, 1]

    slope, correlation = scores(mix_of_neighbours(parts()))
    assert slope == pytest.approx(1, abs=0.2)
    smoothed = (gaussian_filter(stack, (0, sigma, sigma)) for sigma in np.arange(0.5, 5, 0.25))
    assert correlation > max(np.corrcoef(one.ravel(), clean.ravel())[0, 1] for one in smoothed) - 0.03
    if smoothed_px == 1.5:
        supposed, worse = scores(mix_of_images(stack[::4], denoise, np.random.default_rng(0)))
        assert supposed < 0.8
        assert worse < correlation


@pytest.mark.parametrize("what", ["bead", "border"])
def test_a_bead_or_a_border_spoils_nothing_elsewhere(clean, what, tmp_path):
    """They have more power at all frequencies than all else."""
    images = 10 * noisy(clean, -6) / clean.std() + np.float32(1000)
    made = []
    for changed in (False, True):
        stack = images.copy()
        if changed and what == "bead":
            stack[:, 38:43, 14:19] -= 3000
        elif changed:
            stack[:, :, :20] = 0
        write_stack(tmp_path / "a.mrc", stack, 10.0, "made for a test", overwrite=True)
        good("denoise", "--images", tmp_path / "a.mrc", "--overwrite")
        made.append(np.array(read_mrc(tmp_path / "a_denoised.mrc").data))
    seen = clean[:, :, 40:].ravel()
    alone, beside = (np.corrcoef(values[:, :, 40:].ravel(), seen)[0, 1] for values in made)
    assert beside > alone - 0.03
    if what == "border":
        np.testing.assert_array_equal(made[1][:, :, :18], 0)


def test_the_same_image_again_is_no_neighbour(clean):
    stack = np.repeat(noisy(clean, -5)[20:21], 21, axis=0)
    assert not find_triples(21, lambda number: stack[number], 12)


def test_a_pattern_that_all_images_hold_is_told_and_counts_as_noise(clean, tmp_path):
    """As of a gain reference that was not applied; neighbours in tilt share it, which made signal of it."""
    images = noisy(clean, 0)
    pattern = 0.5 * clean.std() * np.random.default_rng(9).standard_normal(clean.shape[1:])
    found = {}
    for name, added in (("clean", 0.0), ("spoilt", pattern)):
        write_stack(tmp_path / f"{name}.mrc", (images + added).astype(np.float32), 10.0, "made for a test")
        result = call("denoise", "--images", tmp_path / f"{name}.mrc")
        assert result.exit_code == 0, result.output
        assert ("Warning: all images hold the same pattern, " in result.stderr) == (name == "spoilt")
        told = json.loads((tmp_path / f"{name}_denoised.json").read_text())["warnings"]
        assert len(told) == (name == "spoilt")
        found[name] = np.array(read_mrc(tmp_path / f"{name}_denoised.mrc").data)
    good, spoilt = (np.corrcoef(values.ravel(), clean.ravel())[0, 1] for values in found.values())
    assert spoilt > good - 0.03
    left = [float(np.corrcoef(values.mean(axis=0).ravel(), pattern.ravel())[0, 1]) for values in found.values()]
    assert abs(left[1] - left[0]) < 0.3


@pytest.mark.parametrize("smoothed_px", [0.0, 0.7])
def test_images_that_share_nothing_but_a_specimen_hold_no_pattern(clean, smoothed_px):
    assert shared_pattern(clean) == 0  # nor does a specimen alone
    assert shared_pattern(noisy(clean, -5, smoothed_px)) == 0
    blank = np.zeros_like(clean)
    assert shared_pattern(blank) == 0
    edges = np.zeros_like(clean)  # of a wall along the tilt axis, at the same place in all images
    edges[:, :, 40:48] = 5 * clean.std()
    assert shared_pattern(clean + edges) == 0


def test_images_without_noise_come_back_with_their_gold_and_without_halos(tmp_path):
    """A bright needle before nothing, a hundred times its grain: what a network never saw is taken from the image."""
    y, x = np.mgrid[:96, :96] - 47.5
    angles = np.deg2rad(np.linspace(-60, 60, 21))
    width = [14 + 6 * np.cos(2 * angle) for angle in angles]
    needle = np.stack([100 / (1 + np.exp((np.abs(x) - w * (y + 48) / 96) / 0.7)) for w in width])
    grain = np.random.default_rng(0).standard_normal(needle.shape)
    stack = (needle + grain).astype(np.float32)
    stack[10, 20, 10] = 5000  # a hot pixel
    write_stack(tmp_path / "a.mrc", stack, 10.0, "made for a test")
    good("denoise", "--images", tmp_path / "a.mrc")
    made = read_mrc(tmp_path / "a_denoised.mrc").data
    assert np.corrcoef(made.ravel(), needle.ravel())[0, 1] > 0.995
    assert np.percentile(made, 99.5) > 97
    assert np.percentile(made, 0.5) > -10
    assert made[10].max() < 300
