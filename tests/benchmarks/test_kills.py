"""Runs that are killed at random moments, and working folders that something damaged: never a wrong volume.

benchmarks/kills.py does the same hundreds of times; tests/reconstruction/test_resume.py stops runs at chosen moments.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_series import SHAPE, environment, made, noise, run, write_series

from cryolithe.work.folder import WorkFolder

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import kills  # noqa: E402
from parts.killing import content, forks, kill_until_done, timeless, undisturbed  # noqa: E402

SLAB = 4
KILLS = 6

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks and signals as on Linux")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with forks(tmp_path_factory.mktemp("runs"), SLAB) as started:
        yield started


# Killed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FBP", "network, int8, axes x z y"])
def test_random_kills_change_nothing(name, runs, tmp_path):
    (case,) = kills.make_cases(tmp_path, [name])
    undisturbed(case, runs)
    assert case.slabs == 16
    random_, done = random.Random(name), 0
    while done < KILLS // 2:
        done += kill_until_done(case, runs, random_, KILLS // 2 - done)
        assert case.wrong == []
    assert sum(case.kills.values()) == KILLS // 2


# Runs the command, and stops this process, as Ctrl-Z does, when the first slab is done.
STOPS = """
import os, signal
import cryolithe.reconstruction.slabwise.plan
from cryolithe.cli import main
from cryolithe.work.folder import WorkFolder

done = WorkFolder.done

def stop(self, slab):
    done(self, slab)
    if len(self.slabs) == 1:
        os.kill(os.getpid(), signal.SIGSTOP)

WorkFolder.done = stop
cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS = 4
main(prog_name="cryolithe")
"""


@pytest.mark.slow
def test_two_runs_of_one_output(runs, tmp_path):
    (case,) = kills.make_cases(tmp_path, ["FBP"])
    undisturbed(case, runs)
    with subprocess.Popen([sys.executable, "-c", STOPS, *case.words], env=environment()) as first:
        try:
            assert os.WIFSTOPPED(os.waitpid(first.pid, os.WUNTRACED)[1])
            before = content(case.partial)
            for more in ([], ["--overwrite"]):
                second = run(*case.words[1:], *more)
                assert second.exit_code == 2
                assert "another run is writing this output" in second.stderr
            assert content(case.partial) == before
            first.send_signal(signal.SIGCONT)
            assert first.wait() == 0
        finally:
            first.kill()
    assert case.done()
    assert case.wrong == []


# Damaged working folders


@dataclass(frozen=True)
class Unfinished:
    """A run that was interrupted when it had made three of its slabs."""

    folder: Path
    expected: bytes
    record: dict

    @property
    def output(self):
        return self.folder / "v.mrc"

    @property
    def partial(self):
        return self.folder / "v.mrc.partial"

    def arguments(self, *flags):
        words = ("--thickness", 8, "--method", "fbp", *flags)
        return [self.folder / "ts.mrc", self.folder / "ts.tlt", "-o", self.output, *words]

    def finish(self, *flags):
        """Repeat the command, which must give the very volume; return what it said."""
        result = made(*self.arguments(*flags))
        assert self.output.read_bytes() == self.expected
        assert timeless(self.output.with_suffix(".json")) == self.record
        assert not self.partial.exists()
        return result.stderr


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of a finished and of an interrupted run of the same name and inputs."""
    whole, part = tmp_path_factory.mktemp("whole") / "w", tmp_path_factory.mktemp("part") / "w"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS", SLAB)
        for folder in (whole, part):
            folder.mkdir()
            write_series(folder)
        made(*Unfinished(whole, b"", {}).arguments())
        done = WorkFolder.done

        def interrupt(self, slab):
            done(self, slab)
            if len(self.slabs) == 3:
                raise KeyboardInterrupt

        patch.setattr(WorkFolder, "done", interrupt)
        assert run(*Unfinished(part, b"", {}).arguments()).exit_code == 130
    return whole, part


@pytest.fixture
def unfinished(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS", SLAB)
    whole, part = saved
    folder = tmp_path / "w"
    shutil.copytree(part, folder)
    record = timeless(whole / "v.json")
    for used, path in (("tilts", "ts.mrc"), ("angles", "ts.tlt")):
        record["inputs"][used]["path"] = str(folder / path)
    return Unfinished(folder, (whole / "v.mrc").read_bytes(), record)


def test_nothing_is_made_anew_when_nothing_was_damaged(unfinished):
    told = unfinished.finish()
    assert "3 slabs are done" in told
    assert "anew" not in told


def flipped(path, random_, first=0, last=None):
    """Turn over one bit of a file."""
    changed = bytearray(path.read_bytes())
    changed[random_.randrange(first, last or len(changed))] ^= 1 << random_.randrange(8)
    path.write_bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_in_the_journal(seed, unfinished):
    """A line that is not what was written counts for nothing, nor do those after it."""
    flipped(unfinished.partial / "journal.jsonl", random.Random(seed))
    told = unfinished.finish()
    assert "3 slabs are done" not in told


def test_a_number_of_the_journal_that_is_still_a_number(unfinished):
    journal = unfinished.partial / "journal.jsonl"
    text = journal.read_text()
    assert text.count('"stop": 4,') == 1
    journal.write_text(text.replace('"stop": 4,', f'"stop": {SHAPE[0]},'))  # the whole volume would seem to be done
    assert "0 slabs are done" in unfinished.finish()


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.6, 0.9, 0.999])
def test_truncated_journal(kept, unfinished):
    journal = unfinished.partial / "journal.jsonl"
    os.truncate(journal, int(kept * journal.stat().st_size))
    unfinished.finish()


@pytest.mark.parametrize("name", ["stack.f32", "lock"])
@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_other_files_of_the_folder_do_not_matter(name, damage, unfinished):
    path = unfinished.partial / name
    path.write_bytes(path.read_bytes() or b"x")
    if damage == "flipped":
        flipped(path, random.Random(0))
    else:
        os.truncate(path, path.stat().st_size // 2)
    assert "3 slabs are done" in unfinished.finish()


def slab_bytes(z, row):
    return 1024 + (z * SHAPE[0] + row) * SHAPE[1] * 4


@pytest.mark.parametrize("slab", [0, 1, 2])
def test_flipped_bit_in_a_finished_slab(slab, unfinished):
    place = slab_bytes(5, slab * SLAB + 1)
    flipped(unfinished.partial / "volume.mrc", random.Random(slab), place, place + 4 * SHAPE[1])
    told = unfinished.finish()
    assert "were changed since they were written" in told
    assert "2 slabs are done" in told


def test_flipped_bit_where_nothing_is_done_yet(unfinished):
    place = slab_bytes(0, 3 * SLAB)
    flipped(unfinished.partial / "volume.mrc", random.Random(0), place, place + 4)
    assert "3 slabs are done" in unfinished.finish()


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_in_the_header_of_the_volume(seed, unfinished):
    flipped(unfinished.partial / "volume.mrc", random.Random(seed), 0, 1024 if seed else 16)
    unfinished.finish()


@pytest.mark.parametrize("size", [0, 500, 1024, 30_000])
def test_truncated_volume(size, unfinished):
    os.truncate(unfinished.partial / "volume.mrc", size)
    assert "it is made anew" in unfinished.finish()


def test_a_folder_whose_removal_was_cut_short(unfinished, monkeypatch):
    """The next run finds the output complete, and tidies up."""

    def interrupted(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cryolithe.work.folder.delete", interrupted)
        assert run(*unfinished.arguments()).exit_code == 130
    assert unfinished.output.exists()
    assert unfinished.partial.exists()
    made(*unfinished.arguments())
    assert unfinished.output.read_bytes() == unfinished.expected
    assert not unfinished.partial.exists()


@pytest.mark.parametrize("name", ["ts.mrc", "ts.tlt"])
def test_inputs_that_changed_between_the_runs(name, unfinished):
    if name == "ts.mrc":
        images = noise()
        images[0, 0, 0] += 1e-3
        write_series(unfinished.folder, images)
    else:
        path = unfinished.folder / name
        path.write_text(path.read_text().replace("-50", "-50.01"))
    before = content(unfinished.partial)
    result = run(*unfinished.arguments())
    assert result.exit_code == 2
    assert f"an unfinished run with another {'tilts' if name == 'ts.mrc' else 'angles'} file" in result.stderr
    assert not unfinished.output.exists()
    assert content(unfinished.partial) == before


@pytest.mark.parametrize(
    "what", ["folder", "lock", "journal.jsonl", "volume.mrc", "stack.f32", "sidecar.json", "commit.json"]
)
def test_links_in_the_place_of_the_working_files(what, unfinished, tmp_path):
    """A link does not lead the writing out of the folder."""
    outside = tmp_path / "outside"
    if what == "folder":
        unfinished.partial.rename(outside)
        unfinished.partial.symlink_to(outside)
    else:
        (unfinished.partial / what).touch()
        (unfinished.partial / what).rename(outside)
        (unfinished.partial / what).symlink_to(outside)
    before = content(outside)
    result = run(*unfinished.arguments())
    assert content(outside) == before
    if result.exit_code:
        assert result.exit_code == 2
        assert result.stderr.splitlines()[-1].startswith("Error: ")
        assert not unfinished.output.exists()
    else:
        assert not unfinished.output.is_symlink()
        assert unfinished.output.read_bytes() == unfinished.expected


# Disks


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a file system with some options, and the folder that it is mounted on."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_until_someone_makes_room(unfinished, small_disk):
    folder = small_disk("size=90k")
    stack, angles, _, output, *words = unfinished.arguments()
    arguments = [stack, angles, "-o", folder / output.name, *words]
    result = run(*arguments)
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert list(folder.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=1m", str(folder)], check=True)
    made(*arguments)
    assert (folder / output.name).read_bytes() == unfinished.expected


def test_a_disk_that_may_not_be_written(unfinished, small_disk):
    folder = small_disk("size=1m,ro")
    stack, angles, _, output, *words = unfinished.arguments()
    result = run(stack, angles, "-o", folder / output.name, *words)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert any(text in result.stderr for text in ("Read-only file system", "not writable"))


@pytest.mark.slow
def test_the_journal_is_plain_text(unfinished):
    """A person can read how far a run is."""
    lines = [json.loads(line) for line in (unfinished.partial / "journal.jsonl").read_text().splitlines()]
    assert [(line["start"], line["stop"]) for line in lines[1:]] == [(0, 4), (4, 8), (8, 12)]


# Halves


def halves_of(folder):
    """The arguments that make two halves and their average."""
    (case,) = kills.make_cases(folder, ["FBP, halves"])
    case.clear()
    return case


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["v.json", "v_fsc.png", "v_confidence.mrc"])
def test_halves_whose_run_was_cut_off_before_the_record_are_finished(missing, tmp_path):
    case = halves_of(tmp_path)
    made(*case.words[1:])
    whole = case.products()
    case.output.with_suffix(".json").unlink()
    case.output.with_name(missing).unlink(missing_ok=True)
    made(*case.words[1:])
    assert case.products() == whole


@pytest.mark.slow
def test_an_average_that_is_not_ours_stays(tmp_path):
    case = halves_of(tmp_path)
    shutil.copyfile(tmp_path / "ts.mrc", case.output)
    result = run(*case.words[1:])
    assert result.exit_code == 2
    assert "v.mrc exists" in result.stderr
    assert case.output.read_bytes() == (tmp_path / "ts.mrc").read_bytes()


@pytest.mark.slow
def test_the_last_of_a_half_s_working_folder_is_tidied_up(tmp_path):
    """Its removal may be cut short when all but its lock is gone."""
    case = halves_of(tmp_path)
    made(*case.words[1:])
    case.output.with_suffix(".json").unlink()
    for name in ("v_EVN.mrc.partial", "v_ODD.mrc.partial"):
        case.output.with_name(name).mkdir()
    (case.output.with_name("v_ODD.mrc.partial") / "lock").touch()
    made(*case.words[1:])
    assert not list(case.output.parent.glob("*.partial"))
