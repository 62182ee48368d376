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


def refusal_of(result: Result) -> str:
    """The one line with which a command was refused, which is all that it wrote on standard error."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: "), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def ended(result: Result, code: int) -> str:
    """All that a command printed, which ended with this code and without a traceback."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output
