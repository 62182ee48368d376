"""Raw stacks with the alignment files of other programs, through the real command: matter lands in the same voxels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from projects import (
    ANGLES,
    BEADS,
    DARK,
    VOLUME,
    bead_places,
    make_project,
    write_aretomo,
    write_imod,
    write_relion,
    write_warp,
)
from tiny_series import made, voxels

TRUTH = np.array([bead[:3] for bead in BEADS])
FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", VOLUME[0])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project") / "raw")


@pytest.fixture(scope="module")
def imod_volume(project, tmp_path_factory):
    """The series as an IMOD project."""
    _, newst, tilt = write_imod(project)
    output = tmp_path_factory.mktemp("imod") / "v.mrc"
    made(project.stack, "--newst-com", newst, "--tilt-com", tilt, "-o", output, *FBP)
    return voxels(output)


def test_an_imod_project_puts_beads_where_they_are(imod_volume):
    assert imod_volume.shape == VOLUME
    np.testing.assert_allclose(bead_places(imod_volume), TRUTH, atol=0.1)


def same(a, b):
    """The same volume: places within 0.1 px, and values as well as files with few digits allow."""
    np.testing.assert_allclose(bead_places(a), bead_places(b), atol=0.1)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999


@pytest.mark.parametrize(("first", "order", "with_angles"), [(1, 1, False), (0, -1, False), (1, -1, True)])
def test_an_aretomo_project_gives_the_same(first, order, with_angles, project, imod_volume, tmp_path):
    aln = write_aretomo(project, first, order)
    angles = [project.tlt] if with_angles else []
    made(project.stack, *angles, "--aln", aln, "-o", tmp_path / "v.mrc", *FBP)
    same(voxels(tmp_path / "v.mrc"), imod_volume)


@pytest.mark.parametrize("listed", [False, True])
def test_a_relion_project_gives_the_same(listed, project, imod_volume, tmp_path):
    listing, table = write_relion(project)
    thickness = () if listed else ("--thickness", VOLUME[0])  # the listing holds it
    star = listing if listed else table
    made(project.stack, "--star", star, "-o", tmp_path / "v.mrc", *FBP[:4], *thickness)
    same(voxels(tmp_path / "v.mrc"), imod_volume)


def test_a_warp_series_gives_the_same(project, imod_volume, tmp_path):
    made(project.stack, "--warp", write_warp(project), "-o", tmp_path / "v.mrc", *FBP)
    same(voxels(tmp_path / "v.mrc"), imod_volume)


def test_what_was_used_is_told_and_recorded(project, tmp_path):
    aln = write_aretomo(project)
    result = made(project.stack, "--aln", aln, "-o", tmp_path / "v.mrc", *FBP)
    assert "left out: 1, 12 of 20" in result.stderr
    record = json.loads((tmp_path / "v.json").read_text())
    assert record["geometry"]["excluded_sections"] == [section + 1 for section in DARK]
    for name in ("transforms", "tilt_angles_deg", "sections"):
        assert len(record["geometry"][name]) == len(ANGLES) - len(DARK)
    assert set(record["inputs"]) == {"tilts", "aln"}
