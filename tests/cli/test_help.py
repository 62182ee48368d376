"""Help pages with many options show them below headings, each once."""

import re
from collections import Counter

import click
import pytest
from command import call

from cryolithe.cli import COMMANDS, main
from cryolithe.cli.settings_options import SETTINGS_SECTIONS, SectionedCommand
from cryolithe.settings import ReconstructSettings

# More options than a reader takes in at one look. Those of evaluate are one list, in the order of its tests.
MANY = 22


def commands() -> dict[str, click.Command]:
    context = click.Context(main)
    return {name: main.get_command(context, name) for name in COMMANDS}


def test_every_setting_stands_below_one_heading():
    placed = [name for names in SETTINGS_SECTIONS.values() for name in names]
    assert sorted(placed) == sorted(ReconstructSettings.model_fields)


@pytest.mark.parametrize("name", [name for name, command in commands().items() if len(command.params) > MANY])
def test_long_help_pages_have_headings(name):
    command = commands()[name]
    assert isinstance(command, SectionedCommand)
    own = {heading: names for heading, names in command.sections.items() if heading not in SETTINGS_SECTIONS}
    known = {param.name for param in command.params}
    assert all(set(names) <= known for names in own.values()), "a heading names an option that there is not"
    text = call(name, "--help").output
    assert all(f"\n{heading}:\n" in text for heading in own)
    flags = Counter(re.findall(r"^  (?:-\w, )?(--[\w-]+)", text.partition("\nOptions:\n")[2], re.MULTILINE))
    assert set(flags.values()) == {1}
    for param in command.params:
        if isinstance(param, click.Option):
            assert flags.keys() & set(param.opts), f"{param.opts[0]} stands nowhere"
