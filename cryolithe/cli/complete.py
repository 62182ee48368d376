"""Completion by the tab key: names of models, denoisers and shipped recipes, and files where a file may stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import click
from click.shell_completion import CompletionItem

from cryolithe.models import bundled_models, user_models
from cryolithe.recipes import shipped, shipped_for

Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _items(names: Mapping[str, str] | Iterable[str], incomplete: str, files: bool) -> list[CompletionItem]:
    """Names that begin so, with a word of help where there is one; files first, lest the shell forget the names."""
    told = names if isinstance(names, Mapping) else dict.fromkeys(names)
    found = [CompletionItem(name, help=text) for name, text in told.items() if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type="file"), *found] if files else found


def complete_model(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models of reconstruction, and files."""
    known = dict.fromkeys(user_models(), "yours") | dict.fromkeys(bundled_models(), "bundled")
    return _items(known, incomplete, files=True)


def complete_denoiser(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Denoisers that come with the program, and files."""
    from cryolithe.denoising.n2n.bundled import bundled_denoisers

    return _items(bundled_denoisers(), incomplete, files=True)


def complete_any_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models of reconstruction, denoisers, and files."""
    return complete_model(ctx, param, incomplete) + complete_denoiser(ctx, param, incomplete)[1:]


def complete_recipe(command: str) -> Completion:
    """Recipes that a command takes, and files."""

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _items({name: one.purpose for name, one in shipped_for(command).items()}, incomplete, files=True)

    return complete


def complete_shipped(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of all that is shipped."""
    return _items({name: one.purpose for name, one in shipped().items()}, incomplete, files=False)
