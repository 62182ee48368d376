"""STAR files with the image tables of several series: everything is that of the series that the stack's name tells."""

from __future__ import annotations

import json

import pytest
from tiny_series import ANGLES, made, refused, write_series

FBP = ("--method", "fbp", "--thickness", 12, "--device", "cpu")
COLUMNS = ("MicrographName", "TomoYTilt", "TomoZRot", "TomoXShiftAngst", "TomoYShiftAngst", "TomoXTilt")
COLUMNS += ("MicrographPreExposure", "DefocusU", "DefocusV", "DefocusAngle")


def several(folder, series, listed=False):
    """A file with tables of defocus (Å), dose of an image and voltage, by the name of the series."""
    path, lines = folder / "all.star", []
    if listed:
        lines = ["data_global", "", "loop_", "_rlnTomoName #1", "_rlnVoltage #2", "_rlnTomoHand #3"]
        lines += [*(f"{name} {told[2]} -1" for name, told in series.items()), ""]
    for name, (defocus, dose, voltage) in series.items():
        columns = COLUMNS if listed else (*COLUMNS, "Voltage")
        lines += [f"data_{name}", "", "loop_", *(f"_rln{column} #{n}" for n, column in enumerate(columns, start=1))]
        last = "" if listed else f" {voltage}"
        lines += [
            f"{n + 1:03d}@{name}.mrc {angle} 0 0 0 0 {dose * n} {defocus} {defocus} 0{last}"
            for n, angle in enumerate(ANGLES)
        ]
        lines.append("")
    path.write_text("\n".join(lines))
    return path


def told(output):
    made_of = json.loads(output.with_suffix(".json").read_text())["method"]["corrections"]
    return made_of["ctf"]["images"][0]["u_um"], made_of["dose_weight"]["exposures"][1], made_of["ctf"]["voltage_kv"]


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("first", ["TS_1", "TS_10"])
def test_a_series_whose_name_begins_with_that_of_another_has_its_own_values(first, listed, tmp_path):
    series = {"TS_1": (20000, 3.0, 200), "TS_10": (45000, 2.0, 300)}
    path = several(tmp_path, {name: series[name] for name in sorted(series, key=lambda name: name != first)}, listed)
    for name, (defocus, dose, voltage) in series.items():
        stack, angles = write_series(tmp_path, name=name)
        beside = () if listed else ((angles, "--ctf-file", path, "--dose", path),)
        for number, files in enumerate([("--star", path), *beside]):
            output = tmp_path / f"{name}_{number}_rec.mrc"
            made(stack, *files, *FBP, "--ctf", "flip", "--dose-weight", "-o", output)
            assert told(output) == pytest.approx((defocus / 1e4, dose, voltage))


@pytest.mark.parametrize("words", [("--ctf", "flip", "--ctf-file"), ("--dose-weight", "--dose")])
def test_a_series_that_is_none_of_those_of_a_file_gets_nothing_of_them(words, tmp_path):
    path = several(tmp_path, {"TS_1": (20000, 3.0, 300), "TS_2": (30000, 2.0, 300)})
    stack, angles = write_series(tmp_path, name="TS_10")
    refused(
        tmp_path,
        (stack, angles, *FBP, "-o", tmp_path / "out.mrc", *words, path),
        "lists 2 series (TS_1, TS_2), none of which the name TS_10.mrc tells",
    )


def test_what_was_done_to_the_images_of_another_series_is_not_said_of_this_one(tmp_path):
    path = several(tmp_path, {"TS_1": (20000, 3.0, 300), "TS_10": (45000, 2.0, 300)})
    path.write_text(path.read_text().replace("@TS_1.mrc", "@TS_1_ctf_corrected.mrc"))
    words = ("--star", path, *FBP, "--ctf", "flip", "-o", tmp_path / "out.mrc")
    made(write_series(tmp_path, name="TS_10")[0], *words, "--dry-run")
    refused(tmp_path, (write_series(tmp_path, name="TS_1")[0], *words), "says that the CTF is")
