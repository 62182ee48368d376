"""The defocus that a file tells against the rings of the images, as a law and through the real command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_ctf_files import ARETOMO, columns
from test_defocus_hand import ANGLES, DEFOCUS, FBP
from tiny_series import made, write_series

from cryolithe.optics.transfer import Optics, TiltedView, form_image
from cryolithe.reconstruction.evidence.thon_rings import (
    RingEvidence,
    RingSpectra,
    asked_for_rings,
    joined,
    ring_evidence,
    ring_power,
    ring_tile_px,
    strange_images,
    tile_places_px,
)

SHAPE, PIXEL = (256, 256), 5.0
TILTS = tuple(float(a) for a in range(-48, 49, 12))


def imaged(optics, seed=0, noise=0.5, pixel=PIXEL, tilts=TILTS, hand=1):
    """Matter whose power falls with frequency, imaged at some tilts, with noise."""
    rng = np.random.default_rng(seed)
    k = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.rfftfreq(SHAPE[1])[None])
    images = []
    for angle in tilts:
        spectrum = np.fft.rfft2(rng.standard_normal(SHAPE)) / (0.02 + k)
        matter = np.fft.irfft2(spectrum, s=SHAPE)
        view = None if optics is None else TiltedView(optics, angle, pixel, hand)
        signal = matter if view is None else form_image(matter.astype(np.float32), view)
        images.append((signal + noise * 10 * rng.standard_normal(SHAPE)).astype(np.float32))
    return images


def spectra(images, told, pixel=PIXEL, tilts=TILTS, hand=1):
    """Of images, of which each has its told optics."""
    views = [TiltedView(optics, angle, pixel, hand) for optics, angle in zip(told, tilts, strict=True)]
    numbers, tile = asked_for_rings(tilts), ring_tile_px(SHAPE, views[0])
    power = tuple(ring_power(images[n], tile) for n in numbers)
    return RingSpectra(numbers, tuple(views[n] for n in numbers), tile, tile_places_px(SHAPE[1], tile), power)


def asked(images, told, **options):
    """What images tell together."""
    return ring_evidence(spectra(images, told, **options))


@pytest.mark.parametrize(
    "optics",
    [
        Optics(defocus_um=2.0),
        Optics(defocus_um=3.0),
        Optics(defocus_um=5.0),
        Optics(defocus_um=3.0, astigmatism_um=0.3, astigmatism_angle_deg=20),
        Optics(200.0, 2.0, 0.1, 2.5),
        Optics(defocus_um=2.0, phase_shift_deg=90),
    ],
)
@pytest.mark.parametrize("hand", [1, -1])
def test_the_defocus_of_rings_is_found(optics, hand):
    images = imaged(optics, hand=hand)
    right = asked(images, [optics] * len(TILTS), hand=hand)
    assert right.confirmed
    assert right.found_um is None
    for off in (-0.9, 1.2, 2.5):
        told = replace(optics, defocus_um=optics.defocus_um + off)
        wrong = asked(images, [told] * len(TILTS), hand=hand)
        if abs(off) > max(0.5, 0.15 * told.defocus_um):
            assert wrong.found_um == pytest.approx(optics.defocus_um, abs=0.2), off
            assert not wrong.confirmed


def test_a_finer_pixel_and_another_one():
    optics = Optics(defocus_um=2.5)
    assert asked(imaged(optics, pixel=2.6), [optics] * len(TILTS), pixel=2.6).confirmed
    found = asked(imaged(optics), [optics] * len(TILTS), pixel=PIXEL * 0.8).found_um
    assert found == pytest.approx(2.5 * 0.8**2, abs=0.2)


@pytest.mark.parametrize("noise", [0.0, 1.0, 10.0])
def test_images_without_rings_tell_nothing(noise):
    for seed in range(6):
        images = imaged(None, seed, noise)
        for um in (1.0, 3.0, 8.0):
            told = [Optics(defocus_um=um)] * len(TILTS)
            found = asked(images, told)
            assert found.found_um is None
            assert not found.confirmed
            assert strange_images(spectra(images, told)) == {}
    flat = [np.zeros(SHAPE, dtype=np.float32)] * len(TILTS)
    nothing = asked(flat, [Optics()] * len(TILTS))
    assert nothing.gain == 0
    assert nothing.images == len(asked_for_rings(TILTS))


def test_the_first_hump_alone_tells_nothing():
    """Power that falls to nothing before the first zero of the CTF, as bilayers' or filaments' may."""
    k = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.rfftfreq(SHAPE[1])[None])
    for middle in (0.06, 0.1, 0.14):
        hump = np.exp(-(((k - middle) / 0.03) ** 2))
        rng = np.random.default_rng(1)
        images = [
            (np.fft.irfft2(hump * np.fft.rfft2(rng.standard_normal(SHAPE)), s=SHAPE) * 10 + rng.standard_normal(SHAPE))
            for _ in TILTS
        ]
        for um in (1.5, 3.0, 6.0):
            found = asked([image.astype(np.float32) for image in images], [Optics(defocus_um=um)] * len(TILTS))
            assert found.found_um is None, (middle, um, found)


def test_images_in_another_order_are_named():
    optics = [Optics(defocus_um=2.0 + 0.4 * n) for n in range(len(TILTS))]
    images = [imaged(one, n, 0.3, tilts=(angle,))[0] for n, (one, angle) in enumerate(zip(optics, TILTS, strict=True))]
    assert strange_images(spectra(images, optics)) == {}
    found = strange_images(spectra(images, optics[::-1]))
    assert {2, 3, 5, 6} <= set(found)
    assert 4 not in found
    for number, one in found.items():
        assert one.best_um == pytest.approx(optics[number].defocus_um, abs=0.3)


def test_halves_are_asked_together():
    optics = [Optics(defocus_um=3.0)] * len(TILTS)
    one, other = (spectra(imaged(optics[0], seed, 2.0), optics) for seed in (0, 1))
    both = joined((one, other, RingSpectra()))
    np.testing.assert_allclose(both.power, np.add(one.power, other.power))
    assert ring_evidence(both).gain > 0
    tilts = joined((replace(one, numbers=tuple(range(20, 20 + len(one.numbers)))), other))
    assert len(tilts.power) == len(one.power) + len(other.power)
    assert joined(()) == RingSpectra()
    assert ring_evidence(RingSpectra()) == RingEvidence()
    assert not RingEvidence().confirmed
    assert RingEvidence().found_um is None


def test_tiny_images_are_not_asked():
    view = TiltedView(Optics(), 0.0, PIXEL)
    assert ring_tile_px((30, 400), view) is None
    assert asked_for_rings((-60.0, 60.0)) == ()


def written(folder, images, told):
    """A stack with a table of AreTomo3 of these defoci, µm; the command's words."""
    write_series(folder, images, ANGLES, pixel_size=PIXEL)
    (folder / "ts_CTF.txt").write_text(columns(ARETOMO, " 1", rows=[(um, um, 0.0) for um in told]))
    return (folder / "ts.mrc", folder / "ts.tlt", *FBP, "-o")


@pytest.mark.slow
def test_the_command_compares_a_table_with_the_images(tmp_path):
    images = imaged(Optics(defocus_um=DEFOCUS, amplitude_contrast=0.07), tilts=ANGLES, hand=-1)
    words = written(tmp_path, np.array(images), [DEFOCUS] * len(ANGLES))
    assert "confirm ts_CTF.txt (3 µm)" in made(*words, tmp_path / "a.mrc").stderr
    record = json.loads((tmp_path / "a.json").read_text())
    told = record["method"]["corrections"]["ctf"]["defocus_by_images"]
    assert told["told_um"] == DEFOCUS
    assert told["best_um"] == pytest.approx(DEFOCUS, abs=0.2)
    words = written(tmp_path, np.array(images), [DEFOCUS + 1.5] * len(ANGLES))
    said = made(*words, tmp_path / "b.mrc").stderr
    assert "Warning: ts_CTF.txt tells a defocus of 4.5 µm, but the images have rings of 3" in said
    record = json.loads((tmp_path / "b.json").read_text())
    assert any("have rings of" in warning for warning in record["warnings"])
    one = [DEFOCUS + 1.5 * (number == 12) for number in range(len(ANGLES))]
    said = made(*written(tmp_path, np.array(images), one), tmp_path / "c.mrc").stderr
    assert "images have rings of another defocus than ts_CTF.txt tells: 13 (4.5, 3.1 µm) (told, found)" in said
    # Numbers are those of the stack, whatever is left out of it.
    made(*written(tmp_path, np.array(images), one), tmp_path / "e.mrc", "--exclude", "2,3")
    record = json.loads((tmp_path / "e.json").read_text())
    assert list(record["method"]["corrections"]["ctf"]["defocus_by_images"]["strange_images"]) == ["13"]
    words = written(tmp_path, np.array(imaged(None, tilts=ANGLES)), [DEFOCUS] * len(ANGLES))
    assert "no rings that are clear enough to tell it" in made(*words, tmp_path / "d.mrc").stderr
