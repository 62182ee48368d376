"""Where particles of RELION's tables lie: whose they are, the size of their pixels, their shifts, what lies outside."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import good
from scipy.spatial.transform import Rotation

from cryolithe.errors import InputError
from cryolithe.formats import write_volume
from cryolithe.formats.particles.star import read_positions
from cryolithe.viewer.reader import read_layers
from cryolithe.volume import Volume

SHAPE, VOXEL = (20, 30, 40), 10.0
XYZ = tuple(f"rlnCoordinate{axis}" for axis in "XYZ")
CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")
ORIGIN = tuple(f"rlnOrigin{axis}Angst" for axis in "XYZ")


def table(name, columns, *rows):
    head = "".join(f"_{column} #{number}\n" for number, column in enumerate(columns, 1))
    return f"data_{name}\n\nloop_\n{head}" + "".join(" ".join(map(str, row)) + "\n" for row in rows) + "\n"


def star(folder, *tables):
    path = folder / "p.star"
    path.write_text("".join(tables))
    return path


def places(path, volume="ts_01_rec.mrc", voxel=VOXEL):
    return read_positions(path, SHAPE, voxel, volume).position_px.tolist()


def test_micrographs_tell_whose_particles_they_are(tmp_path):
    rows = [("Tomograms/ts_01.tomostar", 1, 2, 3), ("Tomograms/ts_02_bin4.mrc", 4, 5, 6)]
    both = star(tmp_path, table("particles", ("rlnMicrographName", *XYZ), *rows))
    assert places(both) == [[3, 2, 1]]
    assert places(both, "ts_02_10.00Apx.mrc") == [[6, 5, 4]]
    with pytest.raises(InputError, match="no particles of ts_03"):
        places(both, "ts_03_rec.mrc")
    one = star(tmp_path, table("particles", ("rlnMicrographName", *XYZ), ("rec.mrc", 1, 2, 3)))
    assert places(one, "ts_03_rec.mrc") == [[3, 2, 1]]  # the name tells nothing
    file = star(tmp_path, table("particles", ("rlnMicrographName", *XYZ), ("ts_01_corrected.mrc", 1, 2, 3)))
    for volume in ("ts_01_rec.mrc", "lamella7.mrc"):  # files are called anyhow: the only one is taken, and named
        found = read_positions(file, SHAPE, VOXEL, volume)
        assert found.position_px.tolist() == [[3, 2, 1]]
        assert found.notes == (f"Particles of p.star are of ts_01_corrected.mrc; {volume} is taken for it.",)
    none = star(tmp_path, table("particles", ("rlnTomoName", "rlnMicrographName", *XYZ), ("None", "ts_01", 1, 2, 3)))
    assert places(none) == [[3, 2, 1]]


@pytest.mark.parametrize(
    ("columns", "values", "scale"),
    [
        ((), (), 1),
        (("rlnTomoTiltSeriesPixelSize",), (2.5,), 0.25),
        (("rlnTomoTiltSeriesPixelSize", "rlnImagePixelSize"), (2.5, 10), 0.25),  # RELION 4: of the images, not these
        (("rlnDetectorPixelSize", "rlnMagnification"), (5, 10000), 0.5),  # Warp
        (("rlnDetectorPixelSize", "rlnMagnification"), (14, 14000), 1),
        (("rlnDetectorPixelSize",), (10.003,), 1),  # pytom-match-pick: Å
        (("rlnPixelSize",), (20,), 2),
        (("rlnMicrographPixelSize", "rlnDetectorPixelSize", "rlnMagnification"), (5, 20, 10000), 0.5),  # of the images
        (("rlnPixelSize", "rlnDetectorPixelSize", "rlnMagnification"), (20, 20, 10000), 2),
        (("rlnPixelSize",), (0,), 1),  # tells nothing
        (("rlnDetectorPixelSize", "rlnMagnification"), (5, 1e-300), 1),
        (("rlnImagePixelSize",), (10,), 1),
    ],
)
def test_coordinates_count_pixels_of_the_size_that_is_told(columns, values, scale, tmp_path):
    path = star(tmp_path, table("particles", ("rlnTomoName", *XYZ, *columns), ("ts_01", 8, 12, 4, *values)))
    assert places(path) == [[4 * scale, 12 * scale, 8 * scale]]
    assert bool(read_positions(path, SHAPE, VOXEL, "ts_01.mrc").notes) is (scale != 1)
    assert places(path, voxel=None) == [[4, 12, 8]]
    centred = table("particles", ("rlnTomoName", *CENTRED, *columns), ("ts_01", 80, 120, 40, *values))
    assert places(star(tmp_path, centred)) == [[14, 27, 28]]


def test_optics_groups_tell_the_size_too(tmp_path):
    optics = ("rlnOpticsGroup", "rlnTomoTiltSeriesPixelSize", "rlnImagePixelSize")
    rows = [("ts_01", 8, 12, 4, 1), ("ts_02", 8, 12, 4, 2)]
    groups = table("optics", optics, (1, 2.5, 10), (2, 5, 10))
    path = star(tmp_path, groups, table("particles", ("rlnTomoName", *XYZ, "rlnOpticsGroup"), *rows))
    assert places(path) == [[1, 3, 2]]
    assert places(path, "ts_02_rec.mrc") == [[2, 6, 4]]
    one = table("optics", optics, (1, 2.5, 10))
    assert places(star(tmp_path, one, table("particles", ("rlnTomoName", *XYZ), ("ts_01", 8, 12, 4)))) == [[1, 3, 2]]
    path = star(tmp_path, groups, table("particles", ("rlnTomoName", *XYZ, "rlnOpticsGroup"), ("ts_01", 8, 12, 4, 3)))
    with pytest.raises(InputError, match="the optics group '3'"):
        places(path)


@pytest.mark.parametrize(
    ("columns", "values", "words"),
    [
        (("rlnImagePixelSize",), (2.5,), r"images have pixels of 2.5 Å.*as a column rlnTomoTiltSeriesPixelSize"),
        (("rlnPixelSize", "rlnDetectorPixelSize", "rlnMagnification"), (5, 20, 10000), "5 Å .* and 20 Å"),
    ],
)
def test_a_size_that_is_not_known_is_refused(columns, values, words, tmp_path):
    path = star(tmp_path, table("particles", ("rlnTomoName", *XYZ, *columns), ("ts_01", 8, 12, 4, *values)))
    with pytest.raises(InputError, match=words):
        places(path)


def test_shifts_of_a_refinement_are_subtracted(tmp_path):
    shift = (50, -20, 10)
    columns, row = ("rlnTomoName", *CENTRED, *ORIGIN), ("ts_01", 0, 0, 0, *shift)
    path = star(tmp_path, table("particles", columns, row))
    assert places(path) == [[9, 17, 15]]
    assert "Origins" in read_positions(path, SHAPE, VOXEL, "ts_01.mrc").notes[0]
    plain = ("rlnTomoName", *XYZ, *ORIGIN, "rlnTomoTiltSeriesPixelSize")
    unbinned = star(tmp_path, table("particles", plain, ("ts_01", 80, 60, 40, *shift, 2.5)))
    assert places(unbinned) == [[9, 17, 15]]
    assert places(unbinned, voxel=None) == [[36, 68, 60]]  # in pixels, whose size is told
    in_pixels = ("rlnTomoName", *XYZ, *(f"rlnOrigin{axis}" for axis in "XYZ"), "rlnPixelSize")
    assert places(star(tmp_path, table("particles", in_pixels, ("ts_01", 40, 30, 20, 2, 4, 6, 5)))) == [[7, 13, 19]]
    with pytest.raises(InputError, match="shifts in Å"):
        places(
            star(tmp_path, table("particles", ("rlnTomoName", *XYZ, *ORIGIN), ("ts_01", 8, 6, 4, *shift))), voxel=None
        )


def test_a_turn_of_the_subtomogram_turns_its_shift(tmp_path):
    turns = tuple(f"rlnTomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi"))
    angles = np.radians((30.0, 50.0, 20.0))
    (sp, st, sc), (cp, ct, cc) = np.sin(angles), np.cos(angles)
    relion = np.array([  # Euler_angles2matrix
        [cc * ct * cp - sc * sp, cc * ct * sp + sc * cp, -cc * st],
        [-sc * ct * cp - cc * sp, -sc * ct * sp + cc * cp, sc * st],
        [st * cp, st * sp, ct],
    ])  # fmt: skip
    assert np.linalg.det(relion) == pytest.approx(1)
    assert Rotation.from_matrix(relion).magnitude() > 0.5
    row = ("ts_01", 0, 0, 0, 30, 20, 10, 30, 50, 20)
    path = star(tmp_path, table("particles", ("rlnTomoName", *CENTRED, *ORIGIN, *turns), row))
    wanted = np.array([20, 15, 10]) - relion @ (3, 2, 1)
    assert places(path)[0] == pytest.approx(wanted[::-1])


def test_what_lies_outside_is_told(tmp_path):
    values = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    volume = tmp_path / "ts_01_rec.mrc"
    write_volume(volume, Volume(values, VOXEL), label="CryoLithe test fbp ")
    rows = [("ts_01", 8, 12, 4), ("ts_01", 39.4, 29.4, 19.4), ("ts_01", 8, 12, 40)]
    for count, told in ((3, True), (2, False)):
        path = star(tmp_path, table("particles", ("rlnTomoName", *XYZ), *rows[:count]))
        words = ("evaluate", volume, "--particles", path, "--particle-diameter", 60, "-o", tmp_path / "e.html")
        result = good(*words, "--overwrite")
        assert ("1 of 3 particles lie outside the volume of 20 x 30 x 40" in result.stderr) is told
        warnings = json.loads((tmp_path / "e.json").read_text())["evaluation"]["warnings"]
        assert any("lie outside" in line for line in warnings) is told
        *_, (_, meta, kind) = read_layers([str(volume), str(path)])
        assert kind == "points"
        assert ("1 of 3 outside" in meta["name"]) is told
