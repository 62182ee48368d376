"""What CTF correction leaves of a volume's phases, through the real command: everywhere, and at all heights."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
from test_ctf_files import ARETOMO, columns
from tiny_series import made, refused, tree, voxels, write_series

from cryolithe.optics.transfer import Optics, TiltedView, form_image, undo_ctf, undo_ctf_in_depth
from cryolithe.reconstruction.images.layers import make_layers
from cryolithe.simulation.imaging import project_field

ANGLES = tuple(float(a) for a in range(-60, 61, 6))
ROWS, WIDTH, PIXEL, KV, DEFOCUS = 56, 112, 1.5, 100.0, 0.3
SHELLS = 6
OPTICS = Optics(KV, 2.7, 0.07, DEFOCUS)


def plane(depth, z, seed):
    """A volume ``(z, y, x)`` with random matter in one plane."""
    density = np.zeros((depth, ROWS + 48, WIDTH + 96), dtype=np.float32)
    density[z] = np.random.default_rng(seed).standard_normal(density.shape[1:])
    return density


def imaged(depth, planes, hand):
    """Images of planes of matter, each with the defocus of its height, and what they were before the optics."""
    plain, seen = (np.zeros((len(ANGLES), ROWS + 48, WIDTH + 96), dtype=np.float32) for _ in range(2))
    for z in planes:
        shadows = project_field(plane(depth, z, z), ANGLES, "even")
        for number, angle in enumerate(ANGLES):
            lower_um = hand * (z - (depth - 1) / 2) * PIXEL / math.cos(math.radians(angle)) / 1e4
            view = TiltedView(replace(OPTICS, defocus_um=DEFOCUS - lower_um), angle, PIXEL, hand)
            plain[number] += shadows[number]
            seen[number] += form_image(shadows[number], view)
    middle = np.s_[:, 24 : 24 + ROWS, 48 : 48 + WIDTH]
    return seen[middle], plain[middle]


def words(folder, name, images, depth, *more):
    write_series(folder, images, ANGLES, name=name, pixel_size=PIXEL)
    (folder / f"{name}_CTF.txt").write_text(columns(ARETOMO, rows=[(DEFOCUS, DEFOCUS, 0.0)] * len(ANGLES)))
    fbp = ("--method", "fbp", "--filter", "ramp", "--thickness", depth, "--device", "cpu")
    beam = ("--voltage", KV) if "--ctf" in more else ()
    return (folder / f"{name}.mrc", folder / f"{name}.tlt", *fbp, *beam, *more, "-o", folder / f"{name}.rec.mrc")


def volume(folder, name, images, depth, *more):
    made(*words(folder, name, images, depth, *more))
    return voxels(folder / f"{name}.rec.mrc")


def phases(found, truth):
    """Mean cosine of the phase difference, weighed by amplitude, of sections ``(y, x)``, in shells to Nyquist."""
    window = np.outer(np.hanning(found.shape[0] + 2)[1:-1], np.hanning(found.shape[1] + 2)[1:-1])
    a, b = (scipy.fft.rfft2(part * window) for part in (found, truth))
    k = np.hypot(np.fft.fftfreq(found.shape[0])[:, None], np.fft.rfftfreq(found.shape[1])[None]) / 0.5
    shell = (k * SHELLS).astype(int)
    cross = a * b.conj()
    return np.array([cross[shell == n].real.sum() / np.abs(cross[shell == n]).sum() for n in range(SHELLS)])


THIRDS = [slice(n * WIDTH // 3, (n + 1) * WIDTH // 3) for n in range(3)]


@pytest.mark.parametrize("hand", [1, -1])
def test_a_thin_specimen_comes_back_to_its_phases_in_every_strip_and_shell(tmp_path, hand):
    images, plain = imaged(3, (1,), hand)
    truth = volume(tmp_path, "truth", plain, 3)[1]
    found = volume(tmp_path, "right", images, 3, "--ctf", "flip", "--defocus-hand", hand)[1]
    left = volume(tmp_path, "left", images, 3)[1]
    for third in THIRDS:
        assert phases(found[:, third], truth[:, third]).min() > 0.95
        assert phases(left[:, third], truth[:, third]).min() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("hand", "z", "mirror"), [(1, 14, ()), (-1, 225, ("--flip-z",)), (-1, 119, ())])
def test_slabs_of_z_bring_back_what_lies_far_from_the_middle(tmp_path, hand, z, mirror):
    images, plain = imaged(240, (z,), hand)
    given = ("--ctf", "flip", "--defocus-hand", hand, *mirror)
    seen = 239 - z if mirror else z
    truth = volume(tmp_path, "truth", plain, 240, *mirror)[seen]
    assert phases(volume(tmp_path, "deep", images, 240, *given, "--ctf-3d")[seen], truth).min() > 0.9
    flat = phases(volume(tmp_path, "flat", images, 240, *given)[seen], truth)
    if z == 119:
        assert flat.min() > 0.9
        return
    assert flat[-2:].min() < 0.5
    wrong = volume(tmp_path, "wrong", images, 240, *given[:2], "--defocus-hand", -hand, *mirror, "--ctf-3d")
    assert phases(wrong[seen], truth)[-2:].min() < 0.5


@pytest.mark.slow
def test_slabs_do_not_depend_on_rows_at_a_time_or_on_files(tmp_path):
    import cryolithe

    images, _ = imaged(100, (14, 70), 1)
    given = ("--ctf", "multiply", "--defocus-hand", 1, "--ctf-3d")
    result = made(*words(tmp_path, "a", images, 100, *given))
    assert "3-D CTF: corrected anew for each of 7 slabs of z of 15 voxels" in result.stderr
    whole = voxels(tmp_path / "a.rec.mrc")
    again = words(tmp_path, "b", images, 100, *given)
    limits = (0.9 - 0.004 * n for n in range(100))
    limit = next(gb for gb in limits if " 1 slab of" not in made(*again, "--dry-run", "--max-memory", gb).output)
    made(*again, "--max-memory", limit)
    assert voxels(tmp_path / "b.rec.mrc") == pytest.approx(whole, abs=1e-4 * float(whole.std()))
    with pytest.warns(cryolithe.CryoLitheWarning, match="tells a defocus of 0.3 µm, but tilt series"):
        held = cryolithe.fbp(
            tmp_path / "a.mrc", tmp_path / "a.tlt", thickness=100, filter="ramp", device="cpu", voltage=KV,
            ctf="multiply", defocus_hand=1, ctf_3d=True,
        )  # fmt: skip
    assert np.array_equal(held.voxels, whole)


def test_one_slab_is_the_plain_correction():
    view = TiltedView(replace(OPTICS, astigmatism_um=0.05), 50.0, PIXEL)
    image = np.random.default_rng(0).standard_normal((48, 64)).astype(np.float32)
    for how in ("flip", "multiply", "wiener"):
        (same,) = undo_ctf_in_depth(image, view, how, (0.0,))
        assert same == pytest.approx(undo_ctf(image, view, how), abs=1e-4)
    lower = replace(view, optics=replace(view.optics, defocus_um=DEFOCUS - 0.02))
    (there,) = undo_ctf_in_depth(image, view, "multiply", (0.02,))
    assert there == pytest.approx(undo_ctf(image, lower, "multiply"), abs=1e-3)


@pytest.mark.parametrize("depth", [1, 2, 3, 60, 61, 300])
@pytest.mark.parametrize("mirrored", [False, True])
def test_heights_are_those_of_the_specimen(depth, mirrored):
    """A point (x, z) is less defocused than the middle by z cos θ - x sin θ; u shows x = (u - z sin θ) / cos θ."""
    layers = make_layers(depth, PIXEL, KV, ANGLES, mirrored)
    assert len(layers.planes) % 2 == 1
    assert [z for planes in layers.planes for z in planes] == list(range(depth))
    for angle in (-60.0, 10.0, 45.0):
        sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
        for planes, height in zip(layers.planes, layers.heights_um(angle, -1), strict=True):
            z = (np.mean(planes) - (depth - 1) / 2) * PIXEL * (-1 if mirrored else 1)
            x = (30.0 - z * sine) / cosine
            defocus = -(x * sine - z * cosine)
            assert -30.0 * math.tan(math.radians(angle)) - height * 1e4 == pytest.approx(defocus)


def test_slabs_are_refused_where_they_cannot_be(tmp_path):
    images = np.random.default_rng(0).standard_normal((len(ANGLES), ROWS, WIDTH)).astype(np.float32)
    given = words(tmp_path, "a", images, 20, "--ctf", "flip", "--ctf-3d")
    before = tree(tmp_path)
    other = [word for word in given if word not in ("--method", "fbp", "--filter", "ramp")]
    for method in ("sirt", "network"):
        refused(tmp_path, (*other, "--method", method), "--ctf-3d is for --method fbp", f"--method {method}")
    none = words(tmp_path, "a", images, 20, "--ctf-3d")
    refused(tmp_path, none, "--ctf-3d needs --ctf flip, multiply or wiener")
    assert tree(tmp_path) == before
