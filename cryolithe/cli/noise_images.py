"""What the images of series whose noise is measured say of their contrast, their angles and their alignment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cryolithe.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryolithe.reconstruction.evidence.polarity import Contrast, Polarity
    from cryolithe.tilts import TiltSeries

_WIDEST_PX = 512
_DEPTH = 0.25  # of the width, of the back-projection that is looked at


@dataclass(frozen=True)
class _Averages:
    """Averages of halves, one image at a time."""

    even: Any
    odd: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.even.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        import numpy as np

        both = np.asarray(self.even[number], np.float32) + np.asarray(self.odd[number], np.float32)
        return np.asarray(both / 2, np.float32)


def seen_in_images(
    series: Sequence[tuple[TiltSeries, ...]],
    groups: Sequence[tuple[Path, ...]],
    contrast: Contrast | Literal["auto"],
    on_series: Callable[[], object],
) -> tuple[Contrast, tuple[str, ...]]:
    """What dense matter is in all series, and what a user should know of their images.

    Args:
        series: each of two halves, or of one stack.
        groups: their files.
        contrast: what the user says of it.
        on_series: called after each.

    Returns:
        the contrast, and notes, which name no file: a profile keeps them.

    Raises:
        InputError: if dense matter is dark in one and bright in another.
    """
    found: list[tuple[Polarity, Path]] = []
    notes: list[str] = []
    for number, (one, group) in enumerate(zip(series, groups, strict=True), start=1):
        polarity, told = _looked_at(one, contrast)
        found.append((polarity, group[0]))
        notes += [f"series {number}: {note}" if len(series) > 1 else note for note in told]
        on_series()
    clear = [(polarity, path) for polarity, path in found if polarity.source != "assumed"]
    first = clear[0] if clear else found[0]
    for polarity, path in clear:
        if polarity.contrast != first[0].contrast:
            raise InputError(
                f"dense matter is {first[0].contrast} in {first[1]} but {polarity.contrast} in {path}, by their images "
                "or labels; a profile is of one contrast: invert one of them, or give --contrast if that is wrong"
            )
    return first[0].contrast, tuple(notes)


def _looked_at(series: tuple[TiltSeries, ...], contrast: Contrast | Literal["auto"]) -> tuple[Polarity, list[str]]:
    from cryolithe.reconstruction.evidence.polarity import settle
    from cryolithe.reconstruction.evidence.stack_notes import stack_notes
    from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
    from cryolithe.reconstruction.setup.looking import look_at

    whole = series[0] if len(series) == 1 else replace(series[0], images=_Averages(series[0].images, series[1].images))
    binning = max(1, -(-whole.geometry.image_shape[1] // _WIDEST_PX))
    stack = prepare_stack(whole, Preparation(bin=binning, fix_nonfinite=True), None)
    depth = max(1, round(_DEPTH * stack.geometry.image_shape[1]))
    numbers = [whole.section(tilt) + 1 for tilt in range(whole.geometry.tilts)]
    told = [note for note in stack_notes(stack, numbers, depth) if note.startswith("Warning: ")]
    polarity = settle(contrast, whole.labels, look_at(whole, stack, depth))
    return polarity, [*(note.removeprefix("Warning: ") for note in told), *_doubts(polarity)]


def _doubts(polarity: Polarity) -> tuple[str, ...]:
    """What a user should know of the contrast."""
    if polarity.source == "assumed":
        return (
            f"the images do not tell whether dense matter is dark or bright ({polarity.evidence}); {polarity.contrast} "
            "is assumed, as in cryo-EM: give --contrast if that is wrong",
        )
    if polarity.found is not None and polarity.found != polarity.contrast:
        believed = "by --contrast" if polarity.source == "setting" else "by the stack's label"
        sure = ", which is not sure" if polarity.weak else ""
        return (
            f"dense matter is {polarity.contrast} {believed}, but in these images it looks {polarity.found} "
            f"({polarity.evidence}){sure}",
        )
    return ()
