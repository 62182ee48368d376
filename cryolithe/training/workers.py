"""Worker processes that compute numbered items ahead of time: what item n is does not depend on who makes it when.

Workers are spawned, limited to one thread each, deaf to Ctrl-C (the main process ends them, and only them), and end
with the main process.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
from collections.abc import Callable, Collection
from typing import Any

from cryolithe.errors import CryoLitheError, ResourceError

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_PATIENCE_S = 5.0


class Workers:
    """Processes that answer ``make(number)``; with no process the caller makes items itself.

    Args:
        make: a picklable function of a number.
        count: processes.
    """

    def __init__(self, make: Callable[[int], Any], count: int) -> None:
        self._make = make
        self._done: dict[int, Any] = {}
        self._queue: list[int] = []
        self._links: dict[Any, tuple[Any, int | None]] = {}
        context = multiprocessing.get_context("spawn")
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))  # read by the libraries when a process starts
        try:
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(make, theirs), daemon=True)
                process.start()
                theirs.close()
                self._links[ours] = (process, None)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def ask(self, numbers: list[int]) -> None:
        """Have items made in this order, unless they are made or asked for already."""
        known = {number for _, number in self._links.values()} | self._done.keys() | set(self._queue)
        self._queue += [n for n in dict.fromkeys(numbers) if n not in known]
        self._exchange(0.0)

    def drop_all_but(self, numbers: Collection[int]) -> None:
        """Forget items that nobody will take any more, made or only asked for; they can be asked for again."""
        self._done = {number: item for number, item in self._done.items() if number in numbers}
        self._queue = [number for number in self._queue if number in numbers]

    def take(self, number: int) -> Any:
        """Wait for an item.

        Raises:
            ResourceError: if a worker was lost.
            CryoLitheError: what making the item raised.
        """
        if not self._links:
            return self._make(number)
        self.ask([number])
        if number in self._queue:  # what is due goes first
            self._queue.remove(number)
            self._queue.insert(0, number)
        while number not in self._done:
            self._exchange(1.0)
        found = self._done.pop(number)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """End the processes of this object, and no other."""
        for link, (process, _) in self._links.items():
            link.close()
            process.terminate()
        for process, _ in self._links.values():
            process.join(_PATIENCE_S)
        self._links.clear()

    def _exchange(self, wait_s: float) -> None:
        """Take results, give work to who has none."""
        busy = [link for link, (_, number) in self._links.items() if number is not None]
        ready: list[Any] = list(multiprocessing.connection.wait(busy, wait_s)) if busy else []
        for link in ready:
            process, number = self._links[link]
            try:
                found, value = link.recv()
            except (EOFError, OSError) as error:
                process.join(_PATIENCE_S)
                raise ResourceError(
                    f"a worker process was lost while it simulated series {number} (exit code {process.exitcode}; "
                    "-9 usually means that memory ran out); lower data.workers, then go on with --resume, or "
                    "make the fields smaller and start anew"
                ) from error
            self._done[found] = value
            self._links[link] = (process, None)
        for link, (process, number) in self._links.items():
            if number is None and self._queue:
                item = self._queue.pop(0)
                try:
                    link.send(item)
                except OSError as error:
                    raise ResourceError(
                        f"a worker process was lost (exit code {process.exitcode}); go on with --resume"
                    ) from error
                self._links[link] = (process, item)


def _serve(make: Callable[[int], Any], link: Any) -> None:
    """A worker's life: receive a number, send (number, item or error)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            number = link.recv()
        except (EOFError, OSError):
            return
        try:
            value: Any = make(number)
        except CryoLitheError as error:
            value = error
        except Exception as error:  # the main process must hear of it, whatever it is
            value = CryoLitheError(f"simulating series {number} failed: {type(error).__name__}: {error}")
        try:
            link.send((number, value))
        except OSError:
            return
