"""Training files from curated pairs: the same HDF5 as the simulator's, written by rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.artefacts.borders import find_border
from cryolithe.curation.arrays import oriented
from cryolithe.curation.check import (
    OpenedPair,
    PairReport,
    check_pair,
    image_on_field,
    open_files,
    planes_on_field,
)
from cryolithe.curation.manifest import ROLES, Manifest, PairEntry
from cryolithe.errors import InputError, OutputError
from cryolithe.files.hashing import file_sha256
from cryolithe.files.names import is_file
from cryolithe.formats.leftovers import may_be_in_use, temporary_beside
from cryolithe.formats.pairs import ROWS_PER_CHUNK, PairLayout, RowSink, open_pair, pair_writer

BLOCK_BYTES = 2**26
_NAMES = {"stack": "images", "even": "even", "odd": "odd"}


def build_pair(manifest: Manifest, pair: PairEntry, root: Path, folder: Path, overwrite: bool = False) -> str:
    """Check a pair and make its training file ``folder/NAME.h5``.

    Memory does not grow with the pair: images and planes are binned one at a time, into a scratch file beside the
    output where that is needed.

    Args:
        manifest: the entry.
        pair: one of its pairs.
        root: folder of the local copy.
        folder: where to write; must exist.
        overwrite: replace a file that was made otherwise.

    Returns:
        one line about what was done.

    Raises:
        InputError: if the check finds anything wrong.
        OutputError: if the file exists and was made from other settings, or cannot be written.
    """
    path = folder / f"{pair.name}.h5"
    settings = _settings(manifest, pair)
    if path.exists() and not overwrite:
        if _made_from(path) != settings:
            raise OutputError(f"{path} exists and was made from other settings; give --overwrite or another -o")
        changed = _changed_files(manifest, pair, root, path)
        if not changed:
            return f"{pair.name}: already done"
        raise OutputError(
            f"{path} exists and was made from another {root / changed} than the one that is there now; give "
            "--overwrite or another -o"
        )
    for left in (*folder.glob(f".{path.name}.*.partial"), *folder.glob(f".{path.name}.*.scratch")):
        if not may_be_in_use(path, left):
            left.unlink(missing_ok=True)
    report = check_pair(manifest, pair, root)
    wrong = [finding.text for finding in report.findings if finding.wrong]
    if wrong:
        more = f" (and {len(wrong) - 1} more; see: cryolithe pairs check)" if len(wrong) > 1 else ""
        raise InputError(wrong[0] + more)
    opened = open_files(manifest, pair, root)
    layout = _layout(manifest, opened, {**settings, **_provenance(manifest, report)})
    with pair_writer(path, layout, overwrite) as sink:
        for role, mrc in opened.stacks.items():
            _write_images(sink, path, _NAMES[role], mrc.data, manifest, opened)
        _write_truth(sink, path, manifest, opened)
    depth, rows, columns = opened.field.shape
    return (
        f"{pair.name}: {len(opened.kept)} tilts, {depth} x {rows} x {columns} voxels of "
        f"{manifest.voxel_size_angstrom:g} Å -> {path}"
    )


def _settings(manifest: Manifest, pair: PairEntry) -> dict[str, Any]:
    """What decides about a training file, as plain values."""
    entry = pair.model_dump(mode="json", exclude={"measured", "note"})
    plain = manifest.model_dump(mode="json", exclude={"pairs", "data"})
    settings: dict[str, Any] = json.loads(json.dumps({"entry": entry, "manifest": plain}))
    return settings


def _made_from(path: Path) -> dict[str, Any]:
    """The settings that a training file was made from."""
    with open_pair(path) as made:
        return {key: made.origin.get(key) for key in ("entry", "manifest")}


def _changed_files(manifest: Manifest, pair: PairEntry, root: Path, made: Path) -> str | None:
    """The first of a pair's files that is not the one that its training file was made from; files gone since count not.

    A local copy may be deleted when its training files are made; what is there must be what they were made from.
    """
    with open_pair(made) as found:
        known = found.origin.get("sha256")
    known = known if isinstance(known, dict) else {}
    for role, name in manifest.paths(pair).items():
        file = root / name
        if role in known and is_file(file) and file_sha256(file) != known[role]:
            return str(name)
    return None


def _provenance(manifest: Manifest, report: PairReport) -> dict[str, Any]:
    assert report.match is not None
    return {
        "program": f"CryoLithe {__version__}",
        "accession": manifest.accession,
        "sha256": {role: sha for role in ROLES if (sha := getattr(report.measured, role).sha256)},
        "target_correlation": round(report.match.correlation, 4),
    }


def _layout(manifest: Manifest, opened: OpenedPair, origin: dict[str, Any]) -> PairLayout:
    depth, rows, columns = opened.field.shape
    arrays = {_NAMES[role]: ((len(opened.kept), rows, columns), "f4") for role in opened.stacks}
    arrays["truth"] = ((depth, rows, columns), "f4")
    angles = tuple(opened.angles_deg[n] for n in opened.kept)
    return PairLayout(arrays, angles, manifest.voxel_size_angstrom, origin)


def _write_images(
    sink: RowSink, path: Path, name: str, stack: NDArray[Any], manifest: Manifest, opened: OpenedPair
) -> None:
    """Write a stack; images that are changed as a whole, to be binned or for their borders, go through a scratch file.

    Rows of all tilts are written together.
    """
    kept, shared = list(opened.kept), opened.field
    if manifest.binning == 1 and not any(find_border(np.asarray(stack[n], dtype=np.float32)) for n in kept):
        sign = -1 if manifest.stack_contrast == "bright" else 1
        columns = range(shared.columns.start, shared.columns.stop)
        for rows in _blocks(shared.rows, len(kept), len(columns)):
            block = np.asarray(stack[:, rows, shared.columns], dtype=np.float32)[kept]
            sink.write_rows(name, sign * block)
        return
    images = (image_on_field(stack[n], manifest, shared) for n in kept)
    _write_through_scratch(sink, path, name, images, (len(kept), *shared.shape[1:]))


def _write_truth(sink: RowSink, path: Path, manifest: Manifest, opened: OpenedPair) -> None:
    volume = oriented(opened.target.data, manifest)
    shared = opened.field
    if manifest.target_binning == 1:
        sign = -1 if manifest.target_contrast == "bright" else 1
        for rows in _blocks(shared.target_rows, shared.shape[0], shared.shape[2]):
            block = volume[shared.target_planes, rows, shared.target_columns]
            sink.write_rows("truth", sign * np.asarray(block, dtype=np.float32))
        return
    planes = planes_on_field(volume, len(volume), manifest, shared)
    _write_through_scratch(sink, path, "truth", planes, shared.shape)


def _write_through_scratch(
    sink: RowSink, path: Path, name: str, planes: Iterable[NDArray[np.float32]], shape: tuple[int, int, int]
) -> None:
    with _scratch(path, shape) as scratch:
        for number, plane in enumerate(planes):
            scratch[number] = plane
        for rows in _blocks(slice(0, shape[1]), shape[0], shape[2]):
            sink.write_rows(name, scratch[:, rows])


@contextmanager
def _scratch(path: Path, shape: tuple[int, int, int]) -> Iterator[NDArray[np.float32]]:
    """An array on disk beside ``path`` that goes away with the context."""
    file = temporary_beside(path, "scratch")
    try:
        yield np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _blocks(rows: slice, depth: int, width: int) -> Iterator[slice]:
    """Runs of whole chunks of rows that fit into `BLOCK_BYTES`."""
    chunks = max(1, BLOCK_BYTES // (depth * width * 4 * ROWS_PER_CHUNK))
    step = chunks * ROWS_PER_CHUNK
    for first in range(rows.start, rows.stop, step):
        yield slice(first, min(first + step, rows.stop))
