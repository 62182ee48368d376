"""Whatever lies in a file: a reader returns a sound value or raises an error of ours, in little memory.

CRYOLITHE_FUZZ_EXAMPLES=5000 looks further; benchmarks/fuzz.py much further, in processes of limited memory.
"""

from __future__ import annotations

import bz2
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryolithe.errors import CryoLitheError, FileFormatError, InputError, ModelError, SettingsError
from cryolithe.files.yaml_table import read_yaml_table
from cryolithe.formats import read_angles_deg, read_mrc, write_stack
from cryolithe.formats.alignment.aretomo import read_aln
from cryolithe.formats.alignment.imod import read_tilt_com
from cryolithe.formats.alignment.tomogram_star import read_tomogram_star
from cryolithe.formats.alignment.warp import read_warp
from cryolithe.formats.pairs import Pair, open_pair, write_pair
from cryolithe.models import read_summary
from cryolithe.network import RowSetConfig, SliceSetConfig, build_network
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.network.config import config_to_dict
from cryolithe.simulation.molecules import load_molecules
from cryolithe.simulation.structures import molecule_from_structure

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from fuzz import attempt  # noqa: E402
from fuzzing.mutations import mutated, random_content  # noqa: E402
from fuzzing.parsers import ALN, PARSERS, PDB, TILT, TOMOGRAMS, WARP  # noqa: E402

EXAMPLES = int(os.environ.get("CRYOLITHE_FUZZ_EXAMPLES", "200"))
MOST_MB = 300.0
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES == 200,
    suppress_health_check=list(HealthCheck),
)
NATIVE = [parser for parser in PARSERS if parser.native]
# Readers of weights and YAML take longest, and have tests of their own: fewer examples where the number is not set.
COSTLY = {
    "denoiser": 8, "training YAML": 8, "recipe YAML": 8, "manifest YAML": 8, "structure": 4, "settings YAML": 4,
    "denoiser's training YAML": 8, "info: YAML": 8, "training state": 8, "style": 4, "denoiser of images": 4,
    "Noise2Noise denoiser": 4, "published configuration": 4, "OME-Zarr 0.4": 4, "OME-Zarr 0.5": 4, "TIFF planes": 4,
    "points of a viewer": 4, "angles of a stack": 4, "scale of a half": 4, "molecule map": 4,
}  # fmt: skip


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def obeys(parser, path, content):
    """Assert the law for one file."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    before = peak_mb()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = attempt(parser.read, path)
    assert found in ("accepted", "refused"), found
    assert peak_mb() - before < MOST_MB


@pytest.mark.slow
@pytest.mark.parametrize("parser", [p for p in PARSERS if not p.native], ids=lambda parser: parser.name)
def test_damaged_files(parser, tmp_path):
    seeds = parser.seeds(tmp_path)
    path = tmp_path / f"input{parser.ending}"
    for content in seeds:
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        parser.read(path)  # what is damaged below was good

    share = COSTLY.get(parser.name, 1) if EXAMPLES == 200 else 1

    @settings(FUZZ, max_examples=max(1, EXAMPLES // share))
    @given(st.integers(0, 2**32))
    def damaged(number):
        obeys(parser, path, mutated(seeds, random.Random(number)))

    @settings(FUZZ, max_examples=max(1, EXAMPLES // (4 * share)))
    @given(st.integers(0, 2**32))
    def senseless(number):
        obeys(parser, path, random_content(seeds, random.Random(number)))

    @settings(FUZZ, max_examples=max(1, EXAMPLES // (4 * share)))
    @given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
    def anything(content):
        obeys(parser, path, content)

    damaged()
    senseless()
    anything()


@pytest.mark.slow
def test_readers_through_c_libraries_in_processes_of_their_own(tmp_path):
    """The benchmark itself: it survives what a library does to its process, and says what failed."""
    names = ",".join(parser.name for parser in NATIVE)
    command = [sys.executable, ROOT / "benchmarks" / "fuzz.py", "--only", names, "--inputs", str(EXAMPLES)]
    done = subprocess.run(
        [*command, "--output", tmp_path / "fuzz.json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "fuzz.json").read_text())
    for parser in NATIVE:
        told = found["parsers"][parser.name]
        assert told["accepted"] + told["refused"] == EXAMPLES
        assert told["accepted"] > 0


# What no mutation finds soon: files that are made to take memory or time


@pytest.mark.slow
@pytest.mark.parametrize(("compress", "promised"), [(gzip.compress, True), (bz2.compress, False)])
def test_a_small_file_that_expands_to_a_huge_one(compress, promised, tmp_path):
    write_stack(tmp_path / "seed.mrc", np.zeros((2, 3, 4), np.int16), 5.0, "seed")
    header = bytearray((tmp_path / "seed.mrc").read_bytes())
    if promised:
        header[0:12] = np.array([30_000, 10_000, 2], "<i4").tobytes()
    path = tmp_path / "bomb.mrc.gz"
    path.write_bytes(compress(bytes(header) + bytes(101_000_000)))
    before = peak_mb()
    with pytest.raises(FileFormatError, match="expands to more than 500 times its size"):
        read_mrc(path)
    assert peak_mb() - before < MOST_MB


def test_lists_of_views_that_would_fill_the_memory(tmp_path):
    (tmp_path / "tilt.com").write_text(TILT.replace("1,3-4", "1-99999," * 5000))
    with pytest.raises(FileFormatError, match="more than 100000 views"):
        read_tilt_com(tmp_path / "tilt.com")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_xml_entities_in_any_encoding(encoding, tmp_path):
    entities = '<!DOCTYPE t [<!ENTITY a "x"><!ENTITY b "&a;&a;&a;">]>'
    text = WARP.replace('encoding="utf-8"', f'encoding="{encoding[:6]}"').replace(
        "<TiltSeries", entities + "<TiltSeries"
    )
    (tmp_path / "ts.xml").write_bytes(
        ("\ufeff" if encoding == "utf-16-be" else "").encode(encoding) + text.encode(encoding)
    )
    with pytest.raises(FileFormatError, match="entities"):
        read_warp(tmp_path / "ts.xml", 3, 5.0)


def test_many_sections_that_come_twice_are_found_at_once(tmp_path):
    row = ALN.splitlines()[7]
    rows = [f" {n} {row.split(maxsplit=1)[1]}" for n in (*range(30_000), 29_999)]
    text = "\n".join([ALN.splitlines()[0], f"# RawSize = 48 40 {len(rows)}", *rows])
    (tmp_path / "ts.aln").write_text(text)
    with pytest.raises(InputError, match="section 29999 is there twice"):
        read_aln(tmp_path / "ts.aln")


def test_angles_of_a_star_file_are_angles(tmp_path):
    for value in ("nan", "1e9", "inf", "x"):
        (tmp_path / "ts.star").write_text(f"data_\nloop_\n_rlnTomoYTilt\n0\n{value}\n")
        with pytest.raises(InputError):
            read_angles_deg(tmp_path / "ts.star")


def test_names_that_are_too_long_for_a_file(tmp_path):
    (tmp_path / "t.star").write_text(TOMOGRAMS.replace("tilt_series/ts_01.star", "x" * 5000))
    assert len(read_tomogram_star(tmp_path / "t.star")) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (RowSetConfig(), {"combiner_width": 8192, "combiner_layers": 32}),
        (RowSetConfig(), {"combiner_layers": 8000}),
        (SliceSetConfig(), {"rows": 63, "row_layers": 32, "row_hidden": 8192}),
        (SliceSetConfig(), {"rows": 8191}),
        (SliceSetConfig(), {"rows": 10**30}),
    ],
)
def test_a_damaged_configuration_allocates_nothing(config, changes, tmp_path, monkeypatch):
    import cryolithe.network.checkpoint as checkpoint

    path = tmp_path / "m.safetensors"
    small = RowSetConfig(rows=3, channels=2, row_hidden=2, row_features=2, combiner_width=2)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "config_to_dict", lambda _: config_to_dict(config) | changes)
        save_network(path, build_network(small), {})
    before = peak_mb()
    with pytest.raises(ModelError):
        load_model(str(path))
    assert peak_mb() - before < MOST_MB


def test_a_model_whose_header_counts_to_infinity(tmp_path):
    header = b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, Infinity]}, "__metadata__": {}}'
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    for read in (read_summary, next(p for p in PARSERS if p.name == "info: model").read):
        with pytest.raises(CryoLitheError):
            read(path)


def make_pair(folder):
    images, truth = np.ones((3, 8, 10), np.float16), np.ones((4, 8, 10), np.float16)
    write_pair(folder / "p.h5", Pair(images, truth, (-20.0, 0.0, 20.0), 5.0))
    return folder / "p.h5"


def test_hdf5_arrays_that_are_larger_than_the_file(tmp_path):
    path = make_pair(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["angles_deg"]
        file.create_dataset("angles_deg", (10**10,), "f8", chunks=(1000,))
    with pytest.raises(FileFormatError, match="angles_deg"), open_pair(path):
        pass
    with h5py.File(tmp_path / "library.h5", "w") as file:
        one = file.create_dataset("one", (3000, 3000, 3000), "f4", chunks=(10, 10, 10))
        one.attrs["voxel_size_angstrom"] = 10.0
    with pytest.raises(FileFormatError, match="one"):
        load_molecules(tmp_path / "library.h5")


@pytest.mark.parametrize("kind", ["external link", "soft link", "virtual", "external storage"])
def test_hdf5_files_cannot_point_to_other_files(kind, tmp_path):
    path, other = make_pair(tmp_path), tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones((3, 8, 10), np.float16)
    (tmp_path / "raw").write_bytes(bytes(480))
    with h5py.File(path, "r+") as file:
        del file["images"]
        if kind == "external link":
            file["images"] = h5py.ExternalLink("other.h5", "secret")
        elif kind == "soft link":
            file["images"] = h5py.SoftLink("/truth")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3, 8, 10), np.float16)
            layout[:] = h5py.VirtualSource(str(other), "secret", (3, 8, 10))
            file.create_virtual_dataset("images", layout)
        else:
            file.create_dataset("images", (3, 8, 10), np.float16, external=[(str(tmp_path / "raw"), 0, 480)])
    with pytest.raises(FileFormatError, match="images"), open_pair(path):
        pass


def test_a_stray_atom_does_not_make_a_huge_box(tmp_path):
    (tmp_path / "a.pdb").write_text(PDB.replace("  11.639   6.071  -5.147", "9999.000-999.0009999.000"))
    before = peak_mb()
    with pytest.raises(FileFormatError, match="stray"):
        molecule_from_structure(tmp_path / "a.pdb", 4.0)
    assert peak_mb() - before < MOST_MB


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a {x: 1}\n"
        + "".join(
            f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 10)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "[" * 20_000,
        "a: " + "{a: " * 20_000,
        "- " * 20_000,
        "a: " + "9" * 100_000,
    ],
    ids=["billion laughs", "merged keys", "brackets", "braces", "lists", "digits"],
)
def test_yaml_made_to_take_no_end(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    before = peak_mb()
    with pytest.raises(SettingsError):
        read_yaml_table(tmp_path / "a.yaml", "recipe")
    assert peak_mb() - before < MOST_MB
