"""Series unlike any that a bundled model learned from, by voxels, tilts or their range, are told of; others are not."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_series import made, write_model, write_series


def warned(*words):
    return [line for line in made(*words, "--dry-run").stderr.splitlines() if "learned from voxels" in line]


@pytest.mark.parametrize(
    ("pixel_angstrom", "more", "advice"),
    [
        (2.0, (), "give --bin 4;"),
        (4.5, (), "give --bin 2;"),
        (1.0, ("--bin", 2), "give --bin 8;"),
        (20.0, (), "bin less, or compare with --method fbp;"),
        (5.0, (), ""),
        (2.0, ("--bin", 4), ""),
        (16.0, (), ""),
        (2.0, ("--pixel-size", 10), ""),
        (2.0, ("--method", "fbp"), ""),
    ],
)
def test_a_bundled_model_says_where_voxels_are_beyond_what_it_learned_from(pixel_angstrom, more, advice, tmp_path):
    stack, angles = write_series(tmp_path, pixel_size=pixel_angstrom)
    lines = warned(stack, angles, "--thickness", 12, *more)
    assert [advice in line for line in lines] == ([True] if advice else [])


def test_of_another_model_nobody_knows_it(tmp_path):
    stack, angles = write_series(tmp_path, pixel_size=2.0)
    model = write_model(tmp_path / "draft.safetensors")  # a bundled one's name alone does not make it one
    assert not warned(stack, angles, "--thickness", 12, "--model", model)


@pytest.mark.parametrize(("more", "told"), [((), True), (("--pixel-size", 10), False), (("--method", "fbp"), False)])
def test_a_bundled_model_says_that_nobody_knows_the_size_of_its_voxels(more, told, tmp_path):
    stack, angles = write_series(tmp_path, pixel_size=0.0)
    output = made(stack, angles, "--thickness", 12, *more, "--dry-run").output
    assert ("the pixel size is not known, so nobody has checked that voxels are of 5 to 16 Å" in output) == told


def told_of_tilts(folder, angles, *more):
    images = np.random.default_rng(0).standard_normal((len(angles), 24, 24)).astype(np.float32)
    words = (*write_series(folder, images, angles), "--thickness", 12, *more, "--dry-run")
    return [line for line in made(*words).stderr.splitlines() if "learned from series of" in line]


@pytest.mark.parametrize(
    ("angles", "more", "told"),
    [
        (np.linspace(-60, 60, 7), (), "of 7, "),
        (np.linspace(-60, 60, 9), ("--model", "fast"), "of 9, "),
        (np.repeat(np.linspace(-60, 60, 7), 2), (), "of 7, "),
        (np.linspace(-60, 60, 13), ("--exclude", "2,4,6,8,10"), "of 8, "),
        (np.linspace(-60, 60, 7), ("--method", "fbp"), ""),
        (np.linspace(-50, 50, 11), (), ""),
        (np.arange(-40, 41, 2), (), ""),
        (np.arange(-60, 61, 3), (), ""),
        (np.arange(-60, 61, 4), (), ""),
    ],
)
def test_a_bundled_model_says_where_tilts_are_too_few_for_it(angles, more, told, tmp_path):
    lines = told_of_tilts(tmp_path, angles, *more)
    assert [told in line and line.startswith("Note on ts.mrc: ") for line in lines] == ([True] if told else [])


@pytest.mark.parametrize(
    ("angles", "more", "told"),
    [
        (np.arange(-8.5, 9.0, 1.0), (), "of 53° or more; of 17°, "),
        (np.arange(-24, 25, 2), (), "of 53° or more; of 48°, "),
        (np.arange(-24, 25, 2), ("--method", "fbp"), ""),
        (np.arange(-60, 61, 2), ("--exclude", "14-61"), "of 53° or more; of 24°, "),
        (np.arange(-27, 28, 2), (), ""),
        (np.arange(-40, 41, 2), (), ""),
        (np.arange(0, 61, 2), (), "to either side, by 5° at least; of 0° to 60°, "),
        (np.arange(-70, 5, 3), (), "to either side, by 5° at least; of -70° to 2°, "),
        (np.arange(-5, 61, 2), (), ""),
        (np.arange(-90, 90, 3), (), ""),
    ],
)
def test_a_bundled_model_says_where_it_learned_from_other_ranges_of_tilts(angles, more, told, tmp_path):
    images = np.random.default_rng(0).standard_normal((len(angles), 24, 24)).astype(np.float32)
    words = (*write_series(tmp_path, images, angles), "--thickness", 12, *more, "--dry-run")
    lines = [
        line for line in made(*words).stderr.splitlines() if "learned from ranges" in line or "either side" in line
    ]
    assert [told in line and line.startswith("Note on ts.mrc: ") for line in lines] == ([True] if told else [])


def test_of_another_model_nobody_knows_how_many_tilts_it_takes(tmp_path):
    model = write_model(tmp_path / "fast.safetensors")
    assert not told_of_tilts(tmp_path, np.linspace(-60, 60, 7), "--model", model)
    words = (*write_series(tmp_path, angles=np.linspace(0, 40, 11), pixel_size=0.0), "--thickness", 12)
    assert "learned from" not in made(*words, "--model", model, "--dry-run").output
