"""Numbers of tables that a user writes: no switch stands for one, and all are finite.

Pydantic takes true for 1, and no bound that is a number keeps infinity out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from cryolithe.errors import SettingsError


def check_numbers(values: Any, wanted: Any, file: object, place: str = "") -> None:
    """Refuse what is no finite number where a number is wanted; all else is left to who reads the table.

    Args:
        values: of a table, as YAML gives them.
        wanted: type that they are for: a dataclass, a model of pydantic, or the type of one of its fields.
        file: for messages.
        place: key of the values, for messages.

    Raises:
        SettingsError: names the first.
    """
    kinds = {wanted, *_parts(wanted)}
    if isinstance(values, Mapping):
        for table in kinds:
            if is_dataclass(table) or hasattr(table, "model_fields"):
                hints = get_type_hints(table)
                for key, value in values.items():
                    if key in hints:
                        check_numbers(value, hints[key], file, f"{place}.{key}" if place else str(key))
    elif isinstance(values, list):
        for value in values:
            check_numbers(value, wanted, file, place)
    elif isinstance(values, bool) and kinds & {int, float} and bool not in kinds:
        raise SettingsError(f"{file}: '{place}': expected a number, got {str(values).lower()}")
    elif isinstance(values, float) and not math.isfinite(values):
        raise SettingsError(f"{file}: '{place}': expected a finite number, got {values}")


def _parts(wanted: Any) -> set[Any]:
    """All types that a type is made of, such as those of a list or a union."""
    return {part for one in get_args(wanted) for part in ({one} | _parts(one)) if part.__hash__ is not None}
