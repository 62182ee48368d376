"""Weights that come with the package: a network for any tomogram, which was trained on many simulated ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BUNDLED = Path(__file__).parent / "bundled_weights"
GENERAL = "general"
ENDING = ".safetensors"


def bundled_denoisers() -> dict[str, Path]:
    """Names and files of the denoisers that come with the package."""
    return {path.stem: path for path in sorted(BUNDLED.glob(f"*{ENDING}")) if path.is_file()}


def general_weights() -> Path | None:
    """File of the general network; None in a package without weights."""
    return bundled_denoisers().get(GENERAL)


def named_weights(given: Path) -> Path:
    """File of the bundled denoiser of a name, unless a file of that name is there."""
    return given if given.exists() else bundled_denoisers().get(str(given), given)


def is_general(card: dict[str, Any]) -> bool:
    """Whether weights were made for volumes that they were not trained on."""
    return card.get("general") is True


def doubts_about(card: dict[str, Any], voxel_size_angstrom: float | None) -> list[str]:
    """What speaks against general weights for a volume, in words.

    Args:
        card: of the weights.
        voxel_size_angstrom: of the volume, or None.
    """
    sizes = card.get("voxel_size_angstrom")
    if not (isinstance(sizes, list) and len(sizes) == 2):
        return []
    low, high = (float(size) for size in sizes)
    if voxel_size_angstrom is None:
        return [
            f"Note: the general weights are for voxels of {low:g} to {high:g} Å; the volume does not say what it has"
        ]
    if low * 0.95 <= voxel_size_angstrom <= high * 1.05:
        return []
    what = "bin the volume" if voxel_size_angstrom < low else "reconstruct it finer"
    return [
        f"Warning: the general weights are for voxels of {low:g} to {high:g} Å, the volume has "
        f"{voxel_size_angstrom:.3g} Å; {what}, or train on its own halves (--half1, --half2)"
    ]
