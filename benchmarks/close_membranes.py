"""How much of their contrast membranes keep that lie close to each other, nested or stacked: FBP, Gaussian, networks.

Bilayers of two leaflets, 40 Å apart, follow each other at one distance, as in myelin, in grana and in vesicles within
vesicles. What is left of their contrast is told by mean profiles across them, which noise hardly touches: a volume may
correlate well with the truth, because it is of the right density as a whole, and show no membrane any more.
"""

from __future__ import annotations

import numpy as np
from common import Cell, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.whole_runs import reconstructing
from scipy.ndimage import gaussian_filter

from cryolithe.simulation.imaging import project_field
from cryolithe.simulation.specimen import add_white_noise
from cryolithe.training.scoring import BENCHMARK_ANGLES_DEG

SEED = 43
VOXEL_ANGSTROM = 10.0
LEAFLET_PX, LEAFLET_SIGMA_PX = 2.0, 0.9
OUTER_PX, INNER_PX = 27.0, 6.0  # of the middles of the outermost membrane and of the innermost possible one
HALF_WIDTH_PX = 24.0  # of stacks, across their membranes' planes
EQUATOR_PX = 5.0  # of nested membranes only what stands upright is looked at: nothing measures the others' contrast
BODIES, BODY_SIGMA_PX = 30, 2.5
GAUSSIAN_PX = 1.0
FINE_PX = 3.0
KINDS = ("nested", "stack, normal x", "stack, normal y")

Array = NDArray[np.float32]


def away_from_middle(kind: str, shape: tuple[int, int, int]) -> tuple[Array, NDArray[np.bool_]]:
    """Distance that membranes are at, px, and where they are, both ``(z, y, x)``."""
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in shape), indexing="ij")
    if kind == "nested":
        return np.sqrt(z**2 + y**2 + x**2), np.ones(shape, dtype=bool)
    across, along = (x, y) if kind.endswith("x") else (y, x)
    return np.abs(across), (np.abs(along) < HALF_WIDTH_PX) & (np.abs(z) < shape[0] / 2 - 8)


def specimen(kind: str, distance_px: float, shape: tuple[int, int, int]) -> tuple[Array, NDArray[np.bool_], Array]:
    """Dense matter in vacuum.

    Returns:
        the density, where its membranes stand upright, and the distance that tells how far across them a voxel lies.
    """
    away, there = away_from_middle(kind, shape)
    middles = np.arange(OUTER_PX, INNER_PX, -distance_px)
    density = np.zeros(shape, dtype=np.float32)
    for middle in middles:
        for leaflet in (-LEAFLET_PX, LEAFLET_PX):
            density += np.exp(-((away - middle - leaflet) ** 2) / (2 * LEAFLET_SIGMA_PX**2))
    density *= gaussian_filter(there.astype(np.float32), 2.0)
    rng = np.random.default_rng([SEED, KINDS.index(kind)])
    z, y, x = np.indices(shape, sparse=True)
    for middle in rng.uniform(0.1, 0.9, (BODIES, 3)) * shape:
        if away[tuple(middle.astype(int))] > OUTER_PX + 10:
            squared = sum((axis - at) ** 2 for axis, at in zip((z, y, x), middle, strict=True))
            density += 1.2 * np.exp(-squared / (2 * BODY_SIGMA_PX**2))
    upright = there & (away > middles[-1] - 3) & (away < OUTER_PX + 3)
    upright &= np.abs(np.arange(shape[0]) - (shape[0] - 1) / 2)[:, None, None] < EQUATOR_PX
    return density, upright, away


def profile(volume: Array, upright: NDArray[np.bool_], away: Array) -> NDArray[np.float64]:
    """Mean across the membranes, at each half pixel, without its slow part."""
    step = np.rint(2 * away[upright]).astype(int)
    found = np.bincount(step, volume[upright]) / np.maximum(np.bincount(step), 1)
    values, places = found[step.min() :], np.arange(step.min(), step.max() + 1) / 2
    return np.asarray(values - np.polyval(np.polyfit(places, values, 2), places))


def left_of_contrast(volume: Array, truth: Array, upright: NDArray[np.bool_], away: Array) -> float:
    """Contrast across the membranes, of the truth's: volumes are of the images' units, as the truth is."""
    a, b = profile(volume, upright, away), profile(truth, upright, away)
    return float(a @ b / (b @ b))


def fine_correlation(volume: Array, truth: Array, upright: NDArray[np.bool_]) -> float:
    """Of what is finer than a Gaussian, among the membranes."""
    a, b = ((values - gaussian_filter(values, FINE_PX))[upright] for values in (volume, truth))
    return float(np.corrcoef(a, b)[0, 1])


def main() -> None:
    """Measure every kind at every distance."""
    options = parser("close_membranes", __doc__)
    options.add_argument("--models", nargs="+", default=["default", "fast"], help="names of bundled models or paths")
    options.add_argument("--snr", type=float, default=-5.0, help="of the images, dB")
    arguments = read_arguments(options)
    shape = (24, 64, 64) if arguments.quick else (56, 112, 112)
    distances = (12.0,) if arguments.quick else (7.0, 9.0, 12.0, 16.0)
    kinds = KINDS[:1] if arguments.quick else KINDS
    models = ["draft"] if arguments.quick else arguments.models
    methods = reconstructing(models, {" alone": {"fbp_share": 0.0}}, thickness=shape[0], contrast="bright")
    rows: list[list[Cell]] = []
    for kind in kinds:
        for distance in distances:
            truth, upright, away = specimen(kind, distance, shape)
            seen = project_field(truth, BENCHMARK_ANGLES_DEG, "even")
            images = add_white_noise(seen, arguments.snr, np.random.default_rng([SEED, int(distance)]))
            series = images, BENCHMARK_ANGLES_DEG, VOXEL_ANGSTROM
            made: dict[str, Array] = {name: np.asarray(method(*series).voxels) for name, method in methods.items()}
            volumes = {"FBP": made["FBP"], "Gaussian": gaussian_filter(made["FBP"], GAUSSIAN_PX)} | made
            row: list[Cell] = [f"{kind}, {distance:g} voxels"]
            for volume in volumes.values():
                left, fine = left_of_contrast(volume, truth, upright, away), fine_correlation(volume, truth, upright)
                row.append(f"{left:.2f} / {fine:.2f}")
            rows.append(row)
    note = (
        f"Contrast across the membranes, of the truth's / correlation of what is finer than a Gaussian of {FINE_PX:g} "
        f"px. {' x '.join(map(str, shape))} voxels (z, y, x) of {VOXEL_ANGSTROM:g} Å, {len(BENCHMARK_ANGLES_DEG)} "
        f"tilts of ±60°, {arguments.snr:g} dB; membranes are told with the distance of their middles. Gaussian: FBP "
        f"smoothed by {GAUSSIAN_PX:g} px. Alone: without a share of FBP."
    )
    columns = ["membranes", *volumes]
    record(
        "close_membranes",
        {"tables": [Table("Membranes close to each other", columns, rows, note)]},
        arguments.output,
    )


if __name__ == "__main__":
    main()
