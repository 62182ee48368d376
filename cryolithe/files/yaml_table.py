"""Tables that a user writes in YAML: settings, recipes, training configurations, manifests.

Plain words are read by the core schema of YAML 1.2, not by YAML 1.1, of which PyYAML is: 0040 is 40 (not 32), 1e-5 a
number, and 1:30.5, yes and 2026-02-03 are text, which pydantic takes for true where true or false is wanted. Beside
that schema, ``<<`` merges tables. A key that is there twice is refused: one of its values would be lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from cryolithe.errors import SettingsError, shown

# Values that aliases may stand for beside what is written out: aliases of aliases (the "billion laughs") are refused.
MOST_ALIASED = 100_000
MOST_DIGITS, MOST_IN_KEY = 100, 300
_TAG = "tag:yaml.org,2002:"
# Words without quotes that are no text, with the letters that they begin with: the core schema, and merging.
_WORDS = (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", "<<", ["<"]),
)
_NAMES = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


class _Loader(yaml.SafeLoader):
    """Plain values only, as PyYAML's own, of which its words are not."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (filled below, of the class)


class _Dumper(yaml.SafeDumper):
    """Text that either version of YAML would take for something else is written in quotes."""


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    based = text[:2] in ("0o", "0x")
    return int(text, 0 if based else 10)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


for _name, _pattern, _begins in _WORDS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), _begins)
_Loader.add_constructor(_TAG + "int", _whole_number)
_Loader.add_constructor(_TAG + "float", _number)


def read_yaml_table(
    path: Path, kind: str, limit_bytes: int = 1_000_000, meant: Callable[[str], str] = str
) -> dict[str, Any]:
    """Read a table with text as keys from a YAML file; an empty file is an empty table.

    Args:
        path: of the file.
        kind: what the file is, for messages, such as "recipe".
        limit_bytes: largest file that is read.
        meant: what a key of the table stands for: two that stand for the same are one key given twice.

    Raises:
        SettingsError: if the file is missing, not readable, far too large, not YAML in UTF-8, or no table, or a key is
            there twice.
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
        values = _parsed(content.decode("utf-8"), meant)
    except _TwiceError as error:
        raise SettingsError(f"{path}: {error}") from error
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


def yaml_text(values: Mapping[str, Any]) -> str:
    """A table as YAML, which `read_yaml_table` and readers of YAML 1.1 give back unchanged."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables with some entries replaced."""
    made = dict(base)
    for key, value in changes.items():
        below = made.get(key)
        made[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return made


class _TwiceError(Exception):
    """A key is there twice."""


def _parsed(text: str, meant: Callable[[str], str]) -> Any:
    """The value of a YAML text; raises ValueError for what would take no end of memory or time."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        known: dict[yaml.Node, int] = {}
        if _expanded_nodes(root, known) - len(known) > MOST_ALIASED:
            raise ValueError(f"its aliases stand for more than {MOST_ALIASED} values; write out what is meant")
        for node in known:
            if isinstance(node, yaml.MappingNode):
                _refuse_twice(loader, node, meant if node is root else str)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _refuse_twice(loader: _Loader, table: yaml.MappingNode, meant: Callable[[str], str]) -> None:
    """Raise `_TwiceError` for a key that a table has twice; tables may be merged into it as often as one likes."""
    before: dict[str, yaml.ScalarNode] = {}
    for key, _ in table.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _TAG + "merge":
            continue
        first = before.setdefault(meant(str(loader.construct_object(key))), key)
        if first is not key:
            lines = [node.start_mark.line + 1 for node in (first, key)]
            again = "again" if first.value == key.value else f"again as {shown(key.value)}"
            raise _TwiceError(
                f"{shown(first.value)} is given in line {lines[0]} and {again} in line {lines[1]}; keep one of them"
            )


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
