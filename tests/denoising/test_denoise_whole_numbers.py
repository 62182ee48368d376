"""``cryolithe denoise`` of volumes of whole numbers: 8-bit values keep their scale, coarse steps are told."""

import json

import numpy as np
import pytest
from command import good
from half_volumes import halves, write
from plain_mrc import new_mrc
from test_denoise_command import _tiny as _tiny_samba  # noqa: F401 (a fixture of all tests here)
from test_n2n_general import TINY, weights

from cryolithe.denoising.n2n import network
from cryolithe.evaluation.halves import open_half
from cryolithe.formats import read_mrc
from cryolithe.formats.volumes.int8 import Int8Scale, scale_told

SHAPE = (24, 40, 32)
SCALES = (Int8Scale(3.0, 0.04), Int8Scale(2.5, 0.05))


@pytest.fixture
def general(tmp_path, monkeypatch):
    monkeypatch.setitem(network.BACKBONES, "unet-small", TINY)
    return weights(tmp_path / "w.safetensors", {"general": True, "voxel_size_angstrom": [8.0, 14.0]})


def write_int8(path, values, scale, told="record"):
    """8-bit values with their scale in a record, a label, or nowhere."""
    with new_mrc(path, values.astype(np.int8)) as file:
        file.set_volume()
        file.voxel_size = 10.0
        if told == "label":
            file.header.nlabl, file.header.label[0] = 1, scale.label
    if told == "record":
        record = {"volume": {"path": path.name, "scaling": {"offset": scale.offset, "step": scale.step}}}
        path.with_suffix(".json").write_text(json.dumps(record))
    return path


def pair(folder, scales, told):
    """Halves with a filled border, as 8-bit values and as the very densities that these stand for."""
    small, wide = [], []
    for n, (values, scale) in enumerate(zip(halves(SHAPE), scales, strict=True)):
        density = 3 + values
        density[:, :, :3] = 3.4
        codes = scale.values(density)
        small.append(write_int8(folder / f"small{n}.mrc", codes, scale, told))
        wide.append(write(folder / f"wide{n}.mrc", scale.densities(codes)))
    return small, wide


def denoise(*words):
    return good("denoise", *words, "--device", "cpu", "--precision", "fp32")


@pytest.mark.parametrize("told", ["record", "label"])
@pytest.mark.parametrize("given", ["whole", "alike", "scaled apart"])
def test_values_of_8_bits_stand_for_the_densities_that_floats_become(tmp_path, general, given, told):
    small, wide = pair(tmp_path, SCALES if given == "scaled apart" else SCALES[:1] * 2, told)
    found = {}
    for name, (first, second) in {"small": small, "wide": wide}.items():
        output = tmp_path / f"{name}.mrc"
        words = [first] if given == "whole" else ["--half1", first, "--half2", second]
        denoise("--method", "n2n", "--model", general, *words, "-o", output)
        half = open_half(output)
        found[name] = np.stack([half.density(z) for z in range(SHAPE[0])])
    stored = read_mrc(tmp_path / "small.mrc")
    assert stored.data.dtype == np.int8
    scaling = json.loads((tmp_path / "small.json").read_text())["volume"]["scaling"]
    scale = scale_told(stored.labels)
    assert (scaling["offset"], scaling["step"]) == pytest.approx((scale.offset, scale.step), rel=1e-5)
    assert scaling["limits"] == pytest.approx(Int8Scale(scaling["offset"], scaling["step"]).limits)
    if given != "scaled apart" and told == "record":
        assert (scaling["offset"], scaling["step"]) == (SCALES[0].offset, SCALES[0].step)
    assert abs(found["small"] - found["wide"]).max() < 0.51 * scaling["step"]


def test_compare_takes_denoised_halves_of_8_bits(tmp_path, general):
    small, _ = pair(tmp_path, SCALES, "record")
    made = [tmp_path / f"made{n}.mrc" for n in (0, 1)]
    for path, output in zip(small, made, strict=True):
        denoise("--method", "n2n", "--model", general, path, "-o", output)
    words = ("--half1", made[0], "--half2", made[1], "--tilt-range", 60, "--methods", "fbp")
    good("compare", *words, "-o", tmp_path / "page.html")


def test_halves_of_which_one_tells_no_scale_give_none(tmp_path, general):
    small, _ = pair(tmp_path, SCALES, "record")
    small[1].with_suffix(".json").unlink()
    output = tmp_path / "made.mrc"
    denoise("--method", "n2n", "--model", general, "--half1", small[0], "--half2", small[1], "-o", output)
    assert "scaling" not in json.loads(output.with_suffix(".json").read_text())["volume"]
    assert scale_told(read_mrc(output).labels) is None


@pytest.mark.slow
def test_samba_keeps_the_scale(tmp_path):
    small, _ = pair(tmp_path, SCALES, "record")
    denoise(small[1], "-o", tmp_path / "made.mrc")
    scaling = json.loads((tmp_path / "made.json").read_text())["volume"]["scaling"]
    assert (scaling["offset"], scaling["step"]) == (SCALES[1].offset, SCALES[1].step)
    assert scale_told(read_mrc(tmp_path / "made.mrc").labels) == SCALES[1]


@pytest.mark.parametrize(("dtype", "levels", "told"), [(np.int16, 1.5, True), (np.uint16, 200, False)])
def test_steps_that_are_coarse_for_the_result_are_told(tmp_path, general, dtype, levels, told):
    values = np.rint(levels * halves(SHAPE)[0] + (0 if dtype == np.int16 else 5000)).astype(dtype)
    with new_mrc(tmp_path / "t.mrc", values) as file:
        file.set_volume()
        file.voxel_size = 10.0
    said = denoise("--method", "n2n", "--model", general, tmp_path / "t.mrc", "-o", tmp_path / "made.mrc").stderr
    assert (f"Note: made.mrc is {np.dtype(dtype).name} as its input is, whose steps are " in said) == told
    write(tmp_path / "f.mrc", values)
    assert "steps" not in denoise("--method", "n2n", "--model", general, tmp_path / "f.mrc").stderr
