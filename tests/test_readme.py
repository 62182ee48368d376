"""The README tells the truth: its commands run, its files exist."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cryolithe.cli import COMMANDS, denoise, main
from cryolithe.settings import ReconstructSettings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = [line[2:].split("#")[0].strip() for block in blocks for line in block.splitlines() if line[:2] == "$ "]
    return [line for line in lines if line.startswith("cryolithe ")]


@pytest.mark.slow
def test_commands_run_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    lines = commands()
    assert len(lines) >= 6
    lines.sort(key=lambda line: not line.startswith("cryolithe simulate"))  # the README lets users bring data
    for line in lines:
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"


def test_options_and_commands_that_are_named_exist():
    flags = {f"--{name.replace('_', '-')}" for name in ReconstructSettings.model_fields}
    flags |= {"--config", "--list", "--even", "--odd", "--dry-run"}
    flags |= {flag for option in denoise.command.params for flag in option.opts}
    table = re.findall(r"^\| `(--[a-z-]+)", README, re.MULTILINE)
    assert table
    assert set(table) <= flags
    assert {name for name in re.findall(r"cryolithe ([a-z]+)", README) if name not in ("network", "images")} <= set(
        COMMANDS
    )


@pytest.mark.parametrize(
    "path",
    sorted(set(re.findall(r"`((?:cryolithe|configs|tests|benchmarks|training_data|examples)/[\w./]*)`", README))),
)
def test_files_that_are_named_exist(path):
    assert (ROOT / path).exists()


def test_every_command_explains_itself():
    for name in COMMANDS:
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0
        assert len(result.output) > 200


def test_the_demo_names_only_commands_that_exist():
    text = (ROOT / "examples" / "demo.py").read_text(encoding="utf-8")
    assert set(re.findall(r'cryolithe\("([a-z]+)"', text)) <= set(COMMANDS)
