"""A volume that is in the way: the message says what it was made with, so that nobody takes it for another."""

from __future__ import annotations

import re

import pytest
from tiny_series import SHAPE, bead_images, made, noise, run, write_series

FBP = ("--method", "fbp", "--thickness", 10)
IN_THE_WAY = "ts_rec.mrc exists; give --overwrite to replace it or another name with -o"


def refusal(*words):
    result = run(*words)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    return result.stderr.strip().partition(IN_THE_WAY)[2]


@pytest.fixture
def series(tmp_path):
    stack, angles = write_series(tmp_path)
    made(stack, angles, *FBP)
    return stack, angles


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), " (it is of these inputs and settings)"),
        (("--thickness", 12), " (it was made with --thickness 10, now 12)"),
        (("--filter", "hamming"), " (it was made with --filter cosine, now hamming)"),
        (("--bin", 2), " (it was made with --bin not given, now 2)"),
        (("--max-memory", 2), " (it is of these inputs and settings)"),
    ],
)
def test_settings_that_differ_are_named(words, told, series):
    assert refusal(*series, *FBP, *words) == told


def test_images_or_angles_that_changed_are_named(series, tmp_path):
    write_series(tmp_path, images=bead_images(SHAPE, (0, 1, 2)))
    assert refusal(*series, *FBP) == " (it was made with other contents of tilts)"
    write_series(tmp_path, images=noise())
    angles = series[1]
    angles.write_text("".join(f"{float(line) + 0.5}\n" for line in angles.read_text().split()))
    assert "other contents of angles" in refusal(*series, *FBP)


@pytest.mark.parametrize("number", ["Infinity", "1e999", str(10**400), "null"])
def test_a_record_with_numbers_that_are_none_tells_nothing(series, tmp_path, number):
    record = tmp_path / "ts_rec.json"
    record.write_text(re.sub(r'("shape_zyx": \[\s*)\d+', rf"\g<1>{number}", record.read_text()))
    assert number in record.read_text()
    assert "inputs and settings" not in refusal(*series, *FBP)


def test_a_volume_without_its_record_is_told(series, tmp_path):
    (tmp_path / "ts_rec.json").unlink()
    assert refusal(*series, *FBP) == " (there is no record ts_rec.json that tells what it was made of)"


def test_a_volume_that_was_cut_off_is_told(series, tmp_path):
    volume = tmp_path / "ts_rec.mrc"
    volume.write_bytes(volume.read_bytes()[:-100])
    told = refusal(*series, *FBP)
    assert told.startswith(" (it is not as its record tells: ")
    assert "ts_rec.mrc is truncated" in told


@pytest.mark.parametrize("lost", ["0/0/0/0", "1/0/0/0"])
def test_a_volume_that_lost_a_chunk_of_any_level_is_not_done(lost, tmp_path):
    pytest.importorskip("zarr")
    write_series(tmp_path, images=noise((40, 70)))
    words = (tmp_path, *FBP, "--format", "ome-zarr")
    made(*words)
    assert "1 already done" in made(*words).stderr
    volume = tmp_path / "ts_rec.zarr"
    (volume / lost).unlink()
    result = run(*words)
    assert result.exit_code == 1
    assert "it is not as its record tells: chunks are missing" in result.stdout
    made(*words, "--overwrite")
    assert "1 already done" in made(*words).stderr
