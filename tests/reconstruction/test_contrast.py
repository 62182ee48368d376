"""Whether dense matter is dark or bright: found from the images, warned of, recorded, the same for halves and slabs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from shared_data import SHARED, needs_shared
from tiny_series import SlabSpy, made, noise, run, voxels, write_model, write_series

import cryolithe
from cryolithe.formats import VolumeWriter, read_mrc
from cryolithe.geometry import TiltGeometry
from cryolithe.images import fourier_crop
from cryolithe.network.checkpoint import load_model
from cryolithe.reconstruction.evidence.asymmetry import measure_evidence
from cryolithe.reconstruction.evidence.polarity import Evidence, average, decide, settle
from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
from cryolithe.reconstruction.setup import looking
from cryolithe.reconstruction.slabwise import plan
from cryolithe.tilts import TiltSeries

TILTS = tuple(range(-60, 61, 5))
SIDE, DEPTH = 48, 16
NEEDLE = Path(__file__).resolve().parents[2] / "examples" / "needle"
OPPOSITE = {"dark": "bright", "bright": "dark"}
NO_EVIDENCE = Evidence()


def matter(seed=0, snr_db=0.0, balls=60, sigma_px=(1.2, 2.5), angles=TILTS, shape=(SIDE, SIDE)):
    """Images of dense balls in a slab with white noise, dense = bright, shape ``(tilts, y, x)``."""
    rng = np.random.default_rng(seed)
    height, width = shape
    places = rng.uniform(-0.5, 0.5, (balls, 3)) * (width + 8, height, DEPTH - 4)
    sigmas, weights = rng.uniform(*sigma_px, balls), rng.uniform(0.5, 1.5, balls)
    y, x = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    images = []
    for angle in np.deg2rad(angles):
        u = places[:, 0] * np.cos(angle) + places[:, 2] * np.sin(angle)
        across = np.exp(-((x - u[:, None]) ** 2) / (2 * sigmas[:, None] ** 2))
        along = np.exp(-((y - places[:, 1:2]) ** 2) / (2 * sigmas[:, None] ** 2))
        images.append(np.einsum("n,ny,nx->yx", weights, along, across))
    clean = np.array(images)
    level = clean.std() * 10 ** (-snr_db / 20)
    return (clean + level * rng.standard_normal(clean.shape)).astype(np.float32)


def evidence_of(images, angles=TILTS, depth=DEPTH, folder=None):
    geometry = TiltGeometry(tuple(float(a) for a in angles), images.shape[1:])
    stack = prepare_stack(TiltSeries(images, geometry), Preparation(clip_defects=True), folder / "stack.f32")
    with torch.inference_mode():
        return measure_evidence(stack, depth, load_model(looking.JUDGE).network)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def network(model):
    return ("--thickness", DEPTH, "--model", model, "--precision", "fp32")


def sidecar(volume):
    return json.loads(volume.with_suffix(".json").read_text())


# By the images


@pytest.mark.slow
@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 20.0])
def test_dark_and_bright_images_give_exact_negatives(snr_db, network, tmp_path):
    volumes = {}
    for dense, sign in (("dark", -1), ("bright", 1)):
        stack, angles = write_series(tmp_path, sign * matter(1, snr_db), TILTS, name=dense)
        result = made(stack, angles, *network)
        volumes[dense] = voxels(tmp_path / f"{dense}_rec.mrc")
        record = sidecar(tmp_path / f"{dense}_rec.mrc")
        assert record["polarity"]["contrast"] == record["polarity"]["found"] == record["volume"]["contrast"] == dense
        assert record["polarity"]["source"] == "images"
        assert record["settings"]["contrast"] == "auto"
        assert not any("contrast" in warning for warning in record["warnings"])
        assert f"dense matter {dense} (found from the images)" in result.stdout
        assert f"Contrast: dense matter {dense}" in result.stderr
        assert "Warning: contrast" not in result.stderr
        with mrcfile.open(tmp_path / f"{dense}_rec.mrc") as file:
            assert file.get_labels()[-1].strip().endswith(f", dense {dense}")
    np.testing.assert_array_equal(volumes["dark"], -volumes["bright"])
    assert np.abs(volumes["dark"]).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("dense", ["dark", "bright"])
def test_auto_is_the_volume_that_the_right_flag_gives(dense, network, tmp_path):
    stack, angles = write_series(tmp_path, matter(2) if dense == "bright" else -matter(2), TILTS)
    for contrast in ("auto", dense, OPPOSITE[dense]):
        made(stack, angles, "-o", tmp_path / f"{contrast}.mrc", "--contrast", contrast, *network)
    auto, right, wrong = (voxels(tmp_path / f"{name}.mrc") for name in ("auto", dense, OPPOSITE[dense]))
    np.testing.assert_array_equal(auto, right)
    assert np.abs(auto - wrong).max() > 1e-3 * np.abs(auto).max()


@pytest.mark.slow
@pytest.mark.parametrize("true", ["dark", "bright"])
def test_a_flag_against_the_images_is_obeyed_and_loud(true, network, tmp_path):
    stack, angles = write_series(tmp_path, matter(3) if true == "bright" else -matter(3), TILTS)
    result = made(stack, angles, "--contrast", OPPOSITE[true], *network)
    record = sidecar(tmp_path / "ts_rec.mrc")
    assert (record["polarity"]["contrast"], record["polarity"]["found"]) == (OPPOSITE[true], true)
    assert record["volume"]["contrast"] == OPPOSITE[true]
    (warning,) = [text for text in record["warnings"] if text.startswith("contrast: ")]
    assert f"--contrast says that dense matter is {OPPOSITE[true]}, but in these images it is {true}" in warning
    assert f"give --contrast {true}" in warning
    assert f"Warning: {warning}" in result.stderr
    assert f"dense matter {OPPOSITE[true]} (by --contrast)" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("true", ["dark", "bright"])
def test_a_right_flag_is_quiet(true, network, tmp_path):
    stack, angles = write_series(tmp_path, matter(4) if true == "bright" else -matter(4), TILTS)
    result = made(stack, angles, "--contrast", true, *network)
    assert "contrast:" not in result.stderr
    assert sidecar(tmp_path / "ts_rec.mrc")["polarity"]["found"] == true


# Where they do not tell


def counting_noise(seed):
    """Few electrons a pixel: noise as skewed as it gets."""
    return np.random.default_rng(seed).poisson(1.5, (len(TILTS), SIDE, SIDE)).astype(np.float32)


def smooth_noise(seed):
    """Noise of long correlation, of which few independent values are seen."""
    images = np.random.default_rng(seed).standard_normal((len(TILTS), 4 * SIDE, 4 * SIDE)).astype(np.float32)
    return np.stack([fourier_crop(image, 4)[:SIDE, :SIDE] for image in images]).cumsum(axis=2)


@pytest.mark.slow
@pytest.mark.parametrize("images", [lambda _: noise((SIDE, SIDE)), counting_noise, smooth_noise])
def test_without_matter_dark_is_assumed_and_said(images, network, tmp_path):
    made_of = images(5)
    angles = TILTS if len(made_of) == len(TILTS) else range(-50, 51, 10)
    stack, angles = write_series(tmp_path, made_of, angles)
    result = made(stack, angles, *network)
    record = sidecar(tmp_path / "ts_rec.mrc")
    assert (record["polarity"]["contrast"], record["polarity"]["found"]) == ("dark", None)
    assert record["polarity"]["source"] == "assumed"
    (warning,) = [text for text in record["warnings"] if text.startswith("contrast: ")]
    assert "dark is assumed" in warning
    assert f"Warning: {warning}" in result.stderr
    assert "dense matter dark (assumed" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.35])
def test_the_edge_of_a_border_too_wide_to_be_replaced_tells_nothing(share, network, tmp_path):
    """Two sides are filled in; a narrow border is replaced, and the bright matter beside it is found."""
    images = matter(3, 5.0)
    edge = round(share * SIDE)
    images[:, :edge] = images[:, :, :edge] = images.mean() - 3 * images.std()
    made(*write_series(tmp_path, images, TILTS), *network)
    polarity = sidecar(tmp_path / "ts_rec.mrc")["polarity"]
    assert (polarity["found"], polarity["source"]) == ((None, "assumed") if share > 0.3 else ("bright", "images"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one image", "two values"])
def test_borders_that_are_replaced_or_of_one_image_hide_nothing(kind, network, tmp_path):
    """The image at 0° may be half empty, and two steps of alignment fill with two values: more than half in all."""
    images = matter(3, 5.0)
    if kind == "one image":
        images[len(images) // 2, :, : round(0.55 * SIDE)] = images.min()
    else:
        edge = round(0.27 * SIDE)
        images[:, :, :edge], images[:, :, SIDE - edge :] = images.mean() - 2.0, images.mean() - 3.0
    made(*write_series(tmp_path, images, TILTS), *network)
    polarity = sidecar(tmp_path / "ts_rec.mrc")["polarity"]
    assert (polarity["found"], polarity["source"]) == ("bright", "images")


@pytest.mark.slow
@pytest.mark.parametrize("contrast", ["dark", "bright"])
def test_no_flag_contradicts_images_that_do_not_tell(contrast, network, tmp_path):
    stack, angles = write_series(tmp_path, counting_noise(6), TILTS)
    result = made(stack, angles, "--contrast", contrast, *network)
    assert "contrast:" not in result.stderr
    assert sidecar(tmp_path / "ts_rec.mrc")["polarity"]["found"] is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_noise_alone_tells_nothing(seed, tmp_path):
    rng = np.random.default_rng(seed)
    shape = (int(rng.choice([4, 7, 21, 41])), int(rng.integers(24, 70)), int(rng.integers(24, 70)))
    images = rng.gamma(rng.uniform(0.5, 5), size=shape).astype(np.float32)
    assert decide(evidence_of(images, np.linspace(-60, 60, shape[0]), folder=tmp_path)) is None


@pytest.mark.parametrize(("tilts", "shape"), [(1, (48, 48)), (3, (48, 48)), (25, (16, 48)), (25, (48, 12))])
def test_too_little_to_look_at_is_no_evidence(tilts, shape, tmp_path):
    images = noise(shape)
    images = np.resize(images, (tilts, *shape))
    assert evidence_of(images, np.linspace(-30, 30, tilts), folder=tmp_path) == NO_EVIDENCE
    assert decide(NO_EVIDENCE) is None


# What is looked at


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "snr_db"),
    [
        ({"balls": 60}, -10),
        ({"balls": 60}, 20),
        ({"balls": 1, "sigma_px": (3.0, 3.5)}, -10),
        ({"balls": 1, "sigma_px": (3.0, 3.5)}, 20),
        ({"balls": 2500, "sigma_px": (1.0, 1.4)}, 0),
        ({"balls": 2500, "sigma_px": (1.0, 1.4)}, 20),
        ({"shape": (37, 70)}, 0),
        ({"shape": (200, 44)}, -10),
        ({"angles": tuple(np.random.default_rng(0).permutation(TILTS))}, -10),
        ({"angles": (0, 3, -3, 6, -6, 9, -9, 12, -12, 15, -15)}, 0),
        ({"angles": (0, 3, -3, 6)}, 20),
    ],
    ids=str,
)
def test_the_negative_of_images_says_the_opposite(kind, snr_db, tmp_path):
    images = matter(7, snr_db, **kind)
    angles = kind.get("angles", TILTS)
    bright, dark = (evidence_of(sign * images, angles, folder=tmp_path) for sign in (1, -1))
    assert decide(bright) == "bright"
    assert decide(dark) == "dark"
    assert (bright.asymmetry, bright.deviations) == (-dark.asymmetry, -dark.deviations)
    assert (bright.explained_bright, bright.explained_dark) == (dark.explained_dark, dark.explained_bright)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-6, 300.0])
def test_units_and_background_do_not_matter(factor, tmp_path):
    images = matter(8)
    plain, other = (evidence_of(i, folder=tmp_path) for i in (images, (factor * (images + 40)).astype(np.float32)))
    for name in ("asymmetry", "deviations", "explained_bright", "explained_dark"):
        assert getattr(other, name) == pytest.approx(getattr(plain, name), rel=0.02)


def test_a_few_hot_pixels_do_not_matter(tmp_path):
    images = -matter(9)
    rng = np.random.default_rng(9)
    for image in images:
        image[rng.integers(0, SIDE, 4), rng.integers(0, SIDE, 4)] += 500 * images.std()
    assert decide(evidence_of(images, folder=tmp_path)) == "dark"


@pytest.mark.slow
def test_wide_images_are_averaged_and_say_the_same(tmp_path):
    fine = matter(10, 20.0, balls=40, sigma_px=(5.0, 12.0), shape=(220, 300))
    assert decide(evidence_of(fine, folder=tmp_path, depth=80)) == "bright"
    assert decide(evidence_of(-fine, folder=tmp_path, depth=80)) == "dark"


@pytest.mark.slow
def test_slabs_and_threads_do_not_matter(network, tmp_path, monkeypatch):
    stack, angles = write_series(tmp_path, matter(11), TILTS)
    spy = SlabSpy()
    monkeypatch.setattr("cryolithe.reconstruction.setup.fitting.slab_rows", spy)
    made(stack, angles, "-o", tmp_path / "whole.mrc", *network)
    assert spy.rows >= SIDE
    made(stack, angles, "-o", tmp_path / "parts.mrc", "--max-memory", spy.memory_for(8), *network)
    assert spy.rows < SIDE
    expected = sidecar(tmp_path / "whole.mrc")["polarity"]
    assert sidecar(tmp_path / "parts.mrc")["polarity"] == expected
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = evidence_of(np.array(read_mrc(stack).data), folder=tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert found.asymmetry == pytest.approx(expected["asymmetry"], rel=1e-3)
    assert found.explained_bright == pytest.approx(expected["explained_bright"], rel=1e-3)


@pytest.mark.parametrize("method", ["fbp", "sirt"])
def test_methods_without_a_network_do_not_look(method, tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "measure_evidence", None)
    stack, angles = write_series(tmp_path, matter(12), TILTS)
    few = ("--iterations", 2) if method == "sirt" else ()
    result = made(stack, angles, "--method", method, "--thickness", DEPTH, *few)
    record = sidecar(tmp_path / "ts_rec.mrc")
    assert record["polarity"] is None
    assert record["volume"]["contrast"] is None
    assert "ontrast" not in result.output


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_the_needle(sign, network, tmp_path):
    images = np.stack([fourier_crop(image.astype(np.float32), 2) for image in read_mrc(NEEDLE / "needle.mrc").data])
    stack, _ = write_series(tmp_path, sign * images)
    made(stack, NEEDLE / "needle.tlt", *network)
    record = sidecar(tmp_path / "ts_rec.mrc")
    assert record["polarity"]["found"] == ("bright" if sign == 1 else "dark")


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize("number", range(6))
def test_real_ribosomes(number, tmp_path):
    source = SHARED / "real" / f"ribosome{number}.mrc"
    flags = ("--model", "draft", "--centre", "relion", "--thickness", 64, "--pixel-size", 14.56)
    made(source, source.with_suffix(".tlt"), "-o", tmp_path / "v.mrc", *flags)
    assert sidecar(tmp_path / "v.mrc")["polarity"]["found"] == "bright"


# Halves, sessions, labels, unfinished runs


@pytest.mark.slow
def test_halves_are_taken_for_the_same_by_their_average(network, tmp_path, monkeypatch):
    clean = matter(13, 20.0)
    hidden = clean + 40 * clean.std() * np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    even, angles = write_series(tmp_path, clean, TILTS, name="ts_EVN")
    odd, _ = write_series(tmp_path, hidden, TILTS, name="ts_ODD")
    made(odd, angles, "-o", tmp_path / "alone.mrc", *network)
    assert sidecar(tmp_path / "alone.mrc")["polarity"]["source"] == "assumed"
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(looking.tempfile, "tempdir", str(tmp_path / "nowhere"))  # all files go where volumes do
    made("--even", even, "--odd", odd, angles, "-o", tmp_path / "out" / "ts_rec.mrc", *network)
    first, second = (sidecar(tmp_path / "out" / f"ts_rec_{name}.mrc")["polarity"] for name in ("EVN", "ODD"))
    assert first == second
    assert first["found"] == first["contrast"] == "bright"
    made(even, angles, "-o", tmp_path / "even.mrc", *network)
    alone = [sidecar(tmp_path / f"{name}.mrc")["polarity"]["deviations"] for name in ("even", "alone")]
    assert first["deviations"] == pytest.approx(np.mean(alone), abs=0.01)
    assert not list(tmp_path.rglob(".contrast-*"))


def test_halves_into_a_folder_that_is_none_are_refused(network, tmp_path):
    even, angles = write_series(tmp_path, matter(13), TILTS, name="ts_EVN")
    odd, _ = write_series(tmp_path, matter(14), TILTS, name="ts_ODD")
    result = run("--even", even, "--odd", odd, angles, "-o", tmp_path / "none" / "v.mrc", *network)
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


@pytest.mark.slow
def test_halves_against_a_flag_are_loud(network, tmp_path):
    images, random = -matter(14, 5.0), np.random.default_rng(14)
    noise = (0.3 * images.std() * random.standard_normal((2, *images.shape))).astype(np.float32)
    even, angles = write_series(tmp_path, images + noise[0], TILTS, name="ts_EVN")
    odd, _ = write_series(tmp_path, images + noise[1], TILTS, name="ts_ODD")
    result = made("--even", even, "--odd", odd, angles, "--contrast", "bright", *network)
    assert result.stderr.count("but in these images it is dark") >= 2
    for name in ("EVN", "ODD"):
        assert "but in these images it is dark" in sidecar(tmp_path / f"ts_rec_{name}.mrc")["warnings"][0]


@pytest.mark.slow
def test_each_series_of_a_list_is_looked_at(network, tmp_path):
    for name, sign in (("a", 1), ("b", -1)):
        write_series(tmp_path, sign * matter(15), TILTS, name=name)
    (tmp_path / "list.csv").write_text("tilts,angles,contrast\na.mrc,a.tlt,\nb.mrc,b.tlt,auto\n")
    made(tmp_path / "list.csv", *network)
    assert sidecar(tmp_path / "a_rec.mrc")["polarity"]["contrast"] == "bright"
    assert sidecar(tmp_path / "b_rec.mrc")["polarity"]["contrast"] == "dark"


def labelled(folder, images, label):
    stack, angles = write_series(folder, images, TILTS)
    with mrcfile.open(stack, mode="r+") as file:
        file.add_label(label)
    return stack, angles


def test_a_label_of_ours_tells_what_images_do_not(network, tmp_path):
    stack, angles = labelled(tmp_path, counting_noise(16), "CryoLithe 1.0 simulated TS_001, dense bright")
    result = made(stack, angles, *network)
    record = sidecar(tmp_path / "ts_rec.mrc")["polarity"]
    assert (record["contrast"], record["source"], record["labelled"]) == ("bright", "label", "bright")
    assert "contrast:" not in result.stderr


@pytest.mark.parametrize("label", ["Someone 1.0, dense bright", "CryoLithe 1.0 dense bright, but inverted since"])
def test_labels_of_others_tell_nothing(label, network, tmp_path):
    stack, angles = labelled(tmp_path, counting_noise(17), label)
    made(stack, angles, *network)
    assert sidecar(tmp_path / "ts_rec.mrc")["polarity"]["source"] == "assumed"


def test_images_beat_a_label_that_another_program_kept(network, tmp_path):
    stack, angles = labelled(tmp_path, matter(18), "CryoLithe 1.0 simulated TS_001, dense dark")
    result = made(stack, angles, *network)
    record = sidecar(tmp_path / "ts_rec.mrc")
    assert record["polarity"]["contrast"] == "bright"
    assert "the stack's label says that dense matter is dark" in record["warnings"][0]
    assert result.stderr.count(record["warnings"][0]) == 1


@pytest.mark.slow
def test_without_a_look_at_the_images_the_record_tells_what_is_said_of_them(tmp_path):
    stack, angles = labelled(tmp_path, counting_noise(16), "CryoLithe 1.0 simulated TS_001, dense bright")
    for flags, told in (((), "bright"), (("--contrast", "dark"), "dark")):
        made(stack, angles, "--method", "fbp", "--thickness", 12, "--overwrite", *flags)
        assert sidecar(tmp_path / "ts_rec.mrc")["volume"]["contrast"] == told
    stack, angles = labelled(tmp_path, counting_noise(16), "Someone 1.0, dense bright")
    made(stack, angles, "--method", "fbp", "--thickness", 12, "--overwrite")
    assert sidecar(tmp_path / "ts_rec.mrc")["volume"]["contrast"] is None


def test_an_unfinished_run_keeps_what_it_settled(network, tmp_path, monkeypatch):
    stack, angles = write_series(tmp_path, matter(19), TILTS)
    made(stack, angles, "-o", tmp_path / "whole.mrc", *network)
    monkeypatch.setattr(plan, "MOST_SLAB_ROWS", 8)
    write_rows = VolumeWriter.write_rows

    def stop(self, y0, slab):
        if y0 >= 16:
            raise KeyboardInterrupt
        write_rows(self, y0, slab)

    with monkeypatch.context() as context:
        context.setattr(VolumeWriter, "write_rows", stop)
        assert run(stack, angles, *network).exit_code == 130
    assert (tmp_path / "ts_rec.mrc.partial").is_dir()
    # Another look would now say the opposite.
    monkeypatch.setattr(looking, "measure_evidence", lambda *_: Evidence(-1.0, -50.0, 0.1, 0.9))
    result = made(stack, angles, *network)
    assert "Going on with an unfinished run: 2 slabs are done" in result.stderr
    assert "Contrast: dense matter bright" in result.stderr
    assert sidecar(tmp_path / "ts_rec.mrc")["polarity"]["contrast"] == "bright"
    np.testing.assert_array_equal(voxels(tmp_path / "ts_rec.mrc"), voxels(tmp_path / "whole.mrc"))


def test_what_is_done_says_what_was_settled(network, tmp_path):
    stack, angles = write_series(tmp_path, matter(20), TILTS)
    (tmp_path / "session").mkdir()
    shutil.move(stack, tmp_path / "session")
    shutil.move(angles, tmp_path / "session")
    made(tmp_path / "session", *network)
    assert "already done" in made(tmp_path / "session", *network).stdout
    assert sidecar(tmp_path / "session" / "ts_rec.mrc")["polarity"]["contrast"] == "bright"


# The rule


SURE = Evidence(0.5, 20.0, 0.8, 0.5)


def negative(evidence):
    return Evidence(-evidence.asymmetry, -evidence.deviations, evidence.explained_dark, evidence.explained_bright)


@pytest.mark.parametrize(
    ("evidence", "found"),
    [
        (SURE, "bright"),
        (Evidence(0.5, 4.1, 0.0, 0.0), "bright"),
        (Evidence(0.5, 3.0, 0.0, 0.0), None),  # chance
        (Evidence(0.5, 3.0, 0.8, 0.7), "bright"),  # signs that agree
        (Evidence(0.02, 30.0, 0.8, 0.7), None),  # the shape of ice
        (Evidence(0.0, 0.0, 0.8, 0.2), None),  # a network alone
        (Evidence(0.5, 5.0, 0.5, 0.8), None),  # signs against each other
        (Evidence(0.5, 3.0, 0.05, 0.01), None),  # a network that explains nothing
    ],
)
def test_the_rule_has_no_favourite(evidence, found):
    assert decide(evidence) == found
    assert decide(negative(evidence)) == (OPPOSITE[found] if found else None)


def test_an_average_is_no_surer_than_its_parts():
    assert average([SURE, SURE]) == SURE
    assert average([SURE, negative(SURE)]).asymmetry == 0
    assert decide(average([SURE, negative(SURE)])) is None


@pytest.mark.parametrize("setting", ["dark", "bright"])
def test_a_setting_beats_all(setting):
    settled = settle(setting, ("CryoLithe, dense bright",), SURE)
    assert (settled.contrast, settled.source) == (setting, "setting")
    assert bool(settled.warnings) == (setting == "dark")


def test_few_images_have_no_absurd_skewness():
    """Halves of a few tilts have next to nothing in common, by which nothing can be divided."""
    for seed in range(12):
        images = np.random.default_rng(seed).standard_normal((5, 40, 48)).astype(np.float32)
        assert abs(_asymmetry(images, np.linspace(-50, 50, 5), 16)) < 1
    series = cryolithe.simulate(seed=3, snr_db=0, shape=(32, 64, 64))
    for step in (8, 10):
        assert -2 < _asymmetry(series.tilts[::step], series.angles_deg[::step], 32) < -0.1


def _asymmetry(images, angles, depth):
    geometry = TiltGeometry(tuple(map(float, angles)), images.shape[1:])
    stack = prepare_stack(TiltSeries(images, geometry), Preparation(), None)
    return measure_evidence(stack, depth, None).asymmetry


def test_what_chance_may_give_is_called_no_tail():
    assert "no clear tail of dark or of bright voxels (skewness +0.01, 0.0 sigma" in str(Evidence(0.01, 0.04))
    assert "a tail of dark voxels (skewness -2.00, 30.0 sigma" in str(Evidence(-2.0, -30.0))


@pytest.mark.parametrize(
    ("evidence", "found", "sure"),
    [
        (Evidence(-2.4, -63.2, 0.50, 0.81), "dark", True),
        # A network that explains twice as much with one sign, against a short tail.
        (Evidence(0.22, 3.8, 0.32, 0.63), "dark", False),
        (Evidence(-0.22, -3.8, 0.63, 0.32), "bright", False),
        # Pores in dense matter, and real ribosomes, both dense = bright by these: nothing tells them apart.
        (Evidence(0.51, 7.1, 0.73, 0.69), "bright", False),
        (Evidence(0.43, 6.2, 0.60, 0.57), "bright", False),
        (Evidence(-0.74, -19.6, 0.70, 0.54), None, True),
        (Evidence(0.0, 0.1, 0.03, 0.02), None, True),
    ],
)
def test_weak_signs_are_called_so(evidence, found, sure):
    assert decide(evidence) == found
    polarity = settle("auto", (), evidence)
    assert ("not sure" in polarity.line) == (not sure)
    if found is not None:
        other = settle("dark" if found == "bright" else "bright", (), evidence)
        assert len(other.warnings) == 1
        assert ("not sure" in other.warnings[0]) == (not sure)
        assert (f"give --contrast {found}" in other.warnings[0]) == sure


def test_a_sure_contradiction_still_tells_what_else_looks_like_this():
    sure = Evidence(1.6, 28.9, 0.95, 0.67)
    (warning,) = settle("dark", (), sure).warnings
    assert sure.doubt == ""
    assert "light bodies in dense matter, such as pores" in warning
    assert "--method fbp" in warning
    assert "\n" not in warning
    assert settle("bright", (), sure).warnings == settle("auto", (), sure).warnings == ()
