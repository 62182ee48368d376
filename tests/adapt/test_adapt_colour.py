"""The colour of a lab's noise in an adaptation: how a filter is judged, and what a model then asks for."""

from __future__ import annotations

import numpy as np
import pytest
from test_adapt import ANGLES, SHAPE, of_halves, series_of, specimen_images, tiny  # noqa: F401
from test_noise_colour import coloured, mean_power, model_with
from tiny_series import run, write_series

from cryolithe.adapt import material as adapt_material
from cryolithe.adapt import session as adapt_session
from cryolithe.adapt.colour import of_recorded, white_series
from cryolithe.artefacts.noise_colour import LEAST_GAIN, MOST_GAIN, POINTS, whitening_gain
from cryolithe.network.checkpoint import load_model

FALLING = whitening_gain(mean_power(coloured((128, 128), 0.7)))
STEEP = tuple(np.linspace(1, 3, POINTS).round(4).tolist())


def halves(folder, noise, name="ts"):
    """Files of two halves of a specimen with noise of their own, dense = dark, and their angles."""
    images = specimen_images()
    paths = [
        write_series(
            folder, (90 - images - 1.5 * images.std() * noise(seed)).astype(np.float32), ANGLES, f"{name}_{half}"
        )
        for seed, half in enumerate(("EVN", "ODD"))
    ]
    return paths[0][0], paths[1][0], paths[0][1]


def falling(seed):
    return coloured(SHAPE[1:], 0.7, seed + 1, len(ANGLES))


def rising(seed):
    """What a little of low frequencies is taken from."""
    white = np.random.default_rng(seed).standard_normal((len(ANGLES), *SHAPE[1:]))
    f = np.hypot(np.fft.fftfreq(SHAPE[1])[:, None], np.fft.rfftfreq(SHAPE[2]))
    noise = np.fft.irfft2(np.fft.rfft2(white) * (1 + (f / 0.2) ** 2), s=SHAPE[1:])
    return noise / noise.std()


@pytest.fixture
def preferring(monkeypatch):
    """A network that knows more of whatever is asked second: filtered images. What it was asked is kept."""
    asked = []
    monkeypatch.setattr(
        adapt_material, "half_curves", lambda network, cubes, place: (asked.append(cubes), [[len(asked)]] * 2)[1]
    )
    return asked


@pytest.mark.slow
def test_filtered_images_are_judged_by_the_other_half_as_it_was(tiny, preferring, tmp_path, monkeypatch):  # noqa: F811
    """When it is decided whether to filter, before the first step, and after the last: else a filter that hides noise
    of what volumes are compared with would count as knowledge."""
    checked, real = [], adapt_session.check_network
    monkeypatch.setattr(
        adapt_session, "check_network", lambda net, cubes, *more: (checked.append(cubes), real(net, cubes, *more))[1]
    )
    result = of_halves(halves(tmp_path, falling), tmp_path / "mine.safetensors", "--steps", 1)
    assert "and is made white" in result.stderr, result.output
    assert len(checked) >= 3
    for before, *others in (preferring, checked):
        for cubes in others:
            assert [one.run.name for one in cubes] == [one.run.name for one in before]
            for one, other in zip(before, cubes, strict=True):
                np.testing.assert_array_equal(one.run.targets, other.run.targets)
                assert one.run.rows.shape == other.run.rows.shape
                assert not np.allclose(one.run.rows, other.run.rows, atol=0.1)


def test_factors_are_those_of_images_as_they_are_recorded(tmp_path):
    """A filter that a model asked for counts where images have passed it, and only there."""
    images = [coloured(SHAPE[1:], 0.7, seed, len(ANGLES)) for seed in (1, 2)]
    plain = series_of(tmp_path, images)
    passed = white_series(plain, STEEP)
    found = of_recorded(None, STEEP, [plain])
    assert (found.whole, found.further) == (STEEP, STEEP)
    assert of_recorded(STEEP, FALLING, [plain]).whole == FALLING
    assert of_recorded(STEEP, FALLING, [plain, passed]) is None
    low = tuple(np.linspace(1, 0.4, POINTS).tolist())
    for second in (STEEP, FALLING, low):
        found = of_recorded(STEEP, second, [passed, passed])
        np.testing.assert_allclose(np.multiply(STEEP, found.further), found.whole)
        assert LEAST_GAIN <= min(found.whole) <= max(found.whole) <= MOST_GAIN
    assert max(of_recorded(STEEP, STEEP, [passed]).whole) == MOST_GAIN


@pytest.mark.slow
@pytest.mark.parametrize("noise", [falling, rising])
def test_a_model_that_asks_for_a_filter_is_adapted_to_another_colour(tiny, preferring, tmp_path, monkeypatch, noise):  # noqa: F811
    """What is written asks for the factors of the new series, whose images never passed the earlier filter."""
    monkeypatch.setattr(adapt_session, "why_not", lambda *checks: "")
    monkeypatch.setattr(adapt_session, "best_of", lambda checks, limit: checks[-1])
    earlier = tuple(1 / one for one in FALLING) if noise is falling else FALLING
    earlier = tuple(np.clip(earlier, LEAST_GAIN, MOST_GAIN).round(4).tolist())
    start = model_with(tmp_path / "asks.safetensors", earlier)
    files, output = halves(tmp_path, noise), tmp_path / "mine.safetensors"
    result = of_halves(files, output, "--steps", 1, "--model", start)
    assert result.exit_code == 0, result.output
    assert "and is made white" in result.stderr
    gain = load_model(str(output)).card["noise_gain"]
    fresh = model_with(tmp_path / "plain.safetensors", None)
    preferring.clear()
    result = of_halves(files, tmp_path / "other.safetensors", "--steps", 1, "--model", fresh)
    assert result.exit_code == 0, result.output
    assert gain == load_model(str(tmp_path / "other.safetensors")).card["noise_gain"]
    words = ("--model", output, "--thickness", SHAPE[0], "--contrast", "dark", "--device", "cpu")
    told = run(files[0], files[2], "-o", tmp_path / "v.mrc", *words)
    assert "made white" in told.stderr, told.output
