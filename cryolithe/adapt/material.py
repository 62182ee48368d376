"""What an adaptation is made of, and what is made of it before the first step: series divided, scales, simulations."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryolithe.adapt.anchor import anchor_series, cells_maker
from cryolithe.adapt.checking import cube_volume, half_curves, mean_of
from cryolithe.adapt.colour import lab_gain, of_recorded, white_series
from cryolithe.adapt.config import AdaptConfig, anchor_config
from cryolithe.adapt.cubes import Cube, Draw, Layout, draw_cube, layouts_of
from cryolithe.adapt.halves import HalfSeries, image_snr_db
from cryolithe.adapt.spectrum import Balance, fit_balance
from cryolithe.errors import InputError
from cryolithe.network.checkpoint import Model
from cryolithe.optimise.distributed import Place
from cryolithe.reconstruction.setup.whitening import noise_gain
from cryolithe.simulation import Molecule
from cryolithe.training.config import TrainConfig
from cryolithe.training.series import TrainingSeries
from cryolithe.training.session import run_folder
from cryolithe.training.validation import Example, validation_set
from cryolithe.work.watcher import Watcher

# Cubes by which the scale of shells is fitted, and tilts that checks leave out at either end, as a part of all.
FIT_CUBES, ENDS = 6, 1 / 7
# Cubes of all rows by which is decided whether noise is made white: nothing is learned yet, and a few rows may be odd.
WHITE_CUBES = 12
# Rows of a series, at most, whose noise is put into simulated images: memory must not grow with images.
NOISE_ROWS = 128
# By which halves have to agree.
LEAST_DEVIATIONS = 4.0
_FIT_STREAM, _HELD_STREAM, _WHITE_STREAM = 71, 73, 83


@dataclass(frozen=True)
class Adaptation:
    """What an adaptation is made of.

    Attributes:
        config: what decides it.
        model: to begin with.
        series: of the lab.
        inputs: SHA-256 of the files that decide the series, by name; a resumed run needs the same.
        place: device and precision.
        output: model to write.
        watcher: is told.
        card: what the model file tells beside what was found.
        library: molecules of the simulated specimens; procedural ones without any.
        library_files: SHA-256 of their files, by what to call them; a resumed run needs the same.
        resume: go on from the state in the run's folder.
        deadline: when all is to be done, by ``clock``.
        clock: seconds.
    """

    config: AdaptConfig
    model: Model
    series: Sequence[HalfSeries]
    inputs: Mapping[str, str]
    place: Place
    output: Path
    watcher: Watcher
    card: dict[str, Any] = field(default_factory=dict)
    library: tuple[Molecule, ...] = ()
    library_files: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False
    deadline: float = float("inf")
    clock: Callable[[], float] = time.monotonic

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return run_folder(self.output)


@dataclass(frozen=True)
class Material:
    """All that steps and checks need, made before the first one.

    ``held_before`` are the cubes held back of the images as they were; None where these are the ones in use. What
    volumes of ``held`` are compared with is theirs.
    """

    layouts: Sequence[Layout]
    turned_layouts: Sequence[Layout]
    noise_rows: Sequence[range]
    balance: Balance
    anchors: Sequence[TrainingSeries]
    training: TrainConfig
    held: Sequence[Cube]
    examples: Sequence[Example]
    held_before: Sequence[Cube] | None = None

    @property
    def learned(self) -> list[int]:
        """Numbers of the series that are learned from, all or in part."""
        return with_rows([layout.training for layout in self.layouts])


def with_white_noise(work: Adaptation) -> tuple[Adaptation, Sequence[Cube] | None]:
    """With the noise of the lab's images made white, and its cubes as they were, if the network knows more then.

    It is asked as by a check, from one half, what of the other half: of that as it was in either case, for a filter
    changes how well noise hides what it is compared with, too, and nobody knows more for that.
    """
    if not work.config.most_steps or (not work.resume and work.clock() >= work.deadline):
        return work, None
    layouts = _layouts(work)
    further = lab_gain(work.series, [_noise_rows(layout.training) for layout in layouts])
    if further is None:
        return work, None
    gain = of_recorded(noise_gain(work.model), further, work.series)
    if gain is None:
        work.watcher.note(
            f"The noise is coloured, and is left so: some of the images have the colour that {work.model.name} makes "
            "white, others not; adapt to each kind alone"
        )
        return work, None
    work.watcher.stage("Making the noise white", 1)
    # Series whose halves are tilts stay as they are: their noise was not measured.
    white = replace(work, series=[white_series(one, gain.further) if one.of_frames else one for one in work.series])
    on_device = copy.deepcopy(work.model.network).to(work.place.device)
    rows = [layout.rows_of_all if one.of_frames else range(0) for layout, one in zip(layouts, work.series, strict=True)]
    cubes = [_cubes_of(one, layouts, rows, (WHITE_CUBES, _WHITE_STREAM)) for one in (work, white)]
    cubes[1] = against(cubes[1], cubes[0])
    knows = [sum(map(mean_of, half_curves(on_device, made, work.place))) for made in cubes]
    told = (
        f"factors of {min(further):.2g} to {max(further):.2g}; agreement with the other half as it is "
        f"{knows[0]:.4f} -> {knows[1]:.4f}"
    )
    if knows[1] <= knows[0]:
        work.watcher.note(f"The noise is coloured, and is left so: no gain from making it white ({told})")
        return work, None
    work.watcher.note(f"The noise is coloured, and is made white ({told})")
    return replace(white, card={**work.card, "noise_gain": list(gain.whole)}), _held_cubes(work, layouts)


def against(cubes: Sequence[Cube], before: Sequence[Cube]) -> list[Cube]:
    """Cubes that are compared with what others of the same places are compared with."""
    return [
        replace(cube, run=replace(cube.run, targets=one.run.targets)) for cube, one in zip(cubes, before, strict=True)
    ]


def _layouts(work: Adaptation) -> list[Layout]:
    config, network = work.config, work.model.network.config
    layouts = layouts_of(work.series, network, config.cube_px, config.held_share)
    shape = tuple(min(layout.blocks[axis] for layout in layouts) for axis in range(3))
    edges = [count * network.head.stride for count in shape]
    # Sums over shells need cubes of one shape.
    return layouts_of(work.series, network, edges, config.held_share)


def with_rows(parts: Sequence[range]) -> list[int]:
    """Numbers of the series that have such rows."""
    return [number for number, rows in enumerate(parts) if rows]


def prepare(work: Adaptation, before: Sequence[Cube] | None = None) -> Material:
    """Divide the series, fit the scale, simulate.

    Args:
        work: what the adaptation is made of.
        before: the cubes held back of images as they were, where they are others now.

    Raises:
        InputError: if the halves have nothing in common that is not chance.
    """
    config, network, place = work.config, work.model.network, work.place
    layouts = _layouts(work)
    learned = with_rows([layout.training for layout in layouts])
    whole = [work.series[number].name for number, layout in enumerate(layouts) if not (layout.training and layout.held)]
    if whole:
        judging = [one.name for number, one in enumerate(work.series) if number not in learned]
        then = f"held back whole: {', '.join(judging)}" if judging else "all rows of these are learned from"
        work.watcher.note(f"No room for two parts in {', '.join(whole)}; {then}")
    window = network.config.input.ramp_window
    work.watcher.stage("Looking at the series", FIT_CUBES)
    fit = []
    with torch.no_grad():
        on_device = copy.deepcopy(network).to(place.device)
        for number in range(max(FIT_CUBES, len(learned))):
            chosen = learned[number % len(learned)]
            rng = np.random.default_rng([config.seed, _FIT_STREAM, number])
            how = Draw(layouts[chosen].training, half=number // len(learned) % 2, own=True)
            cube = draw_cube(work.series[chosen], layouts[chosen], how, rng)
            fit.append((cube, cube_volume(on_device, cube, place).cpu()))
            work.watcher.advance(1)
    balance = fit_balance(fit, window)
    if balance.deviations < LEAST_DEVIATIONS:
        raise InputError(
            f"{work.series[0].name}: the back-projections of the two halves have nothing in common that is not chance "
            f"({balance.deviations:.1f} sigma where it is clearest, expected {LEAST_DEVIATIONS:g} or more), so that "
            "one cannot teach the other: the series is too noisy or too small, or they are not halves of one series, "
            "or angles, axis or alignment are wrong"
        )
    turned = layouts_of(work.series, network.config, config.turned_px, config.held_share)
    noise_rows = [_noise_rows(layout.training) for layout in layouts]
    first = work.series[learned[0]]
    lab = (first, noise_rows[learned[0]], image_snr_db(first, noise_rows[learned[0]]))
    training = anchor_config(config, network.config, first.halves[0], lab[2])
    work.watcher.stage("Simulating specimens", config.anchors + 1)
    cells = cache(partial(cells_maker, training, work.library))
    anchors = []
    for number in range(config.anchors):
        anchors.append(anchor_series(number, config, training, work.library, cells, lab))
        work.watcher.advance(1)
    examples = validation_set(training, Path(), work.library)
    held = _held_cubes(work, layouts)
    held = held if before is None else against(held, before)
    return Material(layouts, turned, noise_rows, balance, anchors, training, held, examples, before)


def _noise_rows(training: range) -> range:
    """Rows in the middle of those that are learned from."""
    return range(max(training.start, (len(training) - NOISE_ROWS) // 2), training.stop)[:NOISE_ROWS]


def _held_cubes(work: Adaptation, layouts: Sequence[Layout]) -> list[Cube]:
    """Cubes of what is held back."""
    return _cubes_of(work, layouts, [layout.held for layout in layouts], (work.config.held_cubes, _HELD_STREAM))


def _cubes_of(work: Adaptation, layouts: Sequence[Layout], rows: Sequence[range], drawn: tuple[int, int]) -> list[Cube]:
    """Cubes of some rows of each series: one half with all of its tilts, the other without those at the ends, in turn.

    Args:
        work: with the series.
        layouts: of their volumes.
        rows: of each; none for no cube of it.
        drawn: how many, at least, and the stream of random numbers.
    """
    cubes = []
    some, (count, stream) = with_rows(rows), drawn
    for number in range(max(count, 2 * len(some))):
        chosen = some[number // 2 % len(some)]
        series = work.series[chosen]
        ends = max(1, round(ENDS * len(series.halves[0].tilts))) if number % 2 else 0
        rng = np.random.default_rng([work.config.seed, stream, number])
        # With all tilts as often of the one half as of the other.
        how = Draw(rows[chosen], both_ends=ends, half=(number + number // 2) % 2)
        cubes.append(draw_cube(series, layouts[chosen], how, rng))
    return cubes
