"""Raw tilt series of beads whose images, or whose specimen, are bent by a known smooth field, as projects of programs.

Each program's field is written down anew here, from that program's definition, point by point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from plain_mrc import new_mrc
from projects import turn

ANGLES = tuple(float(a) for a in range(-54, 55, 6))
N = len(ANGLES)
SHAPE = (120, 132)  # of a raw image, (y, x)
AXIS_DEG = 6.0
VOLUME = (24, 120, 132)
PIXEL = 4.0
DARK = (0, 7)
SIGMA = 1.7
# (x, y, z) from the middle of the volume.
BEADS = np.array(
    [
        (-38.0, -34.0, 5.0), (2.0, -40.0, -6.0), (36.0, -30.0, 2.0),
        (-32.0, 3.0, -7.0), (6.0, -3.0, 0.0), (40.0, 6.0, 7.0),
        (-40.0, 33.0, 1.0), (-3.0, 38.0, 6.0), (33.0, 36.0, -5.0),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Bent:
    """A raw stack, the shift of each image, and the pixels of the stack along one of the project's."""

    folder: Path
    shifts: np.ndarray
    scale: int = 1

    @property
    def stack(self):
        return self.folder / "ts.mrc"


def straight_place(number, point, shift):
    """Without any bend."""
    return turn(AXIS_DEG) @ seen(point, number) + shift


def seen(point, number):
    """Where the global alignment sees a point, before the turn and the shift of its image."""
    x, y, z = point
    theta = math.radians(ANGLES[number])
    return np.array([x * math.cos(theta) + z * math.sin(theta), y])


def make_bent(folder, place, scale=1):
    """Write a raw stack; ``place(number, point, shift)`` is where a bead is seen, from the raw image's middle.

    Args:
        folder: to be made.
        place: in pixels of the project, whatever the scale.
        scale: pixels of the stack along one of the project's.
    """
    folder.mkdir(exist_ok=True)
    shifts = np.random.default_rng(8).uniform(-2, 2, (N, 2))
    height, width = (n * scale for n in SHAPE)
    rows, columns = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    stack = np.zeros((N, height, width))
    for number in range(N):
        for point in BEADS:
            x, y = np.asarray(place(number, point, shifts[number])) * scale
            line = np.exp(-((columns - x) ** 2) / (2 * (SIGMA * scale) ** 2))
            stack[number] += np.exp(-((rows - y) ** 2) / (2 * (SIGMA * scale) ** 2))[:, None] * line
    with new_mrc(folder / "ts.mrc", stack.astype(np.float32)) as file:
        file.set_image_stack()
        file.voxel_size = PIXEL / scale
    (folder / "ts.tlt").write_text("".join(f"{angle:.2f}\n" for angle in ANGLES))
    return Bent(folder, shifts, scale)


def errors(volume, shape=VOLUME):
    """How far each bead's centroid is from where it should be, ``(beads, xyz)``; windows are wide enough for a bend."""
    found = []
    for x, y, z in BEADS:
        expected = np.array([(n - 1) / 2 + p for n, p in zip(shape, (z, y, x), strict=True)])
        corner = np.maximum(np.round(expected).astype(int) - 5, 0)
        part = volume[tuple(slice(c, c + 11) for c in corner)]
        weight = np.clip(part - 0.4 * part.max(), 0, None)
        grid = np.indices(part.shape).reshape(3, -1)
        found.append((corner + (grid * weight.ravel()).sum(1) / weight.sum() - expected)[::-1])
    return np.array(found)


# AreTomo


def patches():
    """``(x, y)`` of patches from the middle of the raw image, and the shift of each in each image."""
    x, y = np.meshgrid(np.linspace(-44, 44, 4), np.linspace(-40, 40, 4))
    places = np.stack([x.ravel(), y.ravel()], -1)
    return places, np.array([[field(number, *at) for at in places] for number in range(N)])


def field(number, x, y):
    """A smooth field that grows along the series: up to about 4 pixels."""
    grow = 0.4 + 0.6 * number / (N - 1)
    return grow * np.array([2.5 * math.sin(x / 30 + y / 45) + 1.0, 3.0 * math.cos(y / 28) * math.sin(x / 50 + 0.5)])


def aretomo_place(number, point, shift):
    """``p = R(ROT) q + s(R(ROT) q) + T``."""
    at = turn(AXIS_DEG) @ seen(point, number)
    places, moved = patches()
    away = ((at - places) / np.array(SHAPE[::-1])) ** 2
    weights = np.exp(-100 * away.sum(1))
    return at + (weights[:, None] * moved[number]).sum(0) / weights.sum() + shift


def write_aretomo(project, moved=None, order=1, dark=DARK, first=1):
    """The .aln; the last patch of each image is not good and has a wild shift.

    Args:
        project: whose stack it is for.
        moved: shifts of the patches; by default the field's.
        order: -1 for rows from the last image to the first.
        dark: images that are not aligned.
        first: number of the first section.
    """
    scale, used = project.scale, [s for s in range(N) if s not in dark][::order]
    lines = [
        "# AreTomo Alignment / Priims bprmMn",
        f"# RawSize = {SHAPE[1] * scale} {SHAPE[0] * scale} {N}",
        "# NumPatches = 17",
        *(f"# DarkFrame =  {s:4d} {s + first:4d} {ANGLES[s]:8.2f}" for s in dark),
        "# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT",
    ]
    for s in used:
        x, y = project.shifts[s] * scale
        lines.append(f"{s + first:5d} {AXIS_DEG:.4f} 1.00000 {x:.3f} {y:.3f} 1.00 1.00 1.00 0.00 {ANGLES[s]:.2f}")
    lines.append("# Local Alignment")
    places = patches()[0]
    moved = patches()[1] if moved is None else moved
    for t, s in enumerate(used):
        for p, (at, by) in enumerate(zip(places * scale, moved[s] * scale, strict=True)):
            lines.append(f"{t:4d} {p:3d} {at[0]:8.2f}  {at[1]:8.2f}  {by[0]:8.2f}  {by[1]:8.2f}   1.0")
        lines.append(f"{t:4d}  16     3.00      5.00    -60.00     80.00   0.0")
    path = project.folder / "ts.aln"
    path.write_text("\n".join(lines) + "\n")
    return path


# RELION: its own centres, N // 2, in images and volume


def middle_relion(number, scale=1):
    """What to add to a shift so that RELION's voxels are ours (`projects.relion_shifts`), pixels of the stack."""
    off = scale * np.array([(n - 1) / 2 - n // 2 for n in VOLUME[::-1]])
    image = np.array([(n * scale - 1) / 2 - n * scale // 2 for n in SHAPE[::-1]])
    return image - turn(AXIS_DEG) @ seen(off, number)


def deformation(kind, number):
    """Coefficients of an image."""
    rng, grow = np.random.default_rng(5), 0.4 + 0.6 * number / (N - 1)
    if kind == "linear":
        return grow * np.array([0.03, -0.05, 0.06])
    if kind == "spline":
        return grow * rng.uniform(-2.5, 2.5, (2, 3, 4, 4))  # 4 x 3 nodes: value, slope x, slope y, twist
    return grow * rng.uniform(-1, 1, (2, 6, 2))  # 4 x 3: (1,0) (2,0); (1,-2) (2,-2); (1,-1) (2,-1)


def deform(kind, number, p):
    """s(p) for p from the first pixel."""
    x, y = p
    width, height = SHAPE[1], SHAPE[0]
    c = deformation(kind, number)
    if kind == "linear":
        rx, ry = x - width / 2, y - height / 2
        return np.array([c[0] * rx, c[1] * rx + c[2] * ry])
    if kind == "spline":
        gx, gy = min(max(x * 3 / width, 0), 3 - 1e-9), min(max(y * 2 / height, 0), 2 - 1e-9)
        i, j = int(gx), int(gy)
        hx, hy = hermite(gx - i), hermite(gy - j)
        total = np.zeros(2)
        for b in (0, 1):
            for a in (0, 1):
                value, slope_x, slope_y, twist = np.moveaxis(c[:, j + b, i + a], -1, 0)
                total += value * hx[a] * hy[b] + slope_x * hx[2 + a] * hy[b]
                total += slope_y * hx[a] * hy[2 + b] + twist * hx[2 + a] * hy[2 + b]
        return total
    pairs = [(1, 0), (2, 0), (1, -2), (2, -2), (1, -1), (2, -1)]
    phases = [math.pi * (i * x / width + j * y / height) for i, j in pairs]
    return sum(c[:, k, 0] * math.cos(t) + c[:, k, 1] * math.sin(t) for k, t in enumerate(phases))


def hermite(t):
    return 1 - 3 * t**2 + 2 * t**3, 3 * t**2 - 2 * t**3, t - 2 * t**2 + t**3, t**3 - t**2


def relion_place(kind):
    def place(number, point, shift):
        p = turn(AXIS_DEG) @ seen(point, number) + shift + (np.array(SHAPE[::-1]) - 1) / 2
        return p + deform(kind, number, p) - (np.array(SHAPE[::-1]) - 1) / 2

    return place


def write_relion(project, kind, gain=1.0, dark=DARK, told=True):
    """The table of images and the one that lists the series, both in pixels of the stack.

    Args:
        project: whose stack it is for.
        kind: of the deformation.
        gain: of its coefficients.
        dark: images that are not in the table.
        told: whether the listing tells of deformations.
    """
    scale = project.scale
    assert scale == 1 or kind == "linear", "only a linear deformation is the same in other pixels"
    columns = ["rlnMicrographName", "rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst"]
    columns += ["rlnTomoYShiftAngst", "rlnTomoDeformationCoefficients"]
    lines = ["", "data_ts", "", "loop_", *(f"_{name} #{i}" for i, name in enumerate(columns, start=1))]
    for s in range(N):
        if s not in dark:
            x, y = (project.shifts[s] * scale + middle_relion(s, scale)) * PIXEL / scale
            numbers = gain * deformation(kind, s)
            values = ",".join(f"{v:.6f}" for v in numbers.ravel())
            lines.append(f"{s + 1:06d}@ts.mrc 0.0 {ANGLES[s]:.3f} {AXIS_DEG:.4f} {x:.4f} {y:.4f} [{values}]")
    (project.folder / "ts.star").write_text("\n".join(lines) + "\n")
    values = {
        "rlnTomoName": "ts",
        "rlnTomoTiltSeriesPixelSize": PIXEL / scale,
        "rlnTomoTiltSeriesStarFile": "ts.star",
        **dict(zip(("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"), (n * scale for n in VOLUME[::-1]), strict=True)),
    }
    if told:
        values |= {"rlnTomoDeformationGridSizeX": 4, "rlnTomoDeformationGridSizeY": 3, "rlnTomoDeformationType": kind}
    names = [f"_{name} #{i}" for i, name in enumerate(values, start=1)]
    path = project.folder / "tomograms.star"
    path.write_text("\n".join(["", "data_global", "", "loop_", *names, " ".join(map(str, values.values()))]) + "\n")
    return path


# Warp: Å, angles of the other sign

IMAGE_ANGSTROM = tuple(n * PIXEL for n in SHAPE[::-1])
VOLUME_ANGSTROM = (600.0, 500.0, 160.0)  # need not be that of the volume that is made
DOSES = tuple(2.0 * abs(number - N // 2) for number in range(N))


def movement(number):
    """GridMovementX and Y of an image: Å at the corners, ``(axis, y, x)``."""
    grow = 0.4 + 0.6 * number / (N - 1)
    return grow * np.array([[[10.0, -6.0], [-2.0, 9.0]], [[-8.0, 7.0], [11.0, -5.0]]])


def warping():
    """GridVolumeWarpX, Y, Z: Å, ``(axis, dose, z, y, x)``."""
    return np.random.default_rng(9).uniform(-12, 12, (3, 2, 1, 3, 3))


def warped(number, point):
    """The specimen's warp at a point, pixels."""
    part = [n * PIXEL / size + 0.5 for n, size in zip(point[:2], VOLUME_ANGSTROM[:2], strict=True)]
    gx, gy = (2 * min(max(p, 0), 1 - 1e-12) for p in part)
    i, j, dose = int(gx), int(gy), DOSES[number] / max(DOSES)
    grid = (1 - dose) * warping()[:, 0, 0] + dose * warping()[:, 1, 0]
    near = [(1 - gy + j) * (1 - gx + i), (1 - gy + j) * (gx - i), (gy - j) * (1 - gx + i), (gy - j) * (gx - i)]
    corners = [grid[:, j, i], grid[:, j, i + 1], grid[:, j + 1, i], grid[:, j + 1, i + 1]]
    return sum(weight * corner for weight, corner in zip(near, corners, strict=True)) / PIXEL


def warp_place(moves, warps, x_tilt_deg=0.0):
    def place(number, point, shift):
        if warps:
            point = point + warped(number, point)
        point = np.array([point[0], *(turn(x_tilt_deg) @ point[1:])])
        p = turn(AXIS_DEG) @ seen(point, number) + shift
        if not moves:
            return p
        x, y = p * PIXEL / np.array(IMAGE_ANGSTROM) + 0.5
        (a, b), (c, d) = np.moveaxis(movement(number), 0, -1)
        return p - ((a * (1 - x) + b * x) * (1 - y) + (c * (1 - x) + d * x) * y) / PIXEL

    return place


def write_warp(project, moves, warps, gain=1.0, attributes=True):
    """The .xml.

    Args:
        project: whose stack it is for.
        moves: whether it has grids of movement.
        warps: whether it has grids of the specimen's warp.
        gain: of both.
        attributes: whether it tells the extents of images and specimen.
    """
    scale = project.scale

    def text(values):
        return "\n".join(str(value) for value in values)

    def grid(name, values, sizes):
        at = [dict(zip(sizes, index, strict=True)) for index in np.ndindex(*values.shape)]
        axes = {"Width": "X", "Height": "Y", "Depth": "Z", "Duration": "W"}
        nodes = "".join(
            "<Node " + " ".join(f'{axes[s]}="{n}"' for s, n in place.items()) + f' Value="{value:.8g}"/>'
            for place, value in zip(at, values.ravel(), strict=True)
        )
        size = " ".join(f'{name}="{n}"' for name, n in zip(sizes, values.shape, strict=True))
        return f"<{name} {size}>{nodes}</{name}>"

    shifts = (project.shifts * scale + [middle_relion(s, scale) for s in range(N)]) * PIXEL / scale
    parts = [
        f"<Angles>{text(-a for a in ANGLES)}</Angles><UseTilt>{text(s not in DARK for s in range(N))}</UseTilt>",
        f"<AxisAngle>{text([AXIS_DEG] * N)}</AxisAngle><Dose>{text(DOSES)}</Dose>",
        f"<AxisOffsetX>{text(shifts[:, 0])}</AxisOffsetX><AxisOffsetY>{text(shifts[:, 1])}</AxisOffsetY>",
    ]
    if moves:
        both = gain * np.array([movement(s) for s in range(N)])
        parts += [
            grid(name, both[:, i], ("Depth", "Height", "Width"))
            for i, name in enumerate(("GridMovementX", "GridMovementY"))
        ]
    if warps:
        sizes = ("Duration", "Depth", "Height", "Width")
        warp = gain * warping()
        parts += [grid(f"GridVolumeWarp{axis}", values, sizes) for axis, values in zip("XYZ", warp, strict=True)]
    told = [("ImageDimensionsAngstrom", IMAGE_ANGSTROM), ("VolumeDimensionsAngstrom", VOLUME_ANGSTROM)]
    extents = " ".join(f'{name}="{", ".join(map(str, size))}"' for name, size in told) if attributes else ""
    path = project.folder / "ts.xml"
    path.write_text(f'<?xml version="1.0"?>\n<TiltSeries {extents}>{"".join(parts)}</TiltSeries>')
    return path


# IMOD

AREAS = (3, 4)  # (y, x)
FIRST, STEP = (26.0, 24.0), (27.0, 36.0)  # x, y


def local_areas(number):
    """Change of the tilt angle, of the X-axis tilt, matrix and shift of each area in a view."""
    rng = np.random.default_rng(3)
    grow = 0.4 + 0.6 * number / (N - 1)
    tilts, x_tilts = (grow * rng.uniform(-1.5, 1.5, AREAS) for _ in range(2))
    matrices = np.eye(2) + grow * rng.uniform(-0.02, 0.02, (*AREAS, 2, 2))
    return tilts, x_tilts, matrices, grow * rng.uniform(-2, 2, (*AREAS, 2))


def imod_place(number, point, shift, x_tilt_deg=0.0):
    """The mean of four areas' projections, with IMOD's own signs: depth and angles run the other way."""
    tilts, x_tilts, matrices, shifts = local_areas(number)
    x, y, z = point
    gx = min(max((x + SHAPE[1] / 2 + 0.5 - FIRST[0]) / STEP[0], 0), AREAS[1] - 1 - 1e-9)
    gy = min(max((y + SHAPE[0] / 2 + 0.5 - FIRST[1]) / STEP[1], 0), AREAS[0] - 1 - 1e-9)
    i, j, q = int(gx), int(gy), np.zeros(2)
    for b, weight_y in enumerate((1 - gy + j, gy - j)):
        for a, weight_x in enumerate((1 - gx + i, gx - i)):
            area = j + b, i + a
            beta = -math.radians(ANGLES[number] + tilts[area])
            alpha = math.radians(x_tilt_deg + x_tilts[area])
            sin_alpha, depth = -math.sin(alpha), -z
            u = x * math.cos(beta) + y * sin_alpha * math.sin(beta) + depth * math.cos(alpha) * math.sin(beta)
            v = y * math.cos(alpha) - depth * sin_alpha
            q += weight_x * weight_y * (matrices[area] @ (u, v) + shifts[area])
    return turn(AXIS_DEG) @ q + shift


def write_imod(project, tilt_lines=(), pixel=PIXEL, gain=1.0):
    """The .xf, LOCALFILE, newst.com and tilt.com.

    Args:
        project: whose stack it is for.
        tilt_lines: more of tilt.com.
        pixel: size, Å, of those in which local alignments are.
        gain: of what they change.
    """
    scale, matrix = project.scale, turn(-AXIS_DEG)
    lines = [" ".join(f"{v:.7f}" for v in (*matrix.ravel(), *(-matrix @ s * scale))) for s in project.shifts]
    (project.folder / "ts.xf").write_text("\n".join(lines) + "\n")
    per = PIXEL / pixel
    views = [local_areas(number) for number in range(N)]
    first, step = ([round(n * per) for n in pair] for pair in (FIRST, STEP))
    out = [f"{AREAS[1]:6d}{AREAS[0]:6d}{first[0]:6d}{first[1]:6d}{step[0]:6d}{step[1]:6d}{1:6d}{pixel:12.5f}{0:4d}"]
    for area in np.ndindex(*AREAS):
        for part in (0, 1):
            values = [gain * views[number][part][area] for number in range(N)]
            out += ["".join(f"{v:7.2f}" for v in values[k : k + 10]) for k in range(0, N, 10)]
        for number in range(N):
            changed = np.eye(2) + gain * (views[number][2][area] - np.eye(2))
            values = (*changed.ravel(), *(gain * views[number][3][area] * per))
            out.append("".join(f"{v:12.7f}" for v in values[:4]) + "".join(f"{v:12.3f}" for v in values[4:]))
    (project.folder / "tslocal.xf").write_text("\n".join(out) + "\n")
    newst, tilt = (project.folder / name for name in ("newst.com", "tilt.com"))
    newst.write_text("$newstack -StandardInput\nTransformFile ts.xf\n")
    excluded = f"EXCLUDELIST2 {','.join(str(s + 1) for s in DARK)}"
    text = ["$tilt -StandardInput", "TILTFILE ts.tlt", "LOCALFILE tslocal.xf", excluded, *tilt_lines]
    tilt.write_text("\n".join(text) + "\n")
    return newst, tilt
