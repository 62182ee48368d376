"""A style on disk: safetensors with what was measured and learned, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryolithe.errors import InputError, ModelError
from cryolithe.optimise.tensors import load_leaves, read_tensors, write_tensors
from cryolithe.style.learn import Learned
from cryolithe.style.network import Styler

FORMAT = "cryolithe-style"
WHAT = "a style network"


@dataclass(frozen=True)
class Style:
    """A style to be applied.

    Attributes:
        styler: the network.
        contrast: of clean images: what they are multiplied by before and divided by afterwards.
        pixel_size_angstrom: of the images that it was learned from.
        angles_deg: least and most tilt of them.
        facts: plain values: of which stacks, steps, distances.
    """

    styler: Styler
    contrast: float
    pixel_size_angstrom: float
    angles_deg: tuple[float, float]
    facts: dict[str, Any]


def style_of(learned: Learned, pixel_size_angstrom: float, facts: dict[str, Any]) -> Style:
    """What was learned, as it is stored."""
    angles = learned.curves.angles_deg
    told: dict[str, Any] = {
        "steps": learned.steps,
        "spectra_apart_db": learned.apart_db,
        "white_noise_apart_db": learned.white_db,
    }
    told |= {"contrast": learned.curves.contrast, "notes": list(learned.notes)}
    reach = (float(angles[0]), float(angles[-1]))
    return Style(learned.styler, learned.curves.contrast, pixel_size_angstrom, reach, {**facts, **told})


def write_style(path: Path, style: Style) -> None:
    """Write a style; an earlier file stays until the new one is complete.

    Raises:
        OutputError: if it cannot be written.
    """
    styler = style.styler
    values = {
        "filters": styler.filters,
        "curves": list(styler.gains.shape),
        "contrast": style.contrast,
        "pixel_size_angstrom": style.pixel_size_angstrom,
        "angles_deg": list(style.angles_deg),
        "facts": style.facts,
    }
    write_tensors(path, styler.state_dict(), FORMAT, values)


def read_style(path: Path) -> Style:
    """Read a style.

    Raises:
        InputError: if there is no such file.
        ModelError: if it is corrupt or something else.
    """
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; give a style that `cryolithe simulate --style` wrote, or STACK ANGLES"
        )
    tensors, values = read_tensors(path, FORMAT, WHAT)
    try:
        filters, (tilts, rings) = int(values["filters"]), (int(n) for n in values["curves"])
        contrast, pixel = float(values["contrast"]), float(values["pixel_size_angstrom"])
        least, most = (float(angle) for angle in values["angles_deg"])
        facts = dict(values["facts"])
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ModelError(f"{path} is no complete style network ({error}); make it anew") from error
    sane = 0 < filters <= 1024 and 2 <= tilts <= 1000 and 2 <= rings <= 4096
    if not (sane and contrast > 0 and pixel > 0 and least < most):
        raise ModelError(f"{path} is no style network: its sizes or units cannot be; make it anew")
    styler = Styler(filters, (tilts, rings))
    load_leaves(styler, tensors, f"{path} is no style network of this version")
    return Style(styler.requires_grad_(False).eval(), contrast, pixel, (least, most), facts)
