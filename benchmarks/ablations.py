"""What each part of the network and of its training is worth: one change at a time, at equal compute.

All variants are trained from scratch on the same simulated series for the same time of one core (the process's own
time, so that other programs do not matter much) and scored on the same validation series, none of which they saw.
A variant that is done stays in the results; repeating the command goes on with the others.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import ROOT, Cell, Table, parser, read_arguments, record
from parts.scenes import UNSEEN

from cryolithe.geometry import TiltGeometry
from cryolithe.network import Network
from cryolithe.network.config import RowSetConfig
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.estimate import products_per_voxel
from cryolithe.reconstruction.slabwise.methods import ON_CPU
from cryolithe.simulation import load_library
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import simulate_training_set
from cryolithe.training.loop import TrainState, train
from cryolithe.training.recipe_maker import recipe_maker
from cryolithe.training.scoring import range_of, reconstruct_array, score_volume
from cryolithe.training.series import TrainingSeries, series_of_pair
from cryolithe.training.sources import FixedSource, MixedSource
from cryolithe.training.validation import Example, Verdict, judge, validation_set

RECIPES = tuple(f"training_data/recipes/train_{ctf}.yaml" for ctf in ("flipped", "wiener", "uncorrected"))
BASE: dict[str, Any] = {
    "network": {"kind": "RowSet"},
    "data": {"plain_weight": 0.4, "recipes": [{"path": path} for path in RECIPES], "recipes_weight": 0.6},
    "augment": {"flip_chance": 0.5, "half_chance": 0.2, "range_cut_chance": 0.2},
    "hold_out": UNSEEN,
    "snr_db": (-10.0, 10.0),
    "seed": 5,
    "steps": 1_000_000,
    "warmup_steps": 100,
    "learning_rate": 1.5e-3,
    "ema_decay": 0.99,
    "band_exponent": 0.8,
    "validation": {"specimens": 2, "shape": (48, 96, 96), "snr_db": (-5.0, 0.0), "recipe_series": 3},
}


class Variant(NamedTuple):
    """A change of the base.

    Attributes:
        question: what it is to answer.
        changes: of the configuration; tables are merged.
        points: number of points to train on instead of the time; None for the time.
    """

    question: str
    changes: dict[str, Any]
    points: int | None = None


def network(**values: Any) -> dict[str, Any]:
    """Changes of the network."""
    return {"network": values}


SLICESET = {"kind": "SliceSet"}
VARIANTS: dict[str, Variant] = {
    "base": Variant("", {}),
    "base, other seed": Variant("spread of one seed", {"seed": 6}),
    "oversampling 2": Variant("interpolation of rows", network(input={"oversampling": 2})),
    "haar": Variant("wavelet", network(head={"wavelet": "haar"})),
    "haar, p = 1": Variant(
        "wavelet: the plain voxel loss", {**network(head={"wavelet": "haar"}), "band_exponent": 1.0}
    ),
    "combiner 512": Variant("width", network(combiner_width=512)),
    "FSC loss 0.3": Variant("loss", {"loss": {"fsc": 0.3, "cube_share": 0.5}}),
    "learning rate 3e-3": Variant("optimiser", {"learning_rate": 3e-3}),
    "p = 1": Variant("weights of bands", {"band_exponent": 1.0}),
    "no context": Variant("context scales", network(input={"context_taps": 0})),
    "channels 192": Variant("width", network(channels=192)),
    "4 bands": Variant("filters beside the ramp", network(input={"bands": 4})),
    "no angle encoding": Variant("angle encoding", network(angle_harmonics=0)),
    "weigh spacing": Variant("weights of tilts", network(weigh_spacing=True)),
    "L1": Variant("loss", {"loss": {"l1": 1.0, "l2": 0.0}}),
    "voxel head": Variant("head", network(head={"levels": 0})),
    "two levels": Variant("head", network(head={"levels": 2})),
    "SliceSet": Variant("sharing rows: equal time", {"network": SLICESET}),
    "base, points of SliceSet": Variant("sharing rows: equal points", {}, points=-1),
    "bior3.3": Variant("wavelet", network(head={"wavelet": "bior3.3"})),
    "p = 0.6": Variant("weights of bands", {"band_exponent": 0.6}),
    "context every 8 px": Variant("context scales", network(input={"context_step_px": 8, "context_sigma_px": 5.0})),
    "ramp without window": Variant("ramp", network(input={"ramp_window": "ramp"})),
    "combiner 128": Variant("width", network(combiner_width=128)),
    "5 combiner layers": Variant("depth", network(combiner_layers=5)),
    "row features 32": Variant("width", network(row_features=32)),
    "11 rows": Variant("size of the patch", network(rows=11)),
    "11 taps": Variant("size of the patch", network(input={"taps": 11})),
    "fixed noise, all tilts": Variant("residual on FBP: its control", {"augment": {"drop_chance": 0.0}}),
    "residual on FBP": Variant("residual on FBP", {"augment": {"drop_chance": 0.0}}),
}
FIXED_NOISE = ("fixed noise, all tilts", "residual on FBP")


def configured(variant: Variant) -> TrainConfig:
    """The base with the changes of a variant."""

    def merged(base: Any, changes: Any) -> Any:
        if not (isinstance(base, dict) and isinstance(changes, dict)):
            return changes
        if changes.get("kind", base.get("kind")) != base.get("kind"):
            return changes
        return {**base, **{key: merged(base.get(key), value) for key, value in changes.items()}}

    return TrainConfig(**merged(BASE, variant.changes))


class Data(NamedTuple):
    """Series with voxel targets, and the validation set.

    Attributes:
        plain: without noise.
        recipes: with theirs.
        examples: to be scored on.
    """

    plain: list[TrainingSeries]
    recipes: list[TrainingSeries]
    examples: list[Example]


def make_data(molecules: Path | None, count: int) -> Data:
    """Simulate ``count`` plain series and as many of the recipes; their targets are voxels."""
    config = configured(Variant("", {"series": count, **network(head={"levels": 0})}))
    library = load_library((molecules,)) if molecules else ()
    files = (molecules,) if molecules else ()
    train_on = tuple(m for m in library if m.name not in UNSEEN)
    unseen = tuple(m for m in library if m.name in UNSEEN)
    maker = recipe_maker(config, ROOT, files)
    head = config.network_config().head
    recipes = [series_of_pair(maker.pair(number), head, f"series {number}") for number in range(count)]
    return Data(simulate_training_set(config, train_on), recipes, validation_set(config, ROOT, unseen, files))


def for_variant(data: Data, name: str, config: TrainConfig) -> MixedSource:
    """The series with targets of the variant's head."""
    head = config.network_config().head

    def with_head(series: TrainingSeries) -> TrainingSeries:
        assert isinstance(series.targets, torch.Tensor)
        return replace(series, targets=head.targets(series.targets[..., 0]))

    plain = data.plain
    if name in FIXED_NOISE:
        plain = [with_fixed_noise(series, number, config) for number, series in enumerate(plain)]
    both = [plain, data.recipes]
    if name == "residual on FBP":
        both = [[minus_fbp(series) for series in some] for some in both]
    sources = [FixedSource([with_head(series) for series in some]) for some in both]
    return MixedSource(sources, [config.data.plain_share, config.data.recipes_weight])


def with_fixed_noise(series: TrainingSeries, number: int, config: TrainConfig) -> TrainingSeries:
    """A plain series with noise drawn once, in the units that a network sees."""
    rng = np.random.default_rng([config.seed, number])
    images = series.images
    assert isinstance(images, torch.Tensor)
    std = series.image_std / 10 ** (rng.uniform(*config.snr_db) / 20)
    scale = float(np.hypot(series.image_std, std))
    noisy = (images + std * torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))) / scale
    return replace(series, images=noisy, image_std=1.0, amplitude=1 / scale, noiseless=False)


def minus_fbp(series: TrainingSeries) -> TrainingSeries:
    """A series whose target is what FBP lacks."""
    depth, _, width = series.shape
    images, targets = series.images, series.targets
    assert isinstance(images, torch.Tensor)
    assert isinstance(targets, torch.Tensor)
    projected = fbp(make_projector(series.geometry, (depth, width)), images, "hamming")
    return replace(series, targets=targets - (projected / series.amplitude)[..., None], halves=None)


def scores(name: str, state: TrainState, config: TrainConfig, examples: list[Example]) -> list[dict[str, Any]]:
    """Scores of the averaged weights on the validation set."""
    trained = state.averaged.eval().requires_grad_(False)
    if name == "residual on FBP":
        return [asdict(verdict) for verdict in judge_with_fbp(trained, examples)]
    return [asdict(verdict) for verdict in judge(trained, examples, config, ON_CPU)[0]]


def judge_with_fbp(trained: Network, examples: list[Example]) -> Iterator[Verdict]:
    """Verdicts of FBP plus the network's volume."""
    for example in examples:
        depth, height, width = example.truth.shape
        projector = make_projector(TiltGeometry(example.angles_deg, (height, width)), (depth, width))
        volume = fbp(projector, torch.from_numpy(example.images), "hamming").numpy()
        volume = volume + reconstruct_array(trained, example.images, example.angles_deg, depth)
        score = score_volume(example.truth, volume, range_of(example.angles_deg))
        yield Verdict(example.name, 0.0, score.snr_db, score.fsc_measured, score.fsc_missing, ())


def run_variant(name: str, variant: Variant, data: Data, seconds: float, points: int | None) -> dict[str, Any]:
    """Train and score a variant."""
    config = configured(variant)
    source = for_variant(data, name, config)
    place = Place(torch.device("cpu"), torch.float32)
    per_step = config.runs_per_step * config.columns * config.blocks
    if points is not None:
        config = config.model_copy(update={"steps": max(2, points // per_step)})
    losses: list[float] = []
    limit = seconds if points is None else math.inf
    state = train(config, source, place, Hooks(lambda _, p: losses.append(p.loss), limit_seconds=limit,
                                               clock=time.process_time))  # fmt: skip
    network_config = config.network_config()
    return {
        "question": variant.question,
        "changes": variant.changes,
        "steps": state.step,
        "points": state.step * per_step,
        "process_seconds": state.seconds,
        "training_loss": float(np.mean(losses[-max(1, len(losses) // 10) :])),
        "products_per_voxel": products_per_voxel(network_config),
        "row_set": isinstance(network_config, RowSetConfig),
        "scores": scores(name, state, config, data.examples),
    }


def mean_scores(result: dict[str, Any], kind: str) -> list[float]:
    """Mean SNR, FSC measured and missing over the validation series of a kind."""
    found = [s for s in result["scores"] if (s["name"].endswith(kind) if "dB" in kind else s["name"].startswith(kind))]
    # A volume without any structure has no score: JSON holds None.
    table = [[np.nan if s[key] is None else s[key] for s in found] for key in ("snr_db", "fsc_measured", "fsc_missing")]
    return [float(np.mean(values)) for values in table]


def table(results: dict[str, dict[str, Any]], minutes: float) -> Table:
    """One row for each variant."""
    rows: list[list[Cell]] = []
    for name, result in results.items():
        cells = [" / ".join(f"{v:.{d}f}" for v, d in zip(mean_scores(result, kind), (2, 3, 3), strict=True))
                 for kind in ("-5 dB", "0 dB", "recipe")]  # fmt: skip
        rows.append([name, result["question"], *cells, result["points"], round(result["products_per_voxel"])])
    return Table(
        "Ablations",
        ("variant", "question", "−5 dB", "0 dB", "cells", "points", "products per voxel"),
        rows,
        note=f"SNR dB / FSC measured / FSC missing on series never seen; {minutes:g} minutes of one core each.",
    )


def main() -> None:
    """Train and score all variants that are not done."""
    options = parser("ablations", __doc__)
    options.add_argument("--molecules", type=Path, help="library of molecules; else procedural ones only")
    options.add_argument("--minutes", type=float, default=4.0, help="of one core for each variant")
    options.add_argument("--only", help="variants, separated by semicolons")
    arguments = read_arguments(options)
    torch.set_num_threads(1)
    done: dict[str, dict[str, Any]] = {}
    if arguments.output.exists():
        done = json.loads(arguments.output.read_text(encoding="utf-8"))["variants"]
    names = [n.strip() for n in arguments.only.split(";")] if arguments.only else list(VARIANTS)
    seconds = 5.0 if arguments.quick else 60 * arguments.minutes
    data = make_data(arguments.molecules, 2 if arguments.quick else 32)
    for name in names:
        if name in done:
            continue
        variant = VARIANTS[name]
        points = done["SliceSet"]["points"] if variant.points else None
        done[name] = run_variant(name, variant, data, seconds, points)
        record("ablations", {"tables": [table(done, arguments.minutes)], "variants": done}, arguments.output)


if __name__ == "__main__":
    main()
