"""What is written can be read again, is complete, and needs no display."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cryolithe.errors import InputError, OutputError
from cryolithe.metrics import fourier_shell_correlation
from cryolithe.report.figures import plot_central_slices, plot_fsc
from cryolithe.report.json_files import write_json

PNG = b"\x89PNG"


@dataclass(frozen=True)
class Point:
    x: float
    label: str


def curve(seed=0, size=16):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((size, size, size))
    return fourier_shell_correlation(a, a + rng.standard_normal(a.shape), tilt_range_deg=(-60, 60))


def test_json_turns_numpy_and_dataclasses_into_plain_types(tmp_path):
    path = tmp_path / "out.json"
    write_json(
        path,
        {
            "z": np.float32(0.5),
            "a": (np.int64(3), True, None, np.bool_(False)),
            "grid": np.array([[1.0, np.nan], [np.inf, 2.0]]),
            "point": Point(float("nan"), "Å"),
            "path": Path("x") / "y",
        },
    )
    text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    assert found == {
        "z": 0.5,
        "a": [3, True, None, False],
        "grid": [[1.0, None], [None, 2.0]],
        "point": {"x": None, "label": "Å"},
        "path": str(Path("x") / "y"),
    }
    assert list(found) == ["z", "a", "grid", "point", "path"]
    assert text.endswith("}\n")


def test_json_replaces_whole_files_or_none(tmp_path):
    path = tmp_path / "out.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [object()])
    assert json.loads(path.read_text()) == [1]
    write_json(path, [2])
    assert json.loads(path.read_text()) == [2]
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    with pytest.raises(OutputError, match="cannot be written"):
        write_json(tmp_path / "nowhere" / "out.json", [])


@pytest.mark.slow
@pytest.mark.parametrize(("voxel_size", "title"), [(None, ""), (13.48, "halves"), (0.7, "fine")])
def test_fsc_plot_is_an_image(tmp_path, voxel_size, title):
    path = tmp_path / "fsc.png"
    plot_fsc(path, curve(), voxel_size, title, {"other": curve(1), "another": curve(2)})
    assert path.read_bytes().startswith(PNG)
    assert path.stat().st_size > 10_000


def test_the_suffix_chooses_the_format(tmp_path):
    plot_fsc(tmp_path / "fsc.svg", curve())
    assert "<svg" in (tmp_path / "fsc.svg").read_text(encoding="utf-8")
    with pytest.raises(OutputError, match="not as 'docx'"):
        plot_fsc(tmp_path / "fsc.docx", curve())
    with pytest.raises(OutputError, match="cannot be written"):
        plot_fsc(tmp_path / "nowhere" / "fsc.png", curve())
    assert [p.name for p in tmp_path.iterdir()] == ["fsc.svg"]


def test_slices_of_volumes_of_different_shapes_and_types(tmp_path):
    from matplotlib.image import imread

    rng = np.random.default_rng(0)
    panels = [
        ("float16", rng.standard_normal((12, 30, 40)).astype(np.float16)),
        ("int16", rng.integers(-99, 99, (20, 41, 33)).astype(np.int16)),
        ("constant", np.ones((5, 6, 7), dtype=np.float32)),
    ]
    path = tmp_path / "slices.png"
    plot_central_slices(path, panels, 13.48)
    image = imread(path)
    assert image.shape[1] > image.shape[0] > 300
    plot_central_slices(path, panels[:1])
    assert imread(path).shape != image.shape
    for unusable in ([], [("flat", np.zeros((3, 3)))]):
        with pytest.raises(InputError, match="slices need volumes"):
            plot_central_slices(path, unusable)


def test_neither_torch_nor_matplotlib_is_imported_before_a_figure_is_drawn():
    script = "import sys, cryolithe.report.figures; print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_figures_leave_the_global_state_alone(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot_fsc(tmp_path / "fsc.png", curve())
    assert dict(matplotlib.rcParams) == before
