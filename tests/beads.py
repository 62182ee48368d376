"""Tilt series of five dark beads at known places, and how far from them the beads of a volume are.

The beads lie where no symmetry can hide an error of order, sign or centre. A bead of the specimen at (x, y, z) from the
centre of rotation is seen at ``p = R(axis) (x cos θ + z sin θ, y) + shift``.
"""

from __future__ import annotations

import math

import mrcfile
import numpy as np
from plain_mrc import new_mrc

ANGLES = tuple(float(angle) for angle in range(-60, 61, 4))
SHAPE = (48, 64)  # pixels (y, x) of an image
DEPTH = 40  # voxels along z of a volume that holds all beads
BEADS = ((-18, -13, 6), (13, -8, -9), (4, 14, 10), (-9, 8, -4), (19, 15, 2))  # x, y, z from the centre
PIXEL = 10.0
SIGMA = 1.5
# Beads are right when none lies further from its place, along any axis, and each stands out by so many deviations.
NEAR_PX, CLEAR_SIGMAS = 0.3, 3.0


def centre_of(size, centre="imod"):
    """Index of the centre of rotation: ``(N - 1) / 2`` (imod) or ``N // 2`` (relion)."""
    return size // 2 if centre == "relion" else (size - 1) / 2


def bead_images(angles=ANGLES, axis_deg=0.0, shifts=None, shape=SHAPE, centre="imod"):
    """Images (tilt, y, x), float32: dark beads in faint noise."""
    shifts = np.zeros((len(angles), 2)) if shifts is None else shifts
    images = 0.01 * np.random.default_rng(7).standard_normal((len(angles), *shape))
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    c, s = math.cos(math.radians(axis_deg)), math.sin(math.radians(axis_deg))
    for number, (angle, (dx, dy)) in enumerate(zip(np.deg2rad(angles), shifts, strict=True)):
        for x, y, z in BEADS:
            u = x * math.cos(angle) + z * math.sin(angle)
            column = centre_of(shape[1], centre) + c * u - s * y + dx
            row = centre_of(shape[0], centre) + s * u + c * y + dy
            images[number] -= np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / (2 * SIGMA**2))
    return images.astype(np.float32)


def some_shifts(most_px=4.0):
    """Shifts (x, y) of the images in pixels, the same in every run."""
    return np.random.default_rng(4).uniform(-most_px, most_px, (len(ANGLES), 2))


def dark(images, sections, seed=3):
    """The same images with faint noise in place of some, as where the beam was off."""
    images = images.copy()
    images[list(sections)] = 0.01 * np.random.default_rng(seed).standard_normal((len(sections), *images.shape[1:]))
    return images


def write_stack(path, images, pixel_size=PIXEL):
    """Write images as an MRC stack and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_mrc(path, np.asarray(images)) as file:
        file.set_image_stack()
        file.voxel_size = pixel_size
    return path


def write_angles(path, angles=ANGLES):
    """Write one angle a line and return the path."""
    path.write_text("".join(f"{angle:.2f}\n" for angle in angles))
    return path


def bead_errors(volume, centre="imod"):
    """Largest distance of a bead from its place along an axis, voxels, and the weakest bead in deviations.

    Args:
        volume: (z, y, x), beads dark.
        centre: of rotation, as for `bead_images`.
    """
    bright = -np.asarray(volume, dtype=float)
    bright = (bright - np.median(bright)) / bright.std()
    worst, weakest = 0.0, math.inf
    for bead in BEADS:
        place = np.array([centre_of(n, centre) + b for n, b in zip(bright.shape, bead[::-1], strict=True)])
        corner = np.round(place).astype(int) - 3
        if (corner < 0).any() or (corner + 7 > bright.shape).any():
            return math.inf, 0.0
        part = bright[tuple(slice(c, c + 7) for c in corner)]
        weight = np.clip(part - 0.4 * part.max(), 0, None).ravel()
        found = corner + (np.indices(part.shape).reshape(3, -1) * weight).sum(1) / max(weight.sum(), 1e-9)
        worst = max(worst, float(np.abs(found - place).max()))
        weakest = min(weakest, float(part[3, 3, 3]))
    return worst, weakest


def assert_beads(path, centre="imod"):
    """Assert that the beads of a volume file are where they should be."""
    with mrcfile.open(path) as file:
        worst, weakest = bead_errors(file.data, centre)
    assert worst < NEAR_PX, f"a bead is {worst:.2f} voxels from its place"
    assert weakest > CLEAR_SIGMAS, f"a bead stands out by {weakest:.1f} deviations alone"
