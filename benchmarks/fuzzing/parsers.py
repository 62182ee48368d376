"""What is fuzzed: every reader of a file that a user gives, valid files of its kind, and what its value must fulfil."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import tifffile
import torch

from cryolithe.alignment import Alignment
from cryolithe.cli.info import describe
from cryolithe.curation.choices import read_choices
from cryolithe.curation.manifest import read_manifest
from cryolithe.denoising.samba.model import FlowConfig, FusionConfig, SambaConfig, SambaNet, load_weights, save_weights
from cryolithe.formats import read_angles_deg, read_mrc, read_series_list
from cryolithe.formats.alignment.aretomo import read_aln
from cryolithe.formats.alignment.imod import read_newst_com, read_tilt_com, read_x_tilt_deg, read_xf
from cryolithe.formats.alignment.relion import read_tilt_series_star
from cryolithe.formats.alignment.relion_pixels import Images
from cryolithe.formats.alignment.tomogram_star import read_tomogram_star
from cryolithe.formats.alignment.warp import read_warp
from cryolithe.formats.microscope.doses import read_exposures
from cryolithe.formats.pairs import Pair, open_pair, write_pair
from cryolithe.formats.particles.star import read_positions
from cryolithe.formats.record import read_record_beside
from cryolithe.formats.volumes.tiff import read_tiff
from cryolithe.models import read_summary
from cryolithe.network import InputWindow, RowSetConfig, SliceSetConfig, build_network
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.network.torch_file import read_torch_file
from cryolithe.settings import read_settings_file, resolve_settings
from cryolithe.simulation.molecules import load_molecules
from cryolithe.simulation.recipe import read_recipe
from cryolithe.simulation.structures import molecule_from_structure
from cryolithe.training.config import read_train_config
from fuzzing.reader import Parser, of_files, of_texts, timeless
from fuzzing.series import SERIES_PARSERS
from fuzzing.stored import STORED_PARSERS
from fuzzing.texts import (
    ALN,
    LIST,
    MDOC,
    NEWST,
    PARTICLES,
    PDB,
    SERIES,
    SETTINGS,
    STAR,
    TILT,
    TOMOGRAMS,
    TOMOSTAR,
    UNBINNED_PARTICLES,
    WARP,
)

# Images


def _mrc_seeds(folder: Path) -> list[bytes]:
    made = []
    for dtype in (np.float32, np.int16, np.int8, np.float16):
        with mrcfile.new(folder / "seed.mrc", np.ones((3, 4, 5), dtype), overwrite=True) as file:
            file.voxel_size = 5.0
        made.append(timeless((folder / "seed.mrc").read_bytes()))
    old = bytearray(made[1])
    old[208:216] = bytes(8)
    swapped = bytearray(np.frombuffer(made[0], "<u4").astype(">u4").tobytes())
    swapped[208:216] = b"MAP \x11\x11\0\0"
    made += [bytes(old), bytes(swapped)]
    return [*made, gzip.compress(made[0], mtime=0), bz2.compress(made[0])]


def _mrc(path: Path) -> None:
    read = read_mrc(path)
    assert read.data.ndim == 3
    assert min(read.data.shape) > 0
    numbers = (*read.voxel_sizes_angstrom, *read.origin_angstrom)
    assert all(map(math.isfinite, numbers))
    assert min(read.voxel_sizes_angstrom) >= 0
    assert all(text.isprintable() for text in (*read.labels, *read.notes))
    assert np.asarray(read.data[-1]).size == read.data.shape[1] * read.data.shape[2]


def _tiff_seeds(folder: Path) -> list[bytes]:
    made = []
    for options in ({"imagej": True}, {"compression": "zlib"}, {"bigtiff": True}):
        tifffile.imwrite(folder / "seed.tif", np.ones((3, 4, 5), np.float32), photometric="minisblack", **options)
        made.append((folder / "seed.tif").read_bytes())
    return made


def _tiff(path: Path) -> None:
    planes, size = read_tiff(path)
    assert planes.ndim == 3
    assert size is None or 0 < size < math.inf
    np.asarray(planes[-1:])


# Alignments


def _angles(path: Path) -> None:
    angles = read_angles_deg(path)
    assert angles
    assert all(abs(angle) <= 90 for angle in angles)


def _alignment(made: Alignment, sections: int | None = None) -> None:
    used = [image.section for image in made.images]
    assert len(set(used)) == len(used)
    assert min(used) >= 0
    assert max(used) < made.sections
    assert sections is None or made.sections == sections
    assert all(note.isprintable() for note in made.notes)
    # A useless thickness is refused where no setting replaces it: later.
    assert made.pixel_size_angstrom is None or 0 < made.pixel_size_angstrom < math.inf


def _xf(path: Path) -> None:
    for matrix, shift in read_xf(path):
        assert all(map(math.isfinite, (*matrix[0], *matrix[1], *shift)))


def _aln(path: Path) -> None:
    made, shape = read_aln(path)
    _alignment(made)
    assert shape is None or min(shape) > 0


def _newst(path: Path) -> None:
    read = read_newst_com(path)
    assert read.bin >= 1
    assert read.size_px is None or min(read.size_px) > 0


def _tilt_com(path: Path) -> None:
    read = read_tilt_com(path)
    numbers = (read.image_binned, read.angle_offset_deg, read.x_axis_tilt_deg, *read.shift_px, *read.subset_start_px)
    assert all(map(math.isfinite, numbers))
    assert read.thickness_px is None or 1 <= read.thickness_px < math.inf
    assert all(view > 0 for view in read.excluded | (read.included or frozenset()))


# Settings


def _settings(path: Path) -> None:
    resolve_settings({}, {}, read_settings_file(path), "", str(path))


def _list(path: Path) -> None:
    entries = read_series_list(path)
    assert entries
    for entry in entries:
        if entry.settings:
            try:
                resolve_settings({}, entry.settings, {}, "row", "")
            except Exception as error:
                if not type(error).__module__.startswith("cryolithe"):
                    raise


def _choices_seeds(folder: Path) -> list[bytes]:
    candidate = {"name": "ts_01", "keep": True, "comment": "good"}
    return [json.dumps({"format": "cryolithe-curate", "version": 1, "folder": "x", "candidates": [candidate]}).encode()]


def _sidecar_seeds(folder: Path) -> list[bytes]:
    record = {
        "program": {"name": "CryoLithe"},
        "volume": {"path": "v.mrc", "contrast": "dark", "shape_zyx": [8, 40, 48], "voxel_size_angstrom": 5.0},
        "geometry": {"tilt_angles_deg": [-20.0, 0.0, 20.0]},
    }
    return [json.dumps(record, indent=1).encode()]


def _sidecar(path: Path) -> None:
    assert isinstance(read_record_beside(path.with_suffix(".mrc")), dict)


# Weights


def _model_seeds(folder: Path) -> list[bytes]:
    torch.manual_seed(0)
    rows = RowSetConfig(
        input=InputWindow(taps=3, context_taps=3), rows=3, channels=2, row_hidden=2, row_features=2, combiner_width=2
    )
    window = InputWindow(taps=3, context_taps=0, unit_noise=False)
    sets = SliceSetConfig(
        input=window, rows=3, channels=2, set_hidden=2, set_features=2, row_hidden=2, row_features=2, combiner_width=2
    )
    made = []
    for config in (rows, sets):
        save_network(folder / "seed.safetensors", build_network(config), {"made": "to be spoilt"})
        made.append((folder / "seed.safetensors").read_bytes())
    return made


def _model(path: Path) -> None:
    model = load_model(str(path))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.network.state_dict().values())


def _denoiser_seeds(folder: Path) -> list[bytes]:
    flow = FlowConfig(levels=2, features=(2, 2), depths=(1, 1), radius=1, estimator=(2, 2), importance=1)
    network = SambaNet(SambaConfig(flow, FusionConfig(context=(2, 2), unet=(2, 2), decoded=2)))
    save_weights(folder / "seed.safetensors", network, {"made": "to be spoilt"})
    return [(folder / "seed.safetensors").read_bytes()]


def _torch_seeds(folder: Path) -> list[bytes]:
    buffer = io.BytesIO()
    torch.save({"model_state_dict": {"a": torch.ones(3), "b": torch.zeros(2, 2)}, "loss": 0.5}, buffer)
    return [buffer.getvalue()]


# HDF5


def _pair_seeds(folder: Path) -> list[bytes]:
    images, truth = np.ones((3, 8, 10), np.float16), np.ones((4, 8, 10), np.float16)
    extras: dict[str, Any] = {"labels": np.ones((4, 8, 10), np.uint16)}
    write_pair(folder / "seed.h5", Pair(images, truth, (-20.0, 0.0, 20.0), 5.0, extras, {"seed": 1}), overwrite=True)
    return [(folder / "seed.h5").read_bytes()]


def _pair(path: Path) -> None:
    with open_pair(path) as pair:
        assert len(pair.angles_deg) == pair.images.shape[0]
        for values in (pair.images, pair.truth, *pair.extras.values()):
            assert np.asarray(values[:, :2]).ndim == 3


def _molecule_seeds(folder: Path) -> list[bytes]:
    with h5py.File(folder / "seed.h5", "w") as file:
        for name in ("one", "two"):
            file.create_dataset(name, data=np.ones((4, 5, 6), np.float32)).attrs["voxel_size_angstrom"] = 10.0
    return [(folder / "seed.h5").read_bytes()]


def _molecules(path: Path) -> None:
    for molecule in load_molecules(path):
        assert molecule.density.ndim == 3
        assert np.isfinite(molecule.density).all()


PARSERS = (
    Parser("MRC header", ".mrc", _mrc, _mrc_seeds),
    Parser("TIFF", ".tif", _tiff, _tiff_seeds),
    Parser("angles", ".tlt", _angles, of_texts("-60\n-57.5\n0\n57.5\n", "# a\n-20.5,1,3.0\n0.5,2,3.0\n20.5,3,3.0\n")),
    Parser("angles (mdoc)", ".mdoc", _angles, of_texts(MDOC)),
    Parser("AreTomo3 doses", "_TLT.txt", lambda p: read_exposures(p, "ts.mrc"),
           of_texts("-20.00    2   3.00\n  0.00    1   3.00\n 20.00    4   3.00\n")),
    Parser("IMOD xf", ".xf", _xf, of_texts("1.0 0.0 0.0 1.0 2.5 -3.5\n0.99 0.01 -0.01 0.99 0.5 0.5\n")),
    Parser("IMOD xtilt", ".xtilt", read_x_tilt_deg, of_texts("0.50\n0.50\n")),
    Parser("IMOD newst.com", ".com", _newst, of_texts(NEWST)),
    Parser("IMOD tilt.com", ".com", _tilt_com, of_texts(TILT)),
    Parser("AreTomo aln", ".aln", _aln, of_texts(ALN)),
    Parser("RELION tilt series", ".star",
           lambda p: _alignment(read_tilt_series_star(p, "ts_01.mrc", 3, Images(5.0)), 3),
           of_texts(STAR, SERIES + STAR)),
    Parser("RELION tomograms", ".star", read_tomogram_star, of_texts(TOMOGRAMS)),
    Parser("RELION particles", ".star", lambda p: read_positions(p, (20, 40, 48), 5.0, "ts_01.mrc"),
           of_texts(PARTICLES, UNBINNED_PARTICLES)),
    Parser("Warp xml", ".xml", lambda p: _alignment(read_warp(p, 3, 5.0), 3), of_texts(WARP)),
    Parser("Warp tomostar", ".tomostar", lambda p: _alignment(read_warp(p, 3, 5.0), 3), of_texts(TOMOSTAR)),
    Parser("settings YAML", ".yaml", _settings, of_texts(SETTINGS)),
    Parser("training YAML", ".yaml", read_train_config, of_files("configs/train_default.yaml")),
    Parser("recipe YAML", ".yaml", read_recipe, of_files("training_data/recipes/train_flipped.yaml")),
    Parser("manifest YAML", ".yaml", read_manifest, of_files("training_data/empiar_1*.yaml")),
    Parser("series list CSV", ".csv", _list, of_texts(LIST)),
    Parser("curation choices", ".json", read_choices, _choices_seeds),
    Parser("sidecar", ".json", _sidecar, _sidecar_seeds),
    Parser("info: JSON", ".json", describe, _sidecar_seeds),
    Parser("model", ".safetensors", _model, _model_seeds),
    Parser("model summary", ".safetensors", read_summary, _model_seeds),
    Parser("info: model", ".safetensors", describe, _model_seeds),
    Parser("denoiser", ".safetensors", load_weights, _denoiser_seeds),
    Parser("torch checkpoint", ".pth", lambda p: read_torch_file(p, ()), _torch_seeds),
    Parser("structure", ".pdb", lambda p: molecule_from_structure(p, 4.0), of_texts(PDB)),
    Parser("training pair", ".h5", _pair, _pair_seeds, native=True),
    Parser("molecule library", ".h5", _molecules, _molecule_seeds, native=True),
    Parser("info: HDF5", ".h5", describe, lambda f: _pair_seeds(f) + _molecule_seeds(f), native=True),
    *SERIES_PARSERS,
    *STORED_PARSERS,
)  # fmt: skip
