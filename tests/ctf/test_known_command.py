"""What is known about a series through the real command: taken, told, recorded, refused where files disagree."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from plain_mrc import new_mrc
from test_known import awake_network
from tiny_series import ANGLES, CONFIG, made, noise, refused, run, tree, voxels, write_model, write_series

from cryolithe.formats.image_rows import Others
from cryolithe.formats.microscope.doses import read_exposures
from cryolithe.formats.stacks.mdoc import MdocImage, write_mdoc
from cryolithe.known import FACTS
from cryolithe.network.checkpoint import save_network

QUICK = ("--thickness", 12, "--device", "cpu", "--precision", "fp32", "--contrast", "dark", "--fbp-share", 0)


@pytest.fixture
def folder(tmp_path):
    write_series(tmp_path)
    knowing = dataclasses.replace(CONFIG, input=dataclasses.replace(CONFIG.input, known=tuple(FACTS)))
    save_network(tmp_path / "knows.safetensors", awake_network(knowing), {})
    write_model(tmp_path / "plain.safetensors")
    return tmp_path


def command(folder, model="knows", *more, angles="ts.tlt"):
    output = () if "-o" in more else ("-o", folder / "out.mrc")
    return (folder / "ts.mrc", folder / angles, "--model", folder / f"{model}.safetensors", *QUICK, *output, *more)


def record(folder, name="out"):
    return json.loads((folder / f"{name}.json").read_text())["method"]["known"]


def mdoc(folder, doses, name="ts.mdoc", offset=0.0):
    """An .mdoc of the stack; doses before each image, in the order of the images, whose times rise with them."""
    turns = sorted(range(len(doses)), key=doses.__getitem__)
    images = [
        MdocImage(angle + offset, 3.0, dose, -2.5, turns.index(n))
        for n, (angle, dose) in enumerate(zip(ANGLES, doses, strict=True))
    ]
    write_mdoc(folder / name, "ts.mrc", images, 5.0, (40, 48), 300.0, overwrite=True)
    return folder / name


DOSES = tuple(3.0 * n for n in (9, 7, 5, 3, 1, 0, 2, 4, 6, 8, 10))


def test_what_is_given_is_told_recorded_and_matters(folder):
    result = made(*command(folder, "knows", "--ctf-state", "wiener", "--specimen-thickness", 120, "--defocus", 3))
    assert (
        "model knows is told: CTF wiener (--ctf-state), defocus 3 µm (--defocus), specimen thickness 120 nm "
        "(--specimen-thickness), voxel size 5 Å (the pixel size of the files); not known: dose"
    ) in result.stderr
    found = record(folder)
    assert found["takes"] == list(FACTS)
    assert (found["ctf_state"], found["thickness_angstrom"], found["doses"]) == ("wiener", 1200.0, None)
    assert found["from"]["ctf"] == "--ctf-state"
    made(*command(folder, "knows", "-o", folder / "less.mrc"))
    assert record(folder, "less")["ctf_state"] is None
    assert not np.array_equal(voxels(folder / "less.mrc"), voxels(folder / "out.mrc"))
    # The same again is done already; something else is known, and it is not.
    again = command(folder, "knows", "--ctf-state", "wiener", "--specimen-thickness", 120, "--defocus", 3)
    refused(folder, again, "exists")


def test_a_binned_volume_is_told_with_its_own_voxels(folder):
    made(*command(folder, "knows", "--bin", 2, "--pixel-size", 4))
    assert record(folder)["voxel_size_angstrom"] == 8.0
    assert record(folder)["from"]["voxel"] == "--pixel-size"


def test_a_model_without_facts_says_so_and_gives_the_same_bytes(folder):
    silent = made(*command(folder, "plain"))
    assert "does not use" not in silent.stderr
    assert "told" not in silent.stderr
    assert record(folder) is None
    more = ("--ctf-state", "flipped", "--specimen-thickness", 90, "-o", folder / "more.mrc")
    result = made(*command(folder, "plain", *more))
    line = "model plain does not use what --ctf-state and --specimen-thickness tell"
    assert [line in text for text in result.stderr.splitlines()].count(True) == 1
    assert np.array_equal(voxels(folder / "more.mrc"), voxels(folder / "out.mrc"))
    assert record(folder, "more") is None


def test_other_methods_say_so_too(folder):
    words = (folder / "ts.mrc", folder / "ts.tlt", "--method", "fbp", "--thickness", 12, "--ctf-state", "none")
    assert "method fbp does not use what --ctf-state tells" in made(*words, "-o", folder / "b.mrc").stderr


def test_a_plan_tells_it_and_writes_nothing(folder):
    before = tree(folder)
    result = made(*command(folder, "knows", "--dry-run", "--ctf-state", "flipped"))
    assert "is told: CTF flipped (--ctf-state)" in result.stderr
    assert tree(folder) == before


def test_doses_come_from_the_mdoc_that_brings_the_angles(folder):
    mdoc(folder, DOSES)
    result = made(*command(folder, angles="ts.mdoc"))
    assert "dose 0 to 30 e/Å² (ts.mdoc)" in result.stderr
    assert record(folder)["doses"] == list(DOSES)
    made(*command(folder, "knows", "--dose", folder / "ts.mdoc", "-o", folder / "named.mrc"))
    assert np.array_equal(voxels(folder / "named.mrc"), voxels(folder / "out.mrc"))


def test_another_file_of_doses_is_another_volume(folder):
    words = command(folder, "knows", "--dose", mdoc(folder, DOSES))
    made(*words)
    made(*words, "--overwrite")
    sums = json.loads((folder / "out.json").read_text())["inputs"]
    assert sums["dose"]["path"].endswith("ts.mdoc")


def test_a_file_and_an_option_that_disagree_are_refused(folder):
    mdoc(folder, DOSES)
    other = mdoc(folder, [3 * dose for dose in DOSES], "other.mdoc")
    line = refused(folder, command(folder, "knows", "--dose", other, angles="ts.mdoc"), "--dose", "ts.mdoc")
    assert "90" in line
    assert "30" in line
    # Own exposure counted by one and not by the other is no disagreement.
    counted = mdoc(folder, [dose + 3 for dose in DOSES], "counted.mdoc")
    made(*command(folder, "knows", "--dose", counted, angles="ts.mdoc"))


def test_files_that_disagree_are_named_where_no_option_tells(folder):
    table = "data_\n\nloop_\n_wrpAngleTilt #1\n_wrpAxisAngle #2\n_wrpDose #3\n"
    rows = (f"{-angle:g} 0 {3 * dose:g}\n" for angle, dose in zip(ANGLES, DOSES, strict=True))
    (folder / "ts.tomostar").write_text(table + "".join(rows))
    words = command(folder, "knows", "--warp", folder / "ts.tomostar", angles=mdoc(folder, DOSES, "own.mdoc").name)
    refused(folder, words, f"{folder / 'own.mdoc'} says 30 e/Å² before image 11, {folder / 'ts.tomostar'} says 90")


@pytest.mark.parametrize("weighed", [(), ("--dose-weight",)])
def test_what_is_not_certain_of_doses_is_told_once(folder, weighed):
    """To the network, or with the weights."""
    taken = [*sorted(zip(DOSES, ANGLES, strict=True)), (60.0, 0.0)]  # in that order, one of them again
    images = [MdocImage(angle, 3.0, dose, -2.5, n) for n, (dose, angle) in enumerate(taken)]
    write_mdoc(folder / "again.mdoc", "ts.mrc", images, 5.0, (40, 48), 300.0)
    result = made(*command(folder, "knows", "--dose", folder / "again.mdoc", *weighed))
    assert result.stderr.count("rows of the same tilt angle but of different doses") == 1
    assert record(folder)["from"]["dose"] == "--dose again.mdoc"


def test_a_file_of_other_images_is_refused_where_it_was_asked_for(folder):
    wrong = folder / "wrong.mdoc"
    images = [MdocImage(angle, 3.0, 3.0 * n, -2.5, n) for n, angle in enumerate(ANGLES[:-3])]
    write_mdoc(wrong, "ts.mrc", images, 5.0, (40, 48), 300.0)
    refused(folder, command(folder, "knows", "--dose", wrong), "does not tell the doses of these 11 images")
    refused(folder, command(folder, "knows", "--dose", folder / "ts.tlt"), "tells no doses that are understood")
    refused(folder, command(folder, "knows", "--dose", folder / "none.mdoc"), "none.mdoc")


@pytest.mark.parametrize("label", ["ctfphaseflip: CTF correction", "CTFPHASEFLIP  Phase-flipped"])
def test_the_header_tells_that_phases_were_flipped(folder, label):
    with new_mrc(folder / "ts.mrc") as file:
        file.set_data(noise())
        file.set_image_stack()
        file.voxel_size = 5.0
        file.add_label(label)
    assert "CTF flipped (the header of ts.mrc)" in made(*command(folder)).stderr
    assert (
        "CTF flipped (--ctf-state)" in made(*command(folder, "knows", "--ctf-state", "flipped", "--overwrite")).stderr
    )
    for state in ("uncorrected", "wiener", "none"):
        words = command(folder, "knows", "--ctf-state", state, "-o", folder / "x.mrc")
        refused(folder, words, f"--ctf-state {state}", "the header of ts.mrc", "phase-flipped")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--ctf-state", "corrected"), "corrected"),
        (("--specimen-thickness", 0), "--specimen-thickness"),
        (("--specimen-thickness", "nan"), "--specimen-thickness"),
        (("--defocus", "inf"), "--defocus"),
    ],
)
def test_values_out_of_range_are_refused(folder, words, line):
    before = tree(folder)
    result = run(*command(folder, "knows", *words))
    assert result.exit_code == 2
    assert line in result.stderr
    assert tree(folder) == before


def test_doses_are_those_of_the_angle_in_any_order_and_with_an_offset(tmp_path):
    told = read_exposures(mdoc(tmp_path, DOSES, offset=-7.0), "ts.mrc")
    assert told.of_images(ANGLES) == DOSES
    assert told.of_images(ANGLES[::-1]) == DOSES[::-1]
    assert told.of_images([angle + 5 for angle in np.linspace(-50, 50, 11) * 1.3]) is None
    assert told.of_images([0.0] * 2) is None


def test_one_dose_before_all_images_is_none(tmp_path):
    """Doses of the images are summed in the order of their times instead, where they are told."""
    path = mdoc(tmp_path, [3.0] * len(DOSES))
    assert read_exposures(path, "ts.mrc").doses == tuple(3.0 * n for n in range(11))
    path.write_text(path.read_text().replace("ExposureDose", "Other"))
    told = read_exposures(path, "ts.mrc")
    assert not told.doses
    assert "PriorRecordDose is 3 for every image" in told.dose_problem


def test_doses_of_some_of_the_images_of_a_file_are_told_only_where_they_are_certain(tmp_path):
    some = [8, 2, 5]
    wanted = tuple(DOSES[n] for n in some)
    told = read_exposures(mdoc(tmp_path, DOSES, offset=-0.5), "ts.mrc")
    seen = [ANGLES[n] for n in some]
    assert told.of_images([angle - 0.4 for angle in seen]) == wanted
    # Shifted by 0.4 or 0.9 of 10 degrees, or by a step and that: other images fit as well, and nobody knows.
    for moved in (0.0, 0.4, 7.0, 9.2):
        assert told.of_images([angle + moved for angle in seen]) is None
    # The offset of an alignment is known, and taken off, if the file does not have it as well.
    for moved in (7.0, 9.3, 10.0, -19.6):
        assert told.of_images([angle - 0.5 + moved for angle in seen], Others(offset_deg=moved)) == wanted
    assert told.of_images([angle - 0.5 for angle in seen], Others(offset_deg=9.3)) == wanted
    # A file with the images of the stack, in its order or by angle, is certain by their places there.
    places = (2, 3, 5, 6)
    moved = [ANGLES[n] + 0.4 for n in places]
    assert told.of_images(moved) is None
    assert told.of_images(moved, Others(used=places, sections=11)) == tuple(DOSES[n] for n in places)
    back = tuple(10 - n for n in places)
    assert told.of_images(moved, Others(used=back, sections=11)) is None
    assert told.of_images(moved[::-1], Others(used=back[::-1], sections=11)) == tuple(DOSES[n] for n in places[::-1])
    # Images at both ends cannot be shifted.
    ends = [10, 0, 5]
    assert told.of_images([ANGLES[n] + 0.4 for n in ends]) == tuple(DOSES[n] for n in ends)


def test_refined_angles_of_as_many_images_differ_by_less_than_half_a_step(tmp_path):
    told = read_exposures(mdoc(tmp_path, DOSES), "ts.mrc")
    refined = [1.03 * angle + (-1) ** n for n, angle in enumerate(ANGLES)]
    assert told.of_images(refined[::-1]) == DOSES[::-1]
    assert told.of_images([1.3 * angle for angle in ANGLES]) is None


def test_doses_of_an_mdoc_without_sums_follow_its_times(tmp_path):
    lines = []
    for number, angle in enumerate((-3, 0, 3)):
        lines += [f"[ZValue = {number}]", f"TiltAngle = {angle}", "ExposureDose = 2.5"]
        lines += [f"DateTime = 01-Feb-2024  10:0{(2, 0, 1)[number]}:00"]
    path = tmp_path / "ts.mdoc"
    path.write_text("\n".join(lines))
    assert read_exposures(path, "ts.mrc").of_images((-3, 0, 3)) == (5.0, 0.0, 2.5)
    path.write_text("\n".join(lines).replace("ExposureDose = 2.5", "ExposureDose = 0"))
    assert read_exposures(path, "ts.mrc").of_images((-3, 0, 3)) is None
    path.write_text("\n".join(lines).replace("DateTime", "Time"))
    assert read_exposures(path, "ts.mrc").of_images((-3, 0, 3)) is None
    path.write_text("\n".join(lines).replace("2.5", "much"))
    assert "expected a number for ExposureDose, found 'much'" in read_exposures(path, "ts.mrc").dose_problem
    # What is told and cannot be summed up is named: the user would look for another file else.
    for old, new, said in (
        ("DateTime", "Time", "not their order: 3 of them have no DateTime"),
        ("10:02", "10:00", "not their order: some of them have the same DateTime"),
        ("01-Feb-2024  10:02", "some day", "expected a DateTime such as 28-Nov-2026 14:05:09, found 'some day:00'"),
        ("01-Feb-2024  10:02", "2024-02-01 10:02", "not their order: their DateTime are written in several ways"),
    ):
        path.write_text("\n".join(lines).replace(old, new))
        assert said in read_exposures(path, "ts.mrc").dose_problem
    path.write_text("\n".join(lines).replace("ExposureDose = 2.5", "ExposureDose = 1250"))
    found = read_exposures(path, "ts.mrc")
    assert found.of_images((-3, 0, 3)) is None
    assert "the sum of ExposureDose holds 2500, expected at most 2000 e/Å²" in found.dose_problem
    path.write_text("\n".join(lines).replace("ExposureDose = 2.5", "ExposureDose = 0", 1))
    assert "ExposureDose is 0 for image 1, but not for all" in read_exposures(path, "ts.mrc").dose_problem
    path.write_text("\n".join(lines).replace("ExposureDose = 2.5", "ExposureDose = 0"))
    assert read_exposures(path, "ts.mrc").dose_problem == ""
    # Nobody needs the own doses of images whose sums are told.
    sums = [f"PriorRecordDose = {n}" if line.startswith("Date") else line for n, line in enumerate(lines)]
    path.write_text("\n".join(sums).replace("2.5", "much"))
    assert read_exposures(path, "ts.mrc").of_images((-3, 0, 3)) == (3.0, 7.0, 11.0)


# Three times of one night, in the order of the file: last, first, second.
@pytest.mark.parametrize(
    "times",
    [
        ("13-Feb-2024  00:01:30", "12-Feb-2024  23:58:00", "13-Feb-2024  00:00:10"),
        ("13-Feb-24  00:01:30", "12-Feb-24  23:58:00", "13-Feb-24  00:00:10"),
        ("2024-02-13T00:01:30.1234567Z", "2024-02-12T23:58:00Z", "2024-02-13T00:00:10.5Z"),
        ("2024-02-13 00:01:30+01:00", "2024-02-12 23:58:00+01:00", "2024-02-13 00:00:10+01:00"),
        ("2/13/2024 12:01:30 AM", "2/12/2024 11:58:00 PM", "2/13/2024 12:00:10 AM"),
        ("13/02/2024 00:01:30", "12/02/2024 23:58:00", "13/02/2024 00:00:10"),
        ("13.02.2024 00:01:30,25", "12.02.2024 23:58:00,5", "13.02.2024 00:00:10,75"),
    ],
)
def test_times_of_images_may_be_written_as_programs_do(times, tmp_path):
    """12/02 and 13/02 are days of one month though 12 could be a month, too."""
    lines = []
    for number, (angle, time) in enumerate(zip((-3, 0, 3), times, strict=True)):
        lines += [f"[ZValue = {number}]", f"TiltAngle = {angle}", "ExposureDose = 2.5", f"DateTime = {time}"]
    path = tmp_path / "ts.mdoc"
    path.write_text("\n".join(lines))
    assert read_exposures(path, "ts.mrc").of_images((-3, 0, 3)) == (5.0, 0.0, 2.5)


STAR = """data_TS_1

loop_
_rlnTomoYTilt #1
_rlnTomoZRot #2
_rlnTomoXTilt #3
_rlnTomoXShiftAngst #4
_rlnTomoYShiftAngst #5
_rlnMicrographPreExposure #6
_rlnDefocusU #7
_rlnDefocusV #8
"""


def star(folder, defocus=30000.0):
    rows = [f"{a:g} 0 0 0 0 {d:g} {defocus:g} {defocus + 2000:g}" for a, d in zip(ANGLES, DOSES, strict=True)]
    path = folder / "ts.star"
    path.write_text(STAR + "\n".join(rows) + "\n")
    return path


def test_a_table_of_relion_tells_dose_and_defocus(folder):
    words = (folder / "ts.mrc", "--star", star(folder), "--model", folder / "knows.safetensors", *QUICK)
    result = made(*words, "-o", folder / "out.mrc")
    assert "defocus 3.1 µm (ts.star), dose 0 to 30 e/Å² (ts.star)" in result.stderr
    assert record(folder)["doses"] == list(DOSES)
    assert record(folder)["defocus_um"] == pytest.approx(3.1)
    refused(folder, (*words, "-o", folder / "x.mrc", "--defocus", 5), "--defocus 5 µm", "3.10 µm")
    made(*words, "-o", folder / "y.mrc", "--defocus", 3.2)


@pytest.mark.parametrize(
    ("new", "found"),
    [
        (" 1D+01 3", "expected a number for rlnMicrographPreExposure, found '1D+01'"),
        (" 1_5 3", "expected a number for rlnMicrographPreExposure, found '1_5'"),
        (" -15 3", "rlnMicrographPreExposure holds -15, but no dose can be below 0"),
        (" None 3", "rlnMicrographPreExposure is told for 10 of 11 images"),
    ],
)
def test_doses_that_cannot_be_read_are_named_and_refused_where_they_are_needed(folder, new, found):
    """A volume without them is made, and says so; one that is to be weighed by them is not, unless others tell them."""
    path = star(folder)
    assert path.read_text().count(" 15 3") == 1
    path.write_text(path.read_text().replace(" 15 3", new))
    words = (folder / "ts.mrc", "--star", path, "--model", folder / "knows.safetensors", *QUICK)
    result = made(*words, "-o", folder / "out.mrc")
    assert f"the dose is taken for not told: {path}: {found}" in result.stderr
    assert "defocus 3.1 µm (ts.star)" in result.stderr
    assert "not known: CTF, dose" in result.stderr
    for more in (("--dose-weight",), ("--dose", path)):
        refused(folder, (*words, *more, "-o", folder / "x.mrc"), found)
    told = made(*words, "--dose", mdoc(folder, DOSES), "-o", folder / "told.mrc")
    assert "is taken for not told" not in told.stderr
    assert "dose 0 to 30 e/Å² (--dose ts.mdoc)" in told.stderr


def test_doses_in_another_unit_are_refused(folder):
    path = mdoc(folder, [100 * dose for dose in DOSES])
    words = (folder / "ts.mrc", path, "--method", "fbp", "--thickness", 12, "-o", folder / "out.mrc", "--dose-weight")
    refused(folder, words, "PriorRecordDose holds 3000, expected at most 2000 e/Å²", "is it in e/nm²?")


def test_a_defocus_that_cannot_be_read_leaves_the_doses_alone(folder):
    path = star(folder)
    path.write_text(path.read_text().replace(" 30000 ", " 30000,5 ", 1))
    words = (folder / "ts.mrc", "--star", path, "--model", folder / "knows.safetensors", *QUICK, "--dose-weight")
    result = made(*words, "-o", folder / "out.mrc")
    found = f"{path}: expected a number for rlnDefocusU, found '30000,5'"
    assert f"the defocus is taken for not told: {found}" in result.stderr
    assert "dose 0 to 30 e/Å² (ts.star)" in result.stderr
    given = made(*words, "--defocus", 3, "-o", folder / "given.mrc")
    assert "is taken for not told" not in given.stderr


def test_cells_that_tell_nothing_are_no_error(folder):
    path = star(folder)
    lines = path.read_text().splitlines()
    for nothing in ("None", "<NULL>", "nan", "-nan", "N/A", "0"):
        rows = [
            " ".join([*line.split()[:5], nothing, *line.split()[6:]]) if len(line.split()) == 8 else line
            for line in lines
        ]
        path.write_text("\n".join(rows) + "\n")
        told = read_exposures(path, "ts.mrc")
        assert (told.doses, told.defocus_um) == ((), pytest.approx(3.1))


def test_an_mdoc_beside_the_stack_that_cannot_be_read_is_no_missing_one(folder):
    path = mdoc(folder, DOSES, "ts.mrc.mdoc")
    path.write_text(path.read_text().replace("PriorRecordDose = 15.0", "PriorRecordDose = 15,0"))
    words = (folder / "ts.mrc", folder / "ts.tlt", "--method", "fbp", "--thickness", 12, "--dose-weight")
    refused(folder, (*words, "-o", folder / "x.mrc"), "expected a number for PriorRecordDose, found '15,00000'")


def test_lists_of_warp_of_another_length_are_no_doses(tmp_path):
    path = tmp_path / "ts.xml"
    path.write_text("<TiltSeries><Angles>-3 0 3</Angles><Dose>0 3</Dose></TiltSeries>")
    told = read_exposures(path, "ts.mrc")
    assert (told.doses, told.angles_deg) == ((), (3.0, 0.0, -3.0))
    assert "Dose holds 2 numbers for 3 angles" in told.dose_problem


def test_files_of_warp_tell_doses(tmp_path):
    lists = {
        "Angles": [-angle for angle in ANGLES],
        "Dose": DOSES,
    }
    body = "".join(f"<{name}>{chr(10).join(f'{v:g}' for v in values)}</{name}>" for name, values in lists.items())
    path = tmp_path / "ts.xml"
    path.write_text(f'<TiltSeries>{body}<CTF><Param Name="Defocus" Value="2.75" /></CTF></TiltSeries>')
    told = read_exposures(path, "ts.mrc")
    assert told.of_images(ANGLES) == DOSES
    assert told.defocus_um == 2.75
    # Warp 1 saves UTF-16; level angles belong to the angles that an alignment has.
    text = path.read_text().replace(
        "<TiltSeries", '<?xml version="1.0" encoding="utf-16"?><TiltSeries LevelAngleY="-9"'
    )
    path.write_text(text, encoding="utf-16")
    assert read_exposures(path, "ts.mrc").doses == DOSES
    assert read_exposures(path, "ts.mrc").angles_deg == pytest.approx([angle + 9 for angle in ANGLES])
    table = "data_\n\nloop_\n_wrpAngleTilt #1\n_wrpDose #2\n"
    rows = "".join(f"{-a:g} {d:g}\n" for a, d in zip(ANGLES, DOSES, strict=True))
    (tmp_path / "ts.tomostar").write_text(table + rows)
    assert read_exposures(tmp_path / "ts.tomostar", "ts.mrc").of_images(ANGLES) == DOSES
