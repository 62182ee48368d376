"""A training that goes on needs the recipes and molecules that it began with; through the real command."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from command import call, good
from test_train_data import TINY
from test_training import small_config

from cryolithe.formats import write_volume
from cryolithe.training.sections import DataSettings, ValidationSettings
from cryolithe.volume import Volume

torch.set_num_threads(1)


def write_map(path, size):
    block = np.zeros((7, 7, 7), dtype=np.float32)
    block[1 : 1 + size, 2:5, 2:5] = 1
    write_volume(path, Volume(block, 20.0), label="block", overwrite=True)


def begun(tmp_path, *more):
    """A training that is done, and what goes on with it."""
    (tmp_path / "tiny.yaml").write_text(TINY + "molecules: [own.mrc]\n")
    write_map(tmp_path / "own.mrc", 4)
    write_map(tmp_path / "given.mrc", 3)
    data = DataSettings(recipes=({"path": "tiny.yaml"},), pool=1, replace_every=3, plain_weight=0.0, loader_threads=0)
    config = small_config(steps=1, data=data, validation=ValidationSettings(every=0))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    words = ["train", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "a.safetensors"), "--precision", "fp32",
             "--device", "cpu"]  # fmt: skip

    def again(*more):
        return call(*words, "--resume", *more)

    good(*words, *more)
    assert again(*more).exit_code == 0
    return again


def refused(result, line):
    assert result.exit_code == 2, result.output
    assert line in result.stderr.splitlines()[-1]
    assert "--overwrite to start anew" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_changed_recipe_or_library_is_refused(tmp_path):
    again = begun(tmp_path)
    recipe = (tmp_path / "tiny.yaml").read_text()
    (tmp_path / "tiny.yaml").write_text("# said otherwise\n" + recipe.replace("series: 1", "series: 5"))
    assert again().exit_code == 0  # what it says is the same
    (tmp_path / "tiny.yaml").write_text(recipe.replace("[0.05, 0.1]", "[0.05, 0.2]"))
    refused(again(), "Error: the recipe tiny.yaml is not the one that this run was trained on before; put it back")
    (tmp_path / "tiny.yaml").write_text(recipe)
    write_map(tmp_path / "own.mrc", 5)
    refused(again(), "Error: the library own.mrc of the recipe tiny.yaml is not the one that this run was trained on")
    refused(again("--molecules", tmp_path / "given.mrc"), "Error: the library of --molecules is new to this run")
    (tmp_path / "a.run" / "simulated_from.json").unlink()  # as runs of before left it
    assert again().exit_code == 0


@pytest.mark.slow
def test_another_library_given_is_refused(tmp_path):
    given = tmp_path / "given.mrc"
    again = begun(tmp_path, "--molecules", given)
    other = tmp_path / "moved" / "given.mrc"
    other.parent.mkdir()
    given.rename(other)
    assert again("--molecules", other).exit_code == 0  # where it lies does not matter
    write_map(other, 2)
    refused(
        again("--molecules", other), "Error: the library of --molecules is not the one that this run was trained on"
    )
    last = again()
    assert last.exit_code == 2
    assert "the library" in last.stderr.splitlines()[-1]


@pytest.mark.slow
def test_another_model_to_start_from_is_refused(tmp_path):
    """The weights of the state, what the card says of them, and what was forgotten would be of two models."""
    again = begun(tmp_path)
    start, config = tmp_path / "start.safetensors", tmp_path / "c.yaml"
    start.write_bytes((tmp_path / "a.safetensors").read_bytes())
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"start": start.name, "seed": 4}))
    words = ("-o", tmp_path / "b.safetensors")
    good("train", config, *words, "--device", "cpu", "--precision", "fp32")
    assert again(*words).exit_code == 0
    kept = start.read_bytes()
    start.write_bytes((tmp_path / "b.safetensors").read_bytes())
    refused(again(*words), "the model that the training starts from is not the one that this run was trained on before")
    start.write_bytes(kept)
    assert again(*words).exit_code == 0
    start.write_bytes((tmp_path / "b.safetensors").read_bytes())
    (tmp_path / "b.run" / "began_with.json").unlink()  # as runs of before left it
    assert again(*words).exit_code == 0
