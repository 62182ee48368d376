"""What a fine-tuned model gains over the one that it began with, and whether that is enough to keep it."""

from __future__ import annotations

from dataclasses import dataclass

# Of the error on the validation set, at least, that weights must gain, or of SNR in dB.
# The 3 % of `adapt` are of correlations: of a squared error they are 0.13 dB, which is more than fine-tuning is
# published to gain (benchmarks/results/finetune.json).
CHANCE, CHANCE_DB = 0.01, 0.05


@dataclass(frozen=True)
class Gain:
    """Scores on the validation set before the first step, and of the best weights.

    Attributes:
        step: after which the best weights were.
        error: before and after; the error decides which weights are the best.
        snr_db: likewise, the mean that is printed.
    """

    step: int
    error: tuple[float, float]
    snr_db: tuple[float, float]

    @property
    def told(self) -> str:
        """The numbers in a line."""
        return (
            f"on the validation set the error went from {self.error[0]:.4f} to {self.error[1]:.4f} and the SNR from "
            f"{self.snr_db[0]:.2f} to {self.snr_db[1]:.2f} dB, after {self.step} steps"
        )


def why_not(gain: Gain) -> str:
    """Why weights are not to be written, in words; empty if they may be."""
    before, after = gain.error
    if after <= (1 - CHANCE) * before or gain.snr_db[1] >= gain.snr_db[0] + CHANCE_DB:
        return ""
    gained = after < before or gain.snr_db[1] > gain.snr_db[0]
    chance = f" (a gain of less than {CHANCE:.0%} or {CHANCE_DB:g} dB may be chance)"
    return f"{gain.told}{chance if gained else ''}"


def doubt_about(gain: Gain) -> str:
    """A line on weights that are better by one number alone; empty for others."""
    if gain.snr_db[1] < gain.snr_db[0]:
        return "by SNR the model is worse, by the error better: look at its volumes before you use it"
    if not gain.error[1] <= gain.error[0]:
        return "by the error the model is worse, by SNR better: look at its volumes before you use it"
    return ""
