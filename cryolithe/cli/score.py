"""``cryolithe score``: a model against FBP and SIRT on specimens with known truth."""

from __future__ import annotations

import datetime
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryolithe import __version__
from cryolithe.cli.complete import complete_model
from cryolithe.cli.numbers import check_snr
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import ModelError, SettingsError

if TYPE_CHECKING:
    from cryolithe.training.class_scoring import SceneScores
    from cryolithe.training.scoring import Score, WorstShell


@click.command("score")
@click.argument("model", default="default", shell_complete=complete_model)
@click.option(
    "--molecules",
    type=click.Path(path_type=Path),
    help="Library to make specimens of: the one that the model was trained with. Default: procedural_1.",
)
@click.option("--snr", "snrs", default="-5,0", show_default=True, help="Signal to noise in the images, dB; a list.")
@click.option(
    "--specimens", type=click.IntRange(1, 64), default=4, show_default=True, help="Specimens to average over."
)
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16 or fp16.")
@click.option("--classes", is_flag=True, help="Score by class of structure too: membranes, filaments, proteins, ...")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the scores to this file too.")
@click.option("--overwrite", is_flag=True, help="Replace an existing JSON file.")
def command(
    model: str, molecules: Path | None, snrs: str, json_path: Path | None, overwrite: bool, **options: Any
) -> None:
    """Score MODEL (a name or a file) on simulated specimens that it never saw.

    Specimens are made of the molecules of procedural_1, which comes with the program, so that anyone can repeat the
    scores; or of those of --molecules that the model's record names as held out. They are tilted from -60 to +60
    degrees in steps of 3, with white noise. "network" is what `cryolithe reconstruct` gives by default: the missing
    wedge weighed by left-out tilts, and a share of filtered back-projection (FBP) included; "network alone" is without
    either. SNR is that of the reconstruction after the best affine fit to the truth; FSC is the mean over all shells
    but the first and the last, in the measured region and in the missing wedge. "Worst shell" is the least FSC minus
    that of FBP over the same shells of the measured region, in any of the specimens, and where it is, in cycles per
    pixel.

    With --classes, tables of the correlation with the truth within the voxels of each class of structure follow, in
    two bands of frequency, on fixed scenes of bilayers, vesicles, filaments, small proteins, and all together.
    """
    import torch

    from cryolithe.diagnosis.machine import checkout_commit, cpu_model
    from cryolithe.formats.files import check_json
    from cryolithe.machine.device import choose_device, choose_precision, keep_freed_memory, precision_name
    from cryolithe.network.checkpoint import load_model
    from cryolithe.reconstruction.slabwise.methods import Compute
    from cryolithe.reconstruction.slabwise.networks import fbp_share
    from cryolithe.report.json_files import write_json
    from cryolithe.simulation import load_library
    from cryolithe.simulation.molecules import PROCEDURAL_1
    from cryolithe.simulation.shipped_molecules import shipped_molecules
    from cryolithe.training.class_scoring import class_benchmark
    from cryolithe.training.scoring import benchmark, unseen_molecules

    try:
        levels = tuple(check_snr(float(part)) for part in snrs.split(","))
    except ValueError as error:
        raise SettingsError(f"--snr must be numbers separated by commas, got '{snrs}'") from error
    if json_path:
        check_json(json_path, overwrite, "the scores")
    keep_freed_memory()
    loaded = load_model(model)
    if loaded.convention.published:
        raise ModelError(
            f"model '{loaded.name}' was imported: its images are not prepared as this benchmark prepares them; "
            "score one of this program's own models"
        )
    device, specimens = choose_device("cpu"), int(options["specimens"])
    dtype = choose_precision(options["precision"], device)
    share = fbp_share(loaded, None)
    chosen = molecules or Path(PROCEDURAL_1)
    shipped = shipped_molecules(chosen) is not None
    unseen = unseen_molecules(loaded.card, load_library((chosen,)), str(chosen), shipped)
    click.echo(
        f"model {loaded.name} {loaded.sha256[:12]}, {precision_name(dtype)}, {share:.0%} FBP where the tilts measured, "
        f"{specimens} specimens of {f'{chosen}: ' if shipped else ''}{', '.join(m.name for m in unseen)}"
    )
    results, compute, made, scenes = {}, Compute(device, dtype), [], []
    with progress_watcher() as watcher:  # tables follow when the bars are gone: they are not for the same stream
        watcher.stage("Scoring", len(levels))
        for found in benchmark(loaded.network, unseen, levels, specimens, compute=compute, share=share):
            made.append(found)
            watcher.advance(1)
        if options["classes"]:
            watcher.stage("Scoring by class", 1)
            scenes = list(class_benchmark(loaded.network, unseen, specimens, compute, share=share))
    click.echo(
        f"{'noise':>8} {'method':<13} {'SNR dB':>7} {'FSC measured':>13} {'FSC missing':>12} {'worst shell (1/px)':>20}"
    )
    for snr_db, scores in made:
        for method, score in scores.items():
            click.echo(
                f"{snr_db:>5g} dB {method:<13} {score.snr_db:>7.2f} {score.fsc_measured:>13.3f} "
                f"{score.fsc_missing:>12.3f} {_shell_text(score.worst_shell):>20}"
            )
        results[f"{snr_db:g} dB"] = {method: _plain(score) for method, score in scores.items()}
    by_class, shells = {}, {}
    for scene in scenes:
        _print_classes(scene)
        by_class[scene.title] = scene.fidelity
        shells[scene.title] = {method: asdict(shell) for method, shell in scene.worst_shells.items()}
    if json_path:
        write_json(
            json_path,
            {
                "cryolithe": __version__,
                "date": datetime.date.today().isoformat(),
                "commit": checkout_commit(),
                "machine": platform.machine(),
                "cpu": cpu_model(),
                "torch": torch.__version__,
                "model": {"name": loaded.name, "sha256": loaded.sha256},
                "precision": precision_name(dtype),
                "fbp_share": share,
                "specimens": specimens,
                "command": _command(model, chosen, snrs, specimens, precision_name(dtype), options["classes"]),
                "library": chosen.name,
                "molecules": [molecule.name for molecule in unseen],
                "scores": results,
                **({"classes": by_class, "worst_shells": shells} if by_class else {}),
            },
        )


def _command(model: str, molecules: Path, snrs: str, specimens: int, precision: str, classes: bool) -> str:
    """What repeats the scores; of files their names, not where they lie on this machine."""
    name = Path(model).name
    words = f"cryolithe score {name} --molecules {molecules.name} --snr={snrs} --specimens {specimens}"
    return f"{words} --precision {precision}{' --classes' if classes else ''}"


def _plain(score: Score) -> dict[str, Any]:
    """A score for JSON, without what was not compared."""
    return {name: value for name, value in asdict(score).items() if value is not None}


def _shell_text(shell: WorstShell | None) -> str:
    """Difference and frequency."""
    return "-" if shell is None else f"{shell.difference:+.3f} at {shell.frequency_per_px:.3f}"


def _print_classes(found: SceneScores) -> None:
    """One line for each class of a scene, one column for each method and band; then the worst shells."""
    from cryolithe.fidelity import BANDS

    table = found.fidelity
    click.echo(f"\n{found.title}: correlation with the truth within each class (sigmas of the band in voxels)")
    click.echo(f"{'':<26}" + "".join(f"{method:>18}" for method in table))
    click.echo(f"{'class':<26}" + "".join(f"{band:>9}" for _ in table for band in BANDS))
    for label in next(iter(table.values())):
        click.echo(
            f"{label:<26}" + "".join(f"{values[label][band]:>9.3f}" for values in table.values() for band in BANDS)
        )
    shells = "".join(f"{_shell_text(found.worst_shells.get(method)):>18}" for method in table)
    click.echo(f"{'worst shell':<26}{shells}")
