"""`SeriesEntry`: one tilt series of a session, whatever named it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SeriesEntry:
    """One row of a list, of a table, or what a folder holds of a series.

    Attributes:
        line: its line number in the file, from 1.
        tilts: the stack.
        angles: the angle file.
        output: the volume to write, or None for the default name.
        settings: the row's other cells that are not empty, by column name; not checked here.
        name: what the series is called where its stack's file name does not say it (a STAR file's tomograms).
        problem: why it cannot be reconstructed, in a line for the user; empty where nothing is known against it.
        depth_px: of the volume along z, in pixels of the stack, where the list's format tells it.
        unreadable: what the list tells of settings that cannot be read, by setting: a problem, unless something else
            tells them.
        unaligned: why it looks like a raw stack whose alignment has not come, as a sentence's part; else empty.
        unused: names of stacks of the same series that are not taken.
        decimal_comma: whether a comma in a number stands for a decimal point: in a list that parts its cells otherwise.
    """

    line: int
    tilts: Path
    angles: Path | None
    output: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)
    name: str = ""
    problem: str = ""
    depth_px: float | None = None
    unused: str = ""
    unreadable: dict[str, str] = field(default_factory=dict)
    unaligned: str = ""
    decimal_comma: bool = field(default=False, compare=False)
