"""LSNet: a 7x7 depthwise path looks far and predicts 3x3 weights for every pixel and group of channels.

Source: Wang et al. 2025, LSNet: See Large, Focus Small, arXiv:2503.23135; section 3 and table 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Counts, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import Residual, SqueezeExcite, at, conv_norm, rounded
from suites.common.feature_operator import FeatureOperator
from suites.common.folding import fold_sequences, folded_weights

#: Channels that share one set of predicted weights.
SHARED = 8
TAPS = 9
HEADS = 4
KEY_WIDTH = 16


def small_kernel_aggregation(x: Tensor, weights: Tensor) -> Tensor:
    """The sum over a 3x3 neighbourhood of weight x value, a set of weights for each pixel: 9 C H W MACs.

    Args:
        x: [batch, C, H, W].
        weights: [batch, C / 8, 9, H, W]; channel c takes set c mod (C / 8).
    """
    batch, channels, height, width = x.shape
    sets = weights.shape[1]
    around = F.unfold(x, 3, padding=1).view(batch, channels // sets, sets, TAPS, height * width)
    flat = weights.reshape(batch, 1, sets, TAPS, height * width)
    # a product of matrices for each pixel and set, so that the work is counted for what it is
    summed = around.permute(0, 4, 2, 1, 3) @ flat.permute(0, 4, 2, 3, 1)
    return summed.squeeze(-1).permute(0, 3, 2, 1).reshape(batch, channels, height, width)


class LargeSmall(nn.Module):
    """LS convolution without its residual: weights from afar, used nearby, then a norm."""

    def __init__(self, channels: int):
        super().__init__()
        half, sets = channels // 2, channels // SHARED
        self.look = nn.Sequential(
            conv_norm(channels, half, act=nn.ReLU), conv_norm(half, half, 7, groups=half),
            conv_norm(half, half, act=nn.ReLU), nn.Conv2d(half, TAPS * sets, 1),
        )  # fmt: skip
        self.norm_weights = nn.GroupNorm(sets, TAPS * sets)
        self.sets = sets
        self.norm = nn.BatchNorm2d(channels)

    def weights(self, x: Tensor) -> Tensor:
        """[batch, C / 8, 9, H, W]."""
        made = self.norm_weights(self.look(x))
        return made.unflatten(1, (self.sets, TAPS))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.norm(small_kernel_aggregation(x, self.weights(x)))


class RepDepthwise(nn.Module):
    """3x3 and 1x1 depthwise layers, each normalised, and the input, all summed; one 3x3 layer once merged."""

    def __init__(self, channels: int):
        super().__init__()
        self.wide: nn.Module = conv_norm(channels, channels, 3, groups=channels)
        self.point: nn.Module | None = conv_norm(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.wide(x) if self.point is None else self.wide(x) + self.point(x) + x

    def merge(self) -> None:
        """Put the three into one convolution, in place."""
        assert isinstance(self.wide, nn.Sequential) and isinstance(self.point, nn.Sequential)
        weight, bias = folded_weights(self.wide[0], self.wide[1])
        small, shift = folded_weights(self.point[0], self.point[1])
        layer = nn.Conv2d(len(weight), len(weight), 3, padding=1, groups=len(weight))
        centre = small + torch.ones_like(small)
        layer.weight, layer.bias = nn.Parameter(weight + F.pad(centre, [1] * 4)), nn.Parameter(bias + shift)
        self.wide, self.point = layer, None


class _Attention(nn.Module):
    """Four heads over a map of one size, keys of 16, a learned bias per head and offset."""

    offsets: Tensor

    def __init__(self, channels: int, size: int):
        super().__init__()
        self.size, self.value_width = size, channels // HEADS
        self.qkv = conv_norm(channels, 2 * HEADS * KEY_WIDTH + channels)
        self.near = conv_norm(HEADS * KEY_WIDTH, HEADS * KEY_WIDTH, 3, groups=HEADS * KEY_WIDTH)
        self.leave = nn.Sequential(nn.ReLU(), conv_norm(channels, channels))
        self.bias = nn.Parameter(torch.zeros(HEADS, size * size))
        self.register_buffer("offsets", _offsets(size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if (height, width) != (self.size, self.size):
            raise UsageError(
                f"this LSNet attends over {self.size} x {self.size}, not {height} x {width}: build it for its input"
            )
        keys = HEADS * KEY_WIDTH
        q, k, v = self.qkv(x).split((keys, keys, channels), dim=1)
        q, k, v = (y.reshape(batch, HEADS, -1, height * width) for y in (self.near(q), k, v))
        scores = q.transpose(-2, -1) @ k * KEY_WIDTH**-0.5 + self.bias[:, self.offsets]
        mixed = v @ scores.softmax(dim=-1).transpose(-2, -1)
        return self.leave(mixed.reshape(batch, channels, height, width))


def _offsets(size: int) -> Tensor:
    """For each pair of places the number of their offset (|dy|, |dx|), [size^2, size^2]."""
    place = torch.arange(size)
    apart = (place[:, None] - place[None, :]).abs()
    return (apart[:, None, :, None] * size + apart[None, :, None, :]).reshape(size * size, size * size)


def _block(channels: int, stage: int, place: int, size: int) -> nn.Sequential:
    """One of the alternating blocks with its feed-forward layer."""
    feed = Residual(nn.Sequential(conv_norm(channels, 2 * channels, act=nn.ReLU), conv_norm(2 * channels, channels)))
    if place % 2 == 0:
        gate = SqueezeExcite(channels, rounded(channels / 4))
        return nn.Sequential(RepDepthwise(channels), gate, feed)
    mixer = _Attention(channels, size) if stage == 3 else LargeSmall(channels)
    return nn.Sequential(Residual(mixer), feed)


def lsnet(
    *, dims: Counts, depths: Counts, form: Literal["train", "fused"] = "train", classes: PositiveInt = 1000,
    resolution: PositiveInt = 224,
) -> nn.Sequential:  # fmt: skip
    """An LSNet classifier of images [batch, 3, resolution, resolution]; its last stage is tied to the resolution.

    Args:
        dims: widths of the four stages, multiples of 16.
        depths: their blocks.
        form: as trained, or with branches merged and norms folded.
        classes: logits.
        resolution: side of the input.

    Raises:
        UsageError: widths and depths are not of four stages, or a width is no multiple of 16.
    """
    if len(dims) != 4 or len(depths) != 4:
        raise UsageError(f"lsnet: dims={dims} and depths={depths} must name four stages")
    if any(width % 16 for width in dims):
        raise UsageError(f"lsnet: dims={dims} must be multiples of 16")
    first = dims[0]
    stem = [conv_norm(3, first // 4, 3, 2, act=nn.ReLU), conv_norm(first // 4, first // 2, 3, 2, act=nn.ReLU)]
    layers: list[nn.Module] = [*stem, conv_norm(first // 2, first, 3, 2)]
    size = -(-resolution // 8)
    for stage, (width, depth) in enumerate(zip(dims, depths, strict=True)):
        if stage:
            before = dims[stage - 1]
            layers.append(nn.Sequential(conv_norm(before, before, 3, 2, groups=before), conv_norm(before, width)))
            size = (size - 1) // 2 + 1
        layers += [_block(width, stage, place, size) for place in range(depth)]
    layers.append(_Head(dims[-1], classes))
    network = at(nn.Sequential(*layers), resolution)
    if form == "fused":
        fuse(network)
    return network


class _Head(nn.Module):
    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm1d(channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x.mean((2, 3))))

    def merge(self) -> None:
        norm = self.norm
        assert isinstance(norm, nn.BatchNorm1d) and norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - norm.running_mean * factor
        bias = self.linear.bias + self.linear.weight @ shift
        self.linear.weight = nn.Parameter((self.linear.weight * factor).detach())
        self.linear.bias = nn.Parameter(bias.detach())
        self.norm = nn.Identity()


def fuse(network: nn.Module) -> None:
    """Merge the parallel depthwise layers and fold the norms behind convolutions, in place."""
    for module in network.modules():
        if isinstance(module, RepDepthwise | _Head):
            module.merge()
    fold_sequences(network)


def ska(*, width: PositiveInt = 64, resolution: PositiveInt = 14) -> FeatureOperator:
    """The bare aggregation as an operator on features and their weights, beside unfold x weights."""
    if width % SHARED:
        raise UsageError(f"ska: width={width} must be a multiple of {SHARED}")
    sizes = ((width, resolution, resolution), (width // SHARED, TAPS, resolution, resolution))
    return FeatureOperator(_Aggregation(), *sizes, reference=_by_unfolding)


class _Aggregation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.like = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return small_kernel_aggregation(x, weights)


def _by_unfolding(_: nn.Module, x: Tensor, weights: Tensor) -> Tensor:
    """The aggregation by nine shifted products."""
    repeated = weights.repeat(1, SHARED, 1, 1, 1)
    padded = F.pad(x, [1] * 4)
    height, width = x.shape[-2:]
    total = torch.zeros_like(x)
    for tap in range(TAPS):
        row, column = divmod(tap, 3)
        total = total + padded[:, :, row : row + height, column : column + width] * repeated[:, :, tap]
    return total
