"""ElasticViT: convolutions, then attention, in a space from 37 M to 3 G products (arXiv 2303.09730).

Sub-networks take the first channels, blocks and hidden units of a store and the centre of its kernels. Training draws
neighbours in cost in neighbouring steps (complexity-aware) and prefers those that did well (performance-aware).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, Count, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.conv_blocks import SqueezeExcite
from suites.dynamic.elastic import take
from suites.dynamic.elasticvit_learning import learn
from suites.dynamic.elasticvit_space import DIGITS, HEAD, S1, STRIDES, Norm, Shape, above, changes, shape_of
from suites.dynamic.learning import Work, remembered, with_cost_of

__all__ = ["elasticvit", "elasticvit_net", "load_checkpoint"]


class Convolutions(nn.Module):
    """An inverted residual: 1x1 (unless the expansion is 1), depthwise, gate, 1x1; a strided shortcut is pooled."""

    def __init__(self, inner: int, outer: int, expansion: int, kernel: int, stride: int, gate: bool):
        super().__init__()
        mid, self.stride = inner * expansion, stride
        self.widen = nn.Sequential(nn.Conv2d(inner, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.Hardswish())
        self.widen = self.widen if expansion > 1 else nn.Sequential()
        self.depthwise = nn.Sequential(
            nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid, bias=False), nn.BatchNorm2d(mid),
            nn.Hardswish(),
        )  # fmt: skip
        self.gate = SqueezeExcite(mid, mid // 4, gate=nn.Hardsigmoid) if gate else nn.Identity()
        self.narrow = nn.Sequential(nn.Conv2d(mid, outer, 1, bias=False), nn.BatchNorm2d(outer))
        self.shortcut = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inner, h, w] to [batch, outer, h / stride, w / stride]."""
        y = self.narrow(self.gate(self.depthwise(self.widen(x))))
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        return y + self.shortcut(x)


class TokenNorm(nn.Module):
    """Layer norm with a scale and shift a channel, over each token's channels or over the whole map."""

    def __init__(self, width: int, over: Norm):
        super().__init__()
        self.weight, self.bias, self.over = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), over

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width]."""
        shape = x.shape[1:] if self.over == "map" else x.shape[2:]
        return F.layer_norm(x, shape) * self.weight + self.bias


class MapAttention(nn.Module):
    """Attention with heads of 16, values of 16 x scale behind a 3x3 depthwise layer, and a bias by offset."""

    def __init__(self, width: int, scale: int, side: int):
        super().__init__()
        self.heads, self.size, self.side = width // HEAD, HEAD * scale, side
        self.q, self.k = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width * scale, bias=False)
        self.local = nn.Conv2d(width * scale, width * scale, 3, padding=1, groups=width * scale, bias=False)
        self.offsets = nn.Parameter(torch.zeros(2 * side - 1, 2 * side - 1, self.heads))
        self.out = nn.Linear(width * scale, width)

    def _bias(self) -> Tensor:
        """[heads, tokens, tokens]."""
        at = torch.arange(self.side, device=self.offsets.device)
        apart = at[:, None] - at[None] + self.side - 1
        table = self.offsets[apart[:, None, :, None], apart[None, :, None, :]]
        return table.flatten(0, 1).flatten(1, 2).permute(2, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] of a square map."""
        batch, count, _ = x.shape
        q, k = (layer(x).view(batch, count, self.heads, HEAD).transpose(1, 2) for layer in (self.q, self.k))
        v = self.v(x).transpose(1, 2).unflatten(2, (self.side, self.side))
        v = self.local(v).flatten(2).transpose(1, 2).reshape(batch, count, self.heads, self.size).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias().to(q.dtype))
        return self.out(F.hardswish(y.transpose(1, 2).flatten(2)))


class AttentionBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, scale: int, mlp: int, side: int, norm: Norm):
        super().__init__()
        self.norm1, self.norm2 = TokenNorm(width, norm), TokenNorm(width, norm)
        self.attention = MapAttention(width, scale, side)
        self.fc1, self.fc2 = nn.Linear(width, mlp * width), nn.Linear(mlp * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width]."""
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.hardswish(self.fc1(self.norm2(x))))


class AttentionStage(nn.Module):
    """An inverted residual that changes width and side, then attention blocks; maps to maps."""

    def __init__(self, inner: int, outer: int, blocks: list[tuple[int, int]], stride: int, side: int, norm: Norm):
        super().__init__()
        self.enter = Convolutions(inner, outer, 6, 3, stride, gate=True)
        self.blocks = nn.ModuleList(AttentionBlock(outer, scale, mlp, side, norm) for mlp, scale in blocks)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.enter(x)
        high, wide = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2).unflatten(2, (high, wide))


class ElasticVit(nn.Module):
    """Logits [batch, classes] of images [batch, 3, resolution, resolution]."""

    def __init__(self, shape: Shape, resolution: int):
        super().__init__()
        self.shape, self.resolution, self.channels, self.classes = shape, resolution, 3, shape.classes
        width, side = shape.channels, -(-resolution // 2)
        convs, blocks = shape.blocks("expansions", "kernels"), shape.blocks("mlp", "values")
        stem = [Convolutions(width[0], width[0], 1, kernel, 1, False) for _, kernel in convs[0]]
        self.first = nn.Sequential(
            nn.Conv2d(3, width[0], 3, 2, 1, bias=False), nn.BatchNorm2d(width[0]), nn.Hardswish()
        )
        self.stem, self.stages = nn.Sequential(*stem), nn.ModuleList()
        for place, stride in enumerate(STRIDES):
            inner, outer = width[place], width[place + 1]
            side = -(-side // stride)
            if place < 2:
                first, *further = convs[place + 1]
                rows = [Convolutions(inner, outer, *first, stride, gate=place == 1)]
                rows += [Convolutions(outer, outer, *by, 1, gate=place == 1) for by in further]
                self.stages.append(nn.Sequential(*rows))
            else:
                self.stages.append(AttentionStage(inner, outer, blocks[place - 2], stride, side, shape.norm))
        self.wide, self.wide_norm = nn.Linear(width[-1], 6 * width[-1]), nn.BatchNorm1d(6 * width[-1])
        self.last, self.head = nn.Linear(6 * width[-1], shape.last), nn.Linear(shape.last, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = self.stem(self.first(images))
        for stage in self.stages:
            x = stage(x)
        x = self.wide(x.flatten(2).transpose(1, 2)).transpose(1, 2)
        x = F.hardswish(self.wide_norm(x)).mean(dim=2)
        return self.head(F.hardswish(self.last(x)))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(self.head.weight),)


def elasticvit_net(
    *,
    base: Literal["s1", "digits"] = "s1",
    channels: Blocks | None = None,
    depths: Blocks | None = None,
    expansions: PositiveInt | Blocks | None = None,
    kernels: PositiveInt | Blocks | None = None,
    mlp: PositiveInt | Blocks | None = None,
    values: PositiveInt | Blocks | None = None,
    norm: Literal["map", "token"] = "map",
    resolution: PositiveInt = 192,
) -> ElasticVit:
    """One network of the space in evaluation mode with random weights; the defaults are S1.

    Args:
        base: what is not given: ElasticViT-S1, or a small one for digits (at 32 px).
        channels: of stem and six stages; those of the last four multiples of 16.
        depths: blocks of stem and six stages.
        expansions: of stem (1) and the two stages of convolutions: one for all, one a stage, or one a block.
        kernels: of the same three, likewise.
        mlp: ratio of the four stages of attention, likewise.
        values: scale of the values of these, likewise.
        norm: layer norms over the whole map, as released, or over each token.
        resolution: side of the input.

    Raises:
        ValueError: numbers that do not fit together.
    """
    shape = shape_of(S1 if base == "s1" else DIGITS, channels, depths, expansions, kernels, mlp, values, norm)
    return ElasticVit(shape, resolution).eval()


def elasticvit(
    model: nn.Module,
    *,
    channels: Blocks | None = None,
    depths: Blocks | None = None,
    expansions: PositiveInt | Blocks | None = None,
    kernels: PositiveInt | Blocks | None = None,
    mlp: PositiveInt | Blocks | None = None,
    values: PositiveInt | Blocks | None = None,
    form: Literal["slice", "extract"] = "extract",
    sampling: Literal["complexity", "uniform"] = "complexity",
    training_steps: Count = 0,
) -> ElasticVit:
    """A sub-network of the store: the first channels, blocks and units, the centre of kernels.

    Args:
        model: of `elasticvit_net`, the store.
        channels: of stem and six stages, none above the store's; None for its.
        depths: blocks of stem and six stages.
        expansions: of stem (1) and the two stages of convolutions: one for all, one a stage, or one a block.
        kernels: of the same three, likewise.
        mlp: ratio of the four stages of attention, likewise.
        values: scale of the values of these, likewise.
        form: strided views of the store's memory, or copies.
        sampling: neighbours in cost in neighbouring steps and the better ones of each bank, or any sub-network.
        training_steps: of elastic training on the model's task; 0 takes the weights as they are.

    Raises:
        ValueError: another network, sizes above the store's, or nothing to train on.
    """
    if not isinstance(model, ElasticVit):
        raise ValueError(f"elasticvit works on elasticvit_net, not on {type(model).__name__}")
    shape = shape_of(model.shape, channels, depths, expansions, kernels, mlp, values)
    for name in above(shape, model.shape):
        raise ValueError(f"{name}={list(getattr(shape, name))} is above the store's {getattr(model.shape, name)}")
    pairs = zip(changes(shape.channels), changes(model.shape.channels), strict=True)
    if any(own and not stores for own, stores in pairs):
        raise ValueError("channels change where the store's stay, and it has no shortcut to take from there")
    learned = None
    if training_steps:
        settings, work = {"sampling": sampling, "steps": training_steps}, Work()
        found = remembered(
            model, elasticvit, settings, lambda task: learn(model, task, sampling, training_steps, work), work
        )
        model.load_state_dict(found)
        learned = {"method": "elasticvit", **settings}
    small: Any = take(model, ElasticVit(shape, model.resolution), form)
    if getattr(model, "task", None) is not None:
        small.task = model.task
    small.learned = learned
    with_cost_of(small, model)
    return small
