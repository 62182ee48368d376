"""Scores on a fixed benchmark: simulated specimens of held-out molecules, white noise, known truth.

What a user gets is scored, the network's volume with its missing wedge weighed by left-out tilts and its share of
filtered back-projection, and the network alone beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.known import NOTHING, Known
from cryolithe.metrics import FscCurve, fourier_shell_correlation, mean_correlation, scaled_snr_db
from cryolithe.network import Network
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp, sirt_margin_px
from cryolithe.reconstruction.slabwise.fusion import Fusion
from cryolithe.reconstruction.slabwise.methods import ON_CPU, Compute, NetworkMethod, SirtMethod
from cryolithe.reconstruction.slabwise.mixing import Reader, choose_parts, curve_of_volumes, measure_trust
from cryolithe.reconstruction.slabwise.networks import FBP_SHARE
from cryolithe.reconstruction.slabwise.trust import choose_trials, expected_trust, wedge_filter
from cryolithe.sampling import reflected_rows
from cryolithe.simulation import Molecule, SpecimenRecipe, add_white_noise, make_specimen, project
from cryolithe.simulation.molecules import PROCEDURAL_1

BENCHMARK_ANGLES_DEG = tuple(float(a) for a in np.arange(-60.0, 60.1, 3.0))
BENCHMARK_RECIPE = SpecimenRecipe(
    shape=(64, 128, 128),
    voxel_size_angstrom=(10.0, 10.0),
    crowding=(0.05, 0.12),
    procedural_share=0.0,
    membranes=(0, 0),
    body_chance=0.0,
    bead_chance=0.0,
)
SIRT_ITERATIONS = 15
_SEEDS = 1 << 32  # a seed is not negative
# Names of what is scored. The network as a user gets it, and without filtered back-projection.
FBP, SIRT, NETWORK, ALONE = "fbp", "sirt", "network", "network alone"


@dataclass(frozen=True)
class WorstShell:
    """Where an estimate falls farthest below filtered back-projection: the promise is nowhere by more than 0.01.

    Attributes:
        difference: least of the measured FSC with the truth minus that of filtered back-projection, over the shells
            between the first and the last; negative where the estimate is worse.
        frequency_per_px: of that shell, cycles/px.
    """

    difference: float
    frequency_per_px: float


@dataclass(frozen=True)
class Score:
    """How near an estimate comes to the truth.

    Attributes:
        snr_db: reconstruction SNR after the best affine fit.
        fsc_measured: mean FSC over the shells up to the last before Nyquist, measured region.
        fsc_missing: the same in the missing wedge.
        worst_shell: in comparison with filtered back-projection; None where nothing was compared.
    """

    snr_db: float
    fsc_measured: float
    fsc_missing: float
    worst_shell: WorstShell | None = None


def range_of(angles_deg: Iterable[float]) -> tuple[float, float]:
    """Lowest and highest tilt of a series, for the FSC: with frequencies within them and beyond."""
    angles = tuple(angles_deg)
    low, high = (min(89.0, max(-89.0, end)) for end in (min(angles), max(angles)))
    middle = min(88.0, max(-88.0, (low + high) / 2))
    return (low, high) if high - low > 1 else (middle - 1, middle + 1)


def truth_fsc(
    truth: NDArray[np.float32], estimate: NDArray[np.float32], tilt_range_deg: tuple[float, float]
) -> FscCurve:
    """FSC of an estimate with the truth, both ``(z, y, x)``, for tilts from the lowest to the highest."""
    return fourier_shell_correlation(truth, estimate, tilt_range_deg=tilt_range_deg)


def worst_shell(curve: FscCurve, back: FscCurve) -> WorstShell:
    """Compare an estimate with filtered back-projection shell by shell in the measured region.

    Args:
        curve: of the estimate with the truth.
        back: of filtered back-projection with the same truth.
    """
    assert curve.measured is not None
    assert back.measured is not None
    change = (curve.measured - back.measured)[1:-1]
    worst = int(np.nanargmin(change))
    return WorstShell(float(change[worst]), float(curve.frequency_per_px[1 + worst]))


def worst_of(shells: Iterable[WorstShell]) -> WorstShell:
    """The worst of several series."""
    return min(shells, key=lambda shell: shell.difference)


def score_volume(
    truth: NDArray[np.float32],
    estimate: NDArray[np.float32],
    tilt_range_deg: tuple[float, float] = (-60.0, 60.0),
    back: FscCurve | None = None,
) -> Score:
    """Compare an estimate with the truth.

    Args:
        truth: shape ``(z, y, x)``.
        estimate: the same shape.
        tilt_range_deg: lowest and highest tilt.
        back: FSC of filtered back-projection with the truth, to be compared with shell by shell.
    """
    curve = truth_fsc(truth, estimate, tilt_range_deg)
    assert curve.measured is not None
    assert curve.missing is not None
    worst = None if back is None else worst_shell(curve, back)
    measured, missing = (mean_correlation(values) for values in (curve.measured, curve.missing))
    return Score(scaled_snr_db(truth, estimate), measured, missing, worst)


def reconstruct_array(
    network: Network,
    images: NDArray[np.float32],
    angles_deg: tuple[float, ...],
    depth: int,
    compute: Compute = ON_CPU,
    known: Known = NOTHING,
) -> NDArray[np.float32]:
    """Apply a network alone to a small series at once; `finished_array` makes of it what users get.

    Args:
        network: float32 weights on the CPU.
        images: shape ``(tilts, y, x)``, mean removed, dense = positive.
        angles_deg: tilt angles.
        depth: thickness of the volume in voxels.
        compute: device and precision.
        known: what is known of the series.

    Returns:
        shape ``(depth, y, x)``, in the units of the images.
    """
    _, height, width = images.shape
    geometry, grid = TiltGeometry(angles_deg, (height, width)), VolumeGrid((depth, height, width))
    method = NetworkMethod(network, geometry, grid, compute, known=known)
    scale = np.float32(images.std())
    whole = height + -height % method.row_multiple
    rows = torch.from_numpy(images[:, reflected_rows(-method.halo_px, whole + 2 * method.halo_px, height)] / scale)
    volume: NDArray[np.float32] = method(rows)[:, :height].cpu().numpy() * scale
    return volume


def mix_array(
    volume: NDArray[np.float32],
    images: NDArray[np.float32],
    angles_deg: tuple[float, ...],
    share: float,
    row_multiple: int = 1,
) -> NDArray[np.float32]:
    """Mix filtered back-projection into a network's volume, as `slabwise.fusion` says, on the CPU.

    Args:
        volume: by the network alone, shape ``(z, y, x)``; it stays as it is.
        images: that it was made from, shape ``(tilts, y, x)``.
        angles_deg: tilt angles.
        share: of filtered back-projection.
        row_multiple: of the network's head, by which parts are chosen.

    Returns:
        shape ``(z, y, x)``: what ``cryolithe reconstruct --fbp-share`` gives.
    """
    depth, height, width = volume.shape
    geometry, alone = TiltGeometry(angles_deg, (height, width)), torch.from_numpy(volume)
    projector = make_projector(geometry, (depth, width))
    parts = choose_parts(VolumeGrid((depth, height, width)), row_multiple)
    back = fbp(projector, torch.from_numpy(images))
    fusion = Fusion(curve_of_volumes(alone, back, share, geometry, parts), projector)
    rows = torch.from_numpy(images[:, reflected_rows(-fusion.halo_px, height + 2 * fusion.halo_px, height)])
    mixed: NDArray[np.float32] = fusion(alone.clone(), rows).numpy()
    return mixed


def finished_array(
    network: Network,
    alone: NDArray[np.float32],
    images: NDArray[np.float32],
    angles_deg: tuple[float, ...],
    share: float,
    compute: Compute = ON_CPU,
    known: Known = NOTHING,
) -> NDArray[np.float32]:
    """What ``reconstruct`` makes of a network's volume: left-out tilts weigh its missing wedge, FBP is mixed in.

    Args:
        network: float32 weights on the CPU.
        alone: by the network alone, `reconstruct_array`; it stays as it is.
        images: that it was made from, shape ``(tilts, y, x)``.
        angles_deg: tilt angles.
        share: of filtered back-projection.
        compute: device and precision.
        known: what is known of the series.

    Returns:
        shape ``(z, y, x)``.
    """
    trials = choose_trials(angles_deg)
    weighed = alone
    if trials is not None:
        (depth, height, width), scale = alone.shape, np.float32(images.std())
        geometry, grid = TiltGeometry(angles_deg, (height, width)), VolumeGrid((depth, height, width))

        def of_tilts(tilts: NDArray[np.int64], part: VolumeGrid) -> NetworkMethod:
            return NetworkMethod(
                network, geometry.select(tilts), part, compute, known=known.of_images([int(tilt) for tilt in tilts])
            )

        def rows(first: int, stop: int) -> torch.Tensor:
            return torch.from_numpy(images[:, reflected_rows(first, stop - first, height)] / scale)

        parts = choose_parts(grid, network.config.head.stride)
        trust = measure_trust(of_tilts, trials, geometry, parts, Reader(rows, height)) or expected_trust()
        if min(trust.kept) < 1:
            weigh = wedge_filter(trust, angles_deg, (depth, width), torch.device("cpu"))
            weighed = weigh(torch.from_numpy(alone.copy())).numpy()
    return mix_array(weighed, images, angles_deg, share, network.config.head.stride) if share else weighed


def unseen_molecules(
    card: Mapping[str, Any], library: tuple[Molecule, ...], source: str, shipped: bool
) -> tuple[Molecule, ...]:
    """The molecules of a library that a model was never trained on.

    Args:
        card: of the model: what it held out and what it was trained on.
        library: to choose from.
        source: what the library is called.
        shipped: whether it comes with the program: then all count that the card does not name as trained on, as the
            names of its molecules are no other's. Of a file only those do that were held out of training.

    Raises:
        InputError: if there are none.
    """
    recipe = card.get("recipe")
    held_out = tuple(recipe.get("hold_out", ())) if isinstance(recipe, Mapping) else ()
    seen = _trained_on(card)
    unseen = tuple(m for m in library if m.name in held_out or (shipped and m.name not in seen))
    if unseen:
        return unseen
    if shipped:
        raise InputError(
            f"the model was trained on every molecule of {source}; give --molecules with a library of which it held "
            "some out"
        )
    raise InputError(
        f"none of the molecules that the model held out ({', '.join(held_out) or 'none'}) is in {source}; give the "
        f"library that it was trained with, or {PROCEDURAL_1}, which comes with the program"
    )


def _trained_on(card: Any) -> set[str]:
    """Names of the molecules that a card tells of, those of the models before it included."""
    if not isinstance(card, Mapping):
        return set()
    names = {name for name in card.get("molecules") or () if isinstance(name, str)}
    return names.union(*(_trained_on(value) for value in card.values()))


def benchmark(
    network: Network,
    library: tuple[Molecule, ...],
    snrs_db: tuple[float, ...],
    specimens: int = 4,
    seed: int = 20261,
    compute: Compute = ON_CPU,
    share: float = FBP_SHARE,
) -> Iterator[tuple[float, dict[str, Score]]]:
    """Score FBP, SIRT, a network with its share of FBP and the network alone.

    Specimens are made of the molecules in ``library``, or of procedural ones where there are none.

    Yields:
        for each SNR, the mean score of each method over the specimens; of the shells the worst of all specimens.
    """
    worlds = []
    for number in range(specimens):
        specimen = make_specimen(BENCHMARK_RECIPE, library, np.random.default_rng([seed, number]))
        worlds.append((specimen.density, project(specimen, BENCHMARK_ANGLES_DEG)))
    depth, height, width = BENCHMARK_RECIPE.shape
    geometry, margin = TiltGeometry(BENCHMARK_ANGLES_DEG, (height, width)), sirt_margin_px(depth)
    projector, wide = (make_projector(geometry, (depth, width + 2 * m)) for m in (0, margin))
    tilts = range_of(BENCHMARK_ANGLES_DEG)
    for snr_db in snrs_db:
        scores: dict[str, list[Score]] = {FBP: [], SIRT: [], NETWORK: [], ALONE: []}
        for number, (truth, images) in enumerate(worlds):
            level = round(100 * (snr_db + 90)) % _SEEDS
            noisy = add_white_noise(images, snr_db, np.random.default_rng([seed, number, level]))
            noisy -= noisy.mean(axis=(1, 2), keepdims=True)
            rows = torch.from_numpy(noisy)
            back = fbp(projector, rows).numpy()
            iterated = SirtMethod(wide, SIRT_ITERATIONS, margin_px=margin)(rows).numpy()
            alone = reconstruct_array(network, noisy, BENCHMARK_ANGLES_DEG, depth, compute)
            mixed = finished_array(network, alone, noisy, BENCHMARK_ANGLES_DEG, share, compute)
            curve = truth_fsc(truth, back, tilts)
            scores[FBP].append(score_volume(truth, back, tilts))
            for name, volume in ((SIRT, iterated), (NETWORK, mixed), (ALONE, alone)):
                scores[name].append(score_volume(truth, volume, tilts, curve))
        yield snr_db, {method: _mean(values) for method, values in scores.items()}


def _mean(scores: list[Score]) -> Score:
    table = np.array([(s.snr_db, s.fsc_measured, s.fsc_missing) for s in scores])
    snr_db, measured, missing = (float(value) for value in table.mean(axis=0))
    shells = [score.worst_shell for score in scores if score.worst_shell is not None]
    return Score(snr_db, measured, missing, worst_of(shells) if shells else None)
