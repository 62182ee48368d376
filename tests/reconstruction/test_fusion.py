"""A share of filtered back-projection in a network's volume: closed forms, laws of its parts, and the real command."""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_series import CONFIG, made, run, write_model, write_series

from cryolithe.column_shifts import ColumnShifts
from cryolithe.errors import ModelError, SettingsError
from cryolithe.fidelity import BANDS, Region, class_fidelity
from cryolithe.formats import read_volume
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.network import build_network
from cryolithe.network.checkpoint import load_model
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.projector.torch_engine import TorchProjector
from cryolithe.reconstruction.slabwise.fusion import (
    REACH_PX,
    SHELLS,
    Fusion,
    FusionCurve,
    curve_of_record,
    match_amplitudes,
    measured_region,
    part_starts,
)
from cryolithe.reconstruction.slabwise.methods import NetworkMethod
from cryolithe.reconstruction.slabwise.mixing import Parts, Reader, choose_parts, finished_method, measure_curve
from cryolithe.reconstruction.slabwise.networks import fbp_share
from cryolithe.sampling import reflected_rows
from cryolithe.training.scoring import mix_array, reconstruct_array

FLAT = (1.0,) * SHELLS
ALL_ROUND = tuple(float(a) for a in np.arange(-90.0, 90.0, 5.0))
WEDGE = tuple(float(a) for a in np.arange(-60.0, 61.0, 4.0))
FALLING = tuple(float(c) for c in np.exp(-3.0 * np.arange(1, SHELLS + 1) / SHELLS))


def images(angles, height, width, seed=0):
    found = np.random.default_rng(seed).standard_normal((len(angles), height, width)).astype(np.float32)
    return found - found.mean(axis=(1, 2), keepdims=True)


def with_halo(rows, halo=REACH_PX):
    height = rows.shape[1]
    return torch.from_numpy(rows[:, reflected_rows(-halo, height + 2 * halo, height)])


def tiny_network():
    torch.manual_seed(0)
    return build_network(CONFIG)


def ball(shape, radius):
    z, y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    return (z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < radius**2).astype(np.float32)


def matched(pairs):
    return match_amplitudes([tuple(torch.as_tensor(part).float() for part in pair) for pair in pairs], WEDGE)


# Closed forms


@pytest.mark.parametrize("shape", [(24, 9, 33), (17, 12, 40), (8, 5, 20)])
def test_of_an_empty_network_a_share_of_the_back_projection_is_left_where_all_was_measured(shape):
    projector = make_projector(TiltGeometry(ALL_ROUND, shape[1:]), (shape[0], shape[2]))
    rows = images(ALL_ROUND, *shape[1:])
    found = Fusion(FusionCurve(0.3, FLAT), projector)(torch.zeros(shape), with_halo(rows))
    np.testing.assert_allclose(found, 0.3 * fbp(projector, torch.from_numpy(rows)), atol=2e-6 * len(ALL_ROUND))


def test_a_network_that_shows_what_the_back_projection_shows_is_left_alone():
    shape = (32, 16, 48)
    projector = make_projector(TiltGeometry(WEDGE, shape[1:]), (shape[0], shape[2]))
    rows = projector.forward(torch.from_numpy(ball(shape, 9)))
    back = fbp(projector, rows - rows.mean(dim=(1, 2), keepdim=True))
    rows = (rows - rows.mean(dim=(1, 2), keepdim=True)).numpy()
    amplitude = matched([((0.4 * back).numpy(), back.numpy())])
    np.testing.assert_allclose(amplitude, 0.4, rtol=1e-5)
    found = Fusion(FusionCurve(0.5, amplitude), projector)(0.4 * back, with_halo(rows))
    np.testing.assert_allclose(found, 0.4 * back, atol=1e-5 * float(back.abs().max()))


def test_a_filter_over_the_detector_is_the_filter_of_the_volume():
    """Along z, y and x alike: A curve over |k| before back-projection does what it does after it."""
    shape = (48, 48, 48)
    projector = make_projector(TiltGeometry(ALL_ROUND, shape[1:]), (shape[0], shape[2]))
    volume = ball(shape, 8)
    rows = projector.forward(torch.from_numpy(volume))
    back = fbp(projector, rows).numpy()
    curve = FusionCurve(0.9, FALLING)
    found = Fusion(curve, projector)(torch.zeros(shape), with_halo(rows.numpy())).numpy()
    z, y, x = np.fft.fftfreq(48)[:, None, None], np.fft.fftfreq(48)[:, None], np.fft.rfftfreq(48)
    gain = 0.9 * curve.at(np.sqrt(z**2 + y**2 + x**2))
    expected = np.fft.irfftn(np.fft.rfftn(back) * gain, shape, axes=(0, 1, 2))
    inner = (slice(8, -8),) * 3
    difference = (found - expected)[inner]
    # The curve is sharpest at 0, where a filter of 25 rows rounds it off.
    assert np.sqrt((difference**2).mean()) < 0.05 * expected[inner].std()


def test_what_no_tilt_measured_stays_the_networks():
    shape = (48, 6, 48)
    projector = make_projector(TiltGeometry(WEDGE, shape[1:]), (shape[0], shape[2]))
    rows, network = images(WEDGE, *shape[1:]), np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    z, x = np.fft.fftfreq(48)[:, None], np.fft.rfftfreq(48)
    missing = (np.degrees(np.arctan2(np.abs(z), np.abs(x))) > 68) & (np.hypot(z, x) > 0.15)
    fade = np.hanning(48)[:, None, None] * np.hanning(48)
    mixed = Fusion(FusionCurve(0.5, FALLING), projector)(torch.from_numpy(network.copy()), with_halo(rows)).numpy()
    before, change = (np.abs(np.fft.rfft2(fade * v, axes=(0, 2))) ** 2 for v in (network, mixed - network))
    assert change[missing[:, None].repeat(6, axis=1)].sum() < 0.01 * before[missing[:, None].repeat(6, axis=1)].sum()
    measured = (np.degrees(np.arctan2(np.abs(z), np.abs(x))) < 50) & (np.hypot(z, x) > 0.1)
    assert change[measured[:, None].repeat(6, axis=1)].sum() > 0.1 * before[measured[:, None].repeat(6, axis=1)].sum()


def test_it_is_linear_in_network_and_images_together():
    shape = (16, 7, 25)
    projector = make_projector(TiltGeometry(WEDGE, shape[1:]), (shape[0], shape[2]))
    fusion = Fusion(FusionCurve(0.4, FALLING), projector)
    rng = np.random.default_rng(5)
    volumes = [torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for _ in range(2)]
    stacks = [with_halo(images(WEDGE, *shape[1:], seed)) for seed in (1, 2)]
    parts = [fusion(v.clone(), r) for v, r in zip(volumes, stacks, strict=True)]
    together = fusion(2 * volumes[0] - 3 * volumes[1], 2 * stacks[0] - 3 * stacks[1])
    np.testing.assert_allclose(together, 2 * parts[0] - 3 * parts[1], atol=2e-4)


# The amplitude of what both show


def test_the_amplitude_of_a_filtered_copy_is_found_through_independent_noise():
    rng = np.random.default_rng(2)
    shape = (48, 64, 64)
    signal, noise, other = (rng.standard_normal(shape) for _ in range(3))
    radius = np.sqrt(
        np.fft.fftfreq(48)[:, None, None] ** 2 + np.fft.fftfreq(64)[:, None] ** 2 + np.fft.rfftfreq(64) ** 2
    )
    gain = np.exp(-4 * radius)
    ours = np.fft.irfftn(np.fft.rfftn(signal) * gain, shape, axes=(0, 1, 2)) + 0.1 * other
    back = signal + noise
    found = np.array(matched([(ours, back)]))
    expected = np.exp(-4 * np.arange(1, SHELLS + 1) / (2 * SHELLS)) / 2  # half of the power of `back` is noise
    np.testing.assert_allclose(found[5:], expected[5:], atol=0.03)
    scaled = matched([(3 * ours, 0.5 * back)])
    np.testing.assert_allclose(scaled, 6 * found, rtol=1e-4)
    opposite = matched([(-ours, back)])
    assert max(opposite) == 0  # never mixed in with the wrong sign


def test_several_parts_count_by_what_they_hold_and_thin_ones_do():
    rng = np.random.default_rng(3)
    strong, weak = (rng.standard_normal((16, 20, 24)).astype(np.float32) * s for s in (10.0, 0.1))
    found = matched([(0.5 * strong, strong), (2 * weak, weak)])
    np.testing.assert_allclose(found, 0.5, atol=0.01)
    for shape in ((1, 8, 8), (3, 5, 7), (8, 1, 9)):
        thin = rng.standard_normal(shape).astype(np.float32)
        found = matched([(0.25 * thin, thin)])
        assert len(found) == SHELLS
        np.testing.assert_allclose(found, 0.25, rtol=1e-4)
    assert matched([(np.zeros((8, 8, 8)),) * 2]) == (0.0,) * SHELLS


@pytest.mark.parametrize(
    ("angles", "inside", "outside"),
    [
        (range(-60, 61, 3), (-59, -30, 0, 30, 59), (-90, -70, 70, 90)),
        (range(-40, 71, 2), (-39, 0, 69), (-90, -50, 80, 90)),
        (range(0, 121, 3), (1, 60, 90, -61, -80), (-50, -10)),
        (range(-90, 90, 2), (-90, -45, 0, 45, 90), ()),
        ((20,), (20,), (-20, 0, 40, 90)),
    ],
)
def test_the_measured_region_lies_between_the_outermost_tilts(angles, inside, outside):
    angles = tuple(float(angle) for angle in angles)

    def at(direction):
        wave = 0.3 * np.exp(1j * np.radians(direction))
        one, other = (
            measured_region(angles, np.array([[sign * wave.imag]]), np.array([[sign * wave.real]]), 64)[0, 0]
            for sign in (1, -1)
        )
        assert one == other  # k and -k are one wave
        return one

    assert [at(direction) for direction in inside] == pytest.approx([1.0] * len(inside), abs=1e-9)
    assert [at(direction) for direction in outside] == [0.0] * len(outside)


def test_a_curve_survives_its_record():
    curve = FusionCurve(0.3, FALLING)
    assert curve_of_record(json.loads(json.dumps(curve.record()))) == curve


# Parts of a volume


@pytest.mark.parametrize("shape", [(400, 800, 800), (256, 256, 256), (1024, 2048, 2048), (32, 40, 48), (8, 3, 5)])
def test_parts_are_few_lie_inside_and_do_not_overlap(shape):
    parts = choose_parts(VolumeGrid(shape), 2)
    depth, rows, columns = parts.grid.shape
    assert (depth, rows, columns) <= shape
    assert rows % 2 == 0 or rows == 1
    starts = parts.starts
    assert all(b - a >= rows for a, b in itertools.pairwise(starts))
    assert starts[0] >= 0
    assert starts[-1] + rows <= shape[1]
    assert all(start % 2 == 0 for start in starts)
    voxels = depth * rows * columns * len(starts)
    assert voxels <= max(1 << 19, 0.06 * np.prod(shape), depth * 48 * 48)


def test_starts_lie_evenly():
    assert part_starts(100, 20, 3) == [6, 40, 73]
    assert part_starts(10, 20, 3) == [-5]
    assert part_starts(64, 64, 3) == [0]


def test_each_row_is_mixed_where_its_shifts_see_it():
    """Shifts of columns change from band to band, and slabs begin anywhere."""
    rng, first, rows = np.random.default_rng(3), 5, 14
    nodes = [np.linspace(-half, half, count) for half, count in ((15, 4), (6, 3), (12, 4))]
    shifts = ColumnShifts(*nodes, 2 * rng.standard_normal((len(WEDGE), 4, 3, 4), dtype=np.float32))
    projector = make_projector(TiltGeometry(WEDGE, (32, 30), shifts), (12, 30))
    seen, slow = (torch.from_numpy(rng.standard_normal((len(WEDGE), 32, 30), dtype=np.float32)) for _ in range(2))
    ours = torch.from_numpy(rng.standard_normal((12, rows, 30), dtype=np.float32))
    curve, halo = FusionCurve(0.3, FLAT), REACH_PX

    def mixed(projector, start, stop, first_row):
        part = Fusion(curve, projector, lambda _, count: slow[:, first + start : first + start + count])
        around = seen[:, reflected_rows(first + start - halo, stop - start + 2 * halo, 32)]
        return part(ours[:, start:stop].clone(), around, first_row)

    whole = mixed(projector, 0, rows, first)
    for row in range(rows):
        alone = mixed(projector.at_row(first + row), row, row + 1, 0)
        assert torch.allclose(whole[:, row : row + 1], alone, atol=1e-4 * float(whole.abs().max()))


# With a network


def curve_by_slabs(rows_at_a_time, notes=None):
    """The curve of a tiny network from two parts of 16 rows, with so many rows at a time."""
    network, shape = tiny_network(), (12, 40, 30)
    geometry = TiltGeometry(WEDGE, shape[1:])
    prepared = images(WEDGE, *shape[1:])

    def rows(first, stop):
        assert stop - first <= rows_at_a_time + 2 * NetworkMethod(network, geometry, VolumeGrid(shape)).halo_px
        return torch.from_numpy(prepared[:, reflected_rows(first, stop - first, shape[1])])

    parts = Parts(VolumeGrid((shape[0], 16, 24)), (2, 22))
    noted = (lambda text: None) if notes is None else notes.append
    make = functools.partial(NetworkMethod, network, geometry)
    return measure_curve(make, 0.3, geometry, parts, Reader(rows, rows_at_a_time), noted)


def test_the_curve_is_that_of_slabs_for_which_there_is_memory():
    whole = curve_by_slabs(16).amplitude
    assert max(whole) > 0
    for rows in (6, 5, 2):
        np.testing.assert_allclose(curve_by_slabs(rows).amplitude, whole, rtol=1e-5)


def test_when_memory_runs_out_while_amplitudes_are_compared_it_goes_on_with_less(monkeypatch):
    whole, real = curve_by_slabs(16).amplitude, TorchProjector.adjoint

    def scarce(self, projections):
        if projections.shape[1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, projections)

    monkeypatch.setattr(TorchProjector, "adjoint", scarce)
    notes = []
    np.testing.assert_allclose(curve_by_slabs(16, notes).amplitude, whole, rtol=1e-5)
    assert any("going on with 4 rows" in note for note in notes)


def test_planes_that_memory_does_not_suffice_for_are_filtered_by_fewer(monkeypatch):
    shape = (16, 12, 20)
    projector = make_projector(TiltGeometry(WEDGE, shape[1:]), (shape[0], shape[2]))
    network = torch.from_numpy(np.random.default_rng(1).standard_normal(shape).astype(np.float32))
    rows = with_halo(images(WEDGE, *shape[1:]))
    fusion = Fusion(FusionCurve(0.3, FALLING), projector)
    expected = fusion(network.clone(), rows)
    real, seen = torch.fft.rfft2, []

    def scarce(planes):
        seen.append(len(planes))
        if len(planes) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(planes)

    monkeypatch.setattr(torch.fft, "rfft2", scarce)
    fusion._planes.at_once = 8
    torch.testing.assert_close(fusion(network.clone(), rows), expected)
    assert seen == [8, 4, 2, 2, 2, 2, 2, 2]


@pytest.mark.slow
def test_slabs_of_any_height_give_one_volume():
    network, shape = tiny_network(), (12, 24, 30)
    geometry, grid = TiltGeometry(WEDGE, shape[1:]), VolumeGrid(shape)
    method = finished_method(NetworkMethod(network, geometry, grid), FusionCurve(0.3, FALLING), geometry, grid)
    assert method.halo_px >= REACH_PX
    rows = images(WEDGE, *shape[1:])
    whole = method(with_halo(rows, method.halo_px))
    for height in (2, 8, 10):
        pieces = [
            method(with_halo(rows, method.halo_px)[:, y : y + height + 2 * method.halo_px])[:, : shape[1] - y]
            for y in range(0, shape[1] - height + 1, height)
        ]
        made = torch.cat(pieces, dim=1)
        np.testing.assert_allclose(made, whole[:, : made.shape[1]], atol=1e-5 * float(whole.abs().max()))


def test_a_share_of_zero_is_the_network_alone():
    network, shape = tiny_network(), (12, 20, 24)
    rows = images(WEDGE, *shape[1:])
    alone = reconstruct_array(network, rows, WEDGE, shape[0])
    np.testing.assert_array_equal(mix_array(alone, rows, WEDGE, 0.0), alone)
    assert (mix_array(alone, rows, WEDGE, 0.3) != alone).any()


def test_a_sheet_that_a_network_has_erased_is_in_the_volume():
    """Of a ball and a faint sheet the network shows the ball alone, as sharp as the truth."""
    shape = (32, 48, 64)
    projector = make_projector(TiltGeometry(WEDGE, shape[1:]), (shape[0], shape[2]))
    sheet = np.zeros(shape, np.float32)
    sheet[4:28, 36:38, 8:56] = 0.3  # its normal along the tilt axis: measured by all tilts
    network = ball(shape, 8)
    truth = network + sheet
    rows = projector.forward(torch.from_numpy(truth)).numpy()
    rows = rows - rows.mean(axis=(1, 2), keepdims=True) + images(WEDGE, *shape[1:])
    back = fbp(projector, torch.from_numpy(rows)).numpy()
    amplitude = matched([(network, back)])
    fused = Fusion(FusionCurve(0.3, amplitude), projector)(torch.from_numpy(network.copy()), with_halo(rows)).numpy()
    estimates = {"network": network, "fused": fused, "back": back}
    found = class_fidelity(truth, estimates, (sheet > 0).astype(np.uint8), {"sheet": Region((1,))})
    for band in BANDS:
        alone, mixed, shown = (found[name]["sheet"][band] for name in estimates)
        assert alone < shown / 2
        assert mixed > alone + (shown - alone) / 3
    whole = {name: np.corrcoef(volume.ravel(), truth.ravel())[0, 1] for name, volume in estimates.items()}
    assert whole["fused"] > whole["network"] - 0.02 > whole["back"]


# Through the real command


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fusion")
    write_model(folder / "net.safetensors")
    write_series(folder)
    return folder


def reconstructed(place, name, *flags):
    model = () if "--method" in flags else ("--model", place / "net.safetensors")
    words = [place / "ts.mrc", place / "ts.tlt", *model, "-o",
             place / f"{name}.mrc", "--thickness", 12, "--contrast", "bright", *flags]  # fmt: skip
    result = made(*words)
    return result, read_volume(place / f"{name}.mrc").voxels, json.loads((place / f"{name}.json").read_text())


@pytest.mark.slow
def test_the_share_is_said_recorded_and_decides(place):
    said, usual, record = reconstructed(place, "usual")
    assert "Fusion: where tilts measured, the volume is 70% network and 30% filtered back-projection" in said.stderr
    assert record["method"]["fusion"]["share"] == 0.3
    assert len(record["method"]["fusion"]["amplitude"]) == SHELLS
    said, alone, record = reconstructed(place, "alone", "--fbp-share", 0)
    assert "Fusion" not in said.stderr
    assert record["method"]["fusion"] is None
    _, half, _ = reconstructed(place, "half", "--fbp-share", 0.6)
    np.testing.assert_allclose(half - alone, 2 * (usual - alone), atol=1e-5 * np.abs(usual).max())
    _, _, record = reconstructed(place, "fbp", "--method", "fbp")
    assert record["method"]["fusion"] is None


def test_the_polarity_of_the_images_is_kept(place, tmp_path):
    _, bright, _ = reconstructed(place, "bright")
    write_model(tmp_path / "net.safetensors")
    write_series(tmp_path, -np.asarray(read_volume_images(place)))
    _, dark, _ = reconstructed(tmp_path, "dark", "--contrast", "dark")
    np.testing.assert_allclose(dark, -bright, atol=1e-6 * np.abs(bright).max())


def read_volume_images(place):
    import mrcfile

    with mrcfile.open(place / "ts.mrc") as file:
        return file.data.copy()


def test_the_same_command_again_gives_the_same_bytes(place):
    _, one, _ = reconstructed(place, "one")
    _, again, _ = reconstructed(place, "again")
    np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize("share", [-0.1, 0.95, "nan", "much"])
def test_a_share_that_is_none_is_refused(place, share):
    result = run(place / "ts.mrc", place / "ts.tlt", "-o", place / "no.mrc", "--fbp-share", share)
    assert result.exit_code == 2
    assert "fbp-share" in result.stderr
    assert not (place / "no.mrc").exists()


def test_a_models_card_may_say_its_share(place):
    model = load_model(str(place / "net.safetensors"))
    assert fbp_share(model, None) == 0.3
    assert fbp_share(model, 0.0) == 0.0
    assert fbp_share(replace(model, card={"fbp_share": 0.45}), None) == 0.45
    for wrong in (2, -0.1, "half", True, None):
        with pytest.raises(ModelError, match="fbp_share"):
            fbp_share(replace(model, card={"fbp_share": wrong}), None)


def test_models_that_are_applied_as_published_stay_as_published(place):
    model = load_model(str(place / "net.safetensors"))
    published = replace(model, convention=replace(model.convention, taps=torch.ones(3)))
    assert fbp_share(published, None) == fbp_share(published, 0.0) == 0.0
    with pytest.raises(SettingsError, match="as published"):
        fbp_share(published, 0.3)
