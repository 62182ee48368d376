"""A raw tilt series of beads whose alignment is known, written as projects of several programs.

The beads lie where no symmetry can hide an error of sign. Each program's files are written from its own definition:
IMOD's p -> q, AreTomo's and RELION's q -> p, Warp's with its own sense of z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from plain_mrc import new_mrc

ANGLES = tuple(float(a) for a in range(-57, 61, 6))
SHAPE = (70, 80)  # of a raw image, (y, x)
VOLUME = (32, 80, 70)  # (z, y, x): the tilt axis is nearer to the horizontal
AXIS_DEG = 84.0
PIXEL = 4.0
DARK = (0, 11)  # sections that no program aligned
# (x, y, z) from the middle of the volume, and weight.
BEADS = ((14.0, -18.0, 9.0, 1.0), (-17.0, 9.0, -7.0, 0.7), (5.0, 22.0, -10.0, 0.5))
SIGMA = 1.6


@dataclass(frozen=True)
class Project:
    """A raw stack and what any program knows about it."""

    folder: Path
    shifts: np.ndarray

    @property
    def stack(self):
        return self.folder / "ts.mrc"

    @property
    def tlt(self):
        return self.folder / "ts.tlt"


def turn(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s], [s, c]])


def raw_positions(shifts, x_tilt_deg=0.0):
    """Where beads are seen, ``(image, bead, xy)`` from the middle: p = R(axis) q + shift."""
    points = np.array([bead[:3] for bead in BEADS])
    c, s = math.cos(math.radians(x_tilt_deg)), math.sin(math.radians(x_tilt_deg))
    x, y, z = points[:, 0], points[:, 1] * c - points[:, 2] * s, points[:, 1] * s + points[:, 2] * c
    seen = [np.stack([x * math.cos(a) + z * math.sin(a), y], -1) for a in np.deg2rad(ANGLES)]
    return np.array([q @ turn(AXIS_DEG).T + shift for q, shift in zip(seen, shifts, strict=True)])


def make_project(folder, x_tilt_deg=0.0, dark=DARK, shape=SHAPE, scale=1):
    """Write the raw stack; ``scale`` makes it finer, for binning."""
    folder.mkdir(exist_ok=True)
    shifts = np.random.default_rng(4).uniform(-3, 3, (len(ANGLES), 2))
    height, width = (n * scale for n in shape)
    rows, columns = np.mgrid[:height, :width]
    images = np.zeros((len(ANGLES), height, width))
    for number, places in enumerate(raw_positions(shifts, x_tilt_deg)):
        for (x, y), bead in zip(places * scale, BEADS, strict=True):
            away = (columns - (width - 1) / 2 - x) ** 2 + (rows - (height - 1) / 2 - y) ** 2
            images[number] += bead[3] * np.exp(-away / (2 * (SIGMA * scale) ** 2))
    for section in dark:
        images[section] = np.random.default_rng(section).standard_normal(images.shape[1:])
    project = Project(folder, shifts * scale)
    with new_mrc(project.stack, images.astype(np.float32)) as file:
        file.set_image_stack()
        file.voxel_size = PIXEL / scale
    project.tlt.write_text("".join(f"{angle:.2f}\n" for angle in ANGLES))
    return project


def write_imod(project, tilt_lines=(), newst_lines=(), dark=DARK):
    """The .xf (q = A p + d), newst.com and tilt.com."""
    matrix = turn(-AXIS_DEG)
    lines = []
    for section, shift in enumerate(project.shifts):
        d = np.zeros(2) if section in dark else -matrix @ shift
        lines.append(" ".join(f"{v:.7f}" for v in (*matrix.ravel(), *d)))
    xf, newst, tilt = (project.folder / name for name in ("ts.xf", "newst.com", "tilt.com"))
    xf.write_text("\n".join(lines) + "\n")
    # As etomo writes it: newstack itself keeps the size of raw images, however they are turned.
    sized = any(line.startswith(("SizeToOutput", "BinByFactor")) for line in newst_lines)
    size = [] if sized else [f"SizeToOutputInXandY {VOLUME[2]},{VOLUME[1]}"]
    newst.write_text("\n".join(["$newstack -StandardInput", "TransformFile ts.xf", *size, *newst_lines]) + "\n")
    excluded = [f"EXCLUDELIST2 {','.join(str(section + 1) for section in dark)}"] if dark else []
    tilt.write_text(
        "\n".join(["# a comment", "$tilt -StandardInput", "TILTFILE ts.tlt", *excluded, *tilt_lines]) + "\n"
    )
    return xf, newst, tilt


def write_aretomo(project, first=1, order=1, dark=DARK, extra=()):
    """The .aln (p = R(ROT) q + T); ``first`` is the number of the first section."""
    lines = [
        "# AreTomo Alignment / Priims bprmMn",
        f"# RawSize = {SHAPE[1]} {SHAPE[0]} {len(ANGLES)}",
        "# NumPatches = 0",
        *(f"# DarkFrame =  {s:4d} {s + first:4d} {ANGLES[s]:8.2f}" for s in dark),
        *extra,
        "# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT",
    ]
    rows = [
        f"{s + first:5d} {AXIS_DEG:.4f} 1.00000 {x:.3f} {y:.3f} 1.00 1.00 1.00 0.00 {ANGLES[s]:.2f}"
        for s, (x, y) in enumerate(project.shifts)
        if s not in dark
    ]
    path = project.folder / "ts.aln"
    path.write_text("\n".join(lines + rows[::order]) + "\n")
    return path


def relion_shifts(shape=SHAPE, volume=VOLUME, shifts=None):
    """Shifts, pixels, with which RELION's own centres (N // 2) put the beads into the same voxels.

    A voxel's index less N // 2 is projected, turned, shifted, and counted from N // 2 of the image.
    """
    found = []
    off = np.array([(n - 1) / 2 - n // 2 for n in volume[::-1]])  # of the middle, x y z
    image = np.array([(n - 1) / 2 - n // 2 for n in shape[::-1]])
    for angle, shift in zip(np.deg2rad(ANGLES), shifts, strict=True):
        seen = np.array([off[0] * math.cos(angle) + off[2] * math.sin(angle), off[1]])
        found.append(shift + image - turn(AXIS_DEG) @ seen)
    return np.array(found)


def write_relion(project, dark=DARK, parts=True):
    """A tilt-series table of RELION-5 and the table that lists it."""
    shifts = relion_shifts(shifts=project.shifts) * PIXEL
    columns = ("rlnMicrographName", "rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst")
    columns += ("rlnTomoYShiftAngst",)
    lines = ["", "data_ts", "", "loop_", *(f"_{name} #{i}" for i, name in enumerate(columns, start=1))]
    for s, (x, y) in enumerate(shifts):
        if s not in dark:
            name = f"{s + 1:06d}@ts.mrc" if parts else f"MotionCorr/ts_{s:02d}.mrc"
            lines.append(f"{name} 0.0 {ANGLES[s]:.3f} {AXIS_DEG:.4f} {x:.4f} {y:.4f}")
    (project.folder / "tilt_series").mkdir(exist_ok=True)
    table = project.folder / "tilt_series" / "ts.star"
    table.write_text("\n".join(lines) + "\n")
    names = ("rlnTomoName", "rlnTomoTiltSeriesPixelSize", "rlnTomoTiltSeriesStarFile", "rlnTomoSizeX", "rlnTomoSizeY")
    names += ("rlnTomoSizeZ",)
    listing = project.folder / "tomograms.star"
    row = f"ts {PIXEL} Tomograms/job009/tilt_series/ts.star {VOLUME[2]} {VOLUME[1]} {VOLUME[0]}"
    other = f"other {PIXEL} Tomograms/job009/tilt_series/other.star {VOLUME[2]} {VOLUME[1]} {VOLUME[0]}"
    head = ["", "data_global", "", "loop_", *(f"_{name} #{i}" for i, name in enumerate(names, start=1))]
    listing.write_text("\n".join([*head, other, row]) + "\n")
    return listing, table


def write_warp(project, dark=DARK, level_deg=(0.0, 0.0)):
    """Warp's .xml: angles of the other sign, less the second level angle, offsets in Å, centres N / 2."""
    shifts = relion_shifts(shifts=project.shifts) * PIXEL
    use = [str(s not in dark) for s in range(len(ANGLES))]

    def text(values):
        return "\n".join(str(value) for value in values)

    content = (
        f"<Angles>{text(-a - level_deg[1] for a in ANGLES)}</Angles><UseTilt>{text(use)}</UseTilt>"
        f"<AxisAngle>{text([AXIS_DEG] * len(ANGLES))}</AxisAngle>"
        f"<AxisOffsetX>{text(shifts[:, 0])}</AxisOffsetX><AxisOffsetY>{text(shifts[:, 1])}</AxisOffsetY>"
    )
    level = f'LevelAngleX="{level_deg[0]}" LevelAngleY="{level_deg[1]}"'
    path = project.folder / "ts.xml"
    path.write_text(
        f'<?xml version="1.0" encoding="utf-16"?>\n<TiltSeries AreAnglesInverted="True" {level}>{content}</TiltSeries>',
        encoding="utf-16",
    )
    return path


def bead_places(volume, shape=VOLUME):
    """Centroids (x, y, z) from the middle of each bead, looked for near where it should be."""
    places = []
    for x, y, z, _ in BEADS:
        expected = np.array([(n - 1) / 2 + p for n, p in zip(shape, (z, y, x), strict=True)])
        corner = np.round(expected).astype(int) - 4
        part = volume[tuple(slice(c, c + 9) for c in corner)]
        weight = np.clip(part - 0.4 * part.max(), 0, None)
        grid = np.indices(part.shape).reshape(3, -1)
        found = corner + (grid * weight.ravel()).sum(1) / weight.sum()
        places.append((found - [(n - 1) / 2 for n in shape])[::-1])
    return np.array(places)
