"""``cryolithe train`` with the configuration of a general denoiser."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import SettingsError


def is_general_denoiser(sources: tuple[Path, ...]) -> bool:
    """Whether the one source is such a configuration.

    Raises:
        SettingsError: if it is a .yaml file that cannot be read.
    """
    from cryolithe.denoise_training.config import is_general

    return len(sources) == 1 and sources[0].suffix.lower() in (".yaml", ".yml") and is_general(sources[0])


def train_general(config_path: Path, output: Path, options: dict[str, Any]) -> None:
    """Train a general denoiser and say what came of it.

    Raises:
        CryoLitheError: for everything that the user can mend.
        KeyboardInterrupt: after Ctrl-C; what is done is kept.
    """
    import os

    from cryolithe.denoise_training.config import read_general_config
    from cryolithe.denoise_training.session import GeneralJob, run_general
    from cryolithe.denoise_training.volumes import make_maker
    from cryolithe.formats.files import check_ending
    from cryolithe.machine.device import choose_device, choose_precision, keep_freed_memory
    from cryolithe.optimise.distributed import Place
    from cryolithe.optimise.step import trainable

    if options["finetune"]:
        raise SettingsError(f"--finetune goes with pairs; {config_path} describes a denoiser, which has none")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("a general denoiser trains in one process; start it without torchrun")
    keep_freed_memory()
    check_ending(output, (".safetensors",), "a model")
    config = read_general_config(config_path)
    device = choose_device(options["device"])
    place = Place(device, trainable(choose_precision(options["precision"], device), device))
    minutes, molecules = options["train_minutes"], options["molecules"]
    job = GeneralJob(
        config=config,
        maker=make_maker(config, config_path.parent, (molecules,) if molecules else ()),
        output=output,
        limit_seconds=60.0 * minutes if minutes else math.inf,
        teacher=config_path.parent / config.teacher if config.teacher else None,
        read=(
            (config_path, "the configuration of this training"),
            *([(molecules, "the library of this training")] if molecules else []),
        ),
        resume=options["resume"],
        overwrite=options["overwrite"],
    )
    with progress_watcher() as watcher:
        state = run_general(job, place, watcher)
    use = "--images stack.mrc" if config.of_images else "tomo.mrc --method n2n"
    say(f"{output}: {state.step} steps in {state.seconds / 60:.1f} min; try: cryolithe denoise {use} --model {output}")
