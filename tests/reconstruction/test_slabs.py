"""Several devices give what one gives; failures in their threads reach the user and keep what is done."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command import call
from patience import PATIENCE_S

from cryolithe.errors import DeviceError, ResourceError, SettingsError
from cryolithe.formats import read_volume, write_angles_deg, write_stack
from cryolithe.machine import device as devices
from cryolithe.network import RowSetConfig
from cryolithe.reconstruction import estimate
from cryolithe.reconstruction.slabwise import slabs as slabs_module
from cryolithe.reconstruction.slabwise.copying import CopyStream
from cryolithe.reconstruction.slabwise.methods import NetworkMethod
from cryolithe.reconstruction.slabwise.slabs import SlabResult, run_slabs

SLABS = [(0, 8), (8, 16), (16, 24), (24, 30)]


class Doubler:
    """A method that doubles its rows; `fails_at` raises in that slab, when `fails_after` is set."""

    row_multiple, halo_px, first_row, device = 2, 1, 0, torch.device("cpu")

    def __init__(self, fails_at=None, error=None, fails_after=None):
        self.fails_at, self.error, self.fails_after, self.threads = fails_at, error, fails_after, set()

    def __call__(self, rows):
        self.threads.add(threading.get_ident())
        if self.fails_at is not None and rows[0, 1, 0] == self.fails_at:
            if self.fails_after is not None:
                self.fails_after.wait(PATIENCE_S)
            raise self.error
        return 2 * rows[:, 1:-1]

    def at(self, first_row):
        return self


def read(method, start, stop):
    whole = stop - start + (start - stop) % method.row_multiple
    return torch.arange(start - 1, start + whole + 1, dtype=torch.float32)[None, :, None].expand(3, -1, 5)


def together(methods, **settings):
    """Results of `run_slabs` by the threads that several devices have, by first row."""
    stopped = settings.pop("stopped", threading.Event())
    found = slabs_module._run_side_by_side(methods, SLABS, settings.pop("read", read), print, stopped)
    return {result.start: result for result in found}


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_several_devices_make_every_slab_once(count):
    expected = {r.start: r for r in run_slabs([Doubler()], SLABS, read, print, threading.Event())}
    found = together([Doubler() for _ in range(count)])
    assert found.keys() == expected.keys() == {0, 8, 16, 24}
    for start, result in found.items():
        assert isinstance(result, SlabResult)
        assert result.values.shape == (3, result.stop - start, 5)
        np.testing.assert_array_equal(result.values, expected[start].values)


class Streams:
    """A device that does nothing before it has to, and then takes whichever stream may go on next.

    It stands for what `Cuda` takes from torch: a computation that does not wait for its rows, or a copy that does not
    wait for what is computed, reads room that nothing was written to.
    """

    def __init__(self, seed):
        self.rng, self.lock = np.random.default_rng(seed), threading.RLock()
        self.waiting, self.finished, self.here = {}, set(), threading.local()
        self.readers = []

    def stream(self):
        return Stream(self)

    def current(self):
        if not hasattr(self.here, "stream"):
            self.here.stream = Stream(self)
        return self.here.stream

    def event(self):
        return Event(self)

    @contextlib.contextmanager
    def on(self, stream):
        before = self.current()
        self.here.stream = stream
        try:
            yield
        finally:
            self.here.stream = before

    def pinned(self, values):
        return torch.full(values.shape, torch.nan)

    room = pinned

    def copy(self, target, source):
        self.ask(lambda: target.copy_(source))

    def used_by(self, values, stream):
        self.readers.append((values, stream))

    def is_here(self, values):
        return True

    def ask(self, work, event=None):
        with self.lock:
            self.waiting.setdefault(self.current(), []).append((work, event))

    def until(self, event):
        with self.lock:
            while event not in self.finished:
                able = [s for s, (first, *_) in self.waiting.items() if first[1] is None or first[1] in self.finished]
                stream = able[self.rng.integers(len(able))]
                self.waiting[stream].pop(0)[0]()
                self.waiting = {s: asked for s, asked in self.waiting.items() if asked}


class Stream:
    def __init__(self, device):
        self.device = device

    def wait_event(self, event):
        with self.device.on(self):
            self.device.ask(lambda: None, event)


class Event:
    def __init__(self, device):
        self.device = device

    def record(self, stream):
        with self.device.on(stream):
            self.device.ask(lambda: self.device.finished.add(self))

    def synchronize(self):
        self.device.until(self)


class DoublerOnStreams(Doubler):
    """Asks a device to double rows."""

    def __init__(self, streams):
        super().__init__()
        self.streams = streams

    def __call__(self, rows):
        made = torch.full((rows.shape[0], rows.shape[1] - 2, rows.shape[2]), torch.nan)
        self.streams.ask(lambda: made.copy_(2 * rows[:, 1:-1]))
        return made


@pytest.mark.parametrize("seed", range(8))
def test_copies_beside_the_computation_wait_for_it_and_it_for_them(seed):
    streams, links = Streams(seed), []

    def link_to(device):
        links.append(CopyStream(streams))
        return links[-1]

    expected = {r.start: r for r in run_slabs([Doubler()], SLABS, read, print, threading.Event())}
    methods = [DoublerOnStreams(streams) for _ in range(1 + seed % 2)]
    for result in slabs_module._run_side_by_side(methods, SLABS, read, print, threading.Event(), link_to):
        np.testing.assert_array_equal(result.values, expected.pop(result.start).values)
    assert not expected
    assert len(links) == len(methods)
    # The allocator is told of both readers of another stream: the computation's of rows, the copy's of voxels.
    assert len(streams.readers) == 2 * len(SLABS)


def test_rows_that_a_device_has_no_room_for_stay_on_the_host():
    streams = Streams(0)
    real = streams.room

    def full(values):
        raise torch.OutOfMemoryError("CUDA out of memory")

    link, rows = CopyStream(streams), torch.arange(6.0).view(1, 2, 3)
    streams.room = full
    sent = link.send(rows)
    assert torch.equal(link.arrived(sent), rows)
    assert sent.done is None
    streams.room = real
    assert link.send(rows).done is not None


def test_what_was_done_before_a_gpu_failed_is_yielded_and_the_threads_end():
    error = RuntimeError("CUDA error: unspecified launch failure\nmore lines")
    before = threading.active_count()
    stopped, those_before_yielded, good = threading.Event(), threading.Event(), []
    methods = [Doubler(16, error, those_before_yielded), Doubler(16, error, those_before_yielded)]

    def consume():
        for result in slabs_module._run_side_by_side(methods, SLABS, read, print, stopped):
            good.append(result.start)
            if {0, 8} <= set(good):
                those_before_yielded.set()

    with pytest.raises(ResourceError, match=r"the GPU failed \(CUDA error: unspecified launch failure\)"):
        consume()
    assert sorted(good) in ([0, 8], [0, 8, 24])  # the last one only where the other device had it
    assert stopped.is_set()
    assert threading.active_count() == before


def test_a_consumer_that_stops_ends_the_threads():
    before = threading.active_count()
    running = slabs_module._run_side_by_side([Doubler(), Doubler()], SLABS, read, print, threading.Event())
    next(running)
    running.close()
    assert threading.active_count() == before


def test_an_error_while_reading_is_raised():
    def fail(method, start, stop):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        together([Doubler()], read=fail)


# Through the real command


@pytest.fixture
def place(tmp_path):
    rng = np.random.default_rng(0)
    angles = np.arange(-50.0, 51, 10)
    write_stack(tmp_path / "t.mrc", rng.standard_normal((len(angles), 150, 40), dtype=np.float32), 10.0, "test")
    write_angles_deg(tmp_path / "t.tlt", tuple(angles))
    return tmp_path


def run(place, *flags, name="v.mrc"):
    return call("reconstruct", place / "t.mrc", place / "t.tlt", "-o", place / name, "--thickness", 8, *flags)


def two_devices(name):
    return (torch.device("cpu"), torch.device("cpu"))


@pytest.mark.slow
def test_the_command_on_two_devices_gives_what_it_gives_on_one(place, monkeypatch):
    assert run(place, name="one.mrc").exit_code == 0
    monkeypatch.setattr("cryolithe.reconstruction.jobs.job.choose_devices", two_devices)
    result = run(place, name="two.mrc")
    assert result.exit_code == 0, result.output
    assert "on cpu, cpu" in result.stderr
    one, two = (read_volume(place / name).voxels for name in ("one.mrc", "two.mrc"))
    np.testing.assert_array_equal(one, two)
    assert json.loads((place / "two.json").read_text())["compute"]["devices"] == ["cpu", "cpu"]


@pytest.mark.slow
def test_a_gpu_that_fails_in_mid_run_keeps_its_slabs_and_the_next_run_goes_on(place, monkeypatch):
    assert run(place, name="whole.mrc").exit_code == 0
    whole = NetworkMethod.__call__
    calls = []

    def fail_at_the_second(self, rows):
        if self.fusion is None:  # parts that are compared with the back-projection beforehand
            return whole(self, rows)
        calls.append(len(rows))
        if len(calls) == 2:
            raise RuntimeError("CUDA error: device lost")
        return whole(self, rows)

    monkeypatch.setattr(NetworkMethod, "__call__", fail_at_the_second)
    failed = run(place)
    assert failed.exit_code == 2
    assert "the GPU failed (CUDA error: device lost)" in failed.stderr
    assert "1 finished slab is kept" in failed.stderr
    assert not (place / "v.mrc").exists()
    again = run(place)
    assert again.exit_code == 0, again.output
    assert "1 slabs are done" in again.stderr
    np.testing.assert_array_equal(read_volume(place / "v.mrc").voxels, read_volume(place / "whole.mrc").voxels)


def planned_seconds(text):
    minutes, seconds = re.search(r"about (?:\d+:)?(\d+):(\d\d) with everything", text).groups()
    return 60 * int(minutes) + int(seconds)


def test_the_time_of_a_dry_run_holds_the_start_the_images_the_check_and_the_writing(place, monkeypatch):
    for name in ("_PIXEL_SECONDS", "_CONTRAST_SECONDS", "_CHECKED_SECONDS"):
        monkeypatch.setattr(estimate, name, 0.0)
    monkeypatch.setattr(estimate, "_seconds", lambda run, planned: 10.0)
    monkeypatch.setattr("cryolithe.cli.one_series.age_seconds", lambda: 30.0)
    assert planned_seconds(run(place, "--dry-run").stdout) == 40
    monkeypatch.setattr("cryolithe.cli.one_series.age_seconds", lambda: 0.0)
    alone = planned_seconds(run(place, "--dry-run").stdout)
    assert alone == 10
    pixels, checked = 11 * 150 * 40, 3 * 12 * 8 * 40
    for name, seconds in (("_PIXEL_SECONDS", 60 / pixels), ("_CHECKED_SECONDS", 60 / checked)):
        with monkeypatch.context() as patch:
            patch.setattr(estimate, name, seconds)
            assert planned_seconds(run(place, "--dry-run").stdout) == alone + 60
    with monkeypatch.context() as patch:
        patch.setattr(estimate, "_BYTES_PER_SECOND", (4 * 8 * 150 * 40 + 4 * pixels) / 60)
        assert planned_seconds(run(place, "--dry-run").stdout) == alone + 60


def test_dry_run_tells_the_plan_and_writes_nothing(place):
    before = sorted(place.iterdir())
    result = run(place, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "Plan: 11 x 150 x 40 (tilts, y, x) -> 8 x 150 x 40 (z, y, x); model default" in result.stdout
    assert "2 slabs of 128 rows" in result.stdout
    for method in ("fbp", "sirt"):
        assert f"; {method} on cpu" in run(place, "--dry-run", "--method", method).stdout
    assert sorted(place.iterdir()) == before


def test_the_estimate_counts_the_layers_of_the_network():
    """Against the weights of the lifted network itself."""
    from cryolithe.inference import lift_network
    from cryolithe.network import Head, SliceSetConfig, build_network
    from cryolithe.reconstruction.estimate import products_per_voxel

    for config in (RowSetConfig(), RowSetConfig(head=Head(2)), SliceSetConfig(channels=16, set_hidden=32)):
        lifted = lift_network(build_network(config), torch.zeros(3))
        stride = config.head.stride
        row = sum(step.weight.numel() for encoder in lifted.encoders for step in encoder.steps)
        join = sum(step.weight.numel() for step in lifted.combine)
        expected = ((stride if lifted.shared else 1) * row + join) / stride**3
        assert products_per_voxel(config) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "encode", "join", "voxels"),
    [
        # new rows (as 128 -> 256 -> 64); 22 or 24 rows of 64 features through hidden layers to 8 or 64 coefficients
        (  # and a map past the hidden layer; then eight convolutions, a wider layer and back, the coefficients
            "default",
            2 * (128 * 256 + 256 * 48 + 128 * 48),
            22 * 48 * 128 + 8 * 27 * 128 * 128 + 2 * 128 * 256 + 128 * 8,
            2 * 2 * 2,
        ),
        (
            "fast",
            2 * (64 * 96 + 96 * 24 + 64 * 24),
            22 * 24 * 48 + 4 * 27 * 48 * 48 + 2 * 48 * 96 + 48 * 8,
            2 * 2 * 2,
        ),
        ("draft", 4 * (128 * 256 + 256 * 64), 24 * 64 * 512 + 3 * (512 * 512) + 512 * 64, 4 * 4 * 4),
    ],
)
def test_products_of_the_bundled_models_counted_by_hand(name, encode, join, voxels):
    from cryolithe.network.checkpoint import load_model
    from cryolithe.reconstruction.estimate import products_per_voxel

    assert products_per_voxel(load_model(name).network.config) == (encode + join) / voxels


def test_names_of_devices(monkeypatch):
    assert devices.choose_devices("cpu") == (torch.device("cpu"),)
    for name in ("all", "cuda:0,1"):
        with pytest.raises(DeviceError, match="--device"):
            devices.choose_devices(name)
    with pytest.raises(SettingsError, match="names a GPU twice"):
        devices.choose_devices("cuda:0,1,0")
    with pytest.raises(SettingsError, match=r"unknown device 'cuda:0,'; .* cuda:0,1 or all"):
        devices.choose_devices("cuda:0,")
    # Commands that use one device do not offer what they refuse.
    for name in ("all", "cuda:0,1"):
        with pytest.raises(SettingsError, match=r"use auto, cpu, cuda or cuda:0$"):
            devices.choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices.choose_devices("all") == tuple(torch.device("cuda", n) for n in range(3))
    assert devices.choose_devices("cuda:2,0") == (torch.device("cuda", 2), torch.device("cuda", 0))
    with pytest.raises(DeviceError, match="has 3 CUDA device"):
        devices.choose_devices("cuda:0,3")


@pytest.mark.parametrize(
    ("name", "told"), [("mps", "Apple's GPUs are not supported"), ("rocm", "use --device cuda"), ("xpu", "Intel's")]
)
def test_gpus_of_other_makers_are_refused_by_name(name, told, place):
    result = run(place, "--device", name)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert f"--device {name}: " in result.stderr
    assert told in result.stderr


def test_without_a_gpu_a_torch_for_rocm_says_so(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "built for ROCm 6.4 and finds no AMD GPU" in devices.why_no_cuda()


@pytest.mark.parametrize(("device", "says", "tried"), [
    ("cuda:0", "CUDA out of memory", ["there", "on the CPU"]),
    ("cuda:0", "sizes do not match", ["there"]),
    ("cpu", "can't allocate memory", ["there"]),
    ("cpu", "", ["there"]),
])  # fmt: skip
def test_what_a_device_has_no_memory_for_is_made_on_the_cpu(device, says, tried):
    """No other error is hidden, and the CPU is not asked twice."""
    found = []

    def there():
        found.append("there")
        if says:
            raise RuntimeError(says) if "memory" not in says or device == "cpu" else torch.OutOfMemoryError(says)
        return found

    def on_cpu():
        return [*found, "on the CPU"]

    if says and len(tried) == 1:
        with pytest.raises(RuntimeError, match=says):
            devices.made_there_or_on_cpu(torch.device(device), there, on_cpu)
        assert found == tried
    else:
        assert devices.made_there_or_on_cpu(torch.device(device), there, on_cpu) == tried


def test_a_self_check_that_a_gpu_has_no_memory_for_is_made_on_the_cpu(monkeypatch):
    from cryolithe.reconstruction import run as module

    asked, volume = [], np.zeros((2, 2, 2))

    def check(volume, stack, device, method):
        asked.append(device.type)
        if device.type == "cuda":
            raise error
        return "checked"

    monkeypatch.setattr(module, "self_check", check)
    monkeypatch.setattr(module, "read_mrc", lambda path: SimpleNamespace(data=volume))
    folder = SimpleNamespace(volume="v.mrc")
    job = SimpleNamespace(settings=SimpleNamespace(method="fbp"))
    on_gpu = SimpleNamespace(device=torch.device("cuda", 0), job=job)
    error = torch.OutOfMemoryError("CUDA out of memory")
    assert module._self_checked(folder, None, on_gpu) == "checked"
    assert asked == ["cuda", "cpu"]
    error = RuntimeError("another")
    with pytest.raises(RuntimeError, match="another"):
        module._self_checked(folder, None, on_gpu)
