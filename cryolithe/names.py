"""Names that stand in files, as those of files: some are such as no system takes."""

from __future__ import annotations

from pathlib import Path


def exists(path: Path) -> bool:
    """Whether a name that stands in a file is that of anything; no for names that the system does not take."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether a name that stands in a file is that of a file; no for names that the system does not take."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a name that stands in a file is that of a folder; no for names that the system does not take."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
