"""Recipes: what `cryolithe simulate RECIPE.yaml` reads, checked before anything is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cryolithe.errors import SettingsError, nearest_name
from cryolithe.simulation.cell import CellRecipe
from cryolithe.simulation.imaging_recipe import ImagingRecipe
from cryolithe.yaml_table import read_yaml_table


class Recipe(BaseModel):
    """A campaign of simulated tilt series.

    Attributes:
        series: how many.
        seed: the same seed gives the same files.
        molecules: structure files, density maps, folders or HDF5 libraries, relative to the recipe; may be empty.
        hold_out: names of molecules that are not to be used.
        procedural: number of procedural molecules to add; None for 16 where no molecules are given, else none.
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

    Raises:
        SettingsError: if the file is missing or not YAML, a key is unknown (the nearest known one is named) or a
            value out of range.
    """
    values = read_yaml_table(path, "recipe")
    try:
        return Recipe(**values)
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


def _known_keys(section: list[str]) -> list[str]:
    """Keys of the section that a wrong key stands in."""
    place: Any = Recipe
    for name in section:
        place = get_type_hints(place).get(name, Recipe)
    return list(getattr(place, "model_fields", None) or getattr(place, "__dataclass_fields__", {}))
