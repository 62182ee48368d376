"""Fresh networks that begin with what others have learnt."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import yaml
from command import call, good

from cryolithe.errors import ModelError
from cryolithe.network import Head, InputWindow, RowSetConfig, SliceSetConfig, build_network
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.network.config import config_to_dict
from cryolithe.training.starting import grown_from, knowing_from, mean_network, with_row_encoder_of

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
    good(*words)
    assert load_model(str(tmp_path / "out.safetensors")).network.config == wanted
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**config, "start": "small.safetensors"}))
    result = call(*words, "--overwrite")
    assert f"Error: {tmp_path / 'a.yaml'}: 'start' and '{key}' exclude each other; give one" in result.stderr


def test_a_mean_lies_between_and_keeps_what_is_the_same():
    one, two = fresh(SMALL, 1), fresh(SMALL, 2)
    mean = mean_network([one, two], [1.0, 3.0])
    for leaf, value in mean.state_dict().items():
        expected = (one.state_dict()[leaf].double() + 3 * two.state_dict()[leaf].double()) / 4
        torch.testing.assert_close(value, expected.to(value.dtype))
    assert torch.equal(values(mean_network([one, one], [0.2, 0.7])), values(one))
    knowing = dataclasses.replace(SMALL, input=dataclasses.replace(SMALL.input, known=("ctf", "dose")))
    learned = knowing_from(one, fresh(knowing, 3))
    told = mean_network([one, learned], [1, 1])
    assert told.config == knowing
    assert all(torch.equal(value, told.state_dict()[leaf]) for leaf, value in learned.state_dict().items())


@pytest.mark.parametrize(
    ("networks", "weights", "line"),
    [
        ([SMALL], [1.0], "needs two models or more"),
        ([SMALL, SMALL], [1.0], "a weight for each, got 2, 1"),
        ([SMALL, SMALL], [1.0, -1.0], "must be above 0, got 1, -1"),
        ([SMALL, SMALL], [1.0, float("nan")], "must be above 0"),
        ([SMALL, LARGE], [1.0, 1.0], " of a mean is another network than the others"),
        ([SMALL, SliceSetConfig()], [1.0, 1.0], " of a mean is another network"),
    ],
)
def test_what_has_no_mean_is_refused(networks, weights, line):
    with pytest.raises(ModelError, match=line):
        mean_network([fresh(config, 1) for config in networks], weights)


def test_the_command_writes_a_mean_whose_card_tells_its_parts(tmp_path):
    cards = [
        {"molecules": ["a", "b"], "recipe": {"hold_out": ["c", "d"]}, "licence": "MIT", "fbp_share": 0.3},
        {"molecules": ["a", "c"], "recipe": {"hold_out": ["d"]}, "licence": "MIT", "fbp_share": 0.4},
    ]
    for number, card in enumerate(cards):
        save_network(tmp_path / f"{number}.safetensors", fresh(SMALL, number), card)
    names = [str(tmp_path / f"{number}.safetensors") for number in range(2)]
    words = ["models", "mean", *names, "-o", str(tmp_path / "mean.safetensors")]
    result = good(*words, "--weight", "1", "--weight", "3")
    assert "0.25 0 + 0.75 1" in result.output
    made = load_model(str(tmp_path / "mean.safetensors"))
    assert torch.equal(values(made.network), values(mean_network([fresh(SMALL, 0), fresh(SMALL, 1)], [1, 3])))
    assert made.card["molecules"] == ["a", "b", "c"]
    assert made.card["recipe"] == {"hold_out": ["d"]}
    assert made.card["licence"] == "MIT"
    assert made.card["fbp_share"] == 0.375
    assert [part["weight"] for part in made.card["mean_of"]] == [0.25, 0.75]
    assert [part["card"] for part in made.card["mean_of"]] == cards
    again = call(*words)
    assert again.exit_code == 2
    assert "exists; give --overwrite" in again.stderr
    wrong = call(*words, "--overwrite", "--weight", "2")
    assert wrong.exit_code == 2
    assert "a weight for each, got 2, 1" in wrong.stderr
