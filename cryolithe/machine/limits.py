"""What this process may use of the machine: cores and memory, after affinity and Linux' control groups."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Version 1 writes about 2^63 where there is no limit.
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True)
class Limits:
    """The tightest limits of the control groups that a process is in; None where there is none.

    Attributes:
        cores: processor time per time.
        memory_bytes: memory of the whole group.
        free_bytes: what is left of it; pages of files that can be dropped count as free.
    """

    cores: float | None
    memory_bytes: int | None
    free_bytes: int | None


def usable_cores() -> int:
    """Cores that the scheduler gives this process, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def group_limits(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Limits:
    """Read the limits of control groups, version 1 or 2; all None on other systems.

    Args:
        root: where the groups are mounted.
        membership: the kernel's list of the groups of a process.
    """
    folders = list(_group_folders(root, membership))
    cores = [quota for folder in folders if (quota := _cpu_quota(folder)) is not None]
    memory = [pair for folder in folders if (pair := _memory(folder)) is not None]
    return Limits(
        min(cores, default=None),
        min((limit for limit, _ in memory), default=None),
        min((free for _, free in memory), default=None),
    )


def _group_folders(root: Path, membership: Path) -> Iterator[Path]:
    """Folders of the process' groups and of all groups around them; in a container some do not exist."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        # Version 2 has one tree and names no controllers; version 1 has a tree for each.
        for base in [root / name for name in controllers.split(",") if name in ("cpu", "memory")] or [root]:
            folder = base / own.lstrip("/")
            yield from (part for part in (folder, *folder.parents) if part.is_relative_to(base))


def _numbers(path: Path) -> list[int]:
    """The whole numbers in a file; none if it cannot be read."""
    try:
        return [int(word) for word in path.read_text().split() if re.fullmatch(r"-?\d+", word)]
    except OSError:
        return []


def _cpu_quota(folder: Path) -> float | None:
    numbers = _numbers(folder / "cpu.max")
    numbers = numbers or _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")
    return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[0] > 0 else None


def _memory(folder: Path) -> tuple[int, int] | None:
    limit = _numbers(folder / "memory.max") or _numbers(folder / "memory.limit_in_bytes")
    used = _numbers(folder / "memory.current") or _numbers(folder / "memory.usage_in_bytes")
    if not limit or not used or limit[0] >= _NO_LIMIT_BYTES:
        return None
    try:
        statistics = (folder / "memory.stat").read_text()
    except OSError:
        statistics = ""
    droppable = max((int(n) for n in re.findall(r"^(?:total_)?inactive_file (\d+)$", statistics, re.M)), default=0)
    return limit[0], max(0, limit[0] - max(0, used[0] - droppable))
