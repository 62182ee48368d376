"""The page for who has data of their own: its commands run as they are written, on a small simulated series."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import click
import pytest
from command import call
from judged_entry import SHAPE, judged_entry, judged_manifest, scene
from pages import joined_of

from cryolithe.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs" / name for name in ("own_data.md", "benchmark_on_empiar.md")]
sys.path.insert(0, str(ROOT / "benchmarks"))

import empiar  # noqa: E402


def lines_of(page, kind, start):
    blocks = re.findall(rf"```{kind}\n(.*?)```", joined_of(page), re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(start)]


def commands():
    return lines_of(PAGES[0], "console", "cryolithe ")


def parse(words):
    """Let click look at a command's words, without running it."""
    group, rest = main, words
    while isinstance(group, click.Group):
        group, rest = group.get_command(None, rest[0]), rest[1:]
        assert group is not None, words
    group.make_context(words[0], list(rest))


def test_every_command_takes_its_words():
    names = [words[1] for words in commands()]
    assert set(names) <= set(COMMANDS)
    for words in commands():
        parse(words[1:])
    for name in ("info", "reconstruct", "noise", "adapt", "fsc", "evaluate"):
        assert name in names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_benchmark_takes_its_words(page):
    found = lines_of(page, "(?:console|sh)", "python benchmarks/empiar.py")
    assert len(found) >= 2
    for words in found:
        arguments = empiar.command_options().parse_args(words[2:])
        if arguments.judges:
            assert empiar.judges.chosen_judges(arguments.judges)


@pytest.mark.slow
def test_the_page_runs_from_halves_to_the_comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = judged_manifest("10164", 10.0, tmp_path / "manifests")
    paths = judged_entry(manifest, "TS_01", tmp_path / "data", scene(8.0), 0.5)
    for role, name in (("even", "ts_EVN.mrc"), ("odd", "ts_ODD.mrc"), ("angles", "ts.tlt")):
        shutil.copy(paths[role], name)
    less = {"256": str(SHAPE[0]), "10": "0.02"}
    for words in commands():
        if words[1] == "adapt":  # has tests of its own; what it would write
            model = words[words.index("-o") + 1]
            shutil.copy(ROOT / "cryolithe" / "network" / "bundled" / "draft.safetensors", model)
            continue
        if words[1] == "reconstruct" and not {"--model", "--method"} & set(words):
            words += ["--model", "draft"]  # the quickest
        result = call(*[less.get(word, word) for word in words[1:]])
        assert result.exit_code == 0, f"{words}\n{result.output}"
    for name in ("fbp_EVN", "fbp_ODD", "fbp", "fbp_n2n", "net_EVN", "net", "mine_EVN", "mine"):
        assert (tmp_path / f"{name}.mrc").is_file(), name
    assert (tmp_path / "profile.h5").is_file()
    assert (tmp_path / "report" / "evaluation.html").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_pages_link_to_is_there(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
