"""The widget of napari: reconstruct a block about the cursor. Needs napari and Qt; the work itself is in `block`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer, Points
from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QWidget,
)

from cryolithe.errors import CryoLitheError
from cryolithe.models import bundled_models, user_models
from cryolithe.viewer.block import Prepared, Wanted, block_layers
from cryolithe.viewer.images import LayerData

if TYPE_CHECKING:
    from napari.viewer import Viewer

_METHODS = ("network", "fbp", "sirt")
_MOST_PX = 4096


class _StoppedError(Exception):
    """The user pressed Stop."""


class _Told(QObject):
    """A watcher whose words cross from the thread of the work to that of the window."""

    stage_began = Signal(str)
    share_done = Signal(int)
    noted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False
        self._total, self._done = 1.0, 0.0

    def stage(self, name: str, total: float) -> None:
        """See `cryolithe.work.watcher.Watcher`."""
        self._look()
        self._total, self._done = max(total, 1e-9), 0.0
        self.stage_began.emit(name)
        self.share_done.emit(0)

    def advance(self, amount: float) -> None:
        """See `cryolithe.work.watcher.Watcher`."""
        self._look()
        self._done += amount
        self.share_done.emit(min(100, int(100 * self._done / self._total)))

    def note(self, text: str) -> None:
        """See `cryolithe.work.watcher.Watcher`."""
        self.noted.emit(text)

    def _look(self) -> None:
        if self.stopped:
            raise _StoppedError


class BlockWidget(QWidget):
    """Files, method, model and size; a button that makes the block about the point that was looked at last."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._prepared = Prepared()
        self._worker: Any = None
        self._told: _Told | None = None
        form = QFormLayout(self)
        self.tilts, self.angles = QLineEdit(), QLineEdit()
        self.angles.setPlaceholderText("those beside the stack")
        form.addRow("Tilt stack", self._with_button(self.tilts, "Tilt stack (*.mrc *.mrcs *.st *.ali)"))
        form.addRow("Angles", self._with_button(self.angles, "Tilt angles (*.tlt *.rawtlt *.mdoc *.txt)"))
        self.method, self.model = QComboBox(), QComboBox()
        self.method.addItems(_METHODS)
        self.model.setEditable(True)
        self.model.addItems(list(dict.fromkeys([*bundled_models(), *user_models()])))
        self.model.setCurrentText("default")
        self.method.currentTextChanged.connect(lambda name: self.model.setEnabled(name == "network"))
        form.addRow("Method", self.method)
        form.addRow("Model", self.model)
        self.thickness, self.bin = _number(0, 0), _number(0, 0)
        self.thickness.setSpecialValueText("half the width")
        self.bin.setSpecialValueText("1")
        form.addRow("Thickness (voxels)", self.thickness)
        form.addRow("Binning", self.bin)
        sizes, self.size = QHBoxLayout(), [_number(64, 1) for _ in range(3)]
        for box in self.size:
            sizes.addWidget(box)
        form.addRow("Block z, y, x", sizes)
        self.go, self.stop = QPushButton("Reconstruct the block"), QPushButton("Stop")
        self.stop.setEnabled(False)
        self.go.clicked.connect(self.start)
        self.stop.clicked.connect(self._stop)
        buttons = QHBoxLayout()
        buttons.addWidget(self.go)
        buttons.addWidget(self.stop)
        form.addRow(buttons)
        self.progress, self.words = QProgressBar(), QLabel("About the selected point, else where the slices stand.")
        self.words.setWordWrap(True)
        form.addRow(self.progress)
        form.addRow(self.words)
        self._viewer.layers.selection.events.changed.connect(self._take_stack)
        self._take_stack()

    def wanted(self) -> Wanted:
        """What the fields ask for, at the point that is looked at.

        Raises:
            CryoLitheError: if no stack is chosen.
        """
        if not self.tilts.text():
            raise CryoLitheError("choose a stack of tilt images first, or select its layer")
        tilts = Path(self.tilts.text())
        angles = Path(self.angles.text()) if self.angles.text() else _angles_of(tilts)
        method = self.method.currentText()
        settings: dict[str, Any] = {"method": method, "thickness": self.thickness.value() or None}
        settings["bin"] = self.bin.value() or None
        if method == "network":
            settings["model"] = self.model.currentText()
        z, y, x = (box.value() for box in self.size)
        return Wanted(tilts, angles, settings, (z, y, x), self.point())

    def point(self) -> tuple[float, float, float] | None:
        """The place in the volume, ``(z, y, x)`` in Å: the selected point, else where the slices stand.

        None, the middle, where no volume is shown: the position in a stack of tilt images is no place in a volume.
        """
        for layer in self._viewer.layers.selection:
            if isinstance(layer, Points) and layer.selected_data and layer.ndim == 3 and not _is_stack(layer):
                at = layer.data_to_world(layer.data[next(iter(layer.selected_data))])
                return float(at[0]), float(at[1]), float(at[2])
        volumes = [layer for layer in self._viewer.layers if isinstance(layer, Image) and layer.ndim == 3]
        if not any(layer.visible and not _is_stack(layer) for layer in volumes):
            return None
        position = list(self._viewer.dims.point)[-3:]
        # In the plane that is shown the sliders say nothing: there it is the middle of what is seen.
        centre = getattr(self._viewer, "scene", self._viewer).camera.center  # napari 0.9 gave it another place
        for axis, value in zip(self._viewer.dims.displayed, centre[-len(self._viewer.dims.displayed) :], strict=True):
            position[axis - self._viewer.dims.ndim + 3] = value
        z, y, x = position
        return float(z), float(y), float(x)

    def start(self) -> None:
        """Begin the work in a thread of its own."""
        try:
            wanted = self.wanted()
        except CryoLitheError as error:
            self.words.setText(str(error))
            return
        self._told = _Told()
        self._told.stage_began.connect(self.words.setText)
        self._told.share_done.connect(self.progress.setValue)
        self._told.noted.connect(self.setToolTip)
        self._busy(True)
        worker = create_worker(block_layers, wanted, self._prepared, self._told, _ignore_errors=True)
        worker.returned.connect(self._show)
        worker.errored.connect(self._failed)
        worker.finished.connect(lambda: self._busy(False))
        self._worker = worker
        worker.start()

    def _show(self, layers: list[LayerData]) -> None:
        for data in layers:
            self._viewer.add_layer(Layer.create(*data))
        self.words.setText(f"{layers[-1][1]['name']}: made; the layer below it is FBP of the same block.")

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, _StoppedError):
            self.words.setText("Stopped.")
        elif isinstance(error, CryoLitheError):
            self.words.setText(str(error))
        else:
            self.words.setText(f"{type(error).__name__}: {error}")

    def _stop(self) -> None:
        if self._told is not None:
            self._told.stopped = True

    def _busy(self, busy: bool) -> None:
        self.go.setEnabled(not busy)
        self.stop.setEnabled(busy)

    def _take_stack(self, event: object = None) -> None:
        """Fill in the stack whose layer is selected, with its angles."""
        for layer in self._viewer.layers.selection:
            told = layer.metadata.get("cryolithe", {})
            if "tilt_angles_deg" in told:
                self.tilts.setText(told["file"])
                self.angles.setText(told["angles_file"] or "")

    def _with_button(self, line: QLineEdit, kinds: str) -> QWidget:
        def choose() -> None:
            name, _ = QFileDialog.getOpenFileName(self, "Choose a file", line.text(), f"{kinds};;All files (*)")
            if name:
                line.setText(name)

        row, button = QWidget(), QPushButton("…")
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        button.clicked.connect(choose)
        layout.addWidget(line)
        layout.addWidget(button)
        return row

    def closeEvent(self, event: Any) -> None:  # noqa: N802 (Qt's name)
        """Stop, and remove the prepared images."""
        self._stop()
        if self._worker is None or not self._worker.is_running:
            self._prepared.close()
        super().closeEvent(event)


def _number(value: int, least: int) -> QSpinBox:
    box = QSpinBox()
    box.setRange(least, _MOST_PX)
    box.setValue(value)
    return box


def _is_stack(layer: Any) -> bool:
    return tuple(layer.axis_labels)[:1] == ("tilt",)


def _angles_of(tilts: Path) -> Path | None:
    from cryolithe.formats.volumes.volume_file import open_volume_file
    from cryolithe.formats.volumes.volume_kind import Seen, angles_beside

    return angles_beside(Seen(tilts, open_volume_file(tilts).shape)) if tilts.is_file() else None
