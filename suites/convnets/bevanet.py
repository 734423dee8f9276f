"""BEVANet: segmentation in two branches, with separable dilated large-kernel attention that selects its kernels.

Source: BEVANet, arXiv:2508.07300, section 3; widths and layers as released, heads of training left out. The two
branches and their exchange are those of PIDNet (arXiv:2206.02066).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import LayerNorm2d, conv_norm, depthwise
from suites.common.feature_operator import FeatureOperator
from suites.common.slow_convolution import convolved, convolved_densely

#: Width of a layer of the pools, and of the head.
POOLED = 96
HEAD = 128
#: Kernel -> taps of its dilated layers.
TAPS = {23: 7, 35: 11}
DILATION = 3


def _strip(channels: int, taps: int, *, across: bool, dilation: int = 1) -> nn.Conv2d:
    """A depthwise layer of 1 x taps or taps x 1."""
    kernel, spread = ((1, taps), (1, dilation)) if across else ((taps, 1), (dilation, 1))
    pad = dilation * (taps // 2)
    return nn.Conv2d(
        channels, channels, kernel, padding=(0, pad) if across else (pad, 0), dilation=spread, groups=channels
    )


class Selection(nn.Module):
    """Paths weighed by the channel (from pooled features) and by the place (from the mean and the largest channel)."""

    def __init__(self, channels: int, paths: int):
        super().__init__()
        hidden = max(channels // 16, 32)
        self.squeeze = _pooled_layer(channels, hidden)
        self.channel = nn.ModuleList(_pooled_layer(hidden, channels) for _ in range(paths))
        self.place = nn.Conv2d(2, paths, 7, padding=3)

    def forward(self, paths: list[Tensor]) -> Tensor:
        """The weighed sum."""
        total = paths[0] + paths[1] + paths[2]
        squeezed = self.squeeze(total.mean((2, 3), keepdim=True))
        maps = torch.cat((total.mean(1, keepdim=True), total.amax(1, keepdim=True)), 1)
        by_place = self.place(maps).sigmoid().split(1, 1)
        weighed = [
            path * layer(squeezed).sigmoid() * place
            for path, layer, place in zip(paths, self.channel, by_place, strict=True)
        ]
        return weighed[0] + weighed[1] + weighed[2]


def _pooled_layer(inputs: int, outputs: int) -> nn.Sequential:
    """1x1, 3x3 depthwise, BN, ReLU on pooled features."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), depthwise(outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU())


class SelectiveKernelAttention(nn.Module):
    """u * 1x1(selection of a 5x5 depthwise layer and two dilated strips behind it)."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        taps = TAPS[kernel]
        self.near = depthwise(channels, 5)
        self.across = _strip(channels, taps, across=True, dilation=DILATION)
        self.down = _strip(channels, taps, across=False, dilation=DILATION)
        self.select = Selection(channels, 3)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        """The same shape."""
        near = self.near(u)
        return u * self.mix(self.select([near, self.across(near), self.down(near)]))


class SeparableKernelAttention(nn.Module):
    """u * 1x1(four strips in a row): a square window of `kernel` from 1 x n and n x 1 layers."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        taps = TAPS[kernel]
        self.strips = nn.Sequential(
            _strip(channels, 5, across=True),
            _strip(channels, 5, across=False),
            _strip(channels, taps, across=True, dilation=DILATION),
            _strip(channels, taps, across=False, dilation=DILATION),
        )
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        """The same shape."""
        return u * self.mix(self.strips(u))


class _Gate(nn.Module):
    """x + 1x1(attention(GELU(1x1 x)))."""

    def __init__(self, channels: int, attention: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.GELU(), attention, nn.Conv2d(channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class AttentionBlock(nn.Module):
    """EVAN: BN and gate, BN and an MLP of ratio 4 with a 3x3 depthwise layer; layer scales.

    A norm over channels behind.
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        hidden = 4 * channels
        self.norm1 = nn.BatchNorm2d(channels)
        self.gate = _Gate(channels, SelectiveKernelAttention(channels, kernel))
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), depthwise(hidden, 3), nn.GELU(), nn.Conv2d(hidden, channels, 1)
        )
        self.scale1 = nn.Parameter(torch.full((channels, 1, 1), 1e-2))
        self.scale2 = nn.Parameter(torch.full((channels, 1, 1), 1e-2))
        self.norm = LayerNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        x = x + self.scale1 * self.gate(self.norm1(x))
        x = x + self.scale2 * self.mlp(self.norm2(x))
        return self.norm(x)


class PlainResidual(nn.Module):
    """A body of convolutions beside a shortcut, which is projected where the shape changes.

    ReLU behind if asked for.
    """

    def __init__(self, body: nn.Sequential, inputs: int, outputs: int, stride: int, relu: bool):
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else conv_norm(inputs, outputs, 1, stride)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outputs, h / stride, w / stride]."""
        y = self.body(x) + self.shortcut(x)
        return y.relu() if self.relu else y


def basic(inputs: int, outputs: int, stride: int = 1, *, relu: bool = True) -> PlainResidual:
    """Two 3x3 layers beside a shortcut."""
    body = nn.Sequential(*conv_norm(inputs, outputs, 3, stride, act=nn.ReLU), *conv_norm(outputs, outputs, 3))
    return PlainResidual(body, inputs, outputs, stride, relu)


def _bottleneck(inputs: int, width: int) -> PlainResidual:
    layers = [
        *conv_norm(inputs, width, act=nn.ReLU),
        *conv_norm(width, width, 3, act=nn.ReLU),
        *conv_norm(width, 2 * width),
    ]
    return PlainResidual(nn.Sequential(*layers), inputs, 2 * width, 1, False)


def _stage(inputs: int, outputs: int, depth: int, stride: int) -> nn.Sequential:
    blocks = [basic(inputs if place == 0 else outputs, outputs, stride if place == 0 else 1) for place in range(depth)]
    return nn.Sequential(*blocks)


def resized(x: Tensor, like: Tensor) -> Tensor:
    """The map at the size of another."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class PixelFusion(nn.Module):
    """Context brought into detail, place by place by how alike both are."""

    def __init__(self, context: int, channels: int, middle: int):
        super().__init__()
        self.narrow = conv_norm(context, channels)
        self.of_detail, self.of_context = conv_norm(channels, middle), conv_norm(channels, middle)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """The shape of the detail."""
        narrow = self.narrow(context)
        alike = (self.of_detail(detail) * resized(self.of_context(narrow), detail)).sum(1, keepdim=True).sigmoid()
        return (1 - alike) * detail + alike * resized(narrow, detail)


def before(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """BN, ReLU, convolution."""
    pad = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=pad, dilation=dilation, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv)


class DeepPool(nn.Module):
    """DLKPPM: pooled maps of four sizes and a separable large-kernel view, one after the other, joined."""

    def __init__(self, inputs: int, outputs: int, width: int = POOLED):
        super().__init__()
        pools = (nn.AvgPool2d(5, 2, 2), nn.AvgPool2d(9, 4, 4), nn.AdaptiveAvgPool2d(2), nn.AdaptiveAvgPool2d(1))
        self.whole = before(inputs, width)
        self.pooled = nn.ModuleList(nn.Sequential(pool, before(inputs, width)) for pool in pools)
        self.norm = nn.BatchNorm2d(width)
        self.view = _Gate(width, SeparableKernelAttention(width, 35))
        self.scale = nn.Parameter(torch.full((width, 1, 1), 1e-2))
        self.process = nn.ModuleList(before(width, width, 3, dilation) for dilation in (2, 2, 1, 1, 1))
        self.join = before(6 * width, outputs)
        self.shortcut = before(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outputs, h, w]."""
        whole = self.whole(x)
        viewed = whole + self.scale * self.view(self.norm(whole))
        pooled = [resized(layer(x), whole) for layer in self.pooled]
        maps = [whole]
        for layer, other in zip(self.process, [*pooled[:2], viewed, *pooled[2:]], strict=True):
            maps.append(layer(other + maps[-1]))
        return self.join(torch.cat(maps, 1)) + self.shortcut(x)


class BoundaryFusion(nn.Module):
    """BGAF: a boundary map decides between detail and context."""

    def __init__(self, channels: int):
        super().__init__()
        self.detail, self.context = before(channels, channels, 3), before(channels, channels, 3)
        self.leave = before(channels, channels, 3)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        """The same shape."""
        one, other, gate = self.detail(detail), self.context(context), boundary.sigmoid()
        return self.leave(gate * one + (1 - gate) * other + one + other)


class Bevanet(nn.Module):
    """Images [batch, 3, h, w] to logits of every eighth place, [batch, classes, h / 8, w / 8]."""

    def __init__(self, planes: int, depth: int, classes: int):
        super().__init__()
        p = planes
        self.stem = nn.Sequential(
            conv_norm(3, p, 3, 2, act=nn.ReLU, bias=True), conv_norm(p, p, 3, 2, act=nn.ReLU, bias=True),
            _stage(p, p, 2, 1), _stage(p, 2 * p, 2, 2),
        )  # fmt: skip
        self.context3 = _stage(2 * p, 4 * p, depth, 2)
        self.context4 = nn.Sequential(basic(4 * p, 8 * p, 2), AttentionBlock(8 * p, 35), AttentionBlock(8 * p, 35))
        self.context5 = nn.Sequential(basic(8 * p, 16 * p, 2), AttentionBlock(16 * p, 35), AttentionBlock(16 * p, 35))
        self.pool = DeepPool(16 * p, 4 * p)
        self.detail3 = nn.Sequential(basic(2 * p, 2 * p), basic(2 * p, 2 * p, relu=False))
        self.detail4 = nn.Sequential(basic(2 * p, 2 * p), AttentionBlock(2 * p, 23))
        self.meet3, self.meet4 = PixelFusion(4 * p, 2 * p, p), PixelFusion(8 * p, 2 * p, p)
        self.detail5, self.boundary = _bottleneck(2 * p, 2 * p), _bottleneck(2 * p, 2 * p)
        self.fuse = BoundaryFusion(4 * p)
        self.head = nn.Sequential(before(4 * p, HEAD, 3), nn.BatchNorm2d(HEAD), nn.ReLU(), nn.Conv2d(HEAD, classes, 1))
        self.size = (720, 960)

    def forward(self, x: Tensor) -> Tensor:
        """Logits.

        Raises:
            UsageError: the deepest map would be smaller than the pools that it is put through.
        """
        if min(x.shape[-2:]) < 128:
            raise UsageError(
                f"BEVANet pools its map of stride 64 to 2 x 2: {tuple(x.shape[-2:])} is too small, take 128 or more"
            )
        x = self.stem(x)
        context = self.context3(x)
        detail = self.meet3(self.detail3(x), context).relu()
        context = self.context4(context)
        detail = self.meet4(self.detail4(detail), context)
        wide = self.detail5(detail)
        deep = resized(self.pool(self.context5(context)), wide)
        return self.head(self.fuse(wide, deep, self.boundary(detail)))

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random images of the network's size."""
        return (torch.randn(batch, 3, *self.size, device=next(self.parameters()).device),)


def bevanet(
    *, planes: PositiveInt = 32, depth: PositiveInt = 3, classes: PositiveInt = 11, resolution: PositiveInt = 720
) -> Bevanet:
    """A BEVANet as deployed, on images of resolution x (4/3 resolution).

    Args:
        planes: widths follow from it: 32 is the small network, 64 the base.
        depth: blocks of the stage at stride 16: 3 in the small network, 4 in the base.
        classes: of a place.
        resolution: height of the input, 128 or more.

    Raises:
        UsageError: the resolution is too small for the pools.
    """
    if resolution < 128:
        raise UsageError(
            f"bevanet: resolution={resolution} is too small: its map of stride 64 is pooled to 2 x 2, take 128 or more"
        )
    network = Bevanet(planes, depth, classes).eval()
    network.size = (resolution, resolution * 4 // 3)
    network.resolution = resolution  # type: ignore[assignment]
    return network


def sdlska(*, width: PositiveInt = 64, kernel: Literal[23, 35] = 23, resolution: PositiveInt = 28) -> FeatureOperator:
    """The bare attention as an operator on [batch, width, resolution, resolution], beside its paths one by one."""
    layer = SelectiveKernelAttention(width, kernel)
    return FeatureOperator(layer, (width, resolution, resolution), reference=_path_by_path)


def _path_by_path(layer: nn.Module, u: Tensor) -> Tensor:
    """The attention with sums over taps, dense strips of every third tap, and each path weighed by itself."""
    assert isinstance(layer, SelectiveKernelAttention)
    near, select = convolved(layer.near, u), layer.select
    paths = [near, convolved_densely(layer.across, near, 3), convolved_densely(layer.down, near, 3)]
    total = near + paths[1] + paths[2]
    squeezed = _by_middle_taps(select.squeeze, total.mean((2, 3)))
    scores = convolved(select.place, torch.stack((total.mean(1), total.max(1).values), 1))
    chosen = torch.zeros_like(u)
    for number, path in enumerate(paths):
        channel = _by_middle_taps(select.channel[number], squeezed).sigmoid()
        chosen = chosen + path * channel[:, :, None, None] * scores[:, number, None].sigmoid()
    return u * convolved(layer.mix, chosen)


def _by_middle_taps(layer: nn.Module, pooled: Tensor) -> Tensor:
    """1x1, 3x3 depthwise, BN and ReLU on a map of one place, where only middle taps meet anything."""
    assert isinstance(layer, nn.Sequential)
    parts: list[Any] = list(layer)
    mix, spatial, norm = parts[:3]
    y = pooled @ mix.weight[:, :, 0, 0].t() + mix.bias
    y = y * spatial.weight[:, 0, 1, 1] + spatial.bias
    return ((y - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias).relu()
