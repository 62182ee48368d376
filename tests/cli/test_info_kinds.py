"""``cryolithe info`` knows every kind of file that the other commands take."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from command import call, good, refusal_of
from plain_mrc import new_mrc
from projects import AXIS_DEG, make_project, write_aretomo, write_imod, write_relion, write_warp
from tiny_series import write_model, write_series

from cryolithe.formats.pairs import Pair, write_pair
from cryolithe.formats.particles.star import Particle, write_particles
from cryolithe.formats.stacks.mdoc import MdocImage, write_mdoc


def info(*words):
    return call("info", *words)


def told(path):
    """The facts about one file; people and programs must both get an answer."""
    result = good("info", path)
    (answer,) = json.loads(info(path, "--json").stdout)
    assert answer["kind"] in result.stdout
    return answer


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("info") / "p")


def test_metadata_of_serialem(tmp_path):
    path = tmp_path / "ts.mrc.mdoc"
    write_mdoc(
        path, "ts.mrc", [MdocImage(a, 3.0, 3.0 * n, 2.5, n) for n, a in enumerate((-3.0, 0.0, 3.0))], 2.7, (8, 9), 300
    )
    answer = told(path)
    assert answer["kind"] == "SerialEM metadata of a tilt series (.mdoc)"
    assert (answer["images"], answer["range_deg"], answer["dose"]) == (3, [-3, 3], 9)
    assert float(answer["pixel_size_angstrom"]) == pytest.approx(2.7)
    assert answer["image_file"] == "ts.mrc"
    text = path.read_text()
    path.write_text(text.replace("[ZValue = 0]", "[T =     Tilt axis angle = 84.1, binning = 1]\n\n[ZValue = 0]", 1))
    assert told(path)["tilt_axis_deg"] == 84.1
    path.write_text(text.replace("[ZValue = 0]", "[T = TiltAxisAngle = -174.1  Binning = 1]\n\n[ZValue = 0]", 1))
    assert told(path)["tilt_axis_deg"] == 84.1  # Tomography 5


def test_files_of_defocus(tmp_path):
    """No angles, though their first column could be taken for such."""
    path = tmp_path / "ts_CTF.txt"
    head = "# Columns: #1 micrograph number; #2 - defocus 1 [A]; #3 - defocus 2; #4 - azimuth; ...; #8 - dfHand\n"
    path.write_text(head + "1 30000 28000 45 0.5 0.1 9 1\n2 31000 29000 45 0.5 0.1 9 1\n3 32000 30000 45 0 0.1 9 1\n")
    answer = told(path)
    assert answer["kind"] == "defocus of the images of a stack, by AreTomo3"
    assert (answer["rows"], answer["defocus_um"], answer["voltage_kv"]) == (3, pytest.approx([2.9, 3.1]), None)
    assert answer["phase_shift_deg"] == pytest.approx([0, 28.648], abs=1e-3)
    for name in ("ts.defocus", "ts_CTF_Imod.txt"):
        path = tmp_path / name
        path.write_text("1 0 0.0 0.0 0.0 3\n1 1 -40 -40 3000 2800 45\n2 2 0 0 3200 3000 45\n")
        answer = told(path)
        assert answer["kind"] == "defocus of the images of a stack, by IMOD (.defocus)"
        assert (answer["rows"], answer["range_deg"]) == (2, [-40, 0])
        assert answer["defocus_um"] == pytest.approx([2.9, 3.1])


@pytest.mark.parametrize("name", ["ts_ctf.txt", "ts.txt"])
@pytest.mark.parametrize(
    ("head", "ends"), [("1 0 0.0 0.0 0.0 3\n", (" 2900 45", " 45")), ("", (" 2", "")), ("", ("", ""))]
)
def test_defocus_is_told_by_its_rows_whatever_the_name(name, head, ends, tmp_path):
    """Of IMOD's versions 3, as AreTomo3 writes them, 2 and 1."""
    path, nm = tmp_path / name, ("2900" if head else "")
    path.write_text(head + f"1 1 -57.0 -57.0 2900{ends[0]}\n2 2 -54.0 -54.0 3000 {nm}{ends[1]}\n")
    answer = told(path)
    assert answer["kind"] == "defocus of the images of a stack, by IMOD (.defocus)"
    assert (answer["rows"], answer["range_deg"]) == (2, [-57, -54])


@pytest.mark.parametrize("row", ["{0} 1 3 0 1", "{0} {0} 3 0 0", "{0} {0} {0} {0} 3", "{0} 1 0 0 0 3"])
def test_angles_beside_other_columns_stay_angles(row, tmp_path):
    path = tmp_path / "ts.txt"
    path.write_text("".join(row.format(angle) + "\n" for angle in (0, 3, 6)))
    assert told(path)["kind"] == "tilt angles"


def test_doses_before_the_images_are_told_as_they_are_weighed_by(tmp_path):
    path = tmp_path / "ts_TLT.txt"
    path.write_text("-3 5 3.0\n0 2 3.0\n3 4 3.0\n")
    answer = told(path)
    assert answer["kind"] == "tilt angles, with order of acquisition and doses (AreTomo3)"
    assert (answer["angles"], answer["dose_before_images"]) == (3, [3, 12])
    path.write_text("-3 2\n0 1\n3 3\n")
    assert told(path)["dose_before_images"] is None
    path = tmp_path / "ts.mdoc"
    images = [
        MdocImage(angle, 3.0, dose, -2.5, n) for n, (angle, dose) in enumerate(((0, 0), (3, 3), (-3, 0), (-6, 3)))
    ]
    write_mdoc(path, "ts.mrc", images, 2.7, (8, 9), 300)
    assert told(path)["dose_before_images"] == [0, 9]
    assert "begins anew" in good("info", path).stdout
    path.write_text(path.read_text().replace("ExposureDose", "Other"))
    assert told(path)["dose_before_images"] is None
    assert "PriorRecordDose falls from 3 to 0" in good("info", path).stdout


def test_alignments(project):
    xf, newst, tilt = write_imod(project, tilt_lines=["THICKNESS 300", "OFFSET 1.5"], newst_lines=["BinByFactor 2"])
    aln, xml = write_aretomo(project), write_warp(project)
    for path, kind in ((aln, "alignment of AreTomo (.aln)"), (xml, "tilt series of Warp (.xml)")):
        answer = told(path)
        assert answer["kind"] == kind
        assert (answer["images"], answer["left_out"]) == (18, [1, 12])
        assert answer["tilt_axis_deg"] == pytest.approx(AXIS_DEG, abs=0.01)
    assert told(aln)["image_shape"] == [70, 80]
    answer = told(xf)
    assert (answer["kind"], answer["images"]) == ("transforms of IMOD (.xf)", 20)
    assert answer["rotation_deg"] == pytest.approx([-AXIS_DEG, -AXIS_DEG], abs=0.01)
    answer = told(newst)
    assert (answer["kind"], answer["bin"]) == ("commands of IMOD's newstack", 2)
    answer = told(tilt)
    assert (answer["kind"], answer["thickness_px"], answer["angle_offset_deg"]) == ("commands of IMOD's tilt", 300, 1.5)
    assert answer["excluded"] == [1, 12]


@pytest.mark.slow
def test_tables_of_relion(project, tmp_path):
    listing, table = write_relion(project)
    answer = told(listing)
    assert answer["kind"] == "table of tilt series or tomograms (RELION-5)"
    assert answer["names"] == ["other", "ts"]
    assert answer["missing_files"] == ["Tomograms/job009/tilt_series/other.star"]
    answer = told(table)
    assert answer["kind"] == "images of a tilt series (RELION-5)"
    assert (answer["series"], answer["images"], answer["stacks"], answer["aligned"]) == ("ts", 18, ["ts.mrc"], True)
    particles = [Particle(f"TS_{n % 2}", "ribosome", 1, (4.0, 5.0, 6.0), (0.0, 0.0, 0.0)) for n in range(5)]
    write_particles(tmp_path / "p.star", particles, (8, 10, 12), 10.0)
    answer = told(tmp_path / "p.star")
    assert answer["kind"] == "particles"
    assert (answer["particles"], answer["tomograms"]) == (5, {"TS_0": 3, "TS_1": 2})
    assert answer["kinds"] == {"ribosome": 5}
    (tmp_path / "o.star").write_text("\ndata_optics\n\n_rlnVoltage 300\n_rlnCs 2.7\n")
    assert told(tmp_path / "o.star")["kind"] == "STAR file"
    star = "\ndata_\n\nloop_\n_wrpTheta #1\n_wrpAngleTilt #2\n0 -3.0\n0 0.0\n0 3.0\n"
    (tmp_path / "t.tomostar").write_text(star)
    answer = told(tmp_path / "t.tomostar")
    assert (answer["kind"], answer["images"]) == ("tilt series of Warp (.tomostar)", 3)
    (tmp_path / "t.star").write_text(star)
    assert told(tmp_path / "t.star")["kind"] == "tilt series of Warp (.star)"
    # Lists of frames in brackets and equal names of blocks, which RELION writes, are read as reconstruct reads them.
    columns = "\n".join(f"_{name}" for name in ("rlnMicrographName", "rlnTomoYTilt", "rlnTomoVisibleFrames"))
    block = f"\ndata_ts\n\nloop_\n{columns}\n1@ts.mrc -3 [1,1]\n2@ts.mrc 3 [1,0]\n"
    (tmp_path / "f.star").write_text(block)
    answer = told(tmp_path / "f.star")
    assert (answer["series"], answer["images"], answer["range_deg"]) == ("ts", 2, [-3, 3])
    (tmp_path / "f.star").write_text(block * 2)
    assert told(tmp_path / "f.star")["series"] == ["ts", "ts"]


def test_all_series_of_a_file_of_several_are_told(tmp_path):
    columns = "\n".join(f"_{name}" for name in ("rlnMicrographName", "rlnTomoYTilt"))
    one = f"\ndata_ts_1\n\nloop_\n{columns}\n1@ts_1.mrc -3\n2@ts_1.mrc 3\n"
    other = f"\ndata_ts_10\n\nloop_\n{columns}\n1@ts_10.mrc -6\n2@ts_10.mrc 0\n3@ts_10.mrc 9\n"
    (tmp_path / "f.star").write_text(one + other)
    answer = told(tmp_path / "f.star")
    assert (answer["kind"], answer["series"]) == ("images of several tilt series (RELION-5)", ["ts_1", "ts_10"])
    assert [table["images"] for table in answer["tables"]] == [2, 3]
    assert [table["range_deg"] for table in answer["tables"]] == [[-3, 3], [-6, 9]]
    assert "ts_10: 3 images, -6° to 9°, not aligned" in good("info", tmp_path / "f.star").stdout


@pytest.mark.slow
def test_what_this_program_writes(tmp_path):
    images = np.random.default_rng(0).standard_normal((3, 8, 8)).astype(np.float32)
    write_pair(tmp_path / "p.h5", Pair(images, images, (-10.0, 0.0, 10.0), 5.0, {}, {"program": "CryoLithe x"}))
    answer = told(tmp_path / "p.h5")
    assert answer["kind"] == "training pair (HDF5)"
    assert (answer["images"], answer["voxel_size_angstrom"], answer["made"]) == (3, 5, {"program": "CryoLithe x"})
    with h5py.File(tmp_path / "h.h5", "w") as file:
        file["a"] = np.zeros(3)
    assert told(tmp_path / "h.h5")["kind"] == "HDF5"
    assert told(write_model(tmp_path / "m.safetensors"))["kind"] == "model weights (safetensors)"
    stack, tlt = write_series(tmp_path)
    words = ["reconstruct", str(stack), str(tlt), "--method", "fbp", "--thickness", "12", "--device", "cpu"]
    good(*words)
    assert told(tmp_path / "ts_rec.json")["record"] == "how the volume ts_rec.mrc was made by fbp"
    assert told(tmp_path / "ts_rec.mrc")["kind_because"] == "ts_rec.json beside it is the record of a volume"
    answer = told(tmp_path)
    assert (answer["kind"], answer["series"]) == ("folder of tilt series", 1)
    (tmp_path / "s.yaml").write_text("accession: EMPIAR-1\npairs: []\n")
    assert told(tmp_path / "s.yaml")["kind"] == "manifest of curated pairs"
    (tmp_path / "fsc.json").write_text('{"fsc": {}}')
    assert told(tmp_path / "fsc.json")["record"] == "numbers of cryolithe fsc"


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("a.mdoc", "PixelSpacing = 1\n", "describes no image"),
        ("a.aln", "1 2 3\n", "a.aln"),
        ("a.xf", "1 2 x\n", "a.xf"),
        ("a.com", "$ctfplotter\n", "expected one that runs IMOD's tilt or newstack"),
        ("a.xml", "<html/>", "no tilt series of Warp"),
        ("a.defocus", "-57.0\n-54.0\n", "expected at least 5 finite numbers"),
        ("a.star", "not a star", "a.star"),
        ("a.star", "data_x\n", "holds no table"),
        ("a.tomostar", "\ndata_\nloop_\n_a #1\n1\n", "a.tomostar"),
        ("a.yaml", "a: [", "a.yaml"),
        ("a.tif", "II", "a.tif"),
    ],
)
def test_what_is_none_of_them_is_one_line(name, text, word, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    assert word in refusal_of(info(path))


def test_angles_in_one_line_are_those_that_a_stack_takes(tmp_path):
    """A row of an angle, its number and a dose is one image's."""
    stack, angles = write_series(tmp_path)
    lines = angles.read_text().split()
    before = told(angles)
    angles.write_text(" ".join(lines) + "\n")
    assert told(angles) == {**before, "size_on_disk": angles.stat().st_size}
    assert f"{len(lines)}, all in one line" in good("info", angles).stdout
    good("reconstruct", stack, angles, "--method", "fbp", "--dry-run")
    angles.write_text("-60.0 1\n")
    assert told(angles)["angles"] == 1


@pytest.mark.parametrize("words", [("info",), ("fsc", "other"), ("evaluate",)])
@pytest.mark.parametrize("name", ["v.npy", "v.map"])
def test_volumes_of_other_kinds_are_told_how_to_convert(words, name, tmp_path):
    path = tmp_path / name
    with path.open("wb") as stream:
        np.save(stream, np.zeros((20, 20, 20), np.float32))
    if name == "v.map":
        with h5py.File(path, "w") as file:
            file["image"] = np.zeros((20, 20, 20), np.float32)
    given = [path if word == "other" else word for word in words]
    said = refusal_of(call(given[0], path, *given[1:]))
    kind = "a NumPy array" if name == "v.npy" else "an HDF5 file"
    assert f"{path} is {kind}, but images and volumes are read from MRC files: convert it" in said


def test_hdf5_is_described_by_any_of_its_endings(tmp_path):
    for ending in ("h5", "hdf5", "hdf"):
        with h5py.File(tmp_path / f"v.{ending}", "w") as file:
            file["MDF/images/0/image"] = np.zeros((2, 3, 4), np.float32)
        assert told(tmp_path / f"v.{ending}")["datasets"] == ["MDF/images/0/image  (2, 3, 4) float32"]


def test_an_empty_folder_is_refused_as_before(tmp_path):
    assert "holds no tilt series: expected stacks and angle files of the same name" in info(tmp_path).stderr


def test_what_commands_leave_beside_a_result(tmp_path):
    """Each with the command that wrote it, by its record; what is no such thing is refused."""
    good("fsc", *volumes(tmp_path), "--json", tmp_path / "fsc.json", "--plot", tmp_path / "fsc.png")
    picture = told(tmp_path / "fsc.png")
    assert picture["kind"] == "picture (PNG)"
    assert min(picture["pixels"]) > 100
    assert picture["record"] == "fsc.json: numbers of cryolithe fsc"
    (tmp_path / "page.html").write_text("<!DOCTYPE html><html><head><title>A &amp; B</title></head></html>")
    assert (told(tmp_path / "page.html")["kind"], told(tmp_path / "page.html")["title"]) == ("page (HTML)", "A & B")
    (tmp_path / "page.json").write_text('{"comparison": {}}')
    (tmp_path / "page.csv").write_text("method,gain\nfbp,0\n")
    assert told(tmp_path / "page.csv")["record"] == "page.json: numbers of cryolithe compare"
    for ending, sign in ((".run", "state.safetensors"), (".work", "journal.jsonl")):
        folder = tmp_path / f"page{ending}"
        folder.mkdir()
        assert "holds no tilt series" in refusal_of(info(folder))
        (folder / sign).touch()
        assert told(folder)["content"] == [sign]
    (tmp_path / "other.csv").write_text("method,gain\nfbp,0\n")
    assert "no column 'tilts'" in refusal_of(info(tmp_path / "other.csv"))
    (tmp_path / "other.png").write_bytes(b"no picture")
    assert "is no PNG file" in refusal_of(info(tmp_path / "other.png"))
    for count in (4, 8, 23):
        (tmp_path / "cut.png").write_bytes((b"\x89PNG\r\n\x1a\n" + bytes(16))[:count])
        assert f"cut.png ends after {count} bytes; expected at least the 24" in refusal_of(info(tmp_path / "cut.png"))


def volumes(folder):
    """Two volumes that differ."""
    rng = np.random.default_rng(0)
    return [write_volume(folder / f"{n}.mrc", rng.standard_normal((12, 16, 14)).astype(np.float32)) for n in (1, 2)]


def write_volume(path, values):
    with new_mrc(path, values) as file:
        file.set_volume()
        file.voxel_size = 10.0
    return path
