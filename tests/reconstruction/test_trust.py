"""What tilts that are left out confirm of a network's missing wedge, and what becomes of the rest."""

import json

import numpy as np
import pytest
import scipy.ndimage
import torch
from tiny_series import run, write_model, write_series

from cryolithe.column_shifts import ColumnShifts
from cryolithe.formats import read_volume
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.slabwise import mixing
from cryolithe.reconstruction.slabwise.methods import FbpMethod
from cryolithe.reconstruction.slabwise.mixing import Parts, Reader, finished_method, measure_trust
from cryolithe.reconstruction.slabwise.networks import wedge_trust
from cryolithe.reconstruction.slabwise.planes import measured_region
from cryolithe.reconstruction.slabwise.trust import (
    BINS,
    FEWEST_TILTS,
    Seen,
    WedgeTrust,
    choose_trials,
    confirmed_trust,
    constant_trust,
    trust_of_record,
    wedge_filter,
)

ANGLES = tuple(float(angle) for angle in range(-60, 61, 3))
SHAPE = (40, 48, 64)  # (z, y, x)
CPU = torch.device("cpu")
TRIALS = choose_trials(ANGLES)


def specimen(seed):
    rng = np.random.default_rng(seed)
    return scipy.ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.2).astype(np.float32)


def in_wedge(volume, trial):
    """What no tilt measured of those that a trial keeps."""
    kept = np.asarray(ANGLES)[trial.inner]
    z, x = np.fft.fftfreq(volume.shape[0])[:, None, None], np.fft.fftfreq(volume.shape[2])[None, None, :]
    angle = (np.degrees(np.arctan2(z, x)) + 90) % 180 - 90
    missing = (angle < kept.min() - 1.5) | (angle > kept.max() + 1.5)
    return np.fft.ifftn(np.fft.fftn(volume) * missing).real


def part_of(projector, trial, networks, images):
    """What `confirmed_trust` takes of a part."""
    found = []
    for values, tilts in zip(networks, (trial.ends, trial.between), strict=True):
        voxels = torch.from_numpy(values.astype(np.float32))
        chosen = torch.zeros(len(images))
        chosen[torch.from_numpy(tilts)] = 1
        seen = (images, projector.forward(voxels))
        found.append(Seen(voxels, *(fbp(projector, some * chosen[:, None, None], "ramp") for some in seen)))
    return trial, *found


def confirmed(right, gain=1.0, noise=0.3, seed=0, at_ends=1.0):
    """Of parts in which the network's missing wedge is to a share ``right`` of the specimen, the rest invented."""
    geometry, parts = TiltGeometry(ANGLES, SHAPE[1:]), []
    projector = make_projector(geometry, (SHAPE[0], SHAPE[2]))
    for number, trial in enumerate((*TRIALS, *TRIALS)):
        truth = specimen([seed, number])
        invented = in_wedge(specimen([seed, 50 + number]), trial)
        wedge = in_wedge(truth, trial)
        # The regression of the truth on this is ``right`` in the wedge and 1 elsewhere.
        filled = wedge + np.sqrt((1 - right) / right) * invented
        networks = gain * (truth - wedge + filled), gain * truth
        images = projector.forward(torch.from_numpy(truth))
        images[trial.ends] *= at_ends
        rng = np.random.default_rng([seed, 100 + number])
        images = images + noise * images.std() * torch.from_numpy(rng.standard_normal(images.shape, np.float32))
        parts.append(part_of(projector, trial, networks, images))
    return confirmed_trust(parts, geometry)


def of_bands(volume, low, high):
    """What of a volume lies between two distances from the axis of tilt, cycles/px."""
    z, x = np.fft.fftfreq(volume.shape[0])[:, None, None], np.fft.fftfreq(volume.shape[2])
    radius = np.hypot(z, x)
    return np.fft.ifftn(np.fft.fftn(volume) * ((radius >= low) & (radius < high))).real


def parts_by(network_of, noise, seed, on_images=lambda images: images):
    """Both trials twice, of networks that ``network_of(truth, invented, trial)`` makes of the first of each."""
    projector = make_projector(TiltGeometry(ANGLES, SHAPE[1:]), (SHAPE[0], SHAPE[2]))
    for number, trial in enumerate((*TRIALS, *TRIALS)):
        truth, invented = specimen([seed, number]), in_wedge(specimen([seed, 50 + number]), trial)
        images = projector.forward(torch.from_numpy(truth))
        rng = np.random.default_rng([seed, 100 + number])
        images = images + noise * images.std() * torch.from_numpy(rng.standard_normal(images.shape, np.float32))
        networks = network_of(truth, invented, trial), truth
        yield part_of(projector, trial, networks, on_images(images))


def at_matter(trust):
    """Mean over the bins in which the specimen has power."""
    return float(np.mean(trust.kept[2:6]))


@pytest.mark.parametrize("right", [1.0, 0.6, 0.3])
def test_the_share_that_is_right_is_found(right):
    assert at_matter(confirmed(right)) == pytest.approx(right, abs=0.08)


def test_what_is_all_invented_is_not_believed():
    geometry = TiltGeometry(ANGLES, SHAPE[1:])
    projector = make_projector(geometry, (SHAPE[0], SHAPE[2]))
    truth, other = specimen(1), specimen(2)
    images = projector.forward(torch.from_numpy(truth))
    parts = [
        part_of(projector, trial, (truth - in_wedge(truth, trial) + in_wedge(other, trial), truth), images)
        for trial in TRIALS
    ]
    assert at_matter(confirmed_trust(parts, geometry)) < 0.2


def test_amplitudes_have_no_say():
    assert confirmed(0.5, gain=7.0).kept == pytest.approx(confirmed(0.5).kept, abs=1e-3)


def test_what_high_tilts_lose_has_no_say():
    """Thickness and damage weaken what the outermost images show; the network is no less right for that."""
    assert at_matter(confirmed(0.9, at_ends=0.5)) == pytest.approx(0.9, abs=0.12)


def test_more_noise_does_not_make_a_network_less_right():
    assert at_matter(confirmed(0.9, noise=2.0)) > 0.65


def test_what_is_tried_is_what_would_be_weakened():
    """Of coarse structures most of the missing wedge lies within a slice's thickness of what was measured."""

    def right_near_the_border(truth, invented, trial):
        z, x = np.fft.fftfreq(SHAPE[0])[:, None, None], np.fft.fftfreq(SHAPE[2])
        near = measured_region(tuple(np.asarray(ANGLES)[trial.inner]), z, x, SHAPE[0] / 2) > 0  # one slice and less
        far = np.fft.ifftn(np.fft.fftn(in_wedge(truth, trial)) * ~near).real
        return truth - far + np.fft.ifftn(np.fft.fftn(invented) * ~near).real

    found = confirmed_trust(parts_by(right_near_the_border, 0.1, 0), TiltGeometry(ANGLES, SHAPE[1:]))
    assert found.kept[1] > 0.4  # whose missing region in the trial is a slice wide
    assert found.kept[7] < 0.35  # five


def test_fine_details_have_no_say_in_coarse_ones():
    """Half of the bins lie within the finest octave."""
    geometry = TiltGeometry(ANGLES, SHAPE[1:])

    def right_if_coarse(truth, invented, trial):
        return truth - of_bands(in_wedge(truth, trial), 0.125, 1) + of_bands(invented, 0.125, 1)

    found = confirmed_trust(parts_by(right_if_coarse, 1.0, 0), geometry)
    assert min(found.kept[1:3]) > 0.8
    assert max(found.kept[4:7]) < 0.25


@pytest.mark.parametrize("limit_per_px", [0.33, 0.25, 0.17])
@pytest.mark.parametrize("levels", [None, 30])
def test_beyond_the_limit_of_a_filter_nothing_is_told(limit_per_px, levels):
    """Binned and filtered images hold nothing there, or what rounding leaves; a network may draw what it likes."""
    geometry = TiltGeometry(ANGLES, SHAPE[1:])

    def network(truth, invented, trial):
        wedge = in_wedge(truth, trial)
        grain = 0.02 * truth.std() * np.random.default_rng(9).standard_normal(truth.shape)
        return truth + 0.6 * (invented - wedge) + grain

    def cut(images):
        y, x = torch.fft.fftfreq(images.shape[1])[:, None], torch.fft.rfftfreq(images.shape[2])
        images = torch.fft.irfft2(torch.fft.rfft2(images) * (torch.hypot(y, x) <= limit_per_px), s=images.shape[1:])
        return images if levels is None else (images * levels / images.std()).round()

    whole = confirmed_trust(parts_by(network, 0.5, 0), geometry)
    found = confirmed_trust(parts_by(network, 0.5, 0, cut), geometry)
    held = int(2 * BINS * limit_per_px) - 1
    assert found is not None
    assert found.kept[1:held] == pytest.approx(whole.kept[1:held], abs=0.06)


def test_parts_that_tell_nothing_have_no_say():
    trial, geometry = TRIALS[0], TiltGeometry(ANGLES, SHAPE[1:])
    nothing = torch.zeros(SHAPE)
    assert confirmed_trust([(trial, *(Seen(nothing, nothing, nothing),) * 2)], geometry) is None
    bad = torch.full(SHAPE, float("nan"))
    assert confirmed_trust([(trial, *(Seen(bad, bad, bad),) * 2)], geometry) is None
    rng = np.random.default_rng(3)
    projector = make_projector(geometry, (SHAPE[0], SHAPE[2]))
    images = torch.from_numpy(rng.standard_normal((len(ANGLES), *SHAPE[1:]), np.float32))
    noise = rng.standard_normal(SHAPE, np.float32)
    assert confirmed_trust([part_of(projector, trial, (noise, noise), images)], geometry) is None


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_a_trial_leaves_out_the_tilts_of_a_side_and_some_of_them(order, side):
    angles = np.array(ANGLES) + 7.0
    if order == "shuffled":
        angles = np.random.default_rng(0).permutation(angles)
    trial = choose_trials(tuple(angles))[side]
    assert sorted((*trial.inner, *trial.ends)) == list(range(len(angles)))
    left_out, inside = angles[trial.ends], angles[trial.inner]
    assert (left_out > inside.max()).all() if side else (left_out < inside.min()).all()
    assert set(trial.between) < set(trial.ends)
    kept = np.sort(angles[trial.others])
    assert sorted((*trial.others, *trial.between)) == list(range(len(angles)))
    # What the second trial leaves out lies between two that it keeps, as far out as inside.
    assert all(kept.min() < angle < kept.max() for angle in angles[trial.between])
    assert np.diff(kept).max() == pytest.approx(6.0)
    assert abs(angles[trial.between].mean() - left_out.mean()) <= 3.0


@pytest.mark.parametrize(("limit", "step"), [(60, 3), (60, 2), (70, 2), (54, 3), (78, 3)])
def test_a_trial_reaches_as_deep_as_the_missing_wedge(limit, step):
    """But never takes more than a quarter of what was measured, or fewer than three tilts."""
    angles = np.arange(-limit, limit + 1, step, dtype=float)
    for trial in choose_trials(tuple(angles)):
        gap = np.ptp(angles) - np.ptp(angles[trial.inner])
        deep = min(90 - limit, 2 * limit / 4)
        assert deep - step <= gap <= max(deep, 3 * step) + 1e-9


def test_no_trial_of_few_tilts_or_of_a_whole_turn():
    assert choose_trials(tuple(np.linspace(-60, 60, FEWEST_TILTS - 1))) is None
    assert choose_trials(tuple(np.linspace(-60, 60, FEWEST_TILTS))) is not None
    assert choose_trials((1.0,) * 50 + (2.0,)) is None
    assert choose_trials(tuple(np.arange(-88.5, 90, 3.0))) is None


def waves(angle_deg, cycles=10, shape=(64, 1, 96)):
    """A wave whose direction is so far from x, of about ``cycles`` over the width."""
    z, _, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    q, a = cycles / shape[2], np.radians(angle_deg)
    return torch.from_numpy(np.cos(2 * np.pi * q * (x * np.cos(a) + z * np.sin(a))).astype(np.float32))


def test_the_filter_keeps_what_was_measured_and_weakens_the_rest():
    inner = (slice(16, -16), slice(None), slice(16, -16))
    keep = wedge_filter(constant_trust(0.25), ANGLES, (64, 96), CPU)
    for angle, share in ((20, 1.0), (-50, 1.0), (0, 1.0), (90, 0.25), (78, 0.25), (-80, 0.25)):
        wave = waves(angle)
        made = keep(wave.clone())[inner]
        ours = float((made * wave[inner]).sum() / wave[inner].square().sum())
        assert ours == pytest.approx(share, abs=0.05), angle


def test_what_is_the_same_along_x_stays_unless_nothing_is_wanted():
    profile = torch.hann_window(64).view(64, 1, 1).expand(64, 2, 96).contiguous()
    trust = WedgeTrust((0.2,) * BINS, "tilts")
    torch.testing.assert_close(wedge_filter(trust, ANGLES, (64, 96), CPU)(profile.clone()), profile, atol=1e-5, rtol=0)
    emptied = wedge_filter(constant_trust(0.0), ANGLES, (64, 96), CPU)(profile.clone())
    assert float(emptied.var()) < 0.05 * float(profile.var())


def test_the_filter_is_linear_and_all_of_it_is_nothing():
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.standard_normal((24, 3, 40), np.float32)) for _ in range(2))
    trust = WedgeTrust(tuple(np.linspace(0.9, 0.1, BINS)), "tilts")
    keep = wedge_filter(trust, ANGLES, (24, 40), CPU)
    torch.testing.assert_close(keep(2 * a - b), 2 * keep(a.clone()) - keep(b.clone()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(keep(a.clone())[:, 1:2], keep(a[:, 1:2].clone()))  # rows know nothing of each other
    torch.testing.assert_close(
        wedge_filter(constant_trust(1.0), ANGLES, (24, 40), CPU)(a.clone()), a, atol=1e-5, rtol=0
    )
    assert trust_of_record(json.loads(json.dumps(trust.record()))) == trust


def test_nothing_is_done_where_all_is_believed():
    method = object()
    geometry = TiltGeometry(ANGLES, SHAPE[1:])
    grid = type("Grid", (), {"shape": SHAPE})()
    assert finished_method(method, None, geometry, grid, constant_trust(1.0)) is method
    assert finished_method(method, None, geometry, grid, None) is method


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust")
    rng = np.random.default_rng(5)
    volume = scipy.ndimage.gaussian_filter(rng.standard_normal((24, 48, 56)), 1.5).astype(np.float32)
    angles = (*range(-57, 58, 6), 60)
    geometry = TiltGeometry(tuple(map(float, angles)), (48, 56))
    images = make_projector(geometry, (24, 56)).forward(torch.from_numpy(volume)).numpy()
    images = images + 0.5 * images.std() * rng.standard_normal(images.shape)
    stack, tlt = write_series(folder, images.astype(np.float32), angles)
    model = write_model(folder / "model.safetensors")
    return folder, (stack, tlt, "--model", model, "--thickness", 24, "--contrast", "bright", "--device", "cpu")


def made(series, name, *words):
    folder, common = series
    path = folder / f"{name}.mrc"
    result = run(*common, "-o", path, "--overwrite", *words)
    assert result.exit_code == 0, result.output
    return np.asarray(read_volume(path).voxels), json.loads(path.with_suffix(".json").read_text()), result.output


def missing_share(volume):
    z, x = np.fft.fftfreq(volume.shape[0])[:, None, None], np.fft.fftfreq(volume.shape[2])[None, None, :]
    missing = 1 - measured_region((-57.0, 0.0, 60.0), z, x, volume.shape[0])
    power = np.abs(np.fft.fftn(volume - volume.mean())) ** 2
    return float((power * (missing >= 1)).sum() / power.sum())


def test_the_command_keeps_all_some_or_nothing(series):
    full, said, _ = made(series, "full", "--wedge-trust", "full")
    none, _, told = made(series, "none", "--wedge-trust", "none")
    auto, record, line = made(series, "auto")
    assert said["method"]["wedge_trust"] is None
    assert missing_share(none) < 0.1 * missing_share(full)
    assert "0% at" in told
    found = record["method"]["wedge_trust"]
    assert found["source"] in ("tilts", "expected")
    assert ("left-out tilts confirm" in line) == (found["source"] == "tilts")
    assert ("left-out tilts tell nothing" in line) == (found["source"] == "expected")
    assert missing_share(none) <= missing_share(auto) <= missing_share(full) * (1 + 1e-6)


def test_too_few_tilts_for_a_trial_are_told_of(tmp_path):
    stack, tlt = write_series(tmp_path)
    model = write_model(tmp_path / "model.safetensors")
    common = (stack, tlt, "--model", model, "--thickness", 8, "--overwrite")
    for flags, told in (((), True), (("--wedge-trust", "full"), False)):
        result = run(*common, *flags)
        assert result.exit_code == 0, result.output
        assert (f"fewer than {FEWEST_TILTS} angles" in result.stderr) == told
        assert "Testing the missing wedge" not in result.stderr


def test_slabs_do_not_show(series):
    folder, _ = series
    made(series, "whole", "--wedge-trust", "none")
    made(series, "again", "--wedge-trust", "none")
    assert (folder / "whole.mrc").read_bytes()[1024:] == (folder / "again.mrc").read_bytes()[1024:]


def test_a_published_convention_is_applied_as_published():
    class Published:
        name = "theirs"
        convention = type("Convention", (), {"published": True})()

    class Ours:
        name = "ours"
        convention = type("Convention", (), {"published": False})()

    assert wedge_trust(Published(), None) == wedge_trust(Published(), "full") == "full"
    assert wedge_trust(Ours(), None) == "auto"
    with pytest.raises(Exception, match="as published"):
        wedge_trust(Published(), "auto")


def test_trials_project_each_row_where_its_shifts_see_it(monkeypatch):
    """Shifts of columns change from band to band: what a network made is projected row by row, as the images are."""
    nodes = [np.linspace(-half, half, count) for half, count in ((24, 5), (20, 3), (32, 4))]
    values = 2 * np.random.default_rng(3).standard_normal((len(ANGLES), 5, 3, 4), dtype=np.float32)
    depth, height, width = SHAPE
    geometry = TiltGeometry(ANGLES, (height, width), ColumnShifts(*nodes, values))
    images = torch.from_numpy(np.random.default_rng(4).standard_normal((len(ANGLES), height, width), dtype=np.float32))
    tried = []
    monkeypatch.setattr(mixing, "confirmed_trust", lambda found, geometry: tried.extend(found))

    def make(tilts, grid):
        return FbpMethod(make_projector(geometry.select(tilts), (grid.shape[0], width)), "cosine")

    parts = Parts(VolumeGrid((depth, 16, width)), (5,))
    measure_trust(make, TRIALS[:1], geometry, parts, Reader(lambda first, stop: images[:, first:stop], 6))
    ((trial, *both),) = tried
    projector = make_projector(geometry, (depth, width))
    for seen, left_out in zip(both, (trial.ends, trial.between), strict=True):
        chosen = torch.zeros(len(ANGLES), 1, 1)
        chosen[torch.from_numpy(left_out)] = 1
        for row in range(16):
            at, one = projector.at_row(5 + row), slice(row, row + 1)
            again = fbp(at, chosen * at.forward(seen.network[:, one]), "ramp")
            theirs = fbp(at, chosen * images[:, 5 + row : 6 + row], "ramp")
            for found, expected in ((seen.again, again), (seen.back, theirs)):
                assert torch.allclose(found[:, one], expected, atol=1e-4 * float(found.abs().max()))
