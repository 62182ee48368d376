"""Tilt schemes: angles, orders, exposures, and settings that describe no series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryolithe.errors import GeometryError, SettingsError
from cryolithe.simulation.schemes import KINDS, TiltPlan, TiltScheme, plan_tilts


def plan(seed=0, **scheme):
    return plan_tilts(TiltScheme(**scheme), np.random.default_rng(seed))


def recorded(series):
    """Angles in the order in which they were recorded."""
    return [series.angles_deg[n] for n in np.argsort(series.order)]


@pytest.mark.parametrize(
    ("scheme", "angles"),
    [
        ({"kind": "linear"}, [-6, -3, 0, 3, 6]),
        ({"kind": "bidirectional"}, [0, 3, 6, -3, -6]),
        ({"kind": "dose-symmetric"}, [0, 3, -3, 6, -6]),
        ({"kind": "dose-symmetric", "group": 2}, [0, 3, 6, -3, -6]),
        ({"kind": "dose-symmetric", "range_deg": (-3, 9)}, [0, 3, -3, 6, 9]),
        ({"kind": "dose-symmetric", "pretilt_deg": 10.0}, [10, 13, 7, 16, 4]),
    ],
)
def test_orders(scheme, angles):
    assert recorded(plan(**{"range_deg": (-6, 6), "step_deg": 3.0, **scheme})) == pytest.approx(angles)


def test_groups_of_three_change_sides_after_three():
    series = plan(range_deg=(-18, 18), step_deg=3.0, group=3)
    assert recorded(series) == pytest.approx([0, 3, 6, 9, -3, -6, -9, 12, 15, 18, -12, -15, -18])


def test_the_usual_series_has_41_tilts_and_the_whole_exposure():
    series = plan()
    assert series.tilts == 41
    assert series.total_exposure == pytest.approx(120)
    assert series.exposure_before[20] == 0
    assert series.exposure_middle[20] == pytest.approx(60 / 41)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    reach=st.floats(10, 70),
    step=st.floats(0.7, 9),
    pretilt=st.floats(-15, 15),
    jitter=st.floats(0, 2),
    group=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_every_plan_ascends_and_exposes_in_order(kind, reach, step, pretilt, jitter, group, seed):
    series = plan(
        seed, kind=kind, range_deg=(-reach, reach), step_deg=step, pretilt_deg=pretilt, jitter_deg=jitter, group=group
    )
    assert (np.diff(series.angles_deg) >= 0).all()
    assert sorted(series.order) == list(range(series.tilts))
    before = np.asarray(series.exposure_before)[np.argsort(series.order)]
    assert np.allclose(before, np.arange(series.tilts) * series.exposure[0])
    if jitter == 0:
        assert np.allclose(np.diff(series.angles_deg), step)


def test_missing_tilts_leave_gaps_in_angles_and_exposure():
    series = plan(missing=5)
    assert series.tilts == 36
    assert sorted(series.order) == list(range(36))
    assert series.total_exposure == pytest.approx(120 * 36 / 41)
    assert np.diff(series.angles_deg).max() > 3.1


def test_ranges_on_one_side_of_zero():
    assert plan(range_deg=(10, 40), step_deg=10.0).angles_deg == pytest.approx((10, 20, 30, 40))


def test_the_same_seed_gives_the_same_plan():
    drawn = {"jitter_deg": 0.2, "missing": 3}
    assert plan(4, **drawn) == plan(4, **drawn) != plan(5, **drawn)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"kind": "linaer"}, SettingsError, "did you mean 'linear'"),
        ({"range_deg": (60, -60)}, GeometryError, "lower to a higher"),
        ({"range_deg": (-60, 60), "pretilt_deg": 40.0}, GeometryError, "±90"),
        ({"step_deg": 0.0}, GeometryError, "step"),
        ({"step_deg": float("nan")}, GeometryError, "step"),
        ({"step_deg": 1e-6}, GeometryError, "step"),
        ({"group": 4}, SettingsError, "1 to 3"),
        ({"jitter_deg": -1.0}, SettingsError, "jitter"),
        ({"missing": 40}, SettingsError, "at most 39"),
        ({"total_exposure": 0.0}, SettingsError, "exposure"),
    ],
)
def test_impossible_schemes(wrong, error, says):
    with pytest.raises(error, match=says):
        TiltScheme(**wrong)


@pytest.mark.parametrize(
    ("plan_of", "error", "says"),
    [
        (((3.0, 0.0), (0, 1), (0.0, 1.0), (1.0, 1.0)), GeometryError, "ascend"),
        (((0.0, 3.0), (0, 0), (0.0, 1.0), (1.0, 1.0)), SettingsError, "order"),
        (((0.0, 3.0), (0, 1), (0.0,), (1.0, 1.0)), SettingsError, "each"),
        (((0.0, 3.0), (0, 1), (0.0, 1.0), (1.0, 0.0)), SettingsError, "exposures"),
    ],
)
def test_impossible_plans(plan_of, error, says):
    with pytest.raises(error, match=says):
        TiltPlan(*plan_of)
