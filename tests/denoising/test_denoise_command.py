"""``cryolithe denoise`` as a user meets it: files in, files out, faults, interruptions."""

import json
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from command import call, ended
from plain_mrc import new_mrc
from test_denoise_warp import TINY
from tiny_series import write_series
from two_ranks import run_both, run_two

from cryolithe.denoising import run
from cryolithe.denoising.samba import apply, inference, learning, model, sweep, training
from cryolithe.denoising.samba import recipe as recipes
from cryolithe.errors import OutputError
from cryolithe.formats import read_mrc, write_volume
from cryolithe.formats.volumes.ome_zarr import write_ome_zarr
from cryolithe.volume import Volume

SHAPE = (9, 40, 36)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """A network and a training of a fraction of a second."""
    monkeypatch.setitem(model.SIZES, "published", TINY)
    make = recipes.make_recipe

    def short(*arguments, **changes):
        return replace(make(*arguments, **changes), crop=32, most_steps=4, validation_blocks=4, warmup_steps=1)

    monkeypatch.setattr(learning, "make_recipe", short)


def volume(seed=0, shape=SHAPE):
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.standard_normal(shape), axis=0) + rng.standard_normal(shape)
    return (100 + 20 * values).astype(np.float32)


def write(path, values, voxel=(12.0, 12.0, 12.0), origin=(0, 0, 0), stack=False):
    with new_mrc(path) as file:
        file.set_data(values)
        file.set_image_stack() if stack else file.set_volume()
        file.voxel_size = voxel
        file.header.origin.x, file.header.origin.y, file.header.origin.z = origin
    return path


def denoise(*words):
    return call("denoise", *words, "--device", "cpu")


def good(*words):
    result = denoise(*words)
    assert result.exit_code == 0, result.output
    return result


def bad(*words, code=2):
    return ended(denoise(*words), code)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "name"), [(np.float32, "t.mrc"), (np.int16, "t.rec"), (np.uint16, "t.mrc"), (np.int8, "t.mrc")]
)
def test_the_output_is_as_the_input(tmp_path, dtype, name):
    values = volume() + 300 if dtype != np.int8 else (volume() - 100) / 3
    write(tmp_path / name, values.astype(dtype), (12.0, 12.0, 11.0), (3, 4, 5))
    good(tmp_path / name, "--report", tmp_path / "report.png")
    result = read_mrc(tmp_path / f"t_samba{Path(name).suffix}")
    assert result.data.dtype == np.dtype(dtype)
    assert result.data.shape == SHAPE
    assert result.voxel_sizes_angstrom == pytest.approx((11.0, 12.0, 12.0))
    assert result.origin_angstrom == (5, 4, 3)
    assert result.ispg == 1
    # Grey levels and contrast are those of the input, at the ends too: no plane is filled with a constant.
    assert np.corrcoef(result.data.ravel(), values.ravel())[0, 1] > 0.6
    for z in (0, 1, 7, 8):
        assert np.corrcoef(result.data[z].ravel(), values[z].ravel())[0, 1] > 0.2
    record = json.loads((tmp_path / "t_samba.json").read_text())
    assert record["method"]["lmax_inference"] == 4
    assert record["guard"]["coherence_from"] == "neighbouring planes"
    assert (tmp_path / "report.png").stat().st_size > 10_000
    assert (tmp_path / "t_samba.run" / "learning.png").exists()
    assert (tmp_path / "t_samba.run" / "train.csv").exists()
    assert not (tmp_path / f"t_samba{Path(name).suffix}.partial").exists()


@pytest.mark.slow
def test_tiff_files_and_folders_of_them(tmp_path):
    values = volume().astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "t.tif", values, imagej=True, resolution=(1 / 1.2, 1 / 1.2), metadata={"unit": "nm", "axes": "ZYX"}
    )
    good(tmp_path / "t.tif", "--lmax", 2)
    with tifffile.TiffFile(tmp_path / "t_samba.tif") as file:
        single = file.asarray()
        assert file.imagej_metadata["unit"] == "nm"
    assert single.dtype == np.uint16
    assert single.shape == SHAPE
    assert json.loads((tmp_path / "t_samba.json").read_text())["volume"]["voxel_size_angstrom"] == pytest.approx(12.0)
    folder = tmp_path / "planes"
    folder.mkdir()
    for z in range(SHAPE[0]):  # 10 comes after 9, as people count
        tifffile.imwrite(folder / f"p_{z + 3}.tif", values[z], compression="zlib" if z % 2 else None)
    good(folder, "--model", tmp_path / "t_samba.safetensors", "--lmax", 2)
    found = np.stack([tifffile.imread(tmp_path / "planes_samba" / f"p_{z + 3}.tif") for z in range(SHAPE[0])])
    np.testing.assert_array_equal(found, single)


@pytest.mark.slow
def test_an_interrupted_training_is_kept_and_gone_on_with(tmp_path, monkeypatch):
    write(tmp_path / "t.mrc", volume())
    update = training._update

    def interrupted(state, rate):
        update(state, rate)
        if state.step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(training, "_update", interrupted)
    output = bad(tmp_path / "t.mrc", code=130)
    assert "State of step 3 saved" in output  # the step in which Ctrl-C came, and the one that was begun
    assert "--resume" in output
    assert "--resume to go on" in bad(tmp_path / "t.mrc")
    monkeypatch.setattr(training, "_update", update)
    assert "at step 3" in good(tmp_path / "t.mrc", "--resume").output
    assert (tmp_path / "t_samba.mrc").exists()
    # A training that starts from weights goes on only with these.
    start, other = tmp_path / "t_samba.safetensors", (tmp_path / "w.mrc", "-o", tmp_path / "o.mrc", "--seed", 3)
    write(tmp_path / "w.mrc", volume())
    good(*other)
    words = (tmp_path / "t.mrc", "-o", tmp_path / "more.mrc", "--model", start, "--train-minutes", 60)
    monkeypatch.setattr(training, "_update", interrupted)
    bad(*words, code=130)
    monkeypatch.setattr(training, "_update", update)
    kept = start.read_bytes()
    start.write_bytes((tmp_path / "o.safetensors").read_bytes())
    assert "the model that the training starts from is not the one that this run was" in bad(*words, "--resume")
    start.write_bytes(kept)
    assert "at step 3" in good(*words, "--resume").output


@pytest.mark.slow
def test_a_process_that_cannot_record_ends_all_of_them(tmp_path):
    write(tmp_path / "t.mrc", volume())
    (tmp_path / "t_samba.run" / "train.csv" / "in the way").mkdir(parents=True)
    small = ("--size", "small", "--train-minutes", "0.001")
    (first, said), (second, told) = run_both("denoise", tmp_path / "t.mrc", *small, "--overwrite")
    assert (first, second) == (2, 2), (said, told)
    assert "t_samba.run" in said.splitlines()[-1]
    assert "process 0 could not go on" in told.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="threads are told by name under /proc")
def test_processes_that_left_each_other_have_none_of_their_threads():
    """They would outlive the interpreter, and abort it."""
    both = run_two("-c", LEAVING)
    assert [code for code, _ in both] == [0, 0], both


LEAVING = """
import pathlib
import torch
from cryolithe.optimise.distributed import join_processes, leave_processes
def threads():
    return sorted(task.joinpath("comm").read_text() for task in pathlib.Path("/proc/self/task").iterdir())
place = join_processes(torch.device("cpu"), torch.float32)
assert any("gloo" in name for name in threads()), threads()
torch.optim.AdamW(torch.nn.Linear(1, 1).parameters())
leave_processes()
assert not any("gloo" in name for name in threads()), threads()
"""


@pytest.mark.slow
def test_a_training_goes_on_with_its_batch_whatever_memory_is_free_now(tmp_path, monkeypatch):
    """On a GPU the batch is what fits, and other programs come and go."""
    write(tmp_path / "t.mrc", volume())
    make, free, recipes_made = learning.make_recipe, [3], []

    def fitting(*arguments, **changes):
        made = make(*arguments, **changes)
        chosen = made if changes.get("batch") else replace(made, batch=free[0])
        recipes_made.append(chosen)
        return chosen

    monkeypatch.setattr(learning, "make_recipe", fitting)
    update = training._update

    def interrupted(state, rate):
        update(state, rate)
        if state.step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(training, "_update", interrupted)
    bad(tmp_path / "t.mrc", code=130)
    monkeypatch.setattr(training, "_update", update)
    free[0] = 1
    assert "'batch' was 3, now 2" in bad(tmp_path / "t.mrc", "--resume", "--batch", 2)
    assert "3 at a time" in good(tmp_path / "t.mrc", "--resume").output
    assert [recipe.batch for recipe in recipes_made] == [3, 2, 3]


@pytest.mark.slow
def test_a_training_that_is_done_serves_no_other_network(tmp_path):
    path = write(tmp_path / "t.mrc", volume())
    good(path, "--batch", 2)
    for name in ("t_samba.mrc", "t_samba.json"):
        (tmp_path / name).unlink()
    assert "'network.flow.levels' was 2, now 3;" in bad(path, "--resume", "--size", "small")
    assert "'batch' was 2, now 3;" in bad(path, "--resume", "--batch", 3)
    assert "The training is done" in good(path, "--resume", "--lmax", 2).output  # which is that of inference, too
    method = json.loads((tmp_path / "t_samba.json").read_text())["method"]
    assert (method["lmax_training"], method["lmax_inference"]) == (2, 2)


def test_a_volume_of_one_triplet_is_no_training(tmp_path):
    path = write(tmp_path / "t.mrc", volume(shape=(3, 32, 32)))
    assert "has a single triplet of planes to learn from (32 x 32 pixels, within one square)" in bad(path)
    good(write(tmp_path / "u.mrc", volume(shape=(4, 32, 32))))
    good(write(tmp_path / "w.mrc", volume(shape=(3, 32, 40))))
    good(path, "--model", tmp_path / "u_samba.safetensors", "--overwrite")


@pytest.mark.slow
def test_an_interrupted_denoising_goes_on_with_the_same_result(tmp_path, monkeypatch):
    write(tmp_path / "t.mrc", volume())
    good(tmp_path / "t.mrc", "-o", tmp_path / "whole.mrc")
    planes = inference.Inference.planes

    def broken(self, read, start, stop):
        for z, plane in enumerate(planes(self, read, start, stop), start=start):
            if z == 6:
                raise KeyboardInterrupt
            yield plane

    monkeypatch.setattr(inference.Inference, "planes", broken)
    weights = ("--model", tmp_path / "whole.safetensors")
    monkeypatch.setattr(apply, "PLANES_PER_ENTRY", 2)
    bad(tmp_path / "t.mrc", *weights, code=130)
    monkeypatch.setattr(inference.Inference, "planes", planes)
    # A plane that is no longer what was written is made anew.
    tile = tmp_path / "t_samba.mrc.partial" / "tile_0000.mrc"
    spoilt = bytearray(tile.read_bytes())
    spoilt[1024 + 2 * 40 * 36 * 4 + 500] ^= 64
    tile.write_bytes(spoilt)
    assert "Going on" in good(tmp_path / "t.mrc", *weights, "--resume").output
    np.testing.assert_array_equal(read_mrc(tmp_path / "t_samba.mrc").data, read_mrc(tmp_path / "whole.mrc").data)


def test_no_plane_is_kept_of_a_volume_that_has_changed(tmp_path, monkeypatch):
    path = write(tmp_path / "t.mrc", volume())
    good(path, "-o", tmp_path / "whole.mrc")
    planes = inference.Inference.planes

    def touched(self, read, start, stop):
        for z, plane in enumerate(planes(self, read, start, stop), start=start):
            if z == 4:
                os.utime(path, ns=(1, 1))
            yield plane

    weights = ("--model", tmp_path / "whole.safetensors")
    monkeypatch.setattr(apply, "PLANES_PER_ENTRY", 2)
    with monkeypatch.context() as patch:
        patch.setattr(inference.Inference, "planes", touched)
        assert f"{path} changed while it was denoised" in bad(path, *weights)
    assert len((tmp_path / "t_samba.mrc.partial" / "journal.jsonl").read_text().splitlines()) == 1 + 2
    good(path, *weights, "--resume")
    np.testing.assert_array_equal(read_mrc(tmp_path / "t_samba.mrc").data, read_mrc(tmp_path / "whole.mrc").data)


def test_faults_are_said_in_one_line(tmp_path, monkeypatch):
    path = write(tmp_path / "t.mrc", volume())
    assert "does not exist" in bad(tmp_path / "none.mrc")
    assert "--is-volume" in bad(write(tmp_path / "stack.mrc", volume(), stack=True))
    assert "at least 3" in bad(write(tmp_path / "thin.mrc", volume(shape=(2, 32, 32))))
    broken = volume()
    broken[4, 3, 2], broken[5, 1, 1] = np.nan, np.inf
    with pytest.warns(RuntimeWarning):
        write(tmp_path / "nan.mrc", broken)
    assert "planes 5-6" in bad(tmp_path / "nan.mrc")
    assert "constant" in bad(write(tmp_path / "flat.mrc", np.ones(SHAPE, np.float32)))
    assert "expected a name ending" in bad(path, "--report", tmp_path / "report.txt")
    assert "does not exist" in bad(path, "-o", tmp_path / "nowhere" / "o.mrc")
    assert "uncompressed" in bad(path, "-o", tmp_path / "o.mrc.gz")
    assert "belong together" in bad(path, "--half1", path)
    assert "input" in bad(path, "-o", path)
    (tmp_path / "t_samba.mrc").write_bytes(b"something of value")
    assert "--overwrite" in bad(path)
    assert (tmp_path / "t_samba.mrc").read_bytes() == b"something of value"
    colours = np.zeros((8, 9, 3), np.uint8)
    tifffile.imwrite(tmp_path / "colour.tif", colours, photometric="rgb")
    assert "grey" in bad(tmp_path / "colour.tif")
    (tmp_path / "empty").mkdir()
    assert "no .tif" in bad(tmp_path / "empty")

    class Full:
        free = 1000

    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: Full)
    assert "make room" in bad(path, "-o", tmp_path / "o.mrc")


@pytest.mark.slow
def test_what_can_be_mended_is_mended_and_said(tmp_path):
    spoilt = volume(shape=(11, 40, 36))
    spoilt[0], spoilt[10] = 7, 7
    spoilt[5, 3, 2], spoilt[6, 8, 8] = np.nan, 1e7
    with pytest.warns(RuntimeWarning):
        write(tmp_path / "t.mrc", spoilt, stack=True)
    output = good(tmp_path / "t.mrc", "--fix-nonfinite", "--is-volume", "--lmax", 9).output
    assert "Planes 1, 11 of 11 are constant" in output
    assert "reduced to 4" in output
    found = read_mrc(tmp_path / "t_samba.mrc").data
    assert (found[[0, 10]] == 7).all()
    assert np.isfinite(found).all()
    assert found.max() < 5e3  # the hot voxel is gone ...
    clean = np.delete(spoilt[6].ravel(), 8 * 36 + 8)
    assert np.corrcoef(np.delete(found[6].ravel(), 8 * 36 + 8), clean)[0, 1] > 0.4  # ... and did not flatten the rest


@pytest.mark.slow
def test_weights_of_another_volume_are_used_with_a_warning(tmp_path):
    write(tmp_path / "a.mrc", volume())
    write(tmp_path / "b.mrc", volume(1))
    good(tmp_path / "a.mrc")
    weights = tmp_path / "a_samba.safetensors"
    output = good(tmp_path / "b.mrc", "--model", weights, "--augment").output
    assert "another volume (a.mrc)" in output
    assert not (tmp_path / "b_samba.safetensors").exists()
    assert "another volume" not in good(tmp_path / "a.mrc", "--model", weights, "-o", tmp_path / "again.mrc").output
    np.testing.assert_array_equal(read_mrc(tmp_path / "again.mrc").data, read_mrc(tmp_path / "a_samba.mrc").data)


@pytest.mark.slow
def test_a_sweep_draws_several_lmax_and_no_volume(tmp_path):
    write(tmp_path / "t.mrc", volume())
    output = good(tmp_path / "t.mrc", "--lmax-sweep", tmp_path / "panel.png").output
    assert (tmp_path / "panel.png").stat().st_size > 10_000
    assert "--model" in output
    assert not (tmp_path / "t_samba.mrc").exists()
    assert (tmp_path / "t_samba.safetensors").exists()


@pytest.mark.slow
def test_halves_are_compared_by_the_guard(tmp_path):
    for name, seed in (("t", 0), ("a", 0), ("b", 1)):
        noise = np.random.default_rng(10 + seed).standard_normal(SHAPE)
        write(tmp_path / f"{name}.mrc", (volume() + 30 * noise).astype(np.float32))
    good(tmp_path / "t.mrc", "--half1", tmp_path / "a.mrc", "--half2", tmp_path / "b.mrc", "--lmax", 2)
    guard = json.loads((tmp_path / "t_samba.json").read_text())["guard"]
    assert guard["coherence_from"] == "even and odd halves"
    assert len(guard["fsc_halves"]) == 2


@pytest.mark.slow
def test_reconstruct_denoises_too_and_keeps_both_volumes(tmp_path):
    stack, angles = write_series(tmp_path)
    words = ["reconstruct", str(stack), str(angles), "--method", "fbp", "--thickness", "12", "--device", "cpu"]
    result = call(*words, "--denoise", "samba", "--denoise-minutes", "1")
    assert result.exit_code == 0, result.output
    plain, denoised = (read_mrc(tmp_path / f"ts_rec{suffix}.mrc") for suffix in ("", "_samba"))
    assert plain.data.shape == denoised.data.shape
    assert plain.voxel_size_angstrom == denoised.voxel_size_angstrom
    # A denoising that was interrupted is gone on with, without reconstructing anew.
    for ending in ("mrc", "json"):
        (tmp_path / f"ts_rec_samba.{ending}").unlink()
    result = call(*words, "--denoise", "samba", "--denoise-minutes", "1")
    assert result.exit_code == 0, result.output
    assert "already done" in result.output
    assert "The training is done" in result.output
    result = call(*words, "--denoise-minutes", "1")
    assert result.exit_code == 2


@pytest.mark.slow
def test_a_volume_of_a_network_is_not_denoised_without_a_word(tmp_path):
    for label, warned in (("CryoLithe 0.1.0 model fast da7d8ebbf5c1 2026-11-21", True), ("CryoLithe 0.1.0 fbp", False)):
        write_volume(tmp_path / "t.mrc", Volume(volume(), 12.0), label=label, overwrite=True)
        output = good(tmp_path / "t.mrc", "--overwrite").output
        assert ("was made by a network" in output) == warned
        told = json.loads((tmp_path / "t_samba.json").read_text())["warnings"]
        assert any("was made by a network" in text for text in told) == warned
        assert output.count("Warning: ") == len(told)
        assert f"{len(told)} warning" in output or not told


@pytest.mark.slow
def test_a_denoiser_that_has_hardly_trained_says_so(tmp_path):
    write(tmp_path / "t.mrc", volume())
    output = " ".join(good(tmp_path / "t.mrc", "--lmax", 2, "--report", tmp_path / "t.png").output.split())
    said = next(re.finditer(r"Warning: hardly trained, only 4 steps \(.*?\): this is what an untrained .*?GPU", output))
    assert re.search(r"loss of what is held back [\d.]+ before, [\d.]+ at best \([+-]\d+%\)", said[0])
    assert re.search(r"--train-minutes \d+ or more", said[0])
    assert re.search(r"Trained 4 steps in .* min; loss of what is held back", output)
    assert "see above" in output.split("denoised in")[1]
    record = json.loads((tmp_path / "t_samba.json").read_text())
    assert record["guard"]["warnings"][0].startswith("hardly trained")
    # Weights keep it: whoever uses them later is told as well.
    again = good(tmp_path / "t.mrc", "--lmax", 2, "--model", tmp_path / "t_samba.safetensors", "-o", tmp_path / "u.mrc")
    assert "hardly trained, only 4 steps" in again.output


@pytest.mark.parametrize(
    ("steps", "losses", "fragment"),
    [
        (5000, (1.0, 0.5), None),
        (5000, (1.0, 0.99), "hardly anything was learned"),
        (99, (1.0, 0.5), "only 99 steps"),
        (100, (float("inf"), 0.5), None),
    ],
)
def test_what_is_hardly_trained(steps, losses, fragment):
    class Some(learning.SambaTraining):
        def __init__(self):
            self.state = SimpleNamespace(step=steps, seconds=1.0 * steps, first_loss=losses[0], best_loss=losses[1])

    said = Some().hardly_trained()
    assert (said is None) == (fragment is None)
    if fragment:
        assert fragment in said
        assert "train" in said


@pytest.mark.slow
def test_a_sweep_says_beforehand_that_it_trains_and_shows_sections_along_z(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sweep, "plot_sweep", lambda *arguments: drawn.append(arguments))
    write(tmp_path / "t.mrc", volume())
    output = good(tmp_path / "t.mrc", "--lmax-sweep", tmp_path / "panel.png", "--train-minutes", 3).output
    plan, rest = output.split("Trained", 1)
    assert "training 3 min on cpu" in plan
    assert "the network trains first, then several Lmax are drawn" in plan
    ((_, panels, _, _, sections, _),) = drawn
    assert len(sections) == len(panels)
    assert {section.shape for section in sections} == {(SHAPE[0], panels[0][1].shape[1])}
    assert "hardly trained" in rest


@pytest.mark.slow
def test_a_training_that_goes_on_with_another_precision_tells_it(tmp_path, monkeypatch):
    write(tmp_path / "t.mrc", volume())
    update = training._update

    def interrupted(state, rate):
        if state.step == 1:
            signal.raise_signal(signal.SIGINT)
        return update(state, rate)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_update", interrupted)
        bad(tmp_path / "t.mrc", "--precision", "fp32", code=130)
    told = " ".join(good(tmp_path / "t.mrc", "--resume", "--precision", "bf16").output.split())
    assert "the training goes on from step 3 with --precision bf16 in place of --precision fp32; its numbers" in told
    card = model.load_weights(tmp_path / "t_samba.safetensors").card
    assert (card["precision"], card["went_on"]) == ("fp32", [{"step": 3, "precision": "bf16"}])
    again = good(tmp_path / "t.mrc", "--resume", "--precision", "fp32", "--overwrite").output
    assert "goes on from step" not in again  # nothing is left to be computed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zarr", "planes"])
def test_a_folder_whose_record_cannot_be_written_is_taken_away(kind, tmp_path, monkeypatch):
    values = volume()
    if kind == "zarr":
        given, made = tmp_path / "v.zarr", tmp_path / "v_samba.zarr"
        write_ome_zarr(given, values, 10.0, "v")
    else:
        given, made = tmp_path / "planes", tmp_path / "planes_samba"
        given.mkdir()
        for z, plane in enumerate(values):
            tifffile.imwrite(given / f"p_{z}.tif", plane)

    def full(*_):
        raise OutputError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("cryolithe.denoising.run._write_record", full)
        assert "No space left on device" in bad(given, "--lmax", 2)
    assert not made.exists()
    good(given, "--lmax", 2, "--model", tmp_path / f"{made.stem}.safetensors")
    assert made.is_dir()
