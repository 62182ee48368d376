"""``cryolithe denoise``: a volume in, the same volume with less noise out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryolithe.cli.denoise_n2n import N2N_ONLY, check_method, inputs_of, run_n2n
from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import InputError, OutputError

if TYPE_CHECKING:
    import torch

    from cryolithe.denoise.job import DenoiseJob
    from cryolithe.denoise.run import Denoised
    from cryolithe.settings import ReconstructSettings
    from cryolithe.work.watcher import Watcher

FilePath = click.Path(path_type=Path)
Positive = click.FloatRange(min=0, min_open=True)


@click.command("denoise", no_args_is_help=True)
@click.argument("volume", type=FilePath, required=False)
@click.option(
    "-o", "--output", type=FilePath, help="Volume to write. Default: VOLUME_samba or _n2n with the same ending."
)
@click.option(
    "--method",
    type=click.Choice(["samba", "n2n"]),
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
    "--model", type=FilePath, metavar="FILE", help="Use these weights; with --train-minutes start from them instead."
)
@click.option(
    "--lmax", type=click.IntRange(min=1), help="Largest gap of inference (half of it in training). Default: see above."
)
@click.option("--lmax-sweep", type=FilePath, metavar="PNG", help="Draw a crop with several Lmax, and stop there.")
@click.option("--augment", is_flag=True, help="Mean over four flips: a little better, four times the time.")
@click.option(
    "--keep-low/--no-keep-low",
    default=True,
    show_default=True,
    help="Keep the input's lowest frequencies, where it and the output hardly differ. The published method does not.",
)
@click.option("--report", type=FilePath, metavar="PNG", help="Draw before, after, spectra and correlations.")
@click.option(
    "--half1",
    type=FilePath,
    help="Volume of the even images: n2n learns from it, samba's guard compares; with --half2.",
)
@click.option("--half2", type=FilePath, help="Volume of the odd images.")
@click.option(
    "--backbone",
    type=click.Choice(["unet-small", "unet", "msd", "scunet"]),
    help="Network of n2n. Default: unet-small on a CPU, unet on a GPU.",
)
@click.option("--loss", type=click.Choice(["l2", "l1", "l0", "fsc", "mixed"]), help="What n2n minimises. Default: l2.")
@click.option("--voxel-size", type=Positive, metavar="Å", help="In place of the file's, to choose Lmax.")
@click.option("--crop", type=click.IntRange(min=64), help="Side of the squares. Default: 256; training on a CPU 128.")
@click.option("--batch", type=click.IntRange(min=1), help="Triplets of a training step. Default: what memory allows.")
@click.option(
    "--size",
    type=click.Choice(["published", "small"]),
    default="published",
    show_default=True,
    help="Of the network; small has half the channels and is about twice as fast.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16 or fp16.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: what the system grants.")
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
      cryolithe denoise tomo.mrc --lmax 20 --lmax-sweep lmax.png     look, then choose ...
      cryolithe denoise tomo.mrc --model tomo_samba.safetensors --lmax 8
      torchrun --nproc-per-node 4 -m cryolithe denoise tomo.mrc      several GPUs train together

    n2n (Noise2Noise): the network learns to predict one half volume from the other, whose noise is another.

    \b
      cryolithe denoise --method n2n --half1 tomo_EVN.mrc --half2 tomo_ODD.mrc      -> tomo_n2n.mrc
      cryolithe denoise tomo.mrc --method n2n --model tomo_n2n.safetensors          no training

    tomo_samba.json records how it was made and what the guard found: whether signal was lost, or energy appeared where
    the input had none. Ctrl-C keeps what is done and leaves with exit code 130; --resume goes on.
    """
    import torch

    from cryolithe.denoise.job import DenoiseJob
    from cryolithe.denoise.output import default_output
    from cryolithe.denoise.run import denoise
    from cryolithe.device import choose_device, keep_freed_memory
    from cryolithe.optimise.distributed import Place, join_processes, leave_processes
    from cryolithe.work.watcher import Silent

    method = options.pop("method")
    check_method(context, method)
    keep_freed_memory()
    threads = options.pop("threads")
    if threads:
        torch.set_num_threads(threads)
    device = choose_device(options.pop("device"))
    precision = _precision(options.pop("precision"), device)
    half1, half2 = options.pop("half1"), options.pop("half2")
    if bool(half1) != bool(half2):
        raise InputError("--half1 and --half2 belong together: give both or neither")
    if method == "n2n":
        run_n2n(inputs_of(volume, half1, half2), output, options, Place(device, precision))
        return
    if volume is None:
        raise InputError("give the VOLUME to denoise; halves alone are what --method n2n takes")
    job = DenoiseJob(
        volume=volume,
        output=output or default_output(volume),
        halves=(half1, half2) if half1 else None,
        sweep=options.pop("lmax_sweep"),
        **{name: value for name, value in options.items() if name not in N2N_ONLY},
    )
    job = _asked(job)
    place = join_processes(device, precision)
    try:
        with progress_watcher() as watcher:
            done = denoise(job, place, watcher if place.rank == 0 else Silent())
    finally:
        leave_processes()
    if done.output is not None:
        say(summary(job, done))


def _asked(job: DenoiseJob) -> DenoiseJob:
    """On a terminal, ask whether a file is a volume if it does not say so; elsewhere the run will refuse it."""
    import sys
    from dataclasses import replace

    from cryolithe.formats.volume_file import open_volume_file

    if job.is_volume or not sys.stdin.isatty() or open_volume_file(job.volume).told.content != "unknown":
        return job
    question = f"{job.volume} does not say whether it is a volume or a stack of images. Is it a volume?"
    return replace(job, is_volume=True) if click.confirm(question, err=True) else job


def summary(job: DenoiseJob, done: Denoised) -> str:
    """The line that tells of a finished run."""
    if job.sweep is not None:
        return f"{job.sweep}: choose an Lmax, then: cryolithe denoise {job.volume} --model {done.weights} --lmax N"
    warnings = len(done.verdict.warnings) if done.verdict else 0
    said = f"{warnings} warning{'s' if warnings > 1 else ''} of the guard, see above" if warnings else "no warnings"
    minutes = done.seconds.get("denoising", 0.0) / 60
    return f"{done.output}: denoised in {minutes:.1f} min, record in {job.sidecar.name}; {said}"


@dataclass(frozen=True)
class Denoising:
    """Denoises the volume of a reconstruction that was just made, beside it; an interrupted run is gone on with.

    Attributes:
        minutes: limit of the training; None: as for ``cryolithe denoise``.
    """

    minutes: float | None

    def is_done(self, volume: Path, overwrite: bool) -> bool:
        """Whether this very volume has been denoised with these settings; a file of the right name says nothing.

        Raises:
            OutputError: if the denoised volume that is there was made of something else, and is not to be replaced.
        """
        from cryolithe.denoise.job import made_before

        job = self._job(volume, overwrite)
        if overwrite or not job.output.exists():
            return False
        other = made_before(job) if volume.exists() else f"{volume.name} is not there yet"
        if other is None:
            return True
        raise OutputError(f"{job.output} exists but {other}; remove it, or give --overwrite to replace it")

    def _job(self, volume: Path, overwrite: bool) -> DenoiseJob:
        from cryolithe.denoise.job import DenoiseJob
        from cryolithe.denoise.output import default_output

        return DenoiseJob(
            volume=volume,
            output=default_output(volume),
            train_minutes=self.minutes,
            is_volume=True,
            overwrite=overwrite,
            resume=not overwrite,
        )

    def __call__(self, volume: Path, settings: ReconstructSettings, watcher: Watcher) -> str:
        """Denoise a volume, which is kept.

        Args:
            volume: the reconstruction.
            settings: of the reconstruction, for device, precision and whether files may be replaced.
            watcher: is told.

        Returns:
            the line that tells of it.
        """
        from cryolithe.denoise.run import denoise
        from cryolithe.device import choose_devices
        from cryolithe.optimise.distributed import Place

        if self.is_done(volume, settings.overwrite):
            return f"{volume}: already denoised"
        device = choose_devices(settings.device)[0]
        job = self._job(volume, settings.overwrite)
        return summary(job, denoise(job, Place(device, _precision(settings.precision, device)), watcher))


def _precision(name: str, device: torch.device) -> torch.dtype:
    """The precision of a denoiser: float16 only where its gradients can be scaled."""
    from cryolithe.device import choose_precision
    from cryolithe.optimise.step import trainable

    return trainable(choose_precision(name, device), device)
