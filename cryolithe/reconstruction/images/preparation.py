"""From a stack to a prepared one: checked, rotated, binned, means removed.

Images are independent of each other: several are prepared at a time, one core each.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryolithe.alignment import View
from cryolithe.artefacts.borders import MOST_OF_IMAGE, filled_border, find_border, find_wide_border, without_border
from cryolithe.column_shifts import ColumnShifts
from cryolithe.errors import InputError, OutputError
from cryolithe.formats.volumes.pages import release_pages
from cryolithe.geometry import TiltGeometry
from cryolithe.images import binned_size, fourier_crop, resample, rotate_axis, rotated_shape
from cryolithe.reconstruction.images.brightness import Brightness, brightness_factors, brightness_of
from cryolithe.reconstruction.images.correcting import ImageCorrection, corrected, corrected_layers
from cryolithe.reconstruction.images.defects import Spread, spread_of, without_defects
from cryolithe.reconstruction.images.evenness import Surface, surface_of, unevenness, without_surface
from cryolithe.reconstruction.images.layers import Layers
from cryolithe.reconstruction.images.outliers import Looks, looks_of, outlier_notes
from cryolithe.reconstruction.images.prepared_stack import PreparedStack, changed, images_of, measured, multiplied
from cryolithe.reconstruction.images.slow import Slow, slow_of, slow_part, without_slow
from cryolithe.tilts import TiltSeries

_ITEM = 4
# Raised whenever the same images are prepared otherwise than before: an unfinished run does not go on with others.
PREPARED_AS = 3
MOST_NAMED = 8
# Arrays as large as an image, float32, that exist at once while one is prepared; a few of them are float64.
_ARRAYS = 12
_T = TypeVar("_T")


class _Look(NamedTuple):
    """What is seen of a prepared image; its slow part where that may go around a network, how bright it was before."""

    brightness: Brightness | None
    spread: Spread
    surface: Surface
    slow: Slow | None


@dataclass(frozen=True)
class Preparation:
    """How images are changed before they are reconstructed.

    Attributes:
        tilt_axis_deg: angle of the tilt axis from y; undone by rotation.
        bin: binning factor, applied after the rotation.
        fix_nonfinite: replace NaN and Inf by the image's mean instead of refusing them.
        clip_defects: clip pixels that can only be defects before anything spreads them (for networks).
        standardise_stack: subtract one mean from all images and divide by one standard deviation, both of the whole
            stack as it is, instead of removing each image's mean (for networks of the published program).
        views: where each image is read, instead of the rotation of the tilt axis; None where it stays in place.
        aligned_shape: pixels ``(y, x)`` of an aligned image before binning; needed with ``views``.
        corrections: of each image's CTF and damage; None for none.
        shifts: of columns, that bending images back leaves by depth; None for none.
        layers: slabs of z for which the CTF is corrected anew; None for none.
        slow_from: share of the variance from which what changes slowly is taken out of the images, to go around a
            network (see `cryolithe.reconstruction.images.slow`); None for never.
        relative: divide images that are in proportion to counts by their means (for networks, see
            `cryolithe.reconstruction.images.brightness`).
    """

    tilt_axis_deg: float = 0.0
    bin: int = 1
    fix_nonfinite: bool = False
    clip_defects: bool = False
    standardise_stack: bool = False
    views: tuple[View, ...] | None = None
    aligned_shape: tuple[int, int] | None = None
    corrections: tuple[ImageCorrection, ...] | None = None
    shifts: ColumnShifts | None = None
    layers: Layers | None = None
    slow_from: float | None = None
    relative: bool = False

    @property
    def copies(self) -> int:
        """How often each image is prepared."""
        return 1 if self.layers is None else len(self.layers.planes)

    def image_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Shape ``(y, x)`` of a prepared image."""
        y, x = self.aligned_shape or rotated_shape(shape, self.tilt_axis_deg)
        return binned_size(y, self.bin), binned_size(x, self.bin)


def image_workers(shape: tuple[int, int], threads: int, budget_bytes: int, copies: int = 1) -> int:
    """How many images of a shape ``(y, x)`` can be prepared at a time, by memory and cores; at least one."""
    return max(1, min(threads, budget_bytes // bytes_at_work(shape, copies)))


def bytes_at_work(shape: tuple[int, int], copies: int = 1) -> int:
    """Memory for an image of a shape ``(y, x)`` while it is prepared in ``copies``, see `Preparation`."""
    return (_ARRAYS + 2 * (copies - 1)) * _ITEM * shape[0] * shape[1]


def prepare_stack(
    series: TiltSeries,
    how: Preparation,
    path: Path | None,
    on_image: Callable[[], object] = lambda: None,
    workers: int = 1,
) -> PreparedStack:
    """Prepare a series; the result does not depend on how many images are worked on at a time, or on where they go.

    Args:
        series: the aligned series, which `check_images` has passed.
        how: what to do.
        path: file to write; None to keep the images in memory.
        on_image: called after each image.
        workers: images at a time, see `image_workers`.

    Raises:
        OutputError: if the file cannot be written.
    """
    shape = how.image_shape(series.geometry.image_shape)
    geometry = TiltGeometry(series.geometry.angles_deg, shape, how.shifts)
    statistics = stack_statistics(series) if how.standardise_stack else None
    reading = threading.Lock()

    def looks(put: Callable[[int, NDArray[np.float32]], object]) -> list[_Look]:
        def prepare(number: int) -> _Look:
            with reading:  # files that are read one by one need not stand several readers
                image = finite_image(series.image(number))
            image = without_border(image)
            brightness = brightness_of(image) if how.relative else None
            copies = [_prepared(image, how, number, statistics)] if how.copies == 1 else _in_layers(image, how, number)
            for copy, one in enumerate(copies):
                put(copy * geometry.tilts + number, one)
            image = copies[how.copies // 2]
            release_pages(series.images)
            slow = slow_of(image) if how.slow_from is not None else None
            return _Look(brightness, spread_of(image), surface_of(image), slow)

        found = []
        for look in _each(prepare, geometry.tilts, workers):
            found.append(look)
            on_image()
        return found

    pixels: Path | NDArray[np.float32]
    if path is None:
        pixels = np.empty((how.copies * geometry.tilts, *shape), dtype=np.float32)
        found = looks(pixels.__setitem__)
    else:
        pixels = path
        try:
            found = _written(path, geometry, how.copies, looks)
        except OSError as error:
            raise OutputError(f"cannot write the temporary stack {path}: {error.strerror or error}") from error
    stack = PreparedStack(pixels, geometry, 1.0, float("inf"), how.copies)
    if how.standardise_stack:
        return stack
    slow = [look.slow for look in found if look.slow is not None]
    factors = brightness_factors([look.brightness for look in found], geometry.angles_deg)
    spreads = [look.spread for look in found]
    if factors is not None:
        stack = multiplied(stack, factors)
        spreads = [one.times(factor) for one, factor in zip(spreads, factors.tolist(), strict=True)]
        slow = [one._replace(squares=one.squares * factor) for one, factor in zip(slow, factors, strict=False)]
    share = unevenness([look.surface for look in found])
    if share:
        stack = replace(changed(stack, lambda image, _: without_surface(image, surface_of(image))), unevenness=share)
        slow = [slow_of(np.asarray(image)) for image in images_of(stack)] if slow else []
    else:
        stack = measured(stack, spreads)
    part = slow_part(slow, shape, how.slow_from) if how.slow_from is not None else None
    if part is None:
        return stack
    return replace(changed(stack, lambda image, number: without_slow(image, slow[number])), slow=part)


def is_divided(series: TiltSeries, how: Preparation) -> bool:
    """Whether `prepare_stack` would divide the images of a series by their means."""
    if not how.relative:
        return False
    found = []
    for number in range(series.geometry.tilts):
        found.append(brightness_of(without_border(finite_image(series.image(number)))))
        release_pages(series.images)
    return brightness_factors(found, series.geometry.angles_deg) is not None


def prepare_image(series: TiltSeries, how: Preparation, number: int) -> NDArray[np.float32]:
    """One image of a series as it is prepared by itself, shape ``(y, x)``, its mean removed."""
    image = _prepared(without_border(finite_image(series.image(number))), how, number, None)
    release_pages(series.images)
    return image


def _written(
    path: Path,
    geometry: TiltGeometry,
    copies: int,
    looks: Callable[[Callable[[int, NDArray[np.float32]], object]], list[_Look]],
) -> list[_Look]:
    """What ``looks`` finds of the images that it puts into a new file."""
    image_bytes = geometry.image_shape[0] * geometry.image_shape[1] * _ITEM
    # A link in its place would lead the writing elsewhere.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o666)
    with os.fdopen(descriptor, "wb") as file:
        os.truncate(file.fileno(), copies * geometry.tilts * image_bytes)
        return looks(lambda number, image: _write_at(file.fileno(), image, number * image_bytes))


def _each(work: Callable[[int], _T], count: int, workers: int) -> Iterator[_T]:
    """Results of ``work(0) ... work(count - 1)`` in this order; after an error nothing more is begun."""
    if workers == 1:
        yield from map(work, range(count))
        return
    with ThreadPoolExecutor(workers, "cryolithe-images") as executor:
        futures = [executor.submit(work, number) for number in range(count)]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _write_at(descriptor: int, image: NDArray[np.float32], place: int) -> None:
    """Write a whole image at a place of a file."""
    rest = memoryview(np.ascontiguousarray(image, dtype="<f4").data).cast("B")
    while rest:  # one call may write less than it was given
        written = os.pwrite(descriptor, rest, place)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest, place = rest[written:], place + written


def _prepared(
    image: NDArray[np.float32], how: Preparation, number: int, statistics: tuple[float, float] | None
) -> NDArray[np.float32]:
    """A finite image as it is reconstructed; ``statistics`` are mean and deviation of a stack to be standardised."""
    if how.clip_defects:
        image = without_defects(image)
    if statistics is not None:
        return _with_corrections(
            _in_place(((image - statistics[0]) / statistics[1]).astype(np.float32), how, number), how, number
        )
    image = _in_place(image - image.mean(dtype=np.float64).astype(np.float32), how, number)
    image = _with_corrections(image, how, number)
    return image - image.mean(dtype=np.float64).astype(np.float32)


def _in_layers(image: NDArray[np.float32], how: Preparation, number: int) -> list[NDArray[np.float32]]:
    """A finite image, prepared for each slab of z."""
    assert how.layers is not None and how.corrections is not None  # noqa: PT018
    placed = _prepared(image, replace(how, corrections=None), number, None)
    made = corrected_layers(placed, how.corrections[number], how.layers)
    return [one - one.mean(dtype=np.float64).astype(np.float32) for one in made]


def _with_corrections(image: NDArray[np.float32], how: Preparation, number: int) -> NDArray[np.float32]:
    return image if how.corrections is None else corrected(image, how.corrections[number])


def _in_place(image: NDArray[np.float32], how: Preparation, number: int) -> NDArray[np.float32]:
    """Align and bin an image; what needs no interpolation gets none."""
    if how.views is None:
        return fourier_crop(rotate_axis(image, how.tilt_axis_deg), how.bin)
    view = how.views[number]
    shape = how.aligned_shape or (image.shape[0], image.shape[1])
    if view.identity and shape == image.shape:
        return fourier_crop(image, how.bin)
    binned = binned_size(shape[0], how.bin), binned_size(shape[1], how.bin)
    bent = None if view.bend is None else view.displaced_px
    return resample(image, np.array(view.matrix), view.offset_px, binned, how.bin, bent)


def stack_statistics(series: TiltSeries) -> tuple[float, float]:
    """Mean and standard deviation of all pixels of a series, in float64; what is not finite counts as its image's mean.

    Borders of one value count as what replaces them.

    Computed image by image, and joined so that a large mean costs no digits (Chan, Golub and LeVeque 1983).
    """
    count, mean, squares = 0, 0.0, 0.0
    for number in range(series.geometry.tilts):
        image = without_border(finite_image(series.image(number))).astype(np.float64)
        size, shift = image.size, float(image.mean()) - mean
        squares += float(((image - image.mean()) ** 2).sum()) + shift**2 * count * size / (count + size)
        mean += shift * size / (count + size)
        count += size
        release_pages(series.images)
    return mean, float(np.sqrt(squares / count))


def check_images(series: TiltSeries, how: Preparation, name: str, workers: int = 1) -> tuple[str, ...]:
    """Look at all images before anything is written.

    Args:
        series: what is to be reconstructed.
        how: what will be done to its images.
        name: of the stack, for messages.
        workers: images at a time, see `image_workers`.

    Returns:
        what the user should know: borders of one value, which are replaced, and outliers.

    Raises:
        InputError: for NaN and Inf, unless they are to be fixed, and for constant images.
    """
    reading = threading.Lock()

    def look(number: int) -> tuple[int, bool, bool, _Seen | None]:
        """Pixels that are not finite, whether no other is left, whether all others are the same; else what is seen."""
        with reading:
            whole = np.asarray(series.image(number))
        image = whole
        finite = np.isfinite(image) if image.dtype.kind == "f" else None
        bad = 0 if finite is None else int(image.size - finite.sum())
        if bad:
            image = image[finite]
        constant = bool(image.size) and bool(image.max() == image.min())
        seen = None
        if image.size and not constant:
            seen = _look_at(finite_image(whole), how.relative)
        release_pages(series.images)
        return bad, image.size == 0, constant, seen

    bad_pixels, bad_tilts, constant = 0, [], []
    found: dict[int, _Seen] = {}
    for number, (bad, empty, same, seen) in enumerate(_each(look, series.geometry.tilts, workers)):
        if empty:
            raise InputError(
                f"{name}: tilt {series.section(number) + 1} holds no finite pixel; leave it out: --exclude "
                f"{series.section(number) + 1}"
            )
        if bad:
            bad_pixels += bad
            bad_tilts.append(series.section(number) + 1)
        if same:
            constant.append(series.section(number) + 1)
        if seen:
            found[series.numbers[number]] = seen
    if bad_tilts and not how.fix_nonfinite:
        raise InputError(
            f"{name} holds {bad_pixels} NaN or Inf pixels in {_tilt_list(bad_tilts)}; "
            "give --fix-nonfinite to replace them by their image's mean, or leave these images out: --exclude "
            + ",".join(map(str, bad_tilts))
        )
    if len(constant) == series.geometry.tilts:
        raise InputError(
            f"{name}: all {len(constant)} images are blank (each holds one value), which says nothing; write the stack "
            "again, or give another one"
        )
    if constant:
        verb = "is" if len(constant) == 1 else "are"
        raise InputError(
            f"{name}: {_tilt_list(constant)} of {series.geometry.tilts} {verb} constant: a blank image says nothing; "
            f"leave {'it' if len(constant) == 1 else 'them'} out: --exclude {','.join(map(str, constant))}"
        )
    looks = [seen.looks for seen in found.values()]
    light = brightness_factors([seen.brightness for seen in found.values()], series.geometry.angles_deg)
    factors = () if light is None else tuple(light.tolist())
    outliers = outlier_notes(looks, series.geometry.angles_deg, series.numbers, how.clip_defects, factors)
    return (*_border_notes(found), *outliers)


class _Seen(NamedTuple):
    """Of an image: the share of a border that is replaced, that of one too wide for it, how the data look."""

    border: float
    wide: float
    looks: Looks
    brightness: Brightness | None


def _look_at(image: NDArray[np.float32], relative: bool) -> _Seen:
    border, wide = find_border(image), find_wide_border(image)
    widest = wide or border
    data = filled_border(image, widest) if widest else image
    # A wide border is left in the image that is reconstructed.
    prepared = data if wide is None else filled_border(image, border) if border else image
    light = brightness_of(prepared) if relative else None
    return _Seen(border.share if border else 0.0, wide.share if wide else 0.0, looks_of(data), light)


def _border_notes(found: dict[int, _Seen]) -> list[str]:
    """Lines for the user about borders, by the images' numbers in their stack."""
    notes = []
    if borders := [seen.border for seen in found.values() if seen.border]:
        notes.append(
            f"{len(borders)} of {len(found)} images have a border of one value (up to {max(borders):.0%} of an image), "
            "as alignments fill in; it would make streaks, so the local mean of the nearest data replaces it"
        )
    if wide := sorted((number, seen.wide) for number, seen in found.items() if seen.wide):
        told = [f"{number} ({share:.0%})" for number, share in wide[:MOST_NAMED]]
        more = f", ... ({len(wide)} of {len(found)})" if len(wide) > len(told) else ""
        named = f"image {told[0]} has" if len(wide) == 1 else f"images {', '.join(told)}{more} have"
        notes.append(
            f"Warning: {named} a border of one value that is left as it is: more than {MOST_OF_IMAGE:.0%} of an image "
            "may be a vacuum; if an alignment filled it in, it makes streaks: leave such an image out (--exclude), or "
            "cut the stack to what all of its images show"
        )
    return notes


def _tilt_list(numbers: list[int]) -> str:
    shown = ", ".join(str(n) for n in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
    return f"tilt{'' if len(numbers) == 1 else 's'} {shown}"


def finite_image(image: NDArray[np.generic]) -> NDArray[np.float32]:
    """Image as float32 with what is not finite replaced by the mean of the rest."""
    values = np.array(image, dtype=np.float32)
    good = np.isfinite(values)
    if not good.all():
        values[~good] = values[good].mean(dtype=np.float64)
    return values
