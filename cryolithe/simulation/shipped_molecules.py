"""The molecules that come with the program: `procedural_1`, made by rule, so that anyone may have and pass on them.

They are drawn, not measured: no structure of any data bank is in them. Each is a few domains of rods (as in
`cryolithe.simulation.procedural`) where a plan puts them: globular complexes of 80 kDa to 3 MDa, rings and barrels, a
hollow shell, long and bent ones, and two that span a membrane, z outwards.

A version stays what it is: whatever would change a molecule needs a new name (``procedural_2``). The random numbers are
those of NumPy's ``RandomState``, whose streams are frozen; those of its ``Generator`` may change with its version
(NumPy enhancement proposal 19).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy.ndimage
from scipy.spatial.transform import Rotation

from cryolithe.simulation.molecules import PROCEDURAL_1, Molecule, normalised
from cryolithe.simulation.procedural import VOXEL_ANGSTROM, Points, blurred, rods

_SEED = 1
_RADII_ANGSTROM = (13.0, 17.0, 19.0, 21.0, 23.0)  # of the domains, by their number in plans
# Softer than `procedural_molecule`: density maps at 10 Å fall so towards their resolution.
_SOFT_ANGSTROM = 5.2
_PACKING = 1.75  # distance of neighbouring domains of a filled body, in their radii
_ASTRAY_ANGSTROM = 6.0  # domains of a filled body stand so far from a lattice's places, at most
_Rng = np.random.RandomState
# (index of a domain's radius, z, y, x of its centre in Å)
_Places = tuple[tuple[int, float, float, float], ...]


@dataclass(frozen=True)
class _Plan:
    """How a molecule is built: a unit of domains, copied about the z axis, then stacked.

    Attributes:
        name: of the molecule; those that begin with ``mb_`` belong into membranes.
        unit: its domains.
        copies: about the z axis.
        mirrored_angstrom: distance between the unit's middle and that of a second one, turned upside down; 0 for none.
        filled: for each ellipsoid that is filled with domains its centre, semi-axes and hollow core (share of the
            semi-axes), Å.
    """

    name: str
    unit: _Places = ()
    copies: int = 1
    mirrored_angstrom: float = 0.0
    filled: tuple[tuple[tuple[float, float, float], tuple[float, float, float], float], ...] = ()


_PLANS = (
    _Plan("p1_globule", ((3, 0, 0, 0), (2, 8, 34, 6), (1, -22, 12, 20))),
    _Plan("p1_clamp", ((3, -30, 0, 0), (2, 0, 26, 6), (2, 34, 38, 10), (2, 0, -26, 6), (1, 32, -40, -4))),
    _Plan("p1_rod", tuple((2, 32.0 * n - 96, 10 * math.sin(1.1 * n), 10 * math.cos(1.1 * n)) for n in range(7))),
    _Plan("p1_dimer", ((4, 0, 19, 0), (2, 10, 53, 16), (1, -30, 35, -4)), 2),
    _Plan("p1_trimer", ((3, 0, 27, 0), (2, 34, 36, 8), (1, -32, 22, 6)), 3),
    _Plan("p1_block", ((3, 0, 30, 0), (1, 14, 46, 22)), 4, 46.0),
    _Plan("p1_ring", ((3, 0, 46, 0), (3, 34, 40, 12)), 6),
    _Plan("p1_barrel", ((2, 19, 42, 0), (2, 56, 44, 6)), 7, 0.001),
    _Plan("p1_lump", filled=(((0, 0, 0), (70, 82, 66), 0.0), ((46, 66, 34), (46, 46, 52), 0.0))),
    _Plan("p1_shell", filled=(((0, 0, 0), (118, 106, 106), 0.62), ((0, 0, 0), (24, 96, 96), 0.0))),
    _Plan("p1_two_parts", filled=(((-44, 0, 0), (122, 132, 114), 0.0), ((94, 10, 8), (66, 104, 84), 0.0))),
    _Plan("mb_p1_channel", ((2, -16, 20, 0), (2, 16, 21, 4), (3, 56, 30, 8)), 4),
    _Plan("mb_p1_pump", ((3, -14, 0, 0), (2, 18, 6, 4), (2, 48, -14, 0), (1, 62, 20, 8))),
)


@lru_cache(maxsize=1)
def procedural_1() -> tuple[Molecule, ...]:
    """The 13 molecules of `procedural_1`, the same on every machine to the rounding of float32."""
    rng = np.random.RandomState(_SEED)
    domains = tuple(rods(rng, radius) for radius in _RADII_ANGSTROM)
    return tuple(_built(plan, domains, np.random.RandomState(_SEED + 1 + n)) for n, plan in enumerate(_PLANS))


SHIPPED: dict[str, Callable[[], tuple[Molecule, ...]]] = {PROCEDURAL_1: procedural_1}


def shipped_molecules(path: Path) -> tuple[Molecule, ...] | None:
    """The shipped library of this name; None for any other path.

    The name always means the shipped one, so that scores on it compare; a file called so is given by a longer path.
    """
    found = SHIPPED.get(str(path))
    return None if found is None else found()


def molecules_beside(folder: Path, name: str) -> Path:
    """Where the molecules are that a file in ``folder`` names: a path relative to it, or a shipped library's name."""
    return Path(name) if name in SHIPPED else folder / name


def _built(plan: _Plan, domains: tuple[Points, ...], rng: _Rng) -> Molecule:
    """A molecule as planned, about the middle of its points."""
    places = list(plan.unit)
    for centre, semi_axes, core in plan.filled:
        places += _filling(np.array(centre), np.array(semi_axes), core, rng)
    unit = np.concatenate([_turned(domains[kind], rng) + np.array(place) for kind, *place in places])
    turns = [Rotation.from_rotvec([angle, 0.0, 0.0]) for angle in np.arange(plan.copies) * (2 * math.pi / plan.copies)]
    points = np.concatenate([turn.apply(unit) for turn in turns])
    if plan.mirrored_angstrom:
        up = np.array([plan.mirrored_angstrom / 2, 0.0, 0.0])
        points = np.concatenate([points + up, Rotation.from_rotvec([0.0, 0.0, math.pi]).apply(points + up)])
    soft_px = _SOFT_ANGSTROM / VOXEL_ANGSTROM
    roomy = np.pad(blurred(points - points.mean(axis=0)), math.ceil(4 * soft_px))
    density = scipy.ndimage.gaussian_filter(roomy, soft_px)
    return Molecule(plan.name, normalised(density, VOXEL_ANGSTROM), VOXEL_ANGSTROM)


def _turned(domain: Points, rng: _Rng) -> Points:
    """A domain, turned at random."""
    return np.asarray(Rotation.from_quat(rng.normal(size=4)).apply(domain))


def _filling(centre: Points, semi_axes: Points, core: float, rng: _Rng) -> list[tuple[int, float, float, float]]:
    """Domains of alternating size near the places of a face-centred lattice, in an ellipsoid without its core."""
    step = _PACKING * _RADII_ANGSTROM[3] / math.sqrt(2)
    reach = math.ceil(semi_axes.max() / step)
    cells = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    cells = cells[cells.sum(axis=1) % 2 == 0]
    far = np.sqrt(((cells * step / semi_axes) ** 2).sum(axis=1))
    inner = 1 - 0.8 * _RADII_ANGSTROM[3] / semi_axes.min()
    kept = cells[(far <= inner) & (far >= core)]
    centres = centre + kept * step + rng.uniform(-_ASTRAY_ANGSTROM, _ASTRAY_ANGSTROM, size=kept.shape)
    return [(3 + int(cell[2]) % 2, float(z), float(y), float(x)) for cell, (z, y, x) in zip(kept, centres, strict=True)]
