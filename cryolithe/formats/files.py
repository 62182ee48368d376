"""What every file format here shares: refusing what is no readable file, and writing under a temporary name."""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from cryolithe.errors import FileFormatError, InputError, OutputError
from cryolithe.files.names import is_file
from cryolithe.formats.leftovers import remove_leftovers, temporary_beside

PathLike = str | os.PathLike[str]

MRC_VOLUME_ENDINGS = (".mrc", ".rec", ".map")
# What nobody calls a folder.
_FILE_ENDINGS = frozenset(
    [
        ".mrc",
        ".mrcs",
        ".st",
        ".ali",
        ".rec",
        ".map",
        ".tif",
        ".tiff",
        ".png",
        ".jpg",
        ".jpeg",
        ".pdf",
        ".svg",
        ".json",
        ".csv",
        ".txt",
        ".star",
        ".yaml",
        ".yml",
        ".h5",
        ".hdf5",
        ".zarr",
        ".safetensors",
        ".gz",
        ".bz2",
        ".tlt",
        ".html",
        ".htm",
    ]
)
# Control characters that text files of this field do contain: tab, line feed, vertical tab, form feed, return, and
# the end-of-file mark of old Windows programs.
_TEXT_CONTROLS = frozenset(b"\t\n\v\f\r\x1a")

# Where the contents of small files are collected as they are read, so that what is hashed is what was parsed.
COLLECTED: ContextVar[dict[Path, bytes] | None] = ContextVar("COLLECTED", default=None)


def input_size_bytes(path: Path) -> int:
    """Return the size of a regular, non-empty file.

    Raises:
        InputError: if there is no such file, or it is a folder, a device or empty.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give a file")
        if not path.exists():
            raise InputError(f"{path} does not exist; check its name and folder")
        if not path.is_file():
            raise InputError(f"{path} is not a regular file")
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if size == 0:
        raise InputError(f"{path} is empty (0 bytes); the program that wrote it may have failed")
    return size


def nearest_folder(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def file_beside(path: Path, base: str, ending: str) -> Path | None:
    """The file beside another one that has a name and an ending, which some programs write in capitals; or None."""
    for found in (path.with_name(base + ending), path.with_name(base + ending.upper())):
        if is_file(found):
            return found
    return None


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the InputError for a file that the operating system does not let us read."""
    return InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")


def read_small(path: Path, kind: str, limit_bytes: int) -> bytes:
    """Return the content of a small file; what collects contents (`COLLECTED`) gets it too, or has it already.

    Args:
        path: the file.
        kind: what it should be, for the message, such as ``"an angle file"``.
        limit_bytes: larger files are refused, because they cannot be of this kind.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is too large.
    """
    size = input_size_bytes(path)
    if size > limit_bytes:
        raise FileFormatError(f"{path} is not {kind}: it has {size} bytes, expected at most {limit_bytes}")
    contents = COLLECTED.get()
    if contents is not None and path in contents:
        return contents[path]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    if contents is not None:
        contents[path] = content
    return content


def read_text(path: Path, kind: str, limit_bytes: int) -> str:
    """Return the content of a small text file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        kind: as for `read_small`.
        limit_bytes: likewise.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is too large, or binary.
    """
    content = read_small(path, kind, limit_bytes)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FileFormatError(f"{path} is not {kind}: expected text in UTF-8, found UTF-16; save it as UTF-8")
    if any(byte < 32 and byte not in _TEXT_CONTROLS for byte in content):
        raise FileFormatError(f"{path} is not {kind}: expected text, found binary data")
    # Comments may be in any old encoding; what matters is ASCII. Lines end in any of the three usual ways.
    text = content.decode("utf-8-sig", errors="replace").rstrip("\x1a")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_ending(path: Path, endings: tuple[str, ...], what: str, option: str = "-o") -> None:
    """Refuse a name of an output that promises another format than that in which it is written.

    Raises:
        OutputError: says which endings are known.
    """
    if path.suffix.lower() not in endings:
        found = f"this one ends in {path.suffix}" if path.suffix else "this one has none"
        raise OutputError(f"{option} {path}: expected a name ending in {' or '.join(endings)} for {what}; {found}")


def check_folder_name(path: Path, also: str = "") -> None:
    """Refuse the name of a file where a folder is to be made.

    Raises:
        OutputError: if it is a file, or ends as files of volumes, figures and tables do.
    """
    wanted = f"expected a folder {also}".rstrip()
    if path.is_file():
        raise OutputError(f"-o {path} cannot be written: cannot make the folder, a file has this name; {wanted}")
    if not path.is_dir() and path.suffix.lower() in _FILE_ENDINGS:
        raise OutputError(f"-o {path}: {wanted}")


def make_folder(path: Path) -> bool:
    """Make a folder, and those that it lies in, where they are missing; return whether it was.

    Raises:
        OutputError: if it cannot be made.
    """
    if path.is_dir():
        return False
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror or error}") from error
    return True


def printable(text: str) -> str:
    """Return ``text`` in one line without characters that could confuse a terminal; bytes of no text become ``?``."""
    return "".join(c if c.isprintable() else "?" if "\udc80" <= c <= "\udcff" else " " for c in text).strip()


def finite_numbers(words: Iterable[str]) -> list[float] | None:
    """The numbers that ``words`` are; None where one of them is no number, or not finite."""
    try:
        given = list(words)
        values = [float(word) for word in given]
    except ValueError:
        return None
    if any("_" in word for word in given):  # Python's float accepts 1_0
        return None
    return values if all(map(math.isfinite, values)) else None


def refuse_existing(path: Path, overwrite: bool, other: str = "another name with -o", hint: str = "") -> None:
    """Refuse to write over a file that is there, or over a link that leads nowhere, unless that is asked for.

    Args:
        path: to be written.
        overwrite: whether it may be replaced.
        other: what else a user may give.
        hint: to go between the two remedies.

    Raises:
        OutputError: if it exists.
    """
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} exists; give --overwrite to replace it{hint} or {other}")


def check_place(path: Path, overwrite: bool, option: str = "-o") -> None:
    """Refuse a place where no file can be written, before any work.

    Args:
        path: to be written.
        overwrite: whether it may be replaced.
        option: that it was given with.

    Raises:
        OutputError: if the name is taken or a folder's, or its folder is not there.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file with {option}")
    refuse_existing(path, overwrite, f"another name with {option}")
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: the folder {path.parent} does not exist; make it first")


def check_json(path: Path, overwrite: bool, what: str) -> None:
    """Refuse a name with --json that cannot be written, before any work.

    Args:
        path: to be written.
        overwrite: whether it may be replaced.
        what: is written, for the message, such as ``"the numbers"``.

    Raises:
        OutputError: if the name has another ending, is taken or a folder's, or its folder is not there.
    """
    check_ending(path, (".json",), what, "--json")
    check_place(path, overwrite, "--json")


def refuse_nameless(path: Path) -> None:
    """Raise OutputError for a path that ends in no name of its own, such as ``.``, ``..`` and ``/``: it is a folder."""
    if path.name in ("", ".."):
        raise OutputError(f"{path} is a folder; give the name of a file with -o")


@contextmanager
def replacing(path: PathLike, overwrite: bool) -> Iterator[Path]:
    """Give a temporary name in the folder of ``path``; what is there at the end becomes ``path`` in one step.

    What a killed process left of the same target is removed. If the body fails, the temporary file is removed and
    ``path`` stays as it was. The content is on the disk before it gets its name, so that no crash leaves an empty file
    of that name.

    Raises:
        OutputError: if ``path`` exists and is not to be overwritten, or cannot be written.
    """
    target = Path(path)
    check_place(target, overwrite)
    remove_leftovers(target)
    temporary = temporary_beside(target)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def all_or_none(paths: Iterable[Path]) -> Iterator[None]:
    """Remove those of several outputs that are new if not all of them can be written, or Ctrl-C comes between.

    One that stays, as on a full disk, would keep the same command from being given again.

    Args:
        paths: outputs of one command; those that are there already stay, or are what replaced them.
    """
    new = [path for path in paths if not os.path.lexists(path)]
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk.

    Raises:
        OSError: if the disk reports an error.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> OutputError:
    """Return the OutputError for a file that the operating system does not let us write."""
    return OutputError(f"{path} cannot be written: {error.strerror or error}")
