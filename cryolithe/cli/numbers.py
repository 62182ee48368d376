"""Numbers of options."""

from __future__ import annotations

import math
from typing import Any

import click

from cryolithe.errors import SettingsError

MOST_DB = 100.0


class FiniteRange(click.FloatRange):
    """A range of numbers; NaN, which is neither below nor above any end, and Inf are in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, or a usage error."""
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no finite number.", param, ctx)
        return found


def check_snr(snr_db: float) -> float:
    """A level of noise as --snr takes it.

    Raises:
        SettingsError: if it is none.
    """
    if not abs(snr_db) <= MOST_DB:  # nor is NaN
        raise SettingsError(f"--snr must lie within ±{MOST_DB:g} dB, got {snr_db}")
    return snr_db
