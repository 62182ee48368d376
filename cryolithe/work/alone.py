"""One run at a time in a folder of a training, in whatever number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cryolithe.errors import OutputError
from cryolithe.optimise.distributed import Place, Together
from cryolithe.work.locking import LOCK, OWNER, FolderLock


@contextmanager
def alone_in(folder: Path, place: Place, check: Callable[[], object]) -> Iterator[str]:
    """Hold a folder within, so that no other run writes into it or beside it.

    Killed processes hold nothing. What is left of a folder that nothing was written into is removed.

    Args:
        folder: is made if it is not there.
        place: of this process; the first one holds the folder for all.
        check: is called by the first process when it has the folder: what it allows stays allowed. Also before,
            where there is no folder to make one in.

    Yields:
        what the user should know about how it is held, or an empty string.

    Raises:
        OutputError: if another run has it, or it cannot be made.
        CryoLitheError: of the check; in all processes.
    """
    together = Together(place)
    lock = together.tried(lambda: _held(folder, check)) if place.rank == 0 else None
    together.settle()
    try:
        yield lock.note if lock is not None else ""
    finally:
        if lock is not None:
            _give_up(folder, lock)


def is_begun(folder: Path) -> bool:
    """Whether a folder holds anything but a lock, which a run leaves that was killed before it wrote."""
    try:
        return any(path.name not in (LOCK, OWNER) for path in folder.iterdir())
    except OSError:
        return folder.is_symlink() or folder.exists()


def refuse_replaced(inputs: Mapping[Path, str], output: Path, folder: Path, patterns: Sequence[str]) -> None:
    """Refuse to start anew over what a run is made of.

    Args:
        inputs: files that are read, and what they are.
        output: file that is replaced.
        folder: whose files that match a pattern are removed.
        patterns: of names in the folder.

    Raises:
        OutputError: names the first input that would be lost.
    """
    lost = {output, *(path for pattern in patterns for path in folder.glob(pattern))}
    names = {_place(path) for path in lost} | {path.resolve() for path in lost}
    for path, what in inputs.items():
        if _place(path) in names or path.resolve() in names:
            raise OutputError(
                f"{path} is {what}, and this run would replace it; copy it to another place and give that one, or "
                "choose another -o"
            )


def _place(path: Path) -> Path:
    """Where a name lies, whatever it links to."""
    return path.parent.resolve() / path.name


def _held(folder: Path, check: Callable[[], object]) -> FolderLock:
    if not folder.parent.is_dir():
        check()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error
    # A folder on another disk may be linked to.
    lock = FolderLock(folder.resolve() if folder.is_symlink() else folder)
    try:
        check()
    except BaseException:
        _give_up(folder, lock)
        raise
    return lock


def _give_up(folder: Path, lock: FolderLock) -> None:
    with suppress(OSError):
        (folder / LOCK).unlink()
    lock.close()
    with suppress(OSError):
        folder.rmdir()
