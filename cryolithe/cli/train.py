"""``cryolithe train``: train a network, or fine-tune one on pairs, and store it with its record."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryolithe import __version__
from cryolithe.cli.complete import complete_model, complete_recipe
from cryolithe.cli.numbers import FiniteRange
from cryolithe.cli.progress import progress_watcher
from cryolithe.cli.train_n2n import is_general_denoiser, train_general
from cryolithe.errors import InputError, ModelError, SettingsError
from cryolithe.models import ENDING
from cryolithe.recipes import ENDINGS, find_recipe, is_for_finetuning, shipped_for
from cryolithe.work.watcher import WARNING

if TYPE_CHECKING:
    from cryolithe.network import Network
    from cryolithe.optimise.distributed import Place
    from cryolithe.optimise.loop import Progress
    from cryolithe.training.config import TrainConfig
    from cryolithe.work.watcher import Watcher

# What `--finetune` does without a configuration; configs/finetune_pairs.yaml says the same.
# Pairs of foreign programs whose targets are compared with their images before a training.
_LOOKED_AT = 8
STARTS = ("start", "start_rows", "start_grown")  # keys that name a model to begin with

FINETUNE: dict[str, Any] = {
    "steps": 1500,
    "learning_rate": 2e-4,
    "warmup_steps": 50,
    "ema_decay": 0.99,
    "band_exponent": 0.8,
    "augment": {"flip_chance": 0.5, "half_chance": 0.3, "range_cut_chance": 0.1, "gain_std": 0.02, "shift_px": 0.2},
    "validation": {"every": 250},
}


@click.command("train")
@click.argument(
    "sources",
    nargs=-1,
    type=click.Path(path_type=Path),
    metavar="[CONFIG] [PAIRS]...",
    shell_complete=complete_recipe("train"),
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Model to write (.safetensors).")
@click.option(
    "--finetune", metavar="NAME|PATH", help="Start from this model and train on PAIRS.", shell_complete=complete_model
)
@click.option(
    "--molecules",
    type=click.Path(path_type=Path),
    help="HDF5 library, MRC map, folder of maps, or procedural_1.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16 or fp16.")
@click.option("--train-minutes", type=FiniteRange(min=0, min_open=True), help="Stop after this time, see above.")
@click.option("--resume", is_flag=True, help="Go on from the state saved in the run's folder.")
@click.option("--overwrite", is_flag=True, help="Replace an existing model and its run's folder.")
def command(sources: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Train a network as CONFIG says: on plain simulated specimens, simulation recipes, stored pairs, or all.

    CONFIG is a .yaml file or the name of a shipped one, see `cryolithe recipes list`.

    \b
      cryolithe train train_default -o mine.safetensors
      cryolithe train --finetune default PAIRS... -o mine.safetensors     a handful of your own pairs, in minutes
      torchrun --nproc-per-node 4 -m cryolithe train CONFIG.yaml -o mine.safetensors
      cryolithe train n2n_general -o general.safetensors     a denoiser for `denoise --method n2n`

    PAIRS are HDF5 files, or folders of them, from `cryolithe pairs build` or `cryolithe simulate`. With two or more,
    the last one is not trained on but scores the weights, and no model is written that is not better there (by 1 % of
    the error, or 0.05 dB) than the one to fine-tune. What it forgot is asked on simulated specimens.

    The folder NAME.run beside the model holds the state of the run, the best and the last weights, tables of losses
    and scores, a summary as PNG, and TensorBoard's files where that is installed. Ctrl-C saves the state and leaves
    with exit code 130; --resume goes on exactly where it stopped. With --train-minutes the learning rate falls to
    zero when the time is up, even if steps are left; such a run depends on the machine's speed.
    """
    from cryolithe.formats.files import check_ending
    from cryolithe.machine.device import choose_device, choose_precision, keep_freed_memory
    from cryolithe.optimise.distributed import join_processes, leave_processes
    from cryolithe.optimise.step import trainable
    from cryolithe.training.config import check_files
    from cryolithe.training.session import LEFTOVERS, check_output, check_room, run_folder
    from cryolithe.work.alone import alone_in, refuse_replaced

    sources = _with_names(sources, options["finetune"])
    if is_general_denoiser(sources):
        train_general(sources[0], output, options)
        return
    keep_freed_memory()
    check_ending(output, (".safetensors",), "a model")
    recipe, base, start = _recipe(sources, options["finetune"])
    chosen = choose_device(options["device"])
    precision = trainable(choose_precision(options["precision"], chosen), chosen)
    check_files(recipe, base)
    place = join_processes(chosen, precision)

    def check() -> None:
        check_output(output, options["overwrite"], options["resume"])
        check_room(output, recipe, options["resume"])
        if not options["resume"]:
            refuse_replaced(_inputs(sources, recipe, base, options), output, run_folder(output), LEFTOVERS)

    try:
        with alone_in(run_folder(output), place, check) as note:
            _run(recipe, base, start, place, output, {**options, "note": note})
    finally:
        leave_processes()


def _inputs(sources: tuple[Path, ...], recipe: TrainConfig, base: Path, options: dict[str, Any]) -> dict[Path, str]:
    """Files that a training is made of, and what they are."""
    from cryolithe.models import find_model
    from cryolithe.training.sources import find_pairs

    found = dict.fromkeys(find_pairs((*recipe.data.pairs, *recipe.validation.pairs), base), "a pair of this training")
    found |= {base / name: "a noise profile of this training" for name in recipe.data.noise}
    found |= {path: "the configuration of this training" for path in sources if path.suffix.lower() in ENDINGS}
    found |= {options["molecules"]: "the library of this training"} if options["molecules"] else {}
    for key in STARTS:
        if (name := getattr(recipe, key)) is not None:
            found[find_model(_model_name(base, name, None, key))] = "the model that this training starts from"
    return found


def _notes(recipe: TrainConfig, base: Path, pairs: list[Path]) -> Iterator[str]:
    """What a user must know of the data before a training."""
    from cryolithe.curation.pair_files import faults_of_file
    from cryolithe.training.config import noise_notes
    from cryolithe.training.pair_sizes import voxel_size_note, voxel_size_warning, voxel_sizes
    from cryolithe.training.sources import find_pairs

    learned, judged = (
        {path.resolve() for path in find_pairs(of.pairs, base)} for of in (recipe.data, recipe.validation)
    )
    if recipe.start is not None and recipe.validation.every and not judged and recipe.data.pairs:
        yield "Note: no pair is held back, so that nothing tells whether the model becomes better; give two or more"
    if learned & judged:
        both = ", ".join(sorted(path.name for path in learned & judged))
        yield f"{WARNING}trained on and validated with: {both}; validation then tells nothing of other series"
    if told := voxel_size_warning(pairs):
        yield f"{WARNING}{told}"
    elif told := voxel_size_note(list(voxel_sizes(pairs).values())):
        yield f"Note: {told}"
    for path in pairs[:_LOOKED_AT]:
        for fault in faults_of_file(path):
            yield f"{WARNING}{path.name}: {fault.partition('; ')[0]}: what is learned from it is wrong"
    if len(pairs) > _LOOKED_AT:
        yield f"Note: whether targets belong to their images was asked of the first {_LOOKED_AT} pairs of {len(pairs)}"
    for note in noise_notes(recipe, base):
        yield f"Note: {note}"


def _run(
    recipe: TrainConfig, base: Path, start: Network | None, place: Place, output: Path, options: dict[str, Any]
) -> None:
    """Make the data, train, say what came of it."""
    from cryolithe.files.hashing import sampled_sha256
    from cryolithe.simulation import load_library, select_molecules
    from cryolithe.training.recipe_maker import recipe_molecules, simulated_from
    from cryolithe.training.session import Session, run_folder, run_session
    from cryolithe.training.sources import find_pairs, make_source
    from cryolithe.training.validation import Verdict, validation_set

    molecules = options["molecules"]
    files = (molecules,) if molecules else ()
    library = load_library(files)
    used = select_molecules(library, recipe.hold_out) if library else ()
    unseen = tuple(molecule for molecule in library if molecule.name in recipe.hold_out)
    trained_on = {molecule.name for molecule in used} | (set() if files else recipe_molecules(recipe, base))
    started = time.monotonic()
    minutes = options["train_minutes"]
    pairs = find_pairs((*recipe.data.pairs, *recipe.validation.pairs), base)
    profiles = [base / name for name in recipe.data.noise]
    with progress_watcher() as watcher:
        if place.rank == 0:
            for line in (*([options["note"]] if options["note"] else []), *_notes(recipe, base, pairs)):
                watcher.note(line)
            limit = f", or {minutes:g} min if those end first" if minutes else ""
            watcher.note(f"Plan: {recipe.steps} steps of training{limit}, on {place.device}; simulating comes before")
        watcher.stage("Simulating specimens", recipe.series)

        # Processes that simulate take their time to start: meanwhile the validation set is made.
        source = make_source(
            recipe,
            base,
            run_folder(output),
            (files, used),
            place,
            on_series=lambda: watcher.advance(1),
            warn=lambda line: watcher.note(f"{WARNING}{line}") if place.rank == 0 else None,
        )
        try:
            watcher.stage("Making the validation set", 1)
            examples = validation_set(recipe, base, unseen, files)
        except BaseException:
            source.close()
            raise

        def on_validation(step: int, verdicts: list[Verdict]) -> None:
            for v in verdicts:
                watcher.note(
                    f"step {step}, {v.name}: SNR {v.snr_db:.2f} dB, FSC {v.fsc_measured:.3f} measured, "
                    f"{v.fsc_missing:.3f} missing; error {v.loss:.4f}"
                )

        session = Session(
            config=recipe,
            source=source,
            place=place,
            output=output,
            examples=examples if place.rank == 0 else [],
            card=_card(recipe, trained_on, place, options) | _beginning(recipe, base),
            resume=options["resume"],
            limit_seconds=60.0 * minutes if minutes else float("inf"),
            start=start,
            began_with=options["finetune"] and _name(options["finetune"]),
            pairs={str(path): sampled_sha256(path) for path in (*pairs, *profiles)},
            simulated_from=simulated_from(recipe, base, files),
            on_step=_advancing(watcher),
            on_validation=on_validation,
            on_result=watcher.note,
            on_doubt=lambda line: watcher.note(f"{WARNING}{line}"),
        )
        try:
            state, interrupted = run_session(session)
        finally:
            source.close()
        if interrupted:  # within: what ends here is not done
            if place.rank == 0:
                watcher.note(f"State of step {state.step} saved; go on with --resume.")
            raise KeyboardInterrupt
        seconds = time.monotonic() - started
        if place.rank == 0 and start is not None and options["finetune"]:
            watcher.note(f"{output} is written.")  # whatever becomes of the question
            _tell_what_is_kept(start, output, place, watcher)
    if place.rank == 0:
        click.echo(f"{output}: {state.step} steps in {seconds:.0f} s")
        hint = f" --molecules {molecules}" if molecules else ""
        click.echo(f"Score it with: cryolithe score {output}{hint}")


def _tell_what_is_kept(start: Network, output: Path, place: Place, watcher: Watcher) -> None:
    """Compare a fine-tuned model with the one it began with, on specimens that are not the lab's."""
    from cryolithe.network.checkpoint import load_model
    from cryolithe.reconstruction.slabwise.methods import Compute
    from cryolithe.training.kept import loss_told, on_simulated, told

    watcher.stage("Asking what it forgot", 2)
    networks = (start.cpu().eval(), load_model(str(output)).network)
    before, after = on_simulated(networks, Compute(place.device, place.precision), lambda: watcher.advance(1))
    watcher.note(f"Note: {told(before, after)}")
    if loss := loss_told(before, after):
        watcher.note(f"{WARNING}{loss}")


def _with_names(sources: tuple[Path, ...], finetune: str | None) -> tuple[Path, ...]:
    """What was given, names of shipped configurations replaced by their files.

    With a model to fine-tune, a word may as well be a folder or a file of pairs: what is there wins.

    Raises:
        SettingsError: for a name of nothing; the nearest one is named.
    """
    known = shipped_for("train")

    def meant(source: Path) -> Path:
        pairs = finetune is not None and source.suffix.lower() not in ENDINGS
        if pairs and (source.exists() or str(source) not in known):
            return source
        return find_recipe(source, "train")

    return tuple(map(meant, sources))


def _recipe(sources: tuple[Path, ...], finetune: str | None) -> tuple[TrainConfig, Path, Network | None]:
    """The configuration, the folder that its paths are relative to, and the network to start from."""
    import torch

    from cryolithe.network import build_network
    from cryolithe.network.checkpoint import load_model
    from cryolithe.network.config import config_to_dict
    from cryolithe.training.cards import check_start
    from cryolithe.training.config import TrainConfig, check_config, read_train_config
    from cryolithe.training.sources import find_pairs
    from cryolithe.training.starting import grown_from, knowing_from, takes_more_facts, with_row_encoder_of

    configs = [path for path in sources if path.suffix.lower() in ENDINGS]
    pairs = [path for path in sources if path not in configs]
    if len(configs) > 1:
        raise SettingsError(f"give one configuration, got {', '.join(map(str, configs))}")
    if finetune is None and pairs:
        raise SettingsError(f"{pairs[0]} is no .yaml configuration; pairs go with --finetune NAME")
    if finetune is None and not configs:
        raise SettingsError("give a configuration (.yaml), or --finetune NAME and pairs")
    config = read_train_config(configs[0]) if configs else TrainConfig(**FINETUNE)
    begins = config.start or config.start_rows or config.start_grown
    if finetune is None and not begins and is_for_finetuning(configs[0].name):
        raise SettingsError(
            f"{configs[0].stem} goes on from a model: give --finetune NAME and pairs with it, else it would begin from "
            "scratch; under another name it may"
        )
    base = configs[0].parent if configs else Path()
    if finetune is not None:
        if not config.model_fields_set:
            raise SettingsError(
                f"{configs[0]} is empty, which is a training from scratch; leave it out for the usual --finetune"
            )
        files = [str(path.absolute()) for path in find_pairs([path.absolute() for path in pairs], Path())]
        if not files and not config.data.pairs:
            raise InputError("--finetune needs pairs to train on: give HDF5 files or folders of them")
        validation, data = config.validation, config.data
        if len(files) > 1 and not validation.pairs:
            validation = validation.model_copy(update={"pairs": (files[-1],)})
            files = files[:-1]
        data = data.model_copy(update={"pairs": (*data.pairs, *files)})
        begin = {"start": finetune, "start_rows": None, "start_grown": None}
        config = config.model_copy(update={**begin, "data": data, "validation": validation})
    named = configs[0] if configs and finetune is None else None
    if config.start is None:
        for key, beginning in (("start_rows", with_row_encoder_of), ("start_grown", grown_from)):
            if (donor_name := getattr(config, key)) is not None:
                donor = load_model(_model_name(base, donor_name, named, key))
                torch.manual_seed(config.seed)
                return config, base, beginning(donor.network, build_network(config.network_config()), donor.name)
        return config, base, None
    model = load_model(_model_name(base, config.start, named, "start"))
    check_start(model)
    network = model.network
    found = config_to_dict(network.config)
    if "network" in config.model_fields_set and config_to_dict(config.network_config()) != found:
        if takes_more_facts(network.config, config.network_config()):
            torch.manual_seed(config.seed)
            return config, base, knowing_from(network, build_network(config.network_config()))
        raise SettingsError(
            f"model '{config.start}' is of another architecture than the configuration's 'network'; "
            "leave 'network' out to take the model's"
        )
    config = config.model_copy(update={"network": found})
    check_config(config, str(configs[0]) if configs else "--finetune")
    return config, base, network


def _model_name(base: Path, name: str, config: Path | None, key: str) -> str:
    """A model's name, or its path if it is one relative to the configuration.

    Args:
        base: folder of the configuration.
        name: name or path.
        config: the configuration that names it; None if a flag does.
        key: of the configuration.

    Raises:
        ModelError: if a configuration names a file that is not there.
    """
    path = base / name
    if path.is_file():
        return str(path)
    is_path = path.suffix == ENDING or Path(name).parent != Path()
    if config is not None and is_path and not Path(name).is_file():
        raise ModelError(
            f"{config} starts from another model, '{key}: {name}' relative to its folder, but "
            f"{os.path.normpath(path)} does not exist; train or download that model first, or give '{key}' another one"
        )
    return name


def _advancing(watcher: Watcher) -> Any:
    """The bar of the steps, or of the time where that ends first; it starts when the first step is done."""
    done: list[float] = []

    def on_step(progress: Progress) -> None:
        if not done:
            watcher.stage("Training", 1.0)
        watcher.advance(progress.done - sum(done))
        done[:] = [progress.done]

    return on_step


def _beginning(recipe: TrainConfig, base: Path) -> dict[str, Any]:
    """What a card tells of pairs, of the model that the training began with and those before it, and what is theirs."""
    from cryolithe.network.checkpoint import load_model
    from cryolithe.training.cards import kept_of
    from cryolithe.training.pair_sizes import sizes_told
    from cryolithe.training.sources import find_pairs

    sizes = sizes_told(find_pairs(recipe.data.pairs, base))

    for key in STARTS:
        if (name := getattr(recipe, key)) is not None:
            model = load_model(_model_name(base, name, None, key))
            told = (
                "molecules",
                "steps",
                "training_seconds",
                "device",
                "precision",
                "processes",
                "went_on",
                "began_with",
            )
            began = {"model": model.name, "sha256": model.sha256}
            began |= {field: model.card[field] for field in told if field in model.card}
            return {**sizes, "began_with": began, **kept_of(model, key == "start")}
    return sizes | {"licence": "MIT"}


def _name(path: str) -> str:
    """A path as it was given, or the name alone where it begins at the root of this machine."""
    return Path(path).name if Path(path).is_absolute() else path


def _card(recipe: TrainConfig, molecules: set[str], place: Place, options: dict[str, Any]) -> dict[str, Any]:
    """What the model file tells of its making; of files only their names, not where they lie on this machine."""
    from cryolithe.machine.device import precision_name

    values = recipe.model_dump(mode="json")
    for section in (values["data"], values["validation"]):
        section["pairs"] = [_name(path) for path in section["pairs"]]
    for start in STARTS:
        values[start] = values[start] and _name(values[start])
    for entry in values["data"]["recipes"]:
        entry["path"] = _name(entry["path"])
    values["data"]["noise"] = [Path(name).name for name in values["data"]["noise"]]
    return {
        "cryolithe": __version__,
        "date": datetime.date.today().isoformat(),
        "recipe": values,
        "molecules": sorted(molecules) or ["procedural only"],
        "device": str(place.device),
        "precision": precision_name(place.precision),
        "processes": place.world,
        "train_minutes": options["train_minutes"],
    }
