"""Amplitudes of denoised images by shell of spatial frequency: as large as what the images hold of it.

A network learned on other specimens finds the shapes of these and not their contrast: of crowded proteins it returned a
tenth where six tenths would be nearest to the truth. For its output f(x), x = s + n, the factor nearest to the truth is

    g(q) = <f, s>_q / <f, f>_q

With halves e and o, <f(e), s> is <f(e), o>, whose noise f(e) knows nothing of. A single image has Stein's identity,
<f(x), s> = <f(x), x> - <f(x), n>, where the last term is that of a small disturbance b like the noise,
<f(x + ε b) - f(x), b> / ε (Stein 1981; Ramani, Blu and Unser 2008). What noise is like is told by the highest
frequencies; where it is coloured otherwise than by smoothing, single images come out too strong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from cryolithe.denoising.n2n.gains import SHELLS, FloatArray, ShellGain, gain_of, power_densities, shell_sums

Image = NDArray[np.float32]
Denoise = Callable[[Image], Image]
STEP = 0.05  # of the disturbance, in deviations of the noise
# Cycles per pixel above which noise is all but all of an image; deviation of the Gaussian that smoothed it at most.
NOISE_FROM_PER_PX, MOST_SMOOTHED_PX = 0.36, 0.8


def gain_of_images(images: Iterable[Image], denoise: Denoise, rng: np.random.Generator) -> ShellGain:
    """The gain by shell for what a network makes of single images.

    Args:
        images: as the network takes them, each of shape ``(y, x)``.
        denoise: what it makes of one.
        rng: source of the disturbances.
    """
    cross, power = np.zeros(SHELLS), np.zeros(SHELLS)
    for image in images:
        made = denoise(image)
        like_noise = _like_noise(image, rng)
        moved = (denoise(image + np.float32(STEP) * like_noise) - made) / np.float32(STEP)
        products, powers, _ = shell_sums(made[None], image[None], SHELLS)
        cross += products - shell_sums(moved[None], like_noise[None], SHELLS)[0]
        power += powers
    return gain_of(cross, power)


def gain_of_halves(pairs: Iterable[Sequence[Image]], denoise: Denoise) -> ShellGain:
    """The gain by shell for the mean of what a network makes of two halves of each image.

    Args:
        pairs: halves in the same units, each of shape ``(y, x)``.
        denoise: what it makes of one.
    """
    cross, power = np.zeros(SHELLS), np.zeros(SHELLS)
    for even, odd in pairs:
        made = denoise(even), denoise(odd)
        for one, other in zip(made, (odd, even), strict=True):
            cross += shell_sums(one[None], other[None], SHELLS)[0] / 2
        power += shell_sums((made[0] + made[1])[None] / 2, made[0][None], SHELLS)[1]
    return gain_of(cross, power)


def _like_noise(image: Image, rng: np.random.Generator) -> Image:
    """Normal deviates of the spectrum that the noise of an image seems to have, shape ``(y, x)``."""
    gain = ShellGain(tuple(np.sqrt(noise_density(image))))
    return gain.apply(rng.standard_normal((1, *image.shape), np.float32))[0]


def noise_density(image: Image) -> FloatArray:
    """Power of the noise of an image by shell: 1 for white noise of variance 1, shape ``(SHELLS,)``.

    At the highest frequencies, where specimens are weakest, it is a Gaussian: white noise, smoothed by interpolation.
    That goes on to 0, but is nowhere more than all of the image.
    """
    density = np.maximum(power_densities(image[None], SHELLS), 1e-12)
    squares = np.linspace(0, 0.5, SHELLS) ** 2
    top = squares > NOISE_FROM_PER_PX**2
    slope, level = np.polyfit(squares[top], np.log(density[top]), 1, w=squares[top] ** 0.25)
    fall = float(np.clip(-slope, 0.0, (2 * np.pi * MOST_SMOOTHED_PX) ** 2))
    middle = float(np.mean(squares[top]))
    level += (slope + fall) * middle  # the line through the middle, if the slope was not taken
    noise: FloatArray = np.minimum(density, np.exp(level - fall * squares))
    return noise
