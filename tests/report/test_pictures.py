"""What pictures say of themselves, and that dense matter is dark in all of them."""

import numpy as np
import pytest
from command import good
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tiny_series import made, voxels, write_series

from cryolithe.denoising.figures import plot_sweep
from cryolithe.evaluation.drawing import reduced
from cryolithe.evaluation.particle_figure import _fullest_slab, _missed
from cryolithe.report.figures import plot_central_slices, plot_contact_sheet
from cryolithe.report.greys import dark_sign, grey_scale, to_grey, told_polarity
from cryolithe.simulation.imaging_recipe import ImagingRecipe

FBP = ("--method", "fbp", "--thickness", 12)


@pytest.fixture
def said(monkeypatch):
    """All text of the figures that are saved, and the greys that are drawn."""
    words, greys = [], []
    save, show = Figure.savefig, Axes.imshow

    def record(figure, *arguments, **options):
        words.extend(t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")))
        return save(figure, *arguments, **options)

    def look(axes, values, **options):
        greys.append(np.asarray(values))
        return show(axes, values, **options)

    monkeypatch.setattr(Figure, "savefig", record)
    monkeypatch.setattr(Axes, "imshow", look)
    return words, greys


@pytest.mark.slow
@pytest.mark.parametrize("contrast", ["dark", "bright"])
def test_a_preview_says_method_model_and_voxel_size_and_shows_dense_matter_dark(tmp_path, said, contrast):
    words, greys = said
    made(*write_series(tmp_path), *FBP, "--preview", "--contrast", contrast)
    told = {"dark": "dense matter dark", "bright": "dense matter drawn dark (bright in the volume)"}[contrast]
    assert f"fbp · 5 Å per voxel · {told}" in " ".join(" ".join(words).split())
    volume = dark_sign(contrast) * voxels(tmp_path / "ts_rec.mrc")
    z, y, x = (n // 2 for n in volume.shape)
    sections = [volume[z], volume[:, y], volume[:, :, x]]
    scale = grey_scale(sections)
    for grey, section in zip(greys, sections, strict=True):
        np.testing.assert_allclose(grey, to_grey(section, scale), atol=1e-5)


@pytest.mark.slow
def test_a_preview_of_a_network_names_its_model(tmp_path, said):
    made(*write_series(tmp_path), "--thickness", 12, "--model", "draft", "--preview")
    text = " ".join(" ".join(said[0]).split())
    assert "network, model draft · 5 Å per voxel" in text


def test_polarity_is_told_only_where_it_is_known():
    assert told_polarity("dark") == "dense matter dark"
    assert told_polarity("bright") == "dense matter drawn dark (bright in the volume)"
    assert "as stored" in told_polarity(None)
    assert (dark_sign("bright"), dark_sign("dark"), dark_sign(None)) == (-1.0, 1.0, 1.0)


def test_a_long_title_and_a_long_caption_stay_within_the_picture(tmp_path, monkeypatch):
    boxes = []
    save = Figure.savefig

    def record(figure, *arguments, **options):
        save(figure, *arguments, **options)
        drawn = [a for a in figure.findobj(lambda artist: hasattr(artist, "get_text")) if a.get_text()]
        boxes.extend((a.get_text(), a.get_window_extent(), figure.bbox) for a in drawn)

    monkeypatch.setattr(Figure, "savefig", record)
    volume = np.random.default_rng(0).standard_normal((20, 40, 40))
    panels = [("x" * 90, volume), ("short", volume)]
    plot_central_slices(tmp_path / "a.png", panels, 10.0, caption="words of a caption, " * 12)
    plot_central_slices(tmp_path / "b.png", panels[:1], None, caption="words of a caption, " * 12)
    assert len(boxes) > 6
    for text, box, page in boxes:
        assert page.x0 <= box.x0, text
        assert box.x1 <= page.x1, text
        assert page.y0 <= box.y0, text
        assert box.y1 <= page.y1, text


def test_volumes_in_one_scale_are_drawn_by_it(tmp_path, said):
    truth = np.random.default_rng(0).standard_normal((12, 24, 24))
    scale = grey_scale([truth[6], truth[:, 12]])
    plot_central_slices(tmp_path / "a.png", [("half", 0.5 * truth), ("truth", truth)], scale=scale)
    greys = said[1]
    assert len(greys) == 4
    np.testing.assert_allclose(greys[0], to_grey(0.5 * truth[6], scale), atol=1e-6)
    np.testing.assert_allclose(greys[3], to_grey(truth[:, 12], scale), atol=1e-6)


def test_a_contact_sheet_says_what_belongs_to_each_image(tmp_path, said):
    images = np.random.default_rng(0).standard_normal((5, 16, 16))
    facts = [f"fact {n}" for n in range(5)]
    volume = np.zeros((8, 16, 16))
    plot_contact_sheet(tmp_path / "s.png", images, (-60, -30, 0, 30, 60), {"truth": volume}, 10.0, "the caption", facts)
    words = said[0]
    assert "the caption" in words
    assert [w for w in words if w.startswith("tilt ")] == [
        "tilt -60.0°\nfact 0",
        "tilt 0.0°\nfact 2",
        "tilt 60.0°\nfact 4",
    ]


@pytest.mark.slow
def test_the_contact_sheet_of_a_simulated_series_says_dose_defocus_and_pixel_size(tmp_path, said):
    assert ImagingRecipe().noise != "white"
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        "procedural: 1\n"
        "cell: {shape: [16, 32, 32], voxel_size_angstrom: [10, 10], thickness_nm: [14, 16], crowding: [0.0, 0.01]}\n"
        "imaging:\n"
        "  scheme: {kinds: [dose-symmetric], reach_deg: [60, 60], step_deg: [30, 30]}\n"
        "  total_exposure: [100, 100]\n"
    )
    good("simulate", recipe, "-o", tmp_path / "out")
    text = "\n".join(said[0])
    for part in ("TS_001: 5 tilts, -60 to 60°", "100 e/Å² in all", "µm on average", "10 Å pixels", "dense matter dark"):
        assert part in text
    assert "tilt 0.0°\n20.0 e/Å² after 0, defocus" in text


def test_the_slab_with_most_particles_is_shown_and_what_was_missed_in_it():
    assert _fullest_slab(np.array([3.0, 40.0, 41.0, 44.0]), 64, 10.0) == (34, 45)
    low, high = _fullest_slab(np.array([63.0]), 64, 10.0)
    assert low < 63 < high == 64
    known, hits = np.array([[5.0, 5, 5], [5, 20, 20]]), np.array([[5.0, 6, 5]])
    assert _missed(known, hits, 3.0).tolist() == [[5, 20, 20]]
    assert _missed(known, hits[:0], 3.0).tolist() == known.tolist()


@pytest.mark.parametrize(("contrast", "sign"), [("dark", 1), ("bright", -1), (None, 1)])
def test_denoising_with_several_gaps_is_drawn_with_dense_matter_dark(tmp_path, said, contrast, sign):
    words, greys = said
    rng = np.random.default_rng(1)
    planes, sections = rng.standard_normal((2, 24, 32)), rng.standard_normal((2, 12, 32))
    panels = [("input", planes[0]), ("Lmax 4", planes[1])]
    plot_sweep(tmp_path / "sweep.png", panels, list(np.abs(planes)), 10.0, list(sections), contrast)
    assert told_polarity(contrast) in words
    for part in (*planes, *sections):
        wanted = to_grey(sign * part, grey_scale([sign * part]))
        assert any(grey.shape == part.shape and np.allclose(grey, wanted, atol=1e-5) for grey in greys)


@pytest.mark.parametrize("shape", [(3, 2000), (2000, 3), (641, 1300), (5, 7), (1, 1)])
def test_an_image_that_is_too_large_for_a_figure_keeps_its_mean(shape):
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    small = reduced(image)
    assert max(small.shape) <= 650
    assert min(small.shape) >= 1
    step = -(-max(shape) // 640)
    whole = tuple(slice(n - n % min(step, n)) for n in shape)
    assert small.mean() == pytest.approx(image[whole].mean(), abs=1e-5)
    assert not np.shares_memory(small, image)
