"""`--exclude`: what is left is made as if the images had never been in the stack; files of the whole stack stay."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from command import good
from projects import make_project, write_aretomo
from test_known_command import DOSES, mdoc
from tiny_series import ANGLES, made, noise, run, voxels, write_series

import cryolithe

OUT = (1, 4, 5)  # from 0
LEFT = [n for n in range(len(ANGLES)) if n not in OUT]
WORDS = ("--exclude", "2, 5-6")
FBP = ("--method", "fbp", "--thickness", 16, "--device", "cpu")


@pytest.mark.parametrize("method", [FBP, ("--model", "draft", *FBP[2:])])
def test_the_volume_is_that_of_a_stack_without_these_images(tmp_path, method):
    images = noise()
    shorter = write_series(tmp_path, images[LEFT], [ANGLES[n] for n in LEFT], "short")
    made(*shorter, *method, "--contrast", "dark", "-o", tmp_path / "wanted.mrc")
    images[list(OUT)] = 0  # a blank image is refused unless it is left out
    stack = write_series(tmp_path, images, ANGLES)
    found = made(*stack, *method, "--contrast", "dark", *WORDS, "-o", tmp_path / "found.mrc")
    assert np.array_equal(voxels(tmp_path / "found.mrc"), voxels(tmp_path / "wanted.mrc"))
    assert f"left out: 2, 5, 6 of {len(ANGLES)}" in found.stderr
    assert json.loads((tmp_path / "found.json").read_text())["settings"]["exclude"] == "2, 5-6"


def test_an_alignment_of_the_whole_stack_leaves_out_these_too(tmp_path):
    project = make_project(tmp_path)
    fbp = (project.stack, "--method", "fbp", "--thickness", 16, "--aln")
    made(*fbp, write_aretomo(project, dark=()), "--exclude", "3", "-o", tmp_path / "found.mrc")
    made(*fbp, write_aretomo(project, dark=(2,)), "-o", tmp_path / "wanted.mrc")
    assert np.array_equal(voxels(tmp_path / "found.mrc"), voxels(tmp_path / "wanted.mrc"))


def test_doses_are_those_that_the_images_had(tmp_path):
    stack = write_series(tmp_path)
    weigh = ("--dose-weight", "--dose", mdoc(tmp_path, DOSES), "--voltage", 300)
    made(*stack, *FBP, *weigh, *WORDS, "-o", tmp_path / "found.mrc")
    told = json.loads((tmp_path / "found.json").read_text())["method"]["corrections"]["dose_weight"]["exposures"]
    assert told == pytest.approx([DOSES[n] for n in LEFT])


def test_the_library_and_compare_leave_them_out(tmp_path):
    images = noise()
    wanted = cryolithe.fbp(images[LEFT], [ANGLES[n] for n in LEFT], thickness=16)
    found = cryolithe.fbp(images, ANGLES, thickness=16, exclude="2,5,6")
    assert np.array_equal(found.voxels, wanted.voxels)
    page = tmp_path / "page.html"
    words = ("compare", *write_series(tmp_path), *WORDS, "--methods", "fbp", *FBP[2:], "-o", page)
    good(*words)
    halves = [json.loads((tmp_path / "page.work" / "fbp" / f"half{n}.json").read_text()) for n in (1, 2)]
    parts = [[n + 1 for n in LEFT[first::2]] for first in (0, 1)]
    assert [half["geometry"]["part"] for half in halves] == parts


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("1-10", "one image alone tells nothing of depth, it is smeared along its beam; name fewer in --exclude"),
        ("1-9", "a range of 10° where tilt series have 60° to 140°"),
        ("3-7", "a second missing wedge of 60°"),
        ("1,11", ""),
    ],
)
def test_what_is_left_is_warned_of(tmp_path, text, warned):
    told = made(*write_series(tmp_path), *FBP, "--exclude", text, "-o", tmp_path / "v.mrc").stderr
    assert warned in told
    assert ("Warning: " in told) == bool(warned)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        cryolithe.fbp(noise(), ANGLES, 5.0, thickness=16, exclude=text)
    assert [warned in str(one.message) for one in heard] == [True] * bool(warned)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{len(ANGLES) + 1}", f"has no image {len(ANGLES) + 1}; expected numbers from 1 to {len(ANGLES)}"),
        (f"1-{len(ANGLES)}", "leaves no image"),
        ("0", "expected numbers of images from 1, such as 3,17-19, found '0'"),
    ],
)
def test_what_cannot_be_left_out_is_refused(tmp_path, text, told):
    refused = run(*write_series(tmp_path), *FBP, "--exclude", text)
    assert refused.exit_code == 2
    assert told in refused.stderr
    assert refused.stderr.count("\n") == 1
