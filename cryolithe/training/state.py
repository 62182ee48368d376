"""States and batches on disk: safetensors with JSON in the header, nothing pickled, each file complete or not there.

    state.safetensors    network.*, averaged.*, optimiser.*; metadata: step, best loss, the whole configuration

Random numbers need no state: every run of rows is seeded by its step (`cryolithe.training.loader`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cryolithe.errors import ModelError, OutputError, SettingsError
from cryolithe.network import Network
from cryolithe.network.checkpoint import save_network
from cryolithe.optimise.tensors import read_tensors, write_tensors
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import Run
from cryolithe.training.loop import TrainState

FORMAT = "cryolithe-training-state"
# What may differ between a run and its continuation: it does not change what a step computes.
FREE_KEYS = ("save_every", "compile")


def save_state(path: Path, state: TrainState, config: TrainConfig) -> None:
    """Write everything that a run needs to go on; an earlier file stays until the new one is complete.

    Raises:
        OutputError: if it cannot be written (the earlier file is kept).
    """
    tensors: dict[str, torch.Tensor] = {}
    for part, module in (("network", state.network), ("averaged", state.averaged)):
        tensors |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
    moments = state.optimiser.state_dict()["state"]
    for number, values in moments.items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in values.items()}
    metadata = {
        "step": state.step,
        "seconds": state.seconds,
        "best_loss": state.best_loss,
        "stale": state.stale,
        "scaler": state.scaler.state_dict(),
        "config": config.model_dump(mode="json"),
    }
    write_tensors(path, tensors, FORMAT, metadata)


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
    if not path.is_file():
        raise ModelError(f"there is no saved state {path} to resume from; leave --resume away to start a run")
    tensors, values = read_tensors(path, FORMAT, "a saved training state")
    _check_same(path, values["config"], config.model_dump(mode="json"))
    for part, module in (("network", state.network), ("averaged", state.averaged)):
        found = {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
        for name, tensor in module.state_dict().items():
            if name not in found or found[name].shape != tensor.shape:
                shape = tuple(found[name].shape) if name in found else "none"
                raise ModelError(
                    f"{path} is of another architecture: leaf '{name}' has shape {shape}, expected "
                    f"{tuple(tensor.shape)}"
                )
        module.load_state_dict(found)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".", 2)
            moments.setdefault(int(number), {})[name] = tensor
    whole = state.optimiser.state_dict()
    state.optimiser.load_state_dict({"state": moments, "param_groups": whole["param_groups"]})
    if values["scaler"]:
        state.scaler.load_state_dict(values["scaler"])
    state.step, state.seconds = int(values["step"]), float(values["seconds"])
    state.best_loss, state.stale = float(values["best_loss"]), int(values["stale"])


def save_model(path: Path, network: Network, card: dict[str, Any]) -> None:
    """Write a model; an earlier file stays until the new one is complete.

    Raises:
        OutputError: if it cannot be written (the earlier file is kept).
    """
    try:
        save_network(path, network, card)
    except (OSError, OutputError) as error:
        path.with_name(path.name + ".partial").unlink(missing_ok=True)
        if isinstance(error, OutputError):
            raise
        raise OutputError(_cannot(path, error)) from error


def save_runs(path: Path, runs: Sequence[Run], step: int) -> None:
    """Write the runs of a step for study: ``N.rows``, ``N.columns``, ``N.angles_rad``, ``N.targets``.

    Raises:
        OutputError: if the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    for number, run in enumerate(runs):
        parts = {"rows": run.rows, "columns": run.columns, "angles_rad": run.angles_rad, "targets": run.targets}
        tensors |= {f"{number}.{name}": tensor for name, tensor in parts.items()}
    values = {"step": step + 1, "series": [r.name for r in runs], "gains": [r.output_gain for r in runs]}
    write_tensors(path, tensors, FORMAT, values)


def _cannot(path: Path, error: OSError) -> str:
    kept = "; the earlier one is kept: make room and go on with --resume" if path.exists() else ""
    return f"cannot write {path}: {error.strerror or error}{kept}"


def _check_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise SettingsError at the first key that differs."""
    for key, value in now.items():
        if key not in FREE_KEYS and before.get(key) != value:
            raise SettingsError(
                f"{path} was saved by a run with other settings: '{key}' was {before.get(key)}, now {value}; "
                "resume with the configuration of that run"
            )
