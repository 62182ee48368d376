"""Damaged files that lead a library round in circles are refused, and good ones of the same build are read."""

from __future__ import annotations

import struct

import h5py
import numpy as np
import pytest
import tifffile

from cryolithe.errors import FileFormatError
from cryolithe.formats.hdf5_file import new_hdf5_file, open_hdf5
from cryolithe.formats.pairs import Pair, open_pair, write_pair
from cryolithe.formats.volumes.tiff import read_tiff

HEAP = b"GCOL\x01\x00\x00\x00"


def a_pair(path, origin="{}"):
    images, truth = np.zeros((3, 8, 8), np.float32), np.zeros((4, 8, 8), np.float32)
    write_pair(path, Pair(images, truth, (-10.0, 0.0, 10.0), 5.0, origin={"recipe": origin}))


def of_objects(path):
    """Places of the headers of the objects in the first heap of a file."""
    content = path.read_bytes()
    start = content.index(HEAP)
    (size,) = struct.unpack_from("<Q", content, start + 8)
    place, found = start + 16, []
    while place + 16 <= start + size:
        index, length = struct.unpack_from("<H6xQ", content, place)
        found.append(place)
        place += 16 + -(-length // 8) * 8 if index else length
    return found


def changed(path, place, new):
    content = bytearray(path.read_bytes())
    content[place : place + len(new)] = new
    path.write_bytes(content)


@pytest.mark.parametrize("number", [0, 1, -1])
@pytest.mark.parametrize(("index", "length"), [(0, 0), (3, 2**64 - 16), (3, 2**64 - 40), (0, 2**64 - 8)])
def test_texts_of_hdf5_that_follow_themselves_are_refused(tmp_path, number, index, length):
    path = tmp_path / "pair.h5"
    a_pair(path)
    changed(path, of_objects(path)[number], struct.pack("<H6xQ", index, length))
    with pytest.raises(FileFormatError, match=r"copy it again, or make it anew$"), open_pair(path):
        pass


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 4000, 4096, 70_000, 3_000_000])
def test_texts_of_any_length_are_read(tmp_path, length):
    path = tmp_path / "pair.h5"
    a_pair(path, "x" * length)
    with open_pair(path) as pair:
        assert pair.origin == {"recipe": "x" * length}


@pytest.mark.parametrize("size", [1000, 300_000])
def test_texts_before_and_behind_the_arrays_are_looked_at(tmp_path, size):
    for name, first in (("before.h5", True), ("behind.h5", False)):
        path = tmp_path / name
        with new_hdf5_file(path, False) as file:
            if first:
                file.attrs["format"] = "text"
                file.flush()
            file["values"] = np.arange(size, dtype=np.float64)
            file.attrs["format"] = "text"
        with open_hdf5(path) as file:
            assert file.attrs["format"] == "text"
        changed(path, of_objects(path)[-1], bytes(16))
        with pytest.raises(FileFormatError, match="without end"):
            open_hdf5(path)


def test_a_file_that_older_programs_wrote_is_read(tmp_path):
    path = tmp_path / "old.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        for number in range(300):
            file.attrs[f"text {number}"] = "word " * number
        del file.attrs["text 7"]
        file.attrs["texts"] = ["a", "bc", ""]
    with open_hdf5(path) as file:
        assert file.attrs["text 299"] == "word " * 299
        assert list(file.attrs["texts"]) == ["a", "bc", ""]


def next_planes(path):
    """Where each plane of a TIFF file says where the next one begins, and where the planes begin."""
    with tifffile.TiffFile(path) as file:
        return [(page.offset + 2 + 12 * len(page.tags), page.offset) for page in file.pages]


@pytest.mark.parametrize(("last", "back_to"), [(0, 0), (2, 0), (4, 3), (4, 4)])
def test_planes_of_tiff_that_follow_themselves_are_refused(tmp_path, last, back_to):
    path = tmp_path / "planes.tif"
    with tifffile.TiffWriter(path) as file:
        for _ in range(5):
            file.write(np.zeros((8, 8), np.float32), metadata=None, contiguous=False)
    planes = next_planes(path)
    assert read_tiff(path)[0].shape == (5, 8, 8)
    changed(path, planes[last][0], struct.pack("<I", planes[back_to][1]))
    with pytest.raises(FileFormatError, match=f"plane {last + 1} is followed by an earlier one; copy it again$"):
        read_tiff(path)
