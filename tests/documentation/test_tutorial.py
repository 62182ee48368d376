"""The tutorial's commands run as they are written, on a fake copy of the entry; its files exist."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from command import call
from fake_entry import TRAINING_DATA, fake_entry
from pages import joined_of

from cryolithe.curation.manifest import read_manifest, write_manifest

ROOT = TRAINING_DATA.parent
TUTORIAL = ROOT / "docs" / "train_on_empiar_11830.md"
NAMES = ("tomo_001", "tomo_024", "tomo_031")  # their numbers of tilts are those of the fake series, or not given


def commands():
    blocks = re.findall(r"```console\n(.*?)```", joined_of(TUTORIAL), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def run(line):
    """A command with the quickest of the bundled models."""
    result = call(*["draft" if word == "default" else word for word in shlex.split(line)[1:]])
    assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.slow
def test_the_tutorial_runs_from_the_copy_to_the_comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = read_manifest(TRAINING_DATA / "empiar_11830.yaml")
    Path("training_data").mkdir()
    write_manifest(Path("training_data/empiar_11830.yaml"), shipped.model_copy(update={"pairs": shipped.select(NAMES)}))
    fewer = re.sub(r"(?m)^(steps|warmup_steps): .*", r"\1: 2", (ROOT / "configs/finetune_pairs.yaml").read_text())
    fewer = re.sub(r"(?m)^(validation: {every): .*", r"\1: 0}", fewer)  # two steps need not make a better model
    Path("few.yaml").write_text(fewer)
    used = []
    for line in commands():
        program, *rest = shlex.split(line)
        used.append(" ".join([program, *rest[:2]]))
        if program == "hf":
            fake_entry(shipped, NAMES, Path(rest[rest.index("--local-dir") + 1]))
        elif program == "mkdir":
            Path(*rest).mkdir()
        elif program == "mv":
            shutil.move(*rest)
        elif rest[0] == "train":
            run(line.replace(" train ", " train few.yaml ", 1))
        else:
            assert program == "cryolithe", line
            run(line)
    done = " ".join(used)
    for step in ("pairs check", "pairs curate", "pairs build", "train --finetune", "score", "reconstruct", "fsc"):
        assert f"cryolithe {step}" in done
    assert [pair.name for pair in read_manifest(Path("kept.yaml")).pairs] == list(NAMES)
    assert Path("sheet/curate.html").stat().st_size > 10_000
    assert Path("chlamy_fsc.png").exists()


def test_what_the_tutorial_says_of_the_repository_is_there():
    text = TUTORIAL.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (TUTORIAL.parent / target).exists(), target
    steps = re.search(r"(?m)^steps: (\d+)", (ROOT / "configs" / "finetune_pairs.yaml").read_text())
    assert f"takes {steps[1]} steps" in text
    for name in ("stack", "even", "odd", "angles", "target"):
        pattern = getattr(read_manifest(TRAINING_DATA / "empiar_11830.yaml").files, name)
        assert Path(pattern).name in text


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_commands_outside_blocks_exist(page):
    from cryolithe.cli import COMMANDS

    named = re.findall(r"`cryolithe ([a-z]+)", page.read_text(encoding="utf-8"))
    assert set(named) <= set(COMMANDS)
