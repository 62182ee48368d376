"""Devices and precisions by the names that users type."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from cryolithe.errors import DeviceError, SettingsError

_T = TypeVar("_T")

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_ROCM = "torch calls AMD's GPUs cuda, too: use --device cuda with a torch that is built for ROCm, or cpu"
# GPUs of other makers by the names that torch or users have for them.
OTHER_GPUS = {
    "mps": "Apple's GPUs are not supported (they have no float64, which coordinates are computed in); use cpu",
    "rocm": _ROCM,
    "hip": _ROCM,
    "xpu": "Intel's GPUs are not supported; use cpu",
}

# Numbers of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def choose_device(name: str) -> torch.device:
    """Device for ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.

    Raises:
        SettingsError: for any other name; GPUs that are not supported are named.
        DeviceError: if a CUDA device is asked for and cannot be used; says why.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name in OTHER_GPUS:
        raise SettingsError(f"--device {name}: {OTHER_GPUS[name]}")
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if not match:
        raise SettingsError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:0")
    if not torch.cuda.is_available():
        raise DeviceError(f"--device {name}: {why_no_cuda()}; use --device cpu or auto")
    number = int(match[1] or 0)
    if number >= torch.cuda.device_count():
        raise DeviceError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA device(s), counted from 0"
        )
    return torch.device("cuda", number)


def choose_devices(name: str) -> tuple[torch.device, ...]:
    """Devices for a name of `choose_device`, for ``cuda:0,1`` (some GPUs of this machine), or ``all`` (all of them).

    Raises:
        SettingsError: for any other name, or a GPU named twice.
        DeviceError: if a CUDA device is asked for and cannot be used; says why.
    """
    if name == "all":
        first = choose_device("cuda")
        return tuple(torch.device(first.type, number) for number in range(torch.cuda.device_count()))
    if re.fullmatch(r"cuda:\d+(,\d+)+", name):
        numbers = name.removeprefix("cuda:").split(",")
        if len({int(number) for number in numbers}) < len(numbers):
            raise SettingsError(f"--device {name} names a GPU twice")
        return tuple(choose_device(f"cuda:{number}") for number in numbers)
    try:
        return (choose_device(name),)
    except SettingsError as error:
        if name in OTHER_GPUS:
            raise
        raise SettingsError(f"unknown device '{name}'; use auto, cpu, cuda, cuda:0, cuda:0,1 or all") from error


def use_exact_float32() -> None:
    """Let GPUs convolve float32 in float32; by default torch has them cut it off after 10 bits (TF32).

    Products of matrices are exact by default.
    """
    torch.backends.cudnn.allow_tf32 = False


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text


def free_cached_memory() -> None:
    """Give back what torch keeps of GPUs' memory for later arrays, before something is tried again with less."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def made_there_or_on_cpu(device: torch.device, make: Callable[[], _T], make_on_cpu: Callable[[], _T]) -> _T:
    """What is made on a device, or on the CPU where the device has no memory for it.

    Args:
        device: where ``make`` computes; if that is the CPU, nothing is tried again.
        make: makes it there.
        make_on_cpu: makes the same of copies on the CPU.

    Raises:
        MemoryError: if memory runs out on the CPU; RuntimeError, too.
    """
    try:
        return make()
    except (MemoryError, RuntimeError) as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
    free_cached_memory()
    return make_on_cpu()


def keep_freed_memory() -> None:
    """Tell glibc to keep freed batches for the next ones instead of giving them back to the system each time.

    A network frees and takes the same few arrays thousands of times; by default each of them is fresh memory that
    the system fills with zeros, page by page. Keeping up to 256 MB doubles the speed on a CPU (benchmarks/LOG.md).
    Arrays of 32 MB and more are still given back. Without glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def nvidia_driver_loaded() -> bool:
    """Whether Linux has an NVIDIA driver loaded; False on other systems."""
    return Path("/dev/nvidiactl").exists() or Path("/proc/driver/nvidia").exists()


def why_no_cuda() -> str:
    """The reason why no CUDA device is visible; ask only where there is none."""
    if torch.version.hip is not None:
        return f"the installed torch {torch.__version__} is built for ROCm {torch.version.hip} and finds no AMD GPU"
    if torch.version.cuda is None:
        return f"the installed torch {torch.__version__} is built without CUDA"
    if not nvidia_driver_loaded():
        return "no NVIDIA driver is loaded on this machine"
    reason = f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no usable GPU"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        # The driver's own words: that it is too old, that all devices are hidden, ...
        return f"{reason}: {next(iter(str(error).strip().splitlines()), type(error).__name__)}"
    return reason


def network_precision(name: str, device: torch.device) -> torch.dtype:
    """As `choose_precision`, for a network that is only applied, and made again where values leave float16's range.

    ``auto`` is fp16 on a GPU: as fast as bf16, and eight times as precise.

    Raises:
        SettingsError: for an unknown name.
    """
    return torch.float16 if name == "auto" and device.type == "cuda" else choose_precision(name, device)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Precision of the matrix products for ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    ``auto`` is bf16, which has the range of fp32, where the device multiplies it faster than fp32, else fp32.
    Coordinates are always float32.

    Raises:
        SettingsError: for any other name.
    """
    if name in PRECISIONS:
        return PRECISIONS[name]
    if name != "auto":
        raise SettingsError(f"unknown precision '{name}'; use auto, {', '.join(PRECISIONS)}")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if _cpu_multiplies_bf16_faster() else torch.float32


def precision_name(dtype: torch.dtype) -> str:
    """The name that a user types for a dtype."""
    return next(name for name, known in PRECISIONS.items() if known == dtype)


def cpu_features() -> frozenset[str]:
    """Linux' names of the instruction sets of the CPU, and its vendor; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    lines = re.findall(r"^(?:flags|vendor_id)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(word for line in lines for word in line.split())


def precision_reason(device: torch.device) -> str:
    """Why ``auto`` chooses the precision that `network_precision` returns."""
    if device.type == "cuda":
        return "as fast as bf16 and eight times as precise; what leaves its range is made again in fp32"
    features = cpu_features()
    if "amx_bf16" in features:
        return "AMX multiplies bf16 many times faster than fp32"
    if "avx512_bf16" not in features:
        return "this CPU has no instructions for bf16" if features else "unknown instruction sets, so nothing special"
    if _cpu_multiplies_bf16_faster():
        return "AVX512-BF16 of this vendor multiplies bf16 at twice the rate of fp32"
    return "without AMX, AVX512-BF16 of this vendor is no faster than fp32"


def _cpu_multiplies_bf16_faster() -> bool:
    """Whether matrix products are faster in bf16 than in fp32 (measured: benchmarks/LOG.md).

    AMX is. AVX512-BF16 is on AMD, at twice the rate; on Intel it multiplies as many numbers per cycle as fp32 does.
    """
    features = cpu_features()
    return "amx_bf16" in features or ("avx512_bf16" in features and "AuthenticAMD" in features)
