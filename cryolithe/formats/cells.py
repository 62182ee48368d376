"""Numbers that files may tell beside what they are read for: told, not told, or there but not to be read."""

from __future__ import annotations

from pathlib import Path

from cryolithe.errors import FileFormatError
from cryolithe.formats.files import finite_numbers, printable

# What programs write where they know nothing, without a sign: RELION, gemmi, starfile, Warp, C, spreadsheets.
_NOTHING = ("", "none", "null", "<null>", "nan", "nan(ind)", "<na>", "na", "n/a", "?", ".")


class UnreadableCellError(FileFormatError):
    """A file tells something where its number cannot be read."""


def told_number(path: Path, name: str, text: str | None) -> float | None:
    """The number that a cell or key tells; None where it tells nothing.

    Raises:
        UnreadableCellError: if it holds anything else, such as a decimal comma.
    """
    if text is None or text.strip().lower().removeprefix("-") in _NOTHING:
        return None
    values = finite_numbers((text,))
    if values is None:
        raise UnreadableCellError(
            f"{path}: expected a number for {name}, found '{printable(text)[:40]}'; mend the file"
        )
    return values[0]


def told_numbers(path: Path, name: str, texts: list[str]) -> list[float]:
    """The numbers of a column or list; none where it tells nothing.

    Raises:
        UnreadableCellError: if it holds anything else, or tells the numbers of some images only.
    """
    values = [told_number(path, name, text) for text in texts]
    told = [value for value in values if value is not None]
    if told and len(told) < len(values):
        raise UnreadableCellError(
            f"{path}: {name} is told for {len(told)} of {len(values)} images; expected all of them, or none"
        )
    return told
