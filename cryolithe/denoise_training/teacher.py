"""A network that teaches another: what it makes of both halves of a series stands for the clean volume.

Two stages (as easymode does it): a network learns from halves of real or simulated series, and its mean answer, which
has seen the noise of the whole dose, is what the second one learns to give at once, from whole volumes as from halves.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cryolithe.denoise_training.store import Stored
from cryolithe.denoising.n2n.network import Denoiser
from cryolithe.denoising.n2n.tiles import Runner, prepared
from cryolithe.optimise.distributed import Place


def taught(series: Stored, teacher: Denoiser, place: Place) -> Stored:
    """The series with what the teacher makes of its halves in place of the clean volume."""
    run = Runner(prepared(teacher.network, teacher.config, place.device), place.device, place.precision)
    made = [teacher.gain.apply(run(half.astype(np.float32))) for half in (series.first, series.second)]
    return replace(series, clean=((made[0] + made[1]) / 2).astype(np.float16))
