"""``cryolithe pairs curate``: candidates ranked, shown, and chosen from."""

from __future__ import annotations

from pathlib import Path

import click

from cryolithe.cli.complete import complete_recipe
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import InputError, OutputError, SettingsError
from cryolithe.recipes import find_recipe

PATH = click.Path(path_type=Path)
SHOWN = 10


@click.command("curate")
@click.argument("folder", metavar="[DIR]", type=PATH, required=False)
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the sheet; with --apply, the manifest.")
@click.option(
    "--manifest",
    type=PATH,
    metavar="NAME|PATH",
    help="DIR is a copy of this entry, or holds pairs that were built from it.",
    shell_complete=complete_recipe("pairs"),
)
@click.option(
    "--pattern", multiple=True, metavar="GLOB", help="Files in DIR to take, such as '*/rec_*.mrc'; repeatable."
)
@click.option("--apply", "applied", type=PATH, metavar="FILE", help="Write the manifest of choices that were saved.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def command(
    folder: Path | None,
    output: Path,
    manifest: Path | None,
    pattern: tuple[str, ...],
    applied: Path | None,
    overwrite: bool,
) -> None:
    """Rank the candidate tomograms in DIR and make a sheet to choose from: curate.html, .csv and .json.

    DIR holds HDF5 pairs (*.h5, of `cryolithe simulate` or `pairs build`), or else tomograms (*.mrc, *.rec), or with
    --manifest the copy of an entry. Halves of tomograms are known by their names: _EVN/_ODD, _even/_odd,
    even_/odd_, _half1/_half2, X_EVN_Vol/X_ODD_Vol. Halves of pairs and entries are reconstructed by FBP.

    Numbers are of volumes averaged to at most 160 voxels an edge: half-map FSC, power along the borders of the
    missing wedge (streaks), contrast, part of the depth that is empty. The score is the mean share of other
    candidates that are worse. Candidates that cannot be read are listed and left out.

    Open curate.html in a browser, choose, save; then write the manifest with --apply, which takes the saved manifest
    or choices, or curate.json for the choices by threshold. With -o NAME.txt it lists the files that are kept.

    \b
    Examples
      cryolithe pairs curate COPY --manifest empiar_11830 -o sheet
      cryolithe pairs curate --apply ~/Downloads/manifest.yaml -o kept.yaml
    """
    if applied is not None:
        if folder is not None or pattern:
            raise SettingsError("--apply takes a file of choices, and no DIR or --pattern")
        _apply(applied, manifest, output, overwrite)
        return
    if folder is None:
        raise SettingsError("give the folder DIR of the candidates, or --apply with saved choices")
    _make_sheet(folder, manifest, pattern, output, overwrite)


def _make_sheet(folder: Path, path: Path | None, pattern: tuple[str, ...], output: Path, overwrite: bool) -> None:
    from cryolithe.curation.candidates import find_candidates
    from cryolithe.curation.manifest import read_manifest
    from cryolithe.curation.ranking import measure_all, rank
    from cryolithe.curation.sheet import check_outputs, write_sheet
    from cryolithe.curation.templates import template_for
    from cryolithe.formats.files import check_folder_name
    from cryolithe.machine.device import keep_freed_memory

    keep_freed_memory()
    collection = find_candidates(folder, None if path is None else read_manifest(find_recipe(path, "pairs")), pattern)
    check_folder_name(output)
    check_outputs(output, overwrite)
    with progress_watcher() as watcher:
        watcher.stage("Measuring", len(collection.candidates))
        measured, unreadable = measure_all(collection, lambda: watcher.advance(1))
    for one in unreadable[:SHOWN]:
        click.echo(f"{one.name}: left out: {one.reason}", err=True)
    if len(unreadable) > SHOWN:
        click.echo(f"and {len(unreadable) - SHOWN} more were left out; curate.json says why", err=True)
    if not measured:
        raise InputError(f"none of {len(unreadable)} candidates in {folder} could be read; the first: "
                         f"{unreadable[0].reason}")  # fmt: skip
    ranked = rank(measured)
    write_sheet(
        output, collection, template_for(collection, measured, path and path.parent), ranked, unreadable, overwrite
    )
    for best in ranked[:SHOWN]:
        against = f"  rejected: {'; '.join(best.reasons)}" if best.reasons else ""
        click.echo(f"{best.rank:4d}  {best.score:.2f}  {best.measured.candidate.name}{against}")
    if len(ranked) > SHOWN:
        click.echo(f"      and {len(ranked) - SHOWN} more")
    kept = sum(one.keep for one in ranked)
    click.echo(f"{kept} of {len(ranked)} candidates kept by threshold; choose in {output / 'curate.html'}")


def _apply(path: Path, template: Path | None, output: Path, overwrite: bool) -> None:
    from cryolithe.curation.choices import applied_manifest, read_choices, write_kept_list
    from cryolithe.curation.manifest import write_manifest
    from cryolithe.formats.files import check_ending

    if output.exists() and output.resolve() == path.resolve():
        raise OutputError(f"{output} is the file that is to be applied; give another name with -o")
    check_ending(output, (".yaml", ".yml", ".txt"), "a manifest, or a list of files")
    if output.suffix.lower() == ".txt":
        click.echo(f"{output}: {write_kept_list(output, read_choices(path), overwrite)} files")
        return
    manifest = applied_manifest(path, template, output)
    write_manifest(output, manifest, overwrite)
    click.echo(f"{output}: {len(manifest.pairs)} pairs of {manifest.accession}")
    if manifest.title and manifest.title.startswith("DRAFT"):
        click.echo("This is a draft: say in it where stacks and angles are, then: cryolithe pairs check", err=True)
