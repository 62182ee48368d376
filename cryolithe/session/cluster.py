"""A session's tasks on several machines, through Dask: the same files as a local run.

Dask is an optional dependency: ``pip install cryolithe[dask]``. Each series is one task of the scheduler. A worker that
dies gives its series back; whoever takes it goes on from its journal, which lies in the output folder that all
workers must see under the same path. A series that failed because memory or a device gave out is tried again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from cryolithe.errors import DeviceError, ResourceError, SettingsError
from cryolithe.machine.extras import install_command
from cryolithe.machine.limits import usable_cores
from cryolithe.session.batch import Outcome, one_line, run_task
from cryolithe.session.tasks import Task
from cryolithe.work.watcher import Logged

RETRIES = 2
# A worker with several threads would run several series at once, each with all the memory and cores.
_ONE_AT_A_TIME = threading.Lock()


def granted_threads(nthreads: int, environment: Mapping[str, str], workers: int) -> int:
    """Threads that a worker may use; Dask's nanny tells its libraries to use one, whatever it has.

    Args:
        nthreads: of the worker.
        environment: of its process; a job of SLURM says there how many cores it has.
        workers: that share that job.
    """
    cores = environment.get("SLURM_CPUS_PER_TASK", "")
    if nthreads > 1 or not cores.isdecimal():
        return nthreads
    return max(1, int(cores) // workers)


def _workers_beside() -> int:
    """Workers that the nannies of this one's parent have started, this one with them."""
    import psutil

    try:
        parent = psutil.Process().parent()
        beside = parent.children() if parent else []
        return max(1, sum("spawn_main" in " ".join(process.cmdline()) for process in beside))
    except psutil.Error:
        return 1


def _take_threads() -> None:
    """Use what this worker was given; nothing changes outside of a worker."""
    import torch
    from distributed import get_worker

    try:
        nthreads = get_worker().state.nthreads
    except ValueError:
        return
    torch.set_num_threads(granted_threads(nthreads, os.environ, _workers_beside()))


def work(task: Task) -> Outcome:
    """Reconstruct one series in a worker, with all of its threads.

    Raises:
        ResourceError: if memory or a device gave out, so that the scheduler tries again elsewhere.
    """
    with _ONE_AT_A_TIME:
        _take_threads()
        return run_task(task, Logged("distributed.worker"), raises=(ResourceError, DeviceError, MemoryError))


def check_scheduler(scheduler: str, workers: int | None) -> None:
    """Refuse what names no scheduler; nothing is connected.

    Raises:
        SettingsError: if the scheduler is unknown, or workers are wanted of a running one.
    """
    if "://" not in scheduler and scheduler not in ("local", "slurm"):
        raise SettingsError(f"--scheduler {scheduler}: expected local, slurm or an address like tcp://host:8786")
    if "://" in scheduler and workers is not None:
        raise SettingsError("--workers is for schedulers that are started here; this one has its own")


@contextmanager
def cluster_client(scheduler: str, workers: int | None) -> Iterator[Any]:
    """Connect to a scheduler, or start one.

    Args:
        scheduler: ``"local"``, ``"slurm"`` or the address of a running one, ``tcp://host:port``.
        workers: how many to start; not for a running scheduler, which has its own.

    Raises:
        SettingsError: if the scheduler is unknown or Dask is missing.
        DeviceError: if the scheduler does not answer, or cannot be started.
    """
    check_scheduler(scheduler, workers)
    distributed = _import("distributed", "dask")
    with ExitStack() as stack:
        try:
            if scheduler == "local":
                count = workers or 1
                each = max(1, usable_cores() // count)
                made = distributed.LocalCluster(
                    n_workers=count, threads_per_worker=each, processes=True, dashboard_address=None
                )
                client = stack.enter_context(distributed.Client(stack.enter_context(made)))
            elif scheduler == "slurm":
                jobqueue = _import("dask_jobqueue", "dask")
                made = stack.enter_context(jobqueue.SLURMCluster())
                made.scale(jobs=workers or 1)
                client = stack.enter_context(distributed.Client(made))
            else:
                client = stack.enter_context(distributed.Client(scheduler, timeout="10s"))
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise DeviceError(f"no Dask scheduler at '{scheduler}': {one_line(error)}; check its address") from error
        yield client


def run_on_cluster(tasks: Sequence[Task], client: Any) -> Generator[Outcome, None, None]:
    """Reconstruct series on the workers of a scheduler and yield what became of each, in the order of finishing.

    Raises:
        SettingsError: if Dask is not installed.
    """
    distributed = _import("distributed", "dask")
    futures = {
        client.submit(work, task, key=f"cryolithe-{number}-{task.name}", pure=False, retries=RETRIES): task
        for number, task in enumerate(tasks)
    }
    try:
        for future in distributed.as_completed(futures):
            error = future.exception()
            if error is None:
                yield future.result()
            else:
                task = futures[future]
                yield Outcome(task, "failed", f"{task.job.tilts}: failed: {one_line(error)}", {})
    finally:
        client.cancel(list(futures))


def _import(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SettingsError(f"--scheduler needs the package {module}: {install_command(extra)}") from error
