"""Disks without room, and limits on the size of files: what is told can be done."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from command import call
from plain_mrc import new_mrc
from tiny_series import write_series

from cryolithe.errors import OutputError
from cryolithe.formats.stacks.mrc_writer import VolumeWriter


@contextmanager
def files_of_at_most(size_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def full(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=10**9, used=10**9 - 5000, free=5000))


def last_line(*words):
    result = call(*words)
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1]


def test_a_limit_on_files_is_told_as_one(tmp_path):
    with files_of_at_most(4000), pytest.raises(OutputError) as error:
        VolumeWriter.create(tmp_path / "v.mrc", (8, 16, 16), 10.0, np.float32)
    assert "it needs 9216 bytes; raise the limit on the size of a file (ulimit -f)" in str(error.value)
    assert "free" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_reconstruction_tells_a_limit_on_files_and_a_full_disk(tmp_path, full):
    stack, angles = write_series(tmp_path)
    words = ("reconstruct", stack, angles, "--method", "fbp", "-o", tmp_path / "v.mrc")
    told = last_line(*words)
    assert "make room, or choose another folder with -o, or write less (--dtype float16)" in told
    assert "--dtype" not in last_line(*words, "--dtype", "float16")


@pytest.mark.slow
def test_images_that_are_denoised_have_no_other_type_to_write(tmp_path, full):
    stack = tmp_path / "ts.mrc"
    with new_mrc(stack) as file:
        file.set_data(np.random.default_rng(0).standard_normal((3, 64, 64)).astype(np.float32))
        file.set_image_stack()
    told = last_line("denoise", "--images", stack, "-o", tmp_path / "d.mrc")
    assert "make room, or choose another folder with -o" in told
    assert "float16" not in told


def test_a_training_looks_for_room_before_it_begins(tmp_path, full):
    config = tmp_path / "c.yaml"
    config.write_text("steps: 1\nseries: 1\n")
    told = last_line("train", config, "-o", tmp_path / "m.safetensors")
    assert "has 0.0 MB free, the state and the models of this training need" in told
    assert "make room or choose another -o" in told
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.slow
def test_an_evaluation_leaves_all_or_nothing(tmp_path):
    volume = tmp_path / "v.mrc"
    with new_mrc(volume) as file:
        file.set_data(np.random.default_rng(0).standard_normal((16, 24, 24)).astype(np.float32))
        file.voxel_size = 10.0
        file.set_volume()
    with files_of_at_most(50_000):  # the report is larger, the numbers are not
        assert "evaluation.html" in last_line("evaluate", volume, "-o", tmp_path / "r")
    assert not (tmp_path / "r").exists() or not list((tmp_path / "r").iterdir())
