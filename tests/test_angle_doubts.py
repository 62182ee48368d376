"""Angles that files beside the stack contradict are told of; those that only count the images are refused."""

import numpy as np
import pytest
from tiny_series import ANGLES, made, refused, write_series

from cryolithe.formats.mdoc import MdocImage, write_mdoc

FBP = ("--method", "fbp", "--contrast", "bright", "--thickness", 8)
REFINED = [angle + 5 + 0.8 * np.sin(number) for number, angle in enumerate(ANGLES)]
PERMUTED = np.random.default_rng(0).permutation(ANGLES)
DOSE_SYMMETRIC = sorted(ANGLES, key=abs)


def put(path, angles):
    path.write_text("".join(f"{angle:g}\n" for angle in angles))
    return path


def beside(folder, ending, angles):
    """Write what another file says of the images of ts.mrc."""
    if ending != ".mrc.mdoc":
        return put(folder / f"ts{ending}", angles)
    images = [MdocImage(float(angle), 3.0, 0.0, -3.0, number) for number, angle in enumerate(angles)]
    write_mdoc(folder / "ts.mrc.mdoc", "ts.mrc", images, 5.0, (40, 48), 300)
    return folder / "ts.mrc.mdoc"


def series(folder, angles=ANGLES):
    """A stack, with its angles under a name that is not found beside it."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((len(angles), 24, 32)).astype(np.float32)
    stack, text = write_series(folder, images, angles)
    return stack, text.rename(folder / "given.txt")


def warned(result):
    return [line for line in result.stderr.splitlines() if line.startswith("Warning: ") and "given.txt" in line]


@pytest.mark.parametrize("ending", [".rawtlt", ".tlt", ".mrc.mdoc"])
@pytest.mark.parametrize(
    ("angles", "word"),
    [
        (PERMUTED, "another order"),
        (DOSE_SYMMETRIC, "another order"),
        (ANGLES[::-1], "opposite signs"),
        (np.linspace(-40, 40, 11), "-50° to 50° and -40° to 40°"),
    ],
)
def test_files_that_contradict_each_other_are_both_named(ending, angles, word, tmp_path):
    stack, text = series(tmp_path)
    other = beside(tmp_path, ending, angles)
    (line,) = warned(made(stack, text, *FBP))
    assert "given.txt and" in line
    assert other.name in line
    assert word in line


@pytest.mark.parametrize("ending", [".rawtlt", ".mrc.mdoc"])
@pytest.mark.parametrize("angles", [ANGLES, REFINED, np.array(ANGLES) + 15, ANGLES[1:]])
def test_refined_angles_and_those_of_other_images_are_no_contradiction(ending, angles, tmp_path):
    stack, text = series(tmp_path)
    beside(tmp_path, ending, angles)
    assert not warned(made(stack, text, *FBP))


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_of_images_are_refused_where_a_file_tells_the_angles(first, tmp_path):
    stack, text = series(tmp_path)
    put(text, range(first, first + len(ANGLES)))
    (line,) = warned(made(stack, text, *FBP, "-o", tmp_path / "one.mrc"))
    assert f"holds {first}, {first + 1}, ... {first + 10}, one for each image" in line
    beside(tmp_path, ".rawtlt", ANGLES)
    refused(tmp_path, (stack, text, *FBP), "counts the images", "ts.rawtlt beside ts.mrc tells -50° to 50°")


@pytest.mark.parametrize("first", [0, 1])
def test_steps_of_a_degree_from_the_untilted_image_are_angles(first, tmp_path):
    angles = range(first, first + 61)
    stack, text = series(tmp_path, angles)
    beside(tmp_path, ".mrc.mdoc", np.array(angles) + 0.3)
    assert not warned(made(stack, text, *FBP))
    put(text, [*angles[:-1], angles[-1] + 0.5])  # no counting
    (tmp_path / "ts.mrc.mdoc").unlink()
    assert not warned(made(stack, text, *FBP, "--overwrite"))
