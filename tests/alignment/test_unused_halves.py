"""Halves of a series whose dark images are the same in both: no alignment uses them, and nobody judges them."""

from __future__ import annotations

import numpy as np
import pytest
from command import call, refusal_of
from plain_mrc import new_mrc
from projects import DARK, PIXEL, VOLUME, make_project, write_aretomo, write_imod, write_relion, write_warp
from tiny_series import voxels

FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", VOLUME[0])
EXCLUDED = ",".join(str(section + 1) for section in DARK)


def alignment(project, program):
    if program == "aretomo":
        return ["--aln", write_aretomo(project)]
    if program == "imod":
        _, newst, tilt = write_imod(project)
        return ["--newst-com", newst, "--tilt-com", tilt]
    if program == "relion":
        return ["--star", write_relion(project)[1]]
    return ["--warp", write_warp(project)] if program == "warp" else [project.tlt, "--exclude", EXCLUDED]


@pytest.fixture
def project(tmp_path):
    project = make_project(tmp_path / "raw")
    rng, images = np.random.default_rng(1), voxels(project.stack)
    for name in ("even", "odd"):
        half = images + 0.2 * rng.standard_normal(images.shape).astype(np.float32)
        half[list(DARK)] = images[list(DARK)]
        with new_mrc(project.folder / f"{name}.mrc", half.astype(np.float32)) as file:
            file.set_image_stack()
            file.voxel_size = PIXEL
    return project


@pytest.mark.parametrize("program", ["aretomo", "imod", "relion", "warp", "exclude"])
@pytest.mark.parametrize("dry", [True, False])
def test_images_that_an_alignment_leaves_out_may_be_the_same(program, dry, project, tmp_path):
    words = ["--even", project.folder / "even.mrc", "--odd", project.folder / "odd.mrc", *alignment(project, program)]
    made = call("reconstruct", *words, *FBP, "-o", tmp_path / "v.mrc", *(["--dry-run"] if dry else []))
    assert made.exit_code == 0, made.output
    assert "same noise" not in made.output


def test_those_that_it_uses_may_not(project, tmp_path):
    words = ["--even", project.folder / "even.mrc", "--odd", project.folder / "odd.mrc"]
    aligned = ["--aln", write_aretomo(project, dark=DARK[:1])]
    said = refusal_of(call("reconstruct", *words, *aligned, *FBP, "-o", tmp_path / "v.mrc", "--dry-run"))
    assert f"have the same noise in image {DARK[1] + 1}:" in said


@pytest.mark.parametrize("command", ["compare", "adapt"])
def test_other_commands_on_halves_do_so_too(command, project, tmp_path):
    words = ["--even", project.folder / "even.mrc", "--odd", project.folder / "odd.mrc"]
    last = {
        "compare": ["-o", tmp_path / "p.html", "--dry-run"],
        # It ends when the halves have been looked at.
        "adapt": ["-o", tmp_path / "m.safetensors", "--molecules", tmp_path / "none"],
    }
    said = call(command, *words, *alignment(project, "aretomo"), *last[command])
    assert "same noise" not in said.output, said.output
    assert "No such option" not in said.output
    without = call(command, *words, project.tlt, *last[command])
    assert f"have the same noise in images {DARK[0] + 1}, {DARK[1] + 1}" in without.output
