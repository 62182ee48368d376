"""How an optional part of the program is installed here."""

from __future__ import annotations

import json
from importlib import metadata
from urllib.parse import unquote, urlparse


def install_command(*extras: str) -> str:
    """The command that adds extras to this installation, in words.

    A checkout (its folder is in ``direct_url.json``, PEP 610) is installed from there again;
    for a wheel the name of the package does.

    Args:
        extras: names in ``pyproject.toml``.
    """
    wanted = f"[{','.join(extras)}]"
    folder, editable = _checkout()
    if folder is None:
        return f'pip install "cryolithe{wanted}"'
    return f'pip install {"-e " if editable else ""}".{wanted}" in the folder {folder}'


def reinstall_command() -> str:
    """The command that puts the program's own files here again, in words."""
    again = "python -m pip install --force-reinstall --no-deps"
    folder, editable = _checkout()
    if folder is None:
        return f"{again} cryolithe"
    if editable:
        return f"{again} -e . in the folder {folder}, once git status there names no changed file"
    return f"{again} . in the folder {folder}"


def _checkout() -> tuple[str | None, bool]:
    """The folder that the program was installed from, and whether it runs from there; None for a wheel."""
    try:
        told = json.loads(metadata.distribution("cryolithe").read_text("direct_url.json") or "{}")
        url = urlparse(told["url"])
        if "dir_info" not in told or url.scheme != "file":
            return None, False
        return unquote(url.path), bool(told["dir_info"].get("editable"))
    except (metadata.PackageNotFoundError, ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        return None, False
