"""What is to be reconstructed: files and settings, checked and resolved before the first slab."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from cryolithe.alignment import Alignment
from cryolithe.errors import CryoLitheError, FileFormatError, OutputError, SettingsError
from cryolithe.formats.alignment.alignments import format_of_table
from cryolithe.formats.files import (
    MRC_VOLUME_ENDINGS,
    check_ending,
    input_size_bytes,
    nearest_folder,
    refuse_nameless,
)
from cryolithe.formats.reading import Reading
from cryolithe.formats.series.not_stacks import what_else
from cryolithe.geometry import VolumeGrid
from cryolithe.machine.device import choose_devices
from cryolithe.network.checkpoint import Model, load_model
from cryolithe.projector import check_engine
from cryolithe.reconstruction.evidence.optics_evidence import OpticsEvidence
from cryolithe.reconstruction.evidence.polarity import Contrast, Evidence, told_contrast
from cryolithe.reconstruction.images.correcting import (
    NO_CORRECTIONS,
    Corrections,
    Places,
    corrections,
    ctf_of,
    images_of,
    refuse_twice,
    x_tilt_notes,
)
from cryolithe.reconstruction.images.preparation import Preparation
from cryolithe.reconstruction.images.slow import LEAST_SHARE
from cryolithe.reconstruction.jobs.adapted import adapted_notes
from cryolithe.reconstruction.jobs.asked_layers import asked_layers
from cryolithe.reconstruction.jobs.assumptions import unusual
from cryolithe.reconstruction.jobs.beyond_training import scale_notes, tilt_notes
from cryolithe.reconstruction.jobs.exposures import SeriesFiles, told_exposures
from cryolithe.reconstruction.jobs.knowing import (
    NO_FACTS,
    ToldFacts,
    ctf_state,
    doses_to_weigh,
    taken_facts,
    told_facts,
)
from cryolithe.reconstruction.jobs.made_before import differences, differences_told, is_record_of
from cryolithe.reconstruction.jobs.parts import wanted_part, without_excluded
from cryolithe.reconstruction.jobs.placing import with_shifts, with_views
from cryolithe.reconstruction.jobs.preview_mark import check_preview
from cryolithe.reconstruction.jobs.sources import (
    SourceFiles,
    Sources,
    find_sources,
    microscope_of,
    read_sources,
    with_odd,
    z_reversed,
)
from cryolithe.reconstruction.jobs.thickness import aligned_shape, wanted_thickness
from cryolithe.reconstruction.jobs.untilted import NO_TILT_DEG, depth_before
from cryolithe.reconstruction.slabwise.networks import fbp_share
from cryolithe.reconstruction.slabwise.precisions import precisions
from cryolithe.report.greys import MAP_RANGES
from cryolithe.settings import ReconstructSettings
from cryolithe.tilts import TiltSeries

# Maps of `--confidence`, as their files end.
MAP_KINDS = tuple(MAP_RANGES)


@dataclass(frozen=True)
class Job:
    """Files and settings of one reconstruction.

    Attributes:
        tilts: the stack.
        angles: the angle file; None where an alignment brings the angles.
        output: the volume to write; its sidecar has the ending .json.
        settings: everything else.
        evidence: of the polarity, where the stack is a part of a series that was looked at as a whole.
        optics: what images tell of the optics, likewise.
        odd: stack of the other frames, where ``tilts`` has half of them: the mean of both is reconstructed.
        sections: which images of the stack are taken, by their numbers from 0, of those that its files use; None for
            all of these.
        reading: through which the files are read, so that each is opened once however often the job is looked at.

    Raises:
        OutputError: if the output has no name.
    """

    tilts: Path
    angles: Path | None
    output: Path
    settings: ReconstructSettings
    evidence: Evidence | None = None
    optics: OpticsEvidence | None = None
    odd: Path | None = None
    sections: tuple[int, ...] | None = None
    reading: Reading = field(default_factory=Reading, repr=False, compare=False)

    def __post_init__(self) -> None:
        refuse_nameless(self.output)

    @property
    def sidecar(self) -> Path:
        """The JSON file that tells how the volume was made."""
        return self.output.with_suffix(".json")

    @property
    def preview(self) -> Path:
        """The drawing of the volume's central slices."""
        return self.output.with_suffix(".png")

    @property
    def maps(self) -> dict[str, Path]:
        """The maps of ``--confidence`` by kind; empty without it."""
        return map_paths(self.output) if self.settings.confidence else {}

    @property
    def part(self) -> list[int] | None:
        """The numbers, from 1, of the images that are taken, for records; None for all."""
        return None if self.sections is None else [section + 1 for section in self.sections]

    @property
    def partial(self) -> Path:
        """The working folder."""
        return self.output.with_name(self.output.name + ".partial")

    @property
    def written(self) -> tuple[Path, ...]:
        """Everything that a run may write."""
        return (self.output, self.sidecar, self.preview, self.partial, *self.maps.values())


@dataclass(frozen=True)
class Finished:
    """What a run made.

    Attributes:
        output: the volume.
        sidecar: its record.
        shape: voxels ``(z, y, x)``.
        voxel_size_angstrom: edge of a voxel, or None.
        seconds: time from start to end.
        warnings: what the user must know about the result.
        polarity: what dense matter was taken to be, in words; empty for methods to which it is all one.
    """

    output: Path
    sidecar: Path
    shape: tuple[int, int, int]
    voxel_size_angstrom: float | None
    seconds: float
    warnings: tuple[str, ...] = ()
    polarity: str = ""

    def __str__(self) -> str:
        z, y, x = self.shape
        size = f"{self.voxel_size_angstrom:.4g} Å voxels" if self.voxel_size_angstrom else "voxel size unknown"
        parts = [f"{z} x {y} x {x} (z, y, x)", size, *([self.polarity] if self.polarity else [])]
        return f"{self.output}: {', '.join(parts)}, {self.seconds:.1f} s, record in {self.sidecar.name}"


@dataclass(frozen=True)
class ResolvedJob:
    """Everything about a run that is known before its first slab.

    Attributes:
        files: which decide the result, besides the model.
        grid: voxels that the method makes; deeper than those that are kept where the volume is tilted about x.
        depth: voxels along z that are kept.
        x_tilt_deg: by which the volume is turned about x when it is made; 0 for none.
        precision: of a network's layers.
        fallback: of those slabs in which values leave its range; None where such a slab is an error.
        facts: what is known of the series, for models that take it.
        corrections: of the images' CTF and radiation damage, as they are prepared.
    """

    job: Job
    files: SourceFiles
    series: TiltSeries
    alignment: Alignment
    grid: VolumeGrid
    depth: int
    x_tilt_deg: float
    preparation: Preparation
    model: Model | None
    devices: tuple[torch.device, ...]
    precision: torch.dtype
    fallback: torch.dtype | None = None
    facts: ToldFacts = NO_FACTS
    corrections: Corrections = NO_CORRECTIONS

    @property
    def device(self) -> torch.device:
        """The first device: it stands for the others, which are of its kind."""
        return self.devices[0]

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """Voxels of the file along its slowest, middle and fastest axis."""
        shape = (self.depth, *self.grid.shape[1:])
        return (shape[1], shape[0], shape[2]) if self.job.settings.orientation == "xzy" else shape

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Edge of a voxel of the result, or None."""
        size = self.series.pixel_size_angstrom
        return None if size is None else size * self.preparation.bin

    def dense_sign(self, contrast: Contrast) -> float:
        """Turns images into what the network wants: ours dense = positive, the published ones dense = dark."""
        wanted = "dark" if self.model is not None and self.model.convention.published else "bright"
        return 1.0 if contrast == wanted else -1.0


def with_own_table(tilts: Path, settings: ReconstructSettings) -> ReconstructSettings:
    """The settings of a stack; of a table of images, which names and aligns them, with itself as the alignment."""
    table = format_of_table(tilts)
    if table is None or table.files[0].option in settings.alignment_files:
        return settings
    return settings.model_copy(update={table.files[0].option: str(tilts)})


def job_of(
    files: tuple[Path, Path | None], output: Path, settings: ReconstructSettings, reading: Reading | None = None
) -> Job:
    """The job of a stack, or of a table of images, and its angles (None: they stand elsewhere)."""
    tilts, angles = files
    settings = with_own_table(tilts, settings)
    return Job(tilts, angles, output, settings, reading=reading or Reading())


def default_output(tilts: Path, file_format: str = "mrc") -> Path:
    """``<base>_rec.mrc`` or ``<base>_rec.zarr`` beside the stack."""
    name = tilts.name
    for ending in (".gz", ".bz2"):
        name = name.removesuffix(ending)
    return tilts.with_name(Path(name).stem + ("_rec.mrc" if file_format == "mrc" else "_rec.zarr"))


def map_paths(output: Path) -> dict[str, Path]:
    """Where the maps of ``--confidence`` lie beside a volume, by kind."""
    return {kind: output.with_name(f"{output.stem}_{kind}{output.suffix}") for kind in MAP_KINDS}


def map_file(target: Path) -> str:
    """What a finished map is called in the working folder."""
    return f"finished.{target.name}"


def check_inputs(files: SourceFiles) -> None:
    """Refuse inputs that are no files, and images that are none of MRC.

    Raises:
        InputError: says what it is, and what to do.
    """
    if not files.images and (other := what_else(files.named.tilts)):
        raise FileFormatError(other)
    for path in files.files.values():
        input_size_bytes(path)


def check_files(job: Job, files: SourceFiles, to_make: Path | None = None) -> None:
    """Refuse inputs that are no files, and an output that cannot or must not be written, before any work is done.

    Args:
        job: files and settings.
        files: all inputs but the model.
        to_make: a folder that may be missing, for it is made before the work.

    Raises:
        OutputError: if the output is an input, is taken, has the wrong ending, or its folder is not there.
        SettingsError: if the format has no such orientation.
    """
    inputs = list(files.files.values())
    check_inputs(files)
    folder = job.output.parent
    if not folder.is_dir() and folder != to_make:
        raise OutputError(f"the output folder {folder} does not exist; make it first or choose another -o")
    zarr = job.output.suffix == ".zarr"
    if zarr != (job.settings.format != "mrc"):
        wanted = ".zarr" if job.settings.format != "mrc" else ".mrc (or give --format ome-zarr)"
        raise OutputError(f"{job.output}: --format {job.settings.format} needs a name ending in {wanted}")
    if zarr and job.settings.orientation != "xyz":
        raise SettingsError("--orientation xzy is for MRC files; OME-Zarr names its axes and keeps z, y, x")
    if job.output.is_dir() and not job.output.is_symlink() and not (zarr and is_record_of(job.sidecar, job.output)):
        raise OutputError(f"{job.output} is a folder; give the name of a file with -o")
    if not os.access(nearest_folder(folder), os.W_OK):
        raise OutputError(f"the output folder {folder} is not writable; choose another -o")
    if job.output.suffix in (".gz", ".bz2"):
        raise OutputError(f"{job.output}: volumes are written uncompressed; give a name ending in .mrc with -o")
    if job.output.suffix == ".json":
        raise OutputError(f"{job.output} would be overwritten by its own sidecar; give a name ending in .mrc with -o")
    for path in (job.output, job.sidecar, job.preview, *job.maps.values()):
        if path.exists() and any(used.exists() and path.samefile(used) for used in (*inputs, Path(job.settings.model))):
            raise OutputError(f"{path} is an input of this run; choose another -o")
    if not zarr:
        check_ending(job.output, MRC_VOLUME_ENDINGS, "an MRC volume (OME-Zarr: .zarr with --format ome-zarr)")
    for path in (job.output, job.sidecar, *job.maps.values()):
        if os.path.lexists(path) and not job.settings.overwrite:
            told = differences_told(job, files)
            raise OutputError(f"{path} exists; give --overwrite to replace it or another name with -o{told}")
    if os.path.lexists(job.sidecar) and not is_record_of(job.sidecar, job.output):
        raise OutputError(
            f"{job.sidecar} exists and is no record of {job.output.name}: it is not replaced, not even with "
            "--overwrite; choose another -o"
        )
    check_preview(job.preview, job.settings)


def note_line(job: Job, note: str) -> str:
    """A note on a job's stack as the user reads it; a warning stands by itself."""
    name = job.tilts.name if job.odd is None else f"{job.tilts.name} and {job.odd.name}"
    return note if note.startswith("Warning: ") else f"Note on {name}: {note}"


def already_done(job: Job) -> bool:
    """Whether the output is there, made of the very same inputs with the same settings by the same model."""
    return job.sidecar.is_file() and differences(job, source_files(job)) == ()


def unused_images(job: Job) -> frozenset[int]:
    """Numbers, from 1, of the images of a job's stack that its alignment or ``exclude`` leaves out.

    Where files cannot be read, those of ``exclude``: what is wrong is told when the job is resolved.
    """
    excluded = job.settings.excluded
    try:
        alignment = read_sources(source_files(job), job.settings).alignment
    except CryoLitheError:
        return frozenset(excluded)
    used = {image.section + 1 for image in alignment.images}
    return frozenset(number for number in range(1, alignment.sections + 1) if number not in used) | excluded


def source_files(job: Job) -> SourceFiles:
    """Every file that decides the result besides the model.

    Raises:
        InputError: if one that names others cannot be read.
    """
    found = find_sources(job.tilts, job.angles, job.settings, job.reading)
    return found if job.odd is None else with_odd(found, job.odd)


def resolve(job: Job, files: SourceFiles | None = None, sources: Sources | None = None) -> ResolvedJob:
    """Read what is small, check what can be checked, choose what was left open.

    Args:
        job: files and settings.
        files: its inputs, if they are known already.
        sources: what they say, if it is known already.
    """
    settings = job.settings
    devices = choose_devices(settings.device)
    model = load_model(settings.model) if settings.method == "network" else None
    if model is None:
        check_engine(settings.projector)
    sources = sources or read_sources(files or source_files(job), settings)
    precision, fallback = precisions(settings.precision, devices[0], model, sources.series.geometry)
    published = model is not None and model.convention.published
    clip = settings.method == "network" and not published
    binning = settings.bin or sources.alignment.bin or 1
    preparation = Preparation(settings.tilt_axis, binning, settings.fix_nonfinite, clip, published)
    if clip and settings.brightness == "auto" and told_contrast(settings.contrast, sources.series.labels) != "bright":
        preparation = replace(preparation, relative=True)
    if model is not None and not published and fbp_share(model, settings.fbp_share) > 0:
        preparation = replace(preparation, slow_from=LEAST_SHARE)
    if sources.aligned:
        aligned = aligned_shape(sources.alignment, sources.series.geometry.image_shape)
        preparation = replace(preparation, aligned_shape=aligned, tilt_axis_deg=0.0)
    height, width = preparation.image_shape(sources.series.geometry.image_shape)
    depth = wanted_thickness(sources.alignment, settings, width)
    x_tilt = sources.alignment.x_tilt_deg * (-1.0 if z_reversed(settings) else 1.0)
    x_tilt = 0.0 if abs(x_tilt) <= NO_TILT_DEG else x_tilt
    grid = VolumeGrid((depth_before((depth, height, width), x_tilt), height, width))
    if sources.aligned:
        preparation = with_views(preparation, sources, settings, (depth, height, width))
    if sources.alignment.local:
        preparation, sources = with_shifts(preparation, sources, settings, grid)
    found = sources.files, sources.series, sources.alignment
    run = ResolvedJob(job, *found, grid, depth, x_tilt, preparation, model, devices, precision, fallback)
    return wanted_part(_told(without_excluded(run)))


def _told(run: ResolvedJob) -> ResolvedJob:
    """A run with what is known of its series, and how its images are corrected by it."""
    images = images_of(run.job.tilts, run.alignment)
    files = SeriesFiles(run.job.tilts, run.job.angles, run.series, images.angles_deg, run.job.reading, images.others)
    settings, how = run.job.settings, run.preparation
    refuse_twice(*ctf_state(files, settings), settings)
    found = ctf_of(run.job.tilts, run.alignment, settings, run.job.reading)
    places = Places(how.views, how.tilt_axis_deg, how.bin, run.series.pixel_size_angstrom)
    elsewhere = microscope_of(run.job.tilts, run.job.angles, settings, run.job.reading)
    exposures = told_exposures(files, settings, taken_facts(run.model))
    made = corrections(
        found, doses_to_weigh(files, settings, exposures), images.angles_deg, places, settings, elsewhere
    )
    series = run.series
    odd = unusual(series.geometry.angles_deg, series.pixel_size_angstrom, bool(settings.excluded))
    layers, told = asked_layers(settings, made, run.grid.shape[0], run.voxel_size_angstrom, run.series.geometry)
    told += adapted_notes(run.model, settings)
    told += scale_notes(run.model, run.voxel_size_angstrom, how.bin)
    told += tilt_notes(run.model, run.series.geometry.angles_deg)
    told += x_tilt_notes(run.x_tilt_deg, run.grid.shape[1], made)
    facts = told_facts(files, settings, run.model, run.voxel_size_angstrom, made, exposures)
    return replace(
        run,
        series=replace(series, notes=(*series.notes, *odd, *made.notes, *told, *facts.notes)),
        preparation=replace(how, corrections=made.images, layers=layers),
        facts=facts,
        corrections=made,
    )
