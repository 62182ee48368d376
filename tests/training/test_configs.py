"""Every configuration that is shipped works."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command import call, good

from cryolithe.network import build_network
from cryolithe.network.checkpoint import bundled_models, load_model
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks
from cryolithe.settings import read_settings_file, resolve_settings
from cryolithe.training.config import read_train_config
from cryolithe.training.loop import train
from cryolithe.training.sources import make_source
from cryolithe.training.starting import grown_from, with_row_encoder_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TRAINING = sorted(CONFIGS.glob("train_*.yaml"))
FINETUNING = CONFIGS / "finetune_pairs.yaml"  # tests/training/test_train_run.py: it is what --finetune does by itself
DENOISERS = sorted(
    CONFIGS.glob("n2n_*.yaml")
)  # tests/denoising/test_n2n_general.py, tests/denoising/test_n2n_images.py
RECONSTRUCTION = sorted(CONFIGS.glob("reconstruct_*.yaml"))


def test_every_file_is_of_a_known_kind():
    assert {p.name for p in CONFIGS.iterdir()} == {
        p.name for p in [*TRAINING, *RECONSTRUCTION, *DENOISERS, FINETUNING]
    } | {"debug.yaml"}


@pytest.mark.slow
@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.name)
def test_training_configurations_take_steps(path, tmp_path):
    config = read_train_config(path)
    few = {"series": 1, "steps": 2, "warmup_steps": 1, "runs_per_step": 1, "columns": 2, "blocks": 2}
    few["specimens"] = config.specimens.model_copy(update={"shape": (16, 48, 48)})
    data = config.data.model_copy(update={"pool": 1, "workers": 0})
    config = config.model_copy(update={**few, "data": data})
    losses = []
    source = make_source(config, path.parent, tmp_path)
    hooks = Hooks(on_step=lambda state, progress: losses.append(progress.loss))
    state = train(config, source, Place(torch.device("cpu")), hooks)
    source.close()
    assert state.network.config == config.network_config()
    assert np.isfinite(losses).all()
    assert len(losses) == 2


@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.name)
def test_what_a_configuration_begins_with_fits_or_is_made_by_another(path):
    config = read_train_config(path)
    for donor, begin in ((config.start_rows, with_row_encoder_of), (config.start_grown, grown_from)):
        if donor in bundled_models():
            begin(load_model(donor).network, build_network(config.network_config()), donor)
        elif donor is not None:
            made = f"-o runs/{Path(donor).name}"
            assert any(made in other.read_text() for other in TRAINING), f"no configuration makes {donor}"


@pytest.mark.parametrize("path", RECONSTRUCTION, ids=lambda p: p.name)
def test_reconstruction_configurations_are_accepted(path):
    values = read_settings_file(path)
    settings = resolve_settings({}, {}, values, "", str(path))
    assert settings.model_dump(include=set(values)) == values


@pytest.mark.slow
def test_debug_training_and_its_score_run(tmp_path):
    output = tmp_path / "tiny.safetensors"
    good("train", CONFIGS / "debug.yaml", "-o", output, "--precision", "fp32")
    model = load_model(str(output))
    assert model.card["steps"] == 60
    assert model.card["molecules"] == ["procedural only"]
    again = call("train", CONFIGS / "debug.yaml", "-o", output)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    written = tmp_path / "scores.json"
    words = ["score", str(output), "--specimens", "1", "--snr", "0", "--precision", "fp32", "--json", str(written)]
    scored = good(*words)
    assert "network" in scored.output
    record = json.loads(written.read_text())
    assert record["cpu"]
    assert record["torch"]
    assert record["commit"] is None or re.fullmatch("[0-9a-f]{40}(-dirty)?", record["commit"])


@pytest.mark.slow
def test_a_trained_model_carries_its_recipe(tmp_path):
    output = tmp_path / "tiny.safetensors"
    config = tmp_path / "few.yaml"
    config.write_text((CONFIGS / "debug.yaml").read_text().replace("steps: 60", "steps: 3"))
    good("train", config, "-o", output, "--precision", "fp32")
    recipe = load_model(str(output)).card["recipe"]
    assert recipe == read_train_config(config).model_dump(mode="json")
