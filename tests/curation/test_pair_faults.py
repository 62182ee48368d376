"""Targets of training files that do not fit their images, which a training would learn from in silence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from test_train_run import command, save_network, small_config

from cryolithe.artefacts.borders import is_mostly_border
from cryolithe.curation.contrast import contrast_fault
from cryolithe.curation.judging import faults_of
from cryolithe.curation.match import Match
from cryolithe.curation.pair_files import faults_of_file
from cryolithe.formats.pairs import Pair, write_pair
from cryolithe.network import build_network
from cryolithe.simulation import Specimen, project

ANGLES = tuple(float(a) for a in range(-57, 58, 6))
SHAPE = (32, 64, 64)


def target(seed=0):
    """Blobs in the middle of a box, dense = dark."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros(SHAPE, dtype=np.float32)
    seeds[tuple(rng.integers(6, n - 6, 60) for n in SHAPE)] = -1
    return gaussian_filter(seeds, 1.5) * 50


def pair(truth, seen=None, origin=None, noise=0.5):
    images = project(Specimen(truth if seen is None else seen, 10.0), ANGLES)
    images = images + noise * images.std() * np.random.default_rng(9).standard_normal(images.shape)
    return Pair(images.astype(np.float32), truth.astype(np.float32), ANGLES, 10.0, {}, origin or {})


FAULTS = {
    "right": (lambda t: t, None),
    "shifted": (lambda t: np.roll(t, 4, 2), "add (+0, -4) to offset_px"),
    "shifted far": (lambda t: np.roll(t, 20, 2), "add (+0, -20) to offset_px"),
    "shifted along z": (lambda t: np.roll(t, 3, 0), "shift it back along z"),
    "mirrored": (lambda t: np.ascontiguousarray(t[::-1]), "MIRRORED along z"),
    "inverted": (lambda t: -t, "INVERTED"),
    "of another": (lambda _: target(5), "does not belong to the series"),
    "noise": (lambda t: np.random.default_rng(2).standard_normal(t.shape).astype(np.float32), "does not belong"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_target_that_does_not_fit_is_told(fault, tmp_path):
    change, expected = FAULTS[fault]
    write_pair(tmp_path / "p.h5", pair(change(target()), target()))
    found = faults_of_file(tmp_path / "p.h5")
    assert (len(found) == 1 and expected in found[0]) if expected else found == ()


def vesicles(seed):
    """Shells of one thickness, which those of any other series resemble, and blobs between them."""
    rng = np.random.default_rng(seed)
    z, y, x = (np.arange(size, dtype=float) for size in SHAPE)
    density = np.zeros(SHAPE)
    for _ in range(4):
        middle, radius = [rng.uniform(0.3, 0.7) * size for size in SHAPE], rng.uniform(6, 11)
        away = (z[:, None, None] - middle[0]) ** 2 + (y[:, None] - middle[1]) ** 2 + (x - middle[2]) ** 2
        density += np.exp(-((np.sqrt(away) - radius) ** 2) / 4)
    return (target(seed + 100) - 2 * density).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_target_of_another_series_is_not_told_to_be_shifted_alone(seed, tmp_path):
    write_pair(tmp_path / "p.h5", pair(vesicles(seed), vesicles(seed + 50)))
    (found,) = faults_of_file(tmp_path / "p.h5")
    assert "does not belong to the series" in found or "of another series, or " in found
    assert "check the files" in found


@pytest.mark.parametrize("significance", [7.1, 18.0])
@pytest.mark.parametrize("mirrored", [(), ("z",)])
def test_a_large_shift_is_told_alone_where_it_is_certain(significance, mirrored):
    match = Match(0.05 if mirrored else 0.24, 0.24, mirrored, (0.2, 41.0, 13.6), significance, 1.0, is_far=True)
    (found,) = faults_of(match)
    assert ("is of another series, or " in found) == (significance < 10)
    assert ("MIRRORED along z" in found) == bool(mirrored)
    assert ("add (-41, -14) to offset_px" in found) == (significance > 10 and not mirrored)
    (near,) = faults_of(replace(match, shift_px=(0.2, 4.0, 3.0), is_far=False))
    assert "another series" not in near


def test_pairs_that_agree_with_each_other_but_are_bright_are_told(tmp_path):
    right = pair(target())
    write_pair(tmp_path / "p.h5", Pair(-right.images, -right.truth, ANGLES, 10.0))
    (found,) = faults_of_file(tmp_path / "p.h5")
    assert found.startswith("dense matter looks BRIGHT in the images (")
    assert "invert both" in found
    assert found.partition("; ")[0].endswith("in images and target")
    # What tells nothing is not told of: noise, and a specimen whose densities have no tail.
    seen = gaussian_filter(np.random.default_rng(3).standard_normal(SHAPE), 2.0).astype(np.float32)
    for truth in (seen, -seen):
        write_pair(tmp_path / "q.h5", pair(50 * truth), overwrite=True)
        assert faults_of_file(tmp_path / "q.h5") == ()


@pytest.mark.parametrize("share", [0.15, 0.25, 0.35])
def test_a_wide_border_is_no_bright_matter(share, tmp_path):
    """Two sides are filled in: the edge of such a border is darker or brighter than all else."""
    right = pair(target())
    images = right.images.copy()
    rows, columns = (round(share * size) for size in images.shape[1:])
    images[:, :rows] = images[:, :, :columns] = images.mean() + 3 * images.std()
    assert not contrast_fault(images, ANGLES, SHAPE[0])
    assert is_mostly_border(images[len(images) // 2]) == (share > 0.2)


def test_pairs_of_our_own_were_judged_when_they_were_made(tmp_path):
    write_pair(tmp_path / "p.h5", pair(-target(), target(), {"program": "CryoLithe 0.1.0"}))
    assert faults_of_file(tmp_path / "p.h5") == ()


@pytest.mark.slow
def test_training_warns_of_them(tmp_path):
    config = small_config(1)
    save_network(tmp_path / "start.safetensors", build_network(config.network_config()), {})
    write_pair(tmp_path / "a.h5", pair(np.ascontiguousarray(target()[::-1]), target()))
    write_pair(tmp_path / "b.h5", pair(target(3)))
    settings = tmp_path / "few.yaml"
    settings.write_text("steps: 2\nwarmup_steps: 1\ncolumns: 8\nvalidation: {every: 0}\nfewest_tilts: 4\n")
    words = ("--finetune", tmp_path / "start.safetensors", tmp_path, "-o", tmp_path / "mine.safetensors")
    said = command(settings, *words)
    assert said.exit_code == 0, said.output
    assert "Warning: a.h5: the target is MIRRORED along z" in said.stderr
    assert "b.h5: the target" not in said.stderr
    settings.write_text("")
    empty = command(settings, *words[:-1], tmp_path / "other.safetensors")
    assert empty.exit_code == 2
    assert "few.yaml is empty, which is a training from scratch" in empty.stderr
