"""Whether the defocus of a series can be what its images were recorded with.

Files hold what a fit made of noise, other units, and signs of other programs: each turns contrast or corrects nothing,
in a volume that looks as good as any. What cannot be is refused; single images that stand out are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryolithe.errors import InputError
from cryolithe.optics.ctf import Ctf

# Nobody records a tilt series so near to focus: its CTF has no effect at any resolution of a tomogram. With a phase
# plate one does.
LEAST_UM = 0.1
# Of a single image, beyond what any lens is set to for a specimen in ice; a whole series so far off is warned of.
MOST_UM = 50.0
# Between these defoci tilt series are recorded; a unit that is taken for another is off by ten or more.
USUAL_UM = (0.6, 20.0)
MOST_SHIFT_DEG = 360.0
_UNITS = "is the file in another unit? (CTFFIND's, AreTomo3's and RELION's are in Å, IMOD's in nm, Warp's in µm)"
# Of the median: fits of tilted images scatter by some tenths of a µm, the specimen's height by less.
FAR_UM, FAR_SHARE = 1.5, 0.5
_NAMED = 6


def check_ctf(ctf: Ctf, path: Path, numbers: Sequence[int]) -> tuple[str, ...]:
    """What to tell the user of these values.

    Args:
        ctf: of the images that are used.
        path: of its file, for messages.
        numbers: of each image in its stack, from 1, for messages.

    Raises:
        InputError: if they cannot be.
    """
    means, shifts = ([getattr(image, name) for image in ctf.images] for name in ("defocus_um", "phase_shift_deg"))
    median, shift = float(np.median(means)), max(shifts, key=abs)
    if abs(shift) > MOST_SHIFT_DEG:
        raise InputError(
            f"{path} tells a phase shift of {shift:.5g}°, expected at most {MOST_SHIFT_DEG:g}: is the file in another "
            "unit? (CTFFIND's and AreTomo3's are in radians, RELION's in degrees, Warp's in π)"
        )
    if not any(shifts):
        none = [n for n, mean in enumerate(means) if not LEAST_UM <= mean <= max(MOST_UM, 2 * median)]
        if abs(median) < LEAST_UM:
            raise InputError(
                f"{path} tells a defocus of {median:.2g} µm, at which nothing is corrected; expected at least "
                f"{LEAST_UM:g}: {_UNITS}"
            )
        if median < 0:
            raise InputError(
                f"{path} tells a defocus of {median:.3g} µm, overfocus, which turns the contrast; expected positive "
                "values for underfocus: turn their signs if the program that wrote them counts the other way"
            )
        if none:
            which = _images([numbers[n] for n in none])
            raise InputError(
                f"{path} tells a defocus of {means[none[0]]:.3g} µm for {which}: the fit failed; give "
                f"{'them' if none[1:] else 'it'} the defocus of the neighbouring images, or leave "
                f"{'them' if none[1:] else 'it'} out (--exclude)"
            )
    far = [n for n, mean in enumerate(means) if abs(mean - median) > max(FAR_UM, FAR_SHARE * abs(median))]
    notes = []
    if far:
        which = _images([numbers[n] for n in far])
        notes.append(f"Warning: {path.name} tells defoci far from the median of {median:.3g} µm for {which}")
    low, high = USUAL_UM
    if not shift and not low <= median <= high:
        notes.append(
            f"Warning: {path.name} tells a defocus of {median:.3g} µm, but tilt series are recorded at {low:g} to "
            f"{high:g} µm: {_UNITS}"
        )
    if shift:
        notes.append(f"phase shift {min(shifts):.3g}° to {max(shifts):.3g}° ({path.name})")
    return tuple(notes)


def _images(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_NAMED])) + (", and others" if len(numbers) > _NAMED else "")
    return f"{'images' if numbers[1:] else 'image'} {shown}"
