"""A real needle, of which ±76° were recorded: how much longer does ±60° make it, and does it predict the other tilts?

Elongation is depth over width of the section across the tilt axis, 1 for a round needle, at half of the height
between background and maximum. The reconstructions from ±60° are projected to the tilts that were left out and
compared with the images there.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, Table, cryolithe_command, model_of, parser, peak_rss_of, read_arguments, record
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.formats import read_tilt_series, read_volume, write_angles_deg, write_stack
from cryolithe.geometry import TiltGeometry
from cryolithe.images import fourier_crop
from cryolithe.metrics import mean_cross_section
from cryolithe.projector import make_projector
from cryolithe.report import plot_central_slices

DATA = ROOT / "examples" / "needle"
REACH_DEG = 60.0
THRESHOLD = 0.5
METHODS = ("fbp", "sirt", "network")


def mean_correlation(volume: NDArray[Any], images: NDArray[Any], angles_deg: NDArray[np.float64]) -> dict[str, Any]:
    """Pearson correlations of the volume's projections with the images at the same tilts, and their mean."""
    depth, height, width = volume.shape
    projector = make_projector(TiltGeometry(tuple(angles_deg), (height, width)), (depth, width))
    projections = projector.forward(torch.from_numpy(np.array(volume, dtype=np.float32))).numpy()
    each = [float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in zip(projections, images, strict=True)]
    return {"mean": float(np.mean(each)), "angles_deg": angles_deg, "each": each}


def section(volume: NDArray[Any]) -> dict[str, float | None]:
    """Width, depth and their ratio; None where the volume shows no object."""
    try:
        return {key: float(value) for key, value in asdict(mean_cross_section(volume, THRESHOLD)).items()}
    except InputError:
        return {"width_px": None, "depth_px": None, "depth_over_width": None}


def main() -> None:
    """Reconstruct with each method from all tilts and from ±60°, and measure."""
    options = parser("needle", __doc__)
    options.add_argument("--model", default="default", help="name of a bundled model or path")
    arguments = read_arguments(options)
    series = read_tilt_series(DATA / "needle.mrc", DATA / "needle.tlt")
    images: NDArray[Any] = np.array(series.images)
    pixel_size, thickness, iterations = series.pixel_size_angstrom, 128, 30
    if arguments.quick:
        images = np.stack([fourier_crop(image.astype(np.float32), 4) for image in images])
        pixel_size, thickness, iterations = 4 * pixel_size if pixel_size else None, 32, 3
    angles = np.asarray(series.geometry.angles_deg)
    within = np.abs(angles) <= REACH_DEG
    found: dict[str, dict[str, Any]] = {}
    panels = []
    with tempfile.TemporaryDirectory() as name:
        for cut, keep in (("all", np.ones_like(within)), ("±60°", within)):
            stack, angle_file = Path(name) / f"{keep.sum()}.mrc", Path(name) / f"{keep.sum()}.tlt"
            write_stack(stack, images[keep], pixel_size, "needle")
            write_angles_deg(angle_file, angles[keep])
            for method in METHODS:
                output = Path(name) / f"{method}_{keep.sum()}.mrc"
                flags = {"--output": output, "--method": method, "--model": arguments.model, "--device": "cpu"}
                flags |= {"--thickness": thickness, "--contrast": "bright", "--iterations": iterations}
                words = [str(word) for flag in flags.items() for word in flag]
                run = peak_rss_of([*cryolithe_command(), "reconstruct", str(stack), str(angle_file), *words])
                volume = np.array(read_volume(output).voxels, dtype=np.float32)
                panels.append((f"{method}, {cut}", volume))
                found[f"{method}, {cut}"] = {
                    "method": method,
                    "model": model_of(output.with_suffix(".json")),
                    "tilts": int(keep.sum()),
                    "seconds": run.seconds,
                    "held_out": bool(cut != "all"),
                    **section(volume),
                    "correlation_beyond_60_deg": mean_correlation(volume, images[~within], angles[~within]),
                }
    rows = [
        [
            label,
            f["tilts"],
            f["width_px"],
            f["depth_px"],
            f["depth_over_width"],
            f"{f['correlation_beyond_60_deg']['mean']:.4f}" + ("" if f["held_out"] else " (seen)"),
            f["seconds"],
        ]
        for label, f in found.items()
    ]
    columns = ["method, tilts", "images", "width px", "depth px", "depth/width", "correlation beyond 60°", "seconds"]
    note = (
        f"Threshold {THRESHOLD:g} between median and maximum; medians over y; SIRT with {iterations} iterations. "
        "Correlation: projections of the volume "
        f"against the {np.count_nonzero(~within)} images beyond ±60°, mean over these images; from ±60° they were "
        "held out, from all tilts they were seen."
    )
    figure = arguments.output.with_suffix(".png")
    results = {"tables": [Table("A real needle", columns, rows, note)], "figures": [figure.name], "volumes": found}
    record("needle", results, arguments.output)
    plot_central_slices(figure, panels, pixel_size)


if __name__ == "__main__":
    main()
