"""What mkdocs does beside its own work: the reference of all commands, and what pages link to outside of docs/.

The reference is made of the commands themselves whenever the site is built. Pages link to files of the repository as
they do on the disk; such files become pages or files of the site, under repository/.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = "commands.md"
ELSEWHERE = "repository/"
SHIM = re.compile(r'<script src="https://unpkg\.com/[^"]*"></script>')
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def commands_of(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """All commands below a group with their full names, as they are listed."""
    for short in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), short)
        assert command is not None
        yield f"{name} {short}", command
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{name} {short}")


def cell(text: str) -> str:
    """Text that may stand in a table: one line, nothing taken for markup."""
    return re.sub(r"([|<>*_`\[\]])", r"\\\1", " ".join(text.split()))


def rows_of(command: click.Command, context: click.Context) -> Iterator[str]:
    """One row of a table for each option that is shown."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option):
            flags, told = (" ".join(part.split()) for part in record)
            yield f"| `{flags.replace('|', chr(92) + '|')}` | {cell(told)} |"


def section_of(name: str, command: click.Command) -> str:
    """Usage, help and options of one command."""
    context = click.Context(command, info_name=name)
    formatter = click.HelpFormatter(width=82)
    command.format_usage(context, formatter)
    command.format_help_text(context, formatter)
    rows = list(rows_of(command, context))
    table = ["| option | |", "|---|---|", *rows] if rows else []
    return "\n".join([f"## {name}", "", "```text", formatter.getvalue().strip(), "```", "", *table, ""])


def command_reference() -> str:
    """The page on every command with every option, in markdown."""
    from cryolithe.cli import main

    head = "# Every command\n\nMade from the commands themselves; `cryolithe COMMAND --help` says the same.\n\n"
    return head + "\n".join(section_of(name, command) for name, command in commands_of(main, "cryolithe"))


def real_path(uri: str) -> str:
    """Where a page of the site lies in the repository."""
    return uri.removeprefix(ELSEWHERE) if uri.startswith(ELSEWHERE) else f"docs/{uri}"


def site_path(path: str) -> str:
    """The reverse of `real_path`."""
    return path.removeprefix("docs/") if path.startswith("docs/") else ELSEWHERE + path


def target_of(uri: str, link: str) -> str | None:
    """The file of the repository that a page's link means, or None for addresses and what is not there."""
    if "://" in link or link.startswith(("mailto:", "/")):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(real_path(uri)), link))
    return path if (ROOT / path).is_file() else None


def linked_files(uri: str, text: str) -> set[str]:
    """Files outside docs/ that a page links to."""
    found = {target_of(uri, link) for _, link, _ in LINK.findall(text)}
    return {path for path in found if path and not path.startswith("docs/")}


def on_files(files: Any, config: Any) -> Any:
    """Add the reference, and what pages link to outside of docs/, and what those link to."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, REFERENCE, content=command_reference()))
    waiting = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    done: set[str] = set()
    while waiting:
        uri, text = waiting.pop()
        for path in sorted(linked_files(uri, text) - done):
            done.add(path)
            files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
            if path.endswith(".md"):
                waiting.append((site_path(path), (ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    uri = page.file.src_uri

    def linked(match: re.Match[str]) -> str:
        path = target_of(uri, match[2])
        if path is None:
            return match[0]
        return match[1] + posixpath.relpath(site_path(path), posixpath.dirname(uri) or ".") + match[3]

    return LINK.sub(linked, markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Leave out the one script that the plugin for offline sites would fetch: search then needs a server."""
    return SHIM.sub("", output)
