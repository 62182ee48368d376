"""A prepared stack: where its images are, how they are read by rows, and the one way in which all are changed.

It is a plain file of float32 in the order ``(tilt, y, x)``: an image is one write, a slab of rows is one read for each
tilt; or an array of this order, where nothing is to be written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.errors import OutputError
from cryolithe.formats.volumes.pages import release_pages
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.images.defects import Spread, defect_level, spread_of
from cryolithe.reconstruction.images.slow import SlowPart
from cryolithe.sampling import reflected_rows

_ITEM = 4


# (first row, rows) -> shape (tilts, rows, X)
ReadRows = Callable[[int, int], torch.Tensor]


@dataclass(frozen=True)
class PreparedStack:
    """A prepared stack.

    Attributes:
        pixels: the file, or the images themselves, float32, shape ``(tilt, y, x)``; with slabs of z one such stack
            after the other.
        geometry: angles and prepared image shape.
        sigma: standard deviation of the pixels of the whole series, outliers left out; 1 for a standardised stack.
        clip_level: deviation from the mean beyond which a pixel can only be a defect (a hot pixel, an X-ray); infinite
            for a standardised stack.
        copies: stacks, one for each slab of z.
        whitened: whether a filter has made its noise white.
        unevenness: variance of the surfaces that were taken out of its images, as a share of that of all else; 0 where
            they are as they were (see `cryolithe.reconstruction.images.evenness`).
        slow: what changes slowly across the images and was taken out of them to go around the network; None where it
            is in them (see `cryolithe.reconstruction.images.slow`).
        multiplied: least and largest factor by which images were brought to one brightness; None where they are as
            they were (see `cryolithe.reconstruction.images.brightness`).
    """

    pixels: Path | NDArray[np.float32]
    geometry: TiltGeometry
    sigma: float
    clip_level: float
    copies: int = 1
    whitened: bool = False
    unevenness: float = 0.0
    slow: SlowPart | None = None
    multiplied: tuple[float, float] | None = None

    def read_rows(self, first_row: int, rows: int) -> torch.Tensor:
        """Rows of all tilts, shape ``(tilts, rows, X)``; rows beyond the image mirror it about its border."""
        return self._rows(first_row, rows, self.copies // 2, 1)

    @property
    def base(self) -> PreparedStack:
        """The stack whose images these are: this one."""
        return self

    def rows_of_base(self, read: ReadRows, first_row: int, rows: int) -> torch.Tensor:
        """Rows of what belongs to the images of `base`, as these images have them.

        Args:
            read: gives rows of all tilts of `base`, from a first one on.
            first_row: of these images.
            rows: how many.
        """
        return read(first_row, rows)

    def slow_rows(self, first_row: int, rows: int) -> torch.Tensor | None:
        """What was taken out of these rows to go around the network, shape ``(tilts, rows, X)``; None for nothing."""
        return None if self.slow is None else torch.from_numpy(self.slow.rows(first_row, rows))

    def seen_rows(self, first_row: int, rows: int) -> torch.Tensor:
        """Rows of all tilts with all that the images show, without defects, shape ``(tilts, rows, X)``."""
        seen = self.read_rows(first_row, rows).clamp_(-self.clip_level, self.clip_level)
        slow = self.slow_rows(first_row, rows)
        return seen if slow is None else seen.add_(slow)

    def read_all_rows(self, first_row: int, rows: int) -> torch.Tensor:
        """The same for all slabs of z, one after the other: ``(slabs * tilts, rows, X)``."""
        return self._rows(first_row, rows, 0, self.copies)

    def _rows(self, first_row: int, rows: int, copy: int, copies: int) -> torch.Tensor:
        height, width = self.geometry.image_shape
        indices = reflected_rows(first_row, rows, height)
        lowest, highest = int(indices.min()), int(indices.max())
        begin, count = copy * self.geometry.tilts, copies * self.geometry.tilts
        block = np.empty((count, highest + 1 - lowest, width), dtype="<f4")
        if isinstance(self.pixels, Path):
            with self.pixels.open("rb") as file:
                for tilt, part in enumerate(block, start=begin):
                    file.seek((tilt * height + lowest) * width * _ITEM)
                    if file.readinto(part.data.cast("B")) != part.nbytes:
                        raise OutputError(
                            f"the temporary stack {self.pixels} was cut short while it was in use; run again"
                        )
        else:
            block[:] = self.pixels[begin : begin + count, lowest : highest + 1]
        slab = block if len(indices) == block.shape[1] and indices[0] == lowest else block[:, indices - lowest]
        return torch.from_numpy(slab.astype(np.float32, copy=False))


def measured(stack: PreparedStack, spreads: list[Spread]) -> PreparedStack:
    """A stack with what its images' spreads say of all."""
    sigma = float(np.sqrt(np.mean([spread.variance for spread in spreads])))
    return replace(stack, sigma=sigma, clip_level=defect_level(sigma, [spread.tail for spread in spreads]))


def images_of(stack: PreparedStack) -> NDArray[np.float32]:
    """All images of a stack, to be read, shape ``(copies * tilts, y, x)``."""
    return _mapped(stack, stack.pixels, "r")


def changed(
    stack: PreparedStack,
    change: Callable[[NDArray[np.float32], int], NDArray[np.float32]],
    path: Path | None = None,
) -> PreparedStack:
    """A stack of changed images, measured anew.

    Args:
        stack: to change; without a path, in its place.
        change: what becomes of an image ``(y, x)`` with its place in `images_of`, of the same shape.
        path: new file for the images, instead.
    """
    images = images_of(stack) if path is not None else _mapped(stack, stack.pixels, "r+")
    made = images if path is None else _mapped(stack, path, "w+")
    tilts, spreads = stack.geometry.tilts, []
    for number in range(len(images)):
        image = change(np.asarray(images[number]), number)
        made[number] = image
        release_pages(images)
        if number // tilts == stack.copies // 2:  # the slab of z in the middle stands for all
            spreads.append(spread_of(image))
    if isinstance(made, np.memmap):
        made.flush()
    return replace(measured(stack, spreads), pixels=stack.pixels if path is None else path)


def multiplied(stack: PreparedStack, factors: NDArray[np.float32]) -> PreparedStack:
    """A stack whose images are multiplied by a factor each, in its place; it is to be measured by the caller."""
    images = _mapped(stack, stack.pixels, "r+")
    for number in range(len(images)):
        images[number] *= factors[number % len(factors)]
        release_pages(images)
    if isinstance(images, np.memmap):
        images.flush()
    return replace(stack, multiplied=(float(factors.min()), float(factors.max())))


def _mapped(stack: PreparedStack, held: Path | NDArray[np.float32], mode: str) -> NDArray[np.float32]:
    if not isinstance(held, Path):
        return held
    shape = (stack.copies * stack.geometry.tilts, *stack.geometry.image_shape)
    return np.memmap(held, dtype="<f4", mode=mode, shape=shape)  # type: ignore[call-overload]
