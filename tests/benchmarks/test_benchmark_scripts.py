"""The benchmarks on sizes and on deposited data: extrapolation, tables, simulated copies, sanity checks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command import good
from fake_entry import fake_entry

from cryolithe.curation.manifest import FileFacts, Measured, read_manifest
from cryolithe.errors import InputError
from cryolithe.formats import read_mrc, read_tilt_series
from cryolithe.optimise.distributed import Place

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import common  # noqa: E402
import empiar  # noqa: E402
import gpu  # noqa: E402
import gpu_cell  # noqa: E402
import gpu_roofline  # noqa: E402
import loader_scaling  # noqa: E402
import regressions  # noqa: E402
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
    small = speed.summary([ran(16, 9), ran(32, 17, slab=64)], 64)
    assert small["memory_complete"] is False
    # One part alone may be all start and rows beyond its ends.
    one = speed.summary([ran(8, 175), {"rows": 24, "stopped": True}], 2048)
    assert (one["seconds"], one["why"]) == (None, "more than the limit for 24 rows")
    assert speed.summary([{"rows": 4, "stopped": True}], 64)["seconds"] is None
    # Nor do two whose seconds are nearly those of the start tell what a row takes.
    start = speed.summary([ran(8, 82.4), ran(24, 89.2), {"rows": 72, "stopped": True}], 1024)
    assert (start["seconds"], start["why"]) == (None, "24 rows take hardly longer than 8")


@pytest.mark.parametrize("start", [1.0, 50.0])
def test_a_long_start_is_not_taken_for_the_time_of_rows(monkeypatch, start):
    """A network that looks at its series takes most of a minute before the first row, and once more to compile."""
    asked = []

    def run(bench, size, method, rows, expected_seconds=0.0):
        asked.append(rows)
        assert expected_seconds == (0.0 if len(asked) != 2 else rows / 8 * (start + 0.3 * 8 + 20))
        return ran(rows, start + 0.3 * rows + (20 if len(asked) == 1 else 0))

    monkeypatch.setattr(speed.Bench, "run", run)
    found = speed.Bench("cpu", 4.0, 0.5, None).cell((512, 512, 512), "default")
    assert found["seconds"] == pytest.approx(start + 0.3 * 512, rel=0.02)
    assert max(asked) < 512


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


def test_a_run_of_other_cells_keeps_those_measured_and_a_fresh_one_measures_what_is_asked(tmp_path, monkeypatch):
    asked = []

    def cell(bench, size, method):
        asked.append(method)
        runs = [{**ran(size[1], 2.0 + len(asked)), "peak_bytes": 10**9}]
        return {"runs": runs, **speed.summary(runs, size[1])}

    monkeypatch.setattr(speed.Bench, "cell", cell)

    def rows(*words):
        output = tmp_path / "s.json"
        monkeypatch.setattr(sys, "argv", ["speed.py", "--quick", "--workdir", str(tmp_path), "--output", str(output)])
        sys.argv += ["--methods", *words]
        speed.main()
        (table,) = json.loads(output.read_text())["tables"]
        return dict(zip(table["columns"], table["rows"][0], strict=True))

    assert "fast s" not in rows("FBP")
    both = rows("fast,FBP")
    assert asked == ["FBP", "fast"]
    again = rows("FBP", "--fresh")
    assert asked == ["FBP", "fast", "FBP"]
    assert again["fast s"] == both["fast s"]
    assert again["FBP s"] != both["FBP s"]


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
        good(*command[command.index("cryolithe") + 1 :])
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


@pytest.mark.slow
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


def test_what_a_stopped_run_on_a_gpu_leaves_does_not_reach_the_next(monkeypatch):
    seen = []

    def stopped(words, seconds):
        output = Path(words[words.index("-o") + 1])
        seen.append(sorted(output.parent.iterdir()))
        output.with_name("volume.mrc.partial").mkdir()
        (output.parent / "volume.mrc.partial" / "rows").write_bytes(b"half")
        return {"exit_code": None, "seconds": seconds, "output": "stopped"}

    monkeypatch.setattr(gpu, "run", stopped)
    cells = [gpu.Cell((16, 24), 8, ("--method", method)) for method in ("sirt", "fbp")]
    saved = []
    found = gpu.measure(cells, saved.append)
    assert seen == [[], []]
    assert [cell["failed"]["output"] for cell in found["cells"].values()] == ["stopped", "stopped"]
    assert len(saved) == 2


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


@pytest.mark.slow
@pytest.mark.parametrize("model", ["default", "draft", "fbp", "sirt"])
def test_a_roofline_has_every_stage_of_a_method(model, monkeypatch, capsys, tmp_path):
    size = ("--series", "7", "16", "24", "--depth", "12", "--rows", "8", "--repeats", "1")
    words = ["gpu_roofline.py", "--device", "cpu", "--model", model, *size, "--output", str(tmp_path / "r.json")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    gpu_roofline.main()
    printed = capsys.readouterr().out
    (table,) = json.loads((tmp_path / "r.json").read_text())["tables"]
    rows = {row[0]: row for row in table["rows"]}
    assert all(name in printed for name in rows)
    expected = {"fbp": ["filter", "back-projection"], "sirt": ["projection", "back-projection"]}.get(
        model, ["filter", "lift", "pool", "encode", "join", "synthesis", "fusion: planes", "fusion: back-projection"]
    )
    expected = [*expected, "copy: rows", "copy: voxels", *(["trunk"] if model == "default" else [])]
    assert {*rows} - {"fusion: filter", "the rest: rows kept and joined"} == {*expected}
    for name in expected:
        _, operations, moved, seconds, _, least, bound, _ = rows[name]
        assert moved > 0
        assert (operations or 0) > 0 or name.startswith("copy")
        assert seconds >= 0
        assert least > 0
        assert bound in ("operations", "memory", "link")
    if model == "fbp":  # a product and a sum for each of three pixels
        assert rows["back-projection"][1] == pytest.approx(2 * 3 * 7 * 12 * 8 * 24 / 1e9)


def test_a_roofline_is_bound_by_what_takes_longest():
    limits = gpu_roofline.Peaks(low=100.0, float32=10.0, bytes=5.0, link=1.0)

    def bound(name, operations, moved, low):
        return gpu_roofline.Stage(name, operations, moved, 1.0, low).roofline(limits)

    assert bound("join", 1000, 10, True) == (10.0, "operations")
    assert bound("join", 1000, 100, True) == (20.0, "memory")
    assert bound("pool", 1000, 100, False) == (100.0, "operations")
    assert bound("copy: rows", 0, 7, False) == (7.0, "link")


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--model", "fast"), ("--method", "fbp")])
def test_a_cell_is_measured_from_file_to_file_and_alone(words, tmp_path, monkeypatch):
    """On a CPU, where nothing but the memory of a GPU is missing."""
    stack, report = gpu.written(tmp_path, (16, 24)), tmp_path / "report.json"
    command = [stack, stack.with_suffix(".tlt"), "-o", tmp_path / "v.mrc", "--thickness", 8, "--device", "cpu", *words]
    monkeypatch.setattr(sys, "argv", ["gpu_cell.py", str(report), "--once", "--repeats", "1", "--", *map(str, command)])
    gpu_cell.main()
    found = json.loads(report.read_text())
    assert "failed" not in found["cold"], found
    assert "failed" not in found["compute"], found
    assert found["cold"]["stages"]["write"] > 0
    assert ("comparison" in found["cold"]["stages"]) == (words[0] == "--model")
    cells = {"cell": {**found, "process_seconds": 1.0}}
    assert gpu.summary(cells["cell"])["compute"] > 0
    (row,) = gpu.table_of(cells, "CPU")["rows"]
    assert row[1] == found["compute"]["seconds"]
    (table,) = gpu.rooflines(cells)
    assert table["title"] == "Roofline of cell"
    assert any(row[0].endswith("back-projection") for row in table["rows"])


@pytest.mark.slow
def test_the_loader_is_measured_against_threads_and_processes():
    assert loader_scaling.counts(1) == [0, 1]
    assert loader_scaling.counts(6) == [0, 1, 2, 4, 6]
    config, place = loader_scaling.recipe("fast", (24, 32, 32)), Place(torch.device("cpu"))
    found = {"threads": loader_scaling.of_threads(config, place, (0, 1), 0.01)}
    found["workers"] = loader_scaling.of_workers(config, (0,), 0.01)
    assert all(row["points_per_second_of_training"] > 0 for row in found["threads"])
    threads, workers = loader_scaling.tables_of(found)
    assert [row[0] for row in threads["rows"]] == [0, 1]
    assert len(threads["columns"]) == len(threads["rows"][0])
    assert workers["rows"][0][1] > 0


def test_two_checkouts_are_run_in_turn_and_neighbours_compared(monkeypatch):
    asked = []

    def seconds_of(tree, words):
        asked.append(tree)
        return (
            (len(asked) * (2.0 if tree == "this" else 1.0), "") if "broken" not in words else (None, "no such option")
        )

    monkeypatch.setattr(regressions, "seconds_of", seconds_of)
    found = regressions.compared(("this", "other"), ["words"], 2)
    assert asked == ["this", "other", "other", "this", "this", "other"]
    assert found == {"this": [8.0, 10.0], "other": [3.0, 6.0]}  # without the first round
    assert regressions.row_of("FBP", found) == ("FBP", 9.0, 4.5, (8 / 3 + 10 / 6) / 2)
    failed = regressions.compared(("this", "other"), ["broken"], 2)
    assert regressions.row_of("new", failed) == ("new (this: no such option)", None, None, None)


def test_cases_of_two_checkouts_are_commands(tmp_path):
    for case in regressions.CASES:
        words = regressions.words_of(case, 16, tmp_path)
        if words == ["--help"]:
            continue
        assert words[0] == "reconstruct"
        run = gpu_cell.job_of(words[1:])
        side = max(8, int(16 * case.share))
        assert run.grid.shape == (side, side, side)
