"""What was chosen, as a file, and the manifest that comes of it.

The sheet's file (curate.json, and what its buttons save) is JSON:

    {"format": "cryolithe-curate", "version": 1, "folder": ..., "manifest": {...} or null,
     "candidates": [{"name": ..., "path": ..., "keep": true, "comment": "", ...}, ...], ...}
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cryolithe.curation.manifest import Manifest, read_manifest
from cryolithe.errors import InputError, SettingsError, nearest_name
from cryolithe.formats.files import read_text, replacing

FORMAT, VERSION = "cryolithe-curate", 1
_LIMIT_BYTES = 100_000_000


class Choice(BaseModel):
    """Whether a candidate is kept; what else a sheet says about it is passed over.

    Attributes:
        name: of the candidate.
        path: relative to the folder.
        keep: what was chosen.
        comment: becomes the pair's note.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    name: str
    path: str = ""
    keep: bool
    comment: str = ""


class Choices(BaseModel):
    """The choices of a sheet.

    Attributes:
        format: names this kind of file.
        version: of its layout.
        folder: that the candidates were found in.
        manifest: with all candidates among its pairs, as plain values, or None where there is none.
        candidates: the choices.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    format: Literal["cryolithe-curate"]
    version: Literal[1]
    folder: str
    manifest: dict[str, Any] | None = None
    candidates: list[Choice] = Field(min_length=1)


def read_choices(path: Path) -> Choices:
    """Read the choices that a sheet saved.

    Raises:
        InputError: if the file cannot be read, or is something else.
    """
    text = read_text(path, "a file of choices", _LIMIT_BYTES)
    try:
        return Choices.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InputError(
            f"{path} is not a file of choices that `cryolithe pairs curate` or its sheet wrote: {place}: {first['msg']}"
        ) from error
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
        raise InputError(f"{path} is not a file of choices: expected JSON, {error}") from error


def chosen_manifest(choices: Choices, template: Manifest | None = None) -> Manifest:
    """The manifest with the pairs that are kept, in its order, comments as their notes.

    Args:
        choices: of a sheet.
        template: in place of the manifest that the sheet holds.

    Raises:
        SettingsError: if there is no manifest, it lacks a candidate, names come twice, or nothing is kept.
    """
    if template is None:
        if choices.manifest is None:
            raise SettingsError(
                "these candidates are pairs of no manifest: give --manifest, or -o a name ending in .txt for a list of "
                "the files that are kept"
            )
        try:
            template = Manifest.model_validate(choices.manifest)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise SettingsError(f"the manifest among the choices is damaged: {place}: {first['msg']}") from error
    known = [pair.name for pair in template.pairs]
    by_name: dict[str, Choice] = {}
    for choice in choices.candidates:
        if choice.name not in known:
            raise SettingsError(
                f"the manifest of {template.accession} has no pair '{choice.name}'{nearest_name(choice.name, known)}; "
                "give the manifest that the sheet was made with"
            )
        if choice.name in by_name:
            raise SettingsError(f"the choices name '{choice.name}' twice")
        by_name[choice.name] = choice
    pairs = tuple(
        pair.model_copy(update={"note": by_name[pair.name].comment.strip() or None})
        for pair in template.pairs
        if pair.name in by_name and by_name[pair.name].keep
    )
    if not pairs:
        raise SettingsError(f"none of {len(choices.candidates)} candidates is kept; keep at least one")
    return template.model_copy(update={"pairs": pairs})


def applied_manifest(path: Path, template: Path | None, output: Path) -> Manifest:
    """The manifest of a file of choices, or of a manifest that a sheet saved, for writing to ``output``.

    Args:
        path: JSON, or YAML by its suffix.
        template: manifest in place of the one that the file holds.
        output: the folder of the data is named relative to it.

    Raises:
        InputError: if ``path`` is no file of choices.
        SettingsError: as in `chosen_manifest`, or if a manifest is not valid.
    """
    read = None if template is None else read_manifest(template)
    if path.suffix.lower() in (".yaml", ".yml"):
        saved = read_manifest(path)
        if read is None:
            return relocated(saved, path.parent, output.parent)
        kept = [Choice(name=pair.name, keep=True, comment=pair.note or "") for pair in saved.pairs]
        chosen = chosen_manifest(Choices(format="cryolithe-curate", version=1, folder="", candidates=kept), read)
        return relocated(chosen, (template or path).parent, output.parent)
    choices = read_choices(path)
    chosen = chosen_manifest(choices, read)
    if chosen.data is None and choices.manifest:  # the sheet knows where the copy was, and the manifest does not
        chosen = chosen.model_copy(update={"data": choices.manifest.get("data")})
    return relocated(chosen, (template or path).parent, output.parent)


def relocated(manifest: Manifest, old: Path, new: Path) -> Manifest:
    """The manifest for another folder: its data folder, if it names one, seen from there."""
    if manifest.data is None:
        return manifest
    return manifest.model_copy(update={"data": os.path.relpath(old / manifest.data, new)})


def write_kept_list(path: Path, choices: Choices, overwrite: bool = False) -> int:
    """Write the paths of the candidates that are kept, one a line, and return how many.

    Raises:
        SettingsError: if nothing is kept.
        OutputError: if the file exists and is not to be overwritten, or cannot be written.
    """
    kept = [str(Path(choices.folder) / choice.path) for choice in choices.candidates if choice.keep]
    if not kept:
        raise SettingsError(f"none of {len(choices.candidates)} candidates is kept; keep at least one")
    with replacing(path, overwrite) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    return len(kept)
