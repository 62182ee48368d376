"""Gradients of convolutions in bfloat16 against float64, in volumes thinner than the kernel and thicker ones."""

import pytest
import torch

from cryolithe.arrays.convolution import Convolution3d
from cryolithe.denoising.n2n.network import BACKBONES, build

# Products of bfloat16 numbers have 8 bits; sums of them are of float32.
BF16 = 0.06


def gradients(layer, values, target, precision):
    """Output and gradients of input and weights, of the sum of products with a target."""
    layer.zero_grad()
    given = values.clone().to(torch.float64 if precision is None else torch.float32).requires_grad_()
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        made = layer(given)
    (made.double() * target).sum().backward()
    return made.detach().double(), given.grad.double(), *(leaf.grad.double() for leaf in layer.parameters())


def furthest(layer, values, target):
    """Largest difference of each from float64, in its deviations."""
    fast = [v.clone() for v in gradients(layer, values, target, torch.bfloat16)]
    slow = gradients(layer.double(), values, target, None)
    return [float((a - b).abs().max() / b.std().clamp_min(1e-12)) for a, b in zip(fast, slow, strict=True)]


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=["planes", "maps_together"])
def test_gradients_are_right_however_thin_the_volume(kernel, layout):
    generator = torch.Generator().manual_seed(kernel)
    for depth in range(1, 9):
        layer = Convolution3d(16, 8, kernel, padding=kernel // 2).to(memory_format=layout)
        values = torch.randn((2, 16, depth, 8, 10), generator=generator).contiguous(memory_format=layout)
        target = torch.randn((2, 8, depth, 8, 10), generator=generator, dtype=torch.float64)
        assert max(furthest(layer, values, target)) < BF16, depth


def test_its_weights_are_those_of_torch_and_its_precision_the_one_asked_for():
    layer, known = Convolution3d(3, 4, 3, padding=1), torch.nn.Conv3d(3, 4, 3, padding=1)
    layer.load_state_dict(known.state_dict())
    values = torch.randn(1, 3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(values), known(values))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(values).dtype == known(values).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["unet-small", "scunet"])
def test_gradients_of_whole_backbones_in_thin_patches(name):
    """Halves of 16 voxels are two voxels thick at the bottom of both."""
    torch.manual_seed(0)
    network = build(BACKBONES[name])
    values = torch.randn((1, 1, 16, 24, 32), generator=torch.Generator().manual_seed(1))
    fast = gradients(network, values, values.double(), torch.bfloat16)[2:]
    slow = gradients(network.double(), values, values.double(), None)[2:]
    for a, b in zip(fast, slow, strict=True):
        cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
        assert cosine > 0.8, (name, tuple(a.shape), float(cosine))
