"""``cryolithe info``."""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from command import call, good, refusal_of
from safetensors.numpy import save_file
from shared_data import SHARED, needs_shared

from cryolithe.cli.info import angle_order
from cryolithe.formats import write_angles_deg, write_stack, write_volume
from cryolithe.volume import Volume


def info(*arguments):
    return call("info", *arguments)


def as_json(path):
    result = good("info", path, "--json")
    (answer,) = json.loads(result.stdout)
    return answer


def line(result, start):
    """The value after the first line's title that starts like this."""
    assert result.exit_code == 0, result.output
    return next(
        text.strip().removeprefix(start).strip()
        for text in result.stdout.splitlines()
        if text.strip().removeprefix("content").strip().startswith(start)
    )


@pytest.fixture
def stack(tmp_path):
    images = np.arange(100 * 3 * 4, dtype=np.float32).reshape(100, 3, 4)
    images[0, 0, 0] = np.nan
    images[-1, 0, 0] = np.inf
    write_stack(tmp_path / "s.mrc", images, 2.5, "made for a test")
    return tmp_path / "s.mrc"


def test_a_name_that_the_locale_cannot_show_is_escaped(stack, tmp_path):
    folder = tmp_path / os.fsdecode(b"\xfc \xf1")
    folder.mkdir()
    stack.rename(folder / "s.mrc")
    assert info(folder / "s.mrc").stdout.startswith(f"{tmp_path}/\\udcfc \\udcf1/s.mrc\n  kind")


def test_stack(stack):
    result = info(stack)
    assert result.stdout.startswith(f"{stack}\n  kind")
    assert line(result, "kind") == "tilt stack"
    assert line(result, "shape") == "100 × 3 × 4 (z or tilt, y, x)"
    assert line(result, "pixel size") == "2.5 Å"
    assert line(result, "dtype") == "float32 (MRC mode 2)"
    assert line(result, "labels") == "made for a test"
    assert line(result, "sampled sections").startswith("64 of 100")
    assert line(result, "non finite pixels") == "2"
    assert line(result, "notes") == "none"
    assert len({text.index(text.split("  ")[-1].lstrip()) for text in result.stdout.splitlines()[1:]}) == 1


def test_stack_as_json(stack):
    answer = as_json(stack)
    assert answer["shape"] == [100, 3, 4]
    assert answer["minimum"] == 1
    assert answer["maximum"] == 1199
    assert answer["size_on_disk"] == 1024 + 4800


def test_values_that_json_does_not_have_become_null(tmp_path):
    write_volume(tmp_path / "v.mrc", Volume(np.full((2, 3, 4), np.nan, "f4")), label="x")
    answer = as_json(tmp_path / "v.mrc")
    assert answer["kind"] == "volume"
    assert answer["mean"] is None
    assert answer["pixel_size_angstrom"] is None
    assert line(info(tmp_path / "v.mrc"), "pixel size") == "unknown (0 in the header)"


def test_angles(tmp_path):
    path = tmp_path / "a.tlt"
    write_angles_deg(path, [-6, -3, 0, 0, 3])
    result = info(path)
    assert line(result, "kind") == "tilt angles"
    assert line(result, "angles") == "5"
    assert line(result, "range") == "-6° to 3°"
    assert line(result, "median step") == "3°"
    assert line(result, "duplicates") == "0°"
    assert as_json(path)["order"] == "ascending"


@pytest.mark.parametrize(
    ("angles", "order"),
    [
        ((5.0,), "ascending"),
        ((-3, 0, 3), "ascending"),
        ((3, 0, -3), "descending"),
        ((0, 3, -3, -6, 6, 9, -9), "dose-symmetric-like"),
        ((0.1, 3.2, -2.9, -6, 6.1, 9, -9.2), "dose-symmetric-like"),
        ((12, 15, 9, 6, 18), "dose-symmetric-like"),
        ((0, 30, -60, 3, 1), "mixed"),
        ((0, 3, 6, -3, -6), "mixed"),
    ],
)
def test_order_of_angles(angles, order):
    assert angle_order(angles) == order


def test_model(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"a": np.zeros((3, 4), "f4"), "b": np.zeros(5, "f2")}, path, metadata={"name": "tiny"})
    result = info(path)
    assert line(result, "tensors") == "2"
    assert line(result, "parameters") == "17"
    assert "tiny" in line(result, "metadata")
    assert as_json(path)["metadata"] == {"name": "tiny"}
    path.write_bytes(path.read_bytes()[:-1])
    assert "is damaged" in info(path).stderr


@pytest.mark.parametrize(
    "content",
    [
        b"abc",
        b"\xff" * 50,
        (3).to_bytes(8, "little") + b"[1]",
        (2).to_bytes(8, "little") + b"{x",
        (9).to_bytes(8, "little") + b'{"a": {}}' + bytes(9),
        (19).to_bytes(8, "little") + b'{"__metadata__": 3}',
    ],
)
def test_broken_models(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    assert refusal_of(info(path)).startswith(f"Error: {path} is ")


def test_sidecar(tmp_path):
    path = tmp_path / "s.json"
    content = {
        "kind": "mine",
        "geometry": {"tilts": 41, "angles_deg": list(range(41))},
        "empty": {},
        "name": "x\x1b[31m",
    }
    path.write_text(json.dumps(content))
    result = info(path)
    assert line(result, "geometry.tilts") == "41"
    assert line(result, "geometry.angles_deg") == "[41 items]"
    assert "\x1b" not in result.stdout
    assert as_json(path)["content"] == content
    for bad in ("[1]", "{", "[" * 100_000):
        path.write_text(bad)
        assert info(path).exit_code == 2


def test_hdf5(tmp_path):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file["group/maps"] = np.zeros((2, 3), "f4")
        file.attrs["source"] = "test"
    assert line(info(path), "datasets") == "group/maps  (2, 3) float32"
    assert as_json(path)["attributes"] == ["source"]
    path.write_bytes(b"no such thing")
    assert "is not a readable HDF5 file" in info(path).stderr


def test_series_list(tmp_path):
    (tmp_path / "a.mrc").touch()
    (tmp_path / "l.csv").write_text("tilts,angles,thickness\na.mrc,a.tlt,300\n")
    answer = as_json(tmp_path / "l.csv")
    assert answer["series"] == 1
    assert answer["missing_files"] == [str(tmp_path / "a.tlt")]


def test_a_bad_file_does_not_stop_the_others(stack, tmp_path):
    bad = tmp_path / "notes.md"
    bad.write_text("# Notes\n" * 300)
    result = info(bad, stack)
    assert result.exit_code == 2
    assert "tilt stack" in result.stdout
    assert result.stderr.startswith(f"Error: {bad} is of no known kind; expected MRC data or one of the endings .mrc")
    assert result.stderr.count("\n") == 1
    assert (
        info(tmp_path / "none.mrc").stderr
        == f"Error: {tmp_path / 'none.mrc'} does not exist; check its name and folder\n"
    )


def test_info_does_not_wait_for_torch():
    code = "import sys, cryolithe.cli.info; print('torch' in sys.modules, 'h5py' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False False\n"
    )


@needs_shared
def test_real_files():
    result = info(SHARED / "needle" / "needle_ali.mrc", SHARED / "needle" / "needle_ali.tlt")
    assert line(result, "kind") == "tilt stack"
    assert line(result, "pixel size") == "33.6 Å"
    assert as_json(SHARED / "formats" / "mrc" / "EMD-3197.map")["kind"] == "volume"
    assert as_json(SHARED / "molecules" / "molecules_5A.h5")["datasets"]
