"""Whether images share the tilt axis that they are said to have, and are aligned with each other along it.

By the projection theorem two images of one specimen have a line of their spectra in common, that of the tilt axis:
their sums across the axis are the same function of the place along it, whatever the tilt (Crowther, DeRosier and Klug
1970). These profiles are compared between tilts that foreshorten the specimen differently, as they are and moved
against each other, for the given axis and for all other directions. With the right axis they agree; where another
direction agrees instead, the axis lies there; where they agree only when moved, the images are not aligned.

Others look alike in several tilts, too. Straight walls and filaments do nearly: a narrow band of fine detail is
compared, what stands far out of a profile is cut off, and many places must agree. Patterns of the detector and of the
beam (columns, fringes) do exactly, also where an alignment moved them: but their profiles are the same in both halves
of an image, those of a specimen are not.

Of simulated cells, lamellae, vesicles and proteins, 128 pixels across and of -10 dB and more, profiles agree by 0.21 to
0.93 along the right axis and by 0.23 at most elsewhere, with shifts of 2 % of the field by 0.19 at most; walls alone by
up to 0.6 in a wrong direction (benchmarks/LOG.md).

What is not told: an axis within 6° of the given one, or 30° where images agree little; shifts across the axis and
of single images, which `evidence.strayed_images` tells; shifts of images that foreshorten as most
others do (with tilts of up to 60° those between 33° and 48°), which have no partner.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from cryolithe.reconstruction.evidence.asymmetry import averaged
from cryolithe.reconstruction.images.prepared_stack import PreparedStack

# Pixels across a coarse image, and the band that is compared, as sigmas of these pixels.
WIDEST_PX, FEWEST_PX, FINE_PX, COARSE_PX = 128, 96, 1.0, 2.5
FEWEST_TILTS, LEAST_FORESHORTENING = 11, 0.2
# Pairs of tilts whose foreshortening differs by this share of the largest difference.
FAR_SHARE = 0.7
STEP_DEG = 5.0
# Directions nearer than this to an axis may be that axis.
LEAST_TURN_DEG = 30.0
# Directions nearer to the given one, of which one must agree by so much, the given one by no more than a share of that.
# Of 54 simulated series, agreement is highest within 4° of the true axis; there it is 0.6 of the highest, at least.
NEAR_DEG, NEAR_STEP_DEG, LEAST_NEAR_TURN_DEG, LEAST_NEAR, NEAR_SHARE = 30.0, 2.0, 6.0, 0.25, 0.7
MOST_SHIFT = 0.25  # of the field
CUT_DEVIATIONS = 1.5
# Where the given axis agrees by so much, nothing else is asked.
GOOD_AGREEMENT = 0.27
# Another axis must agree by so much, and so many times as much as the given one, at such a share of all places, and at
# so much more for each further unit of correlation, up to MOST_PLACES: walls agree, too, but at few places.
LEAST_AGREEMENT, TIMES, LEAST_PLACES, MORE_PLACES, MOST_PLACES = 0.14, 4.0, 0.18, 0.33, 0.3
# Profiles of both halves of an image that correlate by this share of what a pattern's would are those of a pattern.
PATTERN_SHARE = 0.75
# Moved images agree a little by chance: they must agree by so much, along the given axis or another, and so many times
# as much as along other directions.
LEAST_MOVED, LEAST_MOVED_ACROSS, TIMES_OTHERS = 0.25, 0.5, 1.5
# Images that agree less than this share of what they do when moved are not aligned.
UNALIGNED_SHARE = 0.6
# Moves are fitted to those of pairs, of which many are wrong: how far from the fit, in pixels, half of a weight is.
ROUNDS, HALF_WEIGHT_PX = 15, 2.0


class Agreement(NamedTuple):
    """How far profiles of different tilts agree, by the direction of the axis; all of shape ``(axes,)``.

    Attributes:
        axes_deg: directions from y, as `Preparation.tilt_axis_deg`: towards -x.
        still: mean correlation of the images as they are.
        moved: the same, with each image moved along the axis so that all agree best.
        still_sound: whether the first comes from so many places that it is no wall, and from other profiles in one half
            of the images than in the other, so that it is no pattern of the detector.
        moved_sound: the same of the second.
        moves: standard deviation of these moves, in pixels of the images.
    """

    axes_deg: NDArray[np.float64]
    still: NDArray[np.float64]
    moved: NDArray[np.float64]
    still_sound: NDArray[np.bool_]
    moved_sound: NDArray[np.bool_]
    moves: NDArray[np.float64]


def coarse_images(stack: PreparedStack) -> tuple[torch.Tensor, int]:
    """The images, averaged over squares of pixels, as many rows as the shorter side has; and how many pixels each."""
    height, width = stack.geometry.image_shape
    side = min(height, width)
    factor = max(1, side // WIDEST_PX)
    rows = side // factor
    return averaged(stack, (height // factor - rows) // 2, rows, factor), factor


def line_warnings(stack: PreparedStack, images: torch.Tensor, factor: int) -> tuple[str, ...]:
    """A warning where images clearly have another tilt axis than y, or are clearly not aligned along it.

    Args:
        stack: of which the images are.
        images: see `coarse_images`.
        factor: pixels along a coarse one.
    """
    pairs = far_pairs(np.asarray(stack.geometry.angles_deg))
    if min(stack.geometry.image_shape) < FEWEST_PX or len(pairs) == 0:
        return ()
    near = agreement(images, pairs, np.arange(-NEAR_DEG, NEAR_DEG + NEAR_STEP_DEG / 2, NEAR_STEP_DEG))
    told = _near_axis(near)
    if told and not _stands_out(near, images, next_pairs(np.asarray(stack.geometry.angles_deg))):
        told = ""
    if not told and agreement(images, pairs, np.zeros(1)).still[0] < GOOD_AGREEMENT:
        told = _told(agreement(images, pairs, np.arange(0.0, 180.0, STEP_DEG)), factor)
    return (told,) if told else ()


def _near_axis(found: Agreement) -> str:
    """Whether a direction near the given axis clearly suits the images better."""
    best, given = int(np.argmax(found.still)), int(np.argmin(np.abs(found.axes_deg)))
    most, still = float(found.still[best]), float(found.still[given])
    # The middle of all that agree nearly as much: the highest of a flat peak is any of them.
    beyond = np.maximum(found.still - NEAR_SHARE * most, 0.0)
    turn_deg = float(beyond @ found.axes_deg / beyond.sum()) if most > 0 else 0.0
    sure = most >= LEAST_NEAR and still <= NEAR_SHARE * most and found.still_sound[best]
    # The last direction may be on the way to one farther away.
    if not sure or abs(turn_deg) < LEAST_NEAR_TURN_DEG or best in (0, len(found.axes_deg) - 1):
        return ""
    return _shared_lines(round(turn_deg), most, still)


def _stands_out(found: Agreement, images: torch.Tensor, beside: NDArray[np.intp]) -> bool:
    """Whether the best direction is better than the given one by more than its profiles stand out of their noise.

    Of few objects some directions have stronger profiles than others, of which noise leaves more. Neighbouring tilts
    lose as much by noise, and in all directions near an axis they are alike: what far tilts agree is compared by parts
    of that.
    """
    best, given = int(np.argmax(found.still)), int(np.argmin(np.abs(found.axes_deg)))
    most, least = agreement(images, beside, found.axes_deg[[best, given]]).still
    return bool(found.still[given] * most <= NEAR_SHARE * found.still[best] * least)


def _shared_lines(turn_deg: float, most: float, still: float) -> str:
    return (
        f"the images share lines at about {_from_axis(turn_deg)} from where the tilt axis is taken to be (mean "
        f"correlation {most:.2f}, along it {still:.2f}), so that the axis seems to lie there and the volume to be "
        "wrong; give --tilt-axis, or the alignment of the series"
    )


def _told(found: Agreement, binning: int) -> str:
    """What is wrong with the images, if anything clearly is."""
    turned = _apart(found.axes_deg, 0.0)
    still, moved = (float(values[0]) for values in (found.still, found.moved))
    best = int(np.argmax(found.moved))
    peak = float(found.moved[best])
    alone = peak >= TIMES_OTHERS * found.moved[_apart(found.axes_deg, found.axes_deg[best])].max()
    moving = alone and abs(still) < UNALIGNED_SHARE * peak
    if moving and not turned[best] and found.moved_sound[0] and moved >= max(LEAST_MOVED, abs(still) / UNALIGNED_SHARE):
        return (
            "the images are not aligned: along the tilt axis they agree if each is moved, by some "
            f"{found.moves[0] * binning:.0f} pixels (mean correlation {moved:.2f}, as they are {still:.2f}); give the "
            "alignment of the series, or an aligned stack"
        )
    still_best = int(np.argmax(np.where(turned, found.still, -1.0)))
    agreed = float(found.still[still_best])
    same = not _apart(found.axes_deg, found.axes_deg[best])[still_best]
    if same and found.still_sound[still_best] and agreed >= max(LEAST_AGREEMENT, TIMES * still):
        return _shared_lines(float(found.axes_deg[still_best]), agreed, still)
    if moving and turned[best] and found.moved_sound[best] and peak >= LEAST_MOVED_ACROSS:
        return (
            "the images are not aligned, and their tilt axis seems to lie at about "
            f"{_from_axis(found.axes_deg[best])} from where it is taken to be (mean correlation of moved images "
            f"{peak:.2f}, along the given axis {moved:.2f}); give the alignment of the series, or an aligned stack"
        )
    return ""


def _apart(axes_deg: NDArray[np.float64], axis_deg: float) -> NDArray[np.bool_]:
    """Which directions are clearly others than one."""
    return np.asarray(np.abs((axes_deg - axis_deg + 90) % 180 - 90) >= LEAST_TURN_DEG)


def _from_axis(axis_deg: float) -> str:
    return f"{axis_deg - 180 if axis_deg > 90 else axis_deg:g}°"


def far_pairs(angles_deg: NDArray[np.float64]) -> NDArray[np.intp]:
    """Pairs of tilts that foreshorten a specimen differently, shape ``(pairs, 2)``; none where all do it alike."""
    seen = np.cos(np.deg2rad(angles_deg))
    apart = np.abs(seen[:, None] - seen)
    if len(seen) < FEWEST_TILTS or apart.max() < LEAST_FORESHORTENING:
        return np.empty((0, 2), dtype=np.intp)
    return np.argwhere(np.triu(apart >= FAR_SHARE * apart.max(), 1))


def next_pairs(angles_deg: NDArray[np.float64]) -> NDArray[np.intp]:
    """Pairs of neighbouring tilts, shape ``(tilts - 1, 2)``."""
    order = np.argsort(angles_deg, kind="stable")
    return np.stack([order[:-1], order[1:]], axis=1)


def agreement(images: torch.Tensor, pairs: NDArray[np.intp], axes_deg: NDArray[np.float64]) -> Agreement:
    """How far images agree along some directions.

    Args:
        images: shape ``(tilts, y, x)``; of these the largest circle in the middle is compared.
        pairs: of tilts.
        axes_deg: the directions from y, towards -x.
    """
    rows = []
    one, other = pairs.T
    paired = np.unique(pairs)
    for axis_deg in axes_deg:
        halves = profiles(images, float(axis_deg))
        lines = _standardised(halves.sum(axis=0))
        length = lines.shape[1]
        spectra = np.fft.rfft(lines, 2 * length)
        products = np.fft.irfft(spectra[one] * spectra[other].conj())
        reach = int(MOST_SHIFT * length)
        lags = np.r_[: reach + 1, -reach:0]
        moves = fitted_moves(lags[products[:, lags].argmax(axis=1)], pairs, len(lines))
        turns = np.exp(1j * np.pi * np.arange(length + 1) / length * moves[:, None])
        still = (lines[one] * lines[other]).mean(axis=0)
        moved = _normed(np.fft.irfft(spectra * turns)[:, :length])
        parts = (moved[one] * moved[other]).mean(axis=0)
        common = float(np.prod([_standardised(half) for half in halves], axis=0).sum(axis=1).mean())
        sound = _sound(still, common), _sound(parts, common)
        rows.append((still.sum(), parts.sum(), *sound, moves[paired].std()))
    found = tuple(np.array(column) for column in zip(*rows, strict=True))
    return Agreement(np.asarray(axes_deg, dtype=np.float64), *found)


def _sound(parts: NDArray[np.float64], common: float) -> bool:
    """Whether a correlation is that of a specimen; ``parts``, one for each place, sum to it.

    A pattern of power p in noise of power n makes profiles that correlate by r = p / (p + n) between images, and by
    p / (p + 2 n) = r / (2 - r) between the halves of one, which is compared with ``common``.
    """
    total = float(parts.sum())
    places = total**2 / max(float(np.square(parts).sum()), 1e-30)
    least = min(MOST_PLACES, LEAST_PLACES + MORE_PLACES * (total - LEAST_AGREEMENT))
    return places >= least * len(parts) and common < PATTERN_SHARE * total / (2 - total)


def fitted_moves(lags_px: NDArray[np.intp], pairs: NDArray[np.intp], tilts: int) -> NDArray[np.float64]:
    """How far each image lies from where all agree, from how far those of pairs lie from each other, ``(tilts,)``.

    Least squares, weighted anew by what is left (Cauchy's weights): lags that noise made are no compromise.
    """
    one, other = pairs.T
    differences = np.zeros((len(pairs), tilts))
    differences[np.arange(len(pairs)), one], differences[np.arange(len(pairs)), other] = 1, -1
    weights, moves = np.ones(len(pairs)), np.zeros(tilts)
    for _ in range(ROUNDS):
        weighted = differences * weights[:, None]
        # What has no pair, and the mean of all, stay where they are.
        moves = np.linalg.solve(weighted.T @ differences + 1e-6 * np.eye(tilts), weighted.T @ lags_px)
        weights = 1 / (1 + ((differences @ moves - lags_px) / HALF_WEIGHT_PX) ** 2)
    return moves


def profiles(images: torch.Tensor, axis_deg: float) -> NDArray[np.float64]:
    """Sums across an axis at an angle from y towards -x, in both halves of images ``(tilts, y, x)``.

    Returns:
        shape ``(2, tilts, places)``; their sum has equal noise at all places.
    """
    height, width = images.shape[1:]
    side = min(height, width)
    place = torch.arange(side) - (side - 1) / 2
    along, across = torch.meshgrid(place, place, indexing="ij")
    inside = (along**2 + across**2 <= (side / 2) ** 2).float()
    cosine, sine = math.cos(math.radians(axis_deg)), math.sin(math.radians(axis_deg))
    y, x = along * cosine + across * sine, across * cosine - along * sine
    grid = torch.stack([2 * x / (width - 1), 2 * y / (height - 1)], dim=-1)[None]
    turned = torch.nn.functional.grid_sample(images[None], grid, padding_mode="border", align_corners=True)[0]
    weights = inside / inside.sum(dim=1, keepdim=True).clamp_min(1).sqrt()
    sides = [(turned * weights * side).sum(dim=2) for side in (across < 0, across >= 0)]
    return np.asarray(torch.stack(sides).double().numpy())


def _standardised(lines: NDArray[np.float64]) -> NDArray[np.float64]:
    """A band of each profile, what stands far out cut off, mean 0 and norm 1; its ends are left out."""
    band = gaussian_filter1d(lines, FINE_PX, axis=1) - gaussian_filter1d(lines, COARSE_PX, axis=1)
    margin = math.ceil(COARSE_PX)
    band = band[:, margin:-margin]
    most = CUT_DEVIATIONS * 1.4826 * np.median(np.abs(band), axis=1, keepdims=True)
    band = np.clip(band, -most, most)
    return _normed(band - band.mean(axis=1, keepdims=True))


def _normed(lines: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(lines / np.maximum(np.linalg.norm(lines, axis=1, keepdims=True), 1e-30))
