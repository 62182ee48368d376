"""Exact algebra on networks, so that little is left to do for each point.

Three facts, all of them about linear maps (so nothing is approximated, only the order of sums changes):

1. Everything before the first ReLU is one linear map per tilt, W_θ = W1 diag(e(θ)) U, and linear interpolation
   commutes with it. So W_θ is applied to the filtered rows once, at whole pixels ("lifted" rows), and a point only
   interpolates the result: ReLU(W_θ window(u)) = ReLU(lerp(lifted[floor u], lifted[floor u + 1])).
2. The mean over tilts commutes with the linear map after the ReLU: pool first, multiply once.
3. Two linear maps with nothing in between are one: the map after the pooling is folded into the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from cryolithe.network import Network
from cryolithe.network.layers import Mlp
from cryolithe.network.rowset import RowSet
from cryolithe.network.sliceset import RowEncoder as SliceRowEncoder


@dataclass(frozen=True)
class Step:
    """One layer: ``y = W x``, perhaps with ReLU, perhaps added to its input.

    Attributes:
        weight: shape ``(outputs, inputs)``.
        relu: whether a ReLU follows.
        skip: whether the input is added, after the ReLU.
    """

    weight: torch.Tensor
    relu: bool
    skip: bool = False


@dataclass(frozen=True)
class RowEncoder:
    """What turns a detector row, seen from a point, into features.

    Attributes:
        maps: W_θ, shape ``(tilts, channels, samples)``; a ReLU follows.
        each_tilt: further layers before the mean over tilts; mostly none.
        steps: layers after the mean.
    """

    maps: torch.Tensor
    each_tilt: tuple[Step, ...]
    steps: tuple[Step, ...]

    @property
    def features(self) -> int:
        """Values per row that go on to the combiner."""
        return int(self.steps[-1].weight.shape[0])


@dataclass(frozen=True)
class LiftedNetwork:
    """A network for the tilts of one series.

    Attributes:
        encoders: one that all rows of a patch share, or one for each row of the patch.
        combine: layers from the features of a patch's rows, ``(rows, features)`` flattened, to the outputs.
        rows_per_point: rows of a patch.
        stride: rows from one patch to the next.
    """

    encoders: tuple[RowEncoder, ...]
    combine: tuple[Step, ...]
    rows_per_point: int
    stride: int

    @property
    def shared(self) -> bool:
        """Whether a row's features serve all patches that hold it."""
        return len(self.encoders) == 1

    @property
    def outputs(self) -> int:
        """Values of a point; what a trunk takes, if the network has one."""
        return int(self.combine[-1].weight.shape[0])

    def to(self, device: torch.device, dtype: torch.dtype) -> LiftedNetwork:
        """The same on a device, with layers in a precision; the lifting maps stay as precise as they are."""

        def moved(steps: tuple[Step, ...]) -> tuple[Step, ...]:
            return tuple(replace(step, weight=step.weight.to(device, dtype).contiguous()) for step in steps)

        encoders = tuple(RowEncoder(e.maps.to(device), moved(e.each_tilt), moved(e.steps)) for e in self.encoders)
        return replace(self, encoders=encoders, combine=moved(self.combine))


@torch.no_grad()
def lift_network(network: Network, angles_rad: torch.Tensor, facts: torch.Tensor | None = None) -> LiftedNetwork:
    """Rewrite a network for given tilts.

    Args:
        network: in float32 or float64, which the result keeps.
        angles_rad: shape ``(tilts,)``.
        facts: what is known of the series (`cryolithe.network.knowing`), shape ``(tilts, facts)``; None for nothing.
    """
    dtype = next(network.parameters()).dtype
    angles = angles_rad.to(dtype)
    rows, stride = network.rows_per_point, network.config.head.stride
    if isinstance(network, RowSet):
        steps = mlp_steps(network.encode_row)
        # The definition flattens (features, rows); here it is (rows, features).
        gather = network.gather_rows.weight.unflatten(1, (-1, rows)).transpose(1, 2).flatten(1)
        if network.known is not None and facts is not None:
            gather = network.known.of_series(facts.to(dtype))[:, None] * gather
        if network.combine is None:
            combine: tuple[Step, ...] = (Step(gather, relu=False),)
            steps = _passing_on(steps, network.pass_on.weight)
        else:
            combine = (Step(gather, relu=True), *mlp_steps(network.combine))
        return LiftedNetwork((RowEncoder(network.tilt_context(angles, facts), (), steps),), combine, rows, stride)
    encoding = network.tilt_context(angles)
    return LiftedNetwork(
        tuple(_slice_encoder(row, encoding) for row in network.row_encoders if isinstance(row, SliceRowEncoder)),
        mlp_steps(network.combine),
        rows,
        stride,
    )


def _passing_on(steps: tuple[Step, ...], direct: torch.Tensor) -> tuple[Step, ...]:
    """Two layers and a map past both as two layers: a mean of ReLUs is not negative, so a ReLU lets it pass."""
    first, last = steps
    same = torch.eye(first.weight.shape[1]).to(first.weight)
    return (
        replace(first, weight=torch.cat([first.weight, same])),
        replace(last, weight=torch.cat([last.weight, direct], dim=1)),
    )


def _slice_encoder(row: SliceRowEncoder, encoding: torch.Tensor) -> RowEncoder:
    """One row position of a `SliceSet`."""
    first, *others = mlp_steps(row.per_tilt)[:-1]
    maps = torch.einsum("hc,tc,cs->ths", first.weight, encoding, row.lift.weight)
    head, *rest = mlp_steps(row.pooled)
    folded = replace(head, weight=head.weight @ row.per_tilt.last.weight)
    return RowEncoder(maps, tuple(others), (folded, *rest))


def shows_overflow(network: LiftedNetwork) -> bool:
    """Whether values beyond the range of float16, wherever they arise, leave some output that is not finite.

    Infinity times a weight is infinity, or NaN if the weight is 0, and NaN stays. Only minus infinity is lost in a
    ReLU, where it is right unless other terms of the sum would have made up for it. So an infinite input must reach
    some unit of the next layer as plus infinity or NaN: not all weights that it meets there have the other sign.
    Trunks add to their input, which therefore stays infinite. The weights themselves must be in range.

    Args:
        network: in float32 or better.
    """
    steps = [*network.combine, *(step for e in network.encoders for step in (*e.each_tilt, *e.steps))]
    largest = torch.finfo(torch.float16).max
    return all(bool((step.weight.abs() < largest).all()) for step in steps) and all(
        bool(((step.weight >= 0).any(0) & (step.weight <= 0).any(0)).all())
        for step in steps
        if step.relu and not step.skip
    )


def mlp_steps(mlp: Mlp) -> tuple[Step, ...]:
    """The layers of a perceptron."""
    hidden = [Step(_linear(layer), relu=True, skip=mlp.skip and number > 0) for number, layer in enumerate(mlp.layers)]
    return (*hidden, Step(mlp.last.weight, relu=False))


def apply_steps(x: torch.Tensor, steps: tuple[Step, ...]) -> torch.Tensor:
    """Apply layers to the last axis."""
    for step in steps:
        y = nn.functional.linear(x, step.weight)
        if step.relu:
            y.relu_()
        x = y.add_(x) if step.skip else y
    return x


def _linear(layer: nn.Module) -> torch.Tensor:
    assert isinstance(layer, nn.Linear)
    return layer.weight
