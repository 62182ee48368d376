"""What is wrong with how a target fits its tilt series, in words."""

from __future__ import annotations

from collections.abc import Iterator

from cryolithe.curation.match import Match

LEAST_CORRELATION = 0.05  # in large fields even less is significant, and means little
# Targets of other series reach 5.5, and 7.5 where both show membranes, at shifts anywhere in the field; those of this
# series stand at none, or far above chance.
LEAST_SIGNIFICANCE, LEAST_FAR_SIGNIFICANCE = 7.0, 10.0


def faults_of(match: Match) -> Iterator[str]:
    """What is wrong with a target; nothing if it fits its series."""
    if match.significance < LEAST_SIGNIFICANCE or abs(match.best_correlation) < LEAST_CORRELATION:
        yield (
            f"the target does not belong to the series: correlation with our FBP {match.best_correlation:.2f} at best, "
            f"{match.significance:.1f} times the usual one at other shifts; expected more than {LEAST_CORRELATION} and "
            f"{LEAST_SIGNIFICANCE:g} times; check the files, target_axes and binning"
        )
        return
    if match.is_far and match.significance < LEAST_FAR_SIGNIFICANCE:
        mirrored = f"MIRRORED along {' and '.join(match.mirrored)} and " if match.mirrored else ""
        yield (
            f"the target is of another series, or {mirrored}SHIFTED by (z, y, x) = ({_shift(match)}) px, a large part "
            f"of the field: there it correlates best with our FBP, by {match.best_correlation:.2f}, "
            f"{match.significance:.1f} times the usual correlation at other shifts, and other series reach as much "
            f"somewhere (a shift that large is certain from {LEAST_FAR_SIGNIFICANCE:g} times on); check the files first"
        )
        return
    if match.mirrored:
        axes = " and ".join(match.mirrored)
        remedy = {
            ("z",): "change target_flip_z, or the signs of the angles",
            ("z", "y"): "the target is turned half around x: turn it back",
            ("z", "x"): "the target is turned half around the tilt axis: turn it back",
            ("y", "x"): "the target is turned half around z: turn it back",
        }.get(match.mirrored, "the target has the wrong handedness: mirror it back")
        yield (
            f"the target is MIRRORED along {axes}: correlation with our FBP {match.correlation:.2f} as it is, "
            f"{match.best_correlation:.2f} mirrored; {remedy}"
        )
    if match.best_correlation < 0:
        yield (
            f"the target is INVERTED: correlation with our FBP {match.best_correlation:.2f}, expected a positive one; "
            "correct target_contrast or stack_contrast"
        )
    if not match.mirrored and max(map(abs, match.shift_px)) > match.precision_px:
        rows, columns = (round(-value) for value in match.shift_px[1:])
        offset = f", or add ({rows:+d}, {columns:+d}) to offset_px (y, x)" if rows or columns else " along z"
        yield (
            f"the target is SHIFTED by (z, y, x) = ({_shift(match)}) px against the series, expected at most "
            f"{match.precision_px:g} px; shift it back{offset}"
        )


def _shift(match: Match) -> str:
    return ", ".join(f"{value + 0.0:+.1f}" for value in match.shift_px)
