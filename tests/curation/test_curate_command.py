"""`cryolithe pairs curate` through the real command: sheets, and the manifests that come of them."""

import base64
import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_entry import TRAINING_DATA, fake_entry
from patience import PATIENCE_S
from test_pairs_command import run

from cryolithe.curation.arrays import oriented
from cryolithe.curation.manifest import read_manifest, write_manifest
from cryolithe.formats import read_mrc, write_angles_deg
from cryolithe.formats import write_volume as write_labelled
from cryolithe.formats.pairs import Pair, write_pair
from cryolithe.volume import Volume

SHIPPED = TRAINING_DATA / "empiar_11830.yaml"
NAMES = ("tomo_001", "tomo_002")
NODE = shutil.which("node")


def write_volume(path, volume, overwrite=False):
    write_labelled(path, volume, label="test", overwrite=overwrite)


def curate(*arguments):
    result = run("curate", *arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments):
    result = run("curate", *arguments)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """A copy of the shipped entry with two of its pairs, and its sheet."""
    root = tmp_path_factory.mktemp("entry")
    fake_entry(read_manifest(SHIPPED), NAMES, root / "copy")
    result = curate(root / "copy", "--manifest", SHIPPED, "-o", root / "sheet")
    assert "2 of 2 candidates kept by threshold" in result.stdout
    assert "tomo_018: left out: 5 of 5 files are missing" in result.stderr
    return root


@pytest.fixture
def tomograms(tmp_path):
    """Tomograms with and without halves, and some that are no use."""
    folder = tmp_path / "tomograms"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def volume(noise):
        z, y, x = np.mgrid[:24, :40, :48]
        blobs = np.cos(z / 3) * np.cos(y / 4) * np.cos(x / 5) * (abs(z - 12) < 8)
        return Volume((blobs + noise * rng.standard_normal(blobs.shape)).astype(np.float32), 12.0)

    for half in ("_EVN", "_ODD"):
        write_volume(folder / f"good{half}.mrc", volume(0.2))
        write_volume(folder / f"poor{half}.mrc", volume(30))
    write_volume(folder / "good.mrc", volume(0.1))
    write_angles_deg(folder / "good.tlt", [-50.0, 0.0, 50.0])
    write_volume(folder / "flat.rec", Volume(np.full((24, 40, 48), 3, np.float32), 12.0))
    spoilt = volume(0.1)
    spoilt.voxels[3, 4, 5:8] = np.nan
    write_volume(folder / "nan.mrc", spoilt)
    return folder


def table(folder):
    with (folder / "curate.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


class Page(HTMLParser):
    """What a page is made of, and whether its tags are closed."""

    VOID = ("meta", "img", "br", "input", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1][1]:
            self.text[self.open[-1][1]] = self.text.get(self.open[-1][1], "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.slow
def test_the_page_is_whole_small_and_needs_nothing_beside_it(entry):
    text = (entry / "sheet" / "curate.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    bare = (TRAINING_DATA.parent / "cryolithe" / "curation" / "page").glob("*")
    assert len(text) - sum(path.stat().st_size for path in bare) < 50_000 * len(NAMES)
    for tag in ("script", "img", "link", "iframe"):
        for attributes in page.all(tag):
            assert tag in ("script", "img")
            assert attributes.get("src", "data:").startswith("data:")
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|import\(", text)
    images = page.all("img")
    assert len(images) == 2 * len(NAMES)
    for image in images:
        assert base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))[:3] == b"\xff\xd8\xff"
        assert image["alt"]
    assert text.count('class="bar"') == len(NAMES)
    rows = [attributes["data-name"] for attributes in page.all("tr") if "data-name" in attributes]
    assert sorted(rows) == sorted(NAMES)
    assert len([box for box in page.all("input") if "checked" in box]) == len(NAMES)
    record = json.loads(page.text["data"])
    stored = json.loads((entry / "sheet" / "curate.json").read_text())
    assert {key: value for key, value in record.items() if key != "id"} == stored


@pytest.mark.slow
def test_numbers_of_an_entry(entry):
    for row in table(entry / "sheet").values():
        assert 0.2 < float(row["fsc_mean"]) < 0.9
        assert 15.7 < float(row["resolution"]) < 60
        assert float(row["contrast"]) > 0.2
        assert abs(float(row["streak_db"])) < 3
        assert float(row["empty_fraction"]) < 0.5
        assert row["noise_from"] == "halves"
        assert row["tilt_range_deg"] == "-60.0; 60.0"


def test_choices_become_a_manifest_that_check_and_build_accept(entry, tmp_path):
    choices = json.loads((entry / "sheet" / "curate.json").read_text())
    for candidate in choices["candidates"]:
        candidate["keep"] = candidate["name"] == "tomo_002"
        candidate["comment"] = "thin: 'fine' # yes"
    saved = tmp_path / "choices.json"
    saved.write_text(json.dumps(choices))
    kept = tmp_path / "sub" / "kept.yaml"
    kept.parent.mkdir()
    assert "kept.yaml: 1 pairs of EMPIAR-11830" in curate("--apply", saved, "-o", kept).stdout
    manifest = read_manifest(kept)
    assert [pair.name for pair in manifest.pairs] == ["tomo_002"]
    assert manifest.pairs[0].note == "thin: 'fine' # yes"
    assert manifest.pairs[0].series == read_manifest(SHIPPED).pairs[1].series
    assert (kept.parent / manifest.data).resolve() == (entry / "copy").resolve()
    assert run("check", kept).exit_code == 0
    assert "exists" in refused("--apply", saved, "-o", kept)
    curate("--apply", saved, "-o", kept, "--overwrite", "--manifest", SHIPPED)
    assert read_manifest(kept) == manifest  # the sheet still knows where the copy is
    assert run("build", kept, "-o", tmp_path / "pairs").exit_code == 0

    # Pairs that were built are candidates again, and know their manifest.
    again = tmp_path / "again"
    curate(tmp_path / "pairs", "-o", again)
    curate("--apply", again / "curate.json", "-o", tmp_path / "again.yaml")
    assert read_manifest(tmp_path / "again.yaml").pairs[0].note is None
    by_pairs, by_entry = table(again)["tomo_002"], table(entry / "sheet")["tomo_002"]
    for key in ("fsc_mean", "streak_db", "contrast", "empty_fraction"):
        assert float(by_pairs[key]) == pytest.approx(float(by_entry[key]), rel=1e-3)


@pytest.mark.skipif(NODE is None, reason="needs node to run the page's script")
def test_the_manifest_that_the_page_saves_is_the_same(entry, tmp_path):
    page = Page((entry / "sheet" / "curate.html").read_text(encoding="utf-8"))
    comment = "µ \u2028 \x85 'a': [b] # \"c\"\nnext \\ line"
    (tmp_path / "logic.js").write_text(
        page.text["logic"]
        + f"""
const record = {page.text["data"]};
const chosen = remembered(record, JSON.stringify({{
  tomo_002: {{ keep: false, comment: "" }}, tomo_001: {{ keep: true, comment: {json.dumps(comment)} }},
  other: {{ keep: true, comment: "" }}, }}));
const nothing = remembered(record, JSON.stringify({{
  tomo_002: {{ keep: false, comment: "" }}, tomo_001: {{ keep: false, comment: "" }} }}));
console.log(JSON.stringify({{
  counts: counts(record, chosen), manifest: manifestText(record, chosen), choices: choicesText(record, chosen),
  nothing: manifestText(record, nothing), damaged: remembered(record, "{{"),
  order: [3, null, 1].sort((a, b) => compare(a, b, true)),
}}));
""",
        encoding="utf-8",
    )
    done = subprocess.run(
        [NODE, str(tmp_path / "logic.js")], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    made = json.loads(done.stdout)
    assert made["counts"] == {"kept": 1, "rejected": 1}
    assert made["nothing"] is None
    assert made["damaged"]["tomo_001"]["keep"] is True
    assert made["order"] == [3, 1, None]
    (tmp_path / "manifest.yaml").write_text(made["manifest"], encoding="utf-8")
    (tmp_path / "choices.json").write_text(made["choices"], encoding="utf-8")
    saved = read_manifest(tmp_path / "manifest.yaml")
    assert [pair.name for pair in saved.pairs] == ["tomo_001"]
    assert saved.pairs[0].note == comment
    for name in ("manifest.yaml", "choices.json"):
        curate("--apply", tmp_path / name, "-o", tmp_path / f"from_{name}.yaml")
        curate("--apply", tmp_path / name, "-o", tmp_path / f"with_{name}.yaml", "--manifest", SHIPPED)
    first = read_manifest(tmp_path / "from_manifest.yaml.yaml")
    assert first == read_manifest(tmp_path / "from_choices.json.yaml")
    assert first == read_manifest(tmp_path / "with_choices.json.yaml")
    assert first.pairs == read_manifest(tmp_path / "with_manifest.yaml.yaml").pairs
    assert run("check", tmp_path / "from_manifest.yaml.yaml").exit_code == 0


def test_tomograms_are_ranked_flagged_and_drafted(tomograms, tmp_path):
    (tomograms / "broken.mrc").write_bytes(b"no tomogram")
    write_volume(tomograms / "slice.mrc", Volume(np.eye(48, dtype=np.float32)[None], 12.0))
    result = curate(tomograms, "-o", tmp_path / "sheet")
    assert "broken: left out:" in result.stderr
    assert "slice: left out: a volume of 1 x 48 x 48" in result.stderr
    rows = table(tmp_path / "sheet")
    assert next(iter(rows)) == "good"
    assert set(list(rows)[2:]) == {"flat", "nan"}
    assert rows["good"]["tilt_range_deg"] == "-50.0; 50.0"
    assert rows["good"]["keep"] == "True"
    assert "contrast" in rows["poor"]["against"]
    assert rows["flat"]["against"] == "all values are 3"
    assert rows["nan"]["against"] == "3 values are NaN or infinite"
    assert float(rows["good"]["fsc_mean"]) > 0.2 > float(rows["poor"]["fsc_mean"])
    page = (tmp_path / "sheet" / "curate.html").read_text(encoding="utf-8")
    assert "2 could not be read" in page
    draft = curate("--apply", tmp_path / "sheet" / "curate.json", "-o", tmp_path / "draft.yaml")
    assert "draft" in draft.stderr
    manifest = read_manifest(tmp_path / "draft.yaml")
    assert [pair.name for pair in manifest.pairs] == ["good"]
    assert str(manifest.paths(manifest.pairs[0])["target"]) == "good.mrc"
    assert manifest.voxel_size_angstrom == 12
    check = run("check", tmp_path / "draft.yaml")
    assert check.exit_code == 1
    assert "good.st" in check.stdout


def test_halves_that_are_the_same_or_do_not_fit(tomograms, tmp_path):
    shutil.copy(tomograms / "good_EVN.mrc", tomograms / "good_ODD.mrc")
    write_volume(tomograms / "poor_ODD.mrc", Volume(np.eye(48, dtype=np.float32)[None].repeat(24, 0)), overwrite=True)
    result = curate(tomograms, "-o", tmp_path / "sheet")
    assert "poor: left out:" in result.stderr
    assert "expected that of poor_EVN.mrc" in result.stderr
    assert table(tmp_path / "sheet")["good"]["against"] == "even and odd halves are the same"


def test_stacks_are_left_out_and_volumes_are_turned_upright(tomograms, tmp_path):
    good = read_mrc(tomograms / "good.mrc").data
    folder = tmp_path / "more"
    folder.mkdir()
    stack = np.random.default_rng(1).standard_normal((13, 40, 48)).astype(np.float32)
    write_volume(folder / "ts.mrc", Volume(stack, 12.0))
    write_angles_deg(folder / "ts.tlt", np.linspace(-60, 60, 13))
    write_volume(folder / "plain.mrc", Volume(good, 12.0))
    write_angles_deg(folder / "plain.tlt", np.linspace(-60, 60, 13))  # not as many as there are planes
    turned = np.ascontiguousarray(good[::-1].transpose(1, 0, 2))
    write_volume(folder / "turned.mrc", Volume(turned, 12.0))
    record = {"geometry": {"axis_order": "yzx"}, "volume": {"shape_zyx": good.shape}}
    (folder / "turned.json").write_text(json.dumps(record))
    write_angles_deg(folder / "turned.tlt", np.linspace(-60, 60, 13))
    result = curate(folder, "-o", tmp_path / "sheet")
    assert "ts: left out:" in result.stderr
    assert "is a stack of tilt images, not a volume: ts.tlt beside it holds 13" in result.stderr
    rows = table(tmp_path / "sheet")
    assert set(rows) == {"plain", "turned"}
    for number in ("streak_db", "contrast", "empty_fraction", "shape_zyx"):
        assert rows["turned"][number] == rows["plain"][number], number
    assert rows["plain"]["resolution_reached"] == ""  # there are no halves
    curate(folder, "-o", tmp_path / "one", "--pattern", "turned.mrc")
    curate("--apply", tmp_path / "one" / "curate.json", "-o", tmp_path / "draft.yaml")
    draft = read_manifest(tmp_path / "draft.yaml")
    assert (oriented(turned, draft) == good).all()


def test_a_pair_with_images_that_are_no_numbers_is_rejected(tmp_path):
    rng = np.random.default_rng(0)
    angles = tuple(np.linspace(-60, 60, 13))
    truth = rng.standard_normal((16, 24, 32)).astype(np.float32)
    images = {name: rng.standard_normal((13, 24, 32)).astype(np.float32) for name in ("fine", "lost", "even", "odd")}
    images["lost"][4] = np.nan
    spoilt = images["even"].copy()
    spoilt[3, 23, 31] = np.inf
    for name, all_, even in (
        ("fine", images["fine"], images["even"]),
        ("lost", images["lost"], images["even"]),
        ("half", images["fine"], spoilt),
        ("whole", np.rint(100 * images["fine"]).astype(np.int16), images["even"]),
    ):
        extras = {"even": even, "odd": images["odd"]}
        write_pair(tmp_path / f"{name}.h5", Pair(all_, truth, angles, 10.0, extras))
    curate(tmp_path, "-o", tmp_path / "sheet")
    against = {name: row["against"] for name, row in table(tmp_path / "sheet").items()}
    assert f"{24 * 32} values of the images are NaN" in against["lost"]
    assert "1 values of the images are NaN" in against["half"]
    assert not any("images" in against[name] for name in ("fine", "whole"))


def test_large_volumes_are_averaged(tomograms, tmp_path):
    small = read_mrc(tomograms / "good.mrc").data
    large = np.repeat(np.repeat(np.repeat(small, 4, 0), 4, 1), 4, 2)
    write_volume(tomograms / "large.mrc", Volume(large, 3.0))
    curate(tomograms, "-o", tmp_path / "sheet", "--pattern", "good.mrc", "--pattern", "large.mrc")
    record = json.loads((tmp_path / "sheet" / "curate.json").read_text())
    found = {candidate["name"]: candidate for candidate in record["candidates"]}
    assert found["large"]["averaged_by"] == 2
    assert found["large"]["shape_zyx"] == [96, 160, 192]
    assert found["good"]["averaged_by"] == 1


def test_simulated_pairs_have_no_manifest_but_a_list(tmp_path):
    (tmp_path / "pairs").mkdir()
    rng = np.random.default_rng(0)
    angles = tuple(np.linspace(-60, 60, 13))
    for name in ("TS_001", "TS_002"):
        images = rng.standard_normal((13, 24, 32)).astype(np.float32)
        truth = rng.standard_normal((16, 24, 32)).astype(np.float32)
        write_pair(tmp_path / "pairs" / f"{name}.h5", Pair(images, truth, angles, 10.0))
    write_volume(tmp_path / "pairs" / "TS_001.mrc", Volume(truth, 10.0))  # a stack beside a pair is no candidate
    curate(tmp_path / "pairs", "-o", tmp_path / "sheet")
    record = json.loads((tmp_path / "sheet" / "curate.json").read_text())
    assert {c["name"] for c in record["candidates"]} == {"TS_001", "TS_002"}
    assert record["manifest"] is None
    for candidate in record["candidates"]:
        candidate["keep"] = candidate["name"] == "TS_001"
    (tmp_path / "choices.json").write_text(json.dumps(record))
    assert ".txt" in refused("--apply", tmp_path / "choices.json", "-o", tmp_path / "kept.yaml")
    assert "1 files" in curate("--apply", tmp_path / "choices.json", "-o", tmp_path / "kept.txt").stdout
    assert (tmp_path / "kept.txt").read_text() == f"{(tmp_path / 'pairs' / 'TS_001.h5').resolve()}\n"
    assert "no pair 'TS_001'" in refused(tmp_path / "pairs", "-o", tmp_path / "s", "--manifest", SHIPPED)


def test_bad_input(tomograms, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    sheet = tmp_path / "sheet"
    assert "holds no candidates" in refused(empty, "-o", sheet)
    assert "is no folder" in refused(tmp_path / "nowhere", "-o", sheet)
    assert "give the folder DIR" in refused("-o", sheet)
    assert not sheet.exists()
    for name in ("a.mrc", "b.mrc"):
        (empty / name).write_bytes(b"")
    result = run("curate", empty, "-o", sheet)
    assert result.exit_code == 2
    assert "none of 2 candidates" in result.stderr.splitlines()[-1]
    assert not list(sheet.iterdir())
    curate(tomograms, "-o", sheet, "--pattern", "good.mrc")
    assert "curate.html exists; give --overwrite" in refused(tomograms, "-o", sheet)
    curate(tomograms, "-o", sheet, "--pattern", "good.mrc", "--overwrite")
    assert "cannot be written" in refused(tomograms, "-o", tomograms / "good.mrc")


def test_wrong_files_of_choices(entry, tmp_path):
    out = tmp_path / "out.yaml"
    wrong = {
        "missing.json": None,
        "text.json": "keep them all",
        "list.json": "[1, 2]",
        "other.json": '{"format": "other", "version": 1, "folder": "", "candidates": [{"name": "a", "keep": true}]}',
        "empty.json": '{"format": "cryolithe-curate", "version": 1, "folder": "", "candidates": []}',
        "kind.json": '{"format": "cryolithe-curate", "version": 1, "folder": "", "candidates": [{"keep": "no"}]}',
        "keys.yaml": "keep: [a, b]",
    }  # fmt: skip
    for name, text in wrong.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        assert name in refused("--apply", tmp_path / name, "-o", out)
    assert "no DIR" in refused(entry / "copy", "--apply", entry / "sheet" / "curate.json", "-o", out)
    one = read_manifest(SHIPPED)
    write_manifest(tmp_path / "one.yaml", one.model_copy(update={"pairs": one.pairs[3:]}))
    choices = entry / "sheet" / "curate.json"
    assert "no pair 'tomo_00" in refused("--apply", choices, "-o", out, "--manifest", tmp_path / "one.yaml")
    shutil.copy(choices, tmp_path / "same.json")
    assert "another name" in refused("--apply", tmp_path / "same.json", "-o", tmp_path / "same.json", "--overwrite")
    assert not out.exists()


def test_names_cannot_break_the_page(tomograms, tmp_path):
    (tomograms / "good.mrc").rename(tomograms / "a<b>&</script><!--ROWS-->.mrc".replace("/", "_"))
    curate(tomograms, "-o", tmp_path / "sheet", "--pattern", "a*.mrc")
    page = Page((tmp_path / "sheet" / "curate.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert json.loads(page.text["data"])["candidates"][0]["path"].startswith("a<b>&<")
