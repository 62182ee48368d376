"""The files of a series: each read once, hashed as read; and a new alignment format is one module and one entry."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE_S
from plain_mrc import new_mrc
from projects import ANGLES, VOLUME, make_project, write_aretomo, write_imod, write_relion, write_warp
from tiny_series import made, noise, run, write_series

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats import read_angles_deg, read_mrc, write_stack
from cryolithe.formats.files import read_text
from cryolithe.formats.reading import Reading
from cryolithe.formats.series.session_folder import read_session_folder
from cryolithe.formats.stacks.mdoc_text import read_mdoc_text
from cryolithe.formats.stacks.stack_images import StackImages, read_one_by_one

FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", VOLUME[0])
TEXTS = (".tlt", ".rawtlt", ".mdoc", ".xf", ".com", ".aln", ".star", ".xml", ".tomostar", ".xtilt", ".csv", ".txt")


@pytest.fixture
def opened(monkeypatch):
    """How often each text file was opened for reading."""
    counts: Counter[str] = Counter()
    plain = pathlib.Path.open

    def counted(self, mode="r", *arguments, **options):
        if self.suffix in TEXTS and "r" in mode:
            counts[self.name] += 1
        return plain(self, mode, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, "open", counted)
    return counts


def imod(project):
    _, newst, tilt = write_imod(project, ["XTILTFILE ts.xtilt", "LOCALFILE ts.xf"])
    (project.folder / "ts.xtilt").write_text("0.5\n" * len(ANGLES))
    used = {"newst.com", "tilt.com", "ts.xf", "ts.tlt", "ts.xtilt"}
    return ["--newst-com", newst, "--tilt-com", tilt], used


def transforms(project):
    xf, _, _ = write_imod(project)
    # The command files are looked at: they are offered if they are of this stack.
    return [project.tlt, "--xf", xf], {"ts.xf", "ts.tlt", "newst.com", "tilt.com"}


def aretomo(project):
    return ["--aln", write_aretomo(project)], {"ts.aln", "ts.tlt"}


def relion(project):
    listing, _ = write_relion(project)
    folder = project.folder / "Tomograms" / "job009"
    folder.mkdir(parents=True)
    (project.folder / "tilt_series").rename(folder / "tilt_series")
    return [project.tlt, "--star", listing], {"tomograms.star", "ts.star", "ts.tlt"}


def warp(project):
    return ["--warp", write_warp(project)], {"ts.xml", "ts.tlt"}


def mdoc(project):
    path = project.folder / "ts.mrc.mdoc"
    images = (f"[ZValue = {n}]\nTiltAngle = {angle}\n" for n, angle in enumerate(ANGLES))
    path.write_text("\n".join(["ImageFile = other.mrc", "[T = Tilt axis angle = 84.0]", *images]))
    return [path], {"ts.mrc.mdoc", "ts.tlt"}  # which it is compared with


@pytest.mark.slow
@pytest.mark.parametrize("files", [imod, transforms, aretomo, relion, warp, mdoc])
def test_each_file_is_opened_once_and_hashed_as_it_was_read(files, tmp_path, opened):
    project = make_project(tmp_path / "raw")
    arguments, used = files(project)
    made(project.stack, *arguments, *FBP, "-o", tmp_path / "v.mrc")
    assert opened == dict.fromkeys(used, 1)
    inputs = json.loads((tmp_path / "v.json").read_text())["inputs"]
    assert len(inputs) >= 2
    assert all(used["sha256"] == sha256(Path(used["path"]).read_bytes()).hexdigest() for used in inputs.values())


DOSES = [3.0 * n for n in range(len(ANGLES))]
DOSE, CTF = ("--dose-weight",), ("--ctf", "flip", "--defocus-hand", 1, "--voltage", 300)
BOTH = (*CTF, *DOSE)


def warp_told(project):
    """Doses and a defocus of each image beside the alignment."""
    path = write_warp(project)
    nodes = "".join(f'<Node X="0" Y="0" Z="{n}" Value="{2 + n / 100}" />' for n in range(len(ANGLES)))
    ctf = '<CTF><Param Name="Defocus" Value="2.2" /><Param Name="Voltage" Value="300" /></CTF>'
    grid = f'<GridCTF Width="1" Height="1" Depth="{len(ANGLES)}">{nodes}</GridCTF>'
    doses = f"<Dose>{chr(10).join(map(str, DOSES))}</Dose>"
    text = path.read_text(encoding="utf-16").replace("</TiltSeries>", f"{ctf}{grid}{doses}</TiltSeries>")
    path.write_text(text, encoding="utf-16")
    return ["--warp", path], {"ts.xml", "ts.tlt"}


def tomostar(project):
    path = project.folder / "ts.tomostar"
    rows = "".join(f"{-angle:g} 84.4 {dose:g}\n" for angle, dose in zip(ANGLES, DOSES, strict=True))
    path.write_text(f"data_\n\nloop_\n_wrpAngleTilt #1\n_wrpAxisAngle #2\n_wrpDose #3\n{rows}")
    return ["--warp", path], {"ts.tomostar", "ts.tlt"}


def relion_told(project):
    arguments, used = relion(project)
    table = project.folder / "Tomograms" / "job009" / "tilt_series" / "ts.star"
    lines = table.read_text().split("\n")
    heads = [number for number, line in enumerate(lines) if line.startswith("_")]
    rows = [number for number, line in enumerate(lines) if "@" in line]
    for dose, number in enumerate(rows):
        lines[number] += f" {3 * dose} 20000 20000 0"
    names = ("rlnMicrographPreExposure", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    lines[heads[-1] + 1 : heads[-1] + 1] = [f"_{name} #{n}" for n, name in enumerate(names, start=len(heads) + 1)]
    table.write_text("\n".join(lines))
    return arguments, used


def aretomo_told(project):
    arguments, used = aretomo(project)
    table = (f"{angle:.2f} {turn} 3.0\n" for turn, angle in enumerate(ANGLES, start=1))
    (project.folder / "ts_TLT.txt").write_text("".join(table))
    rows = (f"{n} 20000 20000 0 0 0.5 6\n" for n in range(1, len(ANGLES) + 1))
    (project.folder / "ts_CTF.txt").write_text(
        "# number defocus1 defocus2 angle phase correlation fit\n" + "".join(rows)
    )
    return arguments, used | {"ts_TLT.txt", "ts_CTF.txt"}


def acquired(project):
    """The angles themselves, with doses behind them; other angles beside them are compared."""
    _, used = aretomo_told(project)
    return [project.folder / "ts_TLT.txt", "--aln", project.folder / "ts.aln"], used


def mdoc_told(project):
    path = project.folder / "ts.mrc.mdoc"
    pairs = enumerate(zip(ANGLES, DOSES, strict=True))
    images = (f"[ZValue = {n}]\nTiltAngle = {angle}\nPriorRecordDose = {dose}\n" for n, (angle, dose) in pairs)
    path.write_text("\n".join(["Voltage = 300", *images]))
    return ["--aln", write_aretomo(project)], {"ts.mrc.mdoc", "ts.aln", "ts.tlt"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "settings"),
    [
        (warp_told, DOSE),
        (warp_told, BOTH),
        (tomostar, DOSE),
        (relion_told, BOTH),
        (aretomo_told, BOTH),
        (acquired, BOTH),
        (mdoc_told, DOSE),
    ],
)
def test_files_that_tell_doses_and_defocus_are_opened_once(files, settings, tmp_path, opened):
    project = make_project(tmp_path / "raw")
    arguments, used = files(project)
    opened.clear()
    if project.tlt not in arguments and project.folder / "ts_TLT.txt" not in arguments:
        arguments = [project.tlt, *arguments]
    made(project.stack, *arguments, *FBP, *settings, "-o", tmp_path / "v.mrc")
    if "--ctf" not in settings:
        opened.pop("ts_CTF.txt", None)
    assert opened == dict.fromkeys(used, 1)
    inputs = json.loads((tmp_path / "v.json").read_text())["inputs"]
    assert all(used["sha256"] == sha256(Path(used["path"]).read_bytes()).hexdigest() for used in inputs.values())


def test_a_folder_is_looked_through_with_each_file_opened_once(tmp_path, opened, monkeypatch):
    """Also what is no series, and headers."""
    write_series(tmp_path)
    for name in ("map", "one"):
        write_stack(tmp_path / f"{name}.st", noise()[:2], 5.0, "made for a test")
    pieces = (f"[ZValue = {n}]\nPieceCoordinates = {90 * n} 0 0\nTiltAngle = 0.01\n" for n in range(2))
    (tmp_path / "map.st.mdoc").write_text("ImageFile = map.st\n" + "\n".join(pieces))
    headers = []
    monkeypatch.setattr("cryolithe.formats.series.session_folder.stack_shape", lambda path: headers.append(path.name))
    read_session_folder(tmp_path)
    assert opened == {"map.st.mdoc": 1}
    assert headers == ["one.st"]


def test_several_parsers_get_the_bytes_that_the_first_one_read(tmp_path, opened):
    reading, path = Reading(), tmp_path / "a.tlt"
    path.write_text("-3\n0\n3\n")
    assert reading(read_text, path, "a text", 100) == reading(read_text, path, "a text", 99) == "-3\n0\n3\n"
    assert read_angles_deg(path, reading) == (-3, 0, 3)
    assert opened == {"a.tlt": 1}
    with pytest.raises(FileFormatError, match="expected at most 3"):
        reading(read_text, path, "a text", 3)
    path.write_text("-30\n0\n30\n")
    assert reading(read_text, path, "a text", 100) == "-30\n0\n30\n"


@pytest.mark.slow
def test_a_table_of_single_images_is_opened_once(tmp_path, opened):
    names = []
    for number, image in enumerate(noise(), start=1):
        names.append(write_stack(tmp_path / f"{number}.mrc", image[None], None, "an image") or f"{number}.mrc")
    columns = ("rlnMicrographName", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst")
    rows = [f"{name} {angle} 0 0 0" for name, angle in zip(names, range(-50, 51, 10), strict=True)]
    table = tmp_path / "ts.star"
    table.write_text("\n".join(["data_ts", "loop_", *(f"_{column}" for column in columns), *rows, ""]))
    made(table, "--pixel-size", 5, "--method", "fbp", "-o", tmp_path / "v.mrc")
    assert opened == {"ts.star": 1}


@pytest.mark.slow
def test_the_files_of_a_session_and_of_halves_are_opened_once(tmp_path, opened):
    project = make_project(tmp_path / "raw")
    aln = write_aretomo(project)
    source = project.folder / "list.csv"
    source.write_text("tilts,aln,output\nts.mrc,ts.aln,a.mrc\n")
    opened.clear()
    made(source, *FBP, "-o", tmp_path / "made")
    assert {name: opened[name] for name in ("list.csv", "ts.aln", "ts.tlt")} == {
        "list.csv": 1,
        "ts.aln": 1,
        "ts.tlt": 1,
    }
    opened.clear()
    other = tmp_path / "odd.mrc"
    images = noise((70, 80))
    write_stack(other, np.roll(images[[0] * len(ANGLES)], 7, axis=2), 4.0, "the other half")
    made("--even", project.stack, "--odd", other, project.tlt, "--aln", aln, *FBP, "-o", tmp_path / "h.mrc")
    assert opened == {"ts.aln": 1, "ts.tlt": 1}


def test_an_answer_counts_for_as_long_as_its_file_stays_as_it_is(tmp_path, opened):
    reading, path = Reading(), tmp_path / "a.tlt"
    path.write_text("-3\n0\n3\n")
    assert [read_angles_deg(path, reading) for _ in range(2)] == [(-3, 0, 3)] * 2
    assert opened == {"a.tlt": 1}
    assert reading.sha256(path) == sha256(path.read_bytes()).hexdigest()
    path.write_text("-30\n0\n30\n")
    assert read_angles_deg(path, reading) == (-30, 0, 30)
    assert reading.sha256(path) == sha256(path.read_bytes()).hexdigest()
    path.unlink()
    for _ in range(2):
        with pytest.raises(InputError, match="does not exist"):
            read_angles_deg(path, reading)


def test_a_refusal_is_remembered_with_its_kind_and_text(tmp_path, opened):
    reading, path = Reading(), tmp_path / "a.mdoc"
    path.write_text("[ZValue = x]\n")
    texts = set()
    for _ in range(3):
        with pytest.raises(FileFormatError) as caught:
            reading(read_mdoc_text, path)
        texts.add(str(caught.value))
    assert len(texts) == 1
    assert opened == {"a.mdoc": 1}


def test_what_is_sent_elsewhere_is_read_there_anew(tmp_path, opened):
    reading, path = Reading(), tmp_path / "a.tlt"
    path.write_text("-3\n0\n3\n")
    read_angles_deg(path, reading)
    # Copies are made as pickles are.
    read_angles_deg(path, copy.deepcopy(reading))
    assert opened == {"a.tlt": 2}


@pytest.mark.slow
def test_an_input_that_changes_while_it_is_used_is_no_input(tmp_path, monkeypatch):
    from cryolithe.reconstruction import run as running

    stack, angles = write_series(tmp_path)
    plain = running.prepare_run

    def prepare(*arguments, **options):
        angles.write_text(angles.read_text().replace("50", "51"))
        return plain(*arguments, **options)

    monkeypatch.setattr(running, "prepare_run", prepare)
    result = run(stack, angles, "--method", "fbp")
    assert result.exit_code == 2
    assert "changed while the run read it" in result.output


def test_a_stack_that_is_cut_off_while_it_is_read_costs_no_other_series(tmp_path, monkeypatch):
    """A memory map of it would end the process."""
    from cryolithe.reconstruction import run as running

    write_series(tmp_path, name="a")
    write_series(tmp_path, name="b")
    plain = running.check_images

    def check(series, *arguments):
        if (tmp_path / "a.mrc").stat().st_size > 0:
            os.truncate(tmp_path / "a.mrc", 0)
        return plain(series, *arguments)

    monkeypatch.setattr(running, "check_images", check)
    result = run(tmp_path, "--method", "fbp")
    assert result.exit_code == 1
    assert f"the input {tmp_path / 'a.mrc'} changed while the run read it: it ends within image 1;" in result.stdout
    assert (tmp_path / "b_rec.mrc").is_file()


@pytest.mark.parametrize("dtype", ["i1", "<i2", ">i2", "<u2", ">f4", "<f2"])
@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 1, 2), (2, 1, 3)])
def test_images_that_are_read_one_by_one_are_those_of_the_map(dtype, axes, tmp_path):
    stack, values = tmp_path / "s.mrc", np.random.default_rng(0).integers(0, 99, (3, 4, 5)).astype(dtype)
    with new_mrc(stack, values) as file:
        file.set_extended_header(np.zeros(1024, np.uint8).view("S1"))
        file.header.mapc, file.header.mapr, file.header.maps = axes
    whole = read_mrc(stack).data
    images = read_one_by_one(whole)
    assert isinstance(images, StackImages) == (axes == (1, 2, 3))
    assert images.shape == whole.shape
    for number in (*range(len(whole)), -1):
        np.testing.assert_array_equal(images[number], whole[number])
        assert images[number].dtype == whole.dtype
    with pytest.raises(IndexError):
        images[len(whole)]


# One module, as docs of contributors say, and its entry.
TOY = '''
from cryolithe.alignment import Alignment, ImageAlignment, rotation
from cryolithe.errors import InputError
from cryolithe.formats.alignment.alignment_format import AlignmentFile, AlignmentFormat
from cryolithe.formats.facts import alignment_facts
from cryolithe.formats.files import read_text


def read_toy(path):
    """One line an image: angle, rotation, shifts."""
    rows = [[float(word) for word in line.split()] for line in read_text(path, "a toy", 1000).splitlines()]
    images = (ImageAlignment(n, a, rotation(-turn), (x, y)) for n, (a, turn, x, y) in enumerate(rows))
    return Alignment(tuple(images), len(rows), notes=("toys are for tests",))


def of_stack(named, stack):
    made = named.reading(read_toy, named.files["toy"])
    if made.sections != stack.sections:
        raise InputError(f"{named.files['toy']} is for {made.sections} images; give those of the stack")
    return made


TOY = AlignmentFormat(
    "Toy",
    (AlignmentFile("toy", "Toy: all of it.", frozenset({"angles", "axis", "shifts"}), ("{}.toy",), "tilts,toy"),),
    of_stack,
    describe={".toy": lambda path: alignment_facts("alignment of toys", read_toy(path))},
)
'''
# What each command says, in one process: the registry is as it is when the program starts.
CHILD = """
import json, sys
from cryolithe.formats.alignment import alignments
from alignment_toy import TOY
alignments.FORMATS = (*alignments.FORMATS, TOY)
from click.testing import CliRunner
from cryolithe.cli import main
said = [CliRunner().invoke(main, words) for words in json.loads(sys.argv[1])]
json.dump([[result.exit_code, result.output] for result in said], open(sys.argv[2], "w"))
"""


@pytest.mark.slow
def test_a_new_format_is_one_module_and_one_entry(tmp_path):
    (tmp_path / "alignment_toy.py").write_text(TOY)
    raw, bare = tmp_path / "raw", tmp_path / "bare"
    raw.mkdir()
    bare.mkdir()
    stack, _ = write_series(raw)
    toy = raw / "ts.toy"
    toy.write_text("".join(f"{angle} 3 1.5 -2\n" for angle in range(-50, 51, 10)))
    (bare / "ts.mrc").write_bytes(stack.read_bytes())
    (bare / "ts.toy").write_text("0 0 0 0\n1 0 0 0\n")
    (raw / "list.csv").write_text("tilts,toy,thickness,output\nts.mrc,ts.toy,16,b.mrc\n")
    (raw / "settings.yaml").write_text(f"toy: {toy}\n")
    fbp = ["--method", "fbp", "--thickness", "16"]
    commands = {
        "info": ["info", toy],
        "flag": ["reconstruct", stack, "--toy", toy, *fbp, "-o", tmp_path / "a.mrc"],
        "file": ["reconstruct", stack, "--config", raw / "settings.yaml", *fbp, "-o", tmp_path / "c.mrc"],
        "list": ["reconstruct", raw / "list.csv", "--method", "fbp", "-o", tmp_path / "made"],
        "beside": ["reconstruct", stack, raw / "ts.tlt", *fbp, "-o", tmp_path / "d.mrc"],
        "folder": ["reconstruct", bare, *fbp],
        "two": ["reconstruct", stack, "--toy", toy, "--aln", toy, *fbp],
        "axis": ["reconstruct", stack, "--toy", toy, "--tilt-axis", "3", *fbp],
        "none": ["reconstruct", bare / "ts.mrc", *fbp],
        "wrong": ["reconstruct", stack, "--toy", bare / "ts.toy", *fbp],
        "help": ["reconstruct", "--help"],
    }
    answers = tmp_path / "answers.json"
    words = json.dumps([[str(word) for word in line] for line in commands.values()])
    path = [str(tmp_path), *sys.path]
    child = f"import sys; sys.path[:] = {path!r}\n{CHILD}"
    subprocess.run([sys.executable, "-c", child, words, answers], check=True, timeout=PATIENCE_S)
    said = dict(zip(commands, json.loads(answers.read_text()), strict=True))
    codes = dict.fromkeys(commands, 0) | {"folder": 1} | dict.fromkeys(("two", "axis", "none", "wrong"), 2)
    assert {name: code for name, (code, _) in said.items()} == codes, said
    for name, words in {
        "info": ("alignment of toys", "11 used of 11", "-50° to 50°"),
        "flag": ("toys are for tests", "11 images aligned in memory"),
        "beside": (f"{toy} is there and is not used", f"give: --toy {toy}"),
        "folder": ("toy ts.toy", "ts.toy is for 2 images"),
        "two": ("--aln and --toy are alignments of different programs",),
        "axis": ("--toy turns the tilt axis itself",),
        "none": ("--warp, --toy, --tilt-com",),
        "wrong": ("is for 2 images",),
        "help": ("--toy FILE", "Toy: all of it."),
    }.items():
        text = " ".join(said[name][1].split())
        assert all(word in text for word in words), said[name]
    volumes = [(tmp_path / name).read_bytes() for name in ("a.mrc", "c.mrc", "made/b.mrc")]
    assert volumes[0] == volumes[1] == volumes[2] != (tmp_path / "d.mrc").read_bytes()
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["settings"]["toy"] == str(toy)
    assert record["inputs"]["toy"]["sha256"] == sha256(toy.read_bytes()).hexdigest()
