"""What files say was done to images before: told to networks, and never done twice."""

from __future__ import annotations

import struct

import mrcfile
import pytest
from projects import make_project, write_relion
from test_ctf_files import ARETOMO, columns
from test_known_command import DOSES, mdoc
from tiny_series import ANGLES, made, refused, write_series

FBP = ("--method", "fbp", "--thickness", 12, "--device", "cpu")
CTF = ("--ctf", "flip", "--defocus-hand", 1)


@pytest.fixture
def folder(tmp_path):
    write_series(tmp_path)
    return tmp_path


def defocus(folder):
    (folder / "defocus.txt").write_text(columns(ARETOMO, rows=[(2.0, 2.0, 0.0)] * len(ANGLES)))
    return folder / "defocus.txt"


def label(path, text):
    with mrcfile.open(path, mode="r+") as file:
        file.add_label(text)


def imod_flags(path, flags):
    """Write IMOD's stamp and flags (offsets 152 and 156 of the header)."""
    with path.open("r+b") as file:
        file.seek(152)
        file.write(struct.pack("<ii", 1146047817, flags))


def twice(folder, name="ts.mrc", **kinds):
    return (folder / name, folder / "ts.tlt", *FBP, "-o", folder / "out.mrc", *CTF, "--ctf-file", defocus(folder))


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("ctfPhaseFlip: CTF correction with phase flipping only", "phase-flipped"),
        ("CryoLithe 1.0 simulated TS_001, dense dark, CTF flipped", "phase-flipped"),
        ("CryoLithe 1.0 simulated TS_001, dense dark, CTF wiener", "Wiener-filtered"),
        ("CryoLithe 1.0 simulated TS_001, dense dark, CTF none", "not in these images"),
        ("CryoLithe 1.0 simulated, seed 0, -5 dB, dense dark, molecules: procedural_1", "not in these images"),
    ],
)
def test_a_label_says_it(folder, text, state):
    label(folder / "ts.mrc", text)
    refused(folder, twice(folder), f"the header of ts.mrc says that the CTF is {state}, and correcting twice spoils it")


@pytest.mark.parametrize("later", ["label", "flag", "name"])
def test_what_was_done_to_a_simulated_stack_counts_more_than_how_it_was_made(folder, later):
    # Programs keep the labels of their input: CTF uncorrected, says the one, and ctfphaseflip the other.
    label(folder / "ts.mrc", "CryoLithe 1.0 simulated TS_001, dense dark, CTF uncorrected")
    made(*twice(folder), "--dry-run")
    name = "ts.mrc"
    if later == "label":
        label(folder / name, "ctfphaseflip: CTF correction with phase flipping")
    elif later == "flag":
        imod_flags(folder / name, 32)
    else:
        name = "ts_ctfcorr.mrc"
        (folder / "ts.mrc").rename(folder / name)
    refused(folder, twice(folder, name), "says that the CTF is phase-flipped, and correcting twice")


@pytest.mark.parametrize(
    "name", ["ts_not_ctf_corrected.mrc", "ts_noctfcorr.mrc", "ts_no_ctfcorr.mrc", "ctfcorrelation.mrc"]
)
def test_a_name_that_says_something_else(folder, name):
    (folder / "ts.mrc").rename(folder / name)
    made(*twice(folder, name), "--dry-run")


def test_imods_flag_says_it_where_its_label_is_gone(folder):
    imod_flags(folder / "ts.mrc", 32 + 8)
    refused(folder, twice(folder), "the header of ts.mrc says that the CTF is phase-flipped")
    imod_flags(folder / "ts.mrc", 8)
    made(*twice(folder), "--dry-run")


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("ts_ctfcorr.mrc", "phase-flipped"),
        ("ts_ctfcorr_ali.mrc", "phase-flipped"),
        ("ts.ctfcorr.ali", "phase-flipped"),
        ("ts_ali_ctf_corrected.mrc", "phase-flipped"),
        ("ctfcorr_ts.mrc", "phase-flipped"),
        ("ts_phase-flipped.st", "phase-flipped"),
        ("ctfcorr/ts.mrc", "phase-flipped"),
        ("ts_deconv.mrc", "Wiener-filtered"),
        ("deconv/ts.mrc", "Wiener-filtered"),
    ],
)
def test_a_name_says_it(folder, name, state):
    for inner in ("deconv", "ctfcorr"):
        (folder / inner).mkdir()
    (folder / "ts.mrc").rename(folder / name)
    refused(folder, twice(folder, name), f"says that the CTF is {state}")


@pytest.mark.parametrize("name", ["ts_ctf.mrc", "ctfcorrosion.mrc", "ts_deconvex.mrc"])
def test_names_that_only_sound_like_it_do_not(folder, name):
    (folder / "ts.mrc").rename(folder / name)
    made(*twice(folder, name), "--dry-run")


def test_simulated_images_with_their_ctf_left_in_are_corrected(folder):
    label(folder / "ts.mrc", "CryoLithe 1.0 simulated TS_001, dense dark, CTF uncorrected")
    made(*twice(folder), "--dry-run")


@pytest.mark.parametrize(
    ("column", "value", "state"),
    [
        ("rlnCtfDataArePhaseFlipped", "1", "phase-flipped"),
        ("rlnCtfDataAreCtfPremultiplied", "1", "multiplied into the images"),
        ("rlnCtfDataAreCtfPremultiplied", "0", None),
        ("rlnCtfDataArePhaseFlipped", "0.0", None),
    ],
)
@pytest.mark.parametrize("where", ["list", "images"])
def test_a_column_of_relion_says_it(tmp_path, column, value, state, where):
    project = make_project(tmp_path / "relion", dark=())
    listing, table = write_relion(project, dark=())
    path = listing if where == "list" else table
    lines = path.read_text().splitlines()
    number = sum(line.startswith("_rln") for line in lines) + 1
    last = max(n for n, line in enumerate(lines) if line.startswith("_rln"))
    rows = [f"{line} {value}" if n > last and line.strip() else line for n, line in enumerate(lines)]
    rows.insert(last + 1, f"_{column} #{number}")
    path.write_text("\n".join(rows) + "\n")
    (tmp_path / "d.txt").write_text(columns(ARETOMO, rows=[(2.0, 2.0, 0.0)] * 20))
    words = (project.stack, "--star", listing, *FBP, "-o", tmp_path / "out.mrc", *CTF, "--ctf-file", tmp_path / "d.txt")
    if state:
        refused(tmp_path, words, f"{column} of {path.name} says that the CTF is {state}")
        made(*(word for word in words if word not in CTF), "--dry-run")
    else:
        made(*words, "--dry-run")


def test_doses_do_not_weigh_twice(folder):
    weigh = (*FBP, "-o", folder / "out.mrc", "--dose-weight", "--dose", mdoc(folder, DOSES))
    label(folder / "ts.mrc", "MTFFILTER: Dose weight filtered")
    refused(folder, (folder / "ts.mrc", folder / "ts.tlt", *weigh), "weighed by dose already")
    write_series(folder, name="ts_DW")
    result = made(folder / "ts_DW.mrc", folder / "ts_DW.tlt", *weigh)
    assert "the name of ts_DW.mrc tells of weights" in result.stderr
