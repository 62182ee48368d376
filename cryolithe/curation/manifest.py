"""Manifests of curated real pairs: where the files of an entry lie, what they hold, how the targets were made.

accession: EMPIAR-00000
pixel_size_angstrom: 2.0        # of the images as recorded
stack_binning: 2                # the stack's files are binned by this already
binning: 2                      # and are to be binned by this: the pair has pixels of 2 x 2 x 2 = 8 Å
target_made_by: [FBP, cryoCARE, IsoNet]
files:
  stack: "{name}/{series}.mrc"
  angles: "{name}/{series}.tlt"
  target: "{name}/target.mrc"
pairs:
  - {name: tomo_001, series: grid1_position_7, tilts: 41}
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cryolithe.errors import SettingsError, nearest_name, shown
from cryolithe.files.yaml_table import read_yaml_table, yaml_text
from cryolithe.formats.files import replacing

ROLES = ("stack", "angles", "target", "even", "odd")
_LIMIT_BYTES = 5_000_000
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilePatterns(_Strict):
    """Paths relative to the folder of the local copy; ``{name}`` and ``{series}`` stand for those of the pair.

    Attributes:
        stack: aligned tilt series (MRC), tilt axis along y.
        angles: text file with one angle per image of the stack.
        target: volume (MRC, also .rec).
        even: the series from half of the frames; optional, together with ``odd``.
        odd: the series from the other half.
    """

    stack: str
    angles: str
    target: str
    even: str | None = None
    odd: str | None = None


class FileOverrides(_Strict):
    """Paths of one pair that differ from the manifest's patterns; see `FilePatterns`."""

    stack: str | None = None
    angles: str | None = None
    target: str | None = None
    even: str | None = None
    odd: str | None = None


class FileFacts(_Strict):
    """What a file must be.

    Attributes:
        bytes: its length.
        sha256: its checksum, 64 hexadecimal digits; null where nobody has recorded it yet.
    """

    bytes: int | None = Field(None, gt=0)
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")


class Measured(_Strict):
    """Sizes and checksums of the files of a pair."""

    stack: FileFacts = FileFacts()
    angles: FileFacts = FileFacts()
    target: FileFacts = FileFacts()
    even: FileFacts = FileFacts()
    odd: FileFacts = FileFacts()


class PairEntry(_Strict):
    """One tilt series with its target.

    Attributes:
        name: names the pair and its training file.
        series: how the entry names the series, where its paths need that.
        tilts: images in the stack; null where nobody has counted them yet.
        exclude_tilts: images not to be used, counted from 1.
        offset_px: ``(y, x)`` of the target's first voxel in the binned images, where the target was trimmed.
        files: paths that differ from the manifest's patterns.
        measured: sizes and checksums, as `cryolithe pairs check --record` writes them.
        note: anything a user should know.
    """

    name: str
    series: str | None = None
    tilts: int | None = Field(None, ge=1)
    exclude_tilts: tuple[int, ...] = ()
    offset_px: tuple[int, int] | None = None
    files: FileOverrides = FileOverrides()
    measured: Measured = Measured()
    note: str | None = None

    @field_validator("name")
    @classmethod
    def _name_names_a_file(cls, value: str) -> str:
        if not _PLAIN_NAME.fullmatch(value):
            raise ValueError(f"a name has letters, digits and _ . + - only, found '{value}'")
        return value

    @field_validator("exclude_tilts")
    @classmethod
    def _counted_from_one(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(number < 1 for number in value) or len(set(value)) < len(value):
            raise ValueError(f"tilts are counted from 1 and excluded once, found {list(value)}")
        return value


class Manifest(_Strict):
    """An entry of a public archive as training pairs.

    Attributes:
        accession: such as EMPIAR-11830.
        title: what the specimen is.
        source: address that the files can be had from.
        citation: DOI or address of the publication.
        licence: of the files.
        alignment: how the stacks were aligned.
        target_made_by: the steps that made the targets, first to last.
        data: folder of the local copy, relative to the manifest; null: the manifest's own folder.
        pixel_size_angstrom: of the images as recorded, before any binning.
        stack_binning: how far the stack's files are binned already.
        binning: how far the stack is to be binned further.
        target_binning: how far the target's file is to be binned to fit; 1 where it fits already.
        target_axes: "xyz" for files with z slowest, "xzy" for those that IMOD's tilt and AreTomo write.
        target_flip_z: the target's depth runs against ours and is to be reversed.
        stack_contrast: of dense matter in the images.
        target_contrast: of dense matter in the target.
        thickness_px: planes of the target to keep, about the tilt axis; null: all.
        rows_px: first row of the pair to keep, and the one after the last; null: all.
        files: where the files are.
        pairs: the series.
    """

    accession: str
    title: str | None = None
    source: str | None = None
    citation: str | None = None
    licence: str | None = None
    alignment: str | None = None
    target_made_by: tuple[str, ...] = Field(min_length=1)
    data: str | None = None
    pixel_size_angstrom: float = Field(gt=0, allow_inf_nan=False)
    stack_binning: int = Field(1, ge=1, le=64)
    binning: int = Field(1, ge=1, le=64)
    target_binning: int = Field(1, ge=1, le=64)
    target_axes: Literal["xyz", "xzy"] = "xyz"
    target_flip_z: bool = False
    stack_contrast: Literal["dark", "bright"] = "dark"
    target_contrast: Literal["dark", "bright"] = "dark"
    thickness_px: int | None = Field(None, ge=1)
    rows_px: tuple[int, int] | None = None
    files: FilePatterns
    pairs: tuple[PairEntry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_and_paths_make_sense(self) -> Manifest:
        names = [pair.name for pair in self.pairs]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two pairs are named '{twice[0]}'")
        if self.rows_px and not 0 <= self.rows_px[0] < self.rows_px[1]:
            raise ValueError(f"rows_px needs 0 <= first < end, found {list(self.rows_px)}")
        for pair in self.pairs:
            paths = self.paths(pair)
            if ("even" in paths) != ("odd" in paths):
                raise ValueError(f"pair '{pair.name}': give both of even and odd, or neither")
        return self

    @property
    def stack_pixel_angstrom(self) -> float:
        """Pixel size of the stack's files."""
        return self.pixel_size_angstrom * self.stack_binning

    @property
    def voxel_size_angstrom(self) -> float:
        """Pixel and voxel size of the pairs."""
        return self.stack_pixel_angstrom * self.binning

    def paths(self, pair: PairEntry) -> dict[str, PurePosixPath]:
        """Role -> path of a pair's file, relative to the folder of the local copy."""
        found = {}
        for role in ROLES:
            pattern = getattr(pair.files, role) or getattr(self.files, role)
            if pattern is not None:
                found[role] = _filled(pattern, pair)
        return found

    def select(self, names: tuple[str, ...]) -> tuple[PairEntry, ...]:
        """Return the pairs of these names in the manifest's order; without names all of them.

        Raises:
            SettingsError: for an unknown name; the nearest known one is named.
        """
        known = [pair.name for pair in self.pairs]
        for name in names:
            if name not in known:
                raise SettingsError(f"{self.accession} has no pair '{name}'{nearest_name(name, known)}")
        return tuple(pair for pair in self.pairs if not names or pair.name in names)


def _filled(pattern: str, pair: PairEntry) -> PurePosixPath:
    """The path that a pattern stands for; raises ValueError where it stands for none."""
    values = {"name": pair.name, "series": pair.series}
    for key in _PLACEHOLDER.findall(pattern):
        if key not in values:
            hint = nearest_name(key, values)
            raise ValueError(f"path '{pattern}': unknown placeholder '{{{key}}}'{hint}; known: {{name}}, {{series}}")
        if values[key] is None:
            raise ValueError(f"path '{pattern}' needs the series of pair '{pair.name}'; give its key 'series'")
    path = PurePosixPath(_PLACEHOLDER.sub(lambda match: str(values[match.group(1)]), pattern))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"path '{pattern}' of pair '{pair.name}' must lie inside the folder of the local copy")
    return path


def read_manifest(path: Path) -> Manifest:
    """Read and check a YAML manifest.

    Raises:
        SettingsError: if the file is missing or not YAML, a key is unknown (the nearest known one is named) or a
            value out of range.
    """
    values = read_yaml_table(path, "manifest", _LIMIT_BYTES)
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{path}: {_first_problem(error, values)}") from error


def write_manifest(path: Path, manifest: Manifest, overwrite: bool = False) -> None:
    """Write a manifest that `read_manifest` gives back unchanged; defaults are left out.

    Raises:
        OutputError: if the file exists and is not to be overwritten, or cannot be written.
    """
    plain = manifest.model_dump(mode="json", exclude_defaults=True)
    with replacing(path, overwrite) as temporary:
        temporary.write_text(yaml_text(plain), encoding="utf-8")


def _first_problem(error: ValidationError, values: dict[Any, Any]) -> str:
    """The first of pydantic's complaints in one line."""
    first = error.errors()[0]
    place = first["loc"]
    key = ".".join(_shown_part(part) for part in place)
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'{nearest_name(str(place[-1]), _known_keys(place[:-1]))}"
    if first["type"] == "missing":
        # A misspelt key shows as a missing one as well, and that is what the user wants to hear of.
        unknown = [item for item in error.errors() if item["type"] == "extra_forbidden"]
        for item in unknown:
            hint = nearest_name(str(item["loc"][-1]), _known_keys(item["loc"][:-1]))
            return f"unknown key '{'.'.join(_shown_part(part) for part in item['loc'])}'{hint}"
        return f"the key '{key}' is missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"'{key}': {message}" if key else message
    if first["type"] == "string_type":
        message = "expected text (a name that is a number is written in quotes)"
    return f"'{key}': {message[:1].lower()}{message[1:]}, found {shown(first.get('input'))}"


def _shown_part(part: int | str) -> str:
    """A part of a key's place; list members are counted from 1."""
    return str(part + 1) if isinstance(part, int) else part


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    """Keys of the section that a wrong key stands in."""
    section: Any = Manifest
    for part in place:
        if isinstance(part, int):
            continue
        kind = section.model_fields[part].annotation
        inner = [argument for argument in get_args(kind) if hasattr(argument, "model_fields")]
        section = inner[0] if inner else kind
    return list(getattr(section, "model_fields", {}))
