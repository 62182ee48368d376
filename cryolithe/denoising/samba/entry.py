"""What the command line has to know of Samba."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryolithe.denoising.entry import Entry, Option

if TYPE_CHECKING:
    from cryolithe.denoising.method import Method


def _load() -> Method[Any, Any, Any]:
    from cryolithe.denoising.samba.method import Samba

    return Samba()


ENTRY = Entry(
    "samba",
    (
        Option("lmax", int, "Largest gap of inference (half of it in training). Default: see above.", least=1),
        Option(
            "lmax_sweep", Path, "Train, draw a crop with several Lmax (XY, XZ), and stop there.", metavar="PNG"
        ),
        Option("augment", bool, "Mean over four flips: a little better, four times the time.", default=False),
        Option(
            "keep_low",
            bool,
            "Keep the input's lowest frequencies, where it and the output hardly differ. The published method does "
            "not.",
            default=True,
        ),
        Option("voxel_size", float, "In place of the file's, to choose Lmax.", least=0, metavar="Å"),
        Option("crop", int, "Side of the squares. Default: 256; training on a CPU 128.", least=64),
        Option(
            "size",
            ("published", "small"),
            "Of the network; small has half the channels and is about twice as fast.",
            default="published",
        ),
    ),
    _load,
    distributed=True,
)  # fmt: skip
