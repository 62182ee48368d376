"""Voxel sizes of pairs that one network is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryolithe.formats.pairs import open_pair

# Voxel sizes that differ by the first factor are worth a warning, by the second a word.
FAR_VOXELS, ALIKE_VOXELS = 1.6, 1.1


def voxel_sizes(paths: Sequence[Path]) -> dict[Path, float]:
    """Edge of a voxel of each pair in Å.

    Args:
        paths: HDF5 files.

    Raises:
        FileFormatError: if a file is no pair.
    """
    sizes = {}
    for path in paths:
        with open_pair(path) as pair:
            sizes[path] = pair.voxel_size_angstrom
    return sizes


def voxel_size_note(sizes: Sequence[float]) -> str | None:
    """Words on pairs of several voxel sizes, in Å, which one network may learn; None if all are alike."""
    if not sizes or max(sizes) <= ALIKE_VOXELS * min(sizes):
        return None
    return (
        f"the pairs have voxels of {min(sizes):g} to {max(sizes):g} Å: one network learns all of them; if that is not "
        "meant, bin them alike"
    )


def voxel_size_warning(paths: Sequence[Path]) -> str | None:
    """Names the pairs whose voxels are far from the others' in size; None if all are alike.

    One network may learn several voxel sizes, but a lone one is more often a wrong header or a forgotten binning.

    Args:
        paths: HDF5 files.

    Raises:
        FileFormatError: if a file is no pair.
    """
    sizes = voxel_sizes(paths)
    middle = float(np.median(list(sizes.values()))) if sizes else 1.0
    odd = [path for path, size in sizes.items() if not 1 / FAR_VOXELS < size / middle < FAR_VOXELS]
    if not odd:
        return None
    named = ", ".join(f"{path} {sizes[path]:g} Å" for path in odd[:5]) + (
        f" and {len(odd) - 5} more" if odd[5:] else ""
    )
    return (
        f"training pairs differ in voxel size: {named}, where the middle one of {len(sizes)} has {middle:g} Å; "
        "if that is not meant, correct the file's voxel_size_angstrom or bin it alike"
    )


def sizes_told(paths: Sequence[Path]) -> dict[str, Any]:
    """What a card tells of the pairs beside their names: the voxel sizes that there are, in Å; nothing without pairs.

    Args:
        paths: HDF5 files that were trained on.

    Raises:
        FileFormatError: if a file is no pair.
    """
    sizes = sorted({round(size, 4) for size in voxel_sizes(paths).values()})
    return {"pairs_voxel_size_angstrom": sizes} if sizes else {}
