"""Whether a crystal stays one: how much of its waves FBP and networks keep, along y and along x.

A cubic crystal along the axes, smaller than the field. Its planes across y stand in all tilts, those across x in tilts
near 0° alone, where only the whole crystal averages them out of the noise. Orders that a network weakens go
around it; beside that, the networks without this.
"""

from __future__ import annotations

from unittest import mock

import numpy as np
from common import Cell, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.whole_runs import reconstructing

from cryolithe.reconstruction.setup import applying
from cryolithe.simulation.imaging import project_field
from cryolithe.simulation.specimen import add_white_noise
from cryolithe.training.scoring import BENCHMARK_ANGLES_DEG

SEED = 47
VOXEL_ANGSTROM = 10.0
# Half axes of the crystal, as a part of the field's edges (z, y, x).
HALF_AXES = (0.375, 0.35, 0.35)
TURN_DEG = 25.0

Array = NDArray[np.float32]


def crystal(shape: tuple[int, int, int], period_px: float, turn_deg: float) -> tuple[Array, NDArray[np.bool_]]:
    """The density, and where the crystal is; its axes are turned about z."""
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in shape), indexing="ij")
    inside = sum((axis / (part * n)) ** 2 for axis, part, n in zip((z, y, x), HALF_AXES, shape, strict=True)) < 1
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    waves = sum(np.cos(2 * np.pi * axis / period_px) for axis in (z, c * y - s * x, s * y + c * x))
    return (inside * (1 / 3 + waves / 4.5)).astype(np.float32), inside


def kept(volume: Array, truth: Array, inside: NDArray[np.bool_], frequency: tuple[float, float]) -> float:
    """Amplitude of a wave (cycles/px along y and x) in phase with the truth's, as a part of that."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in truth.shape[1:])
    wave = np.exp(-2j * np.pi * (frequency[0] * y[:, None] + frequency[1] * x))
    a, b = (((values - values[inside].mean()) * inside * wave).sum() for values in (volume, truth))
    return float((a * np.conj(b)).real / abs(b) ** 2)


def main() -> None:
    """Measure every period."""
    options = parser("lattices", __doc__)
    options.add_argument("--models", nargs="+", default=["default", "fast"], help="names of bundled models or paths")
    arguments = read_arguments(options)
    shape = (24, 64, 64) if arguments.quick else (64, 128, 128)
    cases = [(4.0, -3.0, 0.0), (4.0, 10.0, 0.0), (6.0, -3.0, 0.0), (8.0, -3.0, 0.0), (6.0, -3.0, TURN_DEG)]
    models = ["draft"] if arguments.quick else arguments.models
    methods = reconstructing(models, thickness=shape[0], contrast="bright")
    rows: list[list[Cell]] = []
    columns: list[str] = []
    for period, snr_db, turn_deg in cases[: 1 if arguments.quick else None]:
        truth, inside = crystal(shape, period, turn_deg)
        seen = project_field(truth, BENCHMARK_ANGLES_DEG, "even")
        images = add_white_noise(seen, snr_db, np.random.default_rng([SEED, int(period), int(snr_db) + 100]))
        made: dict[str, Array] = {}
        for name, method in methods.items():
            made[name] = np.asarray(method(images, BENCHMARK_ANGLES_DEG, VOXEL_ANGSTROM).voxels)
            if name != "FBP":
                with mock.patch.object(applying, "lattice_of", return_value=None):
                    left = method(images, BENCHMARK_ANGLES_DEG, VOXEL_ANGSTROM)
                made[f"{name}, left to the network"] = np.asarray(left.voxels)
        c, s = np.cos(np.deg2rad(turn_deg)) / period, np.sin(np.deg2rad(turn_deg)) / period
        title = f"{period * VOXEL_ANGSTROM:g} Å, {snr_db:+g} dB" + (f", turned by {turn_deg:g}°" if turn_deg else "")
        row: list[Cell] = [title]
        for volume in made.values():
            waves = [kept(volume, truth, inside, frequency) for frequency in ((c, -s), (s, c))]
            like = np.corrcoef(volume[inside], truth[inside])[0, 1]
            row.append(f"{waves[0]:.2f} / {waves[1]:.2f} / {like:.2f}")
        rows.append(row)
        columns = ["crystal", *made]
    note = (
        "Amplitude of the wave along y / along x (or the axes turned about z) in phase with the truth's, as a part of "
        f"that / correlation with the truth within the crystal. {' x '.join(map(str, shape))} voxels (z, y, x) of "
        f"{VOXEL_ANGSTROM:g} Å, {len(BENCHMARK_ANGLES_DEG)} tilts of ±60°, one noise each. Left to the network: no "
        "order goes around it."
    )
    record("lattices", {"tables": [Table("Crystals", columns, rows, note)]}, arguments.output)


if __name__ == "__main__":
    main()
