"""Does a killed run ever leave a wrong volume? Runs of every kind, killed at random moments and repeated until done.

After each kill an output that has its final name must be complete and the same, byte for byte, as that of a run that
nothing disturbed; so must the volume be when the command was repeated until it is done, and its record but for times.
Moments are drawn from a seed, evenly over the time that an undisturbed run takes from its start, from its journal or
from its last slab; slabs are made low by --max-memory.
"""

from __future__ import annotations

import importlib.util
import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import Cell, Table, parser, read_arguments, record
from killing import Case, forks, kill_until_done, memory_for, undisturbed

from cryolithe.formats import write_angles_deg, write_stack
from cryolithe.network import InputWindow, RowSetConfig, build_network
from cryolithe.network.checkpoint import save_network

ANGLES_DEG = tuple(float(a) for a in range(-50, 51, 10))
SHAPE = (64, 64)
ROWS = 4
CASES = {
    "network": ["--precision", "fp32"],
    "network, int8, axes x z y": ["--precision", "fp32", "--dtype", "int8", "--orientation", "xzy"],
    "FBP": ["--method", "fbp"],
    "FBP, float16, binned": ["--method", "fbp", "--dtype", "float16", "--bin", "2"],
    "SIRT": ["--method", "sirt", "--iterations", "3"],
    "FBP, OME-Zarr": ["--method", "fbp", "--format", "ome-zarr"],
}
STAGES = (
    "before the journal", "preparing images", "between slabs", "all slabs done", "about to be moved", "output in place",
    "record in place",
)  # fmt: skip


def write_inputs(folder: Path) -> tuple[Path, Path, Path]:
    """A stack of noise, its angles, and a tiny network."""
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((len(ANGLES_DEG), *SHAPE)).astype(np.float32)
    write_stack(folder / "ts.mrc", images, 5.0, "noise")
    write_angles_deg(folder / "ts.tlt", ANGLES_DEG)
    window = InputWindow(taps=5, context_taps=5)
    config = RowSetConfig(
        input=window, rows=5, channels=8, row_hidden=8, row_features=4, combiner_width=8, combiner_layers=2
    )
    save_network(folder / "tiny.safetensors", build_network(config), {})
    return folder / "ts.mrc", folder / "ts.tlt", folder / "tiny.safetensors"


def make_cases(folder: Path, names: list[str]) -> list[Case]:
    """The commands, with slabs of `ROWS` rows."""
    stack, angles, model = write_inputs(folder)
    cases = []
    for name in names:
        words = ["--thickness", "16", *CASES[name]]
        if "--method" not in words:
            words += ["--model", str(model)]
        output = folder / ("v.zarr" if "ome-zarr" in words else "v.mrc")
        memory = memory_for(ROWS, stack, angles, words)
        arguments = ["reconstruct", str(stack), str(angles), "-o", str(output), *words, "--max-memory", memory]
        cases.append(Case(name, arguments, output))
    return cases


def main() -> None:
    """Kill and repeat until there were enough kills."""
    options = parser("kills", __doc__)
    options.add_argument("--kills", type=int, default=200, help="kills in all")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--workdir", type=Path, help="folder for temporary files")
    arguments = read_arguments(options)
    wanted = 12 if arguments.quick else arguments.kills
    names = [n for n in CASES if "Zarr" not in n or importlib.util.find_spec("zarr")]
    random_ = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(dir=arguments.workdir) as name, forks(Path(name)) as runs:
        cases = make_cases(Path(name), names)
        for case in cases:
            undisturbed(case, runs)
        total, rounds = 0, 0
        while total < wanted:
            case = cases[rounds % len(cases)]
            total += kill_until_done(case, runs, random_, min(4, wanted - total))
            rounds += 1
            if rounds % 10 == 0:
                print(f"{total} kills, {sum(len(c.wrong) for c in cases)} wrong", flush=True)
    rows: list[list[Cell]] = [
        [c.name, sum(c.kills.values()), *(c.kills.get(stage, 0) for stage in STAGES), c.seconds["start"], len(c.wrong)]
        for c in cases
    ]
    by_stage = [sum(c.kills.get(stage, 0) for c in cases) for stage in STAGES]
    wrong = [line for c in cases for line in c.wrong]
    rows.append(["all", total, *by_stage, None, len(wrong)])
    note = (
        f"{rounds} volumes, each killed up to 4 times; {SHAPE[0]} rows in slabs of {ROWS}. Kills by what lay on the "
        "disk when they came; seconds of an undisturbed run, Python already started."
    )
    table = Table("Killed runs", ["run", "kills", *STAGES, "seconds", "wrong"], rows, note)
    record("kills", {"seed": arguments.seed, "volumes": rounds, "wrong": wrong, "tables": [table]}, arguments.output)
    if wrong:
        raise SystemExit("\n".join(wrong[:10]))


if __name__ == "__main__":
    main()
