"""Many series on disk: each is simulated once, whenever it is needed first, by however many processes at a time.

series.json             what they are drawn from: another configuration does not go on with them
000001.safetensors      halves and clean volume in half precision
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.denoise_training.volumes import Halves, Volume
from cryolithe.errors import OutputError, SettingsError
from cryolithe.formats.files import replacing
from cryolithe.optimise.tensors import read_tensors, write_tensors

FORMAT = "cryolithe-n2n-series"
NAMES = ("first", "second", "clean")
MOST_HALF = 60_000.0  # of half precision


@dataclass(frozen=True)
class Stored:
    """A series in memory, in half precision; see `cryolithe.denoise_training.volumes.Halves`."""

    first: NDArray[np.float16]
    second: NDArray[np.float16]
    clean: NDArray[np.float16]
    whole_sigma: tuple[float, ...]
    told: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels ``(z, y, x)``."""
        z, y, x = self.first.shape
        return z, y, x

    def sigma(self, planes: slice, amount: float) -> NDArray[np.float32]:
        """Deviation of planes with noise of a strength, shape ``(z, 1, 1)``.

        Half the difference of the halves is the noise of their mean: ``σ(half)² = σ(whole)² + σ²``, σ(half) being 1.
        """
        whole = np.broadcast_to(np.array(self.whole_sigma), self.shape[:1])[planes] ** 2
        noise = np.maximum(1.0 - whole, 1e-4)
        return np.sqrt(whole + amount**2 * noise).astype(np.float32)[:, None, None]


@dataclass(frozen=True)
class Store:
    """A folder of series.

    Attributes:
        folder: made if it is not there.
        make: series of a number.
    """

    folder: Path
    make: Callable[[int], Halves]

    def path(self, number: int) -> Path:
        """File of a series."""
        return self.folder / f"{number:06d}.safetensors"

    def ensure(self, number: int) -> None:
        """Simulate a series that is not there.

        Raises:
            OutputError: if it cannot be written.
        """
        if self.path(number).is_file():
            return
        made = self.make(number)
        tensors = {name: torch.from_numpy(_half(getattr(made, name))) for name in NAMES}
        own = self.folder / f"{number:06d}.{os.getpid()}.new"
        write_tensors(own, tensors, FORMAT, {"whole_sigma": list(made.whole_sigma), "told": made.told})
        own.replace(self.path(number))

    def load(self, number: int) -> Stored:
        """A series that is there.

        Raises:
            ModelError: if its file is damaged.
        """
        tensors, values = read_tensors(self.path(number), FORMAT, "a simulated series of a denoiser's training")
        first, second, clean = (tensors[name].numpy() for name in NAMES)
        sigma = values["whole_sigma"]
        whole = tuple(float(one) for one in (sigma if isinstance(sigma, list) else [sigma]))
        return Stored(first, second, clean, whole, dict(values["told"]))


def series_sha256(decides: dict[str, Any]) -> str:
    """SHA-256 of the plain values that series depend on."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def open_store(folder: Path, make: Callable[[int], Halves], decides: dict[str, Any]) -> Store:
    """Open a folder of series, or make it.

    Args:
        folder: of the series.
        make: series of a number.
        decides: plain values that the series depend on.

    Raises:
        SettingsError: if it holds series of other values.
        OutputError: if it cannot be made.
    """
    digest = series_sha256(decides)
    record = folder / "series.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if record.exists():
            if json.loads(record.read_text(encoding="utf-8")).get("sha256") != digest:
                raise SettingsError(
                    f"{folder} holds series of another configuration, of other recipes or molecules; "
                    "remove it or choose another -o"
                )
        else:
            with replacing(record, overwrite=True) as temporary:
                temporary.write_text(json.dumps({"sha256": digest, "of": decides}, indent=1), encoding="utf-8")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise OutputError(f"cannot use the folder {folder}: {error}") from error
    return Store(folder, make)


def _half(values: Volume) -> NDArray[np.float16]:
    return np.clip(values, -MOST_HALF, MOST_HALF).astype(np.float16)
