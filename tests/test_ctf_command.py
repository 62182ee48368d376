"""Correction through the real command: what it prints, records, tells networks and refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_ctf_files import ARETOMO, columns
from test_known_command import DOSES, folder, mdoc  # noqa: F401
from tiny_series import ANGLES, made, refused, voxels

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


def test_images_are_weighed_by_their_doses(folder):  # noqa: F811
    made(*command(folder))
    refused(folder, command(folder, "--dose-weight", output="a"), "--dose-weight: no file tells the doses")
    result = made(*command(folder, "--dose-weight", "--dose", mdoc(folder, DOSES), output="weighed"))
    assert "dose weighting: images after 0 to 30 e/Å² (--dose ts.mdoc), 300 kV (assumed)" in result.stderr
    assert "does not use" not in result.stderr
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
