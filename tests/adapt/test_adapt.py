"""A model that goes on learning on a lab's own series: what it is shown, what is held back, what is written."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from command import call
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from tiny_series import CONFIG, write_model, write_series

from cryolithe.adapt import config as adapt_config
from cryolithe.adapt import halves as adapt_halves
from cryolithe.adapt import material as adapt_material
from cryolithe.adapt import session as adapt_session
from cryolithe.adapt.checking import CHANCE, Check, best_of, check_of_record, why_not
from cryolithe.adapt.colour import lab_gain
from cryolithe.adapt.cubes import Cube, Draw, back_projected, draw_cube, layouts_of
from cryolithe.adapt.halves import Half, HalfSeries, image_snr_db
from cryolithe.adapt.spectrum import Balance, ShellSums, cube_loss, fit_balance, sectors, shell_count
from cryolithe.adapt.turned import EDGE_PX, turned_ball, turned_series
from cryolithe.errors import InputError, SettingsError
from cryolithe.formats import write_volume
from cryolithe.formats.leftovers import temporary_beside
from cryolithe.geometry import TiltGeometry
from cryolithe.known import NOTHING
from cryolithe.network.checkpoint import load_model
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.evidence.polarity import Evidence
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.simulation import Specimen, SpecimenRecipe, library, make_specimen, project
from cryolithe.training.dataset import Run
from cryolithe.training.losses import faded_spectrum
from cryolithe.volume import Volume

torch.set_num_threads(1)
ANGLES = tuple(float(a) for a in range(-60, 61, 8))
SHAPE = (20, 72, 28)


class Tiny(adapt_config.AdaptConfig):
    """An adaptation of a second."""

    anchors: int = 2
    anchor_shape: tuple[int, int, int] = (12, 16, 16)
    turned_weight: float = 0.15
    turned_px: tuple[int, int, int] = (24, 20, 24)
    held_cubes: int = 2
    checks: int = 1
    warmup_steps: int = 1


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(adapt_config, "AdaptConfig", Tiny)
    whole = adapt_config.anchor_config

    def smaller(*words):
        made = whole(*words)
        validation = made.validation.model_copy(update={"specimens": 1, "shape": (12, 16, 16)})
        return made.model_copy(update={"validation": validation, "columns": 8, "blocks": 4})

    monkeypatch.setattr(adapt_material, "anchor_config", smaller)
    # A recipe's dozens of molecules are made anew in every run, and take longer than the rest of it.
    whole_library = library.procedural_library
    monkeypatch.setattr(library, "procedural_library", lambda number, rng: whole_library(min(number, 3), rng))
    # A bundled network looks at the contrast, which is given here, for most of a tiny run's time.
    monkeypatch.setattr(adapt_halves, "evidence_of_parts", lambda runs, folder: Evidence())


def specimen_images():
    recipe = SpecimenRecipe(SHAPE, (10.0, 10.0), (0.1, 0.1), membranes=(0, 0), body_chance=0.0, bead_chance=0.0)
    return project(make_specimen(recipe, (), np.random.default_rng(0)), ANGLES)


def smooth_images(shape=SHAPE[1:]):
    """Images of no specimen: quickly made, and smooth enough to be interpolated."""
    whole = np.random.default_rng(7).standard_normal((len(ANGLES), *shape))
    return gaussian_filter(whole, (0, 1.5, 1.5)).astype(np.float32)


def noisy(images, seed, noise=0.5):
    return images + noise * images.std() * np.random.default_rng(seed).standard_normal(images.shape)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two halves, dense = dark, and their angles."""
    folder = tmp_path_factory.mktemp("halves")
    images = specimen_images()
    paths = [
        write_series(folder, (90 - 4 * noisy(images, seed)).astype(np.float32), ANGLES, name)
        for seed, name in enumerate(("ts_EVN", "ts_ODD"))
    ]
    return paths[0][0], paths[1][0], paths[0][1]


def command(*words):
    return call("adapt", *words)


def of_halves(files, output, *more):
    even, odd, angles = files
    model = output.with_name("start.safetensors")
    if not model.exists():
        write_model(model)
    fixed = ("--contrast", "dark", "--thickness", SHAPE[0], "--device", "cpu", "--precision", "fp32")
    return command("--even", even, "--odd", odd, angles, "-o", output, "--model", model, *fixed, *more)


def weights(path):
    return {name: tensor.numpy().tobytes() for name, tensor in safetensors.torch.load_file(path).items()}


def trained(path):
    """Weights of a saved state, without its counts of seconds."""
    return {name: value for name, value in weights(path).items() if name.startswith(("network.", "averaged."))}


def series_of(folder, halves, angles=ANGLES, depth=SHAPE[0]):
    """A series in memory's stead: prepared stacks, dense = positive."""
    made = []
    for number, images in enumerate(halves):
        path = folder / f"{number}.f32"
        images.astype("<f4").tofile(path)
        stack = PreparedStack(path, TiltGeometry(angles, images.shape[1:]), float(images.std()), math.inf)
        made.append(Half(stack, float(images.std()), np.arange(len(angles)), NOTHING))
    return HalfSeries("ts", (made[0], made[1]), depth, True)


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["--minutes", "--steps"])
def test_no_time_and_no_step_give_the_same_weights(tiny, files, tmp_path, monkeypatch, limit):
    """What killed runs of the same output left behind goes."""
    output = tmp_path / "mine.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: 2**22 + 1)  # no system has that many
        left = temporary_beside(output, "adapt")
    left.mkdir()
    (left / "stack.f32").write_bytes(bytes(100))
    result = of_halves(files, output, limit, 0)
    assert result.exit_code == 0, result.output
    assert weights(output) == weights(tmp_path / "start.safetensors")
    assert result.stdout.endswith(f"{output}: the weights of start as they are\n")
    assert "Warning" not in result.output  # it was asked for
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_minutes_that_leave_no_time_for_a_step_are_warned_of(tiny, files, tmp_path):
    output = tmp_path / "mine.safetensors"
    result = of_halves(files, output, "--minutes", 0.001)
    assert result.exit_code == 0, result.output
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("Warning")]
    assert "nothing was learned: 0.001 minutes left no time for a step" in warning
    assert "give --minutes " in warning
    assert weights(output) == weights(tmp_path / "start.safetensors")


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_an_undisturbed_one(tiny, files, tmp_path, monkeypatch):
    """Same seed, same bytes, stopped in between or not. Whether it is better then is all one here."""
    steps = ("--steps", 3, "--learning-rate", 1e-3)
    assert of_halves(files, tmp_path / "whole.safetensors", *steps).exit_code in (0, 2)
    real = adapt_session._update

    def stopping(state, *words):
        norm = real(state, *words)
        if state.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return norm

    with monkeypatch.context() as patched:
        patched.setattr(adapt_session, "_update", stopping)
        result = of_halves(files, tmp_path / "parts.safetensors", *steps)
    assert result.exit_code == 130, result.output
    assert "go on with --resume" in result.stderr
    assert "100 %" not in result.stderr  # it is not done
    assert not (tmp_path / "parts.safetensors").exists()
    refused = of_halves(files, tmp_path / "parts.safetensors", *steps, "--resume", "--seed", 2)
    assert refused.exit_code == 2
    assert "was saved by a training with other settings" in refused.stderr
    given = tmp_path / "map.mrc"
    write_volume(given, Volume(np.pad(np.ones((3, 4, 5), np.float32), 4), 10.0), label="a block")
    refused = of_halves(files, tmp_path / "parts.safetensors", *steps, "--resume", "--molecules", given)
    assert refused.exit_code == 2
    assert "the library of --molecules is new to this run; leave it out" in refused.stderr
    assert of_halves(files, tmp_path / "parts.safetensors", *steps, "--resume").exit_code in (0, 2)
    states = {name: trained(tmp_path / f"{name}.run" / "state.safetensors") for name in ("whole", "parts")}
    assert states["whole"] == states["parts"]
    checks = [json.loads((tmp_path / f"{name}.run" / "checks.json").read_text()) for name in ("whole", "parts")]
    assert checks[0] == checks[1]


@pytest.mark.parametrize(("then", "now"), [([1.0, 2.0], None), (None, [1.0, 2.0]), ([1.0, 2.0], [1.0, 3.0])])
def test_a_run_does_not_go_on_with_images_that_are_filtered_otherwise(then, now):
    work = SimpleNamespace(card={} if now is None else {"noise_gain": now})
    with pytest.raises(SettingsError, match="give --overwrite to start anew"):
        adapt_session._check_same_noise(Path("state.safetensors"), {"noise_gain": then}, work)
    adapt_session._check_same_noise(Path("state.safetensors"), {"noise_gain": now}, work)


@pytest.mark.parametrize(
    ("gain", "why"), [(0.5 * CHANCE, f"both FSC together gain less than {CHANCE:.0%}"), (1.5 * CHANCE, "")]
)
def test_what_is_gained_has_to_be_more_than_chance(gain, why):
    """As the help and docs/adapt.md say it."""
    before = Check(0, 0.2, 0.1, 3.0, (0.2,), (0.1,), {})
    after = replace(before, step=9, fsc_half=0.2 + 0.2 * gain, fsc_left_out=0.1 + 0.1 * gain, anchor_db=3.1)
    assert why_not(after, before, 0.1).partition(",")[0] == why
    assert (best_of([before, after], 0.1) is None) == bool(why)
    assert f"{CHANCE * 100:g} %" in call("adapt", "--help").output
    page = Path(__file__).resolve().parents[2] / "docs" / "adapt.md"
    assert f"{CHANCE * 100:g} % above" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("steps", "most", "option"), [(12, 12, "--steps 12"), (7, 12, "--minutes"), (7, None, "--minutes")]
)
def test_what_ended_a_run_is_told(steps, most, option):
    assert adapt_session._what_ended(steps, most) == f"{option} ended the run"


@pytest.mark.slow
def test_a_better_model_is_written_and_a_worse_one_refused_with_its_numbers(tiny, files, tmp_path):
    """A network that knows nothing learns from halves alone; steps that are far too large spoil it again."""
    learnt = tmp_path / "learnt.safetensors"
    result = of_halves(files, learnt, "--steps", 40, "--learning-rate", 3e-3)
    assert result.exit_code == 0, result.output
    before, *_, after = json.loads((tmp_path / "learnt.run" / "checks.json").read_text())
    assert after["fsc_half"] > before["fsc_half"] + 0.05
    card = load_model(str(learnt)).card["adapted"]
    assert card["from"]["model"] == "start"
    assert card["after"] == after
    assert (tmp_path / "learnt.run" / "fsc.png").stat().st_size > 5_000
    spoilt = tmp_path / "spoilt.safetensors"
    result = of_halves(files, spoilt, "--steps", 2, "--learning-rate", 1.0, "--model", learnt)
    assert result.exit_code == 2, result.output
    last = result.stderr.splitlines()[-1]
    found = re.search(r"^Error: no model .* the best of the checked weights are (.*)those after step (\d) of 2: ", last)
    assert found
    checks = json.loads((tmp_path / "spoilt.run" / "checks.json").read_text())[1:]
    ways = {(f"{100 * one['share']:g} % of the way to " if one["share"] < 1 else "", one["step"]) for one in checks}
    assert (found[1], int(found[2])) in ways
    assert "; --steps 2 ended the run: give more, " in last
    assert last.count("FSC with the other half") == 2
    assert not spoilt.exists()
    tables = {name: (tmp_path / "spoilt.run" / name).read_text() for name in ("checks.json", "validation.csv")}
    again = of_halves(files, spoilt, "--steps", 2, "--learning-rate", 1.0, "--model", learnt, "--resume")
    assert again.stderr.splitlines()[-1] == last
    assert tables == {name: (tmp_path / "spoilt.run" / name).read_text() for name in tables}
    assert "exists; give --overwrite" in of_halves(files, learnt).stderr


@pytest.mark.slow
def test_halves_of_different_specimens_are_refused(tiny, files, tmp_path):
    stray = np.random.default_rng(5).standard_normal((len(ANGLES), SHAPE[1], SHAPE[2])).astype(np.float32)
    other, _ = write_series(tmp_path, 90 + stray, ANGLES, "stray")
    result = of_halves((files[0], other, files[2]), tmp_path / "mine.safetensors", "--steps", 1)
    assert result.exit_code == 2, result.output
    assert "have nothing in common" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_what_cannot_be_is_refused_in_one_line(files, tmp_path):
    even, odd, angles = files
    for words, fragment in (
        ((), "give --even and --odd with ANGLES"),
        (("--even", even, angles), "give --odd for each --even, got 1 --even and 0 --odd"),
        (("--even", even, "--odd", odd), "expected 1, got 0"),
        (("--even", even, "--odd", odd, angles, angles), "expected 1, got 2"),
        (("--even", even, "--odd", even, angles), "are the same images"),
        ((even,), "without its angles"),
        ((even, angles, odd), "got 3 files"),
        ((even, angles, "--model", "none"), "unknown model 'none'"),
        ((tmp_path / "no.mrc", angles), "does not exist"),
        ((even, angles, "--minutes", -1), "--minutes"),
    ):
        result = command(*words, "-o", tmp_path / "mine.safetensors")
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
        assert fragment in result.stderr
    assert "does not exist; make it" in command(even, angles, "-o", tmp_path / "no" / "m.safetensors").stderr
    assert ".safetensors" in command(even, angles, "-o", tmp_path / "mine.mrc").stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_back_projection_of_a_cube_is_that_of_the_volume(tmp_path):
    images = smooth_images()
    series = series_of(tmp_path, (noisy(images, 1), noisy(images, 2)))
    (layout,) = layouts_of([series], CONFIG, (16, 16, 16), 0.4)
    rows = torch.from_numpy(np.fromfile(tmp_path / "1.f32", "<f4").reshape(images.shape)) / series.halves[1].divisor
    whole = fbp(make_projector(TiltGeometry(ANGLES, SHAPE[1:]), (SHAPE[0], SHAPE[2])), rows).numpy()
    cube = draw_cube(series, layout, Draw(layout.training, half=0), np.random.default_rng(0))
    part = cube.run.targets.numpy()
    assert part.shape == layout.voxels
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(whole, 4), part.shape)
    a, b = windows - windows.mean((3, 4, 5), keepdims=True), part - part.mean()
    alike = (a * b).sum((3, 4, 5)) / np.sqrt((a**2).sum((3, 4, 5)) * (b**2).sum())
    # The projector spreads a voxel over its footprint, which blurs a little.
    assert np.nanmax(alike) > 0.97
    assert np.sort(alike[np.isfinite(alike)])[-2] < np.nanmax(alike)


@pytest.mark.slow
def test_rows_held_back_are_never_read_for_learning(tmp_path, monkeypatch):
    images = smooth_images()
    series = series_of(tmp_path, (images, images))
    (layout,) = layouts_of([series], CONFIG, (64, 48, 64), 0.25)
    assert layout.training.stop == layout.held.start
    assert layout.held.stop == SHAPE[1]
    read = []
    real = Half.rows
    monkeypatch.setattr(
        Half, "rows", lambda half, first, count: (read.append((first, count)), real(half, first, count))[1]
    )
    for part in (layout.training, layout.held):
        read.clear()
        for number in range(20):
            draw_cube(series, layout, Draw(part, cut=0.5, flip=0.5, own=True), np.random.default_rng(number))
        assert min(first for first, _ in read) >= part.start
        assert max(first + count for first, count in read) <= part.stop


@pytest.mark.parametrize("height", [72, 101, 150, 260, 600])
def test_larger_cubes_of_a_series_leave_as_many_rows_alone(tmp_path, height):
    """What is turned comes from larger cubes than those compared: never from rows that checks look at."""
    series = series_of(tmp_path, [smooth_images((height, SHAPE[2]))] * 2)
    small, large = (layouts_of([series], CONFIG, edges, 0.25)[0] for edges in ((64, 48, 64), (64, 64, 64)))
    assert large.training.stop <= small.training.stop


def test_tilts_that_are_left_out_are_not_seen_and_are_asked_for(tmp_path):
    images = smooth_images()
    series = series_of(tmp_path, (images, images))
    (layout,) = layouts_of([series], CONFIG, (16, 16, 16), 0.25)
    cube = draw_cube(series, layout, Draw(layout.training, both_ends=3), np.random.default_rng(0))
    assert cube.run.rows.shape[0] == len(ANGLES) - 6
    assert cube.seen_deg == (ANGLES[3], ANGLES[-4])
    assert cube.all_deg == (ANGLES[0], ANGLES[-1])


def smooth_volume(shape=(26, 24, 30)):
    return gaussian_filter(np.random.default_rng(1).standard_normal(shape), 1.5).astype(np.float32)


def test_a_ball_that_is_turned_comes_back():
    volume = smooth_volume()
    whole = turned_ball(volume, np.eye(3))
    assert whole.shape == (24, 24, 24)
    inside = volume[1:25, :, 3:27]
    at = np.s_[8:16, 8:16, 8:16]
    assert np.corrcoef(whole[at].ravel(), inside[at].ravel())[0, 1] > 0.999
    turn = Rotation.random(random_state=np.random.default_rng(2)).as_matrix()
    there_and_back = turned_ball(turned_ball(volume, turn), turn.T)
    fading = np.hypot(np.hypot(*np.ogrid[-11.5:12, -11.5:12]), np.arange(-11.5, 12)[:, None, None]) > 12 - EDGE_PX - 1
    alike = np.corrcoef(there_and_back[~fading], whole[~fading])[0, 1]
    assert alike > 0.995
    # A quarter of a turn about y, exactly: what lay along z lies along x.
    quarter = turned_ball(volume, Rotation.from_matrix([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]).as_matrix())
    expected = np.rot90(whole, -1, (0, 2))
    assert min(np.abs(quarter - expected).max(), np.abs(quarter - np.rot90(whole, 1, (0, 2))).max()) < 1e-4


def test_a_turned_volume_is_a_series_with_the_labs_noise_whose_truth_is_known(tmp_path):
    images = smooth_images()
    rng = np.random.default_rng(3)
    noise = [gaussian_filter(rng.standard_normal(images.shape), (0, 1, 0)).astype(np.float32) for _ in range(2)]
    series = series_of(tmp_path, (images + noise[0], images + noise[1]))
    made = turned_series(torch.from_numpy(smooth_volume()), (series, range(60)), CONFIG.head, np.random.default_rng(4))
    assert made.geometry.angles_deg == ANGLES
    assert not made.noiseless
    truth = CONFIG.head.volume(made.targets, made.shape).numpy()
    clean = project(Specimen(truth, 1.0), ANGLES) * made.amplitude
    clean -= clean.mean((1, 2), keepdims=True)
    found = made.images.numpy()
    slope = (found * clean).sum() / (clean * clean).sum()
    assert slope == pytest.approx(1, abs=0.05)
    rest = found - clean
    expected = np.std(noise[0] - noise[1]) / 2 * made.amplitude / series.halves[0].divisor
    assert rest.std() == pytest.approx(expected, rel=0.1)
    # It is correlated along y, as the lab's is, and not along x.
    along = [np.mean(rest * np.roll(rest, 1, axis)) / np.mean(rest**2) for axis in (1, 2)]
    assert along[0] > 0.6
    assert abs(along[1]) < 0.15
    again = turned_series(torch.from_numpy(smooth_volume()), (series, range(60)), CONFIG.head, np.random.default_rng(4))
    assert torch.equal(made.images, again.images)


def test_a_series_that_is_too_small_is_refused(tmp_path):
    for height, count in ((20, 1), (14, 1), (14, 6)):
        images = np.random.default_rng(0).standard_normal((len(ANGLES), height, 28))
        several = [series_of(tmp_path, (images, images))] * count
        with pytest.raises(InputError, match="too small to learn from"):
            layouts_of(several, CONFIG, (64, 48, 64), 0.25)


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(2, 0.25, [1]), (3, 0.25, [1]), (4, 0.25, [2]), (6, 0.25, [1, 4]), (12, 0.25, [2, 6, 10]), (2, 0.9, [1])],
)
def test_of_series_without_room_for_two_parts_some_are_held_back_whole(tmp_path, count, share, held):
    """One small series alone is refused; of several a quarter is for checks, and never all."""
    small = series_of(tmp_path, [smooth_images((26, SHAPE[2]))] * 2)
    with pytest.raises(InputError, match=r"too small to learn from.* with several series"):
        layouts_of([small], CONFIG, (64, 48, 64), share)
    layouts = layouts_of([small] * count, CONFIG, (64, 48, 64), share)
    assert [number for number, layout in enumerate(layouts) if layout.held] == held
    for layout in layouts:
        assert {len(layout.training), len(layout.held)} == {0, layout.shape[1]}
        for number in range(10):
            cube = draw_cube(small, layout, Draw(layout.held or layout.training), np.random.default_rng(number))
            assert cube.run.targets.shape == layout.voxels


def test_beside_larger_ones_a_small_series_is_learned_from_and_does_not_judge(tmp_path):
    small = series_of(tmp_path, [smooth_images((26, SHAPE[2]))] * 2)
    (tmp_path / "large").mkdir()
    large = series_of(tmp_path / "large", [smooth_images()] * 2)
    for several in ([small, large], [large, large, large, small], [large, small, small]):
        layouts = layouts_of(several, CONFIG, (64, 48, 64), 0.25)
        for series, layout in zip(several, layouts, strict=True):
            assert bool(layout.held) == (series is large)
            assert layout.training.stop == (layout.held.start if series is large else layout.shape[1])
            draw_cube(series, layout, Draw(layout.training), np.random.default_rng(0))


@pytest.mark.slow
def test_the_noise_of_a_series_that_is_held_back_whole_is_not_looked_at(tmp_path):
    series = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        images = specimen_images()[:, :26]
        halves = [gaussian_filter(noisy(images, 2 * number + half, 1.0), (0, 0.5, 0.5)) for half in (0, 1)]
        series.append(series_of(folder, halves))
    layouts = layouts_of(series, CONFIG, (64, 48, 64), 0.25)
    rows = [layout.training for layout in layouts]
    assert [len(one) for one in rows] == [26, 0, 26]
    gain = lab_gain(series, rows)
    assert gain is not None
    assert gain == lab_gain([series[0], series[2]], [rows[0], rows[2]])
    assert gain != lab_gain(series, [range(26)] * 3)


@pytest.mark.slow
def test_images_that_are_given_twice_are_refused(tiny, files, tmp_path):
    """A second name for the same file would judge a model by what it learned from."""
    other = tmp_path / "again.mrc"
    other.write_bytes(files[0].read_bytes())
    model = tmp_path / "start.safetensors"
    write_model(model)
    words = (files[0], files[2], other, files[2], "-o", tmp_path / "mine.safetensors", "--model", model)
    result = command(*words, "--contrast", "dark", "--thickness", SHAPE[0], "--device", "cpu")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        f"Error: {other} holds the very images of {files[0]}; give each series, and each half, once",
    )


@pytest.mark.slow
def test_small_series_teach_and_others_of_them_judge(tiny, tmp_path, monkeypatch):
    """Through the command: which are held back is said, and only the others are learned from."""
    images = specimen_images()[:, :26]
    folder = tmp_path / "series"
    folder.mkdir()
    words = [
        word
        for number in range(4)
        for word in write_series(folder, (90 - 4 * noisy(images, number)).astype(np.float32), ANGLES, f"ts{number}")
    ]
    model, output = tmp_path / "start.safetensors", tmp_path / "mine.safetensors"
    write_model(model)
    seen, real = [], adapt_session.draw_cube

    def noted(series, *rest):
        seen.append(series.name)
        return real(series, *rest)

    judged = set()

    def noted_check(network, cubes, *rest):
        judged.update(cube.run.name for cube in cubes)
        return check(network, cubes, *rest)

    check = adapt_session.check_network
    # Steps, and the scale of shells before them; what is held back is drawn in between.
    monkeypatch.setattr(adapt_session, "draw_cube", noted)
    monkeypatch.setattr(adapt_session, "check_network", noted_check)
    fits = adapt_material.fit_balance
    monkeypatch.setattr(
        adapt_material, "fit_balance", lambda fit, *rest: (seen.extend(c.run.name for c, _ in fit), fits(fit, *rest))[1]
    )
    fixed = ("--contrast", "dark", "--thickness", SHAPE[0], "--device", "cpu", "--precision", "fp32", "--steps", 12)
    result = command(*words, "-o", output, "--model", model, *fixed)
    assert result.exit_code in (0, 2), result.output
    assert "No room for two parts in ts0, ts1, ts2, ts3; held back whole: ts2" in result.output
    assert set(seen) == {"ts0", "ts1", "ts3"}
    assert judged == {"ts2"}
    checks = json.loads((tmp_path / "mine.run" / "checks.json").read_text())
    assert all(math.isfinite(check["fsc_half"]) for check in checks)


def test_the_truth_has_the_least_loss(tmp_path):
    """With what FBP of noisy images can tell: closer to the truth is better, its amplitude apart."""
    rng = np.random.default_rng(3)
    truth = torch.nn.functional.avg_pool3d(torch.from_numpy(rng.standard_normal((1, 24, 24, 24))), 3, 1, 1)[0].float()
    noise = [torch.from_numpy(rng.standard_normal(truth.shape).astype(np.float32)) * 0.1 for _ in range(2)]

    def cube(number):
        run = Run(torch.zeros(31, 1, 1), torch.empty(0), torch.empty(0), truth + noise[number], 1.0)
        return Cube(run, truth + noise[1 - number], (-40.0, 40.0), (-60.0, 60.0))

    balance = fit_balance([(cube(0), 3 * truth), (cube(1), 3 * truth)], "cosine")
    assert balance.deviations > adapt_material.LEAST_DEVIATIONS
    losses = [
        float(cube_loss(3 * truth + wrong * noise[1] * 10, cube(0), balance, "cosine", 0.5))
        for wrong in (0.0, 0.5, 1.0)
    ]
    assert losses == sorted(losses)
    assert losses[0] < 0.5 * losses[1]
    sums = ShellSums((24, 24, 24))
    sums.add(truth, cube(0), "cosine")
    seen, left_out = sums.curves()
    assert np.nanmin(seen[:6]) > 0.8
    assert np.nanmin(left_out[2:6]) > 0.8


@pytest.mark.parametrize("window", ["cosine", "hamming"])
def test_the_response_is_what_back_projection_does_to_a_frequency(window):
    """Of points in every plane across the axis, seen without interpolation at every degree."""
    rng, n, width, sigma, edge = np.random.default_rng(0), 40, 64, 0.8, 60.0
    geometry = TiltGeometry(tuple(np.arange(-edge, edge + 0.5)), (n, width))
    z, x, weight = (*rng.uniform(-11, 11, (2, n, 6)), rng.standard_normal((n, 6)))
    away = np.arange(width) - geometry.columns(x, z)[..., None]
    images = (weight[..., None] * np.exp(-(away**2) / 2 / sigma**2)).sum(axis=2) * math.sqrt(2 * math.pi) * sigma
    place = np.arange(n) - (n - 1) / 2
    along_z, along_x = (np.exp(-((place - at[..., None]) ** 2) / 2 / sigma**2) for at in (z, x))
    truth = torch.from_numpy(np.einsum("yp,ypz,ypx->zyx", weight, along_z, along_x).astype(np.float32))
    points = np.repeat(place, n), np.tile(place, n)
    made = back_projected(torch.from_numpy(images.astype(np.float32)), geometry, points, window)
    made = made.view(n, n, n).transpose(1, 2).contiguous()
    run = Run(torch.zeros(len(geometry.angles_deg), 1, 1), torch.empty(0), torch.empty(0), made, 1.0)
    found = sectors(Cube(run, None, (-edge, edge), (-edge, edge)), window)
    expected, got = found.response * faded_spectrum(truth), faded_spectrum(made)
    across = np.hypot(np.fft.fftfreq(n)[:, None, None], np.fft.rfftfreq(n)) + np.zeros((n, 1))
    for low in np.arange(0.05, 0.4, 0.05):
        some = found.seen & torch.from_numpy((across.ravel() >= low) & (across.ravel() < low + 0.05))
        ratio = float((got * expected.conj()).real[some].sum() / expected[some].abs().square().sum())
        assert ratio == pytest.approx(1, abs=0.06), low


def test_halves_that_share_next_to_nothing_do_not_make_a_loss_large():
    """The loss is divided by what halves share, but by no less than a tenth of the power."""
    rng = np.random.default_rng(0)
    volume, other = (torch.from_numpy(rng.standard_normal((16, 16, 16)).astype(np.float32)) for _ in range(2))
    cube = Cube(Run(torch.zeros(31, 1, 1), torch.empty(0), torch.empty(0), other, 1.0), None, (-60, 60), (-60, 60))

    def loss(share):
        one = torch.ones(shell_count((16, 16, 16)))
        return float(cube_loss(volume, cube, Balance(one, 3 * one, 3 * share * one, 9.0), "cosine", 0.5))

    assert loss(0.2) == pytest.approx(2 * loss(0.4), rel=1e-4)
    assert loss(0.1) == pytest.approx(4 * loss(0.4), rel=1e-4)
    assert loss(0.01) == pytest.approx(loss(0.1), rel=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_unlike_halves_have_no_agreement(seed):
    rng = np.random.default_rng(seed)
    a, b, c = (torch.from_numpy(rng.standard_normal((24, 24, 24)).astype(np.float32)) for _ in range(3))
    run = Run(torch.zeros(31, 1, 1), torch.empty(0), torch.empty(0), a, 1.0)
    found = fit_balance([(Cube(run, b, (-60.0, 60.0), (-60.0, 60.0)), c)], "cosine")
    assert found.deviations < adapt_material.LEAST_DEVIATIONS


def test_the_snr_of_images_is_found_from_their_halves(tmp_path):
    images = smooth_images((96, 64))
    for noise in (0.5, 2.0):
        series = series_of(tmp_path, (noisy(images, 1, noise), noisy(images, 2, noise)))
        expected = 10 * math.log10(2 / noise**2)
        assert image_snr_db(series, range(96)) == pytest.approx(expected, abs=0.4)


def check(step, half, left_out=0.3, anchor_db=5.0):
    return Check(step, half, left_out, anchor_db, (half, math.nan), (left_out,), {"proteins": 0.5})


def test_only_better_checks_may_be_written():
    before = check(0, 0.40)
    good, better = check(5, 0.42), check(10, 0.43)
    forgot, worse, invents = check(15, 0.5, anchor_db=4.8), check(20, 0.39, 0.5), check(25, 0.41, 0.2)
    assert best_of([before, good, better, forgot, worse, invents], 0.1) is better
    assert best_of([before, forgot, worse, invents], 0.1) is None
    assert best_of([before, forgot], 0.3) is forgot
    assert "0.1 dB" in why_not(forgot, before, 0.1)
    assert "other half" in why_not(worse, before, 0.1)
    assert "left-out" in why_not(invents, before, 0.1)
    assert "not finite" in why_not(check(1, math.nan), before, 0.1)
    assert "chance" in why_not(check(3, 0.41), before, 0.1)
    assert "chance" in why_not(before, before, 0.1)
    assert why_not(better, before, 0.1) == ""


def test_a_check_survives_its_record():
    text = json.dumps(check(3, 0.25).record(), allow_nan=False)
    assert repr(check_of_record(json.loads(text))) == repr(check(3, 0.25))


@pytest.mark.slow
def test_a_run_that_goes_on_with_another_precision_tells_it(tiny, files, tmp_path, monkeypatch):
    steps, output = ("--steps", 3, "--learning-rate", 1e-3), tmp_path / "parts.safetensors"
    real = adapt_session._update

    def stopping(state, *words):
        if not state.step:
            os.kill(os.getpid(), signal.SIGINT)
        return real(state, *words)

    with monkeypatch.context() as patched:
        patched.setattr(adapt_session, "_update", stopping)
        assert of_halves(files, output, *steps).exit_code == 130
    result = of_halves(files, output, *steps, "--resume", "--precision", "bf16")
    assert result.exit_code in (0, 2)
    assert "with --precision bf16 in place of --precision fp32; its numbers are not those of a" in (
        " ".join(result.stderr.split())
    )
    assert "goes on from step" not in of_halves(files, output, *steps, "--resume", "--precision", "bf16").stderr
