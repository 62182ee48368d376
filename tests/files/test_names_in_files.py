"""Names that stand in a file and that no system takes are told in one line, wherever they become paths."""

from __future__ import annotations

import json

import pytest
from command import call
from projects import make_project, write_imod

from cryolithe.cli.info import describe
from cryolithe.errors import CryoLitheError
from cryolithe.files.names import exists, is_file, is_folder
from cryolithe.training.config import check_files, read_train_config
from cryolithe.training.sources import find_pairs

# The system's limits for one part and for a whole path, and what has no place in a path at all.
NAMES = {
    "long part": "é" * 200 + ".h5",
    "long": "/".join(["folder"] * 1000) + ".h5",
    "null": "a\0b.h5",
    "surrogate": "a\ud800b.h5",
}
WRITABLE = [NAMES["long part"], NAMES["long"]]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_what_cannot_be_a_name_is_none_of_anything(tmp_path, name):
    assert not exists(tmp_path / name)
    assert not is_file(tmp_path / name)
    assert not is_folder(tmp_path / name)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("text", ["data: {{pairs: [{}]}}", "data: {{recipes: [{{path: {}}}]}}"])
def test_a_training_names_what_it_lacks(tmp_path, name, text):
    path = tmp_path / "train.yaml"
    path.write_text(text.format(json.dumps(name)), encoding="utf-8")
    with pytest.raises(CryoLitheError):
        check_files(read_train_config(path), tmp_path)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_pairs_that_are_nowhere(tmp_path, name):
    with pytest.raises(CryoLitheError, match="does not exist; give an HDF5 file"):
        find_pairs([name], tmp_path)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_info_says_that_a_volume_is_not_beside_its_record(tmp_path, name):
    path = tmp_path / "v.json"
    path.write_text(json.dumps({"volume": {"path": name}}), encoding="utf-8")
    record = next(fact for fact in describe(path) if fact.name == "record")
    assert record.value.endswith("which is not beside it")


@pytest.mark.parametrize("name", WRITABLE, ids=["long part", "long"])
@pytest.mark.parametrize("key", ["TILTFILE", "XTILTFILE", "LOCALFILE"])
def test_files_that_tilt_com_names(tmp_path, name, key):
    project = make_project(tmp_path)
    write_imod(project, tilt_lines=(f"{key} {name}",))
    given = [str(project.stack), "--newst-com", str(tmp_path / "newst.com"), "--tilt-com", str(tmp_path / "tilt.com")]
    options = ["--method", "fbp", "--dry-run", "-o", str(tmp_path / "v.mrc")]
    result = call("reconstruct", *given, *options)
    if key == "LOCALFILE":  # without it the alignment is less good, but whole
        assert result.exit_code == 0
        assert "are not applied" in result.output
        return
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("views", ["0", "1,-3-4", "-2"])
@pytest.mark.parametrize("key", ["EXCLUDELIST", "EXCLUDELIST2", "INCLUDE"])
def test_views_are_counted_from_one(tmp_path, key, views):
    path = tmp_path / "tilt.com"
    path.write_text(f"$tilt -StandardInput\nTHICKNESS 20\n{key} {views}\n", encoding="utf-8")
    result = call("info", path)
    assert result.exit_code == 2
    assert "expected views from 1 in" in result.stderr
