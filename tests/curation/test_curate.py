"""The parts of choosing candidates: finding, reading small, numbers, ranks, choices."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_entry import TRAINING_DATA

from cryolithe.curation import samples
from cryolithe.curation.candidates import Candidate, Collection, find_candidates
from cryolithe.curation.choices import Choices, chosen_manifest
from cryolithe.curation.manifest import read_manifest
from cryolithe.curation.quality import Numbers, contrast, empty_slabs, measure, streak_energy_db
from cryolithe.curation.ranking import Measured, Thresholds, rank
from cryolithe.errors import InputError, SettingsError
from cryolithe.formats import write_volume
from cryolithe.geometry import TiltGeometry
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.volume import Volume

SHIPPED = TRAINING_DATA / "empiar_11830.yaml"


def noise(shape=(48, 40, 96), seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def streaky(tilt_deg, strength=4.0):
    """Noise with the streaks that beads leave along the beams of one tilt."""
    volume = noise()
    z, x = np.mgrid[: volume.shape[0], : volume.shape[2]]
    angle = np.deg2rad(tilt_deg)
    for start in (20, 45, 70):
        detector = (x - start) * np.cos(angle) + (z - 24) * np.sin(angle)
        volume += strength * np.exp(-(detector**2) / 2)[:, None]
    return volume


def test_streaks_of_the_outermost_tilts_are_told_from_noise_and_from_other_directions():
    assert abs(streak_energy_db(noise(), (-60, 60))) < 0.5
    for tilt in (60, -60):
        assert streak_energy_db(streaky(tilt), (-60, 60)) > 2
        assert streak_energy_db(streaky(tilt, 8), (-60, 60)) > streak_energy_db(streaky(tilt), (-60, 60)) + 1
    assert abs(streak_energy_db(streaky(0), (-60, 60))) < 0.5
    assert abs(streak_energy_db(streaky(60), (-40, 40))) < 1
    assert streak_energy_db(streaky(40), (-40, 40)) > 2
    assert streak_energy_db(3 * streaky(60) + 7, (-60, 60)) == pytest.approx(streak_energy_db(streaky(60), (-60, 60)))


def test_fewer_tilts_leave_more_streaks():
    shape = (48, 24, 96)
    specimen = torch.from_numpy(noise(shape, 3))
    found = []
    for step in (1.0, 3.0, 6.0):
        angles = tuple(np.arange(-60, 60.1, step))
        projector = make_projector(TiltGeometry(angles, shape[1:]), (shape[0], shape[2]))
        found.append(streak_energy_db(fbp(projector, projector.forward(specimen), "hamming").numpy(), (-60, 60)))
    assert found[0] < found[1] < found[2]


def test_a_volume_too_small_for_directions_has_no_streak_energy():
    assert np.isnan(streak_energy_db(noise((8, 8, 8)), (-60, 60)))
    assert measure(noise((8, 8, 8)), None, None, None).streak_db is None


def smooth(shape=(48, 40, 96), seed=1):
    import scipy.ndimage

    blobs = scipy.ndimage.gaussian_filter(noise(shape, seed), 3)
    return (blobs / blobs.std()).astype(np.float32)


def test_contrast_is_signal_over_noise_by_either_noise():
    assert contrast(noise()) == pytest.approx(0.06, abs=0.01)
    signal = smooth()
    for strength in (1.0, 4.0):
        halves = tuple(strength * signal + np.sqrt(2) * noise(seed=seed) for seed in (5, 6))
        by_halves = contrast(np.zeros(1), halves)
        assert by_halves == pytest.approx(strength * contrast(signal + noise(), None), rel=0.15)
        assert contrast((halves[0] + halves[1]) / 2) == pytest.approx(by_halves, rel=0.15)


def test_empty_slabs_are_those_without_structure():
    assert empty_slabs(noise()) == 1
    volume = noise() / 4
    volume[12:36] += smooth()[12:36]
    assert empty_slabs(volume) == pytest.approx(0.5, abs=0.13)
    clean = np.zeros((48, 40, 96), np.float32)
    clean[12:36] = smooth()[12:36]
    assert empty_slabs(clean) == pytest.approx(0.5, abs=0.13)


def test_halves_give_a_correlation_and_its_resolution():
    signal = smooth()
    first, second = (signal + 2 * noise(seed=seed) for seed in (5, 6))
    numbers = measure((first + second) / 2, (first, second), None, 10.0)
    assert 0.05 < numbers.fsc_mean < 0.9
    assert 20 < numbers.resolution < 200
    assert (numbers.resolution_unit, numbers.resolution_reached, numbers.noise_from) == ("Å", True, "halves")
    alone = measure(signal, None, None, None)
    assert (alone.fsc_mean, alone.resolution, alone.noise_from) == (None, None, "high frequencies")
    flat = np.ones_like(signal)
    assert measure(signal, (flat, flat), None, None).fsc_mean is None


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("keep_axis", [False, True])
def test_averaging_in_blocks_equals_averaging_at_once(axis, keep_axis, monkeypatch):
    data = noise((25, 33, 41))
    first = 1 if keep_axis else 4
    cut = data[slice(None) if keep_axis else slice(0, 24), 0:32, 0:40]
    expected = cut.reshape(25 if keep_axis else 6, first, 8, 4, 10, 4).mean(axis=(1, 3, 5))
    monkeypatch.setattr(samples, "BLOCK_BYTES", 4 * 41 * 33 * 9)
    found, bad = samples.averaged(data, 4, axis, keep_axis)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert bad == 0
    data[4, 5, 6], data[4, 5, 7] = np.nan, np.inf
    found, bad = samples.averaged(data, 4, axis, keep_axis)
    assert bad == 2
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, atol=0.6)


def test_volumes_are_reduced_to_the_size_that_is_promised():
    assert samples.reduction((100, 160, 160)) == 1
    assert samples.reduction((300, 1024, 1024)) == 7
    with pytest.raises(InputError, match="is this a tomogram"):
        samples.reduction((41, 4096, 4096))


def test_halves_are_known_by_their_names(tmp_path):
    volume = Volume(noise((8, 8, 8)), 10.0)
    names = [
        "a.mrc", "a_EVN.mrc", "a_ODD.mrc", "even_b.rec", "odd_b.rec", "rec_c_half1.mrc", "rec_c_half2.mrc",
        "d_Vol.mrc", "d_EVN_Vol.mrc", "d_ODD_Vol.mrc", "e.mrc", "e_odd.mrc", "oddity.mrc", "seven.mrc", "f g.mrc",
    ]  # fmt: skip
    for name in names:
        write_volume(tmp_path / name, volume, label="test")
    found = {c.name: c for c in find_candidates(tmp_path, None).candidates}
    assert set(found) == {"a", "b", "rec_c", "d_Vol", "e", "oddity", "seven", "f_g"}
    assert found["a"].path == Path("a.mrc")
    assert found["a"].halves == (Path("a_EVN.mrc"), Path("a_ODD.mrc"))
    assert found["b"].halves == (Path("even_b.rec"), Path("odd_b.rec"))
    assert found["rec_c"].halves == (Path("rec_c_half1.mrc"), Path("rec_c_half2.mrc"))
    assert found["d_Vol"].halves == (Path("d_EVN_Vol.mrc"), Path("d_ODD_Vol.mrc"))
    assert found["e"].halves is None
    assert found["e"].remark == "only its odd half is there"
    (tmp_path / "x").mkdir()
    write_volume(tmp_path / "x" / "rec.mrc", volume, label="test")
    assert [c.name for c in find_candidates(tmp_path, None, ("*/rec.mrc",)).candidates] == ["x_rec"]
    for pattern in ("../*.mrc", "/tmp/*.mrc", ""):
        with pytest.raises(SettingsError, match="must lie inside"):
            find_candidates(tmp_path, None, (pattern,))


def measured(name, flags=(), **numbers):
    volume = noise((8, 8, 8))
    sample = samples.Sample(volume, None, (8, 8, 8), 10.0, 1, None, 0, {})
    return Measured(Candidate(name, "tomogram", Path(f"{name}.mrc")), sample, Numbers(**numbers), flags)


def test_ranks_are_averaged_over_the_numbers_that_are_known():
    ranked = rank(
        [
            measured("worst", fsc_mean=0.1, streak_db=3.0),
            measured("best", fsc_mean=0.9, streak_db=0.0),
            measured("middle", fsc_mean=0.5, streak_db=1.0),
            measured("unknown", empty_fraction=0.1),
            measured("broken", flags=("all values are 0",), fsc_mean=1.0),
        ]
    )
    assert [r.measured.candidate.name for r in ranked] == ["best", "unknown", "middle", "worst", "broken"]
    assert [r.rank for r in ranked] == [1, 2, 3, 4, 5]
    assert ranked[-1].score == 0
    assert not ranked[-1].keep
    scores = {r.measured.candidate.name: r.score for r in ranked}
    assert scores["unknown"] == 0.5
    assert scores["best"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-4)


def test_contrasts_of_unlike_noise_are_not_compared():
    ranked = rank(
        [
            measured("a", contrast=1.0, noise_from="halves"),
            measured("b", contrast=2.0, noise_from="halves"),
            measured("c", contrast=50.0, noise_from="high frequencies"),
        ]
    )
    assert {r.measured.candidate.name: r.score for r in ranked} == {"a": 0.0, "b": 1.0, "c": 0.5}


def test_thresholds_name_the_reason():
    limits = dataclasses.asdict(Thresholds())
    good = {"fsc_mean": 0.5, "streak_db": 1.0, "contrast": 1.0, "empty_fraction": 0.2}
    bad = {"fsc_mean": 0.01, "streak_db": 9.0, "contrast": 0.06, "empty_fraction": 1.0}
    assert rank([measured("a", **good)])[0].keep
    for name, value in bad.items():
        (one,) = rank([measured("a", **{**good, name: value})])
        assert len(one.reasons) == 1
        assert f"{limits[name]:g}" in one.reasons[0]


def choices(*kept, **changes):
    template = read_manifest(SHIPPED).model_dump(mode="json", exclude_defaults=True)
    names = ["tomo_001", "tomo_002", "tomo_018"]
    plain = {
        "format": "cryolithe-curate",
        "version": 1,
        "folder": "/copy",
        "manifest": template,
        "candidates": [{"name": n, "keep": n in kept, "comment": f" {n}: good "} for n in names],
    }
    return Choices.model_validate({**plain, **changes})


def test_choices_become_the_manifest_with_what_is_kept_in_its_order():
    made = chosen_manifest(choices("tomo_018", "tomo_001"))
    assert [pair.name for pair in made.pairs] == ["tomo_001", "tomo_018"]
    assert made.pairs[0].note == "tomo_001: good"
    shipped = read_manifest(SHIPPED)
    assert made.model_copy(update={"pairs": shipped.pairs}) == shipped


def test_choices_that_make_no_manifest():
    with pytest.raises(SettingsError, match="none of 3 candidates is kept"):
        chosen_manifest(choices())
    with pytest.raises(SettingsError, match="pairs of no manifest"):
        chosen_manifest(choices("tomo_001", manifest=None))
    with pytest.raises(SettingsError, match=r"no pair 'tomo_00l' \(did you mean"):
        chosen_manifest(choices(candidates=[{"name": "tomo_00l", "keep": True}]))
    with pytest.raises(SettingsError, match="twice"):
        chosen_manifest(choices(candidates=[{"name": "tomo_001", "keep": True}] * 2))
    with pytest.raises(SettingsError, match="damaged: accession"):
        chosen_manifest(choices("tomo_001", manifest={**json.loads("{}"), "files": {}}))


def test_an_unknown_kind_of_folder():
    with pytest.raises(InputError, match="is no folder"):
        find_candidates(Path("/nowhere/at/all"), None)
    assert Collection(Path(), ()).manifest is None


@pytest.mark.parametrize(("names", "kind"), [(("A.H5", "b.h5"), "pair"), (("A.MRC", "b.Rec"), "tomogram")])
def test_endings_in_capitals_are_found(names, kind, tmp_path):
    for name in names:
        (tmp_path / name).touch()
    found = find_candidates(tmp_path, None).candidates
    assert [(one.name, one.kind, one.path.name) for one in found] == [("A", kind, names[0]), ("b", kind, names[1])]
    assert [one.path.name for one in find_candidates(tmp_path, None, (f"A.{names[0][2:]}",)).candidates] == [names[0]]
