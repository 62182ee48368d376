"""``cryolithe doctor``: what it says of this machine, and of broken ones."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command import call, good

from cryolithe.diagnosis import OK, PROBLEM, WARNING, machine, selftest, storage
from cryolithe.machine import device as device_module
from cryolithe.machine.limits import Limits, group_limits


def doctor(*arguments):
    return call("doctor", *arguments)


def lines_of(result, name):
    """The entry of one finding: its lines joined."""
    lines = result.stdout.splitlines()
    first = next(n for n, line in enumerate(lines) if line[9:].startswith(f"{name} "))
    rest = [line.strip() for line in lines[first + 1 :]]
    end = next((n for n, line in enumerate(lines[first + 1 :]) if not line.startswith(" " * 28)), len(rest))
    return " ".join([lines[first], *rest[:end]])


@pytest.fixture
def little_to_write(monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 3 << 20)


@pytest.fixture
def no_self_test(monkeypatch):
    monkeypatch.setattr(selftest, "run", lambda device: iter(()))


def tampered(monkeypatch, folder, change):
    content = json.loads(selftest.REFERENCE.read_text())
    change(content)
    (folder / "reference.json").write_text(json.dumps(content))
    monkeypatch.setattr(selftest, "REFERENCE", folder / "reference.json")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """One run of the command as users run it: its result, what it wrote, the folder that it wrote to."""
    folder = tmp_path_factory.mktemp("healthy")
    (folder / "volumes").mkdir()
    result = good("doctor", "--folder", folder / "volumes", "--json", folder / "d.json", "--device", "cpu")
    return result, json.loads((folder / "d.json").read_text()), folder


@pytest.mark.slow
def test_this_machine_is_usable(healthy):
    result, written, folder = healthy
    assert result.stdout.splitlines()[-1].startswith("Usable: ")
    assert "PROBLEM" not in result.stdout
    assert "\x1b" not in result.stdout
    assert written["usable"] is True
    assert list((folder / "volumes").iterdir()) == []
    assert sorted(path.name for path in folder.iterdir()) == ["d.json", "volumes"]
    assert max(map(len, result.stdout.splitlines())) <= 120


@pytest.mark.slow
def test_the_json_file_holds_everything(healthy):
    result, written, _ = healthy
    values = {finding["name"]: finding["values"] for finding in written["findings"]}
    for finding in written["findings"]:
        assert finding["state"] in (OK, WARNING, PROBLEM)
        assert " ".join(lines_of(result, finding["name"]).split()).endswith(finding["advice"])
    # The installed package may leave out which CUDA it is built with.
    assert torch.__version__.startswith(values["versions"]["torch"])
    assert {"cryolithe", "python", "numpy", "numba", "h5py", "mrcfile", "PyWavelets", "system"} <= set(
        values["versions"]
    )
    assert 1 <= values["processor"]["cores_usable"] <= os.cpu_count()
    assert values["precision"]["auto"] in ("fp32", "bf16")
    assert values["threads"]["torch"] == torch.get_num_threads()
    assert values["memory"]["free_bytes"] > 0
    assert values["folder"]["bytes_per_second"] > 0
    assert values["folder"]["written_bytes"] <= storage.MOST_BYTES
    assert values["models"]["default"]
    assert values["speed"]["voxels_per_second"] > 0
    assert {name for name in values if name.startswith("self-test")} == {
        f"self-test {name}" for name in ("fbp", "stored", "float64", "fp32", "bf16", "mrc")
    }
    assert all(values[name]["passed"] for name in values if name.startswith("self-test"))


@pytest.mark.slow
def test_stored_values_are_those_of_this_version():
    """If not, because the bundled model or a filter was changed on purpose: python -m cryolithe.diagnosis."""
    stored, now = json.loads(selftest.REFERENCE.read_text()), selftest.references()
    assert stored["models"] == now["models"], "run: python -m cryolithe.diagnosis"
    for name in ("fbp", "network"):
        scale = np.abs(stored[name]).max()
        np.testing.assert_allclose(now[name], stored[name], rtol=0, atol=1e-5 * scale)


@pytest.mark.slow
def test_stored_values_can_be_written_anew(monkeypatch, tmp_path):
    before = json.loads(selftest.REFERENCE.read_text())
    monkeypatch.setattr(selftest, "REFERENCE", tmp_path / "reference.json")
    selftest.store_references()
    assert json.loads(selftest.REFERENCE.read_text())["models"] == before["models"]


@pytest.mark.slow
@pytest.mark.usefixtures("little_to_write")
def test_a_wrong_stored_value_fails_its_test(monkeypatch, tmp_path):
    def change(content):
        content["fbp"][3] *= 1.01
        content["network"][9] += 0.001
        content["models"]["default"] = "0" * 64

    tampered(monkeypatch, tmp_path, change)
    result = doctor("--folder", tmp_path)
    assert result.exit_code == 1
    for name in ("self-test fbp", "self-test stored", "models"):
        entry = lines_of(result, name)
        assert entry.startswith("PROBLEM")
        assert "-> install again: python -m pip install" in entry
    assert "has other bytes than expected" in lines_of(result, "models")
    assert lines_of(result, "self-test float64").startswith("ok")
    assert "3 problem(s)" in result.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("{}")])
def test_without_stored_values_the_tests_fail_and_say_so(spoil, monkeypatch, tmp_path):
    tampered(monkeypatch, tmp_path, lambda content: None)
    spoil(selftest.REFERENCE)
    found = [selftest.models(), *selftest.run(torch.device("cpu"))]
    wrong = [finding for finding in found if finding.state == PROBLEM]
    assert [finding.name for finding in wrong] == ["models", "self-test fbp", "self-test stored"]
    assert all(finding.advice for finding in wrong)


@pytest.mark.slow
@pytest.mark.usefixtures("little_to_write")
def test_without_numba_it_works_and_says_so(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name == "numba" else real(name, package)
    )
    result = good("doctor", "--folder", tmp_path)
    assert lines_of(result, "numba").startswith("WARNING")
    assert "a quarter of the speed" in lines_of(result, "numba")
    assert "pip install numba" in lines_of(result, "numba")
    assert "numba absent" in lines_of(result, "versions")


def test_a_loop_that_cannot_be_compiled_is_a_problem(monkeypatch):
    def fail():
        raise RuntimeError("LLVM ERROR: no such target\nmore")

    monkeypatch.setattr(machine, "compiled_cache", fail)
    finding = machine.compiler()
    assert finding.state == PROBLEM
    assert finding.text.endswith("no such target")
    assert finding.advice


def test_a_loop_that_cannot_be_cached_is_a_warning(monkeypatch):
    monkeypatch.setattr(machine, "compiled_cache", lambda: None)
    finding = machine.compiler()
    assert finding.state == WARNING
    assert "NUMBA_CACHE_DIR" in finding.advice


def test_a_json_file_in_no_folder_is_refused_at_once(tmp_path):
    result = doctor("--json", tmp_path / "none" / "d.json")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr
    assert result.stdout == ""


@pytest.mark.usefixtures("no_self_test")
def test_a_folder_that_cannot_be_written_is_a_finding(tmp_path):
    (tmp_path / "file").write_text("x")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    cases = {tmp_path / "none": "does not exist", tmp_path / "file": "is not a folder"}
    # No mode keeps the superuser out, but /proc does.
    cases[locked if os.geteuid() else Path("/proc")] = "nothing can be written to"
    for folder, expected in cases.items():
        result = doctor("--folder", folder)
        assert result.exit_code == 1
        entry = lines_of(result, "folder")
        assert entry.startswith("PROBLEM")
        assert expected in entry
        assert "--folder" in entry
        assert "Traceback" not in result.output
    assert list(locked.iterdir()) == []


@pytest.mark.usefixtures("no_self_test")
@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "No space left on device"), 1)]
)
def test_nothing_is_left_when_writing_ends_early(error, code, monkeypatch, tmp_path):
    def fail(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    result = doctor("--folder", tmp_path)
    assert result.exit_code == code, result.output
    assert list(tmp_path.iterdir()) == []


def test_writing_stops_in_time(tmp_path):
    assert storage.write_speed(tmp_path, most_seconds=0).written_bytes == storage.FIRST_CHUNK_BYTES
    assert storage.write_speed(tmp_path, most_bytes=5 << 20).written_bytes == 5 << 20


def test_a_slow_or_full_folder_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(storage, "write_speed", lambda path, most: storage.WriteSpeed(1 << 20, 2.0))
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    (finding,) = storage.folder(tmp_path)
    assert finding.state == WARNING
    assert "free some space" in finding.advice
    assert "local disk" in finding.advice


@pytest.mark.usefixtures("no_self_test", "little_to_write")
def test_a_device_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = doctor("--device", "cuda", "--folder", tmp_path)
    assert result.exit_code == 1
    assert lines_of(result, "device").startswith("PROBLEM")
    unknown = doctor("--device", "tpu")
    assert unknown.exit_code == 2
    assert "unknown device 'tpu'" in unknown.stderr


def test_a_driver_that_is_too_old_is_named(monkeypatch):
    def fail():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "init", fail)
    for module in (machine, device_module):
        monkeypatch.setattr(module, "nvidia_driver_loaded", lambda: True)
    (finding,) = machine.gpus()
    assert finding.state == WARNING
    assert finding.text.endswith("too old (found version 11040).")
    assert finding.advice
    monkeypatch.setattr(torch.version, "cuda", None)
    (finding,) = machine.gpus()
    assert finding.state == WARNING
    assert "install torch with CUDA" in finding.advice


def test_gpus_are_described(monkeypatch):
    def free_memory(number):
        if number == 2:
            raise RuntimeError("CUDA error: all CUDA-capable devices are busy")
        return (60e9, 80e9) if number == 0 else (1e9, 11e9)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda n: SimpleNamespace(name=f"GPU type {n}", major=9 - 2 * n, minor=0)
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", free_memory)
    monkeypatch.setattr(machine, "version", lambda module, distribution: None)
    first, second, third, triton = machine.gpus()
    assert first.text == "GPU type 0, 60.0 of 80.0 GB free, capability 9.0, bf16"
    assert first.state == OK
    assert second.state == WARNING  # it is full
    assert second.text.endswith("capability 7.0, no bf16")
    assert "busy" in third.text
    assert triton.state == WARNING


def test_more_threads_than_cores_is_a_warning(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    monkeypatch.setattr(machine, "group_limits", lambda: Limits(2.5, None, None))
    assert machine.threads().advice.startswith("set OMP_NUM_THREADS=2")


def groups(folder, membership, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own").write_text(membership)
    return group_limits(folder, folder / "own")


def test_limits_of_control_groups_of_version_2(tmp_path):
    files = {
        "a/cpu.max": "400000 100000\n",
        "a/memory.max": "8000\n",
        "a/memory.current": "3000\n",
        "a/memory.stat": "anon 1\ninactive_file 1000\n",
        "a/b/cpu.max": "max 100000\n",
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "2000\n",
    }
    assert groups(tmp_path, "0::/a/b\n", files) == Limits(4.0, 8000, 6000)


def test_limits_of_control_groups_of_version_1(tmp_path):
    files = {
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "cpu/x/cpu.cfs_quota_us": "150000\n",
        "cpu/x/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "5000\n",
        "memory/memory.usage_in_bytes": "6000\n",
        "memory/memory.stat": "inactive_file 10\ntotal_inactive_file 2000\n",
        "memory/x/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/x/memory.usage_in_bytes": "1\n",
    }
    assert groups(tmp_path, "4:memory:/x\n1:cpu,cpuacct:/x\n", files) == Limits(1.5, 5000, 1000)
    assert group_limits(tmp_path, tmp_path / "none") == Limits(None, None, None)


@pytest.mark.usefixtures("no_self_test", "little_to_write")
def test_an_existing_json_file_is_kept(tmp_path):
    (tmp_path / "d.json").write_text("mine")
    result = doctor("--json", tmp_path / "d.json")
    assert result.exit_code == 2
    assert (tmp_path / "d.json").read_text() == "mine"
    good("doctor", "--json", tmp_path / "d.json", "--overwrite", "--folder", tmp_path)
    assert json.loads((tmp_path / "d.json").read_text())["usable"]


def test_the_overview_does_not_wait_for_torch():
    code = "import sys, cryolithe.cli.doctor; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_self_test_passes_on_a_gpu():
    for finding in selftest.run(torch.device("cuda")):
        assert finding.state == OK, finding
