"""``cryolithe denoise --method n2n``: two half volumes in, one volume with less noise out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import InputError, SettingsError

if TYPE_CHECKING:
    from cryolithe.denoise.n2n.job import N2nJob
    from cryolithe.denoise.n2n.run import Denoised
    from cryolithe.optimise.distributed import Place

N2N_ONLY = ("backbone", "loss")
SAMBA_ONLY = ("lmax", "lmax_sweep", "augment", "keep_low", "voxel_size", "crop", "size")


def check_method(context: click.Context, method: str) -> None:
    """Refuse options that the chosen method does not have.

    Raises:
        SettingsError: names the option.
    """
    other, names = ("samba", SAMBA_ONLY) if method == "n2n" else ("n2n", N2N_ONLY)
    for name in names:
        if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None):
            raise SettingsError(f"--{name.replace('_', '-')} goes with --method {other}, not with {method}")


def inputs_of(volume: Path | None, half1: Path | None, half2: Path | None) -> tuple[Path, ...]:
    """Two halves, or one whole volume.

    Raises:
        InputError: if there is neither, or both.
    """
    if half1 is not None and half2 is not None:
        if volume is not None:
            raise InputError(
                f"give either VOLUME or --half1 and --half2: the halves are denoised, {volume} would not be used"
            )
        return half1, half2
    if volume is None:
        raise InputError("give --half1 and --half2 (volumes of even and odd images), or VOLUME and --model")
    return (volume,)


def run_n2n(inputs: tuple[Path, ...], output: Path | None, options: dict[str, Any], place: Place) -> None:
    """Denoise halves, or a whole volume with trained weights, and say what was made.

    Raises:
        CryoLitheError: for everything that the user can mend.
    """
    from cryolithe.denoise.n2n.job import N2nJob, output_of
    from cryolithe.denoise.n2n.run import denoise_halves

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("--method n2n trains in one process; start it without torchrun")
    chosen = {name: value for name, value in options.items() if name not in SAMBA_ONLY}
    job = N2nJob(halves=inputs, output=output or output_of(inputs[0]), **chosen)
    with progress_watcher() as watcher:
        done = denoise_halves(job, place, watcher)
    say(summary(job, done))


def summary(job: N2nJob, done: Denoised) -> str:
    """The line that tells of a finished run."""
    warnings = len(done.verdict.warnings)
    said = f"{warnings} warning{'s' if warnings > 1 else ''} of the guard, see above" if warnings else "no warnings"
    minutes = sum(done.seconds[name] for name in ("training and waiting", "denoising")) / 60
    return f"{done.output}: denoised in {minutes:.1f} min, record in {job.sidecar.name}; {said}"
