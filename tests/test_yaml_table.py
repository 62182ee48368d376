"""Tables in YAML: whatever a file holds, its reader gives a table or one line, and soon."""

import re

import pytest

from cryolithe.curation.manifest import read_manifest
from cryolithe.errors import SettingsError
from cryolithe.files.yaml_table import MOST_ALIASED, read_yaml_table
from cryolithe.settings import read_settings_file
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
        ("2: x\nyes: y\n", {"2": "x", "True": "y"}),
        ("", {}),
        ("# nothing\n", {}),
        ("~\n", {}),
    ):
        path.write_text(text, encoding="utf-8")
        assert read_yaml_table(path, "table") == expected


def test_long_files_without_aliases_are_read(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(f"a: [{'1,' * (MOST_ALIASED // 10)}]\n")
    assert len(read_yaml_table(path, "table")["a"]) == MOST_ALIASED // 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"a: [1\n", "is not valid YAML: while parsing a flow sequence"),
        (b"day: 2026-02-31\n", "is not valid YAML: day is out of range for month"),
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
        (b"no\n", "must hold 'key: value' lines, found true or false"),
        (b"2026-02-03\n", "must hold 'key: value' lines, found a date"),
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
