"""What is held at a time, planned for devices that this machine need not have."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
import torch
from tiny_series import ANGLES, made, run, write_series

from cryolithe.errors import ResourceError
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.network.checkpoint import load_model
from cryolithe.reconstruction.jobs.job import Job, resolve
from cryolithe.reconstruction.setup.fitting import fit, part_rows
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.reconstruction.slabwise.mixing import choose_parts, comparing_bytes
from cryolithe.reconstruction.slabwise.network_memory import network_bytes
from cryolithe.reconstruction.slabwise.plan import BASE_BYTES, Demand, run_bytes, slab_rows
from cryolithe.reconstruction.slabwise.planes import plane_filter_bytes
from cryolithe.settings import ReconstructSettings

SIZES = {"800 x 800 x 400": (400, 800, 800), "2048 x 2048 x 1024": (1024, 2048, 2048)}  # (z, y, x)
CARDS_GB = (8, 11, 24, 48, 80)
SHARE_FREE = 0.92  # the rest is the driver's, and a display's
HOST_FREE = 24e9


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    """Series of 41 images; the files hold nothing but headers."""
    folder = tmp_path_factory.mktemp("stacks")
    for name, (_, height, width) in SIZES.items():
        with mrcfile.new_mmap(folder / f"{name}.mrc", (41, height, width), mrc_mode=0) as file:
            file.voxel_size = 7.8
        (folder / f"{name}.tlt").write_text("".join(f"{angle}\n" for angle in range(-60, 61, 3)))
    return folder


@pytest.fixture
def machine(monkeypatch):
    """Pretend GPUs with so many GB, and threads of the host."""

    def pretend(*cards_gb, threads=8, host=HOST_FREE):
        gpus = tuple(torch.device("cuda", number) for number in range(len(cards_gb)))
        monkeypatch.setattr("cryolithe.reconstruction.jobs.job.choose_devices", lambda name: gpus)
        monkeypatch.setattr(
            "cryolithe.reconstruction.slabwise.precisions.network_precision", lambda name, device: torch.float16
        )
        for rate in ("_products_per_second", "_convolution_products_per_second"):
            monkeypatch.setattr(f"cryolithe.reconstruction.estimate.{rate}", lambda *of: 1e14)
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda gpu: (int(SHARE_FREE * cards_gb[gpu.index] * 1e9), cards_gb[gpu.index])
        )
        monkeypatch.setattr(
            "cryolithe.reconstruction.slabwise.plan.psutil.virtual_memory", lambda: SimpleNamespace(available=host)
        )
        monkeypatch.setattr(
            "cryolithe.reconstruction.slabwise.plan.group_limits", lambda: SimpleNamespace(free_bytes=None)
        )
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    return pretend


def planned(stacks, size, *flags):
    """The table of a dry run: for each device its free GB, GB that may be used, slab rows, points, predicted GB."""
    words = [stacks / f"{size}.mrc", stacks / f"{size}.tlt", "-o", stacks / "v.mrc", "--thickness", SIZES[size][0]]
    result = made(*words, "--dry-run", *flags)
    _, heading, *lines = result.stdout.splitlines()
    assert heading.split()[:3] == ["device", "free", "GB"]
    found = {}
    for line in lines:
        name, *cells = re.split(r"  +", line)
        found[name] = [float(cell) if cell != "-" else None for cell in cells]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("card_gb", CARDS_GB)
@pytest.mark.parametrize("size", SIZES)
def test_every_card_takes_every_usual_volume(size, card_gb, stacks, machine):
    for model in ("default", "fast", "draft"):
        plans = []
        for threads in (2, 8, 64):
            machine(card_gb, threads=threads)
            found = planned(stacks, size, "--model", model)
            free, allowed, rows, points, peak = found["cuda:0"]
            assert free == pytest.approx(SHARE_FREE * card_gb, abs=0.06)
            assert peak <= allowed < free
            assert rows >= 32
            assert points >= 1024
            assert found["beside it, the host"][4] <= found["beside it, the host"][1]
            plans.append(found["cuda:0"])
        # The threads of the host are not the card's.
        assert plans[0] == plans[1] == plans[2]
    for method in ("fbp", "sirt"):
        assert planned(stacks, size, "--method", method)["cuda:0"][2] >= 32


def test_a_larger_card_gets_larger_blocks_and_slabs(stacks, machine):
    found = []
    for card_gb in CARDS_GB:
        machine(card_gb)
        found.append(planned(stacks, "2048 x 2048 x 1024")["cuda:0"])
    points = [plan[3] for plan in found]
    assert points == sorted(points)
    assert points[0] < points[-1]


def test_the_smallest_of_several_cards_decides(stacks, machine):
    machine(8)
    alone = planned(stacks, "2048 x 2048 x 1024")["cuda:0"]
    machine(80, 8, 24)
    together = planned(stacks, "2048 x 2048 x 1024")
    assert list(together) == ["cuda:0", "cuda:1", "cuda:2", "beside it, the host"]
    assert together["cuda:0"][2:] == alone[2:]


def test_a_host_with_little_memory_limits_the_slabs(stacks, machine):
    machine(80)
    plenty = planned(stacks, "2048 x 2048 x 1024")
    machine(80, host=5e9)
    little = planned(stacks, "2048 x 2048 x 1024")
    assert little["cuda:0"][2] < plenty["cuda:0"][2]
    assert little["beside it, the host"][4] <= little["beside it, the host"][1]


def test_the_limit_that_the_user_sets_is_the_card_s(stacks, machine):
    machine(80)
    found = planned(stacks, "800 x 800 x 400", "--max-memory", "3")["cuda:0"]
    assert found[1] == 3.0
    assert found[4] <= 3.0
    # More than is free cannot be had.
    machine(8)
    assert planned(stacks, "800 x 800 x 400", "--max-memory", "20")["cuda:0"][1] == pytest.approx(8 * SHARE_FREE, 0.01)


def test_too_small_a_card_is_refused_in_one_line(stacks, machine):
    machine(0.4)
    size = "2048 x 2048 x 1024"
    words = [stacks / f"{size}.mrc", stacks / f"{size}.tlt", "-o", stacks / "v.mrc", "--thickness", 1024]
    result = run(*words, "--dry-run")
    assert result.exit_code == 2
    assert re.search(r"do not suffice .* at least \d+\.\d\d GB are needed", result.stderr)


def test_a_dry_run_on_the_cpu_has_one_line_for_it(stacks):
    found = planned(stacks, "800 x 800 x 400", "--device", "cpu", "--max-memory", "4")
    assert list(found) == ["cpu"]
    assert found["cpu"][1] == 4.0
    assert found["cpu"][4] <= 4.0


@pytest.mark.parametrize(("size", "binning"), [(67, 1), (202, 3), (64, 1)])
def test_a_slab_is_told_of_no_more_rows_than_the_volume_has(size, binning, tmp_path):
    """Blocks of a network are of two rows, of which the last one may end beyond an odd volume."""
    images = np.zeros((len(ANGLES), size, size), np.float32)
    images[:, 2::4, 3::5] = 1.0
    files = write_series(tmp_path, images)
    output = made(*files, "--thickness", 12, "--bin", binning, "--dry-run", "--device", "cpu").output
    height = size // binning
    assert f" -> 12 x {height} x {height} (z, y, x)" in output
    assert f"in 1 slab of {height} rows along y" in output
    assert re.search(rf"^cpu .* {height} +\d+ +[\d.]+$", output, re.MULTILINE)


def test_a_block_that_is_half_as_large_needs_less_of_everything():
    """What is kept and lifted shrinks with it; else running out of memory would not be mended by smaller blocks."""
    config = load_model("default").network.config
    geometry, grid = TiltGeometry(tuple(np.arange(-60.0, 61, 3)), (2048, 2048)), VolumeGrid((1024, 2048, 2048))
    gpu = torch.device("cuda", 0)
    needed = [
        network_bytes(config, geometry, grid, Compute(gpu, torch.bfloat16, points=32768 >> halvings))
        for halvings in range(4)
    ]
    for more, less in itertools.pairwise(needed):
        assert less < 0.7 * more


@pytest.mark.parametrize("shape", [*SIZES.values(), (4096, 8, 4096), (1, 1, 1), (32, 64, 64)])
def test_mirrored_planes_of_a_gpu_are_few_where_they_are_large(shape):
    """At most a GB in all, whatever the volume, unless a single plane takes more."""
    grid, gpu = VolumeGrid(shape), torch.device("cuda", 0)
    one = plane_filter_bytes(VolumeGrid((shape[0], 1, shape[2])), gpu)
    assert one <= plane_filter_bytes(grid, gpu) <= max(one, 1e9)
    assert plane_filter_bytes(grid, torch.device("cpu")) == one


@pytest.mark.parametrize("size", SIZES)
def test_a_share_of_back_projection_is_planned_for(size, stacks, machine):
    """On the smallest card and the largest; it needs memory of its own."""
    for card_gb in (CARDS_GB[0], CARDS_GB[-1]):
        machine(card_gb)
        whole = ("--wedge-trust", "full")
        alone, mixed = (planned(stacks, size, "--fbp-share", share, *whole)["cuda:0"] for share in ("0", "0.3"))
        assert mixed[4] <= mixed[1]
        if alone[2:4] == mixed[2:4]:
            assert mixed[4] > alone[4]


def test_what_is_held_without_a_slab_counts():
    geometry, grid = TiltGeometry((-10.0, 0.0, 10.0), (8, 16)), VolumeGrid((8, 8, 16))
    demand = Demand(0, 1.0, 1.0, apart_bytes=10**9)
    needed = BASE_BYTES + 10**9
    assert run_bytes(demand, geometry, grid, 8) == needed
    assert slab_rows(demand, geometry, grid, needed) == 8
    with pytest.raises(ResourceError, match=f"at least {needed / 1e9:.2f} GB"):
        slab_rows(demand, geometry, grid, needed - 1)


def test_a_network_that_is_compared_with_back_projection_needs_memory_for_it(stacks, monkeypatch):
    size, told = "800 x 800 x 400", ("--device", "cpu", "--model", "fast", "--max-memory", 4)
    alone = ("--fbp-share", 0, "--wedge-trust", "full")
    (before,) = planned(stacks, size, *told, *alone).values()
    monkeypatch.setattr("cryolithe.reconstruction.setup.fitting.comparing_bytes", lambda *_: 10**10)
    (after,) = planned(stacks, size, *told, *alone).values()
    assert before[1:] == after[1:]
    words = [stacks / f"{size}.mrc", stacks / f"{size}.tlt", "-o", stacks / "v.mrc", "--thickness", SIZES[size][0]]
    for flags in (("--fbp-share", 0), ("--wedge-trust", "full")):
        result = run(*words, "--dry-run", *told, *flags)
        assert result.exit_code != 0
        assert "4.00 GB of memory do not suffice" in result.output
    for volume, bytes_at_most in ((VolumeGrid((1024, 2048, 2048)), 5e8), (VolumeGrid((64, 128, 128)), 6e7)):
        assert 0 < comparing_bytes(volume, 2) < bytes_at_most


def test_parts_of_a_wide_volume_are_tried_in_as_many_rows_as_memory_has(stacks):
    size, parts = "2048 x 2048 x 1024", choose_parts(VolumeGrid(SIZES["2048 x 2048 x 1024"]), 2)
    settings = ReconstructSettings(model="fast", thickness=1024, max_memory=1.7, device="cpu")
    job = resolve(Job(stacks / f"{size}.mrc", stacks / f"{size}.tlt", stacks / "v.mrc", settings))
    planned = fit(job)
    assert planned.slab_rows < parts.grid.shape[1]
    rows = part_rows(job, planned.batch, planned.slab_rows, parts.grid)
    assert planned.slab_rows < rows <= parts.grid.shape[1]
    # Of the whole volume no more rows than were planned fit.
    assert part_rows(job, planned.batch, planned.slab_rows, job.grid) == planned.slab_rows
