"""The command ``cryolithe reconstruct`` where it succeeds: what it writes, and where matter ends up."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys

import mrcfile
import numpy as np
import pytest
import torch
from command import call
from tiny_series import (
    ANGLES,
    SHAPE,
    SlabSpy,
    bead_images,
    brightest_point,
    environment,
    made,
    noise,
    run,
    voxels,
    write_model,
    write_series,
)

from cryolithe import __version__
from cryolithe.errors import InputError
from cryolithe.formats import read_mrc
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.images.preparation import Preparation, check_images, image_workers, prepare_stack
from cryolithe.reconstruction.slabwise.methods import BATCHES
from cryolithe.settings import ReconstructSettings
from cryolithe.tilts import TiltSeries


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def choice(method, model):
    """The flags that choose a method, made quick."""
    more = {"network": ("--model", model, "--precision", "fp32"), "sirt": ("--iterations", "3"), "fbp": ()}
    return ("--method", method, *more[method])


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(np.abs(b).max()))


# What is written


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 48), (37, 49)])
@pytest.mark.parametrize("method", ["network", "fbp", "sirt"])
def test_volume_and_header(method, shape, model, tmp_path):
    stack, angles = write_series(tmp_path, noise(shape))
    output = tmp_path / "v.mrc"
    result = made(stack, angles, "-o", output, "--thickness", 15, *choice(method, model))
    assert result.stdout.startswith(f"{output}: 15 x {shape[0]} x {shape[1]} (z, y, x), 5 Å voxels, ")
    problems = io.StringIO()
    assert mrcfile.validate(output, print_file=problems), problems.getvalue()
    with mrcfile.open(output) as file:
        assert file.data.shape == (15, *shape)
        assert file.data.dtype == np.float32
        assert np.isfinite(file.data).all()
        assert file.data.std() > 0
        header = file.header
        assert [float(file.voxel_size[a]) for a in "xyz"] == pytest.approx([5, 5, 5])
        assert int(header.ispg) == 1
        assert int(header.mz) == int(header.nz) == 15
        assert int(header.nlabl) == 2  # that of the stack, then ours
        _, label = file.get_labels()
        assert label.startswith(f"CryoLithe {__version__} ")
        assert ("model tiny " if method == "network" else method) in label
        assert float(header.dmin) == file.data.min()
        assert float(header.dmax) == file.data.max()
        assert float(header.dmean) == pytest.approx(file.data.mean(dtype=float), abs=1e-6)
        assert float(header.rms) == pytest.approx(file.data.std(dtype=float), rel=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ts.mrc", "ts.tlt", "v.json", "v.mrc"]


def test_sidecar(model, tmp_path):
    stack, angles = write_series(tmp_path)
    made(stack, angles, "--thickness", 16, "--contrast", "bright", *choice("network", model))
    record = json.loads((tmp_path / "ts_rec.json").read_text(encoding="utf-8"))

    def sha256(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()

    assert record["program"]["name"] == "CryoLithe"
    assert record["program"]["version"] == __version__
    assert record["inputs"] == {
        "tilts": {"path": str(stack), "sha256": sha256(stack)},
        "angles": {"path": str(angles), "sha256": sha256(angles)},
    }
    assert record["geometry"]["tilt_angles_deg"] == list(ANGLES)
    assert record["geometry"]["stack_shape"] == [len(ANGLES), *SHAPE]
    assert record["geometry"]["stack_pixel_size_angstrom"] == 5
    assert record["method"]["name"] == "network"
    assert record["method"]["model"] == {
        "name": "tiny",
        "sha256": sha256(model),
        "convention": {},
        "card": {"made": "for a test"},
    }
    expected = ReconstructSettings(model=str(model), thickness=16, contrast="bright", precision="fp32")
    assert record["settings"] == expected.model_dump(mode="json")
    assert [name.partition(":")[0] for name in record["compute"]["devices"]] == [
        "cuda" if torch.cuda.is_available() else "cpu"
    ]
    assert record["compute"]["precision"] == "fp32"
    assert record["compute"]["slab_rows"] == SHAPE[0]
    volume = voxels(tmp_path / "ts_rec.mrc")
    assert record["volume"]["path"] == "ts_rec.mrc"
    assert record["volume"]["shape_zyx"] == [16, *SHAPE]
    assert record["volume"]["voxel_size_angstrom"] == 5
    statistics = record["volume"]["statistics"]
    assert statistics["minimum"] == volume.min()
    assert statistics["maximum"] == volume.max()
    assert statistics["mean"] == pytest.approx(volume.mean(dtype=float), abs=1e-9)
    assert statistics["rms"] == pytest.approx(volume.std(dtype=float), rel=1e-6)


@pytest.mark.parametrize(("width", "thickness"), [(40, 20), (41, 22), (42, 22), (43, 22), (44, 22), (45, 24)])
def test_default_thickness_is_half_the_width_rounded_up_to_even(width, thickness, tmp_path):
    stack, angles = write_series(tmp_path, noise((24, width)))
    made(stack, angles, "--method", "fbp")
    assert voxels(tmp_path / "ts_rec.mrc").shape == (thickness, 24, width)


def test_default_thickness_follows_binning_and_axis(tmp_path):
    stack, angles = write_series(tmp_path, noise((60, 40)))
    made(stack, angles, "--method", "fbp", "--bin", 2, "--tilt-axis", 90)
    assert voxels(tmp_path / "ts_rec.mrc").shape == (16, 20, 30)


@pytest.mark.parametrize("name", ["ts.mrc", "ts.st", "ts.v1.ali", "ts.mrc.gz"])
def test_default_output_name(name, tmp_path):
    stack, angles = write_series(tmp_path)
    content = stack.read_bytes()
    stack.unlink()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    made(tmp_path / name, angles, "--method", "fbp", "--thickness", 8)
    base = "ts.v1_rec" if name == "ts.v1.ali" else "ts_rec"
    assert {p.name for p in tmp_path.iterdir()} == {name, "ts.tlt", f"{base}.mrc", f"{base}.json"}


@pytest.mark.parametrize(
    ("in_header", "flags", "expected"),
    [(5.0, (), 5), (5.0, ("--bin", 2), 10), (5.0, ("--bin", 3, "--pixel-size", 4.5), 13.5), (0.0, (), None)],
)
def test_voxel_size_is_pixel_size_times_bin(in_header, flags, expected, tmp_path):
    stack, angles = write_series(tmp_path, pixel_size=in_header)
    result = made(stack, angles, "--method", "fbp", "--thickness", 10, *flags)
    assert read_mrc(tmp_path / "ts_rec.mrc").voxel_size_angstrom == (
        None if expected is None else pytest.approx(expected, rel=1e-6)
    )
    assert (f"{expected} Å voxels" if expected else "voxel size unknown") in result.stdout


def test_half_precision_output(tmp_path):
    stack, angles = write_series(tmp_path)
    for dtype in ("float32", "float16"):
        made(stack, angles, "-o", tmp_path / f"{dtype}.mrc", "--method", "fbp", "--thickness", 16, "--dtype", dtype)
    half = voxels(tmp_path / "float16.mrc")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, voxels(tmp_path / "float32.mrc").astype(np.float16))
    with mrcfile.open(tmp_path / "float16.mrc") as file:
        assert int(file.header.mode) == 12
        assert float(file.header.dmin) == half.min()
        assert float(file.header.dmean) == pytest.approx(half.mean(dtype=float), abs=1e-6)


def test_overwrite_replaces_the_old_volume(tmp_path):
    stack, angles = write_series(tmp_path)
    (tmp_path / "v.mrc").write_bytes(b"old")
    for thickness in (8, 10):
        made(stack, angles, "-o", tmp_path / "v.mrc", "--method", "fbp", "--thickness", thickness, "--overwrite")
        assert voxels(tmp_path / "v.mrc").shape == (thickness, *SHAPE)
        assert json.loads((tmp_path / "v.json").read_text())["settings"]["thickness"] == thickness


def test_the_same_input_gives_the_same_bytes(model, tmp_path, monkeypatch):
    stack, angles = write_series(tmp_path)
    for name in ("a", "b"):
        made(stack, angles, "-o", tmp_path / f"{name}.mrc", "--thickness", 16, *choice("network", model))
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()
    assert b"1970-01-02" in (tmp_path / "a.mrc").read_bytes()[:1024]


# Polarity


def test_contrast_says_what_is_dense_and_the_output_keeps_it(model, tmp_path):
    images = noise()
    outputs = []
    for name, sign, contrast in (("dark", 1, "dark"), ("bright", -1, "bright"), ("other", 1, "bright")):
        stack, angles = write_series(tmp_path, sign * images, name=name)
        made(stack, angles, "--thickness", 16, "--contrast", contrast, *choice("network", model))
        outputs.append(voxels(tmp_path / f"{name}_rec.mrc"))
    np.testing.assert_array_equal(outputs[0], -outputs[1])
    assert np.abs(outputs[0] - outputs[2]).max() > 1e-3 * np.abs(outputs[0]).max()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fbp", "sirt"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("contrast", ["dark", "bright"])
def test_classical_methods_keep_the_polarity(method, sign, contrast, tmp_path):
    stack, angles = write_series(tmp_path, sign * bead_images(SHAPE, (5, 4, 2)))
    made(stack, angles, "--thickness", 16, "--contrast", contrast, *choice(method, None))
    volume = sign * voxels(tmp_path / "ts_rec.mrc")
    assert volume.max() > 3 * -volume.min()


# Where matter ends up


def expect_bead(path, position_px, factor=1):
    """Assert that the bead lies at its (x, y, z) from the middle, z being blurred by the missing wedge."""
    volume = voxels(path)
    x, y, z = (p / factor for p in position_px)
    middle = [(n - 1) / 2 for n in volume.shape]
    found = [f - m for f, m in zip(brightest_point(volume), middle, strict=True)]
    assert found[2] == pytest.approx(x, abs=0.15)
    assert found[1] == pytest.approx(y, abs=0.1)
    assert found[0] == pytest.approx(z, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "thickness", "shape"),
    [("fbp", t, s) for t in (20, 21) for s in ((40, 48), (41, 47), (40, 49))] + [("sirt", 20, (40, 47))],
)
def test_bead_lands_where_the_geometry_says(method, thickness, shape, tmp_path):
    position = (-7.3, 6.4, 3.2)
    stack, angles = write_series(tmp_path, bead_images(shape, position))
    made(stack, angles, "--thickness", thickness, *choice(method, None))
    expect_bead(tmp_path / "ts_rec.mrc", position)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "factor"), [((80, 96), 2), ((81, 95), 2), ((80, 97), 2), ((81, 94), 2), ((91, 104), 3), ((90, 102), 3)]
)
def test_bead_after_binning(shape, factor, tmp_path):
    position = (13.0, -11.4, 6.2)
    stack, angles = write_series(tmp_path, bead_images(shape, position, sigma_px=1.5 * factor))
    made(stack, angles, "--thickness", 20, "--method", "fbp", "--bin", factor)
    assert voxels(tmp_path / "ts_rec.mrc").shape == (20, shape[0] // factor, shape[1] // factor)
    expect_bead(tmp_path / "ts_rec.mrc", position, factor)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 48), (41, 47)])
@pytest.mark.parametrize("axis", [90, -90, 180, 270, 30, -12.5, 85.3, -95.0])
def test_bead_with_a_rotated_tilt_axis(axis, shape, tmp_path):
    position = (-6.3, 7.4, 3.2)
    stack, angles = write_series(tmp_path, bead_images(shape, position, axis))
    made(stack, angles, "--thickness", 20, "--method", "fbp", "--tilt-axis", axis)
    swapped = axis in (90, -90, 270, 85.3, -95.0)
    assert voxels(tmp_path / "ts_rec.mrc").shape[1:] == (shape[::-1] if swapped else shape)
    expect_bead(tmp_path / "ts_rec.mrc", position)


def test_bead_with_a_rotated_axis_and_binning(tmp_path):
    position = (-12.0, 15.0, 6.0)
    stack, angles = write_series(tmp_path, bead_images((81, 96), position, 84.0, sigma_px=3))
    made(stack, angles, "--thickness", 20, "--method", "fbp", "--tilt-axis", 84, "--bin", 2)
    expect_bead(tmp_path / "ts_rec.mrc", position, 2)


def test_order_of_images_does_not_matter(tmp_path):
    images = bead_images(SHAPE, (5, 4, 3))
    order = np.random.default_rng(1).permutation(len(ANGLES))
    write_series(tmp_path, images, name="sorted")
    write_series(tmp_path, images[order], [ANGLES[i] for i in order], name="shuffled")
    for name in ("sorted", "shuffled"):
        made(tmp_path / f"{name}.mrc", tmp_path / f"{name}.tlt", "--thickness", 16, "--method", "fbp")
    close(voxels(tmp_path / "shuffled_rec.mrc"), voxels(tmp_path / "sorted_rec.mrc"))


# Slabs

# As many points at a time as there are usually.
BATCH = {"cpu": BATCHES["cpu"].points}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "shape"), [("network", (40, 48)), ("network", (41, 47)), ("fbp", (41, 47)), ("sirt", SHAPE)]
)
def test_little_memory_makes_more_slabs_and_the_same_volume(method, shape, model, tmp_path, monkeypatch):
    spy = SlabSpy()
    monkeypatch.setattr("cryolithe.reconstruction.setup.fitting.slab_rows", spy)
    stack, angles = write_series(tmp_path, noise(shape))
    flags = ("--thickness", 16, *choice(method, model))
    made(stack, angles, "-o", tmp_path / "whole.mrc", *flags)
    assert spy.rows >= shape[0]
    memory = ("--max-memory", repr(spy.memory_for(6)))
    with monkeypatch.context() as patched:
        patched.setattr("cryolithe.reconstruction.setup.fitting.FEWEST_POINTS", BATCH)
        made(stack, angles, "-o", tmp_path / "slabs.mrc", *flags, *memory)
    assert spy.rows == 6
    assert json.loads((tmp_path / "slabs.json").read_text())["compute"]["slab_rows"] == 6
    close(voxels(tmp_path / "slabs.mrc"), voxels(tmp_path / "whole.mrc"))
    # Before slabs become so low, a network works on less at a time.
    made(stack, angles, "-o", tmp_path / "blocks.mrc", *flags, *memory)
    compute = json.loads((tmp_path / "blocks.json").read_text())["compute"]
    assert (compute["slab_rows"] > 6) == (method == "network")
    close(voxels(tmp_path / "blocks.mrc"), voxels(tmp_path / "whole.mrc"))


# Inputs


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", ">f4", ">i2"])
def test_pixel_types_give_the_same_volume(dtype, tmp_path):
    images = np.random.default_rng(0).integers(0, 100, (len(ANGLES), *SHAPE))
    for name, kind in (("reference", "float32"), ("other", dtype)):
        stack, angles = write_series(tmp_path, images.astype(kind), name=name)
        made(stack, angles, "--method", "fbp", "--thickness", 16)
    read = read_mrc(tmp_path / "other.mrc")
    assert read.mode == {"int8": 0, "int16": 1, "uint16": 6, "float16": 12, ">f4": 2, ">i2": 1}[dtype]
    assert read.byte_order == ("big-endian" if dtype.startswith(">") else "little-endian")
    close(voxels(tmp_path / "other_rec.mrc"), voxels(tmp_path / "reference_rec.mrc"), 1e-6)


def test_compressed_stack_gives_the_same_volume(tmp_path):
    stack, angles = write_series(tmp_path)
    packed = tmp_path / "packed.mrc.gz"
    packed.write_bytes(gzip.compress(stack.read_bytes()))
    for path in (stack, packed):
        made(path, angles, "--method", "fbp", "--thickness", 16)
    np.testing.assert_array_equal(voxels(tmp_path / "packed_rec.mrc"), voxels(tmp_path / "ts_rec.mrc"))


def test_spaces_and_unicode_in_paths(tmp_path):
    folder = tmp_path / "my data ö 断層"
    folder.mkdir()
    stack, angles = write_series(folder, name="série 1 [a] 'b'")
    result = made(stack, angles, "--method", "fbp", "--thickness", 8)
    output = folder / "série 1 [a] 'b'_rec.mrc"
    assert str(output) in result.stdout
    assert voxels(output).shape == (8, *SHAPE)
    record = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["inputs"]["tilts"]["path"] == str(stack)


def test_a_single_image_is_a_series_of_one_tilt(tmp_path):
    stack, angles = write_series(tmp_path, bead_images(SHAPE, (5, 4, 0), angles=(0,))[0], angles=(0,))
    made(stack, angles, "--method", "fbp", "--thickness", 8)
    volume = voxels(tmp_path / "ts_rec.mrc")
    assert volume.shape == (8, *SHAPE)
    close(volume[0], volume[-1])  # one view at 0° says nothing about z


def test_fix_nonfinite_replaces_pixels_by_the_mean_of_the_rest(tmp_path):
    images = noise()
    holes = images.copy()
    holes[2, 5:8, 7] = (np.nan, np.inf, -np.inf)
    rest = np.isfinite(holes[2])
    images[2][~rest] = images[2][rest].mean(dtype=float)
    write_series(tmp_path, holes, name="holes")
    write_series(tmp_path, images, name="filled")
    for name, flags in (("holes", ("--fix-nonfinite",)), ("filled", ())):
        made(tmp_path / f"{name}.mrc", tmp_path / f"{name}.tlt", "--method", "fbp", "--thickness", 16, *flags)
    close(voxels(tmp_path / "holes_rec.mrc"), voxels(tmp_path / "filled_rec.mrc"), 1e-6)


def test_precision(model, tmp_path):
    stack, angles = write_series(tmp_path)
    for precision in ("fp32", "bf16", "fp16"):
        flags = ("--thickness", 8, "--model", model, "--precision", precision)
        made(stack, angles, "-o", tmp_path / f"{precision}.mrc", *flags)
    reference = voxels(tmp_path / "fp32.mrc")
    for precision, tolerance in (("bf16", 0.05), ("fp16", 0.01)):
        difference = voxels(tmp_path / f"{precision}.mrc") - reference
        assert difference.std() < tolerance * reference.std()


# Lists


@pytest.mark.slow
def test_a_failing_series_does_not_stop_the_list(tmp_path):
    for name in ("one", "three"):
        write_series(tmp_path, name=name)
    listing = tmp_path / "session.csv"
    listing.write_text(
        "tilts,angles,output,thickness,bin\n"
        "one.mrc,one.tlt,,8,\n"
        "two.mrc,two.tlt,,,\n"
        'three.mrc,three.tlt,"other, name.mrc",,2\n'
    )
    result = run("--list", listing, "--method", "fbp", "--thickness", 10, "--pixel-size", 2)
    assert result.exit_code == 1, result.output
    assert "1 of 3 series failed" in result.stderr
    assert f"{tmp_path / 'two.mrc'}: failed: {tmp_path / 'two.mrc'} does not exist" in result.stdout
    # The flag --thickness wins over the cell of the first row; the cell of the third row wins over the default.
    assert voxels(tmp_path / "one_rec.mrc").shape == (10, *SHAPE)
    assert voxels(tmp_path / "other, name.mrc").shape == (10, SHAPE[0] // 2, SHAPE[1] // 2)
    assert {p.name for p in tmp_path.iterdir() if p.suffix not in (".tlt", ".csv", ".html")} == {
        *("one.mrc", "three.mrc", "one_rec.mrc", "one_rec.json", "other, name.mrc", "other, name.json"),
        *("one_rec.png", "other, name.png"),
    }


def test_a_repeated_list_does_not_repeat_finished_work(tmp_path):
    for name in ("one", "two"):
        write_series(tmp_path, name=name)
    listing = tmp_path / "session.csv"
    listing.write_text("tilts,angles\none.mrc,one.tlt\ntwo.mrc,two.tlt\n")
    command = ("--list", listing, "--method", "fbp", "--thickness", 10)
    made(*command)
    (tmp_path / "two_rec.mrc").unlink()
    (tmp_path / "two_rec.json").unlink()
    before = (tmp_path / "one_rec.mrc").stat().st_mtime_ns
    again = made(*command)
    assert f"{tmp_path / 'one_rec.mrc'}: already done with these inputs and settings" in again.stdout
    assert (tmp_path / "one_rec.mrc").stat().st_mtime_ns == before
    assert (tmp_path / "two_rec.mrc").exists()
    # Other settings or another stack are other work: nothing is skipped, and nothing is overwritten.
    other = run(*command[:-1], 12)
    assert other.exit_code == 1
    assert "exists; give --overwrite" in other.stdout
    write_series(tmp_path, images=-noise(), name="one")
    assert run(*command).exit_code == 1


def test_the_dry_run_of_a_list_tells_of_every_series(tmp_path):
    for name in ("one", "three"):
        write_series(tmp_path, name=name)
    listing = tmp_path / "session.csv"
    listing.write_text("tilts,angles\none.mrc,one.tlt\ntwo.mrc,two.tlt\nthree.mrc,three.tlt\n")
    command = ("--list", listing, "--method", "fbp", "--thickness", 10)
    made(tmp_path / "one.mrc", tmp_path / "one.tlt", *command[2:])
    result = run(*command, "--dry-run")
    assert result.exit_code == 1, result.output
    done, missing, planned = result.stdout.splitlines()
    assert done == f"{tmp_path / 'one_rec.mrc'}: already done with these inputs and settings"
    assert missing.startswith(f"{tmp_path / 'two.mrc'}: would fail: ")
    assert planned.startswith(f"{tmp_path / 'three_rec.mrc'}: Plan: ")
    assert "1 of 3 series would fail" in result.stderr
    assert not (tmp_path / "three_rec.mrc").exists()


def test_settings_of_a_row(tmp_path):
    write_series(tmp_path)
    listing, config = tmp_path / "session.csv", tmp_path / "s.yaml"
    config.write_text("thickness: 20\nmethod: sirt\niterations: 2\n")
    listing.write_text("tilts,angles,output,thickness,method\nts.mrc,ts.tlt,a.mrc,8,fbp\nts.mrc,ts.tlt,b.mrc,,\n")
    result = made("--list", listing, "--config", config)
    assert len(result.stdout.splitlines()) == 2
    records = [json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab"]
    assert [r["settings"]["thickness"] for r in records] == [8, 20]
    assert [r["settings"]["method"] for r in records] == ["fbp", "sirt"]


# The program as such


def test_help_tells_of_every_setting():
    text = call("reconstruct", "--help").output
    for name in ReconstructSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in text


@pytest.mark.slow
def test_module_runs_as_a_program(tmp_path):
    stack, angles = write_series(tmp_path)
    command = [sys.executable, "-m", "cryolithe", "reconstruct", stack, angles, "--method", "fbp", "--thickness", "8"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'ts_rec.mrc'}: 8 x 40 x 48 (z, y, x), 5 Å voxels")
    assert "Traceback" not in done.stderr


# Preparation


@pytest.mark.parametrize("how", ["plain", "binned and turned", "standardised"])
def test_images_may_be_prepared_several_at_a_time(how, tmp_path):
    settings = {
        "plain": Preparation(clip_defects=True),
        "binned and turned": Preparation(tilt_axis_deg=12.0, bin=2, clip_defects=True),
        "standardised": Preparation(standardise_stack=True),
    }[how]
    series = TiltSeries(noise(), TiltGeometry(tuple(map(float, ANGLES)), SHAPE), 5.0)
    found = []
    for workers in (1, 2, 5, 40):
        done = []
        stack = prepare_stack(series, settings, tmp_path / "stack", lambda done=done: done.append(1), workers)
        assert len(done) == len(ANGLES)
        found.append((stack.sigma, stack.clip_level, stack.pixels.read_bytes()))
        check_images(series, Preparation(), workers)
    assert all(one == found[0] for one in found)
    whole = stack.read_rows(0, stack.geometry.image_shape[0])
    np.testing.assert_array_equal(stack.read_rows(-3, 9)[:, 3:], whole[:, :6])
    np.testing.assert_array_equal(stack.read_rows(-3, 3), whole[:, :3].flip(1))


def test_the_first_bad_image_is_named_however_many_are_looked_at(tmp_path):
    images = noise()
    images[4], images[7] = np.nan, np.nan
    series = TiltSeries(images, TiltGeometry(tuple(map(float, ANGLES)), SHAPE), 5.0)
    for workers in (1, 4):
        with pytest.raises(InputError, match="tilt 5 holds no finite pixel"):
            check_images(series, Preparation(fix_nonfinite=True), workers)


def test_memory_limits_how_many_images_are_prepared_at_a_time():
    image = 4096 * 4096 * 4
    assert image_workers((4096, 4096), 16, 100 * image) == 8
    assert image_workers((4096, 4096), 2, 100 * image) == 2
    assert image_workers((4096, 4096), 16, -5) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_alone_is_told_of(count, tmp_path):
    stack, angles = write_series(tmp_path, noise()[:count], ANGLES[:count])
    result = made(stack, angles, "--method", "fbp", "--thickness", 8)
    assert ("Warning: one image alone tells nothing of depth" in result.stderr) == (count == 1)
