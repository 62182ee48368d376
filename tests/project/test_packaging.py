"""What pyproject.toml, CITATION.cff and the wheel promise."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest
import yaml
from oldest import NOT_INSTALLED, oldest, pins, tools_of_tests

import cryolithe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
# What a package is called where it is imported.
IMPORTED_AS = {"pillow": "PIL", "PyWavelets": "pywt", "PyYAML": "yaml", "scikit-image": "skimage"}
# Through other extras, or of one platform alone; they are imported where they are used, with words if they are missing.
OPTIONAL = {
    "copick",
    "cryoet_data_portal",
    "napari",
    "qtpy",
    "zarr",
    "dask",
    "distributed",
    "dask_jobqueue",
    "tensorboard",
    "tomosipo",
    "astra",
    "triton",
    "llvmlite",
}


def name_of(requirement):
    return re.split(r"[\s><=;!\[]", requirement, maxsplit=1)[0]


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(cited["cff-version"]) == "1.2.0"
    assert cited["type"] == "software"
    assert str(cited["version"]) == cryolithe.__version__
    assert cited["license"] == PROJECT["license"]
    assert cited["message"]
    assert cited["title"] == "CryoLithe"
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in PROJECT["authors"]]
    # The keys of the schema, 1.2.0.
    assert set(cited) <= {
        "abstract", "authors", "cff-version", "contact", "commit", "date-released", "doi", "identifiers", "keywords",
        "license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact",
        "repository-code", "title", "type", "url", "version",
    }  # fmt: skip
    for reference in cited["references"]:
        assert {"type", "title", "authors"} <= set(reference)


def test_the_classifiers_tell_the_versions():
    told = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert told[0] == lowest
    assert [int(version.partition(".")[2]) for version in told] == list(range(10, 15))
    assert "Typing :: Typed" in PROJECT["classifiers"]
    # A licence by its name of SPDX and a classifier of one exclude each other (PEP 639).
    assert not any(line.startswith("License ::") for line in PROJECT["classifiers"])


def test_the_wheel_has_the_mark_of_typed_packages():
    assert (ROOT / "cryolithe" / "py.typed").is_file()
    hatchling = pytest.importorskip("hatchling.builders.wheel")
    files = {file.distribution_path for file in hatchling.WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {"cryolithe/py.typed", "cryolithe/library/reconstructing.py"} <= files


def test_what_is_imported_is_declared():
    imported = set()
    for path in (ROOT / "cryolithe").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    # For type checkers alone; pydantic brings it.
    foreign = imported - set(sys.stdlib_module_names) - {"cryolithe", "__future__", "typing_extensions"} - OPTIONAL
    declared = {IMPORTED_AS.get(name_of(one), name_of(one)) for one in PROJECT["dependencies"]}
    extras = {
        IMPORTED_AS.get(name_of(one), name_of(one))
        for ones in PROJECT["optional-dependencies"].values()
        for one in ones
    }
    assert foreign - extras <= declared
    assert declared <= imported


def test_every_dependency_has_a_lower_bound_that_can_be_tested():
    assert pins(PROJECT) == [oldest(one) for one in PROJECT["dependencies"]]
    assert "numpy==1.26" in pins(PROJECT)
    assert pins(PROJECT, torch="2.13.0")[0] == "torch==2.13.0"
    with pytest.raises(SystemExit, match="give a lower bound"):
        oldest("numpy")
    assert not {name_of(one) for one in tools_of_tests(PROJECT)} & NOT_INSTALLED


def test_the_public_names_are_those_that_type_checkers_see():
    tree = ast.parse((ROOT / "cryolithe" / "__init__.py").read_text(encoding="utf-8"))
    seen = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                seen |= {alias.name: line.module for alias in line.names}
    assert {*seen, "__version__"} == set(cryolithe.__all__)
    for name, module in seen.items():
        assert getattr(importlib.import_module(module), name) is getattr(cryolithe, name)
