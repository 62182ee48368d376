"""What `cryolithe doctor` finds out: the installation, the machine, the output folder, and a self-test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from cryolithe.diagnosis import machine, selftest, storage
from cryolithe.diagnosis.finding import OK, PROBLEM, WARNING, Finding
from cryolithe.errors import DeviceError
from cryolithe.machine.device import choose_device

__all__ = ["OK", "PROBLEM", "WARNING", "Finding", "diagnose"]


def diagnose(folder: Path, device_name: str = "auto") -> Iterator[Finding]:
    """Look at everything, one finding after the other; takes about ten seconds.

    Args:
        folder: where volumes are to be written.
        device_name: ``auto``, ``cpu``, ``cuda`` or ``cuda:i``; if it cannot be used, the rest is done on the CPU.

    Raises:
        SettingsError: for any other device name.
    """
    unusable: list[Finding] = []
    try:
        device = choose_device(device_name)
    except DeviceError as error:
        device = torch.device("cpu")
        unusable = [Finding("device", PROBLEM, str(error), "leave out --device to use what is there")]
    yield machine.versions()
    yield machine.optional_engines()
    yield machine.processor()
    yield machine.precision(device)
    yield machine.threads()
    yield machine.compiler()
    yield from machine.gpus()
    yield from unusable
    yield machine.memory()
    yield from storage.folder(folder)
    yield selftest.models()
    yield from selftest.run(device)
