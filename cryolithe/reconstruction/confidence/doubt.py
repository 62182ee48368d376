"""How wrong a network's volume is expected to be, and what of it the images do not hold: maps of local second moments.

About each voxel, with < > the mean in a Gaussian window, V the volume, E and O the volumes of even and of odd tilts,
and X and Y those of the mirrored series turned back,

    total  <V²>      unshared  <V²> - <E O>, not below 0      mirrored  (<(V - X)²> + <(V - Y)²>) / 2

Where a volume is wrong is told by a sum of the three, each times a constant that holds for all series and models; it
was found on simulations (benchmarks/uncertainty.py). How wrong it is in all, images tell that the network did not see
(`confidence.explained`): the sum is multiplied by what makes its mean that error. The deviation of the
volume is the unit.

What the images hold of the measured part m is asked of images that the network did not see: F_E and F_O are filtered
back-projections of even and of odd tilts, so that the noise of F_O has nothing to do with that of E.

    held = (<E_m F_O> + <O_m F_E>) / (<E_m B E> + <O_m B O>)     unsupported = 1 - held <V_m²> / (<V²> + level)

with B the back-projection of projections. held is between 0 and 1, and drawn to 0 where noise could give as much. The
level is a fifth of what <V²> is where much is: without it, empty ice would count as held, which shares in the streaks
and halos of what is beside it.

What noise could give: F_E = T + N_E and F_O = T + N_O hold one specimen T, which D = (F_E - F_O) / √2 has not: it is
noise as that of either (and what tilts of half the number show of T differently). Where the images hold nothing of the
volume, the numerator is a + b = <E_m N_O> + <O_m N_E>, of mean 0; a and b are alike where E and O are noise themselves.
Its mean square is told by D that is shifted along x, marked ', against what the noise of D has made:

    mean (a + b)² = mean a'² + b'² + 4 a'b' = v (<E_m²> + <O_m²>) <D²>      a' = <E_m D'>    b' = -<O_m' D>

as D has but half of the product of N_E and N_O. 1 / v is the number of independent values in a window. Shifted images
in place of D would take structure for noise: of coarse structure a window holds few independent values, which are alike
by chance, and the more so the less noise there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cryolithe.arrays.folding import symmetric

# Standard deviation of the window for errors, in voxels; less in thin volumes.
WINDOW_SIGMA_PX = 2.0
_TRUNCATE = 3.0
# ... and for shares, as for the agreement of two halves.
SHARE_SIGMA_PX = 4.0
_LEAST = 1e-12
# Of the local mean square that three quarters of the voxels stay below, for the level of next to nothing.
LEVEL_SHARE, LEVEL_QUANTILE = 0.2, 0.75
# Arrays as large as the rows that the maps are made of, float32, that exist at once.
MAP_COPIES = 40.0
MOMENTS = ("total", "unshared", "mirrored")


@dataclass(frozen=True)
class Law:
    """Constants of the expected squared error, by moment, see the module."""

    total: float
    unshared: float
    mirrored: float

    def times(self, factor: float) -> Law:
        """The law of errors whose square is so many times as large."""
        return Law(*(factor * getattr(self, name) for name in MOMENTS))


LAW = Law(total=0.12, unshared=0.74, mirrored=2.8)


@dataclass(frozen=True)
class Window:
    """A Gaussian window on volumes ``(z, y, x)`` whose rows begin and end with a margin.

    Attributes:
        sigma_px: its width.
    """

    sigma_px: float

    @property
    def reach_px(self) -> int:
        """Voxels that it reads to either side."""
        return int(_TRUNCATE * self.sigma_px + 0.5)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Windowed means, shape ``(z, y - 2 reach_px, x)``; the faces along z and x are mirrors."""
        reach = self.reach_px
        steps = np.arange(reach + 1)
        taps = np.exp(-0.5 * (steps / self.sigma_px) ** 2)
        taps /= taps[0] + 2 * taps[1:].sum()
        for axis in (1, 0, 2):
            if axis != 1:
                size = values.shape[axis]
                mirrored = symmetric(np.arange(-reach, size + reach), size)
                values = values.index_select(axis, torch.from_numpy(mirrored).to(values.device))
            values = _along(values, axis, [float(tap) for tap in taps])
        return values


def window_of(shape: tuple[int, int, int], sigma_px: float = WINDOW_SIGMA_PX) -> Window:
    """The window for a volume: narrower in a thin one."""
    return Window(min(sigma_px, min(shape) / 8))


def _along(values: torch.Tensor, axis: int, taps: list[float]) -> torch.Tensor:
    reach = len(taps) - 1
    size = values.shape[axis] - 2 * reach
    out = values.narrow(axis, reach, size) * taps[0]
    for step, tap in enumerate(taps[1:], start=1):
        out.add_(values.narrow(axis, reach - step, size), alpha=tap)
        out.add_(values.narrow(axis, reach + step, size), alpha=tap)
    return out


@dataclass(frozen=True)
class Ensemble:
    """Rows of the volumes of one series, of shape ``(z, rows, x)`` each; all in the unit of the volume's deviation.

    Attributes:
        whole: V, less the mean of the volume, as all others.
        halves: E and O.
        mirrors: X and Y.
        images: F_E and F_O.
        again: B E and B O: as F of the other half's tilts, of projections of E and of O.
    """

    whole: torch.Tensor
    halves: tuple[torch.Tensor, torch.Tensor]
    mirrors: tuple[torch.Tensor, torch.Tensor]
    images: tuple[torch.Tensor, torch.Tensor]
    again: tuple[torch.Tensor, torch.Tensor]


def moments_of(rows: Ensemble, window: Window) -> dict[str, torch.Tensor]:
    """The moments of the expected error.

    Args:
        rows: with ``window.reach_px`` rows before and after those that are wanted.
        window: about each voxel.
    """
    whole, (even, odd) = rows.whole, rows.halves
    total = window.mean(whole.square())
    turned = sum(((whole - mirror).square_() for mirror in rows.mirrors), torch.zeros_like(whole))
    return {
        "total": total,
        "unshared": (total - window.mean(even * odd)).clamp_min_(0),
        "mirrored": window.mean(turned.mul_(0.5)),
    }


def expected_error(moments: dict[str, torch.Tensor], law: Law = LAW) -> torch.Tensor:
    """The expected local error: root of the expected mean square, in the unit of the moments' root."""
    square = sum((getattr(law, name) * moments[name] for name in MOMENTS), torch.zeros_like(moments["total"]))
    return square.clamp_min_(0).sqrt_()


def without_noise(rows: Ensemble, window: Window) -> torch.Tensor:
    """What noise leaves of the correlation of the mean of two halves with what they share: ``sqrt(2 r / (1 + r))``.

    Args:
        rows: with margins, whose halves correlate by r in the window.
        window: about each voxel.
    """
    even, odd = rows.halves
    power = (window.mean(even.square()) * window.mean(odd.square())).sqrt_()
    both = (window.mean(even * odd) / power.clamp_min_(_LEAST)).clamp_(0, 1)
    return both.mul(2).div_(both.add_(1)).sqrt_()


def expected_correlation(
    kept: torch.Tensor, moments: dict[str, torch.Tensor], law: Law = LAW, size: float = 1.0
) -> torch.Tensor:
    """The expected correlation of the volume with the specimen in the window, 0 to 1.

    Args:
        kept: what noise leaves of it, made by `without_noise`.
        moments: in the same window; the error that they tell of lowers it further.
        law: of the error.
        size: what its square is multiplied by.
    """
    error, total = expected_error(moments, law).square_(), moments["total"]
    return (size * total / (total + error).clamp_min_(_LEAST)).sqrt_().mul_(kept).clamp_max_(1)


@dataclass(frozen=True)
class Size:
    """What brings the maps of a series to the size of its error.

    Attributes:
        error: what expected squared errors are multiplied by.
        correlation: what expected squared correlations are multiplied by.
    """

    error: float = 1.0
    correlation: float = 1.0


def error_size(share: float, moments: dict[str, torch.Tensor], law: Law = LAW) -> float:
    """What makes the expected squared error so large that on average ``1 - share`` of the mean square is error.

    Args:
        share: of the volume that is right, see `cryolithe.reconstruction.confidence.explained`.
        moments: of voxels that stand for the volume.
        law: of the error.
    """
    stated = float(expected_error(moments, law).square_().sum(dtype=torch.float64))
    total = float(moments["total"].sum(dtype=torch.float64))
    return (1 - share) * total / stated if stated > 0 else 1.0


def correlation_size(share: float, local: torch.Tensor, total: torch.Tensor) -> float:
    """What makes ``share`` of expected squared correlations on average, each weighed by the volume's mean square.

    Args:
        share: as above.
        local: expected correlations, of voxels that stand for the volume.
        total: local mean squares of the volume, likewise.
    """
    stated = float((local.square() * total).sum(dtype=torch.float64))
    return share * float(total.sum(dtype=torch.float64)) / stated if stated > 0 else 1.0


@dataclass(frozen=True)
class Chance:
    """What is found by chance, or next to nothing.

    Attributes:
        variance: v, see the module.
        level: added to the mean square of the volume, see the module.
        slope: what images have of an amplitude in the volume that they hold; 1 where both have one unit.
    """

    variance: float
    level: float
    slope: float = 1.0


def covariances(
    halves: tuple[torch.Tensor, torch.Tensor], rows: Ensemble, window: Window
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the halves' measured parts with images that they did not see, and with their own in the same place."""
    (even, odd), (of_even, of_odd) = halves, rows.images
    common = window.mean((even * of_odd).add_(odd * of_even))
    own = window.mean((even * rows.again[0]).add_(odd * rows.again[1]))
    return common, own


def noise_of(rows: Ensemble) -> torch.Tensor:
    """D, see the module: noise as that of F_E and of F_O, without the specimen."""
    even, odd = rows.images
    return (even - odd).mul_(0.5**0.5)


def noise_moments(
    halves: tuple[torch.Tensor, torch.Tensor], noise: torch.Tensor, window: Window, shift_px: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What tells v, see the module: ``a'² + b'²``, ``a'b'``, and the mean squares of which they are shares.

    Args:
        halves: their measured parts.
        noise: D.
        window: about each voxel.
        shift_px: along x; what leaves it goes on at the other end.
    """
    even, odd, there = halves[0], halves[1].roll(shift_px, 2), noise.roll(shift_px, 2)
    first, second = window.mean(even * there), window.mean(odd * noise).neg_()
    squares = window.mean(even.square()).mul_(window.mean(there.square()))
    squares.add_(window.mean(odd.square()).mul_(window.mean(noise.square())))
    return first.square().add_(second.square()), first * second, squares


def noise_variance(apart: float, common: float, squares: float) -> float:
    """v, see the module, of sums of `noise_moments`; 1 where there is no noise to tell it."""
    return (apart + 4 * max(0.0, common)) / squares if squares > 0 else 1.0


def unsupported(
    halves: tuple[torch.Tensor, torch.Tensor],
    rows: Ensemble,
    measured: torch.Tensor,
    window: Window,
    chance: Chance,
) -> torch.Tensor:
    """The share of the volume's local mean square that the images do not hold, 0 to 1."""
    common, own = covariances(halves, rows, window)
    held = (common / own.mul_(chance.slope).clamp_min_(_LEAST)).clamp_(0, 1)
    # Two deviations are nothing in a volume of so many windows; of what is a deviations high, 1 - (2 / a)^4 counts,
    # four fifths of three deviations: noise gives these sixteen times more seldom.
    two = window.mean(halves[0].square().add_(halves[1].square())).mul_(4 * chance.variance)
    two.mul_(window.mean(noise_of(rows).square()))
    sure = 1 - (two / common.square().clamp_min_(_LEAST)).square_()
    held.mul_(sure.clamp_(0, 1))
    share = window.mean(measured.square()) / window.mean(rows.whole.square()).add_(chance.level + _LEAST)
    return held.mul_(share.clamp_(0, 1)).neg_().add_(1)


def rounded(value: float, digits: int = 6) -> float:
    """Digits that the order of sums decides are cut off: the same images give the same bytes."""
    return float(f"{value:.{digits}g}")
