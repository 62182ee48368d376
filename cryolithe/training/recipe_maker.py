"""Series for a training that are simulated by recipes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryolithe.errors import InputError
from cryolithe.files.hashing import file_sha256
from cryolithe.formats.pairs import Pair
from cryolithe.network import BlockHead
from cryolithe.recipes import find_recipe
from cryolithe.simulation import (
    Molecule,
    Recipe,
    SimulatedSeries,
    like_profile,
    read_recipe,
    recipe_library,
    simulate_series,
)
from cryolithe.simulation.campaign import plain_recipe
from cryolithe.simulation.library import load_library, recipe_files
from cryolithe.simulation.molecules import library_files
from cryolithe.simulation.shipped_molecules import SHIPPED, molecules_beside
from cryolithe.training.config import TrainConfig
from cryolithe.training.series import TrainingSeries, as_arrays, series_of_pair, simulated_pair

# Constants in seeds keep the streams of random numbers apart.
_RECIPE_STREAM, _NOISE_STREAM = 31, 53
# What to call a library that was given.
GIVEN = "the library of --molecules"
# What stands before the path of a recipe where it is told what series are simulated from.
RECIPE = "the recipe "


@dataclass(frozen=True)
class RecipeMaker:
    """Makes series ``number`` of the stream that some recipes make together.

    Attributes:
        recipes: with the molecules of each.
        weights: of the recipes.
        head: of the network.
        pixel_scale: range of the rescaling.
        seed: of the training run.
        noise: files of noise profiles, one of which is drawn for a series.
        noise_chance: chance that one is.
    """

    recipes: tuple[tuple[Recipe, tuple[Molecule, ...]], ...]
    weights: tuple[float, ...]
    head: BlockHead
    pixel_scale: tuple[float, float]
    seed: int
    noise: tuple[Path, ...] = ()
    noise_chance: float = 1.0

    def simulated(self, number: int) -> tuple[SimulatedSeries, tuple[Molecule, ...], float]:
        """A series, the molecules that it may hold, and the factor by which it is to be rescaled."""
        rng = np.random.default_rng([self.seed, number, _RECIPE_STREAM])
        shares = np.asarray(self.weights) / sum(self.weights)
        recipe, library = self.recipes[int(rng.choice(len(self.recipes), p=shares))]
        factor = float(rng.uniform(*self.pixel_scale))
        own = recipe.model_copy(update={"seed": recipe.seed + 1_000_003 * self.seed})
        if self.noise:
            rng = np.random.default_rng([self.seed, number, _NOISE_STREAM])
            if rng.random() < self.noise_chance:
                own, _ = like_profile(own, self.noise[int(rng.integers(len(self.noise)))])
        return simulate_series(own, library, number), library, factor

    def pair(self, number: int) -> Pair:
        """Images and truth of a series."""
        series, _, factor = self.simulated(number)
        return simulated_pair(series, factor)

    def __call__(self, number: int) -> TrainingSeries:
        """The series with tensors as arrays: what passes between processes."""
        return as_arrays(series_of_pair(self.pair(number), self.head, f"simulated series {number}"))


def _read_recipes(config: TrainConfig, base: Path) -> Iterator[tuple[float, Recipe, Path]]:
    """Weight, recipe and its folder."""
    for entry in config.data.recipes:
        path = find_recipe(entry.path, "simulate", base)
        yield entry.weight, read_recipe(path), path.parent


def recipe_molecules(config: TrainConfig, base: Path) -> set[str]:
    """Names of the molecules that a configuration's recipes take from files, without those held out."""
    names: set[str] = set()
    for _, recipe, folder in _read_recipes(config, base):
        names |= {molecule.name for molecule in load_library(recipe_files(recipe, folder), recipe.hold_out)}
    return names - set(config.hold_out)


def simulated_from(config: TrainConfig, base: Path, molecules: tuple[Path, ...] = ()) -> dict[str, str]:
    """SHA-256 of what decides simulated series beside the configuration, by what to call it.

    Where these files lie does not matter, nor how many series a recipe asks for.

    Args:
        config: of the run.
        base: folder that its paths are relative to.
        molecules: libraries that replace those of the recipes.

    Raises:
        SettingsError: if a recipe is wrong.
        InputError: if a file cannot be read.
    """
    found = {}
    if molecules:
        found[GIVEN] = " ".join(map(library_sha256, molecules))
    for entry, (_, recipe, folder) in zip(config.data.recipes, _read_recipes(config, base), strict=True):
        plain = plain_recipe(recipe.model_copy(update={"series": 1}))
        found["the simulator"] = str(plain.pop("simulator"))
        found[f"{RECIPE}{entry.path}"] = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
        for name in () if molecules else recipe.molecules:
            library = molecules_beside(folder, name)
            found[f"the library {name} of {RECIPE}{entry.path}"] = library_sha256(library)
    return found


def library_sha256(path: Path) -> str:
    """SHA-256 of the files of a library; a shipped one is never another.

    Raises:
        InputError: if one cannot be read.
    """
    if str(path) in SHIPPED:
        return str(path)
    try:
        told = [(file.name if file != path else "", file_sha256(file)) for file in library_files(path)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()
    except OSError as error:
        raise InputError(f"molecules {path} cannot be read: {error.strerror or error}") from error


def recipe_maker(config: TrainConfig, base: Path, molecules: tuple[Path, ...] = ()) -> RecipeMaker:
    """The maker of a configuration's recipes.

    Args:
        config: of the run; molecules that it holds out are left out of every recipe.
        base: folder that its paths are relative to.
        molecules: libraries that replace those of the recipes.

    Raises:
        SettingsError: if a recipe is wrong.
        InputError: if molecules are missing.
    """
    recipes, weights = [], []
    for weight, recipe, folder in _read_recipes(config, base):
        library = recipe_library(recipe, recipe_files(recipe, folder, molecules))
        recipes.append((recipe, tuple(m for m in library if m.name not in config.hold_out)))
        weights.append(weight)
    noise = tuple(base / name for name in config.data.noise)
    head = config.network_config().head
    scale = config.augment.pixel_scale
    return RecipeMaker(tuple(recipes), tuple(weights), head, scale, config.seed, noise, config.data.noise_chance)
