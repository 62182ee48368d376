"""What the self-check advises, and that numbers of any size do not upset it."""

import json

import numpy as np
import pytest
from tiny_series import ANGLES, bead_images, made, write_series

SHAPE = (40, 48)


def beads(scale=1.0):
    noise = np.random.default_rng(0).standard_normal((len(ANGLES), *SHAPE))
    return ((bead_images(SHAPE, (6, -5, 3)) + 0.05 * noise) * scale).astype(np.float32)


def advice(result):
    return [line for line in result.stderr.splitlines() if line.startswith("Warning: self-check: ")]


def check(folder):
    return json.loads((folder / "ts_rec.json").read_text())["self_check"]


@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_images_of_any_size_are_checked(scale, tmp_path):
    fbp = ("--method", "fbp", "--thickness", 32)
    made(*write_series(tmp_path, beads()), *fbp)
    expected = check(tmp_path)
    result = made(*write_series(tmp_path, beads(scale)), *fbp, "--overwrite")
    assert not advice(result)
    found = check(tmp_path)
    assert found["correlation"] == pytest.approx(expected["correlation"], rel=1e-3)
    assert found["correlation"] > 0.9


def test_back_projection_is_not_to_be_compared_with_itself(tmp_path, monkeypatch):
    from cryolithe.reconstruction.evidence import selfcheck

    monkeypatch.setattr(selfcheck, "SHIFT_LIMIT_PX", -1.0)  # whatever is found is too much
    stack, angles = write_series(tmp_path, beads())
    (line,) = advice(made(stack, angles, "--method", "fbp", "--thickness", 32))
    assert "--method fbp" not in line
    assert line.endswith("look at the images (cryolithe info), at their order and their angles before you use it")
    sirt = ("--method", "sirt", "--iterations", 5, "--thickness", 32, "--overwrite")
    (line,) = advice(made(stack, angles, *sirt))
    assert line.endswith("compare it with that of --method fbp before you use it")


def test_a_volume_too_small_to_tell_anything_is_not_found_wrong(tmp_path):
    images = np.random.default_rng(0).standard_normal((5, 16, 24)).astype(np.float32)
    stack, angles = write_series(tmp_path, images, [-40, -20, 0, 20, 40])
    assert not advice(made(stack, angles, "--method", "fbp", "--thickness", 8))
