"""``cryolithe reconstruct --even --odd --denoise n2n``: halves, the whole, and what is learned from them, at once."""

import json
import signal

import numpy as np
import pytest
from command import ended
from half_volumes import noise
from half_volumes import signal as density
from test_n2n_command import _tiny  # noqa: F401
from tiny_series import ANGLES, made, run, write_series

from cryolithe.denoising.n2n import train
from cryolithe.formats import read_mrc

pytestmark = pytest.mark.slow
FBP = ("--method", "fbp", "--thickness", 24, "--device", "cpu")
N2N = ("--denoise", "n2n", "--train-minutes", 60)


@pytest.fixture
def series(tmp_path):
    """A series and its halves."""
    shape = (len(ANGLES), 64, 48)
    clean = np.stack([density((*shape[1:], 1), seed=1)[..., 0]] * len(ANGLES))
    halves = [clean + 2 * noise(shape, n) for n in (0, 1)]
    write_series(tmp_path, sum(halves) / 2)
    for name, images in zip(("ts_EVN", "ts_ODD"), halves, strict=True):
        write_series(tmp_path, images, name=name)
        (tmp_path / f"{name}.tlt").unlink()
    return tmp_path


def both(folder):
    return "--even", folder / "ts_EVN.mrc", "--odd", folder / "ts_ODD.mrc"


def bad(*words, code=2):
    return ended(run(*words), code)


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*_rec*.mrc")}


def test_one_command_makes_halves_whole_and_denoised(series):
    command = (series / "ts.mrc", series / "ts.tlt", *both(series), *FBP, *N2N)
    plan = made(*command, "--dry-run").output
    assert "ts_rec_n2n.mrc: n2n learns from ts_rec_EVN.mrc and ts_rec_ODD.mrc, at most 60 min" in plan
    assert all(f"{name}.mrc: " in plan for name in ("ts_rec", "ts_rec_EVN", "ts_rec_ODD"))
    assert not stamps(series)
    said = made(*command).output
    assert "ts_rec_n2n.mrc: denoised" in said
    files = stamps(series)
    assert sorted(files) == ["ts_rec.mrc", "ts_rec_EVN.mrc", "ts_rec_ODD.mrc", "ts_rec_n2n.mrc"]
    whole, even, odd, new = (np.asarray(read_mrc(series / name).data, float) for name in sorted(files))
    assert np.corrcoef(whole.ravel(), (even + odd).ravel())[0, 1] > 0.99  # of all images
    assert new.shape == whole.shape
    record = json.loads((series / "ts_rec_n2n.json").read_text())
    assert record["inputs"]["half1"]["path"].endswith("ts_rec_EVN.mrc")
    assert record["choices"]["train_minutes"] == 60
    assert record["geometry"]
    assert record["score"]["half_snr_denoised_db"] is not None
    again = made(*command).output
    assert stamps(series) == files
    assert "ts_rec_n2n.mrc: already denoised" in again
    assert again.count("already done") == 3


def test_without_the_whole_the_average_stands_for_it(series):
    said = made(series / "ts.tlt", *both(series), *FBP, *N2N).output
    assert "average of the halves" in said
    assert sorted(stamps(series)) == [
        "ts_rec.mrc",
        "ts_rec_EVN.mrc",
        "ts_rec_ODD.mrc",
        "ts_rec_confidence.mrc",
        "ts_rec_n2n.mrc",
    ]


def test_a_training_that_was_interrupted_goes_on_when_the_command_is_repeated(series, monkeypatch):
    command = (series / "ts.mrc", series / "ts.tlt", *both(series), *FBP, *N2N)
    update, count = train._update, []

    def interrupted(*arguments):
        count.append(1)
        if len(count) == 7:
            signal.raise_signal(signal.SIGINT)
        return update(*arguments)

    monkeypatch.setattr(train, "_update", interrupted)
    bad(*command, code=130)
    before = stamps(series)
    assert "ts_rec_n2n.mrc" not in before
    said = made(*command).output
    assert "Going on with the training at step" in said
    assert len(count) < 2 * 24
    assert {name: stamp for name, stamp in stamps(series).items() if name in before} == before


def test_what_cannot_be_learned_is_refused_before_any_work(series):
    tilts, angles = series / "ts.mrc", series / "ts.tlt"
    assert "--method fbp or sirt" in bad(angles, *both(series), "--denoise", "n2n")
    assert "give --even and --odd" in bad(tilts, angles, *FBP, *N2N)
    assert "give --even and --odd" in bad(series, *FBP, *N2N)
    assert "--denoise-minutes goes with --denoise" in bad(angles, *both(series), *FBP, "--train-minutes", 3)
    assert "stand for TILTS" in bad(tilts, angles, *both(series), *FBP)
    write_series(series, noise((len(ANGLES), 60, 48), 3), name="other")
    assert "halves of this series" in bad(series / "other.mrc", angles, *both(series), *FBP, *N2N)
    write_series(series, read_mrc(tilts).data[:, ::-1], name="other")
    assert "do not show the same" in bad(series / "other.mrc", angles, *both(series), *FBP, *N2N)
    write_series(series, -read_mrc(tilts).data, name="other")
    assert "opposite contrast" in bad(series / "other.mrc", angles, *both(series), *FBP, *N2N)
    (series / "ts_rec_n2n.mrc").write_text("precious")
    assert "remove it, or give --overwrite" in bad(angles, *both(series), *FBP, *N2N)
    assert (series / "ts_rec_n2n.mrc").read_text() == "precious"
    assert sorted(stamps(series)) == ["ts_rec_n2n.mrc"]
