"""The flow network: bi-directional motion between two planes, refined from coarse to fine by one set of weights."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import nn

from cryolithe.denoising.samba.warp import backward_warp, correlation, resize_flow, softmax_splat

SLOPE = 0.1  # of leaky ReLU, in the whole flow network
FEATURE_STRIDE = 4


@dataclass(frozen=True)
class FlowConfig:
    """Sizes of the flow network; the defaults are the published ones.

    Attributes:
        levels: of the image pyramid.
        features: channels at half and at a quarter of a level's size.
        depths: convolutions at each of them after the one that halves.
        radius: of the correlation, in pixels at a quarter of a level's size.
        estimator: channels of the layers that turn correlations into flow.
        importance: channels of the first layer of the network that weighs pixels for splatting.
    """

    levels: int = 3
    features: tuple[int, int] = (24, 48)
    depths: tuple[int, int] = (2, 5)
    radius: int = 4
    estimator: tuple[int, ...] = (160, 128, 112, 96, 64)
    importance: int = 4


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution, padded by reflection."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1, padding_mode="reflect")


def halve(images: torch.Tensor) -> torch.Tensor:
    """Images of half the size: means of 2 x 2 pixels."""
    return F.avg_pool2d(images, 2)


class _Features(nn.Sequential):
    """Features of planes: ``(n, 1, y, x)`` to ``(n, features[1], y / 4, x / 4)``."""

    def __init__(self, config: FlowConfig) -> None:
        layers: list[nn.Module] = []
        before = 1
        for channels, depth in zip(config.features, config.depths, strict=True):
            layers += [nn.Conv2d(before, channels, 2, 2), nn.LeakyReLU(SLOPE)]
            for _ in range(depth):
                layers += [conv3(channels, channels), nn.LeakyReLU(SLOPE)]
            before = channels
        super().__init__(*layers)


class _Importance(nn.Module):
    """How much a pixel is to weigh in splatting, from the image and how badly the flow explains it there.

    A U-Net of two levels; it starts with equal importance for all.
    """

    def __init__(self, base: int) -> None:
        super().__init__()
        self.first = conv3(2, base)
        self.down = conv3(base, 2 * base, stride=2)
        self.deep = conv3(2 * base, 2 * base)
        self.up = nn.ConvTranspose2d(2 * base, base, 2, 2)
        self.last = conv3(2 * base, 1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, image: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
        """Images and errors ``(n, 1, y, x)`` to importances of the same shape."""
        act = lambda x: F.leaky_relu(x, SLOPE)  # noqa: E731
        fine = act(self.first(torch.cat([image, error], dim=1)))
        coarse = act(self.deep(act(self.down(fine))))
        out: torch.Tensor = self.last(torch.cat([fine, act(self.up(coarse))], dim=1))
        return out


class FlowNet(nn.Module):
    """Motion from each of two planes to the other.

    At the coarsest level of a pyramid the features of both planes are correlated; at each finer level the planes are
    first splatted half-way towards each other by the flow so far (Jin et al., WACV 2023).
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.features = _Features(config)
        self.importance = _Importance(config.importance)
        channels = config.features[1]
        self.state_channels = config.estimator[-1]
        inputs = (2 * config.radius + 1) ** 2 + 2 * channels + 4 + self.state_channels
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((inputs, *config.estimator)):
            first = not layers
            layers += [nn.Conv2d(before, after, 1) if first else conv3(before, after), nn.LeakyReLU(SLOPE)]
        self.estimator = nn.Sequential(*layers)
        self.to_flow = conv3(self.state_channels, 4)
        nn.init.zeros_(self.to_flow.weight)  # no motion to start with
        assert self.to_flow.bias is not None
        nn.init.zeros_(self.to_flow.bias)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Flows at the planes' own size.

        Args:
            first: planes, shape ``(n, 1, y, x)``, y and x multiples of ``4 * 2 ** (levels - 1)``.
            second: planes of the same shape.

        Returns:
            Shape ``(n, 4, y, x)``, pixels: from the first plane to the second (x, y), and back.
        """
        n = first.shape[0]
        pyramid = [torch.cat([first, second])]
        for _ in range(self.config.levels - 1):
            pyramid.append(halve(pyramid[-1]))
        flow = state = None
        for images in reversed(pyramid):
            if flow is None or state is None:
                shape = (n, -1, images.shape[2] // FEATURE_STRIDE, images.shape[3] // FEATURE_STRIDE)
                flow = images.new_zeros(1, 1, 1, 1).expand(n, 4, *shape[2:])
                state = images.new_zeros(1, 1, 1, 1).expand(n, self.state_channels, *shape[2:])
                met = images
            else:
                flow = resize_flow(flow, 2)
                state = F.interpolate(state, scale_factor=2, mode="bilinear", align_corners=False)
                met = self._meet(images, resize_flow(flow, FEATURE_STRIDE))
            features = self.features(met)
            a, b = features[:n], features[n:]
            matched = F.leaky_relu(correlation(a, b, self.config.radius), SLOPE)
            state = self.estimator(torch.cat([matched, a, b, flow, state], dim=1))
            flow = flow + self.to_flow(state)
        assert flow is not None
        return resize_flow(flow.float(), FEATURE_STRIDE)

    def _meet(self, images: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
        """Both planes splatted half-way towards each other, shape of ``images``: ``(2 n, 1, y, x)``."""
        n = images.shape[0] // 2
        there_and_back = torch.cat([flow[:, :2], flow[:, 2:]])
        others = torch.cat([images[n:], images[:n]])
        error = images - backward_warp(others, there_and_back)
        return softmax_splat(images, 0.5 * there_and_back, self.importance(images, error))
