"""Recipes: what `cryolithe simulate RECIPE.yaml` reads, checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cryolithe.errors import InputError, SettingsError, nearest_name
from cryolithe.files.table_numbers import check_numbers
from cryolithe.files.yaml_table import read_yaml_table
from cryolithe.noise.stored import load_profile
from cryolithe.simulation.cell import CellRecipe
from cryolithe.simulation.imaging_recipe import ImagingRecipe


class Recipe(BaseModel):
    """A campaign of simulated tilt series.

    Attributes:
        series: how many.
        seed: the same seed gives the same files.
        molecules: structure files, density maps, folders or HDF5 libraries, relative to the recipe, or
            ``procedural_1``, which comes with the program; may be empty.
        hold_out: names of molecules that are not to be used.
        procedural: number of procedural molecules to add; None for none where molecules are given; else `simulate`
            places those of ``procedural_1``, and a training 16.
        cell: what the specimens contain.
        imaging: how they are imaged.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    series: int = Field(1, ge=1, le=100_000)
    seed: int = Field(0, ge=0)
    molecules: tuple[str, ...] = ()
    hold_out: tuple[str, ...] = ()
    procedural: int | None = Field(None, ge=0, le=10_000)
    cell: CellRecipe = CellRecipe()
    imaging: ImagingRecipe = ImagingRecipe()


def read_recipe(path: Path) -> Recipe:
    """Read and check a YAML recipe.

    A noise profile that it names is found beside it, and must serve every voxel size that may be drawn.

    Raises:
        SettingsError: if the file is missing or not YAML, a key is unknown (the nearest known one is named) or a
            value out of range.
        InputError: if a noise profile cannot be read.
    """
    return checked_recipe(read_yaml_table(path, "recipe"), path)


def checked_recipe(values: Mapping[str, Any], path: Path) -> Recipe:
    """The recipe of some values, as a file of this name holds them; errors as those of `read_recipe`.

    Raises:
        SettingsError: if a key is unknown, or a value wrong.
    """
    check_numbers(values, Recipe, path)
    try:
        return _with_profile(Recipe(**values), path)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        hint = ""
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            hint = nearest_name(place[-1], _known_keys(place[:-1]))
            raise SettingsError(f"{path}: unknown key '{'.'.join(place)}'{hint}") from error
        raise SettingsError(f"{path}: '{'.'.join(place)}': {first['msg'].lower()}") from error


def _with_profile(recipe: Recipe, path: Path) -> Recipe:
    """A recipe with its noise profile, if it has one, found from anywhere."""
    if not recipe.imaging.is_measured:
        return recipe
    file = path.parent / recipe.imaging.noise
    low, high = load_profile(file).pixel_range
    least, most = recipe.cell.voxel_size_angstrom
    if least < low - 1e-6 or most > high + 1e-6:
        raise SettingsError(
            f"the noise of {file.name} serves pixels of {low:.4g}-{high:.4g} Å, but cell.voxel_size_angstrom is "
            f"[{least:g}, {most:g}]; narrow it"
        )
    return recipe.model_copy(update={"imaging": replace(recipe.imaging, noise=str(file.absolute()))})


def like_profile(recipe: Recipe, file: Path) -> tuple[Recipe, str | None]:
    """A recipe with the noise and the signal's spectrum of a profile.

    Args:
        recipe: what to draw.
        file: of the profile; its name ends as those of HDF5 do.

    Returns:
        the recipe, its voxel sizes narrowed to those that the profile serves, and a note where that changed them.

    Raises:
        InputError: if the profile cannot be read, or serves none of the recipe's voxel sizes.
        SettingsError: if the file's name ends otherwise.
    """
    low, high = load_profile(file).pixel_range
    least, most = recipe.cell.voxel_size_angstrom
    if least > high or most < low:
        raise InputError(
            f"{file} serves pixels of {low:.4g}-{high:.4g} Å, but the recipe draws voxels of {least:g}-{most:g} Å; "
            "set its cell.voxel_size_angstrom, or measure a profile of stacks binned alike"
        )
    narrowed = max(least, low), min(most, high)
    noted = None
    if narrowed != (least, most):
        noted = (
            f"voxel sizes are drawn from {narrowed[0]:.4g}-{narrowed[1]:.4g} Å instead of {least:g}-{most:g} Å: "
            f"{file.name} serves no others"
        )
    update = {
        "imaging": replace(recipe.imaging, noise=str(file.absolute())),
        "cell": replace(recipe.cell, voxel_size_angstrom=narrowed),
    }
    return recipe.model_copy(update=update), noted


def _known_keys(section: list[str]) -> list[str]:
    """Keys of the section that a wrong key stands in."""
    place: Any = Recipe
    for name in section:
        place = get_type_hints(place).get(name, Recipe)
    return list(getattr(place, "model_fields", None) or getattr(place, "__dataclass_fields__", {}))
