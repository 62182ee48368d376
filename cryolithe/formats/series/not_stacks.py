"""What a file or folder is that is given as a stack of images and is no MRC file: what to do with it then."""

from __future__ import annotations

from pathlib import Path

from cryolithe.files.names import is_file
from cryolithe.formats.stacks.mrc_header import of_other_kind
from cryolithe.formats.volumes.tiff import ENDINGS

_WARP = "is an alignment of Warp and holds no images: give the stack, and this file with --warp"
_ENDINGS = {
    ".tomostar": _WARP,
    ".xml": _WARP,
    ".edf": (
        "is a project of etomo and holds no images: give the raw stack, and the command files of the project "
        "(--newst-com newst.com --tilt-com tilt.com); or the aligned stack and its angles; or the folder alone"
    ),
}
_MOST_NAMES = 10_000


def what_else(path: Path) -> str:
    """What a path is, in a line that says what to do; an empty string for what may be an MRC file, or is not there."""
    if path.is_dir():
        return _folder(path)
    if not is_file(path):
        return ""
    if told := _ENDINGS.get(path.suffix.lower()):
        return f"{path} {told}"
    try:
        with path.open("rb") as stream:
            beginning = stream.read(8)
    except OSError:
        return ""
    return of_other_kind(path, beginning)


def _folder(path: Path) -> str:
    if path.suffix.lower() == ".zarr":
        return f"{path} is an OME-Zarr folder, but images are read from MRC files: convert it to one stack (.mrc)"
    try:
        names = [name for name, _ in zip(path.iterdir(), range(_MOST_NAMES), strict=False)]
    except OSError:
        return ""
    images = [name for name in names if name.suffix.lower() in ENDINGS]
    if not images:
        return ""
    return (
        f"{path} is a folder of {len(images)} TIFF files, but images are read from MRC files: make one stack of them, "
        f"in the order of the angles (IMOD: tif2mrc {path.name}/*{images[0].suffix} {path.stem}.mrc)"
    )
