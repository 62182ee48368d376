"""Markdown with short lines says what it said."""

import sys

import numpy as np
import pytest
from pages import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from wrap import WIDTH, wrapped

ODD = [
    "-",
    "+",
    "#",
    "1.",
    "23)",
    "|",
    ">",
    "`a b`",
    "[two words](docs/a.md#b)",
    "(`x y z`,",
    "é",
    "−3",
    "word",
    "longer_word",
]


def text_of_words(seed, start, number=120):
    rng = np.random.default_rng(seed)
    return start + " ".join(["start", *rng.choice(ODD, number)])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("start", ["", "- ", "12. ", "  * "])
def test_only_white_space_changes_and_no_line_becomes_something_else(seed, start):
    text = text_of_words(seed, start)
    made = wrapped(text)
    assert made.split() == text.split()
    assert wrapped(made) == made
    first, *others = made.split("\n")
    assert first.startswith(start)
    assert others
    for line in others:
        assert line.startswith(" " * len(start))
        assert line.split()[0] not in {"-", "+", "#", "1.", "23)", "|", ">"}
        assert line.count("`") % 2 == 0
        assert line.count("](") == line.count("](docs/a.md#b)")
        assert len(line) <= WIDTH + 30  # of words that nothing may separate


def test_tables_code_headings_and_short_paragraphs_stay():
    long = "word " * 40
    kept = f"# {long}\n\n| {long} | b |\n|---|---|\n\n```sh\n{long}\n```\n\na\nb\n\n    {long}\n\n![{long}](a.png)\n"
    assert wrapped(kept) == kept


def test_paragraphs_are_wrapped_beside_lists_and_tables():
    long = ("word " * 40).strip()
    made = wrapped(f"{long}\n- {long}\n- b\n| a |\n{long}").split("\n")
    assert max(map(len, made)) <= WIDTH
    assert made.index("- b") + 1 == made.index("| a |")
    assert made.count(made[0]) == 2
