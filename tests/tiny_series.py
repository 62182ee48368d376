"""Tilt series and a network so small that a whole reconstruction takes a fraction of a second."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import replace

import mrcfile
import numpy as np
import torch
from command import call, good
from plain_mrc import new_mrc

from cryolithe.errors import ResourceError
from cryolithe.network import InputWindow, RowSetConfig, build_network
from cryolithe.network.checkpoint import save_network
from cryolithe.reconstruction.slabwise import plan

# On a busy machine threads wait for each other at every small operation, which is most of the time of tiny runs.
torch.set_num_threads(1)

ANGLES = tuple(range(-50, 51, 10))
SHAPE = (40, 48)
CONFIG = RowSetConfig(
    input=InputWindow(taps=5, context_taps=5),
    rows=5,
    channels=8,
    row_hidden=8,
    row_features=4,
    combiner_width=8,
    combiner_layers=2,
)


def noise(shape=SHAPE):
    return np.random.default_rng(0).standard_normal((len(ANGLES), *shape)).astype(np.float32)


def write_series(folder, images=None, angles=ANGLES, name="ts", pixel_size=5.0):
    """Write a stack and its angles; return their paths."""
    stack, text = folder / f"{name}.mrc", folder / f"{name}.tlt"
    with warnings.catch_warnings(), new_mrc(stack) as file:
        warnings.simplefilter("ignore", RuntimeWarning)  # mrcfile's, about NaN
        file.set_data(noise() if images is None else images)
        if file.data.ndim == 3:
            file.set_image_stack()
        file.voxel_size = pixel_size
    text.write_text("".join(f"{angle:g}\n" for angle in angles))
    return stack, text


def write_model(path, gain=1.0):
    torch.manual_seed(0)
    network = build_network(CONFIG)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(gain)
    save_network(path, network, {"made": "for a test"})
    return path


def run(*arguments):
    """Call ``cryolithe reconstruct`` in this process."""
    return call("reconstruct", *arguments)


def tree(folder):
    """Everything in a folder: names, and the bytes of files."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


# What is printed when a run begins; what fails later comes after these lines, and nothing else.
BEGUN = ("Geometry: ", "Plan: ")
# The same for a network, which is given noise in these tests.
BEGUN_NETWORK = (*BEGUN, "Contrast: ", "Warning: contrast: ", "Fusion: ", "Missing wedge: ")


def refused(folder, arguments, *fragments, before=()):
    """Assert that a command is refused in one line with these fragments and changes nothing; return that line.

    Args:
        folder: everything that it could change.
        arguments: of the command.
        fragments: of its last line.
        before: how the other lines on standard error begin, one each; none where nothing was begun.
    """
    found = tree(folder)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.endswith("\n")
    *lines, last = result.stderr.splitlines()
    assert [line[: len(start)] for line, start in zip(lines, before, strict=True)] == list(before), result.stderr
    assert last.startswith("Error: ")
    for fragment in fragments:
        assert fragment in last, last
    after = tree(folder)
    assert after.keys() == found.keys()
    assert after == found
    return last


def environment():
    """The environment of a process that uses one thread, too."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def made(*arguments):
    """Call ``cryolithe reconstruct``, which must succeed."""
    return good("reconstruct", *arguments)


def voxels(path):
    with mrcfile.open(path) as file:
        return np.array(file.data)


def bead_images(shape, position_px, axis_deg=0.0, sigma_px=1.5, angles=ANGLES):
    """Images of one bright Gaussian bead, seen with the tilt axis at an angle from y.

    Args:
        shape: pixels (y, x) of an image.
        position_px: (x, y, z) of the bead from the middle of the specimen, y along the tilt axis.
        axis_deg: the axis runs along (x, y) = (-sin, cos) of this angle.
        sigma_px: width of the bead.
        angles: tilt angles in degrees.
    """
    x, y, z = position_px
    along_x, along_y = -math.sin(math.radians(axis_deg)), math.cos(math.radians(axis_deg))
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    images = []
    for angle in np.deg2rad(angles):
        u = x * math.cos(angle) + z * math.sin(angle)  # across the axis; y runs along it
        column = (shape[1] - 1) / 2 + u * along_y + y * along_x
        row = (shape[0] - 1) / 2 - u * along_x + y * along_y
        images.append(np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / (2 * sigma_px**2)))
    return np.array(images, dtype=np.float32)


def brightest_point(volume, reach_px=3):
    """Return (z, y, x) of the brightest voxel, refined by the centroid of what is more than half as bright."""
    peak = np.unravel_index(volume.argmax(), volume.shape)
    corner = [max(0, p - reach_px) for p in peak]
    part = volume[tuple(slice(c, p + reach_px + 1) for c, p in zip(corner, peak, strict=True))]
    weight = np.clip(part - volume.max() / 2, 0, None)
    return tuple(
        float((np.moveaxis(weight, axis, -1) @ np.arange(part.shape[axis])).sum() / weight.sum()) + corner[axis]
        for axis in range(3)
    )


class SlabSpy:
    """Stands in for `cryolithe.reconstruction.setup.fitting.slab_rows` and remembers what it was asked."""

    def __init__(self):
        self.question = None
        self.rows = None

    def __call__(self, demand, geometry, grid, budget_bytes):
        # Of so small a volume what is compared and checked takes more than a slab.
        self.question = (replace(demand, apart_bytes=0), geometry, grid)
        self.rows = plan.slab_rows(*self.question, budget_bytes)
        return self.rows

    def memory_for(self, rows):
        """GB of --max-memory with which slabs get this height, by bisection."""
        low, high = 0, 10**11
        while high - low > 1:
            middle = (low + high) // 2
            try:
                found = plan.slab_rows(*self.question, middle)
            except ResourceError:
                found = 0
            low, high = (low, middle) if found >= rows else (middle, high)
        return (high + 10) / 1e9
