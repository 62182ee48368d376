"""Where series come from: plain specimens in memory, a pool of simulated series that is renewed, pairs on disk.

Which series a run of rows comes from is a function of the configuration, the step and the run's own random numbers,
never of time: a resumed run sees the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from cryolithe.errors import InputError
from cryolithe.files.names import exists, is_folder
from cryolithe.formats.pairs import Pair, open_pair
from cryolithe.optimise.distributed import Place
from cryolithe.simulation import (
    Molecule,
)
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import plain_series, simulate_training_set
from cryolithe.training.recipe_maker import recipe_maker
from cryolithe.training.series import (
    StoredImages,
    TrainingSeries,
    as_arrays,
    as_tensors,
    pair_without_borders,
    rescaled_pair,
    series_of_pair,
)
from cryolithe.training.workers import Workers

# Constants in seeds keep the streams of random numbers apart.
_SCALE_STREAM, _PLAIN_STREAM, _MIX_STREAM = 37, 43, 47


class Source(Protocol):
    """Gives the series that a run of rows is drawn from."""

    def pick(self, step: int, rng: np.random.Generator) -> TrainingSeries:
        """A series for a step (from 0); steps never go back.

        Args:
            step: of the optimiser.
            rng: the run's own random numbers.
        """
        ...

    def close(self) -> None:
        """Give back files and processes."""
        ...


@dataclass(frozen=True)
class FixedSource:
    """Series in memory, or open on disk."""

    series: Sequence[TrainingSeries]
    on_close: Callable[[], object] = lambda: None

    def pick(self, step: int, rng: np.random.Generator) -> TrainingSeries:
        """See `Source`."""
        return self.series[int(rng.integers(len(self.series)))]

    def close(self) -> None:
        """See `Source`."""
        self.on_close()


@dataclass(frozen=True)
class MixedSource:
    """Several sources, each with its share of the runs."""

    parts: Sequence[Source]
    shares: Sequence[float]

    def pick(self, step: int, rng: np.random.Generator) -> TrainingSeries:
        """See `Source`."""
        total = sum(self.shares)
        chosen = int(rng.choice(len(self.parts), p=[share / total for share in self.shares]))
        return self.parts[chosen].pick(step, rng)

    def close(self) -> None:
        """See `Source`."""
        for part in self.parts:
            part.close()


@dataclass(frozen=True)
class PlainMaker:
    """Makes series ``number`` of an endless stream of plain specimens.

    Attributes:
        config: of the run.
        library: molecules to place.
    """

    config: TrainConfig
    library: tuple[Molecule, ...]

    def __call__(self, number: int) -> TrainingSeries:
        """See `RecipeMaker`."""
        rng = np.random.default_rng([self.config.seed, number, _PLAIN_STREAM])
        return as_arrays(plain_series(self.config, self.library, rng))


@dataclass(frozen=True)
class MixedMaker:
    """Makes series ``number`` of one of several streams, each with its share of the numbers.

    Attributes:
        makers: of the streams.
        shares: of them.
        seed: of the training run.
    """

    makers: tuple[Callable[[int], TrainingSeries], ...]
    shares: tuple[float, ...]
    seed: int

    def __call__(self, number: int) -> TrainingSeries:
        """See `RecipeMaker`."""
        rng = np.random.default_rng([self.seed, number, _MIX_STREAM])
        chosen = int(rng.choice(len(self.makers), p=np.asarray(self.shares) / sum(self.shares)))
        return self.makers[chosen](number)


class PoolSource:
    """A pool of N series, to which one is added every K steps in place of the oldest: variety in bounded memory.

    At step t, series 1 ... ``S + t // K`` have come, and series m stands in slot ``(m - 1) mod N``. So the pool at a
    step is known without its history. With S < N training need not wait until the pool is full.

    Args:
        make: series of a number.
        size: N.
        every: K.
        first: S, series of the first step; N by default.
        device: where the pool's series lie.
        workers: processes that make series ahead of time.
        stream: (rank, world): processes of a distributed run take every world-th number.
    """

    def __init__(
        self,
        make: Callable[[int], TrainingSeries],
        size: int,
        every: int,
        workers: int = 0,
        stream: tuple[int, int] = (0, 1),
        first: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._workers = Workers(make, workers)
        self._ahead = 2 * workers
        self._size, self._every = size, every
        self._first = size if first is None else min(first, size)
        self._rank, self._world = stream
        self._device = device or torch.device("cpu")
        self._slots: dict[int, tuple[int, TrainingSeries]] = {}
        self._ordered_at: int | None = None

    def number(self, slot: int, step: int) -> int:
        """Which series (from 1) a slot holds at a step."""
        come = self._first + step // self._every
        return self._of_stream(slot + 1 + self._size * ((come - slot - 1) // self._size))

    def _of_stream(self, series: int) -> int:
        """Series of this process: every world-th one."""
        return (series - 1) * self._world + self._rank + 1

    def pick(self, step: int, rng: np.random.Generator) -> TrainingSeries:
        """See `Source`; waits for the series if it is not there yet."""
        if step != self._ordered_at:
            self._order(step)
            self._ordered_at = step
        slot = int(rng.integers(min(self._size, self._first + step // self._every)))
        wanted = self.number(slot, step)
        held = self._slots.get(slot)
        if held is None or held[0] != wanted:
            held = self._slots[slot] = (wanted, as_tensors(self._workers.take(wanted), self._device))
        return held[1]

    def close(self) -> None:
        """See `Source`."""
        self._workers.close()

    def _order(self, step: int) -> None:
        """Ask the workers for what the pool lacks now and for what is due next."""
        if not self._ahead:
            return
        come = self._first + step // self._every
        due = [self.number(slot, step) for slot in range(min(self._size, come))]
        lacking = [n for slot, n in enumerate(due) if self._slots.get(slot, (0,))[0] != n]
        coming = [self._of_stream(come + later) for later in range(1, self._ahead + 1)]
        self._workers.drop_all_but({*lacking, *coming})
        self._workers.ask(lacking + coming)


def find_pairs(names: Sequence[str | Path], base: Path) -> list[Path]:
    """HDF5 files of a list of files and folders, in order, each once.

    Raises:
        InputError: if a name does not exist or a folder holds no .h5 file.
    """
    found: dict[Path, Path] = {}
    for name in names:
        path = base / name
        files = [path]
        if is_folder(path):
            files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".h5")
        if not files:
            raise InputError(f"folder {path} holds no training pair (.h5)")
        for file in files:
            if not exists(file):
                raise InputError(f"training pair {file} does not exist; give an HDF5 file or a folder of them")
            found.setdefault(file.resolve(), file)
    return list(found.values())


def open_pairs_source(
    paths: Sequence[Path], config: TrainConfig, scratch: Path, warn: Callable[[str], object] = lambda text: None
) -> FixedSource:
    """Open pairs for training: small ones are read into memory, large ones stay files.

    Args:
        paths: HDF5 files.
        config: of the run.
        scratch: folder for the side files of large pairs' targets.
        warn: told which of the large pairs have images with borders of one value.

    Raises:
        InputError: if a pair is not usable, or too many are too large.
        FileFormatError: if a file is no pair; says which part of it disagrees.
    """
    head, data = config.network_config().head, config.data
    series: list[TrainingSeries] = []
    bordered: list[str] = []
    stack = ExitStack()
    open_files = 0
    try:
        for number, path in enumerate(paths):
            with ExitStack() as one:
                pair = one.enter_context(open_pair(path))
                small = _is_small(pair, config)
                if small:
                    pair = pair_without_borders(pair)
                    rng = np.random.default_rng([config.seed, number, _SCALE_STREAM])
                    factors = [1.0, *rng.uniform(*config.augment.pixel_scale, size=config.augment.pixel_copies)]
                    series += [series_of_pair(rescaled_pair(pair, float(f)), head, str(path)) for f in factors]
                    continue
                open_files += 1
                if open_files > data.open_pairs:
                    raise InputError(
                        f"more than data.open_pairs = {data.open_pairs} pairs are larger than data.memory_mb = "
                        f"{data.memory_mb:g}; raise one of them"
                    )
                series.append(series_of_pair(pair, head, str(path), scratch / f"targets_{number}.npy"))
                stack.push(one.pop_all())
                images = series[-1].images
                if isinstance(images, StoredImages) and images.scale.bordered:
                    bordered.append(path.name)
    except BaseException:
        stack.close()
        raise
    if bordered:
        warn(_border_warning(bordered, config))
    return FixedSource(series, stack.close)


def _is_small(pair: Pair, config: TrainConfig) -> bool:
    """Whether a pair is read into memory."""
    return bool(np.prod(pair.truth.shape) * 4 <= config.data.memory_mb * 1e6)


def _border_warning(names: Sequence[str], config: TrainConfig) -> str:
    return (
        f"images of {', '.join(names[:5])}{f' and {len(names) - 5} more' if names[5:] else ''} have borders of one "
        f"value, which are learned from because they are read as they are stored (larger than data.memory_mb = "
        f"{config.data.memory_mb:g}); raise that, or replace them by the local mean"
    )


def make_source(
    config: TrainConfig,
    base: Path,
    scratch: Path,
    molecules: tuple[tuple[Path, ...], tuple[Molecule, ...]] = ((), ()),
    place: Place | None = None,
    on_series: Callable[[], object] = lambda: None,
    warn: Callable[[str], object] = lambda text: None,
) -> Source:
    """The source of a configuration.

    Args:
        config: of the run.
        base: folder that its paths are relative to.
        scratch: folder for side files.
        molecules: files that replace those of recipes, and the library of the plain specimens.
        place: where the pool's series are kept, and which process of how many this is; by default alone on the CPU.
        on_series: called after each plain series.
        warn: told what must be known of the pairs once they are read.
    """
    place = place or Place(torch.device("cpu"))
    data = config.data
    parts: list[tuple[float, Source]] = []
    with ExitStack() as made:  # files and processes of one source are given back if the next one fails

        def add(weight: float, source: Source) -> None:
            parts.append((weight, source))
            made.callback(source.close)

        endless: list[tuple[float, Callable[[int], TrainingSeries]]] = []
        if data.plain_share and data.plain_pool:
            endless.append((data.plain_share, PlainMaker(config, molecules[1])))
        elif data.plain_share:
            add(data.plain_share, FixedSource(simulate_training_set(config, molecules[1], on_series)))
        if data.pairs:
            add(data.pairs_weight, open_pairs_source(find_pairs(data.pairs, base), config, scratch, warn))
        if data.recipes:
            endless.append((data.recipes_weight, recipe_maker(config, base, molecules[0])))
        if endless:
            shares, makers = zip(*endless, strict=True)
            maker = makers[0] if len(makers) == 1 else MixedMaker(makers, shares, config.seed)
            pool = partial(PoolSource, maker, data.pool, data.replace_every, data.workers)
            add(sum(shares), pool(place.stream, data.pool_first, place.device))
        made.pop_all()
    if len(parts) == 1:
        return parts[0][1]
    return MixedSource([part for _, part in parts], [share for share, _ in parts])
