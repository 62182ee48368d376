"""How much filtered back-projection (FBP) to mix into a network's volume: shares against shells, noise and classes.

Series of all kinds that this program scores itself on: the scenes of `cryolithe score --classes`, white noise, and
crowded cells of the shipped recipes. Of each the network is computed once and mixed with FBP as `cryolithe reconstruct
--fbp-share` does. The best mix is an upper bound: in every shell of the measured region the sum of network and FBP that
suits the truth best, which no user knows. The promise that is looked at: in no shell more than 0.01 below FBP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Cell, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.scenes import SCENES, Series, make_case, placed_molecules
from quality import load_models

from cryolithe.fidelity import BANDS, best_gaussian, class_fidelity, region_masks
from cryolithe.machine.device import choose_precision, keep_freed_memory
from cryolithe.metrics import FscCurve, fourier_shell_correlation, mean_correlation, scaled_snr_db
from cryolithe.network.checkpoint import Model
from cryolithe.projector.classical import fbp_of_images
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.reconstruction.slabwise.networks import fbp_share
from cryolithe.simulation import Molecule, add_white_noise, make_specimen, project
from cryolithe.training.class_scoring import (
    CLASS_SCENES,
    SIGMAS_PX,
    SUMMARY,
    ClassScene,
    draw_series,
    mean_table,
)
from cryolithe.training.class_scoring import (
    Table as Fidelity,
)
from cryolithe.training.scoring import (
    BENCHMARK_ANGLES_DEG,
    BENCHMARK_RECIPE,
    WorstShell,
    mix_array,
    reconstruct_array,
    worst_of,
    worst_shell,
)

Volume = NDArray[np.float32]

# Series that the shares were not chosen on.
SEED, FIRST_SERIES = 92_000, 102
SHARES = (0.15, 0.3, 0.45)
SNRS_DB = (-5.0, 0.0, 8.0)
RECIPE_SCENES = tuple(scene for scene in SCENES if scene.recipe != "isolated_proteins")
FBP, GAUSSIAN, ALONE, BEST = "FBP", "FBP + best Gaussian", "network alone", "best mix"
PROMISE = -0.01


@dataclass(frozen=True)
class Kind:
    """Series of one kind.

    Attributes:
        title: as tables show it.
        draw: makes one from its number.
    """

    title: str
    draw: Callable[[int], Series]


@dataclass(frozen=True)
class Found:
    """What was measured on one series.

    Attributes:
        measured: mean FSC in the measured region by volume, that of the best mix too.
        missing: mean FSC in the missing wedge by volume.
        snr_db: by volume.
        shells: of volumes that are not FBP, the worst in comparison with it.
        curves: FSC in the measured region by shell, without the first and the last; None where there is none.
        fidelity: volume -> class -> band -> correlation.
    """

    measured: dict[str, float]
    missing: dict[str, float]
    snr_db: dict[str, float]
    shells: dict[str, WorstShell]
    curves: dict[str, list[float | None]]
    fidelity: Fidelity


def share_name(share: float) -> str:
    """As tables show it."""
    return f"{share:.0%} FBP"


def kinds(side: int, library: tuple[Molecule, ...]) -> list[Kind]:
    """All kinds in fields of ``side / 2 x side x side`` voxels."""
    shape = (side // 2, side, side)
    found = [
        Kind(scene.title, partial(_of_classes, scene, number, library, shape))
        for number, scene in enumerate(CLASS_SCENES)
    ]
    found += [Kind(f"white noise, {snr_db:+g} dB", partial(_of_proteins, snr_db, library, shape)) for snr_db in SNRS_DB]
    return found + [Kind(scene.title, partial(_of_recipe, scene, side, library)) for scene in RECIPE_SCENES]


def _of_classes(
    scene: ClassScene, place: int, library: tuple[Molecule, ...], shape: tuple[int, int, int], number: int
) -> Series:
    density, labels, images = draw_series(scene, [SEED, place, number], library, shape)
    return Series(density, labels, images, scene.angles_deg)


def _of_proteins(snr_db: float, library: tuple[Molecule, ...], shape: tuple[int, int, int], number: int) -> Series:
    """Isolated molecules; the same ones at every noise level."""
    specimen = make_specimen(replace(BENCHMARK_RECIPE, shape=shape), library, np.random.default_rng([SEED, number]))
    rng = np.random.default_rng([SEED, number, round(100 * (snr_db + 90))])
    images = add_white_noise(project(specimen, BENCHMARK_ANGLES_DEG), snr_db, rng)
    images -= images.mean(axis=(1, 2), keepdims=True)
    labels = np.zeros(shape, dtype=np.uint8) if specimen.labels is None else specimen.labels
    return Series(specimen.density, labels, images, BENCHMARK_ANGLES_DEG)


def _of_recipe(scene: Any, side: int, library: tuple[Molecule, ...], number: int) -> Series:
    case = make_case(scene, side, library, number)
    return Series(case.truth, case.labels, case.images.numpy(), case.angles_deg)


def best_mix(back: NDArray[np.float64], ours: NDArray[np.float64], both: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation with the truth of the sum of two volumes that suits it best, shell by shell.

    It is the multiple correlation: ``R² = (f² + n² - 2 f n r) / (1 - r²)``.

    Args:
        back: f, the correlation of one with the truth in each shell.
        ours: n, that of the other.
        both: r, that of the two with each other.
    """
    left = 1 - both**2
    alike = left < 1e-6  # then one is as good as the other
    squared = (back**2 + ours**2 - 2 * back * ours * both) / np.where(alike, 1.0, left)
    return np.where(alike, np.maximum(np.abs(back), np.abs(ours)), np.sqrt(np.clip(squared, 0.0, 1.0)))


def measure(series: Series, volumes: Mapping[str, Volume]) -> Found:
    """Compare volumes with the truth; FBP and the network alone are among them."""
    reach = (min(series.angles_deg), max(series.angles_deg))

    def fsc(a: Volume, b: Volume) -> FscCurve:
        return fourier_shell_correlation(a, b, tilt_range_deg=reach)

    curves = {name: fsc(series.truth, volume) for name, volume in volumes.items()}
    measured = {name: _present(curve.measured) for name, curve in curves.items()}
    between = _present(fsc(volumes[FBP], volumes[ALONE]).measured)
    measured[BEST] = best_mix(measured[FBP], measured[ALONE], between)
    table = class_fidelity(series.truth, volumes, series.labels, SUMMARY)
    masks = region_masks(series.labels, SUMMARY)
    smooth = best_gaussian(series.truth, volumes[FBP], masks, SIGMAS_PX)
    return Found(
        measured={name: mean_correlation(values) for name, values in measured.items()},
        missing={name: mean_correlation(_present(curve.missing)) for name, curve in curves.items()},
        snr_db={name: scaled_snr_db(series.truth, volume) for name, volume in volumes.items()},
        shells={name: worst_shell(curve, curves[FBP]) for name, curve in curves.items() if name != FBP},
        curves={
            name: [round(float(value), 4) if np.isfinite(value) else None for value in values[1:-1]]
            for name, values in measured.items()
        },
        fidelity={FBP: table.pop(FBP), GAUSSIAN: smooth, **table},
    )


def _present(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """A curve that a tilt range makes."""
    assert values is not None
    return values


def run(kind: Kind, models: Mapping[str, Model], specimens: int, compute: Compute) -> dict[str, list[Found]]:
    """Measure all models on the series of a kind: model -> one for each series."""
    found: dict[str, list[Found]] = {label: [] for label in models}
    for number in range(FIRST_SERIES, FIRST_SERIES + specimens):
        series = kind.draw(number)
        depth = series.truth.shape[0]
        back = fbp_of_images(series.images, series.angles_deg, depth)
        for label, model in models.items():
            alone = reconstruct_array(model.network, series.images, series.angles_deg, depth, compute)
            mix = partial(mix_array, alone, series.images, series.angles_deg)
            stride = model.network.config.head.stride
            mixed = {share_name(share): mix(share, stride) for share in SHARES}
            found[label].append(measure(series, {FBP: back, ALONE: alone, **mixed}))
    return found


Results = Mapping[str, Mapping[str, Sequence[Found]]]  # kind -> model -> series


def mean_of(series: Sequence[Found], name: str, volume: str) -> float:
    """Mean of ``measured``, ``missing`` or ``snr_db`` of a volume over series."""
    return float(np.mean([getattr(one, name)[volume] for one in series]))


def worst(series: Sequence[Found], volume: str) -> WorstShell:
    """Of all series."""
    return worst_of(one.shells[volume] for one in series)


def summary(results: Results, models: Sequence[str]) -> Table:
    """One line for each model and share, over all kinds."""
    rows: list[list[Cell]] = []
    for label in models:
        by_kind = [found[label] for found in results.values()]
        for volume in (ALONE, *map(share_name, SHARES)):
            shells = [worst(series, volume).difference for series in by_kind]
            gaps = [gap for series in by_kind for gap in below_gaussian(series, volume)]
            means = [float(np.mean([mean_of(series, name, volume) for series in by_kind]))
                     for name in ("measured", "missing", "snr_db")]  # fmt: skip
            rows.append(
                [
                    f"{label}, {volume}",
                    *(f"{value:.3f}" for value in means[:2]),
                    f"{means[2]:.2f}",
                    f"{sum(value < PROMISE for value in shells)} of {len(shells)}",
                    f"{min(shells):+.3f}",
                    f"{sum(gap < 0 for gap in gaps)} of {len(gaps)}",
                    f"{min(gaps):+.3f}" if gaps else None,
                ]
            )
    columns = ["model, share", "FSC measured", "FSC missing", "SNR dB", "broken", "worst shell", "classes lost", "most"]
    note = (
        f"Means over the {len(results)} kinds of series below. Broken: kinds with a shell of the measured region more "
        f"than {-PROMISE:g} below FBP in any series; worst shell: the least difference. Classes lost: of membranes, "
        "filaments and proteins of all kinds in both bands, how many below FBP with the Gaussian that suits best, and "
        "the most that any lost."
    )
    return Table("Shares in short", columns, rows, note)


def below_gaussian(series: Sequence[Found], volume: str) -> list[float]:
    """Fidelity of a volume less that of FBP with the best Gaussian, for each class and band."""
    means = mean_table([one.fidelity for one in series])
    smooth = means[GAUSSIAN]
    return [means[volume][label][band] - value for label in smooth for band, value in smooth[label].items()]


def tables_of(results: Results, label: str) -> list[Table]:
    """The tables of one model."""
    mixed = [ALONE, *map(share_name, SHARES)]
    by_kind = {title: found[label] for title, found in results.items()}
    shells: list[list[Cell]] = []
    for title, series in by_kind.items():
        found = [worst(series, volume) for volume in mixed]
        shells.append([title, *(f"{shell.difference:+.3f} at {shell.frequency_per_px:.2f}" for shell in found)])
    columns = [FBP, *mixed]
    both = [
        [title, *(f"{mean_of(s, 'snr_db', v):.2f} / {mean_of(s, 'missing', v):.3f}" for v in columns)]
        for title, s in by_kind.items()
    ]
    fsc = [[title, *(f"{mean_of(s, 'measured', v):.3f}" for v in (*columns, BEST))] for title, s in by_kind.items()]
    tables = [
        Table(f"{label}: FSC in the measured region", ["series", *columns, BEST], fsc,
              "Means over the shells between the first and the last."),
        Table(f"{label}: worst shell against FBP", ["series", *mixed], shells,
              "Least difference of the FSC in any series, and its frequency in cycles/px."),
        Table(f"{label}: SNR dB / FSC in the missing wedge", ["series", *columns], both),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    columns = [FBP, GAUSSIAN, *mixed]
    for title, series in by_kind.items():
        means = mean_table([one.fidelity for one in series])
        rows += [
            [f"{title}: {name}", *(" / ".join(f"{means[v][name][band]:.3f}" for band in BANDS) for v in columns)]
            for name in means[FBP]
        ]
    note = f"Correlation with the truth within a class, in the bands {' / '.join(BANDS)} (sigmas in voxels)."
    # A small field may hold too little of every class.
    return [*tables, *([Table(f"{label}: fidelity by class", ["series: class", *columns], rows, note)] if rows else [])]


def main() -> None:
    """Measure all shares on all kinds of series."""
    options = parser("fusion", __doc__)
    options.add_argument(
        "--molecules", type=Path, help="library, to place those held out of training; else procedural ones"
    )
    options.add_argument("--models", default="default,fast", help="names or paths, by commas")
    options.add_argument("--specimens", type=int, help="of each kind (default 2)")
    options.add_argument("--side", type=int, help="width of the fields in voxels, twice their depth (default 128)")
    options.add_argument("--only", default="", help="only kinds of series whose title contains this")
    arguments = read_arguments(options)
    keep_freed_memory()
    library = placed_molecules(arguments.molecules)
    side = arguments.side or (48 if arguments.quick else 128)
    specimens = arguments.specimens or (1 if arguments.quick else 2)
    wanted = [kind for kind in kinds(side, library) if arguments.only in kind.title]
    if arguments.quick and not arguments.only:
        wanted = [wanted[0], wanted[7], wanted[9]]
    if not wanted:
        raise SystemExit(f"no kind of series has '{arguments.only}' in its title: expected a part of one of "
                         f"{'; '.join(kind.title for kind in kinds(side, library))}")  # fmt: skip
    models = load_models(arguments.models)
    compute = Compute(precision=choose_precision("auto", torch.device("cpu")))
    results = {}
    for kind in wanted:
        results[kind.title] = run(kind, models, specimens, compute)
        print(f"{kind.title}: done", flush=True)
    note = (
        f"{specimens} series of each kind, {side // 2} x {side} x {side} voxels (z, y, x). Molecules that the models "
        f"were not trained on: {', '.join(m.name for m in library)}. Share that the models' cards "
        f"say: {', '.join(f'{name} {model.sha256[:12]} {fbp_share(model, None):g}' for name, model in models.items())}."
    )
    first = summary(results, list(models))
    tables = [replace(first, note=f"{first.note} {note}"), *(t for label in models for t in tables_of(results, label))]
    plain = {
        title: {label: [asdict(one) for one in series] for label, series in found.items()}
        for title, found in results.items()
    }
    about = {
        name: {"name": model.name, "sha256": model.sha256, "fbp_share": fbp_share(model, None)}
        for name, model in models.items()
    }
    record("fusion", {"tables": tables, "models": about, "shares": SHARES, "series": plain}, arguments.output)


if __name__ == "__main__":
    main()
