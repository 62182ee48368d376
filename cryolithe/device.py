"""Devices and precisions by the names that users type."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

import torch

from cryolithe.errors import DeviceError, SettingsError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


# Numbers of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def choose_device(name: str) -> torch.device:
    """Device for ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.

    Raises:
        SettingsError: for any other name.
        DeviceError: if a CUDA device is asked for and cannot be used; says why.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if not match:
        raise SettingsError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:0")
    if not torch.cuda.is_available():
        raise DeviceError(f"--device {name}: {_why_no_cuda()}; use --device cpu or auto")
    number = int(match[1] or 0)
    if number >= torch.cuda.device_count():
        raise DeviceError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA device(s), counted from 0"
        )
    return torch.device("cuda", number)


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


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"the installed torch {torch.__version__} is built without CUDA"
    if not Path("/dev/nvidiactl").exists() and not Path("/proc/driver/nvidia").exists():
        return "no NVIDIA driver is loaded on this machine"
    return f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no usable GPU"


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Precision of the matrix products for ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    ``auto`` is bf16 where the device multiplies it faster than fp32, else fp32. Coordinates are always float32.

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


def _cpu_multiplies_bf16_faster() -> bool:
    """Whether matrix products are faster in bf16 than in fp32 (measured: benchmarks/LOG.md).

    AMX is. AVX512-BF16 is on AMD, at twice the rate; on Intel it multiplies as many numbers per cycle as fp32 does.
    """
    features = cpu_features()
    return "amx_bf16" in features or ("avx512_bf16" in features and "AuthenticAMD" in features)
