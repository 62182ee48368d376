"""What every command that takes a volume refuses or reads: stacks of images, OME-Zarr, and names that lie."""

from __future__ import annotations

import gzip
import json
import shutil

import numpy as np
import pytest
import tifffile
from command import call, good, refusal_of
from plain_mrc import new_mrc
from tiny_series import write_series

from cryolithe import Volume as LibraryVolume
from cryolithe import evaluate
from cryolithe.denoising.output import default_output
from cryolithe.errors import InputError
from cryolithe.formats import read_mrc, read_volume, write_volume
from cryolithe.formats.stacks.mdoc import MdocImage, write_mdoc
from cryolithe.formats.volumes import ome_zarr_reader
from cryolithe.formats.volumes.ome_zarr import read_ome_zarr, write_ome_zarr
from cryolithe.formats.volumes.volume_file import open_volume_file
from cryolithe.volume import Volume

SHAPE = (12, 18, 20)


def refused(*words):
    """The one line with which a command is refused."""
    result = call(*words)
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("Error: ")
    assert "Traceback" not in result.output
    return lines[-1].removeprefix("Error: ")


def values(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(path, space_group=1, mz=None, labels=(), data=None, compress=False):
    """An MRC file whose header says what a test wants it to say."""
    with new_mrc(path) as file:
        file.set_data(values() if data is None else data)
        file.voxel_size = 10.0
        file.header.ispg = space_group
        file.header.mz = SHAPE[0] if mz is None else mz
        for label in labels:
            file.add_label(label)
    if compress:
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return path


def angles(path, count=SHAPE[0]):
    path.write_text("".join(f"{-60 + 3 * n}\n" for n in range(count)))
    return path


def mdoc(path):
    images = [MdocImage(-60.0 + 3 * n, 3.0, 3.0 * n, 2.0, n) for n in range(SHAPE[0])]
    write_mdoc(path, "t.mrc", images, 10.0, SHAPE[1:], 300.0)
    return path


# name, space group, mz, what lies beside it, labels -> what it is, and a word of the reason
KINDS = [
    ("t.mrc", 0, 1, (), (), "stack", "space group 0, mz 1"),
    ("t.mrc", 1, None, (), (), "volume", "space group 1"),
    ("t.st", 1, None, (), (), "stack", ".st"),
    ("t.ali", 0, None, (), (), "stack", ".ali"),
    ("t.mrcs", 1, None, (), (), "stack", ".mrcs"),
    ("t_ali.mrc", 1, None, (), (), "stack", "_ali"),
    ("t_aligned.mrc", 0, None, (), (), "stack", "_aligned"),
    ("t.rec", 0, None, ("t.tlt",), (), "volume", ".rec"),
    ("t.mrc", 1, None, ("t.tlt",), (), "stack", "t.tlt beside it holds 12 tilt angles"),
    ("t.mrc", 1, None, ("t.rawtlt",), (), "stack", "t.rawtlt"),
    ("t.mrc", 1, None, ("t_TLT.txt",), (), "stack", "t_TLT.txt"),
    ("t.mrc", 1, None, ("t.mrc.mdoc",), (), "stack", "t.mrc.mdoc"),
    ("t_EVN.mrc", 1, None, ("t.tlt",), (), "stack", "t.tlt"),
    ("t.mrc.gz", 1, None, ("t.tlt",), (), "stack", "t.tlt"),
    ("t.mrc", 0, None, ("others.tlt",), (), "stack", "others.tlt in its folder"),
    ("t.mrc", 1, None, ("others.tlt",), (), "volume", "space group 1"),
    ("t.mrc", 0, None, (), (), "unknown", "does not say"),
    ("t.mrc", 0, None, (), ("TILT: Tomographic reconstruction   01-Jan-24",), "volume", "labels"),
    ("t.mrc", 0, 1, (), ("CryoLithe 0.1.0 sirt 2026-01-01",), "volume", "labels"),
    ("rec_t.mrc", 0, None, (), (), "volume", "name"),
    ("t_full_rec.mrc", 0, None, (), (), "volume", "name"),
    ("t.mrc", 0, None, ("short.tlt",), (), "unknown", "does not say"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "group", "mz", "beside", "labels", "kind", "reason"), KINDS)
def test_one_answer_whether_it_is_a_volume(name, group, mz, beside, labels, kind, reason, tmp_path):
    path = write(tmp_path / name, group, mz, labels, compress=name.endswith(".gz"))
    for other in beside:
        if other.endswith(".mdoc"):
            mdoc(tmp_path / other)
        else:
            angles(tmp_path / other, 5 if other == "short.tlt" else SHAPE[0])
    told = open_volume_file(path).told
    assert told.content == kind
    assert reason in told.reason
    # Every command gives the same answer.
    shown = json.loads(good("info", path, "--json").stdout)[0]
    assert shown["kind_because"] == told.reason
    assert (kind == "stack") == shown["kind"].startswith("tilt stack") or kind == "unknown"
    other = write(tmp_path / "another_rec.mrc", data=values(1))
    if kind == "stack":
        for words in (("evaluate", path), ("fsc", other, path), ("denoise", path)):
            line = refused(*words)
            assert f"{path} is a stack of tilt images, not a volume: " in line
            assert told.reason in line
            assert "--is-volume" in line
        assert "0.5" in good("fsc", other, path, "--is-volume").stdout
    else:
        result = good("fsc", other, path)
        assert (f"{path} is taken for a volume" in result.stderr) == (kind == "unknown")


def test_without_the_option_another_name_makes_a_stack_a_volume(tmp_path):
    path = write(tmp_path / "v.st")
    advice = "a copy whose name ends in .rec if its sections are the z planes of a volume"
    with pytest.raises(InputError, match=advice):
        LibraryVolume.read(path)
    (tmp_path / "c.json").write_text("{}")
    line = refused("copick", "put", tmp_path / "c.json", "run", path)
    assert advice in line
    assert "--is-volume" not in line
    assert LibraryVolume.read(path.rename(tmp_path / "v.rec")).shape == SHAPE


@pytest.mark.slow
def test_evaluate_says_what_it_assumed_of_a_file_that_does_not_say(tmp_path):
    path = write(tmp_path / "t.mrc", 0)
    good("evaluate", path, "-o", tmp_path / "r")
    notes = json.loads((tmp_path / "r" / "evaluation.json").read_text())["evaluation"]["notes"]
    assert any("was taken for a volume" in note for note in notes)
    assert refused("evaluate", write(tmp_path / "s.st")).endswith("sections are the z planes of a volume")
    good("evaluate", tmp_path / "s.st", "--is-volume", "-o", tmp_path / "s")


def test_a_record_makes_a_volume_of_any_name(tmp_path):
    path = write(tmp_path / "t_st.mrc", 0, 1)
    (tmp_path / "t_st.json").write_text(json.dumps({"volume": {"path": "t_st.mrc"}}))
    assert open_volume_file(path).told.content == "volume"
    (tmp_path / "t_st.json").write_text(json.dumps({"volume": {"path": "other.mrc"}}))  # of another file
    assert open_volume_file(path).told.content == "stack"


# OME-Zarr


def image(path, data, axes="zyx", scale=None, unit="angstrom", zarr_format=2, version="0.4", factor=None):
    """An OME-Zarr image as other programs write it, with a coarse level first in the folder."""
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    group.create_array("fine", data=data, chunks=tuple(min(5, n) for n in data.shape))
    group.create_array("coarse", data=np.ascontiguousarray(data[..., ::2, ::2]))
    scale = scale or [7.0] * data.ndim
    places = [{"name": axis, "type": "space", **({"unit": unit} if unit else {})} for axis in axes]
    datasets = [
        {"path": name, "coordinateTransformations": [{"type": "scale", "scale": [s * by for s in scale]}]}
        for name, by in (("fine", 1), ("coarse", 2))
    ]
    multiscale = {"version": version, "axes": places, "datasets": datasets}
    if factor:
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": factor}]
    if zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    else:
        group.attrs["multiscales"] = [multiscale]
    return path


ZARRS = [
    ({}, 7.0, "zyx"),
    ({"unit": "nanometer"}, 70.0, "zyx"),
    ({"unit": "micrometer", "scale": [0.0007] * 3}, 7.0, "zyx"),
    ({"unit": None}, None, "zyx"),
    ({"zarr_format": 3}, 7.0, "zyx"),
    ({"axes": "xyz"}, 7.0, "xyz"),
    ({"axes": "yzx"}, 7.0, "yzx"),
    ({"axes": "tczyx"}, 7.0, "tczyx"),
    ({"scale": [3.0, 2.0, 2.0], "factor": [2.0, 3.5, 3.5]}, 7.0, "zyx"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "size", "axes"), ZARRS)
def test_ome_zarr_is_read_whatever_its_axes_and_units(settings, size, axes, tmp_path):
    data = values()
    order = ["zyx".index(axis) for axis in axes if axis in "zyx"]
    stored = data.transpose(order).reshape([1] * (len(axes) - 3) + [SHAPE[n] for n in order])
    path = image(tmp_path / "v.zarr", np.ascontiguousarray(stored), **settings)
    found = read_volume(path)
    np.testing.assert_array_equal(found.voxels, data)
    assert found.voxel_size_angstrom == (None if size is None else pytest.approx(size))
    answer = json.loads(good("info", path, "--json").stdout)[0]
    assert answer["kind"] == "volume (OME-Zarr)"
    assert answer["shape"] == list(SHAPE)
    assert answer["maximum"] == pytest.approx(data.max())


@pytest.mark.slow
def test_what_reconstruct_writes_as_ome_zarr_goes_through_every_command(tmp_path):
    stack, tlt = write_series(tmp_path)
    common = ("reconstruct", stack, tlt, "--method", "fbp", "--thickness", 12, "--device", "cpu")
    good(*common, "-o", tmp_path / "v.mrc")
    good(*common, "-o", tmp_path / "v2.zarr", "--format", "ome-zarr")
    np.testing.assert_array_equal(read_volume(tmp_path / "v2.zarr").voxels, read_mrc(tmp_path / "v.mrc").data)
    assert read_volume(tmp_path / "v2.zarr").voxel_size_angstrom == 5
    shells = good("fsc", tmp_path / "v.mrc", tmp_path / "v2.zarr").stdout
    assert "1.0000" in shells
    good("evaluate", tmp_path / "v2.zarr", "--reference", tmp_path / "v.mrc", "-o", tmp_path / "r")
    found = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    assert found["evaluation"]["reference"]["similarity"]["correlation"] == pytest.approx(1)
    assert found["evaluation"]["tilt_range_deg"] == [-50, 50]  # from v2.json
    assert set(found["inputs"]) == {"volume", "reference"}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_that_are_not_stored_are_told_and_a_volume_of_none_is_refused(zarr_format, tmp_path):
    import zarr

    data = values()
    data[:, 2:4] = 0
    path = tmp_path / "v.zarr"
    for leaves_out in (False, True):
        settings = {"chunks": (2, 2, 2), "dtype": data.dtype, "config": {"write_empty_chunks": not leaves_out}}
        array = zarr.create_array(str(path), shape=SHAPE, zarr_format=zarr_format, overwrite=True, **settings)
        array[:] = data
        np.testing.assert_array_equal(read_volume(path).voxels, data)
        told = "chunks are not stored, and read as 0" in good("info", path).stdout
        assert told == leaves_out
        assert ("Note: " in good("fsc", path, path).stderr) == leaves_out
    for chunk in [file for file in path.rglob("*") if file.is_file() and file.name[-1].isdecimal()]:
        chunk.unlink()
    assert "holds none of its" in refused("info", path)


@pytest.mark.slow
def test_chunks_that_are_not_stored_are_told_by_evaluate_and_compare(tmp_path):
    import zarr

    data = values(shape=(16, 18, 20))
    data[:4, :6] = 0
    write(tmp_path / "whole.rec", data=data + values(1, data.shape), mz=16)
    settings = {"chunks": (4, 6, 20), "dtype": data.dtype, "config": {"write_empty_chunks": False}}
    zarr.create_array(str(path := tmp_path / "v.zarr"), shape=data.shape, **settings)[:] = data
    words = "1 of its 12 chunks are not stored, and read as 0"
    good("evaluate", path, "-o", tmp_path / "e.html")
    notes = json.loads((tmp_path / "e.json").read_text())["evaluation"]["notes"]
    assert any(words in note for note in notes)
    pair = ("--half1", tmp_path / "whole.rec", "--half2", path, "--methods", "fbp")
    assert words in good("compare", *pair, "-o", tmp_path / "c.html", "--dry-run").stderr
    assert words in " ".join(evaluate(path, 10).notes)


def test_a_large_ome_zarr_is_unpacked_into_a_file(tmp_path, monkeypatch):
    data = values(3, (40, 33, 21))
    write_ome_zarr(tmp_path / "v.zarr", data, 4.0, "v")
    monkeypatch.setattr(ome_zarr_reader, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(ome_zarr_reader, "_BLOCK_BYTES", 1)
    found = read_volume(tmp_path / "v.zarr").voxels
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, data)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 1))
    assert "set TMPDIR to a folder with more room" in refused("info", tmp_path / "v.zarr")


def test_ome_zarr_that_cannot_be_a_volume(tmp_path):
    import zarr

    two = image(tmp_path / "two.zarr", values(0, (2, *SHAPE)), axes="czyx")
    assert "2 entries along c; expected one volume" in refused("info", two)
    assert "give the folder of the image" in refused("info", two / "fine")
    assert "axes t, y, x; expected z, y and x" in refused("info", image(tmp_path / "t.zarr", values(), axes="tyx"))
    lengths = image(tmp_path / "inch.zarr", values(), unit="inch")
    assert "'inch'" in refused("evaluate", lengths)
    empty = tmp_path / "empty.zarr"
    zarr.open_group(str(empty), mode="w", zarr_format=2)
    assert "expected the attribute 'multiscales'" in refused("fsc", empty, lengths)
    (tmp_path / "no.zarr").mkdir()
    assert "no OME-Zarr image" in refused("denoise", tmp_path / "no.zarr")


# Names of outputs


@pytest.mark.parametrize("name", ["v.tif", "v.tiff", "v.st", "v.ali", "v.mrcs", "v.vol", "v.hdf", "v"])
def test_a_reconstruction_is_not_written_under_a_name_of_another_format(name, tmp_path):
    stack, tlt = write_series(tmp_path)
    line = refused("reconstruct", stack, tlt, "--method", "fbp", "-o", tmp_path / name)
    assert "expected a name ending in .mrc or .rec or .map" in line
    assert ".zarr" in line
    assert not (tmp_path / name).exists()
    table = tmp_path / "list.csv"
    table.write_text(f"tilts,angles,output\nts.mrc,ts.tlt,{name}\n")
    result = call("reconstruct", table, "--method", "fbp")
    assert result.exit_code == 1
    assert "expected a name ending in" in result.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("fsc", "a_rec.mrc", "b_rec.mrc", "--json", "n.tif"), ".json"),
        (("fsc", "a_rec.mrc", "b_rec.mrc", "--plot", "n.mrc"), ".png"),
        (("evaluate", "a_rec.mrc", "-o", "n.tif"), "folder or a name ending in .html"),
        (("evaluate", "a_rec.mrc", "-o", "n.zarr"), "folder or a name ending in .html"),
        (("denoise", "a_rec.mrc", "-o", "n.st"), ".mrc or .rec or .map"),
        (("denoise", "a_rec.mrc", "-o", "n"), ".mrc or .rec or .map"),
        (("denoise", "a_rec.mrc", "--report", "n.mrc"), ".png"),
        (("denoise", "a_rec.mrc", "--lmax-sweep", "n.tif"), ".png"),
        (("doctor", "--json", "n.txt"), ".json"),
        (("score", "--json", "n.csv"), ".json"),
        (("simulate", "-o", "n.mrc"), "expected a folder"),
        (("simulate", "-o", "n.h5"), "expected a folder"),
        (("train", "--finetune", "default", ".", "-o", "n.mrc"), ".safetensors"),
        (("adapt", "a_rec.mrc", "a.tlt", "-o", "n.mrc"), ".safetensors"),
    ],
)
def test_every_command_refuses_names_that_lie(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a_rec.mrc", data=values(1))
    write(tmp_path / "b_rec.mrc", data=values(2))
    before = {path.name for path in tmp_path.iterdir()}
    assert expected in refused(*words)
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("command", ["fsc", "evaluate", "denoise"])
def test_a_folder_without_planes_is_told_to_be_a_folder(command, tmp_path):
    folder = tmp_path / "dir.mrc"
    folder.mkdir()
    words = [folder, folder] if command == "fsc" else [folder]
    assert f"{folder} is a folder, which is read as the planes of a volume" in refusal_of(call(command, *words))


def test_a_compressed_volume_and_tiff_go_through_the_same_door(tmp_path):
    data = values(5)
    write_volume(tmp_path / "v.mrc", Volume(data, 10.0), label="x")
    (tmp_path / "w.mrc.gz").write_bytes(gzip.compress((tmp_path / "v.mrc").read_bytes()))
    tifffile.imwrite(tmp_path / "v.tif", data)
    (tmp_path / "planes").mkdir()
    for z, plane in enumerate(data):
        tifffile.imwrite(tmp_path / "planes" / f"p{z}.tif", plane)
    for other in ("w.mrc.gz", "v.tif", "planes"):
        assert "1.0000" in good("fsc", tmp_path / "v.mrc", tmp_path / other).stdout
        assert json.loads(good("info", tmp_path / other, "--json").stdout)[0]["shape"] == list(SHAPE)
    angles(tmp_path / "v.tlt")
    assert "is a stack of tilt images" in refused("fsc", tmp_path / "v.tif", tmp_path / "planes")


def test_the_denoised_volume_of_one_that_is_still_to_be_made_has_its_format(tmp_path):
    for name, expected in (("v.zarr", "v_samba.zarr"), ("v.mrc", "v_samba.mrc"), ("v.st", "v_samba.mrc")):
        assert default_output(tmp_path / name) == tmp_path / expected
    (tmp_path / "v.zarr").mkdir()
    assert default_output(tmp_path / "v.zarr") == tmp_path / "v_samba.zarr"


def test_level_zero_is_what_a_reader_gets(tmp_path):
    data = values(6, (70, 65, 66))
    write_ome_zarr(tmp_path / "v.zarr", data, 4.0, "v")
    assert read_ome_zarr(tmp_path / "v.zarr", 1).shape == (35, 32, 33)
    np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr").voxels, data)
