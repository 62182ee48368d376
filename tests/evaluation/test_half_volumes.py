"""Which files of a folder are halves of one volume, by the names that the field's programs give."""

import numpy as np
import pytest
from half_volumes import write
from plain_mrc import new_mrc

from cryolithe.errors import InputError
from cryolithe.formats.series_names import without_half
from cryolithe.formats.volumes.half_volumes import find_half_volumes

SMALL = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)

PAIRS = [
    ("ts_1_EVN_Vol.mrc", "ts_1_ODD_Vol.mrc"),  # AreTomo
    ("rec_ts_1_half1.mrc", "rec_ts_1_half2.mrc"),  # RELION
    ("ts_1_even_rec.rec", "ts_1_odd_rec.rec"),
    ("ts_1_rec_EVN.mrc", "ts_1_rec_ODD.mrc"),  # of this program
    ("ts_1.half-1.mrc", "ts_1.half-2.mrc"),
    ("even_ts_1.map", "odd_ts_1.map"),
    ("even/ts_1_10.00Apx.mrc", "odd/ts_1_10.00Apx.mrc"),  # Warp
    ("deeper/ts_EVN.mrc", "deeper/ts_ODD.mrc"),
]


def put(folder, *names, values=SMALL):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        write(folder / name, values)


@pytest.mark.parametrize("names", PAIRS, ids=lambda names: names[0])
def test_pairs_are_found_by_the_names_of_programs(tmp_path, names):
    put(tmp_path, *names, "whole_rec.mrc")
    found = find_half_volumes(tmp_path)
    assert found.pairs == (tuple(tmp_path / name for name in names),)
    assert not found.left_out


def test_all_of_them_side_by_side(tmp_path):
    put(tmp_path, *(name for names in PAIRS for name in names))
    found = find_half_volumes(tmp_path)
    assert set(found.pairs) == {tuple(tmp_path / name for name in names) for names in PAIRS}


def test_what_is_no_half_of_a_volume_is_left_out(tmp_path):
    put(tmp_path, "a_EVN.mrc", "a_ODD.mrc", "b_EVN.mrc", "seven.mrc", "event_rec.mrc", "c_even.mrc", "c_half2.mrc")
    put(tmp_path, "a_EVN_samba.mrc", "a_ODD_samba.mrc", "a_rec_confidence.mrc", "a_n2n.mrc")  # made of halves
    for name in ("raw_EVN.mrc", "raw_ODD.mrc"):  # neither says what it is
        with new_mrc(tmp_path / name) as file:
            file.set_data(SMALL)
            file.set_image_stack()
    for name in ("tilts_EVN.mrc", "tilts_ODD.mrc"):
        with new_mrc(tmp_path / name) as file:
            file.set_data(SMALL)
            file.set_image_stack()
    (tmp_path / "tilts.tlt").write_text("-2\n0\n2\n4\n")
    (tmp_path / "notes_EVN.txt").write_text("no volume")
    found = find_half_volumes(tmp_path)
    assert found.pairs == ((tmp_path / "a_EVN.mrc", tmp_path / "a_ODD.mrc"),)
    left = {path.name for path, _ in found.left_out}
    assert {"b_EVN.mrc", "c_even.mrc", "c_half2.mrc", "tilts_EVN.mrc", "tilts_ODD.mrc"} <= left
    assert not left & {"seven.mrc", "event_rec.mrc", "a_n2n.mrc", "a_EVN_samba.mrc", "notes_EVN.txt"}
    assert not {"raw_EVN.mrc", "raw_ODD.mrc"} & {path.name for pair in found.pairs for path in pair}


def test_two_files_for_one_half_are_refused(tmp_path):
    put(tmp_path, "a_EVN.mrc", "a_even.mrc", "a_ODD.mrc")
    with pytest.raises(InputError, match="could both be the first half"):
        find_half_volumes(tmp_path)


@pytest.mark.parametrize(
    ("name", "whole"),
    [("ts_EVN_Vol", "ts_Vol"), ("rec_ts_half2", "rec_ts"), ("even_ts", "ts"), ("seven", "seven"), ("EVN", "EVN")],
)
def test_what_a_name_says_beside_of_halves(name, whole):
    assert without_half(name) == whole
