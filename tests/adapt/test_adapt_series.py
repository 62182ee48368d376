"""The series that `cryolithe adapt` learns from: corrected as when they are reconstructed, and told apart."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from test_adapt import ANGLES, SHAPE, command, files, noisy, smooth_images, tiny  # noqa: F401
from test_ctf_files import CTFFIND, columns
from tiny_series import voxels, write_model, write_series

from cryolithe.adapt import gathering
from cryolithe.adapt import session as adapt_session
from cryolithe.adapt.session import Outcome
from cryolithe.files.names import distinct_names
from cryolithe.formats import write_stack
from cryolithe.formats.stacks.mdoc import MdocImage, write_mdoc
from cryolithe.reconstruction.jobs.job import job_of
from cryolithe.reconstruction.jobs.remedies import checked_inputs
from cryolithe.reconstruction.setup.asked_optics import settled_optics
from cryolithe.reconstruction.setup.whitening import prepare_run
from cryolithe.settings import ReconstructSettings

ROWS = [(2.0 + 0.05 * n, 1.9 + 0.05 * n, 20.0) for n in range(len(ANGLES))]
DOSES = [3.0 * n for n in range(len(ANGLES))]


@pytest.fixture
def gathered(monkeypatch):
    """What the command would learn from; nothing is learned, and prepared images are read before they are removed."""
    found = []

    def noted(work):
        found.append((work, [[half.rows(0, SHAPE[1]).numpy() for half in one.halves] for one in work.series]))
        return Outcome(None, None, 0, True)

    monkeypatch.setattr(adapt_session, "adapt", noted)
    return found


def adapt(folder, *words):
    model = folder / "start.safetensors"
    write_model(model)
    fixed = ("--contrast", "dark", "--thickness", SHAPE[0], "--device", "cpu", "-o", folder / "mine.safetensors")
    return command(*words, "--model", model, *fixed)


def series(folder, name="ts", seed=0, pixel_size=10.0):
    folder.mkdir(exist_ok=True)
    images = (90 - 4 * noisy(smooth_images(), seed)).astype(np.float32)
    return write_series(folder, images, ANGLES, name, pixel_size)


def defocus(path, rows=ROWS):
    path.write_text(columns(CTFFIND, rows=rows))
    return path


def mdoc(path):
    images = [MdocImage(a, 3.0, dose, -2.5, n) for n, (a, dose) in enumerate(zip(ANGLES, DOSES, strict=True))]
    write_mdoc(path, "ts.mrc", images, 10.0, SHAPE[1:], 300.0)
    return path


def as_reconstructed(stack, angles, **settings):
    """Prepared images of a reconstruction with these settings."""
    made = ReconstructSettings(thickness=SHAPE[0], device="cpu", contrast="dark", method="fbp", **settings)
    run = settled_optics(checked_inputs(job_of((stack, angles), stack.with_name("none.mrc"), made)))
    return prepare_run(run, None).read_rows(0, SHAPE[1]).numpy()


def test_halves_are_corrected_as_when_they_are_reconstructed_and_that_is_told(tiny, files, tmp_path, gathered):  # noqa: F811
    table, doses = defocus(tmp_path / "ctffind.txt"), mdoc(tmp_path / "ts.mdoc")
    said = {"ctf": "flip", "ctf_file": str(table), "defocus_hand": -1, "voltage": 200.0}
    said |= {"dose_weight": True, "dose": str(doses)}
    words = [word for name, value in said.items() for word in (f"--{name.replace('_', '-')}", value)]
    words = [word for word in words if word is not True]
    result = adapt(tmp_path, "--even", files[0], "--odd", files[1], files[2], *words)
    assert result.exit_code == 130, result.output
    ((work, images),) = gathered
    for stack, half, seen in zip(files[:2], work.series[0].halves, images[0], strict=True):
        wanted = as_reconstructed(stack, files[2], **said)
        np.testing.assert_allclose(seen * half.divisor, wanted, rtol=1e-5, atol=1e-5)
        assert not np.allclose(as_reconstructed(stack, files[2]), wanted, atol=0.1)
        assert half.ctf_state == "flipped"
    assert "Note on ts_EVN: CTF: phases flipped in strips along the tilt axis, defocus 1.95 to" in result.stderr
    assert result.stderr.count("ts_EVN: Defocus hand: ") == 1
    assert "dose weighting: images after 0 to 45 e/Å² (--dose ts.mdoc), 200 kV" in result.stderr
    (told,) = work.card["series"]
    assert told["name"] == "ts_EVN"
    assert (told["corrections"]["ctf"]["how"], told["corrections"]["ctf"]["defocus_hand"]) == ("flip", -1)
    assert told["corrections"]["dose_weight"]["from"] == "--dose ts.mdoc"
    # A run that goes on with other corrections would go on with other images.
    assert work.inputs["0.ctf"] == "flip"
    assert {"0.0.ctf", "0.0.dose"} <= set(work.inputs)


def test_odd_and_even_tilts_have_the_defocus_and_dose_of_their_own_images(tiny, tmp_path, gathered):  # noqa: F811
    stack, angles = series(tmp_path / "one")
    defocus(tmp_path / "one" / "ts_ctf.txt")
    mdoc(tmp_path / "one" / "ts.mrc.mdoc")
    result = adapt(tmp_path, stack, angles, "--ctf", "flip", "--dose-weight", "--defocus-hand", 1)
    assert result.exit_code == 130, result.output
    ((work, images),) = gathered
    wanted = as_reconstructed(stack, angles, ctf="flip", dose_weight=True, defocus_hand=1)
    for half, seen in zip(work.series[0].halves, images[0], strict=True):
        np.testing.assert_allclose(seen * half.divisor, wanted[half.tilts], rtol=1e-5, atol=1e-5)


def test_series_of_a_list_and_beside_their_stacks_have_files_of_their_own(tiny, tmp_path, gathered):  # noqa: F811
    lines = ["tilts,angles,ctf_file"]
    for number in (0, 1):
        folder = tmp_path / f"ts_{number}"
        series(folder, seed=number)
        defocus(folder / "table.txt", [(u + number, v + number, a) for u, v, a in ROWS])
        lines.append(f"ts_{number}/ts.mrc,ts_{number}/ts.tlt,ts_{number}/table.txt")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    result = adapt(tmp_path, tmp_path / "list.csv", "--ctf", "wiener", "--defocus-hand", 1)
    assert result.exit_code == 130, result.output
    for number in (0, 1):
        (tmp_path / f"ts_{number}" / "table.txt").rename(tmp_path / f"ts_{number}" / "ts_ctf.txt")
    both = [tmp_path / f"ts_{number}" / f"ts.{ending}" for number in (0, 1) for ending in ("mrc", "tlt")]
    assert adapt(tmp_path, *both, "--ctf", "wiener", "--defocus-hand", 1).exit_code == 130
    for work, _ in gathered:
        assert [half.ctf_state for one in work.series for half in one.halves] == ["wiener"] * 4
    (_, first), (_, second) = gathered
    for one, other in zip(np.array(first).ravel(), np.array(second).ravel(), strict=True):
        assert one == other
    assert not np.array_equal(first[0][0], first[1][0])


def test_relions_list_tells_defocus_and_dose_of_each_series(tiny, tmp_path, gathered):  # noqa: F811
    names = ("MicrographName", "TomoYTilt", "TomoZRot", "TomoXShiftAngst", "TomoYShiftAngst")
    names += ("DefocusU", "DefocusV", "DefocusAngle", "MicrographPreExposure")
    head = "".join(f"_rln{name} #{n}\n" for n, name in enumerate(names, 1))
    rows = []
    for number in (1, 2):
        series(tmp_path, f"TS_{number}", number)
        lines = [
            f"{n}@TS_{number}.mrc {angle} 0 0 0 {1e4 * (u + number):.0f} {1e4 * (v + number):.0f} {turn} {e + number}\n"
            for n, (angle, (u, v, turn), e) in enumerate(zip(ANGLES, ROWS, DOSES, strict=True), 1)
        ]
        (tmp_path / f"TS_{number}.star").write_text(f"data_TS_{number}\nloop_\n{head}{''.join(lines)}")
        rows.append(f"TS_{number} TS_{number}.star 10.0\n")
    facts = ("TomoName", "TomoTiltSeriesStarFile", "TomoTiltSeriesPixelSize")
    head = "".join(f"_rln{name} #{n}\n" for n, name in enumerate(facts, 1))
    (tmp_path / "tilt_series.star").write_text(f"data_global\nloop_\n{head}{''.join(rows)}")
    result = adapt(tmp_path, tmp_path / "tilt_series.star", "--ctf", "flip", "--dose-weight")
    assert result.exit_code == 130, result.output
    ((work, _),) = gathered
    assert [one["name"] for one in work.card["series"]] == ["TS_1", "TS_2"]
    said = " ".join(result.stderr.split())
    for number, told in enumerate(work.card["series"], 1):
        assert told["corrections"]["ctf"]["file"] == "tilt_series.star"
        assert f"Note on TS_{number}: dose weighting: images after {number} to {45 + number} e/Å²" in said
        assert (
            f"Note on TS_{number}: CTF: phases flipped in strips along the tilt axis, defocus {1.95 + number:.3g} to"
            in said
        )


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("--ctf", "flip"), "the defocus of ts.mrc is not known"),
        (("--dose-weight",), "--dose-weight: no file tells the doses"),
        (("--defocus-hand", 1), "--defocus-hand is for --ctf flip, multiply or wiener"),
        (("--voltage", 200), "--voltage is for --ctf flip, multiply or wiener, or --dose-weight"),
        (("--ctf", "flip", "--ctf-state", "flipped", "--ctf-file", "table.txt"), "correcting twice spoils it"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(words, fragment, tmp_path):
    stack, angles = series(tmp_path / "one")
    words = [defocus(tmp_path / word) if word == "table.txt" else word for word in words]
    result = adapt(tmp_path, stack, angles, *words)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
    assert fragment in result.stderr


@pytest.mark.parametrize("name", ["ctf_file", "dose"])
def test_a_file_of_one_series_is_not_taken_for_several(name, tmp_path):
    both = [path for number in (0, 1) for path in series(tmp_path / str(number), seed=number)]
    result = adapt(tmp_path, *both, "--ctf", "flip", f"--{name.replace('_', '-')}", tmp_path / "table.txt")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
    assert "tells of one series, but 2 are given; leave the file of each beside its stack" in result.stderr
    assert f"a column {name}" in result.stderr


def test_series_of_one_name_and_other_pixels_are_told_apart(tiny, tmp_path, gathered):  # noqa: F811
    both = [path for n, size in enumerate((5.0, 10.0)) for path in series(tmp_path / f"{size:g}", "TS_001", n, size)]
    result = adapt(tmp_path, *both)
    assert result.exit_code == 130, result.output
    assert "voxels of different sizes (5 Å: 5/TS_001; 10 Å: 10/TS_001)" in " ".join(result.stderr.split())
    assert "10/TS_001: Contrast: " in result.stderr
    ((work, _),) = gathered
    assert [one.name for one in work.series] == ["5/TS_001", "10/TS_001"]
    assert [one["voxel_size_angstrom"] for one in work.card["series"]] == [5.0, 10.0]
    alike = adapt(tmp_path, *both, "--pixel-size", 5)
    assert "different sizes" not in alike.stderr


def test_nothing_is_learned_from_images_that_change_while_they_are_prepared(tiny, tmp_path, gathered, monkeypatch):  # noqa: F811
    stack, angles = series(tmp_path)
    prepare = gathering.prepare_halves

    def touched(*arguments):
        os.utime(stack, ns=(1, 1))
        return prepare(*arguments)

    monkeypatch.setattr(gathering, "prepare_halves", touched)
    result = adapt(tmp_path, stack, angles)
    assert result.exit_code == 2
    assert f"the input {stack} changed while the run read it" in result.stderr
    assert not gathered


def test_names_are_the_shortest_that_differ():
    assert distinct_names([Path("a/x/ts.mrc"), Path("b/x/ts.mrc")]) == ["a/x/ts", "b/x/ts"]
    assert distinct_names([Path("a/ts.mrc"), Path("a/ts.st"), Path("a/one.mrc")]) == ["ts.mrc", "ts.st", "one"]
    assert distinct_names([Path("ts.mrc")]) == ["ts"]
    assert distinct_names([Path("/ts.mrc"), Path("/a/ts.mrc")])[1] == "a/ts"
    assert len(distinct_names([Path("/a/ts.mrc"), Path("/a/ts.mrc")])) == 2


def test_tables_of_single_images_stand_alone_and_are_series_of_their_own(tiny, tmp_path, gathered):  # noqa: F811
    """Nothing takes the second for the angles of the first."""
    names = ("MicrographName", "TomoYTilt", "TomoZRot", "TomoXShiftAngst", "TomoYShiftAngst")
    head = "".join(f"_rln{name} #{n}\n" for n, name in enumerate(names, 1))
    tables = []
    for number in (1, 2):
        stack, _ = series(tmp_path, f"TS_{number}", number)
        single = [tmp_path / f"{number}_{image:02d}.mrc" for image in range(len(ANGLES))]
        for file, image in zip(single, voxels(stack), strict=True):
            write_stack(file, image[None], 10.0, "an image")
        rows = "".join(f"{file.name} {angle} 0 0 0\n" for file, angle in zip(single, ANGLES, strict=True))
        tables.append(tmp_path / f"TS_{number}.star")
        tables[-1].write_text(f"data_TS_{number}\nloop_\n{head}{rows}")
    result = adapt(tmp_path, *tables)
    assert result.exit_code == 130, result.output
    for table in tables:
        assert adapt(tmp_path, table.with_suffix(".mrc"), "--star", table).exit_code == 130
    (work, of_tables), *of_stacks = gathered
    assert [one["name"] for one in work.card["series"]] == ["TS_1", "TS_2"]
    for found, (_, (wanted,)) in zip(of_tables, of_stacks, strict=True):
        assert np.array_equal(found, wanted)


def test_a_gradient_across_the_images_is_taken_out_and_told(tiny, tmp_path, gathered):  # noqa: F811
    stack, angles = series(tmp_path)
    images = voxels(stack)
    steep = images + 3 * images.std() * np.linspace(-1, 1, images.shape[2], dtype=np.float32)
    result = adapt(tmp_path, *write_series(tmp_path, steep, ANGLES, "steep", 10.0))
    assert "Note on steep: Uneven images: " in result.stderr
    assert "Uneven images" not in adapt(tmp_path, stack, angles).stderr
    (_, (found,)), (_, (wanted,)) = gathered
    assert np.corrcoef(np.ravel(found), np.ravel(wanted))[0, 1] > 0.95  # 0.5 with the gradient


def test_images_left_out_are_those_of_one_stack(tiny, tmp_path, gathered):  # noqa: F811
    both = [word for number in (1, 2) for word in series(tmp_path, f"TS_{number}", number)]
    refused = adapt(tmp_path, *both, "--exclude", "2")
    assert refused.exit_code == 2
    assert "counts the images of one stack, but 2 series are given" in refused.stderr
    assert adapt(tmp_path, *both[:2], "--exclude", "2").exit_code == 130
    ((_, images),) = gathered
    assert sum(map(len, images[0])) == len(ANGLES) - 1
