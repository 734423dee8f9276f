"""CFSR: super-resolution with 9x9 depthwise modulation, and edge filters that are merged into a 3x3 layer.

Source: Wu et al. 2024, Transforming Image Super-Resolution, arXiv:2401.05633; sections 3.2 and 3.3.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from suites.common.conv_blocks import LayerNorm2d, at, depthwise

WIDTH = 48
GROUPS, LAYERS = 2, 6
#: Sobel in x and y, and the Laplacian: fixed filters whose strengths are learned.
EDGES = (
    ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0)),
    ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0)),
    ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0)),
)


class EdgeDepthwise(nn.Module):
    """A 3x3 depthwise layer and three fixed edge filters, each with a learned strength a channel, summed."""

    edges: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.plain = depthwise(channels, 3)
        self.strengths = nn.Parameter(torch.randn(len(EDGES), channels) * 1e-2)
        self.register_buffer("edges", torch.tensor(EDGES), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        total = self.plain(x)
        channels = x.shape[1]
        for strength, edge in zip(self.strengths, self.edges, strict=True):
            kernel = edge.expand(channels, 1, 3, 3) * strength.view(-1, 1, 1, 1)
            total = total + F.conv2d(x, kernel, padding=1, groups=channels)
        return total

    def merged(self) -> nn.Conv2d:
        """One 3x3 depthwise layer that computes the same."""
        channels = self.plain.in_channels
        layer = depthwise(channels, 3)
        added = torch.einsum("fc,fij->cij", self.strengths, self.edges).unsqueeze(1)
        layer.weight = nn.Parameter((self.plain.weight + added).detach())
        assert self.plain.bias is not None
        layer.bias = nn.Parameter(self.plain.bias.detach().clone())
        return layer


class _Modulation(nn.Module):
    """1x1 of (9x9 depthwise(GELU(1x1)) * 1x1)."""

    def __init__(self, channels: int):
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), depthwise(channels, 9))
        self.value = nn.Conv2d(channels, channels, 1)
        self.leave = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.gate(x) * self.value(x))


class _Layer(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = LayerNorm2d(channels, eps=1e-6)
        self.modulation = _Modulation(channels)
        self.norm2 = LayerNorm2d(channels, eps=1e-6)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.spatial: nn.Module = EdgeDepthwise(2 * channels)
        self.act = nn.GELU()
        self.narrow = nn.Conv2d(2 * channels, channels, 1)
        self.scale1 = nn.Parameter(torch.full((channels, 1, 1), 1e-2))
        self.scale2 = nn.Parameter(torch.full((channels, 1, 1), 1e-2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1 * self.modulation(self.norm1(x))
        return x + self.scale2 * self.narrow(self.act(self.spatial(self.widen(self.norm2(x)))))


class Cfsr(nn.Module):
    """Pictures [batch, 3, height, width] to [batch, 3, scale height, scale width]."""

    def __init__(self, scale: int, width: int):
        super().__init__()
        self.scale = scale
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.groups = nn.Sequential(
            *(nn.Sequential(*(_Layer(width) for _ in range(LAYERS)), nn.Conv2d(width, width, 1)) for _ in range(GROUPS))
        )
        self.norm = LayerNorm2d(width, eps=1e-6)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Sequential(nn.Conv2d(width, 3 * scale * scale, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged pictures."""
        shallow = self.enter(x)
        return self.leave(shallow + self.mix(self.norm(self.groups(shallow))))


class WideCfsr(Cfsr):
    """CFSR on pictures of 16:9, the size of published counts: height x 16 height / 9."""

    height: int

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random pictures."""
        like = next(self.parameters())
        return (torch.rand(batch, 3, self.height, self.height * 16 // 9, device=like.device),)


def cfsr(
    *,
    scale: PositiveInt = 4,
    form: Literal["merged", "train"] = "merged",
    width: PositiveInt = WIDTH,
    wide: bool = False,
    resolution: PositiveInt = 48,
) -> Cfsr:
    """A CFSR network.

    Args:
        scale: how much it enlarges: 2, 3 or 4 in the paper.
        form: `train` with its edge filters apart, `merged` with all in one 3x3 layer.
        width: channels.
        wide: pictures of 16:9 in place of square ones; the resolution is their height, 180 in the published counts.
        resolution: side of the input.
    """
    network = WideCfsr(scale, width) if wide else Cfsr(scale, width)
    network.eval()
    if isinstance(network, WideCfsr):
        network.height = resolution
    if form == "merged":
        for module in network.modules():
            if isinstance(module, _Layer) and isinstance(module.spatial, EdgeDepthwise):
                module.spatial = module.spatial.merged()
    return at(network, resolution)
