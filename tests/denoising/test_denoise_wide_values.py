"""``cryolithe denoise`` of values that float32 does not hold: a constant changes nothing but itself."""

import numpy as np
import pytest
import tifffile
from command import good
from half_volumes import halves, write
from test_denoise_command import _tiny as _tiny_samba  # noqa: F401 (a fixture of all tests here)
from test_n2n_general import TINY, weights

from cryolithe.denoising.n2n import network
from cryolithe.denoising.output import as_type
from cryolithe.denoising.scale import robust_scale
from cryolithe.formats.volumes.ome_zarr import write_ome_zarr
from cryolithe.formats.volumes.volume_file import open_volume_file

SHAPE = (24, 40, 32)
CONSTANT = 1e6


@pytest.fixture
def general(tmp_path, monkeypatch):
    monkeypatch.setitem(network.BACKBONES, "unet-small", TINY)
    return weights(tmp_path / "w.safetensors", {"general": True, "voxel_size_angstrom": [8.0, 14.0]})


def denoise(*words):
    return good("denoise", *words, "--device", "cpu", "--precision", "fp32").stderr


def write_wide(path, values):
    """Values as a TIFF file, a folder of planes, or OME-Zarr, as the name says."""
    if path.suffix == ".zarr":
        write_ome_zarr(path, values, 10.0, path.stem)
    elif path.suffix:
        tifffile.imwrite(path, values)
    else:
        path.mkdir()
        for z, plane in enumerate(values):
            tifffile.imwrite(path / f"{z:03d}.tif", plane)
    return path


def changed_by_constant(tmp_path, ending, values, *words):
    """Voxels of the result, and of that of the values with a constant, less the constant."""
    made = []
    for name, constant in (("low", 0.0), ("high", CONSTANT)):
        given = write_wide(tmp_path / f"{name}{ending}", values + constant)
        output = tmp_path / f"{name}_made{ending}"
        denoise(*words, given, "--is-volume", "-o", output)
        found = open_volume_file(output)
        assert found.dtype == values.dtype
        made.append(np.asarray(found.voxels()) - constant)
    return made


@pytest.mark.parametrize("ending", [".tif", "", ".zarr"])
def test_n2n_of_float64_only_gets_the_constant_that_it_is_given(tmp_path, general, ending):
    values = 0.1 * halves(SHAPE)[0].astype(np.float64)
    values[:, :, :3] = 0.25  # a border is copied
    low, high = changed_by_constant(tmp_path, ending, values, "--method", "n2n", "--model", general)
    assert abs(high - low).max() < 1e-4 * low.std()
    assert np.array_equal(np.float32(high[:, :, :3]), np.float32(values[:, :, :3]))


@pytest.mark.slow
def test_samba_of_float64_only_gets_the_constant_that_it_is_given(tmp_path):
    values = 0.1 * halves(SHAPE)[0].astype(np.float64)
    values[3] = 0.25  # a constant plane is copied
    write_wide(tmp_path / "t.tif", values)
    denoise(tmp_path / "t.tif", "--is-volume", "-o", tmp_path / "first.tif")
    low, high = changed_by_constant(tmp_path, ".tif", values, "--model", tmp_path / "first.safetensors")
    assert abs(high - low).max() < 1e-4 * low.std()
    assert np.float32(high[3, 0, 0]) == np.float32(0.25)


def test_wide_whole_numbers_are_scaled_as_they_are(tmp_path, general):
    values = np.rint(1000 * halves(SHAPE)[0]).astype(np.int32)
    made = []
    for constant in (0, 2**30):
        given = write_wide(tmp_path / f"c{constant}.tif", values + np.int32(constant))
        denoise("--method", "n2n", "--model", general, given, "--is-volume", "-o", tmp_path / f"m{constant}.tif")
        made.append(tifffile.imread(tmp_path / f"m{constant}.tif") - constant)
    assert abs(made[1] - made[0]).max() <= 1


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", ">i2", ">f4", ">f8"])
def test_planes_of_a_folder_are_written_as_planes(tmp_path, general, kind):
    values = np.rint(20 * halves(SHAPE)[0] + (100 if "u" in kind else 0)).clip(0 if "u" in kind else -127, 127)
    write_wide(tmp_path / "given", values.astype(kind))
    denoise("--method", "n2n", "--model", general, tmp_path / "given", "--is-volume", "-o", tmp_path / "made")
    for z in (0, SHAPE[0] - 1):
        plane = tifffile.imread(tmp_path / "made" / f"{z:03d}.tif")
        assert plane.shape == SHAPE[1:]
        assert plane.dtype == np.dtype(kind).newbyteorder("=")


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("held", [np.float32, np.float64])
def test_no_value_leaves_the_range_of_whole_numbers(dtype, held):
    limits = np.iinfo(dtype)
    made = as_type(np.array([-1e30, 1e30, 7.4], held), np.dtype(dtype))
    assert made[0] == limits.min
    assert limits.max * (1 - 1e-6) < int(made[1]) <= limits.max
    assert made[2] == 7


def test_scales_of_float32_go_there_and_back_in_float32():
    values = halves(SHAPE)[0] + np.float32(3)
    scale = robust_scale(values.ravel())
    scaled = scale.apply(values)
    assert scaled.dtype == scale.undo(scaled).dtype == np.float32
    assert abs(scale.undo(scaled) - values).max() < 1e-5
    wide = robust_scale(values.ravel().astype(np.float64) + CONSTANT)
    assert wide.apply(values.astype(np.float64) + CONSTANT).dtype == np.float32
    assert wide.undo(scaled).dtype == np.float64


@pytest.mark.parametrize(("constant", "told"), [(CONSTANT, True), (1000.0, False)])
def test_float32_that_holds_few_values_beside_a_constant_is_told(tmp_path, general, constant, told):
    write(tmp_path / "t.mrc", 0.1 * halves(SHAPE)[0] + constant)
    said = denoise("--method", "n2n", "--model", general, tmp_path / "t.mrc", "-o", tmp_path / "made.mrc")
    assert ("Note: made.mrc is float32 as its input is, whose steps are " in said) == told
    write_wide(tmp_path / "t.tif", 0.1 * halves(SHAPE)[0].astype(np.float64) + constant)
    words = ("--method", "n2n", "--model", general, tmp_path / "t.tif", "--is-volume")
    assert "steps" not in denoise(*words, "-o", tmp_path / "wide.tif")
    said = denoise(*words, "-o", tmp_path / "other.mrc")
    assert ("Note: other.mrc is float32, whose steps are " in said) == told
    assert ("ends in .tif or .zarr" in said) == told
