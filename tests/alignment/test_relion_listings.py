"""What a table of RELION says of a series beside its images: of the very table that is given, and in the record."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from projects import PIXEL, VOLUME, make_project, write_relion
from tiny_series import made, run, voxels

from cryolithe.formats.alignment.tomogram_star import read_tomogram_star

FBP = ("--method", "fbp", "--contrast", "bright")
CTF = ("--ctf", "flip")
OWN = "AlignTiltSeries/job005/tilt_series/ts.star"
NAMES = ("rlnTomoName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnTomoHand")
NAMES += ("rlnTomoTiltSeriesPixelSize", "rlnTomoTiltSeriesStarFile", "rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")


def listing(path, hand=-1, voltage=300, size=VOLUME[::-1], name="ts", rows=()):
    """A table of series."""
    row = f"{name} {voltage} 2.7 0.1 {hand} {PIXEL} {OWN} {' '.join(map(str, size))}"
    path.write_text("\n".join(["data_global", "", "loop_", *(f"_{name}" for name in NAMES), row, *rows, ""]))
    return path


@pytest.fixture
def project(tmp_path):
    """A series with a defocus in a job's folder, whose own listing is beside its folder."""
    project = make_project(tmp_path / "raw")
    _, table = write_relion(project)
    (project.folder / "tomograms.star").unlink()
    own = project.folder / OWN
    own.parent.mkdir(parents=True)
    lines = table.read_text().splitlines()
    table.unlink()
    heads = [number for number, line in enumerate(lines) if line.startswith("_")]
    lines = [f"{line} 20000 20000 0" if "@" in line else line for line in lines]
    lines[heads[-1] + 1 : heads[-1] + 1] = ["_rlnDefocusU", "_rlnDefocusV", "_rlnDefocusAngle"]
    own.write_text("\n".join([*lines, ""]))
    listing(own.parent.parent / "aligned_tilt_series.star")
    return project


def record_of(volume):
    return json.loads(Path(volume).with_suffix(".json").read_text())


def test_a_session_takes_what_the_given_table_says(project, tmp_path):
    """Not what another one says that lists the same series, whatever lies nearer to the images."""
    given = listing(project.folder / "subset.star", 1, 200, (60, 72, 20))
    first = made(given, *FBP, *CTF, "-o", tmp_path / "out")
    record = record_of(tmp_path / "out" / "rec_ts.json")
    ctf = record["method"]["corrections"]["ctf"]
    assert (ctf["defocus_hand"], ctf["voltage_kv"]) == (-1, 200)
    assert record["volume"]["shape_zyx"] == [20, 72, 60]
    assert "hand -1 (subset.star)" in first.stderr + first.stdout
    made(project.stack, "--star", given, *FBP, *CTF, "-o", tmp_path / "alone.mrc")
    np.testing.assert_array_equal(voxels(tmp_path / "alone.mrc"), voxels(tmp_path / "out" / "rec_ts.mrc"))

    paths = {name: Path(used["path"]) for name, used in record["inputs"].items()}
    assert {paths["star"], paths["star of the series"]} == {given, project.folder / OWN}
    hashes = {name: used["sha256"] for name, used in record["inputs"].items()}
    assert hashes == {name: sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}


def test_what_the_given_table_says_of_others_does_not_matter(project, tmp_path):
    """A table grows while a microscope works."""
    given = listing(project.folder / "subset.star")
    command = (given, *FBP, *CTF, "-o", tmp_path / "out")
    made(*command)
    listing(given, rows=[f"other 300 2.7 0.1 -1 {PIXEL} other.star 9 9 9"])
    again = run(*command)
    assert "already done" in again.stdout, again.output
    listing(given, hand=1)
    changed = run(*command)
    assert changed.exit_code == 1
    assert "other contents of star" in changed.stdout


@pytest.mark.parametrize("how", ["star", "table", "ctf-file"])
def test_a_table_that_nobody_gave_is_told_and_in_the_record(how, project, tmp_path):
    """It is found above the one of the series, and tells hand and voltage."""
    own, near = project.folder / OWN, project.folder / "AlignTiltSeries" / "job005" / "aligned_tilt_series.star"
    words = {"star": [project.stack, "--star", own], "ctf-file": [project.stack, project.tlt, "--ctf-file", own]}
    words["table"] = [project.folder / "subset.csv"]
    (project.folder / "subset.csv").write_text(f"tilts,star,output\nts.mrc,{OWN},v.mrc\n")
    output = tmp_path / "out" / "v.mrc"
    output.parent.mkdir()
    target = output.parent if how == "table" else output
    thickness = ("--thickness", 20, "--exclude", "1,12") if how == "ctf-file" else ()
    command = (*words[how], *FBP, *CTF, *thickness, "-o", target)
    said = made(*command)
    record = record_of(output)
    used = {Path(entry["path"]).resolve(): entry["sha256"] for entry in record["inputs"].values()}
    assert used[near] == sha256(near.read_bytes()).hexdigest()
    assert record["method"]["corrections"]["ctf"]["defocus_hand"] == 1
    text = said.stderr + said.stdout
    assert "hand +1 (aligned_tilt_series.star)" in text or how == "table", text
    assert "Cs 2.7 mm (aligned_tilt_series.star)" in text or how == "table", text
    listing(near, hand=1)
    assert run(*command).exit_code != 0


def test_tables_that_contradict_each_other_are_told(project, tmp_path):
    near = project.folder / "AlignTiltSeries" / "job005"
    listing(near / "b.star", hand=1)
    listing(near / "a_cryolithe.star", size=(9, 9, 9))  # of volumes that were made here
    listing(near / "c.star", name="of_other_name")
    said = made(project.stack, "--star", project.folder / OWN, *FBP, "-o", tmp_path / "v.mrc")
    text = " ".join(said.stderr.split())
    assert "aligned_tilt_series.star, which lists ts.star, tells" in text
    assert "aligned_tilt_series.star and b.star both list ts.star and differ in rlnTomoHand (-1, 1)" in text
    assert "a_cryolithe" not in text
    assert record_of(tmp_path / "v.mrc")["volume"]["shape_zyx"] == list(VOLUME)


def test_a_series_is_told_by_its_images_where_its_name_tells_nothing(project, tmp_path):
    """A table may call a series by another name than its stack."""
    given = listing(
        project.folder / "subset.star", 1, 200, name="lamella_7", rows=[f"b 300 2.7 0.1 -1 {PIXEL} b.star 9 9 9"]
    )
    assert read_tomogram_star(given)[0].tilts == project.stack
    made(project.stack, "--star", given, *FBP, *CTF, "-o", tmp_path / "v.mrc")
    assert record_of(tmp_path / "v.mrc")["method"]["corrections"]["ctf"]["voltage_kv"] == 200
    listing(given, rows=[f"other 300 2.7 0.1 -1 {PIXEL} {OWN} 9 9 9"])
    assert all("lists the images of" in entry.problem for entry in read_tomogram_star(given))
