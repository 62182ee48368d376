"""Doses before images: no other image's, and none falls as time goes on; what was spent on images that are missing."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tiny_series import ANGLES, made, refused, write_series

from cryolithe.formats.microscope.dose_sums import counted_anew, repeated
from cryolithe.formats.microscope.doses import read_exposures

N, FIRST = len(ANGLES), 6  # images, and those of the first session
WEIGHED = ("--method", "fbp", "--thickness", 8, "--dose-weight")
EXPOSURES = [3.0 + 0.25 * n for n in range(N)]
# 0° upwards, then the other side in a second session, as bidirectional schemes go.
TURNS = [n - (N - FIRST) if n >= N - FIRST else N - 1 - n for n in range(N)]
BEGUN = datetime(2026, 11, 28, 23, 58)


def before(own, turns=TURNS, missing=()):
    """What was spent before each image; those that are missing were exposed by 3 e/Å² each."""
    return [
        sum(o for o, other in zip(own, turns, strict=True) if other < turn) + 3.0 * sum(gone < turn for gone in missing)
        for turn in turns
    ]


def mdoc(folder, own=EXPOSURES, prior=None, turns=TURNS, **given):
    """An .mdoc with sections of images that were taken in these turns; "missing" of which have none."""
    text = ""
    for place, (angle, turn) in enumerate(zip(ANGLES, turns, strict=True)):
        if place in given.get("missing", ()):
            continue
        text += f"[ZValue = {place + given.get('start', 0)}]\nTiltAngle = {angle}\n"
        text += f"ExposureDose = {own[place]}\n" if own else ""
        text += f"PriorRecordDose = {prior[place]}\n" if prior else ""
        time = BEGUN + timedelta(seconds=90 * turn)
        text += f"DateTime = {time:%d-%b-%Y  %H:%M:%S}\n\n" if given.get("timed", True) else "\n"
    path = folder / "ts.mrc.mdoc"
    path.write_text(text)
    return path


def told(path):
    found = read_exposures(path, "ts.mrc")
    return list(found.doses), " ".join(found.notes), found.dose_problem


def weighed(folder):
    record = json.loads((folder / "ts_rec.json").read_text())
    return record["method"]["corrections"]["dose_weight"]["exposures"]


def of_sessions(own=EXPOSURES):
    """PriorRecordDose that begins anew in the second session."""
    whole = before(own)
    second = whole[TURNS.index(FIRST)]
    return [dose - second if turn >= FIRST else dose for dose, turn in zip(whole, TURNS, strict=True)]


def test_what_a_session_spent_stands_before_the_next(tmp_path):
    stack, angles = write_series(tmp_path)
    mdoc(tmp_path, prior=of_sessions())
    result = made(stack, angles, *WEIGHED)
    assert weighed(tmp_path) == pytest.approx(before(EXPOSURES))
    assert "begins anew in the order of DateTime (2 sessions)" in result.stderr
    # The same whole sums as by a file that has them.
    mdoc(tmp_path, prior=before(EXPOSURES))
    result = made(stack, angles, *WEIGHED, "--overwrite")
    assert weighed(tmp_path) == pytest.approx(before(EXPOSURES))
    assert "begins anew" not in result.stderr


def test_what_a_session_counts_of_images_that_are_missing_is_kept(tmp_path):
    """PriorRecordDose has them, other than sums of the images that are there."""
    missing = [TURNS.index(2), TURNS.index(FIRST + 1)]
    doses, _, _ = told(mdoc(tmp_path, prior=of_sessions(), missing=missing))
    assert doses == pytest.approx([dose for n, dose in enumerate(before(EXPOSURES)) if n not in missing])


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"own": None, "prior": of_sessions()}, "falls from 23.75 to 0 e/Å² as time goes on"),
        ({"prior": before(EXPOSURES)[::-1]}, "as time goes on (DateTime "),
        ({"prior": of_sessions([3.0] * N), "timed": False}, "is the same before several images (5 of 11 repeat"),
        ({"prior": [3.0] * N, "timed": False}, "PriorRecordDose is 3 for every image, which is no dose before it"),
    ],
)
def test_doses_that_cannot_be_are_refused(given, line, tmp_path):
    stack, angles = write_series(tmp_path)
    path = mdoc(tmp_path, **given)
    assert told(path)[0] == []
    refused(tmp_path, [stack, angles, *WEIGHED], line)
    refused(tmp_path, [stack, angles, "--dose", path, *WEIGHED], line)
    made(stack, angles, *WEIGHED[:-1])


@pytest.mark.parametrize("prior", [[5.0] * N, [18.0 * (turn >= FIRST) for turn in TURNS]], ids=["all", "session"])
def test_doses_that_repeat_are_summed_up_of_the_images(prior, tmp_path):
    doses, notes, _ = told(mdoc(tmp_path, prior=prior))
    assert doses == pytest.approx(before(EXPOSURES))
    assert "ExposureDose is summed up" in notes


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("missing", [(0, 1, 2), (4,), (0, 3, 4, 9)])
def test_images_that_are_missing_were_exposed(missing, falling, tmp_path):
    """Where ZValue goes with time, it tells when."""
    turns = list(range(N))[:: -1 if falling else 1]
    doses, notes, _ = told(mdoc(tmp_path, [3.0] * N, turns=turns, missing=missing))
    assert doses == [3.0 * turn for n, turn in enumerate(turns) if n not in missing]
    counted = any(n > 0 for n in missing) and not (falling and missing == (0, 1, 2))
    assert ("images that are not in the file are taken for exposed" in notes) == counted


def test_a_stack_whose_first_images_are_missing_by_the_command(tmp_path):
    stack, _ = write_series(tmp_path)
    path = mdoc(tmp_path, [3.0] * N, turns=list(range(N)), missing=(0, 1, 2, 3))
    result = made(stack, path, *WEIGHED)
    assert weighed(tmp_path) == [3.0 * n for n in range(4, N)]
    assert "has no ZValue 0, 1, 2, 3: images that are not in the file are taken for exposed, too" in result.stderr


def test_neighbours_tell_when_an_image_was_taken_where_they_can(tmp_path):
    own, gone = [3.0] * N, TURNS.index(3)
    doses, notes, _ = told(mdoc(tmp_path, own, missing=[gone]))
    assert doses == [dose for n, dose in enumerate(before(own)) if n != gone]
    assert "Warning" not in notes
    # At 0°, between the two branches, it may have been taken at any time; so may the one at the end.
    for place in (TURNS.index(0), 0):
        doses, notes, _ = told(mdoc(tmp_path, own, missing=[place]))
        assert max(doses) == 3.0 * (N - 2)
        assert f"Warning: ts.mrc.mdoc has no ZValue {place}, and nothing tells when" in notes


@pytest.mark.parametrize("start", [1, N // 2, N, 50, 10**9])
def test_files_may_count_from_elsewhere(start, tmp_path):
    """From 1, or in a file of several series: what was not of this series is not counted."""
    doses, notes, _ = told(mdoc(tmp_path, [3.0] * N, turns=list(range(N)), start=start))
    assert doses == [3.0 * n for n in range(N)]
    assert "Warning" in notes
    assert "are not counted" in notes


def test_a_wrong_value_is_no_session():
    """The image after it counts what was spent before it."""
    times = [f"28-Nov-2026 14:0{n}:00" for n in range(6)]
    path, own = Path("ts.mrc.mdoc"), [3.0] * 6
    assert counted_anew(path, [0, 0, 6, 9, 12, 15], own, times) is None
    assert "falls from 6 to 0" in counted_anew(path, [0, 3, 6, 0, 12, 15], own, times).problem
    for prior in ([0, 0, 3, 6, 9, 12], [0, 3, 6, 0, 3, 6], [0, 3, 6, 9, 12, 0]):
        assert counted_anew(path, prior, own, times).doses == (0, 3, 6, 9, 12, 15)


def test_a_wrong_value_is_no_session_by_the_command(tmp_path):
    stack, angles = write_series(tmp_path)
    prior = [0.0, 0.0, *(3.0 * n for n in range(2, N))]
    mdoc(tmp_path, [3.0] * N, prior, turns=list(range(N)))
    assert "begins anew" not in made(stack, angles, *WEIGHED).stderr
    assert weighed(tmp_path) == prior


def test_tilts_that_were_taken_again_are_told_as_a_cause():
    assert "or tilts were taken again" in repeated(Path("ts.mdoc"), "Dose", [0.0, 3, 3, 6, 6, 9])


@pytest.mark.parametrize("program", ["relion", "warp", "tomostar"])
@pytest.mark.parametrize(("doses", "line"), [([3.0] * N, "is 3 for every image"), (of_sessions([3.0] * N), "5 of 11")])
def test_tables_are_held_to_that_too(program, doses, line, tmp_path):
    """Their order in time is not known; but no two images have the same dose before them."""
    stack, angles = write_series(tmp_path)
    if program == "warp":
        flag, path = "--warp", tmp_path / "ts.xml"
        lists = {"Angles": [-angle for angle in ANGLES], "Dose": doses, "UseTilt": [True] * N}
        lists |= {name: [0] * N for name in ("AxisAngle", "AxisOffsetX", "AxisOffsetY")}
        body = "".join(f"<{name}>{chr(10).join(map(str, values))}</{name}>" for name, values in lists.items())
        path.write_text(f"<TiltSeries>{body}</TiltSeries>")
    else:
        flag, path = ("--star", tmp_path / "ts.star") if program == "relion" else ("--dose", tmp_path / "ts.tomostar")
        names = ("rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst", "rlnMicrographPreExposure")
        names = names if program == "relion" else ("wrpAngleTilt", "wrpAxisAngle", "wrpDose")
        sign, zeros = (1, " 0 0 0 ") if program == "relion" else (-1, " 0 ")
        rows = "".join(f"{sign * angle}{zeros}{dose}\n" for angle, dose in zip(ANGLES, doses, strict=True))
        path.write_text("data_ts\n\nloop_\n" + "".join(f"_{name}\n" for name in names) + rows)
    given = (stack, angles) if program == "tomostar" else (stack,)
    refused(tmp_path, [*given, flag, path, *WEIGHED], line)
    if program != "tomostar":
        made(*given, flag, path, *WEIGHED[:-1])
