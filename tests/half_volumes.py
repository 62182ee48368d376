"""Half volumes of known signal and noise."""

import numpy as np
import scipy.fft
import scipy.ndimage
from plain_mrc import new_mrc

from cryolithe.denoising.n2n.halves import open_pair


def signal(shape, seed=0, shift=(0, 0, 0)):
    """A field of blobs of many sizes with deviation 1, moved by any distance (periodically)."""
    rng = np.random.default_rng(seed)
    spectrum = scipy.fft.fftn(rng.standard_normal(shape))
    axes = np.meshgrid(*map(scipy.fft.fftfreq, shape), indexing="ij", sparse=True)
    frequency = np.sqrt(sum(axis**2 for axis in axes))
    phase = sum(axis * distance for axis, distance in zip(axes, shift, strict=True))
    values = scipy.fft.ifftn(spectrum * np.exp(-((frequency / 0.09) ** 2) - 2j * np.pi * phase)).real
    return (values / values.std()).astype(np.float32)


def noise(shape, seed):
    return np.random.default_rng([99, seed]).standard_normal(shape).astype(np.float32)


def halves(shape=(24, 48, 40), seed=0, level=1.0):
    """Two noisy looks at one signal."""
    truth = signal(shape, seed)
    return [truth + level * noise(shape, 2 * seed + n) for n in (0, 1)]


def write(path, values, voxel_size=10.0):
    with new_mrc(path) as file:
        file.set_data(np.asarray(values, np.float32))
        file.set_volume()
        file.voxel_size = voxel_size
    return path


def pair_of(folder, first, second, name="a", **options):
    """Both halves through files, as a user gives them."""
    paths = [write(folder / f"{name}_{end}.mrc", v) for end, v in (("EVN", first), ("ODD", second))]
    return open_pair(*paths, **options)


def snr_of_halves(even, odd):
    """SNR of each of two images of the same thing, ``r / (1 - r)`` (Frank & Al-Ali 1975, Nature 256, 376-379)."""
    r = np.corrcoef(even.ravel().astype(np.float64), odd.ravel().astype(np.float64))[0, 1]
    return r / (1 - r)
