"""DDRNet: segmentation in two branches of plain convolutions that exchange their maps, a baseline of BEVANet.

Source: Hong et al. 2021, Deep Dual-resolution Networks, arXiv:2101.06085; section 3, table 1 (DDRNet-23-slim). The head
of training is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.conv_blocks import conv_norm
from suites.convnets.bevanet import before, resized
from suites.convnets.pidnet import POOLS, bottleneck, plain_stage

#: Width of a layer of the pools, and of the head, in the slim network.
POOLED, HEAD = 128, 64
#: Blocks of every stage but the last.
DEPTH = 2


class CascadedPool(nn.Module):
    """DAPPM: pooled maps of four sizes, each processed together with what came out of the one before."""

    def __init__(self, inputs: int, outputs: int, width: int):
        super().__init__()
        pools: list[nn.Module] = [nn.AvgPool2d(window, stride, stride) for window, stride in POOLS]
        pools.append(nn.AdaptiveAvgPool2d(1))
        self.whole = before(inputs, width)
        self.pooled = nn.ModuleList(nn.Sequential(pool, before(inputs, width)) for pool in pools)
        self.process = nn.ModuleList(before(width, width, 3) for _ in pools)
        self.join = before((1 + len(pools)) * width, outputs)
        self.shortcut = before(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outputs, h, w]."""
        maps = [self.whole(x)]
        for pool, process in zip(self.pooled, self.process, strict=True):
            maps.append(process(resized(pool(x), maps[0]) + maps[-1]))
        return self.join(torch.cat(maps, 1)) + self.shortcut(x)


class Ddrnet(nn.Module):
    """Images [batch, 3, h, w] to logits of every eighth place, [batch, classes, h / 8, w / 8]."""

    def __init__(self, planes: int, pooled: int, hidden: int, classes: int):
        super().__init__()
        p = planes
        self.stem = nn.Sequential(
            conv_norm(3, p, 3, 2, act=nn.ReLU, bias=True), conv_norm(p, p, 3, 2, act=nn.ReLU, bias=True),
            plain_stage(p, p, DEPTH), nn.ReLU(), plain_stage(p, 2 * p, DEPTH, 2), nn.ReLU(),
        )  # fmt: skip
        self.context3, self.context4 = plain_stage(2 * p, 4 * p, DEPTH, 2), plain_stage(4 * p, 8 * p, DEPTH, 2)
        self.context5 = bottleneck(8 * p, 8 * p, 2)
        self.detail3, self.detail4 = plain_stage(2 * p, 2 * p, DEPTH), plain_stage(2 * p, 2 * p, DEPTH)
        self.detail5 = bottleneck(2 * p, 2 * p)
        self.up3, self.up4 = conv_norm(4 * p, 2 * p), conv_norm(8 * p, 2 * p)
        self.down3 = conv_norm(2 * p, 4 * p, 3, 2)
        self.down4 = nn.Sequential(conv_norm(2 * p, 4 * p, 3, 2, act=nn.ReLU), conv_norm(4 * p, 8 * p, 3, 2))
        self.pool = CascadedPool(16 * p, 4 * p, pooled)
        self.head = nn.Sequential(
            before(4 * p, hidden, 3), nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, classes, 1)
        )
        self.size = (720, 960)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        context, detail = self.context3(x), self.detail3(x)
        down, up = self.down3(detail.relu()), self.up3(context.relu())
        context, detail = (context + down).relu(), (detail + resized(up, detail)).relu()
        context, detail = self.context4(context), self.detail4(detail)
        down, up = self.down4(detail.relu()), self.up4(context.relu())
        context, detail = (context + down).relu(), (detail + resized(up, detail)).relu()
        detail = self.detail5(detail)
        return self.head(detail + resized(self.pool(self.context5(context)), detail))

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random images of the network's size."""
        return (torch.randn(batch, 3, *self.size, device=next(self.parameters()).device),)


def ddrnet(
    *, planes: PositiveInt = 32, pooled: PositiveInt = POOLED, hidden: PositiveInt = HEAD, classes: PositiveInt = 11,
    wide: bool = False, resolution: PositiveInt = 720,
) -> Ddrnet:  # fmt: skip
    """A DDRNet-23 as deployed, on images of resolution x (4/3 resolution).

    Args:
        planes: widths follow from it; 32 is the slim network.
        pooled: width of a layer of the pools.
        hidden: width of the head.
        classes: of a place.
        wide: images of 2:1 in place of 4:3; the resolution is their height, 1024 in the published counts.
        resolution: height of the input.
    """
    network = Ddrnet(planes, pooled, hidden, classes).eval()
    network.size = (resolution, resolution * 2 if wide else resolution * 4 // 3)
    network.resolution = resolution  # type: ignore[assignment]
    return network
