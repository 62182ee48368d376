"""The fast engine computes what the networks' definitions say, whatever is done at a time."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryolithe.formats import read_tilt_series
from cryolithe.geometry import TiltGeometry
from cryolithe.inference import BatchSize, Engine, PointGrid, RowRun, lift_network, pooling, shows_overflow
from cryolithe.inference.algebra import LiftedNetwork, RowEncoder, Step
from cryolithe.inference.columns import lifted_columns, point_block
from cryolithe.inference.pooling import GpuPool, pool_numba, pool_through, pool_torch, pool_version
from cryolithe.network import Head, InputWindow, RowSetConfig, SliceSetConfig, build_network
from cryolithe.network.checkpoint import load_model
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.sampling import block_positions_px, pad_rows, point_columns, row_windows, visible
from cryolithe.training.scoring import reconstruct_array

NEEDLE = Path(__file__).resolve().parents[2] / "examples" / "needle"
ANGLES = tuple(np.linspace(-61.0, 52.0, 9))
WIDTH, BLOCKS, POINTS_ZX = 26, 5, (4, 9)

ROWSET = {"rows": 9, "channels": 16, "row_hidden": 24, "row_features": 8, "combiner_width": 16}
SLICESET = {"rows": 5, "channels": 8, "set_hidden": 12, "set_features": 10, "row_hidden": 14, "row_features": 6}
CONFIGS = {
    "RowSet lv0": RowSetConfig(head=Head(0), **ROWSET),
    "RowSet lv1": RowSetConfig(head=Head(1), **ROWSET),
    "RowSet lv2": RowSetConfig(head=Head(2), **ROWSET),
    "RowSet without context": RowSetConfig(InputWindow(7, context_taps=0), Head(1), **ROWSET),
    "RowSet without angles": RowSetConfig(InputWindow(7), Head(1), angle_harmonics=0, **ROWSET),
    "RowSet, finer rows": RowSetConfig(InputWindow(7, context_taps=5, oversampling=2), Head(1), **ROWSET),
    "RowSet with bands": RowSetConfig(InputWindow(7, bands=2), Head(1), weigh_spacing=True, **ROWSET),
    "SliceSet lv0": SliceSetConfig(head=Head(0), combiner_width=20, combiner_layers=3, **SLICESET),
    "SliceSet lv1": SliceSetConfig(head=Head(1), combiner_width=20, combiner_layers=3, **SLICESET),
    "SliceSet of two layers per tilt": SliceSetConfig(head=Head(1), set_layers=2, combiner_layers=0, **SLICESET),
    "SliceSet without skips": SliceSetConfig(head=Head(2), row_layers=0, skip=False, **SLICESET),
}


def series(config, seed=0):
    """A network, its points, filtered rows, and the definition's values in float64: ``(points, blocks, outputs)``."""
    torch.manual_seed(seed)
    network = build_network(config).double().requires_grad_(False)
    geometry = TiltGeometry(ANGLES, (30, WIDTH))
    stride = config.head.stride
    # From well before the detector to beyond it, so that some tilts do not see some points.
    z, x = block_positions_px(8, -1, POINTS_ZX[0], stride), block_positions_px(22, -2, 9, stride)
    per_px = config.input.oversampling
    grid = PointGrid(geometry, z, x, per_px=per_px)
    count = network.rows_per_point + stride * (BLOCKS - 1)
    rows = [torch.randn(len(ANGLES), count, WIDTH * per_px) for _ in config.input.windows]
    columns = point_columns(geometry, np.repeat(grid.z_px, 9), np.tile(grid.x_px, 4))
    exact = columns.double()
    windows = [
        row_windows(pad_rows(row.double(), window), exact, window)
        for row, window in zip(rows, config.input.windows, strict=True)
    ]
    angles = torch.from_numpy(geometry.angles_rad)
    expected = network(torch.cat(windows, dim=-1), visible(columns, WIDTH), network.tilt_context(angles))
    return network, grid, RowRun(rows, stride * np.arange(BLOCKS, dtype=np.float64)), expected


def engine(network, grid, dtype, batch, **settings):
    exact = network if dtype == torch.float64 else network.float()
    lifted = lift_network(exact, torch.from_numpy(grid.geometry.angles_rad)).to(torch.device("cpu"), dtype)
    return Engine(lifted, network.config.input.windows, grid, batch, **settings)


def relative(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("pool", [pool_torch, pool_numba])
def test_the_algebra_is_exact(name, pool):
    network, grid, run, expected = series(CONFIGS[name])
    for batch in (BatchSize(), BatchSize(7, 1), BatchSize(5, 3, 12), BatchSize(36, 8)):
        found = engine(network, grid, torch.float64, batch, pool=pool)(run)
        assert relative(found, expected) < 1e-13


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_in_float32_and_bfloat16_it_comes_as_close_as_they_can(name):
    network, grid, run, expected = series(CONFIGS[name])
    whole = engine(network, grid, torch.float32, BatchSize())(run)
    assert whole.dtype == torch.float32
    assert relative(whole, expected) < 1e-5
    shares = []
    cut = engine(network, grid, torch.float32, BatchSize(5, 2, 12), threads=3)(run, shares.append)
    assert relative(cut, whole) < 1e-6
    assert sum(shares) == pytest.approx(1)
    half = engine(network, grid, torch.bfloat16, BatchSize())(run)
    assert half.dtype == torch.float32
    assert 0 < relative(half, expected) < 3e-2


@pytest.mark.parametrize(("in_memory", "kept", "made"), [(36, 0, 4), (1 << 20, 0, 4), (18, 35, 8), (18, 36, 4)])
def test_the_blocks_of_an_only_part_serve_the_next_run(in_memory, kept, made, monkeypatch):
    """36 points in blocks of 9; where they are two parts, nothing is kept between runs unless it is allowed."""
    from cryolithe.inference import engine as module

    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return point_block(*arguments)

    monkeypatch.setattr(module, "point_block", counted)
    network, grid, run, expected = series(CONFIGS["RowSet lv1"])
    applied = engine(network, grid, torch.float64, BatchSize(9, 2, in_memory, kept))
    other = RowRun([2 * rows for rows in run.rows], run.first_rows)
    assert relative(applied(run), expected) < 1e-13
    assert relative(applied(other), 2 * expected) < 1e-13
    assert len(calls) == made
    applied.forget()
    assert relative(applied(run), expected) < 1e-13
    assert len(calls) == made + 4


def test_threads_of_the_caller_stay_as_they_were():
    network, grid, run, _ = series(CONFIGS["RowSet lv1"])
    before = torch.get_num_threads()
    engine(network, grid, torch.float32, BatchSize(5), threads=3)(run)
    assert torch.get_num_threads() == before


def test_patches_between_rows_are_those_of_interpolated_rows():
    """Interpolation along y commutes with everything before the first ReLU, as that along x does."""
    network, grid, run, _ = series(CONFIGS["SliceSet lv0"])
    rows = [torch.lerp(row[:, :-1], row[:, 1:], 0.25) for row in run.rows]
    first = np.arange(3.0)
    expected = engine(network, grid, torch.float64, BatchSize())(RowRun(rows, first))
    found = engine(network, grid, torch.float64, BatchSize())(RowRun(run.rows, first + 0.25))
    assert relative(found, expected) < 1e-6


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" and not torch.cuda.is_available(),
    reason="without a GPU, set TRITON_INTERPRET=1",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("rows", "points", "channels"), [(1, 1, 1), (3, 37, 5), (2, 16, 128), (5, 33, 192), (1, 65, 130)]
)
def test_the_kernel_for_gpus_pools_as_defined(rows, points, channels, dtype):
    """Odd sizes, points that some tilts or all of them do not see; stored in lower precision, summed in float32."""
    from cryolithe.inference.pooling_triton import pool_triton

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator, tilts, width = torch.Generator().manual_seed(1), 7, 19
    lifted = torch.randn(rows, tilts, lifted_columns(width), channels, generator=generator).to(dtype)
    lifted[:, :, -2:] = 0
    start = torch.randint(0, width + 2, (tilts, points), generator=generator, dtype=torch.int32)
    start[torch.rand(tilts, points, generator=generator) < 0.2] = width + 2  # not seen
    start[:, -1] = width + 2
    start[3] = width + 2
    fraction = torch.rand(tilts, points, generator=generator) * (start < width + 2)
    scale = (1 / (start < width + 2).sum(0).clamp(min=1)).double()
    expected = pool_torch(lifted, start, fraction, scale)
    found = pool_triton(*(value.to(device) for value in (lifted, start, fraction, scale)))
    assert found.dtype == dtype
    last_digit = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}[dtype]  # interpreters cut it off
    torch.testing.assert_close(found.cpu().float(), expected, rtol=last_digit, atol=1e-6)
    assert not found[:, -1].any()


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" and not torch.cuda.is_available(),
    reason="without a GPU, set TRITON_INTERPRET=1",
)
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_the_kernel_for_gpus_keeps_what_is_not_finite(value):
    from cryolithe.inference.pooling_triton import pool_triton

    device = "cuda" if torch.cuda.is_available() else "cpu"
    lifted = torch.randn(1, 3, 9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float32).half()
    lifted[0, 1, 4, 2] = value
    start, fraction = torch.full((3, 5), 3, dtype=torch.int32), torch.full((3, 5), 0.25)
    start[:, 0] = 6
    found = pool_triton(*(v.to(device) for v in (lifted, start, fraction, torch.ones(5).double()))).cpu()
    assert torch.equal(
        torch.isfinite(found), torch.isfinite(pool_torch(lifted, start, fraction, torch.ones(5).double()))
    )
    assert not torch.isfinite(found[0, 1:, 2]).any()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_values_beyond_float16_show_in_the_result(name):
    """Wherever they arise: one weight of one layer is made large, one after the other."""
    config = CONFIGS[name]
    network, grid, run, _ = series(config)
    lifted = lift_network(network.float(), torch.from_numpy(grid.geometry.angles_rad))
    assert shows_overflow(lifted)

    def made(changed, dtype):
        return Engine(changed.to(torch.device("cpu"), dtype), config.input.windows, grid, BatchSize())(run)

    assert torch.isfinite(made(lifted, torch.float16)).all()
    encoder, *others = lifted.encoders
    for number in range(len(encoder.steps)):
        for way in (-1, 1):
            steps = list(encoder.steps)
            weight = steps[number].weight.clone()
            weight[0] = way * 6e4
            steps[number] = replace(steps[number], weight=weight)
            strong = replace(lifted, encoders=(replace(encoder, steps=tuple(steps)), *others))
            found, exact = made(strong, torch.float16), made(strong, torch.float32)
            # Either the overflow shows, or there was none to lose.
            if torch.isfinite(found).all():
                assert relative(found, exact) < 0.02


def test_a_layer_that_would_lose_an_overflow_is_found():
    step = Step(torch.tensor([[1.0, -2.0], [0.5, -0.1]]), relu=True)
    alone = LiftedNetwork((RowEncoder(torch.ones(1, 2, 3), (), ()),), (step,), 1, 1)
    assert not shows_overflow(alone)  # all that the second input meets has one sign
    mixed = replace(step, weight=torch.tensor([[1.0, -2.0], [-0.5, 0.0]]))
    assert shows_overflow(replace(alone, combine=(mixed,)))
    assert shows_overflow(replace(alone, combine=(replace(step, relu=False),)))
    assert shows_overflow(replace(alone, combine=(replace(step, skip=True),)))
    assert not shows_overflow(replace(alone, combine=(replace(mixed, weight=1e5 * mixed.weight),)))


def test_a_kernel_for_gpus_that_fails_is_replaced_for_good(monkeypatch):
    """Whatever Triton says: no compiler, an old card; but not when memory ran out."""
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        raise error

    monkeypatch.setitem(sys.modules, "cryolithe.inference.pooling_triton", SimpleNamespace(pool_triton=fail))
    lifted, fraction = torch.randn(2, 3, 8, 4), torch.rand(3, 5)
    start, scale = torch.arange(15).view(3, 5).int() % 7, torch.full((5,), 1 / 3).double()
    expected = pool_torch(lifted, start, fraction, scale)
    pool = GpuPool()
    pool.failure = None  # as where Triton is installed
    error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        pool(lifted, start, fraction, scale)
    assert pool_version(pool) == "triton"
    error = RuntimeError("Failed to find C compiler\nmore lines")
    for _ in range(3):
        assert torch.equal(pool(lifted, start, fraction, scale), expected)
    assert len(calls) == 2
    assert pool_version(pool) == "torch (RuntimeError: Failed to find C compiler)"


@pytest.mark.slow
def test_bfloat16_keeps_the_bundled_model_s_volume_to_nyquist():
    """Relative error below 1e-2, FSC between both volumes at least 0.999 in every shell."""
    series = read_tilt_series(NEEDLE / "needle.mrc", NEEDLE / "needle.tlt")
    images = np.asarray(series.images[::3, 40:72], dtype=np.float32)
    images -= images.mean(axis=(1, 2), keepdims=True)
    angles = series.geometry.angles_deg[::3]
    network = load_model("default").network
    exact = reconstruct_array(network, images, angles, 32)
    half = reconstruct_array(network, images, angles, 32, Compute(precision=torch.bfloat16))
    assert 0 < np.linalg.norm(half - exact) / np.linalg.norm(exact) < 1e-2
    spectra = [np.fft.fftn(volume) for volume in (exact, half)]
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*map(np.fft.fftfreq, exact.shape), indexing="ij")))
    for low in np.arange(0, 0.5, 0.05):
        a, b = (spectrum[(radius >= low) & (radius < low + 0.05)] for spectrum in spectra)
        assert (a * b.conj()).sum().real / np.sqrt((abs(a) ** 2).sum() * (abs(b) ** 2).sum()) > 0.999


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")
def test_without_any_folder_for_compiled_code_the_loop_runs_all_the_same(monkeypatch):
    caching = importlib.import_module("numba.core.caching")
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    pooling._compiled.cache_clear()
    try:
        assert pooling.compiled_cache() is None
        lifted, fraction = torch.randn(2, 3, 8, 4), torch.rand(3, 5)
        start, scale = torch.arange(15).view(3, 5).int() % 7, torch.full((5,), 1 / 3).double()
        torch.testing.assert_close(
            pool_numba(lifted, start, fraction, scale), pool_torch(lifted, start, fraction, scale)
        )
    finally:
        pooling._compiled.cache_clear()


def test_layers_before_the_mean_are_summed_over_tilts_in_float32():
    # In bfloat16 the sum would stop at 256: adding 1 is less than half of its last digit.
    tilts = 600
    lifted, start = torch.ones(1, tilts, 2, 1), torch.zeros(tilts, 1).int()
    steps = (Step(torch.ones(1, 1, dtype=torch.bfloat16), relu=False),)
    scale = torch.full((1,), 1 / tilts).double()
    pooled = pool_through(lifted, start, torch.zeros(tilts, 1), scale, steps)
    assert pooled.dtype == torch.bfloat16
    assert pooled.item() == 1
