"""Which chunks of Zarr's arrays are stored: voxels of those that are not are read as a fill value, without a word.

That is legal, and some programs store no chunk of zeros; but so looks a folder of which a part was never copied.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

_KEY = re.compile(r"(?:c[./])?\d+(?:[./]\d+)*")


def missing_chunks(path: Path, array: Any) -> tuple[int, int]:
    """How many chunks of an array are not stored, and of how many; shards count, where it has them.

    Args:
        path: folder of the store.
        array: zarr's, in it.
    """
    sizes = getattr(array, "shards", None) or array.chunks
    counts = [-(-n // size) for n, size in zip(array.shape, sizes, strict=True)]
    whole, stored = math.prod(counts), _stored(path / array.path, counts)
    if not stored and int(array.nchunks_initialized):  # chunks are named otherwise; asking the library takes long
        return 0, whole
    return whole - stored, whole


def _stored(folder: Path, counts: list[int]) -> int:
    """Files of a folder that are named as chunks are: by their numbers along each axis."""
    found = 0
    for place, _, files in os.walk(folder):
        below = os.path.relpath(place, folder)
        for name in files:
            key = name if below == "." else f"{below}/{name}"
            if _KEY.fullmatch(key):
                numbers = [int(number) for number in re.findall(r"\d+", key)]
                found += len(numbers) == len(counts) and all(map(int.__lt__, numbers, counts))
    return found
