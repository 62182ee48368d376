"""What a network's run finds in its images before the first slab, and what its volume then depends on.

That is what dense matter is taken to be, how filtered back-projection is mixed in, and how much of the missing wedge
stays. The journal keeps it: what an unfinished run settled stays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.known import Known
from cryolithe.reconstruction.evidence.aligned_before import moved_series
from cryolithe.reconstruction.evidence.stack_notes import series_notes, stack_notes
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.images.slow import LEAST_WAVE_PX, SlowPart
from cryolithe.reconstruction.jobs.job import ResolvedJob
from cryolithe.reconstruction.setup.applying import compute_of, lattice_of, network_rows_of, volume_scale
from cryolithe.reconstruction.setup.fitting import part_rows
from cryolithe.reconstruction.setup.looking import planned_polarity, settled_polarity
from cryolithe.reconstruction.setup.whitening import colour_line
from cryolithe.reconstruction.slabwise.methods import NetworkMethod
from cryolithe.reconstruction.slabwise.mixing import (
    Parts,
    Reader,
    choose_parts,
    measure_curve,
    measure_trust,
    planned_curve,
    planned_trust,
)
from cryolithe.reconstruction.slabwise.networks import fbp_share, make_network_method, wedge_trust
from cryolithe.reconstruction.slabwise.orders import lost_told
from cryolithe.reconstruction.slabwise.planes import whole_turn
from cryolithe.reconstruction.slabwise.trust import (
    FEWEST_TILTS,
    WedgeTrust,
    choose_trials,
    constant_trust,
    expected_trust,
)
from cryolithe.work.watcher import Watcher

Plan = dict[str, Any]


def settled(
    run: ResolvedJob,
    stack: PreparedStack,
    plan: Plan,
    watcher: Watcher,
    keep: Callable[[Plan], object] = lambda plan: None,
) -> Plan:
    """The journal's first line with all that a network's volume depends on; that of other methods as it is.

    Args:
        run: what is to be done.
        stack: the images.
        plan: the journal's first line.
        watcher: told what is done, found and assumed.
        keep: given the line whenever more of it is known.
    """
    moved = moved_series(run.series, run.preparation)
    for note in (*series_notes(run.series), *stack_notes(stack, run.series.numbers, run.grid.shape[0], moved)):
        watcher.note(note)
    if stack.multiplied is not None:
        least, most = stack.multiplied
        watcher.note(
            "Brightness: images differ in their means and noise as counts of electrons do, nowhere far below zero: "
            f"each is divided by its mean (factors {least:.2f} to {most:.2f}; --brightness keep: as they are)."
        )
        plan = {**plan, "brightness_factors": [round(least, 4), round(most, 4)]}
    if stack.unevenness:
        plan = {**plan, "unevenness": round(stack.unevenness, 4)}
    if run.model is None:
        return plan
    if colour := colour_line(run.model, stack):
        watcher.note(colour)
        plan = {**plan, "noise_whitened": stack.whitened}
    for settle in (_with_polarity, _with_fusion, _with_trust):
        known = settle(run, stack, plan, watcher)
        if known != plan:
            plan = known
            keep(plan)
    if stack.slow is not None:
        watcher.note(_slow_line(stack.slow))
        plan = {**plan, "slow_share": round(stack.slow.share, 4)}
    return plan


def _slow_line(slow: SlowPart) -> str:
    """What becomes of brightness that changes slowly, which networks have not learned from."""
    return (
        f"Uneven images: what changes over {LEAST_WAVE_PX} pixels and more (uneven ice, illumination, wide bodies) has "
        f"{slow.share:.0%} of the variance of all else; it goes around the network, as filtered back-projection."
    )


def _with_polarity(run: ResolvedJob, stack: PreparedStack, plan: Plan, watcher: Watcher) -> Plan:
    """With what dense matter is taken to be."""
    polarity = planned_polarity(plan)
    if polarity is None:
        watcher.stage("Looking at the contrast", 1)
        polarity = settled_polarity(run, stack)
    watcher.note(polarity.line)
    for warning in polarity.warnings:
        watcher.note(f"Warning: {warning}")
    return {**plan, "polarity": polarity.record()}


def _with_fusion(run: ResolvedJob, stack: PreparedStack, plan: Plan, watcher: Watcher) -> Plan:
    """With how filtered back-projection is mixed in."""
    assert run.model is not None
    curve = planned_curve(plan)
    if curve is None:
        share = fbp_share(run.model, run.job.settings.fbp_share)
        if share == 0:
            return plan
        watcher.stage("Comparing with the back-projection", 1)
        make, parts, read = _looking(run, stack, plan)
        every = partial(make, stack.geometry, run.facts.known)
        curve = measure_curve(every, share, stack.geometry, parts, read, watcher.note)
    watcher.note(
        f"Fusion: where tilts measured, the volume is {1 - curve.share:.0%} network and {curve.share:.0%} filtered "
        f"back-projection, in each shell as strong as both show it (--fbp-share 0: the network alone)."
    )
    plan = {**plan, "fusion": curve.record()}
    if curve.lost:
        part = lattice_of(run, stack, plan)
        assert part is not None
        alone = {order: run.series.numbers[tilt] for order, tilt in part.alone}
        told = lost_told(curve.lost, part.orders, alone, part.in_all, run.voxel_size_angstrom)
        watcher.note(f"Warning: {told}")
    return plan


def _with_trust(run: ResolvedJob, stack: PreparedStack, plan: Plan, watcher: Watcher) -> Plan:
    """With how much of what the network puts into the missing wedge stays."""
    if "wedge_trust" not in plan:
        found = _found_trust(run, stack, plan, watcher)
        plan = {**plan, "wedge_trust": None if found is None else found.record()}
    trust = planned_trust(plan)
    if trust is not None:
        watcher.note(trust.line(run.voxel_size_angstrom))
    return plan


def _found_trust(run: ResolvedJob, stack: PreparedStack, plan: Plan, watcher: Watcher) -> WedgeTrust | None:
    """How much of what a network puts into the missing wedge stays; None for all of it."""
    assert run.model is not None
    wish = wedge_trust(run.model, run.job.settings.wedge_trust)
    if wish != "auto":
        return constant_trust(0.0) if wish == "none" else None
    trials = choose_trials(stack.geometry.angles_deg)
    if trials is None:
        if not whole_turn(stack.geometry.angles_deg):
            watcher.note(
                f"Missing wedge: of fewer than {FEWEST_TILTS} angles none can be left out to test the network's guess, "
                "which stays whole (--wedge-trust none leaves the wedge empty)."
            )
        return None
    watcher.stage("Testing the missing wedge on left-out tilts", 1)
    make, parts, read = _looking(run, stack, plan)

    def of_tilts(tilts: NDArray[np.int64], grid: VolumeGrid) -> NetworkMethod:
        return make(stack.geometry.select(tilts), run.facts.known.of_images(tilts.tolist()), grid)

    return measure_trust(of_tilts, trials, stack.geometry, parts, read, watcher.note) or expected_trust()


def _looking(
    run: ResolvedJob, stack: PreparedStack, plan: Plan
) -> tuple[Callable[[TiltGeometry, Known, VolumeGrid], NetworkMethod], Parts, Reader]:
    """What makes a network's method for some tilts, the parts that are looked at, and the rows for them."""
    assert run.model is not None
    model, compute, scale = run.model, compute_of(run, plan, run.device), volume_scale(run, plan, stack)

    def make(geometry: TiltGeometry, known: Known, grid: VolumeGrid) -> NetworkMethod:
        return make_network_method(model, geometry, grid, compute, known=known)

    def rows(first: int, stop: int) -> torch.Tensor:
        return network_rows_of(stack, scale, first, stop)

    parts = choose_parts(run.grid, model.network.config.head.stride)
    return make, parts, Reader(rows, part_rows(run, plan["batch"], plan["slab_rows"], parts.grid))
