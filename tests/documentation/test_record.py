"""The recording of the first steps: it types what the pages say, and the recorded page is of the pages as they are."""

import re
import sys
from pathlib import Path

import pytest
from pages import ROOT, joined_of, shown_of, text_of

sys.path.insert(0, str(ROOT / "examples"))

import record

RECORDED = ROOT / "docs" / "five_minutes_recorded.md"


def recorded():
    """(command, output) of each step of the pages, with folded lines joined again; not of the installation."""
    steps = re.sub(r"^## Installation\n.*?(?=^## )", "", text_of(RECORDED), flags=re.M | re.S)
    blocks = re.findall(r"^```console\n\$ (.*?)\n(.*?)```", steps, re.M | re.S)
    return [(command, re.sub(rf"^(.{{{record.COLUMNS}}})\n", r"\1", output, flags=re.M)) for command, output in blocks]


def test_commands_are_those_with_a_prompt_joined_over_backslashes():
    page = "```console\n$ a b \\\n    c\nprinted\n$ d\n```\ntext\n```bash\n$ not typed\n```\n```console\n$ e\n```\n"
    assert record.commands_of(page) == ["a b c", "d", "e"]


def test_a_step_is_run_in_its_folder_and_both_streams_are_kept(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hello").write_text("#!/bin/sh\necho said; echo told >&2; pwd > where\n")
    (tmp_path / "bin" / "hello").chmod(0o755)
    place = tmp_path / "place"
    place.mkdir()
    step = record.typed("page", "hello", place, tmp_path / "bin")
    assert step.output == "said\ntold\n"
    assert Path((place / "where").read_text().strip()) == place.resolve()
    assert step.seconds > 0
    with pytest.raises(SystemExit, match="page: exit code 3 of: exit 3"):
        record.typed("page", "exit 3", place, None)


def test_a_page_has_every_step_and_no_long_line(tmp_path):
    long = "w " * 200
    steps = [record.Step("one.md", "a", f"{tmp_path}/x {long}\n\nend", 61.0, 2.0), record.Step("two.md", "b", "", 1, 1)]
    page = record.page_of(steps, tmp_path, "told")
    assert str(tmp_path) not in page
    assert max(map(len, page.splitlines())) <= record.COLUMNS
    assert "| `a` | 1:01 | 0:02 |" in page
    assert "| all of it | 1:02 | 0:03 |" in page
    assert [page.index("## one.md") < page.index("$ a") < page.index("## two.md") < page.index("$ b")] == [True]
    assert "".join(record.folded(long, tmp_path)) == long.rstrip()


def test_the_recording_is_of_the_pages_as_they_are():
    wanted = [command for page in record.PAGES for command in record.commands_of(text_of(ROOT / page))]
    assert [command for command, _ in recorded()] == wanted


def literal(line):
    """The very words and numbers of a line, with anything for ``...``."""
    return r".*".join(r"\s+".join(map(re.escape, part.split(" "))) for part in re.sub(" +", " ", line).split("..."))


def test_the_very_numbers_that_the_pages_show_were_printed():
    outputs = [output for _, output in recorded()]
    shown = [lines for page in record.PAGES for _, lines in shown_of(ROOT / page)]
    assert len(shown) == len(outputs)
    for lines, output in zip(shown, outputs, strict=True):
        for line in lines:
            if line != "...":
                assert re.search(literal(line.strip()), output), f"{line}\n{output}"
    assert "$ cryolithe simulate" in joined_of(RECORDED)
