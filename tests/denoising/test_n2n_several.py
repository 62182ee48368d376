"""One Noise2Noise network for several pairs of halves: given, in a folder, from a session."""

import json
import shutil

import numpy as np
import pytest
from half_volumes import halves, write
from test_n2n_command import _tiny, bad, good  # noqa: F401

from cryolithe.denoising.n2n import apply
from cryolithe.denoising.n2n.pairs import Patches
from cryolithe.formats import read_mrc

pytestmark = pytest.mark.slow
SHAPES = {"a": (24, 64, 40), "b": (20, 48, 56)}


@pytest.fixture
def folder(tmp_path):
    """Two pairs of other sizes, voxels 3 % apart, and what else may lie there."""
    for n, (name, shape) in enumerate(SHAPES.items()):
        for end, values in zip(("EVN", "ODD"), halves(shape, seed=n, level=1.5), strict=True):
            write(tmp_path / f"{name}_rec_{end}.mrc", 100 * n + 5 * values, voxel_size=10 + 0.3 * n)
    write(tmp_path / "a_rec.mrc", np.zeros(SHAPES["a"]))
    write(tmp_path / "c_rec_EVN.mrc", halves(SHAPES["a"], seed=3)[0])
    return tmp_path


def names(folder, pattern="*n2n*"):
    return sorted(path.name for path in folder.glob(pattern))


def test_a_folder_becomes_one_network_and_a_volume_of_each_pair(folder):
    said = good(folder, "--train-minutes", 60)
    assert "2 pairs of halves: a_rec_EVN.mrc and a_rec_ODD.mrc; b_rec_EVN.mrc" in said
    assert "c_rec_EVN.mrc (its other half is missing)" in said
    made = [f"{name}_rec_n2n{end}" for name in SHAPES for end in (".json", ".mrc", ".png")]
    assert names(folder) == sorted([*made, "n2n.run", "n2n.safetensors"])
    for n, (name, shape) in enumerate(SHAPES.items()):
        volume = read_mrc(folder / f"{name}_rec_n2n.mrc")
        assert volume.data.shape == shape
        assert volume.voxel_sizes_angstrom[0] == pytest.approx(10 + 0.3 * n)
        assert volume.data.mean() == pytest.approx(100 * n, abs=5)  # in the grey levels of its own halves
        record = json.loads((folder / f"{name}_rec_n2n.json").read_text())
        assert record["inputs"]["half1"]["path"] == str(folder / f"{name}_rec_EVN.mrc")
        score = record["score"]
        assert score["half_snr_raw_db"] < score["half_snr_denoised_db"]
        assert [pair["shape_zyx"] for pair in record["method"]["card"]["halves"]["pairs"]] == [
            list(shape) for shape in SHAPES.values()
        ]


def test_pairs_that_are_given_go_where_it_is_said(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "made"
    pairs = [f"--half{n}={folder / name}_rec_{end}.mrc" for name in SHAPES for n, end in ((1, "EVN"), (2, "ODD"))]
    good(*pairs, "--train-minutes", 60, "-o", out)
    assert names(out, "*.mrc") == ["a_rec_n2n.mrc", "b_rec_n2n.mrc"]
    assert (out / "n2n.safetensors").exists()
    assert names(folder) == []
    # A volume is the same whether it is made with the others or alone, by the same weights.
    good(*pairs[2:], "--model", out / "n2n.safetensors", "-o", out / "alone.mrc")
    np.testing.assert_array_equal(read_mrc(out / "alone.mrc").data, read_mrc(out / "b_rec_n2n.mrc").data)


def test_what_is_done_is_not_repeated(folder, monkeypatch):
    made, write_one, count = folder.parent / f"{folder.name}_whole", apply._write, []
    good(folder, "--train-minutes", 60, "-o", made)

    def interrupted(*arguments):
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        return write_one(*arguments)

    monkeypatch.setattr(apply, "_write", interrupted)
    bad(folder, "--train-minutes", 60, code=130)
    assert names(folder, "*n2n.mrc") == ["a_rec_n2n.mrc"]
    first = (folder / "a_rec_n2n.mrc").stat().st_mtime_ns
    assert "exists" in bad(folder, "--train-minutes", 60)
    said = good(folder, "--train-minutes", 60, "--resume")
    assert len(count) == 3
    assert "The training is done" in said
    assert "a_rec_n2n.mrc: already denoised" in said
    assert (folder / "a_rec_n2n.mrc").stat().st_mtime_ns == first
    for name in ("a_rec_n2n.mrc", "b_rec_n2n.mrc"):
        np.testing.assert_array_equal(read_mrc(folder / name).data, read_mrc(made / name).data)
    good(folder, "--train-minutes", 60, "--resume")
    assert len(count) == 3


class _Constant:
    """A pair of halves that are the same number everywhere."""

    def __init__(self, number, shape):
        self.number, self.shape, self.first, self.second = number, shape, self, self

    def box(self, place):
        return np.full([s.stop - s.start for s in place], self.number, np.float32)


def test_every_pair_is_drawn_from_equally_often_and_all_are_held_back():
    shapes = [(16, 640, 640), (16, 40, 16), (40, 40, 16)]
    patches = Patches([_Constant(n, shape) for n, shape in enumerate(shapes)], 16, 8, seed=0)
    drawn = np.concatenate([patches.batch(step, 30)[0][:, 0, 0, 0, 0] for step in range(20)])
    counts = np.bincount(drawn.astype(int), minlength=3)
    assert np.abs(counts - 200).max() < 4 * np.sqrt(600 * 2 / 9)  # size does not count
    for most in (2, 12):
        held = [int(first[0, 0, 0, 0, 0]) for first, _ in patches.held_back(most)]
        assert set(held) == {0, 1, 2}
        assert len(held) <= max(most, 3)


def test_pairs_that_do_not_go_together_are_refused_before_any_work(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for end, values in zip(("EVN", "ODD"), halves(SHAPES["a"], seed=7), strict=True):
        write(folder / f"z_{end}.mrc", values, voxel_size=12)
    said = bad(folder)
    assert "z_EVN.mrc" in said
    assert "12 Å" in said
    assert "within 10 %" in said
    assert names(folder) == []
    for end in ("EVN", "ODD"):
        (folder / f"z_{end}.mrc").unlink()
    for name, contrast in (("a", "dark"), ("b", "bright")):
        record = {"volume": {"path": f"{name}_rec_EVN.mrc", "contrast": contrast}}
        (folder / f"{name}_rec_EVN.json").write_text(json.dumps(record))
    assert "differ in contrast" in bad(folder)
    (folder / "b_rec_EVN.json").unlink()
    a, b = ((folder / f"{n}_rec_EVN.mrc", folder / f"{n}_rec_ODD.mrc") for n in "ab")
    assert "2 times and --half2 1 times" in bad("--half1", a[0], "--half1", b[0], "--half2", a[1])
    both = ("--half1", a[0], "--half2", a[1], "--half1", b[0], "--half2", b[1])
    assert "folder of all results" in bad(*both, "-o", folder / "x.mrc")
    assert "--report is for one volume" in bad(*both, "--report", folder / "x.png")
    assert "differ in shape" in bad("--half1", a[0], "--half2", b[1], "--half1", b[0], "--half2", a[1])
    same = [shutil.copy(path, other / path.name) for path in a]
    twice = ("--half1", a[0], "--half2", a[1], "--half1", same[0], "--half2", same[1])
    assert "written twice" in bad(*twice, "-o", other)
    assert "no pairs of half volumes" in bad(tmp_path_factory.mktemp("empty"))
    assert names(folder) == []
