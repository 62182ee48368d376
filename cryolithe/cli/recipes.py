"""``cryolithe recipes``: what comes with the program to start from."""

from __future__ import annotations

from pathlib import Path

import click

from cryolithe.cli.complete import complete_shipped
from cryolithe.cli.plain import say
from cryolithe.errors import OutputError
from cryolithe.recipes import ENDINGS, TAKEN, named, shipped


@click.group("recipes")
def command() -> None:
    """Recipes that come with the program: to simulate, train, reconstruct and build pairs by.

    A command that takes such a file takes the name of a shipped one as well; a file of yours with the same name wins.

    \b
    Examples
      cryolithe recipes list
      cryolithe simulate cellular -o cells
      cryolithe recipes copy cellular -o mine.yaml      change it, then: cryolithe simulate mine.yaml -o cells
    """


@command.command("list")
def list_recipes() -> None:
    """List them: name, the command that takes it, what it is for."""
    found = shipped()
    width, wide = max(map(len, found), default=0), max(map(len, TAKEN))
    for name, one in found.items():
        click.echo(f"{name:<{width}}  {one.command:<{wide}}  {one.purpose}")
    click.echo(
        "\nThe second column is the command that takes it; `cryolithe recipes show NAME` prints one whole.", err=True
    )


@command.command("show")
@click.argument("name", shell_complete=complete_shipped)
def show(name: str) -> None:
    """Print the file NAME as it is."""
    click.echo(named(name).text, nl=False)


@command.command("copy")
@click.argument("name", shell_complete=complete_shipped)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File or folder. Default: NAME.yaml here.")
def copy(name: str, output: Path | None) -> None:
    """Write a copy of NAME, to be changed. Never replaces a file."""
    from cryolithe.formats.files import check_ending, replacing

    one = named(name)
    target = output if output is not None else Path(one.path.name)
    if target.is_dir():
        target = target / one.path.name
    check_ending(target, ENDINGS, "a copy")
    if target.exists():
        raise OutputError(f"{target} exists and is never replaced; give another name with -o")
    with replacing(target, overwrite=False) as temporary:
        temporary.write_bytes(one.path.read_bytes())
    say(f"{target}: {one.name}; use it so: {one.use(str(target))}")
