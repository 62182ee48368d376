"""Which precision a network's layers have, and what happens where values leave its range."""

from __future__ import annotations

import torch

from cryolithe.geometry import TiltGeometry
from cryolithe.inference import lift_network, shows_overflow
from cryolithe.machine.device import choose_precision, network_precision
from cryolithe.network.checkpoint import Model


def precisions(
    name: str, device: torch.device, model: Model | None, geometry: TiltGeometry
) -> tuple[torch.dtype, torch.dtype | None]:
    """Precision of a network's layers, and that of slabs in which values leave its range."""
    chosen = network_precision(name, device)
    if model is None or name != "auto" or chosen != torch.float16:
        return chosen, None
    if shows_overflow(lift_network(model.network, torch.from_numpy(geometry.angles_rad))):
        return chosen, torch.float32
    wide = choose_precision("auto", device)
    return (wide if wide != torch.float16 else torch.float32), None
