"""Training data straight from the simulator."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from cryolithe.simulation.campaign import simulate_series
from cryolithe.simulation.library import recipe_library
from cryolithe.simulation.recipe import read_recipe
from cryolithe.simulation.stream import stream_rows, stream_series

QUICK = Path(__file__).resolve().parents[1] / "training_data" / "recipes" / "quick.yaml"


@pytest.mark.slow
def test_streamed_series_are_those_on_disk():
    recipe = read_recipe(QUICK)
    for number, made in enumerate(islice(stream_series(recipe, (), first=2), 2), start=2):
        np.testing.assert_array_equal(made.series.images, simulate_series(recipe, (), number).series.images)


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
