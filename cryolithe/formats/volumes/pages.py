"""Pages of files that are mapped into memory: they count as memory in use for as long as nobody lets them go."""

from __future__ import annotations

import mmap


def release_pages(array: object) -> None:
    """Let the system forget the pages of a memory map that were read, so that they do not pile up.

    They come back from the file when they are needed. What is no memory map is left alone.

    Args:
        array: read-only, or a view of it; or what is made of several arrays, its ``parts``.
    """
    for part in getattr(array, "parts", ()):
        release_pages(part)
    base: object = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None) if not isinstance(base, memoryview) else base.obj
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
