"""Images that lie elsewhere than the others put them are told of, by number and by how far; right ones never."""

import json
import re

import numpy as np
import pytest
from scipy.ndimage import shift
from tiny_series import made, write_series

import cryolithe
from cryolithe.formats.alignment.imod_command import parse_list
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.evidence.stack_notes import stack_notes
from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
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
    """Moves (x, y) of all images that the one line tells, by number."""
    (line,) = lines
    found = {}
    for numbers, x, y in re.findall(r"([\d,-]+) \(x ([+-]\d+), y ([+-]\d+)\)", line):
        found.update(dict.fromkeys(parse_list(numbers), (int(x), int(y))))
    return found


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


@pytest.mark.parametrize("places", [range(26, 41), range(14, 24), range(9)])
def test_images_that_lie_wrong_together_are_told_together(series, places):
    images, angles = series
    found = told(notes(moved(images, dict.fromkeys(places, (-6.0, 5.0))), angles))
    assert set(found) == {place + 1 for place in places}
    assert next(iter(found.values())) == pytest.approx((5, -6), abs=1.1)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_block_beside_missing_tilts_is_told_without_the_images_on_its_other_side(seed):
    found = cryolithe.simulate(seed=seed, snr_db=0, shape=(DEPTH, SIZE, SIZE))
    angles = np.array(found.angles_deg)
    images = moved(found.tilts, dict.fromkeys(range(14, 22), (-6.0, 5.0)))
    kept = np.setdiff1d(np.arange(41), [14, 15])
    found = told(notes(images[kept], angles[kept], (kept + 1).tolist()))
    assert set(found) == set(range(17, 23))


def test_a_slow_drift_is_no_jump(series):
    """Nobody could say which images lie right."""
    images, angles = series
    lies = {place: (0.0, 0.9 * (place - 28)) for place in range(29, 41)}
    assert not notes(moved(images, lies), angles)


def test_what_lies_off_the_middle_of_a_thin_volume_is_no_move():
    """Images of matter outside of the grid are projected elsewhere, and those at the ends of the range most."""
    angles = np.linspace(-60, 60, 41)
    found = cryolithe.simulate(seed=4, snr_db=60, shape=(DEPTH, SIZE, SIZE))
    for off_px in (12, 24):
        lies = {place: (0.0, off_px * np.sin(np.deg2rad(angle))) for place, angle in enumerate(angles)}
        images = moved(found.tilts, lies) + np.random.default_rng(0).normal(0, found.tilts.std(), found.tilts.shape)
        assert not notes(images.astype(np.float32), angles)


def test_the_neighbours_of_a_moved_image_are_not_accused(series):
    images, angles = series
    assert set(told(notes(moved(images, {1: (5.0, 3.0)}), angles))) == {2}


@pytest.mark.parametrize(("angle", "times"), [(60.0, 2), (-60.0, 4), (0.0, 4), (30.0, 9)])
def test_images_that_were_taken_again_are_right_ones(angle, times, tmp_path):
    """More of one angle than stand beside a gap: the images there have no angle but that one."""
    again = cryolithe.simulate(seed=2, snr_db=0, shape=(DEPTH, 64, 64))
    angles = np.r_[again.angles_deg, [angle] * times]
    place = int(np.argmin(np.abs(np.asarray(again.angles_deg) - angle)))
    images = np.concatenate([again.tilts, np.repeat(again.tilts[place][None], times, axis=0)])
    write_series(tmp_path, images, angles)
    shown = made(tmp_path / "ts.mrc", tmp_path / "ts.tlt", "--method", "fbp", "--thickness", DEPTH)
    assert "lie" not in shown.stderr.partition("Warning")[2]


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
    (line,) = notes(rng.normal(size=(41, SIZE, SIZE)).astype(np.float32), angles)
    assert "told from noise" in line


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
