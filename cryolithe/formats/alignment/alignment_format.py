"""`AlignmentFormat`: all that the commands need to know of one program's alignment files.

A format is a module with one such value; `alignment.alignments` lists them, and everything else follows: flags
and columns of lists, what is offered where such files lie beside a stack, what ``cryolithe info`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryolithe.alignment import Alignment, Centre
from cryolithe.errors import InputError
from cryolithe.formats.facts import Fact
from cryolithe.formats.reading import Reading

Told = Literal["angles", "axis", "shifts"]


@dataclass(frozen=True)
class AlignmentFile:
    """One kind of file, and the setting, flag and column of a list by which a user names it.

    Attributes:
        option: the setting; the flag has ``-`` for ``_``.
        help: text of the flag.
        tells: what it says about the images. With ``shifts`` it is for raw stacks, and turns the tilt axis itself; with
            ``angles`` it does without an angle file.
        beside: names beside a stack that are taken for such a file; ``{}`` is the stack's name without its ending.
        columns: of the list that a series needs where such a file lies beside its stack, and proves that to be raw;
            empty where it proves nothing.
    """

    option: str
    help: str
    tells: frozenset[Told]
    beside: tuple[str, ...] = ()
    columns: str = ""

    @property
    def flag(self) -> str:
        """As it is typed."""
        return f"--{self.option.replace('_', '-')}"


@dataclass(frozen=True)
class Named:
    """What a user names for one series.

    Attributes:
        tilts: the stack.
        angles: the angle file, or None.
        files: the alignment's, by option.
        bin: the setting, which wins over files, or None.
        thickness: likewise.
        reading: through which files are read, so that each is opened once.
    """

    tilts: Path
    angles: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    bin: int | None = None
    thickness: int | None = None
    reading: Reading = field(default_factory=Reading, compare=False)


@dataclass(frozen=True)
class Stack:
    """What is known of the images themselves.

    Attributes:
        sections: how many there are.
        image_shape: pixels ``(y, x)`` of each.
        pixel_size_angstrom: by setting or header, or None.
        pixel_size_asked: whether by setting.
    """

    sections: int
    image_shape: tuple[int, int]
    pixel_size_angstrom: float | None
    pixel_size_asked: bool = False


@dataclass(frozen=True)
class Beside:
    """What lies beside a stack of a session's folder.

    Attributes:
        tilts: the stack.
        aligned: whether its name says that it is aligned.
        alone: whether its folder holds no other series, so that files of fixed names can be of no other.
        files: of a format, by option; no option without a file.
        reading: through which files are read.
    """

    tilts: Path
    aligned: bool
    alone: bool
    files: Mapping[str, Sequence[Path]]
    reading: Reading = field(default_factory=Reading, compare=False)

    def only(self, option: str) -> Path | None:
        """The file of an option, or None.

        Raises:
            InputError: if there are several.
        """
        found = self.files.get(option, ())
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise InputError(f"{names} could both align {self.tilts.name}; move one away, or use a list")
        return found[0] if found else None


def _none_further(named: Named) -> dict[str, Path]:
    return {}


def _none_passed(beside: Beside) -> dict[Path, str]:
    return {}


def _whole(named: Named) -> dict[Path, str]:
    return {}


@dataclass(frozen=True)
class AlignmentFormat:
    """A program's alignment.

    Attributes:
        program: its name.
        files: of which a series may have several, but none of another format.
        read: the alignment of a stack. Raises InputError where files are not usable or do not belong to the stack, and
            says in the alignment's notes what is assumed and what is left undone.
        further: other files that the named ones name, by what they are: they decide the result, too.
        describe: what ``cryolithe info`` says of a file, by its ending in small letters.
        tables: files that stand for a stack whose images are files of their own, by ending: each gives those files.
        centre: where the program counts pixels from; for the help text, the alignment itself has it as well.
        pair: of the files of this format beside a stack of a session's folder, by option, those that are taken for it;
            empty where they are not its own. Raises InputError where it is not clear which they are. None: the one of
            each kind that proves a stack to be raw.
        passed_over: files of this format beside a stack of a session's folder that may be of any series there, and are
            not taken for this one's, each with a line that says why. Raises InputError as ``pair`` does.
        gives_way: those that ``pair`` takes if no other program's files align the stack, each with a line that says
            why they are passed over else; empty where they stand against others. Raises InputError as ``pair`` does.
        rows: of those files that tell of other series, too, what they tell of this one: that alone decides the result.
            Raises InputError as ``further`` does.
        any_sign: whether its angles may be the microscope's or their negatives.
        takes_angles: whether its images have the angles of ANGLES, where those are given: no contradiction is possible.
    """

    program: str
    files: tuple[AlignmentFile, ...]
    read: Callable[[Named, Stack], Alignment]
    further: Callable[[Named], dict[str, Path]] = _none_further
    describe: Mapping[str, Callable[[Path], list[Fact]]] = field(default_factory=dict)
    tables: Mapping[str, Callable[[Path, Reading], tuple[Path, ...]]] = field(default_factory=dict)
    centre: Centre = "imod"
    pair: Callable[[Beside], dict[str, Path]] | None = None
    passed_over: Callable[[Beside], dict[Path, str]] = _none_passed
    gives_way: Callable[[Beside], dict[Path, str]] = _none_passed
    rows: Callable[[Named], dict[Path, str]] = _whole
    any_sign: bool = False
    takes_angles: bool = False
