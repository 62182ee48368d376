"""Networks of separate trainings have no mean: refused where cards tell, warned of where weights do."""

from __future__ import annotations

import pytest
import torch
from command import call, good
from tiny_series import CONFIG

from cryolithe.network import build_network
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.training.cards import LEAST_IN_COMMON, check_related
from cryolithe.training.starting import weights_in_common

torch.set_num_threads(1)
UNLIKE = "have nothing in common, as those of separate trainings: their mean is worse than both"


def model(path, seed, moved=0.0, **card):
    """A network of random weights, or of those moved a little, as by more training."""
    torch.manual_seed(seed)
    network = build_network(CONFIG)
    torch.manual_seed(100 + seed)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(moved * weights.abs().mean() * torch.randn_like(weights))
    save_network(path, network, card)
    return path


def scratch(seed):
    return {"recipe": {"seed": seed, "start": None, "start_rows": None}}


def origin(path):
    return {"model": path.stem, "sha256": load_model(str(path)).sha256}


def mean(tmp_path, *models):
    return call("models", "mean", *models, "-o", tmp_path / "mean.safetensors", "--overwrite")


def test_trainings_that_began_with_other_weights_are_refused(tmp_path):
    one, other = (
        model(tmp_path / f"{name}.safetensors", seed, **scratch(seed)) for name, seed in (("a", 1), ("b", 77))
    )
    for order in ((one, other), (other, one)):
        result = mean(tmp_path, *order)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
        assert "are of separate trainings, which began with other random weights (seed " in result.stderr
        assert not (tmp_path / "mean.safetensors").exists()
    third = model(tmp_path / "c.safetensors", 1, moved=0.3, began_with=origin(one))
    assert mean(tmp_path, one, third, other).exit_code == 2


@pytest.mark.parametrize("card", [{}, {"recipe": {"seed": 5, "start": "x.safetensors"}}], ids=["none", "a start"])
def test_unlike_weights_are_told_where_cards_do_not_tell(tmp_path, card):
    one = model(tmp_path / "one.safetensors", 1, **scratch(1))
    result = mean(tmp_path, one, model(tmp_path / "other.safetensors", 2, **card))
    assert result.exit_code == 0, result.output
    assert f"Warning: the weights of one and other {UNLIKE}" in result.stderr
    encoder = {"recipe": {"seed": 3, "start_rows": "one.safetensors"}, "began_with": origin(one)}
    result = mean(tmp_path, one, model(tmp_path / "rows.safetensors", 3, **encoder))
    assert UNLIKE in result.stderr  # a row encoder is not all of the weights


def test_alike_weights_belong_together_whatever_cards_tell(tmp_path):
    one = model(tmp_path / "one.safetensors", 1, **scratch(1))
    result = mean(tmp_path, one, model(tmp_path / "more.safetensors", 1, moved=1.0, **scratch(1)))
    assert (result.exit_code, result.stderr) == (0, "")
    small = tmp_path / "small.safetensors"
    good("models", "shrink", one, "-o", small)
    result = mean(tmp_path, small, model(tmp_path / "on.safetensors", 1, moved=0.5, began_with=origin(one)))
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_common_ancestor_is_believed(tmp_path):
    """However far trainings went from it: seeds stand for that here."""
    start = model(tmp_path / "start.safetensors", 1, **scratch(1))
    further = {"began_with": {"model": "between", "sha256": "1" * 64, "began_with": origin(start)}}
    one = model(tmp_path / "one.safetensors", 2, recipe={"seed": 2, "start": "between"}, **further)
    other = model(tmp_path / "other.safetensors", 3, adapted={"from": origin(start)})
    whole = model(tmp_path / "whole.safetensors", 4, mean_of=[{**origin(other), "card": load_model(str(other)).card}])
    for models in ((start, one), (one, other), (one, whole, start)):
        result = mean(tmp_path, *models)
        assert (result.exit_code, result.stderr) == (0, ""), result.output


def test_a_model_with_itself_is_refused(tmp_path):
    one = model(tmp_path / "one.safetensors", 1)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(one.read_bytes())
    for twice in (one, copy):
        result = mean(tmp_path, one, twice)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
        assert f"model {twice.stem} is given twice; give each model once, and more of it by --weight" in result.stderr


def test_what_weights_have_in_common():
    def network(seed):
        torch.manual_seed(seed)
        return build_network(CONFIG)

    assert weights_in_common(network(1), network(1)) == pytest.approx(1)
    found = [weights_in_common(network(1), network(seed)) for seed in range(2, 20)]
    assert max(map(abs, found)) < LEAST_IN_COMMON - 0.1


@pytest.mark.parametrize("card", [{"recipe": 1}, {"mean_of": 3, "adapted": []}, {"mean_of": [1, {"card": "x"}]}])
def test_strange_cards_tell_nothing(tmp_path, card):
    one, other = model(tmp_path / "one.safetensors", 1), model(tmp_path / "other.safetensors", 1, moved=0.2)
    save_network(other, load_model(str(other)).network, card)
    assert check_related([load_model(str(path)) for path in (one, other)]) == ""
