"""`cryolithe pairs` through the real command, on small fake copies of deposited entries."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from command import call
from fake_entry import TILTS, TRAINING_DATA, band_limited, fake_entry, simulated, write_target

from cryolithe.curation import build
from cryolithe.curation.manifest import read_manifest, write_manifest
from cryolithe.formats import read_mrc, write_angles_deg, write_stack
from cryolithe.formats.pairs import open_pair

SHIPPED = TRAINING_DATA / "empiar_11830.yaml"
NAMES = ("tomo_001", "tomo_002")
ONLY = [argument for name in NAMES for argument in ("--only", name)]


def run(*arguments):
    result = call("pairs", *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """A copy of the shipped entry, and what it was made of."""
    root = tmp_path_factory.mktemp("entry")
    return root, fake_entry(read_manifest(SHIPPED), NAMES, root)


@pytest.fixture
def copy(entry, tmp_path):
    """One pair of the copy, to be spoilt, with its paths."""
    root = tmp_path / "copy"
    shutil.copytree(entry[0] / "empiar-11830" / "tomo_001", root / "empiar-11830" / "tomo_001")
    manifest = read_manifest(SHIPPED)
    return root, {role: root / path for role, path in manifest.paths(manifest.pairs[0]).items()}


def check_one(root, manifest=SHIPPED, *arguments):
    return run("check", manifest, "--data", root, "--only", "tomo_001", *arguments)


def changed(tmp_path, **keys):
    """The shipped manifest with other keys, its first pair only; keys of the pair start with pair_."""
    plain = yaml.safe_load(SHIPPED.read_text())
    plain["pairs"] = plain["pairs"][:1]
    for key, value in keys.items():
        place = plain["pairs"][0] if key.startswith("pair_") else plain
        place[key.removeprefix("pair_")] = value
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


def assert_wrong(result, *parts):
    lines = [line for line in result.stdout.splitlines() if "WRONG" in line]
    assert result.exit_code == 1, result.output
    assert len(lines) == 1, result.output
    for part in parts:
        assert part in lines[0]


@pytest.mark.slow
def test_the_shipped_manifest_accepts_its_copy_and_builds_what_the_simulator_made(entry, tmp_path):
    root, made = entry
    result = run("check", SHIPPED, "--data", root, *ONLY)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == list(NAMES)
    for line in lines:
        assert "ok: 41 tilts, 32 x 72 x 64 voxels of 7.84 Å; target fits our FBP: correlation 0." in line
    out = tmp_path / "out"
    result = run("build", SHIPPED, "--data", root, "-o", out, *ONLY)
    assert result.exit_code == 0, result.output
    for name in NAMES:
        simulation = made[name]
        with open_pair(out / f"{name}.h5") as pair:
            assert pair.angles_deg == tuple(simulation.series.plan.angles_deg)
            assert pair.voxel_size_angstrom == pytest.approx(7.84)
            assert set(pair.extras) == {"even", "odd"}
            np.testing.assert_array_equal(pair.images[()], simulation.series.images)
            np.testing.assert_array_equal(pair.extras["even"][()], simulation.series.even)
            np.testing.assert_array_equal(pair.extras["odd"][()], simulation.series.odd)
            np.testing.assert_array_equal(pair.truth[()], simulation.truth)
            assert pair.origin["accession"] == "EMPIAR-11830"
            assert pair.origin["entry"]["name"] == name
            assert pair.origin["manifest"]["target_made_by"] == ["FBP", "cryoCARE", "IsoNet"]
            assert set(pair.origin["sha256"]) == {"stack", "angles", "target", "even", "odd"}
            assert pair.origin["program"].startswith("CryoLithe ")
    assert {path.name for path in out.iterdir()} == {f"{name}.h5" for name in NAMES}


@pytest.mark.slow
def test_a_stack_that_is_to_be_binned_gives_the_simulators_images(tmp_path):
    shipped = TRAINING_DATA / "empiar_10045.yaml"
    made = fake_entry(read_manifest(shipped), ("05",), tmp_path)["05"]
    assert run("check", shipped, "--data", tmp_path, "--only", "05").exit_code == 0
    result = run("build", shipped, "--data", tmp_path, "--only", "05", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    with open_pair(tmp_path / "out" / "05.h5") as pair:
        images = band_limited(made.series.images)
        np.testing.assert_allclose(pair.images[()], images, atol=2e-5 * np.abs(images).max())
        np.testing.assert_array_equal(pair.truth[()], made.truth)
        assert pair.voxel_size_angstrom == pytest.approx(8.68)
        assert set(pair.extras) == set()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["05.h5"]


def test_borders_that_an_alignment_filled_are_replaced(copy, tmp_path):
    root, paths = copy
    whole = simulated(1, 7.84).series.images
    filled = whole.copy()
    filled[:, :8] = filled[:, :, :7] = whole.mean() - 20 * whole.std()
    write_stack(paths["stack"], filled, read_mrc(paths["stack"]).voxel_size_angstrom, "test", overwrite=True)
    manifest = changed(tmp_path, files=_files("stack", "angles", "target"))
    result = check_one(root, manifest)
    assert result.exit_code == 0, result.output
    assert "target fits our FBP: correlation 0." in result.stdout
    assert run("build", manifest, "--data", root, "-o", tmp_path / "out").exit_code == 0
    with open_pair(tmp_path / "out" / "tomo_001.h5") as pair:
        np.testing.assert_array_equal(pair.images[:, 12:, 12:], whole[:, 12:, 12:])
        assert pair.images[()].std() < 1.1 * whole.std()


def _files(*roles):
    """The shipped manifest's files of some roles."""
    return {role: name for role, name in yaml.safe_load(SHIPPED.read_text())["files"].items() if role in roles}


def test_axes_contrast_and_binning_of_the_target_are_put_right(entry, tmp_path):
    truth = entry[1]["tomo_001"].truth
    read = read_manifest(
        changed(tmp_path, target_axes="xzy", target_flip_z=True, target_contrast="bright", stack_contrast="bright")
    )
    write_manifest(tmp_path / "xzy.yaml", read)
    made = fake_entry(read, ("tomo_001",), tmp_path / "xzy")
    result = check_one(tmp_path / "xzy", tmp_path / "xzy.yaml")
    assert result.exit_code == 0, result.output
    assert run("build", tmp_path / "xzy.yaml", "--data", tmp_path / "xzy", "-o", tmp_path / "out").exit_code == 0
    with open_pair(tmp_path / "out" / "tomo_001.h5") as pair:
        np.testing.assert_array_equal(pair.truth[()], truth)
        np.testing.assert_array_equal(pair.images[()], made["tomo_001"].series.images)

    double = read_manifest(changed(tmp_path, target_binning=2))
    fake_entry(double, ("tomo_001",), tmp_path / "double")
    fine = np.repeat(np.repeat(np.repeat(truth, 2, 0), 2, 1), 2, 2)
    path = tmp_path / "double" / double.paths(double.pairs[0])["target"]
    write_target(path, fine, double, overwrite=True)
    result = run("build", tmp_path / "changed.yaml", "--data", tmp_path / "double", "-o", tmp_path / "out2")
    assert result.exit_code == 0, result.output
    with open_pair(tmp_path / "out2" / "tomo_001.h5") as pair:
        assert pair.truth.shape == truth.shape
        assert np.corrcoef(pair.truth[()].ravel(), truth.ravel())[0, 1] > 0.98
    assert [path.name for path in (tmp_path / "out2").iterdir()] == ["tomo_001.h5"]


def test_excluded_tilts_trimmed_targets_and_crops(copy, tmp_path):
    root, paths = copy
    whole = simulated(1, 7.84)
    read = read_manifest(SHIPPED)
    write_target(paths["target"], whole.truth[:, 3:69, 2:63], read, overwrite=True)
    assert_wrong(check_one(root), "the target has 66 x 61 voxels", "72 x 64", "offset_px")
    manifest = changed(tmp_path, pair_offset_px=[3, 2], pair_exclude_tilts=[1, 41], thickness_px=28, rows_px=[0, 40])
    result = check_one(root, manifest)
    assert result.exit_code == 0, result.output
    assert run("build", manifest, "--data", root, "-o", tmp_path / "out").exit_code == 0
    with open_pair(tmp_path / "out" / "tomo_001.h5") as pair:
        assert pair.angles_deg == tuple(whole.series.plan.angles_deg[1:-1])
        np.testing.assert_array_equal(pair.images[()], whole.series.images[1:-1, 3:43, 2:62])
        np.testing.assert_array_equal(pair.truth[()], whole.truth[2:30, 3:43, 2:62])
    wrong = changed(tmp_path, pair_offset_px=[6, 2])
    assert_wrong(check_one(root, wrong), "SHIFTED by (z, y, x) = (", "+3.0, ", "add (-3, ")


def test_recording_fills_in_what_later_checks_compare(copy, tmp_path):
    root, paths = copy
    record = tmp_path / "sub" / "recorded.yaml"
    record.parent.mkdir()
    result = check_one(root, SHIPPED, "--record", record)
    assert result.exit_code == 0, result.output
    recorded = read_manifest(record)
    facts = recorded.pairs[0].measured
    assert facts.stack.bytes == paths["stack"].stat().st_size
    assert len(facts.target.sha256) == 64
    assert recorded.pairs[2].measured == read_manifest(SHIPPED).pairs[2].measured
    assert run("check", record, "--only", "tomo_001").exit_code == 0  # finds the copy without --data
    assert "exists" in check_one(root, SHIPPED, "--record", record).stderr

    content = bytearray(paths["even"].read_bytes())
    content[5000] ^= 1
    paths["even"].write_bytes(content)
    assert_wrong(run("check", record, "--only", "tomo_001"), "proj_EVN_CTF.mrc", "checksum", "damaged", "copy it again")
    assert run("check", record, "--only", "tomo_001", "--fast").exit_code == 0
    paths["even"].write_bytes(content[:-1000])
    result = run("check", record, "--only", "tomo_001")
    assert result.exit_code == 1
    assert f"has {len(content) - 1000} bytes, expected {len(content)}: truncated" in result.stdout.splitlines()[0]


def test_a_truncated_file_is_found_without_any_record(copy):
    root, paths = copy
    paths["target"].write_bytes(paths["target"].read_bytes()[:-1000])
    assert_wrong(check_one(root), "vol_fbp_evn_corrected.mrc", "bytes")


def test_missing_files_and_folders(copy, tmp_path):
    root, paths = copy
    paths["odd"].unlink()
    assert_wrong(check_one(root), "1 of 5 files are missing", str(paths["odd"]), "--data")
    result = run("check", SHIPPED, "--data", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "is no folder; give the folder of the local copy with --data" in result.stderr


def test_wrong_numbers_of_angles_and_images(copy):
    root, paths = copy
    paths["angles"].write_text("".join(f"{a}\n" for a in np.linspace(-60, 60, TILTS - 1)))
    assert_wrong(check_one(root), "holds 40 angles, expected 41, one for each image")
    images = read_mrc(paths["stack"]).data[:39].copy()
    for role in ("stack", "even", "odd"):
        write_stack(paths[role], images, 7.84, "short", overwrite=True)
    assert_wrong(check_one(root), "holds 39 images, expected 41")


def test_wrong_angles(copy):
    root, paths = copy
    angles = simulated(1, 7.84).series.plan.angles_deg
    write_angles_deg(paths["angles"], [-a for a in angles], overwrite=True)
    assert_wrong(check_one(root), "MIRRORED along z", "the signs of the angles")
    paths["angles"].write_text("".join(f"{a + 60}\n" for a in angles))
    assert_wrong(check_one(root), "within ±90°")


@pytest.mark.parametrize(
    ("role", "size", "parts"),
    [
        ("stack", 1.96, ("the stack's header says 1.96 Å per pixel, expected 7.84 Å", "stack_binning")),
        ("target", 15.68, ("the target's header says 15.68 Å per pixel, expected 7.84 Å",)),
    ],
)
def test_wrong_pixel_sizes(role, size, parts, copy):
    root, paths = copy
    data = read_mrc(paths[role]).data.copy()
    if role == "stack":
        write_stack(paths[role], data, size, "wrong", overwrite=True)
    else:
        doubled = read_manifest(SHIPPED).model_copy(update={"stack_binning": 8})
        write_target(paths[role], data, doubled, overwrite=True)
    assert_wrong(check_one(root), *parts)


def test_a_header_without_pixel_size_is_a_remark(copy):
    root, paths = copy
    write_stack(paths["stack"], read_mrc(paths["stack"]).data.copy(), None, "none", overwrite=True)
    result = check_one(root)
    assert result.exit_code == 0
    assert "the stack's header gives no pixel size; 7.84 Å assumed" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda v: v[::-1], ("MIRRORED along z", "change target_flip_z")),
        (lambda v: v[:, :, ::-1], ("MIRRORED along x", "handedness")),
        (lambda v: v[:, ::-1], ("MIRRORED along y", "handedness")),
        (lambda v: v[::-1, :, ::-1], ("MIRRORED along z and x", "turned half around the tilt axis")),
        (lambda v: -v, ("INVERTED", "target_contrast")),
        (lambda v: np.roll(v, 3, axis=2), ("SHIFTED by (z, y, x) = (", ", +3.0) px")),
        (
            lambda v: np.roll(v, (2, -4), axis=(0, 1)),
            ("SHIFTED by (z, y, x) = (", ", -3.9, ", "add (+4, +0) to offset_px"),
        ),
        (lambda v: simulated(2, 7.84).truth, ("does not belong to the series", "at best")),
        (lambda v: np.where(v < np.quantile(v, 1e-4), np.nan, v), ("values that are no numbers", "in plane")),
        (np.zeros_like, ("the target is 0 everywhere",)),
    ],
    ids=["z", "x", "y", "zx", "inverted", "shift-x", "shift-zy", "other", "nan", "zero"],
)
def test_targets_that_do_not_fit(spoil, parts, copy):
    root, paths = copy
    read = read_manifest(SHIPPED)
    write_target(paths["target"], spoil(simulated(1, 7.84).truth).astype(np.float32), read, overwrite=True)
    assert_wrong(check_one(root), *parts)


def test_a_shift_of_less_than_a_pixel_is_let_pass(copy):
    root, paths = copy
    truth = simulated(1, 7.84).truth
    write_target(paths["target"], (truth + np.roll(truth, 1, axis=2)) / 2, read_manifest(SHIPPED), overwrite=True)
    result = check_one(root)
    assert result.exit_code == 0
    assert "shift 0.5 px" in result.stdout


def test_halves_that_are_none(copy, entry):
    root, paths = copy
    good = paths["odd"].read_bytes()
    shutil.copy(paths["even"], paths["odd"])
    assert_wrong(check_one(root), "even and odd hold the same images", "expected halves")
    shutil.copy(paths["stack"], paths["odd"])
    assert_wrong(check_one(root), "odd and the stack hold the same images")
    other = entry[0] / "empiar-11830" / "tomo_002" / paths["odd"].name
    shutil.copy(other, paths["odd"])
    assert_wrong(check_one(root), "'odd' does not belong to the stack: they do not show the same", "0.7 or more")
    write_stack(paths["odd"], read_mrc(paths["even"]).data[:, :60].copy(), 7.84, "short", overwrite=True)
    assert_wrong(check_one(root), "(odd) has the shape 41 x 60 x 64, expected the stack's 41 x 72 x 64")
    paths["odd"].write_bytes(good)
    assert check_one(root).exit_code == 0


def test_images_that_are_no_numbers_or_empty_can_be_excluded(copy, tmp_path):
    root, paths = copy
    images = read_mrc(paths["stack"]).data.copy()
    images[4, 3, 3] = np.inf
    write_stack(paths["stack"], images, 7.84, "inf", overwrite=True)
    assert_wrong(check_one(root), "the stack holds values that are no numbers", "in image 5")
    images[4] = 2
    write_stack(paths["stack"], images, 7.84, "flat", overwrite=True)
    assert_wrong(check_one(root), "image 5 of the stack is the same value everywhere", "exclude_tilts")
    assert check_one(root, changed(tmp_path, pair_exclude_tilts=[5])).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("check", "nowhere.yaml"), "manifest nowhere.yaml does not exist"),
        (("check", SHIPPED, "--only", "tomo_01"), "has no pair 'tomo_01' (did you mean 'tomo_0"),
        (("build", SHIPPED, "-o", "x", "--only", "tom"), "has no pair 'tom'"),
        (("check", SHIPPED, "--fast", "--record", "r.yaml"), "give one of them"),
        (("build", SHIPPED), "Missing option '-o'"),
        (("chek", SHIPPED), "No such command 'chek'"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert line in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bad_pair_is_left_out_and_the_others_are_built(copy, entry, tmp_path):
    root, paths = copy
    shutil.copytree(entry[0] / "empiar-11830" / "tomo_002", root / "empiar-11830" / "tomo_002")
    write_target(paths["target"], -simulated(1, 7.84).truth, read_manifest(SHIPPED), overwrite=True)
    result = run("build", SHIPPED, "--data", root, "-o", tmp_path / "out", *ONLY)
    assert result.exit_code == 1
    assert "tomo_001: the target is INVERTED" in result.stderr
    assert "1 of 2 pairs were not built" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tomo_002.h5"]


def test_finished_pairs_are_kept_and_others_settings_are_refused(copy, tmp_path, monkeypatch):
    root, paths = copy
    out = tmp_path / "out"
    arguments = ("--data", root, "-o", out, "--only", "tomo_001")
    with monkeypatch.context() as patch:

        def interrupt(*_):
            raise KeyboardInterrupt

        patch.setattr(build, "_write_truth", interrupt)
        result = run("build", SHIPPED, *arguments)
        assert result.exit_code == 130
        assert "Interrupted. Finished pairs are kept: repeat the command to go on." in result.stderr
        assert list(out.iterdir()) == []
    (out / ".tomo_001.h5.00112233.scratch").write_bytes(b"left by a killed run")
    assert run("build", SHIPPED, *arguments).exit_code == 0
    assert [path.name for path in out.iterdir()] == ["tomo_001.h5"]
    before = (out / "tomo_001.h5").read_bytes()
    result = run("build", SHIPPED, *arguments)
    assert (result.exit_code, result.stdout) == (0, "tomo_001: already done\n")
    whole = paths["target"].read_bytes()
    paths["target"].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # other data under the same name
    result = run("build", SHIPPED, *arguments)
    assert result.exit_code == 1
    assert f"was made from another {paths['target']} than the one that is there now" in result.stderr
    paths["target"].unlink()  # a local copy may go when its training files are made
    assert "already done" in run("build", SHIPPED, *arguments).stdout
    paths["target"].write_bytes(whole)
    other = changed(tmp_path, thickness_px=30)
    result = run("build", other, *arguments)
    assert result.exit_code == 1
    assert "exists and was made from other settings; give --overwrite" in result.stderr
    assert (out / "tomo_001.h5").read_bytes() == before
    assert run("build", other, *arguments, "--overwrite").exit_code == 0
    with open_pair(out / "tomo_001.h5") as pair:
        assert pair.truth.shape == (30, 72, 64)


def test_an_output_that_is_no_folder(copy, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("build", SHIPPED, "--data", copy[0], "-o", tmp_path / "file", "--only", "tomo_001")
    assert result.exit_code == 2
    assert "cannot make the folder" in result.stderr


def test_blocks_of_rows_give_the_same_file_whatever_their_size(copy, tmp_path, monkeypatch):
    root, _ = copy
    files = []
    for name, size in (("large", 2**26), ("small", 1)):
        monkeypatch.setattr(build, "BLOCK_BYTES", size)
        run("build", SHIPPED, "--data", root, "-o", tmp_path / name, "--only", "tomo_001")
        with open_pair(tmp_path / name / "tomo_001.h5") as pair:
            files.append((pair.images[()], pair.truth[()]))
    for first, second in zip(*files, strict=True):
        np.testing.assert_array_equal(first, second)


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from click.testing import CliRunner; from cryolithe.cli import main\n"
        "for a in (['--help'], ['pairs', '--help'], ['pairs', 'check', '--help']):\n"
        "    assert CliRunner().invoke(main, a).exit_code == 0\n"
        "assert not {'torch', 'h5py', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
