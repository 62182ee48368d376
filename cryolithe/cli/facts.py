"""What ``cryolithe info`` says about a file: entries for programs and for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


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
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
