"""Simulated specimens and tilt series: a first, plain version (white noise, no CTF)."""

from __future__ import annotations

from cryolithe.simulation.acquisition import TiltScheme, add_white_noise, draw_angles_deg, noise_sigma, project
from cryolithe.simulation.molecules import Molecule, load_molecules, select_molecules
from cryolithe.simulation.specimen import Specimen, SpecimenRecipe, make_specimen

__all__ = [
    "Molecule",
    "Specimen",
    "SpecimenRecipe",
    "TiltScheme",
    "add_white_noise",
    "draw_angles_deg",
    "load_molecules",
    "make_specimen",
    "noise_sigma",
    "project",
    "select_molecules",
]
