"""The settings of a reconstruction, and their order of authority: flag > row of a list > file > default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from cryolithe.errors import SettingsError, nearest_name, shown
from cryolithe.files.yaml_table import read_yaml_table
from cryolithe.formats.alignment.alignments import alignment_files, flags_with_centre
from cryolithe.formats.alignment.imod_command import parse_list

# What cells and values of files are to be, by the kind of pydantic's errors, whose words are those of programs.
_EXPECTED = {
    "bool_parsing": "expected true or false",
    "float_parsing": "expected a number, with a decimal point",
    "int_parsing": "expected a whole number",
    "string_type": "expected text (a name that is a number is written in quotes)",
}
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
MOST_PX = 1 << 24  # along an axis, as in MRC files


class _BeforeFiles(BaseModel):
    """The settings that are named before the files of alignments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["network", "fbp", "sirt"] = Field("network", description="How to reconstruct.")
    model: str = Field(
        "default",
        description="Name of a model (see: cryolithe models list), or the path of a .safetensors file.",
    )
    fbp_share: float | None = Field(
        None,
        ge=0,
        le=0.9,
        allow_inf_nan=False,
        description="Share of filtered back-projection in a network's volume, where the tilts measured: what the data "
        "show and the network weakens stays visible. 0: the network alone. Default: the model's, 0.3 for most.",
    )
    wedge_trust: Literal["auto", "full", "none"] | None = Field(
        None,
        description="How much of what a network puts into the missing wedge stays. auto: as far as tilts that are left "
        "out of a trial confirm it, by size; full: all of it; none: nothing but what tilts measured. Default: auto, "
        "full for models of other programs.",
    )
    thickness: int | None = Field(
        None,
        ge=1,
        le=MOST_PX,
        description="Voxels along z, after binning. Default: that of the alignment, else half the image width, "
        "rounded up to even.",
    )
    bin: int | None = Field(
        None,
        ge=1,
        le=MOST_PX,
        description="Bin the images by this factor, by Fourier cropping. Default: that of the .com files, else 1.",
    )
    pixel_size: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Pixel size of the stack in Å. Default: from its header."
    )
    contrast: Literal["auto", "dark", "bright"] = Field(
        "auto",
        description="Whether dense matter is dark (cryo-EM) or bright in the images, which a network must know; kept "
        "in the output. auto: found from the images; dark where they do not tell.",
    )
    brightness: Literal["auto", "keep"] = Field(
        "auto",
        description="For a network, auto: images that are in proportion to counted electrons are divided by their "
        "means, which thickness and exposures change; keep: the images as they are.",
    )
    tilt_axis: float = Field(
        0.0,
        ge=-360,
        le=360,
        description="Angle in degrees of the tilt axis from y, counter-clockwise; images are rotated to undo it.",
    )
    exclude: str | None = Field(
        None,
        description="Images of the stack to leave out, numbered from 1, such as 3,17-19: blank ones, say. Angles and "
        "all other files stay those of the whole stack.",
    )


if TYPE_CHECKING:
    _WithAlignmentFiles = _BeforeFiles
else:
    _WithAlignmentFiles = create_model(
        "_WithAlignmentFiles",
        __base__=_BeforeFiles,
        **{name: (str | None, Field(None, description=file.help)) for name, file in alignment_files().items()},
    )


class ReconstructSettings(_WithAlignmentFiles):
    """What decides a reconstruction besides its two input files.

    Defaults stand here and nowhere else, but for the files of alignments, each of which has its entry in
    `cryolithe.formats.alignment.alignments`. Each description is the help text of the flag.
    """

    local_alignment: bool = Field(
        True,
        description="Apply the local shifts that an alignment's files hold, too: AreTomo's patches, Warp's grids, "
        "RELION's deformations, IMOD's LOCALFILE. Without: the global part alone.",
    )
    ctf_state: Literal["uncorrected", "flipped", "wiener", "none"] | None = Field(
        None,
        description="What became of the CTF in the images: left in, phase-flipped, Wiener-filtered, or none there "
        "(plain projections). For models that take it. Default: from the stack's header, else not known.",
    )
    defocus: float | None = Field(
        None,
        ge=-50,
        le=50,
        description="Mean defocus in µm, underfocus positive. For models that take it. Default: of --star, --warp.",
    )
    dose: str | None = Field(
        None,
        description="File that tells the exposure before each image: .mdoc, RELION's .star, Warp's .xml or .tomostar. "
        "For --dose-weight and models that take it. Default: ANGLES (.mdoc), --star, --warp.",
    )
    specimen_thickness: float | None = Field(
        None,
        gt=0,
        le=10_000,
        allow_inf_nan=False,
        description="Thickness of the specimen in nm (--thickness is the volume's). For models that take it.",
    )
    ctf: Literal["none", "flip", "multiply", "wiener"] = Field(
        "none",
        description="Correct the CTF that is left in the images: flip its phases, multiply by it, or a Wiener filter; "
        "in strips along the tilt axis, each with its defocus. Needs --ctf-file, a file of that kind beside the stack, "
        "or --star or --warp with a defocus.",
    )
    ctf_3d: bool = Field(
        False,
        description="With --ctf and --method fbp: correct anew for every slab of z, as thin as the CTF wants it, so "
        "that what lies above or below the middle has its own defocus.",
    )
    ctf_file: str | None = Field(
        None,
        description="For --ctf: defocus of each image by CTFFIND, AreTomo3 (_CTF.txt), IMOD (.defocus), RELION (.star) "
        "or Warp (.xml). Default: the alignment's own, else the only one beside the stack.",
    )
    defocus_hand: Literal[1, -1, "auto"] | None = Field(
        None,
        description="For --ctf, 1 or -1: at positive tilt angles the right of an image is more (1) or less (-1) "
        "defocused. auto: found from the images. Default: of the file (AreTomo3, RELION), else auto; where the images "
        "do not tell, 1 as in IMOD. What is given is compared with the images, too.",
    )
    voltage: float | None = Field(
        None,
        ge=20,
        le=1500,
        allow_inf_nan=False,
        description="kV, for --ctf and --dose-weight. Default: of the file with the defocus, else 300.",
    )
    cs: float | None = Field(
        None,
        ge=0,
        le=20,
        allow_inf_nan=False,
        description="Spherical aberration in mm, for --ctf. Default: of the file with the defocus, else 2.7.",
    )
    amplitude_contrast: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="For --ctf, 0 to 1. Default: of the file with the defocus, else 0.07.",
    )
    dose_weight: bool = Field(
        False,
        description="Weigh frequencies down as far as radiation has damaged them before each image was taken. Needs "
        "doses: --dose, ANGLES (.mdoc), --star or --warp.",
    )
    centre: Literal["imod", "relion"] | None = Field(
        None,
        description="Where the rotation axis lies: (N - 1) / 2 (imod) or N // 2 (relion), in images and volume. "
        f"Default: relion with {flags_with_centre('relion')}, else imod.",
    )
    handedness: Literal["imod", "relion", "aretomo", "warp"] = Field(
        "imod",
        description="Whose sense of z for the same angles: imod (after trimvol -rx) and relion, or the mirrored one of "
        "aretomo (-FlipVol 1) and warp (angles as recorded).",
    )
    flip_z: bool = Field(False, description="Mirror the volume in z.")
    filter: Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"] = Field(
        "cosine", description="Window of the ramp filter of --method fbp. A network brings its own."
    )
    iterations: int = Field(30, ge=1, le=100_000, description="Iterations of --method sirt.")
    projector: Literal["torch", "tomosipo"] = Field(
        "torch", description="Engine of fbp and sirt; tomosipo must be installed and needs CUDA."
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:i, several as cuda:0,1, or all (GPUs).")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="Of the network's matrix products; auto is bf16 where a CPU multiplies it faster; fp16 on a GPU.",
    )
    max_memory: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="GB of the device's memory to use at most. Default: 60 % of what is free, 80 % of a GPU's.",
    )
    dtype: Literal["float32", "float16", "int8"] = Field(
        "float32",
        description="Voxel type of the output (MRC mode 2, 12 or 0; int8 is scaled, and cut off at 10 deviations).",
    )
    orientation: Literal["xyz", "xzy"] = Field(
        "xyz", description="Axes of an MRC output, fastest first; xzy as IMOD's tilt writes it, for trimvol -rx."
    )
    format: Literal["mrc", "ome-zarr", "ome-zarr-0.5"] = Field(
        "mrc",
        description="File format of the output; ome-zarr is version 0.4, which all viewers read. Both need the extra "
        "cryolithe[zarr].",
    )
    confidence: bool = Field(
        False,
        description="Of a network's volume, write three maps beside it: how far it can be trusted (_confidence), its "
        "expected error (_error), and what of it the images do not hold (_unsupported). The network runs four times "
        "more: on even tilts, on odd ones, and on mirror images.",
    )
    preview: bool = Field(False, description="Draw the central slices as PNG beside the volume. A session always does.")
    fix_nonfinite: bool = Field(False, description="Replace NaN and Inf pixels by their image's mean.")
    overwrite: bool = Field(False, description="Replace an existing output.")

    @field_validator("defocus_hand", mode="before")
    @classmethod
    def _is_hand(cls, value: object) -> object:
        """Words of the command line and of lists are texts."""
        known = {"1": 1, "+1": 1, "-1": -1, "auto": "auto"}
        if value is not None and (isinstance(value, float) or str(value) not in known):
            raise ValueError("expected 1 or -1, or auto")
        return None if value is None else known[str(value)]

    @field_validator("exclude", mode="before")
    @classmethod
    def _is_list(cls, value: object) -> object:
        """A number alone is a list in a file of settings."""
        if value is None:
            return None
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        expected = f"expected numbers of images from 1, such as 3,17-19, found {shown(value)}"
        try:
            numbers = parse_list(text) if isinstance(text, str) else []
        except (ValueError, OverflowError):
            numbers = []
        if not numbers or min(numbers) < 1:
            raise ValueError(expected)
        return text

    @property
    def excluded(self) -> frozenset[int]:
        """The numbers, from 1, of the images that ``exclude`` leaves out."""
        return frozenset() if self.exclude is None else frozenset(parse_list(self.exclude))

    @property
    def alignment_files(self) -> dict[str, Path]:
        """The files of an alignment that are named, by setting."""
        given = {name: getattr(self, name) for name in alignment_files()}
        return {name: Path(path) for name, path in given.items() if path is not None}


def read_settings_file(path: Path) -> dict[str, Any]:
    """Values of a YAML settings file, keys as in `ReconstructSettings` (``-`` and ``_`` are the same).

    Raises:
        SettingsError: if the file is missing, not YAML, or has an unknown key (the nearest known one is named).
    """
    return known_keys(read_yaml_table(path, "configuration file", meant=_name), str(path))


def resolve_settings(
    flags: Mapping[str, Any], row: Mapping[str, Any], file: Mapping[str, Any], row_name: str, file_name: str
) -> ReconstructSettings:
    """Merge by authority: ``flags`` win over ``row``, ``row`` over ``file``, ``file`` over the defaults.

    Args:
        flags: options given on the command line; None means not given.
        row: cells of one row of a series list.
        file: values of a settings file.
        row_name: what to call ``row`` in messages.
        file_name: what to call ``file`` in messages.

    Raises:
        SettingsError: for an unknown key or a value that is out of range; says which.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    cells = known_keys(row, row_name)
    merged = {**known_keys(file, file_name), **cells, **given}
    for key, value in merged.items():
        # YAML reads yes and on as true, and pydantic would take that for the number 1.
        if isinstance(value, bool) and ReconstructSettings.model_fields[key].annotation is not bool:
            raise SettingsError(f"{row_name if key in cells else file_name}: '{key}': expected a value, got {value}")
    try:
        return ReconstructSettings(**merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        where = row_name if key in cells else file_name
        source = f"--{key.replace('_', '-')}" if key in given else f"{where}: '{key}'"
        said = _EXPECTED.get(first["type"], first["msg"].lower())
        raise SettingsError(f"{source}: {said}, got {shown(first['input'])}") from error


def with_decimal_points(cells: Mapping[str, str]) -> dict[str, str]:
    """Cells of a list whose numbers may have decimal commas, as `resolve_settings` takes them.

    Only where a setting is one number: in a list of numbers a comma parts two of them.
    """
    fields = ReconstructSettings.model_fields
    numbers = [name for name, field in fields.items() if {*get_args(field.annotation), field.annotation} & {int, float}]
    return {
        key: cell.replace(",", ".") if key.replace("-", "_") in numbers and _DECIMAL_COMMA.fullmatch(cell) else cell
        for key, cell in cells.items()
    }


def _name(key: str) -> str:
    return key.replace("-", "_")


def known_keys(values: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Values of a file by the names of settings, which may be written with ``-``.

    Raises:
        SettingsError: if a key is none (the nearest one is named).
    """
    known = ReconstructSettings.model_fields
    plain = {}
    for key, value in values.items():
        name = _name(str(key))
        if name not in known:
            raise SettingsError(f"{where}: unknown setting {shown(key)}{nearest_name(name, known)}")
        plain[name] = value
    return plain
