"""A tiny model in the published format, and what the published program would compute, written out plainly."""

from __future__ import annotations

import copy
import json
import math
import sys
from types import ModuleType

import numpy as np
import pywt
import torch

SIZES = {"patch_size": 5, "mlp_output": 3, "set_input": 6, "set_hidden_size": 7, "set_output": 8, "set_num_layers": 2}
SIZES |= {"slice_mlp_hidden_size": 9, "slice_mlp_num_layers": 2, "combine_mlp_hidden": 10, "combine_mlp_layers": 3}
TAPS = 17
CONFIG = {
    "seed": 42,
    "data": {"n_projections": None},
    "filter_projections": True,
    "use_2D_filters": False,
    "model": {
        "type": "SliceSet",
        "slice_index": 2,
        "compare_index": 3,
        "learn_residual": False,
        "set_skip_connection": True,
        "set_bias": False,
        "radon_bias": False,
        "learned_positional_encoding": False,
        "learned_positional_encoding_use_softmax": True,
        "slice_transformer_avg_pooling": True,
        "slice_transformer_positional_encoding_size": SIZES["set_input"],
        "sice_transformer_transformer_positional_encoding_add_angle": False,
        "sice_transformer_positional_encoding_mult_angle": True,
        "slice_mlp_skip_connection": True,
        "slice_mlp_bias": False,
        "combine_dropout": 0,
        "combine_batch_norm": False,
        "combine_learn_residual": False,
        "combine_skip_connection": True,
        "combine_mlp_bias": False,
        "output_size": 1,
        **SIZES,
    },
    "ramp": {"type": "VectorModel_real", "use_learnable_ramp": False, "model": {"init": "cosine", "size": TAPS}},
    "training": {
        "lr": 1e-4,
        "use_angle": True,
        "learn_patch_scale": False,
        "patch_scale_init": 1,
        "use_wavelet_trainer": False,
        "wavelet": "bior3.1",
        "wavelet_levels": 1,
    },
}


def config_of(levels=0, **changes):
    """A configuration; ``changes`` are dotted keys with ``__`` for the dot."""
    config = copy.deepcopy(CONFIG)
    config["model"]["output_size"] = 8**levels
    config["training"]["use_wavelet_trainer"] = levels == 1
    for key, value in changes.items():
        *parents, last = key.split("__")
        table = config
        for parent in parents:
            table = table[parent]
        table[last] = value
    return config


def weights_of(levels=0, seed=0):
    """Random weights under the published names."""
    generator = torch.Generator().manual_seed(seed)

    def linear(outputs, inputs):
        return torch.randn((outputs, inputs), generator=generator) / math.sqrt(inputs)

    def mlp(name, inputs, hidden, layers, outputs):
        widths = [inputs] + [hidden] * layers
        maps = {f"{name}.layers.{n}.weight": linear(widths[n + 1], widths[n]) for n in range(layers)}
        return {**maps, f"{name}.last_layer.weight": linear(outputs, widths[-1])}

    s, weights = SIZES, {}
    for row in range(s["patch_size"]):
        name = f"slice_transformers.{row}"
        weights[f"{name}.up_layer.weight"] = linear(s["set_input"], s["patch_size"])
        weights |= mlp(f"{name}.setMlP", s["set_input"], s["set_hidden_size"], s["set_num_layers"], s["set_output"])
        hidden, layers = s["slice_mlp_hidden_size"], s["slice_mlp_num_layers"]
        weights |= mlp(f"{name}.mlp", s["set_output"], hidden, layers, s["mlp_output"])
    joined = s["patch_size"] * s["mlp_output"]
    return weights | mlp("combination_mlp", joined, s["combine_mlp_hidden"], s["combine_mlp_layers"], 8**levels)


def taps_of(seed=0):
    """An impulse response that is not symmetric, so that a mirrored one would be noticed."""
    return torch.randn(TAPS, generator=torch.Generator().manual_seed(100 + seed)) / 4


def filter_module(monkeypatch, module="CryoLithe.filter_models.vector"):
    """A module of the foreign class that a published checkpoint pickles, in a package that exists only meanwhile."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end])))
    foreign = type("VectorModel_real", (torch.nn.Module,), {"__module__": module})
    sys.modules[module].VectorModel_real = foreign
    ramp = foreign()
    ramp.vector = torch.nn.Parameter(taps_of())
    ramp.size, ramp.init = TAPS, "cosine"
    return ramp


def write_published(folder, config, checkpoint):
    """Write a model folder; a checkpoint is a table to save or bytes."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if isinstance(checkpoint, bytes):
        (folder / "checkpoint.pth").write_bytes(checkpoint)
    else:
        torch.save(checkpoint, folder / "checkpoint.pth")
    return folder


def checkpoint_of(ramp, levels=0, /, **entries):
    """A checkpoint as the published trainer saves it, with its states of training."""
    training = {
        "epoch": 7,
        "optimizer_state_dict": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]},
        "scheduler_state_dict": {"last_epoch": 7},
        "train_loss": [np.mean([0.5, 0.25])],
        "valid_loss": [np.mean([0.5])],
        "wavelet_train_loss": [np.mean(np.ones((2, 8)), axis=0)],
        "random_state": torch.get_rng_state(),
        "patch_scale": torch.ones(1),
    }
    return {**training, "model_state_dict": weights_of(levels), "ramp": ramp, **entries}


def network_output(weights, patches, angles_deg):
    """The published network: patches ``(points, tilts, rows, columns)`` -> ``(points, outputs)``, in float64."""

    def mlp(name, x):
        layer = 0
        while f"{name}.layers.{layer}.weight" in weights:
            y = torch.relu(x @ weights[f"{name}.layers.{layer}.weight"].double().T)
            x = x + y if layer else y
            layer += 1
        return x @ weights[f"{name}.last_layer.weight"].double().T

    size = SIZES["set_input"]
    phase = angles_deg[:, None] / 1000 ** (torch.arange(0, size, 2).double() / size)
    encoding = torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(1)
    features = []
    for row in range(patches.shape[2]):
        name = f"slice_transformers.{row}"
        lifted = (patches[:, :, row] @ weights[f"{name}.up_layer.weight"].double().T) * encoding
        features.append(mlp(f"{name}.mlp", mlp(f"{name}.setMlP", lifted).mean(1)))
    return mlp("combination_mlp", torch.cat(features, dim=1))


def published_volume(images, angles_deg, depth, levels, seed=0):
    """Volume ``(z, y, x)`` of the published program in float64; heights and widths must differ by an even number."""
    images = torch.from_numpy(images).double()
    images = (images - images.mean()) / images.std(correction=0)
    height, width = images.shape[1:]
    field = max(height, width)
    above, left = (field - height) // 2, (field - width) // 2
    images = torch.nn.functional.pad(images, (left, left, above, above))
    taps, circle = taps_of(seed).double(), torch.zeros(2 * field).double()
    used = min(TAPS, field)
    circle[: used // 2] = taps[: used // 2]
    circle[-((used + 1) // 2) :] = taps[-((used + 1) // 2) :]
    filtered = torch.fft.ifft(torch.fft.fft(images, 2 * field) * torch.fft.fft(circle)).real[..., :field]

    along = [pywt.dwt_coeff_len(n, 4, "zero") if levels else n for n in (depth, field, field)]
    z, y, x = (np.linspace(-1, 1, n) * n / along[1] for n in along)
    grid = torch.from_numpy(np.stack(np.meshgrid(z, y, x, indexing="ij"), axis=-1).reshape(-1, 3))
    reach = SIZES["patch_size"] // 2
    steps = torch.arange(-reach, reach + 1).double() * 2 / (field - 1)
    patches = []
    for image, angle in zip(filtered, np.deg2rad(angles_deg), strict=True):
        u = grid[:, 2] * math.cos(angle) + grid[:, 0] * math.sin(angle)
        places = torch.stack(
            [(u[:, None, None] + steps).expand(-1, 2 * reach + 1, -1), (grid[:, 1, None] + steps)[:, :, None].expand(
                -1, -1, 2 * reach + 1)], dim=-1)  # fmt: skip
        flat = places.reshape(1, len(grid), -1, 2)
        read = torch.nn.functional.grid_sample(image[None, None], flat, padding_mode="zeros", align_corners=True)
        patches.append(read.view(len(grid), 2 * reach + 1, 2 * reach + 1))
    angles = torch.tensor(angles_deg).double()
    values = network_output(weights_of(levels, seed), torch.stack(patches, dim=1), angles).view(*along, -1).numpy()
    if levels:
        # Bands are named in the published program's axis order (y, x, z).
        names = ["aaa", "aad", "ada", "add", "daa", "dad", "dda", "ddd"]
        bands = {name: np.ascontiguousarray(values[..., n].transpose(1, 2, 0)) for n, name in enumerate(names)}
        volume = pywt.idwtn(bands, "bior3.1", mode="zero").transpose(2, 0, 1)[:depth, :field, :field]
    else:
        volume = values[..., 0]
    return volume[:, above : above + height, left : left + width]
