"""What users get, on a few small specimens: options and methods of the benchmarks that change the images alone."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from common import parser, read_arguments

import cryolithe

Method = Callable[..., cryolithe.Volume]
NO_VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


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


def reconstructing(
    models: Sequence[str], variants: Mapping[str, Mapping[str, Any]] = NO_VARIANTS, **settings: Any
) -> dict[str, Method]:
    """FBP and the models by name: each takes images, angles and voxel size, as ``cryolithe.reconstruct`` does.

    What they warn of is not shown.

    Args:
        models: names of bundled models or paths.
        variants: other settings of each model, by what they add to its name.
        settings: of all.
    """

    def quiet(make: Method, **own: Any) -> Method:
        def made(*series: Any) -> cryolithe.Volume:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", cryolithe.CryoLitheWarning)
                return make(*series, **settings, **own)

        return made

    methods = {"FBP": quiet(cryolithe.fbp)}
    for name in models:
        for added, own in {"": {}, **variants}.items():
            methods[name + added] = quiet(cryolithe.reconstruct, model=name, **own)
    return methods
