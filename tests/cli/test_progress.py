"""What a log file is told of a long job: lines that are neither too many nor too few, with the time left."""

from __future__ import annotations

import io
import itertools
import re
import sys
from types import SimpleNamespace

import pytest
import test_optimise
from command import call
from tiny_series import made, write_model, write_series

from cryolithe.cli import progress
from cryolithe.cli.progress import LogWatcher, ProgressWatcher, progress_watcher
from cryolithe.cli.train import _advancing
from cryolithe.work.clock import clock


class Time:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def told(seconds, steps, done_before=0.0):
    """The lines, and when they came, of a stage of one unit in equal steps that take so many seconds each."""
    time, lines = Time(), []
    watcher = LogWatcher(lambda text: lines.append((time.now, text)), time)
    watcher.stage("Working", 1.0)
    watcher.advance(done_before)
    for _ in range(steps):
        time.now += seconds
        watcher.tick()
        watcher.advance((1 - done_before) / steps)
    watcher.finish()
    return lines


@pytest.mark.parametrize(("seconds", "steps"), [(1, 1000), (0.5, 7200), (30, 1000), (60, 9), (7, 13), (2000, 3)])
def test_lines_of_a_stage(seconds, steps):
    lines = told(seconds, steps)
    times = [0.0, *(time for time, _ in lines)]
    assert lines[-1][1] == f"Working: 100 % after {clock(seconds * steps)}"
    for before, after in itertools.pairwise(times[:-1]):
        assert 60 <= after - before <= max(600, 60) + seconds
    assert len(lines) <= 3 + max(10, seconds * steps / 600)
    if seconds * steps > 120 + seconds and seconds <= 60:
        assert times[1] <= 60 + seconds  # one soon knows how long it takes
    shares = [int(re.search(r"(\d+) %", text)[1]) for _, text in lines]
    assert shares == sorted(shares)


def test_a_stage_of_which_nothing_is_heard_still_is_told_of():
    time, lines = Time(), []
    watcher = LogWatcher(lines.append, time)
    watcher.stage("Waiting", 1)
    for _ in range(400):
        time.now += 5
        watcher.tick()
    assert lines == ["Waiting: 0 % after 1:00", "Waiting: 0 % after 11:00", "Waiting: 0 % after 21:00",
                     "Waiting: 0 % after 31:00"]  # fmt: skip


@pytest.mark.parametrize("done_before", [0.0, 0.3, 0.9])
def test_time_left_of_steady_work_is_true_whatever_a_run_before_has_done(done_before):
    total = 1500 * 2.0
    for time, text in told(2.0, 1500, done_before)[:-1]:
        left = re.search(r", about (?:(\d+):)?(\d+):(\d\d) left$", text)
        seconds = int(left[1] or 0) * 3600 + int(left[2]) * 60 + int(left[3])
        assert seconds == pytest.approx(total - time, abs=4 + 0.01 * total)


def test_short_stages_share_a_line_at_the_end():
    time, lines = Time(), []
    watcher = LogWatcher(lines.append, time)
    for name, length in (("Reading", 2.0), ("Thinking", 90.0), ("Writing", 3.0)):
        watcher.stage(name, 4)
        time.now += length
        watcher.advance(4)
    watcher.finish()
    assert lines == ["Thinking: 100 % after 1:30", "100 %: Reading (0:02), Writing (0:03)"]


@pytest.mark.parametrize("speed", [0.2, 3.0])
def test_a_training_with_a_limit_counts_down_its_minutes(speed):
    time, lines = Time(), []
    watcher = LogWatcher(lambda text: lines.append((time.now, text)), time)
    on_step = _advancing(watcher)

    counts = itertools.count()

    def moving():
        time.now += speed * (1 + next(counts) % 3)
        return time.now

    minutes, hooks = 12, {"on_step": lambda state, progress: on_step(progress), "clock": moving}
    test_optimise.trained(test_optimise.new_state(), 10**6, limit_seconds=60 * minutes, **hooks)
    watcher.finish()
    assert len(lines) >= 10
    assert lines[-1][1].startswith("Training: 100 %")
    for now, text in lines[:-1]:
        left = re.search(r", about (\d+):(\d\d) left$", text)
        assert int(left[1]) * 60 + int(left[2]) == pytest.approx(60 * minutes - now, abs=20)


def test_a_command_writes_plain_lines_where_there_is_no_terminal(tmp_path, monkeypatch):
    stack, angles = write_series(tmp_path)
    counts = itertools.count()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 25.0 * next(counts)))
    result = made(stack, angles, "--model", write_model(tmp_path / "m.safetensors"), "--thickness", 16)
    assert "\x1b" not in result.stderr
    assert "━" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith(("Preparing images:", "Reconstructing"))]
    assert any(re.fullmatch(r"Preparing images: \d+ % after \d+:\d\d, about \d+:\d\d left", line) for line in lines)
    assert any(re.fullmatch(r"Reconstructing \(network\): 100 % after \d+:\d\d", line) for line in lines)


def test_a_refused_command_tells_of_no_stages(tmp_path):
    result = call("reconstruct", tmp_path / "none.mrc", tmp_path / "none.tlt")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_a_terminal_has_bars(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_watcher() as watcher:
        assert isinstance(watcher, ProgressWatcher)
        watcher.stage("Working", 2)
        watcher.advance(1)
    assert "Working" in sys.stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_watcher() as watcher:
        assert isinstance(watcher, LogWatcher)
