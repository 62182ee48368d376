"""Networks on disk: weights in safetensors, everything else as plain JSON in the same file's header.

    NAME.safetensors    tensors; metadata {"format": "cryolithe-network", "version": "1", "config": ..., "card": ...}

``config`` rebuilds the network; ``card`` tells where it comes from: recipe, data, seeds, licence. Imported models
also have a ``convention`` (`cryolithe.network.convention`). Nothing is pickled, so loading a file cannot run code.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from cryolithe.errors import ModelError, OutputError, nearest_name, reason
from cryolithe.files.hashing import file_sha256
from cryolithe.models import FORMAT, bundled_models, find_model
from cryolithe.network import Network, build_network
from cryolithe.network.config import config_from_dict, config_to_dict
from cryolithe.network.convention import OWN, TAPS_LEAF, Convention, check_record

__all__ = ["FORMAT", "VERSION", "Model", "bundled_models", "find_model", "load_model", "save_network"]

VERSION = "1"


@dataclass(frozen=True)
class Model:
    """A network with its provenance.

    Attributes:
        network: float32 weights on the CPU.
        card: recipe, data, seeds, licence.
        name: file name without its ending.
        sha256: hash of the file.
        convention: how the network is to be applied.
    """

    network: Network
    card: dict[str, Any]
    name: str
    sha256: str
    convention: Convention = OWN


def save_network(
    path: Path,
    network: Network,
    card: dict[str, Any],
    convention: Convention = OWN,
    stored: torch.dtype = torch.float32,
) -> None:
    """Write a network; the file appears under its name only when it is complete.

    Args:
        path: file to write.
        network: the network.
        card: where it comes from.
        convention: how it is to be applied.
        stored: type of the weights in the file; float16 halves it and rounds each weight by at most 1 in 2000.

    Raises:
        OutputError: if it cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "config": json.dumps(config_to_dict(network.config), sort_keys=True),
        "card": json.dumps(card, sort_keys=True),
    }
    tensors = {name: tensor.detach().to("cpu", stored).contiguous() for name, tensor in network.state_dict().items()}
    if convention.taps is not None:
        metadata["convention"] = json.dumps(convention.record, sort_keys=True)
        tensors[TAPS_LEAF] = convention.taps.detach().float().cpu().contiguous()
    content = _sorted_metadata(safetensors.torch.save(tensors, metadata=metadata))
    temporary = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write the model file {path}: {error.strerror or error}") from error
    finally:  # also of a full disk, or of Ctrl-C
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sorted_metadata(content: bytes) -> bytes:
    """The same safetensors file with its metadata in alphabetical order.

    The library writes them in random order; the same network must give the same bytes, so that hashes can tell
    models apart. A file is the length of its header (8 bytes), the header (JSON, padded with spaces), the tensors.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def load_model(name_or_path: str) -> Model:
    """Read a bundled model or a file.

    Raises:
        ModelError: if it does not exist, is not such a file, is corrupt, or its leaves do not fit its configuration
            (which leaf, what was expected, what was found).
    """
    path = find_model(name_or_path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                raise ModelError(
                    f"model file {path} is a torch checkpoint (.pth); expected a .safetensors file"
                ) from error
        raise ModelError(f"model file {path} is corrupt or not a safetensors file: {reason(error)}") from error
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} is a safetensors file of another program; expected the metadata format={FORMAT}")
    if metadata.get("version") != VERSION:
        raise ModelError(f"{path} has format version {metadata.get('version')}; this program reads version {VERSION}")
    try:
        config = config_from_dict(json.loads(metadata["config"]))
        card = json.loads(metadata["card"])
        if not isinstance(card, dict):
            raise ValueError("its card is no table")
        published = check_record(json.loads(metadata.get("convention", "{}")), f"model file {path}")
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelError(f"the metadata of model file {path} are corrupt: {error}") from error
    with torch.device("meta"):  # shapes alone: a damaged configuration must not make us fill the memory
        expected = dict(build_network(config).state_dict())
    if published:
        expected[TAPS_LEAF] = torch.empty(max(1, tensors[TAPS_LEAF].numel()) if TAPS_LEAF in tensors else 0)
    _check_leaves(path, expected, tensors)
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and replaced: the caller's numbers stay his
        network = build_network(config)
    convention = Convention(tensors.pop(TAPS_LEAF).float()) if published else OWN
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False)
    return Model(network, card, path.stem, file_sha256(path), convention)


def _check_leaves(path: Path, expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    """Raise ModelError at the first leaf that is missing, extra, of another shape, or not finite."""
    for name, tensor in expected.items():
        if name not in found:
            raise ModelError(f"model file {path} lacks the leaf '{name}' of shape {tuple(tensor.shape)}")
        if found[name].shape != tensor.shape:
            raise ModelError(
                f"leaf '{name}' of model file {path} has shape {tuple(found[name].shape)}, "
                f"expected {tuple(tensor.shape)}"
            )
        if not found[name].is_floating_point():
            raise ModelError(f"leaf '{name}' of model file {path} holds {found[name].dtype}, expected real numbers")
        if not torch.isfinite(found[name].float()).all():
            raise ModelError(f"leaf '{name}' of model file {path} holds values that are not finite")
    for name in found:
        if name not in expected:
            raise ModelError(f"model file {path} has the unexpected leaf '{name}'{nearest_name(name, expected)}")
