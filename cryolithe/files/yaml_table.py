"""Tables that a user writes in YAML: settings, recipes, training configurations, manifests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cryolithe.errors import SettingsError

# Values that aliases may stand for beside what is written out: aliases of aliases (the "billion laughs") are refused.
MOST_ALIASED = 100_000
MOST_DIGITS, MOST_IN_KEY = 100, 300
_NAMES = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


def read_yaml_table(path: Path, kind: str, limit_bytes: int = 1_000_000) -> dict[str, Any]:
    """Read a table with text as keys from a YAML file; an empty file is an empty table.

    Args:
        path: of the file.
        kind: what the file is, for messages, such as "recipe".
        limit_bytes: largest file that is read.

    Raises:
        SettingsError: if the file is missing, not readable, far too large, not YAML in UTF-8, or no table.
    """
    try:
        if not path.is_file():
            raise SettingsError(f"{kind} {path} {'is no file' if path.exists() else 'does not exist'}")
        if path.stat().st_size > limit_bytes:
            raise SettingsError(f"{kind} {path} has more than {limit_bytes} bytes; is it the right file?")
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{kind} {path} cannot be read: {error.strerror or error}") from error
    try:
        values = _parsed(content.decode("utf-8"))
    except RecursionError as error:
        raise SettingsError(f"{path} is not valid YAML: brackets or lists are nested too deeply") from error
    # Beside its own errors, PyYAML lets pass what Python says of impossible dates, broken UTF-8 and values that are
    # not of the type that a tag demands.
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        found = _NAMES.get(type(values), f"a {type(values).__name__}")
        raise SettingsError(f"{path} must hold 'key: value' lines, found {found}")
    return {str(key): value for key, value in values.items()}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables with some entries replaced."""
    made = dict(base)
    for key, value in changes.items():
        below = made.get(key)
        made[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return made


def _parsed(text: str) -> Any:
    """The value of a YAML text; raises ValueError for what would take no end of memory or time."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        known: dict[yaml.Node, int] = {}
        if _expanded_nodes(root, known) - len(known) > MOST_ALIASED:
            raise ValueError(f"its aliases stand for more than {MOST_ALIASED} values; write out what is meant")
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _expanded_nodes(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Number of nodes below and with this one if every alias were written out."""
    if node in known:
        if not known[node]:
            raise ValueError(f"the alias in line {node.start_mark.line + 1} stands for something that it is a part of")
        return known[node]
    known[node] = 0  # until it is counted
    if isinstance(node, yaml.ScalarNode):
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MOST_DIGITS:
            raise ValueError(f"the number in line {node.start_mark.line + 1} has more than {MOST_DIGITS} digits")
        parts: list[yaml.Node] = []
    elif isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and len(key.value) > MOST_IN_KEY:
                raise ValueError(f"the key in line {key.start_mark.line + 1} has more than {MOST_IN_KEY} characters")
        parts = [part for pair in node.value for part in pair]
    else:
        parts = node.value
    known[node] = 1 + sum(_expanded_nodes(part, known) for part in parts)
    return known[node]
