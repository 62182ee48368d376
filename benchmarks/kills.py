"""Does a killed run ever leave a wrong volume? Runs of every kind, killed at random moments and repeated until done.

After each kill an output that has its final name must be complete and the same, byte for byte, as that of a run that
nothing disturbed; so must the volume be when the command was repeated until it is done, and its record but for times.
Moments are drawn from a seed, evenly over the time that an undisturbed run takes from its start, from its journal,
from its first slab or from its last one; slabs are low. A run that was stopped goes on where it was, as long as neither
the program nor this script has changed.
"""

from __future__ import annotations

import importlib.util
import json
import math
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import Cell, Table, code_of, parser, read_arguments, record
from parts.killing import Case, forks, kill_until_done, undisturbed

from cryolithe.formats import write_angles_deg, write_stack
from cryolithe.network import InputWindow, RowSetConfig, build_network
from cryolithe.network.checkpoint import save_network
from cryolithe.report.json_files import write_json

ANGLES_DEG = tuple(float(a) for a in range(-50, 51, 10))
SHAPE = (64, 64)
ROWS, MOST_KILLS = 4, 4
CASES = {
    "network": ["--precision", "fp32"],
    "network, int8, axes x z y": ["--precision", "fp32", "--dtype", "int8", "--orientation", "xzy"],
    "FBP": ["--method", "fbp"],
    "FBP, float16, binned": ["--method", "fbp", "--dtype", "float16", "--bin", "2"],
    "SIRT": ["--method", "sirt", "--iterations", "3"],
    "FBP, OME-Zarr": ["--method", "fbp", "--format", "ome-zarr"],
    "FBP, OME-Zarr 0.5": ["--method", "fbp", "--format", "ome-zarr-0.5"],
    "FBP, local alignment": ["--method", "fbp", "--aln", "ts.aln"],
    "FBP, CTF": ["--method", "fbp", "--ctf", "flip", "--ctf-file", "ts_CTF.txt"],
    "network, --confidence": ["--precision", "fp32", "--confidence"],
    "FBP, halves": ["--method", "fbp"],
    "network, halves": ["--precision", "fp32"],
}
STAGES = (
    "before the journal", "preparing images", "between slabs", "all slabs done", "about to be moved", "a half in place",
    "output in place", "record in place",
)  # fmt: skip


def write_inputs(folder: Path) -> None:
    """Stacks of noise, files that go with them, and a tiny network."""
    torch.manual_seed(0)
    random_ = np.random.default_rng(0)
    halves = random_.standard_normal((2, len(ANGLES_DEG), *SHAPE)).astype(np.float32)
    halves += random_.standard_normal(halves.shape[1:]).astype(np.float32)
    for name, images in (("ts", halves.sum(axis=0)), ("even", halves[0]), ("odd", halves[1])):
        write_stack(folder / f"{name}.mrc", images, 5.0, "noise")
    write_angles_deg(folder / "ts.tlt", ANGLES_DEG)
    (folder / "ts.aln").write_text(_local_alignment())
    numbers = range(1, len(ANGLES_DEG) + 1)
    rows = "".join(f"{n} {30000 + 100 * n} {29000 + 100 * n} 45.0 0.0 0.1 12.0\n" for n in numbers)
    (folder / "ts_CTF.txt").write_text(f"# Columns: #1 micrograph number; #2 - defocus 1 [A]; #3 - defocus 2\n{rows}")
    window = InputWindow(taps=5, context_taps=5)
    config = RowSetConfig(
        input=window, rows=5, channels=8, row_hidden=8, row_features=4, combiner_width=8, combiner_layers=2
    )
    save_network(folder / "tiny.safetensors", build_network(config), {})


def _local_alignment() -> str:
    """AreTomo's, with four patches an image."""
    lines = ["# AreTomo Alignment / Priims bprmMn", f"# RawSize = {SHAPE[1]} {SHAPE[0]} {len(ANGLES_DEG)}"]
    lines += ["# NumPatches = 4", "# SEC ROT GMAG TX TY SMEAN SFIT SCALE BASE TILT"]
    lines += [f"{n} 2.0 1.0 {n % 3 - 1} {n % 2} 1 1 1 0 {angle}" for n, angle in enumerate(ANGLES_DEG)]
    places = [(n, 2 * j + i, 32 * i - 16, 32 * j - 16) for n in range(len(ANGLES_DEG)) for j in (0, 1) for i in (0, 1)]
    return "\n".join([*lines, "# Local Alignment", *(f"{n} {p} {x} {y} {p - 1.5} 0.5 1" for n, p, x, y in places), ""])


def make_cases(folder: Path, names: list[str]) -> list[Case]:
    """The commands, with slabs of `ROWS` rows."""
    write_inputs(folder)
    stack, cases = folder / "ts.mrc", []
    for number, name in enumerate(names):
        words = ["--thickness", "16", *(str(folder / w) if w.startswith("ts") else w for w in CASES[name])]
        if "--method" not in words:
            words += ["--model", str(folder / "tiny.safetensors")]
        output = folder / f"out{number}" / ("v.zarr" if "Zarr" in name else "v.mrc")
        angles = None if "--aln" in words else folder / "ts.tlt"
        halves = ["--even", str(folder / "even.mrc"), "--odd", str(folder / "odd.mrc")]
        given = [*(halves if "halves" in name else [str(stack)]), *([str(angles)] if angles else [])]
        arguments = ["reconstruct", *given, "-o", str(output), *words]
        cases.append(Case(name, arguments, output))
    return cases


def table_of(cases: list[Case], rounds: int) -> Table:
    """Kills of each kind of run, by what had been done."""
    rows: list[list[Cell]] = [
        [c.name, sum(c.kills.values()), *(c.kills.get(stage, 0) for stage in STAGES), c.seconds["start"], len(c.wrong)]
        for c in cases
    ]
    by_stage = [sum(c.kills.get(stage, 0) for c in cases) for stage in STAGES]
    rows.append(["all", sum(by_stage), *by_stage, None, sum(len(c.wrong) for c in cases)])
    note = (
        f"{rounds} volumes, each killed up to {MOST_KILLS} times; {SHAPE[0]} rows in slabs of {ROWS}. Kills by what "
        "lay on the disk when they came; seconds of an undisturbed run, Python already started."
    )
    return Table("Killed runs", ["run", "kills", *STAGES, "seconds", "wrong"], rows, note)


def main() -> None:
    """Kill and repeat until there were enough kills."""
    options = parser("kills", __doc__)
    options.add_argument("--kills", type=int, default=500, help="kills in all")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--minutes", type=float, default=math.inf, help="stop after these; repeat to go on")
    options.add_argument("--state", type=Path, help="where to go on from; default: OUTPUT.partial")
    options.add_argument("--workdir", type=Path, help="folder for temporary files")
    arguments = read_arguments(options)
    wanted, ends = 24 if arguments.quick else arguments.kills, time.monotonic() + 60 * arguments.minutes
    names = [n for n in CASES if "Zarr" not in n or importlib.util.find_spec("zarr")]
    state = arguments.state or arguments.output.with_name(arguments.output.name + ".partial")
    with tempfile.TemporaryDirectory(dir=arguments.workdir) as name, forks(Path(name), ROWS) as runs:
        cases = make_cases(Path(name), names)
        for case in cases:
            undisturbed(case, runs)
        rounds = earlier(state, cases, arguments.seed)
        while (total := sum(sum(c.kills.values()) for c in cases)) < wanted and time.monotonic() < ends:
            # A round has random numbers of its own: one that was cut short is made again as it was.
            random_ = random.Random(f"{arguments.seed} {rounds}")
            kill_until_done(cases[rounds % len(cases)], runs, random_, min(MOST_KILLS, wanted - total))
            rounds += 1
            found = {c.name: {"kills": c.kills, "wrong": c.wrong} for c in cases}
            write_json(state, {"code": code(), "seed": arguments.seed, "rounds": rounds, "cases": found})
            if rounds % 10 == 0:
                print(f"{total} kills, {sum(len(c.wrong) for c in cases)} wrong", flush=True)
    wrong = [line for c in cases for line in c.wrong]
    tables = [table_of(cases, rounds)]
    record("kills", {"seed": arguments.seed, "volumes": rounds, "wrong": wrong, "tables": tables}, arguments.output)
    if total < wanted:
        print(f"not done: {total} of {wanted} kills so far; repeat the command to go on")
    if wrong:
        raise SystemExit("\n".join(wrong[:10]))


def earlier(state: Path, cases: list[Case], seed: int) -> int:
    """Put into the cases what a run of the same code and seed has found; returns its rounds."""
    try:
        written = json.loads(state.read_text(encoding="utf-8"))
        if (written["code"], written["seed"], list(written["cases"])) != (code(), seed, [c.name for c in cases]):
            return 0
        for case in cases:
            case.kills, case.wrong = written["cases"][case.name]["kills"], written["cases"][case.name]["wrong"]
        return int(written["rounds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def code() -> str:
    """What decides what becomes of a kill."""
    return code_of("kills.py", "parts/killing.py")


if __name__ == "__main__":
    main()
