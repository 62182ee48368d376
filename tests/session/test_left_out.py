"""What a folder holds that no session takes is named, with what to do."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from command import call, ended, good, refusal_of

from cryolithe.formats import write_stack
from cryolithe.formats.series.session_folder import read_session_folder

DRY = ("--method", "fbp", "--thickness", 4, "--dry-run")
ANGLES = "-20\n0\n20\n"


def stack(path, images=3):
    path.parent.mkdir(exist_ok=True)
    write_stack(path, np.zeros((images, 8, 8), np.float32), 5.0, "made for a test")


def compressed(path):
    stack(path)
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def series(folder):
    """One that is taken."""
    stack(folder / "x_ali.mrc")
    (folder / "x.tlt").write_text(ANGLES)


@pytest.mark.parametrize("angles", ["J.tlt", "J_EVN.tlt", None])
@pytest.mark.parametrize(
    ("even", "odd"),
    [
        ("J_EVN.mrc", "J_ODD.mrc"),
        ("J_even.mrc", "J_odd.mrc"),
        ("J_half1.mrc", "J_half2.mrc"),
        ("J_EVN_ali.mrc", "J_ODD_ali.mrc"),
        ("J_EVN_bin2.st", "J_ODD_bin2.st"),
    ],
)
def test_halves_without_their_whole_are_named(even, odd, angles, tmp_path):
    for name in (even, odd):
        stack(tmp_path / name)
    if angles:
        (tmp_path / angles).write_text(ANGLES)
    said = refusal_of(call("reconstruct", tmp_path, *DRY))
    assert f"--even {even} --odd {odd}" in said
    series(tmp_path)
    said = good("reconstruct", tmp_path, *DRY).stderr
    assert f"Left out, halves without their whole stack (give each two with --even and --odd): {even}, {odd}" in said
    told = " ".join(good("info", tmp_path).stdout.split())
    assert f"left out {even}, {odd}" in told


def test_what_is_no_half_of_a_series_is_not_named(tmp_path):
    """Halves beside their whole, of volumes, and of single images."""
    series(tmp_path)
    for name in ("x_EVN.mrc", "x_ODD.mrc", "y_rec_EVN.mrc", "y_rec_ODD.mrc", "rec_z_half1.mrc"):
        stack(tmp_path / name)
    for name in ("f_0_EVN.mrc", "f_0_ODD.mrc"):
        stack(tmp_path / "frames" / name, images=1)
    assert read_session_folder(tmp_path).reasons == {}


@pytest.mark.parametrize("name", ["N_ali.mrc", "N.st", "N.mrcs"])
def test_compressed_stacks_with_angles_are_named(name, tmp_path):
    compressed(tmp_path / name)
    (tmp_path / "N.tlt").write_text(ANGLES)
    said = refusal_of(call("reconstruct", tmp_path, *DRY))
    assert f"{name}.gz): unpack them, or give each alone" in said
    series(tmp_path)
    said = good("reconstruct", tmp_path, *DRY).stderr
    assert f"Left out, compressed (unpack, or give each alone with its files): {name}.gz" in said
    stack(tmp_path / name)
    assert "compressed" not in good("reconstruct", tmp_path, *DRY).stderr


def test_compressed_volumes_are_nothing_to_tell(tmp_path):
    series(tmp_path)
    for name in ("a_rec.mrc", "map.mrc"):
        compressed(tmp_path / name)
    assert read_session_folder(tmp_path).reasons == {}


def refusals(folder):
    """Of what a dry run says that it would fail, why, by stack."""
    lines = ended(call("reconstruct", folder, *DRY), 1).splitlines()
    return [line.partition(": would fail: ")[2] for line in lines if ": would fail: " in line]


def test_info_tells_what_a_dry_run_would_refuse(tmp_path):
    series(tmp_path)
    assert json.loads(good("info", tmp_path, "--json").stdout)[0]["problems"] == []
    for name in ("few", "short", "text", "odd_one"):
        stack(tmp_path / f"{name}_ali.mrc")
        (tmp_path / f"{name}.tlt").write_text(ANGLES)
    (tmp_path / "few.tlt").write_text("-20\n0\n")
    (tmp_path / "short_ali.mrc").write_bytes((tmp_path / "short_ali.mrc").read_bytes()[:-9])
    (tmp_path / "text_ali.mrc").write_text("hello")
    (tmp_path / "odd_one.tlt").write_text("-20\n0\n200\n")
    stack(tmp_path / "raw.mrc")
    (tmp_path / "raw.xf").write_text("1 0 0 1 0 0\n" * 2)
    (tmp_path / "raw.tlt").write_text(ANGLES)
    problems = json.loads(good("info", tmp_path, "--json").stdout)[0]["problems"]
    assert len(problems) == 5
    # A dry run may add what was most likely meant.
    assert all(
        whole.startswith(problem) for problem, whole in zip(sorted(problems), sorted(refusals(tmp_path)), strict=True)
    )


def test_info_says_why_a_folder_holds_no_series(tmp_path):
    """As `reconstruct` does."""
    (tmp_path / "job").mkdir()
    (tmp_path / "empty").mkdir()
    table = tmp_path / "job" / "tomograms.star"
    row = "data_global\n\nloop_\n_rlnTomoName\n_rlnTomoTiltSeriesStarFile\nts ts.star\n"
    table.write_text(row)
    table.with_name("a_cryolithe.star").write_text(row)
    table.with_name("particles.star").write_text("data_\n\nloop_\n_rlnCoordinateX\n1\n")
    for name in ("f_0.mrc", "f_1.mrc"):
        stack(tmp_path / "frames" / name, images=1)
    told = {
        "job": f"angle files of the same name; {table} lists tilt series of RELION: give that table",
        "empty": "expected stacks and angle files of the same name",
        "frames": "2 stacks have fewer than 3 images, or are of a montage",
    }
    for name, why in told.items():
        said = refusal_of(call("info", tmp_path / name))
        assert said == refusal_of(call("reconstruct", tmp_path / name, *DRY))
        assert said.startswith(f"Error: {tmp_path / name} holds no tilt series: ")
        assert said.endswith(f"{why}\n")
