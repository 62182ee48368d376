"""Whether images, one or several together, lie elsewhere than the other images put them.

Tracking fails at some tilts, and an alignment may be right but for these. Nobody sees it in the volume, which has lost
them and shows their ghosts. Back-projected tilts are projected at the angle of an image that they do not hold, as
projection matching does it (Castaño-Díez et al. 2010, J. Struct. Biol. 170, 117), and correlated with the image within
a band: where the peak lies away from no shift, the image was moved.

- Single images: even tilts against the back-projection of odd ones, and the other way round; then each that seems
  moved against all that do not, for one that lies wrong makes its neighbours seem so.
- Several together: without those, the few images on one side of each gap between tilts against those on the other.
  Where two such parts of a series do not fit, the larger one is taken to lie right.

A warning must be sure: a peak that hardly rises above no shift (walls, bodies) or above places far from it (lattices,
noise) tells nothing, most images must lie where they should, and it must be so in a grid as deep as it is wide, too, as
a specimen outside of a thin one is not projected where it belongs. The first and the last tilt, and those beside gaps,
have neighbours on one side alone and are not asked. Neither are told: an alignment that is wrong all over, moves of
less than two pixels of the coarse images or more than a third of the field. How often this is right and wrong stands
in benchmarks/LOG.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.formats.alignment.imod_command import runs_of
from cryolithe.geometry import TiltGeometry
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.images.prepared_stack import PreparedStack

FEWEST_TILTS, FEWEST_PX = 11, 48
# The band that is compared, as sigmas in coarse pixels, and how far a move is looked for, as a part of the field.
FINE_PX, COARSE_PX, REACH = 1.0, 8.0, 0.33
LEAST_MOVE_PX, STILL_PX, LEAST_OF_SEVERAL_PX = 2, 1, 2.5
# Of a peak: what no move may reach, what any place farther away than so many pixels may reach, and what it must reach
# of the usual peak of images that lie right.
AT_REST_SHARE, ELSEWHERE_SHARE, AWAY_PX, LEAST_OF_USUAL = 0.75, 0.85, 6.0, 0.6
# What gaps beside one at which images move may show of it.
BESIDE_SHARE = 0.75
# What a deep grid must show of a common move across the axis.
LEAST_OF_X = 0.3
# Images that must lie right, and gaps at which all do.
LEAST_RIGHT, LEAST_RIGHT_GAPS = 0.6, 0.75
# Gaps between tilts that are wider than so many usual steps have nothing to say, nor has what lies beside them.
WIDEST_STEPS = 2.5
# Images on either side of a gap between tilts, and at least so many.
SIDE, FEWEST_BESIDE = 5, 3
# Pixels across the smaller side of images that are asked about single ones, and about gaps, which takes longer.
WIDEST_PX, WIDEST_OF_GAPS_PX = 160, 127
_TAPER_PX = 8
_MOST_LISTED = 8

Groups = list[tuple[tuple[int, ...], NDArray[np.float64]]]


class Peaks(NamedTuple):
    """Of correlations, each of shape ``(n,)`` but ``moves_px``, which is ``(n, 2)``: along y and x.

    Attributes:
        moves_px: by which images are moved against what they are compared with, to parts of a pixel.
        height: of the peak.
        at_rest: correlation without a move.
        elsewhere: the highest far from the peak.
    """

    moves_px: NDArray[np.float64]
    height: NDArray[np.float64]
    at_rest: NDArray[np.float64]
    elsewhere: NDArray[np.float64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which lie where they should."""
        return np.asarray(np.abs(np.rint(self.moves_px)).max(axis=1) <= STILL_PX)

    @property
    def clear(self) -> NDArray[np.bool_]:
        """Which have a peak that is no other's, and lies elsewhere."""
        alone = (self.at_rest <= AT_REST_SHARE * self.height) & (self.elsewhere <= ELSEWHERE_SHARE * self.height)
        return np.asarray(alone & (np.abs(np.rint(self.moves_px)).max(axis=1) >= LEAST_MOVE_PX))

    @property
    def least_height(self) -> float:
        """What a peak must reach to be one of this series; some must lie right."""
        return LEAST_OF_USUAL * float(np.median(self.height[self.right]))

    @property
    def moved(self) -> NDArray[np.bool_]:
        """Which clearly lie elsewhere than they should."""
        return np.asarray(self.clear & (self.height >= self.least_height))


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
    if len(angles) < FEWEST_TILTS or min(images.shape[1:]) < FEWEST_PX:
        return ()
    order = np.argsort(angles, kind="stable")
    whole = Series(images[torch.from_numpy(order)], angles[order], max(4, depth // binning))
    series, factor = whole.pooled(WIDEST_PX)
    with one_thread():
        groups = strayed_groups(series)
    found = [
        (tuple(sorted(numbers[order[place]] for place in places)), binning * factor * move) for places, move in groups
    ]
    return (_told(sorted(found, key=lambda group: group[0])),) if found else ()


@contextmanager
def one_thread() -> Iterator[None]:
    """Small images in many small steps, at each of which threads would wait for each other, on a busy machine long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Series(NamedTuple):
    """Coarse images, sorted by angle.

    Attributes:
        images: shape ``(tilts, y, x)``.
        angles_deg: of these.
        depth: voxels along z of the volume.
    """

    images: torch.Tensor
    angles_deg: NDArray[np.float64]
    depth: int

    @property
    def depths(self) -> tuple[int, ...]:
        """In which all must be so: that of the volume, and one in which any specimen has room."""
        return tuple(sorted({self.depth, max(self.depth, self.images.shape[2])}))

    @property
    def wide(self) -> NDArray[np.bool_]:
        """Which gaps between tilts are too wide, shape ``(tilts - 1,)``."""
        steps = np.diff(self.angles_deg)
        return np.asarray(steps > WIDEST_STEPS * max(float(np.median(steps)), 1e-3))

    def without(self, places: Sequence[int]) -> tuple[Series, NDArray[np.intp]]:
        """The series without some images, and the places of those that are left."""
        kept = np.setdiff1d(np.arange(len(self.images)), places)
        return Series(self.images[torch.from_numpy(kept)], self.angles_deg[kept], self.depth), kept

    def pooled(self, widest_px: int) -> tuple[Series, int]:
        """The same of no more pixels across, and how many of them along a new one."""
        factor = 1 + min(self.images.shape[1:]) // (widest_px + 1)
        if factor == 1:
            return self, 1
        images = torch.nn.functional.avg_pool2d(self.images, factor)
        return Series(images, self.angles_deg, max(4, self.depth // factor)), factor


def strayed_groups(series: Series) -> Groups:
    """Places of images that lie wrong, alone or together, and their moves ``(y, x)`` in coarse pixels."""
    right, moves = _moved_singles(series)
    if not right:
        return []
    left, kept = series.without(sorted(moves))
    small, factor = left.pooled(WIDEST_OF_GAPS_PX)
    jumps = [(int(kept[gap]), factor * move) for gap, move in _jumps(small)]
    found: Groups = []
    parts = np.split(np.arange(len(series.images)), [gap for gap, _ in jumps])
    largest = int(np.argmax([len(part) for part in parts]))
    steps = np.cumsum([np.zeros(2), *(move for _, move in jumps)], axis=0)
    for number, (part, at) in enumerate(zip(parts, steps - steps[largest], strict=True)):
        # What adds up of several jumps may be no more than their errors.
        least = LEAST_MOVE_PX - 0.5 if abs(number - largest) == 1 else LEAST_OF_SEVERAL_PX
        if np.abs(at).max() >= factor * least and _confirmed(series, part, at):
            found.append((tuple(part.tolist()), at))
    inside = {place for places, _ in found for place in places}
    ends = {place for gap, _ in jumps for place in (gap - 1, gap)}
    found += [((place,), move) for place, move in moves.items() if place not in inside | ends]
    return found


def _moved_singles(series: Series) -> tuple[bool, dict[int, NDArray[np.float64]]]:
    """Whether most images lie right; and the moves of those that clearly do not, by place."""
    beside = np.r_[True, series.wide] | np.r_[series.wide, True]
    first = single_peaks(series.images, series.angles_deg, series.depth)
    if first.right.mean() < LEAST_RIGHT:
        return False, {}
    accused = np.flatnonzero(first.moved & ~beside)
    left, _ = series.without(accused.tolist())
    for depth in series.depths:
        if not accused.size:
            break
        shown = projected(left.images, left.angles_deg, np.arange(len(left.images)), series.angles_deg[accused], depth)
        again = _peaks(correlated(series.images[torch.from_numpy(accused)], shown))
        same = np.abs(again.moves_px - first.moves_px[accused]).max(axis=1) <= STILL_PX
        accused = accused[again.clear & same & (again.height >= first.least_height)]
    return True, {int(place): first.moves_px[place] for place in accused}


def _confirmed(series: Series, places: NDArray[np.intp], move: NDArray[np.float64]) -> bool:
    """Whether most of some images lie where their jumps say, against all others; those at an end are not asked."""
    if 0 in places or len(series.images) - 1 in places:
        return True
    left, _ = series.without(places.tolist())
    every = np.arange(len(left.images))
    shown = projected(left.images, left.angles_deg, every, series.angles_deg[places], series.depth)
    seen = _peaks(correlated(series.images[torch.from_numpy(places)], shown))
    return bool(np.median(np.abs(seen.moves_px - move).max(axis=1)) <= LEAST_MOVE_PX)


def _jumps(series: Series) -> list[tuple[int, NDArray[np.float64]]]:
    """Places of the first image beyond each gap at which all images move, and by how much."""
    gaps, peaks = gap_peaks(series.images, series.angles_deg, series.depth)
    if peaks.right.mean() < LEAST_RIGHT_GAPS:
        return []
    # Across a wide gap a specimen of another height than the grid moves across the axis, but not along it.
    fair = ~series.wide[gaps - 1] | (np.abs(peaks.moves_px[:, 0]) > STILL_PX)
    sure = peaks.moved & fair & _sharp(peaks.height - peaks.at_rest)
    for depth in series.depths[1:] if sure.any() else ():
        _, deep = gap_peaks(series.images, series.angles_deg, depth)
        sure &= _same_jump(peaks.moves_px, deep.moves_px)
    # Gaps next to one see it, too, but less of it.
    rise = np.where(sure, peaks.height - peaks.at_rest, -np.inf)
    found = []
    while np.isfinite(rise).any():
        most = int(np.argmax(rise))
        found.append((int(gaps[most]), peaks.moves_px[most]))
        rise[np.abs(gaps - gaps[most]) < SIDE] = -np.inf
    return sorted(found, key=lambda jump: jump[0])


def _sharp(rise: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which gaps stand out from those beside them: of a drift, which a specimen makes that is not as the grid is, all
    gaps see the same.

    Args:
        rise: of the peak above no move, by gap.
    """
    padded = np.r_[-np.inf, rise, -np.inf]
    return np.asarray(np.maximum(padded[:-2], padded[2:]) <= BESIDE_SHARE * rise)


def _told(groups: Groups) -> str:
    """The warning."""
    named = [(",".join(runs_of(numbers)), move) for numbers, move in groups]
    told = ", ".join(f"{name} (x {round(x):+d}, y {round(y):+d})" for name, (y, x) in named[:_MOST_LISTED])
    more = ", ..." if len(named) > _MOST_LISTED else ""
    one = sum(len(numbers) for numbers, _ in groups) == 1
    them = "it" if one else "them"
    return (
        f"image{'' if one else 's'} {told}{more} lie{'s' if one else ''} so many pixels from where the other images "
        f"put {them} (x across and y along the tilt axis, in pixels of the images that are reconstructed from), which "
        f"blurs the volume; correct {'its' if one else 'their'} alignment, or leave {them} out "
        f"(--exclude {','.join(name for name, _ in named)})"
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
        surfaces[mine] = correlated(images[mine], projected(images, angles_deg, others, angles_deg[mine], depth))
    return _peaks(surfaces)


def _same_jump(moves_px: NDArray[np.float64], deep_px: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether moves ``(n, 2)`` are those found in a deep grid, too, where height takes the place of some of x."""
    across = np.abs(deep_px[:, 0] - moves_px[:, 0]) <= STILL_PX + 0.5
    part = deep_px[:, 1] * np.sign(moves_px[:, 1]) / np.maximum(np.abs(moves_px[:, 1]), STILL_PX)
    # No height makes up for a move along the axis.
    along = (part >= LEAST_OF_X) | (np.abs(moves_px[:, 1]) <= STILL_PX) | (np.abs(deep_px[:, 0]) > STILL_PX)
    return np.asarray(across & along)


def gap_peaks(images: torch.Tensor, angles_deg: NDArray[np.float64], depth: int) -> tuple[NDArray[np.intp], Peaks]:
    """The images after each gap between tilts against those before it, as `single_peaks`.

    Returns:
        place of the first image after each gap; by how much the images after it are moved against those before.
    """
    gaps = np.arange(FEWEST_BESIDE, len(images) - FEWEST_BESIDE + 1)
    surfaces = []
    for gap in gaps:
        before, after = np.arange(max(0, gap - SIDE), gap), np.arange(gap, min(len(images), gap + SIDE))
        onward = correlated(images[after], projected(images, angles_deg, before, angles_deg[after], depth)).mean(dim=0)
        back = correlated(images[before], projected(images, angles_deg, after, angles_deg[before], depth)).mean(dim=0)
        # What lies at a lag of -s in the one lies at s in the other.
        surfaces.append((onward + back.flip(0, 1).roll((1, 1), (0, 1))) / 2)
    return gaps, _peaks(torch.stack(surfaces))


def projected(
    images: torch.Tensor,
    angles_deg: NDArray[np.float64],
    seen: NDArray[np.intp],
    wanted_deg: NDArray[np.float64],
    depth: int,
) -> torch.Tensor:
    """Images at some angles as the back-projection of some of the given ones shows them."""
    _, height, width = images.shape
    given, asked = (TiltGeometry(tuple(found.tolist()), (height, width)) for found in (angles_deg[seen], wanted_deg))
    volume = fbp(make_projector(given, (depth, width)), images[torch.from_numpy(seen)], "hamming")
    return make_projector(asked, (depth, width)).forward(volume)


def correlated(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Normalised correlation of pairs of images by lag, within a band, lag 0 first; shape as theirs."""
    size = (images.shape[1], images.shape[2])
    window = taper(size[0])[:, None] * taper(size[1])
    radius2 = torch.fft.fftfreq(size[0])[:, None].square() + torch.fft.rfftfreq(size[1]).square()
    fine, coarse = (torch.exp(-2 * math.pi**2 * sigma**2 * radius2) for sigma in (FINE_PX, COARSE_PX))
    band = fine * (1 - coarse)
    one, other = (torch.fft.rfft2((part - part.mean(dim=(1, 2), keepdim=True)) * window) for part in (images, others))
    own, theirs = (torch.fft.irfft2(part.abs().square() * band, s=size)[:, :1, :1] for part in (one, other))
    return torch.fft.irfft2(one * other.conj() * band, s=size) / (own * theirs).sqrt().clamp_min(1e-30)


def taper(size: int) -> torch.Tensor:
    """By what the pixels along one side are multiplied before images are correlated."""
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
        moves = [at + _beyond(surface, place, axis) - reach[axis] for axis, at in enumerate(place)]
        found.append((*moves, surface[place], rest, surface[away].max()))
    columns = np.array(found).T
    return Peaks(columns[:2].T, columns[2], columns[3], columns[4])


def _beyond(surface: NDArray[np.float64], place: tuple[np.intp, ...], axis: int) -> float:
    """Where the parabola through a peak and its neighbours along an axis is highest, from the peak."""
    line = surface[:, place[1]] if axis == 0 else surface[place[0]]
    at = int(place[axis])
    if not 0 < at < len(line) - 1:
        return 0.0
    bend = line[at - 1] - 2 * line[at] + line[at + 1]
    return float(0.5 * (line[at - 1] - line[at + 1]) / bend) if bend < 0 else 0.0
