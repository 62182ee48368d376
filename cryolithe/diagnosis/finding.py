"""`Finding`: one line of a diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Finding:
    """Something that was looked at.

    Attributes:
        name: what.
        state: OK; WARNING for what costs time or memory; PROBLEM for what will fail.
        text: what was found, for people.
        advice: what to do about it; for a PROBLEM always.
        values: the same for programs; names carry the unit.
    """

    name: str
    state: str
    text: str
    advice: str = ""
    values: Mapping[str, object] = field(default_factory=dict)
