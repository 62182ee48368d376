"""The methods of a run, on its prepared images: what a whole volume and a block of one have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from cryolithe.projector import make_projector
from cryolithe.projector.classical import sirt_margin_px
from cryolithe.reconstruction.images.layers import layered_fbp
from cryolithe.reconstruction.images.prepared_stack import PreparedStack, ReadRows, images_of
from cryolithe.reconstruction.jobs.job import ResolvedJob
from cryolithe.reconstruction.setup.looking import planned_polarity
from cryolithe.reconstruction.slabwise.lattice import LatticePart, lattice_part
from cryolithe.reconstruction.slabwise.methods import Compute, FbpMethod, SirtMethod, SlabMethod
from cryolithe.reconstruction.slabwise.mixing import (
    finished_method,
    planned_curve,
    planned_trust,
)
from cryolithe.reconstruction.slabwise.networks import make_network_method


def compute_of(run: ResolvedJob, plan: dict[str, Any], device: torch.device) -> Compute:
    """How a network computes on one device of a run."""
    return Compute(device, run.precision, points=plan["batch"], fallback=run.fallback)


def volume_scale(run: ResolvedJob, plan: dict[str, Any], stack: PreparedStack) -> float:
    """What prepared images are divided by for a network, and its volume is multiplied by."""
    polarity = planned_polarity(plan)
    return run.dense_sign(polarity.contrast) * stack.sigma if polarity else 1.0


def network_rows_of(stack: PreparedStack, scale: float, first: int, stop: int) -> torch.Tensor:
    """Rows of the detector as a network gets them."""
    return stack.read_rows(first, stop - first).clamp(-stack.clip_level, stack.clip_level) / scale


def slow_rows_of(stack: PreparedStack, scale: float, first: int, rows: int) -> torch.Tensor:
    """Rows of what goes around a network, in its units."""
    slow = stack.slow_rows(first, rows)
    assert slow is not None
    return slow.div_(scale)


def lattice_of(run: ResolvedJob, stack: PreparedStack, plan: dict[str, Any]) -> LatticePart | None:
    """What the images show of orders of a lattice that the network loses; None where it loses none."""
    curve = planned_curve(plan)
    if curve is None or not curve.lost:
        return None
    return lattice_part(images_of(stack.base), stack.base.geometry, run.grid.shape[0], curve.lost)


def _around(run: ResolvedJob, stack: PreparedStack, plan: dict[str, Any]) -> ReadRows | None:
    """What goes around the network, in its units: what changes slowly, and orders of a lattice that it loses."""
    scale, lattice = volume_scale(run, plan, stack), lattice_of(run, stack, plan)
    slow = None if stack.slow is None else partial(slow_rows_of, stack, scale)
    if lattice is None or not lattice.orders:
        return slow

    def of_base(first: int, count: int) -> torch.Tensor:
        return torch.from_numpy(lattice.rows(first, count))

    def rows(first: int, count: int) -> torch.Tensor:
        made = stack.rows_of_base(of_base, first, count).div(scale)
        return made if slow is None else made.add_(slow(first, count))

    return rows


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
        compute = compute_of(run, plan, device)
        method = make_network_method(
            run.model, stack.geometry, run.grid, compute, lambda share: on_rows(share * rows), run.facts.known
        )
        around = _around(run, stack, plan)
        return finished_method(method, planned_curve(plan), stack.geometry, run.grid, planned_trust(plan), around)
    layers = run.preparation.layers
    if layers is not None:
        return layered_fbp(stack.geometry, layers, (depth, width), device, settings.filter)
    margin = sirt_margin_px(depth) if settings.method == "sirt" else 0
    projector = make_projector(stack.geometry, (depth, width + 2 * margin), device, settings.projector)
    if settings.method == "fbp":
        return FbpMethod(projector, settings.filter)
    return SirtMethod(projector, settings.iterations, lambda: on_rows(rows / settings.iterations), margin)
