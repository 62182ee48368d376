"""A tilt series of a density: projection, optics, damage, counting and faults in the order in which they happen.

Order, for each tilt
    projection -> phase -> damage -> CTF -> residual misalignment -> field of view -> loss, light, MTF -> counting in
    two halves -> hot pixels -> relative brightness -> exposure weight -> CTF correction.

Contrast
    Images are relative brightness minus the mean: protein is dark in every mode, "white" included.

What lies beyond the density
    The specimen goes on as an even slab with the mean density of each plane ("even"), so that tilted images are not
    darker in their middle: the planes' means are removed before projecting, which leaves a constant for each image.
    With "repeated" the density follows again and again along x, so that high tilts are as crowded at their edges: the
    shadow of a repeated density is the shadow of one, repeated with the period ``X cos θ``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import torch
from numpy.typing import NDArray

from cryolithe.errors import GeometryError, SettingsError
from cryolithe.geometry import TiltGeometry
from cryolithe.noise.imitate import imitate
from cryolithe.noise.stored import profile_or_refuse
from cryolithe.optics.exposure import exposure_filter
from cryolithe.optics.transfer import Optics, TiltedView, correct_image, filtered, form_image, source_envelope
from cryolithe.projector import make_projector
from cryolithe.simulation.detector import (
    STEEPEST_COSINE,
    Detector,
    Halves,
    as_contrast,
    coherent_share,
    count,
    delocalised,
    expected_counts,
    loss_over_phase,
    mtf,
    phase_per_voxel,
    transmission,
)
from cryolithe.simulation.faults import (
    Faults,
    draw_faults,
    heat,
    illumination,
    misalign,
)
from cryolithe.simulation.imaging_recipe import ImagingRecipe, Surroundings, draw_optics, draw_scheme
from cryolithe.simulation.schemes import TiltPlan, plan_tilts
from cryolithe.simulation.specimen import noise_sigma

Image = NDArray[np.float32]
_ROWS_AT_ONCE = 128
_MARGIN_PX = 16  # mirrored around an image before the CTF, which spreads by λ Δf k: some 10 px


class ImagedSeries(NamedTuple):
    """A simulated tilt series.

    Attributes:
        images: shape ``(tilts, y, x)``, float32: the average of the halves.
        even: from the even frames, the same shape.
        odd: from the odd frames, the same shape.
        clean: what the images would be without noise, hot pixels, uneven light and shadows, but with misalignment,
            damage, CTF and its correction; 0 where an image is blank; the same shape.
        plan: angles, order and exposures.
        optics: of each image; empty for "white".
        drawn: every number drawn, as plain lists, numbers and strings.
    """

    images: Image
    even: Image
    odd: Image
    clean: Image
    plan: TiltPlan
    optics: tuple[Optics, ...]
    drawn: dict[str, Any]


@dataclass(frozen=True)
class _Shot:
    """What is known of one image before it is recorded."""

    view: TiltedView
    electrons_per_px: float
    exposure_middle: float
    faults: Faults
    coherent: float = 1.0  # share of the contrast that scattering by atoms leaves


def image_series(
    density: Image,
    field_x: slice,
    voxel_size_angstrom: float,
    recipe: ImagingRecipe,
    rng: np.random.Generator,
    device: torch.device | str = "cpu",
) -> ImagedSeries:
    """Record a tilt series of a density.

    Args:
        density: shape ``(z, y, x)``, float32; 0 in ice, 1 in protein. May be wider than the field of view.
        field_x: the field of view along x, in the middle of the density.
        voxel_size_angstrom: edge of a voxel and of a pixel.
        recipe: how to record it.
        rng: source of all randomness: the same state gives the same series.
        device: where to project.

    Raises:
        GeometryError: if the density has not three axes or the field does not lie in its middle.
        SettingsError: if the voxel size is not positive or drawn values fit no tilt scheme.
        InputError: if the recipe's noise profile cannot be read, or is of other pixels.
    """
    start, stop = _field_bounds(density, field_x)
    if not 0 < voxel_size_angstrom < math.inf:
        raise SettingsError(f"the voxel size must be positive, got {voxel_size_angstrom} Å")
    scheme = draw_scheme(recipe, rng)
    plan = plan_tilts(scheme, rng)
    drawn: dict[str, Any] = {"noise": recipe.noise, "surroundings": recipe.surroundings}
    for name, value in (("scheme", scheme), ("plan", plan)):
        drawn[name] = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(value).items()}
    seen = project_field(density, plan.angles_deg, recipe.surroundings, device)
    drawn["specimen_contrast"] = strength = float(rng.uniform(*recipe.specimen_contrast))
    seen *= np.float32(strength)
    if recipe.noise == "white":
        clean = -np.ascontiguousarray(seen[:, :, start:stop])
        clean -= clean.mean(axis=(1, 2), keepdims=True)
        drawn["snr_db"] = snr_db = float(rng.uniform(*recipe.snr_db))
        halves = _white_halves(clean, snr_db, rng)
        return ImagedSeries(np.float32(0.5) * (halves.even + halves.odd), *halves, clean, plan, (), drawn)
    optics = draw_optics(recipe.optics, plan, rng)
    thickness = density.shape[0] * voxel_size_angstrom
    if recipe.thickness_angstrom is not None:
        thickness = float(rng.uniform(*recipe.thickness_angstrom))
    snr = float(rng.uniform(*recipe.wiener_snr))
    shape = (density.shape[1], stop - start)
    faults = draw_faults(recipe.faults, plan.tilts, shape, rng)
    drawn["optics"], drawn["faults"] = [asdict(o) for o in optics], [f.as_plain() for f in faults]
    drawn |= {"thickness_angstrom": thickness, "wiener_snr": snr, "ctf": recipe.ctf}
    drawn |= {"exposure_weighting": recipe.exposure_weighting, "handedness": recipe.optics.handedness}
    drawn["illumination_mrad"] = recipe.optics.illumination_mrad
    drawn["detector"] = asdict(recipe.detector)

    even, odd, clean = (np.empty((plan.tilts, *shape), dtype=np.float32) for _ in range(3))
    electrons = []
    for tilt, angle in enumerate(plan.angles_deg):
        passed = transmission(thickness, angle, recipe.detector.mean_free_path_nm)
        electrons.append(plan.exposure[tilt] * voxel_size_angstrom**2 * passed)
        view = TiltedView(optics[tilt], angle, voxel_size_angstrom, recipe.optics.handedness)
        coherent = coherent_share(thickness, angle, recipe.detector)
        shot = _Shot(view, electrons[-1], plan.exposure_middle[tilt], faults[tilt], coherent)
        contrast = _signal(seen[tilt], shot, recipe)[:, start:stop]
        blurred = filtered(contrast, mtf(shape, recipe.detector))
        clean[tilt] = _treated(blurred - blurred.mean(), shot, recipe, snr)
        if not recipe.is_measured:
            halves = _record(contrast, shot, recipe.detector, rng)
            even[tilt], odd[tilt] = (_treated(image, shot, recipe, snr) for image in halves)
    if recipe.is_measured:
        profile = profile_or_refuse(recipe.noise, voxel_size_angstrom)
        like = imitate(clean, plan.angles_deg, voxel_size_angstrom, profile, rng)
        clean, even, odd = like.clean, like.even, like.odd
        drawn |= {"noise": "measured", "measured_noise": like.drawn, "words": list(like.words)}
    drawn["electrons_per_px"] = electrons
    return ImagedSeries(np.float32(0.5) * (even + odd), even, odd, clean, plan, optics, drawn)


def project_field(
    density: Image,
    angles_deg: tuple[float, ...],
    surroundings: Surroundings = "even",
    device: torch.device | str = "cpu",
) -> Image:
    """Project a density of which the mean of each plane is removed, block by block along y.

    Args:
        density: shape ``(z, y, x)``.
        angles_deg: tilt angles.
        surroundings: what lies beyond the density along x.
        device: where to project.

    Returns:
        sums along the beam in voxels, shape ``(tilts, y, x)``, float32; brighter where denser.
    """
    depth, height, width = density.shape
    # Wide enough for the whole shadow at any tilt, and even pixels wider than the density: the same middle.
    margin = math.ceil((math.hypot(width, depth) - width) / 2) + 2 if surroundings == "repeated" else 0
    means = density.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)[:, None, None]
    projector = make_projector(TiltGeometry(angles_deg, (height, width + 2 * margin)), (depth, width), device)
    seen = np.empty((len(angles_deg), height, width), dtype=np.float32)
    for y in range(0, height, _ROWS_AT_ONCE):
        block = torch.from_numpy(density[:, y : y + _ROWS_AT_ONCE] - means)
        shadows = projector.forward(block).cpu().numpy()
        for tilt, angle in enumerate(angles_deg):
            seen[tilt, y : y + _ROWS_AT_ONCE] = _repeated(shadows[tilt], margin, angle) if margin else shadows[tilt]
    return seen


def _repeated(shadow: Image, margin: int, angle_deg: float) -> Image:
    """Sum of the shadows of a density and of its copies at both sides, without the margin, ``(y, x)``."""
    width = shadow.shape[1] - 2 * margin
    period = width * max(math.cos(math.radians(angle_deg)), STEEPEST_COSINE)
    total = shadow[:, margin : margin + width].copy()
    for copy in range(1, math.ceil((width + margin) / period)):
        for shift in (-copy * period, copy * period):
            moved = scipy.ndimage.shift(shadow, (0, shift), order=3, mode="constant")
            total += moved[:, margin : margin + width]
    return total


def _field_bounds(density: Image, field_x: slice) -> tuple[int, int]:
    if density.ndim != 3:
        raise GeometryError(f"a density has three axes (z, y, x), got shape {density.shape}")
    width = density.shape[2]
    start, stop, step = field_x.indices(width)
    if step != 1 or stop <= start or start != width - stop:
        raise GeometryError(
            f"the field of view must lie in the middle of the density's {width} columns, so that the tilt axis is in "
            f"the middle of the images; got columns {start} to {stop}"
        )
    return start, stop


def _white_halves(clean: Image, snr_db: float, rng: np.random.Generator) -> Halves:
    """Halves whose average has white noise at ``snr_db``: each has twice its variance."""
    sigma = np.float32(math.sqrt(2) * noise_sigma(clean, snr_db)) if clean.any() else np.float32(1)
    even, odd = (clean + sigma * rng.standard_normal(clean.shape, dtype=np.float32) for _ in range(2))
    return Halves(even, odd)


def _signal(seen: Image, shot: _Shot, recipe: ImagingRecipe) -> Image:
    """Relative brightness minus 1 of the whole width of the density, misaligned: ``-2 CTF * phase``, and loss."""
    if shot.faults.blank:
        return np.zeros_like(seen)
    view, (rows, columns) = shot.view, seen.shape
    phase = seen * np.float32(-2 * phase_per_voxel(view.pixel_size_angstrom, view.optics.voltage_kv))
    phase -= phase.mean()
    pads = []
    for size in (rows, columns):
        extra = scipy.fft.next_fast_len(size + 2 * _MARGIN_PX, real=True) - size
        pads.append((extra // 2, extra - extra // 2))
    # Equal pads along x keep the tilt axis in the middle, where the defocus is the mean one.
    pads[1] = (pads[1][1], pads[1][1])
    padded = np.pad(phase, pads, mode="symmetric")
    shape = padded.shape[0], padded.shape[1]
    kept = exposure_filter(shape, view.pixel_size_angstrom, shot.exposure_middle, view.optics.voltage_kv)
    if recipe.ctf != "none" and recipe.optics.illumination_mrad:
        # That of the defocus on the axis: what tilt adds is a small part where the envelope matters.
        kept = kept * source_envelope(view.optics, shape, view.pixel_size_angstrom, recipe.optics.illumination_mrad)
    formed = filtered(padded, kept) if recipe.ctf == "none" else form_image(padded, view, kept)
    if recipe.detector.zero_loss and recipe.ctf != "none":
        lost = delocalised(shape, view.pixel_size_angstrom, view.optics.voltage_kv) * kept
        formed += filtered(padded, np.float32(loss_over_phase(view.optics.voltage_kv)) * lost)
    formed *= np.float32(shot.coherent)
    inner = formed[pads[0][0] : pads[0][0] + rows, pads[1][0] : pads[1][0] + columns]
    return misalign(inner, shot.faults)


def _record(contrast: Image, shot: _Shot, detector: Detector, rng: np.random.Generator) -> Halves:
    """Count an image in halves and return their relative brightness."""
    expected = expected_counts(contrast, shot.electrons_per_px, detector)
    halves = count(expected * illumination((contrast.shape[0], contrast.shape[1]), shot.faults), rng)
    return as_contrast(Halves(*(heat(half, shot.faults) for half in halves)))


def _treated(image: Image, shot: _Shot, recipe: ImagingRecipe, snr: float) -> Image:
    """What software does to a recorded image: exposure weight, then CTF correction."""
    view = shot.view
    if recipe.exposure_weighting:
        shape = image.shape[0], image.shape[1]
        weight = exposure_filter(shape, view.pixel_size_angstrom, shot.exposure_middle, view.optics.voltage_kv)
        image = filtered(image, weight)
    return correct_image(image, view, recipe.ctf, snr)
