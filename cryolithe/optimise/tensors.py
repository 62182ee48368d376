"""Named tensors with plain values on disk: safetensors with JSON in the header, complete or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from cryolithe.errors import ModelError, OutputError, how_to_write, reason


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], kind: str, values: Mapping[str, Any]) -> None:
    """Write a file; an earlier one stays until the new one is complete.

    Args:
        path: of the file.
        tensors: by name.
        kind: what the file is, stored as its format.
        values: plain values.

    Raises:
        OutputError: if it cannot be written (the earlier file is kept).
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = _ordered(safetensors.torch.save(plain, metadata={"format": kind, "values": json.dumps(values)}))
    temporary = path.with_name(path.name + ".partial")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        remedy = how_to_write(error)
        kept = f"; the earlier one is kept: {remedy and f'{remedy} and '}go on with --resume" if path.exists() else ""
        raise OutputError(f"cannot write {path}: {error.strerror or error}{kept}") from error
    finally:  # also of Ctrl-C
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _ordered(content: bytes) -> bytes:
    """The same file with the metadata in the order of their names: safetensors writes them in any."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps({"__metadata__": header.pop("__metadata__"), **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def read_tensors(path: Path, kind: str, what: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a file that `write_tensors` wrote.

    Args:
        path: of the file.
        kind: its format.
        what: what it should be, for messages, such as "a saved training state".

    Returns:
        the tensors by name, and the plain values.

    Raises:
        ModelError: if the file is corrupt or of another format.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        if header.get("format") != kind:
            raise ModelError(f"{path} is not {what} (metadata format={kind})")
        values = json.loads(header["values"])
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        raise ModelError(f"{what} {path} is corrupt: {reason(error)}") from error
    return tensors, values


def check_leaves(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Look whether tensors fit a module, of which nothing but the shapes is used.

    Raises:
        ModelError: if a leaf is missing, of another shape, or holds no finite real numbers; it is named.
    """
    for name, tensor in module.state_dict().items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            found = tuple(tensors[name].shape) if name in tensors else "none"
            raise ModelError(f"{where}: leaf '{name}' has shape {found}, expected {tuple(tensor.shape)}")
        if not tensors[name].is_floating_point() or not torch.isfinite(tensors[name].float()).all():
            raise ModelError(f"{where}: leaf '{name}' holds what is no finite real number")


def load_leaves(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Put tensors into a module.

    Raises:
        ModelError: as `check_leaves`.
    """
    check_leaves(module, tensors, where)
    module.load_state_dict(dict(tensors))
