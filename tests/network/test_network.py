"""Symmetries of the networks, agreement with the published program, and checkpoints that tell what is wrong."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from command import call, refusal_of
from shared_data import SHARED, needs_shared

from cryolithe.errors import ModelError, SettingsError
from cryolithe.models import read_summary
from cryolithe.network import Head, InputWindow, RowSet, RowSetConfig, SliceSet, SliceSetConfig, build_network
from cryolithe.network.checkpoint import bundled_models, find_model, load_model, save_network
from cryolithe.network.config import config_from_dict, config_to_dict
from cryolithe.network.layers import angle_shares, crowd_shares, mean_over_tilts

FINE = InputWindow(taps=5, context_taps=3)


def small(kind, levels=0):
    head = Head(levels)
    if kind == "RowSet":
        sizes = {"channels": 12, "row_hidden": 10, "row_features": 6, "combiner_width": 14, "combiner_layers": 3}
        return RowSetConfig(FINE, head, rows=5, angle_harmonics=2, **sizes)
    sizes = {"channels": 8, "set_hidden": 9, "set_layers": 2, "set_features": 7, "row_hidden": 9, "row_layers": 2}
    return SliceSetConfig(FINE, head, rows=5, row_features=4, combiner_width=11, combiner_layers=2, **sizes)


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def make(kind, levels=0, seed=0):
    torch.manual_seed(seed)
    network = build_network(small(kind, levels)).double()
    return network.requires_grad_(False)


def angles(tilts, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1.2, 1.2, tilts))


def apply(network, windows, visible, theta):
    return network(windows * visible[:, :, None, None], visible, network.tilt_context(theta))


def inputs(network, tilts=7, points=4, extra_blocks=2, seed=0):
    rows = network.rows_per_point + extra_blocks * network.config.head.stride
    windows = noise(tilts, points, rows, network.config.input.samples, seed=seed)
    visible = torch.from_numpy(np.random.default_rng(seed).random((tilts, points)) < 0.8)
    return windows, visible, angles(tilts, seed)


both = pytest.mark.parametrize("kind", ["RowSet", "SliceSet"])
heads = pytest.mark.parametrize("levels", [0, 1, 2])


@both
@heads
@pytest.mark.parametrize("tilts", [1, 2, 41])
def test_any_number_of_tilts_gives_a_value_for_every_block(kind, levels, tilts):
    network = make(kind, levels)
    assert network.rows_per_point == 5 + 2**levels - 1
    out = apply(network, *inputs(network, tilts=tilts, extra_blocks=3))
    assert out.shape == (4, 4, 8**levels)
    assert out.isfinite().all()
    assert out.abs().max() > 0


@both
@heads
def test_the_scale_of_the_input_is_the_scale_of_the_output(kind, levels):
    network = make(kind, levels)
    windows, visible, theta = inputs(network)
    out = apply(network, windows, visible, theta)
    assert torch.equal(apply(network, 2.0**-30 * windows, visible, theta), 2.0**-30 * out)
    assert torch.allclose(apply(network, 3.7 * windows, visible, theta), 3.7 * out, rtol=1e-12, atol=0)
    assert torch.count_nonzero(apply(network, 0 * windows, visible, theta)) == 0


@both
def test_the_order_of_the_tilts_does_not_matter(kind):
    network = make(kind, 1)
    windows, visible, theta = inputs(network)
    order = torch.from_numpy(np.random.default_rng(3).permutation(7))
    shuffled = apply(network, windows[order], visible[order], theta[order])
    assert torch.allclose(shuffled, apply(network, windows, visible, theta), atol=1e-12)
    # ... but which angle belongs to which image does.
    assert not torch.allclose(apply(network, windows, visible, theta[order]), shuffled, rtol=1e-3)


@both
def test_recording_every_tilt_twice_changes_nothing(kind):
    network = make(kind, 1)
    windows, visible, theta = inputs(network)
    twice = apply(network, windows.repeat(2, 1, 1, 1), visible.repeat(2, 1), theta.repeat(2))
    assert torch.allclose(twice, apply(network, windows, visible, theta), atol=1e-12)


@both
def test_a_tilt_that_does_not_see_a_point_says_nothing_about_it(kind):
    network = make(kind)
    windows, visible, _ = inputs(network)
    theta = torch.linspace(-1, 1, 7, dtype=torch.float64)  # in even steps: else those left out weigh the others anew
    visible[:] = True
    visible[5:, 0] = False
    out = apply(network, windows, visible, theta)
    without = apply(network, windows[:5], visible[:5], theta[:5])
    assert torch.allclose(out[0], without[0], atol=1e-12)
    assert not torch.allclose(out[1], without[1], rtol=1e-3)
    visible[:, 2] = False
    assert torch.count_nonzero(apply(network, windows, visible, theta)[2]) == 0


@both
@heads
def test_shifting_the_rows_by_a_block_shifts_the_blocks(kind, levels):
    network = make(kind, levels)
    windows, visible, theta = inputs(network, extra_blocks=4)
    out = apply(network, windows, visible, theta)
    for blocks in (1, 3):
        moved = apply(network, windows[:, :, blocks * 2**levels :], visible, theta)
        assert torch.allclose(moved, out[:, blocks:], atol=1e-12)


def test_a_row_of_rowset_is_encoded_alike_wherever_it_lies():
    network = make("RowSet", 1)
    windows, visible, theta = inputs(network)
    maps = network.tilt_context(theta)
    windows = windows * visible[:, :, None, None]
    together = network.encode(windows, visible, maps)
    for row in range(windows.shape[2]):
        assert torch.allclose(network.encode(windows[:, :, row : row + 1], visible, maps)[:, 0], together[:, row])
    assert torch.allclose(network.join(together), network(windows, visible, maps), atol=1e-12)


def test_rowset_is_its_formula():
    """h = MLP(mean ReLU(W_θ window)), W_θ = w(θ) W1 diag(e(θ)) U, one point and one row at a time."""
    network = make("RowSet", 1)
    windows, visible, theta = inputs(network, tilts=3, points=2, extra_blocks=0)
    out = apply(network, windows, visible, theta)
    for point in range(2):
        seen = [t for t in range(3) if visible[t, point]]
        features = []
        for row in range(network.rows_per_point):
            lifted = []
            for t in seen:
                m = torch.arange(1, 3) * theta[t]
                gain = network.angle_gain.weight @ torch.cat([torch.ones(1), m.sin(), m.cos()]).double()
                gain = gain * crowd_shares(theta)[t]
                lifted.append(network.mix.weight @ (gain * (network.lift.weight @ windows[t, point, row])))
            features.append(network.encode_row(torch.relu(torch.stack(lifted)).mean(0)))
        joined = torch.relu(network.gather_rows(torch.stack(features, dim=1).flatten()))
        assert torch.allclose(network.combine(joined), out[point, 0], atol=1e-12)


def test_the_mean_over_tilts_commutes_with_the_last_map_before_it():
    """So it may be taken first, and the map applied once instead of once for every tilt."""
    network = make("SliceSet", 1)
    windows, visible, theta = inputs(network)
    encoder, encoding = network.row_encoders[2], network.tilt_context(theta)
    lifted = encoder.lift(windows * visible[:, :, None, None]) * encoding[:, None, None]
    after = mean_over_tilts(encoder.per_tilt(lifted), visible)
    hidden = torch.relu(encoder.per_tilt.layers[0](lifted))
    hidden = hidden + torch.relu(encoder.per_tilt.layers[1](hidden))
    assert torch.allclose(encoder.per_tilt.last(mean_over_tilts(hidden, visible)), after, atol=1e-12)


class Foreign(torch.nn.Module):
    """Stands for the one class that a published checkpoint names; it is never run."""


PARTS = (
    ("slice_transformers", "row_encoders"),
    ("up_layer", "lift"),
    ("setMlP", "per_tilt"),
    ("combination_mlp", "combine"),
    (".mlp.", ".pooled."),
    ("last_layer", "last"),
)


def published(folder):
    """Weights under our names, configuration and test vectors of a model in the published format."""
    path = SHARED / "golden" / folder
    classes = torch.serialization.get_unsafe_globals_in_checkpoint(path / "checkpoint.pth")
    with torch.serialization.safe_globals([(Foreign, name) for name in classes]):
        stored = torch.load(path / "checkpoint.pth", weights_only=True, map_location="cpu")
    weights = {}
    for name, tensor in stored["model_state_dict"].items():
        for theirs, ours in PARTS:
            name = name.replace(theirs, ours)  # noqa: PLW2901
        weights[name] = tensor
    return weights, json.loads((path / "config.json").read_text())["model"], np.load(path / "vectors.npz")


@needs_shared
@pytest.mark.parametrize(("folder", "levels", "rows"), [("upstream_pixel", 0, 9), ("upstream_wavelet", 1, 8)])
def test_sliceset_computes_what_the_published_program_computes(folder, levels, rows):
    """Its wavelet model has as many rows as taps, ours one more: 8 rows and the block's second one make its 9."""
    weights, sizes, vectors = published(folder)
    assert (sizes["slice_index"], sizes["compare_index"]) == (2, 3)  # the axis after (points, tilts) is that of rows
    config = SliceSetConfig(
        InputWindow(taps=sizes["patch_size"], context_taps=0, unit_noise=False),
        Head(levels),
        rows=rows,
        channels=sizes["set_input"],
        set_hidden=sizes["set_hidden_size"],
        set_layers=sizes["set_num_layers"],
        set_features=sizes["set_output"],
        row_hidden=sizes["slice_mlp_hidden_size"],
        row_layers=sizes["slice_mlp_num_layers"],
        row_features=sizes["mlp_output"],
        combiner_width=sizes["combine_mlp_hidden"],
        combiner_layers=sizes["combine_mlp_layers"],
        skip=sizes["set_skip_connection"],
    )
    network = SliceSet(config)
    network.load_state_dict(weights)
    patches = torch.from_numpy(vectors["patches"]).transpose(0, 1)  # (tilts, points, rows, taps)
    theta = torch.from_numpy(np.deg2rad(vectors["tilt_angles_deg"])).float()
    with torch.inference_mode():
        out = network(patches, torch.ones(patches.shape[:2], dtype=torch.bool), network.tilt_context(theta))
    expected = torch.from_numpy(vectors["network_output"])
    assert out.shape == (len(expected), 1, 8**levels)
    assert (out[:, 0] - expected).norm() < 1e-5 * expected.norm()
    turned = network(
        patches.transpose(2, 3), torch.ones(patches.shape[:2], dtype=torch.bool), network.tilt_context(theta)
    )
    assert (turned[:, 0] - expected).norm() > 0.1 * expected.norm()  # the axes matter


@both
@heads
def test_a_configuration_survives_json(kind, levels):
    config = small(kind, levels)
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


@both
@heads
def test_a_saved_network_comes_back_bit_by_bit(tmp_path, kind, levels):
    torch.manual_seed(4)
    network, card = build_network(small(kind, levels)), {"recipe": "none", "seeds": [1, 2], "score": 3.25}
    path = tmp_path / "new" / f"{kind}.safetensors"
    save_network(path, network, card)
    model = load_model(str(path))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert (model.name, model.card) == (kind, card)
    assert model.network.config == network.config
    assert not model.network.training
    stored = model.network.state_dict()
    assert list(stored) == list(network.state_dict())
    for name, tensor in network.state_dict().items():
        assert torch.equal(stored[name], tensor)
        assert stored[name].dtype == torch.float32
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def altered(tmp_path):
    """Write a good file with some of its leaves or metadata replaced (None: removed)."""
    good = tmp_path / "good.safetensors"
    torch.manual_seed(0)
    save_network(good, build_network(small("RowSet")), {})

    def write(leaves=None, metadata=None, config=None):
        with safetensors.safe_open(good, framework="pt") as file:
            words = file.metadata() | (metadata or {})
        tensors = safetensors.torch.load_file(good) | (leaves or {})
        if config:
            words["config"] = json.dumps(json.loads(words["config"]) | config)
        path = tmp_path / "altered.safetensors"
        safetensors.torch.save_file(
            {k: v for k, v in tensors.items() if v is not None}, path, {k: v for k, v in words.items() if v is not None}
        )
        return str(path)

    return write


@pytest.mark.parametrize(
    ("leaves", "line"),
    [
        ({"mix.weight": None}, r"lacks the leaf 'mix.weight' of shape \(12, 12\)"),
        ({"mixx.weight": torch.zeros(2)}, r"unexpected leaf 'mixx.weight' \(did you mean 'mix.weight'\?\)"),
        ({"lift.weight": torch.zeros(12, 9)}, r"'lift.weight' of .* has shape \(12, 9\), expected \(12, 8\)"),
        ({"lift.weight": torch.full((12, 8), torch.nan)}, "'lift.weight' of .* values that are not finite"),
        ({"combine.last.weight": torch.full((1, 14), torch.inf)}, "'combine.last.weight' .* not finite"),
    ],
)
def test_leaves_that_do_not_fit_are_named(altered, leaves, line):
    with pytest.raises(ModelError, match=line):
        load_model(altered(leaves))


@pytest.mark.parametrize(
    ("metadata", "line"),
    [
        ({"format": None}, "safetensors file of another program; expected the metadata format=cryolithe-network"),
        ({"format": "pt"}, "safetensors file of another program"),
        ({"version": "2"}, "has format version 2; this program reads version 1"),
        ({"version": None}, "has format version None"),
        ({"config": None}, "the metadata of model file .* are corrupt: 'config'"),
        ({"config": "{"}, "the metadata of model file .* are corrupt"),
        ({"config": "[1]"}, r"a network configuration must be a table of values, got \[1\]"),
        ({"card": None}, "the metadata of model file .* are corrupt: 'card'"),
    ],
)
def test_metadata_that_do_not_fit_are_named(altered, metadata, line):
    with pytest.raises(ModelError, match=line):
        load_model(altered(metadata=metadata))


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"kind": "Transformer"}, "unknown network kind 'Transformer'; this version knows RowSet, SliceSet"),
        ({"chanels": 4}, r"unknown key 'chanels' in network configuration 'RowSet' \(did you mean 'channels'\?\)"),
        ({"channels": "12"}, "'channels' in 'RowSet' must be int, got '12'"),
        ({"channels": True}, "'channels' in 'RowSet' must be int, got True"),
        ({"head": {"level": 1}}, r"unknown key 'level' in network configuration 'head' \(did you mean 'levels'\?\)"),
        ({"input": 3}, "'input' of a network configuration must be a table of values, got 3"),
        ({"input": {"unit_noise": 1}}, "'unit_noise' in 'input' must be bool, got 1"),
        ({"channels": -1}, "'channels' in 'RowSet' must lie within 0 ... 8192, got -1"),
        ({"head": {"levels": 5}}, "'head' of a network configuration: a head has 0, 1 or 2 wavelet levels, got 5"),
        ({"input": {"taps": 4}}, "'input' of a network configuration: a window needs an odd number of taps, got 4"),
    ],
)
def test_configurations_that_do_not_fit_are_named(altered, config, line):
    with pytest.raises(ModelError, match=line):
        load_model(altered(config=config))


def test_a_file_of_another_program_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="of another program"):
        load_model(str(path))


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 8, np.random.default_rng(0).bytes(4096), pickle.dumps({"w": [1.0, 2.0]}), b"\xff" * 64],
    ids=["empty", "zeros", "random", "pickle", "huge header"],
)
def test_bytes_that_are_no_model_are_refused(tmp_path, content):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is corrupt or not a safetensors file"):
        load_model(str(path))


def test_a_torch_pickle_is_refused_without_being_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    path = tmp_path / "file.pth"
    torch.save({"model_state_dict": Harmful()}, path)
    with pytest.raises(ModelError, match=r"is a torch checkpoint \(.pth\)"):
        load_model(str(path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_a_truncated_model_is_refused(altered, share):
    path = Path(altered())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for refuses in (lambda: load_model(str(path)), lambda: read_summary(path)):
        with pytest.raises(ModelError, match="is corrupt or not a safetensors file"):
            refuses()
    assert "is corrupt or not a safetensors file" in refusal_of(call("models", "info", path))


def test_models_that_are_not_there():
    with pytest.raises(
        ModelError, match=r"unknown model 'nonesuch'; bundled models: .*; or give the path of a .safetens"
    ):
        find_model("nonesuch")
    for name in ("folder/model", "model.safetensors"):
        with pytest.raises(ModelError, match=f"model file {name} does not exist"):
            load_model(name)


@pytest.mark.slow
def test_bundled_models_load():
    for name, path in bundled_models().items():
        assert find_model(name) == path
        assert load_model(name).name == name


@pytest.mark.parametrize(
    ("make_it", "line"),
    [
        (lambda: Head(3), "a head has 0, 1 or 2 wavelet levels, got 3"),
        (lambda: Head(1, "db2"), "'db2' is not centred"),
        (lambda: InputWindow(taps=4), "odd number of taps, got 4"),
        (lambda: InputWindow(taps=-1), "odd number of taps, got -1"),
        (lambda: InputWindow(context_taps=2), "odd number of taps or 0, got 2"),
        (lambda: InputWindow(ramp_window="cosin"), r"unknown filter 'cosin' \(did you mean 'cosine'\?\)"),
    ],
)
def test_sizes_that_make_no_network_are_refused(make_it, line):
    with pytest.raises(SettingsError, match=line):
        make_it()


def test_networks_are_of_their_kind():
    assert isinstance(build_network(small("RowSet")), RowSet)
    assert isinstance(build_network(small("SliceSet")), SliceSet)


def test_shares_of_angles():
    assert angle_shares(torch.linspace(-1, 1, 41)).numpy() == pytest.approx(1, abs=1e-5)
    uneven = torch.tensor([0.0, 0.4, 0.1, 0.2])  # any order; ranges 0.1, 0.2, 0.1, 0.15 in it
    wanted = torch.tensor([0.1, 0.2, 0.1, 0.15])
    assert angle_shares(uneven).numpy() == pytest.approx((wanted / wanted.mean()).numpy(), abs=1e-5)
    assert angle_shares(torch.tensor([0.3])).tolist() == [1.0]
    assert angle_shares(torch.tensor([0.3, 0.3])).isfinite().all()


@pytest.mark.parametrize(
    "degrees",
    [
        torch.arange(-60, 61, 3.0),
        torch.arange(-21, 61, 3.0).flip(0),
        torch.cat([torch.arange(-60, -20, 2.0), torch.arange(10, 61, 2.0)]),
        torch.arange(-60, 61, 3.0) + 0.25 * torch.sin(torch.arange(41.0)),
        torch.arange(-60, 61, 6.0).repeat(2),
        torch.tensor([12.0]),
        torch.tensor([12.0, 12.0, 12.0]),
    ],
    ids=["even", "one side, from the end", "gap", "about even", "twice", "one", "one angle"],
)
def test_tilts_that_are_not_crowded_count_alike_to_the_last_bit(degrees):
    for angles_rad in (degrees.deg2rad(), degrees.double().deg2rad()):
        assert torch.equal(crowd_shares(angles_rad), torch.ones_like(angles_rad))


def test_crowded_tilts_share_the_weight_of_one():
    coarse = torch.arange(-60, 61, 6.0, dtype=torch.float64)
    retaken = crowd_shares(torch.cat([coarse, torch.full((6,), 30.0)]).deg2rad())
    assert float(retaken[0] / retaken[-1]) == pytest.approx(7)
    swept = torch.cat([coarse, torch.arange(30, 34, 0.25, dtype=torch.float64)])
    of_side = crowd_shares(swept.deg2rad())[(swept > 25) & (swept < 35)]
    assert 1 < of_side.sum() / crowd_shares(swept.deg2rad())[0] < 2.5  # of 17 images over 4 of 6 degrees
    order = torch.randperm(len(swept))
    assert torch.allclose(crowd_shares(swept[order].deg2rad()), crowd_shares(swept.deg2rad())[order])


@heads
def test_copies_of_tilts_change_nothing(levels):
    network = make("RowSet", levels)
    windows, _, _ = inputs(network)
    visible = torch.ones(windows.shape[:2], dtype=torch.bool)
    theta = torch.linspace(-1, 1, 7, dtype=torch.float64)
    again = [0, 1, 2, 2, 2, 3, 4, 5, 6, 6]
    copied = apply(network, windows[again], visible[again], theta[again])
    assert torch.allclose(copied, apply(network, windows, visible, theta), atol=1e-12)
