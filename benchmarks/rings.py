"""How often a wrong table of the defocus is told from the rings of Thon of the images, and how often a right one is.

Simulated specimens of polarity.py's kinds and scenes of `cryolithe.simulation.diverse`, small fields with pixels of
5 Å, defoci of 1.2 to 6.5 µm, a third of them without any CTF, where whatever is told is false. Asked is what
`cryolithe reconstruct --ctf` asks. Cells with finer detail, in larger fields, are in hand.py's table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import Cell, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.scenes import Scene, any_molecules, recipe_of
from polarity import SPECIMENS, Specimen

from cryolithe.optics.transfer import Optics, TiltedView
from cryolithe.reconstruction.evidence.thon_rings import (
    Rings,
    RingSpectra,
    asked_for_rings,
    ring_evidence,
    strange_images,
)
from cryolithe.simulation import Molecule, simulate_series
from cryolithe.simulation.diverse import SCENES, draw_scene
from cryolithe.simulation.imaging import ImagedSeries, image_series
from cryolithe.simulation.imaging_recipe import ImagingRecipe

SEED, PIXEL_ANGSTROM, DEPTH = 9000, 5.0, 64
DEFOCI_UM, OFF_UM = (1.2, 6.5), (-0.9, 1.0, 2.5)
# A defocus that is told is right if it is as near as this.
RIGHT_UM, RIGHT_SHARE = 0.5, 0.15
KINDS = (*(specimen.title for specimen in SPECIMENS), *sorted(SCENES))


class Series(NamedTuple):
    """Images with their optics, and the state that they are in."""

    images: NDArray[np.float32]
    angles_deg: tuple[float, ...]
    optics: tuple[Optics, ...]
    handedness: int
    with_ctf: bool


def imaging_of(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """How a series is recorded; every third one without a CTF."""
    defocus, dose = rng.uniform(*DEFOCI_UM), rng.uniform(60, 160)
    return {
        "noise": "counting",
        "ctf": "none" if number % 3 == 0 else "left",
        "exposure_weighting": False,
        "total_exposure": [dose, dose],
        "specimen_contrast": [0.6, 2.0],
        "optics": {
            "defocus_um": [defocus, defocus],
            "defocus_spread_um": [0.05, 0.15],
            "astigmatism_um": [0.0, 0.1],
            "handedness": int(rng.choice([-1, 1])),
            "illumination_mrad": float(rng.choice([0.0, 0.02, 0.04])),
        },
        "detector": {"elastic_path_nm": 520.0, "zero_loss": True},
    }


def series_of(kind: str, side: int, count: int, library: tuple[Molecule, ...]) -> Iterator[Series]:
    """Some series of a kind."""
    for number in range(1, count + 1):
        rng = np.random.default_rng([SEED, KINDS.index(kind), number])
        imaging = imaging_of(number, rng)
        made = _of_scene(kind, side, imaging, library, rng) if kind in SCENES else None
        made = made or _of_specimen(kind, side, imaging, library, SEED + number)
        angles = tuple(float(angle) for angle in np.asarray(made.plan.angles_deg))
        hand, with_ctf = imaging["optics"]["handedness"], imaging["ctf"] == "left"
        yield Series(np.asarray(made.images, np.float32), angles, made.optics, hand, with_ctf)


def _of_specimen(
    kind: str, side: int, imaging: dict[str, Any], library: tuple[Molecule, ...], seed: int
) -> ImagedSeries:
    specimen: Specimen = next(one for one in SPECIMENS if one.title == kind)
    recipe = recipe_of(Scene(kind, specimen.recipe, {**imaging, **specimen.imaging}), side)
    cell = replace(
        recipe.cell,
        **specimen.cell,
        shape=(min(DEPTH, side), side, side),
        voxel_size_angstrom=(PIXEL_ANGSTROM, PIXEL_ANGSTROM),
    )
    return simulate_series(recipe.model_copy(update={"cell": cell}), library, seed).series


def _of_scene(
    kind: str, side: int, imaging: dict[str, Any], library: tuple[Molecule, ...], rng: np.random.Generator
) -> ImagedSeries:
    density, _ = draw_scene(SCENES[kind], (min(DEPTH, side), side, side), PIXEL_ANGSTROM, library, rng)
    recipe = recipe_of(Scene(kind, "cellular", {**imaging, "thickness_angstrom": [300.0, 1500.0]}), side).imaging
    assert isinstance(recipe, ImagingRecipe)
    return image_series(density, slice(0, side), PIXEL_ANGSTROM, recipe, rng)


def spectra_of(series: Series, off_um: float = 0.0) -> RingSpectra:
    """Of a series whose defoci are told wrongly by so much."""
    numbers, shape = asked_for_rings(series.angles_deg), (series.images.shape[1], series.images.shape[2])
    views = tuple(
        TiltedView(replace(optics, defocus_um=optics.defocus_um + off_um), angle_deg, PIXEL_ANGSTROM, series.handedness)
        for optics, angle_deg in zip(series.optics, series.angles_deg, strict=True)
    )
    rings = Rings(views, numbers, shape)
    for number in rings.asked:
        rings.ask(number, series.images[number])
    return rings.found()


def asked(kind: str, side: int, count: int, library: tuple[Molecule, ...]) -> dict[str, Counter[str]]:
    """What is told of some series of a kind, by the state of their images."""
    torch.set_num_threads(1)
    found = {"CTF left": Counter[str](), "no CTF": Counter[str]()}
    for series in series_of(kind, side, count, library):
        counts = found["CTF left" if series.with_ctf else "no CTF"]
        spectra = spectra_of(series)
        right, true = ring_evidence(spectra), float(np.mean([view.optics.defocus_um for view in spectra.views]))
        counts.update(series=1, images=len(spectra.numbers), alone=len(strange_images(spectra)))
        counts.update(false=int(right.found_um is not None), confirmed=int(right.confirmed))
        for off in OFF_UM if series.with_ctf else ():
            near = abs(off) <= max(RIGHT_UM, RIGHT_SHARE * (true + off))
            if near or true + off < 0.6:
                continue
            wrong = ring_evidence(spectra_of(series, off))
            hit = wrong.found_um is not None and abs(wrong.found_um - true) <= max(RIGHT_UM, RIGHT_SHARE * true)
            counts.update(tables=1, told=int(hit), astray=int(wrong.found_um is not None and not hit))
            counts.update(agreed=int(wrong.confirmed))
    return found


def main() -> None:
    """Ask about all kinds."""
    options = parser("rings", __doc__)
    options.add_argument("--molecules", type=Path, help="library of molecules; else procedural ones")
    options.add_argument("--series", type=int, default=6, help="of each kind")
    options.add_argument("--side", type=int, default=384, help="pixels along x and y")
    options.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    arguments = read_arguments(options)
    library = any_molecules(arguments.molecules)
    side, count = (96, 3) if arguments.quick else (arguments.side, arguments.series)
    kinds = KINDS[:2] if arguments.quick else KINDS
    rows: list[list[Cell]] = []
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        runs = [pool.submit(asked, kind, side, count, library) for kind in kinds]
        answers = [run.result() for run in runs]
    total = {"CTF left": Counter[str](), "no CTF": Counter[str]()}
    for kind, answer in zip((*kinds, "all"), (*answers, total), strict=True):
        for state, counts in answer.items():
            if kind != "all":
                total[state].update(counts)
            tables = counts["tables"]
            rows.append(
                [
                    kind,
                    state,
                    counts["series"],
                    counts["false"],
                    f"{counts['alone']} of {counts['images']}",
                    counts["confirmed"] if tables else "-",
                    f"{counts['told']} of {tables}" if tables else "-",
                    counts["astray"] if tables else "-",
                    counts["agreed"] if tables else "-",
                ]
            )
            print(rows[-1], flush=True)
    columns = ["specimen", "images", "series", "right ones told", "single images told", "right ones confirmed"]
    columns += ["wrong ones told", "of another defocus", "wrong ones confirmed"]
    note = (
        f"Fields of {side * PIXEL_ANGSTROM / 1e4:.2g} µm, defoci of {DEFOCI_UM[0]:g} to {DEFOCI_UM[1]:g} µm. Wrong "
        f"tables are off by {', '.join(f'{off:+g}' for off in OFF_UM)} µm; those within 0.5 µm or 15 % of the truth "
        "are left out."
    )
    record("rings", {"tables": [Table("Tables of the defocus against rings", columns, rows, note)]}, arguments.output)


if __name__ == "__main__":
    main()
