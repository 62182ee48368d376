"""Where models are: bundled with the package, in the user's folder, or given by a path. Reads no weights.

The user's folder is ``$CRYOLITHE_MODELS`` if that is set, else ``cryolithe/models`` in the folder for user data
(``$XDG_DATA_HOME``, by default ``~/.local/share``; ``~/Library/Application Support`` on macOS).
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryolithe.errors import ModelError, OutputError, nearest_name, reason
from cryolithe.files.hashing import file_sha256

BUNDLED = Path(__file__).parent / "network" / "bundled"
FORMAT = "cryolithe-network"
ENDING = ".safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_HEADER_LIMIT_BYTES = 100_000_000


def models_folder() -> Path:
    """The folder of the user's models; it need not exist."""
    given = os.environ.get("CRYOLITHE_MODELS")
    if given:
        return _at_home(given)
    data = os.environ.get("XDG_DATA_HOME")
    if not data:
        data = "~/Library/Application Support" if sys.platform == "darwin" else "~/.local/share"
    return _at_home(data) / "cryolithe" / "models"


def _at_home(path: str) -> Path:
    """A path with ``~`` replaced; as it is where there is no such home, as for a container's nameless user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def bundled_models() -> dict[str, Path]:
    """Names and files of the models that come with the package."""
    return _models_in(BUNDLED)


def user_models() -> dict[str, Path]:
    """Names and files of the models in the user's folder."""
    return _models_in(models_folder())


def _models_in(folder: Path) -> dict[str, Path]:
    try:
        return {path.stem: path for path in sorted(folder.glob(f"*{ENDING}")) if path.is_file()}
    except OSError:
        return {}


def find_model(name_or_path: str) -> Path:
    """File of a bundled model, of one of the user's models, or of a model given by its path; looked for in this order.

    Raises:
        ModelError: if there is none.
    """
    bundled, own = bundled_models(), user_models()
    for known in (bundled, own):
        if name_or_path in known:
            return known[name_or_path]
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError) as error:
        raise ModelError(f"model file {name_or_path!r} cannot be looked for: {error}") from error
    if path.suffix == ENDING or path.parent != Path():
        raise ModelError(f"model file {name_or_path} does not exist")
    raise ModelError(
        f"unknown model '{name_or_path}'{nearest_name(name_or_path, {**bundled, **own})}; "
        f"bundled models: {', '.join(bundled) or 'none'}; yours in {models_folder()}: {', '.join(own) or 'none'}; "
        f"or give the path of a {ENDING} file"
    )


def new_model_path(name_or_path: str) -> Path:
    """Where a new model of this name goes: into the user's folder, or where a path says.

    Raises:
        OutputError: for a name that would be hard to use, a bundled model's name, or a path of another ending.
    """
    if "/" in name_or_path or os.sep in name_or_path or name_or_path.endswith(ENDING):
        path = Path(name_or_path)
        if path.suffix != ENDING or "\0" in name_or_path:
            raise OutputError(f"{name_or_path!r} is no model file; give a plain name, or a path ending in {ENDING}")
        if not path.parent.is_dir():
            raise OutputError(f"the folder {path.parent} does not exist; make it first or choose another -o")
        return path
    if not _NAME.fullmatch(name_or_path):
        raise OutputError(
            f"{name_or_path!r} is no name for a model; use letters, digits, . _ + and -, the first a letter or digit"
        )
    if name_or_path in bundled_models():
        raise OutputError(f"'{name_or_path}' is the name of a bundled model; choose another -o")
    return models_folder() / (name_or_path + ENDING)


@dataclass(frozen=True)
class ModelSummary:
    """What a model file says of itself, without its weights.

    Attributes:
        path: the file.
        config: of the network, plain values.
        card: where it comes from.
        convention: how its input is prepared and its points lie, plain values; empty for this program's own way.
        shapes: of its tensors.
    """

    path: Path
    config: dict[str, Any]
    card: dict[str, Any]
    convention: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def read_summary(path: Path) -> ModelSummary:
    """Read the header of a model file.

    Raises:
        ModelError: if it cannot be read, is none of this program, or is shorter or longer than its header tells.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(_HEADER_LIMIT_BYTES, path.stat().st_size):
                raise ValueError("its header has no sensible length")
            header = json.loads(stream.read(length))
        size = path.stat().st_size
        metadata = header.pop("__metadata__", {})
        shapes = {str(name): tuple(int(n) for n in entry["shape"]) for name, entry in header.items()}
        if metadata.get("format") != FORMAT:
            raise ModelError(f"{path} is a safetensors file of another program; expected the metadata format={FORMAT}")
        told = 8 + length + max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        if size != told:
            raise ValueError(f"its header tells of {told} bytes, it has {size}; copy it again")
        config, card = json.loads(metadata["config"]), json.loads(metadata["card"])
        convention = json.loads(metadata.get("convention", "{}"))
        if not all(isinstance(table, dict) for table in (config, card, convention)):
            raise ValueError("its metadata are no tables")
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ModelError(f"model file {path} is corrupt or not a safetensors file: {reason(error)}") from error
    return ModelSummary(path, config, card, convention, shapes)


def recorded_sha256(path: Path) -> str | None:
    """The hash that a model file had when it was made: in NAME.sha256 beside it, or in its NAME.scores.json."""
    try:
        words = path.with_suffix(".sha256").read_text(encoding="utf-8").split()
        return words[0] if words else None
    except (OSError, ValueError):
        pass
    try:
        return str(json.loads(path.with_suffix(".scores.json").read_text(encoding="utf-8"))["model"]["sha256"])
    except (OSError, ValueError, ArithmeticError, KeyError, TypeError, RecursionError):
        return None


def record_sha256(path: Path) -> str:
    """Write NAME.sha256 beside a model file, as ``sha256sum`` would; return the hash."""
    digest = file_sha256(path)
    path.with_suffix(".sha256").write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    return digest
