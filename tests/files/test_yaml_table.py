"""Tables in YAML: whatever a file holds, its reader gives a table or one line, and soon."""

import re

import pytest
import yaml
from tiny_series import refused

from cryolithe.curation.manifest import read_manifest
from cryolithe.errors import SettingsError
from cryolithe.files.yaml_table import MOST_ALIASED, read_yaml_table, yaml_text
from cryolithe.settings import read_settings_file, resolve_settings
from cryolithe.simulation import read_recipe
from cryolithe.training.config import read_train_config

LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" if n else "a0: &a0 [ha]\n" for n in range(20))
MERGES = "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" if n else "m0: &m0 {k: 1}\n" for n in range(20)
)


def test_tables_aliases_and_empty_files(tmp_path):
    path = tmp_path / "t.yaml"
    for text, expected in (
        ("a: 1\nb: [1, 2]\n", {"a": 1, "b": [1, 2]}),
        ("base: &b {x: 1}\nmore: {<<: *b, y: 2}\n", {"base": {"x": 1}, "more": {"x": 1, "y": 2}}),
        ("\ufeffa: Å\n", {"a": "Å"}),
        ("2: x\nyes: y\n", {"2": "x", "yes": "y"}),
        ("", {}),
        ("# nothing\n", {}),
        ("~\n", {}),
    ):
        path.write_text(text, encoding="utf-8")
        assert read_yaml_table(path, "table") == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("0040", 40), ("012", 12), ("0089", 89), ("+3", 3), ("0x1f", 31), ("0o17", 15), ("!!int 012", 12)),
        *(("1e-5", 1e-5), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("08.5", 8.5), ("-.inf", float("-inf"))),
        *((word, word) for word in ("1_2", "1:4", "1:30.5", "0b11", "yes", "off", "NO", "2026-02-03", "=", "1.5.2")),
        *(("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("'012'", "012")),
    ],
)
def test_words_are_those_of_yaml_1_2(text, value, tmp_path):
    (tmp_path / "t.yaml").write_text(f"a: {text}\n")
    found = read_yaml_table(tmp_path / "t.yaml", "table")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value",
    ["08", "1e-5", "0o17", "12e4", "5e23", "1.e5", "yes", "1:4", "1_2", "2026-02-03", "=", "", "é", 1e-5, 12, True],
)
def test_what_is_written_is_read_by_both_versions(value, tmp_path):
    text = yaml_text({"a": [value]})
    (tmp_path / "t.yaml").write_text(text, encoding="utf-8")
    assert read_yaml_table(tmp_path / "t.yaml", "table") == yaml.safe_load(text) == {"a": [value]}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("thickness: 0040", "thickness", 40),
        ("exclude: 012", "exclude", "12"),
        ("preview: yes", "preview", True),
        ("local-alignment: off", "local_alignment", False),
        ("pixel_size: 1e1", "pixel_size", 10.0),
    ],
)
def test_settings_of_files_are_those_of_flags(text, name, value, tmp_path):
    (tmp_path / "t.yaml").write_text(text)
    values = read_settings_file(tmp_path / "t.yaml")
    assert getattr(resolve_settings({}, {}, values, "row", "file"), name) == value


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("thickness: 1:4", "'thickness': expected a whole number, got '1:4'"),
        ("pixel_size: 1:30.5", "'pixel_size': expected a number, with a decimal point, got '1:30.5'"),
        ("exclude: 1_2", "'exclude': "),
        ("model: 0012", "'model': expected text (a name that is a number is written in quotes), got 12"),
        ("bin: 2\n\nbin: 1", "'bin' is given in line 1 and again in line 3; keep one of them"),
        ("tilt-axis: 1\ntilt_axis: 5", "'tilt-axis' is given in line 1 and again as 'tilt_axis' in line 2"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(text, fragment, tmp_path):
    (tmp_path / "s.yaml").write_text(text)
    words = [tmp_path / "a.mrc", tmp_path / "a.tlt", "--config", tmp_path / "s.yaml"]
    refused(tmp_path, words, str(tmp_path / "s.yaml"), fragment)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' is given in line 1 and again in line 3"),
        ("a:\n  b: 1\n  b: 1\n", "'b' is given in line 2 and again in line 3"),
        ("l:\n- {b: 1,\n   'b': 1}\n", "'b' is given in line 2 and again in line 3"),
        ("1: 2\n'1': 2\n", "'1' is given in line 1 and again in line 2"),
        ("x: &a {q: 1, q: 2}\ny: *a\n", "'q' is given in line 1 and again in line 1"),
    ],
)
@pytest.mark.parametrize("read", [read_settings_file, read_recipe, read_train_config, read_manifest])
def test_keys_are_given_once(read, text, fragment, tmp_path):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(SettingsError, match=f"^{re.escape(str(tmp_path / 't.yaml'))}: {fragment}"):
        read(tmp_path / "t.yaml")


def test_tables_that_are_merged_may_give_the_same_keys(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text("a: &a {k: 1, l: 1}\nb: &b {k: 2}\nc: {<<: *a, <<: *b, l: 3}\nd: {<<: [*a, *b], k: 4}\n")
    assert read_yaml_table(path, "table")["d"] == {"k": 4, "l": 1}


def test_long_files_without_aliases_are_read(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(f"a: [{'1,' * (MOST_ALIASED // 10)}]\n")
    assert len(read_yaml_table(path, "table")["a"]) == MOST_ALIASED // 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"a: [1\n", "is not valid YAML: while parsing a flow sequence"),
        (b"day: !!timestamp 2026-02-31\n", "is not valid YAML: day is out of range for month"),
        (b"a: \xff\xfe\n", "is not valid YAML: 'utf-8' codec can't decode byte 0xff"),
        (b"\0", "is not valid YAML"),
        (b"[" * 3000, "is not valid YAML: brackets or lists are nested too deeply"),
        (b"- " * 3000, "is not valid YAML: brackets or lists are nested too deeply"),
        (LAUGHS.encode(), f"its aliases stand for more than {MOST_ALIASED} values"),
        (MERGES.encode(), f"its aliases stand for more than {MOST_ALIASED} values"),
        (b"a: &a [1, *a]\n", "the alias in line 1 stands for something that it is a part of"),
        (b"a: *b\n", "found undefined alias"),
        (b"a: 1\nb: " + b"9" * 101, "the number in line 2 has more than 100 digits"),
        (b"a: !!timestamp soon\n", "is not valid YAML"),
        (b"a: !!int ''\n", "is not valid YAML"),
        (b"a: !!bool maybe\n", "is not valid YAML"),
        (b"a: !!python/name:os.system\n", "could not determine a constructor"),
        (b"{[1]: 2}\n", "is not valid YAML"),
        (b"a: 1\n---\na: 2\n", "is not valid YAML: expected a single document"),
        (b"- a\n", "must hold 'key: value' lines, found a list"),
        (b"a\n", "must hold 'key: value' lines, found text"),
        (b"false\n", "must hold 'key: value' lines, found true or false"),
        (b"!!timestamp 2026-02-03\n", "must hold 'key: value' lines, found a date"),
        (b"#" * 5_000_001, "bytes; is it the right file?"),
    ],
)
@pytest.mark.parametrize("read", [read_settings_file, read_recipe, read_train_config, read_manifest])
def test_what_is_no_table_is_one_line(read, content, line, tmp_path):
    path = tmp_path / "t.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read(path)
    text = str(caught.value)
    assert line in text
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 400 + len(str(path))


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (read_settings_file, "configuration file"),
        (read_recipe, "recipe"),
        (read_train_config, "training configuration"),
        (read_manifest, "manifest"),
    ],
)
def test_files_that_are_not_there_are_named_by_their_kind(read, kind, tmp_path):
    with pytest.raises(SettingsError, match=f"^{kind} {re.escape(str(tmp_path / 'none.yaml'))} does not exist$"):
        read(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match=f"^{kind} {re.escape(str(tmp_path))} is no file$"):
        read(tmp_path)


@pytest.mark.parametrize("read", [read_settings_file, read_recipe, read_train_config, read_manifest])
@pytest.mark.parametrize(
    "text", ["1: 2\n", "? 2026-02-03\n: 4\n", "cell: {1: 2}\nspecimens: {1: 2}\npairs: [{1: 2}]\n"]
)
def test_keys_that_are_no_text_are_unknown_keys(read, text, tmp_path):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        read(tmp_path / "t.yaml")
    assert "\n" not in str(caught.value)
