"""One evaluation: every test that the inputs allow, and for each other one the reason why not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.spectra import FloatArray, half_spectrum
from cryolithe.artefacts.half_agreement import Expected
from cryolithe.artefacts.missing_wedge import holds_nothing, wedge_doubts
from cryolithe.evaluation.in_hand import Named
from cryolithe.evaluation.inputs import Task, release
from cryolithe.evaluation.local import Agreement, agreement_map, summarise, window_sigma_px
from cryolithe.evaluation.matching import MatchingScore, match_template
from cryolithe.evaluation.middles import Compared, compared, place_of_middle
from cryolithe.evaluation.pair_doubts import Looks, doubts_about, opposite_correlation, sentence
from cryolithe.evaluation.picking import (
    TOLERANCE,
    PickingScore,
    binned,
    match,
    pick_blobs,
    picking_score,
)
from cryolithe.evaluation.reprojection import Pictured, Reprojection, reproject
from cryolithe.evaluation.similarity import (
    HalfSnr,
    RegionSnr,
    Similarity,
    density_sign,
    half_snr,
    pair_moments,
    region_snr,
    similarity,
)
from cryolithe.evaluation.spectral import ConeFsc, cone_correlation
from cryolithe.evaluation.tilt_images import Images
from cryolithe.evaluation.wedge import WedgeEnergy, wedge_energy
from cryolithe.metrics import FscCurve, Resolution, mean_correlation, resolution_at, shell_correlation
from cryolithe.report.figures import THRESHOLDS
from cryolithe.report.greys import dark_sign, told_polarity

Array = NDArray[Any]

OPPOSITE = -0.1  # low-frequency correlation below which a reference is taken to have the other polarity
FEWEST_MORE = 3  # particles, beside twice as many, to be found in the other contrast, or turned round, for a word on it
FEWEST_BINNED = 8  # voxels along the shortest axis of what low frequencies are judged on
MOST_BINNING = 8


@dataclass(frozen=True)
class Curves:
    """Fourier shell correlation and what is read off it.

    Attributes:
        fsc: total, measured and missing.
        mean: of each column over the shells.
        resolution: of each column, by threshold.
        cones: by direction.
        cone_resolution: of each direction, by threshold.
    """

    fsc: FscCurve
    mean: dict[str, float]
    resolution: dict[str, dict[str, Resolution]]
    cones: ConeFsc
    cone_resolution: dict[str, dict[str, Resolution]]


@dataclass(frozen=True)
class ReferenceScores:
    """The volume against a reference.

    Attributes:
        reference: its name.
        polarity: ``"same"``, ``"opposite, reference flipped"`` or ``"opposite, kept"``.
        low_frequency_correlation: as found, before a flip.
        shape_zyx: of what was compared.
        similarity: in real space.
        curves: in Fourier space.
        wedge: energies of the reference, for comparison.
    """

    reference: str
    polarity: str
    low_frequency_correlation: float
    shape_zyx: tuple[int, ...]
    similarity: Similarity
    curves: Curves
    wedge: WedgeEnergy


@dataclass(frozen=True)
class HalfScores:
    """Two halves against each other."""

    halves: tuple[str, str]
    shape_zyx: tuple[int, ...]
    snr: HalfSnr
    curves: Curves
    agreement: Agreement


@dataclass(frozen=True)
class Evaluation:
    """All scores; None where a test was not made, with the reason in ``skipped``."""

    volume: str
    shape_zyx: tuple[int, ...]
    voxel_size_angstrom: float | None
    tilt_range_deg: tuple[float, float]
    wedge: WedgeEnergy
    reference: ReferenceScores | None = None
    halves: HalfScores | None = None
    reprojection: Reprojection | None = None
    region_snr: RegionSnr | None = None
    picking: PickingScore | None = None
    matching: MatchingScore | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pictures:
    """Arrays for the figures, and the agreement map and its place; ``sign`` is what the reference was multiplied by.

    ``picks`` are the best first; ``dark`` is whether dense matter is dark in the volume, or taken to be.
    """

    volume: Array
    dark: bool = True
    reference: Array | None = None
    sign: float = 1.0
    agreement: Array | None = None
    agreement_origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)
    images: tuple[Pictured, ...] = ()
    picks: FloatArray | None = None
    hits: NDArray[np.bool_] | None = None
    known: FloatArray | None = None

    @property
    def drawn_sign(self) -> float:
        """What the volume's values are multiplied by to be drawn."""
        return dark_sign(self._contrast)

    @property
    def polarity(self) -> str:
        """What a caption says of the greys of a drawing."""
        return told_polarity(self._contrast)

    @property
    def _contrast(self) -> str:
        return "dark" if self.dark else "bright"


def evaluate(task: Task, on_step: Callable[[str], object] = lambda name: None) -> tuple[Evaluation, Pictures]:
    """Make every test that the inputs allow.

    Args:
        task: checked inputs.
        on_step: told the name of each step before it.
    """
    on_step("energy in the wedge")
    done = Evaluation(
        task.volume.name, task.volume.voxels.shape, task.volume.voxel_size_angstrom, task.tilt_range_deg,
        wedge_energy(task.volume.voxels, task.tilt_range_deg), notes=task.notes,
        warnings=(*task.warnings, *_wedge_doubts(task)),
    )  # fmt: skip
    shown = Pictures(task.volume.voxels, task.dark)
    skipped: dict[str, str] = {}
    release(task.volume, task.reference, *(task.halves or ()))
    if task.reference:
        on_step("reference")
        done, shown = _with_reference(task, task.reference, done, shown)
        release(task.volume, task.reference)
    else:
        skipped["comparison with a reference (FSC, SNR, PSNR, SSIM)"] = "no --reference was given"
    if task.halves:
        on_step("halves")
        done, shown = _with_halves(task, task.halves, done, shown)
        release(*task.halves)
    else:
        skipped["even/odd halves (FSC, Frank & Al-Ali SNR, agreement map)"] = "no --half1 and --half2 were given"
    if task.images:
        on_step("reprojection")
        chosen = task.images
        scores, images = reproject(task.volume.voxels, chosen.series, chosen.choice, chosen.x_tilt_deg)
        done, shown = replace(done, reprojection=scores), replace(shown, images=images)
        if reason := _not_held_out(chosen):
            skipped["reprojection at held-out tilts"] = reason
        elif scores.mean_correlation < 0:
            done = replace(done, warnings=(*done.warnings, (
                "Projections of the volume correlate negatively with the images: polarity, tilt axis or angles differ."
            )))  # fmt: skip
    else:
        skipped["reprojection at held-out tilts"] = "no --tilts and --angles were given"
    done, shown = _with_particles(task, done, shown, skipped, on_step)
    return replace(done, skipped=skipped), shown


def _not_held_out(images: Images) -> str:
    """Why a comparison with images is no test of truth; empty where it is one, or the user says that it is."""
    choice = images.choice
    if choice.use == "held out":
        return ""
    known = {
        "seen": "no image is known to have been left out of the reconstruction",
        "other frames": "the volume was made from other frames of the same tilts",
        "unknown": "it is not known which images the volume was made from",
    }
    if choice.use == "unknown" and images.named:
        return f"--held-out names images, but nobody can tell whether the volume was made without them: {choice.reason}"
    return (
        f"{known[choice.use]} ({choice.reason}); projections were compared with images that the volume may have been "
        "made from, which tests consistency, not truth. Reconstruct without some tilts, and keep the record (.json) "
        "beside the volume"
    )


def low_frequency_correlation(a: Array, b: Array) -> float:
    """Correlation of two volumes after averaging blocks of up to 8³ voxels."""
    factor = max(1, min(MOST_BINNING, min(a.shape) // FEWEST_BINNED))
    return pair_moments(binned(a, factor), binned(b, factor)).correlation


def _wedge_doubts(task: Task) -> tuple[str, ...]:
    """What the volumes show against the tilt range that was told or assumed."""
    own = [task.volume, *(task.halves or ())]
    doubts = [line for one in own for line in wedge_doubts(one.voxels, one.name, task.tilt_range_deg, "--tilt-range")]
    if task.reference and not doubts:
        doubts += holds_nothing(task.reference.voxels, task.reference.name, task.tilt_range_deg)
    return tuple(map(sentence, doubts))


def curves(pair: Compared, tilt_range_deg: tuple[float, float], voxel_size_angstrom: float | None) -> Curves:
    """Correlate two volumes, already checked, over shells and cones."""
    first, second = half_spectrum(pair.first, pair.weights), half_spectrum(pair.second, pair.weights)
    fsc = shell_correlation(first, second, pair.first.shape, tilt_range_deg)
    cones = cone_correlation(first, second, pair.first.shape)

    def resolutions(values: FloatArray) -> dict[str, Resolution]:
        return {str(t): resolution_at(values, fsc.frequency_per_px, t, voxel_size_angstrom) for t in THRESHOLDS}

    return Curves(
        fsc,
        {name: mean_correlation(values) for name, values in fsc.columns().items()},
        {name: resolutions(values) for name, values in fsc.columns().items()},
        cones,
        {name: resolutions(values) for name, values in zip(cones.names, cones.values, strict=True)},
    )


def _with_reference(task: Task, reference: Named, done: Evaluation, shown: Pictures) -> tuple[Evaluation, Pictures]:
    pair = compared(reference, task.volume, task.mask)
    low = low_frequency_correlation(pair.first, pair.second)
    polarity, sign, warnings = "same", 1.0, list(done.warnings)
    if low < OPPOSITE:
        polarity = "opposite, kept" if task.keep_sign else "opposite, reference flipped"
        sign = 1.0 if task.keep_sign else -1.0
        warnings.append(
            f"The reference {reference.name} has the other polarity: its low frequencies correlate with the volume's "
            f"at {low:.2f}. "
            + ("Its sign was kept (--keep-sign)." if task.keep_sign else "Its sign was flipped for this comparison.")
        )
    if sign < 0:
        pair = replace(pair, first=-pair.first)
        release(reference)
    expected = Expected(reference=True, opposite_z=task.reference_opposite_z)
    looks = Looks((pair.second, pair.first), (task.volume.name, reference.name), expected, borders=False)
    warnings += map(sentence, doubts_about(looks))
    scores = ReferenceScores(
        reference.name, polarity, low, pair.first.shape,
        similarity(pair.first, pair.second, pair.inside),
        curves(pair, task.tilt_range_deg, task.volume.voxel_size_angstrom or reference.voxel_size_angstrom),
        wedge_energy(pair.first, task.tilt_range_deg),
    )  # fmt: skip
    return (
        replace(done, reference=scores, warnings=tuple(warnings), notes=_crop_note(task, reference, pair, done.notes)),
        replace(shown, reference=reference.voxels, sign=sign),
    )


def _with_halves(
    task: Task, halves: tuple[Named, Named], done: Evaluation, shown: Pictures
) -> tuple[Evaluation, Pictures]:
    pair = compared(*halves, task.mask)
    sigma = window_sigma_px(pair.first.shape)
    voxel = task.volume.voxel_size_angstrom or halves[0].voxel_size_angstrom
    snr = half_snr(pair.first, pair.second, pair.inside)
    correlations = curves(pair, task.tilt_range_deg, voxel)  # before the map, which is another volume in memory
    agreement = agreement_map(pair.first, pair.second, sigma)
    scores = HalfScores(
        (halves[0].name, halves[1].name), pair.first.shape, snr, correlations,
        summarise(agreement, sigma, pair.inside),
    )  # fmt: skip
    looks = Looks(
        (pair.first, pair.second),
        (halves[0].name, halves[1].name),
        Expected(own_noise=True, opposite_z=task.halves_opposite_z),
        borders=task.mask is None,
    )
    fsc = correlations.fsc
    warnings = (*done.warnings, *map(sentence, doubts_about(looks, fsc)))
    if snr.correlation <= 0 and opposite_correlation(fsc.total, fsc.counts) is None:
        warnings = (*warnings, f"The halves do not correlate ({snr.correlation:.3f}): do they belong together?")
    origin = place_of_middle(halves[0], pair.first.shape)
    shown = replace(shown, agreement=agreement, agreement_origin_angstrom=origin)
    return replace(done, halves=scores, warnings=warnings), shown


def _with_particles(
    task: Task, done: Evaluation, shown: Pictures, skipped: dict[str, str], on_step: Callable[[str], object]
) -> tuple[Evaluation, Pictures]:
    """Region SNR, picking and template matching."""
    tests = ("region SNR", "picking by difference of Gaussians", "template matching")
    voxel, shape = task.volume.voxel_size_angstrom, np.array(task.volume.voxels.shape)
    reason = ""
    if task.particles is None:
        reason = "no --particles were given"
    elif voxel is None:
        reason = "the volume's header has no voxel size, so the particle diameter in voxels is unknown"
    if reason or task.particles is None or voxel is None:
        return done, _skip(shown, skipped, tests, reason)
    inside = np.flatnonzero(task.particles.inside(task.volume.voxels.shape))
    known, kinds = task.particles.position_px[inside], [task.particles.kinds[number] for number in inside]
    diameter_px = task.diameter_angstrom / voxel
    if not len(known):
        return done, _skip(shown, skipped, tests, "none of the --particles lies in the volume")
    if diameter_px < 4 or diameter_px > shape.min():
        reason = (
            f"a particle of {task.diameter_angstrom:g} Å is {diameter_px:.1f} voxels wide; expected 4 to {shape.min()}"
        )
        return done, _skip(shown, skipped, tests, reason)
    on_step("picking")
    region = region_snr(task.volume.voxels, known, diameter_px)
    if region is None:
        skipped[tests[0]] = (
            "no particle lies a radius inside the volume, or no background a diameter from all particles"
        )
    bright = -task.volume.voxels if task.dark else task.volume.voxels
    picks, _ = pick_blobs(bright, diameter_px)
    hits = match(picks, known, TOLERANCE * diameter_px)
    done = replace(done, region_snr=region, picking=picking_score(hits, len(known), task.diameter_angstrom))
    doubts = *_contrast_doubt(task, bright, known, int(hits.sum())), *_depth_doubt(task, bright, picks, known)
    done = replace(done, warnings=(*done.warnings, *doubts))
    shown = replace(shown, picks=picks, hits=hits, known=known)
    if task.template is None:
        skipped[tests[2]] = "no --template was given"
        return done, shown
    targets = known[[kind == task.kind for kind in kinds]] if task.kind else known
    if not len(targets):
        names = ", ".join(sorted(set(kinds))[:6])
        skipped[tests[2]] = f"no particle in the volume is of the kind '{task.kind}'; there are {names}"
        return done, shown
    on_step("template matching")
    return replace(done, matching=_matching(task, task.template, bright, targets)), shown


def _contrast_doubt(task: Task, bright: Array, known: FloatArray, true: int) -> tuple[str, ...]:
    """A sentence where the particles show that dense matter has the other sign: so picked, clearly more are found."""
    diameter_px = task.diameter_angstrom / (task.volume.voxel_size_angstrom or 1.0)
    if density_sign(bright, known, diameter_px) >= 0:
        return ()
    found = int(match(pick_blobs(-bright, diameter_px)[0], known, TOLERANCE * diameter_px).sum())
    if found <= FEWEST_MORE + 2 * true:
        return ()
    taken, other = ("dark", "bright") if task.dark else ("bright", "dark")
    return (
        f"Dense matter is taken to be {taken} in the volume, but is {other} at the particles: picking and template "
        f"matching look for the opposite (of {len(known)} particles {true} are found, {found} in the other contrast); "
        f"give --contrast {other}.",
    )


def _depth_doubt(task: Task, bright: Array, picks: FloatArray, known: FloatArray) -> tuple[str, ...]:
    """A sentence where particles are not at the positions, but where these are with z turned round."""
    diameter_px = task.diameter_angstrom / (task.volume.voxel_size_angstrom or 1.0)
    turned = known * (-1, 1, 1) + (bright.shape[0] - 1, 0, 0)
    if density_sign(bright, known, diameter_px) != 0 or density_sign(bright, turned, diameter_px) <= 0:
        return ()
    true, found = (int(match(picks, places, TOLERANCE * diameter_px).sum()) for places in (known, turned))
    if found <= FEWEST_MORE + 2 * true:
        return ()
    return (
        f"The particles are where the positions are with z turned round (of {len(known)} particles {true} are found, "
        f"{found} so): all scores of particles are wrong. Give positions that were found in this volume, or a volume "
        "of the other sense of z (--handedness, --flip-z).",
    )


def _matching(task: Task, template: Named, bright: Array, targets: FloatArray) -> MatchingScore:
    voxel = task.volume.voxel_size_angstrom or 1.0
    scale = voxel / (template.voxel_size_angstrom or voxel)
    return match_template(bright, template.voxels, targets, task.diameter_angstrom, voxel, scale, task.tilt_range_deg)


def _skip(shown: Pictures, skipped: dict[str, str], tests: tuple[str, ...], reason: str) -> Pictures:
    skipped.update(dict.fromkeys(tests, reason))
    return shown


def _crop_note(task: Task, other: Named, pair: Compared, notes: tuple[str, ...]) -> tuple[str, ...]:
    """Say what was cut, and where the middles are half a voxel apart."""
    shapes = (task.volume.voxels.shape, other.voxels.shape)
    if shapes[0] == shapes[1] == pair.first.shape:
        return notes
    odd = any(math.fmod(a - b, 2) for a, b in zip(*shapes, strict=True))
    half = " Where sizes differ by an odd number the middles lie half a voxel apart." if odd else ""
    return (
        *notes,
        f"Compared were the middle {pair.first.shape} voxels of {shapes[0]} and {shapes[1]} (z, y, x).{half}",
    )
