"""Correction of the contrast transfer function and of radiation damage, image by image, before they are reconstructed.

It is done to prepared images: their tilt axis runs along y, so that strips parallel to it have one defocus.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.alignment import Alignment, View, rotation
from cryolithe.errors import InputError, SettingsError
from cryolithe.formats.image_rows import SeriesImages
from cryolithe.formats.microscope.ctf_checks import check_ctf
from cryolithe.formats.microscope.ctf_files import ctf_file_of, read_ctf
from cryolithe.formats.microscope.microscope_told import NOTHING_TOLD, ToldMicroscope
from cryolithe.formats.microscope.treated import WORDS
from cryolithe.formats.reading import Reading
from cryolithe.optics.ctf import Ctf, ImageCtf, Microscope
from cryolithe.optics.exposure import exposure_filter
from cryolithe.optics.transfer import (
    ANGSTROM_PER_UM,
    STEEPEST_DEG,
    WIENER_SNR,
    Optics,
    TiltedView,
    Undoing,
    filtered,
    undo_ctf,
    undo_ctf_in_depth,
)
from cryolithe.reconstruction.images.layers import Layers
from cryolithe.settings import ReconstructSettings

# What is taken where neither settings nor files say it.
USUAL = Microscope(300.0, 2.7, 0.07)
USUAL_HAND = 1  # as in IMOD
UNITS = {"voltage_kv": "kV", "spherical_aberration_mm": "mm", "amplitude_contrast": ""}
OPTIONS = {"voltage_kv": "voltage", "spherical_aberration_mm": "cs", "amplitude_contrast": "amplitude_contrast"}
USUAL_DOSES = (5.0, 400.0)  # e/Å², before the last image
_NAMES = {"voltage_kv": "", "spherical_aberration_mm": "Cs ", "amplitude_contrast": "amplitude contrast "}
ASSUMED = "assumed"
# What a network is told is left of the CTF; its square is none of the states that it knows.
STATES: dict[str, str | None] = {"flip": "flipped", "multiply": None, "wiener": "wiener"}


@dataclass(frozen=True)
class ImageCorrection:
    """What is done to one prepared image.

    Attributes:
        view: optics and tilt; None where the CTF is left as it is.
        how: what is done with the CTF.
        exposure: before the image, e/Å², whose damage is weighed down; None for none.
        pixel_size_angstrom: of the prepared image.
        voltage_kv: for the damage.
        told_um: mean defocus in the middle of the recorded image, as it was told.
    """

    view: TiltedView | None
    how: Undoing
    exposure: float | None
    pixel_size_angstrom: float
    voltage_kv: float
    told_um: float = 0.0

    def turned(self) -> ImageCorrection:
        """The same with the other hand of the defocus gradient, about the middle of the recorded image."""
        if self.view is None:
            return self
        optics = replace(self.view.optics, defocus_um=2 * self.told_um - self.view.optics.defocus_um)
        return replace(self, view=replace(self.view, optics=optics, handedness=-self.view.handedness))


@dataclass(frozen=True)
class Corrections:
    """What is done to the images of a series.

    Attributes:
        images: one for each; None where nothing is done.
        ctf_state: what is left of the CTF, as networks are told; None where they are told nothing.
        defocus_um: mean defocus, or None.
        notes: for the user.
        record: for the sidecar.
        hand: of the defocus gradient, 1 or -1, and what says it, empty where nothing does; None without --ctf.
    """

    images: tuple[ImageCorrection, ...] | None = None
    ctf_state: str | None = None
    defocus_um: float | None = None
    notes: tuple[str, ...] = ()
    record: dict[str, Any] | None = field(default=None)
    hand: tuple[int, str] | None = None

    def of_optics(self, hand: int, found: dict[str, Any]) -> Corrections:
        """The same with a hand of the defocus gradient; ``found`` is what the images tell, for the record."""
        if self.hand is None or self.record is None:
            return self
        images = self.images
        if hand != self.hand[0] and images is not None:
            images = tuple(image.turned() for image in images)
        record = {**self.record, "ctf": {**self.record["ctf"], "defocus_hand": hand, **found}}
        return replace(self, images=images, record=record, hand=(hand, self.hand[1]))


NO_CORRECTIONS = Corrections()


@dataclass(frozen=True)
class ToldDoses:
    """Exposures before the images, e/Å², what tells them, and what to tell the user of that."""

    before: tuple[float, ...]
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """Where prepared images lie.

    Attributes:
        views: of each, or None where it stays in place but for the turn.
        tilt_axis_deg: by which images are turned back where there are no views.
        bin: pixels of the stack along the edge of a prepared one.
        pixel_size_angstrom: of the stack, or None.
    """

    views: tuple[View, ...] | None
    tilt_axis_deg: float
    bin: int
    pixel_size_angstrom: float | None


def images_of(tilts: Path, alignment: Alignment) -> SeriesImages:
    """The images of a stack that an alignment uses, and what it tells of the others."""
    images = alignment.images
    used, angles = tuple(image.section for image in images), tuple(image.angle_deg for image in images)
    parts, signs = (alignment.stacked, alignment.kept), (alignment.offset_deg, alignment.stage_sign)
    return SeriesImages(str(tilts), alignment.sections, used, angles, alignment.left_out_deg, *parts, *signs)


def ctf_of(
    tilts: Path, alignment: Alignment, settings: ReconstructSettings, reading: Reading
) -> tuple[Ctf, Path] | None:
    """The contrast transfer function of the images that are used, and the file that tells it; None if not asked for.

    Raises:
        InputError: if no file tells it, it does not fit the images, or cannot be.
    """
    if settings.ctf == "none":
        return None
    path = Path(settings.ctf_file) if settings.ctf_file else ctf_file_of(tilts, settings.alignment_files, reading)
    ctf = read_ctf(path, images_of(tilts, alignment), reading)
    checked = check_ctf(ctf, path, [image.section + 1 for image in alignment.images])
    return replace(ctf, notes=(*ctf.notes, *checked)), path


def refuse_twice(state: str | None, source: str, settings: ReconstructSettings) -> None:
    """Raise SettingsError where the CTF is to be corrected of images that are corrected already."""
    if settings.ctf != "none" and state not in (None, "uncorrected"):
        raise SettingsError(
            f"--ctf {settings.ctf}: {source} says that the CTF is {WORDS[state]}, and correcting twice spoils it; "
            "leave out --ctf, or give the stack with its CTF left in"
        )


def corrections(
    found: tuple[Ctf, Path] | None,
    doses: ToldDoses | None,
    angles_deg: Sequence[float],
    places: Places,
    settings: ReconstructSettings,
    elsewhere: ToldMicroscope = NOTHING_TOLD,
) -> Corrections:
    """What is done to the images of a series.

    Args:
        found: contrast transfer function and its file; None to leave the CTF in.
        doses: before each image; None not to weigh.
        angles_deg: of the images, as their files have them.
        places: where they lie.
        settings: of the run.
        elsewhere: what other files tell of the microscope.

    Raises:
        InputError: if the pixel size is not known.
    """
    if found is None and doses is None:
        idle = f"--ctf-file {settings.ctf_file} is not used without --ctf flip, multiply or wiener"
        return Corrections(notes=(idle,)) if settings.ctf_file else NO_CORRECTIONS
    if places.pixel_size_angstrom is None:
        raise InputError(
            "the stack does not tell its pixel size, which --ctf and --dose-weight need: give --pixel-size"
        )
    pixel, notes, record = places.pixel_size_angstrom * places.bin, list[str](), dict[str, Any]()
    microscope, origins = _microscope(found[0] if found else None, settings, elsewhere)
    assumed = [name for name, origin in origins.items() if origin == ASSUMED]
    how: Undoing = "flip" if settings.ctf == "none" else settings.ctf
    seen: list[TiltedView | None] = [None] * len(angles_deg)
    told = [0.0] * len(angles_deg)
    hand: tuple[int, str] | None = None
    if found is not None:
        ctf, path = found
        hand = _hand(ctf, path, settings, elsewhere)
        seen = list(image_views(ctf, angles_deg, places, settings, (hand[0], elsewhere)))
        told = [image.defocus_um for image in ctf.images]
        who = f"hand {hand[0]:+d} ({hand[1]})" if hand[1] else "hand by the images"
        notes += [
            *ctf.notes,
            f"CTF: {_DONE[how]} in strips along the tilt axis, defocus {min(told):.3g} to {max(told):.3g} µm "
            f"({path.name}), {_shown(microscope, origins)}, {who}",
            *_contradictions(ctf.microscope, path.name, settings, elsewhere),
        ]
        record["ctf"] = {
            "how": how,
            "file": path.name,
            "defocus_hand": hand[0],
            "wiener_snr": WIENER_SNR if how == "wiener" else None,
            **vars(microscope),
            "assumed": assumed,
            "images": [vars(image) for image in ctf.images],
        }
    if doses is not None:
        notes.append(
            f"dose weighting: images after {min(doses.before):.3g} to {max(doses.before):.3g} e/Å² ({doses.source}), "
            f"{microscope.voltage_kv:g} kV{_in_brackets(origins['voltage_kv'])}"
        )
        notes += [*doses.notes, *_unusual(max(doses.before), doses.source)]
        record["dose_weight"] = {
            "exposures": list(doses.before),
            "from": doses.source,
            "voltage_kv": microscope.voltage_kv,
        }
    assert microscope.voltage_kv is not None
    exposures: list[float | None] = [None] * len(angles_deg) if doses is None else list(doses.before)
    made = tuple(
        ImageCorrection(view, how, dose, pixel, microscope.voltage_kv, defocus)
        for view, dose, defocus in zip(seen, exposures, told, strict=True)
    )
    state, mean = (STATES[how], found[0].defocus_um) if found else (None, None)
    return Corrections(made, state, mean, tuple(notes), record, hand)


def image_views(
    ctf: Ctf,
    angles_deg: Sequence[float],
    places: Places,
    settings: ReconstructSettings,
    lens: tuple[int, ToldMicroscope],
) -> tuple[TiltedView, ...]:
    """Optics and tilt of prepared images, with a hand of the defocus gradient.

    Args:
        ctf: of the images.
        angles_deg: of the images, as their files have them.
        places: where they lie; the pixel size must be known.
        settings: of the run.
        lens: the hand, 1 or -1, and what other files tell of the microscope.
    """
    hand, elsewhere = lens
    pixel = (places.pixel_size_angstrom or 0.0) * places.bin
    microscope, _ = _microscope(ctf, settings, elsewhere)
    made = []
    for number, (image, angle) in enumerate(zip(ctf.images, angles_deg, strict=True)):
        place, turn_deg = _axis(places, number)
        made.append(_view(image, microscope, (angle, turn_deg, hand), place, pixel))
    return tuple(made)


def x_tilt_notes(x_tilt_deg: float, height_px: int, made: Corrections) -> tuple[str, ...]:
    """What the defocus does along the tilt axis where the specimen is tilted about x, which is left out."""
    if made.hand is None or made.images is None or not x_tilt_deg:
        return ()
    reach = (
        height_px / 2 * made.images[0].pixel_size_angstrom / ANGSTROM_PER_UM * abs(math.sin(math.radians(x_tilt_deg)))
    )
    return (
        f"CTF: by the X-axis tilt of {x_tilt_deg:g}° the defocus changes along the tilt axis, too, by {reach:.2g} µm "
        "from the middle to the ends; this is left out",
    )


def _hand(ctf: Ctf, path: Path, settings: ReconstructSettings, elsewhere: ToldMicroscope) -> tuple[int, str]:
    """The hand to begin with, and what says it; empty where the images are to say it."""
    wish = settings.defocus_hand
    if wish == "auto":
        return ctf.hand or USUAL_HAND, ""
    if wish is not None:
        return wish, "--defocus-hand"
    return (ctf.hand, ctf.told_by.get("hand", path.name)) if ctf.hand else elsewhere.hand or (USUAL_HAND, "")


_DONE = {"flip": "phases flipped", "multiply": "images multiplied by it", "wiener": "Wiener filter"}


def corrected_layers(image: NDArray[np.float32], how: ImageCorrection, layers: Layers) -> NDArray[np.float32]:
    """A prepared image corrected for each slab of z, shape ``(slabs, y, x)``, float32."""
    assert how.view is not None
    heights = layers.heights_um(how.view.angle_deg, how.view.handedness)
    made = undo_ctf_in_depth(image, how.view, how.how, heights)
    without = replace(how, view=None)
    return np.stack([corrected(one, without) for one in made])


def corrected(image: NDArray[np.float32], how: ImageCorrection) -> NDArray[np.float32]:
    """A prepared image with its CTF and damage corrected; shape ``(y, x)``, float32."""
    if how.view is not None:
        image = undo_ctf(image, how.view, how.how)
    if how.exposure is not None:
        shape = image.shape[0], image.shape[1]
        image = filtered(image, exposure_filter(shape, how.pixel_size_angstrom, how.exposure, how.voltage_kv))
    return image


def _view(
    image: ImageCtf, microscope: Microscope, tilt: tuple[float, float, int], measured_angstrom: float, pixel: float
) -> TiltedView:
    """Optics of a prepared image; ``tilt`` is its angle, its turn in the plane, both in degrees, and the hand."""
    angle_deg, turn_deg, hand = tilt
    slope = math.tan(math.radians(max(-STEEPEST_DEG, min(STEEPEST_DEG, angle_deg))))
    optics = Optics(
        microscope.voltage_kv or 0.0,
        microscope.spherical_aberration_mm or 0.0,
        microscope.amplitude_contrast or 0.0,
        image.defocus_um - hand * measured_angstrom * slope / ANGSTROM_PER_UM,
        image.astigmatism_um,
        image.angle_deg + turn_deg,
        image.phase_shift_deg,
    )
    return TiltedView(optics, angle_deg, pixel, hand)


def _axis(places: Places, number: int) -> tuple[float, float]:
    """Where the middle of a recorded image lies in the prepared one, Å right of its middle, and how it was turned."""
    if places.views is None:
        (a, _), (c, _) = rotation(-places.tilt_axis_deg)
        return 0.0, math.degrees(math.atan2(c, a))
    view = places.views[number]
    back = np.linalg.inv(np.array(view.matrix))
    middle_px = back @ -np.array(view.offset_px)
    turn = math.degrees(math.atan2(back[1, 0], back[0, 0]))
    return float(middle_px[0]) * (places.pixel_size_angstrom or 0.0), turn


def _microscope(
    ctf: Ctf | None, settings: ReconstructSettings, elsewhere: ToldMicroscope
) -> tuple[Microscope, dict[str, str]]:
    """Values by setting, else of the defocus' file, else of others, else the usual ones.

    Returns:
        the values, and of each the file that it is of: empty for the setting and the defocus' own, `ASSUMED` for
        none.
    """
    told, told_by = (ctf.microscope, ctf.told_by) if ctf else (Microscope(), {})
    values: dict[str, float] = {}
    origins: dict[str, str] = {}
    for name, option in OPTIONS.items():
        given, other = getattr(settings, option), getattr(elsewhere.microscope, name)
        value, origins[name] = (getattr(told, name), told_by.get(name, "")) if given is None else (given, "")
        if value is None and other is not None:
            value, origins[name] = other, elsewhere.sources[name].name
        if value is None:
            value, origins[name] = getattr(USUAL, name), ASSUMED
        values[name] = value
    return Microscope(**values), origins


def _unusual(most: float, source: str) -> Iterator[str]:
    """What speaks against doses of which the highest is given, e/Å²."""
    least_usual, most_usual = USUAL_DOSES
    if not least_usual <= most <= most_usual:
        why = "sums that were counted twice" if most > most_usual else "another unit, or doses of frames"
        yield (
            f"Warning: by {source} the last image came after {most:.3g} e/Å², where series have {least_usual:g} to "
            f"{most_usual:g}: it looks like {why}"
        )


def _contradictions(
    told: Microscope, file: str, settings: ReconstructSettings, elsewhere: ToldMicroscope
) -> Iterator[str]:
    """What the defocus' file and others say differently, unless a setting says it."""
    for name, option in OPTIONS.items():
        here, there = getattr(told, name), getattr(elsewhere.microscope, name)
        if None in (here, there) or getattr(settings, option) is not None or math.isclose(here, there, rel_tol=0.02):
            continue
        unit, other = f" {UNITS[name]}".rstrip(), elsewhere.sources[name].name
        yield (
            f"Warning: {file} says {_NAMES[name]}{here:g}{unit}, {other} {there:g}{unit}; the first is taken, "
            f"--{option.replace('_', '-')} tells another"
        )


def _shown(microscope: Microscope, origins: Mapping[str, str]) -> str:
    return ", ".join(
        f"{label}{getattr(microscope, name):g} {UNITS[name]}".rstrip() + _in_brackets(origins[name])
        for name, label in _NAMES.items()
    )


def _in_brackets(origin: str) -> str:
    return f" ({origin})" if origin else ""
