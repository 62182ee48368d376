"""One cell of gpu.py, in a process of its own: a series from file to file, and its slabs alone, stage by stage.

Stages of the run from file to file are timed on the thread that does them: those of reading, computing and writing
overlap, so that their sum may exceed the whole. Stages of the computation are those of gpu_roofline.py.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import resource
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gpu_roofline
import torch

# (stage, module, name) of what the command calls while it works.
FILE_STAGES = (
    ("hash", "cryolithe.formats.reading", "file_sha256"),
    ("read and check", "cryolithe.reconstruction.run", "check_images"),
    ("preparation", "cryolithe.reconstruction.run", "prepare_run"),
    ("comparison", "cryolithe.reconstruction.setup.settling", "measure_curve"),
    ("wedge trust", "cryolithe.reconstruction.setup.settling", "measure_trust"),
    ("method", "cryolithe.reconstruction.run", "make_method"),
    ("slabs in all", "cryolithe.reconstruction.run", "make_slabs"),
    ("rows", "cryolithe.reconstruction.images.prepared_stack", "PreparedStack.read_rows"),
    ("compute", "cryolithe.reconstruction.slabwise.slabs", "compute_slab"),
    ("pin and send rows", "cryolithe.reconstruction.slabwise.copying", "CopyStream.send"),
    ("wait for voxels", "cryolithe.reconstruction.slabwise.copying", "CopyStream.landed"),
    ("scale", "cryolithe.reconstruction.run", "scaled"),
    ("finite", "cryolithe.reconstruction.run", "all_finite"),
    ("cast", "cryolithe.formats.stacks.mrc_writer", "VolumeWriter.cast"),
    ("write", "cryolithe.formats.stacks.mrc_writer", "VolumeWriter.write_rows"),
    ("sync", "cryolithe.formats.stacks.mrc_writer", "VolumeWriter.sync"),
    ("statistics", "cryolithe.formats.stacks.running_statistics", "RunningStatistics.add"),
    ("checksum", "cryolithe.reconstruction.slabwise.storing", "checksum"),
    ("self-check", "cryolithe.reconstruction.run", "self_check"),
    ("finish", "cryolithe.reconstruction.run", "finish"),
)


class Clock:
    """Seconds by stage, from any thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, with its seconds added to a stage."""

        def wrapped(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                with self._lock:
                    self.seconds[stage] += time.perf_counter() - start

        return wrapped

    @contextlib.contextmanager
    def watching(self, stages: tuple[tuple[str, str, str], ...]) -> Iterator[None]:
        """Time functions and methods by their names while the context lasts; names that are gone are left out."""
        replaced = []
        for stage, module, name in stages:
            owner: Any = importlib.import_module(module)
            *path, last = name.split(".")
            for part in path:
                owner = getattr(owner, part, None)
            if (original := getattr(owner, last, None)) is None:
                continue
            replaced.append((owner, last, original))
            setattr(owner, last, self.timed(stage, original))
        try:
            yield
        finally:
            for owner, last, original in replaced:
                setattr(owner, last, original)

    def rounded(self) -> dict[str, float]:
        """What was found, the longest first."""
        return {name: round(seconds, 4) for name, seconds in sorted(self.seconds.items(), key=lambda item: -item[1])}


def finish(device: torch.device) -> None:
    """Wait for all that a device was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak() -> None:
    """Begin anew to look for the largest memory of the GPU."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def gpu_peak_bytes() -> int:
    """The largest that was allocated since then; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def from_file_to_file(words: list[str], output: Path) -> dict[str, Any]:
    """The command in this process."""
    from cryolithe.cli import main

    clock = Clock()
    forget_peak()
    start = time.perf_counter()
    with clock.watching(FILE_STAGES):
        main(["reconstruct", *words], standalone_mode=False)
    seconds = time.perf_counter() - start
    record = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
    return {
        "seconds": seconds,
        "stages": clock.rounded(),
        "gpu_peak_bytes": gpu_peak_bytes(),
        "host_peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "compute": record["compute"],
        "shape_zyx": record["volume"]["shape_zyx"],
    }


def compute_alone(words: list[str], repeats: int) -> dict[str, Any]:
    """All slabs of the same run with random rows that lie on the GPU; results stay there and are dropped."""
    from cryolithe.reconstruction import run as runs
    from cryolithe.reconstruction.setup.fitting import fit
    from cryolithe.reconstruction.slabwise.methods import NetworkMethod
    from cryolithe.reconstruction.slabwise.networks import fbp_share

    run = job_of(words)
    planned = fit(run)
    plan: dict[str, Any] = {"slab_rows": planned.slab_rows, "batch": planned.batch}
    if run.model is not None and fbp_share(run.model, run.job.settings.fbp_share):
        plan["fusion"] = gpu_roofline.FLAT.record()
    stack: Any = argparse.Namespace(geometry=run.series.geometry, slow=None)
    method: Any = runs.make_method(run, stack, plan, lambda rows: None, run.device)
    height, width = run.grid.shape[1:]
    generator = torch.Generator(run.device).manual_seed(0)

    def rows_of(slab: int) -> torch.Tensor:
        shape = (run.series.geometry.tilts, slab + (-slab % method.row_multiple) + 2 * method.halo_px, width)
        return torch.randn(shape, generator=generator, device=run.device)

    slabs = [min(planned.slab_rows, height - first) for first in range(0, height, planned.slab_rows)]

    def whole() -> None:
        for slab in slabs:
            method(rows_of(slab))
        finish(run.device)

    method(rows_of(slabs[0]))  # compiles
    finish(run.device)
    forget_peak()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        whole()
        seconds.append(time.perf_counter() - start)
    found = {
        "seconds": statistics.median(seconds),
        "repeats": seconds,
        "gpu_peak_bytes": gpu_peak_bytes(),
        "predicted_bytes": planned.device_bytes,
        "slab_rows": planned.slab_rows,
        "batch": planned.batch,
        "precision": str(run.precision),
        "pooling": method.engine.pooling if isinstance(method, NetworkMethod) else None,
    }
    precision = run.precision if isinstance(method, NetworkMethod) else torch.float32
    stages = gpu_roofline.measured(method, rows_of(slabs[0]).cpu(), height / slabs[0])
    found["stages"] = {stage.name: round(stage.seconds, 4) for stage in stages}
    limits = gpu_roofline.peaks(run.device, precision)
    found["roofline"] = gpu_roofline.table_of(stages, limits, "")
    found["kernels"] = _kernels(method, rows_of(slabs[0]), height / slabs[0])
    return found


def _kernels(method: Any, rows: torch.Tensor, times: float) -> dict[str, list[float]]:
    """Seconds and launches of the kernels that take longest, in one slab, times the slabs of the volume."""
    if method.device.type != "cuda":
        return {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        method(rows)
        torch.cuda.synchronize()
    kernels = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)[:16]
    return {e.key[:110]: [round(times * e.self_device_time_total / 1e6, 4), round(times * e.count)] for e in kernels}


def job_of(words: list[str]) -> Any:
    """The resolved job of a command's words."""
    from cryolithe.cli.reconstruct import command
    from cryolithe.reconstruction.jobs.job import Job, resolve
    from cryolithe.settings import ReconstructSettings

    context = command.make_context("reconstruct", list(words))
    given = {
        name: value
        for name, value in context.params.items()
        if name in ReconstructSettings.model_fields and value is not None
    }
    places = context.params
    return resolve(Job(places["tilts"], places["angles"], places["output"], ReconstructSettings(**given)))


def main() -> None:
    """Measure the cell that the command line names; write what was found into a file, part by part."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("report", type=Path)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--once", action="store_true", help="one run from file to file, not a cold and a warm one")
    arguments, words = options.parse_known_args()
    words = [word for word in words if word != "--"]
    output = Path(words[words.index("-o") + 1])
    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}

    def keep(name: str, call: Callable[[], dict[str, Any]]) -> None:
        try:
            found[name] = call()
        except BaseException as error:  # the other parts are to be measured all the same
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:2000]}
        arguments.report.write_text(json.dumps(found), encoding="utf-8")

    keep("cold", lambda: from_file_to_file(words, output))
    if not arguments.once:
        keep("warm", lambda: from_file_to_file([*words, "--overwrite"], output))
    keep("compute", lambda: compute_alone([*words, "--overwrite"], arguments.repeats))


if __name__ == "__main__":
    main()
