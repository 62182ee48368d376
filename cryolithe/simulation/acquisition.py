"""Image formation in its plain form: projections of a specimen and white noise at a stated level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.geometry import TiltGeometry
from cryolithe.projector import make_projector
from cryolithe.simulation.specimen import Specimen


@dataclass(frozen=True)
class TiltScheme:
    """Tilt angles to draw; each pair is (least, most) of a uniform draw.

    Attributes:
        reach_deg: half of the tilt range.
        step_deg: step between neighbouring tilts.
        pretilt_deg: middle of the range.
    """

    reach_deg: tuple[float, float] = (40.0, 70.0)
    step_deg: tuple[float, float] = (1.5, 3.5)
    pretilt_deg: tuple[float, float] = (-8.0, 8.0)


def draw_angles_deg(scheme: TiltScheme, rng: np.random.Generator) -> tuple[float, ...]:
    """Draw the tilt angles of a series, ascending."""
    reach, step, middle = (
        float(rng.uniform(*pair)) for pair in (scheme.reach_deg, scheme.step_deg, scheme.pretilt_deg)
    )
    angles = middle + np.arange(-reach, reach + 1e-6, step)
    return tuple(angles[np.abs(angles) <= 90])


def project(specimen: Specimen, angles_deg: tuple[float, ...]) -> NDArray[np.float32]:
    """Noiseless images of a specimen with the mean of each image removed, shape ``(tilts, y, x)``."""
    depth, height, width = specimen.density.shape
    geometry = TiltGeometry(angles_deg, (height, width))
    images = make_projector(geometry, (depth, width)).forward(torch.from_numpy(specimen.density))
    return (images - images.mean(dim=(1, 2), keepdim=True)).numpy()


def noise_sigma(images: NDArray[np.float32], snr_db: float) -> float:
    """Standard deviation of white noise for a signal-to-noise ratio.

    ``snr_db = 10 log10(variance of the images / variance of the noise)``, over the whole series (paper, section 4.1).
    """
    return float(np.sqrt(images.var() / 10 ** (snr_db / 10)))


def add_white_noise(images: NDArray[np.float32], snr_db: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Images with white Gaussian noise at ``snr_db``, same shape, float32."""
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return images + np.float32(noise_sigma(images, snr_db)) * noise
