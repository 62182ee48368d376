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
the votes are like (Hoeffding's inequality for signs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.optics import ANGSTROM_PER_UM, TiltedView, ctf, tilted_defocus_um, wavelength_angstrom

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
# A defocus that was told is refined by so much, in steps of this phase at the highest frequency.
MOST_OFF_UM, STEP_RAD = 0.4, 0.4


@dataclass(frozen=True)
class HandEvidence:
    """What images tell of the hand.

    Attributes:
        votes: one for each two tiles of two images, positive for the hand 1.
        images: that were asked.
    """

    votes: tuple[float, ...] = ()
    images: int = 0

    @property
    def score(self) -> float:
        """Standard errors by which the votes differ from none, positive for the hand 1."""
        squares = math.fsum(vote * vote for vote in self.votes)
        return math.fsum(self.votes) / math.sqrt(squares) if squares else 0.0

    @property
    def hand(self) -> int | None:
        """1 or -1; None where the images do not tell."""
        return None if abs(self.score) < SURE else (1 if self.score > 0 else -1)

    def record(self) -> dict[str, Any]:
        """Plain values for the sidecar."""
        return {"hand": self.hand, "standard_errors": round(self.score, 3), "images": self.images}


def joined(parts: Sequence[HandEvidence]) -> HandEvidence:
    """What parts of a series tell together: halves of the same frames, whose votes are added."""
    if len({(len(part.votes), part.images) for part in parts}) != 1:
        return HandEvidence(tuple(vote for part in parts for vote in part.votes), max(part.images for part in parts))
    return HandEvidence(tuple(map(math.fsum, zip(*(part.votes for part in parts), strict=True))), parts[0].images)


def asked_images(angles_deg: Sequence[float]) -> tuple[int, ...]:
    """Numbers of the images that can tell the hand: those that are tilted most."""
    tilted = [number for number, angle in enumerate(angles_deg) if abs(angle) >= LEAST_TILT_DEG]
    return tuple(sorted(sorted(tilted, key=lambda number: -abs(angles_deg[number]))[:MOST_IMAGES]))


def paired(votes: Mapping[float, tuple[float, ...]]) -> HandEvidence:
    """The votes of images, by their angles, added for images that are tilted as far to either side.

    Where one side has no image the other's stand alone.
    """
    left, together = dict(votes), list[float]()
    for angle in sorted((angle for angle in votes if angle > 0), reverse=True):
        other = min((a for a in left if a < 0), key=lambda a: abs(a + angle), default=None)
        if other is not None and abs(other + angle) <= MOST_APART_DEG:
            together += map(math.fsum, zip(left.pop(angle), left.pop(other), strict=True))
    alone = [vote for own in votes.values() for vote in own]
    return HandEvidence(tuple(together or alone), len(votes) - len(left) if together else len(votes))


def votes_of(image: NDArray[np.float32], views: tuple[TiltedView, TiltedView]) -> tuple[float, ...]:
    """The votes of one image, positive for the first of two hands.

    Args:
        image: not corrected, tilt axis along y, shape ``(y, x)``.
        views: its optics and tilt, with the hands 1 and -1.
    """
    tile = _tile_px(image.shape, views[0])
    if tile is None:
        return ()
    rows, columns = (_starts(size, tile) for size in image.shape)
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
    single = ((told - told.mean(-2, keepdims=True)) * (wanted - wanted.mean(-2, keepdims=True))).sum(-1)
    return tuple(((single + single[:, ::-1])[:, : (len(places) + 1) // 2]).ravel().tolist())


def _tile_px(shape: tuple[int, ...], view: TiltedView) -> int | None:
    """Edge of a tile in which the finest rings can be told apart; None for images that are too small."""
    pixel = view.pixel_size_angstrom
    reach = wavelength_angstrom(view.optics.voltage_kv) * abs(view.optics.defocus_um) * ANGSTROM_PER_UM * 0.5 / pixel
    wanted = max(LEAST_TILE_PX, math.ceil(2 * RINGS * reach / pixel))
    tile = min(wanted, shape[1] // FEWEST_ACROSS, shape[0])
    return tile - tile % 2 if tile >= LEAST_TILE_PX // 2 else None


def _starts(size: int, tile: int) -> list[int]:
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
    phase = math.pi * wavelength_angstrom(view.optics.voltage_kv) * ANGSTROM_PER_UM * nyquist**2
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
