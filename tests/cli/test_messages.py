"""No message of an error breaks its line, steers the terminal, or fills the screen with what a file holds."""

from __future__ import annotations

import copy

import pytest
from command import call

from cryolithe import errors
from cryolithe.errors import MOST_CHARACTERS, CryoLitheError, CryoLitheWarning

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, CryoLitheError | CryoLitheWarning)
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", ["x" * 1_000_000, "\n" * 5000, "\x1b[2J" * 900, "\u2028\r\v\x85\ud800", "é" * 3000])
def test_any_message_is_one_short_line(kind, content):
    text = str(kind(f"ts.mdoc holds '{content}'; give another file"))
    assert len(text) <= MOST_CHARACTERS
    assert text.isprintable()
    assert text.startswith("ts.mdoc holds '")
    assert text.endswith("'; give another file")


def test_what_is_left_out_is_counted():
    text = str(CryoLitheError("a" * 5000 + "b" * 5000))
    first, count, last = text.split(" ... ")
    assert set(first) == {"a"}
    assert set(last) == {"b"}
    assert len(first) + len(last) + int(count.split()[0]) == 10_000


def test_a_message_of_usual_length_is_kept_as_it_is():
    told = "ts.mrc: expected 41 angles (°, −60 to 60), found 40; give the .tlt of this stack"
    assert str(CryoLitheError(told)) == told
    assert str(copy.copy(CryoLitheError(told))) == told


def test_the_command_tells_a_file_of_rubbish_in_one_short_line(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("model:\n  head: " + "x" * 50_000 + "\n", encoding="utf-8")
    result = call("train", path)
    assert result.exit_code == 2
    assert len(result.stderr) < MOST_CHARACTERS + 20
    assert result.stderr.count("\n") == 1
