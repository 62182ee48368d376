"""Projects of IMOD and RELION that were moved: paths in command files and tables are those of another machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from command import call, good, refusal_of
from projects import PIXEL, VOLUME, make_project, write_imod, write_relion
from tiny_series import made, voxels

from cryolithe.formats import write_stack
from cryolithe.formats.alignment.tomogram_star import find_image, find_named

FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", VOLUME[0])
AWAY = ["/data/lab/user/{}", "../elsewhere/{}", "C:\\data\\{}"]


def moved(project, form):
    """Command files with such paths, and the volume as it should be."""
    _, newst, tilt = write_imod(project, ["XTILTFILE ts.xtilt"])
    (project.folder / "ts.xtilt").write_text("0.5\n" * len(voxels(project.stack)))
    made(project.stack, "--newst-com", newst, "--tilt-com", tilt, *FBP, "-o", project.folder.parent / "here.mrc")
    for path in (newst, tilt):
        text = path.read_text()
        for name in ("ts.xf", "ts.tlt", "ts.xtilt"):
            for key in ("FILE", "File"):
                text = text.replace(f"{key} {name}", f"{key} {form.format(name)}")
        path.write_text(text)
    return newst, tilt


@pytest.mark.parametrize("form", AWAY)
def test_files_are_taken_by_name_from_the_folder_of_the_command_file(form, tmp_path):
    project = make_project(tmp_path / "raw")
    newst, tilt = moved(project, form)
    said = made(project.stack, "--newst-com", newst, "--tilt-com", tilt, *FBP, "-o", tmp_path / "v.mrc").stderr
    np.testing.assert_array_equal(voxels(tmp_path / "v.mrc"), voxels(tmp_path / "here.mrc"))
    for name in ("ts.xf", "ts.tlt", "ts.xtilt"):
        assert f"is not there; {name} beside it is taken" in " ".join(said.split())
    inputs = json.loads((tmp_path / "v.json").read_text())["inputs"]
    assert {"ts.xf", "ts.tlt", "ts.xtilt"} <= {Path(entry["path"]).name for entry in inputs.values()}


def test_a_folder_tells_what_is_missing(tmp_path):
    project = make_project(tmp_path / "raw")
    moved(project, AWAY[0])
    assert "does not exist" not in good("info", project.folder).output
    (project.folder / "ts.xf").unlink()
    assert "/data/lab/user/ts.xf does not exist" in " ".join(good("info", project.folder).output.split())
    assert call("reconstruct", project.folder, *FBP).exit_code == 1


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("s.dat", b"\x89HDF\r\n\x1a\n" + bytes(200), "is an HDF5 file"),
        ("s.eer", b"II+\0\x08\0\0\0" + bytes(200), "holds the frames of one exposure (EER)"),
        ("s.npy", b"\x93NUMPY" + bytes(200), "is a NumPy array"),
    ],
)
def test_what_else_a_file_is_is_told_by_info_as_by_reconstruct(name, content, kind, tmp_path):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "s.tlt").write_text("-10\n0\n10\n")
    assert kind in refusal_of(call("info", tmp_path / name))
    assert kind in refusal_of(call("reconstruct", tmp_path / name, tmp_path / "s.tlt", *FBP))


def of_relion(project, image="MotionCorr/{}"):
    """A table of single images in RELION's project, which names them so."""
    folder = project.folder
    (folder / "MotionCorr").mkdir()
    _, table = write_relion(project, dark=(), parts=False)
    for number, values in enumerate(voxels(project.stack)):
        write_stack(folder / f"MotionCorr/ts_{number:02d}.mrc", values[None], PIXEL, "an image")
    plain = table.read_text()
    table.write_text(re.sub(r"MotionCorr/(\S+)", lambda found: image.format(found.group(1)), plain))
    return table


@pytest.mark.parametrize("form", ["/data/lab/p/MotionCorr/{}", "D:\\lab\\p\\MotionCorr\\{}"])
def test_images_of_relion_are_found_in_the_project_that_was_moved(form, tmp_path):
    project = make_project(tmp_path / "raw")
    table = of_relion(project, form)
    said = " ".join(made(table, *FBP, "-o", tmp_path / "v.mrc").stderr.split())
    assert "is not there; " in said
    assert "MotionCorr/ts_00.mrc is taken, and so are the other images" in said
    table.write_text(table.read_text().replace(form.format(""), "MotionCorr/"))
    assert "is taken, and so" not in made(table, *FBP, "-o", tmp_path / "here.mrc").stderr
    np.testing.assert_array_equal(voxels(tmp_path / "v.mrc"), voxels(tmp_path / "here.mrc"))
    assert json.loads(good("info", table, "--json").stdout)[0]["missing_files"] == []


def test_the_longest_end_of_a_path_is_taken_and_no_name_alone(tmp_path):
    for folder in ("a/b", "b", "."):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "i.mrc").touch()
    table = tmp_path / "t.star"
    assert find_image(table, "/gone/a/b/i.mrc") == tmp_path / "a/b/i.mrc"
    assert find_image(table, "/gone/c/b/i.mrc") == tmp_path / "b/i.mrc"
    assert find_image(table, "/gone/i.mrc") is None
    assert find_image(table, "gone/b/i.mrc") is None
    assert find_named(table, "/gone/a/b/i.mrc") is None


def test_tables_of_another_project_are_not_taken_for_this_ones(tmp_path):
    project = make_project(tmp_path / "raw")
    tomograms, series = write_relion(project)
    name = "Tomograms/job009/tilt_series/ts.star"
    (project.folder / name).parent.mkdir(parents=True)
    series.rename(project.folder / name)
    series.parent.rmdir()
    text = tomograms.read_text().replace("Tomograms/job009/tilt_series/other.star", name)
    tomograms.write_text(text.replace("other ", "ts2 ").replace(name, f"/gone/otherproject/{name}"))
    told = refusal_of(call("reconstruct", project.stack, "--star", tomograms, *FBP, "-o", tmp_path / "v.mrc"))
    assert f"names /gone/otherproject/{name}, which is not there" in told
    assert (
        json.loads(good("info", tomograms, "--json").stdout)[0]["missing_files"] == [f"/gone/otherproject/{name}"] * 2
    )


def test_images_that_were_moved_are_told_where_the_first_is_there(tmp_path):
    project = make_project(tmp_path / "raw")
    table = of_relion(project)
    table.write_text(table.read_text().replace("MotionCorr/ts_03", "/gone/MotionCorr/ts_03"))
    table.write_text(table.read_text().replace("MotionCorr/ts_05", "/gone/MotionCorr/ts_05"))
    said = " ".join(made(table, *FBP, "-o", tmp_path / "v.mrc").stderr.split())
    assert "/gone/MotionCorr/ts_03.mrc of ts.star is not there; " in said
    assert f"is taken, as for 2 of {len(voxels(project.stack))} images in all" in said


def test_single_images_that_are_tiff_files_are_refused_with_what_to_do(tmp_path):
    project = make_project(tmp_path / "raw")
    table = of_relion(project)
    for path in (project.folder / "MotionCorr").glob("*.mrc"):
        path.with_suffix(".tif").write_bytes(b"II*\0\x08\0\0\0" + bytes(200))
    table.write_text(table.read_text().replace(".mrc", ".tif"))
    told = refusal_of(call("reconstruct", table, *FBP, "-o", tmp_path / "v.mrc"))
    assert "ts_00.tif is a TIFF file" in told
    assert "tif2mrc ts_00.tif ts_00.mrc); do so with each image, and name the MRC files in a copy of the table" in told
