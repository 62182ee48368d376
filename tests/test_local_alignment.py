"""Local alignments of other programs, through the real command: what they bent comes out straight."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bent_projects import (
    ANGLES,
    DARK,
    N,
    PIXEL,
    SHAPE,
    VOLUME,
    aretomo_place,
    errors,
    imod_place,
    make_bent,
    relion_place,
    seen,
    warp_place,
    write_aretomo,
    write_imod,
    write_relion,
    write_warp,
)
from click.testing import CliRunner
from projects import turn
from tiny_series import made, refused, voxels, write_model

from cryolithe.cli import main

FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", VOLUME[0])
STRAIGHT_PX, BENT_PX = 0.2, 0.7
NO_LOCAL = "--no-local-alignment"


def aretomo(folder, scale=1):
    project = make_bent(folder, aretomo_place, scale)
    return project, ("--aln", write_aretomo(project))


def relion(kind):
    def write(folder, scale=1):
        project = make_bent(folder, relion_place(kind), scale)
        return project, ("--star", write_relion(project, kind))

    return write


def warp(moves, warps):
    def write(folder, scale=1):
        project = make_bent(folder, warp_place(moves, warps), scale)
        return project, ("--warp", write_warp(project, moves, warps))

    return write


def imod(folder, scale=1):
    project = make_bent(folder, imod_place, scale)
    newst, tilt = write_imod(project)
    return project, ("--newst-com", newst, "--tilt-com", tilt)


PROJECTS = {
    "AreTomo": aretomo,
    "RELION linear": relion("linear"),
    "RELION spline": relion("spline"),
    "RELION Fourier": relion("Fourier"),
    "Warp movement": warp(True, False),
    "Warp volume": warp(False, True),
    "Warp both": warp(True, True),
    "IMOD": imod,
}
FILES = {"AreTomo": "ts.aln", "RELION": "ts.star", "Warp": "ts.xml", "IMOD": "tslocal.xf"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The projects, each made once; a test that changes files makes its own."""
    made_so_far = {}

    def get(program):
        if program not in made_so_far:
            made_so_far[program] = PROJECTS[program](tmp_path_factory.mktemp("bent") / "raw")
        return made_so_far[program]

    return get


def off_px(volume):
    return np.abs(errors(volume)).max()


def local_record(path):
    return json.loads(path.with_suffix(".json").read_text())["geometry"]["local_alignment"]


@pytest.mark.slow
@pytest.mark.parametrize("program", PROJECTS)
def test_what_was_bent_comes_out_straight(program, written, tmp_path):
    project, flags = written(program)
    result = made(project.stack, *flags, "-o", tmp_path / "v.mrc", *FBP)
    assert off_px(voxels(tmp_path / "v.mrc")) < STRAIGHT_PX
    name = FILES[program.split()[0]]
    used = local_record(tmp_path / "v.mrc")
    assert used["file"] == name
    assert len(used["sections"]) == N - len(DARK)
    assert 2 < used["largest_shift_px"] < 10
    assert f"local shifts of up to {used['largest_shift_px']:.2f} pixels undone ({name})" in result.stderr
    assert "not applied" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("program", PROJECTS)
def test_without_the_local_part_it_is_off(program, written, tmp_path):
    project, flags = written(program)
    result = made(project.stack, *flags, "-o", tmp_path / "w.mrc", *FBP, NO_LOCAL)
    assert off_px(voxels(tmp_path / "w.mrc")) > BENT_PX
    assert local_record(tmp_path / "w.mrc") is None
    assert "are left out (--no-local-alignment)" in result.stderr
