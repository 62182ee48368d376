"""Local alignments of other programs, through the real command: what they bent comes out straight."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bent_projects import (
    VOLUME,
    aretomo_place,
    errors,
    imod_place,
    make_bent,
    relion_place,
    warp_place,
    write_aretomo,
    write_imod,
    write_relion,
    write_warp,
)
from tiny_series import made, voxels

FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", VOLUME[0])
STRAIGHT_PX, BENT_PX = 0.2, 0.8


def aretomo(folder):
    project = make_bent(folder, aretomo_place)
    return project, ("--aln", write_aretomo(project))


def relion(kind):
    def write(folder):
        project = make_bent(folder, relion_place(kind))
        return project, ("--star", write_relion(project, kind))

    return write


def warp(moves, warps):
    def write(folder):
        project = make_bent(folder, warp_place(moves, warps))
        return project, ("--warp", write_warp(project, moves, warps))

    return write


def imod(folder):
    project = make_bent(folder, imod_place)
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


@pytest.mark.parametrize("program", PROJECTS)
def test_what_was_bent_comes_out_straight(program, tmp_path):
    project, flags = PROJECTS[program](tmp_path / "raw")
    result = made(project.stack, *flags, "-o", tmp_path / "v.mrc", *FBP)
    print(result.stderr)
    made(project.stack, *flags, "-o", tmp_path / "w.mrc", *FBP, "--no-local-alignment")
    print(program, np.abs(errors(voxels(tmp_path / "v.mrc"))).max(0), np.abs(errors(voxels(tmp_path / "w.mrc"))).max(0))
    print(json.loads((tmp_path / "v.json").read_text())["geometry"]["local_alignment"])
    assert np.abs(errors(voxels(tmp_path / "v.mrc"))).max() < STRAIGHT_PX
    assert np.abs(errors(voxels(tmp_path / "w.mrc"))).max() > BENT_PX
