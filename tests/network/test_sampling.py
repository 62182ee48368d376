"""Windows of rows against a plain loop, and the law that lets a network's first map be applied before sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryolithe.geometry import TiltGeometry
from cryolithe.sampling import (
    Window,
    block_positions_px,
    pad_rows,
    point_columns,
    reflected_rows,
    row_windows,
    visible,
)

TAPS = st.integers(0, 6).map(lambda n: 2 * n + 1)


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def loop_windows(rows, columns, window):
    """Every sample on its own, by np.interp over a row continued by zeros."""
    tilts, count, values = rows.shape
    width, places = values // window.per_px, np.arange(-1, values + 1) / window.per_px
    out = np.zeros((tilts, columns.shape[1], count, window.taps))
    for tilt, point in np.ndindex(*columns.shape):
        u = float(columns[tilt, point])
        if not -0.5 <= u <= width - 0.5:
            continue
        at = u + window.step_px * (np.arange(window.taps) - window.taps // 2)
        for row in range(count):
            out[tilt, point, row] = np.interp(at, places, np.r_[0, rows[tilt, row], 0], left=0, right=0)
    return out


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 40), TAPS, st.integers(1, 5), st.integers(1, 3), st.integers(0, 1000), st.integers(1, 2))
def test_windows_agree_with_a_loop(width, taps, step, count, seed, per_px):
    rng = np.random.default_rng(seed)
    window = Window(taps, step, per_px)
    rows = noise(2, count, width * per_px, seed=seed)
    columns = torch.from_numpy(rng.uniform(-1.5 * width - 3, 2.5 * width + 3, size=(2, 12)).astype(np.float32))
    columns[:, :6] = torch.tensor([-0.5, 0, width - 1, width - 0.5, 0.5, (width - 1) / 2])
    found = row_windows(pad_rows(rows, window), columns, window)
    assert found.shape == (2, 12, count, taps)
    assert found.numpy() == pytest.approx(loop_windows(rows.numpy(), columns.numpy(), window), abs=5e-5)


@pytest.mark.parametrize("window", [Window(1), Window(21), Window(21, 4), Window(3, 7)])
def test_columns_off_the_detector_read_nothing(window):
    width = 15
    columns = torch.tensor([[-1e6, -30.0, -1.0, -0.51, 14.51, 15.0, 44.0, 1e6]])
    found = row_windows(pad_rows(torch.ones(1, 2, width), window), columns, window)
    assert not visible(columns, width).any()
    assert torch.count_nonzero(found) == 0
    assert visible(torch.tensor([-0.5, 0.0, 14.0, 14.5]), width).all()


@pytest.mark.parametrize("window", [Window(1), Window(9), Window(5, 3)])
def test_a_linear_row_is_read_exactly(window):
    width = 64
    slope, offset = torch.tensor([[[0.5]], [[-2.0]]]).double(), 7.0
    rows = slope * torch.arange(width) + offset
    columns = torch.linspace(window.reach, width - 1 - window.reach, 41).repeat(2, 1)
    found = row_windows(pad_rows(rows, window), columns, window)
    at = columns[:, :, None] + window.step_px * (torch.arange(window.taps) - window.taps // 2)
    expected = slope * at + offset
    assert found[:, :, 0].numpy() == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.mark.parametrize("window", [Window(9), Window(7, 3)])
def test_the_first_map_commutes_with_sampling(window):
    """Correlating the rows with the map's taps and then interpolating equals mapping interpolated windows."""
    width, channels = 50, 6
    rows, taps = noise(3, 4, width), noise(channels, window.taps, seed=1)
    # Dyadic columns: float32 adds them to the padding without rounding.
    columns = torch.from_numpy(np.random.default_rng(2).integers(0, 64 * (width - 1), (3, 20)) / 64).float()
    mapped = row_windows(pad_rows(rows, window), columns, window) @ taps.T
    lifted = torch.nn.functional.conv1d(
        rows.reshape(12, 1, width), taps[:, None], padding=window.reach, dilation=window.step_px
    ).reshape(3, 4 * channels, width)
    single = Window(1)
    read = row_windows(pad_rows(lifted, single), columns, single).reshape(3, 20, 4, channels)
    assert torch.allclose(read, mapped, atol=1e-12)


def test_sampling_is_linear_in_the_rows():
    window = Window(5, 2)
    a, b = noise(2, 3, 30), noise(2, 3, 30, seed=1)
    columns = torch.from_numpy(np.random.default_rng(2).uniform(-5, 35, (2, 9))).float()
    of = lambda rows: row_windows(pad_rows(rows, window), columns, window)  # noqa: E731
    assert torch.allclose(of(3 * a - b), 3 * of(a) - of(b), atol=1e-12)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(-40, 40), st.integers(0, 30))
def test_rows_beyond_the_image_mirror_it(size, first, count):
    padded = np.pad(np.arange(size), 80, mode="symmetric")
    assert reflected_rows(first, count, size).tolist() == padded[80 + first : 80 + first + count].tolist()


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("voxels", [7, 8])
def test_a_block_lies_at_the_mean_of_its_voxels(voxels, stride):
    found = block_positions_px(voxels, -2, 6, stride)
    centre = (voxels - 1) / 2
    assert found.tolist() == [np.mean(stride * k + np.arange(stride)) - centre for k in range(-2, 4)]


def test_columns_of_points_are_those_of_the_geometry():
    g = TiltGeometry((-50.0, 0.0, 33.0), (6, 31))
    z, x = np.array([-4.0, 2.5]), np.array([7.0, -1.5])
    columns = point_columns(g, z, x)
    assert columns.dtype == torch.float32
    assert columns.numpy() == pytest.approx(g.columns(x, z), abs=1e-5)


def test_columns_are_those_of_the_geometry_to_the_last_bit():
    """They are computed by torch, so that points on a GPU need not come from the host."""
    geometry = TiltGeometry(tuple(np.linspace(-61.3, 57.9, 23)), (40, 4096))
    rng = np.random.default_rng(0)
    z, x = rng.uniform(-600, 600, 5000), rng.uniform(-2100, 2100, 5000)
    np.testing.assert_array_equal(point_columns(geometry, z, x).numpy(), geometry.columns(x, z).astype(np.float32))
