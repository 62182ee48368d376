"""Training on a CPU: windows around detector columns give the values and gradients that windows around points give."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from test_train_run import small_config as run_config
from test_train_run import source_of

from cryolithe.network import Head, InputWindow, RowSetConfig, SliceSetConfig, build_network
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks
from cryolithe.training import loop
from cryolithe.training.columns import columns_pay, gather_columns
from cryolithe.training.dataset import Run, gather
from cryolithe.training.loop import TrainState, batches_loss, train
from cryolithe.training.pooling import UNSEEN, PoolLifted, available
from cryolithe.training.sections import LossSettings

pytestmark = pytest.mark.skipif(not available(), reason="needs numba")

CPU = torch.device("cpu")
SIZES = {
    "plain": RowSetConfig(input=InputWindow(taps=5, context_taps=3), rows=5, channels=7, row_hidden=9, row_features=3,
                          combiner_width=8, combiner_layers=2),
    "no context": RowSetConfig(input=InputWindow(taps=9, context_taps=0), head=Head(0), rows=3, channels=16,
                               row_hidden=4, row_features=2, combiner_width=4, combiner_layers=1),
    "oversampled": RowSetConfig(input=InputWindow(taps=7, context_taps=5, oversampling=2), rows=3, channels=6,
                                row_hidden=5, row_features=4, combiner_width=6, combiner_layers=2),
    "bands": RowSetConfig(input=InputWindow(taps=5, context_taps=3, bands=2), head=Head(2, "haar"), rows=3, channels=5,
                          row_hidden=5, row_features=4, combiner_width=6, combiner_layers=2, weigh_spacing=True),
    "trunk": RowSetConfig(input=InputWindow(taps=5, context_taps=3), rows=5, channels=8, row_hidden=6, row_features=4,
                          combiner_width=6, trunk_units=2),
}  # fmt: skip


def drawn_run(network: RowSetConfig, tilts: int = 9, width: int = 23, cube=(6, 5, 7), seed: int = 0) -> Run:
    """A cube of points that some tilts see wholly, some in part, at and beyond both ends of the rows, one not at all.

    Columns are eighths of a pixel, so that the ways to find the same fraction do not differ in rounding.
    """
    rng = np.random.default_rng(seed)
    z, y, x = cube
    stride, outputs = network.head.stride, network.head.outputs
    rows = network.rows + stride - 1 + stride * (y - 1)
    angles = np.deg2rad(np.sort(rng.uniform(-65, 65, tilts))).astype(np.float32)
    places = np.stack(np.meshgrid(np.arange(z) - z / 2, np.arange(x) - x / 2, indexing="ij"), -1).reshape(-1, 2)
    columns = np.cos(angles)[:, None] * places[:, 1] * 3 + np.sin(angles)[:, None] * places[:, 0] * 3 + (width - 1) / 2
    columns = np.round(8 * columns) / 8
    columns[0] += width
    if tilts > 1:
        columns[1, :4] = -0.5, width - 0.5, -0.625, width - 0.375
    return Run(
        rows=torch.from_numpy(rng.standard_normal((tilts, rows, width), dtype=np.float32)),
        columns=torch.from_numpy(columns.astype(np.float32)),
        angles_rad=torch.from_numpy(angles),
        targets=torch.from_numpy(rng.standard_normal((z * x, y, outputs), dtype=np.float32)),
        output_gain=0.7,
        cube=cube,
    )


def awake_network(config, seed: int = 0):
    """A network none of whose weights are zero, so that all have gradients."""
    torch.manual_seed(seed)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def loss_and_gradients(network, batches, precision=torch.float32):
    network.zero_grad()
    weights = torch.ones(network.config.head.outputs, dtype=next(network.parameters()).dtype)
    loss = batches_loss(network, batches, weights, precision, LossSettings())
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in network.named_parameters()}


def ways(network, runs):
    return [gather(run, network.config, CPU) for run in runs], [gather_columns(run, network.config) for run in runs]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", SIZES)
def test_both_ways_have_one_loss_and_one_gradient(name, threads):
    network = awake_network(SIZES[name])
    runs = [drawn_run(network.config, tilts, width, seed=width) for tilts, width in ((9, 23), (4, 40), (1, 16), (6, 7))]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (wanted, slopes), (found, others) = (loss_and_gradients(network, batches) for batches in ways(network, runs))
    finally:
        torch.set_num_threads(before)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    for weight, slope in slopes.items():
        assert slope.abs().max() > 0, weight
        assert (others[weight] - slope).norm() < 2e-5 * slope.norm(), weight


def test_values_are_those_of_the_network_wherever_a_point_lies():
    """Between columns, on them, in the half pixel beyond the outermost ones, and outside."""
    network = awake_network(SIZES["oversampled"]).requires_grad_(False)
    run = drawn_run(network.config, 5, 12)
    points = torch.arange(-2.0, 14.0, 0.125)
    columns = torch.stack([points, points.flip(0), points + 3, points - 20, 5 + 0 * points])
    targets = torch.zeros(len(points), 5, 8)
    run = dataclasses.replace(run, columns=columns, cube=None, targets=targets)
    plain, quick = gather(run, network.config, CPU), gather_columns(run, network.config)
    wanted = network(plain.windows, plain.visible, network.tilt_context(plain.angles_rad))
    found = loop.values_of_blocks(network, quick)
    assert wanted.abs().amax((1, 2)).min() > 0
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_points_that_no_tilt_sees_have_no_value():
    network = awake_network(SIZES["plain"]).requires_grad_(False)
    run = drawn_run(network.config)
    run = dataclasses.replace(run, columns=run.columns + 1000)
    assert torch.equal(loop.values_of_blocks(network, gather_columns(run, network.config)), torch.zeros(42, 5, 8))


@pytest.mark.slow
def test_the_gradient_of_pooling_is_that_of_its_values():
    generator = torch.Generator().manual_seed(3)
    lifted = torch.randn((3, 2, 6, 5), generator=generator, dtype=torch.float64, requires_grad=True)
    start = torch.tensor([[0, 4, 4, 1], [UNSEEN, 2, 2, 3], [1, UNSEEN, 0, UNSEEN]], dtype=torch.int32)
    fraction, scale = torch.rand((3, 4), generator=generator), torch.tensor([0.5, 0.5, 0.25, 1.0])
    assert torch.autograd.gradcheck(PoolLifted.apply, (lifted, start, fraction, scale))
    pooled = PoolLifted.apply(lifted, start, fraction, scale)
    inside = torch.lerp(lifted[0, :, 4], lifted[0, :, 5], fraction[0, 1].double()).relu()
    inside = inside + torch.lerp(lifted[1, :, 2], lifted[1, :, 3], fraction[1, 1].double()).relu()
    assert torch.allclose(pooled[:, 1], 0.5 * inside)


def test_the_number_of_threads_changes_no_bit():
    network = awake_network(SIZES["plain"])
    batch = gather_columns(drawn_run(network.config, 12, 30), network.config)
    start, fraction, scale = batch.start, batch.fraction, batch.scale
    lifted = torch.randn((*batch.windows.shape[:3], 7), requires_grad=True)
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        try:
            pooled = PoolLifted.apply(lifted, start, fraction, scale)
            found.append((pooled, *torch.autograd.grad(pooled.square().sum(), lifted)))
        finally:
            torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_half_precision_is_no_less_precise_by_columns():
    """Rows are lifted and averaged in single precision, where windows are halved from the start."""
    errors: list[list[float]] = [[], []]
    for seed in range(4):
        network = awake_network(SIZES["trunk"], seed)
        batches_of_ways = ways(network, [drawn_run(network.config, 9, 31, seed=seed)])
        exact, slopes = loss_and_gradients(network, batches_of_ways[0])
        for batches, found in zip(batches_of_ways, errors, strict=True):
            loss, others = loss_and_gradients(network, batches, torch.bfloat16)
            assert loss.item() == pytest.approx(exact.item(), rel=1e-3)
            found += [((others[name] - slope).norm() / slope.norm()).item() for name, slope in slopes.items()]
    assert 0 < np.mean(errors[1]) < 1.25 * np.mean(errors[0])


def test_a_run_takes_the_way_that_has_less_to_do():
    config = SIZES["plain"]
    cube = drawn_run(config)
    few = dataclasses.replace(cube, columns=cube.columns[:, :5], targets=cube.targets[:5], cube=None)
    assert columns_pay(cube, config)
    assert not columns_pay(few, config)
    assert not columns_pay(cube, SliceSetConfig())


@pytest.mark.slow
@pytest.mark.parametrize("trunk", [0, 2])
def test_a_training_takes_the_same_steps_either_way(monkeypatch, trunk):
    cubes = {"loss": LossSettings(cube=(6, 4, 8))} if trunk else {"columns": 64}
    config = run_config(steps=4, **cubes)
    config = config.model_copy(update={"network": config.network | {"trunk_units": trunk}})
    taken = {way: [] for way in ("columns", "points")}
    real = loop.gather_columns
    monkeypatch.setattr(loop, "gather_columns", lambda run, network: taken["columns"].append(1) or real(run, network))

    def trained() -> tuple[TrainState, list[float]]:
        losses: list[float] = []
        hooks = Hooks(on_step=lambda state, progress: losses.append(progress.loss))
        return train(config, source_of(config), Place(CPU), hooks), losses

    state, losses = trained()
    assert len(taken["columns"]) == config.steps * config.runs_per_step
    monkeypatch.setattr(loop, "columns_pay", lambda run, network: False)
    other, others = trained()
    assert len(taken["columns"]) == config.steps * config.runs_per_step
    assert losses == pytest.approx(others, rel=1e-4)
    for (name, a), b in zip(state.network.named_parameters(), other.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4), name
