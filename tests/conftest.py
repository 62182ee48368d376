"""What holds for every test: no data, no tests of them; any order; one day; no judging of the machine's speed."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from shared_data import SHARED

# Some tests use what those of another folder have set up.
sys.path[:0] = sorted({str(path.parent) for path in Path(__file__).parent.glob("*/test_*.py")})
# A shell that runs the tests in the background may have them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Outputs carry the day in their headers; two runs of a test may lie on both sides of midnight.
os.environ["SOURCE_DATE_EPOCH"] = "86400"
# The same examples in every run, and none that fails because the machine is slow.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shuffle", metavar="SEED", help="take modules, and the tests of each, in an order drawn from this seed"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not SHARED.is_dir():
        missing = pytest.mark.skip(reason=f"the development data {SHARED} are not there")
        for item in items:
            if item.get_closest_marker("shared"):
                item.add_marker(missing)
    if (seed := config.getoption("shuffle")) is not None:
        items[:] = shuffled(items, seed)
    items[:] = slow_modules_first(items)


def shuffled(items: list[pytest.Item], seed: str) -> list[pytest.Item]:
    """Tests in an order drawn from a seed; those of a module stay together, for they share what it sets up."""
    random_ = random.Random(seed)
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    parts = list(modules.values())
    random_.shuffle(parts)
    for part in parts:
        random_.shuffle(part)
    return [item for part in parts for item in part]


def slow_modules_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Modules with a slow test before the others, so that no process waits at the end for another's long module.

    Processes take modules in this order by ``--no-loadscope-reorder``; else the module of fewest tests comes last.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    return sorted(items, key=lambda item: item.path not in slow)
