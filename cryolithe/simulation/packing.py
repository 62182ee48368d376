"""Molecules into the free space of a cell, up to a wanted crowding, without overlap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryolithe.simulation.canvas import FREE, INSIDE, MEMBRANE, Canvas, Posed, try_place
from cryolithe.simulation.cell import Array, CellRecipe
from cryolithe.simulation.molecules import Molecule, resampled

_BIN = 3  # voxels along the edge of a cell of the grid on which free places are looked for
_TRIES = 10  # places tried for a molecule in a round
_MOST_ROUNDS = 14
_ORIENTATIONS = 12  # drawn per molecule; the 24 turns of the cube make 288 of them


class Poses:
    """Rotated molecules: a few orientations drawn for each, and the 24 exact turns of the cube of each."""

    def __init__(self, library: tuple[Molecule, ...], voxel: float, rng: np.random.Generator) -> None:
        self.library, self.voxel, self.rng = library, voxel, rng
        self.drawn: list[list[Posed]] = [[] for _ in library]
        self.volumes = np.array([(m.density > INSIDE).sum() * (m.voxel_size_angstrom / voxel) ** 3 for m in library])
        self.radii = (3 * np.maximum(self.volumes, 1e-9) / (4 * math.pi)) ** (1 / 3)

    def draw(self, which: int) -> Posed:
        """A molecule in a random orientation."""
        number = int(self.rng.integers(_ORIENTATIONS))
        drawn = self.drawn[which]
        if number >= len(drawn):
            rotation = Rotation.from_quat(self.rng.normal(size=4)).as_matrix()
            box = resampled(self.library[which], rotation, self.voxel)
            drawn.append((self.library[which].name, box, box > INSIDE, rotation))
            return drawn[-1]
        name, box, body, rotation = drawn[number]
        turn = _CUBE_TURNS[self.rng.integers(len(_CUBE_TURNS))]
        return name, _turned(box, turn), _turned(body, turn), turn @ rotation


def _cube_turns() -> tuple[Array, ...]:
    turns = []
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        for signs in np.ndindex(2, 2, 2):
            matrix = np.zeros((3, 3))
            matrix[(0, 1, 2), order] = 1 - 2 * np.array(signs)
            if np.linalg.det(matrix) > 0:
                turns.append(matrix)
    return tuple(turns)


_CUBE_TURNS = _cube_turns()


def _turned(box: NDArray[Any], turn: Array) -> NDArray[Any]:
    """A cube of odd size rotated about its middle by one of the 24 turns of the cube."""
    order = np.abs(turn).argmax(axis=1)
    signs = turn[(0, 1, 2), order]
    moved = box.transpose(tuple(order.tolist()))
    return np.ascontiguousarray(np.flip(moved, tuple(np.flatnonzero(signs < 0).tolist())))


def add_molecules(build: Canvas, recipe: CellRecipe, library: tuple[Molecule, ...], wanted: float) -> float:
    """Place molecules where there is room until the crowding is reached or nothing fits; the fraction reached.

    Places are drawn from those further from anything than most of a molecule's radius, by a distance map on a coarser
    grid that is made anew every round, and then tested voxel by voxel.
    """
    free = int((build.kind == FREE).sum())
    if not library or wanted <= 0 or free == 0:
        return 0.0
    poses = Poses(library, build.voxel, build.rng)
    filled, goal = 0, wanted * free
    for number in range(_MOST_ROUNDS):
        if filled >= goal:
            break
        places = _Places(build.kind)
        before = filled
        # Large molecules find room early or not at all; the reach asked for shrinks from round to round.
        filled = _round(build, recipe, poses, places, (filled, goal, 1.0 - 0.05 * number))
        if filled - before < 0.003 * goal:
            break
    return filled / free


def add_particles(build: Canvas, molecule: Molecule, number: int) -> int:
    """Place copies of one molecule anywhere in the slab where they meet nothing; how many found room."""
    poses, placed = Poses((molecule,), build.voxel, build.rng), 0
    for _ in range(number):
        posed = poses.draw(0)
        for _ in range(_TRIES):
            if try_place(build, posed, np.rint(build.place_angstrom() / build.voxel).astype(np.int64), MEMBRANE):
                placed += 1
                break
    return placed


class _Places:
    """Free places, sorted by how far they are from anything."""

    def __init__(self, kind: NDArray[np.uint8]) -> None:
        blocks = np.add.reduceat(kind != FREE, np.arange(0, kind.shape[0], _BIN), axis=0, dtype=np.uint8)
        for axis in (1, 2):
            blocks = np.add.reduceat(blocks, np.arange(0, kind.shape[axis], _BIN), axis=axis)
        room = scipy.ndimage.distance_transform_edt(blocks < 0.5 * _BIN**3).astype(np.float32) * _BIN
        self.shape = room.shape
        flat = room.reshape(-1)
        some = np.flatnonzero(flat > 0)
        order = np.argsort(-flat[some], kind="stable")
        self.index, self.room = some[order], flat[some][order]

    def number(self, radius_px: float) -> int:
        """How many places are at least this far from anything."""
        return int(np.searchsorted(-self.room, -radius_px, side="right"))


def _round(build: Canvas, recipe: CellRecipe, poses: Poses, places: _Places, aim: tuple[int, float, float]) -> int:
    """Place molecules by one map of free places, until it is used up; the voxels filled."""
    filled, goal, reach = aim
    rng, recent = build.rng, 1.0
    limits = [places.number(max(1.0, reach * float(r))) for r in poses.radii]
    fitting = np.flatnonzero(np.array(limits) > 0)
    if not fitting.size:
        return filled
    while filled < goal and recent > 0.15:
        which = int(fitting[rng.integers(len(fitting))])
        copies = 1
        if rng.random() < recipe.cluster_share / max(1.0, sum(recipe.cluster_size) / 2):
            copies = int(rng.integers(recipe.cluster_size[0], recipe.cluster_size[1] + 1))
        seed: Array | None = None
        for _ in range(copies):
            placed = False
            posed = poses.draw(which)
            for _ in range(_TRIES):
                centre = _candidate(build, places, limits[which], seed, 2.2 * float(poses.radii[which]))
                volume = try_place(build, posed, centre, MEMBRANE)
                if volume:
                    filled += volume
                    placed, seed = True, centre.astype(np.float64)
                    break
            recent += 0.01 * (float(placed) - recent)
            if not placed:
                break
    return filled


def _candidate(build: Canvas, places: _Places, limit: int, seed: Array | None, step: float) -> NDArray[np.int64]:
    """A place to try: any that has room, or one beside the last member of a cluster."""
    rng = build.rng
    if seed is not None:
        direction = rng.normal(size=3)
        moved = seed + direction / np.linalg.norm(direction) * step * rng.uniform(1.0, 1.5)
        return np.clip(np.rint(moved), 0, np.array(build.shape) - 1).astype(np.int64)
    block = np.array(np.unravel_index(places.index[rng.integers(limit)], places.shape))
    return np.minimum(block * _BIN + rng.integers(0, _BIN, size=3), np.array(build.shape) - 1).astype(np.int64)
