"""``cryolithe.fsc``: how alike are two volumes, shell by shell?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryolithe.artefacts.half_agreement import Expected
from cryolithe.errors import GeometryError, SettingsError, nearest_name
from cryolithe.evaluation.comparing import SHARED_NETWORK, check_mask, check_pair, doubts_about_mask, parse_wedge
from cryolithe.evaluation.heldout import opposite_z
from cryolithe.evaluation.pair_doubts import Looks, doubts_about
from cryolithe.formats.volumes.volume_kind import refuse_map
from cryolithe.library.arrays import Files, array_of, is_path, size_of
from cryolithe.library.undisturbed import undisturbed
from cryolithe.library.volumes import Volume, volume_of
from cryolithe.library.watching import Heard
from cryolithe.metrics import (
    FloatArray,
    FscCurve,
    Resolution,
    check_tilt_range,
    fourier_shell_correlation,
    mean_correlation,
    resolution_at,
)

if TYPE_CHECKING:
    from cryolithe.library.arrays import Array
    from cryolithe.library.volumes import VolumeLike

THRESHOLD = 0.143


@dataclass(frozen=True, eq=False)
class Fsc:
    """Fourier shell correlation of two volumes.

    Attributes:
        curve: correlation in each of S shells: total, and measured and missing where a tilt range was given.
        voxel_size_angstrom: edge of a voxel, or None.
        notes: what the command would print beside it.
        warnings: what speaks against the comparison, likewise; they are also raised as CryoLitheWarning.
    """

    curve: FscCurve
    voxel_size_angstrom: float | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def frequency_per_px(self) -> FloatArray:
        """Centres of the shells, cycles per voxel, shape ``(S,)``."""
        return self.curve.frequency_per_px

    @property
    def total(self) -> FloatArray:
        """Correlation over all coefficients of a shell, shape ``(S,)``; NaN where there is none."""
        return self.curve.total

    @property
    def measured(self) -> FloatArray | None:
        """Correlation inside the tilt range, shape ``(S,)``; None without one."""
        return self.curve.measured

    @property
    def missing(self) -> FloatArray | None:
        """Correlation in the missing wedge, shape ``(S,)``; None without a tilt range."""
        return self.curve.missing

    def mean(self, column: str = "total") -> float:
        """Mean of a column over the shells, without the first and the last one."""
        return mean_correlation(self._column(column))

    def resolution(self, threshold: float = THRESHOLD, column: str = "total") -> Resolution:
        """Where a column falls below a threshold: in Å, or in voxels where their size is unknown."""
        return resolution_at(self._column(column), self.curve.frequency_per_px, threshold, self.voxel_size_angstrom)

    def _column(self, name: str) -> FloatArray:
        found = self.curve.columns()
        if name not in found:
            raise SettingsError(
                f"column: expected {', '.join(found)}, got {name!r}{nearest_name(str(name), found)}"
                + ("" if len(found) > 1 else "; measured and missing come with wedge=")
            )
        return found[name]

    def __repr__(self) -> str:
        found = self.resolution()
        value = f"{'' if found.reached else '<'}{found.value:.1f} {found.unit}" if math.isfinite(found.value) else "-"
        return f"Fsc(mean {self.mean():.3f}, {value} at {THRESHOLD})"


@undisturbed
def fsc(
    a: VolumeLike,
    b: VolumeLike,
    voxel_size_angstrom: float | None = None,
    *,
    mask: Array | Volume | Files | None = None,
    wedge: float | Sequence[float] | str | None = None,
) -> Fsc:
    """Fourier shell correlation of two volumes of the same specimen, as of ``cryolithe fsc``.

    Args:
        a: a volume ``(z, y, x)``: `Volume`, array, tensor, or path.
        b: another of the same shape.
        voxel_size_angstrom: edge of a voxel, in place of what the volumes say.
        mask: weights of the same shape: 1 keeps a voxel, 0 leaves it out.
        wedge: tilt range of the series in degrees, such as 60 (for ±60°), ``(-51, 49)`` or ``"-51,49"``: adds the
            columns measured and missing.

    Returns:
        the curve and what is read off it.

    Raises:
        InputError: if the volumes cannot be compared, or the mask does not fit them.
        SettingsError: if the wedge is no tilt range.

    Warns:
        CryoLitheWarning: if a volume is compared with itself, or a border, a place, a contrast or the missing wedge
            speaks against the comparison, as the command says.

    >>> import numpy as np, cryolithe
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.standard_normal((16, 16, 16))
    >>> found = cryolithe.fsc(truth, truth + rng.standard_normal((16, 16, 16)), 10, wedge=60)
    >>> print(f"{found.mean():.1f} {found.mean('missing'):.1f}", found.resolution(0.5).unit)
    0.7 0.7 Å
    """
    size = size_of(voxel_size_angstrom, "voxel_size_angstrom")
    names = (_name(a, "a"), _name(b, "b"))
    first, second = volume_of(a, names[0]), volume_of(b, names[1])
    for name, one in zip(names, (first, second), strict=True):
        refuse_map(Path(name), one.labels)
    tilt_range = None if wedge is None else tilt_range_of(wedge, "wedge")
    heard = Heard()
    for text in (*_said(a, first), *_said(b, second)):
        heard.note(text)
    if first.of_network and second.of_network:
        heard.note(SHARED_NETWORK)
    check_pair(names, (first, second), size is None, "voxel_size_angstrom=")
    weights, doubts = (None, ()) if mask is None else _weights(mask, first, names[0], size)
    heard.warnings += doubts
    if same := _same(a, b, first, second):
        heard.note(f"Warning: {names[0]} is compared with itself, which correlates perfectly")
    size = size or first.voxel_size_angstrom or second.voxel_size_angstrom
    curve = fourier_shell_correlation(first.voxels, second.voxels, tilt_range_deg=tilt_range, mask=weights)
    pair = Looks(
        (first.voxels, second.voxels),
        (_short_name(a, "a"), _short_name(b, "b")),
        Expected(opposite_z=opposite_z(first.record, second.record)),
        same=same,
        borders=weights is None,
        tilt_range_deg=tilt_range,
        flag="wedge=",
    )
    heard.warnings += doubts_about(pair, curve)
    heard.warn()
    return Fsc(curve, size, tuple(heard.notes), tuple(heard.warnings))


def _said(given: object, volume: Volume) -> tuple[str, ...]:
    """What was assumed when a file was opened; a volume in hand has been told of before."""
    return volume.notes if is_path(given) else ()


def _same(a: object, b: object, first: Volume, second: Volume) -> bool:
    if is_path(a) and is_path(b):
        return Path(a).resolve() == Path(b).resolve()  # type: ignore[arg-type]
    return first.voxels is second.voxels or (
        first.dtype == second.dtype and np.shares_memory(first.voxels, second.voxels)
        and first.voxels.__array_interface__["data"] == second.voxels.__array_interface__["data"]
        and first.voxels.strides == second.voxels.strides
    )  # fmt: skip


def _weights(mask: Any, volume: Volume, name: str, size: float | None) -> tuple[Any, tuple[str, ...]]:
    """The weights, and what tells that they may be of another volume, unless the caller gave the size of all."""
    own, called = None, str(mask) if is_path(mask) else "mask"
    if is_path(mask) or isinstance(mask, Volume):
        told = volume_of(mask, "mask")
        found, own = told.voxels, told.voxel_size_angstrom
    else:
        found = array_of(mask, "mask", "z, y, x")
    check_mask(found, called, volume, name)
    return found, () if size else doubts_about_mask((own, volume.voxel_size_angstrom), (called, name))


def _name(value: object, name: str) -> str:
    return str(value) if is_path(value) else name


def _short_name(value: Any, name: str) -> str:
    return Path(value).name if is_path(value) else name


def tilt_range_of(value: float | Sequence[float] | str, name: str) -> tuple[float, float]:
    """The tilt range in degrees from 60 (for ±60°), ``(-51, 49)`` or the text of the command.

    Args:
        value: of a caller.
        name: of the argument.

    Raises:
        SettingsError: if it is none.
    """
    if isinstance(value, str):
        return parse_wedge(value, name)
    numbers = [float(n) for n in np.atleast_1d(np.asarray(value, dtype=np.float64))]
    if len(numbers) == 1:
        numbers = [-abs(numbers[0]), abs(numbers[0])]
    if len(numbers) != 2:
        raise SettingsError(f"{name}: expected a tilt range in degrees such as 60 or (-51, 49), got {value!r}")
    try:
        check_tilt_range((numbers[0], numbers[1]))
    except GeometryError as error:
        raise SettingsError(f"{name}: {error}") from error
    return numbers[0], numbers[1]
