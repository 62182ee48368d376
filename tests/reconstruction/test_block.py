"""A block of a volume is what the whole reconstruction has there."""

from __future__ import annotations

import numpy as np
import pytest
from test_outputs import beads
from tiny_series import made, voxels, write_model, write_series

from cryolithe.errors import CryoLitheError, SettingsError
from cryolithe.reconstruction.block import Block, block_about, block_maker
from cryolithe.reconstruction.jobs.job import Job
from cryolithe.settings import ReconstructSettings
from cryolithe.work.watcher import Silent

SHAPE = (45, 52)  # no multiple of a network's blocks
PLACES = (Block((2, 17), (7, 29), (5, 40)), Block((0, 24), (40, 45), (51, 52)), Block((3, 4), (0, 1), (0, 52)))


def flags(settings):
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path, beads(SHAPE))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({"method": "fbp"}, 1e-6),
        ({"method": "fbp", "bin": 2, "filter": "hamming", "tilt_axis": 3.0}, 1e-6),
        ({"method": "sirt", "iterations": 4}, 1e-6),
        ({"contrast": "bright"}, 1e-4),
        ({"contrast": "dark", "fbp_share": 0.0}, 1e-4),
        ({"bin": 2}, 1e-4),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_block_is_that_part_of_the_whole(settings, tolerance, series, tmp_path):
    settings = {"thickness": 24, **settings}
    if settings.get("method", "network") == "network":
        settings["model"] = str(write_model(tmp_path / "m.safetensors"))
    made(*series, *flags(settings), "-o", tmp_path / "whole.mrc")
    whole = voxels(tmp_path / "whole.mrc")
    maker = block_maker(Job(*series, tmp_path / "none.mrc", ReconstructSettings(**settings)), tmp_path, Silent())
    assert maker.shape == whole.shape
    assert maker.voxel_size_angstrom == 5.0 * settings.get("bin", 1)
    for place in PLACES:
        spans = zip((place.z, place.y, place.x), whole.shape, strict=True)
        inside = Block(*((min(a, n - 1), min(b, n)) for (a, b), n in spans))
        block = maker.make(inside, Silent())
        part = whole[slice(*inside.z), slice(*inside.y), slice(*inside.x)]
        assert block.shape == part.shape == inside.shape
        assert np.abs(block - part).max() <= tolerance * np.abs(whole).max()
    assert not (tmp_path / "none.mrc").exists()


def test_blocks_lie_inside_the_volume():
    assert block_about((10, 10, 10), (4, 5, 6), (20, 20, 20)) == Block((8, 12), (8, 13), (8, 14))
    assert block_about((-7, 99, 19), (4, 5, 6), (20, 20, 20)) == Block((0, 4), (15, 20), (14, 20))
    assert block_about((1, 1, 1), (50, 2, 1), (20, 20, 20)) == Block((0, 20), (0, 2), (1, 2))
    for point, size in (((1, 1, 1), (0, 1, 1)), ((np.nan, 1, 1), (1, 1, 1))):
        with pytest.raises(SettingsError, match="positive size"):
            block_about(point, size, (20, 20, 20))


def test_what_a_block_cannot_be_is_refused(series, tmp_path):
    settings = ReconstructSettings(method="fbp", thickness=24)
    maker = block_maker(Job(*series, tmp_path / "none.mrc", settings), tmp_path, Silent())
    with pytest.raises(SettingsError, match="does not lie inside"):
        maker.make(Block((0, 25), (0, 1), (0, 1)), Silent())
    broken = beads(SHAPE)
    broken[2, 3, 4] = np.nan
    stack, angles = write_series(tmp_path, broken, name="broken")
    with pytest.raises(CryoLitheError, match="--fix-nonfinite"):
        block_maker(Job(stack, angles, tmp_path / "none.mrc", settings), tmp_path, Silent())
