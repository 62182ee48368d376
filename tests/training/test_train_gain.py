"""What a fine-tuned model must gain to be written."""

from __future__ import annotations

import math

import pytest

from cryolithe.training.gain import CHANCE, CHANCE_DB, Gain, doubt_about, why_not


@pytest.mark.parametrize(
    ("error", "snr_db", "written"),
    [
        ((0.2, 0.2 * (1 - 2 * CHANCE)), (9.0, 9.2), True),
        ((0.2, 0.2 * (1 - 2 * CHANCE)), (9.0, 8.9), True),
        ((0.2, 0.2 * (1 - CHANCE / 2)), (9.0, 8.7), False),
        ((0.2, 0.2 * (1 - CHANCE / 2)), (9.0, 9.0), False),
        ((0.2, 0.2 * (1 - CHANCE / 2)), (9.0, 9.0 + 2 * CHANCE_DB), True),
        ((0.2, 0.21), (9.0, 9.3), True),
        ((0.2, 0.21), (9.0, 9.0), False),
        ((0.2, math.nan), (9.0, -math.inf), False),
    ],
)
def test_a_model_is_written_that_gains_more_than_chance_may(error, snr_db, written):
    gain = Gain(10, error, snr_db)
    assert (why_not(gain) == "") == written
    if not written:
        assert gain.told in why_not(gain)
        assert ("may be chance" in why_not(gain)) == (error[1] < error[0])
    worse = snr_db[1] < snr_db[0] or not error[1] <= error[0]
    assert bool(doubt_about(gain)) == worse
