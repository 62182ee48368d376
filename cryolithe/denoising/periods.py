"""Spatial frequencies in words: periods in Å where the voxel size is known."""

from __future__ import annotations


def told(low_per_px: float, high_per_px: float | None, voxel_size_angstrom: float | None) -> str:
    """One frequency, or a range of them.

    Args:
        low_per_px: cycles per voxel, above 0.
        high_per_px: end of the range; None for one frequency.
        voxel_size_angstrom: edge of a voxel, if it is known.

    >>> told(0.1, 0.25, 10.0), told(0.1, None, 10.0), told(0.1, 0.25, None)
    ('100 to 40 Å', '100 Å', '0.1 to 0.25 cycles per voxel')
    """
    ends = [low_per_px, *([] if high_per_px is None or high_per_px == low_per_px else [high_per_px])]
    if voxel_size_angstrom is None:
        return " to ".join(f"{end:.2g}" for end in ends) + " cycles per voxel"
    return " to ".join(f"{voxel_size_angstrom / end:.3g}" for end in ends) + " Å"
