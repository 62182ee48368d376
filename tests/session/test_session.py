"""Whole sessions: a folder, a list or RELION's table in; volumes, a summary and an exit code out."""

from __future__ import annotations

import csv
import html.parser
import json
import shutil
from urllib.parse import unquote

import numpy as np
import pytest
from command import refusal_of
from projects import BEADS, VOLUME, bead_places, make_project, write_aretomo
from shared_data import SHARED, needs_shared
from tiny_series import ANGLES, SHAPE, bead_images, made, noise, run, voxels, write_series

from cryolithe.errors import InputError
from cryolithe.files.hashing import file_sha256
from cryolithe.formats import write_stack
from cryolithe.formats.alignment.relion_listing import find_series_table
from cryolithe.formats.alignment.tomogram_star import MadeTomogram, read_tomogram_star, write_tomogram_star
from cryolithe.formats.reading import Reading
from cryolithe.formats.series.session_folder import read_session_folder
from cryolithe.formats.stacks.mdoc import MdocImage, write_mdoc
from cryolithe.reconstruction import run as run_module
from cryolithe.reconstruction.slabwise.slab_folder import SlabFolder
from cryolithe.session.tasks import Session, find_tasks
from cryolithe.session.watching import Settled
from cryolithe.work.folder import WorkFolder

FBP = ("--method", "fbp", "--thickness", 10)


def table(folder):
    with (folder / "cryolithe_summary.csv").open(newline="") as file:
        return {row["series"]: row for row in csv.DictReader(file)}


class Images(html.parser.HTMLParser):
    """The pictures that a page shows."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.found.append(unquote(dict(attrs)["src"]))


@pytest.mark.slow
def test_a_folder_is_worked_through_and_repeated_without_repeating_work(tmp_path):
    (tmp_path / "grid ü").mkdir()
    write_series(tmp_path, name="one_ali")
    write_series(tmp_path, name="one")  # what the aligned stack was made of
    write_series(tmp_path / "grid ü", bead_images(SHAPE, (5, 3, 1)), name="two")
    (tmp_path / "bad.st").write_bytes(b"no MRC file")
    (tmp_path / "bad.tlt").write_text("1\n2\n")
    (tmp_path / "picture.mrc").write_bytes(b"no angles beside it")
    first = run(tmp_path, *FBP)
    assert first.exit_code == 1, first.output
    assert "3 series: 2 to do" in first.stderr
    assert "1 of 3 series failed" in first.stderr
    assert "picture.mrc" in first.stderr
    rows = table(tmp_path)
    assert {name: row["status"] for name, row in rows.items()} == {"bad": "failed", "one": "done", "two": "done"}
    assert "bad.st is not an MRC file" in rows["bad"]["message"]
    assert [rows["two"][axis] for axis in "zyx"] == ["10", *map(str, SHAPE)]
    assert rows["two"]["voxel_size_angstrom"] == "5"
    assert float(rows["two"]["fit_to_images"]) > 0.5
    page = (tmp_path / "cryolithe_summary.html").read_text(encoding="utf-8")
    pictures = Images(page).found
    assert pictures == ["one_ali_rec.png", "grid ü/two_rec.png"]
    assert all((tmp_path / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert "bad.st is not an MRC file" in page

    written = (tmp_path / "one_ali_rec.mrc").stat().st_mtime_ns
    (tmp_path / "bad.st").unlink()
    again = made(tmp_path, *FBP)
    assert "0 to do" in again.stderr
    assert {row["status"] for row in table(tmp_path).values()} == {"skipped"}
    assert (tmp_path / "one_ali_rec.mrc").stat().st_mtime_ns == written


def test_results_go_into_another_folder_and_the_session_stays_as_it_is(tmp_path):
    session, results = tmp_path / "session", tmp_path / "results"
    session.mkdir(), results.mkdir()
    write_series(session)
    before = sorted(session.iterdir())
    made(session, *FBP, "-o", results)
    assert sorted(session.iterdir()) == before
    assert {path.name for path in results.iterdir()} == {
        *("ts_rec.mrc", "ts_rec.json", "ts_rec.png", "cryolithe_summary.csv", "cryolithe_summary.html")
    }


def test_whatever_goes_wrong_with_a_series_is_its_own_affair(tmp_path, monkeypatch):
    for name in ("one", "two"):
        write_series(tmp_path, name=name)
    from cryolithe.reconstruction import run as running

    finish = running.finish

    def fails_once(job_run, *rest):
        if job_run.job.tilts.stem == "one":
            raise RuntimeError("a bug")
        return finish(job_run, *rest)

    monkeypatch.setattr(running, "finish", fails_once)
    result = run(tmp_path, *FBP)
    assert result.exit_code == 1
    assert {name: row["status"] for name, row in table(tmp_path).items()} == {"one": "failed", "two": "done"}
    assert "RuntimeError: a bug" in table(tmp_path)["one"]["message"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("a.mrc,a.tlt,b.mrc\nb.mrc,b.tlt,c.mrc\n", "line 2 would write"),
        ("a.mrc,a.tlt,x.mrc\nb.mrc,b.tlt,x.map\n", "lines 2 and 3 would both write"),
        ("a.mrc,a.tlt,x.mrc\nb.mrc,x.json,y.mrc\n", "line 2 would write"),
    ],
)
def test_no_series_writes_what_another_reads_or_writes(rows, says, tmp_path):
    for name in "ab":
        write_series(tmp_path, name=name)
    listing = tmp_path / "list.csv"
    listing.write_text("tilts,angles,output\n" + rows)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = run(listing, *FBP, "--overwrite")
    assert result.exit_code == 2
    assert says in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# Which files are a series


@pytest.mark.parametrize(
    ("names", "stack", "angles", "problem"),
    [
        (("a.st", "a.tlt", "a.rawtlt"), "a.st", "a.tlt", ""),
        (("a.st", "a_ali.mrc", "a.rawtlt"), "a_ali.mrc", "a.rawtlt", ""),
        (("a.mrc", "a_TLT.txt", "a_Vol.mrc", "a_EVN.mrc", "a_ODD.mrc"), "a.mrc", "a_TLT.txt", ""),
        (("a.ali", "a.tlt", "a_rec.mrc", "a_full_rec.mrc", "rec_a.mrc"), "a.ali", "a.tlt", ""),
        (("a.st",), "a.st", "a.tlt", "no angle file"),
        (("a.st", "a.tlt", "a.xf"), "a.st", "a.tlt", ""),
        (("a.mrc", "a.aln", "a_TLT.txt"), "a.mrc", None, ""),
        (("a.mrc", "a.aln"), "a.mrc", None, ""),
        (("a.st", "a.rawtlt", "newst.com", "tilt.com"), "a.st", None, ""),
        (("a.st", "a.rawtlt", "a.xml"), "a.st", None, ""),
        (("a.mrc", "a.tlt", "tilt.com", "b.aln"), "a.mrc", "a.tlt", ""),
        (("a.st", "a.mrc", "a.tlt"), "a.mrc", "a.tlt", "could both be"),
        (("a_ali.mrc", "a.xf", "a.tlt", "a.st"), "a_ali.mrc", "a.tlt", ""),
    ],
)
def test_names_tell_stacks_and_angles(names, stack, angles, problem, tmp_path):
    for name in (*names, ".hidden.mrc"):
        (tmp_path / name).write_bytes(b"")
    (entry,) = read_session_folder(tmp_path).entries
    assert (entry.tilts, entry.angles) == (tmp_path / stack, angles and tmp_path / angles)
    assert problem in entry.problem
    assert bool(problem) == bool(entry.problem)


def test_a_list_aligns_a_raw_stack(tmp_path, monkeypatch):
    """A list puts the beads where they are, and knows the same files under other names."""
    aln = write_aretomo(make_project(tmp_path))
    beads = ("--method", "fbp", "--contrast", "bright", "--thickness", VOLUME[0])
    listing = tmp_path / "list.csv"
    listing.write_text(f"tilts,aln\nts.mrc,{aln.name}\n")
    made(listing, *beads)
    np.testing.assert_allclose(bead_places(voxels(tmp_path / "ts_rec.mrc")), [b[:3] for b in BEADS], atol=0.1)
    assert (table(tmp_path)["ts"]["tilts"], table(tmp_path)["ts"]["left_out"]) == ("18", "2")
    assert "Images left out: 1, 12." in (tmp_path / "cryolithe_summary.html").read_text(encoding="utf-8")
    assert "0 to do" in made(listing, *beads).stderr
    monkeypatch.chdir(tmp_path)  # the same files under other names
    assert "0 to do" in made(listing.name, *beads).stderr
    aln.write_text(aln.read_text().replace("84.0000", "84.1000"))
    again = run(listing, *beads)
    assert again.exit_code == 1
    assert "ts_rec.mrc exists; give --overwrite" in again.stdout


def test_what_was_made_of_volumes_is_not_told_as_left_out(tmp_path):
    for name in ("ts.mrc", "ts.tlt", "ts_rec_samba.mrc", "ts_n2n.mrc", "report_agreement.mrc", "other.mrc"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in read_session_folder(tmp_path).left_out] == ["other.mrc"]
    (tmp_path / "ts_n2n.tlt").write_bytes(b"")
    assert [entry.tilts.name for entry in read_session_folder(tmp_path).entries] == ["ts.mrc", "ts_n2n.mrc"]


@pytest.mark.parametrize("watch", [(), ("--watch", "--settle", 0, "--idle", 0.001)])
def test_what_another_run_is_at_is_left_to_it_and_looked_at_again(watch, tmp_path, monkeypatch):
    write_series(tmp_path, name="one")
    write_series(tmp_path, name="two")
    held = WorkFolder(tmp_path / "one_rec.mrc.partial")
    first = made(tmp_path, *FBP, *watch)
    assert first.stdout.count("one_rec.mrc: left to a run that is at it: another run is writing this output") == 2
    assert {name: row["status"] for name, row in table(tmp_path).items()} == {"one": "to do", "two": "done"}
    held.release()
    shutil.rmtree(tmp_path / "one_rec.mrc.partial")
    held = WorkFolder(tmp_path / "one_rec.mrc.partial")
    plain, asked = SlabFolder.__init__, []

    def ends(self, path):
        asked.append(path)
        if len(asked) == 2:  # the other run gave up meanwhile
            held.remove()
        plain(self, path)

    monkeypatch.setattr(SlabFolder, "__init__", ends)
    made(tmp_path, *FBP, *watch)
    assert {name: row["status"] for name, row in table(tmp_path).items()} == {"one": "done", "two": "skipped"}


def test_what_another_run_has_finished_in_between_is_done_already(tmp_path, monkeypatch):
    stack, angles = write_series(tmp_path)
    other = run_module.SlabFolder

    def late(path):
        monkeypatch.setattr(run_module, "SlabFolder", other)
        made(stack, angles, *FBP)
        return other(path)

    monkeypatch.setattr(run_module, "SlabFolder", late)
    assert "already done" in made(tmp_path, *FBP).stdout
    assert table(tmp_path)["ts"]["status"] == "skipped"


def test_a_folder_without_series_is_refused(tmp_path):
    (tmp_path / "picture.mrc").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds no tilt series.*1 stacks have no angle file"):
        read_session_folder(tmp_path)


# RELION

STAR = """# version 50001

data_global

loop_
_rlnTomoName #1
_rlnVoltage #2
_rlnTomoTiltSeriesStarFile #3
_rlnMyOwn #4
_rlnTomoTiltSeriesPixelSize #5
_rlnTomoSizeZ #6
TS_1 200.000000 Tilts/TS_1.star 'two words' 5.0 10
TS_2 200.000000 Tilts/TS_2.star   1.50 5.0 10
TS_3 200.000000 Tilts/TS_3.star   1.50 5.0 10
"""
SERIES = """data_{name}

loop_
_rlnMicrographName #1
_rlnTomoYTilt #2
_rlnTomoZRot #3
_rlnTomoXShiftAngst #4
_rlnTomoYShiftAngst #5
"""


def project(folder):
    """An aligned series, one to be aligned whose third image is not used, and one of single images."""
    (folder / "Tilts").mkdir()
    for name, moved in (("TS_1", "0 0 0"), ("TS_2", "85.3 7.5 -12"), ("TS_3", "0 0 0")):
        stack, angles = write_series(folder / "Tilts", name=name, pixel_size=0)
        image = "Motion/{n}.mrc" if name == "TS_3" else "{n}@Tilts/" + stack.name
        lines = [f"{image.format(n=n)} {a} {moved}\n" for n, a in enumerate(angles.read_text().split(), start=1)]
        if name == "TS_2":
            del lines[2]
        if name == "TS_3":
            (folder / "Motion").mkdir()
            for n, image in enumerate(voxels(stack), start=1):
                write_stack(folder / "Motion" / f"{n}.mrc", image[None], None, "an image")
        (folder / "Tilts" / f"{name}.star").write_text(SERIES.format(name=name) + "".join(lines))
    (folder / "Job").mkdir()
    star = folder / "Job" / "tilt_series.star"
    star.write_text(STAR)
    return star


@pytest.mark.slow
def test_relions_table_in_and_out(tmp_path):
    star = project(tmp_path)
    third = (tmp_path / "Motion" / "3.mrc").rename(tmp_path / "elsewhere.mrc")
    result = run(star, "--method", "fbp")
    assert result.exit_code == 1, result.output
    assert star.read_text() == STAR
    rows = table(tmp_path / "Job")
    assert {name: row["status"] for name, row in rows.items()} == {"TS_1": "done", "TS_2": "done", "TS_3": "failed"}
    assert "TS_3.star names the image Motion/3.mrc, which is not there" in rows["TS_3"]["message"]
    assert [rows[name]["left_out"] for name in ("TS_1", "TS_2")] == ["0", "1"]
    assert {row["voxel_size_angstrom"] for row in rows.values()} == {"5", ""}
    for name in ("TS_1", "TS_2"):
        alone = (tmp_path / "Tilts" / f"{name}.mrc", "--star", tmp_path / "Tilts" / f"{name}.star")
        made(*alone, *FBP, "--pixel-size", 5, "-o", tmp_path / "same.mrc", "--overwrite")
        assert (voxels(tmp_path / "same.mrc") == voxels(tmp_path / "Tilts" / f"rec_{name}.mrc")).all()
    lines = (tmp_path / "Job" / "tilt_series_cryolithe.star").read_text().splitlines()
    cells = {line.split()[0]: line for line in lines if line.startswith("TS_")}
    assert cells["TS_1"].split("'") == ["TS_1 200.000000 Tilts/TS_1.star ", "two words", " 5.0 10 Tilts/rec_TS_1.mrc 1"]
    assert cells["TS_3"].split() == ["TS_3", "200.000000", "Tilts/TS_3.star", "1.50", "5.0", "10", "None", "1"]
    assert "_rlnTomoReconstructedTomogram" in "".join(lines)

    third.rename(tmp_path / "Motion" / "3.mrc")
    again = made(star, "--method", "fbp")
    assert "1 to do" in again.stderr
    assert "0 to do" in run(star, "--method", "fbp").stderr
    series = tmp_path / "Tilts" / "TS_1.star"
    series.write_text(series.read_text() + "\n")
    assert "rec_TS_1.mrc exists" in run(star, "--method", "fbp").stdout


def test_a_series_of_single_images_is_that_of_their_stack(tmp_path):
    """As RELION's motion correction leaves them, told by the series' own table."""
    project(tmp_path)
    series = tmp_path / "Tilts" / "TS_3.star"
    flags = (*FBP, "--pixel-size", 5)
    made(series, *flags)
    made(tmp_path / "Tilts" / "TS_3.mrc", "--star", series, *flags, "-o", tmp_path / "stack.mrc")
    assert (voxels(tmp_path / "Tilts" / "TS_3_rec.mrc") == voxels(tmp_path / "stack.mrc")).all()
    inputs = json.loads((tmp_path / "Tilts" / "TS_3_rec.json").read_text())["inputs"]
    assert inputs["image 2"] == {
        "path": str(tmp_path / "Motion" / "2.mrc"), "sha256": file_sha256(tmp_path / "Motion" / "2.mrc")
    }  # fmt: skip
    image = tmp_path / "Motion" / "2.mrc"
    write_stack(image, voxels(image)[None, :, 2:], None, "narrower", overwrite=True)
    refused = run(series, *flags, "-o", tmp_path / "other.mrc")
    assert refused.exit_code == 2
    assert f"{image} holds 1 x {SHAPE[0]} x {SHAPE[1] - 2} pixels (images, y, x), expected 1 x" in refused.stderr
    image.unlink()
    refused = run(series, *flags, "-o", tmp_path / "other.mrc")
    missing = f"Error: {series} names the image Motion/2.mrc, which is not there; give the table where it lies in its"
    assert refused.stderr == f"{missing} project, or mend the paths in a copy of it\n"
    stacked = run(tmp_path / "Tilts" / "TS_1.star", *flags, "-o", tmp_path / "other.mrc")
    assert "names images of the stack Tilts/TS_1.mrc; give that stack, and --star" in stacked.stderr


@pytest.mark.parametrize(
    ("cells", "found", "flags"),
    [
        ("5,0 10", "expected a number for rlnTomoTiltSeriesPixelSize, found '5,0'", {"pixel_size": 5.0}),
        ("5.0 1D+01", "expected a number for rlnTomoSizeZ, found '1D+01'", {"thickness": 10}),
    ],
)
def test_a_size_that_cannot_be_read_is_the_problem_of_its_series(tmp_path, cells, found, flags):
    """It is not taken for one that nobody told, as the header's could be another. An option replaces it."""
    star = project(tmp_path)
    star.write_text(STAR.replace("1.50 5.0 10\nTS_3", f"1.50 {cells}\nTS_3"))
    first, second, third = (task.problem for task in find_tasks(Session(star), {}, {}, "")[0])
    assert f"{star}: {found}" in second
    assert first == third == ""
    assert not any(task.problem for task in find_tasks(Session(star), flags, {}, "")[0])


def test_paths_with_backslashes_are_found(tmp_path):
    """Tables that were written on Windows."""
    star = project(tmp_path)
    star.write_text(STAR.replace("Tilts/", "Tilts\\"))
    series = tmp_path / "Tilts" / "TS_2.star"
    series.write_text(series.read_text().replace("@Tilts/", "@Tilts\\"))
    for entry, number in zip(read_tomogram_star(star), (1, 2, 3), strict=True):
        assert entry.problem == ""
        assert entry.settings["star"] == str(star)
        assert find_series_table(star, entry.tilts, Reading()) == tmp_path / "Tilts" / f"TS_{number}.star"
        assert number == 3 or entry.tilts == tmp_path / "Tilts" / f"TS_{number}.mrc"


def test_sizes_below_0_are_not_told(tmp_path):
    star = project(tmp_path)
    star.write_text(STAR.replace("5.0 10", "-1 -999"))
    tasks, _ = find_tasks(Session(star), {}, {}, "")
    assert {(task.problem, task.job.settings.pixel_size, task.job.settings.thickness) for task in tasks} == {
        ("", None, None)
    }


@pytest.mark.parametrize(("flags", "thickness"), [({}, 10), ({"bin": 4}, 2), ({"thickness": 7}, 7)])
def test_the_depth_of_relions_table_is_that_of_the_volume(flags, thickness, tmp_path):
    tasks, _ = find_tasks(Session(project(tmp_path)), flags, {}, "")
    assert {task.job.settings.thickness for task in tasks} == {thickness}


@pytest.mark.slow
def test_stacks_that_were_binned_after_relion_aligned_them_are_taken_as_by_star(tmp_path):
    """The table's pixels are half of the stack's: sizes and shifts count in those of the stack."""
    star = project(tmp_path)
    star.write_text(STAR.replace("TS_3 200", "#TS_3 200"))
    for name in ("TS_1", "TS_2"):
        stack = tmp_path / "Tilts" / f"{name}.mrc"
        write_stack(stack, voxels(stack), 10.0, "binned by 2", overwrite=True)
    run(star, "--method", "fbp")
    for name in ("TS_1", "TS_2"):
        alone = (tmp_path / "Tilts" / f"{name}.mrc", "--star", tmp_path / "Tilts" / f"{name}.star")
        made(*alone, "--method", "fbp", "--thickness", 5, "-o", tmp_path / "same.mrc", "--overwrite")
        assert (voxels(tmp_path / "same.mrc") == voxels(tmp_path / "Tilts" / f"rec_{name}.mrc")).all()
    assert {row["voxel_size_angstrom"] for row in table(tmp_path / "Job").values()} == {"10"}
    lines = (tmp_path / "Job" / "tilt_series_cryolithe.star").read_text().splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("TS_")] == ["2", "2"]


def test_relions_table_tells_the_volumes_that_it_names(tmp_path):
    star = tmp_path / "tomograms.star"
    columns = ("Name", "TiltSeriesStarFile", "TiltSeriesPixelSize", "SizeX", "SizeY", "SizeZ",
               "ReconstructedTomogramHalf1", "ReconstructedTomogramHalf2")  # fmt: skip
    heads = "".join(f"_rlnTomo{column}\n" for column in columns)
    rows = "".join(f"{name} {name}.star 2.0 80 88 64 old_half1.mrc old_half2.mrc\n" for name in "abc")
    star.write_text(f"data_global\n\nloop_\n{heads}{rows}\n")
    volumes = {
        "a": MadeTomogram("a.mrc", (16, 28, 24), 8.0, 4),  # z, y, x
        "b": MadeTomogram("b.mrc", (32, 44, 40), 4.0, 2),  # as the table says
    }
    for pixel in (0.0, -1.0, float("inf")):
        assert volumes["a"].binning(pixel) == 4
    write_tomogram_star(star, tmp_path / "out.star", volumes)
    told = {line.split()[0]: line.split()[3:] for line in (tmp_path / "out.star").read_text().splitlines()[2:] if line}
    assert told["a"] == ["96", "112", "64", "None", "None", "a.mrc", "4"]
    assert told["b"] == ["80", "88", "64", "None", "None", "b.mrc", "2"]
    assert told["c"] == ["80", "88", "64", "old_half1.mrc", "old_half2.mrc", "None", "1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"), [(("--orientation", "xzy"), "have other axes"), (("--flip-z",), "are mirrored along z")]
)
def test_volumes_that_relions_table_cannot_tell_are_not_in_it(words, says, tmp_path):
    star = project(tmp_path)
    result = run(star, "--method", "fbp", *words)
    assert says in result.stderr
    lines = (tmp_path / "Job" / "tilt_series_cryolithe.star").read_text().splitlines()
    assert {line.split()[-2] for line in lines if line.startswith("TS_")} == {"None"}


@pytest.mark.slow
def test_warnings_of_the_images_stand_in_summary_page_and_record(tmp_path):
    stack, _ = write_series(tmp_path)
    write_stack(stack, voxels(stack), 1000.0, "in another unit", overwrite=True)
    result = run(tmp_path, *FBP)
    assert "is it in another unit?" in result.stderr
    row = next(iter(table(tmp_path).values()))
    assert "is it in another unit?" in row["warnings"]
    assert "is it in another unit?" in (tmp_path / "cryolithe_summary.html").read_text()
    record = json.loads(stack.with_name(f"{stack.stem}_rec.json").read_text())
    assert any("is it in another unit?" in text for text in record["warnings"])


@pytest.mark.parametrize("link", ["latest", "loop"])
def test_links_within_a_folder_are_no_series_more(link, tmp_path):
    (tmp_path / "run2").mkdir()
    write_series(tmp_path / "run2")
    (tmp_path / link).symlink_to("run2" if link == "latest" else ".")
    assert [entry.tilts.parent.name for entry in read_session_folder(tmp_path).entries] == ["run2"]


@needs_shared
def test_a_real_table_keeps_every_value(tmp_path):
    source = SHARED / "formats" / "relion5" / "tomograms.star"
    entries = read_tomogram_star(source)
    target = tmp_path / "again.star"
    write_tomogram_star(
        source, target, {entries[1].name: MadeTomogram("my/volume.mrc", (500, 1000, 1000), 4 * 1.724, 1)}
    )
    before = [line.split() for line in source.read_text().splitlines() if line.startswith("tomo")]
    after = [line.split() for line in target.read_text().splitlines() if line.startswith("tomo")]
    before[1][12], before[1][8] = "my/volume.mrc", "4"
    assert after == before


# Following an acquisition


def test_a_series_is_ready_when_its_files_have_stopped_changing(tmp_path):
    stack, angles = write_series(tmp_path)
    now = [0.0]
    settled = Settled(60, lambda: now[0])

    def ready(at):
        now[0] = at
        tasks, _ = find_tasks(Session(tmp_path), {}, {}, "")
        return [task.name for task in settled.ready(tasks)]

    assert ready(0) == []
    assert ready(59) == []
    with stack.open("ab") as file:
        file.write(b"another image")
    assert ready(61) == []
    assert ready(100) == []
    assert settled.waiting == 1
    assert ready(121) == ["ts"]
    assert ready(300) == []  # once is enough
    assert settled.waiting == 0
    angles.write_text(angles.read_text() + "60\n")
    assert ready(301) == []
    assert ready(362) == ["ts"]


def test_a_row_of_a_list_waits_for_every_file_that_it_needs(tmp_path):
    """Two rows of one stack: one with a command file that names the angles, one with angles of its own."""
    angles = write_series(tmp_path)[1]
    listing, command = tmp_path / "list.csv", tmp_path / "tilt.com"
    listing.write_text("tilts,angles,tilt_com,output\nts.mrc,,tilt.com,a.mrc\nts.mrc,ts.tlt,,b.mrc\n")
    now = [0.0]
    settled = Settled(60, lambda: now[0])

    def ready(at):
        now[0] = at
        tasks, _ = find_tasks(Session(listing), {}, {}, "")
        return [task.job.output.name for task in settled.ready(tasks)]

    assert ready(0) == []
    assert ready(61) == ["b.mrc"]
    command.write_text("$tilt -StandardInput\nTILTFILE late.tlt\n")
    assert ready(100) == []
    assert ready(200) == []  # the angles that it names are not there
    shutil.copy(angles, tmp_path / "late.tlt")
    assert ready(201) == []
    assert ready(261) == ["a.mrc"]
    command.write_text("$tilt -StandardInput\nTILTFILE late.tlt\nTHICKNESS 20\n")
    assert ready(300) == []
    assert ready(361) == ["a.mrc"]


def test_a_list_with_alignments_can_be_watched(tmp_path):
    stack, angles = write_series(tmp_path)
    (tmp_path / "ts.xf").write_text("1 0 0 1 2 -1\n" * len(angles.read_text().split()))
    listing = tmp_path / "list.csv"
    listing.write_text("tilts,angles,xf,output\nts.mrc,ts.tlt,ts.xf,a.mrc\nts.mrc,ts.tlt,,b.mrc\n")
    made(listing, *FBP, "--watch", "--settle", 0, "--idle", 0.005)
    made(stack, angles, "--xf", tmp_path / "ts.xf", *FBP, "-o", tmp_path / "c.mrc")
    assert (voxels(tmp_path / "a.mrc") == voxels(tmp_path / "c.mrc")).all()
    assert (voxels(tmp_path / "a.mrc") != voxels(tmp_path / "b.mrc")).any()


def test_a_list_that_is_broken_meanwhile_does_not_end_the_watch(tmp_path, monkeypatch):
    write_series(tmp_path)
    listing = tmp_path / "list.csv"
    good = "tilts,angles\nts.mrc,ts.tlt\n"
    contents = [good, "tilts,angles,bin\nts.mrc,ts.tlt,tw", "tilts,angles\nts.mrc,ts.tlt\nts.mrc,ts.tlt\n", "", good]

    def look(session, *given):
        listing.write_text(contents.pop(0))
        return find_tasks(session, *given)

    monkeypatch.setattr("cryolithe.cli.session.find_tasks", look)
    monkeypatch.setattr("cryolithe.cli.session.rounds", lambda *_: range(len(contents)))
    listing.write_text(good)
    result = made(listing, *FBP, "--watch", "--settle", 0)
    assert contents == []
    waits = [line for line in result.stderr.splitlines() if line.startswith("Waiting: ")]
    assert ["'bin': " in waits[0], "would both write" in waits[1], "is empty" in waits[2], len(waits)] == [True] * 3 + [
        3
    ]
    assert table(tmp_path)["ts"]["status"] == "done"
    assert run(tmp_path / "list.csv", "--watch", "--bin", 0).exit_code == 2


def test_watching_takes_what_comes_and_ends_when_nothing_does(tmp_path):
    write_series(tmp_path, name="one")
    (tmp_path / "two.st").write_bytes(b"still without its angles")
    result = made(tmp_path, *FBP, "--watch", "--settle", 0, "--idle", 0.005)
    assert "one_rec.mrc: 10 x" in result.stdout
    assert {name: row["status"] for name, row in table(tmp_path).items()} == {"one": "done"}
    shutil.copy(tmp_path / "one.mrc", tmp_path / "three.mrc")
    shutil.copy(tmp_path / "one.tlt", tmp_path / "three.tlt")
    made(tmp_path, *FBP, "--watch", "--settle", 0, "--idle", 0.005)
    assert {name: row["status"] for name, row in table(tmp_path).items()} == {"one": "skipped", "three": "done"}
    assert voxels(tmp_path / "three_rec.mrc").shape == (10, *SHAPE)


def test_watching_says_what_it_waits_for_and_when_it_ends(tmp_path, monkeypatch):
    """One series is complete, one lacks a file, one has an empty one, one is still changing."""
    for name in ("one", "two", "three", "four"):
        write_series(tmp_path, name=name)
    (tmp_path / "five.st").write_bytes(b"still without its angles")
    listing = tmp_path / "list.csv"
    listing.write_text("tilts,angles\n" + "".join(f"{n}.mrc,{n}.tlt\n" for n in ("one", "two", "three", "four")))
    (tmp_path / "two.tlt").rename(tmp_path / "late.tlt")
    (tmp_path / "three.mrc").write_bytes(b"")
    ticks, looks = [0.0], []

    def rounds(*_):
        for number in range(5):
            ticks[0] = 100.0 * number
            if number == 2:
                with (tmp_path / "four.tlt").open("a") as file:
                    file.write("\n")
            if number == 3:
                (tmp_path / "late.tlt").rename(tmp_path / "two.tlt")
            looks.append(number)
            yield number

    monkeypatch.setattr("cryolithe.cli.session.rounds", rounds)
    monkeypatch.setattr("cryolithe.cli.session.Settled", lambda seconds: Settled(seconds, lambda: ticks[0]))
    result = run(listing, *FBP, "--watch", "--settle", 60, "--idle", 3)
    assert result.exit_code == 1  # one that was done has changed
    lines = [line for line in result.stderr.splitlines() if line.startswith("Wa")]
    recent = "(its files changed less than 60 s ago)"
    assert lines[0] == (
        f"Watching {listing} until nothing has come for 3 min; a series is taken when all of its files are there and "
        "have not changed for 60 s"
    )
    missing = "two (two.tlt is not there), three (three.mrc is empty)"
    assert lines[1] == f"Waiting for 4 series: one {recent}, {missing}, four {recent}"
    assert lines[2] == f"Waiting for 2 series: {missing}"
    assert lines[3] == f"Waiting for 3 series: {missing}, four {recent}"
    assert lines[4] == f"Waiting for 2 series: two {recent}, three (three.mrc is empty)"
    assert lines[5] == "Waiting for 1 series: three (three.mrc is empty)"
    outcome = "2 done, 1 failed, 1 not complete"
    assert lines[6].startswith(f"Watching ended, for nothing has come for 3 min: {outcome}; summary: ")
    assert len(lines) == 7


def test_watching_waits_for_the_files_of_defocus_and_dose(tmp_path, monkeypatch):
    write_series(tmp_path, name="ts_ali")
    images = [MdocImage(float(angle), 3.0, 3.0 * n, -3.0, n) for n, angle in enumerate(ANGLES)]

    def rounds(*_):
        for number in range(6):
            if number == 2:
                rows = "# Columns: #1 micrograph number; #2 - defocus 1 [A]; #3; #4; #5; #6; #7; dfHand\n"
                rows += "".join(f"{n} 30000 29000 10 0 0.1 8 1\n" for n in range(1, len(ANGLES) + 1))
                (tmp_path / "ts_ali_CTF.txt").write_text(rows)
            if number == 4:
                write_mdoc(tmp_path / "ts_ali.mrc.mdoc", "ts_ali.mrc", images, 5.0, SHAPE, 300)
            yield number

    monkeypatch.setattr("cryolithe.cli.session.rounds", rounds)
    result = made(tmp_path, *FBP, "--ctf", "flip", "--dose-weight", "--watch", "--settle", 0, "--idle", 1)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Waiting")]
    assert lines == [
        "Waiting for 1 series: ts (no file tells its defocus, which --ctf flip needs)",
        "Waiting for 1 series: ts (no file tells its doses, which --dose-weight needs)",
        "Waiting for new series",
    ]
    assert table(tmp_path)["ts"]["status"] == "done"
    record = json.loads((tmp_path / "ts_ali_rec.json").read_text())
    assert {"ctf", "dose"} <= record["inputs"].keys()


def test_a_series_that_goes_by_another_name_now_is_not_waited_for(tmp_path):
    """Renamed before it was taken, or with better angles that came later."""
    now = [0.0]
    settled = Settled(60, lambda: now[0])

    def ready(at):
        now[0] = at
        return [
            (task.name, task.job.angles.name) for task in settled.ready(find_tasks(Session(tmp_path), {}, {}, "")[0])
        ]

    for path in write_series(tmp_path, name="tmp"):
        path.rename(tmp_path / f"tmp{path.suffix.replace('tlt', 'rawtlt')}")
    assert ready(0) == []
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / f"ts{path.suffix}")
    assert ready(10) == []
    assert settled.waiting == 1
    shutil.copy(tmp_path / "ts.rawtlt", tmp_path / "ts.tlt")
    assert ready(20) == []
    assert ready(80) == [("ts", "ts.tlt")]
    assert settled.waiting == 0


@pytest.mark.parametrize("first", ["TS_01", "TS_02"])
def test_series_that_would_write_one_volume_do_not_end_the_watch(first, tmp_path, monkeypatch):
    source, later = tmp_path / "in", {"TS_01": "TS_02", "TS_02": "TS_01"}[first]
    places = [first, later, "TS_03"]

    def rounds(*_):
        for number in range(6):
            if number < 3:
                (source / places[number]).mkdir(parents=True)
                write_series(source / places[number], noise() + number, name="stack" if number < 2 else "ts")
            if number == 4:  # even --overwrite is not for the volume of another one
                (source / later / "stack.mrc").touch()
            yield number

    monkeypatch.setattr("cryolithe.cli.session.rounds", rounds)
    source.mkdir()
    result = run(source, "-o", tmp_path / "out", *FBP, "--overwrite", "--watch", "--settle", 0, "--idle", 1)
    assert result.exit_code == 1
    assert "2 done, 1 failed; summary" in result.stderr
    (told, *_) = [line for line in result.stdout.splitlines() if "would both write" in line]
    assert told.startswith(f"{source / later / 'stack.mrc'}: failed: ")
    record = json.loads((tmp_path / "out" / "stack_rec.json").read_text())
    assert record["inputs"]["tilts"]["path"] == str(source / first / "stack.mrc")
    assert (tmp_path / "out" / "ts_rec.mrc").is_file()
    assert run(source, "-o", tmp_path / "out", *FBP).exit_code == 2


def test_a_watched_list_that_is_refused_to_the_end_is_an_error(tmp_path, monkeypatch):
    write_series(tmp_path)
    listing = tmp_path / "list.csv"
    contents = ["tilts,angles\nts.mrc,ts.tlt\n", "tilts,angles\nts.mrc,ts.tlt\nts.mrc,ts.tlt\n"]

    def rounds(*_):
        for number, content in enumerate(contents):
            listing.write_text(content)
            yield number

    monkeypatch.setattr("cryolithe.cli.session.rounds", rounds)
    listing.write_text("")
    result = run(listing, *FBP, "--watch", "--settle", 0, "--idle", 1)
    assert result.exit_code == 1
    assert "1 done" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: nothing more was taken, as to the end ")
    assert "lines 2 and 3 would both write" in result.stderr.splitlines()[-1]


def test_a_folder_that_is_not_there_cannot_be_watched(tmp_path):
    result = run(tmp_path / "nothere", *FBP, "--watch")
    assert result.exit_code == 2
    assert result.stderr == f"Error: {tmp_path / 'nothere'} does not exist; check its name and folder\n"


def test_a_watched_folder_in_which_nothing_comes_is_no_error(tmp_path):
    assert "no series came" in made(tmp_path, *FBP, "--watch", "--settle", 0, "--idle", 0.001).stderr


def test_watching_a_folder_names_stacks_without_angles(tmp_path):
    (tmp_path / "one.st").write_bytes(b"still without its angles")
    write_series(tmp_path, name="two")
    result = made(tmp_path, *FBP, "--watch", "--settle", 0, "--idle", 0.001)
    assert "Waiting for 1 series: one (one.tlt is not there)" in result.stderr
    assert f"Watching {tmp_path} until nothing has come for 0.001 min" in result.stderr
    assert "1 done, 1 not complete; summary: " in result.stderr


# Where volumes go


@pytest.mark.slow
@pytest.mark.parametrize("source", ["folder", "list", "list with names", "absolute names"])
def test_all_volumes_go_into_the_folder_of_o_which_is_made(source, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("one", "two"):
        write_series(raw, name=name)
    names = ["one_rec.mrc", "two_rec.mrc"]
    given = raw
    if source != "folder":
        given = raw / "list.csv"
        named = source != "list"
        names = ["a.mrc", "b.mrc"] if named else names
        where = f"{tmp_path}/elsewhere/" if source == "absolute names" else "sub/"
        cells = [f",{where}{name}" if named else "" for name in names]
        rows = [f"{n}.mrc,{n}.tlt{cell}" for n, cell in zip(("one", "two"), cells, strict=True)]
        given.write_text("\n".join(["tilts,angles" + (",output" if named else ""), *rows]) + "\n")
    folder = tmp_path / "new" / "volumes"
    dry = made(given, *FBP, "-o", folder, "--dry-run")
    assert "2 to do" in dry.stderr
    assert not folder.parent.exists()
    result = made(given, *FBP, "-o", folder)
    assert f"Made the folder {folder}" in result.stderr
    assert sorted(path.name for path in folder.glob("*.mrc")) == names
    assert (folder / "cryolithe_summary.html").is_file()
    assert not list(raw.glob("*_rec*"))
    assert "2 already done" in made(given, *FBP, "-o", folder).stderr


def test_names_of_a_list_that_meet_in_the_folder_of_o_are_refused(tmp_path):
    write_series(tmp_path, name="one")
    write_series(tmp_path, name="two")
    listing = tmp_path / "list.csv"
    listing.write_text("tilts,angles,output\none.mrc,one.tlt,a/v.mrc\ntwo.mrc,two.tlt,b/v.mrc\n")
    result = run(listing, *FBP, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "lines 2 and 3 would both write" in result.stderr
    assert not (tmp_path / "out").exists()


def test_stacks_of_one_name_in_a_folder_are_named(tmp_path):
    for place in ("a", "b"):
        (tmp_path / "raw" / place).mkdir(parents=True)
        write_series(tmp_path / "raw" / place)
    result = run(tmp_path / "raw", *FBP, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    stacks = (tmp_path / "raw" / place / "ts.mrc" for place in ("a", "b"))
    assert f"{' and '.join(map(str, stacks))} would both write {tmp_path / 'out' / 'ts_rec.mrc'}" in result.stderr
    assert "of a list (.csv), or name the stacks apart" in result.stderr
    assert "line" not in result.stderr


def test_an_output_that_stands_twice_in_a_list_is_told_as_it_stands_there(tmp_path):
    write_series(tmp_path)
    (tmp_path / "list.csv").write_text("tilts,angles,output\nts.mrc,ts.tlt,v.mrc\nts.mrc,ts.tlt,v.mrc\n")
    result = run(tmp_path / "list.csv", *FBP, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "line 3: the output v.mrc is that of line 2 too" in result.stderr


@pytest.mark.parametrize("words", [(), ("--list",)])
def test_a_list_of_another_kind_is_told_what_lists_are(words, tmp_path):
    write_series(tmp_path)
    (tmp_path / "list.yaml").write_text("- tilts: ts.mrc\n  angles: ts.tlt\n")
    result = run(*words, tmp_path / "list.yaml", *FBP)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "a list is a CSV file (.csv) with the columns tilts and angles, or RELION's .star" in result.stderr


@pytest.mark.parametrize("name", ["v.mrc", "v.zarr", "list.csv"])
def test_o_of_a_session_is_no_file(name, tmp_path):
    write_series(tmp_path)
    (tmp_path / "list.csv").write_text("tilts,angles\nts.mrc,ts.tlt\n")
    before = sorted(tmp_path.iterdir())
    result = run(tmp_path / "list.csv", *FBP, "-o", tmp_path / name)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "-o takes" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("watch", [(), ("--watch", "--settle", 0, "--idle", 0.001)])
def test_a_failure_is_told_once(watch, tmp_path):
    write_series(tmp_path, name="good")
    write_series(tmp_path, name="bad")
    (tmp_path / "bad.tlt").write_text("1\n2\n")
    result = run(tmp_path, *FBP, *watch)
    assert result.exit_code == 1
    assert result.output.count("failed: ") == 1
    assert (result.stdout + result.stderr).count("bad.tlt") == 1


def test_halves_that_are_tables_are_refused_in_one_line(tmp_path):
    project(tmp_path)
    series = tmp_path / "Tilts" / "TS_3.star"
    refused = run("--even", series, "--odd", series, *FBP, "--pixel-size", 5, "-o", tmp_path / "out.mrc")
    assert refusal_of(refused).startswith(f"Error: {series} is a table; halves of the frames are stacks")
