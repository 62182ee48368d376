"""Tables that grow by rows, and TensorBoard's curves: what any training leaves to look at."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryolithe.errors import OutputError


class Table:
    """A CSV file that grows by rows; a resumed run drops rows from after the step that it goes on from.

    Args:
        path: of the file.
        fields: of a row; the first one is the step.
        last_step: rows of later steps are dropped.
    """

    def __init__(self, path: Path, fields: Sequence[str], last_step: int) -> None:
        self.path = path
        kept = []
        if last_step and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in list(csv.reader(file))[1:] if row and int(row[0]) <= last_step]
        self._append("w", [list(fields), *kept])

    def add(self, row: Sequence[Any]) -> None:
        """Write a row at once: what a run has told is not lost with it."""
        self._append("a", [[f"{v:.6g}" if isinstance(v, float) else v for v in row]])

    def rows(self) -> list[dict[str, str]]:
        """All rows so far."""
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _append(self, mode: str, rows: Sequence[Sequence[Any]]) -> None:
        try:
            with self.path.open(mode, newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error


class Events:
    """TensorBoard's event files, or nothing where TensorBoard is not installed.

    Args:
        folder: for the event files.
    """

    def __init__(self, folder: Path) -> None:
        self.writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.writer = SummaryWriter(str(folder))

    def step(self, step: int, values: dict[str, float]) -> None:
        """Curves of the training."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        """Write what is pending."""
        if self.writer is not None:
            self.writer.close()
