"""A preview that is missing beside a finished volume is drawn when the command is repeated, and that alone."""

import os
import signal

import pytest
from tiny_series import made, noise, refused, run, write_series

from cryolithe.cli.one_series import job_of, reconstruct_one
from cryolithe.errors import OutputError
from cryolithe.formats.reading import Reading
from cryolithe.reconstruction.output import outputs, preview
from cryolithe.settings import ReconstructSettings

FBP = ("--method", "fbp", "--thickness", 16)


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path)


def interrupted_in(module, name, *arguments):
    """Run a command that gets Ctrl-C when it calls a function."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, name, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        result = run(*arguments)
    assert result.exit_code == 130, result.output
    assert result.stderr.endswith("Interrupted. Repeat the command to go on where it stopped.\n")


@pytest.mark.parametrize("more", [(), ("--orientation", "xzy")], ids=["xyz", "xzy"])
def test_what_was_interrupted_while_it_was_drawn_goes_on_with_the_drawing(series, tmp_path, more):
    command = (*series, *FBP, "--preview", *more)
    drawing, output = tmp_path / "ts_rec.png", tmp_path / "ts_rec.mrc"
    interrupted_in(preview, "plot_central_slices", *command)
    assert not drawing.exists()
    volume, record = output.read_bytes(), (tmp_path / "ts_rec.json").read_bytes()
    assert "only its preview would be drawn" in made(*command, "--dry-run").stdout
    assert not drawing.exists()
    assert "only its preview is drawn" in made(*command).stderr
    assert (output.read_bytes(), (tmp_path / "ts_rec.json").read_bytes()) == (volume, record)
    resumed = drawing.read_bytes()
    refused(tmp_path, command, "ts_rec.mrc exists", "it is of these inputs and settings")
    made(*command, "--overwrite")
    assert len(drawing.read_bytes()) == pytest.approx(len(resumed), rel=0.1)


def test_what_was_interrupted_before_the_record_was_in_its_place_gets_its_drawing_too(series, tmp_path):
    command = (*series, *FBP, "--preview")
    interrupted_in(outputs, "_place_beside", *command)
    assert "its record is in its place now" in made(*command).stderr
    assert (tmp_path / "ts_rec.png").exists()


def test_a_preview_is_never_drawn_of_other_work_nor_over_the_drawing_of_others(series, tmp_path):
    made(*series, *FBP)
    refused(tmp_path, (*series, *FBP, "--filter", "hann", "--preview"), "exists", "--filter cosine, now hann")
    (tmp_path / "ts_rec.png").write_bytes(b"\x89PNG of a figure")
    refused(tmp_path, (*series, *FBP, "--preview"), "ts_rec.mrc exists")
    (tmp_path / "ts_rec.png").unlink()
    write_series(tmp_path, noise()[::-1])
    refused(tmp_path, (*series, *FBP, "--preview"), "exists", "other contents of tilts")


def test_a_volume_whose_denoising_is_pending_gets_its_drawing(series, tmp_path):
    class Pending:
        def is_done(self, output, overwrite):
            return False

        def __call__(self, output, settings, watcher):
            return "denoised"

    made(*series, *FBP)
    settings = ReconstructSettings(method="fbp", thickness=16, preview=True)
    with pytest.raises(OutputError, match="exists"):  # more than a preview would be made
        reconstruct_one(job_of(series, None, settings, Reading()), True, Pending())
    reconstruct_one(job_of(series, None, settings, Reading()), False, Pending())
    assert (tmp_path / "ts_rec.png").exists()
