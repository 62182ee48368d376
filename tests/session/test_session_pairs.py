"""Folders of raw stacks as the programs that aligned them leave them: which files belong together, told by names."""

from __future__ import annotations

import numpy as np
import pytest
from command import call
from projects import (
    ANGLES,
    BEADS,
    VOLUME,
    bead_places,
    make_project,
    write_aretomo,
    write_imod,
    write_relion,
    write_warp,
)
from test_session import table
from tiny_series import made, run, voxels, write_series

from cryolithe.errors import InputError
from cryolithe.formats import write_stack
from cryolithe.formats.series.session_folder import read_session_folder

FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", VOLUME[0])
SORTED = tuple(range(len(ANGLES)))
# SerialEM's order of acquisition, which is not that of the stack.
ACQUIRED = sorted(range(len(ANGLES)), key=lambda n: (abs(ANGLES[n]), ANGLES[n]))


def mdoc_text(order=SORTED):
    """The .mdoc of a stack whose images stand in an order."""
    lines = ["ImageFile = ts.mrc", "PixelSpacing = 4", "", "[T = Tilt axis angle = 84.0]"]
    for place, n in enumerate(order):
        prior = 3.0 * ACQUIRED.index(n)
        lines += ["", f"[ZValue = {place}]", f"TiltAngle = {ANGLES[n]}", f"PriorRecordDose = {prior}"]
    return "\n".join([*lines, ""])


def at_their_places(volume):
    np.testing.assert_allclose(bead_places(voxels(volume)), [bead[:3] for bead in BEADS], atol=0.1)


def etomo(folder):
    """A folder of etomo: everything of one series, command files of fixed names; TILTFILE brings the angles."""
    project = make_project(folder)
    write_imod(project, ("InputProjections ts_ali.mrc",), ("InputFile ts.mrc",))
    (folder / "ts_orig.mrc").write_bytes(b"what a stack was before X-rays were taken out")
    for made_of_it in ("erase", "ctfcorr", "filt", "3dfind"):
        (folder / f"ts_{made_of_it}.ali").write_bytes(b"on the way from ts.ali to a volume")
        (folder / f"ts_{made_of_it}_ali.mrc").write_bytes(b"the same by today's names")


def flat(folder):
    """A folder of AreTomo3, with what it writes for IMOD, and its volume."""
    write_aretomo(make_project(folder))
    (folder / "ts.mrc.mdoc").write_text(mdoc_text())
    (folder / "ts_Vol.mrc").write_bytes(b"a product")
    (folder / "ts_Imod").mkdir()
    (folder / "ts_Imod" / "ts_st.mrc").write_bytes(b"the same series")
    (folder / "ts_Imod" / "ts_st.tlt").write_text("1\n2\n3\n")


def transforms(folder):
    write_imod(make_project(folder, dark=()), dark=())
    for name in ("newst.com", "tilt.com"):
        (folder / name).unlink()


def warp(folder):
    write_warp(make_project(folder))
    (folder / "ts.tomostar").write_text("what the series starts from")


def relion(folder):
    """Per-series tables as RELION-5 leaves them, in a folder of their own."""
    write_relion(make_project(folder))
    (folder / "ts.tlt").unlink()


def relion_beside(folder):
    relion(folder)
    (folder / "tilt_series" / "ts.star").rename(folder / "ts.star")


def dual_axis(folder, axis="a"):
    """Command files of both axes in one folder, those of the other axis broken."""
    etomo(folder)
    other = "b" if axis == "a" else "a"
    for name in ("newst", "tilt"):
        (folder / f"{name}.com").rename(folder / f"{name}{axis}.com")
    (folder / f"newst{other}.com").write_text("$newstack -StandardInput\nInputFile other.mrc\nTransformFile o.xf\n")
    (folder / f"tilt{other}.com").write_text("$tilt -StandardInput\nInputProjections other_ali.mrc\nTILTFILE o.tlt\n")


def second_axis(folder):
    dual_axis(folder, "b")


def capitals(folder):
    """As old programs of Windows call them."""
    flat(folder)
    for before, after in (("ts.mrc", "ts.MRC"), ("ts.mrc.mdoc", "ts.MRC.MDOC"), ("ts.aln", "ts.ALN")):
        (folder / before).rename(folder / after)


def whole_name(folder):
    """As AreTomo 1 and 2 call it, also when WarpTools runs them."""
    flat(folder)
    for before, after in (("ts.mrc", "ts.st"), ("ts.aln", "ts.st.aln")):
        (folder / before).rename(folder / after)


def test_a_stack_on_the_way_to_a_volume_with_angles_of_its_own_is_a_series(tmp_path):
    for name in ("ts", "ts_ctfcorr"):
        (tmp_path / f"{name}.ali").write_bytes(b"")
        (tmp_path / f"{name}.tlt").write_text("-20\n0\n20\n")
    assert [entry.tilts.name for entry in read_session_folder(tmp_path).entries] == ["ts.ali", "ts_ctfcorr.ali"]
    (tmp_path / "ts_ctfcorr.tlt").unlink()
    assert [entry.tilts.name for entry in read_session_folder(tmp_path).entries] == ["ts.ali"]


@pytest.mark.parametrize(
    ("layout", "stack", "says"),
    [
        (whole_name, "ts.st", "aln ts.st.aln"),
        (etomo, "ts.mrc", "newst_com newst.com, tilt_com tilt.com, newst_com TransformFile ts.xf, tilt_com TILTFILE"),
        (flat, "ts.mrc", "aln ts.aln"),
        (transforms, "ts.mrc", "angles ts.tlt, xf ts.xf"),
        (warp, "ts.mrc", "warp ts.xml"),
        (relion, "ts.mrc", "star tilt_series/ts.star"),
        (relion_beside, "ts.mrc", "star ts.star"),
        (dual_axis, "ts.mrc", "newst_com newsta.com, tilt_com tilta.com, newst_com TransformFile ts.xf"),
        (second_axis, "ts.mrc", "newst_com newstb.com, tilt_com tiltb.com, newst_com TransformFile ts.xf"),
        (capitals, "ts.MRC", "aln ts.ALN"),
    ],
)
def test_a_folder_takes_the_alignment_beside_a_stack(layout, stack, says, tmp_path):
    folder = tmp_path / "position 1 ü"
    layout(folder)
    result = made(folder, *FBP)
    assert f"{folder / stack}: {says}" in result.stderr
    assert set(table(folder)) == {"ts"}
    at_their_places(folder / "ts_rec.mrc")
    assert "0 to do" in made(folder, *FBP).stderr


def test_a_folder_of_folders_is_that_of_its_series(tmp_path):
    """One folder a series, as etomo has it, and several series in one, of which one only has command files."""
    for name in ("one", "two"):
        etomo(tmp_path / name)
    write_series(tmp_path / "two", name="plain")
    entries = read_session_folder(tmp_path).entries
    assert [(entry.name, bool(entry.settings), entry.problem) for entry in entries] == [
        ("ts", True, ""),
        ("plain", False, ""),
        ("ts", True, ""),
    ]


def test_doses_and_defocus_beside_a_stack_are_taken_too(tmp_path):
    """Also where the .mdoc has the order of acquisition; the single command finds the same files."""
    project = make_project(tmp_path / "ts")
    aln, mdoc = write_aretomo(project), project.folder / "ts.mrc.mdoc"
    mdoc.write_text(mdoc_text(order=ACQUIRED))
    (project.folder / "ts_CTF.txt").write_text(
        "# Columns: #1 micrograph number; #2 - defocus 1 [A]; #3 - defocus 2; #4 - angle; #5 - phase; #6; #7; dfHand\n"
        + "".join(f"{n} 30000 29000 10 0 0.1 8 1\n" for n in range(1, len(ANGLES) + 1))
    )
    flags = (*FBP, "--ctf", "flip", "--dose-weight")
    result = made(project.folder, *flags)
    assert "ts.mrc: aln ts.aln, dose ts.mrc.mdoc, ctf ts_CTF.txt" in result.stderr
    made(project.stack, "--aln", aln, *flags, "-o", tmp_path / "single.mrc")
    np.testing.assert_array_equal(voxels(tmp_path / "single.mrc"), voxels(project.folder / "ts_rec.mrc"))


def two_programs(folder):
    flat(folder)
    write_imod(make_project(folder))


def tilt_com_of_raw(folder, takes="ts.mrc"):
    """A tilt.com of this very stack, or of another that names its angles, beside the files of AreTomo."""
    project = make_project(folder)
    write_imod(project, (f"InputProjections {takes}",))
    (folder / "ts.xf").unlink()
    (folder / "newst.com").unlink()
    write_aretomo(project)


def test_a_tilt_com_that_names_angles_alone_gives_way_to_other_programs(tmp_path):
    tilt_com_of_raw(tmp_path / "s", "coarse_ali.mrc")
    found = read_session_folder(tmp_path / "s")
    assert [(list(entry.settings), entry.problem) for entry in found.entries] == [(["aln"], "")]
    told = (
        "tilt.com is not used: it brings no transforms of ts.mrc, takes in coarse_ali.mrc; ts.aln (AreTomo) aligns it"
    )
    assert told in " ".join(found.passed_over)
    assert told in " ".join(run(tmp_path / "s", *FBP, "--dry-run").output.split())
    (tmp_path / "s" / "ts.aln").unlink()
    found = read_session_folder(tmp_path / "s")
    assert [list(entry.settings) for entry in found.entries] == [["tilt_com"]]
    assert not found.passed_over


def two_transforms(folder):
    transforms(folder)
    (folder / "ts_st.xf").write_bytes((folder / "ts.xf").read_bytes())


def rows_of_another(folder):
    project = make_project(folder)
    aln = write_aretomo(project)
    aln.write_text(aln.read_text().replace(f"RawSize = 80 70 {len(ANGLES)}", f"RawSize = 80 70 {len(ANGLES) + 3}"))


def angles_of_another(folder):
    project = make_project(folder)
    write_aretomo(project)
    project.tlt.unlink()
    (folder / "ts.mrc.mdoc").write_text("".join(f"[ZValue = {n}]\nTiltAngle = {3 * n - 30}\n" for n in range(20)))


def no_transform_file(folder):
    project = make_project(folder)
    write_imod(project)
    (folder / "newst.com").write_text("$newstack -StandardInput\nInputFile ts.mrc\n")


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (two_programs, "newst.com (IMOD) and ts.aln (AreTomo) beside it are alignments of different programs"),
        (tilt_com_of_raw, "move all but one away, or use a CSV list with the columns tilts,aln"),
        (two_transforms, "ts.xf and ts_st.xf could both align ts.mrc"),
        (rows_of_another, "is for a stack of 23 images but holds 18 aligned and 2 dark ones"),
        (angles_of_another, "but ts.mrc.mdoc says -30° to 27°, in other steps"),
        (no_transform_file, "names no TransformFile, but ts.xf lies there"),
    ],
)
def test_what_is_not_clear_is_refused_in_a_line(layout, says, tmp_path):
    layout(tmp_path / "ts")
    result = run(tmp_path / "ts", *FBP, "--dry-run")
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if "would fail" in line]
    assert says in line


def test_the_aligned_stack_is_taken_and_the_raw_one_named(tmp_path):
    """With the views that tilt.com excludes, where it says that it is of this stack."""
    project = make_project(tmp_path / "ts")
    write_imod(project, ("InputProjections ts_ali.mrc", f"THICKNESS {VOLUME[0]}"))
    ali = project.folder / "ts_ali.mrc"
    ali.write_bytes(project.stack.read_bytes())
    result = made(project.folder, "--method", "fbp")
    assert f"{ali}: tilt_com tilt.com, tilt_com TILTFILE ts.tlt; ts.mrc is of the same series" in result.stderr
    assert "left out: 1, 12 of 20" in result.stderr
    assert voxels(project.folder / "ts_ali_rec.mrc").shape[0] == VOLUME[0]


def test_particles_beside_a_stack_are_no_alignment(tmp_path):
    write_series(tmp_path, name="ts")
    (tmp_path / "ts.star").write_text("data_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2\n")
    (entry,) = read_session_folder(tmp_path).entries
    assert (entry.settings, entry.problem) == ({}, "")


def test_two_tables_of_a_series_are_refused_in_a_line(tmp_path):
    relion(tmp_path)
    (tmp_path / "ts.star").write_bytes((tmp_path / "tilt_series" / "ts.star").read_bytes())
    (entry,) = read_session_folder(tmp_path).entries
    assert "ts.star and ts.star could both align ts.mrc" in entry.problem.replace("tilt_series/", "")


@pytest.mark.parametrize("late", [False, True])
def test_watching_waits_for_the_alignment_of_a_raw_stack(late, tmp_path, monkeypatch):
    """Whether or not it comes, the stack is never taken as one that is aligned."""
    project = make_project(tmp_path)
    aln = write_aretomo(project)
    project.tlt.unlink()
    (tmp_path / "ts.mrc.mdoc").write_text(mdoc_text().replace("84.0", "0.0"))
    aln.rename(tmp_path / "later")

    def rounds(*_):
        for number in range(4):
            if late and number == 2:
                (tmp_path / "later").rename(aln)
            yield number

    monkeypatch.setattr("cryolithe.cli.session.rounds", rounds)
    result = made(tmp_path, *FBP, "--watch", "--settle", 0, "--idle", 1)
    waits = "Waiting for 1 series: ts (its alignment is not there; it is taken for raw: ts.mrc.mdoc lies beside it)"
    assert result.stderr.count(waits) == 1
    if late:
        at_their_places(tmp_path / "ts_rec.mrc")
    else:
        assert not (tmp_path / "ts_rec.mrc").exists()
        assert "1 not complete" in result.stderr


def test_info_lists_the_files_that_reconstruct_takes(tmp_path):
    folder = tmp_path / "ts"
    flat(folder)
    (folder / "ts_CTF.txt").write_text(
        "# Columns: #1 micrograph number; #2 - defocus 1 [A]; #3 - defocus 2; #4 - angle; #5 - phase; #6; #7; dfHand\n"
        + "".join(f"{n} 30000 29000 10 0 0.1 8 1\n" for n in range(1, len(ANGLES) + 1))
    )
    told = run(folder, *FBP, "--ctf", "flip", "--dose-weight", "--dry-run").stderr
    (line,) = [line for line in told.splitlines() if line.startswith(f"{folder / 'ts.mrc'}: ")]
    taken = line.partition(": ")[2].split(", ")
    result = call("info", folder)
    (shown,) = [line for line in result.stdout.splitlines() if "ts.mrc: " in line]
    assert sorted(shown.partition("ts.mrc: ")[2].split(", ")) == sorted(taken)
    assert len(taken) == 3


def names(folder):
    found = read_session_folder(folder)
    return (
        [(entry.tilts.name, entry.angles.name, entry.problem) for entry in found.entries],
        [path.name for path in found.left_out],
        [path.name for path in found.other],
    )


def test_what_programs_leave_beside_series_and_is_none(tmp_path):
    """IMOD's views that were cut out and what X-rays were taken out of, SerialEM's montages and single images."""
    write_series(tmp_path)[0].rename(tmp_path / "ts.st")
    images = np.asarray(voxels(tmp_path / "ts.st"))
    for name, count in {"ts_cutviews0": 3, "ts_xray": len(images), "lmm1": 4, "grid1": 1, "other": 3}.items():
        write_stack(tmp_path / f"{name}.st", images[:count], 5.0, "made for a test")
    pieces = (f"[ZValue = {n}]\nPieceCoordinates = {90 * n} 0 0\nTiltAngle = 0.01\n" for n in range(4))
    (tmp_path / "lmm1.st.mdoc").write_text("ImageFile = lmm1.st\n" + "\n".join(pieces))
    entries, left_out, other = names(tmp_path)
    assert (left_out, other) == ([], ["grid1.st", "lmm1.st"])
    assert [name for name, _, problem in entries if not problem] == ["ts.st"]
    assert [name for name, _, problem in entries if problem] == ["other.st"]
    (tmp_path / "other.st").unlink()
    result = made(tmp_path, "--dry-run", *FBP)
    assert "Left out, no tilt series (fewer than 3 images, or a montage): grid1.st, lmm1.st" in result.stderr
    (tmp_path / "ts.st").unlink()
    assert "ts_xray.st" in [name for name, *_ in names(tmp_path)[0]]


@pytest.mark.parametrize(
    ("stacks", "beside", "entries", "left_out"),
    [
        (("x_ali_bin4.mrc",), (), ["x_ali_bin4.mrc"], []),
        (("x_aligned_10.00Apx.mrc", "x.st"), (), ["x_aligned_10.00Apx.mrc"], []),
        (("x_ali.mrc", "x_ali_bin4.mrc"), (), ["x_ali.mrc"], []),
        (("x_bin4.mrc",), (), ["x_bin4.mrc"], []),
        (("x.mrc", "x_bin4.mrc"), (), ["x.mrc"], ["x_bin4.mrc"]),
        (("x_bin4.mrc",), ("x.aln",), None, ["x_bin4.mrc"]),
        (("x_bin4.mrc", "x.mrc"), ("x_bin4.tlt",), ["x.mrc", "x_bin4.mrc"], []),
    ],
)
def test_binned_copies_have_the_angles_of_their_series(stacks, beside, entries, left_out, tmp_path):
    for stack in stacks:
        (tmp_path / stack).write_bytes(b"images")
    for file in ("x.tlt", *beside):
        (tmp_path / file).write_text("-20\n0\n20\n")
    if entries is None:
        with pytest.raises(InputError, match="1 stacks have no angle file"):
            read_session_folder(tmp_path)
        return
    found, left, _ = names(tmp_path)
    assert [name for name, _, problem in found if not problem] == entries
    assert {angles for name, angles, _ in found} <= {"x.tlt", "x_bin4.tlt"}
    assert left == left_out


@pytest.mark.parametrize(
    ("stacks", "beside", "entries"),
    [
        (("x.mrc", "x_even.mrc", "x_odd.mrc"), ("x.mrc.mdoc",), ["x.mrc"]),
        (("x.mrc", "x_EVN.mrc", "x_ODD.mrc"), ("x.tlt",), ["x.mrc"]),
        (("x.mrc", "x_half_1.mrc", "x-half2.mrc"), ("x.mrc.mdoc",), ["x.mrc"]),
        (("x_ali.mrc", "x_even_ali.mrc", "x_odd_ali.mrc"), ("x.tlt", "x_even.tlt"), ["x_ali.mrc"]),
        (("x.mrc", "x_EVN_bin4.mrc"), ("x.tlt",), ["x.mrc"]),
        (("x.mrc", "x_even.mrc"), ("x.tlt", "x_even.tlt"), ["x.mrc"]),
        (("x_even.mrc", "x_odd.mrc"), ("x_even.tlt", "x_odd.tlt"), None),
        (("x_odd.mrc",), ("x.mrc.mdoc",), None),
        # What is called so without being one.
        (("x_even.mrc",), ("x_even.tlt",), ["x_even.mrc"]),
        (("x_odd.mrc",), ("x_odd.mrc.mdoc",), ["x_odd.mrc"]),
        (("x_odd_ali.mrc",), ("x_odd.tlt",), ["x_odd_ali.mrc"]),
        (("x_half_1.mrc", "x_half_2.mrc"), ("x_half_1.tlt", "x_half_2.tlt"), ["x_half_1.mrc", "x_half_2.mrc"]),
        (("1.mrc", "odd_1.mrc"), ("1.tlt", "odd_1.tlt"), ["1.mrc", "odd_1.mrc"]),
    ],
)
def test_halves_are_no_series_of_their_own(stacks, beside, entries, tmp_path):
    for stack in stacks:
        write_stack(tmp_path / stack, np.zeros((3, 8, 8), np.float32), 5.0, "made for a test")
    for file in beside:
        angles = (f"[ZValue = {n}]\nTiltAngle = {20 * n - 20}\n" for n in range(3))
        (tmp_path / file).write_text("\n".join(angles) if file.endswith(".mdoc") else "-20\n0\n20\n")
    if entries is None:
        with pytest.raises(InputError, match="holds no tilt series"):
            read_session_folder(tmp_path)
        return
    found, left, _ = names(tmp_path)
    assert [(name, problem) for name, _, problem in found] == [(name, "") for name in entries]
    assert not left


def test_two_binned_copies_could_both_be_the_series(tmp_path):
    for name in ("x_bin4.mrc", "x_bin8.mrc"):
        (tmp_path / name).write_bytes(b"images")
    (tmp_path / "x.tlt").write_text("-20\n0\n20\n")
    ((_, _, problem),) = names(tmp_path)[0]
    assert "x_bin4.mrc and x_bin8.mrc could both be the series x" in problem
