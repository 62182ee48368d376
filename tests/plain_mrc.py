"""MRC files whose bytes follow from their values: mrcfile's own label holds the second in which a file was made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mrcfile
from numpy.typing import ArrayLike


@contextmanager
def new_mrc(path: Path, values: ArrayLike | None = None) -> Iterator[mrcfile.mrcfile.MrcFile]:
    """A new file to fill, in place of one that is there; with ``values`` in it if any are given."""
    with mrcfile.new(path, values, overwrite=True) as file:
        file.header.label[0] = b"made for a test"
        yield file
