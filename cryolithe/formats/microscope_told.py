"""What the files of a series tell of the microscope, beside the file of its defocus.

AreTomo3's ``_CTF.txt`` and IMOD's ``.defocus`` say nothing of the microscope, and doses are weighed without either: the
``.mdoc`` has the voltage, RELION's and Warp's tables have aberration and amplitude contrast, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryolithe.ctf import Microscope
from cryolithe.errors import InputError
from cryolithe.formats.ctf_tables import read_relion_microscope, read_warp_microscope
from cryolithe.formats.mdoc_text import read_mdoc_text
from cryolithe.formats.reading import Reading
from cryolithe.formats.stack_state import mdocs_beside

# No electron microscope for specimens in ice has another one: an .mdoc of a simulator may have 0.
LEAST_KV, MOST_KV = 60.0, 1500.0


@dataclass(frozen=True)
class ToldMicroscope:
    """What was found.

    Attributes:
        microscope: what files tell of it, each value by the first of them.
        sources: that file, by the attribute.
    """

    microscope: Microscope = field(default_factory=Microscope)
    sources: dict[str, Path] = field(default_factory=dict)


NOTHING_TOLD = ToldMicroscope()


def told_microscope(tilts: Path, named: Iterable[Path | None], reading: Reading) -> ToldMicroscope:
    """Gather what is told.

    Args:
        tilts: the stack, whose own .mdoc is looked for beside it.
        named: files that a run reads anyway, in their order; others than these kinds tell nothing.
        reading: through which files are read.
    """
    values: dict[str, float] = {}
    sources: dict[str, Path] = {}
    for path in dict.fromkeys([*(path for path in named if path is not None), *mdocs_beside(tilts)]):
        for name, value in vars(_of_file(path, tilts.name, reading)).items():
            if value is not None and name not in values:
                values[name], sources[name] = value, path
    return ToldMicroscope(Microscope(**values), sources)


def _of_file(path: Path, name: str, reading: Reading) -> Microscope:
    """What a file tells in passing: nothing, where it is of another kind or cannot be read."""
    ending = path.suffix.lower()
    try:
        if ending == ".mdoc":
            voltage = reading(read_mdoc_text, path).voltage_kv
            return Microscope(voltage if voltage is not None and LEAST_KV <= voltage <= MOST_KV else None)
        if ending == ".star":
            return read_relion_microscope(path, name, reading)
        return reading(read_warp_microscope, path) if ending == ".xml" else Microscope()
    except InputError:
        return Microscope()
