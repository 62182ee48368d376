"""The readers that benchmarks/fuzz.py damages files for: all that there are; a run goes on where it stopped."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from cryolithe.cli.info import describe
from cryolithe.errors import CryoLitheError
from cryolithe.training.config import read_train_config

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import fuzz  # noqa: E402
from fuzzing.parsers import PARSERS  # noqa: E402

# Readers of files that no valid file of the table reaches, and why not.
LEFT_OUT = {
    "curation/check.py open_files": "opens an entry's files by the readers of stacks, volumes and angles",
    "denoise_training/store.py open_store": "a folder that a training made for itself",
    "denoise_training/train.py load_state": "by read_state and restore, as the state of a network's training",
    "denoising/n2n/halves.py open_pair": "two volumes, each as open_half opens one",
    "denoising/n2n/train.py load_state": "by read_state and restore",
    "denoising/samba/training.py load_state": "by read_state and restore",
    "evaluation/inputs.py open_checked": "as open_volume, which reads what this opens",
    "evaluation/tilt_images.py open_images": "a stack and its angles, by the readers of those, as the record tells",
    "formats/microscope/ctf_files.py read_with": "tables of RELION, as read_star reads them",
    "portals/copick_project.py open_project": "the library copick reads it; all that it raises is told in one line",
    "training/sources.py open_pairs_source": "pairs, each as open_pair opens one",
}
FIRST = ("MRC header", "points of a portal")


def readers():
    """Public functions of the package that are named as readers and take a path."""
    package = ROOT / "cryolithe"
    return {
        f"{path.relative_to(package)} {node.name}"
        for path in sorted(package.rglob("*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith(("read_", "open_", "load_"))
        and any("Path" in ast.unparse(argument.annotation) for argument in node.args.args if argument.annotation)
    }


def reached(folder):
    """Functions of the package that are called while the table's valid files are read."""
    called = set()

    def note(frame, event, _):
        if event == "call":
            called.add((frame.f_code.co_filename, frame.f_code.co_name))

    for number, parser in enumerate(PARSERS):
        place = folder / str(number)
        place.mkdir()
        path = place / f"input{parser.ending}"
        for content in parser.seeds(place):
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            sys.setprofile(note)
            try:
                parser.read(path)
            finally:
                sys.setprofile(None)
    package = str(ROOT / "cryolithe")
    return {f"{Path(file).relative_to(package)} {name}" for file, name in called if file.startswith(package)}


@pytest.mark.slow
def test_every_reader_of_a_file_is_fuzzed_or_named_with_a_reason(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert readers() - reached(tmp_path) == set(LEFT_OUT)
    assert len({parser.name for parser in PARSERS}) == len(PARSERS)


@pytest.mark.slow
def test_inputs_are_the_same_whenever_they_are_made(tmp_path):
    """All are made, then all again, seconds later."""
    made = []
    for time in range(2):
        folders = [tmp_path / f"{time}_{number}" for number in range(len(PARSERS))]
        for folder in folders:
            folder.mkdir()
        made.append([parser.seeds(folder) for parser, folder in zip(PARSERS, folders, strict=True)])
    for parser, *seeds in zip(PARSERS, *made, strict=True):
        assert seeds[0] == seeds[1], parser.name


# Going on


def kept_at(path, most):
    """A state that asks to stop when it was told ``most`` times."""
    kept = fuzz.Kept.at(path)
    told = []

    def keep():
        told.append(1)
        kept.save()
        return len(told) < most

    return kept, keep


@pytest.mark.parametrize("name", FIRST)
def test_a_run_that_is_stopped_within_a_reader_goes_on_there(name, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "REPORT_EVERY", 20)
    whole = fuzz.new_total()
    fuzz.fuzz(name, whole, 100, lambda: True)
    assert whole["inputs"] == 100
    seen = []
    for _ in range(4):
        kept, keep = kept_at(tmp_path / "state.json", 2)
        total = kept.found.setdefault(name, fuzz.new_total())
        fuzz.fuzz(name, total, 100, keep)
        seen.append(total["inputs"])
    assert seen == [40, 80, 100, 100]
    for key in ("accepted", "refused", "failures"):
        assert total[key] == whole[key]


def test_a_state_of_other_code_is_left_aside(tmp_path, monkeypatch):
    kept, keep = kept_at(tmp_path / "state.json", 2)
    kept.found["TIFF"] = fuzz.new_total()
    keep()
    assert "TIFF" in fuzz.Kept.at(kept.path).found
    monkeypatch.setattr(fuzz, "code", lambda: "another")
    assert fuzz.Kept.at(kept.path).found == {}


def test_readers_take_turns():
    assert fuzz.rounds(10_000) == [500, 2000, 8000, 10_000]
    assert fuzz.rounds(100) == [100]


@pytest.mark.slow
def test_the_command_goes_on_and_says_how_far_it_is(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "fuzz.py", "--only", "curation choices", "--inputs", "300"]
    command += ["--output", tmp_path / "fuzz.json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = []
    for minutes in ("0", "5"):
        done = subprocess.run(
            [*command, "--minutes", minutes], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        told.append((json.loads((tmp_path / "fuzz.json").read_text())["inputs_each"], "not done" in done.stdout))
    assert told == [(0, True), (300, False)]


# What was found


def handlers(tree):
    """Names of the exceptions that are caught around each ``json.load`` or ``json.loads`` of what is not our own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            text = "\n".join(map(ast.unparse, node.body))
            if "json.load" in text and "json.loads(json.dumps" not in text:
                yield {
                    name.id
                    for handler in node.handlers
                    for name in ast.walk(handler.type or ast.Name("Exception"))
                    if isinstance(name, ast.Name)
                }


def test_json_that_is_nested_without_end_is_caught_wherever_json_is_read():
    wide = {"RecursionError", "RuntimeError", "Exception"}
    for path in sorted((ROOT / "cryolithe").rglob("*.py")):
        for caught in handlers(ast.parse(path.read_text(encoding="utf-8"))):
            assert not {"ValueError", "JSONDecodeError"} & caught or wide & caught, path


@pytest.mark.parametrize("content", ["[" * 5000, "9" * 5000, '{"volume": NaN}'])
@pytest.mark.parametrize("name", ["scale of a half", "points of a portal"])
def test_json_that_cannot_be_is_refused(name, content, tmp_path):
    parser = next(one for one in PARSERS if one.name == name)
    parser.seeds(tmp_path)
    (tmp_path / f"input{parser.ending}").write_text(content)
    with pytest.raises(CryoLitheError):
        parser.read(tmp_path / f"input{parser.ending}")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "0", "1e38"])
def test_a_scale_that_is_none_is_refused(number, tmp_path):
    parser = next(one for one in PARSERS if one.name == "scale of a half")
    (content,) = parser.seeds(tmp_path)
    (tmp_path / "input.json").write_text(content.decode().replace("0.25", number))
    with pytest.raises(CryoLitheError, match="does not say how they are scaled"):
        parser.read(tmp_path / "input.json")


def test_info_counts_a_name_that_no_file_can_have_as_missing(tmp_path):
    (tmp_path / "list.csv").write_text(f"tilts,angles\n{'x' * 5000}.mrc,a.tlt\n")
    missing = next(fact for fact in describe(tmp_path / "list.csv") if fact.name == "missing_files")
    assert len(missing.value) == 2


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e9])
def test_a_map_of_voxels_that_cannot_be_is_refused_at_once(size, tmp_path):
    import mrcfile

    parser = next(one for one in PARSERS if one.name == "molecule map")
    parser.seeds(tmp_path)
    with mrcfile.open(tmp_path / "seed.mrc", "r+") as file:
        file.voxel_size = size
    with pytest.raises(CryoLitheError, match="voxel size"):
        parser.read(tmp_path / "seed.mrc")


@pytest.mark.parametrize("key", ["~", "5", "2001-01-01", "true", "1.5"])
def test_a_key_that_is_no_text_is_told_as_an_unknown_one(key, tmp_path):
    (tmp_path / "input.yaml").write_text(f"network: {{kind: RowSet, head: {{levels: 1, {key}: 3}}}}\n")
    with pytest.raises(CryoLitheError, match="unknown key"):
        read_train_config(tmp_path / "input.yaml")


def test_a_key_without_end_is_not_repeated_in_a_message(tmp_path):
    parser = next(one for one in PARSERS if one.name == "denoiser's training YAML")
    (content, *_) = parser.seeds(tmp_path)
    (tmp_path / "input.yaml").write_bytes(content + b"\n" + b"k" * 5000 + b": 1\n")
    with pytest.raises(CryoLitheError) as told:
        parser.read(tmp_path / "input.yaml")
    assert len(str(told.value)) < 600


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("info: xml", 'Value="-1"', 'Value="-1e308"'),
        ("Warp grids", 'Value="-1"', 'Value="1e200"'),
        ("OME-Zarr 0.4", '"path":"0"', '"path":"' + "9" * 5000 + '"'),
        ("published configuration", '"set_bias"', '"' + "9" * 5000 + '"'),
        ("published configuration", "false", '"' + "9" * 5000 + '"'),
        ("OME-Zarr 0.4", '"scale"', '"' + "s" * 5000 + '"'),
    ],
)
def test_numbers_and_names_out_of_all_reason_are_refused_in_a_short_line_or_left_out(name, old, new, tmp_path):
    parser = next(one for one in PARSERS if one.name == name)
    content = parser.seeds(tmp_path)[0].decode()
    content = content if old in content else json.dumps(json.loads(content), separators=(",", ":"))
    assert old in content
    path = tmp_path / f"input{parser.ending}"
    path.write_text(content.replace(old, new))
    # A local alignment that cannot be read is left out, which is noted.
    assert fuzz.attempt(parser.read, path) == ("accepted" if "Warp" in name or "xml" in name else "refused")


def test_info_tells_no_dose_that_is_no_number(tmp_path):
    parser = next(one for one in PARSERS if one.name == "info: mdoc")
    content = parser.seeds(tmp_path)[0].decode()
    told = []
    for dose in ("3.0", "3.03.0", "..."):
        (tmp_path / "ts.mdoc").write_text(content.replace("ExposureDose = 3.0", f"ExposureDose = {dose}"))
        told.append([fact.lines for fact in describe(tmp_path / "ts.mdoc") if "dose" in fact.name])
    assert told[1] == told[2]
    assert told[0] != told[1]
