"""The beads with which alignments are judged: right ones pass, wrong ones do not."""

import mrcfile
import numpy as np
import pytest
from beads import ANGLES, DEPTH, assert_beads, bead_errors, bead_images, write_angles, write_stack
from tiny_series import made

FBP = ("--method", "fbp", "--thickness", DEPTH)


@pytest.mark.slow
@pytest.mark.parametrize("axis_deg", [0.0, 84.8])
def test_beads_are_found_where_they_are(axis_deg, tmp_path):
    stack = write_stack(tmp_path / "ts.mrc", bead_images(axis_deg=axis_deg))
    made(stack, write_angles(tmp_path / "ts.tlt"), *FBP, "--tilt-axis", axis_deg, "-o", tmp_path / "v.mrc")
    assert_beads(tmp_path / "v.mrc")


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong", [ANGLES[::-1], np.roll(ANGLES, 1), [a + 12 for a in ANGLES]], ids=["reversed", "shifted by one", "offset"]
)
def test_wrong_angles_are_seen(wrong, tmp_path):
    stack = write_stack(tmp_path / "ts.mrc", bead_images(np.clip(wrong, -80, 80)))
    made(stack, write_angles(tmp_path / "ts.tlt"), *FBP, "-o", tmp_path / "v.mrc")
    with mrcfile.open(tmp_path / "v.mrc") as file:
        assert bead_errors(file.data)[0] > 0.5
