"""What is known about a series: gains that are 1 where nothing is, and never break a law of the network."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import safetensors
import torch
import yaml
from command import good
from test_train_columns import awake_network, drawn_run, loss_and_gradients
from test_train_run import small_config
from tiny_series import ANGLES

from cryolithe.errors import ModelError, SettingsError
from cryolithe.formats.pairs import Pair
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.known import CTF_STATES, FACTS, NOTHING, Known
from cryolithe.network import Head, InputWindow, RowSetConfig, build_network, plane_values
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.network.config import SliceSetConfig, config_from_dict, config_to_dict
from cryolithe.network.knowing import encode_known
from cryolithe.optimise.distributed import Place
from cryolithe.reconstruction.slabwise.methods import Compute, NetworkMethod, network_rows
from cryolithe.sampling import all_windows, point_columns, visible
from cryolithe.training.columns import gather_columns
from cryolithe.training.dataset import draw_run, gather, make_series, simulate_training_set
from cryolithe.training.knowing import draw_facts, known_of_pair
from cryolithe.training.loop import train
from cryolithe.training.pooling import available
from cryolithe.training.sources import FixedSource
from cryolithe.training.starting import grown_from, knowing_from
from cryolithe.training.validation import validation_set

ALL = tuple(FACTS)
PLAIN = RowSetConfig(
    InputWindow(5, context_taps=3), Head(1), 5, channels=8, row_hidden=6, row_features=4, combiner_width=6,
    combiner_layers=2,
)  # fmt: skip
SIZES = {
    "plain": PLAIN,
    "voxels": dataclasses.replace(PLAIN, head=Head(0), weigh_spacing=True),
    "trunk": dataclasses.replace(PLAIN, trunk_units=2),
}
THETA = torch.deg2rad(torch.tensor(ANGLES, dtype=torch.float32))


def knowing(config, facts=ALL):
    return dataclasses.replace(config, input=dataclasses.replace(config.input, known=facts))


def fresh(config, seed=1):
    torch.manual_seed(seed)
    return build_network(config)


def some(rng=None):
    """A series of which everything is known."""
    rng = rng or np.random.default_rng(3)
    return Known(
        ctf_state=str(rng.choice(CTF_STATES)),
        defocus_um=float(rng.uniform(-1, 8)),
        doses=tuple(float(dose) for dose in rng.uniform(0, 200, len(ANGLES))),
        thickness_angstrom=float(rng.uniform(200, 6000)),
        voxel_size_angstrom=float(rng.uniform(1, 30)),
    )


def volume(network, rows, known=NOTHING, angles=ANGLES):
    """A network's volume of a tiny series whose rows come with enough of a halo."""
    shape = (8, rows.shape[1], rows.shape[2])
    method = NetworkMethod(network, TiltGeometry(angles, shape[1:]), VolumeGrid(shape), known=known)
    halo = torch.nn.functional.pad(rows, (0, 0, method.halo_px, method.halo_px))
    return method(halo)


def some_rows(seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((len(ANGLES), 8, 20)).astype(np.float32))


@pytest.mark.parametrize("name", SIZES)
def test_gains_keep_the_scale_and_mirror_with_the_images(name):
    network, rows, known = awake_network(knowing(SIZES[name])).eval(), some_rows(), some()
    made = volume(network, rows, known)
    scale = float(made.abs().max())
    torch.testing.assert_close(volume(network, 7.5 * rows, known), 7.5 * made, rtol=1e-4, atol=1e-4 * scale)
    assert (made - volume(network, rows)).abs().max() > 1e-3 * scale
    # Images in another order, each with its dose, are the same series.
    order = np.random.default_rng(1).permutation(len(ANGLES))
    turned = volume(network, rows[order], known.of_images(order), tuple(np.array(ANGLES)[order].tolist()))
    torch.testing.assert_close(turned, made, rtol=1e-4, atol=1e-5 * scale)


def test_facts_do_not_change_when_a_series_is_mirrored():
    known = some()
    assert torch.equal(encode_known(known, ALL, THETA), encode_known(known, ALL, -THETA))


@pytest.mark.parametrize("name", SIZES)
def test_the_fast_ways_agree_with_the_definition(name):
    """Windows and columns of a training, and the engine that makes volumes."""
    config = knowing(SIZES[name])
    network = awake_network(config)
    run = drawn_run(config, tilts=len(ANGLES))
    run = dataclasses.replace(run, facts=encode_known(some(), ALL, run.angles_rad))
    told, gradient = loss_and_gradients(network, [gather(run, config, torch.device("cpu"))])
    silent = dataclasses.replace(run, facts=torch.zeros_like(run.facts))
    untold, _ = loss_and_gradients(network, [gather(silent, config, torch.device("cpu"))])
    assert told != untold
    assert all(gradient[leaf].abs().sum() > 0 for leaf in gradient if leaf.startswith("known."))
    if available():
        again, other = loss_and_gradients(network, [gather_columns(run, config)])
        torch.testing.assert_close(again, told, rtol=1e-4, atol=0)
        for leaf, wanted in gradient.items():
            torch.testing.assert_close(other[leaf], wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", SIZES)
def test_the_engine_agrees_with_the_definition(name):
    config = knowing(SIZES[name])
    network, rows = awake_network(config).double().eval(), some_rows()
    shape = (8, rows.shape[1], rows.shape[2])
    geometry, grid = TiltGeometry(ANGLES, shape[1:]), VolumeGrid(shape)
    method = NetworkMethod(network, geometry, grid, Compute(precision=torch.float64), known=some())
    halo = torch.nn.functional.pad(rows, (0, 0, method.halo_px, method.halo_px))
    angles = torch.from_numpy(geometry.angles_rad)
    facts = encode_known(some(), ALL, angles)
    z, x = method.points.z_px, method.points.x_px
    columns = point_columns(geometry, np.repeat(z, len(x)), np.tile(x, len(z)))
    windows = all_windows([r.double() for r in network_rows(halo, config.input)], columns, config.input.windows)
    context = network.tilt_context(angles, facts)
    with torch.no_grad():
        values = plane_values(network, windows, visible(columns, shape[2]), context, (len(z), len(x)), facts.double())
    values = values.view(len(z), len(x), *values.shape[1:]).transpose(1, 2)
    wanted = method.sampling.volume(values, 0, shape[1])
    torch.testing.assert_close(method(halo), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", SIZES)
def test_a_network_that_starts_from_one_without_facts_begins_with_its_outputs(name):
    donor, rows = awake_network(SIZES[name]).eval(), some_rows()
    begun = knowing_from(donor, fresh(knowing(SIZES[name]), 2)).eval()
    wanted = volume(donor, rows)
    rng = np.random.default_rng(0)
    for known in (NOTHING, some(rng), some(rng), Known(voxel_size_angstrom=1e-3), Known(ctf_state="wiener")):
        assert torch.equal(volume(begun, rows, known), wanted)
    grown = grown_from(donor, fresh(knowing(dataclasses.replace(SIZES[name], channels=8, row_hidden=9))), "donor")
    torch.testing.assert_close(volume(grown.eval(), rows, some()), wanted)


def test_nothing_known_is_the_network_without_facts_for_ever():
    network, rows = awake_network(knowing(PLAIN)).eval(), some_rows()
    bare = fresh(PLAIN)
    bare.load_state_dict({name: leaf for name, leaf in network.state_dict().items() if not name.startswith("known.")})
    assert torch.equal(volume(network, rows, NOTHING), volume(bare.eval(), rows))


def test_any_fact_may_be_unknown():
    network, rows, known = awake_network(knowing(PLAIN)).eval(), some_rows(), some()
    found = []
    for count in range(len(ALL) + 1):
        for left_out in itertools.combinations(ALL, count):
            made = volume(network, rows, known.without(left_out))
            assert torch.isfinite(made).all()
            found.append(made)
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(found, 2))


@pytest.mark.parametrize(
    "known",
    [
        Known(defocus_um=-1e9, thickness_angstrom=1e-9, voxel_size_angstrom=1e9, doses=(1e9,) * len(ANGLES)),
        Known(defocus_um=0.0, thickness_angstrom=1e12, voxel_size_angstrom=1e-9, doses=(0.0,) * len(ANGLES)),
    ],
)
def test_absurd_facts_have_bounded_gains(known):
    network, rows = awake_network(knowing(PLAIN)).eval(), some_rows()
    assert encode_known(known, ALL, THETA).abs().max() <= 4
    assert torch.isfinite(volume(network, rows, known)).all()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"ctf_state": "corrected"}, "unknown CTF state 'corrected'"),
        ({"thickness_angstrom": 0.0}, "thickness must be a positive number"),
        ({"voxel_size_angstrom": float("nan")}, "voxel size must be a positive number"),
        ({"doses": (1.0, -1.0)}, "doses must be finite"),
        ({"defocus_um": float("inf")}, "defocus must be a finite number"),
    ],
)
def test_what_cannot_be_is_refused(values, line):
    with pytest.raises(SettingsError, match=line):
        Known(**values)


def test_each_image_has_its_dose():
    with pytest.raises(SettingsError, match="2 doses do not fit 11 images"):
        encode_known(Known(doses=(1.0, 2.0)), ALL, THETA)


@pytest.mark.parametrize("facts", [("ctf",), ("dose", "voxel"), ALL])
def test_a_network_with_facts_is_saved_and_loaded(tmp_path, facts):
    network = awake_network(knowing(PLAIN, facts)).eval()
    save_network(tmp_path / "a.safetensors", network, {})
    loaded = load_model(str(tmp_path / "a.safetensors")).network
    assert loaded.config == network.config
    rows, known = some_rows(), some()
    assert torch.equal(volume(loaded, rows, known), volume(network, rows, known))


@pytest.mark.parametrize(
    ("known", "line"),
    [
        (["ctff"], "unknown fact 'ctff' .did you mean 'ctf'"),
        (["dose", "ctf"], "in the order ctf, defocus, dose"),
        (["ctf", "ctf"], "listed once each"),
        ("ctf", "must be a list of names"),
        ([1], "must be a list of names"),
    ],
)
def test_wrong_lists_of_facts_are_refused(known, line):
    values = config_to_dict(PLAIN)
    values["input"]["known"] = known
    with pytest.raises(ModelError, match=line):
        config_from_dict(values)


def test_the_published_kind_of_network_takes_no_facts():
    values = config_to_dict(SliceSetConfig())
    values["input"]["known"] = ["ctf"]
    with pytest.raises(ModelError, match="SliceSet takes no facts"):
        config_from_dict(values)


def test_the_bundled_default_takes_every_fact():
    assert set(load_model("default").network.config.input.known) == set(FACTS)


@pytest.mark.parametrize("name", ["fast", "draft"])
def test_bundled_models_are_what_they_were(name, tmp_path):
    """Their files mention no facts, and written again they still mention none."""
    model = load_model(name)
    assert model.network.config.input.known == ()
    save_network(tmp_path / "again.safetensors", model.network, model.card)
    with safetensors.safe_open(tmp_path / "again.safetensors", framework="pt") as file:
        stored = json.loads(file.metadata()["config"])
        assert "known" not in stored["input"]
        assert not any(leaf.startswith("known.") for leaf in file.keys())  # noqa: SIM118 (not a mapping)


def test_a_model_without_facts_gives_the_same_bytes_whatever_is_known():
    network, rows = awake_network(PLAIN).eval(), some_rows()
    assert torch.equal(volume(network, rows, some()), volume(network, rows))


def pair_of(drawn, tilts=3):
    rng = np.random.default_rng(0)
    images, truth = (rng.standard_normal(shape).astype(np.float32) for shape in ((tilts, 8, 8), (4, 8, 8)))
    return Pair(images, truth, tuple(np.linspace(-40, 40, tilts).tolist()), 7.0, {}, {"drawn": drawn})


DRAWN = {
    "noise": "counting",
    "ctf": "phase-flipped",
    "plan": {"exposure_before": [4.0, 0.0, 8.0]},
    "optics": [{"defocus_um": 2.0}, {"defocus_um": 3.0}],
    "thickness_angstrom": 900.0,
}


def test_a_simulated_series_knows_what_was_drawn():
    assert known_of_pair(pair_of(DRAWN)) == Known("flipped", 2.5, (4.0, 0.0, 8.0), 900.0, 7.0)
    assert known_of_pair(pair_of({**DRAWN, "noise": "white"})) == Known(ctf_state="none", voxel_size_angstrom=7.0)
    assert known_of_pair(pair_of({**DRAWN, "ctf": "left"})).ctf_state == "uncorrected"


@pytest.mark.parametrize(
    "drawn",
    [
        None,
        [],
        {"optics": 5, "plan": 3, "thickness_angstrom": "thick"},
        {"plan": {"exposure_before": [1.0]}, "thickness_angstrom": -1.0},
        {"plan": {"exposure_before": [1.0, float("nan"), 2.0]}},
    ],
)
def test_what_a_pair_does_not_tell_is_not_known(drawn):
    assert known_of_pair(pair_of(drawn)) == Known(voxel_size_angstrom=7.0)


def test_facts_are_withheld_by_chance():
    rng = np.random.default_rng(0)
    drawn = torch.stack([draw_facts(some(), ALL, THETA, rng)[0] for _ in range(400)])
    told = (drawn != 0).any(1).float().mean()
    ctf = (drawn[:, : len(CTF_STATES)] != 0).any(1).float().mean()
    assert 0.7 < told < 0.95
    assert 0.45 < ctf < 0.75


def test_runs_hold_the_doses_of_the_images_that_are_kept():
    config = small_config(augment={"drop_chance": 1.0, "most_dropped": 6, "flip_chance": 0.5})
    specimen = type("Specimen", (), {})()
    specimen.density = np.random.default_rng(0).standard_normal((16, 24, 24)).astype(np.float32)
    specimen.voxel_size_angstrom = 10.0
    angles = tuple(np.arange(-60.0, 61, 5).tolist())
    series = make_series(specimen, angles, config.network_config().head)
    assert series.known == Known(ctf_state="none", voxel_size_angstrom=10.0)
    doses = tuple(float(n) for n in range(len(angles)))
    series = dataclasses.replace(series, known=Known(doses=doses))
    network = dataclasses.replace(config.network_config(), input=InputWindow(5, context_taps=3, known=("dose",)))
    seen = 0
    for seed in range(20):
        run = draw_run(series, config, network, np.random.default_rng(seed))
        # A tilt's dose was its number; mirrored series have all angles of the other sign.
        number = torch.round((torch.rad2deg(run.angles_rad) + 60) / 5)
        wanted = [Known(doses=tuple(order.tolist())) for order in (number, 24 - number)]
        if run.facts.any():
            seen += 1
            assert any(torch.equal(run.facts, encode_known(one, ("dose",), run.angles_rad)) for one in wanted)
        assert draw_run(series, config, config.network_config(), np.random.default_rng(seed)).facts is None
    assert seen > 5


def test_validation_series_tell_what_is_known_of_them(tmp_path):
    config = small_config(validation={"specimens": 1, "shape": (16, 32, 32), "snr_db": (0.0,), "recipe_series": 0})
    examples = validation_set(config, tmp_path)
    assert all(example.known.ctf_state == "none" and example.known.has("voxel") for example in examples)
    assert examples


@pytest.mark.slow
def test_a_training_may_start_from_a_model_without_facts(tmp_path):
    """Through the command: the first weights are the model's, and the card's network takes facts."""
    donor = awake_network(SIZES["trunk"]).eval()
    save_network(tmp_path / "donor.safetensors", donor, {})
    config = {
        "network": config_to_dict(knowing(SIZES["trunk"])),
        "start": "donor.safetensors",
        "specimens": {"shape": [16, 32, 32]},
        "series": 1,
        "steps": 2,
        "runs_per_step": 1,
        "ema_decay": 0.0,
        "learning_rate": 1e-30,
        "weight_decay": 0.0,
        "loss": {"cube": [6, 6, 6]},
        "validation": {"every": 0},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    words = ["train", tmp_path / "train.yaml", "-o", tmp_path / "made.safetensors", "--device", "cpu"]
    good(*words, "--precision", "fp32")
    made = load_model(str(tmp_path / "made.safetensors")).network
    assert made.config == knowing(SIZES["trunk"])
    rows = some_rows()
    wanted = volume(donor, rows)
    torch.testing.assert_close(volume(made, rows, some()), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.slow
def test_a_network_learns_from_what_it_is_told():
    """The same images with another target: nothing but the state of the CTF tells which one is meant."""
    config = small_config(steps=60, learning_rate=1e-2)
    values = config_to_dict(config.network_config())
    values["input"]["known"] = ["ctf"]
    config = config.model_copy(update={"network": values})
    made = simulate_training_set(config.model_copy(update={"series": 1}), ())[0]
    strong, weak = (
        dataclasses.replace(made, targets=share * made.targets, known=Known(ctf_state=state))
        for share, state in ((1.0, "wiener"), (0.2, "flipped"))
    )
    state = train(config, FixedSource([strong, weak]), Place(torch.device("cpu")))
    network, rows = state.network.eval().requires_grad_(False), some_rows()
    told = [volume(network, rows, Known(ctf_state=state)).std() for state in ("wiener", "flipped")]
    assert told[0] > 1.3 * told[1]
