"""``cryolithe simulate``: a small tilt series with known truth."""

from __future__ import annotations

from pathlib import Path

import click

from cryolithe import __version__
from cryolithe.errors import OutputError, SettingsError


@click.command("simulate")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write into.")
@click.option("--molecules", type=click.Path(path_type=Path), help="HDF5 library, MRC map or folder of maps to place.")
@click.option("--snr", "snr_db", type=float, default=-5.0, show_default=True, help="Signal to noise in the images, dB.")
@click.option("--reach", "reach_deg", type=float, default=60.0, show_default=True, help="Tilts from -REACH to +REACH.")
@click.option("--step", "step_deg", type=float, default=3.0, show_default=True, help="Tilt step in degrees.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same files.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def command(
    output: Path,
    molecules: Path | None,
    snr_db: float,
    reach_deg: float,
    step_deg: float,
    seed: int,
    overwrite: bool,
) -> None:
    """Simulate a tilt series of crowded molecules and membranes, with white noise.

    Writes tilts.mrc (dense = dark, as in cryo-EM), tilts.tlt and truth.mrc (dense = dark too), 64 x 128 x 128 voxels
    of 10 Å. Without a library the molecules are procedural.
    """
    import numpy as np

    from cryolithe.formats import write_angles_deg, write_stack, write_volume
    from cryolithe.simulation import SpecimenRecipe, add_white_noise, load_molecules, make_specimen, project
    from cryolithe.volume import Volume

    if not 0 < step_deg <= reach_deg <= 90:
        raise SettingsError(f"need 0 < --step <= --reach <= 90, got step {step_deg} and reach {reach_deg}")
    if seed < 0:
        raise SettingsError(f"--seed must not be negative, got {seed}")
    library = load_molecules(molecules) if molecules else ()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output}: {error.strerror or error}") from error
    rng = np.random.default_rng(seed)
    recipe = SpecimenRecipe(voxel_size_angstrom=(10.0, 10.0), crowding=(0.06, 0.1), membranes=(1, 2), body_chance=0.0)
    specimen = make_specimen(recipe, library, rng)
    angles = tuple(float(a) for a in np.arange(-reach_deg, reach_deg + 1e-6, step_deg))
    images = add_white_noise(project(specimen, angles), snr_db, rng)
    label = f"CryoLithe {__version__} simulated, seed {seed}, {snr_db:g} dB"
    voxel = specimen.voxel_size_angstrom
    write_stack(output / "tilts.mrc", -images, voxel, label, overwrite=overwrite)
    write_angles_deg(output / "tilts.tlt", angles, overwrite=overwrite)
    write_volume(output / "truth.mrc", Volume(-specimen.density, voxel), label=label, overwrite=overwrite)
    click.echo(f"{output}: tilts.mrc ({len(angles)} images), tilts.tlt, truth.mrc")
