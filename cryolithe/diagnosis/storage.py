"""The folder that volumes are to be written to: its free space and how fast it takes them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cryolithe.diagnosis.finding import OK, PROBLEM, WARNING, Finding

MOST_BYTES, MOST_SECONDS = 256 << 20, 2.0
FIRST_CHUNK_BYTES, LARGEST_CHUNK_BYTES = 1 << 20, 32 << 20
LITTLE_SPACE_BYTES = 5_000_000_000
# A CPU's FBP makes about 250 MB of voxels per second; below this even a network waits for a slow folder.
LOW_BYTES_PER_SECOND = 20e6


@dataclass(frozen=True)
class WriteSpeed:
    """How much was written in how long, up to its arrival on the disk."""

    written_bytes: int
    seconds: float

    @property
    def bytes_per_second(self) -> float:
        """The speed."""
        return self.written_bytes / max(self.seconds, 1e-9)


def folder(path: Path) -> tuple[Finding, ...]:
    """Free space and write speed of a folder, or why nothing can be written there."""
    values: dict[str, object] = {"folder": str(path)}
    if not path.is_dir():
        text = f"{path} {'is not a folder' if path.exists() else 'does not exist'}"
        return (Finding("folder", PROBLEM, text, "make it (mkdir) or give another one with --folder", values),)
    try:
        free = shutil.disk_usage(path).free
        speed = write_speed(path, min(MOST_BYTES, free // 2))
    except OSError as error:
        text = f"nothing can be written to {path}: {error.strerror or error}"
        return (Finding("folder", PROBLEM, text, "free some space, mend its rights, or give another --folder", values),)
    values |= {
        "free_bytes": free,
        "written_bytes": speed.written_bytes,
        "seconds": speed.seconds,
        "bytes_per_second": speed.bytes_per_second,
    }
    text = f"{path}: {free / 1e9:.1f} GB free, written at {speed.bytes_per_second / 1e6:.0f} MB/s"
    advice = []
    if free < LITTLE_SPACE_BYTES:
        advice.append("1024 x 1024 x 512 voxels need 2.1 GB: free some space")
    if speed.bytes_per_second < LOW_BYTES_PER_SECOND:
        advice.append("reconstructing will wait for it: write to a local disk")
    return (Finding("folder", WARNING if advice else OK, text, "; ".join(advice), values),)


def write_speed(path: Path, most_bytes: int = MOST_BYTES, most_seconds: float = MOST_SECONDS) -> WriteSpeed:
    """Write until one of the limits is reached; each chunk is waited for until it is on the disk.

    The file has no name, or loses it at once, so that nothing stays behind, however the program ends.

    Raises:
        OSError: if nothing can be written there.
    """
    content = memoryview(os.urandom(LARGEST_CHUNK_BYTES))  # random, because some file systems compress
    written, chunk = 0, FIRST_CHUNK_BYTES
    with tempfile.TemporaryFile(dir=path, prefix=".cryolithe-", buffering=0) as file:
        start = time.perf_counter()
        while True:
            written += file.write(content[:chunk])
            os.fsync(file.fileno())
            seconds = time.perf_counter() - start
            if written >= most_bytes or seconds >= most_seconds:
                return WriteSpeed(written, seconds)
            # Small chunks first: on a very slow disk a single large one would take minutes.
            chunk = min(2 * chunk, LARGEST_CHUNK_BYTES, max(1, most_bytes - written))
