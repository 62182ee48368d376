"""What is said where a user most likely meant something else."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile
from tiny_series import made, noise, refused, run, tree, write_series

FBP = ("--method", "fbp", "--thickness", 8)


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("ending", [".tlt", ".rawtlt", "_TLT.txt", ".TLT"])
def test_angles_that_are_given_first(ending, dry, exists, series, tmp_path):
    stack, angles = series
    angles = angles.rename(tmp_path / f"ts{ending}")
    if exists:
        made(stack, angles, *FBP)  # ts_rec.mrc is in the way, too: what is wrong with the inputs comes first
    remedy = f"the stack comes first, then the angles: cryolithe reconstruct {stack} {angles}"
    line = refused(tmp_path, [angles, stack, *FBP, *dry], remedy)
    assert "--overwrite" not in line
    refused(tmp_path, [angles, *FBP, *dry], remedy)
    stack.rename(tmp_path / "other.mrc")
    refused(tmp_path, [angles, *FBP, *dry], f"{angles} holds tilt angles: give the stack first")


def test_angles_that_are_given_before_a_tiff_stack(series, tmp_path):
    _, angles = series
    tifffile.imwrite(tmp_path / "x.tif", noise())
    refused(tmp_path, [angles, tmp_path / "x.tif", *FBP], f"cryolithe reconstruct {tmp_path / 'x.tif'} {angles}")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".tlt", ".rawtlt", "_TLT.txt"])
@pytest.mark.parametrize("stack_ending", [".mrc", ".st", "_ali.mrc"])
def test_angles_that_are_left_out(ending, stack_ending, series, tmp_path):
    stack, angles = series
    stack, angles = stack.rename(tmp_path / f"ts{stack_ending}"), angles.rename(tmp_path / f"ts{ending}")
    remedy = f"{angles.name} lies beside the stack: cryolithe reconstruct {stack} {angles}"
    refused(tmp_path, [stack, *FBP], "give ANGLES", remedy)
    made(*remedy.split()[-2:], *FBP)


def test_files_of_other_series_are_no_remedy(series, tmp_path):
    stack, angles = series
    angles.rename(tmp_path / "ts_2.tlt")
    assert "lies beside" not in refused(tmp_path, [stack, *FBP], "give ANGLES")


def test_a_stack_in_the_place_of_the_angles_is_no_swap(series, tmp_path):
    stack, _ = series
    assert "comes first" not in refused(tmp_path, [stack, stack, *FBP], "angle file")


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_an_output_that_exists_hides_no_error_of_the_inputs(flags, series, tmp_path):
    stack, angles = series
    made(stack, angles, *FBP)
    few = tmp_path / "few.tlt"
    few.write_text("".join(angles.read_text().splitlines(keepends=True)[:-1]))
    for words, fragment in (
        ([stack, few], "holds 11 images but"),
        ([stack, tmp_path / "none.tlt"], "none.tlt does not exist"),
        ([stack], "ts.tlt lies beside the stack"),
    ):
        before = tree(tmp_path)
        result = run(*words, *FBP, "-o", tmp_path / "ts_rec.mrc", *flags)
        assert result.exit_code == 2
        assert fragment in result.stderr
        assert "--overwrite" not in result.stderr
        assert tree(tmp_path) == before
    refused(tmp_path, [stack, angles, *FBP, "--contrast", "bright", *flags], "ts_rec.mrc exists; give --overwrite")


@pytest.mark.slow
def test_a_session_says_what_is_wrong_with_the_inputs_first(tmp_path):
    write_series(tmp_path, name="one")
    made(tmp_path, *FBP)
    (tmp_path / "one.tlt").write_text("1\n2\n")
    assert "holds 11 images but" in run(tmp_path, *FBP, "--dry-run").stdout


KINDS = {
    "s.tif": "is a TIFF file, but images are read from MRC files, whose rows begin at the bottom: convert it",
    "big.tif": "tif2mrc big.tif big.mrc",
    "s.npy": "is a NumPy array",
    "s.h5": "is an HDF5 file",
    "s.eer": "holds the frames of one exposure (EER)",
    "planes": f"is a folder of {len(noise())} TIFF files",
    "s.zarr": "is an OME-Zarr folder",
    "ts.edf": "is a project of etomo and holds no images",
    "ts.xml": "is an alignment of Warp and holds no images: give the stack, and this file with --warp",
    "ts.tomostar": "is an alignment of Warp",
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_mrc_file_is_called_what_it_is(name, series, tmp_path):
    _, angles = series
    tifffile.imwrite(tmp_path / "s.tif", noise())
    tifffile.imwrite(tmp_path / "big.tif", noise(), bigtiff=True)
    np.save(tmp_path / "s.npy", noise())
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["MDF/images/0/image"] = noise()
    (tmp_path / "s.eer").write_bytes((tmp_path / "big.tif").read_bytes())
    for folder in ("planes", "s.zarr"):
        (tmp_path / folder).mkdir()
    for number, image in enumerate(noise()):
        tifffile.imwrite(tmp_path / "planes" / f"{number}.tif", image)
    for text in ("ts.edf", "ts.xml", "ts.tomostar"):
        (tmp_path / text).write_text("Setup.DatasetName=ts\n")
    refused(tmp_path, [tmp_path / name, angles, *FBP], KINDS[name])
    refused(tmp_path, [tmp_path / name, *FBP], KINDS[name])
