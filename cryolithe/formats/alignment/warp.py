"""Warp's tilt-series metadata: the .xml with what was refined, or the .tomostar that a series starts from.

Warp sees a point at ``Rz(AxisAngle) (x cos a - z sin a, y)`` plus an offset in Å, a being the angle that it stores: the
negative of the stage's unless the series was imported with ``--dont_invert`` (``GetPositionInAllTilts`` in its source).
So our angle is -a, A = Rz(-AxisAngle) and d = -A offset. Before that it turns the specimen about x by LevelAngleX, and
LevelAngleY is added to a (``ts_autolevel``). Its grids: `cryolithe.formats.alignment.bends_warp`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from cryolithe.alignment import Alignment, ImageAlignment, largest_bend_px, rotation
from cryolithe.errors import FileFormatError, GeometryError, InputError
from cryolithe.formats.alignment.alignment_format import AlignmentFile, AlignmentFormat, Beside, Named, Stack
from cryolithe.formats.alignment.bends_warp import NO_GRIDS, Grids, WarpBend, movement_of, read_grids, warping_of
from cryolithe.formats.alignment.image_order import ImageOrder, angles_given, angles_known, image_order, opposite_signs
from cryolithe.formats.angle_signs import turns_back
from cryolithe.formats.facts import Fact, alignment_facts, local_fact
from cryolithe.formats.files import PathLike, finite_numbers, printable, read_small
from cryolithe.formats.image_rows import FileRows
from cryolithe.formats.reading import Reading
from cryolithe.formats.star_tables import read_star

LIMIT_BYTES = 100_000_000
# Stacks have even sizes, also when binned.
SAME_SIZE = 0.03
LEAST_CHANGE = 1e-4
_NO_MAGNIFICATION = {3: (1, 1), 4: (1, 0, 0, 1)}  # by how many numbers the file has


def read_warp(
    path: PathLike,
    sections: int | None,
    pixel_size_angstrom: float | None,
    order: ImageOrder | None = None,
    reading: Reading | None = None,
    image_shape: tuple[int, int] | None = None,
) -> Alignment:
    """Read the metadata of one series.

    The stack holds all images, or those alone that are used (UseTilt), as WarpTools' ts_stack writes it.

    Args:
        path: .xml or .tomostar file.
        sections: images of the stack; None for all of the file.
        pixel_size_angstrom: of the stack; offsets are in Å.
        order: what is known of the order of the stack's images, or None.
        reading: through which the file is read, where others ask for it too.
        image_shape: pixels ``(y, x)`` of an image of the stack, for local movements where the file does not tell its
            images' extent.

    Raises:
        InputError: if the images do not fit the stack or are in another order, or the pixel size is not known.
        FileFormatError: if it is no such file, or a value is no number.
    """
    path = Path(path)
    parse = _read_tomostar if path.suffix.lower() in (".tomostar", ".star") else _read_xml
    values = (reading or Reading())(parse, path)
    angles, axes, x_offsets, y_offsets, use, notes = values.global_part
    used = [number for number in range(len(angles)) if use[number]]
    sections = len(angles) if sections is None else sections
    if sections not in (len(angles), len(used)):
        also = f" ({len(used)} are used)" if len(used) != len(angles) else ""
        raise InputError(
            f"{path} holds {len(angles)} images but the stack holds {sections}{also}; give the stack of this series "
            "(WarpTools ts_stack writes it)"
        )
    places = used if sections == len(angles) else list(range(len(used)))
    if sections != len(angles):
        notes = (*notes, f"the stack holds the {sections} used ones of the {len(angles)} images of {path.name}")
    if order is not None:
        # Which sign Warp's angles have depends on how the series was imported, and says nothing about the order.
        rows = [[sign * angles[number] for number in used] for sign in (-1, 1)]
        notes = (*notes, order.compared(path, places, rows))
    pixel = pixel_size_angstrom
    notes = (*notes, *_size_doubt(path, values.grids.image_angstrom, image_shape, pixel))
    if pixel is None and (any(x_offsets + y_offsets) or not values.grids.empty):
        raise InputError(f"{path} gives offsets in Å, but the stack does not tell its pixel size; give --pixel-size")
    images = []
    try:
        for place, number in zip(places, used, strict=True):
            matrix = rotation(-axes[number])
            (a, b), (c, d) = matrix
            x, y = x_offsets[number] / (pixel or 1.0), y_offsets[number] / (pixel or 1.0)
            angle = -(angles[number] + values.level_deg[1])
            images.append(ImageAlignment(place, angle, matrix, (-(a * x + b * y), -(c * x + d * y))))
        unused = tuple((n, -(angles[n] + values.level_deg[1])) for n in range(len(angles)) if not use[n])
        made = Alignment(
            tuple(images),
            sections,
            centre="relion",
            x_tilt_deg=values.level_deg[0],
            pixel_size_angstrom=pixel,
            notes=notes,
            left_out_deg=unused if sections == len(angles) else (),
            offset_deg=-values.level_deg[1],
            stage_sign=0,
        )
    except GeometryError as error:
        raise InputError(f"{path}: {error}") from error
    if values.grids.empty or pixel is None:
        return made
    return _with_grids(made, values.grids, (used, len(angles)), image_shape, path.name)


def _size_doubt(
    path: Path, extent_angstrom: tuple[float, ...] | None, shape: tuple[int, int] | None, pixel: float | None
) -> tuple[str, ...]:
    """A warning where the images that the file is for are of another size, in either orientation, than the stack's."""
    if extent_angstrom is None or shape is None or pixel is None:
        return ()
    told, here = sorted(extent_angstrom), sorted(n * pixel for n in shape)
    if all(abs(a - b) <= SAME_SIZE * a + 2 * pixel for a, b in zip(told, here, strict=True)):
        return ()
    width, height = extent_angstrom
    return (
        f"Warning: {path.name} is for images of {width:g} x {height:g} Å, but those of the stack are "
        f"{shape[1] * pixel:g} x {shape[0] * pixel:g} Å, at {pixel:g} Å a pixel: shifts, which are in Å, are wrong if "
        "that is not its pixel size (--pixel-size)",
    )


def _with_grids(
    made: Alignment, grids: Grids, numbers: tuple[list[int], int], image_shape: tuple[int, int] | None, name: str
) -> Alignment:
    """With the grids' bends; ``numbers`` are those of the used images in the file, and how many it holds."""
    pixel = made.pixel_size_angstrom or 1.0
    if grids.movement is not None and grids.image_angstrom is None and image_shape is None:
        return made
    extent = [n * pixel for n in (image_shape or (1, 1))[::-1]]
    used, count = numbers
    images = tuple(
        replace(
            image,
            bend=WarpBend(
                image.matrix,
                image.shift_px,
                image.angle_deg,
                warping_of(grids, number, pixel),
                movement_of(grids, number, count, extent, pixel),
                made.x_tilt_deg,
            ),
        )
        for image, number in zip(made.images, used, strict=True)
    )
    return replace(made, images=images, local=name)


_Global = tuple[list[float], list[float], list[float], list[float], list[bool], tuple[str, ...]]


@dataclass(frozen=True)
class _Values:
    """What a file says: of each image, what to tell, its grids, and LevelAngleX and LevelAngleY."""

    global_part: _Global
    grids: Grids
    level_deg: tuple[float, float] = (0.0, 0.0)


def warp_series(path: Path) -> ElementTree.Element:
    """The root of the .xml of a tilt series.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is no such file.
    """
    content = read_small(path, "the metadata of a tilt series", LIMIT_BYTES)
    try:
        _refuse_entities(content, path)
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, expat.ExpatError, ValueError, LookupError) as error:
        raise FileFormatError(f"{path} is not an XML file: {printable(str(error))[:80]}") from error
    if root.tag != "TiltSeries" or root.find("Angles") is None:
        raise FileFormatError(
            f"{path} is no tilt series of Warp: expected <TiltSeries> with <Angles>, "
            f"found <{printable(str(root.tag))[:40]}>"
        )
    return root


def _read_xml(path: Path) -> _Values:
    root = warp_series(path)
    angles = warp_numbers(path, root, "Angles", 0)
    axes, x, y = (warp_numbers(path, root, name, len(angles)) for name in ("AxisAngle", "AxisOffsetX", "AxisOffsetY"))
    words = (root.findtext("UseTilt") or "").split() or ["True"] * len(angles)
    if len(words) != len(angles) or not {word.lower() for word in words} <= {"true", "false"}:
        raise FileFormatError(f"{path}: expected True or False in <UseTilt> for each of {len(angles)} images")
    notes = (*_lacking(path, root), *_turning_note(path, root))
    try:
        grids = read_grids(root, len(angles))
    except FileFormatError as error:
        grids, notes = NO_GRIDS, (*notes, f"Warning: the local alignment in {path.name} is not applied: {error}")
    used = [word.lower() == "true" for word in words]
    return _Values((angles, axes, x, y, used, notes), grids, (_level_deg(path, root, "X"), _level_deg(path, root, "Y")))


def _lacking(path: Path, root: ElementTree.Element) -> tuple[str, ...]:
    """Notes on what an aligned series has and this file has not, and on what is in it and not done here.

    Raises:
        FileFormatError: if the tilt axis, or one direction of the shifts, is not there: 0 would be a guess.
    """
    there = {name for name in ("AxisAngle", "AxisOffsetX", "AxisOffsetY") if (root.findtext(name) or "").split()}
    if "AxisAngle" not in there or len(there) == 2:
        lacking = next(name for name in ("AxisAngle", "AxisOffsetX", "AxisOffsetY") if name not in there)
        raise FileFormatError(f"{path} has no <{lacking}>; give the .xml that Warp wrote for an aligned series")
    notes: tuple[str, ...] = () if len(there) == 3 else (f"{path.name} holds no shifts (AxisOffsetX, AxisOffsetY)",)
    word = root.get("MagnificationCorrection", "")
    values = finite_numbers(word.replace(",", " ").split()) or ()
    # A matrix; in older files scales along two axes, and the angle between these and x.
    changes = [a - b for a, b in zip(values, _NO_MAGNIFICATION.get(len(values), ()), strict=False)]
    if any(abs(change) > LEAST_CHANGE for change in changes):
        notes += (f"the MagnificationCorrection of {path.name} ({printable(word)[:60]}) is not applied",)
    return notes


def _level_deg(path: Path, root: ElementTree.Element, axis: str) -> float:
    return warp_number(path, f"LevelAngle{axis}", root.get(f"LevelAngle{axis}", "0"))


def warp_angles_deg(path: Path, root: ElementTree.Element) -> tuple[float, ...]:
    """The tilt angles of all images of a series, of the sign that we give them, as its alignment has them.

    Raises:
        FileFormatError: if there are none, or one is no finite number.
    """
    level = _level_deg(path, root, "Y")
    return tuple(-(angle + level) for angle in warp_numbers(path, root, "Angles", 0))


def warp_rows(path: Path, root: ElementTree.Element) -> FileRows:
    """All images of a series with their angles, as `warp_angles_deg` has them, and those that are used.

    Raises:
        FileFormatError: as there.
    """
    angles, words = warp_angles_deg(path, root), (root.findtext("UseTilt") or "").lower().split()
    kept = tuple(row for row, word in enumerate(words) if word == "true") if len(words) == len(angles) else ()
    return FileRows(angles, kept=kept, any_sign=True)


def _turning_note(path: Path, root: ElementTree.Element) -> tuple[str, ...]:
    """A note on grids that turn particles about their centres, in degrees; positions do not depend on them."""
    largest_deg = {
        grid.tag: max((abs(warp_number(path, grid.tag, n.get("Value") or "0")) for n in grid.iter("Node")), default=0.0)
        for grid in root
        if grid.tag.startswith("GridAngle")
    }
    grids = [name for name, angle_deg in largest_deg.items() if angle_deg]
    if not grids:
        return ()
    angle_deg = max(largest_deg.values())
    left = f"20 pixels from a particle's centre that leaves {20 * math.radians(angle_deg):.2f} pixels"
    told = f"up to {angle_deg:.3g}°, which turn particles, not the specimen"
    return (f"the local refinements in {path.name} ({', '.join(grids)}; {told}) are not applied: {left}",)


def _refuse_entities(content: bytes, path: Path) -> None:
    """Raise FileFormatError for entities, whatever the encoding: they may stand for no end of text."""

    def refuse(*declaration: object) -> None:
        raise FileFormatError(f"{path} defines XML entities, which no file of Warp does")

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.Parse(content, True)


def warp_numbers(path: Path, root: ElementTree.Element, name: str, count: int) -> list[float]:
    """The values of an element, one a line; zeros where it is not there.

    Raises:
        FileFormatError: if they are not as many numbers as there must be.
    """
    words = (root.findtext(name) or "").split()
    if not words and count:
        return [0.0] * count
    if not words or (count and len(words) != count):
        raise FileFormatError(f"{path}: expected {count or 'some'} values in <{name}>, found {len(words)}")
    return [warp_number(path, name, word) for word in words]


def warp_number(path: Path, name: str, word: str) -> float:
    """A finite number.

    Raises:
        FileFormatError: for anything else.
    """
    values = finite_numbers((word,))
    if values is None:
        raise FileFormatError(f"{path}: expected numbers for {name}, found '{printable(word)[:40]}'")
    return values[0]


def _read_tomostar(path: Path) -> _Values:
    table = next((found for found in read_star(path) if "wrpAngleTilt" in found and len(found)), None)
    if table is None:
        raise FileFormatError(f"{path} has no column wrpAngleTilt; give a .tomostar file of Warp")
    angles = table.numbers("wrpAngleTilt").tolist()
    axes, x, y = (
        table.numbers(name).tolist() if name in table else [0.0] * len(angles)
        for name in ("wrpAxisAngle", "wrpAxisOffsetX", "wrpAxisOffsetY")
    )
    notes = () if any(x + y) else (f"{path.name} holds no shifts; they are in Warp's .xml of an aligned series",)
    return _Values((angles, axes, x, y, [True] * len(angles), notes), NO_GRIDS)


def _of_stack(named: Named, stack: Stack) -> Alignment:
    order = image_order(named, stack.sections)
    pixel, shape = stack.pixel_size_angstrom, stack.image_shape
    made = read_warp(named.files["warp"], stack.sections, pixel, order, named.reading, shape)
    return replace(made, stage_sign=_stage_sign(named, made))


def _stage_sign(named: Named, made: Alignment) -> int:
    """That turns the angles into the microscope's, as an .mdoc in the order of the stack tells it; 0 where none does.

    Of a sorted stack none does: which end of it is first depends on the sign, too. Other files of angles may be Warp's.
    """
    angles_deg = [image.angle_deg for image in made.images]
    given = angles_given(named, made.sections)
    known = angles_known(named, made.sections) if named.angles is None else [(named.angles.name, given or ())]
    for name, told in known if turns_back(angles_deg) else ():
        if name.lower().endswith(".mdoc") and told:
            found = [told[image.section] for image in made.images]
            turned = opposite_signs(angles_deg, found), opposite_signs([-angle for angle in angles_deg], found)
            return turned[1] - turned[0]
    return 0


def warp_facts(path: Path) -> list[Fact]:
    """What ``cryolithe info`` says of Warp's metadata of a series; with pixels of 1 Å its shifts are in Å.

    Raises:
        FileFormatError: if it is none, or damaged.
    """
    grids = NO_GRIDS if path.suffix.lower() in (".tomostar", ".star") else _read_xml(path).grids
    extent = grids.image_angstrom or (grids.volume_angstrom or ())[:2]
    shape = (round(extent[1]), round(extent[0])) if extent else None
    alignment = read_warp(path, None, 1.0, image_shape=shape)
    bent = sum(image.bend is not None for image in alignment.images)
    kinds = ((grids.movement, "GridMovement"), (grids.warping, "GridVolumeWarp"))
    names = " and ".join(name for grid, name in kinds if grid is not None)
    depth = grids.volume_angstrom[2] if grids.volume_angstrom else 0.0
    largest = largest_bend_px(alignment, shape, depth) if bent and shape else None
    local = local_fact(len(alignment.images) if names else 0, largest, names, "Å")
    return alignment_facts(f"tilt series of Warp ({path.suffix.lower()})", alignment, local=local)


def _beside(beside: Beside) -> dict[str, Path]:
    """The .xml, which has all that the .tomostar of the same series lacks, else that."""
    found = beside.files.get("warp", ())
    return {"warp": found[0]} if found and not beside.aligned else {}


WARP = AlignmentFormat(
    "Warp",
    (
        AlignmentFile(
            "warp",
            "Warp: .xml (or .tomostar) of the series whose stack this is.",
            frozenset({"angles", "axis", "shifts"}),
            beside=("{}.xml", "{}.tomostar"),
            columns="tilts,warp",
        ),
    ),
    _of_stack,
    describe=dict.fromkeys((".tomostar", ".xml"), warp_facts),
    centre="relion",
    pair=_beside,
    any_sign=True,
)
