"""Splatting, warping and correlation against direct loops; the network's laws."""

import math

import numpy as np
import pytest
import torch

from cryolithe.denoising.samba import warp
from cryolithe.denoising.samba.flow import FlowConfig
from cryolithe.denoising.samba.fusion import FusionConfig, convex_shrink
from cryolithe.denoising.samba.model import SambaConfig, SambaNet, load_weights, save_weights
from cryolithe.denoising.samba.warp import backward_warp, correlation, resize_flow, softmax_splat
from cryolithe.errors import ModelError

TINY = SambaConfig(
    FlowConfig(levels=2, features=(4, 6), depths=(1, 1), radius=2, estimator=(12, 8), importance=2),
    FusionConfig(context=(3, 4), unet=(4, 6), decoded=4),
)


def splat_by_loop(values, flow, importance):
    """The definition, pixel by pixel."""
    channels, height, width = values.shape
    top, total = np.zeros((channels, height, width)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            tx, ty = x + flow[0, y, x], y + flow[1, y, x]
            weight = math.exp(importance[0, y, x])
            for py in range(height):
                for px in range(width):
                    near = max(0, 1 - abs(px - tx)) * max(0, 1 - abs(py - ty))
                    top[:, py, px] += near * weight * values[:, y, x]
                    total[py, px] += near * weight
    return np.where(total > 0, top / np.where(total > 0, total, 1), 0)


@pytest.fixture(params=["compiled", "torch"])
def engine(request, monkeypatch):
    monkeypatch.setattr(warp, "available", lambda: request.param == "compiled")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(5, 6), (4, 4), (1, 7)])
def test_splatting_is_its_definition(shape, engine):
    rng = np.random.default_rng(1)
    values, importance = rng.standard_normal((3, *shape)), rng.standard_normal((1, *shape))
    flow = 2.5 * rng.standard_normal((2, *shape))
    flow[:, 0, 0] = (100, -100)  # leaves the image
    found = softmax_splat(*(torch.from_numpy(a)[None] for a in (values, flow, importance)))[0].numpy()
    np.testing.assert_allclose(found, splat_by_loop(values, flow, importance), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_a_flow_that_is_no_number_sends_its_pixel_nowhere(bad, engine):
    rng = np.random.default_rng(3)
    values, importance = rng.standard_normal((1, 2, 5, 6)), rng.standard_normal((1, 1, 5, 6))
    flow = rng.standard_normal((1, 2, 5, 6))
    flow[0, 0, 2, 3] = flow[0, 1, 4, 0] = bad
    expected = np.where(np.isfinite(flow) & (abs(flow) < 1e9), flow, 1e6)
    moving = torch.from_numpy(flow).requires_grad_()
    found = softmax_splat(torch.from_numpy(values), moving, torch.from_numpy(importance))
    found.sum().backward()
    np.testing.assert_allclose(found.detach()[0], splat_by_loop(values[0], expected[0], importance[0]), atol=1e-9)
    assert moving.grad.isfinite().all()


@pytest.mark.slow
def test_the_gradient_of_splatting(engine):
    torch.manual_seed(2)
    values = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    # Away from whole pixels, where the bilinear kernel has a kink; nobody left without any weight.
    flow = (torch.rand(1, 2, 4, 5, dtype=torch.float64) * 0.6 + 0.2).requires_grad_()
    importance = torch.randn(1, 1, 4, 5, dtype=torch.float64)
    # The largest importance is a constant that cancels: its gradient is not followed, but must not matter.
    importance = importance.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, f, z: softmax_splat(v, f, z)[..., 1:, 1:], (values, flow, importance))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_the_compiled_loops_and_torch_agree_with_their_gradients(threads, monkeypatch):
    torch.manual_seed(3)
    inputs = [torch.randn(3, 4, 9, 11), 2 * torch.randn(3, 2, 9, 11), torch.randn(3, 1, 9, 11)]
    pull = torch.randn(3, 4, 9, 11)
    found = {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for compiled in (True, False):
        monkeypatch.setattr(warp, "available", lambda compiled=compiled: compiled)
        given = [a.double().requires_grad_() for a in inputs]
        out = softmax_splat(*given)
        out.mul(pull.double()).sum().backward()
        found[compiled] = [out.detach(), *(a.grad for a in given)]
    torch.set_num_threads(before)
    for ours, other in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)


def test_splatting_by_whole_pixels_is_a_shift_and_importance_decides(engine):
    image = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0], flow[:, 1] = 2, -1
    moved = softmax_splat(image, flow)
    torch.testing.assert_close(moved[..., :3, 2:], image[..., 1:, :3])
    assert (moved[..., 3, :] == 0).all()
    # Two pixels meet on one place: the more important one is seen.
    meet = torch.zeros(1, 2, 1, 3)
    meet[0, 0, 0] = torch.tensor([1.0, 0.0, -1.0])
    values = torch.tensor([[[[1.0, 5.0, 9.0]]]])
    weights = torch.tensor([[[[10.0, -10.0, -10.0]]]])
    assert softmax_splat(values, meet, weights)[0, 0, 0, 1] == pytest.approx(1, abs=1e-6)
    assert softmax_splat(values, meet)[0, 0, 0, 1] == pytest.approx(5)


@pytest.mark.parametrize("shape", [(3, 2**23), (2**23, 3), (4097, 4096), (40_000, 40_000)])
def test_pixels_beyond_2_to_24_are_counted_exactly(shape):
    """float32 knows whole numbers up to 2^24 only; planes of detectors with many pixels have more."""
    height, width = shape
    rows = [0, height // 3, height - 2, height - 1]
    columns = [1, width // 3 + 1, width - 2, width - 1]
    found = warp.pixel_index(torch.tensor(columns).float(), torch.tensor(rows).float(), shape)
    assert found.tolist() == [y * width + x for y, x in zip(rows, columns, strict=True)]
    outside = warp.pixel_index(torch.tensor([-5.0, 1e30]), torch.tensor([-1e30, height + 7.0]), shape)
    assert outside.tolist() == [0, height * width - 1]


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf, 1e30])
def test_flows_that_lead_nowhere_move_their_pixels_out_of_the_image(lost, engine):
    """Weights that are not finite make such flows: the loss must tell of them, not the system."""
    image, flow = torch.ones(1, 1, 5, 6), torch.zeros(1, 2, 5, 6)
    flow[0, 0, 2, 3] = lost
    flow.requires_grad_()
    moved = softmax_splat(image, flow)
    expected = torch.ones(5, 6)
    expected[2, 3] = 0
    torch.testing.assert_close(moved[0, 0], expected)
    moved.sum().backward()
    assert torch.isfinite(flow.grad).all()


def test_fetching_from_nowhere_is_not_finite():
    flow = torch.zeros(1, 2, 5, 6)
    flow[0, 1, 2, 3] = math.nan
    flow.requires_grad_()
    image = torch.ones(1, 2, 5, 6, requires_grad=True)
    found = backward_warp(image, flow)
    assert found.isnan().sum() == 2
    assert found[0, :, 2, 3].isnan().all()
    found.sum().backward()


def test_warping_back_undoes_a_shift():
    image = torch.randn(1, 2, 6, 7)
    flow = torch.zeros(1, 2, 6, 7)
    flow[:, 0], flow[:, 1] = 1, 2
    torch.testing.assert_close(backward_warp(image, flow)[..., :4, :6], image[..., 2:, 1:])
    half = torch.full((1, 2, 6, 7), 0.5)
    mean = (image[..., :-1, :-1] + image[..., 1:, :-1] + image[..., :-1, 1:] + image[..., 1:, 1:]) / 4
    torch.testing.assert_close(backward_warp(image, half)[..., :-1, :-1], mean)


def test_correlation_against_a_loop():
    a, b = torch.randn(2, 2, 3, 5, 6)
    found = correlation(a, b, 2)
    assert found.shape == (2, 25, 5, 6)
    for number, (dy, dx) in enumerate((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)):
        y, x = 2, 3
        at = b[:, :, min(max(y + dy, 0), 4), min(max(x + dx, 0), 5)]
        torch.testing.assert_close(found[:, number, y, x], (a[:, :, y, x] * at).mean(dim=1))


def test_a_resized_flow_points_to_the_same_place():
    flow = torch.full((1, 2, 4, 4), 1.5)
    torch.testing.assert_close(resize_flow(flow, 2), torch.full((1, 2, 8, 8), 3.0))


def test_the_published_network_has_the_published_size():
    assert 2.8e6 < sum(weights.numel() for weights in SambaNet().parameters()) < 3.0e6


def test_an_untrained_network_is_nearly_the_mean():
    torch.manual_seed(3)
    network = SambaNet(TINY)
    smooth = torch.nn.functional.interpolate(torch.randn(2, 1, 6, 6), size=(32, 40), mode="bicubic")
    network.requires_grad_(False)
    found = network(smooth[:1], smooth[1:])
    inner = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    assert found.shape == (1, 1, 32, 40)
    assert float((found - smooth.mean(dim=0))[inner].abs().max()) < 0.05 * float(smooth.std())
    torch.testing.assert_close(found, network(smooth[1:], smooth[:1]))


def test_borders_are_reflected_everywhere():
    """Constant planes stay constant up to the very border, whatever the weights: zero padding would show there."""
    torch.manual_seed(4)
    network = SambaNet(TINY)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "flow.to_flow" not in name:  # flow that is not 0 moves content away from borders
                parameter.normal_(0, 0.3)
        for module in network.modules():
            if isinstance(module, torch.nn.ConvTranspose2d):  # these alone may draw a pattern on constant planes
                module.weight.copy_(module.weight.mean(dim=(2, 3), keepdim=True).expand_as(module.weight))
    out = network(torch.full((1, 1, 32, 32), 0.7), torch.full((1, 1, 32, 32), -0.2)).detach()
    torch.testing.assert_close(out, out[..., 16:17, 16:17].expand_as(out), atol=1e-5, rtol=1e-4)


def test_shrinking_stays_within_its_window():
    images = torch.randn(1, 1, 12, 16)
    small = convex_shrink(images, 3 * torch.randn(1, 25, 6, 8))
    assert small.shape == (1, 1, 6, 8)
    # In the middle, each value lies between the smallest and the largest of its 5 x 5 window.
    window = images[0, 0, 2:7, 4:9]
    assert window.min() <= small[0, 0, 2, 3] <= window.max()


@pytest.mark.slow
def test_every_weight_learns():
    torch.manual_seed(5)
    network = SambaNet(TINY)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    planes = torch.randn(3, 2, 1, 16, 24)
    for _ in range(3):  # the last layers start at zero, so that the ones before them learn from the second step on
        optimiser.zero_grad()
        (network(planes[0], planes[2]) - planes[1]).square().mean().backward()
        optimiser.step()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


def test_weights_survive_their_file(tmp_path):
    network = SambaNet(TINY)
    save_weights(tmp_path / "w.safetensors", network, {"made": "here"})
    again = load_weights(tmp_path / "w.safetensors")
    assert again.card == {"made": "here"}
    assert again.network.config == TINY
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor)
    with pytest.raises(ModelError, match="no file"):
        load_weights(tmp_path / "other.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="corrupt"):
        load_weights(tmp_path / "bad.safetensors")
