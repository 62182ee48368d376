"""CryoLithe: local networks from an aligned cryo-ET tilt series to a clean tomogram.

The commands are functions, too, from arrays or files to values: `reconstruct`, `fbp`, `sirt`, `fsc`, `evaluate`,
`denoise`, `simulate`. They are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cryolithe.errors import CryoLitheError, CryoLitheWarning
    from cryolithe.library.correlating import Fsc, fsc
    from cryolithe.library.denoising import denoise
    from cryolithe.library.evaluating import evaluate
    from cryolithe.library.reconstructing import fbp, reconstruct, sirt
    from cryolithe.library.simulating import Simulated, simulate
    from cryolithe.library.volumes import Volume

__all__ = [
    "CryoLitheError",
    "CryoLitheWarning",
    "Fsc",
    "Simulated",
    "Volume",
    "__version__",
    "denoise",
    "evaluate",
    "fbp",
    "fsc",
    "reconstruct",
    "simulate",
    "sirt",
]

# Where each name is defined: torch is not imported for `cryolithe --help`.
_HOMES = {
    "CryoLitheError": "errors",
    "CryoLitheWarning": "errors",
    "Fsc": "library.correlating",
    "Simulated": "library.simulating",
    "Volume": "library.volumes",
    "denoise": "library.denoising",
    "evaluate": "library.evaluating",
    "fbp": "library.reconstructing",
    "fsc": "library.correlating",
    "reconstruct": "library.reconstructing",
    "simulate": "library.simulating",
    "sirt": "library.reconstructing",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
