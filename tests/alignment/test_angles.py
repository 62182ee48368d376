"""Angle files: what is read, and that what is not is named with its line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import SHARED, needs_shared

from cryolithe.errors import CryoLitheError, FileFormatError, GeometryError, InputError, OutputError
from cryolithe.formats import read_angles_deg, write_angles_deg


@pytest.fixture
def put(tmp_path):
    def write(content):
        path = tmp_path / "tilts.tlt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        "-3\n0\n3.5\n",
        "  -3.00\r\n  0.00\r\n  3.50\r\n",
        "\ufeff-3\n0\n3.5",
        "# angles\n\n-3 # first\n 0\n\n3.5\n\n",
        "-3 1 0.0\n0 2 3.1\n3.5 3 6.2\n",
        "-3,1,0\n0,2,3\n3.5,3,6\n",
        "-3, 10\n0, 11\n3.5, 12\n",
        "-3\t1\n0\t2\n3.5\t3\n",
        "-3e0\n+0\n3.5\n\x1a",
        b"# \xe4\xf6\n-3\n0\n3.5\n",
    ],
)
def test_first_column_is_read(put, content):
    assert read_angles_deg(put(content)) == (-3, 0, 3.5)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("\n# none\n", "holds no angle"),
        ("-3\nabc\n", "line 2: expected a tilt angle in degrees, found 'abc'"),
        ("-3\n1_0\n", "line 2"),
        ("-3\nnan\n", "line 2"),
        ("-3\n\ninf\n", "line 3"),
        ("-3\n90.5\n", "line 2: expected a tilt angle within ±90°, found '90.5'"),
        (",3\n", "line 1"),
        ("5\n5\n5\n", "all 3 tilt angles are 5°"),
        ("-3,00\n0,50\n3,50\n# end\n", "holds '-3,00', which may have a decimal comma"),
        ("-20,5 1 3,0\n-17,5 2 3,0\n", "holds '-20,5 1 3,0', which may have a decimal comma"),
        ("-60,01\t3,0\n-57,02\t6,0\n", "may have a decimal comma"),
        ("-60,01;3,0\n-57,02;6,0\n", "may have a decimal comma"),
        ("-60,5\n-57,5\n0\n57,5\n", "holds '-60,5', which may have a decimal comma"),
        ("-60\n-57,5\n-54,25\n", "holds '-57,5', which may have a decimal comma"),
        ("0\n" * 9, "all 9 tilt angles are 0°"),
        ("\n".join(str(a / 57.3) for a in range(-60, 61, 3)), "all 41 angles are within ±1.05°"),
        ("-3\n3\n".encode("utf-16"), "found UTF-16; save it as UTF-8"),
        (b"\x89PNG\r\n\x00\x01", "found binary data"),
        ("1\n" * 600_000, "1200000 bytes, expected at most 1000000"),
    ],
)
def test_bad_files_are_refused_in_one_line(put, content, says):
    path = put(content)
    with pytest.raises(InputError) as caught:
        read_angles_deg(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("between", [", ", ",\t", " ", ";", " , "])
def test_columns_may_be_parted_by_commas_and_blanks(put, between):
    assert read_angles_deg(put(f"-60.5{between}1\n-57{between}2\n0{between}3\n")) == (-60.5, -57.0, 0.0)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_angles_deg(tmp_path / "none.tlt")


@settings(max_examples=60, deadline=None)
@given(content=st.one_of(st.binary(max_size=60), st.text("0123456789+-.,;eE#nani \n\t", max_size=60).map(str.encode)))
def test_any_content_is_angles_or_an_error_of_ours(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.tlt"
    path.write_bytes(content)
    try:
        angles = read_angles_deg(path)
    except CryoLitheError:
        return
    else:
        assert angles
        assert all(abs(angle) <= 90 for angle in angles)


@settings(max_examples=40, deadline=None)
@given(angles=st.lists(st.floats(-90, 90), max_size=20, unique=True).map(lambda angles: [-60.0, *angles, 60.0]))
def test_round_trip(tmp_path_factory, angles):
    path = tmp_path_factory.getbasetemp() / "round.tlt"
    write_angles_deg(path, angles, overwrite=True)
    assert read_angles_deg(path) == tuple(angles)


def test_writing_is_careful(tmp_path):
    path = tmp_path / "a.tlt"
    write_angles_deg(path, [1, 2])
    with pytest.raises(OutputError, match="--overwrite"):
        write_angles_deg(path, [3, 4])
    with pytest.raises(GeometryError):
        write_angles_deg(path, [100], overwrite=True)
    assert read_angles_deg(path) == (1, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tlt"]


@needs_shared
@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("formats/imod/multi_column.rawtlt", 35, -51),
        ("formats/imod/tilt_1.tlt", None, -52.24),
        ("formats/imod_ts017/017.tlt", None, -52.01),
        ("formats/aretomo3/test.rawtlt", None, -66),
        ("needle/needle_ali.tlt", 77, -76),
    ],
)
def test_real_files(name, count, first):
    angles = read_angles_deg(SHARED / name)
    assert angles[0] == first
    assert count is None or len(angles) == count
    assert list(angles) == sorted(angles)


@needs_shared
def test_other_real_text_files_are_refused():
    for name in (
        "imod/tilt.com",
        "imod/tilt_1.xf",
        "imod/tilt_1.xtilt",
        "aretomo3/test.aln",
        "imod_ts017/017_corrected_dose.txt",
    ):
        with pytest.raises(InputError):
            read_angles_deg(SHARED / "formats" / name)


def test_an_index_column_is_not_taken_for_angles(tmp_path):
    path = tmp_path / "index_first.txt"
    path.write_text("".join(f"{n} {-60 + 10 * n}\n" for n in range(1, 14)))
    with pytest.raises(FileFormatError, match="first column counts the images"):
        read_angles_deg(path)
