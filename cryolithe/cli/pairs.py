"""``cryolithe pairs``: curated real pairs, chosen, checked and made into training files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cryolithe.cli import curate
from cryolithe.cli.complete import complete_recipe
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import CryoLitheError, InputError, OutputError, SettingsError
from cryolithe.recipes import find_recipe, shipped_for

if TYPE_CHECKING:
    from cryolithe.curation.check import PairReport
    from cryolithe.curation.manifest import Manifest

PATH = click.Path(path_type=Path)
DATA = click.option("--data", type=PATH, help="Folder of the local copy. Default: the manifest's, or where it lies.")
ONLY = click.option("--only", multiple=True, metavar="NAME", help="Only this pair; may be repeated.")


@click.group("pairs")
def command() -> None:
    """Curated real pairs: a deposited tilt series with the tomogram that it should become.

    A manifest (YAML) says where the files of an entry are and how the targets were made. A manifest that comes with the
    program, such as empiar_11830, is given by its name (cryolithe recipes list); the format is described in
    training_data/README.md.
    """


command.add_command(curate.command)


@command.command("check")
@click.argument("manifest", type=PATH, shell_complete=complete_recipe("pairs"))
@DATA
@ONLY
@click.option("--record", type=PATH, help="Write a copy of the manifest with sizes and checksums filled in.")
@click.option("--fast", is_flag=True, help="Leave checksums out.")
def check(manifest: Path, data: Path | None, only: tuple[str, ...], record: Path | None, fast: bool) -> None:
    """Compare a local copy with its MANIFEST: files, shapes, pixel sizes, checksums, halves, targets.

    Each target is correlated with our own FBP of its series, so that one that is mirrored, inverted, shifted or of
    another series is found. Exit code 1 if anything is wrong.
    """
    from cryolithe.curation.check import check_pair
    from cryolithe.curation.manifest import read_manifest
    from cryolithe.formats.files import check_ending

    if record and fast:
        raise SettingsError("--record needs the checksums that --fast leaves out; give one of them")
    if record and record.exists():
        raise OutputError(f"{record} exists; give --record the name of a new file")
    if record:
        check_ending(record, (".yaml", ".yml"), "a manifest", "--record")
    manifest = find_recipe(manifest, "pairs")
    read = read_manifest(manifest)
    chosen = read.select(only)
    root = _root(manifest, read, data)
    reports = []
    for number, pair in enumerate(chosen, 1):
        with progress_watcher() as watcher:
            watcher.stage(f"Checking {pair.name} ({number} of {len(chosen)})", 1)
            report = check_pair(read, pair, root, fast)
        reports.append(report)
        _show(report, read)
    if record:
        _record(record, read, reports, root)
    wrong = sum(not report.ok for report in reports)
    if wrong:
        click.echo(f"{wrong} of {len(reports)} pairs are not as {manifest} says", err=True)
        raise click.exceptions.Exit(1)


@command.command("build")
@click.argument("manifest", type=PATH, shell_complete=complete_recipe("pairs"))
@click.option("-o", "--output", type=PATH, required=True, help="Folder to write NAME.h5 into.")
@DATA
@ONLY
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def build(manifest: Path, output: Path, data: Path | None, only: tuple[str, ...], overwrite: bool) -> None:
    """Check the pairs of MANIFEST and make training files of them, laid out like those of `cryolithe simulate`.

    Finished pairs are kept: repeat the command to go on. A pair that is not as the manifest says is left out, with
    exit code 1.
    """
    from cryolithe.curation.build import build_pair
    from cryolithe.curation.manifest import read_manifest
    from cryolithe.formats.files import check_folder_name, make_folder
    from cryolithe.machine.device import keep_freed_memory

    keep_freed_memory()
    check_folder_name(output)
    manifest = find_recipe(manifest, "pairs")
    read = read_manifest(manifest)
    pairs = read.select(only)
    root = _root(manifest, read, data)
    make_folder(output)
    failed = 0
    for number, pair in enumerate(pairs, 1):
        try:
            with progress_watcher() as watcher:
                watcher.stage(f"Building {pair.name} ({number} of {len(pairs)})", 1)
                line = build_pair(read, pair, root, output, overwrite)
            click.echo(line)
        except CryoLitheError as error:
            failed += 1
            click.echo(f"{pair.name}: {error}", err=True)
    if failed:
        click.echo(f"{failed} of {len(pairs)} pairs were not built", err=True)
        raise click.exceptions.Exit(1)


def _root(path: Path, manifest: Manifest, data: Path | None) -> Path:
    """The folder of the local copy."""
    if data is None and path in [one.path for one in shipped_for("pairs").values()]:
        raise SettingsError(f"say with --data where your copy of entry {manifest.accession} lies")
    root = data if data is not None else path.parent / (manifest.data or "")
    if not root.is_dir():
        raise InputError(f"{root} is no folder; give the folder of the local copy with --data")
    return root


def _show(report: PairReport, manifest: Manifest) -> None:
    """One line for a pair that is right, one for each thing that is wrong."""
    wrong = [finding.text for finding in report.findings if finding.wrong]
    remarks = "".join(f"; {finding.text}" for finding in report.findings if not finding.wrong)
    for text in wrong:
        click.echo(f"{report.pair}: WRONG: {text}")
    if wrong or report.shape is None:
        return
    depth, rows, columns = report.shape
    line = f"{report.pair}: ok: {report.tilts} tilts, {depth} x {rows} x {columns} voxels"
    line += f" of {manifest.voxel_size_angstrom:g} Å"
    if report.match:
        shift = max(map(abs, report.match.shift_px))
        line += f"; target fits our FBP: correlation {report.match.correlation:.2f}, shift {shift:.1f} px"
    click.echo(line + remarks)


def _record(path: Path, manifest: Manifest, reports: list[PairReport], root: Path) -> None:
    """Write the manifest with what was measured of the pairs that are right."""
    from cryolithe.curation.manifest import write_manifest

    right = {report.pair: report for report in reports if report.ok}
    pairs = tuple(
        pair.model_copy(update={"measured": right[pair.name].measured, "tilts": right[pair.name].tilts})
        if pair.name in right
        else pair
        for pair in manifest.pairs
    )
    data = os.path.relpath(root, path.parent)
    write_manifest(path, manifest.model_copy(update={"pairs": pairs, "data": data}))
    click.echo(f"{path}: sizes and checksums of {len(right)} of {len(manifest.pairs)} pairs")
