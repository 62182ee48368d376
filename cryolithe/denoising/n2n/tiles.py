"""A network applied to a volume by tiles: aligned to its pooling, blended without seams, within a bound of memory.

A tile starts at a multiple of the network's own, so that its poolings cut the volume where those of its neighbours do.
At each inner end, ``margin`` voxels are thrown away and ``blend`` voxels pass over to the neighbour. With a margin of
the network's whole reach the result is that of the volume in one piece; `MOST_MARGIN` tells what a smaller one costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cryolithe.arrays.folding import reflected
from cryolithe.denoising.n2n.gains import GAIN_REACH_PX, ShellGain
from cryolithe.denoising.n2n.network import Config, kind_of
from cryolithe.errors import ResourceError
from cryolithe.optimise.distributed import Place

Box = tuple[slice, slice, slice]
Source = Callable[[Box], NDArray[np.float32]]

BLEND = 8
# Voxels at the inner ends of a tile that are left to its neighbour: all that a network can see, but no more than this.
# A trained unet-small (it could see 37) differs between two tilings by 0.04 of the output's deviation at most with 16
# voxels, 0.008 with 24, 0.0007 with 28 and not at all with 32.
MOST_MARGIN = 48
GAIN_EDGE = 256  # of the blocks in which a gain by shell is applied
_BYTES_BESIDE = 16  # of each voxel: input, output, and their copies in another layout
_WORKING_SPACE = (
    1.7  # of what the maps alone take: the convolutions' own; on a CPU bf16 takes what fp32 does (measured)
)


@dataclass(frozen=True)
class Span:
    """A tile's part of one axis.

    Attributes:
        start: first voxel.
        stop: after the last one; may lie beyond the end of the axis, which is mirrored there.
        weight: of the voxels ``start ... min(stop, size)``; those of all tiles add up to 1.
    """

    start: int
    stop: int
    weight: NDArray[np.float32]


@dataclass(frozen=True)
class Tiling:
    """Tiles of a volume.

    Attributes:
        shape: voxels of the volume ``(z, y, x)``.
        axes: spans along each axis; the tiles are their products.
    """

    shape: tuple[int, int, int]
    axes: tuple[tuple[Span, ...], tuple[Span, ...], tuple[Span, ...]]

    @property
    def edges(self) -> tuple[int, int, int]:
        """Voxels of a tile."""
        z, y, x = (spans[0].stop - spans[0].start for spans in self.axes)
        return z, y, x

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.prod(len(spans) for spans in self.axes)


def spans(size: int, edge: int, margin: int, blend: int, multiple: int) -> tuple[Span, ...]:
    """Spans that cover an axis, starting at multiples of ``multiple``.

    Args:
        size: voxels of the axis.
        edge: of a tile; rounded up to the multiple, and no longer than the axis needs.
        margin: voxels at inner ends that have no weight.
        blend: least number of voxels over which the weight passes to the neighbour.
        multiple: of the network.

    Raises:
        ValueError: if the edge leaves nothing between its ends.
    """
    whole = -(-size // multiple) * multiple
    length = min(whole, -(-edge // multiple) * multiple)
    overlap = -(-(2 * margin + blend) // multiple) * multiple
    if length == whole:
        return (Span(0, whole, np.ones(size, np.float32)),)
    if length <= overlap:
        raise ValueError(f"tiles of {length} voxels do not reach over an overlap of {overlap}")
    count = -(-(whole - overlap) // (length - overlap))
    starts = np.rint(np.linspace(0, (whole - length) / multiple, count)).astype(int) * multiple
    places, raw = np.arange(size), []
    for number, start in enumerate(starts):
        rise = np.ones(size) if number == 0 else (places - start - margin + 0.5) / max(1, blend)
        fall = np.ones(size) if number == count - 1 else (start + length - margin - 0.5 - places) / max(1, blend)
        raw.append(np.clip(np.minimum(rise, fall), 0, 1))
    total = np.sum(raw, axis=0)
    parts = zip(starts, raw, strict=True)
    return tuple(
        Span(int(s), int(s) + length, (w / total)[s : min(size, s + length)].astype(np.float32)) for s, w in parts
    )


def margin_of(config: Config) -> int:
    """Voxels at the inner ends of a tile that a network's output is thrown away in."""
    return min(config.reach, MOST_MARGIN)


def apply_gain(gain: ShellGain, values: NDArray[Any], out: NDArray[Any]) -> None:
    """Multiply the amplitudes of a volume, block by block.

    Args:
        gain: of the network.
        values: shape ``(z, y, x)``.
        out: the same shape, float32, other memory; overwritten.
    """
    z, y, x = values.shape
    parts = [spans(size, GAIN_EDGE, GAIN_REACH_PX, BLEND, 1) for size in (z, y, x)]
    denoise_volume(
        gain.apply, [lambda box: np.array(values[box])], Tiling((z, y, x), (parts[0], parts[1], parts[2])), out
    )


def tile_bytes(config: Config, edges: Sequence[int], itemsize: int) -> int:
    """Memory that a tile takes while it is denoised."""
    maps = _WORKING_SPACE * config.maps * itemsize + _BYTES_BESIDE
    return round(math.prod(edges) * maps)


def plan_tiles(
    shape: tuple[int, int, int], config: Config, budget_bytes: int, itemsize: int = 4, margin: int | None = None
) -> Tiling:
    """The largest tiles that fit into a budget: each is computed with its overlap, so that few are cheapest.

    Args:
        shape: of the volume ``(z, y, x)``.
        config: of the network.
        budget_bytes: memory for one tile.
        itemsize: bytes of a value inside the network.
        margin: instead of that of `margin_of`.

    Raises:
        ResourceError: if not even small tiles fit.
    """
    most = margin_of(config) if margin is None else margin
    for kept in (most, most // 2, most // 4):  # faint seams are better than no result
        edges = _fitting_edges(shape, config, budget_bytes, itemsize, kept)
        if tile_bytes(config, edges, itemsize) <= budget_bytes:
            z, y, x = (spans(size, edge, kept, BLEND, config.multiple) for size, edge in zip(shape, edges, strict=True))
            return Tiling(shape, (z, y, x))
    need = tile_bytes(config, edges, itemsize)
    raise ResourceError(
        f"the smallest tiles of this network need {need / 1e9:.2f} GB, {budget_bytes / 1e9:.2f} GB are to be used; "
        "choose --backbone unet-small, or free memory"
    )


def _fitting_edges(
    shape: tuple[int, int, int], config: Config, budget_bytes: int, itemsize: int, margin: int
) -> list[int]:
    """Edges of the largest tiles within a budget, or of the smallest ones."""
    multiple = config.multiple
    overlap = -(-(2 * margin + BLEND) // multiple) * multiple
    edges = [-(-size // multiple) * multiple for size in shape]
    while tile_bytes(config, edges, itemsize) > budget_bytes:
        axis = int(np.argmax(edges))
        # Half of what remains beside the overlap, in whole multiples; at least one multiple beyond the overlap.
        shorter = -(-(edges[axis] + overlap) // (2 * multiple)) * multiple
        shorter = max(shorter if shorter < edges[axis] else edges[axis] - multiple, overlap + multiple)
        if shorter >= edges[axis]:
            break
        edges[axis] = shorter
    return edges


@dataclass(frozen=True)
class Runner:
    """A network at work.

    Attributes:
        network: on ``device``, in evaluation mode.
        device: where it is.
        precision: of its products.
    """

    network: nn.Module
    device: torch.device
    precision: torch.dtype

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Denoised values of one tile, shape ``(z, y, x)``."""
        batch = as_batch(torch.from_numpy(np.ascontiguousarray(values))[None, None], self.device)
        with torch.inference_mode(), Place(self.device, self.precision).autocast():
            found = self.network(batch)
        out: NDArray[np.float32] = found[0, 0].float().cpu().numpy()
        return out


def as_batch(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch ``(n, 1, z, y, x)`` on a device, with the maps of a voxel beside each other (see `prepared`)."""
    return values.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last_3d)


def prepared(network: nn.Module, config: Config, device: torch.device) -> nn.Module:
    """A network on a device, in the layout that is fastest there.

    Maps of a voxel beside each other make bf16 on a CPU with AMX 1.5 times faster in training and 2 times in
    inference (U-Nets). The dense network writes single maps, which then would lie scattered.
    """
    if kind_of(config) == "msd":
        return network.to(device)
    if kind_of(config) == "planar":
        flat: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return flat
    moved: nn.Module = network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return moved


def denoise_volume(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    sources: Sequence[Source],
    tiling: Tiling,
    out: NDArray[Any],
    advance: Callable[[], object] = int,
) -> None:
    """Write the mean of the denoised sources, tile by tile.

    Args:
        run: denoises one tile.
        sources: each gives a box of its volume, standardised.
        tiling: of the volume.
        out: shape ``(z, y, x)``, float32; overwritten.
        advance: called after each tile of each source.
    """
    out[...] = 0
    for z, y, x in product(*tiling.axes):
        weight = z.weight[:, None, None] * y.weight[:, None] * x.weight / np.float32(len(sources))
        size = weight.shape
        for source in sources:
            found = run(_mirrored(source, (z, y, x), tiling.shape))
            place = tuple(slice(span.start, span.start + n) for span, n in zip((z, y, x), size, strict=True))
            out[place] += weight * found[: size[0], : size[1], : size[2]]
            advance()


def _mirrored(source: Source, parts: tuple[Span, Span, Span], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """The voxels of a tile, mirrored where it reaches beyond the volume."""
    ends = [min(span.stop, size) for span, size in zip(parts, shape, strict=True)]
    z, y, x = (slice(span.start, end) for span, end in zip(parts, ends, strict=True))
    values = source((z, y, x))
    if all(end == span.stop for span, end in zip(parts, ends, strict=True)):
        return values
    wanted = [
        np.maximum(reflected(np.arange(s.start, s.stop), size) - s.start, 0)
        for s, size in zip(parts, shape, strict=True)
    ]
    return values[np.ix_(*wanted)]
