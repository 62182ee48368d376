"""The library against the command: the same bytes from arrays, tensors and paths; errors, notes and warnings alike."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from command import good
from projects import VOLUME, make_project, write_aretomo, write_imod
from tiny_series import ANGLES, SHAPE, bead_images, made, noise, refused, tree, voxels, write_model, write_series

import cryolithe
from cryolithe.errors import GeometryError
from cryolithe.formats.alignment.alignments import alignment_files
from cryolithe.geometry import TiltGeometry
from cryolithe.library.reconstructing import _OF_NETWORKS, OF_FILES, Settings
from cryolithe.settings import ReconstructSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def by_library(method, images, angles, options, network):
    """The volume that a function makes, whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cryolithe.CryoLitheWarning)
        if method == "network":
            return cryolithe.reconstruct(images, angles, model=network, **options)
        return {"fbp": cryolithe.fbp, "sirt": cryolithe.sirt}[method](images, angles, **options)


CASES = {
    "network, FBP share and contrast of their own": ("network", {}),
    "network alone, bright, turned": ("network", {"fbp_share": 0.0, "contrast": "bright", "tilt_axis": 84.0}),
    "network, binned, deeper, other hand": ("network", {"bin": 2, "thickness": 30, "handedness": "aretomo"}),
    "fbp": ("fbp", {}),
    "fbp, other centre, window and type": ("fbp", {"centre": "relion", "filter": "hamming", "dtype": "float16"}),
    "fbp in 8 bits, mirrored": ("fbp", {"dtype": "int8", "flip_z": True, "thickness": 13}),
    "sirt": ("sirt", {"iterations": 3, "thickness": 12}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_function_makes_the_bytes_of_the_command(tmp_path, case, network):
    method, options = CASES[case]
    images = noise()
    stack, angles = write_series(tmp_path, images)
    flags = [
        part
        for name, value in options.items()
        for part in ([f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)]))
    ]
    model = ["--model", network] if method == "network" else ["--method", method]
    out = tmp_path / "command.mrc"
    made(stack, angles, *model, *flags, "-o", out)
    expected = voxels(out)
    of_paths = by_library(method, stack, angles, options, network)
    given = {
        "arrays": (images, np.array(ANGLES)),
        "tensors and a list": (torch.from_numpy(images), list(ANGLES)),
        "a path and a tuple": (stack, ANGLES),
        "an array and a path": (images, str(angles)),
    }
    for found in (
        of_paths,
        *(by_library(method, *pair, {**options, "voxel_size_angstrom": 5.0}, network) for pair in given.values()),
    ):
        assert found.data.dtype == expected.dtype
        assert found.data.tobytes() == expected.tobytes()
        assert found.voxel_size_angstrom == 5.0 * options.get("bin", 1)
    # What it says and records is what the command says and records; files have their hashes.
    of_paths.save(tmp_path / "library.mrc")
    assert (tmp_path / "library.mrc").read_bytes() == out.read_bytes()
    records = [json.loads(path.with_suffix(".json").read_text()) for path in (out, tmp_path / "library.mrc")]
    for record in records:
        for free in ("date", "seconds"):
            del record[free]
        del record["volume"]["path"]
        record["settings"]["pixel_size"] = None
    assert records[0] == records[1]


@pytest.mark.slow
def test_raw_stacks_are_aligned_as_the_command_does(tmp_path):
    project = make_project(tmp_path)
    aln = write_aretomo(project)
    _, newst, tilt = write_imod(project, tilt_lines=["XAXISTILT 3.5"])
    for files in ({"aln": aln}, {"newst_com": newst, "tilt_com": tilt}):
        flags = [part for name, path in files.items() for part in (f"--{name.replace('_', '-')}", path)]
        out = tmp_path / f"{next(iter(files))}.mrc"
        made(project.stack, *flags, "--method", "fbp", "--thickness", VOLUME[0], "-o", out)
        before = tree(tmp_path)
        found = cryolithe.fbp(project.stack, thickness=VOLUME[0], **files)
        assert tree(tmp_path) == before  # nothing is written
        assert found.data.tobytes() == voxels(out).tobytes()
        assert found.notes


def test_angles_of_arrays_have_no_files_to_align_them(tmp_path):
    with pytest.raises(cryolithe.CryoLitheError, match="aln= goes with a stack and angles in files"):
        cryolithe.fbp(noise(), ANGLES, aln="x.aln")


def test_what_the_command_warns_of_is_a_warning_and_what_it_assumes_a_note(tmp_path, network):
    stack, angles = write_series(tmp_path)
    told = made(stack, angles, "--model", network, "-o", tmp_path / "v.mrc").stderr.splitlines()
    with pytest.warns(cryolithe.CryoLitheWarning) as caught:
        found = cryolithe.reconstruct(noise(), ANGLES, model=network)
    assert {one.filename for one in caught} == {__file__}
    assert [str(one.message) for one in caught] == list(found.warnings)
    printed = dict.fromkeys(line for line in told if line.startswith("Warning: "))
    assert [f"Warning: {text}" for text in found.warnings] == list(printed)
    assert found.warnings
    for note in found.notes:
        assert any(line.endswith(note) for line in told), note


MISTAKES = {
    "unknown": ({"thicknes": 8}, "unknown setting 'thicknes' (did you mean 'thickness'?)"),
    "a flag's spelling": ({"tilt-axs": 8}, "did you mean 'tilt_axis'?"),
    "out of range": ({"thickness": 0}, "'thickness': input should be greater than or equal to 1, got 0"),
    "a bool for a number": ({"bin": True}, "'bin': expected a value, got True"),
    "of files": ({"overwrite": True}, "volume.save(path)"),
    "of networks": ({"model": "default"}, "cryolithe.reconstruct is for networks"),
    "of sirt": ({"iterations": 3}, "it is for cryolithe.sirt"),
    "another method": ({"method": "sirt"}, "cryolithe.fbp has no 'method'"),
    "named otherwise": ({"pixel_size": 3.0}, "give voxel_size_angstrom="),
    "no size": ({"voxel_size_angstrom": -1}, "voxel_size_angstrom: expected a positive number of Å, got -1"),
    "text for a size": ({"voxel_size_angstrom": "10"}, "expected a positive number of Å, got '10'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_wrong_setting_is_refused_in_one_line(case):
    options, told = MISTAKES[case]
    with pytest.raises(cryolithe.CryoLitheError) as error:
        cryolithe.fbp(noise(), ANGLES, **options)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


BAD = noise()
BAD[2, 3, 4] = np.nan
INPUTS = {
    "two axes": (BAD[0], ANGLES, "tilts: expected an array (tilt, y, x) of real numbers, got shape (40, 48)"),
    "no images": (BAD[:0], (), "got shape (0, 40, 48)"),
    "complex": (BAD.astype(complex), ANGLES, "of real numbers"),
    "ragged": ([[1.0], [1.0, 2.0]], ANGLES, "tilts: expected an array"),
    "nothing": (None, ANGLES, "got None"),
    "NaN": (BAD, ANGLES, "holds 1 NaN or Inf pixels in tilt 3"),
    "fewer angles": (noise(), ANGLES[:-1], "the stack holds 11 images but there are 10 tilt angles"),
    "no angles": (noise(), None, "angles_deg: expected one tilt angle in degrees for each image"),
    "angles that are none": (noise(), ["a"] * 11, "angles_deg: expected an array"),
    "an angle that is none": (noise(), (*ANGLES[:-1], np.inf), "angles_deg: expected finite numbers, got inf at index"),
    "beyond 90": (noise(), np.array(ANGLES) * 2, "90"),
    "no such file": ("nowhere.mrc", ANGLES, "nowhere.mrc does not exist"),
    "no such file of angles": (noise(), "nowhere.tlt", "nowhere.tlt does not exist"),
}


@pytest.mark.parametrize("case", INPUTS)
def test_an_unusable_input_is_refused_in_one_line(case):
    images, angles, told = INPUTS[case]
    with pytest.raises(cryolithe.CryoLitheError) as error:
        cryolithe.fbp(images, angles)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_the_messages_of_files_are_those_of_the_command(tmp_path):
    stack, angles = write_series(tmp_path, angles=ANGLES[:-1])
    for pair in ((stack, angles), (angles, stack), (stack, tmp_path / "no.tlt")):
        line = refused(tmp_path, [*pair, "--method", "fbp"])
        if not pair[1].exists():
            continue  # told before the engine is asked
        with pytest.raises(cryolithe.CryoLitheError) as error:
            cryolithe.fbp(*pair)
        assert line == f"Error: {error.value}"


def test_inputs_of_any_real_type_are_taken_and_left_as_they_are():
    images = np.round(20 * noise())
    expected = cryolithe.fbp(images, ANGLES).data
    for given in (images.astype(np.int16), images.astype(np.float64), torch.from_numpy(images).to(torch.bfloat16)):
        assert np.allclose(cryolithe.fbp(given, ANGLES).data, expected, atol=1e-3)
    held = images.astype(np.int16)
    held.flags.writeable = False
    cryolithe.fbp(held, ANGLES)
    assert (held == images).all()
    turned = np.asfortranarray(images)
    assert cryolithe.fbp(turned, ANGLES).data.tobytes() == expected.tobytes()


def test_every_setting_of_the_command_is_one_of_the_functions_or_of_files():
    # By which the three functions differ, and what they call otherwise.
    own = {"method", "pixel_size", *_OF_NETWORKS, "filter", "iterations"}
    assert set(Settings.__annotations__) | own | set(OF_FILES) == set(ReconstructSettings.model_fields)
    assert set(alignment_files()) <= set(Settings.__annotations__)
    # A type checker is told what the command takes.
    for name, told in Settings.__annotations__.items():
        choices = getattr(ReconstructSettings.model_fields[name].annotation, "__args__", ())
        for choice in choices:
            if isinstance(choice, str):
                assert repr(choice).strip("'") in str(told), name


def test_a_volume_is_used_like_its_array():
    voxels_ = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    volume = cryolithe.Volume(voxels_, 10.0)
    assert volume.data is voxels_
    assert np.asarray(volume) is voxels_
    assert np.asarray(volume, dtype=np.float64).dtype == np.float64
    copied = np.array(volume)
    copied[:] = 0
    assert volume.data.sum() == np.arange(24).sum()
    assert (volume[1, 2] == voxels_[1, 2]).all()
    assert len(volume) == 2
    assert volume.shape == (2, 3, 4)
    assert np.mean(volume) == voxels_.mean()
    assert (torch.as_tensor(np.asarray(volume)) == torch.from_numpy(voxels_)).all()
    assert "10 Å" in repr(volume)
    assert len(repr(volume)) < 80
    assert (pickle.loads(pickle.dumps(volume)).data == voxels_).all()  # noqa: S301
    assert volume != cryolithe.Volume(voxels_, 10.0)
    with pytest.raises(AttributeError):
        volume.voxels = voxels_
    with pytest.raises(cryolithe.CryoLitheError, match="z, y, x"):
        cryolithe.Volume(voxels_[0])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int16", "int8", "uint16", "float64", "int32", "bool"])
def test_a_saved_volume_comes_back(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 2, (5, 6, 7)).astype(dtype)
    path = cryolithe.Volume(values, 7.5, (10.0, 20.0, 30.0), labels=("mine",)).save(tmp_path / "v.mrc")
    back = cryolithe.Volume.read(path)
    assert (back.data == values).all()
    assert back.voxel_size_angstrom == pytest.approx(7.5)
    assert back.origin_angstrom == (10.0, 20.0, 30.0)
    assert back.labels == ("mine",)
    assert not (tmp_path / "v.json").exists()
    with mrcfile.open(path) as file:
        assert file.header.ispg == 1


def test_nothing_is_replaced_unless_it_is_asked_for(tmp_path):
    volume = cryolithe.fbp(noise(), ANGLES, 5)
    path = volume.save(tmp_path / "v.mrc")
    before = tree(tmp_path)
    for name, told in (("v.mrc", "overwrite=True"), ("no/v.mrc", "does not exist"), ("w.txt", "MRC")):
        with pytest.raises(cryolithe.CryoLitheError, match=told):
            volume.save(tmp_path / name)
    assert tree(tmp_path) == before
    assert volume.save(path, overwrite=True) == path
    (tmp_path / "w.json").write_text('{"mine": 1}')
    with pytest.raises(cryolithe.CryoLitheError, match="no record"):
        volume.save(tmp_path / "w.mrc", overwrite=True)
    assert not (tmp_path / "w.mrc").exists()


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
def test_nothing_beside_a_replaced_volume_tells_of_the_one_before(tmp_path, turned):
    write_series(tmp_path, noise())
    flags = ("--thickness", 32, "--orientation", "xzy") if turned else ("--confidence", "--preview", "--thickness", 32)
    made(tmp_path / "ts.mrc", tmp_path / "ts.tlt", "--device", "cpu", *flags)
    path, kept = tmp_path / "ts_rec.mrc", {"ts.mrc", "ts.tlt", "ts_rec.mrc", "mine.json"}
    (tmp_path / "mine.json").write_text("{}")
    before = cryolithe.Volume.read(path)
    assert before.of_network
    if not turned:
        names = {one.name for one in tmp_path.iterdir()}
        before.save(path, overwrite=True)  # the same volume: what lies beside it is still its own
        assert {one.name for one in tmp_path.iterdir()} == names > kept | {"ts_rec.png", "ts_rec.json"}
    values = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    cryolithe.Volume(values, 10.0).save(path, overwrite=True)
    assert {one.name for one in tmp_path.iterdir()} == kept
    back = cryolithe.Volume.read(path)
    assert (np.asarray(back) == values).all()  # not turned as the one before was
    assert not back.record
    assert not back.of_network


def test_a_record_without_its_volume_is_not_taken_for_that_of_another(tmp_path):
    path = cryolithe.fbp(noise(), ANGLES, 5).save(tmp_path / "v.mrc")
    path.unlink()
    other = cryolithe.Volume(np.zeros((5, 6, 7), np.float32), 5)
    with pytest.raises(cryolithe.CryoLitheError, match=r"v\.json exists; give overwrite=True"):
        other.save(path)
    assert not cryolithe.Volume.read(other.save(path, overwrite=True)).record


@pytest.mark.parametrize("program", [{}, {"program": "other"}, {"program": {"name": "other"}}])
def test_what_another_program_tells_of_a_volume_is_kept(tmp_path, program):
    """Its table has the name of ours; a record that names the volume or this program is ours."""
    record, values = tmp_path / "v.json", np.zeros((5, 6, 7), np.float32)
    record.write_text(json.dumps({"volume": {"shape": [1, 2, 3]}, **program}))
    before = record.read_bytes()
    for _ in range(2):
        cryolithe.Volume(values, 5).save(tmp_path / "v.mrc", overwrite=True)
        assert record.read_bytes() == before
    with pytest.raises(cryolithe.CryoLitheError, match=r"v\.json exists and is no record of v\.mrc"):
        cryolithe.Volume(values, 5, record={"mine": 1}).save(tmp_path / "v.mrc", overwrite=True)
    assert record.read_bytes() == before
    for own in ({"volume": {"path": "v.mrc"}, **program}, {"volume": {}, "program": {"name": "CryoLithe"}}):
        record.write_text(json.dumps(own))
        cryolithe.Volume(values, 5).save(tmp_path / "v.mrc", overwrite=True)
        assert not record.exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_ome_zarr_replaces_no_file_and_no_link(tmp_path, kind):
    pytest.importorskip("zarr")
    place = tmp_path / "v.zarr"
    (tmp_path / "other.zarr").mkdir()
    if kind == "file":
        place.write_text("x")
    else:
        place.symlink_to("other.zarr")
    before = tree(tmp_path)
    with pytest.raises(cryolithe.CryoLitheError, match=f"v.zarr is a {kind}, and OME-Zarr a folder"):
        cryolithe.Volume(noise()).save(place, overwrite=True)
    assert tree(tmp_path) == before


def test_ome_zarr_comes_back(tmp_path):
    pytest.importorskip("zarr")
    volume = cryolithe.fbp(noise(), ANGLES, 5)
    for overwrite in (False, True):
        back = cryolithe.Volume.read(volume.save(tmp_path / "v.zarr", overwrite=overwrite))
        assert (np.asarray(back) == volume.data).all()
        assert back.voxel_size_angstrom == 5.0
    assert back.record["method"]["name"] == "fbp"


def test_a_stack_is_no_volume(tmp_path):
    stack, _ = write_series(tmp_path)
    with pytest.raises(cryolithe.CryoLitheError, match="stack"):
        cryolithe.Volume.read(stack)


@pytest.mark.slow
def test_fsc_is_that_of_the_command(tmp_path):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((12, 14, 16)).astype(np.float32)
    b = (a + rng.standard_normal(a.shape)).astype(np.float32)
    mask = np.ones(a.shape, np.float32)
    mask[:3] = 0
    for name, values in (("a", a), ("b", b), ("m", mask)):
        cryolithe.Volume(values, 10.0).save(tmp_path / f"{name}.mrc")
    paths = [tmp_path / "a.mrc", tmp_path / "b.mrc"]
    out = tmp_path / "fsc.json"
    good("fsc", *paths, "--wedge", "-50,60", "--mask", tmp_path / "m.mrc", "--json", out)
    told = json.loads(out.read_text())
    whole = [cryolithe.Volume.read(path) for path in paths]
    for pair, weights in ((paths, tmp_path / "m.mrc"), (whole, mask), ((a, torch.from_numpy(b)), mask > 0)):
        found = cryolithe.fsc(*pair, 10, mask=weights, wedge=(-50, 60))
        for column in ("total", "measured", "missing"):
            assert np.array_equal(getattr(found, column), np.array(told["fsc"][column], float), equal_nan=True)
            assert found.mean(column) == pytest.approx(told["mean"][column])
            assert found.resolution(0.5, column).value == pytest.approx(told["resolution"][column]["0.5"]["value"])
    assert repr(found).startswith("Fsc(mean 0.")


def test_fsc_refuses_what_cannot_be_compared():
    a = np.random.default_rng(0).standard_normal((12, 12, 12))
    b = a + np.random.default_rng(1).standard_normal(a.shape)
    for asked, told in (
        (lambda: cryolithe.fsc(a, b[1:]), "a has (12, 12, 12), b has (11, 12, 12)"),
        (lambda: cryolithe.fsc(cryolithe.Volume(a, 5), cryolithe.Volume(b, 6)), "voxel_size_angstrom="),
        (lambda: cryolithe.fsc(a, b, mask=np.zeros(a.shape)), "is 0 in all"),
        (lambda: cryolithe.fsc(a, b, wedge=95), "wedge: "),
        (lambda: cryolithe.fsc(a, b, wedge=(1, 2, 3)), "wedge: expected a tilt range"),
        (lambda: cryolithe.fsc(a, np.full(a.shape, np.nan)), "not finite"),
        (lambda: cryolithe.fsc(a, b).mean("measurd"), "column: expected total"),
    ):
        with pytest.raises(cryolithe.CryoLitheError) as error:
            asked()
        assert told in str(error.value)
    with pytest.warns(cryolithe.CryoLitheWarning, match="compared with itself"):
        cryolithe.fsc(a, a)


@pytest.mark.slow
def test_a_simulated_series_is_that_of_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("cryolithe.simulation.plain.SHAPE", (16, 24, 32))
    good("simulate", "-o", tmp_path / "plain", "--seed", 3, "--snr", 2)
    found = cryolithe.simulate(seed=3, snr_db=2)
    assert found.tilts.tobytes() == voxels(tmp_path / "plain/tilts.mrc").tobytes()
    assert found.truth.data.tobytes() == voxels(tmp_path / "plain/truth.mrc").tobytes()
    assert np.allclose(found.angles_deg, np.loadtxt(tmp_path / "plain/tilts.tlt"))
    recipe = {
        "series": 1, "seed": 4, "procedural": 1,
        "cell": {"shape": [16, 32, 32], "voxel_size_angstrom": [12, 12]},
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    good("simulate", tmp_path / "r.yaml", "-o", tmp_path / "cells")
    for given in (recipe, tmp_path / "r.yaml"):
        found = cryolithe.simulate(given)
        for ending, values in (
            ("", found.tilts), ("_EVN", found.even), ("_ODD", found.odd), ("_truth", found.truth.data),
            ("_labels", found.labels),
        ):  # fmt: skip
            assert values.tobytes() == voxels(tmp_path / f"cells/TS_001{ending}.mrc").tobytes()
        assert found.voxel_size_angstrom == 12
        assert found.labels.max() <= len(found.classes)


def test_simulate_refuses_what_it_cannot_draw():
    for options, told in (
        ({"recipe": {"sries": 2}}, "unknown key 'sries' (did you mean 'series'?)"),
        ({"recipe": {"series": 2}, "series": 3}, "series: expected a number from 1 to 2"),
        ({"recipe": {}, "snr_db": 3}, "snr_db is for the plain series"),
        ({"recipe": 3}, "recipe: expected a path or a mapping"),
        ({"seed": -1}, "seed: expected a whole number"),
        ({"snr_db": 1000}, "snr_db must lie within ±100 dB"),
        ({"shape": (4, 4)}, "shape: expected three sizes"),
        ({"recipe": "no.yaml"}, "no.yaml"),
        ({"molecules": ["no.pdb"]}, "no.pdb does not exist"),
    ):
        with pytest.raises(cryolithe.CryoLitheError) as error:
            cryolithe.simulate(**options)
        assert told in str(error.value)


def beads():
    """A bead's images, a little noisy."""
    rng = np.random.default_rng(1)
    images = bead_images(SHAPE, (6.0, 4.0, 3.0))
    return (images + 0.05 * rng.standard_normal(images.shape)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::cryolithe.CryoLitheWarning")
def test_an_evaluation_is_that_of_the_command(tmp_path):
    images = beads()
    halves = [images + 0.05 * np.random.default_rng(n).standard_normal(images.shape) for n in (2, 3)]
    whole = cryolithe.fbp(images[1:-1], ANGLES[1:-1], 5, thickness=20)
    parts = [cryolithe.fbp(half.astype(np.float32)[1:-1], ANGLES[1:-1], 5, thickness=20) for half in halves]
    stack, angles = write_series(tmp_path, images)
    for name, volume in (("rec", whole), ("a", parts[0]), ("b", parts[1])):
        volume.save(tmp_path / f"{name}.mrc")
    good(
        "evaluate", tmp_path / "rec.mrc", "--reference", tmp_path / "a.mrc", "--half1", tmp_path / "a.mrc",
        "--half2", tmp_path / "b.mrc", "--tilts", stack, "--angles", angles, "-o", tmp_path / "e.html",
    )  # fmt: skip
    told = json.loads((tmp_path / "e.json").read_text())["evaluation"]
    from cryolithe.report.json_files import plain_json

    given = {
        "values": (whole, parts[0], parts, images, ANGLES),
        "paths": (*(tmp_path / f"{name}.mrc" for name in ("rec", "a")), [tmp_path / "a.mrc", tmp_path / "b.mrc"],
                  stack, angles),
    }  # fmt: skip
    for volume, reference, pair, tilts, degrees in given.values():
        found = plain_json(
            cryolithe.evaluate(volume, reference=reference, halves=pair, tilts=tilts, angles_deg=degrees)
        )
        assert found["reprojection"] == told["reprojection"]
        for part in ("reference", "halves"):
            for score in ("curves", "similarity", "snr", "agreement", "polarity"):
                assert found[part].get(score) == told[part].get(score)
        assert found["wedge"] == told["wedge"]
        assert found["tilt_range_deg"] == told["tilt_range_deg"]
        assert list(found["skipped"]) == list(told["skipped"])


def test_evaluate_refuses_what_does_not_fit():
    volume = np.random.default_rng(0).standard_normal((12, 12, 12)).astype(np.float32)
    for options, told in (
        ({"reference": volume[1:]}, "differ in shape"),
        ({"halves": (volume, volume)}, "the half maps are the same volume"),
        ({"halves": volume}, "halves: expected a pair"),
        ({"tilts": volume}, "tilts and angles_deg belong together"),
        ({"tilts": volume, "angles_deg": [1, 2]}, "do not fit 2 angles"),
        ({"particles": [[1, 2]]}, "particles: expected finite positions"),
        ({"contrast": "grey"}, "contrast: expected"),
        ({"heldout": "beyond 50"}, "did you mean 'held_out'?"),
        ({"mask": -volume}, "must hold finite values of 0 or more"),
    ):
        with pytest.raises(cryolithe.CryoLitheError) as error:
            cryolithe.evaluate(volume, **options)
        assert told in str(error.value), error.value
    with pytest.raises(cryolithe.CryoLitheError, match="not finite"):
        cryolithe.evaluate(np.full((12, 12, 12), np.nan))


@pytest.mark.slow
def test_what_is_denoised_without_training_has_the_bytes_of_the_command(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    volume = cryolithe.Volume(rng.standard_normal((16, 20, 24)).astype(np.float32), 10.0)
    path = volume.save(tmp_path / "v.mrc")
    good("denoise", path, "--method", "n2n", "--is-volume", "-o", tmp_path / "d.mrc")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cryolithe.CryoLitheWarning)
        for given in (volume, path):
            found = cryolithe.denoise(given, method="n2n", model="general")
            assert found.data.tobytes() == voxels(tmp_path / "d.mrc").tobytes()
            assert found.voxel_size_angstrom == 10.0
            assert found.record["method"]["name"] == "n2n"
    assert not list(scratch.iterdir())


@pytest.mark.slow
def test_what_is_learned_from_halves_can_be_kept_and_used_again(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((24, 24, 24))
    halves = [(truth + rng.standard_normal(truth.shape)).astype(np.float32) for _ in range(2)]
    weights = tmp_path / "w.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cryolithe.CryoLitheWarning)
        first = cryolithe.denoise(
            None, 10, method="n2n", halves=halves, train_minutes=0.01, start="fresh", weights_to=weights
        )
        again = cryolithe.denoise(None, 10, method="n2n", halves=halves, model=weights)
    assert first.data.tobytes() == again.data.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_denoise_refuses_what_its_methods_do_not_have(tmp_path):
    volume = np.random.default_rng(0).standard_normal((12, 12, 12)).astype(np.float32)
    for options, told in (
        ({"method": "samba2"}, "method: expected 'samba' or 'n2n', got 'samba2' (did you mean 'samba'?)"),
        ({"backbone": "unet"}, "backbone goes with method n2n, not with samba"),
        ({"lmax": 0}, "'lmax': expected a whole number of at least 1, got 0"),
        ({"lmx": 2}, "did you mean 'lmax'?"),
        ({"size": "tiny"}, "'size': expected 'published' or 'small'"),
        ({"augment": 1}, "'augment': expected True or False"),
        ({"overwrite": True}, "is about files of the command"),
        ({"train_minutes": 0}, "train_minutes: expected a positive number of minutes"),
        ({"weights_to": tmp_path / "w.pt"}, "expected a name ending in .safetensors"),
        ({"halves": volume}, "halves: expected a pair"),
        ({"model": tmp_path / "no.safetensors"}, "no.safetensors does not exist"),
        ({"method": "n2n", "train_minutes": 1}, "Noise2Noise learns from two halves"),
    ):
        with pytest.raises(cryolithe.CryoLitheError) as error:
            cryolithe.denoise(volume, **options)
        assert told in str(error.value), error.value
    with pytest.raises(cryolithe.CryoLitheError, match="give a volume to denoise"):
        cryolithe.denoise()


def test_importing_the_package_imports_no_torch():
    lines = (
        "import sys, cryolithe",
        "assert {'reconstruct', 'fbp', 'Volume'} <= set(dir(cryolithe))",
        "from cryolithe import CryoLitheError",
        "print(*sorted({'torch', 'numpy', 'scipy', 'pydantic'} & set(sys.modules)), end='')",
    )
    told = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert told.stdout == ""


def test_every_public_name_is_there_and_explained():
    for name in cryolithe.__all__:
        found = getattr(cryolithe, name)
        assert name == "__version__" or found.__doc__, name
    with pytest.raises(AttributeError, match="reconstuct"):
        cryolithe.reconstuct  # noqa: B018


def test_radians_are_refused_as_by_the_command():
    angles = np.deg2rad(np.linspace(-60, 60, 11))
    images = np.random.default_rng(0).standard_normal((11, 16, 24)).astype(np.float32)
    with pytest.raises(GeometryError, match="give degrees"):
        cryolithe.fbp(images, angles, 5, thickness=8)
    assert TiltGeometry((-1, -0.5, 0, 0.5, 1), (16, 24)).tilts == 5  # so few may well lie close together


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t, a: (np.ma.masked_array(t, t > t.max() / 2), a), "got one with a mask"),
        (lambda t, a: (t, np.ma.masked_array(a, np.arange(len(a)) == 3)), "got one with a mask"),
        (lambda t, a: (t, dict(enumerate(a))), "in the order of the images"),
        (lambda t, a: (t, set(a)), "in the order of the images"),
        (lambda t, a: ("", a), "an empty name"),
    ],
)
def test_what_would_be_taken_for_something_else_is_refused(change, says):
    series = cryolithe.simulate(seed=1, shape=(16, 32, 32))
    with pytest.raises(cryolithe.errors.InputError, match=says):
        cryolithe.fbp(*change(np.asarray(series.tilts), np.asarray(series.angles_deg)))


def test_a_voxel_size_may_be_an_array_without_axes():
    series = cryolithe.simulate(seed=1, shape=(16, 32, 32))
    for size in (np.array(10.0, np.float32), torch.tensor(10.0), np.float32(10)):
        assert cryolithe.fbp(series.tilts, series.angles_deg, size).voxel_size_angstrom == 10


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((np.zeros((4, 4, 4)), "10"), "positive number of Å"),
        ((np.zeros((4, 4, 4)), 1, (1, 2)), "three numbers"),
        ((np.zeros((4, 4)), 1), "z, y, x"),
        ((np.zeros((4, 4, 4), complex), 1), "real numbers"),
    ],
)
def test_a_volume_is_checked_when_it_is_made(values, says):
    with pytest.raises(cryolithe.CryoLitheError, match=says):
        cryolithe.Volume(*values)


def test_a_volume_is_made_of_lists_and_tensors(tmp_path):
    for values in ([[[1.0, 2.0]]], torch.tensor([[[1.0, 2.0]]])):
        volume = cryolithe.Volume(values, 1)
        volume.save(tmp_path / "v.mrc", overwrite=True)
        assert np.asarray(cryolithe.Volume.read(tmp_path / "v.mrc")).tolist() == [[[1.0, 2.0]]]


@pytest.mark.parametrize("name", ["v.mrc", "v.zarr"])
def test_origin_and_warnings_of_a_volume_are_kept(name, tmp_path):
    pytest.importorskip("zarr")
    volume = cryolithe.Volume(np.zeros((70, 8, 8), np.float32), 5, (10.0, 20.0, 30.0))
    volume.save(tmp_path / name)
    assert cryolithe.Volume.read(tmp_path / name).origin_angstrom == (10.0, 20.0, 30.0)
    with pytest.warns(cryolithe.CryoLitheWarning, match="one image alone"):
        made = cryolithe.fbp(np.random.default_rng(1).random((1, 16, 16)), [0.0], 5, thickness=8)
    assert list(made.warnings) == list(made.record["warnings"]) != []
    made.save(tmp_path / name, overwrite=True)
    assert cryolithe.Volume.read(tmp_path / name).warnings == made.warnings


def test_a_caller_keeps_his_random_numbers():
    series = cryolithe.simulate(seed=1, shape=(16, 32, 32))
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    cryolithe.reconstruct(series.tilts, series.angles_deg, 10, model="draft")
    assert torch.rand(1) == expected


@pytest.mark.parametrize(("left_out", "told"), [(range(10, 13), False), (range(10, 15), True)])
def test_a_hole_in_the_angles_is_told(left_out, told):
    angles = np.delete(np.arange(-60.0, 61, 3), list(left_out))
    images = np.random.default_rng(0).standard_normal((len(angles), 24, 24)).astype(np.float32)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        cryolithe.fbp(images, angles, 10, thickness=8)
    assert told == any("a second missing wedge of" in str(one.message) for one in heard)
