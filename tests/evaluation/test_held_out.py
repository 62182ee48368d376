"""Which images a volume was made from: its record decides, through alignments, binning, halves and denoising."""

from __future__ import annotations

import json
import shutil

import mrcfile
import numpy as np
import pytest
from command import call
from projects import make_project, write_aretomo
from tiny_series import ANGLES, SHAPE, bead_images, made, noise, voxels, write_model, write_series

from cryolithe.formats import read_volume, write_stack

FBP = ("--method", "fbp", "--thickness", 16, "--device", "cpu")


def evaluate(*words):
    return call("evaluate", *words, "--overwrite")


def judged(volume, stack, tlt, *words):
    """What an evaluation says of the images, its warnings, and what the terminal shows."""
    result = evaluate(volume, "--tilts", stack, "--angles", tlt, "-o", volume.with_name("r.html"), *words)
    assert result.exit_code == 0, result.output
    found = json.loads(volume.with_name("r.json").read_text())["evaluation"]
    return found["reprojection"], found, result


def images():
    return noise() * 0.3 + bead_images(SHAPE, (6.0, 4.0, 3.0), sigma_px=3.0)


@pytest.fixture
def series(tmp_path):
    """A stack of all images, and a volume of it."""
    stack, tlt = write_series(tmp_path, images())
    made(stack, tlt, *FBP)
    return tmp_path / "ts_rec.mrc", stack, tlt


def subset(folder, kept, name="part"):
    return write_series(folder, images()[list(kept)], [ANGLES[n] for n in kept], name)


@pytest.mark.slow
def test_images_that_the_record_lists_are_not_held_out_whatever_is_said(series):
    again, found, result = judged(*series, "--held-out", "beyond 30")
    assert again["held_out"] is False
    assert again["use"] == "seen"
    assert "--held-out names images that the volume was made from" in found["warnings"][0]
    assert "Warning: --held-out names images" in result.stderr
    assert "reprojection at held-out tilts" in found["skipped"]
    assert "seen images" in result.stdout
    assert "held-out images" not in result.stdout


@pytest.mark.slow
def test_without_a_record_nobody_knows(series):
    volume, stack, tlt = series
    volume.with_suffix(".json").unlink()
    for words in ((), ("--held-out", "1,11")):
        again, _, result = judged(volume, stack, tlt, *words)
        assert again["held_out"] is None
        assert again["use"] == "unknown"
        assert "there is no record" in again["reason"]
        assert "not tested: reprojection at held-out tilts" in result.stdout
        assert "use unknown" in result.stdout
    assert len(again["angles_deg"]) == 2


@pytest.mark.slow
def test_a_record_of_another_volume_of_this_name_is_not_believed(series):
    volume, stack, tlt = series
    other = -read_volume(volume).voxels * 3
    with mrcfile.open(volume, "r+") as file:
        file.set_data(np.ascontiguousarray(other))
    again, found, _ = judged(volume, stack, tlt)
    assert again["use"] == "unknown"
    assert "is not the record of this volume" in found["warnings"][0]
    renamed = volume.with_name("renamed.mrc")
    shutil.copy(volume, renamed)
    shutil.copy(volume.with_suffix(".json"), renamed.with_suffix(".json"))
    assert judged(renamed, stack, tlt)[0]["use"] == "unknown"


@pytest.mark.slow
def test_images_that_were_left_out_are_found_by_their_angles(tmp_path):
    stack, tlt = write_series(tmp_path, images())
    part, part_tlt = subset(tmp_path, [0, 1, 2, 4, 5, 6, 7, 9, 10])
    made(part, part_tlt, *FBP)
    again, found, result = judged(tmp_path / "part_rec.mrc", stack, tlt)
    assert again["use"] == "held out"
    assert again["angles_deg"] == [ANGLES[3], ANGLES[8]]
    assert "reprojection at held-out tilts" not in found["skipped"]
    assert "held-out images" in result.stdout
    # Of what is named, what the volume was made from is left out of the comparison.
    again, found, _ = judged(tmp_path / "part_rec.mrc", stack, tlt, "--held-out", "3-4")
    assert again["angles_deg"] == [ANGLES[3]]
    assert "3 were left out of the comparison" in found["warnings"][0]


@pytest.mark.slow
def test_refined_angles_do_not_make_all_images_held_out(series):
    volume, stack, tlt = series
    record = volume.with_suffix(".json")
    told = json.loads(record.read_text())
    rng = np.random.default_rng(0)
    told["geometry"]["tilt_angles_deg"] = [a + 2.5 + d for a, d in zip(ANGLES, rng.uniform(-0.3, 0.3, 11), strict=True)]
    told["inputs"]["tilts"]["sha256"] = "another"
    record.write_text(json.dumps(told))
    again, _, _ = judged(volume, stack, tlt)
    assert again["use"] == "seen"  # as many images, the same angles but for an offset and refinement
    told["geometry"]["stack_shape"][0] = 12
    record.write_text(json.dumps(told))
    assert judged(volume, stack, tlt)[0]["use"] == "unknown"


@pytest.mark.slow
def test_an_alignment_that_leaves_images_out(tmp_path):
    project = make_project(tmp_path)
    aln = write_aretomo(project)  # without sections 1 and 12
    made(project.stack, "--aln", aln, *FBP)
    volume = tmp_path / "ts_rec.mrc"
    record = json.loads(volume.with_suffix(".json").read_text())
    assert record["geometry"]["excluded_sections"] == [1, 12]
    # The aligned stack has the volume's shape; its images are those of the raw one, by number.
    _, height, width = voxels(volume).shape
    count = record["geometry"]["stack_shape"][0]
    write_stack(tmp_path / "all_ali.mrc", noise((height, width))[[n % 11 for n in range(count)]], 4.0, "x")
    again, _, _ = judged(volume, tmp_path / "all_ali.mrc", project.tlt)
    assert again["use"] == "held out"
    assert again["angles_deg"] == [-57.0, 9.0]
    again, found, _ = judged(volume, tmp_path / "all_ali.mrc", project.tlt, "--held-out", "2-5")
    assert again["use"] == "seen"
    assert found["warnings"]


@pytest.mark.slow
def test_binning_changes_nothing(tmp_path):
    stack, tlt = write_series(tmp_path, images())
    made(stack, tlt, "--method", "fbp", "--thickness", 8, "--bin", 2, "--device", "cpu")
    again, _, _ = judged(tmp_path / "ts_rec.mrc", stack, tlt, "--held-out", "1")
    assert (again["use"], again["binning"]) == ("seen", 2)


@pytest.mark.slow
def test_halves_and_their_average(tmp_path):
    even, tlt = write_series(tmp_path, images(), name="ts_EVN")
    odd, _ = write_series(tmp_path, images() + 0.3 * np.roll(noise(), 7, axis=2), name="ts_ODD")
    full, _ = write_series(tmp_path, images() + 0.15 * np.roll(noise(), 7, axis=2), name="ts")
    made("--even", even, "--odd", odd, tlt, *FBP)
    average = tmp_path / "ts_rec.mrc"
    for stack in (even, odd, full):
        assert judged(average, stack, tlt)[0]["use"] == "seen"
    half = tmp_path / "ts_rec_EVN.mrc"
    assert judged(half, even, tlt)[0]["use"] == "seen"
    assert judged(half, full, tlt)[0]["use"] == "seen"
    again, found, result = judged(half, odd, tlt, "--held-out", "1,2")
    assert again["use"] == "other frames"
    assert again["held_out"] is False
    assert "other frames of the same tilts" in found["skipped"]["reprojection at held-out tilts"]
    assert "other frames of seen tilts" in result.stdout


@pytest.mark.slow
def test_the_average_of_halves_tells_its_geometry(tmp_path):
    even, tlt = write_series(tmp_path, images(), name="ts_EVN")
    odd, _ = write_series(tmp_path, images() + 0.3 * np.roll(noise(), 7, axis=2), name="ts_ODD")
    made("--even", even, "--odd", odd, tlt, *FBP, "--contrast", "dark")
    record, half = (json.loads((tmp_path / f"ts_rec{n}.json").read_text()) for n in ("", "_EVN"))
    for part in ("geometry", "method", "settings", "compute"):
        assert record[part] == half[part]
    assert set(record["inputs"]) == {"even", "odd", "even tilts", "odd tilts", "angles"}
    assert record["volume"]["contrast"] == "dark"
    assert record["volume"]["shape_zyx"] == half["volume"]["shape_zyx"]
    assert record["volume"]["statistics"]["maximum"] == pytest.approx(voxels(tmp_path / "ts_rec.mrc").max())
    assert record["back_projection"] is None  # it is one
    found = judged(tmp_path / "ts_rec.mrc", even, tlt)[1]
    assert found["tilt_range_deg"] == [-50, 50]
    assert found["warnings"] == []


@pytest.mark.slow
def test_a_mirrored_volume_is_projected_with_the_sign_of_its_record(tmp_path):
    stack, tlt = write_series(tmp_path, images())
    made(stack, tlt, *FBP, "-o", tmp_path / "plain.mrc")
    made(stack, tlt, *FBP, "--flip-z", "-o", tmp_path / "flipped.mrc")
    plain, flipped = (judged(tmp_path / f"{name}.mrc", stack, tlt)[0] for name in ("plain", "flipped"))
    assert flipped["use"] == "seen"
    np.testing.assert_allclose(flipped["correlation"], plain["correlation"], atol=1e-3)


@pytest.mark.slow
def test_an_xzy_volume_is_turned_before_it_is_judged(tmp_path):
    stack, tlt = write_series(tmp_path, images())
    made(stack, tlt, *FBP, "-o", tmp_path / "plain.mrc")
    made(stack, tlt, *FBP, "--orientation", "xzy", "-o", tmp_path / "turned.mrc")
    plain, turned = (judged(tmp_path / f"{name}.mrc", stack, tlt) for name in ("plain", "turned"))
    assert turned[0]["correlation"] == plain[0]["correlation"]
    assert turned[1]["shape_zyx"] == plain[1]["shape_zyx"]
    assert any("--orientation xzy" in note for note in turned[1]["notes"])


@pytest.mark.slow
def test_halves_of_a_network_say_what_they_share_and_how_far_the_data_reach(tmp_path):
    even, tlt = write_series(tmp_path, noise() + 15 * bead_images(SHAPE, (6.0, 4.0, 3.0)), name="ts_EVN")
    odd, _ = write_series(
        tmp_path, np.roll(noise(), 7, axis=2) + 15 * bead_images(SHAPE, (6.0, 4.0, 3.0)), name="ts_ODD"
    )
    model = write_model(tmp_path / "m.safetensors")
    words = ("--even", even, "--odd", odd, tlt, "--thickness", 16, "--model", model, "--device", "cpu")
    shown = made(*words).stdout
    record = json.loads((tmp_path / "ts_rec.json").read_text())
    own, data = record["resolution"]["0.5"], record["back_projection"]["resolution"]["0.5"]
    assert ("< " in shown.splitlines()[2]) == (not own["reached"])
    assert f"Back-projections of the same halves: FSC 0.5 at {data['value']:.1f} Å" in shown
    assert "share what it learned" in shown
    assert record["back_projection"]["rows"] == [1, 40]
    # The same as of volumes that were back-projected from the halves.
    for name, stack in (("a", even), ("b", odd)):
        made(stack, tlt, *FBP, "-o", tmp_path / f"{name}.mrc")
    result = call("fsc", *(tmp_path / f"{n}.mrc" for n in "ab"), "--json", tmp_path / "f.json")
    assert "network" not in result.stderr
    known = json.loads((tmp_path / "f.json").read_text())["fsc"]["total"]
    np.testing.assert_allclose(record["back_projection"]["fsc"]["total"][1:], known[1:], atol=1e-3)
    assert made(*words).stdout == f"{tmp_path / 'ts_rec.mrc'}: already done with these inputs and settings\n"
    halves = [str(tmp_path / f"ts_rec_{n}.mrc") for n in ("EVN", "ODD")]
    assert "made by a network" in call("fsc", *halves).stderr
    result = evaluate(tmp_path / "ts_rec.mrc", "--half1", halves[0], "--half2", halves[1], "-o", tmp_path / "r.html")
    assert "Warning: Both halves were made by a network" in result.stderr
