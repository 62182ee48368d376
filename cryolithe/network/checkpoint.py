"""Networks on disk: weights in safetensors, everything else as plain JSON in the same file's header.

    NAME.safetensors    tensors; metadata {"format": "cryolithe-network", "version": "1", "config": ..., "card": ...}

``config`` rebuilds the network; ``card`` tells where it comes from: recipe, data, seeds, licence. Nothing is
pickled, so loading a file cannot run code.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from cryolithe.errors import ModelError, nearest_name
from cryolithe.network import Network, build_network
from cryolithe.network.config import config_from_dict, config_to_dict

FORMAT = "cryolithe-network"
VERSION = "1"
BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class Model:
    """A network with its provenance.

    Attributes:
        network: float32 weights on the CPU.
        card: recipe, data, seeds, licence.
        name: file name without its ending.
        sha256: hash of the file.
    """

    network: Network
    card: dict[str, Any]
    name: str
    sha256: str


def bundled_models() -> dict[str, Path]:
    """Names and files of the models that come with the package."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.safetensors"))}


def find_model(name_or_path: str) -> Path:
    """File of a bundled model or of a model given by its path.

    Raises:
        ModelError: if there is neither.
    """
    bundled = bundled_models()
    if name_or_path in bundled:
        return bundled[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.suffix or path.parent != Path():
        raise ModelError(f"model file {name_or_path} does not exist")
    raise ModelError(
        f"unknown model '{name_or_path}'{nearest_name(name_or_path, bundled)}; "
        f"bundled models: {', '.join(bundled) or 'none'}; or give the path of a .safetensors file"
    )


def save_network(path: Path, network: Network, card: dict[str, Any]) -> None:
    """Write a network; the file appears under its name only when it is complete."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "config": json.dumps(config_to_dict(network.config), sort_keys=True),
        "card": json.dumps(card, sort_keys=True),
    }
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(_sorted_metadata(safetensors.torch.save(tensors, metadata=metadata)))
    temporary.replace(path)


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
        raise ModelError(f"model file {path} is corrupt or not a safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} is a safetensors file of another program; expected the metadata format={FORMAT}")
    if metadata.get("version") != VERSION:
        raise ModelError(f"{path} has format version {metadata.get('version')}; this program reads version {VERSION}")
    try:
        config = config_from_dict(json.loads(metadata["config"]))
        card = json.loads(metadata["card"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ModelError(f"the metadata of model file {path} are corrupt: {error}") from error
    network = build_network(config)
    _check_leaves(path, network.state_dict(), tensors)
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False)
    return Model(network, card, path.stem, hashlib.sha256(path.read_bytes()).hexdigest())


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
        if not torch.isfinite(found[name].float()).all():
            raise ModelError(f"leaf '{name}' of model file {path} holds values that are not finite")
    for name in found:
        if name not in expected:
            raise ModelError(f"model file {path} has the unexpected leaf '{name}'{nearest_name(name, expected)}")
