"""The block of the widget: made by the chosen method, and by filtered back-projection beside it, as layers."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryolithe.errors import InputError, SettingsError
from cryolithe.reconstruction.block import Block, BlockMaker, block_about, block_maker
from cryolithe.reconstruction.jobs.job import Job
from cryolithe.settings import ReconstructSettings, resolve_settings
from cryolithe.viewer.greys import middle_sections, shown_greys
from cryolithe.viewer.images import LayerData, layer_place
from cryolithe.work.watcher import Watcher


@dataclass(frozen=True)
class Wanted:
    """What the widget asks for.

    Attributes:
        tilts: the stack.
        angles: its angles; None where ``settings`` name an alignment that brings them.
        settings: of the reconstruction, as on the command line (``method``, ``model``, ``thickness``, ``bin``, ...).
        size_px: voxels ``(z, y, x)`` of the block.
        point: ``(z, y, x)`` in Å from the volume's first voxel (in voxels where the voxel size is not known); None for
            the middle of the volume.
    """

    tilts: Path
    angles: Path | None
    settings: dict[str, Any]
    size_px: tuple[int, int, int]
    point: tuple[float, float, float] | None = None


@dataclass
class Prepared:
    """Series whose images are prepared, so that further blocks of them begin at once; it is to be closed.

    Prepared images lie in a folder of temporary files, which goes away with this.
    """

    _folder: tempfile.TemporaryDirectory[str] | None = None
    _makers: dict[str, BlockMaker] = field(default_factory=dict)
    _of: tuple[Any, ...] = ()

    def maker(self, wanted: Wanted, settings: ReconstructSettings, watcher: Watcher) -> BlockMaker:
        """The maker of a series by some settings; that of an earlier block where both are the same."""
        series = _state(wanted, settings)
        if self._folder is None or series != self._of:
            self.close()
            self._folder, self._of = tempfile.TemporaryDirectory(prefix="cryolithe-"), series
        key = settings.model_dump_json()
        if key not in self._makers:
            # A method's prepared images take the place of those of its former settings.
            self._makers = {name: made for name, made in self._makers.items() if not _same_method(made, settings)}
            folder = Path(self._folder.name)
            job = Job(wanted.tilts, wanted.angles, folder / "block.mrc", settings)
            self._makers[key] = block_maker(job, folder, watcher)
        return self._makers[key]

    def close(self) -> None:
        """Forget all, and remove the prepared images."""
        self._makers.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def block_layers(wanted: Wanted, prepared: Prepared, watcher: Watcher) -> list[LayerData]:
    """Two layers: the block by filtered back-projection, and by the chosen method, in front and visible.

    Where the method is FBP there is one. Both lie where they lie in a whole reconstruction that is opened from its
    file, each in its own greys by the same rule.

    Args:
        wanted: what is asked for.
        prepared: what earlier blocks left.
        watcher: told how far it is; what it raises ends the work.

    Raises:
        CryoLitheError: for everything that the user can mend.
    """
    if not wanted.tilts.is_file():
        raise InputError(f"{wanted.tilts} does not exist; choose the stack of tilt images")
    settings = resolve_settings(wanted.settings, {}, {}, "", "")
    # FBP does not depend on what a network needs: its prepared images outlast a change of model.
    by_fbp = settings.model_copy(update={"method": "fbp", "model": "default", "fbp_share": None, "wedge_trust": None})
    layers = []
    for each in (by_fbp,) if settings.method == "fbp" else (by_fbp, settings):
        maker = prepared.maker(wanted, each, watcher)
        block = block_about(_point_px(wanted, maker), wanted.size_px, maker.shape)
        layers.append(_layer(wanted, maker, block, watcher))
    return layers


def _point_px(wanted: Wanted, maker: BlockMaker) -> tuple[float, float, float]:
    if wanted.point is None:
        z, y, x = maker.run.grid.centre
        return z, y, x
    if len(wanted.point) != 3:
        raise SettingsError(f"a point has z, y and x, got {len(wanted.point)} numbers")
    size = maker.voxel_size_angstrom or 1.0
    z, y, x = (value / size for value in wanted.point)
    return z, y, x


def _layer(wanted: Wanted, maker: BlockMaker, block: Block, watcher: Watcher) -> LayerData:
    voxels = maker.make(block, watcher)
    run, size = maker.run, maker.voxel_size_angstrom
    limits, colours = shown_greys([voxels[z] for z in middle_sections(block.shape)])
    method = run.model.name if run.model else run.job.settings.method.upper()
    origin = tuple(start * (size or 1.0) for start in block.start)
    meta = {
        **layer_place((size or 0.0,) * 3, (origin[0], origin[1], origin[2])),
        "name": f"{wanted.tilts.stem} {method}",
        "contrast_limits": limits,
        "colormap": colours,
        "metadata": {
            "cryolithe": {
                "file": str(wanted.tilts),
                "first_voxel_zyx": block.start,
                "volume_shape_zyx": maker.shape,
                "voxel_size_angstrom": size,
                "settings": run.job.settings.model_dump(mode="json"),
                "model_sha256": run.model.sha256 if run.model else None,
            }
        },
    }
    return voxels, meta, "image"


def _state(wanted: Wanted, settings: ReconstructSettings) -> tuple[Any, ...]:
    """What tells whether files are those that were prepared."""
    named = (wanted.tilts, wanted.angles, *settings.alignment_files.values())
    files = [file for file in named if file is not None]
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists())


def _same_method(maker: BlockMaker, settings: ReconstructSettings) -> bool:
    return maker.run.job.settings.method == settings.method
