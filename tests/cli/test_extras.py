"""Messages name the command that adds an optional part to the installation at hand."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from tiny_series import run, write_series

from cryolithe.machine import extras
from cryolithe.machine.extras import install_command, reinstall_command

CHECKOUT = {"url": "file:///home/a%20user/cryolithe", "dir_info": {"editable": True}}


@pytest.fixture
def installed(monkeypatch):
    """Pretend that the program was installed in some way."""

    def pretend(told):
        def distribution(name):
            if told is KeyError:
                raise extras.metadata.PackageNotFoundError(name)
            return SimpleNamespace(read_text=lambda file: told)

        monkeypatch.setattr(extras.metadata, "distribution", distribution)

    return pretend


@pytest.mark.parametrize(
    ("told", "command"),
    [
        (CHECKOUT, 'pip install -e ".[zarr]" in the folder /home/a user/cryolithe'),
        ({**CHECKOUT, "dir_info": {}}, 'pip install ".[zarr]" in the folder /home/a user/cryolithe'),
        ({"url": "file:///tmp/c.whl", "archive_info": {}}, 'pip install "cryolithe[zarr]"'),
        ({"url": "https://host/c.git", "vcs_info": {"vcs": "git"}}, 'pip install "cryolithe[zarr]"'),
        ([], 'pip install "cryolithe[zarr]"'),
        ({}, 'pip install "cryolithe[zarr]"'),
    ],
)
def test_the_command_follows_the_installation(installed, told, command):
    installed(json.dumps(told))
    assert install_command("zarr") == command


@pytest.mark.parametrize("told", [None, "", "{no json", KeyError])
def test_without_a_readable_record_the_package_is_named(installed, told):
    installed(told)
    assert install_command("zarr", "dask") == 'pip install "cryolithe[zarr,dask]"'


def test_a_command_that_misses_a_package_names_what_helps_here(installed, monkeypatch, tmp_path):
    stack, angles = write_series(tmp_path)
    monkeypatch.setitem(sys.modules, "zarr", None)
    words = (stack, angles, "--method", "fbp", "--thickness", 8, "--format", "ome-zarr")
    for told, command in ((CHECKOUT, 'pip install -e ".[zarr]" in the folder /home'), ({}, '"cryolithe[zarr]"')):
        installed(json.dumps(told))
        result = run(*words)
        assert result.exit_code == 2, result.output
        assert command in result.stderr.splitlines()[-1]


def test_the_program_is_put_back_from_where_it_came(installed):
    installed(json.dumps({}))
    assert reinstall_command().endswith(" --no-deps cryolithe")
    installed(json.dumps({**CHECKOUT, "dir_info": {}}))
    assert reinstall_command().endswith(" --no-deps . in the folder /home/a user/cryolithe")
    installed(json.dumps(CHECKOUT))
    assert " --no-deps -e . in the folder /home/a user/cryolithe" in reinstall_command()
