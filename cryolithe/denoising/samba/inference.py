"""One step back, one step forward: planes denoised with a trained network.

For a plane z and a gap L the network f makes ``a = f(z - L, z)`` and ``b = f(z, z + L)``, the planes half-way to the
neighbours, and ``f(a, b)`` is the new plane; the mean over the gaps is the result (published figure 1 D, E). As b of
plane z is a of plane z + L, each is made once: two evaluations per plane and gap instead of three.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.denoising.samba.gaps import Pair, neighbours
from cryolithe.denoising.samba.model import SambaNet
from cryolithe.optimise.distributed import Place

FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))  # axes of (n, 1, y, x)
Read = Callable[[int], NDArray[np.float32]]


@dataclass(frozen=True)
class Inference:
    """What makes planes of a tile.

    Attributes:
        network: trained, on the place's device.
        place: device and precision.
        usable: of each plane of the volume, whether it has content.
        largest_gap: Lmax.
        augment: mean over the four flips along y and x.
        batch: evaluations at a time.
    """

    network: SambaNet
    place: Place
    usable: NDArray[np.bool_]
    largest_gap: int
    augment: bool = False
    batch: int = 1

    def planes(self, read: Read, start: int, stop: int) -> Iterator[NDArray[np.float32] | None]:
        """New planes ``start`` to ``stop - 1`` of a tile.

        Args:
            read: scaled tile of plane z, shape ``(y, x)``, sides multiples of the network's.
            start: first plane.
            stop: plane after the last one.

        Yields:
            shape ``(y, x)``; None for a plane without content.
        """
        for outputs in self._by_gap(read, start, stop):
            yield self._unflipped(torch.stack(outputs).mean(dim=0)) if outputs else None

    def running_means(self, read: Read, z: int, wanted: Sequence[int]) -> list[NDArray[np.float32]]:
        """Plane z for several largest gaps at the cost of the largest: means over its first gaps."""
        (outputs,) = list(self._by_gap(read, z, z + 1))
        return [self._unflipped(torch.stack(outputs[:gap]).mean(dim=0)) for gap in wanted]

    def several(self, read: Read, start: int, stop: int, wanted: Sequence[int]) -> Iterator[list[NDArray[np.float32]]]:
        """Planes ``start`` to ``stop - 1`` for several largest gaps; none for a plane without content."""
        for outputs in self._by_gap(read, start, stop):
            yield [self._unflipped(torch.stack(outputs[:gap]).mean(dim=0)) for gap in wanted if outputs]

    @torch.inference_mode()
    def direct(self, read: Read, z: int) -> NDArray[np.float32]:
        """Plane z by plain interpolation, mean over gaps of ``f(z - L, z + L)``: what the two steps improve on."""
        cache = _Cache(self, read)
        outputs = cache.evaluate([(cache.plane(a), cache.plane(b)) for a, b in self._pairs(z)])
        return self._unflipped(torch.stack(outputs).mean(dim=0))

    def _pairs(self, z: int) -> list[Pair]:
        return neighbours(z, self.usable, self.largest_gap)

    @torch.inference_mode()
    def _by_gap(self, read: Read, start: int, stop: int) -> Iterator[list[torch.Tensor]]:
        """For each plane its new versions, one for each gap, still flipped."""
        cache = _Cache(self, read)
        for z in range(start, stop):
            pairs = self._pairs(z)
            steps = [step for before, after in pairs for step in ((before, z), (z, after))]
            cache.prepare(steps)
            halves = [(cache.between[(before, z)], cache.between[(z, after)]) for before, after in pairs]
            yield cache.evaluate(halves)
            cache.forget(z, self.largest_gap)

    def _unflipped(self, stack: torch.Tensor) -> NDArray[np.float32]:
        """Mean of the flipped versions ``(flips, 1, y, x)``, turned back."""
        flips = FLIPS if self.augment else FLIPS[:1]
        turned = [version.flip([axis - 1 for axis in axes]) for version, axes in zip(stack, flips, strict=True)]
        mean: NDArray[np.float32] = torch.stack(turned).mean(dim=0)[0].float().cpu().numpy()
        return mean


class _Cache:
    """Planes and interpolated planes of a tile that are still needed."""

    def __init__(self, settings: Inference, read: Read) -> None:
        self._settings, self._read = settings, read
        self._planes: dict[int, torch.Tensor] = {}
        self.between: dict[Pair, torch.Tensor] = {}

    def plane(self, z: int) -> torch.Tensor:
        """A plane in all its flips, shape ``(flips, 1, y, x)``."""
        if z not in self._planes:
            values = torch.from_numpy(np.ascontiguousarray(self._read(z)))[None, None]
            flips = FLIPS if self._settings.augment else FLIPS[:1]
            stack = torch.cat([values.flip(axes) if axes else values for axes in flips])
            self._planes[z] = stack.to(self._settings.place.device)
        return self._planes[z]

    def prepare(self, steps: Sequence[Pair]) -> None:
        """Interpolate between the pairs of planes that are not there yet."""
        new = list(dict.fromkeys(step for step in steps if step not in self.between))
        made = self.evaluate([(self.plane(a), self.plane(b)) for a, b in new])
        self.between.update(zip(new, made, strict=True))

    def forget(self, z: int, largest_gap: int) -> None:
        """Drop what the planes after z do not need."""
        self.between = {pair: value for pair, value in self.between.items() if max(pair) > z}
        self._planes = {plane: value for plane, value in self._planes.items() if plane > z - largest_gap}

    def evaluate(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        """The planes between pairs of planes, each with all its flips.

        On a CPU each core works on pairs of its own: that is faster than all of them on one pair.
        """
        size = self._settings.batch
        parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        threads = torch.get_num_threads()
        if self._settings.place.device.type == "cpu" and threads > 1:
            found = list(_pool(threads).map(self._evaluated, parts))
        else:
            found = [self._evaluated(part) for part in parts]
        return [one for part in found for one in part]

    @torch.inference_mode()
    def _evaluated(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        place = self._settings.place
        first, second = (torch.cat([pair[side] for pair in pairs]) for side in (0, 1))
        with place.autocast():
            found = self._settings.network(first, second)
        return list(found.float().split(pairs[0][0].shape[0]))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that share the cores: within each of them torch uses one."""
    return ThreadPoolExecutor(threads, "cryolithe-denoise", initializer=torch.set_num_threads, initargs=(1,))
