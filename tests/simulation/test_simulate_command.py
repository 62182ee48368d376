"""`cryolithe simulate` through the real command."""

import subprocess
import sys
from pathlib import Path

import mdocfile
import mrcfile
import numpy as np
import pytest
import starfile
import yaml
from command import call, good

from cryolithe.formats import read_tilt_series, read_volume, write_volume
from cryolithe.formats.pairs import open_pair
from cryolithe.simulation import campaign
from cryolithe.simulation.library import load_library, recipe_library
from cryolithe.simulation.recipe import read_recipe
from cryolithe.volume import Volume

RECIPES = Path(__file__).resolve().parents[2] / "training_data" / "recipes"
QUICK = RECIPES / "quick.yaml"


def run(*arguments):
    return call("simulate", *arguments)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "out"
    good("simulate", QUICK, "-o", folder)
    return folder


@pytest.mark.slow
def test_every_file_is_there_and_agrees(quick):
    names = {p.name for p in quick.iterdir()}
    endings = (".mrc", "_EVN.mrc", "_ODD.mrc", ".tlt", ".mdoc", "_truth.mrc", "_labels.mrc", "_particles.star", ".png")
    assert names == {"recipe.resolved.yaml", "TS_001.h5"} | {f"TS_001{e}" for e in endings}
    series = read_tilt_series(quick / "TS_001.mrc", quick / "TS_001.tlt")
    truth, labels = read_volume(quick / "TS_001_truth.mrc"), read_volume(quick / "TS_001_labels.mrc")
    assert series.pixel_size_angstrom == truth.voxel_size_angstrom == 10.0
    assert truth.voxels.shape == labels.voxels.shape == (32, 64, 64)
    table = mdocfile.read(quick / "TS_001.mdoc")
    np.testing.assert_allclose(table["TiltAngle"], series.geometry.angles_deg, atol=1e-3)
    assert table["ExposureDose"].sum() == pytest.approx(100, rel=1e-3)
    for name in ("TS_001.mrc", "TS_001_truth.mrc"):
        assert mrcfile.validate(str(quick / name))
    halves = [read_tilt_series(quick / f"TS_001_{h}.mrc", quick / "TS_001.tlt").images for h in ("EVN", "ODD")]
    np.testing.assert_allclose((halves[0] + halves[1]) / 2, series.images, atol=0.05 * series.images.std())


@pytest.mark.slow
def test_the_training_file_holds_the_same(quick):
    with open_pair(quick / "TS_001.h5") as pair:
        stack = read_tilt_series(quick / "TS_001.mrc", quick / "TS_001.tlt")
        np.testing.assert_array_equal(pair.images[()], stack.images)
        np.testing.assert_array_equal(pair.truth[()], read_volume(quick / "TS_001_truth.mrc").voxels)
        assert set(pair.extras) == {"even", "odd", "clean", "labels"}
        assert pair.origin["drawn"]["voxel_size_angstrom"] == 10.0


def test_truth_is_dark_where_labels_are(quick):
    truth = np.asarray(read_volume(quick / "TS_001_truth.mrc").voxels)
    labels = np.asarray(read_volume(quick / "TS_001_labels.mrc").voxels)
    assert (labels > 0).any()
    assert truth[labels > 0].mean() < truth[labels == 0].mean() - 0.3


def test_particles_lie_where_labels_say(quick):
    table = starfile.read(quick / "TS_001_particles.star", always_dict=True)["particles"]
    labels = np.asarray(read_volume(quick / "TS_001_labels.mrc").voxels)
    assert len(table) > 0
    centred = table[[f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX"]].to_numpy() / 10.0
    assert (np.abs(centred) <= np.array(labels.shape) / 2 + 40).all()
    for place, number in zip(centred, table["rlnClassNumber"], strict=True):
        z, y, x = (np.clip(place + np.array(labels.shape) // 2, 0, np.array(labels.shape) - 1)).round().astype(int)
        near = labels[max(0, z - 3) : z + 4, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
        assert number in near  # a body may be hollow


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(quick, tmp_path):
    good("simulate", QUICK, "-o", tmp_path / "again")
    first, again = files(quick), files(tmp_path / "again")
    assert first.keys() == again.keys()
    for name in first.keys() - {"TS_001.png"}:
        assert first[name] == again[name], name
    good("simulate", QUICK, "-o", tmp_path / "other", "--seed", 5)
    assert files(tmp_path / "other")["TS_001.mrc"] != first["TS_001.mrc"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TS_001.mrc", "TS_001.mdoc", "TS_001.h5"])
def test_files_of_someone_else_are_never_removed(name, tmp_path):
    out = tmp_path / "raw data"
    out.mkdir()
    for own in (name, "TS_001_notes.txt"):
        (out / own).write_text("mine")
    refused = run(QUICK, "-o", out)
    assert refused.exit_code == 2
    assert f"{name} exists and was not simulated by this recipe" in refused.stderr
    assert files(out) == {name: b"mine", "TS_001_notes.txt": b"mine"}


@pytest.mark.slow
def test_other_files_in_the_folder_stay_when_a_series_fails(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "TS_001_notes.txt").write_text("mine")

    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(campaign, "write_pair", fail)
    assert run(QUICK, "-o", out).exit_code == 130
    assert set(files(out)) == {"TS_001_notes.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("content", ["a: [b", "[1]", "", "\x00"])
def test_a_damaged_record_is_one_line(content, tmp_path):
    (tmp_path / "recipe.resolved.yaml").write_text(content)
    result = run(QUICK, "-o", tmp_path, "--resume")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {tmp_path / 'recipe.resolved.yaml'}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_an_interrupted_run_keeps_finished_series_and_goes_on(tmp_path, monkeypatch):
    recipe = tmp_path / "two.yaml"
    recipe.write_text(QUICK.read_text().replace("series: 1", "series: 2"))
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        write = campaign.write_pair

        def interrupt(path, pair):
            if "TS_002" in str(path):
                raise KeyboardInterrupt
            write(path, pair)

        patch.setattr(campaign, "write_pair", interrupt)
        assert run(recipe, "-o", out).exit_code == 130
    before = files(out)
    assert not any("TS_002" in name for name in before)
    assert run(recipe, "-o", out).exit_code == 2
    other = tmp_path / "other.yaml"
    other.write_text(recipe.read_text().replace("0.05, 0.1]", "0.05, 0.2]"))
    refused = run(other, "-o", out, "--resume")
    assert refused.exit_code == 2
    assert "another recipe" in refused.stderr
    result = good("simulate", recipe, "-o", out, "--resume")
    assert "TS_001: already done" in result.stdout
    after = files(out)
    assert all(after[name] == content for name, content in before.items() if name.startswith("TS_001"))
    good("simulate", recipe, "-o", tmp_path / "whole")
    whole = files(tmp_path / "whole")
    assert whole["TS_002.h5"] == after["TS_002.h5"]
    assert yaml.safe_load(whole["recipe.resolved.yaml"]) == yaml.safe_load(after["recipe.resolved.yaml"])


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.name)
def test_recipes_that_are_shipped_are_valid_and_run_small(path, tmp_path):
    recipe = read_recipe(path)
    small = recipe.cell.__class__(**{**vars(recipe.cell), "shape": (24, 48, 48), "margin": 0.1})
    made = campaign.simulate_series(recipe.model_copy(update={"cell": small}), (), 1)
    assert np.isfinite(made.series.images).all()
    assert made.series.images.shape[1:] == (48, 48)
    assert made.truth.shape == (24, 48, 48)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("serie: 2", "unknown key 'serie' (did you mean 'series'?)"),
        ("cell: {crowdin: [0, 1]}", "unknown key 'cell.crowdin' (did you mean 'crowding'?)"),
        ("imaging: {scheme: {step: [3, 3]}}", "unknown key 'imaging.scheme.step' (did you mean 'step_deg'?)"),
        ("cell: {voxel_size_angstrom: [0, 0]}", "voxel size"),
        ("cell: {crowding: [0.3, 0.1]}", "(least, most)"),
        ("cell: {shape: [4, 64, 64]}", "at least 8 voxels"),
        ("series: 0", "'series'"),
        ("- a\n- b", "must hold 'key: value' lines"),
        ("a: [", "not valid YAML"),
        ("molecules: [nowhere.h5]", "does not exist"),
    ],
)
def test_bad_recipes_get_one_line_and_leave_nothing(text, line, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    result = run(tmp_path / "r.yaml", "-o", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert line in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "line"),
    [
        ("{reach_deg: [30, 30], pretilt_deg: [70, 70]}", "do not lie within ±90°"),
        ("{step_deg: [90, 90]}", "steps of 90° make 1 tilt between -60° and 60°, expected 2 or more"),
    ],
)
def test_a_recipe_that_cannot_be_drawn_does_not_block_its_folder(scheme, line, tmp_path):
    recipe, out = tmp_path / "r.yaml", tmp_path / "out"
    plain = {**yaml.safe_load(QUICK.read_text()), "imaging": {"noise": "white", "snr_db": [0, 0]}}
    recipe.write_text(yaml.safe_dump({**plain, "imaging": {"scheme": yaml.safe_load(scheme)}}))
    result = run(recipe, "-o", out)
    assert result.exit_code == 2
    assert line in result.stderr.splitlines()[-1]
    assert not files(out)
    recipe.write_text(yaml.safe_dump(plain))
    good("simulate", recipe, "-o", out)


@pytest.mark.slow
def test_a_record_of_nothing_is_replaced_by_resume(quick, tmp_path):
    """A run that was killed before its first file leaves one; another recipe may have the folder."""
    record = "recipe.resolved.yaml"
    values = yaml.safe_load((quick / record).read_text())
    killed = {**values, "recipe": {**values["recipe"], "seed": 9}, "drawn": {}}
    (tmp_path / record).write_text(yaml.safe_dump(killed))
    assert run(QUICK, "-o", tmp_path).exit_code == 2  # it may be alive
    good("simulate", QUICK, "-o", tmp_path, "--resume")
    assert files(tmp_path)[record] == files(quick)[record]
    assert files(tmp_path)["TS_001.h5"] == files(quick)["TS_001.h5"]
    (tmp_path / record).write_text(yaml.safe_dump(killed))
    assert run(QUICK, "-o", tmp_path, "--resume").exit_code == 2  # series are there


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--snr", -3), "--snr is for the plain series without RECIPE"),
        (("--snr", -5), "--snr is for the plain series without RECIPE"),
        (("--overwrite",), "--overwrite is for the plain series without RECIPE"),
        (("--style-steps", 3), "--style-steps is for learning a style, and there is no --style"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(words, line, tmp_path):
    result = run(QUICK, *words, "-o", tmp_path / "out")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
    assert line in result.stderr
    assert "leave it out" in result.stderr or "give another -o" in result.stderr
    assert not (tmp_path / "out").exists()


def test_structure_files_that_cannot_be_read(tmp_path):
    for name, content in (("empty.pdb", ""), ("words.cif", "hello")):
        (tmp_path / name).write_text(content)
        result = run(QUICK, "-o", tmp_path / "out", "--molecules", tmp_path / name)
        assert result.exit_code == 2, result.output
        assert name in result.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_impossible_crowding_stops_with_what_fitted(tmp_path):
    (tmp_path / "r.yaml").write_text(QUICK.read_text().replace("[0.05, 0.1]", "[0.95, 0.95]"))
    result = good("simulate", tmp_path / "r.yaml", "-o", tmp_path / "out")
    assert "of 95% wanted" in result.stdout


@pytest.mark.slow
def test_plain_series_without_a_recipe(tmp_path):
    good("simulate", "-o", tmp_path, "--snr", 0)
    assert read_tilt_series(tmp_path / "tilts.mrc", tmp_path / "tilts.tlt").images.shape == (41, 128, 128)
    again = run("-o", tmp_path)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are a matter of POSIX")
@pytest.mark.parametrize("kilobytes", [1, 150, 1200, 2000])  # the record, the stack, the beginning and end of the HDF5
def test_a_full_disk_is_one_line_and_leaves_no_half_series(kilobytes, tmp_path):
    """A limit on the size of files stops a write like a full disk does, and HDF5 used to crash on it."""
    import resource

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024,) * 2)

    words = [sys.executable, "-m", "cryolithe", "simulate", str(QUICK), "-o", str(tmp_path / "out")]
    failed = subprocess.run(words, preexec_fn=limited, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "cannot be written" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stderr.count("Error: ") == 1
    assert {p.name for p in (tmp_path / "out").iterdir()} <= {"recipe.resolved.yaml"}
    if kilobytes == 2000:
        good("simulate", QUICK, "-o", tmp_path / "out", "--resume")


@pytest.mark.slow
def test_a_field_smaller_than_a_molecule_is_refused(tmp_path):
    """A rod of 400 Å does not fit into 32 x 64 x 64 voxels of 10 Å along z, but does along y; one of 700 Å does not."""
    for length, code in ((40, 0), (70, 2)):
        rod = np.zeros((length + 4, 9, 9), dtype=np.float32)
        rod[2:-2, 3:6, 3:6] = 1
        write_volume(tmp_path / f"rod{length}.mrc", Volume(rod, 10.0), label="rod")
        result = run(QUICK, "-o", tmp_path / f"out{length}", "--molecules", tmp_path / f"rod{length}.mrc")
        assert result.exit_code == code, result.output
    assert "is smaller than molecule 'rod70' (30 x 30 x 700 Å)" in result.stderr
    assert not (tmp_path / "out70").exists()


@pytest.mark.slow
def test_molecules_of_the_program_are_placed_where_none_are_given_or_asked_for(quick, tmp_path):
    names = set(starfile.read(quick / "TS_001_particles.star", always_dict=True)["particles"]["cryolitheMolecule"])
    ours = {molecule.name for molecule in load_library((Path("procedural_1"),))}
    assert len(names & ours) >= 2
    assert not any(name.startswith("procedural_") for name in names)
    recipe = read_recipe(QUICK)
    assert len(recipe_library(recipe, ())) == 16
    assert len(recipe_library(recipe.model_copy(update={"procedural": 3}), ())) == 3
    write_volume(tmp_path / "one.mrc", Volume(np.ones((5, 5, 5), dtype=np.float32), 10.0), label="one")
    assert [m.name for m in recipe_library(recipe, (tmp_path / "one.mrc",))] == ["one"]


@pytest.mark.slow
def test_a_campaign_may_grow_but_not_change_its_molecules(tmp_path):
    one = np.zeros((7, 7, 7), dtype=np.float32)
    one[2:5, 2:5, 2:5] = 1
    (tmp_path / "r.yaml").write_text(QUICK.read_text())
    words = (tmp_path / "r.yaml", "-o", tmp_path / "out", "--molecules", tmp_path / "m.mrc")
    write_volume(tmp_path / "m.mrc", Volume(one, 10.0), label="one")
    good("simulate", *words)
    (tmp_path / "r.yaml").write_text(QUICK.read_text().replace("series: 1", "series: 2"))
    grown = good("simulate", *words, "--resume")
    assert "TS_001: already done" in grown.stdout
    assert (tmp_path / "out" / "TS_002.h5").exists()
    one[3, 3, 3] = 0
    write_volume(tmp_path / "m.mrc", Volume(one, 10.0), label="one", overwrite=True)
    changed = run(*words, "--resume")
    assert changed.exit_code == 2
    assert "holds series of another library" in changed.stderr
