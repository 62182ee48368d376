"""What is fuzzed: every reader of a file that a user gives, valid files of its kind, and what its value must fulfil."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
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
from cryolithe.formats.alignment_aretomo import read_aln
from cryolithe.formats.alignment_imod import read_newst_com, read_tilt_com, read_x_tilt_deg, read_xf
from cryolithe.formats.alignment_relion import read_tilt_series_star
from cryolithe.formats.alignment_warp import read_warp
from cryolithe.formats.pairs import Pair, open_pair, write_pair
from cryolithe.formats.record import read_record_beside
from cryolithe.formats.star import read_positions
from cryolithe.formats.tiff import read_tiff
from cryolithe.formats.tomogram_star import read_tomogram_star
from cryolithe.models import read_summary
from cryolithe.network import InputWindow, RowSetConfig, SliceSetConfig, build_network
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.network.torch_file import read_torch_file
from cryolithe.settings import read_settings_file, resolve_settings
from cryolithe.simulation.molecules import load_molecules
from cryolithe.simulation.recipe import read_recipe
from cryolithe.simulation.structures import molecule_from_structure
from cryolithe.training.config import read_train_config

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Parser:
    """A reader to be fuzzed.

    Attributes:
        name: of the kind of file.
        ending: of its name.
        read: reads a file and asserts what holds for its value.
        seeds: makes valid files of this kind, given a folder for temporary ones.
        native: whether a C library reads the file, which may end the process.
    """

    name: str
    ending: str
    read: Callable[[Path], object]
    seeds: Callable[[Path], list[bytes]]
    native: bool = False


def _texts(*contents: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [content.encode() for content in contents]


def _files(pattern: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [path.read_bytes() for path in sorted(ROOT.glob(pattern))]


# Images


def _mrc_seeds(folder: Path) -> list[bytes]:
    made = []
    for dtype in (np.float32, np.int16, np.int8, np.float16):
        with mrcfile.new(folder / "seed.mrc", np.ones((3, 4, 5), dtype), overwrite=True) as file:
            file.voxel_size = 5.0
        made.append((folder / "seed.mrc").read_bytes())
    old = bytearray(made[1])
    old[208:216] = bytes(8)
    swapped = bytearray(np.frombuffer(made[0], "<u4").astype(">u4").tobytes())
    swapped[208:216] = b"MAP \x11\x11\0\0"
    made += [bytes(old), bytes(swapped)]
    return [*made, gzip.compress(made[0]), bz2.compress(made[0])]


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
    assert min(shape) > 0


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


ALN = """# AreTomo Alignment / Priims bprmMn
# RawSize = 48 40 4
# NumPatches = 0
# DarkFrame = 3 3 60.00
# AlphaOffset = 0.00
# BetaOffset = 0.00
# SEC ROT GMAG TX TY SMEAN SFIT SCALE BASE TILT
 0 84.1 1.0 1.5 -2.5 1.0 1.0 1.0 0.0 -20.0
 1 84.1 1.0 0.5 -1.5 1.0 1.0 1.0 0.0 0.0
 2 84.1 1.0 -1.5 2.5 1.0 1.0 1.0 0.0 20.0
# Local Alignment
 0 0 10.0 10.0 0.1 0.1 1
"""
NEWST = """# newst.com
$newstack -StandardInput
InputFile ts.st
OutputFile ts_ali.mrc
TransformFile ts.xf
OffsetsInXandY 0,0
BinByFactor 2
ImagesAreBinned 1.0
SizeToOutputInXandY 20,24
"""
TILT = """$setenv IMOD_OUTPUT_FORMAT MRC
$tilt -StandardInput
InputProjections ts_ali.mrc
OutputFile ts_full_rec.mrc
IMAGEBINNED 2
TILTFILE ts.tlt
XTILTFILE ts.xtilt
THICKNESS 100
FULLIMAGE 48 40
SUBSETSTART 0 0
OFFSET 1.5
SHIFT 0.0 -3.0
XAXISTILT 0.5
EXCLUDELIST 1,3-4
LOCALFILE tslocal.xf
$if (-e ./savework) ./savework
"""
STAR = """data_ts_01

loop_
_rlnMicrographName #1
_rlnTomoXTilt #2
_rlnTomoYTilt #3
_rlnTomoZRot #4
_rlnTomoXShiftAngst #5
_rlnTomoYShiftAngst #6
1@ts.mrc 0.0 -20.0 84.1 5.5 -3.5
2@ts.mrc 0.0 0.0 84.1 1.5 -2.5
3@ts.mrc 0.0 20.0 84.1 -5.5 3.5
"""
TOMOGRAMS = """data_global

loop_
_rlnTomoName #1
_rlnVoltage #2
_rlnTomoTiltSeriesPixelSize #3
_rlnTomoTiltSeriesStarFile #4
_rlnTomoSizeX #5
_rlnTomoSizeY #6
_rlnTomoSizeZ #7
ts_01 300.0 5.0 tilt_series/ts_01.star 48 40 20
'ts 02' 300.0 5.0 "tilt_series/ts 02.star" 48 40 20
"""
SERIES = """data_global

loop_
_rlnTomoName #1
_rlnTomoTiltSeriesPixelSize #2
_rlnTomoSizeX #3
_rlnTomoSizeY #4
_rlnTomoSizeZ #5
ts_01 5.0 48 40 20
ts_02 5.0 48 40 20

"""
PARTICLES = """data_particles

loop_
_rlnTomoName #1
_rlnCenteredCoordinateXAngst #2
_rlnCenteredCoordinateYAngst #3
_rlnCenteredCoordinateZAngst #4
_rlnClassNumber #5
ts_01 10.5 -20.5 30.0 1
ts_01 -10.5 20.5 -30.0 2
"""
WARP = """<?xml version="1.0" encoding="utf-8"?>
<TiltSeries DataDirectory="" AreAnglesInverted="True" LevelAngleX="0" LevelAngleY="0">
  <Angles>-20
0
20</Angles>
  <AxisAngle>84
84
84</AxisAngle>
  <AxisOffsetX>1.5
2.5
-3</AxisOffsetX>
  <AxisOffsetY>0
0
1</AxisOffsetY>
  <UseTilt>True
True
False</UseTilt>
  <GridMovementX Width="1" Height="1" Depth="1"><Node X="0" Y="0" Z="0" Value="0.5" /></GridMovementX>
</TiltSeries>
"""
TOMOSTAR = """data_

loop_
_wrpMovieName #1
_wrpAngleTilt #2
_wrpAxisAngle #3
_wrpDose #4
a.mrc -20.0 84.0 0.0
b.mrc 0.0 84.0 3.0
c.mrc 20.0 84.0 6.0
"""
MDOC = """PixelSpacing = 5
Voltage = 300
ImageFile = ts.mrc
ImageSize = 48 40
DataMode = 2

[T = SerialEM: a session]

[ZValue = 0]
TiltAngle = -20.01
ExposureDose = 3.0
DateTime = 01-Jan-2026  12:00:00

[ZValue = 1]
TiltAngle = 0.02
DateTime = 01-Jan-26  12:01:00

[ZValue = 2]
TiltAngle = 20.0
SubFramePath = X:\\frames\\a b.tif
"""
SETTINGS = """# settings
method: fbp
thickness: 120
bin: 2
pixel-size: 2.5
contrast: dark
tilt_axis: -3.5
"""
LIST = """tilts,angles,output,thickness,pixel_size
a.mrc,a.tlt,a_rec.mrc,100,2.5
"b, c.mrc",b.tlt,,,
ü.mrc,ü.tlt,ü_rec.mrc,50,
"""
PDB = """ATOM      1  N   ALA A   1      11.104   6.134  -6.504  1.00  0.00           N
ATOM      2  CA  ALA A   1      11.639   6.071  -5.147  1.00  0.00           C
HETATM    3  O   HOH A   2      13.559   7.086  -4.000  1.00  0.00           O
END
"""


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
    Parser("angles", ".tlt", _angles, _texts("-60\n-57.5\n0\n57.5\n", "# a\n-20.5,1,3.0\n0.5,2,3.0\n20.5,3,3.0\n")),
    Parser("angles (mdoc)", ".mdoc", _angles, _texts(MDOC)),
    Parser("IMOD xf", ".xf", _xf, _texts("1.0 0.0 0.0 1.0 2.5 -3.5\n0.99 0.01 -0.01 0.99 0.5 0.5\n")),
    Parser("IMOD xtilt", ".xtilt", read_x_tilt_deg, _texts("0.50\n0.50\n")),
    Parser("IMOD newst.com", ".com", _newst, _texts(NEWST)),
    Parser("IMOD tilt.com", ".com", _tilt_com, _texts(TILT)),
    Parser("AreTomo aln", ".aln", _aln, _texts(ALN)),
    Parser("RELION tilt series", ".star", lambda p: _alignment(read_tilt_series_star(p, "ts_01.mrc", 3, 5.0), 3),
           _texts(STAR, SERIES + STAR)),
    Parser("RELION tomograms", ".star", read_tomogram_star, _texts(TOMOGRAMS)),
    Parser("RELION particles", ".star", lambda p: read_positions(p, (20, 40, 48), 5.0, "ts_01.mrc"), _texts(PARTICLES)),
    Parser("Warp xml", ".xml", lambda p: _alignment(read_warp(p, 3, 5.0), 3), _texts(WARP)),
    Parser("Warp tomostar", ".tomostar", lambda p: _alignment(read_warp(p, 3, 5.0), 3), _texts(TOMOSTAR)),
    Parser("settings YAML", ".yaml", _settings, _texts(SETTINGS)),
    Parser("training YAML", ".yaml", read_train_config, _files("configs/train_default.yaml")),
    Parser("recipe YAML", ".yaml", read_recipe, _files("training_data/recipes/train_flipped.yaml")),
    Parser("manifest YAML", ".yaml", read_manifest, _files("training_data/empiar_1*.yaml")),
    Parser("series list CSV", ".csv", _list, _texts(LIST)),
    Parser("curation choices", ".json", read_choices, _choices_seeds),
    Parser("sidecar", ".json", _sidecar, _sidecar_seeds),
    Parser("info: JSON", ".json", describe, _sidecar_seeds),
    Parser("model", ".safetensors", _model, _model_seeds),
    Parser("model summary", ".safetensors", read_summary, _model_seeds),
    Parser("info: model", ".safetensors", describe, _model_seeds),
    Parser("denoiser", ".safetensors", load_weights, _denoiser_seeds),
    Parser("torch checkpoint", ".pth", lambda p: read_torch_file(p, ()), _torch_seeds),
    Parser("structure", ".pdb", lambda p: molecule_from_structure(p, 4.0), _texts(PDB)),
    Parser("training pair", ".h5", _pair, _pair_seeds, native=True),
    Parser("molecule library", ".h5", _molecules, _molecule_seeds, native=True),
    Parser("info: HDF5", ".h5", describe, lambda f: _pair_seeds(f) + _molecule_seeds(f), native=True),
)  # fmt: skip
