"""Tables of RELION of series that are not aligned yet: said what they are, and what lacks."""

from __future__ import annotations

import pytest
from command import call, ended, good, refusal_of

COLUMNS = ("rlnMicrographMovieName", "rlnTomoNominalStageTiltAngle", "rlnMicrographPreExposure")


@pytest.fixture
def table(tmp_path):
    """A series as it is imported, and the table that lists it."""
    own = tmp_path / "tilt_series" / "ts.star"
    own.parent.mkdir()
    rows = [f"frames/{number}.eer {angle} {number}" for number, angle in enumerate((0, 3, -3))]
    own.write_text("\n".join(["data_ts", "", "loop_", *(f"_{column}" for column in COLUMNS), *rows, ""]))
    head = "data_global\n\nloop_\n_rlnTomoName\n_rlnTomoTiltSeriesStarFile\n"
    (tmp_path / "tilt_series.star").write_text(f"{head}ts tilt_series/ts.star\n")
    return own


@pytest.mark.parametrize("words", [(), ("-o", "o.mrc"), ("-o", "folder"), ("--dry-run",)])
def test_a_series_of_movies_is_no_list_of_series(words, table):
    said = refusal_of(call("reconstruct", table, *words))
    assert f"{table} is the table of one series whose movies (rlnMicrographMovieName) are not corrected yet" in said
    assert "it lacks rlnMicrographName and an alignment; give the series' table of RELION's AlignTiltSeries" in said


def test_a_list_of_it_says_the_same(table):
    listing = table.parent.parent / "tilt_series.star"
    assert "one series whose movies" in ended(call("reconstruct", listing, "--method", "fbp", "--dry-run"), 1)


def test_info_says_what_it_is(table):
    told = " ".join(good("info", table).stdout.split())
    assert "movies of a tilt series, not corrected or aligned yet (RELION-5) series ts movies 3 range -3° to 3°" in told


def test_a_table_of_something_else_is_still_no_list(tmp_path):
    path = tmp_path / "particles.star"
    path.write_text("data_\n\nloop_\n_rlnCoordinateX\n1\n")
    assert "is no table of tomograms" in refusal_of(call("reconstruct", path, "--dry-run"))
