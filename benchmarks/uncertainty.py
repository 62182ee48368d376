"""Is the error that ``--confidence`` states the error that there is? And the constants of its law, from other series.

Series with known truth are reconstructed, with all runs of the ensemble. Of some of them the law is made, which says
where a volume is wrong: non-negative least squares of the local squared error |V - aT|² (Gaussian window of 2 voxels,
a by regression over the volume, the volume's deviation as unit) on the moments of `confidence.doubt`;
each series counts by the reciprocal of its root mean square, and its moments are brought to its error, as the maps are
by what images tell. The others, with other molecules, noise, tilt ranges and recipes, tell what law and size are worth.
The size itself, r² of volume and specimen (`confidence.explained`), knows no series: all judge it. What
the volume's own local deviation says without any ensemble stands beside it.

Layers: what is the same all over a height (as the density of ice and its faces) is in no tilt of a series and no
structure; errors and r² are told with it and without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Cell, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.scenes import CONDITIONS, SCENES, Scene, Series, isolated, make_case, placed_molecules
from scipy.ndimage import gaussian_filter
from scipy.optimize import nnls

from cryolithe.fidelity import Region, region_masks
from cryolithe.files.yaml_table import merged
from cryolithe.machine.device import keep_freed_memory
from cryolithe.projector import make_projector
from cryolithe.reconstruction.confidence.doubt import LAW, MOMENTS, SHARE_SIGMA_PX, WINDOW_SIGMA_PX, Law
from cryolithe.reconstruction.confidence.explained import Explained
from cryolithe.reconstruction.confidence.members import choose_members, known_of, stack_of, turned_back
from cryolithe.reconstruction.ensemble import Made, Maps
from cryolithe.reconstruction.images.preparation import prepare_stack
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.in_memory import HeldSlabs
from cryolithe.reconstruction.jobs.job import Job, ResolvedJob, resolve
from cryolithe.reconstruction.jobs.sources import Held, held_sources
from cryolithe.reconstruction.run import first_plan, make_slabs
from cryolithe.reconstruction.setup.fitting import fit
from cryolithe.reconstruction.setup.settling import settled
from cryolithe.settings import resolve_settings
from cryolithe.simulation import Molecule
from cryolithe.simulation.classes import Structure
from cryolithe.simulation.procedural import procedural_library
from cryolithe.training.class_scoring import CLASS_SCENES, REGIONS, SUMMARY, ClassScene, draw_series
from cryolithe.work.watcher import Silent

Volume = NDArray[np.float32]

SEED = 95_000
CLASSES = {
    "membranes": SUMMARY["membranes"],
    "filaments": SUMMARY["filaments"],
    "small proteins": REGIONS["small proteins"],
    "large proteins": REGIONS["large proteins"],
    "empty": Region((int(Structure.ICE),)),
    "gold": Region((int(Structure.GOLD),)),
    "around gold": REGIONS["around gold"],
}
# Of least squares, from law to sizes of the series and back.
ROUNDS = 8
# Of a class in a series, to say anything of it.
FEWEST_VOXELS = 200
# Correlation of stated with measured error that is asked for.
WANTED = 0.5
# The window reads so many of its deviations to either side.
TRUNCATE = 3.0


@dataclass(frozen=True)
class Found:
    """What was measured on a series: all of shape ``(z, y, x)``, in deviations of the volume.

    Attributes:
        volume: less its mean.
        moments: by name.
        maps: by kind.
        error: the local root mean square error.
        correlation: local, of volume and truth, where maps of shares look.
        labels: classes of voxels.
        told: how much of the volume is right, as images tell it.
        true: squared correlation of the volume with the truth, with layers and without them.
        residuals: what the volume changes by when the residuals of its images change their sign; None where not asked.
    """

    volume: Volume
    moments: dict[str, torch.Tensor]
    maps: dict[str, Volume]
    error: Volume
    correlation: Volume
    labels: NDArray[np.uint8]
    told: Explained
    true: tuple[float, float]
    residuals: Volume | None


def _of_scene(scene: Scene, side: int, library: tuple[Molecule, ...], number: int) -> Series:
    clean = replace(scene, imaging=merged(scene.imaging, {"faults": {"hot_pixels": [0, 0]}}))
    case = make_case(clean, side, library, number)
    return Series(case.truth, case.labels, case.images.numpy(), case.angles_deg)


def _of_classes(scene: ClassScene, place: int, side: int, library: tuple[Molecule, ...], number: int) -> Series:
    shape = (side // 2, side, side)
    density, labels, images = draw_series(scene, [SEED, place, number], library, shape)
    return Series(density, labels, images, scene.angles_deg)


def _nothing(side: int) -> Series:
    """Images of nothing but noise."""
    angles = tuple(float(angle) for angle in range(-60, 61, 3))
    shape = (side // 2, side, side)
    images = np.random.default_rng(SEED).standard_normal((len(angles), side, side)).astype(np.float32)
    return Series(np.zeros(shape, np.float32), np.zeros(shape, np.uint8), images, angles)


def series_to_learn(side: int) -> dict[str, Callable[[], Series]]:
    """From which the law is made: structures in white noise, isolated proteins, a crowded recipe, nothing at all."""
    library = procedural_library(8, np.random.default_rng(SEED))
    found: dict[str, Callable[[], Series]] = {
        scene.title: partial(_of_classes, scene, place, side, library, 1) for place, scene in enumerate(CLASS_SCENES)
    }
    for scene in (isolated(-10.0), isolated(5.0)):
        found[scene.title] = partial(_of_scene, scene, side, library, 1)
    for number in (1, 2, 3):
        scene = replace(SCENES[3], title=f"{SCENES[3].title}, {number}")
        found[scene.title] = partial(_of_scene, scene, side, library, number)
    return found | {"noise alone": partial(_nothing, side)}


def series_to_judge(side: int, library: tuple[Molecule, ...]) -> dict[str, Callable[[], Series]]:
    """Which tell what it is worth: other molecules, noise and ranges of tilts, and the crowded recipes with optics."""
    scenes = [isolated(-6.0), isolated(2.0), *SCENES[3:], *(CONDITIONS[n] for n in (1, 3))]
    found: dict[str, Callable[[], Series]] = {
        scene.title: partial(_of_scene, scene, side, library, number) for number, scene in enumerate(scenes, start=500)
    }
    bilayers = replace(CLASS_SCENES[0], title="bilayers only, ±45°, -5 dB", reach_deg=45.0, snr_db=-5.0)
    mixed = replace(CLASS_SCENES[-1], title="mixed structures, ±50°, -6 dB", reach_deg=50.0, snr_db=-6.0)
    threads = replace(CLASS_SCENES[3], title="filaments and microtubules, ±55°, -6 dB", reach_deg=55.0, snr_db=-6.0)
    for place, scene in ((20, bilayers), (21, mixed), (22, threads)):
        found[scene.title] = partial(_of_classes, scene, place, side, library, 2)
    return found


def made_of(run: ResolvedJob, stack: PreparedStack, plan: dict[str, Any]) -> Volume:
    """The voxels of a run."""
    held = HeldSlabs(run.grid.shape, "float32")
    make_slabs(run, held, plan, stack, Silent())
    return held.voxels


def measure(series: Series, model: str, law: Law = LAW, residuals: bool = False) -> Found:
    """Reconstruct a series with all members and compare it with the truth."""
    depth, height, _ = series.truth.shape
    wanted = {"model": model, "thickness": depth, "contrast": "bright", "device": "cpu", "confidence": True}
    settings = resolve_settings({}, {}, wanted, "", "uncertainty.py")
    sources = held_sources(Held(series.images, 10.0), series.angles_deg, settings)
    run = resolve(Job(Path("tilts"), None, Path("volume.mrc"), settings), sources=sources)
    stack = prepare_stack(run.series, run.preparation, None)
    plan = settled(run, stack, first_plan(run, fit(run), {}), Silent())
    whole = made_of(run, stack, plan)
    members = choose_members(stack.geometry.angles_deg)
    volumes = {m.name: turned_back(made_of(known_of(run, m), stack_of(stack, m), plan), m) for m in members}
    mean, deviation = float(whole.mean()), float(whole.std())
    maps = Maps(run, stack, Made(whole, volumes, mean, deviation), members, law)
    moments = maps.moments(0, height)
    kinds = {kind: values.numpy() for kind, values in maps.rows(0, height).items()}
    volume, truth = (whole - mean) / deviation, series.truth - series.truth.mean()
    power = float((truth**2).sum())
    truth = truth * (float((truth * volume).sum()) / power if power > 0 else 0.0)
    changed = _with_turned_residuals(run, stack, plan, whole) / deviation if residuals else None
    error, common = smoothed((volume - truth) ** 2) ** 0.5, _correlation(volume, truth)
    true = _squared_correlation(volume, truth), _squared_correlation(*map(_without_layers, (volume, truth)))
    return Found(volume, moments, kinds, error, common, series.labels, maps.explained, true, changed)


def _without_layers(volume: Volume) -> Volume:
    return volume - volume.mean((1, 2), keepdims=True)


def _squared_correlation(a: Volume, b: Volume) -> float:
    power = float((a * a).sum()) * float((b * b).sum())
    return float((a * b).sum()) ** 2 / power if power > 0 else 0.0


def smoothed(values: Volume, sigma_px: float = WINDOW_SIGMA_PX) -> Volume:
    """Means in the window."""
    return np.clip(gaussian_filter(values, sigma_px, truncate=TRUNCATE), 0, None)


def _correlation(volume: Volume, truth: Volume) -> Volume:
    common = gaussian_filter(volume * truth, SHARE_SIGMA_PX, truncate=TRUNCATE)
    powers = smoothed(volume**2, SHARE_SIGMA_PX) * smoothed(truth**2, SHARE_SIGMA_PX)
    return np.asarray(common / np.sqrt(powers + 1e-9), dtype=np.float32)


def _with_turned_residuals(run: ResolvedJob, stack: PreparedStack, plan: dict[str, Any], whole: Volume) -> Volume:
    """Half the difference to the volume of images 2PV - y: those of the volume, less what they leave of the images."""
    depth, height, width = run.grid.shape
    projector = make_projector(stack.geometry, (depth, width), run.device)
    turned = 2 * projector.forward(torch.from_numpy(whole)) - stack.read_rows(0, height)
    changed = whole - made_of(run, replace(stack, pixels=turned.numpy()), plan)
    return np.asarray(changed / 2, dtype=np.float32)


def fitted_law(found: list[Found]) -> Law:
    """The constants, rounded to two digits."""
    left, right = [], []
    for one in found:
        left.append(np.stack([one.moments[name].numpy()[::2, ::2, ::2].ravel() for name in MOMENTS], 1))
        right.append((one.error**2)[::2, ::2, ::2].ravel())
    sizes, constants = np.ones(len(found)), np.ones(len(MOMENTS))
    for _ in range(ROUNDS):
        weights = [size / np.sqrt(error.mean()) for size, error in zip(sizes, right, strict=True)]
        scaled = [values * weight for values, weight in zip(left, weights, strict=True)]
        wanted = [error / np.sqrt(error.mean()) for error in right]
        constants, _ = nnls(np.concatenate(scaled).astype(np.float64), np.concatenate(wanted).astype(np.float64))
        sizes = np.array([error.mean() / (m @ constants).mean() for m, error in zip(left, right, strict=True)])
    return Law(*(float(f"{value:.2g}") for value in constants))


def alike(a: Volume, b: Volume) -> float | None:
    """Correlation of two maps, or of some of their voxels; None where one is constant."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) if a.std() > 0 and b.std() > 0 else None


def judged(found: Found) -> dict[str, Any]:
    """Numbers of a series."""
    stated, confidence = found.maps["error"], found.maps["confidence"]
    own = np.sqrt(found.moments["total"].numpy())
    scores: dict[str, Any] = {
        "correlation": alike(stated, found.error),
        "deviation_alone": alike(own, found.error),
        "ratio": float(stated.mean() / found.error.mean()),
        "measured": float(found.error.mean()),
        "confidence": float(confidence.mean()),
        "true_correlation": float(found.correlation.mean()),
        "told": found.told.share,
        "true": found.true[0],
        "true_without_layers": found.true[1],
        "unsupported": float(found.maps["unsupported"].mean()),
        "classes": {},
    }
    for name, mask in region_masks(found.labels, CLASSES).items():
        scores["classes"][name] = {
            "correlation": alike(stated[mask], found.error[mask]),
            "ratio": float(stated[mask].mean() / found.error[mask].mean()),
            "confidence": float(confidence[mask].mean()),
            "true_correlation": float(found.correlation[mask].mean()),
            "voxels": int(mask.sum()),
            "unsupported": float(found.maps["unsupported"][mask].mean()),
        }
    if found.residuals is not None:
        turned = np.sqrt(smoothed(found.residuals**2))
        parts = np.stack([*(np.sqrt(found.moments[name].numpy()) for name in MOMENTS)], -1).reshape(-1, len(MOMENTS))
        scores["residuals"] = {
            "correlation": alike(turned, found.error),
            "with_own_best_constants": [
                _best(parts, found.error.ravel()),
                _best(np.column_stack([parts, turned.ravel()]), found.error.ravel()),
            ],
        }
    return scores


def _best(parts: NDArray[np.floating], error: Volume) -> float | None:
    """Correlation with the error of that sum of squares which suits this very series best."""
    squares = np.square(parts.astype(np.float64))
    constants, _ = nnls(squares, np.square(error.astype(np.float64)))
    return alike(np.sqrt(squares @ constants).astype(np.float32), error)


def series_table(rows: dict[str, dict[str, Any]]) -> Table:
    """A row for each series and model."""
    columns = ["series", "model", "r stated, measured", "r deviation alone", "stated / measured", "measured error",
               "r² told", "r² true", "without layers", "confidence", "true correlation", "unsupported"]  # fmt: skip
    names = ("correlation", "deviation_alone", "ratio", "measured", "told", "true", "true_without_layers",
             "confidence", "true_correlation", "unsupported")  # fmt: skip
    cells: list[list[Cell]] = [[*name.split(" | "), *(row[key] for key in names)] for name, row in rows.items()]
    note = "Windows: 2 voxels for errors, 4 for shares. Units: deviations of the volume. Noise alone has no truth."
    return Table("Stated and measured error", columns, cells, " ".join([note, *summaries(rows)]))


def summaries(rows: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence for each model."""
    found = []
    for model in dict.fromkeys(name.split(" | ")[1] for name in rows):
        of_model = [row for name, row in rows.items() if name.endswith(f" | {model}") and row["true"] > 0]
        alike, sizes = [row["correlation"] for row in of_model], [row["ratio"] for row in of_model]
        apart = float(np.mean([abs(row["confidence"] - row["true_correlation"]) for row in of_model]))
        found.append(
            f"{model}: r {min(alike):.2f} to {max(alike):.2f}, at least {WANTED} on {sum(r >= WANTED for r in alike)} "
            f"of {len(alike)}; stated / measured {min(sizes):.2f} to {max(sizes):.2f}, geometric mean "
            f"{float(np.exp(np.mean(np.log(sizes)))):.2f}; confidence {apart:.2f} from the true one on average."
        )
    return found


def class_table(rows: dict[str, dict[str, Any]]) -> Table:
    """A row for each class and model: means over the series that hold the class, and the extremes of the size."""
    columns = ["class", "model", "series", "r stated, measured", "stated / measured", "lowest", "highest",
               "confidence", "true correlation"]  # fmt: skip
    cells: list[list[Cell]] = []
    for model in dict.fromkeys(name.split(" | ")[1] for name in rows):
        for kind in CLASSES:
            of_model = [row["classes"] for name, row in rows.items() if name.endswith(f" | {model}")]
            held = [one[kind] for one in of_model if kind in one and one[kind]["voxels"] >= FEWEST_VOXELS]
            if not held:
                continue
            ratios = [one["ratio"] for one in held]
            known = [one["correlation"] for one in held if one["correlation"] is not None]
            means = [float(np.mean([one[key] for one in held])) for key in ("confidence", "true_correlation")]
            size = [float(np.exp(np.mean(np.log(ratios)))), min(ratios), max(ratios)]
            cells.append([kind, model, len(held), float(np.mean(known)) if known else None, *size, *means])
    note = f"Means over series with at least {FEWEST_VOXELS} voxels of the class; of sizes, geometric."
    return Table("By class of structure", columns, cells, note)


def main() -> None:
    """Make the law, then judge it."""
    made = parser("uncertainty", __doc__)
    made.add_argument("--side", type=int, default=64)
    made.add_argument("--models", nargs="+", default=["default"], help="judged; the law is made by the first")
    made.add_argument("--residuals", action="store_true", help="also: residuals with their sign turned")
    made.add_argument("--molecules", type=Path)
    arguments = read_arguments(made)
    if arguments.quick:
        arguments.models, arguments.side = ["draft"], 32
    keep_freed_memory()
    learn = series_to_learn(arguments.side)
    judge = series_to_judge(arguments.side, placed_molecules(arguments.molecules))
    if arguments.quick:
        learn, judge = dict(list(learn.items())[:2]), dict(list(judge.items())[:1])
    first = arguments.models[0]
    known = {}
    for name, draw in learn.items():
        known[f"{name} | {first}"] = measure(draw(), first, residuals=arguments.residuals)
        print(f"{name}: made", flush=True)
    law = fitted_law(list(known.values()))
    print(f"law: {law}; in use: {LAW}", flush=True)
    learnt = {name: judged(found) for name, found in known.items()}
    known.clear()
    rows = {}
    for name, draw in judge.items():
        series = draw()
        for model in arguments.models:
            rows[f"{name} | {model}"] = judged(measure(series, model, law))
            print(f"{name} | {model}: r {rows[f'{name} | {model}']['correlation']:.2f}", flush=True)
    law_table = Table("Constants of the law", list(MOMENTS), [[getattr(law, name) for name in MOMENTS]])
    of_law = series_table(learnt)
    results = {
        "law": {name: getattr(law, name) for name in MOMENTS},
        "learnt": learnt,
        "rows": rows,
        "tables": [
            law_table,
            series_table(rows),
            class_table(rows),
            replace(of_law, title=f"{of_law.title}, series of the law"),
        ],
    }
    record("uncertainty", results, arguments.output)


if __name__ == "__main__":
    main()
