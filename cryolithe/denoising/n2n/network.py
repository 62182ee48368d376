"""The backbones by the names that users type, and the file of a trained one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cryolithe.denoising.n2n.gains import ShellGain
from cryolithe.denoising.n2n.msd import Msd, MsdConfig
from cryolithe.denoising.n2n.planar import Planar, PlanarConfig
from cryolithe.denoising.n2n.scunet import Scunet, ScunetConfig
from cryolithe.denoising.n2n.unet import UNet, UNetConfig
from cryolithe.errors import ModelError, shown
from cryolithe.files.names import is_file
from cryolithe.optimise.tensors import check_leaves, load_leaves, read_tensors, write_tensors

FORMAT = "cryolithe-n2n"
Config = UNetConfig | MsdConfig | ScunetConfig | PlanarConfig

BACKBONES: dict[str, Config] = {
    "unet-small": UNetConfig(filters=16, levels=3, first_kernel=3, last=(16, 8)),
    "unet": UNetConfig(),
    "msd": MsdConfig(),
    "scunet": ScunetConfig(),
}
_KINDS: dict[str, tuple[type[Config], type[nn.Module]]] = {
    "unet": (UNetConfig, UNet),
    "msd": (MsdConfig, Msd),
    "scunet": (ScunetConfig, Scunet),
    "planar": (PlanarConfig, Planar),
}
# Far above any useful size: a damaged file must not make us fill the memory.
_MOST = {"levels": 8, "layers": 1000, "blocks": 32, "window": 16}
_MOST_CHANNELS, _MOST_SCALES = 4096, 8


@dataclass(frozen=True)
class Denoiser:
    """A trained network and what its file tells of it.

    Attributes:
        network: on the CPU, in evaluation mode.
        config: its sizes.
        gain: to be applied to its output.
        card: plain values: volumes that it was trained on, settings, time.
        sha256: of the file.
    """

    network: nn.Module
    config: Config
    gain: ShellGain
    card: dict[str, Any]
    sha256: str


def build(config: Config) -> nn.Module:
    """An untrained network ``(n, 1, z, y, x)`` to the same shape; its weights come from torch's generator."""
    for sizes, network in _KINDS.values():
        if isinstance(config, sizes):
            return network(config)
    raise TypeError(f"no backbone has the configuration {config!r}")


def kind_of(config: Config) -> str:
    """Name of a configuration's kind in files: unet, msd, scunet, or planar, for images."""
    return next(name for name, (sizes, _) in _KINDS.items() if isinstance(config, sizes))


def plain_config(config: Config) -> dict[str, Any]:
    """A configuration as values of JSON."""
    return {"kind": kind_of(config), **json.loads(json.dumps(dataclasses.asdict(config)))}


def config_from(values: Mapping[str, Any], where: str) -> Config:
    """The configuration that `plain_config` wrote.

    Raises:
        ModelError: if it is none, or its sizes are out of all reason.
    """
    left = dict(values)
    kind = left.pop("kind", None)
    if kind not in _KINDS:
        raise ModelError(f"{where} describes a network of the kind {shown(kind)}; expected {', '.join(_KINDS)}")
    sizes = _KINDS[kind][0]
    fields = {field.name for field in dataclasses.fields(sizes)}
    if set(left) != fields:
        raise ModelError(
            f"{where}: sizes of a {kind} network are {', '.join(sorted(fields))}; got {shown(sorted(left))}"
        )
    for key, value in left.items():
        numbers = value if isinstance(value, list) else [value]
        most = _MOST.get(key, _MOST_CHANNELS)
        if not 0 < len(numbers) <= _MOST_SCALES or not all(type(n) is int and 0 < n <= most for n in numbers):
            raise ModelError(
                f"{where}: '{key}' of the network must be whole numbers from 1 to {most}, got {shown(value)}"
            )
        if isinstance(value, list):
            left[key] = tuple(value)
    return sizes(**left)


def save_denoiser(path: Path, network: nn.Module, config: Config, gain: ShellGain, card: Mapping[str, Any]) -> None:
    """Write a network as safetensors with plain JSON; an earlier file stays until the new one is complete.

    Raises:
        OutputError: if it cannot be written.
    """
    values = {"config": plain_config(config), "gain": gain.plain(), "card": dict(card)}
    write_tensors(path, network.state_dict(), FORMAT, values)


def rounding_difference(known: Denoiser) -> float:
    """Largest difference of a small fixed input's result in float32 and in float64, in deviations of the result."""
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, 16, 24, 32)))
    exact = build(known.config).double().eval()
    exact.load_state_dict(known.network.state_dict())
    with torch.no_grad():
        fast, slow = known.network(values.float()).double(), exact(values)
    return float((fast - slow).abs().max() / slow.std().clamp_min(1e-12))


def load_denoiser(path: Path) -> Denoiser:
    """Read a network.

    Raises:
        ModelError: if the file is missing, corrupt, no such denoiser, or its weights do not fit its configuration.
    """
    if not is_file(path):
        raise ModelError(f"there is no file {path}; give the .safetensors that `cryolithe denoise --method n2n` wrote")
    tensors, values = read_tensors(path, FORMAT, "the weights of a Noise2Noise denoiser")
    try:
        config = config_from(values["config"], str(path))
        gain = ShellGain.from_plain(values["gain"])
        card = dict(values["card"])
        with torch.device("meta"):  # shapes alone
            check_leaves(build(config), tensors, str(path))
        network = build(config)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ModelError(f"{path} describes no network of this program: {error}") from error
    load_leaves(network, tensors, str(path))
    network.eval().requires_grad_(False)
    return Denoiser(network, config, gain, card, hashlib.sha256(path.read_bytes()).hexdigest())
