"""`make benchmarks`: what it runs, what it leaves out, and that it goes on where it stopped."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import run_all  # noqa: E402

HEAD = "a" * 40


def write(folder, name, commit=HEAD, **more):
    table = {"title": "t", "columns": ["a", "b"], "rows": [["x", 1]]}
    result = {"benchmark": name, "quick": False, "commit": commit, "tables": [table], **more}
    (folder / f"{name}.json").write_text(json.dumps(result))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Call run_all with scripts that write a result at once; returns what was run and what was printed."""
    monkeypatch.setattr(run_all, "commit", lambda: HEAD)

    def call(capsys, *words, code=0):
        ran = []

        def run(name, arguments, output):
            ran.append((name, arguments))
            write(output.parent, name)
            return f"{name}: ok", []

        monkeypatch.setattr(run_all, "run", run)
        monkeypatch.setattr(sys, "argv", ["run_all.py", "--results", str(tmp_path), *words])
        with pytest.raises(SystemExit) as end:
            run_all.main()
        assert end.value.code == code
        return ran, capsys.readouterr().out

    return call


def test_every_script_of_the_page_is_run_or_left_out_with_a_reason():
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").partition("## Results")[0]
    named = set(re.findall(r"^\| `(\w+)\.py`", page, re.MULTILINE))
    run = {run_all.script_of(name) for name in run_all.SCRIPTS | run_all.LONG}
    assert named == run | set(run_all.LEFT_OUT)
    assert not run & set(run_all.LEFT_OUT)


@pytest.mark.parametrize("name", sorted(run_all.TAKE_MOLECULES))
def test_what_is_given_molecules_takes_them(name):
    text = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    assert '"--molecules"' in text or "specimen_arguments(" in text


def test_what_has_a_result_of_this_commit_is_not_run_again(tmp_path, runs, capsys):
    write(tmp_path, "speed")
    write(tmp_path, "real", commit="b" * 40)
    write(tmp_path, "memory", quick=True)
    ran, told = runs(capsys, "--only", "speed,real,memory")
    assert [name for name, _ in ran] == ["real", "memory"]
    assert "speed: done already" in told
    assert "all tables are of this commit" in told
    assert [name for name, _ in runs(capsys, "--only", "speed,real")[0]] == []
    assert [name for name, _ in runs(capsys, "--only", "speed,real", "--again")[0]] == ["speed", "real"]


def test_tables_of_other_commits_are_named(tmp_path, runs, capsys):
    write(tmp_path, "cluster", commit="b" * 40)
    _, told = runs(capsys, "--only", "speed")
    assert "tables of other commits:\n   cluster: of bbbbbbbbbbbb\n" in told
    assert "left out without --long: simulation" in told
    assert "empiar (needs deposited series)" in told


def test_a_checkout_with_changes_is_refused_unless_it_is_asked_for(tmp_path, runs, capsys, monkeypatch):
    monkeypatch.setattr(run_all, "commit", lambda: f"{HEAD}-dirty")
    ran, _ = runs(capsys, "--only", "speed", code=(
        "Error: the checkout has changes: commit them, so that results tell what made them (or --dirty)"
    ))  # fmt: skip
    assert ran == []
    write(tmp_path, "speed", commit=f"{HEAD}-dirty")
    assert [name for name, _ in runs(capsys, "--only", "speed", "--dirty")[0]] == ["speed"]  # never done already


def test_long_ones_and_their_words(runs, capsys):
    ran = dict(runs(capsys, "--long")[0])
    assert ran["raw_stack_patches"] == ["--patches"]
    assert not run_all.TAKE_MOLECULES & set(ran)  # no library was given


def test_a_commit_with_the_same_code_counts(tmp_path, monkeypatch):
    def git(*words):
        name = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", *name, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    bundled = tmp_path / "cryolithe" / "network" / "bundled"
    bundled.mkdir(parents=True)
    commits = []
    for file in ("a.py", "network/bundled/m.scores.json", "network/bundled/m.safetensors"):
        (tmp_path / "cryolithe" / file).write_text("something")
        git("add", "-A")
        git("commit", "-qm", "a change")
        commits.append(git("rev-parse", "HEAD"))
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    monkeypatch.setattr(run_all, "commit", lambda: commits[1])
    assert [run_all.same_code(commit, "speed") for commit in commits] == [True, True, False]
    assert not run_all.same_code("c" * 40, "speed")


def test_the_scripts_of_a_result_are_its_own_and_what_they_use(tmp_path, monkeypatch):
    texts = {
        "speed": "from common import Table\nimport math\n",
        "speed_more": "",
        "common": "import numpy as np\n",
        "kills": "    from parts.killing import kill\n",
        "parts/killing": 'program = FOLDER / "killed.py"\n',
        "killed": "import kills\nfrom fuzzing import texts, random\n",
        "fuzzing/texts": "from fuzzing.reader import (\n    common,\n)\n",
        "fuzzing/reader": "from kills.texts import common\n",
        "parts/reader": "",
    }
    for folder in ("parts", "fuzzing"):
        (tmp_path / folder).mkdir()
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)

    def stems(name):
        return {str(Path(path).relative_to("benchmarks").with_suffix("")) for path in run_all.scripts_of(name)}

    assert stems("speed") == stems("speed_bf16") == {"speed", "common"}
    assert stems("kills") == {"kills", "parts/killing", "killed", "fuzzing/texts", "fuzzing/reader"}
    assert stems("classes_default") == set()  # made by a command
