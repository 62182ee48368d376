"""Halves whose images do not belong to each other are told: their average would be of two specimens."""

from __future__ import annotations

import numpy as np
import pytest
from beads import ANGLES, bead_images, write_angles, write_stack
from click.testing import CliRunner
from tiny_series import made, refused

from cryolithe.cli import main
from cryolithe.evaluation.half_images import doubts_of_halves

N = len(ANGLES)
CHANGES = {
    "as they are": (lambda odd: odd, ""),
    "reversed": (lambda odd: odd[::-1], "have their images in different orders"),
    "as they were taken": (lambda odd: odd[np.argsort(np.abs(ANGLES))], "have their images in different orders"),
    "mirrored along x": (lambda odd: odd[:, :, ::-1], "are mirror images along x of each other"),
    "mirrored along y": (lambda odd: odd[:, ::-1], "are mirror images along y of each other"),
    "turned": (lambda odd: odd[:, ::-1, ::-1], "are mirror images along x and y of each other"),
}


def halves(noise, seed=0):
    """Two halves with noise of so many deviations of their images."""
    random, images = np.random.default_rng(seed), 100.0 * bead_images()
    return [(images + noise * images.std() * random.standard_normal(images.shape)).astype(np.float32) for _ in "eo"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_orders_and_mirrors_are_told(change, noise):
    even, odd = halves(noise)
    changed, said = CHANGES[change]
    found = doubts_of_halves(even, changed(odd))
    assert found.opposite == ""
    assert found.unlike.startswith(said)
    assert bool(found.unlike) is bool(said)


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_borders_tell_nothing(seed):
    random = np.random.default_rng(seed)
    noise = random.standard_normal((2, N, 80, 90))
    assert doubts_of_halves(*noise).unlike == ""
    for half in noise + 100:
        for image in half:
            image[: random.integers(12)] = image[:, : random.integers(12)] = 0.0
    assert doubts_of_halves(*noise).unlike == ""
    even, odd = halves(1.0, seed)
    for image in odd:
        image[: random.integers(8)] = -1e4
    assert doubts_of_halves(even, odd).unlike == ""
    assert doubts_of_halves(even, -odd).opposite == "" or "opposite contrast" in doubts_of_halves(even, -odd).opposite


def test_through_the_command(tmp_path):
    even, odd = halves(0.5)
    write_stack(tmp_path / "ts_EVN.mrc", even)
    write_stack(tmp_path / "ts_ODD.mrc", odd[::-1])
    words = ("--even", tmp_path / "ts_EVN.mrc", "--odd", tmp_path / "ts_ODD.mrc", write_angles(tmp_path / "ts.tlt"))
    told = made(*words, "--method", "fbp", "-o", tmp_path / "v.mrc").stderr
    assert "Warning: ts_EVN.mrc and ts_ODD.mrc have their images in different orders" in told
    write_stack(tmp_path / "ts_ODD.mrc", odd)
    assert "Warning" not in made(*words, "--method", "fbp", "-o", tmp_path / "v.mrc", "--overwrite").stderr


@pytest.mark.parametrize("change", [lambda image: image, lambda image: 3 * image + 7, np.rint])
def test_images_that_both_halves_have_are_named_unless_nobody_uses_them(change):
    even, odd = halves(0.5)
    even *= 200 / even.std()  # so that rounding is of next to nothing
    odd *= 200 / odd.std()
    assert doubts_of_halves(even, odd).same == ""
    for number in (2, 5):
        odd[number - 1] = change(even[number - 1])
    assert doubts_of_halves(even, odd).same.startswith("have the same noise in images 2, 5: ")
    assert doubts_of_halves(even, odd, {5}).same.startswith("have the same noise in image 2: ")
    assert doubts_of_halves(even, odd, {2, 5}).same == ""


@pytest.mark.parametrize("level", [1e2, 1e5])
def test_borders_and_hot_pixels_that_halves_share_are_not_their_noise(level):
    even, odd = halves(0.5)
    rows, columns = np.mgrid[: even.shape[1], : even.shape[2]]
    outside = np.abs(rows - 20) + np.abs(columns - 30) > 40
    both = np.stack([even, odd])
    both += level * both.std()
    both[:, :, outside] = 0
    both[:, :, 7, 9] = 10 * level
    even, odd = both
    assert doubts_of_halves(even, odd).same == ""
    odd[3] = even[3]
    assert "image 4" in doubts_of_halves(even, odd).same


def test_an_image_in_both_halves_is_refused_and_can_be_left_out(tmp_path):
    even, odd = halves(0.5)
    odd[2] = even[2]
    words = ("--even", write_stack(tmp_path / "ts_EVN.mrc", even), "--odd", write_stack(tmp_path / "ts_ODD.mrc", odd))
    words = (*words, write_angles(tmp_path / "ts.tlt"), "--method", "fbp", "-o", tmp_path / "v.mrc")
    refused(tmp_path, words, "have the same noise in image 3")
    made(*words, "--exclude", "3")


def cryolithe_says(*words):
    result = CliRunner().invoke(main, list(map(str, words)))
    return result.exit_code, " ".join(result.output.split())


def series(folder, even, odd):
    """Both halves and their angles as files."""
    names = [folder / f"{name}.mrc" for name in ("e", "o")]
    for name, half in zip(names, (even, odd), strict=True):
        write_stack(name, half)
    return (*names, write_angles(folder / "a.tlt"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda even, odd: odd[::-1], "images in different orders"),
        (lambda even, odd: -odd, "opposite contrast"),
        (lambda even, odd: 2 * even + 1, "the same noise"),
    ],
)
def test_wherever_stacks_of_halves_are_given_they_are_compared(tmp_path, change, line):
    """Denoised images would be means of two specimens, and the specimen would be measured as noise."""
    even, odd = halves(0.5)
    even, odd, angles = series(tmp_path, even, np.ascontiguousarray(change(even, odd)))
    code, said = cryolithe_says("denoise", "--images", "--half1", even, "--half2", odd, "-o", tmp_path / "d.mrc")
    assert line in said
    assert code == (0 if "orders" in line else 2)
    code, said = cryolithe_says("noise", "measure", even, odd, angles, "-o", tmp_path / "p.h5")
    assert code == 2
    assert line in said or "times the contrast" in said or "they share frames" in said
