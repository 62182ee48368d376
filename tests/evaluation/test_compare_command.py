"""`cryolithe compare` through the real command: page, numbers, what is kept, what is refused."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import call, good
from half_volumes import noise, signal, write
from PIL import Image
from plain_mrc import new_mrc
from test_denoise_warp import TINY as SAMBA
from test_n2n_command import TINY as UNET
from tiny_series import ANGLES, voxels, write_model, write_series
from tiny_series import noise as series_noise

from cryolithe.comparison import making
from cryolithe.denoising.n2n import learning as n2n
from cryolithe.denoising.n2n import network
from cryolithe.denoising.samba import learning as samba
from cryolithe.denoising.samba import model

pytestmark = pytest.mark.slow
QUICK = Path(__file__).resolve().parents[2] / "training_data" / "recipes" / "quick.yaml"


def refused(*words, named=()):
    result = call("compare", *words)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    for text in named:
        assert text in last, last
    return last


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "out"
    good("simulate", QUICK, "-o", folder)
    return folder


def of_series(folder, output):
    ts = folder / "TS_001"
    halves = ("--even", f"{ts}_EVN.mrc", "--odd", f"{ts}_ODD.mrc")
    truth = ("--truth", f"{ts}_truth.mrc", "--labels", f"{ts}_labels.mrc")
    return (f"{ts}.mrc", f"{ts}.tlt", *halves, *truth, "--thickness", 32, "--device", "cpu", "-o", output)


@pytest.fixture(scope="module")
def compared(simulated):
    """A page of a simulated series with a name that a page has to escape."""
    page = simulated / "<i>&page.html"
    result = good("compare", *of_series(simulated, page), "--methods", "gaussian,draft")
    return page, result


class Loads(HTMLParser):
    """What a browser would load, and which elements there are."""

    def __init__(self, text):
        super().__init__()
        self.found, self.names = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.found += [value for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]


def numbers(page):
    return json.loads(page.with_suffix(".json").read_text())


def test_a_page_that_needs_nothing_else(compared):
    page, result = compared
    text = page.read_text()
    loads = Loads(text)
    assert len(loads.found) >= 5
    assert all(address.startswith("data:image/png;base64,") for address in loads.found)
    assert "script" not in loads.names
    assert "i" not in loads.names
    assert not re.search(r"https?://", text)
    for address in loads.found:
        Image.open(__import__("io").BytesIO(base64.b64decode(address.partition(",")[2]))).verify()
    assert "model draft" in text
    assert "Plan: 3 methods on 32 x 64 x 64 voxels" in result.stderr
    assert "FBP + Gaussian" in result.stdout


def test_the_record_holds_every_number_and_the_table_the_scores(compared):
    page, _ = compared
    found = numbers(page)["comparison"]
    assert [one["name"] for one in found["methods"]] == ["fbp", "gaussian", "draft"]
    for one in found["methods"]:
        assert len(one["fsc"]) == len(found["frequency_per_px"]) == 17
        assert one["truth"]["measured_mean"] > 0
        assert one["seconds"] > 0
    fbp, smooth, draft = found["methods"]
    assert fbp["wedge_share"] < 0.3 * found["isotropic_wedge_share"] < draft["wedge_share"]
    assert smooth["fsc_mean"] == pytest.approx(fbp["fsc_mean"], abs=2e-3)
    assert smooth["half"]["denoised"][0] >= fbp["half"]["raw"]
    with page.with_suffix(".csv").open() as file:
        rows = list(csv.reader(file))
    assert [row[0].partition(",")[0] for row in rows[1:]] == ["FBP", "FBP + Gaussian", "model draft"]
    assert len({len(row) for row in rows}) == 1


def test_the_raw_halves_have_what_the_fsc_command_says(compared):
    page, _ = compared
    found = numbers(page)["comparison"]
    work, told = page.with_suffix(".work") / "fbp", page.with_name("fsc.json")
    wedge = ",".join(map(str, found["tilt_range_deg"]))
    good("fsc", work / "half1.mrc", work / "half2.mrc", f"--wedge={wedge}", "--json", told)
    curves = json.loads(told.read_text())
    expected = curves["fsc"]["measured"]
    np.testing.assert_allclose(found["methods"][0]["fsc"][1:], expected[1:], atol=1e-6)
    assert found["methods"][0]["fsc_mean"] == pytest.approx(curves["mean"]["measured"], abs=1e-6)


def test_a_second_run_makes_nothing_again_and_finds_the_same(compared, simulated, monkeypatch):
    page, _ = compared
    before, shown = numbers(page), page.read_text()
    refused(*of_series(simulated, page), named=["exists", "--overwrite"])
    monkeypatch.setattr(making, "reconstruct", lambda *_: pytest.fail("made again"))
    result = good("compare", *of_series(simulated, page), "--methods", "gaussian,draft", "--overwrite")
    assert "model draft: made before" in result.stderr
    after = numbers(page)
    for record in (before, after):
        record["comparison"]["methods"][1].pop("seconds")  # the filter is made again, in no time
    assert after == before
    tail = re.compile(r"<td class=\"n\">\d+</td></tr>")
    assert tail.sub("", page.read_text()) == tail.sub("", shown)


def test_an_interrupted_run_goes_on(simulated, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    made, real = [], making.reconstruct

    def interrupted(job, watcher):
        if len(made) == 4:  # the raw ones are done, and one of the next method
            raise KeyboardInterrupt
        made.append(job.output)
        return real(job, watcher)

    words = (*of_series(simulated, page), "--methods", "sirt", "--iterations", 2)
    monkeypatch.setattr(making, "reconstruct", interrupted)
    result = call("compare", *words)
    assert result.exit_code == 130
    assert "repeat the command" in result.stderr
    assert not page.exists()
    first, made[:] = list(made), []
    good("compare", *words)
    assert not set(first) & set(made)
    assert [path.name for path in made] == ["half2.mrc", "whole.mrc"]
    assert page.exists()


def test_what_is_made_of_other_files_is_never_that_of_the_first(simulated, tmp_path, monkeypatch):
    page, angles = tmp_path / "page.html", tmp_path / "ts.tlt"
    right, real = (simulated / "TS_001.tlt").read_text(), making.reconstruct
    angles.write_text(right)
    words = [angles if str(word).endswith(".tlt") else word for word in of_series(simulated, page)]
    words += ["--methods", "fbp"]

    def of_others(job, watcher):
        angles.write_text(right.replace("1", "2", 1))
        return real(job, watcher)

    with monkeypatch.context() as patch:
        patch.setattr(making, "reconstruct", of_others)
        refused(*words, named=[f"the input {angles} changed while it was compared; run again when it is complete"])
    angles.write_text(right)
    assert "made before" not in good("compare", *words).stderr
    other = tmp_path / "other.html"
    good("compare", *words[: words.index(page)], other, *words[words.index(page) + 1 :])
    volumes = [path.with_suffix(".work") / "fbp" / "half1.mrc" for path in (page, other)]
    assert volumes[0].read_bytes()[1024:] == volumes[1].read_bytes()[1024:]


def test_other_settings_make_a_method_anew(simulated, tmp_path):
    page = tmp_path / "page.html"
    words = (*of_series(simulated, page), "--methods", "fbp")
    good("compare", *words)
    volume = page.with_suffix(".work") / "fbp" / "half1.mrc"
    before = volume.read_bytes()
    good("compare", *words, "--filter", "ramp", "--overwrite")
    assert volume.read_bytes() != before


def test_what_was_made_before_is_what_the_folder_holds_whatever_was_made_in_between(tiny, tmp_path):
    page = tmp_path / "page.html"
    words = [*of_tiny(tiny, page, "sirt"), "--iterations", 2, "--overwrite"]
    del words[(place := words.index("--precision")) : place + 2]
    volumes = [page.with_suffix(".work") / method / "whole.mrc" for method in ("fbp", "sirt")]
    cells, seen = page.with_suffix(".csv"), []
    for further, before in (((), 0), (("--flip-z",), 0), ((), 0), ((), 2)):
        assert good("compare", *words, *further).stderr.count("made before") == before
        seen.append(([voxels(path) for path in volumes], cells.read_text()))
    for made, other in zip(seen[0][0], seen[1][0], strict=True):
        assert made == pytest.approx(other[::-1], abs=1e-5)
    for made, _ in seen[2:]:
        assert all(map(np.array_equal, made, seen[0][0]))
    # One that is replaced, by hand or by a program, is made anew, and only that.
    shutil.copy(volumes[0], volumes[1])
    notes = [volume.with_name("notes.json") for volume in volumes]  # of the user
    for path in notes:
        path.write_text("{}")
    result = good("compare", *words)
    assert result.stderr.count("made before") == 1
    assert "SIRT: made anew, as files in" in result.stderr
    assert np.array_equal(voxels(volumes[1]), seen[0][0][1])
    volumes[0].with_name("half2.mrc").unlink()
    assert good("compare", *words).stderr.count("made before") == 1
    assert all(path.exists() for path in notes)
    assert volumes[0].with_name("half2.mrc").exists()


def test_without_frames_tilts_are_split_and_it_is_said(simulated, tmp_path):
    ts, page = simulated / "TS_001", tmp_path / "page.html"
    words = (f"{ts}.mrc", f"{ts}.tlt", "--thickness", 32, "--methods", "fbp,gaussian", "-o", page)
    result = good("compare", *words)
    assert "every other tilt is a half" in result.stderr
    assert "WARNING: The halves are odd and even tilts" in result.stderr
    found = numbers(page)["comparison"]
    assert found["split"] == "tilts"
    assert found["shared_per_px"] == pytest.approx(1 / (32 * np.radians(6)), rel=1e-3)
    assert "along the tilt axis" in page.read_text()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A series of noise, its halves, and two networks of next to no size."""
    folder = tmp_path_factory.mktemp("tiny")
    images = series_noise()
    for name, strength in (("ts", 0.0), ("ts_EVN", 0.5), ("ts_ODD", -0.5)):
        write_series(folder, images + np.float32(strength) * np.roll(images, 1, axis=0), name=name)
    for name, gain in (("a", 1.0), ("b", 0.9)):
        write_model(folder / f"{name}.safetensors", gain)
    return folder


def of_tiny(folder, page, *methods):
    halves = ("--even", folder / "ts_EVN.mrc", "--odd", folder / "ts_ODD.mrc")
    names = ",".join(str(folder / f"{name}.safetensors") if len(name) == 1 else name for name in methods)
    whole = (folder / "ts.mrc", folder / "ts.tlt", "--contrast", "dark", "--precision", "fp32", "--device", "cpu")
    return (*whole, *halves, "--thickness", 16, "--methods", names, "-o", page)


def figures_of(page):
    """Headings of a page, and how many figures it has."""
    text = page.read_text()
    return re.findall(r"<h2>(.*?)</h2>", text), text.count("<figure>")


def test_maps_of_confidence_stand_beside_each_network_and_cost_what_is_planned(tiny, tmp_path):
    page, plain = tmp_path / "page.html", tmp_path / "plain.html"
    words = of_tiny(tiny, page, "gaussian", "a", "b")
    result = good("compare", *words, "--confidence")
    good("compare", *of_tiny(tiny, plain, "gaussian", "a", "b"))
    assert "four runs more of each network" in result.stderr
    headings, count = figures_of(page)
    assert "How sure the networks are" in headings
    assert count == figures_of(plain)[1] + 1
    methods = numbers(page)["comparison"]["methods"]
    assert [one["sure"] is None for one in methods] == [True, True, False, False]
    assert all(one["sure"] is None for one in numbers(plain)["comparison"]["methods"])
    for one, name in zip(methods[2:], "ab", strict=True):
        (folder,) = page.with_suffix(".work").glob(f"model_{name}_*")
        assert {path.name for path in folder.glob("*_error.mrc")} == {"whole_error.mrc"}  # not of halves
        for kind, mean in one["sure"].items():
            assert voxels(folder / f"whole_{kind}.mrc").mean() == pytest.approx(mean, abs=1e-4)
        line = f"model {name}: expected correlation {one['sure']['confidence']:.2f}, expected error"
        assert line in result.stdout
        assert line in page.read_text()
        (other,) = plain.with_suffix(".work").glob(f"model_{name}_*")
        assert (folder / "whole.mrc").read_bytes() == (other / "whole.mrc").read_bytes()
    again = good("compare", *words, "--confidence", "--overwrite")
    assert again.stderr.count("made before") == 3
    # What has no maps yet is made with them; what is no network is not made anew.
    asked = good("compare", *of_tiny(tiny, plain, "gaussian", "a", "b"), "--confidence", "--overwrite")
    assert asked.stderr.count("made before") == 1
    assert figures_of(plain) == figures_of(page)


def test_maps_that_nothing_can_make_are_refused(tiny, tmp_path):
    page = tmp_path / "page.html"
    words = of_tiny(tiny, page, "gaussian", "a")
    refused(*of_tiny(tiny, page, "gaussian", "sirt"), "--confidence", named=["--confidence", "model", "SIRT"])
    refused(*words[1:], "--confidence", named=["--confidence", "TILTS"])
    refused(
        "--half1", words[0], "--half2", words[9], "-o", page, "--confidence", named=["--confidence", "leave it out"]
    )
    few = tmp_path / "few"
    few.mkdir()
    for number, name in enumerate(("ts", "ts_EVN", "ts_ODD")):
        write_series(few, np.roll(series_noise()[:9], number, 1), angles=ANGLES[:9], name=name)
    write_model(few / "a.safetensors")
    refused(*of_tiny(few, page, "a"), "--confidence", named=["9 tilts are too few"])
    assert not page.with_suffix(".work").exists()


def test_halves_of_any_program(tmp_path):
    shape = (24, 40, 36)
    density = signal(shape, 1)
    paths = [write(tmp_path / f"{n}.mrc", density + 2 * noise(shape, n)) for n in (1, 2)]
    page = tmp_path / "page.html"
    both = ("--half1", paths[0], "--half2", paths[1])
    result = good("compare", *both, "--tilt-range", "-50,60", "--methods", "fbp,gaussian,n2n-general", "-o", page)
    found = numbers(page)["comparison"]
    assert found["tilt_range_deg"] == [-50, 60]
    assert [one["name"] for one in found["methods"]] == ["fbp", "gaussian", "n2n-general"]
    assert "Noise2Noise, general" in result.stdout
    same = ("compare", *both, "--tilt-range", "-50,60", "--methods", "fbp,n2n-general", "-o", page, "--overwrite")
    good(*same, "--precision", "fp32")
    assert good(*same, "--precision", "fp32").stderr.count("made before") == 2
    other = good(*same, "--precision", "bf16").stderr  # the halves are as they were given, whatever the precision
    assert "your halves: made before" in other
    assert "general: made before" not in other
    again = tmp_path / "again.html"
    good("compare", *both, "--methods", "fbp", "-o", again)
    assert "Tilt range of ±60° assumed" in again.read_text()
    dry = good("compare", *both, "-o", tmp_path / "none.html", "--dry-run")
    assert "Plan: 4 methods" in dry.stderr
    assert not (tmp_path / "none.work").exists()


def test_8_bit_halves_of_any_program_are_taken_as_they_are(tmp_path):
    shape = (24, 40, 36)
    density = signal(shape, 1)
    halves = [density + 2 * noise(shape, n) for n in (1, 2)]
    page, scores = tmp_path / "page.html", {}
    plain, small = [[tmp_path / f"{kind}{n}.mrc" for n in (1, 2)] for kind in ("plain", "small")]
    for values, path, other in zip(halves, plain, small, strict=True):
        write(path, values)
        with new_mrc(other, np.clip(np.rint(15 * values), -128, 127).astype(np.int8)) as file:
            file.set_volume()
    pairs = {"float": plain, "both": small, "first": [small[0], plain[1]], "second": [plain[0], small[1]]}
    for name, pair in pairs.items():
        given = ("--half1", pair[0], "--half2", pair[1], "--tilt-range", 60, "--methods", "fbp,gaussian,n2n-general")
        result = good("compare", *given, "-o", page, "--overwrite")
        scores[name] = [one["fsc_mean"] for one in numbers(page)["comparison"]["methods"]]
        for path in pair:
            told = f"Note: {path.name} holds 8-bit values, which are taken as they are."
            assert (told in result.stderr) == (path in small)
        assert ("not scaled alike" in result.stderr) == (name in ("first", "second"))
    for found in scores.values():
        assert found == pytest.approx(scores["float"], abs=0.01)
    denoised = voxels(page.with_suffix(".work") / "n2n-general" / "half2.mrc")
    assert denoised.dtype == np.float32  # not rounded again
    # Notes of another program say nothing; our record has to.
    record = small[0].with_suffix(".json")
    record.write_text('{"deposited": 2020}')
    given = ("--half1", small[0], "--half2", small[1], "--methods", "fbp", "-o", page, "--overwrite")
    good("compare", *given)
    record.write_text('{"volume": {}}')
    refused(*given, named=[str(small[0]), str(record), "how they are scaled", "move another one elsewhere"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [np.int16, np.uint16, "tiff of bytes", "tiff of doubles"])
def test_halves_of_whole_numbers_are_compared_as_densities(tmp_path, kind):
    shape, pairs = (24, 40, 36), {}
    centre, least = (0, -127) if kind is np.int16 else (128, 0)
    values = [np.clip(np.rint(15 * (signal(shape, 1) + 2 * noise(shape, n)) + centre), least, 255) for n in (1, 2)]
    pairs["float"] = [write(tmp_path / f"float{n}.mrc", half) for n, half in enumerate(values)]
    pairs["given"] = [tmp_path / f"given{n}.{'tif' if isinstance(kind, str) else 'mrc'}" for n in (0, 1)]
    for half, path in zip(values, pairs["given"], strict=True):
        if isinstance(kind, str):
            tifffile.imwrite(path, half.astype(np.uint8 if kind == "tiff of bytes" else np.float64))
            continue
        with new_mrc(path, half.astype(kind)) as file:
            file.set_volume()
            file.voxel_size = 10.0
    methods, made = "fbp,gaussian", ["fbp/whole"]
    if not isinstance(kind, str):
        methods, made = f"{methods},n2n-general", [*made, "n2n-general/half1", "n2n-general/whole"]
    found, scores = {}, {}
    for name, (first, second) in pairs.items():
        page = tmp_path / f"{name}.html"
        given = ("--half1", first, "--half2", second, "--tilt-range", 60, "--methods", methods, "-o", page)
        if name == "given":
            good("compare", *given, "--dry-run")
        good("compare", *given)
        scores[name] = [one["fsc_mean"] for one in numbers(page)["comparison"]["methods"]]
        found[name] = [voxels(page.with_suffix(".work") / f"{one}.mrc") for one in made]
    assert scores["given"] == pytest.approx(scores["float"], abs=1e-6)
    assert {one.dtype for one in found["given"]} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found["given"][0], (values[0] + values[1]) / 2)
    np.testing.assert_array_equal(found["given"], found["float"])


@pytest.mark.slow
def test_a_constant_of_doubles_changes_no_number(tmp_path):
    shape, found = (24, 40, 36), []
    values = [0.1 * (signal(shape, 1) + 2 * noise(shape, n)).astype(np.float64) for n in (1, 2)]
    for name, constant in (("low", 0.0), ("high", 1e6)):
        halves = [tmp_path / f"{name}{n}.tif" for n in (1, 2)]
        for path, half in zip(halves, values, strict=True):
            tifffile.imwrite(path, half + constant)
        page = tmp_path / f"{name}.html"
        words = ("--half1", halves[0], "--half2", halves[1], "--tilt-range", 60, "--methods", "fbp,n2n-general")
        good("compare", *words, "-o", page)
        found.append(numbers(page))
    assert any("1e+06 is taken off all voxels of high1.tif" in note for note in found[1]["notes"])
    first, second = ([plain_numbers(one) for one in made["comparison"]["methods"]] for made in found)
    assert len(first) == 2
    for one, other in zip(first, second, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


def plain_numbers(method):
    """What is told of a method, without the time that it took."""
    return {key: value for key, value in method.items() if isinstance(value, float) and key != "seconds"}


def test_models_of_one_name_are_told_apart_wherever_they_are_shown(tiny, tmp_path):
    page, paths = tmp_path / "page.html", [tmp_path / run / "net.safetensors" for run in ("run1", "run2")]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write_model(path, 1.0 - number / 10)
    words, again = of_tiny(tiny, page, *map(str, paths), "a"), tmp_path / "run1" / ".." / "run1" / "net.safetensors"
    result = good("compare", *words, "--models", again)  # each once
    titles = ["FBP", "model run1/net", "model run2/net", "model a"]
    assert [one["title"] for one in numbers(page)["comparison"]["methods"]] == titles
    assert [row[0] for row in csv.reader(page.with_suffix(".csv").read_text().splitlines())][1:] == titles
    for title in titles:
        assert title in result.stdout
        assert title in page.read_text()
    alone = good("compare", *of_tiny(tiny, page, str(paths[1])), "--overwrite")
    assert "model net: made before" in alone.stderr


def test_denoisers_that_learn_from_the_data_are_compared_and_what_they_warned_of_stands_on_the_page(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(model.SIZES, "published", SAMBA)
    monkeypatch.setitem(network.BACKBONES, "unet-small", UNET)
    for method in (n2n, samba):  # too few steps, however fast the machine is
        make = method.make_recipe
        monkeypatch.setattr(method, "make_recipe", lambda *a, make=make, **k: replace(make(*a, **k), most_steps=6))
    shape = (16, 64, 64)
    density = signal(shape, 1)
    paths = [write(tmp_path / f"{n}.mrc", density + 2 * noise(shape, n)) for n in (1, 2)]
    page, methods = tmp_path / "page.html", ("--methods", "fbp,n2n,samba", "--train-minutes", 0.05)
    given = ("--half1", paths[0], "--half2", paths[1], "--tilt-range", 60, *methods, "-o", page)
    result = good("compare", *given)
    record, shown = numbers(page), page.read_text()
    assert [one["name"] for one in record["comparison"]["methods"]] == ["fbp", "n2n", "samba"]
    assert all(np.isfinite(one["fsc_mean"]) for one in record["comparison"]["methods"])
    warned = [one["text"] for one in record["advice"] if one["level"] == "warning"]
    for title in ("Noise2Noise, trained", "Samba"):
        assert title in shown
        assert any(text.startswith(f"{title}: hardly trained") for text in warned)
        assert f"WARNING: {title}: hardly trained" in result.stderr
    files = {path.name for path in (tmp_path / "page.work" / "samba").iterdir()}
    assert {"half1.mrc", "half2.mrc", "whole.mrc", "whole.safetensors"} <= files
    again = good("compare", *given, "--overwrite")
    assert "Samba: made before" in again.stderr
    assert numbers(page)["comparison"] == record["comparison"]


def test_a_stack_of_all_frames_is_that_of_its_halves(tiny, tmp_path):
    page, images = tmp_path / "page.html", voxels(tiny / "ts.mrc")
    words, whole = [*of_tiny(tiny, page, "a"), "--dry-run"], tmp_path / "whole.mrc"
    words[0] = whole

    def told(values):
        write_series(tmp_path, np.asarray(values, np.float32), name="whole")

    told(20 * images + 1000)  # a sum, or scaled otherwise
    assert "whole.mrc" not in good("compare", *words).stderr
    told(-images)
    refused(*words, named=[str(whole), "opposite contrast"])
    told(np.random.default_rng(9).standard_normal(images.shape))
    said = good("compare", *words).stderr  # images so small are never surely others
    assert "Warning: ts_EVN.mrc and whole.mrc do not show the same: " in said
    assert "give the stack of all its frames" in said
    told(images[:, ::-1])
    refused(*words, named=["do not show the same (one mirrored along y would)"])
    told(images[::-1])
    refused(*words, named=["different orders", "in one order"])
    told(voxels(tiny / "ts_ODD.mrc"))
    refused(*words, named=["ts_ODD.mrc", "one half", "leave TILTS out"])
    images[3] = np.random.default_rng(9).standard_normal(images[3].shape)
    told(images)
    assert "Warning: ts_EVN.mrc and whole.mrc do not show the same in image 4" in good("compare", *words).stderr
    assert "image 4" not in good("compare", *words, "--exclude", 4).stderr


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path):
    shape = (24, 40, 36)
    one, two = (write(tmp_path / f"{n}.mrc", noise(shape, n)) for n in (1, 2))
    other = write(tmp_path / "other.mrc", noise((24, 40, 30), 3))
    copied = shutil.copy(one, tmp_path / "copied.mrc")
    tilts, angles = write_series(tmp_path)
    page = ("-o", tmp_path / "page.html")
    both = ("--half1", one, "--half2", two)
    refused(*page, named=["give TILTS and ANGLES"])
    refused("--half1", one, *page, named=["--half1 needs --half2", "independent"])
    refused(tilts, angles, "--odd", tilts, *page, named=["--odd needs --even"])
    refused(tilts, angles, *both, *page, named=["not both"])
    refused("--half1", one, "--half2", other, *page, named=["differ in shape", "(24, 40, 30)"])
    refused("--half1", one, "--half2", copied, *page, named=["the same volume"])
    refused("--half1", one, "--half2", tmp_path / "none.mrc", *page, named=["does not exist"])
    refused(*both, "--methods", "sirt", *page, named=["sirt reconstructs from images"])
    refused(*both, "--models", "draft", *page, named=["draft reconstructs from images"])
    refused(*both, "--methods", "gausian", *page, named=["did you mean 'gaussian'"])
    refused(*both, "--methods", "fbp,,n2n", *page, named=["expected names with commas"])
    refused(*both, "--tilt-range", "95", *page, named=["within ±90"])
    refused(tilts, angles, "--tilt-range", "60", *page, named=["for half volumes"])
    refused(tilts, *page, named=["give ANGLES"])
    refused(*both, "-o", tmp_path / "page.pdf", named=[".html"])
    refused(*both, "-o", tmp_path / "nowhere" / "page.html", named=["no folder"])
    refused(*both, "--labels", one, *page, named=["--truth"])
    refused(*both, "--truth", other, *page, named=["the truth", "(24, 40, 30)"])
    refused(*both, "--template", other, *page, named=["--particles belong together"])
    refused(tilts, angles, "--thickness", 4, *page, named=["too small"])
    found = signal(shape)
    half, turned = (
        write(tmp_path / f"{n}.mrc", sign * found + noise(shape, sign + 5)) for n, sign in (("p", 1), ("n", -1))
    )
    last = refused("--half1", half, "--half2", turned, *page, "--methods", "fbp,gaussian", named=["opposite contrast"])
    assert "invert one" in last
    shutil.rmtree(tmp_path / "page.work")
    (tmp_path / "tomo.json").write_text('{"program": {"name": "CryoLithe"}}')
    refused(*both, "-o", tmp_path / "tomo.html", "--overwrite", named=["holds no comparison"])
    few = write_series(tmp_path, np.asarray(noise((4, 40, 48), 1)), ANGLES[:4], "few")
    refused(*few, *page, named=["4 tilts", "6 or more"])
    assert not (tmp_path / "page.work").exists()


def test_particles_that_do_not_fit_are_refused(tmp_path):
    shape = (24, 40, 36)
    paths = [write(tmp_path / f"{n}.mrc", noise(shape, n)) for n in (1, 2)]
    words = ("--half1", paths[0], "--half2", paths[1], "-o", tmp_path / "page.html", "--methods", "fbp")
    star = tmp_path / "p.star"
    star.write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n18 20 12\n")
    away = tmp_path / "away.star"
    away.write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n900 20 12\n")
    small, large = (write(tmp_path / f"map{n}.mrc", noise((n, n, n), 5)) for n in (10, 64))
    fits = ("--template", small, "--particles", star)
    refused(*words, "--template", large, "--particles", star, "--particle-diameter", 80, named=["more than the volume"])
    refused(
        *words, "--template", small, "--particles", away, "--particle-diameter", 80, named=["none of the 1 particles"]
    )
    refused(*words, *fits, named=["280 Å is 28.0 voxels wide"])
    refused(*words, *fits, "--particle-diameter", 80, "--kind", "x", named=["no particle of the kind 'x'"])
    star.write_text(star.read_text() + "18 20 900\n")
    said = good("compare", *words, *fits, "--particle-diameter", 80).stderr
    assert "1 of 2 particles lie outside the volume of 24 x 40 x 36 voxels" in said
    assert "turned round" not in said
    assert numbers(tmp_path / "page.html")["comparison"]["methods"][0]["matching"]["known"] == 1


def test_particles_beside_volumes_whose_z_is_turned_round_are_told_of(tmp_path):
    series = write_series(tmp_path, np.asarray(noise((len(ANGLES), 40, 48), 1)), ANGLES, "ts")
    star, small = tmp_path / "p.star", write(tmp_path / "map.mrc", noise((10, 10, 10), 5))
    star.write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n18 20 12\n")
    fits = ("--template", small, "--particles", star, "--particle-diameter", 80, "--thickness", 24, "--dry-run")
    words = (*series, "-o", tmp_path / "page.html", "--methods", "fbp", *fits)
    assert "turned round" not in good("compare", *words).stderr
    assert "Note: The volume's z is turned round (--flip-z)" in good("compare", *words, "--flip-z").stderr
