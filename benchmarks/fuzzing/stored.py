"""What is fuzzed of files that this program made or takes whole: denoisers, styles, states, profiles, libraries."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import torch

from cryolithe.adapt.checking import Check, read_checks
from cryolithe.denoise_training.config import is_general, read_general_config
from cryolithe.denoising.images.run import load_weights
from cryolithe.denoising.n2n.gains import ShellGain
from cryolithe.denoising.n2n.halves import open_half
from cryolithe.denoising.n2n.msd import MsdConfig
from cryolithe.denoising.n2n.network import Config, build, load_denoiser, save_denoiser
from cryolithe.denoising.n2n.planar import PlanarConfig
from cryolithe.denoising.n2n.unet import UNetConfig
from cryolithe.errors import ModelError
from cryolithe.network.published import CHECKPOINT_NAME, CONFIG_NAME, import_published
from cryolithe.noise.contrast import HISTOGRAM_BINS
from cryolithe.noise.profile import BACKGROUND_TERMS, Profile
from cryolithe.noise.rings import frequencies
from cryolithe.noise.stored import load_profile, write_profile
from cryolithe.noise.surface import SPLINES, Surface
from cryolithe.optimise.distributed import Place
from cryolithe.simulation.library import load_library
from cryolithe.style.network import Styler
from cryolithe.style.stored import Style, read_style, write_style
from cryolithe.training.config import TrainConfig, read_train_config
from cryolithe.training.loop import new_state
from cryolithe.training.state import load_state, save_state
from fuzzing import texts
from fuzzing.reader import ROOT, Parser, of_files, of_texts, timeless


def _n2n_seeds(*configs: Config) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        torch.manual_seed(0)
        made = []
        for config in configs:
            save_denoiser(folder / "seed.safetensors", build(config), config, ShellGain(), {"general": True})
            made.append((folder / "seed.safetensors").read_bytes())
        return made

    return seeds


def _finite(network: torch.nn.Module) -> None:
    assert all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values())


CPU = Place(torch.device("cpu"), torch.float32)
UNET = UNetConfig(filters=2, levels=1, first_kernel=3, last=(2, 2))
MSD = MsdConfig(layers=2, width=1, dilations=2)
PLANAR = PlanarConfig(filters=2, levels=1, first_kernel=3, last=(2, 2))


def _style_seeds(folder: Path) -> list[bytes]:
    torch.manual_seed(0)
    style = Style(Styler(1, (3, 8)), 2.0, 5.0, (-60.0, 60.0), {"program": "to be spoilt"})
    write_style(folder / "seed.safetensors", style)
    return [(folder / "seed.safetensors").read_bytes()]


def _style(path: Path) -> None:
    style = read_style(path)
    _finite(style.styler)
    assert 0 < style.contrast < np.inf
    assert 0 < style.pixel_size_angstrom < np.inf


def _small_training() -> TrainConfig:
    config = read_train_config(ROOT / "configs" / "debug.yaml")
    network = {"rows": 3, "channels": 2, "row_hidden": 2, "row_features": 2, "combiner_width": 2, "combiner_layers": 1}
    return config.model_copy(update={"network": {**config.network, **network}})


def _state_seeds(folder: Path) -> list[bytes]:
    config = _small_training()
    save_state(folder / "seed.safetensors", new_state(config, CPU), config)
    return [(folder / "seed.safetensors").read_bytes()]


def _state(path: Path) -> None:
    config = _small_training()
    state = new_state(config, CPU)
    load_state(path, state, config)
    _finite(state.network)
    assert state.step >= 0


def _profile_seeds(folder: Path) -> list[bytes]:
    frequency = frequencies(32)
    tilts, rings = 3, len(frequency)
    surface = Surface(np.zeros((SPLINES, 2)), (float(frequency[0]), float(frequency[-1])), (-20.0, 20.0))
    profile = Profile(
        kind="halves", pixel_size_angstrom=5.0, polarity="dark", image_shape=(40, 48), frequency_per_px=frequency,
        angles_deg=np.array([-20.0, 0.0, 20.0]), series=np.zeros(tilts, np.int64),
        noise_power=np.ones((tilts, rings)), signal_power=np.ones((tilts, rings)), noise=surface, signal=surface,
        levels=np.ones(tilts), backgrounds=np.zeros((tilts, BACKGROUND_TERMS)), histogram=np.ones(HISTOGRAM_BINS),
        variance_slope=(1.0, 0.1), thickness_paths=0.5, tiles=np.ones((2, 8, 8), np.float16),
        tile_scale=np.ones(2), tile_image=np.array([0, 2]),
    )  # fmt: skip
    write_profile(folder / "seed.h5", profile, overwrite=True)
    return [(folder / "seed.h5").read_bytes()]


def _profile(path: Path) -> None:
    profile = load_profile(path)
    assert np.isfinite(profile.noise.power(profile.frequency_per_px, profile.angles_deg)).all()


def _published(path: Path) -> None:
    folder = path.parent / "published"
    folder.mkdir(exist_ok=True)
    (folder / CHECKPOINT_NAME).unlink(missing_ok=True)
    torch.save({}, folder / CHECKPOINT_NAME)
    shutil.copyfile(path, folder / CONFIG_NAME)
    try:
        import_published(folder)
    except ModelError as error:
        if "lacks the table" not in str(error):  # which is said of the checkpoint, once the configuration is read
            raise


def _map_seeds(folder: Path) -> list[bytes]:
    with mrcfile.new(folder / "seed.mrc", np.ones((4, 5, 6), np.float32), overwrite=True) as file:
        file.voxel_size = 5.0
    return [timeless((folder / "seed.mrc").read_bytes())]


def _maps(path: Path) -> None:
    for molecule in load_library((path,)):
        assert np.isfinite(molecule.density).all()


def _half_seeds(folder: Path) -> list[bytes]:
    with mrcfile.new(
        folder / "seed.mrc", np.random.default_rng(0).random((16, 16, 16), np.float32), overwrite=True
    ) as f:
        f.voxel_size = 5.0
        f.set_volume()
    return [timeless((folder / "seed.mrc").read_bytes())]


def _general(path: Path) -> None:
    if is_general(path):
        read_general_config(path)


def _check_seeds(_: Path) -> list[bytes]:
    check = Check(3, 0.25, 0.3, 5.0, (0.25, math.nan), (0.3,), {"proteins": 0.5})
    return [json.dumps([check.record(), check.record()]).encode()]


STORED_PARSERS = (
    Parser("checks of an adaptation", ".json", lambda p: read_checks(p, 3), _check_seeds),
    Parser("Noise2Noise denoiser", ".safetensors", lambda p: _finite(load_denoiser(p).network), _n2n_seeds(UNET, MSD)),
    Parser("denoiser of images", ".safetensors", lambda p: _finite(load_weights(p).network), _n2n_seeds(PLANAR)),
    Parser("style", ".safetensors", _style, _style_seeds),
    Parser("training state", ".safetensors", _state, _state_seeds),
    Parser("noise profile", ".h5", _profile, _profile_seeds, native=True),
    Parser("published configuration", ".json", _published, of_texts(texts.PUBLISHED)),
    Parser("molecule map", ".mrc", _maps, _map_seeds),
    Parser("volume to denoise", ".mrc", open_half, _half_seeds),
    Parser("denoiser's training YAML", ".yaml", _general, of_files("configs/n2n_*.yaml")),
)
