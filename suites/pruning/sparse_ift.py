"""Sparse-IFT: layers that are wider, repeated or factorized, and so sparse that products stay those of the dense net.

Source: Thangarasa et al. 2023, "Sparse Iso-FLOP Transformations for Maximizing Training Efficiency", arXiv:2303.11525,
section 3. The masks are random and static; `rigl` moves them by gradient while the network learns.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt, Rate
from suites.common.checkpoint import load_checkpoint
from suites.pruning.layers import install_to_train
from suites.pruning.rounding import check_sparsity, exact
from suites.pruning.structures import unstructured

__all__ = ["load_checkpoint", "resnet18_cifar"]

Family = Literal["dense", "wide", "parallel", "factorized", "doped"]


def branches_for(sparsity: float) -> int:
    """K = round(1 / (1 - s)): how much wider in weights, or how many branches."""
    return round(1 / (1 - exact(sparsity)))


def factor_rank(inner: int, outer: int, sparsity: float) -> int:
    """R = ceil(9 ci co / ((1 - s) (9 ci + co))): inner width of a factorized 3x3."""
    return math.ceil(9 * inner * outer / ((1 - exact(sparsity)) * (9 * inner + outer)))


def doped_rank(inner: int, outer: int, sparsity: float) -> int:
    """R = floor(9 s ci co / (9 ci + co)): inner width of the dense path beside a sparse 3x3."""
    return int(9 * exact(sparsity) * inner * outer / (9 * inner + outer))


class Convolution(nn.Module):
    """A 3x3 convolution with its norm, in one of the families."""

    def __init__(self, inner: int, outer: int, stride: int, family: Family, sparsity: float):
        super().__init__()
        self.family = family
        self.norm = nn.BatchNorm2d(outer)
        if family == "parallel":
            self.branches = nn.ModuleList(
                nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer))
                for _ in range(branches_for(sparsity))
            )
            return
        if family == "factorized":
            rank = factor_rank(inner, outer, sparsity)
            self.first = nn.Conv2d(inner, rank, 3, stride, 1, bias=False)
            self.between = nn.BatchNorm2d(rank)
            self.second = nn.Conv2d(rank, outer, 1, bias=False)
            return
        self.conv = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        if family == "doped":
            rank = doped_rank(inner, outer, sparsity)
            if not rank:
                raise ValueError(
                    f"family='doped' at sparsity={sparsity} has no product left for a dense path from {inner} to "
                    f"{outer} channels: take more of one or the other"
                )
            self.down = nn.Conv2d(inner, rank, 3, stride, 1, bias=False)
            self.up = nn.Conv2d(rank, outer, 1, bias=False)

    def sparse(self) -> list[nn.Module]:
        """The convolutions of it that are sparse."""
        if self.family == "parallel":
            return [branch[0] for branch in self.branches]  # type: ignore[index]
        return [self.first, self.second] if self.family == "factorized" else [self.conv]

    def forward(self, x: Tensor) -> Tensor:
        """Normalised maps of `outer` channels."""
        if self.family == "parallel":
            return self.norm(sum(branch(x) for branch in self.branches))
        if self.family == "factorized":
            return self.norm(self.second(F.relu(self.between(self.first(x)))))
        if self.family == "doped":
            return self.norm(self.conv(x) + self.up(self.down(x)))
        return self.norm(self.conv(x))


class Block(nn.Module):
    """Two such convolutions beside a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int, family: Family, sparsity: float):
        super().__init__()
        self.first = Convolution(inner, outer, stride, family, sparsity)
        self.second = Convolution(outer, outer, 1, family, sparsity)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        """Maps of `outer` channels."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class Resnet18Cifar(nn.Module):
    """3x3 stem, four stages of basic blocks, mean over places, linear layer."""

    def __init__(
        self,
        base: int,
        blocks: list[int],
        family: Family,
        sparsity: float,
        classes: int,
        resolution: int,
        channels: int,
    ):
        super().__init__()
        self.resolution, self.classes, self.channels = resolution, classes, channels
        self.stem = nn.Conv2d(channels, base, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(base)
        inner, made = base, list[Block]()
        for stage, count in enumerate(blocks):
            for place in range(count):
                outer = base << stage
                made.append(Block(inner, outer, 2 if stage and not place else 1, family, sparsity))
                inner = outer
        self.blocks = nn.Sequential(*made)
        self.head = nn.Linear(inner, classes)

    def sparse(self) -> dict[str, nn.Module]:
        """Names of the convolutions that are sparse: all between the stem and the last linear layer."""
        own = {id(conv) for part in self.modules() if isinstance(part, Convolution) for conv in part.sparse()}
        own |= {id(block.shortcut[0]) for block in self.blocks if isinstance(block.shortcut, nn.Sequential)}
        return {name: part for name, part in self.named_modules() if id(part) in own}

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = self.blocks(F.relu(self.norm(self.stem(images))))
        return self.head(x.mean(dim=(2, 3)))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(next(self.parameters())),)


def resnet18_cifar(
    *,
    family: Literal["dense", "wide", "parallel", "factorized", "doped"] = "dense",
    sparsity: Rate = 0.0,
    classes: PositiveInt = 100,
    width: PositiveInt = 64,
    blocks: list[PositiveInt] | None = None,
    resolution: PositiveInt = 32,
    channels: PositiveInt = 3,
    kernel: Literal["mask", "csr", "gather"] = "mask",
) -> Resnet18Cifar:
    """ResNet-18 for 32 px, dense or as a Sparse-IFT family with static random masks.

    Args:
        family: which transformation; `dense` with a sparsity is the plain network under a mask.
        sparsity: of every convolution between stem and head; .5, .75 or .9 in the paper.
        classes: logits.
        width: channels of the first stage before widening.
        blocks: per stage; None for 2, 2, 2, 2.
        resolution: side of the input.
        channels: of the input.
        kernel: how the sparse convolutions run; `mask` also lets no gradient reach dropped weights, so that it trains.

    Raises:
        ValueError: a family that needs a sparsity without one, or a doped layer too narrow for it.
    """
    check_sparsity(sparsity)
    if family != "dense" and not sparsity:
        raise ValueError(f"family={family!r} spends what sparsity saves: set sparsity to .5, .75 or .9")
    base = int(width * math.sqrt(branches_for(sparsity))) if family == "wide" else width
    counts = [2, 2, 2, 2] if blocks is None else list(blocks)
    network = Resnet18Cifar(base, counts, family, sparsity, classes, resolution, channels)
    if sparsity:
        layers = network.sparse()
        patterns = {name: unstructured(torch.rand_like(layer.weight), sparsity) for name, layer in layers.items()}  # type: ignore[arg-type]
        install_to_train(network, patterns, kernel)
    return network.eval()
