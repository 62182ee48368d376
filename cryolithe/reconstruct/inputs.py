"""The stack, its angles and what aligns them: read from the files that a job names, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cryolithe.alignment import Alignment, plain_alignment, rotation
from cryolithe.errors import InputError, SettingsError
from cryolithe.formats import read_mrc
from cryolithe.formats.alignment_aretomo import read_aln
from cryolithe.formats.alignment_names import files_beside
from cryolithe.formats.alignment_relion import find_series_table, read_tilt_series_star
from cryolithe.formats.alignment_warp import read_warp
from cryolithe.formats.files import PathLike
from cryolithe.formats.image_files import ImageFiles
from cryolithe.formats.mrc import MrcArray
from cryolithe.formats.stack_state import is_aligned_name
from cryolithe.formats.tomogram_star import series_images
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruct.assumptions import ALONG_DEG, angles_of, assumptions, image_order, of_denoised_images
from cryolithe.reconstruct.imod_project import imod_alignment, project_files
from cryolithe.settings import ReconstructSettings
from cryolithe.tilts import Images, TiltSeries

# Options that name alignment files, in groups of which a series takes one.
GROUPS = (("xf", "newst_com", "tilt_com"), ("aln",), ("star",), ("warp",))
OPTIONS = tuple(option for group in GROUPS for option in group)


@dataclass(frozen=True)
class Inputs:
    """What a series is made of.

    Attributes:
        series: the images that are used, with the angles of the wanted volume.
        alignment: how they are brought into register.
        aligned: whether files or settings say anything that plain aligned stacks do not need.
    """

    series: TiltSeries
    alignment: Alignment
    aligned: bool


def mirrored(settings: ReconstructSettings) -> bool:
    """Whether z runs against ``u = x cos θ + z sin θ``."""
    return (settings.handedness in ("aretomo", "warp")) != settings.flip_z


def alignment_files(tilts: Path, angles: Path | None, settings: ReconstructSettings) -> dict[str, Path]:
    """All files that decide an alignment, by option or entry: also those that command files and tables name.

    Raises:
        InputError: if such a file cannot be read, or a table does not name the series.
    """
    files = {option: Path(path) for option in OPTIONS if (path := getattr(settings, option)) is not None}
    files |= project_files(angles, settings)
    if settings.star is not None:
        table = find_series_table(settings.star, tilts.name)
        if table != files["star"]:
            files["star of the series"] = table
    return files


def read_inputs(tilts: Path, angles: Path | None, settings: ReconstructSettings) -> Inputs:
    """Read a stack with its angles and its alignment.

    Raises:
        InputError: if a file is not usable, or files do not belong together.
        SettingsError: if options contradict each other.
        GeometryError: if angles or transforms describe no tilt series.
    """
    _check_options(tilts, angles, settings)
    images, mrc = _open_images(tilts)
    sections, height, width = images.shape
    pixel = settings.pixel_size or mrc.voxel_size_angstrom
    if settings.aln is not None:
        known = image_order(tilts, angles, sections)
        given, beside = (known.angles_deg or None if known.given == wanted else None for wanted in (True, False))
        alignment, shape = read_aln(settings.aln, given, beside)
        _same_stack(settings.aln, tilts, alignment.sections, sections)
        if shape != (height, width):
            raise InputError(
                f"{settings.aln} is for images of {shape[1]} x {shape[0]} pixels but those of {tilts} are "
                f"{width} x {height}; give the raw stack that AreTomo aligned"
            )
    elif settings.star is not None:
        # The images of a table that names single files are in the order of its rows.
        listed = angles is None and tilts.suffix.lower() == ".star"
        order = None if listed else image_order(tilts, angles, sections)
        alignment = read_tilt_series_star(settings.star, tilts.name, sections, pixel, order)
    elif settings.warp is not None:
        alignment = read_warp(settings.warp, sections, pixel, image_order(tilts, angles, sections))
    elif settings.xf is not None or settings.newst_com is not None or settings.tilt_com is not None:
        alignment = imod_alignment(tilts, angles, settings, (sections, height, width))
    else:
        assert angles is not None
        alignment = plain_alignment(angles_of(angles, tilts, sections))
    if settings.centre is not None:
        alignment = replace(alignment, centre=settings.centre)
    named = any(getattr(settings, option) is not None for option in OPTIONS)
    moving = any(getattr(settings, option) is not None for option in OPTIONS if option != "tilt_com")
    aligned = named or alignment.centre != "imod"
    if aligned and settings.tilt_axis:  # allowed where nothing else turns the images
        turn = rotation(-settings.tilt_axis)
        alignment = replace(alignment, images=tuple(replace(i, matrix=turn) for i in alignment.images))
    sign = -1.0 if mirrored(settings) else 1.0
    geometry = TiltGeometry(tuple(sign * image.angle_deg for image in alignment.images), (height, width))
    used = tuple(image.section for image in alignment.images)
    series = TiltSeries(
        images,
        geometry,
        alignment.pixel_size_angstrom or pixel,
        (
            *mrc.notes,
            *alignment.notes,
            *of_denoised_images(tilts, mrc.labels),
            *assumptions(tilts, angles, None if moving else settings.tilt_axis),
        ),
        None if used == tuple(range(sections)) else used,
        mrc.labels,
    )
    return Inputs(series, alignment, aligned)


def image_files(tilts: Path) -> dict[str, Path]:
    """The files that a STAR file of one series names as its images; empty where ``tilts`` is a stack.

    Raises:
        InputError: if one of them is not there.
    """
    if tilts.suffix.lower() != ".star":
        return {}
    return {f"image {number}": path for number, path in enumerate(series_images(tilts), start=1)}


def _open_images(tilts: Path) -> tuple[Images, MrcArray]:
    """The images, and the (first) file's header."""
    files = image_files(tilts)
    if not files:
        mrc = read_mrc(tilts)
        return mrc.data, mrc
    images = ImageFiles(tuple(files.values()))
    return images, images.first


def _check_options(tilts: Path, angles: Path | None, settings: ReconstructSettings) -> None:
    """Raise SettingsError for options that cannot go together, and for a missing source of angles."""
    given = [option for option in OPTIONS if getattr(settings, option) is not None]
    groups = [group for group in GROUPS if any(option in group for option in given)]
    if len(groups) > 1:
        raise SettingsError(f"{_flags(given)} are alignments of different programs; give those of one")
    moving = [option for option in given if option != "tilt_com"]
    if moving and settings.tilt_axis:
        raise SettingsError(f"{_flags(moving)} turns the tilt axis itself; leave out --tilt-axis")
    if angles is None and not given:
        raise SettingsError(
            "give ANGLES, or an alignment that brings them (--aln, --star, --warp, --tilt-com); "
            "see: cryolithe reconstruct --help"
        )
    if not is_aligned_name(tilts):
        return
    if moving:
        raise SettingsError(
            f"the name of {tilts.name} says that it is aligned already: {_flags(moving)} would align it twice; "
            "give the raw stack, or the aligned one without this option"
        )
    if abs((settings.tilt_axis + 45) % 90 - 45) > ALONG_DEG:
        raise SettingsError(
            f"the name of {tilts.name} says that it is aligned already, its tilt axis along y: --tilt-axis "
            f"{settings.tilt_axis:g} would turn it again; give the raw stack, or leave out --tilt-axis"
        )


def _flags(options: list[str]) -> str:
    return " and ".join(f"--{option.replace('_', '-')}" for option in options)


def _same_stack(source: PathLike, tilts: Path, expected: int, found: int) -> None:
    if expected != found:
        raise InputError(
            f"{tilts} holds {found} images but {source} is for {expected}; give the stack that was aligned"
        )


def offers(tilts: Path, settings: ReconstructSettings) -> list[str]:
    """Lines on alignment files beside a stack that were not asked for."""
    if any(getattr(settings, option) is not None for option in OPTIONS) or is_aligned_name(tilts):
        return []
    return [
        f"{path} is there and is not used; if {tilts.name} is not aligned yet, give: {_flags([option])} {path}"
        for option, paths in files_beside(tilts).items()
        for path in paths
    ]
