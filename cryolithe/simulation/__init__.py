"""Simulated specimens and tilt series with known truth.

`read_recipe` and `recipe_library` say what to draw; `simulate_series` draws one series, `stream_series` endless ones,
and `run_recipe` writes them to disk.
"""

from __future__ import annotations

from cryolithe.simulation.campaign import SimulatedSeries, run_recipe, simulate_series
from cryolithe.simulation.classes import Structure
from cryolithe.simulation.library import load_library, recipe_library
from cryolithe.simulation.molecules import Molecule, load_molecules, select_molecules
from cryolithe.simulation.recipe import Recipe, like_profile, read_recipe
from cryolithe.simulation.schemes import TiltScheme, swept_angles_deg
from cryolithe.simulation.specimen import (
    Specimen,
    SpecimenRecipe,
    add_white_noise,
    make_specimen,
    noise_sigma,
    project,
)
from cryolithe.simulation.stream import StreamedPair, stream_rows, stream_series

__all__ = [
    "Molecule",
    "Recipe",
    "SimulatedSeries",
    "Specimen",
    "SpecimenRecipe",
    "StreamedPair",
    "Structure",
    "TiltScheme",
    "add_white_noise",
    "like_profile",
    "load_library",
    "load_molecules",
    "make_specimen",
    "noise_sigma",
    "project",
    "read_recipe",
    "recipe_library",
    "run_recipe",
    "select_molecules",
    "simulate_series",
    "stream_rows",
    "stream_series",
    "swept_angles_deg",
]
