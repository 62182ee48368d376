"""Samba on a simulated tomogram: SNR and FSC against the truth beside simpler filters, modulation along z, speed.

A simulated crowd (128 x 256 x 256 voxels of 10 Å, white noise in 41 tilts of ±60°) is reconstructed by FBP, whole and
from even and odd noise; `cryolithe denoise` learns from the whole and denoises it. "Plane average" is the mean over z
of as many planes as make the same SNR gain possible without a network; "Gaussian" is the isotropic blur that removes as
much noise as samba did. "Modulation" is the part of the transfer along k_z that no monotone low-pass explains: plain
averaging and direct interpolation show cosines there (figure S2 of the CryoSamba paper).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from common import ROOT, Table, cryolithe_command, parser, read_arguments, record
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from cryolithe.denoising.samba.blocks import Source
from cryolithe.denoising.samba.gaps import gaps_of
from cryolithe.denoising.samba.inference import Inference
from cryolithe.denoising.samba.model import SIZES, SambaNet, load_weights
from cryolithe.denoising.samba.recipe import Recipe
from cryolithe.denoising.samba.sweep import central_tile
from cryolithe.denoising.samba.training import batch_loss, new_state
from cryolithe.denoising.scale import survey
from cryolithe.fidelity import correlation
from cryolithe.formats import read_volume, write_volume
from cryolithe.formats.volumes.volume_file import open_volume_file
from cryolithe.geometry import TiltGeometry
from cryolithe.machine.device import choose_device, choose_precision, keep_freed_memory, precision_name
from cryolithe.metrics import fourier_shell_correlation, resolution_at
from cryolithe.network.checkpoint import load_model
from cryolithe.optimise.distributed import Place
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.slabwise.methods import ON_CPU
from cryolithe.reconstruction.slabwise.networks import fbp_share
from cryolithe.simulation import SpecimenRecipe, load_molecules, make_specimen, noise_sigma, project
from cryolithe.training.scoring import finished_array, reconstruct_array
from cryolithe.volume import Volume

VOXEL = 10.0
ANGLES_DEG = tuple(float(a) for a in np.arange(-60.0, 60.1, 3.0))
# Published, A100: a training step of batch 32, an iteration of inference with four flips, GPU memory at batch 2.
PUBLISHED = {"training step, batch 32": 0.4, "inference, batch 32, 12 passes": 0.9, "GB at batch 2": 3.0}
Array = NDArray[np.float32]


def make_volumes(folder: Path, shape: tuple[int, int, int], snr_db: float, molecules: Path | None) -> None:
    """Truth, FBP from all, even and odd noise, and what `reconstruct` makes of all; what exists is kept."""
    if (folder / "network.mrc").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20)
    library = load_molecules(molecules) if molecules else ()
    recipe = SpecimenRecipe(
        shape=shape,
        voxel_size_angstrom=(VOXEL, VOXEL),
        crowding=(0.1, 0.1),
        membranes=(3, 3),
        body_chance=0,
        bead_chance=0,
    )
    specimen = make_specimen(recipe, library, rng)
    clean = project(specimen, ANGLES_DEG)
    sigma = noise_sigma(clean, snr_db)
    noise = [rng.standard_normal(clean.shape, dtype=np.float32) * np.float32(math.sqrt(2) * sigma) for _ in range(2)]
    images = {"even": clean + noise[0], "odd": clean + noise[1], "full": clean + (noise[0] + noise[1]) / 2}
    images = {name: stack - stack.mean(axis=(1, 2), keepdims=True) for name, stack in images.items()}
    projector = make_projector(TiltGeometry(ANGLES_DEG, shape[1:]), (shape[0], shape[2]))
    for name in ("full", "even", "odd"):
        volume = fbp(projector, torch.from_numpy(images[name])).numpy()
        write_volume(folder / f"{name}.mrc", Volume(volume, VOXEL), label="benchmark", overwrite=True)
    truth = np.asarray(specimen.density, dtype=np.float32)
    write_volume(folder / "truth.mrc", Volume(truth, VOXEL), label="benchmark", overwrite=True)
    model = load_model("default")
    alone = reconstruct_array(model.network, images["full"], ANGLES_DEG, shape[0], ON_CPU)
    volume = finished_array(model.network, alone, images["full"], ANGLES_DEG, fbp_share(model, None), ON_CPU)
    write_volume(folder / "network.mrc", Volume(volume, VOXEL), label="benchmark", overwrite=True)


def run_command(folder: Path, name: str, minutes: float, arguments: argparse.Namespace) -> None:
    """Train on a volume and denoise it, by the real command; what exists is kept."""
    if (folder / f"{name}_samba.mrc").exists():
        return
    words = ["denoise", f"{name}.mrc", "--train-minutes", str(minutes), "--report", f"{name}_report.png"]
    words += ["--resume"] if (folder / f"{name}_samba.run").exists() else []
    words += ["--threads", str(arguments.threads), "--size", arguments.size, "--device", arguments.device]
    words += ["--lmax", str(arguments.lmax)] if arguments.lmax else []
    subprocess.run([*cryolithe_command(), *words], cwd=folder, check=True)


def frank_db(a: Array, b: Array) -> float:
    """SNR after Frank and Al-Ali: 10 log10(c / (1 - c))."""
    c = correlation(a, b)
    return 10 * math.log10(c / (1 - c)) if 0 < c < 1 else math.nan


def equal_gaussian(raw: Array, truth: Array, noise_left: float) -> tuple[Array, float]:
    """The isotropic blur that leaves the same power of what the truth does not explain."""
    low, high = 0.0, 6.0
    for _ in range(12):
        middle = (low + high) / 2
        blurred = scipy.ndimage.gaussian_filter(raw, middle)
        low, high = (middle, high) if unexplained(blurred, truth) > noise_left else (low, middle)
    return scipy.ndimage.gaussian_filter(raw, high), high


def unexplained(volume: Array, truth: Array) -> float:
    """Power of a volume that is not in proportion to the truth."""
    return float(volume.var()) * (1 - correlation(volume, truth) ** 2)


def plane_average(raw: Array, largest: int) -> Array:
    """Mean over the gaps 1 ... ``largest`` of the planes z - L and z + L, mirrored at the ends."""
    padded = np.pad(raw, ((largest, largest), (0, 0), (0, 0)), mode="reflect")
    depth = raw.shape[0]
    parts = [padded[largest + s : largest + s + depth] for g in range(1, largest + 1) for s in (-g, g)]
    mean: Array = np.mean(parts, axis=0, dtype=np.float32)
    return mean


def transfer_along_z(before: Array, after: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies and real transfer along k_z, over all k_x, k_y where the input has content."""
    window = np.hanning(before.shape[0] + 2)[1:-1, None, None]
    a, b = (np.fft.fftn((v - v.mean()) * window) for v in (before, after))
    cross, power = (b * a.conj()).real.sum(axis=(1, 2)), (np.abs(a) ** 2).sum(axis=(1, 2))
    half = before.shape[0] // 2 + 1
    return np.arange(half) / before.shape[0], (cross / power)[:half]


def modulation(transfer: NDArray[np.float64]) -> float:
    """Root mean square of what the best falling curve leaves, as a share of the transfer at the lowest frequencies."""
    fit = isotonic_regression(transfer, increasing=False).x
    return float(np.sqrt(np.mean((transfer - fit) ** 2)) / transfer[:3].mean())


def inference_of(folder: Path, name: str, place: Place, augment: bool = False) -> tuple[Source, Inference]:
    """What denoises a volume with the trained weights."""
    volume = open_volume_file(folder / f"{name}.mrc")
    found = survey(volume.read, volume.shape[0], False, name)
    weights = load_weights(folder / "full_samba.safetensors")
    gap = json.loads((folder / "full_samba.json").read_text())["method"]["lmax_inference"]
    network = weights.network.to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Source(volume, found), Inference(network, place, found.usable, gap, augment)


def scores(folder: Path) -> dict[str, Any]:
    """Against the truth: SNR after Frank and Al-Ali, FSC by shell, for samba and the simpler filters."""
    truth, raw, new = (
        np.array(read_volume(folder / f"{name}.mrc").voxels, np.float32) for name in ("truth", "full", "full_samba")
    )
    blurred, sigma = equal_gaussian(raw, truth, unexplained(new, truth))
    average = plane_average(raw, 2)
    found: dict[str, Any] = {"gaussian_sigma_px": sigma}
    curves = {}
    for name, volume in (("raw", raw), ("plane average", average), ("gaussian", blurred), ("samba", new)):
        curves[name] = fourier_shell_correlation(truth, volume)
        curve = curves[name]
        found[name] = {
            "snr_db": frank_db(truth, volume),
            "fsc_mean": float(np.nanmean(curve.total[1:-1])),
            "resolution_0.143_angstrom": resolution_at(curve.total, curve.frequency_per_px, 0.143, VOXEL).value,
            "fsc": curve.total,
        }
    limit = VOXEL / found["raw"]["resolution_0.143_angstrom"]
    inside = (curves["raw"].frequency_per_px > 0) & (curves["raw"].frequency_per_px <= limit)
    for name in ("plane average", "gaussian", "samba"):
        difference = (curves[name].total - curves["raw"].total)[inside]
        found[name]["worst_fsc_change"] = float(difference.min())
        found[name]["shells_lower"] = int((difference < -0.002).sum())
    found["shells_inside"] = int(inside.sum())
    return found


def cut_middle(folder: Path, shape: tuple[int, int, int]) -> None:
    """The middle half of our network's output and of the truth along each axis: as telling, in less time."""
    inside = tuple(slice(n // 4, n // 4 + n // 2) for n in shape)
    for name in ("network", "truth"):
        part = np.ascontiguousarray(read_volume(folder / f"{name}.mrc").voxels[inside])
        write_volume(folder / f"{name}_middle.mrc", Volume(part, VOXEL), label="benchmark", overwrite=True)


def network_scores(folder: Path) -> dict[str, Any]:
    """Against the truth: the middle of our network's output before and after."""
    truth, raw, new = (
        np.array(read_volume(folder / f"{name}.mrc").voxels, np.float32)
        for name in ("truth_middle", "network_middle", "network_middle_samba")
    )
    before, after = fourier_shell_correlation(truth, raw), fourier_shell_correlation(truth, new)
    limit = VOXEL / resolution_at(before.total, before.frequency_per_px, 0.143, VOXEL).value
    inside = (before.frequency_per_px > 0) & (before.frequency_per_px <= limit)
    change = (after.total - before.total)[inside]
    return {
        "snr_db": [frank_db(truth, raw), frank_db(truth, new)],
        "fsc_mean": [float(np.nanmean(curve.total[1:-1])) for curve in (before, after)],
        "worst_fsc_change": float(change.min()),
        "mean_fsc_change": float(change.mean()),
    }


def halves(folder: Path, place: Place, planes: int) -> dict[str, float]:
    """As published: even raw against odd raw, and against odd denoised, in the middle planes."""
    source, inference = inference_of(folder, "odd", place)
    tile = central_tile(source, 256, inference.network.config.multiple)
    depth = source.volume.shape[0]
    z = range((depth - planes) // 2, (depth - planes) // 2 + planes)
    made = inference.planes(lambda k: source.window(k, tile), z.start, z.stop)
    new = np.stack([plane for plane in made if plane is not None])
    cut = (slice(z.start, z.stop), slice(tile[0].start, tile[0].stop), slice(tile[1].start, tile[1].stop))
    even = np.asarray(read_volume(folder / "even.mrc").voxels[cut])
    odd = np.asarray(read_volume(folder / "odd.mrc").voxels[cut])
    return {"raw, raw": frank_db(even, odd), "raw, denoised": frank_db(even, new)}


def figure_s2(folder: Path, place: Place, side: int, planes: int, largest: int) -> dict[str, Any]:
    """Transfer along k_z of plain averaging, direct interpolation and samba, on a crop."""
    source, inference = inference_of(folder, "full", place)
    tile = central_tile(source, side, inference.network.config.multiple)
    depth = source.volume.shape[0]
    start = (depth - planes) // 2
    raw = np.stack([source.window(z, tile) for z in range(depth)])

    def read(z: int) -> Array:
        return raw[z]

    z = range(start, start + planes)
    inference = Inference(inference.network, place, inference.usable, largest, batch=inference.batch)
    volumes = {
        "plane average": plane_average(raw, largest)[start : start + planes],
        "direct interpolation": np.stack([inference.direct(read, plane) for plane in z]),
        "samba": np.stack([p for p in inference.planes(read, z.start, z.stop) if p is not None]),
    }
    before = raw[start : start + planes]
    curves = {name: transfer_along_z(before, after) for name, after in volumes.items()}
    plot_s2(folder / "modulation.png", before, volumes, curves)
    return {
        name: {"modulation": modulation(t), "lowest": float(t.min()), "transfer": t, "frequency_per_px": f}
        for name, (f, t) in curves.items()
    }


def plot_s2(path: Path, before: Array, volumes: dict[str, Array], curves: dict[str, Any]) -> None:
    """XZ power of input and outputs, and the transfer along k_z."""
    from matplotlib.figure import Figure

    shown = {"input": before, **volumes}
    figure = Figure(figsize=(3.0 * len(shown), 5.6), dpi=130, layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=(1, 1.1))
    top = rows[0].subgridspec(1, len(shown))
    for column, (name, volume) in enumerate(shown.items()):
        axes = figure.add_subplot(top[column])
        window = np.hanning(volume.shape[0])[:, None, None] * np.hanning(volume.shape[2])
        power = np.abs(np.fft.fftn((volume - volume.mean()) * window, axes=(0, 2))) ** 2
        image = np.log10(np.fft.fftshift(power.mean(axis=1)) + 1e-9)
        low, high = np.percentile(image, (2, 99.8))
        axes.imshow(image, cmap="magma", vmin=low, vmax=high, origin="lower", aspect="auto")
        axes.set(title=name, xticks=[], yticks=[], xlabel="k_x", ylabel="k_z" if column == 0 else "")
    axes = figure.add_subplot(rows[1])
    for (name, (frequency, transfer)), colour in zip(curves.items(), ("#D55E00", "#0072B2", "#009E73"), strict=True):
        axes.plot(frequency, transfer, label=f"{name}: modulation {modulation(transfer):.3f}", color=colour)
    axes.axhline(0, color="0.6", lw=0.8)
    axes.set(xlabel="k_z (1/voxel)", ylabel="transfer", xlim=(0, 0.5))
    axes.legend(frameon=False)
    figure.savefig(path)


def speed(place: Place, size: str, quick: bool) -> dict[str, Any]:
    """Seconds of a training step and of an evaluation; memory on a GPU."""
    crop, batches = (64, (1,)) if quick else (256, (1, 2) if place.device.type == "cpu" else (1, 2, 8, 32))
    found: dict[str, Any] = {"weights": sum(weights.numel() for weights in SambaNet(SIZES[size]).parameters())}
    for batch in batches:
        recipe = Recipe(largest_gap=3, crop=crop, batch=batch, network=SIZES[size])
        state = new_state(recipe, place)
        triplets = torch.randn(3, batch, 1, crop, crop).clamp(-2, 2)
        if place.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(place.device)

        def step(state: Any = state, triplets: torch.Tensor = triplets) -> None:
            state.optimiser.zero_grad(set_to_none=True)
            state.scaler.scale(batch_loss(state.network, triplets, place)).backward()
            state.scaler.step(state.optimiser)
            state.scaler.update()

        repeats = 2 if place.device.type == "cpu" else 20
        entry = {"training_step_s": seconds(step, repeats, place)}
        if place.device.type == "cuda":
            entry["peak_gb"] = torch.cuda.max_memory_allocated(place.device) / 1e9
        network = state.network.eval()
        usable = np.ones(3, dtype=bool)
        inference = Inference(network, place, usable, 1, batch=batch)
        planes = [triplets[i, :1].to(place.device) for i in range(2)]
        from cryolithe.denoising.samba.inference import _Cache

        cache = _Cache(inference, lambda z: np.zeros((crop, crop), np.float32))

        @torch.inference_mode()
        def evaluate(cache: Any = cache, planes: Any = planes, batch: int = batch) -> None:
            cache.evaluate([(planes[0], planes[1])] * batch)

        entry["evaluation_s"] = seconds(evaluate, repeats, place)
        found[f"batch {batch}"] = entry
    return found


def seconds(call: Any, repeats: int, place: Place) -> float:
    """Median seconds of a call, after one to warm up."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if place.device.type == "cuda":
            torch.cuda.synchronize(place.device)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:]))


def learning(folder: Path) -> list[dict[str, str]]:
    """The loss held back against time."""
    with (folder / "full_samba.run" / "validation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Make the volume, denoise it, score it, time it."""
    options = parser("denoise", __doc__)
    options.add_argument("--folder", type=Path, default=ROOT / "build" / "denoise", help="volumes; kept and reused")
    options.add_argument("--molecules", type=Path, help="library to place")
    options.add_argument("--snr", type=float, default=-5.0, help="of the images, dB")
    options.add_argument("--train-minutes", type=float, default=30.0)
    options.add_argument("--network-minutes", type=float, default=10.0, help="on our network's output; 0: leave out")
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--size", default="published", choices=list(SIZES))
    options.add_argument("--device", default="auto")
    options.add_argument("--lmax", type=int)
    options.add_argument("--speed-only", action="store_true", help="a training step and an evaluation, no volume")
    arguments = read_arguments(options)
    if arguments.quick:
        arguments.folder, arguments.lmax, arguments.size = Path(tempfile.mkdtemp()), 2, "small"
        arguments.train_minutes = arguments.network_minutes = 0.1
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    place = Place(device, choose_precision("auto", device))
    results: dict[str, Any] = {"speed": speed(place, arguments.size, arguments.quick), "published": PUBLISHED}
    results |= {"place": str(device), "precision": precision_name(place.precision)}
    rows = [
        [f"{name}, {arguments.size}", entry["training_step_s"], entry["evaluation_s"], entry.get("peak_gb")]
        for name, entry in results["speed"].items()
        if isinstance(entry, dict)
    ]
    threads = f"{arguments.threads} threads" if device.type == "cpu" else "GPU"
    note = f"{device}, {precision_name(place.precision)}, {threads}. Published (A100): a step of batch 32 in 0.4 s."
    tables = [
        Table("Seconds on 256 x 256 crops", ("batch", "training step", "evaluation", "GPU memory, GB"), rows, note)
    ]
    if not arguments.speed_only:
        shape = (24, 64, 64) if arguments.quick else (128, 256, 256)
        arguments.folder = arguments.folder.resolve()
        make_volumes(arguments.folder, shape, arguments.snr, arguments.molecules)
        run_command(arguments.folder, "full", arguments.train_minutes, arguments)
        results["scores"] = scores(arguments.folder)
        results["halves_snr_db"] = halves(arguments.folder, place, 4 if arguments.quick else 16)
        s2 = (64, 8, 2) if arguments.quick else (64, 64, gaps_of(None, VOXEL, shape[0])[0])
        results["modulation"] = figure_s2(arguments.folder, place, *s2)
        if arguments.network_minutes:
            cut_middle(arguments.folder, shape)
            run_command(arguments.folder, "network_middle", arguments.network_minutes, arguments)
            results["network"] = network_scores(arguments.folder)
        results["learning"] = learning(arguments.folder)
        results["record"] = json.loads((arguments.folder / "full_samba.json").read_text())["seconds"]
        tables += result_tables(results)
    record("denoise", {**results, "tables": tables}, arguments.output)


def result_tables(results: dict[str, Any]) -> list[Table]:
    """Scores and modulation to be read."""
    found = results["scores"]
    rows: list[list[Any]] = []
    for name in ("raw", "plane average", "gaussian", "samba"):
        one = found[name]
        rows.append(
            [name, one["snr_db"], one["fsc_mean"], one["resolution_0.143_angstrom"], one.get("worst_fsc_change")]
        )
    halves_db = results["halves_snr_db"]
    note = (
        f"Gaussian of sigma {found['gaussian_sigma_px']:.2f} voxels; plane average over gaps 1, 2. Worst change: over "
        f"the {found['shells_inside']} shells below raw's 0.143 resolution. SNR from halves as published: even raw "
        f"with odd raw {halves_db['raw, raw']:.1f} dB, with odd denoised {halves_db['raw, denoised']:.1f} dB."
    )
    columns = (
        "against the truth",
        "SNR dB (Frank, Al-Ali)",
        "FSC mean",
        "resolution at 0.143, Å",
        "worst change of FSC",
    )
    if "network" in results:
        one = results["network"]
        for number, name in enumerate(("middle of our network's output", "the same, then samba")):
            rows.append([name, one["snr_db"][number], one["fsc_mean"][number], None, None])
        rows[-1][-1] = one["worst_fsc_change"]
    s2 = [[name, one["modulation"], one["lowest"]] for name, one in results["modulation"].items()]
    return [
        Table("Samba on a simulated tomogram", columns, rows, note),
        Table("Modulation along z (figure S2)", ("method", "modulation", "lowest transfer"), s2),
    ]


if __name__ == "__main__":
    main()
