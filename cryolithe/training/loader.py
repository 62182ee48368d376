"""The runs of coming steps, drawn while the network works on the present one."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from cryolithe.network import NetworkConfig
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import Run, TrainingSeries, draw_run
from cryolithe.training.sources import Source

_RUN_STREAM = 1_000_003


def runs_of_steps(
    config: TrainConfig,
    network: NetworkConfig,
    source: Source,
    first_step: int,
    stream: tuple[int, int] = (0, 1),
    usual_threads: int = 0,
) -> Generator[list[Run], None, None]:
    """Yield the runs of each step from ``first_step`` on.

    Run i of a step has its own random numbers, seeded by the step and i, so that what is drawn does not depend on the
    number of threads, or on where a run was resumed.

    Args:
        config: of the training run.
        network: of the network.
        source: of the series.
        first_step: from 0.
        stream: (rank, world): rank r draws the runs ``r * runs_per_step ...`` of the step.
        usual_threads: threads where the configuration leaves their number open.
    """
    threads = usual_threads if config.data.loader_threads is None else config.data.loader_threads

    def chosen(step: int) -> list[tuple[TrainingSeries, np.random.Generator]]:
        numbers = range(stream[0] * config.runs_per_step, (stream[0] + 1) * config.runs_per_step)
        rngs = [np.random.default_rng([config.seed, _RUN_STREAM, step, number]) for number in numbers]
        return [(source.pick(step, rng), rng) for rng in rngs]

    def draw(series: TrainingSeries, rng: np.random.Generator) -> Run:
        return draw_run(series, config, network, rng)

    if not threads:
        for step in range(first_step, config.steps):
            yield [draw(*one) for one in chosen(step)]
        return
    with ThreadPoolExecutor(threads, "cryolithe-loader") as executor:
        waiting: deque[list[Future[Run]]] = deque()
        try:
            for step in range(first_step, config.steps):
                waiting.append([executor.submit(draw, *one) for one in chosen(step)])
                if len(waiting) > 1 + threads:
                    yield [future.result() for future in waiting.popleft()]
            while waiting:
                yield [future.result() for future in waiting.popleft()]
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
