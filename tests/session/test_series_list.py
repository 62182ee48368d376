"""Lists of tilt series."""

import json

import pytest
from tiny_series import made, refused, write_series

from cryolithe.errors import InputError
from cryolithe.formats import SeriesEntry, read_series_list


@pytest.fixture
def put(tmp_path):
    def write(content):
        path = tmp_path / "list.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_rows_become_entries(put, tmp_path):
    path = put(
        "\ufefftilts, angles, output, thickness\r\n"
        "a.mrc, a.tlt, out/a.mrc, 300\r\n\r\n"
        "/data/b.mrc, sub/b.tlt, ,\r\n"
        '"c, again.mrc", c.tlt, c.mrc, "1,5"\r\n'
    )
    first, second, third = read_series_list(path)
    assert first == SeriesEntry(
        2, tmp_path / "a.mrc", tmp_path / "a.tlt", tmp_path / "out" / "a.mrc", {"thickness": "300"}
    )
    assert str(second.tilts) == "/data/b.mrc"
    assert (second.line, second.angles, second.output, second.settings) == (4, tmp_path / "sub" / "b.tlt", None, {})
    assert third.tilts == tmp_path / "c, again.mrc"
    assert third.settings == {"thickness": "1,5"}


@pytest.mark.parametrize("separator", [";", "\t"])
def test_spreadsheets_separate_otherwise(separator, put):
    text = "\n tilts,angles,pixel_size\na.mrc,a.tlt,1.5\n"
    (expected,) = read_series_list(put(text))
    assert read_series_list(put(text.replace(",", separator))) == (expected,)
    (entry,) = read_series_list(put(text.replace(",", separator).replace("a.mrc", "a, b.mrc")))
    assert entry.tilts.name == "a, b.mrc"


FBP = ("--method", "fbp")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas_of_spreadsheets_are_read(separator, put, tmp_path):
    """In cells of one number; in a list of numbers a comma parts two, and in a name it is one."""
    write_series(tmp_path, name="a,5")
    rows = [
        ["tilts", "angles", "output", "pixel-size", "tilt_axis", "thickness", "exclude"],
        ["a,5.mrc", "a,5.tlt", "1,5.mrc", "8,5", "-3,25", "8,0", "3,5"],
    ]
    made(put("\n".join(separator.join(row) for row in rows) + "\n"), *FBP)
    settings = json.loads((tmp_path / "1,5.json").read_text())["settings"]
    assert [settings[name] for name in ("pixel_size", "tilt_axis", "thickness", "exclude")] == [8.5, -3.25, 8, "3,5"]


@pytest.mark.parametrize(
    ("header", "cells", "says"),
    [
        (
            "tilts,angles,pixel_size",
            'ts.mrc,ts.tlt,"8,5"',
            "'pixel_size': expected a number, with a decimal point, got '8,5'",
        ),
        (
            "tilts;angles;pixel_size",
            "ts.mrc;ts.tlt;1.008,5",
            "'pixel_size': expected a number, with a decimal point, got",
        ),
        ("tilts;angles;bin", "ts.mrc;ts.tlt;2,5", "'bin': expected a whole number, got '2.5'"),
        ("tilts;angles;bin", "ts.mrc;ts.tlt;zwei", "'bin': expected a whole number, got 'zwei'"),
        ("tilts;angles;flip_z", "ts.mrc;ts.tlt;FALSCH", "'flip_z': expected true or false, got 'FALSCH'"),
        ("tilts;angles;flip_z", "ts.mrc;ts.tlt;VRAI", "'flip_z': expected true or false, got 'VRAI'"),
    ],
)
def test_cells_of_another_language_are_refused_in_words(header, cells, says, put, tmp_path):
    write_series(tmp_path)
    refused(tmp_path, (put(f"{header}\n{cells}\n"), *FBP), "list.csv, line 2: ", says)


def test_files_of_doses_and_defocus_lie_where_the_list_does(put, tmp_path):
    path = put("tilts,angles,dose,ctf-file,ctf\na.mrc,a.tlt,a.mdoc,/data/a.txt,flip\n")
    (entry,) = read_series_list(path)
    assert entry.settings == {"dose": str(tmp_path / "a.mdoc"), "ctf-file": "/data/a.txt", "ctf": "flip"}


@pytest.mark.parametrize(
    "text", ['tilts;angles;bin\n"a;1.mrc"; a,1.tlt;2\n', '"tilts","angles",bin\na;1.mrc,"a,1.tlt",2\n']
)
def test_cells_are_parted_as_the_header_row_has_it(put, text, tmp_path):
    (entry,) = read_series_list(put(text))
    assert (entry.tilts, entry.angles) == (tmp_path / "a;1.mrc", tmp_path / "a,1.tlt")
    assert entry.settings == {"bin": "2"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("\n \n", "is blank"),
        ("tilts,angles\n", "names no tilt series"),
        ("tilt,angles\na,b\n", "no column 'tilts', found: tilt (did you mean 'tilts'?), angles"),
        ("a.mrc,a.tlt\n", "no column 'tilts'"),
        ("tilts;angles,output\na;b,c\n", "expected separated by commas alone, not by semicolons too: tilts,angles"),
        ("tilts;angles\na,b\n", "line 2: expected 2 cells (tilts, angles), found 1"),
        ("tilts|angles\na|b\n", "no column 'tilts'"),
        (
            "tilts;angles\na;b;c\n",
            "line 2: expected 2 cells (tilts, angles), found 3; put a value that holds a semicolon",
        ),
        ("tilts,angles,\na,b,\n", "column 3 has no name"),
        ("tilts,angles,tilts\na,b,c\n", "'tilts' twice"),
        ("tilts,angles,tilt-axis,tilt_axis\na,b,1,2\n", "'tilt_axis' twice, once as 'tilt-axis'"),
        ("tilts,angles\na.mrc\n", "line 2: expected 2 cells (tilts, angles), found 1"),
        ("tilts,angles\na,b\n\na,b,c\n", "line 4: expected 2 cells (tilts, angles), found 3"),
        ("tilts,angles\na.mrc,\n", "line 2: the cell 'angles' is empty"),
        ("tilts,angles,output\na,b,o.mrc\nc,d,x/../o.mrc\n", "line 3: the output"),
        ('tilts,angles\n"a,b\n', "expected comma-separated values"),
        (b"tilts,angles\n\x00\x01", "found binary data"),
    ],
)
def test_bad_lists_are_refused_in_one_line(put, content, says):
    path = put(content)
    with pytest.raises(InputError) as caught:
        read_series_list(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_list(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_series_list(tmp_path / "none.csv")
