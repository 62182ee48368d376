"""Which methods a user wants: names, what they are, and what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cryolithe.comparison.value import Kind
from cryolithe.errors import ModelError, SettingsError, nearest_name
from cryolithe.files.names import file_words, shortest_distinct
from cryolithe.models import bundled_models, find_model, user_models

By = Literal["fbp", "gaussian", "sirt", "model", "n2n-general", "n2n", "samba"]

DEFAULT_OF_SERIES = ("fbp", "gaussian", "sirt", "fast", "default", "n2n-general", "n2n")
DEFAULT_OF_VOLUMES = ("fbp", "gaussian", "n2n-general", "n2n")
NEEDS_SERIES = ("sirt", "model")
TITLES = {
    "fbp": "FBP",
    "gaussian": "FBP + Gaussian",
    "sirt": "SIRT",
    "n2n-general": "Noise2Noise, general",
    "n2n": "Noise2Noise, trained",
    "samba": "Samba",
}
KINDS: dict[str, Kind] = {"fbp": "raw", "gaussian": "linear", "sirt": "linear", "model": "network"}


@dataclass(frozen=True)
class Wish:
    """A method that is to be compared.

    Attributes:
        name: as the user wrote it.
        by: what makes it.
        title: as the page shows it.
    """

    name: str
    by: By
    title: str

    @property
    def kind(self) -> Kind:
        """Of method."""
        return KINDS.get(self.by, "denoiser")


def wishes_of(methods: Sequence[str], models: Sequence[str], series: bool) -> tuple[Wish, ...]:
    """The methods to compare, the raw one first, each once.

    Args:
        methods: names of methods and models; none for the default.
        models: further models, by name or path.
        series: whether there is a tilt series, of which volumes can be made; else there are two volumes.

    Raises:
        SettingsError: for an unknown name, or a method that needs a tilt series where there is none.
    """
    names = list(methods) or list(DEFAULT_OF_SERIES if series else DEFAULT_OF_VOLUMES)
    found: dict[str, Wish] = {}
    files: dict[Path, str] = {}
    for name in ("fbp", *names, *models):
        wish = _wish(name, series)
        if not series and wish.by in NEEDS_SERIES:
            raise SettingsError(
                f"--methods: {name} reconstructs from images; give the tilt series (TILTS ANGLES, or --even and --odd) "
                "instead of --half1 and --half2"
            )
        if wish.by == "model" and files.setdefault(find_model(name).resolve(), name) != name:
            continue  # the same file by another name
        found.setdefault(wish.name, wish)
    return _told_apart(list(found.values()))


def _told_apart(wishes: Sequence[Wish]) -> tuple[Wish, ...]:
    """Methods by titles that tell models of one name in different folders apart; names alone stay as they are."""
    known = {**bundled_models(), **user_models()}
    models = [wish for wish in wishes if wish.by == "model"]
    named = [wish for wish in models if wish.name in known]
    by_path = [wish for wish in models if wish.name not in known]
    words = [(wish.name,) for wish in named] + file_words([find_model(wish.name) for wish in by_path])
    titles = {
        wish.name: f"model {name}" for wish, name in zip([*named, *by_path], shortest_distinct(words), strict=True)
    }
    return tuple(replace(wish, title=titles.get(wish.name, wish.title)) for wish in wishes)


def _wish(name: str, series: bool) -> Wish:
    if name in TITLES:
        title = "your halves" if name == "fbp" and not series else TITLES[name]
        if name == "gaussian" and not series:
            title = "Gaussian"
        return Wish(name, name, title)  # type: ignore[arg-type]
    try:
        find_model(name)
    except ModelError as error:
        known = [*TITLES, *bundled_models(), *user_models()]
        raise SettingsError(
            f"--methods: unknown method or model '{name}'{nearest_name(name, known)}; methods: {', '.join(TITLES)}; "
            f"models: {', '.join([*bundled_models(), *user_models()]) or 'none'}, or the path of a .safetensors file"
        ) from error
    return Wish(name, "model", f"model {name}")
