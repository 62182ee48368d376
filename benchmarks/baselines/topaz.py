"""Topaz-Denoise's pretrained 3-D network (Bepler et al., Nat. Commun. 11, 5208, 2020), run as the program it is.

Topaz (GPL-3) lives in an environment of its own, whose Python is given on the command line; its weights come in its
package:

    python -m venv topaz && topaz/bin/pip install topaz-em "setuptools<81"

(its way of finding its weights needs the module pkg_resources, which later versions of setuptools lack).

Volumes go to it as MRC files with mean 0 and standard deviation 1, whole (``--patch-size 0``), so that nothing is lost
at the borders of patches. It was trained on tomograms as they are usually written, protein dark, so volumes are
inverted for it and back; ``dark=False`` leaves them bright. LOG.md has both measured.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import torch
from numpy.typing import NDArray

Volume = NDArray[np.float32]

# Not the script `topaz`, which imports what its other commands need (torchvision).
MODULE = "topaz.commands.denoise3d"
SMALLEST = 32  # its network halves a volume five times
ERROR_TAIL = 1000


@dataclass(frozen=True)
class Topaz:
    """A Topaz that can be run.

    Attributes:
        python: of the environment that it is installed in.
        version: of the package.
        model: pretrained network; that for voxels of 10 Å.
    """

    python: Path
    version: str
    model: str = "unet-3d-10a"

    def denoise(self, volume: Volume, voxel_size_angstrom: float, dark: bool = True) -> Volume:
        """Denoise a volume.

        Args:
            volume: shape ``(z, y, x)``, dense = bright.
            voxel_size_angstrom: edge of a voxel, for the file's header.
            dark: whether to show Topaz dense matter dark.

        Raises:
            RuntimeError: if Topaz fails; holds the end of what it said.
        """
        mean, deviation = float(volume.mean()), float(volume.std())
        sign = -1.0 if dark else 1.0
        shown = sign * (volume - mean) / deviation
        shown = np.pad(shown, [(0, max(0, SMALLEST - n)) for n in volume.shape], mode="reflect")
        with tempfile.TemporaryDirectory() as name:
            source, folder = Path(name) / "volume.mrc", Path(name) / "out"
            with mrcfile.new(source) as file:
                file.set_data(shown.astype(np.float32))
                file.voxel_size = voxel_size_angstrom
            words = ["--model", self.model, "--patch-size", "0", "--device", "-1"]
            words += ["--num-threads", str(torch.get_num_threads()), "--output", str(folder), str(source)]
            _run(self.python, ["-m", MODULE, *words])
            made: NDArray[Any] = np.array(mrcfile.read(folder / source.name), dtype=np.float32)
        inside = made[tuple(slice(0, n) for n in volume.shape)]
        return np.asarray(sign * deviation * inside + mean, dtype=np.float32)


def find_topaz(python: Path) -> Topaz:
    """Check that an environment has Topaz.

    Raises:
        RuntimeError: if it has not; says why.
    """
    said = _run(python, ["-c", "import topaz; print(topaz.__version__)"])
    return Topaz(python, said.strip())


def _run(python: Path, words: list[str]) -> str:
    # Without this environment's paths: the other one has its own packages.
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        done = subprocess.run([str(python), *words], check=False, capture_output=True, text=True, env=surroundings)
    except OSError as error:
        raise RuntimeError(f"{python} cannot be run ({error.strerror}); expected the Python that has Topaz") from error
    if done.returncode:
        said = done.stderr[-ERROR_TAIL:].strip()
        raise RuntimeError(f"{python} {' '.join(words[:2])} ended with exit code {done.returncode}: {said}")
    return done.stdout
