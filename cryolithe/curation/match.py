"""Does a target belong to its tilt series, unmirrored, unshifted and of the right contrast?

The series is reconstructed by our own FBP at small size, and the target is correlated with it in all eight mirrorings
and at all shifts, over the frequencies that the tilts measure.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from cryolithe.arrays.spectra import times_counted
from cryolithe.curation.arrays import Field
from cryolithe.geometry import TiltGeometry, is_measured
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp

LARGEST_PX = 160  # along x and y at the size of the comparison
BAND = (0.02, 0.3)  # cycles per voxel: without slow gradients, and without the finest noise
TAPER = 0.15  # part of each axis that fades to zero at either end
CLEARLY = 1.25  # a mirrored or inverted fit must be so much better than the plain one to be reported
FAR = 0.1  # of an axis: within so much lies less than a hundredth of all shifts that are searched
_FINE_STEP, _FINE_REACH = 0.05, 1.0


@dataclass(frozen=True)
class Match:
    """How a target fits its series.

    Attributes:
        correlation: of the target as it is with the FBP, at the best shift near none; negative: inverted.
        best_correlation: of the best mirrored fit at its best shift, with its sign.
        mirrored: axes ("z", "y", "x") along which the best fit is mirrored; empty: as it is.
        shift_px: ``(z, y, x)`` in pixels of the pair: where the best fit's target lies, seen from where it should.
        significance: best peak over the root mean square of the correlation at all shifts.
        precision_px: what shifts can be told from none.
        is_far: whether that shift is large for the field, where chance has most of its peaks.
    """

    correlation: float
    best_correlation: float
    mirrored: tuple[str, ...]
    shift_px: tuple[float, float, float]
    significance: float
    precision_px: float
    is_far: bool


def reduction(field: Field) -> int:
    """Factor by which pairs are binned for the comparison."""
    return max(1, math.ceil(max(field.shape[1:]) / LARGEST_PX))


def compare(
    images: NDArray[np.float32], target: NDArray[np.float32], angles_deg: tuple[float, ...], reduced_by: int
) -> Match:
    """Compare a target with the reconstruction of its series.

    Args:
        images: shape ``(tilt, y, x)``, dense = dark, the tilt axis in the middle.
        target: shape ``(z, y, x)``, dense = dark, on the same grid.
        angles_deg: one for each image.
        reduced_by: how far both were binned, for shifts in pixels of the pair.
    """
    depth = target.shape[0]
    projector = make_projector(TiltGeometry(angles_deg, images.shape[1:]), (depth, images.shape[2]))
    flat = images - images.mean(axis=(1, 2), keepdims=True)
    spread = flat.std(axis=(1, 2), keepdims=True)
    rows = torch.from_numpy(flat / np.where(spread > 0, spread, 1).astype(np.float32))
    reconstruction = fbp(projector, rows, "hamming").numpy()
    mask = _measured_band(target.shape, angles_deg)
    reference = scipy.fft.rfftn(_faded(reconstruction)) * mask
    found = []
    for axes in itertools.chain.from_iterable(itertools.combinations((0, 1, 2), n) for n in range(4)):
        spectrum = scipy.fft.rfftn(_faded(np.flip(target, axes))) * mask
        found.append((axes, *_best_shift(reference, spectrum, target.shape)))
    plain = found[0]
    best = max(found, key=lambda item: abs(item[1]))
    # Mirrored copies of thin or symmetric specimens fit almost as well: only a clearly better one counts.
    if abs(best[1]) < CLEARLY * abs(plain[1]):
        best = plain
    axes, peak, shift, significance = best
    return Match(
        correlation=plain[1],
        best_correlation=peak,
        mirrored=tuple("zyx"[axis] for axis in axes),
        shift_px=tuple(reduced_by * s for s in shift),  # type: ignore[arg-type]
        significance=significance,
        precision_px=max(1.0, 0.3 * reduced_by),
        is_far=any(abs(s) > FAR * size for s, size in zip(shift, target.shape, strict=True)),
    )


def _faded(volume: NDArray[Any]) -> NDArray[np.float32]:
    """Mean removed and faded to zero at all faces, so that opposite faces do not meet."""
    faded = (volume - volume.mean()).astype(np.float32)
    for axis, size in enumerate(volume.shape):
        edge = max(1, round(TAPER * size))
        distance = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
        window = 0.5 - 0.5 * np.cos(np.pi * np.clip(distance / edge, 0, 1))
        faded *= window.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return faded


def _measured_band(shape: tuple[int, ...], angles_deg: tuple[float, ...]) -> NDArray[np.float32]:
    """1 for the frequencies of ``rfftn`` that lie in the band and between the outermost tilts, else 0."""
    fz, fy = (scipy.fft.fftfreq(n) for n in shape[:2])
    fx = scipy.fft.rfftfreq(shape[2])
    radius = np.sqrt(fz[:, None, None] ** 2 + fy[:, None] ** 2 + fx**2)
    measured = is_measured(fx, fz[:, None, None], (min(angles_deg), max(angles_deg)))
    inside: NDArray[np.float32] = ((radius >= BAND[0]) & (radius <= BAND[1]) & measured).astype(np.float32)
    return inside


def _best_shift(
    reference: NDArray[np.complexfloating[Any, Any]],
    spectrum: NDArray[np.complexfloating[Any, Any]],
    shape: tuple[int, ...],
) -> tuple[float, tuple[float, float, float], float]:
    """Correlation peak of the largest magnitude: its value, the shift there and its significance.

    The shift says where the second volume lies, seen from the first.
    """
    weight = times_counted(shape[2]).astype(np.float32)
    powers = [float((np.abs(s) ** 2 * weight).sum()) for s in (reference, spectrum)]
    if min(powers) == 0:
        return 0.0, (0.0, 0.0, 0.0), 0.0
    cross = np.conj(reference) * spectrum / math.sqrt(powers[0] * powers[1])
    values = scipy.fft.irfftn(cross, s=shape) * math.prod(shape)
    place = np.unravel_index(int(np.abs(values).argmax()), shape)
    coarse = [int(p) - n if p > n // 2 else int(p) for p, n in zip(place, shape, strict=True)]
    peak, shift = _refined(cross * weight, shape, coarse)
    return peak, shift, abs(peak) / float(np.sqrt((values**2).mean()))


def _refined(
    cross: NDArray[np.complexfloating[Any, Any]], shape: tuple[int, ...], coarse: list[int]
) -> tuple[float, tuple[float, float, float]]:
    """Peak near a whole shift, from the Fourier sum at steps of a fraction of a voxel."""
    steps = np.arange(-_FINE_REACH, _FINE_REACH + _FINE_STEP / 2, _FINE_STEP)
    frequencies = (scipy.fft.fftfreq(shape[0]), scipy.fft.fftfreq(shape[1]), scipy.fft.rfftfreq(shape[2]))
    centre = [float(c) for c in coarse]
    peak = 0.0
    for _ in range(2):  # one axis after the other, twice: the peak is nearly separable
        for axis in range(3):
            total = cross
            for other in (2, 1, 0):
                if other != axis:
                    phase = np.exp(2j * np.pi * frequencies[other] * centre[other]).astype(np.complex64)
                    total = (total * phase.reshape([-1 if a == other else 1 for a in range(3)])).sum(
                        axis=other, keepdims=True
                    )
            line = total.reshape(-1)
            shifts = coarse[axis] + steps
            values = (line[None] * np.exp(2j * np.pi * frequencies[axis] * shifts[:, None])).sum(axis=1).real
            index = int(np.abs(values).argmax())
            centre[axis], peak = float(shifts[index]), float(values[index])
    return peak, (centre[0], centre[1], centre[2])
