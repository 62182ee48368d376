"""`cryolithe adapt` on series whose local alignment changes with depth: cubes show what the volume does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bent_projects import PIXEL, VOLUME, imod_place, make_bent, warp_place, write_imod, write_warp
from command import call
from plain_mrc import new_mrc
from test_adapt import ANGLES, SHAPE, series_of, smooth_images
from tiny_series import CONFIG, made, voxels, write_model

from cryolithe.adapt import cubes
from cryolithe.adapt import halves as adapt_halves
from cryolithe.adapt import session as adapt_session
from cryolithe.adapt.cubes import Draw, draw_cube, layouts_of
from cryolithe.adapt.session import Outcome
from cryolithe.column_shifts import ColumnShifts
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.evidence.polarity import Evidence
from cryolithe.sampling import block_positions_px

ALIKE = 0.97  # the projector spreads a voxel over its footprint, which blurs a little
COMMON = ("--contrast", "bright", "--thickness", VOLUME[0])


def imod(folder, scale):
    project = make_bent(folder, imod_place, scale)
    newst, tilt = write_imod(project)
    return project, ("--newst-com", newst, "--tilt-com", tilt)


def warp(folder, scale):
    project = make_bent(folder, warp_place(False, True), scale)
    return project, ("--warp", write_warp(project, False, True))


@pytest.fixture
def drawn(monkeypatch):
    """Back-projections of cubes that the command could draw, each with its half, layout, place and flips."""
    found = []
    real = cubes._back_projection

    def noted(half, layout, place, flips):
        values = real(half, layout, place, flips)
        found[-1].append((half, layout, place, flips, values.numpy()))
        return values

    def adapt(work):
        found.append([])
        for series in work.series:
            (layout,) = layouts_of([series], CONFIG, (16, 16, 64), 0.25)
            for number in range(24):
                how = Draw(layout.rows_of_all, cut=0.5, flip=0.5, half=1)
                draw_cube(series, layout, how, np.random.default_rng(number))
        return Outcome(None, None, 0, True)

    monkeypatch.setattr(cubes, "_back_projection", noted)
    monkeypatch.setattr(adapt_session, "adapt", adapt)
    monkeypatch.setattr(adapt_halves, "evidence_of_parts", lambda runs, folder: Evidence())  # the contrast is given
    return found


def likeness(drawn, volume):
    """Correlation of all back-projections with what a volume has in their places."""
    pairs = []
    for _, layout, place, flips, values in drawn:
        first = [layout.first_voxel(axis, place[axis]) for axis in range(3)]
        begin = CONFIG.head.stride * place[1] - (CONFIG.rows - 1) // 2
        rows = volume[:, begin : begin + layout.rows]
        rows = np.flip(rows, [axis for axis, flipped in enumerate(flips) if flipped])
        first[1] -= begin
        inside = [(max(0, at), min(size, at + n)) for at, size, n in zip(first, rows.shape, values.shape, strict=True)]
        theirs = rows[tuple(slice(low, high) for low, high in inside)]
        ours = values[tuple(slice(low - at, high - at) for (low, high), at in zip(inside, first, strict=True))]
        pairs.append((ours.ravel(), theirs.ravel()))
    ours, theirs = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return np.corrcoef(ours, theirs)[0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "scale", "how"), [(imod, 1, ()), (imod, 2, ("--bin", 2)), (warp, 1, ("--exclude", "4,9"))]
)
def test_cubes_of_halves_of_frames_show_what_the_volume_shows(program, scale, how, drawn, tmp_path):
    """Also binned, without some images, and flipped; of the volume that is made of the half they are of."""
    project, flags = program(tmp_path / "raw", scale)
    images, halves = voxels(project.stack), []
    for seed, name in enumerate(("EVN", "ODD")):
        noise = np.random.default_rng(seed).standard_normal(images.shape) * 0.05 * images.std()
        halves.append(project.folder / f"ts_{name}.mrc")
        with new_mrc(halves[-1], (images + noise).astype(np.float32)) as file:
            file.set_image_stack()
            file.voxel_size = PIXEL / scale
    model = write_model(tmp_path / "start.safetensors")
    words = ("--even", halves[0], "--odd", halves[1], *flags, *COMMON, *how, "--model", model, "--device", "cpu")
    call("adapt", *words, "-o", tmp_path / "mine.safetensors")
    straight, bent = (("--no-local-alignment",), ())
    for name, local in (("bent", bent), ("straight", straight)):
        words = (halves[0], *flags, *COMMON, *how, *local, "--method", "fbp", "-o", tmp_path / f"{name}.mrc")
        made(*words)
    assert all(half.stack.geometry.shifts is not None for half, *_ in drawn[0])
    assert likeness(drawn[0], voxels(tmp_path / "bent.mrc")) > ALIKE
    assert likeness(drawn[0], voxels(tmp_path / "straight.mrc")) < 0.9


@pytest.mark.slow
def test_cubes_of_odd_and_even_tilts_have_the_shifts_of_their_tilts(drawn, tmp_path):
    """The even ones' own volume is that of the command without the others."""
    project, flags = imod(tmp_path / "raw", 1)
    model = write_model(tmp_path / "start.safetensors")
    call("adapt", project.stack, *flags, *COMMON, "--model", model, "--device", "cpu", "-o", tmp_path / "m.safetensors")
    half = drawn[0][0][0]
    sections = [section for section in range(19) if section not in (0, 7)]
    others = [section + 1 for n, section in enumerate(sections) if n not in half.tilts]
    words = (project.stack, *flags, *COMMON, "--method", "fbp", "--exclude", ",".join(map(str, others)))
    made(*words, "-o", tmp_path / "v.mrc")
    assert likeness(drawn[0], voxels(tmp_path / "v.mrc")) > ALIKE


def uneven_shifts(rows_alike=8):
    nodes = [np.linspace(-(size - 1) / 2, (size - 1) / 2, count) for size, count in zip(SHAPE, (3, 2, 5), strict=True)]
    values = 2 * np.random.default_rng(3).standard_normal((len(ANGLES), 2, 3, 5), dtype=np.float32)
    return ColumnShifts(nodes[1], nodes[0], nodes[2], values, rows_alike)


def bent_series(folder, shifts):
    series = series_of(folder, [smooth_images()] * 2)
    halves = [
        replace(half, stack=replace(half.stack, geometry=replace(half.stack.geometry, shifts=shifts)))
        for half in series.halves
    ]
    return replace(series, halves=tuple(halves))


def test_columns_of_flipped_cubes_are_those_of_the_specimen(tmp_path, monkeypatch):
    """Where the network looks is where the points of the cube, turned back, are seen."""
    series = bent_series(tmp_path, shifts := uneven_shifts())
    (layout,) = layouts_of([series], CONFIG, (12, 12, 12), 0.25)
    places = []
    real = cubes._back_projection
    monkeypatch.setattr(cubes, "_back_projection", lambda *words: (places.append(words), real(*words))[1])
    for number in range(12):
        cube = draw_cube(series, layout, Draw(layout.training, flip=0.5, half=0), np.random.default_rng(number))
        _, _, (first_z, row, first_x), flips = places[-1]
        stride = CONFIG.head.stride
        z, x = (
            block_positions_px(SHAPE[axis], first, layout.blocks[axis], stride)
            for axis, first in ((0, first_z), (2, first_x))
        )
        z, x = np.repeat(z, len(x)), np.tile(x, len(z))
        z, x = (-n if flipped else n for n, flipped in ((z, flips[0]), (x, flips[2])))
        middle = stride * row + (stride * layout.blocks[1] - 1) / 2 - (SHAPE[1] - 1) / 2
        seen = TiltGeometry(ANGLES, SHAPE[1:], shifts.at(middle)).columns(x, z)
        seen = SHAPE[2] - 1 - seen if flips[2] else seen
        np.testing.assert_allclose(cube.run.columns.numpy(), seen, atol=1e-3)


@pytest.mark.parametrize("rows_alike", [8, 16, 128])
def test_cubes_are_no_taller_than_rows_whose_shifts_are_alike(rows_alike, tmp_path):
    wanted = (12, 48, 12)
    straight = layouts_of([series_of(tmp_path, [smooth_images()] * 2)], CONFIG, wanted, 0.25)[0]
    bent = layouts_of([bent_series(tmp_path, uneven_shifts(rows_alike))], CONFIG, wanted, 0.25)[0]
    most = max(rows_alike, CONFIG.head.stride * cubes._fewest_blocks(CONFIG))
    assert bent.blocks[1] * CONFIG.head.stride == min(most, straight.blocks[1] * CONFIG.head.stride)
    assert bent.blocks[::2] == straight.blocks[::2]
    assert bent.holds_shells


def test_shifts_of_the_same_numbers_are_the_same():
    one, two = uneven_shifts(), uneven_shifts()
    assert one == two
    assert hash(one) == hash(two)
    assert TiltGeometry(ANGLES, SHAPE[1:], one) == TiltGeometry(ANGLES, SHAPE[1:], two)
    assert one != replace(two, values=two.values + 1)
    assert one != replace(two, band_rows=64)
    assert TiltGeometry(ANGLES, SHAPE[1:], one) != TiltGeometry(ANGLES, SHAPE[1:])


@pytest.mark.parametrize("axis", "zyx")
def test_a_geometry_mirrored_twice_is_the_first(axis):
    geometry = TiltGeometry(ANGLES, SHAPE[1:], uneven_shifts())
    assert geometry.mirrored(axis).mirrored(axis) == geometry
    assert geometry.mirrored(axis) != geometry
    points = np.array([[3.0, -4.0], [-8.0, 2.5]])
    sign = np.array([[-1.0 if axis == name else 1.0] for name in "zx"])
    z, x = sign * points
    seen = geometry.columns(points[1], points[0])
    again = geometry.mirrored(axis).columns(x, z)
    np.testing.assert_allclose(2 * geometry.centre[1] - again if axis == "x" else again, seen, atol=1e-4)
