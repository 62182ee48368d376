"""The tilt series of a session's folder: which stack, which angles, told by the names that the field's programs give.

Names: IMOD's ``base.st``, ``base_ali.mrc``, ``base.ali``, ``base.tlt``, ``base.rawtlt``, ``base.xf``, ``base_rec.mrc``;
AreTomo's ``base.mrc``, ``base.aln``, ``base_TLT.txt``, ``base_Vol.mrc``, ``base_EVN.mrc``, ``base_Imod/base_st.tlt``;
SerialEM's ``base.mrc.mdoc``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.formats.alignment.alignments import files_beside
from cryolithe.formats.alignment.imod_beside import ON_THE_WAY
from cryolithe.formats.alignment.pairing import Paired, pair
from cryolithe.formats.alignment.stack_state import FOR_IMOD, is_aligned_name, mdocs_beside, series_name, stack_state
from cryolithe.formats.alignment.tomogram_star import OWN_COPY, listed_series
from cryolithe.formats.files import PathLike, file_beside, unreadable
from cryolithe.formats.reading import Reading
from cryolithe.formats.series.not_stacks import what_else
from cryolithe.formats.series_entry import SeriesEntry
from cryolithe.formats.series_names import Half, half_of, whole_stem
from cryolithe.formats.stacks.mdoc import is_tilt_series_mdoc
from cryolithe.formats.stacks.mdoc_text import read_mdoc_text
from cryolithe.formats.stacks.mrc import stack_shape

STACK_SUFFIXES = (".mrc", ".mrcs", ".st", ".ali")
# What programs make of a tilt series: never a series of its own.
_PRODUCT = re.compile(
    r"^rec_|_(rec|vol|ctf|preali|fbp|sirt|den|denoised|confidence|unsupported|rec_error)$",
    re.IGNORECASE,
)
# What this program makes of volumes, and perhaps of stacks: series where angles lie beside them, else nothing to tell.
_MADE_HERE = re.compile(r"_(samba|n2n|agreement)$", re.IGNORECASE)
# What IMOD puts aside when it makes a stack anew, or takes images out; stacks only where there is none without the
# addition.
_ASIDE = re.compile(r"_(orig|fixed|original|cutviews\d+)$", re.IGNORECASE)
_XRAY = re.compile(r"_xray$", re.IGNORECASE)  # of ccderaser
# Fewer images are those of a map, or of a search.
FEWEST_IMAGES = 3
_MOST_TABLES, _LARGEST_LIST_BYTES = 50, 2_000_000


class NoSeriesError(InputError):
    """A folder holds no tilt series, or none so far."""


@dataclass(frozen=True)
class FolderContent:
    """What was found in a folder.

    Attributes:
        entries: the series, in the order of their paths; ``line`` counts them from 1.
        left_out: stacks that are taken for no series, because there are no angles beside them.
        other: stacks that are none, whatever they are called: of fewer than 3 images, or the pieces of a montage.
        halves: stacks of half the frames whose whole stack is not there; those of one series side by side.
        compressed: compressed stacks that have angles or an alignment beside them, or are called aligned.
        passed_over: lines on command files that are of no stack here, and why.
    """

    entries: tuple[SeriesEntry, ...]
    left_out: tuple[Path, ...]
    other: tuple[Path, ...] = ()
    halves: tuple[Path, ...] = ()
    compressed: tuple[Path, ...] = ()
    passed_over: tuple[str, ...] = ()

    @property
    def reasons(self) -> dict[str, tuple[Path, ...]]:
        """Why stacks are taken for no series, and which."""
        found = {
            "no angle file beside it": self.left_out,
            "no tilt series (fewer than 3 images, or a montage)": self.other,
            "halves without their whole stack (give each two with --even and --odd)": self.halves,
            "compressed (unpack, or give each alone with its files)": self.compressed,
        }
        return {why: stacks for why, stacks in found.items() if stacks}


@dataclass
class _Series:
    """The stacks that have a base name in common."""

    folder: Path
    base: str
    aligned: list[Path] = field(default_factory=list)
    plain: list[Path] = field(default_factory=list)


def read_session_folder(path: PathLike, reading: Reading | None = None) -> FolderContent:
    """Find the tilt series in a folder and in the folders directly inside it.

    An aligned stack (``_ali``, ``.ali``, ``_aligned``) is taken before the one it was made of. A stack that is called
    aligned, or ``.st``, is a series even where its angles are missing: that is then its problem. A raw stack has the
    alignment whose files lie beside it (`alignment.pairing`); where there are two, that is its problem. An
    .mdoc brings the angles where no angle file does. A binned copy (``_bin4``) has the angles of the whole stack.

    Args:
        path: the folder.
        reading: through which files are read, where others ask for them too.

    Raises:
        InputError: if the folder cannot be read.
        NoSeriesError: if it holds no tilt series.
    """
    folder, reading = Path(path), reading or Reading()
    groups: dict[tuple[Path, str], _Series] = {}
    try:
        everything = _everything(folder)
        stacks, halves = _stacks(everything)
        for stack in stacks:
            base = series_name(stack)
            group = groups.setdefault((stack.parent, base), _Series(stack.parent, base))
            (group.aligned if is_aligned_name(stack) else group.plain).append(stack)
        groups = _with_whole_names(groups)
        alone = Counter(parent for parent, _ in groups)
        paired = [_paired(group, alone[group.folder] == 1, reading) for group in groups.values()]
        found = [_entry(group, of_it, reading) for group, of_it in zip(groups.values(), paired, strict=True)]
    except OSError as error:
        raise unreadable(folder, error) from error
    entries = [entry for entry, _ in found if entry]
    none = [stack for entry, stacks in found if entry is None for stack in stacks]
    passed_over = _passed_over(folder, list(zip(groups.values(), paired, strict=True)))
    other = tuple(stack for stack in none if _is_other(stack, reading))
    left_out = tuple(stack for stack in none if stack not in other)
    halves = [half for half in halves if not _is_other(half, reading)]
    compressed = _compressed(everything)
    if not entries:
        lacking = "stacks have no angle file (.tlt, .rawtlt, _TLT.txt) beside them, and no .mdoc of a tilt series"
        also = f"; {len(left_out)} {lacking}" if left_out else ""
        also += f"; {len(other)} stacks have fewer than {FEWEST_IMAGES} images, or are of a montage" if other else ""
        also += _without_whole(halves) if halves else ""
        also += f"; compressed stacks ({_names(compressed)}): unpack them, or give each alone" if compressed else ""
        also += "".join(f"; {line}" for line in passed_over)
        if not also and (is_other := what_else(folder)):
            raise NoSeriesError(is_other)
        if table := _table_of_series(everything, reading):
            also += f"; {table} lists tilt series of RELION: give that table"
        raise NoSeriesError(f"{folder} holds no tilt series: expected stacks and angle files of the same name{also}")
    numbered = tuple(replace(entry, line=number) for number, entry in enumerate(entries, 1))
    return FolderContent(numbered, left_out, other, tuple(halves), tuple(compressed), passed_over)


def _passed_over(folder: Path, found: list[tuple[_Series, Paired]]) -> tuple[str, ...]:
    """Lines on command files that no series beside them takes; none where it is not clear which files one has."""
    lines = []
    for parent in dict.fromkeys(group.folder for group, _ in found):
        here = [paired for group, paired in found if group.folder == parent]
        if any(paired.problem for paired in here):
            continue
        where = "" if parent == folder else f"{parent.name}: "
        lines += [
            f"{where}{told}"
            for path, told in here[0].passed_over.items()
            if all(path in paired.passed_over for paired in here)
        ]
    return tuple(lines)


def _table_of_series(everything: list[Path], reading: Reading) -> Path | None:
    """The first table of RELION in a folder that lists tilt series."""
    tables = [path for path in everything if path.suffix.lower() == ".star" and path.is_file()]
    for path in sorted(tables, key=lambda path: path.stem.endswith(OWN_COPY))[:_MOST_TABLES]:
        # Particles' tables are far larger, and take seconds to read.
        with suppress(InputError, OSError):
            if path.stat().st_size <= _LARGEST_LIST_BYTES and listed_series(path, reading):
                return path
    return None


def _without_whole(halves: list[Path]) -> str:
    """What to do with halves where there is nothing else."""
    first = half_of(_whole_name(halves[0]))
    others = [
        half
        for half in halves[1:]
        if first and half.parent == halves[0].parent and half_of(_whole_name(half)) == first.other
    ]
    even, odd = (path.name for path in (halves[0], others[0] if others else Path("...")))
    if first and not first.first:
        even, odd = odd, even
    return (
        f"; {_names(halves)} are halves without their whole stack: give each two, with the angles or the alignment of "
        f"the whole (--even {even} --odd {odd})"
    )


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths[:4]) + (", ..." if len(paths) > 4 else "")


def _everything(folder: Path) -> list[Path]:
    """All that a folder holds, and what is one level below, sorted."""
    inside = sorted(folder.iterdir())
    stems = {path.stem for path in inside if path.suffix.lower() in STACK_SUFFIXES}
    below = [sub for sub in inside if sub.is_dir() and not sub.name.startswith(".") and sub.suffix != ".partial"]
    # A link to this folder, or to one in it, holds no series of its own.
    here = {folder.resolve(), *(sub.resolve() for sub in below if not sub.is_symlink())}
    below = [sub for sub in below if not (sub.is_symlink() and sub.resolve() in here)]
    # What AreTomo writes for IMOD of a stack is that series once more.
    below = [sub for sub in below if not (sub.name.endswith(FOR_IMOD) and sub.name.removesuffix(FOR_IMOD) in stems)]
    deeper = (path for sub in below if os.access(sub, os.R_OK | os.X_OK) for path in sorted(sub.iterdir()))
    return [*inside, *deeper]


def _stacks(everything: list[Path]) -> tuple[list[Path], list[Path]]:
    """Files that may be tilt series; and halves of such, those whose whole is not there."""
    named = [path for path in everything if path.suffix.lower() in STACK_SUFFIXES]
    bases = {(path.parent, path.stem) for path in named}
    wholes = {(path.parent, _whole_name(path)) for path in named}
    halves = {(parent, half) for parent, name in wholes if (half := half_of(name))}
    stacks, alone = [], []
    for path in named:
        aside = _ASIDE.search(path.stem)
        # One with angles of its own name is a series.
        if not aside and not _angle_files(path.parent, path.stem, path.stem):
            aside = ON_THE_WAY.search(path.stem) or _XRAY.search(path.stem)
        if aside and {(path.parent, path.stem[: aside.start()] + end) for end in ("", "_ali")} & bases:
            continue
        if path.name.startswith(".") or _PRODUCT.search(path.stem) or not path.is_file():
            continue
        if not _is_half(path, wholes, halves):
            stacks.append(path)
        elif (whole := _whole_of_half(path)) and (path.parent, whole) not in wholes and not _PRODUCT.search(whole):
            alone.append(path)
    return stacks, sorted(alone, key=lambda path: (path.parent, _whole_of_half(path), path.name))


def _whole_of_half(stack: Path) -> str:
    """The name of the stack of which one is a half; empty where it is none."""
    half = half_of(_whole_name(stack))
    return half.before if half else ""


def _compressed(everything: list[Path]) -> list[Path]:
    """Compressed stacks that would be series: by their name, or by what lies beside them."""
    names = {(path.parent, path.name) for path in everything}
    found = []
    for path in everything:
        stack = path.with_suffix("")  # as it is called unpacked
        if path.suffix.lower() not in (".gz", ".bz2") or stack.suffix.lower() not in STACK_SUFFIXES:
            continue
        if path.name.startswith(".") or _PRODUCT.search(stack.stem) or (stack.parent, stack.name) in names:
            continue
        base = series_name(stack)
        beside = _angle_files(stack.parent, base, stack.stem) or mdocs_beside(stack) or files_beside(stack)
        if path.is_file() and (beside or is_aligned_name(stack)):
            found.append(path)
    return found


def _whole_name(stack: Path) -> str:
    """The name of a stack without what calls it aligned or binned."""
    return whole_stem(series_name(stack))


def _is_half(stack: Path, wholes: set[tuple[Path, str]], halves: set[tuple[Path, Half]]) -> bool:
    """Whether a stack is one of two halves of a series: it is called so, and no files of its own make it a series.

    Where the whole lies beside it, or the odd images beside the even ones, it is a half whatever files it has. Halves
    1 and 2 alone may be those of a lamella.

    Args:
        stack: that may be a half.
        wholes: folders and names, as `_whole_name` has them, of all stacks.
        halves: folders and halves, of those of these names that say one.
    """
    name = _whole_name(stack)
    half = half_of(name)
    if half is None or half.after or not half.before:
        return False
    if (stack.parent, half.before) in wholes:
        return True
    if half.kind == "frames" and (stack.parent, half.other) in halves:
        return True
    alignments = (path for paths in files_beside(stack).values() for path in paths)
    beside = (*_angle_files(stack.parent, name, stack.stem), *mdocs_beside(stack), *alignments)
    return not any(path.name.startswith(name) for path in beside)


def _with_whole_names(groups: dict[tuple[Path, str], _Series]) -> dict[tuple[Path, str], _Series]:
    """The same, but raw or unknown binned copies have the name of the stack that they were made of.

    Only where that is not there itself, and no alignment of it is, which would be in other pixels.
    """
    found: dict[tuple[Path, str], _Series] = {}
    for (folder, base), group in groups.items():
        name = base
        if group.plain and not group.aligned and not _angle_files(folder, base, base):
            whole = whole_stem(group.plain[0].stem)
            taken = (folder, whole) in groups or not _angle_files(folder, whole, whole)
            name = base if taken or files_beside(folder / f"{whole}.mrc") else whole
        joined = found.setdefault((folder, name), _Series(folder, name))
        joined.aligned += group.aligned
        joined.plain += group.plain
    return found


def _is_other(stack: Path, reading: Reading) -> bool:
    """Whether a stack without angles can be no tilt series."""
    for mdoc in mdocs_beside(stack):
        with suppress(InputError):
            if reading(read_mdoc_text, mdoc).pieces:
                return True
    shape = reading(stack_shape, stack)  # of what cannot be read is told where it is a series
    return shape is not None and shape[0] < FEWEST_IMAGES


def _whole_stacks(group: _Series) -> tuple[list[Path], list[Path]]:
    """The stacks that could be the series of a group, and its binned copies where one of them is the whole."""
    stacks = group.aligned or group.plain
    copies = [stack for stack in stacks if whole_stem(stack.stem) != stack.stem]
    if len(copies) != len(stacks) - 1:
        return stacks, []
    return [stack for stack in stacks if stack not in copies], copies


def _paired(group: _Series, alone: bool, reading: Reading) -> Paired:
    stacks, _ = _whole_stacks(group)
    return pair(stacks[0], bool(group.aligned), alone, reading)


def _entry(group: _Series, paired: Paired, reading: Reading) -> tuple[SeriesEntry | None, list[Path]]:
    """The series of a group, or None and the stacks that are none."""
    folder, base = group.folder, group.base
    stacks, copies = _whole_stacks(group)
    angles = next(iter(_angle_files(folder, base, stacks[0].stem)), None)
    if angles is None:
        angles = next((path for path in mdocs_beside(stacks[0]) if is_tilt_series_mdoc(path, reading)), None)
    named_mrc = all(stack.suffix.lower() in (".mrc", ".mrcs") for stack in stacks)
    known = angles is not None or paired.files or paired.problem
    if not known and not group.aligned and (named_mrc or all(_is_other(stack, reading) for stack in stacks)):
        return None, [stack for stack in stacks if not _MADE_HERE.search(stack.stem)]
    problem, expected = paired.problem, None if known else folder / f"{base}.tlt"
    if len(stacks) > 1:
        problem = (
            f"{' and '.join(s.name for s in stacks)} could both be the series {base}; move one away, or use a list"
        )
    elif paired.brings_angles:
        angles = None
    elif angles is None and not problem:
        problem = f"{stacks[0]} has no angle file beside it; expected {base}.tlt, {base}.rawtlt or {base}_TLT.txt"
    unused = ", ".join(stack.name for stack in (*copies, *(group.plain if group.aligned else ())))
    settings = {option: str(path) for option, path in paired.files.items()}
    entry = SeriesEntry(0, stacks[0], angles or expected, settings=settings, name=base, problem=problem, unused=unused)
    unaligned = "" if group.aligned or settings else _raw_sign(stacks[0], angles, reading)
    return replace(entry, unaligned=unaligned), []


def _raw_sign(stack: Path, angles: Path | None, reading: Reading) -> str:
    """What tells that a stack without an alignment is raw: its state, or the .mdoc of a microscope beside it."""
    state = stack_state(stack, angles, reading)
    if state.aligned is not None:
        return "" if state.aligned else state.reason
    mdoc = next((path for path in mdocs_beside(stack) if is_tilt_series_mdoc(path, reading)), None)
    return f"{mdoc.name} lies beside it" if mdoc else ""


def _angle_files(folder: Path, base: str, stem: str) -> tuple[Path, ...]:
    """Where angles may be; refined ones (.tlt) come before those that were asked of the microscope (.rawtlt)."""
    names = dict.fromkeys((base, stem))
    found = [file_beside(folder / base, name, end) for end in (".tlt", "_TLT.txt", ".rawtlt") for name in names]
    return tuple(path for path in (*found, file_beside(folder / f"{base}_Imod" / base, base, "_st.tlt")) if path)
