"""Learning from half volumes: exact resumption, what is gained, and that noise teaches nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from half_volumes import halves, noise, pair_of, signal

from cryolithe.denoising.ceiling import correlation, score_halves
from cryolithe.denoising.n2n import train as training
from cryolithe.denoising.n2n.gains import ShellGain
from cryolithe.denoising.n2n.losses import LOSSES
from cryolithe.denoising.n2n.msd import MsdConfig
from cryolithe.denoising.n2n.network import BACKBONES
from cryolithe.denoising.n2n.pairs import Patches
from cryolithe.denoising.n2n.recipe import Recipe, learning_rate, make_recipe
from cryolithe.denoising.n2n.tiles import Runner
from cryolithe.denoising.n2n.train import Hooks, load_state, new_state, save_state, train
from cryolithe.denoising.n2n.unet import UNetConfig
from cryolithe.denoising.n2n.validation import Held, validate
from cryolithe.errors import CryoLitheError, ModelError, SettingsError
from cryolithe.optimise.distributed import Place

PLACE = Place(torch.device("cpu"))
NET = UNetConfig(filters=8, levels=2, first_kernel=3, last=(8, 4))
RECIPE = Recipe(NET, edge=16, batch=2, most_steps=6, warmup_steps=1, validations=3, validation_patches=4)


def patches_of(folder, first, second, recipe=RECIPE, name="a"):
    return Patches([pair_of(folder, first, second, name)], recipe.edge, recipe.config.multiple, recipe.seed)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_an_interrupted_training_goes_on_bit_by_bit(tmp_path, stop_at):
    patches = patches_of(tmp_path, *halves())
    whole = train(RECIPE, patches, PLACE, Hooks(), new_state(RECIPE, PLACE))
    half = new_state(RECIPE, PLACE)
    train(RECIPE, patches, PLACE, Hooks(stop_wanted=lambda: half.step + 1 == stop_at), half)  # asked within a step
    assert half.step == stop_at
    save_state(tmp_path / "s", half, RECIPE, "f")
    again = new_state(replace(RECIPE, seed=RECIPE.seed), PLACE)
    load_state(tmp_path / "s", again, RECIPE, "f")
    train(RECIPE, patches, PLACE, Hooks(), again)
    assert again.finished
    assert again.step == whole.step == 6
    for part in ("network", "averaged", "best"):
        assert same(weights(getattr(again, part)), weights(getattr(whole, part))), part
    assert (again.best_loss, again.stale) == (whole.best_loss, whole.stale)


def test_a_state_of_something_else_is_refused(tmp_path):
    state = new_state(RECIPE, PLACE)
    with pytest.raises(ModelError, match="no saved state"):
        load_state(tmp_path / "s", state, RECIPE, "f")
    save_state(tmp_path / "s", state, RECIPE, "f")
    with pytest.raises(SettingsError, match="other volumes"):
        load_state(tmp_path / "s", state, RECIPE, "g")
    for change in ({"loss": "l1"}, {"edge": 32}, {"config": replace(NET, filters=9)}):
        with pytest.raises(SettingsError, match=next(iter(change))):
            load_state(tmp_path / "s", state, replace(RECIPE, **change), "f")
    (tmp_path / "s").write_bytes(b"x" * 100)
    with pytest.raises(ModelError, match="corrupt"):
        load_state(tmp_path / "s", state, RECIPE, "f")


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_denoises(tmp_path, loss):
    recipe = replace(RECIPE, loss=loss, most_steps=60, learning_rate=5e-3, validations=4, patience=9)
    first, second = halves((24, 64, 40), level=2.0)
    patches = patches_of(tmp_path, first, second, recipe)
    state = train(recipe, patches, PLACE, Hooks(), new_state(recipe, PLACE))
    run = Runner(state.best, PLACE.device, torch.float32)
    score = score_halves((first, second), (run(first), run(second)))
    assert score.gain_db > 1.5
    assert not score.leaks
    truth = signal((24, 64, 40))
    assert correlation(run(first), truth) > correlation(first, truth) + 0.1


@pytest.mark.slow
def test_other_backbones_learn_by_the_same_loop(tmp_path):
    recipe = replace(RECIPE, config=MsdConfig(layers=6, dilations=3), most_steps=40, learning_rate=5e-3)
    first, second = halves(level=2.0)
    patches = patches_of(tmp_path, first, second, recipe)
    state = train(recipe, patches, PLACE, Hooks(), new_state(recipe, PLACE))
    run = Runner(state.best, PLACE.device, torch.float32)
    assert score_halves((first, second), (run(first), run(second))).gain_db > 0.5


@pytest.mark.slow
def test_noise_teaches_nothing(tmp_path):
    shape = (24, 64, 40)
    first, second = noise(shape, 0), noise(shape, 1)
    recipe = replace(RECIPE, most_steps=40)
    patches = patches_of(tmp_path, first, second, recipe)
    state = train(recipe, patches, PLACE, Hooks(), new_state(recipe, PLACE))
    run = Runner(state.best, PLACE.device, torch.float32)
    # Halves that the training has not seen: of the ones it has, a network learns a little by heart.
    fresh = noise(shape, 2), noise(shape, 3)
    for given, other in (fresh, fresh[::-1]):
        assert abs(correlation(run(given), other)) < 3 / math.sqrt(other.size)
    score = score_halves((first, second), (run(first), run(second)))
    assert max(map(abs, score.denoised)) < 3 / math.sqrt(first.size)


def test_time_ends_a_training_and_what_is_held_back_too(tmp_path):
    patches = patches_of(tmp_path, *halves())
    ticks = iter(np.arange(0, 1e6, 1.0))
    endless = replace(RECIPE, most_steps=10**9)
    seen = []
    hooks = Hooks(
        on_validation=lambda state, held: seen.append(state.step), limit_seconds=9.0, clock=lambda: float(next(ticks))
    )
    state = train(endless, patches, PLACE, hooks, new_state(endless, PLACE))
    assert state.finished
    assert 3 <= len(seen) <= 5
    still = replace(RECIPE, most_steps=1000, validations=1000, learning_rate=0.0, patience=3)
    state = train(still, patches, PLACE, Hooks(), new_state(still, PLACE))
    assert state.finished
    assert state.step == 4


def test_the_rate_rises_and_falls_to_nothing():
    recipe = replace(RECIPE, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(recipe, step, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert np.argmax(rates) == 9
    assert rates[100] == pytest.approx(0, abs=1e-9)


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path):
    patches = patches_of(tmp_path, *halves())
    state = new_state(RECIPE, PLACE)
    with torch.no_grad():
        next(iter(state.network.parameters()))[0] = torch.nan
    with pytest.raises(CryoLitheError, match="fp32"):
        train(RECIPE, patches, PLACE, Hooks(), state)


def test_smoothing_is_seen_by_what_is_held_back(tmp_path):
    patches = list(patches_of(tmp_path, *halves((24, 64, 40), level=0.3), RECIPE).held_back(9))
    kept = validate(lambda given: given, patches)
    assert kept.lost == 0
    assert not kept.too_smooth
    blurred = validate(lambda given: torch.nn.functional.avg_pool3d(given, 7, 1, 3), patches)
    assert blurred.too_smooth
    assert blurred.lost_at_per_px > 0.03
    # A change of amplitudes alone loses nothing, and the gain takes it back.
    louder = validate(lambda given: 2 * given, patches, ShellGain((0.5, 0.5)))
    assert louder.lost == 0
    np.testing.assert_allclose(2 * np.array(louder.gain.factors), kept.gain.factors, atol=0.02)
    assert isinstance(louder.gain, ShellGain)


def test_the_recipe_follows_the_device():
    small = make_recipe(BACKBONES["unet"], torch.device("cpu"), seed=4, loss=None)
    large = make_recipe(BACKBONES["unet"], torch.device("cuda"))
    assert (small.seed, small.loss) == (4, "l2")
    assert small.edge < large.edge
    assert small.batch < large.batch


def test_weights_that_smooth_are_not_preferred_to_ones_that_keep_signal(monkeypatch, tmp_path):
    found = iter([(0.1, 0.5), (0.3, 0.01), (0.9, 0.5), (0.2, 0.0), (0.35, 0.0), (0.3, 0.0)])
    kept = []

    def scripted(*_):
        correlation, lost = next(found)
        return Held(correlation, lost, 0.1, ShellGain())

    monkeypatch.setattr(training, "validated", scripted)
    recipe = replace(RECIPE, validations=7)  # one after every step
    hooks = Hooks(on_validation=lambda state, held: kept.append(1 - state.best_loss))
    train(recipe, patches_of(tmp_path, *halves()), PLACE, hooks, new_state(recipe, PLACE))
    np.testing.assert_allclose(kept, [0.1, 0.3, 0.3, 0.3, 0.35, 0.35])
