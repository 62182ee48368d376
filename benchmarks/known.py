"""What it is worth to tell a network what is known about a series: with and without, at equal compute.

Both networks start from the same weights, see the same series in the same order for the same time of one core (the
process's own time, so that other programs do not matter much), and are scored on the same series, none of which they
saw, by the state of their CTF and by the class of what is there. The one that takes facts is scored twice: told
everything, and told nothing, as where a user tells nothing.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, Cell, Table, parser, read_arguments, record
from parts.scenes import UNSEEN

from cryolithe.known import FACTS, NOTHING
from cryolithe.network import Network, build_network
from cryolithe.network.checkpoint import load_model
from cryolithe.network.config import config_to_dict
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks
from cryolithe.reconstruction.slabwise.methods import ON_CPU
from cryolithe.simulation import Molecule, load_library
from cryolithe.training.class_scoring import SUMMARY
from cryolithe.training.config import TrainConfig
from cryolithe.training.loop import new_state, train
from cryolithe.training.sources import make_source
from cryolithe.training.starting import knowing_from
from cryolithe.training.validation import Example, Verdict, judge, validation_set

STATES = ("flipped", "wiener", "uncorrected")
RECIPES = {state: f"training_data/recipes/train_{state}.yaml" for state in STATES}
WITHOUT, TOLD, UNTOLD = "without", "with, told", "with, told nothing"
BASE: dict[str, Any] = {
    "data": {
        "plain_weight": 0.4,
        "plain_pool": True,
        "recipes": [{"path": path} for path in RECIPES.values()],
        "recipes_weight": 0.6,
        "pool": 48,
        "pool_first": 12,
        "replace_every": 10,
        "loader_threads": 0,
    },
    "augment": {"flip_chance": 0.5, "half_chance": 0.2, "range_cut_chance": 0.2},
    "hold_out": UNSEEN,
    "snr_db": (-10.0, 10.0),
    "seed": 5,
    "steps": 1_000_000,
    "warmup_steps": 50,
    "ema_decay": 0.99,
    "band_exponent": 0.8,
    "loss": {"strong": 40, "cube": (24, 16, 24)},
}
QUICK: dict[str, Any] = {
    "specimens": {"shape": (16, 32, 32)},
    "loss": {"cube": (6, 6, 6)},
    "data": {**BASE["data"], "plain_weight": 1.0, "recipes": [], "pool": 1, "pool_first": 1},
}


def training(options: Any, start: Network, facts: tuple[str, ...]) -> tuple[TrainConfig, Network]:
    """Configuration and first weights of a network that takes some facts."""
    taking = dataclasses.replace(start.config, input=dataclasses.replace(start.config.input, known=facts))
    values = {**BASE, **(QUICK if options.quick else {}), "learning_rate": options.learning_rate}
    config = TrainConfig(network=config_to_dict(taking), **values)
    torch.manual_seed(config.seed)
    return config, knowing_from(start, build_network(taking))


def trained(config: TrainConfig, first: Network, options: Any, scratch: Path) -> tuple[Network, dict[str, Any]]:
    """The averaged weights after so many minutes of one core, and what it took."""
    library = load_library((options.molecules,)) if options.molecules else ()
    files = (options.molecules,) if options.molecules else ()
    place = Place(torch.device("cpu"), torch.bfloat16 if options.bf16 else torch.float32)
    seen = tuple(molecule for molecule in library if molecule.name not in UNSEEN)
    source = make_source(config, ROOT, scratch, (files, seen), place)
    losses: list[float] = []
    # Making series counts, too: both networks see the same ones, and one of them alone would not be cheaper.
    hooks = Hooks(lambda _, p: losses.append(p.loss), limit_seconds=options.seconds, clock=time.process_time)
    try:
        state = train(config, source, place, hooks, new_state(config, place, first))
    finally:
        source.close()
    loss = float(np.mean(losses[-max(1, len(losses) // 10) :]))
    network = state.averaged.eval().requires_grad_(False)
    return network, {"steps": state.step, "process_seconds": state.seconds, "training_loss": loss}


def examples_of(options: Any, config: TrainConfig) -> dict[str, list[Example]]:
    """Series to score on, by the state of their CTF; "none" are projections with white noise."""
    library = load_library((options.molecules,)) if options.molecules else ()
    unseen: tuple[Molecule, ...] = tuple(molecule for molecule in library if molecule.name in UNSEEN)
    files = (options.molecules,) if options.molecules else ()
    plain = {"every": 1, "specimens": 1 if options.quick else options.series, "recipe_series": 0}
    if options.quick:
        plain |= {"shape": (16, 32, 32), "snr_db": (0.0,)}
    found = {"none": validation_set(_scored(config, plain, []), ROOT, unseen, files)}
    for state, path in {} if options.quick else RECIPES.items():
        only = {"every": 1, "specimens": 0, "recipe_series": options.series}
        found[state] = validation_set(_scored(config, only, [{"path": path}]), ROOT, unseen, files)
    return found


def _scored(config: TrainConfig, validation: dict[str, Any], recipes: list[dict[str, str]]) -> TrainConfig:
    data = {"plain_weight": 0.0 if recipes else 1.0, "recipes": recipes}
    values = {**config.model_dump(), "data": data, "validation": validation}
    return TrainConfig(**values)


def verdicts(network: Network, examples: list[Example], config: TrainConfig, told: bool) -> list[Verdict]:
    """Scores of a network that is told everything that is known, or nothing."""
    heard = examples if told else [dataclasses.replace(example, known=NOTHING) for example in examples]
    return judge(network, heard, config, ON_CPU)[0]


def rows_of(results: dict[str, dict[str, list[dict[str, Any]]]]) -> Iterator[list[Cell]]:
    """A row for each state and network: mean scores over its series; classes over those that have them."""
    for state, networks in results.items():
        for name, found in networks.items():
            scores = [np.mean([one[key] for one in found]) for key in ("loss", "snr_db", "fsc_measured", "fsc_missing")]
            classes = np.array([[np.nan if v is None else v for v in one["fidelity"]] for one in found], dtype=float)
            there = [column[np.isfinite(column)] for column in classes.T]
            fidelity = [f"{column.mean():.3f}" if column.size else "" for column in there]
            yield [state, name, *(f"{v:.{d}f}" for v, d in zip(scores, (4, 2, 3, 3), strict=True)), *fidelity]


def write(options: Any, runs: dict[str, Any], results: dict[str, Any]) -> None:
    """Write what is there so far."""
    how = f"Networks alone, from {options.model}, {options.minutes:g} minutes of one core each; facts "
    how = "Networks alone, as they are" if options.networks else how + ", ".join(options.facts)
    table = Table(
        "What is known goes in",
        ("CTF", "network", "loss", "SNR dB", "FSC measured", "FSC missing", *SUMMARY),
        list(rows_of(results)),
        note=f"{how}; {options.series} series a row, more for white noise.",
    )
    record("known", {"tables": [table], "runs": runs, "results": results}, options.output)


def score(options: Any, results: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """Score networks as they are, told everything and told nothing; those that take no facts once."""
    networks = {Path(name).name: load_model(name).network for name in options.networks}
    config, _ = training(options, load_model(options.model).network, ())
    for state, series in examples_of(options, config).items():
        for name, network in networks.items():
            heard = {f"{name}, told": True, f"{name}, told nothing": False}
            for title, told in (heard if network.config.input.known else {name: True}).items():
                results.setdefault(state, {})[title] = _plain(verdicts(network, series, config, told))


def _plain(found: list[Verdict]) -> list[dict[str, Any]]:
    plain: list[dict[str, Any]] = json.loads(json.dumps([dataclasses.asdict(one) for one in found]))
    return plain


def main() -> None:
    """Train both networks and score them, or score what is there."""
    made = parser("known", __doc__)
    made.add_argument("--model", default="fast", help="weights that both start from; a RowSet that takes no facts")
    made.add_argument("--molecules", type=Path, help="library of molecules; else procedural ones only")
    made.add_argument("--minutes", type=float, default=60.0, help="of one core for each network")
    made.add_argument("--series", type=int, default=4, help="to score on, for each state of the CTF")
    made.add_argument("--facts", default=",".join(FACTS), help="that one of them takes, separated by commas")
    made.add_argument("--learning-rate", type=float, default=3e-4)
    made.add_argument("--networks", nargs="+", metavar="NAME", help="score these instead; nothing is trained")
    made.add_argument("--bf16", action="store_true", help="train in bfloat16, where the CPU multiplies it")
    options = read_arguments(made)
    options.facts = tuple(name for name in FACTS if name in options.facts.split(","))
    options.seconds = 3.0 if options.quick else 60 * options.minutes
    torch.set_num_threads(1)
    start = load_model(options.model).network
    scratch = options.output.parent
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    runs: dict[str, Any] = {}
    if options.networks:
        score(options, results)
        write(options, runs, results)
        return
    examples = examples_of(options, training(options, start, ())[0])
    for facts, names in (((), {WITHOUT: True}), (options.facts, {TOLD: True, UNTOLD: False})):
        config, first = training(options, start, facts)
        network, runs[" ".join(facts) or "none"] = trained(config, first, options, scratch)
        for state, series in examples.items():
            for name, told in names.items():
                found = verdicts(network, series, config, told)
                results.setdefault(state, {})[name] = _plain(found)
        write(options, runs, results)


if __name__ == "__main__":
    main()
