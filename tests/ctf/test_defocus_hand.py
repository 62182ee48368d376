"""The hand of the defocus gradient, found from images through the real command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_ctf_files import ARETOMO, columns
from tiny_series import made, refused, voxels, write_series

from cryolithe.optics.transfer import Optics, TiltedView, form_image
from cryolithe.reconstruction.evidence.hand_evidence import (
    SURE,
    HandEvidence,
    asked_images,
    joined,
    paired,
    tile_px,
    votes_of,
)  # fmt: skip
from cryolithe.simulation.imaging import image_series
from cryolithe.simulation.imaging_recipe import ImagingRecipe, OpticsRecipe, SchemeRecipe

ANGLES = tuple(float(a) for a in range(-60, 61, 5))
SHAPE, PIXEL, DEFOCUS = (160, 320), 5.0, 3.0
FBP = ("--method", "fbp", "--thickness", 8, "--device", "cpu", "--ctf", "flip")


def cell(seed=0):
    """A crowd of balls of many sizes, ``(z, y, x)``."""
    rng = np.random.default_rng(seed)
    density = np.zeros((24, SHAPE[0], SHAPE[1] + 64), dtype=np.float32)
    for *centre, radius in zip(*(rng.uniform(0, n, 900) for n in density.shape), rng.uniform(1.5, 5, 900), strict=True):
        box = tuple(slice(max(0, int(c) - 6), int(c) + 7) for c in centre)
        grids = np.ogrid[tuple(slice(s.start, min(s.stop, n)) for s, n in zip(box, density.shape, strict=True))]
        away = sum((grid - c) ** 2 for grid, c in zip(grids, centre, strict=True))
        density[box][away < radius**2] = 1
    return density


def simulated(hand, ctf="left", seed=0):
    """Images of a cell with counting noise and their angles."""
    recipe = ImagingRecipe(
        ctf=ctf,
        exposure_weighting=False,
        specimen_contrast=(10.0, 10.0),
        scheme=SchemeRecipe(kinds=("linear",), step_deg=(5.0, 5.0)),
        optics=OpticsRecipe(defocus_um=(DEFOCUS, DEFOCUS), defocus_spread_um=(0.0, 0.0), handedness=hand),
    )
    return image_series(cell(), slice(32, 32 + SHAPE[1]), PIXEL, recipe, np.random.default_rng(seed)).images


@pytest.fixture(scope="module")
def series():
    """Images with either hand, and without CTF."""
    return {1: simulated(1), -1: simulated(-1), None: simulated(1, "none")}


def written(folder, images, told=None):
    """A stack with a defocus table of AreTomo3 that tells a hand, or none; the command's words."""
    write_series(folder, images, ANGLES, pixel_size=PIXEL)
    rows = [(DEFOCUS, DEFOCUS, 0.0)] * len(ANGLES)
    text = columns(ARETOMO, f" {-told}", rows=rows) if told else columns(ARETOMO, rows=rows)
    (folder / "ts_CTF.txt").write_text(text)
    return (folder / "ts.mrc", folder / "ts.tlt", *FBP, "-o")


def hand_of(folder, name):
    return json.loads((folder / f"{name}.json").read_text())["method"]["corrections"]["ctf"]


@pytest.mark.slow
@pytest.mark.parametrize("hand", [1, -1])
def test_the_hand_of_simulated_cells_is_found(tmp_path, series, hand):
    words = written(tmp_path, series[hand])
    result = made(*words, tmp_path / "found.mrc")
    assert f"Defocus hand: {hand:+d}, found from the images" in result.stderr
    told = hand_of(tmp_path, "found")
    assert told["defocus_hand"] == told["hand_by_images"]["hand"] == hand
    made(*words, tmp_path / "given.mrc", "--defocus-hand", hand)
    assert np.array_equal(voxels(tmp_path / "given.mrc"), voxels(tmp_path / "found.mrc"))
    wrong = made(*words, tmp_path / "wrong.mrc", "--defocus-hand", -hand).stderr
    assert f"Warning: defocus hand {-hand:+d} (--defocus-hand), but the images say {hand:+d}" in wrong
    assert hand_of(tmp_path, "wrong")["defocus_hand"] == -hand
    assert not np.array_equal(voxels(tmp_path / "wrong.mrc"), voxels(tmp_path / "found.mrc"))


@pytest.mark.slow
def test_images_are_asked_before_a_file_with_auto_only(tmp_path, series):
    words = written(tmp_path, series[1], told=-1)
    assert "Warning: defocus hand -1 (ts_CTF.txt), but the images say +1" in made(*words, tmp_path / "a.mrc").stderr
    assert hand_of(tmp_path, "a")["defocus_hand"] == -1
    assert (
        "Defocus hand: +1, found from the images" in made(*words, tmp_path / "b.mrc", "--defocus-hand", "auto").stderr
    )
    assert hand_of(tmp_path, "b")["defocus_hand"] == 1


@pytest.mark.slow
def test_images_without_a_gradient_do_not_tell(tmp_path, series):
    words = written(tmp_path, series[None])
    result = made(*words, tmp_path / "a.mrc")
    assert "the images do not tell the hand of the defocus gradient" in result.stderr
    assert "+1 is taken, as IMOD has it; --defocus-hand 1 or -1 says it" in result.stderr
    words = written(tmp_path, series[None], told=-1)
    assert "Defocus hand: -1 (ts_CTF.txt); the images do not tell it" in made(*words, tmp_path / "b.mrc").stderr
    assert "-1 is taken, as ts_CTF.txt says" in made(*words, tmp_path / "c.mrc", "--defocus-hand", "auto").stderr


def test_what_is_no_hand_is_refused(tmp_path):
    words = written(tmp_path, np.zeros((len(ANGLES), 40, 48), dtype=np.float32))
    for wrong in ("0", "2", "left", "1.0"):
        refused(tmp_path, (*words, tmp_path / "a.mrc", "--defocus-hand", wrong), "expected 1 or -1, or auto", wrong)


def noise_votes(hand=None, contrast=(1.0, 1.0), off_um=0.0, angles=ANGLES):
    """Votes on white noise that was imaged with a hand, or not at all; left and right of different contrast."""
    rng, votes = np.random.default_rng(3), {}
    for number in asked_images(angles):
        image = rng.standard_normal(SHAPE).astype(np.float32)
        image[:, : SHAPE[1] // 2] *= contrast[0] / contrast[1]
        if hand is not None:
            image = form_image(image, TiltedView(Optics(defocus_um=DEFOCUS + off_um), angles[number], PIXEL, hand))
        views = tuple(TiltedView(Optics(defocus_um=DEFOCUS), angles[number], PIXEL, h) for h in (1, -1))
        votes[angles[number]] = votes_of(image, views, tile_px(SHAPE, views))
    return paired(votes)


@pytest.mark.parametrize("hand", [1, -1])
@pytest.mark.parametrize("off_um", [0.0, 0.15])
def test_the_hand_is_found_where_the_told_defocus_is_off(hand, off_um):
    assert noise_votes(hand, off_um=off_um).hand == hand


def test_a_contrast_that_differs_between_left_and_right_is_no_gradient():
    assert noise_votes(contrast=(3.0, 1.0)).hand is None
    assert noise_votes(1, contrast=(3.0, 1.0)).hand == 1
    assert noise_votes(-1, contrast=(1.0, 3.0), angles=tuple(range(0, 61, 3))).hand == -1


def test_untilted_and_tiny_images_have_no_vote():
    assert asked_images((-10.0, 0.0, 10.0)) == ()
    view = TiltedView(Optics(defocus_um=DEFOCUS), 60.0, PIXEL)
    assert tile_px((16, 16), (view, view)) is tile_px(SHAPE, ()) is None
    assert votes_of(np.ones(SHAPE, dtype=np.float32), (view, view), tile_px(SHAPE, (view, view))) == ()
    assert HandEvidence().score == 0.0
    assert HandEvidence().hand is None


def evidence(votes, images, ring=1.0):
    """Votes of a row of tiles of one image."""
    return HandEvidence(((((*((vote, ring) for vote in votes),),),),), images)


def test_votes_that_repeat_others_do_not_count_again():
    """Tiles overlap, and neighbouring tilts show the same matter."""
    rng, scores = np.random.default_rng(5), {"independent": [], "matter": [], "overlap": []}
    for _ in range(300):
        noise = rng.standard_normal((16, 6, 3))
        matter = rng.standard_normal((6, 3)) + noise
        overlap = noise + np.roll(noise, 1, axis=1)
        for name, votes in (("independent", noise), ("matter", matter), ("overlap", overlap)):
            scores[name].append(HandEvidence((np.stack([votes, np.ones_like(votes)], -1).tolist(),), 32).score)
    for name, found in scores.items():
        assert np.std(found) < 1.5, name
    assert np.std(scores["independent"]) > 0.85


def test_images_of_unlike_defocus_have_as_many_tiles():
    views = {angle: TiltedView(Optics(defocus_um=8.0 + angle / 20), angle, PIXEL) for angle in ANGLES}
    tile = tile_px(SHAPE, tuple(views.values()))
    rng = np.random.default_rng(1)
    votes = {}
    for angle in (ANGLES[number] for number in asked_images(ANGLES)):
        votes[angle] = votes_of(rng.standard_normal(SHAPE).astype(np.float32), (views[angle],) * 2, tile)
    assert paired(votes).images == len(votes)


def test_halves_tell_together():
    """Votes of halves of the frames are added one by one."""
    one, other = (evidence((a, b, c), 2) for a, b, c in ((1.0, -2.0, 3.0), (2.0, 2.0, 2.0)))
    assert joined((one, other)) == evidence((3.0, 0.0, 5.0), 2, 2.0)
    lone = evidence((1.0,), 1)
    assert joined((one, lone)).parts == (*one.parts, *lone.parts)
    assert joined((one, lone)).images == 2
    same = evidence((1.0,) * 17, 4)
    assert same.score == pytest.approx(17**0.5)
    assert evidence((-1.0,) * 17, 4).hand == -1
    assert SURE < 17**0.5
