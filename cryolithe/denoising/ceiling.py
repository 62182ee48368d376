"""What a denoising is worth by its halves, and the score that no honest one can exceed.

The correlation of a denoised half with the *raw* other half is ``r = sqrt(S / (S + N))`` at best, when the denoised
half is the signal itself. The raw halves correlate by ``r_raw = S / (S + N)``, so that ``sqrt(r_raw)`` is a ceiling:
above it the two halves have something in common that is no signal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.formats.sizes import decimal_told

Array = NDArray[Any]
_SIGMAS = 3.0
_BEYOND = 0.02  # relative: the ceiling is an estimate itself


@dataclass(frozen=True)
class HalfScore:
    """Correlations of halves, and what they say.

    Attributes:
        raw: of the raw halves.
        denoised: of each denoised half with the raw other half: first with second, second with first.
        voxels: that were compared.
    """

    raw: float
    denoised: tuple[float, float]
    voxels: int

    @property
    def ceiling(self) -> float:
        """Correlation of the signal itself with a raw half, 0 where the raw halves have nothing in common."""
        return math.sqrt(max(0.0, self.raw))

    @property
    def chance(self) -> float:
        """Correlation that volumes of noise stay below."""
        return _SIGMAS / math.sqrt(self.voxels)

    @property
    def mean(self) -> float:
        """Of both directions."""
        return sum(self.denoised) / 2

    @property
    def leaks(self) -> bool:
        """Whether the denoised halves know more of the other one than the signal."""
        # The raw correlation may be too low by chance: what the ceiling then could be.
        most = math.sqrt(max(0.0, self.raw) + self.chance)
        return self.mean > max(most, self.ceiling * (1 + _BEYOND))

    @property
    def gain_db(self) -> float:
        """Half SNR gained; NaN where there is none before or after."""
        return mean_half_snr_db(self.denoised) - half_snr_db(self.raw)

    def plain(self) -> dict[str, Any]:
        """Values of JSON; numbers that are none are null."""
        values = {
            "half_snr_raw_db": half_snr_db(self.raw),
            "half_snr_denoised_db": mean_half_snr_db(self.denoised),
            "half_snr_ceiling_db": half_snr_db(self.ceiling),
        }
        finite = {name: round(value, 3) if math.isfinite(value) else None for name, value in values.items()}
        correlations = {"raw": self.raw, "denoised": list(self.denoised), "ceiling": self.ceiling}
        return {**finite, "correlations": correlations, "voxels": self.voxels, "leaks": self.leaks}

    def told(self) -> str:
        """The score in words."""
        values = half_snr_db(self.raw), mean_half_snr_db(self.denoised), half_snr_db(self.ceiling)
        if not all(map(math.isfinite, values)):
            return f"Half SNR: none; raw halves correlate by {self.raw:.3g}, denoised with raw ones by {self.mean:.3g}"
        raw, new, best = (decimal_told(value, 1) for value in values)
        gained = decimal_told(self.gain_db, 1, sign=True)
        return f"Half SNR: {raw} dB before, {new} dB after ({gained} dB); the ceiling is {best} dB"

    def warning(self) -> str | None:
        """What a user should know, or None."""
        if self.leaks:
            return (
                f"leak: the denoised halves correlate with the raw other half by {self.mean:.3f}, more than the signal "
                f"itself could ({self.ceiling:.3f}, from {self.raw:.3f} between the raw halves): the halves share "
                "noise, or the network has learned this volume by heart; do not trust details"
            )
        return None


def score_halves(raw: tuple[Array, Array], denoised: tuple[Array, Array]) -> HalfScore:
    """Score a denoising by its halves.

    Args:
        raw: first and second half, shape ``(z, y, x)``.
        denoised: the same, each made of its own half alone.
    """
    first, second = raw
    return HalfScore(
        raw=correlation(first, second),
        denoised=(correlation(denoised[0], second), correlation(denoised[1], first)),
        voxels=int(first.size),
    )


def correlation(a: Array, b: Array) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    x, y = (np.asarray(v, np.float64).ravel() for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else 0.0


def half_snr_db(r: float) -> float:
    """``10 log10(r / (1 - r))`` (Frank and Al-Ali, Nature 256, 376, 1975); NaN where r is no correlation of signals."""
    return 10 * math.log10(r / (1 - r)) if 0 < r < 1 else math.nan


def mean_half_snr_db(correlations: tuple[float, float]) -> float:
    """Mean of both directions in dB, as published (Bepler et al. 2020)."""
    return sum(half_snr_db(r) for r in correlations) / 2
