"""README and pages tell the truth: options and files that they name exist. test_documentation.py runs them."""

import re

import pytest
from command import good
from pages import PAGES, ROOT, name_of, text_of

from cryolithe.cli import COMMANDS, denoise
from cryolithe.settings import ReconstructSettings

# The pages whose tables begin with options of reconstruct and denoise.
TABLES = [ROOT / "docs" / "reconstruct.md", ROOT / "docs" / "choosing.md"]
FOLDERS = "cryolithe|configs|tests|benchmarks|training_data|examples"


def test_options_that_are_named_exist():
    flags = {f"--{name.replace('_', '-')}" for name in ReconstructSettings.model_fields}
    flags |= {"--config", "--list", "--even", "--odd", "--dry-run"}
    flags |= {flag for option in denoise.command.params for flag in option.opts}
    for page in TABLES:
        table = re.findall(r"^\| `(--[a-z-]+)", text_of(page), re.MULTILINE)
        assert table
        assert set(table) <= flags


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_named_exist(page):
    assert set(re.findall(r"`cryolithe ([a-z]+)", text_of(page))) <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./]*)`", text_of(page)):
        if not path.endswith("output"):  # what the demo makes
            assert (ROOT / path).exists(), path


def test_every_command_explains_itself():
    for name in COMMANDS:
        result = good(name, "--help")
        assert len(result.output) > 200


def test_the_demo_names_only_commands_that_exist():
    text = (ROOT / "examples" / "demo.py").read_text(encoding="utf-8")
    assert set(re.findall(r'cryolithe\("([a-z]+)"', text)) <= set(COMMANDS)
