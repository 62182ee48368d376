"""What there is to choose from in a folder: training pairs, tomograms with or without halves, an entry's copy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryolithe.curation.manifest import Manifest, PairEntry
from cryolithe.errors import InputError, SettingsError, nearest_name
from cryolithe.formats.series_names import half_of

PAIR_PATTERNS = ("*.h5", "*.hdf5")
TOMOGRAM_PATTERNS = ("*.mrc", "*.rec")
USUAL = (*PAIR_PATTERNS, *TOMOGRAM_PATTERNS)
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.+-]+")

Kind = Literal["pair", "tomogram", "entry"]


@dataclass(frozen=True)
class Candidate:
    """Something to keep or to reject.

    Attributes:
        name: unlike all others; letters, digits and ``_ . + -`` only.
        kind: "pair" (HDF5), "tomogram" (MRC) or "entry" (a pair of a manifest).
        path: relative to the folder, of what would be kept; for an entry that of its target.
        halves: paths of the even and the odd half tomogram, or None.
        remark: what is odd about its files.
    """

    name: str
    kind: Kind
    path: Path
    halves: tuple[Path, Path] | None = None
    remark: str | None = None


@dataclass(frozen=True)
class Collection:
    """The candidates of a folder.

    Attributes:
        folder: that all paths are relative to.
        candidates: in the order of their names, or of the manifest.
        manifest: that the candidates are pairs of, or None.
    """

    folder: Path
    candidates: tuple[Candidate, ...]
    manifest: Manifest | None = None


def find_candidates(folder: Path, manifest: Manifest | None, patterns: tuple[str, ...] = ()) -> Collection:
    """List what a folder holds: HDF5 pairs if there are any, else the manifest's pairs, else tomograms.

    Pairs come first because `cryolithe simulate` writes stacks and label volumes beside them, which are no candidates.

    Args:
        folder: where to look; without ``patterns`` not in folders below.
        manifest: says what an entry's copy holds; of HDF5 pairs, which pairs they were made from.
        patterns: globs such as ``*/rec_*.mrc`` in place of `PAIR_PATTERNS` and `TOMOGRAM_PATTERNS`.

    Raises:
        InputError: if there is no such folder, or nothing in it.
        SettingsError: if HDF5 pairs have names that the manifest lacks, or a pattern leads out of the folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the folder that holds the candidates")
    for pattern in patterns:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts or not pattern:
            raise SettingsError(f"--pattern '{pattern}' must lie inside {folder}, such as '*/rec_*.mrc'")
    pairs = _matching(folder, [p for p in patterns or PAIR_PATTERNS if p.lower().endswith((".h5", ".hdf5"))])
    if pairs:
        found = tuple(Candidate(name, "pair", path) for name, path in _named(pairs).items())
        if manifest:
            _check_names([candidate.name for candidate in found], manifest)
        return Collection(folder, found, manifest)
    if manifest:
        return Collection(folder, tuple(_of_entry(manifest, pair) for pair in manifest.pairs), manifest)
    files = _matching(folder, patterns or TOMOGRAM_PATTERNS)
    if not files:
        looked = ", ".join(patterns or USUAL)
        raise InputError(
            f"{folder} holds no candidates ({looked}); give another folder or --pattern, or, for the copy of an "
            "entry, its --manifest"
        )
    return Collection(folder, tuple(_tomograms(files)))


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Files that match, relative to the folder, sorted; hidden ones are left out. ``*.h5`` matches ``A.H5``, too."""
    found = {
        path.relative_to(folder)
        for pattern in patterns
        for path in (_of_ending(folder, pattern) if pattern in USUAL else folder.glob(pattern))
        if path.is_file()
    }
    return sorted(path for path in found if not any(part.startswith(".") for part in path.parts))


def _of_ending(folder: Path, pattern: str) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix.lower() == pattern.removeprefix("*")]


def _plain_name(path: Path) -> str:
    """A name for a file: its path with all that a pair's name may not have replaced."""
    joined = "_".join(path.with_suffix("").parts)
    return _NOT_PLAIN.sub("_", joined).lstrip("_.+-") or "unnamed"


def _named(paths: list[Path]) -> dict[str, Path]:
    """Names for files; those that come out alike are numbered."""
    named: dict[str, Path] = {}
    for path in paths:
        name, number = _plain_name(path), 2
        while name in named:
            name, number = f"{_plain_name(path)}_{number}", number + 1
        named[name] = path
    return named


def _tomograms(paths: list[Path]) -> Iterable[Candidate]:
    """Tomograms with their halves, told by words in their names (`half_of`)."""
    whole: dict[str, Path] = {}
    halves: dict[str, dict[str, Path]] = {}
    for name, path in _named(paths).items():
        half = half_of(name)
        if half and half.whole:
            halves.setdefault(half.whole, {})["even" if half.first else "odd"] = path
        else:
            whole[name] = path
    for base in sorted(whole.keys() | halves.keys()):
        sides = halves.get(base, {})
        both = (sides["even"], sides["odd"]) if len(sides) == 2 else None
        remark = None if len(sides) != 1 else f"only its {next(iter(sides))} half is there"
        path = whole.get(base) or next(iter(sides.values()))
        yield Candidate(base, "tomogram", path, both, remark)


def _of_entry(manifest: Manifest, pair: PairEntry) -> Candidate:
    return Candidate(pair.name, "entry", Path(manifest.paths(pair)["target"]))


def _check_names(names: list[str], manifest: Manifest) -> None:
    known = [pair.name for pair in manifest.pairs]
    for name in names:
        if name not in known:
            raise SettingsError(f"the manifest of {manifest.accession} has no pair '{name}'{nearest_name(name, known)}")
