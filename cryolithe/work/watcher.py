"""Who is told how far a work is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol


class Watcher(Protocol):
    """Who is told how far a run is."""

    def stage(self, name: str, total: float) -> None:
        """A stage of ``total`` units begins."""
        ...

    def advance(self, amount: float) -> None:
        """Units of the stage are done."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know."""
        ...


WARNING = "Warning: "  # how a note begins that is one


class Silent:
    """For processes that are not the first."""

    def stage(self, name: str, total: float) -> None:
        """Nothing."""

    def advance(self, amount: float) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class Logged(Silent):
    """Notes end in a log, for workers that nobody sees.

    Args:
        name: of the logger.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def note(self, text: str) -> None:
        """Into the log."""
        logging.getLogger(self._name).info("cryolithe: %s", text)


class Listening:
    """Passes everything on, and keeps the warnings: they are told once, but a record is read later.

    Args:
        watcher: who is told.
        before: warnings that were told already, and belong to this record too.

    Attributes:
        warnings: what was wrong, without the word "Warning", each once.
    """

    def __init__(self, watcher: Watcher, before: Sequence[str] = ()) -> None:
        self._watcher = watcher
        self.warnings: list[str] = list(before)

    def stage(self, name: str, total: float) -> None:
        """Passed on."""
        self._watcher.stage(name, total)

    def advance(self, amount: float) -> None:
        """Passed on."""
        self._watcher.advance(amount)

    def note(self, text: str) -> None:
        """Passed on, and kept if it is a warning."""
        self._watcher.note(text)
        told = text.removeprefix(WARNING)
        if told != text and told not in self.warnings:
            self.warnings.append(told)
