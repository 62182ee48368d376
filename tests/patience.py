"""Waiting in tests: as long as the slowest machine may take, so that time alone never fails one."""

from __future__ import annotations

import time
from collections.abc import Callable

# What has not come by then never comes.
PATIENCE_S = 1800.0
_PAUSE_S = 0.02


def wait_until(condition: Callable[[], object], alive: Callable[[], object] = lambda: True) -> None:
    """Wait for a condition, as long as there is something that can bring it about.

    Args:
        condition: asked again and again.
        alive: whether what is waited for can still happen.
    """
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if not alive():
            assert condition(), "what was to happen cannot happen any more"
            return
        assert time.monotonic() < end, f"nothing happened in {PATIENCE_S:g} s"
        time.sleep(_PAUSE_S)
