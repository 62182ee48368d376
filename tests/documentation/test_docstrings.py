"""Docstrings name what there is, and the errors that a function raises.

A name between single backticks is one of the code, literals have two of them.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cryolithe import errors

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


ERRORS = {name: error for name, error in vars(errors).items() if isinstance(error, type)}


def caught_by(statement):
    """Names of the errors that a ``try`` deals with itself."""
    kinds = [handler.type for handler in statement.handlers]
    every = [one for kind in kinds for one in (kind.elts if isinstance(kind, ast.Tuple) else [kind])]
    return {one.id for one in every if isinstance(one, ast.Name)}


def raised_in(nodes, caught=frozenset()):
    """Names of our errors that a function raises by itself and lets out; not what functions within it do."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Try):
            yield from raised_in(node.body, caught | caught_by(node))
            yield from raised_in([*node.handlers, *node.orelse, *node.finalbody], caught)
            continue
        made = node.exc.func if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) else None
        if isinstance(made, ast.Name) and made.id in ERRORS and not caught & kinds_of(made.id):
            yield made.id
        yield from raised_in(ast.iter_child_nodes(node), caught)


def kinds_of(name):
    """An error and all that it is, too."""
    return {kind.__name__ for kind in ERRORS[name].__mro__}


def is_command(node):
    """Whether a docstring is the help of a command."""
    return any(".command" in ast.unparse(one) or ".group" in ast.unparse(one) for one in node.decorator_list)


def public_functions(body, owner=None):
    """Functions and methods by name, with the text that tells of them; what makes a class checks its own values."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, node)
        if not isinstance(node, ast.FunctionDef) or is_command(node):
            continue
        if node.name in ("__init__", "__post_init__") and owner is not None:
            yield f"{owner.name}.{node.name}", node, ast.get_docstring(owner) or ""
        elif not node.name.startswith("_"):
            yield f"{owner.name}.{node.name}" if owner else node.name, node, ast.get_docstring(node) or ""


def untold(tree):
    """Public functions of a module with errors of ours that they raise and do not tell of."""
    for name, node, told in public_functions(tree.body):
        # What a method does that others have too is told once, where they are described.
        missing = {
            error for error in raised_in(node.body) if not any(kind in told for kind in kinds_of(error) & ERRORS.keys())
        }
        if missing and not told.startswith("See `"):
            yield f"{name}: {', '.join(sorted(missing))}"


def test_errors_that_a_public_function_raises_are_told(trees):
    missing = [f"{path.relative_to(ROOT)}: {one}" for path, tree in trees.items() for one in untold(tree)]
    assert not missing, "name them under Raises, or one that they are kinds of"


@pytest.mark.parametrize(
    ("body", "is_told"),
    [
        ('"""Do it."""\n    raise InputError("x")', False),
        ('"""Do it.\n\n    Raises:\n        InputError: always.\n    """\n    raise InputError("x")', True),
        ('"""Do it.\n\n    Raises:\n        CryoLitheError: always.\n    """\n    raise InputError("x")', True),
        ('"""See `Other`."""\n    raise InputError("x")', True),
        ('"""Do it."""\n    try:\n        raise InputError("x")\n    except InputError:\n        return', True),
        (
            '"""Do it."""\n    try:\n        f()\n    except ValueError as e:\n        raise InputError("x") from e',
            False,
        ),
        ('"""Do it."""\n    def within():\n        raise InputError("x")\n    return within', True),
    ],
)
def test_an_error_that_is_not_told_would_be_found(body, is_told):
    assert (not list(untold(ast.parse(f"def do():\n    {body}\n")))) == is_told
