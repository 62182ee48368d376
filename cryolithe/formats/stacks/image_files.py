"""The images of a tilt series that are files of their own, as motion correction leaves them, seen as one stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.stacks.mrc import MrcArray, read_mrc
from cryolithe.formats.stacks.stack_images import read_one_by_one

_TIFF_ENDINGS = (".tif", ".tiff")


class ImageFiles:
    """An array ``(tilt, y, x)`` of which each image is read from its file when it is asked for.

    Args:
        paths: MRC files of one image each, all of one shape.

    Raises:
        FileFormatError: if the first one is no MRC file.
        InputError: if there are none, a file cannot be read, or one is of another shape than the first.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise InputError("a tilt series of no images")
        self.paths = tuple(paths)
        try:
            self.first: MrcArray = read_mrc(self.paths[0])
        except FileFormatError as error:
            if self.paths[0].suffix.lower() not in _TIFF_ENDINGS:
                raise
            raise FileFormatError(
                f"{error}; do so with each image, and name the MRC files in a copy of the table"
            ) from error
        self.shape = (len(self.paths), *self.first.data.shape[1:])
        self.dtype: np.dtype[Any] = self.first.data.dtype
        self.ndim = 3
        for path in self.paths:
            found = read_mrc(path).data.shape
            if found != (1, *self.shape[1:]):
                raise InputError(
                    f"{path} holds {' x '.join(map(str, found))} pixels (images, y, x), expected 1 x "
                    f"{' x '.join(map(str, self.shape[1:]))} as {self.paths[0]} has; give images of one series"
                )

    def __getitem__(self, number: int) -> NDArray[Any]:
        """Image ``number``, from 0; shape ``(y, x)``."""
        image: NDArray[Any] = read_one_by_one(read_mrc(self.paths[number]).data)[0]
        return image
