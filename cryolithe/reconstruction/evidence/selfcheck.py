"""Does the volume lie where the images say? Its low frequencies against our own back-projection of the same images.

A few blocks of rows are back-projected and correlated with the same rows of the result, in the measured directions of
Fourier space only. Each frequency counts by its coherence over the rows, whatever its amplitude, so that the broad
outline of a specimen does not outweigh its details (phase correlation: Kuglin & Hines 1975). The peak gives the
shift, both halves of the field give the scale, and a mirrored back-projection that fits better than the plain one
gives a mirror away.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.formats.volumes.pages import release_pages
from cryolithe.geometry import VolumeGrid, is_measured
from cryolithe.projector import Projector, by_bands, make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.images.prepared_stack import PreparedStack

# Rows of a block, of which two at either end are spent on smoothing, and rows beyond it in which a shift along y is
# looked for.
BLOCK_ROWS, MARGIN_ROWS = 12, 3
SMOOTHING = (0.0625, 0.25, 0.375, 0.25, 0.0625)
MOST_BLOCKS = 3
REACH_PX = 12  # shifts along z and x are looked for up to here
LOW_PASS_PX = 8.0  # period at which the low pass has fallen to exp(-1/2)
HIGH_PASS_PX = 40.0  # slower changes are background, which methods treat differently
SHIFT_LIMIT_PX = 0.5
# By which the middles of the two halves of an axis may move apart, and that as a share of their distance: without the
# missing wedge things are less deep than in a back-projection, by up to a twentieth.
SCALE_LIMIT_PX, SCALE_LIMITS = 1.0, {"z": 0.06, "y": 0.03, "x": 0.03}
# Planes of float32 that exist at once beside a block's rows and their spectra.
_PLANES_BESIDE = 18
_SLICES_AT_ONCE = 64  # that are read from a file
# A fit must be better than this, and than so many times what noise gives by chance.
LEAST_CORRELATION, LEAST_DEVIATIONS = 0.1, 4.5
LEAST_SHARPNESS = 0.05  # fall of the peak within a pixel, as a share, below which a specimen is too smooth to tell
LEAST_FALL = 0.2  # from a peak at the end of the reach to no shift at all, below which that peak says nothing
MIRROR_MARGIN = 0.05
SMALLEST_AXIS_PX = 24  # halves of a shorter axis say nothing


@dataclass(frozen=True)
class SelfCheck:
    """How a volume lies on the back-projection of its images.

    Attributes:
        correlation: of the low frequencies at the best shift, mean over the blocks.
        shift_zyx_px: of the volume, median over the blocks; None along an axis where it cannot be told.
        scale_zyx: of the volume along each axis; None where it cannot be told.
        mirrored: axes along which the mirrored back-projection fits better; empty as it should be.
        rows: first rows of the blocks.
        warnings: what is wrong, in words; empty as it should be.
    """

    correlation: float
    shift_zyx_px: tuple[float | None, float | None, float | None]
    scale_zyx: tuple[float | None, float | None, float | None]
    mirrored: str
    rows: tuple[int, ...]
    warnings: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Plain values for the sidecar; the warnings stand elsewhere."""
        values = asdict(self)
        del values["warnings"]
        return values


def self_check(volume: NDArray[Any], stack: PreparedStack, device: torch.device, method: str = "") -> SelfCheck:
    """Compare a finished volume with the back-projection of its prepared images.

    Args:
        volume: shape ``(z, y, x)``, density rising or falling with that of the images; may be a memory map.
        stack: the images that it was made of.
        device: where to compute.
        method: by which the volume was made.
    """
    depth, height, width = volume.shape
    projector = make_projector(stack.geometry, (depth, width), device)
    rows, starts = blocks_of(height)
    # One block after the other: each takes many times the memory of its rows.
    compared = [_look(_Block(volume, stack, projector, start, rows), volume.shape) for start in starts]
    peaks = [seen.peak for seen in compared]
    # Blocks with hardly any specimen in them say nothing.
    sure = [seen.peak.height >= seen.least for seen in compared]
    heights = [peak.height for peak, told in zip(peaks, sure, strict=True) if told or not any(sure)]
    correlation = float(np.mean(heights))
    best = int(np.argmax([peak.height for peak in peaks]))
    mirrored = _mirrored(_Block(volume, stack, projector, starts[best], rows), peaks[best])
    inverted = all(seen.inverted for seen in compared)
    shift: tuple[float | None, float | None, float | None] = (None, None, None)
    scale: tuple[float | None, float | None, float | None] = (None, None, None)
    apart = (0.0, 0.0, 0.0)
    if any(sure):
        certain = [peak for peak, told in zip(peaks, sure, strict=True) if told]
        shift = (_median(certain, 0), _median(certain, 1), _median(certain, 2))
        ends = (peaks[0], peaks[-1]) if len(peaks) == MOST_BLOCKS and sure[0] and sure[-1] else None
        scale, apart = _scales(compared, ends, starts, (depth, height, width))
    untold = min(seen.least for seen in compared) >= 1  # in so few voxels anything fits by chance
    found = [] if untold else _faults(correlation, shift if any(sure) else None, (scale, apart), mirrored, inverted)
    warnings = tuple(f"self-check: {text}; {_remedy(method)}" for text in found)
    return SelfCheck(correlation, shift, scale, mirrored, starts, warnings)


def checking_bytes(grid: VolumeGrid) -> int:
    """Memory of the host that `self_check` takes, but for the projector's own: rows of a block and their spectra."""
    depth, _, width = grid.shape
    ours, theirs = BLOCK_ROWS - len(SMOOTHING) + 1, BLOCK_ROWS + 2 * MARGIN_ROWS - len(SMOOTHING) + 1
    return 4 * depth * width * (2 * (ours + theirs) + _PLANES_BESIDE)


def blocks_of(height: int) -> tuple[int, tuple[int, ...]]:
    """Rows of a compared block, and the first ones of all: about the middle, near both ends where there is room."""
    rows = min(BLOCK_ROWS, max(1, height - 2 * MARGIN_ROWS))
    middle = (height - rows) // 2
    span = middle - MARGIN_ROWS
    if span < 2 * rows:
        return rows, (middle,)
    return rows, (middle - span, middle, height - rows - MARGIN_ROWS)


@dataclass(frozen=True)
class _Peak:
    """Greatest correlation and the shift at which it is; NaN along an axis where the peak is too broad to tell."""

    height: float
    shift_zyx_px: tuple[float, float, float]


@dataclass(frozen=True)
class _Seen:
    """What a block tells.

    Attributes:
        peak: of its correlation.
        least: that is no noise.
        inverted: whether it fits the negative of its back-projection better.
        apart: for z and x, by how many pixels its halves lie farther apart than those of its back-projection; None for
            halves that tell nothing, NaN for peaks too broad to tell.
    """

    peak: _Peak
    least: float
    inverted: bool
    apart: dict[str, float | None]


def _look(block: _Block, shape: tuple[int, ...]) -> _Seen:
    """What a block of a volume of this shape tells."""
    apart: dict[str, float | None] = {}
    for number, axis in ((0, "z"), (2, "x")):
        apart[axis] = None
        if shape[number] >= SMALLEST_AXIS_PX:
            low, high = block.peak(part=f"{axis}0"), block.peak(part=f"{axis}1")
            if min(low.height, high.height) >= block.least(axis):
                apart[axis] = high.shift_zyx_px[number] - low.shift_zyx_px[number]
    peak, against = block.peaks()
    return _Seen(peak, block.least(), against.height > max(peak.height, 0) + MIRROR_MARGIN, apart)


def _mirrored(block: _Block, plain: _Peak) -> str:
    """Axes along which the mirrored back-projection fits a block better; the fewest that do, or none."""
    for count in (1, 2, 3):
        for axes in itertools.combinations("zyx", count):
            if block.peak("".join(axes)).height > max(plain.height, 0) + MIRROR_MARGIN:
                return "".join(axes)
    return ""


def _median(peaks: list[_Peak], axis: int) -> float | None:
    """Median of the shifts along an axis that could be told."""
    told = [peak.shift_zyx_px[axis] for peak in peaks if math.isfinite(peak.shift_zyx_px[axis])]
    return float(np.median(told)) if told else None


class _Block:
    """Rows of the volume and of its back-projection."""

    def __init__(self, volume: NDArray[Any], stack: PreparedStack, projector: Projector, start: int, rows: int) -> None:
        device = projector.device
        values = torch.from_numpy(_read(volume, start, rows)).to(device)
        self.volume = _smooth(_moderate(values))  # (z, rows - 4, x)
        del values
        self.range_deg = (min(stack.geometry.angles_deg), max(stack.geometry.angles_deg))
        seen = stack.seen_rows(start - MARGIN_ROWS, rows + 2 * MARGIN_ROWS)
        made = by_bands(
            projector, start - MARGIN_ROWS, _moderate(seen.to(device)), lambda band, part: fbp(band, part, "hamming")
        )
        self.truth = _smooth(made)  # (z, rows - 4 + 2 MARGIN_ROWS, x)

    def peak(self, mirror: str = "", part: str = "") -> _Peak:
        """Correlate with the back-projection, which may be mirrored along some axes, in the whole block or a half.

        Args:
            mirror: axes, such as ``"zx"``.
            part: ``"z0"``, ``"z1"``, ``"x0"`` or ``"x1"``: lower or upper half of an axis.
        """
        return _highest(*_correlations(_part(self.volume, part), _part(self.truth, part), self.range_deg, mirror))

    def chance(self) -> float:
        """Standard deviation of the correlation with noise: phases of the frequencies and rows that count add up."""
        depth, rows, width = self.volume.shape
        band = _band((depth, width), self.range_deg, self.volume.device)
        # Half of the spectrum is kept; the tapers join 1.5 neighbours along each axis, the smoothing 3.5 rows.
        count = 2 * float(band.sum() ** 2 / band.square().sum().clamp_min(1e-30)) / 1.5**2
        return 1 / math.sqrt(max(1.0, count * max(1.0, rows / 3.5)))

    def least(self, part: str = "") -> float:
        """Correlation above which the block, or a half of it, is no noise."""
        return max(LEAST_CORRELATION, LEAST_DEVIATIONS * self.chance() * (math.sqrt(2) if part else 1))

    def peaks(self) -> tuple[_Peak, _Peak]:
        """Correlate with the back-projection, and with its negative."""
        surface, lags = _correlations(self.volume, self.truth, self.range_deg)
        return _highest(surface, lags), _highest(-surface, lags)


def _read(volume: NDArray[Any], start: int, rows: int) -> NDArray[np.float32]:
    """Rows of a volume; of a memory map little stays mapped, for the system maps more than is read."""
    values = np.empty((volume.shape[0], rows, volume.shape[2]), np.float32)
    for z in range(0, len(values), _SLICES_AT_ONCE):
        part = slice(z, z + _SLICES_AT_ONCE)
        values[part] = volume[part, start : start + rows]
        release_pages(volume)
    return values


def _moderate(values: torch.Tensor) -> torch.Tensor:
    """Values over a power of two, the largest about 1: their fourth power must stay in float32. Nothing is rounded."""
    exponent = int(torch.frexp(values.abs().amax())[1])
    return values if abs(exponent) > 126 else torch.ldexp(values, torch.tensor(-exponent, device=values.device))


def _smooth(values: torch.Tensor) -> torch.Tensor:
    """Rows smoothed by a binomial, so that a shift along y can be told to less than a row; two fewer at either end."""
    kept = values.shape[1] - len(SMOOTHING) + 1
    if kept < 1:
        return values
    smooth = torch.zeros_like(values[:, :kept])
    for n, weight in enumerate(SMOOTHING):
        smooth.add_(values[:, n : n + kept], alpha=weight)
    return smooth


def _part(values: torch.Tensor, part: str) -> torch.Tensor:
    """The lower (0) or upper (1) half of an axis, such as ``"x1"``, or all."""
    if not part:
        return values
    axis = 0 if part[0] == "z" else 2
    half = values.shape[axis] // 2
    return values.narrow(axis, 0 if part[1] == "0" else values.shape[axis] - half, half)


def _correlations(
    volume: torch.Tensor, truth: torch.Tensor, range_deg: tuple[float, float], mirror: str = ""
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Mean coherence by lag, shape ``(y, z, x)``, and the reach along z and x; index 0 is the most negative lag.

    Args:
        volume: rows of it.
        truth: the same and some beyond.
        range_deg: that the tilts measured.
        mirror: axes along which ``truth`` is mirrored, such as ``"zx"``.
    """
    size = volume.shape[0], volume.shape[2]
    reach = (min(REACH_PX, size[0] // 4), min(REACH_PX, size[1] // 4))
    band = _band(size, range_deg, volume.device)
    spectra, others = _spectra(volume), _spectra(truth, mirror)
    rows, lags = volume.shape[1], truth.shape[1] - volume.shape[1] + 1
    # What the transform back of a coherence of 1 at all frequencies gives at lag 0.
    full = torch.fft.irfft2(band.to(spectra[0].dtype), s=size)[0, 0].clamp_min(1e-30)
    surfaces = []
    for lag in range(lags):
        pairs = list(zip(spectra, others[lag : lag + rows], strict=True))
        common, power, other_power = torch.zeros_like(spectra[0]), torch.zeros_like(band), torch.zeros_like(band)
        for ours, theirs in pairs:
            common.addcmul_(ours, theirs.conj())
            power.add_(ours.abs().square_())
            other_power.add_(theirs.abs().square_())
        common.div_(power.mul_(other_power).sqrt_().clamp_min_(1e-30)).mul_(band)
        surface = torch.fft.irfft2(common, s=size) / full
        surfaces.append(surface.roll(reach, (0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1])
    # The volume's shift along y is the opposite of the lag into the truth.
    return torch.stack(surfaces).flip(0), reach


def _band(size: tuple[int, int], range_deg: tuple[float, float], device: torch.device) -> torch.Tensor:
    """Weights of the frequencies of a ``(z, x)`` plane: a band in the directions that the tilts measured."""
    kz = torch.fft.fftfreq(size[0], device=device)[:, None]
    kx = torch.fft.rfftfreq(size[1], device=device)
    radius = kz.square() + kx.square()
    band = torch.exp(-0.5 * radius * LOW_PASS_PX**2) * (1 - torch.exp(-0.5 * radius * HIGH_PASS_PX**2))
    measured = is_measured(np.fft.rfftfreq(size[1]), np.fft.fftfreq(size[0])[:, None], range_deg)
    return band * torch.from_numpy(measured).to(device)


def _spectra(values: torch.Tensor, mirror: str = "") -> list[torch.Tensor]:
    """Of the tapered (z, x) plane of each row, shape ``(z, x // 2 + 1)``; row by row, for each takes twice its size."""
    depth, rows, width = values.shape
    taper = torch.hann_window(width, periodic=False, device=values.device)
    if depth > 2:
        taper = taper * torch.hann_window(depth, periodic=False, device=values.device)[:, None]
    flips = tuple("zx".index(axis) for axis in mirror if axis != "y")
    order = reversed(range(rows)) if "y" in mirror else range(rows)
    planes = (values[:, row].flip(flips) if flips else values[:, row] for row in order)
    return [torch.fft.rfft2((plane - plane.mean()) * taper) for plane in planes]


def _highest(surface: torch.Tensor, reach: tuple[int, int]) -> _Peak:
    """The peak, refined along each axis by the Gaussian (or parabola) through three values."""
    values = surface.cpu().numpy().astype(np.float64)
    place = np.unravel_index(int(values.argmax()), values.shape)
    refined = []
    for axis, index in enumerate(place):
        fine = float(index)
        if 0 < index < values.shape[axis] - 1:
            through: Any = (slice(None), *(n for other, n in enumerate(place) if other != axis))
            near = np.moveaxis(values, axis, 0)[through][index - 1 : index + 2]
            if near[0] + near[2] > 2 * (1 - LEAST_SHARPNESS) * near[1]:
                fine = math.nan
            before, at, after = np.log(near) if near.min() > 0 else near
            bend = before - 2 * at + after
            fine += 0.5 * (before - after) / bend if bend < 0 else 0.0
        elif values.shape[axis] > 1:
            unmoved: Any = (*place[:axis], values.shape[axis] // 2, *place[axis + 1 :])
            if values[unmoved] > (1 - LEAST_FALL) * values[place]:
                fine = math.nan
        refined.append(fine)
    margin = (values.shape[0] - 1) / 2
    return _Peak(float(values[place]), (refined[1] - reach[0], refined[0] - margin, refined[2] - reach[1]))


def _scales(
    blocks: list[_Seen], ends: tuple[_Peak, _Peak] | None, starts: tuple[int, ...], shape: tuple[int, int, int]
) -> tuple[tuple[float | None, float | None, float | None], tuple[float, float, float]]:
    """Scale along (z, y, x), and by how many pixels the two halves of an axis moved apart."""
    found: dict[str, tuple[float | None, float]] = dict.fromkeys("zyx", (None, 0.0))
    for number, axis in ((0, "z"), (2, "x")):
        steps = [block.apart[axis] for block in blocks]
        told = [step for step in steps if step is not None and math.isfinite(step)]
        if told:
            apart = float(np.median(told))
            found[axis] = 1 + apart / (shape[number] / 2), apart
    if ends is not None:
        apart = ends[1].shift_zyx_px[1] - ends[0].shift_zyx_px[1]
        if math.isfinite(apart):
            found["y"] = 1 + apart / (starts[-1] - starts[0]), apart
    (z, dz), (y, dy), (x, dx) = (found[axis] for axis in "zyx")
    return (z, y, x), (dz, dy, dx)


def _remedy(method: str) -> str:
    """What to do about a fault."""
    if method == "fbp":  # with which others would be compared
        return "look at the images (cryolithe info), at their order and their angles before you use it"
    return "compare it with that of --method fbp before you use it"


def _faults(
    correlation: float,
    shift: tuple[float | None, float | None, float | None] | None,
    scales: tuple[tuple[float | None, ...], tuple[float, ...]],
    mirrored: str,
    inverted: bool,
) -> list[str]:
    """What is wrong, in words."""
    if mirrored:
        found = [f"the volume fits the back-projection of its images better when mirrored along {mirrored}"]
    elif inverted:
        found = ["the volume has the opposite contrast of the back-projection of its images"]
    elif shift is None:
        found = [f"the volume does not fit the back-projection of its images (correlation {correlation:.2f})"]
    else:
        found = []
        if max(abs(step or 0.0) for step in shift) > SHIFT_LIMIT_PX:
            found.append(f"the volume is shifted against the back-projection of its images by {_steps(shift)} px")
        sizes, apart = scales
        beyond = (abs((size or 1) - 1) > limit for size, limit in zip(sizes, SCALE_LIMITS.values(), strict=True))
        if any(far and abs(step) > SCALE_LIMIT_PX for far, step in zip(beyond, apart, strict=True)):
            found.append(
                "the volume's scale differs from that of its images: the middles of its two halves lie "
                f"{_steps(apart)} px farther apart"
            )
    return found


def _steps(steps: tuple[float | None, ...]) -> str:
    told = zip("zyx", steps, strict=True)
    return ", ".join(f"{axis} {'unknown' if step is None else format(step, '+.1f')}" for axis, step in told)
