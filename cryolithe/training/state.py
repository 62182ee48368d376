"""States, models and batches on disk: safetensors with JSON in the header, each file complete or not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cryolithe.errors import OutputError, how_to_write
from cryolithe.network import Network
from cryolithe.network.checkpoint import save_network
from cryolithe.optimise.state import check_same, read_state, restore, write_state
from cryolithe.optimise.tensors import write_tensors
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import Run
from cryolithe.training.loop import TrainState

FORMAT = "cryolithe-training-state"
# What may differ between a run and its continuation: it does not change what a step sees and computes.
FREE_KEYS = ("save_every", "compile", "data.workers", "data.loader_threads", "data.open_pairs")
# Where a configuration names files whose contents are compared when a run goes on.
_FILES = {"data": ("pairs", "noise"), "validation": ("pairs",)}
_STARTS = ("start", "start_rows", "start_grown")


def save_state(path: Path, state: TrainState, config: TrainConfig) -> None:
    """Write everything that a run needs to go on; an earlier file stays until the new one is complete.

    Raises:
        OutputError: if it cannot be written (the earlier file is kept).
    """
    write_state(path, state, FORMAT, {"config": config.model_dump(mode="json")})


def load_state(path: Path, state: TrainState, config: TrainConfig) -> None:
    """Go back to a saved state.

    Args:
        path: written by `save_state`.
        state: of the same architecture; it is changed.
        config: of the run that goes on.

    Raises:
        SettingsError: if the state is of another configuration (the key is named).
        ModelError: if the file is missing, corrupt, or of another architecture (the leaf is named).
    """
    tensors, values = read_state(path, FORMAT)
    before, now = (_named(one) for one in (values["config"], config.model_dump(mode="json")))
    check_same(path, before, now, FREE_KEYS)
    restore(path, state, tensors, values)


def save_model(path: Path, network: Network, card: dict[str, Any]) -> None:
    """Write a model; an earlier file stays until the new one is complete.

    Raises:
        OutputError: if it cannot be written (the earlier file is kept).
    """
    try:
        save_network(path, network, card)
    except OSError as error:
        raise OutputError(_cannot(path, error)) from error


def save_runs(path: Path, runs: Sequence[Run], step: int) -> None:
    """Write the runs of a step for study: ``N.rows``, ``N.columns``, ``N.angles_rad``, ``N.targets``, ``N.facts``.

    Raises:
        OutputError: if the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    for number, run in enumerate(runs):
        parts = {"rows": run.rows, "columns": run.columns, "angles_rad": run.angles_rad, "targets": run.targets}
        if run.facts is not None:
            parts["facts"] = run.facts
        tensors |= {f"{number}.{name}": tensor for name, tensor in parts.items()}
    values = {"step": step + 1, "series": [r.name for r in runs], "gains": [r.output_gain for r in runs]}
    write_tensors(path, tensors, FORMAT, values)


def _named(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with names of files in place of their paths: what a run sees of files is told by their hashes."""
    named = dict(config)
    for section, keys in _FILES.items():
        if isinstance(found := named.get(section), Mapping):
            named[section] = {**found, **{key: _names(found[key]) for key in keys if key in found}}
            if recipes := found.get("recipes"):
                named[section]["recipes"] = [{**recipe, "path": _names(recipe["path"])} for recipe in recipes]
    return named | {key: _names(named[key]) for key in _STARTS if key in named}


def _names(files: Any) -> Any:
    if isinstance(files, list):
        return [_names(file) for file in files]
    return Path(files).name if isinstance(files, str) else files


def _cannot(path: Path, error: OSError) -> str:
    remedy = how_to_write(error)
    kept = f"; the earlier one is kept: {remedy and f'{remedy} and '}go on with --resume" if path.exists() else ""
    return f"cannot write {path}: {error.strerror or error}{kept}"
