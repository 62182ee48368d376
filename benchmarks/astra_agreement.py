"""Does our FBP agree with the one of the ASTRA toolbox: the same picture, neither shifted nor mirrored?

Both are given ASTRA's own projections of a phantom without any symmetry, so our projector has no part in the input.
"""

from __future__ import annotations

from typing import Any

import astra
import numpy as np
import scipy.fft
import torch
from common import Table, parser, read_arguments, record
from numpy.typing import NDArray

from cryolithe.fidelity import correlation
from cryolithe.geometry import TiltGeometry, centre_px
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp

Slice = NDArray[np.float64]

SHAPES = ((128, 128), (127, 127), (128, 127), (64, 192), (65, 193), (192, 96), (48, 256))
SCHEMES = {"±60° in 3°": np.arange(-60.0, 60.1, 3.0), "±89.5° in 1°": np.arange(-89.5, 90.0, 1.0)}
MIRRORS = {"mirrored z": (0,), "mirrored x": (1,), "turned by 180°": (0, 1)}


class AstraSlice:
    """ASTRA's CPU projector of one slice ``(z, x)``.

    ASTRA's volumes have rows from +Y downwards; our z grows with the row, so Y = -z, and its angle is our -θ.
    """

    def __init__(self, angles_deg: NDArray[np.float64], slice_shape: tuple[int, int], columns: int, kind: str) -> None:
        self.volume = astra.create_vol_geom(*slice_shape)
        self.detector = astra.create_proj_geom("parallel", 1.0, columns, -np.deg2rad(angles_deg))
        self.projector = astra.create_projector(kind, self.detector, self.volume)

    def forward(self, density: NDArray[Any]) -> NDArray[np.float32]:
        """Sinogram of a slice, shape ``(tilts, X)``."""
        number, sinogram = astra.create_sino(density.astype(np.float32), self.projector)
        astra.data2d.delete(number)
        return np.array(sinogram, dtype=np.float32)

    def fbp(self, sinogram: NDArray[np.float32], algorithm_name: str = "FBP") -> NDArray[np.float32]:
        """Filtered back-projection with the unwindowed ramp; "FBP_CUDA" for a projector of the kind "cuda"."""
        data = astra.data2d.create("-sino", self.detector, sinogram)
        result = astra.data2d.create("-vol", self.volume)
        config = astra.astra_dict(algorithm_name) | {
            "ProjectorId": self.projector,
            "ProjectionDataId": data,
            "ReconstructionDataId": result,
            "option": {"FilterType": "ram-lak"},
        }
        algorithm = astra.algorithm.create(config)
        astra.algorithm.run(algorithm)
        found = np.array(astra.data2d.get(result), dtype=np.float32)
        astra.algorithm.delete(algorithm)
        astra.data2d.delete([data, result])
        return found

    def close(self) -> None:
        """Give ASTRA's memory back."""
        astra.projector.delete(self.projector)


def phantom(shape: tuple[int, int], seed: int = 0) -> Slice:
    """Ellipses without any symmetry inside the circle that every tilt sees."""
    z, x = np.meshgrid(*(np.arange(n) - centre_px(n) for n in shape), indexing="ij")
    size, rng = min(shape), np.random.default_rng(seed)
    density = np.zeros(shape)
    for _ in range(10):
        pz, px = rng.uniform(-0.28, 0.28, 2) * size
        az, ax = rng.uniform(0.03, 0.12, 2) * size
        density += rng.uniform(0.3, 1) * (((z - pz) / az) ** 2 + ((x - px) / ax) ** 2 < 1)
    return density


def best_shift_px(a: NDArray[Any], b: NDArray[Any]) -> tuple[float, float]:
    """Shift ``(z, x)`` of ``b`` that matches ``a`` best: peak of the cross-correlation, refined by parabolas."""
    product = scipy.fft.fft2(a - a.mean()) * np.conj(scipy.fft.fft2(b - b.mean()))
    values = scipy.fft.ifft2(product).real
    peak = np.unravel_index(int(values.argmax()), values.shape)
    shift = []
    for axis, size in enumerate(values.shape):
        before, here, after = (
            values[tuple((p + step) % size if n == axis else p for n, p in enumerate(peak))] for step in (-1, 0, 1)
        )
        vertex = peak[axis] + 0.5 * (before - after) / (before - 2 * here + after)
        shift.append(float((vertex + size / 2) % size - size / 2))
    return shift[0], shift[1]


def compare(shape: tuple[int, int], scheme: str) -> dict[str, Any]:
    """Both programs' FBP of one phantom."""
    angles = SCHEMES[scheme]
    columns = 2 * max(shape) + shape[1] % 2
    program = AstraSlice(angles, shape, columns, "strip")
    density = phantom(shape)
    sinogram = program.forward(density)
    theirs = program.fbp(sinogram)
    program.close()
    projector = make_projector(TiltGeometry(tuple(angles), (1, columns)), shape)
    ours = fbp(projector, torch.from_numpy(sinogram)[:, None], "ramp")[:, 0].numpy()
    return {
        "slice_zx": shape,
        "tilts": scheme,
        "correlation": correlation(theirs, ours),
        "shift_zx_px": best_shift_px(theirs, ours),
        "slope": float(np.polyfit(theirs.ravel(), ours.ravel(), 1)[0]),
        "truth": {"ours": correlation(density, ours), "astra": correlation(density, theirs)},
        **{name: correlation(theirs, np.flip(ours, axes)) for name, axes in MIRRORS.items()},
    }


def main() -> None:
    """Compare all sizes and tilt schemes."""
    arguments = read_arguments(parser("astra_agreement", __doc__))
    shapes = ((32, 32), (31, 33)) if arguments.quick else SHAPES
    found = [compare(shape, scheme) for scheme in SCHEMES for shape in shapes]
    rows = [
        [
            f"{f['slice_zx'][0]} x {f['slice_zx'][1]}, {f['tilts']}",
            f"{f['correlation']:.5f}",
            f"{f['shift_zx_px'][0]:+.3f}, {f['shift_zx_px'][1]:+.3f}",
            *(f"{f[name]:.3f}" for name in MIRRORS),
            f"{f['truth']['ours']:.3f}",
            f"{f['truth']['astra']:.3f}",
        ]
        for f in found
    ]
    columns = ["slice (z, x), tilts", "correlation", "shift z, x (px)", *MIRRORS, "ours, truth", "ASTRA, truth"]
    note = (
        f"ASTRA {astra.__version__}, CPU, strip projector, Ram-Lak; both reconstruct ASTRA's projections. "
        "The last two columns are correlations with the phantom."
    )
    table = Table("FBP against ASTRA's FBP", columns, rows, note)
    record("astra_agreement", {"tables": [table], "comparisons": found}, arguments.output)


if __name__ == "__main__":
    main()
