"""How often the polarity of tilt series is found from their images: right, unsure or wrong, by scene and noise.

Small fields of simulated specimens with white noise or whole image formation, the CTF left in or corrected, dense
matter dark or bright by turns; and the needle in examples/, dense = bright. Beside the rule that `--contrast auto` uses
stand its two signs alone, and the simplest sign there is: the skewness of low-passed images, each scene by scene.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
import torch
from common import ROOT, Cell, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.scenes import Scene, any_molecules, recipe_of

from cryolithe.errors import InputError
from cryolithe.formats import read_angles_deg, read_mrc
from cryolithe.geometry import TiltGeometry
from cryolithe.network.checkpoint import load_model
from cryolithe.reconstruction.evidence.asymmetry import measure_evidence
from cryolithe.reconstruction.evidence.polarity import DECISIVE_SHARE, Contrast, Evidence, decide
from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
from cryolithe.reconstruction.setup.looking import JUDGE
from cryolithe.simulation import Molecule, simulate_series
from cryolithe.tilts import TiltSeries

NEEDLE = ROOT / "examples" / "needle"
# What low-passed images are: a Gaussian of so many pixels, less one of three times that.
SKEWED_PX = 2.0
LEAST_SKEWNESS = 0.05
NOTHING = (
    "vesicles tubes organelles actin microtubules nucleic_acids gold crystals bodies crowding ribosomes_micromolar "
    "cytosol_mg_ml cytosol_variation roughness_nm"
)
BARE: dict[str, Any] = {
    **dict.fromkeys(NOTHING.split(), (0.0, 0.0)),
    "sheets": (0, 0),
    "carbon_chance": 0.0,
    "lamella_chance": 0.0,
}
CONDITIONS: dict[str, dict[str, Any]] = {
    **{f"{snr_db:+d} dB": {"noise": "white", "snr_db": [snr_db, snr_db]} for snr_db in (-10, -5, 0, 10)},
    **{f"CTF {ctf}": {"noise": "counting", "ctf": ctf} for ctf in ("left", "phase-flipped", "wiener")},
}


@dataclass(frozen=True)
class Specimen:
    """Series of one kind.

    Attributes:
        title: as the table shows it.
        recipe: name of a shipped recipe.
        cell: what is changed in what its cells contain.
        imaging: what is changed in how they are imaged.
    """

    title: str
    recipe: str
    cell: Mapping[str, Any] = field(default_factory=dict)
    imaging: Mapping[str, Any] = field(default_factory=dict)


# Fields are small, so numbers per area are high: a few of each are seen.
SPECIMENS = (
    Specimen("isolated proteins", "isolated_proteins", imaging={"specimen_contrast": [0.5, 2.0]}),
    Specimen("cells", "cellular"),
    Specimen("lamella", "lamella"),
    Specimen("vesicles and gold", "vesicles_gold"),
    Specimen(
        "membranes only",
        "cellular",
        BARE | {"vesicles": (300.0, 900.0), "tubes": (100.0, 500.0), "vesicle_radius_nm": (8.0, 30.0)},
    ),
    Specimen("filaments only", "cellular", BARE | {"actin": (500.0, 1500.0), "microtubules": (50.0, 300.0)}),
    Specimen(
        "filaments in cytosol",
        "cellular",
        BARE
        | {
            "actin": (500.0, 1500.0),
            "microtubules": (50.0, 300.0),
            "cytosol_mg_ml": (200.0, 300.0),
            "cytosol_variation": (0.15, 0.35),
        },
    ),
    Specimen("gold only", "cellular", BARE | {"gold": (300.0, 900.0)}),
    Specimen(
        "crowded, 250-300 nm thick",
        "cellular",
        {"crowding": (0.3, 0.5), "gold": (0.0, 0.0)},
        {"thickness_angstrom": [2500.0, 3000.0], "specimen_contrast": [0.5, 0.8]},
    ),
    Specimen("empty ice", "cellular", BARE),
)
OPPOSITE: dict[Contrast, Contrast] = {"dark": "bright", "bright": "dark"}
SIGNS = ("rule", "asymmetry", "network", "skewness")


class Seen(NamedTuple):
    """What each of `SIGNS` says of a series, and the evidence."""

    said: dict[str, Contrast | None]
    evidence: Evidence


def skewness_sign(images: NDArray[np.float32]) -> Contrast | None:
    """The simplest sign: the mean skewness of low-passed images, no network and no geometry."""
    values = []
    for image in images:
        low, lower = (scipy.ndimage.gaussian_filter(image, sigma) for sigma in (SKEWED_PX, 3 * SKEWED_PX))
        flat = low - lower
        flat = flat - flat.mean()
        values.append(float((flat**3).mean() / max(float((flat**2).mean()) ** 1.5, 1e-30)))
    mean = float(np.mean(values))
    return None if abs(mean) < LEAST_SKEWNESS else ("bright" if mean > 0 else "dark")


@torch.inference_mode()
def look(images: NDArray[np.float32], angles_deg: Sequence[float], depth: int) -> Seen:
    """Ask all signs about a series as it lies on disk."""
    geometry = TiltGeometry(tuple(float(a) for a in angles_deg), (images.shape[1], images.shape[2]))
    with tempfile.TemporaryDirectory() as folder:
        series = TiltSeries(np.ascontiguousarray(images), geometry)
        stack = prepare_stack(series, Preparation(clip_defects=True), Path(folder) / "stack.f32")
        evidence = measure_evidence(stack, depth, load_model(JUDGE).network)
    share = evidence.share
    by_network: Contrast | None = None if abs(share) < DECISIVE_SHARE else ("bright" if share > 0 else "dark")
    alone = decide(replace(evidence, explained_bright=0.0, explained_dark=0.0))
    said = {"rule": decide(evidence), "asymmetry": alone, "network": by_network, "skewness": skewness_sign(images)}
    return Seen(said, evidence)


def series_of(
    specimen: Specimen, condition: str, side: int, count: int, library: tuple[Molecule, ...]
) -> Iterator[tuple[int, NDArray[np.float32], tuple[float, ...]]]:
    """Images as recorded, dense = dark, and angles of some series."""
    imaging = {**specimen.imaging, **CONDITIONS[condition]}
    recipe = recipe_of(Scene(specimen.title, specimen.recipe, imaging), side)
    recipe = recipe.model_copy(update={"cell": replace(recipe.cell, **specimen.cell)})
    for number in range(1, count + 1):
        made = simulate_series(recipe, library, number)
        angles = tuple(float(a) for a in np.asarray(made.series.plan.angles_deg))
        yield number, np.asarray(made.series.images, dtype=np.float32), angles


def ask(
    specimen: Specimen, condition: str, side: int, count: int, library: tuple[Molecule, ...]
) -> list[dict[str, Any]]:
    """What all signs say of some series, bright and dark by turns."""
    answers = []
    for number, images, angles in series_of(specimen, condition, side, count, library):
        true: Contrast = "bright" if number % 2 else "dark"
        seen = look(-images if true == "bright" else images, angles, side // 2)
        named = {"scene": specimen.title, "noise": condition, "series": number, "true": true}
        answers.append({**named, **seen.said, "evidence": asdict(seen.evidence)})
    return answers


def verdict(said: Contrast | None, true: Contrast) -> str:
    """Right, unsure or wrong."""
    return "unsure" if said is None else ("right" if said == true else "wrong")


def counts_of(verdicts: Sequence[str]) -> str:
    """``right / unsure / wrong``."""
    counts = Counter(verdicts)
    return " / ".join(str(counts[name]) for name in ("right", "unsure", "wrong"))


def real_series(folder: Path | None) -> Iterator[tuple[str, Contrast, NDArray[np.float32], tuple[float, ...], int]]:
    """Name, true polarity, images, angles and depth of the needle, and of ribosome*.mrc in a folder, dense = bright."""
    found = [(NEEDLE / "needle.mrc", None), *((path, 64) for path in sorted((folder or Path()).glob("ribosome*.mrc")))]
    for path, depth in found:
        images = np.asarray(read_mrc(path).data, dtype=np.float32)
        yield path.stem, "bright", images, read_angles_deg(path.with_suffix(".tlt")), depth or images.shape[2] // 2


def main() -> None:
    """Ask all signs about all series."""
    options = parser("polarity", __doc__)
    options.add_argument("--molecules", type=Path, help="library of molecules; else procedural ones")
    options.add_argument("--series", type=int, default=6, help="of each scene and noise")
    options.add_argument("--side", type=int, default=96, help="pixels along x and y; half of that along z")
    options.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    options.add_argument("--real", type=Path, metavar="FOLDER", help="with ribosome*.mrc and .tlt, dense = bright")
    arguments = read_arguments(options)
    if arguments.molecules is not None and not arguments.molecules.is_file():
        raise InputError(f"there is no molecule library {arguments.molecules}")
    count, side = (1, 48) if arguments.quick else (arguments.series, arguments.side)
    library = any_molecules(arguments.molecules)
    specimens = SPECIMENS[:2] if arguments.quick else SPECIMENS
    conditions = list(CONDITIONS)[:1] if arguments.quick else list(CONDITIONS)
    verdicts: dict[str, dict[str, dict[str, list[str]]]] = {sign: {} for sign in SIGNS}
    details = []
    torch.set_num_threads(max(1, torch.get_num_threads() // arguments.jobs))
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        asked = {
            (specimen.title, condition): pool.submit(ask, specimen, condition, side, count, library)
            for specimen in specimens
            for condition in conditions
        }
        for (title, condition), answers in asked.items():
            details += answers.result()
            for sign in SIGNS:
                told = [verdict(answer[sign], answer["true"]) for answer in answers.result()]
                verdicts[sign].setdefault(title, {})[condition] = told
            print(f"{title}, {condition}: {counts_of(verdicts['rule'][title][condition])}", flush=True)
    real_rows: list[list[Cell]] = []
    for name, dense, stack, tilts, depth in real_series(arguments.real):
        for factor, wanted in ((1, dense), (-1, OPPOSITE[dense])):
            found = look(factor * stack, tilts, depth)
            said = [verdict(found.said[one], wanted) for one in SIGNS]
            real_rows.append([f"{name}{'' if factor == 1 else ', inverted'}", *said, str(found.evidence)])
    record("polarity", {"tables": tables_of(verdicts, real_rows, side), "series": details}, arguments.output)


def tables_of(
    verdicts: Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]], real_rows: list[list[Cell]], side: int
) -> list[Table]:
    """The rule by scene and noise, all signs by scene, and the real series."""
    rule = verdicts["rule"]
    conditions = list(next(iter(rule.values())))
    by_noise = [[title, *(counts_of(row[c]) for c in conditions)] for title, row in rule.items()]
    by_sign = [
        [title, *(counts_of([v for c in conditions for v in verdicts[sign][title][c]]) for sign in SIGNS)]
        for title in rule
    ]
    total = [
        counts_of([v for title in rule if title != "empty ice" for c in conditions for v in verdicts[sign][title][c]])
        for sign in SIGNS
    ]
    note = f"Right / unsure / wrong; fields of {side // 2} x {side} x {side} voxels of 10 Å. Empty ice has no polarity."
    return [
        Table("Polarity found by --contrast auto", ["scene", *conditions], by_noise, note),
        Table(
            "The rule, its two signs alone, and the skewness of low-passed images",
            ["scene", *SIGNS],
            [*by_sign, ["all but empty ice", *total]],
            "Right / unsure / wrong, all kinds of noise together.",
        ),
        Table("Real series, dense = bright, and inverted", ["series", *SIGNS, "evidence"], real_rows),
    ]


if __name__ == "__main__":
    main()
