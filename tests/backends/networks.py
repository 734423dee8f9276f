"""Small modules of the shapes that conversions stumble over, and an operator that no backend knows."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Pair = namedtuple("Pair", ["logits", "index"])


@torch.library.custom_op("waterline_tests::odd", mutates_args=())
def odd(x: Tensor) -> Tensor:
    return x * 2


@odd.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.waterline_tests.odd(x) + 1


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


def linear() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return nn.Linear(16, 4).eval(), (torch.randn(2, 16),)


def convnet() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ]
    return nn.Sequential(*layers).eval(), (torch.randn(2, 3, 16, 16),)


def small_vit() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from suites.common.vit import vit

    torch.manual_seed(0)
    return vit(width=32, heads=2, depth=2, patch=8, resolution=32, classes=10).eval(), (torch.randn(2, 3, 32, 32),)


@dataclass
class Answer:
    logits: Tensor
    name: str
    rest: dict[str, Tensor]


class Nested(nn.Module):
    """Takes a tensor, a list and a keyword number; gives a dataclass with a dict of a named tuple's parts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: Tensor, others: list[Tensor], *, scale: float = 1.0) -> Answer:
        logits = self.layer(x + others[0]) * scale
        pair = Pair(logits, logits.argmax(-1))
        return Answer(logits, "answer", {"pair": pair, "sum": others[1].sum()})


def resnet18() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from suites.common.timm_bridge import timm_model

    torch.manual_seed(0)
    return timm_model(name="resnet18"), (torch.randn(1, 3, 64, 64),)


def timm_vit() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from suites.common.timm_bridge import timm_model

    torch.manual_seed(0)
    return timm_model(name="vit_tiny_patch16_224", resolution=64), (torch.randn(1, 3, 64, 64),)
