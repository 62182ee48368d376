"""The general Noise2Noise denoiser: its data, its training by the real command, and its weights at work."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command import call, ended
from half_volumes import halves, write

from cryolithe.denoise_training import config as settings
from cryolithe.denoise_training import train as steps
from cryolithe.denoise_training.config import read_general_config
from cryolithe.denoise_training.patches import SeriesPatches, noisy
from cryolithe.denoise_training.store import Stored
from cryolithe.denoise_training.volumes import make_maker, standardised
from cryolithe.denoising.n2n import bundled, learning, network, recipe
from cryolithe.denoising.n2n.gains import ShellGain
from cryolithe.denoising.n2n.network import load_denoiser, save_denoiser
from cryolithe.denoising.n2n.unet import UNetConfig
from cryolithe.formats import read_mrc

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = UNetConfig(filters=4, levels=2, first_kernel=3, last=(4, 4))
SHAPE = (24, 40, 32)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(network.BACKBONES, "unet-small", TINY)
    make = recipe.make_recipe

    def short(*arguments, **changes):
        return replace(make(*arguments, **changes), edge=16, most_steps=4, validations=1)

    monkeypatch.setattr(learning, "make_recipe", short)


def written(folder, **changes):
    """A configuration that trains in a second."""
    values = {
        "kind": "n2n", "series": 2, "held_series": 1, "shape": [16, 32, 32], "empty_planes": 4, "edge": 16,
        "steps": 6, "validate_every": 3, "diverse": 0.0,
        "plain": {"snr_db": [0.0, 0.0], "step_deg": [6.0, 6.0]},
    }  # fmt: skip
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def run(*words, code=0):
    return ended(call(*words, "--device", "cpu", "--precision", "fp32"), code)


def weights(path, card=None):
    """Weights of the tiny network that pass their input on, halved by a gain."""
    torch.manual_seed(3)
    save_denoiser(path, network.build(TINY), TINY, ShellGain(), card or {})
    return path


@pytest.fixture
def general(tmp_path, monkeypatch):
    """General weights in the package."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setattr(bundled, "BUNDLED", folder)
    return weights(folder / "general.safetensors", {"general": True, "voxel_size_angstrom": [8.0, 14.0]})


@pytest.fixture
def volume(tmp_path):
    return write(tmp_path / "tomo.mrc", 5 + 2 * halves(SHAPE)[0])


def stored(seed=0, shape=(24, 24, 24), level=2.0):
    """Halves of white noise about a small signal."""
    rng = np.random.default_rng(seed)
    clean = rng.standard_normal(shape).astype(np.float32)
    first, second = (clean + level * rng.standard_normal(shape, np.float32) for _ in range(2))
    made = standardised(first, second, clean, {"kind": "x"})
    values = (v.astype(np.float16) for v in (made.first, made.second, made.clean))
    return Stored(*values, made.whole_sigma, made.told)


def test_the_shipped_configuration_is_complete_and_its_series_are_halves_of_one_specimen():
    shipped = read_general_config(CONFIGS / "n2n_general.yaml")
    assert {"1bxn", "mb_5wek"} <= set(shipped.hold_out)
    small = shipped.model_copy(update={"shape": (16, 32, 32), "diverse": 0.5, "empty_planes": 4})
    maker = make_maker(small, CONFIGS)
    seen = set()
    for number in range(1, 9):
        made = maker(number)
        seen.add(made.told["kind"])
        assert made.first.shape[0] in (16, 24)
        assert 8 <= made.told["voxel_size_angstrom"] <= 14
        np.testing.assert_array_equal(made.first, maker(number).first) if number == 1 else None
        noise = [half - made.clean for half in (made.first, made.second)]
        assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.15
        signal_part = [float((half * made.clean).sum() / (made.clean**2).sum()) for half in (made.first, made.second)]
        assert np.mean(signal_part) == pytest.approx(1, abs=0.35)  # in the units of the halves
    assert len(seen) > 2


def test_any_strength_of_noise_is_mixed_from_two_halves():
    series = stored(level=3.0)
    box = (slice(0, 24),) * 3
    clean = series.clean.astype(np.float32)
    for amount in (0.0, 1.0, -1.0, 2.5):
        given, sigma = noisy(series, box, amount)
        assert given.std() == pytest.approx(1, abs=0.05)
        noise = given * sigma - clean
        expected = (series.first.astype(np.float32) - clean).var() / 2 * (1 + amount**2)
        assert noise.var() == pytest.approx(expected, rel=0.06)
    np.testing.assert_allclose(noisy(series, box, 1.0)[0] * noisy(series, box, 1.0)[1], series.first, atol=4e-3)


@pytest.mark.parametrize("target", ["half", "clean-fbp"])
def test_what_a_step_asks_for_is_the_other_half_or_the_clean_volume(tmp_path, target):
    config = read_general_config(written(tmp_path, target=target, whole_share=0.0, most_noise=1.0, batch=8))
    series = stored()
    batch = SeriesPatches(config, [series], 4).batch(0)
    given, wanted = (values.numpy().ravel() for values in (batch.given, batch.wanted))
    expected = np.corrcoef(series.first.ravel(), (series.second if target == "half" else series.clean).ravel())[0, 1]
    assert np.corrcoef(given, wanted)[0, 1] == pytest.approx(expected, abs=0.12)
    again = SeriesPatches(config, [series], 4).batch(0)
    assert torch.equal(batch.given, again.given)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_and_gives_the_same_weights(tmp_path, monkeypatch):
    path = written(tmp_path)
    said = run("train", path, "-o", tmp_path / "whole.safetensors")
    assert "held series" in said
    step, count = steps._update, []

    def interrupted(*arguments):
        count.append(1)
        if len(count) == 4:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(steps, "_update", interrupted)
    parts = tmp_path / "parts.safetensors"
    run("train", path, "-o", parts, code=130)
    assert not parts.exists()
    assert "--resume" in run("train", path, "-o", parts, code=2)
    run("train", path, "-o", parts, "--resume")
    whole, other = load_denoiser(tmp_path / "whole.safetensors"), load_denoiser(parts)
    for one, two in zip(whole.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(one, two)
    assert whole.card["general"] is True
    assert whole.card["steps"] == 6
    assert set(whole.card["held_series"]["correlation_after"]) == {"whole", "half"}
    rows = (tmp_path / "parts.run" / "validation.csv").read_text().splitlines()
    assert len(rows) == 3
    path.write_text(path.read_text().replace("diverse: 0.0", "diverse: 1.0"))
    assert "another configuration" in run("train", path, "-o", parts, "--overwrite", code=2)


@pytest.mark.slow
def test_a_distilled_training_goes_on_with_its_teacher_and_its_series_alone(tmp_path, monkeypatch):
    teacher, parts = weights(tmp_path / "teacher.safetensors"), tmp_path / "parts.safetensors"
    path = written(tmp_path, target="distilled", teacher=teacher.name)
    step = steps._update

    def interrupted(config, state, *more):
        if state.step == 3:
            signal.raise_signal(signal.SIGINT)
        return step(config, state, *more)

    with monkeypatch.context() as patched:
        patched.setattr(steps, "_update", interrupted)
        run("train", path, "-o", parts, code=130)
    kept = teacher.read_bytes()
    weights(teacher, {"made": "anew"})
    line = "the teacher is not the one that this run was trained on before; put it back"
    assert line in run("train", path, "-o", parts, "--resume", code=2)
    teacher.write_bytes(kept)
    shutil.rmtree(tmp_path / "parts.series")  # which refuses another configuration while it is there
    molecules = tmp_path / "ball.mrc"
    z, y, x = np.ogrid[-6:7, -6:7, -6:7]
    write(molecules, (z**2 + y**2 + x**2 < 20).astype(np.float32))
    words = ("train", path, "-o", parts, "--resume")
    assert "what the series are drawn from is not the one" in run(*words, "--molecules", molecules, code=2)
    shutil.rmtree(tmp_path / "parts.series")
    run(*words)
    card = load_denoiser(parts).card
    assert card["teacher"] == {"name": teacher.name, "sha256": load_denoiser(teacher).sha256}


def test_a_wrong_configuration_is_refused_by_name(tmp_path):
    for change, said in (
        ({"bachbone": "unet"}, "'bachbone'"),
        ({"backbone": "unet-tiny"}, "unet-small"),
        ({"windows": ["ramp", "box"]}, "got box"),
        ({"plain": {"weight": 0.0}}, "nothing to train on"),
        ({"target": "distilled"}, "teacher"),
        ({"recipes": [{"path": "none.yaml"}]}, "none.yaml"),
        ({"voxel_size_angstrom": [9.0, 4.0]}, "voxel_size_angstrom"),
    ):
        assert said in run("train", written(tmp_path, **change), "-o", tmp_path / "x.safetensors", code=2)
    assert "--finetune" in run(
        "train", written(tmp_path), "--finetune", "default", "-o", tmp_path / "x.safetensors", code=2
    )
    assert not list(tmp_path.glob("x*"))
    assert settings.merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}) == {"a": {"b": 1, "c": 3}}


def test_one_volume_is_denoised_at_once_with_the_general_weights(tmp_path, general, volume):
    said = run("denoise", volume, "--method", "n2n")
    assert "trained on halves" not in said
    assert "other volumes" not in said
    made = read_mrc(tmp_path / "tomo_n2n.mrc")
    assert made.data.shape == SHAPE
    record = json.loads((tmp_path / "tomo_n2n.json").read_text())
    assert record["method"]["weights"]["sha256"] == load_denoiser(general).sha256
    assert not (tmp_path / "tomo_n2n.safetensors").exists()
    named = tmp_path / "named.mrc"
    run("denoise", volume, "--method", "n2n", "--model", "general", "-o", named)
    np.testing.assert_array_equal(read_mrc(named).data, made.data)
    assert "choice of the training" in run("denoise", volume, "--method", "n2n", "--loss", "l1", "--overwrite", code=2)


@pytest.mark.parametrize(
    ("size", "said"), [(4.0, "bin the volume"), (21.0, "reconstruct it finer"), (0.0, "does not say")]
)
def test_voxels_that_the_general_weights_have_not_seen_are_told_of(tmp_path, general, size, said):
    path = write(tmp_path / "t.mrc", halves(SHAPE)[0], size)
    assert said in run("denoise", path, "--method", "n2n")


def test_without_general_weights_a_whole_volume_needs_a_model(tmp_path, monkeypatch, volume):
    monkeypatch.setattr(bundled, "BUNDLED", tmp_path / "none")
    assert "--half1 and --half2" in run("denoise", volume, "--method", "n2n", code=2)


@pytest.mark.slow
def test_a_training_begins_with_the_general_weights_if_they_fit(tmp_path, general):
    first, second = (write(tmp_path / f"a_{end}.mrc", v) for end, v in zip(("EVN", "ODD"), halves(SHAPE), strict=True))
    words = ("denoise", "--method", "n2n", "--half1", first, "--half2", second, "--train-minutes", 60)
    assert "beginning with the general weights" in run(*words, "--start", "general")
    card = load_denoiser(tmp_path / "a_n2n.safetensors").card
    assert card["began_with_sha256"] == load_denoiser(general).sha256
    assert "beginning with" not in run(*words, "--start", "fresh", "--overwrite")
    assert "another network" in run(*words, "--start", "general", "--backbone", "msd", "--overwrite", code=2)


def test_for_picking_the_back_projection_is_recommended(general, volume):
    said = " ".join(run("denoise", volume, "--method", "n2n", "--for", "picking").split())
    assert "match templates in the CTF-corrected back-projection" in said
    assert "0.93" in said
    assert "0.79" in said


@pytest.mark.slow
def test_the_purpose_chooses_the_loss_unless_one_is_given(tmp_path):
    first, second = (write(tmp_path / f"a_{end}.mrc", v) for end, v in zip(("EVN", "ODD"), halves(SHAPE), strict=True))
    words = (
        "denoise",
        "--method",
        "n2n",
        "--half1",
        first,
        "--half2",
        second,
        "--train-minutes",
        60,
        "--start",
        "fresh",
    )
    assert "loss mixed" in run(*words, "--for", "membranes")
    assert "loss l1" in run(*words, "--for", "membranes", "--loss", "l1", "--overwrite")


def test_bundled_denoisers_are_listed_described_and_verified(general):
    models = lambda *words: call("models", *words)  # noqa: E731
    line = next(line for line in models("list").output.splitlines() if line.startswith("general"))
    assert "denoiser of volumes, unet" in line
    assert load_denoiser(general).sha256[:12] in line
    assert json.loads(models("info", "general", "--json").output)["card"]["voxel_size_angstrom"] == [8.0, 14.0]
    assert "card.general" in models("info", "general").output
    assert "general: ok" in models("verify", "general").output
    general.with_suffix(".sha256").write_text("0" * 64 + "  general.safetensors")
    wrong = models("verify", "general")
    assert wrong.exit_code == 1
    assert "the file was changed" in wrong.output
    assert "1 of 1 models failed" in wrong.output
