"""What is shipped to start from: found by name in a checkout and in a wheel, taken by name by every command."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from command import call, good

from cryolithe.cli.info import _yaml_facts
from cryolithe.curation.manifest import read_manifest
from cryolithe.denoise_training.config import is_general, read_general_config
from cryolithe.errors import SettingsError
from cryolithe.recipes import TAKEN, find_recipe, shipped, shipped_for
from cryolithe.settings import read_settings_file
from cryolithe.simulation import read_recipe
from cryolithe.training.config import check_files, read_train_config

ROOT = Path(__file__).resolve().parents[2]


def readers(one):
    if one.command == "train" and is_general(one.path):
        return read_general_config
    return {
        "train": read_train_config,
        "simulate": read_recipe,
        "reconstruct": read_settings_file,
        "pairs": read_manifest,
    }[one.command]


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_file_is_read_by_the_command_that_it_is_listed_for(name):
    one = shipped()[name]
    read = readers(one)(one.path)
    if one.command == "train" and not is_general(one.path):
        check_files(read, one.path.parent)
    assert one.text.startswith("# ")
    assert one.purpose.endswith(".")
    assert 20 < len(one.purpose) < 120


def test_all_of_the_folders_is_shipped_under_a_name_of_its_own():
    expected = [*ROOT.glob("configs/*.yaml"), *ROOT.glob("training_data/recipes/*.yaml")]
    expected += ROOT.glob("training_data/empiar_*.yaml")
    assert sorted(one.path for one in shipped().values()) == sorted(expected)


def test_the_list_tells_name_command_and_purpose_of_each():
    lines = call("recipes", "list").stdout.splitlines()
    assert len(lines) == len(shipped())
    for line, one in zip(lines, shipped().values(), strict=True):
        assert line.split()[:2] == [one.name, one.command]
        assert line.endswith(one.purpose)


def test_show_prints_the_file_and_copy_never_replaces_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = shipped()["cellular"].path.read_bytes()
    assert call("recipes", "show", "cellular").stdout_bytes == content
    good("recipes", "copy", "cellular")
    assert (tmp_path / "cellular.yaml").read_bytes() == content
    Path("mine.yaml").write_text("series: 2\n")
    for words in ((), ("-o", "mine.yaml"), ("-o", tmp_path)):
        again = call("recipes", "copy", "cellular", *words)
        assert again.exit_code == 2
        assert "exists and is never replaced" in again.stderr
    assert Path("mine.yaml").read_text() == "series: 2\n"
    assert call("recipes", "copy", "cellular", "-o", "cells.txt").exit_code == 2
    assert call("recipes", "copy", "cellular", "-o", "nowhere/cells.yaml").exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cellular.yaml", "mine.yaml"]


@pytest.mark.parametrize("name", sorted(shipped_for("train")))
def test_a_copy_anywhere_means_the_same(tmp_path, name):
    good("recipes", "copy", name, "-o", tmp_path)
    copied, one = tmp_path / f"{name}.yaml", shipped()[name]
    read = readers(one)(copied)
    assert read == readers(one)(one.path)
    if not is_general(copied):
        check_files(read, tmp_path)


def test_a_copy_tells_the_command_that_does_what_it_is_for(tmp_path):
    """As its own words above the settings do."""
    for name, one in shipped_for("train").items():
        told = call("recipes", "copy", name, "-o", tmp_path).output
        assert (f"cryolithe train {tmp_path / name}.yaml --finetune NAME PAIRS... -o" in told) is (
            "--finetune" in one.text
        )
    astray = call("simulate", "finetune_pairs", "-o", tmp_path / "out")
    assert "cryolithe train finetune_pairs --finetune NAME PAIRS... -o MODEL.safetensors" in astray.stderr
    alone = call("train", "finetune_pairs", "-o", tmp_path / "m.safetensors")
    assert alone.exit_code == 2
    assert "finetune_pairs goes on from a model: give --finetune NAME and pairs" in alone.stderr


@pytest.mark.parametrize("word", ["celular", "train_fast", "train_fast.yaml", "recipes/cellular.yaml", "a\nb"])
def test_what_is_no_recipe_is_refused_in_one_line(tmp_path, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    result = call("simulate", word, "-o", "out")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert not Path("out").exists()
    told = {
        "celular": "did you mean 'cellular'",
        "train_fast": "cryolithe train train_fast",
        "recipes/cellular.yaml": "is called cellular",
    }
    assert told.get(word, "does not exist") in result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "train_fst", "-o", "m.safetensors"), "did you mean 'train_fast'"),
        (("train", "quick", "-o", "m.safetensors"), "cryolithe simulate quick"),
        (("reconstruct", "t.mrc", "t.tlt", "--config", "reconstruct_cyro"), "did you mean 'reconstruct_cryo'"),
        (("pairs", "check", "empiar_11380"), "did you mean 'empiar_11830'"),
        (("pairs", "build", "empiar_11830", "-o", "out"), "say with --data"),
        (("recipes", "show", "quik"), "did you mean 'quick'"),
    ],
)
def test_the_nearest_name_is_told_by_every_command(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    result = call(*words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_of_the_user_wins_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quick").mkdir()
    assert find_recipe("quick", "simulate") == shipped()["quick"].path
    Path("lamella").write_text("series: 3\n")
    assert find_recipe("lamella", "simulate") == Path("lamella")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "cellular.yaml").write_text("series: 1\n")
    assert find_recipe("cellular.yaml", "simulate", tmp_path / "sub") == tmp_path / "sub" / "cellular.yaml"
    with pytest.raises(SettingsError, match="is called cellular"):
        find_recipe("cellular.yaml", "simulate", tmp_path)


def test_a_configuration_may_name_shipped_recipes_and_its_own(tmp_path):
    (tmp_path / "own.yaml").write_text(shipped()["quick"].text)
    config = tmp_path / "train.yaml"
    config.write_text("data: {recipes: [{path: quick}, {path: own.yaml}]}\n")
    check_files(read_train_config(config), tmp_path)
    config.write_text("data: {recipes: [{path: qiuck}]}\n")
    with pytest.raises(SettingsError, match="did you mean 'quick'"):
        check_files(read_train_config(config), tmp_path)


@pytest.mark.slow
def test_a_series_is_simulated_by_the_name_of_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good("simulate", "quick", "-o", "quick", "--seed", 3)
    resolved = yaml.safe_load(Path("quick/recipe.resolved.yaml").read_text())
    assert resolved["recipe"]["cell"]["shape"] == [32, 64, 64]
    good("simulate", "quick", "-o", "quick", "--seed", 3, "--resume")


def test_info_knows_what_kind_of_file_each_is():
    kinds = {one.command: {_yaml_facts(one.path)[0].value} for one in shipped().values()}
    assert set(kinds) == set(TAKEN)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="builds a wheel by hatchling")
def test_the_wheel_holds_them_and_finds_them(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from cryolithe.recipes import shipped; import cryolithe\n"
        "print(cryolithe.__file__)\n"
        "for n, o in shipped().items(): print(n, o.command, o.path)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert told[0].startswith(str(tmp_path / "site"))
    found = {name: (command, Path(path)) for name, command, path in (line.split() for line in told[1:])}
    assert {name: one.command for name, one in shipped().items()} == {name: one[0] for name, one in found.items()}
    for name, (_, path) in found.items():
        assert path.is_relative_to(tmp_path / "site")
        assert path.read_bytes() == shipped()[name].path.read_bytes()
