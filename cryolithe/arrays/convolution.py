"""A convolution of volumes that learns from thin ones, too.

The gradient of the weights that oneDNN computes in bfloat16 (seen with torch 2.13 on a processor with AVX512-BF16) is
wrong where the volume is thinner along z than the kernel, but more than a voxel thick: it reads memory that nobody
wrote, and writes beyond the end of its own. Mostly that is a wrong gradient in silence, sometimes NaN or the end of the
process. Float32 has no such fault, nor have dilated and strided kernels, other axes, or the gradient of the input.
"""

from __future__ import annotations

import torch
from torch import nn


class Convolution3d(nn.Conv3d):
    """`torch.nn.Conv3d` whose weights' gradient is right in volumes thinner than the kernel; same weights, same names.

    There it computes in float32; what it returns has the precision that was asked for.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Convolved values.

        Args:
            values: shape ``(n, in_channels, z, y, x)``.

        Returns:
            shape ``(n, out_channels, z, y, x)``.
        """
        kind = values.device.type
        thin = 1 < values.shape[2] < self.kernel_size[0]
        if not (thin and kind == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled(kind)):
            return super().forward(values)
        with torch.autocast(kind, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            made = self._conv_forward(values.float(), self.weight.float(), bias)
        return made.to(torch.get_autocast_dtype(kind))
