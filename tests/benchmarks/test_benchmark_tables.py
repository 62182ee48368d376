"""What benchmarks/README.md shows is what the results make, sentences too."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import tables  # noqa: E402

README = ROOT / "benchmarks" / "README.md"
RESULTS = ROOT / "benchmarks" / "results"


def test_the_results_of_the_page_are_those_of_the_files():
    """`python benchmarks/tables.py` after a result or a sentence in results/ has changed."""
    assert tables.parted(README)[1].strip() == tables.region(RESULTS)


def some_results(folder):
    for name in ("astra_agreement", "fusion"):
        shutil.copyfile(RESULTS / f"{name}.json", folder / f"{name}.json")


def test_what_is_said_of_a_result_stands_below_its_tables(tmp_path):
    some_results(tmp_path)
    plain = tables.region(tmp_path)
    (tmp_path / "astra_agreement.md").write_text("A sentence of its own.\n")
    told = tables.region(tmp_path)
    assert told.replace("\n\nA sentence of its own.", "") == plain
    assert told.index("### astra_agreement") < told.index("A sentence of its own.") < told.index("### fusion")


@pytest.mark.parametrize("gone", ["file", "tables"])
def test_no_sentence_is_lost_without_a_word(gone, tmp_path):
    some_results(tmp_path)
    (tmp_path / "fusion.md").write_text("A sentence of its own.\n")
    if gone == "file":
        (tmp_path / "fusion.json").unlink()
    else:
        content = json.loads((tmp_path / "fusion.json").read_text())
        (tmp_path / "fusion.json").write_text(json.dumps({k: v for k, v in content.items() if k != "tables"}))
    with pytest.raises(SystemExit, match=r"fusion\.md"):
        tables.region(tmp_path)


def test_every_figure_of_a_result_is_there():
    for path in RESULTS.glob("*.json"):
        for figure in json.loads(path.read_text()).get("figures", ()):
            assert (RESULTS / figure).is_file()
