"""A session on a Dask cluster: a real scheduler and real worker processes on this machine."""

from __future__ import annotations

import json
import os
import signal

import pytest
from tiny_series import ANGLES, made, run, write_series

from cryolithe.errors import DeviceError
from cryolithe.session.cluster import cluster_client, granted_threads, run_on_cluster
from cryolithe.session.tasks import Session, find_tasks

distributed = pytest.importorskip("distributed")

SETTINGS = {"method": "fbp", "thickness": 10, "device": "cpu"}
FLAGS = ("--method", "fbp", "--thickness", 10, "--device", "cpu")


@pytest.fixture(scope="module")
def cluster():
    # A worker that is killed needs its nanny to come back.
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options, silence_logs=50) as made_cluster:
        yield made_cluster


def session(folder):
    folder.mkdir()
    for name in ("one", "two", "three"):
        write_series(folder, name=name)
    (folder / "bad.st").write_bytes(b"no stack")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_makes_the_same_files_and_a_killed_worker_loses_nothing(cluster, tmp_path):
    local, spread = (session(tmp_path / name) for name in ("local", "spread"))
    assert run(local, *FLAGS).exit_code == 1
    marker = tmp_path / "killed"

    def low_slabs_and_one_death(target, mark):
        from pathlib import Path

        from cryolithe.reconstruction.slabwise import plan
        from cryolithe.work.folder import WorkFolder

        plan.MOST_SLAB_ROWS = 8
        done = WorkFolder.done

        def die(self, slab):
            done(self, slab)
            if self.path.name == target and len(self.slabs) == 2 and not Path(mark).exists():
                Path(mark).write_text(str(self.path))
                os.kill(os.getpid(), signal.SIGKILL)

        WorkFolder.done = die

    with distributed.Client(cluster) as client:
        client.run(low_slabs_and_one_death, "two_rec.mrc.partial", str(marker))
        tasks, _ = find_tasks(Session(spread), SETTINGS, {}, "")
        outcomes = {outcome.task.name: outcome for outcome in run_on_cluster(tasks, client)}
    assert marker.exists()
    found = {name: outcome.status for name, outcome in outcomes.items()}
    if found["one"] == "skipped":  # made, but the worker died before its answer was fetched: it was asked for again
        found["one"] = "done"
    assert found == {"bad": "failed", "one": "done", "two": "done", "three": "done"}
    for name in ("one", "two", "three"):
        assert (spread / f"{name}_rec.mrc").read_bytes() == (local / f"{name}_rec.mrc").read_bytes()
        assert (spread / f"{name}_rec.png").exists()
    assert not list(spread.glob("*.partial"))


@pytest.mark.filterwarnings("ignore")
def test_the_command_sends_a_list_with_an_alignment_to_a_running_scheduler(cluster, tmp_path):
    stack, angles = write_series(tmp_path)
    (tmp_path / "ts.xf").write_text("1 0 0 1 2.5 -1\n" * len(ANGLES))
    listing = tmp_path / "list.csv"
    listing.write_text("tilts,angles,xf\nts.mrc,ts.tlt,ts.xf\n")
    result = made(listing, *FLAGS, "--scheduler", cluster.scheduler_address)
    assert "ts_rec.mrc: 10 x" in result.stdout
    assert (tmp_path / "cryolithe_summary.html").exists()
    made(stack, angles, "--xf", tmp_path / "ts.xf", *FLAGS, "-o", tmp_path / "local.mrc")
    assert (tmp_path / "ts_rec.mrc").read_bytes() == (tmp_path / "local.mrc").read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("given", [1, 2, 3])
def test_a_worker_uses_the_threads_that_it_was_given(given, tmp_path):
    """Dask's nanny tells the libraries to use one, whatever the worker has."""
    write_series(tmp_path)
    options = {"n_workers": 1, "threads_per_worker": given, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options, silence_logs=50) as cluster, distributed.Client(cluster) as client:
        assert client.submit(os.environ.get, "OMP_NUM_THREADS").result() == "1"
        tasks, _ = find_tasks(Session(tmp_path), SETTINGS, {}, "")
        assert [outcome.status for outcome in run_on_cluster(tasks, client)] == ["done"]
    assert json.loads((tmp_path / "ts_rec.json").read_text())["compute"]["threads"] == given


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("cores", "workers", "each"), [(7, 2, 3), (2, None, 2), (1, 4, 1), (3, 3, 1)])
def test_local_workers_share_the_cores(cores, workers, each, monkeypatch):
    asked = []

    def cluster(**options):
        asked.append(options)
        raise ValueError("far enough")

    monkeypatch.setattr("cryolithe.session.cluster.usable_cores", lambda: cores)
    monkeypatch.setattr(distributed, "LocalCluster", cluster)
    with pytest.raises(DeviceError, match="far enough"), cluster_client("local", workers):
        pass
    assert (asked[0]["n_workers"], asked[0]["threads_per_worker"]) == (workers or 1, each)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nthreads", "environment", "beside", "expected"),
    [
        (8, {}, 1, 8),
        (1, {}, 1, 1),
        (1, {"SLURM_CPUS_PER_TASK": "16"}, 1, 16),
        (4, {"SLURM_CPUS_PER_TASK": "16"}, 4, 4),
        (1, {"SLURM_CPUS_PER_TASK": "16"}, 4, 4),
        (1, {"SLURM_CPUS_PER_TASK": "2"}, 4, 1),
        (1, {"SLURM_CPUS_PER_TASK": "many"}, 1, 1),
    ],
)
def test_a_worker_of_slurm_has_the_cores_of_its_job(nthreads, environment, beside, expected):
    assert granted_threads(nthreads, environment, beside) == expected


@pytest.mark.slow
def test_wrong_schedulers_are_refused_in_one_line(tmp_path):
    write_series(tmp_path)
    assert "expected local, slurm or an address" in run(tmp_path, *FLAGS, "--scheduler", "pbs").stderr
    assert "--workers is for" in run(tmp_path, *FLAGS, "--scheduler", "tcp://x:1", "--workers", 2).stderr
