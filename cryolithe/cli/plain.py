"""Text for a terminal: names of files may hold anything, and must neither break a line nor command the terminal."""

from __future__ import annotations

import click


def plain(text: str) -> str:
    r"""Escape what cannot be printed, line ends apart.

    >>> plain("a\x1b[31m\udcff")
    'a\\x1b[31m\\udcff'
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def say(text: str, err: bool = False) -> None:
    """Print text that may hold names of files."""
    click.echo(plain(text), err=err)
