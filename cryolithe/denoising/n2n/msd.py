"""Mixed-scale dense network for volumes (Pelt and Sethian, PNAS 2018): dilations instead of pooling, few weights.

Layer i sees all maps before it, the input included, and adds ``width`` maps by a 3 x 3 x 3 convolution of dilation
``1 + i mod dilations``. Written as a chain of concatenations that keeps a copy of all maps for every layer (18 GB for
96³ voxels and 100 layers); here all maps lie in one buffer, which is all that the backward pass needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import nn

_FIRST_OUTPUT = 0.3  # of the maps' deviation: an untrained network answers near the mean


@dataclass(frozen=True)
class MsdConfig:
    """Sizes; the defaults are those of the paper, 136 k weights.

    Attributes:
        layers: their number.
        width: maps that a layer adds.
        dilations: distinct ones, from 1 on.
    """

    layers: int = 100
    width: int = 1
    dilations: int = 10

    @property
    def multiple(self) -> int:
        """Equivariant to shifts by any voxel."""
        return 1

    @property
    def reach(self) -> int:
        """Voxels from an output to the farthest input that it depends on."""
        return sum(1 + i % self.dilations for i in range(self.layers))

    @property
    def maps(self) -> int:
        """Maps of the input's size that are in memory at once when it is applied."""
        return 2 * (1 + self.layers * self.width)  # the convolutions reorder what they read


class Msd(nn.Module):
    """See the module."""

    def __init__(self, config: MsdConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        seen = [1 + i * width for i in range(config.layers)]
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(width, n, 3, 3, 3)) for n in seen)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in seen)
        self.out = nn.Conv3d(1 + config.layers * width, 1, 1)
        total = 27 * (1 + (config.layers - 1) * width)
        for weight in self.weights:
            # The published initialisation: one variance for all layers, as each map is read by all later ones.
            nn.init.normal_(weight, std=(2 / total) ** 0.5)
        nn.init.normal_(self.out.weight, std=_FIRST_OUTPUT / config.layers**0.5)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Denoised values.

        Args:
            values: shape ``(n, 1, z, y, x)``, standardised.

        Returns:
            The same shape.
        """
        kind = values.device.type
        if torch.is_autocast_enabled(kind):
            values = values.to(torch.get_autocast_dtype(kind))
        leaves = [tensor.to(values.dtype) for tensor in (*self.weights, *self.biases)]
        outputs = []
        for sample in values.split(1):  # a buffer of its own for each: its first maps are then one piece of memory
            maps = _Dense.apply(sample, self.config.dilations, *leaves)
            outputs.append(self.out(maps))
        return torch.cat(outputs)


class _Dense(torch.autograd.Function):
    """All maps of a sample, computed in one buffer, which is also what is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, dilations: int, *leaves: torch.Tensor) -> torch.Tensor:
        weights, biases = leaves[: len(leaves) // 2], leaves[len(leaves) // 2 :]
        width = weights[0].shape[0]
        buffer = values.new_empty(1, 1 + len(weights) * width, *values.shape[2:])
        buffer[:, :1] = values
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            seen, step = 1 + i * width, 1 + i % dilations
            made = F.conv3d(buffer[:, :seen], weight, bias, padding=step, dilation=step)
            buffer[:, seen : seen + width] = made.relu_()
        ctx.save_for_backward(buffer, *weights)
        ctx.dilations = dilations
        return buffer

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        buffer, *weights = ctx.saved_tensors
        width, total = weights[0].shape[0], gradients[0].clone()  # of all maps: grows while later layers are undone
        for_weights: list[torch.Tensor | None] = [None] * len(weights)
        for_biases: list[torch.Tensor | None] = [None] * len(weights)
        for i in range(len(weights) - 1, -1, -1):
            seen, step = 1 + i * width, 1 + i % ctx.dilations
            one = (total[:, seen : seen + width] * (buffer[:, seen : seen + width] > 0)).contiguous()
            mask = (i > 0 or ctx.needs_input_grad[0], True, True)
            given, for_weights[i], for_biases[i] = torch.ops.aten.convolution_backward(
                one, buffer[:, :seen], weights[i], [width], [1] * 3, [step] * 3, [step] * 3, False, [0] * 3, 1, mask
            )
            if given is not None:
                total[:, :seen] += given
        return total[:, :1], None, *for_weights, *for_biases
