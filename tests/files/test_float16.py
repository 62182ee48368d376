"""Volumes in 16-bit floating point: as good as their digits, and refused where these are too few."""

import numpy as np
import pytest
from tiny_series import BEGUN, SHAPE, made, noise, refused, run, voxels, write_series

from cryolithe.errors import OutputError
from cryolithe.formats.stacks.mrc_header import VolumeStatistics
from cryolithe.formats.volumes.float16 import rounded_away
from cryolithe.reconstruction.slabwise.slab_folder import Slab
from cryolithe.reconstruction.slabwise.storing import Fineness

FBP = ("--method", "fbp", "--thickness", 16)


def rounding_of(values):
    """Rounding errors in parts of the deviation."""
    exact = values.astype(np.float64)
    return np.std(exact.astype(np.float16) - exact) / np.std(exact)


@pytest.mark.parametrize("mean", [0.0, 1.0, -30.0])
@pytest.mark.parametrize("exponent", range(-10, 4))
def test_what_is_lost_is_what_8_bits_would_keep(mean, exponent):
    values = (np.random.default_rng(0).standard_normal(4000) + mean) * 10.0**exponent
    told = rounded_away(VolumeStatistics(values.min(), values.max(), values.mean(), values.std()))
    assert bool(told) == (rounding_of(values) > 10 / 127 / np.sqrt(12)), told


@pytest.mark.parametrize("statistics", [(0.0, 0.0), (1e-9, 0.0), (np.nan, np.nan), (0.0, np.inf)])
def test_of_a_constant_volume_or_one_that_is_no_number_nothing_is_told(statistics):
    assert rounded_away(VolumeStatistics(0.0, 0.0, *statistics)) == ""


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_volume_of_usual_values_is_that_of_float32(tmp_path, scale):
    series = write_series(tmp_path, noise() * np.float32(scale))
    result = made(*series, *FBP, "--dtype", "float16", "-o", tmp_path / "half.mrc")
    made(*series, *FBP, "-o", tmp_path / "full.mrc")
    assert "float16" not in result.stderr
    assert np.corrcoef(voxels(tmp_path / "half.mrc").ravel(), voxels(tmp_path / "full.mrc").ravel())[0, 1] > 0.9999


@pytest.mark.parametrize("scale", [1e-6, 1e-12])
def test_of_values_too_small_float16_is_refused_and_the_remedies_work(tmp_path, scale):
    series = write_series(tmp_path, noise() * np.float32(scale))
    command = (*series, *FBP, "-o", tmp_path / "out.mrc", "--dtype")
    refused(tmp_path, (*command, "float16"), "would lose this volume", "float32", "int8", before=BEGUN)
    made(*command, "float32")
    full = voxels(tmp_path / "out.mrc")
    made(*command, "int8", "--overwrite")
    assert np.corrcoef(voxels(tmp_path / "out.mrc").ravel(), full.ravel())[0, 1] > 0.999


def test_images_without_any_contrast_are_no_loss(tmp_path):
    result = run(*write_series(tmp_path, 0 * noise()), *FBP, "--dtype", "float16", "-o", tmp_path / "out.mrc")
    assert "lose" not in result.output
    assert "lost" not in result.output


def slab_of(deviation):
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32) * np.float32(deviation)


def test_an_empty_first_slab_is_no_loss_where_others_hold_matter():
    fine = Fineness("float16", [], sigma=1.0)
    fine.add(slab_of(1e-9))
    fine.add(slab_of(1.0))
    assert fine.warnings == ()


def test_what_shows_only_after_the_first_slab_is_told_at_the_end():
    for sigma, done in ((1.0, []), (1e-6, [Slab(0, 8, 64, VolumeStatistics(0.0, 0.0, 0.0, 0.0), None, 0)])):
        fine = Fineness("float16", done, sigma)
        fine.add(slab_of(1e-8))
        assert "lost much of this volume" in fine.warnings[0]
    with pytest.raises(OutputError, match="would lose"):
        Fineness("float16", [], 1e-6).add(slab_of(1e-8))


def test_other_types_keep_their_digits():
    for dtype in ("float32", "int8"):
        fine = Fineness(dtype, [], 1e-9)
        fine.add(slab_of(1e-12))
        assert fine.warnings == ()
