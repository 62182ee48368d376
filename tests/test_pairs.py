"""Training pairs on disk."""

import h5py
import numpy as np
import pytest

from cryolithe.errors import FileFormatError, InputError, OutputError
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
            with open_pair(tmp_path / "q.h5"):
                pass
        except FileFormatError:
            refused += 1
    assert refused > 15
