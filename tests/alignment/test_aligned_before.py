"""A stack that is aligned already, given with an alignment, is told of; a raw one with its own alignment never."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy.ndimage import affine_transform
from tiny_series import made, write_series

import cryolithe

SIZE, WIDE = 128, 208
TOLD = "the stack seems to be aligned already"


@functools.cache
def wide(seed, snr_db):
    found = cryolithe.simulate(seed=seed, snr_db=snr_db, shape=(32, WIDE, WIDE))
    return np.asarray(found.tilts), np.array(found.angles_deg)


def middle(images):
    start = (WIDE - SIZE) // 2
    return images[:, start : start + SIZE, start : start + SIZE].copy()


def transforms(tilts, turned_deg, shift_px, seed=1):
    """Of each image, from raw to aligned pixels about the middle: matrix of (x, y), shifts."""
    c, s = np.cos(np.deg2rad(turned_deg)), np.sin(np.deg2rad(turned_deg))
    return np.array([[c, -s], [s, c]]), np.random.default_rng(seed).normal(0, shift_px, (tilts, 2))


def raw(images, matrix, shifts):
    """As a microscope took them: at p it shows what lies at A p + d of the aligned image."""
    centre = np.full(2, (WIDE - 1) / 2)
    upright = matrix[::-1, ::-1]  # of (y, x)
    return np.stack(
        [
            affine_transform(image, upright, centre - upright @ centre + by[::-1], order=3, mode="mirror")
            for image, by in zip(images, shifts, strict=True)
        ]
    )


def told(folder, images, angles, matrix, shifts, *options):
    stack, tlt = write_series(folder, images.astype(np.float32), angles)
    rows = [" ".join(f"{value:.7f}" for value in (*matrix.ravel(), *by)) for by in shifts]
    (folder / "ts.xf").write_text("\n".join(rows) + "\n")
    arguments = (stack, tlt, "--xf", folder / "ts.xf", "--method", "fbp", "--thickness", 32, "-o", folder / "v.mrc")
    return " ".join(made(*arguments, *options).stderr.split())


@pytest.mark.parametrize("turned_deg", [0.0, -10.5, 13.0, 86.0])
def test_an_aligned_stack_with_its_old_transforms_is_told_and_the_raw_one_is_not(turned_deg, tmp_path):
    images, angles = wide(3, -5)
    matrix, shifts = transforms(len(angles), turned_deg, 5)
    for name in ("aligned", "raw"):
        (tmp_path / name).mkdir()
    assert TOLD in told(tmp_path / "aligned", middle(images), angles, matrix, shifts)
    line = told(tmp_path / "raw", middle(raw(images, matrix, shifts)), angles, matrix, shifts)
    assert TOLD not in line
    assert "not aligned" not in line


@pytest.mark.parametrize("seed", [2, 4])
def test_an_alignment_that_moves_little_is_not_doubted(seed, tmp_path):
    images, angles = wide(seed, -5)
    assert TOLD not in told(tmp_path, middle(images), angles, *transforms(len(angles), 0.4, 0.3))


def test_what_stays_on_the_detector_is_not_taken_for_a_specimen(tmp_path):
    images, angles = wide(3, -5)
    matrix, shifts = transforms(len(angles), 9.0, 8)
    taken = middle(raw(images, matrix, shifts))
    y, x = np.mgrid[:SIZE, :SIZE]
    # Dirt: spots that are the same in all images.
    for place in np.random.default_rng(5).uniform(8, SIZE - 8, (25, 2)):
        taken -= 3 * taken.std() * np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 8)
    # An alignment that is wrong leaves nothing of the specimen: what agrees is the dirt.
    assert TOLD not in told(tmp_path, taken, angles, *transforms(len(angles), 40.0, 12, seed=9))
