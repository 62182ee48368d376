"""Whether solid bodies stay solid: their middle's density over that beside their edge, of balls and upright plates.

A network that takes a weak spot of noise for the inside of a vesicle, or a plate for a membrane, draws a rim: clean,
and not there. Balls and plates lie in vacuum, each alone; plates have their normal along x, where tilts measured all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from common import Cell, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.whole_runs import reconstructing
from scipy.ndimage import gaussian_filter

from cryolithe.simulation.imaging import project_field
from cryolithe.simulation.specimen import add_white_noise
from cryolithe.training.scoring import BENCHMARK_ANGLES_DEG

SEED = 61
VOXEL_ANGSTROM = 10.0
RADII_PX, EACH = (5.0, 6.0, 7.0, 8.0, 10.0), 6
THICKNESSES_PX = (6.0, 8.0, 10.0)
PLATE_PX = 13.0  # radius of plates
EDGE_PX = 0.8
SPACING_PX = 28
GAUSSIAN_PX = 1.2
HOLLOW = 0.75

Array = NDArray[np.float32]


class Body(NamedTuple):
    """A ball (``thickness_px`` 0) or a plate across x, and where its middle is, ``(z, y, x)``."""

    middle_px: tuple[float, float, float]
    radius_px: float
    thickness_px: float = 0.0

    def distances(self, shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
        """From the middle along z, y and x, ``(z, 1, 1)`` and so on."""
        z, y, x = (np.arange(n, dtype=np.float32) - at for n, at in zip(shape, self.middle_px, strict=True))
        return z[:, None, None], y[None, :, None], x[None, None, :]

    def density(self, shape: tuple[int, int, int]) -> Array:
        """1 within, 0 outside, shape ``(z, y, x)``."""
        z, y, x = self.distances(shape)
        if not self.thickness_px:
            return np.asarray((1 - np.tanh((np.sqrt(z**2 + y**2 + x**2) - self.radius_px) / EDGE_PX)) / 2)
        across = (1 - np.tanh((np.abs(x) - self.thickness_px / 2) / EDGE_PX)) / 2
        return np.asarray(across * (1 - np.tanh((np.sqrt(z**2 + y**2) - self.radius_px) / EDGE_PX)) / 2)

    def middle_over_rim(self, volume: Array) -> float:
        """Density of the middle over that within the edge, both above what lies around in the plane of the middle."""
        z, y, x = self.distances(volume.shape)
        if self.thickness_px:
            half, across = self.thickness_px / 2, np.abs(x)
            within = np.sqrt(z**2 + y**2) < 0.7 * self.radius_px
            around = within & (across > half + 2.5) & (across < half + 5)
            middle, rim = within & (across < half / 3), within & (across > half / 2) & (across < half - 0.5)
        else:
            away, flat = np.sqrt(z**2 + y**2 + x**2), np.abs(z) < 2
            radius = self.radius_px
            around = flat & (away > radius + 2.5) & (away < radius + 4.5)
            middle, rim = away < 0.35 * radius, flat & (away > 0.6 * radius) & (away < 0.9 * radius)
        ground = float(volume[around].mean())
        return (float(volume[middle].mean()) - ground) / (float(volume[rim].mean()) - ground)


def bodies(quick: bool) -> Iterator[Body]:
    """Balls of each radius in rows along y, and plates in the last."""
    rng = np.random.default_rng(SEED)
    radii, each = (RADII_PX[1:2], 2) if quick else (RADII_PX, EACH)
    rows = [(radius, 0.0) for radius in radii for _ in range(each)]
    rows += [(PLATE_PX, thickness) for thickness in THICKNESSES_PX[: 1 if quick else None]]
    columns = 2 if quick else EACH
    for number, (radius, thickness) in enumerate(rows):
        row, column = divmod(number, columns)
        y, x = (SPACING_PX * (at + 0.5) + rng.uniform(-1, 1) for at in (column, row))
        yield Body((31.5 + rng.uniform(-8, 8) * (thickness == 0), y, x), radius, thickness)


def kind_of(body: Body) -> str:
    """As the table calls it."""
    return f"plates of {body.thickness_px:g}" if body.thickness_px else f"balls, radius {body.radius_px:g}"


def main() -> None:
    """Measure all bodies in noise and in little of it."""
    options = parser("solid_bodies", __doc__)
    options.add_argument("--models", nargs="+", default=["default", "fast"], help="names of bundled models or paths")
    options.add_argument("--snr", nargs="+", type=float, default=[-5.0, 10.0], help="of the images, dB")
    arguments = read_arguments(options)
    models = ["draft"] if arguments.quick else arguments.models
    placed = list(bodies(arguments.quick))
    rows_of_bodies = -(-len(placed) // (2 if arguments.quick else EACH))
    shape = (64, SPACING_PX * (2 if arguments.quick else EACH), SPACING_PX * rows_of_bodies)
    truth: Array = sum(body.density(shape) for body in placed)  # type: ignore[assignment]
    methods = reconstructing(models, {", share 0.6": {"fbp_share": 0.6}}, thickness=shape[0], contrast="bright")
    seen = project_field(truth, BENCHMARK_ANGLES_DEG, "even")
    rows: list[list[Cell]] = []
    for snr_db in arguments.snr[: 1 if arguments.quick else None]:
        images = add_white_noise(seen, snr_db, np.random.default_rng([SEED, 1]))
        series = images, BENCHMARK_ANGLES_DEG, VOXEL_ANGSTROM
        made: dict[str, Array] = {name: np.asarray(method(*series).voxels) for name, method in methods.items()}
        volumes = {"truth": truth, "Gaussian": gaussian_filter(made.pop("FBP"), GAUSSIAN_PX)} | made
        for kind in dict.fromkeys(map(kind_of, placed)):
            row: list[Cell] = [f"{kind}, {snr_db:+g} dB"]
            for volume in volumes.values():
                found = [body.middle_over_rim(volume) for body in placed if kind_of(body) == kind]
                row.append(f"{np.mean(found):.2f}, {sum(ratio < HOLLOW for ratio in found)} of {len(found)}")
            rows.append(row)
    note = (
        f"Density of the middle over that within the edge, mean, and how many have less than {HOLLOW:g}. Bodies of so "
        f"many voxels of {VOXEL_ANGSTROM:g} Å, {len(BENCHMARK_ANGLES_DEG)} tilts of ±60°. Gaussian: FBP smoothed by "
        f"{GAUSSIAN_PX:g} px. Share 0.6: `--fbp-share 0.6`."
    )
    record(
        "solid_bodies",
        {"tables": [Table("Solid bodies", ["bodies", *volumes], rows, note)]},
        arguments.output,
    )


if __name__ == "__main__":
    main()
