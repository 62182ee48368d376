"""Local alignments that change along a beam: their size at all depths of a volume, and rows that are compared."""

from __future__ import annotations

import json

import bent_projects
import numpy as np
import pytest
import torch
from bent_projects import (
    AXIS_DEG,
    PIXEL,
    VOLUME,
    VOLUME_ANGSTROM,
    errors,
    imod_place,
    make_bent,
    seen,
    straight_place,
    write_imod,
    write_warp,
)
from command import good
from projects import turn
from tiny_series import made, refused, voxels

from cryolithe.column_shifts import ColumnShifts
from cryolithe.geometry import TiltGeometry
from cryolithe.projector import by_bands, make_projector
from cryolithe.reconstruction.backprojected import WINDOW, back_projection
from cryolithe.reconstruction.jobs.job import Job
from cryolithe.settings import ReconstructSettings

FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", VOLUME[0])
FACE_PX, GRID_FACE_PX = VOLUME[0] / 2, VOLUME_ANGSTROM[2] / PIXEL / 2


def sheared(folder, monkeypatch, angstrom):
    """A specimen that Warp's grid moves along x, by nothing in the middle and by so much at the faces of the grid."""
    values = np.zeros((3, 2, 2, 3, 3))
    values[0] = np.array([-angstrom, angstrom])[None, :, None, None]
    monkeypatch.setattr(bent_projects, "warping", lambda: values)

    def place(number, point, shift):
        moved = point + np.array([angstrom / PIXEL * point[2] / GRID_FACE_PX, 0, 0])
        return turn(AXIS_DEG) @ seen(moved, number) + shift

    project = make_bent(folder, place)
    return project, write_warp(project, False, True)


def local_record(path):
    return json.loads(path.with_suffix(".json").read_text())["geometry"]["local_alignment"]


@pytest.mark.slow
def test_a_field_that_moves_nothing_in_the_middle_is_kept(monkeypatch, tmp_path):
    """And its size is that at the faces of the volume; `info` tells that at the faces of Warp's."""
    project, xml = sheared(tmp_path / "raw", monkeypatch, 25.0)
    result = made(project.stack, "--warp", xml, *FBP, "-o", tmp_path / "v.mrc")
    assert np.abs(errors(voxels(tmp_path / "v.mrc"))).max() < 0.2
    wanted = 25 / PIXEL * FACE_PX / GRID_FACE_PX
    assert local_record(tmp_path / "v.mrc")["largest_shift_px"] == pytest.approx(wanted, rel=0.01)
    assert f"local shifts of up to {wanted:.2f} pixels undone (ts.xml)" in result.stderr
    assert "moves parts" not in result.stderr
    (told,) = json.loads(good("info", xml, "--json").stdout)
    assert told["local_shifts"]["largest_angstrom"] == pytest.approx(25, rel=0.01)
    made(project.stack, "--warp", xml, *FBP, "--no-local-alignment", "-o", tmp_path / "w.mrc")
    assert np.abs(errors(voxels(tmp_path / "w.mrc"))).max() > 1


def test_shifts_of_the_faces_that_are_too_large_are_refused_or_warned_of(monkeypatch, tmp_path):
    """As those of the middle are; of a thinner volume, in which they are small, nothing is said."""
    project, xml = sheared(tmp_path / "raw", monkeypatch, 700.0)
    words = (project.stack, "--warp", xml, "-o", tmp_path / "v.mrc")
    refused(tmp_path, (*words, *FBP), "ts.xml moves parts of images by up to 105 pixels")
    assert "by up to 18 pixels" in made(*words, *FBP[:4], "--thickness", 4).stderr
    assert "moves parts" not in made(*words, *FBP[:4], "--thickness", 2, "--overwrite").stderr


def test_info_of_imod_tells_the_size_at_all_depths(tmp_path):
    project = make_bent(tmp_path / "raw", straight_place)
    newst, tilt = write_imod(project, ("FULLIMAGE 132 120",))
    made(project.stack, "--newst-com", newst, "--tilt-com", tilt, *FBP, "-o", tmp_path / "v.mrc")
    (middle,) = json.loads(good("info", tilt, "--json").stdout)
    assert "whose thickness it does not tell" in " ".join(good("info", tilt).stdout.split())
    tilt.write_text(tilt.read_text() + f"THICKNESS {VOLUME[0]}\n")
    (told,) = json.loads(good("info", tilt, "--json").stdout)
    wanted = local_record(tmp_path / "v.mrc")["largest_shift_px"]
    assert told["local_shifts"]["largest_px"] == pytest.approx(wanted, rel=0.02)
    assert middle["local_shifts"]["largest_px"] <= told["local_shifts"]["largest_px"]


@pytest.mark.slow
def test_the_self_check_follows_shifts_from_band_to_band(tmp_path):
    """A back-projection is its own."""
    project = make_bent(tmp_path / "raw", imod_place)
    newst, tilt = write_imod(project)
    made(project.stack, "--newst-com", newst, "--tilt-com", tilt, *FBP, "-o", tmp_path / "v.mrc")
    assert json.loads((tmp_path / "v.json").read_text())["self_check"]["correlation"] > 0.995


def test_back_projections_for_the_fsc_of_halves_follow_shifts_from_band_to_band(tmp_path):
    """They are rows of the volume of ``--method fbp``."""
    project = make_bent(tmp_path / "raw", imod_place)
    newst, tilt = write_imod(project)
    files = ("--newst-com", newst, "--tilt-com", tilt)
    for name, local in (("v", ()), ("straight", ("--no-local-alignment",))):
        made(project.stack, *files, *FBP, "--filter", WINDOW, *local, "-o", tmp_path / f"{name}.mrc")
    settings = ReconstructSettings(newst_com=str(newst), tilt_com=str(tilt), contrast="bright", thickness=VOLUME[0])
    values, rows = back_projection(Job(project.stack, None, tmp_path / "v.mrc", settings), tmp_path)
    own, straight = (voxels(tmp_path / f"{name}.mrc")[:, rows.start : rows.stop] for name in ("v", "straight"))
    away = [abs(values - volume).max() / abs(values).max() for volume in (own, straight)]
    assert away[0] < 1e-4
    assert away[1] > 0.1


def test_projection_by_bands_is_the_adjoint_of_back_projection_by_bands():
    rng = np.random.default_rng(3)
    nodes = [np.linspace(-half, half, count) for half, count in ((15, 5), (4, 3), (10, 4))]
    shifts = ColumnShifts(*nodes, 2 * rng.standard_normal((7, 5, 3, 4), dtype=np.float32))
    geometry = TiltGeometry(tuple(np.linspace(-50, 50, 7)), (32, 21), shifts)
    projector = make_projector(geometry, (9, 21))
    volume, images = (torch.from_numpy(rng.standard_normal(shape)) for shape in ((9, 13, 21), (7, 13, 21)))
    seen = by_bands(projector, 5, volume, lambda band, part: band.forward(part))
    back = by_bands(projector, 5, images, lambda band, part: band.adjoint(part))
    assert float((seen * images).sum()) == pytest.approx(float((back * volume).sum()), rel=1e-4)
    assert not torch.allclose(seen, projector.forward(volume))
