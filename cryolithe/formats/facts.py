"""What ``cryolithe info`` says about a file: entries for programs and for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryolithe.alignment import Alignment, largest_bend_px
from cryolithe.formats.sizes import size_told


@dataclass(frozen=True)
class Fact:
    """One entry of the answer: what a program reads, and the line or lines that a person reads instead."""

    name: str
    value: Any
    text: str | list[str] | None = None

    @property
    def title(self) -> str:
        """The name for people: their text carries the unit."""
        return re.sub("_(angstrom|deg|bytes)$", "", self.name).replace("_", " ")

    @property
    def lines(self) -> list[str]:
        """The text for people; empty for an empty list."""
        shown = self.value if self.text is None else self.text
        return [str(line) for line in shown] if isinstance(shown, list) else [str(shown)]


def bytes_text(size: int) -> str:
    """A number of bytes for people."""
    return size_told(size) if size >= 1e5 else f"{size} bytes"


def range_fact(angles: Sequence[float]) -> Fact:
    """Lowest and highest angle."""
    return Fact("range_deg", [min(angles), max(angles)], f"{min(angles):g}° to {max(angles):g}°")


def alignment_facts(kind: str, alignment: Alignment, image_shape: tuple[int, int] | None = None) -> list[Fact]:
    """What an alignment says, whatever its format; the largest local shift for images of a known shape ``(y, x)``."""
    angles = [image.angle_deg for image in alignment.images]
    left_out = [section + 1 for section in alignment.excluded]
    return [
        Fact("kind", kind),
        Fact("images", len(alignment.images), f"{len(alignment.images)} used of {alignment.sections}"),
        Fact("left_out", left_out, ", ".join(map(str, left_out)) or "none"),
        range_fact(angles),
        Fact("tilt_axis_deg", alignment.axis_deg, f"{alignment.axis_deg:.2f}°"),
        _local_fact(alignment, image_shape),
        Fact("notes", list(alignment.notes)),
    ]


def _local_fact(alignment: Alignment, image_shape: tuple[int, int] | None) -> Fact:
    bent = sum(image.bend is not None for image in alignment.images)
    largest = largest_bend_px(alignment, image_shape) if bent and image_shape else None
    up_to = "" if largest is None else f", up to {largest:.2f} pixels"
    text = f"in {bent} images{up_to}" if bent else "none"
    return Fact("local_shifts", {"images": bent, "largest_px": largest}, text)
