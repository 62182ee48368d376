"""``cryolithe models``: which models there are, what they are, import of published ones, checks of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cryolithe.cli.complete import complete_any_model, complete_model
from cryolithe.cli.numbers import FiniteRange
from cryolithe.errors import CryoLitheError, ModelError, OutputError
from cryolithe.files.hashing import file_sha256
from cryolithe.formats.files import all_or_none, printable, refuse_existing
from cryolithe.models import (
    ModelSummary,
    bundled_models,
    find_model,
    models_folder,
    new_model_path,
    read_summary,
    record_sha256,
    recorded_sha256,
    user_models,
)
from cryolithe.work.watcher import WARNING

_REPEATABLE = "procedural"  # NAME.procedural.json holds scores on the molecules that come with the program
_DENOISERS_DIFFER = 1e-4  # of the output's deviation


@click.group("models")
def command() -> None:
    """Models: bundled with this program, imported, or your own.

    The --model of other commands is looked for among the bundled models, then in your folder ($CRYOLITHE_MODELS,
    by default the folder for user data), then as a path.

    \b
    Examples
      cryolithe models list
      cryolithe models import DIR -o NAME     DIR holds config.json and checkpoint.pth of a published model
      cryolithe models verify NAME
      cryolithe models shrink NAME -o SMALL.safetensors
      cryolithe models mean default mine.safetensors --weight 0.3 --weight 0.7 -o between.safetensors
    """


@command.command("shrink")
@click.argument("name", shell_complete=complete_model)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write (.safetensors).")
@click.option(
    "--fbp-share",
    type=FiniteRange(0, 0.9),
    help="Share of filtered back-projection in its volumes unless a user says otherwise, for the model's card.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def shrink_model(name: str, output: Path, fbp_share: float | None, overwrite: bool) -> None:
    """Write model NAME with weights in half precision: half the size, to be passed on."""
    import torch

    from cryolithe.network.checkpoint import load_model, save_network

    refuse_existing(output, overwrite)
    model = load_model(name)
    weights = model.network.state_dict().values()
    most = max(float(tensor.abs().max()) for tensor in weights)
    if most > torch.finfo(torch.float16).max:
        raise OutputError(f"model {name} has a weight of {most:.3g}, beyond half precision; keep the file as it is")
    card = model.card if fbp_share is None else {**model.card, "fbp_share": fbp_share}
    save_network(output, model.network, card, model.convention, torch.float16)
    changed = sum(float((tensor - tensor.half().float()).square().sum()) for tensor in weights)
    share = (changed / sum(float(tensor.square().sum()) for tensor in weights)) ** 0.5
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB; weights are rounded by {share:.1e} of their size")


@command.command("mean")
@click.argument("names", nargs=-1, required=True, metavar="NAME NAME...", shell_complete=complete_model)
@click.option("--weight", "weights", type=float, multiple=True, help="Of each model, in their order; else all alike.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write (.safetensors).")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def mean_of_models(names: tuple[str, ...], weights: tuple[float, ...], output: Path, overwrite: bool) -> None:
    """Write the mean of the weights of models that went on from the same training.

    A model that was adapted to other data forgets; its mean with the model that it began with keeps most of both.
    Models of separate trainings have no such mean: where their cards tell that they are, it is refused, and where their
    weights have nothing in common, warned of.
    """
    from cryolithe.network.checkpoint import load_model, save_network
    from cryolithe.training.cards import check_related, shared_of
    from cryolithe.training.starting import mean_network

    refuse_existing(output, overwrite)
    models = [load_model(name) for name in names]
    if foreign := [model.name for model in models if model.convention.record]:
        raise ModelError(f"{foreign[0]} was imported from the published program, whose trainings have no mean")
    weights = weights or (1.0,) * len(models)
    network = mean_network([model.network for model in models], weights)
    doubt = check_related(models)
    shared, lines = shared_of(models, weights)
    save_network(output, network, _mean_card([(m.card, m.name, m.sha256) for m in models], weights) | shared)
    if doubt:
        click.echo(printable(f"{WARNING}{doubt}"), err=True)
    of = " + ".join(f"{weight / sum(weights):.3g} {model.name}" for model, weight in zip(models, weights, strict=True))
    click.echo(f"{output}: {of}")
    for line in lines:
        click.echo(printable(line))


def _mean_card(models: list[tuple[dict[str, Any], str, str]], weights: tuple[float, ...]) -> dict[str, Any]:
    """Card of a mean: its models' own cards, what any of them was trained on and what all of them held out."""
    cards = [card for card, _, _ in models]
    held_out = [set(card.get("recipe", {}).get("hold_out", ())) for card in cards]
    parts = [
        {"model": name, "sha256": sha256, "weight": weight / sum(weights), "card": card}
        for (card, name, sha256), weight in zip(models, weights, strict=True)
    ]
    return {
        "mean_of": parts,
        "molecules": sorted({molecule for card in cards for molecule in card.get("molecules", ())}),
        "recipe": {"hold_out": sorted(set.intersection(*held_out))},
    }


@command.command("list")
def list_models() -> None:
    """List the bundled models and those in your folder."""
    from cryolithe.denoising.n2n.bundled import bundled_denoisers
    from cryolithe.denoising.n2n.network import kind_of, load_denoiser

    lines = [("name", "kind", "parameters", "MB", "sha256", "from")]
    broken = []
    for source, models in (("bundled", bundled_models()), (str(models_folder()), user_models())):
        for name, path in models.items():
            try:
                summary = read_summary(path)
            except CryoLitheError as error:
                broken.append(f"{name}: {error}")
                continue
            size = f"{path.stat().st_size / 1e6:.1f}"
            lines.append((name, _kind(summary), f"{summary.parameters:,}", size, file_sha256(path)[:12], source))
    for name, path in bundled_denoisers().items():
        try:
            known = load_denoiser(path)
        except CryoLitheError as error:
            broken.append(f"{name}: {error}")
            continue
        what = f"denoiser of {known.card.get('content', 'volumes')}, {kind_of(known.config)}"
        count, size = sum(p.numel() for p in known.network.parameters()), f"{path.stat().st_size / 1e6:.1f}"
        lines.append((name, what, f"{count:,}", size, known.sha256[:12], "bundled, for `denoise`"))
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    right = {2, 3}
    for line in lines:
        cells = [
            cell.rjust(w) if n in right else cell.ljust(w) for n, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())
    for text in broken:
        click.echo(f"not usable: {text}", err=True)


@command.command("info")
@click.argument("name", shell_complete=complete_any_model)
@click.option("--json", "as_json", is_flag=True, help="Print everything that the file records as JSON.")
def info(name: str, as_json: bool) -> None:
    """Say what the model NAME (or a file) is: its network, how it was made, its scores, its licence."""
    from cryolithe.denoising.n2n.bundled import bundled_denoisers
    from cryolithe.denoising.n2n.network import load_denoiser, plain_config

    if (path := bundled_denoisers().get(name)) is not None:
        known = load_denoiser(path)
        record = {
            "name": name,
            "path": str(path),
            "sha256": known.sha256,
            "parameters": sum(p.numel() for p in known.network.parameters()),
            "config": plain_config(known.config),
            "gain": known.gain.plain(),
            "card": known.card,
            "scores": _scores(path),
        }
        if as_json:
            click.echo(json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False))
        else:
            _echo_rows([row for key, value in record.items() for row in _flat(key, value)])
        return
    path = find_model(name)
    summary = read_summary(path)
    record = {
        "name": path.stem,
        "path": str(path),
        "sha256": file_sha256(path),
        "parameters": summary.parameters,
        "config": summary.config,
        "convention": summary.convention,
        "card": summary.card,
        "scores": _scores(path),
        "procedural": _procedural(path),
    }
    if as_json:
        click.echo(json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False))
        return
    rows: list[tuple[str, Any]] = [(key, record[key]) for key in ("name", "path", "sha256")]
    rows += [("kind", _kind(summary)), ("parameters", f"{summary.parameters:,}")]
    for section in ("config", "convention", "card"):
        # The published program's own words for what "config" says; --json has them.
        rows += [row for row in _flat(section, record[section]) if not row[0].startswith("card.published_config.")]
    scores = _flat("scores", record["scores"]) + _flat(_REPEATABLE, record["procedural"])
    rows += [(key, f"{value:.4g}" if isinstance(value, float) else value) for key, value in scores]
    _echo_rows(rows)


@command.command("import")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("-o", "--output", required=True, metavar="NAME|PATH", help="Name in your folder, or a .safetensors file.")
@click.option("--overwrite", is_flag=True, help="Replace a model of this name.")
def import_model(folder: Path, output: str, overwrite: bool) -> None:
    """Import a model of the published CryoLithe program from DIR (config.json, checkpoint.pth).

    The checkpoint is a pickle, which could hold a program: it is read without running anything, and whatever else it
    names than tensors, numbers and the published filter is refused by name. Features that this program does not
    have are refused by name too.

    Afterwards: cryolithe reconstruct TILTS ANGLES --model NAME. The volume is then what the published program
    computes: its normalisation (mean and deviation of the whole stack), its filter, its grid; images as recorded.
    """
    target = new_model_path(output)
    if target.is_dir():
        raise OutputError(f"{target} is a folder; choose another -o")
    refuse_existing(target, overwrite)
    from cryolithe.network.checkpoint import save_network
    from cryolithe.network.published import import_published

    imported = import_published(folder)
    with all_or_none((target, target.with_suffix(".sha256"))):
        save_network(target, imported.network, imported.card, imported.convention)
        try:
            digest = record_sha256(target)
        except OSError as error:
            raise OutputError(f"cannot write beside {target}: {error.strerror or error}") from error
    summary = read_summary(target)
    click.echo(f"{target}: {_kind(summary)}, {summary.parameters:,} parameters, sha256 {digest[:12]}")
    if imported.card["ignored"]:
        click.echo(f"Without effect on a reconstruction, left aside: {', '.join(imported.card['ignored'])}", err=True)


@command.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_any_model)
def verify(names: tuple[str, ...]) -> None:
    """Check models (all that `list` shows, unless some are named).

    The file's hash against the one that was recorded when it was made; every weight there, of the right shape and
    finite; a small fixed input through the network's plain definition and through the fast engine in float64, which
    must agree. Exit code 1 if a model fails.
    """
    from cryolithe.denoising.n2n.bundled import bundled_denoisers
    from cryolithe.inference.agreement import LARGEST_DIFFERENCE, definition_and_engine_difference
    from cryolithe.network.checkpoint import load_model

    denoisers = bundled_denoisers()
    paths = {name: find_model(name) for name in names if name not in denoisers}
    if not names:
        paths = {**user_models(), **bundled_models()}
    failed = 0
    for name, path in denoisers.items():
        if names and name not in names:
            continue
        try:
            click.echo(f"{name}: ok ({_verified_denoiser(path)})")
        except CryoLitheError as error:
            failed += 1
            click.echo(f"{name}: FAILED: {error}")
    for name, path in paths.items():
        recorded, digest = recorded_sha256(path), file_sha256(path)
        try:
            if recorded not in (None, digest):
                raise OutputError(f"sha256 is {digest[:12]}, recorded {str(recorded)[:12]}: the file was changed")
            difference = definition_and_engine_difference(load_model(str(path)).network)
            if not difference <= LARGEST_DIFFERENCE:
                raise OutputError(f"engine and definition differ by {difference:.1e}, allowed {LARGEST_DIFFERENCE:.0e}")
        except CryoLitheError as error:
            failed += 1
            click.echo(f"{name}: FAILED: {error}")
            continue
        known = "as recorded" if recorded else "none recorded"
        click.echo(
            f"{name}: ok (sha256 {digest[:12]}, {known}; weights finite; engine and definition {difference:.0e})"
        )
    if failed:
        click.echo(f"{failed} of {len(names) or len(paths) + len(denoisers)} models failed", err=True)
        raise click.exceptions.Exit(1)


def _echo_rows(rows: list[tuple[str, Any]]) -> None:
    width = min(44, max(len(key) for key, _ in rows))
    for key, value in rows:
        # A file may hold what would confuse a terminal.
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        click.echo(f"{printable(key):<{width}}  {printable(text)}")


def _verified_denoiser(path: Path) -> str:
    """What was found right with the weights of a denoiser.

    Raises:
        CryoLitheError: if they are damaged, changed, or answer differently by a device's way and by plain arithmetic.
    """
    from cryolithe.denoising.n2n.network import load_denoiser, rounding_difference

    recorded, known = recorded_sha256(path), load_denoiser(path)
    if recorded not in (None, known.sha256):
        raise OutputError(f"sha256 is {known.sha256[:12]}, recorded {str(recorded)[:12]}: the file was changed")
    difference = rounding_difference(known)
    if not difference <= _DENOISERS_DIFFER:
        raise OutputError(f"float32 and float64 differ by {difference:.1e}, allowed {_DENOISERS_DIFFER:.0e}")
    told = "as recorded" if recorded else "none recorded"
    return f"sha256 {known.sha256[:12]}, {told}; weights finite; float32 and float64 {difference:.0e}"


def _kind(summary: ModelSummary) -> str:
    """Network and head in a few words."""
    head = summary.config.get("head")
    levels = head.get("levels", 1) if isinstance(head, dict) else 1
    what = f"{head.get('wavelet', '')} x{levels}" if levels and isinstance(head, dict) else "voxels"
    if isinstance(head, dict) and "kind" in head:
        what = str(head["kind"])
    published = ", published" if summary.convention.get("sampling") == "published" else ""
    return printable(f"{summary.config.get('kind', '?')}, {what.strip()}{published}")


def _scores(path: Path) -> dict[str, Any]:
    """The scores beside a bundled model."""
    scores = _beside(path, ".scores.json").get("scores")
    return scores if isinstance(scores, dict) else {}


def _procedural(path: Path) -> dict[str, Any]:
    """The scores beside a bundled model that anyone can repeat, and the command that does."""
    found = _beside(path, f".{_REPEATABLE}.json")
    return {key: found[key] for key in ("command", "scores") if key in found}


def _beside(path: Path, ending: str) -> dict[str, Any]:
    """The table in a JSON file beside a model; empty where there is none."""
    try:
        table = json.loads(path.with_suffix(ending).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    """Rows ``a.b.c  value`` of a nested table."""
    if isinstance(value, dict) and value:
        return [row for key, inner in value.items() for row in _flat(f"{prefix}.{key}", inner)]
    return [] if value == {} else [(prefix, value)]
