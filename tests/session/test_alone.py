"""Trainings: one run at a time in a folder, which replaces nothing that it is made of; through the real commands."""

from __future__ import annotations

import pytest
import safetensors.torch
import yaml
from command import call, ended
from test_adapt import command as adapt
from test_adapt import files, of_halves  # noqa: F401 (fixtures)
from test_n2n_command import _tiny, of, pair  # noqa: F401
from test_n2n_general import weights, written
from test_train_goes_on import finished, interrupted, project, train  # noqa: F401
from tiny_series import tree, write_model
from two_ranks import run_both

from cryolithe.work.locking import LOCK, FolderLock, HeldError

pytestmark = pytest.mark.slow
HELD = "another run is writing this output"
START = "the model that this training starts from, and this run would replace it; copy it to another place"


def refused_while_held(folder, run):
    """Whether a command is refused in a line while another run has its folder, and leaves everything as it was."""
    lock = FolderLock(folder)
    before = tree(folder.parent)
    for flags in ((), ("--resume",), ("--overwrite",)):
        said = ended(run(*flags), 2)
        assert HELD in said.splitlines()[-1]
    assert tree(folder.parent) == before
    lock.close()


def test_a_training_holds_its_folder_until_its_end(project, monkeypatch):  # noqa: F811
    words, folder = (project / "c.yaml", "-o", project / "a.safetensors"), project / "a.run"
    refused_while_held(folder, lambda *flags: train(*words, *flags))
    assert [path.name for path in folder.iterdir()] == [LOCK]  # as a run leaves it that is killed before its first step
    asked = []

    def looking(watcher):
        def on_step(progress):
            with pytest.raises(HeldError):
                FolderLock(folder)
            asked.append(progress.step)

        return on_step

    monkeypatch.setattr("cryolithe.cli.train._advancing", looking)
    finished(train(*words))
    assert asked
    assert not (folder / LOCK).exists()
    refused_while_held(folder, lambda *flags: train(*words, *flags))


def test_a_refused_training_leaves_no_folder(project):  # noqa: F811
    words = (project / "c.yaml", "-o", project / "new" / "a.safetensors")
    assert "there is no saved state" in train(*words, "--resume").stderr
    assert not (project / "new" / "a.run").exists()
    finished(train(*words))


def test_a_folder_may_be_a_link_to_another_disk(project, monkeypatch):  # noqa: F811
    words = (project / "c.yaml", "-o", project / "a.safetensors")
    (project / "elsewhere").mkdir()
    (project / "a.run").symlink_to("elsewhere")
    interrupted(monkeypatch, *words)
    assert "a.run exists; give --overwrite" in train(*words).stderr
    finished(train(*words, "--resume"))
    assert (project / "elsewhere" / "state.safetensors").is_file()
    refused_while_held(project / "elsewhere", lambda *flags: train(*words, *flags))


def test_all_processes_end_where_another_run_has_the_folder(project):  # noqa: F811
    lock = FolderLock(project / "a.run")
    (first, said), (second, told) = run_both("train", project / "c.yaml", "-o", project / "a.safetensors")
    assert (first, second) == (2, 2), (said, told)
    assert HELD in said.splitlines()[-1]
    assert "process 0 could not go on" in told.splitlines()[-1]
    lock.close()


@pytest.mark.parametrize("method", ["n2n", "samba"])
def test_a_denoiser_that_trains_holds_its_folder(tmp_path, pair, method):  # noqa: F811
    inputs = of(pair) if method == "n2n" else (pair[0], "--size", "small", "--train-minutes", "1e-6", "--crop", 64)
    words = ("denoise", "--method", method, *inputs, "-o", tmp_path / "x.mrc", "--device", "cpu")
    refused_while_held(tmp_path / "x.run", lambda *flags: call(*words, *flags))
    if method == "n2n":
        ended(call(*words, "--train-minutes", 60), 0)
        assert not (tmp_path / "x.run" / LOCK).exists()
        refused_while_held(tmp_path / "x.run", lambda *flags: call(*words, "--train-minutes", 60, *flags))
        # Weights that are there need no folder.
        lock = FolderLock(tmp_path / "x.run")
        ended(call(*words, "--model", tmp_path / "x.safetensors", "--overwrite"), 0)
        lock.close()


def test_a_general_denoiser_holds_its_folder(tmp_path):
    words = ("train", written(tmp_path), "-o", tmp_path / "g.safetensors", "--device", "cpu")
    refused_while_held(tmp_path / "g.run", lambda *flags: call(*words, *flags))


def test_an_adaptation_holds_its_folder_and_keeps_what_it_starts_from(tmp_path, files):  # noqa: F811
    output = tmp_path / "m.safetensors"
    write_model(tmp_path / "start.safetensors")
    refused_while_held(tmp_path / "m.run", lambda *flags: of_halves(files, output, *flags))
    (tmp_path / "m.run" / LOCK).unlink()
    for start in (tmp_path / "m.run" / "best.safetensors", output):
        write_model(start)
        even, odd, angles = files
        words = ("--even", even, "--odd", odd, angles, "-o", output, "--thickness", 20, "--model", start)
        before = tree(tmp_path)
        said = ended(adapt(*words, "--pixel-size", 10, "--overwrite"), 2)
        assert "is the model that this adaptation starts from, and this run would replace it" in said
        assert tree(tmp_path) == before


def test_a_training_keeps_what_it_is_made_of(project, tmp_path):  # noqa: F811
    output, folder = project / "a.safetensors", project / "a.run"
    finished(train(project / "c.yaml", "-o", output))
    few = project / "few.yaml"
    few.write_text("steps: 6\nwarmup_steps: 1\ncolumns: 8\nvalidation: {every: 3}\nfewest_tilts: 4\n")
    link = project / "link.safetensors"
    link.symlink_to(folder / "last.safetensors")
    pairs = (project / "pairs" / "a.h5", "-o", output, "--overwrite")
    before = tree(project)
    for start in (folder / "last.safetensors", output, link):
        refused = train(few, *pairs, "--finetune", start)
        assert refused.exit_code == 2
        assert f"{start} is {START}" in refused.stderr
    config = yaml.safe_load((project / "c.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"data": {**config["data"], "pairs": ["../pairs"]}}))
    before = tree(project)
    said = train(folder / "config.yaml", "-o", output, "--overwrite").stderr
    assert "config.yaml is the configuration of this training, and this run would replace it" in said
    assert tree(project) == before
    finished(train(folder / "config.yaml", "-o", output, "--resume"))
    (project / "kept.safetensors").write_bytes(output.read_bytes())
    assert "replace it" not in train(few, *pairs, "--finetune", project / "kept.safetensors").stderr


def test_a_general_denoiser_keeps_its_teacher(tmp_path):
    (tmp_path / "g.run").mkdir()
    weights(tmp_path / "g.run" / "last.safetensors")
    config = written(tmp_path, target="distilled", teacher="g.run/last.safetensors")
    words = ("train", config, "-o", tmp_path / "g.safetensors", "--device", "cpu")
    said = ended(call(*words), 2)
    assert "last.safetensors is the teacher of this training, and this run would replace it" in said
    assert (tmp_path / "g.run" / "last.safetensors").is_file()


def test_what_changes_no_step_is_free_to_change(project, monkeypatch):  # noqa: F811
    found = []
    for name, data in (("whole", {}), ("parts", {"workers": 1, "loader_threads": 2, "open_pairs": 3})):
        words = (project / "c.yaml", "-o", project / f"{name}.safetensors")
        if not data:
            finished(train(*words))
        else:
            interrupted(monkeypatch, *words)
            config = yaml.safe_load((project / "c.yaml").read_text())
            config["data"] |= data
            (project / "c.yaml").write_text(yaml.safe_dump(config))
            finished(train(*words, "--resume"))
        tensors = safetensors.torch.load_file(project / f"{name}.safetensors")
        found.append({key: tensor.numpy().tobytes() for key, tensor in tensors.items()})
    assert found[0] == found[1]
    config["data"]["memory_mb"] = 1.0  # pairs that are read from disk are learned from as they are stored
    (project / "c.yaml").write_text(yaml.safe_dump(config))
    said = train(*words, "--resume").stderr
    assert "with other settings: 'data.memory_mb' was 256.0, now 1.0; repeat" in said
