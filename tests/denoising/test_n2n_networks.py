"""The backbones of Noise2Noise: sizes, receptive fields, equivariance, the dense network against a plain one, files."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cryolithe.denoising.n2n.gains import ShellGain
from cryolithe.denoising.n2n.msd import Msd, MsdConfig
from cryolithe.denoising.n2n.network import (
    BACKBONES,
    FORMAT,
    build,
    config_from,
    load_denoiser,
    plain_config,
    save_denoiser,
)
from cryolithe.denoising.n2n.scunet import ScunetConfig
from cryolithe.denoising.n2n.unet import UNetConfig
from cryolithe.errors import ModelError
from cryolithe.optimise.tensors import write_tensors

TINY = {
    "unet": UNetConfig(filters=4, levels=2, first_kernel=3, last=(4, 3)),
    "msd": MsdConfig(layers=5, dilations=3),
    "scunet": ScunetConfig(channels=(4, 8), blocks=2, window=2, head=2),
}
tiny = pytest.mark.parametrize("config", TINY.values(), ids=TINY)


def network(config, seed=0):
    torch.manual_seed(seed)
    return build(config).eval()


def values(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@tiny
@pytest.mark.parametrize("shape", [(16, 16, 16), (13, 18, 9)])
def test_any_volume_goes_through_and_keeps_its_shape(config, shape):
    with torch.no_grad():
        out = network(config)(values(2, 1, *shape))
    assert out.shape == (2, 1, *shape)
    assert out.isfinite().all()


def test_the_sizes_are_those_of_the_papers():
    count = {name: sum(p.numel() for p in build(config).parameters()) for name, config in BACKBONES.items()}
    assert count["unet"] == pytest.approx(2.92e6, rel=0.01)
    assert count["msd"] == 27 * 5050 + 100 + 102  # 3 x 3 x 3 weights of all earlier maps, biases, the last layer
    assert count["unet-small"] < 0.4e6
    assert count["scunet"] < 2e6


@tiny
def test_moving_the_input_by_the_multiple_moves_the_output(config):
    step = config.multiple
    side = -(-2 * config.reach // step) * step + 3 * step
    net, volume = network(config), values(1, 1, step, step, side + step)
    rest = [slice(None)] * 4
    with torch.no_grad():
        still, moved = net(volume[..., :side]), net(volume[..., step:])
    inner = still[(*rest, slice(config.reach + step, side - config.reach))]
    other = moved[(*rest, slice(config.reach, side - config.reach - step))]
    assert inner.numel()
    torch.testing.assert_close(inner, other, atol=1e-5, rtol=1e-4)


@tiny
def test_no_output_depends_on_more_than_the_reach(config):
    net, side = network(config), 2 * config.reach + 4 * config.multiple
    side = -(-side // config.multiple) * config.multiple
    volume = values(1, 1, config.multiple, config.multiple, side).requires_grad_()
    for place in range(side // 2, side // 2 + config.multiple):
        (gradient,) = torch.autograd.grad(net(volume)[..., place].abs().sum(), volume)
        touched = gradient.abs().amax(dim=(0, 1, 2, 3)).nonzero().flatten()
        assert abs(int(touched[0]) - place) <= config.reach
        assert abs(int(touched[-1]) - place) <= config.reach


@tiny
def test_every_weight_learns(config):
    net = network(config)
    (net(values(1, 1, 16, 16, 16)) ** 2).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0 or name.endswith("qkv.bias"), name


def plain_dense(net, volume):
    """The mixed-scale dense network as the paper writes it: every layer sees the concatenation of all maps."""
    maps = volume
    for i, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        step = 1 + i % net.config.dilations
        maps = torch.cat([maps, F.relu(F.conv3d(maps, weight, bias, padding=step, dilation=step))], dim=1)
    return net.out(maps)


@pytest.mark.parametrize("width", [1, 3])
def test_the_dense_network_in_one_buffer_is_the_plain_one(width):
    net = network(MsdConfig(layers=7, width=width, dilations=4)).double()
    volume = values(2, 1, 9, 10, 11).double().requires_grad_()
    target = values(2, 1, 9, 10, 11, seed=1).double()
    leaves = [volume, *net.parameters()]
    found, expected = net(volume), plain_dense(net, volume)
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(((found - target) ** 2).sum(), leaves)
    theirs = torch.autograd.grad(((expected - target) ** 2).sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_the_dense_network_keeps_one_buffer_for_the_way_back():
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    net, side = network(MsdConfig(layers=40)), 24
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = net(values(1, 1, side, side, side))
    assert out.requires_grad
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    held = sum(size for pointer, size in kept.items() if pointer not in weights)
    assert held < 1.3 * 4 * 41 * side**3  # the chain of concatenations holds 861 maps


@tiny
def test_half_precision_is_near_single(config):
    net, volume = network(config), values(1, 1, 16, 16, 16)
    with torch.no_grad():
        exact = net(volume)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = net(volume).float()
    assert (rough - exact).std() < 0.03 * exact.std()


@tiny
def test_a_file_brings_back_the_network(config, tmp_path):
    net, gain, card = network(config), ShellGain((1.0, 0.5, 0.25)), {"steps": 7, "halves": ["a.mrc", "b.mrc"]}
    save_denoiser(tmp_path / "w.safetensors", net, config, gain, card)
    found = load_denoiser(tmp_path / "w.safetensors")
    assert (found.config, found.gain, found.card) == (config, gain, card)
    volume = values(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(found.network(volume), net(volume), rtol=0, atol=0)


@pytest.mark.parametrize("config", BACKBONES.values(), ids=BACKBONES)
def test_a_configuration_survives_json(config):
    assert config_from(plain_config(config), "w") == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "vgg"}, "vgg"),
        ({"filters": 10**6}, "filters"),
        ({"levels": 0}, "levels"),
        ({"last": [4] * 20}, "last"),
        ({"filters": True}, "filters"),
        ({"more": 1}, "more"),
    ],
)
def test_a_damaged_configuration_is_refused(change, said):
    with pytest.raises(ModelError, match=said):
        config_from({**plain_config(TINY["unet"]), **change}, "w.safetensors")


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(ModelError, match="there is no file"):
        load_denoiser(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="corrupt"):
        load_denoiser(path)
    save_denoiser(path, network(TINY["unet"]), dataclasses.replace(TINY["unet"], filters=5), ShellGain(), {})
    with pytest.raises(ModelError, match="shape"):
        load_denoiser(path)
    net = Msd(TINY["msd"])
    write_tensors(path, net.state_dict(), FORMAT, {"config": plain_config(TINY["msd"]), "gain": {"factors": []}})
    with pytest.raises(ModelError, match="describes no network"):
        load_denoiser(path)
