"""The molecules that come with the program: what they are, that they stay so, and that commands take them by name."""

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import yaml
from command import good

import cryolithe
from cryolithe.errors import InputError
from cryolithe.formats import read_volume
from cryolithe.simulation.classes import mass_kda
from cryolithe.simulation.crowd import MEMBRANE_PREFIX
from cryolithe.simulation.library import load_library, plain_library, with_molecules
from cryolithe.simulation.molecules import PROCEDURAL_1
from cryolithe.simulation.recipe import Recipe
from cryolithe.simulation.shipped_molecules import procedural_1
from cryolithe.training.config import check_files, read_train_config
from cryolithe.training.recipe_maker import recipe_molecules
from cryolithe.training.scoring import unseen_molecules

NAMES = [molecule.name for molecule in procedural_1()]
BY_NAME = {molecule.name: molecule for molecule in procedural_1()}
SMALL_CELL = {"shape": [16, 32, 32], "voxel_size_angstrom": [10.0, 10.0], "thickness_nm": [13.0, 14.0]}
# name: edge of the box in voxels, sum, root of the mean square distance from the middle in voxels, weighted by density
PINNED = {
    "p1_globule": (41, 2157.6366, 7.3637308),
    "p1_clamp": (47, 4098.1697, 10.914024),
    "p1_rod": (77, 4978.0926, 16.960752),
    "p1_dimer": (55, 4926.965, 11.490274),
    "p1_trimer": (45, 6425.6516, 11.088313),
    "p1_block": (51, 11217.863, 13.404985),
    "p1_ring": (53, 10907.32, 13.114139),
    "p1_barrel": (55, 18146.514, 15.628985),
    "p1_lump": (65, 10749.19, 12.283871),
    "p1_shell": (75, 40836.853, 21.260651),
    "p1_two_parts": (107, 83443.427, 24.124445),
    "mb_p1_channel": (49, 7662.3877, 11.428561),
    "mb_p1_pump": (47, 3021.9651, 9.7169717),
}


def spread(density):
    grids = np.ogrid[tuple(slice(0, n) for n in density.shape)]
    square = sum((grid - (n - 1) / 2) ** 2 for grid, n in zip(grids, density.shape, strict=True))
    return float(np.sqrt((density.astype(np.float64) * square).sum() / density.sum(dtype=np.float64)))


def test_procedural_1_stays_what_it_is():
    """Published scores stand on these values: change a molecule only under a new name."""
    assert list(PINNED) == NAMES
    for name, (edge, total, wide) in PINNED.items():
        density = BY_NAME[name].density
        assert density.shape == (edge,) * 3, name
        assert density.sum(dtype=np.float64) == pytest.approx(total, rel=1e-5), name
        assert spread(density) == pytest.approx(wide, rel=1e-5), name


def test_it_is_made_of_no_state_of_its_surroundings():
    np.random.seed(5)  # noqa: NPY002
    again = procedural_1.__wrapped__()
    for first, second in zip(procedural_1(), again, strict=True):
        np.testing.assert_array_equal(first.density, second.density)


def test_it_is_a_library_of_complexes_of_many_sizes():
    masses = [mass_kda(molecule) for molecule in procedural_1()]
    assert 60 < min(masses) < 110
    assert 2500 < max(masses) < 4000
    assert sum(name.startswith(MEMBRANE_PREFIX) for name in NAMES) == 2
    for molecule in procedural_1():
        assert molecule.density.dtype == np.float32
        assert molecule.density.min() >= 0
        # Nothing is cut off by the box.
        assert max(molecule.density.take(n, axis=axis).max() for axis in range(3) for n in (0, -1)) < 0.02


@pytest.mark.parametrize(("name", "fold"), [("p1_dimer", 2), ("p1_trimer", 3), ("p1_ring", 6), ("p1_barrel", 7)])
def test_rings_have_their_symmetry_and_no_other(name, fold):
    density = BY_NAME[name].density

    def alike(angle_deg):
        turned = scipy.ndimage.rotate(density, angle_deg, axes=(1, 2), reshape=False, order=1)
        return np.corrcoef(turned.ravel(), density.ravel())[0, 1]

    assert alike(360 / fold) > 0.97
    assert alike(180 / fold) < alike(360 / fold) - 0.03


def test_rings_and_barrels_are_hollow():
    for name in ("p1_ring", "p1_barrel"):
        density = BY_NAME[name].density
        middle = density.shape[0] // 2
        assert density[:, middle, middle].max() < 0.15 * density.max()


def test_the_name_is_taken_as_a_file_is(tmp_path, monkeypatch):
    assert [m.name for m in load_library((Path(PROCEDURAL_1),))] == NAMES
    assert "p1_ring" not in [m.name for m in load_library((Path(PROCEDURAL_1),), ("p1_ring",))]
    monkeypatch.chdir(tmp_path)
    Path(PROCEDURAL_1).write_text("something else")
    assert [m.name for m in load_library((Path(PROCEDURAL_1),))] == NAMES
    with pytest.raises(InputError, match=PROCEDURAL_1):
        load_library((tmp_path / "procedural_2",))
    assert plain_library(())[1] == PROCEDURAL_1


# Simulations


def test_a_plain_series_is_of_procedural_1_unless_told(tmp_path):
    for name, words in (("default", ()), ("named", ("--molecules", PROCEDURAL_1))):
        result = good("simulate", "-o", tmp_path / name, "--snr", 0, *words)
        assert f"molecules: {PROCEDURAL_1}" in result.stdout
    first, second = (read_volume(tmp_path / name / "truth.mrc", is_volume=True) for name in ("default", "named"))
    np.testing.assert_array_equal(first.voxels, second.voxels)
    assert PROCEDURAL_1.encode() in (tmp_path / "default" / "truth.mrc").read_bytes()[:1024]
    made = cryolithe.simulate(snr_db=0)
    np.testing.assert_array_equal(made.truth.voxels, first.voxels)


def test_a_recipe_without_molecules_places_procedural_1_and_records_it(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({"cell": SMALL_CELL}))
    result = good("simulate", recipe, "-o", tmp_path / "out")
    assert f"those of {PROCEDURAL_1}" in result.stderr
    record = yaml.safe_load((tmp_path / "out" / "recipe.resolved.yaml").read_text())
    assert record["recipe"]["molecules"] == [PROCEDURAL_1]
    # The field of 160 x 320 x 320 Å is too small for some: they stay away, and the record says so.
    large = record["recipe"]["hold_out"]
    assert "p1_two_parts" in large
    assert set(record["library"]) == set(NAMES) - set(large)
    # What is recorded gives the same again.
    recipe.write_text(yaml.safe_dump(record["recipe"]))
    again = good("simulate", recipe, "-o", tmp_path / "again")
    assert "no molecules were given" not in again.stderr
    same = [read_volume(tmp_path / name / "TS_001_truth.mrc", is_volume=True).voxels for name in ("out", "again")]
    np.testing.assert_array_equal(*same)


def test_who_asks_for_molecules_gets_those():
    recipe, library, note = with_molecules(Recipe(procedural=2), Path())
    assert (len(library), note, recipe) == (2, None, Recipe(procedural=2))
    assert with_molecules(Recipe(procedural=0), Path())[1:] == ((), None)
    _, library, note = with_molecules(Recipe(molecules=(PROCEDURAL_1,), hold_out=("p1_rod",)), Path("somewhere"))
    assert [m.name for m in library] == [name for name in NAMES if name != "p1_rod"]
    assert note is None
    # Another library's names may stand in hold_out.
    recipe, library, note = with_molecules(Recipe(hold_out=("1bxn", "p1_rod")), Path())
    assert note is not None
    assert recipe.hold_out == ("p1_rod",)
    assert len(library) == len(NAMES) - 1


# Trainings and scores


def test_a_training_recipe_takes_it_by_name(tmp_path):
    (tmp_path / "cell.yaml").write_text(yaml.safe_dump({"molecules": [PROCEDURAL_1], "hold_out": ["p1_rod"]}))
    values = {"data": {"recipes": [{"path": "cell.yaml"}]}, "hold_out": ["p1_ring"]}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(values))
    config = read_train_config(tmp_path / "train.yaml")
    check_files(config, tmp_path)
    assert recipe_molecules(config, tmp_path) == set(NAMES) - {"p1_rod", "p1_ring"}


def test_scores_are_on_molecules_that_the_model_never_saw():
    library = procedural_1()

    def names(card, shipped=True):
        return [m.name for m in unseen_molecules(card, library, PROCEDURAL_1, shipped)]

    assert names({}) == NAMES
    assert names({"molecules": ["1f4a", "p1_rod"]}) == [name for name in NAMES if name != "p1_rod"]
    assert names({"began_with": {"molecules": ["p1_rod"]}}) == [name for name in NAMES if name != "p1_rod"]
    held = {"molecules": NAMES[1:], "recipe": {"hold_out": NAMES[:1]}}
    assert names(held) == names(held, shipped=False) == NAMES[:1]
    with pytest.raises(InputError, match="trained on every molecule"):
        names({"molecules": NAMES})
    with pytest.raises(InputError, match="none of the molecules"):
        names({"molecules": ["1f4a"]}, shipped=False)
