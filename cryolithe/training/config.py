"""The training configuration: read from YAML, checked before the first step, stored beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from cryolithe.errors import SettingsError, nearest_name
from cryolithe.network.config import NetworkConfig, config_from_dict
from cryolithe.simulation import SpecimenRecipe, TiltScheme

Pair = TypeVar("Pair", bound="tuple[float, float] | tuple[int, int]")


def _ascending(pair: Pair) -> Pair:
    if pair[0] > pair[1]:
        raise ValueError(f"must be (least, most), got {list(pair)}")
    return pair


def _positive(pair: Pair) -> Pair:
    if pair[0] <= 0:
        raise ValueError(f"must be positive, got {list(pair)}")
    return pair


def _not_negative(pair: Pair) -> Pair:
    if pair[0] < 0:
        raise ValueError(f"must not be negative, got {list(pair)}")
    return pair


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
PositiveRange = Annotated[Range, AfterValidator(_positive)]
NonNegativeRange = Annotated[Range, AfterValidator(_not_negative)]
CountRange = Annotated[tuple[int, int], AfterValidator(_ascending), AfterValidator(_not_negative)]


class SpecimenSettings(BaseModel):
    """Fields of `cryolithe.simulation.SpecimenRecipe`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 128)
    voxel_size_angstrom: PositiveRange = (7.0, 13.0)
    crowding: NonNegativeRange = (0.02, 0.12)
    procedural_share: float = Field(0.15, ge=0, le=1)
    membranes: CountRange = (0, 3)
    body_chance: float = Field(0.25, ge=0, le=1)
    bead_chance: float = Field(0.15, ge=0, le=1)

    def recipe(self) -> SpecimenRecipe:
        """The recipe with these values."""
        return SpecimenRecipe(**self.model_dump())


class TiltSettings(BaseModel):
    """Fields of `cryolithe.simulation.TiltScheme`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reach_deg: PositiveRange = (40.0, 70.0)
    step_deg: PositiveRange = (1.5, 3.5)
    pretilt_deg: Range = (-8.0, 8.0)

    def scheme(self) -> TiltScheme:
        """The scheme with these values."""
        return TiltScheme(**self.model_dump())


class TrainConfig(BaseModel):
    """Everything that decides a training run, apart from the molecule library's place.

    Attributes:
        network: kind and sizes, see `cryolithe.network.config`.
        specimens: what the simulated specimens contain.
        tilts: how they are tilted.
        hold_out: molecules never to be trained on.
        series: simulated series held in memory.
        snr_db: range of the white noise drawn anew in every step.
        seed: of specimens, weights and batches.
        steps: optimiser steps.
        runs_per_step: series, each with a run of rows, that make one step.
        columns: random (z, x) columns of a run.
        blocks: blocks of each column along y.
        learning_rate: peak of the schedule (warm-up, then cosine to zero).
        warmup_steps: steps of linear warm-up.
        ema_decay: decay of the averaged weights, which are the ones saved.
        band_exponent: wavelet bands weigh as (voxel norm of their synthesis function) to this power.
        fewest_tilts: tilts are dropped at random, but never below this number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: dict[str, Any] = {"kind": "RowSet"}
    specimens: SpecimenSettings = SpecimenSettings()
    tilts: TiltSettings = TiltSettings()
    hold_out: tuple[str, ...] = ()
    series: int = Field(48, ge=1)
    snr_db: Range = (-8.0, 5.0)
    seed: int = Field(1, ge=0)
    steps: int = Field(20000, ge=1)
    runs_per_step: int = Field(2, ge=1)
    columns: int = Field(32, ge=1)
    blocks: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(300, ge=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    band_exponent: float = 1.0
    fewest_tilts: int = Field(16, ge=1)

    def network_config(self) -> NetworkConfig:
        """The network's configuration."""
        return config_from_dict(self.network)


def read_train_config(path: Path) -> TrainConfig:
    """Read and check a YAML training configuration.

    Raises:
        SettingsError: if the file is missing or not YAML, or a key is unknown (the nearest one is named) or a value
            out of range.
        ModelError: if the network's configuration is wrong.
    """
    if not path.is_file():
        raise SettingsError(f"training configuration {path} does not exist")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: impossible dates, broken UTF-8
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path} must hold 'key: value' lines, got {type(values).__name__}")
    try:
        config = TrainConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        hint = (
            nearest_name(str(first["loc"][-1]), _known_keys(first["loc"][0]))
            if first["type"] == "extra_forbidden"
            else ""
        )
        raise SettingsError(f"{path}: '{key}': {first['msg']}{hint}") from error
    config.network_config()
    return config


def _known_keys(section: int | str) -> list[str]:
    """Keys of the section that a wrong key stands in."""
    sections: dict[int | str, type[BaseModel]] = {"specimens": SpecimenSettings, "tilts": TiltSettings}
    return list(sections.get(section, TrainConfig).model_fields)
