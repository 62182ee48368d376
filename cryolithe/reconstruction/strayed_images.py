"""Whether single images, or all beyond some tilt, lie elsewhere than the other images put them.

Tracking fails at some tilts, and an alignment may be right but for these. Nobody sees it in the volume, which has lost
them and shows their ghosts. Back-projected tilts are projected at the angle of an image that they do not hold, as
projection matching does it (Castaño-Díez et al. 2010, J. Struct. Biol. 170, 117), and correlated with the image within
a band: where the peak lies away from no shift, the image was moved.

- Single images: even tilts against the back-projection of odd ones, and the other way round.
- All beyond some tilt: the few images on one side of each gap between tilts against those on the other.

A warning must be sure: a peak that hardly rises above no shift (walls, bodies) or above places far from it (lattices,
noise) tells nothing, and most images must lie where they should. Of simulated proteins of 128 pixels between -12 and
0 dB, and of real ribosomes of 64 pixels, nearly all images that were moved by 4 to 8 pixels are told of, others never
(benchmarks/LOG.md). What is not told: the common movement of half of the images where no gap lies between them, an
alignment that is wrong all over, moves of less than two pixels of the coarse images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.geometry import TiltGeometry
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.prepared_stack import PreparedStack

FEWEST_TILTS, FEWEST_PX = 11, 48
# The band that is compared, as sigmas in coarse pixels, and how far a move is looked for, as a part of the field.
FINE_PX, COARSE_PX, REACH = 1.0, 8.0, 0.2
LEAST_MOVE_PX, STILL_PX = 2, 1
# Of a peak: what no move may reach, what any place farther away than so many pixels may reach, and what it must reach
# of the usual peak of images that lie right.
AT_REST_SHARE, ELSEWHERE_SHARE, AWAY_PX, LEAST_OF_USUAL = 0.75, 0.85, 6.0, 0.6
# Images that must lie right, and gaps at which all do.
LEAST_RIGHT, LEAST_RIGHT_GAPS = 0.6, 0.75
# Images on either side of a gap between tilts; at least so many; and pixels across images in which gaps are looked at.
SIDE, FEWEST_BESIDE, WIDEST_PX = 5, 4, 127
_TAPER_PX = 8
_MOST_LISTED = 8


class Peaks(NamedTuple):
    """Of correlations, each of shape ``(n,)`` but ``moves_px``, which is ``(n, 2)``: along y and x.

    Attributes:
        moves_px: by which images are moved against what they are compared with.
        height: of the peak.
        at_rest: correlation without a move.
        elsewhere: the highest far from the peak.
    """

    moves_px: NDArray[np.intp]
    height: NDArray[np.float64]
    at_rest: NDArray[np.float64]
    elsewhere: NDArray[np.float64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which lie where they should."""
        return np.asarray(np.abs(self.moves_px).max(axis=1) <= STILL_PX)

    def moved(self, least_right: float) -> NDArray[np.bool_]:
        """Which clearly do not; none where fewer than this share lie right."""
        right = self.right
        if right.mean() < least_right:
            return np.zeros_like(right)
        clear = (self.at_rest <= AT_REST_SHARE * self.height) & (self.elsewhere <= ELSEWHERE_SHARE * self.height)
        usual = self.height >= LEAST_OF_USUAL * np.median(self.height[right])
        return np.asarray(clear & usual & (np.abs(self.moves_px).max(axis=1) >= LEAST_MOVE_PX))


def stray_warnings(
    stack: PreparedStack, numbers: Sequence[int], images: torch.Tensor, binning: int, depth: int
) -> tuple[str, ...]:
    """A warning where images clearly lie elsewhere than the others put them.

    Args:
        stack: of which the images are.
        numbers: of each image in its file, from 1, for messages.
        images: all of the stack, averaged over squares of ``binning`` pixels, shape ``(tilts, y, x)``.
        binning: see above.
        depth: voxels along z of the volume, of the pixels of the stack.
    """
    angles = np.asarray(stack.geometry.angles_deg)
    if len(angles) < FEWEST_TILTS or min(images.shape[1:]) < FEWEST_PX or len(np.unique(angles)) < len(angles):
        return ()
    order = np.argsort(angles, kind="stable")
    sorted_images, sorted_deg, coarse_depth = images[torch.from_numpy(order)], angles[order], max(4, depth // binning)
    singles = single_peaks(sorted_images, sorted_deg, coarse_depth)
    if singles.right.mean() < LEAST_RIGHT:
        return ()
    factor = 1 + min(images.shape[1:]) // (WIDEST_PX + 1)
    pooled = torch.nn.functional.avg_pool2d(sorted_images, factor) if factor > 1 else sorted_images
    gaps, peaks = gap_peaks(pooled, sorted_deg, max(4, coarse_depth // factor))
    jumps, found = peaks.moved(LEAST_RIGHT_GAPS), []
    # Gaps next to one see it, too, but less of it; and so do the images next to it.
    jump = -2
    if jumps.any():
        most = int(np.argmax(np.where(jumps, peaks.height - peaks.at_rest, -np.inf)))
        jump = int(gaps[most])
        found.append(_jumped(sorted_deg[jump - 1], sorted_deg[jump], binning * factor * peaks.moves_px[most]))
    strayed = [place for place in np.flatnonzero(singles.moved(LEAST_RIGHT)) if place not in (jump - 1, jump)]
    if strayed:
        found.append(_strayed(sorted((numbers[order[place]], binning * singles.moves_px[place]) for place in strayed)))
    return tuple(found)


def _jumped(low_deg: float, high_deg: float, move_px: NDArray[np.intp]) -> str:
    y, x = move_px
    return (
        f"from the image at {low_deg:g}° to that at {high_deg:g}° all images move, by some {math.hypot(x, y):.0f} "
        f"pixels (x {x:+d}, y {y:+d}), so that the volume shows things twice; give a better alignment of the "
        "series, or leave the images beyond out (--exclude)"
    )


def _strayed(places: Sequence[tuple[int, NDArray[np.intp]]]) -> str:
    told = ", ".join(f"{number} (x {x:+d}, y {y:+d})" for number, (y, x) in places[:_MOST_LISTED])
    more = ", ..." if len(places) > _MOST_LISTED else ""
    one = len(places) == 1
    return (
        f"image{'' if one else 's'} {told}{more} lie{'s' if one else ''} so many pixels from where the other images "
        f"put {'it' if one else 'them'}, which blurs the volume; correct {'its' if one else 'their'} alignment, or "
        f"leave {'it' if one else 'them'} out (--exclude {','.join(str(number) for number, _ in places)})"
    )


def single_peaks(images: torch.Tensor, angles_deg: NDArray[np.float64], depth: int) -> Peaks:
    """Each image against the back-projection of every other one.

    Args:
        images: shape ``(tilts, y, x)``, sorted by angle.
        angles_deg: of these.
        depth: voxels along z.
    """
    surfaces = torch.empty_like(images)
    for first in (0, 1):
        mine, others = np.arange(first, len(images), 2), np.arange(1 - first, len(images), 2)
        surfaces[mine] = _correlated(images[mine], _projected(images, angles_deg, others, mine, depth))
    return _peaks(surfaces)


def gap_peaks(images: torch.Tensor, angles_deg: NDArray[np.float64], depth: int) -> tuple[NDArray[np.intp], Peaks]:
    """The images after each gap between tilts against those before it, as `single_peaks`.

    Returns:
        place of the first image after each gap; by how much the images after it are moved against those before.
    """
    gaps = np.arange(FEWEST_BESIDE, len(images) - FEWEST_BESIDE + 1)
    surfaces = []
    for gap in gaps:
        before, after = np.arange(max(0, gap - SIDE), gap), np.arange(gap, min(len(images), gap + SIDE))
        onward = _correlated(images[after], _projected(images, angles_deg, before, after, depth)).mean(dim=0)
        back = _correlated(images[before], _projected(images, angles_deg, after, before, depth)).mean(dim=0)
        # What lies at a lag of -s in the one lies at s in the other.
        surfaces.append((onward + back.flip(0, 1).roll((1, 1), (0, 1))) / 2)
    return gaps, _peaks(torch.stack(surfaces))


def _projected(
    images: torch.Tensor, angles_deg: NDArray[np.float64], seen: NDArray[np.intp], wanted: NDArray[np.intp], depth: int
) -> torch.Tensor:
    """Some images as the back-projection of others shows them."""
    _, height, width = images.shape
    given, asked = (TiltGeometry(tuple(angles_deg[which].tolist()), (height, width)) for which in (seen, wanted))
    volume = fbp(make_projector(given, (depth, width)), images[torch.from_numpy(seen)], "hamming")
    return make_projector(asked, (depth, width)).forward(volume)


def _correlated(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Normalised correlation of pairs of images by lag, within a band, lag 0 first; shape as theirs."""
    size = (images.shape[1], images.shape[2])
    taper = _taper(size[0])[:, None] * _taper(size[1])
    radius2 = torch.fft.fftfreq(size[0])[:, None].square() + torch.fft.rfftfreq(size[1]).square()
    fine, coarse = (torch.exp(-2 * math.pi**2 * sigma**2 * radius2) for sigma in (FINE_PX, COARSE_PX))
    band = fine * (1 - coarse)
    one, other = (torch.fft.rfft2((part - part.mean(dim=(1, 2), keepdim=True)) * taper) for part in (images, others))
    own, theirs = (torch.fft.irfft2(part.abs().square() * band, s=size)[:, :1, :1] for part in (one, other))
    return torch.fft.irfft2(one * other.conj() * band, s=size) / (own * theirs).sqrt().clamp_min(1e-30)


def _taper(size: int) -> torch.Tensor:
    edge = min(_TAPER_PX, size // 4)
    rise = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(edge) + 0.5) / edge)
    return torch.cat([rise, torch.ones(size - 2 * edge), rise.flip(0)])


def _peaks(surfaces: torch.Tensor) -> Peaks:
    """Peaks of correlations by lag, lag 0 first, shape ``(n, y, x)``."""
    reach = [max(LEAST_MOVE_PX, int(REACH * size)) for size in surfaces.shape[1:]]
    near = surfaces.roll(tuple(reach), (1, 2))[:, : 2 * reach[0] + 1, : 2 * reach[1] + 1].double().numpy()
    y, x = np.ogrid[: near.shape[1], : near.shape[2]]
    found = []
    for surface in near:
        place = np.unravel_index(int(surface.argmax()), surface.shape)
        away = np.hypot(y - place[0], x - place[1]) > AWAY_PX
        rest = surface[reach[0], reach[1]]
        found.append((place[0] - reach[0], place[1] - reach[1], surface[place], rest, surface[away].max()))
    columns = np.array(found).T
    return Peaks(columns[:2].T.astype(np.intp), columns[2], columns[3], columns[4])
