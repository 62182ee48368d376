"""Heads: what a network returns for the block of voxels around a point, and what is done with it.

A new head is one subclass of `BlockHead`. Its ``kind`` makes it known: training configurations and model files name
it as ``head: {kind: ..., <its fields>}``; a table without a kind is one of `Head`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from cryolithe.errors import SettingsError
from cryolithe.wavelets import Wavelet, analyse, basis_norms, synthesise


class BlockHead(ABC):
    """What a network returns for a point. Subclasses are frozen dataclasses whose fields all have defaults.

    Attributes:
        kind: its name in files.
        known: the classes by their names.
    """

    kind: ClassVar[str]
    known: ClassVar[dict[str, type[BlockHead]]] = {}

    def __init_subclass__(cls) -> None:
        BlockHead.known[cls.kind] = cls

    @property
    @abstractmethod
    def stride(self) -> int:
        """Edge of a point's block in voxels."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Values returned for a point."""

    @property
    def margin(self) -> int:
        """Blocks wanted beyond each end of a volume."""
        return 0

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the groups of outputs whose errors are told apart."""
        return tuple(f"output_{number}" for number in range(self.outputs))

    def by_band(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over the outputs of each of ``band_names``: ``(outputs,)`` -> ``(bands,)``."""
        return values

    def weights(self, band_exponent: float) -> torch.Tensor:
        """Weight of each output's squared error in the loss, shape ``(outputs,)``.

        Args:
            band_exponent: 1 where it shall be the squared voxel error that it alone would make; smaller ones stress
                what varies slowly.
        """
        return torch.ones(self.outputs) / self.outputs

    @abstractmethod
    def targets(self, volume: torch.Tensor) -> torch.Tensor:
        """What should be returned for every block of a volume ``(z, y, x)``, shape ``(z', y', x', outputs)``.

        Along each axis there are ``ceil(voxels / stride) + 2 margin`` blocks. Values of a block depend on voxels less
        than four blocks away.
        """

    @abstractmethod
    def volume(self, values: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        """Voxels of ``shape`` from the values of all blocks, ``(z', y', x', outputs)``: undoes `targets`."""

    @abstractmethod
    def flip(self, values: torch.Tensor, flips: tuple[bool, bool, bool]) -> torch.Tensor:
        """Values ``(..., outputs)`` of single blocks as they are in the volume flipped along (z, y, x)."""


@dataclass(frozen=True)
class Head(BlockHead):
    """Wavelet coefficients.

    Attributes:
        levels: 0 for one voxel, 1 or 2 for the wavelet coefficients of a block of 2³ or 4³ voxels.
        wavelet: PyWavelets' name of a symmetric wavelet of even length; unused for voxels.

    Raises:
        SettingsError: if there are other levels than 0, 1 or 2, or the wavelet does not fit.
    """

    kind: ClassVar[str] = "wavelet"
    levels: int = 1
    wavelet: str = "bior3.1"

    def __post_init__(self) -> None:
        if self.levels not in (0, 1, 2):
            raise SettingsError(f"a head has 0, 1 or 2 wavelet levels, got {self.levels}")
        Wavelet(self.wavelet)

    @property
    def stride(self) -> int:
        """See `BlockHead`."""
        return 2**self.levels

    @property
    def outputs(self) -> int:
        """See `BlockHead`."""
        return 8**self.levels

    @property
    def margin(self) -> int:
        """See `BlockHead`."""
        return Wavelet(self.wavelet).margin(self.levels)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Which axes a band is high in."""
        return ("low", "x", "y", "yx", "z", "zx", "zy", "zyx") if self.levels else ("voxel",)

    def by_band(self, values: torch.Tensor) -> torch.Tensor:
        """See `BlockHead`; fine coefficients count to their band's direction."""
        if self.levels < 2:
            return values
        return torch.stack([values[0], *(values[8:].reshape(7, 8).sum(1) + values[1:8])])

    def weights(self, band_exponent: float) -> torch.Tensor:
        """See `BlockHead`.

        Neighbouring synthesis functions overlap (except Haar's), so with exponent 1 this is not the voxel error
        itself: errors that vary slowly in space weigh less than in voxels, and quickly varying ones more.
        """
        return basis_norms(Wavelet(self.wavelet), self.levels) ** band_exponent / self.outputs

    def targets(self, volume: torch.Tensor) -> torch.Tensor:
        """See `BlockHead`."""
        return analyse(volume, Wavelet(self.wavelet), self.levels)

    def volume(self, values: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        """See `BlockHead`."""
        return synthesise(values, shape, Wavelet(self.wavelet))

    def flip(self, values: torch.Tensor, flips: tuple[bool, bool, bool]) -> torch.Tensor:
        """See `BlockHead`.

        Of a symmetric wavelet of even length, low-pass functions are symmetric about the middle of their block and
        high-pass functions antisymmetric, so a high band changes its sign; at two levels the fine coefficients of a
        block also change places.
        """
        if not self.levels:
            return values
        bits = int(flips[0]) << 2 | int(flips[1]) << 1 | int(flips[2])  # as bands and sub-positions are numbered: zyx
        order, signs = list(range(8)), [(-1.0) ** (band & bits).bit_count() for band in range(8)]
        if self.levels == 2:
            order += [8 * band + (place ^ bits) for band in range(1, 8) for place in range(8)]
            signs += [sign for sign in signs[1:] for _ in range(8)]
        return values[..., order] * torch.tensor(signs, dtype=values.dtype, device=values.device)
