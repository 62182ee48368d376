"""The plugin in napari itself, without a screen; skipped where napari is not installed (`cryolithe[napari]`)."""

from __future__ import annotations

import importlib.util
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from test_outputs import beads
from tiny_series import ANGLES, made, voxels, write_model, write_series

import cryolithe
from cryolithe.formats.particles.star import Particle, write_particles
from cryolithe.viewer.reader import get_reader

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed"),
    pytest.mark.filterwarnings("default"),  # those of napari and Qt are theirs
    pytest.mark.slow,
]
FBP = ("--method", "fbp", "--thickness", 24)


@pytest.fixture
def viewer(monkeypatch, tmp_path):
    """Napari's model of a viewer: layers and sliders, without the window, which needs OpenGL."""
    if "DISPLAY" not in os.environ:
        monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "napari.yaml"))
    pytest.importorskip("qtpy.QtWidgets")
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QApplication

    application = QApplication.instance() or QApplication([])
    viewer = ViewerModel()
    yield viewer
    application.processEvents()


def show(viewer, path):
    from napari.layers import Layer

    for data in get_reader(str(path))(str(path)):
        viewer.add_layer(Layer.create(*data))


def test_napari_takes_every_layer(viewer, tmp_path):
    stack, tlt = write_series(tmp_path, beads())
    made(stack, tlt, *FBP)
    write_particles(
        tmp_path / "ts_particles.star", [Particle("ts", "bead", 1, (10.0, 20.0, 30.0), (0, 0, 0))], (24, 40, 48), 5.0
    )
    show(viewer, tmp_path / "ts_rec.mrc")
    show(viewer, tmp_path / "ts_particles.star")
    volume, particles = viewer.layers
    assert [str(unit) for unit in volume.units] == ["angstrom"] * 3
    assert volume.data_to_world((10, 20, 30)) == pytest.approx((50, 100, 150))
    assert particles.data_to_world(particles.data[0]) == pytest.approx((50, 100, 150))
    assert volume.contrast_limits[0] < np.median(volume.data) < volume.contrast_limits[1]
    viewer.layers.clear()
    show(viewer, stack)
    images, angles = viewer.layers
    assert images.data.shape[0] == len(ANGLES)
    assert list(angles.text.values) == [f"{angle:.1f}°" for angle in ANGLES]


def test_a_block_by_the_widget(viewer, tmp_path):
    from qtpy.QtCore import QThreadPool
    from qtpy.QtWidgets import QApplication

    from cryolithe.viewer.widget import BlockWidget

    stack, tlt = write_series(tmp_path, beads())
    model = write_model(tmp_path / "m.safetensors")
    made(stack, tlt, "--model", model, "--thickness", 24, "-o", tmp_path / "whole_rec.mrc")
    widget = BlockWidget(viewer)
    widget.start()
    assert "choose a stack" in widget.words.text()
    show(viewer, stack)
    viewer.layers.selection = {viewer.layers[0]}
    assert (widget.tilts.text(), widget.angles.text()) == (str(stack), str(tlt))
    assert widget.point() is None  # a place in a stack is none in a volume
    viewer.layers.clear()
    show(viewer, tmp_path / "whole_rec.mrc")
    viewer.dims.set_point(0, 50.0)
    getattr(viewer, "scene", viewer).camera.center = (0.0, 100.0, 150.0)
    assert widget.point() == pytest.approx((50.0, 100.0, 150.0), abs=2.6)
    widget.model.setCurrentText(str(model))
    widget.thickness.setValue(24)
    for box, size in zip(widget.size, (6, 8, 10), strict=True):
        box.setValue(size)
    ended = threading.Event()
    widget.start()
    widget._worker.finished.connect(ended.set)
    application = QApplication.instance()
    while not ended.is_set():
        application.processEvents()
        QThreadPool.globalInstance().waitForDone(20)
    application.processEvents()
    assert [layer.name for layer in viewer.layers][1:] == ["ts FBP", "ts m"], widget.words.text()
    block = viewer.layers[-1]
    first = np.rint(block.translate / 5).astype(int)
    part = voxels(tmp_path / "whole_rec.mrc")[tuple(slice(f, f + n) for f, n in zip(first, (6, 8, 10), strict=True))]
    assert np.abs(block.data - part).max() <= 1e-4 * np.abs(part).max()
    assert (np.abs(first + np.array((6, 8, 10)) / 2 - (10, 20, 30)) <= 1).all()
    widget.tilts.setText(str(tmp_path / "none.mrc"))
    ended.clear()
    widget.start()
    widget._worker.finished.connect(ended.set)
    while not ended.is_set():
        application.processEvents()
        QThreadPool.globalInstance().waitForDone(20)
    application.processEvents()
    assert "does not exist" in widget.words.text()
    widget.close()


def test_npe2_finds_reader_and_widget(tmp_path):
    npe2 = pytest.importorskip("npe2")
    stack, tlt = write_series(tmp_path, beads())
    made(stack, tlt, *FBP)
    manager = npe2.PluginManager()
    manager.register(npe2.PluginManifest.from_file(Path(cryolithe.__file__).parent / "viewer" / "napari.yaml"))
    found = [reader.command for reader in manager.iter_compatible_readers([str(tmp_path / "ts_rec.mrc")])]
    assert found == ["cryolithe.read"]
    manager.activate("cryolithe")
    reader = manager.commands.get("cryolithe.read")(str(tmp_path / "ts_rec.mrc"))
    assert reader(str(tmp_path / "ts_rec.mrc"))[0][1]["name"] == "ts_rec"
    assert manager.commands.get("cryolithe.block").__name__ == "BlockWidget"
