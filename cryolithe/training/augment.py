"""Augmentation: small pure functions of a run of rows, its tilts and its target.

Flips keep the geometry ``u = (x - cx) cos θ + (z - cz) sin θ + cu`` true. With x' = -x (from the centre) and images
mirrored, u' = -u = x' cos θ - z sin θ: the same as a tilt by -θ. With z' = -z and images as they are,
u = x cos θ - z' sin θ: again a tilt by -θ. Both flips together leave the angles alone. y has no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
import scipy.ndimage
import torch
from numpy.typing import NDArray

from cryolithe.artefacts.noise_colour import drawn_power

Indices = NDArray[np.int64]
# Rows that a blur takes at each end.
BLUR_HALO = 2
# Rows beyond a run's that coloured noise is drawn for: a discrete Fourier transform joins its first and last rows.
COLOUR_HALO = 8


def drop_tilts(tilts: int, fewest: int, most_dropped: int, chance: float, rng: np.random.Generator) -> Indices:
    """Indices of the tilts to keep: with a chance drop k of them, k uniform in 0...most_dropped (paper, section 4.2).

    Args:
        tilts: their number.
        fewest: never keep fewer (unless there are fewer).
        most_dropped: 30 in the paper.
        chance: 1/2 in the paper.
        rng: source of randomness.
    """
    most = min(most_dropped, tilts - fewest)
    if most <= 0 or rng.random() >= chance:
        return np.arange(tilts)
    dropped = rng.choice(tilts, size=rng.integers(most + 1), replace=False)
    return np.setdiff1d(np.arange(tilts), dropped)


def cut_range(angles_deg: NDArray[np.float64], fewest: int, rng: np.random.Generator) -> Indices:
    """Indices, ascending, of the tilts inside a narrower range: what a series looks like that stopped early.

    Args:
        angles_deg: in any order, shape ``(tilts,)``.
        fewest: never keep fewer (unless there are fewer).
        rng: source of randomness.
    """
    order = np.argsort(angles_deg, kind="stable")
    spare = max(0, len(order) - fewest)
    # Not more than a third of the range is lost; either end may lose all of that.
    lost = int(rng.integers(min(spare, len(order) // 3) + 1))
    below = int(rng.integers(lost + 1))
    return np.sort(order[below : len(order) - (lost - below)])


def mix_halves(even: torch.Tensor, odd: torch.Tensor, swap: bool, rng: np.random.Generator) -> torch.Tensor:
    """One half of a series: even or odd, or with ``swap`` each tilt from either.

    Args:
        even: shape ``(tilts, rows, X)``.
        odd: the same shape.
        swap: whether tilts are drawn one by one.
        rng: source of randomness.
    """
    if not swap:
        return even if rng.random() < 0.5 else odd
    first = torch.from_numpy(rng.random(even.shape[0]) < 0.5).to(even.device)
    return torch.where(first[:, None, None], even, odd)


def flipped_angles_deg(angles_deg: Sequence[float], flip_z: bool, flip_x: bool) -> tuple[float, ...]:
    """Angles under which the flipped specimen gives the images (mirrored along x if ``flip_x``)."""
    sign = -1.0 if flip_z != flip_x else 1.0
    return tuple(sign * angle for angle in angles_deg)


def shift_rows(rows: torch.Tensor, shift_px: NDArray[np.float32], halo: int) -> torch.Tensor:
    """Shift each image along y by linear interpolation.

    Args:
        rows: shape ``(tilts, rows + 2 halo, X)``.
        shift_px: of each image, at most ``halo - 1`` pixels either way, shape ``(tilts,)``.
        halo: rows to give up at each end.

    Returns:
        shape ``(tilts, rows, X)``: row r of tilt t is what stood at ``r - shift_px[t]``.
    """
    wanted = rows.shape[1] - 2 * halo
    position = (halo - torch.from_numpy(shift_px.astype(np.float32))).to(rows.device)
    whole = position.floor()
    index = whole.long()[:, None] + torch.arange(wanted, device=rows.device)
    tilt = torch.arange(rows.shape[0], device=rows.device)[:, None]
    return torch.lerp(rows[tilt, index], rows[tilt, index + 1], (position - whole)[:, None, None])


def draw_shifts(tilts: int, std_px: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Residual misalignment along (y, x) of each image, none beyond three deviations, shape ``(2, tilts)``, pixels."""
    shifts = np.clip(rng.standard_normal((2, tilts)), -3, 3) * std_px
    return shifts.astype(np.float32)


def blurred_rows(rows: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Smooth each image by a Gaussian along x and y, as detectors and interpolation smooth noise.

    Args:
        rows: shape ``(tilts, rows + 2 BLUR_HALO, X)``.
        sigma_px: its standard deviation, which its five samples hold up to 1 pixel.

    Returns:
        shape ``(tilts, rows, X)``; columns beyond the edges are taken for mirrored ones.
    """
    kernel = blur_kernel(sigma_px).to(rows.device)
    padded = torch.nn.functional.pad(rows, (BLUR_HALO, BLUR_HALO), mode="reflect")
    width, height = rows.shape[2], rows.shape[1] - 2 * BLUR_HALO
    along_x = sum((float(weight) * padded[:, :, at : at + width] for at, weight in enumerate(kernel)), torch.zeros(()))
    return sum((float(weight) * along_x[:, at : at + height] for at, weight in enumerate(kernel)), torch.zeros(()))


def blur_kernel(sigma_px: float) -> torch.Tensor:
    """Samples of a Gaussian at -BLUR_HALO...BLUR_HALO pixels, of sum 1."""
    place = torch.arange(-BLUR_HALO, BLUR_HALO + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (place / max(sigma_px, 1e-3)).square())
    return kernel / kernel.sum()


def coloured(white: torch.Tensor, power: NDArray[np.float64]) -> torch.Tensor:
    """Noise of unit variance with a power spectrum, the same in all directions.

    Args:
        white: white noise of unit variance, shape ``(tilts, rows + 2 COLOUR_HALO, X)``.
        power: see `cryolithe.artefacts.noise_colour.draw_colour`.

    Returns:
        shape ``(tilts, rows, X)``.
    """
    height, width = white.shape[1:]
    radius = np.hypot(scipy.fft.fftfreq(height)[:, None], scipy.fft.fftfreq(width)[None])
    spectrum = drawn_power(radius, power)
    gain = torch.from_numpy(np.sqrt(spectrum / spectrum.mean())[:, : width // 2 + 1].astype(np.float32))
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * gain.to(white.device), s=(height, width))
    return noise[:, COLOUR_HALO : height - COLOUR_HALO]


def jitter_gain(rows: torch.Tensor, gain_std: float, shading_std: float, rng: np.random.Generator) -> torch.Tensor:
    """Multiply each image by its own gain, which rises or falls along x.

    Args:
        rows: shape ``(tilts, rows, X)``.
        gain_std: deviation of the logarithm of the gain.
        shading_std: deviation of its change from the middle of the image to its edge.
        rng: source of randomness.
    """
    tilts, _, width = rows.shape
    gain = np.exp(gain_std * rng.standard_normal(tilts))
    slope = shading_std * rng.standard_normal(tilts)
    field = gain[:, None] * (1 + slope[:, None] * np.linspace(-1, 1, width))
    return rows * torch.from_numpy(field.astype(np.float32)).to(rows.device)[:, None, :]


def rescaled(
    images: NDArray[np.float32], volume: NDArray[np.float32], factor: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images and volume as if recorded with another pixel size, about the same centre.

    Args:
        images: shape ``(tilts, y, x)``.
        volume: shape ``(z, y, x)``.
        factor: above 1 for smaller pixels: more of them.

    Returns:
        images ``(tilts, y', x')`` and volume ``(z', y', x')`` on grids of ``round(n * factor)`` pixels.
    """
    planes = np.stack([_resampled(image, factor) for image in images])
    return planes, _resampled(volume, factor)


def _resampled(array: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Cubic interpolation about the centre ``(n - 1) / 2`` of every axis, low-passed first when pixels grow."""
    shape = tuple(max(4, round(n * factor)) for n in array.shape)
    if factor < 1:
        # Standard deviation that takes the band down to the coarser grid's, as is usual for image pyramids.
        array = scipy.ndimage.gaussian_filter(array, 0.5 * np.sqrt(1 / factor**2 - 1), mode="mirror")
    start = [(old - 1) / 2 - (new - 1) / 2 / factor for old, new in zip(array.shape, shape, strict=True)]
    step = [1 / factor] * array.ndim
    out: NDArray[np.float32] = scipy.ndimage.affine_transform(array, step, start, shape, order=3, mode="mirror")
    return out.astype(np.float32, copy=False)
