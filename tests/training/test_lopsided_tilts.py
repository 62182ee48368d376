"""Scores of series whose tilts go farther to one side: what is measured goes from the lowest tilt to the highest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_series import CONFIG

from cryolithe.geometry import is_measured
from cryolithe.network import build_network
from cryolithe.network.config import config_to_dict
from cryolithe.projector.classical import fbp_of_images
from cryolithe.reconstruction.slabwise.methods import ON_CPU
from cryolithe.simulation import make_specimen, project
from cryolithe.training.config import TrainConfig
from cryolithe.training.scoring import BENCHMARK_RECIPE, range_of, score_volume
from cryolithe.training.validation import Example, judge

torch.set_num_threads(1)


def noise(seed):
    return np.random.default_rng(seed).standard_normal((32, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("angles", [tuple(np.arange(-21.0, 61.0, 3.0)), tuple(np.arange(-60.0, 22.0, 3.0))])
def test_what_counts_as_measured_goes_from_the_lowest_to_the_highest_tilt(angles):
    """A volume that is right where images of a lopsided range tell of it, and noise elsewhere."""
    truth = noise(0)
    waves, others = np.fft.rfftn(truth), np.fft.rfftn(noise(2))
    z, x = np.fft.fftfreq(32)[:, None, None], np.fft.rfftfreq(32)
    seen = np.broadcast_to(is_measured(x, z, (min(angles), max(angles))), waves.shape)
    half = np.fft.irfftn(np.where(seen, waves, others), truth.shape, axes=(0, 1, 2)).astype(np.float32)
    score = score_volume(truth, half, range_of(angles))
    assert score.fsc_measured > 0.98
    assert abs(score.fsc_missing) < 0.1


def test_a_range_leaves_frequencies_within_and_beyond():
    assert range_of((-90.0, 0.0, 90.0)) == (-89.0, 89.0)
    assert range_of((3.0,)) == (2.0, 4.0)
    assert range_of((5.0, -21.0, 60.0)) == (-21.0, 60.0)
    assert range_of((95.0, 100.0)) == (87.0, 89.0)


@pytest.mark.slow
def test_a_validation_tells_what_the_images_measured():
    """Filtered back-projection of a lopsided range agrees with the truth where it measured, and nowhere else."""
    angles = tuple(np.arange(-21.0, 61.0, 3.0))
    shape = (32, 48, 48)
    specimen = make_specimen(replace(BENCHMARK_RECIPE, shape=shape), (), np.random.default_rng(1))
    images = project(specimen, angles)
    images = images - images.mean(axis=(1, 2), keepdims=True)
    back = fbp_of_images(images, angles, shape[0])
    found, turned = (score_volume(specimen.density, back, one) for one in ((-21.0, 60.0), (-60.0, 21.0)))
    assert found.fsc_measured > turned.fsc_measured + 0.05
    assert found.fsc_missing < turned.fsc_missing - 0.1
    example = Example("lopsided", images, angles, specimen.density)
    config = TrainConfig(network=config_to_dict(CONFIG))
    torch.manual_seed(3)
    network = build_network(CONFIG)
    (verdict,), (volume,) = judge(network, [example], config, ON_CPU)
    score = score_volume(specimen.density, volume, (-21.0, 60.0))
    assert (verdict.fsc_measured, verdict.fsc_missing) == (score.fsc_measured, score.fsc_missing)
