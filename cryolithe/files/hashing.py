"""Hashes of files and folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BLOCK_BYTES = 1 << 20
_SAMPLES = 256  # blocks of a large file that its digest is made of


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text; the file is never in memory as a whole.

    Raises:
        OSError: if it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def content_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of all files in a folder; hidden names of writers left out.

    Raises:
        OSError: if something cannot be read.
    """
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for inside in sorted(file for file in path.rglob("*") if file.is_file()):
        name = inside.relative_to(path).as_posix()
        if not name.endswith(".partial"):
            digest.update(f"{name}\0{file_sha256(inside)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def sampled_sha256(path: Path) -> str:
    """SHA-256 of a file's size and of up to 256 blocks of 1 MiB spread over it: for files too large to be read twice.

    Files of up to 256 MiB are read whole. A larger one that was made anew differs nearly everywhere.

    Raises:
        OSError: if it cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    blocks = -(-size // _BLOCK_BYTES)
    chosen = (
        range(blocks) if blocks <= _SAMPLES else sorted({n * (blocks - 1) // (_SAMPLES - 1) for n in range(_SAMPLES)})
    )
    with path.open("rb") as stream:
        for number in chosen:
            stream.seek(number * _BLOCK_BYTES)
            digest.update(stream.read(_BLOCK_BYTES))
    return digest.hexdigest()
