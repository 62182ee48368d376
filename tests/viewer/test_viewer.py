"""What napari is shown, as plain layers: scale, greys, halves, angles, particles, the block; the manifest."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from command import call
from plain_mrc import new_mrc
from test_outputs import beads
from tiny_series import ANGLES, made, voxels, write_model, write_series

import cryolithe
from cryolithe.errors import CryoLitheError, InputError
from cryolithe.formats import write_volume
from cryolithe.formats.particles.star import Particle, write_particles
from cryolithe.report.greys import grey_scale, to_grey
from cryolithe.viewer.block import Prepared, Wanted, block_layers
from cryolithe.viewer.greys import shown_greys
from cryolithe.viewer.reader import get_reader, read_layers
from cryolithe.volume import Volume
from cryolithe.work.watcher import Silent

FBP = ("--method", "fbp", "--thickness", 24)
MANIFEST = Path(cryolithe.__file__).parent / "viewer" / "napari.yaml"


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path, beads())


def opened(path):
    reader = get_reader(str(path))
    assert reader is not None, path
    return reader(str(path))


def names(layers):
    return [layer[1]["name"] for layer in layers]


def test_a_volume_has_its_scale_its_name_and_its_record(series, tmp_path):
    made(*series, *FBP)
    ((data, meta, kind),) = opened(tmp_path / "ts_rec.mrc")
    assert kind == "image"
    assert meta["name"] == "ts_rec"
    assert meta["scale"] == (5.0, 5.0, 5.0)
    assert meta["units"] == ("angstrom",) * 3
    assert meta["axis_labels"] == ("z", "y", "x")
    assert (np.asarray(data) == voxels(tmp_path / "ts_rec.mrc")).all()
    record = meta["metadata"]["cryolithe"]["record"]
    assert record == json.loads((tmp_path / "ts_rec.json").read_text())
    assert names(opened(tmp_path / "ts_rec.json")) == ["ts_rec"]  # the record stands for its volume


@pytest.mark.slow
@pytest.mark.parametrize("written", [("--orientation", "xzy"), ("--dtype", "float16"), ("--format", "ome-zarr")])
def test_however_it_is_written_a_volume_is_shown_upright(written, series, tmp_path):
    if "ome-zarr" in written:
        pytest.importorskip("zarr")
    made(*series, *FBP, "-o", tmp_path / "plain.mrc")
    output = tmp_path / ("v.zarr" if "ome-zarr" in written else "v.mrc")
    made(*series, *FBP, *written, "-o", output)
    ((data, meta, _),) = opened(output)
    expected = voxels(tmp_path / "plain.mrc")
    assert data.shape == expected.shape
    assert np.abs(np.asarray(data[:], dtype=np.float32) - expected).max() <= 2e-3 * np.abs(expected).max()
    assert meta["scale"] == pytest.approx((5.0, 5.0, 5.0))


def test_the_origin_of_a_header_and_an_unknown_voxel_size(tmp_path):
    values = np.random.default_rng(0).standard_normal((10, 12, 14)).astype(np.float32)
    write_volume(tmp_path / "a_rec.mrc", Volume(values, 4.0, (8.0, 12.0, -20.0)), label="CryoLithe test fbp ")
    ((_, meta, _),) = opened(tmp_path / "a_rec.mrc")
    assert meta["translate"] == (8.0, 12.0, -20.0)
    write_volume(tmp_path / "b_rec.mrc", Volume(values), label="CryoLithe test fbp ")
    ((_, meta, _),) = opened(tmp_path / "b_rec.mrc")
    assert meta["scale"] == (1.0, 1.0, 1.0)
    assert "units" not in meta


def test_voxels_of_three_edges_keep_them(tmp_path):
    """Along the axes of the file, also where these were turned."""
    values = np.random.default_rng(0).standard_normal((10, 12, 14)).astype(np.float32)
    with new_mrc(tmp_path / "a_rec.mrc", values) as file:
        file.set_volume()
        file.voxel_size = (4.0, 5.0, 8.0)
        file.header.origin = (1.0, 2.0, 3.0)
    ((_, meta, _),) = opened(tmp_path / "a_rec.mrc")
    assert (meta["scale"], meta["translate"]) == ((8.0, 5.0, 4.0), (3.0, 2.0, 1.0))
    assert not any("x is used" in note for note in meta["metadata"]["cryolithe"]["notes"])
    told = {"volume": {"path": "a_rec.mrc", "shape_zyx": [12, 10, 14]}, "geometry": {"axis_order": "yzx"}}
    (tmp_path / "a_rec.json").write_text(json.dumps(told))
    ((data, meta, _),) = opened(tmp_path / "a_rec.mrc")
    assert data.shape == (12, 10, 14)
    assert (meta["scale"], meta["translate"]) == ((5.0, 8.0, 4.0), (2.0, 3.0, 1.0))


@pytest.mark.parametrize("maps", [True, False])
def test_a_map_that_is_opened_alone_is_turned_as_its_volume(maps, tmp_path):
    """It has no record of its own: that of its volume names it."""
    values = np.random.default_rng(0).random((12, 10, 14)).astype(np.float32)
    name = "v_confidence.mrc"
    entry = {"path": name, "mean": 0.5}
    told = {
        "volume": {"path": "v.mrc", "shape_zyx": [10, 12, 14], "statistics": {"minimum": -9.0, "maximum": 9.0}},
        "geometry": {"axis_order": "yzx"},
        "confidence": {"maps": {"confidence": entry}} if maps else entry,
    }
    write_volume(tmp_path / name, Volume(values, 5.0), label="CryoLithe test expected correlation with the specimen")
    for record, shape in ((told, (10, 12, 14)), ({**told, "confidence": None}, (12, 10, 14))):
        (tmp_path / "v.json").write_text(json.dumps(record))
        ((data, meta, _),) = opened(tmp_path / name)
        assert data.shape == shape
        assert meta["contrast_limits"] == (0.0, 1.0)
        shown = call("info", tmp_path / name)
        assert ("--orientation xzy" in shown.output) is (shape == (10, 12, 14))


@pytest.mark.slow
def test_halves_and_their_agreement_lie_beside_it(tmp_path):
    images = beads()
    noise = np.random.default_rng(5).standard_normal((2, *images.shape)).astype(np.float32)
    stacks = [write_series(tmp_path, images + n, name=f"ts_{h}")[0] for h, n in zip(("EVN", "ODD"), noise, strict=True)]
    made("--even", stacks[0], "--odd", stacks[1], tmp_path / "ts_EVN.tlt", *FBP, "-o", tmp_path / "ts_rec.mrc")
    layers = opened(tmp_path / "ts_rec.mrc")
    assert names(layers) == ["ts_rec", "ts_rec_EVN", "ts_rec_ODD", "ts_rec_confidence"]
    assert [layer[1]["visible"] for layer in layers] == [True, False, False, False]
    assert layers[3][1]["contrast_limits"] == (0.0, 1.0)
    # A file that is opened together with its whole is shown once; on its own it is alone.
    both = [str(tmp_path / "ts_rec.mrc"), str(tmp_path / "ts_rec_EVN.mrc")]
    assert names(get_reader(both)(both)) == names(layers)
    assert names(opened(tmp_path / "ts_rec_ODD.mrc")) == ["ts_rec_ODD"]


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("sign", [1, -1])
def test_greys_are_those_of_every_picture(sign, offset):
    random = np.random.default_rng(1)
    section = random.standard_normal((96, 96))
    section[30:36, 20:80] += 6
    section[60:70, 60:70] += 80  # a bead
    section = sign * section + offset
    (low, high), colours = shown_greys([section])
    place = np.clip((section - low) / (high - low), 0, 1) * (len(colours) - 1)
    assert colours[np.rint(place).astype(int), 0] == pytest.approx(to_grey(section, grey_scale([section])), abs=0.02)
    assert (np.diff(colours[:, 0]) >= 0).all()
    assert (colours[0, 0], colours[-1, 0]) == pytest.approx((0, 1), abs=1e-3)


def test_greys_of_nothing():
    for value in (0.0, 7.0, -3e8):
        (low, high), _ = shown_greys([np.full((20, 20), value)])
        assert low < value < high


def test_a_stack_has_its_angles(series):
    (data, image, kind), (corners, points, other) = opened(series[0])
    assert (kind, other) == ("image", "points")
    assert data.shape == (len(ANGLES), 40, 48)
    assert image["scale"] == points["scale"] == (1.0, 5.0, 5.0)
    assert image["axis_labels"] == ("tilt", "y", "x")
    assert image["metadata"]["cryolithe"]["tilt_angles_deg"] == list(ANGLES)
    assert image["metadata"]["cryolithe"]["angles_file"] == str(series[1])
    assert corners[:, 0].tolist() == list(range(len(ANGLES)))
    assert points["features"]["tilt_deg"].tolist() == list(ANGLES)
    series[1].unlink()
    with new_mrc(series[0].with_suffix(".st"), beads()) as file:
        file.voxel_size = 5
    ((_, image, _),) = opened(series[0].with_suffix(".st"))  # no angles: a stack all the same
    assert image["axis_labels"] == ("tilt", "y", "x")


def test_particles_in_a_volume_whose_z_is_turned_round_are_told_of_in_the_list_of_layers(tmp_path):
    write_volume(tmp_path / "TS_1_rec.mrc", Volume(np.zeros((20, 30, 40), np.float32), 10.0), label="CryoLithe test ")
    star = tmp_path / "TS_1_particles.star"
    write_particles(star, [Particle("TS_1", "a", 0, (3.0, 4.0, 5.0), (0, 0, 0))], (20, 30, 40), 10.0)
    names = []
    for geometry in ({"flip_z": True}, {"handedness": "imod", "flip_z": False}, None):
        record = {"volume": {"path": "TS_1_rec.mrc"}, "geometry": geometry}
        (tmp_path / "TS_1_rec.json").write_text(json.dumps(record))
        ((_, meta, _),) = opened(star)
        names.append(meta["name"])
    assert names == ["TS_1_particles (the volume's z is turned round)", "TS_1_particles", "TS_1_particles"]


@pytest.mark.parametrize("centred", [True, False])
def test_particles_lie_where_they_are_in_their_volume(centred, tmp_path):
    values = np.random.default_rng(0).standard_normal((20, 30, 40)).astype(np.float32)
    write_volume(tmp_path / "TS_1_rec.mrc", Volume(values, 10.0, (0.0, 50.0, 0.0)), label="CryoLithe test fbp ")
    write_volume(tmp_path / "TS_2_rec.mrc", Volume(values, 10.0), label="CryoLithe test fbp ")
    places = [(3.0, 4.0, 5.0), (10.5, 20.0, 30.25)]
    star = tmp_path / "TS_1_particles.star"
    if centred:
        found = [Particle("TS_1", f"kind{n}", n, place, (0, 0, 0)) for n, place in enumerate(places)]
        write_particles(star, found, values.shape, 10.0)
    else:
        rows = "".join(f"TS_1 {x} {y} {z}\n" for z, y, x in places)
        star.write_text(
            "data_particles\n\nloop_\n_rlnTomoName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n_rlnCoordinateZ #4\n"
            + rows
        )
    ((points, meta, kind),) = opened(star)
    assert kind == "points"
    assert points == pytest.approx(np.array(places), abs=1e-3)
    assert meta["scale"] == (10.0, 10.0, 10.0)
    assert meta["translate"] == (0.0, 50.0, 0.0)
    assert meta["metadata"]["cryolithe"]["volume"].endswith("TS_1_rec.mrc")
    if centred:
        assert meta["features"]["kind"].tolist() == ["kind0", "kind1"]


def test_particles_without_their_volume_are_refused_with_a_reason(tmp_path):
    star = tmp_path / "p.star"
    write_particles(star, [Particle("TS_1", "a", 1, (1, 1, 1), (0, 0, 0))], (9, 9, 9), 10.0)
    with pytest.raises(InputError, match="no volume of these particles"):
        read_layers(str(star))
    write_volume(tmp_path / "TS_9_rec.mrc", Volume(np.zeros((9, 9, 9), np.float32), 10.0), label="CryoLithe test fbp ")
    with pytest.raises(InputError, match="no particles of TS_9"):
        read_layers(str(star))


def test_what_is_not_ours_is_left_to_others(tmp_path):
    (tmp_path / "a.mrc").write_bytes(b"not an MRC file" * 100)
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "c.star").write_text("data_x\n\nloop_\n_some #1\n1\n")
    (tmp_path / "d.star").write_text("no star")
    (tmp_path / "e.zarr").mkdir()
    (tmp_path / "f").mkdir()
    for name in ("a.mrc", "b.json", "c.star", "d.star", "e.zarr", "f", "missing.mrc"):
        assert get_reader(str(tmp_path / name)) is None, name
    write_volume(tmp_path / "g_rec.mrc", Volume(np.zeros((3, 4, 5), np.float32)), label="CryoLithe test fbp ")
    assert get_reader([str(tmp_path / "g_rec.mrc"), str(tmp_path / "a.mrc")]) is None
    assert get_reader([]) is None


@pytest.mark.slow
def test_a_block_lies_where_it_lies_in_the_whole(series, tmp_path):
    model = write_model(tmp_path / "m.safetensors")
    settings = {"method": "network", "model": str(model), "thickness": 24}
    wanted = Wanted(*series, settings, (10, 12, 14), (60.0, 100.0, 150.0))
    prepared = Prepared()
    layers = block_layers(wanted, prepared, Silent())
    assert names(layers) == ["ts FBP", "ts m"]
    made(*series, *FBP, "-o", tmp_path / "fbp.mrc")
    made(*series, "--model", model, "--thickness", 24, "-o", tmp_path / "network.mrc")
    for (block, meta, _), name in zip(layers, ("fbp", "network"), strict=True):
        ((whole, of_whole, _),) = opened(tmp_path / f"{name}.mrc")
        assert block.shape == (10, 12, 14)
        first = np.rint((np.array(meta["translate"]) - of_whole["translate"]) / 5).astype(int)
        part = whole[tuple(slice(f, f + n) for f, n in zip(first, block.shape, strict=True))]
        assert np.abs(block - part).max() <= 1e-4 * np.abs(whole).max()
        inside = (np.array([60, 100, 150]) - meta["translate"]) / 5
        assert (np.abs(inside - (np.array(block.shape) - 1) / 2) <= 1).all()
    elsewhere = Wanted(*series, settings, (4, 4, 4))  # the middle
    again = block_layers(elsewhere, prepared, Silent())
    assert again[1][0] == pytest.approx(np.asarray(voxels(tmp_path / "network.mrc"))[10:14, 18:22, 22:26], rel=1e-3)
    only = block_layers(Wanted(*series, {"method": "fbp"}, (4, 4, 4)), prepared, Silent())
    assert names(only) == ["ts FBP"]
    prepared.close()
    with pytest.raises(CryoLitheError, match="does not exist"):
        block_layers(Wanted(tmp_path / "none.mrc", None, {}, (4, 4, 4)), prepared, Silent())


# The plugin


def test_the_manifest_names_what_there_is():
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    for command in manifest["contributions"]["commands"]:
        module, name = command["python_name"].split(":")
        if module.endswith("widget"):  # needs Qt
            assert f"class {name}" in Path(cryolithe.__file__).parent.joinpath("viewer", "widget.py").read_text()
        else:
            assert callable(getattr(importlib.import_module(module), name))


def test_the_manifest_is_valid():
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    assert manifest.name == "cryolithe"
    assert {reader.command for reader in manifest.contributions.readers} == {"cryolithe.read"}
