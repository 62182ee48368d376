"""Scores on a fixed benchmark: simulated specimens of held-out molecules, white noise, known truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.metrics import fourier_shell_correlation, mean_correlation, scaled_snr_db
from cryolithe.network import Network
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp, sirt_margin_px
from cryolithe.reconstruct.methods import ON_CPU, Compute, NetworkMethod, SirtMethod
from cryolithe.reconstruct.mixing import choose_parts, fused_method, measure_curve
from cryolithe.sampling import reflected_rows
from cryolithe.simulation import Molecule, SpecimenRecipe, add_white_noise, make_specimen, project

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


@dataclass(frozen=True)
class Score:
    """How near an estimate comes to the truth.

    Attributes:
        snr_db: reconstruction SNR after the best affine fit.
        fsc_measured: mean FSC over the shells up to the last before Nyquist, measured region.
        fsc_missing: the same in the missing wedge.
    """

    snr_db: float
    fsc_measured: float
    fsc_missing: float


def score_volume(truth: NDArray[np.float32], estimate: NDArray[np.float32], reach_deg: float = 60.0) -> Score:
    """Compare an estimate with the truth, both ``(z, y, x)``."""
    curve = fourier_shell_correlation(truth, estimate, tilt_range_deg=(-reach_deg, reach_deg))
    assert curve.measured is not None
    assert curve.missing is not None
    return Score(scaled_snr_db(truth, estimate), mean_correlation(curve.measured), mean_correlation(curve.missing))


def reconstruct_array(
    network: Network,
    images: NDArray[np.float32],
    angles_deg: tuple[float, ...],
    depth: int,
    compute: Compute = ON_CPU,
    on_points: Callable[[float], object] = lambda share: None,
    share: float = 0.0,
) -> NDArray[np.float32]:
    """Apply a network to a small series at once.

    Args:
        network: float32 weights on the CPU.
        images: shape ``(tilts, y, x)``, mean removed, dense = positive.
        angles_deg: tilt angles.
        depth: thickness of the volume in voxels.
        compute: device and precision.
        on_points: see `NetworkMethod`.
        share: of filtered back-projection, see `cryolithe.reconstruct.fusion`.

    Returns:
        shape ``(depth, y, x)``, in the units of the images.
    """
    _, height, width = images.shape
    geometry, grid = TiltGeometry(angles_deg, (height, width)), VolumeGrid((depth, height, width))
    method = NetworkMethod(network, geometry, grid, compute, on_points)
    scale = np.float32(images.std())

    def read(first: int, stop: int) -> torch.Tensor:
        return torch.from_numpy(images[:, reflected_rows(first, stop - first, height)] / scale)

    if share:
        parts = choose_parts(grid, method.row_multiple)
        make = partial(NetworkMethod, network, geometry, compute=compute)
        method = fused_method(method, measure_curve(make, share, geometry, parts, read), geometry, grid)
    whole = height + -height % method.row_multiple
    volume: NDArray[np.float32] = method(read(-method.halo_px, whole + method.halo_px)).cpu().numpy() * scale
    return volume[:, :height]


def benchmark(
    network: Network,
    library: tuple[Molecule, ...],
    snrs_db: tuple[float, ...],
    specimens: int = 4,
    seed: int = 20261,
    compute: Compute = ON_CPU,
) -> Iterator[tuple[float, dict[str, Score]]]:
    """Score FBP, SIRT and a network on specimens made of the molecules in ``library`` only.

    Yields:
        for each SNR, the mean score of each method over the specimens.
    """
    worlds = []
    for number in range(specimens):
        specimen = make_specimen(BENCHMARK_RECIPE, library, np.random.default_rng([seed, number]))
        worlds.append((specimen.density, project(specimen, BENCHMARK_ANGLES_DEG)))
    depth, height, width = BENCHMARK_RECIPE.shape
    geometry, margin = TiltGeometry(BENCHMARK_ANGLES_DEG, (height, width)), sirt_margin_px(depth)
    projector, wide = (make_projector(geometry, (depth, width + 2 * m)) for m in (0, margin))
    for snr_db in snrs_db:
        scores: dict[str, list[Score]] = {"fbp": [], "sirt": [], "network": []}
        for number, (truth, images) in enumerate(worlds):
            noisy = add_white_noise(images, snr_db, np.random.default_rng([seed, number, round(100 * (snr_db + 90))]))
            noisy -= noisy.mean(axis=(1, 2), keepdims=True)
            rows = torch.from_numpy(noisy)
            scores["fbp"].append(score_volume(truth, fbp(projector, rows).numpy()))
            iterated = SirtMethod(wide, SIRT_ITERATIONS, margin_px=margin)(rows)
            scores["sirt"].append(score_volume(truth, iterated.numpy()))
            estimate = reconstruct_array(network, noisy, BENCHMARK_ANGLES_DEG, depth, compute)
            scores["network"].append(score_volume(truth, estimate))
        yield snr_db, {method: _mean(values) for method, values in scores.items()}


def _mean(scores: list[Score]) -> Score:
    table = np.array([(s.snr_db, s.fsc_measured, s.fsc_missing) for s in scores])
    return Score(*(float(v) for v in table.mean(axis=0)))
