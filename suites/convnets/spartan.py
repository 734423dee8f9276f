"""SpaRTAN: three dilated convolutions as two branches, and a channel mixer that lets values meet like waves.

Source: SpaRTAN, arXiv:2507.10999; sizes and layers as released.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import Counts, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import PooledHead, SqueezeExcite, at, conv_norm

#: Hidden width over width of each stage's channel mixer.
RATIOS = (4, 4, 2, 2)
#: Stages (from 0) whose spatial mixer is dense and whose channel mixer is depthwise.
EARLY = (0, 1)


class SpatialMixer(nn.Module):
    """Half the channels, contrast against their mean, a 3x3 branch and one of two chained 3x3 of dilation 2."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        half = channels // 2
        self.norm = nn.GroupNorm(1, channels)
        self.enter = nn.Conv2d(channels, half, 1)
        self.contrast = nn.Parameter(torch.zeros(half, 1, 1))
        self.near = conv_norm(half, half, 3, groups=groups)
        self.far = nn.Sequential(
            nn.Conv2d(half, half, 3, padding=2, dilation=2, groups=groups, bias=False),
            *conv_norm(half, half, 3, dilation=2, groups=groups),
        )
        self.gate_near = SqueezeExcite(half, max(1, half // 4))
        self.gate_far = SqueezeExcite(half, max(1, half // 4))
        self.leave = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        y = self.enter(self.norm(x))
        y = y + self.contrast * (y - y.mean((2, 3), keepdim=True))
        near = self.near(y)
        return self.leave(torch.cat((self.gate_near(near), self.gate_far(self.far(near))), dim=1))


class ChannelMixer(nn.Module):
    """Waves: each value and the one at the channel of the largest angle.

    Added at an angle that a weight of the channel turns.
    """

    def __init__(self, channels: int, ratio: int, groups: int):
        super().__init__()
        hidden = ratio * channels
        self.norm = nn.GroupNorm(1, channels)
        self.angle = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, hidden, 1)
        self.phase = nn.Parameter(torch.zeros(hidden, 1, 1))  # of a complex number of length 1
        self.local = conv_norm(hidden, hidden, 3, groups=groups)
        self.gate = SqueezeExcite(hidden, max(1, channels // 4))
        self.leave = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        y = self.norm(x)
        angle, value = self.angle(y), self.value(y)
        largest = angle.argmax(dim=1, keepdim=True)
        met = value.gather(1, largest)
        turned = angle + self.phase
        return self.leave(self.gate(self.local(value * turned.cos() + met * turned.sin())))


class _Block(nn.Module):
    def __init__(self, channels: int, stage: int):
        super().__init__()
        early = stage in EARLY
        hidden = RATIOS[stage] * channels
        self.spatial = SpatialMixer(channels, 1 if early else channels // 2)
        self.mixer = ChannelMixer(channels, RATIOS[stage], hidden if early else channels)
        self.scale1 = nn.Parameter(torch.full((channels, 1, 1), 1e-2))
        self.scale2 = nn.Parameter(torch.full((channels, 1, 1), 1e-2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1 * self.spatial(x)
        return x + self.scale2 * self.mixer(x)


def spartan(
    *, dims: Counts = [32, 64, 128, 256], depths: Counts = [3, 3, 12, 2],  # noqa: B006
    classes: PositiveInt = 1000, resolution: PositiveInt = 256,
) -> nn.Sequential:  # fmt: skip
    """A SpaRTAN classifier of images [batch, 3, height, width].

    Args:
        dims: widths of the four stages, even.
        depths: their blocks.
        classes: logits.
        resolution: side of the input.

    Raises:
        UsageError: widths and depths are not of four stages, or a width is odd.
    """
    if len(dims) != 4 or len(depths) != 4:
        raise UsageError(f"spartan: dims={dims} and depths={depths} must name four stages")
    if any(width % 2 or width < 4 for width in dims):
        raise UsageError(f"spartan: dims={dims} must be even and at least 4")
    layers: list[nn.Module] = [
        conv_norm(3, dims[0] // 2, 3, 2, act=nn.GELU), conv_norm(dims[0] // 2, dims[0], 3, 2, act=nn.GELU)
    ]  # fmt: skip
    for stage, (width, depth) in enumerate(zip(dims, depths, strict=True)):
        if stage:
            down = nn.Conv2d(dims[stage - 1], width, 2, 2, bias=False)
            layers.append(nn.Sequential(down, nn.BatchNorm2d(width)))
        layers += [_Block(width, stage) for _ in range(depth)]
    return at(nn.Sequential(*layers, PooledHead(dims[-1], classes)), resolution)
