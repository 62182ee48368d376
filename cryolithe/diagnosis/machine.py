"""The installation and the machine: versions, processor, compiler, GPUs, memory."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import warnings
from pathlib import Path

import psutil
import torch

from cryolithe import __version__
from cryolithe.diagnosis.finding import OK, PROBLEM, WARNING, Finding
from cryolithe.inference.pooling import compiled_cache
from cryolithe.machine.device import (
    cpu_features,
    network_precision,
    nvidia_driver_loaded,
    precision_name,
    precision_reason,
    why_no_cuda,
)
from cryolithe.machine.limits import group_limits, usable_cores

# module -> name of its distribution
NEEDED = {"torch": "torch", "numpy": "numpy", "h5py": "h5py", "mrcfile": "mrcfile", "pywt": "PyWavelets"}
ENGINES = {"tomosipo": "tomosipo", "astra": "astra-toolbox"}
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
LITTLE_MEMORY_BYTES = 2 << 30


def version(module: str, distribution: str) -> str | None:
    """Version of an installed package, without importing it; None if it is not there, "unknown" if it does not say."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def versions() -> Finding:
    """The versions of this program, of Python, of the packages that are needed, and of the system."""
    found = {name: version(module, name) for module, name in {**NEEDED, "numba": "numba"}.items()}
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    values = {"cryolithe": __version__, "python": platform.python_version(), **found, "system": system}
    text = ", ".join(f"{name} {number or 'absent'}" for name, number in values.items() if name != "system")
    missing = [name for name in NEEDED.values() if found[name] is None]
    advice = f"python -m pip install {' '.join(missing)}" if missing else ""
    return Finding("versions", PROBLEM if missing else OK, f"{text}; {system}", advice, values)


def optional_engines() -> Finding:
    """Whether the projectors of others are there; nothing needs them."""
    found = {module: version(module, name) for module, name in ENGINES.items()}
    text = ", ".join(f"{module} {number or 'not installed'}" for module, number in found.items())
    return Finding("optional", OK, f"{text} (nothing needs them)", values=found)


def processor() -> Finding:
    """Model, cores that may be used, and the instruction sets that matter."""
    features = cpu_features()
    sets = [name for name in INSTRUCTION_SETS if name in features]
    lacking = [name for name in INSTRUCTION_SETS if name not in features]
    usable, quota = usable_cores(), group_limits().cores
    text = f"{cpu_model()}; {usable} of {os.cpu_count()} cores"
    text += f", limited to {quota:g} by a control group" if quota is not None and quota < usable else ""
    text += f"; {', '.join(sets) or 'no instruction sets known'}"
    text += f" (not {', '.join(lacking)})" if sets and lacking else ""
    values = {
        "model": cpu_model(),
        "cores_of_machine": os.cpu_count(),
        "cores_usable": usable,
        "cores_quota": quota,
        "instruction_sets": sets,
    }
    # Other systems do not list instruction sets: that none is known there says nothing.
    slow = bool(features) and "avx2" not in sets
    return Finding(
        "processor", WARNING if slow else OK, text, "expect low speed: AVX2 is missing" if slow else "", values
    )


def cpu_model() -> str:
    """The processor's name, as its maker calls it where the system tells."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


def checkout_commit() -> str | None:
    """Hash of the checkout that runs, with "-dirty" where more than results differs; None for an installed package."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    results = (":(exclude)benchmarks/results", ":(exclude)cryolithe/network/bundled/*.scores.json")
    try:
        changed = git("status", "--porcelain", "--", ".", *results)
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def precision(device: torch.device) -> Finding:
    """What ``--precision auto`` means on a device, and why."""
    chosen, reason = precision_name(network_precision("auto", device)), precision_reason(device)
    values = {"device": str(device), "auto": chosen, "reason": reason}
    return Finding("precision", OK, f"auto is {chosen} on {device}: {reason}", values=values)


def threads() -> Finding:
    """Threads that torch uses, against the cores that there are."""
    number, setting = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    cores = max(1, int(min(usable_cores(), group_limits().cores or usable_cores())))
    text = f"{number} for {cores} usable core(s)" + (f" (OMP_NUM_THREADS={setting})" if setting else "")
    values = {"torch": number, "cores": cores, "OMP_NUM_THREADS": setting}
    if number > cores:
        return Finding("threads", WARNING, text, f"set OMP_NUM_THREADS={cores}: threads wait for each other", values)
    return Finding("threads", OK, text, values=values)


def compiler() -> Finding:
    """Whether the CPU's inner loop can be compiled, and kept from one run to the next."""
    if importlib.util.find_spec("numba") is None:
        text = "numba is not installed: networks run on CPUs at about a quarter of the speed"
        return Finding("numba", WARNING, text, "python -m pip install numba", {"present": False})
    try:
        cache = compiled_cache()
    except Exception as error:  # whatever numba and LLVM raise, the rest is still to be looked at
        text = f"the inner loop cannot be compiled: {_first_line(error)}"
        advice = "install numba and llvmlite again"
        return Finding("numba", PROBLEM, text, advice, {"present": True, "error": str(error)})
    advice = "set NUMBA_CACHE_DIR to a folder that you may write"
    if cache is None:
        values: dict[str, object] = {"present": True, "cache": None, "cache_writable": False}
        return Finding("numba", WARNING, "compiled anew in each run: no folder for it can be written", advice, values)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    writable = os.access(existing, os.W_OK)
    values = {"present": True, "cache": str(cache), "cache_writable": writable}
    if not writable:
        text = f"compiled anew in each run: its cache {cache} cannot be written"
        return Finding("numba", WARNING, text, advice, values)
    return Finding("numba", OK, f"compiled code is kept in {cache}", values=values)


def gpus() -> tuple[Finding, ...]:
    """One finding for each GPU that torch sees, or the reason why it sees none; then the compiler for them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what `why_no_cuda` says
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            return (_no_gpu(why_no_cuda()),)
        found = tuple(_gpu(number) for number in range(count))
    triton = version("triton", "triton")
    if triton is None:
        text = "Triton is not installed: networks run slower on GPUs"
        return (*found, Finding("triton", WARNING, text, "python -m pip install triton", {"present": False}))
    return (*found, Finding("triton", OK, triton, values={"present": True, "version": triton}))


def _no_gpu(reason: str) -> Finding:
    values = {"visible": 0, "reason": reason, "triton": version("triton", "triton")}
    if torch.version.cuda is None and nvidia_driver_loaded():
        advice = "this machine has an NVIDIA driver: install torch with CUDA to use it (https://pytorch.org)"
    elif nvidia_driver_loaded():
        advice = "compare nvidia-smi with torch's CUDA version; look at CUDA_VISIBLE_DEVICES"
    else:
        return Finding("GPU", OK, f"none, none needed: {reason}", values=values)
    return Finding("GPU", WARNING, f"none visible: {reason}", advice, values)


def _gpu(number: int) -> Finding:
    try:
        properties = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
    except RuntimeError as error:
        text = f"it is visible but cannot be used: {_first_line(error)}"
        return Finding(f"GPU {number}", WARNING, text, "wait for other programs on it to end, or use --device cpu")
    capability = f"{properties.major}.{properties.minor}"
    native = properties.major >= 8  # Ampere
    text = f"{properties.name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free, capability {capability}, "
    values = {
        "name": properties.name,
        "free_bytes": free,
        "total_bytes": total,
        "capability": capability,
        "bf16": native,
    }
    full = free < LITTLE_MEMORY_BYTES
    advice = "end other programs on it, or use --device cpu" if full else ""
    return Finding(f"GPU {number}", WARNING if full else OK, text + ("bf16" if native else "no bf16"), advice, values)


def memory() -> Finding:
    """Memory that this process can still get."""
    state, limits = psutil.virtual_memory(), group_limits()
    free = min(state.available, limits.free_bytes if limits.free_bytes is not None else state.available)
    limit = limits.memory_bytes if limits.memory_bytes and limits.memory_bytes < state.total else None
    text = f"{free / 1e9:.1f} GB free of {state.total / 1e9:.1f} GB"
    text += f", limited to {limit / 1e9:.1f} GB by a control group" if limit else ""
    values = {"free_bytes": free, "total_bytes": state.total, "limit_bytes": limit}
    if free < LITTLE_MEMORY_BYTES:
        return Finding("memory", WARNING, text, "end other programs, or expect small slabs and low speed", values)
    return Finding("memory", OK, text, values=values)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
