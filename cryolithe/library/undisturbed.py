"""A function of the library and the caller's torch do not disturb each other.

The engine is written for torch as it comes. A caller may have chosen otherwise for all of the process (default dtype,
precision of products) or of a thread (default device, autocast, no gradients): a function is given torch as it comes,
and afterwards all is as it was, the random numbers too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

# The process that called a function first: one that is forked off it inherits this.
_first: list[int] = []
P = ParamSpec("P")
R = TypeVar("R")


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """A function that gives the same whatever the caller set in torch, and leaves it as it was, after errors too."""

    @wraps(function)
    def called(*args: P.args, **named: P.kwargs) -> R:
        with _torch_as_it_comes():
            return function(*args, **named)

    return called


@contextmanager
def _torch_as_it_comes() -> Iterator[None]:
    """Torch's settings as without a caller's; where nobody has imported it, nothing is set."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    dtype, products = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    _first[:] = _first or [os.getpid()]
    with ExitStack() as stack:
        if _first != [os.getpid()]:  # OpenMP waits for ever for threads that are not forked with the process
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        if torch.empty(0).device.type != "cpu":  # a context is a function around every call: only where it is needed
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                # Casts of weights are kept until the outermost autocast ends, while a training here changes them.
                stack.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
        stack.callback(torch.set_float32_matmul_precision, products)
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        if products != "highest":
            torch.set_float32_matmul_precision("highest")
        yield
