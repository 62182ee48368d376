"""The command ``cryolithe`` in this process, called as a user calls it."""

from __future__ import annotations

from click.testing import CliRunner, Result

from cryolithe.cli import main


def call(*words: object) -> Result:
    """Call ``cryolithe`` with these words."""
    return CliRunner().invoke(main, [str(word) for word in words])


def good(*words: object) -> Result:
    """Call ``cryolithe``, which must succeed."""
    result = call(*words)
    assert result.exit_code == 0, result.output
    return result
