"""The settings of a reconstruction: which of flag, row, file and default wins, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command import refusal_of
from tiny_series import made, run, write_series

from cryolithe.errors import SettingsError
from cryolithe.reconstruction.jobs.job import Finished
from cryolithe.session.batch import Outcome
from cryolithe.settings import ReconstructSettings, read_settings_file, resolve_settings

FIELDS = ReconstructSettings.model_fields

# A value for the file, which is not the default, and another for the flag. Every setting needs a pair.
VALUES = {
    "method": ("fbp", "sirt"),
    "model": ("first.safetensors", "second.safetensors"),
    "fbp_share": (0.2, 0.4),
    "wedge_trust": ("full", "none"),
    "thickness": (20, 30),
    "bin": (2, 3),
    "pixel_size": (4.5, 6.25),
    "contrast": ("bright", "dark"),
    "brightness": ("keep", "auto"),
    "tilt_axis": (-84.5, 12.0),
    "exclude": ("5-7", "2"),
    # Paths in a list start at its folder, but for absolute ones.
    "xf": ("/first.xf", "/second.xf"),
    "newst_com": ("/newsta.com", "/newstb.com"),
    "tilt_com": ("/tilta.com", "/tiltb.com"),
    "aln": ("/first.aln", "/second.aln"),
    "star": ("/first.star", "/second.star"),
    "warp": ("/first.xml", "/second.tomostar"),
    "local_alignment": (False, True),
    "ctf_state": ("flipped", "wiener"),
    "defocus": (3.5, 2.0),
    "dose": ("/first.mdoc", "/second.mdoc"),
    "specimen_thickness": (150.0, 80.0),
    "ctf": ("flip", "wiener"),
    "ctf_3d": (True, False),
    "ctf_file": ("/first.txt", "/second.defocus"),
    "defocus_hand": (-1, 1),
    "voltage": (200.0, 100.0),
    "cs": (2.0, 0.01),
    "amplitude_contrast": (0.1, 0.08),
    "dose_weight": (True, False),
    "centre": ("relion", "imod"),
    "handedness": ("warp", "relion"),
    "flip_z": (True, False),
    "filter": ("hann", "ramp"),
    "iterations": (7, 9),
    "projector": ("tomosipo", "torch"),
    "device": ("cuda:1", "cpu"),
    "precision": ("fp32", "bf16"),
    "max_memory": (3.5, 2.0),
    "dtype": ("float16", "float32"),
    "orientation": ("xzy", "xyz"),
    "format": ("ome-zarr-0.5", "mrc"),
    "confidence": (True, False),
    "preview": (True, False),
    "fix_nonfinite": (True, False),
    "overwrite": (True, False),
}


# Other settings that make a setting act: alone on the command line it would be refused.
BESIDE = {
    "filter": {"method": "fbp"},
    "iterations": {"method": "sirt"},
    "projector": {"method": "sirt"},
    **{name: {"ctf": "flip"} for name in ("defocus_hand", "voltage", "cs", "amplitude_contrast")},
}


@pytest.fixture(params=FIELDS)
def setting(request):
    """Each setting with its default, the file's value and the flag's."""
    assert request.param in VALUES, f"add a pair of values for the new setting '{request.param}'"
    default, (in_file, in_flag) = FIELDS[request.param].default, VALUES[request.param]
    assert default != in_file != in_flag
    return request.param, default, in_file, in_flag


def flag(name, value):
    """The words of the command line that give a setting this value."""
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}={value}"]


@pytest.fixture
def resolved(tmp_path, monkeypatch):
    """Return a function that calls the command and gives the settings with which it would reconstruct."""
    jobs = []

    def capture(job, watcher):
        jobs.append(job)
        return Finished(job.output, job.sidecar, (1, 1, 1), None, 0.0)

    def capture_task(task, watcher):
        jobs.append(task.job)
        return Outcome(task, "done", "", {})

    monkeypatch.setattr("cryolithe.reconstruction.run.reconstruct", capture)
    monkeypatch.setattr("cryolithe.cli.session.run_task", capture_task)

    def call(*arguments):
        jobs.clear()
        made(*arguments)
        return [job.settings for job in jobs]

    return call


# Who wins


def test_values_stand_for_all_settings():
    assert list(VALUES) == list(FIELDS)


def test_order_of_authority(setting):
    name, default, in_file, in_flag = setting
    nothing = dict.fromkeys(FIELDS)

    def value(flags, row, file):
        return getattr(resolve_settings(flags, row, file, "row", "file"), name)

    assert value(nothing, {}, {}) == default
    assert value(nothing, {}, {name: in_file}) == in_file
    assert value(nothing, {name: str(in_file)}, {}) == in_file
    assert value(nothing, {name: in_flag}, {name: in_file}) == in_flag
    assert value({**nothing, name: in_flag}, {}, {name: in_file}) == in_flag
    assert value({**nothing, name: in_flag}, {name: in_file}, {name: in_file}) == in_flag


@pytest.mark.slow
def test_order_of_authority_on_the_command_line(setting, resolved, tmp_path):
    name, default, in_file, in_flag = setting
    config, listing = tmp_path / "settings.yaml", tmp_path / "list.csv"
    config.write_text(yaml.safe_dump({name: in_file}))
    beside = [word for key, value in BESIDE.get(name, {}).items() for word in flag(key, value)]
    files = ("ts.mrc", "ts.tlt", *beside)
    assert getattr(resolved(*files)[0], name) == default
    assert getattr(resolved(*files, *flag(name, in_file))[0], name) == in_file
    assert getattr(resolved(*files, "--config", config)[0], name) == in_file
    assert getattr(resolved(*files, "--config", config, *flag(name, in_flag))[0], name) == in_flag

    listing.write_text(f"tilts,angles,{name}\na.mrc,a.tlt,{in_flag}\nb.mrc,b.tlt,\n")
    rows = resolved("--list", listing, "--config", config, *beside)
    assert [getattr(row, name) for row in rows] == [in_flag, in_file]
    listing.write_text(f"tilts,angles,{name}\na.mrc,a.tlt,{in_file}\nb.mrc,b.tlt,\n")
    rows = resolved("--list", listing, "--config", config, *beside, *flag(name, in_flag))
    assert [getattr(row, name) for row in rows] == [in_flag, in_flag]


def test_the_other_settings_keep_their_defaults(setting):
    name, _, in_file, _ = setting
    found = resolve_settings({}, {}, {name: in_file}, "row", "file")
    assert found == ReconstructSettings(**{name: in_file})
    assert {key for key in FIELDS if getattr(found, key) != FIELDS[key].default} == {name}


def test_the_record_of_a_run_tells_its_settings(tmp_path):
    stack, angles = write_series(tmp_path)
    config = tmp_path / "s.yaml"
    config.write_text("method: fbp\nthickness: 12\nfilter: hann\ncontrast: bright\npixel-size: 3\n")
    made(stack, angles, "--config", config, "--thickness", 10, "--filter", "cosine", "--dtype", "float16")
    settings = json.loads((tmp_path / "ts_rec.json").read_text())["settings"]
    expected = ReconstructSettings(
        method="fbp", thickness=10, filter="cosine", contrast="bright", pixel_size=3.0, dtype="float16"
    )
    assert settings == expected.model_dump(mode="json")


# How keys are written


@pytest.mark.parametrize("name", [name for name in FIELDS if "_" in name])
@pytest.mark.parametrize("mark", ["_", "-"])
def test_keys_with_either_mark(name, mark, resolved, tmp_path):
    key, value = name.replace("_", mark), VALUES[name][0]
    config, listing = tmp_path / "settings.yaml", tmp_path / "list.csv"
    config.write_text(f"{key}: {value}\n")
    assert getattr(resolved("a.mrc", "a.tlt", "--config", config)[0], name) == value
    listing.write_text(f"tilts,angles,{key}\na.mrc,a.tlt,{value}\n")
    assert getattr(resolved("--list", listing)[0], name) == value


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n"])
def test_a_file_may_say_nothing(text, resolved, tmp_path):
    (tmp_path / "s.yaml").write_text(text)
    assert resolved("a.mrc", "a.tlt", "--config", tmp_path / "s.yaml") == [ReconstructSettings()]


# What is refused


def refusal(*arguments):
    """Return the one line with which a command is refused."""
    result = run(*arguments)
    assert result.stdout == ""
    return refusal_of(result)


WRONG = {
    "method": ["fpb", 3],
    "model": [["a"], 3],
    "fbp_share": [-0.1, 0.95, "much", float("nan")],
    "wedge_trust": ["half", 0.5, True],
    "thickness": [0, -5, "abc", 1.5],
    "bin": [0, "two", 2.5],
    "pixel_size": [0, -1.0, "wide", float("inf"), float("nan")],
    "contrast": ["grey"],
    "brightness": ["divide"],
    "tilt_axis": [361, -400, "up", float("nan")],
    "exclude": ["blank", 0, "-3", "2-", 1.5, "4;5"],
    **{name: [["a"], 3] for name in ("xf", "newst_com", "tilt_com", "aln", "star", "warp")},
    "local_alignment": ["perhaps", 7],
    "ctf_state": ["corrected", 3],
    "defocus": [51, -60.0, "low", float("nan")],
    "dose": [["a"], 3],
    "specimen_thickness": [0, -80, 20_000, "thin", float("nan")],
    "ctf": ["flipped", 3],
    "ctf_3d": ["perhaps"],
    "ctf_file": [["a"], 3],
    "defocus_hand": [0, 2, -1.5, "left"],
    "voltage": [0, 10_000, "high", float("nan")],
    "cs": [-1, "large", float("inf")],
    "amplitude_contrast": [-0.1, 7, "some", float("nan")],
    "dose_weight": ["perhaps", 7],
    "centre": ["middle"],
    "handedness": ["left"],
    "flip_z": ["perhaps"],
    "filter": ["han"],
    "iterations": [0, -1, "many"],
    "projector": ["cuda"],
    "device": [["cpu"], 0],
    "precision": ["fp8"],
    "max_memory": [0, -2, "all", float("inf")],
    "dtype": ["int16"],
    "orientation": ["zyx", "yxz"],
    "format": ["hdf5", "ome-zarr-0.3"],
    "confidence": ["perhaps"],
    "preview": ["perhaps"],
    "fix_nonfinite": ["perhaps", 7],
    "overwrite": ["perhaps", None],
}
TEXTS = (
    "model",
    "device",
    "xf",
    "newst_com",
    "tilt_com",
    "aln",
    "star",
    "warp",
    "dose",
    "ctf_file",
)  # a number is a name, too
SWITCHES = ("confidence", "ctf_3d", "local_alignment", "dose_weight", "fix_nonfinite", "flip_z", "overwrite", "preview")
WRONG_CASES = [(name, value) for name, values in WRONG.items() for value in values]


def test_wrong_values_stand_for_all_settings():
    assert list(WRONG) == list(FIELDS)


@pytest.mark.parametrize(("name", "value"), WRONG_CASES)
def test_wrong_value_in_a_file_names_file_and_key(name, value, tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump({name: value}))
    line = refusal("a.mrc", "a.tlt", "--config", config)
    assert line.startswith(f"Error: {config}: '{name}': ")


@pytest.mark.parametrize(
    ("name", "value"),
    [(n, v) for n, v in WRONG_CASES if isinstance(v, str | int | float) and n not in TEXTS],
)
def test_wrong_value_of_a_row_names_list_line_and_key(name, value, tmp_path):
    listing, config = tmp_path / "list.csv", tmp_path / "settings.yaml"
    listing.write_text(f"tilts,angles,{name}\na.mrc,a.tlt,{value}\n")
    config.write_text("{}")
    assert refusal("--list", listing, "--config", config).startswith(f"Error: {listing}, line 2: '{name}': ")


@pytest.mark.parametrize(
    ("name", "value"),
    [(n, v) for n, v in WRONG_CASES if isinstance(v, str | int | float) and n not in (*TEXTS, *SWITCHES)],
)
def test_wrong_value_of_a_flag_names_the_flag(name, value):
    line = refusal("a.mrc", "a.tlt", f"--{name.replace('_', '-')}={value}")
    assert f"--{name.replace('_', '-')}" in line
    assert str(value) in line


def test_a_wrong_value_in_the_file_is_not_blamed_on_the_list(tmp_path):
    listing, config = tmp_path / "list.csv", tmp_path / "settings.yaml"
    listing.write_text("tilts,angles,thickness\na.mrc,a.tlt,8\n")
    config.write_text("bin: 0\n")
    assert refusal("--list", listing, "--config", config).startswith(f"Error: {config}: 'bin': ")


def test_a_flag_mends_a_wrong_value_in_the_file(resolved, tmp_path):
    (tmp_path / "s.yaml").write_text("bin: 0\n")
    assert resolved("a.mrc", "a.tlt", "--config", tmp_path / "s.yaml", "--bin", 2)[0].bin == 2


@pytest.mark.parametrize(
    ("key", "nearest"), [("thicknes", "thickness"), ("pixelsize", "pixel_size"), ("Method", "method"), ("qqq", None)]
)
def test_unknown_key_names_the_nearest(key, nearest, tmp_path):
    config, listing = tmp_path / "settings.yaml", tmp_path / "list.csv"
    config.write_text(f"{key}: 1\n")
    listing.write_text(f"tilts,angles,{key}\na.mrc,a.tlt,1\n")
    hint = f" (did you mean '{nearest}'?)" if nearest else ""
    assert refusal("a.mrc", "a.tlt", "--config", config) == f"Error: {config}: unknown setting '{key}'{hint}\n"
    assert refusal("--list", listing) == f"Error: {listing}, line 2: unknown setting '{key}'{hint}\n"


def test_unknown_flag_is_one_line_that_names_the_nearest():
    line = refusal("a.mrc", "a.tlt", "--thicknes", 3)
    assert "--thicknes" in line
    assert "--thickness" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: [1\n", "is not valid YAML"),
        (b"a: !!timestamp 2026-13-45\n", "is not valid YAML"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (b"? [1, 2]\n: 3\n", "is not valid YAML"),
        (b"x: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        (b"[" * 5000, "is not valid YAML"),
        (b"- method\n- fbp\n", "found a list"),
        (b"fbp\n", "found text"),
        (b"12\n", "found a number"),
        (b"1: 2\n", "unknown setting '1'"),
        (b"#" * 1_000_001, "more than 1000000 bytes"),
    ],
)
def test_files_that_hold_no_settings(content, expected, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=str(path)) as caught:
        read_settings_file(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there():
    with pytest.raises(SettingsError, match=r"nowhere\.yaml does not exist"):
        read_settings_file(Path("nowhere.yaml"))
