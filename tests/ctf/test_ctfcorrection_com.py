"""Etomo's ctfcorrection.com beside a stack tells its microscope, where it is of that series."""

import json

import pytest
from tiny_series import made, write_series

from cryolithe.formats.microscope.microscope_told import told_microscope
from cryolithe.formats.reading import Reading
from cryolithe.optics.ctf import Microscope

TEXT = """# THIS IS A COMMAND FILE
$ctfphaseflip -StandardInput
InputStack\tts_ali.mrc
AngleFile\tts.tlt
DefocusFile\tts.defocus
Voltage\t200
SphericalAberration\t2.0
AmplitudeContrast\t0.1
PixelSize\t0.5
"""
THERE = Microscope(200.0, 2.0, 0.1)


def told(folder, name):
    return told_microscope(folder / name, (), Reading()).microscope


@pytest.mark.parametrize("name", ["ts_ali.mrc", "ts.ali", "ts.st"])
def test_it_is_of_its_series_only(tmp_path, name):
    (tmp_path / "ctfcorrection.com").write_text(TEXT)
    assert told(tmp_path, name) == THERE
    assert told(tmp_path, "other_ali.mrc") == Microscope()


@pytest.mark.parametrize("text", ["", "InputStack\n", TEXT.replace("InputStack", "Stack"), "\0\1", "Voltage 200\n"])
def test_what_names_no_stack_tells_nothing(tmp_path, text):
    (tmp_path / "ctfcorrection.com").write_text(text)
    assert told(tmp_path, "ts_ali.mrc") == Microscope()


def test_a_voltage_that_no_microscope_has_is_not_taken(tmp_path):
    (tmp_path / "ctfcorrection.com").write_text(TEXT.replace("200", "0").replace("2.0", "x"))
    assert told(tmp_path, "ts_ali.mrc") == Microscope(amplitude_contrast=0.1)


def test_the_command_uses_records_and_names_it(tmp_path):
    stack, angles = write_series(tmp_path)
    tilts = [float(line) for line in angles.read_text().split()]
    rows = "".join(f"{n} {n} {tilt} {tilt} 3000\n" for n, tilt in enumerate(tilts, start=1))
    (tmp_path / "ts.defocus").write_text("1 0 0. 0. 0 3\n" + rows.replace("3000", "3000 3000 0"))
    words = (stack, angles, "--method", "fbp", "--ctf", "flip", "--thickness", 12, "--pixel-size", 5, "--overwrite")
    assert "300 kV (assumed)" in made(*words).stderr
    (tmp_path / "ctfcorrection.com").write_text(TEXT)
    line = next(line for line in made(*words).stderr.splitlines() if "CTF: " in line)
    assert "200 kV (ctfcorrection.com), Cs 2 mm (ctfcorrection.com), amplitude contrast 0.1" in line
    record = json.loads((tmp_path / "ts_rec.json").read_text())
    assert any("ctfcorrection.com" in str(entry) for entry in record["inputs"].values())


@pytest.mark.parametrize(
    ("line", "inverted"),
    [("InvertTiltAngles", True), ("InvertTiltAngles 1", True), ("InvertTiltAngles 0", False), ("", False)],
)
def test_angles_that_ctfphaseflip_inverts_are_the_other_hand(line, inverted, tmp_path):
    (tmp_path / "ctfcorrection.com").write_text(TEXT + line + "\n")
    found = told_microscope(tmp_path / "ts_ali.mrc", (), Reading()).hand
    assert found == ((-1, "InvertTiltAngles of ctfcorrection.com") if inverted else None)
    assert told_microscope(tmp_path / "other_ali.mrc", (), Reading()).hand is None


def test_the_command_takes_that_hand_where_nothing_else_tells_it(tmp_path):
    stack, angles = write_series(tmp_path)
    tilts = [float(line) for line in angles.read_text().split()]
    rows = "".join(f"{n} {n} {tilt} {tilt} 3000 3000 0\n" for n, tilt in enumerate(tilts, start=1))
    (tmp_path / "ts.defocus").write_text("1 0 0. 0. 0 3\n" + rows)
    (tmp_path / "ctfcorrection.com").write_text(TEXT + "InvertTiltAngles\n")
    words = (stack, angles, "--method", "fbp", "--ctf", "flip", "--thickness", 12, "--pixel-size", 5, "--overwrite")
    assert "hand -1 (InvertTiltAngles of ctfcorrection.com)" in made(*words).stderr
    assert "hand +1 (--defocus-hand)" in made(*words, "--defocus-hand", 1).stderr
