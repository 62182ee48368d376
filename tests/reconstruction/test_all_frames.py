"""A network's volume of all frames, where a user has those of the even and of the odd ones only."""

from __future__ import annotations

import json

import numpy as np
import pytest
from plain_mrc import new_mrc
from test_contrast import TILTS, matter
from tiny_series import made, refused, run, voxels, write_series

from cryolithe.cli import halves
from cryolithe.formats import read_mrc
from cryolithe.formats.stacks.mean_images import MeanImages
from cryolithe.formats.volumes.pages import release_pages

DRAFT = ("--model", "draft", "--thickness", 16, "--device", "cpu")


@pytest.fixture
def series(tmp_path):
    """Stacks of even and odd frames, the former of 16 bits, and of all of them."""
    rng, clean = np.random.default_rng(3), matter(13, snr_db=60)
    scale = 1000 / np.abs(clean).max()
    noise = 2 * clean.std() * rng.standard_normal((2, *clean.shape))
    even, odd = np.rint(scale * (clean + noise[0])).astype(np.int16), (scale * (clean + noise[1])).astype(np.float32)
    paths = [write_series(tmp_path, stack, TILTS, name=name) for name, stack in (("ts_EVN", even), ("ts_ODD", odd))]
    write_series(tmp_path, (even.astype(np.float32) + odd) / 2, TILTS, name="all")
    return tmp_path, ("--even", paths[0][0], "--odd", paths[1][0], paths[0][1])


def test_the_mean_of_two_stacks_is_made_image_by_image(tmp_path):
    rng = np.random.default_rng(0)
    even, odd = rng.integers(-30_000, 30_000, (3, 5, 6)).astype(np.int16), rng.standard_normal((3, 5, 6))
    for name, stack in (("e", even), ("o", odd.astype(np.float32))):
        with new_mrc(tmp_path / f"{name}.mrc", stack):
            pass
    images = MeanImages(*(read_mrc(tmp_path / f"{name}.mrc").data for name in "eo"))
    assert images.shape == (3, 5, 6)
    assert images.ndim == 3
    np.testing.assert_allclose(images[1], (even[1] + odd[1]) / 2, rtol=1e-5, atol=1e-3)
    release_pages(images)
    np.testing.assert_allclose(images[2], (even[2] + odd[2]) / 2, rtol=1e-5, atol=1e-3)
    with pytest.raises(ValueError, match="no mean"):
        MeanImages(even, odd[:2])


@pytest.mark.slow
def test_it_is_what_a_stack_of_all_frames_gives(series):
    folder, given = series
    said = made(*given, *DRAFT, "--contrast", "bright")
    assert "ts_rec.mrc: of all frames; of its halves" in said.stdout
    made(folder / "all.mrc", folder / "all.tlt", *DRAFT, "--contrast", "bright", "-o", folder / "whole.mrc")
    found, wanted, even, odd = (voxels(folder / f"{n}.mrc") for n in ("ts_rec", "whole", "ts_rec_EVN", "ts_rec_ODD"))
    np.testing.assert_allclose(found, wanted, atol=2e-3 * wanted.std())
    assert np.abs(found - (even + odd) / 2).std() > 0.05 * wanted.std()
    record = json.loads((folder / "ts_rec.json").read_text())
    assert record["volume"]["made"] == "all frames together"
    assert set(record["inputs"]) == {"even", "odd", "even tilts", "odd tilts", "angles"}
    assert len(record["halves"]) == 2
    assert (folder / "ts_rec.png").is_file()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("ts_rec*")}
    assert "already done" in made(*given, *DRAFT, "--contrast", "bright").stdout
    assert {path: path.stat().st_mtime_ns for path in folder.glob("ts_rec*")} == before
    refused(folder, (*given, *DRAFT, "--contrast", "dark"), "exists")
    assert "whole" not in run(*given, *DRAFT, "--contrast", "bright", "--overwrite").stdout


@pytest.mark.slow
def test_a_run_that_is_cut_off_between_the_volumes_and_their_record_goes_on(series, monkeypatch):
    folder, given = series

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(halves, "write_agreement", interrupted)
        run(*given, *DRAFT)
    assert "halves" not in json.loads((folder / "ts_rec.json").read_text())
    before = {path: path.stat().st_mtime_ns for path in folder.glob("ts_rec*.mrc")}
    assert len(before) == 3
    assert "of all frames" in made(*given, *DRAFT).stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "halves" in json.loads((folder / "ts_rec.json").read_text())
    assert not list(folder.glob("*.partial"))


def test_the_plan_tells_of_all_three(series):
    folder, given = series
    said = made(*given, *DRAFT, "--dry-run").stdout
    assert [name for name in ("ts_rec_EVN.mrc:", "ts_rec_ODD.mrc:", "ts_rec.mrc:") if name in said.replace("/", " ")]
    assert said.count(".mrc: Plan") + said.count("Plan:") >= 3
    assert not list(folder.glob("ts_rec*"))
