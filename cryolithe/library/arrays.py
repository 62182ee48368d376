"""Arrays, tensors and paths as users hand them over, looked at before anything is done with them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryolithe.errors import InputError

if TYPE_CHECKING:
    import torch

    Array: TypeAlias = ArrayLike | torch.Tensor
    Angles: TypeAlias = Iterable[float] | NDArray[Any] | torch.Tensor

Files = str | os.PathLike[str]


def is_path(value: object) -> bool:
    """Whether a value names a file."""
    return isinstance(value, str | os.PathLike)


def path_of(value: Files, what: str) -> Path:
    """The path of a file or folder that must be there.

    Raises:
        InputError: if the name is empty, or nothing is there.
    """
    if not os.fspath(value):
        raise InputError(f"{what}: got an empty name; give a path, or an array")
    path = Path(value)
    if not path.exists():
        raise InputError(f"{what}: {path} does not exist; check its name and folder, or give an array")
    return path


def array_of(value: Any, what: str, axes: str) -> NDArray[Any]:
    """An array of real numbers; a copy only where the values are not in the host's memory.

    Args:
        value: a NumPy array, what becomes one, or a torch tensor on any device.
        what: its name, for messages.
        axes: of which there must be so many, such as ``"z, y, x"``.

    Raises:
        InputError: says what was expected and what was found.
    """
    expected = f"{what}: expected an array ({axes}) of real numbers"
    if np.ma.is_masked(value):
        raise InputError(
            f"{expected}, got one with a mask, which nothing here looks at; give its values alone, with what is masked "
            "filled: array.filled(...)"
        )
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        if str(value.layout) != "torch.strided":
            raise InputError(f"{expected}, got a tensor of layout {value.layout}; give tensor.to_dense()")
        if str(value.dtype) == "torch.bfloat16":  # which NumPy does not have
            value = value.float()
        value = value.numpy()
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{expected}, or a path; got {type(value).__name__}: {error}") from error
    if found.dtype.kind not in "buif":
        raise InputError(f"{expected}, or a path; got {_kind(value, found)}")
    if found.ndim != len(axes.split(", ")) or 0 in found.shape:
        raise InputError(f"{expected}, got shape {found.shape}")
    return found.view(np.uint8) if found.dtype.kind == "b" else found


def _kind(value: object, found: NDArray[Any]) -> str:
    """What a value is, in words."""
    return "None" if value is None else f"{type(value).__name__} of {found.dtype}"


def numbers_of(value: Any, what: str) -> tuple[float, ...]:
    """Some finite numbers, such as angles.

    Raises:
        InputError: if they are none.
    """
    if isinstance(value, Mapping | Set):
        raise InputError(f"{what}: expected numbers in the order of the images, got a {type(value).__name__}")
    if isinstance(value, Iterable) and not hasattr(value, "dtype"):
        value = list(value)
    found = array_of(value, what, "one for each image")
    for place, number in enumerate(found.tolist()):
        if not math.isfinite(number):
            raise InputError(f"{what}: expected finite numbers, got {number} at index {place}")
    return tuple(float(number) for number in found)


def size_of(value: object, what: str) -> float | None:
    """A length in Å, or None.

    Raises:
        InputError: if it is no positive number.
    """
    if value is None:
        return None
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # mrcfile gives a voxel's edge as an array without axes
    # A bool is a number for Python, and a string that reads as one is a slip.
    number = float(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{what}: expected a positive number of Å, got {value!r}")
    return number
