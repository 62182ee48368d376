"""One run at a time writes an output, also on file systems that have no locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_series import environment, made, run, tree, write_series

from cryolithe.errors import OutputError
from cryolithe.machine.processes import process_began
from cryolithe.work.folder import WorkFolder
from cryolithe.work.locking import FolderLock

NONE = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL]


@pytest.fixture
def no_locks(monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture
def arguments(tmp_path):
    stack, angles = write_series(tmp_path)
    return [stack, angles, "-o", tmp_path / "v.mrc", "--method", "fbp", "--thickness", 8]


@pytest.fixture
def partial(tmp_path):
    return tmp_path / "v.mrc.partial"


def ended_process():
    """The number of a process of this machine that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def owner(partial, **changes):
    partial.mkdir(exist_ok=True)
    known = {"host": socket.gethostname(), "process": ended_process(), "began": 1}
    (partial / "owner").write_text(json.dumps(known | changes))
    return partial / "owner"


@pytest.mark.parametrize("process", ["1e999", "Infinity", "[]", "null"])
def test_an_owner_whose_process_is_no_number_is_not_told_from_a_living_one(no_locks, arguments, partial, process):
    path = owner(partial)
    path.write_text(re.sub(r'"process": \d+', f'"process": {process}', path.read_text()))
    result = run(*arguments)
    assert result.exit_code == 2
    assert "remove that file" in result.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("number", NONE)
def test_a_file_system_without_locks_gets_the_same_volume(number, arguments, partial, tmp_path, monkeypatch):
    made(*arguments)
    expected = (tmp_path / "v.mrc").read_bytes()

    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    told = made(*arguments, "--overwrite", "--preview").stderr
    assert told.count(f"The file system of {tmp_path} has no locks: {partial / 'owner'} keeps other runs away") == 1
    assert (tmp_path / "v.mrc").read_bytes() == expected
    assert not partial.exists()


def test_a_folder_that_is_locked_is_not_taken_for_one_that_cannot_be(arguments, partial):
    folder = WorkFolder(partial)
    result = run(*arguments)
    folder.release()
    assert result.exit_code == 2
    assert f"another run is writing this output ({partial} is locked)" in result.stderr
    assert not (partial / "owner").exists()
    made(*arguments)


def test_a_live_run_keeps_others_away_without_locks(no_locks, arguments, partial):
    folder = WorkFolder(partial)
    before = tree(partial)
    for more in ([], ["--overwrite"]):
        result = run(*arguments, *more)
        assert result.exit_code == 2
        assert f"(process {os.getpid()} on this machine, {socket.gethostname()})" in result.stderr
    assert tree(partial) == before
    folder.release()
    made(*arguments)


def test_a_run_that_has_locks_heeds_one_that_has_none(arguments, partial):
    """Two machines may see one disk in different ways."""
    path = owner(partial, process=os.getpid(), began=process_began(os.getpid()))
    assert "on this machine" in run(*arguments).stderr
    path.unlink()
    made(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("began", [1, None, 0])
def test_the_folder_of_a_process_that_has_ended_is_taken_over(locks, began, arguments, partial, request):
    if not locks:
        request.getfixturevalue("no_locks")
    owner(partial, began=began)
    made(*arguments)
    assert not partial.exists()


def test_a_number_that_another_process_has_now_is_no_living_owner(no_locks, arguments, partial):
    owner(partial, process=os.getpid(), began=process_began(os.getpid()) + 1)
    made(*arguments)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "process 12 on elsewhere; if that one has ended, remove"),
        ("", "does not tell by whom"),
        ('{"host": "el', "does not tell by whom"),
        ("[]", "does not tell by whom"),
        ('{"host": "a", "process": "b", "began": 1}', "does not tell by whom"),
    ],
)
def test_an_owner_that_cannot_be_asked_is_left_to_the_user(content, reason, no_locks, arguments, partial):
    path = owner(partial, host="elsewhere", process=12)
    if content is not None:
        path.write_text(content)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert reason in result.stderr
    assert str(path) in result.stderr
    path.unlink()
    made(*arguments)


def test_an_owner_that_is_a_link_leads_nowhere(no_locks, arguments, partial, tmp_path):
    partial.mkdir()
    (tmp_path / "outside").write_text("precious")
    (partial / "owner").symlink_to(tmp_path / "outside")
    assert "remove that file" in run(*arguments).stderr
    assert (tmp_path / "outside").read_text() == "precious"


@pytest.mark.slow
def test_a_killed_run_without_locks_is_gone_on_with(no_locks, arguments, partial, monkeypatch):
    monkeypatch.setattr("cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS", 8)
    driver = """
import errno, fcntl, os, signal
from cryolithe.cli import main
from cryolithe.reconstruction.slabwise import plan
from cryolithe.work.folder import WorkFolder

def refuse(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")

done = WorkFolder.done

def die(self, slab):
    done(self, slab)
    os.kill(os.getpid(), signal.SIGKILL)

fcntl.flock, WorkFolder.done, plan.MOST_SLAB_ROWS = refuse, die, 8
main(prog_name="cryolithe")
"""
    words = [sys.executable, "-c", driver, "reconstruct", *map(str, arguments)]
    assert subprocess.run(words, env=environment(), check=False, capture_output=True).returncode == -9
    assert (partial / "owner").exists()
    assert "1 slabs are done" in made(*arguments).stderr


@pytest.mark.slow
@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_gets_the_folder(stale, no_locks, partial):
    for _ in range(20):
        if stale:
            owner(partial)
        start = threading.Barrier(8)

        def attempt(_, start=start):
            start.wait()
            try:
                return FolderLock(partial)
            except OutputError:
                return None

        with ThreadPoolExecutor(8) as pool:
            locks = [lock for lock in pool.map(attempt, range(8)) if lock is not None]
        assert len(locks) == 1
        locks[0].close()
        assert not (partial / "owner").exists()
        assert not (partial / "owner.next").exists()


def test_who_comes_while_a_run_ends_gets_a_folder_of_its_own(no_locks, partial):
    """Removing the folder does not take what another run has begun in it."""
    for _ in range(20):
        folder = WorkFolder(partial)
        with ThreadPoolExecutor(1) as pool:

            def come():
                while True:
                    try:
                        return WorkFolder(partial)
                    except OutputError:
                        continue

            coming = pool.submit(come)
            folder.remove()
            second = coming.result()
        assert (partial / "owner").exists()
        second.begin({"work": {}})
        second.remove()
        assert not partial.exists()


@pytest.mark.parametrize("kernel", [True, False])
def test_who_gave_up_a_folder_does_nothing_to_it_any_more(kernel, partial, request):
    if not kernel:
        request.getfixturevalue("no_locks")
    folder = WorkFolder(partial)
    folder.remove()
    again = WorkFolder(partial)  # its lock may have the number of the descriptor that the first one had
    again.begin({"work": {}})
    folder.release()
    folder.remove()
    assert again.journal.is_file()
    with pytest.raises(OutputError, match="another run"):
        WorkFolder(partial)
    again.release()
    again.release()
