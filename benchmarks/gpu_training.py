"""Training throughput of one architecture on a GPU: with its loader, from fixed runs, and the loader alone.

For the published recipe's batch and for larger ones. Points are output blocks: columns x blocks of each run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from cryolithe.network.checkpoint import load_model
from cryolithe.network.config import config_to_dict
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import simulate_training_set
from cryolithe.training.loader import runs_of_steps
from cryolithe.training.loop import TrainState, _gradient, _update, band_weights, new_state, train
from cryolithe.training.sources import FixedSource

# (runs, columns, blocks) of a step.
BATCHES = ((2, 32, 16), (8, 32, 16), (8, 128, 16))


def seconds_of(state: TrainState, config: TrainConfig, place: Place, runs: list[Any], steps: int) -> float:
    """Seconds a step with runs that are drawn already."""
    weights = band_weights(config).to(place.device)

    def one() -> None:
        _gradient(state, runs, weights, place, config, state.network)
        _update(state, config, 1e-4)

    for _ in range(3):
        one()
    start = time.perf_counter()
    for _ in range(steps):
        one()
    return (time.perf_counter() - start) / steps


def measure(name: str, limit: float, device: torch.device) -> list[dict[str, Any]]:
    """All batch sizes of one architecture."""
    network = config_to_dict(load_model(name).network.config)
    small = {"shape": (64, 96, 96), "body_chance": 0.0}
    precision = torch.float32 if device.type == "cpu" else torch.bfloat16
    source, found = None, []
    for runs, columns, blocks in BATCHES:
        config = TrainConfig(
            network=network, specimens=small, series=2, runs_per_step=runs, columns=columns, blocks=blocks, steps=10**6
        )
        source = source or FixedSource(simulate_training_set(config, ()))
        place, points = Place(device, precision), runs * columns * blocks
        state = new_state(config, place)
        loader = runs_of_steps(config, state.network.config, source, 0, usual_threads=4)
        drawn = next(loader)
        start = time.perf_counter()
        count = sum(1 for _ in itertools.islice(loader, 20))
        loading = (time.perf_counter() - start) / count
        loader.close()
        alone = seconds_of(state, config, place, drawn, 20)
        state = train(config, source, place, Hooks(limit_seconds=limit))
        peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
        cell = {
            "runs, columns, blocks": [runs, columns, blocks],
            "points_per_second": round(points * state.step / state.seconds),
            "points_per_second_without_loader": round(points / alone),
            "points_per_second_of_loader": round(points / loading),
            "gpu_peak_bytes": peak,
        }
        print(json.dumps(cell), flush=True)
        found.append(cell)
    return found


def main() -> None:
    """Measure the architecture of a bundled model."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("model")
    options.add_argument("--seconds", type=float, default=12.0, help="of training, for each batch")
    options.add_argument("--device", default="cuda")
    arguments = options.parse_args()
    measure(arguments.model, arguments.seconds, torch.device(arguments.device))


if __name__ == "__main__":
    main()
