"""Flags for the settings of a reconstruction, and a help page that shows them under headings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, get_args, get_origin

import click

from cryolithe.cli.complete import complete_model
from cryolithe.formats.alignment.alignments import alignment_files
from cryolithe.settings import ReconstructSettings

_METAVARS = {
    "pixel_size": "Å",
    "max_memory": "GB",
    "tilt_axis": "DEG",
    "exclude": "LIST",
    "model": "NAME|PATH",
    "thickness": "N",
    "bin": "N",
    "defocus": "µm",
    "specimen_thickness": "NM",
    "voltage": "KV",
    "cs": "MM",
    "defocus_hand": "1|-1|auto",
}
_METAVARS |= dict.fromkeys((*alignment_files(), "dose", "ctf_file"), "FILE")

# Heading of a help page → settings below it; every setting stands below one.
SETTINGS_SECTIONS: dict[str, tuple[str, ...]] = {
    "Method": ("method", "model", "fbp_share", "wedge_trust", "confidence", "filter", "iterations", "projector"),
    "Images": ("pixel_size", "bin", "contrast", "brightness", "exclude", "fix_nonfinite"),
    "Alignment": ("tilt_axis", *alignment_files(), "local_alignment"),
    "Volume": ("thickness", "centre", "handedness", "flip_z"),
    "CTF and radiation damage": (
        "ctf", "ctf_file", "ctf_3d", "defocus_hand", "voltage", "cs", "amplitude_contrast", "dose_weight", "dose",
    ),
    "What a network is told": ("ctf_state", "defocus", "specimen_thickness"),
    "Files that are written": ("dtype", "orientation", "format", "preview", "overwrite"),
    "Machine": ("device", "precision", "max_memory"),
}  # fmt: skip


class SectionedCommand(click.Command):
    """A command whose options stand below headings; those of no heading come first, below ``Options``.

    ``sections`` maps headings to names of parameters.
    """

    def __init__(self, *args: Any, sections: Mapping[str, Collection[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a list below each heading."""
        heading_of = {name: heading for heading, names in self.sections.items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {"Options": [], **{heading: [] for heading in self.sections}}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                rows[heading_of.get(str(param.name), "Options")].append(record)
        for heading, listed in rows.items():
            if listed:
                with formatter.section(heading):
                    formatter.write_dl(listed)


def settings_options(
    command: Callable[..., Any], wanted: Collection[str] = tuple(ReconstructSettings.model_fields)
) -> Callable[..., Any]:
    """Give a command a flag for each wanted setting; one that is not given is None, so that files can speak."""
    for name, field in reversed(ReconstructSettings.model_fields.items()):
        if name not in wanted:
            continue
        flag = f"--{name.replace('_', '-')}"
        text = field.description or ""
        annotation = field.annotation
        if field.default is not None and not isinstance(field.default, bool):
            text += f"  [default: {field.default}]"
        if annotation is bool:
            declaration = click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
        elif get_origin(annotation) is Literal:
            declaration = click.option(flag, name, type=click.Choice(get_args(annotation)), default=None, help=text)
        else:
            kind: Any = next(t for t in (get_args(annotation) or (annotation,)) if t is not type(None))
            if get_origin(kind) is Literal:  # of words, or of words and numbers, which the setting tells apart
                words = get_args(kind)
                kind = click.Choice(words) if all(isinstance(word, str) for word in words) else str
            also: dict[str, Any] = {"shell_complete": complete_model} if name == "model" else {}
            declaration = click.option(
                flag, name, type=kind, default=None, metavar=_METAVARS.get(name), help=text, **also
            )
        command = declaration(command)
    return command
