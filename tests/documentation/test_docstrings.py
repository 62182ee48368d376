"""Docstrings name what there is: a name between single backticks is one of the code, literals have two of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "cryolithe").rglob("*.py"))
# One word; commands and flags have spaces and dashes.
NAMED = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)")


def names_in(tree):
    """All identifiers of a module."""
    for node in ast.walk(tree):
        for field in ("name", "id", "attr", "arg", "asname"):
            if isinstance(value := getattr(node, field, None), str):
                yield from value.split(".")


def docstrings_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


@pytest.fixture(scope="module")
def trees():
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


@pytest.fixture(scope="module")
def known(trees):
    modules = {part for path in trees for part in path.relative_to(ROOT).with_suffix("").parts}
    return modules | {name for tree in trees.values() for name in names_in(tree)}


def module_and_rest(dotted):
    """Path of the module that a name in full begins with, and what it is asked for."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path, parts[count:]
    return None, parts


def is_there(name, known, trees):
    if not name.startswith("cryolithe."):
        return all(part in known for part in name.split("."))
    path, rest = module_and_rest(name)
    return path is not None and set(rest) <= set(names_in(trees[path]))


def test_names_in_docstrings_are_those_of_the_code(trees, known):
    """Of whatever is used somewhere: a docstring may name what other packages have."""
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in trees.items()
        for text in docstrings_of(tree)
        for name in NAMED.findall(text)
        if not is_there(name, known, trees)
    ]
    assert not missing, "no such name; literals have two backticks"


@pytest.mark.parametrize("name", ["no_such_name_of_ours", "cryolithe.metrics.Volumes", "cryolithe.no_module.read"])
def test_a_name_that_is_not_there_would_be_found(name, trees, known):
    assert NAMED.findall(f"See `{name}`, not ``{name}``.") == [name]
    assert not is_there(name, known, trees)
