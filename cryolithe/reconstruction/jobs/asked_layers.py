"""The slabs of z that --ctf-3d asks for, whose defocus is corrected each by itself."""

from __future__ import annotations

from cryolithe.errors import SettingsError
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.images.correcting import Corrections
from cryolithe.reconstruction.images.layers import Layers, make_layers
from cryolithe.reconstruction.jobs.sources import z_reversed
from cryolithe.settings import ReconstructSettings


def asked_layers(
    settings: ReconstructSettings, made: Corrections, depth: int, voxel: float | None, geometry: TiltGeometry
) -> tuple[Layers | None, tuple[str, ...]]:
    """Slabs of z that are corrected by themselves, and what to tell of them; None for no 3-D CTF.

    Args:
        settings: of the run.
        made: what is done to the images.
        depth: voxels of the volume along z.
        voxel: its edge, Å.
        geometry: of the images.

    Raises:
        SettingsError: if another setting leaves no such slabs.
    """
    if not settings.ctf_3d:
        return None, ()
    if settings.ctf == "none":
        raise SettingsError("--ctf-3d needs --ctf flip, multiply or wiener")
    if settings.method != "fbp" or settings.projector != "torch":
        what = f"--method {settings.method}" if settings.method != "fbp" else f"--projector {settings.projector}"
        raise SettingsError(
            f"--ctf-3d is for --method fbp with --projector torch, got {what}: each slab of z is back-projected from "
            "images of its own; leave --ctf-3d out"
        )
    assert voxel is not None
    assert made.images is not None
    layers = make_layers(depth, voxel, made.images[0].voltage_kv, geometry.angles_deg, z_reversed(settings))
    slabs, thick = len(layers.planes), max(map(len, layers.planes))
    said = f"{slabs} slabs of z of {thick} voxels" if slabs > 1 else "one slab of z: the volume is thin enough for it"
    return layers, (f"3-D CTF: corrected anew for each of {said}" if slabs > 1 else f"3-D CTF: {said}",)
