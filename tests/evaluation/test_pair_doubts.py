"""What speaks against volumes that are compared: borders of one value, shifts, noise in common; by every command."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest
from command import call, good
from plain_mrc import new_mrc
from scipy.ndimage import fourier_shift, gaussian_filter

import cryolithe
from cryolithe.artefacts.faces import filled_doubt, filled_value, has_noise_everywhere, lacking_doubt
from cryolithe.artefacts.half_agreement import Expected, agreement, doubts_about_places, is_shifted, shares_noise
from cryolithe.artefacts.mirrored import mirrored
from cryolithe.denoising.n2n.halves import open_pair
from cryolithe.errors import InputError
from cryolithe.evaluation.halves import doubt_about_scales, open_half
from cryolithe.evaluation.pair_doubts import Looks, doubts_about

SHAPE = (32, 48, 56)
HALVES = Expected(own_noise=True)


def halves(noise=1.0, common=0.0, seed=0):
    """Blobs with noise of their own, and in common."""
    rng = np.random.default_rng(seed)
    truth = gaussian_filter(rng.standard_normal(SHAPE), 2.0)
    truth /= truth.std()
    shared = common * rng.standard_normal(SHAPE)
    return [(truth + shared + noise * rng.standard_normal(SHAPE)).astype(np.float32) for _ in range(2)]


def padded(volume, value, width=5):
    filled = volume.copy()
    filled[:, :width], filled[:, -width:], filled[:, :, :width], filled[:, :, -width:] = (value,) * 4
    return filled


def cut(volume, axis, share=0.75, value=0.0):
    """A volume that was not written to its end along an axis."""
    left = volume.copy()
    left[(slice(None),) * axis + (slice(int(share * volume.shape[axis]), None),)] = value
    return left


def written(folder, volumes):
    paths = [folder / f"{name}.mrc" for name in "ab"]
    for path, volume in zip(paths, volumes, strict=True):
        with new_mrc(path, volume.astype(np.float32)) as file:
            file.voxel_size = 10.0
            file.set_volume()
    return paths


def test_filled_faces_are_told():
    plain = halves()[0]
    assert filled_value(plain) is None
    assert filled_value(np.rint(plain * 20).astype(np.int8)) is None
    for volume, value in ((padded(plain, 4.0), 4.0), (padded(plain * 1e3, 5e3), 5e3)):
        found = filled_value(volume)
        assert found is not None
        assert found[0] == value
        assert 0.5 < found[1] < 1
    ends = plain.copy()
    ends[0] = -7
    value, share = filled_value(ends)
    assert value == -7
    assert share == pytest.approx(48 * 56 / (2 * (32 * 48 + 32 * 56 + 48 * 56)), abs=0.05)
    # A border of the mean value has no edge, and an empty volume no rest.
    assert filled_value(padded(plain, float(np.median(plain)))) is None
    assert filled_doubt(np.zeros(SHAPE, np.float32), "x") == ()


def test_places_and_noise_are_asked():
    one, other = halves()
    assert doubts_about_places(one, other, ("a", "b"), HALVES) == ()
    (moved,) = doubts_about_places(one, np.roll(other, (0, 2, 3), (0, 1, 2)), ("a", "b"), HALVES)
    assert "b is shifted against a by 0.0, 2.0, 3.0 voxels" in moved
    (shared,) = doubts_about_places(*halves(common=1.0), ("a", "b"), HALVES)
    assert "share noise" in shared
    assert doubts_about_places(*halves(common=1.0), ("a", "b"), Expected()) == ()
    flat = np.zeros(SHAPE, np.float32)
    assert doubts_about_places(flat, one, ("a", "b"), HALVES) == ()


CASES = {
    "right": (halves, None),
    "border": (lambda: [padded(half, 6.0) for half in halves()], "have the value 6 (a border, padding or a mask)"),
    "moved": (lambda: [(pair := halves())[0], np.roll(pair[1], 3, 2)], "a.mrc by 0.0, 0.0, 3.0 voxels"),
}


@pytest.mark.parametrize("case", CASES)
def test_fsc_warns(case, tmp_path):
    make, expected = CASES[case]
    said = good("fsc", *written(tmp_path, make()))
    assert (expected in said.stderr) if expected else ("Warning" not in said.stderr)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("value", [0.0, 50.0])
def test_a_half_that_was_not_written_to_its_end_is_told(axis, value):
    one, other = halves()
    half = cut(other, axis, value=value)
    (told,) = lacking_doubt(one, half, ("a", "b"))
    assert re.match(r"b has one value in 2[1-5]% of its voxels, in planes ", told)
    assert "where a varies" in told
    assert lacking_doubt(half, one, ("b", "a")) == (told,)
    assert lacking_doubt(one, other, ("a", "b")) == ()
    # Padding and masks of both, and halves of few levels, are as they should be.
    assert lacking_doubt(cut(one, axis, value=3.0), half, ("a", "b")) == ()
    assert lacking_doubt(*(np.rint(volume / 2).astype(np.int8) for volume in (one, other)), ("a", "b")) == ()
    # Of volumes that are not said to be halves, noise tells; a truth may end in vacuum.
    assert all(map(has_noise_everywhere, (one, half)))
    assert doubts_about(Looks((one, half), ("a", "b"), Expected())) == (told,)
    truth = gaussian_filter(np.random.default_rng(7).standard_normal(SHAPE), 2.0)
    truth = cut(np.maximum(truth - truth.std(), 0).astype(np.float32), axis)
    assert not has_noise_everywhere(truth)
    assert not [line for line in doubts_about(Looks((one, truth), ("a", "b"), Expected())) if "one value" in line]


def counted(volume, sigma):
    """A volume of 8 bits whose standard deviation is a part of a step."""
    return np.clip(np.rint(volume / volume.std() * sigma), -127, 127).astype(np.int8)


@pytest.mark.parametrize("sigmas", [(0.3, 1.0), (0.3, 0.4), (0.25, 0.35), (0.2, 0.4)])
def test_halves_of_few_levels_lack_nothing_by_chance(sigmas):
    pair = [counted(half, sigma) for half, sigma in zip(halves(noise=3.0), sigmas, strict=True)]
    assert lacking_doubt(*pair, ("a", "b")) == ()
    for axis in (0, 1, 2):  # but what was not written is told all the same
        (told,) = lacking_doubt(cut(pair[0], axis), pair[1], ("a", "b"))
        assert told.startswith("a has one value in ")


def test_positive_halves_lack_nothing_by_chance():
    pair = [np.maximum(gaussian_filter(half, 1.0) - at, 0) for half, at in zip(halves(), (0.1, 0.4), strict=True)]
    assert lacking_doubt(*pair, ("a", "b")) == ()


def test_round_masks_and_borders_of_one_half_are_told():
    one, other = halves()
    y, x = (np.arange(size) - (size - 1) / 2 for size in SHAPE[1:])
    outside = (y[:, None] / 24) ** 2 + (x / 28) ** 2 > 1
    masked = [np.where(outside, np.float32(0), half) for half in (one, other)]
    for lacks, whole in ((masked[0], other), (padded(one, 0.0), other)):
        assert lacking_doubt(lacks, whole, ("a", "b"))[0].startswith("a has one value in ")
    assert lacking_doubt(*masked, ("a", "b")) == ()
    assert lacking_doubt(masked[0], padded(masked[1], 0.0, width=3), ("a", "b")) == ()


def test_a_blank_plane_of_one_half_is_told_and_leaves_enough_to_learn_from(tmp_path):
    one, other = halves()
    other[0] = 0
    paths = written(tmp_path, (one, other))
    said = f"{paths[1]} has one value in 3% of its voxels, in plane 1 of 32, where {paths[0]} varies"
    assert [line for line in open_pair(*paths).warnings if said in line]
    other[:4] = 0
    with pytest.raises(InputError, match=r"b\.mrc has one value in 12% of its voxels, in planes 1 to 4 of 32"):
        open_pair(*written(tmp_path, (one, other)))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_half_that_was_not_written_to_its_end_is_no_half_to_learn_from(axis, tmp_path):
    one, other = halves()
    paths = written(tmp_path, (one, cut(other, axis)))
    assert "b.mrc has one value in 25%" in good("fsc", *paths).stderr
    words = ("denoise", "--method", "n2n", "--half1", paths[0], "--half2", paths[1], "-o", tmp_path / "out.mrc")
    result = call(*words)
    assert result.exit_code == 2
    assert "b.mrc has one value in 25% of its voxels, in planes" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out.mrc").exists()


def test_mirrored_volumes_are_told_and_no_shift_of_them():
    one, other = halves()
    for axes, expected in (((0,), "mirrored along z:"), ((1, 2), "turned half around z:"), ((0, 1), "around x:")):
        for sign in (1, -1):
            (told,) = doubts_about_places(one, sign * np.flip(other, axes), ("a", "b"), HALVES)
            assert "b shows what a shows, but" in told
            assert expected in told
    against = Expected(opposite_z=True)
    (told,) = doubts_about_places(one, other[::-1], ("a", "b"), against)
    assert "mirrored along z, as their records tell" in told
    # What looks alike is alike, whatever records tell; of what does not, they are all that is known.
    assert doubts_about_places(one, other, ("a", "b"), against) == ()
    (told,) = doubts_about_places(one, halves(seed=1)[0], ("a", "b"), against)
    assert "the records of a and b tell opposite senses of z" in told


def test_right_references_are_not_doubted():
    """Low-passed, noisy, sharpened, without a wedge, of the other polarity, their own mirror image, or of elsewhere."""
    one, _ = halves()
    truth = halves(noise=0.0)[0]
    kz, _, kx = np.meshgrid(*(np.fft.fftfreq(size) for size in SHAPE), indexing="ij")
    radius = np.sqrt(sum(k**2 for k in np.meshgrid(*(np.fft.fftfreq(size) for size in SHAPE), indexing="ij")))
    spectrum = np.fft.fftn(one)
    slab = np.zeros(SHAPE, np.float32)
    slab[10:-10] = 20.0
    right = {
        "low-passed": gaussian_filter(truth, 3.0),
        "noisy": halves(noise=5.0)[1],
        "wedge": np.fft.ifftn(spectrum * (np.abs(kz) <= np.tan(np.pi / 3) * np.abs(kx))).real,
        "rings": np.fft.ifftn(np.fft.fftn(truth) * np.cos(40 * radius**2)).real,
        "inverted": -truth,
        "slab": truth + slab,
        "elsewhere": halves(seed=1)[0],
    }
    symmetric = one + one[::-1]
    for name, other in right.items():
        for expected in (Expected(), Expected(reference=True)):
            assert doubts_about_places(one, other.astype(np.float32), ("a", "b"), expected) == (), name
    noise = np.random.default_rng(5).standard_normal((2, *SHAPE)).astype(np.float32)
    assert doubts_about_places(symmetric + noise[0], symmetric + noise[1], ("a", "b"), Expected()) == ()


@pytest.mark.parametrize("shift", [(0.5, 0.5, 0.5), (2.5, 0, 1.5), (-0.5, 0.5, 0.5), (1, 0.4, -3.5)])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_shifts_between_voxels_are_found_of_beads_behind_a_wedge(shift, noise):
    """Sharp along two axes, with side lobes along z. Half a voxel on each axis is where programs put the middle."""
    rng, shape = np.random.default_rng(1), (40, 48, 64)
    kz, _, kx = np.meshgrid(*(np.fft.fftfreq(size) for size in shape), indexing="ij")
    beads = np.zeros(shape)
    beads[tuple(rng.integers(8, size - 8, 12) for size in shape)] = 1
    spectrum = np.fft.fftn(gaussian_filter(beads, 0.8)) * (np.abs(kz) <= np.tan(np.pi / 3) * np.abs(kx)) * np.abs(kx)
    one, other = np.fft.ifftn(spectrum).real, np.fft.ifftn(fourier_shift(spectrum, shift)).real
    noisy = other + noise * other.std() * rng.standard_normal(shape)
    found = agreement(one.astype(np.float32), noisy.astype(np.float32))
    assert found.shift_px == pytest.approx(shift, abs=0.1)
    assert is_shifted(found)
    assert is_shifted(found, reference=True) == (max(map(abs, shift)) > 0.6)


def test_what_is_the_same_along_an_axis_is_not_shifted_along_it():
    """Nothing tells where along a fibre it lies; across it a shift is told as ever."""
    z, y, _ = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    fibre = np.exp(-((y - 24) ** 2 + (z - 14) ** 2) / 18).astype(np.float32)
    for seed, noise in enumerate((0.05, 0.3, 1.0)):
        own = noise * np.random.default_rng(seed).standard_normal((2, *SHAPE)).astype(np.float32)
        for other in (fibre + own[1], fibre):
            assert doubts_about_places(fibre + own[0], other, ("a", "b"), Expected()) == ()
        (told,) = doubts_about_places(fibre + own[0], np.roll(fibre, 2, 1), ("a", "b"), Expected())
        assert re.search(r"by -?0\.\d, 2\.\d, -?\d+\.\d voxels", told)


@pytest.mark.parametrize("told", [True, False])
def test_a_reference_of_the_other_sense_of_z_is_told(told, tmp_path):
    """By the volumes themselves, and as the cause where both records are there."""
    one, other = written(tmp_path, [(pair := halves())[0], pair[1][::-1]])
    for path, flip in ((one, False), (other, True)) if told else ():
        geometry = {"handedness": "imod", "flip_z": flip}
        path.with_suffix(".json").write_text(json.dumps({"volume": {"path": path.name}, "geometry": geometry}))
    words = f"mirrored along z{', as their records tell' if told else ''}:"
    assert words in good("fsc", one, other).stderr
    good("evaluate", one, "--reference", other, "--tilt-range", "60", "-o", tmp_path / "e.html")
    told_by = json.loads((tmp_path / "e.json").read_text())["evaluation"]["warnings"]
    assert any(words in line for line in told_by)
    assert not any("shifted" in line for line in told_by)


def test_a_reference_that_lies_elsewhere_is_told(tmp_path):
    pair = halves()
    for shift, said in ((0, False), (1, True)):
        one, other = written(tmp_path, [pair[0], np.roll(pair[1], shift, 2)])
        words = ("evaluate", one, "--reference", other, "--tilt-range", "60", "-o", tmp_path / "e.html", "--overwrite")
        assert (f"b.mrc is shifted against {one} by 0.0, 0.0, 1.0 voxels" in good(*words).output) is said


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, "noise"])
def test_evaluate_and_n2n_warn(case, tmp_path):
    make, expected = CASES.get(case, (lambda: halves(common=1.0), "share noise"))
    one, other = written(tmp_path, make())
    said = good("evaluate", one, "--half1", one, "--half2", other, "--tilt-range", "60", "-o", tmp_path / "e.html")
    record = json.loads((tmp_path / "e.json").read_text())
    told = " ".join(record["evaluation"]["warnings"])
    assert (expected in told) if expected else ("border" not in told and "shifted" not in told and "share" not in told)
    assert expected is None or expected in said.output


@pytest.mark.parametrize(
    ("scale", "said"), [(1.0, None), (1.3, None), (1000.0, r"(99\d|1,0\d\d) times"), (0.5, r"2\.\d times")]
)
def test_halves_of_unlike_scale_are_told_before_they_are_averaged(scale, said, tmp_path):
    pair = halves()
    one, other = written(tmp_path, [pair[0] + 7, scale * (pair[1] + 7)])
    words = ("compare", "--half1", one, "--half2", other, "--methods", "fbp", "-o", tmp_path / "c.html", "--dry-run")
    told = good(*words).output
    assert ("not scaled alike" in told) is (said is not None)
    if said is not None:
        large, small = ("b.mrc", "a.mrc") if scale > 1 else ("a.mrc", "b.mrc")
        assert re.search(f"values of {large} spread {said} as far as those of {small}", told)


def test_scaled_bytes_are_compared_as_what_they_stand_for(tmp_path):
    """8-bit halves fill the same range whatever their scale, which their records tell."""
    pair = [np.rint(half * 20).astype(np.int8) for half in halves()]
    paths = written(tmp_path, pair)
    for steps, expected in (((0.1, 0.1), 0), ((0.1, 0.3), 1)):
        for path, values, step in zip(paths, pair, steps, strict=True):
            with new_mrc(path, values) as file:
                file.set_volume()
            told = {"path": path.name, "scaling": {"offset": 0.0, "step": step}}
            path.with_suffix(".json").write_text(json.dumps({"volume": told}))
        opened = (open_half(paths[0]), open_half(paths[1]))
        assert len(doubt_about_scales(opened, ("a", "b"))) == expected


def test_inverted_halves_are_not_called_shifted():
    one, other = halves()
    assert agreement(one, -other).shift_px is None
    assert not any("shifted" in line for line in doubts_about_places(one, -np.roll(other, 3, 2), ("a", "b"), HALVES))


def behind_a_wedge(volume, reach_deg=45):
    """With nothing beyond these tilts."""
    kz, _, kx = np.meshgrid(*map(np.fft.fftfreq, SHAPE), indexing="ij")
    return np.fft.ifftn(np.fft.fftn(volume) * (np.abs(kz) <= np.tan(np.deg2rad(reach_deg)) * np.abs(kx))).real


def elsewhere():
    """Of two specimens."""
    return [halves()[0], halves(seed=1)[0]]


# Volumes, whether their records tell opposite senses of z, and what is said of them, line by line.
SAID = {
    "right": (halves, False, []),
    "mirrored": (lambda: [(pair := halves())[0], pair[1][::-1]], False, ["mirrored along z: low"]),
    "mirrored, told": (lambda: [(pair := halves())[0], pair[1][::-1]], True, ["mirrored along z, as their records"]),
    "records": (elsewhere, True, ["the records of a.mrc and b.mrc tell opposite senses of z"]),
    "moved": (lambda: [(pair := halves())[0], np.roll(pair[1], 3, 2)], False, ["b.mrc is shifted against a.mrc"]),
    "borders": (CASES["border"][0], False, ["of the faces of a.mrc", "of the faces of b.mrc"]),
    "vacuum": (lambda: [halves()[0], padded(halves(noise=0.0)[0], 6.0)], False, []),
    "inverted": (lambda: [(pair := halves())[0], -pair[1]], False, ["the volumes are of opposite contrast"]),
    "copies": (lambda: [(pair := halves())[0], 3 * pair[0] + 1], False, ["the same but for their grey levels"]),
    "wedge": (lambda: list(map(behind_a_wedge, halves())), False, ["but a.mrc shows", "but b.mrc shows"]),
}


ASKED = {name: SAID[name] for name in ("right", "mirrored", "mirrored, told", "records")} | {
    "first border": (lambda: [padded((pair := halves())[0], 6.0), pair[1]], False, ["a.mrc has one value in 2"]),
    "second border": (lambda: [(pair := halves())[0], padded(pair[1], 6.0)], False, ["b.mrc has one value in 2"]),
    "unwritten": (lambda: [(pair := halves())[0], cut(pair[1], 0)], False, ["in planes 25 to 32 of 32, where"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SAID)
def test_the_function_says_what_the_command_says(case, tmp_path):
    make, opposite, expected = SAID[case]
    paths = written(tmp_path, make())
    for path, flip in zip(paths, (False, True), strict=True) if opposite else ():
        record = {"volume": {"path": path.name}, "geometry": {"handedness": "imod", "flip_z": flip}}
        path.with_suffix(".json").write_text(json.dumps(record))
    wedge = ("--wedge", "60") if case == "wedge" else ()
    lines = good("fsc", *paths, *wedge).stderr.splitlines()
    told = [line.removeprefix("Warning: ") for line in lines if line.startswith("Warning: ")]
    assert len(told) == len(expected)
    for line, words in zip(told, expected, strict=True):
        assert words in line
    read = [cryolithe.Volume.read(path) for path in paths]
    for pair, names in ((paths, ("a.mrc", "b.mrc")), (read, ("a", "b"))):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            found = cryolithe.fsc(*pair, wedge=60 if wedge else None)
        called = [line.replace("a.mrc", names[0]).replace("b.mrc", names[1]) for line in told]
        assert list(found.warnings) == [line.replace("--wedge", "wedge=") for line in called]
        assert [str(one.message) for one in heard if one.category is cryolithe.CryoLitheWarning] == list(found.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("case", ASKED)
def test_halves_are_asked_the_same_by_compare_and_evaluate(case, tmp_path):
    make, opposite, expected = ASKED[case]
    one, other = written(tmp_path, make())
    for path, flip in ((one, False), (other, True)) if opposite else ():
        record = {"volume": {"path": path.name}, "geometry": {"handedness": "imod", "flip_z": flip}}
        path.with_suffix(".json").write_text(json.dumps(record))
    common = ("--half1", one, "--half2", other, "--tilt-range", "60")
    compared = good("compare", *common, "--methods", "fbp", "-o", tmp_path / "c.html", "--dry-run").stderr
    lines = [line for line in compared.splitlines() if line.startswith("Warning: ") and "scaled alike" not in line]
    assert len(lines) == len(expected)
    good("evaluate", one, *common, "-o", tmp_path / "e.html")
    told = json.loads((tmp_path / "e.json").read_text())["evaluation"]["warnings"]
    own = [line for line in told if "a.mrc" in line or "b.mrc" in line]
    assert len(own) == len(expected)
    for words in expected:
        assert words in lines[0]
        assert words in own[0].replace(f"{tmp_path}/", "").replace("The records", "the records")


@pytest.mark.slow
def test_what_is_taken_of_a_template_is_said(tmp_path):
    one, other = written(tmp_path, halves())
    star = tmp_path / "p.star"
    star.write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n28 24 16\n")
    words, turned = "bare.mrc has no voxel size: that of the volume, 10 Å, is taken.", "it was turned to (z, y, x)"
    record = {"geometry": {"axis_order": "yzx"}, "volume": {"shape_zyx": [10, 10, 10]}}
    (tmp_path / "sized.json").write_text(json.dumps(record))
    for name, size in (("bare", 0.0), ("sized", 10.0)):
        with new_mrc(tmp_path / f"{name}.mrc", halves()[0][:10, :10, :10]) as file:
            file.voxel_size = size
            file.set_volume()
        beside = ("--particles", star, "--template", tmp_path / f"{name}.mrc", "--particle-diameter", 80)
        good("evaluate", one, "--tilt-range", 60, *beside, "-o", tmp_path / f"e_{name}.html")
        notes = " ".join(json.loads((tmp_path / f"e_{name}.json").read_text())["evaluation"]["notes"])
        pair = ("--half1", one, "--half2", other, "--tilt-range", 60, "--methods", "fbp", "--dry-run")
        said = good("compare", *pair, *beside, "-o", tmp_path / f"c_{name}.html").stderr
        for told in (notes, said):
            assert (words in told) is (name == "bare")
            assert (turned in told) is (name == "sized")


def test_noise_alone_neither_shares_noise_nor_is_mirrored():
    for seed in range(100):
        assert not shares_noise(agreement(*np.random.default_rng(seed).standard_normal((2, 16, 16, 16))))
    for seed in range(25):
        assert mirrored(*np.random.default_rng(seed).standard_normal((2, 24, 24, 24))).axes == ""
