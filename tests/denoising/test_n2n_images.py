"""``cryolithe denoise --images``, its training, and the warning of a reconstruction from such images."""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
import yaml
from command import call, ended
from half_volumes import signal
from plain_mrc import new_mrc
from scipy.ndimage import gaussian_filter

import cryolithe
from cryolithe.denoise_training.colour import coloured, draw_amplitude
from cryolithe.denoise_training.config import PlainEntry, read_general_config
from cryolithe.denoise_training.volumes import make_maker
from cryolithe.denoising.images.amplitudes import mix_of_halves, mix_of_images, noise_density
from cryolithe.denoising.images.run import image_tiling
from cryolithe.denoising.n2n import bundled, network
from cryolithe.denoising.n2n.gains import SHELLS, ShellGain
from cryolithe.denoising.n2n.network import load_denoiser, save_denoiser
from cryolithe.denoising.n2n.planar import PlanarConfig
from cryolithe.denoising.n2n.unet import UNetConfig
from cryolithe.formats import read_mrc

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = PlanarConfig(filters=4, levels=2, first_kernel=3, last=(4, 4))
ANGLES = np.linspace(-60, 60, 9)


def run(*words, code=0):
    return " ".join(ended(call(*words), code).split())


def stack(path, values):
    with new_mrc(path) as file:
        file.set_data(np.asarray(values, np.float32))
        file.set_image_stack()
        file.voxel_size = 10.0
    return path


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A network in the package that takes the mean of 3 x 3 pixels."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setattr(bundled, "BUNDLED", folder)
    made = network.build(TINY)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        given = made.end[0].in_channels - 1  # the image itself, passed on as it is and as its negative
        for sign, number in ((1, 0), (-1, 1)):
            made.end[0].weight[number, given, 1, 1] = sign
            made.end[1].weight[number, number, 1, 1] = 1
            made.out.weight[0, number] = sign / 9 / (1 + 0.01)
    path = folder / "images.safetensors"
    save_denoiser(path, made, TINY, ShellGain(), {"general": True})
    return path


@pytest.fixture
def halves(tmp_path):
    """Two looks at images of many brightnesses, one of them blank."""
    rng = np.random.default_rng(3)
    level = np.linspace(1, 20, 9)[:, None, None]
    clean = np.repeat(signal((1, 40, 56)), 9, axis=0)
    made = [100 * level + level * (clean + 2 * rng.standard_normal(clean.shape)) for _ in range(2)]
    for values in made:
        values[4] = 7
    return [stack(tmp_path / f"ts_{name}.mrc", v) for name, v in zip(("EVN", "ODD"), made, strict=True)]


def test_images_lose_noise_and_keep_their_own_brightness(tmp_path, weights, halves):
    said = run("denoise", "--images", halves[0])
    assert "not for reconstruction" in said
    assert "1 blank image" in said
    made = read_mrc(tmp_path / "ts_EVN_denoised.mrc")
    raw = np.array(read_mrc(halves[0]).data)
    assert made.mz == 1
    assert made.voxel_size_angstrom == pytest.approx(10)
    np.testing.assert_array_equal(made.data[4], raw[4])
    inner = (slice(None), slice(2, -2), slice(2, -2))
    mean = torch.nn.functional.avg_pool2d(torch.from_numpy(raw)[:, None], 3, 1)[:, 0].numpy()[:, 1:-1, 1:-1]
    for number in (0, 3, 8):
        assert np.corrcoef(made.data[inner][number].ravel(), mean[number].ravel())[0, 1] > 0.8
        assert np.median(made.data[number]) == pytest.approx(np.median(raw[number]), abs=float(0.2 * raw[number].std()))
    assert any("not for reconstruction" in label for label in made.labels)
    record = json.loads((tmp_path / "ts_EVN_denoised.json").read_text())
    assert "not for reconstruction" in record["volume"]["use"]
    assert record["method"]["weights"]["sha256"] == load_denoiser(weights).sha256


def test_of_two_halves_the_mean_is_written_and_scored(tmp_path, weights, halves):
    said = run("denoise", "--images", "--half1", halves[0], "--half2", halves[1])
    assert "Half SNR" in said
    record = json.loads((tmp_path / "ts_denoised.json").read_text())
    assert record["score"]["half_snr_denoised_db"] > record["score"]["half_snr_raw_db"] + 1
    assert len(record["amplitudes"]["network"]["factors"]) == SHELLS
    assert 0 <= min(record["amplitudes"]["image"]["factors"]) < max(record["amplitudes"]["image"]["factors"]) <= 1


@pytest.mark.parametrize("size", [8, 12, 16, 20, 32, 100])
def test_white_noise_is_told_as_such_in_images_of_any_size(size):
    """Small ones have shells without any frequency."""
    images = np.random.default_rng(size).standard_normal((200, size, size)).astype(np.float32)
    found = np.mean([noise_density(image) for image in images], axis=0)
    assert 0.35 < found[1:].min() < found[1:].max() < 1.2


@pytest.mark.parametrize("snr_db", [-10, 0])
@pytest.mark.parametrize("of_halves", [False, True])
@pytest.mark.parametrize("factor", [0.2, 3.0])
def test_amplitudes_are_those_nearest_to_the_truth_whatever_the_network_makes_of_them(snr_db, of_halves, factor):
    """<made, truth> = <made, made>: nothing is gained by multiplying the result, though no truth was looked at."""
    rng = np.random.default_rng(4)
    clean = np.repeat(signal((1, 96, 96)), 8, axis=0)
    clean -= clean.mean()
    sigma = clean.std() / 10 ** (snr_db / 20)
    noisy = [(clean + sigma * rng.standard_normal(clean.shape)).astype(np.float32) for _ in range(2)]

    def denoise(image):
        return np.float32(factor) * gaussian_filter(image, 1.0)

    if of_halves:
        mix = mix_of_halves(list(zip(*noisy, strict=True)), denoise)
        made = np.stack([(denoise(a) + denoise(b)) / 2 for a, b in zip(*noisy, strict=True)])
    else:
        mix = mix_of_images(noisy[0], denoise, rng)
        made = np.stack([denoise(image) for image in noisy[0]])
    whole = (noisy[0] + noisy[1]) / 2 if of_halves else noisy[0]
    made = np.stack([mix.apply(image, raw) for image, raw in zip(made, whole, strict=True)])
    assert (made * clean).sum() / (made * made).sum() == pytest.approx(1, abs=0.1)
    flat = np.stack([denoise(image) for image in noisy[0]]) / factor
    assert np.corrcoef(made.ravel(), clean.ravel())[0, 1] > np.corrcoef(flat.ravel(), clean.ravel())[0, 1]


@pytest.mark.parametrize("of_halves", [False, True])
@pytest.mark.parametrize("what", ["nothing", "half of the specimen", "the mean"])
def test_no_gaussian_is_better_whatever_the_network_missed(what, of_halves):
    """What it left in the image is taken from there."""
    rng = np.random.default_rng(5)
    clean = np.repeat(signal((1, 96, 96)), 8, axis=0)
    clean -= clean.mean()
    halves = [(clean + 2 * clean.std() * rng.standard_normal(clean.shape)).astype(np.float32) for _ in range(2)]
    window = np.zeros(clean.shape[1:], np.float32)
    window[:, : 48 if what == "half of the specimen" else 0] = 1

    def denoise(image):
        return np.float32(0.2) * image if what == "the mean" else window * gaussian_filter(image, 1.0)

    mean = (halves[0] + halves[1]) / 2
    if of_halves:
        mix = mix_of_halves(list(zip(*halves, strict=True)), denoise)
        made = np.stack([mix.apply((denoise(a) + denoise(b)) / 2, (a + b) / 2) for a, b in zip(*halves, strict=True)])
    else:
        mix = mix_of_images(mean, denoise, rng)
        made = np.stack([mix.apply(denoise(image), image) for image in mean])
    smoothed = [gaussian_filter(mean, (0, sigma, sigma)) for sigma in np.arange(0.5, 4, 0.25)]
    best = max(np.corrcoef(one.ravel(), clean.ravel())[0, 1] for one in smoothed)
    assert np.corrcoef(made.ravel(), clean.ravel())[0, 1] > best - 0.04


def test_the_bundled_network_keeps_the_contrast_of_images(tmp_path):
    series = cryolithe.simulate(seed=3, snr_db=-5, shape=(48, 96, 96))
    truth = cryolithe.simulate(seed=3, snr_db=60, shape=(48, 96, 96)).tilts[::5]
    path = stack(tmp_path / "ts.mrc", series.tilts[::5])
    run("denoise", "--images", path)
    made, clean = (v - v.mean((1, 2), keepdims=True) for v in (read_mrc(tmp_path / "ts_denoised.mrc").data, truth))
    assert (made * clean).sum() / (made * made).sum() == pytest.approx(1, abs=0.2)
    assert np.corrcoef(made.ravel(), clean.ravel())[0, 1] > 0.7


def test_what_does_not_go_with_images_is_refused(tmp_path, weights, halves, monkeypatch):
    one, other = halves
    assert "--lmax does not go" in run("denoise", "--images", one, "--lmax", 3, code=2)
    assert "--method does not go" in run("denoise", "--images", one, "--method", "n2n", code=2)
    assert "--train-minutes does not go" in run("denoise", "--images", one, "--train-minutes", 3, code=2)
    assert "give the stack" in run("denoise", "--images", code=2)
    assert "either the stack" in run("denoise", "--images", one, "--half1", one, "--half2", other, code=2)
    assert "input of this run" in run("denoise", "--images", one, "-o", one, "--overwrite", code=2)
    small = stack(tmp_path / "small.mrc", np.zeros((3, 20, 20)))
    assert "give the halves of one series" in run("denoise", "--images", "--half1", one, "--half2", small, code=2)
    bad = stack(tmp_path / "bad.mrc", np.ones((2, 20, 20)))
    with mrcfile.open(bad, "r+") as file:
        file.data[1, 3, 3] = np.nan
    assert "image 2" in run("denoise", "--images", bad, code=2)
    (tmp_path / "ts_EVN_denoised.mrc").write_text("precious")
    assert "--overwrite" in run("denoise", "--images", one, code=2)
    config = UNetConfig(filters=4, levels=2, first_kernel=3, last=(4, 4))
    save_denoiser(tmp_path / "v.safetensors", network.build(config), config, ShellGain(), {})
    words = ("denoise", "--images", one, "--overwrite", "--model", tmp_path / "v.safetensors")
    assert "for volumes" in run(*words, code=2)
    monkeypatch.setattr(bundled, "BUNDLED", tmp_path / "none")
    assert "no weights for images" in run("denoise", "--images", other, code=2)


def test_of_two_stacks_the_one_that_changed_is_named(tmp_path, weights, halves, monkeypatch):
    from cryolithe.denoising.images import run as running

    plain = running.network_image

    def changing(*arguments):
        with halves[1].open("r+b") as file:
            file.seek(1000)  # in a label
            file.write(b"x")
        return plain(*arguments)

    monkeypatch.setattr(running, "network_image", changing)
    said = run("denoise", "--images", "--half1", halves[0], "--half2", halves[1], code=2)
    assert f"the input {halves[1]} changed while it was denoised; run again" in said


def test_when_interrupted_nothing_is_written_and_no_resume_is_promised(tmp_path, weights, halves, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("cryolithe.denoising.images.run.network_image", interrupted)
    before = sorted(tmp_path.iterdir())
    said = run("denoise", "--images", halves[0], code=130)
    assert "Interrupted. Nothing is written" in said
    assert "--resume" not in said
    assert sorted(tmp_path.iterdir()) == before


def test_a_reconstruction_from_denoised_images_warns(tmp_path, weights, halves):
    run("denoise", "--images", halves[0], "-o", tmp_path / "view.mrc")
    (tmp_path / "a.tlt").write_text("\n".join(f"{angle:.2f}" for angle in ANGLES))
    words = ("reconstruct", tmp_path / "view.mrc", tmp_path / "a.tlt", "--dry-run", "--thickness", 16)
    warned = "reconstruct from the stack that they were made of"
    assert warned in run(*words, "-o", tmp_path / "v.mrc")
    (tmp_path / "view.json").unlink()  # the label alone
    assert warned in run(*words, "-o", tmp_path / "v.mrc")
    plain = ("reconstruct", halves[0], tmp_path / "a.tlt", "--dry-run", "--thickness", 16, "-o", tmp_path / "v.mrc")
    assert warned not in run(*plain)


def test_tiles_of_a_large_image_are_seen_as_one(weights):
    denoiser = load_denoiser(weights)
    tiling = image_tiling((1500, 40), denoiser)
    assert tiling.count == 2
    assert tiling.edges[0] == 1
    for spans, size in zip(tiling.axes, (1, 1500, 40), strict=True):
        total = np.zeros(size)
        for span in spans:
            total[span.start : span.start + len(span.weight)] += span.weight
        np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.slow
def test_a_network_for_images_is_trained_by_the_command(tmp_path):
    shipped = read_general_config(CONFIGS / "n2n_images.yaml")
    assert shipped.of_images
    small = shipped.model_copy(update={"shape": (16, 32, 32)})
    made = make_maker(small, CONFIGS)(1)
    assert made.first.shape[1:] == (32, 32)
    assert len(made.whole_sigma) == len(made.first)
    assert made.first.std() == pytest.approx(1, abs=0.15)
    noise = [half - made.clean for half in (made.first, made.second)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1
    path = tmp_path / "c.yaml"
    values = {"kind": "n2n-images", "series": 1, "held_series": 1, "shape": [16, 32, 32], "edge": 16, "steps": 3}
    path.write_text(yaml.safe_dump({**values, "loss_fsc": 0, "diverse": 0.0, "plain": {"step_deg": [6.0, 6.0]}}))
    run("train", path, "-o", tmp_path / "i.safetensors", "--precision", "fp32")
    shots = stack(tmp_path / "s.mrc", np.random.default_rng(0).standard_normal((16, 40, 40)))
    run("denoise", "--images", shots, "--model", tmp_path / "i.safetensors")
    said = run("denoise", shots, "--is-volume", "--method", "n2n", "--model", tmp_path / "i.safetensors", code=2)
    assert "tilt images" in said


def test_coloured_noise_keeps_its_variance_and_has_the_drawn_spectrum():
    rng = np.random.default_rng(4)
    plain = PlainEntry(colour_db=8.0, blur_px=(0.5, 1.2))
    for shape in ((64, 96), (61, 95)):
        amplitude = draw_amplitude(plain, shape, rng)
        white = rng.standard_normal((60, *shape), np.float32)
        noise = coloured(white, amplitude)
        assert noise.dtype == np.float32
        assert noise.var() == pytest.approx(white.var(), rel=0.03)
        assert amplitude.max() / amplitude.min() > 1.5
        power = (np.abs(np.fft.rfft2(noise)) ** 2).mean(0) / (shape[0] * shape[1])
        np.testing.assert_allclose(np.median(power / amplitude**2), 1, atol=0.05)
    assert np.ptp(draw_amplitude(PlainEntry(), (32, 32), rng)) < 1e-6
