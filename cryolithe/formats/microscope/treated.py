"""What was done to the CTF and the dose of a stack's images before, as far as their files say it.

IMOD's ctfphaseflip leaves a label and a flag in the header, and programs around it call their output ``_ctfcorr``, it
or its folder; mtffilter leaves a label of its dose weights. Deconvolved images (Warp, IsoNet) are called so, they or
their folder. Tables of RELION have two columns for it. Our own simulated stacks say it in their label. AreTomo3
corrects volumes, not the stacks that it writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from cryolithe.errors import InputError
from cryolithe.formats.alignment.relion_listing import find_series_table, listed_of, of_images, series_table
from cryolithe.formats.reading import Reading
from cryolithe.formats.star_tables import read_star

# States of the CTF in words; of them "multiplied" is none that networks know.
WORDS = {
    "flipped": "phase-flipped",
    "wiener": "Wiener-filtered",
    "multiplied": "multiplied into the images",
    "none": "not in these images",
    "uncorrected": "left in the images",
}
_FLIPPED = re.compile(r"ctf[ _-]*phase[ _-]*flip", re.IGNORECASE)
_SIMULATED = re.compile(r"^CryoLithe \S+ simulated .*, CTF (\w+)$")
_PROJECTIONS = re.compile(r"^CryoLithe \S+ simulated, seed ")
_NAMES = (
    (re.compile(r"(?<!no[_.-])(?<!not[_.-])(?<![a-z])ctf[_-]?corr(ected)?(?![a-z])", re.IGNORECASE), "flipped"),
    (re.compile(r"(^|[_.-])(ctf[_-]?)?phase[_-]?flip(ped)?(?![a-z])", re.IGNORECASE), "flipped"),
    (re.compile(r"(^|[_.-])deconv(olved|olution)?(?![a-z])", re.IGNORECASE), "wiener"),
)
# Of a folder that is called nothing else: a project may have such a word in its name.
_FOLDERS = (
    (re.compile(r"ctf[_-]?corr(ected)?", re.IGNORECASE), "flipped"),
    (re.compile(r"deconv(olved)?", re.IGNORECASE), "wiener"),
)
_COLUMNS = {"rlnCtfDataArePhaseFlipped": "flipped", "rlnCtfDataAreCtfPremultiplied": "multiplied"}
_IMAGES = "rlnMicrographName"
_WEIGHTED = re.compile(r"mtffilter: dose weight", re.IGNORECASE)
_WEIGHTED_NAME = re.compile(r"[_-]dw(?![a-z])", re.IGNORECASE)


def simulated_label(ctf: str | None) -> str:
    """The end of a simulated stack's label, with the state of its CTF by the recipe's name; None for projections."""
    known = {"left": "uncorrected", "phase-flipped": "flipped", "wiener": "wiener", "none": "none", None: "none"}
    return f", CTF {known[ctf]}"


def treated_ctf(
    tilts: Path, header: tuple[Sequence[str], bool], alignment: Mapping[str, Path], reading: Reading
) -> tuple[str | None, str]:
    """The state of the CTF in a stack (None: nothing says it), and what says it.

    Args:
        tilts: the stack, or the table that stands for it.
        header: labels of the (first) image file, and whether its flags say that the CTF is corrected.
        alignment: files of its alignment, by setting.
        reading: through which files are read.
    """
    labels, flagged = header
    here = f"the header of {tilts.name}"
    simulated = _of_simulation(labels)
    if simulated not in (None, "uncorrected"):
        return simulated, here
    # What other programs did since stands behind the label that a stack was made with: they keep it.
    if flagged or any(_FLIPPED.search(label) for label in labels):
        return "flipped", here
    if found := _by_name(tilts):
        return found[0], f"the {found[1]} of {tilts.name}"
    if simulated is not None:
        return simulated, here
    table = alignment.get("star")
    return (None, "") if table is None else _of_relion(table, tilts, reading)


def _of_simulation(labels: Sequence[str]) -> str | None:
    """What the label of a stack of ours says."""
    for label in labels:
        if found := _SIMULATED.match(label.strip()):
            return found.group(1) if found.group(1) in WORDS else None
        if _PROJECTIONS.match(label.strip()):
            return "none"
    return None


def _by_name(place: PurePath) -> tuple[str, str] | None:
    """What the name of a file says, or that of its folder, and which of them; None where neither does."""
    for pattern, state in _NAMES:
        if pattern.search(place.name):
            return state, "name"
    for pattern, state in _FOLDERS:
        if pattern.fullmatch(place.parent.name):
            return state, f"folder {place.parent.name}"
    return None


def weighted_doses(tilts: Path, labels: Sequence[str]) -> tuple[bool | None, str]:
    """Whether images are weighed by dose already (None: perhaps, each by its own frames alone), and what says it."""
    if any(_WEIGHTED.search(label) for label in labels):
        return True, f"the header of {tilts.name}"
    return (None, f"the name of {tilts.name}") if _WEIGHTED_NAME.search(tilts.name) else (False, "")


def _says_yes(value: str) -> bool:
    return value.strip().lower() not in ("", "0", "0.0", "false", "none")


def _of_relion(path: Path, tilts: Path, reading: Reading) -> tuple[str | None, str]:
    """What the columns of RELION's tables say, or the names of the images in them."""
    try:
        listed, found = listed_of(path, tilts, reading), find_series_table(path, tilts, reading)
        own = series_table(path, tilts, reading)
        tables = [table for table in reading(read_star, found) if len(table) and (table is own or not of_images(table))]
    except InputError:  # told when the alignment is read
        return None, ""
    for column, state in _COLUMNS.items():
        if listed is not None and _says_yes(listed.row.get(column, "")):
            return state, f"{column} of {listed.path.name}"
        if any(_says_yes(value) for table in tables if column in table for value in table.text(column)):
            return state, f"{column} of {found.name}"
    for image in (value for table in tables if _IMAGES in table for value in table.text(_IMAGES)):
        place = PurePath(image)
        if named := _by_name(place):
            return named[0], f"{place.name} in {found.name}"
    return None, ""
