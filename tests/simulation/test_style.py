"""The style of a laboratory's stacks: content stays, spectra come near, and what does not fit is refused."""

import itertools
import json
import shutil
import warnings
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch
import yaml
from command import call, good
from plain_mrc import new_mrc

from cryolithe.errors import InputError
from cryolithe.geometry import TiltGeometry
from cryolithe.simulation import campaign, read_recipe
from cryolithe.simulation.imaging import image_series
from cryolithe.simulation.imaging_recipe import ImagingRecipe, OpticsRecipe, SchemeRecipe
from cryolithe.style import learn as learning
from cryolithe.style.apply import restyled, styled
from cryolithe.style.learn import Learning, learn
from cryolithe.style.measure import measure
from cryolithe.style.network import Styler, draw_noise
from cryolithe.style.rings import Rings
from cryolithe.style.stored import read_style, style_of, write_style
from cryolithe.style.target import clean_stack, stack_of
from cryolithe.tilts import TiltSeries

torch.set_num_threads(1)
TEXT = (
    Path(__file__).resolve().parents[2] / "training_data" / "recipes" / "quick.yaml"
).read_text() + "procedural: 2\n"
PIXEL, SIDE = 10.0, 96
GAIN = 700.0
TINY = Learning(1e9, 10, filters=4, batch=2)


def imaged(seed, side=SIDE):
    """Grains of several sizes, imaged by the simulator."""
    rng = np.random.default_rng([seed, 3])
    density = np.zeros((24, side, side), dtype=np.float32)
    for size, count in ((1.5, 300), (3.0, 80), (6.0, 12)):
        seeds = np.zeros(density.shape, dtype=np.float32)
        np.add.at(seeds, tuple(rng.integers(0, n, count) for n in seeds.shape), 1)
        grains = scipy.ndimage.gaussian_filter(seeds, size, mode="wrap") * (2 * np.pi) ** 1.5 * size**3
        density += np.clip(grains, 0, 1)
    recipe = ImagingRecipe(
        scheme=SchemeRecipe(kinds=("linear",), reach_deg=(50.0, 50.0), step_deg=(5.0, 5.0)),
        total_exposure=(100.0, 100.0),
        optics=OpticsRecipe(defocus_um=(3.0, 3.0)),
    )
    return image_series(density, slice(0, side), PIXEL, recipe, rng)


def noise_of(rng, shape, angle):
    """Noise that no detector of the simulator makes: lumpy, and stronger at high tilt."""
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    gain = np.sqrt(0.03 + 1 / (1 + (k / 0.12) ** 4)) / np.cos(np.deg2rad(angle)) ** 0.5
    return scipy.fft.irfft2(scipy.fft.rfft2(rng.standard_normal(shape)) * gain, s=shape)


def recorded(seed, noise=60.0, side=SIDE):
    """A hidden microscope's series in its own grey values, and its angles."""
    made, rng = imaged(seed, side), np.random.default_rng([seed, 5])
    angles = made.plan.angles_deg
    rough = np.stack([noise_of(rng, made.clean.shape[1:], angle) for angle in angles])
    return (GAIN * made.clean + noise * rough + 1000).astype(np.float32), angles


def target(seed=1, **options):
    images, angles = recorded(seed, **options)
    return stack_of(TiltSeries(images, TiltGeometry(tuple(angles), images.shape[1:]), PIXEL), "hidden")


def clean(seed):
    made = imaged(seed)
    return clean_stack(made.clean, made.plan.angles_deg, "clean")


@pytest.fixture(scope="module")
def learned():
    return learn((target(1), target(2)), (clean(11), clean(12)), TINY)


@pytest.fixture(scope="module")
def style(learned):
    return style_of(learned, PIXEL, {"program": "test"})


def busy(styler):
    """A residual far from zero."""
    torch.manual_seed(1)
    torch.nn.init.normal_(styler.network.last.weight, std=1.0)
    for block in (*styler.network.down, *styler.network.up):
        torch.nn.init.normal_(block.film.weight, std=0.3)
        for layer in (block.first, block.second):
            torch.nn.init.kaiming_normal_(layer.weight)
    return styler


@pytest.mark.parametrize("shape", [(48, 64), (51, 53)])
def test_the_mean_over_draws_is_the_clean_image_whatever_was_learned(shape):
    torch.manual_seed(2)
    styler = busy(Styler(3, (5, 24))).eval()
    image = torch.randn(2, 1, *shape)
    noise = draw_noise(2, shape, torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (styler(image, 20.0, n) for n in (noise, noise.mirrored))
        residual = styler.residual(image, 20.0, noise)
    assert residual.std() > 0.1
    assert one.shape == image.shape
    torch.testing.assert_close((one + other) / 2, image, atol=1e-5, rtol=0)
    assert (one - image).std() > 0.5


def test_noise_channels_have_unit_variance_and_their_scale():
    noise = draw_noise(4, (128, 120), torch.Generator().manual_seed(0))
    assert noise.channels.shape == (4, 4, 128, 120)
    for number, scale in enumerate((1, 2, 4, 8)):
        channel = noise.channels[:, number]
        assert float(channel.var()) == pytest.approx(1, abs=0.15)
        assert torch.equal(channel[:, :scale, :scale], channel[:, :1, :1].expand(-1, scale, scale))


def test_white_noise_has_its_variance_in_every_ring():
    rings = Rings(48)
    patches = 3 * torch.randn(400, 48, 48, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(rings.powers(patches).mean(0)[1:], 9, rtol=0.1)
    assert float(rings.cross(patches[:200], patches[200:]).mean(0)[3:].abs().max()) < 1


@pytest.mark.slow
def test_the_contrast_is_that_of_what_neighbouring_tilts_share():
    for noise in (15.0, 60.0):
        images, angles = recorded(1, noise=noise)
        stack = stack_of(TiltSeries(images, TiltGeometry(tuple(angles), images.shape[1:]), PIXEL), "hidden")
        sigma = np.sqrt(images.var(axis=(1, 2)).mean())
        found = measure((stack, target(2, noise=noise)), (clean(11), clean(12), clean(13)))
        assert found.contrast * sigma == pytest.approx(GAIN, rel=0.25)


def bordered(images, kind):
    """Images as an alignment leaves them: turned a little, or shifted by another way in each; the rest is filled."""
    images, (height, width) = images.copy(), images.shape[1:]
    y, x = np.mgrid[:height, :width]
    turn = np.deg2rad(6)
    across = [(x - width / 2) * np.cos(turn) + (y - height / 2) * np.sin(turn)]
    across += [(y - height / 2) * np.cos(turn) - (x - width / 2) * np.sin(turn)]
    for number, image in enumerate(images):
        if kind == "turned":
            image[np.maximum(*np.abs(across)) > 0.46 * width] = 0
        elif kind == "shifted":
            image[:, : (7 * number) % 19] = 0
        else:
            image[: height // 8] = image.mean()
    return images


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["turned", "shifted", "mean"])
def test_borders_that_an_alignment_filled_have_no_part_in_a_style(kind):
    images, angles = recorded(1)
    found = []
    for one in (images, bordered(images, kind)):
        stack = stack_of(TiltSeries(one, TiltGeometry(tuple(angles), one.shape[1:]), PIXEL), "hidden")
        found.append(measure((stack,), (clean(11), clean(12))))
        assert ("have borders of one value" in " ".join(stack.notes)) == (one is not images)
    # Contrast over noise does not depend on the grey values' scale.
    ratios = [10 * np.log10(curves.contrast**2 / curves.noise) for curves in found]
    counts = np.arange(1, ratios[0].shape[1] + 1)
    assert np.abs(np.average(ratios[1] - ratios[0], axis=1, weights=counts)).max() < 0.5
    relative = [np.log10(curves.power / curves.power[:, -8:].mean()) for curves in found]
    assert 10 * np.abs((relative[1] - relative[0]) @ counts / counts.sum()).max() < 0.5


def test_patches_are_drawn_where_there_is_data():
    images, angles = recorded(1)
    filled = bordered(images, "turned")
    stack = stack_of(TiltSeries(filled, TiltGeometry(tuple(angles), filled.shape[1:]), PIXEL), "hidden")
    drawn = learning._Patches((stack,), 48).batch(0.0, 32, np.random.default_rng(0))
    assert float(drawn.var(dim=(1, 2, 3)).min() / drawn.var()) > 0.5


@pytest.mark.slow
def test_spectra_come_nearer_than_white_noise_does(learned):
    assert learned.steps == 10
    assert learned.apart_db < 1.0
    assert learned.apart_db < 0.5 * learned.white_db
    # And by tilt, on series and specimens that nobody learned from.
    style, rings, draw = style_of(learned, PIXEL, {}), Rings(48), torch.Generator().manual_seed(9)
    hidden, made = [target(n) for n in (3, 4, 5)], [imaged(n) for n in (13, 14, 15)]
    rng = np.random.default_rng(0)

    def decibels(images):
        powers = [rings.powers(rings.cut(np.asarray(x, dtype=np.float32))).mean(0).numpy() for x in images]
        return 10 * np.log10(np.mean(powers, axis=0))[2:]

    for number in (0, 10, 20):
        angle = made[0].plan.angles_deg[number]
        assert angle == hidden[0].angles_deg[number]
        clean_images = [style.contrast * one.clean[number] for one in made]
        like = [style.contrast * styled(one.clean[number], angle, style, draw) for one in made]
        level = np.mean([stack.images[number].var() for stack in hidden]) - np.mean([x.var() for x in clean_images])
        white = [x + np.sqrt(level) * rng.standard_normal(x.shape) for x in clean_images]
        wanted = decibels([stack.images[number] for stack in hidden])
        apart = [np.sqrt(np.mean((decibels(images) - wanted) ** 2)) for images in (like, white)]
        assert apart[0] < 1.5
        assert apart[0] < 0.6 * apart[1]


@pytest.mark.slow
def test_low_frequencies_of_the_mean_are_those_of_the_clean_image(style):
    busy(style.styler)  # even with a residual that nobody trained
    made, draw = imaged(14), torch.Generator().manual_seed(3)
    image, angle = made.clean[8], made.plan.angles_deg[8]
    mean = np.mean([styled(image, angle, style, draw) for _ in range(300)], axis=0)
    low = [scipy.ndimage.gaussian_filter(x, 4) for x in (mean, image)]
    assert np.corrcoef(low[0].ravel(), low[1].ravel())[0, 1] > 0.99
    torch.nn.init.zeros_(style.styler.network.last.weight)


@pytest.mark.slow
def test_noise_is_independent_between_halves_and_tilts(style):
    series = imaged(15)
    series.clean[4] = 0  # blank
    made = restyled(series, style, 7)
    np.testing.assert_allclose((made.even + made.odd) / 2, made.images, atol=1e-5 * made.images.std())
    assert made.clean is series.clean
    for images in (made.images, made.even, made.odd):
        assert (images[4] == 0).all()
    shown = [n for n in range(len(series.clean)) if n != 4]
    noise, even, odd = ((x - series.clean)[shown] for x in (made.images, made.even, made.odd))
    assert abs(np.corrcoef(even.ravel(), odd.ravel())[0, 1]) < 0.03
    assert even.var() == pytest.approx(2 * noise.var(), rel=0.05)
    assert abs(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in itertools.pairwise(noise)])) < 0.02
    again, other = restyled(series, style, 7), restyled(series, style, 8)
    np.testing.assert_array_equal(made.even, again.even)
    assert (made.images != other.images).any()
    assert made.drawn["noise"] == "style"


@pytest.mark.slow
def test_what_makes_spectra_worse_is_left_out(monkeypatch):
    monkeypatch.setattr(learning, "_steps", lambda setting, networks, *rest: 4 if busy(networks[1]) else 0)
    made = learn((target(1),), (clean(11),), Learning(1e9, 4, filters=2, batch=1))
    assert any("what was learned is left out" in note for note in made.notes)
    noise = draw_noise(1, (48, 48), torch.Generator().manual_seed(0))
    assert not made.styler.residual(torch.randn(1, 1, 48, 48), 0.0, noise).any()


@pytest.mark.slow
def test_a_style_is_the_same_after_writing_and_learning_it_again(style, tmp_path):
    write_style(tmp_path / "a.safetensors", style)
    back = read_style(tmp_path / "a.safetensors")
    assert back.facts == json.loads(json.dumps(style.facts))
    for name, value in style.styler.state_dict().items():
        assert torch.equal(value, back.styler.state_dict()[name])
    twice = [learn((target(1),), (clean(11),), Learning(1e9, 3, filters=2, batch=1)) for _ in range(2)]
    for name, value in twice[0].styler.state_dict().items():
        assert torch.equal(value, twice[1].styler.state_dict()[name])


def run(*arguments):
    return call("simulate", *arguments)


def write(folder, images, angles, name="lab", pixel=PIXEL):
    with warnings.catch_warnings(), new_mrc(folder / f"{name}.mrc") as file:
        warnings.simplefilter("ignore", RuntimeWarning)  # mrcfile's, about NaN
        file.set_data(np.ascontiguousarray(images, dtype=np.float32))
        file.set_image_stack()
        file.voxel_size = pixel
    (folder / f"{name}.tlt").write_text("".join(f"{angle:g}\n" for angle in angles))
    return folder / f"{name}.mrc", folder / f"{name}.tlt"


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "quick.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return write(tmp_path_factory.mktemp("lab"), *recorded(1))


@pytest.fixture(scope="module")
def out(lab, tmp_path_factory, quick):
    folder = tmp_path_factory.mktemp("styled") / "out"
    result = good("simulate", quick, "--style", *lab, "--style-steps", 3, "-o", folder)
    assert "Style: 3 steps" in result.stderr
    assert "dense is taken to be dark" in result.stderr
    assert "images beyond the style's tilts of -50 to 50° are styled as those at its ends (TS_001)" in result.stderr
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".png"}


@pytest.mark.slow
def test_a_styled_campaign_keeps_what_is_in_it_and_tells_its_style(out, tmp_path, quick):
    good("simulate", quick, "-o", tmp_path / "plain")
    with h5py.File(out / "TS_001.h5") as styled_file, h5py.File(tmp_path / "plain" / "TS_001.h5") as plain:
        assert styled_file.keys() == plain.keys()
    record = yaml.safe_load((out / "recipe.resolved.yaml").read_text())
    assert record["style"]["steps"] == 3
    assert len(record["style"]["stacks"]) == 1
    assert record["drawn"]["TS_001"]["noise"] == "style"
    for name in ("TS_001_truth.mrc", "TS_001_labels.mrc", "TS_001.tlt"):
        assert (out / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    images = [mrcfile.read(folder / "TS_001.mrc") for folder in (out, tmp_path / "plain")]
    assert np.isfinite(images[0]).all()
    low = [scipy.ndimage.gaussian_filter(stack[len(stack) // 2], 5) for stack in images]
    assert np.corrcoef(low[0].ravel(), low[1].ravel())[0, 1] > 0.3  # the same specimen under other noise
    assert (images[0] != images[1]).any()


@pytest.mark.slow
def test_the_same_steps_or_the_stored_style_give_the_same_bytes(out, lab, tmp_path, quick):
    # The options in another order: a recipe after --style is no stack.
    good("simulate", "-o", tmp_path / "again", "--style", *lab, quick, "--style-steps", 3)
    assert contents(tmp_path / "again") == contents(out)
    good("simulate", quick, "--style", out / "style.safetensors", "-o", tmp_path / "stored")
    found, whole = contents(tmp_path / "stored"), contents(out)
    assert found == {name: value for name, value in whole.items() if name != "style.safetensors"}
    good("simulate", quick, "--style", out / "style.safetensors", "-o", tmp_path / "other", "--seed", 5)
    assert contents(tmp_path / "other")["TS_001.mrc"] != whole["TS_001.mrc"]


@pytest.mark.slow
def test_a_stack_with_borders_gives_the_style_that_it_has_without_them(tmp_path, quick):
    images, angles = recorded(1)
    ratios = []
    for name, values in (("whole", images), ("turned", bordered(images, "turned"))):
        good(
            "simulate",
            quick,
            "--style",
            *write(tmp_path, values, angles, name),
            "--style-steps",
            1,
            "-o",
            tmp_path / name,
        )
        with h5py.File(tmp_path / name / "TS_001.h5") as file:
            ratios.append(file["clean"][()].var() / (file["even"][()] - file["odd"][()]).var())
    assert abs(10 * np.log10(ratios[1] / ratios[0])) < 0.5


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_its_style(out, lab, tmp_path, monkeypatch, quick):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    folder = tmp_path / "out"
    words = (quick, "--style", *lab, "--style-steps", 3, "-o", folder)
    with monkeypatch.context() as patch:
        patch.setattr(campaign, "write_pair", interrupt)
        assert run(*words).exit_code == 130
    refused = run(*words)
    assert refused.exit_code == 2
    assert "give --resume" in refused.stderr
    plain = run(quick, "-o", folder, "--resume")  # the series would be of two looks
    assert plain.exit_code == 2
    assert "another style" in plain.stderr
    result = good("simulate", *words, "--resume")
    assert "style of the interrupted run" in result.stderr
    assert contents(folder) == contents(out)


def sound():
    return np.random.default_rng(0).standard_normal((6, 64, 64)).astype(np.float32), [-50, -30, -10, 10, 30, 50]


@pytest.mark.slow
def test_stacks_that_cannot_give_a_style_are_refused(tmp_path, quick):
    images, angles = sound()
    bad = images.copy()
    bad[2, 3, 4] = np.nan
    hidden = images.copy()
    hidden[:2, :, :40] = 0
    stacks = {
        "small": (images[:, :40, :40], angles, PIXEL, "holds images of 40 x 40 pixels; a style is learned from 48"),
        "few": (images[:4], angles[:4], PIXEL, "holds 4 images; a style is learned from 5 or more"),
        "nan": (bad, angles, PIXEL, "image 3 of"),
        "count": (images, angles[:5], PIXEL, "holds 6 images but"),
        "flat": (images, [1, 2, 3, 4, 5, 6], PIXEL, "span 5°, expected 10° or more"),
        "blank": (0 * images, angles, PIXEL, "holds 0 images that are not blank"),
        "border": (hidden, angles, PIXEL, "holds 4 images that are not blank and not mostly border of one value"),
        "pixel": (images, angles, 4.0, "has pixels of 4 Å, but the recipe draws voxels of 10-10 Å"),
        "noise": (images, angles, PIXEL, "share nothing at low frequencies"),
    }
    for name, (values, degrees, pixel, line) in stacks.items():
        paths = write(tmp_path, values, degrees, name, pixel)
        result = run(quick, "--style", *paths, "--style-steps", 1, "-o", tmp_path / "out")
        assert result.exit_code == 2, (name, result.output)
        last = result.stderr.splitlines()[-1]
        assert last.startswith("Error: "), name
        assert line in last, (name, last)
        assert not (tmp_path / "out").exists(), name


@pytest.mark.slow
def test_words_that_make_no_style_are_refused(tmp_path, quick):
    paths = write(tmp_path, *sound())
    (tmp_path / "not.safetensors").write_bytes(b"no")
    shutil.copy(paths[0], tmp_path / "copy.mrc")
    small = tmp_path / "small.yaml"
    small.write_text(TEXT.replace("[32, 64, 64]", "[32, 40, 64]"))
    cases = [
        ((quick, "--style", paths[0]), "--style takes STACK ANGLES of each series; found 1 files"),
        ((quick, "--style", *paths, tmp_path / "copy.mrc", paths[1]), "is given to --style twice"),
        ((quick, "--style", tmp_path / "no.safetensors"), "does not exist"),
        ((quick, "--style", tmp_path / "not.safetensors"), "a style network"),
        ((quick, "--style", tmp_path / "not.safetensors", paths[1]), "give one .safetensors file or STACK ANGLES"),
        ((quick, "--style", *paths, "--style-minutes", 0), "--style-minutes must be positive"),
        ((quick, "--style", *paths, "--style-minutes", "nan"), "--style-minutes must be positive"),
        ((quick, "--style-minutes", 3), "--style-minutes is for learning a style, and there is no --style"),
        ((quick, "--style-steps", 3), "--style-steps is for learning a style, and there is no --style"),
        (
            (quick, "--style", tmp_path / "not.safetensors", "--style-minutes", 3),
            "not.safetensors was learned before: it would change nothing; leave it out",
        ),
        ((quick, "--style", tmp_path / "not.safetensors", "--style-steps", 3), "was learned before"),
        (("--style-steps", 3), "there is no --style"),
        ((small, "--style", *paths), "the recipe's images have 64 x 40 pixels"),
        (("--style", *paths), "--style goes with a RECIPE"),
        ((quick, "--like", tmp_path / "no.h5", "--style", *paths), "no.h5"),
        ((quick, "--style"), "--style"),
    ]
    for words, line in cases:
        result = run(*words, "-o", tmp_path / "out") if words[-1] != "--style" else run("-o", tmp_path / "out", *words)
        assert result.exit_code == 2, (words, result.output)
        assert line in result.stderr.splitlines()[-1], (words, result.stderr)
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_style_that_was_tampered_with_is_refused(tmp_path, quick):
    from cryolithe.optimise.tensors import write_tensors

    styler = Styler(2, (3, 24))
    values = {"filters": 2, "curves": [3, 24], "contrast": 1.0, "pixel_size_angstrom": 10.0, "angles_deg": [-60, 60]}
    values["facts"] = {}
    tensors = styler.state_dict()
    nan = {**tensors, "gains": torch.full((3, 24), torch.nan)}
    changed = [
        (tensors, {**values, "contrast": -1.0}, "sizes or units"),
        (tensors, {k: v for k, v in values.items() if k != "curves"}, "no complete style"),
        (tensors, {**values, "pixel_size_angstrom": 10**400}, "no complete style"),
        (tensors, {**values, "filters": 3}, "has shape"),
        (nan, values, "no finite real number"),
    ]
    for number, (leaves, plain, line) in enumerate(changed):
        write_tensors(tmp_path / f"{number}.safetensors", leaves, "cryolithe-style", plain)
        result = run(quick, "--style", tmp_path / f"{number}.safetensors", "-o", tmp_path / "out")
        assert result.exit_code == 2, result.output
        assert line in result.stderr.splitlines()[-1]


def test_clean_images_without_anything_are_refused():
    with pytest.raises(InputError, match="shows nothing"):
        clean_stack(np.zeros((4, 48, 48), dtype=np.float32), (0.0, 1.0, 2.0, 3.0), "a series")


def test_a_recipe_is_drawn_at_the_pixels_of_the_style(quick):
    from cryolithe.cli.simulate_style import _narrowed

    recipe = read_recipe(quick)
    wide = recipe.model_copy(
        update={"cell": recipe.cell.__class__(**{**vars(recipe.cell), "voxel_size_angstrom": (8, 13)})}
    )
    assert _narrowed(wide, 9.5, "lab.mrc").cell.voxel_size_angstrom == (9.5, 9.5)
    assert _narrowed(recipe, 10.05, "lab.mrc") == recipe
    with pytest.raises(InputError, match="draws voxels of 8-13"):
        _narrowed(wide, 14.0, "lab.mrc")
