"""Sizes of files and of memory in words."""

from __future__ import annotations


def size_told(size_bytes: float) -> str:
    """GB with one decimal, below a tenth of that MB.

    >>> size_told(2.04e9), size_told(4.2e7), size_told(3e5), size_told(0)
    ('2.0 GB', '42 MB', '0.3 MB', '0 MB')
    """
    if size_bytes >= 1e8:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.{0 if size_bytes >= 1e6 or not size_bytes else 1}f} MB"
