"""Whether dense matter is dark or bright in a tilt series: what the images say, what the user says, what is assumed.

Networks know dense matter by its sign: of inverted images they make a volume that looks finished and is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Contrast = Literal["dark", "bright"]
Source = Literal["images", "setting", "label", "assumed"]

# Below these the asymmetry of the back-projection may be chance, or the shape of what is no matter, such as ice.
LEAST_ASYMMETRY, LEAST_DEVIATIONS = 0.08, 2.0
# What a network explains counts if it is so much of the left-out tilts.
LEAST_EXPLAINED = 0.1
# A sign of this strength decides alone, and one of twice that at most balances the other (benchmarks/polarity.py).
DECISIVE_DEVIATIONS, DECISIVE_SHARE = 4.0, 0.06
# A network that explains so much, and so much more with one sign, is believed against an asymmetry that is weak: layers
# and channels have both tails.
DECISIVE_ALONE_SHARE, DECISIVE_EXPLAINED = 0.3, 0.3
WEAK_ASYMMETRY, WEAK_DEVIATIONS = 0.3, 5.0
# The phases of few waves are the specimen's, no chance as in a Gaussian field: layers had wrong tails of up to 4.5.
DECISIVE_OF_FEW_WAVES = 5.0
# Of a specimen of fewer waves than these, and than this share of those which its volume holds (small fields have few of
# all), the negative looks like the specimen itself, moved: what a network explains of layers and lattices is as often
# more with the wrong sign. Cells, single particles and vesicles have more (benchmarks/LOG.md).
FEWEST_WAVES, LEAST_WAVES = 100, 0.015
# A smaller share is no proof: light bodies in dense matter have the tail of the other sign and such a share of it;
# crowded cells too.
SURE_SHARE = 0.15
ASSUMED: Contrast = "dark"

_WHY: dict[Source, str] = {
    "images": "found from the images",
    "setting": "by --contrast",
    "label": "by the stack's label",
    "assumed": "assumed: the images do not tell",
}
_MOVED = "layers and lattices look much the same inverted"
_SHORT_TAIL = "so short a tail is hardly beyond chance"
_PORES = "light bodies in dense matter, such as pores"
_LOOKS_LIKE = f"{_PORES}, look like this inverted"
_LABEL = re.compile(r"^CryoLithe\b.*\bdense (dark|bright)$")


@dataclass(frozen=True)
class Evidence:
    """Signs of the polarity, see `evidence.asymmetry`; all 0 where images are too few or too small.

    Attributes:
        asymmetry: normalised third moment of what the halves of the tilts have in common, mean over bands and blocks;
            positive where dense matter is bright.
        deviations: the same in standard deviations of a Gaussian field's.
        explained_bright: correlation of the left-out tilts with a network's projections, taking bright for dense.
        explained_dark: the same, taking dark for dense.
        waves: of how many independent waves that consists which the halves have in common; None where that is not
            known.
        most_waves: as many as a specimen of no order would have in that volume.
    """

    asymmetry: float = 0.0
    deviations: float = 0.0
    explained_bright: float = 0.0
    explained_dark: float = 0.0
    waves: int | None = None
    most_waves: int = 0

    @property
    def fair(self) -> bool:
        """Whether the asymmetry is hardly chance: without that nothing else decides."""
        return abs(self.asymmetry) >= LEAST_ASYMMETRY and abs(self.deviations) >= LEAST_DEVIATIONS

    @property
    def share(self) -> float:
        """By which a network explains more with one sign than with the other; positive where that is bright."""
        most = self.explained
        return (self.explained_bright - self.explained_dark) / most if most >= LEAST_EXPLAINED else 0.0

    @property
    def explained(self) -> float:
        """What a network explains with the sign that it explains more with."""
        return max(self.explained_bright, self.explained_dark)

    @property
    def repeats(self) -> bool:
        """Whether the specimen is layers or a lattice, to which a network's share is no sign for a polarity."""
        return self.waves is not None and self.waves < min(FEWEST_WAVES, LEAST_WAVES * self.most_waves)

    @property
    def weakly_asymmetric(self) -> bool:
        """Whether the asymmetry is too small to stand against what a network explains."""
        return abs(self.asymmetry) < WEAK_ASYMMETRY and abs(self.deviations) < WEAK_DEVIATIONS

    @property
    def explained_alone(self) -> bool:
        """Whether what a network explains decides whatever a weak asymmetry says."""
        enough = abs(self.share) >= DECISIVE_ALONE_SHARE and self.explained >= DECISIVE_EXPLAINED
        return enough and not self.repeats

    @property
    def doubt(self) -> str:
        """Why what the signs say may be wrong; empty where it hardly is."""
        if self.repeats:
            return _MOVED
        if abs(self.share) < SURE_SHARE:
            return _LOOKS_LIKE
        return _SHORT_TAIL if abs(self.deviations) < DECISIVE_DEVIATIONS else ""

    def __str__(self) -> str:
        if self == Evidence():
            return "the images are too few, too small or mostly border, which tells nothing"
        side = "dark" if self.asymmetry < 0 else "bright"
        seen = f"a tail of {side} voxels" if self.fair else "no clear tail of dark or of bright voxels"
        tail = (
            f"the back-projection has {seen} (skewness {self.asymmetry:+.2f}, "
            f"{abs(self.deviations):.1f} sigma from chance)"
        )
        if not self.explained_dark and not self.explained_bright:  # too few tilts to leave any out
            return tail
        little = f", which tells little of layers or a lattice ({self.waves} waves)" if self.repeats else ""
        return (
            f"{tail}; a network predicts tilts that it did not see with correlation {self.explained_dark:.2f} if dense "
            f"is dark, {self.explained_bright:.2f} if bright{little}"
        )


@dataclass(frozen=True)
class Polarity:
    """What dense matter is taken to be.

    Attributes:
        contrast: "dark" or "bright".
        source: why: the images, the user's setting, the file's label of ours, or nothing ("assumed").
        found: what the images say; None where they do not tell.
        labelled: what the stack's newest label says, if that is ours.
        evidence: by which.
    """

    contrast: Contrast
    source: Source
    found: Contrast | None
    labelled: Contrast | None
    evidence: Evidence

    @property
    def words(self) -> str:
        """What and why, in a few words."""
        return f"dense matter {self.contrast} ({_WHY[self.source]})"

    @property
    def line(self) -> str:
        """One line for the user."""
        doubt = f", which is not sure: {self.evidence.doubt}" if self.source == "images" and self.weak else ""
        return f"Contrast: {self.words}; {self.evidence}{doubt}."

    @property
    def weak(self) -> bool:
        """Whether what the images say could as well be the other polarity of another specimen."""
        return self.found is not None and bool(self.evidence.doubt)

    def label(self, text: str) -> str:
        """A label of this program for the volume, which keeps the polarity of its images, with that at its end."""
        return f"{text}, dense {self.contrast}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user must know; empty as it should be."""
        if self.source == "assumed":
            return (
                f"contrast: the images do not tell whether dense matter is dark or bright ({self.evidence}); {ASSUMED} "
                "is assumed, as in cryo-EM: if that is wrong, so is the volume; give --contrast dark or bright",
            )
        if self.found is not None and self.found != self.contrast and self.weak:
            return (
                f"contrast: --contrast says that dense matter is {self.contrast}, but these images look rather "
                f"{self.found} ({self.evidence}), which is not sure: {self.evidence.doubt}",
            )
        if self.found is not None and self.found != self.contrast:
            return (
                f"contrast: --contrast says that dense matter is {self.contrast}, but in these images it is "
                f"{self.found} ({self.evidence}), unless they show {_PORES}; of inverted images a network's volume is "
                f"wrong, of such bodies worse than that of --method fbp: compare with that, or give --contrast "
                f"{self.found} or auto",
            )
        if self.labelled is not None and self.source == "images" and self.labelled != self.contrast:
            return (
                f"contrast: the stack's label says that dense matter is {self.labelled}, but in these images it is "
                f"{self.found} ({self.evidence}), which is believed; give --contrast {self.labelled} if the label is "
                "right",
            )
        return ()

    def record(self) -> dict[str, Any]:
        """Plain values for the sidecar, the evidence among them."""
        values = asdict(self)
        evidence = values.pop("evidence")
        return {**values, **evidence}


def polarity_of_record(record: dict[str, Any]) -> Polarity:
    """The reverse of `Polarity.record`."""
    # Records of earlier versions lack some.
    evidence = Evidence(**{entry.name: record[entry.name] for entry in fields(Evidence) if entry.name in record})
    return Polarity(record["contrast"], record["source"], record["found"], record["labelled"], evidence)


def decide(evidence: Evidence) -> Contrast | None:
    """What the images say; None where the signs are too weak or contradict each other."""
    share, decisive = evidence.share, DECISIVE_OF_FEW_WAVES if evidence.repeats else DECISIVE_DEVIATIONS
    if evidence.repeats and share * evidence.asymmetry > 0:
        share = 0.0  # may raise doubts, but proves nothing
    signs = evidence.deviations / decisive, share / DECISIVE_SHARE
    score = sum(max(-2.0, min(2.0, sign)) for sign in signs)
    if evidence.fair and evidence.weakly_asymmetric and evidence.explained_alone:
        return "bright" if evidence.share > 0 else "dark"
    if not evidence.fair or abs(score) < 1 or score * evidence.asymmetry < 0:
        return None
    return "bright" if score > 0 else "dark"


def average(evidence: Sequence[Evidence]) -> Evidence:
    """Evidence of several looks at one specimen: what they share does not get surer by being seen twice.

    The asymmetry of a look that sees nothing but noise is any number, so each weighs by how sure it is.
    """
    weights = [abs(one.deviations) for one in evidence]
    asymmetry = sum(w * one.asymmetry for w, one in zip(weights, evidence, strict=True)) / (sum(weights) or 1.0)
    deviations, bright, dark = (
        sum(column) / len(evidence)
        for column in zip(*((o.deviations, o.explained_bright, o.explained_dark) for o in evidence), strict=True)
    )
    counted = [one for one in evidence if one.waves is not None]
    waves = round(sum(one.waves or 0 for one in counted) / len(counted)) if counted else None
    most = max((one.most_waves for one in counted), default=0)
    return Evidence(round(asymmetry, 4), round(deviations, 2), round(bright, 4), round(dark, 4), waves, most)


def settle(setting: Contrast | Literal["auto"], labels: Sequence[str], evidence: Evidence) -> Polarity:
    """What dense matter is taken to be: a setting beats the images, those a label of ours, that the habit.

    A label stays when another program inverts the images, so it counts only where they do not contradict it.

    Args:
        setting: "dark", "bright" or "auto".
        labels: of the stack's header, oldest first.
        evidence: of the images.
    """
    found, labelled = decide(evidence), _labelled(labels)
    if setting != "auto":
        return Polarity(setting, "setting", found, labelled, evidence)
    if labelled is not None and found in (None, labelled):
        return Polarity(labelled, "label", found, labelled, evidence)
    if found is not None:
        return Polarity(found, "images", found, labelled, evidence)
    return Polarity(ASSUMED, "assumed", None, labelled, evidence)


def told_contrast(setting: Contrast | Literal["auto"], labels: Sequence[str]) -> Contrast | None:
    """What dense matter is said to be, where nothing looks at the images; None where nobody says it.

    Args:
        setting: "dark", "bright" or "auto".
        labels: of the stack's header, oldest first.
    """
    return setting if setting != "auto" else _labelled(labels)


def _labelled(labels: Sequence[str]) -> Contrast | None:
    """What the newest label says, if it is one of ours: those before it tell of images before they were changed."""
    said = _LABEL.match(labels[-1].strip()) if labels else None
    if said is None:
        return None
    return "bright" if said[1] == "bright" else "dark"
