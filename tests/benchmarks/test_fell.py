"""benchmarks/fell.py: what became worse between two sets of results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import fell  # noqa: E402

MARGINS = {"score": 0.005, "db": 0.1, "machine": 0.15}


def of(columns, *rows):
    result = {"tables": [{"title": "t", "columns": ["what", *columns], "rows": [list(row) for row in rows]}]}
    return {cell.where: cell.value for cell in fell.numbers("a.json", result)}


@pytest.mark.parametrize(
    ("column", "before", "now", "told"),
    [
        ("FSC measured", 0.5, 0.49, True),
        ("FSC measured", 0.5, 0.496, False),
        ("FSC measured", 0.5, 0.6, False),
        ("SNR dB", "4.49 ± 2.64", "4.29 ± 1.00", True),
        ("SNR dB", 4.49, 4.42, False),
        ("seconds", 10.0, 12.0, True),
        ("seconds", 10.0, 11.0, False),
        ("seconds", 10.0, 5.0, False),
        ("peak GB", "~2.0", ">= 2.5", True),
        ("voxels/s", 100, 70, True),
        ("loss", 0.2, 0.3, True),
        ("failures", 0, 1, True),
        ("slab rows", 16, 8, False),  # neither is better
        ("−5 dB", "4.29 / 0.577", "4.25 / 0.560", True),  # the second number
    ],
)
def test_what_is_worse_by_more_than_its_margin_is_told(column, before, now, told):
    found = fell.worse(of([column], ["ours", before]), of([column], ["ours", now]), MARGINS)
    assert bool(found) == told


@pytest.mark.parametrize(("now", "told"), [(2.0, False), (3.3, False), (3.6, True)])
def test_a_goal_that_says_at_most_is_one_of_which_less_is_better(now, told):
    before, after = (of(["measured", "goal"], ["peak memory (GB)", value, "<= 6"]) for value in (3.0, now))
    assert bool(fell.worse(before, after, MARGINS)) == told


def test_rows_and_columns_are_matched_by_name():
    before = of(["FSC", "SNR dB"], ["ours", 0.5, 3.0], ["theirs", 0.4, 2.0])
    now = of(["SNR dB", "more", "FSC"], ["theirs", 2.0, 9, 0.4], ["new", 0.0, 9, 0.0], ["ours", 3.0, 9, 0.3])
    assert [(where[2:], old, new) for where, old, new in fell.worse(before, now, MARGINS)] == [
        (("ours", "FSC"), 0.5, 0.3)
    ]


def test_words_of_a_row_are_its_label_and_rows_of_one_label_are_counted():
    cells = of(["kind", "FSC"], ["ours", "fast", 0.5], ["ours", "slow", 0.4], ["ours", "slow", 0.3])
    assert sorted((where[2], value) for where, value in cells.items()) == [
        ("ours, fast", 0.5), ("ours, slow", 0.4), ("ours, slow (2)", 0.3),
    ]  # fmt: skip


def test_scores_of_models_are_compared_too():
    scores = {"scores": {"0 dB": {"network": {"snr_db": 8.0, "fsc_measured": 0.7}}}, "specimens": 4}
    less = json.loads(json.dumps(scores).replace("8.0", "7.5"))
    before, now = ({c.where: c.value for c in fell.numbers("m.scores.json", each)} for each in (scores, less))
    ((where, old, new),) = fell.worse(before, now, MARGINS)
    assert where == ("m.scores.json", "scores", "0 dB, network", "snr_db")
    assert (old, new) == (8.0, 7.5)


def test_all_results_that_lie_here_can_be_compared():
    found = fell.of_commit(None)
    assert len({where[0] for where in found}) > 20
    assert fell.worse(found, found, MARGINS) == []
