"""The numbers of the pages are those of the results; and what benchmarks/claims.py makes of claims."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import claims  # noqa: E402

TABLE = {"title": "Speed, all", "columns": ["way", "s", "GB: peak"], "rows": [["ours", "~9 680", 2.46], ["−3", 4, 1]]}
RESULT = {
    "tables": [TABLE],
    "scores": {
        "-5 dB": {"ours": {"snr_db": 8.24}, "fbp": {"snr_db": 0.76}},
        "0 dB": {"ours": {"snr_db": 0.1}, "fbp": {"snr_db": 0.1}},
    },
}
PAGE = """# A page

| noise | `ours` | FBP |
|---|---|---|
| −5 dB | **8.2 dB** | 0.8 dB |
| 0 dB | 0.1 dB | 0.1 dB |

It takes 9 700 s and 2.5
GB, which is .76 of it. Nobody measured 17.5 s.
"""
CLAIMS = """
files: {made: made.json}
tables:
  - page: page.md
    first: noise
    below: {columns: ["`ours`"], than: FBP}
    cells:
      "`ours`": "{made > scores > <row> > ours > snr_db: .1f} dB"
      FBP: "{made > scores > <row> > fbp > snr_db: .1f} dB"
sentences:
  - page: page.md
    text: "It takes {made > Speed, all > ours > s: g2} s and {made > Speed, all > ours > GB: peak: .1f} GB, which
      is {made > scores > -5 dB > fbp > snr_db: z.2f} of it"
"""


@pytest.fixture
def pages(tmp_path):
    """A page, its result and its claims; returns a function that looks at them anew."""
    claims.content.cache_clear()
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / "made.json").write_text(json.dumps(RESULT))
    (tmp_path / "claims.yaml").write_text(CLAIMS)

    def look():
        claims.content.cache_clear()
        return claims.check(tmp_path / "claims.yaml", tmp_path)

    yield tmp_path, look
    claims.content.cache_clear()


def test_the_numbers_of_the_pages_are_those_of_the_results():
    """`python benchmarks/claims.py --write` puts them in."""
    found, wrong = claims.check()
    assert wrong == []
    assert [f"{one.page}, {one.what}: {one.printed}, not {one.expected}" for one in found if not one.right] == []
    assert len(found) > 200


def test_numbers_are_found_wherever_they_stand(pages):
    found, wrong = pages[1]()
    assert wrong == []
    assert len(found) == 7
    assert all(one.right for one in found)


@pytest.mark.parametrize(
    ("old", "new"), [("8.2 dB", "8.3 dB"), ("0.8 dB", "0.76 dB"), ("9 700", "9 600"), ("2.5\n", "2.4\n"), (".76", ".8")]
)
def test_a_number_that_differs_is_told_and_mended(old, new, pages):
    folder, look = pages
    (folder / "page.md").write_text(PAGE.replace(old, new))
    found, _ = look()
    assert [one.right for one in found].count(False) == 1
    assert claims.write(found, folder) == 1
    assert (folder / "page.md").read_text() == PAGE


def test_rows_may_stand_in_any_order_and_columns_too(pages):
    folder, look = pages
    table = "| noise | FBP | more | `ours` |\n|---|---|---|---|\n"
    table += "| 0 dB | 0.1 dB | x | 0.1 dB |\n| −5 dB | 0.8 dB | | 8.2 dB |"
    (folder / "page.md").write_text(table + PAGE[PAGE.index("\n\nIt takes") :])
    found, wrong = look()
    assert (len(found), wrong) == (7, [])
    assert all(one.right for one in found)


def test_what_falls_below_is_marked(pages):
    folder, look = pages
    made = json.loads(json.dumps(RESULT))
    made["scores"]["0 dB"]["ours"]["snr_db"] = 0.099  # as printed it is the same
    (folder / "made.json").write_text(json.dumps(made))
    found, _ = look()
    claims.write(found, folder)
    assert "| 0 dB | 0.1 dB ↓ | 0.1 dB |" in (folder / "page.md").read_text()


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (PAGE.replace("| noise", "| other"), "no table 'noise'"),
        (PAGE.replace("| −5 dB", "| −6 dB"), "no '-6 dB' among -5 dB, 0 dB"),
        (PAGE.replace("It takes", "It took"), "does not say 'It takes"),
    ],
)
def test_claims_that_fit_no_page_are_told(page, told, pages):
    folder, look = pages
    (folder / "page.md").write_text(page)
    assert told in look()[1][0]


def test_numbers_that_no_claim_covers_are_listed(pages):
    folder, look = pages
    lines = list(claims.uncovered(look()[0], folder))
    assert len(lines) == 1
    assert "17.5 s" in lines[0]
