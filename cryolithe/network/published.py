"""Import of weights in the format of the published CryoLithe program: ``config.json`` and ``checkpoint.pth``.

What is known of that format comes from reading the program (https://github.com/swing-research/CryoLithe) and from
what it computed; none of its code is used, and none of its classes is made (`cryolithe.network.torch_file`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cryolithe.errors import ModelError, SettingsError, nearest_name, shown
from cryolithe.files.hashing import file_sha256
from cryolithe.network.config import MOST_UNITS, Head, InputWindow, SliceSetConfig
from cryolithe.network.convention import Convention
from cryolithe.network.sliceset import SliceSet
from cryolithe.network.torch_file import StandIn, read_torch_file

CONFIG_NAME, CHECKPOINT_NAME = "config.json", "checkpoint.pth"
_CONFIG_LIMIT_BYTES = 10_000_000

# The class of the row filter, under its present and its older module.
FILTER_CLASSES = ("CryoLithe.filter_models.vector.VectorModel_real", "filter_models.vector.VectorModel_real")

# Keys of "model" that must have one value, since another one would be another function; with that program's defaults.
_FIXED: dict[str, tuple[Any, Any]] = {
    "type": ("SliceSet", None),
    "slice_index": (2, 2),  # of the axes (points, tilts, rows, columns) that of rows is cut into slices
    "compare_index": (3, 3),
    "learn_residual": (False, False),
    "set_bias": (False, False),
    "radon_bias": (False, True),
    "learned_positional_encoding": (False, False),
    "slice_transformer_avg_pooling": (True, True),
    "slice_transformer_positional_encoding_base": (1000, 1000),
    "sice_transformer_transformer_positional_encoding_add_angle": (False, False),
    "sice_transformer_positional_encoding_mult_angle": (True, False),
    "slice_mlp_bias": (False, False),
    "combine_batch_norm": (False, False),
    "combine_mlp_bias": (False, False),
}
# Keys of "model" that are sizes, and the fields of `SliceSetConfig` that they become.
_SIZES = {
    "mlp_output": "row_features",
    "set_input": "channels",
    "set_output": "set_features",
    "set_num_layers": "set_layers",
    "set_hidden_size": "set_hidden",
    "slice_mlp_hidden_size": "row_hidden",
    "slice_mlp_num_layers": "row_layers",
    "combine_mlp_layers": "combiner_layers",
    "combine_mlp_hidden": "combiner_width",
}
# Skip connections, each with the number of layers that tells whether it does anything.
_SKIPS = {
    "set_skip_connection": "set_num_layers",
    "slice_mlp_skip_connection": "slice_mlp_num_layers",
    "combine_skip_connection": "combine_mlp_layers",
}
_OTHER_SIZES = ("patch_size", "output_size", "slice_transformer_positional_encoding_size")
# Keys of "model" without any effect here: a softmax of an encoding that is refused, dropout (off in inference), and a
# residual that the program accepts and never uses.
_IGNORED_MODEL = {"learned_positional_encoding_use_softmax", "combine_dropout", "combine_learn_residual"}
# The only keys of "training" that the program reads when it reconstructs; the others are about training itself.
_TRAINING = {"use_angle", "learn_patch_scale", "patch_scale_init", "use_wavelet_trainer", "wavelet", "wavelet_levels"}
# Whole sections, and keys beside them, that it reads only when it trains.
_READ_AT_TOP = {"model", "ramp", "training", "filter_projections", "use_2D_filters", "use_2D_fitlers"}
# Entries of the checkpoint beside the weights, the filter and the patch scale: states of training, not used.
_IGNORED_ENTRIES = {
    "epoch", "optimizer_state_dict", "scheduler_state_dict", "train_loss", "valid_loss", "wavelet_train_loss",
    "wavelet_valid_loss", "random_state",
}  # fmt: skip
# Our name of a part of a leaf's name -> theirs.
_LEAF_PARTS = (
    ("row_encoders.", "slice_transformers."),
    (".lift.", ".up_layer."),
    (".per_tilt.", ".setMlP."),
    (".pooled.", ".mlp."),
    ("combine.", "combination_mlp."),
    (".last.", ".last_layer."),
)


@dataclass(frozen=True)
class Imported:
    """A published model as ours.

    Attributes:
        network: `SliceSet` with the published weights, bands of a wavelet head in our order.
        convention: with the published filter.
        card: where it comes from and what was left aside.
    """

    network: SliceSet
    convention: Convention
    card: dict[str, Any]


def import_published(folder: Path) -> Imported:
    """Read a model in the published format; nothing that it contains is executed.

    Raises:
        ModelError: if a file is missing, damaged or holds anything unexpected, or the model uses what this program
            does not have; says what, by name.
    """
    paths = folder / CONFIG_NAME, folder / CHECKPOINT_NAME
    for path in paths:
        if not path.is_file():
            names = f"{CONFIG_NAME} and {CHECKPOINT_NAME}"
            raise ModelError(f"{path} does not exist; a published model is a folder with {names}")
    values = _read_config(paths[0])
    config, ignored = read_published_config(values, str(paths[0]))
    stored = read_torch_file(paths[1], FILTER_CLASSES)
    where = str(paths[1])
    if not isinstance(stored, dict) or not isinstance(stored.get("model_state_dict"), dict):
        raise ModelError(f"{where} lacks the table 'model_state_dict'; it is no checkpoint of the published program")
    known = {"model_state_dict", "ramp", "patch_scale", *_IGNORED_ENTRIES}
    for key in stored:
        if key not in known:
            raise ModelError(f"{where} has the unexpected entry {shown(key)}{nearest_name(str(key), known)}")
    if values["training"].get("learn_patch_scale", False):
        _check_scale(stored.get("patch_scale"), f"'patch_scale' of {where}")
    card = {
        "made": "import of a published CryoLithe model",
        "source": {"config_sha256": file_sha256(paths[0]), "checkpoint_sha256": file_sha256(paths[1])},
        "epoch": stored.get("epoch") if isinstance(stored.get("epoch"), int) else None,
        "published_config": {key: values[key] for key in sorted(_READ_AT_TOP & set(values))},
        "ignored": ignored,
        "licence": "as its authors say where the weights were published",
    }
    network = SliceSet(config)
    network.load_state_dict(_weights(stored["model_state_dict"], network, where))
    network.eval().requires_grad_(False)
    return Imported(network, Convention(_taps(stored.get("ramp"), values, where)), card)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _CONFIG_LIMIT_BYTES:
            raise ModelError(f"{path} has more than {_CONFIG_LIMIT_BYTES / 1e6:g} MB; expected a few kB")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} must hold a table, found {type(values).__name__}")
    for section in ("model", "training"):
        if not isinstance(values.get(section), dict):
            raise ModelError(f"{path} lacks the section '{section}'")
    return values


def read_published_config(values: dict[str, Any], where: str) -> tuple[SliceSetConfig, list[str]]:
    """Sizes of a published model, and the keys that have no effect.

    Args:
        values: content of ``config.json`` with its sections ``model`` and ``training``.
        where: what to call it in messages.

    Raises:
        ModelError: for a missing size, an unknown key of ``model``, or a feature that this program does not have.
    """
    model, training = values["model"], values["training"]
    known = {*_FIXED, *_SIZES, *_SKIPS, *_OTHER_SIZES, *_IGNORED_MODEL}
    for key in model:
        if key not in known:
            raise ModelError(
                f"{where}: unknown key {shown(f'model.{key}')}{nearest_name(key, known)}; it may change the model"
            )
    for key, (supported, default) in _FIXED.items():
        _require(f"model.{key}", model.get(key, default), supported, where)
    _require("filter_projections", values.get("filter_projections"), True, where)
    for key in ("use_2D_filters", "use_2D_fitlers"):
        _require(key, values.get(key, False), False, where)
    ramp = values.get("ramp")
    if isinstance(ramp, dict):
        _require("ramp.type", ramp.get("type", "VectorModel_real"), "VectorModel_real", where)
    _require("training.use_angle", training.get("use_angle"), True, where)
    if not training.get("learn_patch_scale", False):
        _check_scale(training.get("patch_scale_init"), f"{where}: training.patch_scale_init")
    head = _head(training, where)
    sizes = {key: _size(model, key, where) for key in (*_SIZES, *_OTHER_SIZES)}
    _require("model.output_size", sizes["output_size"], head.outputs, where)
    encoding = "slice_transformer_positional_encoding_size"
    _require(f"model.{encoding}", sizes[encoding], sizes["set_input"], where)
    active = {key: model.get(key, False) for key, layers in _SKIPS.items() if sizes[layers] > 1}
    if any(not isinstance(value, bool) for value in active.values()) or len(set(active.values())) > 1:
        found = ", ".join(f"{key}={shown(value)}" for key, value in active.items())
        raise ModelError(f"{where}: skip connections must be all true or all false, found {found}")
    rows = sizes["patch_size"] - head.stride + 1
    if rows < 1:
        raise ModelError(f"{where}: 'model.patch_size' must be at least {head.stride}, found {sizes['patch_size']}")
    try:
        config = SliceSetConfig(
            InputWindow(taps=sizes["patch_size"], context_taps=0, unit_noise=False),
            head,
            rows,  # the published patch is as high as it is wide whatever the head; ours grows with it
            skip=bool(next(iter(active.values()), True)),
            **{field: sizes[key] for key, field in _SIZES.items()},
        )
    except SettingsError as error:
        raise ModelError(f"{where}: {error}") from error
    ignored = [key for key in values if key not in _READ_AT_TOP]
    ignored += [f"model.{key}" for key in model if key in _IGNORED_MODEL]
    ignored += [f"training.{key}" for key in training if key not in _TRAINING]
    return config, sorted(ignored)


def _require(key: str, found: Any, supported: Any, where: str) -> None:
    """Raise ModelError unless a value is the one that this program has."""
    same_kind = isinstance(found, bool) == isinstance(supported, bool)
    if not same_kind or found != supported:
        raise ModelError(f"{where}: '{key}' is {shown(found)}; this program reads only models with {supported!r}")


def _check_scale(found: Any, where: str) -> None:
    """Patches are read at whole pixels from their centre: other scales are not supported."""
    if isinstance(found, torch.Tensor) and found.numel() != 1:
        raise ModelError(f"{where} has shape {tuple(found.shape)}; this program reads only models with the number 1")
    value = found.detach().flatten().tolist() if isinstance(found, torch.Tensor) else [found]
    if value != [1] or isinstance(value[0], bool):
        raise ModelError(
            f"{where} is {value[0] if len(value) == 1 else shown(value)}; this program reads only models with 1"
        )


def _size(model: dict[str, Any], key: str, where: str) -> int:
    value = model.get(key)
    if key == "set_output" and value is None:
        value = model.get("set_input")
    if key not in model and key != "set_output":
        raise ModelError(f"{where} lacks the size 'model.{key}'")
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_UNITS:
        raise ModelError(
            f"{where}: 'model.{key}' must be a whole number within 1 ... {MOST_UNITS}, found {shown(value)}"
        )
    return value


def _head(training: dict[str, Any], where: str) -> Head:
    wavelet = training.get("use_wavelet_trainer", False)
    if not isinstance(wavelet, bool):
        raise ModelError(f"{where}: 'training.use_wavelet_trainer' must be true or false, found {shown(wavelet)}")
    if not wavelet:
        return Head(0)
    _require("training.wavelet_levels", training.get("wavelet_levels"), 1, where)
    try:
        return Head(1, str(training.get("wavelet")))
    except SettingsError as error:
        raise ModelError(f"{where}: 'training.wavelet': {error}") from error


def published_leaf(name: str) -> str:
    """The published program's name of a leaf of `SliceSet`.

    >>> published_leaf("row_encoders.3.pooled.last.weight")
    'slice_transformers.3.mlp.last_layer.weight'
    """
    for ours, theirs in _LEAF_PARTS:
        name = name.replace(ours, theirs)
    return name


def _weights(found: dict[str, Any], network: SliceSet, where: str) -> dict[str, torch.Tensor]:
    """Published weights under our names, checked leaf by leaf."""
    expected = {published_leaf(name): (name, tensor) for name, tensor in network.state_dict().items()}
    weights = {}
    for theirs, (ours, tensor) in expected.items():
        if theirs not in found:
            raise ModelError(f"{where} lacks the leaf '{theirs}' of shape {tuple(tensor.shape)}")
        weights[ours] = _plain(found[theirs], tuple(tensor.shape), f"leaf '{theirs}' of {where}")
    for name in found:
        if name not in expected:
            raise ModelError(f"{where} has the unexpected leaf '{name}'{nearest_name(str(name), expected)}")
    weights["combine.last.weight"] = weights["combine.last.weight"][band_order(network.config.head.outputs)]
    return weights


def band_order(bands: int = 8) -> list[int]:
    """Number of each of our bands (bits z, y, x) among the published ones, whose bits are y, x, z: its axis order."""
    return [(band & 2) << 1 | (band & 1) << 1 | band >> 2 for band in range(bands)]


def _plain(found: Any, shape: tuple[int, ...], what: str) -> torch.Tensor:
    """A dense float32 tensor of a shape with finite values, or ModelError."""
    if not isinstance(found, torch.Tensor) or found.layout != torch.strided:
        raise ModelError(f"{what} must be a dense tensor, found {type(found).__name__}")
    if tuple(found.shape) != shape:
        raise ModelError(f"{what} has shape {tuple(found.shape)}, expected {shape}")
    if not found.is_floating_point():
        raise ModelError(f"{what} holds {found.dtype}, expected floating-point numbers")
    values = found.detach().float().clone()
    if not torch.isfinite(values).all():
        raise ModelError(f"{what} holds values that are not finite")
    return values


def _taps(ramp: Any, values: dict[str, Any], where: str) -> torch.Tensor:
    """Impulse response of the published row filter, shape ``(size,)``."""
    if not isinstance(ramp, StandIn) or not isinstance(ramp.state, dict):
        raise ModelError(f"'ramp' of {where} must be a VectorModel_real, found {type(ramp).__name__}")
    parameters = ramp.state.get("_parameters")
    if not isinstance(parameters, dict) or set(parameters) != {"vector"}:
        names = sorted(map(str, parameters)) if isinstance(parameters, dict) else parameters
        raise ModelError(f"'ramp' of {where} must have the one parameter 'vector', found {shown(names)}")
    for part in ("_buffers", "_modules"):
        if ramp.state.get(part):
            raise ModelError(f"'ramp' of {where} has unexpected {part[1:]}: {', '.join(map(str, ramp.state[part]))}")
    size = ramp.state.get("size")
    settings = values.get("ramp")
    settings = settings.get("model") if isinstance(settings, dict) else None
    configured = settings.get("size", size) if isinstance(settings, dict) else size
    if isinstance(size, bool) or not isinstance(size, int) or not 2 <= size <= 1 << 20:
        raise ModelError(f"'ramp' of {where} has the size {size!r}, expected a whole number of taps")
    if configured != size:
        raise ModelError(
            f"'ramp' of {where} has {size} taps, but 'ramp.model.size' of its {CONFIG_NAME} is {configured}"
        )
    return _plain(parameters["vector"], (size,), f"leaf 'ramp.vector' of {where}")
