"""Voxels of another size than any that a bundled model learned from are told of; others are not."""

from __future__ import annotations

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
