"""Computing something small and comparing it with stored values and with the plain definition.

The input is the same on every machine: projections of Gaussian blobs, known in closed form, plus noise made of the
raw bits of a generator whose stream numpy guarantees. ``reference.json`` holds the hashes of the bundled models and
the expected numbers; after a change of either write it anew:

    python -m cryolithe.diagnosis
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryolithe.diagnosis.finding import OK, PROBLEM, Finding
from cryolithe.files.hashing import file_sha256
from cryolithe.formats import read_volume, write_volume
from cryolithe.geometry import TiltGeometry, VolumeGrid, centre_px
from cryolithe.machine.device import network_precision, precision_name
from cryolithe.machine.extras import reinstall_command
from cryolithe.network import Network, plane_values
from cryolithe.network.checkpoint import bundled_models, load_model
from cryolithe.projector import make_projector
from cryolithe.reconstruction.slabwise.methods import Compute, FbpMethod, NetworkMethod, network_rows
from cryolithe.sampling import all_windows, point_columns, visible
from cryolithe.volume import Volume

REFERENCE = Path(__file__).with_name("reference.json")
MODEL = "default"
REGENERATE = "in a checkout with another model: python -m cryolithe.diagnosis"
REINSTALL = f"install again: {reinstall_command()}"

GEOMETRY = TiltGeometry(tuple(range(-60, 61, 10)), (96, 48))
GRID = VolumeGrid((16, 8, 40))
SPEED_GEOMETRY = TiltGeometry(tuple(range(-60, 61, 3)), (96, 96))
SPEED_GRIDS = {"cpu": VolumeGrid((32, 32, 96)), "cuda": VolumeGrid((96, 192, 96))}
STORED_VOXELS = (slice(3, None, 5), 4, slice(4, None, 8))
# x, y, z from the middle, radius (standard deviation), in pixels
BLOBS = ((0, 0, 0, 3), (-11, 2, 3, 2), (9, -4, -4, 2.5), (14, 5, 2, 1.5), (-4, -8, -3, 2))

# Largest difference, as a share of the largest value. Measured on an x86 CPU: float64 6e-16, fp32 3e-7, bf16 4e-3.
# Another order of sums must pass; a wrong sign, filter or weight must not.
TOLERANCES = {"fbp": 1e-4, "stored": 1e-4, "float64": 1e-10, "fp32": 1e-4, "bf16": 3e-2, "fp16": 1e-2}


def tilt_images(geometry: TiltGeometry) -> torch.Tensor:
    """Standardised images of the blobs with noise, dense = positive: ``(tilts, y, x)``, float64."""
    v, u = (np.arange(n) - centre_px(n) for n in geometry.image_shape)
    images = np.zeros((geometry.tilts, *geometry.image_shape))
    for x, y, z, radius in BLOBS:
        column = geometry.columns(x, z)[:, None] - geometry.centre[1]
        across = np.exp(-((u - column) ** 2) / (2 * radius**2))
        images += radius * across[:, None, :] * np.exp(-((v - y) ** 2) / (2 * radius**2))[:, None]
    bits = np.random.PCG64(2025).random_raw(images.size)
    images += images.std() * np.sqrt(12) * ((bits >> np.uint64(11)) * 2.0**-53 - 0.5).reshape(images.shape)
    images -= images.mean(axis=(1, 2), keepdims=True)
    return torch.from_numpy(images / images.std())


def centred_rows(images: torch.Tensor, rows: int) -> torch.Tensor:
    """The middle rows of images."""
    first = (images.shape[1] - rows) // 2
    return images[:, first : first + rows]


def reconstruct_fbp(device: torch.device) -> torch.Tensor:
    """FBP of the series, ``(z, y, x)``, float32, on the CPU."""
    projector = make_projector(GEOMETRY, (GRID.shape[0], GRID.shape[2]), device)
    rows = centred_rows(tilt_images(GEOMETRY), GRID.shape[1]).float().to(device)
    return FbpMethod(projector, "cosine")(rows).cpu()


@functools.cache
def _network(double: bool) -> Network:
    network = load_model(MODEL).network
    return network.double() if double else network


def reconstruct_network(compute: Compute) -> torch.Tensor:
    """The network's volume by the fast engine, ``(z, y, x)``, on the CPU."""
    double = compute.precision == torch.float64
    method = NetworkMethod(_network(double), GEOMETRY, GRID, compute)
    rows = centred_rows(tilt_images(GEOMETRY), GRID.shape[1] + 2 * method.halo_px)
    return method(rows if double else rows.float()).cpu()


@torch.inference_mode()
def define_network() -> torch.Tensor:
    """The same volume by the network's plain definition, in float64: each point's windows, one by one."""
    network = _network(True)
    method = NetworkMethod(network, GEOMETRY, GRID, Compute(precision=torch.float64))
    points, head, config = method.points, network.config.head, network.config.input
    depth, width = len(points.z_px), len(points.x_px)
    columns = point_columns(GEOMETRY, np.repeat(points.z_px, width), np.tile(points.x_px, depth))
    rows = network_rows(centred_rows(tilt_images(GEOMETRY), GRID.shape[1] + 2 * method.halo_px), config)
    windows = all_windows(rows, columns.double(), config.windows)
    maps = network.tilt_context(torch.from_numpy(GEOMETRY.angles_rad))
    values = plane_values(network, windows, visible(columns, GEOMETRY.image_shape[1]), maps, (depth, width))
    by_block = values.view(depth, width, -1, head.outputs).transpose(1, 2)
    return head.volume(by_block, GRID.shape)


def stored_numbers(volume: torch.Tensor) -> list[float]:
    """Root mean square and some voxels of a volume."""
    numbers = [volume.double().square().mean().sqrt(), *volume[STORED_VOXELS].flatten()]
    return [float(f"{number:.9g}") for number in numbers]


def references() -> dict[str, Any]:
    """What ``reference.json`` holds."""
    return {
        "models": {name: file_sha256(path) for name, path in bundled_models().items()},
        "fbp": stored_numbers(reconstruct_fbp(torch.device("cpu"))),
        "network": stored_numbers(define_network()),
    }


def store_references() -> None:
    """Write ``reference.json`` anew."""
    REFERENCE.write_text(json.dumps(references(), indent=2) + "\n", encoding="utf-8")


def _stored() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return content


def models() -> Finding:
    """Whether the bundled models are there, with the right bytes."""
    try:
        expected, found = _stored()["models"], {name: file_sha256(path) for name, path in bundled_models().items()}
    except (OSError, ValueError, KeyError) as error:
        return Finding("models", PROBLEM, f"they or their hashes cannot be read: {error}", REINSTALL)
    wrong = [
        f"{name} {'is missing' if name not in found else 'has other bytes than expected'}"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]
    text = "; ".join(wrong) or ", ".join(f"{name} {sha[:12]}" for name, sha in found.items())
    return Finding("models", PROBLEM if wrong else OK, text, f"{REINSTALL}; {REGENERATE}" if wrong else "", found)


def run(device: torch.device) -> Iterator[Finding]:
    """Run the tests; what should be exact is computed on the CPU, the rest on ``device``."""
    expected = functools.cache(define_network)
    exact = Compute(precision=torch.float64)
    yield _compared("fbp", lambda: stored_numbers(reconstruct_fbp(device)), lambda: _stored()["fbp"])
    yield _compared("stored", lambda: stored_numbers(expected()), lambda: _stored()["network"])
    yield _compared("float64", lambda: reconstruct_network(exact), expected)
    auto = network_precision("auto", device)
    for precision in (torch.float32, torch.bfloat16 if auto == torch.float32 else auto):
        compute = Compute(device, precision)
        yield _compared(precision_name(precision), functools.partial(reconstruct_network, compute), expected)
    yield _round_trip()
    yield _speed(Compute(device, auto))


SUBJECTS = {
    "fbp": ("FBP and its stored values", f"{REINSTALL}; then torch"),
    "stored": ("the network's definition and its stored values", f"{REINSTALL}; {REGENERATE}"),
    "float64": ("the fast engine and the definition, in float64", "install numba and torch again"),
}


def _compared(name: str, found: Callable[[], Any], expected: Callable[[], Any]) -> Finding:
    """One test: the largest difference of two computations, as a share of the largest value."""
    subject, advice = SUBJECTS.get(name, (f"the fast engine in {name} and the definition", "use --precision fp32"))
    if name == "fp32":
        advice = "install numba and torch again; on a GPU, use --device cpu until then"
    tolerance, start = TOLERANCES[name], time.perf_counter()
    try:
        wanted = torch.as_tensor(expected(), dtype=torch.float64)
        difference = ((torch.as_tensor(found()).double() - wanted).abs().max() / wanted.abs().max()).item()
    except Exception as error:  # a doctor goes on whatever it meets
        return Finding(f"self-test {name}", PROBLEM, f"{subject}: {type(error).__name__}: {error}", advice)
    seconds = time.perf_counter() - start
    passed = difference <= tolerance  # not for NaN
    text = f"{subject} {'agree' if passed else 'DISAGREE'} to {difference:.1e} (tolerance {tolerance:.0e})"
    values = {"passed": passed, "difference": difference, "tolerance": tolerance, "seconds": seconds}
    return Finding(f"self-test {name}", OK if passed else PROBLEM, text, "" if passed else advice, values)


def _round_trip() -> Finding:
    """Write a volume, read it, compare: in the system's folder for temporary files."""
    name, voxels = "self-test mrc", tilt_images(GEOMETRY).float().numpy()
    try:
        with tempfile.TemporaryDirectory(prefix="cryolithe-") as folder:
            path = Path(folder) / "volume.mrc"
            write_volume(path, Volume(voxels, 7.5), label="self-test")
            read = read_volume(path)
            passed = np.array_equal(read.voxels, voxels) and abs((read.voxel_size_angstrom or 0) - 7.5) < 1e-4
            del read  # the file is mapped: it must go before its folder does
    except Exception as error:
        text = f"a volume could not be written and read: {type(error).__name__}: {error}"
        return Finding(name, PROBLEM, text, "set TMPDIR to a folder that you may write")
    text = "a volume written and read is " + ("the same" if passed else "ANOTHER one")
    advice = "" if passed else "install mrcfile and numpy again; look for disk errors"
    return Finding(name, OK if passed else PROBLEM, text, advice, {"passed": passed})


def _speed(compute: Compute) -> Finding:
    """Voxels per second of the bundled model at 41 tilts; the faster of two runs, as the first one warms up."""
    try:
        grid = SPEED_GRIDS[compute.device.type]
        method = NetworkMethod(_network(False), SPEED_GEOMETRY, grid, compute)
        # Not zeros, which a GPU multiplies at a higher clock.
        shape = (SPEED_GEOMETRY.tilts, grid.shape[1] + 2 * method.halo_px, grid.shape[2])
        rows = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            method(rows).cpu()
            seconds.append(time.perf_counter() - start)
    except Exception as error:
        return Finding("speed", PROBLEM, f"not measured: {type(error).__name__}: {error}", "use --device cpu")
    speed = float(np.prod(grid.shape)) / min(seconds)
    precision = precision_name(compute.precision)
    text = f"{speed:,.0f} voxels/s by model {MODEL} in {precision} on {compute.device}, 41 tilts"
    return Finding("speed", OK, text, values={"voxels_per_second": speed, "precision": precision, "tilts": 41})
