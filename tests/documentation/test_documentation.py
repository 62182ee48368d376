"""Documentation tells the truth: commands parse and run, links lead somewhere, and the reference has every option."""

import importlib.util
import re
import subprocess
import sys

import click
import pytest
import yaml
from command import call
from pages import (
    PAGES,
    README,
    ROOT,
    anchors_of,
    commands_of,
    links_of,
    name_of,
    parse,
    shown_of,
    shown_pattern,
    text_of,
)

from cryolithe.cli import COMMANDS, main
from cryolithe.simulation import plain

DOCS = ROOT / "docs"
# Pages that are run; those of one row share a folder.
SESSIONS = [
    [README],
    [DOCS / "first_tomogram.md"],
    [DOCS / "reconstruct.md", DOCS / "evaluate.md", DOCS / "training.md"],
]
SMALL = (24, 40, 48)  # voxels of the simulated specimen, half as deep as wide, as the default thickness is


def reference_maker():
    spec = importlib.util.spec_from_file_location("documentation_pages", DOCS / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_takes_its_words(page):
    for words in commands_of(page):
        try:
            parse(words)
        except click.UsageError as error:
            pytest.fail(f"{' '.join(words)}: {error.format_message()}")


def test_the_pages_have_commands():
    assert sum(len(commands_of(page)) for page in PAGES) >= 50


@pytest.mark.parametrize("words", [["fsc", "a.mrc"], ["reconstruct", "a", "b", "--bim", "2"], ["evaluate", "--tilt"]])
def test_a_command_that_does_not_parse_would_be_found(words):
    with pytest.raises(click.UsageError):
        parse(words)


@pytest.mark.slow
@pytest.mark.parametrize("pages", SESSIONS, ids=lambda pages: name_of(pages[0]))
def test_commands_run_as_written_and_print_what_is_shown(pages, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plain, "SHAPE", SMALL)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    steps = [step for page in pages for step in shown_of(page)]
    assert len(steps) >= 3
    steps.sort(key=lambda step: step[0][0] != "simulate")  # pages let users bring data
    for words, shown in steps:
        result = call(*words)
        assert result.exit_code == 0, f"{words}\n{result.output}"
        for line in shown:
            if line != "...":
                assert re.search(shown_pattern(line.strip()), result.output), f"{words}: {line}\n{result.output}"


def test_the_front_page_shows_what_its_commands_print():
    steps = shown_of(README)
    assert [words[0] for words, _ in steps] == ["simulate", "reconstruct", "evaluate"]
    assert all(shown for _, shown in steps)
    assert len(README.read_bytes()) < 6000


@pytest.mark.parametrize("page", [*PAGES, ROOT / "benchmarks" / "README.md"], ids=name_of)
def test_links_lead_to_files_and_headings(page):
    for path, anchor in links_of(page):
        if path == DOCS / "commands.md":  # made when the site is built
            continue
        assert path.exists(), f"{name_of(page)}: {path}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors_of(path), f"{name_of(page)}: {path.name}#{anchor}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "benchmarks" / "README.md"], ids=name_of)
def test_lines_of_the_source_are_short(page):
    for line in text_of(page).splitlines():
        table_or_link = line.lstrip().startswith("|") or len(line.split()) == 1
        assert len(line) <= 120 or table_or_link, f"{line}\npython benchmarks/wrap.py {name_of(page)} breaks it"


def test_the_map_has_every_package_and_module_beside_them():
    packages = sorted(path.parent.name for path in (ROOT / "cryolithe").glob("*/__init__.py"))
    assert len(packages) > 15
    rows = text_of(DOCS / "map.md").partition("## Sources")[0]
    assert [name for name in packages if f"{name}/`" not in rows] == []
    modules = [path.name for path in (ROOT / "cryolithe").glob("[a-z]*.py")]
    assert [name for name in modules if f"{name}`" not in rows] == []


def test_the_site_has_every_page():
    def pages(entry):
        children = entry if isinstance(entry, list) else entry.values()
        return [name for child in children for name in ([child] if isinstance(child, str) else pages(child))]

    named = pages(yaml.safe_load(text_of(ROOT / "mkdocs.yml"))["nav"])
    assert sorted(named) == sorted([*(path.relative_to(DOCS).as_posix() for path in PAGES[1:]), "commands.md"])


def test_the_reference_has_every_command_and_option():
    page = reference_maker().command_reference()
    sections = dict(re.findall(r"^## (cryolithe .+?)\n(.*?)(?=^## cryolithe |\Z)", page, re.M | re.S))

    def check(command, name):
        if name != "cryolithe":
            for option in command.params:
                if isinstance(option, click.Option) and not option.hidden:
                    assert all(flag in sections[name] for flag in option.opts), f"{name} {option.opts}"
        if isinstance(command, click.Group):
            for short in command.list_commands(click.Context(command)):
                check(command.get_command(click.Context(command), short), f"{name} {short}")

    check(main, "cryolithe")
    assert {f"cryolithe {name}" for name in COMMANDS} <= set(sections)


def test_pages_that_the_program_names_exist():
    found = set()
    for path in [*(ROOT / "cryolithe").rglob("*.py"), *(ROOT / "configs").rglob("*.yaml"),
                 *(ROOT / "training_data").rglob("*.yaml")]:  # fmt: skip
        found |= set(re.findall(r"\b(?:docs|training_data|benchmarks)/[\w/]+\.md\b", text_of(path)))
    assert "docs/completion.md" in found
    assert [name for name in sorted(found) if not (ROOT / name).is_file()] == []


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "--wedge-trust" in (tmp_path / "site" / "commands.html").read_text(encoding="utf-8")
    for page in (tmp_path / "site").glob("*.html"):
        assert not re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="https?:', page.read_text("utf-8")
        )
    assert (tmp_path / "site" / "repository" / "benchmarks" / "index.html").is_file()
