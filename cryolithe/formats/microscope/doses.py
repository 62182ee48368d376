"""What files say about the exposure of a specimen before each image, e/Å²: .mdoc, RELION's and Warp's tables.

SerialEM writes PriorRecordDose, or else the dose of each image (ExposureDose) and its time; RELION has
rlnMicrographPreExposure; Warp has Dose in its .xml and wrpDose in .tomostar files, which may count half or all of the
image's own exposure. AreTomo3's _TLT.txt has the dose of each image and the order of acquisition. Which image a dose
is of: `alignment.same_images`. A file that does not tell doses is no error. Where one tells what cannot be
read, that is said; whoever needs it refuses the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.alignment.relion import relion_rows
from cryolithe.formats.alignment.relion_listing import NOMINAL, TILT, series_table
from cryolithe.formats.alignment.same_images import Matched, same_images
from cryolithe.formats.alignment.stack_state import mdocs_beside
from cryolithe.formats.alignment.warp import warp_rows, warp_series
from cryolithe.formats.cells import UnreadableCellError, told_number, told_numbers
from cryolithe.formats.files import PathLike, file_beside, finite_numbers, read_text
from cryolithe.formats.image_rows import NOTHING_ELSE, FileRows, Others
from cryolithe.formats.microscope.dose_sums import Sums, counted_anew, repeated, summed_up
from cryolithe.formats.reading import Reading
from cryolithe.formats.series_names import possible_names
from cryolithe.formats.stacks.mdoc_text import MdocText, read_mdoc_text
from cryolithe.formats.star_tables import StarTable, read_star

LIMIT_BYTES = 100_000_000
# AreTomo3's angles, order of acquisition from 1 and doses.
ACQUIRED = "_TLT.txt"
# The longest of exposures that are longer at higher tilts, over the shortest; what grows by more is a sum.
_MOST_GROWTH = 4.0
_BEFORE, _DEFOCUS = "rlnMicrographPreExposure", ("rlnDefocusU", "rlnDefocusV")
_ANGSTROM_PER_UM = 1e4
# Tilt series have up to 200 e/Å², test series of damage some hundred.
MOST_DOSE = 2000.0
# Of the highest dose: rows that differ by less weigh an image alike.
SAME_DOSE_SHARE = 0.05


@dataclass(frozen=True)
class Exposures:
    """What a file says.

    Attributes:
        rows: angles of its images, and which images of a stack they are, where it tells that.
        doses: before each image, e/Å²; empty where the file does not tell them.
        defocus_um: mean defocus, positive when underfocused, or None.
        dose_problem: why doses that it tells cannot be read, in a line; else empty.
        defocus_problem: likewise.
        notes: what was taken for granted where doses were summed up.
    """

    rows: FileRows = field(default_factory=FileRows)
    doses: tuple[float, ...] = ()
    defocus_um: float | None = None
    dose_problem: str = ""
    defocus_problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """Of its images."""
        return self.rows.angles_deg

    @property
    def problems(self) -> dict[str, str]:
        """Of "dose" and "defocus", those that there are."""
        both = {"dose": self.dose_problem, "defocus": self.defocus_problem}
        return {fact: why for fact, why in both.items() if why}

    def of_images(self, angles_deg: Sequence[float], others: Others = NOTHING_ELSE) -> tuple[float, ...] | None:
        """The doses of images with these angles; None if they are not told, or it is not clear which are theirs."""
        matched = self._matched(angles_deg, others)
        return None if matched is None else tuple(self.doses[row] for row in matched.rows)

    def doubt(self, path: Path, angles_deg: Sequence[float], others: Others) -> tuple[str, ...]:
        """What is to be told of what `of_images` returns: how it was summed up; a warning where it is not certain."""
        least = SAME_DOSE_SHARE * max(self.doses, default=0.0)
        matched = self._matched(angles_deg, others)
        if matched is None:
            return ()
        unsure = matched.doubt(path, "doses", others, lambda a, b: abs(self.doses[a] - self.doses[b]) > least)
        return (*self.notes, *unsure)

    def _matched(self, angles_deg: Sequence[float], others: Others) -> Matched | None:
        return same_images(angles_deg, self.rows, others) if len(self.doses) >= len(angles_deg) else None


def read_exposures(path: PathLike, tilts: PathLike, reading: Reading | None = None) -> Exposures:
    """Read what a file says about exposures.

    Args:
        path: .mdoc; .star of RELION-5; .xml or .tomostar of Warp; _TLT.txt of AreTomo3.
        tilts: the stack, which tells the series in a table of several.
        reading: what is parsed already, if anything is.

    Raises:
        InputError: if the file cannot be read, or is none of these.
    """
    path = Path(path)
    ending, reading = path.suffix.lower(), reading or Reading()
    if ending == ".mdoc":
        return _of_mdoc(path, reading(read_mdoc_text, path))
    if ending == ".star":
        return _of_relion(series_table(path, tilts, reading))
    if ending == ".xml":
        return reading(_of_warp, path)
    if ending == ".tomostar":
        table = next((found for found in reading(read_star, path) if "wrpAngleTilt" in found), None)
        return Exposures() if table is None else _of_table(table, "wrpAngleTilt", "wrpDose", -1.0)
    if is_acquired(path):
        return reading(_of_acquired, path)
    raise FileFormatError(
        f"{path} tells no doses that are understood; expected an .mdoc, RELION's .star, Warp's .xml or .tomostar, or "
        "AreTomo3's _TLT.txt"
    )


def is_acquired(path: Path) -> bool:
    """Whether a file has the name that AreTomo3 gives to angles, order of acquisition and doses."""
    return path.name.lower().endswith(ACQUIRED.lower())


def doses_beside(tilts: Path, named: Iterable[Path | None], reading: Reading) -> Path | None:
    """The file beside a stack that tells doses, readable or not; None where a file that is named for it does.

    An .mdoc, which AreTomo3 has its doses from, comes before its own file.
    """
    others = [path for path in named if path is not None and not is_acquired(path)]
    if any(exposures_in_passing(path, tilts, reading).doses for path in others):
        return None
    of_aretomo = (file_beside(tilts, base, ACQUIRED) for base in possible_names(tilts.name))
    found = (*mdocs_beside(tilts), *dict.fromkeys(path for path in of_aretomo if path))
    beside = ((path, exposures_in_passing(path, tilts, reading)) for path in found)
    return next((path for path, told in beside if told.doses or told.dose_problem), None)


def tells_doses(tilts: Path, named: Sequence[Path | None], reading: Reading) -> bool:
    """Whether a file that is named, or an .mdoc beside a stack, tells doses, readable or not."""
    told = (exposures_in_passing(path, tilts, reading) for path in named if path is not None)
    return any(one.doses or one.dose_problem for one in told) or doses_beside(tilts, named, reading) is not None


def exposures_in_passing(path: Path, tilts: PathLike, reading: Reading) -> Exposures:
    """What a file tells that was not asked about doses: nothing, where it is of another kind."""
    try:
        return read_exposures(path, tilts, reading)
    except InputError:
        return Exposures()


def _of_mdoc(path: Path, made: MdocText) -> Exposures:
    angles = tuple(angle for angle in made.angles_deg if angle is not None)
    if len(angles) != len(made.places):
        return Exposures()
    # Images that were taken out leave gaps.
    rows = FileRows(angles, tuple(map(made.rows.index, range(len(angles)))))
    before, problem = _of_key(path, made, "PriorRecordDose")
    if problem:
        return Exposures(rows, dose_problem=problem)
    own, problem = _of_key(path, made, "ExposureDose")
    texts = [facts.get("datetime", "") for facts in made.facts]
    if len(before) == len(angles):
        if anew := counted_anew(path, before, own, texts):
            return _of_sums(path, rows, anew, "PriorRecordDose of all sessions")
        if not (same := repeated(path, "PriorRecordDose", before)):
            return Exposures(rows, before)
        sums = summed_up(path, own, texts, made.places, angles)
        if not sums.doses:
            return Exposures(rows, dose_problem=same)
        told = (
            f"PriorRecordDose of {path.name} repeats itself, as no dose before an image does: ExposureDose is summed up"
        )
        return _of_sums(path, rows, replace(sums, notes=(told, *sums.notes)), "the sum of ExposureDose")
    if problem:
        return Exposures(rows, dose_problem=problem)
    return _of_sums(path, rows, summed_up(path, own, texts, made.places, angles), "the sum of ExposureDose")


def _of_sums(path: Path, rows: FileRows, sums: Sums, name: str) -> Exposures:
    """Doses that were summed up, unless they are too much."""
    too_much = _too_much(path, name, max(sums.doses, default=0.0))
    return Exposures(rows, () if too_much else sums.doses, dose_problem=sums.problem or too_much, notes=sums.notes)


def _of_acquired(path: Path) -> Exposures:
    """AreTomo3's _TLT.txt, whose third column older versions do not have."""
    lines = (line.partition("#")[0].split() for line in read_text(path, "a _TLT.txt file", LIMIT_BYTES).splitlines())
    words = [line for line in lines if line]
    numbers = [finite_numbers(line[:2]) for line in words if len(line) > 2]
    columns = [row for row in numbers if row is not None]
    if not words or len(columns) != len(words):
        return Exposures()
    angles, order = zip(*columns, strict=True)
    rows = FileRows(angles, tuple(range(len(angles))))
    own, problem = _read(path, "the third column", [line[2] for line in words])
    if problem or not own:
        return Exposures(rows, dose_problem=problem)
    if len(set(order)) != len(order) or any(number < 1 or number % 1 for number in order):
        return Exposures(
            rows, dose_problem=f"{path}: expected the order of acquisition (1, 2, ...) in the second column"
        )
    taken = sorted(range(len(order)), key=order.__getitem__)
    in_turn = [own[row] for row in taken]
    if in_turn == sorted(in_turn) and in_turn[-1] > _MOST_GROWTH * in_turn[0]:
        why = (
            f"{path}: the third column grows from {in_turn[0]:g} to {in_turn[-1]:g} e/Å² as the images are taken, as a "
            "sum does; expected the dose of each image by itself, as AreTomo3 writes it"
        )
        return Exposures(rows, dose_problem=why)
    usual, total, sums = median(own), 0.0, [0.0] * len(own)
    for turn, row in enumerate(taken):
        # Images that are not in the file were exposed, too.
        sums[row] = total + (order[row] - 1 - turn) * usual
        total += own[row]
    too_much = _too_much(path, "the sum of the third column", max(sums))
    return Exposures(rows, () if too_much else tuple(sums), dose_problem=too_much)


def _of_key(path: Path, made: MdocText, name: str) -> tuple[tuple[float, ...], str]:
    """As `_read`; nothing where an image lacks the key."""
    texts = [facts.get(name.lower(), "") for facts in made.facts]
    return _read(path, name, texts) if all(texts) else ((), "")


def _of_relion(table: StarTable | None) -> Exposures:
    if table is None:
        return Exposures()
    made = _of_table(table, TILT if TILT in table else NOMINAL, _BEFORE, 1.0)
    try:
        defoci = [_column(table, name) for name in _DEFOCUS]
    except UnreadableCellError as error:
        return replace(made, defocus_problem=str(error))
    both = [value for column in defoci for value in column]
    if not all(defoci) or not any(both):
        return made
    return replace(made, defocus_um=sum(both) / len(both) / _ANGSTROM_PER_UM)


def _of_table(table: StarTable, angle: str, dose: str, sign: float) -> Exposures:
    """Angles times a sign, and doses unless all are 0."""
    rows = relion_rows(table, tuple(sign * value for value in _column(table, angle)))
    rows = replace(rows, any_sign=sign < 0)
    doses, problem = _read(table.path, dose, table.text(dose) if dose in table else [])
    problem = problem or repeated(table.path, dose, doses)
    return Exposures(rows, doses if len(doses) == len(rows.angles_deg) and not problem else (), dose_problem=problem)


def _of_warp(path: Path) -> Exposures:
    root = warp_series(path)  # Warp 1 writes UTF-16
    rows = warp_rows(path, root)
    doses, problem = _read(path, "Dose", (root.findtext("Dose") or "").split())
    if doses and len(doses) != len(rows.angles_deg):
        problem = f"{path}: Dose holds {len(doses)} numbers for {len(rows.angles_deg)} angles; expected one for each"
    problem = problem or repeated(path, "Dose", doses)
    made = Exposures(rows, () if problem else doses, dose_problem=problem)
    defocus = root.find("CTF/Param[@Name='Defocus']")
    try:
        value = None if defocus is None else told_number(path, "Defocus", defocus.get("Value"))
    except UnreadableCellError as error:
        return replace(made, defocus_problem=str(error))
    return replace(made, defocus_um=value or None)


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
