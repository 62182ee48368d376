"""Specimens, molecule libraries, and image formation: seeds, bounds, and the stated noise."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats import write_volume
from cryolithe.simulation import (
    Molecule,
    SpecimenRecipe,
    add_white_noise,
    load_molecules,
    make_specimen,
    noise_sigma,
    project,
    select_molecules,
    swept_angles_deg,
)
from cryolithe.simulation.molecules import resampled
from cryolithe.simulation.procedural import procedural_molecule
from cryolithe.volume import Volume

SHAPE = (32, 48, 40)
BARE = {"membranes": (0, 0), "body_chance": 0.0, "bead_chance": 0.0}
FULL = {"membranes": (1, 3), "body_chance": 1.0, "bead_chance": 1.0}


def ball(name="ball", radius=4, voxel=10.0):
    axis = np.arange(-radius - 3, radius + 4)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    density = 1 / (1 + np.exp(2 * (np.sqrt(z**2 + y**2 + x**2) - radius)))
    return Molecule(name, density.astype(np.float32), voxel)


def draw(seed=0, library=(), shape=SHAPE, **recipe):
    return make_specimen(SpecimenRecipe(shape, **recipe), library, np.random.default_rng(seed))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [{}, FULL, {"procedural_share": 0.0, **BARE}])
def test_the_same_seed_gives_the_same_bytes(recipe):
    library = (ball(), ball("other", 3))
    first, again, other = (draw(seed, library, **recipe) for seed in (3, 3, 4))
    assert first.density.tobytes() == again.density.tobytes()
    assert first.voxel_size_angstrom == again.voxel_size_angstrom
    assert first.density.tobytes() != other.density.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_specimens_are_dense_and_never_negative(seed):
    specimen = draw(seed, (ball(),), **FULL)
    assert specimen.density.shape == SHAPE
    assert specimen.density.dtype == np.float32
    assert np.isfinite(specimen.density).all()
    assert specimen.density.min() >= 0
    assert specimen.density.max() > 1  # beads
    assert 7 <= specimen.voxel_size_angstrom <= 13


@pytest.mark.parametrize("crowding", [0.03, 0.1])
def test_molecules_fill_what_is_asked_and_do_not_overlap(crowding):
    """Placing stops as soon as the bodies' voxels add up to the crowding; overlaps would leave fewer voxels filled."""
    library = (ball(radius=4),)
    specimen = draw(1, library, (40, 60, 60), crowding=(crowding, crowding), procedural_share=0.0, **BARE)
    filled = (specimen.density > 0.15).mean()
    largest = (1.3 * 10 / 7) ** 3 * 4.19 * 6**3 / specimen.density.size
    assert crowding <= filled <= crowding + largest


def test_a_recipe_without_a_library_places_procedural_molecules():
    specimen = draw(2, crowding=(0.05, 0.05), **BARE)
    assert (specimen.density > 0.15).mean() >= 0.05
    assert draw(2, crowding=(0.0, 0.0), **BARE).density.max() == 0


@pytest.mark.parametrize("seed", range(5))
def test_procedural_molecules_are_scaled_as_library_molecules(seed):
    molecule = procedural_molecule(np.random.default_rng(seed), "blob")
    smooth = scipy.ndimage.uniform_filter(molecule.density, round(10 / molecule.voxel_size_angstrom), mode="constant")
    assert molecule.density.min() >= 0
    assert np.percentile(smooth[smooth > 0.05 * smooth.max()], 90) == pytest.approx(1, abs=1e-4)
    assert len(set(molecule.density.shape)) == 1


@pytest.mark.parametrize("voxel", [7.0, 10.0, 13.0])
def test_a_molecule_keeps_its_mass_and_middle_when_turned(voxel):
    molecule = ball(radius=6)
    turned = resampled(molecule, Rotation.from_rotvec([0.3, -1.0, 0.5]).as_matrix(), voxel)
    assert turned.min() >= 0
    assert turned.shape[0] % 2 == 1
    assert turned.sum() * voxel**3 == pytest.approx(molecule.density.sum() * 10**3, rel=0.02)
    assert scipy.ndimage.center_of_mass(turned) == pytest.approx([turned.shape[0] // 2] * 3, abs=0.02)


def test_a_molecule_turns_by_its_rotation():
    density = np.zeros((25, 25, 25), dtype=np.float32)
    density[12, 12, 20] = density[12, 17, 12] = 1
    density = scipy.ndimage.gaussian_filter(density, 1.5)
    density /= density.max()
    # A quarter turn that takes the axis x to z and z to -x, in (z, y, x).
    quarter = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], dtype=float)
    turned = resampled(Molecule("two", density, 1.0), quarter, 1.0)
    middle = turned.shape[0] // 2
    peaks = {tuple(p - middle) for p in np.argwhere(turned > 0.9)}
    assert peaks == {(8, 0, 0), (0, 5, 0)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_leaflets_of_a_membrane_lie_two_and_a_half_nanometres_apart(seed):
    voxel = 1.5
    recipe = SpecimenRecipe((60, 80, 80), (voxel, voxel), (0.0, 0.0), 0.0, (1, 1), 0.0, 0.0)
    rng = np.random.default_rng(seed)
    while True:  # until the box holds a good piece of both leaflets
        density = make_specimen(recipe, (), rng).density
        sheets, count = scipy.ndimage.label(density > max(0.93 * density.max(), 0.3), np.ones((3, 3, 3)))
        sizes = np.bincount(sheets.ravel(), minlength=2)[1:]
        if count >= 2 and np.sort(sizes)[-2] > 4000:
            break
    one, two = np.argsort(sizes)[-2:] + 1
    apart = scipy.ndimage.distance_transform_edt(sheets != one)[sheets == two] * voxel
    assert np.median(apart) == pytest.approx(24, abs=3)  # less half the thickness of a sheet


@settings(deadline=None)
@given(st.floats(10, 80), st.floats(0.5, 5), st.floats(-20, 20))
def test_swept_angles_are_evenly_spaced_over_their_range(reach, step, middle):
    angles = np.array(swept_angles_deg(reach, step, middle))
    assert np.diff(angles) == pytest.approx(step)
    assert angles.min() == pytest.approx(max(middle - reach, -90), abs=step if middle - reach < -90 else 1e-9)
    assert angles.max() <= min(middle + reach, 90) + 1e-5
    assert angles.max() > min(middle + reach, 90) - step - 1e-5


def test_the_untilted_image_is_the_sum_along_the_beam():
    specimen = draw(3, (ball(),), **FULL)
    (image,) = project(specimen, (0.0,))
    expected = specimen.density.sum(axis=0)
    assert image == pytest.approx(expected - expected.mean(), abs=1e-3 * float(expected.max()))
    assert image.dtype == np.float32


def test_every_image_has_mean_zero():
    images = project(draw(3), (-50.0, 0.0, 30.0))
    assert images.shape == (3, *SHAPE[1:])
    assert images.mean(axis=(1, 2)) == pytest.approx(0, abs=1e-3 * float(images.std()))


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 7.0])
def test_the_noise_has_the_asked_variance(snr_db):
    images = project(draw(5, (ball(),)), tuple(np.arange(-60.0, 61.0, 3.0)))
    noisy = add_white_noise(images, snr_db, np.random.default_rng(0))
    added = noisy - images
    assert noisy.dtype == np.float32
    assert 10 * np.log10(images.var() / added.var()) == pytest.approx(snr_db, abs=0.1)
    assert noise_sigma(images, snr_db) == pytest.approx(added.std(), rel=0.01)
    assert noise_sigma(images, snr_db) == pytest.approx(np.sqrt(images.var() / 10 ** (snr_db / 10)))
    for neighbour in (added[:, :, 1:] * added[:, :, :-1], added[:, 1:] * added[:, :-1], added[1:] * added[:-1]):
        assert abs(neighbour.mean()) < 0.02 * added.var()  # white
    assert np.array_equal(noisy, add_white_noise(images, snr_db, np.random.default_rng(0)))


@pytest.fixture
def library(tmp_path):
    """Write an HDF5 library; values are arrays, or (array, voxel size)."""

    def write(**molecules):
        path = tmp_path / "library.h5"
        with h5py.File(path, "w") as file:
            for name, (density, voxel) in molecules.items():
                item = file.create_dataset(name, data=density)
                if voxel is not None:
                    item.attrs["voxel_size_angstrom"] = voxel
        return path

    return write


def test_an_hdf5_library_is_read_scaled_and_clipped(library):
    density = 7 * ball().density
    density[0, 0, 0] = -3
    first, second = load_molecules(library(a=(density, 10.0), b=(ball(radius=2).density, 5.0)))
    assert (first.name, first.voxel_size_angstrom) == ("a", 10.0)
    assert (second.name, second.voxel_size_angstrom) == ("b", 5.0)
    assert first.density.dtype == np.float32
    assert first.density.min() == 0
    assert np.percentile(first.density[first.density > 0.05 * first.density.max()], 90) == pytest.approx(1, abs=1e-5)


def test_a_folder_of_maps_and_a_single_map_are_libraries(tmp_path):
    for name, radius in (("one", 3), ("two", 5)):
        write_volume(tmp_path / f"{name}.mrc", Volume(2 * ball(radius=radius).density, 6.5), label="test")
    (tmp_path / "notes.txt").write_text("not a map")
    molecules = load_molecules(tmp_path)
    assert [m.name for m in molecules] == ["one", "two"]
    assert [m.voxel_size_angstrom for m in molecules] == pytest.approx([6.5, 6.5])
    (single,) = load_molecules(tmp_path / "two.mrc")
    assert np.array_equal(single.density, molecules[1].density)
    smooth = scipy.ndimage.uniform_filter(single.density, 2, mode="constant")
    assert np.percentile(smooth[smooth > 0.05 * smooth.max()], 90) == pytest.approx(1, abs=1e-4)
    assert draw(1, molecules, procedural_share=0.0, **BARE).density.max() > 0.5


def test_libraries_that_are_none_are_refused(tmp_path, library):
    with pytest.raises(
        InputError, match=r"molecule library .*nowhere.h5 does not exist; give an HDF5 file, an MRC map"
    ):
        load_molecules(tmp_path / "nowhere.h5")
    text = tmp_path / "text.h5"
    text.write_text("protein")
    with pytest.raises(FileFormatError, match=r"text.h5 cannot be read as an HDF5 molecule library"):
        load_molecules(text)
    with pytest.raises(FileFormatError, match=r"'a' in .* is not a .* dataset with the attribute voxel_size_angstrom"):
        load_molecules(library(a=(ball().density, None)))
    with pytest.raises(FileFormatError, match=r"'flat' in .* is not a"):
        load_molecules(library(flat=(np.ones((4, 4)), 10.0)))
    with pytest.raises(InputError, match="holds no density map"):
        load_molecules(library())
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="empty holds no density map"):
        load_molecules(empty)
    write_volume(tmp_path / "unsized.mrc", Volume(ball().density), label="test")
    with pytest.raises(FileFormatError, match=r"unsized.mrc has no voxel size in its header"):
        load_molecules(tmp_path / "unsized.mrc")


def test_held_out_molecules_are_left_out_by_their_exact_name():
    molecules = tuple(ball(name) for name in ("1s3x", "3gl1", "4cr2"))
    assert [m.name for m in select_molecules(molecules, ("3gl1",))] == ["1s3x", "4cr2"]
    assert select_molecules(molecules, ()) == molecules
    with pytest.raises(InputError, match=r"'3gll' is to be left out but is not in the library \(1s3x, 3gl1, 4cr2\)"):
        select_molecules(molecules, ("1s3x", "3gll"))
    with pytest.raises(InputError, match="every molecule of the library is left out"):
        select_molecules(molecules, ("1s3x", "3gl1", "4cr2"))


def test_a_molecule_thinner_than_a_voxel_does_not_hang():
    thin = Molecule("thin", np.full((3, 3, 3), 0.1, dtype=np.float32), 10.0)
    recipe = SpecimenRecipe((16, 16, 16), procedural_share=0.0, membranes=(0, 0), body_chance=0, bead_chance=0)
    assert make_specimen(recipe, (thin,), np.random.default_rng(0)).density.max() == 0


@pytest.mark.parametrize(
    ("density", "voxel", "line"),
    [
        (np.zeros((4, 4, 4)), 10.0, "positive density"),
        (np.ones((4, 4, 4)), -1.0, "positive voxel size"),
        (np.ones((4, 4, 4)), float("nan"), "positive voxel size"),
        (np.ones((4, 4, 4)), "ten", "no density map of numbers"),
    ],
)
def test_library_entries_that_are_no_densities_are_refused(tmp_path, density, voxel, line):
    with h5py.File(tmp_path / "library.h5", "w") as file:
        file.create_dataset("odd", data=density).attrs["voxel_size_angstrom"] = voxel
    with pytest.raises(FileFormatError, match=line):
        load_molecules(tmp_path / "library.h5")
