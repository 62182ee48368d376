"""Whole tilt series: seeds, geometry, contrast, noise and records."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.ndimage
from half_volumes import snr_of_halves

from cryolithe.errors import GeometryError, SettingsError
from cryolithe.optics.transfer import source_envelope
from cryolithe.simulation.detector import Detector, phase_per_voxel
from cryolithe.simulation.faults import FaultRecipe
from cryolithe.simulation.imaging import image_series, project_field
from cryolithe.simulation.imaging_recipe import ImagingRecipe, OpticsRecipe, SchemeRecipe

FEW = SchemeRecipe(step_deg=(20.0, 20.0))
FIELD = slice(8, 56)
VOXEL = 10.0


def crowd(shape=(24, 40, 64), seed=0):
    """Balls of protein in ice."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    density = np.zeros(shape, dtype=np.float32)
    for cz, cy, cx in rng.uniform(0, shape, size=(25, 3)):
        density[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 16] = 1
    return density


def record(seed=0, density=None, field=FIELD, **recipe):
    density = crowd() if density is None else density
    recipe = ImagingRecipe(**{"scheme": FEW, **recipe})
    return image_series(density, field, VOXEL, recipe, np.random.default_rng(seed))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["left", "phase-flipped", "wiener", "none"])
def test_series_are_whole_and_follow_the_seed(mode):
    faults = FaultRecipe((0.0, 1.0), (0.0, 0.3), (0.0, 0.01), (0, 3), (0.0, 0.2), 0.1, 0.1)
    first, again, other = (record(seed, ctf=mode, faults=faults) for seed in (1, 1, 2))
    for images in (first.images, first.even, first.odd, first.clean):
        assert images.shape == (7, 40, 48)
        assert images.dtype == np.float32
        assert np.isfinite(images).all()
        assert np.abs(images.mean(axis=(1, 2))).max() < 1e-2
    assert first.images.tobytes() == again.images.tobytes()
    assert first.even.tobytes() == again.even.tobytes()
    assert first.drawn == again.drawn
    assert first.images.tobytes() != other.images.tobytes()
    assert first.images == pytest.approx((first.even + first.odd) / 2)
    assert json.loads(json.dumps(first.drawn)) == first.drawn
    assert len(first.optics) == first.plan.tilts == 7


def test_zero_tilt_projection_is_the_sum_along_z():
    density = crowd()
    seen = project_field(density, (-30.0, 0.0, 30.0))[1]
    expected = density.sum(axis=0) - density.mean(axis=(1, 2)).sum()
    assert seen == pytest.approx(expected, abs=0.02)


def test_a_slab_goes_on_beyond_its_box():
    """An even slab projects to an even image at any tilt, edges included."""
    density = np.broadcast_to(np.linspace(0, 1, 24, dtype=np.float32)[:, None, None], (24, 16, 40)).copy()
    assert np.abs(project_field(density, (-60.0, 0.0, 60.0))).max() < 1e-4


def test_repeated_surroundings_are_those_of_a_tiled_density():
    density = scipy.ndimage.gaussian_filter(crowd((24, 20, 64)), 1.5, mode="wrap")
    angles = (-60.0, -20.0, 0.0, 45.0)
    tiled = project_field(np.tile(density, (1, 1, 5)), angles)[:, :, 128:192]
    assert project_field(density, angles, "repeated") == pytest.approx(tiled, abs=0.05)  # interpolated
    assert np.abs(project_field(density, angles, "even") - tiled).max() > 0.5


def test_protein_is_dark_and_on_scale():
    density = crowd()
    sharp = Detector(mtf_nyquist=1.0)
    series = record(ctf="none", exposure_weighting=False, detector=sharp, total_exposure=(0.1, 0.1))
    thick = density.sum(axis=0)[:, FIELD]
    expected = -2 * phase_per_voxel(VOXEL, 300.0) * (thick - thick.mean())
    assert series.plan.angles_deg[3] == 0
    assert series.clean[3] == pytest.approx(expected, abs=0.01)
    for options in ({"noise": "white"}, {"ctf": "phase-flipped"}):
        assert np.corrcoef(record(**options).clean[3].ravel(), thick.ravel())[0, 1] < -0.4


def test_snr_falls_with_tilt():
    thick = {"thickness_angstrom": (3000.0, 3000.0), "total_exposure": (160.0, 160.0)}
    linear = SchemeRecipe(kinds=("dose-symmetric",), step_deg=(15.0, 15.0))
    noise = []
    series = record(scheme=linear, exposure_weighting=False, **thick)
    noise = (series.even - series.odd).std(axis=(1, 2))
    assert (np.diff(noise[4:]) > 0).all()
    assert (np.diff(noise[:5]) < 0).all()
    # Relative noise goes with 1 / sqrt(electrons): exp(t / (2 Λ cos θ)).
    assert noise[8] / noise[4] == pytest.approx(np.exp(3000 / 3300 / 2), rel=0.05)
    ratio = series.clean.var(axis=(1, 2)) / noise**2
    assert ratio[4] > 1.5 * max(ratio[0], ratio[8])


@pytest.mark.parametrize("snr_db", [-5.0, 10.0])
def test_white_noise_is_at_the_stated_level(snr_db):
    series = record(noise="white", snr_db=(snr_db, snr_db))
    noise = series.images - series.clean
    assert 10 * np.log10(series.clean.var() / noise.var()) == pytest.approx(snr_db, abs=0.15)
    in_half = 10 ** (snr_db / 10) / 2
    error = (1 + 2 * in_half) / np.sqrt(noise.size)  # of r / (1 - r), from that of r: (1 - r²) / √n
    assert snr_of_halves(series.even, series.odd) == pytest.approx(in_half, abs=4 * error)
    assert series.optics == ()
    assert series.drawn["snr_db"] == snr_db


def test_halves_share_only_the_signal():
    empty = record(density=np.zeros((24, 40, 64), dtype=np.float32))
    assert not empty.clean.any()
    assert abs(np.corrcoef(empty.even.ravel(), empty.odd.ravel())[0, 1]) < 0.05


def test_a_blank_image_holds_no_specimen():
    series = record(faults=FaultRecipe(blank_chance=1.0))
    assert not series.clean.any()
    assert series.images.any()


def test_drawn_values_keep_to_their_ranges():
    optics = OpticsRecipe(defocus_um=(3.0, 4.0), defocus_spread_um=(0.0, 0.0), voltage_kv=200.0)
    scheme = SchemeRecipe(("linear", "bidirectional"), (40.0, 50.0), (9.0, 11.0), (-5.0, 5.0), missing=(1, 2))
    for seed in range(3):
        series = record(seed, optics=optics, scheme=scheme, total_exposure=(100.0, 110.0))
        assert all(3 <= o.defocus_um <= 4 and o.voltage_kv == 200 for o in series.optics)
        assert series.drawn["scheme"]["missing"] in (1, 2)
        assert 100 <= series.drawn["scheme"]["total_exposure"] <= 110


def test_a_source_of_some_size_takes_what_its_envelope_says():
    fixed = {"defocus_um": (15.0, 15.0), "defocus_spread_um": (0.0, 0.0), "astigmatism_um": (0.0, 0.0)}
    flat = SchemeRecipe(reach_deg=(1.0, 1.0), step_deg=(1.0, 1.0))
    # The field is the whole density, which repeats itself: no window hides what an image's frequencies are.
    density = crowd((8, 64, 64))
    point, some = (
        record(3, density, slice(0, 64), scheme=flat, ctf="left", optics=OpticsRecipe(**fixed, illumination_mrad=mrad))
        for mrad in (0.0, 0.05)
    )
    envelope = source_envelope(some.optics[1], (64, 64), VOXEL, 0.05)
    spectra = [np.fft.rfft2(series.clean[1] * np.outer(*[np.hanning(64)] * 2)) for series in (point, some)]
    ring = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64))
    for low, high in ((0.05, 0.1), (0.1, 0.15), (0.15, 0.2)):
        band = (ring > low) & (ring < high)
        share = np.linalg.norm(spectra[1][band]) / np.linalg.norm(spectra[0][band])
        wanted = np.linalg.norm(spectra[0][band] * envelope[band]) / np.linalg.norm(spectra[0][band])
        assert wanted < 0.98
        assert share == pytest.approx(wanted, rel=0.05)
    assert some.drawn["illumination_mrad"] == 0.05
    perfect = record(3, density, slice(0, 64), scheme=flat, ctf="none", optics=OpticsRecipe(illumination_mrad=0.05))
    assert (perfect.clean == record(3, density, slice(0, 64), scheme=flat, ctf="none").clean).all()
    with pytest.raises(SettingsError, match="illumination_mrad"):
        OpticsRecipe(illumination_mrad=-0.1)


def test_impossible_requests():
    with pytest.raises(GeometryError, match="middle"):
        record(field=slice(0, 40))
    with pytest.raises(GeometryError, match="three axes"):
        record(density=np.zeros((4, 4), dtype=np.float32))
    with pytest.raises(SettingsError, match="voxel size"):
        image_series(crowd(), FIELD, 0.0, ImagingRecipe(), np.random.default_rng(0))
    with pytest.raises(SettingsError, match="did you mean 'white'"):
        ImagingRecipe(noise="wihte")
    with pytest.raises(SettingsError, match="did you mean 'left'"):
        ImagingRecipe(ctf="lefft")
    with pytest.raises(SettingsError, match="total_exposure"):
        ImagingRecipe(total_exposure=(160.0, 60.0))
    with pytest.raises(SettingsError, match="at least one"):
        SchemeRecipe(kinds=())
