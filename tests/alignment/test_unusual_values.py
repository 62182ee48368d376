"""Angles and pixel sizes that no tilt series has, and pixel sizes that contradict the header, are told."""

from __future__ import annotations

import pytest
from command import call
from tiny_series import ANGLES, made, write_series

FBP = ("--method", "fbp", "--thickness", 12, "--device", "cpu", "--dry-run")


def told(folder, *more, angles=ANGLES):
    return made(*write_series(folder, angles=angles), *FBP, *more).stderr


@pytest.mark.parametrize(("factor", "warned"), [(1.0, False), (0.5, False), (0.1, True)])
def test_angles_divided_by_ten_are_warned_of(tmp_path, factor, warned):
    text = told(tmp_path, angles=[factor * angle for angle in ANGLES])
    assert ("are they in degrees?" in text) is warned


@pytest.mark.parametrize(("size", "warned"), [(0.05, True), (0.5, False), (13.7, False), (500, True)])
def test_a_pixel_size_in_another_unit_is_warned_of(tmp_path, size, warned):
    assert ("is it in another unit?" in told(tmp_path, "--pixel-size", size)) is warned


@pytest.mark.parametrize(("size", "line"), [(10, True), (2.5, True), (5, False), (5.1, False)])
def test_a_pixel_size_that_contradicts_the_header_is_told(tmp_path, size, line):
    text = " ".join(told(tmp_path, "--pixel-size", size).split())
    assert (f"a pixel size of {size} Å is taken, but the header of ts.mrc says 5 Å" in text) is line


@pytest.mark.parametrize("words", [("info",), ("reconstruct",), ("denoise", "--half1"), ("simulate", "-o")])
def test_an_empty_word_is_not_the_current_folder(tmp_path, monkeypatch, words):
    """It comes of a variable of the shell that is not set, and would be all that lies here."""
    monkeypatch.chdir(tmp_path)
    write_series(tmp_path)
    result = call(*words, "")
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"Error: empty text after 'cryolithe {' '.join(words)}': expected a value; is a variable unset?\n"
    )
