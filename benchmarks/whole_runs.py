"""What users get, on a few small specimens: options and methods of the benchmarks that change the images alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import parser, read_arguments

import cryolithe

Method = Callable[..., cryolithe.Volume]


def specimen_arguments(name: str, description: str | None, models: Sequence[str]) -> argparse.Namespace:
    """Read the command line: ``models``, ``molecules``, ``specimens`` beside the options of every benchmark.

    A quick run takes one specimen and the smallest model.
    """
    options = parser(name, description)
    options.add_argument("--models", nargs="+", default=[*models], help="names of bundled models or paths")
    options.add_argument("--molecules", type=Path, metavar="LIBRARY", help="HDF5 file; default: procedural molecules")
    options.add_argument("--specimens", type=int, default=3)
    arguments = read_arguments(options)
    if arguments.quick:
        arguments.models, arguments.specimens = ["draft"], 1
    return arguments


def reconstructing(models: Sequence[str], **settings: Any) -> dict[str, Method]:
    """FBP and the models by name: each takes images, angles and voxel size, as ``cryolithe.reconstruct`` does."""

    def network(name: str) -> Method:
        return lambda *series: cryolithe.reconstruct(*series, model=name, **settings)

    return {"FBP": lambda *series: cryolithe.fbp(*series, **settings)} | {name: network(name) for name in models}
