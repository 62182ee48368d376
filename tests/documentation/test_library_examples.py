"""What the documentation of the library shows runs as it stands: docstrings, the page, the notebook."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import warnings
from pathlib import Path

import matplotlib as mpl
import pytest

import cryolithe

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cryolithe"
EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
NOTEBOOK = ROOT / "examples" / "first_tomogram.ipynb"
PAGE = ROOT / "docs" / "library.md"


@pytest.mark.slow
@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_in_docstrings_are_true(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cryolithe.CryoLitheWarning)
        found = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
    assert found.attempted > 0


def test_every_function_has_an_example():
    for name in ("reconstruct", "fbp", "sirt", "fsc", "evaluate", "denoise", "simulate", "Volume"):
        assert ">>> " in getattr(cryolithe, name).__doc__, name


@pytest.fixture
def drawn():
    """Figures are drawn into memory, and closed."""
    import matplotlib.pyplot as plt

    before = mpl.get_backend()
    plt.switch_backend("agg")
    yield plt
    plt.close("all")
    plt.switch_backend(before)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    names: dict[str, object] = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cryolithe.CryoLitheWarning)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == []
                assert cell["execution_count"] is None
                exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert len(drawn.get_fignums()) == 3
    shown = names["shown"]
    assert isinstance(shown, dict)
    means = {name: cryolithe.fsc(shown[name], shown["truth"]).mean() for name in ("FBP", "network")}
    assert means["network"] > means["FBP"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cryolithe.CryoLitheWarning)
        for number, block in enumerate(blocks, start=1):
            exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"tomogram.mrc", "tomogram.json"}
    for path in re.findall(r"\]\((\.\./[^)#]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / path).is_file(), path
