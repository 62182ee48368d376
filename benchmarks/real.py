"""A real needle, of which ±76° were recorded: what do reconstructions from ±60° say of the rest, and is it round?

No truth is known but these: the section is round, and images beyond ±60° were recorded and left out. Elongation is
depth over width of the section across the tilt axis, 1 for a round needle, at half of the height between background
and maximum. Reconstructions are made by the real command, and all are judged as `cryolithe evaluate` does.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from baselines.classical import SIGMAS_PX, Half, choose_iterations, gaussian
from baselines.n2n import N2nSettings, noise2noise
from baselines.topaz import Topaz, find_topaz
from common import ROOT, Cell, Table, model_of, parser, read_arguments, record
from numpy.typing import NDArray
from parts.cross_section import mean_cross_section
from parts.measures import rounded
from parts.sheets import draw_sheet
from scipy.ndimage import binary_dilation, gaussian_filter

from cryolithe.cli import main as command
from cryolithe.errors import InputError
from cryolithe.evaluation.evaluate import Evaluation, evaluate
from cryolithe.evaluation.inputs import Request, load
from cryolithe.formats import read_tilt_series, read_volume, write_angles_deg, write_stack, write_volume
from cryolithe.geometry import TiltGeometry
from cryolithe.images import fourier_crop
from cryolithe.projector import make_projector
from cryolithe.projector.classical import sirt_margin_px
from cryolithe.report.figures import plot_central_slices
from cryolithe.volume import Volume

Array = NDArray[np.float32]

DATA = ROOT / "examples" / "needle"
REACH_DEG = 60.0
THRESHOLD = 0.5
SEED = 60
# The needle is where a volume of all tilts is above this share of its maximum in a plane across the axis, and this one
# of that in all planes, as parts of it are faint; the vacuum begins so far from it.
NEEDLE_SHARE, LEAST_SHARE, VACUUM_FROM_PX, VACUUM_SIGMA_PX = 0.15, 0.05, 6, 2.0
QUICK_ITERATIONS = 10  # of SIRT; else they are chosen
FBP, SIRT, N2N, TOPAZ = "FBP", "SIRT", "Noise2Noise U-Net", "Topaz-Denoise 3-D"
GAUSSIAN = "FBP + Gaussian"
COLUMNS = (
    "method, tilts", "width px", "depth px", "depth/width", "correlation beyond 60°", "likeness to all tilts dB",
    "FSC of halves", "in the wedge", "wedge fill", "streaks", "vacuum %", "brightest %", "seconds",
)  # fmt: skip
NOT_TESTED = ("any other real specimen", "a real cryo specimen: the needle is HAADF-STEM, with little noise")


@dataclass(frozen=True)
class Needle:
    """The tilt series, and how to reconstruct it.

    Attributes:
        images: shape ``(tilts, y, x)``, dense = bright.
        angles_deg: of the images.
        pixel_angstrom: their pixel size.
        thickness: of the volume in voxels.
        folder: for files.
    """

    images: NDArray[Any]
    angles_deg: NDArray[np.float64]
    pixel_angstrom: float
    thickness: int
    folder: Path


class Made(NamedTuple):
    """A volume as a file with those of its halves, the seconds that it took, and what was chosen."""

    path: Path
    halves: tuple[Path, Path] | None
    seconds: float
    detail: dict[str, Any]


def reconstructed(needle: Needle, keep: NDArray[np.bool_], label: str, flags: dict[str, Any]) -> tuple[Path, float]:
    """A volume from some of the tilts by the real command, and the seconds that it took."""
    stack, angle_file = needle.folder / f"tilts_{label}.mrc", needle.folder / f"tilts_{label}.tlt"
    if not stack.exists():
        write_stack(stack, needle.images[keep], needle.pixel_angstrom, "needle")
        write_angles_deg(angle_file, needle.angles_deg[keep])
    output = needle.folder / f"{flags['--method']}_{Path(str(flags.get('--model', ''))).stem}_{label}.mrc"
    flags = {"--output": output, "--device": "cpu", "--thickness": needle.thickness, "--contrast": "bright"} | flags
    words = ["reconstruct", str(stack), str(angle_file), *(str(word) for flag in flags.items() for word in flag)]
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        command(words, prog_name="cryolithe", standalone_mode=False)
    return output, time.perf_counter() - start


def voxels(path: Path) -> Array:
    return np.array(read_volume(path).voxels, dtype=np.float32)


def kept_as(needle: Needle, name: str, volume: Array) -> Path:
    path = needle.folder / f"{name}.mrc"
    write_volume(path, Volume(volume, needle.pixel_angstrom), label=name)
    return path


def iterations_of(needle: Needle, halves: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> int:
    """SIRT's iterations by predicting every other tilt."""
    made = []
    for keep in halves:
        rows = needle.images[keep].astype(np.float32)
        rows -= rows.mean(axis=(1, 2), keepdims=True)
        height, width = rows.shape[1:]
        geometry = TiltGeometry(tuple(needle.angles_deg[keep]), (height, width))
        wide = (needle.thickness, width + 2 * sirt_margin_px(needle.thickness))
        made.append(Half(make_projector(geometry, wide), torch.from_numpy(rows)))
    return choose_iterations(made[0], made[1])[0]


def filtered(needle: Needle, plain: Made, n2n: N2nSettings | None, topaz: Topaz | None) -> dict[str, Made]:
    """What can be done to an FBP and its halves."""
    assert plain.halves is not None
    whole, even, odd = (voxels(path) for path in (plain.path, *plain.halves))
    found: dict[str, Made] = {}
    start = time.perf_counter()
    chosen = gaussian(whole, even, odd)

    def same(volume: Array) -> Array:
        return gaussian(volume, even, odd).volume  # σ depends on the halves alone

    found[GAUSSIAN] = all_three(needle, "gaussian", (whole, even, odd), same, {"sigma_px": chosen.value}, start)
    if n2n is not None:
        start = time.perf_counter()
        denoised = noise2noise(even, odd, n2n)
        path = kept_as(needle, "n2n", denoised.volume)
        detail = {"steps": denoised.steps, "loss": denoised.loss}
        # Its halves were each other's targets: their FSC would say nothing.
        found[N2N] = Made(path, None, time.perf_counter() - start, detail)
    if topaz is not None:
        start = time.perf_counter()
        run = topaz

        def by_topaz(volume: Array) -> Array:
            return run.denoise(volume, needle.pixel_angstrom)

        found[TOPAZ] = all_three(needle, "topaz", (whole, even, odd), by_topaz, {"version": topaz.version}, start)
    return found


def all_three(
    needle: Needle,
    name: str,
    volumes: tuple[Array, Array, Array],
    denoise: Callable[[Array], Array],
    detail: dict[str, Any],
    start: float,
) -> Made:
    """Treat a volume and its halves alike; the seconds are those of the volume."""
    whole = kept_as(needle, name, denoise(volumes[0]))
    seconds = time.perf_counter() - start
    halves = [kept_as(needle, f"{name}_{n}", denoise(half)) for n, half in enumerate(volumes[1:])]
    return Made(whole, (halves[0], halves[1]), seconds, detail)


def section(volume: NDArray[Any]) -> dict[str, float | None]:
    """Width, depth and their ratio; None where the volume shows no object."""
    try:
        return {key: float(value) for key, value in asdict(mean_cross_section(volume, THRESHOLD)).items()}
    except InputError:
        return {"width_px": None, "depth_px": None, "depth_over_width": None}


def drawn_into_vacuum(volume: Array, reference: Array) -> dict[str, float]:
    """What a volume shows beside the needle, where nothing is: rms and maximum of local means, in % of the needle.

    Args:
        volume: shape ``(z, y, x)``, dense = bright.
        reference: of all tilts, the same shape: it tells where the needle is.

    The median of the vacuum in each plane across the tilt axis is nothing: images have steps along the axis.
    """
    smooth = gaussian_filter(reference, VACUUM_SIGMA_PX)
    smooth -= np.median(smooth, axis=(0, 2), keepdims=True)  # of the vacuum: the needle is the lesser part of a plane
    level = np.maximum(NEEDLE_SHARE * smooth.max((0, 2), keepdims=True), LEAST_SHARE * smooth.max())
    inside = smooth > level
    vacuum = ~binary_dilation(inside, iterations=VACUUM_FROM_PX)
    local = gaussian_filter(volume, VACUUM_SIGMA_PX)
    nothing = np.ma.median(np.ma.masked_array(local, ~vacuum), axis=(0, 2)).filled(0.0)
    above = 100 * (local - nothing[None, :, None]) / np.percentile((local - nothing[None, :, None])[inside], 90)
    return {"vacuum": float(np.sqrt(np.mean(above[vacuum] ** 2))), "brightest": float(above[vacuum].max())}


def judged(needle: Needle, made: Made, reference: Path, held_out: bool) -> dict[str, Any]:
    """All numbers of one volume; the stack of all tilts is the one that `reconstructed` wrote."""
    request = Request(
        made.path,
        reference=None if made.path == reference else reference,
        halves=made.halves,
        tilts=needle.folder / "tilts_all.mrc",
        angles=needle.folder / "tilts_all.tlt",
        held_out=f"beyond {REACH_DEG:g}",
        tilt_range_deg=(-REACH_DEG, REACH_DEG),
        contrast="bright",
    )
    found: Evaluation = evaluate(load(request))[0]
    assert found.reprojection is not None
    halves = found.halves.curves.mean if found.halves else {}
    return {
        **section(voxels(made.path)),
        **drawn_into_vacuum(voxels(made.path), voxels(reference)),
        "correlation_beyond": found.reprojection.mean_correlation,
        "correlation_each": found.reprojection.correlation,
        "held_out": held_out,
        "likeness_db": found.reference.similarity.snr_db if found.reference else None,
        "halves_measured": halves.get("measured"),
        "halves_missing": halves.get("missing"),
        "wedge_fill": found.wedge.fill,
        "streak_index": found.wedge.streak_index,
        "seconds": made.seconds,
        **made.detail,
    }


def row_of(label: str, found: dict[str, Any]) -> list[Cell]:
    """A line of the table."""
    names = ("width_px", "depth_px", "depth_over_width")
    sizes = [rounded(found[name], "seconds" if name != names[2] else name) for name in names]
    seen = "" if found["held_out"] else " (seen)"
    rest = ("likeness_db", "halves_measured", "halves_missing", "wedge_fill", "streak_index", "vacuum",
            "brightest", "seconds")  # fmt: skip
    return [label, *sizes, f"{found['correlation_beyond']:.4f}{seen}", *(rounded(found[name], name) for name in rest)]


def losses_of(found: dict[str, dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """Where a method without a network of ours does better, from ±60° and from all tilts."""
    losses = []
    for name, title, sign in (
        ("correlation_beyond", "correlation beyond 60°", 1),
        ("likeness_db", "likeness to all tilts dB", 1),
        ("halves_measured", "FSC of halves", 1),
        ("depth_over_width", "depth/width", -1),
    ):
        for label, values in found.items():
            method, cut = label.rsplit(", ", 1)
            theirs, own = values[name], found[f"{model}, {cut}"][name]
            # From all tilts only the shape is a test: the images to predict were seen.
            if method.startswith("CryoLithe") or theirs is None or own is None or (cut == "all" and sign > 0):
                continue
            a, b = (abs(theirs - 1), abs(own - 1)) if name == "depth_over_width" else (theirs, own)
            if sign * a > sign * b:
                where = f"needle, {cut} tilts" if cut == "all" else f"needle, {cut}"
                losses.append({"where": where, "measure": title, "baseline": method, "value": theirs, "model": own})
    return losses


def read_needle(folder: Path, quick: bool) -> Needle:
    """The series, cropped in Fourier space for a quick run."""
    series = read_tilt_series(DATA / "needle.mrc", DATA / "needle.tlt")
    images: NDArray[Any] = np.array(series.images)
    pixel, thickness = series.pixel_size_angstrom or 1.0, 128
    if quick:
        images = np.stack([fourier_crop(image.astype(np.float32), 4) for image in images])
        pixel, thickness = 4 * pixel, 32
    return Needle(images, np.asarray(series.geometry.angles_deg), pixel, thickness, folder)


def main() -> None:
    """Reconstruct from all tilts, from ±60° and from its halves by each method, and measure."""
    options = parser("real", __doc__)
    options.add_argument(
        "--models", default="default,fast,draft", help="names or paths, by commas; losses are the first's"
    )
    options.add_argument("--n2n-steps", type=int, help="of the Noise2Noise training; 0 leaves it out (default 100)")
    options.add_argument("--n2n-minutes", type=float, default=3.0, help="at most")
    options.add_argument("--topaz", type=Path, metavar="PYTHON", help="of an environment that has topaz-em")
    arguments = read_arguments(options)
    steps = arguments.n2n_steps if arguments.n2n_steps is not None else 4 if arguments.quick else 100
    n2n = N2nSettings(steps, arguments.n2n_minutes, 4 if arguments.quick else 16, seed=SEED) if steps else None
    topaz = find_topaz(arguments.topaz) if arguments.topaz else None
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        needle = read_needle(Path(name), arguments.quick)
        within = np.abs(needle.angles_deg) <= REACH_DEG
        number = np.cumsum(within) - 1  # among those within
        cuts = {"all": np.ones_like(within), "±60°": within}
        halves = (within & (number % 2 == 0), within & (number % 2 == 1))
        iterations = QUICK_ITERATIONS if arguments.quick else iterations_of(needle, halves)
        methods: dict[str, dict[str, Any]] = {
            FBP: {"--method": "fbp"},
            SIRT: {"--method": "sirt", "--iterations": iterations},
        }
        for model in arguments.models.split(","):
            methods[f"CryoLithe {Path(model).stem}"] = {"--method": "network", "--model": model}
        made: dict[str, Made] = {}
        for method, flags in methods.items():
            path, seconds = reconstructed(needle, cuts["all"], "all", flags)
            made[f"{method}, all"] = Made(path, None, seconds, {"model": model_of(path.with_suffix(".json"))})
            path, seconds = reconstructed(needle, within, "60", flags)
            parts = [reconstructed(needle, keep, half, flags)[0] for keep, half in zip(halves, "ab", strict=True)]
            detail = {"model": model_of(path.with_suffix(".json"))}
            made[f"{method}, ±60°"] = Made(path, (parts[0], parts[1]), seconds, detail)
            print(f"{method}: done", flush=True)
        others = filtered(needle, made[f"{FBP}, ±60°"], n2n, topaz)
        made |= {f"{method}, ±60°": one for method, one in others.items()}
        order = [*(label for label in made if label.endswith("all")), *(m for m in made if not m.endswith("all"))]
        reference = made[f"{SIRT}, all"].path
        found = {label: judged(needle, made[label], reference, not label.endswith("all")) for label in order}
        figures = [
            arguments.output.with_suffix(".png"),
            arguments.output.with_name("needle.quick.png" if arguments.quick else "needle.png"),
        ]
        shown = {f"{SIRT}, all": voxels(reference)}
        shown |= {label: voxels(made[label].path) for label in order if not label.endswith("all")}
        titles = {label: label.replace(", ±60°", "").replace(", all", ", ±76°") for label in shown}
        sheet = {titles[label]: volume for label, volume in shown.items()}
        draw_sheet(figures[0], sheet, needle.pixel_angstrom, (-REACH_DEG, REACH_DEG))
        first = list(methods)[2]
        three = [f"{method}, {cut}" for cut in cuts for method in (FBP, SIRT, first)]
        panels = [(label.removeprefix("CryoLithe "), voxels(made[label].path)) for label in three]
        plot_central_slices(figures[1], panels, needle.pixel_angstrom)
    note = (
        f"{needle.images.shape[0]} images of ±76°, {np.count_nonzero(within)} of them within ±60°. Threshold "
        f"{THRESHOLD:g} between median and maximum; medians over y. Correlation: projections of the volume against the "
        f"{np.count_nonzero(~within)} images beyond ±60°, held out from ±60° and seen from all tilts. Likeness: SNR "
        "with SIRT from all tilts as if it were the truth, which favours SIRT. FSC of halves: mean over shells, of "
        "volumes from every other tilt, in the measured region and in the wedge; it tells what repeats, not what is "
        "right, and is left out for Noise2Noise, which was trained on these halves. Wedge fill and streaks: compare "
        "with all tilts. Vacuum: rms and maximum of local means where nothing is, in percent of the needle. SIRT: "
        f"{iterations} iterations, σ of the Gaussian "
        f"{found[f'{GAUSSIAN}, ±60°']['sigma_px']:g} of up to {SIGMAS_PX[-1]:g} voxels, both chosen from the halves. "
        f"Noise2Noise: {f'{n2n.steps} steps on the halves' if n2n else 'left out'}. Topaz: "
        f"{f'topaz-em {topaz.version}, {topaz.model}, dense matter dark' if topaz else 'left out'}."
    )
    results = {
        "tables": [Table("A real needle", COLUMNS, [row_of(label, found[label]) for label in order], note)],
        "figures": [path.name for path in figures],
        "caption": "Central slices xy and xz, and log power in the planes (kx, ky) and (kx, kz); orange: ±60°.",
        "losses": {"model": first, "found": losses_of(found, first), "not_tested": NOT_TESTED},
        "volumes": found,
    }
    record("real", results, arguments.output)


if __name__ == "__main__":
    main()
