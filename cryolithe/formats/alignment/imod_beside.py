"""Which files of IMOD beside a stack are its own: etomo calls the command files of every series alike.

A command file is of the series of which it names a file, whatever else it names: stacks are renamed, sorted or cleaned
after etomo has written it. Its input tells most; what another input leaves open, its other files tell, where no file of
another series that lies there speaks against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from cryolithe.errors import InputError
from cryolithe.files.names import is_file
from cryolithe.formats.alignment.alignment_format import Beside
from cryolithe.formats.alignment.imod import NewstCommand, TiltCommand, read_newst_com, read_tilt_com
from cryolithe.formats.files import printable
from cryolithe.formats.series_names import possible_names, without_ending

# What etomo makes of an aligned stack on the way to a volume: ts_filt.ali of ts.ali, today ts_filt_ali.mrc of
# ts_ali.mrc.
ON_THE_WAY = re.compile(r"_(erased?|filt|ctfcorr|3dfind)(?P<aligned>_ali)?$", re.IGNORECASE)
# As numbers that flags replace, such as a THICKNESS of 0, cannot stand against a file's being of a series.
_REPLACED = frozenset({"THICKNESS"})
# How surely a command file is of a stack: by its input or by fixed names, by other files that it names, not at all.
_SURE, _NAMED, _NOT = 2, 1, 0
# Endings of what tells of images and is none.
_OF_IMAGES = frozenset({".xf", ".tlt", ".rawtlt", ".xtilt", ".tltxf"})
_COLUMNS = "tilts, newst_com, tilt_com"


@dataclass(frozen=True)
class _Chosen:
    """The command files of a stack, and how surely each that lies beside it is its own."""

    newst: Path | None
    tilt: Path | None
    ranks: Mapping[Path, int]


def project_beside(beside: Beside) -> dict[str, Path]:
    """The files of a project for a stack: newst.com and tilt.com, or the .xf where there is no newst.com.

    An aligned stack needs tilt.com alone, and only one that says to be of this stack.

    Raises:
        InputError: if it is not clear which files they are.
    """
    chosen = _chosen(beside)
    newst = chosen.newst
    command = None if newst is None else _newst(beside, newst)
    commands = {} if chosen.tilt is None else {"tilt_com": chosen.tilt}
    if beside.aligned:
        return commands
    if newst is not None:
        xf = beside.only("xf") if command and command.transforms is None else None
        if xf is not None:
            raise InputError(
                f"{newst.name} beside {beside.tilts.name} names no TransformFile, but {xf.name} lies there; name it in "
                "it, move one away, or use a list"
            )
        return {"newst_com": newst, **commands}
    xf = beside.only("xf")
    return commands if xf is None else {"xf": xf, **commands}


def passed_over(beside: Beside) -> dict[Path, str]:
    """The command files beside a stack that are not taken for its own, each with a line that says why.

    Raises:
        InputError: if it is not clear which files are its own.
    """
    chosen, told = _chosen(beside), {}
    for option, own in (("newst_com", chosen.newst), ("tilt_com", chosen.tilt)):
        for path in beside.files.get(option, ()):
            if path == own:
                continue
            if own is not None and chosen.ranks[path]:
                why = f"{own.name} is more surely of {beside.tilts.name}"
            else:
                why = _why_not(beside, path, option)
            told[path] = f"{path.name} is not used: {why}"
    return told


def gives_way(beside: Beside) -> dict[Path, str]:
    """A tilt.com that alone stands for the alignment of a raw stack by other files than its input, and why it is none.

    Other programs' files, which do align the stack, are taken where they lie there: it may be left of another attempt.

    Raises:
        InputError: if it is not clear which files are the stack's own.
    """
    chosen = _chosen(beside)
    tilt = chosen.tilt
    if beside.aligned or tilt is None or chosen.newst or beside.files.get("xf") or chosen.ranks[tilt] == _SURE:
        return {}
    command = _tilt(beside, tilt)
    takes = f", takes in {printable(last_name(command.input_name))[:100]}" if command and command.input_name else ""
    return {tilt: f"{tilt.name} is not used: it brings no transforms of {beside.tilts.name}{takes}"}


def _why_not(beside: Beside, path: Path, option: str) -> str:
    """Why a command file is of no stack here."""
    command: NewstCommand | TiltCommand
    try:
        if option == "newst_com":
            command = beside.reading(read_newst_com, path)
        else:
            command = beside.reading(read_tilt_com, path, _REPLACED)
    except InputError as error:
        return str(error)
    names = list(dict.fromkeys(filter(None, (last_name(command.input_name), *_other_names(command)))))
    remedy = f"; if it is of one, use a list with the columns {_COLUMNS}"
    if not names:
        return f"it names no file of a stack here{remedy}"
    shown = ", ".join(printable(name)[:100] for name in names)
    if any(_is_own(beside, name) for name in names):
        return f"it names files of several series here ({shown}){remedy}"
    return f"it names {shown}, and no file of a stack here{remedy}"


def _chosen(beside: Beside) -> _Chosen:
    """The command files that are most surely of a stack; InputError where several of a kind are alike."""
    by_names = {path: _tilt_rank(beside, path, None) for path in beside.files.get("tilt_com", ())}
    read = {path for path, rank in by_names.items() if rank}
    inputs = {last_name(command.input_name) for path in read if (command := _tilt(beside, path))}
    newsts = {path: _newst_rank(beside, path, inputs) for path in beside.files.get("newst_com", ())}
    newst = _one(beside, "newst_com", newsts)
    tilts = {path: max(rank, _tilt_rank(beside, path, newst)) for path, rank in by_names.items()}
    return _Chosen(newst, _one(beside, "tilt_com", tilts), newsts | tilts)


def _one(beside: Beside, option: str, ranks: Mapping[Path, int]) -> Path | None:
    """The command file of a kind that is most surely a stack's, or None; InputError where there are several."""
    most = max(ranks.values(), default=_NOT)
    own = [path for path, rank in ranks.items() if rank == most] if most else []
    return replace(beside, files={option: own}).only(option)


def _newst(beside: Beside, path: Path) -> NewstCommand | None:
    try:
        return beside.reading(read_newst_com, path)
    except InputError:
        return None


def _tilt(beside: Beside, path: Path) -> TiltCommand | None:
    try:
        return beside.reading(read_tilt_com, path, _REPLACED)
    except InputError:
        return None


def _newst_rank(beside: Beside, path: Path, inputs: set[str]) -> int:
    """How surely newst.com is of this stack; one that cannot be read is, where the folder has no other series.

    It is then refused when the series is looked at.

    Args:
        beside: the stack.
        path: the file.
        inputs: names of what the tilt.com of this series take in.
    """
    command = _newst(beside, path)
    if command is None:
        return _SURE if beside.alone else _NOT
    transforms = command.transforms
    if command.input_name:
        if _is_own(beside, command.input_name):
            return _SURE
    elif beside.alone or (transforms is not None and _is_own(beside, transforms.stem)):
        return _SURE
    read_on = bool(command.output_name) and last_name(command.output_name) in inputs
    named = read_on or any(_is_own(beside, name) for name in _other_names(command))
    return _NAMED if named and not _of_another(beside, command) else _NOT


def _tilt_rank(beside: Beside, path: Path, newst: Path | None) -> int:
    """How surely tilt.com is of this series: by its input, or as newst.com of its axis is; else by its other files."""
    command = _tilt(beside, path)
    if command is not None and command.input_name and _is_own(beside, command.input_name):
        return _SURE
    made = None if newst is None else _newst(beside, newst)
    if command is None or not command.input_name:
        # newsta.com goes with tilta.com
        if newst and path.stem.lower().removeprefix("tilt") == newst.stem.lower().removeprefix("newst"):
            return _SURE
    elif made is not None and made.output_name and last_name(made.output_name) == last_name(command.input_name):
        return _SURE
    if command is None or not any(_is_own(beside, name) for name in _other_names(command)):
        return _NOT
    return _NOT if _of_another(beside, command) else _NAMED


def _other_names(command: NewstCommand | TiltCommand) -> Iterator[str]:
    """The files beside its input that a command file names, without folders."""
    if isinstance(command, NewstCommand):
        if command.output_name:
            yield last_name(command.output_name)
        files = [command.transforms]
    else:
        files = [command.angles, command.x_tilts, command.local]
    yield from (last_name(str(path)) for path in files if path is not None)


def _of_another(beside: Beside, command: NewstCommand | TiltCommand) -> bool:
    """Whether it names a file that lies among several series and is not of this one: then nothing is guessed."""
    names = [last_name(command.input_name), *_other_names(command)]
    there = (name for name in names if name and is_file(beside.tilts.with_name(name)))
    return not beside.alone and not all(_is_own(beside, name) for name in there)


def _is_own(beside: Beside, name: str) -> bool:
    """Whether a file is of the series of a stack, as its name says; capitals tell series apart where there are others.

    Endings of transforms and of angles are none of stacks: they are taken off first.
    """
    last, stack = last_name(name), beside.tilts.name
    if PurePath(last).suffix.lower() in _OF_IMAGES:
        last = PurePath(last).stem
    return of_series(last, stack) or (beside.alone and of_series(last.lower(), stack.lower()))


def last_name(name: str) -> str:
    """The name of a file without its folder, as any system writes it."""
    return PurePath(name.replace("\\", "/")).name


def of_series(input_name: str, file_name: str) -> bool:
    """Whether what a command file takes in is the stack of a file's name, or was made of it on the way to a volume.

    The volume of a stack whose gold was erased, or that was filtered, lies as that of the stack itself.
    """
    name = Path(input_name)
    before = ON_THE_WAY.sub(r"\g<aligned>", name.stem) + name.suffix
    return any(same_series(one, file_name) for one in (name.name, before))


def same_series(one: str, other: str) -> bool:
    """Whether two names are of one series, once what programs add to a name is taken off."""
    return without_ending(one) in possible_names(other) or without_ending(other) in possible_names(one)
