"""The alignment formats, each known by its entry in `FORMATS` alone, and what follows from these entries."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryolithe.formats.alignment.alignment_format import AlignmentFile, AlignmentFormat
from cryolithe.formats.alignment.aretomo import ARETOMO
from cryolithe.formats.alignment.imod_project import IMOD
from cryolithe.formats.alignment.relion import RELION
from cryolithe.formats.alignment.warp import WARP
from cryolithe.formats.files import file_beside

# In the order of flags in the help text and of settings in records.
FORMATS: tuple[AlignmentFormat, ...] = (IMOD, ARETOMO, RELION, WARP)


def alignment_files() -> dict[str, AlignmentFile]:
    """All kinds of files, by the setting that names one."""
    return {file.option: file for made in FORMATS for file in made.files}


def formats_of(options: Iterable[str]) -> list[AlignmentFormat]:
    """The formats to which some options belong."""
    given = set(options)
    return [made for made in FORMATS if any(file.option in given for file in made.files)]


def flags(options: Iterable[str]) -> str:
    """Options as they are typed, for messages."""
    known = alignment_files()
    return " and ".join(known[option].flag for option in options)


def flags_that_move() -> str:
    """The flags of files that bring a raw stack into register, for messages."""
    return ", ".join(file.flag for file in alignment_files().values() if "shifts" in file.tells)


def flags_that_bring_angles() -> str:
    """The flags of files that make an angle file unnecessary; those that align as well come first."""
    bringing = [file for file in alignment_files().values() if "angles" in file.tells]
    return ", ".join(file.flag for file in sorted(bringing, key=lambda file: "shifts" not in file.tells))


def flags_with_centre(centre: str) -> str:
    """The flags of the formats that count pixels from a centre, for the help text."""
    return " and ".join(file.flag for made in FORMATS if made.centre == centre for file in made.files)


def format_of_table(tilts: Path) -> AlignmentFormat | None:
    """The format of a file that may stand for a stack, by its ending; None for a stack."""
    ending = tilts.suffix.lower()
    return next((made for made in FORMATS if ending in made.tables), None)


def files_beside(tilts: Path) -> dict[str, list[Path]]:
    """Alignment files beside a stack, by the setting that takes them; programs in alphabetical order."""
    base = Path(tilts.name.removesuffix(".gz").removesuffix(".bz2")).stem
    found = {
        file.option: [path for name in file.beside if (path := _beside(tilts, base, name))]
        for made in sorted(FORMATS, key=lambda made: made.program)
        for file in made.files
    }
    return {option: paths for option, paths in found.items() if paths}


def _beside(tilts: Path, base: str, form: str) -> Path | None:
    folder, _, form = form.rpartition("/")
    before, stands, ending = form.rpartition("{}")
    return file_beside(tilts.parent / folder / tilts.name, before + base if stands else "", ending)
