"""The benchmarks on sizes and on deposited data: extrapolation, tables, simulated copies, sanity checks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fake_entry import fake_entry

from cryolithe.cli import main
from cryolithe.curation.manifest import FileFacts, Measured, read_manifest
from cryolithe.errors import InputError
from cryolithe.formats import read_mrc, read_tilt_series

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import common  # noqa: E402
import empiar  # noqa: E402
import gpu  # noqa: E402
import gpu_cell  # noqa: E402
import run_all  # noqa: E402
import speed  # noqa: E402


def ran(rows, seconds, slab=16, peak=10**9):
    return {"rows": rows, "seconds": seconds, "peak_bytes": peak, "gpu_peak_bytes": 0, "slab_rows": slab}


def test_a_part_of_the_rows_is_extrapolated_along_the_line_through_two_runs():
    found = speed.summary([ran(16, 5 + 0.5 * 16), ran(100, 5 + 0.5 * 100)], 2048)
    assert found["seconds"] == pytest.approx(5 + 0.5 * 2048)  # start-up counts once
    assert (found["extrapolated"], found["rows"], found["memory_complete"]) == (True, 100, True)
    whole = speed.summary([ran(16, 9), ran(64, 30)], 64)
    assert (whole["seconds"], whole["extrapolated"]) == (30, False)
    one = speed.summary([ran(16, 9, slab=64)], 64)
    assert one["seconds"] == pytest.approx(9 * 64 / 16)
    assert one["memory_complete"] is False
    assert speed.summary([{"rows": 4, "stopped": True}], 64)["seconds"] is None


def test_the_table_marks_what_was_extrapolated_or_not_measured():
    size = (512, 2048, 2048)
    cells = {
        speed.key(size, "FBP"): speed.summary([ran(2048, 61.23)], 2048),
        speed.key(size, "SIRT"): speed.summary([ran(8, 4.0), ran(12, 6.0)], 2048),
        speed.key(size, "ASTRA"): speed.summary([{"rows": 4, "failed": "no such module"}], 2048),
    }
    table = speed.table_of(cells, [size], ["FBP", "SIRT", "ASTRA"], gpu=False)
    assert table.rows == [["512 x 2048 x 2048", "61.2", "1.00", "~1 020", ">= 1.00", "-", "-"]]
    assert "SIRT 512 x 2048 x 2048: 12" in table.note
    assert "ASTRA at 2048: no such module" in table.note
    assert run_all.problems({"tables": [common.dataclasses.asdict(table)]}) == []


def test_cells_are_kept_for_the_same_conditions_only(tmp_path):
    path = tmp_path / "speed.json.partial"
    path.write_text(json.dumps({"conditions": {"minutes": 2}, "cells": {"a": 1}}))
    assert speed.earlier_cells((path,), {"minutes": 2}) == {"a": 1}
    assert speed.earlier_cells((path, tmp_path / "none.json"), {"minutes": 3}) == {}


def test_a_child_that_takes_too_long_is_stopped():
    with pytest.raises(common.subprocess.TimeoutExpired):
        common.peak_rss_of([sys.executable, "-c", "import time; time.sleep(60)"], limit_seconds=0.2)


def test_results_that_cannot_be_are_named():
    table = {"title": "t", "columns": ["a", "b"], "rows": [["x", 1.0], ["y", float("nan")], ["z", None]]}
    found = run_all.problems({"tables": [table]})
    assert found == ["table 't', row 'y': nan", "table 't', row 'z': nothing was measured"]
    assert run_all.problems({"tables": []}) == ["it has no table"]
    short = {**table, "rows": [["x"]]}
    assert "1 cells in a row of 2 columns" in run_all.problems({"tables": [short]})[0]


@pytest.fixture
def in_process(monkeypatch):
    """Run the commands of a benchmark in this process: starting four of them would take most of the test's time."""

    def run(command, limit_seconds=None):
        result = CliRunner().invoke(main, command[command.index("cryolithe") + 1 :])
        assert result.exit_code == 0, result.output
        return common.ChildRun(1.0, 2, 3)

    monkeypatch.setattr(empiar, "peak_rss_of", run)


def copy_of(number, name, data):
    manifest = read_manifest(ROOT / "training_data" / f"empiar_{number}.yaml")
    fake_entry(manifest, (name,), data / f"EMPIAR-{number}")
    return manifest, data / f"EMPIAR-{number}"


@pytest.mark.slow
def test_a_series_with_halves_and_target_is_measured(tmp_path, in_process):
    manifest, root = copy_of("11830", "tomo_001", tmp_path)
    pair = manifest.select(("tomo_001",))[0]
    case = empiar.prepare(manifest, pair, root, tmp_path / "work", None)
    assert (case.halves, case.thickness, case.notes) == ("frames", 32, ())
    assert case.held_out == (3, 8, 13, 18, 23, 28, 33, 38)
    kept = read_tilt_series(case.folder / "kept.mrc", case.folder / "kept.tlt")
    whole = read_tilt_series(case.folder / "tilts.mrc", case.folder / "tilts.tlt")
    assert len(kept.images) == 33
    assert not {whole.geometry.angles_deg[n - 1] for n in case.held_out} & set(kept.geometry.angles_deg)
    assert set(case.inputs) == {path.as_posix() for path in manifest.paths(pair).values()}
    found = empiar.measure(case, "FBP", "cpu")
    assert found["held_out_images"] == 8
    assert found["warnings"] == []
    for name in ("held_out_correlation", "halves_fsc_measured", "target_fsc_measured"):
        assert 0.2 < found[name] < 1, name
    assert found["wedge_fill"] < 0.5
    assert found["target_polarity"] == "same"
    (case.folder / "tilts.mrc").unlink()
    assert empiar.measure(case, "FBP", "cpu") == found  # from the folder, not made again


@pytest.mark.slow
def test_a_series_without_halves_or_target_is_split_by_images(tmp_path):
    manifest, root = copy_of("10045", "11", tmp_path)
    pair = manifest.select(("11",))[0]
    (root / manifest.paths(pair)["target"]).unlink()
    case = empiar.prepare(manifest, pair, root, tmp_path / "work", None)
    assert case.halves == "images"
    assert case.thickness == empiar.ENTRIES["10045"]
    assert "even and odd numbers" in case.notes[0]
    angles = [read_tilt_series(case.folder / f"{n}.mrc", case.folder / f"{n}.tlt").geometry.angles_deg
              for n in ("even", "odd")]  # fmt: skip
    assert (len(angles[0]), len(angles[1])) == (21, 20)
    assert not set(angles[0]) & set(angles[1])
    assert read_mrc(case.folder / "tilts.mrc").data.shape == (41, 72, 64)  # binned by 4


def test_what_is_missing_or_differs_is_said(tmp_path):
    manifest, root = copy_of("11830", "tomo_001", tmp_path)
    pair = manifest.select(("tomo_001",))[0]
    wrong = pair.model_copy(update={"measured": Measured(angles=FileFacts(sha256="0" * 64))})
    with pytest.raises(InputError, match=r"proj_CTF\.tlt: expected sha256 0000.* fetch it again"):
        empiar.prepare(manifest, wrong, root, tmp_path / "work", None)
    (root / manifest.paths(pair)["angles"]).unlink()
    with pytest.raises(InputError, match=r"proj_CTF\.tlt does not exist; docs/benchmark_on_empiar\.md"):
        empiar.prepare(manifest, pair, root, tmp_path / "work", None)
    with pytest.raises(InputError, match="holds none of the folders EMPIAR-10045"):
        empiar.manifests("", tmp_path / "nowhere")
    with pytest.raises(InputError, match="no entry '10046'"):
        empiar.manifests("10046", tmp_path)
    assert set(empiar.manifests("", tmp_path)) == {"11830"}


def test_the_page_names_what_is_there():
    page = (ROOT / "docs" / "benchmark_on_empiar.md").read_text(encoding="utf-8")
    for number in empiar.ENTRIES:
        assert f"empiar_{number}.yaml" in page
        manifest = read_manifest(ROOT / "training_data" / f"empiar_{number}.yaml")
        assert f"{manifest.voxel_size_angstrom:.3g} Å" in page
    for method in empiar.METHOD_WORDS:
        assert method in page
    assert np.isclose(171_967_488, 1024 + 41 * 1024**2 * 4)


def test_a_dry_run_on_gpus_lists_every_part_and_every_test_that_it_names():
    found = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", "--dry-run"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert [line.partition(":")[0] for line in found.stdout.splitlines() if line[0] != " "] == [
        "a",
        "b",
        "big",
        "c",
        "d",
    ]
    assert "41 x 800 x 800 -> 400: --model default" in found.stdout
    for test in gpu.TESTS:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8") if name else (ROOT / path).is_file()


def test_stages_are_timed_while_they_are_watched_and_only_then():
    clock, stages = gpu_cell.Clock(), (("text", "cryolithe.cli.plain", "plain"), ("gone", "cryolithe.cli.plain", "no"))
    from cryolithe.cli import plain as module

    with clock.watching(stages):
        assert module.plain("a") == "a"
    module.plain("b")
    assert list(clock.rounded()) == ["text"]
    assert not hasattr(module, "no")


def test_the_words_of_a_cell_are_those_of_the_command(tmp_path):
    stack = gpu.written(tmp_path, (16, 24))
    words = [str(stack), str(stack.with_suffix(".tlt")), "-o", str(tmp_path / "v.mrc"), "--thickness", "8"]
    run = gpu_cell.job_of([*words, "--device", "cpu", "--method", "fbp"])
    assert run.grid.shape == (8, 16, 24)
    assert run.series.geometry.tilts == gpu.TILTS
    assert run.job.settings.method == "fbp"
