"""What the command line has to know of Noise2Noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryolithe.denoising.entry import Entry, Option

if TYPE_CHECKING:
    from cryolithe.denoising.method import Method


def _load() -> Method[Any, Any, Any]:
    from cryolithe.denoising.n2n.method import N2n

    return N2n()


ENTRY = Entry(
    "n2n",
    (
        Option(
            "backbone",
            ("unet-small", "unet", "msd", "scunet"),
            "Network of n2n. Default: unet-small on a CPU, unet on a GPU.",
        ),
        Option("loss", ("l2", "l1", "l0", "fsc", "mixed"), "What n2n minimises. Default: l2."),
        Option(
            "for_",
            ("look", "membranes", "picking"),
            "What the result is for: backbone and loss of n2n that suit it best.",
        ),
        Option(
            "start",
            ("general", "fresh"),
            "What n2n's training begins with: the weights that come with the program, or random ones.",
        ),
    ),
    _load,
    of_halves=True,
)
