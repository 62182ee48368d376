"""Training data straight from the simulator."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from cryolithe.simulation.campaign import simulate_series
from cryolithe.simulation.library import recipe_library
from cryolithe.simulation.recipe import read_recipe
from cryolithe.simulation.stream import stream_rows, stream_series

QUICK = Path(__file__).resolve().parents[2] / "training_data" / "recipes" / "quick.yaml"


@pytest.mark.slow
def test_streamed_series_are_those_on_disk():
    recipe = read_recipe(QUICK)
    for number, made in enumerate(islice(stream_series(recipe, (), first=2), 2), start=2):
        np.testing.assert_array_equal(made.series.images, simulate_series(recipe, (), number).series.images)


@pytest.mark.parametrize("contrast", [1.0, 0.5])
def test_images_show_what_is_written_as_truth_once(contrast):
    """At a contrast of 1, sums along the beam of the truth, of as many voxels; the grain of ice is no part of it."""
    recipe = read_recipe(QUICK)
    plain = replace(
        recipe.imaging,
        noise="white",
        surroundings="even",
        specimen_contrast=(contrast, contrast),
        scheme=replace(recipe.imaging.scheme, pretilt_deg=(0.0, 0.0)),
    )
    drawn = recipe.model_copy(update={"imaging": plain})
    made = simulate_series(drawn, recipe_library(drawn, ()), 1)
    untilted = int(np.argmin(np.abs(made.series.plan.angles_deg)))
    assert abs(made.series.plan.angles_deg[untilted]) < 0.01
    seen, shown = -made.series.clean[untilted], -made.truth.sum(axis=0)
    slope, _ = np.polyfit((shown - shown.mean()).ravel(), seen.ravel(), 1)
    assert slope == pytest.approx(contrast, rel=0.03)


@pytest.mark.slow
def test_rows_of_images_and_truth_belong_together():
    recipe = read_recipe(QUICK)
    library = recipe_library(recipe, ())
    whole = simulate_series(recipe, library, 1)
    starts = set()
    for pair in islice(stream_rows(recipe, library, rows=20, per_series=3), 3):
        assert pair.number == 1
        assert pair.images.shape[1] == pair.truth.shape[1] == 20
        start = next(y for y in range(45) if np.array_equal(whole.truth[:, y : y + 20], pair.truth))
        np.testing.assert_array_equal(whole.series.images[:, start : start + 20], pair.images)
        starts.add(start)
    assert len(starts) > 1
