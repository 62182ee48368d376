"""What a function of the library hears from the engine: notes are kept, warnings become Python's."""

from __future__ import annotations

import warnings

from cryolithe.errors import CryoLitheWarning
from cryolithe.work.watcher import WARNING, Silent


class Heard(Silent):
    """Keeps what the command would print.

    Attributes:
        notes: what was assumed, in the order in which it was said.
        warnings: what is wrong.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        """Keep a line, which may be a warning."""
        kept = self.warnings if text.startswith(WARNING) else self.notes
        kept.append(text.removeprefix(WARNING))

    def warn(self) -> None:
        """Say the warnings to whoever called the library's function (which calls this, within `undisturbed`)."""
        for text in self.warnings:
            warnings.warn(text, CryoLitheWarning, stacklevel=4)
