"""Who is told how far a work is."""

from __future__ import annotations

import logging
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
