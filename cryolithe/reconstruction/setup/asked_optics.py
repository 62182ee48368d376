"""A run with --ctf asks its images about the defocus and the hand of its gradient, before they are prepared.

What settings or files say is only compared with them; where nobody says the hand, or with ``--defocus-hand auto``, the
images decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cryolithe.optics.transfer import TiltedView
from cryolithe.reconstruction.evidence.hand_evidence import HandEvidence, Votes, asked_images, paired, tile_px, votes_of
from cryolithe.reconstruction.evidence.optics_evidence import OpticsEvidence, joined
from cryolithe.reconstruction.evidence.thon_rings import (
    RingEvidence,
    Rings,
    asked_for_rings,
    ring_evidence,
    strange_images,
)
from cryolithe.reconstruction.images.correcting import Places, ctf_of, image_views
from cryolithe.reconstruction.images.preparation import prepare_image
from cryolithe.reconstruction.jobs.job import ResolvedJob
from cryolithe.reconstruction.jobs.sources import microscope_of

# Images are binned to about this pixel: finer detail has no power in tilted images, and tiles become many.
PIXEL_ANGSTROM = 5.0
_NAMED = 6


def optics_evidence(run: ResolvedJob) -> OpticsEvidence | None:
    """What the images of a run tell of its optics; None without --ctf."""
    settings, pixel = run.job.settings, run.series.pixel_size_angstrom
    found = ctf_of(run.job.tilts, run.alignment, settings, run.job.reading)
    if found is None or pixel is None:
        return None
    how = replace(run.preparation, corrections=None, bin=max(1, int(PIXEL_ANGSTROM / pixel)))
    angles = tuple(image.angle_deg for image in run.alignment.images)
    places = Places(how.views, how.tilt_axis_deg, how.bin, pixel)
    elsewhere = microscope_of(run.job.tilts, run.job.angles, settings, run.job.reading)
    ahead, behind = (image_views(found[0], angles, places, settings, (hand, elsewhere)) for hand in (1, -1))
    shape = how.image_shape(run.series.geometry.image_shape)
    hands = _Hands(ahead, behind, asked_images(angles), shape)
    rings = Rings(ahead, asked_for_rings(angles), shape)
    for number in sorted({*hands.asked, *rings.asked}):
        image = prepare_image(run.series, how, number)
        hands.ask(number, image)
        rings.ask(number, image)
    return OpticsEvidence(hands.found(), rings.found())


class _Hands:
    """Asks images of a series about the hand, one by one."""

    def __init__(
        self, ahead: Sequence[TiltedView], behind: Sequence[TiltedView], asked: tuple[int, ...], shape: tuple[int, int]
    ) -> None:
        self._views = ahead, behind
        self._tile = tile_px(shape, [ahead[number] for number in asked])
        self._votes: dict[float, Votes] = {}
        self.asked = asked if self._tile else ()

    def ask(self, number: int, image: NDArray[np.float32]) -> None:
        """Ask an image, if it is one of those to be asked."""
        if self._tile and number in self.asked:
            ahead, behind = self._views[0][number], self._views[1][number]
            self._votes[ahead.angle_deg] = votes_of(image, (ahead, behind), self._tile)

    def found(self) -> HandEvidence:
        """What all of them tell."""
        return paired(self._votes)


def optics_of_parts(runs: Sequence[ResolvedJob]) -> OpticsEvidence | None:
    """What parts of a series tell together, so that they are not corrected with different hands."""
    found = [evidence for run in runs if (evidence := optics_evidence(run)) is not None]
    return joined(found) if found else None


def settled_optics(run: ResolvedJob, note: Callable[[str], object] = lambda text: None) -> ResolvedJob:
    """A run that corrects its images with the hand that its settings, files or images say.

    Args:
        run: what is to be done.
        note: told what the images say.
    """
    made = run.corrections
    if made.hand is None:
        return run
    told = run.job.optics or optics_evidence(run) or OpticsEvidence()
    evidence, (hand, who) = told.hand, made.hand
    surely = f"{abs(evidence.score):.1f} standard errors, {evidence.images} images"
    if who:
        if evidence.hand == hand:
            note(f"Defocus hand: the images confirm {hand:+d} ({surely}).")
        elif evidence.hand is not None:
            note(
                f"Warning: defocus hand {hand:+d} ({who}), but the images say {evidence.hand:+d} ({surely}); "
                f"--defocus-hand {evidence.hand} or auto takes what they say."
            )
        else:
            note(f"Defocus hand: {hand:+d} ({who}); the images do not tell it ({surely}).")
    elif evidence.hand is not None:
        hand = evidence.hand
        note(f"Defocus hand: {hand:+d}, found from the images ({surely}).")
    else:
        note(
            f"Note: the images do not tell the hand of the defocus gradient ({surely}): {hand:+d} is taken, as "
            f"{_origin(run)}; --defocus-hand 1 or -1 says it."
        )
    rings, images = ring_evidence(told.rings), run.alignment.images
    # By the numbers that images have in their stack.
    strange = {images[place].section + 1: one for place, one in strange_images(told.rings).items()}
    for text in _defocus_notes(rings, strange, run):
        note(text)
    by_images = {**rings.record(), "strange_images": {str(n): round(one.best_um, 3) for n, one in strange.items()}}
    corrected = made.of_optics(hand, {"hand_by_images": evidence.record(), "defocus_by_images": by_images})
    return replace(run, corrections=corrected, preparation=replace(run.preparation, corrections=corrected.images))


def _origin(run: ResolvedJob) -> str:
    """Where the hand comes from that is taken while the images do not tell it."""
    found = ctf_of(run.job.tilts, run.alignment, run.job.settings, run.job.reading)
    return f"{found[1].name} says" if found is not None and found[0].hand else "IMOD has it"


def _defocus_notes(rings: RingEvidence, strange: Mapping[int, RingEvidence], run: ResolvedJob) -> Iterator[str]:
    """What the rings of the images say of the defocus that was told."""
    found = ctf_of(run.job.tilts, run.alignment, run.job.settings, run.job.reading)
    if found is None or not rings.images:
        return
    file = found[1].name
    if rings.found_um is not None:
        yield (
            f"Warning: {file} tells a defocus of {rings.told_um:.2g} µm, but the images have rings of "
            f"{rings.found_um:.2g} µm: is it the file of another series, or are the pixel size, the voltage or a phase "
            "shift others? What lies beyond the first zero of the CTF is spoilt by a wrong defocus."
        )
    elif strange:
        shown = ", ".join(
            f"{number} ({one.told_um:.2g}, {one.best_um:.2g} µm)" for number, one in list(strange.items())[:_NAMED]
        )
        yield (
            f"Warning: images have rings of another defocus than {file} tells: "
            f"{shown}{', and others' if len(strange) > _NAMED else ''} (told, found). Are its rows in another order "
            "than the images, or are fits of single images wrong?"
        )
    elif rings.confirmed:
        yield f"Defocus: rings of {rings.images} images confirm {file} ({rings.told_um:.2g} µm)."
    else:
        yield f"Defocus: {rings.told_um:.2g} µm ({file}); the images have no rings that are clear enough to tell it."
