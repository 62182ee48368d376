"""``cryolithe denoise --method n2n`` as a user meets it."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from command import call, ended
from half_volumes import halves, noise, write
from half_volumes import signal as density
from test_denoise_warp import TINY as SAMBA

from cryolithe.denoising.method import means_of
from cryolithe.denoising.n2n import learning, network, recipe, train
from cryolithe.denoising.n2n.gather import output_of
from cryolithe.denoising.n2n.unet import UNetConfig
from cryolithe.denoising.samba.model import SambaNet, save_weights
from cryolithe.formats import read_mrc
from cryolithe.optimise.distributed import Place

pytestmark = pytest.mark.slow
SHAPE = (24, 64, 40)
TINY = UNetConfig(filters=6, levels=2, first_kernel=3, last=(6, 4))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """A network and a training of a second, whatever the clock says."""
    monkeypatch.setitem(network.BACKBONES, "unet-small", TINY)
    make = recipe.make_recipe

    def short(*arguments, **changes):
        return replace(make(*arguments, **changes), edge=16, most_steps=24, validations=3, learning_rate=5e-3)

    monkeypatch.setattr(learning, "make_recipe", short)


OTHER_START = "the model that the training starts from is not the one that this run was trained on before"


@pytest.fixture
def pair(tmp_path):
    """Files of two halves with a deviation of 7 around 100 and 50."""
    first, second = halves(SHAPE, level=1.5)
    write(tmp_path / "ts_EVN.mrc", 100 + 7 * first)
    write(tmp_path / "ts_ODD.mrc", 50 + 7 * second)
    return tmp_path / "ts_EVN.mrc", tmp_path / "ts_ODD.mrc"


def denoise(*words):
    return call("denoise", "--method", "n2n", *words, "--device", "cpu")


def of(pair):
    return ("--half1", pair[0], "--half2", pair[1])


def good(*words):
    result = denoise(*words)
    assert result.exit_code == 0, result.output
    return result.output


def bad(*words, code=2):
    return ended(denoise(*words), code)


def test_of_two_halves_the_one_that_changed_is_named(tmp_path, pair, monkeypatch):
    from cryolithe.denoising import run as running

    plain = running._judged

    def changing(*arguments):
        with pair[1].open("r+b") as file:
            file.seek(1000)  # in a label
            file.write(b"x")
        return plain(*arguments)

    monkeypatch.setattr(running, "_judged", changing)
    said = bad(*of(pair), "--train-minutes", 60)
    assert f"the input {pair[1]} changed while it was denoised; {tmp_path / 'ts_n2n.mrc'} is of both states" in said


def test_two_halves_become_one_volume_with_less_noise(tmp_path, pair):
    said = good(*of(pair), "--report", tmp_path / "r.png", "--train-minutes", 60)
    assert "Half SNR" in said
    made = read_mrc(tmp_path / "ts_n2n.mrc")
    assert made.data.shape == SHAPE
    assert made.voxel_sizes_angstrom[0] == pytest.approx(10)
    assert made.labels[0].startswith("CryoLithe")
    assert "n2n" in made.labels[0]
    truth = density(SHAPE)
    assert np.corrcoef(made.data.ravel(), truth.ravel())[0, 1] > 0.8
    assert made.data.mean() == pytest.approx(75, abs=1.5)  # in the grey levels of the halves
    record = json.loads((tmp_path / "ts_n2n.json").read_text())
    assert set(record["inputs"]) == {"half1", "half2"}
    assert record["method"]["name"] == "n2n"
    assert record["method"]["card"]["steps"] == 24
    score = record["score"]
    assert score["half_snr_raw_db"] + 1 < score["half_snr_denoised_db"] <= score["half_snr_ceiling_db"] + 0.5
    assert not score["leaks"]
    assert record["guard"]["coherence_from"] == "even and odd halves"
    assert (tmp_path / "r.png").stat().st_size > 10_000
    assert (tmp_path / "ts_n2n.run" / "validation.csv").read_text().count("\n") == 4
    assert not list(tmp_path.glob("*partial*"))


def test_weights_are_used_again_on_halves_and_on_a_whole_volume(tmp_path, pair):
    good(*of(pair), "--train-minutes", 60)
    weights = tmp_path / "ts_n2n.safetensors"
    good(*of(pair), "--model", weights, "-o", tmp_path / "again.mrc")
    first, again = (read_mrc(tmp_path / name).data for name in ("ts_n2n.mrc", "again.mrc"))
    np.testing.assert_array_equal(first, again)
    full = write(tmp_path / "full.mrc", sum(np.asarray(read_mrc(p).data) for p in pair) / 2)
    said = good(full, "--model", weights)
    assert "trained on halves" in said
    made = read_mrc(tmp_path / "full_n2n.mrc").data
    assert np.corrcoef(made.ravel(), density(SHAPE).ravel())[0, 1] > 0.8
    assert "score" in json.loads((tmp_path / "full_n2n.json").read_text())
    others = [write(tmp_path / f"x_{end}.mrc", v) for end, v in zip(("even", "odd"), halves(SHAPE, 5), strict=True)]
    assert "trained on other volumes" in good(*of(others), "--model", weights)
    assert (tmp_path / "x_n2n.mrc").exists()


def test_weights_of_something_else_are_refused(tmp_path, pair):
    assert "there is no file" in bad(*of(pair), "--model", tmp_path / "none.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"x" * 64)
    assert "corrupt" in bad(*of(pair), "--model", tmp_path / "w.safetensors")
    samba = save_weights(tmp_path / "s.safetensors", SambaNet(SAMBA), {})
    assert samba is None
    said = bad(*of(pair), "--model", tmp_path / "s.safetensors")
    assert "Noise2Noise" in said


def test_what_weights_have_not_seen_is_said(tmp_path, pair):
    for path in pair:
        record = {"volume": {"path": path.name, "contrast": "dark"}}
        path.with_suffix(".json").write_text(json.dumps(record))
    good(*of(pair), "--train-minutes", 60)
    weights = tmp_path / "ts_n2n.safetensors"
    whole = write(tmp_path / "same.mrc", read_mrc(pair[0]).data, voxel_size=10.5)
    whole.with_suffix(".json").write_text(json.dumps({"volume": {"path": whole.name, "contrast": "dark"}}))
    assert "Warning" not in good(whole, "--model", weights).replace("Warning: signal may", "").replace(
        "Warning: energy", ""
    )
    other = write(tmp_path / "other.mrc", read_mrc(pair[0]).data, voxel_size=13)
    other.with_suffix(".json").write_text(json.dumps({"volume": {"path": other.name, "contrast": "bright"}}))
    said = good(other, "--model", weights)
    assert "other.mrc has voxels of 13 Å" in said
    assert "trained on 10 Å" in said
    assert "other.mrc is bright" in said


def test_a_shift_between_the_halves_is_said_and_recorded(tmp_path):
    first = density(SHAPE) + 0.7 * noise(SHAPE, 0)
    second = density(SHAPE, shift=(0, 0, 0.8)) + 0.7 * noise(SHAPE, 1)
    both = [write(tmp_path / f"s_{end}.mrc", v) for end, v in (("EVN", first), ("ODD", second))]
    said = good(*of(both), "--train-minutes", 60)
    assert "s_ODD.mrc is shifted against s_EVN.mrc by" in said
    found = json.loads((tmp_path / "s_n2n.json").read_text())["halves"]
    assert found["shift_px"][2] == pytest.approx(0.8, abs=0.15)
    assert "shifted" in found["warnings"][0]


def test_an_interrupted_training_goes_on_and_gives_the_same_bytes(tmp_path, pair, monkeypatch):
    good(*of(pair), "-o", tmp_path / "whole.mrc", "--train-minutes", 60)
    step, count = train._update, []

    def interrupted(*arguments):
        count.append(1)
        if len(count) == 7:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(train, "_update", interrupted)
    said = bad(*of(pair), "-o", tmp_path / "parts.mrc", "--train-minutes", 60, code=130)
    assert "--resume" in said
    assert not (tmp_path / "parts.mrc").exists()
    assert "--resume" in bad(*of(pair), "-o", tmp_path / "parts.mrc", "--train-minutes", 60)
    assert "Going on" in good(*of(pair), "-o", tmp_path / "parts.mrc", "--train-minutes", 60, "--resume")
    np.testing.assert_array_equal(read_mrc(tmp_path / "parts.mrc").data, read_mrc(tmp_path / "whole.mrc").data)
    (tmp_path / "parts.mrc").unlink()  # the training is done; what comes after it is made again
    (tmp_path / "parts.json").unlink()
    count.clear()
    assert "The training is done" in good(*of(pair), "-o", tmp_path / "parts.mrc", "--train-minutes", 60, "--resume")
    assert not count
    np.testing.assert_array_equal(read_mrc(tmp_path / "parts.mrc").data, read_mrc(tmp_path / "whole.mrc").data)


@pytest.mark.parametrize("minutes", [1e-6, 1.6e-6, 0.0001, 0.12, 1.1, 7.3, 30, 1e5, None])
def test_the_time_of_a_training_is_told_as_it_was_given(minutes):
    told = means_of(Place(torch.device("cpu")), 60.0 * minutes if minutes else float("inf"))
    assert told["train_minutes"] == minutes


@pytest.mark.slow
def test_a_training_that_is_done_serves_no_other_choices(tmp_path, pair):
    words = (*of(pair), "-o", tmp_path / "x.mrc", "--resume", "--train-minutes")
    good(*words, "1.6e-6", "--batch", 1)  # a single step, whatever the clock says
    card, kept = (network.load_denoiser(tmp_path / "x.safetensors").card, (tmp_path / "x.safetensors").read_bytes())
    assert (card["steps"], card["train_minutes"]) == (1, 1.6e-6)
    for name in ("x.mrc", "x.json"):  # what comes after the training is made again
        (tmp_path / name).unlink()
    assert "'loss' was l2, now mixed;" in bad(*words, "1.6e-6", "--batch", 1, "--loss", "mixed")
    assert "'batch' was 1, now 3;" in bad(*words, "1.6e-6", "--batch", 3)
    assert "'batch' was 1, now 2;" in bad(*words, 60)
    assert "with --train-minutes 1.6e-06, now --train-minutes 1e-07;" in bad(*words, "1e-7", "--batch", 1)
    assert (tmp_path / "x.safetensors").read_bytes() == kept
    assert not (tmp_path / "x.mrc").exists()
    assert "The training is done" in good(*words, "1.6e-6", "--batch", 1)
    assert (tmp_path / "x.safetensors").read_bytes() == kept


@pytest.mark.slow
def test_a_training_that_is_done_goes_on_where_more_time_is_asked_for(tmp_path, pair):
    words = (*of(pair), "-o", tmp_path / "x.mrc", "--resume", "--train-minutes")
    good(*words, "1e-6")
    (tmp_path / "x.mrc").unlink()
    (tmp_path / "x.json").unlink()
    said = " ".join(good(*words, 60).split())
    assert "Going on with the training at step 1," in said
    assert "goes on from step 1 with --train-minutes 60 in place of --train-minutes 1e-06; its numbers" in said
    record = json.loads((tmp_path / "x.json").read_text())
    card = record["method"]["card"]
    assert record["choices"]["train_minutes"] == 60
    assert (card["steps"], card["train_minutes"], card["went_on"]) == (24, 1e-6, [{"step": 1, "train_minutes": 60.0}])
    table = (tmp_path / "x.run" / "validation.csv").read_text().splitlines()
    assert len(table) == 1 + 1 + 3  # as often as in a training of that length, not once at its end
    for name in ("x.mrc", "x.json"):
        (tmp_path / name).unlink()
    assert "The training is done" in good(*words, 90)  # no step is left: more time changes nothing


@pytest.mark.slow
def test_what_a_device_chose_is_not_asked_for_on_another(tmp_path, pair, monkeypatch):
    words = (*of(pair), "-o", tmp_path / "x.mrc", "--start", "fresh", "--resume")
    good(*words, "--train-minutes", "60")
    (tmp_path / "x.mrc").unlink()
    (tmp_path / "x.json").unlink()
    monkeypatch.setattr("cryolithe.denoising.session.is_other_device", lambda before, now: True)
    make = learning.make_recipe
    monkeypatch.setattr(learning, "make_recipe", lambda *a, **k: replace(make(*a, **k), edge=32, batch=k["batch"] or 8))
    assert "'loss' was l2, now mixed;" in bad(*words, "--loss", "mixed")
    assert "'batch' was 2, now 3;" in bad(*words, "--batch", 3)
    assert "The training is done" in good(*words)


@pytest.mark.slow
def test_a_training_goes_on_only_with_the_model_that_it_started_from(tmp_path, pair, monkeypatch):
    for seed in (1, 2):
        good(*of(pair), "-o", tmp_path / f"{seed}.mrc", "--train-minutes", 60, "--seed", seed)
    first, second = ((tmp_path / f"{seed}.safetensors").read_bytes() for seed in (1, 2))
    start = tmp_path / "start.safetensors"
    start.write_bytes(first)
    words = (*of(pair), "-o", tmp_path / "parts.mrc", "--train-minutes", 60, "--model", start)
    step = train._update

    def interrupted(wanted, state, *more):
        if state.step == 5:
            signal.raise_signal(signal.SIGINT)
        return step(wanted, state, *more)

    with monkeypatch.context() as patched:
        patched.setattr(train, "_update", interrupted)
        bad(*words, code=130)
    start.write_bytes(second)
    assert OTHER_START in bad(*words, "--resume")
    assert "is not given, which" in bad(*words[:-2], "--resume", "--start", "fresh")
    start.write_bytes(first)
    assert "Going on" in good(*words, "--resume")
    for name in ("parts.mrc", "parts.json"):  # the training is done; what comes after it is made again
        (tmp_path / name).unlink()
    start.write_bytes(second)
    assert OTHER_START in bad(*words, "--resume")
    start.write_bytes(first)
    assert "'seed' was 0, now 7" in bad(*words, "--resume", "--seed", 7)
    assert "The training is done" in good(*words, "--resume")


def test_halves_of_nothing_but_noise_give_what_correlates_with_neither(tmp_path):
    both = [write(tmp_path / f"n_{end}.mrc", noise(SHAPE, n)) for n, end in enumerate(("EVN", "ODD"))]
    said = good(*of(both), "--train-minutes", 60)
    assert "nothing in common" in said
    score = json.loads((tmp_path / "n_n2n.json").read_text())["score"]
    assert not score["leaks"]
    assert max(map(abs, score["correlations"]["denoised"])) < 3 / np.sqrt(np.prod(SHAPE))


def test_what_cannot_be_learned_from_is_refused_before_any_work(tmp_path, pair):
    one, other = pair
    assert "same file" in bad("--half1", one, "--half2", one)
    assert "give both" in bad("--half1", one)
    assert "--half1 and --half2" in bad()
    assert "either VOLUME or" in bad(one, *of(pair))
    assert "does not exist" in bad("--half1", tmp_path / "no.mrc", "--half2", other)
    assert "--lmax goes with --method samba" in bad(*of(pair), "--lmax", 4)
    assert "--augment goes with --method samba" in bad(*of(pair), "--augment")
    assert "input of this run" in bad(*of(pair), "-o", one, "--overwrite")
    assert "output folder" in bad(*of(pair), "-o", tmp_path / "no" / "x.mrc")
    assert "--backbone is for a network that begins anew" in bad(*of(pair), "--model", one, "--backbone", "unet")
    assert "--loss is for the training" in bad(*of(pair), "--model", one, "--loss", "l1")
    assert "--batch is for the training" in bad(one, "--model", one, "--batch", 1)
    assert "learns from two halves" in bad(one, "--model", one, "--train-minutes", 1)
    small = [write(tmp_path / f"s_{n}.mrc", v) for n, v in enumerate(halves((8, 40, 40)))]
    assert "at least 16" in bad(*of(small))
    assert not list(tmp_path.glob("*n2n*"))
    samba = call("denoise", one, "--backbone", "unet")
    assert samba.exit_code == 2
    assert "--backbone goes with --method n2n" in samba.output
    samba = call("denoise", *of(pair))
    assert samba.exit_code == 2
    assert "--method n2n" in samba.output


def test_what_exists_is_not_replaced_unasked(tmp_path, pair):
    (tmp_path / "ts_n2n.mrc").write_text("precious")
    assert "--overwrite" in bad(*of(pair))
    assert (tmp_path / "ts_n2n.mrc").read_text() == "precious"
    good(*of(pair), "--train-minutes", 60, "--overwrite")
    assert "--overwrite" in bad(*of(pair))


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("ts_01_EVN.mrc", "ts_01_n2n.mrc"),
        ("ts_01_even_vol.rec", "ts_01_vol_n2n.rec"),
        ("rec_ts_half1.mrc", "rec_ts_n2n.mrc"),
        ("tomo_half_1_aligned.mrc", "tomo_aligned_n2n.mrc"),
        ("event.mrc", "event_n2n.mrc"),
        ("tomo.mrc", "tomo_n2n.mrc"),
    ],
)
def test_the_output_is_named_after_the_series(tmp_path, first, expected):
    assert output_of(tmp_path / first) == tmp_path / expected
