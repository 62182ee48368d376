"""Half volumes of a simulated series: one specimen with two draws of noise, back-projected, and without noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.denoise_training.colour import coloured, draw_amplitude
from cryolithe.denoise_training.config import GeneralConfig, entry_recipe
from cryolithe.denoising.images.scale import image_scale
from cryolithe.denoising.scale import LIMIT, SIGMAS_PER_UNIT, survey
from cryolithe.geometry import TiltGeometry
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.recipes import find_recipe
from cryolithe.simulation import (
    Molecule,
    Recipe,
    make_specimen,
    noise_sigma,
    project,
    recipe_library,
    simulate_series,
)
from cryolithe.simulation.campaign import fingerprints, plain_recipe
from cryolithe.simulation.imaging import image_series
from cryolithe.simulation.library import recipe_files

Volume = NDArray[np.float32]
_DRAW = 51  # stream of random numbers
MOST_SIGMAS = LIMIT * SIGMAS_PER_UNIT  # beyond which the denoiser cuts its input


@dataclass(frozen=True)
class Halves:
    """What a series gives, standardised as the denoiser does it: half volumes have the robust deviation 1.

    Attributes:
        first: of the even frames, shape ``(z, y, x)``, dense = bright.
        second: of the odd ones.
        clean: without noise, in the same units.
        whole_sigma: robust deviation of the mean of the halves; of each image, where they are images.
        told: what it is of, plain values.
    """

    first: Volume
    second: Volume
    clean: Volume
    whole_sigma: tuple[float, ...]
    told: dict[str, Any]


@dataclass(frozen=True)
class _Images:
    """Tilt images, dense = bright."""

    even: Volume
    odd: Volume
    clean: Volume
    angles_deg: tuple[float, ...]
    depth: int
    told: dict[str, Any]


@dataclass(frozen=True)
class Maker:
    """Makes series of a number.

    Attributes:
        config: what is drawn.
        recipes: of its entries, each with its molecules.
        library: molecules of plain and diverse specimens.
    """

    config: GeneralConfig
    recipes: tuple[tuple[Recipe, tuple[Molecule, ...]], ...]
    library: tuple[Molecule, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values that decide the series beside the configuration: what recipes and libraries hold."""
        recipes = [{**plain_recipe(recipe), "library": fingerprints(library)} for recipe, library in self.recipes]
        return {"simulated from": recipes, "library": fingerprints(self.library)}

    def __call__(self, number: int) -> Halves:
        """Halves of series ``number``: the same number gives the same arrays."""
        config = self.config
        rng = np.random.default_rng([config.seed, number, _DRAW])
        weights = np.array([*(entry.weight for entry in config.recipes), config.plain.weight])
        chosen = int(rng.choice(len(weights), p=weights / weights.sum()))
        images = self._plain(rng) if chosen == len(self.recipes) else self._imaged(chosen, number, rng)
        if config.of_images:
            told = {"number": number, "tilts": len(images.angles_deg), **images.told}
            return standardised_images(images.even, images.odd, images.clean, told)
        window = str(rng.choice(config.windows))
        depth = images.depth + 2 * int(rng.integers(2)) * config.empty_planes
        first, second, clean = (
            back_projected(values, images.angles_deg, depth, window)
            for values in (images.even, images.odd, images.clean)
        )
        told = {"number": number, "window": window, "tilts": len(images.angles_deg), **images.told}
        return standardised(first, second, clean, told)

    def _plain(self, rng: np.random.Generator) -> _Images:
        config = self.config
        specimen = make_specimen(config.specimen(), self.library, rng)
        angles = config.plain.draw(rng)
        clean = project(specimen, angles)
        snr_db = float(rng.uniform(*config.plain.snr_db))
        sigma = np.float32(np.sqrt(2) * noise_sigma(clean, snr_db))
        noise = [sigma * rng.standard_normal(clean.shape, np.float32) for _ in range(2)]
        if config.plain.colour_db or any(config.plain.blur_px):
            amplitude = draw_amplitude(config.plain, (clean.shape[1], clean.shape[2]), rng)
            noise = [coloured(half, amplitude) for half in noise]
        even, odd = (clean + half for half in noise)
        told = {"kind": "plain", "snr_db": snr_db, "voxel_size_angstrom": specimen.voxel_size_angstrom}
        return _Images(even, odd, clean, angles, specimen.density.shape[0], told)

    def _imaged(self, chosen: int, number: int, rng: np.random.Generator) -> _Images:
        recipe, library = self.recipes[chosen]
        own = recipe.model_copy(update={"seed": recipe.seed + 1_000_003 * (self.config.seed + 1)})
        if rng.random() < self.config.diverse:
            specimen = make_specimen(replace(self.config.specimen(), diverse=1.0), library, rng)
            voxel, depth = specimen.voxel_size_angstrom, specimen.density.shape[0]
            thickness = 0.9 * depth * voxel
            imaging = replace(recipe.imaging, thickness_angstrom=(thickness, thickness))
            series = image_series(specimen.density, slice(0, specimen.density.shape[2]), voxel, imaging, rng)
        else:
            made = simulate_series(own, library, number)
            series, voxel, depth = made.series, made.cell.voxel_size_angstrom, made.truth.shape[0]
        told = {
            "kind": Path(self.config.recipes[chosen].path).stem,
            "ctf": recipe.imaging.ctf,
            "voxel_size_angstrom": float(voxel),
        }
        return _Images(-series.even, -series.odd, -series.clean, tuple(series.plan.angles_deg), depth, told)


def make_maker(config: GeneralConfig, base: Path, molecules: tuple[Path, ...] = ()) -> Maker:
    """The maker of a configuration.

    Args:
        config: what is drawn.
        base: folder that its paths are relative to.
        molecules: libraries to place beside procedural molecules.

    Raises:
        SettingsError: if a recipe is wrong.
        InputError: if molecules are missing.
    """
    recipes = []
    for entry in config.recipes:
        recipe = entry_recipe(config, entry, base)
        own = recipe_files(recipe, find_recipe(entry.path, "simulate", base).parent, molecules)
        recipes.append((recipe, _allowed(recipe_library(recipe, own), config)))
    plain = recipes[0][1] if recipes else _allowed(recipe_library(Recipe(), molecules), config)
    return Maker(config, tuple(recipes), plain)


def _allowed(library: tuple[Molecule, ...], config: GeneralConfig) -> tuple[Molecule, ...]:
    return tuple(molecule for molecule in library if molecule.name not in config.hold_out)


def back_projected(images: Volume, angles_deg: tuple[float, ...], depth: int, window: str) -> Volume:
    """Filtered back-projection of images, whose means are removed, shape ``(depth, y, x)``."""
    _, height, width = images.shape
    projector = make_projector(TiltGeometry(angles_deg, (height, width)), (depth, width))
    flat = np.ascontiguousarray(images - images.mean(axis=(1, 2), keepdims=True))
    made: Volume = fbp(projector, torch.from_numpy(flat), window).numpy()
    return made


def standardised(first: Volume, second: Volume, clean: Volume, told: dict[str, Any]) -> Halves:
    """Halves in units of their noise, see `Halves`."""
    looked = [survey(values.__getitem__, len(values), False, "half").scale for values in (first, second)]
    whole = survey(((first + second) / 2).__getitem__, len(first), False, "whole").scale
    sigma = float(np.mean([scale.unit for scale in looked])) / SIGMAS_PER_UNIT
    middle = np.float32(np.mean([scale.centre for scale in looked]))
    scaled = [
        np.asarray((values - np.float32(centre)) / np.float32(sigma), np.float32)
        for values, centre in ((first, looked[0].centre), (second, looked[1].centre), (clean, middle))
    ]
    return Halves(scaled[0], scaled[1], scaled[2], (whole.unit / SIGMAS_PER_UNIT / sigma,), told)


def standardised_images(even: Volume, odd: Volume, clean: Volume, told: dict[str, Any]) -> Halves:
    """Images of halves, each in units of its own noise, shape ``(tilts, y, x)``; blank ones are left out."""
    made: list[tuple[Volume, ...]] = []
    whole = []
    for images in zip(even, odd, clean, (even + odd) / 2, strict=True):
        scales = [image_scale(image) for image in (images[0], images[1], images[3])]
        sigma = np.float32((scales[0][1] + scales[1][1]) / 2)
        if not sigma > 0:
            continue
        middle = (scales[0][0] + scales[1][0]) / 2
        centres = (scales[0][0], scales[1][0], middle)
        made.append(tuple((v - np.float32(c)) / sigma for v, c in zip(images[:3], centres, strict=True)))
        whole.append(float(scales[2][1] / sigma))
    first, second, without = (np.stack(values).astype(np.float32) for values in zip(*made, strict=True))
    return Halves(first, second, without, tuple(whole), told)
