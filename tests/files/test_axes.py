"""A volume of ``--orientation xzy`` is the same volume as one of xyz to everything that reads it."""

import json
import shutil

import numpy as np
import pytest
from command import call, good, refusal_of
from half_volumes import signal
from tiny_series import ANGLES, noise, run, write_series

import cryolithe
from cryolithe.formats import read_mrc
from cryolithe.formats.volumes.axes import stored_axes, turned_record

ORDERS = ("xyz", "xzy")
FBP = ("--method", "fbp", "--thickness", 20, "--device", "cpu")
RECORD = {"volume": {"shape_zyx": [4, 6, 8]}, "geometry": {"axis_order": "yzx", "depth_axis": "-z"}}


def refused(*words):
    return refusal_of(call(*words))


def numbers(found):
    """All numbers in a record, by where they stand; what took time does not count."""
    if isinstance(found, dict):
        return [one for name in sorted(found) if name != "seconds" for one in numbers(found[name])]
    if isinstance(found, list):
        return [number for one in found for number in numbers(one)]
    return [float(found)] if isinstance(found, int | float) else []


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Halves and their average, in both orders."""
    folder = tmp_path_factory.mktemp("axes")
    clean = np.stack([signal((40, 48, 1), seed=1)[..., 0]] * len(ANGLES))
    for name, more in (("EVN", noise()), ("ODD", np.roll(noise(), 7, axis=2))):
        _, angles = write_series(folder, clean + 2 * more, name=f"ts_{name}")
    halves = ("--even", folder / "ts_EVN.mrc", "--odd", folder / "ts_ODD.mrc", angles)
    for order in ORDERS:
        result = run(*halves, *FBP, "--orientation", order, "-o", folder / f"{order}.mrc")
        assert result.exit_code == 0, result.output
    return folder


def test_a_record_counts_only_for_its_own_volume():
    assert stored_axes(RECORD, (6, 4, 8)) == "yzx"
    assert stored_axes(RECORD, (4, 6, 8)) == "zyx"  # turned since
    assert stored_axes({}, (6, 4, 8)) == "zyx"
    assert stored_axes({**RECORD, "geometry": {"axis_order": "zyx"}}, (6, 4, 8)) == "zyx"
    values = {**RECORD, "volume": {**RECORD["volume"], "statistics": {"minimum": -1.0, "maximum": 2.0}}}
    assert stored_axes(values, (6, 4, 8), (-1.0, 2.0)) == "yzx"
    assert stored_axes(values, (6, 4, 8), (-1.0, 2.5)) == "zyx"  # another volume of this shape
    assert stored_axes(turned_record(RECORD), (6, 4, 8)) == "zyx"


def test_the_library_reads_it_upright_and_saves_it_so(made, tmp_path):
    plain, other = (cryolithe.Volume.read(made / f"{order}.mrc") for order in ORDERS)
    assert read_mrc(made / "xzy.mrc").data.shape != plain.shape
    np.testing.assert_array_equal(np.asarray(other), np.asarray(plain))
    with pytest.warns(cryolithe.CryoLitheWarning, match="the same but for"):
        assert cryolithe.fsc(plain, made / "xzy.mrc").mean() == pytest.approx(1)
    again = cryolithe.Volume.read(other.save(tmp_path / "again.mrc"))
    np.testing.assert_array_equal(np.asarray(again), np.asarray(plain))


def test_a_file_that_was_turned_since_is_taken_as_it_is(made, tmp_path):
    upright = cryolithe.Volume.read(made / "xyz.mrc")
    shutil.copy(made / "xyz.mrc", tmp_path / "xzy.mrc")
    shutil.copy(made / "xzy.json", tmp_path / "xzy.json")
    np.testing.assert_array_equal(np.asarray(cryolithe.Volume.read(tmp_path / "xzy.mrc")), np.asarray(upright))


def test_fsc_of_either_order(made):
    lines = [
        good("fsc", made / f"{one}_EVN.mrc", made / f"{other}_ODD.mrc", "--wedge", 50).output.splitlines()[-3:]
        for one, other in (("xyz", "xyz"), ("xzy", "xzy"), ("xyz", "xzy"))
    ]
    assert lines[0] == lines[1] == lines[2]
    assert "turned to (z, y, x)" in good("fsc", made / "xyz_EVN.mrc", made / "xzy_ODD.mrc").output


def test_info_names_the_order(made):
    assert "(y, z, x: --orientation xzy by its record)" in good("info", made / "xzy.mrc").output
    assert "(z or tilt, y, x)" in good("info", made / "xyz.mrc").output


def test_evaluation_turns_whatever_it_is_given(made, tmp_path):
    def judged(volume, reference, halves):
        words = ("--reference", made / f"{reference}_EVN.mrc", "--half1", made / f"{halves}_EVN.mrc")
        page = tmp_path / f"{volume}{reference}{halves}.html"
        good("evaluate", made / f"{volume}.mrc", *words, "--half2", made / f"{halves}_ODD.mrc", "-o", page)
        found = json.loads(page.with_suffix(".json").read_text())
        return numbers([found["evaluation"][name] for name in ("reference", "halves", "wedge", "shape_zyx")])

    plain = judged("xyz", "xyz", "xyz")
    assert judged("xzy", "xyz", "xzy") == pytest.approx(plain, rel=1e-4, abs=1e-6)
    assert judged("xyz", "xzy", "xyz") == pytest.approx(plain, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("method", ["samba", "n2n"])
def test_denoising_of_another_order_is_refused(made, method):
    for words in ((made / "xzy.mrc",), ("--half1", made / "xzy_EVN.mrc", "--half2", made / "xzy_ODD.mrc")):
        if method == "samba" and len(words) > 1:
            continue
        assert "reconstruct with --orientation xyz, denoise that" in refused("denoise", *words, "--method", method)


def test_the_library_denoises_it_upright(made):
    with pytest.warns(cryolithe.CryoLitheWarning, match="the general weights are for"):
        plain, other = (cryolithe.denoise(made / f"{order}.mrc", method="n2n", device="cpu") for order in ORDERS)
    np.testing.assert_allclose(np.asarray(other), np.asarray(plain), atol=1e-5)


def test_a_reconstruction_that_is_to_be_denoised_keeps_the_order(made, tmp_path):
    one = ("reconstruct", made / "ts_EVN.mrc", made / "ts_ODD.tlt", *FBP, "--orientation", "xzy")
    both = ("reconstruct", "--even", made / "ts_EVN.mrc", "--odd", made / "ts_ODD.mrc", made / "ts_ODD.tlt")
    both = (*both, *FBP, "--orientation", "xzy", "--denoise", "n2n")
    (tmp_path / "list.csv").write_text(f"tilts,angles\n{made / 'ts_EVN.mrc'},{made / 'ts_ODD.tlt'}\n")
    listed = ("reconstruct", tmp_path / "list.csv", *FBP, "--orientation", "xzy", "--denoise", "samba")
    for words in ((*one, "--denoise", "samba", "-o", tmp_path / "o.mrc"), (*both, "-o", tmp_path / "p.mrc"), listed):
        assert "--denoise is for --orientation xyz" in refused(*words)
    assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]


@pytest.mark.slow
def test_methods_are_compared_alike(made, tmp_path):
    rows = []
    for order in ORDERS:
        words = ("--half1", made / f"{order}_EVN.mrc", "--half2", made / f"{order}_ODD.mrc", "--device", "cpu")
        page = tmp_path / f"{order}.html"
        shown = good("compare", *words, "--methods", "fbp,gaussian,n2n-general", "-o", page).output
        rows.append(numbers(json.loads(page.with_suffix(".json").read_text())["scores"]))
        assert ("turned to (z, y, x)" in shown) == (order == "xzy")
    assert rows[1] == pytest.approx(rows[0], rel=1e-3, abs=1e-4)
