"""By which mark a preview is known to be ours, and not somebody's drawing of the same name."""

from __future__ import annotations

import os
from pathlib import Path

from cryolithe.errors import OutputError
from cryolithe.report.figures import drawn_source
from cryolithe.settings import ReconstructSettings

PREVIEW_SOURCE = "record "  # begins what a preview is marked with


def is_preview(path: Path) -> bool:
    """Whether a file is a preview that this program drew, of whatever volume; no for the drawings of others."""
    return path.is_file() and drawn_source(path).startswith(PREVIEW_SOURCE)


def check_preview(path: Path, settings: ReconstructSettings) -> None:
    """Refuse to draw over the drawing of others.

    Raises:
        OutputError: if one is there, and is not to be replaced.
    """
    drawn = settings.preview and os.path.lexists(path) and not settings.overwrite
    if drawn and not is_preview(path):
        raise OutputError(
            f"{path} exists and is no preview of ours; give --overwrite to replace it, another name with -o, or leave "
            "out --preview"
        )
