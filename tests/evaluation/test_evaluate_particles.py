"""What `cryolithe evaluate` tells of particles that it cannot judge: of the other contrast, or without a voxel size."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import good
from plain_mrc import new_mrc
from tiny_series import made, write_series

from cryolithe.evaluation.similarity import density_sign
from cryolithe.formats.particles.star import Particle, write_particles

SHAPE, DIAMETER_PX, VOXEL = (48, 80, 80), 14, 10.0
PLACES = np.array([[24.0, y, x] for y in (14.0, 40.0, 66.0) for x in (14.0, 40.0, 66.0)])


def balls(sign, noise=1.0, seed=0):
    """Particles of a sign in noise."""
    volume = noise * np.random.default_rng(seed).standard_normal(SHAPE)
    z, y, x = (np.arange(size, dtype=float) for size in SHAPE)
    for place in PLACES:
        away = (z[:, None, None] - place[0]) ** 2 + (y[:, None] - place[1]) ** 2 + (x - place[2]) ** 2
        volume[away <= (DIAMETER_PX / 2) ** 2] += 2 * sign
    return volume.astype(np.float32)


def evaluated(folder, volume, *words, voxel=VOXEL):
    with new_mrc(folder / "v.mrc", volume) as file:
        file.set_volume()
        if voxel:
            file.voxel_size = voxel
    (folder / "p.star").unlink(missing_ok=True)
    write_particles(folder / "p.star", [Particle("v", "ball", 1, tuple(p), (0, 0, 0)) for p in PLACES], SHAPE, VOXEL)
    page = folder / "e.html"
    given = ("--particles", folder / "p.star", "--particle-diameter", DIAMETER_PX * VOXEL, "--tilt-range", 60)
    result = good("evaluate", folder / "v.mrc", *given, *words, "-o", page, "--overwrite")
    return result, json.loads(page.with_suffix(".json").read_text())["evaluation"]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_particles_is_that_of_their_density(sign):
    assert density_sign(balls(sign), PLACES, DIAMETER_PX) == sign
    assert density_sign(balls(sign) + 100, PLACES, DIAMETER_PX) == sign
    assert density_sign(balls(0), PLACES, DIAMETER_PX) == 0
    assert density_sign(balls(sign), PLACES[:3], DIAMETER_PX) == 0  # too few tell nothing


def vesicles(sign, lumen, noise=0.5):
    """Thin shells about a middle that has less density than what lies around them."""
    volume = noise * np.random.default_rng(1).standard_normal(SHAPE)
    grids = np.ogrid[tuple(slice(size) for size in SHAPE)]
    for place in PLACES:
        away = sum((grid - at) ** 2 for grid, at in zip(grids, place, strict=True))
        inner = away < (DIAMETER_PX / 2 - 2) ** 2
        volume[inner] += sign * lumen
        volume[(away <= (DIAMETER_PX / 2) ** 2) & ~inner] += sign
    return volume.astype(np.float32)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_shells_is_not_that_of_what_they_hold(sign):
    for lumen in (0.0, -0.2):
        assert density_sign(vesicles(sign, lumen), PLACES, DIAMETER_PX) == sign
    for lumen in (-0.6, -1.0):  # as strong as the shell, that noise and blur weaken
        assert density_sign(vesicles(sign, lumen), PLACES, DIAMETER_PX) == 0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("wedge", [False, True])
def test_rings_of_the_ctf_and_the_wedge_do_not_hide_the_sign_of_particles(sign, wedge):
    kz, ky, kx = np.meshgrid(*map(np.fft.fftfreq, SHAPE), indexing="ij")
    passed = np.sin(np.pi * 8 * (kz**2 + ky**2 + kx**2) + 0.07)  # 4 µm below focus, voxels of 10 Å
    if wedge:
        passed = passed * (np.abs(kz) <= np.tan(np.pi / 3) * np.abs(kx))
    seen = np.fft.ifftn(np.fft.fftn(balls(sign, noise=0.0)) * passed).real
    seen += seen.std() * np.random.default_rng(2).standard_normal(SHAPE)
    assert density_sign(seen.astype(np.float32), PLACES, DIAMETER_PX) == sign


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_vesicles_of_the_right_contrast_are_not_warned_of(sign, tmp_path):
    _, found = evaluated(tmp_path, vesicles(sign, -0.2), "--contrast", "bright" if sign > 0 else "dark")
    assert found["warnings"] == []
    captions = (tmp_path / "e.html").read_text(encoding="utf-8")  # pictures are alike, and tell what the volume is
    told = ("dense matter drawn dark (bright in the volume).", "dense matter dark.")
    assert [captions.count(words) for words in told] == ([2, 0] if sign > 0 else [0, 2])


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_particles_of_the_other_contrast_are_told(sign, tmp_path):
    true, false = ("bright", "dark") if sign > 0 else ("dark", "bright")
    _, found = evaluated(tmp_path, balls(sign), "--contrast", true)
    assert found["picking"]["recall"] == 1
    assert found["warnings"] == []
    result, found = evaluated(tmp_path, balls(sign), "--contrast", false)
    assert found["picking"]["true"] < 3
    assert len(found["warnings"]) == 1
    for said in (found["warnings"][0], result.stderr):
        assert f"Dense matter is taken to be {false} in the volume, but is {true} at the particles" in said
        assert f"give --contrast {true}" in said


@pytest.mark.slow
def test_particles_that_noise_hides_tell_no_contrast(tmp_path):
    for contrast in ("dark", "bright"):
        assert evaluated(tmp_path, balls(0), "--contrast", contrast)[1]["warnings"] == []


@pytest.mark.slow
def test_particles_that_lie_outside_for_want_of_a_voxel_size_are_told_so(tmp_path):
    table = tmp_path / "pixels.star"
    rows = "".join(f"v {4 * x:g} {4 * y:g} {4 * z:g} 2.5\n" for z, y, x in PLACES)
    columns = ("TomoName", "CoordinateX", "CoordinateY", "CoordinateZ", "TomoTiltSeriesPixelSize")
    table.write_text("data_particles\n\nloop_\n" + "".join(f"_rln{name}\n" for name in columns) + rows)
    volume = balls(-1)
    assert evaluated(tmp_path, volume, "--particles", table)[1]["warnings"] == []
    result, found = evaluated(tmp_path, volume, "--particles", table, voxel=None)
    assert any(
        "has no voxel size, so that their coordinates are taken to count its voxels" in w for w in found["warnings"]
    )
    assert "particles lie outside the volume" in result.stderr


@pytest.mark.slow
def test_particles_that_lie_where_z_is_turned_round_are_told(tmp_path, monkeypatch):
    """Of those that lie about the middle nothing is said, nor where particles are at the positions."""
    volume, here = np.roll(balls(1), -10, axis=0), PLACES - (10, 0, 0)
    there = here * (-1, 1, 1) + (SHAPE[0] - 1, 0, 0)
    for places, shown, wanted in ((here, volume, False), (there, volume, True), (PLACES, balls(1), False)):
        monkeypatch.setattr("test_evaluate_particles.PLACES", places)
        result, found = evaluated(tmp_path, shown, "--contrast", "bright")
        said = any("with z turned round" in warning for warning in found["warnings"])
        assert said == wanted
        assert (found["picking"]["recall"] == 1) != wanted
        assert ("with z turned round" in result.stderr) == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "told"),
    [
        ((), None),
        (("--handedness", "aretomo"), "(--handedness aretomo)"),
        (("--flip-z",), "(--flip-z)"),
        (("--handedness", "warp", "--flip-z"), None),
    ],
    ids=["plain", "aretomo", "flip-z", "both"],
)
def test_positions_beside_a_volume_whose_z_is_turned_round_are_told_of(how, told, tmp_path):
    """By its record: nobody tells whether they were found in it or in one of the other sense."""
    stack, angles = write_series(tmp_path)
    made(stack, angles, "--method", "fbp", "--thickness", 24, *how, "-o", tmp_path / "v.mrc")
    places = [(12.0, y, x) for y in (12.0, 28.0) for x in (12.0, 30.0)]
    particles = [Particle("v", "ball", 1, place, (0, 0, 0)) for place in places]
    write_particles(tmp_path / "p.star", particles, (24, 40, 48), 5.0)
    given = ("--particles", tmp_path / "p.star", "--particle-diameter", 40)

    def notes():
        good("evaluate", tmp_path / "v.mrc", *given, "-o", tmp_path / "e.html", "--overwrite")
        return " ".join(json.loads((tmp_path / "e.json").read_text())["evaluation"]["notes"])

    assert ("The volume's z is turned round" in notes()) == bool(told)
    assert (told or "") in notes()
    (tmp_path / "v.json").unlink()
    assert "turned round" not in notes()
