"""What is known of a series that is reconstructed: by options, by files that are given anyway, by the stack's header.

Options come first; where a file says something else, the run is refused. Files are asked only for what the model takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cryolithe.errors import FileFormatError, InputError, SettingsError
from cryolithe.formats.doses import (
    Exposures,
    doses_beside,
    exposures_in_passing,
    is_acquired,
    read_exposures,
)
from cryolithe.formats.image_rows import NOTHING_ELSE, Others
from cryolithe.formats.reading import Reading
from cryolithe.formats.treated import WORDS, treated_ctf, weighted_doses
from cryolithe.known import CTF_STATES, FACTS, NOTHING, Known
from cryolithe.network.checkpoint import Model
from cryolithe.reconstruction.correcting import NO_CORRECTIONS, Corrections, ToldDoses
from cryolithe.settings import ReconstructSettings
from cryolithe.tilts import TiltSeries

# Options by the fact that they tell.
OPTIONS = {"ctf": "ctf_state", "defocus": "defocus", "dose": "dose", "thickness": "specimen_thickness"}
NAMES = {"ctf": "CTF", "defocus": "defocus", "dose": "dose", "thickness": "specimen thickness", "voxel": "voxel size"}
ANGSTROM_PER_NM = 10.0
# Numbers of an option and a file that differ by less say the same.
SAME_DEFOCUS_UM, SAME_SHARE = 0.3, 0.1


@dataclass(frozen=True)
class ToldFacts:
    """What a network is told.

    Attributes:
        known: the facts.
        sources: where each fact comes from, by its name.
        taken: facts that the model takes.
        notes: for the user.
    """

    known: Known = NOTHING
    sources: dict[str, str] = field(default_factory=dict)
    taken: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any] | None:
        """What a sidecar tells; None for a model that takes no facts."""
        if not self.taken:
            return None
        return {"takes": list(self.taken), **self.known.record(), "from": dict(self.sources)}


NO_FACTS = ToldFacts()


@dataclass(frozen=True)
class SeriesFiles:
    """Files of a series that may tell something.

    Attributes:
        tilts: the stack.
        angles: its angle file, or None.
        series: its images that are used, and the labels of its header.
        angles_deg: of these images, as their files have them: not mirrored.
        reading: what is parsed already.
        others: angles of images that the alignment leaves out, as far as they are known, and its offset.
    """

    tilts: Path
    angles: Path | None
    series: TiltSeries
    angles_deg: tuple[float, ...]
    reading: Reading
    others: Others = NOTHING_ELSE


def told_facts(
    files: SeriesFiles,
    settings: ReconstructSettings,
    model: Model | None,
    voxel_size_angstrom: float | None,
    made: Corrections = NO_CORRECTIONS,
) -> ToldFacts:
    """Gather what is known.

    Args:
        files: of the series.
        settings: with what the user tells.
        model: that is told; None for methods without one.
        voxel_size_angstrom: of the volume, if it is known.
        made: of the images before the model sees them.

    Raises:
        SettingsError: if an option and a file disagree.
        InputError: if the file of --dose cannot be read or does not tell the doses of these images.
    """
    taken = model.network.config.input.known if model is not None else ()
    state, state_source = ctf_state(files, settings)
    if state not in CTF_STATES:  # that no network knows
        state = None
    if settings.ctf != "none":
        state, state_source = made.ctf_state, f"--ctf {settings.ctf}"
    used = (*taken, *(["dose"] if settings.dose_weight else []), *(["ctf"] if settings.ctf != "none" else []))
    unused = [option for fact, option in OPTIONS.items() if getattr(settings, option) is not None and fact not in used]
    notes = []
    if unused:
        who = f"model {model.name}" if model is not None else f"method {settings.method}"
        notes.append(f"{who} does not use what {_flags(unused)} {'tell' if unused[1:] else 'tells'}")
    if not taken:
        return ToldFacts(notes=tuple(notes))
    sources = {"ctf": state_source} if state is not None else {}
    doses = defocus = thickness = None
    if {"dose", "defocus"} & set(taken):
        doses, defocus = _exposures(files, settings, taken, sources, notes)
        notes = [line for line in notes if line not in made.notes]  # of --dose-weight, which told it
    if defocus is None and made.defocus_um is not None:
        defocus, sources["defocus"] = made.defocus_um, f"--ctf {settings.ctf}"
    if settings.specimen_thickness is not None:
        thickness, sources["thickness"] = settings.specimen_thickness * ANGSTROM_PER_NM, "--specimen-thickness"
    if voxel_size_angstrom is not None:
        sources["voxel"] = "--pixel-size" if settings.pixel_size is not None else "the pixel size of the files"
    everything = Known(state, defocus, doses, thickness, voxel_size_angstrom)
    known = everything.without([fact for fact in FACTS if fact not in taken])
    sources = {fact: sources[fact] for fact in taken if known.has(fact)}
    assert model is not None
    notes.append(_line(model.name, known, taken, sources))
    return ToldFacts(known, sources, taken, tuple(notes))


def _line(model: str, known: Known, taken: Sequence[str], sources: dict[str, str]) -> str:
    """What is told and what is not, in one line."""
    values = {
        "ctf": f"CTF {known.ctf_state}",
        "defocus": f"defocus {known.defocus_um or 0:.2g} µm",
        "dose": f"dose {min(known.doses or (0,)):.3g} to {max(known.doses or (0,)):.3g} e/Å²",
        "thickness": f"specimen thickness {(known.thickness_angstrom or 0) / ANGSTROM_PER_NM:.3g} nm",
        "voxel": f"voxel size {known.voxel_size_angstrom or 0:.4g} Å",
    }
    told = ", ".join(f"{values[fact]} ({sources[fact]})" for fact in taken if fact in sources)
    lacking = ", ".join(NAMES[fact] for fact in taken if fact not in sources)
    return f"model {model} is told: {told or 'nothing'}" + (f"; not known: {lacking}" if lacking else "")


def ctf_state(files: SeriesFiles, settings: ReconstructSettings) -> tuple[str | None, str]:
    """The state of the CTF in the files (None: nobody tells it), and what tells it.

    Raises:
        SettingsError: if --ctf-state and a file disagree.
    """
    header = files.series.labels, files.series.ctf_corrected
    found, source = treated_ctf(files.tilts, header, settings.alignment_files, files.reading)
    if settings.ctf_state is None:
        return found, source
    if found is not None and found != settings.ctf_state:
        raise SettingsError(
            f"--ctf-state {settings.ctf_state}: {source} says that its CTF is {WORDS[found]}; leave out --ctf-state"
        )
    return settings.ctf_state, "--ctf-state"


def doses_to_weigh(files: SeriesFiles, settings: ReconstructSettings) -> ToldDoses | None:
    """Doses before the images, for --dose-weight; None without it.

    Raises:
        SettingsError: if files disagree.
        InputError: if no file tells the doses of these images, or the one that should cannot be read.
    """
    if not settings.dose_weight:
        return None
    weighted, who = weighted_doses(files.tilts, files.series.labels)
    if weighted:
        raise SettingsError(
            f"--dose-weight: {who} says that the images are weighed by dose already, and twice is too much; leave it "
            "out, or give the stack before mtffilter"
        )
    sources, notes = dict[str, str](), list[str]()
    doses, _ = _exposures(files, settings, ("dose",), sources, notes)
    if doses is None:
        raise InputError(
            f"--dose-weight: no file tells the doses of these {len(files.angles_deg)} images; expected --dose (an "
            ".mdoc, RELION's .star, Warp's .xml or .tomostar, AreTomo3's _TLT.txt), or one of them as "
            "ANGLES, --star or --warp"
        )
    perhaps = f"; {who} tells of weights: those of each image's own frames, as is taken here" if who else ""
    return ToldDoses(doses, sources["dose"] + perhaps, tuple(notes))


def _exposures(
    files: SeriesFiles,
    settings: ReconstructSettings,
    taken: Sequence[str],
    sources: dict[str, str],
    notes: list[str],
) -> tuple[tuple[float, ...] | None, float | None]:
    """Doses and mean defocus; ``sources`` get what tells them, ``notes`` what should and cannot be read."""
    doses: tuple[float, ...] | None = None
    defocus = settings.defocus
    if defocus is not None:
        sources["defocus"] = "--defocus"
    if settings.dose is not None and "dose" in taken:
        told = read_exposures(settings.dose, files.tilts.name, files.reading)
        if told.dose_problem:
            raise FileFormatError(told.dose_problem)
        doses = told.of_images(files.angles_deg, files.others)
        if doses is None:
            raise InputError(
                f"--dose {settings.dose} does not tell the doses of these {len(files.angles_deg)} images: "
                f"{_other_images(settings.dose, told, files)}, or leave --dose out"
            )
        sources["dose"] = f"--dose {Path(settings.dose).name}"
        notes += told.doubt(Path(settings.dose), files.angles_deg, files.others)
    # Files that the run reads anyway; most tell no exposures.
    named = [*([] if files.angles is None else [files.angles]), *settings.alignment_files.values()]
    if settings.dose_weight and settings.dose is None:
        beside = doses_beside(files.tilts, named, files.reading)
        named += [beside] if beside else []
    problems: dict[str, str] = {}
    for path in sorted(named, key=is_acquired):
        told = exposures_in_passing(path, files.tilts.name, files.reading)
        problems |= told.problems
        found = told.of_images(files.angles_deg, files.others)
        if found is None and told.doses:
            problems.setdefault("dose", _other_images(path, told, files))
        if found is not None and "dose" in taken:
            # AreTomo3 may have been told other doses than the microscope wrote.
            if doses is not None and not is_acquired(path) and _differ(doses, found):
                raise SettingsError(
                    f"--dose {settings.dose} says {max(doses):.3g} e/Å² at most, {path} says {max(found):.3g} for the "
                    "same images; give one of them"
                )
            if doses is None:
                doses, sources["dose"] = found, path.name
                notes += told.doubt(path, files.angles_deg, files.others)
        if told.defocus_um is not None and "defocus" in taken:
            limit = max(SAME_DEFOCUS_UM, SAME_SHARE * abs(told.defocus_um))
            if settings.defocus is not None and abs(settings.defocus - told.defocus_um) > limit:
                raise SettingsError(
                    f"--defocus {settings.defocus:g} µm, but {path} says {told.defocus_um:.2f} µm; leave --defocus out"
                )
            if defocus is None:
                defocus, sources["defocus"] = told.defocus_um, path.name
    known = {"dose": doses, "defocus": defocus}
    lacking = {fact: why for fact, why in problems.items() if fact in taken and known[fact] is None}
    if settings.dose_weight and "dose" in lacking:
        raise FileFormatError(lacking["dose"])
    notes += [f"the {NAMES[fact]} is taken for not told: {why}" for fact, why in lacking.items()]
    return doses, defocus


def _other_images(path: Path | str, told: Exposures, files: SeriesFiles) -> str:
    """Why a file tells the doses of other images, or of unknown ones."""
    theirs, ours = told.angles_deg, files.angles_deg
    if not told.doses:
        return f"{path} tells none; give a file with one for each, at its tilt angle"
    return (
        f"{path} has {len(theirs)} of {min(theirs):g}° to {max(theirs):g}°, and which of them these {len(ours)} of "
        f"{min(ours):g}° to {max(ours):g}° are is not told by their angles; give the file of this series and of its "
        "very images"
    )


def _differ(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether doses are not the same: files count up to one image's own exposure more or less."""
    steps = np.diff(np.sort(b))
    limit = SAME_SHARE * max(b) + 1.5 * float(steps.max(initial=0.0))
    return bool(np.abs(np.subtract(a, b)).max() > limit)


def _flags(options: Sequence[str]) -> str:
    return " and ".join(f"--{option.replace('_', '-')}" for option in options)
