"""Whether transforms of IMOD are for the stack that they are given with: raw, prealigned, or a binned copy.

IMOD's ``ts.prexg`` shifts the raw stack and makes ``ts_preali``; ``ts.tltxf`` leads from there to the aligned stack;
and ``ts.xf`` is one after the other (``xfproduct``), for the raw stack. A file of transforms has neither size nor unit:
its shifts are in pixels of the stack that was aligned, which names and what lies beside it tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.files.names import is_file
from cryolithe.formats.alignment.alignment_format import Named, Stack
from cryolithe.formats.alignment.imod import NewstCommand
from cryolithe.formats.alignment.imod_field import OTHER_PIXELS
from cryolithe.formats.files import file_beside
from cryolithe.formats.series_names import binning, is_prealigned, possible_names
from cryolithe.formats.stacks.mrc import stack_shape

# Transforms that lead to the prealigned stack, and from image to image on the way there.
_PREALIGNING = (".prexg", ".prexf")
_FROM_PREALIGNED = ".tltxf"
_RAW_ENDINGS = (".st", ".mrc", ".mrcs")


def check_stack(named: Named, stack: Stack, transforms: Path | None, newst: NewstCommand | None) -> tuple[str, ...]:
    """Warnings of transforms that may be of another stack.

    Args:
        named: the stack, and the files given.
        stack: its size.
        transforms: the file that is read, or None.
        newst: what newst.com says, or None.

    Raises:
        InputError: if they are of another one: prealigned twice or not aligned, binned or not.
    """
    notes: list[str] = []
    if newst is not None and is_prealigned(newst.output_name):
        raise _prealigning(named.files["newst_com"], f"writes {newst.output_name}")
    if transforms is not None:
        if transforms.suffix.lower() in _PREALIGNING:
            given = "xf" in named.files
            raise _prealigning(
                transforms if given else named.files["newst_com"],
                "leads to the prealigned stack" if given else f"names {transforms.name}",
            )
        notes += _prealigned(named, transforms, newst)
        own = newst is not None and "xf" not in named.files and newst.input_name == named.tilts.name
        if not own:
            notes += _pixels(named, stack, transforms)
    if newst is not None:
        notes += _field(named, stack, newst)
    return tuple(notes)


def _prealigning(source: Path, why: str) -> InputError:
    is_com = source.suffix.lower() == ".com"
    return InputError(
        f"{source} {why}: that is {'prenewst.com' if is_com else 'the prealignment alone'}, which leaves the tilt axis "
        f"where it is; give {'newst.com, whose TransformFile is the .xf' if is_com else 'the .xf of the series'}"
    )


def _prealigned(named: Named, transforms: Path, newst: NewstCommand | None) -> Iterator[str]:
    """A warning of transforms of the prealigned stack for another; the opposite, which prealigns twice, is an error."""
    name, told = named.tilts.name, "" if newst is None or "xf" in named.files else newst.input_name
    is_from = transforms.suffix.lower() == _FROM_PREALIGNED or is_prealigned(transforms.stem) or is_prealigned(told)
    if is_prealigned(name) and not is_from:
        raw = next(base for base in possible_names(name) if not is_prealigned(base))
        raise InputError(
            f"the name of {name} says that it is prealigned, but {transforms.name} is of the raw stack: its images "
            f"would be prealigned twice; give the raw stack ({raw}.st), or the {_FROM_PREALIGNED} with this one"
        )
    if is_from and not is_prealigned(name):
        yield (
            f"Warning: {transforms.name} is of the prealigned stack, and {name} is taken for it; if it is the raw one, "
            "give the .xf, which holds the prealignment, too"
        )


def _pixels(named: Named, stack: Stack, transforms: Path) -> Iterator[str]:
    """An error where the stack beside a file proves that its shifts are in other pixels; a warning where names do."""
    here, there = binning(named.tilts.name), binning(transforms.stem)
    of_series = bool(set(possible_names(named.tilts.name)) & set(possible_names(transforms.stem)))
    found = [(path, shape) for path in _stacks_of(transforms) if (shape := stack_shape(path)) is not None]
    if (transforms.parent, transforms.stem) == (named.tilts.parent, named.tilts.stem) or any(
        shape[1:] == stack.image_shape for _, shape in found
    ):
        return
    for path, (sections, height, width) in found:
        times = _times((height, width), stack.image_shape)
        if sections == stack.sections and times:
            told = _other_pixels(named.tilts, transforms, times, f"{path.name}, {width} x {height}")
            if times > 1 or there != here:
                raise InputError(told)
            yield f"Warning: {told}"  # or that one is a small copy, for a look
            return
    if here != there and of_series:
        yield f"Warning: {_other_pixels(named.tilts, transforms, here / there, 'if their names are right')}"


def _stacks_of(transforms: Path) -> list[Path]:
    """Stacks beside a file of transforms that have its name."""
    found = (file_beside(transforms, transforms.stem, end) for end in _RAW_ENDINGS)
    return [path for path in found if path is not None]


def _times(large: tuple[int, int], small: tuple[int, int]) -> float:
    """How many pixels of ``small`` fit one of ``large``: a whole number, or one over it; 0 where it is neither or 1."""
    if math.prod(large) < math.prod(small):
        other = _times(small, large)
        return 1 / other if other else 0.0
    times = round(large[0] / small[0])
    fit = all(abs(a - times * b) <= 2 * times for a, b in zip(large, small, strict=True))
    return float(times) if times > 1 and fit else 0.0


def _other_pixels(tilts: Path, transforms: Path, times: float, why: str) -> str:
    """What is told of shifts in pixels of which ``times`` make one of the stack's."""
    if times > 1:
        return (
            f"{tilts.name} is binned by {times:g} against the stack of {transforms.name} ({why}): its shifts would be "
            f"{times:g} times too large; give that stack with --bin {times:g}, or transforms whose shifts are divided"
        )
    return (
        f"{transforms.name} is of a stack that is binned by {1 / times:g} against {tilts.name} ({why}): its shifts "
        f"would be {1 / times:g} times too small; give that stack, or transforms whose shifts are multiplied"
    )


def _field(named: Named, stack: Stack, newst: NewstCommand) -> Iterator[str]:
    """A warning where newst.com's images are far larger than the stack's; an error where its own stack is another."""
    command, (height, width) = named.files["newst_com"], stack.image_shape
    own = command.parent / newst.input_name if newst.input_name else None
    shape = stack_shape(own) if own is not None and is_file(own) else None
    if own is not None and shape is not None and shape[1:] != stack.image_shape:
        raise InputError(
            f"{command} is of {own.name}, whose images have {shape[2]} x {shape[1]} pixels, but those of "
            f"{named.tilts.name} have {width} x {height}; give {own.name}, with --bin for larger voxels"
        )
    if newst.size_px is not None:
        made = sorted(size * newst.bin for size in newst.size_px)
        if all(a >= OTHER_PIXELS * b for a, b in zip(made, sorted((width, height)), strict=True)):
            yield (
                f"Warning: {command.name} makes images that cover {newst.size_px[0] * newst.bin} x "
                f"{newst.size_px[1] * newst.bin} pixels, but those of {named.tilts.name} have {width} x {height}: if "
                "it is a binned copy of the stack that was aligned, shifts are too large; give that stack"
            )
