"""From what the microscope gives to a tomogram in one command, against the ideal aligned, corrected stack.

A simulated specimen is recorded as SerialEM and AreTomo leave it: a stack in the order of acquisition with its .mdoc,
images turned by the tilt axis and shifted, dark and bad views, an .aln (``--patches``: with a local field) and a
_CTF.txt; the defocus is told for the middle of each raw image. ``cryolithe reconstruct RAW MDOC --aln ... --ctf flip
--dose-weight`` makes a volume of it. Beside it: the volume from images of the same specimen that never had to be
aligned, corrected with the optics that they were made with. Both have the same noise, so that what differs is what the
command loses. Both are correlated with the specimen, shell by shell.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
from common import Cell, Table, cryolithe_command, parser, read_arguments, record
from numpy.typing import NDArray

from cryolithe.formats import read_mrc
from cryolithe.formats.stacks.angles import write_angles_deg
from cryolithe.formats.stacks.mdoc import MdocImage, write_mdoc
from cryolithe.formats.stacks.mrc_writer import write_stack
from cryolithe.metrics import fourier_shell_correlation
from cryolithe.optics.exposure import exposure_filter
from cryolithe.optics.transfer import Optics, TiltedView, filtered, form_image, undo_ctf
from cryolithe.simulation.imaging import project_field

Image = NDArray[np.float32]
PIXEL, AXIS_DEG, HAND, DOSE = 5.0, 85.3, -1, 3.0
MOST_LOST, UP_TO = 0.02, 0.8
# 200 kV, as nothing but the .mdoc tells: AreTomo3's table of defocus does not.
OPTICS = Optics(200.0, 2.7, 0.07, 2.6, 0.04, 25.0)


@dataclass(frozen=True)
class View:
    """One image as it is taken.

    Attributes:
        angle_deg: its tilt.
        acquired: its place in the stack and in time, from 0.
        shift_px: T of AreTomo, ``(x, y)``.
        dark: whether AreTomo leaves it out.
    """

    angle_deg: float
    acquired: int
    shift_px: tuple[float, float]
    dark: bool = False


@dataclass(frozen=True)
class Size:
    """Pixels along an edge of the raw images, planes of the volume, degrees from view to view."""

    edge: int
    depth: int
    step_deg: float


def specimen(size: Size, margin: int, rng: np.random.Generator) -> Image:
    """A crowd of balls of many sizes, ``(z, y, x)``, wider than the field by a margin at each side."""
    density = np.zeros((size.depth, size.edge + 2 * margin, size.edge + 2 * margin), dtype=np.float32)
    count = round(density.size / 1800)
    height = rng.uniform(0.2, 0.8, count) * density.shape[0]
    places = np.stack([height, *(rng.uniform(0, n, count) for n in density.shape[1:])], -1)
    for place, radius in zip(places, rng.uniform(1.2, 4.0, count), strict=True):
        first = np.maximum(np.floor(place - 6).astype(int), 0)
        box = tuple(slice(int(a), int(min(a + 13, n))) for a, n in zip(first, density.shape, strict=True))
        grids = np.ogrid[box]
        away = np.sqrt(sum((g - p) ** 2 for g, p in zip(grids, place, strict=True)))
        density[box] = np.maximum(density[box], np.clip(radius + 0.5 - away, 0, 1))
    return density


def scheme(size: Size, rng: np.random.Generator) -> list[View]:
    """A dose-symmetric scheme of ±60°, in the order of angles; two views that are of no use."""
    steps = round(60 / size.step_deg)
    order = [0, *(sign * n for n in range(1, steps + 1) for sign in (1, -1))]
    acquired = {number: place for place, number in enumerate(order)}
    useless = {order[len(order) // 2], -steps}
    return [
        View(n * size.step_deg, acquired[n], tuple(rng.uniform(-5, 5, 2)), n in useless)
        for n in range(-steps, steps + 1)
    ]


def turn(degrees: float) -> NDArray[np.float64]:
    """Rotation of ``(x, y)``."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s], [s, c]])


def patch_field(edge: int, acquired: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places of patches from the middle of a raw image and their shifts, each ``(patches, xy)``."""
    line = np.linspace(-0.4, 0.4, 4) * edge
    x, y = (axis.ravel() for axis in np.meshgrid(line, line))
    grow = 1 + 0.02 * acquired
    shifts = np.stack([2.0 * np.sin(3 * y / edge + 0.4), 1.5 * np.cos(3 * x / edge) * np.sin(2 * y / edge)], -1)
    return np.stack([x, y], -1), grow * shifts


def local_shift(edge: int, view: View, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """AreTomo's local shift at places ``(..., xy)``: the patches' mean, weighed by exp(-100 r²)."""
    places, shifts = patch_field(edge, view.acquired)
    away = (((at[..., None, :] - places) / edge) ** 2).sum(-1)
    weight = np.exp(-100 * (away - away.min(-1, keepdims=True)))
    found: NDArray[np.float64] = (weight @ shifts) / weight.sum(-1)[..., None]
    return found


def optics_of(view: View) -> tuple[TiltedView, TiltedView]:
    """The view on the tilt axis, and as it is told: in the middle of the raw image, its directions those of that."""
    on_axis = TiltedView(OPTICS, view.angle_deg, PIXEL, HAND)
    middle = -turn(-AXIS_DEG) @ np.array(view.shift_px)
    there = HAND * middle[0] * PIXEL * math.tan(math.radians(view.angle_deg)) / 1e4
    told = replace(
        OPTICS, defocus_um=OPTICS.defocus_um + there, astigmatism_angle_deg=OPTICS.astigmatism_angle_deg + AXIS_DEG
    )
    return on_axis, replace(on_axis, optics=told)


def turned(image: Image, view: View, edge: int, patches: bool) -> Image:
    """What the camera sees of an aligned, wider image: sampled where no interpolation is felt, from a finer one."""
    finer = _twice_as_fine(image)
    rows, columns = np.mgrid[:edge, :edge] - (edge - 1) / 2
    seen = np.stack([columns, rows], -1) - np.array(view.shift_px)
    if patches:  # p = R q + s(R q) + T, solved for R q
        at = seen
        for _ in range(30):
            at = seen - local_shift(edge, view, at)
        seen = at
    aligned = seen @ turn(-AXIS_DEG).T
    places = [2 * (aligned[..., axis] + (image.shape[1 - axis] - 1) / 2) for axis in (1, 0)]
    return scipy.ndimage.map_coordinates(finer, places, order=5, mode="reflect").astype(np.float32)


def _twice_as_fine(image: Image) -> Image:
    """Values between the pixels, too: pixel n stays at 2n."""
    spectrum = scipy.fft.fftshift(scipy.fft.fft2(image))
    pads = [(n // 2, n - n // 2) for n in image.shape]
    wide = scipy.fft.ifftshift(np.pad(spectrum, pads))
    return (4 * scipy.fft.ifft2(wide).real).astype(np.float32)


def write_raw(folder: Path, raw: list[Image], views: list[View], edge: int, patches: bool) -> list[str]:
    """Write stack, .mdoc, .aln and _CTF.txt as the programs do; return the words of the one command."""
    order = sorted(range(len(views)), key=lambda n: views[n].acquired)
    write_stack(folder / "ts.st", np.stack([raw[n] for n in order]), PIXEL, "SerialEM: simulated")
    images = [
        MdocImage(views[n].angle_deg, DOSE, DOSE * views[n].acquired, -OPTICS.defocus_um, k)
        for k, n in enumerate(order)
    ]
    write_mdoc(folder / "ts.st.mdoc", "ts.st", images, PIXEL, (edge, edge), OPTICS.voltage_kv)
    text = (folder / "ts.st.mdoc").read_text()
    title = f"[T =     Tilt axis angle = {AXIS_DEG}, binning = 1  spot = 8  camera = 0]"
    (folder / "ts.st.mdoc").write_text(text.replace("[T = Simulated by CryoLithe]", title))
    used = [view for view in views if not view.dark]
    lines = [
        "# AreTomo Alignment / Priims bprmMn",
        f"# RawSize = {edge} {edge} {len(views)}",
        f"# NumPatches = {16 if patches else 0}",
        *(f"# DarkFrame = {n:5d} {v.acquired + 1:5d} {v.angle_deg:8.2f}" for n, v in enumerate(views) if v.dark),
        "# AlphaOffset =     0.00",
        "# BetaOffset =     0.00",
        "# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT",
        *(
            f"{v.acquired + 1:5d} {AXIS_DEG:9.4f} 1.00000 {v.shift_px[0]:9.3f} {v.shift_px[1]:9.3f} "
            f"1.00 1.00 1.00 0.00 {v.angle_deg:8.2f}"
            for v in used
        ),
    ]
    if patches:
        lines.append("# Local Alignment")
        for t, view in enumerate(used):
            for p, (at, by) in enumerate(zip(*patch_field(edge, view.acquired), strict=True)):
                lines.append(f"{t:4d} {p:3d} {at[0]:9.2f} {at[1]:9.2f} {by[0]:9.3f} {by[1]:9.3f} 1.0")
    (folder / "ts.aln").write_text("\n".join(lines) + "\n")
    head = (
        "# Columns: #1 micrograph number; #2 - defocus 1 [A]; #3 - defocus 2; #4 - azimuth of astigmatism; #5 - "
        "additional phase shift [radian]; #6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF rings "
        "were fit successfully; #8 - dfHand\n"
    )
    rows = []
    for number, view in enumerate(used, start=1):
        told = optics_of(view)[1].optics
        u, v = (1e4 * (told.defocus_um + sign * told.astigmatism_um) for sign in (1, -1))
        angle = told.astigmatism_angle_deg % 180
        rows.append(f"{number:4d} {u:10.2f} {v:10.2f} {angle:8.2f} 0.0000 0.2000 8.0 {-HAND:d}")
    (folder / "ts_CTF.txt").write_text(head + "\n".join(rows) + "\n")
    return [str(folder / name) for name in ("ts.st", "ts.st.mdoc")] + ["--aln", str(folder / "ts.aln")]


def make(folder: Path, size: Size, patches: bool, noise: float) -> tuple[Image, list[str], list[str]]:
    """Simulate; write both stacks. Returns the truth, and the words of the command for either."""
    rng = np.random.default_rng(12)
    margin = size.edge // 4 + 16
    density, views = specimen(size, margin, rng), scheme(size, rng)
    shadows = project_field(density, tuple(view.angle_deg for view in views), "even")
    sigma = float(shadows[len(views) // 2].std()) * noise
    raw, ideal = [], []
    inner = slice(margin, margin + size.edge)
    for view, shadow in zip(views, -shadows, strict=True):
        exposure = DOSE * view.acquired
        damage = exposure_filter(shadow.shape, PIXEL, exposure, OPTICS.voltage_kv)
        on_axis, _ = optics_of(view)
        image = form_image(shadow, on_axis, damage)
        if view.dark:
            raw.append(0.01 * rng.standard_normal((size.edge, size.edge), dtype=np.float32))
            continue
        image = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)  # the same noise in both stacks
        raw.append(turned(image, view, size.edge, patches))
        still = image[inner, inner]
        still = undo_ctf(still - still.mean(), on_axis, "flip")
        ideal.append(filtered(still, exposure_filter(still.shape, PIXEL, exposure, OPTICS.voltage_kv)))
    words = write_raw(folder, raw, views, size.edge, patches)
    write_stack(folder / "ideal.mrc", np.stack(ideal), PIXEL, "ideal")
    write_angles_deg(folder / "ideal.tlt", [view.angle_deg for view in views if not view.dark])
    words += ["--ctf", "flip", "--dose-weight"]
    return -density[:, inner, inner], words, [str(folder / "ideal.mrc"), str(folder / "ideal.tlt")]


def middle(volume: Image) -> Image:
    """The middle of a volume, which falls off softly: what all images of either stack show whole."""
    depth, height, width = volume.shape
    edge = int(0.6 * min(height, width)) // 2 * 2
    y, x = (height - edge) // 2, (width - edge) // 2
    part = volume[:, y : y + edge, x : x + edge].astype(np.float64)
    line = scipy.signal.windows.tukey(edge, 0.25)
    deep = scipy.signal.windows.tukey(depth, 0.2)
    found: Image = ((part - part.mean()) * deep[:, None, None] * line[:, None] * line).astype(np.float32)
    return np.pad(found, [((edge - depth + 1) // 2, (edge - depth) // 2), (0, 0), (0, 0)]) if depth < edge else found


def fsc(volume: Image, truth: Image) -> NDArray[np.float64]:
    """Correlation with the truth, in shells up to Nyquist."""
    curve = fourier_shell_correlation(middle(truth), middle(volume), tilt_range_deg=(-60.0, 60.0))
    assert curve.measured is not None
    return curve.measured


def run(words: list[str], output: Path, depth: int, method: list[str]) -> str:
    """The one command; returns what it says."""
    command = [*cryolithe_command(), "reconstruct", *words, *method, "--thickness", str(depth), "-o", str(output)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stderr


def compared(folder: Path, size: Size, patches: bool, noise: float, method: list[str]) -> dict[str, Any]:
    """FSC with the truth of both volumes, and where the one from the raw stack falls behind most."""
    truth, raw_words, ideal_words = make(folder, size, patches, noise)
    said = run(raw_words, folder / "raw.mrc", size.depth, method)
    run(ideal_words, folder / "ideal_rec.mrc", size.depth, method)
    raw, ideal = (fsc(read_mrc(folder / name).data, truth) for name in ("raw.mrc", "ideal_rec.mrc"))
    frequency = np.arange(len(raw)) / (len(raw) - 1)
    counted = (frequency > 0) & (frequency < UP_TO) & np.isfinite(raw) & np.isfinite(ideal)
    lost = np.where(counted, ideal - raw, -np.inf)
    worst = int(lost.argmax())
    return {
        "frequency_of_nyquist": frequency,
        "fsc_raw": raw,
        "fsc_ideal": ideal,
        "most_lost": float(lost[worst]),
        "at": float(frequency[worst]),
        "passed": bool(lost[worst] <= MOST_LOST),
        "said": [line for line in said.splitlines() if "hand" in line or "CTF" in line or "aligned" in line],
    }


def main() -> None:
    """Simulate, reconstruct both ways, compare."""
    made = parser("raw_stack", __doc__)
    made.add_argument("--patches", action="store_true", help="with a local field (# Local Alignment) in the .aln")
    made.add_argument("--noise", type=float, default=0.5, help="of an image, as a part of its contrast")
    made.add_argument("--method", default="fbp", help="of cryolithe reconstruct")
    options = read_arguments(made)
    size = Size(96, 24, 6.0) if options.quick else Size(320, 64, 3.0)
    method = ["--method", options.method, "--device", "cpu"]
    rows: list[list[Cell]] = []
    results: dict[str, Any] = {}
    for noise in dict.fromkeys((0.0, options.noise)):
        with tempfile.TemporaryDirectory() as folder:
            found = compared(Path(folder), size, options.patches, noise, method)
        results[f"noise {noise:g}"] = found
        for low in (0.0, 0.2, 0.4, 0.6):
            some = (found["frequency_of_nyquist"] > low) & (found["frequency_of_nyquist"] <= low + 0.2)
            means = [float(np.nanmean(found[key][some])) for key in ("fsc_raw", "fsc_ideal")]
            rows.append([f"noise {noise:g}, {low:.1f} to {low + 0.2:.1f}", *means, means[1] - means[0]])
        rows.append([f"noise {noise:g}: worst shell, {found['at']:.2f}", "", "", found["most_lost"]])
    title = "From the raw stack" + (", with patches" if options.patches else "")
    note = f"Mean FSC with the specimen by frequency, of Nyquist, within the tilts' range; method {options.method}."
    table = Table(title, ("", "raw stack", "ideal stack", "lost"), rows, note)
    record("raw_stack", {"tables": [table], "runs": results}, options.output)


if __name__ == "__main__":
    main()
