"""Is the local copy of an entry what its manifest says, and does each target belong to its series?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.artefacts.borders import without_border
from cryolithe.curation.arrays import (
    Field,
    binned_planes,
    binned_target_shape,
    kept_tilts,
    oriented,
    shared_field,
)
from cryolithe.curation.contrast import contrast_fault
from cryolithe.curation.judging import faults_of
from cryolithe.curation.manifest import FileFacts, Manifest, Measured, PairEntry
from cryolithe.curation.match import Match, compare, reduction
from cryolithe.errors import CryoLitheError, InputError
from cryolithe.evaluation.half_images import doubts_of_halves
from cryolithe.evaluation.half_whole import all_frames, doubts_of_whole
from cryolithe.files.hashing import file_sha256
from cryolithe.files.names import is_file
from cryolithe.formats import MrcArray, read_angles_deg, read_mrc
from cryolithe.images import binned_size, fourier_crop

PIXEL_TOLERANCE = 0.01
PLACEHOLDERS_ANGSTROM = (0.0, 1.0)  # headers that nobody filled in
NARROW_DEG = 60.0  # a range of tilts less than this is worth a remark


@dataclass(frozen=True)
class Finding:
    """Something that was found in a pair.

    Attributes:
        pair: its name.
        text: one line: what was expected, what was found, what to do.
        wrong: False for a mere remark.
    """

    pair: str
    text: str
    wrong: bool = True


@dataclass(frozen=True)
class PairReport:
    """What `check_pair` found.

    Attributes:
        pair: the pair's name.
        findings: in the order of the checks.
        measured: sizes and checksums of its files.
        tilts: images in the stack, 0 where it cannot be read.
        shape: voxels of the pair along ``(z, y, x)``, or None.
        match: how the target fits, or None where that could not be compared.
    """

    pair: str
    findings: tuple[Finding, ...]
    measured: Measured = field(default_factory=Measured)
    tilts: int = 0
    shape: tuple[int, int, int] | None = None
    match: Match | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.wrong for finding in self.findings)


@dataclass(frozen=True)
class OpenedPair:
    """The readable files of a pair.

    Attributes:
        stacks: "stack", and as given "even" and "odd".
        target: as it lies in its file.
        angles_deg: one for each image of the stack.
        kept: indices of the images that are used.
        field: what images and target share.
    """

    stacks: dict[str, MrcArray]
    target: MrcArray
    angles_deg: tuple[float, ...]
    kept: tuple[int, ...]
    field: Field


@dataclass
class _Notes:
    """Findings of one pair, as they come."""

    pair: str
    found: list[Finding] = field(default_factory=list)

    def wrong(self, text: str) -> None:
        self.found.append(Finding(self.pair, text))

    def remark(self, text: str) -> None:
        self.found.append(Finding(self.pair, text, wrong=False))

    @property
    def any_wrong(self) -> bool:
        return any(finding.wrong for finding in self.found)


def check_pair(manifest: Manifest, pair: PairEntry, root: Path, fast: bool = False) -> PairReport:
    """Check one pair: files, checksums, shapes, pixel sizes, values, halves, and whether the target belongs.

    Args:
        manifest: says what to expect.
        pair: one of its pairs.
        root: folder of the local copy.
        fast: leave checksums out.
    """
    notes = _Notes(pair.name)
    paths = {role: root / path for role, path in manifest.paths(pair).items()}
    missing = [path for path in paths.values() if not is_file(path)]
    if missing:
        notes.wrong(
            f"{len(missing)} of {len(paths)} files are missing, the first: {missing[0]}; copy them from "
            f"{manifest.source or manifest.accession}, or give the folder of the local copy with --data"
        )
        return PairReport(pair.name, tuple(notes.found))
    measured = Measured(**{role: _facts(path, fast) for role, path in paths.items()})
    for role, path in paths.items():
        _compare_facts(getattr(pair.measured, role), getattr(measured, role), path, notes)
    try:
        opened = open_files(manifest, pair, root)
    except CryoLitheError as error:
        notes.wrong(str(error))
        return PairReport(pair.name, tuple(notes.found), measured)
    tilts = len(opened.angles_deg)
    _check_numbers(manifest, pair, opened, notes)
    match = _check_values(manifest, opened, notes)
    if match:
        notes.found.extend(Finding(notes.pair, text) for text in faults_of(match))
    return PairReport(pair.name, tuple(notes.found), measured, tilts, opened.field.shape, match)


def open_files(manifest: Manifest, pair: PairEntry, root: Path) -> OpenedPair:
    """Open the files of a pair and find what images and target share.

    Raises:
        InputError: if a file cannot be read, or counts or shapes disagree.
        SettingsError: if binning leaves too little.
    """
    paths = {role: root / path for role, path in manifest.paths(pair).items()}
    stacks = {role: read_mrc(path) for role, path in paths.items() if role not in ("target", "angles")}
    target = read_mrc(paths["target"])
    angles = read_angles_deg(paths["angles"])
    shape = stacks["stack"].data.shape
    for role in ("even", "odd"):
        if role in stacks and stacks[role].data.shape != shape:
            raise InputError(
                f"{paths[role]} ({role}) has the shape {_sizes(stacks[role].data.shape)}, expected the stack's "
                f"{_sizes(shape)}; copy the halves that belong to this stack"
            )
    if pair.tilts is not None and shape[0] != pair.tilts:
        raise InputError(f"{paths['stack']} holds {shape[0]} images, expected {pair.tilts}; copy it again")
    if len(angles) != shape[0]:
        listed = len(angles) == shape[0] - len(pair.exclude_tilts) and pair.exclude_tilts
        hint = "it seems to leave out the excluded ones" if listed else "take the angle file that belongs to this stack"
        raise InputError(
            f"{paths['angles']} holds {len(angles)} angles, expected {shape[0]}, one for each image of the stack; "
            f"{hint}"
        )
    volume = oriented(target.data, manifest)
    image_shape = (binned_size(shape[1], manifest.binning), binned_size(shape[2], manifest.binning))
    target_shape = binned_target_shape(volume.shape, manifest.target_binning)
    shared = shared_field(manifest, pair, image_shape, target_shape)
    return OpenedPair(stacks, target, angles, kept_tilts(pair, shape[0]), shared)


def image_on_field(image: NDArray[Any], manifest: Manifest, shared: Field) -> NDArray[np.float32]:
    """An image of a stack on the pair's grid, dense = dark; shape ``(y, x)``.

    Borders of one value are replaced by the local mean, as where images are reconstructed.
    """
    binned = fourier_crop(without_border(np.asarray(image, dtype=np.float32)), manifest.binning)[
        shared.rows, shared.columns
    ]
    return -binned if manifest.stack_contrast == "bright" else binned


def planes_on_field(
    planes: Iterable[NDArray[Any]], count: int, manifest: Manifest, shared: Field
) -> Iterator[NDArray[np.float32]]:
    """Planes of an oriented target on the pair's grid, dense = dark; shape ``(y, x)`` each."""
    for z, plane in enumerate(binned_planes(planes, count, manifest.target_binning)):
        if shared.target_planes.start <= z < shared.target_planes.stop:
            cut = plane[shared.target_rows, shared.target_columns]
            yield -cut if manifest.target_contrast == "bright" else cut


def _facts(path: Path, fast: bool) -> FileFacts:
    digest = None if fast else file_sha256(path)
    return FileFacts(bytes=path.stat().st_size or None, sha256=digest)


def _compare_facts(expected: FileFacts, found: FileFacts, path: Path, notes: _Notes) -> None:
    if expected.bytes is not None and expected.bytes != found.bytes:
        have = found.bytes or 0
        what = "truncated" if have < expected.bytes else "another file"
        notes.wrong(f"{path} has {have} bytes, expected {expected.bytes}: {what}; copy it again")
    elif expected.sha256 and found.sha256 and expected.sha256 != found.sha256:
        notes.wrong(
            f"{path} has the checksum {found.sha256[:12]}..., expected {expected.sha256[:12]}...: "
            "damaged, or another version; copy it again"
        )


def _check_numbers(manifest: Manifest, pair: PairEntry, opened: OpenedPair, notes: _Notes) -> None:
    """Pixel sizes and angles."""
    expected = {
        "stack": (manifest.stack_pixel_angstrom, "pixel_size_angstrom x stack_binning"),
        "target": (manifest.voxel_size_angstrom / manifest.target_binning, "that of the pair / target_binning"),
    }
    for role, mrc in (("stack", opened.stacks["stack"]), ("target", opened.target)):
        size, rule = expected[role]
        found = mrc.voxel_size_angstrom or 0.0
        if found in PLACEHOLDERS_ANGSTROM:
            notes.remark(f"the {role}'s header gives no pixel size; {size:g} Å assumed")
        elif abs(found / size - 1) > PIXEL_TOLERANCE:
            notes.wrong(
                f"the {role}'s header says {found:g} Å per pixel, expected {size:g} Å ({rule}); "
                "correct the manifest, or copy the file that it means"
            )
    kept = [opened.angles_deg[n] for n in opened.kept]
    steps = np.diff(kept)
    if not ((steps > 0).all() or (steps < 0).all()):
        notes.remark("angles are not in order; is this the order of the images?")
    if max(kept) - min(kept) < NARROW_DEG:
        notes.remark(f"the tilts span {max(kept) - min(kept):.0f}° only")


def _check_values(manifest: Manifest, opened: OpenedPair, notes: _Notes) -> Match | None:
    """Read everything once: values, halves, and what is needed to compare stack and target."""
    factor = reduction(opened.field)
    images = [
        fourier_crop(image_on_field(image, manifest, opened.field), factor)
        for image in _watched((opened.stacks["stack"].data[n] for n in opened.kept), "stack", opened.kept, notes)
    ]
    if "even" in opened.stacks:
        _check_halves(opened, notes)
    volume = oriented(opened.target.data, manifest)
    planes = planes_on_field(_watched(volume, "target", None, notes), len(volume), manifest, opened.field)
    target = np.stack(list(binned_planes(planes, opened.field.shape[0], factor)))
    if notes.any_wrong:
        return None
    angles = tuple(opened.angles_deg[n] for n in opened.kept)
    if contrast := contrast_fault(np.stack(images), angles, len(target)):
        notes.remark(contrast)
    return compare(np.stack(images), target, angles, factor)


def _watched(
    planes: Iterable[NDArray[Any]], role: str, numbers: tuple[int, ...] | None, notes: _Notes
) -> Iterator[NDArray[Any]]:
    """Pass planes on; at their end note which values are not finite, and whether all are equal."""
    bad: list[int] = []
    flat: list[int] = []
    lowest, highest = np.inf, -np.inf
    for index, plane in enumerate(planes):
        number = numbers[index] if numbers else index
        low, high = float(plane.min()), float(plane.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            bad.append(number + 1)
            yield np.zeros(plane.shape, np.float32)
            continue
        if low == high:
            flat.append(number + 1)
        lowest, highest = min(lowest, low), max(highest, high)
        yield plane
    part = "image" if role != "target" else "plane"
    if bad:
        notes.wrong(
            f"the {role} holds values that are no numbers (NaN or infinite), first in {part} {bad[0]}; replace it"
        )
    elif lowest == highest:
        notes.wrong(f"the {role} is {lowest:g} everywhere; expected a {'volume' if part == 'plane' else 'series'}")
    elif flat and role != "target":  # planes above and below a masked specimen may well be empty
        notes.wrong(f"image {flat[0]} of the {role} is the same value everywhere; list it in exclude_tilts")


def _check_halves(opened: OpenedPair, notes: _Notes) -> None:
    """Halves differ from each other and from the whole, and belong to it."""
    stack, even, odd = (opened.stacks[role].data for role in ("stack", "even", "odd"))
    pairs = {"even and odd": (even, odd), "even and the stack": (even, stack), "odd and the stack": (odd, stack)}
    for names, (first, second) in pairs.items():
        if all(np.array_equal(first[n], second[n]) for n in opened.kept):
            notes.wrong(f"{names} hold the same images; expected halves of the frames: give the right files")
            return
    for role in ("even", "odd"):
        data = opened.stacks[role].data
        for _ in _watched((data[n] for n in opened.kept), role, opened.kept, notes):
            pass
    left_out = {number + 1 for number in range(len(stack))} - {number + 1 for number in opened.kept}
    frames = all_frames(stack, left_out)
    for role, half in (("even", even), ("odd", odd)):
        doubts = doubts_of_whole(half, frames)
        if doubt := doubts.other or doubts.doubtful:
            notes.wrong(f"'{role}' does not belong to the stack: they {doubt}")
            return
    found = doubts_of_halves(even, odd, left_out)
    if found.single and not notes.any_wrong:  # blank images have been told
        notes.wrong(f"'even' and 'odd' {found.single}")
    for doubt in filter(None, (found.scaled, found.shared)):
        notes.remark(f"'even' and 'odd' {doubt}")


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
