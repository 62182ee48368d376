"""Sources: scaling as reconstruction scales, pairs from memory and disk, the renewed pool, worker processes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from patience import wait_until
from test_training import small_config

from cryolithe.errors import InputError, ResourceError, SettingsError
from cryolithe.formats.pairs import Pair, open_pair, write_pair
from cryolithe.geometry import TiltGeometry
from cryolithe.network import Head
from cryolithe.projector import make_projector
from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
from cryolithe.simulation import SpecimenRecipe, make_specimen, project
from cryolithe.simulation.classes import MEMBRANES, PROTEINS
from cryolithe.tilts import TiltSeries
from cryolithe.training.dataset import draw_run
from cryolithe.training.loader import runs_of_steps
from cryolithe.training.pair_sizes import sizes_told, voxel_size_note, voxel_size_warning, voxel_sizes
from cryolithe.training.scaling import measure_scale
from cryolithe.training.sections import AugmentSettings, DataSettings, RecipeEntry, ValidationSettings
from cryolithe.training.series import rescaled_pair, series_of_pair
from cryolithe.training.sources import (
    FixedSource,
    PoolSource,
    find_pairs,
    make_source,
    open_pairs_source,
)
from cryolithe.training.validation import validation_set
from cryolithe.training.workers import Workers

torch.set_num_threads(1)
ANGLES = tuple(np.arange(-60.0, 61.0, 10.0))
RECIPES = Path(__file__).resolve().parents[2] / "training_data" / "recipes"
TINY = """
series: 1
procedural: 2
cell: {shape: [16, 24, 24], voxel_size_angstrom: [20.0, 20.0], crowding: [0.05, 0.1], thickness_nm: [28.0, 32.0],
       lamella_chance: 0.0, carbon_chance: 0.0, vesicle_radius_nm: [10.0, 20.0]}
imaging: {scheme: {step_deg: [10.0, 10.0]}}
"""


def tiny_pair(seed=0, shape=(16, 40, 24), sign=1.0, noise=1.0):
    recipe = SpecimenRecipe(shape, (10.0, 10.0), (0.1, 0.1), membranes=(0, 0), body_chance=0.0, bead_chance=0.0)
    specimen = make_specimen(recipe, (), np.random.default_rng(seed))
    images = project(specimen, ANGLES)
    rng = np.random.default_rng(seed + 100)

    def noisy():
        return (70 - 5 * sign * (images + noise * images.std() * rng.standard_normal(images.shape))).astype(np.float32)

    even, odd = noisy(), noisy()
    extras = {"even": even, "odd": odd}
    return Pair((even + odd) / 2, 3 - 0.1 * specimen.density, ANGLES, 10.0, extras)


@pytest.mark.parametrize("falling", [0.0, 1.0])
def test_images_are_scaled_as_reconstruction_scales_them(falling, tmp_path):
    """Also counts of a slab that lets less through where it is tilted."""
    pair = tiny_pair()
    light = np.exp(-falling * (1 / np.cos(np.radians(ANGLES)) - 1)).astype(np.float32)
    images = pair.images * light[:, None, None]
    images[2, 5, 7] = 9000.0  # a hot pixel
    scale = measure_scale(images, "test", ANGLES)
    assert bool((scale.factor != 1).any()) == (light.min() < 0.5)
    geometry = TiltGeometry(ANGLES, images.shape[1:])
    how = Preparation(clip_defects=True, relative=True)
    prepared = prepare_stack(TiltSeries(images, geometry, 10.0), how, tmp_path / "stack")
    rows = prepared.read_rows(0, images.shape[1]).clamp(-prepared.clip_level, prepared.clip_level) / -prepared.sigma
    found = scale.apply(images, np.arange(len(ANGLES)))
    assert torch.allclose(found, rows, atol=1e-4)


def test_a_stored_series_is_measured_in_few_reads(monkeypatch):
    """A file keeps rows of all images together: to read one of them costs as much as to read all."""
    images = tiny_pair().images
    reads = []

    class Stored:
        shape = images.shape

        def __getitem__(self, place):
            reads.append(place)
            return images[place]

    found = measure_scale(Stored(), "test")
    assert len(reads) == 1
    monkeypatch.setattr("cryolithe.training.scaling._READ_VALUES", 3 * images[0].size)
    parts = measure_scale(Stored(), "test")
    assert len(reads) == 1 + -(-len(images) // 3)
    for name in ("low", "high", "mean", "sigma", "clip_level", "usable"):
        np.testing.assert_array_equal(getattr(found, name), getattr(parts, name))


@pytest.mark.slow
def test_a_target_is_scaled_to_its_images():
    """The amplitude is what images and volume were divided by, whatever the units of either."""
    pair = tiny_pair(noise=0.5)
    series = series_of_pair(pair, Head(0), "test")
    projected = make_projector(series.geometry, (16, 24)).forward(series.targets[..., 0].contiguous())
    projected = projected - projected.mean((1, 2), keepdim=True)
    slope = float((series.images * projected).sum() / projected.square().sum())
    assert series.amplitude == pytest.approx(slope, rel=0.15)
    assert series.target_std == pytest.approx(float(pair.truth.std()), rel=1e-4)
    with pytest.raises(InputError, match="anticorrelate"):
        series_of_pair(tiny_pair(sign=-1.0, noise=0.1), Head(0), "test")


@pytest.mark.slow
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_stored_pair_gives_what_one_in_memory_gives(tmp_path, levels):
    config = small_config(levels, augment=AugmentSettings(half_chance=0.5, flip_chance=0.5), fewest_tilts=4)
    head = config.network_config().head
    write_pair(tmp_path / "a.h5", tiny_pair(shape=(12, 301, 24)))
    with open_pair(tmp_path / "a.h5") as pair:
        near = series_of_pair(rescaled_pair(pair, 1.0), head, "a")
        far = series_of_pair(pair, head, "a", tmp_path / "targets.npy")
        assert far.amplitude == pytest.approx(near.amplitude)
        assert np.allclose(far.targets.values.transpose(0, 2, 1, 3), near.targets.numpy(), atol=1e-5)
        for seed in range(6):
            a, b = (
                draw_run(series, config, config.network_config(), np.random.default_rng(seed)) for series in (near, far)
            )
            for name in ("rows", "columns", "angles_rad", "targets"):
                assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-5), name


def test_blank_images_are_left_out():
    pair = tiny_pair()
    images = pair.images.copy()
    images[3] = 0
    series = series_of_pair(dataclasses.replace(pair, images=images, extras={}), Head(0), "test")
    assert series.geometry.tilts == len(ANGLES) - 1
    assert ANGLES[3] not in series.geometry.angles_deg


@pytest.mark.slow
def test_pairs_are_found_once_and_large_ones_stay_on_disk(tmp_path):
    for name in "ab":
        write_pair(tmp_path / f"{name}.h5", tiny_pair(ord(name)))
    paths = find_pairs([tmp_path, "b.h5"], tmp_path)
    assert [path.name for path in paths] == ["a.h5", "b.h5"]
    copies = AugmentSettings(pixel_copies=1, pixel_scale=(0.9, 1.1))
    source = open_pairs_source(paths, small_config(1, augment=copies), tmp_path)
    assert [series.shape[0] == 16 for series in source.series] == [True, False, True, False]
    stored = open_pairs_source(paths, small_config(1, data=DataSettings(memory_mb=0)), tmp_path)
    assert (tmp_path / "targets_1.npy").exists()
    stored.close()
    with pytest.raises(InputError, match=r"more than data\.open_pairs = 1"):
        open_pairs_source(paths, small_config(1, data=DataSettings(memory_mb=0, open_pairs=1)), tmp_path)
    empty = tmp_path / "none"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no training pair"):
        find_pairs([empty], tmp_path)


@pytest.mark.slow
def test_a_pair_with_other_voxels_is_named(tmp_path):
    sizes = {"a": 10.0, "b": 10.0, "c": 13.0, "d": 2.5}
    for name, size in sizes.items():
        write_pair(tmp_path / f"{name}.h5", dataclasses.replace(tiny_pair(ord(name)), voxel_size_angstrom=size))
    files = [tmp_path / f"{name}.h5" for name in sizes]
    assert voxel_size_warning(files[:3]) is None
    assert voxel_size_warning([]) is None
    line = voxel_size_warning(files)
    assert "d.h5 2.5 Å, where the middle one of 4 has 10 Å" in line
    assert "a.h5" not in line
    sizes = list(voxel_sizes(files).values())
    assert sizes == [10.0, 10.0, 13.0, 2.5]
    assert "voxels of 10 to 13 Å" in voxel_size_note(sizes[:3])
    assert voxel_size_note(sizes[:2]) is None
    assert voxel_size_note([]) is None
    assert sizes_told(files) == {"pairs_voxel_size_angstrom": [2.5, 10.0, 13.0]}
    assert sizes_told([]) == {}


@pytest.mark.slow
def test_borders_of_one_value_are_not_learned_from(tmp_path):
    pair = tiny_pair(shape=(16, 64, 64))
    images = np.array(pair.images, dtype=np.float32)
    bordered = images.copy()
    bordered[:, :, :8] = bordered[:, :, -8:] = 0.0
    for name, stack in (("clean", images), ("bordered", bordered)):
        write_pair(tmp_path / f"{name}.h5", dataclasses.replace(pair, images=stack, extras={}))
    files = [tmp_path / "clean.h5", tmp_path / "bordered.h5"]
    told = []
    clean, filled = open_pairs_source(files, small_config(1), tmp_path, told.append).series
    assert not told
    edge = filled.images[:, :, :7]
    assert float(edge.abs().max()) < 2.0  # standard deviations of an image; the border is 6 away
    inside = np.corrcoef(filled.images[:, :, 11:-11].ravel(), clean.images[:, :, 11:-11].ravel())[0, 1]
    assert inside > 0.99
    on_disk = small_config(1, data=DataSettings(memory_mb=0))
    open_pairs_source(files, on_disk, tmp_path, told.append).close()
    (line,) = told
    assert "images of bordered.h5 have borders of one value" in line


def test_a_source_that_fails_gives_back_the_ones_before(tmp_path, monkeypatch):
    write_pair(tmp_path / "a.h5", tiny_pair())
    (tmp_path / "tiny.yaml").write_text(TINY.replace("series", "sereis"))
    closed = []
    monkeypatch.setattr(FixedSource, "close", lambda self: closed.append(True))
    data = DataSettings(pairs=("a.h5",), recipes=({"path": "tiny.yaml"},), memory_mb=0)
    with pytest.raises(SettingsError, match="sereis"):
        make_source(small_config(1, data=data), tmp_path, tmp_path)
    assert len(closed) == 1


def test_a_validation_pair_must_not_be_trained_on(tmp_path):
    write_pair(tmp_path / "a.h5", tiny_pair())
    (tmp_path / "copy.h5").write_bytes((tmp_path / "a.h5").read_bytes())
    for name, line in (("a.h5", "is in the training set"), ("copy.h5", "the same images as the training pair")):
        data, held = DataSettings(pairs=("a.h5",)), ValidationSettings(pairs=(name,))
        with pytest.raises(SettingsError, match=line):
            validation_set(small_config(data=data, validation=held), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "labelled"), [((1.0, 1.0), True), ((1.2, 1.3), False)])
def test_recipe_series_are_validated_by_class_where_voxels_are_the_cells(tmp_path, scale, labelled):
    (tmp_path / "tiny.yaml").write_text(TINY)
    data = DataSettings(recipes=(RecipeEntry(path="tiny.yaml"),))
    config = small_config(data=data, validation=ValidationSettings(recipe_series=2)).model_copy(
        update={"augment": AugmentSettings(pixel_scale=scale)}
    )
    examples = validation_set(config, tmp_path)
    assert [example.labels is not None for example in examples] == [labelled] * 2
    for example in examples:
        if labelled:
            assert example.labels.shape == example.truth.shape
            inside = np.isin(example.labels, [int(kind) for kind in (*MEMBRANES, *PROTEINS)])
            assert example.truth[inside].mean() > example.truth[example.labels == 0].mean()


def numbered(number):
    return number


def test_the_pool_follows_its_schedule():
    """The formula is the history: one slot after the other gives its series up."""
    pool = PoolSource(numbered, 3, 10)
    held, following = [1, 2, 3], 4
    for step in range(100):
        if step and step % 10 == 0:
            held[(following - 1) % 3] = following
            following += 1
        assert [pool.number(slot, step) for slot in range(3)] == held
    ranks = [PoolSource(numbered, 3, 10, stream=(rank, 2)) for rank in (0, 1)]
    seen = [{one.number(slot, step) for slot in range(3) for step in range(200)} for one in ranks]
    assert not seen[0] & seen[1]


@pytest.mark.slow
def test_simulated_series_do_not_depend_on_workers_or_on_where_a_run_starts(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    runs = []
    for workers, start in ((0, 0), (1, 0), (0, 7)):
        data = DataSettings(recipes=({"path": "tiny.yaml"},), pool=2, replace_every=3, workers=workers)
        config = small_config(steps=12, data=data, augment=AugmentSettings(half_chance=0.5))
        source = make_source(config, tmp_path, tmp_path)
        try:
            runs.append(list(runs_of_steps(config, config.network_config(), source, start)))
        finally:
            source.close()
    for found, expected in ((runs[1], runs[0]), (runs[2], runs[0][7:])):
        for (a,), (b,) in zip(found, expected, strict=True):
            assert a.name == b.name
            assert torch.equal(a.rows, b.rows)
            assert torch.equal(a.targets, b.targets)
    names = {run.name for (run,) in runs[0]}
    assert len(names) >= 2


def test_threads_draw_what_one_thread_draws(tmp_path):
    config = small_config(steps=5, runs_per_step=3)
    source = FixedSource([series_of_pair(tiny_pair(), config.network_config().head, "a")])
    drawn = []
    for threads in (0, 3):
        few = config.model_copy(update={"data": DataSettings(loader_threads=threads)})
        drawn.append(list(runs_of_steps(few, config.network_config(), source, 0)))
    for a, b in zip(*drawn, strict=True):
        assert all(torch.equal(x.rows, y.rows) for x, y in zip(a, b, strict=True))


def die(number):
    os._exit(9)


class Always:
    """Random numbers that choose one and the same slot."""

    def __init__(self, slot):
        self.slot = slot

    def integers(self, size):
        return self.slot


@pytest.mark.slow
@pytest.mark.parametrize(("size", "workers", "every"), [(3, 1, 1), (4, 2, 1), (2, 1, 3)])
def test_the_pool_keeps_no_series_that_nobody_takes(size, workers, every, monkeypatch):
    """Series that were made ahead are dropped when their time in the pool has passed without a draw."""
    monkeypatch.setattr("cryolithe.training.sources.as_tensors", lambda series, device: series)
    pool = PoolSource(numbered, size, every, workers)
    try:
        for step in range(60):
            assert pool.pick(step, Always(0)) == pool.number(0, step)
            assert len(pool._workers._done) + len(pool._workers._queue) <= size + 2 * workers
        for slot in range(size):
            assert pool.pick(60, Always(slot)) == pool.number(slot, 60)
    finally:
        pool.close()


def fail(number):
    raise ZeroDivisionError("no")


@pytest.mark.slow
def test_a_lost_worker_is_named_and_others_are_left_alone():
    workers = Workers(die, 1)
    try:
        with pytest.raises(ResourceError, match=r"lost while it simulated series 7 \(exit code 9"):
            workers.take(7)
    finally:
        workers.close()
    workers = Workers(fail, 1)
    with pytest.raises(Exception, match="series 3 failed: ZeroDivisionError: no"):
        workers.take(3)
    (process, _) = next(iter(workers._links.values()))
    workers.close()
    wait_until(lambda: not process.is_alive())


def test_head_targets_of_parts_are_those_of_the_whole(tmp_path):
    pair = tiny_pair(shape=(8, 150, 12))
    for levels in (1, 2):
        series = series_of_pair(pair, Head(levels), "a", tmp_path / f"{levels}.npy")
        truth = torch.from_numpy(pair.truth.mean() - pair.truth)
        assert np.allclose(series.targets.values.transpose(0, 2, 1, 3), Head(levels).targets(truth), atol=1e-4)
