"""Fourier transforms of an evaluation on a GPU: arrays go there and come back, one transform at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from cryolithe.arrays.spectra import Array, HostTransforms, Transforms
from cryolithe.machine.device import free_cached_memory, is_out_of_memory


class DeviceTransforms:
    """See `cryolithe.arrays.spectra.Transforms`; what a device has no memory for is transformed on the host.

    Args:
        device: a GPU, though any device does.
        note: told, once, when that happens.
    """

    def __init__(self, device: torch.device, note: Callable[[str], object] = lambda text: None) -> None:
        self.device = device
        self._note: Callable[[str], object] | None = note
        self._host = HostTransforms()

    def rfft2(self, planes: Array) -> Array:
        """See `Transforms`."""
        return self._made(torch.fft.rfft2, planes, lambda: self._host.rfft2(planes))

    def along_z(self, block: Array) -> Array:
        """See `Transforms`."""
        return self._made(lambda x: torch.fft.fft(x, dim=0), block, lambda: self._host.along_z(block))

    def rfftn(self, values: Array, shape: Sequence[int]) -> Array:
        """See `Transforms`."""
        return self._made(lambda x: torch.fft.rfftn(x, s=tuple(shape)), values, lambda: self._host.rfftn(values, shape))

    def irfftn(self, spectrum: Array, shape: Sequence[int]) -> Array:
        """See `Transforms`."""
        return self._made(
            lambda x: torch.fft.irfftn(x, s=tuple(shape)), spectrum, lambda: self._host.irfftn(spectrum, shape)
        )

    def _made(
        self, transform: Callable[[torch.Tensor], torch.Tensor], values: Array, on_host: Callable[[], Array]
    ) -> Array:
        try:
            made: Array = transform(torch.from_numpy(np.array(values)).to(self.device)).cpu().numpy()
            return made
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        free_cached_memory()
        if self._note is not None:
            self._note(f"Memory ran out on {self.device}: larger transforms are made on the CPU.")
            self._note = None
        return on_host()


def transforms_on(device: torch.device, note: Callable[[str], object] = lambda text: None) -> Transforms:
    """Transforms on a device; on a CPU those of scipy."""
    return HostTransforms() if device.type == "cpu" else DeviceTransforms(device, note)
