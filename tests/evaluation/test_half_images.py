"""Halves whose images do not belong to each other are told: their average would be of two specimens."""

from __future__ import annotations

import re

import numpy as np
import pytest
from beads import ANGLES, bead_images, write_angles, write_stack
from command import call
from scipy.ndimage import gaussian_filter
from tiny_series import made, refused

from cryolithe import simulate
from cryolithe.evaluation.half_images import HalfDoubts, doubts_of_halves

N = len(ANGLES)
CHANGES = {
    "as they are": (lambda odd: odd, ""),
    "reversed": (lambda odd: odd[::-1], "have their images in different orders"),
    "as they were taken": (lambda odd: odd[np.argsort(np.abs(ANGLES))], "have their images in different orders"),
    "mirrored along x": (lambda odd: odd[:, :, ::-1], "are mirrored along x against each other"),
    "mirrored along y": (lambda odd: odd[:, ::-1], "are mirrored along y against each other"),
    "turned": (lambda odd: odd[:, ::-1, ::-1], "are turned by 180° against each other"),
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
    found = doubts_of_halves(even, -odd)
    assert "opposite contrast" in found.opposite
    assert found.unlike == ""  # their order and sides are told as of halves that are not inverted


def clean_beads():
    """Without the noise that every image of beads has, which halves made of it would share."""
    images = bead_images()
    return images - 0.01 * np.random.default_rng(7).standard_normal(images.shape)


def with_noise_in_common(noise, share, seed=0):
    """Two halves of which so much of the noise's power is one."""
    random, images = np.random.default_rng(seed), clean_beads()
    own = [random.standard_normal(images.shape) for _ in "eo"]
    both = random.standard_normal(images.shape)
    made = [np.sqrt(1 - share) * one + np.sqrt(share) * both for one in own]
    return [(images + noise * images.std() * one).astype(np.float32) for one in made]


@pytest.mark.parametrize("noise", [1.0, 4.0])
@pytest.mark.parametrize("blur", [0.0, 0.7])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_noise_in_common_is_told_whatever_its_colour(noise, blur, share):
    pair = [gaussian_filter(half, (0, blur, blur)) for half in with_noise_in_common(noise, share)]
    found = doubts_of_halves(*pair)
    assert bool(found.shared) is bool(share)
    assert found.learnable is (share > 0.35)
    if share:
        correlation = float(re.search(r"correlate by (0\.\d+), no less than coarser ones", found.shared)[1])
        assert correlation == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(2))
def test_a_specimen_that_both_show_is_no_noise_however_clear(noise, seed):
    random = np.random.default_rng(seed)
    for images in (clean_beads(), simulate(seed=seed, snr_db=60, shape=(24, 96, 96)).tilts):
        pair = [images + noise * images.std() * random.standard_normal(images.shape) for _ in "eo"]
        assert doubts_of_halves(*pair).shared == ""


@pytest.mark.parametrize(
    ("exponent", "pixel", "defocus_um"), [(2.0, 10.0, 4.1), (3.0, 8.0, 2.65), (2.0, 13.6, 7.7), (3.0, 10.0, 0.3)]
)
def test_zeros_of_the_ctf_are_no_noise_in_common(exponent, pixel, defocus_um):
    """Halves that are clear up to Nyquist, with a CTF that is 0 where finer and coarser details are not."""
    random, size = np.random.default_rng(0), 256
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) + 1e-9
    ctf = np.sin(np.pi * 0.0197 * defocus_um * 1e4 * (k / pixel) ** 2 - 0.07)
    shape = (9, size, size)
    drawn = np.fft.rfft2(random.standard_normal(shape)) * np.maximum(k, 0.01) ** (-exponent / 2) * ctf
    images = np.fft.irfft2(drawn, s=shape[1:])
    fine = np.abs(drawn[:, (k > 0.42) & (k < 0.5)]).std() / size
    pair = [images + 1.5 * fine * random.standard_normal(shape) for _ in "eo"]
    assert doubts_of_halves(*pair).shared == ""


def test_a_pattern_of_all_images_is_told_as_such():
    even, odd = halves(1.0)
    pattern = 0.5 * even.std() * np.random.default_rng(5).standard_normal(even.shape[1:])
    assert doubts_of_halves(even + pattern, odd + pattern).shared.startswith("hold the same pattern in all images")


def shifted(images, y, x):
    """Images moved along y and x by parts of a pixel, round their edges."""
    along = [np.fft.fftfreq(images.shape[1])[:, None], np.fft.rfftfreq(images.shape[2])[None]]
    phase = np.exp(-2j * np.pi * (along[0] * y + along[1] * x))
    return np.fft.irfft2(np.fft.rfft2(images) * phase, s=images.shape[1:]).astype(np.float32)


@pytest.mark.parametrize("noise", [0.5, 1.0])
@pytest.mark.parametrize(("y", "x"), [(0.5, 0), (1, -1), (0, 4), (-6.5, 3)])
def test_halves_that_lie_apart_are_told_by_how_much(noise, y, x):
    even, odd = halves(noise)
    said = doubts_of_halves(even, shifted(odd, y, x)).apart
    found = re.match(r"are shifted against each other by ([\d.]+) px along x and ([\d.]+) px along y; align", said)
    assert found
    assert [float(one) for one in found.groups()] == pytest.approx([abs(x), abs(y)], abs=0.3)


@pytest.mark.parametrize("noise", [0.1, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_halves_in_one_place_lie_nowhere_apart(noise, blur):
    for seed in range(3):
        random, images = np.random.default_rng(seed), bead_images()
        noises = gaussian_filter(random.standard_normal((2, *images.shape)), (0, 0, blur, blur))
        even, odd = images + noise * images.std() / noises.std() * noises
        found = doubts_of_halves(even, shifted(odd, 0.05, 0))
        assert found.apart == found.scaled == ""
        # Nothing but noise, and specimens that have nothing to do with each other, lie nowhere apart, either.
        assert doubts_of_halves(noises[0], noises[1]).apart == ""
    assert doubts_of_halves(np.zeros_like(even), np.zeros_like(odd)) == HalfDoubts()
    even[3:6] = odd[5:8] = 7.0
    assert doubts_of_halves(even, odd).apart == ""


def test_single_images_that_lie_apart_or_are_scaled_are_named_unless_nobody_uses_them():
    even, odd = halves(0.5)
    odd[5], odd[20] = shifted(odd[5:6], 3, 0)[0], shifted(odd[20:21], 0, -2)[0]
    odd[9] *= 2
    found = doubts_of_halves(even, odd)
    assert re.search(r"in images 6 \(0\.\d px along x and [23]\.\d px along y\), 21 \([12]\.\d px along x", found.apart)
    assert re.search(r"image 10 of the first has 0\.(49|5.) times the noise", found.scaled)
    found = doubts_of_halves(even, odd, {6, 10})
    assert "in image 21 (" in found.apart
    assert found.scaled == ""
    assert doubts_of_halves(even, odd, {6, 10, 21}) == HalfDoubts()


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_halves_of_other_scales_are_told(factor):
    even, odd = halves(0.5)
    said = doubts_of_halves(even, factor * odd).scaled
    assert re.search(rf"the noise of the first is {1 / factor:.1f}\d times that of the second in most images", said)


@pytest.mark.parametrize("factor", [1.2, 0.8])
def test_halves_of_unlike_frames_are_no_fault(factor):
    """Five frames against four, or four against three, in all images or in some."""
    even, odd = halves(0.5)
    assert doubts_of_halves(even, factor * odd) == HalfDoubts()
    odd[3:6] *= factor
    assert doubts_of_halves(even, odd) == HalfDoubts()


@pytest.mark.parametrize("noise", [0.1, 0.5])
@pytest.mark.parametrize("by", [-2, -1, 1, 2])
def test_halves_of_which_one_is_some_images_ahead_are_told(noise, by):
    even, odd = halves(noise)
    assert "in different orders" in doubts_of_halves(even, np.roll(odd, by, axis=0)).unlike


def test_two_exchanged_images_are_named_unless_nobody_uses_them():
    even, odd = halves(0.5)
    odd[[4, N - 8]] = odd[[N - 8, 4]]
    found = doubts_of_halves(even, odd).unlike
    assert found.startswith(f"have images 5, {N - 7} exchanged")
    assert f"image 5 of the first like image {N - 7} of the second" in found
    assert doubts_of_halves(even, odd, {5, N - 7}).unlike == ""
    # An image that is bad in one half is like no other: that is no order.
    odd = halves(0.5, 3)[1]
    odd[4] = 100 * np.random.default_rng(0).standard_normal(odd[4].shape)
    assert doubts_of_halves(even, odd).unlike == ""


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
    result = call(*words)
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
        (lambda even, odd: np.roll(odd, (2, 1), (1, 2)), "shifted against each other by 1.0 px along x and 2.0 px"),
        (
            lambda even, odd: odd * np.where(np.arange(N) == 3, 1.6, 1).astype(np.float32)[:, None, None],
            "are not scaled alike: image 4",
        ),
    ],
)
def test_wherever_stacks_of_halves_are_given_they_are_compared(tmp_path, change, line):
    """Denoised images would be means of two specimens, and the specimen would be measured as noise."""
    even, odd = halves(0.5)
    even, odd, angles = series(tmp_path, even, np.ascontiguousarray(change(even, odd)))
    code, said = cryolithe_says("denoise", "--images", "--half1", even, "--half2", odd, "-o", tmp_path / "d.mrc")
    assert line in said
    assert code == (2 if "noise" in line or "contrast" in line else 0)
    code, said = cryolithe_says("noise", "measure", even, odd, angles, "-o", tmp_path / "p.h5")
    assert code == 2
    assert line in said or "times the contrast" in said or "they share frames" in said


@pytest.mark.parametrize("seed", range(4))
def test_halves_of_two_specimens_are_not_taken_for_inverted_ones(seed):
    """By chance two specimens are alike the wrong way round: inverting one, as was told, would be wrong."""
    random = np.random.default_rng(seed)
    one = simulate(seed=seed, snr_db=60, shape=(24, 96, 96)).tilts
    other = simulate(seed=seed + 10, snr_db=60, shape=(24, 96, 96)).tilts
    other = other - 0.25 * one * other.std() / one.std()
    pair = [half + 0.5 * half.std() * random.standard_normal(half.shape) for half in (one, other)]
    found = doubts_of_halves(*pair)
    assert not found.opposite
    assert found.unlike.startswith("have nothing in common")
    same = [half + 0.5 * half.std() * random.standard_normal(half.shape) for half in (one, -one)]
    assert "opposite contrast" in doubts_of_halves(*same).opposite


@pytest.mark.parametrize("change", ["alike", "inverted", "mirrored", "reversed", "of another series"])
def test_images_that_are_not_used_are_not_judged(change):
    """What is said is that of the others alone."""
    even, odd = halves(0.3)
    left_out, used = range(1, N + 1, 2), np.arange(1, N, 2)
    changed = {"alike": even, "inverted": -odd, "mirrored": odd[:, :, ::-1], "reversed": odd[::-1]}
    there = odd.copy()
    foreign = np.random.default_rng(5).standard_normal(odd.shape)
    there[::2] = changed.get(change, foreign)[::2]
    assert doubts_of_halves(even, there, left_out) == doubts_of_halves(even[used], odd[used]) == HalfDoubts()
    assert doubts_of_halves(even, odd, range(1, N + 1)) == HalfDoubts()


def test_exchanged_images_keep_their_numbers_where_others_are_left_out():
    even, odd = halves(0.1)
    odd[[4, 6]] = odd[[6, 4]]
    assert "have images 5, 7 exchanged" in doubts_of_halves(even, odd, (1, 2)).unlike
    assert "image 5 of the first like image 7" in doubts_of_halves(even, odd, (1, 2)).unlike


def counted(electrons, seed=0, specimen=0):
    """Two halves of so many electrons in a pixel of each image, of a specimen whose images change slowly with tilt."""
    random = np.random.default_rng(specimen)
    fields = gaussian_filter(random.standard_normal((N, 96, 96)), (5, 1.5, 1.5), mode=("nearest", "wrap", "wrap"))
    random = np.random.default_rng(seed)
    expected = np.exp(-0.1 * fields / fields.std()) * np.broadcast_to(electrons, N)[:, None, None] / 2
    return [random.poisson(expected).astype(np.float32) for _ in "eo"]


def one_of(times, place=N // 2):
    """Electrons of images of which one has so many times those of the others."""
    return 30.0 * np.where(np.arange(N) == place, times, 1.0)


DOSES = {
    "all alike": one_of(1),
    "the middle one of 5 times": one_of(5),
    "the middle one of 10 times": one_of(10),
    "the first of 10 times": one_of(10, 0),
    "the last of 10 times": one_of(10, N - 1),
    "by tilt": 30 / np.cos(np.deg2rad(ANGLES)),
    "in falling light": 60 * np.exp(-0.7 / np.cos(np.deg2rad(ANGLES))),
    "one nearly blocked": one_of(0.03, 4),
    "one of three times the noise": one_of(1 / 9, N - 5),
}


@pytest.mark.parametrize("dose", DOSES)
@pytest.mark.parametrize("seed", range(3))
def test_images_of_other_doses_are_not_taken_for_exchanged_ones(dose, seed):
    """A noisy image is more like one of many electrons than like its own other half."""
    assert doubts_of_halves(*counted(DOSES[dose], seed)) == HalfDoubts()


@pytest.mark.parametrize("dose", list(DOSES)[:7])
@pytest.mark.parametrize("moved", [(N // 2 - 8, N // 2 + 8), (4, N // 2), (3, N // 2, N - 4)])
def test_exchanged_images_are_named_alone_whatever_their_doses(dose, moved):
    even, odd = counted(DOSES[dose])
    odd[list(moved)] = odd[list(np.roll(moved, 1))]
    numbers = ", ".join(str(place + 1) for place in moved)
    assert doubts_of_halves(even, odd).unlike.startswith(f"have images {numbers} exchanged")
    assert "in different orders" in doubts_of_halves(even, counted(DOSES[dose], 1)[1][::-1]).unlike


def test_a_zero_tilt_of_many_electrons_is_no_fault_of_halves_for_the_command(tmp_path):
    even, odd, angles = series(tmp_path, *counted(DOSES["the middle one of 10 times"]))
    words = ("--even", even, "--odd", odd, angles, "--method", "fbp", "-o", tmp_path / "v.mrc")
    assert "exchanged" not in made(*words).stderr
