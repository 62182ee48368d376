"""A wish to stop: the work ends after the present step and saves its state."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# One Ctrl-C reaches a process twice where a launcher passes it on to a process that the terminal told already.
SAME_SIGNAL_SECONDS = 3.0


@contextmanager
def asked_to_stop(interrupted: threading.Event) -> Iterator[None]:
    """The first Ctrl-C, or SIGTERM (a queue that wants its node back), asks to stop after the step.

    A further Ctrl-C some seconds later stops at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first = [math.inf]

    def ask(number: int, frame: object) -> None:
        interrupted.set()
        first[0] = min(first[0], time.monotonic())
        if number == signal.SIGINT and time.monotonic() - first[0] > SAME_SIGNAL_SECONDS:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
