"""``cryolithe denoise --images``: a stack of tilt images to look at and to align by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import InputError, SettingsError

_KNOWN = frozenset(
    {
        "images",
        "volume",
        "output",
        "model",
        "half1",
        "half2",
        "device",
        "precision",
        "threads",
        "fix_nonfinite",
        "overwrite",
    }
)


def run_images(context: click.Context, stack: Path | None, output: Path | None, options: dict[str, Any]) -> None:
    """Denoise images and say what was made.

    Raises:
        CryoLitheError: for everything that the user can mend.
    """
    import torch

    from cryolithe.cli.halves import check_stacks
    from cryolithe.denoising.images.run import ImagesJob, denoise_images
    from cryolithe.machine.device import choose_device, choose_precision, keep_freed_memory
    from cryolithe.optimise.distributed import Place
    from cryolithe.optimise.step import trainable

    for name in context.params:
        if name not in _KNOWN and context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None):
            raise SettingsError(
                f"--{name.rstrip('_').replace('_', '-')} does not go with --images, which trains nothing"
            )
    keep_freed_memory()
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    device = choose_device(options["device"])
    precision = trainable(choose_precision(options["precision"], device), device)
    stacks = _stacks(stack, options["half1"], options["half2"])
    doubts = check_stacks((stacks[0], stacks[1])) if len(stacks) == 2 else ()
    job = ImagesJob(
        stacks,
        output,
        options["model"],
        options["fix_nonfinite"],
        options["overwrite"],
        doubts,
    )
    try:
        with progress_watcher() as watcher:
            done = denoise_images(job, Place(device, precision), watcher)
    except KeyboardInterrupt:  # of volumes what is done is kept, which the command would tell
        say("Interrupted. Nothing is written: repeat the command.", err=True)
        context.exit(130)
    lines = [done.score.told()] if done.score else []
    lines.append(f"Noise: what of the images is noise is told by {done.noise}.")
    if done.blank:
        lines.append(f"{done.blank} blank images are passed on as they are.")
    if done.of_one:
        lines.append(f"{done.of_one} images are blank in one half, and made of the other alone.")
    lines.append(
        f"{done.output}: denoised in {done.seconds / 60:.1f} min, for looking and aligning, not for reconstruction"
    )
    say("\n".join(lines))


def _stacks(stack: Path | None, half1: tuple[Path, ...], half2: tuple[Path, ...]) -> tuple[Path, ...]:
    """One stack, or two of halves."""
    if len(half1) != len(half2) or len(half1) > 1:
        raise InputError("--images takes one --half1 and one --half2, or one stack")
    if half1 and stack is not None:
        raise InputError(f"give either the stack or --half1 and --half2: {stack} would not be used")
    if half1:
        return half1[0], half2[0]
    if stack is None:
        raise InputError("give the stack of tilt images, or --half1 and --half2 with those of even and odd frames")
    return (stack,)
