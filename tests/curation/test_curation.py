"""The parts of curation: manifests, grids, streamed training files."""

import h5py
import numpy as np
import pytest
from fake_entry import TRAINING_DATA

from cryolithe.curation.arrays import binned_planes, binned_target_shape, kept_tilts, shared_field
from cryolithe.curation.manifest import FileFacts, Manifest, Measured, PairEntry, read_manifest, write_manifest
from cryolithe.errors import InputError, OutputError, SettingsError
from cryolithe.formats.pairs import Pair, PairLayout, open_pair, pair_writer, write_pair
from cryolithe.geometry import centre_px

MANIFESTS = sorted(TRAINING_DATA.glob("empiar_*.yaml"))
GOOD = """
accession: EMPIAR-1
pixel_size_angstrom: 2.0
target_made_by: [FBP]
files: {stack: "{name}.mrc", angles: "{name}.tlt", target: "{series}.rec"}
pairs:
  - {name: a, series: s1}
  - {name: b, series: s2, files: {target: other.rec}}
"""


def manifest(tmp_path, text=GOOD):
    path = tmp_path / "m.yaml"
    path.write_text(text, encoding="utf-8")
    return read_manifest(path)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_shipped_manifests_are_valid_and_come_back_from_a_copy(path, tmp_path):
    read = read_manifest(path)
    assert read.accession.replace("-", "_").lower() == path.stem
    assert read.licence
    assert read.source
    write_manifest(tmp_path / "copy.yaml", read)
    assert read_manifest(tmp_path / "copy.yaml") == read
    with pytest.raises(OutputError):
        write_manifest(tmp_path / "copy.yaml", read)


def test_the_published_dataset_is_described_as_the_paper_does():
    read = read_manifest(TRAINING_DATA / "empiar_11830.yaml")
    assert read.voxel_size_angstrom == pytest.approx(7.84)
    assert read.target_made_by == ("FBP", "cryoCARE", "IsoNet")


def test_paths_are_filled_in_and_overridden(tmp_path):
    read = manifest(tmp_path)
    first, second = read.pairs
    assert {role: str(path) for role, path in read.paths(first).items()} == {
        "stack": "a.mrc",
        "angles": "a.tlt",
        "target": "s1.rec",
    }
    assert str(read.paths(second)["target"]) == "other.rec"


def test_what_was_measured_is_kept(tmp_path):
    read = manifest(tmp_path)
    facts = Measured(stack=FileFacts(bytes=5, sha256="0" * 64))
    pair = read.pairs[0].model_copy(update={"measured": facts, "exclude_tilts": (3, 1), "offset_px": (2, -1)})
    changed = read.model_copy(update={"pairs": (pair, read.pairs[1])})
    write_manifest(tmp_path / "n.yaml", changed)
    assert read_manifest(tmp_path / "n.yaml") == changed


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("accession", "acession", "unknown key 'acession' (did you mean 'accession'?)"),
        ("series: s1", "serie: s1", "unknown key 'pairs.1.serie' (did you mean 'series'?)"),
        ("angles:", "angels:", "unknown key 'files.angels' (did you mean 'angles'?)"),
        ("target: other", "targt: other", "unknown key 'pairs.2.files.targt' (did you mean 'target'?)"),
        ("accession: EMPIAR-1", "", "the key 'accession' is missing"),
        ("2.0", "-2.0", "'pixel_size_angstrom': input should be greater than 0, found -2.0"),
        ("2.0", "wide", "'pixel_size_angstrom': input should be a valid number"),
        ("name: b", "name: a", "two pairs are named 'a'"),
        ("name: b", "name: ../b", "letters, digits"),
        ("{series}.rec", "{serie}.rec", "unknown placeholder '{serie}' (did you mean 'series'?)"),
        ("name: a, series: s1", "name: a", "needs the series of pair 'a'"),
        ("{series}.rec", "../{series}.rec", "must lie inside the folder"),
        ("{series}.rec", "/{series}.rec", "must lie inside the folder"),
        ('"{series}.rec"', '"t.rec", even: "e.mrc"', "give both of even and odd"),
        ("series: s2", "series: s2, exclude_tilts: [0]", "counted from 1"),
        ("target_made_by: [FBP]", "target_made_by: []", "'target_made_by'"),
        (
            "series: s1",
            "series: 12e4",
            "'pairs.1.series': expected text (a name that is a number is written in quotes)",
        ),
        ("pairs:", "target_axes: yxz\npairs:", "'target_axes': input should be 'xyz' or 'xzy', found 'yxz'"),
        ("pairs:", "rows_px: [9, 4]\npairs:", "rows_px needs 0 <= first < end"),
        ("series: s2", "measured: {stack: {sha256: abc}}, series: s2", "'pairs.2.measured.stack.sha256'"),
        ("pairs:", "pairs: [", "is not valid YAML"),
    ],
)
def test_bad_manifests_are_one_line_that_names_the_key(old, new, line, tmp_path):
    assert old in GOOD
    with pytest.raises(SettingsError) as caught:
        manifest(tmp_path, GOOD.replace(old, new, 1))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [("- a", "found a list"), ("", "'accession' is missing"), (None, "does not exist"), ("\0", "not valid")],
)
def test_files_that_are_no_manifests(content, line, tmp_path):
    path = tmp_path / "m.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=line):
        read_manifest(path)


def test_names_are_selected_in_the_order_of_the_manifest(tmp_path):
    read = manifest(tmp_path)
    assert [pair.name for pair in read.select(("b", "a"))] == ["a", "b"]
    with pytest.raises(SettingsError, match="EMPIAR-1 has no pair 'c'"):
        read.select(("c",))


def entry(**keys):
    return PairEntry(name="a", **keys)


def settings(**keys):
    files = {"stack": "s", "angles": "a", "target": "t"}
    return Manifest(
        accession="E", pixel_size_angstrom=1, target_made_by=("FBP",), files=files, pairs=(entry(),), **keys
    )


def test_a_trimmed_target_shares_a_field_with_the_tilt_axis_in_the_middle():
    field = shared_field(settings(), entry(offset_px=(2, 3)), (40, 64), (10, 30, 59))
    assert (field.rows, field.target_rows) == (slice(2, 32), slice(0, 30))
    assert (field.columns, field.target_columns) == (slice(3, 61), slice(0, 58))
    assert field.columns.start + field.columns.stop == 64
    wider = shared_field(settings(), entry(offset_px=(-1, -2)), (40, 64), (10, 42, 68))
    assert wider.shape == (10, 40, 64)
    assert (wider.target_rows, wider.target_columns) == (slice(1, 41), slice(2, 66))


def test_thickness_and_rows_are_cut_about_the_axis():
    field = shared_field(settings(thickness_px=6, rows_px=(8, 24)), entry(), (40, 64), (10, 40, 64))
    assert field.shape == (6, 16, 64)
    assert field.target_planes == slice(2, 8)


@pytest.mark.parametrize(
    ("manifest_keys", "pair_keys", "target", "line"),
    [
        ({}, {}, (10, 38, 64), r"expected the binned images' 40 x 64.*trimmed equally: \[1, 0\]"),
        ({}, {"offset_px": (39, 0)}, (10, 38, 64), "share 1 x 64 pixels"),
        ({}, {"offset_px": (0, 60)}, (10, 40, 64), "share 40 x 0 pixels"),
        ({"thickness_px": 5}, {}, (10, 40, 64), "even number less"),
        ({"thickness_px": 12}, {}, (10, 40, 64), "thickness_px is 12, but the target has 10"),
        ({"rows_px": (0, 41)}, {}, (10, 40, 64), "rows up to 41, but images and target share 40"),
    ],
)
def test_fields_that_do_not_fit(manifest_keys, pair_keys, target, line):
    with pytest.raises(InputError, match=line):
        shared_field(settings(**manifest_keys), entry(**pair_keys), (40, 64), target)


def test_excluded_tilts_exist_and_leave_enough():
    assert kept_tilts(entry(exclude_tilts=(1, 4)), 5) == (1, 2, 4)
    with pytest.raises(InputError, match="names tilt 6, but the stack holds 5"):
        kept_tilts(entry(exclude_tilts=(6,)), 5)
    with pytest.raises(InputError, match="leaves 2 of 4"):
        kept_tilts(entry(exclude_tilts=(1, 2)), 4)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [16, 17, 18, 19])
def test_binning_a_volume_keeps_its_middle_and_its_mean(factor, depth):
    moved = (1.2, -3.1, 2.3)
    shape = (depth, 96, 103)
    z, y, x = (i - centre_px(n) - m for i, n, m in zip(np.indices(shape), shape, moved, strict=True))
    blob = np.exp(-(z**2 / 6 + y**2 / 100 + x**2 / 100)).astype(np.float32)
    small = np.stack(list(binned_planes(blob, depth, factor)))
    assert small.shape == binned_target_shape(blob.shape, factor)
    for axis, index in enumerate(np.indices(small.shape)):
        middle = (small * index).sum() / small.sum() - centre_px(small.shape[axis])
        assert middle * factor == pytest.approx(moved[axis], abs=0.06)
    assert small.sum() * factor**3 == pytest.approx(blob.sum(), rel=0.01)
    constant = np.stack(list(binned_planes(np.full((depth, 16, 16), 3.0), depth, factor if factor < 3 else 2)))
    np.testing.assert_allclose(constant, 3.0, rtol=1e-5)


def test_a_pair_written_by_rows_is_the_one_written_at_once(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, 21, 13)).astype(np.float32)
    truth = rng.standard_normal((6, 21, 13)).astype(np.float32)
    pair = Pair(images, truth, (-40.0, 0.0, 3.5, 60.0), 7.84, {"even": images + 1, "odd": images - 1}, {"a": 1})
    write_pair(tmp_path / "whole.h5", pair)
    arrays = {"images": images, "truth": truth, **pair.extras}
    layout = PairLayout(
        {name: (values.shape, "f4") for name, values in arrays.items()},
        pair.angles_deg,
        pair.voxel_size_angstrom,
        pair.origin,
    )
    with pair_writer(tmp_path / "rows.h5", layout) as sink:
        for name, values in arrays.items():
            for rows in (slice(0, 8), slice(8, 16), slice(16, 21)):
                sink.write_rows(name, values[:, rows])
    with open_pair(tmp_path / "rows.h5") as rows, open_pair(tmp_path / "whole.h5") as whole:
        assert (rows.angles_deg, rows.origin, rows.voxel_size_angstrom) == (
            whole.angles_deg,
            whole.origin,
            whole.voxel_size_angstrom,
        )
        for name, values in arrays.items():
            read = {"images": rows.images, "truth": rows.truth, **rows.extras}[name]
            np.testing.assert_array_equal(read[()], values)
    with h5py.File(tmp_path / "rows.h5") as rows, h5py.File(tmp_path / "whole.h5") as whole:
        for name in arrays:
            assert rows[name].chunks == whole[name].chunks
            assert rows[name].fletcher32


def test_rows_that_lack_or_do_not_fit_leave_nothing(tmp_path):
    layout = PairLayout({"images": ((2, 9, 5), "f4"), "truth": ((3, 9, 5), "f4")}, (0.0, 1.0), 1.0)
    with pytest.raises(OutputError, match="rows of images, truth are lacking"), pair_writer(tmp_path / "a.h5", layout):
        pass
    with pytest.raises(InputError, match="do not fit 'images'"), pair_writer(tmp_path / "a.h5", layout) as sink:
        sink.write_rows("images", np.zeros((2, 10, 5), np.float32))
    with pytest.raises(InputError, match="no array 'even'"), pair_writer(tmp_path / "a.h5", layout) as sink:
        sink.write_rows("even", np.zeros((2, 1, 5), np.float32))
    assert list(tmp_path.iterdir()) == []
    wrong = PairLayout({"images": ((2, 9, 5), "f4"), "truth": ((3, 8, 5), "f4")}, (0.0, 1.0), 1.0)
    with pytest.raises(InputError, match="do not fit a target"), pair_writer(tmp_path / "a.h5", wrong):
        pass
