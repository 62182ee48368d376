"""Fresh networks that begin with what others have learnt."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import yaml
from click.testing import CliRunner

from cryolithe.cli import main
from cryolithe.errors import ModelError
from cryolithe.network import Head, InputWindow, RowSetConfig, SliceSetConfig, build_network
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.network.config import config_to_dict
from cryolithe.training.starting import grown_from, with_row_encoder_of

SMALL = RowSetConfig(
    InputWindow(5, context_taps=3), Head(1), 3, channels=6, row_hidden=8, row_features=4, combiner_width=10
)
LARGE = dataclasses.replace(SMALL, channels=9, row_hidden=8, row_features=7, combiner_width=16)


def fresh(config, seed):
    torch.manual_seed(seed)
    return build_network(config)


def values(network, seed=0):
    torch.manual_seed(seed)
    tilts, points, rows = 7, 5, network.rows_per_point + 2
    windows = torch.randn(tilts, points, rows, network.config.input.samples)
    seen = torch.ones(tilts, points, dtype=torch.bool)
    return network(windows, seen, network.tilt_context(torch.linspace(-1, 1, tilts)))


def test_a_grown_network_computes_what_it_grew_from_and_can_learn_more():
    donor = fresh(SMALL, 1)
    grown = grown_from(donor, fresh(LARGE, 2), "donor")
    found, wanted = values(grown).detach(), values(donor).detach()
    assert torch.allclose(found, wanted, atol=1e-6 * float(wanted.abs().max()))
    values(grown).square().sum().backward()
    # What leads from the new units to the outputs learns first (a unit may be silent for all of this input).
    reached = grown.combine.last.weight.grad[:, SMALL.combiner_width :].abs().sum(0) > 0
    assert reached.sum() >= 4


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (dataclasses.replace(LARGE, channels=5), "'channels' must be 6 or more, as in 'donor', got 5"),
        (dataclasses.replace(LARGE, rows=5), "'rows' must be 3, as in 'donor', got 5"),
        (SliceSetConfig(), "must both be of kind RowSet"),
    ],
)
def test_what_cannot_grow_is_refused(config, line):
    with pytest.raises(ModelError, match=line):
        grown_from(fresh(SMALL, 1), fresh(config, 2), "donor")


def test_a_row_encoder_serves_another_head():
    donor = fresh(SMALL, 1)
    taken = with_row_encoder_of(donor, fresh(dataclasses.replace(SMALL, head=Head(2)), 2), "donor")
    windows, seen = torch.randn(7, 5, 4, SMALL.input.samples), torch.ones(7, 5, dtype=torch.bool)
    maps = donor.tilt_context(torch.linspace(-1, 1, 7))
    assert torch.equal(taken.tilt_context(torch.linspace(-1, 1, 7)), maps)
    assert torch.equal(taken.encode(windows, seen, maps), donor.encode(windows, seen, maps))
    with pytest.raises(ModelError, match=r"'lift.weight' of 'donor' has the shape \(6, 8\)"):
        with_row_encoder_of(donor, fresh(LARGE, 2), "donor")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["start_rows", "start_grown"])
def test_a_configuration_names_the_model_to_begin_with(tmp_path, key):
    save_network(tmp_path / "small.safetensors", fresh(SMALL, 1), {})
    wanted = SMALL if key == "start_rows" else LARGE
    config = {
        "network": config_to_dict(wanted),
        key: "small.safetensors",
        "specimens": {"shape": [16, 24, 24]},
        "series": 1,
        "steps": 1,
        "validation": {"every": 0},
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    words = ["train", str(tmp_path / "a.yaml"), "-o", str(tmp_path / "out.safetensors"), "--device", "cpu"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert load_model(str(tmp_path / "out.safetensors")).network.config == wanted
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**config, "start": "small.safetensors"}))
    result = CliRunner().invoke(main, [*words, "--overwrite"])
    assert f"Error: {tmp_path / 'a.yaml'}: 'start' and '{key}' exclude each other; give one" in result.stderr
