"""Rows on their way to a device and voxels on their way back, beside what the device computes.

A GPU copies on a stream of its own: the rows of the next slab arrive, and the voxels of the last one leave, while a
slab is computed. Events say when: nothing is computed from rows before they have arrived, and nothing leaves before it
is computed. On a CPU nothing is copied at all.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple, Protocol

import torch

from cryolithe.machine.device import is_out_of_memory


class Copied(NamedTuple):
    """A copy that may still be under way.

    Attributes:
        values: the copy.
        done: the event that it is complete; None where it is.
    """

    values: torch.Tensor
    done: Any = None


class Link(Protocol):
    """The way between the host and a device."""

    def send(self, rows: torch.Tensor) -> Copied:
        """Begin to bring rows from the host to the device; called by the thread that reads them."""
        ...

    def arrived(self, sent: Copied) -> torch.Tensor:
        """Rows from which what is computed next may be computed; called by the thread that computes."""
        ...

    def fetch(self, values: torch.Tensor) -> Copied:
        """Begin to bring what was computed last to the host; called by the thread that computes."""
        ...

    def landed(self, fetched: Copied) -> torch.Tensor:
        """The values on the host, once they are there; called by the thread that hands them on."""
        ...


class NoLink:
    """For a CPU: everything is in its place."""

    def send(self, rows: torch.Tensor) -> Copied:
        """See `Link`."""
        return Copied(rows)

    def arrived(self, sent: Copied) -> torch.Tensor:
        """See `Link`."""
        return sent.values

    def fetch(self, values: torch.Tensor) -> Copied:
        """See `Link`."""
        return Copied(values)

    def landed(self, fetched: Copied) -> torch.Tensor:
        """See `Link`."""
        return fetched.values


class Cuda:
    """What a link needs of torch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def stream(self) -> Any:
        """A new stream."""
        return torch.cuda.Stream(self.device)

    def current(self) -> Any:
        """The stream on which the calling thread computes."""
        return torch.cuda.current_stream(self.device)

    def event(self) -> Any:
        """A new event, for which a thread waits asleep."""
        return torch.cuda.Event(blocking=True)

    def on(self, stream: Any) -> contextlib.AbstractContextManager[Any]:
        """What is asked of the device meanwhile is done on a stream."""
        return torch.cuda.stream(stream)

    def pinned(self, values: torch.Tensor) -> torch.Tensor:
        """Room like some values, in memory of the host that devices read and write at full speed."""
        return torch.empty(values.shape, dtype=values.dtype, pin_memory=True)

    def room(self, values: torch.Tensor) -> torch.Tensor:
        """Room like some values on the device."""
        return torch.empty(values.shape, dtype=values.dtype, device=self.device)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy on the stream in use, without waiting for it."""
        target.copy_(source, non_blocking=True)

    def used_by(self, values: torch.Tensor, stream: Any) -> None:
        """Tell the allocator that a stream other than the one that made values reads them, too."""
        values.record_stream(stream)

    def is_here(self, values: torch.Tensor) -> bool:
        """Whether values are on the device."""
        return values.device == self.device


class CopyStream:
    """A GPU's link: one stream for copies both ways.

    Args:
        cuda: of the device.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._stream = cuda.stream()

    def send(self, rows: torch.Tensor) -> Copied:
        """See `Link`; rows for which the device has no memory now stay on the host."""
        cuda = self._cuda
        pinned = cuda.pinned(rows)
        pinned.copy_(rows)
        with cuda.on(self._stream):
            try:
                there = cuda.room(rows)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                return Copied(pinned)
            cuda.copy(there, pinned)
            done = cuda.event()
            done.record(self._stream)
        return Copied(there, done)

    def arrived(self, sent: Copied) -> torch.Tensor:
        """See `Link`."""
        if sent.done is not None:
            computing = self._cuda.current()
            computing.wait_event(sent.done)
            self._cuda.used_by(sent.values, computing)
        return sent.values

    def fetch(self, values: torch.Tensor) -> Copied:
        """See `Link`; values that were made in pieces are on the host already."""
        cuda = self._cuda
        if not cuda.is_here(values):
            return Copied(values)
        host = cuda.pinned(values)
        computed = cuda.event()
        computed.record(cuda.current())
        self._stream.wait_event(computed)
        with cuda.on(self._stream):
            cuda.copy(host, values)
            cuda.used_by(values, self._stream)
            done = cuda.event()
            done.record(self._stream)
        return Copied(host, done)

    def landed(self, fetched: Copied) -> torch.Tensor:
        """See `Link`."""
        if fetched.done is not None:
            fetched.done.synchronize()
        return fetched.values


def link_to(device: torch.device) -> Link:
    """The way between the host and a device."""
    return CopyStream(Cuda(device)) if device.type == "cuda" else NoLink()
