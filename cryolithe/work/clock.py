"""Lengths of time in words."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """``0:42``, ``12:05`` or ``3:20:00``.

    >>> clock(42.4), clock(725), clock(12_000)
    ('0:42', '12:05', '3:20:00')
    """
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
