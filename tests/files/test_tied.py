"""An output is done when it was made of the inputs that are there now; a file of the right name says nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from command import call, good
from plain_mrc import new_mrc
from test_denoise_warp import TINY
from tiny_series import noise, write_series

from cryolithe.denoising.samba import learning, model
from cryolithe.denoising.samba import recipe as recipes
from cryolithe.errors import SettingsError
from cryolithe.files.hashing import content_sha256, sampled_sha256
from cryolithe.formats import read_volume, write_volume
from cryolithe.formats.record import changed_input, hashed, read_record_beside
from cryolithe.reconstruction.jobs.job import Job
from cryolithe.reconstruction.output.preview import preview_is_current
from cryolithe.report.figures import drawn_source
from cryolithe.settings import ReconstructSettings
from cryolithe.training.session import _check_seen
from cryolithe.volume import Volume

FBP = ("--contrast", "dark", "--method", "fbp", "--thickness", 12, "--device", "cpu")
SAMBA = ("--denoise", "samba", "--denoise-minutes", 1)
QUICK = Path(__file__).resolve().parents[2] / "training_data" / "recipes" / "quick.yaml"


@pytest.fixture
def tiny(monkeypatch):
    """A denoiser and a training of a fraction of a second."""
    monkeypatch.setitem(model.SIZES, "published", TINY)
    make = recipes.make_recipe

    def short(*arguments, **changes):
        return replace(make(*arguments, **changes), crop=32, most_steps=3, validation_blocks=4, warmup_steps=1)

    monkeypatch.setattr(learning, "make_recipe", short)


@pytest.fixture
def session(tmp_path, tiny):
    """A session of one series, reconstructed and denoised."""
    write_series(tmp_path)
    good("reconstruct", tmp_path, *FBP, *SAMBA)
    return tmp_path


@pytest.mark.slow
def test_a_denoised_volume_is_done_only_for_the_volume_that_it_was_made_of(session):
    result = good("reconstruct", session, *FBP, *SAMBA)
    assert "already denoised" in result.output or "already done" in result.stdout
    good("reconstruct", session / "ts.mrc", session / "ts.tlt", *FBP, "--filter", "hann", "--overwrite")
    before = (session / "ts_rec_samba.mrc").read_bytes()
    for words in (("--dry-run",), ()):
        result = call("reconstruct", session, *FBP, "--filter", "hann", *SAMBA, *words)
        assert result.exit_code == 1
        assert "was made of another ts_rec.mrc than the one that is there now; remove it, or give" in result.output
    assert (session / "ts_rec_samba.mrc").read_bytes() == before
    (session / "ts_rec_samba.mrc").unlink()
    (session / "ts_rec_samba.json").unlink()
    shutil.rmtree(session / "ts_rec_samba.run")
    good("reconstruct", session, *FBP, "--filter", "hann", *SAMBA)
    record = read_record_beside(session / "ts_rec_samba.mrc")
    assert changed_input(record, {"volume": session / "ts_rec.mrc"}) is None


@pytest.mark.slow
def test_other_settings_of_the_denoiser_are_not_done(session):
    result = call("reconstruct", session, *FBP, "--denoise", "samba", "--denoise-minutes", 2)
    assert result.exit_code == 1
    assert "other settings (train-minutes 1.0 instead of 2.0)" in result.output


@pytest.mark.slow
def test_a_denoised_volume_without_a_record_is_not_believed(session):
    (session / "ts_rec_samba.json").unlink()
    result = call("reconstruct", session / "ts.mrc", session / "ts.tlt", *FBP, *SAMBA)
    assert result.exit_code == 2
    assert "ts_rec_samba.mrc exists but it has no record of how it was made" in result.output
    shutil.copy(session / "ts_rec.json", session / "ts_rec_samba.json")  # of another volume
    assert "it has no record" in call("reconstruct", session / "ts.mrc", session / "ts.tlt", *FBP, *SAMBA).output


@pytest.mark.slow
def test_a_denoised_volume_tells_the_geometry_of_what_it_was_made_of(session):
    record, source = (read_record_beside(session / f"ts_rec{name}.mrc") for name in ("_samba", ""))
    assert record["geometry"] == source["geometry"]
    assert record["source"]["inputs"] == source["inputs"]
    assert record["volume"]["contrast"] == "dark"
    tilts = ("--tilts", session / "ts.mrc", "--angles", session / "ts.tlt", "--held-out", "1")
    good("evaluate", session / "ts_rec_samba.mrc", *tilts, "-o", session / "r.html")
    found = json.loads((session / "r.json").read_text())["evaluation"]
    assert found["reprojection"]["use"] == "seen"
    assert found["tilt_range_deg"] == [-50, 50]


@pytest.mark.slow
def test_a_resumed_denoising_sees_every_voxel(tmp_path, tiny):
    data = np.cumsum(np.random.default_rng(0).standard_normal((24, 40, 36)), axis=0).astype(np.float32)
    write_volume(tmp_path / "t.mrc", Volume(data, 10.0), label="x")
    good("denoise", tmp_path / "t.mrc", "--device", "cpu")
    for name in ("t_samba.mrc", "t_samba.json"):
        (tmp_path / name).unlink()
    data[5, 3, 3] += 1  # one voxel of a plane somewhere
    write_volume(tmp_path / "t.mrc", Volume(data, 10.0), label="x", overwrite=True)
    result = call("denoise", tmp_path / "t.mrc", "--device", "cpu", "--resume")
    assert result.exit_code == 2
    assert "was saved by a training on another volume" in result.output


def test_a_preview_is_drawn_anew_for_another_volume(tmp_path):
    write_series(tmp_path)
    good("reconstruct", tmp_path, *FBP)
    preview = tmp_path / "ts_rec.png"
    job = Job(tmp_path / "ts.mrc", tmp_path / "ts.tlt", tmp_path / "ts_rec.mrc", ReconstructSettings())
    assert drawn_source(preview).startswith("record ")
    first = preview.read_bytes()
    good("reconstruct", tmp_path / "ts.mrc", tmp_path / "ts.tlt", *FBP, "--filter", "ramp", "--overwrite")
    assert not preview.exists()  # it was of the volume before
    assert not preview_is_current(job)
    result = good("reconstruct", tmp_path, *FBP, "--filter", "ramp")
    assert "already done" in result.stdout
    assert preview.read_bytes() != first
    assert preview_is_current(job)
    preview.unlink()
    good("reconstruct", tmp_path, *FBP, "--filter", "ramp")
    assert preview_is_current(job)
    preview.write_bytes(b"\x89PNG of a figure")  # somebody's own
    good("reconstruct", tmp_path, *FBP, "--filter", "ramp")
    assert preview.read_bytes() == b"\x89PNG of a figure"


@pytest.mark.parametrize("fault", ["cut", "shape", "type"])
def test_a_volume_that_is_not_what_its_record_says_is_not_done(fault, tmp_path):
    stack, tlt = write_series(tmp_path)
    table = tmp_path / "list.csv"
    table.write_text(f"tilts,angles,output\n{stack.name},{tlt.name},v.mrc\n")
    good("reconstruct", table, *FBP)
    path = tmp_path / "v.mrc"
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-5000])
    else:
        data = np.array(read_volume(path).voxels)
        new = data[:-1] if fault == "shape" else data.astype(np.int16)
        with new_mrc(path, np.ascontiguousarray(new)) as file:
            file.set_volume()
    result = call("reconstruct", table, *FBP)
    assert result.exit_code == 1
    assert "v.mrc exists; give --overwrite" in result.output


@pytest.mark.slow
def test_halves_are_done_only_for_these_images(tmp_path):
    even, tlt = write_series(tmp_path, noise(), name="ts_EVN")
    odd, _ = write_series(tmp_path, np.roll(noise(), 7, axis=2), name="ts_ODD")
    words = ("reconstruct", "--even", even, "--odd", odd, tlt, *FBP)
    good(*words)
    assert good(*words).stdout == f"{tmp_path / 'ts_rec.mrc'}: already done with these inputs and settings\n"
    (tmp_path / "ts_rec_confidence.mrc").unlink()
    assert "ts_rec.mrc exists; give --overwrite" in call(*words).output
    good(*words, "--overwrite")
    write_series(tmp_path, noise() * 2, name="ts_EVN")
    assert "ts_rec.mrc exists; give --overwrite" in call(*words).output


@pytest.mark.slow
def test_an_agreement_map_does_not_outlive_its_halves(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        data = rng.standard_normal((16, 18, 20)).astype(np.float32)
        write_volume(tmp_path / f"{name}_rec.mrc", Volume(data, 10.0), label="x")
    a, b, c = (tmp_path / f"{name}_rec.mrc" for name in "abc")
    page, agreement = tmp_path / "r.html", tmp_path / "r_agreement.mrc"
    good("evaluate", a, "--half1", b, "--half2", c, "-o", page)
    assert agreement.is_file()
    inputs = json.loads(page.with_suffix(".json").read_text())["inputs"]
    assert changed_input({"inputs": inputs}, {"volume": a, "half1": b, "half2": c}) is None
    assert "exists; give --overwrite" in call("evaluate", b, "-o", page).output
    good("evaluate", b, "-o", page, "--overwrite")
    assert not agreement.exists()


@pytest.mark.slow
def test_a_simulated_series_is_done_only_if_this_recipe_made_it_whole(tmp_path):
    out = tmp_path / "out"
    good("simulate", QUICK, "-o", out)
    training, names = out / "TS_001.h5", {path.name for path in out.iterdir()}
    assert "TS_001: already done" in good("simulate", QUICK, "-o", out, "--resume").stdout
    drawn = (out / "recipe.resolved.yaml").read_text()
    # Cut off between the series and the record of what was drawn for it.
    (out / "recipe.resolved.yaml").write_text(drawn.partition("drawn:")[0] + "drawn: {}\n")
    assert "TS_001: already done" in good("simulate", QUICK, "-o", out, "--resume").stdout
    assert yaml.safe_load((out / "recipe.resolved.yaml").read_text()) == yaml.safe_load(drawn)
    # A file that went away, or was cut off.
    (out / "TS_001_truth.mrc").unlink()
    assert "already done" not in good("simulate", QUICK, "-o", out, "--resume").stdout
    training.write_bytes(training.read_bytes()[:5000])
    assert "already done" not in good("simulate", QUICK, "-o", out, "--resume").stdout
    assert {path.name for path in out.iterdir()} == names
    with h5py.File(training, "r+") as file:  # of another recipe
        origin = json.loads(file.attrs["origin"])
        file.attrs["origin"] = json.dumps({**origin, "made_of": "another"})
    result = call("simulate", QUICK, "-o", out, "--resume")
    assert result.exit_code == 2
    assert "TS_001.h5 exists and was not made by this recipe" in result.output


def test_a_resumed_training_needs_the_pairs_that_it_saw(tmp_path):
    path = tmp_path / "pairs.json"
    _check_seen(path, {"a.h5": "1"})  # a run of before this was kept
    path.write_text(json.dumps({"a.h5": "1", "b.h5": "2"}))
    both = {"a.h5": "1", "b.h5": "2"}
    _check_seen(path, both)
    for other, line in (
        ({"a.h5": "1"}, "the file b.h5 is not given, which this run was trained on before; give it to go on"),
        ({**both, "b.h5": "3"}, "the file b.h5 is not the one that this run was trained on before; put it back"),
        ({**both, "c.h5": "3"}, "the file c.h5 is new to this run; leave it out"),
    ):
        with pytest.raises(SettingsError, match=line):
            _check_seen(path, other, "the file ")


def test_hashes_tell_every_change_of_a_file_and_of_a_folder(tmp_path):
    file, folder = tmp_path / "f", tmp_path / "d"
    file.write_bytes(bytes(3_000_000))
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "1").write_bytes(b"a")
    first = (content_sha256(file), content_sha256(folder), sampled_sha256(file))
    files = {"file": file, "folder": folder}
    record = {"inputs": hashed(files)}
    assert changed_input(record, files) is None
    content = bytearray(3_000_000)
    content[2_500_000] = 1
    file.write_bytes(content)
    (folder / "0" / "1").rename(folder / "0" / "2")
    assert all(
        a != b for a, b in zip((content_sha256(file), content_sha256(folder), sampled_sha256(file)), first, strict=True)
    )
    assert changed_input(record, files) == "file"
    assert changed_input(record, {"folder": folder}) == "folder"
    assert changed_input({}, files) == "file"
    assert changed_input({"inputs": {**record["inputs"], "more": {"sha256": "x"}}}, {}) is not None


@pytest.mark.slow
def test_a_denoised_ome_zarr_is_one_again(tmp_path, tiny):
    from cryolithe.formats.volumes.ome_zarr import write_ome_zarr

    data = np.cumsum(np.random.default_rng(0).standard_normal((12, 40, 36)), axis=0).astype(np.float32)
    write_ome_zarr(tmp_path / "t.zarr", data, 8.0, "t")
    write_volume(tmp_path / "t_rec.mrc", Volume(data, 8.0), label="x")
    good("denoise", tmp_path / "t.zarr", "--device", "cpu")
    good("denoise", tmp_path / "t_rec.mrc", "--device", "cpu", "-o", tmp_path / "u.zarr")
    one, two = (read_volume(tmp_path / name) for name in ("t_samba.zarr", "u.zarr"))
    assert one.voxel_size_angstrom == 8
    np.testing.assert_array_equal(one.voxels, two.voxels)
    assert np.corrcoef(one.voxels.ravel(), data.ravel())[0, 1] > 0.6
    record = read_record_beside(tmp_path / "t_samba.zarr")
    assert changed_input(record, {"volume": tmp_path / "t.zarr"}) is None
    assert not list(tmp_path.glob(".*"))
    assert "exists; give --overwrite" in call("denoise", tmp_path / "t.zarr", "--device", "cpu").output
    good("denoise", tmp_path / "t.zarr", "--device", "cpu", "--overwrite")
