"""What the command line has to know of a denoiser before anything is imported for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryolithe.denoising.method import Method


@dataclass(frozen=True)
class Option:
    """A choice that not every denoiser has: a field of its job, and a flag of the command.

    Attributes:
        name: of the field; ``keep_low`` is ``--keep-low``.
        kind: int, float, Path, bool (``--keep-low/--no-keep-low``, or a mere flag if the default is False), or names
            to choose from.
        text: help.
        default: None leaves the choice to the method.
        least: smallest value of a number.
        metavar: what the help calls the value.
    """

    name: str
    kind: type[int] | type[float] | type[Path] | type[bool] | tuple[str, ...]
    text: str
    default: Any = None
    least: int | None = None
    metavar: str | None = None

    @property
    def flag(self) -> str:
        """As users type it; a field that would be a word of Python ends in ``_``."""
        return "--" + self.name.rstrip("_").replace("_", "-")


@dataclass(frozen=True)
class Entry:
    """A denoiser.

    Attributes:
        name: of ``--method``, and what the names of its outputs end in.
        options: that it has and not every denoiser.
        load: imports it.
        of_halves: whether it learns from two halves; else from the volume alone.
        distributed: whether several processes of torchrun can train together.
    """

    name: str
    options: tuple[Option, ...]
    load: Callable[[], Method[Any, Any, Any]]
    of_halves: bool = False
    distributed: bool = False

    @property
    def option_names(self) -> frozenset[str]:
        """Names of its own options."""
        return frozenset(option.name for option in self.options)
