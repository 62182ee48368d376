"""``cryolithe halves``: the images of even and odd frames that RELION's tables name, as two stacks."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cryolithe.cli.plain import say

if TYPE_CHECKING:
    from cryolithe.formats.reading import Reading


@click.command("halves")
@click.argument("tables", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TABLE...")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write into.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def command(tables: tuple[Path, ...], output: Path, overwrite: bool) -> None:
    """Write the images of even and odd frames that RELION-5's tables name into two stacks a series.

    TABLE is that of a series (tilt_series/ts_01.star) with the columns rlnMicrographNameEven and
    rlnMicrographNameOdd, or the table that lists series (tilt_series.star). In the folder then lie ts_01_EVN.mrc and
    ts_01_ODD.mrc, images in the order of the table, which is their alignment. A series that fails does not stop the
    others; the exit code is then 1.

    \b
    Examples
      cryolithe halves tilt_series/ts_01.star -o halves
      cryolithe reconstruct --even halves/ts_01_EVN.mrc --odd halves/ts_01_ODD.mrc --star tilt_series/ts_01.star
      cryolithe halves tilt_series.star -o halves
    """
    from cryolithe.errors import CryoLitheError, InputError, in_one_line
    from cryolithe.formats.files import make_folder
    from cryolithe.formats.reading import Reading

    reading = Reading()
    series = [found for table in tables for found in _series(table, reading)]
    stems = [one.stem for one in series]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise InputError(f"two tables are called {twice}.star: their stacks would be one; give them one at a time")
    make_folder(output)
    failed = 0
    for one in series:
        try:
            _write(one, output, overwrite, reading)
        except CryoLitheError as error:
            if len(series) == 1:
                raise
            failed += 1
            say(f"{one.name}: failed: {in_one_line(str(error))}", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _series(table: Path, reading: Reading) -> tuple[Path, ...]:
    """The tables of series: the one that is given, or those that it lists."""
    from cryolithe.formats.alignment.tomogram_star import is_tomogram_table, listed_series

    return listed_series(table, reading) if is_tomogram_table(table, reading) else (table,)


def _write(series: Path, output: Path, overwrite: bool, reading: Reading) -> None:
    from cryolithe import __version__
    from cryolithe.formats import write_stack
    from cryolithe.formats.alignment.tomogram_star import half_images
    from cryolithe.formats.files import all_or_none, refuse_existing
    from cryolithe.formats.stacks.image_files import ImageFiles

    halves = [ImageFiles(paths) for paths in half_images(series, reading)]
    targets = [output / f"{series.stem}_{half}.mrc" for half in ("EVN", "ODD")]
    for target in targets:
        refuse_existing(target, overwrite, "another folder with -o")
    with all_or_none(targets):  # one half alone is of no use, and would stop the next run
        for images, target, half in zip(halves, targets, ("even", "odd"), strict=True):
            pixel = images.first.voxel_size_angstrom
            write_stack(target, images, pixel, f"CryoLithe {__version__}: {half} frames by {series.name}", overwrite)
    for images, target in zip(halves, targets, strict=True):
        pixel = images.first.voxel_size_angstrom
        size = f", {pixel:g} Å" if pixel else ""
        say(f"{target}: {' x '.join(map(str, images.shape))} pixels (tilts, y, x){size}")
    words = ("reconstruct", "--even", targets[0], "--odd", targets[1], "--star", series)
    say(f"Next: cryolithe {shlex.join(map(str, words))}")
