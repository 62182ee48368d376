"""Wrap paragraphs and list items of markdown that have a line of more than 120 characters: wrap.py FILE ...

Only white space changes. Tables, code, headings and links stay as they are, and so does a paragraph of short lines.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

WIDTH = 120
LONGEST_CODE = 100  # what is longer is broken too: the end of a line is a space, in code as well
ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
ALONE = ("|", "#", "<", ">", "!")  # lines that are no part of a paragraph begin so
# What stays in one piece: code and links, with what touches them; else a word.
WORD = re.compile(r"(?:`[^`]*`|\]\([^)]*\)|\S)+")
STARTS_SOMETHING = re.compile(r"(?:[-*+=]+|\d+[.)]|~+)$|[#|<>!]|```")


def _words(text: str) -> list[str]:
    """What is not broken: words, code, links; with each what would begin a list or heading at the start of a line."""
    words: list[str] = []
    for found in WORD.finditer(text):
        whole = " ".join(found.group().split())
        for word in whole.split() if len(whole) > LONGEST_CODE else [whole]:
            if words and STARTS_SOMETHING.match(word):
                words[-1] += f" {word}"
            else:
                words.append(word)
    return words


def fill(text: str, first: str, rest: str) -> list[str]:
    """Lines of a paragraph.

    Args:
        text: its words.
        first: what its first line begins with.
        rest: what the others begin with.
    """
    start, *words = _words(text)
    lines = [first + start]
    for word in words:
        if len(lines[-1]) + 1 + len(word) <= WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(rest + word)
    return lines


def _blocks(lines: list[str]) -> Iterator[tuple[bool, list[str]]]:
    """Runs of lines, and whether each is a paragraph or an item of a list."""
    block: list[str] = []
    code = False
    for line in lines:
        fence, indented = line.lstrip().startswith("```"), line.startswith("    ") and not block
        if code or fence or indented or not line.strip() or line.lstrip().startswith(ALONE):
            if block:
                yield True, block
            block, code = [], code != fence
            yield False, [line]
        elif ITEM.match(line) and block:
            yield True, block
            block = [line]
        else:
            block.append(line)
    if block:
        yield True, block


def wrapped(text: str) -> str:
    """Markdown with short lines.

    >>> print(wrapped("- " + "word " * 25 + "`some code`"))
    - word word word word word word word word word word word word word word word word word word word word word word word
      word word `some code`
    """
    made: list[str] = []
    for paragraph, lines in _blocks(text.split("\n")):
        if not paragraph or all(len(line) <= WIDTH for line in lines) or any(line.endswith("  ") for line in lines):
            made += lines
            continue
        item = ITEM.match(lines[0])
        first = item.group() if item else re.match(r"\s*", lines[0]).group()  # type: ignore[union-attr]
        made += fill(" ".join(lines)[len(first) :], first, " " * len(first))
    return "\n".join(made)


def main() -> None:
    """Wrap files in place."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("files", nargs="+", type=Path)
    for path in options.parse_args().files:
        text = path.read_text(encoding="utf-8")
        short = wrapped(text)
        if short != text:
            path.write_text(short, encoding="utf-8")
            print(f"{path}: wrapped")


if __name__ == "__main__":
    main()
