"""A run with --ctf asks its images about the hand of the defocus gradient, before they are prepared.

What settings or files say is only compared with them; where nobody says it, or with ``--defocus-hand auto``, the images
decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cryolithe.reconstruction.correcting import Places, ctf_of, image_views
from cryolithe.reconstruction.hand_evidence import HandEvidence, Votes, asked_images, joined, paired, tile_px, votes_of
from cryolithe.reconstruction.job import ResolvedJob
from cryolithe.reconstruction.preparation import prepare_image
from cryolithe.reconstruction.sources import microscope_of

# Images are binned to about this pixel: finer detail has no power in tilted images, and tiles become many.
PIXEL_ANGSTROM = 5.0


def hand_evidence(run: ResolvedJob) -> HandEvidence | None:
    """What the images of a run tell of the hand; None without --ctf."""
    settings, pixel = run.job.settings, run.series.pixel_size_angstrom
    found = ctf_of(run.job.tilts, run.alignment, settings, run.job.reading)
    if found is None or pixel is None:
        return None
    how = replace(run.preparation, corrections=None, bin=max(1, int(PIXEL_ANGSTROM / pixel)))
    angles = tuple(image.angle_deg for image in run.alignment.images)
    places = Places(how.views, how.tilt_axis_deg, how.bin, pixel)
    elsewhere = microscope_of(run.job.tilts, run.job.angles, settings, run.job.reading)
    both = [image_views(found[0], angles, places, settings, (hand, elsewhere)) for hand in (1, -1)]
    votes: dict[float, Votes] = {}
    asked = asked_images(angles)
    tile = tile_px(how.image_shape(run.series.geometry.image_shape), [both[0][number] for number in asked])
    if tile is None:
        return HandEvidence()
    for number in asked:
        image = prepare_image(run.series, how, number)
        votes[angles[number]] = votes_of(image, (both[0][number], both[1][number]), tile)
    return paired(votes)


def hand_of_parts(runs: Sequence[ResolvedJob]) -> HandEvidence | None:
    """What parts of a series tell together, so that they are not corrected with different hands."""
    found = [evidence for run in runs if (evidence := hand_evidence(run)) is not None]
    return joined(found) if found else None


def settled_hand(run: ResolvedJob, note: Callable[[str], object] = lambda text: None) -> ResolvedJob:
    """A run that corrects its images with the hand that its settings, files or images say.

    Args:
        run: what is to be done.
        note: told what the images say.
    """
    made = run.corrections
    if made.hand is None:
        return run
    evidence = run.job.hand or hand_evidence(run) or HandEvidence()
    hand, who = made.hand
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
    corrected = made.of_hand(hand, evidence.record())
    return replace(run, corrections=corrected, preparation=replace(run.preparation, corrections=corrected.images))


def _origin(run: ResolvedJob) -> str:
    """Where the hand comes from that is taken while the images do not tell it."""
    found = ctf_of(run.job.tilts, run.alignment, run.job.settings, run.job.reading)
    return f"{found[1].name} says" if found is not None and found[0].hand else "IMOD has it"
