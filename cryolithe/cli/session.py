"""Many tilt series by one ``cryolithe reconstruct``: what it prints, and its exit code."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import CryoLitheError, InputError, OutputError, SettingsError
from cryolithe.formats.files import make_folder
from cryolithe.formats.series.session_folder import NoSeriesError
from cryolithe.idle import refuse_idle
from cryolithe.session.batch import Outcome, Prospect, look_at, plan_line, run_task, skipped
from cryolithe.session.cluster import check_scheduler, cluster_client, run_on_cluster
from cryolithe.session.star import write_star_of
from cryolithe.session.summary import HTML_NAME, write_summary
from cryolithe.session.tasks import Session, Task, acting_besides, check_session, find_tasks, note_of_series
from cryolithe.session.watching import Settled, rounds
from cryolithe.settings import resolve_settings

SETTLED_SECONDS = 60.0


@dataclass(frozen=True)
class SessionOptions:
    """How a session is worked through.

    Attributes:
        dry_run: only say what would be done.
        watch: follow a running acquisition.
        settle_seconds: for how long the files of a series must not have changed; None for a minute.
        idle_minutes: without anything new after which to end, or None.
        scheduler: of a cluster, or None to work in this process.
        workers: of a cluster that is started here.

    Raises:
        SettingsError: if options exclude each other.
    """

    dry_run: bool = False
    watch: bool = False
    settle_seconds: float | None = None
    idle_minutes: float | None = None
    scheduler: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.watch and (self.dry_run or self.scheduler):
            raise SettingsError("--watch goes with neither --dry-run nor --scheduler")
        for flag, value in (("--idle", self.idle_minutes), ("--settle", self.settle_seconds)):
            if not self.watch and value is not None:
                raise SettingsError(f"{flag} is for --watch")
        if self.workers is not None and not self.scheduler:
            raise SettingsError("--workers is for --scheduler")
        if self.scheduler is not None:
            check_scheduler(self.scheduler, self.workers)

    @property
    def settled_seconds(self) -> float:
        """For how long files must not have changed."""
        return SETTLED_SECONDS if self.settle_seconds is None else self.settle_seconds


@dataclass(frozen=True)
class Given:
    """Settings of the command line and of a file, which each series may add to."""

    flags: Mapping[str, Any]
    file: Mapping[str, Any]
    file_name: str


def run_session(session: Session, given: Given, options: SessionOptions) -> None:
    """Reconstruct all series of a session; exit code 1 if any failed.

    Raises:
        OutputError: if the volumes do not fit on the disk.
    """
    check_session(session)
    refused = ""
    if options.watch:
        outcomes, refused = _watch(session, given, options)
    else:
        tasks, notes = find_tasks(session, given.flags, given.file, given.file_name)
        for note in [*notes, *(task.pairing for task in tasks if task.pairing)]:
            say(note, err=True)
        prospects = [look_at(task) for task in tasks]
        line, shortage = plan_line(prospects)
        if options.dry_run:
            _print_plan(prospects, line, shortage)
            return
        say(line, err=True)
        if shortage:
            raise OutputError(f"{shortage}; make room, write float16, or choose another -o")
        _make_folder(session)
        outcomes = _work(session, prospects, options)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if failed:
        say(f"{failed} of {len(outcomes)} series failed", err=True)
    if refused:
        say(f"Error: nothing more was taken, as to the end {refused}", err=True)
    if failed or refused:
        raise click.exceptions.Exit(1)


def _make_folder(session: Session) -> None:
    if make_folder(session.folder):
        say(f"Made the folder {session.folder}", err=True)


def _print_plan(prospects: list[Prospect], line: str, shortage: str) -> None:
    for prospect in prospects:
        for note in prospect.notes:
            say(note_of_series(prospect.task.job, note), err=True)
        say(prospect.message)
    say(line, err=True)
    if shortage:
        say(f"Warning: {shortage}", err=True)
    failed = sum(prospect.status == "failed" for prospect in prospects)
    if failed:
        say(f"{failed} of {len(prospects)} series would fail", err=True)
        raise click.exceptions.Exit(1)


def _work(session: Session, prospects: list[Prospect], options: SessionOptions) -> list[Outcome]:
    """Do what is to do, and keep the summary true after every series."""
    outcomes = {p.task.job.output: Outcome(p.task, "to do", "not reached", {}) for p in prospects}
    open_tasks = []
    for prospect in prospects:
        if prospect.status == "skipped":
            with progress_watcher() as watcher:
                outcomes[prospect.task.job.output] = skipped(prospect, watcher)
            say(prospect.message)
        else:
            open_tasks.append(prospect.task)
    with _results(open_tasks, len(prospects), options) as results:
        _tell(session, list(outcomes.values()))
        for outcome in results:
            outcomes[outcome.task.job.output] = outcome
            say(outcome.message)
            _tell(session, list(outcomes.values()))
    if options.scheduler is None:
        _look_again(outcomes)
    _, page = _tell(session, list(outcomes.values()))
    say(f"Summary: {page}", err=True)
    return list(outcomes.values())


def _look_again(outcomes: dict[Any, Outcome], ended: bool = False) -> bool:
    """Take once more what was left to another run: that may have ended, with the volume or without.

    Args:
        outcomes: are changed.
        ended: only where the other run's working folder is gone.

    Returns:
        whether there was any.
    """
    left = [key for key, outcome in outcomes.items() if outcome.status == "to do"]
    left = [key for key in left if not (ended and outcomes[key].task.job.partial.exists())]
    for key in left:
        outcomes[key] = _one(outcomes[key].task, "[again]")
        say(outcomes[key].message)
    return bool(left)


@contextmanager
def _results(tasks: list[Task], series: int, options: SessionOptions) -> Iterator[Iterator[Outcome]]:
    """What becomes of the tasks, one after the other; a cluster is there before anything is done."""
    if options.scheduler is None or not tasks:
        first = series - len(tasks) + 1
        yield (_one(task, f"[{number}/{series}]") for number, task in enumerate(tasks, first))
        return
    with (
        cluster_client(options.scheduler, options.workers) as client,
        closing(run_on_cluster(tasks, client)) as outcomes,
    ):
        say(f"{len(tasks)} series on {options.scheduler}", err=True)
        yield outcomes


def _one(task: Task, number: str) -> Outcome:
    with progress_watcher() as watcher:
        watcher.note(f"{number} {task.job.tilts}")
        return run_task(task, watcher)


def _watch(session: Session, given: Given, options: SessionOptions) -> tuple[list[Outcome], str]:
    """Reconstruct series as they are completed; ends on Ctrl-C, or when nothing new has come for a while.

    A list that someone has half written does not end it: once it has begun it waits for the source to be mended.
    What it waits for is said whenever that has changed.

    Returns:
        what became of the series, and why the source could not be taken at the end, or an empty string.
    """
    settings = resolve_settings(given.flags, {}, given.file, "", given.file_name)
    if session.source.is_dir():  # there are no rows with others, and perhaps no series yet
        refuse_idle(given.flags, [settings], acting_besides(session))
    _make_folder(session)
    say(_watch_line(session, options), err=True)
    settled = Settled(options.settled_seconds)
    outcomes: dict[tuple[Path, Path], Outcome] = {}
    busy, told, refused, waiting = [False], "", "", ""
    tasks: list[Task] = []
    idle = None if options.idle_minutes is None else options.idle_minutes * 60
    for number in rounds(idle, min(10.0, max(0.2, options.settled_seconds / 3)), lambda: busy[0]):
        try:
            tasks, notes = find_tasks(session, given.flags, given.file, given.file_name, settled.taken)
            refused = ""
        except CryoLitheError as error:
            if number == 0 and not isinstance(error, InputError):
                raise
            tasks, notes = [], []
            if str(error) != told:
                say(f"Waiting: {error}", err=True)
            told = str(error)
            refused = "" if isinstance(error, NoSeriesError) else told
        ready = settled.ready(tasks)
        for task in ready:
            if task.pairing:
                say(task.pairing, err=True)
            outcome = _one(task, f"[{len(outcomes) + 1}]")
            outcomes[task.job.output, task.job.tilts] = outcome
            say(outcome.message)
            _tell(session, list(outcomes.values()))
        if not ready and _look_again(outcomes, ended=True):
            _tell(session, list(outcomes.values()))
        busy[0] = bool(ready) or settled.waiting > 0
        if not told or tasks:
            before, waiting = waiting, _waiting_line(settled.waits(tasks), notes)
            if waiting != before or ready:
                say(waiting, err=True)
    if _look_again(outcomes):
        _tell(session, list(outcomes.values()))
    say(_end_line(session, outcomes.values(), len(settled.waits(tasks)), options), err=True)
    return list(outcomes.values()), refused


def _watch_line(session: Session, options: SessionOptions) -> str:
    """What is watched, and when that ends."""
    end = "until Ctrl-C" if options.idle_minutes is None else f"until nothing has come for {options.idle_minutes:g} min"
    return (
        f"Watching {session.source} {end}; a series is taken when all of its files are there and have not changed for "
        f"{options.settled_seconds:g} s"
    )


def _waiting_line(waits: list[str], notes: list[str]) -> str:
    """What the next series wait for."""
    names = ", ".join(waits[:4]) + (", ..." if len(waits) > 4 else "")
    line = f"Waiting for {len(waits)} series: {names}" if waits else "Waiting for new series"
    return "; ".join([line, *notes])


def _end_line(session: Session, outcomes: Collection[Outcome], waiting: int, options: SessionOptions) -> str:
    """Why watching has ended, and what came of it."""
    counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "failed")}
    counts |= {"left to another run": sum(o.status == "to do" for o in outcomes), "not complete": waiting}
    made = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "no series came"
    summary = f"; summary: {session.folder / HTML_NAME}" if outcomes else ""
    return f"Watching ended, for nothing has come for {options.idle_minutes or 0:g} min: {made}{summary}"


def _tell(session: Session, outcomes: list[Outcome]) -> tuple[Path, Path]:
    """Write the summary and, for a session of RELION, the table with the volumes in it."""
    if session.star:
        write_star_of(session, outcomes)
    return write_summary(session.folder, session.source, outcomes)
