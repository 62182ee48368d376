"""Laws of the projection, agreement with ASTRA (another program), and the place and height of what FBP returns."""

from __future__ import annotations

import itertools
import math

import astra
import numpy as np
import pytest
import torch

from cryolithe.errors import DeviceError, SettingsError
from cryolithe.geometry import TiltGeometry, centre_px
from cryolithe.projector import make_projector, torch_engine
from cryolithe.projector.classical import fbp, fbp_of_images, sirt
from cryolithe.projector.footprint import footprint, slice_points
from cryolithe.projector.torch_engine import TorchProjector

ANGLES = (-90.0, -61.3, -45.0, -3.0, 0.0, 1e-4, 20.0, 45.0, 88.0, 90.0)
DENSE = tuple(np.arange(-89.5, 90, 1.0))

# voxels (z, x) and detector columns: odd, even, rectangular, thicker than wide, narrower and wider detectors
SHAPES = [((16, 16), 16), ((15, 15), 15), ((9, 20), 20), ((8, 21), 21), ((30, 11), 11), ((7, 12), 9), ((12, 7), 25)]


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def coordinates(slice_shape):
    """Coordinates (z, x) of the voxels of a slice relative to its centre."""
    return np.meshgrid(*[np.arange(n) - centre_px(n) for n in slice_shape], indexing="ij")


def blobs(slice_shape, places, sigma):
    """Sum of Gaussian blobs at (z, x, height) relative to the centre, as one slice (z, 1, x)."""
    z, x = coordinates(slice_shape)
    density = sum(h * np.exp(-((z - pz) ** 2 + (x - px) ** 2) / 2 / sigma**2) for pz, px, h in places)
    return torch.from_numpy(density)[:, None]


def blob_projections(geometry, places, sigma):
    """The same blobs' projections in closed form, shape (tilts, 1, X)."""
    column = np.arange(geometry.image_shape[1])
    total = 0
    for z, x, height in places:
        away = column - geometry.columns(x, z)[:, None]
        total = total + height * sigma * math.sqrt(2 * math.pi) * np.exp(-(away**2) / 2 / sigma**2)
    return torch.from_numpy(total)[:, None]


def centre_of_mass(values, axis):
    profile = values.sum([a for a in range(values.ndim) if a != axis])
    return float((profile * torch.arange(len(profile))).sum() / profile.sum())


def phantom(slice_shape, seed=0):
    """Soft and sharp bodies without any symmetry, inside the circle that every tilt sees."""
    z, x = coordinates(slice_shape)
    size = min(slice_shape)
    rng = np.random.default_rng(seed)
    density = np.zeros(slice_shape)
    for _ in range(6):
        pz, px = rng.uniform(-0.28, 0.28, 2) * size
        inside = ((z - pz) / rng.uniform(2, 5)) ** 2 + ((x - px) / rng.uniform(2, 5)) ** 2 < 1
        density += rng.uniform(0.3, 1) * inside
    return density


class Astra:
    """ASTRA's CPU projector for one slice.

    Its volumes have rows from +Y down and columns along X; its detector at angle φ lies along (cos φ, sin φ). Our z
    grows with the row, so Y = -z, and u = x cos φ + Y sin φ is ours for φ = -θ.
    """

    def __init__(self, angles_deg, slice_shape, columns):
        self.volume = astra.create_vol_geom(*slice_shape)
        self.detector = astra.create_proj_geom("parallel", 1.0, columns, -np.deg2rad(angles_deg))
        self.projector = astra.create_projector("strip", self.detector, self.volume)

    def forward(self, density):
        number, sinogram = astra.create_sino(density.astype(np.float32), self.projector)
        astra.data2d.delete(number)
        return sinogram

    def fbp(self, sinogram):
        data = astra.data2d.create("-sino", self.detector, sinogram.astype(np.float32))
        result = astra.data2d.create("-vol", self.volume)
        config = astra.astra_dict("FBP") | {
            "ProjectorId": self.projector,
            "ProjectionDataId": data,
            "ReconstructionDataId": result,
            "option": {"FilterType": "ram-lak"},
        }
        algorithm = astra.algorithm.create(config)
        astra.algorithm.run(algorithm)
        found = astra.data2d.get(result)
        astra.algorithm.delete(algorithm)
        astra.data2d.delete([data, result])
        return found

    def __del__(self):
        astra.projector.delete(self.projector)


@pytest.mark.parametrize(("slice_shape", "columns"), SHAPES)
def test_back_projection_is_the_adjoint(slice_shape, columns):
    """<A v, p> = <v, A' p> in float64."""
    rows = 3
    projector = make_projector(TiltGeometry(ANGLES, (rows, columns)), slice_shape)
    volume, images = noise(slice_shape[0], rows, slice_shape[1]), noise(len(ANGLES), rows, columns, seed=1)
    left, right = (projector.forward(volume) * images).sum(), (volume * projector.adjoint(images)).sum()
    assert left.dtype == torch.float64
    assert abs(left - right) < 1e-11 * projector.forward(volume).norm() * images.norm()


@pytest.mark.parametrize(("slice_shape", "columns"), SHAPES)
def test_a_voxel_weighs_one_in_every_tilt_that_sees_all_of_it(slice_shape, columns):
    wide = columns + 2 * sum(slice_shape)
    seen = footprint(
        TiltGeometry(ANGLES, (1, wide)), *slice_points(range(slice_shape[0]), slice_shape, torch.device("cpu"))
    )
    assert (seen.weight.sum(-1) - 1).abs().max() < 1e-9
    assert seen.weight.min() > -1e-9
    density = noise(slice_shape[0], 1, slice_shape[1])
    images = make_projector(TiltGeometry(ANGLES, (1, wide)), slice_shape).forward(density)
    assert images.sum(2).numpy() == pytest.approx(density.sum().item(), abs=1e-5)


@pytest.mark.parametrize("slice_shape", [(16, 16), (15, 15), (9, 20), (30, 11)])
def test_the_untilted_projection_is_the_sum_along_the_beam(slice_shape):
    density = noise(slice_shape[0], 4, slice_shape[1])
    image = make_projector(TiltGeometry((0.0,), (4, slice_shape[1])), slice_shape).forward(density)[0]
    assert image.numpy() == pytest.approx(density.sum(0).numpy(), abs=1e-3 * density.abs().sum(0).max().item())


@pytest.mark.parametrize("angle", [90.0, -90.0])
def test_at_a_right_angle_the_beam_runs_along_x(angle):
    density = noise(13, 2, 10)
    image = make_projector(TiltGeometry((angle,), (2, 13)), (13, 10)).forward(density)[0]
    expected = density.sum(2).T if angle > 0 else density.sum(2).T.flip(1)
    assert image.numpy() == pytest.approx(expected.numpy(), abs=1e-3 * density.abs().sum(2).max().item())


@pytest.mark.parametrize("shape", [(17, 6, 24), (16, 7, 25), (24, 5, 16), (31, 4, 31)])
def test_a_bright_voxel_is_seen_where_the_convention_says(shape):
    depth, height, width = shape
    geometry = TiltGeometry((-60.0, -33.0, 0.0, 25.0, 45.0, 70.0), (height, 64))
    volume = torch.zeros(shape, dtype=torch.float64)
    z, y, x = depth - 4, 1, 3
    volume[z, y, x] = 1
    images = make_projector(geometry, (depth, width)).forward(volume)
    expected = geometry.columns(x - centre_px(width), z - centre_px(depth))
    for image, u in zip(images, expected, strict=True):
        assert centre_of_mass(image, 1) == pytest.approx(u, abs=0.1)
        assert centre_of_mass(image, 0) == pytest.approx(y, abs=1e-12)


def test_what_lies_higher_moves_to_higher_columns_at_positive_tilt():
    geometry = TiltGeometry((-30.0, 30.0), (1, 32))
    volume = torch.zeros(20, 1, 32, dtype=torch.float64)
    volume[17, 0, 10] = 1  # z - cz = 7.5, x - cx = -5.5
    negative, positive = (centre_of_mass(image, 1) for image in make_projector(geometry, (20, 32)).forward(volume))
    assert positive - negative == pytest.approx(2 * 7.5 * math.sin(math.radians(30)), abs=0.1)


@pytest.mark.parametrize("window", ["ramp", "cosine", "hann"])
@pytest.mark.parametrize("shape", [(25, 5, 32), (24, 6, 33), (32, 5, 25), (31, 4, 31)])
def test_fbp_puts_a_point_where_it_is(shape, window):
    """From projections in closed form, so that no error of the projector can undo itself."""
    depth, height, width = shape
    geometry = TiltGeometry(tuple(np.arange(-60.0, 61.0, 2.0)), (height, width))
    place = (depth * 0.19, -width * 0.22)
    images = torch.zeros(geometry.tilts, height, width, dtype=torch.float64)
    images[:, 1:2] = blob_projections(geometry, [(*place, 1.0)], 1.5)
    volume = fbp(make_projector(geometry, (depth, width)), images, window)
    peak = np.unravel_index(int(volume.argmax()), shape)
    assert peak[1] == 1
    for axis, at in ((0, place[0] + centre_px(depth)), (2, place[1] + centre_px(width))):
        line = volume[tuple(slice(None) if a == axis else peak[a] for a in range(3))]
        before, here, after = (line[peak[axis] + d].item() for d in (-1, 0, 1))
        assert peak[axis] + (after - before) / 2 / (2 * here - before - after) == pytest.approx(at, abs=0.1)


def test_rows_are_independent_of_each_other():
    geometry = TiltGeometry(ANGLES, (70, 12))  # more rows than one chunk
    projector = make_projector(geometry, (9, 12))
    volume, images = noise(9, 70, 12), noise(len(ANGLES), 70, 12, seed=1)
    forward, back = projector.forward(volume), projector.adjoint(images)
    for row in (0, 33, 69):
        only = slice(row, row + 1)
        assert torch.allclose(projector.forward(volume[:, only]), forward[:, only], atol=1e-12)
        assert torch.allclose(projector.adjoint(images[:, only]), back[:, only], atol=1e-12)
    assert torch.allclose(projector.forward(volume.flip(1)), forward.flip(1), atol=1e-12)


@pytest.mark.parametrize("turn_deg", [10.0, -25.0])
def test_turning_the_volume_is_tilting_further(turn_deg):
    """(x' - iz') = (x - iz) exp(iφ) is seen at θ where (x, z) is seen at θ + φ."""
    places = [(6.0, -3.0, 1.0), (-2.0, 8.0, 0.6), (1.0, 2.0, -0.4)]
    turned = []
    for z, x, height in places:
        point = (x - 1j * z) * np.exp(1j * math.radians(turn_deg))
        turned.append((-point.imag, point.real, height))
    angles = np.array([-50.0, -20.0, 0.0, 15.0, 40.0])
    shape = (40, 40)
    here = make_projector(TiltGeometry(tuple(angles), (1, 40)), shape).forward(blobs(shape, turned, 3.0))
    there = make_projector(TiltGeometry(tuple(angles + turn_deg), (1, 40)), shape).forward(blobs(shape, places, 3.0))
    # At 0° voxels and pixels coincide and nothing is blurred; elsewhere both boxes blur: 1/6 px² against 9 px².
    assert (here - there).abs().max() < 0.012 * there.abs().max()


@pytest.mark.parametrize("slice_shape", [(40, 40), (33, 46), (46, 41)])
def test_projections_of_a_smooth_body_are_its_line_integrals(slice_shape):
    places = [(5.0, -3.0, 1.0), (-4.0, 6.0, 0.5)]
    geometry = TiltGeometry((-80.0, -45.0, -10.0, 0.0, 30.0, 45.0, 60.0), (1, 60))
    found = make_projector(geometry, slice_shape).forward(blobs(slice_shape, places, 3.0))
    expected = blob_projections(geometry, places, 3.0)
    assert (found - expected).abs().max() < 0.03 * expected.max()  # a pixel and a voxel blur it a little


@pytest.mark.parametrize("slice_shape", [(48, 48), (35, 49)])
def test_fbp_returns_densities(slice_shape):
    """A blob of height 1, from all around, has height 1 again and nothing beside it."""
    geometry = TiltGeometry(DENSE, (1, 96))
    places = [(4.0, -5.0, 1.0)]
    volume = fbp(make_projector(geometry, slice_shape), blob_projections(geometry, places, 3.0), "ramp")
    truth = blobs(slice_shape, places, 3.0)
    assert volume.max() == pytest.approx(truth.max().item(), abs=0.03)
    assert (volume - truth).abs().max() < 0.03


@pytest.mark.parametrize("shape", [(24, 5, 40), (19, 4, 33)])
def test_fbp_of_images_does_not_see_their_means(shape):
    """Offsets of single images change nothing; without any it is the FBP with a Hamming window."""
    depth, height, width = shape
    geometry = TiltGeometry(tuple(np.arange(-60.0, 61.0, 4.0)), (height, width))
    images = noise(geometry.tilts, height, width).float()
    images -= images.mean((1, 2), keepdim=True)
    expected = fbp(make_projector(geometry, (depth, width)), images, "hamming")
    offsets = torch.arange(geometry.tilts)[:, None, None] - 7.0
    for given in (images, images + offsets):
        found = fbp_of_images(given.numpy(), geometry.angles_deg, depth)
        assert found.shape == shape
        assert np.abs(found - expected.numpy()).max() < 1e-4 * float(expected.abs().max())


def test_fbp_weighs_irregular_tilts_by_their_share():
    """Doubling the number of tilts on one side leaves the densities as they are."""
    irregular = tuple(np.r_[np.arange(-89.75, 0, 0.5), np.arange(0.5, 90, 1.0)])
    geometry = TiltGeometry(irregular, (1, 96))
    places = [(4.0, -5.0, 1.0)]
    volume = fbp(make_projector(geometry, (40, 40)), blob_projections(geometry, places, 3.0), "ramp")
    assert (volume - blobs((40, 40), places, 3.0)).abs().max() < 0.03


@pytest.mark.parametrize(("slice_shape", "columns"), [((40, 40), 40), ((35, 52), 60), ((51, 34), 51), ((41, 41), 65)])
def test_projections_agree_with_astra(slice_shape, columns):
    angles = (-75.0, -45.0, -12.0, 0.0, 33.0, 60.0, 88.0)
    density = phantom(slice_shape) + np.random.default_rng(1).random(slice_shape)
    ours = make_projector(TiltGeometry(angles, (1, columns)), slice_shape).forward(torch.from_numpy(density)[:, None])
    theirs = Astra(angles, slice_shape, columns).forward(density)
    assert np.linalg.norm(ours[:, 0].numpy() - theirs) < 1e-3 * np.linalg.norm(theirs)


def best_match(ours, theirs):
    """Flips and shift (z, x) of ``ours`` that match ``theirs`` best, and all correlations."""
    scores = {}
    for flips in ((), (0,), (1,), (0, 1)):
        for shift in itertools.product((-2, -1, 0, 1, 2), repeat=2):
            moved = np.roll(np.flip(ours, flips), shift, (0, 1))
            scores[flips, shift] = np.corrcoef(moved.ravel(), theirs.ravel())[0, 1]
    return max(scores, key=scores.__getitem__), scores


@pytest.mark.slow
@pytest.mark.parametrize("angles", [DENSE, tuple(np.arange(-60.0, 61.0, 2.0))])
@pytest.mark.parametrize("slice_shape", [(48, 48), (35, 60), (61, 40), (45, 45)])
def test_fbp_agrees_with_astra_without_flip_or_shift(slice_shape, angles):
    columns = 2 * max(slice_shape) + slice_shape[1] % 2
    program = Astra(angles, slice_shape, columns)
    sinogram = program.forward(phantom(slice_shape))
    theirs = program.fbp(sinogram)
    projector = make_projector(TiltGeometry(angles, (1, columns)), slice_shape)
    ours = fbp(projector, torch.from_numpy(sinogram.copy())[:, None], "ramp")[:, 0].numpy()
    best, scores = best_match(ours, theirs)
    assert best == ((), (0, 0))
    assert scores[best] > 0.99
    if angles == DENSE:
        assert np.polyfit(theirs.ravel(), ours.ravel(), 1)[0] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("slice_shape", [(20, 27), (31, 16)])
def test_sirt_lowers_the_residual_in_every_pass(slice_shape):
    geometry = TiltGeometry(tuple(np.arange(-60.0, 61.0, 5.0)), (2, slice_shape[1]))
    projector = make_projector(geometry, slice_shape)
    truth = torch.from_numpy(np.stack([phantom(slice_shape, seed) for seed in (0, 1)], axis=1))
    images = projector.forward(truth) + 0.3 * noise(geometry.tilts, 2, slice_shape[1])
    lengths = projector.forward(torch.ones(slice_shape[0], 1, slice_shape[1], dtype=torch.float64))
    weight = torch.where(lengths > 0.1, 1 / lengths.clamp(min=0.1), 0.0)
    passes = []
    estimates = [sirt(projector, images, n, lambda: passes.append(1)) for n in (0, 1, 2, 4, 8, 16, 32)]
    assert len(passes) == 63
    norms = [(weight * (images - projector.forward(e)) ** 2).sum().item() for e in estimates]
    assert (np.diff(norms) < 0).all()
    assert (estimates[4] - truth).norm() < 0.75 * truth.norm()


@pytest.mark.slow
def test_sirt_converges_to_a_body_that_is_seen_from_all_around():
    shape = (14, 17)
    geometry = TiltGeometry(tuple(np.arange(-87.0, 90, 6.0)), (1, 31))
    projector = make_projector(geometry, shape)
    truth = blobs(shape, [(2.0, -3.0, 1.0), (-3.0, 4.0, 0.5)], 2.0)
    images = projector.forward(truth)
    errors = [((sirt(projector, images, n) - truth).norm() / truth.norm()).item() for n in (5, 50, 500)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


def test_an_unknown_engine_names_the_nearest():
    with pytest.raises(
        SettingsError, match=r"unknown projector 'tomosypo' \(did you mean 'tomosipo'\?\); known: torch"
    ):
        make_projector(TiltGeometry((0.0,), (4, 4)), (4, 4), engine="tomosypo")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is present")
def test_tomosipo_without_a_device_says_what_to_do():
    with pytest.raises(DeviceError, match="needs a CUDA device and none is visible; use the torch projector"):
        make_projector(TiltGeometry((0.0,), (4, 4)), (4, 4), engine="tomosipo")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("slice_shape", [(48, 48), (35, 60), (61, 40)])
def test_tomosipo_agrees(slice_shape):
    pytest.importorskip("tomosipo")
    angles = tuple(np.arange(-60.0, 61.0, 3.0))
    geometry = TiltGeometry(angles, (5, slice_shape[1]))
    density = torch.from_numpy(np.stack([phantom(slice_shape, seed) for seed in range(5)], axis=1)).float()
    ours, theirs = (make_projector(geometry, slice_shape, engine=engine) for engine in ("torch", "tomosipo"))
    images = ours.forward(density)
    assert (theirs.forward(density).cpu() - images).norm() < 0.05 * images.norm()
    back = ours.adjoint(images)
    assert (theirs.adjoint(images).cpu() - back).norm() < 0.05 * back.norm()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_interrupted_back_projection_leaves_no_part_of_itself_behind(failing, monkeypatch):
    """What is kept for the next time is all of it or nothing: a part would give planes of zeros."""
    monkeypatch.setattr(torch_engine, "ENTRIES_PER_CHUNK", 1)
    geometry = TiltGeometry((-40.0, 0.0, 35.0), (6, 9))
    images = torch.rand(3, 6, 9)
    expected = TorchProjector(geometry, (4, 9)).adjoint(images)
    projector = TorchProjector(geometry, (4, 9))
    with monkeypatch.context() as patch:
        calls, sums = [], torch_engine.embedding_bag

        def interrupted(*arguments, **named):
            calls.append(1)
            if len(calls) > failing:
                raise MemoryError
            return sums(*arguments, **named)

        patch.setattr(torch_engine, "embedding_bag", interrupted)
        with pytest.raises(MemoryError):
            projector.adjoint(images)
    assert torch.equal(projector.adjoint(images), expected)
    assert torch.equal(projector.adjoint(images), expected)


@pytest.mark.parametrize("most", [1, 3, 32, 10_000])
@pytest.mark.parametrize("columns", [7, 40])
def test_bags_divided_for_a_gpu_have_the_same_sums(most, columns):
    """Also where the detector is wider than the volume's shadow, so that some pixels see nothing."""
    geometry = TiltGeometry((-60.0, -10.0, 0.0, 35.0), (5, columns))
    volume = torch.randn((6, 5, 9), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = TorchProjector(geometry, (6, 9)).forward(volume)
    projector = TorchProjector(geometry, (6, 9))
    projector._most_in_bag = most
    found = projector.forward(volume)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    bags = projector._bags(0)
    assert max(torch.diff(bags.starts, append=bags.starts.new_tensor([len(bags.voxel)]))) <= most
    images = torch.randn(found.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.testing.assert_close((found * images).sum(), (volume * projector.adjoint(images)).sum())
