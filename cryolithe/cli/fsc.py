"""``cryolithe fsc``: how alike are two volumes, shell by shell, in and outside the missing wedge?"""

from __future__ import annotations

import math
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.artefacts.half_agreement import Expected
from cryolithe.errors import OutputError, SettingsError
from cryolithe.evaluation.comparing import SHARED_NETWORK, check_mask, check_pair, doubts_about_mask, parse_wedge
from cryolithe.evaluation.heldout import opposite_z
from cryolithe.evaluation.pair_doubts import Looks, doubts_about
from cryolithe.formats.files import all_or_none, check_ending, check_json, check_place
from cryolithe.formats.record import hashed, read_record_beside
from cryolithe.formats.volumes.volume_file import IS_VOLUME, open_volume_file, refuse_stack, upright
from cryolithe.formats.volumes.volume_kind import refuse_map
from cryolithe.metrics import (
    FloatArray,
    FscCurve,
    Resolution,
    fourier_shell_correlation,
    mean_correlation,
    resolution_at,
)
from cryolithe.report.figures import THRESHOLDS, plot_fsc
from cryolithe.report.json_files import write_json
from cryolithe.volume import Volume

HEADINGS = {"total": "total", "measured": "measured", "missing": "wedge"}
PLOT_SUFFIXES = (".png", ".pdf", ".svg")

FilePath = click.Path(dir_okay=False, path_type=Path)
VolumePath = click.Path(path_type=Path)  # OME-Zarr and planes of TIFF are folders


@click.command(no_args_is_help=True)
@click.argument("volumes", metavar="A.mrc B.mrc", nargs=2, type=VolumePath)
@click.option("--mask", "mask_path", type=VolumePath, help="Volume of weights: 1 keeps a voxel, 0 leaves it out.")
@click.option(
    "--wedge",
    metavar="DEG|MIN,MAX",
    help="Tilt range of the series, such as 60 (for ±60°) or -51,49: adds a column for the coefficients that the "
    "images measured and one for the missing wedge.",
)
@click.option("--voxel-size", type=float, metavar="Å", help="Edge of a voxel, in place of the files' own.")
@click.option("--json", "json_path", type=FilePath, help="Write the numbers to this file.")
@click.option("--plot", "plot_path", type=FilePath, help="Draw the curve into this file (.png, .pdf, .svg).")
@click.option("--is-volume", is_flag=True, help="The files are volumes, even if they seem to be stacks of images.")
@click.option("--overwrite", is_flag=True, help="Replace the files of --json and --plot if they exist.")
def command(
    volumes: tuple[Path, Path],
    mask_path: Path | None,
    wedge: str | None,
    voxel_size: float | None,
    is_volume: bool,
    overwrite: bool,
    **outputs: Path | None,
) -> None:
    """Fourier shell correlation of two volumes of the same specimen.

    Prints one line per shell, then the mean over the shells (without the last) and the resolutions at 0.5 and
    0.143; "<" stands before the last shell's where a curve never falls below.

    Halves reconstructed from different images (even and odd ones, say) tell the resolution of the data. Two
    results of a network from the same images share its invention and agree better than they deserve, most of
    all in the missing wedge.

    \b
    Examples
      cryolithe fsc rec_EVN.mrc rec_ODD.mrc
      cryolithe fsc rec_EVN.mrc rec_ODD.mrc --wedge -51,60 --plot fsc.png --json fsc.json
    """
    json_path, plot_path = outputs["json_path"], outputs["plot_path"]
    tilt_range_deg = None if wedge is None else parse_wedge(wedge)
    if voxel_size is not None and not (math.isfinite(voxel_size) and voxel_size > 0):
        raise SettingsError(f"--voxel-size: expected a positive number of Å, got {voxel_size:g}")
    inputs = [path for path in (*volumes, mask_path) if path is not None and path.exists()]
    for output in (json_path, plot_path):
        if output is not None and output.exists() and any(output.samefile(path) for path in inputs):
            raise OutputError(f"{output} is an input of this command; give another name")
    if json_path is not None:
        check_json(json_path, overwrite, "the numbers")
    if plot_path is not None:
        check_ending(plot_path, PLOT_SUFFIXES, "the plot", "--plot")
        check_place(plot_path, overwrite, "--plot")

    (a, a_of_network), (b, b_of_network) = (_read(path, is_volume) for path in volumes)
    if a_of_network and b_of_network:
        click.echo(f"Note: {SHARED_NETWORK}", err=True)
    check_pair((str(volumes[0]), str(volumes[1])), (a, b), voxel_size is None, "--voxel-size")
    mask = None if mask_path is None else _read_mask(mask_path, a, volumes[0], voxel_size)
    if same := volumes[0].resolve() == volumes[1].resolve():
        click.echo(f"Warning: {volumes[0]} is compared with itself, which correlates perfectly", err=True)
    voxel_size = voxel_size or a.voxel_size_angstrom or b.voxel_size_angstrom

    curve = fourier_shell_correlation(a.voxels, b.voxels, tilt_range_deg=tilt_range_deg, mask=mask)
    pair = Looks(
        (a.voxels, b.voxels),
        (volumes[0].name, volumes[1].name),
        Expected(opposite_z=opposite_z(*(read_record_beside(path) for path in volumes))),
        same=same,
        borders=mask is None,
        tilt_range_deg=tilt_range_deg,
        flag="--wedge",
    )
    for doubt in doubts_about(pair, curve):
        click.echo(f"Warning: {doubt}", err=True)
    click.echo("\n".join(_table(curve, voxel_size) + _summary(curve, voxel_size)))
    with all_or_none([path for path in (json_path, plot_path) if path is not None]):
        if json_path is not None:
            write_json(
                json_path,
                {
                    "cryolithe": __version__,
                    "inputs": hashed({"a": volumes[0], "b": volumes[1], **({"mask": mask_path} if mask_path else {})}),
                    "volumes": volumes,
                    "mask": mask_path,
                    "shape_zyx": a.voxels.shape,
                    "voxel_size_angstrom": voxel_size,
                    "tilt_range_deg": tilt_range_deg,
                    "fsc": curve,
                    "mean": {name: mean_correlation(values) for name, values in curve.columns().items()},
                    "resolution": {
                        name: {str(t): _resolution(values, curve, t, voxel_size) for t in THRESHOLDS}
                        for name, values in curve.columns().items()
                    },
                },
            )
        if plot_path is not None:
            plot_fsc(plot_path, curve, voxel_size, title=f"{volumes[0].name} and {volumes[1].name}")
    # Afterwards: a pipe that is closed takes away no file that is complete.
    for what, path in (("Numbers", json_path), ("Plot", plot_path)):
        if path is not None:
            click.echo(f"{what}: {path}")


def _read(path: Path, is_volume: bool) -> tuple[Volume, bool]:
    """A volume, and whether a network made it; a note where the file does not say what it is.

    Raises:
        InputError: for a stack of images.
    """
    found = upright(opened := open_volume_file(path))
    if opened.axes != "zyx":
        click.echo(f"Note: {found.notes[-1]}", err=True)
    if found.incomplete:
        click.echo(f"Note: {path}: {found.incomplete}", err=True)
    if not is_volume:
        refuse_stack(found, IS_VOLUME)
        refuse_map(path, found.labels)
    if not is_volume and found.told.content == "unknown":
        click.echo(f"Note: {path} is taken for a volume: {found.told.reason}", err=True)
    return Volume(found.voxels(), found.voxel_size_angstrom, found.origin_angstrom), found.of_network


def _read_mask(path: Path, volume: Volume, volume_path: Path, size: float | None) -> NDArray[np.generic]:
    """Return the weights of a mask, or raise InputError if they do not fit the volume or keep nothing.

    Args:
        path: of the mask.
        volume: that it is for.
        volume_path: of that, for messages.
        size: edge of a voxel that the user gave for all, or None: headers count.
    """
    mask = _read(path, is_volume=True)[0]
    check_mask(mask.voxels, str(path), volume, str(volume_path))
    sizes = (mask.voxel_size_angstrom, volume.voxel_size_angstrom)
    for doubt in doubts_about_mask(sizes, (str(path), str(volume_path))) if size is None else ():
        click.echo(f"Warning: {doubt}", err=True)
    return mask.voxels


def _resolution(values: FloatArray, curve: FscCurve, threshold: float, voxel_size: float | None) -> Resolution:
    """Return the resolution of one column of a curve."""
    return resolution_at(values, curve.frequency_per_px, threshold, voxel_size)


def _table(curve: FscCurve, voxel_size: float | None) -> list[str]:
    """Return the lines of the curve, one per shell from the first above frequency 0."""
    scale, unit = (1.0, "px") if voxel_size is None else (voxel_size, "Å")
    columns = curve.columns()
    lines = [f"{'1/' + unit:>9}{unit:>9}" + "".join(f"{HEADINGS[name]:>10}" for name in columns)]
    for shell, frequency in enumerate(curve.frequency_per_px[1:], start=1):
        cells = "".join(f"{_number(values[shell]):>10}" for values in columns.values())
        lines.append(f"{frequency / scale:>9.5f}{scale / frequency:>9.2f}{cells}")
    return lines


def _summary(curve: FscCurve, voxel_size: float | None) -> list[str]:
    """Return the lines below the table: the mean of each column and its resolutions."""
    columns = curve.columns()
    lines = ["", f"{'mean':>18}" + "".join(f"{_number(mean_correlation(v)):>10}" for v in columns.values())]
    for threshold in THRESHOLDS:
        found = [_resolution(values, curve, threshold, voxel_size) for values in columns.values()]
        label = f"{found[0].unit} at {threshold:g}"
        lines.append(f"{label:>18}" + "".join(f"{_period(resolution):>10}" for resolution in found))
    return lines


def _number(value: float) -> str:
    """Return a correlation as text, a dash where there is none."""
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _period(resolution: Resolution) -> str:
    """Return a resolution as text: ``<`` for a curve that never falls below, a dash for one that never lies above."""
    if not math.isfinite(resolution.value):
        return "-"
    return f"{'' if resolution.reached else '<'}{resolution.value:.2f}"
