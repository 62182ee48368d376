"""Doses of AreTomo3's _TLT.txt: angle, order of acquisition from 1, dose of the image itself."""

from __future__ import annotations

import json

import pytest
from tiny_series import ANGLES, made, refused, write_series

from cryolithe.formats.microscope.doses import read_exposures

FBP = ("--method", "fbp", "--thickness", 8, "--dose-weight")
# SerialEM's order of acquisition: the turn of each image, from 1.
TURNS = [sorted(ANGLES, key=lambda angle: (abs(angle), angle)).index(angle) + 1 for angle in ANGLES]
BEFORE = [3.0 * (turn - 1) for turn in TURNS]


def rows(turns=TURNS, doses=None, angles=ANGLES):
    doses = [3.0] * len(turns) if doses is None else doses
    return "".join(f"{a:8.2f}  {t:4d}  {d:8.2f}\n" for a, t, d in zip(angles, turns, doses, strict=True))


def doses_of(path, text):
    path.write_text(text)
    told = read_exposures(path, "ts.mrc")
    return list(told.doses), told.dose_problem


def weighed(folder):
    record = json.loads((folder / "ts_rec.json").read_text())
    return record["method"]["corrections"]["dose_weight"]["exposures"]


@pytest.mark.parametrize("how", ["angles", "dose", "beside"])
def test_what_was_taken_before_an_image_is_summed_up(how, tmp_path):
    stack, angles = write_series(tmp_path)
    table = tmp_path / "ts_TLT.txt"
    table.write_text(rows())
    arguments = {"angles": (table,), "dose": (angles, "--dose", table), "beside": (angles,)}[how]
    assert "ts_TLT.txt" in made(stack, *arguments, *FBP).stderr
    assert weighed(tmp_path) == BEFORE


def test_an_mdoc_comes_first_and_is_not_contradicted(tmp_path):
    stack, _ = write_series(tmp_path)
    table, mdoc = tmp_path / "ts_TLT.txt", tmp_path / "ts.mrc.mdoc"
    table.write_text(rows(doses=[5.0] * len(TURNS)))
    sections = (f"[ZValue = {n}]\nTiltAngle = {a}\nPriorRecordDose = {BEFORE[n]}\n" for n, a in enumerate(ANGLES))
    mdoc.write_text("\n".join(sections))
    for dose in ((), ("--dose", mdoc)):
        made(stack, table, *FBP, *dose, "--overwrite")
        assert weighed(tmp_path) == BEFORE


def test_exposures_may_differ_and_images_be_missing(tmp_path):
    path = tmp_path / "ts_TLT.txt"
    assert doses_of(path, rows((2, 1, 3), (4.0, 3.0, 5.0), (-3, 0, 3))) == ([3.0, 0.0, 7.0], "")
    # The second and the fourth image that were taken are not in the file.
    assert doses_of(path, rows((3, 1, 5), (3.0, 3.0, 3.0), (-3, 0, 3))) == ([6.0, 0.0, 12.0], "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (rows(doses=[3.0 * turn for turn in TURNS]), "grows from 3 to 33 e/Å² as the images are taken, as a sum does"),
        (rows(doses=BEFORE), "grows from 0 to 30"),
        (rows([1] * len(TURNS)), "expected the order of acquisition"),
        (rows(doses=[-3.0] * len(TURNS)), "no dose can be below 0"),
        (rows(doses=[300.0] * len(TURNS)), "is it in e/nm²?"),
    ],
)
def test_what_are_no_doses_of_images_is_refused(text, problem, tmp_path):
    stack, _ = write_series(tmp_path)
    assert doses_of(tmp_path / "ts_TLT.txt", text)[0] == []
    refused(tmp_path, [stack, tmp_path / "ts_TLT.txt", *FBP], problem)
    made(stack, tmp_path / "ts_TLT.txt", *FBP[:-1])


@pytest.mark.parametrize(
    "text", [rows(doses=[0.0] * len(TURNS)), "".join(f"{a} {t}\n" for a, t in zip(ANGLES, TURNS, strict=True))]
)
def test_older_files_tell_none(text, tmp_path):
    stack, _ = write_series(tmp_path)
    assert doses_of(tmp_path / "ts_TLT.txt", text) == ([], "")
    refused(tmp_path, [stack, tmp_path / "ts_TLT.txt", *FBP], "no file tells the doses of these 11 images")
