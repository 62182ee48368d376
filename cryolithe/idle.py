"""Settings that change nothing beside others, and what is told or refused of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryolithe.errors import SettingsError, shown
from cryolithe.settings import ReconstructSettings, known_keys


@dataclass(frozen=True)
class Need:
    """Settings that change nothing unless others have certain values.

    Attributes:
        settings: their names.
        others: values of which one is needed, by setting; one of these settings is enough.
        wanted: the same in words.
    """

    settings: tuple[str, ...]
    others: Mapping[str, tuple[Any, ...]]
    wanted: str

    def is_met(self, settings: ReconstructSettings) -> bool:
        """Whether they change what a run makes."""
        return any(getattr(settings, name) in values for name, values in self.others.items())


_CORRECTED = {"ctf": ("flip", "multiply", "wiener")}
# What is known of a series (defocus, doses, ...) is not here: a run says by itself what its method has no use for.
NEEDS = (
    Need(
        ("model", "fbp_share", "wedge_trust", "brightness", "precision"), {"method": ("network",)}, "--method network"
    ),
    Need(("filter",), {"method": ("fbp",)}, "--method fbp"),
    Need(("iterations",), {"method": ("sirt",)}, "--method sirt"),
    Need(("projector",), {"method": ("fbp", "sirt")}, "--method fbp or sirt"),
    Need(("defocus_hand", "cs", "amplitude_contrast"), _CORRECTED, "--ctf flip, multiply or wiener"),
    Need(("voltage",), {**_CORRECTED, "dose_weight": (True,)}, "--ctf flip, multiply or wiener, or --dose-weight"),
)


def idle_settings(
    names: Collection[str], runs: Sequence[ReconstructSettings], acting: Collection[str] = ()
) -> dict[str, str]:
    """Those of some settings that change nothing in any of some runs, and why.

    Args:
        names: that somebody gave.
        runs: settings of each run.
        acting: names that act by something else than these settings.

    Returns:
        for each idle one what it is for and what is there instead, in words.
    """
    found: dict[str, str] = {}
    for need in NEEDS:
        if not runs or any(need.is_met(settings) for settings in runs):
            continue
        there = " and ".join(f"--{_flag(name)} is {shown(getattr(runs[0], name))}" for name in need.others)
        reason = f"is for {need.wanted}, and {there} here"
        found |= {name: reason for name in need.settings if name in names and name not in acting}
    return found


def refuse_idle(flags: Mapping[str, Any], runs: Sequence[ReconstructSettings], acting: Collection[str] = ()) -> None:
    """Refuse a flag that changes nothing in any of some runs.

    Args:
        flags: of the command line; None means not given.
        runs: settings of each run.
        acting: names that act by something else than these settings.

    Raises:
        SettingsError: names the first one.
    """
    given = [name for name, value in flags.items() if value is not None]
    for name, reason in idle_settings(given, runs, acting).items():
        raise SettingsError(f"--{_flag(name)} {reason}: it would change nothing; leave it out")


def idle_notes(
    values: Mapping[Any, Any],
    where: str,
    flags: Mapping[str, Any],
    runs: Sequence[ReconstructSettings],
    acting: Collection[str] = (),
) -> list[str]:
    """Lines on values of a file that change nothing in any of some runs; empty if all act.

    Args:
        values: of the file, as `read_settings_file` gives them, or cells of a row.
        where: what to call it.
        flags: that win over it, which are spoken of elsewhere.
        runs: settings of each run.
        acting: names that act by something else than these settings.
    """
    names = [name for name in known_keys(values, where) if flags.get(name) is None]
    idle = idle_settings(names, runs, acting)
    return [f"{where}: '{name}' changes nothing: it {reason}" for name, reason in idle.items()]


def _flag(name: str) -> str:
    return name.replace("_", "-")
