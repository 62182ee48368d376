"""``cryolithe denoise``: a volume in, the same volume with less noise out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cryolithe.cli.complete import complete_denoiser
from cryolithe.cli.denoise_images import run_images
from cryolithe.cli.numbers import FiniteRange
from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.cli.settings_options import SectionedCommand
from cryolithe.denoising.entry import Option
from cryolithe.denoising.methods import METHODS, own_options, owners
from cryolithe.errors import InputError, SettingsError

if TYPE_CHECKING:
    import torch

    from cryolithe.denoising.job import Job
    from cryolithe.denoising.run import Denoised

FilePath = click.Path(path_type=Path)
Positive = FiniteRange(min=0, min_open=True)


def _own_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one flag for each option that some denoisers have."""
    for option in reversed(own_options().values()):
        command = _declared(option)(command)
    return command


def _declared(option: Option) -> Callable[..., Any]:
    flag, shown = option.flag, option.default is not None and option.default is not False
    common: dict[str, Any] = {"default": option.default, "show_default": shown, "help": option.text}
    if option.kind is bool:
        if option.default:
            return click.option(f"{flag}/--no-{flag[2:]}", option.name, **common)
        return click.option(flag, option.name, is_flag=True, **common)
    if isinstance(option.kind, tuple):
        kind: click.ParamType = click.Choice(option.kind)
    elif option.kind is Path:
        kind = FilePath
    elif option.kind is int:
        kind = click.IntRange(min=option.least)
    else:
        kind = FiniteRange(min=option.least, min_open=True)
    return click.option(flag, option.name, type=kind, metavar=option.metavar, **common)


def _sections() -> dict[str, list[str]]:
    """Headings of the help page: one for each set of methods that share options."""
    sections: dict[str, list[str]] = {}
    for name in own_options():
        sections.setdefault("Of " + " and ".join(owners(name)), []).append(name)
    return sections


@click.command("denoise", cls=SectionedCommand, sections=_sections(), no_args_is_help=True)
@click.argument("volume", type=FilePath, required=False)
@click.option(
    "-o", "--output", type=FilePath, help="Volume to write. Default: VOLUME_samba or _n2n with the same ending."
)
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    default="samba",
    show_default=True,
    help="From planes of one volume (CryoSamba), or from two halves (Noise2Noise).",
)
@click.option(
    "--train-minutes",
    type=Positive,
    help="Limit of the training. Default: samba 30 on a CPU, on a GPU until nothing improves; n2n 10 and 5.",
)
@click.option(
    "--model",
    type=FilePath,
    metavar="FILE",
    shell_complete=complete_denoiser,
    help="Use these weights; with --train-minutes start from them instead. A name: n2n has general.",
)
@_own_options
@click.option("--report", type=FilePath, metavar="PNG", help="Draw before, after, spectra and correlations.")
@click.option(
    "--half1",
    type=FilePath,
    multiple=True,
    help="Volume of the even images: n2n learns from it, samba's guard compares; with --half2. For several pairs, "
    "several times.",
)
@click.option("--half2", type=FilePath, multiple=True, help="Volume of the odd images.")
@click.option("--batch", type=click.IntRange(min=1), help="Examples of a training step. Default: what memory allows.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16 or fp16.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: what the system grants.")
@click.option("--images", is_flag=True, help="Denoise a stack of tilt images, to look at and to align by; see above.")
@click.option("--is-volume", is_flag=True, help="The file is a volume, even if it may as well be a stack of images.")
@click.option("--fix-nonfinite", is_flag=True, help="Take NaN and Inf voxels for the median.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, order and flips.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.pass_context
def command(context: click.Context, volume: Path | None, output: Path | None, **options: Any) -> None:
    """Denoise a tomogram with a network that learns from this tomogram alone.

    samba (CryoSamba): the network learns to predict each plane from its neighbours along z. VOLUME is an MRC file
    (.mrc, .rec, .map), a TIFF file, or a folder of TIFF files, one for each plane; the output has the same kind, type
    of values, voxel size and contrast. Gaps of up to Lmax planes are averaged; without --lmax it follows the voxel size
    (20 at 2.6 Å, 12 at 7.9 Å, 6 at 15.7 Å, between them interpolated).

    \b
      cryolithe denoise tomo.mrc                                     -> tomo_samba.mrc, .safetensors, .json, .run/
      cryolithe denoise tomo.mrc --train-minutes 60 --report tomo.png
      cryolithe denoise tomo.mrc --lmax 20 --lmax-sweep lmax.png     trains; look, then choose ...
      cryolithe denoise tomo.mrc --model tomo_samba.safetensors --lmax 8
      torchrun --nproc-per-node 4 -m cryolithe denoise tomo.mrc      several GPUs train together

    n2n (Noise2Noise): the network learns to predict one half volume from the other, whose noise is another.

    \b
      cryolithe denoise tomo.mrc --method n2n                                       -> tomo_n2n.mrc, no training
      cryolithe denoise --method n2n --half1 tomo_EVN.mrc --half2 tomo_ODD.mrc      -> tomo_n2n.mrc
      cryolithe denoise --method n2n --half1 a_EVN.mrc --half1 b_EVN.mrc --half2 a_ODD.mrc --half2 b_ODD.mrc
      cryolithe denoise --method n2n tomograms -o denoised       one network for all pairs in a folder
      cryolithe denoise tomo.mrc --method n2n --model tomo_n2n.safetensors          no training

    Tilt images, each by itself, to look at and to align by; not to reconstruct from:

    \b
      cryolithe denoise --images stack.mrc                                          -> stack_denoised.mrc

    tomo_samba.json records how it was made and what the guard found: whether signal was lost, or energy appeared where
    the input had none. Ctrl-C keeps what is done and leaves with exit code 130; --resume goes on.
    """
    import torch

    from cryolithe.denoising.job import Given
    from cryolithe.denoising.run import denoise
    from cryolithe.machine.device import choose_device, keep_freed_memory
    from cryolithe.optimise.distributed import join_processes, leave_processes
    from cryolithe.work.watcher import Silent

    if options.pop("images"):
        run_images(context, volume, output, options)
        return
    entry = METHODS[options.pop("method")]
    _check_method(context, entry.name)
    keep_freed_memory()
    threads = options.pop("threads")
    if threads:
        torch.set_num_threads(threads)
    device = choose_device(options.pop("device"))
    precision = training_precision(options.pop("precision"), device)
    given = Given((volume,) if volume else (), _pairs(options.pop("half1"), options.pop("half2")), output)
    others = own_options().keys() - entry.option_names
    method = entry.load()
    job = method.job(given, {name: value for name, value in options.items() if name not in others})
    _check_idle(context, job)
    job = _asked(job)
    place = join_processes(device, precision)
    try:
        with progress_watcher() as watcher:
            done = denoise(method, job, place, watcher if place.rank == 0 else Silent())
    finally:
        leave_processes()
    if done:
        say(summary(job, done))


def _pairs(half1: tuple[Path, ...], half2: tuple[Path, ...]) -> tuple[tuple[Path, Path], ...]:
    if bool(half1) != bool(half2):
        raise InputError("--half1 and --half2 belong together: give both or neither")
    if len(half1) != len(half2):
        raise InputError(
            f"--half1 was given {len(half1)} times and --half2 {len(half2)} times: give both halves of each volume, in "
            "the same order"
        )
    return tuple(zip(half1, half2, strict=True))


def _check_method(context: click.Context, method: str) -> None:
    """Refuse options that the chosen method does not have, and processes that it cannot use.

    Raises:
        SettingsError: names the option.
    """
    for name, option in own_options().items():
        if _is_given(context, name) and method not in owners(name):
            others = " or ".join(owners(name))
            raise SettingsError(f"{option.flag} goes with --method {others}, not with {method}")
    if not METHODS[method].distributed and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError(f"--method {method} trains in one process; start it without torchrun")


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)


def _check_idle(context: click.Context, job: Job) -> None:
    """Refuse options that change nothing.

    Raises:
        SettingsError: names the first one, and says why.
    """
    for name, reason in job.idle.items():
        if _is_given(context, name):
            raise SettingsError(f"--{name.rstrip('_').replace('_', '-')} {reason}")


def _asked(job: Job) -> Job:
    """On a terminal, ask whether files are volumes if they do not say so; elsewhere the run will refuse them."""
    from cryolithe.formats.volumes.volume_file import open_volume_file

    if job.is_volume or not sys.stdin.isatty():
        return job
    for path in (path for item in job.items for path in item.inputs.values()):
        if open_volume_file(path).told.content == "unknown":
            question = f"{path} does not say whether it is a volume or a stack of images. Is it a volume?"
            return replace(job, is_volume=True) if click.confirm(question, err=True) else job
    return job


def summary(job: Job, done: Sequence[Denoised]) -> str:
    """The lines that tell of a finished run, one for each volume."""
    return "\n".join(_told(job, one) for one in done)


def _told(job: Job, done: Denoised) -> str:
    if done.seconds is None:
        return f"{done.output}: already denoised"
    item = next((item for item in job.items if item.output == done.output), None)
    if item is None:
        volume = next(iter(job.items[0].inputs.values()))
        return f"{done.output}: choose an Lmax, then: cryolithe denoise {volume} --model {done.weights} --lmax N"
    warnings = len(done.warnings)
    said = f"{warnings} warning{'s' if warnings > 1 else ''}, see above" if warnings else "no warnings"
    minutes = done.seconds["denoising"] / 60
    return f"{done.output}: denoised in {minutes:.1f} min, record in {item.sidecar.name}; {said}"


def training_precision(name: str, device: torch.device) -> torch.dtype:
    """The precision of a denoiser: float16 only where its gradients can be scaled."""
    from cryolithe.machine.device import choose_precision
    from cryolithe.optimise.step import trainable

    return trainable(choose_precision(name, device), device)
