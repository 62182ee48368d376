"""The maps of `--confidence` as they are handed out: they lie as the volume does, in its unit, and are told as written.

What is done to a volume after it was made (a turn about x with less of its depth, 8-bit values that cut off gold)
changes its deviation, which is the unit of the expected error. So the unit is that of the finished file, and what is
told of the maps is what was written of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.formats import VolumeStatistics, read_mrc
from cryolithe.reconstruction.confidence.doubt import rounded
from cryolithe.reconstruction.jobs.job import MAP_KINDS, ResolvedJob, map_file
from cryolithe.reconstruction.output.converting import TILTED, Wanted, new_volume, turned
from cryolithe.reconstruction.output.turned import tilt_volume
from cryolithe.reconstruction.slabwise.slab_folder import SlabFolder
from cryolithe.work.folder import delete
from cryolithe.work.watcher import Watcher

# Beyond this share, and this correlation, the two means seem to contradict each other.
PUZZLING_SHARE, PUZZLING_CORRELATION = 0.9, 0.5
_LARGEST = {"confidence": 1.0, "error": None, "unsupported": 1.0}


@dataclass(frozen=True)
class MadeMaps:
    """Maps that lie in the working folder as the volume was made.

    Attributes:
        deviation: of that volume, the unit of the expected error; 0 of a constant one, where densities are the unit.
        statistics: of each map, by kind.
        told: for the sidecar, what there is to tell of how they were made.
    """

    deviation: float
    statistics: dict[str, VolumeStatistics]
    told: dict[str, Any]


def finish_maps(
    run: ResolvedJob, folder: SlabFolder, maps: MadeMaps, deviation: float, watcher: Watcher
) -> dict[str, Any]:
    """Turn and convert the maps as the volume was, give them the names by which they are placed, and tell of them.

    Args:
        run: what was done.
        folder: holds the maps.
        maps: what they are.
        deviation: of the volume as it is handed out.
        watcher: told what their means say.

    Returns:
        for the sidecar, what there is to tell of them.

    Raises:
        OutputError: if something cannot be written.
    """
    # A constant volume has no unit to go over to. Digits that the order of a file decides are no other unit.
    factor = rounded(maps.deviation / deviation) if min(maps.deviation, deviation) > 0 else 1.0
    means = {kind: _finished(run, folder, maps, kind, factor if kind == "error" else 1.0).mean for kind in MAP_KINDS}
    files = ", ".join(path.name for path in run.job.maps.values())
    confidence, error, share = (means[kind] for kind in MAP_KINDS)
    puzzling = share > PUZZLING_SHARE and confidence > PUZZLING_CORRELATION
    why = " (where noise, or matter above and below, hides it from them: it may be right for all that)"
    watcher.note(
        f"Confidence: expected correlation {confidence:.2f}, expected error {error:.2f} deviations, {share:.0%} not "
        f"held by the images{why if puzzling else ''}, on average; by voxel in {files}."
    )
    return {
        **maps.told,
        "deviation": (maps.deviation or 1.0) if factor == 1 else deviation,
        "maps": {kind: {"path": run.job.maps[kind].name, "mean": mean} for kind, mean in means.items()},
    }


def _finished(run: ResolvedJob, folder: SlabFolder, maps: MadeMaps, kind: str, factor: float) -> VolumeStatistics:
    """Make the file of a map that is handed out; return the statistics of what it holds.

    Args:
        run: what was done.
        folder: holds the map.
        maps: what all are.
        kind: which one.
        factor: by which its values are multiplied.
    """
    made, target, statistics = folder.path / f"{kind}.mrc", run.job.maps[kind], maps.statistics[kind]
    labels = read_mrc(made).labels
    if run.x_tilt_deg:
        tilted = folder.path / f"{kind}.{TILTED}"
        with new_volume(run, tilted, (run.depth, *run.grid.shape[1:]), "float32") as writer:
            statistics = tilt_volume(read_mrc(made).data, writer, run.x_tilt_deg)
            writer.finish(statistics, labels, run.voxel_size_angstrom)
        delete(made)
        made = tilted

    def values(block: NDArray[Any]) -> NDArray[np.float32]:
        # The splines of a turn overshoot beside steps.
        return np.clip(block * np.float32(factor), np.float32(0), _LARGEST[kind])

    changed = values if run.x_tilt_deg or factor != 1 else None
    wanted = Wanted(target, "float32", folder.path / f"{kind}.turned{target.suffix}", changed)
    path, stored = turned(run, made, wanted, labels, statistics)
    place = folder.path / map_file(target)
    delete(place)
    path.replace(place)
    if made != path:
        delete(made)
    return stored
