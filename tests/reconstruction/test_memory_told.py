"""What an error says is enough memory is enough, and what it says to leave out is what lacks it."""

import re

import pytest
from tiny_series import made, run, write_model, write_series

from cryolithe.reconstruction.setup import fitting
from cryolithe.reconstruction.slabwise.plan import told_gb


@pytest.fixture
def command(tmp_path):
    model = write_model(tmp_path / "tiny.safetensors")
    shown = ("--model", model, "--thickness", 24, "--dry-run", "--device", "cpu", "--max-memory")
    return (*write_series(tmp_path), *shown)


def refusal(command, gigabytes, *more):
    result = run(*command, gigabytes, *more)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line, re.search(r"at least ([\d.]+) GB are needed", line)[1]


@pytest.mark.parametrize("more", [(), ("--confidence",)], ids=["volume", "maps"])
@pytest.mark.parametrize("given", [0.001, 0.4])
def test_what_is_said_to_be_needed_is_enough(given, more, command):
    line, needed = refusal(command, given, *more)
    assert "leave --confidence out" not in line  # the volume alone needs as much
    made(*command, needed, *more)
    assert refusal(command, f"{float(needed) - 0.01:.2f}", *more)[1] == needed


@pytest.mark.parametrize("given", [0.001, 1.0])
def test_the_larger_of_the_two_is_said_where_the_maps_need_more(given, command, monkeypatch):
    monkeypatch.setattr(fitting, "MAP_COPIES", 1000 * fitting.MAP_COPIES)
    line, needed = refusal(command, given, "--confidence")
    assert float(needed) > 1.0
    assert ("leave --confidence out" in line) == (given == 1.0)
    made(*command, needed, "--confidence")
    if given == 1.0:
        made(*command, given)


@pytest.mark.parametrize("needed", [1, 480_000_000, 480_000_001, 484_999_999, 12_345_678_901])
def test_memory_is_told_rounded_up(needed):
    assert needed <= float(told_gb(needed)) * 1e9 < needed + 1e7 + 1
