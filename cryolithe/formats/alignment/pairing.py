"""Which alignment a stack of a session's folder has, told by the files beside it; what could be two is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.formats.alignment.alignment_format import Beside
from cryolithe.formats.alignment.alignments import FORMATS, alignment_files, files_beside
from cryolithe.formats.reading import Reading


@dataclass(frozen=True)
class Paired:
    """What was found beside a stack.

    Attributes:
        files: of the alignment, by option; empty for a stack that has none.
        problem: why it is not clear which they are, in a line for the user; else empty.
        passed_over: files that may be of any series and are not taken for this one's, each with a line that says why.
    """

    files: dict[str, Path] = field(default_factory=dict)
    problem: str = ""
    passed_over: dict[Path, str] = field(default_factory=dict)

    @property
    def brings_angles(self) -> bool:
        """Whether the series needs no file of angles besides."""
        known = alignment_files()
        return any("angles" in known[option].tells for option in self.files)


def pair(tilts: Path, aligned: bool, alone: bool, reading: Reading) -> Paired:
    """Find the alignment of a stack among the files beside it.

    Args:
        tilts: the stack.
        aligned: whether its name says that it is aligned.
        alone: whether its folder holds no other series.
        reading: through which files are read.
    """
    found = files_beside(tilts)
    chosen: dict[str, dict[str, Path]] = {}
    passed_over: dict[Path, str] = {}
    weak: dict[str, dict[Path, str]] = {}
    for made in FORMATS:
        files = {file.option: found[file.option] for file in made.files if file.option in found}
        try:
            beside = Beside(tilts, aligned, alone, files, reading)
            own = (made.pair or _proofs)(beside) if files else {}
            passed_over |= made.passed_over(beside) if files else {}
            weak |= {made.program: made.gives_way(beside)} if own else {}
        except InputError as error:
            return Paired(problem=f"{tilts}: {error}")
        if own:
            chosen[made.program] = own
    strong = {program: own for program, own in chosen.items() if not weak[program]}
    if strong and len(strong) < len(chosen):
        taken = " and ".join(_first(own, program) for program, own in strong.items())
        passed_over |= {path: f"{why}; {taken} aligns it" for lines in weak.values() for path, why in lines.items()}
        chosen = strong
    if len(chosen) > 1:
        names = " and ".join(_first(own, program) for program, own in chosen.items())
        known = alignment_files()
        columns = " or ".join(filter(None, (known[next(iter(own))].columns for own in chosen.values())))
        return Paired(
            problem=f"{tilts}: {names} beside it are alignments of different programs; move all but one away, or use a "
            f"CSV list with the columns {columns}"
        )
    return Paired(next(iter(chosen.values()), {}), passed_over=passed_over)


def _first(own: dict[str, Path], program: str) -> str:
    return f"{next(iter(own.values())).name} ({program})"


def _proofs(beside: Beside) -> dict[str, Path]:
    """The files that are there for raw stacks alone, one of a kind."""
    if beside.aligned:
        return {}
    known = alignment_files()
    return {option: path for option in beside.files if known[option].columns and (path := beside.only(option))}
