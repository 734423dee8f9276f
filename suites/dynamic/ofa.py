"""Once-for-all: one store of weights for every depth, expansion and kernel of a MobileNetV3 (arXiv 1908.09791).

Depth: the first blocks of each unit. Expansion: the first channels inside a block, sorted once by the L1 norm of the
layer that reads them. Kernel: the centre of the next larger one, times a learned matrix per layer.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, Count, Positive, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.conv_blocks import SqueezeExcite, conv_norm
from suites.common.inverted import InvertedBottleneck
from suites.dynamic.elastic import extracted
from suites.dynamic.learning import Work, remembered
from suites.dynamic.ofa_learning import recalibrate, shrink
from suites.dynamic.ofa_space import (
    Choice,
    Space,
    choice,
    digits_space,
    hidden,
    mobilenet_v3_space,
    rounded,
)  # fmt: skip

__all__ = ["OfaNet", "load_checkpoint", "ofa", "ofa_net"]

#: Batches by which the norms of a sub-network of a store that was trained for many are recalibrated.
RECALIBRATED = 8


class Crop(nn.Module):
    """The centre of each kernel [channels, 1, k, k] times a matrix [size^2, size^2]; these products are the store's."""

    charged_to = "method"

    def __init__(self, size: int):
        super().__init__()
        self.size, self.matrix = size, nn.Parameter(torch.eye(size * size))

    def forward(self, weight: Tensor) -> Tensor:
        """[channels, 1, size, size]."""
        margin = (weight.shape[-1] - self.size) // 2
        centre = weight[..., margin : margin + self.size, margin : margin + self.size]
        return (centre.flatten(1) @ self.matrix).view(-1, 1, self.size, self.size)


class ElasticBlock(nn.Module):
    """An inverted bottleneck at its largest expansion and kernel, which runs on the first parts of its weights."""

    widen: Any
    depthwise: Any
    narrow: Any
    gate: Any
    crops: Any

    def __init__(
        self, inner: int, outer: int, expand: int, kernels: tuple[int, ...], stride: int, gate: bool, act: Any
    ):
        super().__init__()
        self.inner, self.outer, self.stride, self.act = inner, outer, stride, act
        mid, kernel = hidden(inner, expand), max(kernels)
        self.widest, self.kernels = expand, tuple(sorted(kernels, reverse=True))
        self.expand, self.kernel = expand, kernel
        self.widen, self.depthwise, self.narrow = (
            conv_norm(inner, mid), conv_norm(mid, mid, kernel, stride, groups=mid), conv_norm(mid, outer)
        )  # fmt: skip
        self.gate = SqueezeExcite(mid, rounded(mid // 4), gate=nn.Hardsigmoid) if gate else None
        self.crops = nn.ModuleList(Crop(size) for size in self.kernels[1:])
        self.stats: list[tuple[Tensor, Tensor]] | None = None

    @property
    def mid(self) -> int:
        """Channels inside that run."""
        return hidden(self.inner, self.expand)

    def depthwise_weight(self) -> Tensor:
        """The depthwise kernel of the active size, [mid, 1, kernel, kernel]."""
        weight = self.depthwise[0].weight[: self.mid]
        for crop in self.crops:
            if weight.shape[-1] > self.kernel:
                weight = crop(weight)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inner, h, w] to [batch, outer, h / stride, w / stride]."""
        mid, act = self.mid, self.act()
        y = act(self._norm(0, F.conv2d(x, self.widen[0].weight[:mid]), self.widen[1]))
        y = F.conv2d(y, self.depthwise_weight(), None, self.stride, self.kernel // 2, 1, mid)
        y = act(self._norm(1, y, self.depthwise[1]))
        if self.gate is not None:
            y = y * self._gate(y, self.gate)
        y = self._norm(2, F.conv2d(y, self.narrow[0].weight[:, :mid]), self.narrow[1])
        return x + y if self.stride == 1 and self.inner == self.outer else y

    def _gate(self, y: Tensor, gate: Any) -> Tensor:
        few = rounded(self.mid // 4)
        s = F.conv2d(y.mean((2, 3), keepdim=True), gate.down.weight[:few, : self.mid], gate.down.bias[:few])
        return F.hardsigmoid(F.conv2d(F.relu(s), gate.up.weight[: self.mid, :few], gate.up.bias[: self.mid]))

    def _norm(self, place: int, y: Tensor, norm: Any) -> Tensor:
        n = y.shape[1]
        mean, var = norm.running_mean[:n], norm.running_var[:n]
        if self.stats is not None and not self.training:
            mean, var = self.stats[place]
        return F.batch_norm(y, mean, var, norm.weight[:n], norm.bias[:n], self.training, norm.momentum, norm.eps)

    def extracted(self) -> InvertedBottleneck:
        """A block of its own with the weights that run."""
        mid = self.mid
        small = InvertedBottleneck(
            self.inner, self.outer, hidden=mid, kernel=self.kernel, stride=self.stride, act=self.act, widen=True,
            gate=rounded(mid // 4) if self.gate is not None else 0,
        ).to(self.widen[0].weight)  # fmt: skip
        parts: list[Any] = list(small.layers)
        convs = [m for m in parts if isinstance(m, nn.Conv2d)]
        norms: list[Any] = [m for m in parts if isinstance(m, nn.BatchNorm2d)]
        weights = [self.widen[0].weight[:mid], self.depthwise_weight(), self.narrow[0].weight[:, :mid]]
        with torch.no_grad():
            for conv, weight in zip(convs, weights, strict=True):
                conv.weight.copy_(weight)
            for place, (norm, large) in enumerate(
                zip(norms, (self.widen[1], self.depthwise[1], self.narrow[1]), strict=True)
            ):
                n, source = norm.num_features, large
                norm.weight.copy_(source.weight[:n])
                norm.bias.copy_(source.bias[:n])
                kept = (source.running_mean[:n], source.running_var[:n]) if self.stats is None else self.stats[place]
                norm.running_mean.copy_(kept[0])
                norm.running_var.copy_(kept[1])
            if self.gate is not None:
                few = rounded(mid // 4)
                own: Any = next(m for m in parts if isinstance(m, SqueezeExcite))
                own.down.weight.copy_(self.gate.down.weight[:few, :mid])
                own.down.bias.copy_(self.gate.down.bias[:few])
                own.up.weight.copy_(self.gate.up.weight[:mid, :few])
                own.up.bias.copy_(self.gate.up.bias[:mid])
        return small

    @torch.no_grad()
    def sort(self) -> None:
        """Put the channels inside in the order of the L1 norm of the layer that reads them, largest first."""
        order = self.narrow[0].weight.abs().sum(dim=(0, 2, 3)).argsort(descending=True)
        for layer in (self.widen, self.depthwise):
            layer[0].weight.copy_(layer[0].weight[order].clone())
            norm: Any = layer[1]
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.copy_(tensor[order].clone())
        self.narrow[0].weight.copy_(self.narrow[0].weight[:, order].clone())
        if self.gate is not None:
            self.gate.down.weight.copy_(self.gate.down.weight[:, order].clone())
            self.gate.up.weight.copy_(self.gate.up.weight[order].clone())
            self.gate.up.bias.copy_(self.gate.up.bias[order].clone())


class OfaNet(nn.Module):
    """The store, and the sub-network of it that is `active`."""

    units: Any
    final: Any

    def __init__(self, space: Space, resolution: int):
        super().__init__()
        self.space, self.resolution, self.channels, self.classes = space, resolution, 3, space.classes
        self.stem = nn.Sequential(
            *conv_norm(3, space.first, 3, 2, act=nn.Hardswish),
            InvertedBottleneck(space.first, space.first, hidden=space.first, act=nn.ReLU),
        )
        self.units = nn.ModuleList()
        inner = space.first
        for outer, stride, gated, soft in zip(space.widths, space.strides, space.gated, space.hswish, strict=True):
            unit = nn.ModuleList()
            for place in range(space.most):
                by, act = stride if place == 0 else 1, nn.Hardswish if soft else nn.ReLU
                unit.append(ElasticBlock(inner, outer, max(space.expands), space.kernels, by, gated, act))
                inner = outer
            self.units.append(unit)
        self.final = conv_norm(inner, space.final, act=nn.Hardswish)
        self.last = nn.Conv2d(space.final, space.last, 1, bias=False)
        self.head = nn.Linear(space.last, space.classes)
        self.active = choice(space)
        self.final_stats: tuple[Tensor, Tensor] | None = None

    def activate(self, of: Choice) -> None:
        """Have this sub-network run; nothing is copied."""
        self.active = of
        for unit, expands, kernels in zip(self.units, of.expands, of.kernels, strict=True):
            for block, expand, kernel in zip(unit, expands, kernels, strict=False):
                block.expand, block.kernel = expand, kernel

    def forget_statistics(self) -> None:
        """Take the store's own statistics of norms again in place of a sub-network's."""
        self.final_stats = None
        for unit in self.units:
            for block in unit:
                block.stats = None

    def drop_rest(self) -> None:
        """Leave out the blocks that do not run."""
        self.units = nn.ModuleList(
            nn.ModuleList(list(unit)[:depth]) for unit, depth in zip(self.units, self.active.depths, strict=True)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = self.stem(images)
        for unit, depth in zip(self.units, self.active.depths, strict=True):
            for block in unit[:depth]:
                x = block(x)
        x = self.finished(x).mean(dim=(2, 3), keepdim=True)
        return self.head(F.hardswish(self.last(x)).flatten(1))

    def finished(self, x: Tensor) -> Tensor:
        """The last maps, with the statistics of the sub-network where it has its own."""
        if self.final_stats is None or self.training:
            return self.final(x)
        conv, norm, act = self.final
        return act(F.batch_norm(conv(x), *self.final_stats, norm.weight, norm.bias, False, 0.0, norm.eps))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(self.head.weight),)


def ofa_net(
    *,
    space: Literal["mobilenet_v3", "digits"] = "mobilenet_v3",
    width: Positive = 1.0,
    resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
) -> OfaNet:
    """The largest network of a space, in evaluation mode with random weights; a store for all others.

    Args:
        space: the paper's MobileNetV3, or a small one for digits (at full width, ten classes).
        width: factor of all widths of the paper's.
        resolution: side of the input.
        classes: logits of the paper's.
    """
    chosen = digits_space() if space == "digits" else mobilenet_v3_space(width, classes)
    return OfaNet(chosen, resolution).eval()


def as_ofa(model: nn.Module, method: str) -> OfaNet:
    """The model, if it is a store of once-for-all networks.

    Raises:
        ValueError: it is another one.
    """
    if not isinstance(model, OfaNet):
        raise ValueError(f"{method} works on ofa_net, not on {type(model).__name__}")
    return model


def ofa(
    model: nn.Module,
    *,
    depth: PositiveInt | Blocks | None = None,
    expand: PositiveInt | Blocks | None = None,
    kernel: PositiveInt | Blocks | None = None,
    form: Literal["slice", "extract"] = "extract",
    recalibrated: Count | None = None,
    recipe: Literal["shrinking", "truncated", "alone"] = "shrinking",
    training_steps: Count = 0,
) -> nn.Module:
    """A sub-network of the store.

    Args:
        model: of `ofa_net`; as a task trains it, it is the largest network alone.
        depth: blocks of every unit, or of each; None for the most.
        expand: expansion of every block, or of each that runs, unit by unit; None for the largest.
        kernel: side of the depthwise kernel, likewise.
        form: `slice` runs on views of the store, `extract` is a small network with copies.
        recalibrated: batches of 32 from which norms take their statistics anew; None for 8 after progressive shrinking,
            in which all sub-networks share the store's statistics, and for none without.
        recipe: progressive shrinking (kernel, depth, expansion, each a third of the steps); or as controls `truncated`,
            the largest network trained on, and `alone`, this sub-network trained alone from random weights.
        training_steps: on the model's task; 0 takes the weights as they are.

    Raises:
        ValueError: another network, sizes that the space does not offer, or nothing to train on.
    """
    store = as_ofa(model, "ofa")
    of = choice(store.space, depth, expand, kernel)
    if training_steps:
        settings = {"recipe": recipe, "steps": training_steps, **({"of": repr(of)} if recipe == "alone" else {})}
        work = Work()
        found = remembered(
            store, ofa, settings, lambda task: shrink(store, task, recipe, of, training_steps, work), work
        )
        store.load_state_dict(found)
        store.learned = {"method": "ofa", **settings}  # type: ignore[assignment]
    shared = training_steps > 0 and recipe == "shrinking"
    return subnetwork(store, of, form, RECALIBRATED * shared if recalibrated is None else recalibrated)


def subnetwork(store: OfaNet, of: Choice, form: str, recalibrated: int) -> nn.Module:
    """The sub-network as a view of the store or as a network of its own, its norms recalibrated if asked for."""
    store.activate(of)
    if recalibrated:
        recalibrate(store, recalibrated)
    if form == "slice":
        return store.eval()
    waiting = [block for unit, depth in zip(store.units, of.depths, strict=True) for block in list(unit)[depth:]]
    small = extracted(store, waiting)
    small.drop_rest()
    if small.final_stats is not None:
        small.final[1].running_mean, small.final[1].running_var = small.final_stats
        small.final_stats = None
    return small
