"""Slabs through their methods, in order on one device, or on several at once with reading and writing beside them."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from cryolithe.errors import ResourceError
from cryolithe.machine.device import free_cached_memory, is_out_of_memory, precision_name
from cryolithe.reconstruction.slabwise.copying import Copied, Link, link_to
from cryolithe.reconstruction.slabwise.methods import NetworkMethod, SlabMethod

# Waiting threads look this often whether the run has been stopped.
_POLL_SECONDS = 0.2


class SlabResult(NamedTuple):
    """A finished slab.

    Attributes:
        start: its first row.
        stop: the row after its last.
        values: shape ``(z, stop - start, x)``, float32, on the CPU.
        points: points of a block that a network worked with; 1 for other methods.
        precision: of the network's layers in this slab; None for other methods.
    """

    start: int
    stop: int
    values: torch.Tensor
    points: int
    precision: torch.dtype | None = None


class Computed(NamedTuple):
    """What a method made of rows.

    Attributes:
        method: to go on with: the one that was given, or one with smaller blocks.
        values: in float32, on the method's device, or on the CPU where they were made in pieces.
        precision: of a network's layers; None for other methods.
    """

    method: SlabMethod
    values: torch.Tensor
    precision: torch.dtype | None


# Rows of the detector for a slab: (method, start, stop) -> rows with halo.
Reader = Callable[[SlabMethod, int, int], torch.Tensor]


def run_slabs(
    methods: list[SlabMethod],
    slabs: list[tuple[int, int]],
    read: Reader,
    note: Callable[[str], object],
    stopped: threading.Event,
) -> Iterator[SlabResult]:
    """Compute slabs and yield them as they are done.

    A single method on the CPU takes them in order. Otherwise each method, on its device, has a thread that takes
    the next slab when it is free; the rows of its next slab are read and brought to the device meanwhile, and the
    voxels of its last one to the host.

    Args:
        methods: one for each device.
        slabs: first row and row after the last of each.
        read: reads the rows of a slab; called from one thread at a time for each method.
        note: told when batches had to become smaller.
        stopped: set when the consumer gives up, so that long computations can look at it.

    Raises:
        ResourceError: if memory runs out or a GPU fails; what was yielded before is good.
    """
    note = functools.cache(note)  # the same words once, not for every slab
    if len(methods) == 1 and methods[0].device.type == "cpu":
        method = methods[0]
        for start, stop in slabs:
            made = compute_slab(method.at(start), read(method, start, stop), note)
            method = made.method
            result = SlabResult(start, stop, made.values[:, : stop - start], _points(method), made.precision)
            del made
            yield result
            del result  # before the next one is made
        return
    yield from _run_side_by_side(methods, slabs, read, note, stopped)


def _run_side_by_side(
    methods: list[SlabMethod],
    slabs: list[tuple[int, int]],
    read: Reader,
    note: Callable[[str], object],
    stopped: threading.Event,
    links: Callable[[torch.device], Link] = link_to,
) -> Iterator[SlabResult]:
    waiting: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    for slab in slabs:
        waiting.put(slab)
    # Bounded: a slab that is not written yet keeps its device from running ahead and filling the memory.
    done: queue.Queue[SlabResult | BaseException] = queue.Queue(maxsize=len(methods))

    def put(item: SlabResult | BaseException) -> None:
        while not stopped.is_set():
            try:
                done.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return

    def next_rows(method: SlabMethod, link: Link) -> tuple[int, int, Copied] | None:
        try:
            start, stop = waiting.get_nowait()
        except queue.Empty:
            return None
        return start, stop, link.send(read(method, start, stop))

    def hand_on(start: int, stop: int, link: Link, fetched: Copied, made: tuple[int, torch.dtype | None]) -> None:
        put(SlabResult(start, stop, link.landed(fetched), *made))

    def work(method: SlabMethod) -> None:
        try:
            link, going = links(method.device), None
            with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as giver:
                ahead = reader.submit(next_rows, method, link)
                while (taken := ahead.result()) is not None and not stopped.is_set():
                    start, stop, sent = taken
                    ahead = reader.submit(next_rows, method, link)
                    made = compute_slab(method.at(start), link.arrived(sent), note)
                    method = made.method
                    if going is not None:
                        going.result()  # at most one slab is on its way
                    fetched = link.fetch(made.values[:, : stop - start])
                    going = giver.submit(hand_on, start, stop, link, fetched, (_points(method), made.precision))
                    del sent, made, fetched
                if going is not None:
                    going.result()
        except BaseException as error:
            put(error)

    threads = [threading.Thread(target=work, args=(method,), daemon=True) for method in methods]
    for thread in threads:
        thread.start()
    try:
        for _ in slabs:
            yield _next_result(done, threads)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def _next_result(done: queue.Queue[SlabResult | BaseException], threads: list[threading.Thread]) -> SlabResult:
    """The next finished slab; raises what a thread raised."""
    while True:
        try:
            item = done.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if not any(thread.is_alive() for thread in threads) and done.empty():
                raise RuntimeError("the threads of the devices ended before their work") from None
            continue
        if isinstance(item, BaseException):
            raise item
        return item


def compute_slab(method: SlabMethod, rows: torch.Tensor, note: Callable[[str], object]) -> Computed:
    """Run a method; once more in a wider range where values of a network leave that of its precision.

    Each slab is tried in the usual precision first, whatever befell the one before: an interrupted run gives the same
    bytes.

    Raises:
        ResourceError: see `_in_memory`.
    """
    method, values = _in_memory(method, rows, note)
    if not isinstance(method, NetworkMethod):
        return Computed(method, values, None)
    if method.compute.fallback is None or _all_finite(values):
        return Computed(method, values, method.compute.precision)
    wider = method.in_wider_range()
    assert wider is not None
    usual, precision = precision_name(method.compute.precision), precision_name(wider.compute.precision)
    note(f"Values beyond the range of {usual}: slabs with such values are made again in {precision}.")
    del values
    return Computed(method, _in_memory(wider, rows, note)[1], wider.compute.precision)


def _all_finite(values: torch.Tensor) -> bool:
    """Either extreme is NaN or infinite where any value is."""
    low, high = torch.aminmax(values)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _in_memory(
    method: SlabMethod, rows: torch.Tensor, note: Callable[[str], object]
) -> tuple[SlabMethod, torch.Tensor]:
    """Run a method; when memory runs out, halve a network's batch, then the rows made at a time, and try again.

    Returns:
        the method that did it, and its result in float32, on the method's device, or on the CPU where it was made in
        pieces.

    Raises:
        ResourceError: if memory runs out with the smallest batch and the fewest rows, or the GPU fails.
    """
    slab = rows.shape[1] - 2 * method.halo_px
    at_a_time = slab
    while True:
        try:
            values = _in_pieces(method, rows, at_a_time)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                if "cuda error" in str(error).lower():
                    reason = str(error).splitlines()[0]
                    raise ResourceError(f"the GPU failed ({reason}); look at it with: nvidia-smi") from error
                raise
            smaller = method.with_smaller_blocks() if isinstance(method, NetworkMethod) else None
            if smaller is not None:
                method = smaller
                note(f"Memory ran out: going on with batches of {smaller.compute.points} points.")
            else:
                at_a_time = at_a_time // 2 - at_a_time // 2 % method.row_multiple
            if not at_a_time:
                raise ResourceError(
                    "memory ran out during the reconstruction; lower --max-memory so that slabs become smaller, "
                    "use --bin, or close other programs"
                ) from error
        else:
            if at_a_time < slab:
                note(f"Memory ran out: going on with {at_a_time} rows at a time.")
            return method, values
        free_cached_memory()


def _in_pieces(method: SlabMethod, rows: torch.Tensor, at_a_time: int) -> torch.Tensor:
    """A slab by so many rows of the volume at a time; pieces are put together on the CPU."""
    slab, halo = rows.shape[1] - 2 * method.halo_px, 2 * method.halo_px
    if at_a_time == slab:
        return method(rows).float()
    pieces = (
        method.at(method.first_row + n)(rows[:, n : min(n + at_a_time, slab) + halo]).float().cpu()
        for n in range(0, slab, at_a_time)
    )
    return torch.cat(list(pieces), dim=1)


def _points(method: SlabMethod) -> int:
    return method.compute.batch().points if isinstance(method, NetworkMethod) else 1
