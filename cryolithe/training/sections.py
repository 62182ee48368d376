"""The sections of a training configuration: plain values with their ranges."""

from __future__ import annotations

from typing import Annotated, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from cryolithe.simulation import SpecimenRecipe, swept_angles_deg

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
Chance = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SpecimenSettings(Section):
    """Fields of `cryolithe.simulation.SpecimenRecipe`; two thirds of the specimens are diverse unless told."""

    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 128)
    voxel_size_angstrom: PositiveRange = (7.0, 13.0)
    crowding: NonNegativeRange = (0.02, 0.12)
    procedural_share: Chance = 0.15
    membranes: CountRange = (0, 3)
    body_chance: Chance = 0.25
    bead_chance: Chance = 0.15
    diverse: Chance = 0.65

    def recipe(self) -> SpecimenRecipe:
        """The recipe with these values."""
        return SpecimenRecipe(**self.model_dump())


class TiltSettings(Section):
    """Tilts of plain series, see `cryolithe.simulation.swept_angles_deg`; each pair is (least, most) of a uniform draw.

    Attributes:
        reach_deg: half of the tilt range.
        step_deg: step between neighbouring tilts.
        pretilt_deg: middle of the range.
    """

    reach_deg: PositiveRange = (40.0, 70.0)
    step_deg: PositiveRange = (1.5, 3.5)
    pretilt_deg: Range = (-8.0, 8.0)

    def draw(self, rng: np.random.Generator) -> tuple[float, ...]:
        """Draw the tilt angles of a series, ascending, degrees."""
        ranges = (self.reach_deg, self.step_deg, self.pretilt_deg)
        return swept_angles_deg(*(float(rng.uniform(*pair)) for pair in ranges))


class RecipeEntry(Section):
    """A simulation recipe (`cryolithe simulate`) to draw series from.

    Attributes:
        path: of the recipe, relative to the training configuration, or the name of a shipped one.
        weight: how often its series are drawn, relative to the other recipes.
    """

    path: str
    weight: float = Field(1.0, gt=0)


class DataSettings(Section):
    """Where series come from. The weights say how often a run of rows comes from each kind.

    Attributes:
        plain_weight: of the plain specimens with white noise; None for 1 where nothing else is given, else 0.
        plain_pool: plain specimens are drawn anew for ever, in a pool as those of recipes are, instead of once.
        recipes: simulation recipes; their images come with their own noise.
        recipes_weight: of the recipes together.
        noise: noise profiles (`cryolithe noise measure`), relative to the training configuration: a series of a recipe
            draws one of them, and gets the signal's spectrum and the noise that were measured there.
        noise_chance: chance that a series does; the others have the recipe's own noise.
        pairs: HDF5 files, or folders of them, relative to the training configuration.
        pairs_weight: of the pairs together.
        pool: series held in memory, of the recipes (and of plain specimens) that are drawn for ever.
        pool_first: series that training begins with, before the pool is full; None for a full pool.
        replace_every: steps after which a new series comes, at last in place of the pool's oldest one.
        workers: processes that simulate for the pool; 0 simulates in the training process.
        loader_threads: threads that draw the runs of coming steps; 0 draws them between steps. None for 4 beside a GPU
            and 0 on a CPU, whose cores are busy anyway.
        memory_mb: pairs whose targets are larger than this are read from disk, with targets in a side file.
        open_pairs: large pairs whose files are open at once.
    """

    plain_weight: float | None = Field(None, ge=0)
    plain_pool: bool = False
    recipes: tuple[RecipeEntry, ...] = ()
    recipes_weight: float = Field(1.0, gt=0)
    noise: tuple[str, ...] = ()
    noise_chance: Chance = 1.0
    pairs: tuple[str, ...] = ()
    pairs_weight: float = Field(1.0, gt=0)
    pool: int = Field(8, ge=1)
    pool_first: int | None = Field(None, ge=1)
    replace_every: int = Field(50, ge=1)
    workers: int = Field(0, ge=0, le=256)
    loader_threads: int | None = Field(None, ge=0, le=64)
    memory_mb: float = Field(256.0, ge=0)
    open_pairs: int = Field(32, ge=1)

    @property
    def plain_share(self) -> float:
        """Weight of the plain specimens."""
        if self.plain_weight is None:
            return 0.0 if self.recipes or self.pairs else 1.0
        return self.plain_weight


class AugmentSettings(Section):
    """How a run of rows is changed at random, see `cryolithe.training.augment`. Defaults: tilts are dropped, no more.

    Attributes:
        drop_chance: chance that k tilts are dropped, k uniform in 0...most_dropped.
        most_dropped: see above.
        range_cut_chance: chance that the tilt range is cut at both ends.
        half_chance: chance that a series' even or odd half stands for it.
        swap_chance: chance that such a half has its tilts from both halves at random.
        flip_chance: chance of a flip, for each axis of the volume.
        pixel_scale: range of the rescaling of series drawn from recipes, and of the copies of pairs.
        pixel_copies: rescaled copies of each pair.
        gain_std: standard deviation of the gain of single images.
        shading_std: standard deviation of the gain's slope from the middle of an image to its edge.
        shift_px: standard deviation of the shift of single images, along x and y.
        blur_chance: chance that a run is smoothed: the noise drawn for a plain series, whole images of another.
        blur_px: largest standard deviation of the Gaussian, as detectors and interpolation smooth; 0 for none.
        extra_noise_db: range of the images' variance over that of the noise added to noisy images; None adds none.
        colour_chance: chance that the noise that is drawn, of a plain series or extra, is neither white nor smoothed
            but has a power spectrum of its own.
        colour_db: standard deviation of such a spectrum at each of its `noise_colour.COLOUR_KNOTS`, lines between them.
    """

    drop_chance: Chance = 0.5
    most_dropped: int = Field(30, ge=0)
    range_cut_chance: Chance = 0.0
    half_chance: Chance = 0.0
    swap_chance: Chance = 0.5
    flip_chance: Chance = 0.0
    pixel_scale: PositiveRange = (1.0, 1.0)
    pixel_copies: int = Field(0, ge=0, le=16)
    gain_std: float = Field(0.0, ge=0, le=0.5)
    shading_std: float = Field(0.0, ge=0, le=0.5)
    shift_px: float = Field(0.0, ge=0, le=2)
    blur_chance: Chance = 0.5
    blur_px: float = Field(0.0, ge=0, le=1)
    extra_noise_db: Range | None = None
    colour_chance: Chance = 0.5
    colour_db: float = Field(0.0, ge=0, le=10)


class LossSettings(Section):
    """Weights of the parts of the loss, see `cryolithe.training.losses`.

    Attributes:
        l1: of the absolute error.
        l2: of the squared error.
        fsc: of 1 - mean FSC; runs are then cubes of blocks.
        cube: blocks (z, y, x) of such a cube. For networks with a trunk all runs are cubes.
        cube_share: part of the runs that are cubes; the others are random columns and have no FSC.
        strong: errors of blocks whose target is beyond this many standard deviations of the volume weigh less (gold
            must not outweigh all that is faint beside it); 0 for no such limit.
    """

    l1: float = Field(0.0, ge=0)
    l2: float = Field(1.0, ge=0)
    fsc: float = Field(0.0, ge=0)
    cube: tuple[PositiveInt, PositiveInt, PositiveInt] = (12, 12, 12)
    cube_share: float = Field(1.0, gt=0, le=1)
    strong: float = Field(0.0, ge=0)


class ValidationSettings(Section):
    """A fixed validation set and how it is used.

    Attributes:
        every: steps between validations; one more at the end. 0 for none.
        specimens: plain specimens (of held-out molecules where there are any, else procedural ones).
        shape: their voxels (z, y, x).
        snr_db: noise levels that each plain specimen is seen at.
        recipe_series: series drawn of the recipes.
        pairs: HDF5 files or folders; none may be in the training set.
        rows: rows from the middle of each pair.
        patience: validations without a better loss after which training stops; None to go on to the end.
    """

    every: int = Field(1000, ge=0)
    specimens: int = Field(1, ge=0)
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (32, 64, 64)
    snr_db: tuple[float, ...] = (-5.0, 0.0)
    recipe_series: int = Field(1, ge=0)
    pairs: tuple[str, ...] = ()
    rows: int = Field(128, ge=8)
    patience: int | None = Field(None, ge=1)
