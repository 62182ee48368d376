"""A filament alone in an empty field."""

import numpy as np

from cryolithe.simulation import filaments


def drawn_filament(filament, shape, voxel_size_angstrom):
    """Density, shape ``(z, y, x)``."""
    density = np.zeros(shape, dtype=np.float32)
    index, value, _ = filaments.blob_voxels(filament, shape, voxel_size_angstrom)
    np.maximum.at(density.reshape(-1), index, value)
    return density
