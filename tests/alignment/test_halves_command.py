"""``cryolithe halves``: images that RELION's tables name for even and odd frames become two stacks."""

from __future__ import annotations

import numpy as np
import pytest
from command import call, good

from cryolithe import formats
from cryolithe.errors import OutputError
from cryolithe.formats import read_mrc, write_stack

FBP = ("--method", "fbp", "--thickness", 16, "--centre", "relion")
COLUMNS = ("rlnMicrographNameEven", "rlnMicrographNameOdd", "rlnMicrographName", "rlnTomoYTilt", "rlnTomoZRot",
           "rlnTomoXShiftAngst", "rlnTomoYShiftAngst")  # fmt: skip
ANGLES_DEG = [-40.0, -20.0, 0.0, 20.0, 40.0]
HALVES = ("EVN", "ODD")


def series(folder, name="ts_1", dtype=np.float32):
    """A project of RELION-5 with one series of single images; returns its table and the halves ``(tilt, y, x)``."""
    rng = np.random.default_rng(1)
    (folder / "Motion").mkdir(exist_ok=True)
    (folder / "Job").mkdir(exist_ok=True)
    shape = (len(ANGLES_DEG), 20, 24)
    images = {half: (10 * rng.standard_normal(shape)).astype(dtype) for half in ("EVN", "ODD")}
    images[""] = (images["EVN"] + images["ODD"]).astype(dtype)
    rows = []
    # Names do not tell the order: the rows do.
    for place, angle in enumerate(ANGLES_DEG):
        names = {half: f"Motion/{name}_{9 - place}_{half}.mrc" for half in images}
        for half, file in names.items():
            write_stack(folder / file, images[half][place][None], 2.5, "an image")
        rows.append(" ".join((*(names[half] for half in ("EVN", "ODD", "")), f"{angle} 85 7.5 -5")))
    table = folder / "Job" / f"{name}.star"
    head = "".join(f"_{column} #{n}\n" for n, column in enumerate(COLUMNS, start=1))
    table.write_text(f"data_{name}\n\nloop_\n{head}" + "\n".join(rows) + "\n")
    return table, images


def listing(folder, *names):
    path = folder / "Job" / "tilt_series.star"
    rows = "".join(f"{name} Job/{name}.star\n" for name in names)
    path.write_text(f"data_global\n\nloop_\n_rlnTomoName #1\n_rlnTomoTiltSeriesStarFile #2\n{rows}")
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int16])
def test_pixels_come_back_in_the_order_of_the_table(dtype, tmp_path):
    table, images = series(tmp_path, dtype=dtype)
    good("halves", table, "-o", tmp_path / "out")
    for half in HALVES:
        found = read_mrc(tmp_path / "out" / f"ts_1_{half}.mrc")
        assert found.data.dtype == dtype
        assert np.array_equal(found.data, images[half])
        assert found.voxel_size_angstrom == 2.5


def test_the_command_that_is_told_next_makes_the_volume_of_the_whole(tmp_path):
    """Halves add up to the images, and FBP is linear: so do their volumes, under the table's alignment."""
    table, _ = series(tmp_path)
    told = call("halves", table, "-o", tmp_path / "out").stdout.splitlines()[-1]
    assert told.startswith("Next: cryolithe reconstruct --even ")
    words = told.removeprefix("Next: cryolithe ").split()
    good(*words, *FBP, "-o", tmp_path / "halves.mrc")
    good("reconstruct", table, *FBP, "-o", tmp_path / "whole.mrc")
    halves = [read_mrc(tmp_path / f"halves_{half}.mrc").data.astype(float) for half in HALVES]
    expected = read_mrc(tmp_path / "whole.mrc").data
    # Each volume has its own scale only where programs normalise; FBP here does not.
    assert np.abs(sum(halves) - expected).max() < 1e-3 * np.abs(expected).max()


def test_a_list_is_written_series_by_series_and_one_failure_stops_no_other(tmp_path):
    series(tmp_path, "ts_1")
    _, images = series(tmp_path, "ts_2")
    (tmp_path / "Motion" / "ts_1_7_ODD.mrc").unlink()
    result = call("halves", listing(tmp_path, "ts_1", "ts_2"), "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "ts_1.star: failed: " in result.stderr
    assert "names the image Motion/ts_1_7_ODD.mrc, which is not there" in result.stderr
    assert np.array_equal(read_mrc(tmp_path / "out" / "ts_2_ODD.mrc").data, images["ODD"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ts_2_EVN.mrc", "ts_2_ODD.mrc"]


def without_halves(table):
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line.replace("NameEven", "Other").replace("NameOdd", "Another") for line in lines))


def empty_halves(table):
    lines = [line.split() for line in table.read_text().splitlines()]
    table.write_text("\n".join(" ".join(("None", "None", *w[2:]) if len(w) == len(COLUMNS) else w) for w in lines))


def two_series(table):
    table.write_text(table.read_text() + table.read_text().replace("data_ts_1", "data_ts_2"))


def another_size(table):
    write_stack(table.parent.parent / "Motion" / "ts_1_8_EVN.mrc", np.zeros((1, 20, 20), np.float32), 2.5, "", True)


def one_file_for_both(table):
    table.write_text(table.read_text().replace("ts_1_8_ODD.mrc", "ts_1_8_EVN.mrc"))


def one_file_for_two_images(table):
    table.write_text(table.read_text().replace("ts_1_8_ODD.mrc", "ts_1_7_ODD.mrc"))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (one_file_for_both, "ts_1_8_EVN.mrc twice among its even and odd images"),
        (one_file_for_two_images, "ts_1_7_ODD.mrc twice among its even and odd images"),
        (without_halves, "expected the column rlnMicrographNameEven"),
        (empty_halves, "its column rlnMicrographNameEven is empty"),
        (two_series, "holds 2 series"),
        (another_size, "give images of one series"),
    ],
)
def test_what_is_no_table_of_halves_is_refused_in_one_line(spoil, told, tmp_path):
    table, _ = series(tmp_path)
    spoil(table)
    result = call("halves", table, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


def test_what_is_there_is_kept(tmp_path):
    table, images = series(tmp_path)
    call("halves", table, "-o", tmp_path / "out")
    odd = tmp_path / "out" / "ts_1_ODD.mrc"
    odd.write_bytes(b"mine")
    (tmp_path / "out" / "ts_1_EVN.mrc").unlink()
    refused = call("halves", table, "-o", tmp_path / "out")
    assert refused.exit_code == 2
    assert "ts_1_ODD.mrc exists; give --overwrite" in refused.stderr
    assert odd.read_bytes() == b"mine"
    assert not (tmp_path / "out" / "ts_1_EVN.mrc").exists()
    good("halves", table, "-o", tmp_path / "out", "--overwrite")
    assert np.array_equal(read_mrc(odd).data, images["ODD"])


def test_one_half_is_not_left_behind_where_the_other_cannot_be_written(tmp_path, monkeypatch):
    table, _ = series(tmp_path)
    writing = formats.write_stack

    def full_disk(path, *words):
        if path.name.endswith("_ODD.mrc"):
            raise OutputError(f"cannot write {path}: no space left on device")
        writing(path, *words)

    monkeypatch.setattr(formats, "write_stack", full_disk)
    result = call("halves", table, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "no space left" in result.stderr
    assert not list((tmp_path / "out").iterdir())
    monkeypatch.undo()
    good("halves", table, "-o", tmp_path / "out")


def test_tables_of_one_name_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    tables = [series(tmp_path / folder)[0] for folder in "ab"]
    result = call("halves", *tables, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "two tables are called ts_1.star" in result.stderr
