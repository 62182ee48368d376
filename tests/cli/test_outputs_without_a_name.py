"""Names of files to write that are no names: they are refused in a line, whatever the command is."""

from __future__ import annotations

import numpy as np
import pytest
from command import call, refusal_of
from plain_mrc import new_mrc
from tiny_series import run, write_series


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_series(tmp_path)
    with new_mrc(tmp_path / "v.mrc", np.zeros((8, 16, 16), np.float32)) as file:
        file.set_volume()
    return tmp_path


@pytest.mark.parametrize("output", [".", "./", "..", "/", "x/..", "//"])
@pytest.mark.parametrize(
    "words",
    [
        ("reconstruct", "ts.mrc", "ts.tlt", "--method", "fbp"),
        ("denoise", "v.mrc"),
        ("denoise", "v.mrc", "--method", "n2n"),
        ("denoise", "--images", "ts.mrc"),
    ],
    ids=" ".join,
)
def test_a_folder_is_no_name_for_a_file(words, output, folder):
    said = refusal_of(call(*words, "-o", output))
    assert "is a folder; give the name of a file with -o" in said


def test_a_list_that_names_a_folder_for_a_volume(folder):
    (folder / "list.csv").write_text("tilts,angles,output\nts.mrc,ts.tlt,.\n")
    assert "is a folder; give the name of a file" in refusal_of(run("list.csv", "--method", "fbp"))
