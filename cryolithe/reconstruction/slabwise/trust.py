"""How far what a network puts into the missing wedge can be believed: told by tilts that are left out of a trial.

Where no tilt measured, a network puts what specimens usually look like, as strong as it is sure. On a specimen or a
microscope unlike those it learnt from it is too sure, and nothing in its volume shows that. So some of the volume is
made twice more: without the outermost tilts of one side, by which a part of Fourier space becomes missing that was
measured in truth, and without every other one of them, by which the same part stays measured. As many degrees are left
out as the missing wedge is deep, from its border to its middle, so that what is tried lies as far from what stays
measured as what it stands for; half of the parts try one side, half the other. With N the network's voxels and F the
back-projection of the tilts that it did not see, over that part of Fourier space,

    b = Re <F, N> / Re <F(N), N>         h(q) = b(made missing) / b(still measured),  q = |(k_z, k_x)|

with F(N) the back-projection of projections of N to the same tilts. That part is what the filter that weakens the
missing wedge would weaken in the trial: all that lies half a slice's thickness and more from what stays measured, for
of coarse structures most of the wedge lies close to it. b is the regression of the specimen on N: the noise of tilts
that were left out has nothing to do with N, so it needs no truth. What the CTF, damage and the thickness that high
tilts look through do to amplitudes is in both and cancels. Noise that the network leaves in what was measured lowers b
there, and h is then too large; as less was measured in the trial than in truth, h is also too small. A network that
knows itself has h = 1. What it puts into the missing wedge is multiplied by h, which is the best that one number for a
frequency can do. What is the same along x stays: where the ice ends and how dense it is on average at a height has no
like among the tilts that could be left out, and is no structure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.arrays.spectra import times_counted
from cryolithe.geometry import TiltGeometry, is_measured
from cryolithe.machine.device import made_there_or_on_cpu
from cryolithe.reconstruction.slabwise.part_spectra import CORRELATED, frequencies_of, spectrum_of
from cryolithe.reconstruction.slabwise.planes import PlaneFilter, measured_region, whole_turn

# Bins of q between zero and Nyquist.
BINS = 12
# Tilts from which a trial is made: of fewer, what is left is nothing like what the network learnt from.
FEWEST_TILTS = 20
# At most one part in so many of the range is left out, and at least so many tilts.
_LARGEST, _FEWEST_OUT = 4, 3
# Slices' thicknesses that what was made missing must be away from what is measured: where `measured_region` is 0, so
# that what is tried is what would be weakened. Of coarse structures the wedge is but two slices deep.
_AWAY = 0.5
# Of the upper quartile of bins; where images hold less, as beyond the limit of a filter, noise tells nothing of itself.
_LEAST_HELD = 0.1
# What h of sizes an octave apart usually differs by; as of a random walk, the square of it grows with the octaves.
_ROUGHNESS = 0.4
# Expected where little is measured, and how far from it: of the bundled networks on simulated series h is 0.1 to 0.5 of
# faint cells and about 1 where images show much, and there it is measured well (`benchmarks/wedge.py`).
_EXPECTED_H, _SPREAD_H = 0.5, 0.3
# The same of what is common to the slopes of the measured region, which are about equal.
_EXPECTED_SLOPE, _SPREAD_SLOPE = 1.0, 0.3
_WHY = {
    "tilts": "as far as left-out tilts confirm it",
    "expected": "as left-out tilts tell nothing about it",
    "setting": "as asked",
}


class Seen(NamedTuple):
    """A part of the volume in a trial, each of shape ``(z, y, x)``.

    Attributes:
        network: the network's voxels, of the tilts that were kept.
        back: filtered back-projection (ramp, weights of the whole series) of the tilts that were left out.
        again: the same of projections of the network's voxels to these tilts.
    """

    network: torch.Tensor
    back: torch.Tensor
    again: torch.Tensor


@dataclass(frozen=True)
class Trial:
    """Tilts by what they are for, as indices in the order of the stack.

    Attributes:
        inner: all but the outermost ones of one side.
        ends: these, which the first trial leaves out.
        between: those of them that the second trial leaves out, each between two that it keeps.
    """

    inner: NDArray[np.int64]
    ends: NDArray[np.int64]
    between: NDArray[np.int64]

    @property
    def others(self) -> NDArray[np.int64]:
        """What the second trial keeps."""
        return np.sort(np.setdiff1d(np.concatenate((self.inner, self.ends)), self.between))


@dataclass(frozen=True)
class WedgeTrust:
    """How much of a network's missing wedge stays.

    Attributes:
        kept: h of each of the `BINS` bins, from 0 to 1.
        source: "tilts" if they were measured, "expected" if tilts tell nothing, "setting" if a user chose.
    """

    kept: tuple[float, ...]
    source: str

    def record(self) -> dict[str, Any]:
        """Plain values for the journal and the sidecar."""
        return {"kept": list(self.kept), "source": self.source}

    def at(self, radius_per_px: NDArray[np.floating]) -> NDArray[np.float64]:
        """Interpolate h between the bins' middles, cycles/px."""
        middles = (np.arange(BINS) + 0.5) / (2 * BINS)
        return np.interp(radius_per_px, middles, self.kept)

    def line(self, voxel_angstrom: float | None) -> str:
        """One line for the user: what is kept at sizes that matter."""
        chosen = [1, 2, 3, 5, 7]
        sizes = [2 * BINS / (number + 0.5) for number in chosen]
        named = [f"{size * voxel_angstrom:.0f} Å" if voxel_angstrom else f"{size:.1f} px" for size in sizes]
        shares = ", ".join(f"{self.kept[n]:.0%} at {size}" for n, size in zip(chosen, named, strict=True))
        return f"Missing wedge: of what the network puts there, {shares} stays, {_WHY[self.source]} (--wedge-trust)."


def trust_of_record(record: dict[str, Any]) -> WedgeTrust:
    """The reverse of `WedgeTrust.record`."""
    return WedgeTrust(tuple(float(value) for value in record["kept"]), str(record["source"]))


def constant_trust(kept: float) -> WedgeTrust:
    """The same for all frequencies, as a user chose."""
    return WedgeTrust((kept,) * BINS, "setting")


def expected_trust() -> WedgeTrust:
    """What is usual where left-out tilts tell nothing."""
    return WedgeTrust((_EXPECTED_H,) * BINS, "expected")


def choose_trials(angles_deg: tuple[float, ...]) -> tuple[Trial, Trial] | None:
    """Which tilts are left out, on either side; None where there are too few, or where nothing is missing."""
    angles = np.asarray(angles_deg)
    order, distinct = np.argsort(angles, kind="stable"), np.unique(angles)
    if len(distinct) < FEWEST_TILTS or whole_turn(angles_deg):
        return None
    span = float(distinct[-1] - distinct[0])
    depth = min((180 - span) / 2, span / _LARGEST)
    low = max(_FEWEST_OUT, int((angles < distinct[0] + depth).sum()))
    high = max(_FEWEST_OUT, int((angles > distinct[-1] - depth).sum()))
    # From the inside to the outside.
    return _trial(order, order[:low][::-1]), _trial(order, order[-high:])


def _trial(order: NDArray[np.int64], side: NDArray[np.int64]) -> Trial:
    """The trial that leaves out ``side``, whose last one is the outermost and is kept by the second trial."""
    between = side[len(side) % 2 : -1 : 2]
    return Trial(np.sort(np.setdiff1d(order, side)), np.sort(side), np.sort(between))


@dataclass(frozen=True)
class _Region:
    """Sums over the region that a trial makes missing, by bin.

    Attributes:
        common: Re <F, N>.
        power: Re <F(N), N>.
        variance: of ``common``, if F were nothing but noise.
        held: Σ |F|².
        count: of frequencies.
    """

    common: NDArray[np.float64]
    power: NDArray[np.float64]
    variance: NDArray[np.float64]
    held: NDArray[np.float64]
    count: NDArray[np.float64]

    def doubted(self) -> _Region:
        """With more variance where images hold next to nothing: a slope of 0 is no finding there."""
        density = self.held / np.maximum(self.count, 1e-12)
        least = _LEAST_HELD * float(np.quantile(density[self.count > 0], 0.75)) if self.count.any() else 0.0
        short = np.where(density > 0, np.maximum(1.0, least / np.maximum(density, 1e-300)), 1.0)
        return replace(self, variance=self.variance * short**2)


def confirmed_trust(parts: Iterable[tuple[Trial, Seen, Seen]], geometry: TiltGeometry) -> WedgeTrust | None:
    """What left-out tilts confirm.

    Args:
        parts: of the volume; a trial of each, what it made of the part without the outermost tilts of a side, and
            without every other one of these.
        geometry: of the whole series.

    Returns:
        None where parts tell nothing: not finite, too small, or nothing in common where it was measured.
    """
    angles = np.asarray(geometry.angles_deg)
    sums = np.zeros((2, 5, BINS))
    for trial, *trials in parts:
        if all(bool(torch.isfinite(voxels).all()) for seen in trials for voxels in seen):
            sums += np.array([_sums_somewhere(seen, angles[trial.inner], angles) for seen in trials])
    made, still = (_Region(*region).doubted() for region in sums)
    return _trust(still, made)


def _sums_somewhere(seen: Seen, inner_deg: NDArray[np.float64], all_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """`_sums` on a device that has the memory for it."""
    return made_there_or_on_cpu(
        seen.network.device,
        lambda: _sums(seen, inner_deg, all_deg),
        lambda: _sums(Seen(*(voxels.cpu() for voxels in seen)), inner_deg, all_deg),
    )


def _sums(seen: Seen, inner_deg: NDArray[np.float64], all_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """A `_Region` of a part as an array."""
    device = seen.network.device
    bins, weight = _bins(tuple(seen.network.shape), inner_deg, all_deg)
    where = torch.from_numpy(np.flatnonzero(weight)).to(device)
    counts, place = torch.from_numpy(weight).to(device)[where], torch.from_numpy(bins).to(device)[where]
    a, b, c = (spectrum_of(part)[where] for part in seen)
    found = [
        torch.bincount(place, values, BINS + 1)[:BINS].cpu().numpy()
        for values in (
            counts * (a.conj() * b).real,
            counts * (a.conj() * c).real,
            counts.square() * a.abs().square() * b.abs().square() * (CORRELATED / 2),
            counts * b.abs().square(),
            counts,
        )
    ]
    return np.array(found)


def _bins(
    shape: tuple[int, ...], inner_deg: NDArray[np.float64], all_deg: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of each frequency of a real transform, flat: its bin, and how much it counts in what was made missing."""
    z, y, x = frequencies_of(shape)
    radius = np.hypot(z, x)
    bins = np.minimum((2 * BINS * radius).astype(np.int64), BINS)
    half = float(np.median(np.diff(np.unique(all_deg)))) / 2
    low, high = float(inner_deg.min()) - half, float(inner_deg.max()) + half
    measured = is_measured(x, z, (low, high))
    seen = is_measured(x, z, (float(all_deg.min()) - half, float(all_deg.max()) + half))
    ends = [np.radians(end) for end in (low, high)]
    away = np.minimum(*(np.abs(z * np.cos(end) - x * np.sin(end)) * shape[0] for end in ends))
    weight = (seen & ~measured & (away >= _AWAY)) * times_counted(shape[2]) * np.ones_like(y)
    return (bins * np.ones_like(y, dtype=np.int64)).ravel(), weight.ravel()


def _trust(still: _Region, made: _Region) -> WedgeTrust | None:
    """h of each bin: the quotient where it is sure, smooth between bins, the expected one where nothing is known."""
    known = (still.power > 0) & (still.variance > 0)
    if not known.any():
        return None
    slope, weight = np.zeros(BINS), np.zeros(BINS)
    slope[known] = still.common[known] / still.power[known]
    weight[known] = still.power[known] ** 2 / still.variance[known]
    typical = float((weight * slope).sum() / weight.sum())
    if typical <= 0 or typical**2 * weight.sum() < 9:  # not three deviations above nothing
        return None
    amplitude = _smooth(slope / typical, weight * typical**2, 2 * _ROUGHNESS, (_EXPECTED_SLOPE, _SPREAD_SLOPE))
    usable = (made.power > 0) & (made.variance > 0) & (amplitude > 0)
    if not usable.any():  # as where all that was left out was measured by other tilts of the same angle
        return None
    expected = np.where(usable, amplitude * typical * made.power, 1.0)
    quotient = np.where(usable, made.common / expected, 0.0)
    error = np.where(usable, made.variance / expected**2, np.inf) + 1 / np.maximum(weight * typical**2, 1e-12)
    smooth = _smooth(quotient, np.where(usable, 1 / error, 0.0), _ROUGHNESS, (_EXPECTED_H, _SPREAD_H))
    kept = np.clip(smooth, 0.0, 1.0)
    # Digits that the order of a GPU's sums decides are cut off: the same images give the same bytes.
    return WedgeTrust(tuple(round(float(value), 4) for value in kept), "tilts")


def _smooth(
    values: NDArray[np.float64], weights: NDArray[np.float64], roughness: float, expected: tuple[float, float]
) -> NDArray[np.float64]:
    """Least squares for values that differ little between neighbours, ``expected`` (with its spread) before any.

    Neighbours of the coarsest bins lie an octave apart, of the finest a tenth of one: where all were held together
    alike, the many fine bins decided what the few coarse ones say.
    """
    octaves = np.diff(np.log2(np.arange(BINS) + 0.5))
    change = np.diff(np.eye(BINS), axis=0) / np.sqrt(octaves)[:, None]
    prior = np.full(BINS, 1 / (BINS * expected[1] ** 2))
    left = np.diag(weights + prior) + change.T @ change / roughness**2
    return np.asarray(np.linalg.solve(left, weights * values + prior * expected[0]))


def wedge_filter(
    trust: WedgeTrust, angles_deg: tuple[float, ...], slice_shape: tuple[int, int], device: torch.device
) -> PlaneFilter:
    """The filter that leaves what tilts measured as it is and multiplies the rest by h.

    Args:
        trust: h.
        angles_deg: of the tilts.
        slice_shape: voxels of the volume along z and x.
        device: where it filters.
    """

    def response(z: NDArray[np.floating], x: NDArray[np.floating]) -> NDArray[np.float64]:
        measured = measured_region(angles_deg, z, x, slice_shape[0])
        kept = trust.at(np.hypot(z, x))
        if trust.source != "setting":
            kept[:, np.ravel(x) == 0] = 1.0
        return measured + (1 - measured) * kept

    return PlaneFilter(response, slice_shape, device)
