"""Correction through the real command: what it prints, records, tells networks and refuses."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from test_ctf_files import ARETOMO, columns
from test_known_command import DOSES, folder, mdoc  # noqa: F401
from tiny_series import ANGLES, made, refused, voxels

from cryolithe.network.checkpoint import load_model, save_network

FBP = ("--method", "fbp", "--thickness", 12, "--device", "cpu")
ROWS = [(2.0 + 0.01 * n, 1.9 + 0.01 * n, 20.0) for n in range(len(ANGLES))]


def command(folder, *more, output="out"):  # noqa: F811
    return (folder / "ts.mrc", folder / "ts.tlt", *FBP, "-o", folder / f"{output}.mrc", *more)


def defocus(folder, name="ts_CTF.txt", hand=1):  # noqa: F811
    (folder / name).write_text(columns(ARETOMO, f" {hand}", rows=ROWS))
    return folder / name


def record(folder, name="out"):  # noqa: F811
    return json.loads((folder / f"{name}.json").read_text())


def test_none_is_what_it_was_whatever_lies_beside_the_stack(folder):  # noqa: F811
    made(*command(folder))
    defocus(folder)
    result = made(*command(folder, "--ctf", "none", output="again"))
    assert "CTF" not in result.stderr
    assert (folder / "again.mrc").read_bytes()[1024:] == (folder / "out.mrc").read_bytes()[1024:]
    assert record(folder, "again")["method"]["corrections"] is None
    idle = made(*command(folder, "--ctf-file", folder / "ts_CTF.txt", output="idle"))
    assert "is not used without --ctf" in idle.stderr
    assert np.array_equal(voxels(folder / "idle.mrc"), voxels(folder / "out.mrc"))


def test_what_is_done_is_printed_and_recorded_and_matters(folder):  # noqa: F811
    path = defocus(folder)
    found = {}
    for how in ("none", "flip", "multiply", "wiener"):
        result = made(*command(folder, "--ctf", how, output=how))
        found[how] = voxels(folder / f"{how}.mrc")
        if how != "none":
            line = next(line for line in result.stderr.splitlines() if "in strips along the tilt axis" in line)
            assert "defocus 1.95 to 2.05 µm (ts_CTF.txt), 300 kV (assumed), Cs 2.7 mm (assumed)" in line
            assert "hand -1 (ts_CTF.txt)" in line
            told = record(folder, how)
            assert told["inputs"]["ctf"]["path"] == str(path)
            assert told["method"]["corrections"]["ctf"]["how"] == how
            assert len(told["method"]["corrections"]["ctf"]["images"]) == len(ANGLES)
    values = list(found.values())
    assert all(not np.array_equal(a, b) for n, a in enumerate(values) for b in values[:n])
    named = command(folder, "--ctf", "flip", "--ctf-file", path, "--defocus-hand", -1, "--voltage", 300, output="named")
    assert "hand -1 (--defocus-hand)" in made(*named).stderr
    assert np.array_equal(voxels(folder / "named.mrc"), found["flip"])
    made(*command(folder, "--ctf", "flip", "--defocus-hand", 1, output="other"))
    assert not np.array_equal(voxels(folder / "other.mrc"), found["flip"])


def test_another_defocus_is_another_volume(folder):  # noqa: F811
    defocus(folder)
    words = command(folder, "--ctf", "flip")
    made(*words)
    defocus(folder, hand=-1)
    refused(folder, words, "exists")


@pytest.mark.parametrize(("factor", "why"), [(20, "counted twice"), (0.01, "another unit")])
def test_doses_that_no_series_has_are_warned_of(folder, factor, why):  # noqa: F811
    doses = tuple(factor * dose for dose in DOSES)
    result = made(*command(folder, "--dose-weight", "--dose", mdoc(folder, doses), output="odd"))
    warned = [line for line in result.stderr.splitlines() if "Warning: " in line]
    assert any("the last image came after" in line and why in line for line in warned), result.stderr


def test_images_are_weighed_by_their_doses(folder):  # noqa: F811
    made(*command(folder))
    refused(folder, command(folder, "--dose-weight", output="a"), "--dose-weight: no file tells the doses")
    result = made(*command(folder, "--dose-weight", "--dose", mdoc(folder, DOSES), output="weighed"))
    assert "dose weighting: images after 0 to 30 e/Å² (--dose ts.mdoc), 300 kV (ts.mdoc)" in result.stderr
    assert "does not use" not in result.stderr
    assert "Warning" not in result.stderr
    assert record(folder, "weighed")["method"]["corrections"]["dose_weight"]["exposures"] == list(DOSES)
    assert voxels(folder / "weighed.mrc").std() < voxels(folder / "out.mrc").std()


@pytest.mark.parametrize(("how", "state"), [("flip", "flipped"), ("wiener", "wiener"), ("multiply", None)])
def test_networks_are_told_what_is_left(folder, how, state):  # noqa: F811
    defocus(folder)
    model = ("--model", folder / "knows.safetensors", "--fbp-share", 0, "--contrast", "dark", "--precision", "fp32")
    words = (folder / "ts.mrc", folder / "ts.tlt", *model, "--thickness", 12, "--device", "cpu", "--dry-run")
    result = made(*words, "-o", folder / "x.mrc", "--ctf", how)
    if state:
        assert f"CTF {state} (--ctf {how}), defocus 2 µm (--ctf {how})" in result.stderr
    else:
        assert f"is told: defocus 2 µm (--ctf {how})" in result.stderr


@pytest.mark.parametrize(
    ("name", "more", "line"),
    [
        ("ts", ("--ctf-state", "flipped"), "--ctf-state says that the CTF is phase-flipped, and correcting twice"),
        ("ts", ("--ctf-state", "wiener"), "--ctf-state says that the CTF is Wiener-filtered"),
        ("ts_ctfcorr", (), "the name of ts_ctfcorr.mrc says that the CTF is phase-flipped"),
    ],
)
def test_nothing_is_corrected_twice(folder, name, more, line):  # noqa: F811
    if name != "ts":
        (folder / "ts.mrc").rename(folder / f"{name}.mrc")
    words = (folder / f"{name}.mrc", folder / "ts.tlt", *FBP, "-o", folder / "out.mrc")
    refused(folder, (*words, "--ctf", "flip", "--ctf-file", defocus(folder), *more), line)
    made(*words, *more, "--dry-run")


def test_what_is_not_known_is_asked_for(folder):  # noqa: F811
    refused(folder, command(folder, "--ctf", "flip"), "the defocus of ts.mrc is not known", "--ctf-file")
    refused(folder, command(folder, "--ctf", "flip", "--ctf-file", folder / "no.txt"), "does not exist")
    refused(folder, command(folder, "--ctf", "flip", "--defocus-hand", 0), "--defocus-hand: ", "expected 1 or -1")


def voltage_mdoc(folder, kv, name="ts.mdoc"):  # noqa: F811
    path = mdoc(folder, DOSES)
    text, changed = re.subn(r"(?m)^Voltage = 300$", f"Voltage = {kv}", path.read_text())
    assert changed
    path.write_text(text)
    return path.rename(folder / name)


def test_the_voltage_is_that_of_the_mdoc_where_the_defocus_file_tells_none(folder):  # noqa: F811
    defocus(folder)
    words = ("--ctf", "flip", "--dose-weight", "--defocus-hand", 1)
    path = voltage_mdoc(folder, 200)
    result = made(*command(folder, *words, "--dose", path, output="given"))
    assert "(ts_CTF.txt), 200 kV (ts.mdoc), Cs 2.7 mm (assumed)" in result.stderr
    assert "(--dose ts.mdoc), 200 kV (ts.mdoc)" in result.stderr
    told = record(folder, "given")["method"]["corrections"]
    assert told["ctf"]["voltage_kv"] == told["dose_weight"]["voltage_kv"] == 200
    assert told["ctf"]["assumed"] == ["spherical_aberration_mm", "amplitude_contrast"]
    made(*command(folder, *words, "--dose", path, "--voltage", 200, output="said"))
    assert np.array_equal(voxels(folder / "given.mrc"), voxels(folder / "said.mrc"))
    path.rename(folder / "ts.mrc.mdoc")  # beside the stack
    made(*command(folder, *words, output="beside"))
    assert record(folder, "beside")["inputs"]["dose"]["path"] == str(folder / "ts.mrc.mdoc")
    flip = command(folder, *words[:2], output="flipped")
    made(*flip)
    assert record(folder, "flipped")["inputs"]["microscope"]["path"] == str(folder / "ts.mrc.mdoc")
    assert np.array_equal(voxels(folder / "beside.mrc"), voxels(folder / "said.mrc"))
    made(*command(folder, *words, "--voltage", 300, output="other"))
    assert not np.array_equal(voxels(folder / "other.mrc"), voxels(folder / "said.mrc"))


@pytest.mark.parametrize("kv", ["0", "-200", "many"])
def test_a_voltage_that_cannot_be_is_not_told(folder, kv):  # noqa: F811
    defocus(folder)
    voltage_mdoc(folder, kv, "ts.mrc.mdoc")
    assert "300 kV (assumed)" in made(*command(folder, "--ctf", "flip")).stderr


def test_files_that_contradict_each_other_are_named(folder):  # noqa: F811
    path = defocus(folder)
    path.write_text("# acceleration voltage: 300.0 keV\n" + path.read_text())
    voltage_mdoc(folder, 200, "ts.mrc.mdoc")
    words = command(folder, "--ctf", "flip", "--dry-run")
    assert (
        "Warning: ts_CTF.txt says 300 kV, ts.mrc.mdoc 200 kV; the first is taken, --voltage tells"
        in made(*words).stderr
    )
    assert "Warning" not in made(*words, "--voltage", 200).stderr


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([(-3.0, -2.9, 20.0)] * len(ANGLES), "a defocus of -2.95 µm, overfocus"),
        ([(3e-4, 3e-4, 20.0)] * len(ANGLES), "a defocus of 0.0003 µm, at which nothing is corrected"),
        *(
            (
                [(3.0, 3.0, 0.0), (one, one, 0.0)] + [(3.0, 3.0, 0.0)] * (len(ANGLES) - 2),
                f"of {one:g} µm for image 2:",
            )
            for one in (0.0, -0.5, 0.05, 100.0)
        ),
    ],
)
def test_a_defocus_that_cannot_be_is_refused(folder, rows, line):  # noqa: F811
    (folder / "ts_CTF.txt").write_text(columns(ARETOMO, " 1", rows=rows))
    refused(folder, command(folder, "--ctf", "flip"), line)


def test_what_is_told_of_images_that_the_user_leaves_out_does_not_matter(folder):  # noqa: F811
    """The remedy that a refusal names has to work; a table may lack rows of these images, too."""
    rows = [(3.0, 3.0, 0.0), (0.0, 0.0, 0.0)] + [(3.0, 3.0, 0.0)] * (len(ANGLES) - 2)
    path = folder / "ts_CTF.txt"
    path.write_text(columns(ARETOMO, " 1", rows=rows))
    words = command(folder, "--ctf", "flip", "--dry-run")
    refused(folder, words, "of 0 µm for image 2:")
    made(*words, "--exclude", "2")
    path.write_text("".join(line for line in path.read_text().splitlines(True) if line.split()[0] != "2"))
    refused(folder, words, "rows of images that are used are missing")
    made(*words, "--exclude", "2")


def test_messages_count_images_as_exclude_does(folder):  # noqa: F811
    """Not those that are left once some are excluded: who follows a message would leave out another image."""
    rows = [(3.0, 3.0, 0.0) if number != 4 else (0.0, 0.0, 0.0) for number in range(len(ANGLES))]
    path = folder / "ts_CTF.txt"
    path.write_text(columns(ARETOMO, " 1", rows=rows))
    words = command(folder, "--ctf", "flip", "--dry-run")
    refused(folder, (*words, "--exclude", "1,3"), "of 0 µm for image 5:")
    rows[4] = (9.0, 9.0, 0.0)
    path.write_text(columns(ARETOMO, " 1", rows=rows))
    result = made(*words, "--exclude", "1,3")
    assert "far from the median of 3 µm for image 5" in " ".join(result.stderr.split())
    assert "far from the median" not in made(*words, "--exclude", "1,3,5").stderr


def test_defoci_that_stand_out_are_named(folder):  # noqa: F811
    rows = [(3.0, 3.0, 0.0)] * (len(ANGLES) - 1) + [(30.0, 30.0, 0.0)]
    (folder / "ts_CTF.txt").write_text(columns(ARETOMO, " 1", rows=rows))
    result = made(*command(folder, "--ctf", "flip", "--dry-run"))
    assert f"Warning: ts_CTF.txt tells defoci far from the median of 3 µm for image {len(ANGLES)}\n" in result.stderr


@pytest.mark.parametrize(("shift", "line"), [(90.0, None), (1.5708, "phase shift 90° to 90° (ts_CTF.txt)")])
def test_phase_shifts_are_told_and_those_in_degrees_are_refused(folder, shift, line):  # noqa: F811
    # AreTomo's and CTFFIND's are in radians; near focus is where phase plates are used.
    lines = columns(ARETOMO, " 1", rows=[(0.05, 0.05, 0.0)] * len(ANGLES)).splitlines()
    rows = [line if line.startswith("#") else _with_shift(line, shift) for line in lines]
    (folder / "ts_CTF.txt").write_text("\n".join(rows) + "\n")
    words = command(folder, "--ctf", "flip", "--dry-run")
    if line is None:
        refused(folder, words, "a phase shift of 5156.6°", "radians")
    else:
        assert line in made(*words).stderr


def _with_shift(line, shift):
    cells = line.split()
    cells[4] = str(shift)
    return " ".join(cells)


def test_views_that_imods_file_does_not_tell_of_are_named(folder):  # noqa: F811
    count = len(ANGLES)
    rows = [f"{n} {n} {a:g} {a:g} 2000{' 2' * (n == 3)}" for n, a in enumerate(ANGLES, start=1) if 3 <= n < count]
    (folder / "ts.defocus").write_text("\n".join(rows) + "\n")
    result = made(*command(folder, "--ctf", "flip", "--dry-run"))
    said = (
        f"Warning: ts.defocus tells of views 3 to {count - 1} alone; 3 of {count} images get the defocus of the nearest"
    )
    assert said in result.stderr
    rows = [f"{n} {n} {a:g} {a:g} 2000{' 2' * (n == 1)}" for n, a in enumerate(ANGLES, start=1)]
    (folder / "ts.defocus").write_text("\n".join(rows) + "\n")
    assert "Warning" not in made(*command(folder, "--ctf", "flip", "--dry-run")).stderr


@pytest.mark.parametrize("program", ["relion", "warp"])
def test_doses_are_weighed_with_the_voltage_of_the_tables_that_tell_them(folder, program):  # noqa: F811
    if program == "warp":
        lists = {"Angles": [-angle for angle in ANGLES], "Dose": DOSES, "UseTilt": ["True"] * len(ANGLES)}
        lists |= {name: [0] * len(ANGLES) for name in ("AxisAngle", "AxisOffsetX", "AxisOffsetY")}
        body = "".join(f"<{name}>" + "\n".join(map(str, column)) + f"</{name}>" for name, column in lists.items())
        ctf = '<CTF><Param Name="Voltage" Value="200" /></CTF>'
        size = 'ImageDimensionsAngstrom="240, 200" VolumeDimensionsAngstrom="240, 200, 60"'
        path = folder / "ts.xml"
        path.write_text(f'<?xml version="1.0" encoding="utf-16"?><TiltSeries {size}>{body}{ctf}</TiltSeries>', "utf-16")
    else:
        path = folder / "ts.star"
        rows = [f"{a:g} 0 0 0 0 {d:g} 200.0" for a, d in zip(ANGLES, DOSES, strict=True)]
        names = ("TomoYTilt", "TomoZRot", "TomoXTilt", "TomoXShiftAngst", "TomoYShiftAngst", "MicrographPreExposure")
        columns_ = "".join(f"_rln{name} #{n}\n" for n, name in enumerate((*names, "Voltage"), start=1))
        path.write_text(f"data_ts\n\nloop_\n{columns_}" + "\n".join(rows) + "\n")
    option = "--star" if program == "relion" else "--warp"
    words = (folder / "ts.mrc", option, path, *FBP, "--dose-weight", "-o", folder / "out.mrc", "--dry-run")
    assert f"({path.name}), 200 kV ({path.name})" in made(*words).stderr
    assert f"({path.name}), 300 kV" in made(*words, "--voltage", 300).stderr


def test_the_sign_of_warps_angles_is_said_where_another_program_aligned(folder):  # noqa: F811
    nodes = "".join(f'<Node X="0" Y="0" Z="{n}" Value="{2 + n / 50}" />' for n in range(len(ANGLES)))
    lists = {"Angles": [-angle for angle in ANGLES], "UseTilt": ["True"] * len(ANGLES)}
    lists |= {name: [0] * len(ANGLES) for name in ("AxisAngle", "AxisOffsetX", "AxisOffsetY")}
    body = "".join(f"<{name}>" + "\n".join(map(str, column)) + f"</{name}>" for name, column in lists.items())
    ctf = '<CTF><Param Name="Defocus" Value="2.2" /><Param Name="Voltage" Value="300" /></CTF>'
    grid = f'<GridCTF Width="1" Height="1" Depth="{len(ANGLES)}">{nodes}</GridCTF>'
    size = 'ImageDimensionsAngstrom="240, 200" VolumeDimensionsAngstrom="240, 200, 60"'
    path = folder / "ts.xml"
    path.write_text(f"<TiltSeries {size}>{body}{ctf}{grid}</TiltSeries>")
    words = (*FBP, "--ctf", "flip", "-o", folder / "out.mrc", "--dry-run")
    said = made(folder / "ts.mrc", folder / "ts.tlt", "--ctf-file", path, *words).stderr
    assert "if it was made with --dont_invert, each image gets the defoci of the opposite tilt" in said
    assert "--dont_invert" not in made(folder / "ts.mrc", "--warp", path, *words).stderr


def test_an_alignment_that_cannot_be_read_is_not_called_a_defocus_that_is_not_known(folder):  # noqa: F811
    (folder / "ts.xml").write_text("<TiltSeries><Angles>")
    words = (folder / "ts.mrc", "--warp", folder / "ts.xml", *FBP, "-o", folder / "out.mrc", "--ctf", "flip")
    refused(folder, words, "is not an XML file")


def test_the_microscope_of_relions_list_is_that_of_the_series_it_names(folder):  # noqa: F811
    # RELION's jobs: job/tilt_series_ctf.star lists job/tilt_series/ts.star, which tells no microscope.
    (folder / "tilt_series").mkdir()
    names = ("TomoYTilt", "TomoZRot", "TomoXTilt", "TomoXShiftAngst", "TomoYShiftAngst", "DefocusU", "DefocusV")
    head = "".join(f"_rln{name} #{n}\n" for n, name in enumerate(names, start=1))
    rows = "".join(f"{a:g} 0 0 0 0 30000 29000\n" for a in ANGLES)
    path = folder / "tilt_series" / "ts.star"
    path.write_text(f"data_ts\n\nloop_\n{head}{rows}")
    words = (folder / "ts.mrc", "--star", path, *FBP, "--ctf", "flip", "-o", folder / "out.mrc", "--dry-run")
    assert "(ts.star), 300 kV (assumed)" in made(*words).stderr
    names = ("TomoName", "Voltage", "SphericalAberration", "AmplitudeContrast", "TomoHand", "TomoTiltSeriesStarFile")
    head = "".join(f"_rln{name} #{n}\n" for n, name in enumerate(names, start=1))
    listed = "other 300 2.7 0.1 1 tilt_series/other.star\nts 200 1.4 0.08 -1 tilt_series/ts.star\n"
    (folder / "tilt_series_ctf.star").write_text(f"data_global\n\nloop_\n{head}{listed}")
    said = made(*words).stderr
    lens = ("200 kV", "Cs 1.4 mm", "amplitude contrast 0.08", "hand +1")
    assert "(ts.star), " + ", ".join(f"{value} (tilt_series_ctf.star)" for value in lens) in said
    assert "hand +1" in made(*words[:1], "--star", folder / "tilt_series_ctf.star", *words[3:]).stderr


def test_a_model_that_was_adapted_to_images_treated_otherwise_says_so(folder):  # noqa: F811
    defocus(folder)
    model = load_model(str(folder / "knows.safetensors"))
    treated = [{"name": "ts", "corrections": {"ctf": {"how": "flip"}, "dose_weight": {"voltage_kv": 300}}}]
    for name, card in (("own", {"adapted": {}, "series": treated}), ("plain", {"series": treated})):
        save_network(folder / f"{name}.safetensors", model.network, card)
    rest = ("--thickness", 12, "--device", "cpu", "--precision", "fp32", "--contrast", "dark", "--dry-run")
    words = (folder / "ts.mrc", folder / "ts.tlt", *rest, "-o", folder / "x.mrc", "--dose", mdoc(folder, DOSES))
    own, ctf = ("--model", folder / "own.safetensors"), ("--ctf", "flip")
    said = "Warning: model own was adapted to images with --ctf flip --dose-weight, these have"
    assert f"{said} --ctf none" in made(*words, *own).stderr
    assert f"{said} --ctf flip" in made(*words, *own, *ctf).stderr
    assert "was adapted to" not in made(*words, *own, *ctf, "--dose-weight").stderr
    assert "was adapted to" not in made(*words, "--model", folder / "plain.safetensors").stderr
