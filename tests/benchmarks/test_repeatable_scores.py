"""Scores of bundled models that anyone can repeat: they belong to the weights, are shown, and come again."""

import json

import pytest
from command import call, good

from cryolithe.models import bundled_models, recorded_sha256
from cryolithe.network.checkpoint import load_model
from cryolithe.simulation.molecules import PROCEDURAL_1
from cryolithe.simulation.shipped_molecules import procedural_1
from cryolithe.training.scoring import benchmark


def stored(name):
    return json.loads(bundled_models()[name].with_suffix(".procedural.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", bundled_models())
def test_stored_scores_are_of_the_model_and_shown_with_their_command(name):
    found = stored(name)
    assert found["model"]["sha256"] == recorded_sha256(bundled_models()[name])
    assert found["molecules"] == [molecule.name for molecule in procedural_1()]
    assert found["command"].startswith(f"cryolithe score {name} --molecules {PROCEDURAL_1} ")
    assert set(found["scores"]) == {"-5 dB", "0 dB"}
    result = good("models", "info", name)
    assert found["command"] in result.stdout
    assert f"{found['scores']['0 dB']['network']['snr_db']:.4g}\n" in result.stdout
    shown = json.loads(call("models", "info", name, "--json").stdout)
    assert shown["procedural"]["scores"] == found["scores"]


@pytest.mark.slow
def test_the_stored_scores_of_the_smallest_model_come_again():
    found, model = stored("fast"), load_model("fast")
    assert found["precision"] == "fp32"
    again = dict(benchmark(model.network, procedural_1(), (0.0,), found["specimens"], share=found["fbp_share"]))[0.0]
    for method, score in found["scores"]["0 dB"].items():
        assert again[method].snr_db == pytest.approx(score["snr_db"], abs=0.005), method
        assert again[method].fsc_measured == pytest.approx(score["fsc_measured"], abs=5e-4), method
        assert again[method].fsc_missing == pytest.approx(score["fsc_missing"], abs=5e-4), method
        if "worst_shell" in score:
            assert again[method].worst_shell.difference == pytest.approx(score["worst_shell"]["difference"], abs=1e-3)
