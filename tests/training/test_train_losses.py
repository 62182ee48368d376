"""Losses: laws that they obey."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryolithe.metrics import fourier_shell_correlation
from cryolithe.network import Head
from cryolithe.training.losses import cube_voxels, fsc_loss, run_loss
from cryolithe.training.sections import LossSettings


def volume(seed, shape=(16, 16, 16)):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def test_the_shell_loss_is_one_minus_the_mean_correlation():
    a, b = volume(0), volume(1)
    assert float(fsc_loss(a, a)) == pytest.approx(0, abs=1e-5)
    assert float(fsc_loss(3 * a + 7, a)) == pytest.approx(0, abs=1e-4)
    assert float(fsc_loss(-a, a)) == pytest.approx(2, abs=1e-5)
    assert float(fsc_loss(a, b)) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("shape", [(16, 16, 16), (12, 16, 24), (9, 15, 11)])
def test_the_shell_loss_is_that_of_the_metric(shape):
    a, b = volume(0, shape), volume(1, shape)
    near = [np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5 for n in shape]
    ramps = [np.sin(np.pi / 2 * np.minimum(1, d / (n // 8))) ** 2 for d, n in zip(near, shape, strict=True)]
    fade = ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]
    mixed = a + 0.7 * b
    curve = fourier_shell_correlation(a.numpy(), mixed.numpy(), mask=fade).total[1:-1]
    assert 1 - float(fsc_loss(mixed, a)) == pytest.approx(curve.mean(), abs=1e-5)


def test_the_shell_loss_falls_along_its_gradient_through_the_wavelets():
    head = Head(1)
    target = head.targets(volume(2))[:8, :8, :8]
    cube = (8, 8, 8)
    values = target.transpose(1, 2).reshape(64, 8, 8)
    estimate = (values + 0.5 * torch.randn(values.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    settings = LossSettings(l2=0.0, fsc=1.0)
    losses = []
    for _ in range(5):
        loss = run_loss(estimate, values, torch.ones(8), settings, (cube, head))
        (gradient,) = torch.autograd.grad(loss, estimate)
        estimate = (estimate - 20 * gradient).detach().requires_grad_()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    assert torch.isfinite(fsc_loss(torch.zeros(16, 16, 16), volume(0)))


def test_cubes_of_blocks_synthesise_to_their_voxels():
    for levels in (0, 1, 2):
        head = Head(levels)
        whole = volume(3, (32, 32, 32))
        targets = head.targets(whole)
        n = 32 if levels == 0 else 6
        block = targets[:n, :n, :n].transpose(1, 2).reshape(n * n, n, head.outputs)
        found = cube_voxels(block, (n, n, n), head)
        size = found.shape[0]
        assert size == head.stride * (n - 2 * head.margin)
        assert torch.allclose(found, whole[:size, :size, :size], atol=1e-4)


def test_parts_of_the_loss_add_up():
    a, b, weights = torch.randn(5, 4, 8), torch.randn(5, 4, 8), torch.rand(8)
    one, two = (run_loss(a, b, weights, LossSettings(l1=x, l2=y)) for x, y in ((1, 0), (0, 1)))
    assert torch.allclose(run_loss(a, b, weights, LossSettings(l1=0.5, l2=2.0)), 0.5 * one + 2 * two)
    assert float(run_loss(a, a, weights, LossSettings(l1=1.0))) == 0
