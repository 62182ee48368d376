"""On a GPU everything gives what it gives on the CPU; skipped where there is none."""

from __future__ import annotations

import copy
import functools
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from command import good
from test_denoise_warp import TINY
from test_train_data import tiny_pair
from test_training import small_config
from tiny_series import made, noise, run, voxels, write_model, write_series

from cryolithe.arrays.spectra import HostTransforms
from cryolithe.denoising.samba.model import SambaNet
from cryolithe.evaluation.on_device import DeviceTransforms
from cryolithe.formats.pairs import write_pair
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.inference.pooling import pool_version
from cryolithe.network import Head, InputWindow, SliceSetConfig, build_network
from cryolithe.network.checkpoint import Model, load_model, save_network
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp, sirt
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.reconstruction.slabwise.mixing import Parts, Reader, finished_method, measure_curve
from cryolithe.reconstruction.slabwise.networks import make_network_method
from cryolithe.reconstruction.slabwise.slabs import compute_slab, run_slabs
from cryolithe.sampling import reflected_rows
from cryolithe.training.dataset import simulate_training_set
from cryolithe.training.loop import train
from cryolithe.training.sources import FixedSource
from cryolithe.work.folder import WorkFolder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
ANGLES = tuple(np.linspace(-60.0, 57.0, 21))
GRID = VolumeGrid((21, 26, 53))
GEOMETRY = TiltGeometry(ANGLES, GRID.shape[1:])
# Largest difference as a share of the largest value. Eight bits of bfloat16 cannot do better, on a CPU neither.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 3e-2}
MODELS = ("default", "fast", "draft")


def difference(found, expected):
    found, expected = (torch.as_tensor(np.asarray(values)).double() for values in (found, expected))
    return ((found - expected).abs().max() / expected.abs().max()).item()


def sliceset():
    torch.manual_seed(3)
    config = SliceSetConfig(
        InputWindow(7, context_taps=0), Head(1), rows=5, channels=8, set_hidden=12, set_features=10, row_hidden=14,
        row_features=6, combiner_width=20, set_layers=2,
    )  # fmt: skip
    return build_network(config).requires_grad_(False)


@functools.cache
def network_of(name):
    return sliceset() if name == "SliceSet" else load_model(name).network


def method_on(device, name, precision=torch.float32, points=None):
    model = Model(network_of(name), {}, name, "") if name == "SliceSet" else load_model(name)
    return make_network_method(model, GEOMETRY, GRID, Compute(device, precision, points=points))


def rows_for(method):
    whole = GRID.shape[1] + (-GRID.shape[1] % method.row_multiple) + 2 * method.halo_px
    return torch.randn((len(ANGLES), whole, GRID.shape[2]), generator=torch.Generator().manual_seed(5))


@functools.cache
def expected_of(name):
    method = method_on(CPU, name)
    return method(rows_for(method))


# Methods


@pytest.mark.parametrize("shape", [(21, 53), (32, 64)])
def test_fbp_and_sirt(shape):
    geometry = TiltGeometry(ANGLES, (9, shape[1]))
    rows = torch.randn((len(ANGLES), 9, shape[1]), generator=torch.Generator().manual_seed(1))
    for method in (fbp, functools.partial(sirt, iterations=8)):
        on_cpu, on_gpu = (method(make_projector(geometry, shape, device), rows.to(device)) for device in (CPU, GPU))
        assert difference(on_gpu.cpu(), on_cpu) < 1e-5


@pytest.mark.parametrize("precision", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", [*MODELS, "SliceSet"])
def test_networks(name, precision):
    method = method_on(GPU, name, precision)
    found = method(rows_for(method))
    assert found.device.type == "cuda"
    assert pool_version(method.engine.pool) == "triton"
    assert difference(found.cpu(), expected_of(name)) < TOLERANCES[precision]


@pytest.mark.parametrize("name", ["default", "SliceSet"])
def test_what_is_done_at_a_time_does_not_matter(name):
    for points in (8192, 96, 32):
        method = method_on(GPU, name, points=points)
        assert difference(method(rows_for(method)).cpu(), expected_of(name)) < 1e-5


def curve_on(device):
    """The curve of ``fast``, found in two parts of the volume, by slabs that are lower than they."""
    make = functools.partial(make_network_method, load_model("fast"), GEOMETRY, compute=Compute(device))
    rows = torch.randn((len(ANGLES), *GRID.shape[1:]), generator=torch.Generator().manual_seed(6))

    def read(first, stop):
        return rows[:, reflected_rows(first, stop - first, GRID.shape[1])]

    return measure_curve(make, 0.3, GEOMETRY, Parts(VolumeGrid((21, 12, 48)), (0, 14)), Reader(read, 8))


@pytest.mark.parametrize("precision", TOLERANCES, ids=str)
def test_a_share_of_filtered_back_projection(precision):
    on_cpu, on_gpu = curve_on(CPU), curve_on(GPU)
    np.testing.assert_allclose(on_gpu.amplitude, on_cpu.amplitude, rtol=1e-4)
    # The same bytes every time, though sums on a GPU have no order of their own.
    assert curve_on(GPU) == on_gpu
    fused = [
        finished_method(method_on(device, "fast", dtype), on_cpu, GEOMETRY, GRID)
        for device, dtype in ((CPU, torch.float32), (GPU, precision))
    ]
    expected, found = (method(rows_for(method)) for method in fused)
    assert found.device.type == "cuda"
    assert difference(found.cpu(), expected) < TOLERANCES[precision]
    smaller = fused[1].with_smaller_blocks()
    assert difference(smaller(rows_for(smaller)).cpu(), found.cpu()) < TOLERANCES[precision]


def test_what_leaves_the_range_of_float16_is_made_again():
    """By the kernel, too, infinite values stay visible; ten thousand times the input is out of range, for one slab."""
    compute = Compute(GPU, torch.float16, fallback=torch.float32)
    method = make_network_method(load_model("default"), GEOMETRY, GRID, compute)
    rows, notes = rows_for(method), []
    usual = compute_slab(method, rows, notes.append)
    assert usual.precision == torch.float16
    strong = compute_slab(usual.method, 1e5 * rows, notes.append)
    assert strong.precision == torch.float32
    assert len(notes) == 1
    assert difference(strong.values.cpu(), 1e5 * expected_of("default")) < 1e-5
    assert compute_slab(strong.method, rows, notes.append).precision == torch.float16


# Slabs, through the real command


@pytest.fixture
def series(tmp_path):
    write_model(tmp_path / "tiny.safetensors")
    return write_series(tmp_path, noise((74, 48)))


def flags(method, folder):
    more = {"network": ("--model", folder / "tiny.safetensors", "--precision", "fp32"), "sirt": ("--iterations", 5)}
    return ("--method", method, *more.get(method, ()), "--thickness", 17, "--overwrite")


@pytest.mark.parametrize("method", ["network", "fbp", "sirt"])
def test_slabs_on_gpus_are_the_cpu_s_volume(method, series, tmp_path, monkeypatch):
    made(*series, "-o", tmp_path / "cpu.mrc", "--device", "cpu", *flags(method, tmp_path))
    expected = voxels(tmp_path / "cpu.mrc")
    monkeypatch.setattr("cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS", 16)
    made(*series, "-o", tmp_path / "gpu.mrc", "--device", "cuda", *flags(method, tmp_path))
    assert difference(voxels(tmp_path / "gpu.mrc"), expected) < 1e-5
    # Several at once, each with threads and buffers of its own.
    monkeypatch.setattr("cryolithe.reconstruction.jobs.job.choose_devices", lambda name: (GPU, GPU))
    made(*series, "-o", tmp_path / "two.mrc", *flags(method, tmp_path))
    assert difference(voxels(tmp_path / "two.mrc"), expected) < 1e-5


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(series, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    monkeypatch.setattr("cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS", 16)
    command = (*series, "--device", "cuda", *flags("network", tmp_path))
    made(*command, "-o", tmp_path / "whole.mrc")
    done = WorkFolder.done

    def interrupt(self, slab):
        done(self, slab)
        if len(self.slabs) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "done", interrupt)
        assert run(*command, "-o", tmp_path / "again.mrc").exit_code == 130
    made(*command, "-o", tmp_path / "again.mrc")
    assert (tmp_path / "again.mrc").read_bytes() == (tmp_path / "whole.mrc").read_bytes()


# Memory


def test_when_memory_runs_out_the_run_goes_on_with_less(tmp_path):
    """The allocator is capped below what the usual blocks take."""
    grid, geometry = VolumeGrid((256, 16, 512)), TiltGeometry(ANGLES, (16, 512))
    compute = Compute(GPU, torch.float16)
    method = make_network_method(load_model("default"), geometry, grid, compute)
    rows = torch.randn((len(ANGLES), 16 + 2 * method.halo_px, 512), generator=torch.Generator().manual_seed(5))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    whole = method(rows).cpu()
    peak = torch.cuda.max_memory_allocated()
    method.engine.forget()
    torch.cuda.empty_cache()
    left = torch.cuda.memory_allocated()
    notes = []
    torch.cuda.set_per_process_memory_fraction((left + 0.5 * (peak - left)) / torch.cuda.mem_get_info()[1])
    try:
        smaller, values, _ = compute_slab(method, rows, notes.append)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert notes
    assert smaller.compute.points < method.compute.batch().points
    assert difference(values.cpu(), whole) < 2e-3


def test_slabs_through_threads_and_pinned_buffers_are_those_of_a_loop():
    method = method_on(GPU, "fast")
    rows = rows_for(method)
    whole = method(rows).cpu()
    slabs = [(0, 8), (8, 16), (16, 26)]

    def read(method, start, stop):
        return rows[:, start : stop + 2 * method.halo_px]

    found = {r.start: r for r in run_slabs([method], slabs, read, print, threading.Event())}
    for start, stop in slabs:
        assert found[start].values.device.type == "cpu"
        assert found[start].values.shape[1] == stop - start
    # Wavelets reach beyond a slab's end, over rows that its halo holds.
    assert difference(torch.cat([found[start].values for start, _ in slabs], dim=1), whole) < 1e-5


# Training and denoising


def test_a_training_step():
    config = small_config(steps=3)
    source = FixedSource(simulate_training_set(config, ()))
    on_cpu, on_gpu = (train(config, source, Place(device)) for device in (CPU, GPU))
    assert on_gpu.step == 3
    for mine, theirs in zip(on_gpu.averaged.parameters(), on_cpu.averaged.parameters(), strict=True):
        assert mine.device.type == "cuda"
        assert (mine.cpu() - theirs).norm() < 1e-3 * theirs.norm()


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_training_in_lower_precision_sees_the_same_losses(precision, tolerance):
    config = small_config(steps=12)
    source, losses = FixedSource(simulate_training_set(config, ())), {}
    for place in (Place(CPU), Place(GPU, precision)):
        seen = losses[place.device.type] = []
        train(config, source, place, Hooks(on_step=lambda state, progress, seen=seen: seen.append(progress.loss)))
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=tolerance)


def test_finetuning(tmp_path: Path):
    start = tmp_path / "start.safetensors"
    save_network(start, build_network(small_config(1).network_config()), {})
    for name in "abc":
        write_pair(tmp_path / f"{name}.h5", tiny_pair(ord(name)))
    settings = tmp_path / "few.yaml"
    settings.write_text("steps: 4\nwarmup_steps: 1\ncolumns: 8\nvalidation: {every: 2}\nfewest_tilts: 4\n")
    words = ["train", settings, "--finetune", start, tmp_path, "-o", tmp_path / "mine.safetensors", "--device", "cuda"]
    good(*words)
    load_model(str(tmp_path / "mine.safetensors"))


def test_samba():
    torch.manual_seed(4)
    network = SambaNet(TINY).eval()
    first, second = torch.randn(2, 2, 1, 32, 48)
    with torch.inference_mode():
        expected = network(first, second)
        found = copy.deepcopy(network).to(GPU)(first.to(GPU), second.to(GPU))
    assert difference(found.cpu(), expected) < 1e-3


# Evaluation


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transforms_of_an_evaluation(dtype):
    values = np.random.default_rng(7).standard_normal((33, 20, 41)).astype(dtype)
    host, device = HostTransforms(), DeviceTransforms(GPU)
    shape = (36, 25, 48)
    for name, arguments in (
        ("rfft2", (values,)),
        ("along_z", (host.rfft2(values),)),
        ("rfftn", (values, shape)),
        ("irfftn", (host.rfftn(values, shape), shape)),
    ):
        expected, found = getattr(host, name)(*arguments), getattr(device, name)(*arguments)
        assert found.dtype == expected.dtype
        assert np.abs(found - expected).max() < (1e-5 if dtype == np.float32 else 1e-12) * np.abs(expected).max()
