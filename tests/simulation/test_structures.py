"""Densities of atomic models: mass, size and place of the atoms, and agreement with a published density."""

from __future__ import annotations

import gzip

import gemmi
import h5py
import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
from shared_data import SHARED, needs_shared

from cryolithe.errors import FileFormatError, InputError, SettingsError
from cryolithe.simulation.structures import molecule_from_structure

LINE = "{record:<6}{number:5d}  {name:<3} {residue} A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00{e:>12}\n"


def write_pdb(path, atoms, residue="ALA", record="ATOM"):
    """A PDB file of ``atoms``: (element, x, y, z) in Å."""
    lines = [
        LINE.format(record=record, number=i + 1, name=e, residue=residue, x=x, y=y, z=z, e=e)
        for i, (e, x, y, z) in enumerate(atoms)
    ]
    path.write_text("".join(lines) + "END\n")
    return path


def random_atoms(count=300, seed=0):
    rng = np.random.default_rng(seed)
    return [(str(rng.choice(["C", "N", "O"])), *rng.normal(0, (18, 12, 7))) for _ in range(count)]


def moments(molecule):
    """Centre (z, y, x) and root mean square distances from it along the axes, Å."""
    weight = molecule.density / molecule.density.sum()
    grids = np.indices(weight.shape) * molecule.voxel_size_angstrom
    centre = np.array([(g * weight).sum() for g in grids])
    spread = np.sqrt([(((g - c) ** 2) * weight).sum() for g, c in zip(grids, centre, strict=True)])
    return centre, spread


@pytest.mark.parametrize("voxel", [1.5, 4.0, 7.3, 13.0])
def test_a_density_has_the_size_of_its_atoms_in_z_y_x(tmp_path, voxel):
    atoms = random_atoms()
    molecule = molecule_from_structure(write_pdb(tmp_path / "a.pdb", atoms), voxel)
    assert molecule.name == "a"
    assert molecule.voxel_size_angstrom == voxel
    positions = np.array([a[1:] for a in atoms])[:, ::-1]
    weights = np.array([gemmi.Element(a[0]).c4322.calculate_sf(0.0) for a in atoms])
    mean = np.average(positions, axis=0, weights=weights)
    variance = np.average((positions - mean) ** 2, axis=0, weights=weights)
    # Blur by the B-factor, 50 / (8 pi²), by the atoms' own width (about 0.3 Å²), and by the voxel, v² / 12.
    expected = np.sqrt(variance + 50 / (8 * np.pi**2) + 0.3 + voxel**2 / 12)
    centre, spread = moments(molecule)
    np.testing.assert_allclose(spread, expected, rtol=0.04)
    middle = (np.array(molecule.density.shape) - 1) / 2 * voxel
    box_middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
    np.testing.assert_allclose(centre - middle, mean - box_middle, atol=0.1 + 0.03 * voxel)


def test_a_molecule_has_the_same_mass_at_any_voxel_size(tmp_path):
    rng = np.random.default_rng(3)
    places = rng.uniform(-32, 32, size=(9000, 3))
    ball = [("C", *place) for place in places if np.linalg.norm(place) < 32]
    path = write_pdb(tmp_path / "ball.pdb", ball)
    made = [molecule_from_structure(path, voxel) for voxel in (2.5, 4.0, 5.0, 10.0)]
    masses = [m.density.sum() * m.voxel_size_angstrom**3 for m in made]
    np.testing.assert_allclose(masses, np.mean(masses), rtol=0.06)


def test_a_lone_atom_is_the_tabulated_sum_of_gaussians(tmp_path):
    path = write_pdb(tmp_path / "atom.pdb", [("C", 0.0, 0.0, 0.0)])
    density = molecule_from_structure(path, 0.25, 40.0).density
    middle = density.shape[0] // 2
    radii = np.arange(8) * 0.25
    factors = gemmi.Element("C").c4322
    expected = sum(
        a * (4 * np.pi / (b + 40)) ** 1.5 * np.exp(-4 * np.pi**2 * radii**2 / (b + 40))
        for a, b in zip(factors.a, factors.b, strict=True)
    )
    line = density[middle, middle, middle : middle + 8]
    np.testing.assert_allclose(line / line[0], expected / expected[0], atol=0.02)


def test_waters_are_left_out_and_gzip_and_mmcif_read_alike(tmp_path):
    atoms = random_atoms(50)
    plain = write_pdb(tmp_path / "m.pdb", atoms)
    expected = molecule_from_structure(plain, 8.0).density
    watery = tmp_path / "w.pdb"
    write_pdb(tmp_path / "only.pdb", [("O", 200.0, 0.0, 0.0)], "HOH", "HETATM")
    watery.write_text(plain.read_text().replace("END\n", "") + (tmp_path / "only.pdb").read_text())
    np.testing.assert_array_equal(molecule_from_structure(watery, 8.0).density, expected)
    (tmp_path / "m.pdb.gz").write_bytes(gzip.compress(plain.read_bytes()))
    zipped = molecule_from_structure(tmp_path / "m.pdb.gz", 8.0)
    assert zipped.name == "m"
    np.testing.assert_array_equal(zipped.density, expected)
    gemmi.read_structure(str(plain)).make_mmcif_document().write_file(str(tmp_path / "m.cif"))
    np.testing.assert_allclose(molecule_from_structure(tmp_path / "m.cif", 8.0).density, expected, atol=1e-3)
    with pytest.raises(FileFormatError, match="no atoms"):
        molecule_from_structure(tmp_path / "only.pdb", 8.0)


@pytest.mark.parametrize("content", ["", "this is no structure\n", "data_x\nloop_\n_atom_site.id\n"])
@pytest.mark.parametrize("name", ["bad.pdb", "bad.cif", "bad.cif.gz", "bad.txt"])
def test_unusable_files_are_named_in_one_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(FileFormatError, match=name) as error:
        molecule_from_structure(path, 10.0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("coordinate", ["1e308", "-1e308", "1e12", "2e6"])
def test_an_atom_beyond_all_sense_is_a_stray_one(tmp_path, coordinate):
    """Alone in its box it is as small as any, and the middle of 1e308 and 1e308 is infinite."""
    write_pdb(tmp_path / "m.pdb", [("C", 1.0, 2.0, 3.0)])
    document = gemmi.read_structure(str(tmp_path / "m.pdb")).make_mmcif_document()
    assert molecule_from_structure(tmp_path / "m.pdb", 8.0).density.max() > 0
    document[0].find_loop("_atom_site.Cartn_x")[0] = coordinate
    document.write_file(str(tmp_path / "m.cif"))
    with pytest.raises(FileFormatError, match="Å from the origin"):
        molecule_from_structure(tmp_path / "m.cif", 8.0)


def test_impossible_settings_are_refused(tmp_path):
    path = write_pdb(tmp_path / "a.pdb", random_atoms(10))
    for voxel in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="voxel size"):
            molecule_from_structure(path, voxel)
    with pytest.raises(SettingsError, match="B-factor"):
        molecule_from_structure(path, 10.0, -1.0)
    with pytest.raises(InputError, match="does not exist"):
        molecule_from_structure(tmp_path / "none.pdb", 10.0)


@needs_shared
def test_a_real_structure_agrees_with_its_published_density():
    molecule = molecule_from_structure(SHARED / "molecules" / "1s3x.pdb", 10.0)
    with h5py.File(SHARED / "molecules" / "molecules_10A.h5") as file:
        published = file["1s3x"][()].astype(np.float32)
    first, second = (scipy.ndimage.gaussian_filter(np.pad(d, 12), 0.5) for d in (molecule.density, published))
    big = tuple(scipy.fft.next_fast_len(a + b) for a, b in zip(first.shape, second.shape, strict=True))
    # Correlation at the best shift, in whole voxels: no rotation.
    a, b = (np.zeros(big), np.zeros(big))
    a[tuple(slice(n) for n in first.shape)], b[tuple(slice(n) for n in second.shape)] = first, second
    product = scipy.fft.irfftn(scipy.fft.rfftn(a) * scipy.fft.rfftn(b).conj(), big)
    assert product.max() / np.sqrt((a**2).sum() * (b**2).sum()) > 0.9
    model = gemmi.read_structure(str(SHARED / "molecules" / "1s3x.pdb"))
    model.remove_waters()
    positions = np.array([site.atom.pos.tolist() for site in model[0].all()])[:, ::-1]
    _, spread = moments(molecule)
    np.testing.assert_allclose(spread, np.sqrt(positions.var(axis=0) + 100 / 12), rtol=0.04)
