"""What editors and other systems do to text files changes nothing of what is read: line ends, marks, blanks at ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command import call, good, refusal_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from fuzzing.parsers import PARSERS

TEXTS = ("com", "star", "xml", "aln", "xf", "mdoc", "angles", "text", "list")
KINDS = {one.name: one for one in PARSERS if one.name in {f"info: {text}" for text in TEXTS}}
VARIANTS = {
    "line ends of Windows": lambda text: text.replace(b"\n", b"\r\n"),
    "line ends of old Macintoshes": lambda text: text.replace(b"\n", b"\r"),
    "mark of UTF-8": lambda text: b"\xef\xbb\xbf" + text,
    "both": lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"),
    "blanks at line ends": lambda text: text.replace(b"\n", b"  \t\n"),
    "no last line end": lambda text: text.rstrip(b"\n"),
    "empty lines at the end": lambda text: text + b"\n\n",
}


def facts(path):
    """What ``cryolithe info`` tells of a file, without its size."""
    result = good("info", path, "--json")
    (found,) = json.loads(result.stdout)
    return {name: value for name, value in found.items() if "size" not in name}


def test_all_kinds_of_texts_are_tried():
    assert len(KINDS) == len(TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_variant_of_a_text_reads_as_the_text(name, tmp_path):
    kind = KINDS[name]
    for seed in kind.seeds(tmp_path):
        path = tmp_path / f"input{kind.ending}"
        path.write_bytes(seed)
        plain = facts(path)
        for how, vary in VARIANTS.items():
            path.write_bytes(vary(seed))
            assert facts(path) == plain, how


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_text_of_two_bytes_a_letter_is_refused_in_one_line(name, tmp_path):
    """As some editors of Windows save it ("Unicode")."""
    kind = KINDS[name]
    path = tmp_path / f"input{kind.ending}"
    path.write_bytes(kind.seeds(tmp_path)[0].decode().encode("utf-16"))
    refusal_of(call("info", path))
