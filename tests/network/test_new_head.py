"""A head that the package does not have, made of one class, goes through training, files and reconstruction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import mrcfile
import numpy as np
import pytest
import torch
import yaml
from command import call, good
from test_train_data import tiny_pair
from test_training import small_config
from tiny_series import write_series

from cryolithe.errors import ModelError
from cryolithe.network import BlockHead, Head, build_network
from cryolithe.network.checkpoint import load_model
from cryolithe.network.config import config_from_dict, config_to_dict
from cryolithe.training.sections import AugmentSettings, LossSettings, ValidationSettings
from cryolithe.training.series import series_of_pair

torch.set_num_threads(1)


@dataclass(frozen=True)
class BlockMean(BlockHead):
    """The mean over each cube of ``edge`` voxels, which stands for all of them."""

    kind: ClassVar[str] = "test: mean of a block"
    edge: int = 2

    stride = property(lambda self: self.edge)
    outputs = property(lambda self: 1)

    def targets(self, volume):
        for axis in range(3):
            missing = -volume.shape[axis] % self.edge
            tail = volume.narrow(axis, volume.shape[axis] - 1, 1).repeat_interleave(missing, axis)
            volume = torch.cat([volume, tail], axis).unflatten(axis, (-1, self.edge)).mean(axis + 1)
        return volume[..., None]

    def volume(self, values, shape):
        voxels = values[..., 0]
        for axis in range(3):
            voxels = voxels.repeat_interleave(self.edge, axis).narrow(axis, 0, shape[axis])
        return voxels

    def flip(self, values, flips):
        return values


def config(**changes):
    small = small_config(
        augment=AugmentSettings(flip_chance=0.5),
        loss=LossSettings(fsc=0.2, cube=(6, 6, 6)),
        validation=ValidationSettings(every=12, shape=(16, 20, 20), snr_db=(0.0,)),
        **changes,
    )
    return small.model_copy(update={"network": small.network | {"head": {"kind": BlockMean.kind}}})


def run(*words):
    return good(*words, "--device", "cpu", "--precision", "fp32").output


@pytest.mark.slow
def test_a_head_of_one_class_is_trained_stored_and_reconstructs(tmp_path):
    settings, model = tmp_path / "train.yaml", tmp_path / "means.safetensors"
    settings.write_text(yaml.safe_dump(config(steps=12).model_dump(mode="json")))
    run("train", settings, "-o", model)
    assert load_model(str(model)).network.config.head == BlockMean(2)
    header = next(tmp_path.rglob("validation.csv"))
    assert "band_output_0" in header.read_text().splitlines()[0]
    assert BlockMean.kind in call("models", "info", model).output
    stack, tlt = write_series(tmp_path)
    output = tmp_path / "volume.mrc"
    run("reconstruct", stack, tlt, "--model", model, "--thickness", 12, "-o", output, "--fbp-share", 0)
    volume = torch.from_numpy(mrcfile.read(output).copy())
    assert volume.shape == (12, 40, 48)
    assert volume.std() > 0
    means = BlockMean().volume(BlockMean().targets(volume), volume.shape)
    assert torch.allclose(volume, means, atol=1e-5 * float(volume.abs().max()))


@pytest.mark.parametrize("edge", [2, 3])
def test_its_targets_come_in_parts_as_at_once(tmp_path, edge):
    pair = tiny_pair()
    head = BlockMean(edge)
    whole = series_of_pair(pair, head, "whole").targets
    parts = series_of_pair(pair, head, "parts", tmp_path / "parts.npy").targets.values
    assert np.allclose(parts.transpose(0, 2, 1, 3), whole, atol=1e-5)


def test_the_table_of_a_head_tells_its_kind_only_where_it_is_no_wavelets():
    plain = config().network | {"head": {"kind": BlockMean.kind, "edge": 4}}
    network = config_from_dict(plain)
    assert network.head == BlockMean(4)
    assert build_network(network).rows_per_point == network.rows + 3
    stored = json.loads(json.dumps(config_to_dict(network)))
    assert stored["head"] == {"kind": BlockMean.kind, "edge": 4}
    assert config_from_dict(stored) == network
    wavelets = config_from_dict(plain | {"head": {"kind": "wavelet", "levels": 2}})
    assert wavelets.head == Head(2)
    assert config_to_dict(wavelets)["head"] == {"levels": 2, "wavelet": "bior3.1"}


@pytest.mark.parametrize("kind", ["means", 3, None, ["wavelet"]])
def test_a_kind_that_nobody_knows_is_named_with_those_that_are(kind):
    with pytest.raises(ModelError, match=r"unknown kind of head .*; this version knows wavelet"):
        config_from_dict(config().network | {"head": {"kind": kind}})
