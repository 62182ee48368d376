"""Losses of Noise2Noise and the amplitudes that some of them do not see."""

import numpy as np
import pytest
import torch

from cryolithe.denoising.n2n.gains import ShellGain, fit_gain
from cryolithe.denoising.n2n.losses import LOSSES, annealed_l0, fsc_loss, half_loss
from cryolithe.metrics import fourier_shell_correlation


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def smooth(*shape, seed=0, sigma=0.15):
    """Noise with a falling spectrum."""
    frequency = np.sqrt(sum(np.square(f) for f in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij", sparse=True)))
    values = np.fft.ifftn(np.fft.fftn(noise(*shape, seed=seed)) * np.exp(-((frequency / sigma) ** 2))).real
    return (values / values.std()).astype(np.float32)


def batch(*volumes):
    return torch.from_numpy(np.stack(volumes))[:, None]


@pytest.mark.parametrize(("name", "best"), [("l2", np.mean), ("l1", np.median)])
def test_the_best_constant_is_the_mean_or_the_median(name, best):
    target = torch.from_numpy(np.random.default_rng(0).exponential(size=2001).astype(np.float32))
    guess = torch.linspace(0, 2, 2001)
    losses = [float(half_loss(name, g.expand(2001), target)) for g in guess]
    assert float(guess[int(np.argmin(losses))]) == pytest.approx(float(best(target.numpy())), abs=0.002)


def test_the_annealed_loss_goes_from_the_square_to_the_mode():
    rng = np.random.default_rng(0)
    target = torch.from_numpy(np.concatenate([np.zeros(600), rng.uniform(1, 3, 1400)]).astype(np.float32))
    difference = target - 0.3
    assert float(annealed_l0(difference, 2.0)) == pytest.approx(float((difference**2).mean()), rel=1e-5)
    assert float(half_loss("l0", torch.zeros(2000), target, 0.0)) == pytest.approx(float((target**2).mean()), rel=1e-5)
    guesses = torch.linspace(-1, 3, 401)
    best = {gamma: float(guesses[int(np.argmin([float(annealed_l0(target - g, gamma)) for g in guesses]))])
            for gamma in (2.0, 0.1)}  # fmt: skip
    assert best[2.0] == pytest.approx(float(target.mean()), abs=0.01)
    assert best[0.1] == pytest.approx(0.0, abs=0.01)  # the most frequent value


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_a_finite_gradient_and_is_least_for_the_target(name):
    target = batch(noise(16, 16, 16), noise(16, 16, 16, seed=1))
    estimate = batch(noise(16, 16, 16, seed=2), noise(16, 16, 16, seed=3)).requires_grad_()
    loss = half_loss(name, estimate, target, 0.25)
    (gradient,) = torch.autograd.grad(loss, estimate)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    assert float(half_loss(name, target, target, 0.25)) < float(loss.detach()) - 0.1


@pytest.mark.parametrize("name", LOSSES)
def test_constant_estimates_and_targets_break_no_loss(name):
    flat = torch.zeros(1, 1, 8, 8, 8, requires_grad=True)
    for target in (batch(noise(8, 8, 8)), torch.zeros(1, 1, 8, 8, 8)):
        loss = half_loss(name, flat, target, 1.0)
        (gradient,) = torch.autograd.grad(loss, flat)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_the_shells_are_those_of_the_metric():
    a = smooth(24, 24, 24)
    b = a + noise(24, 24, 24, seed=1)
    window = np.pad(np.ones((12, 12, 12)), 6)  # inside of it the fading of the borders changes nothing
    a, b = a * window, b * window
    a, b = (np.float32(v - v[window > 0].mean() * window) for v in (a, b))
    curve = fourier_shell_correlation(a, b).total
    assert float(fsc_loss(batch(a), batch(b))) == pytest.approx(1 - curve[1:-1].mean(), abs=1e-3)


def test_the_correlation_does_not_see_amplitudes_and_the_gain_brings_them_back():
    shape = (32, 32, 32)
    signal = [smooth(*shape, seed=s) for s in range(6)]
    target = [s + 0.5 * noise(*shape, seed=50 + n) for n, s in enumerate(signal)]
    truth = ShellGain(tuple(np.linspace(0.4, 2.0, 12)))
    inverse = ShellGain(tuple(1 / truth.at(np.linspace(0, 0.5, 64))))
    output = [inverse.apply(s) for s in signal]
    assert float(fsc_loss(batch(*output), batch(*target))) == pytest.approx(
        float(fsc_loss(batch(*signal), batch(*target))), abs=0.02
    )
    found = fit_gain(zip(output, target, strict=True))
    inside = np.linspace(0.04, 0.2, 17)  # where there is signal
    np.testing.assert_allclose(found.at(inside), truth.at(inside), rtol=0.06)
    for o, s in zip(output, signal, strict=True):
        assert np.square(found.apply(o) - s).mean() < 0.05 * np.square(o - s).mean()


def test_the_gain_of_what_is_right_is_one_and_of_noise_nearly_none():
    signal = [noise(32, 32, 32, seed=s) for s in range(3)]
    other = [noise(32, 32, 32, seed=s + 9) for s in range(3)]
    np.testing.assert_allclose(fit_gain(zip(signal, signal, strict=True)).factors, 1, atol=1e-5)
    lost = np.array(fit_gain(zip(signal, other, strict=True)).factors)
    assert (lost >= 0).all()
    assert lost[6:].max() < 0.05  # the first shells hold few coefficients


@pytest.mark.parametrize("shape", [(16, 20, 24), (9, 16, 13), (1, 8, 8)])
def test_a_constant_gain_multiplies_and_one_does_nothing(shape):
    volume = noise(*shape)
    np.testing.assert_allclose(ShellGain((0.5, 0.5)).apply(volume), 0.5 * volume, atol=1e-5)
    assert ShellGain().apply(volume) is volume


def test_a_gain_of_one_patch_without_content_changes_nothing():
    assert fit_gain([(np.zeros((8, 8, 8)), noise(8, 8, 8))]).is_one


def test_a_gain_survives_json():
    gain = ShellGain((1.0, 0.25, 0.125))
    assert ShellGain.from_plain(gain.plain()) == gain
    for factors in ([1.0], [1.0, float("nan")], [1.0, -1.0], [1.0, 1e9], ["x", 1]):
        with pytest.raises(ValueError, match=r"gain|convert"):
            ShellGain.from_plain({"factors": factors})


def test_a_gain_that_few_coefficients_tell_is_drawn_to_what_is_known_beforehand():
    """Faint halves: chance alone must not erase one band and pass the next."""
    prior, errors = ShellGain((1.0, 0.5)), []
    for seed in range(4):
        signal = 0.05 * noise(16, 24, 24, seed=seed)
        faint = signal + noise(16, 24, 24, seed=50 + seed)
        found = fit_gain([(signal, faint)], prior=prior)
        at = np.linspace(0.05, 0.5, 24)
        errors.append(np.abs(found.at(at) - prior.at(at)).max())
    assert max(errors) < 0.4
    strong = [noise(32, 32, 32, seed=s) for s in range(4)]
    clear = fit_gain([(s, 2 * s) for s in strong], prior=prior)
    np.testing.assert_allclose(clear.at(np.linspace(0.1, 0.45, 9)), 2, atol=0.05)
