"""A slab of the volume is the same however the volume is cut, and what is sampled is what the geometry says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryolithe.filters import filter_rows, gaussian_response, padded_length, ramp_response, unit_noise_gain
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.network import Head, InputWindow, RowSetConfig, SliceSetConfig, build_network
from cryolithe.projector import make_projector
from cryolithe.projector.classical import sirt_margin_px
from cryolithe.reconstruction.slabwise.methods import Compute, FbpMethod, NetworkMethod, SirtMethod, network_rows
from cryolithe.sampling import reflected_rows

ANGLES = (-58.0, -31.0, -10.0, 2.0, 25.0, 44.0, 63.0)
SHAPE = (9, 21, 26)  # an odd number of rows, a thickness that is no multiple of a block


def small(kind="RowSet", levels=1, rows=5, context_taps=5):
    window = InputWindow(taps=7, context_taps=context_taps)
    if kind == "RowSet":
        sizes = {"channels": 16, "row_hidden": 16, "row_features": 8, "combiner_width": 16}
        return RowSetConfig(window, Head(levels), rows, angle_harmonics=2, **sizes)
    sizes = {"channels": 8, "set_hidden": 12, "set_features": 12, "row_hidden": 12, "row_features": 6}
    return SliceSetConfig(window, Head(levels), rows, combiner_width=16, combiner_layers=2, **sizes)


def make(kind="RowSet", levels=1, **sizes):
    torch.manual_seed(5)
    return build_network(small(kind, levels, **sizes)).eval().requires_grad_(False)


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def method_for(network, shape=SHAPE, angles=ANGLES, **settings):
    return NetworkMethod(network, TiltGeometry(angles, shape[1:]), VolumeGrid(shape), **settings)


def in_slabs(method, images, slab):
    """Rows of the volume made slab by slab; images are mirrored beyond their ends."""
    height = images.shape[1]
    slab = max(1, slab // method.row_multiple) * method.row_multiple
    parts = []
    for start in range(0, height, slab):
        rows = min(slab, height - start)
        whole = rows + -rows % method.row_multiple
        needed = reflected_rows(start - method.halo_px, whole + 2 * method.halo_px, height)
        made = method(images[:, needed])
        assert made.shape[1] == whole
        parts.append(made[:, :rows])
    return torch.cat(parts, dim=1)


def difference(a, b):
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "levels"), [("RowSet", 0), ("RowSet", 1), ("RowSet", 2), ("SliceSet", 1)])
def test_a_volume_made_in_slabs_is_the_volume_made_at_once(kind, levels):
    method, images = method_for(make(kind, levels)), noise(len(ANGLES), *SHAPE[1:])
    whole = in_slabs(method, images, 24)  # one slab
    assert whole.shape == SHAPE
    assert whole.std() > 0
    for slab in (4, 8, 12, 16):
        parts = in_slabs(method, images, slab)
        assert difference(parts, whole) < 1e-5
        assert (parts - whole).abs().max() < 1e-5 * whole.abs().max()


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_slab_needs_no_rows_beyond_its_halo(levels):
    """What lies farther away than the halo does not reach a row, what lies within does."""
    method, images = method_for(make(levels=levels), (4, 64, 12)), noise(len(ANGLES), 64, 12)
    reach = method.halo_px + method.row_multiple - 1
    whole = in_slabs(method, images, 64)
    images[:, 32] += 5
    changed = (in_slabs(method, images, 64) - whole).abs().amax((0, 2)).nonzero()[:, 0]
    assert 32 - reach <= changed.min() < 32 < changed.max() <= 32 + reach


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["RowSet", "SliceSet"])
def test_the_batch_size_changes_nothing(kind):
    network, images = make(kind), noise(len(ANGLES), *SHAPE[1:])
    whole = in_slabs(method_for(network), images, 24)
    for points in (1, 13, 10**7):
        shares = []
        method = method_for(network, compute=Compute(points=points), on_points=shares.append)
        assert difference(in_slabs(method, images, 24), whole) < 1e-5
        assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["RowSet", "SliceSet"])
@pytest.mark.parametrize("levels", [0, 2])
def test_half_precision_comes_close(kind, levels):
    network, images = make(kind, levels), noise(len(ANGLES), *SHAPE[1:])
    whole = in_slabs(method_for(network), images, 24)
    half = in_slabs(method_for(network, compute=Compute(precision=torch.bfloat16)), images, 24)
    assert half.dtype == torch.float32
    assert 0 < difference(half, whole) < 2e-2


@pytest.mark.parametrize("context_taps", [0, 5])
@pytest.mark.parametrize("kind", ["RowSet", "SliceSet"])
@pytest.mark.parametrize("shape", [(9, 11, 26), (30, 6, 17)])
def test_a_voxel_is_the_network_of_its_own_patches(shape, kind, context_taps):
    """One voxel at a time: u by the formula, samples by np.interp, the network for a single point."""
    network = make(kind, 0, context_taps=context_taps)
    config = network.config.input
    images = noise(len(ANGLES), *shape[1:])
    volume = in_slabs(method_for(network, shape), images, shape[1])
    depth, height, width = shape
    length = padded_length(width)
    responses = [ramp_response(length, "cosine"), gaussian_response(length, 2.5)][: 2 if context_taps else 1]
    filtered = [filter_rows(images, unit_noise_gain(r, length))[0].numpy() for r in responses]
    theta = torch.from_numpy(np.deg2rad(ANGLES)).float()
    for z, y, x in ((0, 0, 0), (depth - 2, height - 1, 3), (depth // 2, 4, width - 1), (3, 2, width // 2)):
        windows = np.zeros((len(ANGLES), 1, 5, config.samples), dtype=np.float32)
        seen = torch.zeros(len(ANGLES), 1, dtype=torch.bool)
        for t, angle in enumerate(np.deg2rad(ANGLES)):
            u = (x - (width - 1) / 2) * np.cos(angle) + (z - (depth - 1) / 2) * np.sin(angle) + (width - 1) / 2
            seen[t] = bool(-0.5 <= u <= width - 0.5)
            if not seen[t]:
                continue
            for number, row in enumerate(range(y - 2, y + 3)):
                inside = row if 0 <= row < height else (-1 - row if row < 0 else 2 * height - 1 - row)
                at = [u + np.arange(-3, 4), u + 4 * np.arange(-2, 3)][: len(filtered)]
                windows[t, 0, number] = np.concatenate(
                    [
                        np.interp(p, np.arange(-1, width + 1), np.r_[0, f[t, inside], 0], left=0, right=0)
                        for f, p in zip(filtered, at, strict=True)
                    ]
                )
        assert seen.any()
        value = network(torch.from_numpy(windows), seen, network.tilt_context(theta))
        assert value.item() == pytest.approx(volume[z, y, x].item(), abs=2e-5 * volume.abs().max().item())


@pytest.mark.parametrize("levels", [0, 1])
def test_the_scale_of_the_rows_is_the_scale_of_the_volume(levels):
    method, images = method_for(make(levels=levels)), noise(len(ANGLES), *SHAPE[1:])
    assert difference(in_slabs(method, 7 * images, 24), 7 * in_slabs(method, images, 24)) < 1e-5


@pytest.mark.parametrize("size", [40, 63])
def test_unit_noise_keeps_unit_noise(size):
    rows = noise(4000, size)
    for filtered in network_rows(rows, InputWindow()):
        inside = filtered[:, size // 3 : -(size // 3)]
        assert inside.std().item() == pytest.approx(1, abs=0.02)
    assert len(network_rows(rows, InputWindow(context_taps=0))) == 1
    ramp, blur = network_rows(rows, InputWindow(unit_noise=False))
    assert ramp.std() < 0.5
    assert blur.std() < 0.5


@pytest.mark.parametrize("make_method", [lambda p: FbpMethod(p, "cosine"), lambda p: SirtMethod(p, 3)])
def test_classical_methods_are_slab_methods(make_method):
    projector = make_projector(TiltGeometry(ANGLES, SHAPE[1:]), (SHAPE[0], SHAPE[2]))
    method, images = make_method(projector), noise(len(ANGLES), *SHAPE[1:])
    whole = in_slabs(method, images, 24)
    assert whole.shape == SHAPE
    for slab in (1, 5, 16):
        assert difference(in_slabs(method, images, slab), whole) < 1e-5


def test_sirt_is_not_spoilt_by_what_lies_beside_the_field():
    """A field full of matter that goes on beyond it: what lies outside must not end up at the edges."""
    images = make_projector(TiltGeometry(ANGLES, (8, 120)), (12, 120)).forward(world := noise(12, 8, 120))
    images, truth = images[:, :, 40:80].contiguous(), world[:, :, 40:80]
    geometry, margin = TiltGeometry(ANGLES, (8, 40)), sirt_margin_px(12)
    errors = {}
    for px in (0, margin):
        volume = SirtMethod(make_projector(geometry, (12, 40 + 2 * px)), 10, margin_px=px)(images)
        assert volume.shape == truth.shape
        errors[px] = [(volume - truth)[..., part].square().mean().item() for part in (slice(0, 4), slice(16, 24))]
    assert errors[margin][0] < 0.8 * errors[0][0]
    assert errors[margin][1] < 1.02 * errors[0][1]
