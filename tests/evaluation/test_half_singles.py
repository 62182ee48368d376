"""A single image of one half that is not that of the other is told, and others are not, whatever their noise."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
from beads import write_angles, write_stack
from command import call, good
from test_half_images import halves
from tiny_series import made

from cryolithe import simulate
from cryolithe.evaluation.half_images import HalfDoubts, doubts_of_halves

ONE = 9


def changed(odd, change):
    odd = odd.copy()
    odd[ONE] = change(odd[ONE])
    return odd


def upper_half(image):
    image = image.copy()
    image[image.shape[0] // 2 :] = 7
    return image


def all_but_one_pixel(image):
    image = np.zeros_like(image)
    image[0, 0] = 1
    return image


CHANGES = {
    "blank": (lambda image: 0 * image + 7, "image 10 of the second is blank, in 100% of the pixels"),
    "nearly blank": (all_but_one_pixel, "image 10 of the second is blank, in 9"),
    "half blank": (upper_half, "image 10 of the second is blank, in 50% of the pixels"),
    "inverted": (lambda image: -image, "of opposite contrast in image 10 "),
    "mirrored": (lambda image: image[::-1], "show something else in image 10: that of the second"),
    "noise": (
        lambda image: image.std() * np.random.default_rng(5).standard_normal(image.shape),
        "show something else in image 10: that of the second",
    ),
}


@pytest.mark.parametrize(("name", "noise"), [*((name, 0.5) for name in CHANGES), ("inverted", 0.1), ("noise", 0.1)])
def test_an_image_that_is_not_that_of_the_other_half_is_named(name, noise):
    change, said = CHANGES[name]
    even, odd = halves(noise)
    odd = changed(odd, change)
    assert said in doubts_of_halves(even, odd).single
    assert said.replace("second", "first") in doubts_of_halves(odd, even).single
    assert doubts_of_halves(even, odd, {ONE + 1}).single == ""


def test_images_that_are_blank_in_both_halves_are_no_doubt_about_either():
    even, odd = halves(0.5)
    for half in (even, odd):
        half[3:5] = 7.0
        half[:, :, :9] = 0.0
    assert doubts_of_halves(even, odd) == HalfDoubts()
    odd[6] = even[7] = odd[8] = 7.0
    assert "images 7, 9 of the second are blank, in 8" in doubts_of_halves(even, odd).single


def coloured(random, shape, power):
    """Noise whose amplitudes fall with some power of frequency."""
    frequency = np.hypot(np.fft.fftfreq(shape[1])[:, None], np.fft.rfftfreq(shape[2])) + 1 / shape[1]
    made = np.fft.irfft2(np.fft.rfft2(random.standard_normal(shape)) * frequency**-power, s=shape[1:])
    return made / made.std()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("snr_db", [20, -5, -15, -25])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_right_halves_have_no_single_doubt_however_noisy_at_high_tilts(seed, snr_db, power):
    random = np.random.default_rng(seed)
    series = simulate(seed=seed, snr_db=60, shape=(24, 64, 64))
    fall = 1 / np.cos(np.deg2rad(series.angles_deg))[:, None, None] ** 3
    sigma = series.tilts.std() * 10 ** (-snr_db / 20) * fall
    noises = [sigma * coloured(random, series.tilts.shape, power) for _ in "eo"]
    pair = [series.tilts + noise for noise in noises]
    assert doubts_of_halves(*pair).single == ""
    # An image that shows no specimen in either half, and one with more noise in one, are no halves of something else.
    for half, noise in zip(pair, noises, strict=True):
        half[7] = noise[7]
    pair[1][12] += 0.8 * sigma[12] * random.standard_normal(pair[1][12].shape)
    assert doubts_of_halves(*pair).single == ""


@pytest.mark.parametrize("level", [0.02, 0.3])
def test_sparse_counts_are_not_blank(level):
    random = np.random.default_rng(0)
    assert doubts_of_halves(*(random.poisson(level, (9, 96, 96)).astype(np.int16) for _ in "eo")).single == ""


def test_commands_that_take_halves_of_frames_tell_it(tmp_path):
    even, odd = halves(0.5)
    names = [tmp_path / f"ts_{name}.mrc" for name in ("EVN", "ODD")]
    write_stack(names[0], even)
    angles = write_angles(tmp_path / "ts.tlt")
    for name in ("inverted", "half blank"):
        change, said = CHANGES[name]
        write_stack(names[1], changed(odd, change))
        words = ("--even", names[0], "--odd", names[1], angles, "--method", "fbp", "-o", tmp_path / f"{name}.mrc")
        assert said in made(*words).stderr
        result = call("noise", "measure", *names, angles, "-o", tmp_path / "p.h5")
        assert result.exit_code == 2
        assert said in result.output
    write_stack(names[1], odd)
    assert "Warning" not in made(*words, "--overwrite").stderr


def test_of_an_image_that_is_blank_in_one_half_the_other_is_denoised(tmp_path):
    """The mean with a blank image would have half the contrast."""
    even, odd = halves(0.5)
    for name, half in {"a_EVN": even, "a_ODD": odd, "b_ODD": changed(odd, lambda image: 0 * image + 7)}.items():
        write_stack(tmp_path / f"{name}.mrc", half)
    found = []
    for name in "ab":
        words = (
            "--half1",
            tmp_path / "a_EVN.mrc",
            "--half2",
            tmp_path / f"{name}_ODD.mrc",
            "-o",
            tmp_path / f"{name}.mrc",
        )
        result = good("denoise", "--images", *words)
        found.append((result.output, mrcfile.read(tmp_path / f"{name}.mrc")[ONE].std()))
    assert "in one half" not in found[0][0]
    assert "1 images are blank in one half, and made of the other alone" in found[1][0]
    assert "passed on as they are" not in found[1][0]
    assert 0.8 < found[1][1] / found[0][1] < 1.4
