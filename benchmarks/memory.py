"""Does ``reconstruct`` keep to --max-memory on a wide, thick tomogram, and what does ``evaluate`` take?

The series is a range of y of a 4096 x 4096 one, binned by 2. Volumes are made slab by slab along y, so a taller image
makes more slabs, not larger ones: the range is representative if it holds more than one slab, which is checked. What
does grow with the height is one image while the stack is prepared (a few times 67 MB), before any slab exists.
``evaluate`` holds whole volumes, and is measured on cubes (--evaluate). Seconds and memory of all methods against the
size of the volume: speed.py.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Table, cryolithe_command, model_of, parser, peak_rss_of, read_arguments, record

from cryolithe.formats import write_angles_deg, write_stack, write_volume
from cryolithe.volume import Volume

ANGLES_DEG = tuple(float(a) for a in np.arange(-60.0, 60.1, 3.0))
FULL_HEIGHT, BIN = 4096, 2
METHODS = ("network", "fbp")


def write_counts(folder: Path, rows: int, width: int) -> tuple[Path, Path]:
    """A stack of random counts and its angle file."""
    rng = np.random.default_rng(0)
    images = np.empty((len(ANGLES_DEG), rows, width), dtype=np.int16)
    for image in images:
        image[:] = rng.poisson(30, image.shape)
    write_stack(folder / "counts.mrc", images, 10.0, "random counts")
    write_angles_deg(folder / "counts.tlt", ANGLES_DEG)
    return folder / "counts.mrc", folder / "counts.tlt"


def evaluate_peaks(side: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Run ``cryolithe evaluate`` on noisy cubes with a reference, and with halves."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((side, side, side), dtype=np.float32)
    paths = {name: folder / f"{name}.mrc" for name in ("truth", "volume", "even", "odd")}
    for name, path in paths.items():
        voxels = truth if name == "truth" else truth + rng.standard_normal(truth.shape, dtype=np.float32)
        write_volume(path, Volume(voxels, 10.0), label="noise")
    del truth
    tests = {
        "reference": ["--reference", str(paths["truth"])],
        "halves": ["--half1", str(paths["even"]), "--half2", str(paths["odd"])],
    }
    found: dict[str, dict[str, Any]] = {}
    for name, words in tests.items():
        command = [*cryolithe_command(), "evaluate", str(paths["volume"]), *words, "-o", str(folder / name)]
        run = peak_rss_of(command)
        found[name] = {**run._asdict(), "peak_bytes": run.peak_bytes, "side": side}
    for path in paths.values():
        path.unlink()
    return found


def evaluate_table(found: dict[str, dict[str, Any]], side: int) -> Table:
    """The peaks beside the size of one volume."""
    rows = [[name, f["peak_bytes"] / 1e9, f["peak_bytes"] / (4 * side**3), f["seconds"]] for name, f in found.items()]
    note = (
        f"Noise of {side} x {side} x {side} voxels, float32, {4 * side**3 / 1e9:.2f} GB a volume; with a reference two "
        "volumes are read, with halves three. Pages of the files count, though the kernel can drop them."
    )
    return Table("Peak memory of evaluate", ["given", "peak GB", "volumes", "seconds"], rows, note)


def main() -> None:
    """Measure each method and compare with the limit."""
    options = parser("memory", __doc__)
    options.add_argument("--rows", type=int, default=256, help="height of the images before binning")
    options.add_argument("--model", default="default", help="name of a bundled model or path")
    options.add_argument("--max-memory", type=float, default=6.0, metavar="GB")
    options.add_argument("--methods", default=",".join(METHODS), help="any of network,fbp,sirt")
    options.add_argument("--evaluate", type=int, default=512, metavar="N", help="side of the cubes; 0: leave out")
    options.add_argument("--workdir", type=Path, help="folder for temporary files; 5 MB per row are needed")
    arguments = read_arguments(options)
    rows, width, thickness = (320, 128, 16) if arguments.quick else (arguments.rows, 4096, 1024)
    limit = arguments.max_memory * 1e9
    found: dict[str, dict[str, Any]] = {}
    evaluated: dict[str, dict[str, Any]] = {}
    side = 48 if arguments.quick else arguments.evaluate
    with tempfile.TemporaryDirectory(dir=arguments.workdir) as name:
        stack, angles = write_counts(Path(name), rows, width)
        if side:
            evaluated = evaluate_peaks(side, Path(name))
        for method in filter(None, arguments.methods.split(",")):
            output = Path(name) / f"{method}.mrc"
            flags = {"--output": output, "--method": method, "--thickness": thickness}
            flags |= {"--model": arguments.model} if method == "network" else {}
            flags |= {"--max-memory": arguments.max_memory, "--device": "cpu", "--bin": BIN}
            words = [str(word) for flag in flags.items() for word in flag]
            run = peak_rss_of([*cryolithe_command(), "reconstruct", str(stack), str(angles), *words])
            sidecar = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
            model = model_of(output.with_suffix(".json"))
            output.unlink()
            slab_rows = sidecar["compute"]["slab_rows"]
            found[method] = {**run._asdict(), "peak_bytes": run.peak_bytes, "slab_rows": slab_rows, "rows": rows}
            found[method]["model"] = model
            if slab_rows >= rows // BIN:
                raise SystemExit(f"one slab of {slab_rows} rows holds all {rows // BIN} rows; give more --rows")
    table_rows = [
        [
            method,
            f["peak_bytes"] / 1e9,
            f["sampled_peak_bytes"] / 1e9,
            f["kernel_peak_bytes"] / 1e9,
            arguments.max_memory,
            f["peak_bytes"] <= limit,
            f["slab_rows"],
            f["seconds"],
        ]
        for method, f in found.items()
    ]
    columns = ["method", "peak GB", "sampled GB", "kernel GB", "limit GB", "kept", "slab rows", "seconds"]
    note = (
        f"{len(ANGLES_DEG)} x {rows} x {width} int16, binned by {BIN} -> {thickness} x {rows // BIN} x {width // BIN}: "
        f"{rows} rows stand for {FULL_HEIGHT}. Memory is set by the slab, and the volume is made of more than one; a "
        "taller image only makes more of them. Sampled: resident size every 20 ms; kernel: ru_maxrss of the process; "
        "the larger one counts. 1 GB is 10⁹ bytes."
    )
    tables = [Table("Peak memory", columns, table_rows, note)] if table_rows else []
    tables += [evaluate_table(evaluated, side)] if evaluated else []
    record("memory", {"tables": tables, "runs": found, "evaluate": evaluated}, arguments.output)


if __name__ == "__main__":
    main()
