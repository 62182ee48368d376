"""Which processes of this machine are still there."""

from __future__ import annotations

import os
from pathlib import Path


def process_began(process: int) -> int | None:
    """When a process began, in ticks since the machine did; 0 where that is not known, None if there is no process."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        pass  # somebody else's
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0
