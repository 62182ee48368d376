"""Which files of IMOD beside a stack are its own: etomo calls the command files of every series alike."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.formats.alignment.alignment_format import Beside
from cryolithe.formats.alignment.imod import NewstCommand, TiltCommand, read_newst_com, read_tilt_com
from cryolithe.formats.series_names import possible_names, without_ending

# What etomo makes of an aligned stack on the way to a volume: ts_filt.ali of ts.ali, today ts_filt_ali.mrc of
# ts_ali.mrc.
ON_THE_WAY = re.compile(r"_(erased?|filt|ctfcorr|3dfind)(?P<aligned>_ali)?$", re.IGNORECASE)
# As numbers that flags replace, such as a THICKNESS of 0, cannot stand against a file's being of a series.
_REPLACED = frozenset({"THICKNESS"})


def project_beside(beside: Beside) -> dict[str, Path]:
    """The files of a project for a stack: newst.com and tilt.com, or the .xf where there is no newst.com.

    An aligned stack needs tilt.com alone, and only one that says to be of this stack.

    Raises:
        InputError: if it is not clear which files they are.
    """
    newst = _one(
        beside, "newst_com", [path for path in beside.files.get("newst_com", ()) if _is_of_newst(beside, path)]
    )
    command = None if newst is None else _newst(beside, newst)
    tilts = [path for path in beside.files.get("tilt_com", ()) if _is_of_tilt(beside, path, newst)]
    tilt = _one(beside, "tilt_com", tilts)
    commands = {} if tilt is None else {"tilt_com": tilt}
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


def _one(beside: Beside, option: str, own: list[Path]) -> Path | None:
    """The only one of a stack's command files of a kind, or None; InputError where there are several."""
    return replace(beside, files={option: own}).only(option)


def _is_of_newst(beside: Beside, path: Path) -> bool:
    """Whether a newst.com is for this stack; one that cannot be read is, where the folder has no other series.

    It is then refused when the series is looked at.
    """
    command = _newst(beside, path)
    return _of_newst(beside, command) if command else beside.alone


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


def _of_newst(beside: Beside, command: NewstCommand) -> bool:
    """Whether newst.com is for this stack: by its input, else by the name of its transforms, else there is no other."""
    if command.input_name:
        return same_series(command.input_name, beside.tilts.name)
    if command.transforms is not None and same_series(command.transforms.stem, beside.tilts.name):
        return True
    return beside.alone


def _is_of_tilt(beside: Beside, path: Path, newst: Path | None) -> bool:
    """Whether tilt.com is for this series: by its input, else newst.com of its axis is; alone it must say so."""
    command = _tilt(beside, path)
    if command is not None and command.input_name:
        return of_series(command.input_name, beside.tilts.name)
    if newst is not None:  # newsta.com goes with tilta.com
        return path.stem.lower().removeprefix("tilt") == newst.stem.lower().removeprefix("newst")
    # Transforms without newst.com: tilt.com is of this series if its angles have the series' name.
    angles = None if command is None else command.angles
    return bool(beside.files.get("xf")) and angles is not None and same_series(angles.stem, beside.tilts.name)


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
