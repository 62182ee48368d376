"""Which defocus images were recorded with, told by their rings of Thon: is it the one that a file tells?

The power of an image, averaged along rings of one frequency k, is ``P(k) = b(k) + a(k) CTF²(k)`` (Rohou & Grigorieff
2015, J. Struct. Biol. 192, 216-221). Up to the first zero of the CTF this tells little: the hump there is that of the
specimen's own spectrum as much as that of the CTF, and bilayers, filaments and crowds have humps that the first ring of
some defocus imitates. So for each of many defoci only what lies beyond *its* first zero is asked: a background b, a
polynomial, and rings whose strength a >= 0 falls with the square of the frequency are fitted by least squares, each
frequency weighed by its number of pixels. By how much the rings lessen the squared residual, over the variance that is
left, is the gain of the defocus; of several backgrounds the least gain counts. Spectra of a series are averaged, each
over the tiles of its image and with the mean CTF² of these, whose defoci differ in tilted images; astigmatism of the
size σ turns ``cos 2γ`` into ``cos 2γ J0(2 π λ σ k²)`` in the mean over directions.

Of simulated specimens of all kinds in fields of 0.2 µm, a third of them without CTF, none tells a wrong defocus, and
few show a second ring (benchmarks/README.md, rings); cells in larger fields do more often (hand). Rings of another
pixel size, voltage or phase shift are those of another defocus, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.special
from numpy.typing import NDArray

from cryolithe.arrays.spectra import shell_of
from cryolithe.optics.transfer import TiltedView, phase_in_focus, phase_per_um, reach_angstrom, tilted_defocus_um
from cryolithe.reconstruction.evidence.hand_evidence import tile_starts

Values = NDArray[np.float64]

# Images that are tilted further are thick, and their rings are blurred by the gradient.
MOST_TILT_DEG, MOST_IMAGES = 45.0, 48
# Defoci that are tried, in steps of this phase at the highest frequency; a tile must hold so many samples of a ring.
LEAST_UM, MOST_UM, STEP_RAD = 0.6, 7.0, 0.4
SAMPLES = 2.0
LEAST_TILE_PX = 48
# Of frequencies up to Nyquist; so much of them beyond the first zero, in rings, must be used.
FROM, TO = 0.08, 0.9
LEAST_RINGS = 1.5
# Powers of the frequency in the backgrounds that are tried; power of the frequency by which rings fade.
BACKGROUNDS, FADING = (2, 3, 4), 2.0
# The gain of a defocus that is certain, of a series and of one image; and as parts of it, that of a told one that is
# not, and that of any other.
SURE, SURE_ALONE, NONE_SHARE, RIVAL_SHARE = 40.0, 80.0, 0.25, 0.6
# A told defocus is taken for the right one if rings are found as near as this.
NEAR_UM, NEAR_SHARE = 0.5, 0.15


@dataclass(frozen=True)
class RingSpectra:
    """Power of images along rings.

    Attributes:
        numbers: of the images in their series, from 0.
        views: their optics as they are told, and tilts.
        tile: edge of the tiles, pixels.
        places_px: where tiles lie right of the middle.
        power: of each image, at the frequencies of `ring_frequencies`.
    """

    numbers: tuple[int, ...] = ()
    views: tuple[TiltedView, ...] = ()
    tile: int = 0
    places_px: tuple[float, ...] = ()
    power: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class RingEvidence:
    """What the rings of some images tell of their defocus.

    Attributes:
        told_um: mean of what was told.
        best_um: the defocus with the highest gain.
        gain: of that, see the module.
        told_gain: of the told defocus, or of one as near as does no harm.
        rival_gain: the highest of defoci that are not near the best.
        images: that were asked.
    """

    told_um: float = 0.0
    best_um: float = 0.0
    gain: float = 0.0
    told_gain: float = 0.0
    rival_gain: float = 0.0
    images: int = 0

    @property
    def found_um(self) -> float | None:
        """The defocus of the rings where it is certain, and not the one that was told."""
        sure = SURE_ALONE if self.images == 1 else SURE
        if self.told_um > MOST_UM:  # which is not tried itself
            sure *= 2
        certain = self.gain >= sure and self.rival_gain <= RIVAL_SHARE * self.gain
        return self.best_um if certain and self.told_gain <= NONE_SHARE * self.gain else None

    @property
    def confirmed(self) -> bool:
        """Whether there are clear rings, and they are those of the told defocus."""
        return self.told_gain >= SURE

    def record(self) -> dict[str, Any]:
        """Plain values for the sidecar."""
        return {name: value if isinstance(value, int) else round(value, 3) for name, value in vars(self).items()}


def joined(parts: Sequence[RingSpectra]) -> RingSpectra:
    """Spectra of parts of a series, which have images of one size; of halves of the same frames the mean power."""
    parts = [part for part in parts if part.numbers]
    if not parts:
        return RingSpectra()
    views: dict[int, TiltedView] = {}
    power: dict[int, Values] = {}
    for part in parts:
        for number, view, own in zip(part.numbers, part.views, part.power, strict=True):
            views[number], power[number] = view, power.get(number, np.zeros(len(own))) + np.array(own)
    rows = tuple(tuple(map(float, power[number])) for number in views)
    return replace(parts[0], numbers=tuple(views), views=tuple(views.values()), power=rows)


def asked_for_rings(angles_deg: Sequence[float]) -> tuple[int, ...]:
    """Numbers of the images that are asked: those that are tilted least."""
    flat = [number for number, angle in enumerate(angles_deg) if abs(angle) <= MOST_TILT_DEG]
    return tuple(sorted(sorted(flat, key=lambda number: abs(angles_deg[number]))[:MOST_IMAGES]))


def ring_tile_px(shape: tuple[int, int], view: TiltedView) -> int | None:
    """Edge of tiles that hold the rings of all defoci that are tried, as far as images have room for them.

    Args:
        shape: of the images, ``(y, x)``.
        view: of any of them.
    """
    wanted = math.ceil(SAMPLES * _period_px(view, MOST_UM))
    tile = min(max(wanted, LEAST_TILE_PX), *shape)
    return tile - tile % 2 if tile >= LEAST_TILE_PX else None


class Rings:
    """Asks images of a series about the defocus, one by one."""

    def __init__(self, views: Sequence[TiltedView], asked: tuple[int, ...], shape: tuple[int, int]) -> None:
        self._views, self._width = views, shape[1]
        self._tile = ring_tile_px(shape, views[0])
        self._power: dict[int, tuple[float, ...]] = {}
        self.asked = asked if self._tile else ()

    def ask(self, number: int, image: NDArray[np.float32]) -> None:
        """Ask an image, if it is one of those to be asked."""
        if self._tile and number in self.asked:
            self._power[number] = ring_power(image, self._tile)

    def found(self) -> RingSpectra:
        """The power of all of them."""
        if not self._tile:
            return RingSpectra()
        views = tuple(self._views[number] for number in self._power)
        places = tile_places_px(self._width, self._tile)
        return RingSpectra(tuple(self._power), views, self._tile, places, tuple(self._power.values()))


def ring_power(image: NDArray[np.float32], tile: int) -> tuple[float, ...]:
    """The power of an image at `ring_frequencies`, the mean over its tiles.

    Args:
        image: not corrected, tilt axis along y, shape ``(y, x)``.
        tile: edge of its tiles.
    """
    window = np.outer(np.hanning(tile + 2)[1:-1], np.hanning(tile + 2)[1:-1]).astype(np.float32)
    total = np.zeros((tile, tile // 2 + 1))
    for y in tile_starts(image.shape[0], tile):
        for x in tile_starts(image.shape[1], tile):
            part = image[y : y + tile, x : x + tile]
            total += np.abs(scipy.fft.rfft2((part - part.mean()) * window)) ** 2
    rings, pixels, used = _rings(tile)
    found: list[float] = (np.bincount(rings, total.ravel())[: len(pixels)] / pixels)[used].tolist()
    return tuple(found)


def ring_frequencies(tile: int) -> Values:
    """The frequencies that are used, in units of Nyquist, ascending."""
    _, pixels, used = _rings(tile)
    frequencies: Values = np.flatnonzero(used) / (len(pixels) - 1)
    return frequencies


def ring_evidence(spectra: RingSpectra) -> RingEvidence:
    """What the rings of all images together tell, if all of them are told a defocus that is off by the same."""
    if not spectra.numbers:
        return RingEvidence()
    told = float(np.mean([view.optics.defocus_um for view in spectra.views]))
    shifts = _tried_um(spectra.views[0], spectra.tile)
    k, levels = ring_frequencies(spectra.tile), list[Values]()
    models = np.zeros((len(shifts), len(k)))
    for view, own in zip(spectra.views, spectra.power, strict=True):
        power = np.array(own)
        if power.min() > 0:
            levels.append(power / power[-max(3, len(k) // 8) :].mean())
            models += _squared(view, k, np.array(spectra.places_px), shifts)
    if not levels:
        return RingEvidence(told, told, images=len(spectra.numbers))
    gains = _gains(np.mean(levels, axis=0), models / len(levels), told + shifts, spectra)
    best = int(gains.argmax())
    found = told + float(shifts[best])
    rivals = gains[np.abs(told + shifts - found) > _near_um(found)]
    told_gain = float(gains[np.abs(shifts) <= _near_um(told)].max())
    return RingEvidence(
        told, found, float(gains[best]), told_gain, float(rivals.max(initial=0.0)), len(spectra.numbers)
    )


def strange_images(spectra: RingSpectra) -> dict[int, RingEvidence]:
    """Images, from 0, whose own rings are those of another defocus than they were told."""
    found = {}
    for place, number in enumerate(spectra.numbers):
        alone = replace(spectra, numbers=(number,), views=(spectra.views[place],), power=(spectra.power[place],))
        evidence = ring_evidence(alone)
        if evidence.found_um is not None:
            found[number] = evidence
    return found


def _gains(power: Values, models: Values, defoci_um: Values, spectra: RingSpectra) -> Values:
    """The gain of the rings of each defocus beyond its first zero, the least of all backgrounds.

    Args:
        power: at `ring_frequencies`.
        models: CTF² of each defocus there, shape ``(defoci, k)``.
        defoci_um: that are tried; those beyond what is possible, or what tiles can hold, have none.
        spectra: of which it is the mean.
    """
    k, (_, pixels, used) = ring_frequencies(spectra.tile), _rings(spectra.tile)
    weight = np.sqrt(pixels[used])
    frequency, most_um = k * 0.5 / spectra.views[0].pixel_size_angstrom, _most_um(spectra.views[0], spectra.tile)
    per_um = phase_per_um(spectra.views[0].optics.voltage_kv, frequency**2) / math.pi
    gains = np.zeros(len(defoci_um))
    for number, defocus in enumerate(defoci_um):
        if not LEAST_UM <= defocus <= most_um:
            continue
        rings = per_um * defocus  # so many half waves of phase
        beyond = rings >= 1
        if rings[-1] - 1 < LEAST_RINGS or np.count_nonzero(beyond) < max(BACKGROUNDS) + 6:
            continue
        values = _Fit(k[beyond] / k[beyond][0], weight[beyond], power[beyond], models[number, beyond])
        gains[number] = min(values.gain(powers) for powers in BACKGROUNDS)
    return gains


class _Fit(NamedTuple):
    """Rings in a spectrum: frequencies from 1, weights, power and CTF²."""

    x: Values
    weight: Values
    power: Values
    rings: Values

    def gain(self, powers: int) -> float:
        """By how much rings lessen the squared residual of a background, over the variance that is left."""
        basis = np.linalg.qr((self.x[:, None] ** np.arange(powers + 1)) * self.weight[:, None])[0]
        left, rings = (values * self.weight for values in (self.power, self.rings / self.x**FADING))
        left, rings = left - basis @ (basis.T @ left), rings - basis @ (basis.T @ rings)
        product = float(rings @ left)
        if product <= 0:
            return 0.0
        explained = product * product / float(rings @ rings)
        freedom = len(self.x) - powers - 2
        return explained / max((float(left @ left) - explained) / freedom, 1e-30)


def _squared(view: TiltedView, k: Values, places_px: Values, shifts_um: Values) -> Values:
    """The mean of CTF² over directions and tiles, of each shift, shape ``(shifts, k)``."""
    optics, frequency = view.optics, k * 0.5 / view.pixel_size_angstrom
    per_um, rest = phase_per_um(optics.voltage_kv, frequency**2), phase_in_focus(optics, frequency**2)
    away = places_px * view.pixel_size_angstrom
    defocus = tilted_defocus_um(optics.defocus_um, away, view.angle_deg, view.handedness)
    # Of the mean over tiles all that depends on the shift is one phase.
    tiles = np.exp(2j * (per_um * defocus[:, None] + rest)).mean(0) * scipy.special.j0(
        2 * per_um * optics.astigmatism_um
    )
    found: Values = 0.5 - 0.5 * (np.exp(2j * per_um * shifts_um[:, None]) * tiles).real
    return found


def _rings(tile: int) -> tuple[NDArray[np.int64], Values, NDArray[np.bool_]]:
    """Ring of each value of a half transform of a tile; pixels of each ring up to Nyquist, and whether it is used."""
    radius = np.hypot(np.fft.fftfreq(tile)[:, None], np.fft.rfftfreq(tile)[None])
    rings = shell_of(radius, tile).ravel()
    pixels = np.bincount(rings)[: tile // 2 + 1].astype(np.float64)
    k = np.arange(len(pixels)) / (tile // 2)
    return rings, pixels, (k > FROM) & (k < TO)


def tile_places_px(width: int, tile: int) -> tuple[float, ...]:
    """Where tiles lie right of the middle of an image."""
    return tuple(start + (tile - width) / 2 for start in tile_starts(width, tile))


def _tried_um(view: TiltedView, tile: int) -> Values:
    """Shifts of told defoci that are tried: 0 and so many to either side that all defoci are."""
    step = STEP_RAD / phase_per_um(view.optics.voltage_kv, _highest(view) ** 2)
    count = math.ceil(_most_um(view, tile) / step)
    return np.arange(-count, count + 1, dtype=np.float64) * np.float64(step)


def _near_um(defocus_um: float) -> float:
    """How far off a defocus may be that does no harm."""
    return max(NEAR_UM, NEAR_SHARE * defocus_um)


def _highest(view: TiltedView) -> float:
    """The highest frequency that is used, 1/Å."""
    return TO * 0.5 / view.pixel_size_angstrom


def _most_um(view: TiltedView, tile: int) -> float:
    """The largest defocus whose rings tiles can hold, and that is tried."""
    return min(MOST_UM, MOST_UM * tile / (SAMPLES * _period_px(view, MOST_UM)))


def _period_px(view: TiltedView, defocus_um: float) -> float:
    """How far apart things are whose interference has the period of the finest rings: ``2 λ Δf k``."""
    return 2 * reach_angstrom(view.optics.voltage_kv, defocus_um, _highest(view)) / view.pixel_size_angstrom
