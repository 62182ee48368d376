"""Amplitudes of denoised images by shell of spatial frequency: as large as what the images hold of it.

A network learned on other specimens finds the shapes of these and not their contrast: of crowded proteins it returned a
tenth where six tenths would be nearest to the truth. For its output f(x), x = s + n, the factor nearest to the truth is

    g(q) = <f, s>_q / <f, f>_q

With halves e and o, <f(e), s> is <f(e), o>, whose noise f(e) knows nothing of. A single image has Stein's identity,
<f(x), s> = <f(x), x> - <f(x), n>, where the last term is that of a small disturbance b like the noise,
<f(x + ε b) - f(x), b> / ε (Stein 1981; Ramani, Blu and Unser 2008). What noise is like is told by the highest
frequencies; where it is coloured otherwise than by smoothing, single images come out too strong.

Where an image m has neighbours a and b in tilt (`neighbours`), no noise need be supposed: <f(m), a> and <m, a> are
<f(m), s> and <m, s> but for a factor, how far the specimen is still the same a tilt further on. That is <m, a> over
<m, s>; two tilts further on it is <a, b> over <m, s>. Were it a Gaussian of the distance, the first would be
(<a, b> / <m, a>)^(1/3), were it an exponential, <a, b> / <m, a>: of thin specimens and of thick cells it lies between
(benchmarks/LOG.md), and the exponent taken is `FADING`.

What the network missed is still in the image: the result is g f(x) + b (x - c f(x)), where c f(x) is the part of the
image that f(x) explains, c(q) = <f, x>_q / <f, f>_q, and b(q) = <x - c f, s>_q / <x - c f, x - c f>_q is the Wiener
gain of the rest, at most 1; <x, s> is <e, o>, or what of <x, x> is not noise. In every shell that is the best of all
mixtures of the image and what the network made of it, so no filter of the image alone is better, as far as noise is
known: with halves it is, between neighbours nearly, in a single image it is supposed, which a Wiener filter defeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.denoising.n2n.gains import (
    MOST_GAIN,
    SHELLS,
    FloatArray,
    ShellGain,
    gain_of,
    power_densities,
    shell_sums,
)

Image = NDArray[np.float32]
Denoise = Callable[[Image], Image]
LEAST_REST = 1e-3  # of the power of an image, below which a network leaves nothing of it to be weighed
STEP = 0.05  # of the disturbance, in deviations of the noise
# See the module; and the most that a specimen is taken to have changed more in two tilts than in one.
FADING, MOST_FADED = 0.5, 4.0
# Cycles per pixel above which noise is all but all of an image; deviation of the Gaussian that smoothed it at most.
NOISE_FROM_PER_PX, MOST_SMOOTHED_PX = 0.36, 0.8


@dataclass(frozen=True)
class ShellMix:
    """A mixture of an image and of what a network made of it, by shell.

    Attributes:
        made: factors of what the network made.
        image: factors of the image.
    """

    made: ShellGain
    image: ShellGain

    def apply(self, made: Image, image: Image) -> Image:
        """The mixture, shape ``(y, x)``."""
        mixed: Image = self.made.apply(made[None])[0] + self.image.apply(image[None])[0]
        return mixed

    def plain(self) -> dict[str, Any]:
        """Values of JSON."""
        return {"network": self.made.plain(), "image": self.image.plain()}


def mix_of_images(images: Iterable[Image], denoise: Denoise, rng: np.random.Generator) -> ShellMix:
    """The mixture for single images, whose noise is supposed to be a Gaussian of the frequency (see the module).

    Args:
        images: as the network takes them, each of shape ``(y, x)``.
        denoise: what it makes of one.
        rng: source of the disturbances.
    """
    both, power, all_, of_made, of_image = np.zeros((5, SHELLS))
    for image in images:
        made = denoise(image)
        like_noise = _like_noise(image, rng)
        moved = (denoise(image + np.float32(STEP) * like_noise) - made) / np.float32(STEP)
        products, powers, images_ = shell_sums(made[None], image[None], SHELLS)
        answer, _, noise = shell_sums(moved[None], like_noise[None], SHELLS)
        both += products
        power += powers
        all_ += images_
        of_made += products - answer
        of_image += images_ - noise
    return _best(both, power, all_, of_made, of_image)


def mix_of_neighbours(triples: Iterable[tuple[Image, Image, Image, Image]]) -> ShellMix:
    """The mixture for single images that have neighbours in tilt.

    Args:
        triples: what the network made of an image, the image, and its neighbours on either side: the same part of the
            specimen in all, each of shape ``(y, x)``.
    """
    both, power, all_, of_made, of_image, apart = np.zeros((6, SHELLS))
    for made, image, *sides in triples:
        products, powers, images = shell_sums(made[None], image[None], SHELLS)
        both += products
        power += powers
        all_ += images
        for side in sides:
            of_made += shell_sums(made[None], side[None], SHELLS)[0] / 2
            of_image += shell_sums(image[None], side[None], SHELLS)[0] / 2
        apart += shell_sums(sides[0][None], sides[1][None], SHELLS)[0]
    faded = np.divide(of_image, apart, out=np.full(SHELLS, MOST_FADED), where=apart > 0)
    # The finer, the more: what chance says otherwise is no news.
    more = np.maximum.accumulate(np.clip(faded, 1.0, MOST_FADED)) ** FADING
    return _best(both, power, all_, of_made * more, np.minimum(of_image * more, all_))


def mix_of_halves(pairs: Iterable[Sequence[Image]], denoise: Denoise) -> ShellMix:
    """The mixture for the means of two halves of each image, and of what a network makes of them.

    Args:
        pairs: halves in the same units, each of shape ``(y, x)``.
        denoise: what it makes of one.
    """
    both, power, all_, of_made, of_image = np.zeros((5, SHELLS))
    for even, odd in pairs:
        made = denoise(even), denoise(odd)
        mean = np.asarray((made[0] + made[1]) / 2, np.float32), np.asarray((even + odd) / 2, np.float32)
        products, powers, images = shell_sums(mean[0][None], mean[1][None], SHELLS)
        both += products
        power += powers
        all_ += images
        for one, other in zip(made, (odd, even), strict=True):
            of_made += shell_sums(one[None], other[None], SHELLS)[0] / 2
        of_image += shell_sums(even[None], odd[None], SHELLS)[0]
    return _best(both, power, all_, of_made, of_image)


def _best(both: FloatArray, power: FloatArray, all_: FloatArray, of_made: FloatArray, of_image: FloatArray) -> ShellMix:
    """The mixture of the module from products by shell: <f, x>, <f, f>, <x, x>, <f, s>, <x, s>."""
    shells = np.linspace(0, 0.5, SHELLS)
    # Of gain and part alike, which are smoothed alike: where there is no noise they must be the same.
    gain, explained = (gain_of(products, power).at(shells) for products in (of_made, both))
    rest = np.maximum(all_ - 2 * explained * both + explained**2 * power, LEAST_REST * all_)
    wiener = np.minimum(gain_of(np.clip(of_image - explained * of_made, 0, None), rest).at(shells), 1.0)
    factors = np.clip(gain - wiener * explained, -MOST_GAIN, MOST_GAIN)
    return ShellMix(ShellGain(tuple(factors.tolist())), ShellGain(tuple(wiener.tolist())))


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
