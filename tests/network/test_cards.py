"""What a card tells of a model's use stays with what is made of that model, or is refused; through the real command."""

from __future__ import annotations

import pytest
import torch
from command import call
from test_train_data import tiny_pair
from tiny_series import CONFIG

from cryolithe.artefacts.noise_colour import POINTS
from cryolithe.formats.pairs import write_pair
from cryolithe.network import build_network
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.network.convention import Convention

torch.set_num_threads(1)
GAIN, OTHER = [1.0] * (POINTS - 1) + [2.0], [1.0] * (POINTS - 1) + [3.0]
FEW = "steps: 1\nwarmup_steps: 1\ncolumns: 8\nvalidation: {every: 0}\nfewest_tilts: 4\n"


def model(path, **card):
    torch.manual_seed(len(path.name))
    save_network(path, build_network(CONFIG), card)
    return path


def adapted_from(path, **card):
    """A model whose card says that it was adapted from another one."""
    origin = {"model": path.stem, "sha256": load_model(str(path)).sha256}
    return model(path.with_name(f"{path.stem}_adapted.safetensors"), adapted={"from": origin}, **card)


def finetuned(tmp_path, start):
    write_pair(tmp_path / "a.h5", tiny_pair())
    (tmp_path / "few.yaml").write_text(FEW)
    words = (
        "train",
        tmp_path / "few.yaml",
        "--finetune",
        start,
        tmp_path / "a.h5",
        "-o",
        tmp_path / "mine.safetensors",
    )
    return call(*words, "--precision", "fp32", "--device", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("card", [{"fbp_share": 0.4, "licence": "CC-BY-4.0"}, {}], ids=["told", "not told"])
def test_a_finetuned_model_has_the_share_and_the_terms_of_the_one_before(tmp_path, card, monkeypatch):
    monkeypatch.setattr("cryolithe.cli.train._tell_what_is_kept", lambda *of: None)
    result = finetuned(tmp_path, model(tmp_path / "start.safetensors", **card))
    assert result.exit_code == 0, result.output
    made = load_model(str(tmp_path / "mine.safetensors")).card
    assert {key: made[key] for key in ("fbp_share", "licence", "noise_gain") if key in made} == card


def test_a_model_of_whitened_images_is_not_trained_on_others(tmp_path):
    start = adapted_from(model(tmp_path / "start.safetensors"), noise_gain=GAIN)
    result = finetuned(tmp_path, start)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert "adapted to images whose noise is made white (noise_gain on its card)" in result.stderr
    assert "start from start, which it was adapted from, and adapt what comes of it" in result.stderr
    assert not (tmp_path / "mine.run").exists()


def test_a_published_model_is_not_trained_as_one_of_this_program(tmp_path):
    start = tmp_path / "start.safetensors"
    save_network(start, build_network(CONFIG), {}, Convention(torch.ones(5)))
    result = finetuned(tmp_path, start)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert "applied as the published program does it, and cannot be trained on" in result.stderr


def mean(tmp_path, *models):
    return call("models", "mean", *models, "-o", tmp_path / "mean.safetensors")


def test_a_mean_has_the_factors_of_an_adapted_model_and_the_one_before(tmp_path):
    before = model(tmp_path / "before.safetensors", fbp_share=0.4, licence="MIT")
    after = adapted_from(before, fbp_share=0.4, licence="MIT", noise_gain=GAIN)
    result = mean(tmp_path, before, after)
    assert result.exit_code == 0, result.output
    assert "noise_gain: that of before_adapted" in result.stdout
    assert load_model(str(tmp_path / "mean.safetensors")).card["noise_gain"] == GAIN


@pytest.mark.parametrize(("gain", "has"), [(None, "none"), (OTHER, "other ones")])
def test_there_is_no_mean_of_models_of_unlike_images(tmp_path, gain, has):
    one = model(tmp_path / "one.safetensors", noise_gain=GAIN)
    other = model(tmp_path / "other.safetensors", **({} if gain is None else {"noise_gain": gain}))
    for order in ((one, other), (other, one)):
        result = mean(tmp_path, *order)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
        assert f"(noise_gain), {order[1].stem if gain else 'other'} has {has}" in result.stderr
        assert not (tmp_path / "mean.safetensors").exists()
    same = model(tmp_path / "same.safetensors", noise_gain=GAIN)
    assert mean(tmp_path, one, same).exit_code == 0
    assert load_model(str(tmp_path / "mean.safetensors")).card["noise_gain"] == GAIN


def test_a_mean_tells_what_its_models_do_not_share(tmp_path):
    silent = model(tmp_path / "silent.safetensors")  # which is applied with 0.3
    told = model(tmp_path / "told.safetensors", fbp_share=0.5, licence="MIT")
    result = mean(tmp_path, silent, told)
    assert result.exit_code == 0, result.output
    assert "fbp_share: 0.4, the mean of theirs (0.3, 0.5)" in result.stdout
    assert "licence: none on the card, for theirs differ (none, MIT)" in result.stdout
    card = load_model(str(tmp_path / "mean.safetensors")).card
    assert card["fbp_share"] == 0.4
    assert "licence" not in card
