"""``cryolithe doctor``: is this installation sound, and what of this machine does it use?"""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from cryolithe.formats.files import check_json, printable

WIDTH = 120
MARKS = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}
INDENT = " " * 28


@click.command("doctor")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Where volumes are to be written; without it the current folder.",
)
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write everything to this file."
)
@click.option("--overwrite", is_flag=True, help="Replace the file of --json if it exists.")
@click.option(
    "--device", default="auto", show_default=True, help="Where to run the self-test: auto, cpu, cuda, cuda:0."
)
@click.pass_context
def command(ctx: click.Context, folder: Path, json_path: Path | None, overwrite: bool, device: str) -> None:
    """Look at this installation and this machine, and run a self-test of a few seconds.

    Versions, processor, GPUs (or why there are none), memory, the write speed of a folder, the bundled models; then FBP
    and the bundled network on a tiny series against stored values, and the speed that was measured.

    \b
    Marks
      ok        as it should be
      WARNING   works, but costs time or memory
      PROBLEM   will fail; the line below says what to do
    Exit code: 0 if usable (warnings allowed), 1 if there is a problem.
    """
    if json_path is not None:
        check_json(json_path, overwrite, "the findings")
    from cryolithe.diagnosis import OK, PROBLEM, WARNING, Finding, diagnose
    from cryolithe.machine.device import keep_freed_memory
    from cryolithe.report.json_files import write_json

    keep_freed_memory()  # as reconstruct does: the speed is to be the same
    findings: list[Finding] = []
    for finding in diagnose(folder, device):
        findings.append(finding)
        _echo(MARKS[finding.state], finding.name, finding.text)
        if finding.advice:
            _echo("", "", f"-> {finding.advice}")
    counts = Counter(finding.state for finding in findings)
    usable = not counts[PROBLEM]
    click.echo(
        f"{'Usable' if usable else 'Not usable as it is'}: {counts[OK]} ok, "
        f"{counts[WARNING]} warning(s), {counts[PROBLEM]} problem(s)."
    )
    if json_path is not None:
        write_json(json_path, {"usable": usable, "findings": [asdict(finding) for finding in findings]})
    ctx.exit(0 if usable else 1)


def _echo(mark: str, name: str, text: str) -> None:
    """One entry, folded: mark, name, text."""
    start = f"{mark:<9}{name:<19}"
    click.echo(textwrap.fill(printable(text), WIDTH, initial_indent=start, subsequent_indent=INDENT))
