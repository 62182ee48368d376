"""Tables of STAR files, read through the gemmi library: every value is the text that stands there.

A name such as 00255 stays one, whatever columns hold numbers. What other programs write and the library refuses is
allowed: values that start with a bracket (RELION's lists of visible frames), blanks in the name of a block, and blocks
or columns named alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import FileFormatError
from cryolithe.formats.files import PathLike, printable, read_text

LIMIT_BYTES = 100_000_000
# What is quoted already, or a comment; then bare values that the library takes for syntax.
_BARE_BRACKETS = re.compile(r"""(?<!\S)(?:("[^\n]*?"(?!\S)|'[^\n]*?'(?!\S)|\#[^\n]*)|([\[\]$][^\s"]*(?!\S)))""")

_BLOCK = re.compile(r"^data_[^\n#]*", re.MULTILINE)


class StarTable:
    """A table of a STAR file; names of columns are without their underscore."""

    def __init__(self, path: Path, block: str, columns: dict[str, Sequence[str]]) -> None:
        self.path, self.block, self._columns = path, block, columns

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._columns)

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()), ()))

    def text(self, name: str) -> list[str]:
        """The values of a column, without quotes.

        Raises:
            FileFormatError: if there is no such column.
        """
        if name not in self._columns:
            raise FileFormatError(f"{self.path} has no column {name}; found {', '.join(self.names)[:120]}")
        return [_plain(value) for value in self._columns[name]]

    def value(self, name: str, row: int) -> str:
        """One value, without quotes."""
        return _plain(self._columns[name][row])

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The values of a column as finite numbers.

        Raises:
            FileFormatError: if there is no such column, or a value is no finite number.
        """
        words = self.text(name)
        try:
            values = np.array(words, dtype=np.float64)
        except ValueError as error:
            raise FileFormatError(
                f"{self.path}: {name} holds what is no number: {printable(str(error))[:80]}"
            ) from error
        if not np.isfinite(values).all():
            raise FileFormatError(f"{self.path}: {name} holds a value that is not finite")
        return values


def read_star(path: PathLike, limit_bytes: int = LIMIT_BYTES) -> list[StarTable]:
    """The tables of a STAR file, in its order; names and values of a block are a table of one row.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is no STAR file.
    """
    path = Path(path)
    tables = []
    for block in star_document(path, limit_bytes):
        pairs: dict[str, Sequence[str]] = {}
        for item in block:
            if item.pair is not None:
                pairs.setdefault(item.pair[0].lstrip("_"), (item.pair[1],))
            elif item.loop is not None:
                tags = list(item.loop.tags)
                values = item.loop.values
                columns: dict[str, Sequence[str]] = {}
                for number, tag in enumerate(tags):  # the first of columns named alike
                    columns.setdefault(tag.lstrip("_"), values[number :: len(tags)])
                tables.append(StarTable(path, block.name.strip(), columns))
        if pairs:
            tables.append(StarTable(path, block.name.strip(), pairs))
    return tables


def star_document(path: Path, limit_bytes: int) -> Any:
    """A STAR file as the library has it, for writing it again.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is no STAR file.
    """
    from gemmi import cif

    text = read_text(path, "a STAR file", limit_bytes)
    document = cif.Document()
    try:
        text = _BLOCK.sub(lambda block: "_".join(block.group().split()), _BARE_BRACKETS.sub(_in_quotes, text))
        document.parse_string(text)  # read_string refuses what is named alike
    except (ValueError, RuntimeError) as error:
        raise FileFormatError(f"{path} is not a STAR file: {printable(str(error))[:160]}") from error
    return document


def _in_quotes(found: re.Match[str]) -> str:
    return found.group(1) or f'"{found.group(2)}"'


def _plain(value: str) -> str:
    """A value without the quotes around it."""
    from gemmi import cif

    return str(cif.as_string(value)) if value[:1] in "'\";" else value
