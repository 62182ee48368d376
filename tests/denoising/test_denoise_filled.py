"""What is one value in a volume, as a border or an empty plane, is that value when it is denoised."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from command import good
from plain_mrc import new_mrc
from tiny_series import voxels

from cryolithe.artefacts.faces import filled_outside

SHAPE = (24, 40, 44)


def noise(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def bands(volume, value=0.0):
    """A border as a program leaves it: planes at both ends and in the middle, rows, columns."""
    volume[:3], volume[-2:], volume[11] = value, value, value
    volume[:, :9], volume[:, :, -5:] = value, value
    return volume


def disc(volume, value=0.0):
    """What surrounds a round mask."""
    y, x = np.mgrid[: volume.shape[-2], : volume.shape[-1]]
    outside = (y - 19.5) ** 2 + (x - 21.5) ** 2 > 17.0**2
    volume[..., outside] = value
    return volume


def wedge(volume, value=0.0):
    """What a turn about x leaves empty: in each plane other rows."""
    for z, plane in enumerate(volume):
        plane[: z // 2] = value
    return volume


FILLS = {"bands": bands, "a round mask": disc, "a wedge": wedge}


def saved(path, values, stack=False):
    with warnings.catch_warnings(), new_mrc(path) as file:
        warnings.simplefilter("ignore", RuntimeWarning)  # mrcfile's, about NaN
        file.set_data(values)
        file.voxel_size = 10.0
        if stack:
            file.set_image_stack()
        else:
            file.set_volume()
    return path


@pytest.mark.slow
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("value", [0.0, -1e4])
def test_what_is_filled_stays(tmp_path, fill, value):
    clean = noise()
    filled = FILLS[fill](clean.copy(), value)
    where = filled != clean
    path = saved(tmp_path / "v.mrc", filled)
    good("denoise", path, "--method", "n2n", "--is-volume", "-o", tmp_path / "d.mrc")
    made = voxels(tmp_path / "d.mrc")
    assert (made[where] == np.float32(value)).all()
    assert (made[~where] != filled[~where]).mean() > 0.99


@pytest.mark.slow
def test_what_is_filled_in_both_halves_stays(tmp_path):
    paths = [saved(tmp_path / f"h_{seed}.mrc", bands(noise(seed=seed), 2.0)) for seed in (1, 2)]
    options = ("--method", "n2n", "--model", "general", "--is-volume", "-o", tmp_path / "d.mrc")
    good("denoise", "--half1", paths[0], "--half2", paths[1], *options)
    made = voxels(tmp_path / "d.mrc")
    assert (made[bands(np.zeros(SHAPE), 1.0) == 1] == 2.0).all()


@pytest.mark.slow
@pytest.mark.parametrize("fill", FILLS)
def test_samba_leaves_what_is_filled(tmp_path, fill):
    clean = noise()
    filled = FILLS[fill](clean.copy(), 1.0)
    path = saved(tmp_path / "v.mrc", filled)
    few = ("--train-minutes", 0.001, "--size", "small", "--crop", 64, "--batch", 1)
    good("denoise", path, "--is-volume", *few, "-o", tmp_path / "d.mrc")
    made = voxels(tmp_path / "d.mrc")
    assert (made[filled != clean] == 1.0).all()
    assert (made[filled == clean] != filled[filled == clean]).mean() > 0.99


@pytest.mark.slow
def test_images_keep_what_is_filled_however_wide(tmp_path):
    images = noise((6, 64, 72))
    images[:, :, 25:] = 4.0  # more than what is replaced before a reconstruction
    path = saved(tmp_path / "ts.mrc", images, stack=True)
    good("denoise", "--images", path, "-o", tmp_path / "d.mrc")
    made = voxels(tmp_path / "d.mrc")
    assert (made[:, :, 25:] == 4.0).all()
    assert (made[:, :, :25] != images[:, :, :25]).mean() > 0.99


@pytest.mark.slow
def test_what_is_not_finite_is_told_for_what_it_is_taken(tmp_path):
    volume = noise() + 100
    volume[12, 20, 20:24] = np.nan
    path = saved(tmp_path / "v.mrc", volume)
    told = good("denoise", path, "--method", "n2n", "--is-volume", "--fix-nonfinite", "-o", tmp_path / "d.mrc")
    assert "4 voxels that are not finite are taken for the median" in " ".join((told.stdout + told.stderr).split())


@pytest.mark.parametrize("kind", ["noise", "counts", "few levels", "a filled middle"])
def test_data_are_no_filling(kind):
    rng = np.random.default_rng(0)
    plane = {
        "noise": lambda: noise((40, 44)),
        "counts": lambda: rng.poisson(0.05, (80, 90)).astype(np.float32),
        "few levels": lambda: np.round(noise((40, 44)) / 2).astype(np.int8),
        "a filled middle": lambda: noise((40, 44)),
    }[kind]()
    if kind == "a filled middle":
        plane[10:30, 10:30] = 0  # a saturated bead is data
    assert not filled_outside(plane).any()


def test_a_plane_of_one_value_is_all_filled():
    assert filled_outside(np.full((20, 17), 3.0)).all()
