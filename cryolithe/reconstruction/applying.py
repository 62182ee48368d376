"""The methods of a run, on its prepared images: what a whole volume and a block of one have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.geometry import VolumeGrid
from cryolithe.projector import make_projector
from cryolithe.projector.classical import sirt_margin_px
from cryolithe.reconstruction.fusion import FusionCurve
from cryolithe.reconstruction.job import ResolvedJob
from cryolithe.reconstruction.looking import planned_polarity
from cryolithe.reconstruction.methods import Compute, FbpMethod, NetworkMethod, SirtMethod, SlabMethod
from cryolithe.reconstruction.mixing import (
    Reader,
    choose_parts,
    finished_method,
    measure_curve,
    measure_trust,
    planned_curve,
    planned_trust,
)
from cryolithe.reconstruction.networks import fbp_share, make_network_method, wedge_trust
from cryolithe.reconstruction.planes import whole_turn
from cryolithe.reconstruction.preparation import PreparedStack
from cryolithe.reconstruction.trust import FEWEST_TILTS, WedgeTrust, choose_trial, constant_trust
from cryolithe.work.watcher import Watcher


def found_curve(
    run: ResolvedJob, stack: PreparedStack, plan: dict[str, Any], note: Callable[[str], object]
) -> FusionCurve:
    """How filtered back-projection is to be mixed into a network's volume.

    Args:
        run: of a network.
        stack: the images.
        plan: the journal's first line, with the polarity.
        note: told when batches had to become smaller.
    """
    assert run.model is not None
    compute = Compute(run.device, run.precision, points=plan["batch"], fallback=run.fallback)
    read = Reader(partial(network_rows_of, stack, volume_scale(run, plan, stack)), plan["slab_rows"])
    make = partial(make_network_method, run.model, stack.geometry, compute=compute, known=run.facts.known)
    parts = choose_parts(run.grid, run.model.network.config.head.stride)
    share = fbp_share(run.model, run.job.settings.fbp_share)
    return measure_curve(make, share, stack.geometry, parts, read, note)


def found_trust(run: ResolvedJob, stack: PreparedStack, plan: dict[str, Any], watcher: Watcher) -> WedgeTrust | None:
    """How much of what a network puts into the missing wedge stays; None for all of it.

    Args:
        run: of a network.
        stack: the images.
        plan: the journal's first line, with the polarity.
        watcher: told what is done and assumed, and when batches had to become smaller.
    """
    assert run.model is not None
    wish = wedge_trust(run.model, run.job.settings.wedge_trust)
    if wish != "auto":
        return constant_trust(0.0) if wish == "none" else None
    trial = choose_trial(stack.geometry.angles_deg)
    if trial is None:
        if not whole_turn(stack.geometry.angles_deg):
            watcher.note(
                f"Missing wedge: fewer than {FEWEST_TILTS} angles, too few to leave some out for a trial; all that the "
                "network puts there stays (--wedge-trust none leaves it empty)."
            )
        return None
    watcher.stage("Asking left-out tilts about the missing wedge", 1)
    compute = Compute(run.device, run.precision, points=plan["batch"], fallback=run.fallback)
    read = Reader(partial(network_rows_of, stack, volume_scale(run, plan, stack)), plan["slab_rows"])
    model, known = run.model, run.facts.known

    def make(tilts: NDArray[np.int64], grid: VolumeGrid) -> NetworkMethod:
        told = known.of_images(tilts.tolist())
        return make_network_method(model, stack.geometry.select(tilts), grid, compute, known=told)

    parts = choose_parts(run.grid, run.model.network.config.head.stride)
    trust = measure_trust(make, trial, stack.geometry, parts, read, watcher.note)
    if trust is None:
        watcher.note("Missing wedge: left-out tilts tell nothing about it; all that the network puts there stays.")
    return trust


def volume_scale(run: ResolvedJob, plan: dict[str, Any], stack: PreparedStack) -> float:
    """What prepared images are divided by for a network, and its volume is multiplied by."""
    polarity = planned_polarity(plan)
    return run.dense_sign(polarity.contrast) * stack.sigma if polarity else 1.0


def network_rows_of(stack: PreparedStack, scale: float, first: int, stop: int) -> torch.Tensor:
    """Rows of the detector as a network gets them."""
    return stack.read_rows(first, stop - first).clamp(-stack.clip_level, stack.clip_level) / scale


def make_method(
    run: ResolvedJob,
    stack: PreparedStack,
    plan: dict[str, Any],
    on_rows: Callable[[float], object],
    device: torch.device,
) -> SlabMethod:
    """The chosen method on one device.

    Args:
        run: what is to be done.
        stack: the images.
        plan: the journal's first line.
        on_rows: called with the rows of the volume that were just done.
        device: where.
    """
    settings, rows = run.job.settings, plan["slab_rows"]
    depth, _, width = run.grid.shape
    if settings.method == "network":
        assert run.model is not None
        compute = Compute(device, run.precision, points=plan["batch"], fallback=run.fallback)
        method = make_network_method(
            run.model, stack.geometry, run.grid, compute, lambda share: on_rows(share * rows), run.facts.known
        )
        return finished_method(method, planned_curve(plan), stack.geometry, run.grid, planned_trust(plan))
    margin = sirt_margin_px(depth) if settings.method == "sirt" else 0
    projector = make_projector(stack.geometry, (depth, width + 2 * margin), device, settings.projector)
    if settings.method == "fbp":
        return FbpMethod(projector, settings.filter)
    return SirtMethod(projector, settings.iterations, lambda: on_rows(rows / settings.iterations), margin)
