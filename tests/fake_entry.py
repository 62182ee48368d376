"""Small fake copies of deposited entries, made by the simulator and laid out as a manifest says."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np

from cryolithe.curation.manifest import Manifest
from cryolithe.formats import write_angles_deg, write_stack, write_volume
from cryolithe.simulation.campaign import SimulatedSeries, simulate_series
from cryolithe.simulation.library import recipe_library
from cryolithe.simulation.recipe import read_recipe
from cryolithe.volume import Volume

TRAINING_DATA = Path(__file__).resolve().parents[1] / "training_data"
TILTS = 41


@cache
def simulated(number: int, voxel_size_angstrom: float) -> SimulatedSeries:
    """A crowded cell of 32 x 72 x 64 voxels seen in 41 tilts of ±60°, always the same for a number."""
    recipe = read_recipe(TRAINING_DATA / "recipes" / "quick.yaml")
    size = {"voxel_size_angstrom": (voxel_size_angstrom, voxel_size_angstrom), "thickness_nm": (20.0, 22.0)}
    cell = dataclasses.replace(recipe.cell, shape=(32, 72, 64), crowding=(0.1, 0.15), **size)
    scheme = dataclasses.replace(recipe.imaging.scheme, step_deg=(3.0, 3.0))
    imaging = dataclasses.replace(recipe.imaging, scheme=scheme)
    recipe = recipe.model_copy(update={"cell": cell, "imaging": imaging})
    return simulate_series(recipe, recipe_library(recipe, ()), number)


def finer(image: np.ndarray, factor: int) -> np.ndarray:
    """An image that `fourier_crop` by ``factor`` makes ``image`` of again (but for the Nyquist frequency)."""
    for axis in (0, 1):
        size = image.shape[axis]
        spectrum = np.fft.rfft(image, axis=axis)
        shape = [1, 1]
        shape[axis] = -1
        frequency = (np.arange(spectrum.shape[axis]) / size).reshape(shape)
        # Fine pixel 0 lies (factor - 1) / 2 fine pixels before the middle of the first coarse one.
        spectrum = spectrum * np.exp(-2j * np.pi * frequency * (factor - 1) / 2 / factor)
        image = np.fft.irfft(spectrum, n=size * factor, axis=axis) * factor
    return image.astype(np.float32)


def band_limited(series: np.ndarray) -> np.ndarray:
    """Images without their Nyquist frequencies, which no change of sampling keeps."""
    spectrum = np.fft.fft2(series)
    spectrum[:, series.shape[1] // 2] = 0
    spectrum[:, :, series.shape[2] // 2] = 0
    return np.fft.ifft2(spectrum).real.astype(np.float32)


def fake_entry(manifest: Manifest, names: tuple[str, ...], root: Path) -> dict[str, SimulatedSeries]:
    """Write the files of some pairs of a manifest as it describes them, and return what they were made of.

    Args:
        manifest: its paths, pixel sizes, binning, axes and contrasts are followed.
        names: of the pairs.
        root: folder of the copy.
    """
    made = {}
    for number, pair in enumerate(manifest.select(names), start=1):
        series = made[pair.name] = simulated(number, manifest.voxel_size_angstrom)
        paths = {role: root / path for role, path in manifest.paths(pair).items()}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        stacks = {"stack": series.series.images, "even": series.series.even, "odd": series.series.odd}
        sign = -1 if manifest.stack_contrast == "bright" else 1
        for role in stacks.keys() & paths.keys():
            images = sign * stacks[role]
            if manifest.binning > 1:
                images = np.stack([finer(image, manifest.binning) for image in band_limited(images)])
            write_stack(paths[role], images, manifest.stack_pixel_angstrom, "fake")
        write_angles_deg(paths["angles"], series.series.plan.angles_deg)
        target = series.truth if manifest.target_contrast == "dark" else -series.truth
        write_target(paths["target"], target, manifest)
    return made


def write_target(path: Path, target: np.ndarray, manifest: Manifest, overwrite: bool = False) -> None:
    """Write a target ``(z, y, x)`` as the manifest says that it lies in its file."""
    if manifest.target_flip_z:
        target = target[::-1]
    if manifest.target_axes == "xzy":
        target = target.transpose(1, 0, 2)
    voxel = manifest.voxel_size_angstrom / manifest.target_binning
    write_volume(path, Volume(np.ascontiguousarray(target), voxel), label="fake", overwrite=overwrite)
