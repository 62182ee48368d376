"""Learning from one volume: what is drawn, what is minimised, and that an interrupted training goes on exactly."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_denoise_warp import TINY
from two_ranks import FIRST, join_other, scaler

from cryolithe.denoising.samba.blocks import Blocks, Source
from cryolithe.denoising.samba.losses import census, census_loss, charbonnier
from cryolithe.denoising.samba.model import SIZES, SambaNet
from cryolithe.denoising.samba.recipe import Recipe, crop_bytes, fitting_batch, make_recipe
from cryolithe.denoising.samba.training import Hooks, learning_rate, load_state, new_state, save_state, train
from cryolithe.denoising.scale import survey
from cryolithe.errors import CryoLitheError, InputError, ModelError, SettingsError
from cryolithe.formats.volumes.volume_file import VolumeFile
from cryolithe.optimise.distributed import Place, least

PLACE = Place(torch.device("cpu"))
RECIPE = Recipe(largest_gap=2, crop=32, overlap=8, batch=2, most_steps=6, validate_every=2, network=TINY)


def source_of(volume):
    file = VolumeFile(Path("v.mrc"), "mrc", volume.shape, volume.dtype, lambda z: volume[z])
    return Source(file, survey(file.read, len(volume), False, "v"))


def noise(shape=(9, 40, 48), seed=0):
    rng = np.random.default_rng(seed)
    return (np.cumsum(rng.standard_normal(shape), axis=0) + rng.standard_normal(shape)).astype(np.float32)


def test_an_epoch_shows_every_block_once_and_none_of_those_held_back():
    blocks = Blocks(source_of(noise()), RECIPE)
    size = blocks.training.size
    assert size + blocks.validation.size == (7 + 5) * 2 * 2
    seen = np.concatenate([blocks.step_numbers(step, 0, 1) for step in range(size // 2 + 1)])
    assert sorted(seen[:size]) == blocks.training.tolist()
    assert not set(blocks.training.tolist()) & set(blocks.validation.tolist())
    second = np.concatenate([blocks.step_numbers(step, 0, 1) for step in range(size // 2, size)])
    assert not np.array_equal(seen[:size], second[:size])


def test_processes_share_an_epoch():
    blocks = Blocks(source_of(noise()), RECIPE)
    alone = Blocks(source_of(noise()), replace(RECIPE, batch=4))
    for step in range(5):
        together = np.concatenate([blocks.step_numbers(step, rank, 2) for rank in range(2)])
        np.testing.assert_array_equal(together, alone.step_numbers(step, 0, 1))


@pytest.mark.slow
def test_a_triplet_is_three_planes_at_equal_distance_and_flips_keep_it_one():
    volume = np.arange(9, dtype=np.float32)[:, None, None] + np.zeros((9, 40, 48), np.float32)
    volume[:, 0, 0] += 0.5  # content
    source = source_of(volume)
    blocks = Blocks(source, RECIPE)
    for step in range(8):
        middle = blocks.batch(step)[:, :, 0, 16, 16] * source.survey.scale.unit + source.survey.scale.centre
        gaps = (middle[1] - middle[0]).abs()
        torch.testing.assert_close(middle[1] - middle[0], middle[2] - middle[1], atol=1e-4, rtol=0)
        assert ((gaps - gaps.round()).abs() < 1e-3).all()
        assert (gaps > 0.9).all()
        assert (gaps < 2.1).all()


def test_small_planes_are_mirrored_to_the_size_of_a_crop():
    blocks = Blocks(source_of(noise((7, 20, 9))), RECIPE)
    assert blocks.batch(0).shape == (3, 2, 1, 24, 16)


def test_too_few_planes_are_refused():
    volume = noise()
    volume[1::2] = 0
    with pytest.raises(InputError, match="three"):
        Blocks(source_of(volume), replace(RECIPE, largest_gap=1))


def test_losses_in_closed_form():
    a, b = torch.zeros(1, 1, 9, 9), torch.full((1, 1, 9, 9), 0.3)
    assert float(charbonnier(a, a)) == pytest.approx(1e-3)
    assert float(charbonnier(a, b)) == pytest.approx((0.3**2 + 1e-6) ** 0.5)
    # The census does not see brightness, and sees a reversed contrast everywhere.
    image = torch.randn(2, 1, 12, 13)
    assert float(census_loss(image, image + 0.25)) == pytest.approx(0, abs=1e-6)
    assert float(census_loss(image, -image)) > 0.8
    assert census(image).shape == (2, 49, 6 * 7)
    # One step up to the right by one grey level of 255: the soft sign of one pixel's difference.
    step = torch.zeros(1, 1, 7, 7)
    step[..., 4:] = 1 / 127.5
    expected = 1 / (0.81 + 1) ** 0.5
    assert float(census(step)[0, :, 0].max()) == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_as_published_and_under_a_time_limit():
    recipe = Recipe(largest_gap=3)
    rates = [learning_rate(recipe, step, 0, False) for step in (0, 149, 299, 1000)]
    assert rates == pytest.approx([2e-4 / 300, 1e-4 * 0.99995**149, 2e-4 * 0.99995**299, 2e-4 * 0.99995**1000])
    assert learning_rate(recipe, 20, 0.06, True) == pytest.approx(2e-4, rel=0.01)  # a short run warms up in 5 % of it
    assert learning_rate(recipe, 400, 1.0, True) == 0


@pytest.mark.slow
def test_the_recipe_follows_the_device_and_the_memory():
    published = SIZES["published"]
    assert make_recipe(6, torch.device("cpu"), published).crop == 128
    assert make_recipe(6, torch.device("cpu"), published, crop=64, batch=None).batch == 2
    recipe = Recipe(largest_gap=6)
    assert fitting_batch(recipe, 80 * 10**9) == 32
    assert 1 <= fitting_batch(recipe, 6 * 10**9) < 8
    assert fitting_batch(recipe, 1000) == 1
    # The published program needs 3 GB for two triplets of 256 x 256.
    assert 2 * crop_bytes(SambaNet(), 256) < 2.5e9


def run(recipe, state, steps_before_stop=None, volume=None, **hooks):
    blocks = Blocks(source_of(noise() if volume is None else volume), recipe)
    asked = []

    def stop():
        asked.append(1)
        return steps_before_stop is not None and len(asked) >= steps_before_stop

    return train(recipe, blocks, PLACE, Hooks(stop_wanted=stop, **hooks), state)


@pytest.mark.slow
def test_a_resumed_training_is_the_uninterrupted_one(tmp_path):
    whole = run(RECIPE, new_state(RECIPE, PLACE))
    assert whole.finished
    assert whole.step == 6
    first = run(RECIPE, new_state(RECIPE, PLACE), steps_before_stop=3)
    assert first.step == 3
    assert not first.finished
    save_state(tmp_path / "s.safetensors", first, RECIPE, "volume")
    second = new_state(replace(RECIPE, seed=0), PLACE)
    load_state(tmp_path / "s.safetensors", second, RECIPE, "volume")
    second = run(RECIPE, second)
    for part in ("network", "best"):
        for name, tensor in getattr(whole, part).state_dict().items():
            assert torch.equal(tensor, getattr(second, part).state_dict()[name]), name
    assert second.best_loss == whole.best_loss
    with pytest.raises(SettingsError, match="'batch' was 2, now 3"):
        load_state(tmp_path / "s.safetensors", second, replace(RECIPE, batch=3), "volume")
    with pytest.raises(SettingsError, match="another volume"):
        load_state(tmp_path / "s.safetensors", second, RECIPE, "other")
    with pytest.raises(ModelError, match="no saved state"):
        load_state(tmp_path / "none.safetensors", second, RECIPE, "volume")


@pytest.mark.slow
def test_training_lowers_the_loss_held_back_and_stops_when_it_no_longer_falls():
    recipe = replace(RECIPE, most_steps=1000, learning_rate=5e-3, warmup_steps=1, patience=50, validate_every=5)
    losses = []
    run(recipe, new_state(recipe, PLACE), 60, on_validation=lambda state, loss: losses.append(loss))
    assert losses[-1] < 0.93 * losses[0]  # 0.88 measured; the first one is after five steps
    stuck = replace(recipe, learning_rate=0.0, patience=2, validate_every=4)
    state = run(stuck, new_state(stuck, PLACE))
    assert state.finished
    assert state.step == 3 * 4  # one best validation, two without a better one


@pytest.mark.slow
def test_the_time_limit_ends_a_training():
    clock = iter(np.arange(0, 1000, 1.0))
    recipe = replace(RECIPE, most_steps=10**6)
    rates = []
    hooks = {"limit_seconds": 10.0, "clock": lambda: float(next(clock))}
    state = run(recipe, new_state(recipe, PLACE), on_step=lambda s, p: rates.append(p.learning_rate), **hooks)
    assert state.finished
    assert state.step == 10
    assert rates[-1] < 0.5 * max(rates)


def test_a_loss_that_is_not_finite_ends_the_training():
    state = new_state(RECIPE, PLACE)
    with torch.no_grad():
        state.network.fusion.merge.bias.fill_(float("nan"))
    with pytest.raises(CryoLitheError, match="loss became nan"):
        run(RECIPE, state)


def test_an_overflow_of_one_process_is_skipped_by_all(monkeypatch):
    """The other process has the same numbers and, in the second step, a gradient that overflowed in float16."""
    own_gradients = []

    def overflow(step, own):
        own_gradients.append(own)
        return torch.full_like(own, math.inf) if step == 1 else own

    join_other(monkeypatch, overflow, numbers=3)
    state = new_state(RECIPE, FIRST)
    state.scaler = scaler()
    weights, scales = [], []

    def note(state, progress):
        weights.append([p.detach().clone() for p in state.network.parameters()])
        scales.append(state.scaler.get_scale())

    train(RECIPE, Blocks(source_of(noise()), RECIPE), FIRST, Hooks(note), state)
    assert torch.isfinite(own_gradients[1]).all()
    assert scales == [1024.0] + [512.0] * 5
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights[1], weights[2], strict=True))
    assert all(torch.isfinite(p).all() for p in weights[-1])


def test_all_processes_take_the_batch_of_the_one_with_least_memory(monkeypatch):
    """A batch of each one's own would also be a recipe of each one's own."""

    def least_of_both(tensor, op):
        assert op == torch.distributed.ReduceOp.MIN
        tensor.clamp_(max=5)  # the other one's

    monkeypatch.setattr(torch.distributed, "all_reduce", least_of_both)
    assert least(8, FIRST) == 5
    assert least(3, FIRST) == 3
    assert least(8, PLACE) == 8
