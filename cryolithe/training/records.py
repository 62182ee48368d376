"""What a run leaves to look at: CSV files, TensorBoard where it is installed, a PNG summary at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolithe.formats.files import replacing
from cryolithe.network import BlockHead
from cryolithe.optimise.tables import Events, Table
from cryolithe.projector.classical import fbp_of_images
from cryolithe.report.figures import draw_section
from cryolithe.report.greys import DENSE_DARK, grey_scale, to_grey
from cryolithe.training.class_scoring import SUMMARY
from cryolithe.training.validation import Example, Verdict

STEP_FIELDS = ("step", "seconds", "loss", "learning_rate", "gradient_norm")


def validation_fields(head: BlockHead) -> tuple[str, ...]:
    """Columns of the table of validations."""
    bands = (f"band_{name}" for name in head.band_names)
    return ("step", "example", "loss", "snr_db", "fsc_measured", "fsc_missing", *bands, *SUMMARY)


def log_validation(
    board: Events, step: int, verdicts: Sequence[Verdict], head: BlockHead, volumes: Sequence[NDArray[np.float32]]
) -> None:
    """Scores of each example, errors by band and central slices, for TensorBoard."""
    if board.writer is None:
        return
    for verdict in verdicts:
        for name in ("loss", "snr_db", "fsc_measured", "fsc_missing"):
            board.writer.add_scalar(f"{verdict.name}/{name}", getattr(verdict, name), step)
        for name, value in zip(head.band_names, verdict.bands, strict=True):
            board.writer.add_scalar(f"bands of {verdict.name}/{name}", value, step)
    for verdict, volume in zip(verdicts, volumes, strict=True):
        board.writer.add_image(verdict.name, to_grey(-volume[volume.shape[0] // 2])[None], step)


def plot_summary(
    path: Path, steps: Table, validations: Table, examples: Sequence[Example], volumes: Sequence[NDArray[np.float32]]
) -> None:
    """Loss, validation scores, and slices of truth, network and FBP of up to two examples.

    Args:
        path: PNG to write.
        steps: the training's table.
        validations: its validations.
        examples: the validation set.
        volumes: the network's volumes of the examples.

    Raises:
        OutputError: if the file cannot be written.
    """
    from matplotlib.figure import Figure

    shown = list(zip(examples, volumes, strict=False))[:2]
    figure = Figure(figsize=(12, 3.2 + 5.2 * len(shown)), dpi=100, layout="constrained")
    grid = figure.add_gridspec(1 + 2 * len(shown), 3)
    curve = figure.add_subplot(grid[0, 0])
    rows = steps.rows()
    curve.semilogy([int(r["step"]) for r in rows], [max(float(r["loss"]), 1e-12) for r in rows], lw=1)
    curve.set(title="training loss", xlabel="step")
    scores = validations.rows()
    for column, (key, title) in enumerate((("snr_db", "validation SNR, dB"), ("fsc_missing", "validation FSC")), 1):
        axes = figure.add_subplot(grid[0, column])
        for name in dict.fromkeys(row["example"] for row in scores):
            own = [row for row in scores if row["example"] == name]
            at = [int(row["step"]) for row in own]
            axes.plot(at, [float(row[key]) for row in own], ".--" if key == "fsc_missing" else ".-", label=name)
            if key == "fsc_missing":
                axes.plot(at, [float(row["fsc_measured"]) for row in own], ".-", color=axes.lines[-1].get_color())
        axes.set(title=title + (" (dashed: missing wedge)" if key == "fsc_missing" else ""), xlabel="step")
        if scores:
            axes.legend(fontsize=7)
    for number, (example, volume) in enumerate(shown):
        back = fbp_of_images(example.images, example.angles_deg, len(example.truth))
        panels = (("truth", example.truth), ("network", volume), ("FBP", back))
        for column, (title, values) in enumerate(panels):
            # In training dense matter is positive.
            slices = (("XY", -values[values.shape[0] // 2]), ("XZ", -values[:, values.shape[1] // 2]))
            scale = grey_scale(image for _, image in slices)
            for row, (view, image) in enumerate(slices):
                axes = figure.add_subplot(grid[1 + 2 * number + row, column])
                draw_section(axes, image, scale)
                axes.set(xticks=[], yticks=[], title=f"{title}, {example.name}, {view} ({DENSE_DARK})")
    with replacing(path, overwrite=True) as temporary:
        figure.savefig(temporary, format="png")
