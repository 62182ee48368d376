"""Which images was a volume made from? Its record decides; without one nobody knows, whatever the user says.

The record of a reconstruction lists the files it read (with hashes), the numbers of the images that it used, and their
angles. Images are recognised by their number where the stack is one of those files, or has as many images with these
angles; else by their angles, where each angle of the record is found among those of the stack.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cryolithe.errors import SettingsError
from cryolithe.files.hashing import file_sha256
from cryolithe.formats.record import part_of, z_reversed
from cryolithe.formats.series_names import is_other_half

# "seen": the volume was made from these images; "other frames": from other frames of the same tilts.
Use = Literal["held out", "seen", "other frames", "unknown"]

# For tables and captions: what the images are called, and what comparing them tells.
CALLED: dict[Use, str] = {
    "held out": "held-out images",
    "seen": "seen images",
    "other frames": "other frames of seen tilts",
    "unknown": "images (use unknown)",
}
TELLS: dict[Use, str] = {
    "held out": "not used for the volume",
    "seen": "consistency only: the volume was made from them",
    "other frames": "noise is independent, but the volume saw these tilts",
    "unknown": "not known whether the volume was made from them: no test of truth",
}

# Angles of a record and of a list differ by less where they are the same, rounded.
ROUNDED_DEG = 0.05
# Refined angles differ from those asked for by an offset of the whole series and little else.
REFINED_DEG = 1.0


@dataclass(frozen=True)
class Choice:
    """The images to compare with projections.

    Attributes:
        numbers: of the images, from 0.
        use: whether the volume was made from them.
        reason: how that is known, or why not.
        warning: what the user must know, or an empty string.
    """

    numbers: tuple[int, ...]
    use: Use
    reason: str
    warning: str = ""


@dataclass(frozen=True)
class Used:
    """What a record says of the images of a stack.

    Attributes:
        numbers: of those used, from 0; None where the record does not fit the stack.
        reason: in words.
        other_frames: the volume was made from the other half of the frames of these tilts.
    """

    numbers: frozenset[int] | None
    reason: str
    other_frames: bool = False


def choose_images(
    record: Mapping[str, Any], stack: Path | None, angles_deg: Sequence[float], named: Sequence[int]
) -> Choice:
    """Choose the images to compare, and say what is known of them.

    Args:
        record: of the volume; empty where there is none.
        stack: file of the images; None where they are in memory.
        angles_deg: of all images, as their file gives them.
        named: images that the user calls held out, from 0; empty for none.
    """
    used = used_images(record, stack, angles_deg)
    everything = tuple(range(len(angles_deg)))
    if used.numbers is None:
        numbers = tuple(named) or everything
        return Choice(numbers, "unknown", used.reason)
    if used.other_frames:
        return Choice(tuple(named) or everything, "other frames", used.reason)
    unused = tuple(n for n in named or everything if n not in used.numbers)
    wrong = [n + 1 for n in named if n in used.numbers]
    if wrong and not unused:
        warning = (
            f"--held-out names images that the volume was made from, as its record says ({_listed(wrong)}): the "
            "comparison tests consistency, not truth."
        )
        return Choice(tuple(named), "seen", used.reason, warning)
    if not unused:
        return Choice(everything, "seen", used.reason)
    warning = ""
    if wrong:
        warning = (
            f"--held-out names images that the volume was made from, as its record says: {_listed(wrong)} were left "
            "out of the comparison."
        )
    return Choice(unused, "held out", used.reason, warning)


def held_out_images(text: str, angles_deg: tuple[float, ...]) -> tuple[int, ...]:
    """Numbers (from 0) of the images that ``beyond 60`` or ``1,5,9-12`` (from 1) names.

    Raises:
        SettingsError: if the text names none, or all.
    """
    beyond = re.fullmatch(r"\s*beyond\s*[±]?\s*(\d+(?:\.\d*)?)\s*°?\s*", text)
    if beyond:
        chosen = {n for n, angle in enumerate(angles_deg) if abs(angle) > float(beyond[1])}
    elif re.fullmatch(r"\s*\d+(?:-\d+)?(?:\s*,\s*\d+(?:-\d+)?)*\s*", text):
        chosen = set()
        for part in text.split(","):
            first, _, last = part.strip().partition("-")
            chosen |= set(range(int(first) - 1, int(last or first)))
        if min(chosen, default=-1) < 0 or max(chosen) >= len(angles_deg):
            raise SettingsError(f"--held-out: expected images from 1 to {len(angles_deg)}, got '{text}'")
    else:
        raise SettingsError(f"--held-out: expected 'beyond 60' or image numbers such as 1,5,9-12, got '{text}'")
    if not chosen or len(chosen) == len(angles_deg):
        raise SettingsError(
            f"--held-out '{text}' names {len(chosen)} of {len(angles_deg)} images "
            f"({min(angles_deg):g}° to {max(angles_deg):g}°); expected some, but not all"
        )
    return tuple(sorted(chosen))


def used_images(record: Mapping[str, Any], stack: Path | None, angles_deg: Sequence[float]) -> Used:
    """Which images of a stack a volume was made from, as its record says."""
    if not record:
        return Used(None, "there is no record (.json) beside the volume")
    geometry = part_of(record, "geometry")
    recorded = _numbers(geometry.get("tilt_angles_deg"))
    if not recorded:
        return Used(None, "the volume's record lists no tilt angles")
    if z_reversed(record):
        recorded = [-angle for angle in recorded]
    sections = [int(n) - 1 for n in _numbers(geometry.get("sections"))]
    stacks = _stacks(record)
    indexed = len(sections) == len(recorded) and all(0 <= n < len(angles_deg) for n in sections)
    if indexed and stacks and stack is not None and file_sha256(stack) in {sha for _, sha in stacks}:
        return Used(frozenset(sections), "the volume's record names this very stack and the images used of it")
    shape = geometry.get("stack_shape")
    count = shape[0] if isinstance(shape, list) and shape else None
    if indexed and count == len(angles_deg) and _fit([angles_deg[n] for n in sections], recorded):
        if len(stacks) == 1 and stack is not None and is_other_half(Path(stacks[0][0]).name, stack.name):
            return Used(
                frozenset(sections), "the volume's record names the other half of these frames: its noise is another, "
                "its tilts are the same", other_frames=True,
            )  # fmt: skip
        return Used(frozenset(sections), "the stack has as many images, with the angles in the volume's record")
    nearest = [int(np.abs(np.asarray(angles_deg) - angle).argmin()) for angle in recorded]
    apart = max(abs(angles_deg[n] - angle) for n, angle in zip(nearest, recorded, strict=True))
    if apart > ROUNDED_DEG or len(set(nearest)) < len(nearest):
        return Used(
            None, f"the volume's record is of {len(recorded)} images whose angles are not those of this stack "
            f"({len(angles_deg)} images)",
        )  # fmt: skip
    return Used(frozenset(nearest), "the volume's record lists the angles of the images used")


def opposite_z(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether records tell that the z axes of two volumes run against each other; False where one tells nothing."""
    told = [part_of(record, "geometry") for record in (first, second)]
    if not all("handedness" in one for one in told) or z_reversed(first) == z_reversed(second):
        return False
    angles = [_numbers(one.get("tilt_angles_deg")) for one in told]
    # Angles of the other sign undo it; of a series that is symmetric and in the order of its tilts nothing can tell.
    return not (len(angles[0]) == len(angles[1]) > 1 and _fit(angles[0], angles[1]))


def _fit(given: list[float], recorded: list[float]) -> bool:
    """Whether angles are those of a record but for an offset and what refinement changed."""
    apart = np.asarray(given) - np.asarray(recorded)
    return bool(np.abs(apart - np.median(apart)).max() <= REFINED_DEG)


def _stacks(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Paths and hashes of the stacks that a volume was made from: one, or the two halves."""
    # A denoised volume's record carries what its input was made of.
    return [
        (str(entry.get("path")), str(entry.get("sha256")))
        for inputs in (part_of(record, "inputs"), part_of(record, "source", "inputs"))
        for name, entry in inputs.items()
        if isinstance(entry, Mapping) and name in ("tilts", "even tilts", "odd tilts")
    ]


def _numbers(values: Any) -> list[float]:
    usable = isinstance(values, list) and all(isinstance(v, int | float) and np.isfinite(v) for v in values)
    return [float(v) for v in values] if usable else []


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:12])) + (f" and {len(numbers) - 12} more" if len(numbers) > 12 else "")
