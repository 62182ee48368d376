"""What comes with the program to start from, by name: training configurations, simulation recipes, settings, manifests.

They stand in ``configs/`` and ``training_data/`` of the repository, and in the wheel below ``cryolithe/shipped/``, in
the same places to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from cryolithe.errors import SettingsError, nearest_name
from cryolithe.files.names import exists, is_file

ENDINGS = (".yaml", ".yml")
# pattern of files -> the command that takes them; a file belongs to the first one that it matches
_PLACES = (
    ("configs/reconstruct_*.yaml", "reconstruct"),
    ("configs/*.yaml", "train"),
    ("training_data/recipes/*.yaml", "simulate"),
    ("training_data/empiar_*.yaml", "pairs"),
)
# command -> what it calls such a file, and how it takes it
TAKEN = {
    "reconstruct": ("configuration file", "cryolithe reconstruct TILTS ANGLES --config {name}"),
    "train": ("training configuration", "cryolithe train {name} -o MODEL.safetensors"),
    "simulate": ("recipe", "cryolithe simulate {name} -o FOLDER"),
    "pairs": ("manifest", "cryolithe pairs check {name} --data FOLDER"),
}
# Those of `train` that go with a model and pairs, and how; without these they would begin from scratch.
_FINETUNE = "finetune_", "cryolithe train {name} --finetune NAME PAIRS... -o MODEL.safetensors"


@dataclass(frozen=True)
class Shipped:
    """A file that comes with the program.

    Attributes:
        name: what it is called by.
        path: where it lies.
        command: that takes it, a key of `TAKEN`.
    """

    name: str
    path: Path
    command: str

    @property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @property
    def purpose(self) -> str:
        """What it is for, in one line: its first comment."""
        return self.text.partition("\n")[0].lstrip("# ").rstrip()

    def use(self, name: str) -> str:
        """The command line that takes it, or a copy of it.

        Args:
            name: as the line is to call it.
        """
        return (_FINETUNE[1] if is_for_finetuning(self.name) else TAKEN[self.command][1]).format(name=name)


def is_for_finetuning(name: str) -> bool:
    """Whether a training configuration of this name goes with a model and pairs."""
    return name.startswith(_FINETUNE[0])


def shipped() -> dict[str, Shipped]:
    """All such files, by name."""
    package = Path(str(files("cryolithe")))
    root = package / "shipped" if (package / "shipped").is_dir() else package.parent
    found: dict[str, Shipped] = {}
    for pattern, command in _PLACES:
        for path in sorted(root.glob(pattern)):
            found.setdefault(path.stem, Shipped(path.stem, path, command))
    return found


def shipped_for(command: str) -> dict[str, Shipped]:
    """Those that a command takes, by name."""
    return {name: one for name, one in shipped().items() if one.command == command}


def named(name: str) -> Shipped:
    """The file of this name; an ending is no part of it.

    Raises:
        SettingsError: if there is none; the nearest one is named.
    """
    known = shipped()
    stem = name.removesuffix(ENDINGS[0])
    if stem not in known:
        raise SettingsError(
            f"nothing called '{name}' comes with the program{nearest_name(name, known)}; see: cryolithe recipes list"
        )
    return known[stem]


def is_bare(word: Path | str) -> bool:
    """Whether a word can be the name of a shipped file: no folder, no ending."""
    path = Path(word)
    return path.name == str(word) and not path.suffix


def find_recipe(word: Path | str, command: str, base: Path = Path()) -> Path:
    """The file that a word means: a path, or the name of a shipped file that the command takes.

    A file of the user's wins over a shipped one. A path that leads nowhere is given back, for its reader to refuse,
    unless something shipped is called so.

    Args:
        word: as the user gave it.
        command: a key of `TAKEN`.
        base: folder that a path is relative to.

    Raises:
        SettingsError: if it is a bare name of nothing; the nearest one is named.
    """
    path, kind, fitting = base / word, TAKEN[command][0], shipped_for(command)
    if is_file(path):
        return path
    if is_bare(word):
        name = str(word)
        if name in fitting:
            return fitting[name].path
        if exists(path):
            return path
        if (other := shipped().get(name)) is not None:
            raise SettingsError(f"'{name}' is no {kind}; use it so: {other.use(name)}")
        raise SettingsError(
            f"{kind} {path} does not exist, and none of this name comes with the program"
            f"{nearest_name(name, fitting)}; see: cryolithe recipes list"
        )
    if path.suffix in ENDINGS and path.stem in fitting and not exists(path):
        raise SettingsError(f"{kind} {path} does not exist; the one that comes with the program is called {path.stem}")
    return path
