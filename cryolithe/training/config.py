"""The training configuration: read from YAML, checked before the first step, stored beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from cryolithe.errors import SettingsError, nearest_name
from cryolithe.files.names import exists
from cryolithe.files.table_numbers import check_numbers
from cryolithe.files.yaml_table import read_yaml_table
from cryolithe.network.config import NetworkConfig, config_from_dict
from cryolithe.noise.stored import load_profile
from cryolithe.recipes import find_recipe
from cryolithe.simulation import like_profile, read_recipe
from cryolithe.simulation.shipped_molecules import SHIPPED
from cryolithe.training.sections import (
    AugmentSettings,
    DataSettings,
    LossSettings,
    Range,
    RecipeEntry,
    Section,
    SpecimenSettings,
    TiltSettings,
    ValidationSettings,
)


class TrainConfig(Section):
    """Everything that decides a training run, apart from the molecule library's place.

    Attributes:
        network: kind and sizes, see `cryolithe.network.config`.
        start: name or file of a model to start from; its network replaces ``network``. None for fresh weights.
        start_rows: name or file of a RowSet whose row encoder is taken; it must be as wide, its head may differ.
        start_grown: name or file of a RowSet that differs in nothing but smaller widths: training begins with what it
            computes. At most one of the three is given.
        specimens: what the plain simulated specimens contain.
        tilts: how they are tilted.
        hold_out: molecules never to be trained on.
        series: plain series held in memory.
        snr_db: range of the white noise drawn anew for each run of rows of a plain series.
        data: where series come from.
        augment: how runs of rows are changed at random.
        loss: parts of the loss.
        validation: the fixed validation set.
        seed: of specimens, weights and batches.
        steps: optimiser steps.
        runs_per_step: series, each with a run of rows, that make one step (of each process).
        columns: random (z, x) columns of a run.
        blocks: blocks of each column along y.
        learning_rate: peak of the schedule (warm-up, then cosine to zero).
        warmup_steps: steps of linear warm-up.
        weight_decay: of AdamW.
        clip_norm: largest norm of the gradient.
        ema_decay: decay of the averaged weights, which are the ones saved.
        band_exponent: wavelet bands weigh as (voxel norm of their synthesis function) to this power.
        fewest_tilts: tilts are dropped at random, but never below this number.
        compile: compile the network with torch.compile. For GPUs: on a CPU it keeps runs from being worked on by
            detector columns, which is several times as fast.
        save_every: steps between saved states.
    """

    network: dict[str, Any] = Field({"kind": "RowSet"})
    start: str | None = None
    start_rows: str | None = None
    start_grown: str | None = None
    specimens: SpecimenSettings = SpecimenSettings()
    tilts: TiltSettings = TiltSettings()
    hold_out: tuple[str, ...] = ()
    series: int = Field(48, ge=1)
    snr_db: Range = (-8.0, 5.0)
    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    loss: LossSettings = LossSettings()
    validation: ValidationSettings = ValidationSettings()
    seed: int = Field(1, ge=0)
    steps: int = Field(20000, ge=1)
    runs_per_step: int = Field(2, ge=1)
    columns: int = Field(32, ge=1)
    blocks: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(300, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    band_exponent: float = 1.0
    fewest_tilts: int = Field(16, ge=1)
    compile: bool = False
    save_every: int = Field(1000, ge=1)

    def network_config(self) -> NetworkConfig:
        """The network's configuration."""
        return config_from_dict(self.network)


SECTIONS: dict[str, type[BaseModel]] = {
    "specimens": SpecimenSettings,
    "tilts": TiltSettings,
    "data": DataSettings,
    "augment": AugmentSettings,
    "loss": LossSettings,
    "validation": ValidationSettings,
}


def read_train_config(path: Path) -> TrainConfig:
    """Read and check a YAML training configuration.

    Raises:
        SettingsError: if the file is missing or not YAML, or a key is unknown (the nearest one is named) or a value
            out of range, or values contradict each other.
        ModelError: if the network's configuration is wrong.
    """
    values = read_yaml_table(path, "training configuration")
    check_numbers(values, TrainConfig, path)
    try:
        config = TrainConfig(**values)
    except ValidationError as error:
        found = error.errors()
        # A misspelt key also leaves the right one missing: the misspelling is what to tell.
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        place = [str(part) for part in first["loc"]]
        hint = nearest_name(place[-1], _known_keys(place)) if first["type"] == "extra_forbidden" else ""
        raise SettingsError(f"{path}: '{'.'.join(place)}': {first['msg']}{hint}") from error
    check_config(config, str(path))
    return config


def check_config(config: TrainConfig, name: str) -> None:
    """Check values against each other.

    Raises:
        SettingsError: if they contradict each other.
        ModelError: if the network's configuration is wrong.
    """
    head = config.network_config().head
    loss = config.loss
    starts = [key for key in ("start", "start_rows", "start_grown") if getattr(config, key) is not None]
    if len(starts) > 1:
        raise SettingsError(f"{name}: '{starts[0]}' and '{starts[1]}' exclude each other; give one")
    if loss.l1 + loss.l2 + loss.fsc == 0:
        raise SettingsError(f"{name}: 'loss': all weights are 0; give l1, l2 or fsc a positive one")
    least = -(-8 // head.stride) + 2 * head.margin
    if loss.fsc and min(loss.cube) < least:
        raise SettingsError(
            f"{name}: 'loss.cube': this network's head needs {least} blocks or more along each axis for a shell "
            f"correlation, got {list(loss.cube)}"
        )
    if not (config.data.plain_share or config.data.recipes or config.data.pairs):
        raise SettingsError(f"{name}: 'data': nothing to train on; give recipes, pairs or a positive plain_weight")
    if config.data.noise and not config.data.recipes:
        raise SettingsError(f"{name}: 'data.noise' is the noise of series of recipes; give 'data.recipes', too")


def check_files(config: TrainConfig, base: Path) -> None:
    """Check that the recipes and pairs of a configuration exist and can be read, before anything is simulated.

    Args:
        config: the configuration.
        base: folder that its paths are relative to.

    Raises:
        SettingsError: if a recipe is missing or wrong, or a pair is missing.
        InputError: if a noise profile cannot be read, or serves no voxel size of a recipe.
    """
    for entry in config.data.recipes:
        path = find_recipe(entry.path, "simulate", base)
        recipe = read_recipe(path)
        for profile in config.data.noise:
            like_profile(recipe, base / profile)
        for name in recipe.molecules:
            if name not in SHIPPED and not exists(path.parent / name):
                raise SettingsError(f"recipe {path} names the molecules {name}, which do not exist")
    for name in (*config.data.pairs, *config.validation.pairs):
        if not exists(base / name):
            raise SettingsError(f"training pair {base / name} does not exist; give an HDF5 file or a folder of them")


def noise_notes(config: TrainConfig, base: Path) -> list[str]:
    """What a user should know of a configuration's noise profiles: their own notes, and voxel sizes they leave out.

    Args:
        config: checked by `check_files`.
        base: folder that its paths are relative to.
    """
    notes = []
    for profile in config.data.noise:
        notes += [f"{Path(profile).name}: {note}" for note in load_profile(base / profile).notes]
        for entry in config.data.recipes:
            _, note = like_profile(read_recipe(find_recipe(entry.path, "simulate", base)), base / profile)
            notes += [f"{entry.path}: {note}"] if note else []
    return list(dict.fromkeys(notes))


def _known_keys(place: list[str]) -> list[str]:
    """Keys of the section that a wrong key stands in."""
    if place[:2] == ["data", "recipes"] and len(place) > 2:
        return list(RecipeEntry.model_fields)
    return list(SECTIONS.get(place[0], TrainConfig).model_fields if len(place) > 1 else TrainConfig.model_fields)
