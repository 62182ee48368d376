"""What the Noise2Noise denoiser is to reach, and whether it does, by the rows of backbones.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from common import Cell, Table

LEAST_GAIN_DB, TOPAZ_DB, TOLERANCE = 3.5, 0.5, 0.005
MOST_SECONDS, MOST_DIFFERENCE = 30.0, 1e-2
OTHERS = ("gaussian", "topaz 10a", "samba")
CLASSES = ("membranes", "filaments")
Rows = Mapping[str, Mapping[str, Any]]


def targets_table(rows: Rows, judge: str) -> Table:
    """Every target with what was found; targets without rows are left open.

    Args:
        rows: of backbones.py.
        judge: method that is looked at, such as "n2n unet-small l2 1".
    """
    found = [*_of_series(rows, judge), *_general(rows), *_others(rows)]
    cells: list[list[Cell]] = [[what, wanted, value, verdict(met)] for what, wanted, value, met in found]
    return Table(f"Targets, by the row “{judge}”", ["target", "wanted", "found", ""], cells)


def verdict(met: bool | None) -> str:
    """In words."""
    return "not measured" if met is None else "met" if met else "not met"


Target = tuple[str, str, Cell, bool | None]


def places(rows: Rows) -> list[str]:
    """Series that have rows."""
    return list(dict.fromkeys(name.partition(": ")[0] for name, row in rows.items() if "fsc" in row))


def _of_series(rows: Rows, judge: str) -> Iterator[Target]:
    for place in places(rows):
        ours = rows.get(f"{place}: {judge}")
        if ours is None:
            yield f"{place}: {judge}", "-", None, None
            continue
        gain = ours["gain_db"]
        yield f"{place}: half SNR gained, dB", f">= {LEAST_GAIN_DB}", gain, gain is not None and gain >= LEAST_GAIN_DB
        topaz = rows.get(f"{place}: topaz 10a")
        away = None if topaz is None else ours["half_snr_denoised_db"] - topaz["half_snr_denoised_db"]
        yield f"{place}: half SNR over Topaz, dB", f">= -{TOPAZ_DB}", away, None if away is None else away >= -TOPAZ_DB
        for other in OTHERS:
            theirs = rows.get(f"{place}: {other}")
            if theirs is None:
                yield f"{place}: against {other}", "-", None, None
                continue
            worst = worst_shell(ours, theirs)
            yield f"{place}: FSC over {other}, worst shell", f">= -{TOLERANCE}", worst, worst >= -TOLERANCE
            for name in CLASSES:
                if name in ours["fidelity"] and name in theirs["fidelity"]:
                    more = ours["fidelity"][name] - theirs["fidelity"][name]
                    yield f"{place}: fidelity of {name} over {other}", "> 0", more, more > 0


def worst_shell(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """Least difference of FSC to the truth in the shells in which the raw volume has 0.143."""
    inside = ours["shells_inside"]
    difference = np.array(ours["fsc"])[inside] - np.array(theirs["fsc"])[inside]
    return float(difference.min()) if len(inside) else 0.0


def _general(rows: Rows) -> Iterator[Target]:
    for place in places(rows):
        ours, topaz = rows.get(f"{place}: general"), rows.get(f"{place}: topaz 10a")
        if ours is None or topaz is None:
            yield f"{place}: general over Topaz", "-", None, None
            continue
        more = ours["half_snr_denoised_db"] - topaz["half_snr_denoised_db"]
        yield f"{place}: half SNR of general over Topaz, dB", ">= 0", more, more >= 0
        worst = worst_shell(ours, topaz)
        yield f"{place}: FSC of general over Topaz, worst shell", f">= -{TOLERANCE}", worst, worst >= -TOLERANCE


def _others(rows: Rows) -> Iterator[Target]:
    tiles, noise = rows.get("tilings: general"), rows.get("noise: n2n unet-small l2 1")
    seconds = tiles["seconds"] if tiles else None
    yield (
        "general, 128 x 256 x 256, seconds",
        f"<= {MOST_SECONDS:g}",
        seconds,
        None if seconds is None else seconds <= MOST_SECONDS,
    )
    away = tiles["difference"] if tiles else None
    yield "two tilings, deviations", f"< {MOST_DIFFERENCE:g}", away, None if away is None else away < MOST_DIFFERENCE
    most = max(map(abs, noise["correlations"])) if noise else None
    yield (
        "noise: correlation",
        f"< {noise['chance']:.2g}" if noise else "-",
        most,
        None if noise is None or most is None else most < noise["chance"],
    )
