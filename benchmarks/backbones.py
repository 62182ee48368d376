"""Which network and which loss denoise best: the experiment of Jones, Deshmukh and Pande (2026) on simulated truth.

Series of the scenes "lamella" and "cellular" are back-projected from even and odd frames, with as much noise added as
brings the halves to a given half SNR. Every backbone is trained with every loss for the same minutes, on one tomogram
or on several of the same kind, beginning as the command does (with the general weights where they suit) and, as rows
"fresh", from nothing, and stands beside the raw volume, a Gaussian whose width the halves choose, Samba, the
general network without training and, where an environment has it, Topaz-Denoise (a program of its own, GPL).

Scores: half SNR with its ceiling; FSC to the truth by shell; fidelity by class of structure; F1 of blobs picked by a
difference of Gaussians; area under precision and recall of template matching. Each row is stored when it is done: the
same command goes on where it stopped. The rows are long: choose some by --only, --backbones, --losses, --minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from baselines.topaz import find_topaz
from common import Table, cryolithe_command, parser, read_arguments, record
from parts.backbone_targets import targets_table
from parts.measures import FEWEST_PARTICLES, picking_f1
from parts.scenes import SCENES, Case, Scene, case_of, diameter_angstrom, placed_molecules, recipe_of

from cryolithe.denoising.ceiling import score_halves
from cryolithe.denoising.n2n.bundled import general_weights
from cryolithe.denoising.n2n.gains import ShellGain
from cryolithe.denoising.n2n.halves import open_pair
from cryolithe.denoising.n2n.losses import LOSSES, LossName
from cryolithe.denoising.n2n.network import BACKBONES, Config, load_denoiser
from cryolithe.denoising.n2n.pairs import Patches
from cryolithe.denoising.n2n.recipe import make_recipe
from cryolithe.denoising.n2n.tiles import BLEND, Runner, Tiling, denoise_volume, margin_of, plan_tiles, prepared, spans
from cryolithe.denoising.n2n.train import Hooks, new_state, train, validated
from cryolithe.denoising.scale import SIGMAS_PER_UNIT, survey
from cryolithe.evaluation.matching import find_template
from cryolithe.evaluation.picking import TOLERANCE, match, precision_recall
from cryolithe.fidelity import class_fidelity, correlation
from cryolithe.files.yaml_table import merged
from cryolithe.formats import read_mrc, write_volume
from cryolithe.machine.device import choose_precision, keep_freed_memory
from cryolithe.metrics import fourier_shell_correlation, resolution_at
from cryolithe.optimise.distributed import Place
from cryolithe.projector.classical import fbp
from cryolithe.report.json_files import write_json
from cryolithe.simulation import Molecule, simulate_series
from cryolithe.training.class_scoring import SUMMARY
from cryolithe.volume import Volume

Array = np.ndarray[Any, np.dtype[np.float32]]
Denoised = tuple[Array, Array, Array]  # first half, second half, what a user is given
SIGMAS_PX = tuple(np.arange(0.0, 4.01, 0.25))
BUDGET_BYTES = 4_000_000_000
SPEED_SHAPE = (128, 256, 256)
TILED_SHAPE = (64, 160, 160)
TILE_EDGE = 112  # of two tilings that are compared: the smallest that leaves unet-small its whole margin


@dataclass(frozen=True)
class Tomogram:
    """A series as denoisers get it.

    Attributes:
        case: what is known of it.
        first: FBP of the even frames, dense = bright.
        second: of the odd ones.
        template: the molecule of which there are most, and its places in voxels; None without enough.
    """

    case: Case
    first: Array
    second: Array
    template: tuple[Molecule, Any] | None

    @property
    def whole(self) -> Array:
        """FBP of all frames."""
        return (self.first + self.second) / np.float32(2)


@dataclass(frozen=True)
class Wish:
    """A training of the experiment.

    Attributes:
        backbone: name of the network.
        loss: that is minimised.
        fresh: begins from nothing, although the package has weights to begin with.
    """

    backbone: str
    loss: LossName
    fresh: bool = False

    def named(self, count: int) -> str:
        """Name of the row of a network trained on so many tomograms."""
        return f"n2n {self.backbone}{' fresh' if self.fresh else ''} {self.loss} {count}"


def make_tomogram(scene: Scene, side: int, library: tuple[Molecule, ...], number: int, snr_db: float) -> Tomogram:
    """Simulate a series and back-project its halves, with noise added to reach a half SNR."""
    made = simulate_series(recipe_of(scene, side), library, number)
    case = case_of(made, scene, library, number)
    rng = np.random.default_rng([number, 7])
    first, second = (fbp(case.projector, half).numpy() for half in (case.even, case.odd))
    common = float(np.mean((first - first.mean()) * (second - second.mean())))
    wanted = 10 ** (snr_db / 10) / (1 + 10 ** (snr_db / 10))
    grain = fbp(case.projector, torch.from_numpy(rng.standard_normal(case.even.shape, np.float32)))
    extra = max(0.0, common / wanted - float(first.var() + second.var()) / 2) / float(grain.var())
    noisy = [
        half + math.sqrt(extra) * torch.from_numpy(rng.standard_normal(half.shape, np.float32))
        for half in (case.even, case.odd)
    ]
    volumes = [fbp(case.projector, half).numpy() for half in noisy]
    names = [placed.name for placed in made.cell.placements]
    common_name = max(set(names), key=names.count) if names else None
    molecule = next((m for m in library if m.name == common_name), None)
    template = None
    if molecule is not None:
        places = np.array([p.position_px for p in made.cell.placements if p.name == molecule.name])
        inside = np.all((places > -0.5) & (places < np.array(case.truth.shape) - 0.5), axis=1)
        template = (molecule, places[inside]) if inside.sum() >= FEWEST_PARTICLES else None
    return Tomogram(case, volumes[0], volumes[1], template)


def scores(tomogram: Tomogram, made: Denoised, seconds: float) -> dict[str, Any]:
    """All scores of a denoised tomogram."""
    case, (one, two, whole) = tomogram.case, made
    halves = score_halves((tomogram.first, tomogram.second), (one, two))
    curve, raw = (fourier_shell_correlation(case.truth, volume) for volume in (whole, tomogram.whole))
    limit = case.voxel_angstrom / resolution_at(raw.total, raw.frequency_per_px, 0.143, case.voxel_angstrom).value
    inside = (raw.frequency_per_px > 0) & (raw.frequency_per_px <= limit)
    classes = class_fidelity(case.truth, {"made": whole}, case.labels, SUMMARY)["made"]
    half = resolution_at(curve.total, curve.frequency_per_px, 0.5, case.voxel_angstrom).value
    return {
        **halves.plain(),
        "gain_db": _finite(halves.gain_db),
        "fsc": [float(value) for value in curve.total],
        "fsc_mean": float(np.nanmean(curve.total[inside])) if inside.any() else None,
        "fsc_worst_change": float((curve.total - raw.total)[inside].min()) if inside.any() else None,
        "shells_inside": [int(number) for number in np.flatnonzero(inside)],
        "resolution_0.5_angstrom": _finite(half),
        "fidelity": {name: float(np.nanmean(list(bands.values()))) for name, bands in classes.items()},
        "dog_f1": picking_f1(case, whole),
        "template_pr_auc": templates(tomogram, whole),
        "seconds": round(seconds, 1),
    }


def templates(tomogram: Tomogram, volume: Array) -> float | None:
    """Area under precision and recall of matching the most frequent molecule."""
    if tomogram.template is None:
        return None
    molecule, known = tomogram.template
    case = tomogram.case
    diameter = diameter_angstrom(molecule) / case.voxel_angstrom
    reach = (min(case.angles_deg), max(case.angles_deg))
    scale = case.voxel_angstrom / molecule.voxel_size_angstrom
    found, _, _, _ = find_template(volume, molecule.density, diameter, scale, reach, 3 * len(known))
    return precision_recall(match(found, known, TOLERANCE * diameter), len(known))[2]


def gaussian(tomogram: Tomogram) -> Denoised:
    """The Gaussian after which a half is most alike to the other one."""

    def alike(sigma: float) -> float:
        one = scipy.ndimage.gaussian_filter(tomogram.first, sigma)
        return correlation(one, tomogram.second)

    best = max(SIGMAS_PX, key=alike)
    one, two = (scipy.ndimage.gaussian_filter(half, best) for half in (tomogram.first, tomogram.second))
    return one, two, (one + two) / np.float32(2)


def applied(network: torch.nn.Module, config: Config, gain: ShellGain, volume: Array, place: Place) -> Array:
    """A volume denoised as `cryolithe denoise` does it, standardised."""
    scale = survey(volume.__getitem__, len(volume), False, "volume").scale
    seen = np.float32(SIGMAS_PER_UNIT) * np.stack([scale.apply(plane) for plane in volume])
    run = Runner(prepared(network, config, place.device), place.device, place.precision)
    out = np.empty_like(seen)
    z, y, x = seen.shape
    denoise_volume(run, [lambda box: seen[box]], plan_tiles((z, y, x), config, BUDGET_BYTES), out)
    return gain.apply(out)


def both(network: torch.nn.Module, config: Config, gain: ShellGain, tomogram: Tomogram, place: Place) -> Denoised:
    """Both halves denoised, and their mean."""
    one, two = (applied(network, config, gain, half, place) for half in (tomogram.first, tomogram.second))
    return one, two, (one + two) / np.float32(2)


def learned(
    wish: Wish, tomograms: Sequence[Tomogram], minutes: float, place: Place
) -> tuple[torch.nn.Module, Config, ShellGain, int]:
    """A network trained on some tomograms; its steps."""
    config = BACKBONES[wish.backbone]
    path = None if wish.fresh else general_weights()
    general = None if path is None else load_denoiser(path)
    start = general.network if general is not None and general.config == config else None
    with tempfile.TemporaryDirectory() as name:
        pairs = [open_pair(*written(tomogram, Path(name) / str(n)), True) for n, tomogram in enumerate(tomograms)]
        recipe = make_recipe(config, place.device, loss=wish.loss)
        patches = Patches(pairs, recipe.edge, config.multiple, recipe.seed)
        state = train(recipe, patches, place, Hooks(limit_seconds=60 * minutes), new_state(recipe, place, start))
        held = validated(recipe, patches, place, state.best)
    return state.best, config, held.gain, state.step


def written(tomogram: Tomogram, folder: Path) -> tuple[Path, Path]:
    """Both halves as files."""
    folder.mkdir(parents=True)
    paths = folder / "t_EVN.mrc", folder / "t_ODD.mrc"
    for path, half in zip(paths, (tomogram.first, tomogram.second), strict=True):
        write_volume(path, Volume(half, tomogram.case.voxel_angstrom), label="benchmark")
    return paths


def samba(tomogram: Tomogram, minutes: float) -> Denoised:
    """By the real command: trained on the whole volume, applied to it and to both halves."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "v"
        paths = written(tomogram, folder)
        whole = folder / "whole.mrc"
        write_volume(whole, Volume(tomogram.whole, tomogram.case.voxel_angstrom), label="benchmark")
        common = ["--is-volume", "--threads", str(torch.get_num_threads()), "--device", "cpu"]
        words = ["denoise", str(whole), "--train-minutes", str(minutes), *common]
        subprocess.run([*cryolithe_command(), *words], check=True, capture_output=True)
        weights = str(folder / "whole_samba.safetensors")
        for path in paths:
            words = ["denoise", str(path), "--model", weights, *common]
            subprocess.run([*cryolithe_command(), *words], check=True, capture_output=True)
        made = [np.array(read_mrc(folder / f"{n}_samba.mrc").data, np.float32) for n in ("t_EVN", "t_ODD", "whole")]
    return made[0], made[1], made[2]


class Rows:
    """Rows on disk: each is made once.

    Args:
        path: JSON file.
        settings: what all rows have in common; others are refused.
        only: rows whose name has none of these parts are left out; empty for all.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], only: Sequence[str]) -> None:
        self._path, self._settings, self._only = path, dict(settings), only
        self.rows: dict[str, dict[str, Any]] = {}
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["settings"] != json.loads(json.dumps(self._settings)):
                raise SystemExit(f"{path} holds rows of other settings ({known['settings']}); remove it or give --rows")
            self.rows = known["rows"]

    def wanted(self, name: str) -> bool:
        """Whether a row is to be made."""
        return name not in self.rows and (not self._only or any(part in name for part in self._only))

    def add(self, name: str, make: Callable[[], dict[str, Any]]) -> None:
        """Make a row that is not there and store it."""
        if not self.wanted(name):
            return
        started = time.monotonic()
        self.rows[name] = make()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, {"settings": self._settings, "rows": self.rows})
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def run_scene(
    scene: Scene, tomograms: Sequence[Tomogram], rows: Rows, arguments: argparse.Namespace, place: Place
) -> None:
    """All rows of a scene; the first ``--series`` of its tomograms are scored."""
    judged = tomograms[: arguments.series]

    def each(method: str, denoise: Callable[[Tomogram], Denoised]) -> None:
        for tomogram in judged:
            rows.add(f"{scene.title} {tomogram.case.number}: {method}", lambda t=tomogram: _timed(t, denoise))  # type: ignore[misc]

    each("raw", lambda t: (t.first, t.second, t.whole))
    each("gaussian", gaussian)
    if (path := arguments.general or general_weights()) is not None:
        known = load_denoiser(path)
        each("general", lambda t: both(known.network, known.config, known.gain, t, place))
        whole = "general, whole volume at once"
        each(whole, lambda t: _whole(t, applied(known.network, known.config, known.gain, t.whole, place)))
    if arguments.topaz:
        topaz = find_topaz(arguments.topaz)

        def by_topaz(tomogram: Tomogram) -> Denoised:
            size = tomogram.case.voxel_angstrom
            one, two = (topaz.denoise(half, size) for half in (tomogram.first, tomogram.second))
            return one, two, (one + two) / np.float32(2)

        each("topaz 10a", by_topaz)
    for count in arguments.tomograms:
        for wish in wishes_of(arguments):
            name = wish.named(count)
            if count == 1:
                each(name, partial(_alone, wish, arguments.minutes, place))
                continue
            names = [f"{scene.title} {t.case.number}: {name}" for t in judged]
            if any(map(rows.wanted, names)):
                each(name, partial(_by, learned(wish, tomograms[:count], arguments.minutes, place), place))
    if not arguments.no_samba:
        each("samba", lambda t: samba(t, arguments.minutes))


def _alone(wish: Wish, minutes: float, place: Place, tomogram: Tomogram) -> Denoised:
    return _by(learned(wish, [tomogram], minutes, place), place, tomogram)


def _by(found: tuple[torch.nn.Module, Config, ShellGain, int], place: Place, tomogram: Tomogram) -> Denoised:
    network, config, gain, _ = found
    return both(network, config, gain, tomogram, place)


def wishes_of(arguments: argparse.Namespace) -> Iterator[Wish]:
    """Backbones and losses, the ones that are fast first; those that the general weights suit from nothing too."""
    path = general_weights()
    suited = None if path is None else load_denoiser(path).config
    for loss in arguments.losses:
        for backbone in arguments.backbones:
            yield Wish(backbone, loss)
            if BACKBONES[backbone] == suited:
                yield Wish(backbone, loss, fresh=True)


def _timed(tomogram: Tomogram, denoise: Callable[[Tomogram], Denoised]) -> dict[str, Any]:
    started = time.monotonic()
    made = denoise(tomogram)
    return scores(tomogram, made, time.monotonic() - started)


def _whole(tomogram: Tomogram, made: Array) -> Denoised:
    """A whole volume alone, whose halves stay raw."""
    return tomogram.first, tomogram.second, made


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def tilings(place: Place, path: Path, shape: tuple[int, int, int], speed_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Largest difference between one tile and many, in deviations of the output; seconds for a large volume."""
    known = load_denoiser(path)
    rng = np.random.default_rng(1)
    run = Runner(prepared(known.network, known.config, place.device), place.device, place.precision)
    exact = replace(run, precision=torch.float32)
    volume = scipy.ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), 1) * np.float32(8)
    made = []
    for edge in (max(volume.shape), TILE_EDGE):
        z, y, x = (
            spans(size, min(size, edge), margin_of(known.config), BLEND, known.config.multiple) for size in shape
        )
        out = np.empty_like(volume)
        denoise_volume(exact, [lambda box: volume[box]], Tiling(shape, (z, y, x)), out)
        made.append(out)
    large, out = rng.standard_normal(speed_shape, np.float32), np.empty(speed_shape, np.float32)
    started = time.monotonic()
    denoise_volume(run, [lambda box: large[box]], plan_tiles(speed_shape, known.config, BUDGET_BYTES), out)
    seconds = time.monotonic() - started
    return {"difference": float(np.abs(made[0] - made[1]).max() / made[0].std()), "seconds": seconds}


def noise(tomogram: Tomogram, minutes: float, place: Place) -> dict[str, Any]:
    """Correlations of what is learned from halves that have nothing in common, with the halves."""
    rng = np.random.default_rng(2)
    halves = [np.asarray(rng.standard_normal(tomogram.first.shape), np.float32) for _ in range(2)]
    empty = Tomogram(tomogram.case, halves[0], halves[1], None)
    one, two, _ = _alone(Wish("unet-small", "l2"), minutes, place, empty)
    score = score_halves((halves[0], halves[1]), (one, two))
    return {"correlations": list(score.denoised), "chance": score.chance}


def table_of(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Means over the series of a scene, by method."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for name, row in rows.items():
        where, _, method = name.partition(": ")
        if "fsc" in row:
            groups.setdefault((where.rsplit(" ", 1)[0], method), []).append(row)
    columns = [
        "half_snr_denoised_db",
        "gain_db",
        "fsc_mean",
        "fsc_worst_change",
        "dog_f1",
        "template_pr_auc",
        "seconds",
    ]
    made = []
    for (scene, method), found in groups.items():
        cells = [_mean(row.get(column) for row in found) for column in columns]
        classes = [_mean(row["fidelity"].get(name) for row in found) for name in SUMMARY]
        if "whole volume at once" in method:
            cells[0] = cells[1] = None  # its halves stay raw
        made.append([scene, method, len(found), *cells[:4], *classes, *cells[4:]])
    titles = [
        "scene",
        "method",
        "series",
        "half SNR dB",
        "gain dB",
        "FSC",
        "worst shell",
        *SUMMARY,
        "DoG F1",
        "PR-AUC",
        "s",
    ]
    return Table(
        "Denoisers on simulated tomograms", titles, made, "FSC: mean over the shells in which the raw volume has 0.143."
    )


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def main() -> None:
    """Make the rows that are not there, print tables."""
    made = parser("backbones", __doc__)
    made.add_argument("--minutes", type=float, default=10.0, help="of each training")
    made.add_argument("--side", type=int, default=128)
    made.add_argument("--series", type=int, default=2, help="of each scene that are scored")
    made.add_argument("--tomograms", type=int, nargs="+", default=[1, 6], help="that a network is trained on")
    made.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    made.add_argument("--losses", nargs="+", default=["l2", "mixed", "fsc"], choices=LOSSES)
    made.add_argument("--scenes", nargs="+", default=["lamella", "cellular"])
    made.add_argument("--half-snr", type=float, default=-11.0, help="dB, of the raw halves")
    made.add_argument("--only", nargs="+", default=[], help="rows whose name has one of these parts")
    made.add_argument("--judge", default="n2n unet-small l2 1", help="the row that the targets are about")
    made.add_argument("--molecules", type=Path)
    made.add_argument("--general", type=Path, help="weights in place of the bundled ones")
    made.add_argument("--topaz", type=Path, metavar="PYTHON", help="of an environment with topaz-em")
    made.add_argument("--no-samba", action="store_true")
    made.add_argument("--rows", type=Path, help="default: beside the output")
    arguments = read_arguments(made)
    if arguments.quick:
        arguments.minutes, arguments.side, arguments.series, arguments.tomograms = 0.02, 40, 1, [1, 2]
        arguments.backbones, arguments.losses, arguments.scenes = ["unet-small"], ["l2"], ["lamella"]
        arguments.no_samba = True
    keep_freed_memory()
    place = Place(torch.device("cpu"), choose_precision("auto", torch.device("cpu")))
    settings = {name: getattr(arguments, name) for name in ("minutes", "side", "half_snr")}
    settings["threads"] = torch.get_num_threads()
    rows = Rows(arguments.rows or arguments.output.with_suffix(".rows.json"), settings, arguments.only)
    library = placed_molecules(arguments.molecules)
    counted = max(arguments.series, *arguments.tomograms)
    for scene in (faint(scene) for scene in SCENES if scene.title in arguments.scenes):
        numbers = range(1, counted + 1)
        tomograms = [make_tomogram(scene, arguments.side, library, n, arguments.half_snr) for n in numbers]
        run_scene(scene, tomograms, rows, arguments, place)
        rows.add("noise: n2n unet-small l2 1", lambda t=tomograms[0]: noise(t, arguments.minutes / 5, place))  # type: ignore[misc]
    if (path := arguments.general or general_weights()) is not None:
        shapes = ((16, 160, 32), (16, 64, 64)) if arguments.quick else (TILED_SHAPE, SPEED_SHAPE)
        rows.add("tilings: general", lambda: tilings(place, path, *shapes))
    tables = [table_of(rows.rows), targets_table(rows.rows, arguments.judge)]
    record("backbones", {"settings": settings, "rows": rows.rows, "tables": tables}, arguments.output)


def faint(scene: Scene) -> Scene:
    """A scene without hot pixels, which a camera's program removes from frames."""
    return replace(scene, imaging=merged(scene.imaging, {"faults": {"hot_pixels": [0, 0]}}))


if __name__ == "__main__":
    main()
