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


def alignment_facts(
    kind: str, alignment: Alignment, image_shape: tuple[int, int] | None = None, local: Fact | None = None
) -> list[Fact]:
    """What an alignment says, whatever its format.

    Args:
        kind: of file.
        alignment: that it holds.
        image_shape: pixels ``(y, x)`` of an image, for which the largest local shift is told; None where unknown.
        local: what is said of local shifts instead.
    """
    angles = [image.angle_deg for image in alignment.images]
    left_out = [section + 1 for section in alignment.excluded]
    return [
        Fact("kind", kind),
        Fact("images", len(alignment.images), f"{len(alignment.images)} used of {alignment.sections}"),
        Fact("left_out", left_out, ", ".join(map(str, left_out)) or "none"),
        range_fact(angles),
        Fact("tilt_axis_deg", alignment.axis_deg, f"{alignment.axis_deg:.2f}°"),
        local or _local_fact(alignment, image_shape),
        Fact("notes", list(alignment.notes)),
    ]


def _local_fact(alignment: Alignment, image_shape: tuple[int, int] | None) -> Fact:
    bent = sum(image.bend is not None for image in alignment.images)
    return local_fact(bent, largest_bend_px(alignment, image_shape) if bent and image_shape else None)


def local_fact(images: int, largest_px: float | None = None, also: str = "", unit: str = "pixels") -> Fact:
    """What is said of a local alignment.

    Args:
        images: that it bends.
        largest_px: the largest shift, or None.
        also: for people.
        unit: of that shift: pixels, or Å.
    """
    value: dict[str, Any] = {"images": images, "largest_px": largest_px if unit == "pixels" else None}
    if unit != "pixels":
        value["largest_angstrom"] = largest_px
    up_to = "" if largest_px is None else f", up to {largest_px:.2f} {unit}"
    more = f" ({also})" if also else ""
    return Fact("local_shifts", value, (f"in {images} images{up_to}" if images else "none") + more)
