"""What is known of a series that is reconstructed: by options, by files that are given anyway, by the stack's header.

Options come first; where a file says something else, the run is refused. Files are asked only for what the model takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryolithe.errors import InputError, SettingsError
from cryolithe.formats.microscope.treated import WORDS, treated_ctf
from cryolithe.known import CTF_STATES, FACTS, NOTHING, Known
from cryolithe.network.checkpoint import Model
from cryolithe.reconstruction.images.correcting import NO_CORRECTIONS, Corrections, ToldDoses
from cryolithe.reconstruction.jobs.exposures import NO_EXPOSURES, SeriesFiles, ToldExposures, ToldValue
from cryolithe.settings import ReconstructSettings

# Options by the fact that they tell.
OPTIONS = {"ctf": "ctf_state", "defocus": "defocus", "dose": "dose", "thickness": "specimen_thickness"}
NAMES = {"ctf": "CTF", "defocus": "defocus", "dose": "dose", "thickness": "specimen thickness", "voxel": "voxel size"}
ANGSTROM_PER_NM = 10.0


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


def taken_facts(model: Model | None) -> tuple[str, ...]:
    """Facts that a model takes."""
    return tuple(model.network.config.input.known) if model is not None else ()


def told_facts(
    files: SeriesFiles,
    settings: ReconstructSettings,
    model: Model | None,
    voxel_size_angstrom: float | None,
    made: Corrections = NO_CORRECTIONS,
    told: ToldExposures = NO_EXPOSURES,
) -> ToldFacts:
    """Gather what is known.

    Args:
        files: of the series.
        settings: with what the user tells.
        model: that is told; None for methods without one.
        voxel_size_angstrom: of the volume, if it is known.
        made: of the images before the model sees them.
        told: of exposures.

    Raises:
        SettingsError: if an option and a file disagree.
    """
    taken = taken_facts(model)
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
    defocus, thickness = told.defocus_um.value, None
    exposures: dict[str, ToldValue[Any]] = {"dose": told.doses, "defocus": told.defocus_um}
    sources |= {fact: one.source for fact, one in exposures.items() if one.value is not None}
    # Those of doses that are weighed are told with that.
    notes += [
        line for fact, one in exposures.items() if fact != "dose" or not settings.dose_weight for line in one.notes
    ]
    if defocus is None and made.defocus_um is not None:
        defocus, sources["defocus"] = made.defocus_um, f"--ctf {settings.ctf}"
    if settings.specimen_thickness is not None:
        thickness, sources["thickness"] = settings.specimen_thickness * ANGSTROM_PER_NM, "--specimen-thickness"
    if voxel_size_angstrom is not None:
        sources["voxel"] = "--pixel-size" if settings.pixel_size is not None else "the pixel size of the files"
    everything = Known(state, defocus, told.doses.value, thickness, voxel_size_angstrom)
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


def doses_to_weigh(files: SeriesFiles, settings: ReconstructSettings, told: ToldExposures) -> ToldDoses | None:
    """Doses before the images, for --dose-weight; None without it.

    Raises:
        InputError: if no file tells the doses of these images.
    """
    if not settings.dose_weight:
        return None
    if told.doses.value is None:
        raise InputError(
            f"--dose-weight: no file tells the doses of these {len(files.angles_deg)} images; expected --dose (an "
            ".mdoc, RELION's .star, Warp's .xml or .tomostar, AreTomo3's _TLT.txt), or one of them as "
            "ANGLES, --star or --warp"
        )
    who = told.frame_weights
    perhaps = f"; {who} tells of weights: those of each image's own frames, as is taken here" if who else ""
    return ToldDoses(told.doses.value, told.doses.source + perhaps, told.doses.notes)


def _flags(options: Sequence[str]) -> str:
    return " and ".join(f"--{option.replace('_', '-')}" for option in options)
