"""Runs that were killed or interrupted, and the runs that go on with them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command import refusal_of
from patience import PATIENCE_S
from tiny_series import SHAPE, environment, made, noise, run, voxels, write_model, write_series

from cryolithe.errors import OutputError, ResourceError
from cryolithe.formats import VolumeWriter
from cryolithe.reconstruction import run as running
from cryolithe.reconstruction.run import _first_difference
from cryolithe.work.folder import WorkFolder

SLAB = 8
STARTS = list(range(0, SHAPE[0], SLAB))

# Runs the command with low slabs and stops for good at one moment of the run, where it tells so.
DRIVER = f"""
import signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have it ignored
from cryolithe.cli import main
from cryolithe.errors import OutputError, ResourceError
from cryolithe.formats import VolumeWriter
from cryolithe.reconstruction import run
from cryolithe.reconstruction.slabwise import plan
from cryolithe.work.folder import WorkFolder


def wait():
    print("waiting", flush=True)
    signal.pause()


def before(owner, name, call=0):
    function, calls = getattr(owner, name), []

    def stop(*arguments, **named):
        calls.append(name)
        if len(calls) > call:
            wait()
        return function(*arguments, **named)

    setattr(owner, name, stop)


def half_a_slab():
    write_rows = VolumeWriter.write_rows

    def stop(self, y0, slab):
        write_rows(self, y0, slab[:, :3] if y0 == {STARTS[3]} else slab)
        if y0 == {STARTS[3]}:
            wait()

    VolumeWriter.write_rows = stop


plan.MOST_SLAB_ROWS = {SLAB}
{{
    "before the journal": lambda: before(WorkFolder, "begin"),
    "before the images": lambda: before(run, "prepare_run"),
    "after two slabs": lambda: before(VolumeWriter, "write_rows", 2),
    "in the fourth slab": half_a_slab,
    "before the last header": lambda: before(VolumeWriter, "finish"),
}}[sys.argv.pop(1)]()
main(prog_name="cryolithe")
"""
DONE_BEFORE = {
    "before the journal": None,
    "before the images": 0,
    "after two slabs": 2,
    "in the fourth slab": 3,
    "before the last header": 5,
}


@dataclass(frozen=True)
class Work:
    """A series, the flags of its run, and the volume of a run that nothing disturbed."""

    folder: Path
    stack: Path
    angles: Path
    model: Path
    expected: bytes

    @property
    def output(self):
        return self.folder / "v.mrc"

    @property
    def partial(self):
        return self.folder / "v.mrc.partial"

    def arguments(self, *flags):
        model = () if "--method" in flags else ("--model", self.model, "--precision", "fp32")
        return [self.stack, self.angles, "-o", self.output, "--thickness", 12, *model, *flags]

    def journal(self):
        """The journal's lines after the first."""
        return [json.loads(line) for line in (self.partial / "journal.jsonl").read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    stack, angles = write_series(folder)
    model = write_model(folder / "tiny.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS", SLAB)
        work = Work(folder, stack, angles, model, b"")
        made(*work.arguments())
    return folder


@pytest.fixture
def work(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr("cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS", SLAB)
    names = ("ts.mrc", "ts.tlt", "tiny.safetensors")
    stack, angles, model = (Path(shutil.copy(undisturbed / name, tmp_path / name)) for name in names)
    return Work(tmp_path, stack, angles, model, (undisturbed / "v.mrc").read_bytes())


@contextmanager
def stopped_process(work, moment):
    """A process that reconstructs and waits at some moment."""
    command = [sys.executable, "-c", DRIVER, moment, "reconstruct", *map(str, work.arguments())]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment()) as process:
        try:
            assert process.stdout.readline() == "waiting\n", process.stderr.read()
            yield process
        finally:
            process.kill()


@contextmanager
def interrupted_after(slabs):
    """Make a run in this process behave as if Ctrl-C were pressed after so many slabs."""
    with pytest.MonkeyPatch.context() as patch:
        done = WorkFolder.done

        def interrupt(self, slab):
            done(self, slab)
            if len(self.slabs) == slabs:
                raise KeyboardInterrupt

        patch.setattr(WorkFolder, "done", interrupt)
        yield


@pytest.fixture
def unfinished(work):
    """A series whose run was interrupted after two slabs."""
    with interrupted_after(2):
        result = run(*work.arguments())
    assert result.exit_code == 130, result.output
    assert result.stdout == ""
    assert "Interrupted. Repeat the command to go on where it stopped." in result.stderr
    assert not work.output.exists()
    assert [slab["start"] for slab in work.journal()] == STARTS[:2]
    return work


@pytest.fixture
def written(monkeypatch):
    """The first rows of the slabs that are written in this process."""
    starts = []
    write_rows = VolumeWriter.write_rows

    def watch(self, y0, slab):
        starts.append(y0)
        write_rows(self, y0, slab)

    monkeypatch.setattr(VolumeWriter, "write_rows", watch)
    return starts


def finish(work, *flags):
    """Repeat the command, which must succeed, give the undisturbed volume and leave no working folder."""
    result = made(*work.arguments(*flags))
    assert work.output.read_bytes() == work.expected
    assert json.loads(work.output.with_suffix(".json").read_text())["compute"]["slab_rows"] == SLAB
    assert not work.partial.exists()
    assert {p.name for p in work.folder.iterdir()} == {"ts.mrc", "ts.tlt", "tiny.safetensors", "v.mrc", "v.json"}
    return result


def refused(work, *fragments, flags=()):
    """Repeat the command, which must refuse in one line and leave the unfinished run as it is."""
    before = {p: p.read_bytes() for p in work.partial.iterdir()}
    line = refusal_of(run(*work.arguments(*flags)))
    for fragment in fragments:
        assert fragment in line
    assert {p: p.read_bytes() for p in work.partial.iterdir()} == before
    assert not work.output.exists()


# Killed


@pytest.mark.slow
@pytest.mark.parametrize("moment", DONE_BEFORE)
def test_killed_run_goes_on_and_gives_the_same_bytes(moment, work, written):
    with stopped_process(work, moment) as process:
        process.kill()
        process.wait()
    assert not work.output.exists()
    done = DONE_BEFORE[moment]
    if done is None:
        assert not (work.partial / "journal.jsonl").exists()
    else:
        assert [slab["start"] for slab in work.journal()] == STARTS[:done]
    result = finish(work)
    assert written == STARTS[done or 0 :]
    assert ("Going on with an unfinished run" in result.stderr) == (done is not None)
    assert (f" {done} slabs are done" in result.stderr) == (done is not None)


@pytest.mark.slow
def test_live_run_is_not_disturbed_and_ctrl_c_keeps_its_work(work, written):
    with stopped_process(work, "after two slabs") as process:
        for flags in ((), ("--overwrite",), ("--bin", "2")):
            refused(work, "another run is writing this output", flags=flags)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr
    assert stderr.endswith("Interrupted. Repeat the command to go on where it stopped.\n")
    assert [slab["start"] for slab in work.journal()] == STARTS[:2]
    finish(work)
    assert written == STARTS[2:]


# Interrupted


def test_interrupted_run_goes_on(unfinished, written):
    result = finish(unfinished)
    assert written == STARTS[2:]
    assert "Going on with an unfinished run: 2 slabs are done." in result.stderr


def test_interrupted_again_and_again(unfinished, written):
    for slabs in (3, 4):
        with interrupted_after(slabs):
            assert run(*unfinished.arguments()).exit_code == 130
    finish(unfinished)
    assert written == STARTS[2:]


def test_memory_may_change_between_the_runs(unfinished, written):
    finish(unfinished, "--max-memory", "50")
    assert written == STARTS[2:]


def test_less_memory_makes_the_remaining_slabs_lower(unfinished, written, monkeypatch):
    monkeypatch.setattr("cryolithe.reconstruction.setup.fitting.slab_rows", lambda *arguments: 4)
    made(*unfinished.arguments("--max-memory", "50"))
    assert written == list(range(STARTS[2], SHAPE[0], 4))
    expected = np.frombuffer(unfinished.expected[1024:], dtype="<f4").reshape(voxels(unfinished.output).shape)
    np.testing.assert_allclose(voxels(unfinished.output), expected, atol=1e-5 * np.abs(expected).max())


def test_too_little_memory_keeps_the_unfinished_run(unfinished):
    refused(unfinished, "do not suffice", "2 finished slabs are kept", flags=("--max-memory", "0.01"))


def test_overwrite_goes_on_with_the_same_work(unfinished, written):
    finish(unfinished, "--overwrite")
    assert written == STARTS[2:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (("--thickness", 14), "thickness (12 instead of 14)"),
        (("--contrast", "bright"), "contrast (auto instead of bright)"),
        (("--precision", "bf16"), "precision (fp32 instead of bf16)"),
        (("--bin", 2), "bin (None instead of 2)"),
        (("--dtype", "float16"), "dtype (float32 instead of float16)"),
        (("--method", "fbp"), "method (network instead of fbp)"),
    ],
)
def test_other_settings_are_refused_and_the_unfinished_run_survives(flags, fragment, unfinished, written):
    before = list(written)
    refused(unfinished, f"holds an unfinished run with another {fragment}; ", "--overwrite", "-o", flags=flags)
    assert written == before
    finish(unfinished)
    assert written == [*before, *STARTS[2:]]


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["tilts", "angles", "model"])
def test_changed_input_is_refused(changed, unfinished):
    original = {p: p.read_bytes() for p in (unfinished.stack, unfinished.angles, unfinished.model)}
    if changed == "tilts":
        write_series(unfinished.folder, 2 * noise())
    elif changed == "angles":
        unfinished.angles.write_text(unfinished.angles.read_text().replace("10", "11"))
    else:
        write_model(unfinished.model, gain=0.9)
    refused(unfinished, f"unfinished run with another {changed} file")
    for path, content in original.items():
        path.write_bytes(content)
    finish(unfinished)


def test_an_alignment_that_one_of_two_runs_has_is_a_difference():
    without = {"settings": {"bin": None}, "tilts_sha256": "a"}
    with_one = {**without, "xf_sha256": "b"}
    assert _first_difference(with_one, without) == _first_difference(without, with_one) == "xf file"
    assert _first_difference(with_one, dict(with_one)) is None


def test_bad_input_does_not_cost_the_unfinished_run(unfinished):
    content = unfinished.stack.read_bytes()
    unfinished.stack.write_bytes(content[:5000])
    refused(unfinished, "truncated")
    unfinished.stack.write_bytes(content)
    refused(unfinished, "--device", flags=("--device", "cuda:99"))
    finish(unfinished)


def test_overwrite_with_other_settings_starts_anew(unfinished, written):
    made(*unfinished.arguments("--overwrite", "--thickness", 14))
    assert written == STARTS
    assert voxels(unfinished.output).shape == (14, *SHAPE)
    assert not unfinished.partial.exists()


def test_a_volume_that_was_replaced_is_not_taken_for_the_old_one(unfinished, written, monkeypatch):
    """A run that starts anew and dies before its first journal line must not leave the old journal in force."""

    def die(self, plan):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkFolder, "begin", die)
        assert run(*unfinished.arguments("--overwrite", "--contrast", "bright")).exit_code == 130
    finish(unfinished)
    assert written == STARTS


# Damaged working folders


@pytest.mark.slow
@pytest.mark.parametrize("torn", ['{"start": 16, "sto', '{"start": 16}', "\0" * 50, "\0" * 50 + "\n", '{"start": 1\n'])
def test_torn_last_line_of_the_journal(torn, unfinished, written):
    with (unfinished.partial / "journal.jsonl").open("a") as file:
        file.write(torn)
    with interrupted_after(3):  # the line that follows the torn one must be readable too
        assert run(*unfinished.arguments()).exit_code == 130
    assert [slab["start"] for slab in unfinished.journal()] == STARTS[:3]
    finish(unfinished)
    assert written == STARTS[2:]


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"[]\n", b"3\n", b"{}\n", b"\xff\xfe\n", b'{"work": {}}\n{"start": 0}\n'])
def test_unusable_journal_starts_anew(content, unfinished, written):
    (unfinished.partial / "journal.jsonl").write_bytes(content)
    finish(unfinished)
    assert written == STARTS


def test_lost_volume_starts_anew(unfinished, written):
    (unfinished.partial / "volume.mrc").unlink()
    finish(unfinished)
    assert written == STARTS


def test_lost_images_are_made_again(unfinished, written):
    (unfinished.partial / "stack.f32").unlink()
    finish(unfinished)
    assert written == STARTS[2:]


def test_stale_empty_folder_is_used(work):
    work.partial.mkdir()
    (work.partial / "lock").touch()
    finish(work)


# Other methods


@pytest.mark.parametrize("method", [("fbp",), ("sirt", "--iterations", 3)])
def test_classical_methods_go_on_too(method, work, written):
    arguments = [work.stack, work.angles, "--thickness", 12, "--method", *method]
    made(*arguments, "-o", work.folder / "whole.mrc")
    written.clear()
    with interrupted_after(3):
        assert run(*arguments, "-o", work.output).exit_code == 130
    made(*arguments, "-o", work.output)
    assert written == STARTS
    assert work.output.read_bytes() == (work.folder / "whole.mrc").read_bytes()
    assert np.isfinite(voxels(work.output)).all()


def test_running_out_of_memory_keeps_finished_slabs(work, written, monkeypatch):
    with monkeypatch.context() as patch:
        write_rows = VolumeWriter.write_rows

        def fail(self, y0, slab):
            if y0 == STARTS[2]:
                raise ResourceError("memory ran out")
            write_rows(self, y0, slab)

        patch.setattr(VolumeWriter, "write_rows", fail)
        result = run(*work.arguments())
    assert result.exit_code == 2
    assert "2 finished slabs are kept" in result.stderr
    assert "repeat the command to go on" in result.stderr
    assert not work.output.exists()
    written.clear()
    finish(work)
    assert work.output.read_bytes() == work.expected
    assert written == STARTS[2:]


# A last step that fails


def failing_at_the_end(patch, where, number):
    """Make the last move into place, or the writing of the record, fail as the system would."""
    if where == "move":
        replace = Path.replace

        def refuse(self, target):
            if Path(target).suffix in (".mrc", ".zarr") and self.stem in ("volume", "finished"):
                raise OSError(number, os.strerror(number))
            return replace(self, target)

        patch.setattr(Path, "replace", refuse)
    elif where == "record":

        def refused_record(path, record):
            raise OutputError(f"{path} cannot be written: {os.strerror(number)}")

        patch.setattr("cryolithe.reconstruction.output.outputs.write_json", refused_record)
    else:

        def finish(self, *arguments):
            raise OutputError(f"{self.target} cannot be written: {os.strerror(number)}")

        patch.setattr(VolumeWriter, "finish", finish)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "number"),
    [("move", errno.EDQUOT), ("move", errno.EACCES), ("record", errno.ENOSPC), ("header", errno.EIO)],
)
@pytest.mark.parametrize("flags", [(), ("--dtype", "int8"), ("--orientation", "xzy"), ("--format", "ome-zarr")])
def test_a_last_step_that_fails_keeps_all_that_was_done(where, number, flags, work, written):
    output = work.output.with_suffix(".zarr") if "ome-zarr" in flags else work.output
    arguments = [*work.arguments(*flags)]
    arguments[3] = output
    made(*arguments[:3], work.folder / f"whole{output.suffix}", *arguments[4:])
    written.clear()
    with pytest.MonkeyPatch.context() as patch:
        failing_at_the_end(patch, where, number)
        result = run(*arguments)
    assert result.exit_code == 2
    assert os.strerror(number) in result.stderr
    partial = output.with_name(output.name + ".partial")
    assert f"5 finished slabs are kept in {partial}: repeat the command to go on" in result.stderr
    assert not output.exists()
    assert written == STARTS
    made(*arguments)
    assert written == STARTS
    assert content(output) == content(work.folder / f"whole{output.suffix}")
    assert not partial.exists()
    # A run that finds every slab done tells the same of their making.
    whole, again = (json.loads(path.read_text()) for path in (work.folder / "whole.json", output.with_suffix(".json")))
    assert again["compute"] == whole["compute"]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--format", "ome-zarr")])
def test_a_move_that_fails_leaves_the_volume_that_was_to_be_replaced(flags, work):
    arguments = work.arguments(*flags)
    arguments[3] = output = work.output.with_suffix(".zarr") if flags else work.output
    made(*arguments)
    before = content(output), output.with_suffix(".json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        failing_at_the_end(patch, "move", errno.EDQUOT)
        assert run(*arguments, "--overwrite", "--contrast", "bright").exit_code == 2
    assert (content(output), output.with_suffix(".json").read_bytes()) == before
    made(*arguments, "--overwrite", "--contrast", "bright")
    assert content(output) != before[0]


def test_an_input_that_changes_does_not_cost_the_slabs(work, written):
    with pytest.MonkeyPatch.context() as patch:
        write_rows = VolumeWriter.write_rows

        def touch(self, y0, slab):
            write_rows(self, y0, slab)
            os.utime(work.stack, ns=(1, 1))

        patch.setattr(VolumeWriter, "write_rows", touch)
        result = run(*work.arguments())
    assert result.exit_code == 2
    assert "changed while the run read it" in result.stderr
    assert "5 finished slabs are kept" in result.stderr
    finish(work)
    assert written == STARTS


@pytest.mark.parametrize("finished", [0, 2])
def test_no_slab_is_finished_of_images_that_are_not_those_of_the_plan(finished, work, written):
    right, prepare = work.stack.read_bytes(), running.prepare_run
    if finished:
        with interrupted_after(finished):
            run(*work.arguments())
    written.clear()

    def of_others(*arguments, **options):
        with work.stack.open("r+b") as file:
            file.write(right[:1024] + noise()[::-1].tobytes())
        return prepare(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "prepare_run", of_others)
        result = run(*work.arguments())
    assert result.exit_code == 2
    assert f"the input {work.stack} changed while the run read it" in result.stderr
    assert written == []
    assert work.partial.exists() == bool(finished)
    work.stack.write_bytes(right)
    finish(work)
    assert written == STARTS[finished:]


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_what_is_not_finite_costs_nothing_but_its_slab(kept, work, monkeypatch):
    cast, done, finished = VolumeWriter.cast, WorkFolder.done, []

    def spoiled(self, slab):
        return cast(self, slab if len(finished) < kept else np.full_like(slab, np.nan))

    def count(self, slab):
        finished.append(slab)
        done(self, slab)

    monkeypatch.setattr(WorkFolder, "done", count)

    monkeypatch.setattr(VolumeWriter, "cast", spoiled)
    result = run(*work.arguments())
    assert result.exit_code == 2
    assert "are not finite" in result.stderr
    assert ("nothing was kept" in result.stderr) == (kept == 0)
    told = "1 finished slab is kept" if kept == 1 else f"{kept} finished slabs are kept"
    assert (told in result.stderr) == (kept > 0)
    assert work.partial.exists() == (kept > 0)


def test_room_for_ome_zarr_is_found_missing_before_the_first_slab(work, written, monkeypatch):
    """It is a volume beside the one that is made, with its pyramid."""
    voxels_ = 12 * SHAPE[0] * SHAPE[1]
    arguments = work.arguments("--format", "ome-zarr")
    arguments[3] = work.output.with_suffix(".zarr")
    free = int(4 * voxels_ * 1.05)  # enough for the volume that is made, but for nothing beside it
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free - used(work.folder)))
    start = used(work.folder)
    free += start
    result = run(*arguments)
    assert result.exit_code == 2
    assert "make room" in result.stderr
    assert written == []
    free += 4 * voxels_ * 2
    made(*arguments)


def content(path):
    """Bytes of a file, or of all files of a folder; those of Zarr's names without the volume's."""
    if path.is_file():
        return path.read_bytes()
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("[!.]*")) if p.is_file()}


def used(folder):
    """Bytes of the files in a folder and in those below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
