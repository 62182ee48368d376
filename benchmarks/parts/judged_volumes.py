"""The volumes that judges compare: of one series by one method, whole or of each half, by the real commands.

What is there already is not made again. ``N2N`` learns from the two FBP halves of the series, ``N2N-general`` is the
network that comes with the program, ``Samba`` learns from the one volume that it denoises, and ``Gaussian`` has the
width that the halves call for (baselines/classical.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from baselines.classical import gaussian
from common import METHOD_WORDS, cryolithe_command, peak_rss_of
from numpy.typing import NDArray

from cryolithe.denoising.n2n.bundled import general_weights
from cryolithe.errors import InputError
from cryolithe.formats import read_volume, write_volume
from cryolithe.volume import Volume

Array = NDArray[Any]

FBP, GAUSSIAN, N2N, GENERAL, SAMBA = "FBP", "Gaussian", "N2N", "N2N-general", "Samba"
METHODS = (FBP, GAUSSIAN, N2N, GENERAL, SAMBA, *(name for name in METHOD_WORDS if name != FBP))
WHOLE, HALVES = "tilts", ("even", "odd")
LABEL = "benchmark on deposited data"


@dataclass(frozen=True)
class Making:
    """A series made ready, and how its volumes are made.

    Attributes:
        folder: holds tilts.mrc, even.mrc, odd.mrc with .tlt files; volumes are written into folders of the methods.
        thickness: planes.
        device: of the commands.
        minutes: of each training; None for what the commands take by themselves.
    """

    folder: Path
    thickness: int
    device: str
    minutes: float | None = None


def usual_methods() -> tuple[str, ...]:
    """Those compared without a choice: all but the slow SIRT and what this copy of the program has no weights for."""
    missing = () if general_weights() else (GENERAL,)
    return tuple(name for name in METHODS if name not in ("SIRT", *missing))


def volume_of(making: Making, method: str, part: str = WHOLE) -> Path:
    """The volume that a method makes of all images, or of those of one half alone; made if it is not there.

    Args:
        making: the series.
        method: one of `METHODS`.
        part: "tilts", "even" or "odd".
    """
    learns = method in (N2N, SAMBA) and making.minutes is not None
    path = making.folder / (f"{method}-{making.minutes:g}-min" if learns else method) / f"{part}_rec.mrc"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _MAKERS.get(method, _reconstruct)(making, method, part, path)
    return path


def halves_of(making: Making, method: str) -> tuple[Path, Path]:
    """What a method makes of the even and of the odd half, each by itself."""
    return volume_of(making, method, HALVES[0]), volume_of(making, method, HALVES[1])


def low_pass(volume: Array, factor: int) -> Array:
    """A volume without what binning by ``factor`` loses; same shape ``(z, y, x)``, float32."""
    spectrum = scipy.fft.rfftn(np.asarray(volume, dtype=np.float32))
    for axis, size in enumerate(volume.shape):
        frequency = scipy.fft.rfftfreq(size) if axis == 2 else scipy.fft.fftfreq(size)
        shape = [1, 1, 1]
        shape[axis] = -1
        spectrum *= (np.abs(frequency) <= 0.5 / factor).reshape(shape)
    return np.asarray(scipy.fft.irfftn(spectrum, s=volume.shape), dtype=np.float32)


def run_command(words: list[str]) -> None:
    """Run one of the program's commands.

    Raises:
        InputError: if it fails; its own last line.
    """
    try:
        peak_rss_of([*cryolithe_command(), *words])
    except RuntimeError as error:
        raise InputError(f"cryolithe {words[0]} failed: {str(error).strip().splitlines()[-1]}") from error


def _reconstruct(making: Making, method: str, part: str, path: Path) -> None:
    stack = making.folder / f"{part}.mrc"
    words = [str(stack), str(stack.with_suffix(".tlt")), "-o", str(path), "--thickness", str(making.thickness)]
    run_command(["reconstruct", *words, "--device", making.device, "--overwrite", *METHOD_WORDS[method]])


def _smooth(making: Making, method: str, part: str, path: Path) -> None:
    even, odd = (np.asarray(read_volume(half).voxels, np.float32) for half in halves_of(making, FBP))
    source = read_volume(volume_of(making, FBP, part))
    made = gaussian(np.asarray(source.voxels, np.float32), even, odd)
    write_volume(path, Volume(made.volume, source.voxel_size_angstrom), label=f"{LABEL}: sigma {made.value:g} px")


def _learn_halves(making: Making, method: str, part: str, path: Path) -> None:
    if part == WHOLE:
        even, odd = halves_of(making, FBP)
        _denoise(making, ["--method", "n2n", "--half1", str(even), "--half2", str(odd), *_minutes(making)], path)
    else:
        weights = volume_of(making, method).with_suffix(".safetensors")
        source = volume_of(making, FBP, part)
        _denoise(making, [str(source), "--method", "n2n", "--model", str(weights)], path)


def _apply_general(making: Making, method: str, part: str, path: Path) -> None:
    if general_weights() is None:
        raise InputError(f"this copy of the program has no general denoiser for {method}; leave it out of --methods")
    _denoise(making, [str(volume_of(making, FBP, part)), "--method", "n2n"], path)


def _learn_volume(making: Making, method: str, part: str, path: Path) -> None:
    _denoise(making, [str(volume_of(making, FBP, part)), "--method", "samba", *_minutes(making)], path)


def _denoise(making: Making, words: list[str], path: Path) -> None:
    run_command(["denoise", *words, "-o", str(path), "--device", making.device, "--overwrite"])


def _minutes(making: Making) -> list[str]:
    return [] if making.minutes is None else ["--train-minutes", f"{making.minutes:g}"]


_MAKERS: dict[str, Callable[[Making, str, str, Path], None]] = {
    GAUSSIAN: _smooth, N2N: _learn_halves, GENERAL: _apply_general, SAMBA: _learn_volume,
}  # fmt: skip
