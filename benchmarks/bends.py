"""What local alignment costs: ``cryolithe reconstruct`` with a bend against the same command without, in turn.

A raw stack of noise is aligned by AreTomo's ``.aln`` with patches (columns and rows move, by image) and by Warp's
``.xml`` with GridVolumeWarp (shifts that change with the depth); the plain run reads the same file with
``--no-local-alignment``. Counted are processor seconds of the whole command, start included, on one thread: the load of
a machine moves them less than the clock. The ratio is that of the medians.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import METHOD_WORDS, Cell, Table, cryolithe_command, device, parser, read_arguments, record

from cryolithe.formats.stacks.mrc_writer import write_stack

PIXEL, AXIS_DEG, TARGET = 5.0, 3.0, 1.3


class Size(NamedTuple):
    """Images, pixels along an edge of them, planes of the volume."""

    images: int
    edge: int
    depth: int


class Spent(NamedTuple):
    """Seconds of a command: of the processor, and of the clock."""

    processor: float
    clock: float


def angles_deg(size: Size) -> list[float]:
    """The tilts."""
    return [float(angle) for angle in np.linspace(-60, 60, size.images)]


def write_aretomo(path: Path, size: Size) -> list[str]:
    """An .aln with 5 x 5 patches that move by up to 3 pixels; returns the words that name it."""
    lines = ["# AreTomo Alignment / Priims bprmMn", f"# RawSize = {size.edge} {size.edge} {size.images}"]
    lines.append("# NumPatches = 25")
    for number, angle in enumerate(angles_deg(size), start=1):
        shifts = f"{2 * math.sin(number):.3f} {2 * math.cos(number):.3f}"
        lines.append(f"{number} {AXIS_DEG} 1.0 {shifts} 1 1 1 0 {angle:.2f}")
    lines.append("# Local Alignment")
    line = np.linspace(-0.4, 0.4, 5) * size.edge
    for image in range(size.images):
        for patch in range(25):
            x, y = line[patch % 5], line[patch // 5]
            by = f"{3 * math.sin(patch + image / 10):.2f} {3 * math.cos(2 * patch + image / 9):.2f}"
            lines.append(f"{image} {patch} {x:.2f} {y:.2f} {by} 1.0")
    path.write_text("\n".join(lines) + "\n")
    return ["--aln", str(path)]


def write_warp(path: Path, size: Size) -> list[str]:
    """An .xml whose GridVolumeWarp of 4 x 4 x 2 nodes and 2 doses moves by up to 15 Å; returns its words."""
    shape = (2, 2, 4, 4)
    values = np.random.default_rng(9).uniform(-15, 15, (3, *shape))
    nodes = [
        "".join(
            f'<Node X="{x}" Y="{y}" Z="{z}" W="{w}" Value="{grid[w, z, y, x]:.6g}"/>'
            for w, z, y, x in np.ndindex(*shape)
        )
        for grid in values
    ]
    grids = [
        f'<GridVolumeWarp{axis} Width="4" Height="4" Depth="2" Duration="2">{inside}</GridVolumeWarp{axis}>'
        for axis, inside in zip("XYZ", nodes, strict=True)
    ]
    images, angles = range(size.images), angles_deg(size)
    columns: dict[str, list[Any]] = {
        "Angles": [-angle for angle in angles],
        "UseTilt": ["True"] * size.images,
        "AxisAngle": [AXIS_DEG] * size.images,
        "Dose": [3.0 * n for n in images],
        "AxisOffsetX": [PIXEL * 2 * math.sin(n) for n in images],
        "AxisOffsetY": [PIXEL * 2 * math.cos(n) for n in images],
    }
    lists = [f"<{name}>" + "\n".join(map(str, column)) + f"</{name}>" for name, column in columns.items()]
    edge, depth = size.edge * PIXEL, size.depth * PIXEL
    extents = f'ImageDimensionsAngstrom="{edge}, {edge}" VolumeDimensionsAngstrom="{edge}, {edge}, {depth}"'
    path.write_text(f'<?xml version="1.0"?>\n<TiltSeries {extents}>{"".join(lists + grids)}</TiltSeries>')
    return ["--warp", str(path)]


def spent(words: list[str], bent: bool) -> Spent:
    """Run a command, with or without its bend, and see that it did as it was told."""
    command = [*cryolithe_command(), "reconstruct", *words, *([] if bent else ["--no-local-alignment"])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        clock = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    if process.returncode or ("pixels undone" in " ".join(said.split())) != bent:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}:\n{said[-2000:]}")
    return Spent(usage.ru_utime + usage.ru_stime, clock)


def main() -> None:
    """Make the files, run plain and bent in turn, compare."""
    made = parser("bends", __doc__)
    made.add_argument("--methods", default="FBP,fast", help=f"of {', '.join(METHOD_WORDS)}")
    made.add_argument("--repeats", type=int, default=3, help="pairs of FBP")
    made.add_argument("--network-repeats", type=int, default=1, help="pairs of other methods, which take longer")
    options = read_arguments(made)
    size = Size(7, 48, 16) if options.quick else Size(41, 512, 128)
    rows: list[list[Cell]] = []
    runs: dict[str, dict[str, list[Spent]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = np.random.default_rng(0).standard_normal((size.images, size.edge, size.edge), dtype=np.float32)
        write_stack(folder / "ts.mrc", images, PIXEL, "noise")
        (folder / "ts.tlt").write_text("".join(f"{angle:.2f}\n" for angle in angles_deg(size)))
        files = {
            "AreTomo's patches": [str(folder / "ts.tlt"), *write_aretomo(folder / "ts.aln", size)],
            "Warp's GridVolumeWarp": write_warp(folder / "ts.xml", size),
        }
        output = ["-o", str(folder / "v.mrc"), "--overwrite", "--contrast", "bright", "--device", "cpu"]
        for method in options.methods.split(","):
            repeats = 1 if options.quick else options.repeats if method == "FBP" else options.network_repeats
            for file, named in files.items():
                words = [str(folder / "ts.mrc"), *named, *METHOD_WORDS[method], "--thickness", str(size.depth), *output]
                pairs = [(spent(words, False), spent(words, True)) for _ in range(repeats)]
                plain, bent = (statistics.median(run.processor for run in side) for side in zip(*pairs, strict=True))
                label = f"{method}, {file}"
                rows.append([label, plain, bent, bent / plain, bent / plain <= TARGET, repeats])
                runs[label] = {"plain": [pair[0] for pair in pairs], "bent": [pair[1] for pair in pairs]}
                print(label, pairs, flush=True)
    note = (
        f"{size.images} x {size.edge} x {size.edge}, thickness {size.depth}, one thread; plain and bent in turn on a "
        f"machine of {os.cpu_count()} cores with a load of {device()['load_1_min']} at the start: read the ratios, not "
        f"the seconds. Target: at most {TARGET}."
    )
    columns = ("method, file", "plain, s", "bent, s", "bent / plain", "target met", "pairs")
    tables = [Table("The cost of local alignment", columns, rows, note)]
    record("bends", {"tables": tables, "size": size, "runs": runs}, options.output)


if __name__ == "__main__":
    main()
