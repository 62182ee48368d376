"""Which volumes belong together: pairs that were given or that lie in a folder, and what is made of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryolithe.denoising.job import Given, Item, beside, page_of
from cryolithe.denoising.output import default_output
from cryolithe.errors import InputError, OutputError
from cryolithe.formats.files import MRC_VOLUME_ENDINGS
from cryolithe.formats.series_names import half_of, without_half
from cryolithe.formats.volumes.half_volumes import find_half_volumes
from cryolithe.formats.volumes.ome_zarr_reader import is_ome_zarr
from cryolithe.formats.volumes.tiff import ENDINGS

SUFFIX = "_n2n"
SHARED = "n2n"  # name of a network that is trained on several pairs
_SHOWN = 4
Gathered = tuple[tuple[Item, ...], Path, tuple[str, ...]]  # what is made, where the network is kept, notes


def gather(given: Given, report: Path | None) -> Gathered:
    """What is to be made of what a user gave.

    Args:
        given: one or more pairs, a folder with pairs, or a whole volume.
        report: figure, of a single volume.

    Returns:
        items; where the network is kept, without an ending; what was assumed, in words.

    Raises:
        InputError: if there is nothing to denoise, or too much.
        OutputError: if a name does not suit several volumes.
    """
    if given.halves and given.volumes:
        raise InputError(
            f"give either VOLUME or --half1 and --half2: the halves are denoised, {given.volumes[0]} would not be used"
        )
    if len(given.halves) == 1:
        return _one({"half1": given.halves[0][0], "half2": given.halves[0][1]}, given, report)
    if given.halves:
        return _several(given.halves, given, given.halves[0][0].parent, report)
    if not given.volumes:
        raise InputError(
            "give --half1 and --half2 (volumes of even and odd images), a folder with such volumes, or VOLUME and "
            "--model"
        )
    volume = given.volumes[0]
    if not volume.is_dir() or is_ome_zarr(volume):
        return _one({"volume": volume}, given, report)
    found = find_half_volumes(volume)
    left_out = _left_out(found.left_out)
    if found.pairs:
        items, learned, notes = _several(found.pairs, given, volume, report)
        return items, learned, (_told(found.pairs), *notes, *left_out)
    if any(path.suffix.lower() in ENDINGS for path in volume.iterdir()):  # planes of one volume
        return _one({"volume": volume}, given, report)
    raise InputError(
        f"{volume} holds no pairs of half volumes: expected names with EVN and ODD, even and odd, or half1 and half2, "
        f"in it or one level below{'; ' + left_out[0][0].lower() + left_out[0][1:] if left_out else ''}"
    )


def output_of(first: Path) -> Path:
    """``tomo_EVN.mrc`` to ``tomo_n2n.mrc``, like the outputs of other methods in kind and place.

    Halves of one name in folders ``even`` and ``odd`` have theirs beside these.
    """
    named = default_output(first, SUFFIX)
    stem = named.stem.removesuffix(SUFFIX)
    whole, folder = without_half(stem), half_of(first.parent.name)
    if whole == stem and folder and folder.first and not folder.whole:
        named = first.parent.parent / named.name
    return named.with_name(whole + SUFFIX + named.suffix)


def _one(inputs: dict[str, Path], given: Given, report: Path | None) -> Gathered:
    output = given.output or output_of(next(iter(inputs.values())))
    return (Item(inputs, output, report or page_of(output)),), beside(output), ()


def _several(pairs: Sequence[tuple[Path, Path]], given: Given, folder: Path, report: Path | None) -> Gathered:
    """One network for all pairs, which is kept beside the results."""
    if report is not None:
        raise OutputError("--report is for one volume; of several, each has its figure beside it")
    place = given.output
    if place is not None and not place.is_dir():
        if place.suffix.lower() in (*MRC_VOLUME_ENDINGS, *ENDINGS, ".zarr") or place.exists():
            raise OutputError(f"-o {place}: of several pairs, -o takes the folder of all results")
        if not place.parent.is_dir():
            raise OutputError(f"-o {place}: there is no folder {place.parent}; make it first")
    items = []
    for half1, half2 in pairs:
        output = output_of(half1)
        output = output if place is None else place / output.name
        items.append(Item({"half1": half1, "half2": half2}, output, page_of(output)))
    return tuple(items), (place or folder) / SHARED, ()


def _told(pairs: Sequence[tuple[Path, Path]]) -> str:
    names = [f"{a.name} and {b.name}" for a, b in pairs[:_SHOWN]] + (["..."] if len(pairs) > _SHOWN else [])
    return f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of halves: {'; '.join(names)}"


def _left_out(left: Sequence[tuple[Path, str]]) -> tuple[str, ...]:
    if not left:
        return ()
    shown = [f"{path.name} ({reason})" for path, reason in left[:_SHOWN]] + (["..."] if len(left) > _SHOWN else [])
    return (f"Left out: {', '.join(shown)}",)
