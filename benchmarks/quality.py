"""How good on simulated series with known truth: our networks, FBP, SIRT, filtering, Noise2Noise and Topaz-Denoise.

Small fields of the shipped recipes, filled with molecules that the bundled models never saw. Every method gets the
same prepared images; scales and offsets do not matter to any score. Our networks stand as users get them, with the
share of FBP that their cards say and their missing wedge weighed by left-out tilts; the first of them also alone. Free
numbers of the simple methods are chosen from halves of the data, without the truth; rows marked "oracle" choose by the
truth, which no user can.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from baselines.classical import (
    ITERATIONS,
    SIGMAS_PX,
    Half,
    choose_iterations,
    gaussian,
    middle,
    oracle_gaussian,
    oracle_iterations,
    snapshots,
    wide_projector,
)
from baselines.n2n import N2nSettings, noise2noise
from baselines.topaz import Topaz, find_topaz
from common import Cell, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.measures import NAMES, Scores, better_than, lost_cell, means_of, measure, rounded, spread_cell
from parts.scenes import CONDITIONS, SCENES, SEED, Case, Scene, make_case, placed_molecules
from parts.sheets import draw_sheet

from cryolithe.fidelity import BANDS, best_gaussian, mask_fidelity, region_masks
from cryolithe.machine.device import choose_precision, keep_freed_memory
from cryolithe.network import SliceSetConfig
from cryolithe.network.checkpoint import Model, load_model
from cryolithe.projector.classical import fbp, sirt
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.reconstruction.slabwise.networks import fbp_share
from cryolithe.simulation import Molecule, Structure
from cryolithe.training import class_scoring
from cryolithe.training.scoring import finished_array, reconstruct_array

Volume = NDArray[np.float32]

FBP, SIRT, N2N, TOPAZ = "FBP", "SIRT", "Noise2Noise U-Net", "Topaz-Denoise 3-D"
GAUSSIAN = "FBP + Gaussian"
ORACLE = " (oracle)"
# The widest Gaussian of the bands.
INSIDE_PX = 8
ALONE = ", network alone"
CONDITION_MEASURES = ("fsc_measured", "fsc_missing")
NOT_TESTED = (
    "real specimens other than the needle",
    "voxels below 6 Å or above 14 Å",
    "fields larger than these, where training of a Noise2Noise network has more data",
    "Noise2Noise networks trained for hours on a GPU, or on many series at once",
    "wedge-filling networks that are trained on the series (IsoNet, DeepDeWedge)",
    "subtomogram averages",
)


class Made(NamedTuple):
    """A volume, the seconds that it took (None for an oracle's), and what was chosen on the way."""

    volume: Volume
    seconds: float | None
    detail: dict[str, Any]


@dataclass(frozen=True)
class Tools:
    """What methods need beside a case.

    Attributes:
        models: by row label.
        compute: device and precision of networks.
        n2n: how Noise2Noise trains; None leaves it out.
        topaz: None leaves it out.
    """

    models: Mapping[str, Model]
    compute: Compute
    n2n: N2nSettings | None = None
    topaz: Topaz | None = None


@dataclass
class Runs:
    """Scores and choices so far: scene -> method -> one for each series; fidelity by class: scene -> one for each."""

    scores: dict[str, dict[str, list[Scores]]] = field(default_factory=dict)
    details: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    fidelity: dict[str, list[class_scoring.Table]] = field(default_factory=dict)

    def add(self, scene: str, method: str, scores: Scores, detail: dict[str, Any]) -> None:
        """Add one series."""
        self.scores.setdefault(scene, {}).setdefault(method, []).append(scores)
        self.details.setdefault(scene, {}).setdefault(method, []).append(detail)


def timed(call: Callable[[], Volume]) -> Made:
    start = time.perf_counter()
    volume = call()
    return Made(volume, time.perf_counter() - start, {})


def with_networks(case: Case, tools: Tools) -> dict[str, Made]:
    """Volumes of our networks as users get them, and of the first network by itself."""
    images, angles, depth = case.images.numpy(), case.angles_deg, case.truth.shape[0]
    found: dict[str, Made] = {}
    for label, model in tools.models.items():
        network, share = model.network, fbp_share(model, None)
        start = time.perf_counter()
        alone = reconstruct_array(network, images, angles, depth, tools.compute)
        seconds = time.perf_counter() - start
        mixed = finished_array(network, alone, images, angles, share, tools.compute)
        extra = {} if found else {label + ALONE: Made(alone, seconds, {})}
        found |= {label: Made(mixed, time.perf_counter() - start, {"fbp_share": share}), **extra}
    return found


def with_everything(case: Case, tools: Tools) -> dict[str, Made]:
    """Volumes of all methods."""
    plain = timed(lambda: fbp(case.projector, case.images).numpy())
    start = time.perf_counter()
    even, odd = (fbp(case.projector, half).numpy() for half in (case.even, case.odd))
    filtered = gaussian(plain.volume, even, odd)
    seconds = time.perf_counter() - start
    best = oracle_gaussian(plain.volume, case.truth)
    found = {
        FBP: plain,
        GAUSSIAN: Made(filtered.volume, seconds, {"sigma_px": filtered.value}),
        GAUSSIAN + ORACLE: Made(best.volume, None, {"sigma_px": best.value}),
    }
    start = time.perf_counter()
    number, scores = iterations_of(case)
    wide = wide_projector(case.angles_deg, case.truth.shape[1:], case.truth.shape[0])
    width = case.truth.shape[2]
    made: dict[int, Volume] = {}
    for count, volume in snapshots(wide, case.images):
        made[count] = middle(volume, width)
        if count > number:
            break
    found[SIRT] = Made(made[number], time.perf_counter() - start, {"iterations": number, "errors": scores})
    best = oracle_iterations(made, case.truth)
    found[SIRT + ORACLE] = Made(best.volume, None, {"iterations": best.value})
    if tools.n2n is not None:
        start = time.perf_counter()
        denoised = noise2noise(even, odd, tools.n2n)
        detail = {"steps": denoised.steps, "loss": denoised.loss}
        found[N2N] = Made(denoised.volume, time.perf_counter() - start, detail)
    if (topaz := tools.topaz) is not None:
        found[TOPAZ] = timed(lambda: topaz.denoise(plain.volume, case.voxel_angstrom))
    return found | with_networks(case, tools)


def with_fast_ones(case: Case, tools: Tools) -> dict[str, Made]:
    """Volumes by FBP, SIRT and networks."""
    start = time.perf_counter()
    number, _ = iterations_of(case)
    wide = wide_projector(case.angles_deg, case.truth.shape[1:], case.truth.shape[0])
    volume = middle(sirt(wide, case.images, number), case.truth.shape[2])
    chosen = Made(volume, time.perf_counter() - start, {"iterations": number})
    return {FBP: timed(lambda: fbp(case.projector, case.images).numpy()), SIRT: chosen, **with_networks(case, tools)}


def iterations_of(case: Case) -> tuple[int, dict[int, float]]:
    wide = wide_projector(case.angles_deg, case.truth.shape[1:], case.truth.shape[0])
    return choose_iterations(Half(wide, case.even), Half(wide, case.odd))


def scene_table(scene: str, runs: Runs) -> Table:
    """All methods on one scene; each row is also compared with FBP series by series."""
    found = runs.scores[scene]
    means = means_of(found)
    names = ("fsc_measured", "fsc_missing", "resolution_angstrom", "ssim", "picking_f1", "wedge_fill", "streak_index")
    rows: list[list[Cell]] = []
    for method, scores in found.items():
        paired: list[Cell] = ["-", "-", "-"]
        if method not in ("truth", FBP):
            gains = [(a.snr_db or 0) - (b.snr_db or 0) for a, b in zip(scores, found[FBP], strict=True)]
            paired = [spread_cell(gains), *(lost_cell(scores, found[FBP], name) for name in ("snr_db", "fsc_measured"))]
        snrs = [score.snr_db for score in scores if score.snr_db is not None]
        cells = [rounded(means[method][name], name) for name in (*names, "seconds")]
        rows.append([method, spread_cell(snrs), *paired, *cells])
    columns = ["method", "SNR dB", "gain on FBP", "SNR lost", "FSC lost", *(NAMES[n] for n in (*names, "seconds"))]
    return Table(scene, columns, rows)


def fidelity_of(case: Case, found: Mapping[str, Made]) -> class_scoring.Table:
    """Correlation with the truth by method, class and band; also of FBP with the Gaussian that suits each best.

    Membranes are asked about twice: everywhere, and without those near the faces of the field, where the specimen ends:
    the wider Gaussian of a band mixes into them what its faces are like, which hardly any tilt tells.
    """
    volumes = {method: made.volume for method, made in found.items() if method not in ("truth", GAUSSIAN + ORACLE)}
    inside = case.labels.copy()
    inside[:INSIDE_PX] = inside[-INSIDE_PX:] = Structure.ICE
    membranes = {name: region for name, region in class_scoring.REGIONS.items() if name.startswith("membranes")}
    deeper = {f"{name}, inside": region for name, region in membranes.items()}
    masks = {**region_masks(case.labels, class_scoring.REGIONS), **region_masks(inside, deeper)}
    table = mask_fidelity(case.truth, volumes, masks)
    table[GAUSSIAN + ORACLE] = best_gaussian(case.truth, volumes[FBP], masks, SIGMAS_PX)
    return table


def class_table(scene: str, runs: Runs) -> Table:
    """All methods within each class of structure of one scene, a line for each class and band."""
    means = class_scoring.mean_table(runs.fidelity[scene])
    rows: list[list[Cell]] = [
        [f"{label}, {band}", *(f"{found[label][band]:.3f}" for found in means.values())]
        for label in means[FBP]
        for band in BANDS
    ]
    note = (
        "Correlation with the truth within the voxels of a class and two about them, both between two Gaussians whose "
        f"sigmas in voxels are given. {GAUSSIAN + ORACLE}: the sigma that suits each class and band of a series best. "
        f"Inside: without what lies within {INSIDE_PX} voxels of the field's ends along z, where the specimen ends too."
    )
    return Table(f"{scene}, by class of structure", ["class, band", *means], rows, note)


def conditions_table(runs: Runs, scenes: Sequence[Scene], methods: Sequence[str], series: int) -> Table:
    """FBP, SIRT and networks, one factor at a time."""
    rows: list[list[Cell]] = []
    for scene in scenes:
        found = {method: runs.scores[scene.title][method][:series] for method in methods}
        means = means_of(found)
        for method, scores in found.items():
            gains = [(a.snr_db or 0) - (b.snr_db or 0) for a, b in zip(scores, found[FBP], strict=True)]
            lost = [lost_cell(scores, found[FBP], name) for name in ("snr_db", "fsc_measured")]
            paired: list[Cell] = ["-", "-", "-"] if method == FBP else [f"{np.mean(gains):+.2f}", *lost]
            cells = [rounded(means[method][name], name) for name in CONDITION_MEASURES]
            rows.append([f"{scene.title}: {method}", rounded(means[method]["snr_db"], "snr_db"), *paired, *cells])
    columns = ["condition: method", "SNR dB", "gain on FBP", "SNR lost", "FSC lost"]
    note = (
        f"Means of {series} series. Cells as in the scene “cellular” with 41 dose-symmetric tilts of ±60°, 120 e/Å² "
        "and 3.5 µm defocus; each line changes one factor. The specimens are the same but for those of other voxel "
        "sizes. Isolated proteins: white noise, SNR of the images."
    )
    return Table("One factor at a time", [*columns, *(NAMES[n] for n in CONDITION_MEASURES)], rows, note)


def note_of(arguments: Any, tools: Tools, library: tuple[Molecule, ...], models: Mapping[str, Model]) -> str:
    """What a reader must know about all tables of scenes."""
    side = arguments.side
    n2n = (
        f"trained on each series for {tools.n2n.steps} steps or {tools.n2n.minutes:g} min, {tools.n2n.width} channels"
        if tools.n2n
        else "left out"
    )
    topaz = (
        f"topaz-em {tools.topaz.version}, {tools.topaz.model}, on FBP with dense matter dark"
        if tools.topaz
        else "left out, as no --topaz was given"
    )
    return (
        f"{arguments.series} series each of {side // 2} x {side} x {side} voxels of 10 Å (z, y, x), seed {SEED}. "
        f"Molecules, none of which the bundled models were trained on: {', '.join(m.name for m in library)}. "
        "SNR after the best scale and offset, and the gain on FBP for the same series: mean ± standard deviation over "
        "series; lost: in how many of them the measure is below FBP's. Resolution: FSC with the truth at 0.5, - where "
        "it starts below. Picking: as many picks as there are particles. Wedge fill and streaks should be near the "
        f"truth's. σ of the Gaussian from {SIGMAS_PX[0]:g} to {SIGMAS_PX[-1]:g} voxels and SIRT's iterations from "
        f"{ITERATIONS[0]} to {ITERATIONS[-1]} are chosen from even and odd frames; oracle: by the truth. "
        f"Noise2Noise: {n2n}. Topaz: {topaz}. Seconds include choosing and training. "
        f"Models, with the share of FBP that their volumes have where the tilts measured: "
        f"{', '.join(f'{label} {model.sha256[:12]} ({fbp_share(model, None):g})' for label, model in models.items())}."
    )


def load_models(names: str) -> dict[str, Model]:
    """Models by row label: their names, with their folder's where two are alike."""
    found: dict[str, Model] = {}
    for name in names.split(","):
        model = load_model(name)
        if model.convention.published:
            raise SystemExit(f"model {name} was imported: its images are prepared differently; give own models only")
        label = model.name if f"CryoLithe {model.name}" not in found else f"{Path(name).parent.name}/{model.name}"
        found[f"CryoLithe {label}"] = model
    return found


def settings(arguments: Any) -> None:
    """Fill in the sizes that were not given."""
    quick = arguments.quick
    for name, usual, small in (
        ("side", 128, 48), ("series", 3, 1), ("condition_series", 2, 1), ("n2n_steps", 100, 4),
    ):  # fmt: skip
        if getattr(arguments, name) is None:
            setattr(arguments, name, small if quick else usual)
    arguments.condition_series = min(arguments.condition_series, arguments.series)


def main() -> None:
    """Score all methods on all scenes, and the fast ones under changed conditions."""
    options = parser("quality", __doc__)
    options.add_argument(
        "--molecules", type=Path, help="library, to place those held out of training; else procedural ones"
    )
    options.add_argument(
        "--models", default="default,fast,draft", help="names or paths, by commas; losses are the first's"
    )
    options.add_argument("--series", type=int, help="of each scene (default 3)")
    options.add_argument("--condition-series", type=int, help="of each condition (default 2)")
    options.add_argument("--side", type=int, help="width of the fields in voxels, twice their depth (default 128)")
    options.add_argument("--only", help="run only scenes and conditions whose title contains this")
    options.add_argument("--n2n-steps", type=int, help="of the Noise2Noise training; 0 leaves it out (default 100)")
    options.add_argument("--n2n-minutes", type=float, default=3.0, help="at most, for each series")
    options.add_argument("--topaz", type=Path, metavar="PYTHON", help="of an environment that has topaz-em")
    arguments = read_arguments(options)
    settings(arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    models = load_models(arguments.models)
    library = placed_molecules(arguments.molecules)
    tools = Tools(
        models,
        Compute(precision=choose_precision("auto", torch.device("cpu"))),
        N2nSettings(arguments.n2n_steps, arguments.n2n_minutes, 4 if arguments.quick else 16, seed=SEED)
        if arguments.n2n_steps
        else None,
        find_topaz(arguments.topaz) if arguments.topaz else None,
    )
    quick_ones = {name: one for name, one in models.items() if not isinstance(one.network.config, SliceSetConfig)}
    wanted = [[s for s in all_ if (arguments.only or "") in s.title] for all_ in (SCENES, CONDITIONS)]
    if arguments.quick and not arguments.only:
        wanted = [[SCENES[1], SCENES[3]], [CONDITIONS[0], CONDITIONS[4]]]
    runs, figures = Runs(), []
    for scene in wanted[0]:
        for number in range(1, arguments.series + 1):
            case = make_case(scene, arguments.side, library, number)
            found = {"truth": Made(case.truth, None, {}), **with_everything(case, tools)}
            for method, made in found.items():
                runs.add(scene.title, method, measure(case, made.volume, made.seconds), made.detail)
            runs.fidelity.setdefault(scene.title, []).append(fidelity_of(case, found))
            print(f"{scene.title}, series {number}: done", flush=True)
            if number == 1:
                figures.append(figure_path(arguments.output, scene))
                shown = {m: made.volume for m, made in found.items() if ORACLE not in m and ALONE not in m}
                reach = (min(case.angles_deg), max(case.angles_deg))
                draw_sheet(figures[-1], shown, case.voxel_angstrom, reach)
    for scene in wanted[1]:
        if scene.title in runs.scores:
            continue
        for number in range(1, arguments.condition_series + 1):
            case = make_case(scene, arguments.side, library, number)
            for method, made in with_fast_ones(case, Tools(quick_ones, tools.compute)).items():
                runs.add(scene.title, method, measure(case, made.volume, made.seconds), made.detail)
        print(f"{scene.title}: done", flush=True)
    report(runs, wanted, note_of(arguments, tools, library, models), arguments, figures)


def figure_path(output: Path, scene: Scene) -> Path:
    """Beside the numbers, named like the scene."""
    words = scene.title.lower().replace("+", "plus ").replace("-", "minus ")
    return output.with_name(f"{output.stem}_{re.sub('[^a-z0-9]+', '_', words)}.png")


def report(runs: Runs, wanted: list[list[Scene]], note: str, arguments: Any, figures: list[Path]) -> None:
    """Write tables, losses and all numbers."""
    tables, losses = [], []
    first = next(method for scores in runs.scores.values() for method in scores if method.startswith("CryoLithe"))
    for scene in wanted[0]:
        tables.append(scene_table(scene.title, runs))
        means = means_of(runs.scores[scene.title])
        losses += better_than(means, first, [m for m in means if not m.startswith(("CryoLithe", "truth"))], scene.title)
    if tables:
        tables[-1] = Table(tables[-1].title, tables[-1].columns, tables[-1].rows, note)
    # A small field may hold too little of every class.
    tables += [class_table(s.title, runs) for s in wanted[0] if any(t[FBP] for t in runs.fidelity[s.title])]
    if wanted[1]:
        methods = [FBP, SIRT, *(m for m in runs.scores[wanted[1][0].title] if m.startswith("CryoLithe"))]
        methods = [m for m in methods if all(m in runs.scores[scene.title] for scene in wanted[1])]
        tables.append(conditions_table(runs, wanted[1], methods, arguments.condition_series))
        done = {scene.title for scene in wanted[0]}
        for scene in wanted[1]:
            if scene.title not in done:
                losses += better_than(means_of(runs.scores[scene.title]), first, [FBP, SIRT], scene.title)
    results = {
        "tables": tables,
        "figures": [path.name for path in figures],
        "caption": "Central slices xy and xz of the first series, and log power in the planes (kx, ky) and (kx, kz); "
        "orange: border of the missing wedge.",
        "losses": {"model": first, "found": losses, "not_tested": NOT_TESTED},
        "fidelity": runs.fidelity,
        "runs": {
            scene: {
                method: [{**asdict(s), **d} for s, d in zip(scores, runs.details[scene][method], strict=True)]
                for method, scores in found.items()
            }
            for scene, found in runs.scores.items()
        },
    }
    record("quality", results, arguments.output)


if __name__ == "__main__":
    main()
