"""What a card tells of the use of a model, where that model is made of others: trained further, or their mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

from cryolithe.errors import ModelError
from cryolithe.network.checkpoint import Model
from cryolithe.reconstruction.setup.whitening import noise_gain
from cryolithe.reconstruction.slabwise.networks import fbp_share
from cryolithe.training.starting import weights_in_common

# Share of filtered back-projection in the volumes, terms of use, and factors that make the noise of a lab white.
KEPT = ("fbp_share", "licence", "noise_gain")
# Correlation of weights: of separate trainings 0 ± 0.03, of tiny networks up to 0.17, as they begin alike in parts; of
# such as went on from one another 0.65 or more.
LEAST_IN_COMMON = 0.3


def kept_of(model: Model, whole: bool = True) -> dict[str, Any]:
    """What the card of a model tells that holds for what it becomes by more training.

    Args:
        model: that the training begins with.
        whole: whether with all of its weights; else what is made of them is another network, under its terms of use.
    """
    return {key: model.card[key] for key in KEPT if model.card.get(key) is not None and (whole or key == "licence")}


def check_start(model: Model) -> None:
    """Refuse to train weights on images other than those that they are applied to.

    Raises:
        ModelError: if the model is applied as the published program does it, or to images whose noise was made white,
            while a training takes them as they are.
    """
    if model.convention.published:
        raise ModelError(
            f"model {model.name} is applied as the published program does it, and cannot be trained on; start from a "
            "model of this program, such as default or fast"
        )
    if noise_gain(model) is not None:
        before = _adapted_from(model).get("model")
        named = f"from {before}, which it was adapted from," if before else "from the model that it was adapted from"
        raise ModelError(
            f"model {model.name} was adapted to images whose noise is made white (noise_gain on its card), but a "
            f"training takes images as they are; start {named} and adapt what comes of it"
        )


def shared_of(models: Sequence[Model], weights: Sequence[float]) -> tuple[dict[str, Any], list[str]]:
    """What the card of a weighted mean tells of its use.

    Args:
        models: that the mean is of.
        weights: of each.

    Returns:
        the card's entries, and a line about each that is not that of all models.

    Raises:
        ModelError: if there are no images that all of them expect, or a card tells no share or factors.
    """
    shares = [fbp_share(model, None) for model in models]
    found: dict[str, Any] = {}
    lines = []
    if any("fbp_share" in model.card for model in models):
        mean = sum(share * weight for share, weight in zip(shares, weights, strict=True)) / sum(weights)
        found["fbp_share"] = round(mean, 4)
        if len(set(shares)) > 1:
            theirs = ", ".join(f"{share:g}" for share in shares)
            lines.append(f"fbp_share: {found['fbp_share']:g}, the mean of theirs ({theirs})")
    licences = [model.card.get("licence") for model in models]
    if licences[0] is not None and all(licence == licences[0] for licence in licences):
        found["licence"] = licences[0]
    elif any(licence is not None for licence in licences):
        theirs = ", ".join("none" if licence is None else str(licence) for licence in licences)
        lines.append(f"licence: none on the card, for theirs differ ({theirs}); each holds for what is passed on")
    if (gain := _shared_gain(models)) is not None:
        found["noise_gain"] = gain
        of = ", ".join(model.name for model in models if noise_gain(model) == tuple(gain))
        if any(noise_gain(model) != tuple(gain) for model in models):
            lines.append(f"noise_gain: that of {of}")
    return found, lines


def check_related(models: Sequence[Model]) -> str:
    """Refuse a mean of models of separate trainings, or of a model with itself.

    Models belong together where cards tell of a model that both went on from, or where their weights are alike, which
    also those of smaller copies and of trainings that told nothing are.

    Returns:
        a line on models that seem to be of separate trainings, though cards do not tell; empty if all belong together.

    Raises:
        ModelError: if a model is given twice, or cards tell that trainings began with other random weights.
    """
    for number, model in enumerate(models):
        if any(model.sha256 == other.sha256 for other in models[:number]):
            raise ModelError(f"model {model.name} is given twice; give each model once, and more of it by --weight")
    groups: list[list[Model]] = []
    for model in models:
        near = [group for group in groups if any(_related(model, other) for other in group)]
        groups = [group for group in groups if group not in near] + [[model, *(one for group in near for one in group)]]
    if len(groups) == 1:
        return ""
    for group, others in combinations(groups, 2):
        for one, other in product(group, others):
            seeds = _first_seed(one.card), _first_seed(other.card)
            if None not in seeds and seeds[0] != seeds[1]:
                raise ModelError(
                    f"models {one.name} and {other.name} are of separate trainings, which began with other random "
                    f"weights (seed {seeds[0]} and {seeds[1]}): their mean would be worse than both; give models that "
                    "went on from the same one"
                )
    one, other = groups[0][0], groups[1][0]
    return (
        f"the weights of {one.name} and {other.name} have nothing in common, as those of separate trainings: their "
        "mean is worse than both; score it before use, or give models that went on from the same one"
    )


def _related(one: Model, other: Model) -> bool:
    if _lineage(one) & _lineage(other):
        return True
    return weights_in_common(one.network, other.network) > LEAST_IN_COMMON


def _lineage(model: Model) -> set[str]:
    """SHA-256 of a model and of those that it went on from, or is made of, with all of their weights."""
    return {model.sha256, *_ancestors(model.card)}


def _ancestors(card: Any) -> Iterator[str]:
    if not isinstance(card, dict):
        return
    adapted, recipe = card.get("adapted"), card.get("recipe")
    before = [adapted.get("from")] if isinstance(adapted, dict) else []
    if not (isinstance(recipe, dict) and any(recipe.get(key) for key in ("start_rows", "start_grown"))):
        before.append(card.get("began_with"))
    parts = card.get("mean_of")
    for one in (*before, *(parts if isinstance(parts, list) else ())):
        if isinstance(one, dict):
            yield from (one["sha256"],) if isinstance(one.get("sha256"), str) else ()
            yield from _ancestors(one)
            yield from _ancestors(one.get("card"))


def _first_seed(card: dict[str, Any]) -> int | None:
    """Seed of the random weights that a training began with; None where the card tells of none, or of a start."""
    recipe = card.get("recipe")
    if not isinstance(recipe, dict) or any(key in card for key in ("began_with", "adapted", "mean_of")):
        return None
    seed = recipe.get("seed")
    started = any(recipe.get(key) for key in ("start", "start_rows", "start_grown"))
    return None if started or not isinstance(seed, int) else seed


def _shared_gain(models: Sequence[Model]) -> list[float] | None:
    """The factors of a mean.

    A model and what was adapted from it lie on the same images, those that were filtered by the factors of the latter:
    so were both of them judged by ``adapt``.
    """
    gains = [noise_gain(model) for model in models]
    for gain in gains:
        origins = {_adapted_from(model).get("sha256") for model, own in zip(models, gains, strict=True) if own == gain}
        if all(own == gain or model.sha256 in origins for model, own in zip(models, gains, strict=True)):
            return None if gain is None else list(gain)
    white = next(n for n, gain in enumerate(gains) if gain is not None)
    other = next(n for n, gain in enumerate(gains) if gain != gains[white])
    has = "none" if gains[other] is None else "other ones"
    raise ModelError(
        f"model {models[white].name} was adapted to images whose noise is made white by factors on its card "
        f"(noise_gain), {models[other].name} has {has}: images of one are not those of the other; take the mean of a "
        "model with the very model that it was adapted from"
    )


def _adapted_from(model: Model) -> dict[str, Any]:
    adapted = model.card.get("adapted")
    origin = adapted.get("from") if isinstance(adapted, dict) else None
    return origin if isinstance(origin, dict) else {}
