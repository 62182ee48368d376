"""``cryolithe train``: train a network on simulated specimens and store it with its record."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

import click

from cryolithe import __version__
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import OutputError


@click.command("train")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--molecules", type=click.Path(path_type=Path), help="HDF5 library, MRC map or folder of maps to place.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Model to write (.safetensors).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16 or fp16.")
@click.option("--overwrite", is_flag=True, help="Replace an existing model.")
def command(config: Path, molecules: Path | None, output: Path, device: str, precision: str, overwrite: bool) -> None:
    """Train a network as CONFIG (YAML) says, on simulated specimens.

    Specimens are made of the molecules in a library that you give, and of procedural ones. Molecules named under
    hold_out are never trained on; `cryolithe score` scores the model with them. Recipe, seeds and the names of all
    molecules are stored in the model file.
    """
    from cryolithe.device import choose_device, choose_precision, keep_freed_memory, precision_name
    from cryolithe.network import Network
    from cryolithe.network.checkpoint import save_network
    from cryolithe.simulation import load_molecules, select_molecules
    from cryolithe.training.config import read_train_config
    from cryolithe.training.dataset import simulate_training_set
    from cryolithe.training.loop import Progress, train

    keep_freed_memory()
    recipe = read_train_config(config)
    chosen = choose_device(device)
    dtype = choose_precision(precision, chosen)
    library = load_molecules(molecules) if molecules else ()
    used = select_molecules(library, recipe.hold_out) if library else ()
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists; give --overwrite to replace it or another name with -o")
    output.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def card(steps: int, loss: float) -> dict[str, Any]:
        return {
            "cryolithe": __version__,
            "date": datetime.date.today().isoformat(),
            "recipe": recipe.model_dump(mode="json"),
            "molecules": sorted(molecule.name for molecule in used) or ["procedural only"],
            "device": str(chosen),
            "precision": precision_name(dtype),
            "steps": steps,
            "loss": round(loss, 5),
            "training_seconds": round(time.monotonic() - started),
            "licence": "MIT",
        }

    with progress_watcher() as watcher:
        watcher.stage("Simulating specimens", recipe.series)
        series = simulate_training_set(recipe, used, lambda: watcher.advance(1))
        watcher.stage("Training", recipe.steps)
        log = output.with_suffix(".csv").open("w", encoding="utf-8")
        log.write("step,seconds,loss\n")
        recent: list[float] = []

        def on_step(progress: Progress) -> None:
            recent.append(progress.loss)
            watcher.advance(1)
            if progress.step % 200 == 0:
                mean = sum(recent[-200:]) / len(recent[-200:])
                log.write(f"{progress.step},{time.monotonic() - started:.0f},{mean:.5f}\n")
                log.flush()
            if progress.step % 1000 == 0:
                save(progress.averaged, progress.step)

        def save(network: Network, steps: int) -> None:
            tail = recent[-500:]
            save_network(output, network, card(steps, sum(tail) / len(tail)))

        with log:
            network = train(recipe, series, dtype, chosen, on_step)
        save(network, recipe.steps)
    click.echo(f"{output}: {recipe.steps} steps in {time.monotonic() - started:.0f} s")
    click.echo("Score it with: cryolithe score " + str(output) + (f" --molecules {molecules}" if molecules else ""))
