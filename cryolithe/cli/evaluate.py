"""``cryolithe evaluate``: how good is a tomogram, by every test that the data at hand allow?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryolithe.cli.plain import say
from cryolithe.errors import InputError, OutputError, SettingsError
from cryolithe.formats.files import refuse_existing

if TYPE_CHECKING:
    from cryolithe.evaluation.evaluate import Evaluation, Pictures

FilePath = click.Path(path_type=Path)
INPUTS = ("volume", "reference", "half1", "half2", "mask", "tilts", "angles", "particles", "template")


@click.command("evaluate", no_args_is_help=True)
@click.argument("volume", type=FilePath)
@click.option("--reference", type=FilePath, metavar="REF", help="The truth, or a better volume.")
@click.option("--half1", type=FilePath, help="Reconstruction of the even frames or tilts; with --half2.")
@click.option("--half2", type=FilePath, help="Reconstruction of the odd ones.")
@click.option("--mask", type=FilePath, help="Volume of weights: 1 keeps a voxel, 0 leaves it out.")
@click.option(
    "--tilts",
    type=FilePath,
    help="Stack to compare with projections, aligned, or the raw one of the volume; with --angles.",
)
@click.option("--angles", type=FilePath, help="Tilt angles of the stack.")
@click.option(
    "--held-out",
    metavar="WHICH",
    help="Images that the volume was not made from: 'beyond 60' (degrees) or numbers from 1 such as 1,5,9-12. Default: "
    "those that the volume's sidecar does not list; it decides, and without one nobody knows.",
)
@click.option(
    "--tilt-range",
    metavar="DEG|MIN,MAX",
    help="Of the data behind the volume. Default: from its sidecar, else from --angles, else ±60°.",
)
@click.option("--particles", type=FilePath, metavar="STAR", help="Known positions, for picking and region SNR.")
@click.option("--template", type=FilePath, metavar="MAP", help="Map of the particles, dense = bright, for matching.")
@click.option("--kind", metavar="NAME", help="Which of the particles the template is (cryolitheMolecule or class).")
@click.option("--particle-diameter", type=float, metavar="Å", help="Default: 280, a ribosome.")
@click.option(
    "--contrast", type=click.Choice(["dark", "bright"]), help="Dense matter in the volume. Default: sidecar, dark."
)
@click.option("--crop", is_flag=True, help="Compare the middle that volumes of different shapes have in common.")
@click.option("--is-volume", is_flag=True, help="The files are volumes, even if they seem to be stacks of images.")
@click.option("--keep-sign", is_flag=True, help="Do not flip a reference of the other polarity.")
@click.option(
    "-o", "--output", type=FilePath, metavar="OUT", help="Folder, or .html file. Default: VOLUME_evaluation.html."
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--device", default="auto", show_default=True, help="Of Fourier transforms: auto, cpu, cuda or cuda:i.")
def command(output: Path | None, overwrite: bool, device: str, **options: Any) -> None:
    """Score a tomogram and write a report (one HTML file, and the numbers as JSON beside it).

    With a reference: FSC (all, measured, missing wedge, by direction), SNR, PSNR, SSIM. With halves: their FSC, the SNR
    of Frank and Al-Ali, and a map of local agreement (written as .mrc). With tilts: projections of the volume against
    images that it was not made from, the honest test on real data. With particles: picking and template matching.
    Always: energy in the missing wedge and streaks. The report says what was not tested, and why.

    \b
    Examples
      cryolithe evaluate rec.mrc --reference truth.mrc
      cryolithe evaluate rec.mrc --half1 rec_EVN.mrc --half2 rec_ODD.mrc -o report/
      cryolithe evaluate rec.mrc --tilts tilts.mrc --angles tilts.tlt --held-out "beyond 50"
    """
    import datetime

    from cryolithe import __version__
    from cryolithe.arrays.spectra import transforming
    from cryolithe.cli.fsc import parse_wedge
    from cryolithe.evaluation.evaluate import evaluate
    from cryolithe.evaluation.figures import draw_figures
    from cryolithe.evaluation.html import render, resolution_rows, summary_rows
    from cryolithe.evaluation.inputs import Request, load
    from cryolithe.evaluation.on_device import transforms_on
    from cryolithe.formats.files import all_or_none, make_folder, replacing, sync
    from cryolithe.formats.record import hashed
    from cryolithe.machine.device import choose_device
    from cryolithe.report.json_files import write_json

    if bool(options["half1"]) != bool(options["half2"]):
        raise SettingsError("--half1 and --half2 belong together: give both or neither")
    tilt_range = options.pop("tilt_range")
    halves = (options["half1"], options["half2"]) if options["half1"] else None
    for name in INPUTS:
        path = options[name]
        folder_allowed = name not in ("tilts", "angles", "particles")
        if path is not None and not (path.is_file() or (folder_allowed and path.is_dir())):
            raise InputError(f"{path} does not exist or is no file; check its name and folder")
    page, numbers, agreement = _outputs(options, output, overwrite)
    given = dict(options)
    request = Request(
        halves=halves,
        tilt_range_deg=None if tilt_range is None else parse_wedge(tilt_range, "--tilt-range"),
        particle_diameter_angstrom=options.pop("particle_diameter"),
        **{name: value for name, value in options.items() if name not in ("half1", "half2")},
    )
    chosen = choose_device(device)
    task = load(request)
    with transforming(transforms_on(chosen, lambda text: say(f"Note: {text}", err=True))):
        found, shown = evaluate(task, lambda step: say(f"... {step}", err=True))
    say("... figures", err=True)
    text = render(found, draw_figures(found, shown), datetime.date.today().isoformat())
    make_folder(page.parent)
    inputs = {name: path for name in INPUTS if (path := given[name]) is not None}
    record = {"cryolithe": __version__, "inputs": hashed(inputs), "request": request, "evaluation": found}
    with all_or_none((page, numbers, agreement)), replacing(page, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)  # before anything of this evaluation has its name: on a full disk nothing is left
        _write_agreement(agreement, found, shown)
        write_json(numbers, record)

    for warning in found.warnings:
        say(f"Warning: {warning}", err=True)
    rows, periods = summary_rows(found), resolution_rows(found)
    width = max(len(row[0]) for row in (*rows, *periods)) + 2
    for row in rows:
        say(f"{row[0]:<{width}}{row[1]:>12}")
    for name, told in periods:
        say(f"{name:<{width}}  {told}")
    for test, why in found.skipped.items():
        say(f"not tested: {test} ({why.split(';')[0]})")
    say(f"Report: {page}")
    say(f"Numbers: {numbers}")
    if shown.agreement is not None:
        say(f"Agreement map: {agreement}")


def _outputs(options: dict[str, Any], output: Path | None, overwrite: bool) -> tuple[Path, Path, Path]:
    """Names of the report, the numbers and the agreement map; OutputError if one may not be written."""
    from cryolithe.formats.files import check_folder_name

    volume: Path = options["volume"]
    if output is None:
        page = volume.with_name(f"{volume.stem}_evaluation.html")
    elif output.suffix.lower() in (".html", ".htm"):
        page = output
        if not page.parent.is_dir():
            raise OutputError(f"{page}: there is no folder {page.parent}; make it first")
    else:
        check_folder_name(output, "or a name ending in .html")
        page = output / "evaluation.html"
    paths = (page, page.with_suffix(".json"), page.with_name(f"{page.stem}_agreement.mrc"))
    inputs = [options[name] for name in INPUTS if options[name] is not None]
    # A map that an earlier evaluation left under this name belongs to that one: it is looked at, too.
    for path in paths:
        if path.exists() and any(path.samefile(other) for other in inputs):
            raise OutputError(f"{path} is an input of this command; give another name with -o")
        refuse_existing(path, overwrite)
    return paths


def _write_agreement(path: Path, found: Evaluation, shown: Pictures) -> None:
    """Write the agreement map, or remove that of the evaluation which is replaced."""
    from cryolithe import __version__
    from cryolithe.formats import write_volume
    from cryolithe.volume import Volume

    if shown.agreement is not None:
        label = f"CryoLithe {__version__} agreement of halves"
        made = Volume(shown.agreement, found.voxel_size_angstrom, shown.agreement_origin_angstrom)
        write_volume(path, made, label=label, overwrite=True)
    else:
        path.unlink(missing_ok=True)  # of an evaluation that is replaced: it is of other halves
