"""Tiles of volumes: no seams, bounded memory; the score by halves and its ceiling."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from half_volumes import noise, signal

from cryolithe.denoising.ceiling import half_snr_db, score_halves
from cryolithe.denoising.n2n import tiles as tiles_module
from cryolithe.denoising.n2n.gains import fit_gain
from cryolithe.denoising.n2n.msd import MsdConfig
from cryolithe.denoising.n2n.network import BACKBONES, build
from cryolithe.denoising.n2n.scunet import ScunetConfig
from cryolithe.denoising.n2n.tiles import (
    GAIN_EDGE,
    Runner,
    Tiling,
    apply_gain,
    denoise_volume,
    plan_tiles,
    prepared,
    spans,
    tile_bytes,
)
from cryolithe.denoising.n2n.unet import UNetConfig
from cryolithe.errors import ResourceError

CPU = torch.device("cpu")
TINY = {
    "unet": UNetConfig(filters=4, levels=2, first_kernel=3, last=(4, 3)),
    "msd": MsdConfig(layers=5, dilations=3),
    "scunet": ScunetConfig(channels=(4, 8), blocks=2, window=2, head=2),
}


def tiling(shape, edges, margin, blend, multiple):
    return Tiling(shape, tuple(spans(n, e, margin, blend, multiple) for n, e in zip(shape, edges, strict=True)))


def applied(run, volume, tiles):
    out = np.full(volume.shape, np.nan, np.float32)
    denoise_volume(run, [lambda box: volume[box]], tiles, out)
    return out


@pytest.mark.parametrize("size", [5, 31, 64, 65, 100, 203])
@pytest.mark.parametrize("multiple", [1, 4, 8, 32])
def test_spans_start_at_multiples_and_their_weights_are_one(size, multiple):
    for edge, margin, blend in ((96, 16, 8), (48, 2, 4), (40, 0, 1), (33, 0, 0)):
        try:
            found = spans(size, edge, margin, blend, multiple)
        except ValueError:
            assert edge - multiple < 2 * margin + blend + multiple
            continue
        total = np.zeros(size)
        for span in found:
            assert span.start % multiple == 0
            assert (span.stop - span.start) % multiple == 0
            total[span.start : span.stop] += span.weight
        np.testing.assert_allclose(total, 1, atol=1e-6)
        for before, after in pairwise(found):
            assert (after.weight[:margin] == 0).all()
            assert (before.weight[len(before.weight) - margin :] == 0).all() or after.stop > size


@pytest.mark.parametrize("edges", [(64, 64, 64), (16, 24, 32), (40, 16, 24)])
def test_tiles_of_what_needs_no_neighbours_are_exact(edges):
    volume = noise((30, 41, 52), 0)
    tiles = tiling(volume.shape, edges, 4, 4, 4)
    np.testing.assert_allclose(applied(lambda v: 2 * v + 1, volume, tiles), 2 * volume + 1, atol=1e-5)


def test_a_gain_is_the_same_in_blocks_and_in_one_piece(monkeypatch):
    signals = [signal((32, 32, 32), seed=s) for s in range(3)]
    steep = fit_gain((s + noise(s.shape, n), s) for n, s in enumerate(signals))  # as a training fits it
    assert min(steep.factors) < 0.1 < 0.5 < max(steep.factors)
    volume = noise((40, 50, 190), 0)
    whole, blocks = np.empty_like(volume), np.empty_like(volume)
    apply_gain(steep, volume, whole)
    np.testing.assert_allclose(whole, steep.apply(volume), atol=1e-6)
    assert volume.shape[2] < GAIN_EDGE
    monkeypatch.setattr(tiles_module, "GAIN_EDGE", 80)
    apply_gain(steep, volume, blocks)
    assert np.abs(blocks - whole).max() < 0.01 * whole.std()


def test_several_sources_are_averaged():
    a, b = noise((20, 20, 20), 0), noise((20, 20, 20), 1)
    out = np.empty_like(a)
    denoise_volume(lambda v: v, [lambda box: a[box], lambda box: b[box]], tiling(a.shape, (16,) * 3, 2, 4, 4), out)
    np.testing.assert_allclose(out, (a + b) / 2, atol=1e-6)


@pytest.mark.parametrize("config", TINY.values(), ids=TINY)
def test_a_margin_of_the_whole_reach_leaves_no_trace_of_the_tiles(config):
    torch.manual_seed(0)
    run = Runner(prepared(build(config).eval(), config, CPU), CPU, torch.float32)
    m, reach = config.multiple, config.reach
    long = 2 * (2 * reach + 4 + m)
    volume = noise((m, 2 * m, long + 3), 0)  # the far end is mirrored up to a multiple
    whole = applied(run, volume, tiling(volume.shape, (4 * m, 4 * m, 2 * long), 0, 0, m))
    for edge in (2 * reach + 4 + 2 * m, 2 * reach + 4 + 5 * m):
        tiles = tiling(volume.shape, (m, 2 * m, edge), reach, 4, m)
        assert tiles.count > 2
        np.testing.assert_allclose(applied(run, volume, tiles), whole, atol=1e-5)


@pytest.mark.parametrize("config", TINY.values(), ids=TINY)
def test_tiles_off_the_multiple_would_leave_a_trace(config):
    """The law above is no accident: a network that pools is not equivariant to other shifts."""
    torch.manual_seed(0)
    run = Runner(build(config).eval(), CPU, torch.float32)
    volume = noise((config.multiple,) * 2 + (8 * config.multiple + 4 * config.reach,), 0)
    whole, moved = run(volume), run(np.ascontiguousarray(volume[:, :, 1:]))
    inner = slice(2 * config.reach, -2 * config.reach)
    same = np.allclose(whole[:, :, 1:][:, :, inner], moved[:, :, inner], atol=1e-5)
    assert same == (config.multiple == 1)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_plan_stays_within_its_memory_and_uses_it(name):
    config = BACKBONES[name]
    shape = (200, 500, 480)
    for budget in (2e9, 8e9, 1e12):
        tiles = plan_tiles(shape, config, int(budget))
        assert tile_bytes(config, tiles.edges, 4) <= budget
        if budget == 1e12:
            assert tiles.count == 1
        else:
            assert tile_bytes(config, tiles.edges, 4) > budget / 4
    with pytest.raises(ResourceError, match="GB"):
        plan_tiles(shape, config, 1_000_000)


def test_a_perfect_denoiser_is_at_the_ceiling_and_a_leak_above():
    shape = (32, 64, 64)
    truth = signal(shape)
    raw = tuple(truth + 3 * noise(shape, n) for n in (0, 1))
    perfect = score_halves(raw, (truth, truth))
    assert perfect.raw == pytest.approx(0.1, abs=0.01)
    assert perfect.mean == pytest.approx(perfect.ceiling, rel=0.04)
    assert not perfect.leaks
    assert perfect.gain_db == pytest.approx(half_snr_db(math.sqrt(0.1)) - half_snr_db(0.1), abs=0.5)
    nothing = score_halves(raw, raw)
    assert nothing.gain_db == pytest.approx(0, abs=1e-9)
    leak = score_halves(raw, (truth + 0.2 * raw[1], truth + 0.2 * raw[0]))
    assert leak.leaks
    assert "leak" in leak.warning()
    assert perfect.warning() is None


def test_halves_of_noise_alone_are_no_leak_unless_they_are_mixed():
    shape = (32, 32, 32)
    raw = noise(shape, 0), noise(shape, 1)
    honest = score_halves(raw, (noise(shape, 2), noise(shape, 3)))
    assert not honest.leaks
    assert max(map(abs, honest.denoised)) < honest.chance * 1.5
    assert score_halves(raw, (0.5 * raw[1], 0.5 * raw[0])).leaks
    assert honest.plain()["half_snr_ceiling_db"] is None or honest.raw > 0
    flat = score_halves(raw, (np.zeros(shape), np.zeros(shape)))
    assert not flat.leaks
    assert flat.plain()["half_snr_denoised_db"] is None
