"""Unsigned bytes under a header that says signed are known by their histogram, and read as what they are."""

import mrcfile
import numpy as np
import pytest
from click.testing import CliRunner
from plain_mrc import new_mrc
from tiny_series import ANGLES, bead_images, made, voxels, write_series

from cryolithe.cli import main
from cryolithe.formats import read_mrc
from cryolithe.formats.int8 import wraps

FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", 16)
SHAPE = (40, 48)


def grey_values(mean=128, sigma=30):
    rng = np.random.default_rng(0)
    images = 6 * bead_images(SHAPE, (4, 3, 2)) + rng.standard_normal((len(ANGLES), *SHAPE))
    return np.clip(images * sigma + mean, 0, 255).round().astype("u1")


def test_a_header_that_tells_values_above_127_is_of_unsigned_bytes(tmp_path):
    """Bright, skewed values leave no gap about 0 where they are taken for signed ones."""
    values = np.minimum(255, grey_values(213, 25))
    stack, _ = write_series(tmp_path, values.view("i1"))
    for extremes, unsigned in (((0, 255), True), ((-128, 127), False), ((0, 3000), False)):
        with mrcfile.open(stack, "r+") as file:
            file.header.dmin, file.header.dmax = extremes
        read = read_mrc(stack)
        assert any("the header's largest value" in note for note in read.notes) == unsigned
        assert (read.data.dtype == np.uint8) == unsigned or any("missing about 0" in note for note in read.notes)
    with mrcfile.open(stack, "r+") as file:
        file.header.dmin, file.header.dmax = 0, 255
    np.testing.assert_array_equal(read_mrc(stack).data, values)


@pytest.mark.parametrize("mean", [110, 127, 128, 150])
@pytest.mark.parametrize("sigma", [15, 25, 40])
def test_unsigned_bytes_are_read_as_such(mean, sigma, tmp_path):
    values = grey_values(mean, sigma)
    stack, _ = write_series(tmp_path, values.view("i1"))
    read = read_mrc(stack)
    np.testing.assert_array_equal(read.data, values)
    assert any("bytes read as unsigned" in note for note in read.notes)
    assert "bytes read as unsigned" in CliRunner().invoke(main, ["info", str(stack)]).output


@pytest.mark.parametrize("mean", [31000, 32768, 34000])
@pytest.mark.parametrize("sigma", [5, 300, 4000])
@pytest.mark.parametrize("order", ["<", ">"])
def test_unsigned_integers_of_16_bits_are_read_as_such(mean, sigma, order, tmp_path):
    """Counts about 32768; those that stay on one side of it are off by a constant, which no volume shows."""
    rng = np.random.default_rng(0)
    values = np.clip(mean + sigma * rng.standard_normal((5, *SHAPE)), 0, 65535).astype(f"{order}u2")
    stack, _ = write_series(tmp_path, values.view(f"{order}i2"), ANGLES[:5])
    read = read_mrc(stack)
    off = np.unique(read.data.astype("i4") - values.astype("i4"))
    assert len(off) == 1
    across = (values < 32768).any() and (values >= 32768).any()
    assert any("16-bit integers read as unsigned" in note for note in read.notes) == across


def test_the_volume_is_that_of_the_grey_values(tmp_path):
    values = grey_values()
    stack, angles = write_series(tmp_path, values.view("i1"))
    assert "bytes read as unsigned" in made(stack, angles, *FBP, "-o", tmp_path / "bytes.mrc").stderr
    stack, angles = write_series(tmp_path, values.astype("f4"), name="floats")
    made(stack, angles, *FBP, "-o", tmp_path / "floats_rec.mrc")
    np.testing.assert_allclose(voxels(tmp_path / "bytes.mrc"), voxels(tmp_path / "floats_rec.mrc"), atol=1e-3)


def test_a_header_of_imod_is_believed(tmp_path):
    stack, _ = write_series(tmp_path, grey_values().view("i1"))
    content = bytearray(stack.read_bytes())
    content[152:160] = np.array([1146047817, 1], "<i4").tobytes()
    stack.write_bytes(content)
    assert read_mrc(stack).data.dtype == np.int8


@pytest.mark.parametrize(
    "case", ["ordinary", "saturated", "low", "high", "mask", "two kinds", "flat", "labels", "gold", "cut off"]
)
def test_signed_bytes_stay_signed(case, tmp_path):
    rng = np.random.default_rng(1)
    normal = rng.standard_normal((3, 40, 48))
    values = {
        "ordinary": 30 * normal,
        "saturated": 300 * normal,
        "low": 20 * normal - 90,
        "high": 20 * normal + 90,
        "mask": np.where(normal > 0, 127, -128),
        "two kinds": np.where(normal > 0, 108, -108) + 4 * rng.standard_normal(normal.shape),
        "gold": np.where(rng.random(normal.shape) < 0.05, 7 * normal - 110, 9 * normal + 100),
        "cut off": np.where(rng.random(normal.shape) < 0.05, 9 * normal - 128, 9 * normal + 105),
        "flat": rng.uniform(-128, 127, normal.shape),
        "labels": rng.choice([0, 100, -100, 120], normal.shape),
    }[case]
    signed = np.clip(values, -128, 127).round().astype("i1")
    assert not wraps(signed)
    for scale in (1, 16, 256):
        assert not wraps(np.clip(scale * values, -32768, 32767).round().astype("i2"))
    with new_mrc(tmp_path / "v.mrc") as file:
        file.set_data(signed)
    assert read_mrc(tmp_path / "v.mrc").data.dtype == np.int8
