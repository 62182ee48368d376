"""Functions of the library give the same whatever a caller set in torch, and leave him all as it was."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from patience import PATIENCE_S
from tiny_series import write_model

import cryolithe


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """Every function of the library, with something to do: each gives arrays."""
    model = write_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")
    series = cryolithe.simulate(shape=(16, 32, 32), seed=1)
    given = series.tilts, series.angles_deg, 10
    rng = np.random.default_rng(0)
    halves = [(series.truth.data + rng.standard_normal(series.truth.shape)).astype(np.float32) for _ in range(2)]
    learned = {"method": "n2n", "halves": halves, "train_minutes": 1e-4, "start": "fresh"}
    volume = cryolithe.fbp(*given)

    def scored():
        found = cryolithe.evaluate(volume, reference=series.truth, tilts=given[0], angles_deg=given[1])
        return [found.reference.curves.mean["total"], found.reprojection.mean_correlation]

    return {
        "fbp": lambda: cryolithe.fbp(*given),
        "sirt": lambda: cryolithe.sirt(*given, iterations=2),
        "reconstruct": lambda: cryolithe.reconstruct(*given, model=model),
        "a bundled model": lambda: cryolithe.reconstruct(*given, model="draft"),
        "denoise": lambda: cryolithe.denoise(volume, method="n2n"),
        "denoise, with a training": lambda: cryolithe.denoise(None, 10, **learned),
        "denoise, samba": lambda: cryolithe.denoise(volume, train_minutes=1e-4, size="small", batch=1),
        "fsc": lambda: cryolithe.fsc(volume, series.truth).total,
        "evaluate": scored,
        "simulate": lambda: cryolithe.simulate(shape=(16, 32, 32), seed=2).tilts,
    }


@contextmanager
def double():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def coarse_products():
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def device_of_the_process():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS = {
    "default dtype": double,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": device_of_the_process,
    "a device as a context": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "precision of products": coarse_products,
}


def state():
    """What a caller would miss."""
    generator = np.random.get_state()  # noqa: NPY002 - the one that a caller may use
    return (
        torch.get_default_dtype(),
        torch.empty(0).device,
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        torch.random.get_rng_state().numpy().tobytes(),
        generator[1].tobytes(),
        generator[2],
        random.getstate(),
    )


def values(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cryolithe.CryoLitheWarning)
        return np.asarray(function())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fbp", "sirt", "reconstruct", "denoise", "fsc", "evaluate", "simulate"])
def test_what_a_caller_set_in_torch_changes_nothing(functions, name):
    expected = values(functions[name])
    for called, setting in SETTINGS.items():
        with setting():
            before = state()
            found = values(functions[name])
            assert state() == before, called
        assert found.tobytes() == expected.tobytes(), called


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a bundled model", "denoise, with a training", "denoise, samba"])
def test_what_draws_numbers_moves_none_of_the_callers(functions, name):
    before = state()
    values(functions[name])
    assert state() == before


@pytest.mark.slow
@pytest.mark.parametrize("called", SETTINGS)
def test_a_network_is_trained_whatever_a_caller_set_in_torch(functions, called):
    with SETTINGS[called]():
        before = state()
        assert np.isfinite(values(functions["denoise, with a training"])).all()
        assert state() == before


def test_a_callers_settings_are_as_before_after_an_error():
    for called, setting in SETTINGS.items():
        with setting():
            before = state()
            with pytest.raises(cryolithe.CryoLitheError):
                cryolithe.fbp(np.zeros((3, 16, 16), np.float32), [0.0, 10.0])
            assert state() == before, called


FORKED = """
import multiprocessing, sys, warnings
import numpy as np, torch, cryolithe

def made(_=None):
    warnings.simplefilter("ignore")
    return cryolithe.fbp(images, angles, 10, thickness=32).data

images = np.random.default_rng(0).standard_normal((21, 64, 64)).astype(np.float32)
angles = np.arange(-60, 61, 6)
torch.set_num_threads(2)
first = made()
with multiprocessing.get_context("fork").Pool(1) as pool:
    (again,) = pool.map_async(made, [0]).get(timeout=float(sys.argv[1]))
    assert np.allclose(again, first, atol=1e-4)  # threads add in another order
    assert pool.apply(torch.get_num_threads) == 2
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")
def test_a_forked_process_does_not_wait_for_threads(tmp_path):
    script = tmp_path / "forked.py"
    script.write_text(FORKED)
    done = subprocess.run([sys.executable, script, str(PATIENCE_S)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_warning_names_the_line_that_called():
    volume = np.random.default_rng(0).standard_normal((16, 16, 16)).astype(np.float32)
    tilts = np.random.default_rng(0).standard_normal((4, 16, 16)).astype(np.float32)
    for function in (lambda: cryolithe.fsc(volume, volume), lambda: cryolithe.fbp(tilts, [-40, -35, 30, 40], 10)):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            function()
        assert heard
        assert {one.filename for one in heard} == {__file__}
