"""Filters of planes (z, x), and which of their frequencies the tilts measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from cryolithe.geometry import VolumeGrid
from cryolithe.machine.device import free_cached_memory, is_out_of_memory

# Values of the mirrored planes that are filtered at a time on a GPU; on a CPU it is one plane, whatever its size.
_VALUES_AT_ONCE = 1 << 25
# Arrays of that size there: planes, spectrum, product, its copy and the workspace of its transform, what comes of it.
_PLANE_ARRAYS = 7
Response = Callable[[NDArray[np.floating], NDArray[np.floating]], NDArray[np.float64]]


class PlaneFilter:
    """Multiplies the frequencies of planes (z, x), which are mirrored beyond their faces.

    Args:
        response: what each frequency (z, x), cycles/px, is multiplied by.
        slice_shape: voxels along z and x.
        device: of the response.

    Attributes:
        slice_shape: voxels along z and x.
        padding: added before and after, likewise.
        at_once: planes that are filtered together; fewer once memory ran out.
    """

    def __init__(self, response: Response, slice_shape: tuple[int, int], device: torch.device) -> None:
        self.slice_shape = slice_shape
        self.padding = _mirrored(slice_shape)
        self.at_once = _planes_at_once(slice_shape, device)
        lengths = self._lengths()
        frequency_z, frequency_x = np.fft.fftfreq(lengths[0])[:, None], np.fft.rfftfreq(lengths[1])
        self.gain = torch.from_numpy(response(frequency_z, frequency_x).astype(np.float32)).to(device)

    def _lengths(self) -> list[int]:
        return [size + sum(pad) for size, pad in zip(self.slice_shape, self.padding, strict=True)]

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        """Filter a volume ``(z, y, x)`` in its place."""
        y = 0
        while y < volume.shape[1]:
            planes = volume[:, y : y + self.at_once].transpose(0, 1)
            try:
                filtered = self._filtered(planes)
            except (MemoryError, RuntimeError) as error:
                if self.at_once == 1 or not is_out_of_memory(error):
                    raise
                filtered = None
            if filtered is None:
                self.at_once //= 2
                free_cached_memory()
                continue
            planes.copy_(filtered)
            y += planes.shape[0]
        return volume

    def _filtered(self, planes: torch.Tensor) -> torch.Tensor:
        (top, bottom), (left, right) = self.padding
        lengths = self._lengths()
        padded = torch.nn.functional.pad(planes[None], (left, right, top, bottom), mode="reflect")[0]
        filtered = torch.fft.irfft2(torch.fft.rfft2(padded) * self.gain.to(planes.device), s=lengths)
        return filtered[:, top : lengths[0] - bottom, left : lengths[1] - right]


def _mirrored(slice_shape: tuple[int, int]) -> list[tuple[int, int]]:
    """What is added to a plane before and after, along z and x."""
    padding = []
    for size in slice_shape:
        wanted = size + 2 * min(size - 1, max(8, size // 8))
        # A fast length may be longer than what mirroring can fill.
        length = min(int(scipy.fft.next_fast_len(wanted, real=True)), 3 * size - 2)
        before = min(size - 1, (length - size) // 2)
        padding.append((before, length - size - before))
    return padding


def _plane_values(slice_shape: tuple[int, int]) -> int:
    """Values of a mirrored plane; its half spectrum has as many numbers, and up to two columns more."""
    height, width = (size + sum(pad) for size, pad in zip(slice_shape, _mirrored(slice_shape), strict=True))
    return height * (width + 2)


def _planes_at_once(slice_shape: tuple[int, int], device: torch.device) -> int:
    return 1 if device.type == "cpu" else max(1, _VALUES_AT_ONCE // _plane_values(slice_shape))


def plane_filter_bytes(grid: VolumeGrid, device: torch.device) -> int:
    """Memory for the planes that are filtered at a time, beside the projector's and what belongs to a slab."""
    plane = grid.shape[0], grid.shape[2]
    planes = min(_planes_at_once(plane, device), grid.shape[1])
    return 4 * _PLANE_ARRAYS * _plane_values(plane) * planes


def whole_turn(angles_deg: tuple[float, ...]) -> bool:
    """Whether nothing is missing: the tilt after the last one would be the first one again."""
    distinct = np.unique(angles_deg)
    return len(distinct) > 1 and float(distinct[-1] - distinct[0] + np.median(np.diff(distinct))) >= 180 - 1e-6


def measured_region(
    angles_deg: tuple[float, ...], frequency_z: NDArray[np.floating], frequency_x: NDArray[np.floating], depth: int
) -> NDArray[np.float64]:
    """Which frequencies lie between the outermost tilts: 1 there, falling to 0 over the thickness of a central slice.

    Args:
        angles_deg: of the tilts.
        frequency_z: cycles/px; likewise ``frequency_x``, broadcastable to the result.
        frequency_x: see above.
        depth: of the specimen in voxels, whose reciprocal is a slice's thickness.

    Returns:
        values from 0 to 1.
    """
    lowest, highest = np.radians(min(angles_deg)), np.radians(max(angles_deg))
    if whole_turn(angles_deg):
        return np.ones(np.broadcast_shapes(frequency_z.shape, frequency_x.shape))

    def inside(z: NDArray[np.floating], x: NDArray[np.floating]) -> NDArray[np.float64]:
        beyond = np.maximum(z * np.cos(highest) - x * np.sin(highest), x * np.sin(lowest) - z * np.cos(lowest))
        return np.clip(1 - 2 * depth * beyond, 0.0, 1.0)

    # k and -k are the same wave.
    return np.maximum(inside(frequency_z, frequency_x), inside(-frequency_z, -frequency_x))
