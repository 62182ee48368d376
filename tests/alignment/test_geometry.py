"""Closed forms of the one geometry that everything else refers to, and the angles that it refuses."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryolithe.errors import GeometryError
from cryolithe.geometry import TiltGeometry, VolumeGrid, centre_px, check_angles_deg, is_measured

IRREGULAR = (-61.5, -40.0, -39.0, -5.0, 0.0, 13.0, 55.0)


@pytest.mark.parametrize(("size", "centre"), [(1, 0.0), (2, 0.5), (5, 2.0), (128, 63.5)])
def test_the_centre_is_the_middle_of_the_field(size, centre):
    assert centre_px(size) == centre == np.mean(np.arange(size))


def test_centres_of_rectangular_fields():
    assert VolumeGrid((5, 8, 13)).centre == (2.0, 3.5, 6.0)
    assert TiltGeometry((0.0,), (8, 13)).centre == (3.5, 6.0)


@settings(deadline=None)
@given(st.floats(-90, 90), st.floats(-500, 500), st.floats(-500, 500), st.integers(1, 700), st.sampled_from([1, 2, 9]))
def test_a_column_is_the_real_part_of_a_turned_number(angle, x, z, width, height):
    """x cos θ + z sin θ is the real part of (x - iz) exp(iθ)."""
    u = TiltGeometry((angle,), (height, width)).columns(x, z)
    expected = ((x - 1j * z) * np.exp(1j * math.radians(angle))).real + (width - 1) / 2
    assert u.shape == (1,)
    assert u[0] == pytest.approx(expected, abs=1e-9)


def test_signs_of_the_columns():
    g = TiltGeometry((-90.0, 0.0, 30.0, 90.0), (4, 11))
    assert g.columns(2.0, 3.0) == pytest.approx([5 - 3, 5 + 2, 5 + math.sqrt(3) + 1.5, 5 + 3])
    assert (np.diff(g.columns(0.0, 1.0)) > 0).all()  # what lies at +z goes to +u as the tilt grows


def test_columns_broadcast_points():
    g = TiltGeometry((-30.0, 40.0), (4, 10))
    x, z = np.arange(5.0), np.arange(3.0)[:, None]
    u = g.columns(x, z)
    assert u.shape == (2, 3, 5)
    assert u[1, 2, 4] == pytest.approx(g.columns(4.0, 2.0)[1])


@pytest.mark.parametrize(("first", "last", "step"), [(-60, 60, 3), (-88.5, 90, 1.5), (-41, 66, 0.5)])
def test_equal_steps_have_equal_weights_that_sum_to_range_plus_step(first, last, step):
    angles = np.arange(first, last + step / 2, step)
    weights = TiltGeometry(tuple(angles), (2, 2)).angular_weights_rad()
    assert weights == pytest.approx(np.deg2rad(step))
    assert weights.sum() == pytest.approx(np.deg2rad(last - first + step))


def test_views_half_a_turn_apart_are_one_view():
    weights = TiltGeometry(tuple(np.arange(-90.0, 90.1, 10.0)), (2, 2)).angular_weights_rad()
    assert weights.sum() == pytest.approx(np.pi)


def test_irregular_steps_weigh_by_their_half_way_points():
    weights = TiltGeometry(IRREGULAR, (2, 2)).angular_weights_rad()
    gaps = np.diff(IRREGULAR)
    assert np.rad2deg(weights[1:-1]) == pytest.approx((gaps[1:] + gaps[:-1]) / 2)
    assert np.rad2deg(weights[[0, -1]]) == pytest.approx(gaps[[0, -1]])
    assert np.rad2deg(weights.sum()) == pytest.approx(np.ptp(IRREGULAR) + (gaps[0] + gaps[-1]) / 2)


def test_a_single_tilt_weighs_one():
    assert TiltGeometry((37.0,), (2, 2)).angular_weights_rad().tolist() == [1.0]


@settings(deadline=None)
@given(st.lists(st.sampled_from(IRREGULAR), min_size=2, max_size=20).filter(lambda a: len(set(a)) > 1))
def test_weights_follow_their_angle_in_any_order_and_share_it_when_repeated(angles):
    weights = TiltGeometry(tuple(angles), (2, 2)).angular_weights_rad()
    distinct = sorted(set(angles))
    alone = dict(zip(distinct, TiltGeometry(tuple(distinct), (2, 2)).angular_weights_rad(), strict=True))
    assert weights == pytest.approx([alone[a] / angles.count(a) for a in angles])
    assert weights.sum() == pytest.approx(sum(alone.values()))


@pytest.mark.parametrize(
    ("angles", "line"),
    [
        ((), "at least one angle, got none"),
        ((0.0, math.nan), "must be finite numbers; angle 2 is nan"),
        ((math.inf, 0.0), "angle 1 is inf"),
        ((0.0, 3.0, -90.5), r"within ±90°; angle 3 is -90.5°"),
        ((170.0,), r"angle 1 is 170°"),
    ],
)
def test_angles_of_no_tilt_series_are_refused(angles, line):
    with pytest.raises(GeometryError, match=line):
        TiltGeometry(angles, (8, 8))
    with pytest.raises(GeometryError, match=line):
        check_angles_deg(angles)


@pytest.mark.parametrize(
    ("angles", "line"),
    [((4.0, 4.0, 4.0), r"all 3 tilt angles are 4°"), (tuple(np.linspace(-1, 1, 9)), "degrees")],
)
def test_a_part_of_a_series_may_be_what_no_series_is(angles, line):
    with pytest.raises(GeometryError, match=line):
        check_angles_deg(angles)
    weights = TiltGeometry(angles, (8, 8)).angular_weights_rad()
    assert weights == pytest.approx(weights[0])  # equal steps, or none


def test_sizes_must_be_positive():
    for shape in ((0, 4), (4, -1), (4,), (4, 4, 4)):
        with pytest.raises(GeometryError, match=r"two positive sizes \(y, x\)"):
            TiltGeometry((0.0,), shape)
    for shape in ((0, 4, 4), (4, 4), (4, 4, -2)):
        with pytest.raises(GeometryError, match=r"three positive sizes \(z, y, x\)"):
            VolumeGrid(shape)


def test_selecting_images_keeps_their_angles():
    g = TiltGeometry(IRREGULAR, (8, 9))
    assert g.select([5, 0]) == TiltGeometry((13.0, -61.5), (8, 9))
    assert g.select(np.array(IRREGULAR) >= 0) == TiltGeometry((0.0, 13.0, 55.0), (8, 9))
    assert g.select(range(g.tilts)) == g
    assert g.select([3]).tilts == 1
    assert g.select([5, 0]).angles_rad == pytest.approx(np.deg2rad([13.0, -61.5]))


def test_handedness_of_an_asymmetric_range():
    at = np.deg2rad(40)
    assert is_measured(np.cos(at), np.sin(at), (-20, 60))
    assert not is_measured(np.cos(at), -np.sin(at), (-20, 60))
    assert is_measured(-np.cos(at), -np.sin(at), (-20, 60))  # the conjugate
    assert is_measured(0.0, 0.0, (-20, 60))
    assert is_measured(1.0, 1.0, (-45, 45))
    assert is_measured(0.0, -1.0, (-40, 90))
    assert is_measured(0.0, 1.0, (-90, 40))
    assert not is_measured(0.0, 1.0, (-89, 89))


@pytest.mark.parametrize("tilt_range", [(20.0, 60.0), (-60.0, -20.0), (-20.0, 60.0)])
def test_the_tilt_axis_is_measured_whatever_the_range(tilt_range):
    """Every image has the frequencies along it, though no angle of them is in the range."""
    found = is_measured(np.array([0.0, 0.1]), np.array([[0.0], [0.1], [-0.1]]), tilt_range)
    assert found[0, 0]
    assert not found[1:, 0].any()


@pytest.mark.parametrize(("number", "refused"), [(4, False), (5, False), (6, True), (41, True)])
def test_a_few_images_may_lie_close_together(number, refused):
    """Of more than five, angles within 1.5° are radians."""
    angles = tuple(float(angle) for angle in np.linspace(-1.5, 1.5, number))
    with pytest.raises(GeometryError, match="give degrees") if refused else contextlib.nullcontext():
        check_angles_deg(angles)
