"""``cryolithe copick``: read from a copick project, and write into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cryolithe.cli.numbers import FiniteRange
from cryolithe.cli.plain import say

if TYPE_CHECKING:
    from cryolithe.portals.copick_project import RunContent

_CONFIG = click.argument("config", type=click.Path(path_type=Path))
_SHOWN = 6


@click.group("copick")
def command() -> None:
    """Read tomograms and picks of a copick project; put tomograms of ours into it (cryolithe[copick]).

    CONFIG is the project's JSON file. What is written goes into the project's overlay, as everything that copick
    writes. Projects on the CryoET Data Portal and on remote file systems are opened as copick opens them.

    \b
    Examples
      cryolithe copick runs project.json
      cryolithe copick get project.json TS_001 -o TS_001          tomogram and picks
      cryolithe copick put project.json TS_001 TS_001_rec.mrc --type cryolithe
    """


@command.command("runs")
@_CONFIG
def runs(config: Path) -> None:
    """List the runs of a project, with their tomograms and picks."""
    from cryolithe.portals.copick_project import open_project, run_contents

    contents = run_contents(open_project(config))
    for content in contents:
        say(_line(content))
    if not contents:
        say(f"{config}: a project without runs")


@command.command("get")
@_CONFIG
@click.argument("run")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write into.")
@click.option("--voxel-size", type=FiniteRange(min=0, min_open=True), metavar="Å", help="Of the tomogram.")
@click.option("--type", "kind", metavar="TYPE", help="Of the tomogram, as the project calls it.")
@click.option("--object", "objects", multiple=True, metavar="NAME", help="Picks of this object alone; may be repeated.")
@click.option("--user", "users", multiple=True, metavar="NAME", help="Picks of this user alone; may be repeated.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def get(
    config: Path,
    run: str,
    output: Path,
    voxel_size: float | None,
    kind: str | None,
    objects: tuple[str, ...],
    users: tuple[str, ...],
    **options: bool,
) -> None:
    """Write a tomogram of RUN as MRC, and its picks as RELION's STAR file beside it.

    The files are called RUN_rec.mrc and RUN_particles.star: cryolithe evaluate --particles takes the two together.
    """
    import numpy as np

    from cryolithe import __version__
    from cryolithe.formats import write_volume
    from cryolithe.formats.files import make_folder
    from cryolithe.formats.particles.star import Positions, write_particles
    from cryolithe.portals.copick_project import file_name, find_run, open_project, read_particles, read_tomogram
    from cryolithe.volume import Volume

    found = find_run(open_project(config), run)
    tomogram = read_tomogram(found, voxel_size, kind)
    size = tomogram.voxel_size_angstrom
    particles = read_particles(found, size, objects, users)
    folder = output
    make_folder(folder)
    name = file_name(run)
    path, overwrite = folder / f"{name}_rec.mrc", options["overwrite"]
    label = f"CryoLithe {__version__} copick tomogram {tomogram.kind}"
    write_volume(path, Volume(tomogram.voxels, size), label=label, dtype=tomogram.voxels.dtype, overwrite=overwrite)
    say(f"{path}: tomogram {tomogram.kind} of {run}, {size:g} Å voxels")
    if not particles:
        say(f"{run} has no picks{' of this choice' if objects or users else ''}: no STAR file is written")
        return
    star = folder / f"{name}_particles.star"
    z, y, x = tomogram.voxels.shape
    write_particles(star, particles, (z, y, x), size, overwrite)
    numbers = sorted({(p.label, p.kind) for p in particles})
    say(f"{star}: {len(particles)} particles of {len(numbers)} kinds")
    say(f"rlnClassNumber: {_some([f'{number} {kind}' for number, kind in numbers])}")
    positions = np.array([p.position_px for p in particles])
    for line in Positions(positions, ("",) * len(particles)).outside_told((z, y, x)):
        say(line)


@command.command("put")
@_CONFIG
@click.argument("run")
@click.argument("volume", type=click.Path(path_type=Path))
@click.option("--type", "kind", default="cryolithe", show_default=True, metavar="TYPE", help="To call the tomogram.")
@click.option("--overwrite", is_flag=True, help="Replace a tomogram of this type and voxel size.")
def put(config: Path, run: str, volume: Path, kind: str, overwrite: bool) -> None:
    """Put VOLUME (MRC, TIFF) into RUN as a tomogram of a type of its own, at its voxel size."""
    from cryolithe.errors import InputError
    from cryolithe.formats.volumes.volume_file import open_volume_file, refuse_stack, upright
    from cryolithe.portals.copick_project import SIZE_TOLERANCE, Tomogram, find_run, open_project, write_tomogram

    opened = open_volume_file(volume)
    refuse_stack(opened)
    given = upright(opened)
    size = given.voxel_size_angstrom
    if size is None:
        raise InputError(f"{volume} has no voxel size in its header, which the project needs; put it there")
    if any(abs(each / size - 1) > SIZE_TOLERANCE for each in given.voxel_sizes_angstrom if each):
        sizes = " x ".join(f"{each:g}" for each in given.voxel_sizes_angstrom)
        raise InputError(
            f"{volume} has voxels of {sizes} Å (z, y, x), a tomogram of a copick project has one size for all axes; "
            "resample it, or put its true size into the header"
        )
    for note in given.notes:
        say(f"Note: {note.rstrip('.')}.", err=True)
    if any(given.origin_angstrom):
        origin = ", ".join(f"{each:g}" for each in given.origin_angstrom)
        say(
            f"Note: the first voxel of {volume} lies at {origin} Å (z, y, x), which is not kept: copick counts picks "
            "from the first voxel.",
            err=True,
        )
    found = find_run(open_project(config), run)
    stored = write_tomogram(found, Tomogram(given.voxels(), size, kind), overwrite)
    say(f"{config}: {run} has the tomogram {stored} at {size:g} Å now")


def _line(content: RunContent) -> str:
    tomograms = _some([f"{kind} at {size:g} Å" for size, kind in content.tomograms]) or "no tomograms"
    picks = _some([f"{count} {name} ({user})" for name, user, _, count in content.picks]) or "no picks"
    return f"{content.name}: {tomograms}; {picks}"


def _some(parts: list[str]) -> str:
    return ", ".join(parts[:_SHOWN]) + (f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else "")
