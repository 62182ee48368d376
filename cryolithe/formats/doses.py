"""What files say about the exposure of a specimen before each image, e/Å²: .mdoc, RELION's and Warp's tables.

SerialEM writes PriorRecordDose, or else the dose of each image (ExposureDose) and its time; RELION has
rlnMicrographPreExposure; Warp has Dose in its .xml and wrpDose in .tomostar files, which may count half or all of the
image's own exposure. Which image a dose is of is told by the tilt angle: files list their images in different orders,
and stacks lack some of them. A file that does not tell doses is no error. Where one tells what cannot be read, that is
said; whoever needs it refuses the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.alignment_relion import NOMINAL, TILT, find_series_table
from cryolithe.formats.alignment_warp import warp_angles_deg, warp_series
from cryolithe.formats.cells import UnreadableCellError, told_number, told_numbers
from cryolithe.formats.files import PathLike, printable
from cryolithe.formats.image_rows import NOTHING_ELSE, Others
from cryolithe.formats.mdoc_text import MdocText, read_mdoc_text
from cryolithe.formats.reading import Reading
from cryolithe.formats.stack_state import mdocs_beside
from cryolithe.formats.star_tables import StarTable, read_star

LIMIT_BYTES = 100_000_000
# Refined angles are this near to nominal ones, once the series is shifted by one offset, of at most so much.
NEAR_DEG, MOST_OFFSET_DEG = 1.0, 30.0
# Angles that are shifted by no more, on average, than programs round them, are not shifted by steps and a bit.
EXACT_DEG = 0.2
_BEFORE, _DEFOCUS = "rlnMicrographPreExposure", ("rlnDefocusU", "rlnDefocusV")
# SerialEM's by version, then those of other programs.
_DATES = ("%d-%b-%Y", "%d-%b-%y", "%Y-%b-%d", "%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y")
_TIMES = tuple(f"{date} {time}" for date in _DATES for time in ("%H:%M:%S", "%I:%M:%S %p"))
_DATE_AND_TIME = re.compile(r"(?<=\d)T(?=\d)")
# Two images are never of one second, and all of a series are of one time zone.
_NOT_NEEDED = re.compile(r"(?<=:\d\d)([.,]\d+)?\s*(Z|[+-]\d\d:?\d\d)?(?=$|\s)")
_ANGSTROM_PER_UM = 1e4
# Tilt series have up to 200 e/Å², test series of damage some hundred.
MOST_DOSE = 2000.0


@dataclass(frozen=True)
class Exposures:
    """What a file says.

    Attributes:
        angles_deg: of its images.
        doses: before each image, e/Å²; empty where the file does not tell them.
        defocus_um: mean defocus, positive when underfocused, or None.
        dose_problem: why doses that it tells cannot be read, in a line; else empty.
        defocus_problem: likewise.
    """

    angles_deg: tuple[float, ...] = ()
    doses: tuple[float, ...] = ()
    defocus_um: float | None = None
    dose_problem: str = ""
    defocus_problem: str = ""

    @property
    def problems(self) -> dict[str, str]:
        """Of "dose" and "defocus", those that there are."""
        both = {"dose": self.dose_problem, "defocus": self.defocus_problem}
        return {fact: why for fact, why in both.items() if why}

    def of_images(self, angles_deg: Sequence[float], others: Others = NOTHING_ELSE) -> tuple[float, ...] | None:
        """The doses of images with these angles; None if they are not told, or it is not clear which are theirs."""
        enough = len(self.doses) >= len(angles_deg)
        numbers = same_images(angles_deg, self.angles_deg, others) if enough else None
        return None if numbers is None else tuple(self.doses[number] for number in numbers)


def same_images(
    angles_deg: Sequence[float], told_deg: Sequence[float], others: Others = NOTHING_ELSE
) -> list[int] | None:
    """For each angle the number of the image in a file whose angles are given; None if it is not clear which it is.

    Angles of an alignment are near to those of a file, once all are shifted by one offset (a pre-tilt). Where the file
    has as many images, any offset will do, and refined angles may differ by up to half a step. Where it has more,
    angles that are shifted by whole steps would be those of other images: the offset must be the one that is told, or
    none, or that of a file with the images of the stack in its order or by angle, or no other may fit.

    Args:
        angles_deg: of the images that are used.
        told_deg: of the file's images.
        others: what else is known of the series.
    """
    if not angles_deg:
        return None
    left_out = others.left_out_deg
    if left_out and len(told_deg) == len(angles_deg) + len(left_out):
        whole = same_images([*angles_deg, *left_out], told_deg, Others((), others.offset_deg))
        if whole is not None:
            return whole[: len(angles_deg)]
    offsets = {0.0, others.offset_deg, *(angles_deg[0] - angle for angle in told_deg)}
    moved = {
        offset: [angle - offset for angle in angles_deg]
        for offset in sorted(offsets, key=abs)
        if abs(offset) <= MOST_OFFSET_DEG
    }
    found = {offset: numbers for offset, angles in moved.items() if (numbers := _matched(angles, told_deg)) is not None}
    if len(told_deg) == len(angles_deg):
        return next(iter(found.values()), None) or _in_order(angles_deg, told_deg)
    off = {
        offset: abs(sum(moved[offset]) - sum(told_deg[number] for number in found[offset])) / len(angles_deg)
        for offset in (others.offset_deg, 0.0)
        if offset in found
    }
    # Of equals the first one, the offset that is told: microscopes' files do not have it.
    told = min(off, key=lambda offset: round(off[offset], 2), default=None)
    if told is not None and off[told] <= EXACT_DEG:
        return found[told]
    ways = {tuple(numbers) for numbers in found.values()}
    of_stack = ways & _by_place(angles_deg, told_deg, others)
    if of_stack or told is not None:
        ways = of_stack or ways
        return list(ways.pop()) if len(ways) == 1 else None
    return None


def _by_place(angles_deg: Sequence[float], told_deg: Sequence[float], others: Others) -> set[tuple[int, ...]]:
    """The images of a file with those of the stack, in its order or, where the stack is sorted by angle, by that."""
    if len(told_deg) != others.sections:
        return set()
    rising = sorted(range(len(told_deg)), key=told_deg.__getitem__)
    orders = [list(range(len(told_deg)))]
    orders += [order for order, sign in ((rising, 1), (rising[::-1], -1)) if _rises(angles_deg, sign)]
    return {tuple(order[number] for number in others.used) for order in orders}


def _rises(angles_deg: Sequence[float], sign: int) -> bool:
    return all(sign * (b - a) > 0 for a, b in pairwise(angles_deg))


def _in_order(angles_deg: Sequence[float], told_deg: Sequence[float]) -> list[int] | None:
    """As many angles in the same order, which differ by less than half a step once they are shifted; else None."""
    wanted, told = (sorted(range(len(values)), key=values.__getitem__) for values in (angles_deg, told_deg))
    steps = [told_deg[b] - told_deg[a] for a, b in pairwise(told)]
    apart = [angles_deg[a] - told_deg[b] for a, b in zip(wanted, told, strict=True)]
    offset = sorted(apart)[len(apart) // 2]
    if abs(offset) > MOST_OFFSET_DEG or max(abs(one - offset) for one in apart) >= min(steps, default=0.0) / 2:
        return None
    of_place = dict(zip(wanted, told, strict=True))
    return [of_place[place] for place in range(len(wanted))]


def read_exposures(path: PathLike, tilts_name: str, reading: Reading | None = None) -> Exposures:
    """Read what a file says about exposures.

    Args:
        path: .mdoc; .star of RELION-5; .xml or .tomostar of Warp.
        tilts_name: name of the stack, which tells the series in a table of several.
        reading: what is parsed already, if anything is.

    Raises:
        InputError: if the file cannot be read, or is none of these.
    """
    path = Path(path)
    ending, reading = path.suffix.lower(), reading or Reading()
    if ending == ".mdoc":
        return _of_mdoc(path, reading(read_mdoc_text, path))
    if ending == ".star":
        return _of_relion(find_series_table(path, tilts_name, reading), tilts_name, reading)
    if ending == ".xml":
        return _of_warp(path)
    if ending == ".tomostar":
        table = next((found for found in read_star(path, LIMIT_BYTES) if "wrpAngleTilt" in found), None)
        return Exposures() if table is None else _of_table(table, "wrpAngleTilt", "wrpDose", -1.0)
    raise FileFormatError(
        f"{path} tells no doses that are understood; expected an .mdoc, RELION's .star, or Warp's .xml or .tomostar"
    )


def doses_beside(tilts: Path, named: Iterable[Path | None], reading: Reading) -> Path | None:
    """The .mdoc beside a stack that tells doses, readable or not; None where a file that is named for it does."""
    if any(exposures_in_passing(path, tilts.name, reading).doses for path in named if path is not None):
        return None
    beside = ((path, exposures_in_passing(path, tilts.name, reading)) for path in mdocs_beside(tilts))
    return next((path for path, told in beside if told.doses or told.dose_problem), None)


def tells_doses(tilts: Path, named: Sequence[Path | None], reading: Reading) -> bool:
    """Whether a file that is named, or an .mdoc beside a stack, tells doses, readable or not."""
    told = (exposures_in_passing(path, tilts.name, reading) for path in named if path is not None)
    return any(one.doses or one.dose_problem for one in told) or doses_beside(tilts, named, reading) is not None


def exposures_in_passing(path: Path, tilts_name: str, reading: Reading) -> Exposures:
    """What a file tells that was not asked about doses: nothing, where it is of another kind."""
    try:
        return read_exposures(path, tilts_name, reading)
    except InputError:
        return Exposures()


def _of_mdoc(path: Path, made: MdocText) -> Exposures:
    angles = tuple(angle for angle in made.angles_deg if angle is not None)
    if len(angles) != len(made.places):
        return Exposures()
    before, problem = _of_key(path, made, "PriorRecordDose")
    same = len(before) > 1 and len(set(before)) == 1
    if problem or (len(before) == len(angles) and not same):
        return Exposures(angles, before, dose_problem=problem)
    own, problem = _of_key(path, made, "ExposureDose")
    texts = [facts.get("datetime", "") for facts in made.facts]
    doses, moments = [dose for dose in own if dose], _moments(texts)
    if not angles or len(doses) != len(angles) or len(set(moments)) != len(angles):
        why = f"{path}: PriorRecordDose is {before[0]:g} for every image, which is no dose before it" if same else ""
        return Exposures(angles, dose_problem=problem or why or _why_no_sums(path, own, texts, moments))
    total, sums = 0.0, [0.0] * len(angles)
    for number in sorted(range(len(angles)), key=moments.__getitem__):
        sums[number], total = total, total + doses[number]
    too_much = _too_much(path, "the sum of ExposureDose", max(sums))
    return Exposures(angles, () if too_much else tuple(sums), dose_problem=too_much)


def _why_no_sums(path: Path, own: Sequence[float], texts: Sequence[str], moments: Sequence[datetime]) -> str:
    """Why the doses of the images cannot be summed up; empty where none are told."""
    if not own:
        return ""
    if not all(own):
        number = own.index(0.0) + 1
        return f"{path}: ExposureDose is 0 for image {number}, but not for all; give it its dose, or PriorRecordDose"
    count, missing = len(texts), sum(not text for text in texts)
    unread = [text for text in texts if text and not _moments([text])]
    if missing:
        what = f"{missing} of them have no DateTime"
    elif unread:
        what = f"expected a DateTime such as 28-Nov-2026 14:05:09, found '{printable(unread[0])[:40]}'"
    elif len(moments) < count:
        what = "their DateTime are written in several ways"
    else:
        what = "some of them have the same DateTime"
    return f"{path} tells the dose of each of {count} images (ExposureDose), but not their order: {what}"


def _of_key(path: Path, made: MdocText, name: str) -> tuple[tuple[float, ...], str]:
    """As `_read`; nothing where an image lacks the key."""
    texts = [facts.get(name.lower(), "") for facts in made.facts]
    return _read(path, name, texts) if all(texts) else ((), "")


def _of_relion(path: Path, tilts_name: str, reading: Reading) -> Exposures:
    tables = [table for table in reading(read_star, path) if len(table) and (TILT in table or NOMINAL in table)]
    if len(tables) != 1:  # of several series in one file, names tell; doses are then better given by themselves
        tables = [table for table in tables if table.block and table.block in tilts_name]
    if len(tables) != 1:
        return Exposures()
    made = _of_table(tables[0], TILT if TILT in tables[0] else NOMINAL, _BEFORE, 1.0)
    try:
        defoci = [_column(tables[0], name) for name in _DEFOCUS]
    except UnreadableCellError as error:
        return replace(made, defocus_problem=str(error))
    both = [value for column in defoci for value in column]
    if not all(defoci) or not any(both):
        return made
    return replace(made, defocus_um=sum(both) / len(both) / _ANGSTROM_PER_UM)


def _of_table(table: StarTable, angle: str, dose: str, sign: float) -> Exposures:
    """Angles times a sign, and doses unless all are 0."""
    angles = tuple(sign * value for value in _column(table, angle))
    doses, problem = _read(table.path, dose, table.text(dose) if dose in table else [])
    return Exposures(angles, doses if len(doses) == len(angles) else (), dose_problem=problem)


def _of_warp(path: Path) -> Exposures:
    root = warp_series(path)  # Warp 1 writes UTF-16
    angles = warp_angles_deg(path, root)
    doses, problem = _read(path, "Dose", (root.findtext("Dose") or "").split())
    if doses and len(doses) != len(angles):
        problem = f"{path}: Dose holds {len(doses)} numbers for {len(angles)} angles; expected one for each"
    made = Exposures(angles, () if problem else doses, dose_problem=problem)
    defocus = root.find("CTF/Param[@Name='Defocus']")
    try:
        value = None if defocus is None else told_number(path, "Defocus", defocus.get("Value"))
    except UnreadableCellError as error:
        return replace(made, defocus_problem=str(error))
    return replace(made, defocus_um=value or None)


def _matched(wanted: Sequence[float], told: Sequence[float]) -> list[int] | None:
    """For each angle the number of one of the told ones, each at most once; None if one has none that is near."""
    free = dict(enumerate(told))
    numbers = []
    for angle in wanted:
        nearest = min(free, key=lambda number: abs(free[number] - angle), default=None)
        if nearest is None or abs(free.pop(nearest) - angle) > NEAR_DEG:
            return None
        numbers.append(nearest)
    return numbers


def _column(table: StarTable, name: str) -> list[float]:
    """The numbers of a column; none where it is not there or tells nothing."""
    return told_numbers(table.path, name, table.text(name)) if name in table else []


def _read(path: Path, name: str, texts: list[str]) -> tuple[tuple[float, ...], str]:
    """Doses, or none where all are 0, as tables have it that know none; and why what is told cannot be read."""
    try:
        doses = told_numbers(path, name, texts)
    except UnreadableCellError as error:
        return (), str(error)
    if min(doses, default=0.0) < 0:
        return (), f"{path}: {name} holds {min(doses):g}, but no dose can be below 0 e/Å²; mend the file"
    if too_much := _too_much(path, name, max(doses, default=0.0)):
        return (), too_much
    return tuple(doses) if any(doses) else (), ""


def _too_much(path: Path, name: str, dose: float) -> str:
    if dose <= MOST_DOSE:
        return ""
    return (
        f"{path}: {name} holds {dose:.5g}, expected at most {MOST_DOSE:g} e/Å², which no specimen stands; "
        "is it in e/nm²? A hundredth of that is in e/Å²"
    )


def _moments(texts: Iterable[str]) -> list[datetime]:
    """The times of images, in the one form that reads most: 03/11 and 13/11 are two days of one month."""
    plain = [" ".join(_NOT_NEEDED.sub("", _DATE_AND_TIME.sub(" ", text)).split()) for text in texts]
    return max(([moment for text in plain if (moment := _time(text, form))] for form in _TIMES), key=len)


def _time(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        return None
