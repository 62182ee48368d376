"""The comparison of backbones and losses: its tomograms, its rows that are made once, its targets."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import backbones
from parts.backbone_targets import targets_table
from parts.scenes import SCENES, placed_molecules

from cryolithe.denoising.ceiling import half_snr_db, score_halves


@pytest.mark.slow
def test_halves_have_the_noise_that_is_asked_for_and_scores_know_the_truth():
    scene = backbones.faint(next(scene for scene in SCENES if scene.title == "lamella"))
    made = backbones.make_tomogram(scene, 40, placed_molecules(None), 1, -11.0)
    assert half_snr_db(score_halves((made.first, made.second), (made.first, made.second)).raw) == pytest.approx(
        -11, abs=1
    )
    clear = backbones.make_tomogram(scene, 40, placed_molecules(None), 1, 5.0)  # has shells in which signal is seen
    assert backbones.scores(clear, (clear.first, clear.second, clear.whole), 1.0)["fsc_worst_change"] == 0
    raw = backbones.scores(made, (made.first, made.second, made.whole), 1.0)
    assert raw["gain_db"] == pytest.approx(0, abs=1e-9)
    best = backbones.scores(clear, (clear.first, clear.second, clear.case.truth), 1.0)
    assert best["fsc_mean"] == pytest.approx(1)
    assert min(best["fidelity"].values()) == pytest.approx(1)
    blurred = backbones.scores(made, backbones.gaussian(made), 1.0)
    assert blurred["half_snr_denoised_db"] > raw["half_snr_denoised_db"] + 0.5


def test_rows_are_made_once_and_others_settings_are_refused(tmp_path):
    path, count = tmp_path / "r.json", []
    make = lambda: count.append(1) or {"n": len(count)}  # noqa: E731
    rows = backbones.Rows(path, {"minutes": 1.0}, ())
    rows.add("a", make)
    rows.add("a", make)
    again = backbones.Rows(path, {"minutes": 1.0}, ("b",))
    again.add("a", make)
    again.add("c", make)
    again.add("bb", make)
    assert json.loads(path.read_text())["rows"] == {"a": {"n": 1}, "bb": {"n": 2}}
    with pytest.raises(SystemExit, match="other settings"):
        backbones.Rows(path, {"minutes": 2.0}, ())


def row(gain, fsc, membranes):
    return {
        "gain_db": gain, "half_snr_denoised_db": gain - 11, "fsc": list(fsc), "shells_inside": [1, 2],
        "fidelity": {"membranes": membranes},
    }  # fmt: skip


def test_targets_are_met_not_met_or_open():
    fsc = np.array([1, 0.8, 0.5, 0.1])
    rows = {
        "lamella 1: n2n unet-small l2 1": row(3.6, fsc, 0.7),
        "lamella 1: gaussian": row(2.0, fsc + 0.004, 0.6),
        "lamella 1: samba": row(2.0, fsc + np.array([0, 0, 0.006, 0]), 0.8),
        "noise: n2n unet-small l2 1": {"correlations": [0.001, -0.2], "chance": 0.01},
    }
    told = {cells[0]: cells[3] for cells in targets_table(rows, "n2n unet-small l2 1").rows}
    assert told["lamella 1: half SNR gained, dB"] == "met"
    assert told["lamella 1: FSC over gaussian, worst shell"] == "met"
    assert told["lamella 1: FSC over samba, worst shell"] == "not met"
    assert told["lamella 1: fidelity of membranes over gaussian"] == "met"
    assert told["lamella 1: fidelity of membranes over samba"] == "not met"
    assert told["lamella 1: against topaz 10a"] == "not measured"
    assert told["two tilings, deviations"] == "not measured"
    assert told["noise: correlation"] == "not met"
