"""What ``cryolithe reconstruct`` refuses: one line that says why, exit code 2, and nothing left behind."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors
import torch
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter
from tiny_series import (
    ANGLES,
    BEGUN,
    BEGUN_NETWORK,
    SHAPE,
    environment,
    made,
    noise,
    refused,
    run,
    voxels,
    write_model,
    write_series,
)

FBP = ("--method", "fbp", "--thickness", "8")


@dataclass(frozen=True)
class Place:
    """A folder with good inputs and an empty folder for the output."""

    folder: Path
    stack: Path
    angles: Path
    model: Path
    output: Path

    def arguments(self, *flags, stack=None, angles=None, output=None):
        return [stack or self.stack, angles or self.angles, "-o", output or self.output, *flags]

    def fbp(self, *flags, **files):
        return self.arguments(*FBP, *flags, **files)

    def network(self, model, *flags):
        return self.arguments("--model", model, "--thickness", 8, "--precision", "fp32", *flags)

    def images(self, images, angles=ANGLES):
        write_series(self.folder, images, angles)
        return self.fbp()

    def angle_text(self, text):
        self.angles.write_text(text)
        return self.fbp()

    def config(self, text):
        (self.folder / "s.yaml").write_text(text)
        return self.fbp("--config", self.folder / "s.yaml")


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def place(tmp_path, tiny_model):
    (tmp_path / "out").mkdir()
    stack, angles = write_series(tmp_path)
    model = Path(shutil.copy(tiny_model, tmp_path / "tiny.safetensors"))
    return Place(tmp_path, stack, angles, model, tmp_path / "out" / "v.mrc")


CASES = {}


def case(*fragments, before=()):
    """Register a function that spoils a place and returns the arguments; the line must hold the fragments."""

    def register(function):
        assert function.__name__ not in CASES
        CASES[function.__name__] = (function, fragments, before)
        return function

    return register


def with_pixel(value, tilts, pixels):
    images = noise()
    for tilt in tilts:
        images[tilt].flat[:pixels] = value
    return images


# The stack


@case("nowhere.mrc does not exist")
def stack_missing(place):
    return place.fbp(stack=place.folder / "nowhere.mrc")


@case("nowhere/ts.mrc does not exist")
def stack_in_a_missing_folder_with_the_default_output(place):
    return [place.folder / "nowhere" / "ts.mrc", place.angles, *FBP]


@case("is a folder")
def stack_is_a_folder(place):
    return place.fbp(stack=place.folder)


@case("ts.mrc is empty")
def stack_empty(place):
    place.stack.write_bytes(b"")
    return place.fbp()


@case("is not an MRC file")
def stack_is_text(place):
    place.stack.write_text("no images\n" * 500)
    return place.fbp()


@case("is not an MRC file")
def stack_and_angles_exchanged(place):
    return place.fbp(stack=place.angles, angles=place.stack)


@case("is not an angle file")
def angles_are_the_stack(place):
    return place.fbp(angles=place.stack)


@case("truncated", str(1024 + len(ANGLES) * SHAPE[0] * SHAPE[1] * 4))
def stack_truncated(place):
    os.truncate(place.stack, 5000)
    return place.fbp()


@case("truncated", "found 1024")
def stack_header_only(place):
    os.truncate(place.stack, 1024)
    return place.fbp()


@case("6 NaN or Inf pixels in tilts 3, 8;", "--fix-nonfinite")
def nan_pixels(place):
    return place.images(with_pixel(np.nan, (2, 7), 3))


@case("2 NaN or Inf pixels in tilt 1;", "--fix-nonfinite")
def inf_pixels(place):
    return place.images(with_pixel(np.inf, (0,), 2))


@case("tilt 4 holds no finite pixel")
def an_image_of_nan_even_when_fixed(place):
    place.images(with_pixel(np.nan, (3,), SHAPE[0] * SHAPE[1]))
    return place.fbp("--fix-nonfinite")


@case("ts.mrc: all 11 images are blank")
def constant_stack(place):
    return place.images(np.full((len(ANGLES), *SHAPE), 7, np.float32))


@case("tilt 6 of 11 is constant")
def constant_image(place):
    return place.images(with_pixel(0.0, (5,), SHAPE[0] * SHAPE[1]))


@case("holds 1 images", "holds 11 angles")
def image_without_a_third_axis(place):
    return place.images(noise()[0])


@case("complex", "mode 4")
def complex_stack(place):
    return place.images(noise().astype(np.complex64))


# The angles


@case("nowhere.tlt does not exist")
def angles_missing(place):
    return place.fbp(angles=place.folder / "nowhere.tlt")


@case("is a folder")
def angles_are_a_folder(place):
    return place.fbp(angles=place.folder)


@case("ts.tlt is empty")
def angles_empty(place):
    return place.angle_text("")


@case("holds no angle")
def angles_blank(place):
    return place.angle_text("\n# none\n")


@case("ts.tlt, line 2", "expected a tilt angle in degrees, found 'twenty'")
def angles_in_words(place):
    return place.angle_text("10\ntwenty\n")


@case("ts.tlt, line 1", "found 'nan'")
def angles_nan(place):
    return place.angle_text("nan\n" * len(ANGLES))


@case("ts.tlt, line 11", "±90°", "found '95'")
def angles_out_of_range(place):
    return place.angle_text("\n".join(map(str, [*ANGLES[:-1], 95])))


@case("all 11 tilt angles are 30°")
def angles_all_equal(place):
    return place.angle_text("30\n" * len(ANGLES))


@case("degrees (not radians)")
def angles_in_radians(place):
    return place.angle_text("".join(f"{a}\n" for a in np.deg2rad(ANGLES)))


@case("ts.mrc holds 11 images", "ts.tlt holds 10 angles")
def angles_too_few(place):
    return place.angle_text("".join(f"{a}\n" for a in ANGLES[1:]))


@case("ts.mrc holds 11 images", "ts.tlt holds 12 angles")
def angles_too_many(place):
    return place.angle_text("".join(f"{a}\n" for a in (*ANGLES, 60)))


# Numbers and names


@case("--thickness", "greater than or equal to 1", "got 0")
def thickness_zero(place):
    return place.arguments("--thickness", 0)


@case("--thickness", "got -5")
def thickness_negative(place):
    return place.arguments("--thickness=-5")


@case("--thickness", "'abc' is not a valid integer")
def thickness_in_words(place):
    return place.arguments("--thickness", "abc")


@case("--bin", "got 0")
def bin_zero(place):
    return place.fbp("--bin", 0)


@case("binning 40 pixels by 6 leaves 6", "smaller --bin")
def bin_too_large(place):
    return place.fbp("--bin", 6)


@case("binning 40 pixels by 1000 leaves 0")
def bin_larger_than_the_image(place):
    return place.fbp("--bin", 1000)


@case("--pixel-size", "greater than 0", "got 0")
def pixel_size_zero(place):
    return place.fbp("--pixel-size", 0)


@case("--pixel-size", "got -1")
def pixel_size_negative(place):
    return place.fbp("--pixel-size=-1")


@case("--pixel-size", "finite", "got inf")
def pixel_size_infinite(place):
    return place.fbp("--pixel-size", "inf")


@case("--tilt-axis", "got nan")
def tilt_axis_nan(place):
    return place.fbp("--tilt-axis", "nan")


@case("--max-memory", "finite", "got inf")
def max_memory_infinite(place):
    return place.fbp("--max-memory", "inf")


@case("0.01 GB of memory do not suffice", "8 x 40 x 48", "at least 0.", "raise --max-memory")
def max_memory_too_small(place):
    return place.fbp("--max-memory", 0.01)


@case("0.01 GB of memory do not suffice", "raise --max-memory")
def max_memory_too_small_for_a_network(place):
    return place.network(place.model, "--max-memory", 0.01)


@case("unknown device 'gpu'", "auto, cpu, cuda")
def device_unknown(place):
    return place.fbp("--device", "gpu")


@case("--precision", "'fp8'", "bf16")
def precision_unknown(place):
    return place.fbp("--precision", "fp8")


@case("--method", "'fpb'", "fbp")
def method_unknown(place):
    return place.arguments("--method", "fpb")


@case("--filter", "'hanning'", "hann")
def filter_unknown(place):
    return place.fbp("--filter", "hanning")


@case("--thicknes", "--thickness")
def flag_unknown(place):
    return place.arguments("--thicknes", 8)


@case("give TILTS and ANGLES, or a folder or list", "--help")
def no_arguments(place):
    return []


@case("give ANGLES, or an alignment that brings them (--aln, --star, --warp, --tilt-com)")
def only_the_stack(place):
    return [place.stack]


@case("unexpected extra argument")
def three_files(place):
    return [place.stack, place.angles, place.output]


@case("--config", "requires an argument")
def flag_without_a_value(place):
    return place.fbp("--config")


# The output


@case("v.mrc exists", "--overwrite")
def output_exists(place):
    place.output.write_bytes(b"precious")
    return place.fbp()


@case("v.json exists", "--overwrite")
def sidecar_exists(place):
    place.output.with_suffix(".json").write_bytes(b"precious")
    return place.fbp()


@case("the output folder", "missing does not exist")
def output_folder_missing(place):
    return place.fbp(output=place.folder / "missing" / "v.mrc")


@case("is a folder")
def output_is_a_folder(place):
    return place.fbp(output=place.output.parent)


@case("ts.mrc is an input of this run")
def output_is_the_stack(place):
    return place.fbp(output=place.stack)


@case("ts.mrc is an input of this run")
def output_is_the_stack_by_another_name(place):
    return place.fbp("--overwrite", output=place.folder / "out" / ".." / "ts.mrc")


@case("ts.tlt is an input of this run")
def output_is_the_angle_file(place):
    return place.fbp("--overwrite", output=place.angles)


@case("own sidecar", ".mrc")
def output_named_json(place):
    return place.fbp(output=place.output.with_suffix(".json"))


@case("cannot write into", "v.mrc.partial" if sys.platform == "win32" else "File exists")
def a_file_where_the_working_folder_would_be(place):
    Path(f"{place.output}.partial").write_text("mine")
    return place.fbp()


# Models


@case("model file", "nowhere.safetensors does not exist")
def model_missing(place):
    return place.network(place.folder / "nowhere.safetensors")


@case("corrupt or not a safetensors file")
def model_is_text(place):
    place.model.write_text("weights\n" * 100)
    return place.network(place.model)


@case("corrupt or not a safetensors file")
def model_is_empty(place):
    place.model.write_bytes(b"")
    return place.network(place.model)


@case("corrupt or not a safetensors file")
def model_is_a_pickle(place):
    place.model.write_bytes(pickle.dumps({"weight": [1.0] * 100}))
    return place.network(place.model)


@case("is a torch checkpoint (.pth)")
def model_is_a_torch_file(place):
    torch.save({"weight": torch.ones(3)}, place.model)
    return place.network(place.model)


@case("another program", "cryolithe-network")
def model_of_another_program(place):
    save_file({"weight": np.ones(3, np.float32)}, place.model)
    return place.network(place.model)


@case("corrupt or not a safetensors file")
def model_truncated(place):
    os.truncate(place.model, place.model.stat().st_size - 100)
    return place.network(place.model)


def _changed_model(place, change):
    with safetensors.safe_open(place.model, framework="np") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    save_file(tensors, place.model, metadata=metadata)
    return place.network(place.model)


@case("lacks the leaf 'lift.weight'")
def model_lacks_a_leaf(place):
    return _changed_model(place, lambda metadata, tensors: tensors.pop("lift.weight"))


@case("leaf 'lift.weight'", "has shape (3, 10)", "expected (8, 10)")
def model_leaf_of_another_shape(place):
    return _changed_model(place, lambda m, tensors: tensors.update({"lift.weight": np.ones((3, 10), np.float32)}))


@case("leaf 'lift.weight'", "not finite")
def model_leaf_not_finite(place):
    return _changed_model(place, lambda m, tensors: tensors["lift.weight"].fill(np.nan))


@case("format version 99", "reads version 1")
def model_of_a_later_version(place):
    return _changed_model(place, lambda metadata, tensors: metadata.update(version="99"))


@case("metadata", "corrupt")
def model_with_broken_metadata(place):
    return _changed_model(place, lambda metadata, tensors: metadata.update(config="{"))


@case("rows 0 to 39 of the result are not finite", "nothing was kept", before=BEGUN_NETWORK)
def network_that_overflows(place):
    write_model(place.model, gain=1e20)
    return place.network(place.model)


@case("too large for float16", "float32", before=BEGUN)
def values_too_large_for_half_precision(place):
    return [*place.images(1e7 * noise()), "--dtype", "float16"]


# Configuration and lists


@case("s.yaml: unknown setting 'thicknes' (did you mean 'thickness'?)")
def config_with_an_unknown_key(place):
    return place.config("thicknes: 8\n")


@case("nowhere.yaml does not exist")
def config_missing(place):
    return place.fbp("--config", place.folder / "nowhere.yaml")


@case("s.yaml is not valid YAML")
def config_no_yaml(place):
    return place.config("method: [fbp\n")


@case("s.yaml must hold 'key: value' lines, found a list")
def config_is_a_list(place):
    return place.config("- fbp\n")


@case("s.yaml: 'bin': ", "got 'two'")
def config_with_a_wrong_type(place):
    return place.config("bin: two\n")


def _listing(place, text):
    (place.folder / "list.csv").write_text(text)
    return ["--list", place.folder / "list.csv", *FBP]


@case("-o", "v.mrc: for several series, -o takes the folder of all volumes", "a column 'output'")
def list_with_an_output_that_is_no_folder(place):
    return [*_listing(place, "tilts,angles\nts.mrc,ts.tlt\n"), "-o", place.output]


@case("--watch", "--dry-run")
def watching_a_plan(place):
    return [place.folder, "--watch", "--dry-run"]


@case("--watch and --scheduler are for a folder or list")
def watching_one_series(place):
    return [place.stack, place.angles, "--watch"]


@case("--format ome-zarr needs a name ending in .zarr")
def format_against_the_name(place):
    return place.fbp("--format", "ome-zarr")


@case("--list", "TILTS")
def list_with_a_stack(place):
    return [place.stack, place.angles, *_listing(place, "tilts,angles\nts.mrc,ts.tlt\n")]


@case("nowhere.csv does not exist")
def list_missing(place):
    return ["--list", place.folder / "nowhere.csv"]


@case("no column 'angles'")
def list_without_a_column(place):
    return _listing(place, "tilts,angels\nts.mrc,ts.tlt\n")


@case("list.csv, line 3: 'bin': ", "got '0'")
def list_with_a_wrong_value(place):
    return _listing(place, "tilts,angles,bin\nts.mrc,ts.tlt,1\nts.mrc,ts.tlt,0\n")


@case("list.csv: lines 2 and 3 would both write", "ts_rec.mrc")
def list_with_the_same_output_twice(place):
    return _listing(place, "tilts,angles,bin\nts.mrc,ts.tlt,1\nts.mrc,ts.tlt,2\n")


@case("list.csv, line 2: unknown setting 'thicknes' (did you mean 'thickness'?)")
def list_with_an_unknown_column(place):
    return _listing(place, "tilts,angles,thicknes\nts.mrc,ts.tlt,8\n")


@case("list.csv is blank", "tilts, angles")
def list_that_is_blank(place):
    return _listing(place, "\n \n")


@case("list.csv names no tilt series")
def list_without_rows(place):
    return _listing(place, "tilts,angles\n")


@case("list.csv, line 2: expected 2 cells (tilts, angles), found 3", "double quotes")
def list_with_a_cell_too_many(place):
    return _listing(place, "tilts,angles\nts.mrc,ts.tlt,8\n")


@case("list.csv, line 2: the cell 'angles' is empty")
def list_with_neither_angles_nor_an_alignment(place):
    return _listing(place, "tilts,angles,aln\nts.mrc,,\n")


@case("list.csv", "found binary data")
def list_of_bytes(place):
    (place.folder / "list.csv").write_bytes(b"tilts,angles\n\x00\x01")
    return [place.folder / "list.csv"]


@case("list.csv: line 2 would write", "ts.tlt, an input of line 2")
def list_with_an_output_that_is_an_input(place):
    return _listing(place, "tilts,angles,output\nts.mrc,ts.tlt,ts.tlt\n")


@case("list.csv: line 3 would write", "ts.xf, an input of line 2")
def list_with_an_output_that_is_another_row_s_alignment(place):
    (place.folder / "ts.xf").write_text("1 0 0 1 0 0\n" * len(ANGLES))
    return _listing(place, "tilts,angles,xf,output\nts.mrc,ts.tlt,ts.xf,a.mrc\nts.mrc,ts.tlt,,ts.xf\n")


# Sessions


@case("holds no tilt series", "stacks and angle files of the same name")
def folder_without_series(place):
    return [place.output.parent]


@case("holds no tilt series", "1 stacks have no angle file (.tlt, .rawtlt, _TLT.txt) beside them")
def folder_with_a_stack_alone(place):
    place.angles.unlink()
    return [place.folder]


@case("ts.tlt is a file; for several series, -o takes a folder")
def folder_with_a_file_for_results(place):
    return [place.folder, "-o", place.angles, *FBP]


@case("--scheduler pbs: expected local, slurm or an address like tcp://host:8786")
def scheduler_unknown(place):
    return [place.folder, "--scheduler", "pbs", *FBP]


@case("--workers is for schedulers that are started here")
def workers_of_a_running_scheduler(place):
    return [place.folder, "--scheduler", "tcp://127.0.0.1:1", "--workers", 2]


@case("--workers is for --scheduler")
def workers_without_a_scheduler(place):
    return [place.folder, "--workers", 2]


@case("--idle is for --watch")
def idle_without_watching(place):
    return [place.folder, "--idle", 2]


@case("--watch goes with neither --dry-run nor --scheduler")
def watching_with_a_cluster(place):
    return [place.folder, "--watch", "--scheduler", "local"]


@case("--settle", "-1")
def settle_negative(place):
    return [place.folder, "--watch", "--settle", -1]


def _star(place, text):
    (place.folder / "tilt_series.star").write_text(text)
    return [place.folder / "tilt_series.star", *FBP]


@case("nowhere.star does not exist")
def star_missing(place):
    return [place.folder / "nowhere.star"]


@case("tilt_series.star is no table of tomograms", "rlnTomoName and rlnTomoTiltSeriesStarFile", "tomograms.star")
def star_of_particles(place):
    return _star(place, "data_particles\n\nloop_\n_rlnCoordinateX #1\n1.0\n")


@case("tilt_series.star is not a STAR file")
def star_of_words(place):
    return _star(place, "these are no columns\n")


@case("tilt_series.star is empty")
def star_empty(place):
    return _star(place, "")


@case("tilt_series.star: lines 1 and 2 would both write")
def star_with_a_series_twice(place):
    row = "ts ts.star ts.mrc\n"
    names = "_rlnTomoName #1\n_rlnTomoTiltSeriesStarFile #2\n_rlnTomoTiltSeriesName #3\n"
    return _star(place, f"data_global\n\nloop_\n{names}{row}{row}")


# Alignments: more of them in test_alignment_files.py


@case("nowhere.xf does not exist")
def transforms_missing(place):
    return place.fbp("--xf", place.folder / "nowhere.xf")


@case("is a folder")
def transforms_are_a_folder(place):
    return place.fbp("--xf", place.output.parent)


def _transforms(place, more=0):
    (place.folder / "ts.xf").write_text("1 0 0 1 0 0\n" * (len(ANGLES) + more))
    return place.folder / "ts.xf"


@case("ts.mrc holds 11 images but", "ts.xf is for 12")
def transforms_of_another_series(place):
    return place.fbp("--xf", _transforms(place, 1))


@case("ts_ali.mrc says that it is aligned already", "--xf would align it twice")
def transforms_of_an_aligned_stack(place):
    stack = place.stack.rename(place.folder / "ts_ali.mrc")
    return place.fbp("--xf", _transforms(place), stack=stack)


@case("--xf turns the tilt axis itself", "leave out --tilt-axis")
def transforms_with_a_tilt_axis(place):
    return place.fbp("--xf", _transforms(place), "--tilt-axis", 85)


@case("ts.xf is an input of this run")
def output_is_the_alignment(place):
    xf = _transforms(place)
    return place.fbp("--xf", xf, "--overwrite", output=xf)


@case("--aln and --star are alignments of different programs")
def alignments_of_two_programs(place):
    for name in ("a.aln", "a.star"):
        (place.folder / name).write_text("data_ts\n\nloop_\n_rlnTomoYTilt #1\n0\n")
    return place.fbp("--aln", place.folder / "a.aln", "--star", place.folder / "a.star")


@case("ts.star is no angle file", "--star")
def angles_are_a_star_file(place):
    (place.folder / "ts.star").write_text("data_ts\n\nloop_\n_rlnTomoYTilt #1\n0\n")
    return place.fbp(angles=place.folder / "ts.star")


@case("is an AreTomo alignment")
def angles_are_an_aretomo_alignment(place):
    return place.angle_text("# AreTomo Alignment / Priims bprmMn\n")


@case("ts.mrc.mdoc", "TiltAngle")
def angles_are_an_mdoc_without_any(place):
    (place.folder / "ts.mrc.mdoc").write_text("[ZValue = 0]\nStagePosition = 1 2\n")
    return place.fbp(angles=place.folder / "ts.mrc.mdoc")


@case("--centre", "'middle'", "'relion'")
def centre_unknown(place):
    return place.fbp("--centre", "middle")


@case("--handedness", "'left'", "aretomo")
def handedness_unknown(place):
    return place.fbp("--handedness", "left")


# Halves


def _halves(place):
    specimen = 5 * gaussian_filter(noise(), (0, 1.5, 1.5))
    place.images(specimen + np.roll(noise(), 1, axis=0))
    odd = place.stack.rename(place.folder / "ts_ODD.mrc")
    place.images(specimen + np.roll(noise(), 2, axis=0))
    even = place.stack.rename(place.folder / "ts_EVN.mrc")
    return even, odd


@case("--even needs --odd too")
def one_half(place):
    return ["--even", place.stack, place.angles]


@case("ts_EVN.mrc and", "are the same images", "the two halves")
def the_same_half_twice(place):
    even, _ = _halves(place)
    return ["--even", even, "--odd", even, place.angles, *FBP]


@case("ts_EVN.mrc holds 11 x 40 x 48 pixels", "ts_ODD.mrc 11 x 40 x 40", "the halves of one series")
def halves_of_two_sizes(place):
    even, odd = _halves(place)
    place.images(noise()[:, :, :40])
    place.stack.replace(odd)
    return ["--even", even, "--odd", odd, place.angles, *FBP]


@case("--even and --odd stand for TILTS", "ANGLES alone")
def halves_with_a_stack(place):
    return ["--even", place.stack, "--odd", place.stack, place.stack, place.angles]


@case("--list names the stacks itself", "halves")
def halves_with_a_list(place):
    return ["--even", place.stack, "--odd", place.stack, *_listing(place, "tilts,angles\nts.mrc,ts.tlt\n")]


@case("ts_EVN.mrc and", "are the same images")
def the_same_pixels_under_another_header(place):
    even, odd = _halves(place)
    content = bytearray(even.read_bytes())
    content[224:260] = b"written by another program".ljust(36)
    odd.write_bytes(content)
    return ["--even", even, "--odd", odd, place.angles, *FBP]


@case("ts_EVN.mrc has pixels of 5 Å", "ts_ODD.mrc of 10 Å", "--pixel-size")
def halves_of_two_pixel_sizes(place):
    even, odd = _halves(place)
    write_series(place.folder, np.roll(noise(), 7, axis=2), name=odd.stem, pixel_size=10.0)
    return ["--even", even, "--odd", odd, place.angles, *FBP]


@case("ts_EVN.mrc has pixels of 5 Å", "ts.mrc of 20 Å", "--pixel-size")
def halves_of_a_stack_with_other_pixels(place):
    even, odd = _halves(place)
    write_series(place.folder, noise(), pixel_size=20.0)
    return [place.stack, place.angles, "--even", even, "--odd", odd, "--denoise", "n2n", *FBP]


@case("ts_EVN.mrc and", "are of opposite contrast", "-1.00", "invert one of them")
def halves_of_opposite_contrast(place):
    even, odd = _halves(place)
    write_series(place.folder, 0.1 - 2 * noise(), name=even.stem)
    write_series(place.folder, noise(), name=odd.stem)
    return ["--even", even, "--odd", odd, place.angles, *FBP]


@case("--confidence is for one stack", "leave it out")
def halves_with_maps_of_a_network(place):
    even, odd = _halves(place)
    return ["--even", even, "--odd", odd, place.angles, "--confidence"]


@case("--format ome-zarr is for one stack", "MRC only", "leave --format out")
def halves_in_another_format(place):
    even, odd = _halves(place)
    return ["--even", even, "--odd", odd, place.angles, "--format", "ome-zarr", *FBP]


@case("v.zarr: halves are written as MRC only; give a name ending in .mrc")
def halves_as_zarr(place):
    even, odd = _halves(place)
    return ["--even", even, "--odd", odd, place.angles, "-o", place.output.with_suffix(".zarr"), *FBP]


@case("v_confidence.mrc exists", "--overwrite")
def halves_whose_map_exists(place):
    even, odd = _halves(place)
    (place.output.parent / "v_confidence.mrc").write_bytes(b"precious")
    return ["--even", even, "--odd", odd, place.angles, "-o", place.output, *FBP]


@case("--denoise takes one volume", "cryolithe denoise")
def halves_to_be_denoised(place):
    even, odd = _halves(place)
    return ["--even", even, "--odd", odd, place.angles, "--denoise", "samba", *FBP]


@case("--denoise-minutes goes with --denoise samba")
def minutes_of_no_denoiser(place):
    return place.fbp("--denoise-minutes", 3)


# Outputs of other kinds


@case("v.zarr: --format mrc needs a name ending in .mrc (or give --format ome-zarr)")
def name_of_another_format(place):
    return place.fbp(output=place.output.with_suffix(".zarr"))


@case("volumes are written uncompressed", ".mrc")
def output_named_gz(place):
    return place.fbp(output=place.output.with_suffix(".mrc.gz"))


@case("--orientation xzy is for MRC files")
def axes_of_imod_in_zarr(place):
    return place.fbp("--format", "ome-zarr", "--orientation", "xzy", output=place.output.with_suffix(".zarr"))


@case("v.zarr is a folder")
def a_folder_where_the_zarr_would_be(place):
    place.output.with_suffix(".zarr").mkdir()
    return place.fbp("--format", "ome-zarr", "--overwrite", output=place.output.with_suffix(".zarr"))


@case("--orientation", "'zyx'", "'xyz', 'xzy'")
def orientation_unknown(place):
    return place.fbp("--orientation", "zyx")


@case("--dtype", "'int16'", "int8")
def dtype_unknown(place):
    return place.fbp("--dtype", "int16")


@case("v.json exists and is no record of v.mrc", "not even with --overwrite")
def sidecar_of_something_else_with_overwrite(place):
    place.output.with_suffix(".json").write_text("{}")
    return place.fbp("--overwrite")


@case("v.mrc.partial is a link; links are not followed")
def a_link_where_the_working_folder_would_be(place):
    Path(f"{place.output}.partial").symlink_to(place.folder)
    return place.fbp()


@case("v.png is an input of this run")
def the_preview_is_the_stack(place):
    stack = place.stack.rename(place.output.with_suffix(".png"))
    return place.fbp("--preview", stack=stack)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_refused(name, place):
    spoil, fragments, before = CASES[name]
    refused(place.folder, spoil(place), *fragments, before=before)


# What only the pixels, or the voxels made of them, tell.
IN_PIXELS = {
    "nan_pixels",
    "inf_pixels",
    "an_image_of_nan_even_when_fixed",
    "constant_stack",
    "constant_image",
    "network_that_overflows",
    "values_too_large_for_half_precision",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "watching_one_series"])  # never dry
def test_a_dry_run_refuses_what_it_can_see(name, place):
    spoil, fragments, _ = CASES[name]
    result = run("--dry-run", *spoil(place))
    if name in IN_PIXELS:
        assert result.exit_code == 0, result.output
        return
    assert result.exit_code == 2, result.output
    last = result.stderr.splitlines()[-1]
    assert all(fragment in last for fragment in fragments), last


# What needs more than a spoilt file


def test_the_inputs_of_the_cases_are_good(place):
    made(*place.fbp())
    assert voxels(place.output).shape == (8, *SHAPE)
    made(*place.network(place.model, "--overwrite"))


def test_a_failing_run_with_overwrite_keeps_the_old_volume(place):
    made(*place.network(place.model))
    write_model(place.model, gain=1e20)
    refused(place.folder, place.network(place.model, "--overwrite"), "not finite", before=BEGUN_NETWORK)


def test_unknown_model_names_the_nearest(place, monkeypatch):
    (place.folder / "bundled").mkdir()
    place.model.rename(place.folder / "bundled" / "default.safetensors")
    monkeypatch.setattr("cryolithe.models.BUNDLED", place.folder / "bundled")
    refused(place.folder, place.network("defualt"), "unknown model 'defualt' (did you mean 'default'?)")
    made(*place.network("default"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_where_there_is_none(device, place):
    line = refused(place.folder, place.fbp("--device", device), f"--device {device}: ", "use --device cpu")
    assert any(reason in line for reason in ("without CUDA", "no NVIDIA driver", "no usable GPU"))


def test_tomosipo_where_it_is_not_installed(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomosipo", None)
    refused(place.folder, place.fbp("--projector", "tomosipo"), "tomosipo")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_folder_that_cannot_be_written(place):
    refused(place.folder, place.fbp(output=Path("/proc/v.mrc")), "/proc")
    assert not Path("/proc/v.mrc.partial").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(place):
    place.output.parent.chmod(0o500)
    try:
        refused(place.folder, place.fbp(), "not writable")
    finally:
        place.output.parent.chmod(0o700)


# A full disk


def full_disk_after(calls, function):
    """Return a stand-in for a function of the system that works so often and then finds the disk full."""
    state = SimpleNamespace(left=calls)

    def call(*arguments):
        if state.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        state.left -= 1
        return function(*arguments)

    return call


@pytest.mark.parametrize(
    ("name", "calls", "before"),
    [
        pytest.param("posix_fallocate", 0, (), marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux only")),
        ("pwrite", 0, ()),  # the header of the unfinished volume
        ("pwrite", 1, BEGUN),  # the prepared stack, its first image
        ("pwrite", 6, BEGUN),
        ("pwrite", 1 + len(ANGLES), BEGUN),  # the first section of the volume
        ("truncate", 0, ()),  # the unfinished volume
        ("truncate", 1, BEGUN),  # the prepared stack
        ("fsync", 0, ()),  # the journal's plan
        ("fsync", 1, BEGUN),  # its first slab
        ("fdatasync", 0, BEGUN),
    ],
)
def test_full_disk(name, calls, before, place, monkeypatch):
    monkeypatch.setattr(os, name, full_disk_after(calls, getattr(os, name)))
    refused(place.folder, place.fbp(), "No space left on device", before=before)


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("pwrite", 1 + len(ANGLES) + 8),  # the final header
        ("fsync", 2),  # the volume
        ("fsync", 3),  # the sidecar
    ],
)
def test_a_disk_that_is_full_at_the_end_costs_no_slab(name, calls, place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, full_disk_after(calls, getattr(os, name)))
        result = run(*place.fbp())
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert "No space left on device" in last
    assert "1 finished slab is kept" in last
    assert not place.output.exists()
    assert "1 slabs are done" in made(*place.fbp()).stderr


def test_disk_that_is_known_to_be_too_full(place, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=10**9, used=10**9 - 5000, free=5000))
    needed = 1024 + 8 * SHAPE[0] * SHAPE[1] * 4
    refused(place.folder, place.fbp(), f"needs {needed} bytes", "5000 are free", "-o")


def test_an_image_of_the_prepared_stack_that_is_cut_short(place, monkeypatch):
    pwrite, calls = os.pwrite, []

    def half(descriptor, data, offset):
        calls.append(offset)
        return pwrite(descriptor, data if len(calls) < 6 else bytes(data)[: len(data) // 2], offset)

    monkeypatch.setattr(os, "pwrite", half)
    refused(place.folder, place.fbp(), "temporary stack", "No space left on device", before=BEGUN)


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a file system of a few kilobytes."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount")
    mounted = []

    def mount(kilobytes):
        folder = tmp_path / "small"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


# The volume needs 62 kB, the prepared stack 85 kB.
@pytest.mark.parametrize(("kilobytes", "before"), [(32, ()), (64, ()), (100, BEGUN), (144, BEGUN)])
def test_real_full_disk(kilobytes, before, place, small_disk):
    folder = small_disk(kilobytes)
    refused(place.folder, place.fbp(output=folder / "v.mrc"), "No space left on device", before=before)


# Errors that nobody foresaw


def test_memory_that_runs_out_is_told(place, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("cryolithe.reconstruction.slabwise.methods.FbpMethod.__call__", fail)
    refused(place.folder, place.fbp(), "memory ran out", "--max-memory", before=BEGUN)


def test_a_network_uses_smaller_batches_when_memory_runs_out(place, monkeypatch):
    made(*place.network(place.model, "--overwrite"))
    expected = voxels(place.output)
    from cryolithe.reconstruction.slabwise.methods import NetworkMethod

    whole = NetworkMethod.__call__

    def fail_at_first(self, rows):
        if self.compute.batch().points > 300:
            raise MemoryError
        return whole(self, rows)

    monkeypatch.setattr(NetworkMethod, "__call__", fail_at_first)
    result = made(*place.network(place.model, "--overwrite"))
    assert "batches of 256 points" in result.stderr
    np.testing.assert_allclose(voxels(place.output), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FbpMethod", "SirtMethod", "NetworkMethod"])
def test_fewer_rows_are_made_at_a_time_when_memory_runs_out(name, place, monkeypatch):
    """However small the batches of a network are."""
    from cryolithe.reconstruction.slabwise import methods

    more = {"SirtMethod": ("--method", "sirt", "--iterations", "3"), "FbpMethod": ("--method", "fbp")}
    command = place.network(place.model, "--overwrite")
    if name in more:
        command = place.arguments("--thickness", 8, "--overwrite", *more[name])
    made(*command)
    expected = voxels(place.output)
    kind = getattr(methods, name)
    whole, heights = kind.__call__, []

    def fail_at_many_rows(self, rows):
        height = rows.shape[1] - 2 * self.halo_px
        if height > 10:
            raise MemoryError
        heights.append(height)
        return whole(self, rows)

    monkeypatch.setattr(kind, "__call__", fail_at_many_rows)
    result = made(*command)
    assert f"going on with {max(heights)} rows at a time" in result.stderr
    assert sum(heights) >= expected.shape[1]
    np.testing.assert_allclose(voxels(place.output), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_result_that_cannot_be_moved(place):
    replace = Path.replace

    def fail(self, target):
        if Path(target) == place.output:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        result = run(*place.fbp())
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"Error: cannot move the result to {place.output}: Permission denied; 1 finished slab is")
    assert not place.output.exists()
    made(*place.fbp())


@pytest.mark.slow
def test_no_traceback_from_a_real_process(place):
    command = [sys.executable, "-m", "cryolithe", "reconstruct", *map(str, place.images(with_pixel(np.nan, (2,), 3)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {place.stack} holds 3 NaN or Inf pixels in tilt 3;")
    assert done.stderr.count("\n") == 1
    assert list(place.output.parent.iterdir()) == []
