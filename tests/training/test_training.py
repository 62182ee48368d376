"""Training learns, repeats itself by seed, and feeds a network the numbers that reconstruction feeds it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cryolithe.errors import CryoLitheError, ModelError, SettingsError
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.network import Head, build_network
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks
from cryolithe.reconstruction.slabwise import methods
from cryolithe.sampling import reflected_rows
from cryolithe.simulation import SpecimenRecipe, make_specimen
from cryolithe.training.config import TrainConfig, read_train_config
from cryolithe.training.dataset import draw_batch, make_series, simulate_training_set
from cryolithe.training.loop import band_weights, batch_loss, learning_rate_factor, train
from cryolithe.training.scoring import reconstruct_array
from cryolithe.training.sources import FixedSource
from cryolithe.wavelets import Wavelet, synthesise

HERE = Place(torch.device("cpu"))
ANGLES = tuple(np.arange(-60.0, 61.0, 6.0))


def small_config(levels=1, **changes):
    network = {
        "kind": "RowSet",
        "rows": 5,
        "channels": 24,
        "row_hidden": 24,
        "row_features": 12,
        "combiner_width": 32,
        "combiner_layers": 2,
        "input": {"taps": 9, "context_taps": 5},
        "head": {"levels": levels},
    }
    values = {
        "network": network,
        "specimens": {
            "shape": (16, 24, 24),
            "crowding": (0.08, 0.08),
            "membranes": (0, 0),
            "body_chance": 0.0,
            "diverse": 0.0,
        },
        "tilts": {"step_deg": (6.0, 6.0), "reach_deg": (60.0, 60.0)},
        "series": 1,
        "snr_db": (10.0, 10.0),
        "steps": 60,
        "runs_per_step": 1,
        "columns": 64,
        "blocks": 6,
        "learning_rate": 5e-3,
        "warmup_steps": 5,
        "ema_decay": 0.9,
        "fewest_tilts": 4,
    }
    return TrainConfig(**(values | changes))


def specimen(shape=(16, 24, 20), seed=0):
    recipe = SpecimenRecipe(shape, (10.0, 10.0), (0.1, 0.1), membranes=(0, 0), body_chance=0.0, bead_chance=0.0)
    return make_specimen(recipe, (), np.random.default_rng(seed))


@pytest.fixture
def config_file(tmp_path):
    def write(text):
        path = tmp_path / "train.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_configuration_is_read(config_file):
    config = read_train_config(
        config_file(
            "seed: 7\nsnr_db: [-5, 2.5]\nhold_out: [1s3x]\nspecimens: {shape: [8, 16, 24]}\nnetwork: {kind: SliceSet}"
        )
    )
    assert (config.seed, config.snr_db, config.hold_out) == (7, (-5.0, 2.5), ("1s3x",))
    assert config.specimens.recipe().shape == (8, 16, 24)
    assert type(config.network_config()).__name__ == "SliceSetConfig"
    assert read_train_config(config_file("")) == TrainConfig()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lerning_rate: 1e-3", r"'lerning_rate': .* \(did you mean 'learning_rate'\?\)"),
        ("specimens: {crowdng: [0, 1]}", r"'specimens.crowdng': .* \(did you mean 'crowding'\?\)"),
        ("tilts: {step_dg: [2, 3]}", r"'tilts.step_dg': .* \(did you mean 'step_deg'\?\)"),
        ("steps: many", "'steps': Input should be a valid integer"),
        ("steps: 0", "'steps': Input should be greater than or equal to 1"),
        ("learning_rate: -1", "'learning_rate': Input should be greater than 0"),
        ("ema_decay: 1", "'ema_decay': Input should be less than 1"),
        ("snr_db: 3", "'snr_db': Input should be a valid tuple"),
        ("snr_db: [3]", "'snr_db.1': Field required"),
        ("network: RowSet", "'network': Input should be a valid dictionary"),
        ("- a\n- b", "must hold 'key: value' lines, found a list"),
        ("steps: [1, 2", "is not valid YAML: .* expected"),
        (b"seed: 1 # \xff\xfe", "is not valid YAML"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(config_file, text, line):
    path = config_file(text)
    with pytest.raises(SettingsError, match=line) as caught:
        read_train_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"training configuration .*none.yaml does not exist"):
        read_train_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("network: {kind: RowSet, chanels: 3}", r"unknown key 'chanels' .* \(did you mean 'channels'\?\)"),
        ("network: {kind: Transformer}", "unknown network kind 'Transformer'"),
        ("network: {rows: 5}", "a network configuration lacks its 'kind'; give RowSet or SliceSet"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_training(config_file, text, line):
    with pytest.raises(ModelError, match=line):
        read_train_config(config_file(text))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(16, 24, 20), (9, 13, 11)])
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_targets_synthesise_to_the_volume(levels, shape):
    head = Head(levels)
    volume = torch.from_numpy(specimen(shape).density)
    targets = head.targets(volume)
    if levels == 0:
        assert torch.equal(targets[..., 0], volume)
    else:
        assert torch.allclose(synthesise(targets, shape, Wavelet(head.wavelet)), volume, atol=1e-5)
    assert targets.shape == (*(-(-n // head.stride) + 2 * head.margin for n in shape), head.outputs)


def numbered(series):
    """The series with its targets replaced by the number of their block, so that a batch tells what it drew."""
    blocks = series.targets.shape[:3]
    numbers = torch.arange(np.prod(blocks), dtype=torch.float32).reshape(*blocks, 1)
    return dataclasses.replace(series, targets=numbers, target_std=1.0), blocks


@pytest.mark.slow
@pytest.mark.parametrize("levels", [0, 1, 2])
@pytest.mark.parametrize("shape", [(16, 24, 20), (24, 16, 28), (16, 21, 20)])
def test_training_and_reconstruction_see_the_same_numbers(monkeypatch, levels, shape):
    """A network's outputs for a training batch without noise are its outputs at the same blocks of a volume."""
    config = small_config(levels, snr_db=(200.0, 200.0), fewest_tilts=len(ANGLES), blocks=3)
    torch.manual_seed(2)
    network = build_network(config.network_config()).requires_grad_(False)
    series, blocks = numbered(make_series(specimen(shape), ANGLES, network.config.head))
    monkeypatch.setattr(Head, "volume", lambda head, values, shape: values)
    method = methods.NetworkMethod(network, TiltGeometry(ANGLES, shape[1:]), VolumeGrid(shape))
    whole = shape[1] + -shape[1] % method.row_multiple
    rows = series.images[:, reflected_rows(-method.halo_px, whole + 2 * method.halo_px, shape[1])]
    values = method(rows)
    values = values.reshape(np.prod(blocks), 8**levels)
    rng = np.random.default_rng(0)
    drawn = set()
    for run in (3, 3, 3, 3, 3, 3, 99):  # the last one is of all blocks
        batch = draw_batch(series, config.model_copy(update={"blocks": run}), network.config, rng)
        out = network(batch.windows, batch.visible, network.tilt_context(batch.angles_rad)) * batch.output_gain
        numbers = batch.targets[..., 0].long()
        assert out.shape == (config.columns, min(run, blocks[1]), 8**levels)
        assert (out - values[numbers]).abs().max() < 1e-4 * values.abs().max()
        drawn |= set(numbers.flatten().tolist())
    along_y = {number // blocks[2] % blocks[1] for number in drawn}
    assert along_y == set(range(blocks[1]))  # margins included


def test_a_batch_keeps_the_scale_between_image_and_density():
    """Its windows are of unit-variance images; the gain brings the output back to densities."""
    series = make_series(specimen(), ANGLES, Head(0))
    for snr_db in (-10.0, 200.0):
        config = small_config(0, snr_db=(snr_db, snr_db))
        batch = draw_batch(series, config, config.network_config(), np.random.default_rng(0))
        noise = 10 ** (-snr_db / 20)
        expected = float(series.images.std()) * np.hypot(1, noise) / series.target_std
        assert batch.output_gain == pytest.approx(expected, rel=1e-5)


def test_dropped_tilts_take_their_angles_along():
    config = small_config(0, fewest_tilts=5, snr_db=(200.0, 200.0))
    series = make_series(specimen(), ANGLES, Head(0))
    rng = np.random.default_rng(1)
    counts = set()
    known = np.deg2rad(ANGLES).astype(np.float32)
    for _ in range(60):
        batch = draw_batch(series, config, config.network_config(), rng)
        counts.add(len(batch.angles_rad))
        assert batch.windows.shape[0] == batch.visible.shape[0] == len(batch.angles_rad)
        assert np.isin(batch.angles_rad.numpy(), known).all()
    assert max(counts) == len(ANGLES)
    assert 5 <= min(counts) < 10


@pytest.mark.slow
def test_the_training_set_is_decided_by_its_seed():
    config = small_config(series=2)
    first, again = simulate_training_set(config, ()), simulate_training_set(config, ())
    other = simulate_training_set(config.model_copy(update={"seed": 9}), ())
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, again, strict=True))
    assert first[0].geometry == again[0].geometry
    assert not torch.equal(first[0].images, first[1].images)
    assert not torch.equal(first[0].images, other[0].images)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [0, 1])
def test_training_learns(levels):
    config = small_config(levels)
    series = simulate_training_set(config, ())
    losses = []
    hooks = Hooks(on_step=lambda state, progress: losses.append(progress.loss))
    network = train(config, FixedSource(series), HERE, hooks).averaged
    assert len(losses) == config.steps
    assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:20])
    rng, weights = np.random.default_rng(1), band_weights(config)
    batches = [draw_batch(series[0], config, network.config, rng) for _ in range(8)]
    with torch.no_grad():
        trained = np.mean([batch_loss(network, b, weights, torch.float32).item() for b in batches])
        for parameter in network.parameters():
            parameter.zero_()
        zero = np.mean([batch_loss(network, b, weights, torch.float32).item() for b in batches])
    assert trained < 0.6 * zero


@pytest.mark.slow
def test_the_loss_on_haar_coefficients_is_the_loss_on_voxels():
    """Haar's functions are orthonormal: an output of zeros costs the mean square of the volume."""
    values = small_config(1).network
    for levels in (0, 1, 2):
        config = small_config(network=values | {"head": {"levels": levels, "wavelet": "haar"}})
        series = make_series(specimen(), ANGLES, config.network_config().head)
        voxels = synthesise(series.targets, series.shape, Wavelet("haar")) if levels else series.targets[..., 0]
        error = series.targets / series.target_std
        found = (error.square() * band_weights(config)).sum(-1).mean().item()
        assert found == pytest.approx((voxels.square().mean() / voxels.var(correction=0)).item(), rel=1e-3)


@pytest.mark.slow
def test_the_trained_network_restores_its_specimen():
    config = small_config(1)
    (series,) = simulate_training_set(config, ())
    network = train(config, FixedSource([series]), HERE).averaged
    found = reconstruct_array(network, series.images.numpy(), series.geometry.angles_deg, series.shape[0])
    truth = synthesise(series.targets, series.shape, Wavelet("bior3.1")).numpy()
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.6
    assert np.polyfit(truth.ravel(), found.ravel(), 1)[0] == pytest.approx(0.7, abs=0.4)  # densities, not only contrast


def test_a_seed_decides_the_weights():
    config = small_config(steps=5)
    series = simulate_training_set(config, ())
    runs = [train(config, FixedSource(series), HERE).averaged.state_dict() for _ in range(2)]
    other = train(config.model_copy(update={"seed": 2}), FixedSource(series), HERE).averaged.state_dict()
    for name, tensor in runs[0].items():
        assert torch.equal(tensor, runs[1][name])
        assert not torch.equal(tensor, other[name])


def test_a_loss_that_is_not_finite_ends_the_run():
    config = small_config(steps=3)
    (series,) = simulate_training_set(config, ())
    broken = dataclasses.replace(series, targets=series.targets * torch.nan)
    with pytest.raises(CryoLitheError, match="the loss became nan at step 1; lower learning_rate or check the data"):
        train(config, FixedSource([broken]), HERE)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    config = small_config(steps=100, warmup_steps=10)
    factors = [learning_rate_factor(step, config) for step in range(100)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert (np.diff(factors[10:]) < 0).all()
    assert factors[10] == 1
    assert factors[-1] < 1e-3
