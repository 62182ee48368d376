"""The suite itself: it needs no data but its own, no order, no clock, and no fast or idle machine."""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import shuffled

TESTS = Path(__file__).resolve().parents[1]
MODULES = sorted(TESTS.rglob("*.py"))
# What knows the time or waits for it. A test may hand a clock of its own to what it tests.
CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "sleep"}
DATES = {"now", "today", "utcnow"}


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def names_in(node):
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def users_of_the_data(module):
    """Functions of a module that use the development data, themselves or through something of the module.

    Returns:
        of each function, whether it carries the mark.
    """
    functions, uses = {}, {}
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            functions[node.name] = node
            arguments = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}  # fixtures
            uses[node.name] = names_in(node) | arguments
        elif isinstance(node, ast.ClassDef):
            uses[node.name] = names_in(node)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                uses.update({name: names_in(node.value) for name in names_in(target)})
    reached = {"SHARED"}
    while more := {name for name, used in uses.items() if name not in reached and used & reached}:
        reached |= more
    marked = "needs_shared"
    return {
        name: any(marked in names_in(decorator) for decorator in node.decorator_list)
        for name, node in functions.items()
        if name in reached and name.startswith("test_")
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_whoever_uses_the_development_data_says_so(path):
    assert [name for name, marked in users_of_the_data(tree(path)).items() if not marked] == []
    if path.stem not in ("shared_data", "conftest", "test_suite"):
        constants = {part.value for part in ast.walk(tree(path)) if isinstance(part, ast.Constant)}
        assert not [text for text in constants if isinstance(text, str) and re.search(r"(^|/)shared(/|$)", text)]
        assert "mark.shared" not in path.read_text(encoding="utf-8"), "take needs_shared of shared_data.py"


def test_the_search_for_users_of_the_data_finds_them():
    text = """
HERE = SHARED / "x"
def reader(): return HERE
@pytest.fixture
def made(): return reader()
def test_by_a_fixture(made): pass
def test_by_a_function(): reader()
@needs_shared
def test_with_the_mark(): HERE
def test_of_nothing(): pass
"""
    found = users_of_the_data(ast.parse(text))
    assert found == {"test_by_a_fixture": False, "test_by_a_function": False, "test_with_the_mark": True}


@pytest.mark.slow
def test_tests_of_the_development_data_skip_without_it():
    modules = [path for path in MODULES if users_of_the_data(tree(path))]
    marked = sum(len(users_of_the_data(tree(path))) for path in modules)
    assert marked >= 10
    command = [sys.executable, "-m", "pytest", "-m", "shared", "-p", "no:cacheprovider", *map(str, modules)]
    environment = {**os.environ, "CRYOLITHE_TEST_DATA": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout
    counted = {kind: int(number) for number, kind in re.findall(r"(\d+) (\w+)", done.stdout.splitlines()[-1])}
    assert set(counted) - {"deselected"} == {"skipped"}, done.stdout
    assert counted["skipped"] >= marked


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_expectation_depends_on_the_clock(path):
    """Waiting is for patience.py, which gives the slowest machine its time; a label with a date is for nobody."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = ast.unparse(node.func.value), node.func.attr
            where = f"line {node.lineno}: {owner}.{name}"
            assert path.stem == "patience" or not (owner == "time" and name in CLOCKS), where
            assert not (name in DATES and "date" in owner), where
            assert path.stem == "plain_mrc" or (owner, name) != ("mrcfile", "new"), f"{where}: take new_mrc"
            for keyword in node.keywords:
                if keyword.arg == "timeout":
                    assert ast.unparse(keyword.value) == "PATIENCE_S", where


def test_a_shuffled_suite_has_every_test_once_and_modules_in_one_piece():
    items = [SimpleNamespace(path=Path(f"test_{n % 5}.py"), number=n) for n in range(100)]
    drawn = shuffled(items, "a")
    assert sorted(item.number for item in drawn) == list(range(100))
    assert [item.number for item in drawn] != [item.number for item in shuffled(items, "b")]
    assert drawn == shuffled(items, "a")
    paths = [item.path for item in drawn]
    assert sum(a != b for a, b in itertools.pairwise(paths)) == 4
