"""Foreign alignment files: real ones, and what is refused, in one line each."""

from __future__ import annotations

import math

import numpy as np
import pytest
from projects import (
    ANGLES,
    DARK,
    PIXEL,
    SHAPE,
    make_project,
    write_aretomo,
    write_imod,
    write_relion,
    write_warp,
)
from shared_data import SHARED, needs_shared
from tiny_series import made, refused, run

from cryolithe.alignment import Alignment, ImageAlignment, VolumePlace, largest_bend_px, rotation, views
from cryolithe.errors import GeometryError, InputError
from cryolithe.formats import read_angles_deg
from cryolithe.formats.alignment.aretomo import ARETOMO, read_aln
from cryolithe.formats.alignment.imod import read_newst_com, read_tilt_com, read_x_tilt_deg, read_xf
from cryolithe.formats.alignment.relion import read_tilt_series_star
from cryolithe.formats.alignment.relion_pixels import Images
from cryolithe.formats.alignment.warp import read_warp

FORMATS = SHARED / "formats"


# Real files


@needs_shared
def test_a_real_imod_project():
    transforms = read_xf(FORMATS / "imod" / "tilt_1.xf")
    assert len(transforms) == 59 == len(read_angles_deg(FORMATS / "imod" / "tilt_1.tlt"))
    assert transforms[0] == (((-0.1813379, -0.9834202), (0.9834202, -0.1813379)), (-58.17, 69.816))
    assert read_x_tilt_deg(FORMATS / "imod" / "tilt_1.xtilt") == 0
    newst = read_newst_com(FORMATS / "imod" / "newst.com")
    assert (newst.bin, newst.size_px) == (4, (928, 958))
    assert newst.transforms == FORMATS / "imod" / "mka2018-10-01-1.xf"
    tilt = read_tilt_com(FORMATS / "imod" / "tilt.com")
    assert (tilt.image_binned, tilt.thickness_px, tilt.full_image_px) == (4, 2000, (3708, 3832))
    assert (tilt.subset_start_px, tilt.angle_offset_deg, tilt.excluded) == ((-2, 0), 0, frozenset())
    assert tilt.angles == FORMATS / "imod" / "mka2018-10-01-1.tlt"


@needs_shared
def test_the_same_series_in_warp_and_imod_has_opposite_angles_in_warp_s_sense():
    """An old series of Warp, imported with the angles as recorded: so ours are their negatives."""
    alignment = read_warp(FORMATS / "imod_ts017" / "017.xml", 60, 1.971)
    recorded = read_angles_deg(FORMATS / "imod_ts017" / "017.tlt")
    assert recorded == pytest.approx([-image.angle_deg for image in alignment.images], abs=0.05)
    assert alignment.axis_deg == pytest.approx(83.22321)
    shift = np.array(rotation(-83.22321)) @ [51.38024 / 1.971, -95.60207 / 1.971]
    np.testing.assert_allclose(alignment.images[0].shift_px, -shift, atol=1e-3)
    # Its grids of movement and of warping were refined together: neither is applied without the specimen's extent.
    assert "GridVolumeWarp needs VolumeDimensionsAngstrom" in alignment.notes[1]
    assert alignment.local == ""
    assert recorded == pytest.approx(read_angles_deg(FORMATS / "imod_ts017" / "017.mdoc"), abs=0.01)


@needs_shared
def test_the_grids_of_a_real_series_move_it_by_some_pixels(tmp_path):
    text = (FORMATS / "imod_ts017" / "017.xml").read_bytes().decode("utf-16")
    told = text.replace("<TiltSeries ", '<TiltSeries VolumeDimensionsAngstrom="7600, 7300, 2400" ', 1)
    (tmp_path / "017.xml").write_bytes(told.encode("utf-16"))
    alignment = read_warp(tmp_path / "017.xml", 60, 1.971, image_shape=(3708, 3838))
    assert alignment.local == "017.xml"
    assert all(image.bend is not None and image.bend.deep for image in alignment.images)
    assert 0.5 < largest_bend_px(alignment, (3708, 3838)) < 60


@needs_shared
def test_a_real_relion_series():
    path = FORMATS / "relion5"
    alignment = read_tilt_series_star(path / "tomograms.star", "tomo200528_107.mrc", 35, Images(1.724))
    assert (alignment.aligned_shape, alignment.thickness_px, alignment.centre) == ((4000, 4000), 2000, "relion")
    assert alignment.images[0].angle_deg == -50.99
    assert alignment.axis_deg == pytest.approx(-90.5451)
    np.testing.assert_allclose(
        alignment.images[0].shift_px, -np.array(rotation(90.5451)) @ [9.537168 / 1.724, -19.87772 / 1.724], atol=1e-4
    )
    alone = read_tilt_series_star(path / "tilt_series" / "tomo200528_107.star", "any.mrc", 35, Images(1.724))
    assert alone.images == alignment.images
    with pytest.raises(InputError, match="35 images but the stack holds 34"):
        read_tilt_series_star(path / "tomograms.star", "tomo200528_107.mrc", 34, Images(1.724))
    with pytest.raises(InputError, match="none of which the name ts"):
        read_tilt_series_star(path / "tomograms.star", "ts.mrc", 35, Images(1.724))


@needs_shared
def test_a_real_aln_of_which_images_are_missing_is_refused():
    with pytest.raises(InputError, match="stack of 90 images but holds 4 aligned and 4 dark ones, 82 are missing"):
        read_aln(FORMATS / "aretomo3" / "test.aln")


@needs_shared
def test_a_real_mdoc_in_the_order_of_acquisition():
    angles = read_angles_deg(FORMATS / "mdoc" / "tilt_series.mdoc")
    assert angles[:3] == (0.000999877, 3.00113, -2.99863)


# Counting sections


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("files") / "raw")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("dark", [(), (0,), (0, 19), (19,), (3, 4)])
def test_sections_of_aretomo_are_counted_from_0_or_1(first, dark, project):
    alignment, shape = read_aln(write_aretomo(project, first, dark=dark))
    assert shape == SHAPE
    assert alignment.excluded == dark
    assert [image.angle_deg for image in alignment.images] == [a for s, a in enumerate(ANGLES) if s not in dark]


def test_the_first_aretomo_tells_how_many_images_there_are_and_no_size(project):
    """Up to 1.2 the second line counts images and patches, and there is no RawSize."""
    aln = write_aretomo(project, 0, dark=())
    new, _ = read_aln(aln)
    head, _, _, *rows = aln.read_text().splitlines()
    aln.write_text("\n".join([head, f"# {len(ANGLES)}  0", *rows]) + "\n")
    assert read_aln(aln) == (new, None)
    assert read_aln(aln, image_shape=SHAPE) == (new, SHAPE)
    made("--aln", aln, project.stack, "--dry-run")
    assert ARETOMO.describe[".aln"](aln)[-1].value is None
    aln.write_text(aln.read_text().replace(f"# {len(ANGLES)}  0", f"# {len(ANGLES) + 1}  0"))
    with pytest.raises(InputError, match="1 are missing"):
        read_aln(aln)


def test_old_files_without_dark_sections_are_told_by_the_angles(project):
    """Both ends are dark and their rows say nothing: SEC 1 to 18 of 20 fit either way."""
    aln = write_aretomo(project, 0, dark=(0, 19))
    text = "\n".join(
        "# DarkFrame =     5    5     0.00" if "DarkFrame" in line else line for line in aln.read_text().splitlines()
    )
    aln.write_text(text + "\n")
    with pytest.raises(InputError, match="the aligned and the dark sections are not together the 20 images"):
        read_aln(aln)
    told, _ = read_aln(aln, ANGLES)
    assert told.notes == ()
    assert [image.section for image in told.images] == list(range(1, 19))


def test_angles_of_another_stack_are_refused(project):
    aln = write_aretomo(project)
    with pytest.raises(InputError, match="has the angle"):
        read_aln(aln, ANGLES[::-1])
    read_aln(aln, tuple(angle + 2.5 for angle in ANGLES))  # the tilt offset


def test_a_magnification_that_aretomo_does_not_know_is_refused_with_a_remedy(project):
    """It writes 1 in this column, and reads no other."""
    aln = write_aretomo(project)
    aln.write_text(aln.read_text().replace("1.00000", "1.01000"))
    arguments = ["--aln", aln, project.stack, "-o", project.folder / "v.mrc", "--method", "fbp"]
    refused(project.folder, arguments, "magnification (GMAG) of 1.01", "put 1 there", "(--xf)")


# Values


@pytest.mark.parametrize(
    "matrix", [((1, 0), (0, 0)), ((0, 0), (0, 0)), ((1, 0), (0, -1)), ((math.nan, 0), (0, 1)), ((5, 0), (0, 5))]
)
def test_transforms_that_cannot_be_undone_are_refused(matrix):
    with pytest.raises(GeometryError, match="image 1"):
        ImageAlignment(0, 0.0, matrix)


def test_views_lead_back_to_the_raw_pixel():
    """p = A^-1 (q - d), all about the middles, whatever the sizes."""
    image = ImageAlignment(0, 30.0, rotation(-20.0), (3.0, -2.0))
    for shape in ((40, 50), (41, 51)):
        (view,) = views(Alignment((image,), 1), shape, VolumePlace((20, *shape)))
        expected = np.array(rotation(20.0)) @ (np.array([5.0, 7.0]) - [3.0, -2.0])
        np.testing.assert_allclose(np.array(view.matrix) @ [5.0, 7.0] + view.offset_px, expected, atol=1e-12)


# Refusals, through the command


def lines(path, change):
    before = path.read_text().splitlines() if path.exists() else []
    path.write_text("\n".join(change(before)) + "\n")
    return path


def bad_xf(change):
    return lambda p: ["--xf", lines(write_imod(p)[0], change), "--tilt-com", p.folder / "tilt.com"]


def bad_tilt(*extra, replaced=None):
    def arguments(p):
        xf, _, tilt = write_imod(p, extra)
        if replaced:
            tilt.write_text(tilt.read_text().replace(*replaced))
        return ["--xf", xf, "--tilt-com", tilt]

    return arguments


def bad_newst(*extra):
    return lambda p: [p.tlt, "--newst-com", write_imod(p, (), extra)[1]]


def bad_aln(change):
    return lambda p: ["--aln", lines(write_aretomo(p), change)]


def bad_star(old, new):
    def arguments(p):
        table = write_relion(p)[1]
        table.write_text(table.read_text().replace(old, new))
        return ["--star", table]

    return arguments


def bad_warp(old, new):
    def arguments(p):
        path = write_warp(p)
        path.write_text(path.read_text(encoding="utf-16").replace(old, new), encoding="utf-16")
        return ["--warp", path]

    return arguments


def content(option, name, data):
    def arguments(p):
        (p.folder / name).write_bytes(data)
        return [*([p.tlt] if option in ("--xf", "--newst-com") else []), option, p.folder / name]

    return arguments


BAD = {
    "fewer transforms": (bad_xf(lambda ls: ls[:-1]), "holds 20 images but"),
    "five numbers": (bad_xf(lambda ls: ["1 0 0 1 0", *ls[1:]]), "line 1: expected six numbers"),
    "nan": (bad_xf(lambda ls: ["1 0 0 1 nan 0", *ls[1:]]), "line 1: expected six numbers"),
    "singular": (bad_xf(lambda ls: [ls[0], "1 1 1 1 0 0", *ls[2:]]), "image 2 is no rotation"),
    "view 21": (bad_tilt("EXCLUDELIST 3-21"), "lists view 21, but the stack holds 20"),
    "no view left": (bad_tilt("EXCLUDELIST 1-20"), "leaves no image"),
    "view list": (bad_tilt("EXCLUDELIST 3-x"), "expected views such as 1,4-7"),
    "axis offset": (bad_tilt("OFFSET 0 12"), "moves the tilt axis by 12"),
    "other size": (bad_tilt("FULLIMAGE 3708 3838"), "is for images of 3708 x 3838"),
    "subset": (bad_tilt("FULLIMAGE 80 70", "SUBSETSTART 20 0"), "not in the middle"),
    "thickness": (bad_tilt("THICKNESS -3"), "expected a THICKNESS of 1 or more"),
    "x tilt": (bad_tilt("XAXISTILT 80"), "tilts the volume by -80"),
    "no number": (bad_tilt("SHIFT wide"), "expected 1 or 2 numbers after SHIFT"),
    "no tilt command": (bad_tilt(replaced=("$tilt", "$newstack")), "holds no command $tilt"),
    "missing angles": (bad_tilt(replaced=("ts.tlt", "no.tlt")), "no.tlt does not exist"),
    "distortion": (bad_newst("DistortionField a.idf"), "DistortionField cannot be applied"),
    "bin": (bad_newst("BinByFactor 1.5"), "expected a whole BinByFactor"),
    "missing rows": (bad_aln(lambda ls: ls[:-3]), "3 are missing"),
    "other stack": (bad_aln(lambda ls: [ln.replace("80 70", "800 700") for ln in ls]), "for images of 800 x 700"),
    "twice": (bad_aln(lambda ls: [*ls[:-1], ls[-2]]), "is there twice"),
    "nine columns": (bad_aln(lambda ls: [*ls[:-1], ls[-1].rsplit(None, 1)[0]]), "expected 10 numbers"),
    "garbage": (bad_aln(lambda ls: [*ls[:-1], ls[-1].replace("0.00 57", "0.00 570")]), "expected a tilt within ±90°"),
    "beta": (bad_aln(lambda ls: [*ls[:3], "# BetaOffset = 3.0", *ls[3:]]), "BetaOffset other than 0"),
    "no header": (bad_aln(lambda ls: ls[1:]), "is no AreTomo alignment"),
    "no column": (bad_star("_rlnTomoZRot", "_rlnOther"), "has no column rlnTomoZRot"),
    "no tilts": (bad_star("_rlnTomoYTilt", "_rlnTomoProjX"), "projection matrices (RELION-4, WarpTools)"),
    "part 99": (bad_star("000002@", "000099@"), "names the images 3 to 99"),
    "different x tilts": (bad_star(" 0.0 -33.000", " 4.0 -33.000"), "rlnTomoXTilt differs"),
    "text in a table": (bad_star("-33.000", "abc"), "holds what is no number"),
    "fewer of warp": (bad_warp("57.0\n", ""), "expected 19 values in <AxisAngle>, found 20"),
    "no angles of warp": (bad_warp("Angles>", "Angels>"), "is no tilt series of Warp"),
    "warp nan": (bad_warp("57.0\n", "nan\n"), "expected numbers for Angles"),
    "empty xf": (content("--xf", "e.xf", b""), "is empty (0 bytes)"),
    "blank xf": (content("--xf", "e.xf", b"\n \n"), "holds no transform"),
    "binary xf": (content("--xf", "e.xf", bytes(range(256))), "found binary data"),
    "binary aln": (content("--aln", "e.aln", b"\x00\x01"), "found binary data"),
    "binary star": (content("--star", "e.star", b"\x00\x01"), "found binary data"),
    "empty star": (content("--star", "e.star", b"\n"), "holds no table"),
    "text as star": (content("--star", "e.star", b"hello\n"), "e.star"),
    "binary xml": (content("--warp", "e.xml", b"\x00\x01"), "is not an XML file"),
    "text as tomostar": (content("--warp", "e.tomostar", b"hello\n"), "e.tomostar"),
    "empty com": (content("--newst-com", "e.com", b"# nothing\n"), "holds no command $newstack"),
    "missing aln": (lambda p: ["--aln", "no.aln"], "no.aln does not exist"),
    "two programs": (lambda p: ["--aln", write_aretomo(p), "--xf", write_imod(p)[0]], "of different programs"),
    "axis and xf": (lambda p: [p.tlt, "--xf", write_imod(p)[0], "--tilt-axis", 5], "leave out --tilt-axis"),
    "angles in another order": (
        lambda p: [
            lines(p.folder / "back.tlt", lambda _: [str(a) for a in ANGLES[::-1]]),
            "--star",
            write_relion(p)[1],
        ],
        "in another order than the images",
    ),
    "xf without angles": (lambda p: ["--xf", write_imod(p)[0]], "give ANGLES (the .tlt file)"),
    "no angles": (lambda p: [], "give ANGLES, or an alignment that brings them"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_alignments_are_refused_in_one_line(case, project, tmp_path):
    arguments, why = BAD[case]
    given = arguments(project)
    refused(project.folder, [project.stack, *given, "-o", tmp_path / "v.mrc", "--method", "fbp"], why)
    assert not list(tmp_path.iterdir())


def test_an_aligned_stack_is_not_aligned_twice(project, tmp_path):
    xf, *_ = write_imod(project)
    aligned = tmp_path / "ts_ali.mrc"
    aligned.write_bytes(project.stack.read_bytes())
    result = run(aligned, project.tlt, "--xf", xf, "--method", "fbp")
    assert result.exit_code == 2
    assert "would align it twice" in result.stderr


@pytest.mark.parametrize("name", ["0", "1"])
def test_an_mdoc_is_an_angle_file(name, tmp_path):
    path = tmp_path / "ts.mrc.mdoc"
    path.write_text(f"[ZValue = {name}]\nTiltAngle = -3.5\n\n[ZValue = {1 - int(name)}]\nTiltAngle = 4\n")
    assert read_angles_deg(path) == ((-3.5, 4.0) if name == "0" else (4.0, -3.5))
    path.write_text("[ZValue = 2]\nTiltAngle = -3.5\n\n[ZValue = 0]\nTiltAngle = 4\n")
    assert read_angles_deg(path) == (4.0, -3.5)


def test_the_pixel_size_of_a_table_must_fit(project):
    listing, _ = write_relion(project)
    assert read_tilt_series_star(listing, "ts.mrc", len(ANGLES), Images(PIXEL)).excluded == DARK
    assert read_tilt_series_star(listing, "ts.mrc", len(ANGLES), Images(2 * PIXEL)).aligned_shape == (40, 35)
    with pytest.raises(InputError, match="or a whole number of times as large"):
        read_tilt_series_star(listing, "ts.mrc", len(ANGLES), Images(1.3 * PIXEL))


def test_x_tilts_of_single_images_turn_the_specimen_once_more(project):
    """As RELION refines them: p = Rz Ry Rx V + shift with each image's own angles."""
    _, table = write_relion(project)
    used = [s for s in range(len(ANGLES)) if s not in DARK]
    x_tilts = {s: 2.0 + 0.45 * math.sin(s) for s in used}
    lines = table.read_text().splitlines()
    rows = [number for number, line in enumerate(lines) if "@" in line]
    for number, s in zip(rows, used, strict=True):
        name, _, *rest = lines[number].split()
        lines[number] = " ".join([name, f"{x_tilts[s]:.6f}", *rest])
    table.write_text("\n".join(lines) + "\n")
    made = read_tilt_series_star(table, "ts.mrc", len(ANGLES), Images(PIXEL))
    assert made.local == table.name
    assert made.x_tilt_deg == pytest.approx(np.median(list(x_tilts.values())))
    columns = dict(zip(used, (lines[number].split() for number in rows), strict=True))
    points = np.random.default_rng(2).uniform(-30, 30, (3, 9))
    for image in made.images:
        turned = points.copy()
        turned[1:] = np.array(rotation(x_tilts[image.section])) @ points[1:]
        theta = math.radians(image.angle_deg)
        shift = np.array([float(word) for word in columns[image.section][4:6]])[:, None] / PIXEL
        seen = np.stack([turned[0] * math.cos(theta) + turned[2] * math.sin(theta), turned[1]])
        expected = np.linalg.inv(np.array(image.matrix)) @ seen + shift
        x, y, z = points[0], *(np.array(rotation(made.x_tilt_deg)) @ points[1:])
        q = np.stack([x * math.cos(theta) + z * math.sin(theta), y])
        q = q + image.bend.at(q[0], q[1], z)
        found = np.linalg.solve(np.array(image.matrix), q - np.array(image.shift_px)[:, None])
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_turns_of_particles_in_warp_are_told_with_their_size(project):
    path = write_warp(project)
    text = path.read_text(encoding="utf-16")
    grid = '<GridAngleX Width="1" Height="1" Depth="2"><Node Z="0" Value="-0.5"/><Node Z="1" Value="{}"/></GridAngleX>'
    for value, size in (("0.25", "0.5°"), ("1.5", "1.5°")):
        path.write_text(text.replace("</TiltSeries>", grid.format(value) + "</TiltSeries>"), encoding="utf-16")
        (note,) = read_warp(path, len(ANGLES), PIXEL).notes
        assert f"(GridAngleX; up to {size}, which turn particles" in note
        assert note.endswith(f"leaves {20 * np.pi / 180 * float(size[:-1]):.2f} pixels")
    path.write_text(text.replace("</TiltSeries>", "<GridAngleX><Node Value='0'/></GridAngleX></TiltSeries>"), "utf-16")
    assert read_warp(path, len(ANGLES), PIXEL).notes == ()


def test_warp_s_images_must_be_those_of_the_stack(project):
    with pytest.raises(InputError, match="holds 20 images but the stack holds 19"):
        read_warp(write_warp(project), 19, PIXEL)
    with pytest.raises(InputError, match="give --pixel-size"):
        read_warp(write_warp(project), 20, None)


@pytest.mark.parametrize("text", ["1,1\n1,1\n", "-0,5\n", "0,0 0,0"])
def test_x_axis_tilts_with_decimal_commas_are_no_whole_degrees(tmp_path, text):
    path = tmp_path / "ts.xtilt"
    path.write_text(text)
    with pytest.raises(InputError, match="may have a decimal comma"):
        read_x_tilt_deg(path)
    for text in ("-0.5, -0.5,-0.5\n", "-1,-1,-1\n", "2,2,2"):  # lists, which Fortran reads
        path.write_text(text)
        assert read_x_tilt_deg(path) == float(text.split(",")[0])
