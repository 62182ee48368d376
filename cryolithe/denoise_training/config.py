"""Configuration of the training of a general denoiser: read from YAML, checked before anything is simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cryolithe.denoising.n2n.network import BACKBONES, Config
from cryolithe.denoising.n2n.planar import PlanarConfig
from cryolithe.errors import SettingsError, nearest_name
from cryolithe.files.names import is_file
from cryolithe.files.table_numbers import check_numbers
from cryolithe.files.yaml_table import merged, read_yaml_table
from cryolithe.filters import WINDOWS
from cryolithe.recipes import find_recipe
from cryolithe.simulation import Recipe, SpecimenRecipe, swept_angles_deg

VOLUMES, IMAGES = "n2n", "n2n-images"
KINDS = (VOLUMES, IMAGES)
Target = Literal["half", "clean-fbp", "distilled"]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0)]
Pair = tuple[float, float]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecipeEntry(_Section):
    """A simulation recipe with its share of the series.

    Attributes:
        path: of the recipe, relative to the configuration, or the name of a shipped one.
        weight: share of the series that no other entry has.
        cell: entries of the recipe's part of that name to replace.
        imaging: likewise; nested tables entry by entry.
    """

    path: str
    weight: Weight = 1.0
    cell: dict[str, Any] = {}
    imaging: dict[str, Any] = {}


class PlainEntry(_Section):
    """Specimens with white noise and no optics.

    Attributes:
        weight: share of the series that no other entry has; 0 for none.
        snr_db: of the images of the whole dose.
        colour_db: standard deviation of the power of noise at each of a few frequencies, lines between them; 0 for
            white noise.
        blur_px: deviation of a Gaussian by which half of the series' noise is smoothed, as images that were
            interpolated or filtered have it.
        reach_deg: half of the tilt range; likewise ``step_deg``, ``pretilt_deg``.
        step_deg: see above.
        pretilt_deg: see above.
    """

    weight: float = Field(1.0, ge=0)
    snr_db: Pair = (-10.0, 5.0)
    colour_db: float = Field(0.0, ge=0, le=30)
    blur_px: Pair = (0.0, 0.0)
    reach_deg: Pair = (45.0, 70.0)
    step_deg: Pair = (1.5, 3.5)
    pretilt_deg: Pair = (-8.0, 8.0)

    def draw(self, rng: np.random.Generator) -> tuple[float, ...]:
        """The tilt angles of a series, ascending."""
        ranges = self.reach_deg, self.step_deg, self.pretilt_deg
        return swept_angles_deg(*(float(rng.uniform(*pair)) for pair in ranges))


class GeneralConfig(_Section):
    """Everything that decides a training, apart from the place of the molecules.

    Attributes:
        kind: "n2n" for volumes, "n2n-images" for tilt images; tells it from the configuration of a reconstruction.
        backbone: name of `cryolithe.denoising.n2n.network.BACKBONES`, for volumes.
        recipes: series with optics.
        plain: series without.
        diverse: chance that a specimen is a scene of membranes, filaments and bodies instead of a recipe's cell.
        hold_out: molecules that are never trained on.
        series: to learn from; each gives as many patches as any other.
        held_series: to score with.
        shape: voxels ``(z, y, x)`` of the specimens.
        voxel_size_angstrom: of all series.
        empty_planes: added above and below half of the specimens.
        windows: of the ramp filter, one drawn for each series.
        target: "half": the other half (Noise2Noise); "clean-fbp": the same back-projection without noise, which has the
            same mean and costs no steps to average; "distilled": what ``teacher`` makes of both halves.
        teacher: weights for "distilled", relative to the configuration.
        loss_fsc: weight of the shells' correlation beside the squared difference.
        whole_share: part of the patches that hold the noise of the whole dose; not for "half".
        most_noise: amplitude of the noise of the other patches, over that of the whole dose, at most.
        edge: of the patches.
        batch: patches of a step.
        learning_rate: after the warm-up; falls to 0 along a cosine.
        warmup_steps: over which it rises.
        weight_decay: of AdamW.
        ema_decay: of the averaged weights, which are the ones kept.
        steps: at most.
        validate_every: steps.
        seed: of everything.
    """

    kind: Literal["n2n", "n2n-images"]
    backbone: str = "unet-small"
    recipes: tuple[RecipeEntry, ...] = ()
    plain: PlainEntry = PlainEntry()
    diverse: Share = 0.5
    hold_out: tuple[str, ...] = ()
    series: int = Field(96, ge=1, le=100_000)
    held_series: int = Field(4, ge=1, le=1000)
    shape: tuple[int, int, int] = (64, 128, 128)
    voxel_size_angstrom: Pair = (8.0, 14.0)
    empty_planes: int = Field(16, ge=0, le=256)
    windows: tuple[str, ...] = ("ramp", "cosine", "hamming")
    target: Target = "clean-fbp"
    teacher: str | None = None
    loss_fsc: float = Field(0.25, ge=0)
    whole_share: Share = 0.4
    most_noise: float = Field(2.5, ge=1)
    edge: int = Field(64, ge=16)
    batch: int = Field(2, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    steps: int = Field(100_000, ge=1)
    validate_every: int = Field(250, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _together(self) -> GeneralConfig:
        if self.backbone not in BACKBONES:
            raise ValueError(f"'backbone': expected one of {', '.join(BACKBONES)}, got {self.backbone}")
        unknown = [name for name in self.windows if name not in WINDOWS]
        if unknown or not self.windows:
            raise ValueError(f"'windows': expected some of {', '.join(WINDOWS)}, got {', '.join(unknown) or 'none'}")
        if not self.recipes and not self.plain.weight:
            raise ValueError("nothing to train on; give recipes, or plain a positive weight")
        if (self.target == "distilled") != (self.teacher is not None):
            raise ValueError("'teacher' goes with target: distilled, and that needs one")
        low, high = self.voxel_size_angstrom
        if not 0 < low <= high:
            raise ValueError(f"'voxel_size_angstrom': must be (least, most), got {[low, high]}")
        if min(self.shape) < 16:
            raise ValueError(f"'shape': at least 16 voxels along each axis, got {list(self.shape)}")
        return self

    @property
    def network(self) -> Config:
        """Sizes of the backbone."""
        return PlanarConfig() if self.of_images else BACKBONES[self.backbone]

    @property
    def of_images(self) -> bool:
        """Whether images are denoised, and not volumes."""
        return self.kind == IMAGES

    def specimen(self) -> SpecimenRecipe:
        """Of the plain specimens and of the diverse ones."""
        return SpecimenRecipe(self.shape, self.voxel_size_angstrom, crowding=(0.02, 0.12), diverse=self.diverse)

    def data(self) -> dict[str, Any]:
        """What decides the series, as plain values."""
        names = ("recipes", "plain", "diverse", "hold_out", "shape", "voxel_size_angstrom", "empty_planes", "windows")
        values = self.model_dump(mode="json")
        kind = {"kind": IMAGES} if self.of_images else {}
        return {**kind, **{name: values[name] for name in (*names, "seed")}}


def is_general(path: Path) -> bool:
    """Whether a file holds the configuration of a general denoiser.

    Raises:
        SettingsError: if it is no YAML table.
    """
    return read_yaml_table(path, "training configuration").get("kind") in KINDS


def read_general_config(path: Path) -> GeneralConfig:
    """Read and check a configuration, and the recipes that it names.

    Raises:
        SettingsError: if a file is missing, a key unknown or a value out of range.
    """
    values = read_yaml_table(path, "training configuration")
    check_numbers(values, GeneralConfig, path)
    try:
        config = GeneralConfig(**values)
    except ValidationError as error:
        found = error.errors()
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        place = [str(part) for part in first["loc"]]
        hint = nearest_name(place[-1], list(GeneralConfig.model_fields)) if first["type"] == "extra_forbidden" else ""
        where = f"'{'.'.join(place)}': " if place else ""
        raise SettingsError(f"{path}: {where}{first['msg'].removeprefix('Value error, ')}{hint}") from error
    for entry in config.recipes:
        entry_recipe(config, entry, path.parent)
    if config.teacher is not None and not is_file(path.parent / config.teacher):
        raise SettingsError(f"{path}: there is no teacher {path.parent / config.teacher}")
    return config


def entry_recipe(config: GeneralConfig, entry: RecipeEntry, base: Path) -> Recipe:
    """The recipe of an entry, in the sizes of the configuration.

    Raises:
        SettingsError: if the file is missing or a value wrong.
    """
    path = find_recipe(entry.path, "simulate", base)
    values = read_yaml_table(path, "recipe")
    sizes = {"shape": list(config.shape), "voxel_size_angstrom": list(config.voxel_size_angstrom)}
    values["cell"] = merged(merged(values.get("cell", {}), sizes), entry.cell)
    values["imaging"] = merged(values.get("imaging", {}), entry.imaging)
    check_numbers(values, Recipe, path)
    try:
        return Recipe(**values)
    except (ValidationError, SettingsError) as error:
        told = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"'{'.'.join(map(str, told['loc']))}': {told['msg']}" if told else str(error)
        raise SettingsError(f"{path}: {what}") from error
