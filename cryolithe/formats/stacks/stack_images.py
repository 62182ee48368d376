"""The images of a stack, read one by one from its file rather than through a memory map.

Who touches a map of a file that has become shorter is killed by the system, without a word: a stack may be copied over
while it is read. A read that ends early can be told, and a session goes on with its other series.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.formats.files import unreadable
from cryolithe.tilts import Images


class StackImages:
    """An array ``(tilt, y, x)`` of which each image is read when it is asked for.

    Args:
        path: uncompressed file.
        offset: of the first image in it, in bytes.
        shape: ``(tilt, y, x)``.
        dtype: of the pixels as stored.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.shape, self.dtype, self.ndim = path, shape, dtype, 3
        self._offset = offset

    def __getitem__(self, number: int) -> NDArray[Any]:
        """Image ``number``, from 0; shape ``(y, x)``.

        Raises:
            InputError: if the file cannot be read, or ends before the end of the image.
        """
        height, width = self.shape[1:]
        place = self._offset + range(self.shape[0])[number] * height * width * self.dtype.itemsize
        image = np.empty((height, width), self.dtype)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(place)
                left = image.reshape(-1).view(np.uint8).data
                while left and (count := file.readinto(left)):
                    left = left[count:]
        except OSError as error:
            raise unreadable(self.path, error) from error
        if left:
            raise InputError(
                f"the input {self.path} changed while the run read it: it ends within image {number + 1}; run again "
                "when it is complete"
            )
        return image


def read_one_by_one(images: NDArray[Any]) -> Images:
    """Images of which each is read from its file; as they are where they are not mapped, or lie in another order."""
    if not isinstance(images, np.memmap) or not isinstance(images.base, mmap.mmap | np.memmap):
        return images
    whole, file = images.ndim == 3 and images.flags.c_contiguous, images.filename
    mapped = images.base if isinstance(images.base, np.memmap) else images
    if not whole or file is None or mapped.nbytes != math.prod(images.shape) * images.itemsize:
        return images
    return StackImages(Path(file), int(images.offset), images.shape, images.dtype)
