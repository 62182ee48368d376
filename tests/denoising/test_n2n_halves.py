"""Half volumes that belong together, and those that do not; patches of them."""

import json

import numpy as np
import pytest
import scipy.ndimage
from command import call
from half_volumes import halves, noise, pair_of, signal, write
from tiny_series import made, write_series

from cryolithe.artefacts.half_agreement import agreement
from cryolithe.denoising.n2n.halves import open_pair
from cryolithe.denoising.n2n.pairs import Patches, Turn, allowed_turns, held_rows
from cryolithe.errors import InputError

SHAPE = (24, 48, 40)


def refused(folder, first, second, said):
    with pytest.raises(InputError, match=said):
        pair_of(folder, first, second)


@pytest.mark.parametrize("level", [0.5, 2.0])
def test_independent_halves_pass_without_a_word(tmp_path, level):
    pair = pair_of(tmp_path, *halves(level=level))
    assert pair.warnings == ()
    assert pair.voxel_size_angstrom == 10.0
    assert pair.found.low > 0.1
    assert pair.found.distance_px < 0.3


def test_each_half_is_standardised_as_a_whole_by_its_own_levels(tmp_path):
    first, second = halves()
    pair = pair_of(tmp_path, 300 + 7 * first, -2 + 0.1 * second)
    for half, values in ((pair.first, first), (pair.second, second)):
        box = (slice(2, 9), slice(5, 40), slice(1, 30))
        expected = (values - np.median(values)) / values.std()
        np.testing.assert_allclose(half.box(box), expected[box], atol=0.15)
        whole = half.box((slice(None), slice(None), slice(None)))
        np.testing.assert_array_equal(half.box(box), whole[box])  # never patch by patch


def test_the_same_file_and_the_same_voxels_are_refused(tmp_path):
    first, _ = halves()
    path = write(tmp_path / "a.mrc", first)
    with pytest.raises(InputError, match="same file"):
        open_pair(path, path)
    (tmp_path / "link.mrc").symlink_to(path)
    with pytest.raises(InputError, match="same file"):
        open_pair(path, tmp_path / "link.mrc")
    refused(tmp_path, first, first, "same voxels")


def test_other_shapes_voxel_sizes_and_contrasts_are_refused(tmp_path):
    first, second = halves()
    refused(tmp_path, first, second[:, 1:], "shape")
    refused(tmp_path, first, -second, "opposite contrast")
    one, other = write(tmp_path / "b.mrc", first), write(tmp_path / "c.mrc", second, 10.4)
    with pytest.raises(InputError, match="voxel size"):
        open_pair(one, other)
    write(other, second)
    for path, contrast in ((one, "dark"), (other, "bright")):
        record = {"volume": {"path": path.name, "contrast": contrast}}
        path.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="contrast"):
        open_pair(one, other)


@pytest.mark.parametrize(
    "other",
    [
        lambda first, second: 3 * first + 1,
        lambda first, second: first + 0.02 * second,
        lambda first, second: scipy.ndimage.gaussian_filter(first, 0.8),
    ],
    ids=["scaled", "mixed", "filtered"],
)
def test_copies_of_one_half_are_refused(tmp_path, other):
    first, second = halves()
    refused(tmp_path, first, other(first, second), "same noise")


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_halves_that_share_noise_are_told_of(tmp_path, share):
    common = noise(SHAPE, 7)
    pair = pair_of(tmp_path, *(share * common + (1 - share) * h for h in halves(level=1.0)))
    assert any("share noise" in text for text in pair.warnings)


def test_low_passed_halves_are_judged_where_they_have_power(tmp_path):
    smooth = [scipy.ndimage.gaussian_filter(h, 1.2) for h in halves(level=3.0)]
    assert pair_of(tmp_path, *smooth).warnings == ()


@pytest.mark.slow
def test_halves_of_nothing_are_told_of_and_chance_is_what_it_is_said_to_be(tmp_path):
    pair = pair_of(tmp_path, noise(SHAPE, 0), noise(SHAPE, 1))
    assert any("nothing in common" in text for text in pair.warnings)
    scores = [agreement(noise(SHAPE, 2 * n), noise(SHAPE, 2 * n + 1)) for n in range(40)]
    for value, sigma in (("low", "low_sigma"), ("high", "high_sigma")):
        ratio = np.array([getattr(s, value) / getattr(s, sigma) for s in scores])
        assert 0.7 < ratio.std() < 1.4
        assert np.abs(ratio).max() < 5


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (0.5, -0.4, 0.3), (-2.25, 0.0, 5.6), (0, 0, -0.35)])
def test_the_shift_between_halves_is_measured_and_said(tmp_path, shift):
    first = signal(SHAPE) + 0.7 * noise(SHAPE, 0)
    second = signal(SHAPE, shift=shift) + 0.7 * noise(SHAPE, 1)
    pair = pair_of(tmp_path, first, second)
    assert pair.found.shift_px == pytest.approx(shift, abs=0.15)
    assert any("shifted" in text for text in pair.warnings) == (np.hypot.reduce(shift) > 0.3)


def test_values_that_are_no_numbers_are_refused_or_repaired(tmp_path):
    first, second = halves()
    one, other = write(tmp_path / "a.mrc", first), write(tmp_path / "b.mrc", second)
    first[3, 4, 5] = np.nan
    one.write_bytes(one.read_bytes()[: -first.nbytes] + first.tobytes())
    with pytest.raises(InputError, match="not finite"):
        open_pair(one, other)
    pair = open_pair(one, other, repair=True)
    assert pair.first.box((slice(3, 4), slice(4, 5), slice(5, 6))) == 0


def test_small_volumes_are_refused(tmp_path):
    refused(tmp_path, *halves((8, 40, 40)), "at least 16")


def test_the_turns_are_a_group_that_keeps_the_tilt_axis():
    cube = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    turns = allowed_turns((3, 3, 3))
    results = {turn(cube).tobytes(): turn for turn in turns}
    assert len(results) == 16
    for a in turns:
        for b in turns:
            assert a(b(cube)).tobytes() in results
    along_y = np.zeros((5, 5, 5), np.float32)
    along_y[2, :, 2] = 1
    for turn in turns:
        np.testing.assert_array_equal(turn(along_y), along_y)
    assert len(allowed_turns((2, 3, 3))) == 8
    assert not any(turn.quarter for turn in allowed_turns((2, 3, 3)))


def test_a_half_turn_is_two_quarters():
    values = noise((4, 5, 4), 0)
    quarter = Turn(quarter=True)
    np.testing.assert_array_equal(quarter(quarter(values)), Turn((True, False, True))(values))


def test_both_patches_of_a_pair_show_the_same_place_turned_alike(tmp_path):
    pair = pair_of(tmp_path, signal(SHAPE) + noise(SHAPE, 1), signal(SHAPE) + noise(SHAPE, 2))
    patches = Patches([pair], 16, 8, seed=1)
    first, second = (half.box((slice(None),) * 3) for half in (pair.first, pair.second))
    orders = set()
    for step in range(12):
        inputs, targets = patches.batch(step, 1)
        found = [_find(volume, inputs[0, 0].numpy()) for volume in (first, second)]
        other = [_find(volume, targets[0, 0].numpy()) for volume in (second, first)]
        assert (found[0] is None) != (found[1] is None)
        assert [f is None for f in found] == [o is None for o in other]
        assert found == other
        orders.add(found[0] is None)
    assert orders == {True, False}  # both directions are learned


def _find(volume, patch):
    """Place and turn of a patch in a volume, or None."""
    for turn in allowed_turns(patch.shape):
        # A turned patch is undone by looking for its turned corner among all turned windows of the volume.
        turned = turn(volume)
        hits = np.argwhere(
            turned[: -patch.shape[0] + 1, : -patch.shape[1] + 1, : -patch.shape[2] + 1] == patch[0, 0, 0]
        )
        for z, y, x in hits:
            window = turned[z : z + patch.shape[0], y : y + patch.shape[1], x : x + patch.shape[2]]
            if np.array_equal(window, patch):
                return turn, (int(z), int(y), int(x))
    return None


def test_what_is_held_back_is_never_learned_from_and_shown_whole(tmp_path):
    first, second = halves((24, 128, 40))
    rows = held_rows(128)
    first[:, -rows:] += 100
    second[:, -rows:] += 100
    pair = pair_of(tmp_path, first, second)
    patches = Patches([pair], 16, 8, seed=0)
    edge = pair.first.box((slice(0, 1), slice(127, 128), slice(0, 1)))
    assert edge.item() == 10  # the rows held back stand out, up to where values are clipped
    for step in range(20):
        for values in patches.batch(step, 2):
            assert float(values.max()) < edge.item() / 2
    held = list(patches.held_back(100))
    assert len(held) == (24 // 16) * (40 // 16)
    for values in (half for both in held for half in both):
        assert values.shape == (1, 1, 16, rows, 16)
        assert float(values.min()) == edge.item()
    assert len(list(patches.held_back(1))) == 1


def test_a_step_is_decided_by_its_number(tmp_path):
    pairs = [pair_of(tmp_path, *halves(seed=n), name=str(n)) for n in (0, 1)]
    a, b = (Patches(pairs, 16, 8, seed=3) for _ in range(2))
    a.batch(0, 4)  # what was drawn before makes no difference
    for x, y in zip(a.batch(5, 3), b.batch(5, 3), strict=True):
        assert x.equal(y)
    assert not a.batch(6, 3)[0].equal(a.batch(5, 3)[0])
    assert not Patches(pairs, 16, 8, seed=4).batch(5, 3)[0].equal(a.batch(5, 3)[0])


def test_volumes_smaller_than_a_patch_give_smaller_patches(tmp_path):
    pair = pair_of(tmp_path, *halves((16, 30, 45)))
    patches = Patches([pair], 64, 8, seed=0)
    assert patches.shape == (16, 16, 40)
    assert patches.batch(0, 2)[0].shape == (2, 1, 16, 16, 40)


def record_of(path, tilts, sections):
    words = {"volume": {"path": path.name}, "inputs": {"tilts": {"sha256": tilts}}, "geometry": {"sections": sections}}
    path.with_suffix(".json").write_text(json.dumps(words))


@pytest.mark.parametrize(
    ("tilts", "sections", "right"),
    [
        (("a", "b"), ([1, 2, 3], [1, 2, 3]), True),  # halves of the frames
        (("a", "a"), ([1, 3], [2, 4]), True),  # halves of the tilts
        (("a", "a"), ([1, 2, 3], [1, 2, 3]), False),
        (("a", "a"), ([1, 2, 3], [3, 4]), False),
        (("a", "a"), (None, None), False),
        ((None, None), ([1], [1]), True),
    ],
)
def test_halves_of_the_same_images_are_refused_by_their_records(tmp_path, tilts, sections, right):
    paths = [write(tmp_path / f"{name}.mrc", values) for name, values in zip("pq", halves(), strict=True)]
    for path, stack, used in zip(paths, tilts, sections, strict=True):
        record_of(path, stack, used)
    if right:
        open_pair(*paths)
        return
    with pytest.raises(InputError, match=r"made of the same images by their records.*give volumes of the even and"):
        open_pair(*paths)


def test_two_methods_of_one_series_are_no_halves(tmp_path):
    stack, angles = write_series(tmp_path)
    for method in ("fbp", "sirt"):
        made(stack, angles, "--method", method, "--thickness", 24, "-o", tmp_path / f"{method}.mrc")
    names = ["--half1", str(tmp_path / "fbp.mrc"), "--half2", str(tmp_path / "sirt.mrc")]
    result = call("denoise", "--method", "n2n", *names, "--device", "cpu")
    assert result.exit_code == 2, result.output
    assert "the same noise" in result.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("*n2n*"))
