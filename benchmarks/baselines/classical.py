"""FBP with a Gaussian filter, and SIRT: their one free number chosen from halves of the data, without the truth.

Gaussian. Halves with independent noise tell signal from noise in every Fourier coefficient on average: with spectra E
and O of the halves, Re(E O*) estimates the power S of the noise-free FBP, and |(E + O) / 2|² that of the FBP itself.
So ``Σ G S / sqrt(Σ G² |(E + O) / 2|²)`` is, up to a constant, the correlation of the filtered FBP with the noise-free
one, and the σ with the highest is taken.

SIRT. Projections of the reconstruction from one half are compared with the images of the other half. As SIRT is linear
in the images, the squared error that the projections p of the reconstruction from all data have against the noise-free
images is, up to a constant, ``|p|² - <p_even, odd> - <p_odd, even>`` in expectation: the iteration with the lowest is
taken. Where halves hold different tilts the plain error of predicting the other half's images is used. As in the
package, the volume is wider than the images at either end and cut afterwards (`sirt_margin_px`).

With a truth, the same choices by the correlation with it are the best that the method can do: the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from cryolithe.arrays.spectra import times_counted
from cryolithe.geometry import TiltGeometry
from cryolithe.metrics import scaled_snr_db
from cryolithe.projector import Projector, make_projector
from cryolithe.projector.classical import sirt, sirt_margin_px

Volume = NDArray[np.float32]

SIGMAS_PX = tuple(0.25 * n for n in range(17))
ITERATIONS = (2, 4, 6, 8, 10, 15, 20, 30, 50, 100)
EVERY_ROW = 4  # of the images in cross-validation: rows are reconstructed by themselves


@dataclass(frozen=True)
class Chosen:
    """A volume and the number that made it.

    Attributes:
        volume: shape ``(z, y, x)``.
        value: σ in voxels, or the number of iterations.
        scores: what was maximised or minimised, by candidate.
    """

    volume: Volume
    value: float
    scores: dict[float, float]


@dataclass(frozen=True)
class Half:
    """Images with a noise of their own: shape ``(tilts, y, x)``, mean removed, and the geometry they belong to."""

    projector: Projector
    rows: torch.Tensor


def gaussian(volume: Volume, even: Volume, odd: Volume) -> Chosen:
    """Filter an FBP with the Gaussian that its halves call for.

    Args:
        volume: FBP of all data, shape ``(z, y, x)``.
        even: FBP of one half of the data, the same shape.
        odd: of the other.
    """
    first, second = scipy.fft.rfftn(even), scipy.fft.rfftn(odd)
    signal = (first * second.conj()).real
    return _filtered(volume, _correlations(signal, np.abs(0.5 * (first + second)) ** 2, volume.shape))


def oracle_gaussian(volume: Volume, truth: Volume) -> Chosen:
    """Filter an FBP with the Gaussian that brings it closest to the truth."""
    spectrum = scipy.fft.rfftn(volume)
    signal = (spectrum * scipy.fft.rfftn(truth).conj()).real
    return _filtered(volume, _correlations(signal, np.abs(spectrum) ** 2, volume.shape))


def wide_projector(angles_deg: tuple[float, ...], image_shape: tuple[int, int], depth: int) -> Projector:
    """Between images ``(y, x)`` and a volume that is wider than they are, see `sirt_margin_px`."""
    return make_projector(TiltGeometry(angles_deg, image_shape), (depth, image_shape[1] + 2 * sirt_margin_px(depth)))


def middle(volume: torch.Tensor, width: int) -> Volume:
    """What of a wide volume lies behind images of a width."""
    margin = (volume.shape[2] - width) // 2
    made: Volume = volume[:, :, margin : margin + width].numpy()
    return np.ascontiguousarray(made)


def choose_iterations(even: Half, odd: Half) -> tuple[int, dict[int, float]]:
    """Choose SIRT's iterations by cross-validation on every fourth row.

    Args:
        even: one half; halves of the same tilts share a projector.
        odd: the other.

    Returns:
        the number, and what was minimised by candidate; candidates after two in a row that were worse are not tried.
    """
    halves = [Half(half.projector, half.rows[:, ::EVERY_ROW].contiguous()) for half in (even, odd)]
    scores: dict[int, float] = {}
    found = [snapshots(half.projector, half.rows) for half in halves]
    for (number, first), (_, second) in zip(*found, strict=True):
        # From one half's volume to the other half's images.
        across = [halves[1].projector.forward(first), halves[0].projector.forward(second)]
        if even.projector is odd.projector:
            mean = 0.5 * (across[0] + across[1])
            error = (mean**2).sum() - (across[0] * halves[1].rows).sum() - (across[1] * halves[0].rows).sum()
        else:
            errors = [((p - other.rows) ** 2).sum() for p, other in zip(across, halves[::-1], strict=True)]
            error = errors[0] + errors[1]
        scores[number] = float(error)
        best = min(scores, key=lambda number: scores[number])
        if ITERATIONS.index(number) - ITERATIONS.index(best) >= 2:
            break
    return best, scores


def snapshots(projector: Projector, rows: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """SIRT after each of ``ITERATIONS``: going on is starting again with what is left of the images."""
    volume, done = torch.zeros(0), 0
    for number in ITERATIONS:
        if done == 0:
            volume = sirt(projector, rows, number)
        else:
            volume = volume + sirt(projector, rows - projector.forward(volume), number - done)
        done = number
        yield number, volume


def oracle_iterations(made: Mapping[int, Volume], truth: Volume) -> Chosen:
    """The number of iterations that comes closest to the truth."""
    scores: dict[float, float] = {number: scaled_snr_db(truth, volume) for number, volume in made.items()}
    best = max(scores, key=lambda number: scores[number])
    return Chosen(made[int(best)], best, scores)


def _correlations(signal: NDArray[Any], power: NDArray[Any], shape: tuple[int, ...]) -> dict[float, float]:
    """``Σ G signal / sqrt(Σ G² power)`` by σ, over a full spectrum of which one half is given, without the mean."""
    times = np.broadcast_to(times_counted(shape[2]), signal.shape).copy()
    times[0, 0, 0] = 0.0
    squared, signal, power = _squared_frequency(shape), times * signal, times * power
    scores = {}
    for sigma in SIGMAS_PX:
        response = _response(squared, sigma)
        scores[sigma] = float((response * signal).sum() / np.sqrt((response**2 * power).sum()))
    return scores


def _filtered(volume: Volume, scores: dict[float, float]) -> Chosen:
    best = max(scores, key=lambda sigma: scores[sigma])
    response = _response(_squared_frequency(volume.shape), best)
    made = scipy.fft.irfftn(scipy.fft.rfftn(volume) * response, s=volume.shape)
    return Chosen(made.astype(np.float32), best, scores)


def _squared_frequency(shape: tuple[int, ...]) -> NDArray[np.float64]:
    kz, ky, kx = scipy.fft.fftfreq(shape[0]), scipy.fft.fftfreq(shape[1]), scipy.fft.rfftfreq(shape[2])
    return np.asarray(kz[:, None, None] ** 2 + ky[:, None] ** 2 + kx**2)


def _response(squared: NDArray[np.float64], sigma_px: float) -> NDArray[np.float64]:
    """Gaussian of a standard deviation in voxels, as a filter."""
    return np.asarray(np.exp(-2 * np.pi**2 * sigma_px**2 * squared))
