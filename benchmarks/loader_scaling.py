"""Does training get its data fast enough? Points per second against loader threads, series against worker processes.

    python benchmarks/loader_scaling.py --model default --device cuda --seconds 4

Loader threads draw runs (series are there already) while the network trains; worker processes simulate series. Each
number of threads is measured with the loader alone and with training; each number of processes after all of them have
made their first series, since starting takes seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from cryolithe.machine.device import choose_device
from cryolithe.machine.limits import usable_cores
from cryolithe.network.checkpoint import load_model
from cryolithe.network.config import config_to_dict
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import simulate_training_set
from cryolithe.training.loader import runs_of_steps
from cryolithe.training.loop import train
from cryolithe.training.sources import FixedSource, PlainMaker
from cryolithe.training.workers import Workers

RUNS, COLUMNS, BLOCKS = 8, 32, 16  # of a step


def recipe(model: str, size: tuple[int, int, int]) -> TrainConfig:
    """A recipe for the architecture of a model, with specimens of a size."""
    return TrainConfig(
        network=config_to_dict(load_model(model).network.config),
        specimens={"shape": size, "body_chance": 0.0},
        series=2,
        runs_per_step=RUNS,
        columns=COLUMNS,
        blocks=BLOCKS,
        steps=10**6,
    )


def counts(most: int) -> list[int]:
    """0, 1, 2, 4, ... and the most."""
    powers = itertools.takewhile(lambda count: count < most, (1 << n for n in range(20)))
    return [0, *powers, most]


def of_threads(config: TrainConfig, place: Place, numbers: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Points per second of the loader alone, and of training with it."""
    source, found = FixedSource(simulate_training_set(config, ())), []
    points = RUNS * COLUMNS * BLOCKS
    for threads in numbers:
        data = config.data.model_copy(update={"loader_threads": threads})
        own = config.model_copy(update={"data": data})
        network = own.network_config()
        loader = runs_of_steps(own, network, source, 0)
        next(loader)
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            next(loader)
            steps += 1
        alone = points * steps / (time.perf_counter() - start)
        loader.close()
        state = train(own, source, place, Hooks(limit_seconds=seconds))
        found.append(
            {
                "loader_threads": threads,
                "points_per_second_of_loader": round(alone),
                "points_per_second_of_training": round(points * state.step / state.seconds),
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def of_workers(config: TrainConfig, numbers: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Simulated series per second."""
    found = []
    for count in numbers:
        workers = Workers(PlainMaker(config, ()), count)
        try:
            ahead = max(1, 2 * count)
            workers.ask(list(range(ahead)))
            first = max(1, count)
            for number in range(first):  # every process has begun
                workers.take(number)
            start, made = time.perf_counter(), 0
            while time.perf_counter() - start < seconds or not made:
                number = first + made
                workers.ask(list(range(number, number + ahead)))
                workers.take(number)
                made += 1
            rate = made / (time.perf_counter() - start)
        finally:
            workers.close()
        found.append({"worker_processes": count, "series_per_second": round(rate, 3)})
        print(json.dumps(found[-1]), flush=True)
    return found


def tables_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """For readers."""
    threads = [tuple(row.values()) for row in found["threads"]]
    workers = [tuple(row.values()) for row in found["workers"]]
    return [
        {
            "title": "Training against loader threads",
            "columns": ("loader threads", "points/s of the loader alone", "points/s of training"),
            "rows": threads,
            "note": f"{RUNS} runs of {COLUMNS} x {BLOCKS} blocks a step; 0: drawn by the thread that trains.",
        },
        {
            "title": "Simulation against worker processes",
            "columns": ("worker processes", "series/s"),
            "rows": workers,
            "note": "0: simulated by the process that trains.",
        },
    ]


def main() -> None:
    """Measure one architecture."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--model", default="default")
    options.add_argument("--device", default="auto")
    options.add_argument("--seconds", type=float, default=4.0, help="for each number")
    options.add_argument("--most", type=int, default=usable_cores(), help="threads, and processes")
    options.add_argument("--size", type=int, nargs=3, default=(64, 96, 96), metavar=("Z", "Y", "X"))
    options.add_argument("--output", type=Path, help="JSON")
    arguments = options.parse_args()
    device = choose_device(arguments.device)
    config = recipe(arguments.model, tuple(arguments.size))
    place = Place(device, torch.float32 if device.type == "cpu" else torch.bfloat16)
    numbers = counts(max(1, arguments.most))
    found: dict[str, Any] = {"threads": of_threads(config, place, numbers, arguments.seconds)}
    found["workers"] = of_workers(config, numbers, arguments.seconds)
    found["tables"] = tables_of(found)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
