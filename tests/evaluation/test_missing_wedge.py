"""The missing wedge that volumes show: found to some degrees, whichever way they lie, and told where it contradicts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import call

from cryolithe.artefacts.missing_wedge import TOLERANCE_DEG, holds_nothing, seen_wedge, wedge_doubts
from cryolithe.formats import write_volume
from cryolithe.projector.classical import fbp_of_images
from cryolithe.simulation import SpecimenRecipe, make_specimen, project
from cryolithe.volume import Volume

SHAPE = (48, 80, 96)
RANGES = [(-60, 60, 3), (-45, 45, 3), (-40, 60, 2), (-60, 50, 10), (-20, 66, 3), (-30, 30, 3)]


def back_projection(low, high, step, snr_db=-5.0, seed=1):
    angles = tuple(np.arange(low, high + 0.1, step).tolist())
    rng = np.random.default_rng(seed)
    clean = project(make_specimen(SpecimenRecipe(SHAPE, (10.0, 10.0), crowding=(0.08, 0.08)), (), rng), angles)
    noisy = clean + clean.std() * 10 ** (-snr_db / 20) * rng.standard_normal(clean.shape)
    return fbp_of_images(noisy.astype(np.float32), angles, SHAPE[0])


@pytest.mark.parametrize(("low", "high", "step"), RANGES)
def test_the_tilt_range_is_seen_in_a_back_projection(low, high, step):
    volume = back_projection(low, high, step)
    seen = seen_wedge(volume)
    assert seen.is_upright
    assert seen.tilt_range_deg == pytest.approx((low, high), abs=TOLERANCE_DEG - 1)
    assert wedge_doubts(volume, "v", (low, high), "--wedge") == ()
    (told,) = wedge_doubts(volume, "v", (low - 15, high), "--wedge")
    assert f"{low - 15:g}° to {high:g}°, but v shows tilts from" in told
    assert "tell the right range with --wedge" in told
    assert holds_nothing(volume, "v", (low + 10, high - 10)) == ()
    assert len(holds_nothing(volume, "v", (low, high + 15))) == 1


@pytest.mark.parametrize(("axes", "tilt_axis", "beam"), [((1, 0, 2), "z", "y"), ((0, 2, 1), "x", "z")])
def test_volumes_that_lie_otherwise_are_told(axes, tilt_axis, beam):
    volume = np.ascontiguousarray(back_projection(-60, 60, 3).transpose(axes))
    assert (seen_wedge(volume).tilt_axis, seen_wedge(volume).beam) == (tilt_axis, beam)
    (told,) = wedge_doubts(volume, "v", (-60.0, 60.0), "--wedge")
    assert f"lies about {tilt_axis}, with the beam along {beam}" in told


def test_a_mirrored_range_is_told_as_such():
    volume = back_projection(-40, 60, 2)[::-1]
    (told,) = wedge_doubts(volume, "v", (-40.0, 60.0), "--wedge")
    assert "its z runs the other way" in told


def test_where_nothing_is_missing_or_it_was_filled_nothing_is_said():
    rng = np.random.default_rng(0)
    assert seen_wedge(rng.standard_normal(SHAPE).astype(np.float32)) is None
    assert seen_wedge(np.zeros(SHAPE, np.float32)) is None
    assert seen_wedge(back_projection(-90, 87, 3)) is None
    volume = back_projection(-60, 60, 3)
    filled = volume + np.float32(0.3 * volume.std()) * rng.standard_normal(SHAPE).astype(np.float32)
    assert seen_wedge(filled) is None
    assert seen_wedge(volume[:20]) is None  # too few planes to tell directions apart


def test_power_that_falls_with_the_tilt_is_no_edge():
    """As weights by dose make it in fine voxels of a dose-symmetric series."""
    size = 72
    kz, ky, kx = (np.fft.fftfreq(size)[:, None, None], np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    tilt = np.abs(np.rad2deg(np.arctan2(kz, np.abs(kx) + 1e-9)))
    weight = np.exp(-tilt / 7) * (tilt <= 60) + 0 * ky
    white = np.random.default_rng(0).standard_normal((size,) * 3)
    assert seen_wedge(np.fft.irfftn(np.fft.rfftn(white) * weight, s=white.shape, axes=(0, 1, 2))) is None


@pytest.mark.parametrize(("full_deg", "empty_deg"), [(40, 70), (30, 66), (50, 50)])
def test_power_that_fades_over_many_degrees_has_no_edge_to_tell(full_deg, empty_deg):
    size = 72
    kz, kx = np.fft.fftfreq(size)[:, None, None], np.fft.rfftfreq(size)
    tilt = np.abs(np.rad2deg(np.arctan2(kz, np.abs(kx) + 1e-9)))
    weight = np.clip((empty_deg + 1e-3 - tilt) / (empty_deg + 1e-3 - full_deg), 0, 1) + np.zeros((size, 1))
    white = np.random.default_rng(0).standard_normal((size,) * 3)
    found = seen_wedge(np.fft.irfftn(np.fft.rfftn(white) * weight, s=white.shape, axes=(0, 1, 2)))
    if full_deg < empty_deg:
        assert found is None
    else:
        assert found.tilt_range_deg == pytest.approx((-empty_deg, empty_deg), abs=2)


def test_commands_that_take_a_range_compare_it_with_the_volumes(tmp_path):
    halves = []
    for number, name in enumerate(("EVN", "ODD")):
        volume = back_projection(-45, 45, 3, seed=3)
        rng = np.random.default_rng(number)
        angles = tuple(np.arange(-45, 45.1, 3).tolist())
        images = rng.standard_normal((31, *SHAPE[1:])).astype(np.float32)
        noise = fbp_of_images(images, angles, SHAPE[0])
        path = tmp_path / f"t_{name}.mrc"
        write_volume(
            path, Volume(volume + noise * np.float32(volume.std() / noise.std()), 10.0), label="made for a test"
        )
        halves.append(str(path))
    said = {}
    for told in ("60", "45"):
        fsc = call("fsc", *halves, "--wedge", told)
        words = ["evaluate", halves[0], "--half1", halves[0], "--half2", halves[1], "--tilt-range", told]
        scores = call(*words, "-o", tmp_path / f"{told}.html")
        assert fsc.exit_code == scores.exit_code == 0, fsc.output + scores.output
        said[told] = " ".join((fsc.stderr + scores.output).split())
    assert said["60"].count("shows tilts from -4") >= 3  # two volumes, two commands
    assert "shows tilts from" not in said["45"]
    record = json.loads((tmp_path / "60.json").read_text())
    assert any("shows tilts from" in line for line in record["evaluation"]["warnings"])
