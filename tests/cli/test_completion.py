"""Completion by the tab key, and what the program says without arguments."""

import subprocess
import sys

import pytest
from click.shell_completion import BashComplete, ShellComplete
from click.testing import CliRunner
from command import call, good

from cryolithe.cli import COMMANDS, main
from cryolithe.denoising.methods import METHODS
from cryolithe.denoising.n2n.bundled import bundled_denoisers
from cryolithe.models import bundled_models
from cryolithe.recipes import shipped, shipped_for

SHELL = ShellComplete(main, {}, "cryolithe", "_CRYOLITHE_COMPLETE")


def offered(*words, incomplete="", kind="plain"):
    return [item.value for item in SHELL.get_completions(list(words), incomplete) if item.type == kind]


def offers_files(*words, incomplete=""):
    return bool(offered(*words, incomplete=incomplete, kind="file"))


def test_commands_and_their_options():
    assert offered() == list(COMMANDS)
    assert offered(incomplete="re") == ["reconstruct", "recipes"]
    assert "--method" in offered("reconstruct", incomplete="--me")
    assert offered("recipes") == ["copy", "list", "show"]


@pytest.mark.parametrize(
    "words",
    [
        ("reconstruct", "t.mrc", "--model"),
        ("adapt", "--model"),
        ("train", "--finetune"),
        ("score",),
        ("models", "info"),
        ("models", "verify"),
        ("models", "shrink"),
        ("models", "mean"),
    ],
)
def test_models(words):
    assert set(bundled_models()) <= set(offered(*words))
    assert offered(*words, incomplete="dra") == ["draft"]
    assert offers_files(*words, incomplete="my_")


def test_a_model_of_the_user_is_offered_too(tmp_path, monkeypatch):
    (tmp_path / "ours.safetensors").write_bytes(b"")
    monkeypatch.setenv("CRYOLITHE_MODELS", str(tmp_path))
    assert offered("reconstruct", "--model", incomplete="ou") == ["ours"]


def test_methods_and_denoisers():
    assert offered("reconstruct", "--method") == ["network", "fbp", "sirt"]
    assert offered("denoise", "--method") == list(METHODS)
    assert set(bundled_denoisers()) <= set(offered("denoise", "--model"))
    assert set(bundled_denoisers()) <= set(offered("models", "info"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("simulate", ("simulate",)),
        ("simulate", ("noise", "show", "p.h5", "--recipe")),
        ("train", ("train",)),
        ("reconstruct", ("reconstruct", "--config")),
        ("pairs", ("pairs", "check")),
        ("pairs", ("pairs", "build")),
        ("pairs", ("pairs", "curate", "--manifest")),
    ],
)
def test_recipes_are_offered_where_they_are_taken(command, words):
    assert offered(*words) == list(shipped_for(command))
    assert offers_files(*words, incomplete="mine")


def test_all_recipes_are_offered_to_be_shown_and_no_files():
    for word in ("show", "copy"):
        assert offered("recipes", word) == list(shipped())
        assert not offers_files("recipes", word)


def test_the_lines_of_the_page_about_completion_work(monkeypatch):
    source = CliRunner().invoke(main, [], prog_name="cryolithe", env={"_CRYOLITHE_COMPLETE": "zsh_source"})
    assert "#compdef cryolithe" in source.output
    monkeypatch.setenv("COMP_WORDS", "cryolithe reconstruct --model def")
    monkeypatch.setenv("COMP_CWORD", "3")
    answer = BashComplete(main, {}, "cryolithe", "_CRYOLITHE_COMPLETE").complete()
    assert answer.splitlines()[-1] == "plain,default"


@pytest.mark.slow
def test_completing_does_not_wait_for_torch():
    code = (
        "import sys; from click.shell_completion import ShellComplete as S; from cryolithe.cli import main\n"
        "s = S(main, {}, 'cryolithe', 'X')\n"
        "for words in ('', 'reconstruct --model', 'denoise --model', 'train', 'score', 'recipes show'):\n"
        "    assert s.get_completions(words.split(), ''), words\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", ["reconstruct", "info"])
def test_a_command_does_not_wait_for_what_few_files_need(command):
    """Splines of bent images and of Warp's grids."""
    code = f"import sys, cryolithe.cli.{command}; sys.exit('scipy.interpolate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_arguments_the_three_commands_to_start_with():
    result = good()
    lines = [line.split()[1] for line in result.output.splitlines() if line.startswith("  cryolithe ")]
    assert lines == ["simulate", "reconstruct", "evaluate"]
    assert len(result.output.splitlines()) < 15
    whole = call("--help").output
    assert all(name in whole for name in COMMANDS)


@pytest.mark.slow
def test_the_commands_to_start_with_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = call().output
    for line in text.splitlines():
        if line.startswith("  cryolithe "):
            words = line.split("->")[0].split("  a tilt")[0].split()[1:]
            good(*words, *(["--model", "draft"] if words[0] == "reconstruct" else []))  # the quickest
    assert (tmp_path / "example" / "tilts_rec_evaluation.html").is_file()
