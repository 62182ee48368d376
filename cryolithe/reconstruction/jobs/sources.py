"""The files of a series, resolved once: which they are, whose reader they have, what they say, what was assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from cryolithe.alignment import (
    Alignment,
    ImageAlignment,
    largest_bend_px,
    plain_alignment,
    rotation,
    without_bends,
    without_idle_bends,
)
from cryolithe.errors import GeometryError, InputError, SettingsError
from cryolithe.formats import read_mrc
from cryolithe.formats.alignment.alignment_format import AlignmentFormat, Named, Stack
from cryolithe.formats.alignment.alignments import (
    alignment_files,
    files_beside,
    flags,
    format_of_table,
    formats_of,
)
from cryolithe.formats.alignment.doubts import alignment_doubts
from cryolithe.formats.alignment.image_order import angle_of_images, doubts, of_gaps
from cryolithe.formats.alignment.pairing import pair
from cryolithe.formats.alignment.relion_listing import listed_text
from cryolithe.formats.alignment.stack_state import is_aligned_name
from cryolithe.formats.microscope.ctf_files import ctf_file_of, read_with
from cryolithe.formats.microscope.doses import doses_beside
from cryolithe.formats.microscope.microscope_told import NOTHING_TOLD, ToldMicroscope, told_microscope
from cryolithe.formats.reading import Reading, State, file_state, refuse_changed
from cryolithe.formats.series_names import is_prealigned
from cryolithe.formats.stacks.image_files import ImageFiles
from cryolithe.formats.stacks.mean_images import MeanImages
from cryolithe.formats.stacks.mrc import MrcArray
from cryolithe.formats.stacks.stack_images import read_one_by_one
from cryolithe.geometry import TiltGeometry, check_angles_deg
from cryolithe.reconstruction.jobs.asked_angles import no_angles
from cryolithe.reconstruction.jobs.assumptions import (
    ALONG_DEG,
    assumptions,
    of_denoised_images,
    of_handedness,
)
from cryolithe.reconstruction.jobs.pixel_sizes import pixel_size
from cryolithe.reconstruction.jobs.thickness import aligned_shape, wanted_depth_px
from cryolithe.settings import ReconstructSettings
from cryolithe.tilts import Images, TiltSeries

# Local shifts of a series are a percent or two of its images.
MOST_LOCAL_SHIFT = 0.08


@dataclass(frozen=True)
class SourceFiles:
    """Which files a series is made of.

    Attributes:
        named: those that the user names, and through what all are read.
        format: of the alignment; None for a stack that is aligned.
        images: files of single images, where a table stands for the stack; empty for a stack.
        files: every file that decides the result besides the model, by what it is.
        states: of these files when they were found.
        rows: of those that tell of other series, too, what they tell of this one: that alone decides.
    """

    named: Named
    format: AlignmentFormat | None
    images: tuple[Path, ...]
    files: Mapping[str, Path]
    states: Mapping[str, State | None]
    rows: Mapping[str, str] = field(default_factory=dict)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file, by what it is: of a stack that takes its time, and is done once."""
        return {name: self.named.reading.sha256(path) for name, path in self.files.items()}

    def row_hashes(self) -> dict[str, str]:
        """SHA-256 of what decides of those files that tell of other series, too."""
        return {name: sha256(text.encode()).hexdigest() for name, text in self.rows.items()}

    def refuse_changed(self) -> None:
        """Raise InputError, which names the file, where one is no more as it was when it was found."""
        states = {path: self.states[name] for name, path in self.files.items()}
        same = {path for path, text in self._rows_now(states).items() if text in self.rows.values()}
        refuse_changed({path: state for path, state in states.items() if path not in same}, "the run read it")

    def _rows_now(self, states: Mapping[Path, State | None]) -> dict[Path, str]:
        """What files that have changed since tell of this series now: a table grows while others are at work."""
        known = {self.files[name] for name in self.rows}
        if all(file_state(path) == states[path] for path in known):
            return {}
        try:
            return {path: text for path, text in _rows(self.named, self.files).items() if path in known}
        except InputError:
            return {}


# What the stack of the other half of the frames is called among the files of a run.
ODD = "odd tilts"


@dataclass(frozen=True)
class Sources:
    """What the files of a series say.

    Attributes:
        files: which they are.
        series: the images that are used, with the angles of the wanted volume; its notes tell what was assumed.
        alignment: how the images are brought into register.
        aligned: whether files or settings say anything that plain aligned stacks do not need.
    """

    files: SourceFiles
    series: TiltSeries
    alignment: Alignment
    aligned: bool


@dataclass(frozen=True)
class Held:
    """Images with what is known of them beside their angles.

    Attributes:
        images: shape ``(tilt, y, x)``.
        pixel_size_angstrom: or None.
        notes: for the user.
        labels: texts of a header.
        ctf_corrected: whether its flags say so.
    """

    images: Images
    pixel_size_angstrom: float | None = None
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    ctf_corrected: bool = False


def z_reversed(settings: ReconstructSettings) -> bool:
    """Whether z runs against ``u = x cos θ + z sin θ``."""
    return (settings.handedness in ("aretomo", "warp")) != settings.flip_z


def find_sources(tilts: Path, angles: Path | None, settings: ReconstructSettings, reading: Reading) -> SourceFiles:
    """Find out which files decide a series: also those that command files and tables name.

    Raises:
        InputError: if such a file cannot be read, a table does not name the series, or an image is not there.
    """
    named = Named(tilts, angles, settings.alignment_files, settings.bin, settings.thickness, reading)
    given: dict[str, Path] = {"tilts": tilts, **({} if angles is None else {"angles": angles}), **named.files}
    dose = Path(settings.dose) if settings.dose else None
    if settings.dose_weight and dose is None:
        dose = doses_beside(tilts, given.values(), reading)
    told = {} if dose is None else {"dose": dose}
    if settings.ctf != "none":
        ctf = Path(settings.ctf_file) if settings.ctf_file else ctf_file_of(tilts, settings.alignment_files, reading)
        told |= {} if ctf in given.values() else {"ctf": ctf}
    formats = formats_of(named.files)
    further = {name: path for made in formats for name, path in made.further(named).items()}
    for what, told_by in tuple(told.items()):
        more = {f"{what}: {name}": path for name, path in read_with(told_by, tilts, reading).items()}
        told |= {name: path for name, path in more.items() if path not in (given | further | told).values()}
    lens = dict.fromkeys(microscope_of(tilts, angles, settings, reading).sources.values())
    others = [path for path in lens if path not in (given | further | told).values()]
    told |= {f"microscope {number}" if others[1:] else "microscope": p for number, p in enumerate(others, start=1)}
    states = {name: file_state(path) for name, path in (given | told).items()}
    table = format_of_table(tilts)
    images = table.tables[tilts.suffix.lower()](tilts, reading) if table else ()
    single = {f"image {number}": path for number, path in enumerate(images, start=1)}
    states |= {name: file_state(path) for name, path in (single | further).items()}
    # In the order of records: the images come behind the table that lists them.
    files = {"tilts": tilts, **single, **given, **further, **told}
    rows = _rows(named, files)
    texts = {name: rows[path] for name, path in files.items() if path in rows}
    return SourceFiles(named, formats[0] if formats else None, images, files, states, texts)


def _rows(named: Named, files: Mapping[str, Path]) -> dict[Path, str]:
    """What tables that list series tell of one, by their files."""
    told = [path for name, path in files.items() if name in ("dose", "ctf") and path.suffix.lower() == ".star"]
    listed = [listed_text(path, named.tilts, named.reading) for path in told]
    listed += [made.rows(named) for made in formats_of(named.files)]
    return {path: text for texts in listed for path, text in texts.items()}


def with_odd(files: SourceFiles, odd: Path) -> SourceFiles:
    """The files of a series of which the stack has the even frames, with the stack of the odd ones."""
    return replace(files, files={**files.files, ODD: odd}, states={**files.states, ODD: file_state(odd)})


def microscope_of(tilts: Path, angles: Path | None, settings: ReconstructSettings, reading: Reading) -> ToldMicroscope:
    """What the files of a run tell of the microscope, beside the file of the defocus; nothing if nobody asks."""
    if settings.ctf == "none" and not settings.dose_weight:
        return NOTHING_TOLD
    dose = Path(settings.dose) if settings.dose else None
    return told_microscope(tilts, (*settings.alignment_files.values(), dose, angles), reading)


def read_sources(files: SourceFiles, settings: ReconstructSettings) -> Sources:
    """Read a stack with its angles and its alignment.

    Raises:
        InputError: if a file is not usable, or files do not belong together.
        SettingsError: if options contradict each other.
        GeometryError: if angles or transforms describe no tilt series.
    """
    named = files.named
    _check_options(named, settings)
    images, mrc = _open_images(files)
    if ODD in files.files:
        images = MeanImages(images, read_one_by_one(read_mrc(files.files[ODD]).data))
    sections, height, width = images.shape
    pixel = pixel_size(named, mrc, settings.pixel_size)
    if files.format is not None:
        stack = Stack(sections, (height, width), pixel.angstrom, settings.pixel_size is not None)
        alignment = files.format.read(named, stack)
        against = alignment_doubts(named, stack, alignment, files.format)
    else:
        alignment, against = _angles_alone(named, sections), ()
    # The alignment's own pixel size is the one that counts.
    of_header = alignment.pixel_size_angstrom is not None and settings.pixel_size is None
    viewing = of_denoised_images(named.tilts, mrc.labels)
    assumed = (
        *of_handedness(settings),
        *of_gaps(named, sections),
        *doubts(named, sections),
        *against,
        *assumptions(named, None if _moving(named) else settings.tilt_axis),
    )
    told = Held(
        images,
        pixel.angstrom,
        (*(mrc.notes if of_header else pixel.notes), *alignment.notes, *viewing, *assumed),
        mrc.labels,
        mrc.ctf_corrected,
    )
    return _sources(files, told, alignment, settings)


def held_sources(told: Held, angles_deg: Sequence[float], settings: ReconstructSettings) -> Sources:
    """An aligned series that somebody has in hand, with its angles.

    Raises:
        GeometryError: if images and angles describe no tilt series.
    """
    named = Named(Path("tilts"), None, {}, settings.bin, settings.thickness, Reading())
    files = SourceFiles(named, None, (), {}, {})
    sections = told.images.shape[0]
    angles = tuple(float(angle) for angle in angles_deg)
    if len(angles) != sections:
        raise GeometryError(
            f"the stack holds {sections} images but there are {len(angles)} tilt angles; give one angle for each image"
        )
    return _sources(files, told, plain_alignment(angles, "imod"), settings)


def _sources(files: SourceFiles, told: Held, alignment: Alignment, settings: ReconstructSettings) -> Sources:
    """A series, its alignment as the settings will have it."""
    images, (sections, height, width) = told.images, told.images.shape
    if settings.centre is not None:
        alignment = replace(alignment, centre=settings.centre)
    alignment, left_out = _local(alignment, (height, width), settings)
    aligned = files.format is not None or alignment.centre != "imod"
    if aligned and settings.tilt_axis:  # allowed where nothing else turns the images
        turn = rotation(-settings.tilt_axis)
        alignment = replace(alignment, images=tuple(replace(i, matrix=turn) for i in alignment.images))
    sign = -1.0 if z_reversed(settings) else 1.0
    angles_deg = tuple(sign * image.angle_deg for image in alignment.images)
    check_angles_deg(angles_deg)
    geometry = TiltGeometry(angles_deg, (height, width))
    used = tuple(image.section for image in alignment.images)
    pixel = alignment.pixel_size_angstrom or told.pixel_size_angstrom
    series = TiltSeries(
        images,
        geometry,
        pixel,
        (*told.notes, *left_out),
        None if used == tuple(range(sections)) else used,
        told.labels,
        told.ctf_corrected,
    )
    return Sources(files, series, alignment, aligned)


def _local(
    alignment: Alignment, shape: tuple[int, int], settings: ReconstructSettings
) -> tuple[Alignment, tuple[str, ...]]:
    """An alignment with the bends that are wanted, and what to tell of those that are not.

    Raises:
        InputError: if an image would be bent out of its own field.
    """
    if not alignment.local:
        return alignment, ()
    shown, depth = aligned_shape(alignment, shape), wanted_depth_px(alignment, settings, shape)
    # What is done to images that the user leaves out does not matter.
    images = tuple(image for image in alignment.images if image.section + 1 not in settings.excluded)
    largest, half = largest_bend_px(replace(alignment, images=images), shown, depth), min(shape) / 2
    if not settings.local_alignment:
        told = f"the local shifts in {alignment.local}, up to {largest:.2f} pixels, are left out (--no-local-alignment)"
        return without_bends(alignment), (told,)
    if largest > half:
        raise InputError(
            f"{alignment.local} moves parts of images by up to {largest:.0f} pixels, expected less than {half:g}; "
            "align anew, or give --no-local-alignment for the global part alone"
        )
    notes: tuple[str, ...] = ()
    if largest > MOST_LOCAL_SHIFT * min(shape):
        notes = (
            f"Warning: {alignment.local} moves parts of images by up to {largest:.0f} pixels of {min(shape)}, which no "
            "series is bent by: is it of another series, or the pixel size wrong (--pixel-size)? "
            "--no-local-alignment takes the rest of it alone",
        )
    return without_idle_bends(alignment, shown, depth), notes


def _angles_alone(named: Named, sections: int) -> Alignment:
    """The alignment of a stack that is aligned already; of those images that its angle file has."""
    angle_of = angle_of_images(named, sections)
    return Alignment(tuple(ImageAlignment(number, angle) for number, angle in angle_of.items()), sections)


def _open_images(files: SourceFiles) -> tuple[Images, MrcArray]:
    """The images, and the (first) file's header."""
    if not files.images:
        mrc = read_mrc(files.named.tilts)
        return read_one_by_one(mrc.data), mrc
    images = ImageFiles(files.images)
    return images, images.first


def _moving(named: Named) -> list[str]:
    """The options given that bring the images into register."""
    known = alignment_files()
    return [option for option in named.files if "shifts" in known[option].tells]


def _check_options(named: Named, settings: ReconstructSettings) -> None:
    """Raise SettingsError for options that cannot go together, and for a missing source of angles."""
    tilts, moving = named.tilts, _moving(named)
    if len(formats_of(named.files)) > 1:
        raise SettingsError(f"{flags(named.files)} are alignments of different programs; give those of one")
    if moving and settings.tilt_axis:
        raise SettingsError(f"{flags(moving)} turns the tilt axis itself; leave out --tilt-axis")
    if named.angles is None and not named.files:
        raise SettingsError(no_angles(named))
    if not is_aligned_name(tilts):
        return
    if moving:
        raise SettingsError(
            f"the name of {tilts.name} says that it is aligned already: {flags(moving)} would align it twice; "
            "give the raw stack, or the aligned one without this option"
        )
    if abs((settings.tilt_axis + 45) % 90 - 45) > ALONG_DEG:
        raise SettingsError(
            f"the name of {tilts.name} says that it is aligned already, its tilt axis along y: --tilt-axis "
            f"{settings.tilt_axis:g} would turn it again; give the raw stack, or leave out --tilt-axis"
        )


def offers(named: Named) -> list[str]:
    """Lines on alignment files beside a stack that were not asked for."""
    aligned = is_aligned_name(named.tilts)
    if is_prealigned(named.tilts.name):  # what lies beside it is of the raw stack, or tells nothing of this one
        return []
    if named.files or aligned:
        return _further_offers(named, aligned)
    return [
        f"{path} is there and is not used; if {named.tilts.name} is not aligned yet, give: {flags([option])} {path}"
        for option, paths in files_beside(named.tilts).items()
        for path in paths
    ]


def _further_offers(named: Named, aligned: bool) -> list[str]:
    """Lines on files beside a stack that is in register with those given, which leave out images or move the volume."""
    known = alignment_files()
    missing = [
        option
        for option in files_beside(named.tilts)
        if option not in named.files and "shifts" not in known[option].tells
        if len(formats_of([*named.files, option])) == 1
    ]
    found = pair(named.tilts, aligned, False, named.reading).files if missing else {}
    return [
        f"{found[option]} is of {named.tilts.name} and is not used: it may leave out images, add to their angles and "
        f"move the volume; if it should, give: {flags([option])} {found[option]}"
        for option in missing
        if option in found
    ]
