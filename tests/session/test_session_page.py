"""The page of a session: what it tells, and that it can be sorted and filtered in a browser."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from patience import PATIENCE_S
from PIL import Image

from cryolithe.report.page import document
from cryolithe.session.summary import HEADS, HTML_NAME, SCRIPT, write_summary

NODE = shutil.which("node")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
UNKIND = "</script><b onclick=x()> & 'é' \"漢\""


def outcome(folder, name, status="done", seconds=1.0, method="fbp", model=None, side=8, preview=True):
    """What became of a series, without making it."""
    job = SimpleNamespace(output=folder / f"{name}_rec.mrc", preview=folder / f"{name}_rec.png")
    if preview:
        Image.fromarray(np.full((30, 40), 120, np.uint8)).save(job.preview)
    record = {
        "volume": {"shape_zyx": [side, 2 * side, 2 * side], "voxel_size_angstrom": 10.0, "statistics": {"mean": 0.5}},
        "method": {"name": method, **({"model": {"name": model}} if model else {})},
        "geometry": {"tilt_angles_deg": [0.0] * 41, "excluded_sections": [1, 2]},
        "self_check": {"correlation": 0.75, "shift_zyx_px": [0.1, -3.0, 0.0]},
        "seconds": {"total": seconds},
        "warnings": ["careful"] if name == "warned" else [],
    }
    broken = status in ("failed", "to do")
    message = f"{name}: failed: no such thing as {UNKIND}" if broken else f"{name} is {status}"
    return SimpleNamespace(
        task=SimpleNamespace(name=name, job=job), status=status, message=message, record={} if broken else record
    )


@pytest.fixture
def page(tmp_path):
    made = [
        outcome(tmp_path, "ts 10", seconds=100.0, method="network", model="default", side=16),
        outcome(tmp_path, "ts 9", status="skipped", seconds=20.0),
        outcome(tmp_path, "b<&é", status="failed", preview=False),
        outcome(tmp_path, "warned", seconds=3.0, method="sirt", side=12),
        outcome(tmp_path, "later", status="to do", preview=False),
    ]
    write_summary(tmp_path, tmp_path, made)
    return tmp_path / HTML_NAME


class Told(HTMLParser):
    """Rows of the table, links, pictures and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.links, self.pictures, self.text, self.inside = [], [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.links += [unquote(value) for name, value in attrs if tag == "a" and name == "href"]
        self.pictures += [unquote(value) for name, value in attrs if tag == "img" and name == "src"]

    def handle_data(self, data):
        if self.inside in ("td", "th", "a") and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()
        if self.inside not in ("script", "style"):
            self.text += data


def test_it_tells_method_model_and_what_was_done_before(page):
    told = Told(page.read_text(encoding="utf-8"))
    rows = {cells[0]: dict(zip(HEADS, cells, strict=False)) for cells in told.rows[1:]}
    assert rows["ts 10"] | {"method": "network", "model": "default", "z × y × x": "16 × 32 × 32"} == rows["ts 10"]
    assert rows["ts 9"] | {"status": "done before", "method": "fbp", "model": "–"} == rows["ts 9"]
    assert rows["b<&é"] | {"status": "failed", "method": "–"} == rows["b<&é"]
    assert "2 done, 1 done before, 1 failed, 1 to do" in told.text
    assert "skipped" not in told.text
    assert "Method network, model default, 16 × 32 × 32 voxels (z, y, x), 10 Å." in told.text
    assert UNKIND in told.text


def test_pictures_are_links_to_themselves(page):
    told = Told(page.read_text(encoding="utf-8"))
    assert told.pictures == ["ts 10_rec.png", "ts 9_rec.png", "warned_rec.png"]
    for picture in told.pictures:
        assert told.links.count(picture) == 2
        assert (page.parent / picture).is_file()


def test_a_browser_runs_the_pages_own_script_and_loads_nothing_from_elsewhere(page):
    text = page.read_text(encoding="utf-8")
    (code,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert code == "\n" + SCRIPT.read_text(encoding="utf-8")
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy.split("; ")[0] == "default-src 'none'"
    assert f"script-src 'sha256-{digest}'" in policy
    assert "http" not in policy
    assert not re.search(
        r"\son\w+=", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL).replace(html.escape(UNKIND), "")
    )


@pytest.mark.parametrize("script", ["a('</script>')", "<!-- b"])
def test_a_script_that_could_end_early_is_no_script_for_a_page(script):
    with pytest.raises(ValueError, match="must hold neither"):
        document("t", "", [], script=script)


@pytest.mark.skipif(NODE is None, reason="needs node to run the page's script")
def test_the_order_of_cells():
    code = (
        SCRIPT.read_text(encoding="utf-8")
        + """
    const sorted = (cells, numeric, falling) => [...cells].sort((a, b) => compared(a, b, numeric, falling));
    console.log(JSON.stringify([
      sorted(["20.0", "–", "3.1", "100.5"], true, false),
      sorted(["20.0", "–", "3.1", "100.5"], true, true),
      sorted(["16 × 32 × 32", "8 × 99 × 99", "2 × 2 × 2"], true, false),
      sorted(["0.1, -3.0, 0.0", "1.0, 1.0, 1.0", "–"], true, false),
      sorted(["ts 10", "TS 9", "é", "d"], false, false),
    ]));"""
    )
    done = subprocess.run([NODE, "-e", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [
        ["3.1", "20.0", "100.5", "–"],
        ["100.5", "20.0", "3.1", "–"],
        ["2 × 2 × 2", "16 × 32 × 32", "8 × 99 × 99"],
        ["1.0, 1.0, 1.0", "0.1, -3.0, 0.0", "–"],
        ["d", "é", "TS 9", "ts 10"],
    ]


def in_browser(page, act):
    """The page after ``act``, a script that the browser is allowed to run at its end; what it made of it as HTML."""
    text, code = page.read_text(encoding="utf-8"), f"\n{act}"
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src &#x27;sha256-{digest}&#x27; ")
    copy = page.with_name("acted.html")
    copy.write_text(text.replace("</body>", f"<script>{code}</script></body>"), encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run(
        [BROWSER, *words, profile, copy.as_uri()], capture_output=True, timeout=PATIENCE_S, check=True
    )
    return done.stdout.decode("utf-8")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_sorting_and_filtering_in_a_browser(page):
    act = """
    const names = () => [...document.querySelector("tbody").rows].filter((r) => !r.hidden)
      .map((r) => r.cells[0].textContent);
    const titles = [...document.querySelectorAll("th")];
    const by = (name) => titles.find((t) => t.textContent === name);
    const seen = { first: names() };
    by("seconds").click(); seen.seconds = names();
    by("seconds").click(); seen.falling = names();
    seen.aria = by("seconds").getAttribute("aria-sort");
    by("series").dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" })); seen.series = names();
    const [typed, status] = [document.querySelector("input"), document.querySelector("select")];
    seen.kinds = [...status.options].map((o) => o.textContent);
    typed.value = "NETWORK Default"; typed.dispatchEvent(new Event("input")); seen.typed = names();
    seen.sections = [...document.querySelectorAll("section")].filter((s) => !s.hidden).length;
    seen.count = document.querySelector("output").textContent;
    typed.value = "no such thing"; typed.dispatchEvent(new Event("input")); seen.message = names();
    typed.value = ""; status.value = "done before"; status.dispatchEvent(new Event("change")); seen.status = names();
    addEventListener("load", () => {
      seen.pictures = [...document.images].map((i) => { i.loading = "eager"; return i.src; }).length;
      const probe = new Image();
      probe.onload = () => { seen.loaded = probe.naturalWidth; document.title = JSON.stringify(seen); };
      probe.onerror = () => { seen.loaded = 0; document.title = JSON.stringify(seen); };
      probe.src = document.images[0].src;
    });"""
    text = in_browser(page, act)
    seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", text, re.DOTALL)[1]))
    assert seen["first"] == ["ts 10", "ts 9", "b<&é", "warned", "later"]
    assert seen["seconds"] == ["warned", "ts 9", "ts 10", "b<&é", "later"]
    assert seen["falling"][:3] == ["ts 10", "ts 9", "warned"]
    assert seen["aria"] == "descending"
    assert seen["series"] == ["b<&é", "later", "ts 9", "ts 10", "warned"]
    assert seen["kinds"] == ["every status", "done", "done before", "failed", "to do"]
    assert seen["typed"] == ["ts 10"]
    assert seen["sections"] == 1
    assert seen["count"] == "1 of 5 series shown"
    assert sorted(seen["message"]) == ["b<&é", "later"]
    assert seen["status"] == ["ts 9"]
    assert seen["pictures"] == 3
    assert seen["loaded"] == 40
