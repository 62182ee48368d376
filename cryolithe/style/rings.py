"""Power of square patches by rings of frequency, in torch: the same estimator measures and is learned against.

Ring n of patches of P pixels lies at ``n / P`` cycles per pixel, n = 1 ... P / 2. Patches lose their mean and are seen
through a Hann window with a mean square of 1, so that white noise of variance v has the power v in every ring.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.arrays.spectra import shell_of, times_counted
from cryolithe.style.target import Stack

MOST_PATCHES = 16  # of an image along both axes together


class Rings:
    """Rings of patches of one size.

    Args:
        size: edge of the patches, even.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        line = np.hanning(size + 2)[1:-1]
        window = line[:, None] * line
        self._window = torch.from_numpy((window / np.sqrt(np.mean(window**2))).astype(np.float32))
        ky, kx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
        ring = shell_of(np.hypot(ky, kx), size)
        times = np.broadcast_to(times_counted(size), ring.shape)
        self.counts = np.bincount(ring.ravel(), times.ravel())[1 : size // 2 + 1]
        inside = (ring > 0) & (ring <= size // 2)
        self._ring = torch.from_numpy(np.where(inside, ring - 1, 0).ravel())
        share = np.where(inside, times, 0.0).ravel() / self.counts[self._ring.numpy()]
        self._share = torch.from_numpy(share.astype(np.float32))

    @property
    def frequency_per_px(self) -> NDArray[np.float64]:
        """Of the rings, shape ``(size // 2,)``."""
        return np.arange(1, self.size // 2 + 1) / self.size

    def powers(self, patches: torch.Tensor) -> torch.Tensor:
        """Power of patches, from shape ``(..., size, size)`` to ``(..., size // 2)``."""
        spectrum = self._transform(patches)
        return self._means(spectrum.real**2 + spectrum.imag**2)

    def cross(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Real part of the cross-spectrum of patches, as `powers`."""
        return self._means((self._transform(first) * self._transform(second).conj()).real)

    def held(self, stack: Stack, *tilts: int) -> float:
        """What part of the power of patches of some images stands, that is not in borders, in their window."""
        if stack.data is None:
            return 1.0
        where = np.logical_and.reduce([stack.data[tilt] for tilt in tilts])
        return float((self.cut(where.astype(np.float32)) * self._window**2).mean())

    def cut(self, image: NDArray[np.float32]) -> torch.Tensor:
        """Patches that cover an image ``(y, x)`` evenly, shape ``(N, size, size)``."""
        counts = [max(1, min(int(MOST_PATCHES**0.5), -(-length // self.size))) for length in image.shape]
        starts = [
            np.linspace(0, length - self.size, count).round().astype(int)
            for length, count in zip(image.shape, counts, strict=True)
        ]
        found = [image[y : y + self.size, x : x + self.size] for y in starts[0] for x in starts[1]]
        return torch.from_numpy(np.stack(found))

    def _transform(self, patches: torch.Tensor) -> torch.Tensor:
        centred = patches - patches.mean(dim=(-2, -1), keepdim=True)
        return torch.fft.rfft2(centred * self._window) / self.size

    def _means(self, values: torch.Tensor) -> torch.Tensor:
        flat = values.flatten(-2) * self._share
        empty = flat.new_zeros(*flat.shape[:-1], self.size // 2)
        return empty.index_add(-1, self._ring, flat)
