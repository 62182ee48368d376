"""The alignment that the files of an IMOD project describe: transforms, newst.com and tilt.com, as far as given."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePath
from typing import Any, TypeVar

from cryolithe.alignment import Alignment, ImageAlignment
from cryolithe.errors import FileFormatError, InputError, SettingsError
from cryolithe.files.names import is_file
from cryolithe.formats.alignment.alignment_format import AlignmentFile, AlignmentFormat, Named, Stack, Told
from cryolithe.formats.alignment.bends_imod import LocalBend, check_field, local_facts, read_local
from cryolithe.formats.alignment.bends_told import imod_local_fact
from cryolithe.formats.alignment.imod import (
    LIMIT_BYTES,
    NewstCommand,
    TiltCommand,
    read_newst_com,
    read_tilt_com,
    read_x_tilt_deg,
    read_xf,
)
from cryolithe.formats.alignment.imod_angles import OF_TILT_COMMAND, angle_notes, angles_of_project
from cryolithe.formats.alignment.imod_beside import gives_way, last_name, of_series, passed_over, project_beside
from cryolithe.formats.alignment.imod_field import in_the_middle, part_notes, same_field, shape_by_tilt, turned
from cryolithe.formats.alignment.imod_stacks import check_stack
from cryolithe.formats.facts import Fact
from cryolithe.formats.files import printable, read_text
from cryolithe.formats.reading import Reading
from cryolithe.formats.series_names import tells_series

_Command = TypeVar("_Command", bound=NewstCommand | TiltCommand)


@dataclass(frozen=True)
class ImodProject:
    """What the command files say where nothing else was given.

    Attributes:
        angles: the angle file, or None.
        newst: newst.com, or None.
        tilt: tilt.com, or None.
        transforms: the .xf file, or None.
    """

    angles: Path | None
    newst: NewstCommand | None
    tilt: TiltCommand | None
    transforms: Path | None


def read_project(named: Named) -> ImodProject:
    """Read the command files; what is given otherwise is not even looked at in them.

    Raises:
        InputError: if a file is not usable.
    """
    files, angles = named.files, named.angles
    newst = tilt = None
    if "newst_com" in files:
        replaced = _replaced({"TransformFile": files.get("xf"), "BinByFactor": named.bin})
        newst = _with_files_there(named.reading(read_newst_com, files["newst_com"], replaced), files["newst_com"])
    if "tilt_com" in files:
        replaced = _replaced({"THICKNESS": named.thickness, "TILTFILE": angles, "ANGLES": angles})
        tilt = _with_files_there(named.reading(read_tilt_com, files["tilt_com"], replaced), files["tilt_com"])
    transforms = files.get("xf") or (newst.transforms if newst else None)
    return ImodProject(angles or (tilt.angles if tilt else None), newst, tilt, transforms)


def _with_files_there(command: _Command, path: Path) -> _Command:
    """With files that are not where a command file has them taken by name from its own folder: projects are moved."""
    moved: dict[str, Path] = {}
    for name in ("transforms", "angles", "x_tilts", "local"):
        told = getattr(command, name, None)
        here = None if told is None else path.parent / PurePath(str(told).replace("\\", "/")).name
        if told is not None and here is not None and not is_file(told) and is_file(here):
            moved[name] = here
    notes = tuple(
        f"{path.name}: {printable(str(getattr(command, name)))[:200]} is not there; {here.name} beside it is taken"
        for name, here in moved.items()
    )
    values: dict[str, Any] = {**moved, "notes": (*command.notes, *notes)}
    return replace(command, **values) if moved else command


def _replaced(given: Mapping[str, object]) -> frozenset[str]:
    return frozenset(key for key, value in given.items() if value is not None)


def _named_in_commands(named: Named) -> dict[str, Path]:
    """Files that the command files name, by entry."""
    project = read_project(named)
    files = {}
    if "xf" not in named.files and project.transforms is not None:
        files["newst_com TransformFile"] = project.transforms
    if project.tilt is not None:
        if named.angles is None and project.angles is not None:
            files["tilt_com TILTFILE"] = project.angles
        if project.tilt.x_tilts is not None:
            files["tilt_com XTILTFILE"] = project.tilt.x_tilts
        local = project.tilt.local
        if local is not None and is_file(local) and _is_local(local, named.reading):
            files["tilt_com LOCALFILE"] = local
    return files


def _of_stack(named: Named, stack: Stack) -> Alignment:
    project = read_project(named)
    sections, newst = stack.sections, project.newst
    warned = check_stack(named, stack, project.transforms, newst)
    taken = tuple(range(sections)) if newst is None else newst.sections(sections)
    values, others = angles_of_project(project.tilt, project.angles, named, sections, taken)
    images = tuple(ImageAlignment(section, angle) for section, angle in zip(taken, values, strict=True))
    if project.transforms is not None:
        read = named.reading(read_xf, project.transforms)
        if len(read) != sections:
            raise InputError(
                f"{named.tilts} holds {sections} images but {project.transforms} is for {len(read)}; give the stack "
                "that was aligned"
            )
        lines = [read[image.section] for image in images]
        images = tuple(
            replace(image, matrix=matrix, shift_px=shift) for image, (matrix, shift) in zip(images, lines, strict=True)
        )
    made = Alignment(images, sections, left_out_deg=others, stacked=taken if len(taken) < sections else ())
    if newst is not None:
        made = replace(made, bin=newst.bin, aligned_shape=newst.aligned_shape(stack.image_shape), notes=newst.notes)
    if project.tilt is not None:
        made = _with_tilt_command(made, project.tilt, project, named, stack)
    told = _angles_of_tilt_command(named, sections, taken)
    of_angles = () if told is None else angle_notes(named, values, *told)
    made = replace(
        made,
        notes=(
            *warned,
            *_other_stack(project, named),
            *of_angles,
            *turned(made, newst, stack.image_shape),
            *made.notes,
        ),
    )
    return replace(made, images=tuple(sorted(made.images, key=lambda image: image.section)))


def _angles_of_tilt_command(
    named: Named, sections: int, taken: tuple[int, ...]
) -> tuple[str, tuple[float, ...]] | None:
    """What tilt.com tells itself where ANGLES replaces it, and its name; None where it tells nothing that is usable."""
    if named.angles is None or "tilt_com" not in named.files:
        return None
    itself = replace(named, angles=None)
    try:
        project = read_project(itself)
        values, _ = angles_of_project(project.tilt, project.angles, itself, sections, taken)
    except (InputError, SettingsError):  # nobody needs it
        return None
    return (project.angles.name if project.angles else OF_TILT_COMMAND), values


def _other_stack(project: ImodProject, named: Named) -> Iterator[str]:
    """A note on each command file whose input is called like the stack of another series."""
    name, made = named.tilts.name, project.newst.output_name if project.newst else ""
    for option, command in (("newst_com", project.newst), ("tilt_com", project.tilt)):
        told = command.input_name if command else ""
        if option == "tilt_com" and made and last_name(made) == last_name(told):  # whatever it is called
            continue
        if told and tells_series(told) and tells_series(name) and not of_series(told, name):
            yield f"{named.files[option].name} is of {printable(told)[:100]}; {name} is taken for it"


def _is_local(path: Path, reading: Reading) -> bool:
    """Whether a LOCALFILE holds local alignments; AreTomo writes its global transforms under this key, too."""
    try:
        reading(read_xf, path)
    except InputError:
        return True
    return False


def _with_tilt_command(
    made: Alignment, tilt: TiltCommand, project: ImodProject, named: Named, stack: Stack
) -> Alignment:
    """Add what tilt.com says; its lengths are pixels of the unbinned images, its views those of the aligned stack."""
    source, (height, width) = named.files["tilt_com"], stack.image_shape
    newst, from_raw = project.newst, project.newst is not None or project.transforms is not None
    # Unbinned pixels along the edge of a pixel of the stack.
    unit = tilt.image_binned / (newst.bin if newst else tilt.image_binned) if from_raw else tilt.image_binned
    if tilt.full_image_px is not None:
        if from_raw:
            same_field(source, tilt.full_image_px, (stack.image_shape, made.aligned_shape), unit)
            told, across = shape_by_tilt(tilt, stack.image_shape, unit), stack.image_shape[::-1]
            if newst is not None and newst.size_px is None and told == across:
                # AreTomo gives the turned field by tilt.com alone.
                made = replace(made, aligned_shape=newst.aligned_shape(across))
            made = replace(made, aligned_shape=made.aligned_shape or told)
        shape = made.aligned_shape if from_raw else (height, width)
        covered = (shape[1] * unit, shape[0] * unit) if shape else tilt.full_image_px
        in_the_middle(source, tilt, covered, (width, height))
    views = set(range(1, len(made.images) + 1))
    wrong = sorted((tilt.excluded | (tilt.included or frozenset())) - views)
    if wrong:
        which = "stack" if len(made.images) == stack.sections else "aligned stack"
        raise InputError(f"{source} lists view {wrong[0]}, but the {which} holds {len(views)} images")
    kept = views - tilt.excluded if tilt.included is None else set(tilt.included)
    images = {
        view: replace(image, angle_deg=image.angle_deg + tilt.angle_offset_deg)
        for view, image in enumerate(made.images, start=1)
        if view in kept
    }
    left_out = [*made.left_out_deg]
    left_out += [(i.section, i.angle_deg) for view, i in enumerate(made.images, start=1) if view not in kept]
    x_tilt = tilt.x_axis_tilt_deg
    if tilt.x_tilts is not None:
        x_tilt -= named.reading(read_x_tilt_deg, tilt.x_tilts)
    binning = made.bin
    if binning is None and from_raw and named.bin is None:
        if tilt.image_binned != int(tilt.image_binned):
            raise InputError(
                f"{source}: expected a whole IMAGEBINNED, found {tilt.image_binned:g}; give --newst-com too"
            )
        binning = int(tilt.image_binned)
    shape = made.aligned_shape or (None if from_raw else (height, width))
    notes = (*made.notes, *tilt.notes, *part_notes(tilt, shape, unit))
    local = ""
    if tilt.local is not None and _is_local(tilt.local, named.reading):
        full = tilt.full_image_px
        frame = _Frame(unit, (full[0] / unit, full[1] / unit) if full else (shape or (height, width))[::-1], -x_tilt)
        try:
            images = _bent(images, len(views), tilt, frame, (named.reading, stack.pixel_size_angstrom))
            local = tilt.local.name
        except InputError as error:
            notes += (f"Warning: LOCALFILE: the local alignments in {tilt.local.name} are not applied: {error}",)
    return replace(
        made,
        images=tuple(images.values()),
        local=local,
        bin=binning,
        thickness_px=None if tilt.thickness_px is None else tilt.thickness_px / unit,
        shift_px=(-tilt.shift_px[0] / unit, tilt.shift_px[1] / unit),
        x_tilt_deg=-x_tilt,
        notes=notes,
        left_out_deg=tuple((section, angle + tilt.angle_offset_deg) for section, angle in left_out),
        offset_deg=tilt.angle_offset_deg,
    )


@dataclass(frozen=True)
class _Frame:
    """Where local areas are counted: unbinned pixels in one of the stack, full size of the aligned images, X-axis tilt.

    The size is ``(x, y)`` in pixels of the stack.
    """

    unit: float
    size_px: tuple[float, float]
    x_tilt_deg: float


def _bent(
    images: Mapping[int, ImageAlignment],
    views: int,
    tilt: TiltCommand,
    frame: _Frame,
    known: tuple[Reading, float | None],
) -> dict[int, ImageAlignment]:
    """Images, by view from 1, with the local alignments of tilt.com; ``known`` has the stack's pixel size as well."""
    assert tilt.local is not None
    reading, pixel = known
    areas = reading(read_local, tilt.local, views)
    told = areas.pixel_size_angstrom
    if tilt.local_scale is None and told and pixel:
        areas = areas.scaled(told / pixel)
    else:  # lengths are those of the aligned stack, but for LOCALSCALE
        areas = areas.scaled((tilt.local_scale or 1.0) * tilt.image_binned / frame.unit)
    check_field(areas, frame.size_px)
    middle = frame.size_px[0] / 2 + 0.5, frame.size_px[1] / 2 + 0.5
    return {
        view: replace(image, bend=LocalBend(areas, view - 1, image.angle_deg, frame.x_tilt_deg, middle))
        for view, image in images.items()
    }


def _xf_facts(path: Path) -> list[Fact]:
    """IMOD's transforms, or its local alignments, which have the same ending."""
    try:
        transforms = read_xf(path)
    except FileFormatError:
        with suppress(FileFormatError):
            return local_facts(path)
        raise
    turns = [math.degrees(math.atan2(matrix[1][0], matrix[0][0])) for matrix, _ in transforms]
    largest = max(math.hypot(*shift) for _, shift in transforms)
    return [
        Fact("kind", "transforms of IMOD (.xf)"),
        Fact("images", len(transforms)),
        Fact("rotation_deg", [min(turns), max(turns)], f"{min(turns):.2f}° to {max(turns):.2f}°"),
        Fact("largest_shift_px", largest, f"{largest:.2f} pixels"),
    ]


def _command_facts(path: Path) -> list[Fact]:
    """A command file of IMOD: newst.com or tilt.com."""
    text = read_text(path, "a command file of IMOD", LIMIT_BYTES)
    if re.search(r"^\s*\$\s*tilt\b", text, re.MULTILINE):
        command = read_tilt_com(path)
        return [Fact("kind", "commands of IMOD's tilt"), *_field_facts(command), imod_local_fact(command)]
    if re.search(r"^\s*\$\s*newst(ack)?\b", text, re.MULTILINE):
        return [Fact("kind", "commands of IMOD's newstack"), *_field_facts(read_newst_com(path))]
    raise FileFormatError(
        f"{path} is no command file that is known here: expected one that runs IMOD's tilt or newstack"
    )


def _field_facts(command: Any) -> list[Fact]:
    """The values of what was read, those that say nothing left out."""
    found = []
    for field in fields(command):
        value = getattr(command, field.name)
        if isinstance(value, frozenset | set):
            value = sorted(value)
        if value is None or value in ("", [], (), 0.0):
            continue
        plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        known = plain if isinstance(plain, str | int | float | bool | list | dict) else str(plain)
        found.append(Fact(field.name, known))
    return found


_RAW: frozenset[Told] = frozenset({"axis", "shifts"})
IMOD = AlignmentFormat(
    "IMOD",
    (
        AlignmentFile(
            "xf",
            "IMOD: transforms of a raw stack.",
            _RAW,
            beside=("{}.xf", "{}_st.xf"),
            columns="tilts,angles,xf",
        ),
        AlignmentFile(
            "newst_com",
            "IMOD: transforms, binning and size of the aligned stack.",
            _RAW,
            beside=("newst.com", "newsta.com", "newstb.com"),
            columns="tilts,newst_com,tilt_com",
        ),
        AlignmentFile(
            "tilt_com",
            "IMOD: angles and their offset, excluded views, shift, thickness, X-axis tilt.",
            frozenset({"angles"}),
            beside=("tilt.com", "tilta.com", "tiltb.com"),  # also of aligned stacks
        ),
    ),
    _of_stack,
    _named_in_commands,
    describe={".xf": _xf_facts, ".com": _command_facts},
    pair=project_beside,
    passed_over=passed_over,
    gives_way=gives_way,
    takes_angles=True,
)
