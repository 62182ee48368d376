"""Tables of defocus and dose beside alignments that leave images out: each image gets its own row, or nothing does."""

from __future__ import annotations

import json

import pytest
from projects import ANGLES, DARK, VOLUME, make_project, write_aretomo, write_imod, write_relion, write_warp
from test_ctf_files import ARETOMO, CTFFIND
from tiny_series import made, run

from cryolithe.errors import InputError
from cryolithe.formats.alignment.same_images import same_images
from cryolithe.formats.image_rows import FileRows, Others, SeriesImages
from cryolithe.formats.microscope.ctf_files import read_ctf
from cryolithe.formats.reading import Reading
from cryolithe.reconstruction.images.correcting import ctf_of
from cryolithe.reconstruction.jobs.sources import find_sources, read_sources
from cryolithe.settings import ReconstructSettings

N = len(ANGLES)
ALL, USED = tuple(range(N)), tuple(n for n in range(N) if n not in DARK)
WANTED = [3.0 + 0.05 * n for n in ALL]


def columns(images, head, numbers=None):
    numbers = range(1, len(images) + 1) if numbers is None else numbers
    return head + "".join(
        f"{k} {WANTED[n] * 1e4} {WANTED[n] * 1e4} 0 0 0.1 8\n" for k, n in zip(numbers, images, strict=True)
    )


def views(images, offset=0.0):
    rows = [
        f"{k} {k} {ANGLES[n] + offset} {ANGLES[n] + offset} {WANTED[n] * 1e3}{' 2' * (k == 1)}"
        for k, n in enumerate(images, 1)
    ]
    return "\n".join(rows) + "\n"


def aretomo(project):
    return {"aln": write_aretomo(project)}


def imod_excludes(project):
    _, newst, tilt = write_imod(project)
    return {"newst_com": newst, "tilt_com": tilt}


def imod_newst_excludes(project):
    """The aligned stack lacks the first image, and its second but last view is excluded: image 12 of the raw stack."""
    _, newst, tilt = write_imod(project, ("EXCLUDELIST2 11",), ("ExcludeSections 0",), dark=())
    return {"newst_com": newst, "tilt_com": tilt}


def relion(project):
    return {"star": write_relion(project)[0]}


def warp(project):
    return {"warp": write_warp(project)}


ALIGNED = tuple(n for n in ALL if n != 0)
TABLES = {
    "all": ("ts_CTF.txt", columns(ALL, ARETOMO)),
    "used": ("ts_CTF.txt", columns(USED, ARETOMO)),
    "gaps": ("ts_CTF.txt", columns(USED, ARETOMO, [n + 1 for n in USED])),
    "all of ctffind": ("ts_ctffind4.txt", columns(ALL, CTFFIND)),
    "used of ctffind": ("ts_ctffind4.txt", columns(USED, CTFFIND)),
    "all views": ("ts.defocus", views(ALL)),
    "used views": ("ts.defocus", views(USED)),
    "all views, tilted": ("ts.defocus", views(ALL, 8.0)),
}


@pytest.mark.parametrize("program", [aretomo, imod_excludes, imod_newst_excludes, relion, warp])
def test_each_image_gets_its_own_row(program, tmp_path):
    project = make_project(tmp_path / "ts")
    settings = ReconstructSettings(ctf="flip", **{name: str(path) for name, path in program(project).items()})
    tables = dict(TABLES)
    if program is imod_newst_excludes:
        tables |= {"aligned": ("ts_ctffind4.txt", columns(ALIGNED, CTFFIND))}
        tables |= {"aligned views": ("ts.defocus", views(ALIGNED))}
    alignment = read_sources(find_sources(project.stack, None, _plain(settings), Reading()), settings).alignment
    assert tuple(image.section for image in alignment.images) == USED
    for case, (name, text) in tables.items():
        table = project.folder / name
        table.write_text(text)
        found, _ = ctf_of(project.stack, alignment, settings, Reading())
        assert [image.defocus_um for image in found.images] == pytest.approx([WANTED[n] for n in USED]), case
        table.write_text("\n".join(text.splitlines()[:-4]) + "\n")
        if name != "ts.defocus":  # whose views may end before the stack does: the last one counts for the others
            with pytest.raises(InputError, match="give the table of this very stack"):
                ctf_of(project.stack, alignment, settings, Reading())
        table.unlink()


@pytest.mark.parametrize("program", [aretomo, imod_excludes, imod_newst_excludes, relion, warp])
def test_images_that_are_left_out_since_change_nothing_for_the_others(program, tmp_path):
    """Tables of the images that a program used have the rows of those that --exclude leaves out, too."""
    project = make_project(tmp_path / "ts")
    files = [word for name, path in program(project).items() for word in (f"--{name.replace('_', '-')}", path)]
    flags = ("--method", "fbp", "--thickness", VOLUME[0], "--ctf", "flip", "--exclude", "5-6,18")
    wanted = [WANTED[n] for n in USED if n + 1 not in (5, 6, 18)]
    for case in ("all", "used", "used of ctffind", "all views", "used views"):
        name, text = TABLES[case]
        (project.folder / name).write_text(text)
        made(
            project.stack,
            *files,
            *flags,
            "--ctf-file",
            project.folder / name,
            "-o",
            tmp_path / "made.mrc",
            "--overwrite",
        )
        record = json.loads((tmp_path / "made.json").read_text())
        found = [image["u_um"] for image in record["method"]["corrections"]["ctf"]["images"]]
        assert found == pytest.approx(wanted), case


def test_refined_angles_of_images_that_are_left_out_since_count(tmp_path):
    """Of a file with the images that a program used, any offset will do; of one with others, none that is not told."""
    kept, used = USED, USED[2:-1]
    others = Others(tuple((n, ANGLES[n] + 4.0) for n in ALL if n not in used), 0.0, used, N, kept)
    rows = FileRows(tuple(ANGLES[n] for n in kept))
    found = same_images([ANGLES[n] + 4.0 for n in used], rows, others)
    assert found is not None
    assert [kept[row] for row in found.rows] == list(used)


def _plain(settings):
    return settings.model_copy(update={"ctf": "none"})


@pytest.mark.parametrize("dark", [DARK, (0, 1), ()])
def test_rows_in_the_order_of_tilt_angles_of_a_stack_that_is_not(dark, tmp_path):
    """AreTomo3 sorts all images; a stack in SerialEM's order has its dark ones among them."""
    order = sorted(ALL, key=lambda n: (abs(ANGLES[n]), ANGLES[n]))
    used = [place for place, n in enumerate(order) if n not in dark]
    angles = tuple(ANGLES[order[place]] for place in used)
    others = tuple((place, ANGLES[n]) for place, n in enumerate(order) if n in dark)
    series = SeriesImages("ts.mrc", N, tuple(used), angles, others)
    table = tmp_path / "ts_CTF.txt"
    wanted = [WANTED[order[place]] for place in used]
    for images in (ALL, tuple(n for n in ALL if n not in dark)):
        table.write_text(columns(images, ARETOMO))
        found = read_ctf(table, series, Reading())
        assert [image.defocus_um for image in found.images] == pytest.approx(wanted)
        assert "in the order of tilt angles" in found.notes[0]


def test_views_that_may_be_counted_in_two_ways_are_refused(tmp_path):
    """The specimen may be tilted by 8°, or by 14°: one image less at the beginning."""
    table = tmp_path / "ts.defocus"
    table.write_text(views(ALL[1:], -8.0))
    series = SeriesImages("ts.mrc", N, ALL[1:], ANGLES[1:])
    with pytest.raises(InputError, match="counted in more than one way"):
        read_ctf(table, series, Reading())


def mdoc(folder, images=ALL, offset=0.0):
    lines = [
        f"[ZValue = {k}]\nTiltAngle = {ANGLES[n] + offset}\nPriorRecordDose = {2.0 * n + 1}\n"
        for k, n in enumerate(images)
    ]
    path = folder / "ts.mrc.mdoc"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("program", "more"),
    [
        (lambda p: {"aln": write_aretomo(p, extra=("# AlphaOffset = 0.00",))}, 0.0),
        (lambda p: {"aln": _offset(write_aretomo(p), 9.0)}, 0.0),
        (lambda p: dict(zip(("newst_com", "tilt_com"), write_imod(p, ("OFFSET 9",))[1:], strict=True)), 0.0),
        (warp, 0.0),
        (relion, 0.4),
    ],
)
def test_doses_are_those_of_the_images_that_are_used(program, more, tmp_path):
    """Also where the whole series is taken to be tilted, and images are left out, through the command."""
    project = make_project(tmp_path / "ts")
    files = [word for name, path in program(project).items() for word in (f"--{name.replace('_', '-')}", path)]
    mdoc(project.folder, offset=more)
    flags = ("--method", "fbp", "--thickness", VOLUME[0], "--dose-weight")
    made(project.stack, *files, *flags, "-o", tmp_path / "made.mrc")
    record = json.loads((tmp_path / "made.json").read_text())
    doses = record["method"]["corrections"]["dose_weight"]["exposures"]
    assert doses == pytest.approx([2.0 * n + 1 for n in USED])
    assert "dose" in record["inputs"]
    mdoc(project.folder, images=ALL[:5])
    lacking = run(project.stack, *files, *flags, "-o", tmp_path / "other.mrc")
    assert lacking.exit_code == 2
    assert "ts.mrc.mdoc has 5 of -57° to -33°, and which of them these 18 of" in lacking.stderr


def _offset(aln, degrees):
    """An .aln whose tilts hold an offset that AreTomo found; dark images keep the angles that were recorded."""
    lines = aln.read_text().splitlines()
    rows = [
        line if line.startswith("#") else " ".join([*line.split()[:-1], f"{float(line.split()[-1]) + degrees:.2f}"])
        for line in lines
    ]
    aln.write_text("\n".join([rows[0], f"# AlphaOffset = {degrees:.2f}", *rows[1:], ""]))
    return aln
