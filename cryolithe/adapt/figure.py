"""The correlation of each shell before and after an adaptation, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryolithe.adapt.checking import Check
from cryolithe.formats.files import replacing


def draw_checks(path: Path, checks: Sequence[Check]) -> None:
    """Draw the first and the last check's shells, and how the means went.

    Args:
        path: PNG to write.
        checks: from before the first step on.

    Raises:
        OutputError: if the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), dpi=100, layout="constrained")
    shells, course = figure.subplots(1, 2)
    for check, style in ((checks[0], ":"), (checks[-1], "-")):
        count = len(check.shells_half)
        at = [0.5 * (number + 1) / (count + 1) for number in range(count)]
        for values, colour, name in (
            (check.shells_half, "C0", "other half"),
            (check.shells_left_out, "C1", "left-out tilts"),
        ):
            shells.plot(at, values, style, color=colour, label=f"{name}, step {check.step}")
    shells.set(title="FSC with raw data that the network did not see", xlabel="cycles/voxel")
    shells.legend(fontsize=7)
    steps = [check.step for check in checks]
    course.plot(steps, [check.fsc_half for check in checks], ".-", color="C0", label="other half")
    course.plot(steps, [check.fsc_left_out for check in checks], ".-", color="C1", label="left-out tilts")
    course.set(title="means", xlabel="step")
    course.legend(fontsize=7)
    with replacing(path, overwrite=True) as temporary:
        figure.savefig(temporary, format="png")
