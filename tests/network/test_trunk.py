"""Networks with a trunk: slabs, tiles and batches give what the definition gives."""

import dataclasses

import numpy as np
import pytest
import torch
from command import call, good

from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.inference.tiles import blocks_made, tiles_of
from cryolithe.network import Head, RowSetConfig, build_network
from cryolithe.network import trunk as trunk_module
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.network.trunk import Beside
from cryolithe.reconstruction.slabwise.fusion import SHELLS, FusionCurve
from cryolithe.reconstruction.slabwise.methods import Compute, NetworkMethod, network_halo_px
from cryolithe.reconstruction.slabwise.mixing import finished_method
from cryolithe.reconstruction.slabwise.network_memory import TRUNK_ARRAYS, trunk_tile_bytes
from cryolithe.sampling import all_windows, point_columns, reflected_rows, visible

ANGLES_DEG = tuple(np.arange(-60.0, 61.0, 12.0).tolist())


def trunk_network(units=3, levels=1, seed=0):
    torch.manual_seed(seed)
    config = RowSetConfig(
        head=Head(levels), rows=5, channels=12, row_hidden=16, row_features=8, combiner_width=10, trunk_units=units
    )
    network = build_network(config)
    with torch.no_grad():  # what starts as zero must count too
        for leaf in network.parameters():
            leaf.add_(torch.randn_like(leaf) / leaf[0].numel() ** 0.5 / 4)
    return network.eval().requires_grad_(False)


def slab_rows(images, method, first, rows):
    return images[:, reflected_rows(first - method.halo_px, rows + 2 * method.halo_px, images.shape[1])]


def defined_volume(network, method, geometry, rows):
    """The volume by the definition: windows of every point, no lifting, one cube."""
    sampling = method.sampling
    run = sampling.inputs(rows, 0)
    z, x = np.meshgrid(sampling.points.z_px, sampling.points.x_px, indexing="ij")
    columns = point_columns(geometry, z.ravel(), x.ravel())
    windows = all_windows(run.rows, columns, network.config.input.windows)
    joined = network(
        windows, visible(columns, rows.shape[-1]), network.tilt_context(torch.tensor(geometry.angles_rad).float())
    )
    reach = network.config.trunk_reach
    values = network.refine(joined, z.shape)[:, reach:-reach]
    by_point = values.reshape(*z.shape, *values.shape[1:]).transpose(1, 2)
    return sampling.volume(by_point, 0, rows.shape[1] - 2 * method.halo_px)


@pytest.mark.slow
@pytest.mark.parametrize(("units", "levels"), [(1, 1), (3, 1), (2, 0), (2, 2)])
@pytest.mark.parametrize("shape", [(14, 16, 21), (9, 24, 12)])
def test_slabs_and_tiles_give_the_definition(units, levels, shape):
    network = trunk_network(units, levels)
    geometry, grid = TiltGeometry(ANGLES_DEG, shape[1:]), VolumeGrid(shape)
    method = NetworkMethod(network, geometry, grid)
    images = torch.randn((len(ANGLES_DEG), *shape[1:]), generator=torch.Generator().manual_seed(1))
    whole = method(slab_rows(images, method, 0, shape[1]))
    assert whole.shape == shape
    torch.testing.assert_close(whole, defined_volume(network, method, geometry, slab_rows(images, method, 0, shape[1])))

    slabs = [method(slab_rows(images, method, first, 8)) for first in range(0, shape[1], 8)]
    torch.testing.assert_close(torch.cat(slabs, dim=1), whole, rtol=0, atol=1e-6)

    narrow = NetworkMethod(network, geometry, grid)
    engine = narrow.engine._engine
    engine.batch = dataclasses.replace(engine.batch, trunk_bytes=1)
    torch.testing.assert_close(narrow(slab_rows(images, method, 0, shape[1])), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("levels", [0, 1, 2])
@pytest.mark.parametrize("at_once", [1, 700])
def test_voxels_and_rows_in_parts_are_those_of_the_whole(levels, at_once, monkeypatch):
    """What lies between, transforms of rows and the levels of wavelets, is larger than what is wanted."""
    shape = (13, 16, 18)
    geometry, grid = TiltGeometry(ANGLES_DEG, shape[1:]), VolumeGrid(shape)
    plain = NetworkMethod(trunk_network(2, levels), geometry, grid)
    method = finished_method(plain, FusionCurve(0.3, (1.0,) * SHELLS), geometry, grid)
    rows = slab_rows(torch.randn((len(ANGLES_DEG), *shape[1:])), method, 0, 16)
    whole = method(rows)
    monkeypatch.setattr("cryolithe.reconstruction.slabwise.methods.VOXELS_AT_ONCE", at_once)
    monkeypatch.setattr("cryolithe.filters.VALUES_AT_ONCE", at_once)
    torch.testing.assert_close(method(rows), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("first", "last"),
    [((0, 0, 0), (26, 27, 28)), ((8, 8, 8), (18, 19, 20)), ((3, 0, 8), (4, 27, 9)), ((5, 9, 1), (24, 20, 27))],
)
def test_a_part_of_the_grid_has_the_values_of_the_whole(first, last, precision):
    network = trunk_network(3)
    trunk, reach, grid = network.trunk.to(precision), network.config.trunk_reach, (26, 27, 28)
    x = torch.randn((1, 10, *grid), generator=torch.Generator().manual_seed(4)).to(precision)
    whole = trunk(x)[(slice(None), slice(None), *(slice(a, b) for a, b in zip(first, last, strict=True)))]
    ends = [(min(reach, a), min(reach, size - b)) for a, b, size in zip(first, last, grid, strict=True)]
    seen = [slice(a - low, b + high) for a, b, (low, high) in zip(first, last, ends, strict=True)]
    part = x[(slice(None), slice(None), *seen)].clone()
    kept = part.clone()
    found = trunk.inner(part, Beside(*ends))
    assert torch.equal(part, kept)
    assert found.shape == whole.shape
    rough = 1e-12 if precision == torch.float64 else 0.02
    torch.testing.assert_close(found, whole, rtol=0, atol=rough * float(whole.abs().max()))


@pytest.mark.parametrize("plane", [(1, 1), (7, 40), (401, 40), (60, 300)])
@pytest.mark.parametrize("most", [1, 100, 50_000, 10**9])
def test_tiles_are_a_partition_that_fits(plane, most):
    reach, point_values = 3, 50
    tiles = tiles_of(plane, point_values, most, reach)
    hits = np.zeros(plane, dtype=int)
    for z, x in tiles:
        hits[slice(*z), slice(*x)] += 1
        seen = [min(size, last - first + 2 * reach) for size, (first, last) in zip(plane, (z, x), strict=True)]
        smallest = all(last - first < 2 * 2 * reach for first, last in (z, x))
        assert smallest or np.prod(seen) * point_values <= most
    assert (hits == 1).all()


def test_a_trunk_knows_nothing_beyond_its_reach():
    network = trunk_network(3)
    reach, size = network.config.trunk_reach, 25
    joined = torch.randn((size * size, size, 10), generator=torch.Generator().manual_seed(2))
    changed = joined.clone().view(size, size, size, 10)
    changed[0] += 1.0
    before, after = (network.refine(v.view(size * size, size, 10), (size, size)) for v in (joined, changed))
    moved = (after - before).view(size, size, size, -1).abs().amax((1, 2, 3))
    assert (moved[: reach + 1] > 0).all()
    assert (moved[reach + 1 :] == 0).all()


def test_the_map_is_homogeneous():
    network = trunk_network()
    shape = (12, 12, 12)
    method = NetworkMethod(network, TiltGeometry(ANGLES_DEG, shape[1:]), VolumeGrid(shape))
    rows = slab_rows(torch.randn((len(ANGLES_DEG), 12, 12)), method, 0, 12)
    torch.testing.assert_close(method(3.0 * rows), 3.0 * method(rows), rtol=1e-4, atol=1e-5)


def test_a_fresh_network_can_pass_on_a_back_projection():
    """Without its row MLP a fresh network is linear: the sum of two inputs gives the sum of the outputs."""
    torch.manual_seed(3)
    network = build_network(RowSetConfig(rows=5, channels=12, row_features=8, combiner_width=10, trunk_units=2))
    with torch.no_grad():
        network.encode_row.last.weight.zero_()
    network.requires_grad_(False)
    shape = (12, 12, 12)
    method = NetworkMethod(network, TiltGeometry(ANGLES_DEG, shape[1:]), VolumeGrid(shape))
    a, b = (slab_rows(torch.randn((len(ANGLES_DEG), 12, 12)), method, 0, 12) for _ in range(2))
    assert method(a).std() > 0
    torch.testing.assert_close(method(a) + method(b), method(a + b), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("most_bytes", "tiles"), [(1 << 30, 1), (1 << 14, 4)])
def test_the_blocks_that_are_planned_for_are_those_that_are_made(most_bytes, tiles, monkeypatch):
    """By the sizes of what the convolutions make, for one slab."""
    network, shape, joined, convolved = trunk_network(), (60, 6, 60), [], []
    config = network.config
    method = NetworkMethod(network, TiltGeometry(ANGLES_DEG, shape[1:]), VolumeGrid(shape))
    engine = method.engine
    engine._engine.batch = dataclasses.replace(engine._engine.batch, trunk_bytes=most_bytes)
    real, inner = trunk_module.conv3d, type(engine._trunk).inner

    def counted(values, *words, **flags):
        made = real(values, *words, **flags)
        convolved.append(made[0, 0].numel())
        return made

    def seen(trunk, x, beside):
        joined.append(x[0, 0].numel())
        return inner(trunk, x, beside)

    monkeypatch.setattr(trunk_module, "conv3d", counted)
    monkeypatch.setattr(type(engine._trunk), "inner", seen)
    method(slab_rows(torch.randn((len(ANGLES_DEG), *shape[1:])), method, 0, shape[1]))
    plane, patches = (
        (len(engine._engine.grid.z_px), len(engine._engine.grid.x_px)),
        shape[1] // 2 + 2 * config.head.margin,
    )
    point_bytes = (patches + 2 * config.trunk_reach) * config.combiner_width * 4
    parts = tiles_of(plane, point_bytes, most_bytes, config.trunk_reach)
    assert len(parts) == len(joined) == tiles
    found = blocks_made(plane, patches, config.trunk_spacings, parts)
    assert found.joined == sum(joined)
    # At the ends of the plane a convolution makes some blocks that are cut off.
    assert found.trunk == pytest.approx(sum(convolved) / (2 * config.trunk_units), rel=1e-9 if tiles == 1 else 0.15)
    assert found.joined > found.trunk > plane[0] * plane[1] * patches


def test_half_precision_stays_near():
    network = trunk_network()
    shape = (16, 16, 16)
    geometry, grid = TiltGeometry(ANGLES_DEG, shape[1:]), VolumeGrid(shape)
    exact = NetworkMethod(network, geometry, grid)
    rough = NetworkMethod(network, geometry, grid, Compute(precision=torch.bfloat16))
    rows = slab_rows(torch.randn((len(ANGLES_DEG), 16, 16)), exact, 0, 16)
    a, b = exact(rows), rough(rows)
    assert (a - b).norm() < 0.02 * a.norm()


@pytest.mark.slow
def test_weights_come_back_from_disk(tmp_path):
    network = trunk_network()
    save_network(tmp_path / "a.safetensors", network, {})
    found = load_model(str(tmp_path / "a.safetensors")).network
    assert found.config == network.config
    for name, leaf in network.state_dict().items():
        assert torch.equal(leaf, found.state_dict()[name]), name


def test_a_trunk_widens_the_halo_of_a_slab():
    with_trunk, without = (RowSetConfig(trunk_units=units) for units in (4, 0))
    assert with_trunk.trunk_reach == 2 + 3 + 3 + 2
    assert network_halo_px(with_trunk) - network_halo_px(without) == 2 * 10


def test_a_shrunken_model_is_half_as_large_and_computes_nearly_the_same(tmp_path):
    network = trunk_network()
    save_network(tmp_path / "whole.safetensors", network, {"licence": "MIT"})
    words = ("models", "shrink", tmp_path / "whole.safetensors", "-o", tmp_path / "small.safetensors")
    good(*words)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "small")]
    assert sizes[1] < 0.75 * sizes[0]  # the header of so small a network counts
    small = load_model(str(tmp_path / "small.safetensors"))
    assert small.card == {"licence": "MIT"}
    shape = (16, 16, 16)
    geometry, grid = TiltGeometry(ANGLES_DEG, shape[1:]), VolumeGrid(shape)
    whole, rounded = (NetworkMethod(one, geometry, grid) for one in (network, small.network))
    rows = slab_rows(torch.randn((len(ANGLES_DEG), 16, 16)), whole, 0, 16)
    expected = whole(rows)
    assert 0 < (rounded(rows) - expected).norm() < 2e-3 * expected.norm()
    again = call(*words)
    assert again.exit_code == 2
    assert "exists; give --overwrite" in again.output
    good(*words, "--fbp-share", "0.4", "--overwrite")
    assert load_model(str(tmp_path / "small.safetensors")).card == {"licence": "MIT", "fbp_share": 0.4}
    with torch.no_grad():
        network.mix.weight[0, 0] = 1e6
    save_network(tmp_path / "large.safetensors", network, {})
    refused = call("models", "shrink", tmp_path / "large.safetensors", "-o", tmp_path / "b.safetensors")
    assert refused.exit_code == 2
    assert "beyond half precision" in refused.output


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_small_plane_needs_the_memory_of_its_own_tile_alone(precision):
    """Memory grows with the plane until that is cut into tiles, and not beyond."""
    config, most = load_model("default").network.config, 1 << 28
    grids = [VolumeGrid((side, 128, 2 * side)) for side in (8, 16, 64, 512, 1024)]
    needed = [trunk_tile_bytes(config, grid, most, precision) for grid in grids]
    assert needed == sorted(needed)
    assert needed[0] < needed[-1] / 20
    assert needed[-1] == needed[-2] == TRUNK_ARRAYS * most
