"""One command from what SerialEM and AreTomo leave to a tomogram, against the ideal aligned, corrected stack."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_series import made, voxels

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import raw_stack

SIZE = raw_stack.Size(96, 24, 6.0)
FBP = ("--method", "fbp", "--thickness", SIZE.depth, "--device", "cpu")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder with both stacks, the words for each, the truth, and the ideal volume's FSC with it."""
    folder = tmp_path_factory.mktemp("raw")
    truth, words, ideal = raw_stack.make(folder, SIZE, False, 0.0)
    made(*ideal, *FBP, "-o", folder / "ideal_rec.mrc")
    return folder, words, truth, raw_stack.fsc(voxels(folder / "ideal_rec.mrc"), truth)


def counted(fsc):
    return fsc[1 : int(raw_stack.UP_TO * (len(fsc) - 1)) + 1]


@pytest.mark.slow
def test_the_raw_stack_agrees_with_the_truth_as_well_as_the_ideal_one(raw):
    folder, words, truth, ideal = raw
    result = made(*words, *FBP, "-o", folder / "out.mrc")
    found = raw_stack.fsc(voxels(folder / "out.mrc"), truth)
    assert (counted(ideal) - counted(found)).max() <= raw_stack.MOST_LOST
    assert counted(found).mean() > 0.7
    assert "hand -1 (ts_CTF.txt)" in result.stderr
    record = json.loads((folder / "out.json").read_text())
    assert len(record["method"]["corrections"]["ctf"]["images"]) == 19
    assert max(record["method"]["corrections"]["dose_weight"]["exposures"]) == 57.0


@pytest.mark.slow
def test_without_the_correction_it_does_not(raw, tmp_path):
    _, words, truth, ideal = raw
    made(*words, "--ctf", "none", *FBP, "-o", tmp_path / "out.mrc")
    found = raw_stack.fsc(voxels(tmp_path / "out.mrc"), truth)
    assert (counted(ideal) - counted(found)).max() > 10 * raw_stack.MOST_LOST


@pytest.mark.slow
def test_halves_are_corrected_alike(raw, tmp_path):
    """Two halves of the frames, each with its own noise, and one decision on the hand."""
    folder, words, truth, ideal = raw
    stack = voxels(folder / "ts.st")
    for seed, name in enumerate(("ts_EVN", "ts_ODD")):
        noise = 0.1 * stack.std() * np.random.default_rng(seed).standard_normal(stack.shape)
        raw_stack.write_stack(tmp_path / f"{name}.mrc", (stack + noise).astype(np.float32), raw_stack.PIXEL, "half")
    halves = ("--even", tmp_path / "ts_EVN.mrc", "--odd", tmp_path / "ts_ODD.mrc")
    given = (*words[1:], "--ctf-file", folder / "ts_CTF.txt", "--defocus-hand", "auto")
    made(*halves, *given, *FBP, "-o", tmp_path / "out.mrc")
    told = [json.loads((tmp_path / f"out_{half}.json").read_text()) for half in ("EVN", "ODD")]
    even, odd = (one["method"]["corrections"]["ctf"] for one in told)
    assert even["hand_by_images"] == odd["hand_by_images"]
    assert even["defocus_hand"] == odd["defocus_hand"] == raw_stack.HAND
    found = raw_stack.fsc(voxels(tmp_path / "out.mrc"), truth)
    assert (counted(ideal) - counted(found)).max() <= 3 * raw_stack.MOST_LOST
