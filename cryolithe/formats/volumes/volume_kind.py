"""Is it a volume or a stack of tilt images? One answer for every command, with its reason.

The header alone cannot say: IMOD writes space group 0 into volumes and stacks alike, and many programs mark stacks as
volumes. What else is known is asked in this order: the record that this program wrote beside a volume, the ending,
the angles that lie beside a stack of the same name (as many as it has sections), the name, the header's labels, its
space group; and for what is then still unknown any angle file of the folder with as many angles as there are sections.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryolithe.errors import InputError
from cryolithe.files.names import is_file
from cryolithe.formats.record import part_of, read_record_beside, record_path
from cryolithe.formats.series_names import without_half
from cryolithe.formats.stacks.angles import read_angles_of
from cryolithe.formats.volumes.axes import Axes, stored_axes

Content = Literal["volume", "stack", "unknown"]

VOLUME_ENDINGS = (".rec", ".map")
STACK_ENDINGS = (".st", ".ali", ".mrcs", ".preali")
_STACK_NAME = re.compile(r"[_.-](st|ali|aligned|preali|newst|tilts|stack)$", re.IGNORECASE)
_VOLUME_NAME = re.compile(
    r"^rec_|[_.-](rec|full_rec|vol|tomo|tomogram|fbp|sirt|samba|n2n|denoised|den)$", re.IGNORECASE
)
# What IMOD's tilt and this program write into the headers of volumes.
_VOLUME_LABEL = re.compile(
    r"TILT: Tomographic reconstruction|"
    r"CryoLithe \S+ (model |fbp |sirt |samba |n2n |average of |agreement of |local corr)"
)
# What maps have in theirs: those of --confidence, of two halves, and of `cryolithe evaluate`.
_MAP_LABEL = re.compile(
    r"CryoLithe \S+ (expected correlation with |expected error, |share not held by |local correlation of |"
    r"agreement of halves)"
)
_MAP_KINDS = ("confidence", "error", "unsupported")
_ANGLE_ENDINGS = (".tlt", ".rawtlt", ".mdoc", "_TLT.txt")
_MOST_ANGLE_FILES = 32
_COMPRESSED = (".gz", ".bz2")


@dataclass(frozen=True)
class Told:
    """What is known of a file.

    Attributes:
        content: volume, stack of images, or unknown.
        reason: in words that follow "because".
    """

    content: Content
    reason: str


@dataclass(frozen=True)
class Seen:
    """What a file itself says.

    Attributes:
        path: its name.
        shape: ``(sections, y, x)``.
        space_group: of an MRC header; None for other files.
        mz: sections of the header's cell, as above.
        labels: of the header.
    """

    path: Path
    shape: tuple[int, int, int]
    space_group: int | None = None
    mz: int | None = None
    labels: tuple[str, ...] = ()


def volume_or_stack(seen: Seen) -> Told:
    """Decide whether a file holds a volume or a stack of images; reads angle files beside it."""
    for ask in (_by_record_and_ending, _by_angles, _by_name, _by_header):
        if told := ask(seen):
            return told
    if angles := _angles_of_same_count(seen):
        return Told("stack", f"{angles.name} in its folder holds {seen.shape[0]} tilt angles, as many as its sections")
    if seen.space_group is None:
        return Told("unknown", "files of its kind do not say")
    return Told("unknown", f"its header does not say (space group {seen.space_group}, mz {seen.mz})")


def _by_record_and_ending(seen: Seen) -> Told | None:
    if read_record_beside(seen.path):
        return Told("volume", f"{record_path(seen.path).name} beside it is the record of a volume")
    ending = plain_name(seen.path).suffix.lower()
    if ending in VOLUME_ENDINGS:
        return Told("volume", f"its name ends in {ending}")
    return Told("stack", f"its name ends in {ending}") if ending in STACK_ENDINGS else None


def _by_angles(seen: Seen) -> Told | None:
    angles = _angles_of_same_name(seen)
    if angles is None:
        return None
    return Told("stack", f"{angles.name} beside it holds {seen.shape[0]} tilt angles, one for each of its sections")


def _by_name(seen: Seen) -> Told | None:
    stem = plain_name(seen.path).stem
    if found := _STACK_NAME.search(stem):
        return Told("stack", f"its name ends in {found[0]}")
    return Told("volume", "its name is that of a reconstruction") if _VOLUME_NAME.search(stem) else None


def _by_header(seen: Seen) -> Told | None:
    if any(_VOLUME_LABEL.match(label) for label in seen.labels):
        return Told("volume", "its header's labels name the program that reconstructed it")
    if seen.space_group is not None and seen.space_group > 0:
        return Told("volume", f"its header has the space group {seen.space_group}")
    if seen.space_group == 0 and seen.mz == 1 and seen.shape[0] > 1:
        return Told("stack", "its header marks it as an image stack (space group 0, mz 1)")
    return None


def plain_name(path: Path) -> Path:
    """A path without an ending of compression."""
    for ending in _COMPRESSED:
        if path.name.endswith(ending):
            return path.with_name(path.name.removesuffix(ending))
    return path


def is_map(path: Path, labels: tuple[str, ...]) -> bool:
    """Whether a file is a map of how far a volume can be trusted, not a volume.

    Args:
        path: its name.
        labels: of its header; where its kind has none, the record of the volume that it lies beside tells.
    """
    if labels:
        return any(_MAP_LABEL.match(label) for label in labels)
    return bool(_record_of_volume(path))


def axes_of(path: Path, shape: tuple[int, ...], extremes: tuple[float, float] | None) -> Axes:
    """The order of the axes of a volume's file, or of a map's, which lies as the volume that it belongs to does.

    Args:
        path: of the file.
        shape: as stored.
        extremes: smallest and largest value as its header tells them; None where it does not.
    """
    if own := read_record_beside(path):
        return stored_axes(own, shape, extremes)
    return stored_axes(_record_of_volume(path), shape)  # whose extremes are not those of its map


def record_for(path: Path) -> dict[str, Any]:
    """The record beside a file, or that of the volume that a map belongs to; empty where there is none."""
    return read_record_beside(path) or _record_of_volume(path)


def _record_of_volume(path: Path) -> dict[str, Any]:
    """The record of the volume whose map a file is; empty for what is none."""
    stem, _, kind = path.stem.rpartition("_")
    if not stem or kind not in _MAP_KINDS:
        return {}
    record = read_record_beside(path.with_name(f"{stem}{path.suffix}"))
    told = part_of(record, "confidence")
    entry = part_of(told, "maps", kind) if "maps" in told else told  # of two halves it is one
    return record if entry.get("path") == path.name else {}


def refuse_map(path: Path, labels: tuple[str, ...]) -> None:
    """Refuse a map where a volume is wanted.

    Raises:
        InputError: says what to give.
    """
    if is_map(path, labels):
        raise InputError(
            f"{path} is a map that tells how far a volume can be trusted, no volume; give the volume that it belongs to"
        )


def angles_beside(seen: Seen) -> Path | None:
    """The angle file that lies beside a stack, with one angle for each section: of its name, else any of the folder."""
    return _angles_of_same_name(seen) or _angles_of_same_count(seen)


def _angles_of_same_name(seen: Seen) -> Path | None:
    """The angle file of a stack of this name, if it has one angle for each section."""
    name = plain_name(seen.path)
    base = without_half(name.stem)
    names = dict.fromkeys(
        [f"{name.name}.mdoc", *(f"{stem}{ending}" for stem in (name.stem, base) for ending in _ANGLE_ENDINGS)]
    )
    return next((path for n in names if _has_count(path := name.with_name(n), seen.shape[0])), None)


def _angles_of_same_count(seen: Seen) -> Path | None:
    """An angle file of the folder with one angle for each section."""
    try:
        files = sorted(path for path in seen.path.parent.iterdir() if path.name.endswith(_ANGLE_ENDINGS))
    except OSError:
        return None
    return next((path for path in files[:_MOST_ANGLE_FILES] if _has_count(path, seen.shape[0])), None)


def _has_count(path: Path, sections: int) -> bool:
    if sections < 2 or not is_file(path):
        return False
    try:
        return len(read_angles_of(path, sections)) == sections
    except InputError:
        return False
