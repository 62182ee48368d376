"""What the data show stays in: a share of filtered back-projection in the measured region of a network's volume.

    V = N + g M (c F - N)         c(|k|) = <F, N> / <F, F> over a shell of the measured region

N is the network's volume, F that of filtered back-projection, M the region of Fourier space that the tilts measured,
g the share. A network knows what specimens look like and may take what it has never seen for noise; F takes nothing for
noise. c brings F to the amplitude that the network gives to what both show, so that noise comes in only as strong as
that: it needs no truth, and where F is nothing but noise c is small.

F is filtered by g c where it costs least: over the detector, before back-projection, since a filter that depends on
|k| alone is the same on every central slice. There it is a sum over neighbouring rows, and slabs stay independent.

Where a series has much that changes slowly across images, V gets F of that, too, which the network is not shown
(`cryolithe.reconstruction.images.slow`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.arrays.spectra import times_counted
from cryolithe.filters import extend_rows, padded_length, parts_of, ramp_response
from cryolithe.projector import Projector, by_bands
from cryolithe.projector.classical import WINDOW, fbp
from cryolithe.reconstruction.images.prepared_stack import ReadRows
from cryolithe.reconstruction.slabwise.orders import LostOrder
from cryolithe.reconstruction.slabwise.part_spectra import frequencies_of, spectrum_of
from cryolithe.reconstruction.slabwise.planes import PlaneFilter, measured_region

# Shells between zero and Nyquist in which amplitudes are compared.
SHELLS = 24
# Detector rows before and after one that the filter of a row reads.
REACH_PX = 12
# Rows of what goes around the network that are projected back at a time: beside a slab they are little.
_SLOW_ROWS = 16
# Grid along the tilt axis on which the filter's response is sampled.
_SAMPLES = 96


@dataclass(frozen=True)
class FusionCurve:
    """How filtered back-projection is mixed in.

    Attributes:
        share: g, from 0 (the network alone) to below 1.
        amplitude: c at the frequencies 1/48, 2/48, ... 1/2 cycles/px.
        lost: orders of a lattice that filtered back-projection shows and the network does not.
    """

    share: float
    amplitude: tuple[float, ...]
    lost: tuple[LostOrder, ...] = ()

    def record(self) -> dict[str, Any]:
        """Plain values for the journal and the sidecar."""
        lost = [{"frequency_per_px": list(order.frequency_per_px), "kept": order.kept} for order in self.lost]
        return {"share": self.share, "amplitude": list(self.amplitude), **({"lost_orders": lost} if lost else {})}

    def at(self, frequency_per_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Interpolate c; constant below the first frequency and beyond the last."""
        return np.interp(frequency_per_px, np.arange(1, SHELLS + 1) / (2 * SHELLS), self.amplitude)


def curve_of_record(record: dict[str, Any]) -> FusionCurve:
    """The reverse of `FusionCurve.record`."""
    lost = [
        LostOrder((float(z), float(y), float(x)), float(order["kept"]))
        for order in record.get("lost_orders", [])
        for z, y, x in [order["frequency_per_px"]]
    ]
    return FusionCurve(float(record["share"]), tuple(float(value) for value in record["amplitude"]), tuple(lost))


class Fusion:
    """Mixes filtered back-projection into slabs of a network's volume.

    Args:
        curve: how much of it, how strong.
        projector: geometry and slices of the volume, and the device.
        slow: gives rows, from a first one on, of what goes around the network (see
            `cryolithe.reconstruction.images.slow` and `cryolithe.reconstruction.slabwise.lattice`), in the units of the
            network's; None for nothing.
    """

    def __init__(self, curve: FusionCurve, projector: Projector, slow: ReadRows | None = None) -> None:
        self.curve, self.projector, self.slow = curve, projector, slow
        self.halo_px = REACH_PX
        length = padded_length(projector.geometry.image_shape[1])
        self._rows = _row_responses(curve, length).to(projector.device)
        depth, angles = projector.slice_shape[0], projector.geometry.angles_deg
        self._planes = PlaneFilter(
            lambda z, x: measured_region(angles, z, x, depth), projector.slice_shape, torch.device(projector.device)
        )

    def __call__(self, volume: torch.Tensor, rows: torch.Tensor, first_row: int = 0) -> torch.Tensor:
        """The mixture.

        Args:
            volume: the network's, shape ``(z, slab, x)``, float32; it is changed.
            rows: the same that the network got, shape ``(tilts, slab + 2 halo_px, X)``.
            first_row: of the slab.

        Returns:
            shape ``(z, slab, x)``, on the volume's device.
        """
        filtered = self._filtered(rows.to(self.projector.device))
        change = by_bands(self.projector, first_row, filtered, lambda p, r: p.adjoint(r)).to(volume)
        change.sub_(volume, alpha=self.curve.share)
        volume.add_(self._planes(change))
        del change, filtered
        if self.slow is None:
            return volume
        # Both are of the images' units. c, of what networks and noise make of low frequencies, would depend on it.
        for begin in range(0, volume.shape[1], _SLOW_ROWS):
            part = volume[:, begin : begin + _SLOW_ROWS]
            slow = self.slow(first_row + begin, part.shape[1]).to(self.projector.device)
            part.add_(by_bands(self.projector, first_row + begin, slow, fbp).to(volume))
        return volume

    def _filtered(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows ready for back-projection, filtered by g c, ramp and each tilt's share of the angles."""
        size, slab = rows.shape[-1], rows.shape[1] - 2 * REACH_PX
        length = padded_length(size)
        left = (length - size) // 2
        filtered = rows.new_empty((rows.shape[0], slab, size))
        for part in parts_of(rows, length):
            spectrum = torch.fft.rfft(extend_rows(rows[part], length), dim=-1)
            mixed = spectrum[:, REACH_PX : REACH_PX + slab] * self._rows[0]
            for step in range(1, REACH_PX + 1):
                before, after = (spectrum[:, REACH_PX + way * step :][:, :slab] for way in (-1, 1))
                mixed += (before + after) * self._rows[step]
            filtered[part] = torch.fft.irfft(mixed, n=length, dim=-1)[..., left : left + size]
        weights = torch.from_numpy(self.projector.geometry.angular_weights_rad()).to(filtered)
        return filtered.mul_(weights[:, None, None])


def _row_responses(curve: FusionCurve, length: int) -> torch.Tensor:
    """Responses over x for the rows 0, 1, ... ``REACH_PX`` away, shape ``(REACH_PX + 1, length // 2 + 1)``, float32."""
    across, along = np.fft.rfftfreq(length), np.fft.fftfreq(_SAMPLES)
    wanted = curve.share * curve.at(np.hypot(along[:, None], across))
    taps = np.fft.ifft(wanted, axis=0).real[: REACH_PX + 1]
    fade = 0.5 + 0.5 * np.cos(np.pi * np.arange(REACH_PX + 1) / (REACH_PX + 1))
    ramp = ramp_response(length, WINDOW).numpy()
    return torch.from_numpy((taps * fade[:, None] * ramp).astype(np.float32))


def match_amplitudes(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], angles_deg: tuple[float, ...]
) -> tuple[float, ...]:
    """c of parts of a volume, see the module; computed where the parts are, in float64.

    Args:
        pairs: the network's voxels and those of filtered back-projection, shape ``(z, y, x)``; one shape in a pair.
        angles_deg: of the tilts.

    Returns:
        one number for each of the ``SHELLS`` shells, not negative; what no frequency falls into has its neighbour's.
        Parts that are not finite do not count: the volume will not be either, which is told when it is made.
    """
    common, power = np.zeros(SHELLS + 1), np.zeros(SHELLS + 1)
    for ours, back in pairs:
        if not all(bool(torch.isfinite(part).all()) for part in (ours, back)):
            continue
        shell, weight = (torch.from_numpy(table).to(ours.device) for table in _shells(tuple(ours.shape), angles_deg))
        a, b = spectrum_of(ours), spectrum_of(back)
        for sums, values in ((common, (a * b.conj()).real), (power, b.abs().square_())):
            np.add(sums, torch.bincount(shell, weight * values, SHELLS + 2)[: SHELLS + 1].cpu().numpy(), out=sums)
    filled = np.flatnonzero(power[1:] > 0)
    if not filled.size:
        return (0.0,) * SHELLS
    found = np.maximum(common[1:][filled], 0) / power[1:][filled]
    # Digits that the order of a GPU's sums decides are cut off: the same images give the same bytes.
    return tuple(float(f"{value:.9g}") for value in np.interp(np.arange(SHELLS), filled, found))


def _shells(shape: tuple[int, ...], angles_deg: tuple[float, ...]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Shell of each frequency of a real transform, flat, and how much it counts: not beyond what tilts measured."""
    z, y, x = frequencies_of(shape)
    radius = np.sqrt(z**2 + y**2 + x**2)
    # Half-way between two shells it is the even one: results that are published were made so.
    shell = np.minimum(np.rint(2 * SHELLS * radius), SHELLS + 1).astype(np.int64)
    weight = times_counted(shape[2]) * measured_region(angles_deg, z, x, shape[0]) * np.ones_like(radius)
    return shell.ravel(), weight.ravel()


def part_starts(length: int, part: int, most: int) -> list[int]:
    """Where parts of an axis begin that lie evenly and do not overlap: at most ``most``, at least one."""
    number = max(1, min(most, length // max(1, part)))
    edges = np.linspace(0, length, number + 1)
    return [int((low + high - part) / 2) for low, high in itertools.pairwise(edges)]
