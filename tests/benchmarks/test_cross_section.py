"""Size of an object across the tilt axis, as the benchmark of a real specimen measures it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cryolithe.errors import InputError
from cryolithe.geometry import centre_px

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from parts.cross_section import mean_cross_section


def ellipse(shape, width, depth):
    z, x = np.meshgrid(*[np.arange(n) - centre_px(n) for n in shape], indexing="ij")
    return ((2 * x / width) ** 2 + (2 * z / depth) ** 2 < 1).astype(np.float32)


@pytest.mark.parametrize(("width", "depth"), [(30, 30), (20, 44), (50, 17)])
def test_the_axes_of_an_ellipse_are_found(width, depth):
    section = ellipse((60, 71), width, depth)
    section[28:32, 33:37] = 0  # a hole
    section[:3, :3] = 1  # a smaller second object
    noise = np.random.default_rng(0).standard_normal(section.shape).astype(np.float32)
    found = mean_cross_section((section + 0.05 * noise)[:, None], 0.5)
    assert found.width_px == pytest.approx(width, rel=0.02)
    assert found.depth_px == pytest.approx(depth, rel=0.02)
    assert found.depth_over_width == pytest.approx(depth / width, rel=0.03)


def test_sections_without_the_object_are_left_out():
    sections = [ellipse((50, 40), 16, 32)] * 7 + [ellipse((50, 40), 4, 4)] * 3 + [np.zeros((50, 40))] * 4
    found = mean_cross_section(np.stack(sections, axis=1), 0.5)
    assert (found.width_px, found.depth_px) == (pytest.approx(16, rel=0.03), pytest.approx(32, rel=0.03))
    assert found.depth_over_width == pytest.approx(2, rel=0.03)


def test_nothing_has_no_size():
    with pytest.raises(InputError, match="not all equal"):
        mean_cross_section(np.zeros((5, 5, 5)), 0.5)
    with pytest.raises(InputError, match="three axes"):
        mean_cross_section(np.zeros((5, 5)), 0.5)
    speck = np.zeros((9, 9, 9))
    speck[4, 4, 4] = 1
    with pytest.raises(InputError, match="no section"):
        mean_cross_section(speck, 0.5)
