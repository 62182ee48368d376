"""The command ``cryolithe fsc``, run in-process on small MRC files."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import mrcfile
import numpy as np
import pytest
from command import call, good, refusal_of
from plain_mrc import new_mrc

import cryolithe
from cryolithe.cli.fsc import parse_wedge
from cryolithe.errors import SettingsError
from cryolithe.formats import write_volume
from cryolithe.volume import Volume

SHAPE = (16, 18, 20)


def write(path, voxels, voxel_size=10.0):
    with new_mrc(path) as file:
        file.set_data(voxels.astype(np.float32))
        file.voxel_size = voxel_size
    return path


@pytest.fixture
def pair(tmp_path):
    rng = np.random.default_rng(0)
    signal = rng.standard_normal(SHAPE)
    return [write(tmp_path / f"{name}.mrc", signal + 0.5 * rng.standard_normal(SHAPE)) for name in ("a", "b")]


def run(*arguments):
    return call("fsc", *arguments)


def refused(*arguments):
    """Return the one line with which a command is refused."""
    result = run(*arguments)
    assert result.stdout == ""
    return refusal_of(result)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a, "the same but for their grey levels"),
        (lambda a: 3 * a + 100, "the same but for their grey levels"),
        (lambda a: np.rint(200 * a), "the same but for their grey levels"),
        (lambda a: -a, "of opposite contrast"),
        (lambda a: a + 0.3 * np.random.default_rng(5).standard_normal(a.shape), ""),
    ],
)
def test_copies_and_inverted_volumes_are_told(tmp_path, pair, change, said):
    with mrcfile.open(pair[0]) as file:
        other = write(tmp_path / "other.mrc", change(np.array(file.data, float)))
    result = good("fsc", pair[0], other)
    assert said in result.stderr
    assert bool(result.stderr) is bool(said)


def test_noise_is_neither_a_copy_nor_inverted(tmp_path):
    rng = np.random.default_rng(3)
    for _ in range(60):
        a, b = (write(tmp_path / f"{name}.mrc", rng.standard_normal((8, 8, 8))) for name in "ab")
        assert run(a, b).stderr == ""
        a.unlink()
        b.unlink()


def test_table_and_summary(pair):
    result = good("fsc", *pair)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["1/Å", "Å", "total"]
    assert len(lines) == 1 + 8 + 4  # heading, shells, and an empty line, the mean and two resolutions
    assert lines[1].split()[:2] == ["0.00625", "160.00"]
    assert lines[8].split()[:2] == ["0.05000", "20.00"]
    label, mean = lines[-3].split()
    assert label == "mean"
    assert float(mean) == pytest.approx(0.8, abs=0.05)  # S/(S+N) = 1/1.25
    assert lines[-2].split() == ["Å", "at", "0.5", "<20.00"]
    assert result.stderr == ""


@pytest.mark.slow
def test_wedge_adds_columns_and_files_are_written(pair, tmp_path):
    numbers, figure = tmp_path / "fsc.json", tmp_path / "fsc.png"
    result = good("fsc", *pair, "--wedge", "-51,60", "--json", numbers, "--plot", figure)
    assert result.stdout.splitlines()[0].split() == ["1/Å", "Å", "total", "measured", "wedge"]
    found = json.loads(numbers.read_text())
    assert found["tilt_range_deg"] == [-51, 60]
    assert found["voxel_size_angstrom"] == pytest.approx(10)
    assert found["shape_zyx"] == list(SHAPE)
    assert len(found["fsc"]["missing"]) == len(found["fsc"]["frequency_per_px"]) == 9
    assert set(found["mean"]) == {"total", "measured", "missing"}
    assert found["resolution"]["total"]["0.143"] == {"value": pytest.approx(20), "unit": "Å", "reached": False}
    assert figure.read_bytes().startswith(b"\x89PNG")

    for option, path in (("--json", numbers), ("--plot", figure)):
        before = path.read_bytes()
        assert f"exists; give --overwrite to replace it or another name with {option}" in refused(*pair, option, path)
        assert path.read_bytes() == before
    good("fsc", *pair, "--json", numbers, "--overwrite")
    assert json.loads(numbers.read_text())["tilt_range_deg"] is None
    assert "expected a name ending in .png or" in refused(*pair, "--plot", tmp_path / "fsc.docx")
    for option, name in (("--json", "fsc.json"), ("--plot", "fsc.png")):
        assert "does not exist; make it first" in refused(*pair, option, tmp_path / "nowhere" / name)


def test_voxel_size_unknown_given_or_in_one_file_only(pair, tmp_path):
    data = [mrcfile.read(path) for path in pair]
    bare = [write(tmp_path / f"bare_{i}.mrc", voxels, 0) for i, voxels in enumerate(data)]
    assert run(*bare).stdout.splitlines()[0].split() == ["1/px", "px", "total"]
    assert run(*bare, "--voxel-size", "5").stdout.splitlines()[8].split()[1] == "10.00"
    assert run(bare[0], pair[1]).stdout.splitlines()[8].split()[1] == "20.00"
    assert "expected a positive number of Å, got -1" in refused(*pair, "--voxel-size", "-1")
    assert "got nan" in refused(*pair, "--voxel-size", "nan")


def test_a_volume_with_itself_is_allowed_with_a_warning(pair):
    result = good("fsc", pair[0], pair[0])
    assert "compared with itself" in result.stderr
    assert "1.0000" in result.stdout


def test_mask(pair, tmp_path):
    weights = np.zeros(SHAPE)
    empty = write(tmp_path / "empty.mrc", weights)
    weights[4:12, 4:14, 4:16] = 1
    mask = write(tmp_path / "mask.mrc", weights)
    good("fsc", *pair, "--mask", mask)
    assert "empty.mrc is 0 in all 5760 voxels" in refused(*pair, "--mask", empty)
    other = write(tmp_path / "other.mrc", weights[1:])
    assert "(15, 18, 20), but" in refused(*pair, "--mask", other)


@pytest.mark.parametrize(("size", "told"), [(0, False), (1, False), (10.05, False), (5, True), (13.5, True)])
def test_a_mask_of_another_voxel_size_is_warned_of(pair, tmp_path, size, told):
    weights = np.zeros(SHAPE)
    weights[4:12, 4:14, 4:16] = 1
    mask = write(tmp_path / "mask.mrc", weights, size)
    result = good("fsc", *pair, "--mask", mask)
    line = f"Warning: the mask {mask} has voxels of {size:g} Å, {pair[0]} of 10 Å"
    assert (line in result.stderr) == told
    assert ("the mask" in result.stderr) == told
    assert "the mask" not in good("fsc", *pair, "--mask", mask, "--voxel-size", 10).stderr
    volumes = [cryolithe.Volume.read(path) for path in pair]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        cryolithe.fsc(*volumes, mask=mask)
    assert any("the mask" in str(one.message) for one in heard) == told


def test_volumes_that_cannot_be_compared(pair, tmp_path):
    voxels = np.array(mrcfile.read(pair[0]))
    line = refused(pair[0], write(tmp_path / "shape.mrc", voxels[:, 1:]))
    assert "(16, 18, 20)" in line
    assert "(16, 17, 20)" in line
    line = refused(pair[0], write(tmp_path / "size.mrc", voxels, 10.2))
    assert "has 10 Å" in line
    assert "has 10.2 Å" in line
    good("fsc", pair[0], tmp_path / "size.mrc", "--voxel-size", "10")
    good("fsc", pair[0], write(tmp_path / "near.mrc", voxels, 10.05))
    line = refused(pair[0], write(tmp_path / "constant.mrc", np.full(SHAPE, 3)))
    assert "constant.mrc: all 5760 voxels are 3" in line
    voxels[0, 0, :2] = np.inf
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning):
        path = write(tmp_path / "bad.mrc", voxels)
    assert "bad.mrc: 2 of 5760 voxels are not finite" in refused(pair[0], path)


def test_a_missing_file_is_named(pair, tmp_path):
    assert "nothing.mrc" in refused(pair[0], tmp_path / "nothing.mrc")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60", (-60, 60)),
        ("±60", (-60, 60)),
        ("+-60.5°", (-60.5, 60.5)),
        ("-60,60", (-60, 60)),
        ("-51:49", (-51, 49)),
        ("−51, 49", (-51, 49)),
        ("10,+50", (10, 50)),
    ],
)
def test_spellings_of_a_tilt_range(text, expected):
    assert parse_wedge(text) == expected


@pytest.mark.parametrize("text", ["", "sixty", "-60", "60,-60", "0", "91", "-120,60", "1,2,3", "nan"])
def test_what_is_no_tilt_range(text):
    with pytest.raises(SettingsError, match="--wedge"):
        parse_wedge(text)


@pytest.mark.slow
def test_the_command_does_not_wait_for_torch():
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom cryolithe.cli import main\n"
        "assert CliRunner().invoke(main, ['fsc', '--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_input_is_never_replaced(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.mrc", "b.mrc"):
        write_volume(tmp_path / name, Volume(rng.standard_normal((8, 8, 8)).astype(np.float32), 4.0), label="x")
    before = (tmp_path / "a.mrc").read_bytes()
    names = [str(tmp_path / name) for name in ("a.mrc", "b.mrc")]
    arguments = ["fsc", *names, "--json", names[0], "--overwrite"]
    result = call(*arguments)
    assert result.exit_code == 2
    assert "is an input of this command" in result.stderr
    assert (tmp_path / "a.mrc").read_bytes() == before
