"""A volume or map that is made of another lies where that one lies, whatever the kind of file says it in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import good
from plain_mrc import new_mrc

from cryolithe.denoising.output import choose_target, write_result
from cryolithe.formats.volumes.ome_zarr import write_ome_zarr
from cryolithe.formats.volumes.volume_file import open_volume_file

SHAPE = (18, 20, 24)
SIZES, ORIGIN = (20.0, 10.0, 10.0), (300.0, -200.0, 100.0)


def voxels(seed=0):
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def written(path, values, sizes=SIZES, origin=ORIGIN, start=(0, 0, 0), axes=(1, 2, 3)):
    with new_mrc(path, values) as file:
        file.set_volume()
        file.voxel_size = sizes[::-1]
        file.header.origin = origin[::-1]
        file.header.nxstart, file.header.nystart, file.header.nzstart = start
        file.header.mapc, file.header.mapr, file.header.maps = axes
    return path


@pytest.mark.parametrize("source", ["in.mrc", "in.zarr"])
@pytest.mark.parametrize("name", ["out.mrc", "out.zarr"])
def test_a_denoised_volume_lies_where_its_input_lies(source, name, tmp_path):
    pytest.importorskip("zarr")
    path = tmp_path / source
    if path.suffix == ".mrc":
        written(path, voxels())
    else:
        write_ome_zarr(path, voxels(), SIZES, "in", origin=ORIGIN)
    given = open_volume_file(path)
    write_result(choose_target(given, tmp_path / name), given, lambda z: voxels()[z], "made", False)
    made = open_volume_file(tmp_path / name)
    assert made.origin_angstrom == given.origin_angstrom == ORIGIN
    assert made.voxel_sizes_angstrom == given.voxel_sizes_angstrom == SIZES
    assert np.array_equal(made.voxels(), voxels())


def test_the_levels_of_a_pyramid_lie_in_one_place(tmp_path):
    """The middle of a volume is that of its smaller copies, with voxels of three edges, too."""
    pytest.importorskip("zarr")
    write_ome_zarr(tmp_path / "v.zarr", np.zeros((64, 96, 128), np.float32), SIZES, "v", origin=ORIGIN)
    told = json.loads((tmp_path / "v.zarr" / ".zattrs").read_text())["multiscales"][0]["datasets"]
    middles = []
    for level, shape in zip(told, ((64, 96, 128), (32, 48, 64)), strict=True):
        scale, moved = (each[each["type"]] for each in level["coordinateTransformations"])
        middles.append(np.array(moved) + np.array(scale) * (np.array(shape) - 1) / 2)
    assert np.allclose(*middles)


def test_a_start_in_voxels_is_a_place_where_the_origin_is_none(tmp_path):
    path = tmp_path / "v.mrc"
    cases = [
        ({"start": (1, 2, -3)}, ORIGIN),
        ({"start": (1, 2, -3), "origin": (0, 0, 0)}, (-60.0, 20.0, 10.0)),
        ({"start": (2**30, 2, 3), "origin": (0, 0, 0)}, (0.0, 0.0, 0.0)),
        # Starts are those of columns, rows and sections, wherever these run along.
        ({"start": (1, 2, -3), "origin": (0, 0, 0), "axes": (3, 2, 1), "sizes": (10.0, 10.0, 10.0)}, (10, 20, -30)),
    ]
    for told, expected in cases:
        assert open_volume_file(written(path, voxels(), **told)).origin_angstrom == expected


@pytest.mark.slow
def test_a_map_of_agreement_lies_where_its_halves_lie(tmp_path):
    """With --crop at the middle of the first one that was compared."""
    same = (10.0, 10.0, 10.0)
    whole = voxels(1)
    first = written(tmp_path / "a.mrc", whole + voxels(2), same, (0, 0, 0), (5, 6, 7))
    second = written(tmp_path / "b.mrc", (whole + voxels(3))[1:-1, 2:-2], same, (0, 0, 0))
    page = tmp_path / "e.html"
    words = ["evaluate", first, "--half1", first, "--half2", second, "--crop", "--tilt-range", "60", "-o", page]
    good(*words)
    made = open_volume_file(tmp_path / "e_agreement.mrc")
    assert made.shape == (16, 16, 24)
    assert made.origin_angstrom == (80.0, 80.0, 50.0)
