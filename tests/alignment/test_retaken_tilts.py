"""Tilts that were taken again at the same angle: each image has its own dose and defocus, whatever is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_series import made, write_series

from cryolithe.formats.alignment.same_images import same_images
from cryolithe.formats.image_rows import FileRows, Others, SeriesImages
from cryolithe.formats.microscope.ctf_files import read_ctf
from cryolithe.formats.microscope.doses import read_exposures
from cryolithe.formats.reading import Reading
from cryolithe.optics.ctf import Ctf

# In the order of acquisition: the first image and the fourth were bad, and taken again at the end and in between.
ANGLES = (0.0, 10.0, -10.0, 20.0, 20.0, -20.0, 30.0, -30.0, 0.0)
N = len(ANGLES)
DOSES = tuple(3.0 * n for n in range(N))
DEFOCI = tuple(2.0 + 0.15 * n for n in range(N))
ALL = tuple(range(N))
SORTED = tuple(sorted(ALL, key=ANGLES.__getitem__))
EXCLUDED = ((), (0,), (8,), (3,), (0, 3), (1, 4, 6))
SHAPE = (16, 24)
WARNED = "and nothing tells which of them"
QUICK = ("--method", "fbp", "--thickness", 8, "--overwrite")


def relion(folder, rows=ALL, named=True):
    """A table of one series, the rows of some images in any order."""
    columns = ("rlnMicrographName", "rlnMicrographPreExposure", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst")
    columns += ("rlnTomoYShiftAngst", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    text = "\ndata_ts\n\nloop_\n" + "".join(f"_{name} #{k}\n" for k, name in enumerate(columns, 1))
    for n in rows:
        name = f"{n + 1:06d}@ts.mrc" if named else f"frame_{n}.mrc"
        defocus = DEFOCI[n] * 1e4
        text += f"{name} {DOSES[n]} {ANGLES[n]} 0 0 0 {defocus:.0f} {defocus:.0f} 0\n"
    path = folder / "ts.star"
    path.write_text(text)
    return path


def warp(folder, rows=ALL, unused=(), grids=True):
    def grid(name, values):
        nodes = "".join(f'<Node X="0" Y="0" Z="{z}" Value="{value:.4f}"/>' for z, value in enumerate(values))
        return f"<{name}>{nodes}</{name}>"

    lists = {"Angles": [-ANGLES[n] for n in rows], "Dose": [DOSES[n] for n in rows]}
    lists |= {"UseTilt": [n not in unused for n in rows]}
    lists |= {name: [0] * len(rows) for name in ("AxisAngle", "AxisOffsetX", "AxisOffsetY")}
    body = "".join(f"<{name}>{chr(10).join(map(str, values))}</{name}>" for name, values in lists.items())
    body += '<CTF><Param Name="Defocus" Value="2.6"/></CTF>' + grid("GridCTF", [DEFOCI[n] for n in rows]) * grids
    path = folder / "ts.xml"
    path.write_text(f"<TiltSeries>{body}</TiltSeries>")
    return path


def mdoc(folder, rows=ALL, tilts=ANGLES):
    path = folder / "ts.mrc.mdoc"
    path.write_text(
        "\n".join(
            f"[ZValue = {k}]\nTiltAngle = {tilts[n]}\nPriorRecordDose = {DOSES[n]}\nVoltage = 300\n"
            for k, n in enumerate(rows)
        )
    )
    return path


def ctffind(folder):
    head = (
        "# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of astigmatism; "
    )
    head += "#5 - additional phase shift [radians]; #6 - cross correlation; #7 - spacing (in Angstroms)\n"
    path = folder / "ts_ctffind4.txt"
    path.write_text(head + "".join(f"{n + 1} {d * 1e4} {d * 1e4} 0 0 0.1 8\n" for n, d in enumerate(DEFOCI)))
    return path


def imod(folder):
    rows = [f"{n + 1} {n + 1} {ANGLES[n]} {ANGLES[n]} {DEFOCI[n] * 1e3}{' 2' * (n == 0)}" for n in ALL]
    path = folder / "ts.defocus"
    path.write_text("\n".join(rows) + "\n")
    return path


def images(folder, of=ALL, angles=ANGLES):
    rng = np.random.default_rng(0)
    stack = rng.standard_normal((N, *SHAPE)).astype(np.float32)
    return write_series(folder, stack[list(of)], [angles[n] for n in of])


def given(folder, *words):
    """Doses and defoci that a run gave its images, and what it warned of."""
    result = made(folder / "ts.mrc", *words, *QUICK, "-o", folder / "made.mrc")
    found = json.loads((folder / "made.json").read_text())["method"]["corrections"]
    doses = found.get("dose_weight", {}).get("exposures", ())
    defoci = [image["u_um"] for image in found["ctf"]["images"]] if "ctf" in found else []
    return list(doses), defoci, [line for line in result.stderr.splitlines() if WARNED in line]


def holds(found, kept, doses=True, defoci=True):
    assert found[0] == ([DOSES[n] for n in kept] if doses else [])
    assert found[1] == pytest.approx([DEFOCI[n] for n in kept] if defoci else [], abs=1e-3)
    assert not found[2]


def without(excluded):
    words = ("--exclude", ",".join(str(n + 1) for n in excluded)) if excluded else ()
    return words, [n for n in ALL if n not in excluded]


@pytest.mark.parametrize("excluded", [(), (0,), (0, 3)])
@pytest.mark.parametrize("rows", [ALL, ALL[::-1], SORTED, SORTED[::-1]], ids=["stack", "reversed", "sorted", "falling"])
def test_rows_that_name_their_images(rows, excluded, tmp_path):
    images(tmp_path)
    words, kept = without(excluded)
    table = relion(tmp_path, rows)
    holds(given(tmp_path, "--star", table, "--dose-weight", "--ctf", "flip", *words), kept)


def test_a_row_that_is_missing_is_that_of_the_image_that_it_names(tmp_path):
    images(tmp_path)
    table = relion(tmp_path, ALL[1:])
    holds(given(tmp_path, "--star", table, "--dose-weight", "--ctf", "flip"), ALL[1:])
    # The same with the doses of a file that has all images.
    more = ("--dose", mdoc(tmp_path), "--dose-weight", "--ctf", "flip")
    holds(given(tmp_path, "--star", table, *more), ALL[1:])


def test_images_that_warp_does_not_use(tmp_path):
    images(tmp_path)
    table = warp(tmp_path, unused=(0, 3))
    flags = ("--warp", table, "--dose-weight", "--ctf", "flip")
    kept = [n for n in ALL if n not in (0, 3)]
    holds(given(tmp_path, *flags), kept)
    holds(given(tmp_path, *flags, "--exclude", "2"), [n for n in kept if n != 1])
    # WarpTools writes a stack of those alone that are used.
    images(tmp_path, kept)
    holds(given(tmp_path, *flags), kept)
    holds(given(tmp_path, *flags, "--exclude", "7"), kept[:-1])


@pytest.mark.parametrize("excluded", [(), (0,), (0, 3)])
def test_sections_of_an_mdoc(excluded, tmp_path):
    _, tlt = images(tmp_path)
    words, kept = without(excluded)
    flags = (tlt, "--dose", mdoc(tmp_path), "--dose-weight", *words)
    holds(given(tmp_path, *flags), kept, defoci=False)
    # Recorded angles differ by little, and .tlt has two decimals: the section decides, not what is nearest.
    for first, last in ((-0.003, 0.004), (0.004, -0.003)):
        mdoc(tmp_path, tilts=(first, *ANGLES[1:-1], last))
        holds(given(tmp_path, *flags), kept, defoci=False)
    # A stack that is sorted by angle is not in the order of the sections.
    mdoc(tmp_path)
    images(tmp_path, SORTED)
    words = ("--exclude", ",".join(str(SORTED.index(n) + 1) for n in excluded)) if excluded else ()
    holds(given(tmp_path, *flags[:-2] if excluded else flags, *words), [n for n in SORTED if n in kept], defoci=False)


@pytest.mark.parametrize("write", [ctffind, imod])
def test_tables_by_number(write, tmp_path):
    _, tlt = images(tmp_path)
    for excluded in ((), (0,), (0, 3)):
        words, kept = without(excluded)
        holds(given(tmp_path, tlt, "--ctf", "flip", "--ctf-file", write(tmp_path), *words), kept, doses=False)


def test_what_nothing_tells_is_said(tmp_path):
    """The stack lacks the bad image, and is sorted: which of two rows at 0° is its image of 0°?"""
    some = [n for n in SORTED if n != 0]
    _, tlt = images(tmp_path, some)
    doses, _, said = given(tmp_path, tlt, "--dose", mdoc(tmp_path), "--dose-weight")
    assert len(doses) == len(some)
    (line,) = said
    assert "ts.mrc.mdoc has rows of the same tilt angle but of different doses" in line
    assert f"is that of image {some.index(8) + 1} of the stack" in line
    _, defoci, said = given(tmp_path, tlt, "--ctf-file", relion(tmp_path, named=False), "--ctf", "flip")
    assert len(defoci) == len(some)
    assert "different defoci" in said[0]
    # In the order of acquisition, what comes before and after tells it.
    images(tmp_path, ALL[1:])
    holds(given(tmp_path, tlt, "--dose", mdoc(tmp_path), "--dose-weight"), ALL[1:], defoci=False)


# Without the command: every order, everything that is left out.


def series(order, excluded, tilts=ANGLES):
    """A stack of images in some order, of which some are left out; and those that are used."""
    used = tuple(place for place, n in enumerate(order) if n not in excluded)
    left = tuple((place, tilts[n]) for place, n in enumerate(order) if n in excluded)
    kept = [order[place] for place in used]
    return SeriesImages("ts.mrc", len(order), used, tuple(tilts[n] for n in kept), left), kept


def defoci_of(path: Path, given: SeriesImages) -> Ctf:
    return read_ctf(path, given, Reading())


REFINED = tuple(angle + 0.2 * (-1) ** n for n, angle in enumerate(ANGLES))


@pytest.mark.parametrize("tilts", [ANGLES, REFINED], ids=["nominal", "refined"])
@pytest.mark.parametrize("order", [ALL, SORTED], ids=["acquired", "sorted"])
@pytest.mark.parametrize("rows", [ALL, SORTED], ids=["rows-acquired", "rows-sorted"])
def test_leaving_an_image_out_changes_nothing_of_another(rows, order, tilts, tmp_path):
    files = [relion(tmp_path, rows, named=False), warp(tmp_path, rows), mdoc(tmp_path, rows)]
    for excluded in EXCLUDED:
        stack, kept = series(order, excluded, tilts)
        for path in files:
            told = read_exposures(path, "ts.mrc")
            assert told.of_images(stack.angles_deg, stack.others) == tuple(DOSES[n] for n in kept), (path, excluded)
            if path.suffix != ".mdoc":
                found = defoci_of(path, stack)
                assert [image.u_um for image in found.images] == pytest.approx([DEFOCI[n] for n in kept], abs=1e-3)
                assert not any("Warning" in note for note in found.notes)
                supposed = any("in the order of the images" in note for note in found.notes)
                assert supposed == (rows != order)


def test_the_law_holds_for_any_series():
    """Retaken tilts anywhere, refined or rounded angles, an offset, any order of stack and rows, names or none."""
    rng = np.random.default_rng(1)
    for _ in range(150):
        tilts = [3.0 * n for n in range(-5, 6)]
        for _ in range(rng.integers(1, 4)):
            tilts.insert(rng.integers(len(tilts) + 1), tilts[rng.integers(len(tilts))])
        count = len(tilts)
        nominal = np.array(tilts) + rng.uniform(-0.005, 0.005, count) * rng.integers(2)
        seen = nominal + rng.uniform(-0.2, 0.2, count) * rng.integers(2) + rng.choice([0.0, 5.0])
        seen = np.round(seen, 2) if rng.integers(2) else seen
        order, rows = (np.argsort(nominal, kind="stable") if rng.integers(2) else np.arange(count) for _ in range(2))
        named = rng.integers(2) == 1
        places = tuple(np.argsort(order)[rows].tolist()) if named else ()
        table = FileRows(tuple(nominal[rows]), places, named)

        def found(excluded, seen=seen, order=order, table=table, count=count):
            used = tuple(place for place in range(count) if place not in excluded)
            left = tuple((place, float(seen[order[place]])) for place in excluded)
            made = same_images([float(seen[order[place]]) for place in used], table, Others(left, 0.0, used, count))
            assert made is not None
            return dict(zip(used, made.rows, strict=True))

        everything = found(())
        if named:
            assert all(rows[row] == order[place] for place, row in everything.items())
        for _ in range(3):
            some = found(tuple(rng.choice(count, rng.integers(1, 4), replace=False).tolist()))
            assert some == {place: everything[place] for place in some}


def test_names_of_another_stack_are_no_names():
    """All angles shifted by a step fit the numbers of the whole stack: they are those of a stack that lacks one."""
    angles = tuple(range(-40, 50, 20))
    named = FileRows(angles, (0, 1, 2, 3, 4), named=True)
    found = same_images(angles[1:], named, Others(used=(0, 1, 2, 3), sections=4))
    assert found is not None
    assert found.rows == (1, 2, 3, 4)
    # As many rows as the series has images that are named, of a stack with more.
    some = FileRows(angles[:4], (0, 1, 2, 3), named=True)
    found = same_images(angles[1:4], some, Others(used=(0, 1, 2), sections=5))
    assert found is not None
    assert found.rows == (1, 2, 3)


@pytest.mark.parametrize("twin", [(-0.003, 0.004), (0.004, -0.003)])
def test_angles_that_a_file_tells_apart_are_told_apart(twin):
    """A sorted stack and rows as they were acquired: exact angles decide, rounded ones do not, which is said."""
    told = (twin[0], 10.0, -10.0, twin[1])
    order = sorted(range(4), key=told.__getitem__)
    known = Others(used=(0, 1, 2, 3), sections=4)
    exact = same_images([told[n] for n in order], FileRows(told), known)
    assert exact is not None
    assert list(exact.rows) == order
    assert not any(exact.others)
    rounded = same_images([round(told[n], 2) for n in order], FileRows(told), known)
    assert rounded is not None
    doubtful = order != sorted(range(4), key=lambda n: (round(told[n], 2), n))
    assert any(rounded.others) == doubtful
    said = rounded.doubt(Path("a.mdoc"), "doses", known, lambda a, b: True)
    assert [line.startswith("Warning: ") for line in said] == [doubtful]
    assert not rounded.doubt(Path("a.mdoc"), "doses", known, lambda a, b: False)


@pytest.mark.parametrize(("apart", "told"), [(0.01, False), (0.04, False), (0.06, True), (0.2, True)])
def test_doses_that_hardly_differ_are_no_doubt(apart, told, tmp_path):
    """The stack lacks one of two images at one angle: which of their doses is meant matters if they differ."""
    some = [n for n in SORTED if n != 0]
    _, tlt = images(tmp_path, some)
    path = mdoc(tmp_path)
    lines, doses = path.read_text().splitlines(), iter([50.0, *range(103 - N, 101), 50.0 + 100 * apart])
    # Of both at 0° the first and the last, of a highest dose of 100.
    lines = [f"PriorRecordDose = {next(doses)}" if line.startswith("PriorRecordDose") else line for line in lines]
    path.write_text("\n".join(lines) + "\n")
    _, _, said = given(tmp_path, tlt, "--dose", path, "--dose-weight")
    assert any("of different doses" in line for line in said) == told


def test_a_grid_of_one_node_is_of_all_images(tmp_path):
    """Its default is 0, which tells nothing."""
    path = warp(tmp_path, grids=False)
    plain = path.read_text()
    stack, _ = series(ALL, ())
    for value, wanted in ((0.0, 2.6), (3.1, 3.1)):
        node = f'<GridCTF><Node X="0" Y="0" Z="0" Value="{value}"/></GridCTF>'
        path.write_text(plain.replace("</TiltSeries>", f"{node}</TiltSeries>"))
        assert [image.u_um for image in defoci_of(path, stack).images] == [wanted] * N
    node = '<GridCTFPhase><Node X="0" Y="0" Z="0" Value="0.25"/></GridCTFPhase>'
    path.write_text(plain.replace("</TiltSeries>", f"{node}</TiltSeries>"))
    assert [image.phase_shift_deg for image in defoci_of(path, stack).images] == [45.0] * N
