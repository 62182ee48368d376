"""From densities to greys: membranes and proteins both show, by the same rule in every picture."""

from __future__ import annotations

import base64
import importlib
import io
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from command import good
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from PIL import Image
from scipy.ndimage import gaussian_filter
from tiny_series import made, voxels, write_series

from cryolithe.denoising.figures import plot_report, plot_sweep
from cryolithe.denoising.guard import examine
from cryolithe.formats import write_volume
from cryolithe.optimise.tables import Table
from cryolithe.report.figures import plot_central_slices, plot_contact_sheet
from cryolithe.report.greys import grey_scale, to_grey
from cryolithe.training.records import plot_summary
from cryolithe.training.validation import Example
from cryolithe.volume import Volume

ROOT = Path(__file__).resolve().parents[2]
LEVELS = 255
FBP = ("--method", "fbp", "--thickness", 24)


def vesicle(side, noise=0.0, protein=0.0, bead=0.0, crystal=0.0, seed=0):
    """A section, dense dark, of a bilayer of density 1 in ice, and where its leaflets, proteins and ice are."""
    y, x = np.mgrid[:side, :side].astype(float)
    radius, scale = np.hypot(y - 0.6 * side, x - 0.55 * side), side / 128
    leaflets = (abs(radius - 28 * scale - 2) < 1.2) | (abs(radius - 28 * scale + 2) < 1.2)
    density = leaflets - 0.3 * (abs(radius - 28 * scale) < 0.8)
    proteins = np.zeros((side, side), dtype=bool)
    for up, right in ((0.2, 0.6), (0.3, 0.85), (0.85, 0.15)):
        proteins |= np.hypot(y - up * side, x - right * side) < 5
    if protein:
        density[proteins] = protein
    if crystal:
        density[: round(0.35 * side), : round(0.4 * side)] = crystal
    if bead:
        density[np.hypot(y - 8, x - 8) < 5] = bead
    ice = (radius > 28 * scale + 8) & (radius < 28 * scale + 12) & ~proteins
    drawn = gaussian_filter(density, 0.7) + noise * np.random.default_rng(seed).standard_normal(density.shape)
    return -drawn.astype(np.float32), leaflets, proteins, ice


def levels(section, *places):
    """The median grey of some places, 0 to 255."""
    grey = to_grey(section)
    return [LEVELS * float(np.median(grey[place])) for place in places]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 99),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    exponent=st.integers(-30, 30),
    offset=st.sampled_from([0.0, 1.0, -300.0, 1e4]),
)
def test_a_factor_and_an_offset_change_no_picture(seed, shape, exponent, offset):
    rng = np.random.default_rng(seed)
    section = np.rint(50 * rng.standard_t(2, shape))  # heavy tails, and numbers that survive an offset
    changed = (section + offset) * 10.0**exponent
    assert np.abs(to_grey(section) - to_grey(changed)).max() < 1e-4
    np.testing.assert_allclose(to_grey(-section), 1 - to_grey(section), atol=1e-6)


@pytest.mark.parametrize("noise", [0, 0.3, 1])
def test_larger_values_are_never_darker_and_twice_as_dense_is_darker(noise):
    section, *_ = vesicle(96, noise, protein=3, bead=20)
    order = np.argsort(section.ravel())
    grey = to_grey(section).ravel()[order]
    assert (np.diff(grey) >= 0).all()
    assert grey[0] < 0.05
    assert ((grey >= 0) & (grey <= 1)).all()
    scale = grey_scale([section])
    steps = to_grey(-np.array([[0, 0.25, 0.5, 1, 2, 4]]) * scale.spread * scale.unit, scale)[0]
    assert (np.diff(steps) * LEVELS < -6).all()


@pytest.mark.parametrize("noise", [0, 0.02, 0.3])
@pytest.mark.parametrize("side", [64, 128, 256, 384])
def test_gold_in_a_corner_leaves_a_membrane_as_grey_as_it_was(side, noise):
    alone, leaflets, _, ice = vesicle(side, noise)
    beside, *_ = vesicle(side, noise, bead=50)
    before, after = (levels(section, leaflets, ice) for section in (alone, beside))
    assert np.abs(np.subtract(before, after)).max() < 16, (before, after)


@pytest.mark.parametrize("noise", [0, 0.02, 0.3])
@pytest.mark.parametrize("side", [96, 128, 256, 384])
@pytest.mark.parametrize("beside", [{}, {"bead": 50}])
def test_a_bilayer_and_a_protein_four_times_as_dense_both_show(side, noise, beside):
    section, leaflets, proteins, ice = vesicle(side, noise, protein=4, **beside)
    membrane, protein, background = levels(section, leaflets, proteins, ice)
    assert background - membrane > 50
    assert membrane - protein > 30
    assert 100 < background < 220


@pytest.mark.parametrize("noise", [0, 0.02, 0.3])
@pytest.mark.parametrize("crystal", [4, 8, 20, 50])
def test_a_crystal_that_fills_a_seventh_does_not_hide_a_bilayer(crystal, noise):
    section, leaflets, _, ice = vesicle(128, noise, crystal=crystal)
    membrane, background = levels(section, leaflets, ice)
    assert background - membrane > 40


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.6])
def test_the_layers_of_a_dense_specimen_show_and_so_do_faint_streaks_beside_it(share):
    """Like a milled needle in vacuum: layers of 70 and 100 in streaks of about 1."""
    streaks = gaussian_filter(np.random.default_rng(0).standard_normal((128, 128)), 2)
    section = streaks / streaks.std()
    half = round(64 * share)
    layers = [np.zeros((128, 128), dtype=bool) for _ in range(2)]
    layers[0][:64, 64 - half : 64 + half] = layers[1][64:, 64 - half : 64 + half] = True
    for layer, density in zip(layers, (70, 100), strict=True):
        section[layer] += density
    grey = LEVELS * to_grey(section)
    lighter, light, outside = (np.median(grey[place]) for place in (layers[1], layers[0], ~(layers[0] | layers[1])))
    assert lighter - light > 12
    assert light - outside > 60
    if 0.15 < share < 0.5:  # of less the edges are too much of it, and more is the background itself
        assert grey[~(layers[0] | layers[1])].std() > 8


def test_noise_fills_the_greys_and_is_not_torn_to_black_and_white():
    grey = to_grey(np.random.default_rng(0).standard_normal((200, 300)))
    assert 0.45 < np.median(grey) < 0.55
    assert 0.12 < grey.std() < 0.3
    assert np.mean((grey == 0) | (grey == 1)) < 1e-3


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "float16", "float32", "float64", "bool"])
@pytest.mark.parametrize("value", [0, 1, 7])
def test_an_even_section_is_evenly_grey(dtype, value):
    for shape in ((1, 1), (7, 3), (64, 65)):
        grey = to_grey(np.full(shape, value, dtype=dtype))
        assert grey.shape == shape
        assert grey.dtype == np.float32
        assert (grey == 0.5).all()


@pytest.mark.parametrize("values", [[0, 1], [1e-320, 3e-320], [-1.7e308, 1.7e308], [-(2**63), 2**62], [False, True]])
def test_numbers_at_the_ends_of_their_range_and_sections_of_a_line(values):
    for section in (np.array([values]), np.array([values]).T, np.repeat(np.array([values] * 20), 20, axis=1)):
        grey = to_grey(section)
        assert grey.min() < 0.5 < grey.max()
        assert grey.shape == section.shape


def test_what_is_no_number_is_as_grey_as_the_background_and_changes_nothing_else():
    section, *_ = vesicle(128, 0.1)
    scale = grey_scale([section])
    holes = section.copy()
    holes[::9, ::7] = np.nan
    holes[40:60, 90:110] = np.nan
    holes[5, 5], holes[6, 6] = np.inf, -np.inf
    lost = ~np.isfinite(holes)
    background = to_grey(np.full((1, 1), scale.background * scale.unit), scale)[0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grey = to_grey(holes)
        assert (to_grey(np.full((9, 9), np.nan)) == 0.5).all()
    assert np.abs(grey[lost] - background).max() < 0.03
    assert np.abs(grey - to_grey(section))[~lost].max() < 0.05


@pytest.mark.parametrize("value", [1e4, -1e4, 1e30, -3e38])
@pytest.mark.parametrize("noise", [0.1, 0])
def test_one_hot_voxel_changes_no_other_grey(value, noise):
    section, *_ = vesicle(128, noise)
    hot = section.copy()
    hot[100, 20] = value
    change = np.abs(to_grey(hot) - to_grey(section))
    change[100, 20] = 0
    assert change.max() < 0.02
    assert to_grey(hot)[100, 20] == (value > 0)
    flat = np.zeros((50, 50), dtype=np.float32)
    flat[10, 10] = value
    assert len(np.unique(to_grey(flat))) == 2


@pytest.mark.parametrize("fill", [0.0, 5.0, 1000.0])
@pytest.mark.parametrize("width", [3, 20, 37])
def test_a_border_of_one_value_leaves_the_inside_as_it_is(fill, width):
    section, *_ = vesicle(128, 0.3)
    inside = 100 + 10 * section
    framed = np.full((128 + 2 * width,) * 2, fill, dtype=np.float32)
    framed[width:-width, width:-width] = inside
    grey = to_grey(framed)[width:-width, width:-width]
    assert np.abs(grey - to_grey(inside)).max() < 0.08


def test_integers_are_as_grey_as_what_they_were_rounded_from():
    section, *_ = vesicle(128, 0.3, protein=2)
    whole = np.clip(np.rint(15 * section), -127, 127).astype(np.int8)
    assert np.abs(to_grey(whole) - to_grey(section)).max() < 0.06


def test_sections_on_one_scale_compare_and_each_alone_has_its_own():
    section, *_ = vesicle(96, 0.2)
    pair = [section, 3 * section]
    together = grey_scale(pair)
    assert np.abs(to_grey(pair[1], together) - 0.5).mean() > np.abs(to_grey(pair[0], together) - 0.5).mean()
    np.testing.assert_allclose(to_grey(pair[0]), to_grey(pair[1]), atol=1e-6)


# Every picture


def volume_of(side=40, seed=1):
    """A volume in which a window between percentiles would be filled by the crystal in its corner."""
    volume = gaussian_filter(np.random.default_rng(seed).standard_normal((side,) * 3), 1).astype(np.float32)
    volume[:, :5, :5] -= 20
    return volume


def sections_of(volume, views=3):
    z, y, x = (n // 2 for n in volume.shape)
    return [volume[z], volume[:, y], volume[:, :, x]][:views]


class Drawn(list):
    """What matplotlib was given to draw in grey, 0 black and 1 white."""

    def add(self, values, options):
        if options.get("cmap") == "gray" and (options["vmin"], options["vmax"]) == (0, 1):
            self.append(np.asarray(values))

    def holds(self, sections):
        """Whether these sections were drawn, on one scale of their own."""
        scale = grey_scale(sections)
        wanted = [to_grey(section, scale) for section in sections]
        return all(any(g.shape == w.shape and np.abs(g - w).max() < 1e-5 for g in self) for w in wanted)


@pytest.fixture
def drawn(monkeypatch):
    found = Drawn()
    imshow = Axes.imshow

    def record(axes, values, **options):
        found.add(values, options)
        return imshow(axes, values, **options)

    monkeypatch.setattr(Axes, "imshow", record)
    return found


def test_the_preview_of_a_reconstruction(tmp_path, drawn):
    made(*write_series(tmp_path), *FBP, "--preview")
    assert drawn.holds(sections_of(voxels(tmp_path / "ts_rec.mrc")))
    assert len(drawn) == 3


@pytest.mark.slow
def test_the_report_of_an_evaluation(tmp_path, drawn):
    volume, reference = volume_of(), volume_of(seed=2)
    for name, values in (("v", volume), ("r", reference)):
        write_volume(tmp_path / f"{name}.mrc", Volume(values, 10.0), label="test")
    words = ["evaluate", tmp_path / "v.mrc", "--reference", tmp_path / "r.mrc", "-o", tmp_path / "out"]
    good(*words, "--tilt-range", "-60,60")
    assert drawn.holds(sections_of(volume, 2))
    assert drawn.holds(sections_of(reference, 2)) or drawn.holds(sections_of(-reference, 2))


def test_the_slices_of_several_volumes_each_on_its_own_scale(tmp_path, drawn):
    volumes = [volume_of(), 1000 * volume_of(seed=2) + 7]
    plot_central_slices(tmp_path / "v.png", [("a", volumes[0]), ("b", volumes[1])], 10.0)
    assert all(drawn.holds(sections_of(volume)) for volume in volumes)


def test_the_contact_sheet_of_a_simulated_series(tmp_path, drawn):
    images, volume = volume_of(seed=3), volume_of()
    plot_contact_sheet(tmp_path / "c.png", images, np.linspace(-60, 60, len(images)), {"truth": volume})
    assert drawn.holds(sections_of(volume, 2))
    assert drawn.holds(images[:1])
    assert drawn.holds(images[-1:])


@pytest.mark.slow
def test_the_summary_of_a_training(tmp_path, drawn):
    volume, truth, images = volume_of(), volume_of(seed=2), volume_of(seed=3)
    example = Example("e", images, tuple(np.linspace(-60, 60, len(images)).tolist()), truth)
    steps = Table(tmp_path / "s.csv", ("step", "loss"), 0)
    steps.add([1, 1.0])
    table = Table(tmp_path / "v.csv", ("step", "example", "snr_db", "fsc_missing", "fsc_measured"), 0)
    plot_summary(tmp_path / "summary.png", steps, table, [example], [volume])
    assert drawn.holds(sections_of(-volume, 2))  # dense matter is positive in training, and dark in pictures
    assert drawn.holds(sections_of(-truth, 2))
    assert len(drawn) == 6


@pytest.mark.slow
def test_the_pictures_of_a_denoising(tmp_path, drawn):
    before, after = volume_of(), volume_of(seed=2)
    plot_report(tmp_path / "report.png", before, after, examine(before, after), 10.0)
    for shown in (before, after, before - after):
        assert drawn.holds(sections_of(shown, 2))
    planes = [before[3], after[3], 0.5 * after[4]]
    plot_sweep(tmp_path / "sweep.png", [(str(n), p) for n, p in enumerate(planes)], planes, 10.0)
    assert drawn.holds(planes[:1])
    assert drawn.holds(planes[1:])


def test_the_contact_sheet_of_a_curation(tmp_path):
    volume = volume_of(64)
    write_volume(tmp_path / "v.mrc", Volume(volume, 10.0), label="test")
    good("pairs", "curate", tmp_path, "-o", tmp_path / "sheet")
    found = re.findall(
        r'src="data:image/jpeg;base64,([^"]+)"', (tmp_path / "sheet" / "curate.html").read_text(encoding="utf-8")
    )
    sections = sections_of(volume, 2)
    assert len(found) == len(sections)
    scale = grey_scale(sections)
    for data, section in zip(found, sections, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            seen = np.asarray(image.convert("L"), dtype=float)
        wanted = LEVELS * to_grey(section[::-1], scale)
        assert seen.shape == wanted.shape
        assert np.abs(seen - wanted).mean() < 8  # what JPEG loses of noise


def test_the_sheets_of_the_benchmarks(tmp_path, drawn, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sheets = importlib.import_module("parts.sheets")
    volumes = {"a": volume_of(), "b": volume_of(seed=2)}
    sheets.draw_sheet(tmp_path / "s.png", volumes, 10.0, (-60.0, 60.0))
    assert all(drawn.holds(sections_of(volume, 2)) for volume in volumes.values())


def test_nothing_else_chooses_greys():
    """Whatever draws in grey takes its greys from the module, but for power spectra, which are logarithms."""
    drawn = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count('cmap="gray"')
        for folder in ("cryolithe", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {path: count for path, count in drawn.items() if count} == {
        "cryolithe/report/figures.py": 1,
        "cryolithe/curation/sheet.py": 1,
        "benchmarks/parts/sheets.py": 1,
    }
