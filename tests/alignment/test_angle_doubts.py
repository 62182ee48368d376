"""Angles that files beside the stack contradict are told of; those that only count the images are refused."""

import struct

import numpy as np
import pytest
from tiny_series import ANGLES, made, refused, write_series

from cryolithe.formats.stacks.header_angles import read_header_angles_deg
from cryolithe.formats.stacks.mdoc import MdocImage, write_mdoc

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


def with_header_angles(stack, angles, kind):
    """Give a stack the extended header that a program writes: its name, integers and reals or flags, sections."""
    programs = {
        "SerialEM": (b"SERI", 14, 13, [struct.pack("<7h", round(100 * angle), 3, -2, 0, 0, 0, 9) for angle in angles]),
        "IMOD, unnamed": (b"", 2, 1, [struct.pack("<h", round(100 * angle)) for angle in angles]),
        "FEI": (b"FEI1", 0, 0, [struct.pack("<i96xd660x", 768, angle) for angle in angles]),
        "FEI, new": (b"FEI2", 0, 0, [struct.pack("<i96xd780x", 888, angle) for angle in angles]),
        "FEI, old": (b"", 0, 32, [struct.pack("<32f", angle, *range(31)) for angle in angles]),
        "Agard": (b"AGAR", 2, 3, [struct.pack("<2i3f", 5, 7, angle, 0, 1) for angle in angles]),
    }
    name, integers, reals, sections = programs[kind]
    content, extended = stack.read_bytes(), b"".join(sections).ljust(1024, b"\0")
    header = bytearray(content[:1024])
    header[104:108] = name.ljust(4, b"\0")
    struct.pack_into("<i", header, 92, len(extended))
    struct.pack_into("<2h", header, 128, integers, reals)
    stack.write_bytes(bytes(header) + extended + content[1024:])


KINDS = ["SerialEM", "IMOD, unnamed", "FEI", "FEI, new", "FEI, old", "Agard"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_stack_s_header_may_contradict_angles(kind, tmp_path):
    stack, text = series(tmp_path)
    with_header_angles(stack, ANGLES, kind)
    assert read_header_angles_deg(stack) == pytest.approx(ANGLES, abs=0.01)
    assert not warned(made(stack, text, *FBP))
    put(text, DOSE_SYMMETRIC)
    (line,) = warned(made(stack, text, *FBP, "--overwrite"))
    assert "given.txt and the header of ts.mrc contradict each other: their angles are in another order" in line


@pytest.mark.parametrize("kind", KINDS)
def test_angles_of_a_header_are_named_where_none_are_given(kind, tmp_path):
    stack, _ = series(tmp_path)
    with_header_angles(stack, ANGLES, kind)
    remedy = "to take them, write them to a file (IMOD: extracttilts ts.mrc ts.rawtlt)"
    told = (
        f"the header of ts.mrc tells 11 angles, {min(ANGLES):g}° to {max(ANGLES):g}°, as the microscope was asked for"
    )
    refused(tmp_path, [stack, *FBP], "give ANGLES", f"{told}: {remedy}")


@pytest.mark.parametrize("angles", [[0.0] * 11, [0.01 * n for n in range(11)], [30.0 * n for n in range(11)]])
@pytest.mark.parametrize("kind", KINDS[2:])
def test_numbers_in_a_header_that_are_no_tilts_say_nothing(kind, angles, tmp_path):
    stack, _ = series(tmp_path)
    with_header_angles(stack, angles, kind)
    assert read_header_angles_deg(stack) == ()


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
