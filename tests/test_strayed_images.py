"""Images that lie elsewhere than the others put them are told of, by number and by how far; right ones never."""

import json
import re

import numpy as np
import pytest
from scipy.ndimage import shift
from tiny_series import made, write_series

import cryolithe
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.preparation import Preparation, prepare_stack
from cryolithe.reconstruction.stack_notes import stack_notes
from cryolithe.simulation import Specimen, add_white_noise, project
from cryolithe.tilts import TiltSeries

SIZE, DEPTH = 96, 32


@pytest.fixture(scope="module", params=[(1, 0), (3, -10)])
def series(request):
    seed, snr_db = request.param
    found = cryolithe.simulate(seed=seed, snr_db=snr_db, shape=(DEPTH, SIZE, SIZE))
    return found.tilts, np.array(found.angles_deg)


def notes(images, angles, numbers=None):
    geometry = TiltGeometry(tuple(map(float, angles)), images.shape[1:])
    stack = prepare_stack(TiltSeries(np.ascontiguousarray(images), geometry), Preparation(), None)
    return stack_notes(stack, numbers or range(1, len(images) + 1), DEPTH)


def moved(images, moves):
    """Images whose content is moved by pixels (y, x)."""
    made = images.copy()
    for place, by in moves.items():
        made[place] = shift(images[place], by, order=1, mode="mirror")
    return made


def told(lines):
    (line,) = lines
    return {int(n): (int(x), int(y)) for n, x, y in re.findall(r"(\d+) \(x ([+-]\d+), y ([+-]\d+)\)", line)}


def test_right_images_never_warn_in_whatever_order_and_polarity(series):
    images, angles = series
    for order in (np.arange(len(angles)), np.argsort(np.abs(angles), kind="stable")):
        assert not notes(images[order], angles[order])
    assert not notes(-images, angles)
    assert not notes(moved(images, dict.fromkeys(range(0, 41, 3), (0.5, -0.5))), angles)


def test_moved_images_are_told_by_number_and_move(series):
    images, angles = series
    moves = {6: (5.0, -6.0), 19: (-7.0, 0.0), 30: (0.0, 8.0)}
    numbers = list(range(101, 142))
    found = told(notes(moved(images, moves), angles, numbers))
    assert set(found) == {101 + place for place in moves}
    for place, (y, x) in moves.items():
        assert found[101 + place] == pytest.approx((x, y), abs=1.1)


def test_what_all_images_beyond_a_tilt_move_by_is_told(series):
    images, angles = series
    (line,) = notes(moved(images, dict.fromkeys(range(26, 41), (-6.0, 5.0))), angles)
    low, high, x, y = map(
        float, re.search(r"from the image at (\S+)° to that at (\S+)° .*x (\S+), y (\S+)\)", line).groups()
    )
    assert (low, high) == (angles[25], angles[26])
    assert (x, y) == pytest.approx((5, -6), abs=1.1)


def test_images_that_say_nothing_are_not_told_of():
    """Walls look the same a little farther on, lattices a period farther on, and noise everywhere."""
    angles = np.linspace(-60, 60, 41)
    z, y, x = np.meshgrid(*(np.arange(n) - n / 2 for n in (DEPTH, SIZE, SIZE)), indexing="ij")
    wall = np.exp(-((x - 0.2 * y) ** 2) / 8)
    lattice = np.exp(2 * (np.cos(2 * np.pi * x / 8) + np.cos(2 * np.pi * y / 8) + np.cos(2 * np.pi * z / 9)) - 6)
    body = 1 / (1 + np.exp(np.sqrt((2.5 * z) ** 2 + y**2 + x**2) - 30))
    rng = np.random.default_rng(0)
    for density in (wall, lattice, body):
        images = add_white_noise(project(Specimen(density.astype(np.float32), 10.0), tuple(angles)), -3, rng)
        assert not notes(images, angles)
    assert not notes(rng.normal(size=(41, SIZE, SIZE)).astype(np.float32), angles)


def test_the_command_tells_writes_it_down_and_what_it_advises_helps(series, tmp_path):
    images, angles = series
    stack, table = write_series(tmp_path, moved(images, {8: (6.0, 6.0)}), angles)
    arguments = [stack, table, "--method", "fbp", "--thickness", str(DEPTH), "-o"]
    output = made(*arguments, tmp_path / "v.mrc")
    (line,) = [line for line in output.stderr.splitlines() if "from where the other images put it" in line]
    assert "--exclude 9)" in line
    record = json.loads((tmp_path / "v.json").read_text())
    assert [text for text in record["warnings"] if "from where the other images" in text]
    assert "other images put" not in made(*arguments, tmp_path / "w.mrc", "--exclude", "9").stderr
