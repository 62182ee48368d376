"""What fills a cell between its molecules: mean, grain, unevenness, compartments, faces; and what it leaves alone."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.ndimage
from test_crowd import BARE, LIBRARY, cell

from cryolithe.errors import SettingsError
from cryolithe.simulation.canvas import INSIDE
from cryolithe.simulation.cell import CellRecipe
from cryolithe.simulation.classes import DALTON_PER_ANGSTROM3, mass_kda
from cryolithe.simulation.cytosol import ICE_OVER_VACUUM, density_of, grain_tile, slow_field
from cryolithe.simulation.detector import Detector
from cryolithe.simulation.imaging import image_series
from cryolithe.simulation.imaging_recipe import ImagingRecipe, OpticsRecipe, SchemeRecipe
from cryolithe.simulation.procedural import large_particle

EMPTY = {**BARE, "crowding": (0.0, 0.0), "thickness_nm": (1000.0, 1000.0), "margin": 0.0}
THIN = {**EMPTY, "thickness_nm": (24.0, 24.0), "shape": (48, 96, 96)}


def power(image, low, high):
    """Mean power of a square image between two frequencies, cycles per pixel."""
    size = len(image)
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    return (np.abs(np.fft.fft2(image - image.mean())) ** 2)[(k > low) & (k <= high)].mean() / size**2


@pytest.mark.parametrize("mg_per_ml", [100.0, 300.0])
def test_the_cytosol_has_the_density_that_its_concentration_amounts_to(mg_per_ml):
    made = cell(shape=(64, 96, 96), **EMPTY, cytosol_mg_ml=(mg_per_ml, mg_per_ml))
    # 1 mg/ml is 6.022e-4 Da/Å³; the mass of molecules by their density is counted alike.
    expected = mg_per_ml * 6.022e-4 / DALTON_PER_ANGSTROM3
    assert made.density.mean() == pytest.approx(expected, rel=0.03)
    assert not made.labels.any()


def test_uneven_cytosol_has_the_same_density_on_the_average_and_more_power_at_long_waves_only():
    settings = {**EMPTY, "shape": (32, 128, 128), "cytosol_mg_ml": (200.0, 200.0)}
    even, uneven = ([cell(seed, **settings, cytosol_variation=(v, v)).density for seed in range(6)] for v in (0.0, 0.3))
    assert np.mean(uneven) == pytest.approx(density_of(200.0), rel=0.15)
    for longest, least, most in (((0.005, 0.025), 3.0, 1e3), ((0.15, 0.3), 0.7, 1.4)):
        ratio = np.mean([power(d.sum(0), *longest) for d in uneven]) / np.mean(
            [power(d.sum(0), *longest) for d in even]
        )
        assert least < ratio < most


def test_grain_has_the_power_of_hard_spheres_of_the_mass_of_proteins():
    voxel, kda, mg_per_ml = 12.0, 40.0, 250.0
    axes = [np.fft.fftfreq(96, voxel)] * 2 + [np.fft.rfftfreq(96, voxel)]
    k = np.sqrt(sum(g**2 for g in np.meshgrid(*axes, indexing="ij")))
    tile = grain_tile(voxel, kda, mg_per_ml, np.random.default_rng(0)).astype(np.float64)
    spectrum = np.abs(np.fft.rfftn(tile)) ** 2 / tile.size * voxel**3
    filled, integral = 1.1 * mg_per_ml / 1000, 1000 * kda / DALTON_PER_ANGSTROM3
    structure = (1 - filled) ** 4 / (1 + 2 * filled) ** 2
    radius = (3 * integral / (4 * math.pi)) ** (1 / 3)
    for longest, shortest in ((300, 170), (110, 90), (65, 55)):
        shell = (k > 1 / longest) & (k < 1 / shortest)
        guinier = np.exp(-((2 * math.pi * k[shell] * radius) ** 2) / 5).mean()
        assert spectrum[shell].mean() == pytest.approx(integral * structure * guinier, rel=0.15)


def test_slow_fields_have_unit_variance_over_many_draws():
    values = [slow_field((32, 64, 64), 10.0, 3.0, np.random.default_rng(seed)) for seed in range(300)]
    assert np.square(values).mean() == pytest.approx(1.0, rel=0.1)


def test_molecules_keep_their_density_and_lose_contrast():
    things = {**BARE, "thickness_nm": (1000.0, 1000.0), "margin": 0.0, "crowding": (0.05, 0.05), "shape": (48, 96, 96)}
    things |= {"vesicles": (600.0, 600.0), "vesicle_radius_nm": (15.0, 20.0)}
    bare, filled = (cell(2, LIBRARY, **things, cytosol_mg_ml=(c, c)) for c in (0.0, 250.0))
    assert np.array_equal(bare.labels, filled.labels)
    assert len(bare.placements) == len(filled.placements) > 3
    dense = bare.density >= 1
    assert np.array_equal(bare.density[dense], filled.density[dense])
    tails = (bare.labels == 1 + bare.classes.index("membrane")) & (bare.density < INSIDE)
    assert tails.any()
    assert np.array_equal(bare.density[tails], filled.density[tails])
    molecule, solvent = bare.labels > 1, bare.labels == 0
    contrasts = [c.density[molecule].mean() - c.density[solvent].mean() for c in (bare, filled)]
    assert contrasts[1] < 0.9 * contrasts[0]


def test_the_lumen_of_vesicles_is_filled_otherwise_than_the_cytosol():
    settings = {**EMPTY, "shape": (64, 96, 96), "vesicles": (60.0, 60.0), "vesicle_radius_nm": (25.0, 30.0)}
    made = cell(4, **settings, cytosol_mg_ml=(250.0, 250.0))
    rooms, count = scipy.ndimage.label(scipy.ndimage.binary_erosion(made.labels == 0, iterations=5))
    sizes = np.bincount(rooms.ravel())[1:]
    assert count > 1
    outside = 1 + int(sizes.argmax())
    lumens = [n + 1 for n in range(count) if n + 1 != outside and sizes[n] > 500]
    assert made.density[rooms == outside].mean() == pytest.approx(density_of(250.0), rel=0.05)
    assert lumens
    assert all(made.density[rooms == n].mean() < 0.7 * density_of(250.0) for n in lumens)


def test_faces_are_as_rough_as_asked_and_what_is_inside_stays():
    sigma_nm = 2.0
    heights = []
    for seed in range(12):
        smooth, rough = (cell(seed, **THIN, roughness_nm=(s, s)) for s in (0.0, sigma_nm))
        assert not smooth.density.any()
        inside = np.broadcast_to((smooth.slab_px > 9)[:, None], rough.density.shape)
        assert not rough.density[inside].any()
        assert rough.density.max() <= ICE_OVER_VACUUM + 1e-5
        assert rough.density.min() >= -ICE_OVER_VACUUM - 1e-5
        heights.append(rough.density.sum(axis=0) / ICE_OVER_VACUUM)  # both faces together, in voxels of 1 nm
    assert np.sqrt(np.square(heights).mean()) == pytest.approx(math.sqrt(2) * sigma_nm, rel=0.25)


def test_ribosomes_come_in_their_concentration_and_mass():
    masses = [mass_kda(large_particle(np.random.default_rng(seed), "p")) for seed in range(8)]
    assert min(masses) > 1500
    assert max(masses) < 5000
    numbers = [
        len(cell(seed, **{**EMPTY, "shape": (64, 96, 96)}, ribosomes_micromolar=(20.0, 20.0)).placements)
        for seed in range(6)
    ]
    expected = 20e-6 * 6.022e23 * 64 * 96 * 96 * 1e-24  # nm³ in litres
    assert 0.6 * expected < np.mean(numbers) < 1.2 * expected


def test_the_same_seed_gives_the_same_cytosol():
    settings = {"shape": (32, 64, 64), "lamella_chance": 1.0, "cytosol_mg_ml": (100.0, 300.0), "bodies": (20.0, 20.0)}
    settings |= {"cytosol_variation": (0.1, 0.4), "ribosomes_micromolar": (5.0, 10.0), "roughness_nm": (1.0, 2.0)}
    first, again, other = (cell(seed, **settings) for seed in (1, 1, 2))
    assert first.density.tobytes() == again.density.tobytes() != other.density.tobytes()


def test_impossible_backgrounds_are_refused():
    for bad in ({"cytosol_mg_ml": (0.0, 2000.0)}, {"cytosol_variation": (0.0, 9.0)}, {"roughness_nm": (-1.0, 1.0)}):
        with pytest.raises(SettingsError, match=next(iter(bad))):
            CellRecipe(**bad)


def imaged(density, defocus=3.0, **detector):
    recipe = ImagingRecipe(
        scheme=SchemeRecipe(reach_deg=(60.0, 60.0), step_deg=(30.0, 30.0)),
        optics=OpticsRecipe(defocus_um=(defocus, defocus), defocus_spread_um=(0.0, 0.0), astigmatism_um=(0.0, 0.0)),
        ctf="left", exposure_weighting=False, thickness_angstrom=(2000.0, 2000.0), detector=Detector(**detector),
    )  # fmt: skip
    return image_series(density, slice(0, density.shape[2]), 10.0, recipe, np.random.default_rng(0))


DENSITY = np.random.default_rng(5).random((16, 48, 48), dtype=np.float32)


def test_contrast_shrinks_with_the_path_by_scattering_from_atoms():
    plain, lossy = imaged(DENSITY), imaged(DENSITY, elastic_path_nm=500.0)
    for tilt, angle in enumerate(plain.plan.angles_deg):
        share = math.exp(-200 / (500 * math.cos(math.radians(angle))))
        np.testing.assert_allclose(lossy.clean[tilt], share * plain.clean[tilt], atol=1e-5)


def test_loss_makes_dense_things_darker_whatever_the_defocus():
    lost = [imaged(DENSITY, d, zero_loss=True).clean - imaged(DENSITY, d).clean for d in (1.0, 4.0)]
    np.testing.assert_allclose(lost[0], lost[1], atol=1e-5)
    middle = len(lost[0]) // 2
    thick = DENSITY.sum(axis=0) - DENSITY.sum(axis=0).mean()
    assert np.corrcoef(lost[0][middle].ravel(), thick.ravel())[0, 1] < -0.5
    # 100 Å of protein lose 100 Å (1/197 nm - 1/375 nm) = 2.4 % more than ice, seen from a wide step.
    step = np.zeros((10, 32, 256), dtype=np.float32)
    step[:, :, :128] = 1
    dark = (imaged(step, zero_loss=True).clean - imaged(step).clean)[middle]
    assert dark[:, 128 + 64 - 20 : 128 + 64 + 20].mean() - dark[:, 64 - 20 : 64 + 20].mean() == pytest.approx(
        0.0241, rel=0.1
    )


def test_a_path_that_cannot_be_is_refused():
    with pytest.raises(SettingsError, match="elastic_path_nm"):
        dataclasses.replace(Detector(), elastic_path_nm=0.0)
