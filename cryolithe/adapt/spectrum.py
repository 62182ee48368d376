"""Volumes compared by their Fourier coefficients: which were measured, how they are weighed, and how well they agree.

A network's volume f and the filtered back-projection t of the other half are compared as ``|g H f - t|²``. H is what
back-projection does to a frequency: the window of the network's ramp filter, and interpolation. The factor g of each
shell is fitted once, with the weights that the adaptation begins with: a network may undo contrast transfer, and must
not unlearn it because the images' amplitudes are others. Each shell counts by the part of t's power that both halves
share, over that power: what is noise alone teaches nothing. The whole is divided by what the halves share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from cryolithe.adapt.cubes import Cube
from cryolithe.filters import WINDOWS
from cryolithe.geometry import is_measured
from cryolithe.training.losses import faded_spectrum, shell_numbers

# Frequencies beyond this say nothing but noise and interpolation, cycles/voxel.
HIGHEST_PER_PX = 0.45
# The factor of a shell stays within this of the factor of all of them.
MOST_GAIN = 4.0
# Of the power, at least, that both halves are taken to share when losses are scaled.
LEAST_SHARED = 0.1
# Coefficients that say the same: edges are faded, which blurs the spectrum.
NEIGHBOURS = 4.0

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Sectors:
    """Which coefficients of a cube (flat, as of `faded_spectrum`) some tilts measured.

    Attributes:
        seen: by tilts that the network sees, boolean.
        left_out: by others alone.
        response: H of each.
        shell_numbers: of each, from 0.
    """

    seen: torch.Tensor
    left_out: torch.Tensor
    response: torch.Tensor
    shell_numbers: torch.Tensor


@dataclass(frozen=True)
class Balance:
    """How coefficients are brought to one scale.

    Attributes:
        gain: g of each shell.
        power: mean square of the back-projection's coefficients in each shell.
        shared: what both halves share of it.
        deviations: by how many standard deviations of chance the halves agree in the shell where that is clearest.
    """

    gain: torch.Tensor
    power: torch.Tensor
    shared: torch.Tensor
    deviations: float


def spacing_limit_per_px(step_deg: float, edge_px: int) -> float:
    """Frequency up to which tilts leave no gaps between the planes that they measure (Crowther 1970).

    Args:
        step_deg: between neighbouring tilts.
        edge_px: of the cube.
    """
    return min(HIGHEST_PER_PX, 1.0 / (edge_px * np.deg2rad(max(step_deg, 0.1))))


def sectors(cube: Cube, window: str) -> Sectors:
    """The sectors of a cube.

    Args:
        cube: with its tilt ranges.
        window: of the ramp filter.
    """
    z, y, x = cube.run.targets.shape
    step = (cube.seen_deg[1] - cube.seen_deg[0]) / max(1, cube.run.rows.shape[0] - 1)
    limit = spacing_limit_per_px(step, min(z, x))
    return _sectors((z, y, x), cube.seen_deg, cube.all_deg, round(limit, 3), window)


@lru_cache(maxsize=64)
def _sectors(
    shape: Shape, seen_deg: tuple[float, float], all_deg: tuple[float, float], limit_per_px: float, window: str
) -> Sectors:
    fz, fy = (np.fft.fftfreq(n) for n in shape[:2])
    fx = np.fft.rfftfreq(shape[2])
    kz, kx = np.broadcast_arrays(fz[:, None, None], fx)
    across = np.sqrt(kz**2 + kx**2)  # along the detector's columns
    radius = np.sqrt(across**2 + fy[:, None] ** 2)
    # Across the axis there is no ramp, and no direction either: the mean over z and x is no one's.
    useful = (radius <= HIGHEST_PER_PX) & (across <= limit_per_px) & (across >= 1 / max(shape[0], shape[2]))
    everything, seen = (np.broadcast_to(is_measured(kx, kz, span), radius.shape) for span in (all_deg, seen_deg))
    response = np.broadcast_to(WINDOWS[window](across) * np.sinc(across) ** 2, radius.shape)
    return Sectors(
        seen=torch.from_numpy((useful & seen).ravel()),
        left_out=torch.from_numpy((useful & everything & ~seen).ravel()),
        response=torch.from_numpy(response.astype(np.float32).ravel()),
        shell_numbers=shell_numbers(shape),
    )


def _by_shell(values: torch.Tensor, where: torch.Tensor, shell: torch.Tensor, shells: int) -> torch.Tensor:
    """Sums over the chosen coefficients of each shell, float64."""
    return torch.zeros(shells, dtype=torch.float64).index_add(0, shell[where], values[where].double())


def shell_count(shape: Shape) -> int:
    """Shells of a cube, that of all beyond Nyquist included."""
    return min(shape) // 2 + 2


def fit_balance(cubes: Iterable[tuple[Cube, torch.Tensor]], window: str) -> Balance:
    """Fit the scale of each shell.

    Args:
        cubes: with the network's volumes ``(z, y, x)``, all of one shape; each knows its own back-projection.
        window: of the ramp filter.
    """
    sums: torch.Tensor | None = None
    for cube, volume in cubes:
        place = sectors(cube, window)
        assert cube.own is not None
        wanted, own = faded_spectrum(cube.run.targets), faded_spectrum(cube.own)
        made = faded_spectrum(volume) * place.response
        terms = (
            (wanted * made.conj()).real,
            made.abs().square(),
            wanted.abs().square(),
            (wanted * own.conj()).real,
            torch.ones_like(place.response),
        )
        shells = shell_count(_shape(volume))
        found = torch.stack([_by_shell(term, place.seen, place.shell_numbers, shells) for term in terms])
        sums = found if sums is None else sums + found
    assert sums is not None
    cross, made_power, power, shared, count = sums
    tiny = torch.finfo(torch.float32).tiny
    whole = float(cross.sum() / made_power.sum().clamp_min(tiny))
    if whole <= 0:  # a network that knows nothing yet
        whole = float((shared.sum().clamp_min(tiny) / made_power.sum().clamp_min(tiny)).sqrt())
    gain = (cross / made_power.clamp_min(tiny)).clamp(whole / MOST_GAIN, whole * MOST_GAIN)
    count = count.clamp_min(1)
    power = (power / count).clamp_min(float(power.sum() / count.sum()) * 1e-6 + tiny)
    shared = shared / count
    deviations = float((shared / power * (count / NEIGHBOURS).sqrt()).amax())
    return Balance(gain.float(), power.float(), shared.clamp(min=0.0).float(), deviations)


def cube_loss(volume: torch.Tensor, cube: Cube, balance: Balance, window: str, wedge_weight: float) -> torch.Tensor:
    """The loss of a network's volume of a cube.

    Args:
        volume: shape ``(z, y, x)``, float32.
        cube: with the other half's back-projection.
        balance: the scale.
        window: of the ramp filter.
        wedge_weight: of frequencies that only left-out tilts measured.
    """
    place = sectors(cube, window)
    gain, power, shared = (values[place.shell_numbers] for values in (balance.gain, balance.power, balance.shared))
    weight = (place.seen + wedge_weight * place.left_out) * shared / power.square()
    error = (gain * place.response * faded_spectrum(volume) - faded_spectrum(cube.run.targets)).abs().square()
    scale = (weight * torch.maximum(shared, LEAST_SHARED * power)).sum()
    return (weight * error).sum() / scale.clamp_min(torch.finfo(torch.float32).tiny)


def _shape(volume: torch.Tensor) -> Shape:
    return volume.shape[0], volume.shape[1], volume.shape[2]


class ShellSums:
    """Sums over cubes of one shape, from which the correlation of each shell follows.

    Each coefficient of the half spectrum counts once, as in `fit_balance`: what is compared are weights, all by this.

    Args:
        shape: of the cubes.
    """

    def __init__(self, shape: Shape) -> None:
        self._sums = torch.zeros(2, 3, shell_count(shape), dtype=torch.float64)

    def add(self, volume: torch.Tensor, cube: Cube, window: str) -> None:
        """Count a network's volume of a cube and the other half's back-projection of it."""
        place = sectors(cube, window)
        a, b = faded_spectrum(volume), faded_spectrum(cube.run.targets)
        terms = ((a * b.conj()).real, a.abs().square(), b.abs().square())
        for row, where in enumerate((place.seen, place.left_out)):
            for column, term in enumerate(terms):
                self._sums[row, column] += _by_shell(term, where, place.shell_numbers, self._sums.shape[2])

    def curves(self) -> tuple[list[float], list[float]]:
        """FSC in the seen and the left-out sector, of each shell from the first after the mean; NaN for empty ones."""
        cross, a, b = self._sums[:, :, 1:-1].unbind(1)
        found = cross / (a * b).sqrt()
        return found[0].tolist(), found[1].tolist()
