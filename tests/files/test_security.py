"""What a file, a name or a link must not be able to do: run code, leave its folder, or break a page or a terminal."""

from __future__ import annotations

import ast
import csv
import json
import os
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from command import good, refusal_of
from tiny_series import made, noise, run, voxels, write_series

from cryolithe.formats import write_volume
from cryolithe.session.summary import SCRIPT
from cryolithe.volume import Volume

PACKAGE = Path(__file__).resolve().parents[2] / "cryolithe"
FBP = ("--method", "fbp", "--thickness", "4")

# Modules that run what they read, and calls that run text.
MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib",
    "code",
    "codeop",
    "pty",
}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.spawnl", "os.spawnv", "tempfile.mktemp"}
CALLS |= {"subprocess.getoutput", "subprocess.getstatusoutput", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
CALLS |= {"yaml.load_all", "pandas.read_pickle", "pandas.eval", "torch.jit.load", "torch.hub.load", "runpy.run_path"}


def dotted(node):
    """``a.b.c`` of a name or attribute, with ? for what is neither."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def dangers(source):
    """Everything in a module that can run code from a file or a shell."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"import {name.name}" for name in node.names if name.name.split(".")[0] in MODULES]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(f"from {node.module}")
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in CALLS:
            found.append(name)
        if given.get("shell", "False") != "False":
            found.append(f"{name}(shell=...)")
        if given.get("allow_pickle", "False") != "False":
            found.append(f"{name}(allow_pickle=...)")
        if name in ("torch.load", "load") and name == "torch.load" and given.get("weights_only") != "True":
            found.append("torch.load without weights_only")
        if name.startswith("subprocess.") and node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
            found.append(f"{name} of one text")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_can_run_what_it_reads(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(path)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "os.system('ls')",
        "subprocess.run(f'ls {path}')",
        "subprocess.run(words, shell=True)",
        "yaml.load(text, yaml.Loader)",
        "def f():\n    import cloudpickle",
    ],
)
def test_the_check_finds_what_it_is_for(source):
    assert len(dangers(source)) == 1


# Names

NAMES = [
    "two  blanks",
    "it's",
    'say "x"',
    "line\nbreak",
    "übergröße 漢字 🧊",
    "$(touch owned)",
    "`touch owned`; touch owned | tee owned & #",
    "%s %n {0} {x}",
    "[x]*?",
    "$a_{b$ \\frac{",
    "-o",
    "--help",
    "<img src=x onerror=alert(1)>&amp;",
    "\x1b[31mred\a",
    os.fsdecode(b"not utf-8 \xff\xfe"),
]


@pytest.fixture
def named(request, tmp_path, monkeypatch):
    """A folder of that name with a series of that name, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / request.param
    folder.mkdir()
    write_series(folder, name=request.param)
    return folder, request.param


@pytest.mark.slow
@pytest.mark.parametrize("named", NAMES, indirect=True, ids=ascii)
def test_any_name_of_stack_angles_output_and_alignment(named, tmp_path):
    folder, name = named
    (folder / f"{name}.xf").write_text("1 0 0 1 0 0\n" * 11)
    result = made(
        folder / f"{name}.mrc", folder / f"{name}.tlt", "--xf", folder / f"{name}.xf", "-o", folder / f"{name}_rec.mrc",
        "--preview", *FBP,
    )  # fmt: skip
    assert "\x1b" not in result.output
    assert {path.name for path in folder.iterdir()} == {
        f"{name}{ending}" for ending in (".mrc", ".tlt", ".xf", "_rec.mrc", "_rec.json", "_rec.png")
    }
    record = json.loads((folder / f"{name}_rec.json").read_text(encoding="utf-8"))
    if "\ufffd" not in name and name.isascii():
        assert record["inputs"]["tilts"]["path"] == str(folder / f"{name}.mrc")
    assert voxels(folder / f"{name}_rec.mrc").shape == (4, 40, 48)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
@pytest.mark.parametrize("named", [n for n in NAMES if n.isprintable() and '"' not in n], indirect=True, ids=ascii)
def test_any_name_in_a_list_and_on_its_page(named, tmp_path):
    name = named[1]
    with (tmp_path / "list.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("tilts", "angles"), (f"{name}/{name}.mrc", f"{name}/{name}.tlt"), ("no", "no")])
    (tmp_path / "out").mkdir()
    result = run("--list", tmp_path / "list.csv", "-o", tmp_path / "out", *FBP)
    assert result.exit_code == 1, result.output  # for the second series, which is not there
    page = (tmp_path / "out" / "cryolithe_summary.html").read_text(encoding="utf-8")
    read = Page(page, scripts=[f"\n{SCRIPT.read_text(encoding='utf-8')}"])
    assert name in read.text
    assert read.tags <= SUMMARY_TAGS
    with (tmp_path / "out" / "cryolithe_summary.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["series"] for row in rows] == [name, "no"]
    assert [row["status"] for row in rows] == ["done", "failed"]
    for source in read.sources:
        from urllib.parse import unquote

        assert (tmp_path / "out" / unquote(source)).is_file()


SUMMARY_TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "br", "table", "thead", "tbody"}
SUMMARY_TAGS |= {"tr", "th", "td", "a", "section", "img", "script"}


class Page(HTMLParser):
    """Tags, image sources and text of a page; fails at foreign scripts and at handlers of events."""

    def __init__(self, content, scripts=()):
        super().__init__()
        self.tags, self.sources, self.text, self.inside = set(), [], "", ""
        self.scripts = list(scripts)
        self.feed(content)
        assert self.scripts == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.inside = tag
        assert tag not in ("iframe", "object", "embed", "form")
        assert tag != "script" or (self.scripts and attrs == [])
        assert not any(name.startswith("on") for name, _ in attrs)
        self.sources += [value for name, value in attrs if tag == "img" and name == "src"]

    def handle_data(self, data):
        if self.inside == "script":
            assert data == self.scripts.pop(0)
            self.inside = ""
        else:
            self.text += data


@pytest.mark.slow
def test_names_on_the_page_of_an_evaluation(tmp_path):
    name = "<img src=x onerror=alert(1)> $a_{b$"
    rng = np.random.default_rng(0)
    path = tmp_path / f"{name}.mrc"
    write_volume(path, Volume(rng.standard_normal((16, 24, 24)).astype(np.float32), 10.0), label="noise")
    good("evaluate", path, "-o", tmp_path / "out")
    (page,) = (tmp_path / "out").parent.rglob("*.html")
    read = Page(page.read_text(encoding="utf-8"))
    assert name in read.text
    assert all(source.startswith("data:image/png;base64,") for source in read.sources)


@pytest.mark.parametrize(
    "name",
    ["line\nbreak", "\x1b[31mred\a", os.fsdecode(b"\xff"), "x" * 300],
    ids=["line end", "escape", "bytes", "long"],
)
@pytest.mark.parametrize("place", ["tilts", "angles", "output", "config", "list", "model", "xf"])
def test_an_error_with_any_name_is_one_plain_line(name, place, tmp_path):
    stack, angles = write_series(tmp_path)
    words = {
        "tilts": [tmp_path / name, angles, *FBP],
        "angles": [stack, tmp_path / name, *FBP],
        "output": [stack, angles, "-o", tmp_path / name / "v.mrc", *FBP],
        "config": [stack, angles, "--config", tmp_path / name, *FBP],
        "list": ["--list", tmp_path / name, *FBP],
        "model": [stack, angles, "--model", tmp_path / name],
        "xf": [stack, angles, "--xf", tmp_path / name, *FBP],
    }[place]
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = [text for text in result.stderr.split("\n") if text and not text.startswith(("Plan: ", "Usage: "))]
    assert line.startswith("Error: ")
    assert line.isprintable()


@pytest.mark.parametrize("value", ["9" * 400, "9" * 5000, "1e400", "nan", "0x10", "٣" * 400])
@pytest.mark.parametrize("option", ["--thickness", "--bin", "--pixel-size", "--max-memory", "--tilt-axis"])
def test_numbers_of_any_size_in_the_command(option, value, tmp_path):
    stack, angles = write_series(tmp_path)
    result = run(stack, angles, "--method", "fbp", option, value)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert not (tmp_path / "ts_rec.mrc").exists()


@pytest.mark.parametrize("option", ["xf", "newst_com", "tilt_com", "aln", "star", "warp", "model"])
def test_a_name_with_a_null_character_in_a_settings_file(option, tmp_path):
    stack, angles = write_series(tmp_path)
    (tmp_path / "s.yaml").write_text(f'{option}: "a\\0b"\n')
    given = [] if option in ("star", "warp") else [angles]
    result = run(stack, *given, "--config", tmp_path / "s.yaml", *([] if option == "model" else FBP))
    assert isinstance(result.exception, SystemExit)
    refusal_of(result)


# Links


def test_a_link_in_the_place_of_the_output_is_replaced_not_followed(tmp_path):
    stack, angles = write_series(tmp_path)
    (tmp_path / "out").mkdir()
    for name in ("v.mrc", "v.png"):
        (tmp_path / f"precious_{name}").write_bytes(b"precious")
        (tmp_path / "out" / name).symlink_to(tmp_path / f"precious_{name}")
    output = tmp_path / "out" / "v.mrc"
    assert run(stack, angles, "-o", output, *FBP).exit_code == 2
    made(stack, angles, "-o", output, "--overwrite", "--preview", *FBP)
    for name in ("v.mrc", "v.png"):
        assert (tmp_path / f"precious_{name}").read_bytes() == b"precious"
        assert not (tmp_path / "out" / name).is_symlink()


def test_a_link_in_the_place_of_an_ome_zarr_part(tmp_path):
    pytest.importorskip("zarr")
    stack, angles = write_series(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    partial = tmp_path / "v.zarr.partial"
    partial.mkdir()
    (partial / "finished.zarr").symlink_to(outside)
    result = run(stack, angles, "-o", tmp_path / "v.zarr", "--format", "ome-zarr", *FBP)
    assert [path.name for path in outside.iterdir()] == ["precious"]
    if result.exit_code:
        assert result.stderr.splitlines()[-1].startswith("Error: ")
    else:
        assert not (tmp_path / "v.zarr").is_symlink()


def test_summaries_are_not_written_through_links(tmp_path):
    write_series(tmp_path)
    (tmp_path / "list.csv").write_text("tilts,angles\nts.mrc,ts.tlt\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    for name in ("cryolithe_summary.csv", "cryolithe_summary.html"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "precious")
    made("--list", tmp_path / "list.csv", "-o", tmp_path / "out", *FBP)
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.slow
def test_the_real_process_takes_any_name(tmp_path):
    """Once through the operating system: arguments, standard error and exit code."""
    import subprocess

    folder = tmp_path / os.fsdecode("ü '\"\n\xff".encode("latin-1"))
    folder.mkdir()
    stack, angles = write_series(folder, noise())
    command = [sys.executable, "-m", "cryolithe", "reconstruct", str(stack), str(angles), *FBP]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert (folder / "ts_rec.mrc").is_file()
