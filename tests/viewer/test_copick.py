"""A copick project on this disk, through the real library: what is read, and what is put into it."""

from __future__ import annotations

import json

import mrcfile
import numpy as np
import pytest
from command import call
from scipy.spatial.transform import Rotation
from tiny_series import voxels

from cryolithe.formats import write_volume
from cryolithe.formats.particles.star import read_positions
from cryolithe.formats.star_tables import read_star
from cryolithe.machine.extras import install_command
from cryolithe.portals.copick_project import euler_deg
from cryolithe.simulation.cell import relion_euler_deg
from cryolithe.volume import Volume

SHAPE = (12, 14, 18)
PLACES = np.array([(3.0, 4.0, 5.0), (10.5, 2.0, 7.25)])  # z, y, x in voxels


def test_angles_are_those_that_simulations_write():
    turns = [*Rotation.random(8, rng=1), Rotation.identity(), Rotation.from_euler("z", 40, degrees=True)]
    turns += [Rotation.from_euler("zy", (25, 180), degrees=True)]
    for turn in turns:
        matrix = turn.as_matrix()
        made = Rotation.from_euler("ZYZ", euler_deg(matrix), degrees=True).inv().as_matrix()
        assert made == pytest.approx(matrix, abs=1e-6)
        ours = Rotation.from_euler("ZYZ", relion_euler_deg(matrix[::-1, ::-1]), degrees=True).inv().as_matrix()
        assert made == pytest.approx(ours, abs=1e-6)


def test_without_the_library_a_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "p.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "copick", None)
    result = call("copick", "runs", tmp_path / "p.json")
    assert result.exit_code == 2
    assert install_command("copick") in result.stderr
    assert "does not exist" in call("copick", "runs", tmp_path / "q.json").stderr


@pytest.fixture
def project(tmp_path):
    """A project with a run, a tomogram and picks, made by the library itself."""
    copick = pytest.importorskip("copick")
    config = tmp_path / "project.json"
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    objects = [
        {"name": name, "is_particle": True, "label": number, "color": [0, 0, 0, 0], "radius": 100}
        for number, name in enumerate(("ribosome", "proteasome"), start=1)
    ]
    config.write_text(
        json.dumps(
            {
                "config_type": "filesystem",
                "name": "test",
                "version": "1.0.0",
                "pickable_objects": objects,
                "overlay_root": f"local://{overlay}",
                "overlay_fs_args": {"auto_mkdir": True},
            }
        )
    )
    root = copick.from_file(str(config))
    run = root.new_run("TS_001")
    values = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    run.new_voxel_spacing(10.0).new_tomogram("wbp").from_numpy(values)
    picks = run.new_picks("ribosome", "1", "me")
    transforms = np.tile(np.eye(4), (len(PLACES), 1, 1))
    transforms[1, :3, :3] = Rotation.from_euler("xyz", (20, 30, 40), degrees=True).as_matrix()
    transforms[0, :3, 3] = (10.0, -20.0, 0.0)  # a shift that was refined, x y z in Å
    picks.from_numpy(PLACES[:, ::-1] * 10.0, transforms)
    picks.store()
    root.new_run("TS_002")
    return config, values, transforms


def cryolithe(*words, code=0):
    result = call("copick", *words)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_a_run_is_read(project, tmp_path):
    config, values, transforms = project
    listed = cryolithe("runs", config)
    assert "TS_001: wbp at 10 Å; 2 ribosome (me)" in listed
    assert "TS_002: no tomograms; no picks" in listed
    cryolithe("get", config, "TS_001", "-o", tmp_path / "out")
    volume = tmp_path / "out" / "TS_001_rec.mrc"
    assert (voxels(volume) == values).all()
    with mrcfile.open(volume) as file:
        assert file.voxel_size.x == 10
    star = tmp_path / "out" / "TS_001_particles.star"
    found = read_positions(star, SHAPE, 10.0, volume.name)
    assert found.position_px == pytest.approx(np.add(PLACES, [(0, -2, 1), (0, 0, 0)]), abs=1e-3)
    assert set(found.kinds) == {"ribosome"}
    (table,) = read_star(star)
    angles = np.stack([table.numbers(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")], axis=1)
    turned = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
    assert turned == pytest.approx(transforms[:, :3, :3], abs=1e-4)
    assert "exists" in cryolithe("get", config, "TS_001", "-o", tmp_path / "out", code=2)


def test_a_tomogram_of_ours_is_put_into_the_project(project, tmp_path):
    copick = pytest.importorskip("copick")
    config, values, _ = project
    for size, number in ((10.0, 1), (7.84, 2)):
        ours = np.random.default_rng(number).standard_normal(SHAPE).astype(np.float32)
        write_volume(tmp_path / "v_rec.mrc", Volume(ours, size), label="CryoLithe test", overwrite=True)
        cryolithe("put", config, "TS_001", tmp_path / "v_rec.mrc", "--type", "ours")
        run = copick.from_file(str(config)).get_run("TS_001")
        tomogram = run.get_voxel_spacing(size).get_tomograms("ours")[0]
        np.testing.assert_array_equal(tomogram.numpy(), ours)
        assert "--overwrite" in cryolithe("put", config, "TS_001", tmp_path / "v_rec.mrc", "--type", "ours", code=2)
        cryolithe("put", config, "TS_001", tmp_path / "v_rec.mrc", "--type", "ours", "--overwrite")
    np.testing.assert_array_equal(run.get_voxel_spacing(10.0).get_tomograms("wbp")[0].numpy(), values)
    said = cryolithe("get", config, "TS_001", "-o", tmp_path / "out", code=2)
    assert "3 tomograms that fit" in said
    cryolithe("get", config, "TS_001", "-o", tmp_path / "out", "--voxel-size", 7.84)


@pytest.mark.parametrize("kind", ["my_type", "my type", "my/type", "_my-type"])
def test_a_tomogram_is_replaced_only_when_asked(kind, project, tmp_path):
    copick = pytest.importorskip("copick")
    config, *_ = project
    ours = [np.random.default_rng(n).standard_normal(SHAPE).astype(np.float32) for n in (1, 2)]
    for number, values in enumerate(ours):
        write_volume(tmp_path / f"v{number}.mrc", Volume(values, 10.0), label="CryoLithe test")
    put = ("put", config, "TS_001", "--type", kind)

    def stored():
        run = copick.from_file(str(config)).get_run("TS_001")
        (tomogram,) = run.get_voxel_spacing(10.0).get_tomograms("my-type")
        return tomogram.numpy()

    assert "has the tomogram my-type at 10 Å" in cryolithe(*put, tmp_path / "v0.mrc")
    assert "has a tomogram my-type at 10 Å; give --overwrite" in cryolithe(*put, tmp_path / "v1.mrc", code=2)
    np.testing.assert_array_equal(stored(), ours[0])
    cryolithe(*put, tmp_path / "v1.mrc", "--overwrite")
    np.testing.assert_array_equal(stored(), ours[1])
    assert "no name that copick takes" in cryolithe("put", config, "TS_001", tmp_path / "v0.mrc", "--type", "_", code=2)


def with_static(config, tmp_path):
    """The same project with what it holds as its static part, and an empty overlay."""
    told = json.loads(config.read_text())
    (tmp_path / "new").mkdir()
    told |= {"static_root": told["overlay_root"], "static_fs_args": {}, "overlay_root": f"local://{tmp_path / 'new'}"}
    config.write_text(json.dumps(told))


def test_a_tomogram_outside_the_overlay_is_not_replaced(project, tmp_path):
    config, *_ = project
    with_static(config, tmp_path)
    write_volume(tmp_path / "v.mrc", Volume(np.ones(SHAPE, np.float32), 10.0), label="CryoLithe test")
    for more in ((), ("--overwrite",)):
        why = cryolithe("put", config, "TS_001", tmp_path / "v.mrc", "--type", "wbp", *more, code=2)
        assert "not in the project's overlay" in why
        assert "another --type" in why
    cryolithe("put", config, "TS_001", tmp_path / "v.mrc", "--type", "ours")


def test_what_a_project_cannot_hold_is_told(project, tmp_path):
    config, *_ = project
    path = tmp_path / "v.mrc"
    write_volume(path, Volume(np.ones(SHAPE, np.float32), 10.0, (0.0, 50.0, 0.0)), label="CryoLithe test")
    words = ("copick", "put", str(config), "TS_001", str(path), "--type", "moved")
    assert "lies at 0, 50, 0 Å (z, y, x), which is not kept" in call(*words).stderr
    with mrcfile.open(path, "r+") as file:
        file.voxel_size = (10.0, 10.0, 20.0)
    assert "voxels of 20 x 10 x 10 Å" in cryolithe("put", config, "TS_001", path, "--type", "flat", code=2)
    with mrcfile.open(path, "r+") as file:
        file.voxel_size = (10.0, 10.0, 10.001)  # as headers round
    cryolithe("put", config, "TS_001", path, "--type", "flat")


def test_a_class_is_the_object_s_label_in_every_run(project, tmp_path):
    copick = pytest.importorskip("copick")
    config, *_ = project
    root = copick.from_file(str(config))
    run = root.new_run("TS 003.x")
    run.new_voxel_spacing(10.0).new_tomogram("wbp").from_numpy(np.ones(SHAPE, np.float32))
    for name, user in (("ribosome", "me"), ("proteasome", "me"), ("proteasome", "her")):
        picks = run.new_picks(name, "1", user)
        picks.from_numpy(np.full((1, 3), 200.0 if user == "her" else 30.0), np.eye(4)[None])
        picks.store()
    said = cryolithe("get", config, "TS 003.x", "-o", tmp_path / "out")
    assert "rlnClassNumber: 1 ribosome, 2 proteasome" in said
    assert "1 of 3 particles lie outside" in said
    star = tmp_path / "out" / "TS_003.x_particles.star"
    found = read_positions(star, SHAPE, 10.0, "TS_003.x_rec.mrc")
    assert sorted(found.kinds) == ["proteasome", "proteasome", "ribosome"]
    cryolithe("get", config, "TS 003.x", "-o", tmp_path / "one", "--object", "proteasome")
    (table,) = read_star(tmp_path / "one" / star.name)
    assert set(table.text("rlnClassNumber")) == {"2"}
    told = json.loads(config.read_text())
    for each in told["pickable_objects"]:
        each["label"] = 1  # says nothing
    config.write_text(json.dumps(told))
    cryolithe("get", config, "TS 003.x", "-o", tmp_path / "one", "--object", "proteasome", "--overwrite")
    (table,) = read_star(tmp_path / "one" / star.name)
    assert set(table.text("rlnClassNumber")) == {"2"}


def test_what_is_not_listed_is_counted(project):
    copick = pytest.importorskip("copick")
    config, *_ = project
    run = copick.from_file(str(config)).get_run("TS_001")
    for number in range(7):
        run.get_voxel_spacing(10.0).new_tomogram(f"t{number}")
        run.new_picks("proteasome", "1", f"user{number}").store()
    listed = cryolithe("runs", config)
    assert "t5 at 10 Å and 2 more; " in listed
    assert "(user5) and 2 more" in listed


def test_what_is_not_there_is_refused_in_a_line(project, tmp_path):
    config, _, _ = project
    assert "did you mean 'TS_001'" in cryolithe("get", config, "TS_01", "-o", tmp_path / "o", code=2)
    assert "no tomogram that fits" in cryolithe("get", config, "TS_002", "-o", tmp_path / "o", code=2)
    words = ("get", config, "TS_001", "-o", tmp_path / "o", "--object", "ribosom")
    assert "did you mean 'ribosome'" in cryolithe(*words, code=2)
    write_volume(tmp_path / "v.mrc", Volume(np.zeros(SHAPE, np.float32)), label="CryoLithe test")
    assert "no voxel size" in cryolithe("put", config, "TS_001", tmp_path / "v.mrc", code=2)
    broken = tmp_path / "broken.json"
    broken.write_text('{"config_type": "filesystem"}')
    assert "is no copick project" in cryolithe("runs", broken, code=2)
    assert not (tmp_path / "o").exists()
