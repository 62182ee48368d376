"""What the files of a series tell of the microscope, beside the file of its defocus.

AreTomo3's ``_CTF.txt`` and IMOD's ``.defocus`` say nothing of the microscope, and doses are weighed without either: the
``.mdoc`` has the voltage, RELION's and Warp's tables and IMOD's ctfcorrection.com have aberration and amplitude
contrast, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.files.names import is_file
from cryolithe.formats.alignment.imod_beside import same_series
from cryolithe.formats.alignment.stack_state import mdocs_beside
from cryolithe.formats.files import finite_numbers, read_text
from cryolithe.formats.microscope.ctf_tables import read_relion_microscope, read_warp_microscope
from cryolithe.formats.reading import Reading
from cryolithe.formats.stacks.mdoc_text import read_mdoc_text
from cryolithe.optics.ctf import Microscope

# No electron microscope for specimens in ice has another one: an .mdoc of a simulator may have 0.
LEAST_KV, MOST_KV = 60.0, 1500.0
# Etomo's command file for ctfphaseflip, which has the same name for every series; of dual axes with their letter.
_COMMANDS = ("ctfcorrection.com", "ctfcorrectiona.com", "ctfcorrectionb.com")
_COMMAND_BYTES = 1_000_000
_KEYS = {
    "voltage": "voltage_kv",
    "sphericalaberration": "spherical_aberration_mm",
    "amplitudecontrast": "amplitude_contrast",
}


@dataclass(frozen=True)
class ToldMicroscope:
    """What was found.

    Attributes:
        microscope: what files tell of it, each value by the first of them.
        sources: that file, by the attribute.
        hand: of the defocus gradient, as `cryolithe.optics.ctf` counts it, and what says it; None where nothing does.
    """

    microscope: Microscope = field(default_factory=Microscope)
    sources: dict[str, Path] = field(default_factory=dict)
    hand: tuple[int, str] | None = None


NOTHING_TOLD = ToldMicroscope()


def told_microscope(tilts: Path, named: Iterable[Path | None], reading: Reading) -> ToldMicroscope:
    """Gather what is told.

    Args:
        tilts: the stack, whose own .mdoc and ctfcorrection.com are looked for beside it.
        named: files that a run reads anyway, in their order; others than these kinds tell nothing.
        reading: through which files are read.
    """
    values: dict[str, float] = {}
    sources: dict[str, Path] = {}
    beside = (*(path for name in _COMMANDS if is_file(path := tilts.parent / name)), *mdocs_beside(tilts))
    for path in dict.fromkeys([*(path for path in named if path is not None), *beside]):
        for name, (value, source) in _of_file(path, tilts, reading).items():
            values.setdefault(name, value)
            sources.setdefault(name, source)
    inverted = next(
        (path for path in beside if path.name.lower() in _COMMANDS and _inverts(path, tilts.name, reading)), None
    )
    return ToldMicroscope(
        Microscope(**values), sources, None if inverted is None else (-1, f"InvertTiltAngles of {inverted.name}")
    )


def _of_file(path: Path, tilts: Path, reading: Reading) -> dict[str, tuple[float, Path]]:
    """What a file tells in passing, by the attribute, and the file that it has it from.

    Nothing where it is of another kind or cannot be read.
    """
    try:
        if path.suffix.lower() == ".star":
            return read_relion_microscope(path, tilts, reading)
    except InputError:
        return {}
    told = vars(_of_other(path, tilts.name, reading))
    return {name: (value, path) for name, value in told.items() if value is not None}


def _of_other(path: Path, name: str, reading: Reading) -> Microscope:
    """What a file of another program than RELION tells in passing."""
    ending = path.suffix.lower()
    try:
        if ending == ".mdoc":
            voltage = reading(read_mdoc_text, path).voltage_kv
            return Microscope(voltage if voltage is not None and LEAST_KV <= voltage <= MOST_KV else None)
        if ending == ".com":
            return _of_command(path, name, reading)
        return reading(read_warp_microscope, path) if ending == ".xml" else Microscope()
    except InputError:
        return Microscope()


def _inverts(path: Path, name: str, reading: Reading) -> bool:
    """Whether a ctfcorrection.com of the series has ctfphaseflip turn the tilt angles for the defocus gradient."""
    try:
        words = reading(_words, path)
    except InputError:
        return False
    return _is_of(words, name) and words.get("inverttiltangles", "0") not in ("0", "")


def _of_command(path: Path, name: str, reading: Reading) -> Microscope:
    """What a ctfcorrection.com tells, if its stack is of the series."""
    words = reading(_words, path)
    told: dict[str, float] = {}
    for key, attribute in _KEYS.items():
        numbers = finite_numbers([words.get(key, "")])
        if numbers:
            told[attribute] = numbers[0]
    if not LEAST_KV <= told.get("voltage_kv", LEAST_KV) <= MOST_KV:
        del told["voltage_kv"]
    return Microscope(**told) if _is_of(words, name) else Microscope()


def _words(path: Path) -> dict[str, str]:
    """The keys of a command file in small letters, with the first word behind each; 1 behind a switch."""
    found: dict[str, str] = {}
    for line in read_text(path, "an IMOD command file", _COMMAND_BYTES).splitlines():
        words = re.split(r"[\s=]+", line.strip())
        found[words[0].lower()] = words[1] if len(words) > 1 else "1"
    return found


def _is_of(words: dict[str, str], name: str) -> bool:
    stack = words.get("inputstack", "")
    return bool(stack) and same_series(Path(stack).name, name)
