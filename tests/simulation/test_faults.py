"""Faults of tilt images: drawn within their ranges, recorded, and applied as recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.ndimage

from cryolithe.errors import SettingsError
from cryolithe.simulation.faults import FaultRecipe, Faults, draw_faults, heat, illumination, misalign

EVERYTHING = FaultRecipe(
    shift_px=(0.5, 2.0),
    rotation_deg=(0.1, 0.5),
    magnification=(0.001, 0.002),
    hot_pixels=(1, 5),
    gradient=(0.05, 0.2),
    blank_chance=0.2,
    dark_chance=0.3,
)


def draw(recipe=EVERYTHING, tilts=41, seed=0):
    return draw_faults(recipe, tilts, (30, 50), np.random.default_rng(seed))


def blob(shape=(60, 80), centre=(25, 50)):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 18).astype(np.float32)


def test_drawn_by_seed_within_ranges_and_plain():
    drawn = draw()
    assert drawn == draw() != draw(seed=1)
    assert len(drawn) == 41
    assert all(1 <= len(f.hot_pixels) <= 5 and all(y < 30 and x < 50 for y, x in f.hot_pixels) for f in drawn)
    assert all(0.05 <= np.hypot(*f.gradient) <= 0.2 for f in drawn)
    assert any(f.blank for f in drawn)
    assert any(f.brightness < 1 for f in drawn)
    assert not any(f.blank and f.brightness < 1 for f in drawn)
    plain = [f.as_plain() for f in drawn]
    assert json.loads(json.dumps(plain)) == plain


def test_no_faults_by_default():
    assert draw(FaultRecipe(), 3) == (Faults(),) * 3
    image = blob()
    assert misalign(image, Faults()) is image
    assert heat(image, Faults()) is image
    assert (illumination((5, 6), Faults()) == 1).all()


def test_shift_moves_the_content_where_it_says():
    moved = misalign(blob(), Faults(shift_px=(1.5, -2.25)))
    assert scipy.ndimage.center_of_mass(moved) == pytest.approx((26.5, 47.75), abs=0.02)
    assert moved.dtype == np.float32


def test_rotation_and_magnification_about_the_middle():
    """From x towards y: what lies at +x of the middle goes to +y."""
    image = blob((61, 81), (30, 55))
    turned = misalign(image, Faults(rotation_deg=10.0, magnification=1.2))
    angle, radius = np.deg2rad(10), 15 * 1.2
    expected = (30 + radius * np.sin(angle), 40 + radius * np.cos(angle))
    assert scipy.ndimage.center_of_mass(turned) == pytest.approx(expected, abs=0.05)


def test_light_and_hot_pixels():
    light = illumination((11, 21), Faults(gradient=(0.1, -0.2), brightness=0.5))
    assert light[5, 10] == pytest.approx(0.5)
    assert light[10, 0] == pytest.approx(0.5 * 1.3)
    hot = heat(np.full((8, 8), 4.0, dtype=np.float32), Faults(hot_pixels=((2, 3),), hot_factors=(10.0,)))
    assert hot[2, 3] == 40
    assert (hot == 4).sum() == 63


@pytest.mark.parametrize(
    "wrong",
    [{"shift_px": (2.0, 1.0)}, {"rotation_deg": (-1.0, 1.0)}, {"gradient": (0.0, 2.0)}, {"blank_chance": 1.1}],
)
def test_impossible_recipes(wrong):
    with pytest.raises(SettingsError):
        FaultRecipe(**wrong)
