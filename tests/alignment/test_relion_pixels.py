"""The pixels of images under RELION's tables: the same by every way of giving them, whatever headers say."""

from __future__ import annotations

import numpy as np
import pytest
from command import call, good, refusal_of
from tiny_series import voxels

from cryolithe.formats import read_mrc, write_stack
from cryolithe.formats.alignment.relion_pixels import Images, pixels_of

ANGLES_DEG = (-40.0, -20.0, 0.0, 20.0, 40.0)
SHAPE, DEPTH, PIXEL = (20, 24), 12, 5.0
FBP = ("--method", "fbp")
IMAGES = np.random.default_rng(3).standard_normal((len(ANGLES_DEG), *SHAPE)).astype(np.float32)
TOLD = {"rlnTomoSizeX": "24", "rlnTomoSizeY": "20"}


def project(folder, header, single, size=SHAPE, images=IMAGES):
    """A series of single images, or of a stack, whose headers tell some pixel size; returns what lists it, and it."""
    (folder / "tilt_series").mkdir(parents=True)
    stack, own = folder / "ts.mrcs", folder / "tilt_series" / "ts.star"
    if single:
        for number, image in enumerate(images):
            write_stack(folder / f"f{number}.mrc", image[None], header, "an image")
    else:
        write_stack(stack, images, header, "a stack")
    columns = ("rlnMicrographName", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst")
    names = (f"f{number}.mrc" if single else f"{number + 1}@ts.mrcs" for number in range(len(ANGLES_DEG)))
    rows = [f"{name} {angle} 85 15 -10" for name, angle in zip(names, ANGLES_DEG, strict=True)]
    own.write_text("\n".join(["data_ts", "", "loop_", *(f"_{column}" for column in columns), *rows, ""]))
    listing = folder / "tomograms.star"
    columns = ("Name", "TiltSeriesStarFile", "TiltSeriesPixelSize", "SizeX", "SizeY", "SizeZ")
    row = f"ts tilt_series/ts.star {PIXEL} {size[1]} {size[0]} {DEPTH}"
    listing.write_text("\n".join(["data_global", "", "loop_", *(f"_rlnTomo{column}" for column in columns), row, ""]))
    return listing, own, own if single else stack


def volumes(folder, *project):
    """What is made of a series by every way of giving it, and what is said."""
    listing, own, images = project
    ways = {"session": [listing], "listing": [images, "--star", listing], "own": [images, "--star", own]}
    ways |= {"alone": [own]} if images == own else {}
    found = {}
    for name, words in ways.items():
        output = folder / name if name == "session" else folder / f"{name}.mrc"
        said = good("reconstruct", *words, *FBP, "-o", output)
        found[name] = (output / "rec_ts.mrc" if name == "session" else output, " ".join(said.stderr.split()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("header", [2 * PIXEL, PIXEL / 2, 1.0])
def test_images_of_the_table_have_its_pixel_size_by_every_way(header, single, tmp_path):
    right = volumes(tmp_path, *project(tmp_path / "right", PIXEL, single))
    expected = voxels(right["session"][0])
    (tmp_path / "other").mkdir()
    for path, said in volumes(tmp_path / "other", *project(tmp_path / "wrong", header, single)).values():
        np.testing.assert_array_equal(voxels(path), expected)
        assert read_mrc(path).voxel_size_angstrom == PIXEL
        assert f"a pixel size of {PIXEL:g} Å is taken" in said
        assert f"says {header:g} Å" in said
    assert not any("is taken from RELION's table" in said for _, said in right.values())


@pytest.mark.slow
def test_a_stack_of_half_the_size_is_a_binned_copy(tmp_path):
    """Whether its header tells so, or nothing; if it tells something else, nobody knows."""
    half = IMAGES[:, ::2, ::2]
    (tmp_path / "told").mkdir()
    (tmp_path / "untold").mkdir()
    told = volumes(tmp_path / "told", *project(tmp_path / "a", 2 * PIXEL, False, images=half))
    untold = volumes(tmp_path / "untold", *project(tmp_path / "b", 0, False, images=half))
    for path, said in (*told.values(), *untold.values()):
        np.testing.assert_array_equal(voxels(path), voxels(told["session"][0]))
        assert voxels(path).shape == (DEPTH // 2, SHAPE[0] // 2, SHAPE[1] // 2)
        assert read_mrc(path).voxel_size_angstrom == 2 * PIXEL
        assert "the stack's pixels are 2 times those that RELION aligned" in said
    listing, own, named = project(tmp_path / "c", PIXEL, False, images=half)
    # The stack that the table names, with its pixels, is the one that was aligned: the volume asked for is wider.
    good("reconstruct", named, "--star", listing, *FBP, "-o", tmp_path / "wider.mrc")
    assert read_mrc(tmp_path / "wider.mrc").voxel_size_angstrom == PIXEL
    stack = tmp_path / "copies" / "ts.mrcs"
    stack.parent.mkdir()
    named.rename(stack)
    for star in (listing, own):
        said = refusal_of(call("reconstruct", stack, "--star", star, *FBP, "-o", tmp_path / "v.mrc"))
        assert (
            "images of 24 x 20; those of the stack are of 12 x 10, as if binned by 2, but its header says 5 Å" in said
        )
        good("reconstruct", stack, "--star", star, *FBP, "--pixel-size", 10, "--dry-run")
    # What the user says is not doubted.
    stack.rename(named)
    wide = good("reconstruct", listing, *FBP, "--pixel-size", PIXEL, "-o", tmp_path / "wide")
    assert voxels(tmp_path / "wide" / "rec_ts.mrc").shape == (DEPTH, *SHAPE), wide.stderr


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (Images(10.0, shape=(20, 24)), (5.0, 1)),
        (Images(10.0, shape=(24, 20)), (5.0, 1)),
        (Images(5.01, shape=(20, 24)), (5.01, 1)),
        (Images(None, shape=(20, 24)), (5.0, 1)),
        (Images(10.0, shape=(10, 12)), (10.0, 2)),
        (Images(15.0, shape=(6, 8)), (15.0, 3)),
        (Images(15.0, shape=(7, 8)), (15.0, 3)),
        (Images(10.0, shape=(10, 11)), (10.0, 2)),
        (Images(None, shape=(10, 12)), (10.0, 2)),
        (Images(15.0, shape=(10, 12)), None),
        (Images(5.0, shape=(10, 12)), None),
        (Images(10.0, shape=(30, 30)), (10.0, 2)),
        (Images(7.0, shape=(30, 30)), None),
        (Images(1.0, shape=(30, 30)), None),
        (Images(1.0, shape=(30, 30), named=True), (5.0, 1)),
        (Images(5.0, shape=(10, 12), named=True), (5.0, 1)),  # a volume twice as wide as the images
        (Images(10.0, shape=(19, 23), named=True), (5.0, 1)),
        (Images(10.0, shape=(19, 23)), (10.0, 2)),
        (Images(10.0, shape=(11, 14), named=True), (10.0, 2)),
        (Images(10.0, shape=(30, 30), listed=True), (5.0, 1)),
        (Images(10.0, asked=True, shape=(20, 24)), (10.0, 2)),
        (Images(7.0, asked=True, shape=(20, 24), listed=True), None),
    ],
)
def test_sizes_in_pixels_go_before_headers(images, expected):
    """The sizes are the volume's: they say something only where they are those of the images, or a multiple."""
    found = pixels_of(images, PIXEL, TOLD)
    assert (found and (found.angstrom, found.binned)) == expected
