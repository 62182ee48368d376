"""Which hand the defocus gradient of tilted images has, told by their power spectra on either side of the tilt axis.

At the angle θ what lies right of the axis is more defocused than what lies left of it, or less: the hand. Its rings of
Thon are then those of another CTF. An image is cut into tiles; the power of each, divided by the mean of all tiles of
its image, is compared with the difference of the squared CTFs that both hands give it. Of both only what changes fast
with frequency counts, so that no difference of contrast, thickness or noise between left and right is taken for one of
defocus. The mean defocus of an image is refined by the mean of its tiles first, which is the same for both hands: an
error of it turns the difference round at high frequencies. Two tiles as far left and right of the middle have one vote,
in two images that are tilted as far to either side: what the specimen itself has on one side cancels. Where
there is no gradient or no CTF, votes are as often for one hand as for the other, and a sum of so many independent votes
divided by the root of the sum of their squares exceeds t by chance with a probability of at most exp(-t²/2), whatever
the votes are like (Hoeffding's inequality for signs). Votes are not independent: tiles overlap, and images at
neighbouring tilts show the same matter. The variance of their sum is therefore multiplied by what the correlations of
votes with those beside them make of it (Newey & West 1987, Econometrica 55, 703), along each of images, rows and
columns: of 216 series without any CTF the score then has a deviation of 1.11, where it had 1.46 (benchmarks/LOG.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.optics.transfer import TiltedView, ctf, phase_per_um, reach_angstrom, tilted_defocus_um

# From so many standard errors on images tell the hand: by chance 1 in 3000.
SURE = 4.0
MOST_IMAGES, LEAST_TILT_DEG = 32, 12.0
MOST_APART_DEG = 6.0
# Tiles hold so many periods of the finest rings; a number of tiles and their edge are bounded, too.
RINGS, FEWEST_ACROSS, LEAST_TILE_PX = 2.0, 3, 48
# Of frequencies up to Nyquist; interpolation and the camera leave little beyond.
FROM, TO = 0.08, 0.9
TREND = 2  # powers of the frequency whose sum is no ring
LEAST_WEIGHT = 0.1
# How far apart votes may be that have something in common: images, rows and columns of tiles.
FARTHEST_BESIDE = (6, 1, 1)
# A defocus that was told is refined by so much, in steps of this phase at the highest frequency.
MOST_OFF_UM, STEP_RAD = 0.4, 0.4


# Of one image, or of two: by rows and columns of tiles, each with the vote that an image of pure rings would have.
Votes = tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True)
class HandEvidence:
    """What images tell of the hand.

    Attributes:
        parts: votes, positive for the hand 1, of images or pairs of images in the order of their tilts; parts have
            nothing to do with each other.
        images: that were asked.
    """

    parts: tuple[tuple[Votes, ...], ...] = ()
    images: int = 0

    @property
    def score(self) -> float:
        """Standard errors by which the votes differ from none, positive for the hand 1."""
        votes = [np.asarray(part, dtype=np.float64) for part in self.parts if part]
        squares = math.fsum(float(np.square(part[..., 0]).sum()) * _dependence(part) for part in votes)
        return math.fsum(float(part[..., 0].sum()) for part in votes) / math.sqrt(squares) if squares > 0 else 0.0

    @property
    def hand(self) -> int | None:
        """1 or -1; None where the images do not tell."""
        return None if abs(self.score) < SURE else (1 if self.score > 0 else -1)

    def record(self) -> dict[str, Any]:
        """Plain values for the sidecar."""
        return {"hand": self.hand, "standard_errors": round(self.score, 3), "images": self.images}


def _dependence(votes: NDArray[np.float64]) -> float:
    """By what correlations of votes with those beside them multiply the variance of their sum; never less than 1.

    A gradient gives all votes one sign, in proportion to those of pure rings: that is no correlation of chances.

    Args:
        votes: and those of pure rings, shape ``(images, rows, columns, 2)``.
    """
    found, rings = votes[..., 0], votes[..., 1]
    apart = found - rings * (found.sum() / max(float(rings.sum()), 1e-30))
    total = float(np.square(apart).mean())
    if total <= 0:
        return 1.0
    factor = 1.0
    for axis, farthest in enumerate(FARTHEST_BESIDE):
        size = apart.shape[axis]
        lags = range(1, min(farthest, size - 1) + 1)
        correlated = [
            float((np.take(apart, range(lag, size), axis) * np.take(apart, range(size - lag), axis)).mean()) / total
            for lag in lags
        ]
        weighed = (2 * (1 - lag / (len(lags) + 1)) * r for lag, r in zip(lags, correlated, strict=True))
        factor *= max(1.0, 1.0 + math.fsum(weighed))
    return factor


def joined(parts: Sequence[HandEvidence]) -> HandEvidence:
    """What parts of a series tell together: halves of the same frames, whose votes are added."""
    shapes = {tuple(np.shape(part) for part in one.parts) for one in parts}
    if len(shapes) != 1 or len({one.images for one in parts}) != 1:
        together = tuple(part for one in parts for part in one.parts)
        return HandEvidence(together, max(one.images for one in parts))
    added = tuple(_nested(np.sum(same, axis=0)) for same in zip(*(one.parts for one in parts), strict=True))
    return HandEvidence(added, parts[0].images)


def _nested(votes: NDArray[np.float64]) -> tuple[Votes, ...]:
    return tuple(tuple(tuple((vote, ring) for vote, ring in row) for row in image) for image in votes.tolist())


def asked_images(angles_deg: Sequence[float]) -> tuple[int, ...]:
    """Numbers of the images that can tell the hand: those that are tilted most."""
    tilted = [number for number, angle in enumerate(angles_deg) if abs(angle) >= LEAST_TILT_DEG]
    return tuple(sorted(sorted(tilted, key=lambda number: -abs(angles_deg[number]))[:MOST_IMAGES]))


def paired(votes: Mapping[float, Votes]) -> HandEvidence:
    """The votes of images, by their angles, added for images that are tilted as far to either side.

    Where one side has no image the other's stand alone.

    Args:
        votes: of each image, of as many tiles for all of them.
    """
    left, together = {angle: own for angle, own in votes.items() if own}, list[NDArray[np.float64]]()
    asked = len(left)
    for angle in sorted((angle for angle in left if angle > 0), reverse=True):
        other = min((a for a in left if a < 0), key=lambda a: abs(a + angle), default=None)
        if other is not None and abs(other + angle) <= MOST_APART_DEG:
            together.append(np.add(left.pop(angle), left.pop(other)))
    if together:
        return HandEvidence((_nested(np.array(together)),), asked - len(left))
    alone = tuple(left[angle] for angle in sorted(left))
    return HandEvidence((alone,) if alone else (), asked)


def votes_of(image: NDArray[np.float32], views: tuple[TiltedView, TiltedView], tile: int) -> Votes:
    """The votes of one image, positive for the first of two hands; none of an image without power at some frequency.

    Args:
        image: not corrected, tilt axis along y, shape ``(y, x)``.
        views: its optics and tilt, with the hands 1 and -1.
        tile: edge of its tiles, see `tile_px`.
    """
    rows, columns = (tile_starts(size, tile) for size in image.shape)
    window = np.outer(np.hanning(tile + 2)[1:-1], np.hanning(tile + 2)[1:-1]).astype(np.float32)
    power = np.empty((len(rows), len(columns), tile, tile // 2 + 1), dtype=np.float32)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            part = image[y : y + tile, x : x + tile]
            power[i, j] = np.abs(scipy.fft.rfft2((part - part.mean()) * window)) ** 2
    k = np.hypot(np.fft.fftfreq(tile)[:, None], np.fft.rfftfreq(tile)[None]) / 0.5
    used = (k > FROM) & (k < TO)
    seen, k = power[:, :, used], k[used]
    ring = np.minimum((k * tile / 2).astype(int), tile)
    mean = _by_ring(seen.mean((0, 1)), ring)
    if not mean.min() > 0:
        return ()
    weight = _share(mean, k)
    trend = np.linalg.qr((k[:, None] ** np.arange(TREND + 1)) * weight[:, None])[0]

    def fast(values: NDArray[np.floating]) -> NDArray[np.float64]:
        """What changes fast with frequency, weighed."""
        weighed = values * weight
        found: NDArray[np.float64] = weighed - (weighed @ trend) @ trend.T
        return found

    places = [x + (tile - image.shape[1]) / 2 for x in columns]

    def squared(off_um: float) -> NDArray[np.float32]:
        """The squared CTF by both hands, of every column of tiles, with another mean defocus."""
        return np.array([[_squared(view, place, off_um, tile)[used] for place in places] for view in views])

    seen_rings, offs = fast(np.log(mean)), _offs_um(views[0], k.max())
    off_um = max(offs, key=lambda off: _cosine(seen_rings, fast(squared(off).mean((0, 1)))))
    ahead, behind = squared(off_um)
    told, wanted = fast(seen / mean - 1), fast(ahead - behind)
    wanted -= wanted.mean(-2, keepdims=True)
    single = ((told - told.mean(-2, keepdims=True)) * wanted).sum(-1)
    rings = np.broadcast_to(np.square(wanted).sum(-1), single.shape)
    both = np.stack([single, rings], axis=-1)
    return _nested((both + both[:, ::-1])[None, :, : (len(places) + 1) // 2])[0]


def tile_px(shape: tuple[int, int], views: Sequence[TiltedView]) -> int | None:
    """Edge of tiles in which the finest rings of all images can be told apart; None for images that are too small.

    Args:
        shape: of the images, ``(y, x)``.
        views: of the images that are asked.
    """
    if not views:
        return None
    pixel = views[0].pixel_size_angstrom
    defocus, voltage = max(abs(view.optics.defocus_um) for view in views), min(view.optics.voltage_kv for view in views)
    reach = reach_angstrom(voltage, defocus, 0.5 / pixel)
    wanted = max(LEAST_TILE_PX, math.ceil(2 * RINGS * reach / pixel))
    tile = min(wanted, shape[1] // FEWEST_ACROSS, shape[0])
    return tile - tile % 2 if tile >= LEAST_TILE_PX // 2 else None


def tile_starts(size: int, tile: int) -> list[int]:
    """First pixels of tiles that overlap by half or more, the same from either end."""
    count = max(1, 2 * size // tile - 1)
    return [round(start) for start in np.linspace(0, size - tile, count)]


def _squared(view: TiltedView, place_px: float, off_um: float, tile: int) -> NDArray[np.float32]:
    """The squared CTF of a tile whose middle lies right of the image's."""
    away = np.array(place_px * view.pixel_size_angstrom)
    defocus = float(tilted_defocus_um(view.optics.defocus_um + off_um, away, view.angle_deg, view.handedness))
    return ctf(replace(view.optics, defocus_um=defocus), (tile, tile), view.pixel_size_angstrom) ** 2


def _offs_um(view: TiltedView, highest: float) -> NDArray[np.float64]:
    """Differences from the defocus that was told, to be tried."""
    nyquist = 0.5 / view.pixel_size_angstrom * highest
    phase = phase_per_um(view.optics.voltage_kv, nyquist**2)
    steps = math.ceil(MOST_OFF_UM * phase / STEP_RAD)
    return np.linspace(-MOST_OFF_UM, MOST_OFF_UM, 2 * steps + 1)


def _cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(a @ b) / (float(np.linalg.norm(a) * np.linalg.norm(b)) or 1.0)


def _by_ring(values: NDArray[np.floating], ring: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values smoothed along rings: the mean of each."""
    count = np.bincount(ring)
    sums = np.bincount(ring, values)
    found: NDArray[np.float64] = (sums / np.maximum(count, 1))[ring]
    return found


def _share(mean: NDArray[np.floating], k: NDArray[np.floating]) -> NDArray[np.float64]:
    """How much of the power is not the floor that is left at the highest frequencies; never none at all."""
    floor = float(np.median(mean[k > 0.85 * k.max()]))
    return np.asarray(LEAST_WEIGHT + np.clip(1 - floor / mean, 0, 1))
