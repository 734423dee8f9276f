"""What most convolutional networks are put together from: normalised convolutions, gates, norms over channels."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Network = TypeVar("Network", bound=nn.Module)


def conv_norm(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, dilation: int = 1,
    act: type[nn.Module] | None = None, bias: bool = False, eps: float = 1e-5,
) -> nn.Sequential:  # fmt: skip
    """Convolution of an odd kernel with 'same' padding, batch normalisation, and an activation if one is named."""
    pad = dilation * (kernel - 1) // 2
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, groups, bias=bias),
        nn.BatchNorm2d(outputs, eps=eps),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


def depthwise(channels: int, kernel: int, stride: int = 1, dilation: int = 1, *, bias: bool = True) -> nn.Conv2d:
    """One filter a channel, 'same' padding."""
    pad = dilation * (kernel - 1) // 2
    return nn.Conv2d(channels, channels, kernel, stride, pad, dilation, channels, bias=bias)


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of [batch, channels, height, width]."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        moved = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return moved.permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """Global response normalisation: channels of [batch, height, width, channels] by their share of the energy.

    Source: Woo et al. 2023, ConvNeXt V2, arXiv:2301.00808, section 3.3.
    """

    def __init__(self, channels: int, *, bias: bool = True):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        energy = x.norm(p=2, dim=(1, 2), keepdim=True)
        share = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        scaled = (self.gamma * share + 1) * x
        return scaled if self.beta is None else scaled + self.beta


class SqueezeExcite(nn.Module):
    """Channels gated by two 1x1 layers on their means (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(
        self, channels: int, hidden: int, *, act: type[nn.Module] = nn.ReLU, gate: type[nn.Module] = nn.Sigmoid
    ):
        super().__init__()
        self.down = nn.Conv2d(channels, hidden, 1)
        self.act = act()
        self.up = nn.Conv2d(hidden, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x * self.gate(self.up(self.act(self.down(x.mean((2, 3), keepdim=True)))))


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x + self.body(x)


class PooledHead(nn.Module):
    """Mean over space, a norm over channels if there is one, and a linear layer: logits [batch, classes]."""

    def __init__(self, channels: int, classes: int, norm: nn.Module | None = None):
        super().__init__()
        self.norm = norm or nn.Identity()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a map [batch, channels, height, width]."""
        return self.linear(self.norm(x.mean((2, 3))))


def rounded(width: float, divisor: int = 8) -> int:
    """The nearest multiple, never more than a tenth below the width (the rule of MobileNets)."""
    nearest = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * width else nearest


def at(network: Network, resolution: int) -> Network:
    """The network in evaluation mode, which says the side of its square input."""
    network.resolution = resolution  # type: ignore[assignment]
    return network.eval()
