"""Perfect reconstruction, agreement with PyWavelets, and the laws that streaming rests on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import pywt
import torch

from cryolithe.errors import SettingsError
from cryolithe.wavelets import Wavelet, analyse, basis_norms, block_count, synthesise

NAMES = ["haar", "bior1.3", "bior3.1", "bior3.3"]
SHAPES = [(8, 8, 8), (7, 9, 5), (6, 11, 10), (1, 2, 3), (3, 1, 2), (2, 3, 1), (1, 1, 1), (4, 13, 2)]

each_bank = pytest.mark.parametrize(("name", "levels"), list(itertools.product(NAMES, (1, 2))))


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def coefficients(shape, wavelet, levels, seed=0):
    """Any coefficients at all, not only those of a volume."""
    return noise(*(block_count(n, wavelet, levels) for n in shape), 8**levels, seed=seed)


def impulse(wavelet, levels, band, blocks=9):
    """Synthesis function of one band of the block in the middle, and that block's number."""
    margin = wavelet.margin(levels)
    values = torch.zeros((blocks + 2 * margin,) * 3 + (8**levels,), dtype=torch.float64)
    middle = blocks // 2
    values[middle + margin, middle + margin, middle + margin, band] = 1
    return synthesise(values, (2**levels * blocks,) * 3, wavelet), middle


@each_bank
@pytest.mark.parametrize("shape", SHAPES)
def test_synthesis_undoes_analysis(name, levels, shape):
    wavelet, volume = Wavelet(name), noise(*shape)
    found = analyse(volume, wavelet, levels)
    assert found.shape == (*(block_count(n, wavelet, levels) for n in shape), 8**levels)
    assert (synthesise(found, shape, wavelet) - volume).abs().max() < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_coefficients_are_those_of_pywavelets(name):
    """PyWavelets' low[m] = Σ dec_lo[j] x[2m + 1 - j], ours Σ dec_lo[j] x[2k + L/2 - j].

    For L/2 even its grid lies one voxel off ours, so it is given the volume without its first voxels.
    """
    wavelet, volume = Wavelet(name), noise(26, 31, 28)
    half, margin = wavelet.length // 2, wavelet.margin(1)
    skip = (half + 1) % 2
    theirs = pywt.dwtn(volume[skip:, skip:, skip:].numpy(), name, mode="symmetric")
    ours = analyse(volume, wavelet, 1).numpy()
    blocks = np.arange(4, 9)
    at = np.ix_(*[blocks + (half - 1 - skip) // 2] * 3)
    for word, band in theirs.items():
        number = int(word.replace("a", "0").replace("d", "1"), 2)  # letters and bits run z, y, x
        assert ours[..., number][np.ix_(*[blocks + margin] * 3)] == pytest.approx(band[at], abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_two_levels_are_one_level_and_one_more_of_its_low_band(name):
    wavelet, volume = Wavelet(name), noise(24, 27, 30)
    one, two = analyse(volume, wavelet, 1), analyse(volume, wavelet, 2)
    near, far = wavelet.margin(1), wavelet.margin(2)
    for number, (dz, dy, dx) in enumerate(itertools.product((0, 1), repeat=3)):
        for band in range(1, 8):
            z, y, x = 2, 3, 1
            assert two[z + far, y + far, x + far, 8 + 8 * (band - 1) + number] == pytest.approx(
                one[2 * z + dz + near, 2 * y + dy + near, 2 * x + dx + near, band].item(), abs=1e-12
            )
    low = one[near : -near or None, near : -near or None, near : -near or None, 0]
    again = analyse(low, wavelet, 1)  # its reflection at the ends differs: compare inside
    inside = slice(near + 2, near + 4)
    deep = slice(far + 2, far + 4)
    assert torch.allclose(two[deep, deep, deep, :8], again[inside, inside, inside], atol=1e-12)


@each_bank
@pytest.mark.parametrize("height", [24, 27])
def test_a_slab_is_synthesised_from_its_own_blocks(name, levels, height):
    """Coefficients of blocks first...last with their margins give the slab of the whole: any coefficients."""
    wavelet, stride = Wavelet(name), 2**levels
    values = coefficients((5, height, 6), wavelet, levels)
    whole = synthesise(values, (5, height, 6), wavelet)
    for rows in (stride, 2 * stride, 3 * stride):
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            blocks = block_count(stop - start, wavelet, levels)
            part = values[:, start // stride : start // stride + blocks]
            slab = synthesise(part, (5, stop - start, 6), wavelet)
            assert torch.equal(slab, whole[:, start:stop])


@each_bank
def test_a_low_coefficient_stands_for_the_middle_of_its_block(name, levels):
    wavelet, stride = Wavelet(name), 2**levels
    function, block = impulse(wavelet, levels, 0)
    centre = stride * block + (stride - 1) / 2  # 2 k + 1/2 for one level
    positions = torch.arange(function.shape[0], dtype=torch.float64)
    for axis in range(3):
        profile = function.sum([a for a in range(3) if a != axis])
        assert (profile * positions).sum() / profile.sum() == pytest.approx(centre, abs=1e-12)
        reach = round(min(centre, len(positions) - 1 - centre) - 0.5)
        inside = profile[round(centre - 0.5) - reach : round(centre + 0.5) + reach + 1]
        assert torch.allclose(inside, inside.flip(0), atol=1e-12)
        assert profile.abs().sum() == pytest.approx(inside.abs().sum().item())


@each_bank
def test_basis_norms_are_products_along_the_axes(name, levels):
    bank = pywt.Wavelet(name)
    low, high = np.array(bank.rec_lo), np.array(bank.rec_hi)
    level_1 = [low @ low, high @ high]
    expected = [z * y * x for z, y, x in itertools.product(level_1, repeat=3)]
    if levels == 2:
        functions = []
        for taps in (low, high):
            spread = np.zeros(2 * len(taps) - 1)
            spread[::2] = taps
            functions.append(np.convolve(spread, low))
        level_2 = [f @ f for f in functions]
        deep = [z * y * x for z, y, x in itertools.product(level_2, repeat=3)]
        expected = deep + [norm for norm in expected[1:] for _ in range(8)]
    assert basis_norms(Wavelet(name), levels).numpy() == pytest.approx(expected, rel=1e-6)


def test_haar_keeps_the_norm():
    volume = noise(8, 12, 16)
    for levels in (1, 2):
        assert (analyse(volume, Wavelet("haar"), levels) ** 2).sum() == pytest.approx((volume**2).sum().item())


@pytest.mark.parametrize("name", ["db2", "bior2.2", "sym4", "coif1"])
def test_banks_off_the_centre_of_their_block_are_refused(name):
    with pytest.raises(SettingsError, match=rf"'{name}' is not centred between two voxels; use haar, bior1.3"):
        Wavelet(name)


@pytest.mark.parametrize("name", ["nonsense", "", "mexh", "bior3.2"])
def test_unknown_banks_are_refused(name):
    with pytest.raises(SettingsError, match=f"unknown wavelet '{name}'; use a symmetric one"):
        Wavelet(name)


def test_every_bank_that_is_taken_reconstructs():
    volume = noise(5, 6, 7)
    taken = []
    for name in pywt.wavelist(kind="discrete"):
        try:
            taken.append(Wavelet(name))
        except SettingsError:
            continue
    assert {wavelet.name for wavelet in taken} >= set(NAMES)
    for wavelet in taken:
        assert (synthesise(analyse(volume, wavelet, 1), (5, 6, 7), wavelet) - volume).abs().max() < 1e-9, wavelet
