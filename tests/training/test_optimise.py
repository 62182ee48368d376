"""Laws of any training, held by a network of two numbers: the loop, the state on disk, several processes."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from two_ranks import FIRST, join_other, scaler

from cryolithe.cli.train import _advancing
from cryolithe.errors import CryoLitheError, ModelError, OutputError
from cryolithe.optimise.distributed import Place, Together
from cryolithe.optimise.loop import Hooks, Task, optimise
from cryolithe.optimise.recorder import Recorder, recording
from cryolithe.optimise.state import State, new_scaler, read_state, restore, write_state
from cryolithe.optimise.step import follow, gradient, trainable, update

HERE = Place(torch.device("cpu"))
KIND = "a test's state"
WIDTH = 120


@dataclass(kw_only=True)
class Kept(State[torch.nn.Linear]):
    """With a module and numbers of its own."""

    averaged: torch.nn.Linear
    share: float = 0.0
    count: int = 0
    over: bool = False


def new_state(width=WIDTH, place=HERE):
    torch.manual_seed(1)
    network = torch.nn.Linear(width, 1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1.0)
    averaged = copy.deepcopy(network).requires_grad_(False)
    return Kept(network=network, averaged=averaged, optimiser=optimiser, scaler=new_scaler(place))


def batches(first, steps=10**6):
    for step in range(first, steps):
        yield torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(step))


def losses_of(state, batch):
    return [(state.network(part) - part.mean(1, keepdim=True)).square().mean() / 2 for part in (batch[:2], batch[2:])]


def task(state, steps):
    def step(state, rate):
        norm = update(state, rate, 1.0)
        follow(state.averaged, state.network, 0.9, state.step)
        state.count += 1
        return norm

    return Task(
        steps, batches(state.step, steps), lambda step, share: 0.01 * (1 - share),
        lambda state, batch: gradient(state, losses_of(state, batch)), step, "look at it",
    )  # fmt: skip


def trained(state, steps, place=HERE, **hooks):
    return optimise(task(state, steps), place, Hooks(**hooks), state)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 4, 8])
def test_a_state_on_disk_is_all_that_a_training_needs(tmp_path, stop):
    whole = trained(new_state(), 9)
    first = trained(new_state(), 9, on_step=lambda state, progress: state.step == stop)
    assert first.step == stop
    first.share, first.over = 0.25, True
    write_state(tmp_path / "s", first, KIND, {"volume": "v"})
    second = new_state()
    tensors, values = read_state(tmp_path / "s", KIND)
    restore(tmp_path / "s", second, tensors, values)
    assert values["volume"] == "v"
    assert second.best_loss == math.inf
    assert (second.share, second.over, second.count) == (0.25, True, stop)
    assert isinstance(second.count, int)
    trained(second, 9)
    assert same(whole.network, second.network)
    assert same(whole.averaged, second.averaged)
    assert not same(whole.network, whole.averaged)


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "s"
    with pytest.raises(ModelError, match="no saved state"):
        read_state(path, KIND)
    write_state(path, trained(new_state(), 2), KIND, {})
    with pytest.raises(ModelError, match="is not a saved training state"):
        read_state(path, "another kind")
    with pytest.raises(ModelError, match=r"leaf 'weight' has shape \(1, 120\), expected \(1, 7\)"):
        restore(path, new_state(7), *read_state(path, KIND))


def test_the_gradient_is_that_of_the_sum_of_losses():
    state, batch = new_state(), next(batches(0))
    total = sum(losses_of(state, batch))
    total.backward()
    wanted = state.network.weight.grad.clone()
    assert gradient(state, iter(losses_of(state, batch))) == pytest.approx(total.item())
    torch.testing.assert_close(state.network.weight.grad, wanted)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_overflows_in_another_process_is_skipped_here(monkeypatch, value):
    join_other(monkeypatch, lambda step, own: torch.full_like(own, value) if step == 1 else own)
    state, seen = new_state(), []
    state.scaler = scaler()
    trained(state, 4, FIRST, on_step=lambda state, progress: seen.append(copy.deepcopy(state.network)))
    assert same(seen[0], seen[1])
    assert not same(seen[1], seen[2])
    assert state.scaler.get_scale() == 512.0
    assert not torch.equal(state.network.weight, seen[0].weight)
    assert torch.isfinite(state.network.weight).all()


@pytest.mark.parametrize("resumed_s", [0.0, 4.0])
def test_time_ends_a_training_and_is_what_its_bar_shows(resumed_s):
    ticks = itertools.count()
    state, told = new_state(), []
    state.seconds = resumed_s
    trained(state, 1000, limit_seconds=10.0, clock=lambda: float(next(ticks)), on_step=lambda s, p: told.append(p))
    assert state.seconds == 10.0
    assert [p.done for p in told] == pytest.approx([(resumed_s + n) / 10 for n in range(1, len(told) + 1)])
    assert told[-1].done == 1.0
    assert [p.learning_rate for p in told] == pytest.approx([0.01 * (1 - p.done + 0.1) for p in told])


class Bar:
    """What a watcher is told."""

    def __init__(self):
        self.total, self.done = 0.0, 0.0

    def stage(self, name, total):
        assert self.total == 0
        self.total = total

    def advance(self, amount):
        assert amount >= 0
        self.done += amount


@pytest.mark.parametrize(("limit", "steps", "half"), [(math.inf, 8, 4), (10.0, 1000, 5), (100.0, 8, 4)])
def test_the_bar_is_half_full_at_half_of_the_steps_or_of_the_time(limit, steps, half):
    ticks, bar, shown = itertools.count(), Bar(), []
    advance = _advancing(bar)

    def on_step(state, progress):
        advance(progress)
        shown.append(bar.done / bar.total)

    trained(new_state(), steps, limit_seconds=limit, clock=lambda: float(next(ticks)), on_step=on_step)
    assert shown[half - 1] == pytest.approx(0.5)
    assert shown[-1] == pytest.approx(1.0)


def test_a_wish_to_stop_ends_the_training_after_its_step():
    asked = iter([False, False, True, False])
    state = trained(new_state(), 9, stop_wanted=lambda: next(asked))
    assert state.interrupted
    assert state.step == 3


def test_a_loss_that_is_not_finite_tells_its_batch():
    state, told = new_state(), []
    with torch.no_grad():
        state.network.bias.fill_(math.nan)
    with pytest.raises(CryoLitheError, match="the loss became nan at step 1; look at it"):
        trained(state, 3, on_bad_loss=lambda batch, step: told.append((batch, step)))
    assert torch.equal(told[0][0], next(batches(0)))
    assert told[0][1] == 0
    assert state.step == 0


def test_a_failure_of_the_first_process_ends_the_others(monkeypatch, tmp_path):
    """Both sides: the one that fails raises its own error after the others have been told, which raise another."""
    told = []

    def of_both(flat, op=None):
        told.append(flat.tolist())
        flat += other

    monkeypatch.setattr(torch.distributed, "all_reduce", of_both)
    other = 0.0
    (tmp_path / "a.run" / "train.csv").mkdir(parents=True)
    columns = ("step",), ("step",)
    with (
        pytest.raises(OutputError, match="cannot write"),
        recording(FIRST, lambda: Recorder(tmp_path / "a.run", columns, None, ())),
    ):
        pytest.fail("must not begin")
    assert told == [[1.0]]
    other = 1.0
    with pytest.raises(CryoLitheError, match="process 0 could not go on"):
        Together(FIRST).settle()


def test_a_hook_that_fails_stops_and_is_told_at_the_end():
    together = Together(HERE)

    def broken(state, progress):
        raise OSError("disk")

    state = trained(new_state(), 9, on_step=together.guarded(broken))
    assert state.step == 1
    with pytest.raises(OSError, match="disk"):
        together.settle()


def test_float16_trains_only_where_gradients_are_scaled():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert trainable(torch.float16, cpu) == torch.float32
    assert trainable(torch.float16, gpu) == torch.float16
    assert trainable(torch.bfloat16, cpu) == torch.bfloat16


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_a_row_tells_of_all_steps_since_the_last_one_however_often_a_training_stopped(tmp_path, stop):
    columns = ("step", "loss"), ("step",)

    def recorded(folder, state, resumed, **hooks):
        recorder = Recorder(folder, columns, resumed, ())

        def on_step(state, progress):
            recorder.log(state, progress, state.step % 4 == 0 or state.step == 9)
            return state.step == hooks.get("stop")

        trained(state, 9, on_step=on_step)
        recorder.board.close()
        return state

    recorded(tmp_path / "whole", new_state(), None)
    write_state(tmp_path / "s", recorded(tmp_path / "parts", new_state(), None, stop=stop), KIND, {})
    state = new_state()
    restore(tmp_path / "s", state, *read_state(tmp_path / "s", KIND))
    assert len(state.recent) == stop % 4
    recorded(tmp_path / "parts", state, state.step)
    whole, parts = ((tmp_path / name / "train.csv").read_text() for name in ("whole", "parts"))
    assert whole == parts
    assert whole.count("\n") == 4
