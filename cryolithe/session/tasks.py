"""A session's tilt series as jobs: where they come from, which files they write, what is against them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from cryolithe.errors import CryoLitheError, InputError, OutputError
from cryolithe.formats import SeriesEntry, read_series_list
from cryolithe.formats.alignment.tomogram_star import is_tomogram_table, read_tomogram_star
from cryolithe.formats.files import nearest_folder
from cryolithe.formats.reading import Reading
from cryolithe.formats.series.session_folder import read_session_folder
from cryolithe.idle import idle_notes, refuse_idle
from cryolithe.reconstruction.jobs.job import Job, check_inputs, default_output, source_files
from cryolithe.reconstruction.jobs.sources import read_sources
from cryolithe.settings import ReconstructSettings, resolve_settings, with_decimal_points
from cryolithe.work.watcher import Watcher

# Of volumes; a folder has none of them.
_OTHER_LISTS = (".yaml", ".yml", ".json", ".toml", ".tsv")
_ENDINGS = (".mrc", ".rec", ".map", ".mrcs", ".zarr", ".tif", ".tiff")


class After(Protocol):
    """What is done to a volume when it is made; it must be possible to send it to another process."""

    def check(self, settings: ReconstructSettings) -> None:
        """Refuse settings of a reconstruction to whose volume it could not be done then; SettingsError."""
        ...

    def is_done(self, volume: Path, overwrite: bool) -> bool:
        """Whether it has been done to this very volume; OutputError if something else is in the way."""
        ...

    def __call__(self, volume: Path, settings: ReconstructSettings, watcher: Watcher) -> str:
        """Do it, unless it is done, and return the line that tells of it."""
        ...


@dataclass(frozen=True)
class Task:
    """One series of a session.

    Attributes:
        name: what it is called in the summary.
        job: files and settings.
        problem: why it cannot be reconstructed, or an empty string.
        after: what is done to the volume then, or None.
        folder: of the volumes, which is made before the work if it is not there; None for those of the stacks.
        found: whether its files were found by their names, so that the user wants to know which they are.
        unused: names of other stacks of the series.
        unaligned: why its stack looks raw though no alignment lies beside it, or an empty string.
    """

    name: str
    job: Job
    problem: str = ""
    after: After | None = None
    folder: Path | None = None
    found: bool = False
    unused: str = ""
    unaligned: str = ""

    @property
    def pairing(self) -> str:
        """The files that were found for a stack, in a line; empty where that is plain, or they are a problem."""
        if not self.found or self.problem:
            return ""
        try:
            files = source_files(self.job).files
        except InputError:
            files = self.job.settings.alignment_files
        near = self.job.tilts.parent
        if not self.unused and set(files) <= {"tilts", "angles"}:
            return ""
        told = [f"{what} {os.path.relpath(path, near)}" for what, path in files.items() if what != "tilts"]
        unused = f"; {self.unused} is of the same series and is not used" if self.unused else ""
        return f"{self.job.tilts}: {', '.join(told)}{unused}"

    @property
    def paired_files(self) -> dict[str, Path]:
        """All files that would be taken with the stack: also those of --ctf and --dose-weight, where they are found.

        Each is asked for by itself, as the lack of one says nothing of the others. Files that the series' problem
        concerns are not among them.
        """
        found: dict[str, Path] = {}
        for asked in ({}, {"ctf": "flip"}, {"dose_weight": True}):
            job = replace(self.job, settings=self.job.settings.model_copy(update=asked))
            with suppress(InputError):
                found |= source_files(job).files
        return {what: path for what, path in found.items() if what != "tilts" and path.is_file()}

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All files that decide the result besides the model."""
        try:
            return tuple(source_files(self.job).files.values())
        except InputError:  # of a file that names others; told when the series is looked at
            named = (self.job.tilts, self.job.angles, *self.job.settings.alignment_files.values())
            return tuple(path for path in named if path is not None)

    @property
    def own_inputs(self) -> tuple[Path, ...]:
        """Those that tell of this series alone: a table of all series may grow while this one is at work."""
        try:
            found = source_files(self.job)
        except InputError:
            return self.inputs
        return tuple(path for name, path in found.files.items() if name not in found.rows)


@dataclass(frozen=True)
class Session:
    """Where the series come from and where what is common to them goes.

    Attributes:
        source: a folder, a list or a star file.
        folder: of the summary.
        output: folder of the volumes, or None for those of the stacks.
        after: what is done to each volume then, or None.
        reading: through which files are read, so that each is opened once.
    """

    source: Path
    output: Path | None = None
    after: After | None = None
    reading: Reading = field(default_factory=Reading, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """Folder of the summary: that of the volumes, else that of the source."""
        return self.output or (self.source if self.source.is_dir() else self.source.parent)

    @property
    def star(self) -> Path | None:
        """The user's star file, if that is the source."""
        return self.source if self.source.suffix.lower() == ".star" else None


def is_session(path: Path, reading: Reading) -> bool:
    """Whether a path names many series: a folder, a list (.csv) or a star file that is not that of one series.

    Raises:
        InputError: for a text that may be meant as a list, but is of a kind that is none here.
    """
    ending = path.suffix.lower()
    if ending in _OTHER_LISTS and path.is_file():
        raise InputError(
            f"{path} is neither a stack nor a list of series: a list is a CSV file (.csv) with the columns tilts and "
            "angles, or RELION's .star; settings go with --config"
        )
    return path.is_dir() or ending == ".csv" or (ending == ".star" and is_tomogram_table(path, reading))


def unlike_relion(settings: ReconstructSettings) -> str:
    """What about volumes with some settings RELION's table cannot tell, or an empty string."""
    if settings.format != "mrc":
        return "are no MRC files"
    if settings.orientation != "xyz":
        return "have other axes"
    mirrored = settings.flip_z != (settings.handedness in ("aretomo", "warp"))
    return "are mirrored along z" if mirrored else ""


def find_tasks(
    session: Session,
    flags: Mapping[str, Any],
    file: Mapping[str, Any],
    file_name: str,
    taken: Collection[Job] | None = None,
) -> tuple[list[Task], list[str]]:
    """Return the tasks of a session, and notes for the user.

    Args:
        session: where to look.
        flags: settings of the command line; None means not given.
        file: settings of a file.
        file_name: what to call that in messages.
        taken: what was taken so far of a folder that fills, in this order. A series that comes later and would write
            what an earlier one writes, or an input, has that as its problem; the others go on.

    Raises:
        InputError: if there are no series.
        SettingsError: if a setting is unknown or out of range.
        OutputError: if two series would write the same file, or one would write the other's input.
    """
    entries, notes = _entries(session)
    entries = tuple(
        replace(entry, settings=with_decimal_points(entry.settings)) if entry.decimal_comma else entry
        for entry in entries
    )
    tasks = []
    for entry in entries:
        where = f"{session.source}, line {entry.line}" if entry.settings else str(session.source)
        settings = resolve_settings(flags, entry.settings, file, where, file_name)
        if settings.thickness is None and entry.depth_px is not None and _in_told_pixels(entry, settings):
            thickness = max(1, round(entry.depth_px / (settings.bin or 1)))
            settings = settings.model_copy(update={"thickness": thickness})
        tasks.append(_task(entry, session, settings))
    acting = acting_besides(session)
    runs = [task.job.settings for task in tasks]
    if session.after is not None:
        for settings in runs:
            session.after.check(settings)
    refuse_idle(flags, runs, acting)
    notes += idle_notes(file, file_name, flags, runs, acting)
    for entry, settings in zip(entries, runs, strict=True):
        where = f"{session.source}, line {entry.line}"
        notes += idle_notes(entry.settings, where, flags, [settings], acting)
    apart = taken is not None and session.source.is_dir()
    ranks: dict[tuple[Path, Path], int] = {}
    for job in taken or ():
        ranks.setdefault((job.tilts, job.output), len(ranks))
    order = sorted(range(len(tasks)), key=lambda n: ranks.get((tasks[n].job.tilts, tasks[n].job.output), len(ranks)))
    for number, told in _collisions([(tasks[n], entries[n]) for n in order], session.source):
        if not apart:
            raise OutputError(told)
        place = order[number]
        tasks[place] = replace(tasks[place], problem=tasks[place].problem or told)
    if session.star:
        unlike = {told: count for told, count in Counter(map(unlike_relion, runs)).items() if told}
        notes += [
            f"{count} of {len(runs)} volumes {told}, which RELION's table cannot tell: its copy does not name them"
            for told, count in unlike.items()
        ]
    return tasks, notes


def _in_told_pixels(entry: SeriesEntry, settings: ReconstructSettings) -> bool:
    """Whether a depth is in the pixels that are taken: in others, which an option gives, the alignment tells it."""
    told = entry.settings.get("pixel_size")
    return settings.pixel_size is None or (told is not None and float(told) == settings.pixel_size)


def folder_pairs(entries: Iterable[SeriesEntry], folder: Path, reading: Reading) -> list[tuple[Path, dict[str, Path]]]:
    """Each stack of a folder with all files that `reconstruct` would take with it, by what they are.

    Args:
        entries: of `read_session_folder`.
        folder: where they were found.
        reading: through which they were.
    """
    session = Session(folder, reading=reading)
    tasks = (_task(entry, session, resolve_settings({}, entry.settings, {}, str(folder), "")) for entry in entries)
    return [(task.job.tilts, task.paired_files) for task in tasks]


def folder_problems(entries: Iterable[SeriesEntry], folder: Path, reading: Reading) -> tuple[list[str], list[str]]:
    """What is against each series of a folder that `reconstruct` would refuse, a text each; only headers are read.

    Args:
        entries: of `read_session_folder`.
        folder: where they were found.
        reading: through which they were.

    Returns:
        the problems, and notes on how the files of the other series are taken.
    """
    session, found = Session(folder, reading=reading), list(entries)
    tasks = [_task(entry, session, resolve_settings({}, entry.settings, {}, str(folder), "")) for entry in found]
    twice = dict(_collisions(list(zip(tasks, found, strict=True)), folder))
    problems: list[str] = []
    notes: list[str] = []
    for number, task in enumerate(tasks):
        known = task.problem or _missing(task.job)
        problem, told = (known, ()) if known else _looked_at(task.job)
        if problem := problem or twice.get(number, ""):
            problems.append(problem)
        else:
            notes += [note_of_series(task.job, note) for note in told]
    return problems, notes


def note_of_series(job: Job, note: str) -> str:
    """A note as it is told of one of several series: a warning, too, names the stack."""
    warning = "Warning: "
    if note.startswith(warning):
        return f"{warning}{job.tilts}: {note.removeprefix(warning)}"
    return f"Note on {job.tilts}: {note}"


def _looked_at(job: Job) -> tuple[str, tuple[str, ...]]:
    """Why the files of a job cannot be taken together, as their headers tell, or what is told of how they are taken."""
    try:
        files = source_files(job)
        check_inputs(files)
        return "", read_sources(files, job.settings).series.notes
    except CryoLitheError as error:
        return str(error), ()


def _missing(job: Job) -> str:
    """Why the files of a job are not all there; empty where they are."""
    try:
        missing = [path for path in source_files(job).files.values() if not path.exists()]
    except InputError as error:
        return str(error)
    return f"{job.tilts}: {missing[0]} does not exist" if missing else ""


def acting_besides(session: Session) -> tuple[str, ...]:
    """Settings that act whatever the method is: a denoiser has a precision, too."""
    return ("precision",) if session.after else ()


def _entries(session: Session) -> tuple[tuple[SeriesEntry, ...], list[str]]:
    source, reading = session.source, session.reading
    if source.is_dir():
        found = read_session_folder(source, reading)
        left_out = [f"Left out, {why}: {_some(stacks)}" for why, stacks in found.reasons.items()]
        return found.entries, [*left_out, *found.passed_over]
    if source.suffix.lower() == ".star":
        return read_tomogram_star(source, reading), []
    return read_series_list(source), []


def _some(stacks: tuple[Path, ...]) -> str:
    return ", ".join(path.name for path in stacks[:4]) + (", ..." if len(stacks) > 4 else "")


def _task(entry: SeriesEntry, session: Session, settings: ReconstructSettings) -> Task:
    output = entry.output
    if output is None:
        output = default_output(entry.tilts, settings.format)
        if session.star:
            output = output.with_name(f"rec_{entry.name}{output.suffix}")
    if session.output:  # a flag wins over a cell: the cell gives the name, -o the folder
        output = session.output / output.name
    job = Job(entry.tilts, entry.angles, output, settings, reading=session.reading)
    found = session.source.is_dir()
    # A flag or a file of settings that names an alignment, or the tilt axis, says how the stack is to be taken.
    told = settings.alignment_files or settings.tilt_axis
    return Task(
        name=entry.name or entry.tilts.stem,
        job=job,
        problem=entry.problem
        or next((why for name, why in entry.unreadable.items() if not getattr(settings, name)), ""),
        after=session.after,
        folder=session.output,
        found=found,
        unused=entry.unused,
        unaligned="" if told else entry.unaligned,
    )


def _collisions(found: list[tuple[Task, SeriesEntry]], source: Path) -> Iterator[tuple[int, str]]:
    """The series, by number, that would write what an earlier one writes, or an input of any; what to say of each."""
    listed = source.suffix.lower() == ".csv"
    lines = not source.is_dir()
    remedy = "in a column 'output'" if listed else "in the column 'output' of a list (.csv), or name the stacks apart"
    inputs: dict[Path, SeriesEntry] = {}
    for task, entry in found:
        for path in task.inputs:
            inputs.setdefault(_key(path), entry)
    writers: dict[Path, SeriesEntry] = {}
    for number, (task, entry) in enumerate(found):
        told = ""
        for path in task.job.written:
            if (writer := writers.get(_key(path))) is not None:
                both = f"lines {writer.line} and {entry.line}" if lines else f"{writer.tilts} and {entry.tilts}"
                told = f"{source}: {both} would both write {path}; give each its own name {remedy}"
            elif (reader := inputs.get(_key(path))) is not None:
                one, other = (f"line {e.line}" if lines else f"{e.tilts}" for e in (entry, reader))
                told = f"{source}: {one} would write {path}, an input of {other}; give it another name {remedy}"
            if told:
                break
        if told:
            yield number, told
        else:
            writers |= {_key(path): entry for path in task.job.written}


def _key(path: Path) -> Path:
    return Path(os.path.realpath(path))


def check_session(session: Session) -> None:
    """Refuse a folder for the summary that cannot be written, before any work is done; that of -o may be missing.

    Raises:
        InputError: if the source does not exist.
        OutputError: if the folder is none, or is not writable.
    """
    if not session.source.exists():
        raise InputError(f"{session.source} does not exist; check its name and folder")
    if os.path.lexists(session.folder) and not session.folder.is_dir():
        raise OutputError(f"{session.folder} is a file; for several series, -o takes a folder")
    if not session.folder.is_dir() and session.folder.suffix.lower() in _ENDINGS:
        raise OutputError(
            f"-o {session.folder}: for several series, -o takes the folder of all volumes; a list can name each of "
            "them in a column 'output'"
        )
    if not os.access(nearest_folder(session.folder), os.W_OK):
        raise OutputError(f"{session.folder} is not writable; choose a folder for volumes and summary with -o")
