"""Measured noise: laws of what is kept and what is made of it, on series of a microscope that nothing else knows."""

import dataclasses
import itertools
import os
import re

import h5py
import numpy as np
import pytest
import yaml
from command import call, good
from hidden_microscope import PIXEL, PLAIN, SIDE, Hidden, density, hidden_series, noise_power, write_series

from cryolithe.errors import FileFormatError, InputError
from cryolithe.noise.bank import margin_px, seamless
from cryolithe.noise.contrast import without_background
from cryolithe.noise.halves import HalfSums, check_halves
from cryolithe.noise.imitate import imitate, nearest_images, noise_image
from cryolithe.noise.pooling import ssnr_of_mean
from cryolithe.noise.rings import Corner, frequencies, patch_size, power, powers, ring_means, transform, weights
from cryolithe.noise.stored import read_profile, write_profile
from cryolithe.simulation.imaging import image_series

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Two series of the hidden microscope, their files and their profile."""
    folder = tmp_path_factory.mktemp("lab")
    made = [hidden_series(seed) for seed in (1, 2)]
    files = [name for n, one in enumerate(made) for name in write_series(folder, f"ts{n}", one)]
    result = good("noise", "measure", *files, "-o", folder / "profile.h5")
    return folder, made, files, result.output


@pytest.fixture(scope="module")
def profile(lab):
    return read_profile(lab[0] / "profile.h5")


@pytest.fixture(scope="module")
def imitations(profile):
    """Other specimens, imaged by the simulator as it is, made to look like the profile's."""
    found = []
    for seed in (11, 12, 13):
        rng = np.random.default_rng(seed)
        made = image_series(density(seed), slice(0, SIDE), PIXEL, PLAIN, rng)
        found.append(imitate(made.clean, made.plan.angles_deg, PIXEL, profile, rng))
    return found


def octaves(curves, size):
    """Means over bands of frequency, some 1.4 octaves wide, from 1/40 per pixel on, shape (curves, bands)."""
    frequency, count = frequencies(size), weights(size)
    edges = [1 / 40, 1 / 16, 1 / 6, 0.5]
    bands = [(frequency >= low) & (frequency < high + 1e-9) for low, high in itertools.pairwise(edges)]
    return np.stack([(curves[..., band] * count[band]).sum(-1) / count[band].sum() for band in bands], axis=-1)


def decibel(ratio):
    return 10 * np.log10(ratio)


def test_half_differences_carry_no_signal(lab, profile):
    for made in lab[1]:
        noise = (made.even - made.odd) / 2
        r = np.corrcoef(noise.ravel(), made.clean.ravel())[0, 1]
        assert abs(r) < 3 / np.sqrt(noise.size)
    checks = profile.facts["checks"]
    assert abs(checks["signal_in_noise"]) < checks["signal_in_noise_by_chance"]


def test_the_bank_holds_no_image_of_the_specimen(lab, profile):
    assert abs(ssnr_of_mean(profile.tiles)) < 0.01
    # Nor at any other place: the highest correlation of a tile with the specimen is that with another specimen.
    stranger = hidden_series(77).clean
    tile = np.fft.rfft2(profile.tiles[3].astype(float), s=(SIDE, SIDE))
    peaks = []
    for images in (lab[1][0].clean, stranger):
        image = images[profile.tile_image[3]]
        peaks.append(np.abs(np.fft.irfft2(tile.conj() * np.fft.rfft2(image / image.std()), s=(SIDE, SIDE))).max())
    assert peaks[0] < 1.3 * peaks[1]
    assert ssnr_of_mean(profile.tiles.astype(float) + np.eye(profile.tiles.shape[1]) * 5) > 0.01


def test_noise_and_signal_are_recovered(lab, profile):
    made, size = lab[1], profile.patch_px
    true_signal = octaves(np.concatenate([powers(one.clean, size) for one in made]), size).mean(0)
    true_noise = octaves(noise_power(frequencies(size), np.array(made[0].angles)), size)
    signal = octaves(profile.signal.power(profile.frequency_per_px, profile.angles_deg), size).mean(0)
    noise = octaves(profile.noise.power(profile.frequency_per_px, profile.angles_deg), size).mean(0)
    heard = true_signal > 0.1 * true_noise.mean(0)  # fainter, chance is more than half a decibel
    assert heard.sum() >= 2
    assert np.abs(decibel(signal / true_signal))[heard].max() < 0.5
    assert np.abs(decibel(noise / true_noise.mean(0))).max() < 0.3


def test_spectra_of_imitations_match(lab, profile, imitations):
    size = profile.patch_px
    made = lab[1]
    noise = octaves(noise_power(frequencies(size), np.array(made[0].angles)), size).mean(0)
    signal = octaves(np.concatenate([powers(one.clean, size) for one in made]), size).mean(0)
    own = octaves(np.concatenate([powers(one.clean, size) for one in imitations]), size).mean(0)
    heard = signal > 0.1 * noise
    assert heard.sum() >= 2
    assert np.abs(decibel(own / signal))[heard].max() < 0.5
    added = octaves(np.concatenate([powers((one.even - one.odd) / 2, size) for one in imitations]), size).mean(0)
    assert np.abs(decibel(added / noise)).max() < 0.3


def test_snr_against_tilt_matches(lab, imitations):
    count = weights(SIDE)

    def snr(series):
        clean = np.mean([powers(list(map(without_background, one.clean)), SIDE) @ count for one in series], axis=0)
        noise = np.mean([powers((one.even - one.odd) / 2, SIDE) @ count for one in series], axis=0)
        # What single tilts show of the specimen by chance is no property of the microscope.
        way = np.cos(np.deg2rad(lab[1][0].angles))
        return np.polyval(np.polyfit(way, decibel(clean / noise), 2), way)

    assert np.abs(snr(imitations) - snr(lab[1])).max() < 1.0


def test_halves_of_an_imitation_are_independent(imitations):
    for one in imitations:
        even, odd = one.even - one.clean, one.odd - one.clean
        even, odd = (half - (one.even + one.odd - 2 * one.clean).mean() / 2 for half in (even, odd))
        difference, total = even - odd, even + odd
        r = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(difference, total, strict=True)]
        assert abs(np.mean(r)) < 5 / np.sqrt(difference.size)


@pytest.mark.parametrize("shape", [(64, 64), (96, 128), (300, 210)])
def test_the_spectrum_of_noise_is_kept_in_any_shape(profile, shape):
    rng = np.random.default_rng(4)
    size = patch_size(shape)
    ratios = []
    for number, angle in enumerate(profile.angles_deg):
        images = nearest_images(profile, int(profile.series[number]), float(angle))
        wanted = np.interp(frequencies(size), profile.frequency_per_px, profile.noise_curve(int(images[0])))
        for _ in range(3 if max(shape) < 200 else 1):
            ratios.append(power(noise_image(profile, images, shape, 1.0, rng), size) / wanted)
    mean = octaves(np.mean(ratios, axis=0), size)
    assert np.abs(decibel(mean[1:])).max() < 0.2
    assert np.abs(decibel(mean)).max() < 0.5  # the lowest octave of a small image holds few waves


def test_tiles_have_no_seam():
    rng = np.random.default_rng(0)
    tile_px = 64
    patches = rng.standard_normal((300, tile_px + margin_px(tile_px), tile_px + margin_px(tile_px)))
    tiles = np.stack([seamless(patch, tile_px) for patch in patches])
    variance = tiles.var(axis=0)
    blend = variance[: margin_px(tile_px)].mean()
    assert blend == pytest.approx(variance[margin_px(tile_px) :].mean(), rel=0.03)
    smooth = np.cumsum(patches, axis=1)[:, :, :1].repeat(patches.shape[2], axis=2)
    closed = np.stack([seamless(patch, tile_px) for patch in smooth])
    step = np.abs(closed[:, 0] - closed[:, -1]).mean() / np.abs(np.diff(closed, axis=1)).mean()
    assert step < 2


def test_other_pixels_are_rescaled_or_refused(profile):
    rng = np.random.default_rng(1)
    images = nearest_images(profile, 0, 0.0)
    fine = [power(noise_image(profile, images, (128, 128), 10.0 / 8.0, rng), 128) for _ in range(12)]
    # Pixels of 8 Å hold (8 / 10)² of the electrons, thus (10 / 8)² of the noise, at the same frequencies in 1/Å.
    wanted = np.interp(frequencies(128) / 8.0, profile.frequency_per_px / 10.0, profile.noise_curve(int(images[0])))
    ratio = octaves(np.mean(fine, axis=0) / (wanted * 1.25**2), 128)
    assert np.abs(decibel(ratio[1:])).max() < 0.4
    for pixel in (7.0, 13.0):
        with pytest.raises(InputError, match=r"serves 7\.5-12\.5 Å"):
            profile.pixel_ratio(pixel)


def test_a_specimen_that_is_wrong_is_told(profile, imitations):
    rng = np.random.default_rng(2)
    made = image_series(density(11), slice(0, SIDE), PIXEL, PLAIN, rng)
    # 30 dB too little where the data have most of their signal.
    poor = np.stack([np.fft.irfft2(np.fft.rfft2(im) * _notch(im.shape), s=im.shape) for im in made.clean])
    words = imitate(poor.astype(np.float32), made.plan.angles_deg, PIXEL, profile, rng).words
    assert any("specimen recipe is wrong" in word and "dB more power" in word for word in words)
    assert not any("wrong" in word for one in imitations for word in one.words)


def test_the_recipe_that_made_the_data_is_not_called_wrong(tmp_path):
    # Small pixels and 120 e/Å²: damage leaves nothing near Nyquist, where fitted curves of single tilts rise again.
    (tmp_path / "r.yaml").write_text(
        "series: 1\n"
        "cell: {shape: [48, 96, 128], voxel_size_angstrom: [5, 5], crowding: [0.1, 0.14], lamella_chance: 0}\n"
        "imaging:\n  ctf: left\n  total_exposure: [120, 120]\n  scheme: {reach_deg: [57, 57]}\n"
        "  optics: {defocus_um: [2, 2], defocus_spread_um: [0, 0], astigmatism_um: [0, 0]}\n"
    )
    good("simulate", tmp_path / "r.yaml", "-o", tmp_path / "s")
    halves = [tmp_path / "s" / f"TS_001{end}" for end in ("_EVN.mrc", "_ODD.mrc", ".tlt")]
    good("noise", "measure", *halves, "-o", tmp_path / "p.h5")
    shown = good("noise", "show", tmp_path / "p.h5", "--recipe", tmp_path / "r.yaml")
    assert "wrong" not in shown.output


def _notch(shape):
    f = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    return np.where(f < 0.05, 10**-1.5, 1.0)


def test_what_changes_while_it_is_measured_is_not_measured(lab, tmp_path, monkeypatch):
    from cryolithe.noise import measure

    files, plain = lab[2][:3], measure.measure_halves

    def touched(*arguments):
        os.utime(files[0], ns=(1, 1))
        return plain(*arguments)

    monkeypatch.setattr(measure, "measure_halves", touched)
    result = call("noise", "measure", *files, "-o", tmp_path / "p.h5")
    assert result.exit_code == 2
    assert f"the input {files[0]} changed while it was measured" in result.output
    assert not (tmp_path / "p.h5").exists()


def test_same_seed_same_bytes(lab, tmp_path):
    folder, _, files, _ = lab
    again, other = tmp_path / "again.h5", tmp_path / "other.h5"
    good("noise", "measure", *files, "-o", again)
    good("noise", "measure", *files, "-o", other, "--seed", 1)
    assert again.read_bytes() == (folder / "profile.h5").read_bytes() != other.read_bytes()
    rewritten = tmp_path / "rewritten.h5"
    write_profile(rewritten, read_profile(again))
    assert rewritten.read_bytes() == again.read_bytes()


def test_a_profile_names_no_path(lab):
    folder, _, files, _ = lab
    content = (folder / "profile.h5").read_bytes()
    assert str(folder).encode() not in content
    assert not any(name.rsplit("/", 1)[-1].encode() in content for name in files)


def test_show_tells_each_tilt_and_draws(lab, tmp_path):
    result = good("noise", "show", lab[0] / "profile.h5", "-o", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 20_000
    rows = [
        line.split() for line in result.output.splitlines() if line.strip()[:1] in "-0123456789" and line[:1] == " "
    ]
    assert len(rows) == 2 * len(lab[1][0].angles)
    assert all(len(row) == 4 for row in rows)


QUICK = {
    "series": 1,
    "procedural": 4,
    "cell": {"shape": [16, 64, 64], "voxel_size_angstrom": [10.0, 10.0], "crowding": [0.05, 0.1],
             "thickness_nm": [14.0, 16.0], "vesicle_radius_nm": [10.0, 14.0]},
    "imaging": {"scheme": {"reach_deg": [48.0, 48.0], "step_deg": [8.0, 8.0]}},
}  # fmt: skip


def _recipe(path, **cell):
    path.write_text(yaml.safe_dump(QUICK | {"cell": QUICK["cell"] | cell}))
    return path


def test_simulate_like_a_profile(lab, tmp_path):
    recipe, profile = _recipe(tmp_path / "r.yaml"), lab[0] / "profile.h5"
    for name in ("a", "b"):
        good("simulate", recipe, "--like", profile, "-o", tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    record = yaml.safe_load((tmp_path / "a" / "recipe.resolved.yaml").read_text())
    assert record["recipe"]["imaging"]["noise"] == "profile.h5"
    assert str(tmp_path) not in (tmp_path / "a" / "recipe.resolved.yaml").read_text()
    named = yaml.safe_load(recipe.read_text())
    named["imaging"]["noise"] = "profile.h5"
    (tmp_path / "named.yaml").write_text(yaml.safe_dump(named))
    (tmp_path / "profile.h5").write_bytes(profile.read_bytes())
    good("simulate", tmp_path / "named.yaml", "-o", tmp_path / "c")
    assert (tmp_path / "c" / "TS_001.h5").read_bytes() == (tmp_path / "a" / "TS_001.h5").read_bytes()
    # Wide ranges of voxels are narrowed by the flag, told, and refused in a recipe.
    wide = good("simulate", _recipe(tmp_path / "w.yaml", voxel_size_angstrom=[12.0, 16.0]), "--like", profile,
               "-o", tmp_path / "w")  # fmt: skip
    assert "12-12.5 Å instead of 12-16 Å" in wide.output
    far = call("simulate", _recipe(tmp_path / "f.yaml", voxel_size_angstrom=[14.0, 16.0]), "--like", profile,
              "-o", tmp_path / "f")  # fmt: skip
    assert far.exit_code == 2
    assert "serves pixels of 7.5-12.5 Å" in far.output


def _changed(**changes):
    def make(made: Hidden) -> Hidden:
        return made._replace(**{name: change(made) for name, change in changes.items()})

    return make


def _low_passed(images):
    f = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    return np.fft.irfft2(np.fft.rfft2(images) * np.exp(-((f / 0.15) ** 2)), s=(SIDE, SIDE))


def _with_nan(images):
    images = images.copy()
    images[3, 5, 7] = np.nan
    return images


def _exchanged(images):
    images = images.copy()
    images[[2, 10]] = images[[10, 2]]
    return images


def _scaled(images, number, factor):
    images = images.copy()
    images[number] *= factor
    return images


def _patterned(images):
    """Sensitivity that differs from pixel to pixel, as before the gain reference is applied."""
    return images + 20 * np.random.default_rng(8).standard_normal(images.shape[1:]).astype(np.float32)


REFUSED = {
    "same images": (_changed(odd=lambda m: m.even), "15 images of .* are the same in"),
    "shared frames": (_changed(odd=lambda m: 0.85 * m.even + 0.15 * m.odd), "correlate by"),
    "denoised": (_changed(even=lambda m: _low_passed(m.even), odd=lambda m: _low_passed(m.odd)), "low-passed"),
    "other contrast": (_changed(odd=lambda m: 1.4 * m.odd), "times the contrast"),
    "opposite contrast": (_changed(odd=lambda m: -m.odd), "opposite contrast"),
    "shifted": (_changed(odd=lambda m: np.roll(m.odd, (4, 3), (1, 2))), "shifted against each other by 3.0 px along x"),
    "half a pixel apart": (
        _changed(odd=lambda m: (m.odd + np.roll(m.odd, 1, 2)) / 2),
        "shifted against each other by 0.5 px along x and 0.0 px along y",
    ),
    "two exchanged": (_changed(odd=lambda m: _exchanged(m.odd)), "have images 3, 11 exchanged"),
    "one scaled": (_changed(odd=lambda m: _scaled(m.odd, 4, 1.6)), "image 5 of the first has 0.6. times the noise"),
    "a gain pattern": (
        _changed(even=lambda m: _patterned(m.even), odd=lambda m: _patterned(m.odd)),
        "all images hold the same pattern, which makes up 8.%",
    ),
    "not finite": (_changed(odd=lambda m: _with_nan(m.odd)), "image 4 of .* not finite"),
    "other series": (_changed(odd=lambda m: hidden_series(55).odd), "nothing in common"),
    "few tilts": (
        _changed(even=lambda m: m.even[:4], odd=lambda m: m.odd[:4], angles=lambda m: m.angles[:4]),
        "holds 4 images",
    ),
    "other angles": (_changed(angles=lambda m: m.angles[:-1]), "15 images but .* 14 angles"),
    "other shape": (_changed(odd=lambda m: m.odd[:, :-2]), "give the halves of one series"),
    "empty": (_changed(even=lambda m: 0 * m.even, odd=lambda m: 0 * m.odd), "hold a piece of 64 x 64 pixels"),
}


@pytest.mark.filterwarnings("ignore:Data array contains NaN")
@pytest.mark.parametrize("name", REFUSED)
def test_what_are_no_halves_is_refused_in_one_line(lab, tmp_path, name):
    change, expected = REFUSED[name]
    files = write_series(tmp_path, "x", change(lab[1][0]))
    result = call("noise", "measure", *files, "-o", tmp_path / "p.h5")
    assert result.exit_code == 2, result.output
    error = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(error) == 1
    assert re.search(expected, error[0]), error[0]
    assert not (tmp_path / "p.h5").exists()


def _sums(even, odd):
    size = patch_size(even.shape[1:])
    a, b = (np.stack([transform(image, Corner(0, 0), size) for image in half]) for half in (even, odd))
    return HalfSums(
        even=powers(even, size),
        odd=powers(odd, size),
        cross=np.stack([ring_means(one) for one in (a * b.conj()).real]),
        product=(a * b.conj()).sum(axis=0),
        between=np.zeros(size // 2),
        patches=np.ones(len(even), np.int64),
        means=(float(even.mean()), float(odd.mean())),
        deviation=float(even.std()),
    )


@pytest.mark.parametrize("apart", [(0, 0), (0, 1), (2, 0), (0, 2), (3, 0), (2, 2)])
def test_the_spectra_of_halves_tell_that_they_lie_pixels_apart(lab, apart):
    made = lab[1][0]
    sums = _sums(made.even, np.roll(made.odd, apart, (1, 2)))
    if max(apart) < 2:
        assert check_halves(sums, ("even", "odd")) == ()
        return
    with pytest.raises(InputError, match=f"by {apart[1]} px along x and {apart[0]} px along y"):
        check_halves(sums, ("even", "odd"))


def _measured(folder, made, *words):
    result = good("noise", "measure", *write_series(folder, "y", made), "-o", folder / "y.h5", "--overwrite", *words)
    return result.output, read_profile(folder / "y.h5")


def test_what_is_no_fault_for_sure_is_told(lab, tmp_path):
    made = lab[1][0]
    weak = made._replace(**{half: made.even * 0 + getattr(made, half) + _patterned(0 * made.even) / 5 for half in
                            ("even", "odd")})  # fmt: skip
    assert "all images hold the same pattern, which makes up 1" in _measured(tmp_path, weak)[0]
    strong = hidden_series(1, contrast=2.0)
    unlike = strong._replace(odd=strong.odd + 0.08 * strong.clean)
    assert (
        "Note: half differences hold the specimen (correlation with neighbouring images -0"
        in (_measured(tmp_path, unlike)[0])
    )
    shuffled = made._replace(angles=tuple(map(float, np.random.default_rng(3).permutation(made.angles))))
    assert "Note: the images are in another order than the angles" in _measured(tmp_path, shuffled)[0]
    assert "Note" not in _measured(tmp_path, made)[0]


def test_unequal_frames_are_no_specimen_in_the_noise(lab, tmp_path):
    """One half with more noise than the other: their difference goes with their average, but not with the specimen."""
    made = lab[1][0]
    noisier = made.clean + 1.3 * (made.odd - made.clean)
    told, profile = _measured(tmp_path, made._replace(odd=noisier))
    checks = profile.facts["checks"]
    assert abs(checks["signal_in_noise"]) < checks["signal_in_noise_by_chance"]
    assert "Note" not in told


@pytest.mark.parametrize("true", ["dark", "bright"])
def test_what_is_dense_is_seen_in_the_images(tmp_path, true):
    made = hidden_series(1, contrast=1.0)
    sign = 1 if true == "dark" else -1
    series = made._replace(even=2000 + sign * made.even, odd=2000 + sign * made.odd)
    told, profile = _measured(tmp_path, series)
    assert profile.polarity == true
    assert f"dense {true}" in told
    wrong = "bright" if true == "dark" else "dark"
    told, profile = _measured(tmp_path, series, "--contrast", wrong)
    assert profile.polarity == wrong
    assert f"dense matter is {wrong} by --contrast, but in these images it looks {true}" in told


def test_a_profile_is_of_one_contrast(tmp_path):
    made = hidden_series(1, contrast=1.0)
    one, other = (write_series(tmp_path, name, one) for name, one in (("a", made), ("b", hidden_series(2, 1.0))))
    good("noise", "measure", *one, *other, "-o", tmp_path / "p.h5")
    inverted = hidden_series(2, 1.0)
    other = write_series(tmp_path, "c", inverted._replace(even=-inverted.even, odd=-inverted.odd))
    refused = call("noise", "measure", *one, *other, "-o", tmp_path / "p.h5", "--overwrite")
    assert refused.exit_code == 2
    assert "a profile is of one contrast" in refused.output


def test_other_pixels_and_files_are_refused(lab, tmp_path):
    _, made, files, _ = lab
    coarse = write_series(tmp_path, "coarse", made[1], pixel=13.0)
    cases = {
        (*files[:3], *coarse): "one pixel size",
        (*files[:3], *files[:3]): "given twice",
        (files[0], files[0], files[2]): "given as both halves",
        tuple(files[:2]): "three files",
        (): "EVEN ODD ANGLES",
    }
    for given, expected in cases.items():
        result = call("noise", "measure", *given, "-o", tmp_path / "p.h5")
        assert result.exit_code == 2
        assert expected in result.output, result.output
    assert call("noise", "measure", *files[:3], "-o", tmp_path / "p.mrc").exit_code == 2


def test_borders_and_hits_do_not_count(lab):
    """An aligned stack has empty borders, and a cosmic ray hits one half."""
    from cryolithe.geometry import TiltGeometry
    from cryolithe.noise.measure import Plan, measure_halves
    from cryolithe.tilts import TiltSeries

    made = lab[1][0]
    padded = [np.pad(half, ((0, 0), (70, 0), (0, 40)), constant_values=3.0) for half in (made.even, made.odd)]
    padded[0][2, 100, 30] += 5000
    plan = Plan(64, 56, 1, 0)
    whole, cut = (
        measure_halves(
            tuple(TiltSeries(half, TiltGeometry(made.angles, half.shape[1:]), PIXEL) for half in halves),
            ("even", "odd"),
            plan,
        )
        for halves in ((made.even, made.odd), padded)
    )
    assert decibel(cut.noise_power.sum() / whole.noise_power.sum()) == pytest.approx(0, abs=0.15)
    assert cut.checks["outliers"] >= 1


@pytest.fixture(scope="module")
def stored(lab):
    with h5py.File(lab[0] / "profile.h5") as file:
        return {name: file[name][()] for name in file}, dict(file.attrs)


def _write_raw(path, arrays, attributes):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(attributes)


def test_malformed_profiles_are_refused(lab, stored, tmp_path):
    arrays, attributes = stored
    path = tmp_path / "p.h5"
    broken = [(arrays, attributes | {key: value}) for key, value in (
        ("format", "cryolithe-pair"), ("version", 2), ("kind", "x"), ("polarity", ""), ("pixel_size_angstrom", -1.0),
        ("facts", "[1]"), ("facts", "{"), ("image_shape", [3]), ("variance_slope", "x"),
    )]  # fmt: skip
    for name, values in arrays.items():
        broken.append(({k: v for k, v in arrays.items() if k != name}, attributes))
        broken.append((arrays | {name: values[:-1]}, attributes))
        if values.dtype.kind == "f" and name != "levels":
            spoilt = values.copy()
            spoilt.flat[0] = np.nan
            broken.append((arrays | {name: spoilt}, attributes))
    broken.append((arrays | {"tile_image": arrays["tile_image"] + 10_000}, attributes))
    broken.append((arrays | {"noise_power": -arrays["noise_power"]}, attributes))
    for number, (some, attrs) in enumerate(broken):
        _write_raw(path, some, attrs)
        with pytest.raises(FileFormatError) as error:
            read_profile(path)
        assert "\n" not in str(error.value), number
    _write_raw(path, arrays, attributes)
    assert np.array_equal(read_profile(path).tiles, arrays["tiles"])
    whole = (lab[0] / "profile.h5").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    foreign = tmp_path / "text.h5"
    foreign.write_text("no HDF5")
    for file in (path, foreign):
        result = call("noise", "show", file)
        assert result.exit_code == 2
        assert len(result.output.strip().splitlines()) == 1


def test_neighbours_give_an_upper_bound_and_say_so(lab, tmp_path):
    _, made, _, _ = lab
    both = made[0]._replace(even=(made[0].even + made[0].odd) / 2)
    stack, _, angles = write_series(tmp_path, "sum", both)
    result = good("noise", "measure", "--tilts", stack, angles, "-o", tmp_path / "n.h5")
    assert "upper bound" in result.output
    found = read_profile(tmp_path / "n.h5")
    assert found.kind == "neighbours"
    assert len(found.tiles) == 0
    true = powers((made[0].even - made[0].odd) / 2, found.patch_px)
    bound = octaves(found.noise_power, found.patch_px).mean(0)
    assert (bound > 0.95 * octaves(true, found.patch_px).mean(0)).all()
    signal = octaves(powers(made[0].clean, found.patch_px), found.patch_px).mean(0)
    assert (octaves(found.signal_power, found.patch_px).mean(0) < 1.05 * signal + 0.05 * bound).all()
    shown = good("noise", "show", tmp_path / "n.h5", "-o", tmp_path / "n.png")
    assert "upper bound" in shown.output
    idle = call("noise", "measure", "--tilts", stack, angles, "-o", tmp_path / "m.h5", "--seed", 3)
    assert idle.exit_code == 2
    assert "--seed is for crops of halves, of which --tilts keeps none" in idle.stderr
    idle = call("noise", "show", tmp_path / "n.h5", "--overwrite")
    assert idle.exit_code == 2
    assert "--overwrite is for the figure of -o, which is not given" in idle.stderr
    nowhere = call("noise", "show", tmp_path / "n.h5", "-o", tmp_path / "nowhere" / "n.png")
    assert (nowhere.exit_code, nowhere.stdout) == (2, "")  # before any work
    assert "the folder" in nowhere.stderr
    assert "does not exist; make it first" in nowhere.stderr
    like = good("simulate", _recipe(tmp_path / "r.yaml"), "--like", tmp_path / "n.h5", "-o", tmp_path / "s")
    assert "upper bound" in like.output


def test_counts_tell_thickness_and_that_noise_follows_brightness(lab, tmp_path):
    made, rng = lab[1][0], np.random.default_rng(3)
    angles = np.array(made.angles)
    paths = 0.6
    level = 60 * np.exp(-paths / np.cos(np.deg2rad(angles)))
    seen = np.clip(1 + 6 * made.clean / 400, 0.1, None) * level[:, None, None]
    counted = Hidden(made.clean, rng.poisson(seen), rng.poisson(seen), made.angles)
    result = good("noise", "measure", *write_series(tmp_path, "c", counted), "-o", tmp_path / "c.h5")
    found = read_profile(tmp_path / "c.h5")
    assert found.has_levels
    assert found.thickness_paths == pytest.approx(paths, abs=0.05)
    assert found.follows_brightness
    assert 0.6 < found.variance_slope[0] < 1.2
    assert "variance follows brightness" in result.output
    one = imitate(made.clean, made.angles, PIXEL, found, rng)
    noise, bright = (one.even - one.odd) / 2, one.clean
    high = bright > np.quantile(bright, 0.9, axis=(1, 2), keepdims=True)
    low = bright < np.quantile(bright, 0.1, axis=(1, 2), keepdims=True)
    assert noise[high].var() > noise[low].var()


def test_training_draws_profiles_for_its_series(lab, tmp_path):
    from cryolithe.errors import SettingsError
    from cryolithe.training.config import TrainConfig, check_config, check_files, noise_notes
    from cryolithe.training.recipe_maker import recipe_maker

    _recipe(tmp_path / "r.yaml", voxel_size_angstrom=[9.0, 14.0])
    profile = str(lab[0] / "profile.h5")
    data = {"recipes": [{"path": "r.yaml"}], "noise": [profile], "noise_chance": 0.5}
    config = TrainConfig(data=data)
    check_files(config, tmp_path)
    assert any("instead of 9-14 Å" in note for note in noise_notes(config, tmp_path))
    maker = recipe_maker(config, tmp_path)
    kinds = {}
    for number in range(1, 9):
        kind = maker.simulated(number)[0].series.drawn["noise"]
        kinds.setdefault(kind, number)
    assert set(kinds) == {"measured", "counting"}
    number = kinds["measured"]
    first, second = (maker.pair(number).images for _ in range(2))
    np.testing.assert_array_equal(first, second)
    never = dataclasses.replace(maker, noise_chance=0.0)
    assert never.simulated(number)[0].series.drawn["noise"] == "counting"
    with pytest.raises(SettingsError, match=r"data\.recipes"):
        check_config(TrainConfig(data={"noise": [profile]}), "c.yaml")
    with pytest.raises(InputError, match="does not exist"):
        check_files(TrainConfig(data=data | {"noise": ["none.h5"]}), tmp_path)
