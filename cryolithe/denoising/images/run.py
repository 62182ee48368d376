"""A stack of tilt images denoised, from file to file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.artefacts.borders import without_border
from cryolithe.artefacts.faces import filled_outside
from cryolithe.artefacts.fixed_pattern import shared_pattern
from cryolithe.denoising.ceiling import HalfScore, correlation
from cryolithe.denoising.images.amplitudes import ShellMix, mix_of_halves, mix_of_images, mix_of_neighbours
from cryolithe.denoising.images.neighbours import Triple, find_triples
from cryolithe.denoising.images.scale import for_measuring, for_network, image_scale, standard_image
from cryolithe.denoising.n2n.bundled import ENDING, bundled_denoisers
from cryolithe.denoising.n2n.network import Denoiser, kind_of, load_denoiser
from cryolithe.denoising.n2n.tiles import BLEND, Runner, Tiling, denoise_volume, margin_of, prepared, spans
from cryolithe.errors import InputError, ModelError, OutputError
from cryolithe.formats import read_mrc, write_stack
from cryolithe.formats.alignment.stack_state import NOT_FOR_RECONSTRUCTION
from cryolithe.formats.files import refuse_existing, refuse_nameless
from cryolithe.formats.reading import changed_error
from cryolithe.formats.record import changed_input, hashed, record_path
from cryolithe.formats.series_names import without_half
from cryolithe.formats.stacks.mrc import MrcArray
from cryolithe.formats.volumes.volume_file import open_volume_file
from cryolithe.machine.device import precision_name
from cryolithe.optimise.distributed import Place
from cryolithe.report.json_files import write_json
from cryolithe.work.label import file_label
from cryolithe.work.watcher import WARNING, Listening, Watcher

Image = NDArray[np.float32]
_DISTURBANCES = 77  # seed
NAME = "images"  # of the bundled weights
SUFFIX = "_denoised"
EDGE = 1024  # of tiles
# Images, spread over a stack, that amplitudes are measured in.
MOST_MEASURED = 12
# ... of which so many must have neighbours, if these are to tell.
FEWEST_TRIPLES = 4
_WHITE = "a supposition: that it is white or was smoothed"
SUPPOSED_OF_PATTERN = f"{_WHITE}; images at neighbouring tilts share a pattern that is noise, too"
SUPPOSED = (
    f"{_WHITE}; images tell it only where at least four, of 48 pixels or more, "
    "lie between two that are alike, at neighbouring tilts"
)
PATTERN = (
    "all images hold the same pattern, {:.0%} of the power of their finest details, as a gain reference that was not "
    "applied leaves: it is taken for noise that is white; correct the frames before they are summed"
)
LABEL = f"denoised images, {NOT_FOR_RECONSTRUCTION}"


@dataclass(frozen=True)
class ImagesJob:
    """One denoising of images.

    Attributes:
        stacks: one, or those of even and odd frames.
        output: to write; None: beside the first, ``ts.mrc`` to ``ts_denoised.mrc``.
        model: weights instead of the bundled ones.
        fix_nonfinite: take NaN and Inf for an image's median.
        overwrite: replace existing files.
        doubts: what was warned of before, for the record.

    Raises:
        OutputError: if the output has no name.
    """

    stacks: tuple[Path, ...]
    output: Path | None = None
    model: Path | None = None
    fix_nonfinite: bool = False
    overwrite: bool = False
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.output is not None:
            refuse_nameless(self.output)

    @property
    def target(self) -> Path:
        """What is written."""
        first = self.stacks[0]
        stem = without_half(first.stem) if len(self.stacks) > 1 else first.stem
        return self.output or first.with_name(f"{stem or first.stem}{SUFFIX}.mrc")


@dataclass(frozen=True)
class DenoisedImages:
    """What was made.

    Attributes:
        output: the stack.
        score: mean over the images, of stacks of halves; else None.
        mix: of images and the network's output, by shell.
        noise: what told how much of the images is noise.
        blank: images that have no contrast, which are passed on.
        of_one: images that are blank in one half, and made of the other.
        seconds: that it took.
        warnings: all that were told.
    """

    output: Path
    score: HalfScore | None
    mix: ShellMix
    noise: str
    blank: int
    of_one: int
    seconds: float
    warnings: tuple[str, ...] = ()


def denoise_images(job: ImagesJob, place: Place, watcher: Watcher) -> DenoisedImages:
    """Denoise every image of a stack by itself; of stacks of halves each, and write their mean.

    Raises:
        CryoLitheError: for everything that the user can mend.
    """
    started = time.monotonic()
    heard = Listening(watcher, job.doubts)
    _check_output(job)
    before = hashed(_inputs(job))
    stacks = [_opened(path) for path in job.stacks]
    shapes = {stack.data.shape for stack in stacks}
    if len(shapes) > 1:
        raise InputError(f"the stacks of halves differ in shape: {' and '.join(map(str, sorted(shapes)))}")
    denoiser = load_weights(job.model)
    run = Runner(prepared(denoiser.network, denoiser.config, place.device), place.device, place.precision)
    tiling = image_tiling((stacks[0].data.shape[1], stacks[0].data.shape[2]), denoiser)
    made = np.empty(stacks[0].data.shape, np.float32)
    chosen = np.unique(np.linspace(0, len(made) - 1, MOST_MEASURED).round().astype(int)).tolist()
    watcher.stage("Measuring amplitudes", len(chosen))
    mix, noise = _measured_mix(job, stacks, chosen, lambda image: network_image(image, run, tiling), heard)
    scores: list[tuple[float, float, float]] = []
    blank = of_one = 0
    watcher.stage("Denoising images", len(made))
    for number in range(len(made)):
        raw = [_image(stack, number, path, job.fix_nonfinite) for stack, path in zip(stacks, job.stacks, strict=True)]
        new = [denoised_image(image, run, tiling, mix) for image in raw]
        kept = [image for image in new if image is not None]
        blank += not kept
        of_one += 0 < len(kept) < len(raw)
        # With a blank half the mean would have half the contrast.
        made[number] = np.mean(kept or raw, axis=0)
        if len(kept) == 2:
            scores.append((correlation(*raw), correlation(kept[0], raw[1]), correlation(kept[1], raw[0])))
        watcher.advance(1)
    score = None
    if scores:
        mean = np.mean(scores, axis=0)
        score = HalfScore(float(mean[0]), (float(mean[1]), float(mean[2])), made[0].size * len(scores))
    if changed := changed_input({"inputs": before}, inputs := _inputs(job)):
        raise changed_error(inputs[changed], "it was denoised")
    write_stack(job.target, made, stacks[0].voxel_size_angstrom, file_label(LABEL), job.overwrite)
    done = DenoisedImages(
        job.target, score, mix, noise, blank, of_one, time.monotonic() - started, tuple(heard.warnings)
    )
    _write_record(job, denoiser, before, place, done)
    return done


def load_weights(model: Path | None) -> Denoiser:
    """Weights for images.

    Raises:
        ModelError: if there are none, or they are for volumes.
    """
    path = model or bundled_denoisers().get(NAME)
    if path is None:
        raise ModelError(
            "this copy of the program has no weights for images; train some with `cryolithe train n2n_images` and "
            f"give them with --model FILE{ENDING}"
        )
    found = load_denoiser(path)
    if kind_of(found.config) != "planar":
        raise ModelError(f"{path} holds weights for volumes; --images takes those of `cryolithe train n2n_images`")
    return found


def denoised_image(image: Image, run: Callable[[Image], Image], tiling: Tiling, mix: ShellMix) -> Image | None:
    """An image with less noise in its own grey levels, shape ``(y, x)``; None where it is blank.

    A border of one value stays.
    """
    filled = without_border(image)
    centre, sigma = image_scale(filled)
    if not sigma > 0:
        return None
    standard = standard_image(filled, centre, sigma)
    made = mix.apply(network_image(standard, run, tiling), standard)
    levels = np.asarray(made * np.float32(sigma) + np.float32(centre), np.float32)
    return np.where((filled == image) & ~filled_outside(image), levels, image)


def network_image(image: Image, run: Callable[[Image], Image], tiling: Tiling) -> Image:
    """What the network makes of a standard image, shape ``(y, x)``."""
    out, given = np.empty((1, *image.shape), np.float32), for_network(image)
    denoise_volume(run, [lambda box: given[None][box]], tiling, out)
    return out[0]


def _measured_mix(
    job: ImagesJob,
    stacks: list[MrcArray],
    numbers: Sequence[int],
    denoise: Callable[[Image], Image],
    watcher: Watcher,
) -> tuple[ShellMix, str]:
    """Amplitudes for the images of a stack, or for the mean of two halves, see `amplitudes`; and what they are from."""

    def standard() -> Iterator[list[Image]]:
        """Images in units of their noise."""
        for number in numbers:
            raw = [_image(s, number, path, job.fix_nonfinite) for s, path in zip(stacks, job.stacks, strict=True)]
            images = [without_border(image) for image in raw]
            scales = [image_scale(image) for image in images]
            if all(sigma > 0 for _, sigma in scales):
                yield [
                    for_measuring(standard_image(image, *scale)) for image, scale in zip(images, scales, strict=True)
                ]
            watcher.advance(1)

    if len(stacks) > 1:
        return mix_of_halves(standard(), denoise), "the halves"
    stack = stacks[0]
    pattern = shared_pattern(_standard(job, stack, number) for number in numbers)
    if pattern:
        watcher.note(f"{WARNING}{PATTERN.format(pattern)}")
        return mix_of_images((images[0] for images in standard()), denoise, _disturbances()), SUPPOSED_OF_PATTERN
    triples = find_triples(len(stack.data), lambda number: _standard(job, stack, number), len(numbers))
    if len(triples) >= FEWEST_TRIPLES:
        found = mix_of_neighbours(_parts(job, stack, triples, denoise, watcher.advance))
        return found, f"{len(triples)} images and their neighbours in tilt"
    return mix_of_images((images[0] for images in standard()), denoise, _disturbances()), SUPPOSED


def _disturbances() -> np.random.Generator:
    return np.random.default_rng(_DISTURBANCES)


def _standard(job: ImagesJob, stack: MrcArray, number: int) -> Image:
    """An image in units of its noise, to measure amplitudes in; a blank one is 0."""
    image = without_border(_image(stack, number, job.stacks[0], job.fix_nonfinite))
    centre, sigma = image_scale(image)
    return for_measuring(standard_image(image, centre, sigma)) if sigma > 0 else np.zeros_like(image)


def _parts(
    job: ImagesJob,
    stack: MrcArray,
    triples: Sequence[Triple],
    denoise: Callable[[Image], Image],
    advance: Callable[[int], object],
) -> Iterator[tuple[Image, Image, Image, Image]]:
    """What the network makes of the middle of each triple, and its images, all of the same part of the specimen."""
    for triple in triples:
        images = [_standard(job, stack, number) for number in triple.numbers]
        boxes = triple.boxes((images[0].shape[0], images[0].shape[1]))
        middle, *sides = (np.ascontiguousarray(image[box]) for image, box in zip(images, boxes, strict=True))
        yield np.ascontiguousarray(denoise(images[0])[boxes[0]]), middle, sides[0], sides[1]
        advance(1)


def image_tiling(shape: tuple[int, int], denoiser: Denoiser) -> Tiling:
    """Tiles of one image ``(y, x)``."""
    config = denoiser.config
    y, x = (spans(size, EDGE, margin_of(config), BLEND, config.multiple) for size in shape)
    return Tiling((1, *shape), (spans(1, 1, 0, 0, 1), y, x))


def _opened(path: Path) -> MrcArray:
    """A stack of images.

    Raises:
        CryoLitheError: if it is none.
    """
    if open_volume_file(path).told.content == "volume":
        raise InputError(f"{path} is a volume, and --images takes a stack of tilt images; leave --images away for it")
    return read_mrc(path)


def _image(stack: MrcArray, number: int, path: Path, repair: bool) -> Image:
    image = np.array(stack.data[number], np.float32)
    good = np.isfinite(image)
    if good.all():
        return image
    if not repair:
        raise InputError(
            f"{path}: image {number + 1} holds values that are not finite; --fix-nonfinite takes them for its median"
        )
    image[~good] = np.median(image[good]) if good.any() else 0.0
    return image


def _inputs(job: ImagesJob) -> dict[str, Path]:
    return dict(zip(("half1", "half2") if len(job.stacks) > 1 else ("tilts",), job.stacks, strict=True))


def _check_output(job: ImagesJob) -> None:
    """Refuse names that are taken before any work."""
    target = job.target
    if not target.parent.is_dir():
        raise OutputError(f"the output folder {target.parent} does not exist; make it first or choose another -o")
    for path in (target, record_path(target)):
        if any(path.exists() and path.samefile(one) for one in job.stacks if one.exists()):
            raise OutputError(f"{path} is an input of this run; choose another name with -o")
        refuse_existing(path, job.overwrite)


def _write_record(
    job: ImagesJob, denoiser: Denoiser, before: dict[str, Any], place: Place, done: DenoisedImages
) -> None:
    write_json(
        record_path(done.output),
        {
            "program": {"name": "CryoLithe", "version": __version__, "torch": torch.__version__},
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "inputs": before,
            "volume": {
                "path": done.output.name,
                "content": "stack",
                "use": f"viewing and alignment, {NOT_FOR_RECONSTRUCTION}",
            },
            "method": {
                "name": "n2n images",
                "weights": {"path": job.model or NAME, "sha256": denoiser.sha256},
                "card": denoiser.card,
            },
            "compute": {"device": str(place.device), "precision": precision_name(place.precision)},
            "amplitudes": done.mix.plain(),
            "noise_told_by": done.noise,
            "blank_images": done.blank,
            "blank_in_one_half": done.of_one,
            "score": done.score.plain() if done.score else None,
            "seconds": round(done.seconds, 1),
            "warnings": done.warnings,
        },
    )
