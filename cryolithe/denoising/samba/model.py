"""The interpolation network: what lies half-way between two planes? And its file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cryolithe.denoising.samba.flow import FEATURE_STRIDE, FlowConfig, FlowNet
from cryolithe.denoising.samba.fusion import FusionConfig, FusionNet
from cryolithe.errors import ModelError, shown
from cryolithe.optimise.tensors import check_leaves, load_leaves, read_tensors, write_tensors

FORMAT = "cryolithe-samba"
# Far above any useful size: see `load_weights`.
MOST_LEVELS, MOST_CHANNELS = 8, 4096


@dataclass(frozen=True)
class SambaConfig:
    """Sizes of the network; the defaults are the published ones (2.9 M weights)."""

    flow: FlowConfig = field(default_factory=FlowConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)

    @property
    def multiple(self) -> int:
        """Sides of planes are multiples of this."""
        return max(FEATURE_STRIDE * 2 ** (self.flow.levels - 1), 2 ** (len(self.fusion.unet) - 1))


# What --size offers. Half the channels take half of the time (a quarter of the arithmetic).
SIZES = {
    "published": SambaConfig(),
    "small": SambaConfig(
        FlowConfig(features=(12, 24), depths=(1, 2), estimator=(64, 64, 48, 32), importance=4),
        FusionConfig(context=(8, 16, 32, 64), unet=(16, 32, 64, 128), decoded=8),
    ),
}


class SambaNet(nn.Module):
    """EBME (Jin et al., WACV 2023) for planes of one channel, three pyramid levels, reflection at all borders."""

    def __init__(self, config: SambaConfig | None = None) -> None:
        super().__init__()
        self.config = config or SambaConfig()
        self.flow = FlowNet(self.config.flow)
        self.fusion = FusionNet(self.config.fusion)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The plane half-way between two planes.

        Args:
            first: shape ``(n, 1, y, x)``, scaled by `cryolithe.denoising.scale`, sides multiples of
                ``config.multiple``.
            second: the same shape.

        Returns:
            The same shape, float32.
        """
        out: torch.Tensor = self.fusion(first, second, self.flow(first, second))
        return out


@dataclass(frozen=True)
class Weights:
    """A trained network and what its file tells of it.

    Attributes:
        network: on the CPU.
        card: plain values: the volume that it was trained on, recipe, steps, time.
        sha256: of the file.
    """

    network: SambaNet
    card: dict[str, Any]
    sha256: str


def save_weights(path: Path, network: SambaNet, card: dict[str, Any]) -> None:
    """Write a network as safetensors with plain JSON; an earlier file stays until the new one is complete.

    Raises:
        OutputError: if it cannot be written.
    """
    write_tensors(path, network.state_dict(), FORMAT, {"config": dataclasses.asdict(network.config), "card": card})


def load_weights(path: Path) -> Weights:
    """Read a network.

    Raises:
        ModelError: if the file is missing, corrupt, no denoiser, or its weights do not fit its configuration.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}; give the .safetensors that `cryolithe denoise` wrote")
    tensors, values = read_tensors(path, FORMAT, "a denoiser's weights")
    try:
        config = {part: _tuples(values["config"][part]) for part in ("flow", "fusion")}
        _check_sizes(config, path)
        sizes = SambaConfig(FlowConfig(**config["flow"]), FusionConfig(**config["fusion"]))
        with torch.device("meta"):  # shapes alone: a damaged configuration must not make us fill the memory
            check_leaves(SambaNet(sizes), tensors, str(path))
        network = SambaNet(sizes)
        card = json.loads(json.dumps(values["card"]))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ModelError(f"{path} describes no network of this program: {error}") from error
    load_leaves(network, tensors, str(path))
    network.eval().requires_grad_(False)
    return Weights(network, card, hashlib.sha256(path.read_bytes()).hexdigest())


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """The tuples that JSON made lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _check_sizes(config: dict[str, dict[str, Any]], path: Path) -> None:
    for part in config.values():
        for key, value in part.items():
            numbers = value if isinstance(value, tuple) else (value,)
            most = MOST_LEVELS if key == "levels" else MOST_CHANNELS
            if len(numbers) > MOST_LEVELS or not all(type(n) is int and 0 < n <= most for n in numbers):
                raise ModelError(
                    f"{path}: '{key}' of the network must be at most {MOST_LEVELS} whole numbers from 1 to {most}, got "
                    f"{shown(value)}"
                )
