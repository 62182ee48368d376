"""Whatever is written is what its format's own library takes for valid: MRC by mrcfile, OME-Zarr by ome-zarr-models."""

from __future__ import annotations

import io
import shutil

import mrcfile
import numpy as np
import pytest
from command import good
from test_outputs import beads
from tiny_series import made, voxels, write_series

from cryolithe.denoising.output import choose_target, write_result
from cryolithe.formats import write_stack, write_volume
from cryolithe.formats.volumes.ome_zarr_reader import open_ome_zarr
from cryolithe.formats.volumes.volume_file import open_volume_file, read_volume
from cryolithe.volume import Volume

FBP = ("--method", "fbp", "--thickness", 24)


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path, beads())


def faults(path):
    """What mrcfile finds wrong with a file; empty for a valid one."""
    said = io.StringIO()
    valid = mrcfile.validate(path, print_file=said)
    text = said.getvalue()
    return "" if valid and text.endswith("File appears to be valid.\n") else text or "not valid"


def test_the_check_finds_faults(tmp_path):
    write_volume(tmp_path / "v.mrc", Volume(np.zeros((3, 4, 5), np.float32)), label="CryoLithe test")
    content = bytearray((tmp_path / "v.mrc").read_bytes())
    content[208:212] = b"\0\0\0\0"
    (tmp_path / "v.mrc").write_bytes(content)
    assert "MAP" in faults(tmp_path / "v.mrc").upper()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("orientation", ["xyz", "xzy"])
def test_reconstructed_volumes(orientation, dtype, series, tmp_path):
    made(*series, *FBP, "--dtype", dtype, "--orientation", orientation)
    assert faults(tmp_path / "ts_rec.mrc") == ""


@pytest.mark.slow
def test_halves_their_average_and_their_agreement(series, tmp_path):
    other = write_series(tmp_path, beads() + np.float32(0.3) * np.roll(beads(), 1, axis=0), name="odd")[0]
    made("--even", series[0], "--odd", other, series[1], *FBP, "-o", tmp_path / "w_rec.mrc")
    found = sorted(tmp_path.glob("w_rec*.mrc"))
    assert [path.stem for path in found] == ["w_rec", "w_rec_EVN", "w_rec_ODD", "w_rec_confidence"]
    assert {path.name: faults(path) for path in found} == {path.name: "" for path in found}


@pytest.mark.slow
def test_simulated_series(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "series: 1\ncell: {shape: [24, 48, 48], voxel_size_angstrom: [10.0, 10.0], crowding: [0.05, 0.05],\n"
        "  thickness_nm: [18.0, 18.0], lamella_chance: 0.0, carbon_chance: 0.0, vesicle_radius_nm: [6.0, 8.0]}\n"
        "imaging: {scheme: {kinds: [dose-symmetric], reach_deg: [40.0, 40.0], step_deg: [20.0, 20.0]}}\n"
    )
    good("simulate", recipe, "-o", tmp_path / "sim")
    found = sorted((tmp_path / "sim").glob("*.mrc"))
    assert len(found) == 5  # the stack, its halves, truth, labels
    assert {path.name: faults(path) for path in found} == {path.name: "" for path in found}


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float16, np.float32])
def test_volumes_and_stacks_of_every_type(dtype, tmp_path):
    values = np.random.default_rng(0).uniform(0, 9, (7, 9, 12)).astype(dtype)
    for size in (None, 3.3):
        write_volume(tmp_path / "v.mrc", Volume(values, size), label="CryoLithe test", dtype=dtype, overwrite=True)
        assert faults(tmp_path / "v.mrc") == ""
        found = open_volume_file(tmp_path / "v.mrc")
        target = choose_target(found, tmp_path / "v_denoised.mrc")
        write_result(target, found, lambda z: values[z].astype(np.float32), "CryoLithe test n2n", True)
        assert faults(tmp_path / "v_denoised.mrc") == ""
        assert (voxels(tmp_path / "v_denoised.mrc") == values).all()
    write_stack(tmp_path / "s.mrc", values.astype(np.float32), 3.3, "CryoLithe test")
    assert faults(tmp_path / "s.mrc") == ""


# OME-Zarr


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_is_valid_and_comes_back(version, dtype, tmp_path):
    zarr = pytest.importorskip("zarr")
    pytest.importorskip("ome_zarr_models")
    from ome_zarr_models import v04, v05

    stack, angles = write_series(tmp_path, beads((45, 131)), name="wide")
    kind = "ome-zarr" if version == "0.4" else "ome-zarr-0.5"
    made(stack, angles, *FBP, "-o", tmp_path / "v.mrc", "--dtype", dtype)
    made(stack, angles, *FBP, "--dtype", dtype, "--format", kind)
    path = tmp_path / "wide_rec.zarr"
    group = zarr.open_group(str(path), mode="r")
    # The specification as another project's models; those of 0.5 look at the arrays, too.
    if version == "0.5":
        (multiscale,) = v05.Image.from_zarr(group).attributes.ome.multiscales
    else:
        (multiscale,) = v04.image.ImageAttrs.model_validate(group.attrs.asdict()).multiscales
    assert [axis.unit for axis in multiscale.axes] == ["angstrom"] * 3
    assert [d.coordinateTransformations[0].scale for d in multiscale.datasets] == [[5.0] * 3, [10.0] * 3, [20.0] * 3]
    assert (path / ("zarr.json" if version == "0.5" else ".zattrs")).is_file()
    expected = voxels(tmp_path / "v.mrc")
    found = read_volume(path)
    np.testing.assert_array_equal(found.voxels, expected)
    assert found.voxels.dtype == expected.dtype
    assert found.voxel_size_angstrom == 5
    assert open_ome_zarr(path).levels == 3
    good("info", path)
    good("fsc", path, tmp_path / "v.mrc")


@pytest.mark.slow
def test_what_is_made_of_an_ome_zarr_image_has_its_version(series, tmp_path):
    pytest.importorskip("zarr")
    for kind, mark in (("ome-zarr", ".zattrs"), ("ome-zarr-0.5", "zarr.json")):
        path, output = tmp_path / "v.zarr", tmp_path / "denoised.zarr"
        made(*series, *FBP, "--format", kind, "-o", path, "--overwrite")
        found = open_volume_file(path)
        planes = found.voxels()
        write_result(choose_target(found, output), found, lambda z, of=planes: of[z], "CryoLithe test", True)
        assert (output / mark).is_file()
        np.testing.assert_array_equal(read_volume(output).voxels, planes)
        shutil.rmtree(output)
