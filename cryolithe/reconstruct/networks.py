"""A model with its convention as a method for slabs, and the memory that it needs."""

from __future__ import annotations

from collections.abc import Callable

from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.network.checkpoint import Model
from cryolithe.reconstruct.methods import ON_CPU, Compute, NetworkMethod, network_bytes
from cryolithe.reconstruct.plan import Demand
from cryolithe.reconstruct.published import PublishedSampling, published_field, published_halo_px


def make_network_method(
    model: Model,
    geometry: TiltGeometry,
    grid: VolumeGrid,
    compute: Compute = ON_CPU,
    on_points: Callable[[float], object] = lambda share: None,
) -> NetworkMethod:
    """The method that applies a model as its convention says; arguments as for `NetworkMethod`."""
    taps = model.convention.taps
    sampling = None if taps is None else PublishedSampling(model.network.config, taps, geometry, grid)
    return NetworkMethod(model.network, geometry, grid, compute, on_points, sampling)


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
