"""What images tell of the optics that they were recorded with, before anything is corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryolithe.reconstruction.evidence import hand_evidence, thon_rings
from cryolithe.reconstruction.evidence.hand_evidence import HandEvidence
from cryolithe.reconstruction.evidence.thon_rings import RingSpectra


@dataclass(frozen=True)
class OpticsEvidence:
    """What images tell.

    Attributes:
        hand: of the defocus gradient.
        rings: power of the images, which tells the defocus.
    """

    hand: HandEvidence = field(default_factory=HandEvidence)
    rings: RingSpectra = field(default_factory=RingSpectra)


def joined(parts: Sequence[OpticsEvidence]) -> OpticsEvidence:
    """What parts of a series tell together: halves of the same frames, or images of other tilts."""
    return OpticsEvidence(
        hand_evidence.joined([part.hand for part in parts]), thon_rings.joined([part.rings for part in parts])
    )
