"""A useless value in a table does no harm where a flag replaces it."""

from __future__ import annotations

import numpy as np
import pytest
from projects import BEADS, VOLUME, bead_places, make_project, write_relion
from tiny_series import made, refused, voxels

FBP = ("--method", "fbp", "--contrast", "bright")


@pytest.mark.slow
@pytest.mark.parametrize("depth", ["-1", "0", "nan", "auto", "1e999"])
def test_a_thickness_beats_a_useless_depth_of_relion(depth, tmp_path):
    project = make_project(tmp_path / "raw")
    listing, _ = write_relion(project)
    listing.write_text(listing.read_text().replace(f" {VOLUME[1]} {VOLUME[0]}\n", f" {VOLUME[1]} {depth}\n"))
    assert f"{VOLUME[1]} {depth}" in listing.read_text()
    arguments = [project.stack, "--star", listing, "-o", tmp_path / "v.mrc", *FBP]
    refused(tmp_path, arguments, "pixels, expected a positive one; give --thickness")
    made(*arguments, "--thickness", VOLUME[0])
    np.testing.assert_allclose(bead_places(voxels(tmp_path / "v.mrc")), [bead[:3] for bead in BEADS], atol=0.1)
