"""All denoisers by the names that users type: a new one is a package beside these, and a line here."""

from __future__ import annotations

from cryolithe.denoising.entry import Entry, Option
from cryolithe.denoising.n2n.entry import ENTRY as N2N
from cryolithe.denoising.samba.entry import ENTRY as SAMBA

METHODS: dict[str, Entry] = {entry.name: entry for entry in (SAMBA, N2N)}


def own_options() -> dict[str, Option]:
    """The options that some denoisers have, by name; of the same name they are the same."""
    return {option.name: option for entry in METHODS.values() for option in entry.options}


def owners(option: str) -> list[str]:
    """The denoisers that have an option which is not for all."""
    return [name for name, entry in METHODS.items() if option in entry.option_names]
