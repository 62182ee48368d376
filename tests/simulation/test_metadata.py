"""Metadata beside simulated series, read back by the field's own parsers."""

import mdocfile
import numpy as np
import pytest
import starfile

from cryolithe.formats.particles.star import Particle, write_particles
from cryolithe.formats.stacks.mdoc import MdocImage, write_mdoc


def test_mdoc_is_read_back(tmp_path):
    images = [MdocImage(a, 3.0, 3.0 * n, -2.5, n) for n, a in enumerate((-3.0, 0.0, 3.25))]
    write_mdoc(tmp_path / "TS_001.mdoc", "TS_001.mrc", images, 7.84, (100, 128), 300)
    table = mdocfile.read(tmp_path / "TS_001.mdoc")
    assert table["TiltAngle"].tolist() == [-3.0, 0.0, 3.25]
    assert table["ExposureDose"].tolist() == [3.0] * 3
    assert table["PriorRecordDose"].tolist() == [0.0, 3.0, 6.0]
    assert table["Defocus"].tolist() == [-2.5] * 3
    assert table["PixelSpacing"].iloc[0] == pytest.approx(7.84)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_particles_are_centred_and_in_angstrom(tmp_path, count):
    shape, voxel = (40, 60, 80), 8.0
    particles = [Particle("TS_001", "1bxn", 3, (20.0, 30.0 + n, 40.0 - n), (10.0, 20.0, -30.5)) for n in range(count)]
    write_particles(tmp_path / "p.star", particles, shape, voxel)
    table = starfile.read(tmp_path / "p.star", always_dict=True)["particles"]
    assert len(table) == count
    if count:
        np.testing.assert_allclose(table["rlnCenteredCoordinateYAngst"], 8.0 * np.arange(count))
        np.testing.assert_allclose(table["rlnCenteredCoordinateXAngst"], -8.0 * np.arange(count))
        np.testing.assert_allclose(table["rlnCenteredCoordinateZAngst"], 0)
        assert table["rlnAnglePsi"].tolist() == [-30.5] * count
        assert table["cryolitheMolecule"].tolist() == ["1bxn"] * count
