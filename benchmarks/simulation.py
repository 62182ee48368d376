"""How fast specimens and series are made: a full-size cellular series through the real command, and the stream."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT, Table, cryolithe_command, parser, peak_rss_of, read_arguments, record

from cryolithe.files.yaml_table import read_yaml_table, yaml_text
from cryolithe.machine.device import keep_freed_memory
from cryolithe.simulation.library import recipe_library
from cryolithe.simulation.recipe import Recipe
from cryolithe.simulation.stream import stream_series

CELLULAR = ROOT / "training_data" / "recipes" / "cellular.yaml"
GOAL_SECONDS, GOAL_GB, GOAL_PER_MINUTE = 180.0, 6.0, 5.0


def cellular(shape: tuple[int, int, int]) -> dict[str, Any]:
    """The shipped cellular recipe at a shape, with 41 tilts of ±60°, none missing."""
    values = read_yaml_table(CELLULAR, "recipe")
    values["cell"]["shape"] = list(shape)
    values["imaging"]["scheme"] = {"kinds": ["dose-symmetric"], "reach_deg": [60.0, 60.0], "step_deg": [3.0, 3.0]}
    return values


def main() -> None:
    """Measure both and compare with the goals."""
    options = parser("simulation", __doc__)
    options.add_argument("--molecules", type=Path, help="library to place; without it procedural ones are placed")
    options.add_argument("--series", type=int, default=3, help="full-size series, each in its own process")
    options.add_argument("--streamed", type=int, default=6)
    arguments = read_arguments(options)
    full, small = ((16, 32, 32), (16, 32, 32)) if arguments.quick else ((256, 512, 512), (128, 256, 256))
    series, streamed = (1, 2) if arguments.quick else (arguments.series, arguments.streamed)
    flags = ["--molecules", str(arguments.molecules)] if arguments.molecules else []
    runs = []
    with tempfile.TemporaryDirectory() as name:
        recipe = Path(name) / "full.yaml"
        recipe.write_text(yaml_text(cellular(full) | {"series": 1}), encoding="utf-8")
        for seed in range(series):
            words = ["simulate", str(recipe), "-o", f"{name}/{seed}", "--seed", str(seed), *flags]
            runs.append(peak_rss_of([*cryolithe_command(), *words]))
    keep_freed_memory()
    paths = (arguments.molecules,) if arguments.molecules else ()
    small_recipe = Recipe(**cellular(small))
    stream = stream_series(small_recipe, recipe_library(small_recipe, paths))
    seconds = []
    for _ in range(streamed):
        start = time.perf_counter()
        next(stream)
        seconds.append(time.perf_counter() - start)
    slowest = max(run.seconds for run in runs)
    gigabytes = max(run.peak_bytes for run in runs) / 1e9
    per_minute = 60 * streamed / sum(seconds)
    task = f"{' x '.join(map(str, full))}, 41 tilts, all files"
    rows: list[list[str | float | bool]] = [
        ["slowest series (s)", task, slowest, f"<= {GOAL_SECONDS:g}", slowest <= GOAL_SECONDS],
        ["peak memory (GB)", task, gigabytes, f"<= {GOAL_GB:g}", gigabytes <= GOAL_GB],
        ["stream (series/min)", " x ".join(map(str, small)), per_minute, f">= {GOAL_PER_MINUTE:g}"],
    ]
    rows[-1].append(per_minute >= GOAL_PER_MINUTE)
    note = (
        f"{series} full-size series with seeds 0 to {series - 1}; {streamed} streamed ones. Cells are drawn at random: "
        f"crowded ones take longer. Volumes are (z, y, x). Molecules: "
        f"{arguments.molecules.name if arguments.molecules else 'procedural'}."
    )
    table = Table("Simulation on the CPU", ["what", "task", "measured", "goal", "reached"], rows, note)
    results = {"tables": [table], "full_size": [run._asdict() for run in runs], "streamed_seconds": seconds}
    record("simulation", results, arguments.output)


if __name__ == "__main__":
    main()
