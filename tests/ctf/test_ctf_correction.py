"""What correction does to an image whose every column was recorded with its own defocus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.fft

from cryolithe.alignment import View, rotation
from cryolithe.optics.ctf import Ctf, ImageCtf, Microscope
from cryolithe.optics.exposure import exposure_filter
from cryolithe.optics.transfer import Optics, TiltedView, ctf, filtered, tilted_defocus_um, undo_ctf
from cryolithe.reconstruction.images.correcting import Places, ToldDoses, corrected, corrections
from cryolithe.settings import ReconstructSettings

PIXEL = 4.0
FIELD, KEPT = (256, 576), (208, 528)  # what is imaged, and what of it is recorded
OPTICS = Optics(300.0, 2.7, 0.07, 2.0, 0.1, 35.0, 0.0)
SHELLS = 12


def noise(shape=FIELD, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def recorded(image):
    """The middle of an image."""
    y, x = ((n - k) // 2 for n, k in zip(image.shape, KEPT, strict=True))
    return image[y : y + KEPT[0], x : x + KEPT[1]]


def exactly_imaged(signal, view):
    """A sum over columns, each with the transfer function of its own defocus: no strips."""
    height, width = signal.shape
    away = (np.arange(width) - (width - 1) / 2) * view.pixel_size_angstrom
    defocus = tilted_defocus_um(view.optics.defocus_um, away, view.angle_deg, view.handedness)
    columns = scipy.fft.fft(signal.astype(np.float64), axis=0)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(width), np.arange(width // 2 + 1)) / width)
    total = np.zeros((height, width // 2 + 1), dtype=np.complex128)
    for column in range(width):
        transfer = ctf(replace(view.optics, defocus_um=float(defocus[column])), (height, width), PIXEL)
        total += columns[:, column, None] * waves[column] * transfer
    return scipy.fft.irfft2(total, s=signal.shape).astype(np.float32)


def agreement(image, truth, columns):
    """Share of the cross spectrum's power whose real part is positive, in shells to Nyquist, of some columns."""
    window = np.outer(np.hanning(KEPT[0] + 2)[1:-1], np.hanning(columns.stop - columns.start + 2)[1:-1])
    a, b = (scipy.fft.rfft2(part[:, columns] * window) for part in (image, truth))
    cross = (a * b.conj()).real
    k = np.hypot(np.fft.fftfreq(window.shape[0])[:, None], np.fft.rfftfreq(window.shape[1])[None])
    shell = (k / 0.5 * SHELLS).astype(int)
    return np.array([cross[(shell == n) & (cross > 0)].sum() / abs(cross[shell == n]).sum() for n in range(SHELLS)])


THIRDS = [slice(n * KEPT[1] // 3, (n + 1) * KEPT[1] // 3) for n in range(3)]


@pytest.fixture(scope="module", params=[-60.0, 0.0, 60.0])
def seen(request):
    """A tilted view, what it shows, and what of it is recorded."""
    view = TiltedView(OPTICS, request.param, PIXEL)
    signal = noise()
    return view, recorded(signal), recorded(exactly_imaged(signal, view))


def test_flipped_phases_are_those_of_the_truth_in_every_shell_and_strip(seen):
    view, truth, image = seen
    flipped = undo_ctf(image, view, "flip")
    for third in THIRDS:
        assert agreement(flipped, truth, third).min() > 0.98
        assert agreement(image, truth, third).min() < 0.7


@pytest.mark.parametrize("how", ["multiply", "wiener"])
def test_what_is_left_is_never_negative(seen, how):
    view, truth, image = seen
    made = undo_ctf(image, view, how)
    for third in THIRDS:
        assert agreement(made, truth, third).min() > 0.98


def test_the_wrong_hand_spoils_the_outer_strips_at_60_degrees(seen):
    view, truth, image = seen
    wrong = undo_ctf(image, replace(view, handedness=-1), "flip")
    outer = [agreement(wrong, truth, THIRDS[n]).min() for n in (0, 2)]
    if view.angle_deg:
        assert max(outer) < 0.8
    else:
        assert min(outer) > 0.98


def test_strips_leave_no_seam():
    """Every column is near what its own defocus alone would have made of it, also between the middles of strips."""
    image, view = noise((32, 160)), TiltedView(replace(OPTICS, defocus_um=1.0), 60.0, 2.0)
    assert len(view.strips(160)[0]) >= 5
    made = undo_ctf(image, view, "multiply")
    away = (np.arange(160) - 79.5) * 2.0
    wanted = np.empty_like(made)
    for column, defocus in enumerate(tilted_defocus_um(1.0, away, 60.0)):
        flat = TiltedView(replace(OPTICS, defocus_um=float(defocus)), 0.0, 2.0)
        wanted[:, column] = undo_ctf(image, flat, "multiply")[:, column]
    error = np.sqrt(((made - wanted) ** 2).mean(0)) / np.sqrt((wanted**2).mean())
    assert error.max() < 0.1


def test_multiplying_twice_leaves_no_phase_turned():
    view = TiltedView(replace(OPTICS, defocus_um=1.0), 0.0, PIXEL)
    point = np.zeros((128, 128), dtype=np.float32)
    point[64, 64] = 1.0
    twice = undo_ctf(undo_ctf(point, view, "multiply"), view, "multiply")
    left = scipy.fft.rfft2(np.roll(twice, (-64, -64), (0, 1))).real
    assert left.min() > -0.03
    assert np.corrcoef(left.ravel(), (ctf(view.optics, point.shape, PIXEL) ** 2).ravel())[0, 1] > 0.98


def made_for(places, angle=60.0, image=None, **settings):
    """The corrections of one image."""
    image = image or ImageCtf(3.1, 2.9, 35.0)
    found = Ctf((image,), Microscope(300.0, 2.7, 0.07)), "ts.txt"
    given = ReconstructSettings(ctf="flip", **settings)
    return corrections((found[0], Path(found[1])), None, (angle,), places, given).images[0]


def test_the_defocus_is_that_of_the_middle_of_the_recorded_image():
    """An image that an alignment moves by 50 pixels takes its defocus with it; binning changes no lengths."""
    for binning in (1, 2):
        still = made_for(Places((View(),), 0.0, binning, PIXEL)).view
        moved = made_for(Places((View(offset_px=(-50.0, 8.0)),), 0.0, binning, PIXEL)).view
        assert still.pixel_size_angstrom == binning * PIXEL
        place = np.array([0.0, 50 * PIXEL])
        here, there = (
            tilted_defocus_um(view.optics.defocus_um, place, view.angle_deg, view.handedness) for view in (still, moved)
        )
        assert there[1] == pytest.approx(here[0])


def test_astigmatism_turns_with_the_image():
    """An image is recorded with its axis at 84°; what is corrected was turned back."""
    (a, b), (c, d) = rotation(84.0)
    turned = made_for(Places((View(((a, b), (c, d)), (0.0, 0.0)),), 0.0, 1, PIXEL)).view.optics
    assert turned.astigmatism_angle_deg == pytest.approx(35.0 - 84.0)
    assert made_for(Places(None, 84.0, 1, PIXEL)).view.optics.astigmatism_angle_deg == pytest.approx(35.0 - 84.0)
    assert made_for(Places(None, 0.0, 1, PIXEL)).view.optics.astigmatism_angle_deg == pytest.approx(35.0)


def test_doses_weigh_as_published():
    """Grant & Grigorieff 2015, equations 3 to 5: exp(-N / (2 Ne)), Ne = 0.245 k^-1.665 + 2.81."""
    places = Places(None, 0.0, 1, PIXEL)
    image = noise(KEPT)
    how = corrections(None, ToldDoses((40.0,), "a.mdoc"), (0.0,), places, ReconstructSettings(dose_weight=True)).images[
        0
    ]
    made = corrected(image, how)
    ratio = scipy.fft.rfft2(made)[0, 1:] / scipy.fft.rfft2(image)[0, 1:]
    k = np.fft.rfftfreq(KEPT[1], PIXEL)[1:]
    assert ratio.real == pytest.approx(np.exp(-40.0 / (2 * (0.245 * k**-1.665 + 2.81))), abs=1e-4)
    assert made == pytest.approx(filtered(image, exposure_filter(KEPT, PIXEL, 40.0)), abs=1e-6)
