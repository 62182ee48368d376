"""What a training that was interrupted goes on with: its means, its losses, its files; through the real command."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal

import pytest
import safetensors.torch
import torch
import yaml
from click.testing import CliRunner
from test_train_data import tiny_pair
from test_training import small_config
from two_ranks import run_both

from cryolithe.cli import main
from cryolithe.formats.pairs import write_pair
from cryolithe.network import build_network
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.optimise.state import State, means_told, went_on
from cryolithe.training.sections import DataSettings, ValidationSettings
from cryolithe.training.session import by_name

torch.set_num_threads(1)
STEPS = 6
CPU = {"device": "cpu", "precision": "fp32", "processes": 1, "train_minutes": None}


@pytest.fixture
def project(tmp_path):
    """A folder with two pairs and a configuration that names them."""
    folder = tmp_path / "project"
    (folder / "pairs").mkdir(parents=True)
    for name in "ab":
        write_pair(folder / "pairs" / f"{name}.h5", tiny_pair(ord(name)))
    config = small_config(
        steps=STEPS,
        data=DataSettings(pairs=("pairs",), plain_weight=0.0),
        validation=ValidationSettings(every=0),
        fewest_tilts=4,
        columns=8,
    )
    (folder / "c.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return folder


def train(*words, precision="fp32"):
    return CliRunner().invoke(main, ["train", *map(str, words), "--device", "cpu", "--precision", precision])


def finished(result):
    assert result.exit_code == 0, result.output
    return result.stderr


def interrupted(monkeypatch, *words, after=3, precision="fp32"):
    def stopping(watcher):  # what is asked for in a step is done after the next one
        return lambda progress: os.kill(os.getpid(), signal.SIGINT) if progress.step == after - 1 else None

    with monkeypatch.context() as patch:
        patch.setattr("cryolithe.cli.train._advancing", stopping)
        result = train(*words, precision=precision)
    assert result.exit_code == 130, result.output
    assert f"State of step {after} saved" in result.stderr


def card(path):
    return load_model(str(path)).card


@pytest.mark.slow
def test_other_means_are_told_and_stand_on_the_card(project, monkeypatch):
    words = (project / "c.yaml", "-o", project / "a.safetensors")
    interrupted(monkeypatch, *words, precision="bf16")
    told = finished(train(*words, "--resume", "--train-minutes", "50"))
    assert (
        "Warning: the training goes on from step 3 with --precision fp32 in place of --precision bf16, "
        "--train-minutes 50 in place of none; its numbers are not those of a training in one go, as the card tells"
    ) in " ".join(told.split())
    made = card(project / "a.safetensors")
    assert (made["precision"], made["train_minutes"], made["processes"]) == ("bf16", None, 1)
    assert made["went_on"] == [{"step": 3, "precision": "fp32", "train_minutes": 50.0}]
    # Nothing is left to be computed, so that nothing becomes another.
    assert "goes on from step" not in finished(train(*words, "--resume"))
    assert card(project / "a.safetensors")["went_on"] == made["went_on"]


@pytest.mark.slow
def test_another_number_of_processes_is_told_once(project, monkeypatch):
    words = ("train", project / "c.yaml", "-o", project / "a.safetensors")
    interrupted(monkeypatch, *words[1:])
    (code, first), (other, second) = run_both(*words, "--resume")
    assert (code, other) == (0, 0), first + second
    assert "goes on from step 3 with 2 processes of torchrun in place of one process; its numbers" in first
    assert "goes on from step" not in second
    made = card(project / "a.safetensors")
    assert made["processes"] == 1
    assert made["went_on"] == [{"step": 3, "processes": 2}]


@pytest.mark.slow
def test_a_resumed_run_writes_the_file_of_the_uninterrupted_one(project, monkeypatch):
    """Its table and its card tell the mean loss of all steps since the last row, those before the end included."""
    for name in ("whole", "parts"):
        words = (project / "c.yaml", "-o", project / f"{name}.safetensors")
        if name == "parts":
            interrupted(monkeypatch, *words, after=4)
            words += ("--resume",)
        assert "goes on from step" not in finished(train(*words))
    cards, losses = [], []
    for name in ("whole", "parts"):
        cards.append(card(project / f"{name}.safetensors"))
        with (project / f"{name}.run" / "train.csv").open() as file:
            losses.append([(row["step"], row["loss"], row["learning_rate"]) for row in csv.DictReader(file)])
        cards[-1].pop("training_seconds")  # the clock's
    assert cards[0] == cards[1]
    assert losses[0] == losses[1]
    assert "went_on" not in cards[1]


@pytest.mark.slow
def test_a_state_that_tells_neither_losses_nor_means_goes_on(project, monkeypatch):
    words = (project / "c.yaml", "-o", project / "a.safetensors")
    interrupted(monkeypatch, *words)
    path = project / "a.run" / "state.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        told = file.metadata()
    values = {**json.loads(told["values"])}
    assert len(values.pop("recent")) == 3
    assert values.pop("means") == [{"step": 0, **CPU}]
    told["values"] = json.dumps(values)
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata=told)
    assert "goes on from step" not in finished(train(*words, "--resume", "--train-minutes", "50"))
    assert card(project / "a.safetensors")["train_minutes"] == 50.0


@pytest.mark.slow
def test_files_are_known_wherever_they_lie(project, monkeypatch, tmp_path):
    monkeypatch.chdir(project)
    interrupted(monkeypatch, "c.yaml", "-o", "a.safetensors")
    monkeypatch.chdir(tmp_path)
    finished(train("./project/c.yaml", "-o", "project/a.safetensors", "--resume"))
    moved = tmp_path / "moved"
    project.rename(moved)
    finished(train(moved / "c.yaml", "-o", moved / "a.safetensors", "--resume"))
    other = moved / "pairs" / "b.h5"
    kept = other.read_bytes()
    shutil.copy(moved / "pairs" / "a.h5", other)
    refused = train(moved / "c.yaml", "-o", moved / "a.safetensors", "--resume")
    assert refused.exit_code == 2
    assert "the file b.h5 is not the one that this run was trained on before" in refused.stderr
    other.write_bytes(kept)
    other.rename(moved / "pairs" / "c.h5")
    refused = train(moved / "c.yaml", "-o", moved / "a.safetensors", "--resume")
    assert re.search(r"the file [bc]\.h5 (is new to this run|is not given)", refused.stderr)


@pytest.mark.slow
def test_a_finetuning_goes_on_from_another_folder(project, monkeypatch, tmp_path):
    # A few steps gain little.
    monkeypatch.setattr("cryolithe.training.gain.CHANCE", 0.0)
    monkeypatch.setattr("cryolithe.training.gain.CHANCE_DB", 0.0)
    save_network(project / "start.safetensors", build_network(small_config().network_config()), {})
    (project / "few.yaml").write_text(
        "steps: 6\nwarmup_steps: 1\ncolumns: 8\nvalidation: {every: 3}\nfewest_tilts: 4\n"
    )
    words = ("few.yaml", "pairs/a.h5", "pairs/b.h5", "-o", "m.safetensors", "--finetune")
    monkeypatch.chdir(project)
    interrupted(monkeypatch, *words, "start.safetensors")
    finished(train("--resume", *words, "./start.safetensors"))
    moved = tmp_path / "moved"
    project.rename(moved)
    monkeypatch.chdir(moved)
    finished(train("--resume", *words, moved / "start.safetensors"))
    swapped = train("--resume", "few.yaml", "pairs/b.h5", "pairs/a.h5", *words[3:], "start.safetensors")
    assert swapped.exit_code == 2  # the other one is now held back
    assert "was saved by a training with other settings: 'data.pairs' was ['a.h5'], now ['b.h5'];" in swapped.stderr


@pytest.mark.slow
def test_recipes_are_known_wherever_they_lie(project, monkeypatch, tmp_path):
    recipe = {
        "cell": {"shape": [16, 48, 48], "voxel_size_angstrom": [10, 10], "crowding": [0.02, 0.04]},
        "imaging": {"ctf": "none", "scheme": {"step_deg": [10, 10]}},
    }
    config = yaml.safe_load((project / "c.yaml").read_text())
    data = DataSettings.model_validate({"recipes": [{"path": "cell.yaml"}], "plain_weight": 0.0})
    (project / "c.yaml").write_text(yaml.safe_dump(config | {"data": data.model_dump(mode="json")}))
    (project / "cell.yaml").write_text(yaml.safe_dump(recipe))
    output = project / "a.safetensors"
    interrupted(monkeypatch, project / "c.yaml", "-o", output)
    text = (project / "c.yaml").read_text()
    (project / "sub").mkdir()
    (project / "cell.yaml").rename(project / "sub" / "cell.yaml")
    (project / "c.yaml").write_text(text.replace("path: cell.yaml", "path: sub/cell.yaml"))
    recipe["cell"]["crowding"] = [0.02, 0.05]
    (project / "cell.yaml").write_text(yaml.safe_dump(recipe))
    finished(train(project / "c.yaml", "-o", output, "--resume"))
    (project / "c.yaml").write_text(text)
    refused = train(project / "c.yaml", "-o", output, "--resume")
    assert refused.exit_code == 2
    assert "the recipe cell.yaml is not the one that this run was trained on before" in refused.stderr


def test_files_of_one_name_are_told_apart_by_their_order():
    before = {"/x/a/ts.h5": "1", "/x/b/ts.h5": "2", "/x/n.json": "3"}
    assert by_name(before) == by_name({"y/a/ts.h5": "1", "y/b/ts.h5": "2", "n.json": "3"})
    assert by_name(before) != by_name({"y/b/ts.h5": "2", "y/a/ts.h5": "1", "n.json": "3"})
    assert list(by_name({"a/ts.h5": "1", "b/ts.h5": "2", "ts.h5 (2)": "3"})) == ["ts.h5", "ts.h5 (2)", "ts.h5 (2) (2)"]


def test_means_are_compared_with_the_last_ones():
    network = torch.nn.Linear(1, 1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = State(network=network, optimiser=torch.optim.SGD(network.parameters(), 0.1), scaler=scaler)
    assert means_told(state) == {}
    assert not went_on(state, CPU | {"device": "cuda:0"})
    state.step = 10
    assert not went_on(state, CPU | {"device": "cuda:3"})  # a GPU like another
    assert "from step 10 with --device cpu in place of --device cuda:0, 4 processes of torchrun in place of one" in (
        went_on(state, CPU | {"processes": 4})
    )
    state.step = 20
    assert not went_on(state, CPU | {"processes": 4})
    state.step = 30
    assert "from step 30 with one process in place of 4 processes of torchrun;" in went_on(state, CPU)
    changes = [{"step": 10, "device": "cpu", "processes": 4}, {"step": 30, "processes": 1}]
    assert means_told(state) == CPU | {"device": "cuda:0", "went_on": changes}


@pytest.mark.slow
def test_endings_in_capitals_are_pairs_and_configurations_too(project):
    for name in "ab":
        (project / "pairs" / f"{name}.h5").rename(project / "pairs" / f"{name}.H5")
    (project / "c.yaml").rename(project / "C.YAML")
    finished(train(project / "C.YAML", "-o", project / "a.safetensors"))
    assert list(json.loads((project / "a.run" / "pairs.json").read_text())) == [
        str(project / "pairs" / f"{name}.H5") for name in "ab"
    ]
