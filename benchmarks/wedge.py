"""Is what left-out tilts say of a network's missing wedge true, and what does believing it change?

Series of the scenes of `quality.py` are reconstructed by `cryolithe.reconstruct` with `--wedge-trust full`, `auto` and
`none`. The share that is right is the regression of the truth on the network's missing wedge, over that in the measured
region: what `auto` estimates without a truth, from tilts that are left out.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from common import Cell, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.scenes import SCENES, Case, make_case, placed_molecules

import cryolithe
from cryolithe.files.yaml_table import merged
from cryolithe.metrics import fourier_shell_correlation, mean_correlation, scaled_snr_db
from cryolithe.reconstruction.slabwise.planes import measured_region

TRUSTS: tuple[Literal["full", "auto", "none"], ...] = ("full", "auto", "none")
# Bands of q = |(k_z, k_x)| in cycles/px.
BANDS = ((0.08, 0.16), (0.16, 0.25), (0.25, 0.4))


def right_share(case: Case, volume: NDArray[np.float32]) -> list[float]:
    """Regression of the truth on a volume in the missing wedge over that in the measured region, by band."""
    depth, _, width = case.truth.shape
    z, x = np.fft.fftfreq(depth)[:, None], np.fft.rfftfreq(width)[None]
    measured = measured_region(case.angles_deg, z, x, depth)
    truth, made = (np.fft.rfftn(part - part.mean()).transpose(1, 0, 2) for part in (case.truth, volume))
    radius, found = np.hypot(z, x), []
    for low, high in BANDS:
        within = (radius >= low) & (radius < high)
        slopes = []
        for region in (within & (measured <= 0), within & (measured >= 1)):
            power = np.square(np.abs(made[:, region])).sum()
            slopes.append(float((truth[:, region] * made[:, region].conj()).real.sum() / power))
        found.append(slopes[0] / slopes[1])
    return found


def believed(kept: list[float]) -> list[float]:
    """The bins of a record of trust, averaged over the bands."""
    middles = (np.arange(len(kept)) + 0.5) / (2 * len(kept))
    return [float(np.mean(np.asarray(kept)[(middles >= low) & (middles < high)])) for low, high in BANDS]


def row_of(case: Case, model: str, threads: str) -> dict[str, Any]:
    """One series by one model, with every trust."""
    scores: dict[str, Any] = {}
    for trust in TRUSTS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cryolithe.CryoLitheWarning)
            made = cryolithe.reconstruct(
                case.images,
                list(case.angles_deg),
                case.voxel_angstrom,
                model=model,
                wedge_trust=trust,
                contrast="bright",
                thickness=case.truth.shape[0],
                device=threads,
            )
        volume = np.asarray(made.data, np.float32)
        curve = fourier_shell_correlation(
            case.truth, volume, tilt_range_deg=(min(case.angles_deg), max(case.angles_deg))
        )
        assert curve.missing is not None
        scores[trust] = {
            "snr_db": scaled_snr_db(case.truth, volume),
            "fsc": mean_correlation(curve.total),
            "fsc_missing": mean_correlation(curve.missing) if trust != "none" else None,
        }
        if trust == "full":
            scores["right"] = right_share(case, volume)
        if trust == "auto":
            kept = made.record["method"]["wedge_trust"]
            scores["believed"] = None if kept is None else believed(kept["kept"])
    return scores


def table_of(rows: dict[str, dict[str, Any]]) -> Table:
    """Every series; shares by band."""
    cells: list[list[Cell]] = []
    for name, row in rows.items():
        scene, model, number = name.split(" | ")
        numbers = [row[trust][what] for what in ("snr_db", "fsc", "fsc_missing") for trust in ("full", "auto")]
        numbers[2:2] = [row["none"]["snr_db"]]
        numbers[5:5] = [row["none"]["fsc"]]
        shares = [*row["right"], *(row["believed"] or [None] * len(BANDS))]
        cells.append([scene, model, number, *numbers, *shares])
    titles = ["scene", "model", "series"]
    titles += [f"{what} {trust}" for what in ("SNR dB", "FSC") for trust in TRUSTS] + ["missing full", "missing auto"]
    titles += [f"{what} {low:g}-{high:g}" for what in ("right", "believed") for low, high in BANDS]
    return Table("Trust in the missing wedge", titles, cells, "Bands of |(k_z, k_x)| in cycles/px.")


def main() -> None:
    """Reconstruct and compare."""
    made = parser("wedge", __doc__)
    made.add_argument("--models", nargs="+", default=["default"])
    made.add_argument("--scenes", nargs="+", default=[scene.title for scene in SCENES])
    made.add_argument("--series", type=int, default=1, help="of each scene")
    made.add_argument("--side", type=int, default=96)
    made.add_argument("--molecules", type=Path)
    arguments = read_arguments(made)
    if arguments.quick:
        arguments.models, arguments.scenes, arguments.side = ["draft"], [SCENES[1].title], 48
    library = placed_molecules(arguments.molecules)
    rows: dict[str, dict[str, Any]] = {}
    for scene in (scene for scene in SCENES if scene.title in arguments.scenes):
        clean = replace(scene, imaging=merged(scene.imaging, {"faults": {"hot_pixels": [0, 0]}}))
        for number in range(1, arguments.series + 1):
            case = make_case(clean, arguments.side, library, number)
            for model in arguments.models:
                rows[f"{scene.title} | {model} | {number}"] = row_of(case, model, "cpu")
    record("wedge", {"rows": rows, "tables": [table_of(rows)]}, arguments.output)


if __name__ == "__main__":
    main()
