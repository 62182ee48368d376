"""The command ``cryolithe evaluate`` on a small simulated series, its report, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from command import call, good, refusal_of

from cryolithe.errors import SettingsError
from cryolithe.evaluation.heldout import held_out_images
from cryolithe.evaluation.middles import middle
from cryolithe.evaluation.on_device import DeviceTransforms
from cryolithe.formats import read_tilt_series, read_volume, write_angles_deg, write_stack, write_volume
from cryolithe.formats.particles.star import Particle, write_particles
from cryolithe.geometry import TiltGeometry
from cryolithe.metrics import fourier_shell_correlation, mean_correlation
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.simulation.campaign import simulate_series
from cryolithe.simulation.library import recipe_library
from cryolithe.simulation.recipe import read_recipe
from cryolithe.volume import Volume

QUICK = Path(__file__).resolve().parents[2] / "training_data" / "recipes" / "quick.yaml"
REACH = 50.0  # images beyond are held out


def write(path, voxels, voxel_size=10.0):
    write_volume(path, Volume(np.ascontiguousarray(voxels, dtype=np.float32), voxel_size), label="test", overwrite=True)
    return path


@pytest.mark.parametrize("change", [lambda half: 2 * half + 1, lambda half: np.rint(300 * half / half.std())])
def test_copies_of_one_half_are_told(data, tmp_path, change):
    even = read_volume(data / "even.mrc").voxels
    copy = write(tmp_path / "copy.mrc", change(np.asarray(even, np.float64)))
    for odd, warned in ((copy, True), (data / "odd.mrc", False)):
        words = ("evaluate", data / "fbp.mrc", "--half1", data / "even.mrc", "--half2", odd, "-o", tmp_path / "ev.html")
        good(*words, "--overwrite")
        told = json.loads((tmp_path / "ev.json").read_text())["evaluation"]["warnings"]
        assert any("copies of one volume" in warning for warning in told) is warned


def write_sidecar(volume, data, **geometry):
    """What a reconstruction of the images within ±50° tells beside its volume."""
    angles = [float(line) for line in (data / "tilts.tlt").read_text().split() if abs(float(line)) <= REACH]
    record = {"geometry": {"tilt_angles_deg": angles, **geometry}, "volume": {"contrast": "dark"}}
    volume.with_suffix(".json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files of a simulated series: FBP of the tilts within ±50°, its halves, truth, particles, template."""
    folder = tmp_path_factory.mktemp("evaluate")
    recipe = read_recipe(QUICK)
    library = recipe_library(recipe, ())
    made = simulate_series(recipe, library, 1)
    angles = np.array(made.series.plan.angles_deg)
    kept = np.flatnonzero(np.abs(angles) <= REACH)
    geometry = TiltGeometry(tuple(angles[kept]), made.series.images.shape[1:])
    projector = make_projector(geometry, (made.truth.shape[0], made.truth.shape[2]))
    for name, images in (("fbp", made.series.images), ("even", made.series.even), ("odd", made.series.odd)):
        rows = images[kept] - images[kept].mean(axis=(1, 2), keepdims=True)
        write(folder / f"{name}.mrc", fbp(projector, torch.from_numpy(rows)).numpy())
    write(folder / "truth.mrc", made.truth)
    mask = np.zeros(made.truth.shape)
    mask[8:24] = 1
    write(folder / "mask.mrc", mask)
    write_stack(folder / "tilts.mrc", made.series.images, 10.0, "test")
    write_angles_deg(folder / "tilts.tlt", angles)
    particles = [Particle("TS", p.name, p.label, p.position_px, p.euler_deg) for p in made.cell.placements]
    write_particles(folder / "particles.star", particles, made.truth.shape, 10.0)
    first = next(m for m in library if m.name == made.cell.placements[0].name)
    write(folder / "template.mrc", first.density, first.voxel_size_angstrom)
    (folder / "kind.txt").write_text(first.name)
    return folder


def run(*arguments):
    return call("evaluate", *arguments)


def numbers_in(value):
    """All numbers of a record, in order."""
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers_in(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers_in(item)]
    return [] if isinstance(value, bool | str) or value is None else [float(value)]


def everything(data, output):
    """The numbers of all tests that make transforms, and what was printed on the way."""
    result = good(
        "evaluate", data / "fbp.mrc", "--reference", data / "truth.mrc",
        "--half1", data / "even.mrc", "--half2", data / "odd.mrc",
        "--particles", data / "particles.star", "--template", data / "template.mrc",
        "--kind", (data / "kind.txt").read_text(), "-o", output,
    )  # fmt: skip
    return numbers_in(json.loads((output / "evaluation.json").read_text())["evaluation"]), result.stderr


@pytest.mark.slow
def test_transforms_on_a_device_give_the_same_numbers(data, tmp_path, monkeypatch):
    """Torch's on the CPU stand for a GPU's, with all the memory that they want and with none for the largest."""
    monkeypatch.setattr("cryolithe.evaluation.matching.ROTATIONS", 4)
    expected, told = everything(data, tmp_path / "host")
    assert "Memory ran out" not in told
    seen, real = [], torch.fft.rfftn

    def on_device(device, note):
        return DeviceTransforms(torch.device("cpu"), note)

    def noticed(values, s):
        seen.append(values.numel())
        return real(values, s=s)

    monkeypatch.setattr("cryolithe.evaluation.on_device.transforms_on", on_device)
    monkeypatch.setattr(torch.fft, "rfftn", noticed)
    found, told = everything(data, tmp_path / "device")
    assert seen
    assert "Memory ran out" not in told
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    def scarce(values, s):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.fft, "rfftn", scarce)
    found, told = everything(data, tmp_path / "scarce")
    assert told.count("Memory ran out on cpu: larger transforms are made on the CPU") == 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_devices_have_the_names_that_they_have_elsewhere(data, tmp_path):
    for name, told in (("mps", "Apple's GPUs"), ("gpu", "use auto, cpu, cuda")):
        result = run(data / "fbp.mrc", "-o", tmp_path / "r.html", "--device", name)
        assert result.exit_code == 2
        assert told in result.stderr
    good("evaluate", data / "fbp.mrc", "-o", tmp_path / "r.html", "--device", "cpu")


def refused(*arguments):
    """Return the one line with which a command is refused."""
    return refusal_of(run(*arguments))[len("Error: ") :].strip()


class Page(HTMLParser):
    """Collects what a browser would load, the figures, the text and the balance of tags."""

    def __init__(self):
        super().__init__()
        self.loaded, self.tags, self.open, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(path):
    page = Page()
    text = path.read_text(encoding="utf-8")
    page.feed(text)
    page.close()
    assert page.open == []
    assert len(text) < 5_000_000
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert all(value.startswith("data:image/png;base64,") for value in page.loaded)
    assert not re.search(r"https?://|@import|url\(", text)
    return page


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run with everything, a sidecar that tells which images were used among it."""
    out = tmp_path_factory.mktemp("report") / "all"
    volume = write(out.parent / "fbp.mrc", read_volume(data / "fbp.mrc").voxels)
    write_sidecar(volume, data)
    result = good(
        "evaluate", volume, "--reference", data / "truth.mrc",
        "--half1", data / "even.mrc", "--half2", data / "odd.mrc",
        "--tilts", data / "tilts.mrc", "--angles", data / "tilts.tlt", "--held-out", f"beyond {REACH:g}",
        "--particles", data / "particles.star", "--template", data / "template.mrc",
        "--kind", (data / "kind.txt").read_text(), "--particle-diameter", 120, "-o", out,
    )  # fmt: skip
    return result, out


@pytest.mark.slow
def test_every_test_is_made_and_agrees_with_the_library(data, whole):
    result, out = whole
    assert {p.name for p in out.iterdir()} == {"evaluation.html", "evaluation.json", "evaluation_agreement.mrc"}
    found = json.loads((out / "evaluation.json").read_text())["evaluation"]
    assert found["skipped"] == {}
    assert found["warnings"] == []
    truth, volume = (np.asarray(read_volume(data / f"{n}.mrc").voxels) for n in ("truth", "fbp"))
    low, high = found["tilt_range_deg"]
    assert -REACH <= low < 0 < high <= REACH  # of the images that are not held out
    curve = fourier_shell_correlation(truth, volume, tilt_range_deg=(low, high))
    mean = found["reference"]["curves"]["mean"]
    assert mean["measured"] == pytest.approx(mean_correlation(curve.measured))
    assert mean["measured"] > mean["missing"] + 0.1
    assert found["reference"]["polarity"] == "same"
    assert found["reprojection"]["held_out"] is True
    assert min(abs(a) for a in found["reprojection"]["angles_deg"]) > REACH
    assert 0.05 < np.mean(found["reprojection"]["correlation"]) < 0.95
    assert found["wedge"]["fill"] < 0.4 < found["reference"]["wedge"]["fill"]
    assert found["wedge"]["streak_index"] > 2 * found["reference"]["wedge"]["streak_index"]
    assert found["picking"]["known"] > 5
    assert 0 <= found["matching"]["pr_auc"] <= 1
    agreement = read_volume(out / "evaluation_agreement.mrc")
    assert agreement.voxels.shape == truth.shape
    assert np.abs(agreement.voxels).max() <= 1
    for word in ("SNR against the reference", "SSIM", "PR-AUC", "held-out", "Report: "):
        assert word in result.stdout
    assert len(result.stdout.splitlines()) < 40


def test_the_report_needs_nothing_else(whole):
    _, out = whole
    page = parsed(out / "evaluation.html")
    assert page.tags.count("img") == page.tags.count("figcaption") == 9
    text = " ".join(page.text)
    for word in ("Figure 9", "Bepler", "@media print", "missing wedge", "10 Å voxels"):
        assert word in text
    assert "Not tested" not in text


@pytest.mark.slow
def test_without_truth_the_report_says_what_was_not_tested(data, tmp_path):
    page = tmp_path / "r.html"
    good("evaluate", data / "fbp.mrc", "-o", page)
    text = " ".join(parsed(page).text)
    for word in (
        "Not tested",
        "no --reference was given",
        "no --half1",
        "no --tilts",
        "no --particles",
        "±60° assumed",
    ):
        assert word in text
    assert not (tmp_path / "r_agreement.mrc").exists()
    found = json.loads((tmp_path / "r.json").read_text())["evaluation"]
    assert len(found["skipped"]) == 6
    assert found["tilt_range_deg"] == [-60, 60]
    assert "exists; give --overwrite" in refused(data / "fbp.mrc", "-o", page)
    good("evaluate", data / "fbp.mrc", "-o", page, "--overwrite", "--tilt-range", "-50,40")
    assert json.loads((tmp_path / "r.json").read_text())["evaluation"]["tilt_range_deg"] == [-50, 40]


@pytest.mark.slow
def test_a_reference_of_the_other_polarity_is_found_and_flipped(data, tmp_path):
    flipped = write(tmp_path / "negative.mrc", -read_volume(data / "truth.mrc").voxels)
    for name, reference in (("same", data / "truth.mrc"), ("flip", flipped)):
        result = good("evaluate", data / "fbp.mrc", "--reference", reference, "-o", tmp_path / name)
        assert ("Warning: The reference" in result.stderr) == (name == "flip")
    same, flip = (json.loads((tmp_path / n / "evaluation.json").read_text())["evaluation"] for n in ("same", "flip"))
    assert flip["reference"]["polarity"] == "opposite, reference flipped"
    assert flip["reference"]["similarity"] == same["reference"]["similarity"]
    assert "other polarity" in " ".join(parsed(tmp_path / "flip" / "evaluation.html").text)
    kept = run(data / "fbp.mrc", "--reference", flipped, "-o", tmp_path / "kept", "--keep-sign")
    assert "Its sign was kept" in kept.stderr
    found = json.loads((tmp_path / "kept" / "evaluation.json").read_text())["evaluation"]["reference"]
    assert found["similarity"]["correlation"] == pytest.approx(-same["reference"]["similarity"]["correlation"])


@pytest.mark.slow
def test_a_sidecar_tells_the_tilt_range_and_what_was_held_out(data, tmp_path):
    volume = write(tmp_path / "v.mrc", read_volume(data / "fbp.mrc").voxels)
    angles = [float(line) for line in (data / "tilts.tlt").read_text().split() if abs(float(line)) <= REACH]
    sidecar = {"geometry": {"tilt_angles_deg": angles}, "volume": {"contrast": "dark"}}
    (tmp_path / "v.json").write_text(json.dumps(sidecar))
    good("evaluate", volume, "--tilts", data / "tilts.mrc", "--angles", data / "tilts.tlt", "-o", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["evaluation"]
    assert found["tilt_range_deg"] == [min(angles), max(angles)]
    assert found["reprojection"]["held_out"] is True
    assert len(found["reprojection"]["angles_deg"]) == 21 - len(angles)


@pytest.mark.slow
def test_crop_and_mask(data, tmp_path):
    truth = read_volume(data / "truth.mrc").voxels
    small = write(tmp_path / "small.mrc", truth[2:-3, 4:-4])
    line = refused(data / "fbp.mrc", "--reference", small)
    assert line == (
        f"the volumes differ in shape (z, y, x): {data / 'fbp.mrc'} has (32, 64, 64), {small} has (27, 56, 64); "
        "give --crop to compare the middle that both have"
    )
    good("evaluate", data / "fbp.mrc", "--reference", small, "--crop", "-o", tmp_path / "crop")
    found = json.loads((tmp_path / "crop" / "evaluation.json").read_text())["evaluation"]
    assert found["reference"]["shape_zyx"] == [27, 56, 64]
    assert "half a voxel" in found["notes"][-1]
    mask = write(tmp_path / "mask.mrc", read_volume(data / "mask.mrc").voxels, 4.0)
    good("evaluate", data / "fbp.mrc", "--reference", data / "truth.mrc", "--mask", mask, "-o", tmp_path / "w")
    told = json.loads((tmp_path / "w" / "evaluation.json").read_text())["evaluation"]["warnings"]
    assert sum(f"The mask {mask} has voxels of 4 Å" in one for one in told) == 1
    masked = run(data / "fbp.mrc", "--reference", data / "truth.mrc", "--mask", data / "mask.mrc", "-o", tmp_path / "m")
    assert masked.exit_code == 0, masked.output
    found = json.loads((tmp_path / "m" / "evaluation.json").read_text())["evaluation"]["reference"]
    volume = read_volume(data / "fbp.mrc").voxels
    expected = np.corrcoef(truth[8:24].ravel(), volume[8:24].ravel())[0, 1]
    assert found["similarity"]["correlation"] == pytest.approx(expected, abs=1e-6)
    assert middle(np.arange(27).reshape(3, 3, 3), (1, 3, 2)).tolist() == [[[9, 10], [12, 13], [15, 16]]]


@pytest.mark.slow
def test_bad_input_is_one_line(data, tmp_path):
    fbp_path, truth = data / "fbp.mrc", read_volume(data / "truth.mrc").voxels
    other = write(tmp_path / "size.mrc", truth, 8.0)
    assert refused(fbp_path, "--reference", other) == (
        f"the volumes differ in voxel size: {fbp_path} has 10 Å, {other} has 8 Å; resample one of them"
    )
    flat = write(tmp_path / "flat.mrc", np.full(truth.shape, 3.0))
    assert refused(fbp_path, "--reference", flat) == (f"{flat}: all 131072 voxels are 3; a correlation needs contrast")
    broken = truth.copy()
    broken[1, 2, 3] = np.nan
    holed = write(tmp_path / "nan.mrc", broken)
    assert refused(holed) == (f"{holed}: 1 of 131072 voxels are not finite numbers; replace or crop them first")
    none = write(tmp_path / "none.mrc", np.zeros(truth.shape))
    assert refused(fbp_path, "--reference", data / "truth.mrc", "--mask", none) == (
        f"the mask {none} is 0 in all 131072 voxels, so there is nothing to compare"
    )
    even = data / "even.mrc"
    assert refused(fbp_path, "--half1", even, "--half2", even) == (
        f"the half maps are the same file: {even} and {even}; give reconstructions of the even and of the odd frames "
        "(or tilts)"
    )
    copy = write(tmp_path / "copy.mrc", read_volume(even).voxels)
    assert refused(fbp_path, "--half1", even, "--half2", copy).startswith("the half maps are the same volume: ")
    assert refused(fbp_path, "--half1", even).startswith("--half1 and --half2 belong together")
    assert refused(fbp_path, "--tilts", data / "tilts.mrc").startswith("--tilts and --angles belong together")
    assert refused(fbp_path, "--template", data / "template.mrc").startswith("--template needs --particles")
    assert refused(fbp_path, "--tilt-range", "x").startswith("--tilt-range: expected a tilt range")
    assert refused(tmp_path / "nowhere.mrc").endswith("does not exist or is no file; check its name and folder")
    assert "expected a folder or a name ending in .html" in refused(fbp_path, "-o", tmp_path / "x.pdf")
    short = write(tmp_path / "short.mrc", truth[:, :40])
    tilts = ("--tilts", data / "tilts.mrc", "--angles", data / "tilts.tlt")
    assert "the images have 64 rows (y) but the volume has 40" in refused(short, *tilts)
    assert "holds no particle positions: expected the columns" in refused(fbp_path, "--particles", data / "tilts.tlt")
    assert "is not a STAR file: expected text, found binary data" in refused(fbp_path, "--particles", fbp_path)
    coarse = write(tmp_path / "coarse.mrc", truth, 20.0)
    assert "has voxels of 20 Å but the images have pixels of 10 Å" in refused(coarse, *tilts)
    series = read_tilt_series(data / "tilts.mrc", data / "tilts.tlt")
    images = np.array(series.images)
    images[4, 2, 1] = np.inf
    write_stack(tmp_path / "holed.mrc", images, 10.0, "test")
    holed_tilts = ("--tilts", tmp_path / "holed.mrc", "--angles", data / "tilts.tlt", "--held-out")
    assert refused(fbp_path, *holed_tilts, "5-6").startswith("tilt 5 of the stack is constant, or holds NaN or Inf; ")
    good("evaluate", fbp_path, *holed_tilts, "1-4", "-o", tmp_path / "fine")


def test_held_out_images_are_named_by_angle_or_number():
    angles = (-60.0, -30.0, 0.0, 30.0, 60.0)
    assert held_out_images("beyond 30", angles) == (0, 4)
    assert held_out_images("1, 3-4", angles) == (0, 2, 3)
    for text, words in (
        ("beyond 70", "names 0 of 5"),
        ("1-5", "names 5 of 5"),
        ("0", "from 1 to 5"),
        ("x", "expected"),
    ):
        with pytest.raises(SettingsError, match=words):
            held_out_images(text, angles)


def test_help_does_not_load_the_libraries():
    script = (
        "import sys; from click.testing import CliRunner; from cryolithe.cli import main; "
        "assert CliRunner().invoke(main, ['evaluate', '--help']).exit_code == 0; "
        "print([m for m in ('torch', 'skimage', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("nothing", [None, "lost"])
def test_a_record_whose_parts_tell_nothing_is_no_obstacle(nothing, data, tmp_path):
    volume = write(tmp_path / "fbp.mrc", read_volume(data / "fbp.mrc").voxels)
    parts = dict.fromkeys(("geometry", "inputs", "settings", "method", "source"), nothing)
    record = {"volume": {"contrast": "dark"}, **parts}
    volume.with_suffix(".json").write_text(json.dumps(record))
    words = ("--half1", data / "even.mrc", "--half2", data / "odd.mrc", "--particles", data / "particles.star")
    images = ("--tilts", data / "tilts.mrc", "--angles", data / "tilts.tlt")
    good("evaluate", volume, "--reference", data / "truth.mrc", *words, *images, "-o", tmp_path / "ev.html")
