"""How alike two volumes are: arrays in, numbers out.

Volumes are ``(z, y, x)`` with the tilt axis along y, as `cryolithe.geometry` says; frequencies are in cycles
per pixel, so 0.5 is Nyquist along every axis whatever the box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.spectra import half_spectrum, spectrum_planes
from cryolithe.errors import InputError
from cryolithe.geometry import check_tilt_range, is_measured

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

FEWEST_VOXELS = 4  # along an axis: below this there is no shell between the mean and Nyquist


@dataclass(frozen=True)
class FscCurve:
    """Fourier shell correlation of two volumes, one value for each of S shells.

    A value is NaN in a shell that holds no coefficient of its kind, or only zeros in one of the volumes.

    Attributes:
        frequency_per_px: centres of the shells, cycles/pixel, from 0 up to Nyquist, shape ``(S,)``.
        total: correlation over all coefficients of a shell, shape ``(S,)``.
        measured: correlation over the coefficients inside the tilt range, or None without a tilt range.
        missing: correlation over those in the missing wedge, or None without a tilt range.
        counts: coefficients in each shell of the full spectrum, without the mean, shape ``(S,)``.
    """

    frequency_per_px: FloatArray
    total: FloatArray
    measured: FloatArray | None
    missing: FloatArray | None
    counts: NDArray[np.int64]

    def columns(self) -> dict[str, FloatArray]:
        """Return the correlations that there are, by name: total, and measured and missing with a tilt range."""
        named = {"total": self.total, "measured": self.measured, "missing": self.missing}
        return {name: values for name, values in named.items() if values is not None}


@dataclass(frozen=True)
class Resolution:
    """Where a correlation curve falls below a threshold.

    Attributes:
        value: period at the crossing, in ``unit``. The period of the last shell if the curve never falls below
            the threshold (the resolution is at least this good); infinite if it lies below from its first
            shell on; NaN if it holds no number.
        unit: ``"Å"``, or ``"px"`` where the voxel size is unknown.
        reached: whether the curve falls below the threshold within its shells.
    """

    value: float
    unit: str
    reached: bool


def check_volume(volume: Array, name: str) -> None:
    """Raise InputError unless ``volume``, called ``name`` in messages, is real, 3-D, finite and not constant."""
    if volume.ndim != 3 or np.iscomplexobj(volume):
        raise InputError(f"{name}: expected a real array (z, y, x), got {volume.dtype} of shape {volume.shape}")
    if min(volume.shape) < FEWEST_VOXELS:
        raise InputError(f"{name}: needs at least {FEWEST_VOXELS} voxels along each axis, got shape {volume.shape}")
    bad = volume.size - sum(int(np.count_nonzero(np.isfinite(plane))) for plane in volume)
    if bad:
        raise InputError(f"{name}: {bad} of {volume.size} voxels are not finite numbers; replace or crop them first")
    if volume.min() == volume.max():
        raise InputError(
            f"{name}: all {volume.size} voxels are {float(volume.flat[0]):g}; a correlation needs contrast"
        )


def fourier_shell_correlation(
    a: Array,
    b: Array,
    *,
    tilt_range_deg: tuple[float, float] | None = None,
    mask: Array | None = None,
    scratch: Path | None = None,
) -> FscCurve:
    """Correlate two volumes over shells of spatial frequency.

    ``FSC(s) = Re Σ A B* / sqrt(Σ|A|² Σ|B|²)`` over the Fourier coefficients whose frequency |f| rounds to shell s
    (Harauz & van Heel, Optik 73, 1986). Shells are ``1 / min(shape)`` wide, the spacing of the shortest axis:
    the finest width at which every shell holds coefficients along all axes. Corners beyond Nyquist are left out.

    With a tilt range, each shell is split by the Fourier-slice theorem: as ``u = x cos θ + z sin θ``, image θ
    measures the plane spanned by the ky axis and the direction (kx, kz) = (cos θ, sin θ). A coefficient is
    *measured* if the angle of (kx, kz), folded to (-90°, 90°], lies inside the range; the ky axis always is.
    The thickness of the planes is not considered.

    Args:
        a: real volume, shape ``(z, y, x)``, any box.
        b: the same shape; its scale and offset do not matter.
        tilt_range_deg: lowest and highest tilt angle, degrees, within ±90.
        mask: weights ≥ 0, the same shape. The mean within the mask is removed first, so that a difference in
            grey level does not make the mask itself correlate.
        scratch: folder for the spectra where memory is not to hold them, see `cryolithe.arrays.spectra.half_spectrum`.

    Raises:
        InputError: if the shapes differ, or a volume or the mask is not usable.
        GeometryError: if the tilt range is empty or outside ±90°.
    """
    check_volume(a, "the first volume")
    check_volume(b, "the second volume")
    for other, name in ((b, "second volume"), (mask, "mask")):
        if other is not None and other.shape != a.shape:
            raise InputError(f"the first volume has the shape {a.shape} but the {name} has {other.shape}")
    if tilt_range_deg is not None:
        check_tilt_range(tilt_range_deg)
    weights = None if mask is None else _checked_mask(mask)
    if weights is not None:
        for volume, name in ((a, "the first volume"), (b, "the second volume")):
            _check_inside(volume, weights, name)
    spectra = [half_spectrum(volume, weights, scratch=scratch) for volume in (a, b)]
    return shell_correlation(spectra[0], spectra[1], a.shape, tilt_range_deg)


def shell_correlation(
    spectrum_a: Array, spectrum_b: Array, shape: tuple[int, ...], tilt_range_deg: tuple[float, float] | None = None
) -> FscCurve:
    """Correlate two half spectra over shells, as `fourier_shell_correlation` says.

    Args:
        spectrum_a: made by `cryolithe.arrays.spectra.half_spectrum`.
        spectrum_b: likewise.
        shape: of the volumes.
        tilt_range_deg: lowest and highest tilt angle, degrees.
    """
    measured, missing = shell_sums(spectrum_a, spectrum_b, shape, tilt_range_deg)
    both = measured + missing
    wedge = tilt_range_deg is not None
    return FscCurve(
        frequency_per_px=np.arange(len(both.ab)) / min(shape),
        total=both.fsc,
        measured=measured.fsc if wedge else None,
        missing=missing.fsc if wedge else None,
        counts=np.rint(both.counts).astype(np.int64),
    )


@dataclass(frozen=True)
class ShellSums:
    """Sums over coefficients of each shell, of two spectra A and B; shape ``(S,)`` each.

    Attributes:
        ab: Re A B*.
        aa: |A|².
        bb: |B|².
        counts: how many coefficients of the whole spectrum these are.
    """

    ab: FloatArray
    aa: FloatArray
    bb: FloatArray
    counts: FloatArray

    def __add__(self, other: ShellSums) -> ShellSums:
        """Of the coefficients of both."""
        return ShellSums(self.ab + other.ab, self.aa + other.aa, self.bb + other.bb, self.counts + other.counts)

    @property
    def fsc(self) -> FloatArray:
        """Correlation by shell; NaN where there is none."""
        power = np.sqrt(self.aa * self.bb)
        return np.divide(self.ab, power, out=np.full(len(power), np.nan), where=power > 0)

    def correlation(self, shells: NDArray[np.bool_]) -> float:
        """Correlation over some shells together; 0 without power."""
        power = math.sqrt(float(self.aa[shells].sum()) * float(self.bb[shells].sum()))
        return float(self.ab[shells].sum()) / power if power > 0 else 0.0


def shell_sums(
    spectrum_a: Array, spectrum_b: Array, shape: tuple[int, ...], tilt_range_deg: tuple[float, float] | None = None
) -> tuple[ShellSums, ShellSums]:
    """Sums of the measured and of the missing coefficients; arguments as for `shell_correlation`.

    Without a range all are measured. Corners beyond Nyquist are left out.
    """
    shells = min(shape) // 2 + 1
    # Row 0: measured, row 1: missing; the last column collects the corners.
    sums = {name: np.zeros((2, shells + 1)) for name in ("ab", "aa", "bb", "count")}
    for plane in spectrum_planes(shape):
        slot = plane.shell
        if tilt_range_deg is not None:
            slot = slot + (shells + 1) * ~is_measured(plane.kx, plane.kz, tilt_range_deg)
        at, bt = spectrum_a[plane.index], spectrum_b[plane.index]
        terms = {"ab": (at * bt.conj()).real, "aa": np.abs(at) ** 2, "bb": np.abs(bt) ** 2, "count": 1.0}
        for name, term in terms.items():
            found = np.bincount(slot.ravel(), (plane.times * term).ravel(), minlength=sums[name].size)
            sums[name] += found.reshape(sums[name].shape)
    measured, missing = (ShellSums(*(values[row, :shells] for values in sums.values())) for row in (0, 1))
    return measured, missing


def mean_correlation(values: FloatArray) -> float:
    """Return the mean of a curve without its first shell (the mean) and its last (Nyquist); NaN if none is left."""
    inner = values[1:-1]
    inner = inner[np.isfinite(inner)]
    return float(inner.mean()) if inner.size else math.nan


def resolution_at(
    curve_values: FloatArray,
    frequency_per_px: FloatArray,
    threshold: float,
    voxel_size_angstrom: float | None = None,
) -> Resolution:
    """Find the first crossing of a correlation curve below a threshold, interpolating linearly in frequency.

    Args:
        curve_values: correlations, shape ``(S,)``; shells that are NaN and the one at frequency 0 are passed over.
        frequency_per_px: their frequencies, cycles/pixel, ascending, shape ``(S,)``.
        threshold: 0.5 or 0.143, say.
        voxel_size_angstrom: edge of a voxel; without it the answer is in pixels.

    Returns:
        Period at the crossing; see `Resolution` for curves that do not cross.
    """
    unit, scale = ("px", 1.0) if voxel_size_angstrom is None else ("Å", voxel_size_angstrom)
    keep = np.isfinite(curve_values) & (frequency_per_px > 0)
    values, frequencies = curve_values[keep], frequency_per_px[keep]
    if values.size == 0:
        return Resolution(math.nan, unit, reached=False)
    below = np.flatnonzero(values < threshold)
    if below.size == 0:
        return Resolution(float(scale / frequencies[-1]), unit, reached=False)
    i = int(below[0])
    if i == 0:
        return Resolution(math.inf, unit, reached=True)
    fraction = (values[i - 1] - threshold) / (values[i - 1] - values[i])
    crossing = frequencies[i - 1] + fraction * (frequencies[i] - frequencies[i - 1])
    return Resolution(float(scale / crossing), unit, reached=True)


def scaled_snr_db(reference: Array, estimate: Array) -> float:
    """Return the reconstruction SNR after the best scale and offset of the estimate, in dB.

    ``max over a, b of 10 log10(|r|² / |r - (a e + b)|²)`` with r the reference without its mean. The residual of
    the least-squares line is ``(1 - ρ²) |r|²``, ρ being Pearson's correlation of r and e, so this equals
    ``-10 log10(1 - ρ²)``, which is what is computed. A constant estimate scores 0, a perfect one infinity
    (or some 150 dB and more, as rounding has it).

    Args:
        reference: real, any shape.
        estimate: real, the same shape.

    Raises:
        InputError: if the shapes differ, a value is not finite or the reference is constant.
    """
    if reference.shape != estimate.shape:
        raise InputError(f"the reference has the shape {reference.shape} but the estimate has {estimate.shape}")
    if not (np.isfinite(reference).all() and np.isfinite(estimate).all()):
        raise InputError("an SNR needs finite values in both the reference and the estimate")
    if reference.size == 0 or reference.min() == reference.max():
        raise InputError("the reference is constant or empty, so there is no signal for an SNR")
    if estimate.min() == estimate.max():
        return 0.0
    r = np.asarray(reference, dtype=np.float64).ravel()
    e = np.asarray(estimate, dtype=np.float64).ravel()
    r, e = r - r.mean(), e - e.mean()
    unexplained = 1 - (r @ e) ** 2 / ((r @ r) * (e @ e))
    return -10 * math.log10(unexplained) if unexplained > 0 else math.inf


def _checked_mask(mask: Array) -> Array:
    """Return the mask as floats, or raise InputError if it selects nothing or holds negative or non-finite values."""
    weights = mask.astype(np.float32)
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise InputError("the mask must hold finite values of 0 or more; 1 keeps a voxel and 0 leaves it out")
    if weights.max() == 0:
        raise InputError(f"the mask is 0 in all {mask.size} voxels, so there is nothing to compare")
    return weights


def _check_inside(volume: Array, weights: Array, name: str) -> None:
    """Raise InputError if the volume is constant where the mask keeps it; plane by plane, without copies."""
    low, high = math.inf, -math.inf
    for plane, kept in zip(volume, weights, strict=True):
        inside = plane[kept > 0]
        if inside.size:
            low, high = min(low, float(inside.min())), max(high, float(inside.max()))
    if low == high:
        raise InputError(f"{name}: all voxels inside the mask are {low + 0.0:g}; a correlation needs contrast")
