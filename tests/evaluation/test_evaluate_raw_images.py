"""``cryolithe evaluate`` on raw stacks: images are aligned as the volume's record tells, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bent_projects import AXIS_DEG as BENT_AXIS_DEG
from bent_projects import aretomo_place, imod_place, make_bent, relion_place, warp_place
from bent_projects import write_aretomo as bent_aretomo
from bent_projects import write_imod as bent_imod
from bent_projects import write_relion as bent_relion
from bent_projects import write_warp as bent_warp
from command import call, good, refusal_of
from plain_mrc import new_mrc
from projects import make_project, write_imod
from scipy.ndimage import gaussian_filter

from cryolithe.evaluation.reprojection import _upright
from cryolithe.files.hashing import file_sha256
from cryolithe.formats import read_mrc
from cryolithe.formats.record import source_of

FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", 32)
LEFT_OUT = (6, 13)


def aretomo(folder):
    project = make_bent(folder, aretomo_place)
    return project, ("--aln", bent_aretomo(project))


def relion(folder):
    project = make_bent(folder, relion_place("spline"))
    return project, ("--star", bent_relion(project, "spline"))


def warp(folder):
    project = make_bent(folder, warp_place(True, True))
    return project, ("--warp", bent_warp(project, True, True))


def imod(folder):
    project = make_bent(folder, imod_place)
    newst, tilt = bent_imod(project)
    return project, ("--newst-com", newst, "--tilt-com", tilt)


def tilted(folder):
    """A specimen that is tilted about x, moved along x and z, and not bent."""
    project = make_project(folder, x_tilt_deg=-8.0)
    xf, _, tilt = write_imod(project, tilt_lines=("XAXISTILT -8.0", "SHIFT 3.0 2.0"))
    return project, ("--xf", xf, "--tilt-com", tilt, project.folder / "ts.tlt")


PROJECTS = {"AreTomo": aretomo, "RELION": relion, "Warp": warp, "IMOD": imod, "tilted": tilted}


def scores(volume, stack, *words):
    """What the command says of the comparison with images, and its notes."""
    report = volume.with_name("report.html")
    good("evaluate", volume, "--tilts", stack, "--angles", stack.with_suffix(".tlt"), "-o", report, *words)
    told = json.loads(report.with_suffix(".json").read_text())["evaluation"]
    return told["reprojection"], told["notes"]


def reconstructed(tmp_path, program, *words):
    project, flags = PROJECTS[program](tmp_path / "raw")
    volume = tmp_path / "v.mrc"
    good("reconstruct", project.stack, *flags, *FBP, "--exclude", ",".join(map(str, LEFT_OUT)), "-o", volume, *words)
    return project, volume


@pytest.mark.slow
@pytest.mark.parametrize("program", PROJECTS)
def test_raw_images_that_were_left_out_are_aligned_before_they_are_compared(program, tmp_path):
    project, volume = reconstructed(tmp_path, program)
    found, notes = scores(volume, project.stack)
    assert found["held_out"] is True
    assert len(found["angles_deg"]) == len(LEFT_OUT)  # and not the dark ones, which no alignment has
    assert min(found["correlation"]) > 0.8
    assert any("ts.mrc is aligned" in note for note in notes)
    if program == "tilted":
        return  # its raw images have another shape
    # As they are, they are those of another specimen.
    volume.with_suffix(".json").unlink()
    assert max(scores(volume, project.stack, "--overwrite")[0]["correlation"]) < 0.5


def test_a_tilt_axis_that_was_turned_is_turned_for_the_comparison_too(tmp_path):
    project = make_bent(tmp_path / "raw", lambda number, point, shift: aretomo_place(number, point, 0 * shift))
    volume, angles = tmp_path / "v.mrc", project.folder / "ts.tlt"
    words = ("--tilt-axis", BENT_AXIS_DEG, "--exclude", 6, "--bin", 2)
    good("reconstruct", project.stack, angles, *FBP, *words, "-o", volume)
    turned = scores(volume, project.stack)[0]["correlation"][0]
    # An image of 2 x 2 binned pixels is compared in the volume's.
    assert turned > 0.5
    volume.with_suffix(".json").unlink()
    assert scores(volume, project.stack, "--held-out", "6", "--overwrite")[0]["correlation"][0] < turned - 0.1


def test_the_files_are_found_where_they_lie_now_and_only_those_are_taken(tmp_path):
    project, volume = reconstructed(tmp_path, "AreTomo")
    there = scores(volume, project.stack)[0]["correlation"]
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "raw", moved)
    assert scores(volume, moved / "ts.mrc", "--overwrite")[0]["correlation"] == there
    aln = moved / "ts.aln"
    aln.write_text(aln.read_text().replace("1.00000", "1.01000"))
    words = ("evaluate", volume, "--tilts", moved / "ts.mrc", "--angles", moved / "ts.tlt", "--overwrite")
    assert "ts.aln is not the one it was" in refusal_of(call(*words))
    aln.unlink()
    told = refusal_of(call(*words))
    assert "by ts.aln, which is not found" in told
    assert "or compare with a stack that is aligned" in told


def test_the_other_half_of_the_frames_is_aligned_as_this_one(tmp_path):
    project, flags = PROJECTS["AreTomo"](tmp_path / "raw")
    images = np.array(read_mrc(project.stack).data)
    stacks = [project.folder / name for name in ("ts_EVN.mrc", "ts_ODD.mrc")]
    for seed, stack in enumerate(stacks):
        noise = np.random.default_rng(seed).standard_normal(images.shape)
        with new_mrc(stack, (images + 0.05 * noise).astype(np.float32)) as file:
            file.set_image_stack()
            file.voxel_size = 4.0
        shutil.copy(project.folder / "ts.tlt", stack.with_suffix(".tlt"))
    volume = tmp_path / "v.mrc"
    good("reconstruct", stacks[0], *flags, *FBP, "-o", volume)
    found, notes = scores(volume, stacks[1])
    assert found["use"] == "other frames"
    assert np.mean(found["correlation"]) > 0.7
    assert any("ts_ODD.mrc is aligned (ts.aln) in memory" in note for note in notes)


@pytest.mark.parametrize("how", ["samba", "n2n", "n2n of halves"])
def test_images_of_a_denoised_volume_are_aligned_as_those_of_what_was_denoised(how, tmp_path):
    project, volume = reconstructed(tmp_path, "AreTomo")
    there, _ = scores(volume, project.stack)
    source = source_of([volume] if how != "n2n of halves" else [volume, volume])
    record = json.loads(volume.with_suffix(".json").read_text())
    volume.with_suffix(".json").write_text(json.dumps({**record, "inputs": {}, "settings": {}, "source": source}))
    found, notes = scores(volume, project.stack, "--overwrite")
    assert found["correlation"] == there["correlation"]
    assert any("ts.mrc is aligned" in note for note in notes)
    # Records of the version before kept the files alone.
    older = {**record, "settings": None, "source": {"inputs": source["inputs"]}}
    volume.with_suffix(".json").write_text(json.dumps(older))
    words = ("evaluate", volume, "--tilts", project.stack, "--angles", project.folder / "ts.tlt", "--overwrite")
    assert "does not tell how images of ts.mrc were aligned" in refusal_of(call(*words))


@pytest.mark.slow
def test_the_record_of_a_denoised_volume_keeps_how_images_were_aligned(tmp_path):
    project, volume = reconstructed(tmp_path, "AreTomo")
    there, _ = scores(volume, project.stack)
    out = tmp_path / "v_n2n.mrc"
    good("denoise", volume, "--method", "n2n", "-o", out, "--device", "cpu")
    found, notes = scores(out, project.stack, "--overwrite")
    assert found["angles_deg"] == there["angles_deg"]
    assert found["held_out"] is True
    assert min(found["correlation"]) > 0.4  # 0.14 of unaligned ones
    assert any("ts.mrc is aligned" in note for note in notes)


def test_a_file_that_is_gone_is_told_even_where_nothing_needs_it(tmp_path):
    """What the .mdoc told of the microscope was recorded, and would be assumed without it."""
    project, volume = reconstructed(tmp_path, "AreTomo")
    beside = project.folder / "ts.mdoc"
    beside.write_text("Voltage = 200\n")
    record = json.loads(volume.with_suffix(".json").read_text())
    record["inputs"]["microscope"] = {"path": str(beside), "sha256": file_sha256(beside)}
    volume.with_suffix(".json").write_text(json.dumps(record))
    beside.unlink()
    words = ("evaluate", volume, "--tilts", project.stack, "--angles", project.folder / "ts.tlt")
    assert "by ts.mdoc, which is not found" in refusal_of(call(*words))


def test_named_images_that_the_alignment_leaves_out_are_told(tmp_path):
    project, volume = reconstructed(tmp_path, "AreTomo")
    found, notes = scores(volume, project.stack, "--held-out", f"1,{LEFT_OUT[0]}")
    assert len(found["correlation"]) == 1
    assert any("the alignment leaves out 1" in note for note in notes)


def test_a_volume_that_was_turned_may_have_any_mean():
    volume = gaussian_filter(np.random.default_rng(0).standard_normal((20, 40, 30)), 2).astype(np.float32)
    np.testing.assert_allclose(_upright(volume + 7, 8.0), _upright(volume, 8.0), atol=1e-5)


def test_a_stack_of_somebody_else_is_taken_as_it_is_and_that_is_told(tmp_path):
    project, volume = reconstructed(tmp_path, "AreTomo")
    other = Path(shutil.copy(project.stack, tmp_path / "other.mrc"))
    with other.open("ab") as file:
        file.write(b"\0" * 4)
    shutil.copy(project.folder / "ts.tlt", tmp_path / "other.tlt")
    _, notes = scores(volume, other)
    assert any("these are others: they are taken for aligned" in note for note in notes)
