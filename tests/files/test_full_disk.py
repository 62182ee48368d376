"""On a disk that becomes full a command leaves nothing behind that keeps it from being given again."""

import errno
import os
from pathlib import Path

import pytest
from command import call, ended, good
from half_volumes import halves, write
from test_n2n_general import TINY, weights
from tiny_series import write_model

from cryolithe.denoising.n2n import network
from cryolithe.errors import OutputError
from cryolithe.formats import files
from cryolithe.optimise import tensors


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def of_volumes(folder):
    return [write(folder / f"half{n}.mrc", values) for n, values in enumerate(halves((24, 40, 32)))]


def fsc(folder):
    return ("fsc", *of_volumes(folder), "--json", folder / "made.json", "--plot", folder / "made.png")


def evaluate(folder):
    first, second = of_volumes(folder)
    return ("evaluate", first, "--half1", first, "--half2", second, "-o", folder / "made.html")


def compare(folder):
    first, second = of_volumes(folder)
    words = ("--half1", first, "--half2", second, "--tilt-range", 60, "--methods", "fbp")
    return ("compare", *words, "-o", folder / "made.html")


def simulate(folder):
    return ("simulate", "-o", folder / "made")


def denoise(folder):
    model = weights(folder / "w.safetensors", {"general": True, "voxel_size_angstrom": [8.0, 14.0]})
    words = ("--method", "n2n", "--model", model, of_volumes(folder)[0], "--report", folder / "made.png")
    return ("denoise", *words, "-o", folder / "made.mrc", "--device", "cpu", "--precision", "fp32")


def outputs(folder):
    """All files but those with which `compare` goes on."""
    return {path for path in folder.rglob("*") if path.is_file() and ".work" not in str(path.relative_to(folder))}


@pytest.mark.slow
@pytest.mark.parametrize("command", [fsc, evaluate, compare, simulate, denoise])
def test_outputs_of_one_command_are_all_there_or_none_is(tmp_path, monkeypatch, command):
    monkeypatch.setitem(network.BACKBONES, "unet-small", TINY)
    words = command(tmp_path)
    before, sync = outputs(tmp_path), files.sync
    for fails in range(1, 9):
        asked = []

        def synced(path, asked=asked, fails=fails):
            if ".work" not in str(path):
                asked.append(path)
            return full() if len(asked) == fails else sync(path)

        monkeypatch.setattr(files, "sync", synced)
        result = call(*words)
        if len(asked) < fails:
            break
        assert "No space left on device" in ended(result, 2)
        assert outputs(tmp_path) == before
    assert fails > 2
    assert result.exit_code == 0, result.output
    assert outputs(tmp_path) - before


def test_what_was_there_before_stays(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()

    def interrupted():
        with files.all_or_none([old, new, tmp_path / "later"]):
            new.touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == [old]


def test_no_part_of_a_model_is_left(tmp_path, monkeypatch):
    write_model(tmp_path / "a.safetensors")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", part_of)
        told = ended(call("models", "shrink", tmp_path / "a.safetensors", "-o", tmp_path / "made.safetensors"), 2)
    assert "No space left on device" in told
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    good("models", "shrink", tmp_path / "a.safetensors", "-o", tmp_path / "made.safetensors")


def test_no_part_of_a_state_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", part_of)
    with pytest.raises(OutputError, match="No space left on device"):
        tensors.write_tensors(tmp_path / "state.safetensors", {}, "kind", {})
    assert not list(tmp_path.iterdir())


def part_of(path, content):
    """Write as much as a full disk takes."""
    with path.open("wb") as file:
        file.write(content[:50])
    full()
