"""Sizes of files and of memory in words, and numbers with decimals."""

from __future__ import annotations


def size_told(size_bytes: float) -> str:
    """GB with one decimal, below a tenth of that MB.

    >>> size_told(2.04e9), size_told(4.2e7), size_told(3e5), size_told(0)
    ('2.0 GB', '42 MB', '0.3 MB', '0 MB')
    """
    if size_bytes >= 1e8:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.{0 if size_bytes >= 1e6 or not size_bytes else 1}f} MB"


def decimal_told(value: float, digits: int, sign: bool = False) -> str:
    """A number with so many decimals; one that is rounded to zero is zero, not minus zero.

    >>> decimal_told(-0.04, 1), decimal_told(-0.04, 1, sign=True), decimal_told(-0.06, 1)
    ('0.0', '+0.0', '-0.1')
    """
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}"
