"""What is fuzzed of a tilt series: local alignments, defocus, doses, projects of several files, folders, volumes."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import tifffile

from cryolithe.alignment import Alignment
from cryolithe.cli.info import describe
from cryolithe.errors import InputError
from cryolithe.evaluation.halves import open_half
from cryolithe.formats import read_angles_deg, read_tilt_series, read_volume, write_stack
from cryolithe.formats.alignment.alignment_format import AlignmentFormat, Named, Stack
from cryolithe.formats.alignment.aretomo import ARETOMO
from cryolithe.formats.alignment.bends_imod import read_local
from cryolithe.formats.alignment.imod_project import IMOD
from cryolithe.formats.alignment.relion import RELION
from cryolithe.formats.alignment.warp import WARP
from cryolithe.formats.microscope.ctf_files import SeriesImages, ctf_file_of, read_ctf
from cryolithe.formats.microscope.doses import read_exposures
from cryolithe.formats.microscope.microscope_told import told_microscope
from cryolithe.formats.reading import Reading
from cryolithe.formats.series.session_folder import read_session_folder
from cryolithe.formats.stacks.header_angles import read_header_angles_deg
from cryolithe.formats.stacks.image_files import ImageFiles
from cryolithe.formats.stacks.mdoc import read_mdoc_angles_deg
from cryolithe.formats.volumes.ome_zarr import Version, read_ome_zarr, write_ome_zarr
from cryolithe.portals.portal_points import read_points
from cryolithe.viewer.reader import read_layers
from fuzzing import texts
from fuzzing.reader import Parser, of_texts, timeless

ANGLES_DEG = (-20.0, 0.0, 20.0)
NAME = "ts_01.mrc"


# Alignments as commands read them, with the files that they name


def bends_are_finite(made: Alignment) -> None:
    """Every image's local alignment moves every place by finite numbers."""
    x, y = np.meshgrid(np.linspace(-24.0, 24.0, 3), np.linspace(-20.0, 20.0, 3))
    for image in made.images:
        assert math.isfinite(image.angle_deg)
        if image.bend is not None:
            with np.errstate(all="ignore"):  # far too large a number is refused later, by how far it moves images
                assert image.bend.at(x, y, 0.0).shape == (2, 3, 3)


def _stack(option: str) -> Stack:
    return Stack(4 if option == "aln" else 3, (40, 48), 5.0)  # AreTomo left one of its images out


def _aligned(made: AlignmentFormat, option: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        named = Named(path.with_name(NAME), None, {option: path})
        made.further(named)
        bends_are_finite(made.read(named, _stack(option)))

    return read


def _project(folder: Path) -> None:
    """The files beside tilt.com, newst.com and LOCALFILE."""
    write_stack(folder / NAME, np.ones((3, 40, 48), np.float32), 5.0, "seed")
    (folder / "ts.tlt").write_text("-20\n0\n20\n")
    (folder / "ts.xtilt").write_text("0.5\n0.5\n0.5\n")
    (folder / "ts.xf").write_text("1.0 0.0 0.0 1.0 2.5 -3.5\n" * 3)
    (folder / "tslocal.xf").write_text(texts.LOCAL)
    aligned = texts.TILT.replace("IMAGEBINNED 2", "IMAGEBINNED 1").replace("EXCLUDELIST 1,3-4\n", "")
    (folder / "whole.com").write_text(aligned.replace("tslocal.xf", "input.xf"))


def _tilt_seeds(folder: Path) -> list[bytes]:
    _project(folder)
    return [(folder / "whole.com").read_text().replace("input.xf", "tslocal.xf").encode()]


def _newst_seeds(folder: Path) -> list[bytes]:
    _project(folder)
    return [texts.NEWST.replace("20,24", "48,40").replace("BinByFactor 2", "BinByFactor 1").encode()]


def _local_seeds(folder: Path) -> list[bytes]:
    _project(folder)
    return [texts.LOCAL.encode()]


def _imod(option: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        named = Named(path.with_name(NAME), path.with_name("ts.tlt"), {option: path, "xf": path.with_name("ts.xf")})
        IMOD.further(named)
        bends_are_finite(IMOD.read(named, _stack(option)))

    return read


def _local(path: Path) -> None:
    areas = read_local(path)
    assert np.isfinite(areas.matrices).all()
    assert np.isfinite(areas.shifts_px).all()
    assert min(areas.step_px) > 0
    tilt_com = path.with_name("whole.com")
    bends_are_finite(
        IMOD.read(Named(path.with_name(NAME), path.with_name("ts.tlt"), {"tilt_com": tilt_com}), _stack("tilt_com"))
    )


# Defocus and doses


def _ctf(path: Path) -> None:
    elsewhere = told_microscope(path.with_name(NAME), (path,), Reading())
    assert all(math.isfinite(value) for value in vars(elsewhere.microscope).values() if value is not None)
    assert set(elsewhere.sources.values()) <= {path}
    made = read_ctf(path, SeriesImages(NAME, 3, (0, 1, 2), ANGLES_DEG), Reading())
    assert len(made.images) == 3
    for image in made.images:
        assert all(map(math.isfinite, (image.u_um, image.v_um, image.angle_deg, image.phase_shift_deg)))
    told = (made.microscope.voltage_kv, made.microscope.spherical_aberration_mm, made.microscope.amplitude_contrast)
    assert all(math.isfinite(value) for value in told if value is not None)
    assert made.hand in (None, 1, -1)


def _ctf_beside(path: Path) -> None:
    try:
        ctf_file_of(path.with_name(NAME), {"star" if path.suffix == ".star" else "warp": path}, Reading())
    except InputError:
        _ctf(path)
    else:
        _ctf(path)


def _exposures(path: Path) -> None:
    made = read_exposures(path, NAME)
    assert all(map(math.isfinite, (*made.angles_deg, *made.doses)))
    assert min(made.doses, default=0.0) >= 0
    assert made.defocus_um is None or math.isfinite(made.defocus_um)
    doses = made.of_images(ANGLES_DEG)
    assert doses is None or len(doses) == 3


# Stacks, volumes, folders


def _stack_seeds(*contents: str) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        write_stack(folder / "input.mrc", np.ones((3, 8, 10), np.float32), 5.0, "seed")
        return [content.encode() for content in contents]

    return seeds


def _folder(path: Path) -> None:
    found = read_session_folder(path.parent)
    assert len(found.entries) == 1
    for entry in found.entries:
        if not entry.problem and entry.angles:
            assert len(read_angles_deg(entry.angles)) > 0


def _mdoc(path: Path) -> None:
    angles = read_mdoc_angles_deg(path)
    assert all(abs(angle) <= 90 for angle in angles)


def _header_angles_seeds(folder: Path) -> list[bytes]:
    write_stack(folder / "seed.mrc", np.ones((3, 4, 5), np.float32), 5.0, "seed")
    plain = (folder / "seed.mrc").read_bytes()
    seeds = []
    for kind, counts, form, before in ((b"SERI", (2, 1), "h", ()), (b"FEI1", (0, 0), "i96xd660x", (768,))):
        unit = 100 if kind == b"SERI" else 1
        extended = b"".join(struct.pack(f"<{form}", *before, round(angle * unit)) for angle in ANGLES_DEG)
        header = bytearray(plain[:1024])
        header[104:108] = kind
        struct.pack_into("<i", header, 92, len(extended))
        struct.pack_into("<2h", header, 128, *counts)
        seeds.append(timeless(bytes(header) + extended + plain[1024:]))
    return seeds


def _header_angles(path: Path) -> None:
    assert all(abs(angle) <= 90 for angle in read_header_angles_deg(path))


def _scaling_seeds(folder: Path) -> list[bytes]:
    with mrcfile.new(folder / "input.mrc", np.ones((3, 4, 5), np.int8), overwrite=True) as file:
        file.set_volume()
    return [json.dumps({"volume": {"scaling": {"offset": 0.5, "step": 0.25}}}).encode()]


def _scaled_half(path: Path) -> None:
    half = open_half(path.with_suffix(".mrc"))
    assert np.isfinite(half.density(0)).all()


def _plane_seeds(folder: Path) -> list[bytes]:
    (folder / "planes").mkdir(exist_ok=True)
    for number in (1, 3):
        tifffile.imwrite(folder / "planes" / f"p{number}.tif", np.ones((4, 5), np.float32))
    return [(folder / "planes" / "p1.tif").read_bytes()]


def _planes(path: Path) -> None:
    target = path.parent / "planes" / "p2.tif"
    target.unlink(missing_ok=True)
    shutil.copyfile(path, target)
    volume = read_volume(target.parent)
    assert volume.voxels.shape == (3, 4, 5)


def _zarr_seeds(name: str) -> Callable[[Path], list[bytes]]:
    """The attributes of an image, which its array lies beside."""

    def seeds(folder: Path) -> list[bytes]:
        version: Version = "0.5" if name == "zarr.json" else "0.4"
        write_ome_zarr(folder / "input.zarr", np.ones((3, 4, 5), np.float32), 5.0, "seed", version=version)
        return [(folder / "input.zarr" / name).read_bytes()]

    return seeds


def _zarr(name: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        image = path.parent / "input.zarr"
        shutil.copyfile(path, image / name)
        assert np.asarray(read_volume(image).voxels).ndim == 3
        read_ome_zarr(image)

    return read


def _particles_seeds(folder: Path) -> list[bytes]:
    with mrcfile.new(folder / "ts_01.mrc", np.ones((20, 40, 48), np.float32), overwrite=True) as file:
        file.voxel_size = 5.0
        file.set_volume()
    return [texts.PARTICLES.encode()]


def _points(path: Path) -> None:
    for particle in read_points(path, "ts_01", "ribosome", 1):
        assert all(map(math.isfinite, (*particle.position_px, *particle.euler_deg)))


def _images_seeds(folder: Path) -> list[bytes]:
    for name in "abc":
        write_stack(folder / f"{name}.mrc", np.ones((1, 8, 10), np.float32), 5.0, "seed")
    star = texts.STAR
    for number, name in enumerate("abc", 1):
        star = star.replace(f"{number}@ts.mrc", f"{name}.mrc")
    return [star.encode()]


def _images(path: Path) -> None:
    paths = RELION.tables[path.suffix](path, Reading())
    assert ImageFiles(paths).shape[1:] == (8, 10)


SERIES_PARSERS = (
    Parser("AreTomo patches", ".aln", _aligned(ARETOMO, "aln"), of_texts(texts.PATCHES, texts.ALN)),
    Parser("RELION deformations", ".star", _aligned(RELION, "star"),
           of_texts(texts.LINEAR, texts.SPLINE, texts.FOURIER)),
    Parser("Warp grids", ".xml", _aligned(WARP, "warp"), of_texts(texts.WARP_GRIDS)),
    Parser("IMOD local", ".xf", _local, _local_seeds),
    Parser("IMOD project: tilt.com", ".com", _imod("tilt_com"), _tilt_seeds),
    Parser("IMOD project: newst.com", ".com", _imod("newst_com"), _newst_seeds),
    Parser("CTF table", ".txt", _ctf, of_texts(texts.CTFFIND, texts.ARETOMO_CTF)),
    Parser("IMOD defocus", ".defocus", _ctf, of_texts(texts.DEFOCUS_1, texts.DEFOCUS_2, texts.DEFOCUS_3)),
    Parser("RELION CTF", ".star", _ctf_beside, of_texts(texts.LINEAR)),
    Parser("Warp CTF", ".xml", _ctf_beside, of_texts(texts.WARP_GRIDS)),
    Parser("doses (mdoc)", ".mdoc", _exposures, of_texts(texts.MDOC)),
    Parser("doses (RELION)", ".star", _exposures, of_texts(texts.LINEAR)),
    Parser("doses (Warp xml)", ".xml", _exposures, of_texts(texts.WARP_GRIDS)),
    Parser("doses (tomostar)", ".tomostar", _exposures, of_texts(texts.TOMOSTAR)),
    Parser("images of a table", ".star", _images, _images_seeds),
    Parser("angles of a header", ".mrc", _header_angles, _header_angles_seeds),
    Parser("mdoc of a stack", ".mdoc", _mdoc, of_texts(texts.MDOC)),
    Parser("folder of a session", ".tlt", _folder, _stack_seeds("-20\n0\n20\n")),
    Parser("folder with an mdoc", ".mdoc", _folder, _stack_seeds(texts.MDOC)),
    Parser("angles of a stack", ".tlt", lambda p: read_tilt_series(p.with_suffix(".mrc"), p),
           _stack_seeds("-20\n0\n20\n")),
    Parser("scale of a half", ".json", _scaled_half, _scaling_seeds),
    Parser("TIFF planes", ".tif", _planes, _plane_seeds),
    Parser("OME-Zarr 0.4", ".json", _zarr(".zattrs"), _zarr_seeds(".zattrs")),
    Parser("OME-Zarr 0.5", ".json", _zarr("zarr.json"), _zarr_seeds("zarr.json")),
    Parser("points of a viewer", ".star", lambda p: read_layers(str(p)), _particles_seeds),
    Parser("points of a portal", ".ndjson", _points, of_texts(texts.POINTS)),
    Parser("info: star", ".star", describe, of_texts(texts.STAR, texts.LINEAR, texts.TOMOGRAMS, texts.PARTICLES)),
    Parser("info: xml", ".xml", describe, of_texts(texts.WARP_GRIDS)),
    Parser("info: aln", ".aln", describe, of_texts(texts.PATCHES)),
    Parser("info: com", ".com", describe, of_texts(texts.NEWST, texts.TILT)),
    Parser("info: xf", ".xf", describe, of_texts(texts.LOCAL, "1.0 0.0 0.0 1.0 2.5 -3.5\n" * 3)),
    Parser("info: mdoc", ".mdoc", describe, of_texts(texts.MDOC)),
    Parser("info: angles", ".tlt", describe, of_texts("-20\n0\n20\n")),
    Parser("info: text", ".txt", describe, of_texts("-20\n0\n20\n", "-20.0,1\n0.0,2\n20.0,3\n")),
    Parser("info: YAML", ".yaml", describe, of_texts(texts.SETTINGS)),
    Parser("info: list", ".csv", describe, of_texts(texts.LIST)),
)  # fmt: skip
