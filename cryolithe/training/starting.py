"""Fresh networks that begin with what others have learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from cryolithe.errors import ModelError
from cryolithe.network import Network, NetworkConfig, RowSet, build_network

WIDTHS = ("channels", "row_hidden", "row_features", "combiner_width")


def with_row_encoder_of(donor: Network, network: Network, name: str) -> Network:
    """Put the row encoder of a trained `RowSet` into a fresh one.

    What is learnt about rows serves every head; only the combiner has to be learnt anew.

    Args:
        donor: the trained network.
        network: is changed and returned.
        name: of the donor, for messages.

    Raises:
        ModelError: if one of them is no RowSet or their row encoders differ in size.
    """
    if not (isinstance(donor, RowSet) and isinstance(network, RowSet)):
        raise ModelError(f"start_rows: '{name}' and the configuration's network must both be of kind RowSet")
    for part in ("lift", "angle_gain", "mix", "encode_row"):
        taken, place = getattr(donor, part).state_dict(), getattr(network, part).state_dict()
        for leaf, values in taken.items():
            if place.get(leaf, torch.empty(0)).shape != values.shape:
                raise ModelError(
                    f"start_rows: '{part}.{leaf}' of '{name}' has the shape {tuple(values.shape)}, the configuration's "
                    f"network needs {tuple(place[leaf].shape) if leaf in place else 'none'}"
                )
        getattr(network, part).load_state_dict(taken)
    return network


def takes_more_facts(donor: NetworkConfig, config: NetworkConfig) -> bool:
    """Whether networks differ in nothing but that the donor takes no facts about a series and the other one does."""
    return not donor.input.known and bool(config.input.known) and _without_facts(config) == donor


def knowing_from(donor: Network, network: Network) -> Network:
    """Make a network that takes facts compute exactly what one computes that takes none, until it learns more.

    Args:
        donor: the trained network.
        network: fresh, see `takes_more_facts`; is changed and returned.
    """
    network.load_state_dict({**network.state_dict(), **donor.state_dict()})
    return network


def mean_network(networks: Sequence[Network], weights: Sequence[float]) -> Network:
    """The weighted mean of the weights of networks that went on from the same training.

    Such networks lie in one basin, so their mean computes something between them, mostly better than the mean of their
    scores (Izmailov et al. 2018, "Averaging weights leads to wider optima"; Wortsman et al. 2022, "Robust fine-tuning
    of zero-shot models"). Networks of separate trainings have no such mean. What only those have that take facts
    about a series is the mean of theirs.

    Args:
        networks: two or more that differ in nothing but whether they take facts.
        weights: one for each, above 0; only their ratios matter.

    Raises:
        ModelError: if the networks are not of one kind, or the weights do not fit.
    """
    if len(networks) < 2 or len(networks) != len(weights):
        raise ModelError(f"a mean needs two models or more and a weight for each, got {len(networks)}, {len(weights)}")
    if not all(0 < weight < float("inf") for weight in weights):
        raise ModelError(f"weights of a mean must be above 0, got {', '.join(f'{weight:g}' for weight in weights)}")
    config = next((network.config for network in networks if network.config.input.known), networks[0].config)
    for number, network in enumerate(networks, start=1):
        if network.config != config and not takes_more_facts(network.config, config):
            raise ModelError(f"model {number} of a mean is another network than the others; only those of one kind fit")
    states = [network.state_dict() for network in networks]
    mean = build_network(config)
    weighted = {}
    for leaf, value in mean.state_dict().items():
        with_it = [(w, state[leaf].double()) for w, state in zip(weights, states, strict=True) if leaf in state]
        whole = sum(weight for weight, _ in with_it)
        weighted[leaf] = sum(weight / whole * values for weight, values in with_it).to(value.dtype)
    mean.load_state_dict(weighted)
    return mean


def weights_in_common(one: Network, other: Network) -> float:
    """Correlation of the weights of two networks of one kind: near 0 for separate trainings.

    Of bundled models that went on from one another, for thousands of steps, it is 0.65 or more.
    """
    others, total, count = other.state_dict(), 0.0, 0
    for leaf, values in one.state_dict().items():
        theirs = others.get(leaf)
        if values.dim() < 2 or theirs is None or theirs.shape != values.shape:
            continue  # gains and offsets are much alike in all networks
        a, b = (weights.double().flatten() - weights.double().mean() for weights in (values, theirs))
        scale = float(a.norm() * b.norm())
        total += len(a) * (float(a @ b) / scale if scale > 0 else 0.0)
        count += len(a)
    return total / count if count else 1.0


def _without_facts(config: NetworkConfig) -> NetworkConfig:
    return replace(config, input=replace(config.input, known=()))


def grown_from(donor: Network, network: Network, name: str) -> Network:
    """Make a fresh, wider `RowSet` compute exactly what a trained one computes.

    The trained weights stand in the corner of the wider ones. What is new reads everything, but nothing that was
    there reads what is new until training makes it so (as in Chen, Goodfellow and Shlens 2016, "Net2Net", but with
    fresh units in place of copies: two copies would stay alike). A donor that takes no facts about a series may grow
    into a network that does.

    Args:
        donor: the trained network.
        network: is changed and returned.
        name: of the donor, for messages.

    Raises:
        ModelError: if one of them is no RowSet, the fresh one is narrower, or they differ in more than their widths.
    """
    if not (isinstance(donor, RowSet) and isinstance(network, RowSet)):
        raise ModelError(f"start_grown: '{name}' and the configuration's network must both be of kind RowSet")
    small = asdict(donor.config)
    large = asdict(network.config if donor.config.input.known else _without_facts(network.config))
    for key in large:
        fits = small[key] <= large[key] if key in WIDTHS else small[key] == large[key]
        if not fits:
            wanted = f"{small[key]} or more" if key in WIDTHS else f"{small[key]}"
            raise ModelError(f"start_grown: the network's '{key}' must be {wanted}, as in '{name}', got {large[key]}")
    weights = network.state_dict()
    for leaf, trained in donor.state_dict().items():
        outputs, inputs = trained.shape[:2]
        weights[leaf][:outputs, inputs:] = 0
        weights[leaf][:outputs, :inputs] = trained
    network.load_state_dict(weights)
    return network
