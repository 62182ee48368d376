"""Seconds of a training step on a CPU for the published recipes: windows around points, and around detector columns.

Both ways take the same runs, in turn, so that other work on the machine slows both; their quotient is what to look at.
Runs are of a plain specimen with procedural molecules. Set OMP_NUM_THREADS=1 for one core.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from common import ROOT, Table, parser, read_arguments, record

from cryolithe.machine.device import choose_precision, keep_freed_memory
from cryolithe.network import RowSet
from cryolithe.optimise.distributed import Place
from cryolithe.training.columns import gather_columns
from cryolithe.training.config import TrainConfig, read_train_config
from cryolithe.training.dataset import Run, draw_run, gather, plain_series
from cryolithe.training.loop import band_weights, batches_loss, new_state

RECIPES = ("train_fast.yaml", "train_default.yaml")
CPU = torch.device("cpu")


def step_seconds(network: RowSet, run: Run, config: TrainConfig, precision: torch.dtype, by_columns: bool) -> float:
    """Seconds from a run to its gradient."""
    network.zero_grad()
    weights = band_weights(config)
    start = time.perf_counter()
    batch = gather_columns(run, network.config) if by_columns else gather(run, network.config, CPU)
    batches_loss(network, [batch], weights, precision, config.loss).backward()
    return time.perf_counter() - start


def measured(path: Path, quick: bool, repeats: int) -> list[str | int | float]:
    """A row of the table: one recipe."""
    config = read_train_config(path)
    if quick:
        loss = config.loss.model_copy(update={"cube": (4, 4, 6)})
        specimens = config.specimens.model_copy(update={"shape": (24, 32, 32)})
        config = config.model_copy(update={"loss": loss, "specimens": specimens})
    series = plain_series(config, (), np.random.default_rng(0))
    precision = choose_precision("auto", CPU)
    network = new_state(config, Place(CPU)).network
    assert isinstance(network, RowSet)
    runs = [draw_run(series, config, network.config, np.random.default_rng(number)) for number in range(1 + repeats)]
    ways = ([], [])  # type: tuple[list[float], list[float]]
    for run in runs:
        for by_columns, seconds in enumerate(ways):
            seconds.append(step_seconds(network, run, config, precision, bool(by_columns)))
    points, columns = (seconds[1:] for seconds in ways)
    return [
        path.stem,
        len(series.geometry.angles_deg),
        median(points),
        median(columns),
        median(a / b for a, b in zip(points, columns, strict=True)),
    ]


def main() -> None:
    """Measure both recipes."""
    options = parser("cpu_training", __doc__)
    options.add_argument("--repeats", type=int, default=7, help="runs that are timed, after one that is not")
    arguments = read_arguments(options)
    keep_freed_memory()
    repeats = 1 if arguments.quick else arguments.repeats
    rows = [measured(ROOT / "configs" / name, arguments.quick, repeats) for name in RECIPES]
    note = "Medians, from a drawn run (a cube of 32 x 24 x 32 blocks) to its gradient; optimiser and drawing apart."
    columns = ["recipe", "tilts", "s, windows around points", "s, around columns", "quotient"]
    record("cpu_training", {"tables": [Table("Training on a CPU", columns, rows, note)]}, arguments.output)


if __name__ == "__main__":
    main()
