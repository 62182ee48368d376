"""Unsigned integers under a header that says signed are known by jumps of neighbours, and read as what they are."""

import mrcfile
import numpy as np
import pytest
from command import call
from plain_mrc import new_mrc
from tiny_series import ANGLES, bead_images, made, voxels, write_series

from cryolithe.formats import read_mrc
from cryolithe.formats.stacks.wrapped import signs

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
        assert (read.data.dtype == np.uint8) == unsigned or any("hardly any do about 0" in note for note in read.notes)
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
    assert "bytes read as unsigned" in call("info", stack).output


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
    read = read_mrc(stack)
    assert read.data.dtype == np.int8
    assert any("as IMOD's flag says, but" in note for note in read.notes)
    told = made(stack, tmp_path / "ts.tlt", *FBP, "-o", tmp_path / "v.mrc").stderr
    assert "if they are unsigned, write them as MRC mode 6" in " ".join(told.split())
    with mrcfile.open(stack, "r+") as file:
        file.set_data(np.random.default_rng(0).normal(0, 20, file.data.shape).round().astype("i1"))
    assert not read_mrc(stack).notes


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("flags", [1, 3])
def test_a_header_of_imod_is_not_believed_where_it_contradicts_itself(flags, order, tmp_path):
    """Its flag says signed, its largest value is none of signed bytes, and all values lie between its extremes."""
    values = np.clip(grey_values(100, 12), 60, 146)
    stack, _ = write_series(tmp_path, values.view("i1"))
    content = bytearray(stack.read_bytes())
    content[152:160] = np.array([1146047817, flags], "<i4").tobytes()
    content[76:84] = np.array([60, 146], "<f4").tobytes()
    if order == ">":
        for start, kind in ((0, "i4"), (152, "i4")):
            width = 56 if start == 0 else 2
            part = np.frombuffer(bytes(content[start : start + 4 * width]), f"<{kind}")
            content[start : start + 4 * width] = part.astype(f">{kind}").tobytes()
        content[196:208] = np.frombuffer(bytes(content[196:208]), "<f4").astype(">f4").tobytes()
        content[208:216] = b"MAP \x11\x11\0\0"
    stack.write_bytes(content)
    read = read_mrc(stack)
    np.testing.assert_array_equal(read.data, values)
    assert any("the header's largest value, 146, is beyond -128 to 127" in note for note in read.notes)


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
    # Two kinds of pixels with nothing between them, and any at random, are as good an image in either reading.
    assert signs(signed) == "signed" or (signs(signed) == "doubtful" and case in ("flat", "gold"))
    for scale in (1, 16, 256):
        read = signs(np.clip(scale * values, -32768, 32767).round().astype("i2"))
        assert read == "signed" or (read == "doubtful" and scale == 256 and case in ("flat", "gold"))
    with new_mrc(tmp_path / "v.mrc") as file:
        file.set_data(signed)
    assert read_mrc(tmp_path / "v.mrc").data.dtype == np.int8


IMAGES = (7, 96, 112)


def noise(mean, deviation, seed=0):
    return mean + deviation * np.random.default_rng(seed).standard_normal(IMAGES)


def sparse(share, seed=3):
    return np.random.default_rng(seed).random(IMAGES) < share


def beads(depth):
    """Spheres of gold, by how much they take away."""
    y, x = np.mgrid[: IMAGES[1], : IMAGES[2]]
    rng, images = np.random.default_rng(2), np.zeros(IMAGES)
    for image in images:
        for row, column in rng.uniform(10, 86, (6, 2)):
            image[:] = np.maximum(image, 1 - ((y - row) ** 2 + (x - column) ** 2) / 36)
    return depth * np.sqrt(images)


def full_range(values):
    return (values - values.min()) / np.ptp(values) * 65535 - 32768


@pytest.mark.parametrize(
    "counts",
    [
        noise(36000, 1500),
        noise(45000, 9000),
        noise(25000, 3000),
        noise(20000, 5000),
        noise(32768, 3),
        noise(36000, 1500) - beads(20000),
        np.where(sparse(0.001), 65535, noise(36000, 1500)),
        np.where(sparse(0.001), 0, noise(36000, 1500)),
        256 * noise(128, 30).round(),
        256 * (4 * noise(32, 2).round()),
    ],
    ids=["low tail", "wide", "1 % above", "0.5 % above", "narrow", "gold", "hot", "dead", "bytes", "few"],
)
def test_counts_on_both_sides_of_the_middle_are_unsigned(counts, tmp_path):
    """However few of them lie on one side of it."""
    counts = np.clip(counts, 0, 65535).round().astype("u2")
    stack, _ = write_series(tmp_path, counts.view("i2"))
    read = read_mrc(stack)
    np.testing.assert_array_equal(read.data, counts)
    assert any("16-bit integers read as unsigned" in note for note in read.notes)


@pytest.mark.parametrize(
    "values",
    [
        noise(0, 6500),
        noise(0, 12000),
        noise(0, 60000),
        noise(15000, 8000),
        full_range(noise(0, 1)),
        full_range(noise(0, 1) ** 3),
        full_range(noise(1, 0.02) - beads(1)),
        full_range(noise(1, 0.08) + beads(1)),
        noise(20000, 500) - beads(60000),
        np.where(sparse(0.01), 32767, noise(2000, 700)),
        np.where(sparse(0.01), 32767, np.where(sparse(0.01, 4), -32768, noise(2000, 700))),
        np.where(sparse(0.01), 32767, noise(-32268, 100)),
        np.where(sparse(0.02), -32768, noise(25000, 3000)),
        np.where(sparse(0.02), -32767, noise(30000, 800)),
        -32768 + np.random.default_rng(0).poisson(0.3, IMAGES) + 32000.0 * sparse(0.001),
    ],
    ids=[
        *("wide", "wider", "saturated", "one-sided", "full", "tails", "gold in full", "bright gold in full"),
        *("gold cut off", "hot", "hot and dead", "hot from below", "dead", "dead symmetric", "counts from the lowest"),
    ],
)
def test_signed_integers_of_16_bits_stay_signed(values, tmp_path):
    signed = np.clip(values, -32768, 32767).round().astype("i2")
    stack, _ = write_series(tmp_path, signed)
    read = read_mrc(stack)
    np.testing.assert_array_equal(read.data, signed)
    assert not any("signed" in note for note in read.notes)


@pytest.mark.parametrize("kind", ["i1", "i2"])
def test_what_jumps_in_either_reading_is_doubtful(kind, tmp_path):
    limits = np.iinfo(kind)
    values = np.random.default_rng(0).integers(limits.min, limits.max, IMAGES, dtype=kind, endpoint=True)
    stack, angles = write_series(tmp_path, values, ANGLES[: len(values)])
    read = read_mrc(stack)
    np.testing.assert_array_equal(read.data, values)
    assert any("if they are unsigned, write them as MRC mode 6" in note for note in read.notes)
    told = made(stack, angles, *FBP, "-o", tmp_path / "v.mrc").stderr
    assert "if they are unsigned" in " ".join(told.split())


@pytest.mark.parametrize(("extremes", "unsigned"), [((0, 61000), True), ((0, 40000), False), ((0, 70000), False)])
def test_a_header_that_tells_counts_above_32767_is_of_unsigned_ones(extremes, unsigned, tmp_path):
    """Where it is that of these values: all of them lie between its extremes."""
    counts = np.where(sparse(0.001), 60000, noise(2000, 300)).round().astype("u2")
    stack, _ = write_series(tmp_path, counts.view("i2"))
    with mrcfile.open(stack, "r+") as file:
        file.header.dmin, file.header.dmax = extremes
    assert (read_mrc(stack).data.dtype == np.uint16) == unsigned


@pytest.mark.parametrize(("kind", "largest", "scale"), [("i1", 255, 20), ("i2", 65535, 20), ("i2", 65535, 3000)])
def test_a_header_of_the_whole_range_fits_any_values_and_tells_nothing(kind, largest, scale, tmp_path):
    """As one does that was left over from the unsigned values, before their mean was removed."""
    signed = noise(0, scale).round().astype(kind)
    counts = (signed.astype("i4") + largest // 2 + 1).astype(kind.replace("i", "u"))  # and where they are unsigned
    for values in (signed, counts):
        stack, _ = write_series(tmp_path, values.view(kind))
        with mrcfile.open(stack, "r+") as file:
            file.header.dmin, file.header.dmax = 0, largest
        np.testing.assert_array_equal(read_mrc(stack).data, values)


def test_gold_on_the_other_side_of_the_middle_is_doubtful():
    counts = (noise(25000, 1500) + beads(20000)).round().astype("u2")
    assert signs(counts.view("i2")) == "doubtful"


def test_few_sections_and_columns_are_looked_at_too():
    for shape in ((1, 1, 1), (1, 5, 1), (2, 1, 9), (0, 4, 4)):
        assert signs(np.full(shape, -5, "i2")) == "signed"
