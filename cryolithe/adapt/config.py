"""What decides an adaptation, and the training configuration of its simulated half."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from cryolithe.adapt.halves import Half
from cryolithe.network import NetworkConfig
from cryolithe.network.config import config_to_dict
from cryolithe.training.config import TrainConfig
from cryolithe.training.sections import (
    AugmentSettings,
    Chance,
    DataSettings,
    LossSettings,
    RecipeEntry,
    Section,
    SpecimenSettings,
    TiltSettings,
    ValidationSettings,
)

# White noise of simulated images, which reaches to that of the series within these limits.
USUAL_SNR_DB, LEAST_SNR_DB, MOST_SNR_DB = (-8.0, 5.0), -14.0, 10.0
MOST_STEPS = 1_000_000
# Recipes of cells by what the CTF has left in the lab's images; where nobody knows, as most labs have them.
CELLS = {"flipped": "train_flipped", "wiener": "train_wiener", "uncorrected": "train_uncorrected"}
USUAL_CTF = "flipped"


class AdaptConfig(Section):
    """Everything that decides an adaptation beside its inputs.

    Attributes:
        seed: of all that is drawn.
        steps: at most; None for as many as time allows. With a number the clock decides nothing but an early end.
        learning_rate: peak of the schedule (warm-up, then cosine to zero).
        warmup_steps: of it.
        ema_decay: decay of the averaged weights, which are the ones checked and written.
        own_weight: of the lab's series in the loss; their gradients are noisier than those of simulated ones.
        turned_weight: of the network's own volumes, turned and imaged anew (`cryolithe.adapt.turned`), in a step that
            has one; 0 for none, as they taught less than they cost (benchmarks/LOG.md). The rest of the loss is that
            of simulated series.
        turned_chance: how often a step has one.
        turned_px: largest edges (z, y, x) of the volume that is turned, in voxels, its faces included.
        own_runs: cubes of the lab's series in a step.
        anchor_runs: of simulated series in a step.
        cube_px: largest edges (z, y, x) of a cube in voxels, its faces included.
        wedge_chance: how often tilts at the ends are left out of what the network sees.
        wedge_weight: of the frequencies that only those tilts measured.
        flip_chance: chance of a flip, for each axis of the volume.
        anchors: simulated series to learn from.
        anchor_shape: their voxels (z, y, x).
        held_cubes: cubes of the held-back rows that checks look at, of all series together.
        held_share: part of each series' rows that is held back.
        checks: how many, beside the one before the first step.
        most_loss_db: of SNR on simulated specimens that a written model may have lost.
    """

    seed: int = Field(1, ge=0)
    steps: int | None = Field(None, ge=0)
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(20, ge=0)
    ema_decay: float = Field(0.98, ge=0, lt=1)
    own_weight: float = Field(0.1, gt=0, lt=1)
    turned_weight: float = Field(0.0, ge=0, lt=1)
    turned_chance: Chance = 0.5
    turned_px: tuple[int, int, int] = (64, 64, 64)
    own_runs: int = Field(1, ge=1)
    anchor_runs: int = Field(1, ge=1)
    cube_px: tuple[int, int, int] = (64, 48, 64)
    wedge_chance: Chance = 0.5
    wedge_weight: float = Field(0.5, ge=0, le=1)
    flip_chance: Chance = 0.5
    anchors: int = Field(12, ge=1)
    anchor_shape: tuple[int, int, int] = (48, 96, 96)
    held_cubes: int = Field(6, ge=1)
    held_share: float = Field(0.25, gt=0, lt=1)
    checks: int = Field(5, ge=1)
    most_loss_db: float = Field(0.1, ge=0)

    @model_validator(mode="after")
    def _something_is_simulated(self) -> AdaptConfig:
        if self.own_weight + self.turned_weight >= 1:
            raise ValueError(
                f"own_weight and turned_weight together must be below 1, got {self.own_weight + self.turned_weight:g}"
            )
        return self

    @property
    def most_steps(self) -> int:
        """Steps that no adaptation reaches, where there is no number."""
        return MOST_STEPS if self.steps is None else self.steps


def anchor_config(config: AdaptConfig, network: NetworkConfig, half: Half, snr_db: float | None) -> TrainConfig:
    """The training of the simulated half: plain specimens with tilts and noise like those of a series, and cells.

    Args:
        config: of the adaptation.
        network: that is adapted.
        half: of the series: its angles, and what is known of its CTF.
        snr_db: of its images; None where nobody knows.
    """
    angles = np.sort(np.asarray(half.angles_deg, dtype=np.float64))
    cells = CELLS.get(half.ctf_state or half.known.ctf_state or USUAL_CTF, CELLS[USUAL_CTF])
    reach = float(np.clip((angles[-1] - angles[0]) / 2, 5.0, 80.0))
    step = float(np.clip(np.median(np.diff(angles)), 0.5, reach))
    noise = USUAL_SNR_DB
    if snr_db is not None:
        # Also the noise that it knows already: that must not be forgotten.
        middle = float(np.clip(snr_db, LEAST_SNR_DB, MOST_SNR_DB))
        noise = (min(USUAL_SNR_DB[0], middle - 2.0), max(USUAL_SNR_DB[1], middle + 2.0))
    stride = network.head.stride
    z, y, x = (max(1, edge // stride) for edge in config.cube_px)
    return TrainConfig(
        network=config_to_dict(network),
        specimens=SpecimenSettings(shape=config.anchor_shape),
        data=DataSettings(plain_weight=1.0, recipes=(RecipeEntry(path=cells),)),
        tilts=TiltSettings(reach_deg=(0.85 * reach, reach), step_deg=(step, step)),
        series=config.anchors,
        snr_db=noise,
        augment=AugmentSettings(drop_chance=0.3, flip_chance=config.flip_chance, range_cut_chance=0.2, gain_std=0.02),
        loss=LossSettings(cube=(z, y, x), fsc=0.0, strong=40.0),
        validation=ValidationSettings(
            every=1, specimens=2, shape=(min(32, z * stride), 64, 64), snr_db=(-5.0, 0.0), recipe_series=0
        ),
        seed=config.seed,
        steps=max(1, config.most_steps),
        runs_per_step=config.anchor_runs,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        ema_decay=config.ema_decay,
        band_exponent=0.8,
        fewest_tilts=max(4, min(16, len(angles) // 2)),
    )
