"""Where prepared images are read in raw ones: the maps of an alignment for the volume that is made."""

from __future__ import annotations

from dataclasses import replace

from cryolithe.alignment import VolumePlace, views
from cryolithe.errors import SettingsError
from cryolithe.geometry import VolumeGrid
from cryolithe.reconstruction.images.preparation import Preparation
from cryolithe.reconstruction.jobs.depth_shifts import depth_shifts
from cryolithe.reconstruction.jobs.sources import Sources, z_reversed
from cryolithe.settings import ReconstructSettings

# Shifts along the tilt axis that are left at some depth, and told.
TOLD_PX = 0.25


def with_views(
    preparation: Preparation, sources: Sources, settings: ReconstructSettings, shape: tuple[int, int, int]
) -> Preparation:
    """Say where each image is read; nothing where every image stays in place."""
    raw = sources.series.geometry.image_shape
    place = VolumePlace(shape, preparation.bin, sources.alignment.centre, z_reversed(settings))
    found = views(sources.alignment, raw, place)
    if all(view.identity for view in found) and preparation.aligned_shape == raw:
        return replace(preparation, aligned_shape=None)
    return replace(preparation, views=found)


def with_shifts(
    preparation: Preparation, sources: Sources, settings: ReconstructSettings, grid: VolumeGrid
) -> tuple[Preparation, Sources]:
    """Say how columns are shifted away from the volume's middle, and tell what is left of a local alignment.

    Raises:
        SettingsError: if such shifts change by depth, which another setting cannot follow.
    """
    if preparation.views is None:
        return preparation, sources
    place = VolumePlace(grid.shape, preparation.bin, sources.alignment.centre, z_reversed(settings))
    shifts, left = depth_shifts(sources.alignment, preparation.views, place)
    if shifts is not None and settings.ctf_3d:
        raise SettingsError(
            f"--ctf-3d cannot follow {sources.alignment.local}, whose shifts change by depth; leave it out, or give "
            "--no-local-alignment"
        )
    if shifts is not None and settings.projector != "torch" and settings.method != "network":
        raise SettingsError(
            f"--projector {settings.projector} cannot follow {sources.alignment.local}, whose shifts change by depth; "
            "give --projector torch, or --no-local-alignment"
        )
    notes = []
    if left > TOLD_PX:
        notes.append(f"at the faces of the volume up to {left:.2f} pixels along the tilt axis are left")
    if shifts is not None and preparation.standardise_stack:
        notes.append("a model of another program follows them in the middle of the volume alone")
    told = (f"local shifts in {sources.alignment.local}: {note}" for note in notes)
    series = replace(sources.series, notes=(*sources.series.notes, *told))
    return replace(preparation, shifts=shifts), replace(sources, series=series)
