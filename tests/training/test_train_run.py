"""Whole runs: resumed, interrupted, distributed, broken; through the real command where users meet it."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import math
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import safetensors.torch
import torch
import yaml
from command import call
from patience import PATIENCE_S, wait_until
from test_pairs import flip
from test_train_data import TINY, tiny_pair
from test_training import small_config
from two_ranks import FIRST, join_other, run_both, scaler

from cryolithe.cli.train import FINETUNE
from cryolithe.errors import CryoLitheError, ModelError, OutputError, SettingsError
from cryolithe.formats.pairs import Pair, write_pair
from cryolithe.network import RowSetConfig, build_network
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.network.config import config_to_dict
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks
from cryolithe.training import loop
from cryolithe.training.config import TrainConfig, read_train_config
from cryolithe.training.dataset import simulate_training_set
from cryolithe.training.loop import learning_rate_factor, new_state, train
from cryolithe.training.sections import DataSettings, LossSettings, ValidationSettings
from cryolithe.training.session import Session, run_session
from cryolithe.training.sources import FixedSource
from cryolithe.training.state import load_state, save_model, save_state
from cryolithe.training.validation import validation_set

torch.set_num_threads(1)
HERE = Place(torch.device("cpu"))
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL = ValidationSettings(every=4, shape=(16, 20, 20), snr_db=(0.0,))
NETWORK = small_config().network


def source_of(config):
    return FixedSource(simulate_training_set(config, ()))


def session(config, output, **more):
    return Session(config, source_of(config), HERE, output, validation_set(config, output.parent), **more)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def command(*words):
    return call("train", *words, "--precision", "fp32", "--device", "cpu")


def write_config(path, config):
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path):
    """Weights, averages, moments, best loss and tables are equal, bit by bit."""
    config = small_config(steps=12, validation=SMALL, save_every=100)
    run_session(session(config, tmp_path / "whole.safetensors"))

    def stop(progress):
        if progress.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    _, interrupted = run_session(session(config, tmp_path / "parts.safetensors", on_step=stop))
    assert interrupted
    assert not (tmp_path / "parts.safetensors").exists()
    state, _ = run_session(session(config, tmp_path / "parts.safetensors", resume=True))
    assert state.step == 12
    a, b = (safetensors.torch.load_file(tmp_path / f"{n}.run" / "state.safetensors") for n in ("whole", "parts"))
    assert same(a, b)
    for name in ("best", "last"):
        one, two = (load_model(str(tmp_path / f"{n}.run" / f"{name}.safetensors")) for n in ("whole", "parts"))
        assert same(one.network.state_dict(), two.network.state_dict())
    tables = [(tmp_path / f"{n}.run" / "validation.csv").read_text() for n in ("whole", "parts")]
    assert tables[0] == tables[1]
    assert (tmp_path / "parts.run" / "summary.png").stat().st_size > 10_000


def test_a_state_of_another_run_is_refused(tmp_path):
    config = small_config(steps=3)
    path = tmp_path / "state.safetensors"
    save_state(path, new_state(config, HERE), config)
    other = config.model_copy(update={"learning_rate": 1.0})
    with pytest.raises(SettingsError, match=r"'learning_rate' was 0.005, now 1.0"):
        load_state(path, new_state(other, HERE), other)
    wider = small_config(steps=3, network=NETWORK | {"channels": 8})
    with pytest.raises(ModelError, match=r"leaf '\S+' has shape .*, expected"):
        load_state(path, new_state(wider, HERE), config)
    for missing in ("config", "scaler"):
        whole = path.read_bytes()
        path.write_bytes(whole.replace(f'\\"{missing}\\"'.encode(), f'\\"{missing[::-1]}\\"'.encode()))
        assert path.read_bytes() != whole
        with pytest.raises(ModelError, match=f"its {missing} is missing"):
            load_state(path, new_state(config, HERE), config)
        path.write_bytes(whole)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="is corrupt"):
        load_state(path, new_state(config, HERE), config)
    with pytest.raises(ModelError, match="there is no saved state"):
        load_state(tmp_path / "none", new_state(config, HERE), config)


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path):
    config = small_config(steps=3)
    state = new_state(config, HERE)
    paths = tmp_path / "state.safetensors", tmp_path / "last.safetensors"
    save_state(paths[0], state, config)
    save_model(paths[1], state.averaged, {})
    before = [path.read_bytes() for path in paths]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # writes fail half-way, as on a full disk
    try:
        for path, save in ((paths[0], lambda: save_state(paths[0], state, config)),
                           (paths[1], lambda: save_model(paths[1], state.averaged, {}))):  # fmt: skip
            with pytest.raises(OutputError, match=f"cannot write .*{path.name}"):
                save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.read_bytes() for path in paths] == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.safetensors", "state.safetensors"]


def test_a_loss_that_is_not_finite_leaves_its_batch(tmp_path):
    config = small_config(steps=3, validation=ValidationSettings(every=0))
    (series,) = simulate_training_set(config, ())
    series.targets.fill_(math.nan)
    broken = Session(config, FixedSource([series]), HERE, tmp_path / "a.safetensors")
    with pytest.raises(CryoLitheError, match="the loss became nan at step 1"):
        run_session(broken)
    saved = safetensors.torch.load_file(tmp_path / "a.run" / "bad_batch_0.safetensors")
    assert {"0.rows", "0.columns", "0.angles_rad", "0.targets"} == set(saved)
    assert saved["0.targets"].isnan().all()


@pytest.mark.slow
def test_training_stops_early_and_when_time_is_up(tmp_path):
    patient = ValidationSettings(every=1, shape=(16, 20, 20), snr_db=(0.0,), patience=2)
    config = small_config(steps=50, learning_rate=1e-12, validation=patient, ema_decay=0.0)
    state, interrupted = run_session(session(config, tmp_path / "a.safetensors"))
    assert state.step < 50
    assert not interrupted
    ticks = iter(range(1000))
    config = small_config(steps=50)
    rates = []
    hooks = Hooks(lambda s, p: rates.append(p.learning_rate), limit_seconds=10.0, clock=lambda: float(next(ticks)))
    state = train(config, source_of(config), HERE, hooks)
    assert state.step == 10
    assert rates[-1] < 0.2 * max(rates)
    assert learning_rate_factor(30, config, 1.0) == 0


def test_the_shell_loss_trains(tmp_path):
    config = small_config(steps=4, loss=LossSettings(l2=1.0, fsc=0.5, cube=(6, 6, 6)))
    losses = []
    train(config, source_of(config), HERE, Hooks(lambda s, p: losses.append(p.loss)))
    assert np.isfinite(losses).all()


@pytest.mark.slow
def test_two_processes_do_the_steps_of_one_with_twice_the_runs(tmp_path):
    quick = {"steps": 5, "validation": ValidationSettings(every=0), "data": DataSettings(loader_threads=0), "series": 2}
    single = small_config(**quick, runs_per_step=2)
    wanted = train(single, source_of(single), HERE).averaged.state_dict()
    path = write_config(tmp_path / "half.yaml", small_config(**quick, runs_per_step=1))
    for code, errors in run_both("train", path, "-o", tmp_path / "two.safetensors"):
        assert code == 0, errors
    found = load_model(str(tmp_path / "two.safetensors"))
    assert found.card["processes"] == 2
    for name, tensor in found.network.state_dict().items():
        assert torch.allclose(tensor, wanted[name], atol=1e-5), name


@pytest.mark.parametrize("who", ["this", "other"])
def test_an_overflow_of_one_process_is_skipped_by_all(who, monkeypatch):
    """In float16 gradients are scaled; one that overflows must reach no weights, whichever process has it."""
    config = small_config(steps=4)
    state = new_state(config, FIRST)
    state.scaler = scaler()
    seen = {}

    def overflow(step, own):
        spoiled = own.clone()
        if step == 1:
            spoiled[7] = math.inf
        seen[step] = own
        return spoiled if who == "other" else own

    join_other(monkeypatch, overflow)
    if who == "this":
        gradient = loop._gradient

        def spoiled(state, *arguments):
            loss = gradient(state, *arguments)
            if state.step == 1:
                next(p for p in state.network.parameters() if p.grad is not None).grad.view(-1)[7] = math.inf
            return loss

        monkeypatch.setattr(loop, "_gradient", spoiled)
    weights, scales = [], []

    def note(state, progress):
        weights.append({name: tensor.clone() for name, tensor in state.network.state_dict().items()})
        scales.append(state.scaler.get_scale())

    train(config, source_of(config), FIRST, Hooks(note), state)
    assert scales == [1024.0, 512.0, 512.0, 512.0]
    assert same(weights[1], weights[0])
    assert not same(weights[2], weights[1])
    assert all(torch.isfinite(tensor).all() for tensor in weights[3].values())
    if who == "other":
        assert torch.isfinite(seen[1]).all()  # this process had nothing to skip by itself


def test_scaled_gradients_are_averaged_to_those_of_one_process(monkeypatch):
    """Two processes with the same gradient do what one does without scaling."""
    config = small_config(steps=3)
    alone = train(config, source_of(config), HERE)
    join_other(monkeypatch, lambda step, own: own)
    state = new_state(config, FIRST)
    state.scaler = scaler()
    monkeypatch.setattr(Place, "stream", (0, 1))
    together = train(config, source_of(config), FIRST, None, state)
    for name, tensor in together.network.state_dict().items():
        torch.testing.assert_close(tensor, alone.network.state_dict()[name], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("taken", ["state.safetensors", "config.yaml"])
def test_a_process_that_cannot_record_ends_all_of_them(tmp_path, taken):
    """Process 0 writes; where it cannot, at the start or after some steps, the others must not wait for it."""
    quick = {"steps": 10**6, "save_every": 2, "validation": ValidationSettings(every=0), "series": 2}
    path = write_config(tmp_path / "c.yaml", small_config(**quick, data=DataSettings(loader_threads=0)))
    (tmp_path / "a.run" / taken / "in the way").mkdir(parents=True)
    (first, said), (second, told) = run_both("train", path, "-o", tmp_path / "a.safetensors", "--overwrite")
    assert (first, second) == (2, 2), (said, told)
    assert "a.run" in said.splitlines()[-1]
    assert "process 0 could not go on" in told.splitlines()[-1]


def living(group):
    """Processes of a group that are not merely waiting to be reaped."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def wait_for_steps(folder, process):
    """Until a run has written the first line of its table."""
    table = folder / "train.csv"
    wait_until(lambda: table.exists() and len(table.read_text().splitlines()) > 1, lambda: process.poll() is None)


@pytest.mark.slow
@pytest.mark.parametrize("told", ["all", "second"])
def test_torchrun_that_is_stopped_goes_on_from_its_state(tmp_path, told):
    """Ctrl-C in a terminal reaches everyone, and torchrun passes it on; a queue may tell a single process."""
    few = {"validation": ValidationSettings(every=0), "series": 2, "data": DataSettings(loader_threads=0)}
    path = write_config(tmp_path / "long.yaml", small_config(steps=1_000_000, save_every=10**6, **few))
    output = tmp_path / "a.safetensors"
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
             "cryolithe", "train", str(path), "-o", str(output), "--precision", "fp32", "--device", "cpu"]  # fmt: skip
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True, env=settings, text=True)
    try:
        wait_for_steps(tmp_path / "a.run", process)
        if told == "all":
            os.killpg(process.pid, signal.SIGINT)
        else:
            ranks = [p for p in psutil.Process(process.pid).children() if p.environ().get("RANK") == "1"]
            assert len(ranks) == 1
            ranks[0].send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    told_step = re.search(r"State of step (\d+) saved; go on with --resume", errors)
    assert told_step, errors
    done = int(told_step[1])
    assert not output.exists()
    result = command(path, "-o", output, "--resume", "--train-minutes", "0.0001")
    assert result.exit_code == 0, result.output
    assert load_model(str(output)).card["steps"] > done


@pytest.mark.slow
def test_ctrl_c_saves_the_state_and_ends_only_this_run(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    data = DataSettings(recipes=({"path": "tiny.yaml"},), pool=1, replace_every=3, workers=1)
    endless = small_config(steps=1_000_000, data=data, validation=ValidationSettings(every=0), save_every=10**6)
    path = write_config(tmp_path / "long.yaml", endless)
    bystander = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    words = [sys.executable, "-m", "cryolithe", "train", str(path), "-o", str(tmp_path / "a.safetensors"),
             "--precision", "fp32", "--device", "cpu"]  # fmt: skip
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    try:
        wait_for_steps(tmp_path / "a.run", process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, errors.decode()
        assert b"go on with --resume" in errors
        assert (tmp_path / "a.run" / "state.safetensors").exists()
        assert bystander.poll() is None
        wait_until(lambda: not living(process.pid))
    finally:
        bystander.kill()
        bystander.wait()
        process.kill()


@pytest.mark.slow
def test_finetuning_on_pairs(tmp_path):
    start = tmp_path / "start.safetensors"
    config = small_config(1)
    save_network(start, build_network(config.network_config()), {})
    for name in "abc":
        write_pair(tmp_path / f"{name}.h5", tiny_pair(ord(name)))
    settings = tmp_path / "few.yaml"
    few = "steps: 30\nwarmup_steps: 1\ncolumns: 8\nvalidation: {every: 15}\nfewest_tilts: 4\nema_decay: 0.5\n"
    settings.write_text(few)
    result = command(settings, "--finetune", start, tmp_path, "-o", tmp_path / "mine.safetensors")
    assert result.exit_code == 0, result.output
    assert "step 0, c: SNR" in result.stderr  # the model before is judged like those after it
    rows = csv.DictReader((tmp_path / "mine.run" / "validation.csv").read_text().splitlines())
    errors = {int(row["step"]): float(row["loss"]) for row in rows}
    for step, error in errors.items():
        (told,) = re.findall(rf"step {step}, c: .*; error ([\d.]+)", result.stderr)
        assert float(told) == pytest.approx(error, abs=1.01e-4)  # each is rounded from the full value
    best = min(error for step, error in errors.items() if step)
    told = re.search(r"the error went from ([\d.]+) to ([\d.]+)", " ".join(result.stderr.split()))
    assert [float(error) for error in told.groups()] == pytest.approx([errors[0], best], abs=1.01e-4)
    assert "Note: on simulated specimens: " in result.stderr
    made = load_model(str(tmp_path / "mine.safetensors"))
    assert config_to_dict(made.network.config) == config_to_dict(config.network_config())
    recipe = made.card["recipe"]
    assert recipe["data"]["pairs"] == ["a.h5", "b.h5"]
    assert made.card["pairs_voxel_size_angstrom"] == [tiny_pair().voxel_size_angstrom]
    assert recipe["validation"]["pairs"] == ["c.h5"]
    assert str(tmp_path) not in str(recipe)
    assert (tmp_path / "mine.run" / "summary.png").exists()
    assert "differ in voxel size" not in result.stderr
    assert "trained on and validated" not in result.stderr
    told = (tmp_path / "mine.run" / "validation.csv").read_text()
    again = command(settings, "--finetune", start, tmp_path, "-o", tmp_path / "mine.safetensors", "--resume")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "mine.run" / "validation.csv").read_text() == told  # what is done is not done again
    settings.write_text(few.replace("every: 15", "every: 15, pairs: [b.h5]"))
    both = command(settings, "--finetune", start, tmp_path, "-o", tmp_path / "other.safetensors")
    assert "Warning: trained on and validated with: b.h5; validation then tells nothing of other series" in both.stderr


@pytest.mark.slow
def test_finetuning_writes_nothing_that_is_worse(tmp_path):
    for name in "ab":
        write_pair(tmp_path / f"{name}.h5", tiny_pair(ord(name)))
    settings = tmp_path / "spoils.yaml"
    spoils = "learning_rate: 0.5\nema_decay: 0.1\nsteps: 2\nwarmup_steps: 1\ncolumns: 8\nfewest_tilts: 4\n"
    settings.write_text(spoils)
    result = command(settings, "--finetune", "draft", tmp_path, "-o", tmp_path / "mine.safetensors")
    assert result.exit_code == 2
    assert "Error: no model is written, for none is better than draft: on the validation set" in result.stderr
    assert not (tmp_path / "mine.safetensors").exists()
    assert (tmp_path / "mine.run" / "last.safetensors").exists()
    one = command(settings, "--finetune", "draft", tmp_path / "a.h5", "-o", tmp_path / "one.safetensors")
    assert one.exit_code == 0
    assert "Note: no pair is held back, so that nothing tells whether the model becomes better" in one.stderr
    assert re.search(r"Warning: the model forgot [\d.]+ dB on simulated specimens", one.stderr)


def test_the_finetuning_configuration_is_the_default_of_finetune():
    assert read_train_config(CONFIGS / "finetune_pairs.yaml") == TrainConfig(**FINETUNE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("data: {recipes: [{path: none.yaml}]}", r"recipe .*none.yaml does not exist"),
        ("data: {recipes: [{pth: none.yaml}]}", r"'data.recipes.0.pth': .* \(did you mean 'path'\?\)"),
        ("data: {pairs: [none.h5]}", r"training pair .*none.h5 does not exist"),
        ("data: {pairs: [empty]}", r"folder .*empty holds no training pair"),
        ("data: {pairs: [text.h5]}", r"text.h5 is not an HDF5 file"),
        ("data: {pairs: [bad.h5]}", r"bad.h5: .*one angle for each image, got 12 for 13"),
        ("data: {pairs: [a.h5]}\nvalidation: {pairs: [a.h5]}", r"a.h5 is in the training set"),
        ("data: {plain_weight: 0}", "nothing to train on"),
        ("learning_rate: .inf", "'learning_rate': expected a finite number, got inf"),
        ("warmup_steps: true", "'warmup_steps': expected a number, got true"),
        ("network: {channels: 3}", "lacks its 'kind'; give RowSet or SliceSet"),
        ("loss: {l2: 0}", "all weights are 0"),
        ("loss: {fsc: 1, cube: [2, 9, 9]}", "needs 6 blocks or more"),
        ("loss: {fcs: 1}", r"'loss.fcs': .* \(did you mean 'fsc'\?\)"),
        ("augment: {flip_chance: 2}", "'augment.flip_chance': Input should be less than or equal to 1"),
        ("start: nowhere", "unknown model 'nowhere'"),
        ("start: default\nnetwork: {kind: RowSet, channels: 8}", "is of another architecture"),
    ],
)
def test_bad_input_is_one_line_before_the_first_step(tmp_path, text, line):
    import re

    import h5py

    (tmp_path / "empty").mkdir()
    (tmp_path / "text.h5").write_text("no")
    write_pair(tmp_path / "a.h5", tiny_pair())
    write_pair(tmp_path / "bad.h5", tiny_pair())
    with h5py.File(tmp_path / "bad.h5", "a") as file:
        angles = file["angles_deg"][:-1]
        del file["angles_deg"]
        file["angles_deg"] = angles
    path = tmp_path / "train.yaml"
    path.write_text("steps: 1\nseries: 1\n" + text)
    result = command(path, "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 2, result.output
    assert re.search(line, result.stderr.splitlines()[-1]), result.stderr
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.slow
def test_arguments_that_do_not_go_together(tmp_path):
    write_pair(tmp_path / "a.h5", tiny_pair())
    pair, out = tmp_path / "a.h5", tmp_path / "o.safetensors"
    debug = CONFIGS / "debug.yaml"
    for words, line in (
        ((pair,), "pairs go with --finetune"),
        ((), "give a configuration"),
        ((debug, debug), "give one configuration"),
        (("--finetune", "default"), "--finetune needs pairs"),
        ((debug, "--resume"), "there is no saved state"),
    ):
        result = command(*words, "-o", out)
        assert result.exit_code == 2, result.output
        assert line in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("key", ["start", "start_rows"])
def test_a_model_to_start_from_that_is_not_there_yet(tmp_path, key):
    folder = tmp_path / "configs"
    folder.mkdir()
    config = folder / "second.yaml"
    config.write_text(f"steps: 1\n{key}: ../runs/first.safetensors\n")
    result = command(config, "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: {config} starts from another model, '{key}: ../runs/first.safetensors' relative to its folder, but "
        f"{tmp_path / 'runs' / 'first.safetensors'} does not exist; train or download that model first, "
        f"or give '{key}' another one\n"
    )
    write_pair(tmp_path / "a.h5", tiny_pair())
    flag = command(config, tmp_path / "a.h5", "--finetune", "none.safetensors", "-o", tmp_path / "out.safetensors")
    assert flag.stderr == "Error: model file none.safetensors does not exist\n"


def test_a_pair_with_its_contrast_inverted_is_named(tmp_path):
    good = tiny_pair(noise=0.1)
    write_pair(tmp_path / "turned.h5", Pair(-good.images, good.truth, good.angles_deg, 10.0))
    path = tmp_path / "train.yaml"
    path.write_text("steps: 1\ndata: {pairs: [turned.h5]}\n")
    result = command(path, "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 2
    assert "turned.h5: images and target do not go together" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("memory_mb", [0, 100], ids=["on disk", "in memory"])
@pytest.mark.parametrize(("name", "chunk"), [("images", 2), ("truth", 0), ("even", 4)])
def test_a_damaged_pair_is_named_however_late_it_shows(tmp_path, name, chunk, memory_mb):
    path, start, settings = tmp_path / "bad.h5", tmp_path / "start.safetensors", tmp_path / "few.yaml"
    write_pair(path, tiny_pair())
    flip(path, name, chunk)
    save_network(start, build_network(small_config(1).network_config()), {})
    settings.write_text(f"steps: 1\nvalidation: {{every: 0}}\ndata: {{memory_mb: {memory_mb}}}\n")
    result = command(settings, "--finetune", start, path, "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 2, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"Error: {path}: '{name}' cannot be read (")
    assert line.endswith("; the file is damaged: copy it again, or make it anew")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.slow
def test_borders_of_pairs_that_stay_on_disk_are_told(tmp_path):
    pair = tiny_pair(shape=(16, 64, 64))
    images = np.array(pair.images, dtype=np.float32)
    images[:, :, :8] = images[:, :, -8:] = 0.0
    write_pair(tmp_path / "b.h5", dataclasses.replace(pair, images=images, extras={}))
    start = tmp_path / "start.safetensors"
    save_network(start, build_network(small_config(1).network_config()), {})
    for megabytes, times in ((0, 1), (100, 0)):
        (tmp_path / "few.yaml").write_text(f"steps: 1\nvalidation: {{every: 0}}\ndata: {{memory_mb: {megabytes}}}\n")
        words = (tmp_path / "few.yaml", "--finetune", start, tmp_path / "b.h5", "-o", tmp_path / f"{times}.safetensors")
        result = command(*words)
        assert result.exit_code == 0, result.output
        assert result.stderr.count("Warning: images of b.h5 have borders of one value") == times


def test_weights_of_another_architecture_do_not_start_a_run():
    with pytest.raises(ModelError, match="another architecture: 'channels' is 8"):
        new_state(small_config(), HERE, build_network(RowSetConfig(**{**_sizes(), "channels": 8})))


def _sizes():
    values = config_to_dict(small_config().network_config())
    from cryolithe.network import Head, InputWindow

    values.pop("kind")
    return values | {"input": InputWindow(**values["input"]), "head": Head(**values["head"])}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch looks at it while tracing
def test_a_compiled_network_takes_the_same_steps(monkeypatch):
    """Traced and called as torch.compile does it, but without its compiler, which takes long and may be missing."""
    config = small_config(steps=3)
    wanted = train(config, source_of(config), HERE).averaged.state_dict()
    asked = []

    def compile_without_compiler(network, **settings):
        asked.append(settings)
        return traced(network, **settings, backend="eager")

    traced = torch.compile
    monkeypatch.setattr(torch, "compile", compile_without_compiler)
    compiled = small_config(steps=3, compile=True)
    found = train(compiled, source_of(compiled), HERE).averaged.state_dict()
    assert len(asked) == 1
    for name, tensor in found.items():
        assert torch.allclose(tensor, wanted[name], atol=1e-6), name
