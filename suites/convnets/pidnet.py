"""PIDNet-S: segmentation in three branches of plain convolutions, the baseline that BEVANet starts from.

Source: Xu, Xiong and Bhattacharyya 2023, PIDNet, arXiv:2206.02066; section 3, layers as released, heads of training
left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.conv_blocks import conv_norm
from suites.convnets.bevanet import HEAD, POOLED, PixelFusion, PlainResidual, basic, before, resized

#: Pools of the deepest map: window and stride; the last is the whole map.
POOLS = ((5, 2), (9, 4), (17, 8))


def plain_stage(inputs: int, outputs: int, depth: int, stride: int = 1) -> nn.Sequential:
    """Basic blocks, of which the last ends without ReLU."""
    blocks = [
        basic(outputs if place else inputs, outputs, 1 if place else stride, relu=place == 0 or place < depth - 1)
        for place in range(depth)
    ]
    return nn.Sequential(*blocks)


def bottleneck(inputs: int, width: int, stride: int = 1) -> nn.Module:
    """1x1, 3x3 and 1x1 to twice the width, without ReLU behind."""
    layers = [
        *conv_norm(inputs, width, act=nn.ReLU),
        *conv_norm(width, width, 3, stride, act=nn.ReLU),
        *conv_norm(width, 2 * width),
    ]
    return PlainResidual(nn.Sequential(*layers), inputs, 2 * width, stride, relu=False)


class ParallelPool(nn.Module):
    """PAPPM: pooled maps of four sizes, processed side by side in one grouped layer."""

    def __init__(self, inputs: int, outputs: int, width: int = POOLED):
        super().__init__()
        pools: list[nn.Module] = [nn.AvgPool2d(window, stride, stride) for window, stride in POOLS]
        pools.append(nn.AdaptiveAvgPool2d(1))
        self.whole = before(inputs, width)
        self.pooled = nn.ModuleList(nn.Sequential(pool, before(inputs, width)) for pool in pools)
        together = len(pools) * width
        conv = nn.Conv2d(together, together, 3, padding=1, groups=len(pools), bias=False)
        self.process = nn.Sequential(nn.BatchNorm2d(together), nn.ReLU(), conv)
        self.join = before(together + width, outputs)
        self.shortcut = before(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outputs, h, w]."""
        whole = self.whole(x)
        views = [resized(layer(x), whole) + whole for layer in self.pooled]
        return self.join(torch.cat((whole, self.process(torch.cat(views, 1))), 1)) + self.shortcut(x)


class LightFusion(nn.Module):
    """Light-Bag: a boundary map decides between detail and context, one 1x1 layer each."""

    def __init__(self, channels: int):
        super().__init__()
        self.detail, self.context = conv_norm(channels, channels), conv_norm(channels, channels)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        """The same shape."""
        gate = boundary.sigmoid()
        return self.detail((1 - gate) * context + detail) + self.context(context + gate * detail)


class Pidnet(nn.Module):
    """Images [batch, 3, h, w] to logits of every eighth place, [batch, classes, h / 8, w / 8]."""

    def __init__(self, planes: int, depth: int, classes: int):
        super().__init__()
        p = planes
        self.stem = nn.Sequential(
            conv_norm(3, p, 3, 2, act=nn.ReLU, bias=True), conv_norm(p, p, 3, 2, act=nn.ReLU, bias=True),
            plain_stage(p, p, 2), nn.ReLU(), plain_stage(p, 2 * p, 2, 2), nn.ReLU(),
        )  # fmt: skip
        self.context3, self.context4 = plain_stage(2 * p, 4 * p, depth, 2), plain_stage(4 * p, 8 * p, depth, 2)
        self.context5 = nn.Sequential(bottleneck(8 * p, 8 * p, 2), bottleneck(16 * p, 8 * p))
        self.pool = ParallelPool(16 * p, 4 * p)
        self.detail3, self.detail4 = plain_stage(2 * p, 2 * p, 2), plain_stage(2 * p, 2 * p, 2)
        self.detail5 = bottleneck(2 * p, 2 * p)
        self.meet3, self.meet4 = PixelFusion(4 * p, 2 * p, p), PixelFusion(8 * p, 2 * p, p)
        self.boundary3, self.boundary4 = basic(2 * p, p, relu=False), bottleneck(p, p)
        self.boundary5 = bottleneck(2 * p, 2 * p)
        self.difference3, self.difference4 = conv_norm(4 * p, p, 3), conv_norm(8 * p, 2 * p, 3)
        self.fuse = LightFusion(4 * p)
        self.head = nn.Sequential(before(4 * p, HEAD, 3), nn.BatchNorm2d(HEAD), nn.ReLU(), nn.Conv2d(HEAD, classes, 1))
        self.size = (720, 960)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        context = self.context3(x).relu()
        detail = self.meet3(self.detail3(x), context).relu()
        boundary = self.boundary3(x)
        boundary = (boundary + resized(self.difference3(context), boundary)).relu()
        context = self.context4(context).relu()
        detail = self.meet4(self.detail4(detail), context).relu()
        boundary = self.boundary4(boundary)
        boundary = (boundary + resized(self.difference4(context), boundary)).relu()
        detail = self.detail5(detail)
        deep = resized(self.pool(self.context5(context)), detail)
        return self.head(self.fuse(detail, deep, self.boundary5(boundary)))

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random images of the network's size."""
        return (torch.randn(batch, 3, *self.size, device=next(self.parameters()).device),)


def pidnet(
    *, planes: PositiveInt = 32, depth: PositiveInt = 3, classes: PositiveInt = 11, resolution: PositiveInt = 720
) -> Pidnet:
    """A small PIDNet as deployed, on images of resolution x (4/3 resolution).

    Args:
        planes: widths follow from it; 32 is PIDNet-S, the one whose fusions and pools are built here.
        depth: blocks of the stages at strides 16 and 32.
        classes: of a place.
        resolution: height of the input.
    """
    network = Pidnet(planes, depth, classes).eval()
    network.size = (resolution, resolution * 4 // 3)
    network.resolution = resolution  # type: ignore[assignment]
    return network
