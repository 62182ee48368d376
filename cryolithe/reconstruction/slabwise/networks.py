"""A model with its convention as a method for slabs, and the memory that it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from cryolithe.errors import ModelError, SettingsError
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.known import NOTHING, Known
from cryolithe.network.checkpoint import Model
from cryolithe.reconstruction.slabwise.methods import ON_CPU, Compute, NetworkMethod
from cryolithe.reconstruction.slabwise.network_memory import network_bytes
from cryolithe.reconstruction.slabwise.plan import Demand
from cryolithe.reconstruction.slabwise.published import PublishedSampling, published_field, published_halo_px

# Of filtered back-projection in the volumes of models that do not say it (benchmarks/fusion.py).
FBP_SHARE, MOST_SHARE = 0.3, 0.9


def make_network_method(
    model: Model,
    geometry: TiltGeometry,
    grid: VolumeGrid,
    compute: Compute = ON_CPU,
    on_points: Callable[[float], object] = lambda share: None,
    known: Known = NOTHING,
) -> NetworkMethod:
    """The method that applies a model as its convention says; arguments as for `NetworkMethod`."""
    taps = model.convention.taps
    sampling = None if taps is None else PublishedSampling(model.network.config, taps, geometry, grid)
    return NetworkMethod(model.network, geometry, grid, compute, on_points, sampling, known)


def fbp_share(model: Model, setting: float | None) -> float:
    """How much of filtered back-projection goes into a model's volumes, see `cryolithe.reconstruction.slabwise.fusion`.

    Args:
        model: whose card may say it; models with the published convention are applied as published.
        setting: of the user, which comes first.

    Raises:
        ModelError: if the card says something else than a share.
        SettingsError: for a model with the published convention.
    """
    if model.convention.published:
        if setting:
            raise SettingsError(
                f"--fbp-share {setting:g}: model {model.name} is applied as published, give 0 or nothing"
            )
        return 0.0
    if setting is not None:
        return setting
    share = model.card.get("fbp_share", FBP_SHARE)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= MOST_SHARE:
        raise ModelError(f"the card of model {model.name} has fbp_share: {share!r}, expected 0 to {MOST_SHARE}")
    return float(share)


def wedge_trust(model: Model, setting: Literal["auto", "full", "none"] | None) -> Literal["auto", "full", "none"]:
    """How much of what a model puts into the missing wedge stays, see `cryolithe.reconstruction.slabwise.trust`.

    Args:
        model: models with the published convention are applied as published.
        setting: of the user; None for what suits the model.

    Raises:
        SettingsError: for a model with the published convention.
    """
    if model.convention.published:
        if setting not in (None, "full"):
            raise SettingsError(f"--wedge-trust {setting}: model {model.name} is applied as published, give full")
        return "full"
    return setting or "auto"


def published_demand(model: Model, geometry: TiltGeometry, grid: VolumeGrid, compute: Compute) -> Demand:
    """Memory for a model with the published convention, by counting its arrays.

    Args:
        model: an imported model.
        geometry: of the series.
        grid: voxels of the volume.
        compute: where and how, with what is worked on at a time.
    """
    config = model.network.config
    height, width = geometry.image_shape
    field_x = published_field((height, width))[1]
    padded = TiltGeometry(geometry.angles_deg, (height, field_x + config.input.taps + 1))
    fixed = network_bytes(config, padded, grid, compute)
    # Detector rows are counted for the image's width, but filtered over the field's.
    return Demand(fixed, 5.0, 6.0 * field_x / width, published_halo_px(config))
