"""The CryoET Data Portal: its alignment as IMOD's files, by beads; its real client library without its network."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import call
from projects import ANGLES, AXIS_DEG, DARK, PIXEL, SHAPE, VOLUME, bead_places, make_project, turn
from scipy.spatial.transform import Rotation
from test_alignment_command import TRUTH
from tiny_series import made, voxels

from cryolithe.errors import InputError
from cryolithe.formats.particles.star import read_positions
from cryolithe.machine.extras import install_command
from cryolithe.portals.portal_alignment import PortalAlignment, Section, alignment_notes, write_imod_files

FBP = ("--method", "fbp")


def sections(project, unit="pixel"):
    """What the portal has of the project's images: p = M q + t."""
    matrix, scale = turn(AXIS_DEG), 1.0 if unit == "pixel" else PIXEL
    return [
        Section(s, ANGLES[s], tuple(map(tuple, matrix.tolist())), tuple((shift * scale).tolist()))
        for s, shift in enumerate(project.shifts)
        if s not in DARK
    ]


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["pixel", "angstrom"])
def test_beads_lie_where_they_are(unit, tmp_path):
    project = make_project(tmp_path)
    alignment = PortalAlignment(tuple(sections(project, unit)), len(ANGLES), PIXEL, VOLUME[0] * PIXEL)
    project.tlt.unlink()
    *_, listing = write_imod_files(tmp_path, "ts", alignment, unit)
    made("--list", listing, *FBP)
    volume = voxels(tmp_path / "ts_rec.mrc")
    assert volume.shape == VOLUME
    np.testing.assert_allclose(bead_places(volume), TRUTH, atol=0.1)
    record = json.loads((tmp_path / "ts_rec.json").read_text())
    assert record["geometry"]["excluded_sections"] == [section + 1 for section in DARK]
    assert record["volume"]["voxel_size_angstrom"] == PIXEL


def test_what_is_assumed_and_left_undone_is_told():
    one = Section(0, 10.0, ((1, 0), (0, 1)), (1.0, 0.0), 2.0)
    two = Section(2, 20.0, ((1, 0), (0, 1)), (0.0, 0.0))
    told = alignment_notes(PortalAlignment((one, two), 3, 4.0, None, 3.0, 4.0, (0, 5, 0), True), "pixel")
    for words in ("in pixels", "--offsets angstrom", "images 2 of 3", "tilt offset of 3°", "4° about x", "local one"):
        assert any(words in line for line in told), words
    assert any("rotations of single images" in line for line in told)
    plain = PortalAlignment((Section(0, 1.0, ((1, 0), (0, 1)), (0, 0)),), 1, 4.0)
    assert alignment_notes(plain, "pixel") == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sections": ()}, "no parameters"),
        ({"images": 2}, "has parameters of the images 0 to 2"),
        ({"pixel_size_angstrom": 0.0}, "pixel size"),
        ({"sections": (Section(0, float("nan"), ((1, 0), (0, 1)), (0, 0)),)}, "not finite"),
    ],
)
def test_an_alignment_of_no_use_is_refused(change, words):
    good = {"sections": tuple(Section(s, s * 1.0, ((1, 0), (0, 1)), (0, 0)) for s in range(3)), "images": 3}
    with pytest.raises(InputError, match=words):
        PortalAlignment(**{"pixel_size_angstrom": 4.0, **good, **change})


# The command, through the real client library


POINTS = ((5.0, 40.0, 30.0), (20.5, 10.0, 60.0))  # z, y, x in voxels of the portal's tomogram


@pytest.fixture
def portal(tmp_path, monkeypatch):
    """A portal with one run, whose network is this process; returns the rows of its tables, for changes."""
    library = pytest.importorskip("cryoet_data_portal")
    project = make_project(tmp_path / "theirs")
    rotation = Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix().tolist()
    lines = [
        {"type": "orientedPoint", "location": {"x": x, "y": y, "z": z}, "xyz_rotation_matrix": rotation}
        for z, y, x in POINTS
    ]
    files = {
        "https://files/ts.mrc": project.stack.read_bytes(),
        "https://files/p.ndjson": "".join(json.dumps(line) + "\n" for line in lines).encode(),
    }
    rows = {
        "Run": [{"id": 506, "name": "TS_026"}],
        "TiltSeries": [
            {"id": 7, "runId": 506, "httpsMrcFile": "https://files/ts.mrc", "pixelSpacing": PIXEL, "isAligned": False,
             "sizeX": SHAPE[1], "sizeY": SHAPE[0], "sizeZ": len(ANGLES)},
        ],
        "Alignment": [
            {"id": 9, "tiltseriesId": 7, "runId": 506, "alignmentType": "GLOBAL", "isPortalStandard": True,
             "volumeZDimension": VOLUME[0] * PIXEL, "tiltOffset": 0.0, "xRotationOffset": 0.0},
            {"id": 10, "tiltseriesId": 7, "runId": 506, "alignmentType": "LOCAL", "isPortalStandard": False},
        ],
        "PerSectionAlignmentParameters": [
            {"id": s.z_index, "alignmentId": 9, "zIndex": s.z_index, "tiltAngle": s.tilt_deg, "xOffset": s.offset[0],
             "yOffset": s.offset[1], "inPlaneRotation": [list(row) for row in s.rotation], "volumeXRotation": 0.0}
            for s in sections(project)
        ],
        "Tomogram": [
            {"id": 3, "runId": 506, "voxelSpacing": PIXEL, "sizeZ": VOLUME[0], "sizeY": VOLUME[1], "sizeX": VOLUME[2]},
        ],
        "Annotation": [{"id": 4, "runId": 506, "objectName": "cytosolic ribosome", "objectCount": len(POINTS)}],
        "AnnotationShape": [{"id": 5, "annotationId": 4, "shapeType": "OrientedPoint"}],
        "AnnotationFile": [
            {"id": 6, "annotationShapeId": 5, "format": "ndjson", "httpsPath": "https://files/p.ndjson",
             "tomogramVoxelSpacingId": 8},
        ],
        "TomogramVoxelSpacing": [{"id": 8, "runId": 506, "voxelSpacing": PIXEL}],
    }  # fmt: skip

    class Client(library.Client):
        def find(self, cls, query_filters=None):
            def fits(row):
                return all(row.get(name) == want for name, test in query_filters.items() for want in test.values())

            return [cls(self, **row) for row in rows[cls.__name__] if fits(row)]

    class Response:
        def __init__(self, content):
            self.content, self.headers = content, {"content-length": len(content)}

        def iter_content(self, size):
            return iter([self.content])

    monkeypatch.setattr(library, "Client", Client)
    tools = pytest.importorskip("cryoet_data_portal._file_tools")
    monkeypatch.setattr(tools.requests, "get", lambda url, **_: Response(files[url]))
    return rows, files


def cryolithe(*words, code=0):
    result = call("portal", *words)
    assert result.exit_code == code, result.output
    return result


@pytest.mark.slow
def test_a_run_is_fetched_and_reconstructed(portal, tmp_path):
    shown = cryolithe("show", 506).stdout
    assert "alignment 9: global" in shown
    assert "2 cytosolic_ribosome" in shown
    folder = tmp_path / "run"
    said = cryolithe("get", 506, "-o", folder)
    assert f"Next: cryolithe reconstruct --list {folder / 'series.csv'}" in said.stdout
    assert "images 1, 12 of 20" in said.stderr
    assert "in pixels" in said.stderr
    made("--list", folder / "series.csv", *FBP)
    volume = voxels(folder / "TS_026_rec.mrc")
    np.testing.assert_allclose(bead_places(volume), TRUTH, atol=0.1)
    found = read_positions(folder / "TS_026_particles.star", volume.shape, PIXEL, "TS_026_rec.mrc")
    assert found.position_px == pytest.approx(np.array(POINTS), abs=1e-3)
    assert set(found.kinds) == {"cytosolic_ribosome"}
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
    assert "exists" in cryolithe("get", 506, "-o", folder, code=2).stderr
    cryolithe("get", 506, "-o", folder, "--overwrite")


def test_points_lie_in_the_tomogram_of_their_alignment(portal, tmp_path):
    rows, files = portal
    larger = {"id": 2, "runId": 506, "voxelSpacing": PIXEL, "sizeZ": 58, "sizeY": 90, "sizeX": 94, "alignmentId": 10}
    rows["Tomogram"][0]["alignmentId"] = rows["AnnotationFile"][0]["alignmentId"] = 9
    rows["Tomogram"].insert(0, larger)  # of another alignment, and the first one
    rows["Annotation"].insert(0, {"id": 14, "runId": 506, "objectName": "actin", "objectCount": 1})
    rows["AnnotationShape"].append({"id": 15, "annotationId": 14, "shapeType": "Point"})
    rows["AnnotationFile"].append(
        {"id": 16, "annotationShapeId": 15, "format": "ndjson", "httpsPath": "https://files/a.ndjson",
         "tomogramVoxelSpacingId": 8, "alignmentId": 10}
    )  # fmt: skip
    files["https://files/a.ndjson"] = b'{"type": "point", "location": {"x": 1, "y": 2, "z": 3}}\n'
    shown = cryolithe("show", 506).stdout
    assert f"tomogram 2: 94 x 90 x 58 (x, y, z), {PIXEL} Å, alignment 10" in shown
    assert "1 actin, in" in shown
    said = cryolithe("get", 506, "-o", tmp_path / "run").stdout
    assert "points of actin are left out: they belong to the alignment 10 (--alignment 10)" in said
    assert "rlnClassNumber: 2 cytosolic_ribosome" in said  # as where actin is fetched, too
    star = tmp_path / "run" / "TS_026_particles.star"
    found = read_positions(star, VOLUME, PIXEL, "TS_026_rec.mrc")
    assert found.position_px == pytest.approx(np.array(POINTS), abs=1e-3)
    assert set(found.kinds) == {"cytosolic_ribosome"}
    rows["AnnotationFile"][0]["alignmentId"] = 10
    said = cryolithe("get", 506, "-o", tmp_path / "none").stdout
    assert "points of actin, cytosolic_ribosome are left out" in said
    assert not (tmp_path / "none" / "TS_026_particles.star").exists()


@pytest.mark.parametrize("told", [9, None])
def test_points_in_tomograms_of_two_shapes_are_refused(told, portal, tmp_path):
    rows, _ = portal
    other = {**rows["Tomogram"][0], "id": 13, "sizeZ": VOLUME[0] + 10}
    rows["Tomogram"].append(other)
    if told:
        for row in (*rows["Tomogram"], rows["AnnotationFile"][0]):
            row["alignmentId"] = told
    why = cryolithe("get", 506, "-o", tmp_path / "run", code=2).stderr
    assert "tomograms of several shapes at this size (3 of " in why
    assert not (tmp_path / "run").exists()  # before anything is fetched
    cryolithe("get", 506, "-o", tmp_path / "run", "--no-particles")
    other["sizeZ"] = VOLUME[0]
    cryolithe("get", 506, "-o", tmp_path / "run", "--overwrite")
    for row in rows["Tomogram"]:
        row["alignmentId"] = 10
    assert (
        "no tomogram of this size and of the alignment 9"
        in cryolithe("get", 506, "-o", tmp_path / "run", "--overwrite", code=2).stderr
    )


def test_what_the_portal_does_not_give_is_told_in_a_line(portal, tmp_path, monkeypatch):
    rows, files = portal
    get = ("get", 506, "-o", tmp_path / "run")
    assert "no run 507" in cryolithe("get", 507, "-o", tmp_path / "run", code=2).stderr
    assert "no alignment 8; it has 9, 10" in cryolithe(*get, "--alignment", 8, code=2).stderr
    assert "no parameters of single images" in cryolithe(*get, "--alignment", 10, code=2).stderr
    rows["TiltSeries"].append({**rows["TiltSeries"][0], "id": 17})
    assert "choose one by --tilt-series, it has 7, 17" in cryolithe(*get, code=2).stderr
    rows["TiltSeries"].pop()
    rotation = rows["PerSectionAlignmentParameters"][3].pop("inPlaneRotation")
    assert "not complete" in cryolithe(*get, code=2).stderr
    rows["PerSectionAlignmentParameters"][3]["inPlaneRotation"] = rotation
    whole = files["https://files/ts.mrc"]
    for wrong in (b"<html>404</html>", whole[:5000]):
        files["https://files/ts.mrc"] = wrong
        cryolithe(*get, code=2)
    assert list((tmp_path / "run").iterdir()) == []

    def no_network(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(pytest.importorskip("cryoet_data_portal")._file_tools.requests, "get", no_network)
    assert "ConnectionError: no route to host" in cryolithe(*get, code=2).stderr


def test_without_the_library_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cryoet_data_portal", None)
    assert install_command("portal") in cryolithe("show", 506, code=2).stderr
