"""Fidelity by class of structure: the law of the measure, and the benchmark through the command."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
from command import good

from cryolithe.errors import InputError
from cryolithe.fidelity import (
    BANDS,
    DILATION_PX,
    FEWEST_VOXELS,
    Region,
    band_passed,
    best_gaussian,
    class_fidelity,
    correlation,
    region_mask,
    region_masks,
    sheet_normals,
)
from cryolithe.simulation import Molecule, Structure
from cryolithe.simulation.classes import MEMBRANES, membrane_classes
from cryolithe.simulation.diverse import SCENES, draw_scene
from cryolithe.training import class_scoring, scoring

SHAPE = (24, 40, 36)
REGIONS = {"upper": Region((1,)), "lower": Region((2,)), "both": Region((1, 2)), "absent": Region((7,))}


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[4:8, 5:35, 5:30] = 1
    labels[15:19, 5:35, 5:30] = 2
    truth = scipy.ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.2) + (labels > 0)
    return truth.astype(np.float32), labels


@pytest.mark.parametrize("band", list(BANDS.values()))
@pytest.mark.parametrize("shape", [SHAPE, (17, 21, 30)])
def test_a_band_is_a_difference_of_gaussians(band, shape):
    volume = np.random.default_rng(1).normal(size=shape)
    fine, coarse = (scipy.ndimage.gaussian_filter(volume, sigma) for sigma in band)
    np.testing.assert_allclose(band_passed(volume, band), fine - coarse, atol=1e-5)


def test_a_filter_before_a_band_is_the_filter_and_the_band():
    volume = np.random.default_rng(1).normal(size=SHAPE)
    once = band_passed(scipy.ndimage.gaussian_filter(volume, 2.0), (1.5, 8.0))
    np.testing.assert_allclose(once, band_passed(volume, (1.5, 8.0), 2.0), atol=2e-3)


def test_the_truth_is_faithful_whatever_its_scale_and_offset_and_its_negative_is_not(scene):
    truth, labels = scene
    found = class_fidelity(truth, {"same": 3 * truth + 5, "opposite": -truth}, labels, REGIONS)
    assert set(found["same"]) == {"upper", "lower", "both"}
    for label in found["same"]:
        for band in BANDS:
            assert found["same"][label][band] == pytest.approx(1, abs=1e-4)
            assert found["opposite"][label][band] == pytest.approx(-1, abs=1e-4)


def test_what_is_lost_in_one_class_lowers_its_score_alone(scene):
    truth, labels = scene
    erased = np.where(np.arange(SHAPE[0])[:, None, None] < 11, np.float32(0), truth)
    found = class_fidelity(truth, {"erased": erased}, labels, REGIONS)["erased"]
    for band in BANDS:
        assert found["lower"][band] > 0.95
        assert found["upper"][band] < 0.5


def test_noise_lowers_and_the_best_gaussian_raises_the_score(scene):
    truth, labels = scene
    noisy = truth + 2 * np.random.default_rng(2).normal(size=SHAPE)
    plain = class_fidelity(truth, {"noisy": noisy}, labels, REGIONS)["noisy"]
    best = best_gaussian(truth, noisy, region_masks(labels, REGIONS), (0.0, 1.0, 2.0))
    assert set(best) == set(plain)
    for label, scores in plain.items():
        for band, value in scores.items():
            assert value < 0.9
            assert best[label][band] >= value - 1e-6
    assert best["upper"]["0.8-6"] > plain["upper"]["0.8-6"] + 0.02


def test_a_mask_is_the_class_and_two_voxels_about_it(scene):
    _, labels = scene
    mask = region_mask(labels, Region((1,)))
    assert mask[:, 20, 15].nonzero()[0].tolist() == list(range(4 - DILATION_PX, 8 + DILATION_PX))
    shell = region_mask(labels, Region((1,), around=True))
    assert not (shell & mask).any()
    assert not region_mask(np.zeros(SHAPE), Region((1,))).any()
    few = np.zeros(SHAPE, dtype=np.uint8)
    few.flat[: FEWEST_VOXELS - 1] = 1
    assert not region_mask(few, Region((1,))).any()


def test_a_constant_has_no_correlation_and_shapes_must_agree(scene):
    truth, labels = scene
    assert math.isnan(correlation(np.ones(5), np.arange(5)))
    with pytest.raises(InputError, match=r"the truth has the shape .* but 'labels' has"):
        class_fidelity(truth, {"a": truth}, labels[1:], REGIONS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_normals_of_sheets_are_found_from_their_labels(seed):
    _, labels = draw_scene(SCENES["membranes"], (40, 64, 64), 8.0, (), np.random.default_rng(seed))
    inside = np.isin(labels, MEMBRANES)
    told = membrane_classes(sheet_normals(inside))
    assert (told == labels[inside]).mean() > 0.75


def test_labels_of_cells_become_classes_of_structure():
    labels = np.zeros((30, 40, 40), dtype=np.uint16)
    labels[:, 10:14] = 1  # a membrane across y
    labels[2:6, 20:26, 20:26] = 2
    labels[20:29, 20:32, 20:32] = 3
    labels[0, 39, :5] = 4
    light = Molecule("light", np.ones((10, 10, 10), dtype=np.float32), 5.0)
    heavy = Molecule("heavy", np.ones((20, 20, 20), dtype=np.float32), 5.0)
    found = class_scoring.structure_labels(labels, ("membrane", "light", "heavy", "actin"), (light, heavy))
    names = (Structure.ICE, Structure.MEMBRANE_Y, Structure.SMALL_PROTEIN, Structure.LARGE_PROTEIN, Structure.FILAMENT)
    np.testing.assert_array_equal(found, np.array(names, dtype=np.uint8)[labels])


@pytest.mark.slow
def test_scenes_hold_what_they_are_about():
    wanted = {
        0: (set(MEMBRANES), {Structure.FILAMENT, Structure.SMALL_PROTEIN}),
        2: ({Structure.MEMBRANE_OBLIQUE, Structure.LARGE_PROTEIN}, {Structure.MICROTUBULE}),
        3: ({Structure.FILAMENT, Structure.MICROTUBULE}, {*MEMBRANES, Structure.LARGE_PROTEIN}),
        4: ({Structure.SMALL_PROTEIN}, {*MEMBRANES, Structure.LARGE_PROTEIN}),
        5: ({Structure.SMALL_PROTEIN, Structure.LARGE_PROTEIN, Structure.GOLD, Structure.BODY}, set()),
    }
    for number, (present, absent) in wanted.items():
        rng = np.random.default_rng([class_scoring.SEED, number, 0])
        _, labels = draw_scene(class_scoring.CLASS_SCENES[number].scene, (48, 96, 96), 10.0, (), rng)
        kinds = {Structure(int(value)) for value in np.unique(labels)}
        assert present <= kinds
        assert not absent & kinds
    for scene in class_scoring.CLASS_SCENES:
        assert len(scene.angles_deg) == 41


def test_means_are_over_the_specimens_that_have_a_class():
    one = {"fbp": {"a": {"x": 0.2}, "b": {"x": 0.6}}}
    other = {"fbp": {"a": {"x": 0.4}}}
    mean = class_scoring.mean_table([one, other])
    assert mean["fbp"]["a"]["x"] == pytest.approx(0.3)
    assert mean["fbp"]["b"]["x"] == pytest.approx(0.6)


def test_the_summary_tells_what_is_not_there(scene):
    truth, labels = scene
    found = class_scoring.summary_fidelity(truth, truth, labels)
    assert found["membranes"] == pytest.approx(1, abs=1e-4)
    assert math.isnan(found["filaments"])
    assert math.isnan(found["proteins"])


@pytest.mark.slow
def test_the_command_prints_and_writes_scores_by_class(tmp_path, monkeypatch):
    small = functools.partial(class_scoring.class_benchmark, scenes=class_scoring.CLASS_SCENES[::5], shape=(24, 48, 48))
    monkeypatch.setattr(class_scoring, "class_benchmark", small)
    monkeypatch.setattr(scoring, "BENCHMARK_RECIPE", replace(scoring.BENCHMARK_RECIPE, shape=(24, 48, 48)))
    path = tmp_path / "scores.json"
    words = [
        "score",
        "draft",
        "--specimens",
        "1",
        "--snr",
        "0",
        "--precision",
        "fp32",
        "--classes",
        "--json",
        str(path),
    ]
    result = good(*words)
    assert "bilayers only, ±60°, -3 dB" in result.output
    written = json.loads(path.read_text())
    found = written["classes"]
    assert list(written["worst_shells"]) == list(found)
    for shells in written["worst_shells"].values():
        assert list(shells) == ["sirt", "network", "network alone"]
        assert all(-2 < shell["difference"] < 1 for shell in shells.values())
        assert all(0 < shell["frequency_per_px"] < 0.5 for shell in shells.values())
        assert f"{shells['network']['difference']:+.3f} at" in result.output
    for table in found.values():
        assert list(table) == ["fbp", "fbp+gaussian", "sirt", "network", "network alone"]
        assert table["network"] != table["network alone"]
        assert all(list(table[method]) == list(table["fbp"]) for method in table)
        for label, scores in table["fbp"].items():
            assert list(scores) == list(BANDS)
            assert label in result.output
            for band, value in scores.items():
                assert -1 <= value <= table["fbp+gaussian"][label][band] + 1e-6 <= 1.001
