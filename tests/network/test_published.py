"""Imported weights of the published program: the same numbers, and nothing executed on the way."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from command import call, good
from published_model import (
    SIZES,
    TAPS,
    checkpoint_of,
    config_of,
    filter_module,
    published_volume,
    taps_of,
    weights_of,
    write_published,
)
from shared_data import SHARED, needs_shared
from tiny_series import made, voxels, write_series

from cryolithe.errors import ModelError
from cryolithe.filters import filter_rows_by_taps
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.models import find_model
from cryolithe.network.checkpoint import load_model
from cryolithe.network.published import import_published
from cryolithe.network.torch_file import StandIn, read_torch_file
from cryolithe.reconstruction.block import Block, block_maker
from cryolithe.reconstruction.jobs.job import Job
from cryolithe.reconstruction.slabwise import plan
from cryolithe.reconstruction.slabwise.networks import make_network_method
from cryolithe.settings import ReconstructSettings
from cryolithe.work.watcher import Silent

ANGLES = (-55.0, -31.0, -10.0, 2.0, 25.0, 44.0, 61.0)
FP32 = ("--precision", "fp32")


@pytest.fixture(autouse=True)
def models_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOLITHE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def ramp(monkeypatch):
    return filter_module(monkeypatch)


def models(*arguments):
    return call("models", *arguments)


def images_of(height, width, seed=3):
    return np.random.default_rng(seed).standard_normal((len(ANGLES), height, width)).astype(np.float32)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def reconstruct(folder, images, depth, *flags, angles=ANGLES, name="ts"):
    stack, text = write_series(folder, images, angles, name)
    output = folder / f"{name}_{len(list(folder.glob('*.mrc')))}.mrc"
    made(stack, text, "-o", output, "--model", "theirs", "--thickness", depth, *FP32, *flags)
    return voxels(output)


def imported(folder, levels, ramp):
    write_published(folder / "published", config_of(levels), checkpoint_of(ramp, levels))
    good("models", "import", folder / "published", "-o", "theirs")


# Agreement


@needs_shared
@pytest.mark.parametrize("name", ["upstream_pixel", "upstream_wavelet"])
def test_golden_models_compute_what_the_published_program_computed(tmp_path, name):
    """Filtered projections and whole volumes; tests/network/test_network.py has the network alone."""
    golden = SHARED / "golden" / name
    vectors = np.load(golden / "vectors.npz")
    good("models", "import", golden, "-o", "theirs")
    taps = load_model("theirs").convention.taps
    filtered = filter_rows_by_taps(torch.from_numpy(vectors["projections"]), taps)
    assert relative(filtered.numpy(), vectors["filtered"]) < 1e-6
    expected = np.moveaxis(vectors["volume"], 2, 0)
    found = reconstruct(
        tmp_path, vectors["projections"], len(expected), angles=tuple(vectors["tilt_angles_deg"].tolist())
    )
    assert relative(found, expected) < 1e-5
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@needs_shared
@pytest.mark.parametrize("name", ["upstream_pixel", "upstream_wavelet"])
def test_golden_networks_through_their_file(name):
    golden = SHARED / "golden" / name
    vectors = np.load(golden / "vectors.npz")
    good("models", "import", golden, "-o", "theirs")
    network = load_model("theirs").network
    patches = torch.from_numpy(vectors["patches"]).transpose(0, 1)
    angles = torch.from_numpy(np.deg2rad(vectors["tilt_angles_deg"])).float()
    seen = torch.ones(patches.shape[:2], dtype=torch.bool)
    found = network(patches, seen, network.tilt_context(angles))[:, 0].numpy()
    order = [0, 2, 4, 6, 1, 3, 5, 7] if found.shape[1] == 8 else [0]  # of our bands zyx, theirs: yxz
    assert relative(found, vectors["network_output"][:, order]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("levels", [0, 1])
@pytest.mark.parametrize(
    ("height", "width", "depth"),
    [(16, 16, 8), (17, 17, 7), (22, 16, 9), (14, 20, 12), (21, 15, 5), (13, 27, 6), (40, 40, 1)],
)
def test_volumes_are_those_of_the_published_program(tmp_path, ramp, levels, height, width, depth):
    """Odd and even sizes, fields that it pads to a square, more and fewer pixels than taps; up to the border."""
    imported(tmp_path, levels, ramp)
    images = images_of(height, width)
    expected = published_volume(images, ANGLES, depth, levels)
    found = reconstruct(tmp_path, images, depth)
    assert found.shape == (depth, height, width)
    assert relative(found, expected) < 3e-6
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("levels", [0, 1])
def test_slabs_change_nothing(tmp_path, ramp, monkeypatch, levels):
    imported(tmp_path, levels, ramp)
    images = images_of(21, 18)
    whole = reconstruct(tmp_path, images, 6)
    for rows in (1, 4, 7):
        monkeypatch.setattr(plan, "MOST_SLAB_ROWS", rows)
        np.testing.assert_allclose(reconstruct(tmp_path, images, 6), whole, rtol=0, atol=1e-6 * np.abs(whole).max())


@pytest.mark.slow
@pytest.mark.parametrize("levels", [0, 1])
def test_the_whole_stack_is_standardised(tmp_path, ramp, levels):
    """Not each image: one that is brighter than the others stays so. Nothing is clipped."""
    imported(tmp_path, levels, ramp)
    images = images_of(16, 16)
    images[2] += 2
    images[4, 8, 8] = 60
    found = reconstruct(tmp_path, images, 6)
    assert relative(found, published_volume(images, ANGLES, 6, levels)) < 3e-6
    assert relative(reconstruct(tmp_path, 8 * images - 32, 6), found) < 1e-5


def test_the_polarity_of_the_input_is_kept(tmp_path, ramp):
    """The published program takes dark matter as recorded; bright matter is inverted for it and back."""
    imported(tmp_path, 1, ramp)
    images = images_of(16, 16)
    dark = reconstruct(tmp_path, images, 6)
    assert relative(reconstruct(tmp_path, -images, 6, "--contrast", "bright"), -dark) < 1e-6


def test_a_field_one_pixel_short_of_a_square(tmp_path, ramp):
    """Where the published program mixes up its axes, points and tilt axis stay in the middle of the image."""
    imported(tmp_path, 0, ramp)
    model = load_model("theirs")
    for shape in ((21, 16), (16, 21), (17, 16)):
        grid = VolumeGrid((6, *shape))
        method = make_network_method(model, TiltGeometry(ANGLES, shape), grid)
        np.testing.assert_array_equal(method.points.x_px, np.arange(shape[1]) - (shape[1] - 1) / 2)
        assert (method.points.geometry.image_shape[1] - shape[1]) % 2 == 0
        assert reconstruct(tmp_path, images_of(*shape), 6).shape == grid.shape


def test_binning_and_rotation_go_with_it(tmp_path, ramp):
    imported(tmp_path, 1, ramp)
    images = images_of(32, 20)
    turned = np.rot90(images, k=-1, axes=(1, 2))
    straight = reconstruct(tmp_path, images, 6)
    assert relative(reconstruct(tmp_path, np.ascontiguousarray(turned), 6, "--tilt-axis", 90), straight) < 1e-6
    assert reconstruct(tmp_path, images, 6, "--bin", 2).shape == (6, 16, 10)


def test_the_sidecar_tells_the_convention(tmp_path, ramp):
    imported(tmp_path, 0, ramp)
    reconstruct(tmp_path, images_of(16, 16), 6)
    record = json.loads(next(tmp_path.glob("ts_*.json")).read_text())["method"]["model"]
    assert record["convention"]["standardisation"] == "stack"
    assert record["card"]["made"] == "import of a published CryoLithe model"
    assert record["card"]["epoch"] == 7


@pytest.mark.slow
def test_our_own_models_have_no_convention():
    assert load_model("default").convention.record == {}


@pytest.mark.slow
@pytest.mark.parametrize("levels", [0, 1])
def test_a_block_is_that_part_of_the_whole(levels, tmp_path, ramp):
    imported(tmp_path, levels, ramp)
    whole = reconstruct(tmp_path, images_of(21, 24), 12)
    settings = ReconstructSettings(model="theirs", thickness=12, precision="fp32")
    job = Job(tmp_path / "ts.mrc", tmp_path / "ts.tlt", tmp_path / "none.mrc", settings)
    maker = block_maker(job, tmp_path, Silent())
    for block in (Block((2, 9), (5, 13), (3, 20)), Block((0, 12), (20, 21), (0, 24))):
        part = whole[slice(*block.z), slice(*block.y), slice(*block.x)]
        assert relative(maker.make(block, Silent()), part) < 1e-5


# Import


def test_an_import_keeps_every_number(tmp_path, ramp, models_folder):
    imported(tmp_path, 0, ramp)
    model = load_model("theirs")
    assert torch.equal(model.convention.taps, taps_of())
    unused = ("combine_dropout", "combine_learn_residual", "learned_positional_encoding_use_softmax")
    assert model.card["ignored"] == ["data", *(f"model.{key}" for key in unused), "seed", "training.lr"]
    stored, weights = model.network.state_dict(), weights_of()
    assert torch.equal(
        stored["row_encoders.3.pooled.last.weight"], weights["slice_transformers.3.mlp.last_layer.weight"]
    )
    assert sum(t.numel() for t in stored.values()) == sum(t.numel() for t in weights.values())
    first = (models_folder / "theirs.safetensors").read_bytes()
    good("models", "import", tmp_path / "published", "-o", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == first


def test_the_older_module_of_the_filter_is_known(tmp_path, monkeypatch):
    ramp = filter_module(monkeypatch, "filter_models.vector")
    write_published(tmp_path / "m", config_of(), checkpoint_of(ramp))
    assert torch.equal(import_published(tmp_path / "m").convention.taps, taps_of())


def test_the_foreign_class_is_never_made(tmp_path, ramp, monkeypatch):
    write_published(tmp_path / "m", config_of(), checkpoint_of(ramp))

    def run(*arguments):
        raise AssertionError("the foreign class was used")

    monkeypatch.setattr(type(ramp), "__setstate__", run)
    monkeypatch.setattr(type(ramp), "__init__", run)
    found = read_torch_file(tmp_path / "m" / "checkpoint.pth", ("CryoLithe.filter_models.vector.VectorModel_real",))
    assert type(found["ramp"]) is StandIn
    assert all(type(loss) is not np.float64 for loss in found["train_loss"])


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def harmful(tmp_path):
    touch = f"touch {tmp_path / 'ran'}"
    return {
        "posix.system": Harmful(os.system, touch),
        ".Popen": Harmful(subprocess.Popen, touch.split()),
        ".eval": Harmful(eval, f"open({str(tmp_path / 'ran')!r}, 'w')"),
        ".getattr": Harmful(getattr, Path, "touch"),
        ".exec": Harmful(exec, f"open({str(tmp_path / 'ran')!r}, 'w')"),
        "torch.serialization.load": Harmful(torch.load, str(tmp_path / "ran")),
        "torch.hub.load": Harmful(torch.hub.load, str(tmp_path), "x"),
        "torch.nn.modules.linear.Linear": torch.nn.Linear(2, 2),
    }


@pytest.mark.parametrize("name", list(harmful(Path())))
@pytest.mark.parametrize("place", ["ramp", "epoch", "model_state_dict"])
def test_foreign_classes_are_refused_by_name_and_never_run(tmp_path, ramp, name, place):
    bad = harmful(tmp_path)[name]
    entry = {"a": bad} if place == "model_state_dict" else bad
    write_published(tmp_path / "m", config_of(), checkpoint_of(ramp, **{place: entry}))
    result = models("import", tmp_path / "m", "-o", "bad")
    assert result.exit_code == 2
    assert name in result.stderr
    assert "nothing was executed" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_no_pickle_protocol_gets_around_that(tmp_path, ramp, protocol):
    good = io.BytesIO()
    torch.save(checkpoint_of(ramp), good)
    content = io.BytesIO()
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(content, "w") as new:
        for entry in old.namelist():
            spoilt = pickle.dumps(harmful(tmp_path)["posix.system"], protocol=protocol)
            new.writestr(entry, spoilt if entry.endswith("data.pkl") else old.read(entry))
    write_published(tmp_path / "m", config_of(), content.getvalue())
    with pytest.raises(ModelError, match=r"wants 'posix.system', which is no part of a published checkpoint"):
        import_published(tmp_path / "m")
    assert not (tmp_path / "ran").exists()


def zip_of(entries, compression=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return content.getvalue()


PLAIN = pickle.dumps({"model_state_dict": {}}, protocol=2)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "is not a torch checkpoint: .* found an empty file"),
        (pickle.dumps({"a": 1}), "is not a torch checkpoint: expected a zip archive"),
        (b"PK\3\4" + bytes(200), "is damaged"),
        (zip_of([("a/data.pkl", PLAIN), ("b/data.pkl", PLAIN)]), "expected one data.pkl in it, found a/data.pkl, b/"),
        (zip_of([("a/code.pkl", PLAIN)]), "expected one data.pkl in it, found a/code.pkl"),
        (zip_of([("a/x", b"")]), "expected one data.pkl in it, found none"),
        (zip_of([("a/data.pkl", PLAIN)], zipfile.ZIP_DEFLATED), "has compressed entries"),
        (zip_of([("a/data.pkl", b"\x80\x02garbage")]), "is damaged"),
        (zip_of([("a/data.pkl", b"")]), "is damaged"),
    ],
    ids=["empty", "bare pickle", "broken zip", "two pickles", "code", "no pickle", "compressed", "garbage", "no bytes"],
)
def test_files_that_are_no_checkpoints(tmp_path, content, line):
    write_published(tmp_path / "m", config_of(), content)
    with pytest.raises(ModelError, match=line):
        import_published(tmp_path / "m")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
def test_truncated_checkpoints(tmp_path, ramp, share):
    folder = write_published(tmp_path / "m", config_of(), checkpoint_of(ramp))
    content = (folder / "checkpoint.pth").read_bytes()
    (folder / "checkpoint.pth").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"checkpoint.pth is damaged"):
        import_published(folder)


LEAF = "slice_transformers.2.setMlP.layers.1.weight"


@pytest.mark.parametrize(
    ("leaves", "line"),
    [
        ({LEAF: None}, rf"lacks the leaf '{LEAF}' of shape \(7, 7\)"),
        ({LEAF: torch.ones(7, 6)}, rf"leaf '{LEAF}' of .* has shape \(7, 6\), expected \(7, 7\)"),
        ({LEAF: torch.ones(49)}, rf"leaf '{LEAF}' of .* has shape \(49,\), expected \(7, 7\)"),
        ({LEAF: torch.full((7, 7), torch.nan)}, rf"leaf '{LEAF}' of .* not finite"),
        ({LEAF: torch.ones((7, 7), dtype=torch.int64)}, rf"leaf '{LEAF}' of .* holds torch.int64, expected floating"),
        ({LEAF: [1.0]}, rf"leaf '{LEAF}' of .* must be a dense tensor, found list"),
        ({"combination_mlp.layers.0.bias": torch.ones(10)}, r"has the unexpected leaf 'combination_mlp.layers.0.bias'"),
        ({"slice_transformers.5.up_layer.weight": torch.ones(6, 5)}, r"unexpected leaf 'slice_transformers.5.up_"),
    ],
)
def test_leaves_that_do_not_fit_are_named(tmp_path, ramp, leaves, line):
    weights = {name: leaf for name, leaf in {**weights_of(), **leaves}.items() if leaf is not None}
    write_published(tmp_path / "m", config_of(), checkpoint_of(ramp, model_state_dict=weights))
    with pytest.raises(ModelError, match=line):
        import_published(tmp_path / "m")


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ({"ramp": None}, "'ramp' of .* must be a VectorModel_real, found NoneType"),
        ({"ramp": torch.ones(TAPS)}, "'ramp' of .* must be a VectorModel_real, found Tensor"),
        ({"ramp": np.float64(3)}, "'ramp' of .* must be a VectorModel_real, found _Number"),
        ({"extra_state": 1}, "has the unexpected entry 'extra_state'"),
        ({"model_state_dict": [1]}, "lacks the table 'model_state_dict'"),
    ],
)
def test_entries_that_do_not_fit_are_named(tmp_path, ramp, entries, line):
    write_published(tmp_path / "m", config_of(), checkpoint_of(ramp, **entries))
    with pytest.raises(ModelError, match=line):
        import_published(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda ramp: setattr(ramp, "size", TAPS + 1), f"has {TAPS + 1} taps, but 'ramp.model.size' .* is {TAPS}"),
        (lambda ramp: setattr(ramp, "size", "many"), "has the size 'many', expected a whole number"),
        (
            lambda ramp: setattr(ramp, "vector", torch.nn.Parameter(torch.ones(TAPS + 1))),
            rf"leaf 'ramp.vector' of .* has shape \({TAPS + 1},\), expected \({TAPS},\)",
        ),
        (lambda ramp: ramp.register_buffer("b", torch.ones(1)), "'ramp' of .* has unexpected buffers: b"),
        (
            lambda ramp: ramp.register_parameter("w", torch.nn.Parameter(torch.ones(1))),
            r"one parameter 'vector', found",
        ),
    ],
)
def test_filters_that_do_not_fit_are_named(tmp_path, ramp, change, line):
    change(ramp)
    write_published(tmp_path / "m", config_of(), checkpoint_of(ramp))
    with pytest.raises(ModelError, match=line):
        import_published(tmp_path / "m")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model__type": "slicemlp"}, "'model.type' is 'slicemlp'; this program reads only models with 'SliceSet'"),
        ({"model__slice_index": 3}, "'model.slice_index' is 3"),
        ({"model__learn_residual": True}, "'model.learn_residual' is True; .* with False"),
        ({"model__set_bias": True}, "'model.set_bias' is True"),
        ({"model__radon_bias": 0}, "'model.radon_bias' is 0"),
        ({"model__learned_positional_encoding": True}, "'model.learned_positional_encoding' is True"),
        ({"model__slice_transformer_avg_pooling": False}, "'model.slice_transformer_avg_pooling' is False"),
        ({"model__sice_transformer_positional_encoding_mult_angle": False}, "encoding_mult_angle' is False"),
        ({"model__slice_transformer_positional_encoding_base": 10}, "positional_encoding_base' is 10"),
        ({"model__combine_batch_norm": True}, "'model.combine_batch_norm' is True"),
        ({"model__slice_transformer_positional_encoding_size": 8}, "encoding_size' is 8; .* with 6"),
        ({"model__set_skip_connection": False}, "must be all true or all false, found set_skip_connection=False"),
        ({"model__new_trick": 1}, "unknown key 'model.new_trick'"),
        ({"model__patch_size": 4}, "odd number of taps, got 4"),
        ({"model__patch_size": "9"}, "'model.patch_size' must be a whole number within 1 ... 8192, found '9'"),
        ({"model__set_hidden_size": [7, 7]}, r"'model.set_hidden_size' must be a whole number .* found \[7, 7\]"),
        ({"model__set_input": 1 << 40}, "'model.set_input' must be a whole number within 1 ... 8192"),
        ({"model__output_size": 8}, "'model.output_size' is 8; .* with 1"),
        ({"filter_projections": False}, "'filter_projections' is False"),
        ({"use_2D_filters": True}, "'use_2D_filters' is True"),
        ({"use_2D_fitlers": True}, "'use_2D_fitlers' is True"),
        ({"ramp__type": "fir"}, "'ramp.type' is 'fir'; .* with 'VectorModel_real'"),
        ({"training__use_angle": False}, "'training.use_angle' is False"),
        (
            {"training__patch_scale_init": 1.5},
            "training.patch_scale_init is 1.5; this program reads only models with 1",
        ),
        ({"training__use_wavelet_trainer": True}, "'model.output_size' is 1; .* with 8"),
        ({"training__use_wavelet_trainer": "yes"}, "'training.use_wavelet_trainer' must be true or false, found 'yes'"),
        ({"levels": 1, "training__wavelet": "db2"}, "'training.wavelet': wavelet 'db2' is not centred"),
        ({"levels": 1, "training__wavelet_levels": 2}, "'training.wavelet_levels' is 2; .* with 1"),
        ({"model": 3}, "lacks the section 'model'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_features_that_this_program_lacks_are_refused_by_name(tmp_path, changes, line):
    write_published(tmp_path / "m", config_of(**changes), PLAIN)
    with pytest.raises(ModelError, match=line):
        import_published(tmp_path / "m")


def test_a_learned_patch_scale_must_be_one(tmp_path, ramp):
    config = config_of(training__learn_patch_scale=True, training__patch_scale_init=3)
    folder = write_published(tmp_path / "m", config, checkpoint_of(ramp))
    import_published(folder)
    write_published(folder, config, checkpoint_of(ramp, patch_scale=torch.tensor([1.25])))
    with pytest.raises(ModelError, match=r"'patch_scale' of .* is 1.25; this program reads only models with 1"):
        import_published(folder)


def test_missing_sizes_and_files_are_named(tmp_path, ramp):
    config = config_of()
    del config["model"]["combine_mlp_layers"]
    folder = write_published(tmp_path / "m", config, checkpoint_of(ramp))
    with pytest.raises(ModelError, match=r"lacks the size 'model.combine_mlp_layers'"):
        import_published(folder)
    for text, line in (("{", "is not JSON"), ("[1]", "must hold a table, found list"), ("{}", "lacks the section")):
        (folder / "config.json").write_text(text)
        with pytest.raises(ModelError, match=line):
            import_published(folder)
    (folder / "checkpoint.pth").unlink()
    both = "does not exist; a published model is a folder with config.json and checkpoint.pth"
    for place, lacking in ((folder, "checkpoint.pth"), (tmp_path / "nowhere", "config.json")):
        result = models("import", place, "-o", "theirs")
        assert result.exit_code == 2
        assert result.stderr == f"Error: {place / lacking} {both}\n"


def test_skips_of_single_layers_do_not_matter(tmp_path, ramp):
    """The first layer of a perceptron never has a skip connection."""
    config = config_of(model__set_skip_connection=False, model__set_num_layers=1)
    weights = {name: leaf for name, leaf in weights_of().items() if "setMlP.layers.1" not in name}
    write_published(tmp_path / "m", config, checkpoint_of(ramp, model_state_dict=weights))
    assert import_published(tmp_path / "m").network.config.skip


# Names


def test_a_model_is_not_replaced_unless_asked(tmp_path, ramp, models_folder):
    imported(tmp_path, 0, ramp)
    before = (models_folder / "theirs.safetensors").read_bytes()
    write_published(tmp_path / "published", config_of(1), checkpoint_of(ramp, 1))
    result = models("import", tmp_path / "published", "-o", "theirs")
    assert result.exit_code == 2
    assert "exists; give --overwrite to replace it" in result.stderr
    assert (models_folder / "theirs.safetensors").read_bytes() == before
    good("models", "import", tmp_path / "published", "-o", "theirs", "--overwrite")
    assert load_model("theirs").network.config.head.levels == 1
    good("models", "verify", "theirs")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("..", "is no name for a model"),
        (".hidden", "is no name for a model"),
        ("", "expected a value"),
        ("a b", "is no name for a model"),
        ("x\ny", "is no name for a model"),
        ("n" * 101, "is no name for a model"),
        ("../escape", "is no model file; give a plain name, or a path ending in .safetensors"),
        ("/etc/passwd", "is no model file"),
        ("nowhere/m.safetensors", "the folder nowhere does not exist"),
        ("default", "is the name of a bundled model"),
    ],
)
def test_names_that_are_refused(tmp_path, ramp, name, line):
    write_published(tmp_path / "published", config_of(), checkpoint_of(ramp))
    before = sorted(tmp_path.rglob("*"))
    result = models("import", tmp_path / "published", "-o", name)
    assert result.exit_code == 2
    assert line in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_the_users_folder(tmp_path, monkeypatch):
    from cryolithe.models import models_folder

    assert models_folder() == tmp_path / "models"
    monkeypatch.delenv("CRYOLITHE_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert models_folder() == tmp_path / "data" / "cryolithe" / "models"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    assert models_folder() == Path.home() / ".local" / "share" / "cryolithe" / "models"


# list, info, verify


def test_list_and_info(tmp_path, ramp, models_folder):
    imported(tmp_path, 1, ramp)
    (models_folder / "broken.safetensors").write_bytes(b"\0" * 40)
    result = good("models", "list")
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert set(lines) == {"name", "default", "draft", "fast", "general", "images", "theirs"}
    assert "bundled" in lines["default"]
    assert "SliceSet, bior3.1 x1, published" in lines["theirs"]
    assert load_model("theirs").sha256[:12] in lines["theirs"]
    assert "not usable: broken: " in result.stderr
    text = models("info", "theirs").stdout
    for word in ("convention.standardisation", "card.licence", "card.source.checkpoint_sha256", "SliceSet"):
        assert word in text
    record = json.loads(models("info", "theirs", "--json").stdout)
    assert record["card"]["published_config"]["model"]["patch_size"] == SIZES["patch_size"]
    assert "network.fsc_missing" in models("info", "default").stdout
    missing = models("info", "thiers")
    assert missing.exit_code == 2
    assert "unknown model 'thiers' (did you mean 'theirs'?)" in missing.stderr


@pytest.mark.slow
def test_verify(tmp_path, ramp, models_folder):
    imported(tmp_path, 1, ramp)
    result = good("models", "verify")
    verified = {line.split(":")[0] for line in result.stdout.splitlines()}
    assert verified == {"default", "draft", "fast", "general", "images", "theirs"}
    assert result.stdout.count("as recorded") == 6
    path = models_folder / "theirs.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    changed = models("verify", "theirs", "default")
    assert changed.exit_code == 1
    assert "theirs: FAILED: sha256 is" in changed.stdout
    assert "default: ok" in changed.stdout
    path.with_suffix(".sha256").unlink()
    content[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    assert "not finite" in models("verify", path).stdout


def test_verify_sees_an_engine_that_computes_something_else(monkeypatch):
    from cryolithe.inference import engine
    from cryolithe.inference.columns import lift_rows as whole

    def changed(rows, windows, maps, lifted):
        whole(rows, windows, maps, lifted)
        lifted *= 1.001

    monkeypatch.setattr(engine, "lift_rows", changed)

    result = models("verify", "default")
    assert result.exit_code == 1
    assert "engine and definition differ by 1.0e-03" in result.stdout


def test_score_refuses_an_imported_model(tmp_path, ramp):
    imported(tmp_path, 0, ramp)
    result = call("score", "theirs")
    assert result.exit_code == 2
    assert "was imported" in result.stderr


@pytest.mark.parametrize("place", ["~no-such-user/models", "~"])
def test_a_home_that_cannot_be_told_is_no_reason_to_fail(monkeypatch, place):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.setenv("CRYOLITHE_MODELS", place)
    assert load_model("default").name == "default"
    monkeypatch.delenv("CRYOLITHE_MODELS")
    assert load_model("default").name == "default"


def test_a_patch_scale_of_enormous_shape_is_refused_without_being_made(tmp_path, ramp):
    checkpoint = checkpoint_of(ramp, patch_scale=torch.ones(1).expand(10**12))
    folder = write_published(tmp_path / "m", config_of(training__learn_patch_scale=True), checkpoint)
    with pytest.raises(ModelError, match="shape \\(1000000000000,\\)"):
        import_published(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("card", "[" * 100_000), ("card", "[1]"), ("config", '{"kind": ["RowSet"]}'), ("config", "{")]
)
def test_damaged_metadata_are_one_line(tmp_path, key, value):
    path = change_metadata(tmp_path, **{key: value})
    with pytest.raises(ModelError):
        load_model(str(path))
    result = models("verify", path)
    assert result.exit_code == 1
    assert "FAILED" in result.stdout


def test_info_shows_nothing_that_steers_a_terminal(tmp_path):
    path = change_metadata(tmp_path, card=json.dumps({"made": "\x1b[31mred\nlicence: free"}))
    result = good("models", "info", path)
    assert "\x1b" not in result.stdout
    assert not any(line.startswith("licence") for line in result.stdout.splitlines())


def change_metadata(folder, **changes):
    """A copy of the bundled model with other metadata."""
    with safetensors.safe_open(find_model("default"), framework="pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file(tensors, folder / "changed.safetensors", metadata={**metadata, **changes})
    return folder / "changed.safetensors"
