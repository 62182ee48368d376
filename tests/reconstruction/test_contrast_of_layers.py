"""Layers, lattices and their negatives look alike: neither is called what a network makes of it, whatever it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_series import made, write_model, write_series

from cryolithe.geometry import TiltGeometry
from cryolithe.network.checkpoint import load_model
from cryolithe.projector import make_projector
from cryolithe.reconstruction.evidence.asymmetry import measure_evidence
from cryolithe.reconstruction.evidence.polarity import Evidence, average, decide, polarity_of_record, settle
from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
from cryolithe.reconstruction.setup import looking
from cryolithe.tilts import TiltSeries

TILTS = tuple(range(-60, 61, 3))
SIDE, DEPTH = 64, 32
OPPOSITE = {"dark": "bright", "bright": "dark"}
# Period and shift in voxels, inclination and azimuth in degrees; a network explains much more of their negatives.
MISTAKEN = [(9.9, 6.7, 60, 0), (9.3, 0.1, 20, 90)]


def images_of(density, snr_db=0.0):
    """Images of a volume (z, y, x), which is wider than they by its depth at both sides, dense = bright."""
    depth, rows, wide = density.shape
    geometry = TiltGeometry(tuple(map(float, TILTS)), (rows, wide))
    images = make_projector(geometry, (depth, wide)).forward(torch.from_numpy(density.astype(np.float32))).numpy()
    images = images[:, :, depth:-depth]
    noise = np.random.default_rng(0).standard_normal(images.shape)
    return (images + images.std() * 10 ** (-snr_db / 20) * noise).astype(np.float32)


def axes():
    return np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (DEPTH, SIDE, SIDE + 2 * DEPTH)), indexing="ij")


def stacked_bilayers(period_px, shift_px, inclination_deg, azimuth_deg):
    z, y, x = axes()
    inclination, azimuth = np.deg2rad((inclination_deg, azimuth_deg))
    across = np.sin(inclination) * (x * np.cos(azimuth) + y * np.sin(azimuth)) + np.cos(inclination) * z + shift_px
    away = (across + period_px / 2) % period_px - period_px / 2
    leaflets = sum(np.exp(-((away - place) ** 2) / (2 * 0.9**2)) for place in (-2, 2))
    return (np.abs(z) < DEPTH / 2 - 6) * leaflets


def bodies(seed, number):
    """Balls anywhere."""
    z, y, x = axes()
    rng = np.random.default_rng(seed)
    density = np.zeros(z.shape)
    for _ in range(number):
        place = rng.uniform(-0.5, 0.5, 3) * (DEPTH - 12, SIDE, SIDE + 2 * DEPTH)
        square = sum((axis - at) ** 2 for axis, at in zip((z, y, x), place, strict=True))
        density += np.exp(-square / (2 * rng.uniform(1.2, 4.0) ** 2))
    return density


def lattice(period_px):
    z, y, x = axes()
    return np.prod([1 + np.cos(2 * np.pi * (axis + 0.2 * x) / period_px) for axis in (z, y, x)], axis=0) ** 3


def evidence_of(images, network=None):
    geometry = TiltGeometry(tuple(map(float, TILTS)), images.shape[1:])
    stack = prepare_stack(TiltSeries(images, geometry), Preparation(), None)
    with torch.inference_mode():
        return measure_evidence(stack, DEPTH, network)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("true", ["dark", "bright"])
@pytest.mark.parametrize("layers", MISTAKEN, ids=str)
def test_layers_that_a_network_mistakes_are_not_called_by_it(layers, true, model, tmp_path):
    images = images_of(stacked_bilayers(*layers))
    stack, angles = write_series(tmp_path, images if true == "bright" else -images, TILTS)
    flags = ("--thickness", DEPTH, "--model", model, "--precision", "fp32", "--overwrite")
    made(stack, angles, *flags)
    record = json.loads((tmp_path / "ts_rec.json").read_text())
    assert (record["polarity"]["source"], record["polarity"]["found"]) == ("assumed", None)
    told = polarity_of_record(record["polarity"]).evidence
    wrong = 1 if true == "dark" else -1
    assert told.fair
    assert wrong * told.asymmetry > 0
    assert wrong * told.share > 0.2
    (warning,) = [text for text in record["warnings"] if text.startswith("contrast: ")]
    assert "tells little of layers or a lattice" in warning
    assert "contrast:" not in made(stack, angles, *flags, "--contrast", true).stderr


@pytest.mark.slow
@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
@pytest.mark.parametrize(
    ("density", "repeats"),
    [
        (stacked_bilayers(12.0, 3.0, 90, 20), True),
        (stacked_bilayers(16.0, 0.0, 45, 70), True),
        (lattice(9.0), True),
        (bodies(0, 1), False),
        (bodies(1, 8), False),
        (bodies(2, 300), False),
    ],
    ids=["upright", "inclined", "lattice", "body", "bodies", "crowd"],
)
def test_waves_tell_order_whatever_the_noise_and_the_sign(density, repeats, snr_db):
    images = images_of(density, snr_db)
    evidence, inverted = evidence_of(images), evidence_of(-images)
    assert evidence.waves is not None
    assert evidence.repeats == repeats
    assert (inverted.waves, inverted.most_waves) == (evidence.waves, evidence.most_waves)


@pytest.mark.slow
def test_the_judge_is_asked_as_before():
    """Of bodies a network's share counts as ever: weak tails are found with it."""
    images = images_of(bodies(2, 300), -5.0)
    evidence = evidence_of(images, load_model(looking.JUDGE).network)
    assert decide(evidence) == "bright"


ORDERED = {"waves": 40, "most_waves": 10_000}


@pytest.mark.parametrize(
    ("evidence", "found", "doubt"),
    [
        (Evidence(0.45, 3.0, 0.78, 0.59, **ORDERED), None, ""),  # short of chance without the network
        (Evidence(0.45, 3.0, 0.78, 0.59, 400, 10_000), "bright", "so short a tail"),
        (Evidence(0.45, 3.0, 0.78, 0.59, 40, 600), "bright", "so short a tail"),  # a small field has few of all
        (Evidence(0.22, 3.8, 0.32, 0.63, **ORDERED), None, ""),  # the network against the tail
        (Evidence(0.3, 4.5, 0.75, 0.52, **ORDERED), None, ""),  # few waves have their own phases
        (Evidence(0.8, 12.0, 0.8, 0.7, **ORDERED), "bright", "layers and lattices"),
        (Evidence(0.8, 12.0, 0.8, 0.5, 400, 10_000), "bright", ""),
        (Evidence(0.4, 6.0, 0.6, 0.8, **ORDERED), None, ""),  # it still raises doubts
    ],
)
def test_what_a_network_explains_of_layers_proves_nothing(evidence, found, doubt):
    assert decide(evidence) == found
    if found is None:
        return
    polarity = settle("auto", (), evidence)
    assert (f"not sure: {doubt}" in polarity.line) if doubt else ("not sure" not in polarity.line)
    (warning,) = settle(OPPOSITE[found], (), evidence).warnings
    assert (f"look rather {found}" in warning) == bool(doubt)
    assert (f"give --contrast {found}" in warning) == (not doubt)


def test_waves_are_kept_with_the_evidence():
    seen = Evidence(0.45, 3.0, 0.78, 0.59, **ORDERED)
    assert average([seen, seen]) == seen
    record = settle("auto", (), seen).record()
    assert polarity_of_record(record).evidence == seen
    del record["waves"], record["most_waves"]  # as earlier versions wrote it
    assert polarity_of_record(record).evidence.waves is None
