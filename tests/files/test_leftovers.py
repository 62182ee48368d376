"""Temporary files of killed writers: gone with the next write of the same output, and never those of a living one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_series import made, write_series

from cryolithe.formats.files import replacing
from cryolithe.formats.leftovers import may_be_in_use, temporary_beside

# Waits in the middle of a write, until its standard input ends.
WRITER = """
import sys
from cryolithe.formats.files import replacing
with replacing(sys.argv[1], True) as temporary:
    temporary.write_bytes(b"half")
    print(temporary, flush=True)
    sys.stdin.read()
"""
NAMES = ("v" * 120 + "ü" * 60, "v.mrc", "v [1] ü.json", ".hidden", "a.b*")


@pytest.fixture
def writer():
    """Starts writers of a target; gives the process and its temporary file."""
    running = []

    def start(target):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "encoding": "utf-8"}
        process = subprocess.Popen([sys.executable, "-X", "utf8", "-c", WRITER, str(target)], **pipes)
        running.append(process)
        return process, Path(process.stdout.readline().rstrip("\n"))

    yield start
    for process in running:
        process.kill()
        process.communicate()


def written(target, content=b"whole"):
    with replacing(target, True) as temporary:
        temporary.write_bytes(content)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_killed_writer_left_goes_and_that_of_a_living_one_stays(name, tmp_path, writer):
    target, other = tmp_path / name, tmp_path / f"{name}.2"
    dead, left = writer(target)
    alive, at_work = writer(target)
    others, of_other = writer(other)
    for process in (dead, others):
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert left.exists()
    assert of_other.exists()
    written(target)
    assert (left.exists(), at_work.exists(), of_other.exists()) == (False, True, True)
    alive.communicate("")
    assert target.read_bytes() == b"half"
    assert sorted(tmp_path.iterdir()) == sorted([target, of_other])


def forged(target, **changes):
    """The name of a temporary file with other parts: process, began, host."""
    *head, process, began, host, token, kind = temporary_beside(target).name.split(".")
    parts = {"process": process, "began": began, "host": host, **changes}
    return target.with_name(".".join([*head, parts["process"], parts["began"], parts["host"], token, kind]))


def test_whose_process_is_not_known_to_have_ended_stays(tmp_path):
    """Another machine's, one that tells nobody, one of a user; a number that was given anew is no life."""
    target = tmp_path / "v.mrc"
    elsewhere = forged(target, host="000000", process="7fffffff")
    unnamed, users = tmp_path / ".v.mrc.00112233.partial", tmp_path / ".v.mrc.mine"
    own = temporary_beside(target)
    unknown = forged(target, began="0")
    anew = forged(target, began="1")
    for path in (elsewhere, unnamed, users, own, unknown, anew):
        path.write_bytes(b"x")
    written(target)
    stays = [elsewhere, unnamed, users, own, unknown]
    if not Path(f"/proc/{os.getpid()}/stat").is_file():
        stays.append(anew)
    assert sorted(tmp_path.iterdir()) == sorted([*stays, target])
    assert [may_be_in_use(target, path) for path in (elsewhere, unnamed, own)] == [True, False, True]


def test_a_folder_that_was_left_goes_too_and_links_are_not_followed(tmp_path):
    target, kept = tmp_path / "v.zarr", tmp_path / "kept"
    kept.mkdir()
    (kept / "data").write_bytes(b"x")
    folder = forged(target, process="7fffffff")
    folder.mkdir()
    (folder / "0").write_bytes(b"x")
    forged(target, process="7fffffff").symlink_to(kept)
    written(target)
    assert sorted(tmp_path.iterdir()) == sorted([kept, target])
    assert (kept / "data").exists()


def test_the_next_run_of_a_folder_removes_what_a_killed_one_left(tmp_path):
    write_series(tmp_path, name="ts")
    left = [forged(tmp_path / f"cryolithe_summary.{ending}", process="7fffffff") for ending in ("csv", "html")]
    for path in left:
        path.write_bytes(b"half")
    made(tmp_path, "--method", "fbp", "--contrast", "bright", "--thickness", 10)
    assert not any(path.exists() for path in left)
