"""``--confidence`` of a single stack: the runs of the ensemble, the maps that are made of them, and what they obey."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
import torch
from command import call, good
from scipy.ndimage import gaussian_filter
from tiny_series import ANGLES, bead_images, made, noise, refused, run, voxels, write_model, write_series

import cryolithe
from cryolithe.column_shifts import ColumnShifts
from cryolithe.errors import InputError, ResourceError
from cryolithe.formats import read_mrc
from cryolithe.formats.series.session_folder import read_session_folder
from cryolithe.formats.volumes.half_volumes import find_half_volumes
from cryolithe.formats.volumes.volume_kind import is_map
from cryolithe.geometry import TiltGeometry
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction import ensemble
from cryolithe.reconstruction.confidence.doubt import (
    LAW,
    MOMENTS,
    Chance,
    Ensemble,
    Window,
    expected_correlation,
    expected_error,
    moments_of,
    noise_moments,
    noise_of,
    noise_variance,
    unsupported,
    window_of,
    without_noise,
)
from cryolithe.reconstruction.confidence.members import choose_members, stack_of, turned_back
from cryolithe.reconstruction.ensemble import Made, Maps, map_label
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.jobs.job import MAP_KINDS, already_done, job_of, map_paths, resolve
from cryolithe.reconstruction.output import map_files
from cryolithe.reconstruction.run import reconstruct
from cryolithe.settings import ReconstructSettings
from cryolithe.viewer.reader import read_layers
from cryolithe.work.watcher import Silent

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (16, 40, 48)  # (z, y, x)
WAVES = (-60.0, -45.0, -33.0, -20.0, -8.0, 3.0, 14.0, 27.0, 40.0, 52.0, 61.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A series, a model, and its volume with and without maps."""
    folder = tmp_path_factory.mktemp("confidence")
    images = bead_images(SHAPE[1:], (5, -4, 2)) * 8 + noise()
    stack, angles = write_series(folder, -images)
    model = write_model(folder / "tiny.safetensors")
    words = [stack, angles, "--thickness", SHAPE[0], "--model", model, "--precision", "fp32", "--contrast", "dark"]
    made(*words, "-o", folder / "plain.mrc")
    printed = made(*words, "-o", folder / "sure.mrc", "--confidence", "--preview")
    return SimpleNamespace(folder=folder, words=words, stack=stack, angles=angles, model=model, printed=printed)


def bytes_of(output):
    return [path.read_bytes() for path in (output, *map_paths(output).values())]


# Files


def test_volumes_that_are_all_but_planes_have_no_confidence(place):
    thin = ("--thickness", 7, "-o", place.folder / "thin.mrc")
    words = [word for word in place.words if word not in ("--thickness", SHAPE[0])]
    refused(place.folder, (*words, *thin, "--confidence"), "at least 8 voxels along z, this one has 7")


def test_a_correlation_that_images_do_not_hold_is_explained(place, monkeypatch):
    explained = "not held by the images (where noise, or matter above and below, hides it from them"
    assert explained not in place.printed.output
    monkeypatch.setattr(map_files, "PUZZLING_SHARE", -1.0)
    monkeypatch.setattr(map_files, "PUZZLING_CORRELATION", -1.0)
    assert explained in made(*place.words, "--confidence", "-o", place.folder / "puzzling.mrc").output


@pytest.mark.slow
def test_the_maps_are_named_with_what_their_means_say(place):
    last = place.printed.stdout.splitlines()[-1]
    maps = json.loads((place.folder / "sure.json").read_text())["confidence"]["maps"]
    for kind, words in {
        "confidence": f"(expected correlation with the truth, {maps['confidence']['mean']:.2f})",
        "error": f"(expected error, {maps['error']['mean']:.2f} deviations of the volume)",
        "unsupported": f"(share that the images do not hold, {maps['unsupported']['mean']:.0%})",
    }.items():
        assert f"sure_{kind}.mrc {words}" in last


@pytest.mark.slow
def test_the_volume_has_the_same_bytes_and_three_maps_beside_it(place):
    output = place.folder / "sure.mrc"
    assert output.read_bytes() == (place.folder / "plain.mrc").read_bytes()
    record = json.loads(output.with_suffix(".json").read_text())["confidence"]
    assert [member["tilts"] for member in record["members"]] == [6, 5, 11, 11]
    for kind, path in map_paths(output).items():
        with mrcfile.open(path) as file:
            assert file.data.shape == SHAPE
            assert file.voxel_size.x == pytest.approx(5.0)
            assert tuple(file.header.origin.tolist()) == (0.0, 0.0, 0.0)
            assert ensemble.LABELS[kind] in file.get_labels()[0]
            assert record["maps"][kind] == {"path": path.name, "mean": pytest.approx(file.data.mean(), abs=1e-4)}
            assert np.isfinite(file.data).all()
            assert file.data.min() >= 0
            assert kind == "error" or file.data.max() <= 1
    assert output.with_suffix(".png").is_file()
    assert not output.with_name("sure.mrc.partial").exists()
    assert "5 runs of the network" in place.printed.stderr
    assert "sure_confidence.mrc" in place.printed.stderr


@pytest.mark.slow
def test_done_is_done_and_repeating_gives_the_same_bytes(place, tmp_path):
    settings = ReconstructSettings(
        thickness=SHAPE[0], model=str(place.model), precision="fp32", contrast="dark", confidence=True
    )
    job = job_of((place.stack, place.angles), place.folder / "sure.mrc", settings)
    assert already_done(job)
    # Whoever does not ask for maps has the volume as well; whoever asks needs them.
    assert already_done(replace(job, settings=settings.model_copy(update={"confidence": False})))
    assert not already_done(replace(job, output=place.folder / "plain.mrc"))
    made(*place.words, "-o", tmp_path / "sure.mrc", "--confidence")
    assert bytes_of(tmp_path / "sure.mrc") == bytes_of(place.folder / "sure.mrc")


@pytest.mark.slow
def test_maps_do_not_depend_on_the_rows_that_fit_into_memory(place, tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble, "map_rows", lambda run: 7)
    made(*place.words, "-o", tmp_path / "sure.mrc", "--confidence")
    assert bytes_of(tmp_path / "sure.mrc") == bytes_of(place.folder / "sure.mrc")


class _Stops(Silent):
    """Interrupts a run where a stage begins."""

    def __init__(self, name):
        self.name, self.begun = name, []

    def stage(self, name, total):
        self.begun.append(name)
        if self.name and self.name in name:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["mirror x", "Comparing the runs", "Comparing the volume with its images"])
def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(place, tmp_path, monkeypatch, moment):
    settings = ReconstructSettings(
        thickness=SHAPE[0], model=str(place.model), precision="fp32", contrast="dark", confidence=True
    )
    job = job_of((place.stack, place.angles), tmp_path / "sure.mrc", settings)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(job, _Stops(moment))
    assert not job.output.exists()
    assert not any(path.exists() for path in job.maps.values())
    stored = []
    monkeypatch.setattr(
        "cryolithe.reconstruction.run.store",
        lambda *given, store=reconstruct.__globals__["store"]: stored.append(given[2].start) or store(*given),
    )
    reconstruct(job, Silent())
    assert len(stored) == (2 if moment == "mirror x" else 0)  # of one slab each: what was made is not made again
    assert bytes_of(job.output) == bytes_of(place.folder / "sure.mrc")
    assert not job.partial.exists()


@pytest.mark.slow
def test_an_unfinished_run_of_other_images_lends_nothing(place, tmp_path):
    other = tmp_path / "ts.mrc"
    other.write_bytes(place.stack.read_bytes())
    with mrcfile.open(other, "r+") as file:
        file.data[3] *= 2
    settings = ReconstructSettings(
        thickness=SHAPE[0], model=str(place.model), precision="fp32", contrast="dark", confidence=True
    )
    first = job_of((other, place.angles), tmp_path / "sure.mrc", settings)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(first, _Stops("Comparing the runs"))
    reconstruct(
        job_of((place.stack, place.angles), first.output, settings.model_copy(update={"overwrite": True})), Silent()
    )
    assert bytes_of(first.output) == bytes_of(place.folder / "sure.mrc")


@pytest.mark.slow
def test_maps_lie_as_the_volume_lies_and_old_ones_do_not_stay(place, tmp_path):
    output = tmp_path / "turned.mrc"
    made(*place.words, "-o", output, "--confidence", "--orientation", "xzy", "--dtype", "int8")
    for kind in MAP_KINDS:
        upright = voxels(map_paths(place.folder / "sure.mrc")[kind])
        turned = voxels(map_paths(output)[kind]).transpose(1, 0, 2)[::-1]
        # Bytes have another deviation, which is the unit of the error.
        assert np.allclose(turned, upright, rtol=1e-3) if kind == "error" else np.array_equal(turned, upright)
    layers = read_layers(str(output))
    assert [layer[1]["name"] for layer in layers] == ["turned", *(f"turned_{kind}" for kind in MAP_KINDS)]
    assert [layer[1]["visible"] for layer in layers] == [True, False, False, False]
    assert [layer[1]["contrast_limits"] for layer in layers[1:]] == [(0.0, 1.0), (0.0, 2.0), (0.0, 1.0)]
    assert all(np.asarray(layer[0]).shape == SHAPE for layer in layers)
    made(*place.words, "-o", output, "--overwrite")
    assert not any(path.exists() for path in map_paths(output).values())


@pytest.mark.slow
def test_maps_are_turned_about_x_as_the_volume_is(place, tmp_path):
    command = tmp_path / "tilt.com"
    command.write_text(
        f"$tilt -StandardInput\nInputProjections {place.stack}\nOutputFile r.rec\nTILTFILE {place.angles}\n"
        f"THICKNESS {SHAPE[0]}\nXAXISTILT 8\nMODE 2\n$if (-e ./savework) ./savework\n"
    )
    words = (place.stack, "--tilt-com", command, "--model", place.model, "--precision", "fp32", "--contrast", "dark")
    made(*words, "-o", tmp_path / "a.mrc")
    made(*words, "-o", tmp_path / "b.mrc", "--confidence")
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()
    record = json.loads((tmp_path / "b.json").read_text())
    assert abs(record["geometry"]["x_tilt_deg"]) == 8
    for kind in MAP_KINDS:
        turned = voxels(tmp_path / f"b_{kind}.mrc")
        assert turned.shape == SHAPE
        assert record["confidence"]["maps"][kind]["mean"] == pytest.approx(turned.mean(), abs=1e-6)


@pytest.mark.slow
def test_halves_have_their_own_map_and_sessions_make_all(place, tmp_path):
    images = voxels(place.stack)
    for seed, name in enumerate(("ts_EVN", "ts_ODD"), 1):
        own = np.random.default_rng(seed).standard_normal(images.shape).astype(np.float32)
        write_series(tmp_path, images + own, name=name)
    halves = ("--even", tmp_path / "ts_EVN.mrc", "--odd", tmp_path / "ts_ODD.mrc", tmp_path / "ts_EVN.tlt")
    words = (*halves, "--method", "fbp", "--thickness", SHAPE[0], "-o", tmp_path / "ts_rec.mrc")
    (tmp_path / "settings.yaml").write_text("confidence: true\n")
    printed = made(*words, "--config", tmp_path / "settings.yaml")
    assert "settings.yaml: 'confidence' changes nothing" in printed.stderr
    assert (tmp_path / "ts_rec_confidence.mrc").is_file()
    assert not list(tmp_path.glob("*_unsupported.mrc"))

    session = tmp_path / "session"
    session.mkdir()
    for path in (place.stack, place.angles):
        (session / path.name).write_bytes(path.read_bytes())
    words = (session, *place.words[2:], "--confidence")
    made(*words)
    assert bytes_of(session / "ts_rec.mrc") == bytes_of(place.folder / "sure.mrc")
    assert "already done" in made(*words).output


def test_maps_are_no_series_and_no_halves(tmp_path):
    write_series(tmp_path)
    for kind in MAP_KINDS:
        (tmp_path / f"ts_rec_{kind}.mrc").write_bytes(b"not looked at")
        (tmp_path / f"ts_EVN_rec_{kind}.mrc").write_bytes(b"not looked at")
    assert [entry.name for entry in read_session_folder(tmp_path).entries] == ["ts"]
    assert read_session_folder(tmp_path).left_out == ()
    assert find_half_volumes(tmp_path).pairs == ()


# Refusals


def test_a_map_is_taken_for_no_volume(place, tmp_path):
    volume = place.folder / "sure.mrc"
    for kind in MAP_KINDS:
        one = place.folder / f"sure_{kind}.mrc"
        for words in (
            ["denoise", one, "--method", "n2n", "-o", tmp_path / "d.mrc"],
            ["denoise", one, "--method", "samba", "-o", tmp_path / "d.mrc"],
            ["fsc", one, volume],
            ["evaluate", one, "-o", tmp_path / "e.html"],
            ["evaluate", volume, "--reference", one, "-o", tmp_path / "e.html"],
        ):
            result = call(*words)
            assert result.exit_code == 2, result.output
            assert f"{one} is a map that tells how far a volume can be trusted" in result.stderr
            assert result.stderr.count("\n") == 1
        with pytest.raises(InputError, match="is a map that tells"):
            cryolithe.fsc(one, volume)
        assert is_map(one, (map_label(kind),))
    good("fsc", volume, volume, "--mask", one)
    assert not list(tmp_path.iterdir())
    assert is_map(tmp_path / "x.mrc", ("CryoLithe 1 local correlation of two halves",))
    assert not is_map(volume, read_mrc(volume).labels)


def test_a_map_without_labels_is_told_by_the_record_of_its_volume(tmp_path):
    told = {"volume": {"path": "v.zarr"}, "confidence": {"maps": {"error": {"path": "v_error.zarr"}}}}
    (tmp_path / "v.json").write_text(json.dumps(told))
    assert is_map(tmp_path / "v_error.zarr", ())
    assert not is_map(tmp_path / "v_confidence.zarr", ())
    assert not is_map(tmp_path / "error.zarr", ())


@pytest.mark.parametrize("method", ["fbp", "sirt"])
def test_other_methods_are_refused(tmp_path, method):
    write_series(tmp_path)
    words = (tmp_path / "ts.mrc", tmp_path / "ts.tlt", "--method", method, "--confidence")
    refused(tmp_path, words, "--confidence", method, "--even")


def test_too_few_tilts_are_refused(tmp_path):
    write_series(tmp_path, noise()[:8], ANGLES[:8])
    write_model(tmp_path / "tiny.safetensors")
    words = (tmp_path / "ts.mrc", tmp_path / "ts.tlt", "--model", tmp_path / "tiny.safetensors", "--confidence")
    refused(tmp_path, words, "8 tilts", "at least 10")
    refused(tmp_path, (*words, "--dry-run"), "8 tilts", "at least 10")


@pytest.mark.parametrize("kind", MAP_KINDS)
def test_files_of_others_stay(tmp_path, kind):
    write_series(tmp_path)
    write_model(tmp_path / "tiny.safetensors")
    (tmp_path / f"ts_rec_{kind}.mrc").write_bytes(b"precious")
    words = (tmp_path / "ts.mrc", tmp_path / "ts.tlt", "--model", tmp_path / "tiny.safetensors", "--confidence")
    refused(tmp_path, words, f"ts_rec_{kind}.mrc exists", "--overwrite")


@pytest.mark.slow
def test_memory_is_planned(place):
    result = run(*place.words, "-o", place.folder / "x.mrc", "--confidence", "--dry-run")
    assert "5 runs of the network" in result.output
    settings = ReconstructSettings(
        thickness=400, model=str(place.model), max_memory=0.46, confidence=True, pixel_size=5.0
    )
    job = job_of((place.stack, place.angles), place.folder / "x.mrc", settings)
    with pytest.raises(ResourceError, match=r"--confidence: 0\.46 GB .* at least .* are needed"):
        ensemble.map_rows(resolve(job))


def test_the_library_says_where_maps_are_to_be_had():
    with pytest.raises(cryolithe.CryoLitheError, match="'confidence' is about the files"):
        cryolithe.reconstruct(noise(), list(ANGLES), confidence=True)


# The members


@pytest.mark.parametrize("angles", [WAVES, tuple(np.random.default_rng(0).permutation(WAVES)), WAVES[:10] + WAVES[:3]])
def test_even_and_odd_tilts_share_no_image_and_alternate(angles):
    even, odd, *_ = choose_members(angles)
    assert sorted((*even.tilts, *odd.tilts)) == list(range(len(angles)))
    assert abs(len(even.tilts) - len(odd.tilts)) <= 1
    order = np.argsort(angles, kind="stable")
    assert all(int(order[n]) in (even, odd)[n % 2].tilts for n in range(len(angles)))


def stack_for(images, angles):
    geometry = TiltGeometry(tuple(angles), images.shape[1:])
    return PreparedStack(images.astype(np.float32), geometry, 1.0, float("inf"))


def back_projected(stack, depth=SHAPE[0]):
    height, width = stack.geometry.image_shape
    return fbp(make_projector(stack.geometry, (depth, width)), stack.read_rows(0, height)).numpy()


def test_an_odd_image_does_not_reach_the_even_half():
    images = np.random.default_rng(1).standard_normal((len(WAVES), 12, 20))
    even, odd, *_ = choose_members(WAVES)
    changed = images.copy()
    changed[list(odd.tilts)] += 5
    first, second = (stack_of(stack_for(some, WAVES), even).read_rows(-3, 15) for some in (images, changed))
    assert torch.equal(first, second)
    assert first.shape[0] == len(even.tilts) == stack_of(stack_for(images, WAVES), even).geometry.tilts


def uneven_shifts():
    """Of columns, by depth and place."""
    nodes = [np.linspace(-half, half, count) for half, count in ((6, 3), (4, 2), (10, 5))]
    values = 2 * np.random.default_rng(3).standard_normal((len(WAVES), 3, 2, 5), dtype=np.float32)
    return ColumnShifts(*nodes, values)


@pytest.mark.parametrize("shifts", [None, uneven_shifts()], ids=["straight", "bent"])
@pytest.mark.parametrize("height", [11, 12])
def test_mirrors_are_exact_for_back_projection(height, shifts):
    stack = stack_for(np.random.default_rng(2).standard_normal((len(WAVES), height, 21)), WAVES)
    stack = replace(stack, geometry=replace(stack.geometry, shifts=shifts))
    whole = back_projected(stack)
    for member in choose_members(WAVES)[2:]:
        again = turned_back(back_projected(stack_of(stack, member)), member)
        # The shadows of voxels in shifted columns come from a table of steps, which has no middle.
        assert np.abs(again - whole).max() < (1e-5 if shifts is None else 3e-3) * np.abs(whole).max()
        rows = stack_of(stack, member).read_rows(-4, height + 8)  # what lies beyond the images mirrors them
        assert torch.equal(rows[:, 0], rows[:, 7])


@pytest.mark.parametrize("first", [0, 5])
def test_what_halves_and_their_images_show_follows_shifts_from_row_to_row(first):
    """Each row is looked at by itself."""
    run, stack, given, members = ensemble_of(blobs(), 1.0)
    stack = replace(stack, geometry=replace(stack.geometry, shifts=uneven_shifts()))
    depth, height, width = run.grid.shape
    rows = Maps(run, stack, given, members)._ensemble(first, height)
    seen = stack.seen_rows(first, height - first) / given.deviation
    for n, member in enumerate(members[:2]):
        own, other = (make_projector(stack.geometry.select(m.tilts), (depth, width)) for m in (member, members[1 - n]))
        for row in range(height - first):
            at, beside = own.at_row(first + row), other.at_row(first + row)
            one = slice(row, row + 1)
            images = fbp(at, seen[torch.tensor(member.tilts), one])
            again = fbp(beside, beside.forward(rows.halves[n][:, one]))
            for found, expected in ((rows.images[n], images), (rows.again[n], again)):
                assert torch.allclose(found[:, one], expected, atol=1e-4 * float(found.abs().max()))


# The maps


def test_windows_are_gaussians_with_mirrors_at_the_faces():
    values = np.random.default_rng(3).standard_normal((9, 20, 13)).astype(np.float32)
    window = Window(1.5)
    wide = np.pad(values, ((0, 0), (window.reach_px,) * 2, (0, 0)), mode="symmetric")
    expected = gaussian_filter(values, 1.5, truncate=3.0)
    assert np.allclose(window.mean(torch.from_numpy(wide)).numpy(), expected, atol=1e-5)
    assert window_of((8, 100, 100)).sigma_px == 1.0


def ensemble_of(specimen, strength, seed=0, own=0.0, angles=WAVES):
    """Back-projections of a specimen's images with noise; mirrors differ by ``own``."""
    rng = np.random.default_rng(seed)
    depth, height, width = specimen.shape
    clean = make_projector(TiltGeometry(angles, (height, width)), (depth, width)).forward(torch.from_numpy(specimen))
    images = clean.numpy() + strength * rng.standard_normal(clean.shape)
    stack = stack_for(images, angles)
    whole = back_projected(stack, depth)
    members = choose_members(angles)
    volumes = {m.name: turned_back(back_projected(stack_of(stack, m), depth), m) for m in members}
    for name in ("mirror_x", "mirror_y"):
        volumes[name] = volumes[name] + own * rng.standard_normal(specimen.shape).astype(np.float32)
    settings = SimpleNamespace(confidence=True, max_memory=None)
    run = SimpleNamespace(
        grid=SimpleNamespace(shape=specimen.shape),
        depth=depth,
        x_tilt_deg=0.0,
        device=torch.device("cpu"),
        model=None,
        job=SimpleNamespace(settings=settings),
    )
    return run, stack, Made(whole, volumes, float(whole.mean()), float(whole.std())), members


def blobs(shape=(24, 32, 40), seed=4):
    values = np.zeros(shape, np.float32)
    for place in np.random.default_rng(seed).uniform(0.25, 0.75, (4, 3)) * shape:
        values[tuple(place.astype(int))] = 40.0
    return gaussian_filter(values, 1.5)


def test_more_noise_is_more_error_and_less_confidence():
    found = []
    for strength in (0.0, 0.2, 1.0, 5.0):
        maps = Maps(*ensemble_of(blobs(), strength)).rows(0, 32)
        found.append([float(maps[kind].mean()) for kind in MAP_KINDS])
    confidence, error, share = np.transpose(found)
    assert (np.diff(confidence) < 0).all()
    assert (np.diff(error) > 0).all()
    assert share[0] < share[-1]


def test_members_that_agree_disagree_nowhere():
    angles = tuple(float(angle) for angle in range(-60, 61, 3))
    clean, noisy = (Maps(*ensemble_of(blobs(), noise, angles=angles)).moments(0, 32) for noise in (0.0, 2.0))
    assert float(clean["mirrored"].max()) < 1e-8
    # Tilts of half the number leave streaks, which differ; noise differs by far more.
    assert float(clean["unshared"].mean()) < 0.15 * float(noisy["unshared"].mean())
    whole = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 30, 10)).astype(np.float32))
    alike = moments_of(Ensemble(whole, (whole, whole), (whole, whole), (whole, whole), (whole, whole)), Window(1.0))
    assert float(alike["unshared"].max()) < 1e-6
    assert float(alike["mirrored"].max()) == 0


def test_a_network_is_less_sure_where_it_contradicts_itself():
    """How wrong it is in all, images tell."""
    run, stack, made, members = ensemble_of(blobs(), 0.3)
    there = np.zeros(made.whole.shape, np.float32)
    there[..., :16] = np.random.default_rng(8).standard_normal(there[..., :16].shape)
    mirrors = {name: volume + there * name.startswith("mirror") for name, volume in made.members.items()}
    sure, unsure = (
        Maps(run, stack, replace(made, members=some), members).rows(0, 32) for some in (made.members, mirrors)
    )
    error, confidence = (unsure[kind] - sure[kind] for kind in ("error", "confidence"))
    assert float(error[..., :12].mean()) > 0.1 > 0 > float(error[..., 22:].mean())
    assert float(confidence[..., :8].mean()) < 0 < float(confidence[..., 30:].mean())
    assert float(unsure["error"].square().mean()) == pytest.approx(float(sure["error"].square().mean()), rel=0.1)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_maps_of_the_mirrored_series_are_the_mirrored_maps(axis):
    run, stack, made_of, members = ensemble_of(blobs(), 0.5)
    mirror = next(member for member in members if member.mirror == axis)
    maps = Maps(run, stack, made_of, members).rows(0, 32)
    seen = stack_of(stack, mirror)
    turned = stack_for(seen.read_rows(0, 32).numpy(), seen.geometry.angles_deg)
    own = choose_members(turned.geometry.angles_deg)
    again = {m.name: turned_back(back_projected(stack_of(turned, m), 24), m) for m in own}
    whole = back_projected(turned, 24)
    mirrored = Maps(run, turned, Made(whole, again, float(whole.mean()), float(whole.std())), own).rows(0, 32)
    for kind in MAP_KINDS:
        assert np.allclose(np.flip(mirrored[kind].numpy(), mirror.axes), maps[kind].numpy(), atol=1e-2), kind


def test_noise_alone_is_unsupported_everywhere_and_what_was_seen_is_not():
    empty = Maps(*ensemble_of(np.zeros((24, 32, 40), np.float32), 1.0)).rows(0, 32)
    assert float(empty["unsupported"].mean()) > 0.9
    assert float(empty["unsupported"].quantile(0.02)) > 0.6
    assert float(empty["confidence"].mean()) < 0.4
    specimen = blobs()
    seen = Maps(*ensemble_of(specimen, 0.1)).rows(0, 32)["unsupported"].numpy()
    there, empty_ice = specimen > 0.3 * specimen.max(), gaussian_filter(specimen, 4) < 1e-3 * specimen.max()
    assert seen[there].mean() < 0.5
    assert seen[empty_ice].mean() > seen[there].mean() + 0.3


@pytest.mark.parametrize("made_of_noise", [False, True], ids=["of something else", "of the noise itself"])
def test_what_noise_gives_by_chance_is_told_from_images_that_hold_a_specimen(made_of_noise):
    rng, window, shape = np.random.default_rng(9), Window(1.0), (32, 70, 64)
    noises = [torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for _ in range(4)]
    specimen = torch.from_numpy(100 * gaussian_filter(rng.standard_normal(shape), 4).astype(np.float32))
    of_even, of_odd = noises[:2]
    halves = noises[0 if made_of_noise else 2], noises[1 if made_of_noise else 3]
    rows = Ensemble(specimen, halves, halves, (specimen + of_even, specimen + of_odd), halves)
    inside = (slice(4, -4), slice(None), slice(4, -4))  # windows at a face hold fewer values
    told = [float(values[inside].sum()) for values in noise_moments(halves, noise_of(rows), window, 20)]
    # White noise: the reciprocal of the number of values in a window; twice that, where both covariances are one.
    taps = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    alone = (np.sum(taps**2) / np.sum(taps) ** 2) ** 3
    assert noise_variance(*told) == pytest.approx(alone * (2 if made_of_noise else 1), rel=0.15)
    by_chance = window.mean(halves[0] * of_odd + halves[1] * of_even)[inside].square().sum()
    squares = window.mean(halves[0].square() + halves[1].square()) * window.mean(noise_of(rows).square())
    assert float(by_chance / squares[inside].sum()) == pytest.approx(noise_variance(*told), rel=0.15)


def crowded(shape):
    """Coarse structure everywhere, of which a window holds but a few independent values."""
    return gaussian_filter(np.random.default_rng(5).standard_normal(shape), 2.5).astype(np.float32)


@pytest.mark.slow
def test_what_images_hold_of_coarse_structure_is_what_they_hold_without_their_noise():
    specimen, angles, means = crowded((24, 32, 64)), tuple(float(angle) for angle in range(-60, 61, 3)), []
    clean = ensemble_of(specimen, 0.0, angles=angles)[1]
    deviation = float(clean.read_rows(0, 32).std())
    for snr_db in (25, 15, 5, 0, -5, -15):
        run, stack, made_of, members = ensemble_of(specimen, deviation * 10 ** (-snr_db / 20), angles=angles)
        share, true = (Maps(run, of, made_of, members).rows(0, 32)["unsupported"] for of in (stack, clean))
        means.append(float(share.mean()))
        assert means[-1] == pytest.approx(float(true.mean()), abs=0.08 if snr_db < 5 else 0.02)
    assert means[0] < 0.3
    assert (np.diff(means) > -0.01).all()
    assert means[-1] > 0.9


@pytest.mark.slow
def test_images_hold_most_of_a_good_volume(tmp_path):
    specimen, angles = crowded((32, 40, 64)), tuple(float(angle) for angle in range(-60, 61, 4))
    clean = make_projector(TiltGeometry(angles, (40, 64)), (32, 64)).forward(torch.from_numpy(specimen)).numpy()
    images = clean + 10 ** (-15 / 20) * clean.std() * np.random.default_rng(3).standard_normal(clean.shape)
    stack, tilts = write_series(tmp_path, -images.astype(np.float32), angles)
    words = (stack, tilts, "--thickness", 32, "--model", "fast", "--contrast", "dark", "--confidence")
    made(*words, "-o", tmp_path / "v.mrc")
    volume, share = voxels(tmp_path / "v.mrc"), voxels(tmp_path / "v_unsupported.mrc")
    assert abs(np.corrcoef(volume.ravel(), specimen.ravel())[0, 1]) > 0.7
    assert share.mean() < 0.4
    assert np.quantile(share, 0.1) < 0.3


def test_what_is_put_where_no_image_shows_it_is_unsupported():
    run, stack, found, members = ensemble_of(blobs(), 0.1)
    wave = np.cos(2 * np.pi * 0.25 * np.arange(24))[:, None, None].astype(np.float32)  # along z: no tilt shows it
    box = np.zeros(found.whole.shape, np.float32)
    box[:, :16] = 3 * found.deviation * wave
    invented = Made(
        found.whole + box, {name: volume + box for name, volume in found.members.items()}, found.mean, found.deviation
    )
    share = Maps(run, stack, invented, members).rows(0, 32)["unsupported"]
    plain = Maps(run, stack, found, members).rows(0, 32)["unsupported"]
    assert float(share[6:18, 4:12].median()) > 0.85
    assert float((share - plain)[6:18, 4:12].min()) > -0.05
    assert float((share - plain)[:, 28:].abs().mean()) < 0.05


def test_the_law_in_use_is_the_one_that_the_benchmark_made():
    made_by = json.loads((ROOT / "benchmarks" / "results" / "uncertainty.json").read_text())
    assert made_by["law"] == asdict(LAW)
    assert min(row["correlation"] for row in made_by["rows"].values()) >= 0.5


def test_the_law_is_homogeneous_and_constant_volumes_are_no_trouble():
    rng = np.random.default_rng(6)
    rows = [torch.from_numpy(rng.standard_normal((8, 40, 9)).astype(np.float32)) for _ in range(9)]
    window = Window(1.0)

    def moments(factor):
        a, b, c, d, e, f, g, h, i = (factor * values for values in rows)
        given = Ensemble(a, (b, c), (d, e), (f, g), (h, i))
        return given, moments_of(given, window)

    (given, once), (_, twice) = moments(1.0), moments(2.0)
    assert set(once) == set(MOMENTS)
    assert torch.allclose(expected_error(twice), 2 * expected_error(once), rtol=1e-5)
    flat, nothing = moments(0.0)
    assert float(expected_error(nothing).max()) == 0
    assert float(expected_correlation(without_noise(flat, window), nothing).max()) == 0
    share = unsupported(flat.halves, flat, flat.whole, window, Chance(0.01, 0.0))
    assert float(share.min()) == 1
    assert torch.isfinite(unsupported(given.halves, given, given.whole, window, Chance(0.01, 0.1))).all()


def test_nothing_is_chosen_of_too_few_angles():
    with pytest.raises(InputError, match="9 tilts are too few"):
        choose_members(WAVES[:9])
