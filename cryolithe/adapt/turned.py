"""Equivariance: what a network makes of the lab's series, turned and imaged anew, has to come out turned.

The specimen does not know how it lies in the microscope, but the missing wedge does. So a network's own volume of a
place, turned at random, projected onto the series' tilts and given its noise, is a series whose truth is known: what
lay in measured directions lies in the wedge now, and is asked for there (Chen, Tachella and Davies 2021, "Equivariant
imaging", with the volume as a fixed target; Wiedemann and Heckel 2024 do so with subtomograms).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryolithe.adapt.anchor import lab_noise
from cryolithe.adapt.cubes import Cube
from cryolithe.adapt.halves import HalfSeries
from cryolithe.known import Known
from cryolithe.network import BlockHead
from cryolithe.simulation import Specimen
from cryolithe.training.series import TrainingSeries, make_series

# Voxels over which the ball that is turned fades, and of nothing beside it along y and x.
EDGE_PX, BORDER_PX = 4.0, 12


@dataclass(frozen=True)
class Turned:
    """A place whose volume is to be turned.

    Attributes:
        cube: what the network sees there of one half.
        series: number of the series that it is of.
        seed: of the turn, the noise, and what is drawn from the series that comes of it.
    """

    cube: Cube
    series: int
    seed: tuple[int, ...]


def turned_series(
    volume: torch.Tensor, lab: tuple[HalfSeries, range], head: BlockHead, rng: np.random.Generator
) -> TrainingSeries:
    """A series of a volume that was turned about its centre, with the lab's tilts and noise.

    A ball is turned, as large as fits and fading at its edge, so that nothing leaves the field. Densities are in units
    of the images that the network saw, as its volumes are, so that the noise has its own size too.

    Args:
        volume: of the network, ``(z, y, x)``.
        lab: the series that it is of, and the rows to take noise from.
        head: of the network.
        rng: of the turn and the noise.
    """
    series, rows = lab
    half = series.halves[0]
    density = turned_ball(volume.numpy(), Rotation.random(random_state=rng).as_matrix())
    border = [(0, 0), (BORDER_PX, BORDER_PX), (BORDER_PX, BORDER_PX)]
    voxel = half.known.voxel_size_angstrom
    specimen = Specimen(np.pad(density, border).astype(np.float32), voxel or 1.0)
    made = make_series(specimen, half.angles_deg, head)
    assert isinstance(made.images, torch.Tensor)
    shape = tuple(made.images.shape)
    # Without halves of frames nobody knows the noise; images of unit variance hold hardly anything else.
    white = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    images = made.images + (lab_noise(series, rows, shape, rng) if series.of_frames else white)
    images = images - images.mean((1, 2), keepdim=True)
    scale = max(float(images.std()), 1e-6)
    # Its projections are plain ones, whatever the transfer of the lab's images was.
    known = Known(ctf_state="none", voxel_size_angstrom=voxel)
    return replace(
        made, images=images / scale, amplitude=1 / scale, image_std=1.0, noiseless=False, name="turned", known=known
    )


def turned_ball(volume: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """The ball in a volume's middle, turned: ``out(r) = in(matrix^T r)``, r = (z, y, x) from the centre.

    Args:
        volume: any three sizes; the ball's diameter is the least of them.
        matrix: a rotation.

    Returns:
        a cube of that edge, of mean 0 within the ball and 0 outside.
    """
    edge = min(volume.shape)
    first = [(size - edge) // 2 for size in volume.shape]
    cube = volume[tuple(slice(begin, begin + edge) for begin in first)]
    centre = (edge - 1) / 2
    axis = np.arange(edge) - centre
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    ball = np.clip((edge / 2 - radius) / EDGE_PX, 0, 1)
    cube = (cube - (ball * cube).sum() / ball.sum()) * ball
    inverse = matrix.T
    offset = centre - inverse @ np.full(3, centre)
    return scipy.ndimage.affine_transform(cube, inverse, offset, order=3).astype(np.float32)
