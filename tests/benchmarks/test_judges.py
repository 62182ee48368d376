"""The judges of the papers on small series laid out as their entries: what is right scores 1, noise scores chance."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from command import call
from judged_entry import SHAPE, TRAINING_DATA, judged_entry, judged_manifest, scene, write_map, write_places

from cryolithe.cli import main
from cryolithe.denoising.ceiling import half_snr_db
from cryolithe.errors import InputError
from cryolithe.evaluation import matching
from cryolithe.formats import read_mrc, write_stack

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import common  # noqa: E402
import empiar  # noqa: E402
from parts import judged_volumes, judges  # noqa: E402

RIBOSOMES, SHELLS = 20.0, 10.8  # Å: voxels in which 280 Å and 80 Å are 14 and 7.4


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """`python benchmarks/empiar.py`, whose commands run in this process; returns what it wrote."""

    def run(command, limit_seconds=None):
        words = command[command.index("cryolithe") + 1 :]
        result = call(*words)
        if result.exit_code:
            raise RuntimeError(f"{words} ended with exit code {result.exit_code}:\n{result.output}")
        return common.ChildRun(1.0, 2, 3)

    monkeypatch.setattr(judged_volumes, "peak_rss_of", run)

    def judged(*words):
        output = tmp_path / "judged.json"
        given = ["--data", tmp_path / "data", "--manifests", tmp_path / "manifests", "--device", "cpu"]
        sized = [] if "--thickness" in words else ["--thickness", SHAPE[0]]
        line = ["empiar.py", *given, *sized, "--workdir", tmp_path / "work", "--output", output, *words]
        monkeypatch.setattr(sys, "argv", [str(word) for word in line])
        empiar.main()
        return json.loads(output.read_text(encoding="utf-8"))

    return judged


def ribosomes(tmp_path, noise=1.0):
    """One series of EMPIAR-10045 in voxels of 20 Å."""
    manifest = judged_manifest("10045", RIBOSOMES, tmp_path / "manifests")
    made = scene(280 / RIBOSOMES)
    return made, judged_entry(manifest, "05", tmp_path / "data" / "EMPIAR-10045", made, noise)


@pytest.fixture
def fewer_rotations(monkeypatch):
    """Enough for particles as small as these, in a third of the time."""
    monkeypatch.setattr(matching, "ROTATIONS", 80)


def shells(tmp_path, noise=0.5):
    """One series of EMPIAR-10164 in voxels of 10.8 Å, with a template."""
    manifest = judged_manifest("10164", SHELLS, tmp_path / "manifests")
    made = scene(80 / SHELLS)
    root = tmp_path / "data" / "EMPIAR-10164"
    paths = judged_entry(manifest, "TS_01", root, made, noise)
    paths["template"] = root / "template.mrc"
    write_map(paths["template"], made.template, SHELLS)
    return made, paths


def refused(judge, *words):
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as ended:
        judge(*words)
    text = str(ended.value)
    assert text.startswith("Error: ")
    assert "\n" not in text
    return text


def white(seed):
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def rows_of(table, origin):
    found = [row for row in table["rows"] if row[-1] == origin]
    return {row[0]: dict(zip(table["columns"], row, strict=True)) for row in found}


@pytest.mark.slow
@pytest.mark.parametrize(("target", "score"), [("truth", 1.0), ("noise", 0.0)])
def test_a_perfect_volume_is_picked_perfectly_and_noise_by_chance(target, score, tmp_path, judge):
    made, paths = ribosomes(tmp_path)
    write_map(paths["target"], -made.density if target == "truth" else white(1), RIBOSOMES)
    (table,) = judge("--judges", "picking", "--methods", "FBP,Gaussian")["tables"]
    rows = rows_of(table, judges.HERE)
    own = rows["entry's own (FBP + cryoCARE + IsoNet)"]
    assert own["particles"] == len(made.places)
    assert own["F1"] == pytest.approx(score, abs=0.12)
    assert (own["recall"] == 1) == (target == "truth")
    assert 0.2 < rows["raw (FBP)"]["F1"] <= 1
    printed = rows_of(table, judges.PUBLISHED)
    assert printed["DUAL"]["F1"] == 0.702
    assert printed["DUAL"]["F1 s.d."] == 0.038
    assert len(printed) == 7


@pytest.mark.slow
@pytest.mark.parametrize(("target", "score"), [("truth", 1.0), ("noise", 0.0)])
def test_a_template_finds_all_in_a_perfect_volume_and_nothing_in_noise(target, score, tmp_path, judge, fewer_rotations):
    made, paths = shells(tmp_path)
    write_map(paths["target"], -made.density if target == "truth" else white(2), SHELLS)
    (table,) = judge("--judges", "matching", "--methods", "FBP")["tables"]
    rows = rows_of(table, judges.HERE)
    assert rows["entry's own (your own)"]["PR-AUC"] == pytest.approx(score, abs=0.05)
    assert 0.5 < rows["raw (FBP)"]["PR-AUC"] <= 1
    printed = {name: row["PR-AUC"] for name, row in rows_of(table, judges.PUBLISHED).items()}
    assert printed == {"raw": 0.93, "CryoSamba": 0.82, "cryoCARE": 0.79, "IsoNet": 0.68, "DeepDeWedge": 0.44}


@pytest.mark.slow
def test_honest_denoisers_stay_below_the_ceiling(tmp_path, judge):
    shells(tmp_path, noise=2.0)
    methods = ("FBP", "Gaussian", "N2N", "draft")
    words = ("--judges", "halves", "--methods", ",".join(methods), "--planes", "24", "--train-minutes", "0.03")
    found = judge(*words)
    (scores,) = found["scores"]["halves"].values()
    assert set(scores) == {"raw", "low-pass 2x", "low-pass 4x", "low-pass 8x", *methods[1:]}
    raw = scores["raw"]["half_snr_raw_db"]
    for name, score in scores.items():
        correlations = score["correlations"]
        assert max(correlations["denoised"]) <= correlations["ceiling"] + 0.01, name
        assert not score["leaks"], name
        assert score["voxels"] == 24 * SHAPE[1] * SHAPE[2]
    assert scores["Gaussian"]["half_snr_denoised_db"] > raw + 1
    assert scores["low-pass 2x"]["half_snr_denoised_db"] > raw + 1
    r = scores["raw"]["correlations"]["raw"]
    assert scores["raw"]["half_snr_ceiling_db"] == pytest.approx(half_snr_db(math.sqrt(r)), abs=1e-3)


def test_every_method_is_asked_for_in_words_that_its_command_has(tmp_path, monkeypatch):
    """Volumes are not made: the trainings have tests of their own."""
    asked = []

    def run(command, limit_seconds=None):
        name, *words = command[command.index("cryolithe") + 1 :]
        context = main.get_command(None, name).make_context(name, list(words))
        asked.append((context.params["method"], context.params.get("model"), words))
        write_map(Path(words[words.index("-o") + 1]), white(3), SHELLS)
        return common.ChildRun(1.0, 2, 3)

    monkeypatch.setattr(judged_volumes, "peak_rss_of", run)
    monkeypatch.setattr(judged_volumes, "general_weights", lambda: tmp_path / "general.safetensors")
    assert set(judged_volumes.usual_methods()) == set(judged_volumes.METHODS) - {"SIRT"}
    making = judged_volumes.Making(tmp_path, SHAPE[0], "cpu", 3.0)
    for method in judged_volumes.METHODS:
        for part in ("tilts", "even", "odd"):
            assert judged_volumes.volume_of(making, method, part).is_file()
    samba = [words for method, _, words in asked if method == "samba"]
    assert [Path(words[0]).stem for words in samba] == ["tilts_rec", "even_rec", "odd_rec"]  # each learns from itself
    assert all(words[words.index("--train-minutes") + 1] == "3" for words in samba)
    models = [model for method, model, _ in asked if method == "n2n" and model is not None]
    assert models == [tmp_path / "N2N-3-min" / "tilts_rec.safetensors"] * 2
    before = len(asked)
    judged_volumes.volume_of(making, "Samba")
    assert len(asked) == before
    monkeypatch.setattr(judged_volumes, "general_weights", lambda: None)
    assert "N2N-general" not in judged_volumes.usual_methods()
    with pytest.raises(InputError, match="no general denoiser"):
        judged_volumes.volume_of(judged_volumes.Making(tmp_path / "work", 8, "cpu"), "N2N-general")


def test_printed_half_snrs_have_the_ceilings_of_their_raw_values():
    printed = judges.published_scores(judges.read_judges(TRAINING_DATA / "judges.yaml")["halves"])
    ceilings = [half_snr_db(scores["raw"].ceiling) for scores in printed.values()]
    assert ceilings == pytest.approx([-4.4, -6.3, -3.2, -5.5], abs=0.06)
    gains = [scores["Topaz U-net, trained on it"].gain_db for scores in printed.values()]
    assert gains == pytest.approx([3.85, 2.78, 4.54, 3.13], abs=1e-6)
    assert not any(score.leaks for scores in printed.values() for score in scores.values())


def test_printed_numbers_stand_in_one_place():
    for path in (ROOT / "benchmarks" / "parts").glob("judge*.py"):
        text = path.read_text(encoding="utf-8")
        for number in ("0.82", "0.702", "11.12"):
            assert number not in text, path


@pytest.mark.slow
def test_a_leak_is_named(tmp_path, judge):
    """A denoiser that puts the other half's noise into a half scores above the ceiling."""
    shells(tmp_path, noise=2.0)
    judge("--judges", "halves", "--methods", "FBP")
    work = tmp_path / "work" / "10164" / "TS_01"
    raw = [read_mrc(work / "FBP" / f"{part}_rec.mrc").data for part in ("even", "odd")]
    (work / "draft").mkdir()
    for part in ("even", "odd"):
        write_map(work / "draft" / f"{part}_rec.mrc", raw[0] + raw[1], SHELLS)
    (table,) = judge("--judges", "halves", "--methods", "FBP,draft")["tables"]
    rows = rows_of(table, judges.HERE)
    assert [row["leak"] for name, row in rows.items() if name.endswith("draft")] == [True]
    assert not any(row["leak"] for name, row in rows.items() if not name.endswith("draft"))


@pytest.mark.slow
def test_halves_of_images_are_judged_without_a_verdict_on_leaks(tmp_path, judge):
    ribosomes(tmp_path)
    found = judge("--judges", "halves", "--methods", "FBP,Gaussian")
    rows = rows_of(found["tables"][0], judges.HERE)
    assert all("(images)" in name and row["leak"] is None for name, row in rows.items())
    (scores,) = found["scores"]["halves"].values()
    assert {score["leaks"] for score in scores.values()} == {None}
    assert "--planes: expected" in refused(judge, "--judges", "halves", "--methods", "FBP", "--planes", "0")


@pytest.mark.slow
def test_places_that_cannot_be_right_are_refused_in_one_line(tmp_path, judge):
    made, paths = ribosomes(tmp_path, noise=0.5)
    series, star = "IS002_291013_005", paths["particles"]
    words = ("--judges", "picking", "--methods", "FBP")
    middle = (np.array(SHAPE) - 1) / 2
    write_places(star, series, middle + 3 * (made.places - middle), RIBOSOMES)
    assert "lie in the volume of 32 x 96 x 80 voxels (z, y, x) of 20 Å" in refused(judge, *words)
    mirrored = made.places * [-1, 1, 1] + [SHAPE[0] - 1, 0, 0]
    write_places(star, series, mirrored, RIBOSOMES)
    assert "when mirrored along z; change the sign" in refused(judge, *words)
    write_places(star, "TS_77", made.places, RIBOSOMES)
    assert "TS_77" in refused(judge, *words)
    columns = "".join(f"_rlnCoordinate{axis} #{n}\n" for n, axis in enumerate("XYZ", 1))
    star.write_text(f"data_particles\n\nloop_\n{columns}10 10 10\n20 20 20\n")
    assert "expected rlnCenteredCoordinateXAngst" in refused(judge, *words)
    star.unlink()
    assert "005_particles.star does not exist" in refused(judge, *words)
    elsewhere = tmp_path / "elsewhere.star"
    write_places(elsewhere, series, made.places, RIBOSOMES)
    (table,) = judge(*words, "--particles", elsewhere)["tables"]
    assert rows_of(table, judges.HERE)["raw (FBP)"]["recall"] > 0.7


@pytest.mark.slow
def test_stacks_of_the_other_contrast_are_refused(tmp_path, judge):
    _, paths = ribosomes(tmp_path, noise=0.5)
    write_stack(paths["stack"], -np.array(read_mrc(paths["stack"]).data), RIBOSOMES, "made for a test", overwrite=True)
    text = refused(judge, "--judges", "picking", "--methods", "FBP")
    assert "brighter than the rest" in text
    assert "stack_contrast" in text


@pytest.mark.slow
def test_templates_that_cannot_be_right_are_refused_in_one_line(tmp_path, judge):
    made, paths = shells(tmp_path)
    words = ("--judges", "matching", "--methods", "FBP")
    write_map(paths["template"], -made.template, SHELLS)
    assert "dense = bright" in refused(judge, *words)
    write_map(paths["template"], made.template, 2.0)
    assert "expected a map of a whole particle of 80 Å" in refused(judge, *words)
    write_map(paths["template"], made.template, None)
    assert "voxel size" in refused(judge, *words)
    paths["template"].unlink()
    assert "template.mrc does not exist" in refused(judge, *words)


@pytest.mark.slow
def test_halves_that_cannot_be_right_are_refused_in_one_line(tmp_path, judge):
    _, paths = shells(tmp_path)
    even = np.array(read_mrc(paths["even"]).data)
    write_stack(paths["odd"], even, SHELLS, "made for a test", overwrite=True)
    assert "have the same noise" in refused(judge, "--judges", "halves", "--methods", "FBP")


def test_all_leaves_out_what_lacks_files_and_a_choice_must_exist(tmp_path, judge):
    _, paths = shells(tmp_path, noise=2.0)
    paths["template"].unlink()
    found = judge("--judges", "all", "--methods", "FBP")
    assert len(found["tables"]) == 1
    assert "no matching" in found["tables"][0]["note"]
    assert "template.mrc is not there" in found["tables"][0]["note"]
    assert "no judge 'half'" in refused(judge, "--judges", "half")
    assert "no method 'Topas'" in refused(judge, "--judges", "halves", "--methods", "Topas")
    assert "nothing was judged" in refused(judge, "--judges", "picking", "--methods", "FBP")


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_files_only(tmp_path, judge):
    _, paths = shells(tmp_path, noise=2.0)
    words = ("--judges", "halves", "--methods", "FBP")
    first = judge(*words)["scores"]
    made = tmp_path / "work" / "10164" / "TS_01" / "FBP" / "even_rec.mrc"
    stamp = made.stat().st_mtime_ns
    assert judge(*words)["scores"] == first
    assert made.stat().st_mtime_ns == stamp
    even = np.array(read_mrc(paths["even"]).data)
    write_stack(paths["even"], even + 1, SHELLS, "made for a test", overwrite=True)
    assert "made of other files" in refused(judge, *words)
