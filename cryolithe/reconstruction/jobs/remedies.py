"""What a user most likely meant, where a job cannot be done as it was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryolithe.errors import CryoLitheError, OutputError
from cryolithe.files.names import is_file
from cryolithe.formats import read_angles_deg, read_mrc
from cryolithe.reconstruction.jobs.job import Job, ResolvedJob, check_files, check_inputs, resolve, source_files
from cryolithe.reconstruction.jobs.sources import SourceFiles

# How the field's programs name a stack, and the angles beside it (IMOD's first, AreTomo's, SerialEM's).
_STACKS = (".mrc", ".st", "_ali.mrc", ".ali", ".mrcs", ".tif", ".tiff")
_ANGLES = (".tlt", ".rawtlt", "_TLT.txt", "_st.tlt", ".mrc.mdoc", ".st.mdoc", ".mdoc")
_TIFF = (".tif", ".tiff")


def checked(job: Job, to_make: Path | None = None) -> ResolvedJob:
    """Check a job and resolve it, before any work is done.

    What is wrong with the inputs is said before an output that is in the way: else it would come to light only when
    --overwrite is given for it.

    Args:
        job: files and settings.
        to_make: a folder for the output that may be missing, for it is made before the work.

    Raises:
        CryoLitheError: says what is wrong, and what was most likely meant.
    """
    in_the_way: list[OutputError] = []

    def check(files: SourceFiles) -> None:
        try:
            check_files(job, files, to_make)
        except OutputError as error:
            in_the_way.append(error)

    run = _resolved(job, check)
    if in_the_way:
        raise in_the_way[0]
    return run


def checked_inputs(job: Job) -> ResolvedJob:
    """Check the inputs of a job that writes nothing, and resolve it; errors as those of `checked`."""

    return _resolved(job, check_inputs)


def _resolved(job: Job, check: Callable[[SourceFiles], object]) -> ResolvedJob:
    """Look for the files, check them, resolve the job."""
    try:
        files = source_files(job)
        check(files)
        return resolve(job, files)
    except CryoLitheError as error:
        remedy = likely_remedy(job)
        if not remedy:
            raise
        raise type(error)(f"{error}; {remedy}") from error


def likely_remedy(job: Job) -> str:
    """What to type instead, or an empty string: for arguments in the wrong order, and for ANGLES left out.

    Args:
        job: one that is refused.
    """
    tilts, angles = job.tilts, job.angles
    if _holds_angles(tilts):
        stack = angles if angles is not None and _holds_images(angles) else _beside(tilts, _ANGLES, _STACKS)
        if stack is None:
            return f"{tilts} holds tilt angles: give the stack first, then the angles"
        return f"the stack comes first, then the angles: cryolithe reconstruct {stack} {tilts}"
    if angles is None and not job.settings.alignment_files:
        found = _beside(tilts, _STACKS, _ANGLES)
        if found is not None:
            return f"{found.name} lies beside the stack: cryolithe reconstruct {tilts} {found}"
    return ""


def _holds_angles(path: Path) -> bool:
    try:
        return is_file(path) and bool(read_angles_deg(path))
    except CryoLitheError:
        return False


def _holds_images(path: Path) -> bool:
    if path.suffix.lower() in _TIFF:
        return is_file(path)
    try:
        return read_mrc(path).data.ndim == 3
    except CryoLitheError:
        return False


def _beside(path: Path, endings: tuple[str, ...], wanted: tuple[str, ...]) -> Path | None:
    """The first file of the same series with one of the ``wanted`` endings: of ``base.tlt``, ``base.mrc``."""
    fitting = [ending for ending in endings if path.name.lower().endswith(ending.lower())]
    bases = [path.name[: -len(ending)] for ending in sorted(fitting, key=len, reverse=True)]
    names = [base + ending for base in bases for ending in wanted]
    return next((path.with_name(name) for name in names if is_file(path.with_name(name))), None)
