"""How often images that lie where they should not are told: moved images of a series, and halves that do not match.

Simulated specimens of polarity.py's kinds, aligned, with noise of three kinds. Of each series the middle is taken, and
of a moved image what lies beside it, so that nothing wraps around. Asked is what `cryolithe reconstruct` tells before
anything is reconstructed, and what it tells of halves of the frames: of series as they are, where whatever is told is
false; with three single images moved; with a block of images moved; with the tilt axis turned; and with halves of which
all images, one, or two are not as they should be. A fault counts as told where it is told for what it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
import torch
from common import Cell, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.scenes import Scene, any_molecules, recipe_of
from polarity import SPECIMENS, Specimen

from cryolithe.evaluation.half_images import doubts_of_halves
from cryolithe.formats.alignment.imod_command import parse_list
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.evidence.stack_notes import stack_notes
from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
from cryolithe.simulation import Molecule, simulate_series
from cryolithe.tilts import TiltSeries

Stack = NDArray[np.floating[Any]]
SEED = 4000
MARGIN_PX = 8
CONDITIONS: dict[str, dict[str, Any]] = {
    "0 dB": {"noise": "white", "snr_db": [0.0, 0.0]},
    "-8 dB": {"noise": "white", "snr_db": [-8.0, -8.0]},
    "CTF left": {"noise": "counting", "ctf": "left"},
}
MOVES_PX = (4, 7)
SINGLES = 3
BLOCK_PX = (-3, 6)  # along y and x
RIGHT_PX = 1
TURNS_DEG, RIGHT_DEG = (4, 8, 16), 3.0
_AXIS = re.compile(r"lines at about (-?[\d.]+)°")
# For what a fault of halves should be told; where nothing is wrong, whatever is told counts.
REASONS = {
    "all moved by 1 px": "apart",
    "all moved by 0.5 px": "apart",
    "one moved by 4 px": "apart",
    "two exchanged": "unlike",
    "one scaled by 1.6": "scaled",
    "one image later": "unlike",
    "mirrored": "unlike",
    "inverted": "opposite",
}
_TOLD = re.compile(r"([\d,-]+) \(x ([+-]\d+), y ([+-]\d+)\)")


class Halves(NamedTuple):
    """Even and odd images, larger than what is asked about, and their angles."""

    even: Stack
    odd: Stack
    angles_deg: tuple[float, ...]


def cut(images: Stack, moves_px: NDArray[np.intp]) -> Stack:
    """The middle of images, each moved along ``(y, x)`` by what is given."""
    height, width = (size - 2 * MARGIN_PX for size in images.shape[1:])
    starts = MARGIN_PX - moves_px
    return np.stack(
        [image[y : y + height, x : x + width] for image, (y, x) in zip(images, starts, strict=True)]
    )  # fmt: skip


def told_moves(images: Stack, angles_deg: Sequence[float], depth: int) -> tuple[dict[int, tuple[int, int]], list[str]]:
    """What is said of single images, from 0, as moves along ``(y, x)``, and what else is warned of."""
    geometry = TiltGeometry(tuple(angles_deg), (images.shape[1], images.shape[2]))
    stack = prepare_stack(TiltSeries(np.ascontiguousarray(images), geometry), Preparation(), None)
    notes = [note for note in stack_notes(stack, range(1, len(images) + 1), depth) if note.startswith("Warning")]
    moves: dict[int, tuple[int, int]] = {}
    for which, x, y in _TOLD.findall(" ".join(notes)):
        moves |= {number - 1: (int(y), int(x)) for number in parse_list(which)}
    return moves, [note for note in notes if not _TOLD.search(note)]


def series_of(
    specimen: Specimen, condition: str, side: int, count: int, library: tuple[Molecule, ...]
) -> Iterator[Halves]:
    """Series of a specimen, with `MARGIN_PX` more on all sides."""
    imaging = {**specimen.imaging, **CONDITIONS[condition]}
    recipe = recipe_of(Scene(specimen.title, specimen.recipe, imaging), side + 2 * MARGIN_PX)
    recipe = recipe.model_copy(update={"cell": replace(recipe.cell, **specimen.cell)})
    for number in range(1, count + 1):
        made = simulate_series(recipe, library, SEED + number).series
        angles = tuple(float(angle) for angle in np.asarray(made.plan.angles_deg))
        yield Halves(np.asarray(made.even, np.float32), np.asarray(made.odd, np.float32), angles)


def moved_images(series: Halves, depth: int, rng: np.random.Generator) -> dict[str, Counter[str]]:
    """What is told of a series as it is, with single images moved, and with a block of them."""
    images, tilts = (series.even + series.odd) / 2, len(series.angles_deg)
    still = np.zeros((tilts, 2), dtype=np.intp)
    found: dict[str, Counter[str]] = {}
    told, other = told_moves(cut(images, still), series.angles_deg, depth)
    found["as they are"] = Counter(series=1, false=int(bool(told)), other=int(bool(other)))
    inner = np.argsort(series.angles_deg)[1:-1]
    for far in MOVES_PX:
        moves = still.copy()
        for place in rng.choice(inner, SINGLES, replace=False):
            way = rng.uniform(0, 2 * np.pi)
            moves[place] = np.rint(far * np.array([np.sin(way), np.cos(way)])).astype(np.intp)
        told, _other = told_moves(cut(images, moves), series.angles_deg, depth)
        found[f"moved by {far} px"] = _counted(moves, told)
    order = np.argsort(series.angles_deg)
    for name, block in (
        ("a block in the middle", order[tilts // 3 : tilts // 2]),
        ("a block at an end", order[: tilts // 4]),
    ):
        moves = still.copy()
        moves[block] = BLOCK_PX
        told, _other = told_moves(cut(images, moves), series.angles_deg, depth)
        found[name] = _counted(moves, told)
    return found


def turned_axes(series: Halves, depth: int) -> dict[str, Counter[str]]:
    """What is told of the tilt axis of images that are turned in their plane."""
    images = (series.even + series.odd) / 2
    still = np.zeros((len(images), 2), dtype=np.intp)
    found: dict[str, Counter[str]] = {}
    for turn in TURNS_DEG:
        turned = scipy.ndimage.rotate(images, turn, axes=(1, 2), reshape=False, order=3, mode="reflect")
        _, others = told_moves(cut(turned, still), series.angles_deg, depth)
        axes = [float(angle) for angle in _AXIS.findall(" ".join(others))]
        right = any(abs(axis - turn) <= RIGHT_DEG for axis in axes)
        found[f"by {turn}°"] = Counter(right=int(right), other=int(bool(others) and not right))
    return found


def _counted(moves: NDArray[np.intp], told: dict[int, tuple[int, int]]) -> Counter[str]:
    moved = np.flatnonzero(moves.any(axis=1)).tolist()
    right = [place for place in moved if place in told and np.abs(moves[place] - told[place]).max() <= RIGHT_PX]
    return Counter(moved=len(moved), right=len(right), accused=len(set(told) - set(moved)))


def unlike_halves(series: Halves, rng: np.random.Generator) -> dict[str, str]:
    """What is told of halves, by what was done to the odd one."""
    tilts = len(series.angles_deg)
    still = np.zeros((tilts, 2), dtype=np.intp)
    even, odd = cut(series.even, still), cut(series.odd, still)
    order = np.argsort(series.angles_deg)
    one, other = order[tilts // 4], order[3 * tilts // 4]
    alone = still.copy()
    alone[order[tilts // 2]] = (0, 4)
    exchanged, scaled = odd.copy(), odd.copy()
    exchanged[[one, other]] = odd[[other, one]]
    scaled[one] *= 1.6
    half_px = cut(_shifted(series.odd, 0.5), still)
    made = {
        "as they are": odd,
        "all moved by 1 px": cut(series.odd, still + np.array([1, 0])),
        "all moved by 0.5 px": half_px,
        "one moved by 4 px": cut(series.odd, alone),
        "two exchanged": exchanged,
        "one scaled by 1.6": scaled,
        "one image later": np.roll(odd, -1, axis=0),
        "mirrored": odd[:, :, ::-1],
        "inverted": -odd,
    }
    return {name: _doubt(even, np.ascontiguousarray(half), REASONS.get(name)) for name, half in made.items()}


def _shifted(images: Stack, right_px: float) -> Stack:
    """Images moved along x without a change of their noise's spectrum; they wrap around."""
    width = images.shape[2]
    phase = np.exp(-2j * np.pi * right_px * np.fft.rfftfreq(width))
    return np.fft.irfft(np.fft.rfft(images, axis=2) * phase, n=width, axis=2).astype(np.float32)


def _doubt(even: Stack, odd: Stack, reason: str | None) -> str:
    """What is told of halves for a reason, or for any."""
    doubts = doubts_of_halves(even, odd)
    named = (reason,) if reason else ("opposite", "same", "unlike", "apart", "scaled")
    return next((f"{name}: {text}" for name in named if (text := getattr(doubts, name))), "")


def ask(
    specimen: Specimen, condition: str, side: int, count: int, library: tuple[Molecule, ...]
) -> list[dict[str, Any]]:
    """All answers for some series of a specimen."""
    rng = np.random.default_rng([SEED, *map(ord, specimen.title + condition)])
    answers = []
    for number, series in enumerate(series_of(specimen, condition, side, count, library), start=1):
        images = moved_images(series, side // 2, rng)
        answers.append(
            {"scene": specimen.title, "noise": condition, "series": number}
            | {"images": {name: dict(counts) for name, counts in images.items()}}
            | {"axes": {name: dict(counts) for name, counts in turned_axes(series, side // 2).items()}}
            | {"halves": unlike_halves(series, rng)}
        )
    return answers


def tables_of(answers: Sequence[dict[str, Any]], side: int) -> list[Table]:
    """By scene: what was told of images, and of halves."""
    scenes = list(dict.fromkeys(answer["scene"] for answer in answers))
    kinds = list(answers[0]["images"])
    changes = list(answers[0]["halves"])

    def images_row(title: str, some: Sequence[dict[str, Any]]) -> list[Cell]:
        row: list[Cell] = [title]
        for kind in kinds:
            total: Counter[str] = Counter()
            for answer in some:
                total.update(answer["images"][kind])
            if kind == kinds[0]:
                row.append(f"{total['false']} of {total['series']}")
            else:
                row.append(
                    f"{total['right']} of {total['moved']}" + (f" ({total['accused']})" if total["accused"] else "")
                )
        return row

    def axes_row(title: str, some: Sequence[dict[str, Any]]) -> list[Cell]:
        row: list[Cell] = [title, f"{sum(a['images'][kinds[0]].get('other', 0) for a in some)} of {len(some)}"]
        for turn in answers[0]["axes"]:
            right, other = (sum(answer["axes"][turn].get(name, 0) for answer in some) for name in ("right", "other"))
            row.append(f"{right} of {len(some)}" + (f" ({other})" if other else ""))
        return row

    def halves_row(title: str, some: Sequence[dict[str, Any]]) -> list[Cell]:
        return [title, *(f"{sum(bool(a['halves'][change]) for a in some)} of {len(some)}" for change in changes)]

    def by_scene(row: Any) -> list[list[Cell]]:
        rows = [row(scene, [a for a in answers if a["scene"] == scene]) for scene in scenes]
        noises = dict.fromkeys(a["noise"] for a in answers)
        rows += [row(f"all, {noise}", [a for a in answers if a["noise"] == noise]) for noise in noises]
        return [*rows, row("all", answers)]

    fields = f"Fields of {side // 2} x {side} x {side} voxels of 10 Å. "
    return [
        Table(
            "Images that lie wrong",
            ["scene", "series falsely told", *kinds[1:]],
            by_scene(images_row),
            fields + f"Images told, with the right move to {RIGHT_PX} px, of those moved; in brackets others accused.",
        ),
        Table(
            "Tilt axes that are turned",
            ["scene", "right axes warned of", *answers[0]["axes"]],
            by_scene(axes_row),
            fields + f"Series of which the axis is told within {RIGHT_DEG:g}°; in brackets other warnings of the whole "
            "series, which an axis that is turned gives, too.",
        ),
        Table(
            "Halves that do not match",
            ["scene", *changes],
            by_scene(halves_row),
            fields + "Series of which something is told; as they are, falsely.",
        ),
    ]


def main() -> None:
    """Ask about all series."""
    options = parser("misplaced", __doc__)
    options.add_argument("--molecules", type=Path, help="library of molecules; else procedural ones")
    options.add_argument("--series", type=int, default=2, help="of each scene and noise")
    options.add_argument("--side", type=int, default=128, help="pixels along x and y; half of that along z")
    options.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    arguments = read_arguments(options)
    count, side = (1, 64) if arguments.quick else (arguments.series, arguments.side)
    library = any_molecules(arguments.molecules)
    scenes = [specimen for specimen in SPECIMENS if specimen.title != "empty ice"][: 1 if arguments.quick else None]
    conditions = list(CONDITIONS)[: 1 if arguments.quick else None]
    answers: list[dict[str, Any]] = []
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        asked = [pool.submit(ask, scene, noise, side, count, library) for scene in scenes for noise in conditions]
        for one in asked:
            answers += one.result()
            print(answers[-1], flush=True)
    record("misplaced", {"tables": tables_of(answers, side), "series": answers}, arguments.output)


if __name__ == "__main__":
    main()
