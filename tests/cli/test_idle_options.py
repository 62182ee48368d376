"""An option that changes nothing is refused on the command line, and told of where a file gave it."""

import itertools

import numpy as np
import pytest
import yaml
from command import call, refusal_of
from plain_mrc import new_mrc
from test_settings import VALUES, flag
from tiny_series import made, run, write_series

import cryolithe
from cryolithe.errors import SettingsError
from cryolithe.idle import NEEDS, idle_settings
from cryolithe.settings import ReconstructSettings

METHODS = ("network", "fbp", "sirt")
# What each method and each correction has a use for, written down once more, so that the table of needs is held.
USED_BY = {
    "model": {"network"},
    "fbp_share": {"network"},
    "wedge_trust": {"network"},
    "brightness": {"network"},
    "precision": {"network"},
    "filter": {"fbp"},
    "iterations": {"sirt"},
    "projector": {"fbp", "sirt"},
}
OF_CTF = ("defocus_hand", "cs", "amplitude_contrast", "voltage")
PAIRS = [(name, method) for name, by in USED_BY.items() for method in METHODS if method not in by]
ACTING = [(name, method) for name, by in USED_BY.items() for method in sorted(by)]


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path)


def value_of(name):
    return VALUES[name][0] if name != "model" else "fast"


def test_the_table_of_needs_has_every_pair():
    assert {name for need in NEEDS for name in need.settings} == {*USED_BY, *OF_CTF}
    for name, method in itertools.product(USED_BY, METHODS):
        idle = idle_settings([name], [ReconstructSettings(method=method)])
        assert bool(idle) == (method not in USED_BY[name]), (name, method)
    for name, ctf, weigh in itertools.product(OF_CTF, ("none", "flip", "multiply", "wiener"), (False, True)):
        idle = idle_settings([name], [ReconstructSettings(ctf=ctf, dose_weight=weigh)])
        assert bool(idle) == (ctf == "none" and not (weigh and name == "voltage")), (name, ctf, weigh)


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_a_flag_without_effect_is_refused_in_one_line(name, method, series):
    line = refusal_of(run(*series, "--method", method, *flag(name, value_of(name)), "--dry-run"))
    assert f"--{name.replace('_', '-')} is for --method {' or '.join(sorted(USED_BY[name]))}" in line
    assert f"--method is '{method}' here" in line


@pytest.mark.parametrize("name", OF_CTF)
def test_what_is_for_a_correction_is_refused_without_one(name, series):
    line = refusal_of(run(*series, *flag(name, value_of(name)), "--dry-run"))
    assert f"--{name.replace('_', '-')} is for --ctf flip, multiply or wiener" in line


@pytest.mark.parametrize(("name", "method"), [pair for pair in ACTING if pair[0] not in ("projector", "precision")])
def test_a_flag_with_effect_passes(name, method, series):
    made(*series, "--method", method, *flag(name, value_of(name)), "--dry-run")


def test_what_a_file_says_is_a_note_and_a_flag_on_top_of_it_is_refused(series, tmp_path):
    config = tmp_path / "s.yaml"
    config.write_text(yaml.safe_dump({"method": "fbp", "model": "fast", "wedge-trust": "none", "filter": "hann"}))
    notes = made(*series, "--config", config, "--dry-run").stderr.splitlines()
    told = [line for line in notes if "changes nothing" in line]
    assert [line.split("'")[1] for line in told] == ["model", "wedge_trust"]
    assert all(line.startswith(f"Note: {config}: ") for line in told)
    assert "--fbp-share is for --method network" in refusal_of(run(*series, "--config", config, "--fbp-share", 0.2))
    result = made(*series, "--config", config, "--method", "network", "--dry-run")
    assert "'filter' changes nothing" in result.stderr
    assert "'model'" not in result.stderr


def test_a_session_refuses_what_acts_on_none_of_its_series(series, tmp_path):
    listing = tmp_path / "list.csv"
    stack, angles = (path.name for path in series)
    listing.write_text(
        f"tilts,angles,method,filter,output\n{stack},{angles},sirt,,a.mrc\n{stack},{angles},fbp,hann,b.mrc\n"
        f"{stack},{angles},sirt,hann,c.mrc\n"
    )
    result = made("--list", listing, "--iterations", 2, "--dry-run")  # acts on two of three
    told = [line for line in result.stderr.splitlines() if "changes nothing" in line]
    assert len(told) == 1
    assert told[0].startswith(f"{listing}, line 4: 'filter' changes nothing")
    assert "--model is for --method network" in refusal_of(run("--list", listing, "--model", "fast"))


def test_an_empty_folder_that_is_watched_refuses_at_once(tmp_path):
    (tmp_path / "new").mkdir()
    line = refusal_of(run(tmp_path / "new", "--watch", "--idle", 0.001, "--method", "fbp", "--model", "fast"))
    assert "--model is for --method network" in line


@pytest.mark.parametrize("words", [("--settle", 60), ("--idle", 1), ("--workers", 2), ("--denoise-minutes", 3)])
def test_what_goes_with_another_option_is_refused_alone(words, series):
    assert words[0] in refusal_of(run(*series, *words, "--dry-run"))


def test_the_precision_of_a_denoiser_acts_beside_fbp(series):
    made(*series, "--method", "fbp", "--denoise", "samba", "--precision", "fp32", "--dry-run")


@pytest.mark.parametrize(
    ("function", "words", "what"),
    [
        (cryolithe.reconstruct, {"projector": "torch"}, "projector"),
        (cryolithe.fbp, {"voltage": 200}, "voltage"),
        (cryolithe.sirt, {"cs": 2.0}, "cs"),
        (cryolithe.fbp, {"model": "fast"}, "model"),
        (cryolithe.sirt, {"filter": "hann"}, "filter"),
    ],
)
def test_the_library_refuses_it_too(function, words, what):
    images = np.zeros((3, 8, 8), dtype=np.float32)
    with pytest.raises(SettingsError, match=what):
        function(images, [-30, 0, 30], 10, **words)


# compare


@pytest.fixture
def halves(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        with new_mrc(tmp_path / f"{name}.mrc") as file:
            file.set_data(rng.standard_normal((16, 20, 24)).astype(np.float32))
            file.voxel_size = 10
            file.set_volume()
    return "--half1", tmp_path / "a.mrc", "--half2", tmp_path / "b.mrc"


SERIES_CASES = [
    ("fbp,sirt", ("--wedge-trust", "none"), "no part in what is compared: FBP, SIRT"),
    ("fbp,gaussian", ("--iterations", 5), "no part in what is compared"),
    ("fbp,sirt", ("--precision", "fp32"), "--precision is for networks"),
    ("fbp,default", ("--train-minutes", 5), "--train-minutes is for the training"),
    ("fbp,n2n-general", ("--seed", 5), "--seed is for the training"),
    ("fbp,default", ("--cs", 2), "--cs is for --ctf flip"),
    ("fbp", ("--tilt-range", 60), "--tilt-range is for half volumes"),
]


@pytest.mark.parametrize(("methods", "words", "line"), SERIES_CASES)
def test_compare_refuses_what_no_method_uses(methods, words, line, series, tmp_path):
    page = tmp_path / "page.html"
    given = (*series, "--methods", methods, *words, "-o", page, "--dry-run")
    assert line in refusal_of(call("compare", *given))


@pytest.mark.parametrize("words", [("--thickness", 16), ("--bin", 2), ("--filter", "hann"), ("--pixel-size", 8)])
def test_compare_refuses_settings_of_a_series_for_half_volumes(words, halves, tmp_path):
    line = refusal_of(call("compare", *halves, *words, "-o", tmp_path / "page.html", "--dry-run"))
    assert f"{words[0]} is for a tilt series" in line


# denoise


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--method", "n2n", "--seed", 3), "--seed is for the training"),
        (("--method", "n2n", "--for", "membranes"), "--for is for the training"),
        (("--model", "MODEL", "--seed", 3), "--seed is for the training"),
        (("--model", "MODEL", "--batch", 3), "--batch is for the training"),
        (("--model", "MODEL", "--size", "small"), "--size is for a network that begins anew"),
        (("--model", "MODEL", "--train-minutes", 1, "--size", "small"), "--size is for a network that begins anew"),
        (("--lmax-sweep", "a.png", "--report", "b.png"), "--report has no part in --lmax-sweep"),
        (("--method", "samba", "--loss", "l1"), "--loss goes with --method n2n"),
        (("--method", "n2n", "--lmax", 3), "--lmax goes with --method samba"),
    ],
)
def test_denoise_refuses_what_changes_nothing(words, line, halves, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"")
    given = [tmp_path / "m.safetensors" if word == "MODEL" else word for word in words]
    assert line in refusal_of(call("denoise", halves[1], *given, "-o", tmp_path / "out.mrc"))
