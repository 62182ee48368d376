"""What holds for every denoiser, also for one that is not there yet."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from half_volumes import halves, write

from cryolithe.denoising.job import Item, Job, beside
from cryolithe.denoising.method import Applied, LearningState, Method, Training
from cryolithe.denoising.methods import METHODS, own_options, owners
from cryolithe.denoising.output import choose_target, default_output, write_result
from cryolithe.denoising.run import denoise
from cryolithe.errors import OutputError
from cryolithe.files.hashing import file_sha256
from cryolithe.formats import read_mrc
from cryolithe.formats.volumes.volume_file import VolumeFile, open_volume_file
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Task, optimise
from cryolithe.optimise.state import new_scaler, read_state, restore, write_state
from cryolithe.optimise.step import gradient, update
from cryolithe.optimise.tensors import read_tensors, write_tensors
from cryolithe.work.watcher import Silent

PLACE = Place(torch.device("cpu"))
SHAPE = (16, 24, 20)


@pytest.mark.parametrize("name", METHODS)
def test_an_entry_tells_what_its_method_has(name):
    entry = METHODS[name]
    method = entry.load()
    assert (entry.name, method.name) == (name, name)
    job = method.job.__annotations__["return"]
    fields = {f.name for f in dataclasses.fields(__import__(type(method).__module__, fromlist=[job]).__dict__[job])}
    common = {f.name for f in dataclasses.fields(Job)}
    assert entry.option_names <= fields
    assert not entry.option_names & common  # those are options of all


def test_options_of_one_name_are_the_same():
    for name, option in own_options().items():
        for owner in owners(name):
            assert option in METHODS[owner].options


@dataclass(frozen=True)
class _View:
    """A volume as it is."""

    item: Item
    volume: VolumeFile
    warnings: tuple[str, ...] = ()

    @property
    def target(self):
        return choose_target(self.volume, self.item.output)

    @property
    def voxel_size_angstrom(self):
        return self.volume.voxel_size_angstrom

    def record(self):
        return {"seen": True}

    def values(self):
        return np.stack([self.volume.read(z) for z in range(self.volume.shape[0])]).astype(np.float32)


@dataclass(frozen=True)
class _Factor:
    """Weights of one number."""

    factor: float
    card: dict[str, Any]
    sha256: str


class _Fit(Training):
    """A number that makes volumes twice as large."""

    columns = ("loss",)
    most_steps = 6

    def __init__(self, views):
        self.fingerprint = " ".join(file_sha256(v.volume.path) for v in views)
        self._data = torch.from_numpy(np.concatenate([v.values().ravel() for v in views])[:, None])

    def plan(self):
        return "Plan: a number"

    def begin(self):
        network, best = (torch.nn.Linear(1, 1, bias=False) for _ in range(2))
        torch.nn.init.ones_(network.weight)
        optimiser = torch.optim.Adam(network.parameters())
        self.state = LearningState(network=network, best=best, optimiser=optimiser, scaler=new_scaler(PLACE))
        return self.state

    def run(self, hooks, on_validation):
        def told(state, progress):
            state.best.load_state_dict(state.network.state_dict())
            state.finished = state.step >= self.most_steps
            on_validation(state, progress.loss)
            return hooks.on_step(state, progress)

        def loss(state):
            return ((state.network(self._data) - 2 * self._data) ** 2).mean()

        task = Task(
            steps=self.most_steps,
            batches=(n for n in range(self.state.step, self.most_steps)),
            learning_rate=lambda step, share: 0.1,
            gradient=lambda state, _: gradient(state, [loss(state)]),
            update=lambda state, rate: update(state, rate, 1.0),
            remedy="",
        )
        optimise(task, PLACE, dataclasses.replace(hooks, on_step=told), self.state)

    def save_state(self, path):
        write_state(path, self.state, "fit", {"learned_from": self.fingerprint})

    def load_state(self, path):
        restore(path, self.state, *read_state(path, "fit"))

    def row(self, found):
        return (found,)

    def told(self, found):
        return "loss", found, 3

    def save_weights(self, path):
        write_tensors(path, self.state.best.state_dict(), "factor", {"card": {"seconds": 1}})


class _Scaling(Method):
    """The least that a denoiser has to do."""

    name, state_format, advice, scored = "scaling", "fit", "", False

    def job(self, given, choices):
        items = tuple(Item({"volume": v}, default_output(v, "_scaling")) for v in given.volumes)
        return _Job(items=items, learned=beside(items[0].output), **choices)

    def look(self, job, watcher):
        return [_View(item, open_volume_file(item.inputs["volume"])) for item in job.items]

    def disk_bytes(self, job, view):
        return 0

    def training(self, job, views, place):
        return _Fit(views)

    def load(self, path):
        tensors, values = read_tensors(path, "factor", "a factor")
        return _Factor(float(tensors["weight"][0, 0]), values["card"], file_sha256(path))

    def doubts(self, job, views, weights):
        return []

    def apply(self, job, view, weights, place, watcher):
        values = view.values() * weights.factor
        made = write_result(view.target, view.volume, lambda z: values[z], "scaled", job.overwrite)
        return Applied(made, (view.values(), values), {"factor": weights.factor})

    def halves(self, job, view, weights, place, watcher):
        return None


class _Job(Job):
    choices = {"of": "all"}  # noqa: RUF012

    def limit_seconds(self, device):
        return 1000.0


def volumes(folder: Path) -> tuple[Path, ...]:
    return tuple(write(folder / f"{n}.mrc", v) for n, v in zip("ab", halves(SHAPE), strict=True))


def given(paths):
    from cryolithe.denoising.job import Given

    return Given(paths)


def test_a_new_denoiser_has_training_records_guard_and_resume_for_nothing(tmp_path):
    method, paths = _Scaling(), volumes(tmp_path)
    done = denoise(method, method.job(given(paths), {}), PLACE, Silent())
    assert [one.output.name for one in done] == ["a_scaling.mrc", "b_scaling.mrc"]
    record = json.loads((tmp_path / "b_scaling.json").read_text())
    factor = record["method"]["factor"]
    assert factor > 1.3  # one network, for both
    np.testing.assert_allclose(
        read_mrc(tmp_path / "a_scaling.mrc").data, read_mrc(paths[0]).data * np.float32(factor), rtol=1e-5
    )
    assert record["seen"]
    assert record["guard"]["warnings"]  # twice the energy
    assert (tmp_path / "a_scaling.run" / "train.csv").read_text().count("\n") > 1
    with pytest.raises(OutputError, match="--overwrite"):
        denoise(method, method.job(given(paths), {}), PLACE, Silent())


def test_what_is_done_is_not_done_again_and_what_is_of_something_else_is_not_taken_for_done(tmp_path):
    method, paths = _Scaling(), volumes(tmp_path)
    denoise(method, method.job(given(paths), {}), PLACE, Silent())
    (tmp_path / "b_scaling.mrc").unlink()
    (tmp_path / "b_scaling.json").unlink()
    first = (tmp_path / "a_scaling.mrc").stat()
    again = denoise(method, method.job(given(paths), {"resume": True}), PLACE, Silent())
    assert [one.seconds is None for one in again] == [True, False]
    assert (tmp_path / "a_scaling.mrc").stat().st_mtime_ns == first.st_mtime_ns
    write(paths[0], np.asarray(read_mrc(paths[0]).data) + 1)
    with pytest.raises(OutputError, match="exists"):
        denoise(method, method.job(given(paths), {"resume": True}), PLACE, Silent())
