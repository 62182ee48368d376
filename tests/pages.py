"""Pages of documentation as tests see them: their blocks, the commands in these, and what pages link to."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from cryolithe.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("**/*.md"))]


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def text_of(page):
    return page.read_text(encoding="utf-8")


def joined_of(page):
    """Text in which commands that go on after a backslash stand in one line."""
    return re.sub(r" *\\\n\s*", " ", text_of(page))


def blocks_of(page):
    """Lines of each fenced block, and of each block that is indented."""
    text = joined_of(page)
    fenced = [block.splitlines() for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.M | re.S)]
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [*fenced, *([line.strip()] for line in rest.splitlines() if line.startswith("    "))]


def command_of(line):
    """The words after `cryolithe`, or None; what is told after three blanks or a # is no part of a command."""
    line = re.split(r"\s{3,}", line.removeprefix("$ ").strip())[0]
    return shlex.split(line, comments=True)[1:] if line.startswith("cryolithe ") else None


def commands_of(page):
    """Words of every command of a page, in order."""
    return [words for block in blocks_of(page) for line in block if (words := command_of(line))]


def shown_of(page):
    """(words, lines shown below) of every command in the blocks of a session."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", joined_of(page), re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((command_of(line), []))
            elif found:
                found[-1][1].append(line)
    return [(words, lines) for words, lines in found if words]


def shown_pattern(line):
    """What a shown line must look like: its words as they stand, any number for a number, anything for `...`."""
    parts = re.split(r"(\.\.\.$|-?<?\d+(?:\.\d+)?|\s+)", line)
    odd = {True: r"-?[<>]?[\d.e-]+", False: r"\s+"}
    return "".join(
        re.escape(part) if n % 2 == 0 else ".*" if part == "..." else odd[bool(part.strip())]
        for n, part in enumerate(parts)
    )


def parse(words):
    """Let click look at a command's words, without running it."""
    group, rest = main, words
    while isinstance(group, click.Group):
        group, rest = group.get_command(click.Context(group), rest[0]), rest[1:]
        assert group is not None, words
    group.make_context(words[0], list(rest))


def anchor_of(heading):
    """The anchor of a heading, as GitHub makes it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors_of(page):
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)
    return {anchor_of(heading) for heading in re.findall(r"^#+ (.+)$", text, re.M)}


def links_of(page):
    """(file, anchor) of every link that is no address."""
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)
    found = re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)", text)
    return [((page.parent / path).resolve() if path else page, anchor) for path, anchor in found if "://" not in path]
