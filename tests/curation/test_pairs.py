"""Training pairs on disk."""

import struct

import h5py
import numpy as np
import pytest

from cryolithe.errors import FileFormatError, InputError, OutputError
from cryolithe.formats.hdf5_file import refuse_empty_chunks
from cryolithe.formats.pairs import Pair, open_pair, write_pair

ANGLES = (-40.0, 0.0, 3.5, 60.0)


def make_pair(height=21, width=13):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, height, width)).astype(np.float32)
    truth = rng.standard_normal((6, height, width)).astype(np.float16)
    extras = {"even": images + 1, "odd": images - 1, "labels": (truth > 0).astype(np.uint16)}
    return Pair(images, truth, ANGLES, 7.84, extras, {"seed": 3, "range": [1, 2]})


def test_round_trip_of_everything(tmp_path):
    pair = make_pair()
    write_pair(tmp_path / "p.h5", pair)
    with open_pair(tmp_path / "p.h5") as read:
        assert read.angles_deg == ANGLES
        assert read.voxel_size_angstrom == 7.84
        assert read.origin == pair.origin
        assert set(read.extras) == set(pair.extras)
        np.testing.assert_array_equal(read.images[()], pair.images)
        np.testing.assert_array_equal(read.truth[()], pair.truth)
        np.testing.assert_array_equal(read.images[:, 5:9], pair.images[:, 5:9])
        for name, values in pair.extras.items():
            np.testing.assert_array_equal(read.extras[name][()], values)


def test_a_run_of_rows_lies_in_few_chunks(tmp_path):
    write_pair(tmp_path / "p.h5", make_pair())
    with h5py.File(tmp_path / "p.h5") as file:
        assert file["images"].chunks == (4, 8, 13)
        assert file["truth"].chunks == (6, 8, 13)


def test_the_same_pair_gives_the_same_bytes(tmp_path):
    write_pair(tmp_path / "a.h5", make_pair())
    write_pair(tmp_path / "b.h5", make_pair())
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_nothing_is_overwritten_unasked(tmp_path):
    write_pair(tmp_path / "p.h5", make_pair())
    with pytest.raises(OutputError, match="--overwrite"):
        write_pair(tmp_path / "p.h5", make_pair())
    write_pair(tmp_path / "p.h5", make_pair(), overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["p.h5"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"angles_deg": ANGLES[:3]}, "one angle for each image, got 3 for 4"),
        ({"truth": np.zeros((6, 20, 13))}, "do not fit a target"),
        ({"images": np.zeros((4, 21))}, "three axes"),
        ({"voxel_size_angstrom": 0.0}, "must be positive"),
        ({"extras": {"even": np.zeros((3, 21, 13))}}, "'even' of a pair has shape"),
    ],
)
def test_parts_that_disagree_are_named(change, line):
    pair = make_pair()
    with pytest.raises(InputError, match=line):
        Pair(**{**{name: getattr(pair, name) for name in pair.__dataclass_fields__}, **change})


def test_files_that_are_no_pairs(tmp_path):
    for name, content in (("text.h5", b"hello"), ("empty.h5", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError), open_pair(tmp_path / name):
            pass
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(FileFormatError, match="not a training pair"), open_pair(tmp_path / "other.h5"):
        pass
    write_pair(tmp_path / "p.h5", make_pair())
    with h5py.File(tmp_path / "p.h5", "a") as file:
        del file["truth"]
    with pytest.raises(FileFormatError, match="lacks the dataset 'truth'"), open_pair(tmp_path / "p.h5"):
        pass
    whole = make_pair()
    write_pair(tmp_path / "cut.h5", whole)
    content = (tmp_path / "cut.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(FileFormatError, match="truncated"), open_pair(tmp_path / "cut.h5"):
        pass


@pytest.mark.parametrize("version", ["one", [1, 1], 2])
def test_a_version_that_is_none_is_refused(version, tmp_path):
    write_pair(tmp_path / "p.h5", make_pair())
    with h5py.File(tmp_path / "p.h5", "r+") as file:
        file.attrs["version"] = version
    with pytest.raises(FileFormatError, match="training pair"), open_pair(tmp_path / "p.h5"):
        pass


def test_flipped_bytes_are_found_with_a_line_or_not_at_all(tmp_path):
    write_pair(tmp_path / "p.h5", make_pair())
    content = (tmp_path / "p.h5").read_bytes()
    rng, refused = np.random.default_rng(1), 0
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=20):
            damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "q.h5").write_bytes(damaged)
        try:
            with open_pair(tmp_path / "q.h5") as pair:
                for values in (pair.images, pair.truth, *pair.extras.values()):
                    np.asarray(values)
        except FileFormatError:
            refused += 1
    assert refused > 120


def flip(path, name, chunk):
    """Flip a bit in the middle of a chunk of an array."""
    with h5py.File(path) as file:
        info = file[name].id.get_chunk_info(chunk)
    content = bytearray(path.read_bytes())
    content[info.byte_offset + info.size // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["images", "truth", "even", "labels"])
def test_damage_is_named_when_it_is_read(name, tmp_path):
    write_pair(tmp_path / "p.h5", make_pair())
    flip(tmp_path / "p.h5", name, 1)
    with open_pair(tmp_path / "p.h5") as pair:
        values = {"images": pair.images, "truth": pair.truth, **pair.extras}[name]
        assert values[:, :8].shape == (len(values), 8, 13)  # the chunk before it is good
        for read in (lambda: values[:, 7:9], lambda: np.asarray(values), lambda: values[()]):
            with pytest.raises(FileFormatError) as caught:
                read()
            assert str(caught.value).startswith(f"{tmp_path / 'p.h5'}: '{name}' cannot be read (")
            assert str(caught.value).endswith("; the file is damaged: copy it again, or make it anew")


def test_a_stored_array_stands_for_the_array(tmp_path):
    pair = make_pair()
    write_pair(tmp_path / "p.h5", pair)
    with open_pair(tmp_path / "p.h5") as read:
        stored = read.truth
        assert (stored.shape, stored.dtype, stored.ndim, stored.size, len(stored)) == (
            pair.truth.shape, pair.truth.dtype, 3, pair.truth.size, len(pair.truth)
        )  # fmt: skip
        assert np.asarray(stored, dtype=np.float32).dtype == np.float32
        np.testing.assert_array_equal(np.stack(list(stored)), pair.truth)
        with pytest.raises(ValueError, match="copy"):
            np.asarray(stored, copy=False)
        write_pair(tmp_path / "again.h5", read)  # a pair that is read can be written
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "p.h5").read_bytes()


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda file: file.create_dataset("truth", (6, 21, 13), "f4", chunks=(6, 8, 13)), "parts of 'truth' are lack"),
        (lambda file: file.create_dataset("truth", (6, 21, 13), "f4"), "parts of 'truth' are lacking"),
        (
            lambda file: file.create_dataset("truth", data=np.zeros((6, 21, 13), "S3")),
            "'truth' holds .S3, expected plain",
        ),
    ],
)
def test_arrays_that_are_not_whole_or_no_numbers(make, line, tmp_path):
    """HDF5 gives zeros for chunks that were never written."""
    write_pair(tmp_path / "p.h5", make_pair())
    with h5py.File(tmp_path / "p.h5", "r+") as file:
        del file["truth"]
        make(file)
    with pytest.raises(FileFormatError, match=line), open_pair(tmp_path / "p.h5"):
        pass


def test_a_part_that_is_stored_in_no_bytes_is_refused(tmp_path):
    """HDF5 would end the process that reads it."""
    pair = Pair(np.ones((3, 8, 10), np.float16), np.ones((4, 8, 10), np.float16), (-20.0, 0.0, 20.0), 5.0)
    path = write_pair(tmp_path / "a.h5", pair) or tmp_path / "a.h5"
    with open_pair(path) as whole:
        assert np.asarray(whole.truth).min() == 1
    content = (tmp_path / "a.h5").read_bytes()
    stored = struct.pack("<II", 4 * 8 * 10 * 2 + 4, 0)  # size of truth's one part, and its filters
    assert content.count(stored) == 1
    (tmp_path / "b.h5").write_bytes(content.replace(stored, struct.pack("<II", 0, 0)))
    with pytest.raises(FileFormatError, match="is stored in 0 bytes"), open_pair(tmp_path / "b.h5"):
        pass


def test_a_part_whose_filter_lacks_its_values_is_refused(tmp_path):
    """h5py cannot list such filters."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((4,))
        made.set_filter(h5py.h5z.FILTER_DEFLATE, h5py.h5z.FLAG_OPTIONAL, ())
        made.set_fletcher32()
        h5py.h5d.create(file.id, b"truth", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((4,)), made)
    with h5py.File(tmp_path / "a.h5") as file, pytest.raises(FileFormatError, match="cannot be found"):
        refuse_empty_chunks(file["truth"], tmp_path / "a.h5")
