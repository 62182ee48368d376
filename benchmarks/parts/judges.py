"""The judges of three papers on deposited series, with the papers' printed rows beside those measured here.

Half SNR with its ceiling (Topaz-Denoise), template matching (the review of Jones et al.), picking by a difference of
Gaussians (DUAL). ``python benchmarks/empiar.py --judges all`` runs them; printed numbers, their sources and where
positions and templates lie stand in training_data/judges.yaml. All scores are those of `cryolithe.evaluation` and
`cryolithe.denoising.ceiling`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import Cell, Table
from numpy.typing import NDArray

from cryolithe.curation.manifest import Manifest, PairEntry
from cryolithe.denoising.ceiling import HalfScore, half_snr_db, mean_half_snr_db
from cryolithe.denoising.n2n.halves import open_pair
from cryolithe.errors import InputError, SettingsError
from cryolithe.evaluation.evaluate import Evaluation, evaluate
from cryolithe.evaluation.inputs import Request, load
from cryolithe.evaluation.middles import middle
from cryolithe.evaluation.similarity import pair_moments
from cryolithe.files.yaml_table import read_yaml_table
from cryolithe.formats import read_volume
from cryolithe.formats.stacks.angles import read_angles_deg
from parts.judged_places import check_places, check_template, places_of, write_places
from parts.judged_volumes import FBP, Making, halves_of, low_pass, volume_of

Array = NDArray[Any]

JUDGES = ("halves", "matching", "picking")
PUBLISHED, HERE = "published", "measured here"
LOW_PASS = (2, 4, 8)
MOST_VOXELS = 10**9  # of a published score: so many that chance plays no part


@dataclass(frozen=True)
class Judge:
    """How a paper judged, and what it printed.

    Attributes:
        name: one of `JUDGES`.
        title: of the table.
        source: of the printed numbers, and how they were made.
        entries: numbers of EMPIAR that it is for.
        columns: of the printed numbers.
        rows: printed numbers by method.
        particles: path of the positions below the entry's folder; {name} and {series} are the pair's.
        template: path of the map.
        diameter_angstrom: of the particles.
    """

    name: str
    title: str
    source: str
    entries: tuple[str, ...]
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]
    particles: str | None = None
    template: str | None = None
    diameter_angstrom: float | None = None


@dataclass(frozen=True)
class Judged:
    """A series to judge.

    Attributes:
        entry: number of EMPIAR.
        manifest: of the entry.
        pair: the series.
        root: folder of the entry.
        making: how its volumes are made.
        halves: what they are made of, "frames" or "images".
        methods: to compare.
        particles: a STAR file in place of the usual one.
        template: a map in place of the usual one.
        planes: of the middle, that half SNR is measured in; None for all.
    """

    entry: str
    manifest: Manifest
    pair: PairEntry
    root: Path
    making: Making
    halves: str
    methods: tuple[str, ...]
    particles: Path | None = None
    template: Path | None = None
    planes: int | None = None

    @property
    def name(self) -> str:
        """Of the series, for tables."""
        return f"{self.entry} {self.pair.name}"

    def place(self, pattern: str) -> Path:
        """A file of the series below the entry's folder."""
        return self.root / pattern.format(name=self.pair.name, series=self.pair.series or self.pair.name)


@dataclass
class Found:
    """What was measured: scores by series and method, and what a reader must know.

    Halves of images measure other directions each, so that sqrt(r) of the raw ones is no bound: ``unbounded`` series.
    """

    halves: dict[str, dict[str, HalfScore]] = field(default_factory=dict)
    matching: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    picking: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unbounded: set[str] = field(default_factory=set)


def read_judges(path: Path) -> dict[str, Judge]:
    """Printed numbers and protocols.

    Raises:
        SettingsError: if the file is not laid out as the one that comes with the program.
    """
    table = read_yaml_table(path, "judges")
    if set(table) != set(JUDGES):
        raise SettingsError(f"{path}: expected the judges {', '.join(JUDGES)}, found {', '.join(table) or 'none'}")
    made = {}
    for name, values in table.items():
        try:
            columns = tuple(str(column) for column in values["columns"])
            rows = {str(row): tuple(map(float, numbers)) for row, numbers in values["rows"].items()}
            made[name] = Judge(
                name, str(values["title"]), str(values["source"]), tuple(map(str, values["entries"])), columns, rows,
                values.get("particles"), values.get("template"), values.get("particle_diameter_angstrom"),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SettingsError(f"{path}: '{name}' is not laid out as in the program's own file: {error}") from error
        if wrong := [row for row, numbers in rows.items() if len(numbers) != len(columns)]:
            raise SettingsError(f"{path}: '{name}', row '{wrong[0]}': expected {len(columns)} numbers")
    return made


def chosen_judges(text: str) -> tuple[str, ...]:
    """Names of the judges asked for; ``all`` means those that the files at hand allow.

    Raises:
        InputError: if one is unknown.
    """
    names = JUDGES if text == "all" else tuple(text.split(","))
    if unknown := [name for name in names if name not in JUDGES]:
        raise InputError(f"there is no judge '{unknown[0]}'; known: {', '.join(JUDGES)}, or all")
    return names


def missing_file(judged: Judged, judge: Judge) -> Path | None:
    """The first file that a judge needs and that is not there."""
    needed = [(judged.particles, judge.particles), (judged.template, judge.template)]
    paths = [given or judged.place(pattern) for given, pattern in needed if pattern is not None]
    return next((path for path in paths if not path.is_file()), None)


def judge_series(judged: Judged, judge: Judge, found: Found) -> None:
    """Judge all methods on one series and put the scores into ``found``.

    Raises:
        InputError: if halves, positions or the template cannot be what they should be.
    """
    if judge.name == "halves":
        series = f"{judged.name} ({judged.halves})"
        found.halves[series] = half_scores(judged, found)
        if judged.halves != "frames":
            found.unbounded.add(series)
    elif judge.name == "matching":
        found.matching[judged.name] = {
            method: {"PR-AUC": made.matching.pr_auc, "best F1": made.matching.best_f1, "particles": made.matching.known}
            for method, made in particle_scores(judged, judge, found).items()
            if made.matching is not None
        }
    else:
        found.picking[judged.name] = {
            method: {
                "precision": made.picking.precision, "recall": made.picking.recall, "F1": made.picking.f1,
                "particles": made.picking.known,
            }
            for method, made in particle_scores(judged, judge, found).items()
            if made.picking is not None
        }  # fmt: skip


def half_scores(judged: Judged, found: Found) -> dict[str, HalfScore]:
    """Each method's half volumes against the raw other halves."""
    if judged.planes is not None and judged.planes < 1:
        raise InputError(f"--planes: expected a number of planes, 1 or more, got {judged.planes}")
    paths = halves_of(judged.making, FBP)
    opened = open_pair(*paths)  # refuses the same volume twice and halves of one noise
    found.notes += [f"{judged.name}: {warning}" for warning in opened.warnings]
    raw = tuple(_middle_planes(path, judged.planes) for path in paths)
    together = pair_moments(*raw).correlation
    scores = {"raw": HalfScore(together, (together, together), raw[0].size)}
    if together <= scores["raw"].chance:
        raise InputError(
            f"{judged.name}: the raw halves correlate by {together:.3g}, no more than noise does; expected halves of "
            "one series, aligned alike: look at the stacks of even and odd frames"
        )

    def score(denoised: Sequence[Array]) -> HalfScore:
        across = [pair_moments(one, other).correlation for one, other in zip(denoised, raw[::-1], strict=True)]
        return HalfScore(together, (across[0], across[1]), raw[0].size)

    for factor in LOW_PASS:
        scores[f"low-pass {factor}x"] = score([low_pass(half, factor) for half in raw])
    for method in judged.methods:
        if method != FBP:
            made = halves_of(judged.making, method)
            scores[method] = score([_middle_planes(path, judged.planes) for path in made])
    return scores


def particle_scores(judged: Judged, judge: Judge, found: Found) -> dict[str, Evaluation]:
    """Each method's volume judged at known positions, and the entry's own tomogram where it lies there."""
    assert judge.particles is not None
    assert judge.diameter_angstrom is not None
    raw = volume_of(judged.making, FBP)
    star = judged.particles or judged.place(judge.particles)
    places = places_of(star, judged.pair.series or judged.pair.name, raw)
    found.notes += [f"{judged.name}: {note}" for note in places.notes]
    found.notes += [f"{judged.name}: {note}" for note in check_places(places, raw, judge.diameter_angstrom)]
    template = None
    if judge.template is not None:
        template = judged.template or judged.place(judge.template)
        check_template(template, judge.diameter_angstrom)
    angles = read_angles_deg(judged.making.folder / "tilts.tlt")
    volumes = {method: volume_of(judged.making, method) for method in judged.methods}
    if (target := judged.making.folder / "target.mrc").is_file():
        volumes[f"entry's own ({' + '.join(judged.manifest.target_made_by)})"] = target
    made = {}
    for method, path in volumes.items():
        request = Request(
            path, particles=write_places(places, path), template=template,
            particle_diameter_angstrom=judge.diameter_angstrom,
            tilt_range_deg=(float(min(angles)), float(max(angles))), contrast="dark", is_volume=True,
        )  # fmt: skip
        made[method], _ = evaluate(load(request))
        test = "template matching" if template else "picking by difference of Gaussians"
        if reason := made[method].skipped.get(test):
            raise InputError(f"{judged.name}, {method}: no {test}: {reason}")
    return made


def _middle_planes(path: Path, planes: int | None) -> Array:
    volume = np.asarray(read_volume(path, is_volume=True).voxels, dtype=np.float32)
    return volume if planes is None else middle(volume, (min(planes, len(volume)), *volume.shape[1:]))


def tables_of(judges: Mapping[str, Judge], found: Found) -> list[Table]:
    """One table for each judge that found something: measured here first, then as printed."""
    notes = " ".join(f"{note}." for note in dict.fromkeys(found.notes))
    tables = []
    if found.halves:
        tables.append(_half_table(judges["halves"], found, notes))
    for name, columns in (("matching", ("PR-AUC", "best F1")), ("picking", ("precision", "recall", "F1"))):
        if scores := getattr(found, name):
            tables.append(_particle_table(judges[name], scores, columns, notes))
    return tables


def published_scores(judge: Judge) -> dict[str, dict[str, HalfScore]]:
    """Printed half SNRs as scores, by tomogram and method."""

    def correlation(db: float) -> float:
        return 1 / (1 + 10 ** (-db / 10))

    raw = [correlation(db) for db in judge.rows["raw"]]
    return {
        tomogram: {
            method: HalfScore(raw[n], (correlation(row[n]), correlation(row[n])), MOST_VOXELS)
            for method, row in judge.rows.items()
        }
        for n, tomogram in enumerate(judge.columns)
    }


def _half_table(judge: Judge, found: Found, notes: str) -> Table:
    rows: list[Sequence[Cell]] = []
    for origin, groups in ((HERE, found.halves), (PUBLISHED, published_scores(judge))):
        for series, scores in groups.items():
            for method, score in scores.items():
                new, best = mean_half_snr_db(score.denoised), half_snr_db(score.ceiling)
                values = [new, score.gain_db, best, best - new]
                numbers: list[Cell] = [round(value, 3) if np.isfinite(value) else None for value in values]
                leaks = None if series in found.unbounded else score.leaks
                rows.append((f"{series}: {method}", *numbers, leaks, origin))
    columns = ("tomogram: method", "half SNR dB", "over raw dB", "ceiling dB", "left to gain dB", "leak", "from")
    note = (
        "A denoised half against the raw other half, both ways: 10 log10(r / (1 - r)). The signal itself would reach "
        "r = sqrt(r of the raw halves), the ceiling; a score above it is a leak between the halves. What a network "
        "puts into the missing wedge has no counterpart in raw volumes and lowers the score. Halves of images "
        "share less than halves of frames, and theirs is no bound: no leak is looked for. Dash: no positive "
        f"correlation, or no bound. Printed numbers: {judge.source}. {notes}"
    )
    return Table(judge.title, columns, rows, note.strip())


def _particle_table(
    judge: Judge, measured: Mapping[str, Mapping[str, Mapping[str, float]]], columns: Sequence[str], notes: str
) -> Table:
    shown = [*columns, *([f"{columns[-1]} s.d."] if f"{columns[-1]} s.d." in judge.columns else [])]
    methods = dict.fromkeys(method for scores in measured.values() for method in scores)
    rows: list[Sequence[Cell]] = []
    for method in methods:
        of_series = [scores[method] for scores in measured.values() if method in scores]
        numbers: list[Cell] = [statistics.fmean(one[column] for one in of_series) for column in columns]
        if len(shown) > len(columns):
            last = [one[columns[-1]] for one in of_series]
            numbers.append(statistics.stdev(last) if len(last) > 1 else None)
        particles = int(sum(one["particles"] for one in of_series))
        rows.append(("raw (FBP)" if method == FBP else method, *numbers, len(of_series), particles, HERE))
    for method, values in judge.rows.items():
        printed = dict(zip(judge.columns, values, strict=True))
        rows.append((method, *(printed[column] for column in shown), None, None, PUBLISHED))
    how = (
        f"256 orientations, particles of {judge.diameter_angstrom:g} Å, hits within 2/7 of that, at the binning of the "
        "manifest: coarser than what was printed, so compare rows of one origin first"
        if judge.template
        else f"Settings as printed, for particles of {judge.diameter_angstrom:g} Å"
    )
    note = f"Means over series. {how}. Printed numbers: {judge.source}. {notes}"
    return Table(judge.title, ("method", *shown, "series", "particles", "from"), rows, note.strip())


def plain(found: Found) -> dict[str, Any]:
    """Scores by series and method, as values of JSON."""
    halves = {series: {m: score.plain() for m, score in scores.items()} for series, scores in found.halves.items()}
    for series in found.unbounded:
        halves[series] = {method: {**score, "leaks": None} for method, score in halves[series].items()}
    return {"halves": halves, "matching": found.matching, "picking": found.picking, "notes": found.notes}
