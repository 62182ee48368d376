"""Borders that an alignment filled in change nothing of what commands measure of a stack."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import good
from scipy.ndimage import gaussian_filter

from cryolithe.curation.pair_files import faults_of_file
from cryolithe.formats import write_stack
from cryolithe.formats.pairs import Pair, write_pair
from cryolithe.geometry import TiltGeometry
from cryolithe.noise.measure import Plan, measure_neighbours
from cryolithe.simulation import Specimen, project
from cryolithe.tilts import TiltSeries

ANGLES = tuple(float(angle) for angle in range(-60, 61, 5))
SHAPE = (24, 64, 72)


@pytest.fixture(scope="module")
def series():
    """Blobs, dense = dark, and their images as counts: a mean far above their deviation."""
    seeds = np.zeros(SHAPE, np.float32)
    rng = np.random.default_rng(4)
    seeds[tuple(rng.integers(6, n - 6, 80) for n in SHAPE)] = -1
    truth = gaussian_filter(seeds, 1.5) * 50
    images = project(Specimen(truth, 10.0), ANGLES)
    images = images / images.std() + rng.standard_normal(images.shape)
    return truth.astype(np.float32), (200 + 20 * images).astype(np.float32)


def bordered(images):
    """Two sides and two corners filled with 0."""
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    filled = images.copy()
    filled[:, (x < 6) | (y < 5) | (x + y < 16)] = 0
    return filled


@pytest.mark.slow
def test_reprojection_is_compared_beside_borders(series, tmp_path):
    _, images = series
    found = []
    for name, stack in (("whole", images), ("filled", bordered(images))):
        write_stack(tmp_path / f"{name}.mrc", stack, 10.0, "test")
        (tmp_path / "t.tlt").write_text("".join(f"{angle}\n" for angle in ANGLES))
        tilts = (tmp_path / f"{name}.mrc", tmp_path / "t.tlt")
        if not found:
            good("reconstruct", "--method", "fbp", *tilts, "--thickness", SHAPE[0], "-o", tmp_path / "rec.mrc")
        words = ("--tilts", tilts[0], "--angles", tilts[1], "-o", tmp_path / f"{name}.html")
        good("evaluate", tmp_path / "rec.mrc", *words)
        scores = json.loads((tmp_path / f"{name}.json").read_text())["evaluation"]["reprojection"]
        found.append(np.mean(scores["correlation"]))
    assert found[0] > 0.5
    assert found[1] == pytest.approx(found[0], abs=0.05)


@pytest.mark.slow
def test_a_target_fits_images_with_borders(series, tmp_path):
    truth, images = series
    write_pair(tmp_path / "p.h5", Pair(bordered(images), truth, ANGLES, 10.0))
    assert faults_of_file(tmp_path / "p.h5") == ()


@pytest.mark.slow
def test_neighbours_share_what_they_share_beside_borders(series):
    _, images = series
    clear = bordered(images)[:, 8:, 16:]
    assert (clear != 0).all()
    found = []
    for stack in (np.ascontiguousarray(clear[:, :52, :52]), bordered(images)):
        one = TiltSeries(stack, TiltGeometry(ANGLES, stack.shape[1:]), 10.0)
        measured = measure_neighbours(one, "x", Plan(48, 24, 4, 0))
        found.append([float(power.mean()) for power in (measured.noise_power, measured.signal_power)])
    assert found[1] == pytest.approx(found[0], rel=0.25)
