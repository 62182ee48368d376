"""The manifest that candidates are pairs of: the one given, the one they were built from, or a draft."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from cryolithe.curation.candidates import Collection
from cryolithe.curation.manifest import FileOverrides, FilePatterns, Manifest, PairEntry
from cryolithe.curation.ranking import Measured

DRAFT_TITLE = "DRAFT: correct the paths of stacks and angles under files, binning, and how the targets were made"


def template_for(collection: Collection, measured: Sequence[Measured], given_in: Path | None = None) -> Manifest | None:
    """The manifest that a choice among candidates is written into; its data folder is an absolute path or None.

    Args:
        collection: the candidates, with the manifest if one was given.
        measured: those of them that could be read.
        given_in: folder of that manifest.

    Returns:
        None for simulated pairs, and for tomograms without a voxel size.
    """
    kinds = {one.candidate.kind for one in measured}
    if collection.manifest is not None:
        folder = collection.folder if kinds == {"entry"} else None
        if folder is None and collection.manifest.data is not None and given_in is not None:
            folder = given_in / collection.manifest.data
        data = None if folder is None else str(folder.resolve())
        return collection.manifest.model_copy(update={"data": data})
    return _of_built_pairs(measured) if kinds == {"pair"} else _draft(collection, measured)


def _of_built_pairs(measured: Sequence[Measured]) -> Manifest | None:
    """The manifest that `cryolithe pairs build` recorded in every pair, if it is the same in all."""
    origins = [one.sample.origin for one in measured]
    first = origins[0].get("manifest")
    if not isinstance(first, dict) or any(origin.get("manifest") != first for origin in origins):
        return None
    try:
        manifest = Manifest.model_validate({**first, "pairs": [origin.get("entry") for origin in origins]})
    except ValidationError:
        return None
    same = {pair.name for pair in manifest.pairs} == {one.candidate.name for one in measured}
    return manifest if same else None


def _draft(collection: Collection, measured: Sequence[Measured]) -> Manifest | None:
    """A valid manifest of tomograms whose series are not known; `cryolithe pairs check` says what is missing."""
    sizes = [one.sample.voxel_size_angstrom for one in measured]
    size = next((size for size in sizes if size), None)
    if size is None:
        return None
    turned = all(one.sample.turned for one in measured)
    return Manifest(
        accession="local",
        title=DRAFT_TITLE,
        target_made_by=("unknown",),
        data=str(collection.folder.resolve()),
        pixel_size_angstrom=size,
        target_axes="xzy" if turned else "xyz",
        target_flip_z=turned,
        files=FilePatterns(stack="{name}.st", angles="{name}.tlt", target="{name}.rec"),
        pairs=tuple(
            PairEntry(name=one.candidate.name, files=FileOverrides(target=one.candidate.path.as_posix()))
            for one in measured
        ),
    )
