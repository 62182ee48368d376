"""What a profile is of: series of any grey scale alike, and images with borders, of which a part is enough."""

from __future__ import annotations

import numpy as np
import pytest
from command import good
from hidden_microscope import SIDE, hidden_series, write_series

from cryolithe.noise.places import clear_square, usable
from cryolithe.noise.stored import read_profile

pytestmark = pytest.mark.slow


def measured(folder, *series, words=()):
    files = [name for n, one in enumerate(series) for name in write_series(folder, f"ts{n}", one)]
    result = good("noise", "measure", *files, "-o", folder / "p.h5", "--overwrite", *words)
    return read_profile(folder / "p.h5"), " ".join(result.output.split())


def changed(made, change):
    return made._replace(even=change(made.even), odd=change(made.odd))


@pytest.fixture(scope="module")
def pair():
    return hidden_series(1), hidden_series(2)


@pytest.fixture(scope="module")
def plain(pair, tmp_path_factory):
    return measured(tmp_path_factory.mktemp("plain"), *pair)


@pytest.mark.parametrize("factor", [30.0, 3.0, 0.001])
def test_the_grey_scale_of_a_series_changes_nothing_and_is_told(tmp_path, pair, plain, factor):
    one, other = pair
    profile, told = measured(tmp_path, one, changed(other, lambda half: factor * half))
    expected, said = plain
    assert "so that its noise is that of series 1" in told
    assert "grey scales" not in said
    first, second = expected.facts["scales"], profile.facts["scales"]
    assert second == pytest.approx([1, first[1] / factor], rel=1e-3)
    for name in ("noise_power", "signal_power", "tile_scale", "backgrounds"):
        np.testing.assert_allclose(getattr(profile, name), getattr(expected, name), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(profile.snr_db(), expected.snr_db(), atol=0.01)


def test_brightness_is_scaled_with_the_series(tmp_path, pair):
    one, other = (changed(made, lambda half: half + 500) for made in pair)
    profile, told = measured(tmp_path, one, changed(other, lambda half: 3 * half))
    assert "grey values are brightness" in told
    levels = [float(profile.levels[profile.series == n].mean()) for n in (0, 1)]
    assert levels[1] == pytest.approx(levels[0], rel=0.05)


def bordered(half):
    """Strips of up to 16 pixels of one value along one side or the other, as an alignment leaves them."""
    half = half.copy()
    for number, image in enumerate(half):
        width = round(16 * np.sin(number))
        image[:, : max(0, width)] = image[:, SIDE + min(0, width) :] = half.mean()
    return half


def test_images_with_borders_are_measured_where_they_hold_something(tmp_path, pair, plain):
    profile, told = measured(tmp_path, *(changed(one, bordered) for one in pair))
    assert "left out" not in told
    assert SIDE - 16 <= profile.patch_px < SIDE
    np.testing.assert_array_equal(profile.angles_deg, plain[0].angles_deg)
    ratio = profile.noise_variance() / plain[0].noise_variance()
    assert np.abs(10 * np.log10(ratio)).mean() < 0.15
    assert np.abs(10 * np.log10(ratio)).max() < 0.5


def test_what_is_left_out_is_told_as_it_is(tmp_path, pair):
    def mostly_empty(half):
        half = half.copy()
        half[3, :, : SIDE - 20] = 5.0
        half[4] = 5.0
        return half

    profile, told = measured(tmp_path, changed(pair[0], mostly_empty))
    assert "2 images of series 1 hold no piece of 128 x 128 pixels without even borders and were left out" in told
    assert profile.angles_deg.size == len(pair[0].angles) - 2


def test_the_largest_square_without_borders():
    valid = np.ones((100, 140), dtype=bool)
    assert clear_square(valid) == ((0, 0), 100)
    valid[40:43, 50:53] = False  # counts of few levels, no border
    assert clear_square(valid)[1] == 100
    valid[:30] = valid[:, :15] = False
    assert clear_square(valid) == ((30, 15), 70)
    assert clear_square(np.zeros((60, 60), dtype=bool))[1] == 0
    rows, columns = np.mgrid[:1000, :1200]
    corner = rows + columns > 600
    (y, x), edge = clear_square(corner)
    assert corner[y : y + edge, x : x + edge].mean() > 0.98
    assert edge >= 680  # of 700 at least
    patches = usable(corner, 600)
    assert patches
    assert all(corner[y : y + 600, x : x + 600].mean() >= 0.98 for y, x in patches)
