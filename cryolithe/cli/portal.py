"""``cryolithe portal``: tilt series of the CryoET Data Portal."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click

from cryolithe.cli.plain import say


@click.group("portal")
def command() -> None:
    """Fetch tilt series with alignment and particles from the CryoET Data Portal (cryolithe[portal]).

    RUN is the number of a run, as in the address of its page (https://cryoetdataportal.czscience.com/runs/RUN).

    \b
    Examples
      cryolithe portal show 506                    what there is
      cryolithe portal get 506 -o run_506          stack, alignment, particles
      cryolithe reconstruct --list run_506/series.csv
    """


@command.command("show")
@click.argument("run_id", metavar="RUN", type=click.IntRange(min=1))
def show(run_id: int) -> None:
    """Say what a run has: tilt series, alignments, tomograms, points."""
    from cryolithe.portals.portal_client import alignment_id, asked, point_sets, portal_run

    run = portal_run(run_id)
    say(f"run {run.id}: {run.name}")
    with asked("what the run has"):
        for series in run.tiltseries:
            size = f"{series.size_x} x {series.size_y} x {series.size_z} (x, y, tilts)"
            state = "aligned" if series.is_aligned else "not aligned"
            say(f"  tilt series {series.id}: {size}, {series.pixel_spacing} Å, {state}")
            for alignment in series.alignments:
                standard = ", the portal's standard one" if alignment.is_portal_standard else ""
                kind = str(alignment.alignment_type or "").lower()
                say(f"    alignment {alignment.id}: {kind} {alignment.alignment_method or ''}{standard}")
        for tomogram in run.tomograms:
            size = f"{tomogram.size_x} x {tomogram.size_y} x {tomogram.size_z} (x, y, z)"
            say(f"  tomogram {tomogram.id}: {size}, {tomogram.voxel_spacing} Å{_aligned(alignment_id(tomogram))}")
    for points in point_sets(run):
        count, place = points.annotation.object_count or "some", f"in {points.voxel_size_angstrom:g} Å"
        say(f"  points: {count} {points.kind}, {place}{_aligned(points.alignment)}")


@command.command("get")
@click.argument("run_id", metavar="RUN", type=click.IntRange(min=1))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write into.")
@click.option("--tilt-series", type=int, metavar="ID", help="Which one, where the run has several.")
@click.option("--alignment", type=int, metavar="ID", help="Which one; without it the portal's standard one.")
@click.option(
    "--offsets",
    type=click.Choice(["pixel", "angstrom"]),
    default="pixel",
    show_default=True,
    help="Unit of the offsets of images, of which the portal's documents and its own conversions differ.",
)
@click.option("--particles/--no-particles", default=True, help="Points of annotations too, or not.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def get(run_id: int, output: Path, tilt_series: int | None, alignment: int | None, **options: Any) -> None:
    """Fetch the stack of a run with its alignment, as files of IMOD, and its particles as a STAR file.

    In the folder then lie NAME.mrc, NAME.xf, NAME.tlt, NAME_newst.com, NAME_tilt.com, NAME_particles.star, and
    series.csv, which names them for: cryolithe reconstruct --list FOLDER/series.csv
    """
    from cryolithe.errors import InputError
    from cryolithe.formats.files import make_folder, refuse_existing
    from cryolithe.portals import portal_client
    from cryolithe.portals.portal_alignment import alignment_notes, write_aligned, write_imod_files

    overwrite, unit = options["overwrite"], options["offsets"]
    run = portal_client.portal_run(run_id)
    with portal_client.asked("the tilt series"):
        found = list(run.tiltseries)
    series = portal_client.choose(found, tilt_series, "tilt series", "--tilt-series")
    chosen = portal_client.choose_alignment(series, alignment)
    aligned = portal_client.alignment_of(series, chosen)
    if series.is_aligned and aligned.left_out:
        raise InputError(
            f"the portal says that the stack of the tilt series {series.id} is aligned, but its alignment has "
            f"{len(aligned.sections)} of {aligned.images} images: which they are is not known"
        )
    points = portal_client.points_of(run, chosen.id) if options["particles"] else None
    name = re.sub(r"[^\w.-]", "_", str(run.name or f"run_{run_id}"))
    make_folder(output)
    stack = output / f"{name}.mrc"
    refuse_existing(stack, overwrite, "another folder with -o")
    say(f"Fetching {stack.name} of run {run_id} ...", err=True)
    portal_client.fetch_stack(series, stack, overwrite)
    if series.is_aligned:
        angles = [section.tilt_deg for section in aligned.sections]
        written = write_aligned(output, name, angles, aligned.pixel_size_angstrom, overwrite)
        say("Note: the portal says that this stack is aligned already: its alignment is not applied.", err=True)
    else:
        written = write_imod_files(output, name, aligned, unit, overwrite)
        for note in alignment_notes(aligned, unit):
            say(f"Note: {note}.", err=True)
    say(f"{stack}: {aligned.images} images, {aligned.pixel_size_angstrom:g} Å, alignment {chosen.id}")
    if points is not None:
        if points.sets:
            for line in portal_client.fetch_particles(points, name, output / f"{name}_particles.star", overwrite):
                say(line)
        for line in points.left_out:
            say(line)
    say(f"Next: cryolithe reconstruct --list {shlex.quote(str(written[-1]))}")


def _aligned(alignment: int | None) -> str:
    return "" if alignment is None else f", alignment {alignment}"
