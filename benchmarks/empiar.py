"""Deposited tilt series without truth: do the halves agree, are images predicted that were left out, and the target?

For who has the data; docs/benchmark_on_empiar.md tells how to get them and how they must lie. For each series and
method, by the real commands: a volume without every fifth image, which is projected to the images left out; volumes
of the even and of the odd frames (or images, where there are no frames), which are correlated; and the first volume
against the entry's own tomogram, where there is one. No measure is proof: see the note below the table.
With --judges: as three papers judged, with their printed rows beside (parts/judges.py).
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import (
    METHOD_WORDS,
    RESULTS,
    ROOT,
    Cell,
    Table,
    cryolithe_command,
    model_of,
    parser,
    peak_rss_of,
    read_arguments,
    record,
)
from numpy.typing import NDArray
from parts import judges
from parts.judged_volumes import METHODS, Making, usual_methods

from cryolithe.curation.arrays import binned_planes, kept_tilts, oriented
from cryolithe.curation.manifest import Manifest, PairEntry, read_manifest
from cryolithe.errors import CryoLitheError, InputError
from cryolithe.formats import read_tilt_series, read_volume, write_angles_deg, write_stack, write_volume
from cryolithe.images import fourier_crop
from cryolithe.models import file_sha256
from cryolithe.report.json_files import write_json
from cryolithe.volume import Volume

ENTRIES = {"10045": 320, "10164": 256, "11830": 320}  # planes after binning, where no tomogram tells the thickness
EVERY, FIRST = 5, 2  # images 3, 8, 13, ... are left out
LABEL = "benchmark on deposited data"
CASE = "case.json"
MANIFESTS = ROOT / "training_data"
HELP = "docs/benchmark_on_empiar.md tells what to download and how it must lie"


class Case(NamedTuple):
    """A series made ready: binned stacks in a folder.

    Attributes:
        folder: holds tilts.mrc, kept.mrc, even.mrc, odd.mrc with .tlt files, and perhaps target.mrc.
        held_out: images left out of kept.mrc, from 1.
        halves: "frames" or "images": what even.mrc and odd.mrc are made of.
        thickness: planes.
        inputs: size and checksum of each file read.
        notes: what could not be done.
    """

    folder: Path
    held_out: tuple[int, ...]
    halves: str
    thickness: int
    inputs: dict[str, dict[str, Cell]]
    notes: tuple[str, ...]


def checked(role: str, path: Path, pair: PairEntry) -> dict[str, Cell]:
    """Size and checksum of a file; InputError if the manifest knows others."""
    wanted = getattr(pair.measured, role)
    facts: dict[str, Cell] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    for key, value in facts.items():
        expected = getattr(wanted, key)
        if expected is not None and expected != value:
            raise InputError(f"{path}: expected {key} {expected}, as the manifest says, found {value}; fetch it again")
    return facts


def write_images(folder: Path, name: str, images: NDArray[np.float32], angles: NDArray[Any], pixel: float) -> None:
    """A stack beside its angles; those of a run that was stopped are replaced."""
    write_stack(folder / f"{name}.mrc", images, pixel, LABEL, overwrite=True)
    write_angles_deg(folder / f"{name}.tlt", angles, overwrite=True)


def case_before(folder: Path, made_of: dict[str, Any]) -> Case | None:
    """What an earlier run made ready in a folder; None where it did not finish.

    Raises:
        InputError: if that was made of other files or in another way, of which the volumes there would be, too.
    """
    path = folder / CASE
    if not path.is_file():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    if told["made_of"] != made_of:
        raise InputError(
            f"{folder} holds what was made of other files, or with another manifest or --thickness; give another "
            "--workdir, or remove that folder"
        )
    held_out, notes = tuple(told["held_out"]), tuple(told["notes"])
    return Case(folder, held_out, told["halves"], told["thickness"], made_of["inputs"], notes)


def prepare(manifest: Manifest, pair: PairEntry, root: Path, folder: Path, thickness: int | None) -> Case:
    """Bin the images of a series, split them, and put the target on their grid; once for the same files.

    Raises:
        InputError: if files are missing or not what the manifest says, or the folder is that of others.
    """
    paths = {role: root / path for role, path in manifest.paths(pair).items()}
    for role in ("stack", "angles"):
        if not paths[role].is_file():
            raise InputError(f"{paths[role]} does not exist; {HELP}")
    found = {role: path for role, path in paths.items() if path.is_file()}
    inputs = {path.relative_to(root).as_posix(): checked(role, path, pair) for role, path in found.items()}
    made_of: dict[str, Any] = {"inputs": inputs, "manifest": manifest.model_dump(mode="json", exclude={"pairs"})}
    made_of |= {"pair": pair.model_dump(mode="json"), "thickness": thickness, "every": [EVERY, FIRST]}
    if earlier := case_before(folder, made_of):
        return earlier
    folder.mkdir(parents=True, exist_ok=True)
    pixel, sign = manifest.voxel_size_angstrom, np.float32(-1 if manifest.stack_contrast == "bright" else 1)

    def binned(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        series = read_tilt_series(path, paths["angles"], manifest.stack_pixel_angstrom)
        keep = kept_tilts(pair, series.images.shape[0])
        images = [fourier_crop(sign * np.asarray(series.images[n], dtype=np.float32), manifest.binning) for n in keep]
        return np.stack(images), np.asarray(series.geometry.angles_deg)[list(keep)]

    images, angles = binned(paths["stack"])
    notes: list[str] = []
    write_images(folder, "tilts", images, angles, pixel)
    out = np.arange(len(images)) % EVERY == FIRST
    write_images(folder, "kept", images[~out], angles[~out], pixel)
    frames = "even" in found and "odd" in found
    if not frames:
        notes.append(f"{pair.name}: no halves of frames; halves are made of the images with even and odd numbers")
    for number, half in enumerate(("even", "odd")):
        halved, at = binned(found[half]) if frames else (images[number::2], angles[number::2])
        write_images(folder, half, halved, at, pixel)
    planes = thickness
    if "target" in found:
        target = oriented(read_volume(found["target"], is_volume=True).voxels, manifest)
        depth = len(target) // manifest.target_binning
        voxels = np.stack(list(binned_planes(target, len(target), manifest.target_binning)))
        if voxels.shape[1:] == images.shape[1:]:
            opposite = manifest.target_contrast != "dark"
            write_volume(
                folder / "target.mrc", Volume(-voxels if opposite else voxels, pixel), label=LABEL, overwrite=True
            )
            planes = planes or depth
        else:
            notes.append(f"{pair.name}: the target is {voxels.shape[1:]} (y, x), the images are {images.shape[1:]}")
    planes = planes or ENTRIES[manifest.accession.rpartition("-")[2]]
    held_out = tuple(int(n) + 1 for n in np.flatnonzero(out))
    case = Case(folder, held_out, "frames" if frames else "images", planes, inputs, tuple(notes))
    told = {"held_out": held_out, "halves": case.halves, "thickness": planes, "notes": notes}
    write_json(folder / CASE, {"made_of": made_of, **told})  # the last: without it all is made again
    return case


def measure(case: Case, method: str, device: str) -> dict[str, Any]:
    """Reconstruct and evaluate with one method, in processes of their own; what is there already is not made again."""
    report = case.folder / method / "evaluation.json"
    summary = case.folder / method / "run.json"
    if not summary.is_file():
        report.parent.mkdir(exist_ok=True)
        runs = []
        for name in ("kept", "even", "odd"):
            stack = case.folder / f"{name}.mrc"
            words = [str(stack), str(stack.with_suffix(".tlt")), "-o", str(report.parent / f"{name}_rec.mrc")]
            words += ["--thickness", str(case.thickness), "--device", device, "--overwrite", *METHOD_WORDS[method]]
            runs.append(peak_rss_of([*cryolithe_command(), "reconstruct", *words]))
        words = [str(report.parent / "kept_rec.mrc"), "-o", str(report.parent), "--overwrite", "--crop"]
        words += ["--half1", str(report.parent / "even_rec.mrc"), "--half2", str(report.parent / "odd_rec.mrc")]
        words += ["--tilts", str(case.folder / "tilts.mrc"), "--angles", str(case.folder / "tilts.tlt")]
        words += ["--held-out", ",".join(map(str, case.held_out))]
        if (case.folder / "target.mrc").is_file():
            words += ["--reference", str(case.folder / "target.mrc")]
        peak_rss_of([*cryolithe_command(), "evaluate", *words])
        made = {
            "seconds": runs[0].seconds,
            "peak_bytes": max(run.peak_bytes for run in runs),
            "model": model_of(report.parent / "kept_rec.json"),
        }
        summary.write_text(json.dumps(made), encoding="utf-8")
    found = json.loads(report.read_text(encoding="utf-8"))["evaluation"]
    return {**json.loads(summary.read_text(encoding="utf-8")), **scores(found)}


def scores(found: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the table, from the JSON of ``cryolithe evaluate``."""
    halves, again, reference = found["halves"], found["reprojection"], found["reference"]

    def mean(values: list[float | None]) -> float:
        return float(np.mean([value for value in values if value is not None]))

    resolution = halves["curves"]["resolution"]["measured"]["0.143"]
    return {
        "shape_zyx": found["shape_zyx"],
        "held_out_images": len(again["angles_deg"]),
        "held_out_correlation": mean(again["correlation"]),
        "held_out_ring_correlation": mean(again["ring_correlation"][1:-1]),
        "halves_fsc_measured": halves["curves"]["mean"]["measured"],
        "halves_resolution_angstrom": resolution["value"],
        "halves_snr_db": halves["snr"]["half_db"],
        "wedge_fill": found["wedge"]["fill"],
        "streak_index": found["wedge"]["streak_index"],
        "target_fsc_measured": reference["curves"]["mean"]["measured"] if reference else None,
        "target_fsc_missing": reference["curves"]["mean"]["missing"] if reference else None,
        "target_polarity": reference["polarity"] if reference else None,
        "warnings": found["warnings"],
    }


def manifests(entries: str, data: Path, folder: Path = MANIFESTS) -> dict[str, tuple[Manifest, Path]]:
    """Manifest and folder of each entry asked for; without a choice of those that are there."""
    chosen = {}
    for number in entries.split(",") if entries else ENTRIES:
        if number not in ENTRIES:
            raise InputError(f"there is no entry '{number}' here; known: {', '.join(ENTRIES)}")
        root = data / f"EMPIAR-{number}"
        if root.is_dir():
            chosen[number] = (read_manifest(folder / f"empiar_{number}.yaml"), root)
        elif entries:
            raise InputError(f"there is no folder {root}; {HELP}")
    if not chosen:
        raise InputError(f"{data} holds none of the folders {', '.join(f'EMPIAR-{n}' for n in ENTRIES)}; {HELP}")
    return chosen


def simulated_copy(data: Path) -> None:
    """Write simulated copies in the entries' layouts, one series each; the tests' maker, so that both speak of one."""
    sys.path.insert(0, str(ROOT / "tests"))
    fake_entry = importlib.import_module("fake_entry").fake_entry

    series = {"10045": ("11",), "10164": ("TS_01",), "11830": ("tomo_001",)}
    for number, names in series.items():
        manifest = read_manifest(MANIFESTS / f"empiar_{number}.yaml")
        fake_entry(manifest, names, data / f"EMPIAR-{number}")
    (data / "EMPIAR-10164" / "TS_01" / "TS_01_target.mrc").unlink()
    (data / "EMPIAR-10045" / "Tomograms" / "11" / "IS002_291013_011_target.mrc").unlink()


def command_options() -> argparse.ArgumentParser:
    """What the command takes."""
    options = parser("empiar", __doc__)
    options.add_argument("--data", type=Path, help="folder with the folders EMPIAR-10045, EMPIAR-10164, EMPIAR-11830")
    options.add_argument("--entries", default="", help="such as 10045,11830; default: those that are there")
    options.add_argument("--series", default="", help="names of series, separated by commas; default: all there are")
    options.add_argument(
        "--methods",
        help=f"any of {', '.join(METHOD_WORDS)}; default: all (with --quick one). With --judges: any of "
        f"{', '.join(METHODS)}; default: all but SIRT (with --quick two)",
    )
    options.add_argument("--thickness", type=int, help="planes; default: the target's, else about 320")
    options.add_argument("--device", default="auto")
    options.add_argument("--workdir", type=Path, help="keep volumes and HTML reports here; a repeated run goes on")
    options.add_argument("--manifests", type=Path, default=MANIFESTS, help="folder with corrected empiar_ENTRY.yaml")
    options.add_argument("--judges", help=f"{', '.join(judges.JUDGES)}, or all for which the files are there")
    options.add_argument("--particles", type=Path, help="positions (STAR), in place of those in the entry's folder")
    options.add_argument("--template", type=Path, help="map, dense = bright, in place of that in the entry's folder")
    options.add_argument("--planes", type=int, help="half SNR in so many planes of the middle; default: all")
    options.add_argument("--train-minutes", type=float, help="of each denoiser's training; default: the commands' own")
    return options


def main() -> None:
    """Measure all series that are there."""
    arguments = read_arguments(command_options())
    with tempfile.TemporaryDirectory() as name:
        work, data = arguments.workdir or Path(name) / "work", arguments.data
        if arguments.quick:
            data = data or Path(name) / "data"
            if arguments.data is None:
                simulated_copy(data)
        try:
            if data is None:
                raise InputError(f"give --data; {HELP} (or --quick for simulated copies)")
            (run_judges if arguments.judges else run_all)(arguments, data, work)
        except CryoLitheError as error:
            raise SystemExit(f"Error: {error}") from error


def chosen_methods(arguments: Any, known: Collection[str], usual: Sequence[str]) -> tuple[str, ...]:
    """Methods asked for; InputError if there is no such one."""
    chosen = tuple(arguments.methods.split(",")) if arguments.methods else tuple(usual)
    if unknown := [method for method in chosen if method not in known]:
        raise InputError(f"there is no method '{unknown[0]}'; known: {', '.join(known)}")
    return chosen


def prepared(arguments: Any, data: Path, work: Path) -> Iterator[tuple[str, Manifest, Path, PairEntry, Case]]:
    """Every series asked for, made ready; its folder goes when the next one is asked for, unless it is to stay."""
    names = tuple(arguments.series.split(",")) if arguments.series else ()
    for number, (manifest, root) in manifests(arguments.entries, data, arguments.manifests).items():
        there = [p for p in manifest.pairs if (root / manifest.paths(p)["stack"]).is_file()]
        wanted = manifest.select(names) if names else there
        if not wanted:
            raise InputError(f"{root} holds no series: expected {manifest.paths(manifest.pairs[0])['stack']}; {HELP}")
        for pair in wanted:
            folder = work / number / pair.name
            yield number, manifest, root, pair, prepare(manifest, pair, root, folder, arguments.thickness)
            if arguments.workdir is None:
                shutil.rmtree(folder)


def run_judges(arguments: Any, data: Path, work: Path) -> None:
    """Every series and every judge that is for it; then the judges' tables, printed rows beside ours."""
    names = judges.chosen_judges(arguments.judges)
    methods = chosen_methods(arguments, METHODS, ("FBP", "Gaussian") if arguments.quick else usual_methods())
    known = judges.read_judges(MANIFESTS / "judges.yaml")
    found = judges.Found()
    for number, manifest, root, pair, case in prepared(arguments, data, work):
        making = Making(case.folder, case.thickness, arguments.device, arguments.train_minutes)
        judged = judges.Judged(
            number, manifest, pair, root, making, case.halves, methods,
            arguments.particles, arguments.template, arguments.planes,
        )  # fmt: skip
        for name in names:
            if number not in known[name].entries:
                continue
            if arguments.judges == "all" and (missing := judges.missing_file(judged, known[name])):
                found.notes.append(f"{judged.name}: no {name}: {missing.name} is not there")
                continue
            print(f"EMPIAR-{judged.name}: {name}", flush=True)
            judges.judge_series(judged, known[name], found)
        found.notes += case.notes
    tables = judges.tables_of(known, found)
    if not tables:
        raise InputError(f"nothing was judged: {', '.join(names)} are not for these entries, or lack files; {HELP}")
    output = arguments.output
    if output.parent == RESULTS:  # the default, which is that of the other table
        output = output.with_name(output.name.replace("empiar", "empiar_judges", 1))
    record("empiar_judges", {"tables": tables, "scores": judges.plain(found)}, output)


def run_all(arguments: Any, data: Path, work: Path) -> None:
    """Every series, every method; then the table."""
    methods = chosen_methods(arguments, METHOD_WORDS, ["default"] if arguments.quick else list(METHOD_WORDS))
    rows: list[list[Cell]] = []
    results: dict[str, Any] = {}
    notes: list[str] = []
    for number, _, _, pair, case in prepared(arguments, data, work):
        notes += case.notes
        for method in methods:
            print(f"EMPIAR-{number} {pair.name}: {method}", flush=True)
            found = measure(case, method, arguments.device)
            results[f"{number} {pair.name} {method}"] = {**found, "halves": case.halves, "inputs": case.inputs}
            period = found["halves_resolution_angstrom"]
            rows.append([
                f"{number} {pair.name}: {method}", found["held_out_correlation"],
                found["held_out_ring_correlation"], found["halves_fsc_measured"],
                period if period is not None and np.isfinite(period) else None, case.halves,
                found["target_fsc_measured"], found["wedge_fill"], found["seconds"],
            ])  # fmt: skip
    columns = [
        "series: method", "held-out images", "their rings", "FSC of halves", "0.143 at Å", "halves of",
        "FSC with target", "wedge energy", "seconds",
    ]  # fmt: skip
    note = (
        f"Held-out: every {EVERY}th image, correlation with the projection and mean Fourier ring correlation; noise "
        "keeps even a perfect volume below 1. FSC: means over the shells of the measured region; of halves they tell "
        "how far a result repeats, and smoothing or inventing alike repeats well. Target: what the entry's authors "
        "made, not the truth. Wedge energy: 0 none, 1 as strong as what was measured. " + "; ".join(notes)
    )
    title = "Simulated copies of deposited series" if arguments.quick else "Deposited series"
    record("empiar", {"tables": [Table(title, columns, rows, note.strip())], "runs": results}, arguments.output)


if __name__ == "__main__":
    main()
