"""A constant in all values of a wide type changes nothing, though float32 has no digits left for the rest beside it."""

from __future__ import annotations

import warnings

import h5py
import numpy as np
import pytest
import torch
from tiny_series import ANGLES, bead_images

import cryolithe
from cryolithe.arrays.narrow import common_value, narrowed
from cryolithe.formats.pairs import Pair, open_pair, write_pair

FAR = [("float64", 1e7), ("float64", -1e9), ("longdouble", 1e9), ("int64", 2**40), ("uint32", 3_000_000_000)]


def whole_numbers(shape, seed=0):
    return np.rint(1000 * np.random.default_rng(seed).standard_normal(shape)).astype(np.int64)


@pytest.mark.parametrize(("dtype", "constant"), FAR)
def test_a_constant_of_wide_types_is_taken_off(dtype, constant):
    values = whole_numbers((7, 9, 11))
    far = (values.astype(np.longdouble) + constant).astype(dtype)
    made = narrowed(far)
    assert made.dtype == np.float32
    assert abs(common_value(far) - constant) < 200
    assert np.array_equal(made - made.ravel()[0], (values - values.ravel()[0]).astype(np.float32))
    assert np.array_equal(narrowed(far[2], common_value(far)), made[2])


@pytest.mark.parametrize("dtype", ["float32", ">f4", "float16", "int16", "uint16", "int8", "uint8"])
def test_types_that_float32_holds_are_left_alone(dtype):
    values = np.full((3, 4, 5), 100).astype(dtype)
    values[0, 0, 0] = 101
    assert narrowed(values) is values


@pytest.mark.parametrize("values", [np.arange(60.0), np.full(60, 1e9), 500 + np.arange(60.0), np.full(60, np.nan)])
def test_what_float32_keeps_is_left_alone_in_wide_types(values):
    values = values.reshape(3, 4, 5)
    assert narrowed(values) is values


def test_blank_and_broken_images_do_not_hide_a_constant():
    values = whole_numbers((9, 6, 6)) + 1e9
    values[0], values[4], values[8, 0, 0] = 0, 1e9, np.inf
    assert abs(common_value(values) - 1e9) < 1000


@pytest.mark.parametrize(("dtype", "constant"), FAR)
def test_volumes_of_images_with_a_constant_are_those_without(dtype, constant):
    images = np.rint(1000 * bead_images((40, 48), (3, 4, 5))).astype(np.int64) + whole_numbers((len(ANGLES), 40, 48))
    expected = cryolithe.fbp(images.astype(np.float32), ANGLES, 5.0, thickness=16).data
    far = (images.astype(np.longdouble) + constant).astype(dtype)
    found = cryolithe.fbp(far, ANGLES, 5.0, thickness=16).data
    assert np.abs(found - expected).max() < 1e-4 * expected.std()


def test_fsc_of_a_volume_with_a_constant_has_no_doubts():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((32, 32, 32))
    a[8:20, 9:25, 5:17] += 2
    b = a + rng.standard_normal(a.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected, found = cryolithe.fsc(a, b), cryolithe.fsc(a, b + 1e9)
    assert found.warnings == expected.warnings == ()
    np.testing.assert_allclose(found.total, expected.total, atol=1e-6)


def test_an_evaluation_takes_images_and_a_reference_with_a_constant():
    images = bead_images((40, 48), (3, 4, 5)).astype(np.float64)
    images += 0.1 * np.random.default_rng(0).standard_normal(images.shape)
    volume = cryolithe.fbp(images, ANGLES, 5.0, thickness=16)

    def scores(constant):
        made = cryolithe.evaluate(
            volume, reference=volume.data.astype(np.float64) + constant, tilts=images + constant, angles_deg=ANGLES
        )
        return made.reprojection.mean_correlation, made.reference.similarity.correlation

    assert scores(1e9) == pytest.approx(scores(0.0), abs=1e-5)


def test_pairs_of_wide_types_lose_a_constant(tmp_path):
    images, truth = whole_numbers((5, 20, 12)), whole_numbers((6, 20, 12), 1)
    near = Pair(images.astype(np.float32), truth.astype(np.float32), (-40.0, -20.0, 0.0, 20.0, 40.0), 10.0)
    labels = (np.full(truth.shape, 10**6) + (truth > 0)).astype(np.int64)
    write_pair(tmp_path / "near.h5", near)
    with h5py.File(tmp_path / "near.h5") as file, h5py.File(tmp_path / "far.h5", "w") as far:
        far.attrs.update(file.attrs)
        far["images"], far["truth"] = images + 1e9, truth + 2**40
        far["angles_deg"], far["labels"] = near.angles_deg, labels
    with open_pair(tmp_path / "far.h5") as pair:
        for read, values in ((pair.images, images), (pair.truth, truth)):
            found = np.asarray(read, dtype=np.float32)
            constant = found.ravel()[0] - values.ravel()[0]
            assert np.array_equal(found, values + constant)
            assert np.array_equal(read[:, 3:7], found[:, 3:7])
            assert np.array_equal(read[2], found[2])
        assert np.array_equal(pair.extras["labels"][()], labels)


def test_what_denoise_takes_off_is_told():
    rng = np.random.default_rng(0)
    volume = np.zeros((32, 32, 32))
    volume[8:20, 9:25, 5:17] = 3
    halves = [volume + rng.standard_normal(volume.shape) for _ in range(2)]
    found = []
    for constant in (0.0, 1e9):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cryolithe.CryoLitheWarning)
            given = [half + constant for half in halves]
            found.append(cryolithe.denoise(halves=given, method="n2n", model="general", device="cpu"))
    assert [sum("is taken off all voxels of half" in note for note in one.notes) for one in found] == [0, 2]
    assert np.abs(found[1].data - found[0].data).max() < 0.03  # of a network in bfloat16


def test_sparse_tensors_are_refused_in_one_line():
    with pytest.raises(cryolithe.CryoLitheError, match=r"layout torch.sparse_coo; give tensor.to_dense\(\)$"):
        cryolithe.fbp(torch.ones(3, 8, 8).to_sparse(), (-10, 0, 10))
