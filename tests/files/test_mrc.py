"""MRC files: round trips, agreement with mrcfile, and no bad file that gets through."""

import bz2
import errno
import gzip
import io
import os
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from command import call, refusal_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mrcfile.dtypes import HEADER_DTYPE
from shared_data import SHARED, needs_shared

from cryolithe.errors import CryoLitheError, FileFormatError, GeometryError, InputError, OutputError
from cryolithe.formats import (
    RunningStatistics,
    VolumeStatistics,
    VolumeWriter,
    read_mrc,
    read_tilt_series,
    read_volume,
    write_stack,
    write_volume,
)
from cryolithe.formats.stacks.mrc import stack_shape
from cryolithe.volume import Volume

DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
SHAPES = [(1, 1, 1), (3, 4, 5), (4, 6, 8)]


def numbers(shape, dtype="f4", seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 20 + 50).astype(dtype)


def mrc_bytes(data, mode, order="<", extended=b"", **fields):
    """An MRC file as another program would write it; keyword arguments overwrite header fields."""
    header = np.zeros(1, HEADER_DTYPE.newbyteorder(order))
    nz, ny, nx = data.shape
    values = {"nx": nx, "ny": ny, "nz": nz, "mx": nx, "my": ny, "mz": nz, "mode": mode, "mapc": 1, "mapr": 2, "maps": 3}
    values |= {"cella": (nx * 2.0, ny * 2.0, nz * 2.0), "ispg": 1, "map": b"MAP ", "nsymbt": len(extended)}
    values |= {"machst": (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)}
    for name, value in (values | fields).items():
        header[0][name] = value
    stored = data.astype(np.dtype(DTYPES.get(mode, "i1")).newbyteorder(order))
    return header.tobytes() + extended + stored.tobytes()


def is_valid(path):
    report = io.StringIO()
    return mrcfile.validate(str(path), print_file=report) or report.getvalue()


@pytest.fixture
def put(tmp_path):
    def write(content, name="file.mrc"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


# Reading


@pytest.mark.parametrize("mode", DTYPES)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("shape", SHAPES)
def test_values_of_all_modes_and_byte_orders(put, mode, order, shape):
    data = numbers(shape, DTYPES[mode])
    path = put(mrc_bytes(data, mode, order, extended=b"x" * 7))
    mrc = read_mrc(path)
    np.testing.assert_array_equal(mrc.data, data)
    assert (mrc.mode, mrc.ispg, mrc.mz, mrc.extended_header_bytes) == (mode, 1, shape[0], 7)
    assert mrc.byte_order == {"<": "little-endian", ">": "big-endian"}[order]
    assert mrc.voxel_size_angstrom == 2
    assert mrc.notes == ()
    assert not mrc.data.flags.writeable


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("mode", DTYPES)
def test_byte_order_is_found_without_stamps(put, order, mode):
    data = numbers((3, 4, 5), DTYPES[mode])
    mrc = read_mrc(put(mrc_bytes(data, mode, order, map=b"", machst=(0, 0, 0, 0))))
    np.testing.assert_array_equal(mrc.data, data)
    assert mrc.notes[0] == "no MAP stamp"
    assert "no machine stamp" in mrc.notes[1]


def test_wrong_machine_stamp_is_noted(put):
    data = numbers((3, 4, 5))
    mrc = read_mrc(put(mrc_bytes(data, 2, ">", machst=(0x44, 0x44, 0, 0))))
    np.testing.assert_array_equal(mrc.data, data)
    assert mrc.notes == ("the machine stamp is wrong, big-endian assumed from sizes",)


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 1, 2), (2, 1, 3), (3, 2, 1)])
def test_axis_numbers_are_obeyed(put, axes):
    data = numbers((3, 4, 5))  # z, y, x
    stored = data.transpose([3 - axis for axis in axes[::-1]])
    content = mrc_bytes(stored, 2, mapc=axes[0], mapr=axes[1], maps=axes[2], mx=5, my=4, mz=3, cella=(10, 8, 6))
    np.testing.assert_array_equal(read_mrc(put(content)).data, data)


@pytest.mark.parametrize("module", [gzip, bz2])
def test_compressed_files(put, module):
    data = numbers((3, 4, 5))
    mrc = read_mrc(put(module.compress(mrc_bytes(data, 2) + b"tail")))
    np.testing.assert_array_equal(mrc.data, data)
    assert not mrc.data.flags.writeable
    assert "4 bytes longer" in mrc.notes[0]


@pytest.mark.parametrize(("flags", "dtype"), [(0, "uint8"), (1, "int8"), (2, "uint8")])
@pytest.mark.parametrize("order", "<>")
def test_imod_bytes(put, flags, dtype, order):
    stamp = np.array([1146047817, flags], f"{order}i4").tobytes()
    content = bytearray(mrc_bytes(np.full((2, 3, 4), -56), 0, order))
    content[152:160] = stamp
    mrc = read_mrc(put(bytes(content)))
    assert mrc.data.dtype == dtype
    assert (mrc.data == (-56 if dtype == "int8" else 200)).all()
    assert bool(mrc.notes) == (dtype == "uint8")


@pytest.mark.parametrize("cell", [(0, 0, 0), (np.nan, 1, 1), (-4, 1, 1), (np.inf, 1, 1)])
def test_unknown_pixel_size_is_none(put, cell):
    assert read_mrc(put(mrc_bytes(numbers((2, 3, 4)), 2, cella=cell))).voxel_size_angstrom is None


def test_unequal_pixel_sizes_are_exposed(put):
    mrc = read_mrc(put(mrc_bytes(numbers((2, 4, 5)), 2, cella=(5, 8, 6))))
    assert mrc.voxel_size_angstrom == 1
    assert mrc.voxel_sizes_angstrom == (3, 2, 1)
    assert "pixel sizes differ" in mrc.notes[0]


GOOD = mrc_bytes(numbers((3, 4, 5)), 2)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"MRC", "expected at least a header of 1024 bytes, found 3 bytes"),
        (GOOD[:-1], "is truncated: its header promises 1264 bytes, found 1263"),
        (GOOD[:1024], "is truncated"),
        (mrc_bytes(numbers((3, 4, 5)), 2, nx=0), "is damaged"),
        (mrc_bytes(numbers((3, 4, 5)), 2, nx=2**31 - 1, ny=2**31 - 1, nz=2**31 - 1), "is damaged"),
        (mrc_bytes(numbers((3, 4, 5)), 2, nx=2**20, ny=2**20, nz=2**20), "is truncated"),
        (mrc_bytes(numbers((3, 4, 5)), 2, nsymbt=2**31 - 1), "is truncated"),
        (mrc_bytes(numbers((3, 4, 5)), 2, nsymbt=-1), "is damaged"),
        (mrc_bytes(numbers((3, 4, 5)), 7), "mode 7"),
        (mrc_bytes(numbers((3, 4, 5)), 3), "complex 16-bit integers"),
        (mrc_bytes(numbers((3, 4, 5)), 4), "complex 32-bit floats"),
        (mrc_bytes(numbers((3, 4, 5)), 101), "4-bit integers"),
        (mrc_bytes(numbers((4, 4, 5)), 2, ispg=401, mz=2), "stack of volumes"),
        (b"Some text that goes on. " * 100, "is not an MRC file"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)) * 9, "is not an MRC file"),
        (b"II*\x00\x08\x00\x00\x00" + bytes(5000), "is a TIFF file"),
        (bytes(5000), "is not an MRC file"),
        (gzip.compress(b"text " * 5000, mtime=0), "is not an MRC file"),
        (gzip.compress(GOOD, mtime=0)[:-20], "cannot be decompressed"),
        (gzip.compress(GOOD[:-4], mtime=0), "is truncated"),
        (b"BZh9 but no such thing" * 60, "cannot be "),
    ],
)
def test_bad_files_are_refused_in_one_line(put, content, says):
    path = put(content)
    with pytest.raises(InputError) as caught:
        read_mrc(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("flags", [16, 17, 16 + 32])
def test_two_pixels_in_a_byte_are_refused_where_imod_says_so(put, flags, order):
    """As mode 101 is; without IMOD's stamp the same word may be anything."""
    content = bytearray(mrc_bytes(numbers((3, 4, 5), "i1"), 0, order))
    content[156:160] = np.array([flags], f"{order}i4").tobytes()
    assert read_mrc(put(bytes(content), "other.mrc")).data.shape == (3, 4, 5)
    content[152:156] = np.array([1146047817], f"{order}i4").tobytes()
    path = put(bytes(content))
    with pytest.raises(InputError, match=r"4-bit integers .*IMOD's flag 16.*; convert it"):
        read_mrc(path)
    assert stack_shape(path) is None
    assert "4-bit integers" in refusal_of(call("info", path))


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_mrc(tmp_path / "none.mrc")
    with pytest.raises(InputError, match="is a folder"):
        read_mrc(tmp_path)
    with pytest.raises(InputError, match="not a regular file"):
        read_mrc("/dev/zero")


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_headers_never_do_anything_else(tmp_path_factory, data):
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.sampled_from([*range(0, 56, 4), 64, 68, 72, 88, 92, 152, 156, 196, 208, 212, 220]))
        content[place : place + 4] = data.draw(st.binary(min_size=4, max_size=4))
    content = content[: data.draw(st.sampled_from([len(GOOD), 1100, 1024, 500]))]
    path = tmp_path_factory.getbasetemp() / "fuzz.mrc"
    path.write_bytes(bytes(content))
    try:
        mrc = read_mrc(path)
    except CryoLitheError:
        return
    else:
        assert mrc.data.ndim == 3
        assert mrc.data.nbytes <= len(content)
        assert mrc.voxel_size_angstrom is None or 0 < mrc.voxel_size_angstrom < np.inf


# Tilt series


def test_tilt_series(put):
    stack = put(mrc_bytes(numbers((3, 4, 5)), 2), "tilts.mrc")
    angles = put(b"-10\n0\n10\n", "tilts.tlt")
    series = read_tilt_series(stack, angles)
    assert series.pixel_size_angstrom == 2
    assert series.geometry.angles_deg == (-10, 0, 10)
    assert series.geometry.image_shape == (4, 5)
    assert read_tilt_series(stack, angles, 3.5).pixel_size_angstrom == 3.5


def test_counts_of_images_and_angles_must_agree(put):
    stack = put(mrc_bytes(numbers((3, 4, 5)), 2), "tilts.mrc")
    angles = put(b"-10\n10\n", "tilts.tlt")
    with pytest.raises(InputError) as caught:
        read_tilt_series(stack, angles)
    assert "holds 3 images" in str(caught.value)
    assert "holds 2 angles" in str(caught.value)
    assert str(stack) in str(caught.value)
    assert str(angles) in str(caught.value)


# Writing


@pytest.mark.parametrize("dtype", ["f4", "f2"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("voxel_size", [None, 13.48])
def test_volume_round_trip_and_validity(tmp_path, dtype, shape, voxel_size):
    path = tmp_path / "v.mrc"
    voxels = numbers(shape) / 32  # small, for mrcfile sums float16 in float16
    write_volume(path, Volume(voxels, voxel_size, (1, 2, 3)), label="CryoLithe test", dtype=dtype)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.voxels, voxels.astype(dtype))
    assert volume.voxel_size_angstrom == voxel_size
    assert volume.origin_angstrom == (1, 2, 3)
    assert is_valid(path) is True
    with mrcfile.open(path) as mrc:
        assert mrc.is_volume()
        assert mrc.get_labels() == ["CryoLithe test".ljust(80)]
        assert (mrc.header.ispg, mrc.header.mz, mrc.header.nversion) == (1, shape[0], 20141)
        assert mrc.header.dmean == pytest.approx(voxels.astype(dtype).mean(dtype="f8"), rel=1e-6)
        assert float(mrc.voxel_size.z) == pytest.approx(voxel_size or 0)


@pytest.mark.parametrize("dtype", ["f4", "f2"])
@pytest.mark.parametrize("order", [(0, 3, 6), (6, 0, 3), (3, 6, 0)])
def test_rows_in_any_order_give_the_same_bytes(tmp_path, dtype, order):
    voxels = numbers((5, 7, 6))
    write_volume(tmp_path / "whole.mrc", Volume(voxels, 2.5), label="same", dtype=dtype)
    path = tmp_path / "rows.mrc"
    with VolumeWriter.create(path, voxels.shape, 2.5, dtype) as writer:
        writer.write_rows(order[0], voxels[:, order[0] : order[0] + 3])
        writer.sync()
    with VolumeWriter.open(path, voxels.shape, dtype) as writer:  # after an interruption
        for y0 in order[1:]:
            writer.write_rows(y0, voxels[:, y0 : y0 + 3])
        running = RunningStatistics()
        for plane in voxels.astype(dtype):
            running.add(plane)
        writer.finish(running.result(), "same", 2.5)
    assert path.read_bytes() == (tmp_path / "whole.mrc").read_bytes()


def test_unfinished_volume_says_so(tmp_path):
    path = tmp_path / "v.mrc"
    VolumeWriter.create(path, (2, 3, 4), None, "f4").close()
    assert read_mrc(path).labels == ("CryoLithe: unfinished",)
    assert path.stat().st_size == 1024 + 2 * 3 * 4 * 4


@pytest.mark.parametrize(("shape", "dtype"), [((2, 3, 5), "f4"), ((2, 4, 3), "f4"), ((2, 3, 4), "f2")])
def test_going_on_with_another_volume_is_refused(tmp_path, shape, dtype):
    path = tmp_path / "v.mrc"
    VolumeWriter.create(path, (2, 3, 4), None, "f4").close()
    with pytest.raises(OutputError, match="not the unfinished volume"):
        VolumeWriter.open(path, shape, dtype)
    with pytest.raises(OutputError, match="cannot be written"):
        VolumeWriter.open(tmp_path / "none.mrc", shape, dtype)


@pytest.mark.parametrize(
    ("y0", "shape"), [(-1, (2, 1, 4)), (3, (2, 1, 4)), (0, (1, 3, 4)), (0, (2, 3, 5)), (0, (3, 4))]
)
def test_slabs_that_do_not_fit_are_refused(tmp_path, y0, shape):
    with VolumeWriter.create(tmp_path / "v.mrc", (2, 3, 4), None, "f4") as writer, pytest.raises(GeometryError):
        writer.write_rows(y0, np.zeros(shape, "f4"))


def test_float16_overflow_is_an_error_and_leaves_no_file(tmp_path):
    voxels = np.full((2, 3, 4), 7e4, "f4")
    with pytest.raises(OutputError, match=r"too large for float16 .* write float32") as caught:
        write_volume(tmp_path / "v.mrc", Volume(voxels), label="x", dtype=np.float16)
    assert str(caught.value).startswith(f"{tmp_path / 'v.mrc'}: ")
    with pytest.raises(OutputError, match="float32 values cannot be written as int16"):
        write_volume(tmp_path / "v.mrc", Volume(voxels), label="x", dtype=np.int16)
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_kept_unless_told(tmp_path):
    path = tmp_path / "v.mrc"
    path.write_text("precious")
    volume = Volume(numbers((2, 3, 4)))
    with pytest.raises(OutputError, match=r"exists; give --overwrite to replace it or another name with -o"):
        write_volume(path, volume, label="x")
    assert path.read_text() == "precious"
    write_volume(path, volume, label="x", overwrite=True)
    write_volume(path, read_volume(path), label="y", overwrite=True)  # onto the file that is being read
    np.testing.assert_array_equal(read_volume(path).voxels, volume.voxels)
    assert [p.name for p in tmp_path.iterdir()] == ["v.mrc"]


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        write_volume(tmp_path / "no" / "v.mrc", Volume(numbers((2, 3, 4))), label="x")


def test_too_large_for_the_disk_is_found_at_once(tmp_path):
    path = tmp_path / "v.mrc"
    with pytest.raises(OutputError, match=r"needs \d+ bytes, \d+ are free"):
        VolumeWriter.create(path, (100_000, 100_000, 100_000), 1.0, "f4")
    assert not path.exists()


def test_disk_that_fills_up_while_writing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with VolumeWriter.create(tmp_path / "v.mrc", (2, 3, 4), 1.0, "f4") as writer:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OutputError, match="are free"):
            writer.write_rows(0, np.zeros((2, 3, 4), "f4"))


def test_partial_writes_are_continued(tmp_path, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, rest, offset: pwrite(fd, bytes(rest)[:7], offset))
    voxels = numbers((2, 3, 4))
    write_volume(tmp_path / "v.mrc", Volume(voxels), label="x")
    np.testing.assert_array_equal(read_volume(tmp_path / "v.mrc").voxels, voxels)


def test_statistics_that_are_no_numbers_are_marked(tmp_path):
    path = tmp_path / "v.mrc"
    voxels = numbers((2, 3, 4))
    voxels[1, 1, 1] = np.nan
    write_volume(path, Volume(voxels), label="Å\nx" * 90)
    assert is_valid(path) is True
    with mrcfile.open(path) as mrc:
        assert mrc.header.dmax < mrc.header.dmin
        assert len(mrc.get_labels()[0]) <= 80


@pytest.mark.parametrize(
    ("dtype", "mode"),
    [
        *[("i1", 0), ("i2", 1), ("u1", 6), ("u2", 6), ("f2", 12), ("f4", 2), ("?", 0)],
        *[("f8", 2), ("i4", 6), ("i8", 6), (">i2", 1), (">f4", 2)],
    ],
)
def test_stack_keeps_integers(tmp_path, dtype, mode):
    path = tmp_path / "s.mrc"
    images = numbers((3, 4, 5)).clip(0, 100).astype(dtype)
    write_stack(path, images, 3.0, "stack")
    mrc = read_mrc(path)
    assert (mrc.mode, mrc.ispg, mrc.mz) == (mode, 0, 1)
    np.testing.assert_array_equal(mrc.data, images.astype("f4") if dtype == "f8" else images)
    assert mrc.voxel_sizes_angstrom == (3, 3, 3)
    assert is_valid(path) is True
    with mrcfile.open(path) as opened:
        assert opened.is_image_stack()


@pytest.mark.parametrize(("low", "high", "mode"), [(-5, 9, 1), (0, 60000, 6), (-5, 60000, 2)])
def test_wide_integers_take_the_type_that_holds_them(tmp_path, low, high, mode):
    images = np.array([low, high] * 6, np.int64).reshape(2, 2, 3)
    write_stack(tmp_path / "s.mrc", images, None, "stack")
    mrc = read_mrc(tmp_path / "s.mrc")
    np.testing.assert_array_equal(mrc.data, images)
    assert mrc.mode == mode
    assert mrc.voxel_size_angstrom is None


def test_stack_refuses_what_is_no_stack(tmp_path):
    with pytest.raises(GeometryError):
        write_stack(tmp_path / "s.mrc", np.zeros((3, 4)), 1.0, "x")
    with pytest.raises(OutputError, match="real numbers"):
        write_stack(tmp_path / "s.mrc", np.zeros((3, 4, 5), complex), 1.0, "x")
    with pytest.raises(OutputError, match="MRC files hold"):
        VolumeWriter.create(tmp_path / "s.mrc", (3, 4, 5), 1.0, "f8")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=5), min_size=1, max_size=5))
def test_running_statistics_equal_those_of_the_whole(parts):
    running = RunningStatistics()
    for part in parts:
        running.add(np.array(part))
    whole = np.concatenate([np.array(part) for part in parts])
    found = running.result()
    if whole.size == 0:
        assert np.isnan(found.mean)
        return
    expected = VolumeStatistics(whole.min(), whole.max(), whole.mean(), whole.std())
    for name in ("minimum", "maximum", "mean", "rms"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9, abs=1e-6)


# Real files


@needs_shared
def test_real_files():
    raw = read_mrc(SHARED / "needle" / "HAADF_raw.mrc")
    assert raw.data.shape == (77, 256, 256)
    assert raw.notes[:2] == ("no MAP stamp", "no machine stamp, little-endian assumed from sizes")
    assert raw.extended_header_bytes == 131072
    formats = SHARED / "formats" / "mrc"
    assert read_mrc(formats / "tilt_stack_no_voxel_size.mrc").voxel_size_angstrom is None
    assert read_mrc(formats / "emd_3001.map.gz").data.shape == (73, 25, 43)
    with pytest.raises(FileFormatError, match="truncated"):
        read_mrc(formats / "header_only.mrc")


@needs_shared
def test_real_tilt_series():
    needle = SHARED / "needle"
    series = read_tilt_series(needle / "needle_ali.mrc", needle / "needle_ali.tlt")
    assert series.geometry.tilts == 77
    assert series.pixel_size_angstrom == pytest.approx(33.6)
    with mrcfile.open(needle / "needle_ali.mrc") as mrc:
        np.testing.assert_array_equal(series.images, mrc.data)


def test_paths_may_be_strings(tmp_path):
    write_stack(str(tmp_path / "s.mrc"), numbers((2, 3, 4)), 1.5, "x")
    assert read_mrc(str(Path(tmp_path) / "s.mrc")).voxel_size_angstrom == 1.5
