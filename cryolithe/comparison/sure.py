"""Maps of ``--confidence`` beside the sections of the networks that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryolithe.comparison.sections import WIDTH, Sections, draw_pair, sections_of
from cryolithe.comparison.value import Candidate, Comparison
from cryolithe.evaluation.drawing import Drawn, png_figure
from cryolithe.report.figures import STYLE
from cryolithe.report.greys import MAP_RANGES, even_scale, grey_scale
from cryolithe.report.page import escaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Maps that are shown, in this order.
SHOWN = ("error", "unsupported")
TITLES = {"error": "expected error", "unsupported": "not held by the images"}
_UNITS = {"error": " deviations"}


@dataclass(frozen=True)
class SureSections:
    """Central sections of a network's volume and of its maps.

    Attributes:
        volume: its own.
        maps: by kind.
    """

    volume: Sections
    maps: dict[str, Sections]


def sure_sections(candidate: Candidate) -> SureSections | None:
    """The central sections of the maps beside a volume; None without maps."""
    if candidate.sure is None:
        return None
    maps = {kind: sections_of(TITLES[kind], candidate.sure.maps[kind]) for kind in SHOWN}
    return SureSections(sections_of(candidate.title, candidate.whole), maps)


def draw_sure(found: Comparison, shown: Sequence[SureSections]) -> Drawn:
    """A row for each network: the volume, its expected error, and what the images do not hold."""
    import matplotlib
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    depth, height, width = found.shape_zyx
    columns = 1 + len(SHOWN)
    tall = WIDTH / columns * (height + depth) / width + 0.3
    with matplotlib.rc_context(STYLE), png_figure(WIDTH, len(shown) * tall + 0.1) as (figure, out):
        grid = figure.add_gridspec(2 * len(shown), columns, height_ratios=[height, depth] * len(shown))
        engine = figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        engine.set(w_pad=0.02, h_pad=0.02, hspace=0.01, wspace=0.01)
        for row, one in enumerate(shown):
            for column, (kind, sections) in enumerate([("", one.volume), *one.maps.items()]):
                pair: list[Axes] = [figure.add_subplot(grid[2 * row + part, column]) for part in (0, 1)]
                scale = even_scale(*MAP_RANGES[kind]) if kind else grey_scale([sections.xy, sections.xz])
                draw_pair((pair[0], pair[1]), sections, scale, found, labelled=column == 0, bar=not kind)
    ranges = ", ".join(f"{TITLES[k]} {MAP_RANGES[k][0]:g} to {MAP_RANGES[k][1]:g}{_UNITS.get(k, '')}" for k in SHOWN)
    lines = " ".join(f"{escaped(line)}." for line in sure_lines(found))
    return Drawn(
        "How sure the networks are",
        f"{lines} Maps from black to white: {ranges} (1 is the deviation of the whole volume). Five runs of each "
        "network on the whole series, and images that it did not see, tell them. What all runs invent alike is not in "
        "the error; what is not held by the images may still be right, as the missing wedge of a membrane.",
        out.getvalue(),
    )


def sure_lines(found: Comparison) -> list[str]:
    """The means of the maps, one line for each network that has them."""
    return [
        f"{one.title}: expected correlation {one.sure['confidence']:.2f}, expected error {one.sure['error']:.2f} "
        f"deviations, {one.sure['unsupported']:.0%} not held by the images, on average"
        for one in found.methods
        if one.sure is not None
    ]
