"""What ``cryolithe info`` says of what commands leave beside results: pictures, pages, tables, folders of runs."""

from __future__ import annotations

import html
import json
import re
import struct
from pathlib import Path
from typing import Any

from cryolithe.errors import FileFormatError, InputError
from cryolithe.files.names import exists
from cryolithe.formats.facts import Fact
from cryolithe.formats.files import read_text, unreadable

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD_BYTES = 24  # signature, and the first chunk up to width and height
_MOST_PAGE_BYTES = 500_000_000  # pictures are within
_MOST_RECORD_BYTES = 50_000_000
_TITLE = re.compile(r"<title>([^<]*)</title>", re.IGNORECASE)
_STRANGE = "not one of this program's"
# Folders beside an output: by ending, what all of them hold one of, and what they are.
_FOLDERS = {
    ".run": (("state.safetensors", "config.json"), "folder of a training: its state, by which it goes on, and tables"),
    ".work": (("journal.jsonl",), "working folder of a comparison: volumes that it made, for when it is run again"),
}  # fmt: skip


def picture_facts(path: Path) -> list[Fact]:
    """A picture, and the record beside it.

    Raises:
        InputError: if it cannot be read, or is no PNG file.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_PNG_HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(head) < _PNG_HEAD_BYTES and _PNG.startswith(head[: len(_PNG)]):
        raise FileFormatError(
            f"{path} ends after {len(head)} bytes; expected at least the {_PNG_HEAD_BYTES} with the size of a PNG "
            "picture; make or copy it again"
        )
    if not head.startswith(_PNG):
        raise FileFormatError(f"{path} is no PNG file, which its name says; expected its first 8 bytes; is it damaged?")
    width, height = struct.unpack(">II", head[16:24])
    return [
        Fact("kind", "picture (PNG)"),
        Fact("pixels", [width, height], f"{width} x {height} (x, y)"),
        *made_facts(path),
    ]


def page_facts(path: Path) -> list[Fact]:
    """A page, by its title, and the record beside it.

    Raises:
        InputError: if it cannot be read.
    """
    title = _TITLE.search(read_text(path, "a page", _MOST_PAGE_BYTES))
    told = html.unescape(" ".join(title[1].split())) if title else ""
    return [Fact("kind", "page (HTML)"), Fact("title", told, told or "none"), *made_facts(path)]


def run_facts(path: Path) -> list[Fact]:
    """A folder that a command leaves beside its output; empty for others."""
    signs, kind = _FOLDERS.get(path.suffix.lower(), ((), ""))
    if not any((path / name).is_file() for name in signs):
        return []
    names = sorted(one.name for one in path.iterdir())
    return [Fact("kind", kind), Fact("content", names, ", ".join(names)), *made_facts(path)]


def made_facts(path: Path) -> list[Fact]:
    """What this program's record beside an output tells; empty where there is none."""
    record = path.with_suffix(".json")
    if not exists(record):
        return []
    try:
        content = json.loads(read_text(record, "a JSON file", _MOST_RECORD_BYTES))
    except (InputError, ValueError, RecursionError):
        return []
    told = record_told(record, content) if isinstance(content, dict) else _STRANGE
    return [] if told == _STRANGE else [Fact("record", f"{record.name}: {told}")]


def record_told(path: Path, content: dict[str, Any]) -> str:
    """What a JSON file of this program tells of.

    Args:
        path: of the file.
        content: of it.
    """
    volume, method = content.get("volume"), content.get("method")
    if isinstance(volume, dict) and volume.get("path"):
        name = f" by {method['name']}" if isinstance(method, dict) and method.get("name") else ""
        made = " (average of halves)" if content.get("halves") else ""
        there = "" if exists(path.parent / str(volume["path"])) else ", which is not beside it"
        return f"how the volume {volume['path']}{made} was made{name}{there}"
    kinds = {"evaluation": "numbers of cryolithe evaluate", "fsc": "numbers of cryolithe fsc"}
    kinds |= {"comparison": "numbers of cryolithe compare", "scores": "numbers of cryolithe score"}
    kinds |= {"findings": "findings of cryolithe doctor"}
    return next((text for key, text in kinds.items() if key in content), _STRANGE)
